"""The batch engine: jobs on dask.distributed, each in a process of its own; on this machine, or on workers that somebody has started.

What is finished is found by its configuration and skipped. A run that a dead worker was at goes on from its last checkpoint on another one.
The store is the only memory: a killed batch is given again and goes on; two batches on one store share the work.
"""
import asyncio
import json
import os
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import dask
import torch
from distributed import Client, KilledWorker, Nanny, Scheduler, SpecCluster
from distributed.comm import connect

from sslkit.data import SSLData
from sslkit.disk import is_locked, stop_signals
from sslkit.errors import InputError
from sslkit.jobs import Job
from sslkit.lease import held
from sslkit.report import clock
from sslkit.runs import Run, store
from sslkit.task import failures, lease_of
from sslkit.terminal import Screen
from sslkit.train import Machine, set_up, take_step
from sslkit.work import work

CONNECT_SECONDS = 5
CONFIG = {"distributed.scheduler.worker-ttl": None, "distributed.comm.timeouts.connect": f"{CONNECT_SECONDS}s",
          "distributed.scheduler.allowed-failures": 1}
COST = {"kd-fixmatch": 2.0, "+hdl": 5 / 3}            # of a recipe, in runs of its method


@dataclass
class Doing:
    """A job of the batch and how it goes."""
    job: Job | None
    path: Path
    state: str = "waiting"               # running, found, trained, failed, stopped, elsewhere (another batch is at it)
    error: str = ""
    steps: int = 0

    @property
    def at(self) -> str:
        """Where it stands, from the store: step and accuracy of its last evaluation, of a recipe's that of the stage."""
        with suppress(OSError, ValueError, IndexError, KeyError):
            newest = max(self.path.rglob("metrics.jsonl"), key=lambda path: path.stat().st_mtime)
            last = json.loads(newest.read_text().splitlines()[-1])
            stage = f"{newest.parent.name} " if newest.parent != self.path else ""
            return f"{stage}step {last['step']:,} of {self.steps:,}  test {last['test_acc']:.1%}"
        return "begins"


@dataclass
class Batch:
    """All jobs, in order, and the figures of the whole."""
    doing: list[Doing]
    began: float = field(default_factory=time.monotonic)
    workers: int = 0
    estimate: float | None = None        # seconds

    def count(self, *states: str) -> int:
        return sum(d.state in states for d in self.doing)

    @property
    def left(self) -> float | None:
        """Seconds left, at the pace so far, or by the estimate while nothing is finished."""
        trained, todo = self.count("trained"), self.count("waiting", "running", "elsewhere")
        passed = time.monotonic() - self.began
        if trained:
            return passed / trained * todo
        return None if self.estimate is None else max(0.0, self.estimate - passed)


def prepared(jobs: Sequence[Job], machine: Machine) -> tuple[list[Doing], dict[tuple, SSLData]]:
    """The jobs with their folders; those that are finished are `found`. And the data, by name and root. InputError where there is
    none."""
    known: dict[tuple, SSLData] = {}
    doing = []
    for job in jobs:
        path = job.path(job.opened(known), machine)
        state = "waiting"
        with suppress(InputError):                     # a result that cannot be read is made again
            state = "found" if Run(path).result is not None else "waiting"
        doing.append(Doing(job, path, state, steps=job.steps))
    return doing, known


def seconds_a_run(job: Job, data: SSLData, machine: Machine, steps: int = 8) -> float:
    """About how long a job takes here, from the median of a few steps."""
    method, config = job.made(), job.config.resolve(data, machine.torch_device())
    nets, optimizer, feed = set_up(method, data, config, machine)
    times = []
    for step in range(steps + 2):
        begin = time.perf_counter()
        take_step(method, nets, optimizer, feed, step)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    one = sorted(times[2:])[steps // 2]
    return one * job.steps * next((cost for name, cost in COST.items() if job.method.endswith(name)), 1.0)


def estimate(doing: Sequence[Doing], known: dict[tuple, SSLData], machine: Machine, workers: int) -> float:
    """Seconds for all that is waiting, from a short timing of each kind of run."""
    kinds: dict[str, tuple[Job, int]] = {}
    for d in doing:
        if d.state == "waiting":
            kind = json.dumps([d.job.method, d.job.data, d.job.train, d.job.arguments], sort_keys=True)
            kinds[kind] = (d.job, kinds.get(kind, (d.job, 0))[1] + 1)
    threads = torch.get_num_threads()
    torch.set_num_threads(machine.threads or threads)
    try:
        total = sum(seconds_a_run(job, job.opened(known), machine) * count for job, count in kinds.values())
    finally:
        torch.set_num_threads(threads)
    return total / max(1, workers)


def shape(count: int, workers: int | None = None) -> tuple[int, int]:
    """Workers and threads of each, for so many runs on this machine: a run a GPU, else as many as cores allow."""
    gpus = torch.cuda.device_count()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = max(1, min(workers or gpus or cores, count))
    return workers, max(1, cores // workers)


def reachable(scheduler: str) -> None:
    """Raise InputError unless a dask scheduler answers there. (A Client that fails lingers.)"""
    async def shake_hands() -> None:
        comm = await connect(scheduler, timeout=CONNECT_SECONDS)
        await comm.close()

    try:
        asyncio.run(asyncio.wait_for(shake_hands(), CONNECT_SECONDS + 1))
    except Exception as error:                          # whatever listens there may send anything
        reason = str(error).splitlines()[0] if str(error) else "no answer"
        raise InputError(f"the scheduler at {scheduler} cannot be reached: {reason}") from error


@contextmanager
def connected(scheduler: str | None, workers: int) -> Iterator[Client]:
    """A client of the scheduler at that address, or of a cluster of our own. InputError where it cannot be reached."""
    with dask.config.set(CONFIG):
        if scheduler is not None:
            with Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False) as client:
                yield client
            return
        spec = {k: {"cls": Nanny, "options": {"nthreads": 1, "memory_limit": 0, "env": only}} for k, only in enumerate(sees(workers))}
        plan = {"cls": Scheduler, "options": {"dashboard": False, "dashboard_address": "127.0.0.1:0", "host": "127.0.0.1", "port": 0}}
        with SpecCluster(spec, plan, silence_logs=50) as cluster, Client(cluster, set_as_default=False) as client:
            yield client


def sees(workers: int) -> list[dict[str, str]]:
    """The environment of each worker of this machine: of several GPUs each sees one."""
    gpus = torch.cuda.device_count()
    return [{"CUDA_VISIBLE_DEVICES": str(k % gpus)} if gpus else {} for k in range(workers)]


def run_batch(jobs: Sequence[Job], *, scheduler: str | None = None, workers: int | None = None, stream=None) -> Batch:
    """Do all `jobs`; returns how each went. Prints what there is to do and about how long it takes, then shows it live.

    scheduler: address of a dask scheduler whose workers share the store (default: a cluster of this machine). workers: how many runs at a
    time here. A run that fails is kept with its error in the store's failed/, the others go on. Ctrl-C and SIGTERM save what runs and raise
    KeyboardInterrupt. Raises InputError where the scheduler cannot be reached or the store not be written.
    """
    screen = Screen(stream or sys.stderr)
    workers, threads = shape(len(jobs), workers)
    machine = Machine(threads=None if scheduler else threads)
    folder = store().absolute()
    if scheduler is not None:
        with dask.config.set(CONFIG):
            reachable(scheduler)
    doing, known = prepared(jobs, machine)
    batch = Batch(doing, workers=workers)
    todo = [d for d in doing if d.state == "waiting"]
    there = f"{len(doing)} runs: {len(doing) - len(todo)} found in the store"
    if not todo:
        screen.say(there)
        return batch
    writable(folder)
    with connected(scheduler, min(workers, len(todo))) as client:
        if scheduler is None:
            batch.workers = min(workers, len(todo))
            batch.estimate = estimate(todo, known, machine, batch.workers)
            about = f", about {clock(batch.estimate)}"
        else:
            batch.workers, about = len(client.scheduler_info(n_workers=-1)["workers"]), ""
        where = f" with {threads} thread{'s' * (threads > 1)} each" if scheduler is None else f" at {scheduler}"
        screen.say(f"{there}, {len(todo)} to train on {batch.workers} worker{'s' * (batch.workers != 1)}{where}{about}")
        batch.began = time.monotonic()
        attend(batch, todo, client, folder, None if scheduler else threads, screen)
    failed = [d for d in doing if d.state == "failed"]
    for d in failed:
        screen.say(f"failed: {d.job.name}: {d.error}")
    screen.say(f"{len(doing)} runs: {batch.count('trained')} trained, {batch.count('found')} found, {len(failed)} failed, in "
               f"{clock(time.monotonic() - batch.began)}")
    return batch


def writable(folder: Path) -> None:
    """Raise InputError where the store cannot be written."""
    probe = folder / f".probe-{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x" * 65536)
    except OSError as error:
        raise InputError(f"the store {folder} cannot be written: {error.strerror}") from error
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)


def attend(batch: Batch, todo: list[Doing], client: Client, folder: Path, threads: int | None, screen: Screen) -> None:
    """Submit what is to do, look after it, and show it, until all is done or somebody asks to stop."""
    stop = folder / f".stop-{uuid.uuid4().hex}"
    passed_on = ("SSLKIT_LEASE_SECONDS", "SSLKIT_DATA", "SSLKIT_CACHE")
    environment = {"SSLKIT_RUNS": str(folder)} | {name: os.environ[name] for name in passed_on if name in os.environ}
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)

    def submit(d: Doing):
        d.state = "waiting"
        spec = {"job": asdict(d.job), "threads": threads, "stop": str(stop), "environment": environment, "ahead": len(todo) > batch.workers}
        return client.submit(work, spec, key=f"{d.job.name}-{uuid.uuid4().hex[:6]}", pure=False)

    futures = {submit(d): d for d in todo}
    again: dict[str, int] = {}
    elsewhere: list[Doing] = []
    shown = 0.0
    with stop_signals() as asked:
        while futures or elsewhere:
            if asked.is_set():
                break
            time.sleep(0.2)
            for future in [f for f in futures if f.done()]:
                d = futures.pop(future)
                outcome = answer(future)
                d.state, d.error = outcome["state"], outcome.get("error", "")
                if d.state == "elsewhere":
                    elsewhere.append(d)
                elif d.state in ("died", "stopped") and again.setdefault(d.job.name, 0) < 1:
                    again[d.job.name] += 1              # its process or its worker was killed: once more
                    futures[submit(d)] = d
                elif d.state in ("died", "stopped"):
                    d.state, d.error = "failed", d.error or "it was stopped twice"
            for d in list(elsewhere):
                if Run(d.path).result is not None:
                    d.state = "found"
                    elsewhere.remove(d)
                elif not held(lease_of(folder, d.path)):
                    elsewhere.remove(d)
                    futures[submit(d)] = d
            if time.monotonic() - shown > screen.pause:
                shown = time.monotonic()
                mark_running(batch, folder)
                screen.show(overview(batch, screen.height))
        if asked.is_set():
            screen.show([])
            screen.say("stopping: what runs is being saved")
            stop.touch()
            client.cancel([f for f, d in futures.items() if d.state == "waiting"], force=True)
            wait_until_saved([d for d in futures.values() if d.state == "running"], folder)
            with suppress(OSError):
                stop.unlink()
            raise KeyboardInterrupt
    screen.show([])


def answer(future) -> dict:
    """What a finished task says; that its worker was killed is an answer too."""
    try:
        return future.result()
    except KilledWorker:
        return {"state": "died", "error": "its worker was killed"}
    except Exception as error:                          # dask's own
        return {"state": "died", "error": f"{type(error).__name__}: {error}"}


def mark_running(batch: Batch, folder: Path) -> None:
    """Which of the waiting ones are at work, by their leases."""
    for d in batch.doing:
        if d.state in ("waiting", "running"):
            d.state = "running" if held(lease_of(folder, d.path)) else "waiting"


def wait_until_saved(running: list[Doing], folder: Path, seconds: float = 30) -> None:
    """Until their leases are given back."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(held(lease_of(folder, d.path)) for d in running):
        time.sleep(0.1)


def overview(batch: Batch, height: int = 24) -> list[str]:
    """The live picture, a few lines: how many are done, what runs with step and accuracy, how long it may still take."""
    done, total = batch.count("trained", "found"), len(batch.doing)
    left = batch.left
    head = (f"{done} of {total} runs done, {batch.count('running')} running, {batch.count('failed')} failed"
            + (f", {batch.count('elsewhere')} in another batch" if batch.count("elsewhere") else "")
            + (f", about {clock(left)} left" if left is not None else ""))
    lines = []
    for d in batch.doing:
        if d.state == "running":
            lines.append(f"  {d.job.method:16} {d.job.data} {d.job.labels} seed {d.job.seed}  {d.at}")
    most = max(1, height - 3)
    return [head, *lines[:most], *([f"  and {len(lines) - most} more"] if len(lines) > most else [])]


def errors(folder: Path | None = None) -> list[dict]:
    """The failed runs of a store: job, run, error, traceback, at."""
    found = []
    for path in sorted(failures(folder or store()).glob("*.json")):
        with suppress(OSError, ValueError):
            found.append(json.loads(path.read_text()))
    return found


def at_work(folder: Path) -> list[str]:
    """Lines of what is at work in a store, whoever does it: each run with its step and accuracy; and how many are finished and failed."""
    runs = [path.parent for path in folder.glob("*/config.json")]
    lines, finished = [], 0
    for path in runs:
        if (path / "result.json").exists():
            finished += 1
        elif held(lease_of(folder, path)) or any(is_locked(lock.parent) for lock in path.rglob(".lock")):
            with suppress(InputError, KeyError, TypeError):
                config = Run(path).config
                doing = Doing(None, path, steps=config["train"]["steps"])
                data = f"{config['data']['name']} {config['data']['labels']}"
                lines.append(f"  {config['method']:16} {data} seed {config['train']['seed']}  {doing.at}")
    return [f"{len(lines)} running, {finished} finished, {len(errors(folder))} failed", *lines]
