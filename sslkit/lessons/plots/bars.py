"""Fractions as bars; counts and fractions as coloured cells."""
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.collections import PolyCollection

from sslkit.lessons.plots.figure import COLORS, INK, PERCENT, Figure, new, styled


@styled
def confusion(matrix, classes: Sequence[str], *, title: str = "", xlabel: str = "pseudo-label",
              ylabel: str = "true class") -> Figure:
    """Counts (C, C), row the true class, coloured by their share of the row. A pale diagonal lets errors stand out."""
    matrix = np.asarray(matrix)
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    side = max(4.0, 0.45 * len(classes) + 0.8)
    figure, axis = new(side + 0.6, side, f"confusion of {ylabel} and {xlabel}")
    wrong = np.ma.masked_where(np.eye(len(classes), dtype=bool), share)
    top = max(0.1, wrong.max())
    axis.imshow(wrong, cmap="Oranges", vmin=0, vmax=top)
    for r, c in np.argwhere(matrix > 0):
        color = "#888888" if r == c else "white" if share[r, c] > 0.6 * top else INK
        axis.text(c, r, f"{matrix[r, c]}", ha="center", va="center", fontsize=8, color=color)
    _name_cells(axis, classes, classes, title=title, xlabel=xlabel, ylabel=ylabel, facecolor="#F2F2F2")
    axis.tick_params(axis="x", labelrotation=0 if max(map(len, classes)) < 4 else 60)
    return figure


@styled
def heat(matrix, rows: Sequence, columns: Sequence, *, ylabel: str, xlabel: str, title: str = "") -> Figure:
    """Fractions (R, C) as coloured cells with their numbers; NaN stays empty. rows (R,), columns (C,): numbers."""
    matrix = np.asarray(matrix, float)
    figure, axis = new(1.6 + 0.85 * len(columns), 1.3 + 0.5 * len(rows), title or f"accuracy by {ylabel} and {xlabel}")
    axis.imshow(matrix, cmap="viridis", aspect="auto")
    colors = np.where(matrix <= (np.nanmin(matrix) + np.nanmax(matrix)) / 2, "white", "black")
    for r, c in np.argwhere(~np.isnan(matrix)):
        axis.text(c, r, f"{matrix[r, c]:.1%}", ha="center", va="center", fontsize=9, color=colors[r, c])
    _name_cells(axis, [f"{r:g}" for r in rows], [f"{c:g}" for c in columns], title=title, xlabel=xlabel, ylabel=ylabel)
    return figure


def _name_cells(axis, rows: Sequence[str], columns: Sequence[str], **texts: str) -> None:
    axis.grid(False)
    axis.set(xticks=range(len(columns)), xticklabels=columns, yticks=range(len(rows)), yticklabels=rows, **texts)


@styled
def bars(groups: Mapping[str, Mapping[str, float | None]], *, title: str = "", low: float = 0.0) -> Figure:
    """Fractions side by side, each with its number: group -> name -> value or None. low: where the axis begins."""
    names = dict.fromkeys(name for group in groups.values() for name in group)
    figure, axis = new(1.4 + 1.7 * len(groups), 3.2, title or ", ".join(groups))
    bars_beside(axis, {name: [group.get(name) for group in groups.values()] for name in names}, numbers=True)
    axis.set(title=title, ylim=(low, 1.0), xticks=range(len(groups)), xticklabels=groups)
    axis.autoscale(axis="x")
    return _legend_below(figure, axis)


@styled
def class_bars(values: Mapping[str, Sequence[float | None]], classes: Sequence[str], *,
               groups: Mapping[str, Sequence[int]] = {}, counts: Sequence[int] = (), title: str = "") -> Figure:
    """Fractions of each class side by side: name -> (C,), None where there is none. groups: head, middle, tail -> class
    numbers, shaded; counts (C,): training images, written under each class's name."""
    alt = (title or "accuracy of each class") + ": " + ", ".join(values)
    figure, axis = new(max(6.0, 1.2 + 0.75 * len(classes)), 3.3, alt)
    above = axis.get_xaxis_transform()
    for name, group in groups.items():
        shade = "#F4F4F4" if name == "middle" else "#E9EEF4"
        axis.axvspan(min(group) - 0.5, max(group) + 0.5, color=shade, linewidth=0, zorder=0)
        axis.text(np.mean(group), 1.02, name, ha="center", va="bottom", fontsize=9, transform=above)
    bars_beside(axis, values)
    axis.set_title(title, pad=18 if groups else None)
    axis.set(xlim=(-0.6, len(classes) - 0.4), ylim=(0, 1.0))
    names = [f"{name}\n{count:,}" for name, count in zip(classes, counts)] if len(counts) else classes
    axis.set_xticks(range(len(classes)), names, rotation=0 if max(map(len, classes)) < 8 else 60)
    return _legend_below(figure, axis)


def _legend_below(figure: Figure, axis) -> Figure:
    axis.grid(False, axis="x")
    if len(axis.collections) > 1:
        figure.legend(loc="outside lower center", ncols=len(axis.collections))
    return figure


def bars_beside(axis, series: Mapping[str, Sequence | None], *, colors: Sequence[str] = COLORS, width: float = 0.8,
                numbers: bool = False) -> None:
    """Draw fractions as bars side by side, in groups at 0 ... n - 1: name -> (n,), None or NaN where there is none. A
    series that is None keeps its place free, so that pictures can be compared. numbers: written above the bars."""
    each = width / len(series)
    for k, (name, values) in enumerate(series.items()):
        if values is None:
            continue
        heights = np.asarray(values, float)
        left = np.arange(len(heights)) + (k - len(series) / 2 + 0.04) * each
        right = left + 0.92 * each
        corners = [[(a, 0), (a, y), (b, y), (b, 0)] for a, b, y in zip(left, right, heights)]      # axis.bar() is slow
        axis.add_collection(PolyCollection(corners, facecolors=colors[k % len(colors)], linewidths=0, label=name))
        for x, y in zip((left + right) / 2, heights) if numbers else ():
            text = "" if np.isnan(y) else f"{y:.1%}"
            axis.annotate(text, (x, y), (0, 2), textcoords="offset points", ha="center", va="bottom", fontsize=8)
    axis.yaxis.set_major_formatter(PERCENT)
