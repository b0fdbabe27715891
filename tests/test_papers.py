"""The papers' tables: their numbers are those of the files; ours are comparable only with the same protocol."""
import csv
import io
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from sslkit import cli, papers
from sslkit.data.sources import load
from sslkit.data.split import split
from sslkit.errors import InputError
from sslkit.networks.network import build
from sslkit.papers.scales import SCALES, scale
from sslkit.training.config import Config
from sslkit.training.identity import protocol, record
from sslkit.training.parse import parse
from sslkit.training.runs import finished
from sslkit.training.spec import RunSpec


def finish(folder: Path, spec: RunSpec, code=None, precision="fp32", **result) -> None:
    """A finished run of `spec` in a store, without training it."""
    run = folder / spec.name
    run.mkdir(parents=True)
    config = json.loads(spec.protocol()) | {"code": spec.code if code is None else code}
    config["train"] |= {"seed": spec.train.seed, "precision": precision}
    (run / "config.json").write_text(json.dumps(config))
    (run / "result.json").write_text(json.dumps(result))


def specs(name: str, row: str, column: str, at: str, seeds: int) -> list[RunSpec]:
    cell = next(cell for cell in papers.table(name).cells if (cell.row, cell.column) == (row, column))
    return [cell.spec(scale(at), seed) for seed in range(seeds)]


def line(name: str, row: str, column: str, store: Path) -> papers.Line:
    (found,) = [one for one in papers.beside(papers.table(name), store=store)
                if (one.cell.row, one.cell.column) == (row, column)]
    return found


@pytest.mark.parametrize("name, file, column", [
    ("simmatch-1", "simmatch_table1", "mean"), ("simmatch-5", "simmatch_table5", "top1"),
    ("kd-fixmatch", "kd_fixmatch_gains", "gain_over_fixmatch_points"), ("hdl", "hdl_gains", "gain_points")])
def test_a_table_has_the_papers_numbers_each_once(name, file, column):
    printed = [cell.paper for cell in papers.table(name).cells if cell.paper is not None]
    assert printed == [float(row[column]) for row in papers.rows_of(file)]


def test_the_wide_tables_have_every_number():
    rows = papers.rows_of("simmatch_table2")
    numbers = [row[f"{top}_{share}"] for row in rows for share in ("1pct", "10pct") for top in ("top1", "top5")]
    printed = [cell.paper for cell in papers.table("simmatch-2").cells if cell.paper is not None]
    assert printed == [float(n) for n in numbers if n]
    assert len(papers.table("simmatch-3").cells) == 5 * 8


def test_reruns_stand_beside_their_row():
    place = "FixMatch(RA)", "CIFAR-10@250"
    cell = next(cell for cell in papers.table("simmatch-1").cells if (cell.row, cell.column) == place)
    assert cell.reruns == {"TorchSSL": 95.14, "USB": pytest.approx(95.1, abs=0.2)} and cell.std == 0.65


def test_doubts_are_footnotes():
    text = papers.printed("simmatch-1")
    assert "58.99 ± 0.38 [1]" in text and "[1] 58.99 as printed is probably a digit swap" in text
    assert "94.40 ± 1.37 [" in text and "best checkpoint on the test set" in text
    assert "carry the same numbers" in papers.printed("simmatch-2")
    row = next(row for row in text.splitlines() if row.startswith("| MixMatch        | CIFAR-10@250"))
    assert "88.95 ± 0.86  " in row and "62.72 [" in row, "a doubt on a rerun stands at the rerun"


def test_a_cell_not_run_is_empty_and_a_method_not_built_says_so(tmp_path):
    lines = papers.beside(papers.table("simmatch-1"), store=tmp_path)
    assert all(one.mean is None and one.difference is None and not one.comparable for one in lines)
    assert {one.verdict for one in lines} == {""}, "there is a method for every row"
    ours, *others = [one.verdict for one in papers.beside(papers.table("simmatch-2"), store=tmp_path)]
    assert ours == "" and all("ImageNet" in verdict or "not built" in verdict for verdict in others)


def test_ours_has_mean_std_and_seeds(tmp_path):
    for job, acc in zip(specs("simmatch-1", "SimMatch", "digits@20", "quick", 3), (0.9, 0.92, 0.97)):
        finish(tmp_path, job, test_acc=acc)
    one = line("simmatch-1", "SimMatch", "digits@20", tmp_path)
    assert one.mean == pytest.approx(93) and one.std == pytest.approx(3.6056, abs=1e-3)
    assert list(one.values) == [0, 1, 2] and one.scale == "quick"
    assert not one.comparable and one.difference is None and one.verdict == "no such number in the paper"
    first = papers.beside(papers.table("simmatch-1"), store=tmp_path, seeds=2)
    assert [len(one.values) for one in first if one.values] == [2]
    finish(tmp_path, replace(job, train=replace(job.train, seed=77)), test_acc=0.9)
    assert 77 in line("simmatch-1", "SimMatch", "digits@20", tmp_path).values


def test_another_protocol_is_never_comparable(tmp_path):
    for job in specs("simmatch-1", "FixMatch(RA)", "CIFAR-10@250", "gpu", 2):
        finish(tmp_path, job, test_acc=0.9)
    one = line("simmatch-1", "FixMatch(RA)", "CIFAR-10@250", tmp_path)
    assert one.mean == pytest.approx(90) and not one.comparable and one.difference is None
    assert one.verdict == "no: steps 32,768, paper 1,048,576; strong mc, paper rac; passes split, paper joint"
    (paper,) = specs("simmatch-1", "FixMatch(RA)", "CIFAR-10@250", "paper", 1)
    assert paper.train.strong == "rac" and paper.arguments == {"passes": "joint"}
    row = next(row for row in papers.printed("simmatch-1", store=tmp_path).splitlines() if "90.00" in row)
    assert "no: steps 32,768" in row and "-4.93" not in row


def test_the_papers_protocol_is_comparable(tmp_path):
    for job, acc in zip(specs("simmatch-1", "SimMatch", "CIFAR-10@250", "paper", 2), (0.951, 0.953)):
        finish(tmp_path, job, test_acc=acc)
    one = line("simmatch-1", "SimMatch", "CIFAR-10@250", tmp_path)
    assert one.comparable and one.difference == pytest.approx(95.2 - 95.16)
    assert one.verdict == "yes, as far as known (not: selection rule, strong views)"
    (job,) = specs("simmatch-1", "MixMatch", "CIFAR-10@250", "paper", 1)
    assert (job.train.mu, job.train.steps) == (1, 2**20), "MixMatch has mu 1 in the papers"


def test_scales_of_one_cell_have_a_line_each(tmp_path):
    for at in ("gpu", "paper"):
        finish(tmp_path, specs("simmatch-1", "SimMatch", "CIFAR-10@40", at, 1)[0], test_acc=0.9)
    lines = [one for one in papers.beside(papers.table("simmatch-1"), store=tmp_path) if one.values]
    assert [one.scale for one in lines] == ["gpu", "paper"]
    assert [one.scale for one in papers.beside(papers.table("simmatch-1"), ["gpu"], tmp_path) if one.values] == ["gpu"]


def test_gains_are_between_stages_of_one_run(tmp_path):
    finish(tmp_path, specs("kd-fixmatch", "KD-FixMatch", "digits@20", "quick", 1)[0], test_acc=0.95,
           outer={"test_acc": 0.93})
    finish(tmp_path, specs("hdl", "HDL on MixMatch", "digits@20", "quick", 1)[0], test_acc=0.9, base={"test_acc": 0.91},
           control={"test_acc": 0.905})
    assert line("kd-fixmatch", "KD-FixMatch", "digits@20", tmp_path).mean == pytest.approx(2)
    assert line("hdl", "HDL on MixMatch", "digits@20", tmp_path).mean == pytest.approx(-1)
    (control,) = [one for one in papers.beside(papers.over_control(), store=tmp_path) if one.values]
    assert control.mean == pytest.approx(-0.5)


def test_runs_of_other_settings_are_not_taken_for_the_cells(tmp_path):
    (job,) = specs("simmatch-1", "SimMatch", "digits@20", "quick", 1)
    assert line("simmatch-1", "SimMatch", "digits@20", tmp_path).values == {}
    for other in (replace(job, train=replace(job.train, steps=1000)), replace(job, arguments={"alpha": 0.5}),
                  replace(job, train=replace(job.train, lr=0.01)), replace(job, data=replace(job.data, imbalance=20.0)),
                  replace(job, data=replace(job.data, labels=40))):
        finish(tmp_path, other, test_acc=0.5)
    assert line("simmatch-1", "SimMatch", "digits@20", tmp_path).values == {}
    other = json.loads(job.protocol())
    other["data"]["validation"] = 300
    assert protocol(other) != job.protocol()
    other["data"]["validation"], other["train"]["precision"] = 0, "bf16"
    assert protocol(other) == job.protocol(), "another precision is the machine's"


def test_every_setting_of_the_data_is_part_of_the_protocol(digits):
    job = RunSpec("supervised", train=Config(steps=40))
    config, method = job.train.resolve(digits, torch.device("cpu")), job.make()
    assert protocol(record(method, digits, config)) == job.protocol()
    changed = {"unlabeled": 100}, {"validation": 100}, {"include_labeled": False}, {"unlabeled_imbalance": 2}
    others = [replace(digits, flip=True), *(split(load("digits"), 20, 0, **setting) for setting in changed)]
    keys = {protocol(record(method, data, config)) for data in others}
    keys.add(protocol(record(method, digits, config, build("small", 10, 1, seed=1))))
    assert len(keys) == 6 and job.protocol() not in keys
    other_seed = record(method, split(load("digits"), 20, 3), replace(config, seed=3))
    assert protocol(other_seed) == job.protocol()


def test_a_gain_whose_paper_tells_too_little_is_never_comparable(tmp_path):
    finish(tmp_path, specs("kd-fixmatch", "KD-FixMatch", "CIFAR-10@4000", "paper", 1)[0], test_acc=0.95,
           outer={"test_acc": 0.93})
    one = line("kd-fixmatch", "KD-FixMatch", "CIFAR-10@4000", tmp_path)
    assert not one.comparable and one.verdict == "no: the paper's steps, batch, views are not known"


def test_figures_of_different_code_are_said(tmp_path):
    for seed, job in enumerate(specs("simmatch-1", "SimMatch", "digits@20", "quick", 2)):
        finish(tmp_path, job, code={"hash": str(seed)}, test_acc=0.9)
    assert line("simmatch-1", "SimMatch", "digits@20", tmp_path).verdict.endswith(", code of different versions")


def test_figures_of_earlier_code_and_of_mixed_precision_are_said(tmp_path):
    """Not only where the seeds differ among themselves."""
    for job in specs("simmatch-1", "SimMatch", "digits@20", "quick", 2):
        finish(tmp_path / "old", job, code={"hash": "before"}, test_acc=0.9)
        finish(tmp_path / "now", job, test_acc=0.9, precision=("fp32", "bf16")[job.train.seed])
    old, now = (line("simmatch-1", "SimMatch", "digits@20", tmp_path / store) for store in ("old", "now"))
    assert old.verdict == "no such number in the paper, code of another version than this one"
    assert now.verdict == "no such number in the paper, bf16 and fp32 together" and now.mean == pytest.approx(90)


@pytest.mark.parametrize("row, column, why", [("FixMatch(RA)", "CIFAR-10@250", ""), ("MixMatch", "CIFAR-100@400", ""),
                                              ("ReMixMatch", "CIFAR-10@40", "strong mc, paper CTAugment")])
def test_a_methods_arguments_are_compared_too(row, column, why, tmp_path):
    """At scale `paper` the run has the paper's arguments; with our defaults it is not the paper's."""
    (papers_own,) = specs("simmatch-1", row, column, "paper", 1)
    finish(tmp_path, papers_own, test_acc=0.9)
    one = line("simmatch-1", row, column, tmp_path)
    assert one.comparable == (not why) and one.verdict.startswith(f"no: {why}" if why else "yes, as far as known")
    cell = one.cell
    default = replace(papers_own, arguments={})
    finish(tmp_path / "other", default, test_acc=0.9)
    (run,) = finished(tmp_path / "other")[default.protocol()].values()
    found = papers.ours.differences(cell, run)
    assert any(word.startswith(("passes split", "lambda u 75", "num strong 2")) for word in found)


def test_a_damaged_run_is_left_out(tmp_path):
    (job,) = specs("simmatch-1", "SimMatch", "digits@20", "quick", 1)
    finish(tmp_path, job, test_acc=0.9)
    assert len(finished(tmp_path)) == 1
    (tmp_path / job.name / "result.json").write_text("{")
    assert finished(tmp_path) == {}
    (tmp_path / job.name / "result.json").write_text("{}")
    assert papers.printed("simmatch-1", store=tmp_path), "a result without the figure is none"
    (tmp_path / job.name / "result.json").write_text("{")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text("[]")
    assert finished(tmp_path) == {}


def test_formats(tmp_path):
    finish(tmp_path, specs("simmatch-1", "SimMatch", "CIFAR-10@250", "gpu", 1)[0], test_acc=0.9)
    n = len(papers.table("simmatch-1").cells)
    rows = list(csv.DictReader(io.StringIO(papers.printed("simmatch-1", "csv", store=tmp_path))))
    assert len(rows) == n and [row["ours"] for row in rows if row["ours"]] == ["90.0"]
    found = json.loads(papers.printed("simmatch-1", "json", store=tmp_path))
    assert len(found["rows"]) == n and found["rows"][10]["paper"] == 45.74 and found["claim"]
    latex = papers.printed("simmatch-1", "latex", store=tmp_path)
    assert latex.count("\\\\") == n + 1 and "\\toprule" in latex and "95.16 $\\pm$ 0.39" in latex
    columns = latex.split("\\begin{tabular}{")[1].split("}")[0]
    assert all(row.count("&") == len(columns) - 1 for row in latex.splitlines() if row.endswith("\\\\"))
    text = papers.printed("simmatch-1", store=tmp_path).splitlines()
    table = [row for row in text if row.startswith("|")]
    assert len(table) == n + 2 and len({len(row) for row in table}) == 1, "its columns are straight"


def test_what_ours_show_in_words():
    lines = [papers.Line(papers.Cell(row, "x@1"), "quick", values)
             for row, values in {"A": {0: 90.0, 1: 92.0}, "B": {0: 95.0}}.items()]
    assert papers.ranking(lines) == "x@1: B 95.00 (n = 1), A 91.00 ± 1.41 (n = 2)"
    assert papers.ranking([papers.Line(papers.Cell("A", "x@1"))]).startswith("We have no results for this table yet")
    assert papers.dots(lines) == {"A": [0.9, 0.92], "B": [0.95]}


def test_at_the_papers_scale_comatch_has_its_own_protocol():
    """Fixed RandAugment, one forward, the labelled images not among the unlabelled: all that its code says."""
    (job,) = specs("simmatch-1", "CoMatch", "CIFAR-10@250", "paper", 1)
    assert job.train.strong == "fixed" and job.arguments == {"passes": "joint"} and not job.data.include_labeled
    (job,) = specs("simmatch-1", "Pi-Model", "CIFAR-10@250", "paper", 1)
    assert job.train.mu == 1 and job.data.include_labeled


def test_rows_without_a_number_come_last():
    cells = [papers.Cell("none", "x@1"), papers.Cell("paper", "x@1", 90.0), papers.Cell("ours", "x@1"), papers.Cell("rerun", "x@1", reruns={"USB": 1.0})]
    lines = [papers.Line(cell, "quick", {0: 1.0} if cell.row == "ours" else {}) for cell in cells]
    rows, _ = papers.shown(papers.table("hdl"), lines)
    assert [row["method"] for row in rows] == ["paper", "ours", "rerun", "none"]


@pytest.mark.parametrize("row, percent", [("SimMatch", 1), ("SimMatch", 10), ("FixMatch-EMAN", 1), ("FixMatch-EMAN", 10)])
def test_imagenets_command_has_the_papers_settings(row, percent, tmp_path):
    words = papers.imagenet(row, percent, "/data/imagenet", "lists/labeled.txt", weights="moco.pth.tar", seed=2)
    spec, _, _ = parse(words[1:])
    data, labels = spec.data, {1: 12_811, 10: 128_116}[percent]
    assert (data.data, data.labeled_list, data.include_labeled, data.size, data.crop) == (
        "imagefolder:/data/imagenet", "lists/labeled.txt", False, 256, 224)
    train = spec.train
    assert (train.network, train.weights, train.seed, train.batch_size, train.mu, train.lr, train.weight_decay, train.ema_decay) == (
        "resnet50", "moco.pth.tar", 2, 64, 5, 0.03, 1e-4, 0.999)
    epoch, arguments = (1_281_167 - labels) // 320, spec.make(**spec.arguments).arguments
    assert (arguments["tau"], arguments["lambda_u"]) == (0.7, 10)
    if row == "SimMatch":
        assert (train.steps, train.schedule, train.warmup * train.steps) == (400 * epoch, "cosine", pytest.approx(5 * epoch))
        assert (arguments["lambda_in"], arguments["memory"], arguments["da_length"], arguments["alpha"], arguments["t"]) == (5, "teacher", 256, 0.9, 0.1)
    else:
        assert (train.steps, train.schedule, train.warmup, arguments["eman"]) == (300 * epoch, "steps", 0.05, True)


def test_table_2_names_the_command_and_others_are_refused(tmp_path):
    text = papers.printed("simmatch-2", store=tmp_path)
    rows = [line for line in text.splitlines() if "sslkit.papers.imagenet() gives the command" in line]
    assert len(rows) == 8 and {line.split("|")[1].strip() for line in rows} == {"SimMatch", "FixMatch-EMAN after MoCo-EMAN"}
    with pytest.raises(InputError, match="unknown row 'Simmatch': did you mean 'SimMatch'"):
        papers.imagenet("Simmatch", 1, "a", "b")
    with pytest.raises(InputError, match="unknown percent '5': .*known: 1, 10"):
        papers.imagenet("SimMatch", 5, "a", "b")


def imagenet_run(store: Path, row: str, percent: int, seed: int, folder: str = "/a", steps: int = 0, **change) -> None:
    """A finished run of a row of Table 2 in a store, without training it."""
    weights = "moco.pth.tar" if row == "FixMatch-EMAN" else "none"
    spec, _, _ = parse(papers.imagenet(row, percent, folder, "lists/labeled.txt", weights=weights, seed=seed)[1:])
    train = asdict(spec.train) | {"weights": "none" if weights == "none" else "file:0123456789abcdef", "precision": "fp32"}
    config = {"method": spec.method, "arguments": spec.make(**spec.arguments).arguments, "code": spec.code,
              "classes": [f"n{c:08}" for c in range(1000)], "train": train | ({"steps": steps} if steps else {}),
              "data": {"name": f"imagefolder:{folder}", "labels": {1: 12_811, 10: 128_116}[percent], "unlabeled": 1, "split": "",
                       "include_labeled": False, "side": 256, "crop": 224, "labeled_list": "ab"}}
    config = {part: value | change.get(part, {}) if isinstance(value, dict) else value for part, value in config.items()}
    run = store / f"{row}-{percent}-{seed}-{folder.strip('/')}-{steps}"
    run.mkdir(parents=True)
    (run / "config.json").write_text(json.dumps(config))
    (run / "result.json").write_text(json.dumps({"test_acc": 0.6 + seed / 100, "test_acc_top5": 0.8}))


def test_table_2_has_the_runs_on_somebodys_images_of_imagenet(tmp_path):
    for seed in (0, 1):
        imagenet_run(tmp_path, "SimMatch", 1, seed)
    imagenet_run(tmp_path, "SimMatch", 1, 0, "/b", steps=1000)
    imagenet_run(tmp_path, "FixMatch-EMAN", 10, 0)
    imagenet_run(tmp_path, "SimMatch", 10, 0, data={"labels": 40})                       # as many labels as nobody's row
    imagenet_run(tmp_path, "FixMatch-EMAN", 1, 0, train={"weights": "none"})             # not after MoCo-EMAN
    imagenet_run(tmp_path, "SimMatch", 10, 0, "/supervised", train={"weights": "imagenet"})
    found = [one for one in papers.beside(papers.table("simmatch-2"), store=tmp_path) if one.values]
    assert {(one.cell.row, one.cell.column, one.cell.published["train"]["steps"]): None for one in found}.keys() == {
        ("SimMatch", "ImageNet 1%, top1", 400 * 3963), ("SimMatch", "ImageNet 1%, top5", 400 * 3963),
        ("FixMatch-EMAN after MoCo-EMAN", "ImageNet 10%, top1", 300 * 3603),
        ("FixMatch-EMAN after MoCo-EMAN", "ImageNet 10%, top5", 300 * 3603)}
    full, short = sorted((one for one in found if one.cell.column == "ImageNet 1%, top1"), key=lambda one: -len(one.values))
    assert full.values == pytest.approx({0: 60, 1: 61}) and short.values == pytest.approx({0: 60})
    assert "no: the EMA network is evaluated" in full.verdict and "steps" not in full.verdict and not full.comparable
    assert "steps 1,000, paper 1,585,200" in short.verdict
    assert next(one for one in found if one.cell.column == "ImageNet 1%, top5").values[0] == pytest.approx(80)
    text = papers.printed("simmatch-2", store=tmp_path)
    assert len([row for row in text.splitlines() if "papers.imagenet() gives the command" in row]) == 4
    assert not [one for one in papers.beside(papers.table("simmatch-2"), ("quick",), store=tmp_path) if one.values]
    imagenet_run(tmp_path, "SimMatch", 10, 1, "/c", data={"crop": None, "include_labeled": True})
    (one,) = [one for one in papers.beside(papers.table("simmatch-2"), store=tmp_path)
              if one.values and one.cell.column == "ImageNet 10%, top1" and one.cell.row == "SimMatch"]
    assert "include labeled True, paper False; crop None, paper 224" in one.verdict


def test_the_jobs_of_each_scale():
    count = {at: {name: len(table.specs(scale(at), 2)) for name, table in papers.tables().items()} for at in SCALES}
    assert count["quick"] == {"simmatch-1": 20, "simmatch-2": 2, "simmatch-3": 0, "simmatch-5": 6, "kd-fixmatch": 2,
                              "hdl": 8}
    assert count["gpu"]["simmatch-1"] == 2 * 26 and count["paper"]["simmatch-1"] == 2 * 50
    for table in papers.tables().values():
        for at in SCALES:
            for job in table.specs(scale(at), 1):
                job.protocol()                                  # every argument and setting is one
    assert papers.table("kd-fixmatch").specs(scale("paper"), 1)[0].train.network == "efficientnet-b0"


@pytest.mark.parametrize("words, message", [
    (["table", "simmach-1"], "did you mean 'simmatch-1'?"), (["table", "hdl", "--format", "mdd"], "did you mean 'md'?"),
    (["table", "hdl", "--scale", "quik"], "did you mean 'quick'?"),
    (["table", "hdl", "--store", "/nowhere/at/all"], "there is no folder"),
    (["reproduce", "tables", "--scale", "big"], "unknown scale 'big'"),
    (["reproduce", "tables", "--seeds", "0"], "seeds is 0"),
    (["reproduce", "tables", "--workers", "0"], "workers is 0"),
    (["reproduce", "00", "--seeds", "3"], "--seeds is for tables"),
    (["reproduce", "simmatch-7"], "did you mean 'simmatch-5'?"),
    (["reproduce", "tables", "simmatch-7"], "unknown lesson 'simmatch-7'"),
    (["reproduce", "tables", "-p", "x", "1"], "unknown parameter 'x'"),
    (["reproduce", "hdl", "--scheduler", "tcp://127.0.0.1:9", "--workers", "2"], "--workers is for this machine"),
    (["runs", "--watch", "--json"], "--watch is for people")])
def test_bad_input_is_a_sentence(words, message, runs, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said


def test_the_tables_are_listed(capsys):
    assert cli.main(["table"]) == 0
    assert [row.split()[0] for row in capsys.readouterr().out.splitlines()] == list(papers.tables())
    assert cli.main(["table", "hdl", "--format", "csv"]) == 0
    assert capsys.readouterr().out.startswith("table,method")


def test_an_unknown_table_is_an_error():
    with pytest.raises(InputError, match="unknown table 'x'"):
        papers.table("x")


def test_the_scale_of_features_is_marked_as_what_it_is(tmp_path):
    from sslkit.papers.ours import differences
    from sslkit.papers.reported import tables
    from sslkit.papers.scales import scale

    at = scale("features")
    for name, table in tables().items():
        specs = table.specs(at, 1)
        assert all(spec.data.encoder == at.encoder and spec.data.size == 96 and spec.method != "remixmatch" for spec in specs), name
    columns = {cell.column: cell for cell in tables()["simmatch-1"].cells if cell.method == "fixmatch"}
    spec = columns["CIFAR-10@40"].spec(at, 3)
    assert (spec.data.data, spec.data.labels, spec.train.seed, spec.train.steps) == ("cifar10", 40, 3, 800)
    config = {"data": {"encoder": "efficientnet-lite0", "side": 96, "image_files": True},
              "train": {"network": "linear", "steps": 800, "batch_size": 32, "mu": 7, "strong": "mc"}, "arguments": {"passes": "split"}}
    found = differences(columns["CIFAR-10@40"], type("Run", (), {"config": config}))
    assert found[:2] == ("images read from files, not the published ones", "features of efficientnet-lite0 at 96 px") and len(found) > 4


def test_a_probe_has_its_place_in_table_3(tmp_path):
    import json

    from sslkit import papers
    (tmp_path / "probes").mkdir()
    (tmp_path / "probes" / "a.json").write_text(json.dumps({"data": "cifar10", "encoder": "timm:x", "size": 96, "test_acc": 0.7512}))
    (tmp_path / "probes" / "b.json").write_text("{")
    text = papers.printed("simmatch-3", store=tmp_path)
    (row,) = (line for line in text.splitlines() if "timm:x, 96 px" in line)
    assert "CIFAR-10" in row and "75.12" in row and "SimMatch (10%)" in text and "sslkit probe --weights FILE" in text
    assert text.count("sslkit probe --encoder torchvision:resnet50 --weights RUN/checkpoint.pt") == 8
