"""The batch engine: jobs on dask.distributed, each in a process of its own; on this machine, or on workers that somebody has started.

What is finished is found by its configuration and skipped. A run that a dead worker was at goes on from its last checkpoint on another one.
The store is the only memory: a killed batch is given again and goes on; two batches on one store share the work.
"""
import asyncio
import gc
import os
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from distributed import Client

from sslkit.batch.execute_notebook import NotebookJob
from sslkit.batch.process import SAVE_SECONDS, end_spare, keep_failure, lease_of, work
from sslkit.batch.watch import at, busy, cut
from sslkit.batch.workers import connected, hands, reachable, shape
from sslkit.errors import InputError, require
from sslkit.files import Lease, age, content, held, stop_signals
from sslkit.terminal import Screen, clock
from sslkit.training import CODE_OF, Job, Machine, code_version, store

GONE = "the scheduler is gone: give the batch again, it goes on with what is not finished"
AGAIN_SECONDS = 5                    # between two looks at whether a run that somebody else is at can be had
DAY = 86_400
STOPS = 5                            # how often a run may be stopped by others before it counts as failed


@dataclass
class Doing:
    """A job of the batch and how it goes."""
    job: Job | NotebookJob
    path: Path
    state: str = "waiting"               # running, found, done, failed, elsewhere (another process is at it)
    error: str = ""
    deaths: int = 0                      # of its process or worker
    stops: int = 0
    tried: float = 0.0
    began: float = 0.0
    took: float = 0.0                    # seconds, of one that is done
    planned: float = 1.0                 # seconds, or where they are not known a share


@dataclass
class Batch:
    """All jobs, in order, and the figures of the whole."""
    doing: list[Doing]
    workers: int = 1
    timed: bool = False                  # was the time that they take planned?

    def count(self, *states: str) -> int:
        return sum(d.state in states for d in self.doing)

    @property
    def left(self) -> float | None:
        """Seconds left, as planned, at the pace of what is done; None while nothing is known."""
        done, now = [d for d in self.doing if d.state == "done"], time.monotonic()
        if not (done or self.timed):
            return None
        pace = sum(d.took for d in done) / sum(d.planned for d in done) if done else 1.0
        each = [max(0.0, pace * d.planned - (now - d.began)) for d in self.doing if d.state == "running"]
        each += [pace * d.planned for d in self.doing if d.state in ("waiting", "elsewhere")]
        return max([sum(each) / max(1, self.workers), *each])


def prepared(jobs: Sequence[Job | NotebookJob], machine: Machine) -> tuple[list[Doing], dict]:
    """The jobs with their folders, those that are finished as `found`; and the data by name and root. InputError where there is none."""
    known: dict = {}
    doing = []
    for job in jobs:
        path = job.place(known, machine)
        doing.append(Doing(job, path, "found" if job.finished(path) else "waiting"))
    return doing, known


def plan(todo: Sequence[Doing], known: dict, machine: Machine) -> bool:
    """Note how long each may take, from a short timing of each kind. False, and nothing noted, where one cannot be timed here."""
    threads, seconds = torch.get_num_threads(), {}
    torch.set_num_threads(machine.threads or threads)
    try:
        for d in todo:
            if d.job.kind not in seconds:
                seconds[d.job.kind] = d.job.seconds(known, machine)
    except Exception:                                   # weights that are not there, no memory: the run itself will say so
        return False
    finally:
        torch.set_num_threads(threads)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()                    # the workers need it
    for d in todo:
        d.planned = seconds[d.job.kind]
    return True


def run_batch(jobs: Sequence[Job | NotebookJob], *, scheduler: str | None = None, workers: int | None = None,
              told: Callable[[Doing], str | None] = lambda doing: None, stream=None) -> Batch:
    """Do all `jobs`; returns how each went. Prints what there is to do and about how long it takes, then shows it live.

    scheduler: address of a dask scheduler whose workers share the store (default: a cluster of this machine, of processes of their own: a
    script needs `if __name__ == "__main__":`). workers: how many at a time here. told: called with each job whose state is another; what it
    returns is a line that stays. A job that fails is kept with its error in the store's failed/, the others go on. Ctrl-C and SIGTERM save
    what runs and raise KeyboardInterrupt. Raises InputError where the scheduler cannot be reached or is gone, or the store not be written.
    """
    screen, folder = Screen(stream or sys.stderr), store().absolute()
    if scheduler is not None:
        reachable(scheduler)
    doing, known = prepared(jobs, Machine())
    batch, todo, noun = Batch(doing), [d for d in doing if d.state == "waiting"], jobs[0].noun
    there = f"{len(doing)} {noun}{'s' * (len(doing) > 1)}: {len(doing) - len(todo)} found in the store"
    found = [d for d in doing if d.state == "found"]
    if not todo:
        screen.say(there)
        for d in found:
            say(screen, told(d))
        return batch
    writable(folder)
    workers, threads = shape(len(todo), workers)
    with connected(scheduler, workers) as client:
        if scheduler is None:
            batch.timed, where = plan(todo, known, Machine(threads=threads)), f" with {threads} thread{'s' * (threads > 1)} each"
        else:
            workers, threads, where = hands(client), None, f" at {scheduler}"
        batch.workers = workers
        about = f", about {clock(batch.left)}" if batch.left is not None else ""
        screen.say(f"{there}, {len(todo)} to do on {workers} worker{'s' * (workers != 1)}{where}{about}")
        for d in found:
            say(screen, told(d))
        attend(batch, todo, client, folder, threads, screen, told)
    return batch


def say(screen: Screen, text: str | None) -> None:
    """A line that stays, if there is one."""
    if text is not None:
        screen.say(text)


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


def attend(batch: Batch, queue: list[Doing], client: Client, folder: Path, threads: int | None, screen: Screen,
           told: Callable[[Doing], str | None]) -> None:
    """Give the workers what is to do, a job for each, look after it, and show it, until all is done or somebody asks to stop."""
    queue = list(queue)
    kept = ("SSLKIT_LEASE_SECONDS", "SSLKIT_DATA", "SSLKIT_CACHE")
    environment = {name: os.environ[name] for name in kept if name in os.environ} | {
        "SSLKIT_RUNS": str(folder), "SSLKIT_CODE": " ".join(code_version(*names)["hash"] for names in CODE_OF)}
    if threads:
        environment |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))     # dask sets all to 1
    futures: dict = {}
    elsewhere: list[Doing] = []
    shown = counted = -1e9
    for old in (folder / "leases").glob("batch-*"):     # of batches that were killed
        with suppress(OSError):
            if age(old) > DAY:
                old.unlink()
    with Lease(lease_of(folder, f"batch-{uuid.uuid4().hex}")) as alive, stop_signals() as asked:
        spec = {"threads": threads, "batch": str(alive.path), "environment": environment}
        while (queue or futures or elsewhere) and not asked.is_set():
            if client.status != "running":
                raise InputError(GONE)
            if time.monotonic() - counted > 2:
                batch.workers, counted = hands(client), time.monotonic()
            while queue and len(futures) < max(1, batch.workers):
                d = queue.pop(0)
                one = {**spec, "kind": d.job.noun, "job": d.job.values, "ahead": len(queue) >= max(1, batch.workers)}
                futures[client.submit(work, one, key=f"{d.job.name}-{uuid.uuid4().hex[:6]}", pure=False)] = d
                d.state, d.began = "running", time.monotonic()
                say(screen, told(d))
            time.sleep(0.2)
            for future in [future for future in futures if future.done()]:
                d = futures.pop(future)
                take(d, answer(future, client), queue, elsewhere, folder)
                say(screen, told(d))
            for d in [d for d in elsewhere if time.monotonic() - d.tried > AGAIN_SECONDS]:
                d.tried = time.monotonic()
                if d.job.finished(d.path):
                    d.state = "found"
                    elsewhere.remove(d)
                    say(screen, told(d))
                elif not (held(lease_of(folder, d.job.name)) or busy(d.path)):
                    elsewhere.remove(d)
                    queue.append(d)
            if time.monotonic() - shown > screen.pause:
                shown = time.monotonic()
                screen.show(overview(batch, folder, screen.height))
        screen.show([])
        alive.give_back()
        if asked.is_set():
            screen.say("stopping: what runs is being saved")
            end = time.monotonic() + SAVE_SECONDS + 5
            while time.monotonic() < end and client.status == "running" and hands(client) and not all(f.done() for f in futures):
                time.sleep(0.1)
            for future, d in futures.items():           # some may have ended meanwhile
                if future.status == "finished" and (outcome := future.result())["state"] == "done":
                    take(d, outcome, queue, elsewhere, folder)
                    say(screen, told(d))
            raise KeyboardInterrupt
        with suppress(Exception):
            client.run(end_spare, on_error="ignore")


def take(d: Doing, outcome: dict, queue: list[Doing], elsewhere: list[Doing], folder: Path) -> None:
    """Note how a job went; one whose process or worker was killed is given once more."""
    d.state, d.error, d.path = outcome["state"], outcome.get("error", ""), Path(outcome.get("run") or d.path)
    d.took = time.monotonic() - d.began
    if d.state == "elsewhere":
        d.tried = time.monotonic()
        elsewhere.append(d)
    elif d.state in ("died", "stopped"):
        d.deaths, d.stops = d.deaths + (d.state == "died"), d.stops + (d.state == "stopped")
        if d.deaths > 1 or d.stops > STOPS:
            d.state, d.error = "failed", d.error or f"it was stopped {d.stops} times"
            keep_failure(folder, d.job.name, d.job.values, str(d.path), d.error)
        else:
            d.state = "waiting"
            queue.insert(0, d)


def answer(future, client: Client) -> dict:
    """What a finished task says; that its worker was killed is an answer too. InputError for what no other worker would do better."""
    try:
        outcome = future.result()
    except (Exception, asyncio.CancelledError) as error:                        # KilledWorker, and whatever else dask has
        if client.status != "running" or future.cancelled():
            raise InputError(GONE) from error
        require("deserializ" not in str(error), "the scheduler or a worker has no sslkit, or another one: start them with this Python or "
                "one like it")
        return {"state": "died", "error": "its worker was killed" if type(error).__name__ == "KilledWorker" else str(error)}
    require(outcome["state"] != "blind", f"a worker on {outcome.get('error')} does not see the store {store().absolute()}: it has to be "
            "the same folder under the same path everywhere")
    return outcome


def overview(batch: Batch, folder: Path, height: int = 24) -> list[str]:
    """The live picture, a few lines: how many are done, what runs and how far it is, how long it may still take."""
    left, elsewhere, noun = batch.left, batch.count("elsewhere"), batch.doing[0].job.noun
    head = (f"{batch.count('done', 'found')} of {len(batch.doing)} {noun}s done, {batch.count('running')} running, "
            f"{batch.count('failed')} failed" + f", {elsewhere} in another process" * bool(elsewhere)
            + (f", about {clock(left)} left" if left is not None else "") + ", no worker there: waiting" * (not batch.workers))
    lines = []
    for d in batch.doing:
        if d.state == "running":
            with suppress(OSError):                     # on another device it may be another folder: the lease knows
                d.path = Path(content(lease_of(folder, d.job.name)).get("run") or d.path)
            lines.append(f"  {d.job.said}  {at(d.path)}")
    return cut([head, *lines], height)
