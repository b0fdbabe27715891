"""Exercises of 03_simmatch."""
from sslkit.lessons.exercises import Exercise


def turning_point(p, q) -> float | str:
    """The largest share alpha of p (C,) under which alpha p + (1 - alpha) q names another class than p alone, to a
    thousandth; "never" if none does."""
    other = [k / 1000 for k in range(1001) if (k * p + (1000 - k) * q).argmax() != p.argmax()]
    return max(other) if other else "never"


def half_of_the_album(cosines, t: float = 0.5) -> int:
    """How many entries, the most similar first, it takes until their shares at temperature t sum to a half."""
    return int(((cosines / t).softmax(0).sort(descending=True).values.cumsum(0) < 0.5).sum()) + 1


EXERCISES = {
    "03.p": Exercise(
        "Now we mix the two answers, with most of the weight on the classifier. Will the mixture be more confident "
        "than the classifier alone, or less?",
        choices=("more confident", "less confident")),
    "03.1": Exercise(
        "Two classes, $p_w = (0.6, 0.4)$, $q^{agg} = (0.9, 0.1)$ and $\\alpha = 0.9$. Which probability does the "
        "pseudo-label $\\hat p$ give to the first class?",
        answer=0.63, within=0.001,
        hint="Nine parts of the classifier's 0.6, one part of the album's 0.9.",
        why="0.9 × 0.6 + 0.1 × 0.9 = 0.63. Both witnesses name the first class, and the album is more confident of it: "
            "so the pseudo-label is more confident than the classifier."),
    "03.2": Exercise(
        "An album of three images, of the classes 0, 0 and 1. For some image $q_w = (0.5, 0.25, 0.25)$ and "
        "$p_w = (0.2, 0.8)$. Which share does $\\hat q$ give to the *third* image of the album?",
        answer=0.2 / 0.35, within=0.006,
        hint="Multiply each share by the probability of its class. Then divide by the sum of the three products.",
        why="The products are 0.1, 0.05 and 0.2. So the third gets 0.2 / 0.35 = 0.57: the album found it only half as "
            "similar as the first, but the classifier thinks of the other class."),
    "03.3": Exercise(
        "An album has collapsed: $q_w$ is the same for all 20 entries, two of each of ten classes. Is an image kept "
        "($\\tau = 0.95$, $\\alpha = 0.9$) if the classifier gives its class a probability of 1?",
        answer=False,
        hint="What is $q^{agg}$ of each class when all entries get the same share? Mix a tenth of it in.",
        why="$q^{agg}$ is 1/10 for each class, so $\\hat p$ is 0.9 × 1 + 0.1 × 0.1 = 0.91. No image whatever reaches "
            "0.95: a collapsed album stops all pseudo-labels, however good the classifier is."),
    "03.4": Exercise(
        "For the image that we followed, turn $\\alpha$ down from 1. At which $\\alpha$ does $\\hat p$ first name "
        "another class than the classifier? (Write *never* if it does not.)",
        answer=turning_point, within=0.02,
        hint="The slider brackets it. In a cell: `(a * p_w[k] + (1 - a) * q_agg[k]).argmax()` for some values of a.",
        why="There the probabilities of the two classes are equal. The more confident the classifier is, the smaller "
            "its share must become before the album decides. The paper's 0.9 lets the album lower the confidence, and "
            "hardly ever change the class."),
    "03.5": Exercise(
        "For the same image take $t = 0.5$ instead. Go through the album, the most similar entry first. After how many "
        "entries do the shares sum to one half or more?",
        answer=half_of_the_album,
        hint="`(similarity[k] / 0.5).softmax(0)` are the shares at that temperature. Sort them, and add them up.",
        why="At a high temperature many entries have a say, so no class gets most of the shares. Then the album "
            "makes nearly every pseudo-label less confident."),
}
