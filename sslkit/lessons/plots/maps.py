"""Maps of the features, a dot an image."""
from collections.abc import Mapping, Sequence

import matplotlib
import matplotlib.patheffects
import matplotlib.ticker
import numpy as np

from sslkit.lessons.plots.figure import Figure, bare, new, styled


@styled
def scatter(points, label, classes: Sequence[str], *, marked=None, title: str = "", marked_name: str = "labelled") -> Figure:
    """A map of points (n, 2) coloured by label (n,), grey where it is -1; `marked` (rows or a mask) ringed. A class's name stands at its
    median."""
    figure, axis = new(7.2, 5.4, title or "map of the features")
    _map(axis, points, label, classes, marked=marked, title=title, marked_name=marked_name)
    if marked is not None:
        figure.legend(loc="outside lower left")
    return figure


@styled
def scatters(maps: Mapping[str, Sequence], label, classes: Sequence[str], *, marked=None, marked_name: str = "labelled") -> Figure:
    """Several maps of the same rows side by side: title -> points (n, 2); label (n,), or a list of one for each map; the rest as in
    scatter()."""
    figure, axes = new(4.6 * len(maps), 4.4, "maps: " + ", ".join(maps), 1, len(maps), squeeze=False)
    labels = label if isinstance(label, list) else [label] * len(maps)
    for axis, (title, points), each in zip(axes.flat, maps.items(), labels):
        _map(axis, points, each, classes, marked=marked, title=title, marked_name=marked_name)
    if marked is not None:
        figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower left")
    return figure


def _map(axis, points, label, classes, *, marked, title, marked_name) -> None:
    points, label = np.asarray(points), np.asarray(label)
    palette = matplotlib.colormaps["tab10" if len(classes) <= 10 else "tab20"].colors
    if (label < 0).any():
        axis.scatter(*points[label < 0].T, s=5, color="#DDDDDD", linewidths=0)
    for c, name in enumerate(classes):
        mine = points[label == c]
        axis.scatter(*mine.T, s=9, color=palette[c % len(palette)], alpha=0.6, linewidths=0)
        if len(mine):
            axis.text(*np.median(mine, 0), name, ha="center", va="center", fontsize=15, fontweight="bold", color=palette[c % len(palette)],
                      path_effects=[matplotlib.patheffects.withStroke(linewidth=4, foreground="white")])
    if marked is not None:
        rings = points[marked]
        size, width = (48, 1.1) if len(rings) < 60 else (20, 0.6)
        axis.scatter(*rings.T, s=size, facecolors="none", edgecolors="black", linewidths=width, label=marked_name)
    axis.set_title(title)
    bare(axis)
