"""A cache of decoded images, kept as arrays on the disk: decoded once, loaded in a moment the next time.

It lies in $SSLKIT_CACHE, or ~/.cache/sslkit, under folders/. It may be deleted at any time.
"""
import errno
import hashlib
import io
import json
import math
import os
import secrets
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

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


def empty(shape: tuple[int, ...]) -> np.ndarray:
    """An array of `shape`, uint8, to be filled; a LARGE one in a file of the cache that is gone when nobody uses it."""
    if math.prod(shape) > LARGE:
        with suppress(OSError, AttributeError):      # no such room, or macOS: it must fit into the memory, then
            home().mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=home()) as file:
                os.posix_fallocate(file.fileno(), 0, math.prod(shape))     # a full disk would kill us later, at a write
                return np.memmap(file, np.uint8, "r+", shape=shape)
    return np.empty(shape, np.uint8)


def cached(what: str, sources: Sequence[str | Path], build: Callable[[], Arrays]) -> Arrays:
    """build(), or its earlier result for `what` if no file in `sources` has changed its size or time since.

    The result is kept as .npy files and meta.json in a folder that appears complete or not at all and never changes
    afterwards, so processes need no lock. A damaged folder is made anew; if it cannot be written, the user is warned.
    """
    now = hashlib.sha256()
    for path in sources:
        try:
            found = os.stat(path)
            now.update(os.fsencode(path) + b"|%d|%d\n" % (found.st_size, found.st_mtime_ns))
        except OSError:               # such as a link to nowhere: build() will name it in its error
            now.update(os.fsencode(path))
    key = hashlib.sha256(os.fsencode(f"{what} {DECODER}")).hexdigest()[:16]
    place = home() / f"{key}-{now.hexdigest()[:16]}"
    try:
        meta = json.loads((place / "meta.json").read_text())
        files = [place / f"{name}.npy" for name in Arrays._fields[:4]]
        arrays = [np.load(file, mmap_mode="c" if file.stat().st_size > LARGE else None) for file in files]
        if [list(a.shape) for a in arrays] == meta.pop("shapes"):
            return Arrays(*arrays, *(tuple(v) if isinstance(v, list) else v for v in meta.values()))
    except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError):
        pass                          # not there, or damaged
    result = build()
    try:
        _keep(result, place)
    except OSError as e:
        if e.errno not in (errno.ENOTEMPTY, errno.EEXIST):     # these two: another process was faster
            warnings.warn(f"not cached in {home()}, the images will be read again next time: {e}", stacklevel=2)
    for old in home().glob(f"{key}-*"):
        with suppress(OSError):       # a tmp folder may belong to a running process, but not after an hour
            if old != place and ("-tmp-" not in old.name or time.time() - old.stat().st_mtime > 3600):
                shutil.rmtree(old)
    return result


def _keep(result: Arrays, place: Path) -> None:
    """Write `result` into the folder `place`, which appears complete or not at all."""
    temp = place.with_name(f"{place.name.split('-')[0]}-tmp-{secrets.token_hex(4)}")
    try:
        temp.mkdir(parents=True)
        meta = {**dict(zip(Arrays._fields[4:], result[4:])), "shapes": [a.shape for a in result[:4]]}
        files = {"meta.json": (json.dumps(meta).encode(),)}
        for name, array in zip(Arrays._fields[:4], result):
            head = io.BytesIO()       # not np.save: it does not notice when the disk is full for a file's last few kB
            np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(array))
            files[f"{name}.npy"] = head.getvalue(), array
        for name, parts in files.items():
            with open(temp / name, "wb") as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
        shutil.rmtree(place, ignore_errors=True)     # damaged, or from another process and equal to ours
        os.rename(temp, place)
    finally:
        shutil.rmtree(temp, ignore_errors=True)
