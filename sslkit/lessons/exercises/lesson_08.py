"""The exercises of lesson 08, your own photographs."""
from sslkit.labelers import interval
from sslkit.lessons.exercises import Exercise


def high_end(right: int, n: int) -> float:
    return 100 * interval(right, n)[1]


EXERCISES = {
    "08.p": Exercise(
        question="How many percent of the check pictures will the computer get right, from the labels that you give?",
        why="The picture below has the answer, and how sure it is."),
    "08.1": Exercise(
        question="You look at 50 guesses, drawn at random, and none is wrong. Up to how many percent of all guesses "
                 "may still be wrong? (The upper end of the 95% interval: `from sslkit.labelers import interval`, then "
                 "`interval(0, 50)`.)",
        answer=high_end(0, 50), within=0.6, hint="`interval(wrong, number)` gives two fractions.",
        why="About 7%. Rule of thumb: 3 divided by the number you looked at, and a little more."),
    "08.2": Exercise(
        question="A friend photographs each of his plants ten times, one shot after the other, and draws the check "
                 "pictures from all of them at random. Is the accuracy that he measures too high, too low, or right?",
        choices=("too high", "too low", "right"), answer="too high", hint="What lies beside a check picture?",
        why="A shot of the same plant, nearly the same picture, is among those that the computer learns from. On a new "
            "plant it does worse. So we keep near copies out of the check pictures."),
    "08.3": Exercise(
        question="You label only the pictures of which the computer is least sure, and measure its accuracy on these. "
                 "Is what you get too high, too low, or right for all pictures?",
        choices=("too high", "too low", "right"), answer="too low", hint="Are they like the others?",
        why="They are the hard ones. To measure, draw at random; to learn, choose as you like."),
    "08.4": Exercise(
        question="Write the sentence about these labels that you would put into a report: how many there are, who gave "
                 "them, and how right they are. (An open question.)",
        hint="An accuracy alone is not enough: of which pictures, drawn how, from where to where may it lie?",
        why="For example: \"Of 2,000 pictures 120 were labelled by hand. A classifier labelled the others. Of 20 drawn "
            "at random 14 were right; the share for all may lie from 48 to 85%.\" So others can judge."),
}
