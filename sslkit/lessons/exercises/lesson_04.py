"""Exercises of 04_simmatch_sweep."""
from sslkit.lessons.exercises import Exercise


def loss_of_the_winner(grid, s: int = 1) -> float:
    """Points that the best cells of seed s lose with the other seeds; grid (R, C, seeds) of fractions."""
    winners = grid[:, :, s] == grid[:, :, s].max()
    others = [o for o in range(grid.shape[2]) if o != s]
    return 100 * float(grid[:, :, s].max() - grid[winners][:, others].mean())


EXERCISES = {
    "04.p": Exercise(
        "The best cell leads the average cell by some points, with the seed that chose it. How much of this lead is "
        "left with the other seeds, in percent?"),
    "04.1": Exercise(
        "Seed 1 chooses a cell, and you report its accuracy. How many points less does this cell have with the seeds "
        "0 and 2, on average? (If several cells are equally good, take them all.)",
        answer=loss_of_the_winner, within=0.06,
        hint="`grid[:, :, 1]` has seed 1's accuracies. Where are they largest, and what do `grid[:, :, 0]` and "
             "`grid[:, :, 2]` have at these places?",
        why="This is what readers of your report would lose who run it again. With seed 0 as the judge you would lose "
            "less: how much the winner's curse costs is a matter of luck too."),
    "04.2": Exercise(
        "You compare 35 settings with the default, and none makes a difference. How many seeds do you need at least, "
        "so that luck alone makes *fewer than one* of them better with every seed, on average?",
        answer=6,
        hint="With n seeds luck makes 35 / 2ⁿ of them better each time.",
        why="With five seeds it is 35 / 32, just above 1. With six it is 35 / 64, about one half."),
    "04.3": Exercise(
        "A paper reports five seeds for each method, with other labelled images for A than for B: A 95.2 ± 1.0%, "
        "B 95.9 ± 1.2% (mean and standard deviation). Is B better?",
        answer="cannot tell", choices=("yes", "no", "cannot tell"),
        hint="The error of a mean is the standard deviation divided by √5. The difference of two means has the error "
             "√(error of A² + error of B²).",
        why="The errors are 0.45 and 0.54, so the difference of 0.7 has an error of 0.7. It would have to be twice as "
            "large. With the same labelled images for both, the same runs might have been enough."),
    "04.4": Exercise(
        "Now the corner where nothing is kept. The classifier gives a class the probability 1, and $\\alpha = 0.8$. "
        "Which probability must the album give to that class, so that $\\hat p$ reaches $\\tau = 0.95$?",
        answer=0.75, within=0.001,
        hint="0.8 × 1 + 0.2 × q = 0.95.",
        why="An album that gives shares to many entries does not reach 75% for one class. Then no image is kept."),
    "04.5": Exercise(
        "Set `seed = 1` in the first cell, and run the nine short runs again. Does the cell win that you wrote down? "
        "What would you need before you recommend it?",
        hint="It takes about a minute.",
        why="With runs this short another seed may well have another winner. To recommend a cell you need several "
            "seeds which did not choose it, and the same seeds for its rivals."),
}
