"""Folders of images: what every format becomes, what is refused, and the cache under every ill treatment."""
import errno
import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
import warnings
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin, features

from sslkit.data import cache as cache_module
from sslkit.data import folder
from sslkit.data.folder import decode, read_folder, read_pictures
from sslkit.errors import InputError
from sslkit.files import locked

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SSLKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "folders"


def put(path: Path, color=RED, size=(8, 8), **how) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path, **how)
    return path


@pytest.fixture
def base(tmp_path) -> Path:
    """Two classes, 3 + 2 images for training, 1 + 1 for the test."""
    base = tmp_path / "set"
    for name, color in (("train/ant/1.png", RED), ("train/ant/0.png", GREEN), ("train/ant/2.png", (10, 20, 30)),
                        ("train/bee/x.png", BLUE), ("train/bee/y.png", (40, 50, 60)), ("test/ant/t.png", (70, 80, 90)),
                        ("test/bee/t.png", (91, 92, 93))):
        put(base / name, color)
    return base


class Counter:
    """A progress callback that counts its calls."""
    def __init__(self):
        self.calls = []

    def __call__(self, *call):
        self.calls.append(call)


def colors(images: np.ndarray) -> list[tuple[int, ...]]:
    """The colour of images of one colour each."""
    assert (images == images[:, :, :1, :1]).all()
    return [tuple(pixel) for pixel in images[:, :, 0, 0].tolist()]


def test_rows_labels_and_classes_in_the_order_of_names(base):
    put(base / "unlabeled/z.png", (1, 1, 1))
    put(base / "unlabeled/deep/er/a.png", (2, 2, 2))
    arrays = read_folder(base, size=8)
    assert arrays.images.shape == (7, 3, 8, 8) and arrays.images.dtype == np.uint8 and arrays.y.dtype == np.int64
    assert colors(arrays.images) == [GREEN, RED, (10, 20, 30), BLUE, (40, 50, 60), (1, 1, 1), (2, 2, 2)]
    assert arrays.y.tolist() == [0, 0, 0, 1, 1, -1, -1]
    assert colors(arrays.test_images) == [(70, 80, 90), (91, 92, 93)] and arrays.test_y.tolist() == [0, 1]
    assert arrays.classes == ("ant", "bee")
    files = [f"train/{name}.png" for name in ("ant/0", "ant/1", "ant/2", "bee/x", "bee/y")]
    files += ["unlabeled/z.png", "unlabeled/deep/er/a.png", "test/ant/t.png", "test/bee/t.png"]
    assert arrays.info == {"skipped": 0, "skipped_files": [], "ignored": 0, "files": files}


def test_mean_and_std_are_of_the_training_images_alone(base):
    put(base / "unlabeled/z.png", (1, 1, 1))
    arrays = read_folder(base, size=8)
    pixels = arrays.images.astype(np.float64).transpose(0, 2, 3, 1).reshape(-1, 3) / 255
    np.testing.assert_allclose(arrays.mean, pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(arrays.std, pixels.std(0), rtol=1e-12)


def test_a_constant_channel_can_be_divided_by_its_std(tmp_path):
    for name in ("train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/1.png"):
        put(tmp_path / "grey" / name, (7, 7, 7))
    assert read_folder(tmp_path / "grey", size=8).std == (1.0, 1.0, 1.0)


# What every kind of file becomes

def two(mode: str, left, right) -> Image.Image:
    """8 by 8, the left half one value, the right another."""
    image = Image.new(mode, (8, 8), left)
    image.paste(Image.new(mode, (4, 8), right), (4, 0))
    return image


def sixteen(dtype: str, left: int, right: int) -> Image.Image:
    return Image.fromarray(np.repeat(np.array([[left] * 4 + [right] * 4], dtype), 8, axis=0))


def palette(left, right) -> Image.Image:
    image = two("P", 0, 1)
    image.putpalette([*left, *right])
    return image


KINDS = {
    "rgb.png": (two("RGB", RED, (1, 2, 3)), {}, RED, (1, 2, 3)),
    "rgb.bmp": (two("RGB", RED, (1, 2, 3)), {}, RED, (1, 2, 3)),
    "rgb.ppm": (two("RGB", RED, (1, 2, 3)), {}, RED, (1, 2, 3)),
    "rgb.tiff": (two("RGB", RED, (1, 2, 3)), {}, RED, (1, 2, 3)),
    "rgb.webp": (two("RGB", RED, (1, 2, 3)), {"lossless": True}, RED, (1, 2, 3)),
    "grey.jpg": (two("L", 100, 100), {}, (100,) * 3, (100,) * 3),
    "grey.png": (two("L", 77, 200), {}, (77,) * 3, (200,) * 3),
    "grey.pgm": (two("L", 77, 200), {}, (77,) * 3, (200,) * 3),
    "bit.png": (two("1", 1, 0), {}, (255,) * 3, (0,) * 3),
    "palette.png": (palette(GREEN, (9, 8, 7)), {}, GREEN, (9, 8, 7)),
    "palette.gif": (palette(GREEN, (9, 8, 7)), {}, GREEN, (9, 8, 7)),
    "palette_transparent.png": (palette(GREEN, (9, 8, 7)), {"transparency": 0}, (0, 0, 0), (9, 8, 7)),
    "palette_alpha.png": (palette(GREEN, (9, 8, 7)), {"transparency": bytes([51, 255])}, (0, 51, 0), (9, 8, 7)),
    "key.png": (two("RGB", RED, (1, 2, 3)), {"transparency": RED}, (0, 0, 0), (1, 2, 3)),
    "rgba.png": (two("RGBA", (255, 255, 255, 0), (200, 100, 50, 51)), {}, (0, 0, 0), (40, 20, 10)),
    "la.png": (two("LA", (200, 51), (200, 255)), {}, (40,) * 3, (200,) * 3),
    "cmyk.tif": (two("CMYK", (0, 255, 255, 0), (0, 0, 0, 255)), {}, RED, (0, 0, 0)),
    "sixteen.png": (sixteen("uint16", 65535, 100 * 257), {}, (255,) * 3, (100,) * 3),
    "sixteen_rounds.png": (sixteen("uint16", 128, 129), {}, (0,) * 3, (1,) * 3),
    "sixteen.tif": (sixteen("uint16", 300, 50 * 257 + 128), {}, (1,) * 3, (50,) * 3),
    "thirty_two.tif": (sixteen("int32", 65535, 257), {}, (255,) * 3, (1,) * 3),
    "animated.gif": (two("RGB", RED, BLUE), {"save_all": True, "append_images": [two("RGB", GREEN, GREEN)]}, RED, BLUE),
    "animated.webp": (two("RGB", RED, BLUE), {"save_all": True, "append_images": [two("RGB", GREEN, GREEN)],
                                              "lossless": True}, RED, BLUE),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_image_becomes_rgb(name, tmp_path):
    image, how, left, right = KINDS[name]
    image.save(tmp_path / name, **how)
    got = decode(tmp_path / name, 8)
    assert got.shape == (3, 8, 8) and got.dtype == np.uint8
    assert (got[:, :, :4] == np.array(left)[:, None, None]).all(), got[:, 0, 0]
    assert (got[:, :, 4:] == np.array(right)[:, None, None]).all(), got[:, 0, -1]


def test_a_16_bit_pgm_is_scaled_not_clipped(tmp_path):
    (tmp_path / "x.pgm").write_bytes(b"P5\n8 8\n65535\n" + np.full(64, 100 * 257, ">u2").tobytes())
    assert (decode(tmp_path / "x.pgm", 8) == 100).all()


@pytest.mark.parametrize("image", [sixteen("int32", 70000, 1), sixteen("int32", -1, 1), sixteen("float32", 0, 1)])
def test_grey_values_of_unknown_scale_are_refused(image, tmp_path):
    image.save(tmp_path / "x.tif")
    with pytest.raises(ValueError, match="beyond 16 bits"):
        decode(tmp_path / "x.tif", 8)


@pytest.mark.parametrize("orientation, red_is_at", [(1, (slice(None), slice(0, 4))), (3, (slice(None), slice(4, 8))),
                                                    (6, (slice(0, 4), slice(None))), (8, (slice(4, 8), slice(None)))])
def test_exif_orientation_is_applied(orientation, red_is_at, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    two("RGB", RED, BLUE).save(tmp_path / "x.png", exif=exif)
    red = decode(tmp_path / "x.png", 8)[0]
    assert (red[red_is_at] == 255).all() and red.sum() == 32 * 255


@pytest.mark.parametrize("wide", [True, False])
def test_the_central_square_is_kept(wide, tmp_path):
    image = Image.new("RGB", (24, 8), RED)
    image.paste(Image.new("RGB", (8, 8), GREEN), (8, 0))
    (image if wide else image.rotate(90, expand=True)).save(tmp_path / "x.png")
    assert colors(decode(tmp_path / "x.png", 8)[None]) == [GREEN]


def test_resizing_averages_and_keeps_plain_colors(tmp_path):
    put(tmp_path / "plain.png", (3, 140, 250), (33, 57))
    assert colors(decode(tmp_path / "plain.png", 16)[None]) == [(3, 140, 250)]
    stripes = Image.fromarray(np.tile(np.array([0, 255], np.uint8), (64, 32)))
    stripes.save(tmp_path / "stripes.png")
    got = decode(tmp_path / "stripes.png", 8).astype(int)[:, :, 2:-2]
    assert (abs(got - 127.5) < 8).all()     # picking single pixels would give 0 or 255
    put(tmp_path / "small.png", (3, 140, 250), (8, 9))
    assert colors(decode(tmp_path / "small.png", 16)[None]) == [(3, 140, 250)]
    put(tmp_path / "tiny.png", (3, 140, 250), (7, 90))
    with pytest.raises(ValueError, match="it has 7 x 90 pixels, fewer than 8 on a side"):
        decode(tmp_path / "tiny.png", 16)


# Pictures as telephones make them

def photo(side: int) -> Image.Image:
    """Patches of many sizes, wider than high."""
    rng, image = np.random.RandomState(0), np.zeros((side, side + side // 3, 3))
    for k in (4, 16, 64):
        patches = Image.fromarray(rng.randint(0, 256, (k, k, 3)).astype(np.uint8))
        image += np.asarray(patches.resize(image.shape[1::-1], Image.Resampling.BICUBIC)) / 3
    return Image.fromarray(image.astype(np.uint8))


@pytest.mark.parametrize("side, size, same", [(1200, 32, False), (256, 64, False), (32, 32, True), (120, 32, True), (100, 64, True)])
def test_a_large_jpeg_is_decoded_small_and_a_small_one_to_the_bit(side, size, same, tmp_path, monkeypatch):
    photo(side).save(tmp_path / "x.jpg", quality=95)
    fast = decode(tmp_path / "x.jpg", size).astype(int)
    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "draft", lambda *a: None)
    away = abs(fast - decode(tmp_path / "x.jpg", size))
    assert away.max() == 0 if same else 0 < away.mean() < 1.5     # 0: it was decoded whole


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_large_jpeg_is_turned_too(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo(576).save(tmp_path / "x.jpg", quality=95, exif=exif)
    turned = photo(576).transpose({3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_270, 8: Image.Transpose.ROTATE_90}[orientation])
    turned.save(tmp_path / "turned.png")
    assert abs(decode(tmp_path / "x.jpg", 32).astype(int) - decode(tmp_path / "turned.png", 32)).mean() < 2


@pytest.mark.parametrize("suffix", ["heic", "HEIF"])
def test_heic_is_read_where_pillow_heif_is_installed(suffix, base):
    heif = pytest.importorskip("pillow_heif")
    exif = Image.Exif()
    exif[0x0112] = 6
    heif.from_pillow(photo(96)).save(base / f"train/ant/00.{suffix}", quality=95)
    heif.from_pillow(photo(96)).save(base / f"train/ant/01.{suffix}", quality=95, exif=exif.tobytes())
    photo(96).save(base / "train/ant/02.png")
    straight, turned, original = read_folder(base, size=32).images[1:4].astype(int)     # after 0.png
    assert abs(straight - original).mean() < 3
    assert abs(turned - np.rot90(original, -1, (1, 2))).mean() < 3


def test_heic_without_pillow_heif_names_the_package(base, monkeypatch):
    file = put(base / "train/ant/00.png").rename(base / "train/ant/00.heic")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    folder._learn_heif.cache_clear()
    with pytest.raises(InputError, match=f"{file} cannot be read as an image .HEIC takes .*pip install pillow-heif.; repair"):
        read_folder(base, size=8)
    assert read_folder(base, size=8, skip_bad_images=True).info["skipped"] == 1
    monkeypatch.undo()
    monkeypatch.setenv("SSLKIT_CACHE", str(base.parent / "cache"))
    if find_spec("pillow_heif"):
        assert read_folder(base, size=8, skip_bad_images=True).info["skipped"] == 0     # installed since: read again


def test_avif_is_read_where_pillow_can_and_else_a_sentence(base, monkeypatch):
    if features.check("avif"):
        photo(96).save(base / "train/ant/00.avif", quality=95)
        photo(96).save(base / "train/ant/01.png")
        one, other = read_folder(base, size=32).images[1:3].astype(int)
        assert abs(one - other).mean() < 3
    put(base / "train/ant/00.png").rename(base / "train/ant/00.avif")
    monkeypatch.setattr(Image, "registered_extensions", dict)
    with pytest.raises(InputError, match="00.avif cannot be read as an image .*reads no AVIF: pip install -U pillow"):
        read_folder(base, size=8)


def test_any_name_that_a_file_can_have(base):
    names = ["a b.png", "it's \"so\".png", "grün ß 猫.png", "two\nlines.png", "$(x);*?.png", os.fsdecode(b"\xff\xfe.png")]
    for k, name in enumerate(names):
        put(base / "train/ant" / name, (k, k, k))
        put(base / "train/it's a\nclaß" / name, (100 + k,) * 3)
    put(base / "test/it's a\nclaß/t.png")
    first = read_folder(base, size=8)
    assert first.classes == ("ant", "bee", "it's a\nclaß")
    assert colors(first.images[first.y == 2]) == [(100 + k,) * 3 for k in np.argsort(names)]
    assert equal(read_folder(base, size=8), first)


# What is no image

def test_other_files_are_ignored_and_counted_hidden_ones_are_not(base):
    for name in ("train/ant/Thumbs.db", "train/readme.txt", "test/bee/a.csv", "unlabeled/notes.md",
                 "train/ant/.hidden.png", "train/.git/x.png", "test/.DS_Store"):
        (base / name).parent.mkdir(exist_ok=True)
        (base / name).write_bytes(b"no image")
    put(base / "train/ant/upper.PNG", (5, 5, 5))
    put(base / "train/bee/more/n.Jpeg", (6, 6, 6))
    arrays = read_folder(base, size=8)
    assert arrays.info["ignored"] == 4 and len(arrays.y) == 7
    assert colors(arrays.images)[3] == (5, 5, 5) and arrays.y.tolist() == [0, 0, 0, 0, 1, 1, 1]
    (base / "train/ant/more.txt").write_text("one more")
    assert read_folder(base, size=8).info["ignored"] == 5     # though it comes from the cache


def spoil(base: Path, how: str) -> Path:
    bad = put(base / "train/ant/0.5.jpg", (1, 2, 3), (64, 64))
    if how == "truncated":
        bad.write_bytes(bad.read_bytes()[:-200])
    elif how == "link to nowhere":
        bad.unlink()
        bad.symlink_to(base / "nowhere.jpg")
    else:
        bad.write_bytes({"text": b"this is no image\n", "empty": b""}[how])
    return bad


@pytest.mark.parametrize("how", ["text", "empty", "truncated", "link to nowhere"])
def test_a_bad_image_is_named_or_skipped(base, how):
    good = read_folder(base, size=8)
    bad = spoil(base, how)
    with pytest.raises(InputError, match="cannot be read as an image.*--skip-bad-images") as e:
        read_folder(base, size=8)
    assert str(bad) in str(e.value)
    arrays = read_folder(base, size=8, skip_bad_images=True)
    assert arrays.info["skipped"] == 1 and arrays.info["skipped_files"] == [str(bad)]
    assert arrays.digest == good.digest and arrays.y.tolist() == [0, 0, 0, 1, 1]     # labels stay with their images
    assert arrays.info["files"] == good.info["files"] and len(good.info["files"]) == 7     # a row's name stays with it too
    again = read_folder(base, size=8, skip_bad_images=True)
    assert again.info == arrays.info
    with pytest.raises(InputError, match="cannot be read"):
        read_folder(base, size=8)     # the cache of the tolerant load is not taken for it


def test_the_first_bad_image_is_named_whatever_the_threads_do(base, monkeypatch):
    monkeypatch.setattr(folder, "PIECE", 1)
    for k in range(20):
        (base / f"train/bee/{k:02d}.png").write_bytes(b"no")
    for _ in range(5):
        with pytest.raises(InputError, match="bee/00.png"):
            read_folder(base, size=8)


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_class_with_bad_images_only_is_an_error(base, part):
    for file in (base / part / "bee").iterdir():
        file.write_bytes(b"no")
    with pytest.raises(InputError, match=f"'bee' has no {part}(ing)? image left"):
        read_folder(base, size=8, skip_bad_images=True)


def test_only_ten_skipped_files_are_listed(base):
    for k in range(12):
        (base / f"test/ant/{k:02d}.png").write_bytes(b"no")
    info = read_folder(base, size=8, skip_bad_images=True).info
    assert info["skipped"] == 12 and len(info["skipped_files"]) == 10


def remove(path: Path) -> None:
    for file in sorted(path.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    path.rmdir()


ERRORS = {
    "there is no folder": lambda base: remove(base),
    r"has no train/; there must be train/<class>/\* and test/<class>/\*": lambda base: remove(base / "train"),
    "has no test/": lambda base: remove(base / "test"),
    "has 1 class folders, at least 2": lambda base: (remove(base / "train/bee"), remove(base / "test/bee")),
    "has 0 class folders, at least 2": lambda base: (remove(base / "train"), (base / "train").mkdir()),
    r"class .*train/cow holds no images \(.jpg": lambda base: (base / "train/cow").mkdir(),
    "class .*test/bee holds no images": lambda base: (base / "test/bee/t.png").rename(base / "test/bee/t.txt"),
    "only in train/: cow, dog": lambda base: (put(base / "train/cow/1.png"), put(base / "train/dog/1.png")),
    "only in test/: cow": lambda base: put(base / "test/cow/1.png"),
}


@pytest.mark.parametrize("message", ERRORS)
def test_a_folder_that_is_no_data_set_is_refused(message, base):
    ERRORS[message](base)
    with pytest.raises(InputError, match=message):
        read_folder(base)


def test_an_empty_folder_and_a_file_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="has no train/"):
        read_folder(tmp_path / "empty")
    with pytest.raises(InputError, match="is a file; give the folder"):
        read_folder(put(tmp_path / "one.png"))


@pytest.mark.parametrize("size", [0, 7, 1025, 32.0, True, "32"])
def test_an_impossible_size_is_refused(base, size):
    with pytest.raises(InputError, match="size must be a whole number of pixels from 8 to 1024"):
        read_folder(base, size=size)


def test_a_link_upwards_is_not_followed(base):
    (base / "train/ant/loop").symlink_to(base / "train")
    assert len(read_folder(base, size=8).y) == 5


@pytest.mark.parametrize("kind", ["pipe", "link to a pipe"])
def test_a_pipe_is_named_or_skipped_and_never_waited_for(base, kind):
    bad = base / "train/ant/pipe.png"
    pipe = bad if kind == "pipe" else base / "pipe"
    os.mkfifo(pipe)
    if kind != "pipe":
        bad.symlink_to(pipe)

    def write():                                           # lets whoever waits go on: else a failure would last for ever
        while not done.wait(20):
            waited.append(bad)
            os.close(os.open(pipe, os.O_RDWR))

    done, waited = threading.Event(), []
    threading.Thread(target=write, daemon=True).start()
    try:
        with pytest.raises(InputError) as refused:
            read_folder(base, size=8)
        assert read_folder(base, size=8, skip_bad_images=True).info["skipped_files"] == [str(bad)]
    finally:
        done.set()
    assert f"{bad} cannot be read as an image (it is not a regular file); repair or remove it" in str(refused.value)
    assert not waited


def test_a_link_to_an_image_is_an_image(base, tmp_path):
    digest = read_folder(base, size=8).digest
    (base / "train/ant/1.png").rename(tmp_path / "elsewhere.png")
    (base / "train/ant/1.png").symlink_to(tmp_path / "elsewhere.png")
    assert read_folder(base, size=8).digest == digest


# Pictures without labels

def test_pictures_are_every_image_in_the_order_of_names(base, cache):
    put(base / "top.jpg", (9, 9, 9))
    put(base / ".hidden/x.png")
    put(base / "a b/.x.png")
    (base / "notes.txt").write_text("no image")
    put(base / "unlabeled/deep/er.png", (1, 1, 1))
    first, second = Counter(), Counter()
    arrays = read_pictures(base, size=8, progress=first)
    assert colors(arrays.images) == [(9, 9, 9), (70, 80, 90), (91, 92, 93), GREEN, RED, (10, 20, 30), BLUE, (40, 50, 60), (1, 1, 1)]
    names = "top.jpg test/ant/t.png test/bee/t.png train/ant/0.png train/ant/1.png train/ant/2.png train/bee/x.png train/bee/y.png"
    assert arrays.info == {"skipped": 0, "skipped_files": [], "ignored": 1, "files": [*names.split(), "unlabeled/deep/er.png"]}
    assert arrays.y.tolist() == [-1] * 9 and arrays.y.dtype == np.int64 and arrays.classes == ()
    assert arrays.test_images.shape == (0, 3, 8, 8) and arrays.test_y.shape == (0,) and arrays.test_y.dtype == np.int64
    assert equal(read_pictures(base, size=8, progress=second), arrays) and first.calls[-1][0] == 9 and second.calls == []
    assert read_folder(base, size=8).classes == ("ant", "bee") and len(list(cache.iterdir())) == 2


def test_a_bad_picture_is_named_or_skipped(base):
    bad = spoil(base, "text")
    with pytest.raises(InputError, match=f"{bad} cannot be read as an image.*--skip-bad-images"):
        read_pictures(base, size=8)
    info = read_pictures(base, size=8, skip_bad_images=True).info
    assert info["skipped_files"] == [str(bad)] and len(info["files"]) == 7 and "train/ant/0.5.jpg" not in info["files"]
    for file in base.rglob("*.*"):
        file.write_text("no image")
    with pytest.raises(InputError, match="no image is left in .*set: none could be read"):
        read_pictures(base, size=8, skip_bad_images=True)


def test_a_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(InputError, match="there is no folder .*/nowhere"):
        read_pictures(tmp_path / "nowhere")
    with pytest.raises(InputError, match="one.png is a file; give the folder that holds the images"):
        read_pictures(put(tmp_path / "one.png"))
    (tmp_path / "empty/er").mkdir(parents=True)
    with pytest.raises(InputError, match="empty holds no images .*, and no folder below it does"):
        read_pictures(tmp_path / "empty")


# The cache

def equal(a: folder.Arrays, b: folder.Arrays) -> bool:
    return all(np.array_equal(x, y) and x.dtype == y.dtype for x, y in zip(a[:4], b[:4])) and a[4:] == b[4:]


def test_the_second_load_does_not_decode(base):
    first, second = Counter(), Counter()
    arrays = read_folder(base, size=8, progress=first)
    assert first.calls[-1] == (7, 7, "decoding images")
    file = base / "train/ant/0.png"
    was = file.stat()
    file.write_bytes(b"x" * was.st_size)
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))
    again = read_folder(base, size=8, progress=second)
    assert equal(arrays, again) and second.calls == []
    os.utime(file)     # now it shows that the file has changed
    with pytest.raises(InputError, match="ant/0.png cannot be read"):
        read_folder(base, size=8)


def test_a_file_of_another_size_is_seen_though_its_time_is_the_same(base):
    first, file = read_folder(base, size=8), base / "train/ant/0.png"
    was = file.stat()
    put(file, (1, 2, 3), (40, 40))
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert read_folder(base, size=8).digest != first.digest


def test_a_class_folder_may_be_a_link(base, tmp_path):
    first = read_folder(base, size=8)
    (base / "train/bee").rename(tmp_path / "bees")
    (base / "train/bee").symlink_to(tmp_path / "bees")
    assert read_folder(base, size=8).digest == first.digest


def test_progress_counts_every_image_in_order(base, monkeypatch):
    monkeypatch.setattr(folder, "PIECE", 2)
    counter = Counter()
    read_folder(base, size=8, progress=counter)
    assert counter.calls == [(done, 7, "decoding images") for done in (2, 4, 6, 7)]


def test_a_changed_folder_is_read_again_and_the_old_cache_removed(base, cache):
    digests = [read_folder(base, size=8).digest]
    for change in (lambda: put(base / "train/bee/z.png"), lambda: put(base / "train/bee/z.png", GREEN),
                   lambda: put(base / "unlabeled/u.png"), lambda: (base / "train/bee/z.png").unlink()):
        change()
        digests.append(read_folder(base, size=8).digest)
        assert len(list(cache.iterdir())) == 1
    assert len(set(digests)) == 5
    counter = Counter()
    os.utime(base / "test/ant/t.png", ns=(0, 0))
    assert read_folder(base, size=8, progress=counter).digest == digests[-1] and counter.calls


def mapped(a: np.ndarray) -> bool:
    while isinstance(a, np.ndarray) and not isinstance(a, np.memmap):
        a = a.base
    return a is not None


@pytest.mark.parametrize("bad", [False, True])
def test_large_arrays_lie_in_files_and_are_the_same(base, cache, monkeypatch, bad):
    if bad:
        spoil(base, "text")
    small = read_folder(base, size=8, skip_bad_images=bad)
    remove(cache)
    monkeypatch.setattr(cache_module, "LARGE", 5 * 3 * 8 * 8)
    read, again = (read_folder(base, size=8, skip_bad_images=bad) for _ in range(2))
    assert equal(read, small) and equal(again, small)
    assert mapped(read.images) and mapped(again.images) and not mapped(small.images) and not mapped(again.test_images)
    assert len(list(cache.iterdir())) == 1
    again.images[:] = 0
    assert equal(read_folder(base, size=8, skip_bad_images=bad), small)      # what is written stays with its process


def test_without_room_for_such_a_file_the_memory_must_do(base, cache, monkeypatch):
    def full(*how):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cache_module, "LARGE", 100)
    monkeypatch.setattr(os, "posix_fallocate", full)
    assert colors(read_folder(base, size=8).images)[:2] == [GREEN, RED]


def test_without_posix_fallocate_the_file_is_filled(base, cache, monkeypatch):
    monkeypatch.setattr(cache_module, "LARGE", 100)
    small = read_folder(base, size=8)
    remove(cache)
    monkeypatch.delattr(os, "posix_fallocate")
    assert equal(read_folder(base, size=8), small) and mapped(read_folder(base, size=8).images)


@pytest.fixture
def tiny_disk(tmp_path, monkeypatch):
    """A disk of 200 kB for the cache."""
    (tmp_path / "cache").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", tmp_path / "cache"], capture_output=True).returncode:
        pytest.skip("only root may mount a disk")
    yield
    subprocess.run(["umount", tmp_path / "cache"], check=True)


@pytest.mark.parametrize("large", [False, True])
def test_a_full_disk_is_a_sentence_or_a_warning(base, tiny_disk, cache, monkeypatch, large):
    whole = decode(base / "train/ant/0.png", 128)
    if large:
        monkeypatch.setattr(cache_module, "LARGE", 100)
        monkeypatch.setattr(cache_module.psutil, "virtual_memory", lambda: SimpleNamespace(available=100))
        with pytest.raises(InputError, match=r"could not write .*images.npy: no space left on the disk; these images take 0.0 GB.*SSLKIT_CACHE"):
            read_folder(base, size=128)
        assert sum(file.stat().st_size for file in cache.rglob("*.npy")) == 0
        monkeypatch.undo()
    else:
        with pytest.warns(UserWarning, match="not cached in .*No space left"):
            arrays = read_folder(base, size=128)
        assert np.array_equal(arrays.images[0], whole) and list(cache.iterdir()) == []


def test_sizes_and_folders_have_caches_of_their_own(base, cache):
    assert read_folder(base, size=8).images.shape[-1] == 8
    assert read_folder(base, size=16).images.shape[-1] == 16
    base.rename(base.with_name("other"))
    read_folder(base.with_name("other"), size=8)
    assert len(list(cache.iterdir())) == 3
    counter = Counter()
    base.with_name("other").rename(base)
    read_folder(base, size=8, progress=counter)
    assert counter.calls == []


def test_a_relative_path_is_the_same_folder(base, monkeypatch):
    read_folder(base, size=8)
    monkeypatch.chdir(base.parent)
    counter = Counter()
    read_folder(base.name, size=8, progress=counter)
    assert counter.calls == []


@pytest.mark.parametrize("name, damage", [
    ("images.npy", "shorter"), ("y.npy", "other shape"), ("test_images.npy", "garbage"), ("test_y.npy", "gone"), ("meta.json", "empty"),
    ("meta.json", "other shape"), ("y.npy", "empty")])
def test_a_damaged_cache_is_made_anew(base, cache, name, damage):
    arrays = read_folder(base, size=8)
    file = next(cache.iterdir()) / name
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    elif damage == "other shape" and name == "meta.json":
        file.write_text(json.dumps({k: v for k, v in json.loads(content).items() if k != "digest"}))
    elif damage == "other shape":
        np.save(file, np.load(file)[:-1])
    else:
        file.write_bytes({"shorter": content[:-9], "empty": b"", "garbage": b"\0" * len(content)}[damage])
    counter = Counter()
    assert equal(read_folder(base, size=8, progress=counter), arrays) and counter.calls
    healed = Counter()
    assert equal(read_folder(base, size=8, progress=healed), arrays) and healed.calls == []


@pytest.mark.parametrize("way", ["no space at fsync", "no space for the file", "no folder possible"])
def test_data_that_cannot_be_cached_still_loads(base, cache, monkeypatch, way):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    if way == "no space at fsync":
        def full(fd):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        monkeypatch.setattr(os, "fsync", full)
    elif way == "no folder possible":
        cache.parent.write_text("a file where the cache should be")
    else:
        # The kernel's own refusal, half way through a file; np.save takes no notice of it when the file is this small.
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, limit[1]))
    try:
        with pytest.warns(UserWarning, match="not cached in .*folders"):
            arrays = read_folder(base, size=8)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert len(arrays.y) == 5
    assert not cache.exists() or list(cache.iterdir()) == []


def test_what_others_left_is_removed_unless_they_still_work_there(base, cache):
    read_folder(base, size=8)
    work = hashlib.sha256(f"folder {base} 8 {cache_module.DECODER}".encode()).hexdigest()[:16]
    key = next(cache.iterdir()).name.split("-")[0]
    older, oldest, killed, running, foreign = (cache / name for name in (
        f"{key}-tmp-0", f"{work}-tmp-0", f"{work}-work-0", f"{work}-work-1", "01-work-0"))
    for place in (older, oldest, killed, running, foreign):
        place.mkdir()
        (place / "images.npy").write_bytes(b"x")
    put(base / "train/bee/z.png")
    with locked(running):
        read_folder(base, size=8)
    assert not older.exists() and not oldest.exists() and not killed.exists() and running.exists() and foreign.exists()
    assert not list(cache.glob(f"{key}-tmp-*")) and len(list(cache.glob(f"{key}-*"))) == 1


def test_where_there_are_no_locks_old_caches_are_removed_and_no_folder_of_work(base, cache, monkeypatch):
    monkeypatch.setattr(cache_module, "is_locked", lambda folder: False)
    monkeypatch.setattr("sslkit.files._lock", lambda file, kind: True)
    read_folder(base, size=8)
    (first,) = cache.iterdir()
    work = hashlib.sha256(f"folder {base} 8 {cache_module.DECODER}".encode()).hexdigest()[:16]
    (perhaps := cache / f"{work}-work-0").mkdir()
    put(base / "train/bee/z.png")
    read_folder(base, size=8)
    assert not first.exists() and list(cache.glob("*-work-*")) == [perhaps], "somebody may work in it"


def hammer(base, cache, want, go):
    """What each of three processes does."""
    warnings.simplefilter("error")
    os.environ["SSLKIT_CACHE"] = str(cache.parent)
    go.wait()
    for k in range(40):
        if k % 3 == 0:
            os.utime(base / "train/ant/0.png")             # everybody's cache is stale now
        try:
            arrays = read_folder(base, size=16)
        except InputError as e:
            assert "changed while the images were read" in str(e)
            continue
        assert arrays.digest == want and arrays.images.shape == (5, 3, 16, 16) and int(arrays.images[0, 1].min()) == 255


@pytest.mark.filterwarnings("error")
def test_processes_at_once_do_not_disturb_each_other(server, base, cache):
    want = read_folder(base, size=16).digest
    go = server.Barrier(3)
    running = [server.Process(target=hammer, args=(base, cache, want, go), daemon=True) for _ in range(3)]
    for process in running:
        process.start()
    for process in running:
        process.join(60)
        assert process.exitcode == 0, "what it says is among the captured output"
    assert not list(cache.glob("*-tmp-*"))
    assert read_folder(base, size=16).digest == want and len(list(cache.iterdir())) == 1


def test_without_locks_processes_do_not_share_a_folder(base, cache, monkeypatch):
    whole, names = read_folder(base, size=8), []
    remove(cache)
    monkeypatch.setattr("sslkit.files._lock", lambda *how: True)
    for _ in range(2):
        os.utime(base / "train/ant/0.png")
        read_folder(base, size=8, progress=lambda *call: names.extend(p.parent.name for p in cache.glob("*/images.npy")))
    assert equal(read_folder(base, size=8), whole) and len(list(cache.glob("*/meta.json"))) == 1
    assert [name.count("-") for name in names if "-work-" in name] == [3, 3], "a name of its own"


# A decoder that is killed, and files that change

@pytest.fixture
def many(tmp_path) -> Path:
    """150 images of 150 colours, and 5 that are none; 155 rows."""
    base = tmp_path / "many"
    for k in range(150):
        put(base / ("test" if k % 5 == 0 else "train") / "ab"[k % 2] / f"{k:03d}.png", (k, 200 - k, k * k % 251))
    for k in range(5):
        (base / f"train/a/{30 * k:03d}x.png").write_bytes(b"no image")
    return base


class Dying:
    """NumPy, but for the training rows that are kept, the second that read_files() asks for: the nth that moves kills the process."""
    def __init__(self, n):
        self.n, self.asked = n, 0

    def __getattr__(self, name):
        return getattr(np, name)

    def flatnonzero(self, rows):
        self.asked += 1
        return self.dying(rows) if self.asked == 2 else np.flatnonzero(rows)

    def dying(self, rows):
        for to, row in enumerate(np.flatnonzero(rows)):
            self.n -= to != row
            if self.n == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            yield row


def process(base, place, log, kill=None, times=1, pause=0.0):
    """What a process does that decodes `base` and notes in `log` what it decodes. It kills itself when `kill`, "module.name" of a
    function, is called the nth time."""
    os.environ["SSLKIT_CACHE"] = str(place)
    whole, count = folder.decode, [0]

    def noted(path, size):
        with open(log, "ab") as file:
            file.write(os.fsencode(path) + b"\n")
        time.sleep(pause)
        return whole(path, size)

    folder.decode, folder.PIECE, folder.cores = noted, 4, lambda: 2
    if kill == "moving":
        folder.np = Dying(times)
    elif kill:
        module, name = {"os": os, "folder": folder, "cache": cache_module}[kill.split(".")[0]], kill.split(".")[1]
        function = getattr(module, name)

        def killed(*how, **more):
            count[0] += 1
            if count[0] == times:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*how, **more)

        setattr(module, name, killed)
    arrays = read_folder(base, size=8, skip_bad_images=True)
    Path(f"{log}.{os.getpid()}").write_text(arrays.digest)


def run(server, *how, **more) -> int:
    """How many images a process decodes, which process() describes."""
    log = how[2]
    log.unlink(missing_ok=True)
    child = server.Process(target=process, args=how, kwargs=more, daemon=True)
    child.start()
    child.join(60)
    assert child.exitcode == (-signal.SIGKILL if "kill" in more else 0)
    return len(log.read_text().split()) if log.exists() else 0


@pytest.mark.parametrize("kill, times, most", [
    ("folder.decode", 1, 155), ("folder.decode", 70, 99), ("folder.decode", 155, 14), ("moving", 1, 5), ("moving", 60, 5), ("folder.summarize", 1, 5),
    ("os.fsync", 1, 5), ("os.fsync", 3, 5), ("os.fsync", 5, 5), ("os.rename", 1, 5), ("cache._load", 3, 0)])
def test_a_killed_decoder_goes_on_where_it_was(server, many, tmp_path, cache, monkeypatch, kill, times, most):
    undisturbed = tmp_path / "undisturbed"
    monkeypatch.setenv("SSLKIT_CACHE", str(undisturbed))
    whole = read_folder(many, size=8, skip_bad_images=True)
    monkeypatch.setenv("SSLKIT_CACHE", str(cache.parent))
    first = run(server, many, cache.parent, tmp_path / "log", kill=kill, times=times)
    assert first >= times - 2 if kill == "folder.decode" else first == 155
    again = run(server, many, cache.parent, tmp_path / "log")
    assert again <= most, "two pieces at most are lost, and the bad ones are tried again"
    assert equal(read_folder(many, size=8, skip_bad_images=True), whole)
    (place,) = cache.iterdir()
    assert (place / "images.npy").stat().st_size == 128 + whole.images.nbytes
    for file in ("images.npy", "test_images.npy", "y.npy", "test_y.npy"):
        assert (place / file).read_bytes() == next(undisturbed.glob(f"folders/*/{file}")).read_bytes()


def test_a_decoder_killed_at_random_moments_ends_with_the_same(server, many, tmp_path, cache):
    whole, log, kills = read_folder(many, size=8, skip_bad_images=True), tmp_path / "log", 0
    remove(cache)
    for wait in (random.Random(0).uniform(0.05, 0.15 + 0.02 * k) for k in range(60)):
        child = server.Process(target=process, args=(many, cache.parent, log), kwargs={"pause": 0.005}, daemon=True)
        child.start()
        child.join(wait)
        if child.exitcode is not None:
            break
        kills += 1
        child.kill()
        child.join()
    assert child.exitcode == 0 and kills and equal(read_folder(many, size=8, skip_bad_images=True), whole)
    assert len(log.read_text().split()) < 150 + (5 + 2 * 4) * (kills + 1), "two pieces at most are lost, and the bad ones are tried again"


def test_the_images_of_a_strict_load_that_failed_are_kept_for_a_tolerant_one(server, many, tmp_path, cache):
    with pytest.raises(InputError, match="000x.png cannot be read"):
        read_folder(many, size=8)
    (work,) = cache.iterdir()
    sums = np.load(work / "checksums.npy")
    assert "-work-" in work.name and (sums > 0).any()
    assert run(server, many, cache.parent, tmp_path / "log") == (sums == 0).sum()
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize("damage", ["images.npy cut", "images.npy gone", "images.npy other bytes", "images.npy other head", "checksums.npy cut",
                                    "checksums.npy other bytes", "test_images.npy cut", "meta.json cut", ".lock gone"])
def test_a_damaged_file_of_a_killed_decoder_is_made_anew(server, many, tmp_path, cache, damage):
    whole = read_folder(many, size=8, skip_bad_images=True)
    remove(cache)
    run(server, many, cache.parent, tmp_path / "log", kill="os.rename")
    name, how = damage.split(" ", 1)
    file = next(cache.glob(f"*-work-*/{name}"))
    content = file.read_bytes()
    if how == "gone":
        file.unlink()
    elif how == "cut":
        file.write_bytes(content[:len(content) // 3])
    else:
        at = 20 if how == "other head" else 2000 if name == "images.npy" else 300
        file.write_bytes(content[:at] + b"\7\7\7\7" + content[at + 4:])
    first = Counter()
    assert equal(read_folder(many, size=8, skip_bad_images=True, progress=first), whole) and first.calls[-1][0] == 155
    assert 0 < first.calls[0][0] < 155 or "checksums" in damage, "what was found comes first"


def test_a_file_that_changes_before_the_decoder_goes_on_is_read_anew(server, many, tmp_path, cache):
    run(server, many, cache.parent, tmp_path / "log", kill="folder.decode", times=100)
    put(many / "train/b/001.png", (1, 1, 255))
    counter = Counter()
    arrays = read_folder(many, size=8, skip_bad_images=True, progress=counter)
    assert (1, 1, 255) in colors(arrays.images) and len(arrays.y) == 120 and len(list(cache.iterdir())) == 1
    remove(cache)
    assert equal(read_folder(many, size=8, skip_bad_images=True), arrays)


@pytest.mark.parametrize("late", [False, True])
def test_a_file_that_changes_while_it_is_read_is_noticed(base, monkeypatch, late):
    whole, file, real = read_folder(base, size=8), base / "train/ant/0.png", folder.decode
    content, was = file.read_bytes(), file.stat()
    os.utime(base / "test/bee/t.png", ns=(1, 1))

    def changing(path, size):
        if Path(path) == (base / "test/bee/t.png" if late else file):
            put(file, (9, 9, 9))
        return real(path, size)

    with monkeypatch.context() as patch:
        patch.setattr(folder, "decode", changing)
        with pytest.raises(InputError, match="ant/0.png changed while the images were read; run this again"):
            read_folder(base, size=8)
    file.write_bytes(content)
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))      # as from a backup: of what was decoded in between, nothing is left
    assert equal(read_folder(base, size=8), whole)


def test_two_processes_at_once_decode_each_image_once(server, many, tmp_path, cache):
    log = tmp_path / "log"
    both = [server.Process(target=process, args=(many, cache.parent, log), kwargs={"pause": 0.005}, daemon=True) for _ in range(2)]
    for child in both:
        child.start()
    for child in both:
        child.join(60)
        assert child.exitcode == 0
    assert len(log.read_text().split()) == 155
    assert len({file.read_text() for file in tmp_path.glob("log.*")}) == 1 and len(list(cache.iterdir())) == 1


def test_as_many_threads_as_cores(base, monkeypatch):
    for k in range(5):
        put(base / f"train/ant/more{k}.png", (k, k, k))
    all_here, real = threading.Barrier(12), folder.decode

    def together(path, size):
        all_here.wait(20)
        return real(path, size)

    monkeypatch.setattr(folder, "PIECE", 1)
    monkeypatch.setattr(folder, "cores", lambda: 12)
    monkeypatch.setattr(folder, "decode", together)
    assert len(read_folder(base, size=8).y) == 10


def anonymous() -> int:
    """Bytes of this process's memory that lie in no file."""
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("RssAnon"))


def lean(base, place, answer):
    os.environ["SSLKIT_CACHE"] = str(place)
    cache_module.LARGE = 10**6
    read_folder(base, size=16)
    before, most = anonymous(), []
    arrays = read_folder(base, size=400, progress=lambda *call: most.append(anonymous()))
    answer.put((arrays.images.nbytes, max(most) - before, anonymous() - before))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux says what memory a process takes")
def test_large_images_take_no_memory_of_the_process_that_decodes_them(server, base, cache):
    for k in range(200):
        put(base / f"unlabeled/{k}.png", (k, 0, 0))
    answer = server.Queue()
    child = server.Process(target=lean, args=(base, cache.parent, answer), daemon=True)
    child.start()
    size, during, after = answer.get(timeout=60)
    child.join()
    assert size > 90e6 and during < 30e6 and after < 30e6
