"""sslkit label: files in, file out, and files that cannot be used."""
import csv
import json

import numpy as np
import pytest

from sslkit import cli
from sslkit.labelers.from_files import COLUMNS, read_embeddings, read_labels
from sslkit.labelers.hdl import hdl


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Three blobs of 300 rows in e.npy, the names of 12 in l.csv; the working directory is theirs. Returns the true names."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 300)
    np.save("e.npy", (rng.normal(size=(3, 8))[truth] * 3 + rng.normal(size=(300, 8))).astype(np.float32))
    names = [("cat", "dog", "eel")[c] for c in truth]
    with open("l.csv", "w", encoding="utf-8-sig") as file:                  # as a spreadsheet writes it
        file.write("image,label\n" + "".join(f"{i}.png,{name if i < 12 else ('', '-1', ' ')[i % 3]}\n" for i, name in enumerate(names)))
    return names


def test_every_row_gets_a_label(files, capsys):
    assert cli.main(["label", "e.npy", "l.csv", "--k", "10", "--out", "o.csv"]) == 0
    with open("o.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS and [int(row["row"]) for row in rows] == list(range(300))
    assert np.mean([row["label"] == name for row, name in zip(rows, files)]) > 0.95
    assert all(row["label"] == name and row["order"] == "0" and row["similarity"] == "" for row, name in zip(rows[:12], files))
    found = hdl(read_embeddings("e.npy"), read_labels("l.csv")[0], k=10)
    for name in ("layer", "order", "votes"):
        assert [int(row[name]) for row in rows] == found.rows[name].tolist()
    assert [float(row["similarity"]) for row in rows[12:]] == pytest.approx(found.rows["similarity"][12:].tolist(), abs=1e-5)
    out, err = capsys.readouterr()
    assert "k 10," in out and "o.csv" in out and "labelled: 288 of 288" in err


def test_auto_shows_the_curve_and_json_is_one_line(files, capsys):
    assert cli.main(["label", "e.npy", "l.csv", "--mode", "exact", "--metric", "euclidean"]) == 0
    out = capsys.readouterr().out
    assert out.count("of the hidden labels found") == 6 and "(chosen)" in out and "out.csv" in out
    assert cli.main(["label", "e.npy", "l.csv", "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert set(info) == {"k", "mode", "metric", "rounds", "copied", "curve", "delta", "growth"} and info["mode"] == "layer"


def test_numbers_keep_their_order_and_a_gap_is_noted(files, capsys):
    with open("n.csv", "w") as file:
        file.write("label\n" + "\n".join(["10", "2", "2", "0"] + ["-1"] * 296) + "\n")
    y, names = read_labels("n.csv")
    assert names == ["0", "2", "10"] and y[:5].tolist() == [2, 1, 1, 0, -1] and len(y) == 300
    assert "no row of n.csv has label 1, 3, 4, 5, 6, 7, 8, 9" in capsys.readouterr().err


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
    with open("cut.npy", "wb") as file:
        file.write(open("e.npy", "rb").read()[:500])


@pytest.mark.parametrize("words, message", [
    (["no.npy", "l.csv"], "there is no file no.npy"), (["e.npy", "no.csv"], "there is no file no.csv"),
    (["l.csv", "l.csv"], "l.csv is no .npy file"), (["e.npy", "e.npy"], "e.npy"), (["cut.npy", "l.csv"], "cut.npy is no .npy file"),
    (["short.npy", "l.csv"], "short.npy has 5 rows, l.csv 300"), (["flat.npy", "l.csv"], "a row for each image"),
    (["words.npy", "l.csv"], "not real numbers"), (["two.npz", "l.csv"], "several tables"), (["nan.npy", "l.csv"], "the first in row 7"),
    (["zero.npy", "l.csv"], "row 7 is a zero vector"), (["e.npy", "none.csv"], "no row has a label"),
    (["e.npy", "head.csv"], "no column `label`"), (["e.npy", "l.csv", "--k", "300"], "only 299 others"),
    (["e.npy", "l.csv", "--k", "x"], "k is 'x'"), (["e.npy", "l.csv", "--k", "0"], "k is 0"),
    (["e.npy", "l.csv", "--mode", "exac"], "did you mean 'exact'"), (["e.npy", "l.csv", "--metrc", "cosine"], "did you mean --metric"),
    (["e.npy", "l.csv", "--out", "."], "is a folder"), (["e.npy", "l.csv", "--out", "nowhere/o.csv"], "nowhere")])
def test_what_cannot_be_used_is_refused_in_a_sentence(words, message, files, capsys):
    break_files()
    try:
        code = cli.main(["label", *words])
    except SystemExit as stop:
        code = stop.code
    said = capsys.readouterr().err.splitlines()
    assert code == 2 and message in "".join(said) and not any("Traceback" in line for line in said)
