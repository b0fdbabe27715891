"""Images on one device and the rows that carry labels: load() a data set; splits.split() chooses the rows."""
import hashlib
import http.client
import os
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sslkit.errors import InputError, choose, require
from sslkit.folder import Arrays, cached, read_files, read_folder, summarize
from sslkit.records import Progress, PseudoLabels

DATA = ("digits", "cifar10", "cifar100", "svhn", "stl10", "food101")
STL10 = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")


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


def load(name: str = "digits", *, root: str | Path | None = None, download: bool = False, size: int | None = None,
         skip_bad_images: bool = False, device: str | torch.device = "cpu",
         progress: Progress | None = None) -> SSLData:
    """A data set with no labelled rows yet: `name` is one of DATA, or "folder:PATH" (see folder.read_folder).

    `root` is where torchvision's sets lie, else $SSLKIT_DATA or ~/.cache/sslkit; only `download` fetches them. `size`,
    pixels a side, is for folders (else 32) and food101 (else 128). `progress` gets (done, total, what) while images
    are decoded. All but digits are cached, see folder.cached. Raises InputError: an unknown name; a set that is not
    there, damaged or cannot be fetched; a folder that is no data set. Sources: scikit-learn's load_digits, torchvision.
    """
    how = {"skip_bad_images": skip_bad_images, "progress": progress}
    kind, _, path = str(name).partition(":")
    if kind == "folder":
        require(path != "", "a folder is given with its path, folder:PATH; it holds train/<class>/* and test/<class>/*")
        path = Path(path).expanduser().absolute()
        name, arrays = f"folder:{path}", read_folder(path, size=32 if size is None else size, **how)
    else:
        choose("data set", name, (*DATA, "folder:PATH"))
        root = Path(root or os.environ.get("SSLKIT_DATA") or "~/.cache/sslkit").expanduser().absolute()
        side = {"digits": 8, "stl10": 96}.get(name, 32)
        fits = name == "food101" or size in (None, side)
        require(fits, f"{name} has {side} pixels a side; size is for folders and food101")
        if name == "digits":
            arrays = _digits()
        else:
            arrays = _torchvision(name, root, download, size=128 if size is None else size, **how)
    images, y, test_images, test_y = map(torch.from_numpy, arrays[:4])
    none = torch.empty(0, dtype=torch.int64)
    return SSLData(name, images, y, test_images, test_y, arrays.classes, arrays.mean, arrays.std,
                   flip=name not in ("digits", "svhn"), digest=arrays.digest, labeled=none,
                   unlabeled=torch.arange(len(y)), seed=0, info=arrays.info, validation=none).to(device)


def rows_by_class(y: np.ndarray, num_classes: int, rng: np.random.RandomState) -> list[np.ndarray]:
    """Each class's rows, shuffled. NumPy has frozen RandomState's streams (NEP 19): the same on every machine."""
    return [rng.permutation(np.flatnonzero(y == c)) for c in range(num_classes)]


def _digits() -> Arrays:
    from sklearn.datasets import load_digits  # slow to import, and needed here only
    source = load_digits()
    images, y = np.rint(source.images * (255 / 16))[:, None], source.target
    test = np.concatenate([rows[:40] for rows in rows_by_class(y, 10, np.random.RandomState(0))])
    test, train = np.sort(test), np.delete(np.arange(len(y)), test)
    return summarize(images[train], y[train], images[test], y[test], "0123456789", {})


def _torchvision(name: str, root: Path, download: bool, **how) -> Arrays:
    """One of torchvision's sets. Its files are checked by MD5 whenever they are parsed; Food-101's only at download."""
    from torchvision import datasets
    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100, "svhn": datasets.SVHN, "stl10": datasets.STL10,
            "food101": datasets.Food101}[name]
    parts = [{"split": "train"}, {"split": "test"}]
    if name == "svhn":
        files = [(root / kind.split_list[part][1], kind.split_list[part][2]) for part in ("train", "test")]
    elif name == "food101":
        files = [(root / "food-101" / file, None) for file in ("meta/train.json", "meta/test.json", "images")]
    else:
        base = root / kind.base_folder
        files = [(base / file, md5) for file, md5 in kind.train_list + kind.test_list]
        if name == "stl10":
            parts.append({"split": "unlabeled"})
        else:
            files.append((base / kind.meta["filename"], kind.meta["md5"]))
            parts = [{"train": True}, {"train": False}]

    def opened() -> list:
        return [_open(name, kind, root, download, files, part) for part in parts]

    def build() -> Arrays:
        train, test, *more = opened()
        if name == "svhn":
            info = {"extra": "not used: train alone"}
            return summarize(train.data, train.labels, test.data, test.labels, "0123456789", info)
        if name == "stl10":
            n = len(train.data)
            images = np.empty((n + len(more[0].data), 3, 96, 96), np.uint8)     # filled, not joined: it has 3 GB
            images[:n], images[n:] = train.data, more[0].data
            y = np.concatenate([train.labels.astype(np.int64), np.full(len(images) - n, -1)])
            return summarize(images, y, test.data, test.labels, STL10, {})
        images, test_images = (part.data.transpose(0, 3, 1, 2) for part in (train, test))
        return summarize(images, train.targets, test_images, test.targets, train.classes, {})

    if download and not all(path.exists() for path, _ in files):
        opened()
    for path, _ in files:
        require(path.exists(), f"{name} is not in {root}: there is no {path.relative_to(root)}; pass --download to "
                               "fetch it, or --root for where it lies")
    if name != "food101":
        return cached(f"{name} {root}", [path for path, _ in files], build)
    train, test = opened()
    paths, y, test_y = train._image_files + test._image_files, np.array(train._labels), np.array(test._labels)
    return cached(f"food101 {root} {how['size']} {how['skip_bad_images']}", paths, lambda: read_files(
        train._image_files, y, test._image_files, test_y, train.classes, **how))


def _open(name: str, kind: type, root: Path, download: bool, files: list[tuple[Path, str | None]], part: dict):
    """One part of one of torchvision's sets, its exceptions put into sentences."""
    from torchvision.datasets.utils import check_integrity
    try:
        return kind(root, download=download, **part)
    except (RuntimeError, OSError, EOFError, ValueError, tarfile.TarError, http.client.HTTPException) as e:
        if download:
            raise InputError(f"could not download {name} to {root}: {e}") from e
        for path, md5 in files:
            if md5 and not check_integrity(path, md5):
                raise InputError(f"{path} is damaged: its MD5 is not the published one; delete it and pass --download") from e
        raise InputError(f"could not read {name} in {root}: {e}") from e
