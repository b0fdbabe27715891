"""The exercises of lesson 00, a tour."""
from sslkit.lessons.exercises import Exercise

EXERCISES = {
    "00.p": Exercise(
        question="A network learns from these 20 images alone. How many of the 400 test images will it get wrong?",
        why="The next cell has the answer."),
    "00.1": Exercise(
        question="FixMatch looks at the weak view of an unlabelled image and is 90% confident that it is a 3. Does "
                 "the image teach the network anything in this step?",
        answer="no", choices=("yes", "no"), hint="Compare 90% with the threshold in the drawing.",
        why="The guess is below 95%, so the image waits. The network may be more confident about it later."),
    "00.2": Exercise(
        question="In which of the four steps of the drawing does the network learn from an *unlabelled* image? Give "
                 "its number.",
        answer=4, hint="Where is the network asked to give a certain answer?",
        why="In the second and third step it only looks and decides. In the fourth it is trained to give the "
            "pseudo-label."),
    "00.3": Exercise(
        question="Which share of the mistakes that the labels alone make did FixMatch remove? The numbers are in "
                 "`wrong`.",
        answer=lambda wrong: 1 - wrong["FixMatch"] / wrong["supervised"], within=0.02,
        hint="One minus the mistakes with FixMatch divided by the mistakes without.",
        why="A share of mistakes removed says more than a difference of accuracies: near 100% every point is hard "
            "to win."),
    "00.4": Exercise(
        question="Change `seed` to 4 in the second cell and run everything again. What happens, and why? (An open "
                 "question.)",
        answer=None, hint="Look at the twenty labelled images. Are the examples of each digit good ones?",
        why="With seed 4 FixMatch gains much less. The network is confident and wrong about a whole digit, and its "
            "pseudo-labels confirm the mistake: confirmation bias. Unusual examples may have a part in it, but other "
            "methods do well with the same ones."),
}
