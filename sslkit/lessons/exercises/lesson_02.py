"""The exercises of lesson 02, FixMatch."""
from sslkit.lessons.exercises import Exercise

EXERCISES = {
    "02.p": Exercise(
        question="Which of the two loses more than a point of FixMatch's accuracy?",
        choices=("the same view", "no threshold", "neither"), why="The figure below has the answer, for digits."),
    "02.1": Exercise(
        question="Four unlabelled rows, $\\tau = 0.95$, confidences 0.99, 0.96, 0.90 and 0.50. The cross entropy on "
                 "every strong view is 0.8. What is $\\ell_u$?",
        answer=0.4, within=1e-6, hint="How many rows count, and over how many is the mean?",
        why="Two rows are above the threshold. The mean is over all four: 2 * 0.8 / 4 = 0.4."),
    "02.2": Exercise(
        question="Suppose somebody divides by the number of rows that are used instead. What would $\\ell_u$ be in "
                 "that case?",
        answer=0.8, within=1e-6, hint="Two rows, both with 0.8.",
        why="It would be 0.8, however few rows are used. Early in training a handful of pseudo-labels would weigh "
            "as much as all of them later."),
    "02.3": Exercise(
        question="What is the lowest $\\tau$ at which at most two wrong guesses are used? Take it from `confidence` "
                 "and `right`.",
        answer=lambda confidence, right: confidence[~right].sort(descending=True).values[2].item() + 1e-4, within=0.005,
        hint="Sort the confidences of the wrong guesses, the largest first.",
        why="It lies just above the third most confident mistake. In practice nobody can read it off: it needs the "
            "truth."),
    "02.4": Exercise(
        question="Of the guesses that the trained network makes with confidence 0.95 and more, how many are wrong? "
                 "Use `guess`, `truth` and `confidence`.",
        answer=lambda guess, truth, confidence: int(((guess != truth) & (confidence >= 0.95)).sum()),
        hint="Two conditions: confident, and not equal to the truth.",
        why="These are the mistakes that the training repeats."),
    "02.5": Exercise(
        question="With `tau = 0`: what happens to the guesses, and what to the test accuracy? Say first what you "
                 "expect. (An open question.)",
        answer=None, hint="At the first steps most guesses are wrong, and all of them are learnt.",
        why="The first, poor guesses become labels. With our five choices of labelled images that cost nothing on "
            "average: from 2.5 points more to 1.5 less than with the threshold."),
}
