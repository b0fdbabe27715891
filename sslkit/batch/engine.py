"""The batch engine gives jobs to dask workers, on this machine or on workers that somebody has started.

The store is the only memory: finished jobs are found there and skipped, a run continues from its last checkpoint, and
two batches on one store share the work. After Ctrl-C or a crash, run the same command again to continue.
"""
import asyncio
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Literal, TextIO

import torch
from distributed import Client, Event, Future

from sslkit.batch.jobs import Job, failures, keep_failure, make_room
from sslkit.batch.process import SAVE_SECONDS, lease_of
from sslkit.batch.process import run as run_job
from sslkit.batch.watch import busy, fit_height, progress
from sslkit.batch.workers import connected, gpus, reachable, worker_count, workers_and_threads
from sslkit.errors import InputError, require
from sslkit.files import cannot_write, content, held, stop_signals
from sslkit.terminal import Screen, clock
from sslkit.training import has_result, store

GONE = "the scheduler is gone: run the same command again to continue"
TICKS = 5                            # looks at the running jobs, in a second
TRIES = {"died": 2, "stopped": 6}    # of a job whose process or worker is killed, or stopped by others

State = Literal["waiting",           # for a worker
                "running",           # in a worker of this batch
                "found",             # finished before, or by another process
                "done",              # finished by this batch
                "failed",            # its error is in the store's failed/
                "elsewhere"]         # another process does it, or did when we last looked


@dataclass
class Doing:
    """A job of the batch, its folder, and how it goes."""
    job: Job
    path: Path
    state: State = "waiting"
    error: str = ""
    tries: int = 0                       # that were cut off by somebody else
    began: float = 0.0                   # time.monotonic() of its last start
    took: float = 0.0                    # seconds, if it is done
    planned: float = 1.0                 # seconds, or a share of the whole if the batch is not timed


@dataclass
class Batch:
    """All jobs, in order. run() gives each worker one, notes how it went, and shows the whole, until all have ended or
    a signal comes."""
    doing: list[Doing]
    folder: Path = Path()                # the store
    on_change: Callable[[Doing], str | None] = lambda doing: None
    stream: TextIO | None = None
    workers: int = 1
    timed: bool = False                  # is `planned` in seconds?
    futures: dict[Future, Doing] = field(default_factory=dict)      # of the jobs that a worker has

    def __post_init__(self):
        self.screen = Screen(self.stream)

    def those(self, *states: State) -> list[Doing]:
        """The jobs in these states."""
        return [d for d in self.doing if d.state in states]

    def count(self, *states: State) -> int:
        """How many jobs are in these states."""
        return len(self.those(*states))

    @property
    def left(self) -> float | None:
        """Seconds left: the planned ones at the pace of the jobs that are done. None while nothing is known."""
        done, now, pace = self.those("done"), time.monotonic(), 1.0
        if done:
            pace = sum(d.took for d in done) / sum(d.planned for d in done)
        elif not self.timed:
            return None
        each = [max(0.0, pace * d.planned - (now - d.began)) for d in self.those("running")]
        each += [pace * d.planned for d in self.those("waiting", "elsewhere")]
        return max([sum(each) / max(1, self.workers), *each])

    def changed(self, d: Doing) -> None:
        """Tell the caller that a job's state has changed, and print what it returns."""
        if (line := self.on_change(d)) is not None:
            self.screen.say(line)

    def run(self, client: Client, threads: int | None) -> None:
        """Do what is waiting. threads: of each job on this machine; None for workers that somebody has started."""
        stop = Event(f"stop-{uuid.uuid4().hex}", client)
        environment = {name: value for name, value in os.environ.items() if name.startswith("SSLKIT_")}
        environment["SSLKIT_RUNS"] = str(self.folder)
        if threads:
            environment |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
        order = environment, gpus() if threads else [], str(self.folder), stop
        try:
            with stop_signals() as asked:
                for tick in count():
                    if asked.is_set() or not self.count("waiting", "running", "elsewhere"):
                        break
                    require(client.status == "running", GONE)
                    if tick % TICKS == 0:
                        self.workers = worker_count(client)
                        self.screen.show(overview(self, self.screen.height))
                    if tick % (5 * TICKS) == 0:
                        self.retry()
                    self.submit(client, order)
                    time.sleep(1 / TICKS)
                    self.collect(client)
                self.screen.show([])
                if asked.is_set():
                    self.stop(client, stop)
        finally:
            with suppress(Exception):                   # of an error, or of a scheduler that is gone
                stop.set()

    def submit(self, client: Client, order: tuple) -> None:
        """Give a waiting job to each worker that has none."""
        for d in self.those("waiting")[:max(1, self.workers) - len(self.futures)]:
            if not held(lease_of(self.folder, d.job.name)):
                make_room(d.job)
            future = client.submit(run_job, d.job.argv, *order, key=f"{d.job.name}-{uuid.uuid4().hex[:6]}", pure=False)
            self.futures[future], d.state, d.began = d, "running", time.monotonic()
            self.changed(d)

    def collect(self, client: Client) -> None:
        """Note how the jobs went that have ended."""
        for future in [future for future in self.futures if future.done()]:
            d = self.futures.pop(future)
            settle(d, answer(future, client), self.folder)
            self.changed(d)

    def retry(self) -> None:
        """Look again at the jobs of other processes: some are finished by now, others were given up."""
        for d in self.those("elsewhere"):
            if has_result(d.path):
                d.state = "found"
                self.changed(d)
            elif not (held(lease_of(self.folder, d.job.name)) or busy(d.path)):
                d.state = "waiting"

    def stop(self, client: Client, stop: Event) -> None:
        """Wait while the workers save the running jobs, then raise KeyboardInterrupt."""
        self.screen.say("stopping: the running jobs are being saved")
        with suppress(Exception):
            stop.set()
        end = time.monotonic() + SAVE_SECONDS + 5
        while (time.monotonic() < end and client.status == "running" and worker_count(client)
               and not all(future.done() for future in self.futures)):
            time.sleep(0.1)
        for future, d in self.futures.items():          # some may have been finished meanwhile
            if future.status == "finished" and future.result()["state"] == "done":
                settle(d, future.result(), self.folder)
                self.changed(d)
        raise KeyboardInterrupt


def plan(todo: Sequence[Doing], threads: int) -> bool:
    """Set the planned seconds of each job, with so many threads. False if one cannot be timed here."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for d in todo:
            d.planned = d.job.seconds()
        return True
    except Exception:                                   # no weights, no memory: the job itself will say so
        return False
    finally:
        torch.set_num_threads(before)
        torch.cuda.empty_cache()                        # the jobs need it


def plural(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def run_batch(jobs: Sequence[Job], *, scheduler: str | None = None, workers: int | None = None,
              on_change: Callable[[Doing], str | None] = lambda doing: None, stream=None) -> Batch:
    """Do all `jobs`; returns how each went. Prints about how long they take, then shows them live.

    scheduler: address of a dask scheduler whose workers share the store (default: workers in this process). workers:
    how many jobs run at a time here. on_change: called with each job whose state has changed; returns a line to print,
    or None. The store keeps the error of a failed job in failed/; the others continue. Ctrl-C and SIGTERM save the
    running jobs and raise KeyboardInterrupt. Raises InputError if the scheduler cannot be reached or goes, or if the
    store cannot be written.
    """
    folder = store().absolute()
    if scheduler is not None:
        reachable(scheduler)
    doing = [Doing(job, job.path, "found" if has_result(job.path) and not job.again else "waiting") for job in jobs]
    batch = Batch(doing, folder, on_change, stream)
    todo, found = batch.those("waiting"), batch.those("found")
    batch.screen.say(f"{plural(len(jobs), jobs[0].noun)}: {len(found)} found in the store, {len(todo)} to do")
    for d in found:
        batch.changed(d)
    if not todo:
        return batch
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise cannot_write(folder, error) from error
    workers, threads = workers_and_threads(len(todo), workers)
    with connected(scheduler, workers) as client:
        if scheduler is None:
            batch.workers, where = workers, f"with {plural(threads, 'thread')} each"
            batch.timed = plan(todo, threads)
        else:
            batch.workers, where, threads = worker_count(client), f"at {scheduler}", None
        about = "" if batch.left is None else f", about {clock(batch.left)}"
        batch.screen.say(f"on {plural(batch.workers, 'worker')} {where}{about}")
        batch.run(client, threads)
    return batch


def settle(d: Doing, outcome: dict, folder: Path) -> None:
    """Note how a job went. After its first death, and after a few stops by others, it waits for a worker again."""
    d.state, d.error, d.path = outcome["state"], outcome.get("error", ""), Path(outcome.get("run") or d.path)
    d.took = time.monotonic() - d.began
    if d.state in TRIES:
        d.tries, most = d.tries + 1, TRIES[d.state]
        d.error = d.error if d.state == "died" else f"it was stopped {d.tries} times"
        d.state = "waiting" if d.tries < most else "failed"
    if d.state == "failed":
        keep_failure(folder, d.job, d.path, d.error, outcome.get("log", ""))
    elif d.state == "done":
        (failures(folder) / f"{d.job.name}.json").unlink(missing_ok=True)


def answer(future: Future, client: Client) -> dict:
    """The outcome of a task that has ended, see process.run(); the state "died" if its worker was killed.

    Raises InputError for what would happen on every worker.
    """
    try:
        outcome = future.result()
    except (Exception, asyncio.CancelledError) as error:                        # KilledWorker, and others of dask's
        if client.status != "running" or future.cancelled():
            raise InputError(GONE) from error
        require("deserializ" not in str(error), "the scheduler or a worker has no sslkit, or another version of it: "
                "start them with a Python that has the packages of this one")
        killed = type(error).__name__ == "KilledWorker"
        return {"state": "died", "error": "its worker was killed" if killed else str(error)}
    require(outcome["state"] != "blind", f"a worker on {outcome.get('error')} does not see the store "
            f"{store().absolute()}: all machines need the same folder under the same path")
    return outcome


def overview(batch: Batch, height: int = 24) -> list[str]:
    """The live picture: a line with the numbers of jobs and the time left, and a line for each running job."""
    parts = [f"{batch.count('done', 'found')} of {plural(len(batch.doing), batch.doing[0].job.noun)} done",
             f"{batch.count('running')} running", f"{batch.count('failed')} failed"]
    if batch.count("elsewhere"):
        parts.append(f"{batch.count('elsewhere')} in another process")
    if batch.left is not None:
        parts.append(f"about {clock(batch.left)} left")
    if not batch.workers:
        parts.append("waiting for a worker")
    lines = [", ".join(parts)]
    for d in batch.those("running"):
        with suppress(OSError):                         # on another device it has another folder: the lease knows
            d.path = Path(content(lease_of(batch.folder, d.job.name)).get("run") or d.path)
        lines.append(f"  {d.job.title}  {progress(d.path)}")
    return fit_height(lines, height)
