"""Images from a folder, or from the files of a data set: decoded, cropped to a square, scaled."""
import os
import stat
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from sslkit.data.cache import Arrays, Work, cached, summarize
from sslkit.errors import InputError, require
from sslkit.processes import cores
from sslkit.records import Progress

HEIF = (".heic", ".heif")         # what Pillow does not read alone
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".avif", *HEIF)
PIECE = 64                        # images that a worker takes at once
SMALLEST = 8                      # pixels a side of an image that shows anything
BAD = 1                           # in place of the checksum of an image that cannot be decoded


def picture_in(path: str | Path, size: int) -> Image.Image:
    """An image file in RGB, as read_folder() converts it but whole; large JPEGs are decoded small, to `size` pixels a
    side or more. Raises as Pillow does."""
    if not stat.S_ISREG(os.stat(path).st_mode):     # opening a pipe would wait for whoever writes into it
        raise ValueError("it is not a regular file")
    suffix = Path(path).suffix.lower()
    if suffix in HEIF:
        _learn_heif()
    elif suffix == ".avif" and suffix not in Image.registered_extensions():
        raise ValueError("this Pillow reads no AVIF: pip install -U pillow")
    with Image.open(path) as file:
        file.draft(None, (2 * size, 2 * size))      # a large JPEG is decoded small, but the resize sees twice its size
        image = ImageOps.exif_transpose(file)
    if image.mode.startswith(("I", "F")):     # Pillow's conversion would clip them at 255
        grey = np.asarray(image)
        if image.mode == "F" or grey.min() < 0 or grey.max() > 65535:
            raise ValueError("grey values beyond 16 bits, of unknown scale")
        image = Image.fromarray(((grey.astype(np.uint32) + 128) // 257).astype(np.uint8))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    side = min(image.size)
    if side < SMALLEST:
        raise ValueError(f"it has {image.width} x {image.height} pixels, fewer than {SMALLEST} on a side")
    return image.convert("RGB")


def decode(path: str | Path, size: int) -> np.ndarray:
    """An image file's central square, (3, size, size) uint8, converted as read_folder() says. Raises as Pillow does."""
    image = picture_in(path, size)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    if side != size:
        image = image.resize((size, size), Image.Resampling.BICUBIC)     # antialiased
    return np.asarray(image).transpose(2, 0, 1)


@cache
def _learn_heif() -> None:
    """Let Pillow read HEIC, the photographs of many telephones."""
    try:
        from pillow_heif import register_heif_opener  # an optional package, and slow to import
    except ImportError as e:
        raise ValueError("HEIC takes another package: pip install pillow-heif") from e
    register_heif_opener()


def read_files(base: str | Path, train: Sequence, y: np.ndarray, test: Sequence, test_y: np.ndarray,
               classes: Sequence[str], work: Work, *, size: int, skip_bad_images: bool,
               progress: Progress | None) -> Arrays:
    """The image files `train`, N paths, and `test`, below `base`, as Arrays. info["files"] are their paths from there.

    They are decoded into the files of `work`, whose sources they are. The checksum of each image is written there after
    the image; one whose checksum is another is decoded again. InputError for a bad image that is not to be skipped,
    where none is left of a class, or at all, where a file changed meanwhile, and where the images fit neither the disk
    nor the memory.
    """
    ok = isinstance(size, (int, np.integer)) and 8 <= size <= 1024
    require(ok, f"size must be a whole number of pixels from 8 to 1024, not {size!r}")
    paths, n = [*train, *test], len(train)
    images, test_images = (work.array(name, (len(files), 3, size, size))
                           for name, files in (("images", train), ("test_images", test)))
    sums = work.array("checksums", (len(paths),), np.uint32)     # 0: not decoded
    good = np.ones(len(paths), bool)

    def at(i: int) -> np.ndarray:
        return images[i] if i < n else test_images[i - n]

    def decode_all(piece: list[int]) -> list[tuple[int, Exception]]:
        bad, found = [], {}
        for i in piece:
            try:
                at(i)[:] = decode(paths[i], size)
                found[i] = zlib.crc32(at(i))
            except Exception as e:     # Pillow raises nearly everything on damaged files
                bad.append((i, e))
        for i in np.array(list(found), int)[~work.changed(list(found))]:
            sums[i] = found[i]
        return bad

    def whole(i: int, row: int) -> bool:
        return sums[i] > BAD and sums[i] == zlib.crc32(at(row))

    if BAD in sums:     # a process was killed after it had begun to move images: they go back, the last first
        to = np.arange(len(paths)) - np.concatenate([np.cumsum(part == BAD) for part in (sums[:n], sums[n:])])
        for i in range(len(paths) - 1, -1, -1):
            if not whole(i, i) and whole(i, to[i]):
                at(i)[:] = at(to[i])
    missing = [i for i in range(len(paths)) if not whole(i, i)]
    done = len(paths) - len(missing)
    if progress and done:
        progress(done, len(paths), "decoding images")
    pieces = [missing[start:start + PIECE] for start in range(0, len(missing), PIECE)]
    pool = ThreadPoolExecutor(cores())     # Pillow decodes and resizes without the GIL
    try:
        for piece, bad in zip(pieces, pool.map(decode_all, pieces)):
            for i, e in bad:
                require(skip_bad_images, f"{paths[i]} cannot be read as an image ({e}); repair or remove it, or "
                                         "leave such files out with --skip-bad-images, which keeps what is decoded")
                good[i] = False
            done += len(piece)
            if progress:
                progress(done, len(paths), "decoding images")
    finally:
        pool.shutdown(cancel_futures=True)
    work.check()
    skipped = [str(paths[i]) for i in np.flatnonzero(~good)]
    y, test_y = y[good[:n]], test_y[good[n:]]
    for kind, have in (("training", y), ("test", test_y)):
        for c in set(range(len(classes))).difference(have.tolist()):
            raise InputError(f"class {classes[c]!r} has no {kind} image left: none could be read")
    require(len(y) > 0, f"no image is left in {base}: none could be read")
    sums[~good] = BAD
    for array, rows in ((images, good[:n]), (test_images, good[n:])) if skipped else ():
        for to, row in enumerate(np.flatnonzero(rows)):
            array[to] = array[row]     # in its place, as a second array might not fit
    files = [os.path.relpath(paths[i], base) for i in np.flatnonzero(good)]
    info = {"skipped": len(skipped), "skipped_files": skipped[:10], "files": files}
    return summarize(images[:len(y)], y, test_images[:len(test_y)], test_y, classes, info)


def read_folder(path: str | Path, *, size: int = 32, skip_bad_images: bool = False,
                progress: Progress | None = None, test: str = "test") -> Arrays:
    """The images in a folder's train/<class>/, test/<class>/ and, if it exists, unlabeled/ (label -1), at any depth.
    `test` is the name of the second folder.

    Every image becomes (3, size, size) uint8: rotated by its EXIF orientation, cut to its central square, resized
    (bicubic, antialiased). Grey and 1-bit images get three equal channels; palettes and CMYK become RGB; transparent
    pixels are laid over black; 16-bit grey is scaled, v / 257 rounded; an animation gives its first frame; HEIC needs
    the package pillow-heif. A large JPEG is decoded at a half, a quarter or an eighth of its size. Rows: first train/,
    then unlabeled/, each sorted by name. Hidden files are ignored; so are files without one of SUFFIXES, and
    info["ignored"] counts these. A bad image is an error; with `skip_bad_images` it is left out, info["skipped"] counts
    such images and info["skipped_files"] names the first ten. info["files"] has the path of each row from `path`, those
    of the test rows last. Decoded once: see cached(). InputError: no folder, no train/ or test/, fewer than two
    classes, a class without images, other classes in test/ than in train/, a bad image.
    """
    base = _folder(path, f"train/ and {test}/")
    found, ignored = {}, 0        # found: part -> class -> paths
    for part in ("train", test):
        require((base / part).is_dir(), f"{base} has no {part}/; there must be train/<class>/* and {test}/<class>/*")
        _, names, others = next(_walk(base / part))
        ignored, found[part] = ignored + len(others), {}
        for name in names:
            found[part][name], other = _images(base / part / name)
            require(bool(found[part][name]), f"class {base / part / name} holds no images ({' '.join(SUFFIXES)})")
            ignored += other
    require(len(found["train"]) > 1, f"{base / 'train'} has {len(found['train'])} class folders, at least 2 are needed")
    for a, b in (("train", test), (test, "train")):
        alone = found[a].keys() - found[b].keys()
        require(not alone, f"train/ and {test}/ must have the same classes; only in {a}/: {', '.join(sorted(alone))}")
    y, test_y = (np.repeat(np.arange(len(of)), [len(paths) for paths in of.values()]) for of in found.values())
    train, tests = (sum(of.values(), []) for of in found.values())
    unlabeled, other = _images(base / "unlabeled") if (base / "unlabeled").exists() else ([], 0)
    train, y = train + unlabeled, np.concatenate([y, np.full(len(unlabeled), -1)])
    kind = "folder" if test == "test" else f"folder with {test}"
    return _read(kind, base, (train, y, tests, test_y, list(found["train"])), ignored + other, size, skip_bad_images,
                 progress)


def read_pictures(path: str | Path, *, size: int = 32, skip_bad_images: bool = False,
                  progress: Progress | None = None) -> Arrays:
    """Every image in a folder, at any depth and in the order of names, read as read_folder() does, without any label.

    All y are -1, there are no classes, and test_images is (0, 3, size, size). A folder train/ or test/ is one like any
    other. InputError: no folder, no image in it, a bad image.
    """
    base, files, ignored = list_pictures(path)
    paths = [os.path.join(base, file) for file in files]
    none = np.empty(0, np.int64)
    return _read("pictures", base, (paths, np.full(len(paths), -1), [], none, ()), ignored, size, skip_bad_images,
                 progress)


def list_pictures(path: str | Path) -> tuple[Path, list[str], int]:
    """The folder, absolute; its image files at any depth in the order of names, as paths from there; how many other
    files there are. InputError: no folder, no image in it."""
    base = _folder(path, "the images")
    paths, ignored = _images(base)
    require(bool(paths), f"{base} holds no images ({' '.join(SUFFIXES)}), and no folder below it does")
    return base, [os.path.relpath(path, base) for path in paths], ignored


def _read(kind: str, base: Path, parts: tuple, ignored: int, size: int, skip_bad_images: bool,
          progress: Progress | None) -> Arrays:
    """read_files() of `parts` (train, y, test, test_y, classes), cached."""
    skipping = skip_bad_images and f"heif {bool(find_spec('pillow_heif'))}"      # installed since, it skips fewer
    arrays = cached(f"{kind} {base} {size}", [*parts[0], *parts[2]], lambda work: read_files(
        base, *parts, work, size=size, skip_bad_images=skip_bad_images, progress=progress), apart=(skipping,))
    return arrays._replace(info={**arrays.info, "ignored": ignored})


def _folder(path: str | Path, content: str) -> Path:
    """`path`, absolute. InputError unless it is a folder."""
    base = Path(path).expanduser().absolute()
    require(base.exists(), f"there is no folder {base}")
    require(base.is_dir(), f"{base} is a file; give the folder that holds {content}")
    return base


def _walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """os.walk() in the order of names, without hidden files and folders."""
    def refuse(e: OSError) -> None:
        raise InputError(f"cannot list {e.filename}: {e.strerror}")

    for where, dirs, names in os.walk(folder, onerror=refuse):
        dirs[:] = sorted(name for name in dirs if not name.startswith("."))
        yield where, dirs, sorted(name for name in names if not name.startswith("."))


def _images(folder: Path) -> tuple[list[str], int]:
    """The images in and below `folder`, in order, and how many other files lie there."""
    paths, ignored = [], 0
    for where, _, names in _walk(folder):
        images = [name for name in names if name.lower().endswith(SUFFIXES)]
        paths += [os.path.join(where, name) for name in images]
        ignored += len(names) - len(images)
    return paths, ignored
