"""Exercises of 09_family."""
from sslkit.lessons.exercises import Exercise

EXERCISES = {
    "09.p": Exercise(
        "Which method will have the highest mean with 20 labels?",
        choices=("MeanTeacher", "VAT", "MixMatch", "ReMixMatch", "FixMatch", "FreeMatch", "CoMatch", "SimMatch")),
    "09.1": Exercise(
        "You give UDA a very small temperature $T$. Which method does it become, apart from the "
        "value of its threshold?",
        answer="FixMatch", choices=("Pseudo-Label", "FixMatch", "MixMatch", "Dash"),
        hint="Open *FixMatch → UDA* above. What is $\\mathrm{softmax}(z / T)$ for a tiny $T$?",
        why="The sharpened answer becomes one-hot: a label. And the KL divergence from a one-hot target is the cross "
            "entropy, because a one-hot target has no entropy of its own."),
    "09.2": Exercise(
        "Late in training, the network gives a class 90% for a weak view. Which of the three uses this image, with "
        "its default settings: FixMatch, Dash or UDA?",
        answer="UDA", choices=("FixMatch", "Dash", "UDA"),
        hint="`sslkit train dash --help` has the thresholds. Dash's is a loss: $-\\log 0.9$ is 0.105.",
        why="UDA's threshold is 0.8, FixMatch's 0.95. Dash's tightest is a loss of 0.05, a confidence of 0.951: late "
            "in training Dash has FixMatch's threshold."),
    "09.3": Exercise(
        "Dash starts from a labelled loss of 2. Each time it tightens, the threshold is divided by 1.27. How many "
        "times must it tighten until it is below 0.05?",
        answer=16, hint="$2 / 1.27^t < 0.05$, so $t > \\ln 40 / \\ln 1.27$.",
        why="$\\ln 40 / \\ln 1.27$ is 15.4. It tightens every 9 of 1,024 epochs, so this is the case after 145 of "
            "them: in the first seventh of the run."),
    "09.4": Exercise(
        "Suppose all 13 methods were equally good. In how many of the 78 pairs would one of the two be ahead with "
        "each of *eight* seeds, on average, by luck?",
        answer=78 / 128, within=0.06,
        hint="The second seed must agree with the first, and the third, and so on: seven coins.",
        why="78 / 2⁷ is 0.6. With five seeds it was 78 / 2⁴, about 5: five seeds tell large differences alone."),
    "09.5": Exercise(
        "You have 40 labelled photographs, ten each of dogs, foxes, cats and wolves, and 2,000 from a trail camera "
        "without labels: nearly all are foxes. Which of these three would you rather not take?",
        answer="ReMixMatch", choices=("Dash", "ReMixMatch", "UDA"),
        hint="Which of them expects that its guesses name each class as often as the labels do?",
        why="It would call many of the foxes wolves, until there are as many wolves as dogs. Dash and UDA expect "
            "nothing of the kind."),
    "09.6": Exercise(
        "Set `step = 400` and run the lesson again. Which methods now use many more images than at step 120, and "
        "which hardly more? Why?",
        hint="It takes about a minute.",
        why="The network is more confident, so those with a fixed threshold use more. FreeMatch's threshold rises with "
            "the confidence, so it uses about as many as before, or fewer. Those without a threshold used all from the "
            "start."),
}
