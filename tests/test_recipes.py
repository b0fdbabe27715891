"""Recipes: the stages' folders, what a stopped recipe does not do again, and what is refused."""
import json
import signal
import time

import pytest
import torch

from sslkit import methods
from sslkit.data.sources import load
from sslkit.data.split import split
from sslkit.errors import InputError
from sslkit.labelers.hdl import hdl
from sslkit.training import run as run_room
from sslkit.training.config import Config, Machine
from sslkit.training.loop import predict
from sslkit.training.recipes import hdl_on, kd_fixmatch
from sslkit.training.run import Run, Stopped, fit

CPU = Machine(device="cpu", threads=1)
SHORT = Config(steps=80, eval_every=20, batch_size=16, mu=2)
LOW = {"tau_select": 0.5, "clustering": "kmeans"}          # a short run is not sure of much


@pytest.fixture(scope="module")
def whole(tmp_path_factory, digits):
    """A finished recipe that nothing interrupted."""
    return kd_fixmatch(digits, SHORT, CPU, out=tmp_path_factory.mktemp("kd") / "whole", **LOW)


def figures(run):
    return [{k: v for k, v in m.items() if k != "seconds"} for m in run.metrics]


def test_a_recipe_leaves_its_stages_and_the_figures_of_all(whole, digits):
    outer, inner = Run(whole.path / "outer"), Run(whole.path / "inner")
    assert outer.config["method"] == "fixmatch" and inner.config["method"] == "kdfixmatch" and whole.config["method"] == "kd-fixmatch"
    assert outer.config["data"]["split"] == whole.config["data"]["split"] == digits.hash != inner.config["data"]["split"]
    result = whole.result
    assert {k: result[k] for k in ("method", "data", "labels", "seed", "steps")} == {
        "method": "kd-fixmatch", "data": "digits", "labels": 20, "seed": 0, "steps": 80}
    assert result["test_acc"] == inner.result["test_acc"] and result["outer"]["test_acc"] == outer.result["test_acc"]
    confident, trusted = result["trusted"]["confident"], result["trusted"]["trusted"]
    assert 0 < trusted["rows"] < confident["rows"] <= 1377 and sum(trusted["per_class"]) == trusted["rows"]
    assert 0 < confident["precision"] < trusted["precision"] <= 1 and result["trusted"]["tau_select"] == 0.5
    saved = torch.load(whole.path / "trusted.pt", weights_only=True)["found"]
    assert int((saved["label"][digits.known < 0] >= 0).sum()) == trusted["rows"], "the labelled images are not counted"
    assert torch.equal(inner.checkpoint()["method"]["pseudo"], saved["label"])
    assert figures(inner)[0]["from_outer"] > 0


def test_both_networks_begin_from_the_same_weights(digits, tmp_path):
    one = Config(steps=1, batch_size=4, mu=1, lr=1e-12)
    run = kd_fixmatch(digits, one, CPU, out=tmp_path / "run", clustering="none", tau_select=0.2)
    first, second = (Run(run.path / stage).checkpoint()["student"] for stage in ("outer", "inner"))
    names = [name for name in first if "running" not in name]
    assert all(torch.allclose(first[name], second[name], atol=1e-8) for name in names)


def test_the_papers_network_without_weights_and_an_outer_network_of_another_kind(digits, tmp_path):
    two = Config(steps=2, eval_every=1, batch_size=4, mu=1, network="efficientnet-b0")
    outer = Config(steps=4, eval_every=2, batch_size=4, mu=1, network="small")
    run = kd_fixmatch(digits, two, CPU, outer_config=outer, out=tmp_path / "run", tau_select=0.1, clustering="kmeans")
    first, second = (Run(run.path / stage) for stage in ("outer", "inner"))
    assert first.network().feat_dim == 64 and second.network().feat_dim == 1280
    assert first.result["steps"] == 4 and run.result["steps"] == 2 and run.result["trusted"]["confident"]["rows"] > 0
    assert run.config["train"]["network"] == "efficientnet-b0" and run.config["arguments"]["outer"]["train"]["network"] == "small"
    again = kd_fixmatch(digits, two, CPU, outer=first, out=tmp_path / "again", tau_select=0.1, clustering="kmeans")
    assert again.result["trusted"] == run.result["trusted"]


def test_the_clustering_tells_how_far_it_is(whole, digits, tmp_path):
    told = []
    kd_fixmatch(digits, Config(steps=1, batch_size=2, mu=1), CPU, outer=Run(whole.path / "outer"), out=tmp_path / "run", tau_select=0.5,
                progress=lambda done, total, what: told.append((done, total, what)))
    assert told[0] == (0, 20_000, "clustering: step") and told[1][0] == 140


def test_a_finished_recipe_is_returned_as_it_is(whole, digits):
    before = {path: path.stat().st_mtime_ns for path in whole.path.rglob("*")}
    again = kd_fixmatch(digits, SHORT, CPU, out=whole.path, **LOW)
    assert again.result == whole.result and before == {path: path.stat().st_mtime_ns for path in whole.path.rglob("*")}


@pytest.mark.parametrize("stage", ["outer", "inner"])
def test_a_stopped_recipe_goes_on_to_the_bit_and_does_no_stage_twice(stage, whole, digits, tmp_path):
    def stop(which, steps, snap):
        if which == stage and snap.step == 40 and steps == 80:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Stopped, match=stage):
        kd_fixmatch(digits, SHORT, CPU, out=tmp_path / "run", live=stop, **LOW)
    assert Run(tmp_path / "run").result is None
    done = tmp_path / "run" / "outer" / "result.json"
    before = done.stat().st_mtime_ns if stage == "inner" else None
    seen = []
    run = kd_fixmatch(digits, SHORT, CPU, out=tmp_path / "run", live=lambda which, steps, snap: seen.append((which, snap.step)), **LOW)
    assert (stage, 60) in seen and (stage, 20) not in seen
    if stage == "inner":
        assert done.stat().st_mtime_ns == before and all(which == "inner" for which, _ in seen)
    for part in ("outer", "inner"):
        assert figures(Run(run.path / part)) == figures(Run(whole.path / part))
    student = Run(run.path / "inner").checkpoint()["student"]
    assert all(torch.equal(v, student[k]) for k, v in Run(whole.path / "inner").checkpoint()["student"].items())
    same = ("trusted", "test_acc", "pseudo_label_acc", "mask_rate")
    assert {k: run.result[k] for k in same} == {k: whole.result[k] for k in same}


def child(out):
    """What the process does that is killed."""
    run_room.CHECKPOINT_SECONDS = 0
    kd_fixmatch(split(load("digits"), 20, 0), SHORT, CPU, out=out, **LOW)


def test_a_killed_process_goes_on_where_it_was(server, whole, digits, tmp_path):
    process = server.Process(target=child, args=(tmp_path / "run",), daemon=True)
    process.start()
    metrics, end = tmp_path / "run" / "inner" / "metrics.jsonl", time.monotonic() + 120
    while not (metrics.exists() and metrics.read_text().count("\n") >= 2):
        assert process.is_alive() and time.monotonic() < end
        time.sleep(0.005)
    process.kill()
    process.join()
    run = kd_fixmatch(digits, SHORT, CPU, out=tmp_path / "run", **LOW)
    assert figures(Run(run.path / "inner")) == figures(Run(whole.path / "inner"))


def test_a_damaged_trusted_subset_is_found_again(whole, digits, tmp_path, capsys):
    import shutil
    copy = shutil.copytree(whole.path, tmp_path / "copy")
    (copy / "result.json").unlink()
    file = copy / "trusted.pt"
    file.write_bytes(file.read_bytes()[:200])
    run = kd_fixmatch(digits, SHORT, CPU, out=copy, **LOW)
    assert run.result["trusted"] == whole.result["trusted"] and "the labels are found again" in capsys.readouterr().err


def test_a_finished_outer_run_is_used_and_not_trained_again(whole, digits, tmp_path):
    outer = Run(whole.path / "outer")
    run = kd_fixmatch(digits, SHORT, CPU, outer=outer, out=tmp_path / "run", **LOW)
    assert not (run.path / "outer").exists() and figures(Run(run.path / "inner")) == figures(Run(whole.path / "inner"))
    assert run.result["trusted"] == whole.result["trusted"]


def test_no_row_above_the_threshold_goes_on_as_fixmatch(whole, digits, tmp_path, capsys):
    outer = Run(whole.path / "outer")
    run = kd_fixmatch(digits, SHORT, CPU, outer=outer, out=tmp_path / "run", tau_select=1.0)
    assert "no image reaches tau_select 1: the inner network trains as FixMatch" in capsys.readouterr().err
    assert run.result["trusted"]["trusted"] == {"rows": 0, "coverage": 0.0, "precision": None, "per_class": [0] * 10, "class": [0] * 10}
    ours = [{k: v for k, v in m.items() if k != "from_outer"} for m in figures(Run(run.path / "inner"))]
    assert ours == figures(outer)


def test_what_cannot_be_an_outer_run_is_refused(whole, digits, tmp_path):
    outer = Run(whole.path / "outer")
    with pytest.raises(InputError, match="another data set or split .digits, 20 labels, seed 0"):
        kd_fixmatch(split(load("digits"), 20, 1), SHORT, CPU, outer=outer, out=tmp_path / "a")
    with pytest.raises(InputError, match="another data set or split"):
        kd_fixmatch(split(load("digits"), 40, 0), SHORT, CPU, outer=outer, out=tmp_path / "a")
    with pytest.raises(InputError, match="a run of supervised"):
        plain = fit(methods.Supervised(), digits, Config(steps=2, batch_size=4), CPU, out=tmp_path / "plain")
        kd_fixmatch(digits, SHORT, CPU, outer=plain, out=tmp_path / "a")
    with pytest.raises(InputError, match="is not finished"):
        kd_fixmatch(digits, SHORT, CPU, outer=Run(tmp_path / "nothing"), out=tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("change, message", [({"tau_select": 1.5}, "tau_select is 1.5"), ({"tau_select": -0.1}, "tau_select"),
                                             ({"clustering": "dek"}, "did you mean 'dec'"), ({"matching": "centres"}, "'centers'")])
def test_bad_input_is_refused_before_anything_is_trained(change, message, digits, tmp_path):
    with pytest.raises(InputError, match=message):
        kd_fixmatch(digits, SHORT, CPU, out=tmp_path / "a", **change)
    assert not (tmp_path / "a").exists()


def test_another_configuration_in_the_folder_is_refused(whole, digits, tmp_path):
    with pytest.raises(InputError, match="another configuration .arguments.tau_select 0.5 -> 0.6"):
        kd_fixmatch(digits, SHORT, CPU, out=whole.path, tau_select=0.6, clustering="kmeans")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="holds no run .letter.txt"):
        kd_fixmatch(digits, SHORT, CPU, out=tmp_path / "mine", **LOW)
    assert json.loads((whole.path / "config.json").read_text()) == whole.config


# ---- HDL on a method


@pytest.fixture(scope="module")
def labelled(tmp_path_factory, digits):
    """HDL on a short FixMatch that nothing interrupted."""
    return hdl_on(methods.FixMatch(), digits, SHORT, CPU, k=5, out=tmp_path_factory.mktemp("hdl") / "whole")


def test_hdl_leaves_its_stages_and_the_figures_of_all(labelled, digits):
    base, control, ours = (Run(labelled.path / stage) for stage in ("base", "control", "hdl"))
    assert labelled.config["method"] == "fixmatch+hdl" and base.config["method"] == "fixmatch" and ours.config["method"] == "fixedlabels"
    assert [run.result["steps"] for run in (base, control, ours)] == [80, 26, 26]
    assert ours.config["train"]["lr"] == pytest.approx(0.03) and base.config["train"]["lr"] == 0.1
    assert ours.config["initial"] == control.config["initial"] and ours.config["data"]["split"] != control.config["data"]["split"]
    result = labelled.result
    assert result["test_acc"] == ours.result["test_acc"] and result["steps"] == 80
    assert result["base"]["test_acc"] == base.result["test_acc"] and result["control"]["test_acc"] == control.result["test_acc"]
    found = result["labels_found"]
    assert found["k"] == 5 and found["hdl"]["rows"] == found["control"]["rows"] == 1377, "equal coverage, the labelled images left out"
    p, features = predict(base.network(), digits.images, digits)
    expected, own, hidden = hdl(features, digits.known, k=5).label, p.argmax(1), digits.known < 0
    for name, label in (("hdl", expected), ("control", own)):
        assert found[name]["precision"] == pytest.approx((label == digits.y)[hidden].float().mean().item(), abs=1e-6)
    known = torch.where(hidden, own, digits.y)
    assert torch.equal(control.checkpoint()["method"]["pseudo"], known), "both continuations know the true labels"
    assert torch.equal(ours.checkpoint()["method"]["pseudo"], expected)
    assert torch.equal(control.checkpoint()["method"]["pseudo"], p.argmax(1))


def test_hdl_goes_on_from_the_ema_network(digits, tmp_path):
    config = Config(steps=6, batch_size=8, mu=1)
    run = hdl_on(methods.ReMixMatch(), digits, config, CPU, k=3, out=tmp_path / "run")            # whose rotation head is left behind
    base = Run(run.path / "base").checkpoint()["teacher"]
    frozen = fit(methods.FixedLabels(), digits, Config(steps=1, batch_size=8, mu=1, lr=1e-12), CPU, out=tmp_path / "frozen",
                 initial=Run(run.path / "base").network())
    student = frozen.checkpoint()["student"]
    assert all(torch.allclose(value, base[name], atol=1e-8) for name, value in student.items() if "running" not in name)
    assert "heads.rot.weight" in base and "heads.rot.weight" not in student
    other = fit(methods.FixedLabels(), digits, Config(steps=1, batch_size=8, mu=1, lr=1e-12), CPU, out=tmp_path / "other")
    assert other.config.get("initial") is None and "initial" in frozen.config


@pytest.mark.parametrize("stage", ["base", "control", "hdl"])
def test_a_stopped_hdl_goes_on_to_the_bit_and_does_no_stage_twice(stage, labelled, digits, tmp_path):
    def stop(which, steps, snap):
        if which == stage and snap.step == 20:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Stopped, match=stage):
        hdl_on(methods.FixMatch(), digits, SHORT, CPU, k=5, out=tmp_path / "run", live=stop)
    done = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")}
    run = hdl_on(methods.FixMatch(), digits, SHORT, CPU, k=5, out=tmp_path / "run")
    assert all(path.stat().st_mtime_ns == at for path, at in done.items())
    for part in ("base", "control", "hdl"):
        assert figures(Run(run.path / part)) == figures(Run(labelled.path / part))
    same = ("test_acc", "labels_found")
    assert {key: run.result[key] for key in same} == {key: labelled.result[key] for key in same}


@pytest.mark.parametrize("change, message", [({"k": 0}, "k is 0"), ({"k": "ato"}, "k is 'ato'"), ({"k": 2000}, "only 1397 training"),
                                             ({"mode": "layers"}, "did you mean 'layer'"), ({"metric": "cos"}, "'cosine'")])
def test_hdl_refuses_bad_input_before_anything_is_trained(change, message, digits, tmp_path):
    with pytest.raises(InputError, match=message):
        hdl_on(methods.FixMatch(), digits, SHORT, CPU, out=tmp_path / "a", **change)
    assert not (tmp_path / "a").exists()


def test_hdl_refuses_a_class_without_a_labelled_image(digits, tmp_path):
    from dataclasses import replace
    without = replace(digits, labeled=digits.labeled[digits.y[digits.labeled] != 3])
    with pytest.raises(InputError, match="class '3' has no labelled image"):
        hdl_on(methods.FixMatch(), without, SHORT, CPU, out=tmp_path / "a")


def test_hdl_of_a_long_tail_labels_what_is_left_and_tells_head_and_tail(tmp_path):
    data = split(load("digits"), 20, 0, imbalance=20)
    run = hdl_on(methods.FixMatch(), data, SHORT, CPU, k=5, out=tmp_path / "run")
    found = run.result["labels_found"]["hdl"]
    assert found["rows"] == len(data.images) - 20 < 1377 and len(found["class"]) == 10
    assert found["tail"] == pytest.approx(sum(found["class"][7:]) / 3)
    assert {"test_acc_tail", "test_acc_class"} <= run.result["control"].keys() & run.result["base"].keys() & run.result.keys()
