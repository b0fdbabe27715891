"""Exercises of 05_kd_fixmatch."""
from sslkit.lessons.exercises import Exercise


def right_of_as_many(confidence, right, trusted) -> float:
    """Which share is right of the most confident labels, as many as are trusted. All (n,): confidences, and bools."""
    order = confidence.argsort(descending=True, stable=True)[:int(trusted.sum())]
    return float(right[order].float().mean())


def rarest(label, classes: int = 10) -> list[int]:
    """The class, or the classes, with the fewest labels (n,), -1 for none."""
    counts = [int((label == c).sum()) for c in range(classes)]
    return [c for c in range(classes) if counts[c] == min(counts)]


EXERCISES = {
    "05.p": Exercise(
        "One inner network learns from labels with the network's *own* mistakes. The other learns from labels of which "
        "as many are wrong, but *at random*. How will the second do on test images, compared with the first?",
        choices=("better", "about the same", "worse")),
    "05.1": Exercise(
        "For some image the inner network says 4, with 97%. The outer network says 9, with 99%, and its clusters "
        "agree. Which pseudo-label does the inner network get?",
        answer=4,
        hint="Take the three rules in their order. The first that applies decides.",
        why="Its own guess is confident, so nobody else is asked. Thanks to this rule the inner network can get over "
            "some of the outer network's mistakes."),
    "05.2": Exercise(
        "Six images with confident labels lie on a line, at 0, 0, 4, 6, 6 and 7. The labelled image of class A lies at "
        "0, that of class B at 10, and here the two centres begin. The network calls the image at 4 an A. Run k-means "
        "by hand until nothing changes. Is this label trusted?",
        answer=False,
        hint="At first the border is at 5. Where is each centre after its first move, and where is the border then?",
        why="The centres move to 1.33 and 6.33, so the border moves to 3.83: the image at 4 changes to B. Then the "
            "centres are at 0 and 5.75, and nothing changes any more. The last layer says A, the cluster says B."),
    "05.3": Exercise(
        "In the weak network of the map, leave the clusters alone and use confidence only. Take the most confident "
        "labels, as many as there are trusted ones. What share of them is right?",
        answer=right_of_as_many, within=0.015,
        hint="Look at the weak network's diamond: it is the point of the line straight above or below. In a cell: "
             "sort by `weak_p.amax(1)` and take the first `(weak_trusted.label >= 0).sum()`.",
        why="The distance between this and the diamond is what the clusters know and confidence does not."),
    "05.4": Exercise(
        "Still the weak network: which digit has the fewest trusted labels?",
        answer=rarest,
        hint="It need not be one of the map's two digits. In a cell: `torch.bincount` of the trusted labels that are "
             "not -1.",
        why="A second opinion can refuse a wrong label, but it puts no right one in its place. So a class that the "
            "network overlooks is rare among the labels that you hand on, or missing. Count the labels of each class "
            "before you train on them."),
    "05.5": Exercise(
        "You may train on one of two sets of labels for photographs of animals. Anna got 30% wrong: she was tired and "
        "often hit some wrong key. Ben got 10% wrong: he calls every wolf a husky. Whose labels do you take, and what "
        "do you look at before you decide?",
        hint="Whose mistakes contradict each other?",
        why="If wolves matter to you, take Anna's: her mistakes point in all directions, and a network can learn "
            "past most of them. From Ben's labels no network can learn what a wolf is, however many there are. To "
            "find a Ben, do not only count wrong labels. Look at a few dozen of them, and see whether they are "
            "all of one kind."),
}
