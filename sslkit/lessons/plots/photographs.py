"""Maps with pictures in place of dots; shares of right labels with how sure they are."""
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.offsetbox import AnnotationBbox, OffsetImage

from sslkit.labelers import interval
from sslkit.lessons.plots.figure import COLORS, INK, PALE, Figure, bare, fractions, new, styled

APART = 0.055                     # of the map's width: no two pictures lie nearer than that


@styled
def picture_map(points, images, marked: Sequence[int] = (), *, most: int = 60, alt: str | None = None) -> Figure:
    """A map of points (n, 2) with a dot for each image, and up to `most` of the images (n, num, H, W) uint8 where they
    lie, spread over it; the dots `marked` are large."""
    points = np.asarray(points, float)
    points = (points - points.min(0)) / np.maximum(np.ptp(points, 0), 1e-9)
    shown: list[int] = []
    for row in np.random.default_rng(0).permutation(len(points)):
        if len(shown) < most and all(np.abs(points[row] - points[k]).max() > APART for k in shown):
            shown.append(row)
    said = f"A map of {len(points):,} pictures" + (f" with {len(shown)} of them shown" if shown else "")
    figure, axis = new(9, 6.4, alt or said + (f"; {len(marked)} are marked" if len(marked) else ""))
    axis.scatter(*points.T, s=6, color=PALE, linewidths=0)
    for row in shown:
        image = np.asarray(images[row]).transpose(1, 2, 0)
        tile = OffsetImage(image, zoom=34 / image.shape[0], cmap="gray", interpolation="antialiased")
        axis.add_artist(AnnotationBbox(tile, points[row], pad=0.08, frameon=True, bboxprops={"edgecolor": "white"}))
    axis.scatter(*points[list(marked)].T, s=60, color=COLORS[5], edgecolors="white", linewidths=1.2, zorder=5)
    axis.margins(0.05)
    bare(axis)
    return figure


@styled
def intervals(values: Mapping[str, tuple[int, int]], *, title: str = "", alt: str | None = None) -> Figure:
    """name -> (right, n): the share that is right as a dot, on a line from where to where it may lie (95%)."""
    ends = [interval(*value) for value in values.values()]
    shares = [right / n if n else np.nan for right, n in values.values()]
    said = "; ".join(f"{name} {right} of {n}, {low:.0%} to {high:.0%}"
                     for (name, (right, n)), (low, high) in zip(values.items(), ends))
    figure, axis = new(7.6, 1.1 + 0.45 * len(values), alt or f"{title or 'right'}: {said}")
    for k, ((right, n), share, (low, high)) in enumerate(zip(values.values(), shares, ends)):
        axis.plot([low, high], [-k, -k], color=COLORS[0], linewidth=2)
        axis.plot(share, -k, "o", color=COLORS[0], markersize=9, markeredgecolor="white", clip_on=False)
        axis.text(1.02, -k, f"{right} of {n}", va="center", color=INK)
    fractions(axis, [], 0, 1)
    axis.xaxis.set_major_formatter(axis.yaxis.get_major_formatter())
    axis.set(title=title, xlim=(0, 1), ylim=(0.6 - len(values), 0.5))
    axis.set_yticks([-k for k in range(len(values))], list(values))
    axis.spines.left.set_visible(False)
    axis.grid(False, axis="y")
    return figure
