"""Values over steps, settings, seeds and shares."""
import textwrap
from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.ticker import MaxNLocator, NullLocator

from sslkit.lessons.plots import figure as f
from sslkit.lessons.plots.figure import COLORS, INK, PALE, Figure, fractions, name_ends, new, percents, styled

Lines = Mapping[str, tuple[Sequence, Sequence]]      # name -> (x (n,), y (n,))


def _draw(axis, lines: Lines, colors: Sequence[str] = COLORS, width: float = 2) -> list[tuple[str, float, float, str]]:
    """Draw the lines, and return what name_ends() writes at the last value of each."""
    ends = []
    for color, (name, (x, y)) in zip(cycle(colors), lines.items()):
        axis.plot(x, y, color=color, linewidth=width, marker="" if len(x) > 1 else "o")
        last = np.flatnonzero(np.isfinite(np.asarray(y, float)))[-1:]
        ends += [(name, x[k], float(y[k]), color) for k in last]
    return ends


def _said(ends: Sequence[tuple], form: str = ".0%") -> str:
    """What the lines come to: "FixMatch ends at 93%, supervised at 78%"."""
    said = (f"{name} {'at' if k else 'ends at'} {y:{form}}" for k, (name, _, y, _) in enumerate(ends))
    return ", ".join(said) or "no values yet"


@styled
def curves(lines: Lines, ylabel: str, *, title: str = "", xlabel: str = "step", percent: bool = True,
           shaded: Lines | None = None, alt: str | None = None) -> Figure:
    """Values over steps, a line for each name, those in `shaded` as filled areas behind; fractions if `percent`."""
    figure, axis = new(7.6, 3.4, "")
    ends = _draw(axis, lines) + _draw(axis, shaded or {}, ["#808080"] * len(shaded or {}), 1)
    for x, y in (shaded or {}).values():
        axis.fill_between(x, y, color=PALE, alpha=0.35, linewidth=0)
    if percent:
        fractions(axis, [line.get_ydata() for line in axis.lines], 0 if shaded else None)
    axis.set(xlabel=xlabel, ylabel=ylabel, title=title, xmargin=0.02)
    name_ends(axis, ends)
    figure.alt = alt or f"{title or ylabel}: {_said(ends, '.0%' if percent else '.3g')}"
    return figure


@styled
def panels(lines: Mapping[str, Lines], *, xlabel: str = "step", low: float | None = None,
           alt: str | None = None) -> Figure:
    """Small multiples with one scale: title -> name -> (steps, fractions). A name has the same place and colour in each
    panel. low: where y begins; by default so that the last three quarters of every line are seen."""
    late = [y[len(y) // 4:] for group in lines.values() for _, y in group.values()]
    figure, axes = new(3.1 * len(lines), 3.2, "", 1, len(lines), sharey=True, squeeze=False)
    said = []
    for axis, (title, group) in zip(axes.flat, lines.items()):
        axis.set(title=title, xmargin=0.02)
        fractions(axis, [*late, [1.0]], low)
        ends = _draw(axis, group)
        name_ends(axis, ends)
        said.append(f"{title}: {_said(ends)}")
    figure.supxlabel(xlabel, fontsize=10)
    figure.alt = alt or "; ".join(said)
    return figure


@styled
def coverage(confidence, right, tau: float, *, chosen=None, name: str = "", alt: str | None = None) -> Figure:
    """Left: confidences (n,), in [0, 1], of right guesses (up) and wrong ones (down), cut at tau. Right: accuracy by
    share kept; a dot marks tau, a diamond the rows that another rule, `name`, has chosen. right, chosen: (n,) bool."""
    confidence, right = np.minimum(np.asarray(confidence, float), 1), np.asarray(right, bool)
    marks = [(confidence >= tau, f"tau {tau:g}", "o", INK, -8)]
    if chosen is not None:
        marks.append((np.asarray(chosen, bool), name, "D", COLORS[9], 8))
    said = "\n".join(f"{word}: {rows.sum():,} of {len(rows):,} kept, {(rows & ~right).sum():,} of them wrong"
                     for rows, word, *_ in marks)
    figure, (left, curve) = new(9, 3.4, alt or said.replace("\n", "; "), 1, 2)
    bins = np.arange(np.floor(confidence.min() * 40), 41) / 40
    for rows, sign, fill, word in ((right, 1, f.RIGHT, "right"), (~right, -1, f.WRONG, "wrong")):
        left.bar(bins[:-1], sign * np.histogram(confidence[rows], bins)[0], 0.9 / 40, color=fill, align="edge")
        left.text(0.02, 0.5 + sign * 0.45, word, va="center", color=fill, fontweight="bold", transform=left.transAxes)
    left.set_yscale("symlog", linthresh=1, linscale=0.5)
    ticks = [10**k for k in range(5) if 10**k <= max(10, *np.abs(left.get_ylim()))]
    left.set_yticks([sign * tick for sign in (-1, 1) for tick in ticks], [f"{tick:,}" for tick in 2 * ticks])
    left.axhline(0, color=INK, linewidth=1)
    left.axvline(tau, color=INK, linewidth=1.5)
    left.axvspan(bins[0], tau, color="white", alpha=0.6)
    left.set(title="how confident each guess is", xlabel="confidence", ylabel="images (log)", xlim=(bins[0], 1.005))
    count = np.arange(1, len(confidence) + 1)
    accuracy = np.cumsum(right[np.argsort(-confidence, kind="stable")]) / count
    curve.plot(count / len(count), accuracy, color=COLORS[0])
    for rows, word, marker, color, beside in marks:
        if rows.any():
            curve.plot(rows.mean(), right[rows].mean(), marker, color=color, markersize=9)
            curve.annotate(word, (rows.mean(), right[rows].mean()), (beside, beside), textcoords="offset points",
                           color=color, ha="right" if beside < 0 else "left", va="top" if beside < 0 else "bottom")
    curve.set(xlabel="share kept (coverage)", ylabel="right, of those kept", xlim=(0, 1.01))
    curve.set_title(said, fontsize=10)
    fractions(curve, [accuracy])
    percents(left.xaxis)
    percents(curve.xaxis)
    return figure


@styled
def spread(values: Mapping, xlabel: str, *, title: str = "", limits: tuple[float, float] | None = None,
           points: bool = False, alt: str | None = None) -> Figure:
    """A dot for each seed, a bar for their mean: x -> a fraction for each seed; or name -> x -> fractions, all with the
    same x. Thin lines join a seed's dots, over x, or over the names where x are texts, if all have as many seeds.
    Numbers x stand where they belong, on a logarithmic axis if they span a factor of 10.

    limits: of the y axis, fractions. points: the fractions are differences, shown in points with a line at zero."""
    if not values:
        figure, axis = new(7, 3.4, alt or f"{title or 'accuracy'}: nothing yet")
        axis.set(title=title, xticks=[], yticks=[])
        axis.text(0.5, 0.5, "nothing yet", ha="center", va="center", fontsize=12, color="#707070")
        return figure
    groups = values if isinstance(next(iter(values.values())), Mapping) else {"": values}
    xs, unit, form = list(next(iter(groups.values()))), 100 if points else 1, "+.1f" if points else ".0%"
    cells = [[unit * np.asarray(group[x], float) for x in xs] for group in groups.values()]
    means = [[cell.mean() if len(cell) else np.nan for cell in row] for row in cells]
    several, grouped = max(len(cell) for row in cells for cell in row) > 1, len(groups) > 1
    numbers = not any(isinstance(x, str) for x in xs)
    lines = grouped and numbers                                    # the means as lines, else a seed's dots joined
    said = "; ".join(f"{name}, " * grouped + ", ".join(
        f"{' '.join(str(x).split())}: {mean:{form}}" for x, mean in zip(xs, row) if mean == mean)
        for name, row in zip(groups, means))
    said = f"{title or 'accuracy'}{', means' * several}{', in points' * points}: {said}"
    figure, axis = new(8 if grouped else 7, 3.6, alt or said)
    at = np.tile(np.array(xs if numbers else range(len(xs)), float), (len(cells), 1))
    if not numbers:
        at += 0.7 * (np.arange(len(cells))[:, None] - (len(cells) - 1) / 2) / len(cells)
    for place, row in () if lines else zip(at.T, zip(*cells)) if grouped else zip(at, cells):
        if len({len(cell) for cell in row}) == 1:                  # else nobody knows which dots are the same seed's
            axis.plot(place, np.stack(row), color=PALE, linewidth=0.9, zorder=1)
    for color, name, place, row, mean in zip(cycle(COLORS), groups, at, cells, means):
        axis.plot(np.repeat(place, [len(cell) for cell in row]), np.concatenate(row), "o", color=color, markersize=6,
                  markeredgecolor="white", markeredgewidth=0.7, label=name or "one seed")
        axis.plot(place, mean, linestyle="-" if lines else "none", linewidth=1.5, marker="_" if several else "",
                  markersize=18, markeredgewidth=2.5, color=color if lines else INK, label="mean" if several else "")
    every = np.concatenate([cell for row in cells for cell in row])
    if points:
        low, high = every.min(initial=0), every.max(initial=0)
        room = max(0.06 * (high - low), (4 - high + low) / 2)
        axis.set(ylim=np.multiply(limits, 100) if limits else (low - room, high + room), ylabel="points")
        axis.axhline(0, color=INK, linewidth=1)
        axis.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axis.yaxis.set_major_formatter(lambda y, _: f"{y:+.0f}".replace("-", "−") if y else "0")
    else:
        fractions(axis, [every], *(limits or ()))
    axis.set(title=title, xlabel=xlabel)
    _set_x(axis, xs, numbers)
    if lines:
        name_ends(axis, [("  " + name, xs[-1], mean[-1], color)
                         for color, name, mean in zip(cycle(COLORS), groups, means)])
    elif several or grouped:
        handles = dict(zip(*reversed(axis.get_legend_handles_labels())))
        handles |= {"mean": handles.pop("mean")} if several else {}                   # the last
        figure.legend(handles.values(), handles, loc="outside lower center", ncols=len(handles))
    return figure


def _set_x(axis, xs: Sequence, numbers: bool) -> None:
    """The ticks: texts side by side, or numbers where they belong, those named that leave room for it."""
    if not numbers:
        names = [x if "\n" in x else textwrap.fill(x, int(68 / len(xs)), break_long_words=False) for x in xs]
        axis.set_xticks(range(len(xs)), names)
        axis.set_xlim(-0.5, len(xs) - 0.5)
        axis.grid(False, axis="x")
        return
    log = min(xs) > 0 and max(xs) >= 10 * min(xs)
    axis.set_xscale("log" if log else "linear")
    axis.xaxis.set_minor_locator(NullLocator())
    across, names = np.log(xs) if log else np.array(xs, float), {}
    for x, place in zip(xs, across):
        if not names or place - max(names) > 0.055 * np.ptp(across):
            names[place] = x
    axis.set_xticks(list(names.values()), [f"{x:g}" for x in names.values()])


@styled
def growth(ratios: Lines, classes: Sequence[str], *, highlight: Sequence[int] = (), alt: str | None = None) -> Figure:
    """How far each class has grown while rows were labelled: title -> (share labelled (m,), growth (m, C)), as
    class_growth() computes them. A class is named where its line ends above 1.5. highlight: class numbers that are
    coloured and named, while the others are grey."""
    last = {title: np.asarray(ratio)[-1] for title, (_, ratio) in ratios.items()}
    said = "; ".join(f"{title}: class {classes[ends.argmax()]} ends highest, at {ends.max():.1f} times its share"
                     for title, ends in last.items())
    figure, axes = new(3.1 * len(ratios), 3.4, alt or said, 1, len(ratios), squeeze=False, sharey=True)
    axes[0, 0].set(ylim=(0, 1.05 * max(np.max(np.asarray(ratio)) for _, ratio in ratios.values())),
                   ylabel="images, as a multiple of\nthe given labels' share")
    for axis, (title, (share, ratio)) in zip(axes.flat, ratios.items()):
        axis.axhline(1, color=INK, linewidth=1, linestyle=":")
        named = [c for c, end in enumerate(last[title]) if (c in highlight if len(highlight) else end > 1.5)]
        for c, line in enumerate(np.asarray(ratio).T):
            color = f.class_color(c, highlight)
            axis.plot(share, line, color=color, linewidth=1.6, zorder=1 if color == PALE else 2)
        name_ends(axis, [(classes[c], share[-1], last[title][c], f.class_color(c, highlight)) for c in named])
        axis.set(title=title, xlim=(0, 1.01), xticks=(0, 0.5, 1), xticklabels=("0%", "50%", "100%"))
        axis.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axis.yaxis.set_major_formatter("{x:g}×")
    figure.supxlabel("share of the images labelled", fontsize=10)
    return figure
