"""What ImageNet's protocol takes: random resized crops of a larger stored square, its folders as they lie, and lists of labelled images."""
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from sslkit import methods
from sslkit.data import SSLData, augment, crop, load, read_list, split
from sslkit.errors import InputError
from sslkit.networks import build
from sslkit.records import PseudoLabels
from sslkit.training.config import Config
from sslkit.training.feed import Feed, generator
from sslkit.training.identity import protocol, record
from sslkit.training.loop import evaluate, predict, set_up, take_step
from sslkit.training.run import Run
from sslkit.training.spec import DataSpec, RunSpec

CPU, SHORT = torch.device("cpu"), Config(steps=2, batch_size=4, mu=2, network="small")
WORDS = ["--steps", 2, "--batch-size", 4, "--mu", 1, "--network", "small", "--threads", 1, "--device", "cpu"]


@pytest.fixture(scope="module")
def squares() -> SSLData:
    """Forty colour images of 16 pixels in four classes, weak views of 12, eight images labelled."""
    g = torch.Generator().manual_seed(0)
    images, y = torch.randint(0, 256, (48, 3, 16, 16), generator=g, dtype=torch.uint8), torch.arange(48) % 4
    none = torch.empty(0, dtype=torch.int64)
    data = SSLData("squares", images[:40], y[:40], images[40:], y[40:], tuple("abcd"), (.5,) * 3, (.25,) * 3, True, "", none,
                   torch.arange(40), 0, {}, none)
    return replace(split(data, 8), crop=12)


@pytest.fixture
def imagenet(tmp_path, monkeypatch):
    """ImageNet's layout, two classes of six training images; names are a class's, so `x_3.JPEG` says which it is."""
    monkeypatch.setenv("SSLKIT_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for part, n in (("train", 6), ("val", 2)):
        for c in ("n01", "n02"):
            (tmp_path / "in" / part / c).mkdir(parents=True)
            for k in range(n):
                image = Image.fromarray(rng.integers(0, 256, (24, 20, 3), np.uint8))
                image.save(tmp_path / "in" / part / c / f"{c if part == 'train' else 'val'}_{k}.JPEG")
    return tmp_path / "in"


@pytest.mark.parametrize("classes", [10, 11])
def test_top5_is_evaluated_with_more_than_ten_classes(squares, classes):
    g = torch.Generator().manual_seed(1)
    truth = torch.randint(classes, (8,), generator=g)
    data = replace(squares, classes=tuple(map(str, range(classes))), test_y=truth, crop=None)
    network = build("small", classes, 3, seed=0)
    p, found = predict(network, data.test_images, data)[0], evaluate(network, data)
    best = [sorted(range(classes), key=lambda c: -row[c])[:5] for row in p.tolist()]
    share = sum(int(y) in five for y, five in zip(truth, best)) / 8
    assert found.get("test_acc_top5") == (None if classes == 10 else pytest.approx(share)) and 0 < share < 1


# ---- crops

@pytest.mark.parametrize("kind", methods.ALL, ids=lambda kind: kind.__name__)
def test_every_method_takes_a_step_on_crops(kind, squares):
    data = squares.told(PseudoLabels(squares.y, torch.ones(40), {}, "the truth"))
    method, config = kind(), SHORT.resolve(data, CPU)
    nets, optimizer, feed = set_up(method, data, config)
    before, batch = [p.clone() for p in nets.student.parameters()], feed(0)
    assert batch.x.shape == (4, 3, 12, 12) and all(u.shape == (8, 3, 12, 12) for u in batch.u)
    assert take_step(method, nets, optimizer, feed, 0)["loss"].isfinite()
    assert any(not torch.equal(a, b) for a, b in zip(before, nets.student.parameters()))
    assert 0 <= evaluate(nets.teacher, data)["test_acc"] <= 1


def test_weak_views_are_crops_and_strong_ones_are_made_of_crops(squares):
    config, rows = SHORT.resolve(squares, CPU), torch.arange(40)
    feed, plain, images = Feed(squares, methods.FixMatch(), config), normalized(squares), squares.images
    assert torch.equal(feed.view("weak", rows, generator(1)), plain(crop(images, generator(1), side=12)))
    g = generator(1)
    assert torch.equal(feed.view("strong", rows, generator(1)), plain(augment.randaugment(crop(images, g, side=12), g, config.strong)))
    still = Feed(replace(squares, flip=False), methods.FixMatch(), config)
    assert torch.equal(still.view("weak", rows, generator(1)), plain(crop(images, generator(1), side=12, flip=False)))
    whole = Feed(replace(squares, crop=None), methods.FixMatch(), config)
    assert torch.equal(whole.view("weak", rows, generator(1)), plain(augment.weak(images, generator(1))))


def normalized(data):
    return lambda images: augment.normalize(images, data.mean, data.std)


def test_networks_are_evaluated_on_the_central_square(squares):
    network = set_up(methods.Supervised(), squares, SHORT.resolve(squares, CPU))[0].teacher
    network.norm_mode("running", 0.0)
    centre = squares.test_images[:, :, 2:14, 2:14]
    assert torch.equal(augment.centre(squares.test_images, 12), centre) and augment.centre(centre, None) is centre
    expected = network(normalized(squares)(centre)).logits.softmax(1)
    assert torch.allclose(predict(network, squares.test_inputs, squares)[0], expected, atol=1e-6)
    assert not torch.allclose(predict(network, squares.test_inputs, replace(squares, crop=None))[0], expected, atol=1e-6)
    assert evaluate(network, squares)["test_acc"] == (expected.argmax(1) == squares.test_y).float().mean().item()
    with pytest.raises(InputError, match="images of side 12 have no central square of side 13"):
        augment.centre(centre, 13)


def test_a_crop_is_in_the_record_and_its_absence_is_not(squares):
    config = SHORT.resolve(squares, CPU)
    whole, cropped = (record(methods.FixMatch(), data, config) for data in (replace(squares, crop=None), squares))
    assert cropped["data"] == whole["data"] | {"crop": 12} and cropped["data"]["side"] == 16
    assert protocol(whole) != protocol(cropped)


@pytest.mark.parametrize("side, crop, strong", [(16, None, "mc"), (16, 12, "small"), (32, 16, "mc"), (12, None, "small")])
def test_the_variant_of_strong_views_follows_the_side_of_a_view(side, crop, strong, squares):
    data = replace(squares, images=torch.zeros(40, 3, side, side, dtype=torch.uint8), crop=crop)
    assert Config().resolve(data, CPU).strong == strong
    assert f'"strong": "{strong}"' in RunSpec("fixmatch", DataSpec("folder:x", size=side, crop=crop)).protocol()


def test_crops_from_the_command_line(sslkit, imagenet):
    words = ["train", "fixmatch", "--data", f"imagefolder:{imagenet}", "--labels", 4, "--size", 16, *WORDS, "--json"]
    code, out, err = sslkit(*words, "--crop", 12)
    assert code == 0, err
    config = Run(json.loads(out)["run"]).config
    assert config["data"]["crop"] == 12 and config["data"]["side"] == 16 and config["train"]["strong"] == "small"
    assert "crop" not in Run(json.loads(sslkit(*words)[1])["run"]).config["data"]
    spec = RunSpec("fixmatch", DataSpec(f"imagefolder:{imagenet}", 4, size=16, crop=12), replace(SHORT, mu=1))
    assert spec.path(spec.load()) == Run(json.loads(out)["run"]).path and protocol(config) == spec.protocol()


def test_data_that_is_read_once_is_cropped_as_each_run_asks():
    loaded = {}
    assert [DataSpec(crop=side).load(0, loaded).crop for side in (8, None, 8)] == [8, None, 8] and len(loaded) == 2


def test_the_note_on_many_views_counts_what_they_have(sslkit, imagenet, monkeypatch):
    monkeypatch.setattr("sslkit.cli.one_run.MANY_VIEWS", 1000)
    for side, size in ((8, "0.0"), (64, "0.1")):
        words = ["--size", 64, "--crop", side, "--labels", 4, *WORDS, "--batch-size", 400]
        err = sslkit("train", "fixmatch", "--data", f"imagefolder:{imagenet}", *words)[2]
        assert f"note: a step makes 1,200 views, {size} GB before the network" in err


# ---- ImageNet's layout

def test_val_plays_the_test_set(imagenet):
    data = load(f"imagefolder:{imagenet}", size=16)
    assert data.name == f"imagefolder:{imagenet}" and data.classes == ("n01", "n02") and data.flip
    assert data.y.tolist() == [0] * 6 + [1] * 6 and data.test_y.tolist() == [0, 0, 1, 1] and data.test_images.shape == (4, 3, 16, 16)
    assert data.info["files"][0] == "train/n01/n01_0.JPEG" and data.info["files"][-1] == "val/n02/val_1.JPEG"
    assert load(f"imagefolder:{imagenet}", size=16).hash == data.hash
    (imagenet / "val").rename(imagenet / "test")
    assert load(f"folder:{imagenet}", size=16).hash == data.hash, "only the name of the folder differs"
    with pytest.raises(InputError, match=r"has no val/; there must be train/<class>/\* and val/<class>/\*"):
        load(f"imagefolder:{imagenet}", size=16)


def test_a_folder_with_test_and_val_is_either(imagenet):
    (imagenet / "test" / "n01").mkdir(parents=True)
    (imagenet / "test" / "n02").mkdir()
    for c in ("n01", "n02"):
        (imagenet / "val" / c / "val_0.JPEG").rename(imagenet / "test" / c / "test_0.JPEG")
    for progress in (None, lambda done, total, what: pytest.fail("decoded again, where the cache has both")):
        data = [load(f"{kind}:{imagenet}", size=16, progress=progress) for kind in ("imagefolder", "folder")]
        assert [one.info["files"][-1] for one in data] == ["val/n02/val_1.JPEG", "test/n02/test_0.JPEG"]


# ---- lists of labelled images

NAMES = ["n02_3.JPEG", "n01/n01_5.JPEG", "train/n01/n01_0.JPEG", "n02_1.JPEG", "n01_2.JPEG"]
ROWS = [9, 5, 0, 7, 2]


def test_a_list_names_the_labelled_rows(imagenet):
    data = load(f"imagefolder:{imagenet}", size=16)
    found = split(data, seed=3, labeled=NAMES)
    assert found.labeled.tolist() == ROWS and found.unlabeled.tolist() == list(range(12)) and found.seed == 3
    assert found.labeled.dtype == torch.int64 and found.labeled_list is not None and data.labeled_list is None
    assert split(data, seed=4, labeled=NAMES).hash == found.hash, "the seed draws none of them"
    assert split(data, seed=3, labeled=NAMES[::-1]).hash != found.hash
    apart = split(data, labeled=NAMES, include_labeled=False)
    assert apart.labeled.tolist() == ROWS and sorted(ROWS + apart.unlabeled.tolist()) == list(range(12))
    for rows in (ROWS, tuple(ROWS), torch.tensor(ROWS), np.array(ROWS)):
        assert split(data, labeled=rows).hash == found.hash
    assert split(found, 4).labeled_list is None and split(found, 4).hash == split(data, 4).hash


def test_a_list_goes_with_validation_and_a_number_of_unlabelled_images(imagenet):
    data = load(f"imagefolder:{imagenet}", size=16)
    found = split(data, labeled=NAMES, validation=2)
    kept = np.delete(np.arange(12), found.validation.numpy())
    assert len(found.images) == 10 and found.test_y.tolist() == [0, 1] and not set(found.validation.tolist()) & set(ROWS)
    assert kept[found.labeled].tolist() == ROWS and torch.equal(found.images[found.labeled], data.images[ROWS])
    assert split(found, seed=1, labeled=NAMES).hash == found.hash, "names are of the rows as loaded"
    some = split(data, labeled=NAMES, unlabeled=4, include_labeled=False)
    assert some.num_unlabeled == 4 and torch.equal(some.images[some.labeled], data.images[ROWS])
    assert some.y[some.unlabeled].bincount().tolist() == [2, 2] and some.unlabeled_asked == 4
    tail = split(data, labeled=NAMES, unlabeled_imbalance=2)
    assert torch.equal(tail.images[tail.labeled], data.images[ROWS]) and tail.imbalance == (1, 2)
    with pytest.raises(InputError, match="validation must be from 0 to 4, not 6"):
        split(data, labeled=NAMES, validation=6)


def test_images_of_no_class_are_never_labelled(imagenet):
    (imagenet / "unlabeled").mkdir()
    (imagenet / "train" / "n01" / "n01_4.JPEG").rename(imagenet / "unlabeled" / "n01_4.JPEG")
    data = load(f"imagefolder:{imagenet}", size=16)
    assert split(data, labeled=["n01_0.JPEG", "n02_0.JPEG"]).num_unlabeled == 12
    for labeled in (["n01_4.JPEG", "n01_0.JPEG", "n02_0.JPEG"], [11, 0, 6]):
        with pytest.raises(InputError, match="1 of 3 labelled images fit no training image of a known class"):
            split(data, labeled=labeled)


@pytest.mark.parametrize("labeled, message", [
    ([], "labeled is empty"), (["a", 3], "names of images, or numbers of"), ([0, 1.5], "names of images, or numbers of"),
    ([True, 6], "names of images, or numbers of"), ([0, 12, -1, 6], "2 of 4 labelled images fit no training image.*the first is 12$"),
    ([0, 6, 0], "0 is among the labelled images twice"), ([0, 1], "1 of 2 classes have no labelled image, the first is 'n02'"),
    (["val_0.JPEG", "n01_0.JPEG", "x"], "2 of 3 labelled images fit no training image of a known class, the first is 'val_0.JPEG'$"),
    (["n1/n01_0.JPEG", "n02_0.JPEG"], "the first is 'n1/n01_0.JPEG'"), (["1_0.JPEG", "n02_0.JPEG"], "the first is '1_0.JPEG'")])
def test_rows_that_cannot_be_labelled_are_refused(labeled, message, imagenet):
    with pytest.raises(InputError, match=message):
        split(load(f"imagefolder:{imagenet}", size=16), labeled=labeled)


def test_a_list_takes_the_place_of_a_draw(imagenet, digits):
    data = load(f"imagefolder:{imagenet}", size=16)
    for more in ({"labels": 4}, {"imbalance": 2}):
        with pytest.raises(InputError, match="labeled names the labelled images: leave out labels and imbalance"):
            split(data, labeled=NAMES, **more)
    assert split(digits, labeled=digits.labeled).hash == digits.hash, "rows of any data may be given"


def test_a_text_file_has_a_name_a_line(tmp_path):
    (tmp_path / "list.txt").write_bytes("\ufeffcat/a b.JPEG\r\n\n  é.png  \r\nx\u2028y.png".encode())
    assert read_list(tmp_path / "list.txt") == ["cat/a b.JPEG", "é.png", "x\u2028y.png"]


def test_a_list_from_the_command_line(sslkit, imagenet, tmp_path):
    (tmp_path / "1percent.txt").write_text("\n".join(NAMES) + "\n")
    words = ["train", "fixmatch", "--data", f"imagefolder:{imagenet}", "--labeled-list", tmp_path / "1percent.txt", "--size", 16, *WORDS, "--json"]
    code, out, err = sslkit(*words, "--no-include-labeled")
    assert code == 0, err
    config = Run(json.loads(out)["run"]).config
    assert config["data"]["labels"] == json.loads(out)["labels"] == 5 and config["data"]["unlabeled"] == 7
    assert "/fixmatch-in-5-s0-" in json.loads(out)["run"]
    spec = RunSpec("fixmatch", DataSpec(f"imagefolder:{imagenet}", labeled_list=str(tmp_path / "1percent.txt"), include_labeled=False,
                                        size=16), replace(SHORT, mu=1))
    data = spec.load()
    assert config["data"]["split"] == data.hash and config["data"]["labeled_list"] == data.labeled_list
    assert spec.path(data) == Run(json.loads(out)["run"]).path and protocol(config) == spec.protocol()
    second = json.loads(sslkit(*words, "--no-include-labeled", "--seed", 1)[1])
    assert Run(second["run"]).config["data"] == config["data"], "the seed draws no labelled image"
    (tmp_path / "1percent.txt").write_text("\n".join(NAMES[:3]))
    assert protocol(config) != spec.protocol(), "another list is another protocol"


def write(text):
    return lambda path: path.write_bytes(text if isinstance(text, bytes) else text.encode())


LISTS = {
    "missing": (lambda path: None, ["the list", "list.txt", "No such file"]),
    "a folder": (lambda path: path.mkdir(), ["the list", "list.txt", "cannot be read"]),
    "empty": (write(" \n\n"), ["list.txt is empty", "the name of an image on each line"]),
    "no text": (write(b"\xff\xd8\xff\xe0" * 9), ["list.txt is no text"]),
    "unknown names": (write("n01_0.JPEG\nn02_9.JPEG\nn02_8.JPEG\n"), ["2 of 3 labelled images fit no training image", "'n02_9.JPEG'"]),
    "a name twice": (write("n01_0.JPEG\nn02_0.JPEG\nn01_0.JPEG\n"), ["'n01_0.JPEG' is among the labelled images twice"]),
    "an image twice": (write("n01_0.JPEG\nn02_0.JPEG\nn01/n01_0.JPEG\n"), ["'n01/n01_0.JPEG' is among the labelled images twice"]),
    "two images": (write("same.JPEG\n"), ["'same.JPEG' fits 2 training images", "add their folders"]),
    "a class without": (write("n01_0.JPEG\n"), ["1 of 2 classes have no labelled image", "'n02'"]),
}


@pytest.mark.parametrize("what", LISTS)
def test_a_list_that_names_no_split_is_refused(refused, imagenet, tmp_path, what):
    for c in ("n01", "n02"):
        (imagenet / "train" / c / f"{c}_5.JPEG").rename(imagenet / "train" / c / "same.JPEG")
    load(f"imagefolder:{imagenet}", size=16)                # into the cache, or it would be left behind
    make, parts = LISTS[what]
    make(tmp_path / "list.txt")
    refused(["train", "fixmatch", "--data", f"imagefolder:{imagenet}", "--labeled-list", tmp_path / "list.txt", "--size", 16], *parts)


@pytest.mark.parametrize("words, parts", [
    (["--labels", "4"], ["leave out --labels and --imbalance"]), (["--imbalance", "2"], ["leave out --labels and --imbalance"]),
    (["--validation", "9"], ["validation must be from 0 to 4, not 9"]), (["--unlabeled", "9"], ["unlabeled must be from 1 to 6, not 9"])])
def test_what_a_list_does_not_go_with_is_refused(refused, imagenet, tmp_path, words, parts):
    (tmp_path / "list.txt").write_text("\n".join(NAMES))
    load(f"imagefolder:{imagenet}", size=16)
    refused(["train", "fixmatch", "--data", f"imagefolder:{imagenet}", "--labeled-list", tmp_path / "list.txt", "--size", 16, *words], *parts)


def test_a_list_is_read_before_images_are(refused, monkeypatch):
    monkeypatch.setattr("sslkit.training.spec.load", lambda *a, **b: pytest.fail("images were read"))
    refused(["train", "fixmatch", "--labeled-list", "/nowhere/at/all"], "'/nowhere/at/all' cannot be read")
    refused(["train", "fixmatch", "--labeled-list", "~nobody-here/x"], "'~nobody-here/x' cannot be read: Could not determine home")


def test_images_without_names_have_no_list(refused, tmp_path):
    (tmp_path / "list.txt").write_text("1.png")
    refused(["train", "fixmatch", "--labeled-list", tmp_path / "list.txt"], "the images of digits have no names", "folder:PATH")
