"""A cache of decoded images, kept as arrays on the disk: decoded once, loaded in a moment the next time.

It lies in $SSLKIT_CACHE, or ~/.cache/sslkit, under folders/: a folder for each data set, and one with "-work-" in its
name for each that is being made. It may be deleted at any time.
"""
import errno
import hashlib
import io
import json
import math
import os
import secrets
import shutil
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

from sslkit.errors import InputError, require
from sslkit.files import cannot_write, is_locked, locked, waiting

DECODER = 2                       # increase it when decode() gives other pixels: every cache is then made anew
LARGE = 2**30                     # bytes; an array beyond that lies in a file, and may exceed the memory


class Arrays(NamedTuple):
    """A data set as NumPy arrays, before it moves to a device."""
    images: np.ndarray            # (N, num, H, W) uint8
    y: np.ndarray                 # (N,) int64, -1 where unknown
    test_images: np.ndarray       # (M, num, H, W) uint8
    test_y: np.ndarray            # (M,) int64
    classes: tuple[str, ...]
    mean: tuple[float, ...]       # (num,) of the training images, in [0, 1] units
    std: tuple[float, ...]        # (num,)
    digest: str                   # SHA-256 of the content
    info: dict


def summarize(images, y, test_images, test_y, classes: Sequence[str], info: dict) -> Arrays:
    """Arrays with their digest, and the mean and std of each channel of `images`, (N, num, H, W) uint8."""
    arrays = [np.ascontiguousarray(a, t) for a, t in ((images, "u1"), (y, "<i8"), (test_images, "u1"), (test_y, "<i8"))]
    digest = hashlib.sha256(json.dumps([list(classes), [a.shape for a in arrays]]).encode())
    for a in arrays:
        digest.update(a.reshape(-1))
    # Sums of integers, in pieces that fit a laptop: every machine finds the same mean and std, to the last bit.
    counts = sum(np.stack([np.bincount(channel.ravel(), minlength=256) for channel in piece.swapaxes(0, 1)])
                 for piece in np.array_split(arrays[0], 1 + arrays[0].size // 2**24))     # (num, 256)
    n, levels = int(counts[0].sum()), np.arange(256)
    sums, squares = (counts @ levels).tolist(), (counts @ levels**2).tolist()
    mean = tuple(s / (255 * n) for s in sums)
    std = tuple(math.sqrt(n * q - s * s) / (255 * n) or 1.0 for s, q in zip(sums, squares))     # 1: if constant
    return Arrays(*arrays, tuple(classes), mean, std, digest.hexdigest(), info)


def home(part: str = "folders") -> Path:
    """A part of the cache: of decoded images in folders, or features."""
    return Path(os.environ.get("SSLKIT_CACHE") or "~/.cache/sslkit").expanduser() / part


class Work:
    """The folder in which a data set is made out of the files `sources`, and which then becomes its cache."""

    def __init__(self, folder: Path, sources: Sequence[str | Path], stamps: np.ndarray):
        self.folder, self.sources, self.stamps, self.made = folder, sources, stamps, set()

    def array(self, name: str, shape: tuple[int, ...], dtype: type = np.uint8) -> np.ndarray:
        """An array to be filled, in the file NAME.npy: zeros, or whatever an earlier process left there, which may have
        been killed at any moment. It lies in the memory where the folder cannot be written. InputError if it is LARGE
        then, and does not fit."""
        path, head = self.folder / f"{name}.npy", _head(np.empty(0, dtype), shape)
        size = math.prod(shape) * np.dtype(dtype).itemsize
        try:
            if os.name == "nt":
                raise OSError(errno.ENOTSUP, "Windows renames no folder with mapped files")
            with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "rb+") as file:
                file.write(head)
                file.flush()
                _reserve(file, len(head) + size)
                file.truncate(len(head) + size)
            array = np.asarray(np.memmap(path, dtype, "r+", len(head), shape))     # a memmap's rows are slow to take
        except OSError as error:
            with suppress(OSError):
                path.unlink()
            require(size <= max(LARGE, psutil.virtual_memory().available // 2),
                    f"{cannot_write(path, error)}; these images take {size / 1e9:.1f} GB, which do not fit the memory "
                    "either: make room there, or set SSLKIT_CACHE to a folder on a disk that has it")
            return np.zeros(shape, dtype)
        self.made.add(name)
        return array

    def changed(self, rows: Sequence[int]) -> np.ndarray:
        """(n,) bool: which of these sources have changed since their stamps were taken."""
        return (_stamps([self.sources[row] for row in rows]) != self.stamps[rows]).any(1)

    def check(self) -> None:
        """InputError if one of the sources has changed since their stamps were taken."""
        for row in np.flatnonzero(self.changed(range(len(self.sources))))[:1]:
            raise InputError(f"{self.sources[row]} changed while the images were read; run this again when no program "
                             "writes there any more")

    def keep(self, result: Arrays, place: Path) -> Arrays:
        """`result`, from the files in which it is kept: the folder becomes `place`. OSError: it cannot be written."""
        meta = {**dict(zip(Arrays._fields[4:], result[4:])), "shapes": [a.shape for a in result[:4]]}
        files = {"meta.json": (json.dumps(meta).encode(), b"")}
        files |= {f"{name}.npy": (_head(a, a.shape), a) for name, a in zip(Arrays._fields, result[:4])}
        for name, (head, content) in files.items():
            made = name.removesuffix(".npy") in self.made
            with open(self.folder / name, "rb+" if made else "wb") as file:
                file.write(head)      # not np.save: it does not notice when the disk is full for a file's last few kB
                if not made:
                    file.write(content)
                file.flush()
                file.truncate(len(head) + memoryview(content).nbytes)     # without rows that were left out
                os.fsync(file.fileno())
        shutil.rmtree(place, ignore_errors=True)     # damaged
        os.rename(self.folder, place)
        return _load(place) or result


def _head(array: np.ndarray, shape: tuple[int, ...]) -> bytes:
    """What a .npy file of that shape begins with, which has the same length for any number of rows."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {**np.lib.format.header_data_from_array_1_0(array), "shape": shape})
    return head.getvalue()


def _reserve(file, size: int) -> None:
    """Room on the disk, or an OSError: a disk that is full when a mapped file is written would kill the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    else:                             # macOS
        for at in range(file.seek(0, os.SEEK_END), size, 2**24):
            file.write(bytes(min(2**24, size - at)))
        file.flush()


def _stamps(sources: Sequence[str | Path]) -> np.ndarray:
    """(n, 2) int64: each file's size and time; -1 for one that is not there: whoever reads it will name it."""
    def stamp(path: str | Path) -> tuple[int, int]:
        try:
            found = os.stat(path)
        except OSError:
            return -1, -1
        return found.st_size, found.st_mtime_ns

    return np.array([stamp(path) for path in sources], np.int64).reshape(-1, 2)


def _load(place: Path) -> Arrays | None:
    """What is kept in the folder `place`: None if it is not there, or damaged."""
    try:
        meta = json.loads((place / "meta.json").read_text())
        files = [place / f"{name}.npy" for name in Arrays._fields[:4]]
        arrays = [np.load(file, mmap_mode="c" if file.stat().st_size > LARGE else None) for file in files]
        if [list(a.shape) for a in arrays] == meta.pop("shapes"):
            return Arrays(*arrays, *(tuple(v) if isinstance(v, list) else v for v in meta.values()))
    except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError):
        pass
    return None


def cached(what: str, sources: Sequence[str | Path], build: Callable[[Work], Arrays], apart: Sequence = ()) -> Arrays:
    """build(), or its earlier result for `what` and `apart` if no file in `sources` has changed its size or time since.

    The result is kept as .npy files and meta.json in a folder that appears complete or not at all and never changes
    afterwards. build() may fill its arrays in the folder that it gets, where it finds what a killed process left; that
    is the same one whatever `apart`. A process that wants to build the same waits for the first. A damaged folder is
    made anew; if it cannot be written, the user is warned.
    """
    now, stamps = hashlib.sha256(), _stamps(sources)
    for path, (size, time) in zip(sources, stamps.tolist()):
        now.update(os.fsencode(path) + (b"|%d|%d\n" % (size, time) if size >= 0 else b""))
    key, shared = (hashlib.sha256(os.fsencode(" ".join(map(str, (what, *more, DECODER))))).hexdigest()[:16]
                   for more in (apart, ()))
    place = home() / f"{key}-{now.hexdigest()[:16]}"
    if found := _load(place):
        return found
    work = Work(home() / f"{shared}-work-{now.hexdigest()[:16]}", sources, stamps)
    with ExitStack() as stack:
        mine = False
        with suppress(InputError):    # it cannot be written: keep() will find that too
            stack.enter_context(waiting(work.folder, "decodes the same images"))
            mine = True
        if found := _load(place):     # from the process that this one has waited for
            shutil.rmtree(work.folder, ignore_errors=True)
            return found
        if not is_locked(work.folder):     # Windows, and some network disks: others cannot be kept out
            stack.close()
            if mine:                       # nobody works in a folder of this name
                shutil.rmtree(work.folder, ignore_errors=True)
            work.folder = work.folder.with_name(f"{work.folder.name}-{secrets.token_hex(4)}")
            with suppress(OSError):
                work.folder.mkdir(parents=True)
        patterns = f"{key}-*", f"{shared}-work-*", f"{shared}-tmp-*"
        for old in {old for pattern in patterns for old in home().glob(pattern)} - {place, work.folder}:
            _remove(old)
        result = build(work)
        try:
            return work.keep(result, place)
        except OSError as e:
            warnings.warn(f"not cached in {home()}, the images will be read again next time: {e}", stacklevel=2)
            shutil.rmtree(work.folder, ignore_errors=True)
            return result


def _remove(old: Path) -> None:
    """Delete a folder, unless a process works in it, or might where there are no locks."""
    gone = old.with_name(f"{old.name.split('-')[0]}-tmp-{secrets.token_hex(4)}")
    with suppress(OSError, InputError):
        with locked(old):
            sure = is_locked(old)
            if sure:
                os.rename(old, gone)          # first: whoever waits for it makes another one
        if sure or "-work-" not in old.name:
            shutil.rmtree(gone if sure else old)
