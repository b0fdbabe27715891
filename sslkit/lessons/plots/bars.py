"""Fractions as bars, counts and fractions as coloured cells."""
from collections.abc import Mapping, Sequence

import matplotlib
import matplotlib.patheffects
import matplotlib.ticker
import numpy as np

from sslkit.lessons.plots.figure import INK, Figure, new, styled


@styled
def confusion(matrix, classes: Sequence[str], *, title: str = "", xlabel: str = "pseudo-label", ylabel: str = "true class") -> Figure:
    """Counts (C, C), row the true class; each row is coloured by its share, the diagonal left pale so that the errors stand out."""
    matrix = np.asarray(matrix)
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    side = max(4.0, 0.45 * len(classes) + 0.8)
    figure, axis = new(side + 0.6, side, "confusion of true class and pseudo-label")
    wrong = np.ma.masked_where(np.eye(len(classes), dtype=bool), share)
    axis.set_facecolor("#F2F2F2")
    top = max(0.1, wrong.max())
    axis.imshow(wrong, cmap="Oranges", vmin=0, vmax=top)
    for r, c in np.argwhere(matrix > 0):
        dark = r != c and share[r, c] > 0.6 * top
        axis.text(c, r, f"{matrix[r, c]}", ha="center", va="center", fontsize=8, color="white" if dark else INK if r != c else "#888888")
    axis.grid(False)
    axis.set(title=title, xlabel=xlabel, ylabel=ylabel, xticks=range(len(classes)), yticks=range(len(classes)))
    axis.set_xticklabels(classes, rotation=0 if max(map(len, classes)) < 4 else 60)
    axis.set_yticklabels(classes)
    return figure


@styled
def bars(groups: Mapping[str, Mapping[str, float]], *, title: str = "", low: float = 0.0) -> Figure:
    """Fractions side by side: group -> name -> value, each with its number; None where there is none. low: where the axis begins."""
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    figure, axis = new(1.4 + 1.7 * len(groups), 3.2, title or ", ".join(groups))
    width = 0.8 / len(names)
    for k, name in enumerate(names):
        found = axis.bar(np.arange(len(groups)) + (k - (len(names) - 1) / 2) * width,
                         [np.nan if group.get(name) is None else group[name] for group in groups.values()], 0.92 * width, label=name)
        axis.bar_label(found, ["" if group.get(name) is None else f"{group[name]:.1%}" for group in groups.values()], fontsize=8, padding=2)
    axis.set(title=title, xticks=range(len(groups)), ylim=(low, 1.0))
    axis.set_xticklabels(groups)
    axis.grid(False, axis="x")
    axis.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1, decimals=0))
    if len(names) > 1:
        figure.legend(loc="outside lower center", ncols=len(names))
    return figure


@styled
def heat(matrix, rows: Sequence, columns: Sequence, *, ylabel: str, xlabel: str, title: str = "") -> Figure:
    """Fractions (rows, columns) as coloured cells with their numbers; NaN stays empty."""
    matrix = np.asarray(matrix, float)
    figure, axis = new(1.6 + 0.85 * len(columns), 1.3 + 0.5 * len(rows), title or f"accuracy by {ylabel} and {xlabel}")
    axis.imshow(matrix, cmap="viridis", aspect="auto")
    middle = (np.nanmin(matrix) + np.nanmax(matrix)) / 2
    for r, c in np.argwhere(~np.isnan(matrix)):
        axis.text(c, r, f"{matrix[r, c]:.1%}", ha="center", va="center", fontsize=9, color="white" if matrix[r, c] <= middle else "black")
    axis.grid(False)
    axis.set(title=title, xlabel=xlabel, ylabel=ylabel, xticks=range(len(columns)), yticks=range(len(rows)))
    axis.set_xticklabels([f"{c:g}" for c in columns])
    axis.set_yticklabels([f"{r:g}" for r in rows])
    return figure


@styled
def class_bars(values: Mapping[str, Sequence[float | None]], classes: Sequence[str], *, groups: Mapping[str, Sequence[int]] = {},
               counts: Sequence[int] = (), title: str = "") -> Figure:
    """Fractions of each class side by side: name -> (C,), None where there is none. groups: head, middle and tail, each on a ground of its
    own; counts (C,): training images, under each class's name."""
    figure, axis = new(max(6.0, 1.2 + 0.75 * len(classes)), 3.3, (title or "accuracy of each class") + ": " + ", ".join(values))
    width, at = 0.8 / len(values), np.arange(len(classes))
    for name, group in groups.items():
        axis.axvspan(min(group) - 0.5, max(group) + 0.5, color="#F4F4F4" if name == "middle" else "#E9EEF4", linewidth=0, zorder=0)
        axis.text(np.mean(group), 1.02, name, ha="center", va="bottom", fontsize=9, transform=axis.get_xaxis_transform())
    for k, (name, each) in enumerate(values.items()):
        heights = [np.nan if value is None else value for value in each]
        axis.bar(at + (k - (len(values) - 1) / 2) * width, heights, 0.92 * width, label=name)
    axis.set_title(title, pad=18 if groups else None)
    names = [f"{name}\n{count:,}" for name, count in zip(classes, counts)] if len(counts) else list(classes)
    axis.set_xticks(at, names, rotation=0 if max(map(len, classes)) < 8 else 60)
    axis.set(xlim=(-0.6, len(classes) - 0.4), ylim=(0, 1.0))
    axis.grid(False, axis="x")
    axis.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1, decimals=0))
    if len(values) > 1:
        figure.legend(loc="outside lower center", ncols=len(values))
    return figure
