"""The batch engine with real processes: killed batches, dead workers, full disks; nothing is lost or done twice."""
import json
import os
import pickle
import platform
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from sslkit.batch import engine, watch
from sslkit.batch import workers as cluster
from sslkit.batch.jobs import RunJob
from sslkit.batch.process import lease_of, work
from sslkit.errors import InputError
from sslkit.files import Lease, locked
from sslkit.training.config import Config, Machine
from sslkit.training.parse import parse
from sslkit.training.rules import Propagate
from sslkit.training.run import Run
from sslkit.training.spec import RunSpec


def job(method: str, steps: int, seed: int = 0, recipe=None, **train) -> RunJob:
    """A short run on digits with 20 labels."""
    config = Config(seed=seed, steps=steps, **({"batch_size": 16, "mu": 2, "eval_every": 10} | train))
    return RunJob(RunSpec(method, train=config, recipe=recipe))


JOBS = [job("fixmatch", 60), job("supervised", 100), job("fixmatch", 30, recipe=Propagate()), job("supervised", 100, 1)]
FEW = [job("supervised", 20, seed) for seed in (0, 1)]
PROGRAM = """
import json, sys
from sslkit.batch.engine import run_batch
from sslkit.batch.jobs import RunJob
from sslkit.training import parse
if __name__ == "__main__":
    jobs = [RunJob(parse(words)[0]) for words in json.loads(sys.argv[1])]
    batch = run_batch(jobs, scheduler=(sys.argv[2:] or [None])[0], workers=2)
    print(json.dumps([[d.job.name, d.state, d.error, str(d.path)] for d in batch.doing]))
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("program") / "batch.py"
    path.write_text(PROGRAM)
    return path


def start(program, store, jobs=JOBS, *scheduler, **options) -> subprocess.Popen:
    """A batch in a process of its own."""
    words = [sys.executable, program, json.dumps([job.spec.argv()[1:] for job in jobs]), *scheduler]
    environment, pipe = os.environ | {"SSLKIT_RUNS": str(store), "SSLKIT_LEASE_SECONDS": "5"}, subprocess.PIPE
    return subprocess.Popen(words, env=environment, stdout=pipe, stderr=pipe, text=True, **options)


def ended(process) -> list[list[str]]:
    """[name, state, error, path] of each job, when the batch is over."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return json.loads(out)


def figures(store) -> dict[str, tuple]:
    """What every finished run came to: its results but for the time they took, and its metrics."""
    def plain(value):
        if not isinstance(value, dict):
            return value
        return {k: plain(v) for k, v in value.items() if k not in ("seconds", "machine")}

    found = {}
    for path in sorted(store.glob("*/config.json")):
        run = path.parent
        metrics = [[plain(json.loads(line)) for line in file.read_text().splitlines()]
                   for file in sorted(run.rglob("metrics.jsonl"))]
        found[run.name] = (plain(Run(run).result), metrics)
    return found


def stamps(store) -> dict[Path, int]:
    """When each result was written."""
    return {path: path.stat().st_mtime_ns for path in store.rglob("result.json")}


def children(process) -> list[psutil.Process]:
    """The processes of a batch that train, or wait for a job."""
    found = []
    with suppress(psutil.Error):
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.Error):
                if "sslkit.batch.process" in child.cmdline():
                    found.append(child)
    return found


def alone(seconds=60) -> None:
    """Wait until no process that a killed batch left is running."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and any("sslkit.batch.process" in (p.info["cmdline"] or ()) and p.info["ppid"] == 1
                                         for p in psutil.process_iter(["cmdline", "ppid"])):
        time.sleep(0.1)


@pytest.fixture(scope="module")
def undisturbed(program, tmp_path_factory):
    store = tmp_path_factory.mktemp("undisturbed")
    assert [state for _, state, *_ in ended(start(program, store))] == ["done"] * len(JOBS)
    return figures(store)


def kill(what: str, process: subprocess.Popen) -> None:
    """SIGKILL a worker of the batch, the batch itself, or both."""
    if what in ("worker", "both"):
        for child in children(process)[:1]:
            with suppress(psutil.Error):
                psutil.Process(child.ppid()).kill()
    if what in ("batch", "both"):
        process.kill()


def disturb(program, store, what, seconds, undisturbed, jobs=JOBS) -> None:
    process = start(program, store, jobs)
    time.sleep(seconds)
    kill(what, process)
    if what == "worker":
        rows = ended(process)
        assert all(state == "done" for _, state, *_ in rows), rows
        before = {}
    else:
        process.communicate()
        before = stamps(store)
    rows = ended(start(program, store, jobs))
    assert all(state in ("done", "found") for _, state, *_ in rows), rows
    assert figures(store) == undisturbed, "nothing lost, and every number the same"
    after = stamps(store)
    done = {path for path in before if path.parent.name not in ("base", "hdl", "control")}
    assert all(after[path] == before[path] for path in before), "what was finished was not run again"
    assert sum(state == "found" for _, state, *_ in rows) >= len(done)
    alone()


@pytest.mark.slow
def test_a_killed_worker_costs_a_retry(program, tmp_path, undisturbed):
    disturb(program, tmp_path / "store", "worker", 9, undisturbed)


def test_a_killed_batch_goes_on(program, tmp_path):
    """Once, with few runs; marked slow: twenty times with more."""
    some = JOBS[1:3]
    ended(start(program, tmp_path / "undisturbed", some))
    disturb(program, tmp_path / "store", "both", 8, figures(tmp_path / "undisturbed"), some)


@pytest.mark.slow
@pytest.mark.parametrize("round", range(20))
def test_kills_at_random_moments(round, program, tmp_path, undisturbed):
    seconds = random.Random(f"{os.getpid()} {round} {time.time()}").uniform(2, 22)
    print(f"killed after {seconds:.2f} s")
    disturb(program, tmp_path / "store", ("worker", "batch", "both")[round % 3], seconds, undisturbed)


@pytest.mark.slow
def test_two_batches_share_the_work(program, tmp_path, undisturbed):
    store = tmp_path / "store"
    rows = [ended(process) for process in [start(program, store), start(program, store)]]
    for name, *_ in rows[0]:
        states = sorted(state for batch in rows for other, state, *_ in batch if other == name)
        assert states == ["done", "found"], "each run by one of them"
    assert figures(store) == undisturbed


def listening(process) -> set[tuple[str, str]]:
    """(address, command) of every socket on which a batch's processes wait for others."""
    found = set()
    for one in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
        with suppress(psutil.Error):
            found |= {(c.laddr.ip, " ".join(one.cmdline()[-2:])) for c in one.net_connections("inet")
                      if c.status == psutil.CONN_LISTEN}
    return found


def test_ctrl_c_saves_what_runs_and_nobody_else_reaches_a_batch(program, tmp_path):
    jobs = [job("fixmatch", 3000, seed) for seed in (0, 1, 2)]
    process = start(program, tmp_path / "store", jobs, start_new_session=True)
    end = time.monotonic() + 60
    while time.monotonic() < end and len(list((tmp_path / "store").glob("*/metrics.jsonl"))) < 2:
        time.sleep(0.1)
    open_to = listening(process)
    assert len(open_to) >= 2                               # whoever reaches one of these runs code here
    assert {address for address, _ in open_to} == {"127.0.0.1"}, open_to
    os.killpg(process.pid, signal.SIGINT)                  # as a terminal does: to all of the group
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0 and "stopping: the running jobs are being saved" in err
    saved = list((tmp_path / "store").glob("*/checkpoint.pt"))
    assert len(saved) == 2 and not list((tmp_path / "store").glob("*/result.json"))
    assert not list((tmp_path / "store" / "leases").iterdir())
    alone()


@pytest.mark.parametrize("gap", [0.02, *(pytest.param(gap, marks=pytest.mark.slow) for gap in (0, 0.3))])
def test_sigterm_to_a_run_and_its_worker_together_loses_nothing(tmp_path, gap):
    """As a cluster ends a job: the run gets the signal, and its worker, which dies of it, closes the run's input."""
    child = subprocess.Popen([sys.executable, "-m", "sslkit.batch.process"], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, env=os.environ | {"SSLKIT_RUNS": str(tmp_path)})
    child.stdin.write(pickle.dumps((job("supervised", 30_000), Machine(threads=1))))
    child.stdin.flush()
    end = time.monotonic() + 60
    while time.monotonic() < end and not list(tmp_path.glob("*/metrics.jsonl")):
        time.sleep(0.05)
    child.terminate()
    time.sleep(gap)
    child.stdin.close()
    assert json.loads(child.stdout.read())["state"] == "stopped" and child.wait(timeout=60) == 0
    child.stdout.close()
    assert len(list(tmp_path.glob("*/checkpoint.pt"))) == 1 and not list((tmp_path / "leases").iterdir())


def test_a_worker_that_does_not_see_the_store_and_one_without_sslkit_are_said(tmp_path, monkeypatch):
    outcome = work(b"", {}, str(tmp_path / "leases" / "batch-x"), ahead=False)
    assert outcome["state"] == "blind"

    class Future:
        def cancelled(self):
            return False

        def result(self):
            if isinstance(self.said, dict):
                return self.said
            raise self.said

    future, client = Future(), SimpleNamespace(status="running")
    future.said = outcome
    with pytest.raises(InputError, match=f"a worker on {platform.node()} does not see the store .*: all machines need"):
        engine.answer(future, client)
    future.said = RuntimeError("Error during deserialization of the task graph. This frequently occurs if ...")
    with pytest.raises(InputError, match="the scheduler or a worker has no sslkit"):
        engine.answer(future, client)
    future.said = RuntimeError("anything else")
    assert engine.answer(future, client) == {"state": "died", "error": "anything else"}


def test_a_failed_run_is_kept_with_its_error_and_a_damaged_result_set_aside(program, tmp_path):
    store, bad = tmp_path / "store", job("supervised", 20, lr=1e30)
    rows = ended(start(program, store, [bad, *FEW]))
    assert [state for _, state, *_ in rows] == ["failed", "done", "done"], "the others continue"
    assert "the loss is" in rows[0][2]
    (kept,) = watch.errors(store)
    assert "FloatingPointError" in kept["error"] and "Traceback" in kept["traceback"]
    program_name, _, *words = shlex.split(kept["command"])
    assert program_name == "sslkit" and parse(words)[0] == bad.spec, "the command that does the same"
    path, before = Path(rows[1][3]), figures(store)
    (path / "result.json").write_text('{"test_acc": ')
    rows = ended(start(program, store, FEW))
    assert [state for _, state, *_ in rows] == ["done", "found"] and figures(store) == before
    (aside,) = path.glob("result.json.corrupt-*")
    assert aside.read_text() == '{"test_acc": '


def test_a_dask_worker_imports_no_torch():
    code = "import sslkit.batch.process, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_one_whose_process_dies_is_tried_once_more_and_then_kept_as_failed(tmp_path):
    doing = engine.Doing(FEW[0], tmp_path / "run", "running")
    engine.settle(doing, {"state": "died", "error": "killed by SIGKILL"}, tmp_path)
    assert doing.state == "waiting" and not watch.errors(tmp_path)
    engine.settle(doing, {"state": "died", "error": "killed by SIGKILL"}, tmp_path)
    assert doing.state == "failed" and watch.errors(tmp_path)[0]["error"] == "killed by SIGKILL"
    doing = engine.Doing(FEW[1], tmp_path / "run", "running")
    for _ in range(engine.MAX_STOPS):
        engine.settle(doing, {"state": "stopped"}, tmp_path)
        assert doing.state == "waiting", "somebody else stopped it: it is tried again"
    engine.settle(doing, {"state": "stopped"}, tmp_path)
    assert doing.state == "failed" and "stopped 6 times" in doing.error


def test_a_scheduler_that_goes_is_said(program, tmp_path):
    file = tmp_path / "scheduler.json"
    words = ["dask", "scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", file]
    scheduler = subprocess.Popen([sys.executable, "-m", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not file.exists():
        time.sleep(0.1)
    process = start(program, tmp_path / "store", FEW, json.loads(file.read_text())["address"])
    while not (line := process.stderr.readline()).startswith("on 0 workers at tcp://"):
        assert line
    time.sleep(1)
    scheduler.kill()
    scheduler.wait()
    _, err = process.communicate(timeout=60)
    assert process.returncode and "the scheduler is gone: run the same command again" in err


@contextmanager
def disk(folder, *options):
    """A file system of its own."""
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", ",".join(options), "sslkit-test", folder]
    can_mount = shutil.which("mount") and sys.platform == "linux"
    if not can_mount or subprocess.run(words, capture_output=True).returncode:
        pytest.skip("mounting a small disk is not permitted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.slow
def test_a_full_disk_fails_a_run_in_a_sentence_and_the_batch_goes_on_when_there_is_space(program, tmp_path):
    with disk(tmp_path / "small", "size=200k") as store:
        rows = ended(start(program, store, FEW))
        assert all(state == "failed" and "no space left" in error for _, state, error, _ in rows), rows
        subprocess.run(["mount", "-o", "remount,size=20m", store], check=True)
        assert [state for _, state, *_ in ended(start(program, store, FEW))] == ["done"] * 2
        assert not watch.errors(store), "what went well at last is no failure any more"


def test_a_store_that_cannot_be_written_is_said_at_once(tmp_path, monkeypatch):
    with disk(tmp_path / "fixed", "size=1m") as store:
        subprocess.run(["mount", "-o", "remount,ro", store], check=True)
        monkeypatch.setenv("SSLKIT_RUNS", str(store))
        with pytest.raises(InputError, match="could not write .*/leases/batch-.*: Read-only"):
            engine.run_batch(FEW)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense"])
def test_a_scheduler_that_cannot_be_reached_is_said_within_seconds(address, runs):
    begin = time.monotonic()
    with pytest.raises(InputError, match=f"the scheduler at {address} cannot be reached"):
        engine.run_batch(FEW, scheduler=address)
    assert time.monotonic() - begin < 15


@pytest.mark.slow
def test_workers_started_by_hand(program, tmp_path):
    def dask(*words):
        environment = {**os.environ, "SSLKIT_RUNS": str(tmp_path / "elsewhere")}
        return subprocess.Popen([sys.executable, "-m", "dask", *words], stdout=subprocess.DEVNULL,
                                stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path)

    store, file = tmp_path / "store", tmp_path / "scheduler.json"
    scheduler = dask("scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", file)
    workers = []
    try:
        while not file.exists():
            time.sleep(0.1)
        address = json.loads(file.read_text())["address"]
        workers = [dask("worker", address, "--nworkers", "1", "--nthreads", "1", "--no-dashboard") for _ in range(2)]
        rows = ended(start(program, store, FEW, address))
        assert [state for _, state, *_ in rows] == ["done"] * 2
        assert len(list(store.glob("*/result.json"))) == 2
        assert not (tmp_path / "elsewhere").exists(), "the batch says where the store is"
    finally:
        for process in (*workers, scheduler):
            process.terminate()
        for process in (*workers, scheduler):
            process.communicate()


def test_nothing_to_do_starts_nothing(program, runs, capsys, monkeypatch):
    for one in FEW:
        one.do({})
    monkeypatch.setattr(cluster, "SpecCluster", None)
    batch = engine.run_batch(FEW)
    assert batch.count("found") == 2 and "2 runs: 2 found in the store" in capsys.readouterr().err


def test_the_overview_tells_what_runs(tmp_path):
    run = tmp_path / "run" / "base"
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text('{"step": 20, "test_acc": 0.5}\n{"step": 40, "test_acc": 0.75}\n')
    (run / "config.json").write_text('{"train": {"steps": 60}}')
    doing = [engine.Doing(FEW[0], tmp_path / "run", "running"), engine.Doing(FEW[1], tmp_path / "x", "done"),
             engine.Doing(FEW[1], tmp_path / "y", "failed")]
    head, line = engine.overview(engine.Batch(doing), tmp_path)
    assert head.startswith("1 of 3 runs done, 1 running, 1 failed, about") and "base step 40 of 60  test 75.0%" in line
    many = engine.overview(engine.Batch([engine.Doing(FEW[0], tmp_path / "run", "running")] * 30), tmp_path, 24)
    assert len(many) == 23 and "and 9 more" in many[-1]


def test_as_many_workers_as_cores_and_memory_allow(monkeypatch):
    monkeypatch.setattr(cluster.torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(cluster.os, "sched_getaffinity", lambda _: range(8), raising=False)
    monkeypatch.setattr(cluster.psutil, "virtual_memory", lambda: SimpleNamespace(available=free))
    monkeypatch.setattr(cluster.torch, "get_num_threads", lambda: 8)
    free = 100e9
    assert [cluster.workers_and_threads(jobs) for jobs in (100, 3, 1)] == [(8, 1), (3, 2), (1, 8)]
    assert cluster.workers_and_threads(9, workers=2) == (2, 4)
    free = 5e9
    assert cluster.workers_and_threads(100) == (2, 4), "2 GB for each"
    free = 1e8
    assert cluster.workers_and_threads(100) == (1, 8)
    monkeypatch.setattr(cluster.torch, "get_num_threads", lambda: 1)
    assert cluster.workers_and_threads(1) == (1, 1), "whoever sets OMP_NUM_THREADS wants no more"


def test_a_worker_sees_one_gpu(monkeypatch):
    monkeypatch.setattr(cluster.torch.cuda, "device_count", lambda: 2)
    assert [cluster.workers_and_threads(jobs)[0] for jobs in (10, 1)] == [2, 1]
    assert cluster.workers_and_threads(10, workers=4)[0] == 4
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert cluster.gpu_environments(3) == [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in "010"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-7f")
    assert cluster.gpu_environments(2) == [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in ("3", "GPU-7f")], "given to us"
    before = dict(os.environ)
    with cluster.connected(None, 2) as client:
        client.wait_for_workers(2, timeout=30)
        assert sorted(client.run(lambda: __import__("os").environ["CUDA_VISIBLE_DEVICES"]).values()) == ["3", "GPU-7f"]
    assert dict(os.environ) == before, "lessons that run afterwards have their own threads"


def test_who_is_at_work_in_a_store(runs, tmp_path):
    jobs = [*FEW, job("supervised", 20, 2)]
    paths = [one.place({}) for one in jobs]
    jobs[0].do({})
    for path in paths[1:]:
        shutil.copytree(paths[0], path)
        (path / "result.json").unlink()
    with Lease(lease_of(runs, jobs[1].name), str(paths[1].absolute())), locked(paths[2]):
        head, *lines = watch.at_work(runs)
    assert head == "2 running, 1 finished, 0 failed" and len(lines) == 2 and "step 20 of 20" in lines[0]
    assert watch.at_work(runs)[0].startswith("0 running")


def test_an_estimate_counts_runs_and_stages_and_shares_them_among_workers(monkeypatch, digits):
    short, long, recipe = job("supervised", 20), job("supervised", 20_000), job("supervised", 20, recipe=Propagate())
    assert long.seconds({}, Machine()) > short.seconds({}, Machine()) > 0
    assert recipe.timing_key != short.timing_key == FEW[1].timing_key
    monkeypatch.setattr(RunJob, "seconds", lambda job, loaded, machine: job.spec.train.steps)
    doing = [engine.Doing(job, Path("x")) for job in JOBS]
    batch = engine.Batch(doing, workers=2, timed=engine.plan(doing, {}, Machine()))
    assert batch.left == sum(job.spec.train.steps for job in JOBS) / 2
    monkeypatch.undo()
    impossible = job("supervised", 20, weights="imagenet")
    assert not engine.plan([engine.Doing(impossible, Path("x"))], {}, Machine()), "the run itself will say why"


def test_time_left_is_what_was_planned_at_the_pace_of_what_is_done():
    now = time.monotonic()
    doing = [engine.Doing(FEW[0], Path("x"), state, planned=planned) for state, planned in (
        ("found", 50), ("waiting", 10), ("waiting", 12), ("elsewhere", 12), ("failed", 40))]
    batch = engine.Batch(doing, workers=2, timed=True)
    assert batch.left == (10 + 12 + 12) / 2
    doing[1].state, doing[1].began = "running", now - 4
    assert batch.left == pytest.approx((6 + 12 + 12) / 2, abs=.1)
    doing[1].state, doing[1].took, doing[2].state, doing[2].began = "done", 20, "running", now
    assert batch.left == pytest.approx((24 + 24) / 2, abs=.1), "twice as slow as planned"
    doing[2].began = now - 100
    assert batch.left == pytest.approx(24, abs=.1), (
        "one that takes longer does not make the others shorter, and one alone is not shared")
    batch = engine.Batch([engine.Doing(FEW[0], Path("x")), engine.Doing(FEW[1], Path("x"))])
    assert batch.left is None, "nothing was planned, nothing is done"
    batch.doing[0].state, batch.doing[0].took = "done", 7
    assert batch.left == 7
