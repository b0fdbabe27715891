"""The data sets: the facts of each in one table, SOURCES, and load(), which reads one."""
import gzip
import http.client
import os
import tarfile
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from sslkit.data.cache import Arrays, Work, cached, summarize
from sslkit.data.dataset import SSLData, rows_by_class
from sslkit.data.folder import read_files, read_folder, read_pictures
from sslkit.errors import InputError, choose, require
from sslkit.records import Progress

STL10 = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
DEBIAN = Path("/usr/share/datasets/fashion-mnist")      # where the package dataset-fashion-mnist puts its files


@dataclass(frozen=True)
class Source:
    """Facts of a data set, and the defaults of a run on it."""
    title: str                    # as the papers write it
    side: int = 32                # pixels; of a folder and food101, where --size may choose it, the default
    sized: bool = False           # may --size choose it?
    flip: bool = True             # may a weak view mirror an image?
    network: str = "wrn-28-2"
    steps: int = 2**15
    batch_size: int = 64
    mu: int = 7
    lr: float = 0.03
    weight_decay: float = 5e-4


SOURCES = {
    "digits": Source("digits", side=8, flip=False, network="small", steps=2000, batch_size=32, mu=3, lr=0.1),
    "cifar10": Source("CIFAR-10"),
    "cifar100": Source("CIFAR-100", network="wrn-28-8", weight_decay=1e-3),
    "svhn": Source("SVHN", flip=False),
    "fashion-mnist": Source("Fashion-MNIST", side=28),
    "stl10": Source("STL-10", side=96, network="wrn-37-2"),
    "food101": Source("Food-101", side=128, sized=True),
    "folder": Source("a folder", sized=True)}

FOLDERS = {"folder": (read_folder, "train/<class>/* and test/<class>/*"),
           "imagefolder": (partial(read_folder, test="val"), "train/<class>/* and val/<class>/*"),
           "pictures": (read_pictures, "images")}


# Of any data set. Chosen once, with FreeMatch, on photographs of CIFAR-10 that no test uses: see figures/RESULTS.md.
FEATURES = Source("features", network="linear", steps=800, batch_size=32, lr=0.003)


def source(name: str, features: bool = False) -> Source:
    """The facts of the data set that load() calls `name`; those of a folder for any other; those of features."""
    return FEATURES if features else SOURCES.get(name, SOURCES["folder"])


def load(name: str = "digits", *, root: str | Path | None = None, download: bool = False, size: int | None = None,
         skip_bad_images: bool = False, device: str | torch.device = "cpu",
         progress: Progress | None = None) -> SSLData:
    """A data set with no labelled rows yet: `name` is one of SOURCES, or "folder:PATH" (see folder.read_folder), or
    "imagefolder:PATH", the same with val/ for test/, as ImageNet lies, or "pictures:PATH", images without any label
    (see folder.read_pictures).

    root: where torchvision's data sets lie (default: $SSLKIT_DATA or ~/.cache/sslkit); only `download` fetches them.
    A set may also lie there as image files, in NAME/train/CLASS/ and NAME/test/CLASS/; info["files"] then names them.
    size: pixels a side, for folders (default: 32) and food101 (default: 128). progress: shown (done, total, what)
    while images are decoded. All but digits are cached, see cache.cached. Raises InputError for an unknown name, a data
    set that is missing, damaged or cannot be fetched, and a folder that is no data set. Sources: scikit-learn's
    load_digits, torchvision; for fashion-mnist also Debian's package dataset-fashion-mnist, where `root` has none.
    """
    how = {"skip_bad_images": skip_bad_images, "progress": progress}
    kind, _, path = str(name).partition(":")
    if kind in FOLDERS:
        read, content = FOLDERS[kind]
        require(path != "", f"{kind} is given with the path of a folder, {kind}:PATH; it holds {content}")
        path = Path(path).expanduser().absolute()
        name, size = f"{kind}:{path}", source(name).side if size is None else size
        arrays = read(path, size=size, **how)
    else:
        folders = (f"{known}:PATH" for known in FOLDERS)
        choose("data set", name, (*(known for known in SOURCES if known != "folder"), *folders))
        root = Path(root or os.environ.get("SSLKIT_DATA") or "~/.cache/sslkit").expanduser().absolute()
        side = source(name).side
        require(source(name).sized or size in (None, side),
                f"{name} has {side} pixels a side; size is for folders and food101")
        if name == "digits":
            arrays = _digits()
        elif (root / name / "train").is_dir():
            arrays = read_folder(root / name, size=side if size is None else size, **how)
        else:
            arrays = _torchvision(name, root, download, size=side if size is None else size, **how)
    images, y, test_images, test_y = map(torch.from_numpy, arrays[:4])
    none = torch.empty(0, dtype=torch.int64)
    return SSLData(name, images, y, test_images, test_y, arrays.classes, arrays.mean, arrays.std, source(name).flip,
                   arrays.digest, none, torch.arange(len(y)), 0, arrays.info, none).to(device)


def _digits() -> Arrays:
    from sklearn.datasets import load_digits  # slow to import, and needed here only
    found = load_digits()
    images, y = np.rint(found.images * (255 / 16))[:, None], found.target
    test = np.concatenate([rows[:40] for rows in rows_by_class(y, 10, np.random.RandomState(0))])
    test, train = np.sort(test), np.delete(np.arange(len(y)), test)
    return summarize(images[train], y[train], images[test], y[test], "0123456789", {})


def _torchvision(name: str, root: Path, download: bool, **how) -> Arrays:
    """One of torchvision's sets. Its files are checked by MD5 whenever they are parsed; Food-101's only at download."""
    from torchvision import datasets
    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100, "svhn": datasets.SVHN, "stl10": datasets.STL10,
            "fashion-mnist": datasets.FashionMNIST, "food101": datasets.Food101}[name]
    parts = [{"split": "train"}, {"split": "test"}]
    if name == "svhn":
        files = [(root / kind.split_list[part][1], kind.split_list[part][2]) for part in ("train", "test")]
    elif name == "fashion-mnist":
        base, names = root / "FashionMNIST/raw", [file for file, _ in kind.resources]
        if not base.exists() and all((DEBIAN / file).exists() for file in names):
            root, files = DEBIAN, [(DEBIAN / file, None) for file in names]     # packed anew, so its MD5 is another
        else:
            files = [(base / file, md5) for file, md5 in kind.resources]
        kind = partial(_fashion_mnist, kind, files)
    elif name == "food101":
        files = [(root / "food-101" / file, None) for file in ("meta/train.json", "meta/test.json", "images")]
    else:
        base = root / kind.base_folder
        files = [(base / file, md5) for file, md5 in kind.train_list + kind.test_list]
        if name == "stl10":
            unlabeled = base / kind.train_list[2][0]
        else:
            files.append((base / kind.meta["filename"], kind.meta["md5"]))
            parts = [{"train": True}, {"train": False}]

    def opened() -> list:
        return [_open(name, kind, root, download, files, part) for part in parts]

    def build(work: Work) -> Arrays:
        train, test = opened()
        if name == "svhn":
            info = {"extra": "not used: train alone"}
            return summarize(train.data, train.labels, test.data, test.labels, "0123456789", info)
        if name == "fashion-mnist":
            return summarize(train.data, train.labels, test.data, test.labels, train.classes, {})
        if name == "stl10":
            n, more = len(train.data), np.memmap(unlabeled, mode="r").reshape(-1, 3, 96, 96).swapaxes(2, 3)
            images = work.array("images", (n + len(more), 3, 96, 96))     # filled, not joined: it has 3 GB
            images[:n], images[n:] = train.data, more
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
    return cached(f"food101 {root} {how['size']}", paths, lambda work: read_files(
        train._images_folder, train._image_files, y, test._image_files, test_y, train.classes, work, **how),
        apart=(how["skip_bad_images"],))


def _fashion_mnist(kind: type, files: list[tuple[Path, str | None]], root: Path, download: bool, split: str):
    """A part of Fashion-MNIST from the .gz files: torchvision itself reads unpacked ones, which it does not check."""
    from torchvision.datasets.utils import check_integrity, download_url
    for path, md5 in files:
        if download:
            download_url(kind.mirrors[0] + path.name, path.parent, md5=md5)
        if not check_integrity(path, md5):
            raise RuntimeError(f"{path.name} is damaged")
    pair = files[:2] if split == "train" else files[2:]
    images, labels = (bytearray(gzip.decompress(path.read_bytes())) for path, _ in pair)
    return SimpleNamespace(data=np.frombuffer(images, np.uint8, offset=16).reshape(-1, 1, 28, 28), classes=kind.classes,
                           labels=np.frombuffer(labels, np.uint8, offset=8))


def _open(name: str, kind: type, root: Path, download: bool, files: list[tuple[Path, str | None]], part: dict):
    """One part of one of torchvision's sets, its exceptions put into sentences."""
    from torchvision.datasets.utils import check_integrity
    try:
        return kind(root, download=download, **part)
    except (RuntimeError, OSError, EOFError, ValueError, zlib.error, tarfile.TarError, http.client.HTTPException) as e:
        if download:
            raise InputError(f"could not download {name} to {root}: {e}") from e
        for path, md5 in files:
            if md5 and not check_integrity(path, md5):
                raise InputError(f"{path} is damaged: its MD5 is not the published one; delete it and pass "
                                 "--download") from e
        raise InputError(f"could not read {name} in {root}: {e}") from e
