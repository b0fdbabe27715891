"""sslkit label: files in, file out, and files that cannot be used."""
import csv
import json
import os
import stat
import struct
import threading
import time

import numpy as np
import pytest

from sslkit import cli
from sslkit.errors import InputError
from sslkit.labelers import LABELERS
from sslkit.labelers.from_files import label
from sslkit.labelers.hdl import hdl
from sslkit.labelers.tables import read_embeddings, read_labels

HDL = ("--labeler", "hdl")


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Three blobs of 300 rows in e.npy, the names of 12 in l.csv, in the working directory. Returns the true names."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 300)
    np.save("e.npy", (rng.normal(size=(3, 8))[truth] * 3 + rng.normal(size=(300, 8))).astype(np.float32))
    names = [("cat", "dog", "eel")[c] for c in truth]
    with open("l.csv", "w", encoding="utf-8-sig") as file:                  # as a spreadsheet writes it
        file.write("image,label\n")
        file.writelines(f"{i}.png,{name if i < 12 else ('', '-1', ' ')[i % 3]}\n" for i, name in enumerate(names))
    return names


def written(name="out.csv"):
    with open(name, newline="") as file:
        return list(csv.DictReader(file))


def test_hdl_labels_every_row(files, capsys):
    assert cli.main(["label", "e.npy", "l.csv", *HDL, "--k", "10", "--out", "o.csv"]) == 0
    rows = written("o.csv")
    assert set(rows[0]) == {"row", "label", "confidence", "layer", "order", "votes", "similarity"}
    assert [int(row["row"]) for row in rows] == list(range(300))
    assert np.mean([row["label"] == name for row, name in zip(rows, files)]) > 0.95
    given = [(row["label"], row["order"], row["similarity"]) for row in rows[:12]]
    assert given == [(name, "0", "") for name in files[:12]]
    found = hdl(read_embeddings("e.npy")[0], read_labels("l.csv")[0], k=10)
    for name in ("layer", "order", "votes"):
        assert [int(row[name]) for row in rows] == found.rows[name].tolist()
    similarity = [float(row["similarity"]) for row in rows[12:]]
    assert similarity == pytest.approx(found.rows["similarity"][12:].tolist(), abs=1e-5)
    out, err = capsys.readouterr()
    assert "k 10," in out and "o.csv" in out and "labelled: 288 of 288" in err


def test_auto_shows_the_curve_and_json_is_one_line(files, capsys):
    assert cli.main(["label", "e.npy", "l.csv", *HDL, "--mode", "exact", "--metric", "euclidean"]) == 0
    out = capsys.readouterr().out
    assert out.count("of the hidden labels found") == 6 and "(chosen)" in out and "out.csv" in out
    assert cli.main(["label", "e.npy", "l.csv", *HDL, "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert set(info) == {"k", "mode", "metric", "rounds", "copied", "curve", "delta", "growth", "labeler", "choice", "why"}
    assert info["mode"] == "layer" and info["choice"] == []


@pytest.mark.parametrize("name", ["logistic", "nearest", "spreading"])
def test_a_labeler_by_its_name(name, files, capsys):
    assert cli.main(["label", "e.npy", "l.csv", "--labeler", name]) == 0
    rows, found = written(), LABELERS[name](read_embeddings("e.npy")[0], read_labels("l.csv")[0])
    assert list(rows[0]) == ["row", "label", "confidence"]
    assert [row["label"] for row in rows] == [("cat", "dog", "eel")[c] for c in found.label]
    assert [float(row["confidence"]) for row in rows] == pytest.approx(found.weight.tolist(), abs=1e-5)
    assert np.mean([row["label"] == name for row, name in zip(rows, files)]) > 0.9
    assert f"labels by {name}: out.csv" in capsys.readouterr().out


def test_auto_shows_what_each_labeler_found(files, capsys):
    assert cli.main(["label", "e.npy", "l.csv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == "labeler hidden labels found behind the best".split()
    assert [line.split()[0] for line in lines[1:5]] == list(LABELERS) and "hidden labels" in lines[5]
    assert cli.main(["label", "e.npy", "l.csv", "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert lines[-1] == f"labels by {info['labeler']}: out.csv" and info["why"] == lines[5]
    assert [f"{row['found']:.1%}" for row in info["choice"]] == [line.split()[1] for line in lines[1:5]]


def test_a_class_that_floods_others_is_said_of_every_labeler(files, capsys):
    np.save("e.npy", np.concatenate([np.random.default_rng(0).normal(size=(1, 8)).repeat(11, 0), -np.load("e.npy")[11:12].repeat(289, 0)]))
    for name in LABELERS:
        assert cli.main(["label", "e.npy", "l.csv", "--labeler", name]) == 0
        assert f"class {files[11]} grew most" in (out := capsys.readouterr().out) and "it may have flooded others" in out


def test_numbers_keep_their_order_and_a_gap_is_noted(files, capsys):
    with open("n.csv", "w") as file:
        file.write("label\n" + "\n".join(["10", "2", "2", "0"] + ["-1"] * 296) + "\n")
    y, names, _ = read_labels("n.csv")
    assert names == ["0", "2", "10"] and y[:5].tolist() == [2, 1, 1, 0, -1] and len(y) == 300
    assert "no row of n.csv has label 1, 3, 4, 5, 6, 7, 8, 9" in capsys.readouterr().err


@pytest.mark.parametrize("words, classes, names", [
    ("1 -1.0 nan NaN  -1 2", [0, -1, -1, -1, -1, -1, 1], ["1", "2"]),       # as pandas writes a column with gaps
    ("1.0 2.0 10.0 nan", [0, 1, 2, -1], ["1", "2", "10"]),
    ("01 1 1.0 1. +1 2", [0, 0, 0, 0, 0, 1], ["1", "2"]),                   # one number, one class
    ("01 1 1.0 cat -1.0 nan", [0, 1, 2, 3, -1, -1], ["01", "1", "1.0", "cat"]),      # a word: all are words
    ("1.5 1 2", [1, 0, 2], ["1", "1.5", "2"]),
    ("-5 3 -1", [0, 1, -1], ["-5", "3"]),
    ("5 " + "9" * 5000, [0, 1], ["5", "9" * 5000]),                         # no number: longer than Python will read
    ("", [-1], [])], ids=["gaps", "floats", "zeros", "words", "fractions", "negative", "huge", "none"])
def test_labels_in_a_file(words, classes, names, tmp_path):
    file = tmp_path / "l.csv"
    file.write_text("i,label\n" + "".join(f"{i},{word}\n" for i, word in enumerate(words.split(" "))))
    y, found, _ = read_labels(file)
    assert y.tolist() == classes and found == names


def test_a_class_number_near_a_billion_takes_no_time(tmp_path, capsys):
    (tmp_path / "l.csv").write_text("label\n0\n2\n999999999\n")
    begin = time.monotonic()
    assert read_labels(tmp_path / "l.csv")[1] == ["0", "2", "999999999"] and time.monotonic() - begin < 2
    assert "label 1, 3, 4, 5, 6, 7, 8, 9, ...: no row" in capsys.readouterr().err


def test_out_is_written_through_a_link(files):
    os.mkdir("elsewhere")
    os.symlink("elsewhere/o.csv", "link.csv")
    for _ in range(2):                                                      # a file to be made, a file to be replaced
        assert cli.main(["label", "e.npy", "l.csv", *HDL, "--k", "3", "--out", "link.csv"]) == 0
        assert os.readlink("link.csv") == "elsewhere/o.csv" and len(open("elsewhere/o.csv").readlines()) == 301
        open("elsewhere/o.csv", "w").close()


def test_out_replaces_no_pipe_and_no_device(files, capsys):
    os.mkfifo("pipe")
    os.symlink("pipe", "link.csv")
    ends = os.openpty()
    device = os.ttyname(ends[1])
    for name in ("pipe", "link.csv", device):
        assert cli.main(["label", "e.npy", "l.csv", *HDL, "--k", "3", "--out", name]) == 2
        assert f"{name} is a folder, a pipe or a device: try another --out" in capsys.readouterr().err
    assert stat.S_ISFIFO(os.stat("pipe").st_mode) and stat.S_ISCHR(os.stat(device).st_mode)
    assert os.path.islink("link.csv")
    for end in ends:
        os.close(end)


@pytest.mark.parametrize("which", [0, 1])
def test_a_pipe_is_refused_without_waiting_for_it(which, files, capsys):
    os.mkfifo("pipe")
    writer = threading.Thread(target=lambda: open("pipe", "wb").close(), daemon=True)
    writer.start()                                                          # or a failing test would wait
    words = ["e.npy", "l.csv"]
    words[which] = "pipe"
    assert cli.main(["label", *words]) == 2
    message = "there is no file pipe: it is a folder, a pipe or a device; copy its content into a file"
    assert message in capsys.readouterr().err
    end = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)                      # lets the writer go
    writer.join()
    os.close(end)


def test_paths_that_no_disk_or_screen_can_take(files, capsys):
    odd = os.fsdecode(b"\xffe.npy")
    os.rename("e.npy", odd)
    assert cli.main(["label", odd, "l.csv", *HDL, "--k", "3"]) == 0               # it is never shown
    with pytest.raises(InputError, match="not in UTF-8: try another --out"):
        label(odd, "l.csv", out=os.fsdecode(b"\xffo.csv"))
    with pytest.raises(InputError, match="there is no file"):
        label("a\0b", "l.csv")
    assert sorted(os.listdir()) == ["l.csv", "out.csv", odd]


def made(folder, rows=300):
    """The table e.npy as `sslkit embed` leaves it in a folder, of files 0.png, 1.png ..."""
    os.mkdir(folder)
    np.save(f"{folder}/plain.npy", np.load("e.npy").astype(np.float16))
    with open(f"{folder}/files.csv", "w") as file:
        file.write("file\n" + "".join(f"{i}.png\n" for i in range(rows)))


def test_rows_by_the_names_of_their_files(files, capsys):
    made("made")
    with open("named.csv", "w") as file:
        file.write("label,file\n" + "".join(f"{files[i]},{i}.png\n" for i in (7, 7, 1, 0, 3, 9, 2, 11, 5)))
    words = [["made", "named.csv"], ["made", "l.csv"], ["e.npy", "l.csv"]]
    with open("l.csv") as file:
        text = file.read().replace("image,", "file,")
    with open("l.csv", "w") as file:
        file.write(text)
    for pair in words:
        assert cli.main(["label", *pair, "--labeler", "nearest"]) == 0
        rows = written()
        assert list(rows[0]) == ["row", "file", "label", "confidence"]
        assert [row["file"] for row in rows] == [f"{i}.png" for i in range(300)]
        assert all(rows[i]["label"] == files[i] for i in (7, 1, 0, 3, 9, 2, 11, 5))
        assert np.mean([row["label"] == name for row, name in zip(rows, files)]) > 0.9


def break_files():
    np.save("short.npy", np.zeros((5, 3)))
    np.save("flat.npy", np.zeros(300))
    np.save("words.npy", np.array([["a"]] * 300))
    np.savez("two.npz", a=np.zeros((300, 2)), b=np.zeros(3))
    bad = np.load("e.npy")
    bad[7, 2] = np.nan
    np.save("nan.npy", bad)
    bad[7] = 0
    np.save("zero.npy", bad)
    with open("none.csv", "w") as file:
        file.write("label\n" + "-1\n" * 300)
    with open("head.csv", "w") as file:
        file.write("name,class\n" + "a,b\n" * 300)
    with open("twice.csv", "w") as file:
        file.write("label,image,label\n" + "0,a,1\n" * 300)
    for name, shape in (("vast.npy", "(100000000000, 256)"), ("long.npy", f"({2**70}, 2)")):
        header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
        with open(name, "wb") as file:
            file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"0" * 64)
    with open("zip.npy", "wb") as file:
        file.write(b"PK\x03\x04, the first bytes of an archive")
    for name, text in (("one", "label\n" + "cat\n" * 20 + "-1\n" * 280), ("unknown", "file,label\nx.png,cat\n0.png,dog\ny.png,cat"),
                       ("two", "file,label\n3.png,cat\n3.png,\n3.png,dog\n4.png,dog\n"), ("short", "label\ncat\n"),
                       ("files", "file,label,file\na,cat,b\n")):
        with open(f"{name}.csv", "w") as file:
            file.write(text)
    os.mkdir("folder")
    made("made")
    made("cut", rows=299)
    with open("cut.npy", "wb") as file:
        file.write(open("e.npy", "rb").read()[:500])


@pytest.mark.parametrize("words, message", [
    (["no.npy", "l.csv"], "there is no file no.npy"), (["e.npy", "no.csv"], "there is no file no.csv"),
    (["l.csv", "l.csv"], "l.csv is no .npy file"), (["e.npy", "e.npy"], "e.npy"),
    (["cut.npy", "l.csv"], "cut.npy is no .npy file"),
    (["short.npy", "l.csv"], "short.npy has 5 rows, l.csv 300"), (["flat.npy", "l.csv"], "a row for each image"),
    (["words.npy", "l.csv"], "not real numbers"), (["two.npz", "l.csv"], "several tables"),
    (["nan.npy", "l.csv"], "the first in row 7"),
    (["zero.npy", "l.csv", *HDL], "row 7 is a zero vector"), (["e.npy", "none.csv"], "no row has a label"),
    (["e.npy", "head.csv"], "no column `label`"), (["e.npy", "l.csv", *HDL, "--k", "300"], "only 299 others"),
    (["e.npy", "l.csv", *HDL, "--k", "x"], "k is 'x'"), (["e.npy", "l.csv", *HDL, "--k", "0"], "k is 0"),
    (["e.npy", "l.csv", "--k", "5"], "--k belongs to hdl: add --labeler hdl"),
    (["e.npy", "l.csv", "--labeler", "nearest", "--mode", "exact"], "--mode belongs to hdl"),
    (["e.npy", "l.csv", "--metric", "euclidean"], "--metric belongs to hdl"),
    (["e.npy", "l.csv", "--labeler", "logistik"], "unknown labeler 'logistik': did you mean 'logistic'"),
    (["e.npy", "one.csv"], "all labels are of one class"), (["e.npy", "one.csv", "--labeler", "logistic"], "of one class"),
    (["made", "unknown.csv"], "2 files of unknown.csv have no embedding: x.png, y.png; write their names as files.csv"),
    (["made", "two.csv"], "two.csv gives 3.png two labels, cat and dog"), (["made", "short.csv"], "made has 300 rows, short.csv 1"),
    (["cut", "l.csv"], "cut has 300 embeddings of 299 files: run `sslkit embed` again"),
    (["e.npy", "files.csv"], "several columns `file`"),
    (["e.npy", "l.csv", "--mode", "exac"], "did you mean 'exact'"),
    (["e.npy", "l.csv", "--metrc", "cosine"], "did you mean --metric"),
    (["vast.npy", "l.csv"], "vast.npy is no .npy file of numbers, or does not fit into memory"),
    (["long.npy", "l.csv"], "long.npy"),
    (["zip.npy", "l.csv"], "zip.npy is no .npy file"), (["folder", "l.csv"], "folder is a folder without files.csv"),
    (["e.npy", "."], "it is a folder"),
    (["e.npy", "twice.csv"], "twice.csv has several columns `label`"), (["a" * 400, "l.csv"], "there is no file aaa"),
    (["e.npy", "l.csv", "--out", "a" * 400], "File name too long"),
    (["e.npy", "l.csv", "--out", "e.npy/o"], "there is no folder"),
    (["e.npy", "l.csv", "--out", "."], "is a folder"), (["e.npy", "l.csv", "--out", "nowhere/o.csv"], "nowhere")])
def test_what_cannot_be_used_is_refused_in_a_sentence(words, message, files, capsys):
    break_files()
    try:
        code = cli.main(["label", *words])
    except SystemExit as stop:
        code = stop.code
    said = capsys.readouterr().err.splitlines()
    assert code == 2 and message in "".join(said) and not any("Traceback" in line for line in said)
