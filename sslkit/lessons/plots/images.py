"""Images in rows; maps with a dot for each image; SimMatch's two answers for one image."""
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.patheffects import withStroke
from scipy.spatial import cKDTree

from sslkit.lessons.plots import figure as f
from sslkit.lessons.plots.bars import bars_beside
from sslkit.lessons.plots.figure import COLORS, INK, PALE, Figure, bare, fractions, new, readable, styled


def picture(axis, image, title: str = "", color: str = INK) -> None:
    """One uint8 image (num, H, W) on an axis without ticks, under a title of this colour; grey where num is 1."""
    axis.imshow(np.asarray(image).transpose(1, 2, 0), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axis.set_title(title, fontsize=9, loc="center", color=color, pad=3)
    bare(axis)


@styled
def image_grid(rows: Mapping[str, Sequence], titles: Sequence[str] | Mapping[str, Sequence[str]] = (), *,
               right: Sequence | Mapping[str, Sequence] = (), colors: Sequence[str] = (), size: float = 0.85,
               alt: str | None = None) -> Figure:
    """A row of images for each name: name -> (n, num, H, W) uint8, each image `size` inches. titles: n strings over the
    first row, or name -> n strings; right: n bools, or name -> n: a wrong one has a red title with a cross; colors: n,
    those of the titles."""
    n, first = max(1, *(len(images) for images in rows.values())), next(iter(rows))
    over, sure = (given if isinstance(given, Mapping) else {first: given} if len(given) else {}
                  for given in (titles, right))
    lines = {name: 1 + max(str(title).count("\n") for title in over.get(name, ("",))) for name in over | sure}
    left, gap = (max(map(len, rows)) * 0.085 + 0.12 if any(rows) else 0.0), 0.07
    size = min(size, (f.WIDEST - left) / n)
    # we place the axes: a layout engine would leave white strips under the rows
    width, height = left + n * size, len(rows) * size + sum(0.04 + 0.155 * count for count in lines.values())
    figure, y, said, wrong = Figure(figsize=(width, height)), height, [], []
    for name, images in rows.items():
        y -= size + (0.04 + 0.155 * lines[name] if name in lines else 0)
        figure.text((left - 0.1) / width, (y + size / 2) / height, name, ha="right", va="center")
        for k, image in enumerate(images):
            text, color = str(over[name][k]) if name in over else "", colors[k] if len(colors) else INK
            if name in sure:
                wrong.append(not sure[name][k])
                text, color = (f"{text} ✗".strip(), f.WRONG) if wrong[-1] else (text, color)
            place = (left + k * size + gap / 2) / width, (y + gap / 2) / height
            picture(figure.add_axes((*place, (size - gap) / width, (size - gap) / height)), image, text, color)
        what = "; ".join(" ".join(str(title).split()) for title in over.get(name, ())[:20] if str(title))
        said.append((f"{name}: " if name else "") + f"{len(images)} images" + (f" ({what})" if what else ""))
    figure.alt = alt or "; ".join(said) + (f"; {sum(wrong)} of {len(wrong)} wrong" if wrong else "")
    return figure


def scatter(points, label, classes: Sequence[str], *, title: str = "", **options) -> Figure:
    """One map of points (n, 2), coloured by label (n,); the rest as in scatters()."""
    return scatters({title: points}, label, classes, **{"size": (6.8, 5.1)} | options)


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
    palette = np.array([f.class_color(c, highlight) for c in range(len(classes))] + ["#DDDDDD"])     # the last for -1
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


@styled
def similarity(image, labeled, y, classes: Sequence[str], *, p_w, q_w=None, q_hat=None, q_agg=None, p_hat=None,
               tau: float = 0.95, most: int = 20, alt: str | None = None) -> Figure:
    """SimMatch's two answers for one image (num, H, W), as far as given. Above, for the `most` probable classes: p_w,
    q_agg and their mixture p_hat, each (C,), and tau. Below, for the `most` similar of the images labeled (K_l, num, H,
    W), in order of their class y (K_l,): q_w and q_hat, each (K_l,)."""
    # we place the axes: a layout engine would draw everything twice, and a slider redraws this as it moves
    figure = Figure(figsize=(9, 2.2 if q_w is None else 4.6))
    given = {name: np.asarray(p) for name, p in (("p_w", p_w), ("q_agg", q_agg), ("p_hat", p_hat)) if p is not None}
    answers = ", ".join(f"{key} {p.max():.0%} for {classes[p.argmax()]}" for key, p in given.items())
    figure.alt = alt or f"one image: {answers}"
    low, high = (0.14, 0.72) if q_w is None else (0.56, 0.34)
    picture(figure.add_axes((0.01, low, 0.16, high)), image, "the image")
    probable = np.sort(np.argsort(-np.max(list(given.values()), 0), kind="stable")[:most])
    top = _answers(figure.add_axes((0.23, low, 0.75, high)), "which class?", probable, (COLORS[0], COLORS[1], INK), {
        "$p_w$: the classifier": p_w, "$q^{agg}$: the labelled images": q_agg, "$\\hat p$: both": p_hat})
    top.axhline(tau, color=INK, linewidth=1, linestyle=":")
    names = [classes[c] for c in probable]
    narrow = {"rotation": 30, "ha": "right", "fontsize": 9} if max(map(len, names)) * len(names) >= 80 else {}
    top.set_xticks(range(len(names)), names, **narrow)
    if q_w is None:
        return figure
    shown = np.sort(np.argsort(-np.asarray(q_w), kind="stable")[:most])
    shown = shown[np.argsort(np.asarray(y)[shown], kind="stable")]
    title = "which labelled image?" if len(shown) == len(q_w) else f"the {len(shown)} most similar of {len(q_w)} images"
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
    axis.set(title=title, xlim=(-0.6, len(rows) - 0.4), xticks=[])
    fractions(axis, [], 0, 1)
    axis.legend(ncols=len(series), fontsize=12, loc="lower right", bbox_to_anchor=(1.02, 1.0), borderaxespad=0,
                handlelength=1.2, columnspacing=1)          # so large because indices are small
    return axis
