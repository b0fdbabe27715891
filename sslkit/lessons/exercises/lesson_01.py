"""The exercises of lesson 01, views."""
from sslkit.lessons.exercises import Exercise

EXERCISES = {
    "01.p": Exercise(
        question="With which strength of its strong views does FixMatch become the best network?",
        choices=("magnitude 0", "magnitude 0.25", "magnitude 0.5", "magnitude 0.75", "magnitude 1"),
        why="The figure below has the answer, for digits."),
    "01.1": Exercise(
        question="How many different weak views does a photograph of 32 by 32 pixels have, with a border of 4 "
                 "pixels and without mirroring?",
        answer=81, hint="With a border of 1 there were three places in each direction.",
        why="A border of 4 leaves 2 * 4 + 1 = 9 places in each direction, so 81. Mirroring would double them."),
    "01.2": Exercise(
        question="Posterize keeps the highest bits of each pixel. Which value does 203 become if it keeps 4 of 8 "
                 "bits?",
        answer=192, hint="Write 203 with eight bits and set the last four to 0.",
        why="203 is 1100 1011. Without its last four bits it is 1100 0000, which is 192."),
    "01.3": Exercise(
        question="You want to sort photographs of traffic lights into red, yellow and green. Which operation must "
                 "not be among your strong views?",
        answer="Color", choices=("Rotate", "Color", "Sharpness", "Cutout"), hint="What does a person look at?",
        why="Color at its end makes a photograph grey. Then nothing is left that tells red from green but the place "
            "of the light."),
    "01.4": Exercise(
        question="Why does the pool hold *Identity*, which does nothing? (An open question.)", answer=None,
        hint="Two operations are drawn for each image.",
        why="Then some strong views are only a little changed, so an image is not always hard. The authors of "
            "RandAugment give no other reason; many good answers exist."),
}
