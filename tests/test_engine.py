"""The batch engine with real processes: killed batches, dead workers, full disks; nothing is lost or done twice."""
import json
import os
import platform
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from sslkit.batch import engine, jobs, process, watch, workers
from sslkit.batch.jobs import Job, run_jobs
from sslkit.batch.process import lease_of
from sslkit.errors import InputError
from sslkit.files import Lease, locked
from sslkit.training.config import Config
from sslkit.training.parse import parse
from sslkit.training.rules import Propagate
from sslkit.training.run import Run
from sslkit.training.spec import RunSpec


def spec(method: str, steps: int, seed: int = 0, recipe=None, **train) -> RunSpec:
    """A short run on digits with 20 labels."""
    config = Config(seed=seed, steps=steps, **({"batch_size": 16, "mu": 2, "eval_every": 10} | train))
    return RunSpec(method, train=config, recipe=recipe)


SPECS = [spec("fixmatch", 60), spec("supervised", 100), spec("fixmatch", 30, recipe=Propagate()), spec("supervised", 100, 1)]
FEW = [spec("supervised", 20, seed) for seed in (0, 1)]
PROGRAM = """
import json, sys
from sslkit.batch import run_batch, run_jobs
from sslkit.training import parse
jobs = run_jobs(parse(words)[0] for words in json.loads(sys.argv[1]))
batch = run_batch(jobs, scheduler=(sys.argv[2:] or [None])[0], workers=2)
print(json.dumps([[d.job.name, d.state, d.error, str(d.path)] for d in batch.doing]))
"""


def stub(store: Path, name: str, code: str = "", **more) -> Job:
    """A job that is a few lines of Python; it leaves its result unless they raise or exit."""
    path = store / name
    code = f"from pathlib import Path; import os, sys, time; here = Path({str(path)!r}); here.mkdir(exist_ok=True)\n{code}\n"
    return Job(name, [sys.executable, "-c", code + "(here / 'result.json').write_text('{}')"], path, name, **more)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("program") / "batch.py"
    path.write_text(PROGRAM)
    return path


def start(program, store, specs=SPECS, *scheduler, **options) -> subprocess.Popen:
    """A batch in a process of its own."""
    words = [sys.executable, program, json.dumps([one.argv()[1:] for one in specs]), *scheduler]
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


def at_work(store) -> list[psutil.Process]:
    """The processes that do jobs of a store."""
    found = []
    for one in psutil.process_iter(["cmdline", "environ"]):
        if "--job" in (one.info["cmdline"] or ()) and (one.info["environ"] or {}).get("SSLKIT_RUNS") == str(store):
            found.append(one)
    return found


def alone(store, seconds=60) -> None:
    """Wait until no process that a killed batch left is running."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and at_work(store):
        time.sleep(0.1)
    assert not at_work(store)


@pytest.fixture(scope="module")
def undisturbed(program, tmp_path_factory):
    store = tmp_path_factory.mktemp("undisturbed")
    assert [state for _, state, *_ in ended(start(program, store))] == ["done"] * len(SPECS)
    return figures(store)


def disturb(program, store, what, seconds, undisturbed, specs=SPECS) -> None:
    """SIGKILL the process of a job, the batch itself, or both; then the batch again."""
    batch = start(program, store, specs)
    time.sleep(seconds)
    for victim in (at_work(store)[:1] if what in ("job", "both") else []) + [batch] * (what in ("batch", "both")):
        with suppress(psutil.Error):
            victim.kill()
    if what == "job":
        rows, before = ended(batch), {}
        assert all(state in ("done", "found") for _, state, *_ in rows), rows      # found: killed when its result was written
    else:
        batch.communicate()
        before = stamps(store)
    rows = ended(start(program, store, specs))
    assert all(state in ("done", "found") for _, state, *_ in rows), rows
    assert figures(store) == undisturbed, "nothing lost, and every number the same"
    after = stamps(store)
    done = {path for path in before if path.parent.name not in ("base", "hdl", "control")}
    assert all(after[path] == before[path] for path in before), "what was finished was not run again"
    assert sum(state == "found" for _, state, *_ in rows) >= len(done)
    alone(store)


@pytest.mark.slow
def test_a_killed_process_costs_a_retry(program, tmp_path, undisturbed):
    disturb(program, tmp_path / "store", "job", 9, undisturbed)


def batch_in(store: Path) -> None:
    """A process that is a batch of one run."""
    os.environ["SSLKIT_RUNS"] = str(store)
    engine.run_batch(run_jobs([LONG]))


LONG = spec("fixmatch", 200)


@pytest.mark.slow
def test_a_killed_batch_goes_on(server, tmp_path, monkeypatch):
    monkeypatch.setenv("SSLKIT_RUNS", str(tmp_path / "undisturbed"))
    LONG.run(LONG.load())
    store = tmp_path / "store"
    monkeypatch.setenv("SSLKIT_RUNS", str(store))
    batch = server.Process(target=batch_in, args=(store,))
    batch.start()
    end = time.monotonic() + 60
    while time.monotonic() < end and not list(store.glob("*/metrics.jsonl")):
        time.sleep(0.05)
    batch.kill()
    batch.join()
    alone(store)                                           # the run has saved itself
    assert list(store.glob("*/checkpoint.pt")) and not list(store.glob("*/result.json"))
    LONG.run(LONG.load())
    assert figures(store) == figures(tmp_path / "undisturbed"), "nothing lost, and every number the same"


@pytest.mark.slow
@pytest.mark.parametrize("round", range(20))
def test_kills_at_random_moments(round, program, tmp_path, undisturbed):
    seconds = random.Random(f"{os.getpid()} {round} {time.time()}").uniform(2, 22)
    print(f"killed after {seconds:.2f} s")
    disturb(program, tmp_path / "store", ("job", "batch", "both")[round % 3], seconds, undisturbed)


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


def test_ctrl_c_saves_what_runs_and_nobody_reaches_a_batch(program, tmp_path):
    store, specs = tmp_path / "store", [spec("fixmatch", 3000, seed) for seed in (0, 1, 2)]
    batch = start(program, store, specs, start_new_session=True)
    end = time.monotonic() + 60
    while time.monotonic() < end and len(list(store.glob("*/metrics.jsonl"))) < 2:
        time.sleep(0.1)
    assert {address for address, _ in listening(batch)} <= {"127.0.0.1"}, "whoever reached a worker could run code here"
    os.killpg(batch.pid, signal.SIGINT)                    # as a terminal does: to all of the group
    _, err = batch.communicate(timeout=60)
    assert batch.returncode != 0 and "stopping: the running jobs are being saved" in err
    saved = list(store.glob("*/checkpoint.pt"))
    assert len(saved) == 2 and not list(store.glob("*/result.json"))
    assert not list((store / "leases").iterdir())
    alone(store)


@pytest.mark.slow
@pytest.mark.parametrize("gap", [0, 0.02, 0.3])
def test_sigterm_to_a_run_and_its_worker_together_loses_nothing(tmp_path, gap):
    """As a cluster ends a job: the run gets the signal, and its worker, which dies of it, closes the run's input."""
    words = [sys.executable, "-m", "sslkit", *spec("supervised", 30_000).argv(), "--job"]
    child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {"SSLKIT_RUNS": str(tmp_path)})
    end = time.monotonic() + 60
    while time.monotonic() < end and not list(tmp_path.glob("*/metrics.jsonl")):
        time.sleep(0.05)
    child.terminate()
    time.sleep(gap)
    child.stdin.close()
    assert list(json.loads(child.stdout.readline())) == ["run"] and child.wait(timeout=60) == 130
    child.stdout.close()
    assert len(list(tmp_path.glob("*/checkpoint.pt"))) == 1 and not list((tmp_path / "leases").iterdir())


def test_a_worker_that_does_not_see_the_store_and_one_without_sslkit_are_said(tmp_path, monkeypatch):
    outcome = process.run(["sslkit"], {}, [], str(tmp_path / "none"), None)
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


def test_the_command_of_a_run_does_the_same_in_a_terminal(runs):
    bad = spec("supervised", 20, lr=1e30)
    (job,) = run_jobs([bad])
    name, *words = shlex.split(job.command)
    assert name == "sslkit" and parse(words[1:])[0] == bad
    pasted = subprocess.run([sys.executable, "-m", name, *words], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert pasted.returncode == 1 and "sslkit: the loss is" in pasted.stderr and json.loads(pasted.stdout) == {"run": str(job.path)}
    assert not list((runs / "leases").iterdir())


def test_jobs_are_commands_and_what_is_found_is_their_result(tmp_path, runs):
    runs.mkdir()
    todo = [stub(runs, "fails", "print('and more', file=sys.stderr); sys.exit('what it says')"), stub(runs, "works", "print('warning', file=sys.stderr)"), stub(runs, "again", again=True)]
    once = "mark = here / 'mark'\nif not mark.exists():\n    mark.touch()\n    "
    todo += [stub(runs, "dies once", once + "os.kill(os.getpid(), 9)"), stub(runs, "dies", "os.kill(os.getpid(), 9)"),
             stub(runs, "stopped once", once + "os.kill(os.getpid(), 15)"), stub(runs, "elsewhere", once + "sys.exit(75)")]
    todo += [stub(runs, "dies late", "(here / 'result.json').exists() and sys.exit(75)\n(here / 'result.json').write_text('{}')\nos.kill(os.getpid(), 9)")]
    seen = []
    batch = engine.run_batch(todo, workers=3, on_change=lambda d: seen.append((d.job.name, d.state)))
    states = dict(zip((d.job.name for d in batch.doing), (d.state for d in batch.doing)))
    assert states == {"fails": "failed", "works": "done", "again": "done", "dies once": "done", "dies": "failed",
                      "stopped once": "done", "elsewhere": "done", "dies late": "found"}
    assert [state for name, state in seen if name == "dies once"] == ["running", "waiting", "running", "done"]
    assert [state for name, state in seen if name == "elsewhere"] == ["running", "elsewhere", "running", "done"]
    assert [bool(d.error) for d in batch.doing] == [d.state == "failed" for d in batch.doing]
    assert {(e["error"], e["log"], e["command"], Path(e["run"]).name) for e in jobs.errors(runs)} == {
        ("what it says", "and more\nwhat it says", todo[0].command, "fails"),
        ("its process was killed by SIGKILL", "", todo[4].command, "dies")}
    (runs / "works" / "result.json").write_text('{"test_acc": ')
    batch = engine.run_batch([stub(runs, "fails"), *todo[1:4]], workers=3)
    assert [d.state for d in batch.doing] == ["done", "done", "done", "found"] and len(jobs.errors(runs)) == 1
    (aside,) = (runs / "works").glob("result.json.corrupt-*")
    assert aside.read_text() == '{"test_acc": '


def test_a_dask_worker_imports_no_torch():
    code = "import sslkit.batch.process, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_one_that_others_stop_again_and_again_has_failed(tmp_path):
    doing = engine.Doing(stub(tmp_path, "a"), tmp_path / "run", "running")
    for _ in range(engine.TRIES["stopped"] - 1):
        engine.settle(doing, {"state": "stopped"}, tmp_path)
        assert doing.state == "waiting", "somebody else stopped it: it is tried again"
    engine.settle(doing, {"state": "stopped"}, tmp_path)
    assert doing.state == "failed" and "stopped 6 times" in doing.error


def test_a_scheduler_that_goes_is_said(tmp_path, runs, capsys):
    file = tmp_path / "scheduler.json"
    words = ["dask", "scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", file]
    scheduler = subprocess.Popen([sys.executable, "-m", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not file.exists():
        time.sleep(0.1)
    address = json.loads(file.read_text())["address"]
    killer = threading.Timer(2, scheduler.kill)
    killer.start()
    with pytest.raises(InputError, match="the scheduler is gone: run the same command again"):
        engine.run_batch([stub(runs, "a")], scheduler=address)
    assert f"on 0 workers at {address}" in capsys.readouterr().err
    scheduler.wait()


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
        assert not jobs.errors(store), "what went well at last is no failure any more"


def test_a_store_that_cannot_be_written_is_said_at_once(tmp_path, monkeypatch):
    with disk(tmp_path / "fixed", "size=1m") as store:
        subprocess.run(["mount", "-o", "remount,ro", store], check=True)
        monkeypatch.setenv("SSLKIT_RUNS", str(store))
        with pytest.raises(InputError, match="could not write .*/fixed: Read-only"):
            engine.run_batch([stub(store, "a")])


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense"])
def test_a_scheduler_that_cannot_be_reached_is_said_within_seconds(address, runs):
    begin = time.monotonic()
    with pytest.raises(InputError, match=f"the scheduler at {address} cannot be reached"):
        engine.run_batch([stub(runs, "a")], scheduler=address)
    assert time.monotonic() - begin < 15


@pytest.mark.slow
def test_what_listens_and_is_no_scheduler_is_said(runs):
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"tcp://127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(InputError, match=f"the scheduler at {address} cannot be reached"):
            engine.run_batch([stub(runs, "a")], scheduler=address)


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


def test_nothing_to_do_starts_nothing(runs, capsys, monkeypatch):
    for one in FEW:
        one.run(one.load())
    monkeypatch.setattr(workers, "LocalCluster", None)
    batch = engine.run_batch(run_jobs(FEW))
    assert batch.count("found") == 2 and "2 runs: 2 found in the store" in capsys.readouterr().err


def doing(name: str = "a", state: engine.State = "waiting", **more) -> engine.Doing:
    return engine.Doing(stub(Path("x"), name), more.pop("path", Path("x")), state, **more)


def test_the_overview_tells_what_runs(tmp_path):
    run = tmp_path / "run" / "base"
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text('{"step": 20, "test_acc": 0.5}\n{"step": 40, "test_acc": 0.75}\n')
    (run / "config.json").write_text('{"train": {"steps": 60}}')
    going = doing(state="running", path=tmp_path / "run")
    head, line = engine.overview(engine.Batch([going, doing(state="done"), doing(state="failed")], tmp_path))
    assert head.startswith("1 of 3 runs done, 1 running, 1 failed, about") and "base step 40 of 60  test 75.0%" in line
    many = engine.overview(engine.Batch([going] * 30, tmp_path), 24)
    assert len(many) == 23 and "and 9 more" in many[-1]


def test_as_many_workers_as_cores_and_memory_allow(monkeypatch):
    monkeypatch.setattr(workers.torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(workers.os, "sched_getaffinity", lambda _: range(8), raising=False)
    monkeypatch.setattr(workers.psutil, "virtual_memory", lambda: SimpleNamespace(available=free))
    monkeypatch.setattr(workers.torch, "get_num_threads", lambda: 8)
    free = 100e9
    assert [workers.workers_and_threads(jobs) for jobs in (100, 3, 1)] == [(8, 1), (3, 2), (1, 8)]
    assert workers.workers_and_threads(9, workers=2) == (2, 4)
    free = 5e9
    assert workers.workers_and_threads(100) == (2, 4), "2 GB for each"
    free = 1e8
    assert workers.workers_and_threads(100) == (1, 8)
    monkeypatch.setattr(workers.torch, "get_num_threads", lambda: 1)
    assert workers.workers_and_threads(1) == (1, 1), "whoever sets OMP_NUM_THREADS wants no more"


def test_each_job_here_sees_one_gpu(monkeypatch, runs):
    monkeypatch.setattr(workers.torch.cuda, "device_count", lambda: 2)
    assert [workers.workers_and_threads(jobs)[0] for jobs in (10, 1)] == [2, 1]
    assert workers.workers_and_threads(10, workers=4)[0] == 4
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert workers.gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-7f")
    assert workers.gpus() == ["3", "GPU-7f"], "given to us"
    runs.mkdir()
    code = "time.sleep(1); (here / 'seen').write_text(os.environ['CUDA_VISIBLE_DEVICES'] + os.environ['OMP_NUM_THREADS'])"
    engine.run_batch([stub(runs, name, code) for name in "ab"], workers=2)
    assert {path.read_text()[:-1] for path in runs.glob("*/seen")} == {"3", "GPU-7f"}


def test_who_is_at_work_in_a_store(runs, tmp_path):
    todo = run_jobs([*FEW, spec("supervised", 20, 2)])
    FEW[0].run(FEW[0].load())
    for one in todo[1:]:
        shutil.copytree(todo[0].path, one.path)
        (one.path / "result.json").unlink()
    with Lease(lease_of(runs, todo[1].name), str(todo[1].path)), locked(todo[2].path):
        head, *lines = watch.at_work(runs)
    assert head == "2 running, 1 finished, 0 failed" and len(lines) == 2 and "step 20 of 20" in lines[0]
    assert watch.at_work(runs)[0].startswith("0 running")


def test_an_estimate_counts_runs_and_stages_and_shares_them_among_workers(monkeypatch, digits):
    short, long, recipe = spec("supervised", 20), spec("supervised", 20_000), spec("supervised", 20, recipe=Propagate())
    monkeypatch.setattr("sslkit.training.spec.timed", lambda work, device: asked.append(work()) or 50.0)
    asked = []
    assert [one.seconds(one.load()) for one in (short, long, recipe)] == pytest.approx([1, 1000, 5 / 3])
    assert len(asked) == 30, "ten steps of each"
    todo = [engine.Doing(job, job.path) for job in run_jobs([*SPECS, spec("supervised", 100, 5)])]
    batch = engine.Batch(todo, workers=2, timed=engine.plan(todo, 1))
    assert len(asked) == 60, "another seed is not timed again"
    assert batch.left == pytest.approx(.05 * (60 + 100 + 30 * 5 / 3 + 100 + 100) / 2)
    impossible = Job("a", [], Path("x"), seconds=lambda: 1 / 0)
    assert not engine.plan([engine.Doing(impossible, Path("x"))], 1), "the job itself will say why"


def test_time_left_is_what_was_planned_at_the_pace_of_what_is_done():
    now = time.monotonic()
    todo = [doing(state=state, planned=planned) for state, planned in (
        ("found", 50), ("waiting", 10), ("waiting", 12), ("elsewhere", 12), ("failed", 40))]
    batch = engine.Batch(todo, workers=2, timed=True)
    assert batch.left == (10 + 12 + 12) / 2
    todo[1].state, todo[1].began = "running", now - 4
    assert batch.left == pytest.approx((6 + 12 + 12) / 2, abs=.1)
    todo[1].state, todo[1].took, todo[2].state, todo[2].began = "done", 20, "running", now
    assert batch.left == pytest.approx((24 + 24) / 2, abs=.1), "twice as slow as planned"
    todo[2].began = now - 100
    assert batch.left == pytest.approx(24, abs=.1), (
        "one that takes longer does not make the others shorter, and one alone is not shared")
    batch = engine.Batch([doing(), doing()])
    assert batch.left is None, "nothing was planned, nothing is done"
    batch.doing[0].state, batch.doing[0].took = "done", 7
    assert batch.left == 7
