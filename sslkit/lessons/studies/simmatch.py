"""A study of SimMatch: how much alpha and t matter."""
from collections.abc import Sequence

from sslkit.lessons.session import fit_all
from sslkit.lessons.studies.tools import DIGITS, Rows, labeled
from sslkit.methods import SimMatch
from sslkit.training import Config, DataSpec

LAST = {"test_acc": "test_acc", "pseudo_acc_all": "pseudo_label_acc_all", "kept": "mask_rate"}


def simmatch_sweep(labels: int, seeds: Sequence[int], steps: int, source: DataSpec = DIGITS,
                   alphas: Sequence[float] = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
                   ts: Sequence[float] = (0.02, 0.05, 0.07, 0.1, 0.2, 0.5)) -> Rows:
    """A row an alpha, t and seed: at the last evaluation test accuracy, the share of right pseudo-labels, and the share
    kept."""
    grid = [{"alpha": alpha, "t": t, "seed": seed} for seed in seeds for alpha in alphas for t in ts]
    runs = fit_all({tuple(row.values()): (SimMatch(alpha=row["alpha"], t=row["t"]),
                                          labeled(source, labels, row["seed"]), Config(seed=row["seed"], steps=steps))
                    for row in grid})
    rows = []
    for row, run in zip(grid, runs.values()):
        last = run.metrics[-1]
        rows.append(row | {"steps": steps, "labels": labels} | {name: last[key] for name, key in LAST.items()})
    return rows
