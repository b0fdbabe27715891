"""The tables that lessons keep: what they measure is what the runs measured, and nothing is trained twice."""
import inspect

import pytest
import torch

from sslkit import studies
from sslkit.data.sources import load
from sslkit.data.split import split
from sslkit.methods import FixMatch, MixMatch
from sslkit.records import PseudoLabels
from sslkit.training.config import Config
from sslkit.training.loop import predict
from sslkit.training.recipes import hdl_on
from sslkit.training.run import fit


def test_early_labels_are_those_that_the_run_itself_saw(runs, digits):
    config = Config(steps=60, eval_every=10, batch_size=8, mu=2)
    run = fit(FixMatch(), digits, config)
    confidence, right = studies.kd_fixmatch.early(digits, config, 30)
    kept, first = confidence >= 0.95, run.metrics[:3]
    assert len(confidence) == 30 * 16
    assert kept.float().mean().item() == pytest.approx(sum(m["mask_rate"] for m in first) / 3, abs=1e-6)
    assert right.float().mean().item() == pytest.approx(sum(m["pseudo_label_acc_all"] for m in first) / 3, abs=1e-6)


def test_a_weak_outer_network_is_the_teacher_at_that_step(runs, digits):
    config = Config(steps=30, eval_every=10, batch_size=8, mu=2)
    p, features = studies.weak_outer(digits, config, 30)
    expected = predict(fit(FixMatch(), digits, config).network(), digits.images, digits)
    assert torch.allclose(p, expected[0], atol=1e-5) and torch.allclose(features, expected[1], atol=1e-4)


@pytest.mark.parametrize("rate", [0, 0.1, 0.4, 1])
def test_noise_changes_that_share_of_the_labels_into_other_classes(rate):
    label = torch.where(torch.arange(600) % 3 == 0, -1, torch.arange(600) % 10)
    noisy = studies.kd_fixmatch.noisy(PseudoLabels(label, torch.ones(600), {}, "x"), rate, 10, 5).label
    assert int((noisy != label).sum()) == round(rate * 400) and torch.equal(noisy < 0, label < 0) and noisy.max() < 10
    assert torch.equal(noisy, studies.kd_fixmatch.noisy(PseudoLabels(label, torch.ones(600), {}, "x"), rate, 10, 5).label)


def test_as_many_rows_by_confidence():
    confidence, right = torch.tensor([0.2, 0.9, 0.8, 0.5]), torch.tensor([True, True, False, False])
    assert studies.kd_fixmatch.top(confidence, right, 0.25) == 1 and studies.kd_fixmatch.top(confidence, right, 1) == 0.5


def test_random_mistakes_are_as_many_as_the_network_makes_and_on_the_same_images(monkeypatch):
    data = split(load("digits"), 20, 3)
    n, row = len(data.y), torch.arange(len(data.y))
    says = torch.where(row % 4 == 0, 9, data.y)                            # a habit: every fourth image is a 9
    p = torch.full((n, 10), 0.1).where((row % 3 == 0)[:, None], torch.nn.functional.one_hot(says, 10) * 0.9 + 0.01)
    monkeypatch.setattr(studies.kd_fixmatch, "weak_outer", lambda data, config, until: (p, torch.eye(10)[data.y]))
    monkeypatch.setattr(studies.kd_fixmatch, "with_accuracies", lambda plan: plan)
    ((row, jobs),) = studies.STUDIES["kd_fixmatch_mistakes"](20, [3], 12)
    own, scattered, true, agreed = (jobs[k][1].pseudo for k in ("own", "random", "true", "trusted"))
    given, wrong = own >= 0, (own >= 0) & (own != data.y)
    assert given.any() and torch.equal(given, scattered >= 0) and torch.equal(true, data.y.where(given, -1))
    assert int((scattered != true).sum()) == int(wrong.sum()) > 0 and set(own[wrong].tolist()) == {9}
    assert len(set(scattered[scattered != true].tolist())) == 10, "the wrong labels are of all classes"
    assert torch.equal(agreed >= 0, given & ~wrong), "these features know the truth, so the clusters do"
    assert row["own_precision"] < 1 == row["trusted_precision"] and jobs["fixmatch"][1].pseudo is None


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A store for all studies: they have runs in common."""
    return str(tmp_path_factory.mktemp("studies"))


SMALL = {"fixmatch_parts": ({}, 5), "fixmatch_strength": ({"magnitudes": (0, 0.5)}, 2), "methods": ({"amounts": (20, 40)}, 26), "thresholds": ({"taus": (0.5,)}, 4), "simmatch_sweep": ({"alphas": (0.5, 1.0), "ts": (0.1,)}, 2), "kd_fixmatch_methods": ({}, 1),
         "kd_fixmatch_noise": ({"rates": (0, 0.4)}, 2), "kd_fixmatch_labels": ({}, 4),
         "kd_fixmatch_mistakes": ({}, 1), "kd_fixmatch_clusterings": ({}, 5),
         "kd_fixmatch_thresholds": ({"selects": (0.8, 0.95), "taus": (0.8, 0.95)}, 4), "hdl_gains": ({"imbalances": (20,)}, 5),
         "hdl_evaluations": ({}, 12), "hardships": ({}, 52), "equal_seconds": ({}, 13)}
OTHERS = {"kd_fixmatch_encoders"}                   # of features, see test_embed


@pytest.mark.parametrize("study", SMALL)
def test_a_study_is_a_table_and_trains_nothing_twice(study, shared, monkeypatch, capsys):
    grid, count = SMALL[study]
    monkeypatch.setenv("SSLKIT_RUNS", shared)
    if study == "hdl_evaluations":
        monkeypatch.setattr(studies.hdl, "HDL_BASES", (MixMatch, FixMatch))     # it labels at every evaluation: 3 s a method
    if study == "equal_seconds":                                           # measured anew each time
        monkeypatch.setattr(studies.family, "costs", lambda methods, data, config: dict.fromkeys(methods, 1.0))
    rows = studies.STUDIES[study](20, [3], 12, **grid)
    assert len({tuple(row) for row in rows}) == 1 and all(row["seed"] == 3 for row in rows)
    assert len(rows) == count
    names = ("fixmatch", "kd_dec", "true", "random", "trusted", "ce", "sce", "test_acc", "acc_hdl", "own", "nearest", "hdl")
    accuracies = [v for row in rows for k, v in row.items() if k in names]
    assert accuracies and all(0 <= v <= 1 for v in accuracies)
    capsys.readouterr()
    if study != "hdl_evaluations":                                         # it looks at a run while it trains
        again = studies.STUDIES[study](20, [3], 12, **grid)
        out = capsys.readouterr().out
        assert str(again) == str(rows)                                     # str: NaN where nothing was kept
        assert " 0 trained" in out or study == "hdl_gains"


def test_every_study_is_tested_and_has_its_whole_grid():
    assert set(studies.STUDIES) == set(SMALL) | OTHERS
    defaults = {name: [len(p.default) for p in inspect.signature(study).parameters.values() if isinstance(p.default, tuple)]
                for name, study in studies.STUDIES.items()}
    assert {name: sizes for name, sizes in defaults.items() if sizes} == {
        "fixmatch_strength": [5], "methods": [0], "thresholds": [0, 4], "simmatch_sweep": [6, 6], "kd_fixmatch_noise": [4], "kd_fixmatch_thresholds": [4, 3], "hdl_gains": [2]}


def test_the_command_writes_the_table(runs, tmp_path, monkeypatch, sslkit):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "figures").mkdir()
    monkeypatch.chdir(tmp_path)
    assert sslkit("study", "simmatch_sweep", "--seeds", "1", "--steps", "5", "-p", "alphas", "0.9", "-p", "ts", "0.1,1", "--table", "mine")[0] == 0
    lines = (tmp_path / "figures" / "mine.csv").read_text().splitlines()
    assert lines[0] == "alpha,t,seed,steps,labels,test_acc,pseudo_acc_all,kept"
    assert [line[:9] for line in lines[1:]] == ["0.9,0.1,0", "0.9,1.0,0"]


@pytest.mark.parametrize("words, message", [
    (["hdl_gain"], "unknown study 'hdl_gain': did you mean 'hdl_gains'?"), (["hdl_gains", "--seeds", "0"], "seeds is 0, it must be at least 1"),
    (["hdl_gains", "-p", "imbalance", "1"], "unknown parameter 'imbalance': did you mean 'imbalances'?"),
    (["hdl_gains", "-p", "imbalances", "1;2"], "'1;2' is not a number: give numbers with commas between them"),
    (["kd_fixmatch_encoders"], "this study compares two encoders: name one by --encoder")])
def test_a_wrong_word_is_a_sentence(words, message, refused):
    refused(["study", *words], message)


def test_the_order_of_hdl_is_by_round_then_by_similarity():
    rows = {"order": torch.tensor([0, 2, 1, 2, 3]), "similarity": torch.tensor([float("nan"), 0.5, 0.1, 0.9, 0.8])}
    assert studies.hdl.hdl_order(PseudoLabels(torch.zeros(5), torch.ones(5), {}, "hdl", rows)).tolist() == [2, 3, 1, 4]


def test_the_gains_of_hdl_are_those_of_its_runs(runs, monkeypatch):
    monkeypatch.setattr(studies.hdl, "HDL_BASES", (FixMatch,))
    rows = studies.hdl_gains(20, [3], 12)
    assert [(row["imbalance"], row["method"]) for row in rows] == [(1, "fixmatch"), (20, "fixmatch")]
    assert rows[0]["acc_hdl_tail"] is None and 0 <= rows[1]["acc_hdl_tail"] <= 1 and 0 <= rows[1]["hdl_tail"] <= 1
    for row in rows:
        run = hdl_on(FixMatch(), split(load("digits"), 20, 3, imbalance=row["imbalance"]), Config(seed=3, steps=12))
        assert row["acc_hdl"] == run.result["test_acc"]
        assert row["acc_base_tail"] == run.result["base"].get("test_acc_tail")
        assert row["acc_control"] == run.result["control"]["test_acc"] and row["k"] == run.result["labels_found"]["k"]
        found = run.result["labels_found"]["hdl"]
        assert row["hdl_100"] == pytest.approx(found["precision"], abs=1e-6), "neither counts the given labels"
