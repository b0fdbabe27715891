"""What lesson 06 says in words about its spirals and its saved tables, and the answer of its exercise that is computed.
The words do not follow a table that is measured again: then this fails, and somebody rewrites them."""
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch

from sslkit.labelers import hdl, one_shot
from sslkit.lessons.session import kept

LESSON = Path(__file__).parents[1] / "notebooks" / "06_hdl.ipynb"


def test_on_the_spirals_ten_neighbours_find_all_and_twenty_flood():
    cell = next(cell.source for cell in nbformat.read(LESSON, as_version=4).cells if "def spirals" in cell.source)
    names = {"np": np, "torch": torch}
    exec(cell[:cell.index("points, arm, marks")], names)
    points, arm, marks = names["spirals"]()

    def right(found):
        return (found.label == arm).float().mean()

    many = hdl(points, marks, k=20, metric="euclidean")
    assert right(hdl(points, marks, k=10, metric="euclidean")) == 1 and right(many) < 0.52
    assert right(one_shot(points, marks, k=1, metric="euclidean")) < 0.7
    order, wrong = many.rows["order"], many.label != arm
    first = order[wrong].min()
    assert first > order.max() / 2, "for more than half of the rounds not one label is wrong"
    assert (order[arm == 0] < first).all(), "then arm A is full"
    crossing = wrong & (order == first)
    assert many.rows["votes"][crossing].equal(many.rows["layer"][crossing]), "the vote is unanimous"


@pytest.fixture
def column():
    def of(table, name, imbalance=1):
        return np.array([row[name] for row in kept(table) if row["imbalance"] == imbalance], float)

    return of


def test_on_digits_the_nearest_labelled_image_wins_where_the_lesson_says_so(column):
    for part, imbalance in (("tail", 20), ("50", 1), ("50", 20)):
        nearest, *others = (column("hdl_gains", f"{name}_{part}", imbalance).mean() for name in ("nearest", "own", "hdl"))
        assert nearest > max(others) + 0.004
    for imbalance in (1, 20):
        means = [column("hdl_gains", f"{name}_100", imbalance).mean() for name in ("nearest", "own", "hdl")]
        assert max(means) - min(means) < 0.01, "of all labels the three have nearly the same share right"
        assert np.mean(column("hdl_gains", "k", imbalance) == 1) > 0.8, "nearly always k 1"


def test_hdl_s_labels_are_worth_the_control_s_on_digits_and_less_on_photographs(column):
    for imbalance in (1, 20):
        merit = column("hdl_gains", "acc_hdl", imbalance) - column("hdl_gains", "acc_control", imbalance)
        assert abs(merit.mean()) < 0.005 and min((merit > 0).sum(), (merit < 0).sum()) >= 7, "the lines go both ways"
    longer = column("hdl_gains", "acc_control", 20) - column("hdl_gains", "acc_base", 20)
    assert 0.005 < longer.mean() < 0.02, "with the long tail, training longer helps a little"
    worse = column("features_hdl_gains", "acc_hdl") - column("features_hdl_gains", "acc_control")
    methods = np.array([row["method"] for row in kept("features_hdl_gains")])
    assert all(worse[methods == method].mean() < -0.01 for method in methods) and len(set(methods)) == 4


def test_the_round_of_the_flood():
    from sslkit.lessons.exercises.lesson_06 import first_flood

    ratio = torch.tensor([[0.1, 0.1], [1.5, 0.2], [1.4, 1.6], [2.0, 1.0]])
    assert first_flood(ratio) == 2 and first_flood(ratio[:2]) == 0
