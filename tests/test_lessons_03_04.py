"""What lessons 03 and 04 say in words about saved tables and the paper, and the answers of their exercises that are
computed. The words do not follow a table that is measured again: then this fails, and somebody rewrites them."""
import csv
from importlib import resources
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch

from sslkit.lessons.session import kept

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def words(name):
    cells = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4).cells
    return " ".join(" ".join(cell.source for cell in cells if cell.cell_type == "markdown").split())


@pytest.fixture
def table():
    """Test accuracy and share kept, (alpha, t, seed), and the values of alpha and t."""
    rows = kept("simmatch_sweep")
    alphas, ts, seeds = (sorted({row[name] for row in rows}) for name in ("alpha", "t", "seed"))
    at = {(row["alpha"], row["t"], row["seed"]): row for row in rows}
    acc, share = (np.array([[[at[a, t, s][key] for s in seeds] for t in ts] for a in alphas])
                  for key in ("test_acc", "kept"))
    return acc, share, alphas, ts


def test_lesson_03_quotes_the_paper_as_its_tables_have_it():
    def paper(name):
        return list(csv.DictReader((resources.files("sslkit.papers") / f"simmatch_{name}.csv").open()))

    text = words("03_simmatch")
    mean = {(row["method"], row["dataset"], row["labels"]): row["mean"] for row in paper("table1")}
    many, few = ([mean[method, *cell] for method in ("SimMatch", "FixMatch(RA)")]
                 for cell in (("CIFAR-100", "400"), ("CIFAR-10", "4000")))
    assert "100 classes and four labels each (CIFAR-100) it has {}% right, and FixMatch {}%.".format(*many) in text
    assert "it is {}% against {}%.".format(*few) in text
    top1 = {row["variant"]: row["top1"] for row in paper("table5")}
    assert all(f"{top1[variant]}%" in text for variant in ("standard", "w/o p_hat", "w/o q_hat"))


def test_lesson_04_s_winner_loses_most_of_its_lead_and_its_three_seeds_decide_nothing(table):
    acc, _, alphas, ts = table
    lead, left = [], []
    for s in range(3):
        best = acc[:, :, s] == acc[:, :, s].max()
        lead.append(acc[:, :, s].max() - acc[:, :, s].mean())
        left.append(np.mean([acc[best][:, o].mean() - acc[:, :, o].mean() for o in range(3) if o != s]))
    assert np.mean(left) < 0.25 * np.mean(lead), "little of its lead was left"
    flat, rng = acc.reshape(-1, 3), np.random.default_rng(0)
    shuffled = np.array([rng.permuted(flat, axis=0).mean(1).max() for _ in range(500)])
    assert (shuffled >= flat.mean(1).max() - 1e-9).mean() > 0.1, "the winner may be luck"
    default = acc[alphas.index(0.9), ts.index(0.1)]
    gain = acc - default
    assert np.abs(gain.mean(2)).max() < default.std(ddof=1), "no setting differs by more than the seeds of one"
    assert max((gain > 0).all(2).sum(), (gain < 0).all(2).sum()) < 5, "no more than luck gives"
    apart = np.sqrt(gain[gain.any(2)].var(1, ddof=1).mean())
    assert 0.01 < 2 * apart / np.sqrt(3) < 0.02, "three seeds can show a difference of a point or two"


def test_lesson_04_s_corner_keeps_nothing_is_one_run_and_no_worse(table):
    acc, share, alphas, ts = table
    corner = ts.index(0.5), slice(alphas.index(0.8) + 1)
    assert not share[corner[1], corner[0]].any() and (np.delete(share, corner[0], 1) > 0.5).all()
    assert (acc[corner[1], corner[0]] == acc[0, corner[0]]).all() and acc[0, corner[0]].mean() > acc.mean() - 0.01


def test_lesson_04_s_fifth_seed_of_fixmatch_is_the_bad_one():
    five = [row["fixmatch"] for row in kept("kd_fixmatch_methods")]
    assert len(five) == 5 and np.argmin(five) == 4 and np.median(five) - min(five) > 0.05
    assert np.mean(five[:3]) - np.mean(five) > 0.01, "one bad seed changes a mean"


def test_the_answers_that_are_computed(table):
    from sslkit.lessons.exercises.lesson_03 import EXERCISES, half_of_the_album, turning_point
    from sslkit.lessons.exercises.lesson_04 import loss_of_the_winner

    assert turning_point(torch.tensor([0.8, 0.2]), torch.tensor([0.2, 0.8])) == pytest.approx(0.5, abs=0.002)
    assert turning_point(torch.tensor([0.8, 0.2]), torch.tensor([0.6, 0.4])) == "never"
    assert half_of_the_album(torch.zeros(20)) == 10 and half_of_the_album(torch.tensor([1.0, -1, -1]), t=0.1) == 1
    assert EXERCISES["03.2"].answer == pytest.approx(0.25 * 0.8 / (0.75 * 0.2 + 0.25 * 0.8))
    assert loss_of_the_winner(np.array([[[0.7, 0.9, 0.8], [0.6, 0.8, 0.6]]])) == pytest.approx(15)
    assert loss_of_the_winner(table[0]) > loss_of_the_winner(table[0], 0), "with seed 0 you would lose less"
