"""A folder of pictures without labels: what a person says is kept at each click, and nothing of it is lost or mixed up."""
import csv
import os
import re
import subprocess
import sys
from html import escape
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sslkit.data import Mark, Marks, load, sample_pictures
from sslkit.data.marks import NAME
from sslkit.errors import InputError
from sslkit.labelers import at_random, by_chance, interval, logistic, typical
from sslkit.lessons import Photos, label_pictures, photographs, review, right_of, umap_map
from sslkit.lessons.widgets.labeling import Labeling
from sslkit.lessons.widgets.reviewing import PAGE, Reviewing, reviewed, to_review
from sslkit.records import PseudoLabels

ODD = ("it's ümlaut 1.jpg", 'a "quoted".png', "with space.bmp")


@pytest.fixture
def folder(tmp_path):
    """Thirty pictures of two kinds, with odd names, a damaged one and a file that is no picture."""
    rng = np.random.default_rng(0)
    for k in range(30):
        kind = ("red", "blue")[k % 2]
        pixels = rng.integers(0, 90, (20 + k, 24, 3)).astype(np.uint8)
        pixels[..., 0 if kind == "red" else 2] += 150
        place = tmp_path / "photos" / kind
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / (ODD[k] if k < len(ODD) else f"{k:02}.png"))
    (tmp_path / "photos" / "red" / "broken.jpg").write_bytes(b"\xff\xd8\xff no")
    (tmp_path / "photos" / "notes.txt").write_text("x")
    return tmp_path / "photos"


@pytest.fixture
def small(folder, monkeypatch, tmp_path):
    """Photos with embeddings that know the colour, without an encoder."""
    monkeypatch.setenv("SSLKIT_CACHE", str(tmp_path / "cache"))
    photos = Photos(str(folder))
    photos.data = load(f"pictures:{folder}", size=16, skip_bad_images=True)
    photos.files = photos.data.info["files"]
    z = photos.data.images.float().mean((2, 3))
    monkeypatch.setattr(Photos, "z", property(lambda self: z))
    return photos


def rows(folder) -> list[tuple[str, ...]]:
    with open(folder / NAME, newline="") as file:
        return [(row["file"], row["label"], row["part"]) for row in csv.DictReader(file)]


def test_marks_are_on_the_disk_at_once_and_read_back(folder):
    marks = Marks(folder)
    for file, label in (("red/it's ümlaut 1.jpg", "a, b"), ('blue/a "quoted".png', "été"), ("x.png", "")):
        marks.put({file: Mark(label, "train")})
        assert Marks(folder).by_file == marks.by_file
    marks.put({"red/it's ümlaut 1.jpg": Mark("c", "check")})
    assert rows(folder) == [('blue/a "quoted".png', "été", "train"), ("x.png", "", "train"), ("red/it's ümlaut 1.jpg", "c", "check")]
    assert marks.labels("train") == {'blue/a "quoted".png': "été"} and marks.labels("check") == {"red/it's ümlaut 1.jpg": "c"}
    assert marks.take_back({"x.png"}) == "x.png" and marks.take_back({"x.png"}) is None
    assert list(Marks(folder).by_file) == ['blue/a "quoted".png', "red/it's ümlaut 1.jpg"]


def test_two_notebooks_on_one_folder_lose_nothing(folder):
    one, other = Marks(folder), Marks(folder)
    for k in range(6):
        (one, other)[k % 2].put({f"{k}.png": Mark("x", "train")})
    assert [row[0] for row in rows(folder)] == [f"{k}.png" for k in range(6)]
    assert one.take_back({"5.png", "0.png"}) == "5.png" and list(Marks(folder).by_file) == [f"{k}.png" for k in range(5)]


@pytest.mark.parametrize("content", ["", "file,label\na,b\n", "file,label,part,guess,when\na,b,nonsense,,\n", b"\xff\xfe\x00"])
def test_a_damaged_file_of_marks_is_a_sentence_and_stays_as_it_is(folder, content):
    path = folder / NAME
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = path.read_bytes()
    if content == "":
        assert Marks(folder).by_file == {}
    else:
        with pytest.raises(InputError, match=NAME):
            Marks(folder)
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_written_is_a_sentence_and_nothing_is_marked(folder):
    marks = Marks(folder)
    marks.path = folder / "no such folder" / NAME
    with pytest.raises(InputError, match="make the folder writable"):
        marks.put({"a": Mark("b", "train")})
    assert marks.by_file == {}


def test_a_process_killed_between_clicks_loses_none(folder):
    code = ("import os, signal, sys\nfrom sslkit.data import Mark, Marks\nmarks = Marks(sys.argv[1])\n"
            "for k in range(25):\n    marks.put({f'{k}.png': Mark('x', 'train')})\nos.kill(os.getpid(), signal.SIGKILL)")
    assert subprocess.run([sys.executable, "-c", code, str(folder)]).returncode == -9
    assert [row[0] for row in rows(folder)] == [f"{k}.png" for k in range(25)]


def test_typical_rows_show_each_group_and_random_rows_leave_out_what_they_should():
    g = torch.Generator().manual_seed(0)
    middles = torch.randn(6, 8, generator=g) * 10
    group = torch.arange(6).repeat_interleave(torch.tensor([200, 50, 20, 10, 5, 5]))
    points = middles[group] + torch.randn(len(group), 8, generator=g) * 0.1
    picked = typical(points, 6)
    assert sorted(group[picked].tolist()) == list(range(6)), "a group each, however small"
    assert typical(points, 6, torch.arange(200, 290)) and min(typical(points, 4, torch.arange(200, 290))) >= 200
    assert typical(points[:3], 5) == [0, 1, 2] and typical(points, 0) == []
    assert len(set(typical(torch.zeros(9, 2), 4))) == 4, "equal pictures, different rows"
    drawn = at_random(20, 15, 0, torch.arange(8))
    assert sorted(drawn) == list(range(8, 20)) and at_random(20, 5, 1, torch.arange(8)) == at_random(20, 5, 1, torch.arange(8))


@pytest.mark.parametrize("right, n", [(0, 20), (14, 20), (20, 20), (1, 1), (250, 1000)])
def test_the_interval_is_wilsons(right, n):
    for end in interval(right, n):               # the two p from which the share lies 1.96 deviations away
        assert abs(right / n - end) == pytest.approx(1.95996 * (end * (1 - end) / n) ** 0.5, abs=1e-4)


def test_of_nothing_nothing_is_known():
    assert interval(0, 0) == (0, 1) and by_chance(torch.ones(3, dtype=torch.bool), torch.ones(3, dtype=torch.bool)) == 1


@pytest.mark.parametrize("only_a, only_b, chance", [(0, 5, 2 / 32), (3, 4, 1), (1, 9, 22 / 1024), (6, 0, 2 / 64)])
def test_by_chance_is_the_exact_sign_test(only_a, only_b, chance):
    a, b = torch.zeros(30, dtype=torch.bool), torch.zeros(30, dtype=torch.bool)
    a[:only_a], b[only_a:only_a + only_b] = True, True
    assert by_chance(a, b) == pytest.approx(chance)


def test_what_to_label_first_is_the_same_each_time_and_keeps_copies_apart(small):
    images = small.data.images.clone()
    images[5] = images[9] = images[2]
    small.data.images[:] = images
    queue = small.first(8, 6)
    assert queue == small.first(8, 6) and sorted(queue.values()) == ["check"] * 6 + ["train"] * 8
    files = small.files
    assert not {files[2], files[5], files[9]} & {file for file, part in queue.items() if part == "check"}
    assert len({files[2], files[5], files[9]} & set(queue)) <= 1
    order = list(queue.values())
    assert order != sorted(order), "mixed"


def test_a_click_marks_the_picture_that_is_shown(small, folder):
    queue = small.first(5, 3)
    small.name_class("red")
    made = Labeling(small, queue)
    clicked = []
    made.new.value = "  dark   blue "
    made.add.click()
    names = [button.description for button in made.classes.children]
    assert names == ["red", "dark blue"] and made.new.value == ""
    for k in range(8):
        assert f'alt="{escape(made.file)}"' in made.picture.value
        clicked.append((made.file, names[k % 2], queue[made.file]))
        made.classes.children[k % 2].click()
    assert rows(folder) == clicked and [file for file, *_ in clicked] == list(queue)
    assert made.file is None and "all done" in made.said.value and made.picture.value == ""
    made.classes.children[0].click()
    assert rows(folder) == clicked, "a click beyond the last"
    made.back.click()
    assert made.file == clicked[-1][0] and rows(folder) == clicked[:-1]
    made.skip.click()
    assert rows(folder)[-1] == (clicked[-1][0], "", clicked[-1][2])
    again = Labeling(Photos(str(folder)), queue)
    assert again.file is None and [b.description for b in again.classes.children] == ["red", "dark blue"]
    y, truth = small.labels()
    assert (y >= 0).sum() + (truth >= 0).sum() == 7 and ((y >= 0) & (truth >= 0)).sum() == 0


def test_a_picture_that_is_gone_is_said_and_can_be_skipped(small, folder):
    queue = small.first(4, 0)
    (folder / list(queue)[1]).unlink()
    made = Labeling(small, queue)
    made.skip.click()
    assert "cannot be shown" in made.picture.value
    made.skip.click()
    assert made.file == list(queue)[2]


def test_a_click_that_cannot_be_written_says_so_and_stays(small, folder):
    small.name_class("red")
    made = Labeling(small, small.first(4, 0))
    made.classes.children[0].click()
    first, small.marks.path = made.file, folder / "gone" / NAME
    for button in (made.classes.children[0], made.back):
        button.click()
        assert "make the folder writable" in made.said.value and made.file == first and len(small.marks.by_file) == 1


def guesses(photos, label=0) -> PseudoLabels:
    n = len(photos.files)
    return PseudoLabels(torch.full((n,), label), torch.linspace(0.2, 0.9, n), {}, "x")


def test_a_page_of_guesses_is_kept_with_its_corrections(small, folder):
    for name in ("red", "blue"):
        small.name_class(name)
    small.marks.put({small.files[-1]: Mark("red", "train")})
    found = guesses(small)
    made = Reviewing(small, found)
    n = len(small.files)
    assert made.rows == list(range(n - 2, n - 2 - PAGE, -1)) and len(made.grid.children) == PAGE
    shown = [re.search('alt="(.*?)"', cell.children[0].value)[1] for cell in made.cells]
    assert shown[3] == small.files[made.rows[3]]
    made.cells[3].children[1].value = "blue"
    wrong = small.files[made.rows[3]]
    made.next.click()
    marks = Marks(folder).by_file
    assert len(marks) == PAGE + 1 and marks[wrong] == marks[wrong]._replace(label="blue", part="review", guess="red")
    assert reviewed(small).startswith(f"Looked at: {PAGE} guesses, 1 wrong (1% to 20%")
    assert len(made.grid.children) == n - PAGE - 1 and not made.next.disabled
    made.order.value = "least sure first"
    assert made.rows == list(range(n - PAGE - 1))
    made.only.value = "blue"
    assert made.rows == [] and made.next.disabled
    assert (small.labels()[0] >= 0).sum() == PAGE + 1, "what was looked at is learnt from"


def test_a_class_that_another_notebook_has_added_is_known(small, folder):
    small.name_class("red")
    Marks(folder).put({small.files[3]: Mark("green", "train")})
    small.marks.put({small.files[4]: Mark("red", "check")})
    y, truth = small.labels()
    assert small.classes == ["red", "green"] and y[3] == 1 and truth[4] == 0


def test_enough_says_what_to_do(small, capsys):
    assert not small.enough() and capsys.readouterr().out.startswith("label pictures of two classes")
    small.marks.put({small.files[0]: Mark("red", "train"), small.files[1]: Mark("blue", "train")})
    small.name_class("red"), small.name_class("blue"), small.name_class("green")
    assert small.enough() and "red has 1, blue has 1, green has none" in capsys.readouterr().out


def test_export_is_what_folder_reads(small, folder, tmp_path):
    for name in ("red", "blue"):
        small.name_class(name)
        own = [file for file in small.files if file.startswith(name)]
        small.marks.put({own[0]: Mark(name, "train"), own[1]: Mark(name, "check"), own[2]: Mark(name, "review", "x")})
    out = small.export(guesses(small, 1), tmp_path / "out")
    data = load(f"folder:{out}", size=16)
    assert data.classes == ("blue", "red") and torch.bincount(data.y[data.y >= 0]).tolist() == [2, 2]
    assert len(data.test_y) == 2 and (data.y < 0).sum() == len(small.files) - 6
    with open(out / "labels.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["file"] for row in table] == small.files and sum(row["by"] == "you" for row in table) == 6
    assert {row["label"] for row in table if row["by"] == "guess"} == {"blue"}
    with pytest.raises(InputError, match="holds something"):
        small.export(guesses(small), out)


def test_the_sheet_leaves_out_what_is_damaged(folder):
    assert Photos(str(folder)).sheet().alt == "30 of 31 pictures"


@pytest.mark.parametrize("words, message", [(("nowhere",), "there is no folder"), (("", "", "me"), "unknown labeler 'me'")])
def test_bad_input_is_a_sentence(words, message):
    with pytest.raises(InputError, match=message):
        Photos(*words)


def test_a_stand_in_labels_by_folder_and_its_marks_are_not_kept(folder, monkeypatch, capsys):
    photos = Photos(str(folder), labeler="demo")
    photos.data = load(f"pictures:{folder}", size=16, skip_bad_images=True)
    photos.files = photos.data.info["files"]
    label_pictures(photos, {photos.files[0]: "train", photos.files[-1]: "check"})
    assert photos.classes == ["blue", "red"] and not (folder / NAME).exists()
    review(photos, guesses(photos), demo=5)
    assert "Looked at: 5 guesses" in capsys.readouterr().out and len(to_review(photos, guesses(photos))) == len(photos.files) - 7
    assert Photos(str(folder)).labeler == "you", "a folder of somebody's own is never labelled by a stand-in unasked"
    assert Photos().labeler == "demo" and Photos("", "", "you").labeler == "you"


def test_the_tiles_are_two_photographs(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SSLKIT_CACHE", str(tmp_path))
    files = sorted(path.relative_to(sample_pictures()) for path in sample_pictures().rglob("*.jpg"))
    assert len(files) == 120 and {path.parts[:2] for path in files} == {(a, b) for a in ("train", "test") for b in ("flower", "temple")}
    monkeypatch.setenv("SSLKIT_DATA", str(tmp_path / "none"))
    data = photographs("cifar10", most=50, test=7)
    assert "Until then the live parts" in capsys.readouterr().out
    assert len(data.y) == 50 and len(data.test_y) == 7 and data.classes == ("flower", "temple")
    assert data.digest == photographs("cifar10", most=50, test=7).digest != photographs("cifar10", most=51, test=7).digest


def test_right_of_counts_the_rows_whose_truth_is_known(small):
    truth = torch.full((len(small.files),), -1)
    truth[:4] = torch.tensor([0, 0, 1, 0])
    assert right_of(guesses(small), truth).tolist() == [True, True, False, True]
    y = torch.tensor([int(file.startswith("red")) for file in small.files])
    some = torch.where(torch.arange(len(y)) % 5 == 0, y, -1)
    assert right_of(logistic(small.z, some), y).float().mean() > 0.9, "the labels are of these pictures, in this order"


def test_a_path_with_a_tilde(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert Photos("~/photos").folder == Path(os.path.expanduser("~/photos"))


@pytest.mark.parametrize("n", [1, 2, 3, 16])
def test_a_map_of_few_pictures_keeps_their_distances(n, runs):
    points = np.random.default_rng(0).normal(size=(n, 5)).astype(np.float32)
    points[:, 2:] = 0
    found = umap_map(points)
    apart = lambda x: np.linalg.norm(x[:, None] - x, axis=2)      # noqa: E731
    assert found.shape == (n, 2) and np.allclose(apart(found), apart(points), atol=1e-5)
