"""A data set on one device, and which of its rows carry labels."""
import hashlib
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from sslkit.errors import require
from sslkit.records import PseudoLabels


@dataclass(frozen=True, eq=False)
class SSLData:
    """A data set on one device, and which of its rows carry labels: N training images, num channels, H by W pixels."""
    name: str                     # what load() was given
    images: Tensor                # (N, num, H, W) uint8    every training image, labelled or not
    y: Tensor                     # (N,) int64              true labels, -1 where unknown
    test_images: Tensor           # (M, num, H, W) uint8    what is evaluated
    test_y: Tensor                # (M,) int64
    classes: tuple[str, ...]      # (C,)
    mean: tuple[float, ...]       # (num,)                  of the training images as loaded, in [0, 1] units
    std: tuple[float, ...]        # (num,)
    flip: bool                    # may a weak view mirror? Not digits: a mirrored 2 is no 2
    digest: str                   # SHA-256 of the content as loaded: images, labels, test set, classes
    labeled: Tensor               # (num_labeled,) int64    rows of images, the classes taking turns
    unlabeled: Tensor             # (num_unlabeled,) int64  rows of images, ascending
    seed: int                     # which chose the labelled rows
    info: dict                    # what else a record should say: images skipped, files ignored ...
    validation: Tensor            # (V,) int64              rows as loaded that took the test set's place, if any
    pseudo: Tensor | None = None  # (N,) int64              a labeler's labels of the training images, -1 where it has none
    imbalance: tuple[float, float] = (1.0, 1.0)     # factor of the labelled and of the unlabelled images, see split()
    unlabeled_asked: int | None = None              # the number of unlabelled rows, where split() was given one
    left_out: Tensor | None = None                  # rows that the long tail took away, as they were numbered before

    def __repr__(self) -> str:
        return (f"SSLData({self.name}: {len(self.images):,} images, {self.num_labeled} labelled, {self.num_unlabeled:,} unlabelled, "
                f"{len(self.test_images):,} for the test, {self.num_classes} classes, {self.side} px, {self.images.device})")

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
    def known(self) -> Tensor:
        """(N,) int64: the labels of the labelled rows, -1 elsewhere; what a labeler may know."""
        return torch.full_like(self.y, -1).index_copy(0, self.labeled, self.y[self.labeled])

    @property
    def groups(self) -> dict[str, list[int]]:
        """head, middle and tail: the third of the classes with the most images, the third with the fewest, and those between; by the
        labelled images' long tail, else by the unlabelled ones'. Empty where there is no long tail."""
        factor, third = next((f for f in self.imbalance if f != 1), 1.0), max(1, self.num_classes // 3)
        order = list(range(self.num_classes))[::-1 if factor < 0 else 1]
        parts = {"head": order[:third], "middle": order[third:-third], "tail": order[-third:]}
        return {name: sorted(part) for name, part in parts.items() if part} if factor != 1 else {}

    def counts(self) -> tuple[list[int], list[int]]:
        """How many labelled and how many unlabelled images each class has, of those whose class is known."""
        labels = (self.y[rows] for rows in (self.labeled, self.unlabeled))
        labeled, unlabeled = (torch.bincount(y[y >= 0], minlength=self.num_classes).tolist() for y in labels)
        return labeled, unlabeled

    @property
    def hash(self) -> str:
        """16 hex digits of the content, the labelled rows in order, the unlabelled, the evaluated, those left out, the pseudo-labels;
        not of the name."""
        h = hashlib.sha256(self.digest.encode())
        for rows in (self.labeled, self.unlabeled, self.validation):
            h.update(b"%d:" % len(rows) + rows.cpu().numpy().astype("<i8").tobytes())
        if self.pseudo is not None:
            h.update(b"pseudo:" + self.pseudo.cpu().numpy().astype("<i8").tobytes())
        if self.left_out is not None:
            h.update(b"left out:" + self.left_out.cpu().numpy().astype("<i8").tobytes())
        return h.hexdigest()[:16]

    def told(self, labels: PseudoLabels) -> "SSLData":
        """The same data with a labeler's labels of all training images, for methods that use them. Its hash is another.

        InputError where they are of other rows or classes.
        """
        require(len(labels.label) == len(self.images), f"{len(labels.label)} pseudo-labels do not fit {len(self.images)} training images")
        top = int(labels.label.max())
        require(top < self.num_classes, f"a pseudo-label is {top}, the classes go from 0 to {self.num_classes - 1}")
        return replace(self, pseudo=labels.label.to(self.images.device))

    def to(self, device: str | torch.device) -> "SSLData":
        """The same data with every tensor on `device`."""
        return replace(self, **{k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)})


def rows_by_class(y: np.ndarray, num_classes: int, rng: np.random.RandomState) -> list[np.ndarray]:
    """Each class's rows, shuffled. NumPy has frozen RandomState's streams (NEP 19): the same on every machine."""
    return [rng.permutation(np.flatnonzero(y == c)) for c in range(num_classes)]
