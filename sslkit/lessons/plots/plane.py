"""The toy in the plane: points, the labelled ones large, and what a network says of each place."""
from collections.abc import Mapping

from matplotlib.colors import LinearSegmentedColormap

from sslkit.lessons.plots.figure import COLORS, INK, Figure, bare, new, styled

SIDES = LinearSegmentedColormap.from_list("sides", ["#A6CEE3", "#FFFFFF", "#FDD0A2"])


@styled
def plane(trained: Mapping[str, object], at: int = -1, alt: str | None = None) -> Figure:
    """Networks in the plane beside each other, name -> lessons.Plane, at their map number `at`: the places that each
    gives to a class, and the share of all points that it has right."""
    right = {name: one.right[at] for name, one in trained.items()}
    alt = alt or "; ".join(f"{name}: {share:.0%} of the points right" for name, share in right.items())
    figure, axes = new(4.3 * len(trained), 3.2, alt, 1, len(trained), squeeze=False)
    for axis, (name, one) in zip(axes[0], trained.items()):
        axis.contourf(*one.sides, one.maps[at], levels=[0, 0.05, 0.5, 0.95, 1], cmap=SIDES, vmin=0, vmax=1)
        axis.contour(*one.sides, one.maps[at], levels=[0.5], colors=INK, linewidths=1.5)
        for c, (color, marker) in enumerate(zip(COLORS[:1] + COLORS[5:6], "os")):
            axis.scatter(*one.points[one.y == c].T, s=5, color=color, alpha=0.5, linewidths=0)
            rows = one.labeled[one.y[one.labeled] == c]
            axis.scatter(*one.points[rows].T, s=80, color=color, marker=marker, edgecolors="white", linewidths=1.5)
        bare(axis)
        axis.set_title(f"{name}: {right[name]:.0%} right")
    return figure
