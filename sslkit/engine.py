"""The batch engine: jobs on dask.distributed, each in a process of its own; on this machine, or on workers that somebody has started.

What is finished is found by its configuration and skipped. A run that a dead worker was at goes on from its last checkpoint on another one.
The store is the only memory: a killed batch is given again and goes on; two batches on one store share the work.
"""
import asyncio
import gc
import json
import logging
import os
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import dask
import torch
from distributed import Client, Nanny, Scheduler, SpecCluster
from distributed.comm import connect

from sslkit.data import SSLData
from sslkit.disk import stop_signals
from sslkit.errors import InputError, require
from sslkit.jobs import CODE_OF, Job
from sslkit.lease import content, held
from sslkit.report import clock
from sslkit.runs import code_version, store
from sslkit.task import SAVE_SECONDS, keep_failure, lease_of
from sslkit.terminal import Screen
from sslkit.train import Machine, set_up, take_step
from sslkit.watch import at, busy, cut, has_result
from sslkit.work import work

CONNECT_SECONDS = 5
AGAIN_SECONDS = 5                    # between two looks at whether a run that somebody else is at can be had
STOPS = 5                            # how often a run may be stopped by others before it counts as failed
CONFIG = {"distributed.scheduler.worker-ttl": None, "distributed.comm.timeouts.connect": f"{CONNECT_SECONDS}s",
          "distributed.scheduler.allowed-failures": 0}
COST = {"kd-fixmatch": 2.0, "+hdl": 5 / 3}            # of a recipe, in runs of its method


@dataclass
class Doing:
    """A job of the batch and how it goes."""
    job: Job
    path: Path
    state: str = "waiting"               # running, found, trained, failed, elsewhere (another process is at it)
    error: str = ""
    deaths: int = 0                      # of its process or worker
    stops: int = 0
    tried: float = 0.0


@dataclass
class Batch:
    """All jobs, in order, and the figures of the whole."""
    doing: list[Doing]
    began: float = field(default_factory=time.monotonic)
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
    """The jobs with their folders, those that are finished as `found`; and the data by name and root. InputError where there is none."""
    known: dict[tuple, SSLData] = {}
    doing = []
    for job in jobs:
        path = job.path(job.opened(known), machine)
        doing.append(Doing(job, path, "found" if has_result(path) else "waiting"))
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


def estimate(doing: Sequence[Doing], known: dict[tuple, SSLData], machine: Machine, workers: int) -> float | None:
    """Seconds for all these, from a short timing of each kind of run; None where one cannot be timed here."""
    kinds: dict[str, tuple[Job, int]] = {}
    for d in doing:
        kind = json.dumps([d.job.method, d.job.data, d.job.train, d.job.arguments, d.job.steps], sort_keys=True)
        kinds[kind] = (d.job, kinds.get(kind, (d.job, 0))[1] + 1)
    threads = torch.get_num_threads()
    torch.set_num_threads(machine.threads or threads)
    try:
        return sum(seconds_a_run(job, job.opened(known), machine) * count for job, count in kinds.values()) / max(1, workers)
    except Exception:                                   # weights that are not there, no memory: the run itself will say so
        return None
    finally:
        torch.set_num_threads(threads)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()                    # the workers need it


def shape(count: int, workers: int | None = None) -> tuple[int, int]:
    """Workers and threads of each, for so many runs on this machine: a run a GPU, else as many as cores allow."""
    gpus = torch.cuda.device_count()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = max(1, min(workers or gpus or cores, count))
    return workers, max(1, cores // workers)


def sees(workers: int) -> list[dict[str, str]]:
    """The environment of each worker of this machine: of several GPUs each sees one of those that we see."""
    gpus = torch.cuda.device_count()
    names = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name] or [str(k) for k in range(gpus)]
    return [{"CUDA_VISIBLE_DEVICES": names[k % gpus]} if gpus else {} for k in range(workers)]


def reachable(scheduler: str) -> None:
    """Raise InputError unless a dask scheduler answers there. (A Client that fails lingers.)"""
    async def shake_hands() -> None:
        comm = await connect(scheduler, timeout=CONNECT_SECONDS)
        await comm.close()

    said = []

    def ask() -> None:                                  # in a thread of its own: a notebook has an event loop already
        try:
            asyncio.run(asyncio.wait_for(shake_hands(), CONNECT_SECONDS + 1))
        except Exception as error:                      # whatever listens there may send anything
            said.append(str(error).splitlines()[0] if str(error) else "no answer")

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    require(not said, f"the scheduler at {scheduler} cannot be reached: {''.join(said)}")


@contextmanager
def connected(scheduler: str | None, workers: int) -> Iterator[Client]:
    """A client of the scheduler at that address, or of a cluster of our own."""
    before = dict(os.environ)
    with dask.config.set(CONFIG):
        if scheduler is not None:
            with Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False) as client:
                yield client
            return
        alike = {"nthreads": 1, "memory_limit": 0, "silence_logs": logging.CRITICAL}
        spec = {k: {"cls": Nanny, "options": alike | {"env": only}} for k, only in enumerate(sees(workers))}
        quiet = {"dashboard": False, "dashboard_address": "127.0.0.1:0", "host": "127.0.0.1", "port": 0}
        try:
            with SpecCluster(spec, {"cls": Scheduler, "options": quiet}, silence_logs=logging.CRITICAL) as cluster:
                with Client(cluster, set_as_default=False) as client:
                    yield client
        finally:                                        # dask sets threads and more for its workers, in this process
            for name in os.environ.keys() - before.keys():
                del os.environ[name]
            os.environ.update(before)


def run_batch(jobs: Sequence[Job], *, scheduler: str | None = None, workers: int | None = None, stream=None) -> Batch:
    """Do all `jobs`; returns how each went. Prints what there is to do and about how long it takes, then shows it live.

    scheduler: address of a dask scheduler whose workers share the store (default: a cluster of this machine). workers: how many runs at a
    time here. A run that fails is kept with its error in the store's failed/, the others go on. Ctrl-C and SIGTERM save what runs and raise
    KeyboardInterrupt. Raises InputError where the scheduler cannot be reached or is gone, or the store not be written.
    """
    screen, folder = Screen(stream or sys.stderr), store().absolute()
    if scheduler is not None:
        with dask.config.set(CONFIG):
            reachable(scheduler)
    doing, known = prepared(jobs, Machine())
    batch, todo = Batch(doing), [d for d in doing if d.state == "waiting"]
    there = f"{len(doing)} runs: {len(doing) - len(todo)} found in the store"
    if not todo:
        screen.say(there)
        return batch
    writable(folder)
    workers, threads = shape(len(todo), workers)
    with connected(scheduler, workers) as client:
        if scheduler is None:
            batch.estimate = estimate(todo, known, Machine(threads=threads), workers)
            where = f" with {threads} thread{'s' * (threads > 1)} each"
        else:
            workers, threads, where = hands(client), None, f" at {scheduler}"
        about = f", about {clock(batch.estimate)}" if batch.estimate is not None else ""
        screen.say(f"{there}, {len(todo)} to train on {workers} worker{'s' * (workers != 1)}{where}{about}")
        batch.began = time.monotonic()
        attend(batch, todo, client, folder, threads, screen)
    failed = [d for d in doing if d.state == "failed"]
    for d in failed:
        screen.say(f"failed: {d.job.name}: {d.error}")
    screen.say(f"{len(doing)} runs: {batch.count('trained')} trained, {batch.count('found')} found, {len(failed)} failed, in "
               f"{clock(time.monotonic() - batch.began)}")
    return batch


def hands(client: Client) -> int:
    """How many workers there are."""
    return len(client.scheduler_info(n_workers=-1)["workers"])


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


def attend(batch: Batch, queue: list[Doing], client: Client, folder: Path, threads: int | None, screen: Screen) -> None:
    """Give the workers what is to do, a job for each, look after it, and show it, until all is done or somebody asks to stop."""
    stop, queue = folder / f".stop-{uuid.uuid4().hex}", list(queue)
    kept = ("SSLKIT_LEASE_SECONDS", "SSLKIT_DATA", "SSLKIT_CACHE")
    environment = {name: os.environ[name] for name in kept if name in os.environ} | {
        "SSLKIT_RUNS": str(folder), "SSLKIT_CODE": " ".join(code_version(*names)["hash"] for names in CODE_OF)}
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    futures: dict = {}
    elsewhere: list[Doing] = []
    shown = counted = -1e9
    workers = 1
    try:
        with stop_signals() as asked:
            while (queue or futures or elsewhere) and not asked.is_set():
                if client.status != "running":
                    raise InputError("the scheduler is gone: give the batch again, it goes on with what is not finished")
                if time.monotonic() - counted > 2:
                    workers, counted = max(1, hands(client)), time.monotonic()
                while queue and len(futures) < workers:
                    d = queue.pop(0)
                    spec = {"job": asdict(d.job), "threads": threads, "stop": str(stop), "environment": environment, "ahead": bool(queue)}
                    futures[client.submit(work, spec, key=f"{d.job.name}-{uuid.uuid4().hex[:6]}", pure=False)] = d
                    d.state = "running"
                time.sleep(0.2)
                for future in [future for future in futures if future.done()]:
                    d = futures.pop(future)
                    take(d, answer(future, client), queue, elsewhere, folder)
                for d in [d for d in elsewhere if time.monotonic() - d.tried > AGAIN_SECONDS]:
                    d.tried = time.monotonic()
                    if has_result(d.path):
                        d.state = "found"
                        elsewhere.remove(d)
                    elif not (held(lease_of(folder, d.job.name)) or busy(d.path)):
                        elsewhere.remove(d)
                        queue.append(d)
                if time.monotonic() - shown > screen.pause:
                    shown = time.monotonic()
                    screen.show(overview(batch, folder, screen.height))
            screen.show([])
            if asked.is_set():
                screen.say("stopping: what runs is being saved")
                with suppress(OSError):
                    stop.touch()
                end = time.monotonic() + SAVE_SECONDS + 5
                while time.monotonic() < end and client.status == "running" and not all(future.done() for future in futures):
                    time.sleep(0.1)
                raise KeyboardInterrupt
    finally:
        with suppress(OSError):
            stop.unlink()


def take(d: Doing, outcome: dict, queue: list[Doing], elsewhere: list[Doing], folder: Path) -> None:
    """Note how a job went; one whose process or worker was killed is given once more."""
    d.state, d.error, d.path = outcome["state"], outcome.get("error", ""), Path(outcome.get("run") or d.path)
    if d.state == "elsewhere":
        d.tried = time.monotonic()
        elsewhere.append(d)
    elif d.state in ("died", "stopped"):
        d.deaths, d.stops = d.deaths + (d.state == "died"), d.stops + (d.state == "stopped")
        if d.deaths > 1 or d.stops > STOPS:
            d.state, d.error = "failed", d.error or f"it was stopped {d.stops} times"
            keep_failure(folder, d.job.name, asdict(d.job), str(d.path), d.error)
        else:
            d.state = "waiting"
            queue.insert(0, d)


def answer(future, client: Client) -> dict:
    """What a finished task says; that its worker was killed is an answer too."""
    try:
        return future.result()
    except (Exception, asyncio.CancelledError) as error:                        # KilledWorker, and whatever else dask has
        if client.status != "running" or future.cancelled():
            raise InputError("the scheduler is gone: give the batch again, it goes on with what is not finished") from error
        return {"state": "died", "error": "its worker was killed" if type(error).__name__ == "KilledWorker" else str(error)}


def overview(batch: Batch, folder: Path, height: int = 24) -> list[str]:
    """The live picture, a few lines: how many are done, what runs with step and accuracy, how long it may still take."""
    left, elsewhere = batch.left, batch.count("elsewhere")
    head = (f"{batch.count('trained', 'found')} of {len(batch.doing)} runs done, {batch.count('running')} running, "
            f"{batch.count('failed')} failed" + f", {elsewhere} in another process" * bool(elsewhere)
            + (f", about {clock(left)} left" if left is not None else ""))
    lines = []
    for d in batch.doing:
        if d.state == "running":
            with suppress(OSError):                     # on another device it may be another folder: the lease knows
                d.path = Path(content(lease_of(folder, d.job.name)).get("run") or d.path)
            lines.append(f"  {d.job.method:16} {d.job.data} {d.job.labels} seed {d.job.seed}  {at(d.path)}")
    return cut([head, *lines], height)
