"""Fractions as bars; counts and fractions as coloured cells."""
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle

from sslkit.lessons.plots.figure import COLORS, INK, PERCENT, Figure, fractions, new, readable, styled

NEUTRAL = LinearSegmentedColormap.from_list("neutral", ["#F7F8FA", "#8A9BB0"])     # dark text is legible on all of it


@styled
def confusion(matrix, classes: Sequence[str], *, title: str = "", xlabel: str = "pseudo-label",
              ylabel: str = "true class", alt: str | None = None) -> Figure:
    """Counts (C, C), row the true class, coloured by their share of the row. A pale diagonal lets errors stand out."""
    matrix = np.asarray(matrix)
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    errors = matrix * ~np.eye(len(classes), dtype=bool)
    true, other = np.unravel_index(errors.argmax(), errors.shape)
    most = f", most often {classes[other]} for {classes[true]} ({errors.max()} times)" if errors.any() else ""
    side = min(max(4.0, 0.45 * len(classes) + 0.8), 8.4)
    said = f"{ylabel} and {xlabel}: {errors.sum():,} of {matrix.sum():,} wrong{most}"
    figure, axis = new(side + 0.6, side, alt or said)
    wrong = np.ma.masked_where(np.eye(len(classes), dtype=bool), share)
    top = max(0.1, wrong.max())
    axis.imshow(wrong, cmap="Oranges", vmin=0, vmax=top)
    for r, c in np.argwhere(matrix > 0) if len(classes) <= 20 else ():
        color = "#707070" if r == c else "white" if share[r, c] > 0.6 * top else INK
        axis.text(c, r, f"{matrix[r, c]}", ha="center", va="center", fontsize=9, color=color)
    _name_cells(axis, classes, classes, title=title, xlabel=xlabel, ylabel=ylabel, facecolor="#F2F2F2")
    axis.tick_params(axis="x", labelrotation=0 if max(map(len, classes)) < 4 else 60)
    return figure


@styled
def heat(matrix, rows: Sequence, columns: Sequence, *, ylabel: str, xlabel: str, title: str = "",
         low: float | None = None, high: float | None = None, spread: float | None = None,
         alt: str | None = None) -> Figure:
    """Fractions (R, C) as coloured cells with their numbers; NaN stays empty. rows (R,), columns (C,): numbers, texts.
    low, high: where the colours begin and end, by default whole tens of percents around the cells. spread: of the
    seeds, a fraction; the best cell has a frame if it is ahead of the second by more."""
    matrix = np.asarray(matrix, float)
    rows, columns = ([each if isinstance(each, str) else f"{each:g}" for each in names] for names in (rows, columns))
    ranks = np.argsort(np.where(np.isnan(matrix), -1, matrix), axis=None)
    (r0, c0), second = np.unravel_index(ranks[-1], matrix.shape), matrix.flat[ranks[-2:][0]]
    ahead = spread is not None and matrix[r0, c0] - second > spread
    said = f"{np.nanmin(matrix):.0%} to {matrix[r0, c0]:.0%}, best at {ylabel} {rows[r0]}, {xlabel} {columns[c0]}"
    said += ", not beyond the spread of the seeds" if spread is not None and not ahead else ""
    figure, axis = new(2.4 + 0.85 * len(columns), 1.3 + 0.5 * len(rows), alt or f"{title or 'accuracy'}: {said}")
    low = np.floor(np.nanmin(matrix) * 10) / 10 if low is None else low
    high = np.ceil(np.nanmax(matrix) * 10) / 10 if high is None else high
    cells = axis.imshow(matrix, cmap=NEUTRAL, aspect="auto", vmin=low, vmax=high)
    figure.colorbar(cells, ax=axis, format=PERCENT, ticks=np.linspace(low, high, 3)).outline.set_visible(False)
    for r, c in np.argwhere(~np.isnan(matrix)):
        axis.text(c, r, f"{matrix[r, c]:.0%}", ha="center", va="center", color=INK)
    if ahead:
        axis.add_patch(Rectangle((c0 - 0.47, r0 - 0.46), 0.94, 0.92, fill=False, edgecolor=INK, linewidth=2))
    _name_cells(axis, rows, columns, title=title, xlabel=xlabel, ylabel=ylabel)
    if max(len(line) for name in columns for line in name.splitlines()) > 12:
        axis.tick_params(axis="x", labelrotation=60)
    return figure


def _name_cells(axis, rows: Sequence[str], columns: Sequence[str], **texts: str) -> None:
    axis.grid(False)
    few = slice(None, None, 1 + len(columns) // 50)
    axis.set(**texts)
    axis.set_xticks(range(len(columns))[few], columns[few])
    axis.set_yticks(range(len(rows))[few], rows[few])


@styled
def bars(groups: Mapping[str, Mapping[str, float | None]], *, title: str = "", alt: str | None = None) -> Figure:
    """Fractions side by side, each with its number: group -> name -> value or None."""
    names = dict.fromkeys(name for group in groups.values() for name in group)
    said = "; ".join(f"{group}: " + ", ".join(f"{name} {value:.0%}" if len(names) > 1 else f"{value:.0%}"
                                              for name, value in values.items() if value is not None)
                     for group, values in groups.items())
    figure, axis = new(1.4 + 1.7 * len(groups), 3.2, alt or f"{title or 'bars'}: {said}")
    bars_beside(axis, {name: [group.get(name) for group in groups.values()] for name in names}, numbers=1)
    axis.set(title=title, xticks=range(len(groups)), xticklabels=groups, xlim=(-0.5, len(groups) - 0.5))
    return _legend_below(figure, axis)


@styled
def class_bars(values: Mapping[str, Sequence[float | None]], classes: Sequence[str], *,
               groups: Mapping[str, Sequence[int]] = {}, counts: Sequence[int] = (), title: str = "",
               alt: str | None = None) -> Figure:
    """Fractions of each class side by side: name -> (C,), None where there is none. groups: head, middle, tail -> class
    numbers, shaded; counts (C,): training images, written under each class's name."""
    each = [(name, np.asarray(y, float)) for name, y in values.items()]
    said = ", ".join(f"{name} lowest for {classes[np.nanargmin(y)]} ({np.nanmin(y):.0%}), mean {np.nanmean(y):.0%}"
                     for name, y in each if np.isfinite(y).any())
    figure, axis = new(max(6.0, 1.2 + 0.75 * len(classes)), 3.3, alt or f"{title or 'accuracy of each class'}: {said}")
    above = axis.get_xaxis_transform()
    for name, group in groups.items():
        shade = "#F4F4F4" if name == "middle" else "#E9EEF4"
        axis.axvspan(min(group) - 0.5, max(group) + 0.5, color=shade, linewidth=0, zorder=0)
        axis.text(np.mean(group), 1.03, name, ha="center", va="bottom", transform=above)
    bars_beside(axis, values, numbers=0)
    axis.set_title(title, pad=20 if groups else None)
    axis.set(xlim=(-0.6, len(classes) - 0.4))
    names = [f"{name}\n{count:,}" for name, count in zip(classes, counts)] if len(counts) else classes
    axis.set_xticks(range(len(classes)), names, rotation=0 if max(map(len, classes)) < 8 else 60)
    return _legend_below(figure, axis)


def _legend_below(figure: Figure, axis) -> Figure:
    axis.grid(False, axis="x")
    fractions(axis, [], 0, 1)
    if len(axis.collections) > 1:
        figure.legend(loc="outside lower center", ncols=len(axis.collections))
    return figure


def bars_beside(axis, series: Mapping[str, Sequence | None], *, colors: Sequence[str] = COLORS, width: float = 0.8,
                numbers: float = -1) -> None:
    """Draw fractions as bars side by side, in groups centred at 0 ... n - 1: name -> (n,), None or NaN where there is
    none. numbers: write those of bars up to this height above them."""
    n = max(len(values) for values in series.values() if values is not None)
    heights = np.array([np.full(n, np.nan) if values is None else np.asarray(values, float)
                        for values in series.values()])
    given, each = ~np.isnan(heights), width / len(series)
    middle = np.arange(n) + each * (np.cumsum(given, 0) - (given.sum(0) + 1) / 2)
    for k, name in enumerate(series):
        if not given[k].any():
            continue
        left, right = middle[k] - 0.46 * each, middle[k] + 0.46 * each
        corners = [[(a, 0), (a, y), (b, y), (b, 0)] for a, b, y in zip(left, right, heights[k])]   # axis.bar() is slow
        axis.add_collection(PolyCollection(corners, facecolors=colors[k % len(colors)], linewidths=0, label=name))
        for x, y in zip(middle[k], heights[k]):
            if y <= numbers:
                axis.annotate(f"{y:.0%}", (x, y), (0, 2), textcoords="offset points", ha="center", va="bottom",
                              fontsize=9, color=readable(colors[k % len(colors)]), rotation=90 * (numbers < 1))
