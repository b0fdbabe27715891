"""Exercises of 06_hdl."""
from sslkit.lessons.exercises import Exercise


def first_flood(ratio) -> int:
    """The first round in which some class has more than 1.5 times the images that we expect; 0: none. ratio (rounds +
    1, C), of class_growth()."""
    above = ratio.amax(1) > 1.5
    return int(above.nonzero()[0]) if above.any() else 0


EXERCISES = {
    "06.p": Exercise(
        "We give each image 20 neighbours instead of 5, and spread the given labels again. How many percent of "
        "all labels will be right?"),
    "06.1": Exercise(
        "An image has five neighbours. Their labels are 3, 3, 8, none and 8. Their cosines, in the same order, are "
        "0.90, 0.50, 0.80, 0.95 and 0.70. Which label does the image get?",
        answer=8,
        hint="Who may vote? And what decides when two classes have equally many votes?",
        why="Both classes have two votes. The cosines of the 8s add up to 1.50, those of the 3s to 1.40. The most "
            "similar neighbour of all has no label, so it has no say."),
    "06.2": Exercise(
        "Three images have no label yet. At k 5 their L are 1, 4 and 2. The next round labels the image with L = 4, "
        "which is a neighbour of the image with L = 1. What is the largest L after this round?",
        answer=2,
        hint="Which of the three are still waiting? Whose L has changed?",
        why="The image with L = 4 has a label now, so it waits no longer. The L of its neighbour went from 1 to 2, "
            "and the third image still has 2."),
    "06.3": Exercise(
        "Now k is 1. Two images have no label, and each is the single neighbour of the other. Will a round ever "
        "reach them?",
        answer="no, a label must be copied to one of them",
        choices=("yes, some rounds later", "no, a label must be copied to one of them"),
        hint="What would have to happen before the first of them gets L = 1?",
        why="The first gets L = 1 only when the second has a label, and the second only when the first has one. Every "
            "chain of nearest neighbours ends in such a pair. This is why so many labels must be copied at k 1."),
    "06.4": Exercise(
        "Find the flood with the slider above: in which round does some class first have more than 1.5 times the "
        "images that we expect? (Type 0 if none ever does. 25 rounds more or less count as right.)",
        answer=first_flood, within=25,
        hint="The title names the class that is largest so far. The arrow keys move the slider by one round.",
        why="The picture and its title use no truth, only the labels that were given and those that have spread. So "
            "you could have stopped HDL in this round."),
}
