"""Images in rows; SimMatch's two answers for one image."""
from collections.abc import Mapping, Sequence

import numpy as np

from sslkit.lessons.plots.bars import bars_beside
from sslkit.lessons.plots.figure import COLORS, INK, WIDEST, WRONG, Figure, bare, fractions, styled


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
    size = min(size, (WIDEST - left) / n)
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
                text, color = (f"{text} ✗".strip(), WRONG) if wrong[-1] else (text, color)
            place = (left + k * size + gap / 2) / width, (y + gap / 2) / height
            picture(figure.add_axes((*place, (size - gap) / width, (size - gap) / height)), image, text, color)
        what = "; ".join(" ".join(str(title).split()) for title in over.get(name, ())[:20] if str(title))
        said.append((f"{name}: " if name else "") + f"{len(images)} images" + (f" ({what})" if what else ""))
    figure.alt = alt or "; ".join(said) + (f"; {sum(wrong)} of {len(wrong)} wrong" if wrong else "")
    return figure


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
