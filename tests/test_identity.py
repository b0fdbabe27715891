"""What names a run: the code that decides its result, and nothing else."""
import ast
import importlib
import json
import shutil
import sys
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

import sslkit
from sslkit.data import load, split
from sslkit.labelers import confident
from sslkit.methods import FixMatch
from sslkit.training import identity, recipes
from sslkit.training.config import Config, Machine
from sslkit.training.recipes import hdl_on, kd_fixmatch
from sslkit.training.run import Run, fit
from sslkit.training.runs import all_runs, note_earlier

PACKAGE = Path(sslkit.__file__).parent
SHORT, CPU = Config(steps=8, eval_every=4, batch_size=8, mu=2), Machine(device="cpu")
SAYS_NOTHING = {"errors", "files"}     # what decides no result: messages, how files are written


def imported(module: str) -> set[str]:
    """The modules of sslkit that a module's imports lead to, through the doors of rooms to where a name is made."""
    found, todo = set(), [module]
    while todo:
        here = todo.pop()
        if here in found:
            continue
        found.add(here)
        for node in ast.walk(ast.parse((PACKAGE / f"{here}.py").read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sslkit"):
                todo += [made for name in node.names if (made := where(node.module, name.name))]
    return found


def where(module: str, name: str) -> str | None:
    """The file, from the package's folder and without .py, in which `from module import name` finds the name."""
    path = "/".join(module.split(".")[1:])
    if (PACKAGE / path / f"{name}.py").exists():
        return f"{path}/{name}".strip("/")
    if (PACKAGE / f"{path}.py").exists():
        return path
    for node in ast.walk(ast.parse((PACKAGE / path / "__init__.py").read_text())):
        if isinstance(node, ast.ImportFrom) and any(one.name == name for one in node.names):
            return where(node.module, name)
    return None


def test_every_module_that_training_imports_is_in_the_name():
    counted = {str(path.relative_to(PACKAGE).with_suffix("")) for path in identity.files_of(identity.CORE_FILES)}
    methods = [f"methods/{path.stem}" for path in PACKAGE.glob("methods/*.py") if path.stem != "__init__"]
    for module in ("training/loop", "training/feed", "training/config", *methods):
        own = {module} & set(methods)                  # a method's own file is in its `code`
        assert imported(module) - counted - own - SAYS_NOTHING == set(), module
    assert {"methods/ops", "records", "data/pillow_ops", "labelers/quality"} <= counted


@pytest.fixture
def copied(tmp_path):
    """A copy of the package."""
    return shutil.copytree(PACKAGE, tmp_path / "sslkit", ignore=shutil.ignore_patterns("__pycache__"))


@contextmanager
def imported_anew(package: Path, monkeypatch):
    """The module `sslkit` of a copy of the package, as a new process has it; afterwards the other one is back."""
    def ours():
        return {name for name in sys.modules if name.split(".")[0] == "sslkit"}

    with monkeypatch.context() as patch:
        patch.syspath_prepend(package.parent)
        patch.setattr(sys, "dont_write_bytecode", True)
        kept = {name: sys.modules.pop(name) for name in ours()}
        try:
            module = importlib.import_module("sslkit")
            assert Path(module.__file__).parent == package
            yield module
        finally:
            for name in ours():
                del sys.modules[name]
            sys.modules.update(kept)


def code_in(package: Path, name: str, monkeypatch) -> dict:
    """code_of() of a method in a copy of the package."""
    with imported_anew(package, monkeypatch) as module:
        training = importlib.import_module("sslkit.training")
        return training.code_of(module.methods.method_class(name)())


def test_a_new_method_leaves_other_runs_alone_and_a_change_of_the_core_does_not(copied, monkeypatch):
    methods, code = copied / "methods", partial(code_in, copied, monkeypatch=monkeypatch)
    before = {name: code(name) for name in ("fixmatch", "mixmatch")}
    (methods / "mine.py").write_text("from sslkit.methods.fixmatch import FixMatch\n\n\nclass Mine(FixMatch):\n    pass\n")
    (methods / "mixmatch.py").write_text((methods / "mixmatch.py").read_text() + "# another\n")
    assert code("fixmatch") == before["fixmatch"]
    changed = code("mixmatch")
    assert changed["method"] != before["mixmatch"]["method"] and changed["core"] == before["mixmatch"]["core"]
    (methods / "ops.py").write_text((methods / "ops.py").read_text() + "# another\n")
    assert code("fixmatch")["core"] != before["fixmatch"]["core"]


def test_the_code_is_that_of_the_import_not_of_the_file_now(copied, monkeypatch):
    """A kernel that imported the package before an edit does not record its runs under the edited code."""
    with imported_anew(copied, monkeypatch) as module:
        training = importlib.import_module("sslkit.training")
        before = training.code_of(module.FixMatch())
        for part in ("methods/fixmatch", "training/loop"):
            path = copied / f"{part}.py"
            path.write_text(path.read_text() + "# edited")
        assert training.code_of(module.FixMatch()) == before
    after = code_in(copied, "fixmatch", monkeypatch)
    assert after["core"] != before["core"] and after["method"] != before["method"], "the next one does"


def test_a_record_without_later_settings_is_that_of_a_run_with_their_defaults(digits, tmp_path):
    """A run that was begun before they came is continued, and stands in the same table."""
    run = fit(FixMatch(), digits, SHORT, CPU, out=tmp_path / "run")
    new = run.config
    old = json.loads(json.dumps(new))
    for part in ("train", "arguments"):
        for name, value in identity.LATER.items():
            assert old[part].pop(name, value) == value
    assert len(old["train"]) == len(new["train"]) - 2 and len(old["arguments"]) == len(new["arguments"]) - 1
    assert old != new and identity.changed_settings(old, new) == identity.changed_settings(new, old) == ""
    assert identity.protocol(old) == identity.protocol(new)
    (run.path / "config.json").write_text(json.dumps(old))
    result = run.result
    assert fit(FixMatch(), digits, SHORT, CPU, out=run.path).result == result and run.restore(digits)
    other = identity.record(FixMatch(), digits, replace(SHORT, schedule="cosine", warmup=0.1).resolve(digits, torch.device("cpu")))
    assert identity.changed_settings(old, other) == "train.schedule fixmatch -> cosine; train.warmup 0.0 -> 0.1"
    assert identity.protocol(old) != identity.protocol(other)


def test_a_stage_that_the_store_has_is_not_trained_again(digits, runs, monkeypatch):
    base = fit(FixMatch(), digits, SHORT, CPU)
    trained, train = [], recipes.fit.__globals__["train"]

    def watched(method, *others, **more):
        trained.append(type(method).__name__)
        return train(method, *others, **more)

    monkeypatch.setitem(recipes.fit.__globals__, "train", watched)
    whole = hdl_on(FixMatch(), digits, SHORT, CPU, k=5)
    assert trained == ["FixedLabels", "FixedLabels"], "only what is new"
    assert Run(whole.path / "base").result == base.result and Run(whole.path / "base").config == base.config
    kd_fixmatch(digits, SHORT, CPU, clustering="none", tau_select=0.3)
    assert trained[2:] == ["KDFixMatch"]
    shutil.rmtree(base.path)
    assert Run(whole.path / "base").network() is not None, "it does not need the store's folder any more"


def test_a_recipe_begun_by_other_code_keeps_its_record(digits, tmp_path, capsys):
    whole = hdl_on(FixMatch(), digits, SHORT, CPU, k=5, out=tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    old = whole.config | {"code": {"version": "0", "hash": "before"}}
    path.write_text(json.dumps(old))
    (tmp_path / "run" / "result.json").unlink()
    labels = (tmp_path / "run" / "labels.pt").stat().st_mtime_ns
    hdl_on(FixMatch(), digits, SHORT, CPU, k=5, out=tmp_path / "run")
    assert Run(tmp_path / "run").config == old, "the record says what began it"
    assert "was begun by other code of sslkit" in capsys.readouterr().err
    assert (tmp_path / "run" / "labels.pt").stat().st_mtime_ns == labels, "found by the same labeler"
    saved = torch.load(tmp_path / "run" / "labels.pt", weights_only=True)
    saved["asked"]["code"] = {"hdl": "before"}
    torch.save(saved, tmp_path / "run" / "labels.pt")
    (tmp_path / "run" / "result.json").unlink()
    hdl_on(FixMatch(), digits, SHORT, CPU, k=5, out=tmp_path / "run")
    assert (tmp_path / "run" / "labels.pt").stat().st_mtime_ns != labels, "labels of another labeler are found again"


def test_a_store_of_the_earlier_version_is_named_and_left_alone(digits, runs, capsys):
    from sslkit import cli

    run = fit(FixMatch(), digits, SHORT, CPU)
    config = run.config | {"code": {"version": "0.1.0", "hash": "0123456789abcdef"}}
    (run.path / "config.json").write_text(json.dumps(config))
    before = {path: path.read_bytes() for path in run.path.iterdir()}
    note_earlier(all_runs(runs))
    said = capsys.readouterr().err
    assert said.startswith(f"note: 1 of the runs in {runs} were made by an earlier version of sslkit") and said.count("\n") == 1
    assert cli.main(["runs"]) == 0 and "earlier version" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in run.path.iterdir()} == before


@pytest.mark.parametrize("imbalance", [1.0, -20.0])
def test_recipes_take_every_split(imbalance, tmp_path):
    """Labelled images apart from the unlabelled ones, a validation part, a long tail in reverse."""
    data = split(load("digits"), 20, 0, include_labeled=False, validation=100, imbalance=imbalance)
    whole = hdl_on(FixMatch(), data, SHORT, CPU, k=5, out=tmp_path / "hdl")
    found = whole.result["labels_found"]
    assert found["hdl"]["rows"] == found["control"]["rows"] == data.num_unlabeled
    assert recipes.quality(data, confident(torch.ones(len(data.images), 10), 0.0))["rows"] == data.num_unlabeled
    assert kd_fixmatch(data, SHORT, CPU, clustering="none", tau_select=0.2, out=tmp_path / "kd").result["trusted"]["trusted"]["rows"] > 0
