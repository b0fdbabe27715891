"""Features of pictures: what a pre-trained encoder makes of the plain picture and of several weak and strong views of
it. They are computed once; every method then trains a small head on them in seconds.

They lie in $SSLKIT_CACHE, or ~/.cache/sslkit, under features/: a table for each encoder and kind of view, with a row
for each picture ever seen, found by the picture's pixels. So a picture that moves to another folder keeps its row, and
a process that was stopped goes on where it was. The tables are float16 and memory-mapped. They may be deleted at any
time.
"""
import hashlib
import os
import re
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from sslkit.data import augment
from sslkit.data.cache import home
from sslkit.data.dataset import SSLData
from sslkit.data.draws import Share, drawn
from sslkit.errors import choose, require
from sslkit.files import cannot_write, digest, waiting
from sslkit.records import Progress

PICTURES = 64                     # embedded at a time
KEY = 16                          # bytes that name a picture
LENGTH = 36.0                     # of features as networks get them: one for all, so that one learning rate fits all
# the stored views from which a view is drawn
POOLS = {"weak": ("plain", "weak"), "strong": ("weak", "strong"), "jitter": ("weak", "strong")}


@dataclass(frozen=True, eq=False)
class Encoder:
    """A network that makes features of pictures: (n, 3, side, side) float32, normalised -> (n, D). networks.encoder()
    makes one by name."""
    name: str
    network: Callable[[Tensor], Tensor]
    side: int = 224               # pixels a side of what it gets
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)         # ImageNet's, in [0, 1] units
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: str = "bicubic"                          # how pictures of another size are scaled: or "bilinear"
    code: str = ""                # names its weights (default: those of an nn.Module, else the name alone)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Features (n, D) float32, on the CPU, of `images` (n, 1 or 3, H, H) uint8. InputError for other output."""
        weight = next(self.network.parameters(), None) if isinstance(self.network, nn.Module) else None
        x = images.to("cpu" if weight is None else weight.device).expand(-1, 3, -1, -1)
        if x.shape[-1] != self.side:
            x = F.interpolate(x.float(), (self.side, self.side), mode=self.interpolation, antialias=True)
            x = x.round_().clamp_(0, 255).to(torch.uint8)
        out = self.network(augment.normalize(x, self.mean, self.std, channels_last=True))
        fits = isinstance(out, Tensor) and out.ndim == 2 and len(out) == len(images)
        require(fits, f"the encoder {self.name} gives no table of features, a row for each picture, but "
                      f"{tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__}")
        return out.float().cpu()

    @property
    def digest(self) -> str:
        """16 hexadecimal digits of everything that decides its features."""
        weights = hashlib.sha256(self.code.encode())
        if not self.code and isinstance(self.network, nn.Module):
            for name, value in self.network.state_dict().items():
                weights.update(name.encode() + value.detach().cpu().numpy().tobytes())
        return digest([self.name, weights.hexdigest(), self.side, self.mean, self.std, self.interpolation])


@dataclass(frozen=True, eq=False)
class Features:
    """The features of a data set's pictures, D numbers each, on the CPU."""
    encoder: str                  # its name
    side: int                     # pixels a side of what it got
    tables: dict[str, Tensor]     # kind of view (plain, weak, strong) -> (R, views, D) float16, memory-mapped
    rows: dict[str, Tensor]       # kind of view -> (N,) rows of its table, one a training image; test: (M,) of plain's
    mean: Tensor                  # (D,) of the plain training images
    digest: str                   # 16 hexadecimal digits of all of them

    @property
    def views(self) -> int:
        """How many views of each training image there are, beside the plain image."""
        return sum(table.shape[1] for table in self.tables.values()) - 1

    @property
    def dim(self) -> int:
        return self.tables["plain"].shape[2]

    def plain(self, part: str = "plain") -> Tensor:
        """(N, D) float16 of the plain training images; part "test": (M, D) of the test images."""
        return self.tables["plain"][self.rows[part], 0]

    def view(self, kind: str, rows: Tensor, g: Generator | Share) -> Tensor:
        """(n, D) float32, one of the stored views for each of the training images `rows`, drawn by `g`; see ready().
        InputError for a kind of view that is not stored."""
        pool = [name for name in POOLS[choose("kind of view of features", kind, POOLS)] if name in self.tables]
        require(bool(pool), f"there are no {kind} views among these features: compute some, with --views 6")
        ends = np.cumsum([self.tables[name].shape[1] for name in pool])
        which = drawn(partial(torch.randint, int(ends[-1])), (len(rows),), g)
        out = torch.empty(len(rows), self.dim, dtype=torch.float16)
        for name, end in zip(pool, ends.tolist()):
            first = end - self.tables[name].shape[1]
            here = ((which >= first) & (which < end)).nonzero()[:, 0]
            out[here] = self.tables[name][self.rows[name][rows[here]], which[here] - first]
        return self.ready(out)

    def ready(self, features: Tensor) -> Tensor:
        """(n, D) float32 as networks get them: centred, of length LENGTH."""
        return F.normalize(features.float() - self.mean) * LENGTH

    def at(self, stay: Tensor) -> "Features":
        """Those of the training images `stay` alone, and of all test images."""
        rows = {kind: rows if kind == "test" else rows[stay.cpu()] for kind, rows in self.rows.items()}
        return replace(self, rows=rows)

    def tested_on(self, rows: Tensor) -> "Features":
        """With the `rows` of the table of plain images as the test images."""
        return replace(self, rows=self.rows | {"test": rows})


def features(data: SSLData, encoder: Encoder, *, views: int = 6, strong: str = "mc",
             progress: Progress | None = None) -> SSLData:
    """`data` with the features of its pictures in .features; its digest changes. Call it before split().

    views: how many of each training image beside the plain one, a third of them weak and the rest strong (`strong`: a
    variant of RandAugment). They are made of data.images as these are, the encoder then gets them in its own size.
    progress: called with (pictures done, pictures in all, "embedding pictures"). Raises InputError for data that is
    split, settings out of range, an encoder that gives no features, a disk that is full.
    """
    require(data.features is None and not len(data.labeled) and data.left_out is None and not len(data.validation),
            "features are computed before split(): take the data as load() gives it")
    whole = isinstance(views, int) and not isinstance(views, bool)
    require(whole and 0 <= views <= 1000, f"views is {views!r}, it must be a whole number from 0 to 1000")
    choose("strong view", strong, augment.VARIANTS)
    number = {"plain": 1, "weak": views // 3, "strong": views - views // 3}
    make = {"plain": lambda images, g: images, "weak": partial(augment.weak, flip=data.flip),
            "strong": partial(augment.strong, variant=strong, flip=data.flip)}
    dim = encoder(torch.zeros_like(data.images[:1])).shape[1]
    place = home("features") / "-".join((re.sub(r"[^\w.-]+", "-", encoder.name), encoder.digest, str(dim)))
    n, keys, tables = len(data.images), _keys(data), {}
    for kind, count in number.items():
        if count:
            how = {"plain": "", "weak": f"-{data.flip}", "strong": f"-{data.flip}-{strong}"}[kind]
            tables[kind] = Table(place / f"{kind}-{count}{how}", (count, dim))
    wanted = {kind: keys if kind == "plain" else keys[:n] for kind in tables}
    found_all = not any(table.missing(wanted[kind]) for kind, table in tables.items())
    # who finds all need not wait for another
    with nullcontext() if found_all else waiting(place, "is embedding with this encoder"):
        missing = {} if found_all else {kind: table.repaired().missing(wanted[kind]) for kind, table in tables.items()}
        todo = sorted(set().union(*missing.values()))
        for at in range(0, len(todo), PICTURES):
            for kind, table in tables.items():
                rows = [row for row in todo[at:at + PICTURES] if row in missing[kind]]
                if not rows:
                    continue
                seed = hashlib.sha256(kind.encode() + keys[rows].tobytes()).digest()[:4]
                g = Generator().manual_seed(int.from_bytes(seed, "little"))
                pictures = torch.stack([data.images[r] if r < n else data.test_images[r - n] for r in rows])
                found = torch.stack([encoder(make[kind](pictures, g)) for _ in range(number[kind])], 1).half()
                require(bool(found.isfinite().all()), f"the encoder {encoder.name} gives numbers that are not finite, "
                                                      "or too large for float16")
                table.append(keys[rows], found.numpy())
            if progress:
                progress(min(at + PICTURES, len(todo)), len(todo), "embedding pictures")
    rows = {kind: table.rows(wanted[kind]) for kind, table in tables.items()}
    rows |= {"test": rows["plain"][n:], "plain": rows["plain"][:n]}
    arrays = {kind: table.array() for kind, table in tables.items()}
    content, sums = hashlib.sha256(), torch.zeros(dim, dtype=torch.float64)
    for kind, picked in rows.items():
        for part in picked.split(1000):
            values = arrays["plain" if kind == "test" else kind][part]
            content.update(values.numpy().tobytes())
            sums += values[:, 0].double().sum(0) if kind == "plain" else 0
    found = Features(encoder.name, encoder.side, arrays, rows, (sums / n).float(), content.hexdigest()[:16])
    return replace(data, features=found, digest=digest([data.digest, encoder.name, found.digest]))


def _keys(data: SSLData) -> np.ndarray:
    """(N + M, KEY) uint8 that name the pictures by their pixels; kept, since reading all pixels takes a while."""
    path, shape = home("features") / f"keys-{data.digest[:32]}.npy", (len(data.images) + len(data.test_images), KEY)
    try:
        known = np.load(path)
        if known.shape == shape:
            return known
    except (OSError, ValueError, EOFError):
        pass
    images = (image for part in (data.images, data.test_images) for image in part)
    names = [hashlib.sha256(str(tuple(image.shape)).encode() + image.numpy().tobytes()).digest()[:KEY]
             for image in images]
    keys = np.frombuffer(b"".join(names), np.uint8).reshape(shape)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(f".{os.getpid()}.npy")
        np.save(new, keys)
        os.replace(new, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    return keys


class Table:
    """A table on the disk that grows: float16 of `shape` for each key of KEY bytes. Values are written before keys, so
    that nothing is seen of a row that a killed process began; repaired() removes it."""

    def __init__(self, path: Path, shape: tuple[int, int]):
        self.shape, self.size = shape, 2 * shape[0] * shape[1]
        self.files = {path.with_name(f"{path.name}.values"): self.size, path.with_name(f"{path.name}.keys"): KEY}
        self.read()

    def read(self) -> None:
        """Look at what the disk has."""
        self.length = min(path.stat().st_size // size if path.exists() else 0 for path, size in self.files.items())
        _, keys = self.files
        known = keys.read_bytes()[:self.length * KEY] if self.length else b""
        self.index = {known[at:at + KEY]: at // KEY for at in range(0, len(known), KEY)}

    def repaired(self) -> "Table":
        """Itself, read again, without the row that a killed process began. Only for who may append."""
        self.read()
        for path, size in self.files.items():
            if path.exists():
                os.truncate(path, self.length * size)
        return self

    def missing(self, keys: np.ndarray) -> set[int]:
        """The first row of `keys` (n, KEY) for each key that the table lacks."""
        first: dict[bytes, int] = {}
        for row, key in enumerate(map(bytes, keys)):
            if key not in self.index:
                first.setdefault(key, row)
        return set(first.values())

    def append(self, keys: np.ndarray, values: np.ndarray) -> None:
        """Add the rows `values` (n, *shape) for `keys` (n, KEY)."""
        for path, content in zip(self.files, (values, keys)):
            try:
                with open(path, "ab") as file:
                    file.write(content.tobytes())
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise cannot_write(path, error) from error
        self.index |= {bytes(key): self.length + k for k, key in enumerate(keys)}
        self.length += len(keys)

    def rows(self, keys: np.ndarray) -> Tensor:
        """(n,) int64, where `keys` (n, KEY) lie."""
        return torch.tensor([self.index[bytes(key)] for key in keys], dtype=torch.int64)

    def array(self) -> Tensor:
        """(length, *shape) float16, memory-mapped."""
        values, _ = self.files
        return torch.from_numpy(np.memmap(values, np.float16, "c", shape=(self.length, *self.shape)))
