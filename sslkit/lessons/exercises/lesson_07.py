"""The exercises of lesson 07, photographs."""
from sslkit.lessons.exercises import Exercise

EXERCISES = {
    "07.p": Exercise(
        question="The labels alone and FreeMatch see the same 40 labelled photographs. Which is ahead, and by how many "
                 "points?",
        why="The figure has the answer."),
    "07.1": Exercise(
        question="An encoder was trained to tell breeds of dogs apart. You want to tell indoors from outdoors, and "
                 "train a linear classifier on its embeddings. What will you probably find?",
        choices=("better than from pixels, worse than for breeds", "as good as for breeds", "no better than a guess"),
        answer="better than from pixels, worse than for breeds", hint="What had the encoder a reason to keep?",
        why="It kept what tells breeds apart, and edges, textures and colours on the way. Background was of less use "
            "to it. Measure it: `sslkit probe`."),
    "07.2": Exercise(
        question="With 40 labels a method gains nine points over the labels alone, with 4,000 half a point. Does "
                 "that speak against the method?",
        answer=False, hint="What is left to gain?",
        why="With 4,000 labels none of eleven methods gains a whole point: there is little left to gain. Unlabelled "
            "pictures pay where labels are dear."),
    "07.3": Exercise(
        question="A classifier on embeddings is right for more photographs than the nearest labelled photograph is. "
                 "Both use the same numbers. What can the classifier do that the distance cannot?",
        hint="There are 1,280 numbers.",
        why="It weighs them. Numbers that differ within a class, as those for the background, get little weight. The "
            "distance counts all alike."),
}
