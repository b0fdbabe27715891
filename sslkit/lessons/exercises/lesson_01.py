"""Exercises of 01_views."""
from sslkit.lessons.exercises import Exercise

EXERCISES = {
    "01.p": Exercise(
        "Our network reads 95 of 100 test images. We now change these images as strongly as a strong view of "
        "photographs may. How many of 100 will it still read?"),
    "01.1": Exercise(
        "An image has 32 by 32 pixels. Add a border of 4 pixels that mirrors the image, then cut out 32 by 32 pixels "
        "somewhere. How many different weak views are there, without mirroring left to right?",
        answer=81,
        hint="The border of 1 pixel gave 3 places in each direction, so 9. How many places does a border of 4 give?",
        why="There are 2 × 4 + 1 = 9 places in each direction, and 9 × 9 = 81."),
    "01.2": Exercise(
        "*Posterize* with 4 bits keeps the four highest bits of each pixel and sets the others to 0. Which value does "
        "a pixel of 203 become?",
        answer=192,
        hint="The four lowest bits count up to 15. What remains is a multiple of 16.",
        why="192 = 12 × 16 is the largest multiple of 16 that is not above 203."),
    "01.3": Exercise(
        "You want to teach a network to tell the letters b and d apart. Which of these must stay out of the views?",
        answer="mirror left to right", choices=("shift by a pixel", "mirror left to right", "a little brighter"),
        hint="Draw a b, and do it.",
        why="A mirrored b is a d. The view has changed the label, and the network learns a lie."),
}
