"""Images in rows; maps with a dot for each image; SimMatch's two answers for one image."""
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.patheffects import withStroke

from sslkit.lessons.plots.bars import bars_beside
from sslkit.lessons.plots.figure import COLORS, INK, Figure, bare, class_colors, new, styled


def picture(axis, image, title: str = "", color: str = INK) -> None:
    """One uint8 image (num, H, W) on an axis without ticks, under a title of this colour; grey where num is 1."""
    axis.imshow(np.asarray(image).transpose(1, 2, 0), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axis.set_title(title, fontsize=9, loc="center", color=color)
    bare(axis)


@styled
def image_grid(rows: Mapping[str, Sequence], titles: Sequence[str] | Mapping[str, Sequence[str]] = (), *,
               colors: Sequence[str] = (), size: float = 0.85) -> Figure:
    """A row of images for each name: name -> (n, num, H, W) uint8, each image `size` inches. titles: n strings over the
    first row, or name -> n strings; colors: n, those of the titles."""
    n = max(1, *(len(images) for images in rows.values()))
    over = titles if isinstance(titles, Mapping) else {next(iter(rows)): titles} if titles else {}
    width = size * n + (max(1.0, 0.075 * max(map(len, rows))) if any(rows) else 0)
    height = (size + 0.12) * len(rows) + 0.25 * len(over)
    figure, axes = new(width, height, "images: " + ", ".join(rows), len(rows), n, squeeze=False)
    for axis in axes.flat:
        bare(axis)
    for row, (name, images) in zip(axes, rows.items()):
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", labelpad=8)
        for k, image in enumerate(images):
            picture(row[k], image, over[name][k] if name in over else "", colors[k] if colors else INK)
    return figure


def scatter(points, label, classes: Sequence[str], *, marked=None, title: str = "",
            marked_name: str = "labelled") -> Figure:
    """One map of points (n, 2), coloured by label (n,); the rest as in scatters()."""
    figure = scatters({title: points}, [label], classes, marked=marked, marked_name=marked_name, size=(7.2, 5.4))
    figure.alt = title or "map of the features"
    return figure


@styled
def scatters(maps: Mapping[str, Sequence], label, classes: Sequence[str], *, marked=None,
             marked_name: str = "labelled", size: tuple[float, float] = (4.6, 4.4)) -> Figure:
    """Maps of the same images side by side: title -> points (n, 2), coloured by label (n,), grey at -1, class names at
    the medians. label: or a list, one a map; marked: row numbers or a mask (n,), ringed; size: of a map, in inches."""
    figure, axes = new(size[0] * len(maps), size[1], "maps: " + ", ".join(maps), 1, len(maps), squeeze=False)
    labels = label if isinstance(label, list) else [label] * len(maps)
    for axis, (title, points), label in zip(axes.flat, maps.items(), labels):
        points, label = np.asarray(points), np.asarray(label)
        if (label < 0).any():
            axis.scatter(*points[label < 0].T, s=5, color="#DDDDDD", linewidths=0)
        for c, color in enumerate(class_colors(len(classes))):
            own = points[label == c]
            axis.scatter(*own.T, s=9, color=color, alpha=0.6, linewidths=0)
            if len(own):
                axis.text(*np.median(own, 0), classes[c], ha="center", va="center", fontsize=15, fontweight="bold",
                          color=color, path_effects=[withStroke(linewidth=4, foreground="white")])
        if marked is not None:
            rings = points[marked]
            ring, width = (48, 1.1) if len(rings) < 60 else (20, 0.6)
            axis.scatter(*rings.T, s=ring, facecolors="none", edgecolors="black", linewidths=width, label=marked_name)
        axis.set_title(title)
        bare(axis)
    if marked is not None:
        figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower left")
    return figure


@styled
def similarity(image, labeled, y, classes: Sequence[str], *, p_w, q_w=None, q_hat=None, q_agg=None, p_hat=None,
               tau: float = 0.95, most: int = 20) -> Figure:
    """SimMatch's two answers for one image (num, H, W), as far as given. Above, for the `most` probable classes: p_w,
    q_agg and their mixture p_hat, each (C,), and tau. Below, for the `most` similar of the images labeled (K_l, num, H,
    W), in order of their class y (K_l,): q_w and q_hat, each (K_l,)."""
    # we place the axes: a layout engine would draw everything twice, and a slider redraws this as it moves
    figure = Figure(figsize=(9, 2.2 if q_w is None else 4.6))
    given = {name: np.asarray(p) for name, p in (("p_w", p_w), ("q_agg", q_agg), ("p_hat", p_hat)) if p is not None}
    figure.alt = "one image: " + ", ".join(f"{key} {p.max():.0%} for {classes[p.argmax()]}" for key, p in given.items())
    low, high = (0.14, 0.72) if q_w is None else (0.56, 0.34)
    picture(figure.add_axes((0.01, low, 0.16, high)), image, "the image")
    probable = np.sort(np.argsort(-np.max(list(given.values()), 0), kind="stable")[:most])
    top = _answers(figure.add_axes((0.23, low, 0.75, high)), "which class?", probable, (COLORS[0], COLORS[1], INK), {
        "$p_w$: the classifier": p_w, "$q^{agg}$: the labelled images": q_agg, "$\\hat p$: both": p_hat})
    top.axhline(tau, color=INK, linewidth=1, linestyle=":")
    names = [classes[c] for c in probable]
    narrow = {"rotation": 30, "ha": "right", "fontsize": 8} if max(map(len, names)) * len(names) >= 80 else {}
    top.set_xticks(range(len(names)), names, **narrow)
    if q_w is None:
        return figure
    shown = np.sort(np.argsort(-np.asarray(q_w), kind="stable")[:most])
    shown = shown[np.argsort(np.asarray(y)[shown], kind="stable")]
    title = "which labelled image?" + (f" the {len(shown)} most similar of {len(q_w)}" if len(shown) < len(q_w) else "")
    bottom = _answers(figure.add_axes((0.23, 0.12, 0.75, 0.27)), title, shown, (COLORS[1], COLORS[5]), {
        "$q_w$: how similar": q_w, "$\\hat q$: corrected by $p_w$": q_hat})
    # the labelled images as one strip, each under its bars with white beside it, square, at most half an inch
    tiles, slot, height = np.asarray(labeled)[shown], 6.75 / (len(shown) + 0.2), 0.11 * 4.6
    side = tiles.shape[-1]
    gap = max(1, round(side * (slot / min(0.9 * slot, height) - 1) / 2))
    tiles = np.pad(tiles, ((0, 0), (0, 0), (0, 0), (gap, gap)), constant_values=255)
    strip = figure.add_axes((0.23, 0.0, 0.75, 0.11))
    picture(strip, np.concatenate(list(tiles), -1))
    strip.images[0].set_extent((-0.5, len(shown) - 0.5, 1 - slot * side / (side + 2 * gap) / height, 1))
    strip.set(aspect="auto", xlim=bottom.get_xlim(), ylim=(0, 1))
    return figure


def _answers(axis, title: str, rows, colors: Sequence[str], series: dict):
    picked = {name: None if values is None else np.asarray(values)[rows] for name, values in series.items()}
    bars_beside(axis, picked, colors=colors, width=0.82)
    axis.set(title=title, xlim=(-0.6, len(rows) - 0.4), ylim=(0, 1.04), xticks=[])
    axis.legend(ncols=len(series), fontsize=8, loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0)
    return axis
