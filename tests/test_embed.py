"""sslkit embed, and what begins with its features: label by head, probe, train --encoder."""
import csv
import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from sslkit.data import load
from sslkit.data.features import Table
from sslkit.networks import encoder
from sslkit.training import Config, all_runs, probes
from sslkit.training.run import Run

LITE = ["--encoder", "efficientnet-lite0", "--size", "32", "--device", "cpu"]
ENCODE = LITE[:4]
NAMES = {("china", 0): "a b.png", ("china", 1): 'say "hi", it\'s.png', ("china", 2): "Äpfel/größe.png", ("flower", 0): "flower/deep/er/z.png"}
COPY = "zz copy.jpg"


def tiles():
    """(what, number, picture): 15 tiles of 120 pixels of each of scikit-learn's photographs."""
    for what, photograph in zip(("china", "flower"), load_sample_images().images):
        for k in range(15):
            y, x = 140 * (k // 5), 126 * (k % 5)
            yield what, k, Image.fromarray(photograph[y:y + 120, x:x + 120])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """30 tiles, one of them turned by EXIF, a copy of another, a hidden one and a text file."""
    base = tmp_path_factory.mktemp("my pictures")
    for what, k, tile in tiles():
        path = base / NAMES.get((what, k), f"{what}{k:02}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        if (what, k) == ("china", 7):
            exif = Image.Exif()
            exif[0x0112] = 6                                       # shown, it is turned by 90 degrees
            tile.transpose(Image.Transpose.ROTATE_90).save(base / "turned.png", exif=exif)
            tile.save(base / ".hidden.png")
        else:
            tile.save(path)
        if (what, k) == ("china", 5):
            tile.save(base / COPY, quality=90)
    (base / "notes.txt").write_text("no picture")
    return base


@pytest.fixture(scope="module", autouse=True)
def one_cache(tmp_path_factory):
    """One for the tests of this file, which share features."""
    before, os.environ["SSLKIT_CACHE"] = os.environ["SSLKIT_CACHE"], str(tmp_path_factory.mktemp("cache"))
    yield
    os.environ["SSLKIT_CACHE"] = before


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Each test begins in an empty folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def nothing_computed(monkeypatch):
    """No features may be computed."""
    def never(*_, **__):
        raise AssertionError("features are computed although they need not be")

    for room in ("spec", "embed", "probe"):
        monkeypatch.setattr(sys.modules[f"sslkit.training.{room}"], "features", never)      # rooms have functions of these names


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_embed_writes_a_row_for_each_picture(pictures, sslkit):
    code, out, err = sslkit("embed", pictures, *LITE)
    assert code == 0 and out == "31 pictures, 1,280 features each by efficientnet-lite0 at 32 px, 6 views; 1 are near copies of another (files.csv): embeddings\n"
    assert "note: left out 1 files of other kinds" in err
    rows, plain, weak, strong = read("embeddings/files.csv"), *(np.load(f"embeddings/{kind}.npy") for kind in ("plain", "weak", "strong"))
    files = [row["file"] for row in rows]
    assert sorted(files) == sorted(str(path.relative_to(pictures)) for path in pictures.rglob("*.*g") if path.name != ".hidden.png")
    assert set(NAMES.values()) < set(files) and {row["file"]: row["copy_of"] for row in rows if row["copy_of"]} == {COPY: "china05.png"}
    assert (plain.shape, weak.shape, strong.shape) == ((31, 1280), (31, 2, 1280), (31, 4, 1280)) and {plain.dtype, weak.dtype, strong.dtype} == {np.dtype(np.float16)}
    made = encoder("efficientnet-lite0", size=32)
    for row in (0, files.index(NAMES["china", 2]), files.index(COPY), 30):         # each row is of its own file
        image = load(f"pictures:{pictures}", size=32).images[row:row + 1]
        np.testing.assert_allclose(plain[row], made(image)[0].half(), atol=0.01)
    tile = dict(((what, k), tile) for what, k, tile in tiles())["china", 7]
    upright = torch.from_numpy(np.array(tile.resize((32, 32), Image.Resampling.BICUBIC))).permute(2, 0, 1)[None]
    np.testing.assert_allclose(plain[files.index("turned.png")], made(upright)[0].half(), atol=0.01)
    about = json.loads(Path("embeddings/about.json").read_text())
    assert about["encoder"] == "efficientnet-lite0" and about["dim"] == 1280 and about["views"] == 6 and about["size"] == 32


def test_the_second_time_nothing_is_computed(pictures, sslkit, monkeypatch):
    first = json.loads(sslkit("embed", pictures, *LITE, "--json")[1])
    content = {path.name: path.read_bytes() for path in Path("embeddings").iterdir()}
    assert set(content) == {"files.csv", "about.json", "plain.npy", "weak.npy", "strong.npy"}
    monkeypatch.setattr(Table, "append", lambda *_: pytest.fail("features were computed again"))
    monkeypatch.setattr("sslkit.data.folder.decode", lambda *_: pytest.fail("pictures were read again"))
    assert json.loads(sslkit("embed", pictures, *LITE, "--json")[1]) == first and first["near_copies"] == 1 and first["ignored"] == 1
    assert {path.name: path.read_bytes() for path in Path("embeddings").iterdir()} == content
    assert sslkit("embed", pictures, *LITE, "--views", "0")[0] == 0
    assert {path.name for path in Path("embeddings").iterdir()} == {"files.csv", "about.json", "plain.npy"}, "the views of other settings are gone"
    assert Path("embeddings/plain.npy").read_bytes() == content["plain.npy"]


def test_a_damaged_picture(pictures, sslkit, refused, tmp_path):
    folder = tmp_path / "some"
    folder.mkdir()
    for name in ("china08.png", "china09.png", "china10.png"):
        (folder / name).write_bytes((pictures / name).read_bytes())
    (folder / "china09.png").write_bytes(b"PNG?")
    refused(("embed", folder, *LITE), "china09.png cannot be read as an image", "leave such files out with --skip-bad-images")
    code, out, err = sslkit("embed", folder, *LITE, "--skip-bad-images")
    assert code == 0 and out.startswith("2 pictures") and "note: left out 1 files that are no images" in err
    assert [row["file"] for row in read("embeddings/files.csv")] == ["china08.png", "china10.png"] and np.load("embeddings/strong.npy").shape == (2, 4, 1280)


@pytest.mark.slow
def test_ctrl_c_leaves_no_folder_and_the_next_run_goes_on(pictures, sslkit, tmp_path, monkeypatch):
    code = """
import sys, time
from sslkit import cli
from sslkit.data.features import Table
whole = Table.append
def slow(self, keys, values):
    whole(self, keys, values)
    print("appended", flush=True)
    time.sleep(60)
Table.append = slow
sys.exit(cli.main(["embed", *sys.argv[1:]]))
"""
    monkeypatch.setenv("SSLKIT_CACHE", str(tmp_path / "cache"))
    process = subprocess.Popen([sys.executable, "-c", code, pictures, *LITE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "appended\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and err.endswith("stopped\n") and "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    added, whole = [], Table.append
    monkeypatch.setattr(Table, "append", lambda self, keys, values: added.append(values.shape) or whole(self, keys, values))
    assert sslkit("embed", pictures, *LITE)[0] == 0 and added == [(31, 2, 1280), (31, 4, 1280)], "the plain ones were there"
    assert np.load("embeddings/plain.npy").shape == (31, 1280)


def test_what_cannot_be_embedded(pictures, refused, tmp_path, nothing_computed):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/mine.txt").write_text("keep me")
    (tmp_path / "empty").mkdir()
    refused(("embed", pictures, *LITE, "--out", "other"), "other holds something else: give another --out")
    refused(("embed", pictures, *LITE, "--out", "other/mine.txt"), "holds something else")
    refused(("embed", pictures, *LITE, "--out", "."), ". holds something else")
    refused(("embed", pictures, *LITE, "--out", "/proc/no/such"), "could not write /proc/no/such")
    refused(("embed", "nowhere", *LITE), "there is no folder nowhere")
    refused(("embed", tmp_path / "empty", *LITE), "empty holds no images (.jpg")
    refused(("embed", pictures, *LITE, "--encoder", "timm:resnt18"), "unknown encoder 'timm:resnt18': did you mean timm:resnet18")
    refused(("embed", pictures, *LITE, "--device", "cuda:99"), "device 'cuda:99' is not here")
    assert (tmp_path / "other/mine.txt").read_text() == "keep me"


def test_three_pictures_and_views_out_of_range(pictures, sslkit, refused, tmp_path):
    (tmp_path / "three").mkdir()
    for k in (8, 9, 10):
        (tmp_path / f"three/{k}.png").write_bytes((pictures / f"china{k:02}.png").read_bytes())
    assert sslkit("embed", "three", *LITE, "--views", 1)[1].startswith("3 pictures, 1,280 features each")
    assert {path.name for path in Path("embeddings").iterdir()} == {"files.csv", "about.json", "plain.npy", "strong.npy"}
    refused(("embed", "three", *LITE, "--views", -1), "views is -1, it must be a whole number from 0 to 1000")


def test_a_link_is_followed(pictures, sslkit, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "embeddings").symlink_to("disk")
    assert sslkit("embed", pictures, *LITE)[0] == 0 and (tmp_path / "embeddings").is_symlink() and (tmp_path / "disk/plain.npy").is_file()


@pytest.fixture
def embedded(pictures, sslkit, monkeypatch):
    """The pictures embedded; three labels of each kind in labels.csv. Returns the true kind of each row."""
    assert sslkit("embed", pictures, *LITE)[0] == 0
    label_files({"china03.png": "china", NAMES["china", 1]: "china", NAMES["china", 2]: "china", "flower04.png": "flower", "flower06.png": "flower", NAMES["flower", 0]: "flower"})
    return ["flower" if "flower" in row["file"] else "china" for row in read("embeddings/files.csv")]


def label_files(labels):
    with open("labels.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file", "label"), *labels.items()])


def test_the_head_labels_pictures(embedded, sslkit, monkeypatch):
    monkeypatch.setattr(sys.modules["sslkit.training.head"], "Config", partial(Config, steps=100))
    code, out, err = sslkit("label", "embeddings", "labels.csv", "--labeler", "head")
    assert code == 0 and out.endswith("labels by head: out.csv\n")
    rows = read("out.csv")
    assert [row["file"] for row in rows] == [row["file"] for row in read("embeddings/files.csv")]
    assert np.mean([row["label"] == kind for row, kind in zip(rows, embedded)]) > 0.8
    given = {row["file"]: row["label"] for row in read("labels.csv")}
    assert all(row["label"] == given[row["file"]] and row["confidence"] == "1" for row in rows if row["file"] in given)
    assert len({row["confidence"] for row in rows}) > 10


def test_auto_lists_the_head_where_there_are_views(embedded, sslkit, monkeypatch, pictures):
    monkeypatch.setattr(sys.modules["sslkit.training.head"], "Config", partial(Config, steps=5))
    info = json.loads(sslkit("label", "embeddings", "labels.csv", "--json")[1])
    names = [row["labeler"] for row in info["choice"]]
    assert names[0] == "head" and {"spreading", "logistic", "nearest"} < set(names) and info["choice"][0]["found"] > 0.4
    label_files({"china03.png": "china", "flower04.png": "flower", "flower06.png": "flower"})
    assert json.loads(sslkit("label", "embeddings", "labels.csv", "--json")[1])["choice"][0]["labeler"] == "head", "a class may have one label"
    assert sslkit("embed", pictures, *LITE, "--views", 0)[0] == 0
    assert "head" not in [row["labeler"] for row in json.loads(sslkit("label", "embeddings", "labels.csv", "--json")[1])["choice"]]


def test_what_cannot_be_labelled(embedded, refused, pictures, sslkit):
    refused(("label", "nowhere", "labels.csv", "--labeler", "head"), "there is no file nowhere")
    refused(("label", "embeddings", "labels.csv", "--labeler", "hat"), "unknown labeler 'hat': did you mean 'head'?")
    weak = np.load("embeddings/weak.npy")
    for other in (weak[:5], weak[:, :, :7], weak[:, 0]):
        np.save("embeddings/weak.npy", other)
        refused(("label", "embeddings", "labels.csv", "--labeler", "head"), "weak.npy is not of the pictures of plain.npy: run `sslkit embed` again")
    Path("embeddings/weak.npy").write_text("no table")
    refused(("label", "embeddings", "labels.csv", "--labeler", "head"), "the views in embeddings cannot be read", "run `sslkit embed` again")
    label_files({"china03.png": "china", "gone.png": "flower", "flower04.png": "flower"})
    assert sslkit("embed", pictures, *LITE, "--views", 0)[0] == 0
    refused(("label", "embeddings", "labels.csv", "--labeler", "nearest"), "1 files of labels.csv have no embedding: gone.png")
    refused(("label", "embeddings", "labels.csv", "--labeler", "head"), "embeddings has no features of views", "sslkit embed FOLDER --views 6")
    assert not Path("out.csv").exists()


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A data set of two classes: 9 tiles of each for training, 6 for the test."""
    base = tmp_path_factory.mktemp("photographs")
    for what, k, tile in tiles():
        path = base / ("test" if k % 5 > 2 else "train") / what / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        tile.save(path)
    return base


def test_probe_of_a_folder_is_for_people_too(photographs, sslkit):
    code, out, err = sslkit("probe", "--data", f"folder:{photographs}", *LITE, "--validation", "0.25")
    assert code == 0 and out.startswith(f"efficientnet-lite0 on folder:{photographs}: test accuracy ") and "of the validation images)" in out
    code, out, err = sslkit("probe", "--data", f"folder:{photographs}", *LITE, "--validation", "0.25", "--json")
    found = json.loads(out)
    assert code == 0 and found["test_acc"] > 0.8 and found["test_acc_mean_class"] == pytest.approx(found["test_acc"]) and probes() == [found]
    assert {name: found[name] for name in ("encoder", "size", "dim")} == {"encoder": "efficientnet-lite0", "size": 32, "dim": 1280}
    assert 1e-7 < found["C"] < 1000 and found["validation_acc"] > 0.7


def test_what_cannot_be_probed(photographs, pictures, refused, nothing_computed):
    refused(("probe", "--data", f"pictures:{pictures}", *LITE), "has no classes: label some pictures first")
    refused(("probe", "--data", f"folder:{photographs}", *LITE, "--validation", "0.99"), "validation must be from 0 to 16, not 18")
    refused(("probe", *LITE, "--validation", "1"), "validation is 1, it must be above 0 and below 1")
    refused(("probe", "--data", "nothing", *LITE), "unknown data set 'nothing'")


def test_train_on_features_from_end_to_end(photographs, sslkit, refused, monkeypatch):
    words = ["train", "freematch", "--data", f"folder:{photographs}", *ENCODE, "--labels", "4", "--steps", "30", "--device", "cpu"]
    from sslkit.training import loop

    def stops(method, nets, optimizer, feed, step, whole=loop.take_step):
        if step == 20:
            os.kill(os.getpid(), signal.SIGINT)
        return whole(method, nets, optimizer, feed, step)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "take_step", stops)
        code, out, err = sslkit(*words)
    assert code == 130 and "stopped at step 2" in err and "continue with: sslkit train freematch" in err and "--resume" in err
    refused(words, "holds a run that was stopped; --resume continues it")
    code, out, err = sslkit(*words, "--resume", "--json")
    found = json.loads(out)
    assert code == 0 and found["method"] == "freematch" and found["steps"] == 30 and found["test_acc"] > 0.7 and len(found["test_acc_class"]) == 2
    (run,) = all_runs()
    assert run.config["data"]["encoder"] == "efficientnet-lite0" and run.config["train"]["network"] == "linear" and str(run.path) == found["run"]
    code, out, _ = sslkit(*words, "--out", "whole", "--json")
    assert Run("whole").result["test_acc"] == found["test_acc"] and Run("whole").metrics[-1]["loss"] == run.metrics[-1]["loss"], "as if never stopped"


@pytest.mark.parametrize("words, what", [
    ("remixmatch ENCODE", "remixmatch changes pixels, it cannot train on features: leave out --encoder"),
    ("freematch ENCODE --views 0", "freematch needs strong views: compute some, with --views 6"),
    ("kd-fixmatch ENCODE --views 0", "kd-fixmatch needs strong views"),
    ("freematch ENCODE --network small", "the network small is for images, this data has features: take linear or hidden"),
    ("freematch ENCODE --network linaer", "unknown network 'linaer': did you mean 'linear'?"),
    ("kd-fixmatch ENCODE --outer-network wrn-28-2", "the network wrn-28-2 is for images"),
    ("freematch --network linear", "the network linear is for features, this data has none: add --encoder"),
    ("freematch --weights nonsense", "there is no file nonsense of weights, and by name only none and imagenet"),
    ("freematch --views 3", "--views belongs to --encoder: add it, or leave it out")])
def test_what_cannot_be_trained_is_said_before_the_data_are_read(words, what, photographs, refused, monkeypatch):
    monkeypatch.setattr("sslkit.training.spec.load", lambda *_, **__: pytest.fail("the data were read"))
    monkeypatch.setattr("sslkit.training.spec.encoder", lambda *_, **__: pytest.fail("the encoder was made"))
    method, *flags = words.replace("ENCODE", " ".join(ENCODE)).split()
    refused(("train", method, "--data", f"folder:{photographs}", "--labels", "4", *flags), what)


def test_what_cannot_be_split_is_said_before_features_are_computed(photographs, pictures, refused, nothing_computed):
    refused(("train", "freematch", "--data", f"folder:{photographs}", *ENCODE, "--labels", "5"), "labels must be a multiple of the 2 classes")
    refused(("train", "freematch", "--data", f"pictures:{pictures}", *ENCODE), "has no classes: label some pictures first")
    refused(("train", "freematch", "--data", f"pictures:{pictures}"), "has no classes: label some pictures first")
    refused(("train", "freematch", *ENCODE, "--weights", "imagenet"), "there is no file imagenet")
