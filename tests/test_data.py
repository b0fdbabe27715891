"""Data sets in their real formats, and splits that are the same on every machine."""
import gzip
import hashlib
import http.server
import json
import os
import pickle
import shutil
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torchvision import datasets

from sslkit.data import sources
from sslkit.data.dataset import SSLData
from sslkit.data.sources import SOURCES, STL10, load
from sslkit.data.split import split
from sslkit.errors import InputError


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """An empty place for data sets, and one for the cache."""
    monkeypatch.setenv("SSLKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SSLKIT_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(sources, "DEBIAN", tmp_path / "no package")
    return tmp_path / "data"


@pytest.fixture(scope="module")
def digits() -> SSLData:
    return load("digits")


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def pictures(n: int, side: int = 32) -> np.ndarray:
    return np.random.RandomState(n).randint(0, 256, (n, 3, side, side)).astype(np.uint8)


# Digits

def test_digits_are_scikit_learns(digits):
    source = load_digits()
    assert digits.images.shape == (1397, 1, 8, 8) and digits.images.dtype == torch.uint8
    assert digits.test_images.shape == (400, 1, 8, 8) and digits.test_y.bincount().tolist() == [40] * 10
    assert digits.y.dtype == digits.test_y.dtype == torch.int64
    images, y = torch.cat([digits.images, digits.test_images]), torch.cat([digits.y, digits.test_y])
    ours = sorted((image.flatten().tolist(), int(label)) for image, label in zip(images, y))
    theirs = sorted(([round(v * 255 / 16) for v in image.flatten()], int(label))
                    for image, label in zip(source.images, source.target))
    assert ours == theirs
    assert digits.classes == tuple("0123456789") and digits.num_classes == 10 and digits.side == 8 and not digits.flip


def test_digits_are_the_same_on_every_machine(digits):
    assert digits.digest == "884df2dca95bd92b31c7fdbaea40883cd1dd0f0c4361689afc8992fe58657ccc"
    pixels = digits.images.double() / 255
    assert digits.mean == pytest.approx((float(pixels.mean()),), rel=1e-12)
    assert digits.std == pytest.approx((float(pixels.std(correction=0)),), rel=1e-12)


def test_before_the_split_nothing_is_labelled(digits):
    assert digits.num_labeled == 0 and digits.unlabeled.tolist() == list(range(1397)) and digits.num_unlabeled == 1397


def test_to_moves_every_tensor(digits):
    moved = split(digits, 20).to("meta")
    tensors = [v for v in vars(moved).values() if isinstance(v, torch.Tensor)]
    assert len(tensors) == 7 and all(v.device.type == "meta" for v in tensors)
    assert moved.name == "digits" and load("digits", device="meta").images.device.type == "meta"


# Names

def test_unknown_names_are_refused():
    with pytest.raises(InputError, match="unknown data set 'cifar': did you mean 'cifar10'.*folder:PATH"):
        load("cifar")
    for name in ("folder", "folder:"):
        with pytest.raises(InputError, match="folder:PATH"):
            load(name)
    with pytest.raises(InputError, match="pictures is given with the path of a folder, pictures:PATH"):
        load("pictures:")
    for name in ("", "Digits", "folders:x", None):
        with pytest.raises(InputError, match="unknown data set"):
            load(name)
    with pytest.raises(InputError, match="digits has 8 pixels a side; size is for folders and food101"):
        load("digits", size=16)
    assert load("digits", size=8).side == 8


def test_a_folder_is_loaded_by_its_path(tmp_path):
    for k, name in enumerate(("train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/1.png", "unlabeled/1.png")):
        (tmp_path / "set" / name).parent.mkdir(parents=True)
        Image.new("RGB", (50, 40), (k, k, k)).save(tmp_path / "set" / name)
    name = f"folder:{tmp_path / 'set'}"
    calls = []
    data = load(name, progress=lambda *call: calls.append(call))
    assert data.name == name and data.images.shape == (3, 3, 32, 32) and data.y.tolist() == [0, 1, -1] and data.flip
    assert data.images[:, 0, 0, 0].tolist() == [0, 1, 4] and data.classes == ("a", "b")
    assert calls == [(5, 5, "decoding images")]
    assert load(name, size=16).side == 16 and split(data, 2).num_unlabeled == 3
    (tmp_path / "set/train/a/2.jpg").write_text("no image")
    with pytest.raises(InputError, match="2.jpg cannot be read"):
        load(name)
    assert load(name, skip_bad_images=True).info["skipped"] == 1


def test_pictures_without_labels_are_loaded_and_not_split(tmp_path):
    for k, name in enumerate(("b.png", "c/1.png", "a.png")):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (50, 40), (k, k, k)).save(tmp_path / "set" / name)
    data = load(f"pictures:{tmp_path}/set", size=16)
    assert data.name == f"pictures:{tmp_path}/set" and data.images[:, 0, 0, 0].tolist() == [2, 0, 1] and data.side == 16
    assert data.info["files"] == ["a.png", "b.png", "c/1.png"] and data.y.tolist() == [-1] * 3 and data.flip
    assert len(data.test_images) == len(data.test_y) == data.num_classes == data.num_labeled == 0 and data.num_unlabeled == 3
    assert "3 images, 0 labelled, 3 unlabelled, 0 for the test, 0 classes" in repr(data) and data.known.tolist() == [-1] * 3
    with pytest.raises(InputError, match="set has no classes: label some pictures first.*train/CLASS/.*`sslkit embed`"):
        split(data, 10)


def test_rows_keep_their_names_when_others_leave(tmp_path):
    for name in ("train/a/0.png", "train/a/1.png", "train/a/2.png", "train/b/3.png", "train/b/4.png", "test/a/5.png", "test/b/6.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (int(name[-5]),) * 3).save(tmp_path / name)
    data = load(f"folder:{tmp_path}", size=8)
    tail = split(data, 2, validation=2)
    assert len(tail.images) == 3 and tail.info["files"] == data.info["files"]
    assert [data.info["files"][row][-5] for row in tail.validation] == [str(level) for level in tail.test_images[:, 0, 0, 0].tolist()]


# torchvision's sets, small files in their formats

def cifar(monkeypatch, kind, root: Path, num_classes: int, key: str) -> tuple[np.ndarray, list, np.ndarray, list]:
    """Write kind's pickles: two training images and a test image a class. Their MD5 take the published ones' place."""
    images, test_images = pictures(2 * num_classes), pictures(num_classes)
    y, test_y = list(range(num_classes)) * 2, list(range(num_classes))[::-1]
    base = root / kind.base_folder
    base.mkdir(parents=True)

    def write(name: str, entry: dict) -> str:
        (base / name).write_bytes(pickle.dumps(entry, protocol=2))
        return md5((base / name).read_bytes())

    files = [name for name, _ in kind.train_list]
    pieces = np.array_split(np.arange(2 * num_classes), len(files))
    train_list = [[name, write(name, {"data": images[i].reshape(len(i), -1), key: [y[k] for k in i]})]
                  for name, i in zip(files, pieces)]
    test_list = [[name, write(name, {"data": test_images.reshape(num_classes, -1), key: test_y})]
                 for name, _ in kind.test_list]
    names = [f"class {c}" for c in range(num_classes)]
    meta = {**kind.meta, "md5": write(kind.meta["filename"], {kind.meta["key"]: names})}
    for attribute, value in (("train_list", train_list), ("test_list", test_list), ("meta", meta)):
        monkeypatch.setattr(kind, attribute, value)
    return images, y, test_images, test_y


@pytest.mark.parametrize("name, kind, num_classes, key", [("cifar10", datasets.CIFAR10, 10, "labels"),
                                                          ("cifar100", datasets.CIFAR100, 100, "fine_labels")])
def test_cifar(name, kind, num_classes, key, home, monkeypatch):
    images, y, test_images, test_y = cifar(monkeypatch, kind, home, num_classes, key)
    data = load(name)
    assert np.array_equal(data.images, images) and data.images.dtype == torch.uint8 and data.y.tolist() == y
    assert np.array_equal(data.test_images, test_images) and data.test_y.tolist() == test_y
    tail = split(data, num_classes + 1, imbalance=2, include_labeled=False)
    assert tail.counts()[0] == [2] + [1] * (num_classes - 1) and len(tail.groups["tail"]) == num_classes // 3
    assert data.classes == tuple(f"class {c}" for c in range(num_classes)) and data.flip and data.side == 32
    np.testing.assert_allclose(data.mean, (images / 255).mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(data.std, (images / 255).std((0, 2, 3)), rtol=1e-12)
    assert split(data, num_classes).y[:num_classes].tolist() == list(range(num_classes))


def test_cifar_from_its_archive(home, monkeypatch):
    images, *_ = cifar(monkeypatch, datasets.CIFAR10, home / "made", 10, "labels")
    with tarfile.open(home / "cifar-10-python.tar.gz", "w:gz") as tar:
        tar.add(home / "made/cifar-10-batches-py", "cifar-10-batches-py")
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5((home / "cifar-10-python.tar.gz").read_bytes()))
    with pytest.raises(InputError, match="cifar10 is not in .*data: there is no .*data_batch_1; pass --download"):
        load("cifar10")
    assert np.array_equal(load("cifar10", download=True).images, images)
    assert np.array_equal(load("cifar10").images, images)


def test_a_damaged_file_is_named(home, monkeypatch):
    cifar(monkeypatch, datasets.CIFAR10, home, 10, "labels")
    file = home / "cifar-10-batches-py/data_batch_3"
    content = bytearray(file.read_bytes())
    content[700] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match="data_batch_3 is damaged: its MD5 is not the published one; delete it"):
        load("cifar10")


def test_damage_after_the_first_load_is_seen_too(home, monkeypatch):
    cifar(monkeypatch, datasets.CIFAR10, home, 10, "labels")
    first = load("cifar10")
    with monkeypatch.context() as patch:
        patch.setattr(datasets.CIFAR10, "__init__", lambda *a, **k: pytest.fail("the cache was not used"))
        again = load("cifar10")
    assert again.hash == first.hash and again.mean == first.mean and torch.equal(again.images, first.images)
    file = home / "cifar-10-batches-py/test_batch"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match="test_batch is damaged"):
        load("cifar10")


def svhn(monkeypatch, root: Path) -> tuple[np.ndarray, list]:
    root.mkdir(parents=True, exist_ok=True)
    images, lists = pictures(20), {}
    for part, n in (("train", 20), ("test", 10)):
        y = np.array([10, *range(1, 10)] * 2)[:n, None].astype(np.uint8)     # SVHN calls the digit 0 10
        scipy.io.savemat(root / f"{part}_32x32.mat", {"X": images[:n].transpose(2, 3, 1, 0), "y": y})
        file = root / f"{part}_32x32.mat"
        lists[part] = ["http://127.0.0.1:9/x.mat", file.name, md5(file.read_bytes())]
    monkeypatch.setattr(datasets.SVHN, "split_list", lists)
    return images, [*range(10)] * 2


def test_svhn(home, monkeypatch):
    images, y = svhn(monkeypatch, home)
    data = load("svhn")
    assert np.array_equal(data.images, images) and data.y.tolist() == y and data.test_y.tolist() == y[:10]
    assert np.array_equal(data.test_images, images[:10]) and data.classes == tuple("0123456789") and not data.flip
    assert data.info == {"extra": "not used: train alone"}


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a web server for the files in `folder`."""
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_svhn_is_downloaded_when_asked(home, monkeypatch, tmp_path):
    images, _ = svhn(monkeypatch, tmp_path / "web")
    with served(tmp_path / "web") as address:
        lists = {part: [address + file, file, check]
                 for part, (_, file, check) in datasets.SVHN.split_list.items()}
        monkeypatch.setattr(datasets.SVHN, "split_list", lists)
        with pytest.raises(InputError, match="svhn is not in .*pass --download"):
            load("svhn")
        assert not home.exists()     # nothing is fetched or made without being asked for
        assert np.array_equal(load("svhn", download=True).images, images)
        (home / "test_32x32.mat").unlink()
        (tmp_path / "web/test_32x32.mat").write_bytes(b"something else")
        with pytest.raises(InputError, match="could not download svhn to .*data: .*corrupted"):
            load("svhn", download=True)


@pytest.mark.parametrize("name", [name for name in SOURCES if name not in ("digits", "folder")])
def test_without_network_a_download_says_so(name, home, monkeypatch):
    for kind, attribute in ((datasets.CIFAR10, "url"), (datasets.CIFAR100, "url"), (datasets.STL10, "url"),
                            (datasets.Food101, "_URL")):
        monkeypatch.setattr(kind, attribute, "http://127.0.0.1:9/nothing.tar.gz")
    lists = {part: ["http://127.0.0.1:9/x.mat", "x.mat", "0" * 32] for part in ("train", "test")}
    monkeypatch.setattr(datasets.SVHN, "split_list", lists)
    monkeypatch.setattr(datasets.FashionMNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(InputError, match=f"{name} is not in {home}: there is no .*; pass --download .* or --root"):
        load(name)
    with pytest.raises(InputError, match=f"could not download {name} to {home}: .*refused"):
        load(name, download=True)


def test_root_and_its_default(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=f"svhn is not in {tmp_path}/elsewhere"):
        load("svhn", root=tmp_path / "elsewhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(InputError, match=f"svhn is not in {tmp_path}/own"):
        load("svhn", root="~/own")
    monkeypatch.delenv("SSLKIT_DATA")
    with pytest.raises(InputError, match=f"svhn is not in {tmp_path}/.cache/sslkit"):
        load("svhn")


def fashion(root: Path) -> tuple[list, list]:
    """Write 20 training images and 10 test images in the published format, labels c, c + 1 ...; their MD5s, all pixels."""
    root.mkdir(parents=True)
    resources, pixels = [], []
    for part, n in (("train", 20), ("t10k", 10)):
        pixels.append(np.random.RandomState(n).randint(0, 256, (n, 1, 28, 28)).astype(np.uint8))
        for kind, head, content in (("images-idx3", [2051, n, 28, 28], pixels[-1]), ("labels-idx1", [2049, n], np.arange(n, dtype=np.uint8) % 10)):
            file = root / f"{part}-{kind}-ubyte.gz"
            file.write_bytes(gzip.compress(np.array(head, ">i4").tobytes() + content.tobytes()))
            resources.append((file.name, md5(file.read_bytes())))
    return resources, pixels


def test_fashion_mnist(home, monkeypatch):
    resources, (images, test_images) = fashion(home / "FashionMNIST/raw")
    monkeypatch.setattr(datasets.FashionMNIST, "resources", resources)
    data = load("fashion-mnist")
    assert np.array_equal(data.images, images) and np.array_equal(data.test_images, test_images)
    assert data.y.tolist() == [*range(10)] * 2 and data.test_y.tolist() == [*range(10)] and data.flip and data.side == 28
    assert data.classes[0] == "T-shirt/top" and data.num_classes == 10 and load("fashion-mnist").hash == data.hash
    file = home / "FashionMNIST/raw/train-labels-idx1-ubyte.gz"
    packed = gzip.decompress(file.read_bytes())
    file.write_bytes(gzip.compress(packed[:-1] + b"\3"))     # another label, and gzip finds nothing wrong
    with pytest.raises(InputError, match="train-labels-idx1-ubyte.gz is damaged: its MD5 is not the published one; delete it"):
        load("fashion-mnist")
    file.unlink()
    with pytest.raises(InputError, match="fashion-mnist is not in .*data: there is no FashionMNIST/raw/train-labels.*pass --download"):
        load("fashion-mnist")


def test_fashion_mnist_is_downloaded_when_asked(home, monkeypatch, tmp_path):
    resources, (images, _) = fashion(tmp_path / "web")
    monkeypatch.setattr(datasets.FashionMNIST, "resources", resources)
    with served(tmp_path / "web") as address:
        monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [address])
        with pytest.raises(InputError, match="fashion-mnist is not in .*pass --download"):
            load("fashion-mnist")
        assert np.array_equal(load("fashion-mnist", download=True).images, images)
        (home / f"FashionMNIST/raw/{resources[2][0]}").unlink()
        (tmp_path / "web" / resources[2][0]).write_bytes(b"something else")
        with pytest.raises(InputError, match="could not download fashion-mnist to .*data: .*corrupted"):
            load("fashion-mnist", download=True)


def test_fashion_mnist_of_the_debian_package(home, monkeypatch, tmp_path):
    _, (images, _) = fashion(tmp_path / "debian")
    monkeypatch.setattr(sources, "DEBIAN", tmp_path / "debian")
    assert np.array_equal(load("fashion-mnist").images, images)
    resources, (images, _) = fashion(home / "FashionMNIST/raw")
    with pytest.raises(InputError, match="data/FashionMNIST/raw/.* is damaged"):     # the user's own come first
        load("fashion-mnist")
    shutil.rmtree(home / "FashionMNIST")
    file = tmp_path / "debian/t10k-images-idx3-ubyte.gz"
    content = file.read_bytes()
    for at in (10, 300):                            # no kind of block; a pixel
        file.write_bytes(content[:at] + b"\7" + content[at + 1:])
        with pytest.raises(InputError, match="could not read fashion-mnist in .*debian"):
            load("fashion-mnist")
    file.unlink()
    with pytest.raises(InputError, match="fashion-mnist is not in .*data"):
        load("fashion-mnist")


def test_stl10_with_its_unlabelled_images(home, monkeypatch):
    images, test_images, y = pictures(24, 96), pictures(10, 96), np.arange(20) % 10
    base = home / "stl10_binary"
    base.mkdir(parents=True)
    # The published files: a byte a value, each channel column by column, labels from 1.
    content = {"train_X.bin": images[:20].transpose(0, 1, 3, 2).tobytes(),
               "train_y.bin": (y + 1).astype(np.uint8).tobytes(),
               "unlabeled_X.bin": images[20:].transpose(0, 1, 3, 2).tobytes(),
               "test_X.bin": test_images.transpose(0, 1, 3, 2).tobytes(), "test_y.bin": bytes(range(1, 11))}
    for name, data in content.items():
        (base / name).write_bytes(data)
    for attribute in ("train_list", "test_list"):
        monkeypatch.setattr(datasets.STL10, attribute, [[name, md5(content[name])] for name, _ in
                                                        getattr(datasets.STL10, attribute)])
    data = load("stl10")
    assert np.array_equal(data.images, images) and data.y.tolist() == [*y.tolist(), -1, -1, -1, -1]
    assert np.array_equal(data.test_images, test_images) and data.test_y.tolist() == list(range(10))
    assert data.classes == STL10 and data.side == 96 and data.flip
    assert split(data, 20).num_unlabeled == 24 and int(split(data, 20).labeled.max()) < 20


@pytest.fixture
def food(home) -> Path:
    base = home / "food-101"
    (base / "meta").mkdir(parents=True)
    names = {"train": {"pho": ["pho/3", "pho/1"], "taco": ["taco/7"]}, "test": {"pho": ["pho/2"], "taco": ["taco/1"]}}
    for part, entries in names.items():
        (base / f"meta/{part}.json").write_text(json.dumps(entries))
        for file in sum(entries.values(), []):
            (base / "images" / file).parent.mkdir(parents=True, exist_ok=True)
            level = 10 * int(file[-1]) + (100 if file[0] == "t" else 0)
            Image.new("RGB", (512, 384), (level,) * 3).save(base / f"images/{file}.jpg")
    return base


def test_food101_is_resized_and_cached(food):
    calls = []
    data = load("food101", progress=lambda *call: calls.append(call))
    assert data.images.shape == (3, 3, 128, 128) and data.images[:, 0, 5, 5].tolist() == [30, 10, 170]
    assert data.test_images[:, 2, 5, 5].tolist() == [20, 110]
    assert data.y.tolist() == [0, 0, 1] and data.test_y.tolist() == [0, 1]
    assert data.info["files"] == ["pho/3.jpg", "pho/1.jpg", "taco/7.jpg", "pho/2.jpg", "taco/1.jpg"]
    assert data.classes == ("pho", "taco") and data.flip and calls == [(5, 5, "decoding images")]
    assert load("food101", progress=lambda *call: calls.append(call)).hash == data.hash and len(calls) == 1
    assert load("food101", size=32).side == 32
    os.utime(food / "images/pho/2.jpg")
    load("food101", progress=lambda *call: calls.append(call))
    assert len(calls) == 2


def test_an_incomplete_food101_says_what_is_missing(food):
    (food / "images/pho/1.jpg").unlink()
    with pytest.raises(InputError, match="pho/1.jpg cannot be read as an image.*No such file"):
        load("food101")
    assert load("food101", skip_bad_images=True).y.tolist() == [0, 1]
    with pytest.raises(InputError, match="size must be a whole number of pixels"):
        load("food101", size=4)
    (food / "meta/test.json").write_text("{")
    with pytest.raises(InputError, match="could not read food101"):
        load("food101")


def test_the_digest_is_of_everything(tmp_path):
    """Pixels, labels, test set and names of classes each change it."""
    def make(name: str, at=None, level=0, classes=("a", "b"), extra=False) -> str:
        base = tmp_path / name
        for k, (part, c) in enumerate((p, c) for p in ("train", "test") for c in classes):
            (base / part / c).mkdir(parents=True)
            Image.new("RGB", (8, 8), (level if k == at else 50 + k, 0, 0)).save(base / part / c / "1.png")
        if extra:
            (base / "unlabeled").mkdir()
            (base / "train/b/1.png").rename(base / "unlabeled/1.png")
            Image.new("RGB", (8, 8)).save(base / "train/b/1.png")
        return load(f"folder:{base}", size=8).digest

    assert make("one") == make("two")
    digests = [make("0"), make("1", at=0), make("2", at=3), make("3", classes=("a", "c")), make("4", extra=True)]
    assert len(set(digests)) == 5


def test_nothing_is_written_outside_the_cache(home, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    cifar(monkeypatch, datasets.CIFAR10, home, 10, "labels")
    load("cifar10")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "data"]
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["folders"]
