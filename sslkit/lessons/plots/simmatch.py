"""SimMatch's two answers for one image."""
from collections.abc import Mapping, Sequence

import matplotlib
import matplotlib.patheffects
import matplotlib.ticker
import numpy as np
from matplotlib.collections import PolyCollection

from sslkit.lessons.plots.figure import COLORS, INK, Figure, bare, styled
from sslkit.lessons.plots.images import picture


@styled
def similarity(image, labeled, y, classes: Sequence[str], *, p_w, q_w=None, q_hat=None, q_agg=None, p_hat=None, tau: float = 0.95,
               most: int = 20) -> Figure:
    """SimMatch's two answers for one image, as far as they are given. Over the classes, the `most` probable if there are more: p_w, q_agg
    and their mixture p_hat, each (C,), with tau. Over the `most` similar of the labelled images (K_l, num, H, W), ordered by their class
    y (K_l,): q_w and q_hat, each (K_l,).
    """
    # places by hand: a layout engine would draw everything twice, and this is redrawn while a slider moves
    figure = Figure(figsize=(9, 2.2 if q_w is None else 4.6))
    given = {name: np.asarray(p) for name, p in (("p_w", p_w), ("q_agg", q_agg), ("p_hat", p_hat)) if p is not None}
    best = [f"{name} {p.max():.0%} for {classes[p.argmax()]}" for name, p in given.items()]
    figure.alt = "one image: " + ", ".join(best)
    low, high = (0.14, 0.72) if q_w is None else (0.56, 0.34)
    picture(figure.add_axes((0.01, low, 0.16, high)), image, "the image")
    top = figure.add_axes((0.23, low, 0.75, high))
    probable = np.sort(np.argsort(-np.max(list(given.values()), 0), kind="stable")[:most])
    _grouped(top, {"$p_w$: the classifier": (p_w, COLORS[0]), "$q^{agg}$: the labelled images": (q_agg, COLORS[1]),
                   "$\\hat p$: both": (p_hat, INK)}, probable)
    top.axhline(tau, color=INK, linewidth=1, linestyle=":")
    top.set_title("which class?")
    names = [classes[c] for c in probable]
    room = max(map(len, names)) * len(names) < 80
    top.set_xticks(range(len(names)), names, rotation=0 if room else 30, ha="center" if room else "right", fontsize=10 if room else 8)
    if q_w is None:
        return figure
    q_w = np.asarray(q_w)
    shown = np.sort(np.argsort(-q_w, kind="stable")[:most])
    shown = shown[np.argsort(np.asarray(y)[shown], kind="stable")]
    bottom = figure.add_axes((0.23, 0.12, 0.75, 0.27))
    _grouped(bottom, {"$q_w$: how similar": (q_w, COLORS[1]), "$\\hat q$: corrected by $p_w$": (q_hat, COLORS[5])}, shown)
    bottom.set_xticks([])
    bottom.set_title("which labelled image?" + (f" the {len(shown)} most similar of {len(q_w)}" if len(shown) < len(q_w) else ""))
    # the tiles as one image, each centred under its bars with white beside it, square, at most half an inch
    tiles, slot, height = np.asarray(labeled)[shown], 6.75 / (len(shown) + 0.2), 0.11 * 4.6
    side = tiles.shape[-1]
    gap = max(1, round(side * (slot / min(0.9 * slot, height) - 1) / 2))
    tiles = np.pad(tiles, ((0, 0), (0, 0), (0, 0), (gap, gap)), constant_values=255).transpose(2, 0, 3, 1)
    mosaic = tiles.reshape(side, -1, tiles.shape[-1])
    strip = figure.add_axes((0.23, 0.0, 0.75, 0.11))
    strip.imshow(mosaic[..., 0] if mosaic.shape[-1] == 1 else mosaic, cmap="gray", vmin=0, vmax=255, interpolation="nearest",
                 extent=(-0.5, len(shown) - 0.5, 1 - slot * side / (side + 2 * gap) / height, 1), aspect="auto")
    strip.set(xlim=bottom.get_xlim(), ylim=(0, 1))
    bare(strip)
    return figure


def _grouped(axis, series: Mapping[str, tuple], rows) -> None:
    """Bars of fractions side by side for each of `rows`; a series without values keeps its place free, so that pictures can be compared."""
    width, at = 0.82 / len(series), np.arange(len(rows))
    for k, (name, (values, color)) in enumerate(series.items()):
        if values is not None:
            left = at + (k - len(series) / 2 + 0.04) * width
            corners = [[(x, 0), (x, y), (x + 0.92 * width, y), (x + 0.92 * width, 0)] for x, y in zip(left, np.asarray(values)[rows])]
            axis.add_collection(PolyCollection(corners, facecolors=color, linewidths=0, label=name))      # bar() is slow
    axis.set(xlim=(-0.6, len(at) - 0.4), ylim=(0, 1.04))
    axis.legend(ncols=len(series), fontsize=8, loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0)
    axis.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1, decimals=0))
