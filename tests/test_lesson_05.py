"""What lesson 05 says in words about saved tables and the paper, and the answers of its exercises."""
import csv
from importlib import resources
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch

from sslkit.labelers import cluster_classes
from sslkit.lessons.exercises.lesson_05 import EXERCISES, rarest, right_of_as_many
from sslkit.lessons.session import kept

CELLS = nbformat.read(Path(__file__).parents[1] / "notebooks" / "05_kd_fixmatch.ipynb", as_version=4).cells
WORDS = " ".join(" ".join(cell.source for cell in CELLS if cell.cell_type == "markdown").split())


def columns(name):
    rows = kept(name)
    return {column: np.array([row[column] for row in rows]) for column in rows[0]}


def test_it_quotes_the_paper_as_its_table_has_it():
    with (resources.files("sslkit.papers") / "kd_fixmatch_gains.csv").open() as file:
        gains = [float(row["gain_over_fixmatch_points"]) for row in csv.DictReader(file)]
    assert f"{min(gains):.1f} to {max(gains):.1f} points over FixMatch" in WORDS


def test_a_finished_network_has_many_good_labels_where_an_early_one_has_few_or_bad_ones():
    table = columns("kd_fixmatch_methods")
    assert (table["early_kept_share"] < 0.7).all() and (table["confident_share"] > 0.9).all()
    assert (table["confident_precision"] - table["early_as_many_precision"] > 0.05).all()
    assert (table["confident_share"] - table["trusted_share"] < 0.02).all(), "the clusters change little"
    assert table["kd_dec"].mean() <= table["fixmatch_twice"].mean(), "worth no more than the same steps"


def test_it_matters_which_labels_are_wrong():
    table = columns("kd_fixmatch_mistakes")
    assert (table["random"] > table["own"] + 0.05).all() and (table["true"] - table["random"]).mean() < 0.03
    assert (table["trusted_precision"] > table["own_precision"]).all()
    weak = columns("kd_fixmatch_methods")
    assert np.allclose(table["own"], weak["weak_none"], atol=0.02), "two tables of the same networks"


def test_photographs_change_the_mean_by_less_than_a_point():
    table = columns("features_kd_fixmatch_labels")
    for name in ("kd_dec", "fixmatch_twice"):
        change = table[name] - table["fixmatch"]
        assert all(abs(change[table["labels"] == n].mean()) < 0.01 for n in set(table["labels"]))


def test_k_means_of_the_exercise_ends_as_its_answer_says():
    points, ends = torch.tensor([[0.], [0], [4], [6], [6], [7]]), torch.tensor([[0.], [10]])
    found = cluster_classes(points, ends, torch.tensor([0, 1]), 2, clustering="kmeans")
    assert found.tolist() == [0, 0, 1, 1, 1, 1] and EXERCISES["05.2"].answer is False


def test_the_computed_answers():
    confidence, right = torch.tensor([.9, .8, .7, .6]), torch.tensor([True, False, True, True])
    trusted = torch.tensor([True, False, True, True])
    assert right_of_as_many(confidence, right, trusted) == pytest.approx(2 / 3)
    assert rarest(torch.tensor([0, 1, 1, -1, 2, -1]), 3) == [0, 2] and rarest(torch.tensor([1, -1]), 3) == [0, 2]
