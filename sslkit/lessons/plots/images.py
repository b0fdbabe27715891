"""Images in rows."""
from collections.abc import Mapping, Sequence

import numpy as np

from sslkit.lessons.plots.figure import INK, Figure, bare, new, styled


def picture(axis, image, title: str = "", color: str = INK) -> None:
    """One uint8 image (num, H, W) on an axis without ticks."""
    image = np.asarray(image)
    axis.imshow(image[0] if len(image) == 1 else image.transpose(1, 2, 0), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axis.set_title(title, fontsize=9, loc="center", color=color)
    bare(axis)


@styled
def image_grid(rows: Mapping[str, Sequence], titles: Sequence[str] | Mapping[str, Sequence[str]] = (), *, colors: Sequence[str] = (),
               size: float = 0.85) -> Figure:
    """A row of images for each name. rows: name -> (n, num, H, W) uint8; titles: n strings over the first row, or name -> n strings."""
    n = max(1, *(len(images) for images in rows.values()))
    over = titles if isinstance(titles, Mapping) else dict.fromkeys([next(iter(rows))] if titles else [], titles)
    figure, axes = new(size * n + (max(1.0, 0.075 * max(map(len, rows))) if any(rows) else 0), (size + 0.12) * len(rows) + 0.25 * len(over),
                       "images: " + ", ".join(rows), len(rows), n, squeeze=False)
    for axis in axes.flat:
        bare(axis)
    for r, (name, images) in enumerate(rows.items()):
        axes[r, 0].set_ylabel(name, rotation=0, ha="right", va="center", labelpad=8)
        for k, image in enumerate(images):
            picture(axes[r, k], image, over[name][k] if name in over else "", colors[k] if colors else INK)
    return figure
