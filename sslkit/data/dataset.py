"""A data set on one device, and which of its rows carry labels."""
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sslkit.data.cache import LARGE
from sslkit.errors import require
from sslkit.records import PseudoLabels

if TYPE_CHECKING:
    from sslkit.data.features import Features


class Rows:
    """Some rows of images (N, num, H, W), gathered whenever they are asked for: too many to copy."""

    def __init__(self, images: Tensor, rows: Tensor):
        self.images, self.rows, self.shape = images, rows, (len(rows), *images.shape[1:])
        self.device, self.dtype = images.device, images.dtype

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: int | slice | Tensor) -> Tensor:
        return self.images[self.rows[at]]

    def index_select(self, axis: int, rows: Tensor) -> Tensor:
        return self.images.index_select(axis, self.rows[rows])

    def split(self, size: int) -> Iterator[Tensor]:
        return (self[start:start + size] for start in range(0, len(self), size))


def picked(images: "Tensor | Rows", rows: Tensor) -> "Tensor | Rows":
    """The `rows` of `images`: a copy, or Rows where that would be too large to copy."""
    if math.prod(images.shape[1:]) * len(rows) <= LARGE:
        return images[rows.to(images.device)]
    rows = rows.to(images.device)
    return Rows(images.images, images.rows[rows]) if isinstance(images, Rows) else Rows(images, rows)


@dataclass(frozen=True, eq=False)
class SSLData:
    """A data set on one device, and which of its rows carry labels: N training images, num channels, H by W pixels.

    Images that take more than a GB lie in a file, in reach of the CPU; they stay there whatever the device.
    """
    name: str                     # as given to load()
    images: Tensor | Rows         # (N, num, H, W) uint8    every training image, labelled or not
    y: Tensor                     # (N,) int64              true labels, -1 where unknown
    test_images: Tensor | Rows    # (M, num, H, W) uint8    what a run is evaluated on
    test_y: Tensor                # (M,) int64
    classes: tuple[str, ...]      # (C,)
    mean: tuple[float, ...]       # (num,)                  of the training images as loaded, in [0, 1] units
    std: tuple[float, ...]        # (num,)
    flip: bool                    # may a weak view mirror an image? Not digits: a mirrored 2 is no 2
    digest: str                   # SHA-256 of the content as loaded: images, labels, test set, classes
    labeled: Tensor               # (num_labeled,) int64    rows of images; the classes take turns, if drawn
    unlabeled: Tensor             # (num_unlabeled,) int64  rows of images, ascending
    seed: int                     # it chose the labelled rows, unless a list did
    info: dict                    # loading report: images skipped, files ignored ...; "files" names the rows as loaded
    validation: Tensor            # (V,) int64              rows as loaded that replace the test set, if any
    pseudo: Tensor | None = None  # (N,) int64              a labeler's labels of the training images, -1: no label
    imbalance: tuple[float, float] = (1.0, 1.0)     # factor of the labelled and of the unlabelled images, see split()
    unlabeled_asked: int | None = None              # the number of unlabelled rows, if split() was given one
    left_out: Tensor | None = None                  # rows that the long tail dropped, in their numbers before that
    features: "Features | None" = None              # of a pre-trained encoder; networks get them in place of images
    crop: int | None = None                         # side of random resized crops, which weak views then are
    labeled_list: str | None = None                 # digest of the list that chose the labelled rows, if one did

    def __repr__(self) -> str:
        return (f"SSLData({self.name}: {len(self.images):,} images, {self.num_labeled} labelled, {self.num_unlabeled:,}"
                f" unlabelled, {len(self.test_images):,} for the test, {self.num_classes} classes, {self.side} px, "
                f"{'features of ' + self.features.encoder + ', ' if self.features else ''}"
                f"{self.y.device})")

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def num_labeled(self) -> int:
        return len(self.labeled)

    @property
    def num_unlabeled(self) -> int:
        return len(self.unlabeled)

    @property
    def side(self) -> int:
        """H and W, which are equal."""
        return self.images.shape[-1]

    @property
    def view(self) -> tuple[int, ...]:
        """The shape of what a network gets: (num, H, W), or (D,) features."""
        return (self.channels,) if self.features else (self.channels, *[self.crop or self.side] * 2)

    @property
    def inputs(self) -> Tensor | Rows:
        """What a network gets of the training images, before it is normalised: the images, or (N, D) features."""
        return self.images if self.features is None else self.features.plain()

    @property
    def test_inputs(self) -> Tensor | Rows:
        """What it gets of the test images."""
        return self.test_images if self.features is None else self.features.plain("test")

    @property
    def channels(self) -> int:
        """Colours of an image, or numbers of its features."""
        return self.images.shape[1] if self.features is None else self.features.dim

    @property
    def known(self) -> Tensor:
        """(N,) int64: the labels of the labelled rows, -1 elsewhere: all that a labeler may know."""
        return torch.full_like(self.y, -1).index_copy(0, self.labeled, self.y[self.labeled])

    @property
    def groups(self) -> dict[str, list[int]]:
        """Classes by name: head and tail, the thirds with the most and the fewest images, and middle, those between.

        The long tail of the labelled images decides, else that of the unlabelled ones. Without one, it is empty.
        """
        factor, third = next((f for f in self.imbalance if f != 1), 1.0), max(1, self.num_classes // 3)
        order = list(range(self.num_classes))[::-1 if factor < 0 else 1]
        parts = {"head": order[:third], "middle": order[third:-third], "tail": order[-third:]}
        return {name: sorted(part) for name, part in parts.items() if part} if factor != 1 else {}

    def counts(self) -> tuple[list[int], list[int]]:
        """How many labelled and how many unlabelled images of known class each class has."""
        labels = (self.y[rows] for rows in (self.labeled, self.unlabeled))
        labeled, unlabeled = (torch.bincount(y[y >= 0], minlength=self.num_classes).tolist() for y in labels)
        return labeled, unlabeled

    @property
    def hash(self) -> str:
        """16 hex digits of the content as loaded, the labelled rows in order, the other rows and the pseudo-labels."""
        parts = [(b"%d:" % len(rows), rows) for rows in (self.labeled, self.unlabeled, self.validation)]
        h = hashlib.sha256(self.digest.encode())
        for name, rows in (*parts, (b"pseudo:", self.pseudo), (b"left out:", self.left_out)):
            if rows is not None:
                h.update(name + rows.cpu().numpy().astype("<i8").tobytes())
        return h.hexdigest()[:16]

    def told(self, labels: PseudoLabels) -> "SSLData":
        """The same data with a labeler's labels of all its images; its hash changes. InputError if they do not fit."""
        require(len(labels.label) == len(self.images),
                f"{len(labels.label)} pseudo-labels do not fit {len(self.images)} training images")
        top = int(labels.label.max())
        require(top < self.num_classes, f"a pseudo-label is {top}, the classes go from 0 to {self.num_classes - 1}")
        return replace(self, pseudo=labels.label.to(self.y.device))

    def to(self, device: str | torch.device) -> "SSLData":
        """The same data with every tensor on `device`, but for images that are too many."""
        return replace(self, **{k: v.to(device) for k, v in vars(self).items()
                                if isinstance(v, Tensor) and v.nbytes <= LARGE})


def send(t: Tensor, device: torch.device) -> Tensor:
    """`t` on `device`; a copy to a GPU does not wait for it."""
    if device.type == "cuda" and t.device.type == "cpu":
        return t.pin_memory().to(device, non_blocking=True)
    return t.to(device)


def rows_by_class(y: np.ndarray, num_classes: int, rng: np.random.RandomState) -> list[np.ndarray]:
    """Each class's rows, shuffled; the same on every machine, because NumPy froze RandomState's streams (NEP 19)."""
    return [rng.permutation(np.flatnonzero(y == c)) for c in range(num_classes)]
