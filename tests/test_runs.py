"""Runs on disk: real processes that are stopped and killed, files that are damaged, disks that are full."""
import json
import multiprocessing
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sslkit.data.sources import load
from sslkit.data.split import split
from sslkit.errors import InputError
from sslkit.files import cannot_write
from sslkit.methods import FixMatch, SimMatch, Supervised
from sslkit.training import loop as train
from sslkit.training import run as room
from sslkit.training.config import Config, Machine
from sslkit.training.identity import difference, record, run_path, store
from sslkit.training.loop import evaluate
from sslkit.training.run import Run, Stopped, fit
from sslkit.training.runs import all_runs

SHORT = Config(steps=22, batch_size=8, mu=2, eval_every=5)       # evaluations at 5, 10, 15, 20 and 22
CPU = Machine(device="cpu", threads=1)
KINDS = {"supervised": Supervised, "fixmatch": FixMatch, "simmatch": SimMatch}
each = pytest.mark.parametrize("kind", list(KINDS))
# SimMatch has all that a run can have: buffers, a bank, networks with heads
stopped = pytest.mark.parametrize("kind", ["simmatch", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("supervised", "fixmatch"))])


def strict(text):
    """JSON as the standard has it: no NaN, no Infinity."""
    def refuse(word):
        raise ValueError(f"{word} is no JSON")
    return json.loads(text, parse_constant=refuse)


def lines(run):
    """Its metrics without the seconds, strictly parsed."""
    return [{k: v for k, v in strict(line).items() if k != "seconds"} for line in (run.path / "metrics.jsonl").read_text().splitlines()]


def weights(run):
    """Everything in checkpoint.pt but how long it took."""
    return {k: v for k, v in torch.load(run.path / "checkpoint.pt", weights_only=True).items() if k != "seconds"}


def same(a, b):
    """Equal to the bit, through dicts and lists."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) and a.dtype == b.dtype if isinstance(a, torch.Tensor) else a == b


def equal(run, whole):
    assert lines(run) == lines(whole)
    a, b = weights(run), weights(whole)
    for part in ("student", "teacher", "optimizer", "method", "sums", "step"):
        assert same(a[part], b[part]), part
    timeless = lambda r: {k: v for k, v in strict((r.path / "result.json").read_text()).items() if k != "seconds"}    # noqa: E731
    assert timeless(run) == timeless(whole)


def contents(folder):
    """Every file's bytes, the lock apart."""
    return {p.relative_to(folder): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file() and p.name != ".lock"}


@contextmanager
def refused(folder, *words, error=InputError):
    """The block raises an InputError that says each of `words`, and every file is afterwards as it was."""
    before = contents(folder)
    with pytest.raises(error) as raised:
        yield
    assert "\n" not in str(raised.value) and all(word in str(raised.value) for word in words), raised.value
    assert contents(folder) == before


@pytest.fixture(scope="module")
def whole(tmp_path_factory, digits):
    """An uninterrupted run of each method. Not to be written to."""
    folder = tmp_path_factory.mktemp("whole")
    return {name: fit(kind(), digits, SHORT, CPU, out=folder / name) for name, kind in KINDS.items()}


@pytest.fixture
def copy(tmp_path, whole):
    """A finished run of its own for a test that damages it."""
    return Run(shutil.copytree(whole["fixmatch"].path, tmp_path / "copy"))


def halt(out, kind="fixmatch", at=10, config=SHORT):
    """Begin the run in this process and stop it at step `at` as Ctrl-C does."""
    def live(snap):
        if snap.step == at:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Stopped):
        fit(KINDS[kind](), split(load("digits"), 20), config, CPU, out=out, live=live)
    return Run(out)


def child(pipe, out, kind, wait_at, save_always):
    """What a child process does: train, and at each step of `wait_at` say so and wait for a word."""
    torch.set_num_threads(1)
    signal.alarm(120)                              # whatever happens to the test, do not stay
    if save_always:
        room.CHECKPOINT_SECONDS = -1

    def live(snap):
        if snap.step in wait_at:
            pipe.send(snap.step)
            pipe.recv()

    try:
        fit(KINDS[kind](), split(load("digits"), 20), SHORT, CPU, out=out, live=live)
        pipe.send("finished")
    except (Stopped, InputError) as error:
        pipe.send(f"{type(error).__name__}: {error}")


@pytest.fixture
def start(server):
    """start(out, ...) -> process, pipe."""
    running = []

    def begin(out, kind="fixmatch", wait_at=(10,), save_always=False):
        ours, theirs = multiprocessing.Pipe()
        process = server.Process(target=child, args=(theirs, out, kind, wait_at, save_always))
        process.start()
        theirs.close()
        running.append(process)
        return process, ours

    yield begin
    for process in running:
        if process.is_alive():
            process.kill()
        process.join()


def hear(pipe):
    assert pipe.poll(100), "the child process says nothing"
    return pipe.recv()


# ---- what a run leaves

@each
def test_a_run_leaves_its_four_files(whole, digits, kind):
    run = whole[kind]
    assert sorted(p.name for p in run.path.iterdir()) == [".lock", "checkpoint.pt", "config.json", "metrics.jsonl", "result.json"]

    config = strict((run.path / "config.json").read_text())
    assert config == run.config and config["method"] == kind and config["arguments"] == KINDS[kind]().arguments
    assert config["data"] == {"name": "digits", "labels": 20, "unlabeled": 1397, "split": digits.hash, "imbalance": [1, 1],
                              "validation": 0, "include_labeled": True, "unlabeled_asked": None, "side": 8, "flip": False}
    assert config["train"] == vars(SHORT.resolve(digits, torch.device("cpu"))) and None not in config["train"].values()
    assert config["classes"] == list("0123456789") and config["channels"] == 1 and set(config["code"]) == {"version", "core", "method"}

    metrics = lines(run)
    assert [m["step"] for m in metrics] == [5, 10, 15, 20, 22]
    own = {"supervised": set(), "fixmatch": {"unsup"}, "simmatch": {"unsup", "inst"}}[kind]
    assert all(m.keys() == {"step", "loss", "sup", "mask_rate", "pseudo_label_acc", "pseudo_label_acc_all", "lr", "test_acc",
                           "test_acc_class"} | own
               for m in metrics)
    if kind == "supervised":
        assert {m["mask_rate"] for m in metrics} == {m["pseudo_label_acc"] for m in metrics} == {None}
    seconds = [m["seconds"] for m in run.metrics]
    assert seconds == sorted(seconds) and seconds[0] > 0

    result = strict((run.path / "result.json").read_text())
    assert result["test_acc"] == metrics[-1]["test_acc"] and result["seconds"] >= seconds[-1] - 0.01
    assert result["test_acc_median20"] == sorted(m["test_acc"] for m in metrics)[2]
    assert {k: result[k] for k in ("method", "data", "labels", "seed", "steps")} == {
        "method": kind, "data": "digits", "labels": 20, "seed": 0, "steps": 22}
    assert result["pseudo_label_acc"] == metrics[-1]["pseudo_label_acc"] and result["mask_rate"] == metrics[-1]["mask_rate"]
    assert result["machine"]["device"] == "cpu" and result["machine"]["threads"] == 1
    assert set(torch.load(run.path / "checkpoint.pt", weights_only=True)) == room.SAVED | {"processes"}


@each
def test_its_network_is_the_one_that_was_evaluated(whole, digits, kind):
    assert evaluate(whole[kind].network(), digits)["test_acc"] == whole[kind].result["test_acc"]
    assert not torch.equal(whole[kind].network("student").classifier.weight, whole[kind].network().classifier.weight)
    with pytest.raises(InputError, match="did you mean 'teacher'"):
        whole[kind].network("techer")


def test_a_method_is_restored_with_its_bank_and_its_networks_with_their_heads(whole, digits, copy):
    saved = weights(whole["simmatch"])
    method, nets = whole["simmatch"].restore(digits)
    assert same(dict(method.state_dict()), saved["method"]) and method.written.all() and method.arguments == SimMatch().arguments
    assert same(dict(nets.teacher.state_dict()), saved["teacher"]) and "heads.emb.0.weight" in saved["teacher"]
    assert evaluate(nets.teacher, digits)["test_acc"] == whole["simmatch"].result["test_acc"] and not method.training
    with pytest.raises(InputError, match="another split"):
        whole["simmatch"].restore(split(load("digits"), 20, 1))
    state = torch.load(copy.path / "checkpoint.pt", weights_only=True)
    state["config"]["arguments"]["beta"] = 1.0
    torch.save(state, copy.path / "checkpoint.pt")
    with pytest.raises(InputError, match="does not fit this code of sslkit: .*beta"):
        copy.restore(digits)


def test_a_curve_has_nan_where_there_was_nothing(whole):
    steps, values = whole["supervised"].curve("mask_rate")
    assert steps == [5, 10, 15, 20, 22] and all(v != v for v in values)
    assert whole["fixmatch"].curve("test_acc")[1][-1] == whole["fixmatch"].result["test_acc"]


def test_a_finished_run_is_returned_as_it_is(copy, digits):
    before, stamps = contents(copy.path), {p: p.stat().st_mtime_ns for p in copy.path.iterdir()}
    shown = []
    assert fit(FixMatch(), digits, SHORT, CPU, out=copy.path, live=shown.append).result == copy.result
    assert not shown and contents(copy.path) == before and {p: p.stat().st_mtime_ns for p in copy.path.iterdir()} == stamps


def test_the_store_finds_a_run_by_what_decides_its_result(runs, digits):
    short = replace(SHORT, steps=2, eval_every=1)
    run = fit(Supervised(), digits, short, CPU)
    assert run.path.parent == runs and re.fullmatch(r"supervised-digits-20-s0-[0-9a-f]{8}", run.path.name)
    stamp = (run.path / "result.json").stat().st_mtime_ns
    assert fit(Supervised(), digits, short, CPU).path == run.path and (run.path / "result.json").stat().st_mtime_ns == stamp
    assert [r.path for r in all_runs()] == [run.path]


# ---- stopped and gone on with

@stopped
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_stopped_process_goes_on_to_the_bit(start, whole, tmp_path, digits, kind, number):
    process, pipe = start(tmp_path / "run", kind)
    assert hear(pipe) == 10
    os.kill(process.pid, number)
    pipe.send("go on")
    words = hear(pipe)
    assert words == f"Stopped: stopped at step 10 of 22; {tmp_path / 'run'} can be continued from there"
    process.join()
    run = Run(tmp_path / "run")
    assert run.result is None and [m["step"] for m in run.metrics] == [5, 10] and run.checkpoint()["step"] == 10
    assert fit(KINDS[kind](), digits, SHORT, CPU, out=run.path).path == run.path
    equal(run, whole[kind])


@pytest.fixture
def every_step(monkeypatch):
    """A clock that runs two seconds a look: every step gets its Snapshot."""
    clock = iter(range(0, 10**9, 2))
    monkeypatch.setattr(train, "time", SimpleNamespace(monotonic=lambda: next(clock)))


def test_a_run_stopped_between_evaluations_goes_on_to_the_bit(every_step, whole, tmp_path, digits):
    run = halt(tmp_path / "run", at=13)
    assert [m["step"] for m in run.metrics] == [5, 10] and run.checkpoint()["step"] == 13
    equal(fit(FixMatch(), digits, SHORT, CPU, out=run.path), whole["fixmatch"])


@stopped
def test_a_killed_process_lets_go_and_is_gone_on_from_its_checkpoint_to_the_bit(start, whole, tmp_path, digits, kind):
    """Killed at 15: line 15 is written, the checkpoint is of 10. Killed again before the end, then left alone. While a process trains,
    no other may; a killed one lets go."""
    for step in (15, 22):
        process, pipe = start(tmp_path / "run", kind, wait_at=(step,), save_always=True)
        assert hear(pipe) == step
        with refused(tmp_path / "run", "another process is training in", str(tmp_path / "run")):
            fit(KINDS[kind](), digits, SHORT, CPU, out=tmp_path / "run")
        process.kill()
        process.join()
        run = Run(tmp_path / "run")
        assert run.metrics[-1]["step"] == step and run.checkpoint()["step"] == {15: 10, 22: 20}[step] and run.result is None
    shown = []
    fit(KINDS[kind](), digits, SHORT, CPU, out=run.path, live=shown.append)
    assert {s.step for s in shown} == {22}
    equal(run, whole[kind])


def test_a_process_killed_before_its_first_checkpoint_begins_anew(start, whole, tmp_path, digits):
    process, pipe = start(tmp_path / "run")
    hear(pipe)
    process.kill()
    process.join()
    run = Run(tmp_path / "run")
    assert len(run.metrics) == 2 and not (run.path / "checkpoint.pt").exists()
    equal(fit(FixMatch(), digits, SHORT, CPU, out=run.path), whole["fixmatch"])


def test_checkpoints_come_between_evaluations_too(every_step, tmp_path, digits, monkeypatch):
    monkeypatch.setattr(room, "CHECKPOINT_SECONDS", -1)
    there = {}

    def live(snap):
        there[snap.step] = Run(tmp_path / "run").checkpoint()["step"] if snap.step > 1 else 0

    fit(FixMatch(), digits, replace(SHORT, steps=5), CPU, out=tmp_path / "run", live=live)
    assert there == {step: step - 1 for step in range(1, 6)}


def test_stopped_at_the_last_moments(whole, tmp_path, digits, monkeypatch):
    """After the last checkpoint and before result.json: nothing is left to train, the result is made."""
    run = Run(shutil.copytree(whole["fixmatch"].path, tmp_path / "run"))
    (run.path / "result.json").unlink()
    shown = []
    fit(FixMatch(), digits, SHORT, CPU, out=run.path, live=shown.append)
    assert not shown
    equal(run, whole["fixmatch"])


def test_time_is_counted_over_all_parts(tmp_path, digits):
    run = halt(tmp_path / "run")
    state = run.checkpoint()
    run.save({**state, "seconds": 1000.0})
    fit(FixMatch(), digits, SHORT, CPU, out=run.path)
    assert 1000 < run.result["seconds"] < 1100 and run.metrics[-1]["seconds"] > 1000


def test_what_a_killed_process_had_begun_to_write_is_swept_away(tmp_path, whole, digits):
    run = halt(tmp_path / "run")
    (run.path / ".checkpoint.pt.4711.new").write_bytes(b"half")
    fit(FixMatch(), digits, SHORT, CPU, out=run.path)
    equal(run, whole["fixmatch"])
    assert not list(run.path.glob("*.new"))
    (tmp_path / "fresh").mkdir()
    (tmp_path / "fresh" / ".config.json.4711.new").write_text("{")           # killed before config.json was there
    fit(Supervised(), digits, SHORT, CPU, out=tmp_path / "fresh")
    assert sorted(p.name for p in (tmp_path / "fresh").iterdir()) == sorted(p.name for p in run.path.iterdir())


def test_half_a_line_at_the_end_of_the_metrics_is_forgiven(tmp_path, whole, digits):
    run = halt(tmp_path / "run")
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write('{"step": 15, "loss": 0.')
    assert [m["step"] for m in run.metrics] == [5, 10]
    equal(fit(FixMatch(), digits, SHORT, CPU, out=run.path), whole["fixmatch"])


def test_the_handlers_of_signals_are_given_back(tmp_path):
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    halt(tmp_path / "run", "supervised")
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before


# ---- another run's folder, and damaged files

@pytest.mark.parametrize("method, labels, settings, names", [
    (FixMatch(tau=0.9), 20, {}, ["arguments.tau 0.95 -> 0.9"]),
    (FixMatch(), 20, {"lr": 0.2, "steps": 30}, ["train.lr 0.1 -> 0.2", "train.steps 22 -> 30"]),
    (FixMatch(), 40, {}, ["data.labels 20 -> 40", "data.split"]),
    (Supervised(), 20, {}, ["method fixmatch -> supervised"]),
], ids=["tau", "lr", "labels", "method"])
@pytest.mark.parametrize("finished", [True, False], ids=["finished", "stopped"])
def test_another_configuration_in_the_folder_is_refused(copy, method, labels, settings, names, finished):
    if not finished:
        (copy.path / "result.json").unlink()
    with refused(copy.path, "holds another configuration", "--out", str(copy.path), *names):
        fit(method, split(load("digits"), labels), replace(SHORT, **settings), CPU, out=copy.path)


def test_other_code_is_no_other_configuration_but_is_said(copy, digits, capsys):
    config = copy.config
    room.write_json(copy.path / "config.json", {**config, "code": {"version": "0.0", "hash": "abc"}})
    fit(FixMatch(), digits, SHORT, CPU, out=copy.path)
    assert "other code" in capsys.readouterr().err


class Code:
    """Leaves a file where it is unpickled."""
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def cut(length):
    return lambda path: os.truncate(path, length(path.stat().st_size))


DAMAGE = {
    "empty": cut(lambda n: 0), "half": cut(lambda n: n // 2), "one byte short": cut(lambda n: n - 1),
    "a pickle": lambda path: path.write_bytes(pickle.dumps({"format": 1})),
    "a pickle that runs code": lambda path: torch.save({"format": 1, "code": Code(path.with_name("ran"))}, path),
    "another dict": lambda path: torch.save({"model": torch.zeros(3)}, path),
    "nearly ours": lambda path: torch.save({"format": 1, "step": 3}, path),
    "a tensor": lambda path: torch.save(torch.zeros(3), path),
    "text": lambda path: path.write_text("not a checkpoint\n"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_or_foreign_checkpoint_is_refused(copy, digits, damage):
    (copy.path / "result.json").unlink()
    DAMAGE[damage](copy.path / "checkpoint.pt")
    with refused(copy.path, str(copy.path / "checkpoint.pt"), "remove"):
        fit(FixMatch(), digits, SHORT, CPU, out=copy.path)
    with refused(copy.path, "checkpoint.pt"):
        copy.network()


def test_one_flipped_bit_is_found(copy, digits):
    """The zip keeps a checksum of each tensor."""
    (copy.path / "result.json").unlink()
    data = bytearray((copy.path / "checkpoint.pt").read_bytes())
    data[data.index(copy.checkpoint()["teacher"]["classifier.weight"].numpy().tobytes()) + 9] ^= 1
    (copy.path / "checkpoint.pt").write_bytes(data)
    with refused(copy.path, "checkpoint.pt"):
        fit(FixMatch(), digits, SHORT, CPU, out=copy.path)


def test_a_checkpoint_from_another_run_is_refused(copy, tmp_path, digits):
    (copy.path / "result.json").unlink()
    other = fit(FixMatch(), split(load("digits"), 20, include_labeled=False), SHORT, CPU, out=tmp_path / "split")
    shutil.copy(other.path / "checkpoint.pt", copy.path / "checkpoint.pt")
    with refused(copy.path, str(copy.path / "checkpoint.pt"), "another split"):
        fit(FixMatch(), digits, SHORT, CPU, out=copy.path)
    other = fit(FixMatch(tau=0.5), digits, SHORT, CPU, out=tmp_path / "tau")
    shutil.copy(other.path / "checkpoint.pt", copy.path / "checkpoint.pt")
    with refused(copy.path, str(copy.path / "checkpoint.pt"), "another run", "arguments.tau 0.5 -> 0.95"):
        fit(FixMatch(), digits, SHORT, CPU, out=copy.path)


def test_a_checkpoint_that_does_not_fit_the_code_is_refused(copy, digits):
    (copy.path / "result.json").unlink()
    state = copy.checkpoint()
    copy.save({**state, "student": {k: v[:1] if v.ndim == 2 else v for k, v in state["student"].items()}})
    with refused(copy.path, str(copy.path / "checkpoint.pt"), "does not fit"):
        fit(FixMatch(), digits, SHORT, CPU, out=copy.path)


@pytest.mark.parametrize("name, text", [("config.json", "{"), ("config.json", ""), ("config.json", "[1]"), ("config.json", "\x00" * 9),
                                        ("result.json", "nonsense"), ("metrics.jsonl", '{"step": 5}\n{"st\n'), ("metrics.jsonl", "3\n4\n"),
                                        ("metrics.jsonl", ""), ("metrics.jsonl", '{"step": 5}\n{"step": 15}\n')])
def test_a_damaged_record_is_refused(copy, digits, name, text):
    if name != "result.json":
        (copy.path / "result.json").unlink()
    (copy.path / name).write_text(text)
    with refused(copy.path, str(copy.path / name), "remove"):
        fit(FixMatch(), digits, SHORT, CPU, out=copy.path)


def test_a_record_in_no_known_alphabet_is_refused(copy, digits):
    for name in ("metrics", "config"):
        path = next(copy.path.glob(f"{name}.*"))
        path.write_bytes(b"\xff\xfe\n")
        with refused(copy.path, str(path)):
            getattr(copy, name)


def test_a_folder_with_other_files_is_left_alone(tmp_path, digits):
    (tmp_path / "holiday.jpg").write_bytes(b"beach")
    with refused(tmp_path, str(tmp_path), "not empty", "holiday.jpg"):
        fit(FixMatch(), digits, SHORT, CPU, out=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["holiday.jpg"], "not even a lock"
    with refused(tmp_path, "holiday.jpg is a file"):
        fit(FixMatch(), digits, SHORT, CPU, out=tmp_path / "holiday.jpg")
    with refused(tmp_path, "holiday.jpg"):
        fit(FixMatch(), digits, SHORT, CPU, out=tmp_path / "holiday.jpg" / "run")


def test_a_run_that_never_was(tmp_path):
    run = Run(tmp_path / "nothing")
    assert run.config is run.result is None and run.metrics == []
    with pytest.raises(InputError, match="checkpoint.pt is not there"):
        run.network()


# ---- full and read-only disks

@contextmanager
def disk(folder, *options):
    """A file system of its own on `folder`, which is unmounted afterwards."""
    folder.mkdir(exist_ok=True)
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "sslkit-test", folder], capture_output=True, text=True) \
        if shutil.which("mount") and sys.platform == "linux" else None
    if made is None or made.returncode:
        pytest.skip(f"mounting a small disk is not permitted here: {made.stderr.splitlines()[0] if made else 'no mount'}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def fill(folder, leave):
    """Write until only `leave` bytes are free."""
    with open(folder / "ballast", "wb") as file, suppress(OSError):
        file.write(bytes(max(0, os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize - leave)))


def test_a_disk_too_small_for_a_checkpoint(tmp_path, whole, digits):
    with disk(tmp_path / "small", "size=300k") as folder:
        run = Run(folder / "run")
        with pytest.raises(InputError, match=r"could not write .*checkpoint\.pt: no space left") as raised:
            fit(FixMatch(), digits, SHORT, CPU, out=run.path)
        assert "--resume" not in str(raised.value), "there is nothing to go on from"
        assert not list(run.path.glob(".*.new")) and len(run.metrics) == 5
        subprocess.run(["mount", "-o", "remount,size=5m", folder], check=True)
        equal(fit(FixMatch(), digits, SHORT, CPU, out=run.path), whole["fixmatch"])


@pytest.mark.parametrize("leave, what", [(0, "metrics.jsonl"), (100_000, "checkpoint.pt")])
def test_a_disk_that_fills_up_loses_nothing(tmp_path, whole, digits, leave, what):
    with disk(tmp_path / "small", "size=2m") as folder:
        run = halt(folder / "run")
        old = (run.path / "checkpoint.pt").read_bytes()

        def live(snap):
            if snap.step == 15:
                fill(folder, leave)

        # on a tmpfs a file grows by pages: the line after 15 must not fit the page that the file has
        with pytest.raises(InputError, match=f"could not write .*{what}: no space left.*untouched.*--resume"), \
                pytest.MonkeyPatch.context() as patch:
            if what == "metrics.jsonl":
                dumps = json.dumps
                patch.setattr(room.json, "dumps", lambda x, **o: dumps(x, **o) + " " * (5000 if x.get("step", 0) > 15 else 0))
            fit(FixMatch(), digits, SHORT, CPU, out=run.path, live=live)
        assert (run.path / "checkpoint.pt").read_bytes() == old and not list(run.path.glob(".*.new")) and run.result is None
        assert [m["step"] for m in run.metrics][:3] == [5, 10, 15] and (run.path / "metrics.jsonl").read_bytes().endswith(b"}\n")
        with pytest.raises(InputError, match="no space left"):              # still full: still nothing lost
            fill(folder, 0)
            fit(FixMatch(), digits, SHORT, CPU, out=run.path)
        assert (run.path / "checkpoint.pt").read_bytes() == old
        (folder / "ballast").unlink()
        equal(fit(FixMatch(), digits, SHORT, CPU, out=run.path), whole["fixmatch"])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_no_space_for_a_checkpoint_where_one_may_not_mount(tmp_path, whole, digits):
    run = halt(tmp_path / "run")
    old = (run.path / "checkpoint.pt").read_bytes()

    def live(snap):
        if snap.step == 15:
            (run.path / f".checkpoint.pt.{os.getpid()}.new").symlink_to("/dev/full")

    with pytest.raises(InputError, match=r"could not write .*checkpoint\.pt: no space left.*untouched.*--resume"):
        fit(FixMatch(), digits, SHORT, CPU, out=run.path, live=live)
    assert (run.path / "checkpoint.pt").read_bytes() == old and not list(run.path.glob(".*.new"))
    equal(fit(FixMatch(), digits, SHORT, CPU, out=run.path), whole["fixmatch"])


def test_a_full_disk_before_the_first_file(tmp_path, digits):
    with disk(tmp_path / "small", "size=100k") as folder:
        fill(folder, 0)
        with pytest.raises(InputError, match="could not write .*: no space left"):
            fit(Supervised(), digits, SHORT, CPU, out=folder / "run")
        (folder / "ballast").unlink()
        assert list(folder.iterdir()) == [], "no folder is left"


def test_what_cannot_be_trained_leaves_no_folder(tmp_path, digits):
    with refused(tmp_path, "unknown network", "did you mean 'small'"):
        fit(FixMatch(), digits, replace(SHORT, network="smal"), CPU, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_disk_one_may_not_write_to(tmp_path, whole, digits):
    with disk(tmp_path / "small", "size=3m") as folder:
        finished = Run(shutil.copytree(whole["fixmatch"].path, folder / "finished"))
        halted = halt(folder / "halted")
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        assert fit(FixMatch(), digits, SHORT, CPU, out=finished.path).result == finished.result, "a finished run needs no writing"
        for out in (halted.path, folder / "new"):
            with refused(folder, "could not write", str(out), "Read-only file system"):
                fit(FixMatch(), digits, SHORT, CPU, out=out)


def test_a_folder_one_may_not_write_to(tmp_path, digits):
    (tmp_path / "closed").mkdir(mode=0o500)
    if os.access(tmp_path / "closed", os.W_OK):
        pytest.skip("this user may write everywhere")
    with refused(tmp_path, "could not write", "Permission denied"):
        fit(FixMatch(), digits, SHORT, CPU, out=tmp_path / "closed" / "run")


# ---- names and places

def test_where_runs_lie(tmp_path, monkeypatch):
    monkeypatch.setenv("SSLKIT_RUNS", str(tmp_path / "mine"))
    assert store() == tmp_path / "mine"
    monkeypatch.setenv("SSLKIT_RUNS", "~/mine")
    assert store() == Path.home() / "mine"
    monkeypatch.delenv("SSLKIT_RUNS")
    (tmp_path / "project" / "notebooks" / "deep").mkdir(parents=True)
    (tmp_path / "project" / "pyproject.toml").touch()
    for here, there in (("project/notebooks/deep", "project/runs"), ("project", "project/runs")):
        monkeypatch.chdir(tmp_path / here)
        assert store() == tmp_path / there
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    if not any((folder / "pyproject.toml").exists() for folder in tmp_path.parents):
        assert store() == tmp_path / "elsewhere" / "runs"


def test_a_runs_name_is_a_function_of_what_decides_its_result(digits, tmp_path):
    def name(method=None, data=digits, **settings):
        config = replace(SHORT, **settings).resolve(data, torch.device("cpu"))
        return run_path(record(method or FixMatch(), data, config), tmp_path).name

    names = [name(), name(FixMatch(tau=0.9)), name(Supervised()), name(steps=30), name(lr=0.2), name(ema_decay=0.5), name(strong="mc"),
             name(data=split(load("digits"), 40)), name(data=split(load("digits"), 20, 1), seed=1), name(seed=1),
             name(data=split(load("digits"), 20, include_labeled=False)), name(data=split(load("digits"), 20, validation=100))]
    new = record(FixMatch(), digits, SHORT)
    assert run_path(new) == run_path(dict(reversed(new.items())))
    assert len(set(names)) == len(names) and name() == names[0] == name(lr=0.1)
    assert names[7].startswith("fixmatch-digits-40-s0-") and names[8].startswith("fixmatch-digits-20-s1-")
    code = "import sslkit.training as t, sslkit.data as d, sslkit.methods as m\nimport torch\n" \
           f"data = d.split(d.load('digits'), 20)\nc = t.{SHORT!r}.resolve(data, torch.device('cpu'))\n" \
           "print(t.run_path(t.record(m.FixMatch(), data, c)).name)"
    environment = {**os.environ, "PYTHONHASHSEED": "123"}
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment).stdout.strip() == names[0]


def test_a_full_disk_at_the_first_checkpoint_says_that_nothing_is_saved(tmp_path):
    """Else the user would trust --resume, which begins anew."""
    full = OSError(28, "full")
    assert str(cannot_write(tmp_path / "checkpoint.pt", full)).endswith("nothing was saved before, the run will begin anew")
    (tmp_path / "checkpoint.pt").write_bytes(b"")
    assert str(cannot_write(tmp_path / "checkpoint.pt", full)).endswith("--resume continues from there")


@pytest.mark.parametrize("name, part", [("folder:/data/my cats & dogs", "my-cats-dogs"), ("folder:../x/", "x"), ("stl10", "stl10")])
def test_a_runs_name_is_a_safe_file_name(name, part, digits, tmp_path):
    path = run_path(record(FixMatch(), replace(digits, name=name), SHORT), tmp_path)
    assert path.parent == tmp_path and path.name.startswith(f"fixmatch-{part}-20-s0-") and re.fullmatch(r"[\w.-]+", path.name)


def test_all_runs_newest_first(tmp_path):
    for age, name in enumerate(["c", "a", "b"]):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        os.utime(tmp_path / name / "config.json", times=(time.time() - age * 100,) * 2)
    (tmp_path / "no run").mkdir()
    assert [run.path.name for run in all_runs(tmp_path)] == ["c", "a", "b"] and all_runs(tmp_path / "nowhere") == []


def test_difference_names_what_differs():
    assert difference({"a": 1, "b": {"c": 2, "d": 3}}, {"a": 1, "b": {"c": 5, "d": 3}, "e": 6}) == ["b.c 2 -> 5", "e None -> 6"]


def test_a_record_reads_back_as_it_was_written(digits):
    """Else no run of a method whose arguments hold a tuple could be resumed."""
    class Tuples(Supervised):
        def __init__(self, widths=(1, 2)):
            super().__init__()
            self.widths = widths

    new = record(Tuples(), digits, SHORT)
    assert json.loads(json.dumps(new)) == new


def test_a_run_that_diverges_has_no_result(tmp_path, digits):
    with pytest.raises(FloatingPointError, match="smaller --lr"):
        fit(Supervised(), digits, replace(SHORT, lr=1e30), CPU, out=tmp_path / "run")
    assert not (tmp_path / "run").exists(), "so that the next attempt may have the folder"
    (tmp_path / "empty").mkdir()
    with pytest.raises(FloatingPointError, match="smaller --lr"):
        fit(Supervised(), digits, replace(SHORT, lr=1e30), CPU, out=tmp_path / "empty")
    fit(Supervised(), digits, SHORT, CPU, out=tmp_path / "empty")


def test_a_run_that_diverges_late_keeps_its_curve(tmp_path, digits, monkeypatch):
    def late(*args, **options):
        for snap in train.train(*args, **options):
            if snap.step > 10:
                raise FloatingPointError("the loss is nan")
            yield snap

    monkeypatch.setattr(room, "train", late)
    with pytest.raises(FloatingPointError):
        fit(Supervised(), digits, SHORT, CPU, out=tmp_path / "run")
    assert [m["step"] for m in Run(tmp_path / "run").metrics] == [5, 10] and Run(tmp_path / "run").result is None


def test_a_full_disk_before_the_first_evaluation_keeps_the_checkpoint(tmp_path, digits, monkeypatch):
    saved = []
    save = Run.save

    def until_full(run, state):
        if len(saved) == 2:
            raise cannot_write(run.path / "checkpoint.pt", OSError(28, "full"))
        saved.append(state["step"])
        save(run, state)

    clock = iter(range(0, 10**6, 2))
    monkeypatch.setattr("sslkit.training.loop.time.monotonic", lambda: next(clock))            # every step is shown
    monkeypatch.setattr("sslkit.training.run.CHECKPOINT_SECONDS", 0)
    monkeypatch.setattr(Run, "save", until_full)
    config = Config(steps=20, eval_every=20, batch_size=4, mu=1)
    with pytest.raises(InputError, match="no space left.*--resume"):
        fit(FixMatch(), digits, config, out=tmp_path / "run")
    assert Run(tmp_path / "run").checkpoint()["step"] == saved[-1]
    monkeypatch.undo()
    assert fit(FixMatch(), digits, config, out=tmp_path / "run").result["steps"] == 20
