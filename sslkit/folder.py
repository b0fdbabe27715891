"""Images from a folder, decoded once, and the cache of arrays that data.py keeps its other sets in too.

The cache lies in $SSLKIT_CACHE, or ~/.cache/sslkit, under folders/. It may be deleted at any time.
"""
import errno
import hashlib
import io
import json
import math
import os
import secrets
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from sslkit.errors import InputError, require
from sslkit.records import Progress

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
DECODER = 1                       # raise it when decode() gives other pixels: every cache is then made anew
PIECE = 64                        # images a worker takes at once


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
    """Arrays with their digest, and the mean and std of each channel over (N, num, H, W) uint8 `images`."""
    arrays = [np.ascontiguousarray(a, t) for a, t in ((images, "u1"), (y, "<i8"), (test_images, "u1"), (test_y, "<i8"))]
    digest = hashlib.sha256(json.dumps([list(classes), [a.shape for a in arrays]]).encode())
    for a in arrays:
        digest.update(memoryview(a).cast("B"))
    # Sums of whole numbers, in pieces that fit a laptop: every machine finds the same mean and std, to the last bit.
    counts = sum(np.stack([np.bincount(channel.ravel(), minlength=256) for channel in piece.swapaxes(0, 1)])
                 for piece in np.array_split(arrays[0], 1 + len(arrays[0]) // 1000))     # (num, 256)
    n, levels = int(counts[0].sum()), np.arange(256)
    sums, squares = (counts @ levels).tolist(), (counts @ levels**2).tolist()
    mean = tuple(s / (255 * n) for s in sums)
    std = tuple(math.sqrt(n * q - s * s) / (255 * n) or 1.0 for s, q in zip(sums, squares))     # 1: if constant
    return Arrays(*arrays, tuple(classes), mean, std, digest.hexdigest(), info)


def decode(path: str | Path, size: int) -> np.ndarray:
    """An image file's central square, (3, size, size) uint8, converted as read_folder says. Raises as Pillow does."""
    with Image.open(path) as file:
        image = ImageOps.exif_transpose(file)
    if image.mode.startswith(("I", "F")):     # Pillow's own conversion clips them at 255
        grey = np.asarray(image)
        if image.mode == "F" or grey.min() < 0 or grey.max() > 65535:
            raise ValueError("grey values beyond 16 bits, of unknown scale")
        image = Image.fromarray(((grey.astype(np.uint32) + 128) // 257).astype(np.uint8))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.convert("RGB").crop((left, top, left + side, top + side))
    if side != size:
        image = image.resize((size, size), Image.Resampling.BICUBIC)     # antialiased
    return np.asarray(image).transpose(2, 0, 1)


def read_files(train: Sequence, y: np.ndarray, test: Sequence, test_y: np.ndarray, classes: Sequence[str], *, size: int,
               skip_bad_images: bool, progress: Progress | None) -> Arrays:
    """The image files `train`, N paths, and `test` as Arrays. Raises InputError for a bad one unless to be skipped."""
    ok = isinstance(size, (int, np.integer)) and 8 <= size <= 1024
    require(ok, f"size must be a whole number of pixels from 8 to 1024, not {size!r}")
    paths, n = [*train, *test], len(train)
    images = np.empty((len(paths), 3, size, size), np.uint8)
    good = np.ones(len(paths), bool)

    def work(start: int) -> list[tuple[int, Exception]]:
        bad = []
        for i in range(start, min(start + PIECE, len(paths))):
            try:
                images[i] = decode(paths[i], size)
            except Exception as e:     # Pillow raises nearly everything on damaged files
                bad.append((i, e))
        return bad

    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))     # Pillow decodes and resizes without the GIL
    try:
        for done, bad in enumerate(pool.map(work, range(0, len(paths), PIECE)), start=1):
            for i, e in bad:
                require(skip_bad_images, f"{paths[i]} cannot be read as an image ({e}); mend or remove it, or leave "
                                         "such files out with --skip-bad-images")
                good[i] = False
            if progress:
                progress(min(done * PIECE, len(paths)), len(paths), "decoding images")
    finally:
        pool.shutdown(cancel_futures=True)
    skipped = [str(paths[i]) for i in np.flatnonzero(~good)]
    parts = images[:n], y, images[n:], test_y
    if skipped:
        parts = [a[g] for a, g in zip(parts, (good[:n], good[:n], good[n:], good[n:]))]
    for part, have in (("train", parts[1]), ("test", parts[3])):
        for c in set(range(len(classes))).difference(have.tolist()):
            raise InputError(f"class {classes[c]!r} has no image left in {part}/: none could be read")
    return summarize(*parts, classes, {"skipped": len(skipped), "skipped_files": skipped[:10]})


def read_folder(path: str | Path, *, size: int = 32, skip_bad_images: bool = False,
                progress: Progress | None = None) -> Arrays:
    """A folder's train/<class>/*, test/<class>/* and, if there, unlabeled/* (label -1), folders within them included.

    Every image becomes (3, size, size) uint8: turned as its EXIF says, cut to its central square, resized (bicubic,
    antialiased). Grey and 1-bit images get three equal channels; palettes and CMYK become RGB; the transparent lies
    over black; 16-bit grey is scaled, v / 257 rounded; of an animation the first frame is taken. Rows: train/, then
    unlabeled/, each sorted by name. Hidden files are passed over; files without one of SUFFIXES too, and counted in
    info["ignored"]. A bad image is an error, or with `skip_bad_images` left out, counted in info["skipped"] and the
    first ten named in info["skipped_files"]. Decoded once: see cached(). Raises InputError: no such folder, no train/
    or test/, fewer than two classes, one without images, other classes in test/ than in train/, a bad image.
    """
    base = Path(path).expanduser().absolute()
    require(base.exists(), f"there is no folder {base}")
    require(base.is_dir(), f"{base} is a file; give the folder that holds train/ and test/")
    found, ignored = {}, 0        # found: part -> class -> paths
    for part in ("train", "test"):
        require((base / part).is_dir(), f"{base} has no {part}/; there must be train/<class>/* and test/<class>/*")
        _, names, others = next(_walk(base / part))
        ignored, found[part] = ignored + len(others), {}
        for name in names:
            found[part][name], other = _images(base / part / name)
            require(bool(found[part][name]), f"{base / part / name}, a class, holds no images ({' '.join(SUFFIXES)})")
            ignored += other
    require(len(found["train"]) > 1, f"{base / 'train'} has {len(found['train'])} class folders, at least 2 are needed")
    for a, b in (("train", "test"), ("test", "train")):
        alone = found[a].keys() - found[b].keys()
        require(not alone, f"train/ and test/ must have the same classes; only in {a}/: {', '.join(sorted(alone))}")
    y, test_y = (np.repeat(np.arange(len(of)), [len(paths) for paths in of.values()]) for of in found.values())
    train, test = (sum(of.values(), []) for of in found.values())
    unlabeled, other = _images(base / "unlabeled") if (base / "unlabeled").exists() else ([], 0)
    train, y = train + unlabeled, np.concatenate([y, np.full(len(unlabeled), -1)])
    arrays = cached(f"folder {base} {size} {skip_bad_images}", train + test, lambda: read_files(
        train, y, test, test_y, list(found["train"]), size=size, skip_bad_images=skip_bad_images, progress=progress))
    return arrays._replace(info={**arrays.info, "ignored": ignored + other})


def _walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """os.walk in order of names, the hidden left out."""
    def refuse(e: OSError) -> None:
        raise InputError(f"cannot list {e.filename}: {e.strerror}")

    for where, dirs, names in os.walk(folder, onerror=refuse):
        dirs[:] = sorted(name for name in dirs if not name.startswith("."))
        yield where, dirs, sorted(name for name in names if not name.startswith("."))


def _images(folder: Path) -> tuple[list[str], int]:
    """The images in and under `folder` in order, and how many other files are there."""
    paths, ignored = [], 0
    for where, _, names in _walk(folder):
        images = [name for name in names if name.lower().endswith(SUFFIXES)]
        paths += [os.path.join(where, name) for name in images]
        ignored += len(names) - len(images)
    return paths, ignored


def cached(what: str, sources: Sequence[str | Path], build: Callable[[], Arrays]) -> Arrays:
    """build(), or what it gave for `what` before, if no source has changed its size or time since.

    Kept as .npy files and meta.json in a folder that appears under its name complete or not at all and never changes
    afterwards, so that processes need no lock. A damaged one is made anew; one that cannot be written is warned of.
    """
    home = Path(os.environ.get("SSLKIT_CACHE") or "~/.cache/sslkit").expanduser() / "folders"
    now = hashlib.sha256()
    for path in sources:
        try:
            found = os.stat(path)
            now.update(os.fsencode(path) + b"|%d|%d\n" % (found.st_size, found.st_mtime_ns))
        except OSError:               # a link to nowhere, say: whoever reads it says so, with its name
            now.update(os.fsencode(path))
    key = hashlib.sha256(os.fsencode(f"{what} {DECODER}")).hexdigest()[:16]
    place = home / f"{key}-{now.hexdigest()[:16]}"
    try:
        meta = json.loads((place / "meta.json").read_text())
        arrays = [np.load(place / f"{name}.npy") for name in Arrays._fields[:4]]
        if [list(a.shape) for a in arrays] == meta.pop("shapes"):
            return Arrays(*arrays, *(tuple(v) if isinstance(v, list) else v for v in meta.values()))
    except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError):
        pass                          # not there, or damaged
    result = build()
    try:
        _keep(result, place)
    except OSError as e:
        if e.errno not in (errno.ENOTEMPTY, errno.EEXIST):     # these mean that another process was faster
            warnings.warn(f"not cached in {home}, the images will be read again next time: {e}", stacklevel=2)
    for old in home.glob(f"{key}-*"):
        with suppress(OSError):       # a tmp may be another process at work; after an hour it was killed
            if old != place and ("-tmp-" not in old.name or time.time() - old.stat().st_mtime > 3600):
                shutil.rmtree(old)
    return result


def _keep(result: Arrays, place: Path) -> None:
    """Write `result` into the folder `place`, which has all of it or does not appear."""
    temp = place.with_name(f"{place.name.split('-')[0]}-tmp-{secrets.token_hex(4)}")
    try:
        temp.mkdir(parents=True)
        meta = {**dict(zip(Arrays._fields[4:], result[4:])), "shapes": [a.shape for a in result[:4]]}
        files = {"meta.json": (json.dumps(meta).encode(),)}
        for name, array in zip(Arrays._fields[:4], result):
            head = io.BytesIO()       # np.save would not notice a disk that is full from the last few kB of a file on
            np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(array))
            files[f"{name}.npy"] = head.getvalue(), array
        for name, parts in files.items():
            with open(temp / name, "wb") as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
        shutil.rmtree(place, ignore_errors=True)     # damaged, or another process's, equal to ours
        os.rename(temp, place)
    finally:
        shutil.rmtree(temp, ignore_errors=True)
