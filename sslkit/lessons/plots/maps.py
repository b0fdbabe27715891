"""Maps with a dot for each image."""
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.patheffects import withStroke
from scipy.spatial import cKDTree

from sslkit.lessons.plots.figure import INK, PALE, Figure, bare, class_color, new, readable, styled


def scatter(points, label, classes: Sequence[str], *, title: str = "", **options) -> Figure:
    """One map of points (n, 2), coloured by label (n,); the rest as in scatters()."""
    return scatters({title: points}, label, classes, **{"size": (7.2, 5.4)} | options)


@styled
def scatters(maps: Mapping[str, Sequence], label, classes: Sequence[str], *, marked=None,
             marked_name: str = "labelled", size: tuple[float, float] = (4.5, 4.4), highlight: Sequence[int] = (),
             alt: str | None = None) -> Figure:
    """Maps of the same images side by side: title -> points (n, 2), coloured by label (n,), grey at -1, each class's
    name beside its island. label: or a list, one a map; marked: row numbers or a mask (n,), drawn larger; highlight:
    class numbers that are coloured, while the others are grey; size: of a map, in inches."""
    labels = [np.asarray(each) for each in (label if isinstance(label, list) else [label] * len(maps))]
    said = "; ".join(f"{title or 'map'}: {len(np.unique(label[label >= 0]))} classes, {(label >= 0).sum():,} dots in "
                     "colour" for title, label in zip(maps, labels))
    chosen = np.zeros(len(labels[0]), bool)
    chosen[[] if marked is None else np.asarray(marked)] = True
    said += f"; {chosen.sum():,} {marked_name}" if chosen.any() else ""
    figure, axes = new(size[0] * len(maps), size[1], alt or said, 1, len(maps), squeeze=False)
    palette = np.array([class_color(c, highlight) for c in range(len(classes))] + ["#DDDDDD"])     # the last for -1
    for axis, (title, points), label in zip(axes.flat, maps.items(), labels):
        points, order = np.asarray(points, float), np.argsort((label >= 0) * 1 + np.isin(label, highlight))
        axis.scatter(*points[order].T, s=np.where(label < 0, 5, 10)[order], c=palette[label[order]], linewidths=0)
        large = 70 if chosen.sum() < 60 else 36
        fill = np.where(label < 0, PALE, palette[label])[chosen]
        axis.scatter(*points[chosen].T, s=large, c=fill, edgecolors="white", linewidths=large / 60)
        axis.set_title(title)
        axis.margins(0.1)
        bare(axis)
        _name_islands(axis, points, label, classes, palette, size)
    if chosen.any():
        axes.flat[0].scatter([], [], s=70, color=INK, edgecolors="white", label=marked_name)
        figure.legend(loc="outside lower left")
    return figure


def _name_islands(axis, points, label, classes: Sequence[str], palette, size: tuple[float, float]) -> None:
    """Write each class's name where there are few dots, near its island, with a thin line to it."""
    inches, wide = size / np.maximum(np.ptp(points, 0), 1e-9) * 0.83, np.array([max(1, max(map(len, classes)) / 3), 1])
    tree, taken = cKDTree(points * inches / wide), np.empty((0, 2))
    angle, away = (each.ravel() for each in np.meshgrid(np.arange(24) * np.pi / 12, np.arange(0.2, 1.5, 0.1)))
    for c in np.unique(label[label >= 0]):
        own = points[label == c] * inches
        middle = np.median(own, 0)
        far = np.linalg.norm(own - middle, axis=1)
        core = own[far <= np.median(far)]                          # not the strays in other islands
        places = middle + np.stack([away * np.cos(angle), away * np.sin(angle)], 1) * wide
        crowd = tree.query_ball_point(places / wide, 0.15, return_length=True) + 4 * away
        if len(taken):
            crowd += 99 * (cKDTree(taken / wide).query(places / wide)[0] < 0.3)
        place = places[crowd.argmin()]
        taken, near = np.vstack([taken, place]), core[np.linalg.norm(core - place, axis=1).argmin()]
        color = readable(palette[c])
        axis.plot(*np.transpose([place, near]) / inches[:, None], color=color, linewidth=0.7)
        axis.text(*place / inches, classes[c], ha="center", va="center", fontsize=14 if len(classes[c]) < 3 else 10,
                  fontweight="bold", color=color, path_effects=[withStroke(linewidth=3, foreground="white")])
