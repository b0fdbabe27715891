"""The tree of methods, each with what it adds to its parent; and many methods one below the other, with a dot for each
seed."""
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from matplotlib.ticker import MaxNLocator

from sslkit.lessons.plots.figure import COLORS, INK, Figure, new, percents, styled
from sslkit.lessons.plots.how import Drawing, arrow, box, text

IDEAS = {"consistency": "#DCEBF7", "entropy": "#FDE3CC", "sharpening and mixing": "#E3F2DC", "threshold": "#F9DDE4",
         "alignment and memory": "#E7E0F4", "": "#F2F2F2"}


class Node(NamedTuple):
    """A method: its parent, its idea (a key of IDEAS), what it adds, and its place in the tree: column and row."""
    parent: str
    idea: str
    adds: str
    column: int
    row: float


TREE = {
    "Supervised": Node("", "", "the labelled|images alone", 0, 4.2),
    "PiModel": Node("Supervised", "consistency", "two views, one answer", 1, 1.5),
    "PseudoLabel": Node("Supervised", "entropy", "learn your own|confident answer", 1, 6.9),
    "MeanTeacher": Node("PiModel", "consistency", "the target comes|from the teacher", 2, 0),
    "VAT": Node("PiModel", "consistency", "the worst direction;|clear answers", 2, 1.2),
    "MixMatch": Node("PiModel", "sharpening and mixing", "sharpened mean as|target; mixed images", 2, 2.6),
    "FixMatch": Node("PseudoLabel", "threshold", "learn it on|a strong view", 2, 6.9),
    "ReMixMatch": Node("MixMatch", "sharpening and mixing", "alignment, strong|views, turned images", 3, 2.6),
    "UDA": Node("FixMatch", "sharpening and mixing", "the sharpened answer|in place of a label", 3, 4.4),
    "Dash": Node("FixMatch", "threshold", "a threshold that tightens|at a fixed rate", 3, 5.65),
    "FreeMatch": Node("FixMatch", "threshold", "a threshold that follows|the confidence", 3, 6.9),
    "CoMatch": Node("FixMatch", "alignment and memory", "alignment; a memory|of recent images", 3, 8.15),
    "SimMatch": Node("FixMatch", "alignment and memory", "alignment; a bank of|the labelled images", 3, 9.4)}


def tree() -> Drawing:
    """The methods from left to right, each coloured by its idea, with what it adds to its parent."""
    wide, high, gap, down, left, top = 166, 62, 244, 64, 92, 50
    where = {name: (left + gap * node.column, top + down * node.row) for name, node in TREE.items()}
    parts = []
    for name, node in TREE.items():
        x, y = where[name]
        if node.parent:
            a, b = where[node.parent]
            middle = (a + x) / 2 - 6
            parts.append(arrow((a + wide / 2, b), (middle, b), (middle, y), (x - wide / 2 - 2, y)))
        title = text(x, y - 17, name).replace("<text ", '<text font-weight="600" ')
        parts += [box(x, y, wide, high, "", IDEAS[node.idea]), title, text(x, y + 10, node.adds, 12)]
    for k, (idea, color) in enumerate(list(IDEAS.items())[:-1]):
        y = top + down * (7.9 + 0.5 * k)
        parts.append(f'<rect x="16" y="{y - 9}" width="18" height="18" rx="4" fill="{color}" stroke="#999999"/>'
                     f'<text x="42" y="{y + 4}" font-size="13" fill="#333333">{idea}</text>')
    alt = "A tree of methods. " + " ".join(
        f"{name}{f', from {node.parent}' if node.parent else ''}: {node.adds.replace('|', ' ')}."
        for name, node in TREE.items())
    size = f'viewBox="0 0 {2 * left + 3 * gap} {top + down * 9.4 + 50:g}"'
    svg = (f'<svg xmlns="http://www.w3.org/2000/svg" {size} width="860" role="img" font-family="system-ui, sans-serif">'
           f'<title>{escape(alt)}</title><defs><marker id="branch" markerWidth="9" markerHeight="8" refX="8" refY="4" '
           f'orient="auto"><path d="M0,0 L9,4 L0,8 z" fill="#333333"/></marker></defs>'
           f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>')
    return Drawing(svg.replace("url(#tip)", "url(#branch)"), alt)


@styled
def dots(panels: Mapping[str, Mapping[str, Sequence[float]]], *, points: bool = False, title: str = "",
         alt: str | None = None) -> Figure:
    """Names one below the other, a dot for each seed and a stroke for their mean: panel -> name -> fractions, the same
    names in each panel. points: the fractions are differences, shown in points with a line at zero."""
    names, unit, form = list(next(iter(panels.values()))), 100 if points else 1, "+.1f" if points else ".0%"
    means = {head: ", ".join(f"{name} {unit * np.mean(values):{form}}" for name, values in group.items())
             for head, group in panels.items()}
    said = f"{title}, means: " + "; ".join(f"{head}: {each}" for head, each in means.items())
    wide, high = 2 + 3 * len(panels), 1 + 0.3 * len(names)
    figure, axes = new(wide, high, alt or said, 1, len(panels), sharex=True, sharey=True, squeeze=False)
    for axis, (head, group) in zip(axes[0], panels.items()):
        for y, values in enumerate(unit * np.asarray(group[name], float) for name in names):
            axis.plot(values, np.full(len(values), y), "o", color=COLORS[0], markersize=6, markeredgecolor="white",
                      markeredgewidth=0.7)
            axis.plot(values.mean(), y, "|", color=INK, markersize=13, markeredgewidth=2)
        axis.set(title=head)
        axis.grid(False, axis="y")
        if points:
            axis.axvline(0, color=INK, linewidth=1)
            axis.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
            axis.xaxis.set_major_formatter(lambda x, _: f"{x:+.0f}".replace("-", "\N{MINUS SIGN}") if x else "0")
        else:
            percents(axis.xaxis)
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].invert_yaxis()
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure
