"""Lesson 09, the family: the tree, the changes from a parent to its child, the studies of all methods."""
import re

import pytest
import torch

from sslkit import Config, load, methods, split
from sslkit.batch.lesson_page import harmless
from sslkit.lessons import Changes, plots
from sslkit.lessons.studies import family


def test_the_tree_has_every_method_that_trains_alone_under_a_parent():
    drawn, names = plots.tree(), {kind.__name__ for kind in methods.ALL if kind.standalone}
    assert set(plots.TREE) == names and {node.parent for node in plots.TREE.values()} <= names | {""}
    assert all(name in drawn.svg and f"{name}, from {node.parent}" in drawn.alt or not node.parent
               for name, node in plots.TREE.items())
    places = sorted((node.column, node.row) for node in plots.TREE.values())
    assert all(a[0] != b[0] or b[1] - a[1] >= 1 for a, b in zip(places, places[1:])), "boxes of a column overlap"


def test_changes_are_the_lines_of_both_losses_and_survive_the_page():
    found = Changes(methods.PiModel, methods.MeanTeacher, "another target")
    assert [row for row in found.rows if row[0] in "+-"] == [
        '-     (target,) = nets(first, grad=False, bn="batch")',
        "+     (target,) = nets(first, teacher=True, grad=False)"]
    page = harmless(found._repr_html_())
    assert page.startswith("<details><summary>") and "background-color:rgba" in page.replace(": ", ":") and "white-space" in page
    assert re.sub("<[^>]*>", "", page).count("(target,)") == 2
    assert "<details open>" in Changes(methods.PiModel, methods.VAT, "", unfolded=True)._repr_html_()


@pytest.fixture(scope="module")
def moment():
    data = split(load("digits"), 20, 1)
    return data, *family.same_moment(data, Config(seed=1, batch_size=8, mu=3), 12)


def test_at_the_same_moment_every_method_answers_for_every_image(moment):
    data, labels, kept = moment
    assert set(labels) == {kind.__name__ for kind in methods.ALL if kind.standalone and kind.views}
    assert all(part.shape == (data.num_unlabeled,) for found in (labels, kept) for part in found.values())
    assert torch.equal(labels["FixMatch"], labels["PseudoLabel"]), "the same network and view"
    assert not torch.equal(labels["FixMatch"], labels["MeanTeacher"]) and kept["PiModel"].all()
    assert (kept["UDA"] >= kept["FixMatch"]).all(), "0.8 keeps what 0.95 keeps"


def test_those_beside_it_change_nothing_of_its_training():
    from sslkit.training import Machine, train
    data, config = split(load("digits"), 20, 1), Config(seed=1, batch_size=8, mu=2, steps=6)

    def weights(others):
        class Same(family.Beside):
            pass
        return list(train(Same(others), data, config, Machine("cpu", 1)))[-1].state()["student"]

    alone, watched = weights({}), weights(family.standalone(family.DIGITS))
    assert all(torch.equal(value, watched[name]) for name, value in alone.items())


def test_random_projections_keep_all_cosines_where_the_head_is_as_wide():
    beside = family.Beside({"SimMatch": methods.SimMatch(), "CoMatch": methods.CoMatch()})
    beside.setup(methods.base.Spec(10, 64, torch.arange(20) % 10, 100, 8, 2, 10))
    feat = torch.randn(9, 64)
    for ways in beside.rotations.values():
        turned = feat @ ways["emb"]
        assert torch.allclose(turned @ turned.T, feat @ feat.T, atol=1e-3)


def test_hardships_change_what_they_say(monkeypatch):
    seen = {}

    class Done:
        result = {"test_acc": 0.5, "test_acc_class": [0.9] * 3 + [0.0] * 4 + [0.3] * 3}

    monkeypatch.setattr(family, "fit_all", lambda jobs: seen.update(jobs) or {key: Done for key in jobs})
    rows = family.hardships(40, [1], 10)
    assert len(rows) == 4 * 13 and all((row["rare_acc"], row["common_acc"]) == pytest.approx((0.3, 0.9)) for row in rows)
    usual, wrong, few, skewed = (seen[name, "FixMatch", 1][1] for name in dict.fromkeys(key[0] for key in seen))
    assert (usual.y != wrong.y).sum() == 1 and usual.y[wrong.labeled[0]] != wrong.y[wrong.labeled[0]]
    assert usual.hash != wrong.hash and torch.equal(usual.labeled, wrong.labeled)
    assert few.num_unlabeled == skewed.num_unlabeled == 240
    balanced, tail = few.counts()[1], skewed.counts()[1]
    assert max(balanced) == min(balanced) and max(tail) - 4 >= 15 * (min(tail) - 4) and few.counts()[0] == skewed.counts()[0]


def test_equal_seconds_gives_a_slower_method_fewer_steps(monkeypatch):
    seen = {}

    class Done:
        result = {"test_acc": 0.5}

    monkeypatch.setattr(family, "costs", lambda methods, data, config: {name: 2.0 if name == "VAT" else 1.0 for name in methods})
    monkeypatch.setattr(family, "fit_all", lambda jobs: seen.update(jobs) or {key: Done for key in jobs})
    rows = {row["method"]: row for row in family.equal_seconds(20, [0], 2000)}
    assert rows["FixMatch"]["steps"] == 2000 and rows["VAT"]["steps"] == 1000 == seen["VAT", 0][2].steps


def test_costs_are_measured_in_steps_of_fixmatch(monkeypatch):
    """With a clock of our own: a step of FixMatch takes 2 seconds, one of Supervised 1."""
    data, now = split(load("digits"), 20, 0), [0.0]

    def step(method, *parts):
        now[0] += 2.0 if isinstance(method, methods.FixMatch) else 1.0
        return {"loss": torch.zeros(())}

    monkeypatch.setattr(family, "take_step", step)
    monkeypatch.setattr(family, "time", type("Clock", (), {"perf_counter": lambda: now[0]}))
    found = family.costs({"Supervised": methods.Supervised(), "FixMatch": methods.FixMatch()}, data, Config(steps=50), 5)
    assert found == {"Supervised": 0.5, "FixMatch": 1.0}


def test_dots_show_every_seed_of_every_name():
    values = {"A": [0.5, 0.7], "B": [0.9, 0.9, 0.6]}
    figure = plots.dots({"first": values, "second": values}, title="right")
    left, right = figure.axes
    drawn = [line.get_xdata().tolist() for line in right.lines if line.get_marker() == "o"]
    assert drawn == [[0.5, 0.7], [0.9, 0.9, 0.6]] and left.get_yticklabels()[1].get_text() == "B"
    assert figure.alt == "right, means: first: A 60%, B 80%; second: A 60%, B 80%"
    assert "A +60.0" in plots.dots({"": values}, points=True).alt


def test_heat_takes_names():
    figure = plots.heat([[0.1, 0.9]], ["FixMatch"], ["used", "right of used"], ylabel="", xlabel="")
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["used", "right of used"]
    assert "FixMatch" in figure.alt
