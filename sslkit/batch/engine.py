"""The batch engine gives jobs to dask workers, on this machine or on workers that somebody has started.

The store is the only memory: finished jobs are found there and skipped, a run continues from its last checkpoint, and
two batches on one store share the work. After Ctrl-C or a crash, run the same command again to continue.
"""
import asyncio
import gc
import os
import pickle
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Literal

import torch
from distributed import Client, Future

from sslkit.batch.jobs import Job, keep_failure
from sslkit.batch.process import SAVE_SECONDS, end_spare, lease_of, work
from sslkit.batch.watch import busy, fit_height, progress
from sslkit.batch.workers import connected, reachable, worker_count, workers_and_threads
from sslkit.errors import InputError, require
from sslkit.files import Lease, age, content, held, stop_signals
from sslkit.methods import ALL
from sslkit.terminal import Screen, clock
from sslkit.training import CORE, RECIPE_CODE, Machine, store

GONE = "the scheduler is gone: run the same command again to continue"
TICKS = 5                            # looks at the running jobs, in a second
DAY = 86_400                         # seconds
MAX_STOPS = 5                        # a job that others stop more often has failed

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
    deaths: int = 0                      # of its process or worker
    stops: int = 0                       # by somebody else
    began: float = 0.0                   # time.monotonic() of its last start
    took: float = 0.0                    # seconds, if it is done
    planned: float = 1.0                 # seconds, or a share of the whole if the batch is not timed


@dataclass
class Batch:
    """All jobs, in order, and the figures of the whole."""
    doing: list[Doing]
    workers: int = 1
    timed: bool = False                  # is `planned` in seconds?

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


def plan(todo: Sequence[Doing], loaded: dict, machine: Machine) -> bool:
    """Set the planned seconds of each job, from a short timing of each kind. False if one cannot be timed here."""
    threads, seconds = torch.get_num_threads(), {}
    torch.set_num_threads(machine.threads or threads)
    try:
        for d in todo:
            if d.job.timing_key not in seconds:
                seconds[d.job.timing_key] = d.job.seconds(loaded, machine)
    except Exception:                                   # no weights, no memory: the run itself will say so
        return False
    finally:
        torch.set_num_threads(threads)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()                    # the workers need it
    for d in todo:
        d.planned = seconds[d.job.timing_key]
    return True


def plural(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def run_batch(jobs: Sequence[Job], *, scheduler: str | None = None, workers: int | None = None,
              on_change: Callable[[Doing], str | None] = lambda doing: None, stream=None) -> Batch:
    """Do all `jobs`; returns how each went. Prints about how long they take, then shows them live.

    scheduler: address of a dask scheduler whose workers share the store (default: a cluster on this machine, in other
    processes: a script needs `if __name__ == "__main__":`). workers: how many jobs run at a time here. on_change:
    called with each job whose state has changed; returns a line to print, or None. The store keeps the error of a
    failed job in failed/; the others continue. Ctrl-C and SIGTERM save the running jobs and raise KeyboardInterrupt.
    Raises InputError if the scheduler cannot be reached or goes, or if the store cannot be written.
    """
    folder, loaded = store().absolute(), {}
    if scheduler is not None:
        reachable(scheduler)
    batch = Batch([Doing(job, job.place(loaded, Machine())) for job in jobs])
    supervisor = Supervisor(batch, folder, Screen(stream or sys.stderr), on_change)
    for d in batch.doing:
        d.state = "found" if d.job.finished(d.path) else "waiting"
    todo, found = batch.those("waiting"), batch.those("found")
    supervisor.screen.say(f"{plural(len(jobs), jobs[0].noun)}: {len(found)} found in the store, {len(todo)} to do")
    for d in found:
        supervisor.changed(d)
    if not todo:
        return batch
    workers, threads = workers_and_threads(len(todo), workers)
    with Lease(lease_of(folder, f"batch-{uuid.uuid4().hex}")) as lease, connected(scheduler, workers) as client:
        if scheduler is None:
            batch.workers, where = workers, f"with {plural(threads, 'thread')} each"
            batch.timed = plan(todo, loaded, Machine(threads=threads))
        else:
            batch.workers, where, threads = worker_count(client), f"at {scheduler}", None
        about = "" if batch.left is None else f", about {clock(batch.left)}"
        supervisor.screen.say(f"on {plural(batch.workers, 'worker')} {where}{about}")
        supervisor.run(client, lease, threads)
    return batch


def process_environment(folder: Path, threads: int | None) -> dict[str, str]:
    """What each job's process has in its environment. A spare process that was started with another is not used."""
    found = {name: value for name, value in os.environ.items() if name.startswith("SSLKIT_")}
    code = [CORE, *RECIPE_CODE.values(), *(kind.code for kind in ALL)]
    if threads:                                         # dask sets all to 1
        found |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    return found | {"SSLKIT_RUNS": str(folder), "SSLKIT_CODE": " ".join(code)}


@dataclass
class Supervisor:
    """Gives each worker a job, notes how it went, and shows the whole, until all jobs have ended or a signal comes."""
    batch: Batch
    folder: Path                         # the store
    screen: Screen
    on_change: Callable[[Doing], str | None]
    client: Client | None = None         # once run() has begun
    futures: dict[Future, Doing] = field(default_factory=dict)      # of the jobs that a worker has

    def changed(self, d: Doing) -> None:
        """Tell the caller that a job's state has changed, and print what it returns."""
        if (line := self.on_change(d)) is not None:
            self.screen.say(line)

    def run(self, client: Client, lease: Lease, threads: int | None) -> None:
        """Do what is waiting. lease: of the batch; when it is given back, the workers save and stop their jobs."""
        self.client, machine = client, Machine(threads=threads)
        order = {"environment": process_environment(self.folder, threads), "batch": str(lease.path)}
        for old in lease.path.parent.glob("batch-*"):   # of batches that were killed
            with suppress(OSError):
                if age(old) > DAY:
                    old.unlink()
        with stop_signals() as asked:
            for tick in count():
                if asked.is_set() or not self.batch.count("waiting", "running", "elsewhere"):
                    break
                require(client.status == "running", GONE)
                self.submit(machine, order)
                time.sleep(1 / TICKS)
                self.collect()
                if tick % TICKS == 0:
                    self.batch.workers = worker_count(client)
                    self.screen.show(overview(self.batch, self.folder, self.screen.height))
                if tick % (5 * TICKS) == 0:
                    self.retry()
            self.screen.show([])
            if asked.is_set():
                lease.give_back()
                self.stop()
        with suppress(Exception):
            client.run(end_spare, on_error="ignore")

    def submit(self, machine: Machine, order: dict) -> None:
        """Give a waiting job to each worker that has none."""
        waiting, workers = self.batch.those("waiting"), max(1, self.batch.workers)
        while waiting and len(self.futures) < workers:
            d = waiting.pop(0)
            job = pickle.dumps((replace(d.job), machine))               # replace: without what it has cached here
            key = f"{d.job.name}-{uuid.uuid4().hex[:6]}"
            future = self.client.submit(work, job, **order, ahead=len(waiting) >= workers, key=key, pure=False)
            self.futures[future], d.state, d.began = d, "running", time.monotonic()
            self.changed(d)

    def collect(self) -> None:
        """Note how the jobs went that have ended."""
        for future in [future for future in self.futures if future.done()]:
            d = self.futures.pop(future)
            settle(d, answer(future, self.client), self.folder)
            self.changed(d)

    def retry(self) -> None:
        """Look again at the jobs of other processes: some are finished by now, others were given up."""
        for d in self.batch.those("elsewhere"):
            if d.job.finished(d.path):
                d.state = "found"
                self.changed(d)
            elif not (held(lease_of(self.folder, d.job.name)) or busy(d.path)):
                d.state = "waiting"

    def stop(self) -> None:
        """Wait while the workers save the running jobs, then raise KeyboardInterrupt."""
        self.screen.say("stopping: the running jobs are being saved")
        end = time.monotonic() + SAVE_SECONDS + 5
        while (time.monotonic() < end and self.client.status == "running" and worker_count(self.client)
               and not all(future.done() for future in self.futures)):
            time.sleep(0.1)
        for future, d in self.futures.items():          # some may have been finished meanwhile
            if future.status == "finished" and future.result()["state"] == "done":
                settle(d, future.result(), self.folder)
                self.changed(d)
        raise KeyboardInterrupt


def settle(d: Doing, outcome: dict, folder: Path) -> None:
    """Note how a job went. After its first death, and after a few stops by others, it waits for a worker again."""
    d.state, d.error, d.path = outcome["state"], outcome.get("error", ""), Path(outcome.get("run") or d.path)
    d.took = time.monotonic() - d.began
    if d.state in ("died", "stopped"):
        d.deaths, d.stops = d.deaths + (d.state == "died"), d.stops + (d.state == "stopped")
        if d.deaths > 1 or d.stops > MAX_STOPS:
            d.state, d.error = "failed", d.error or f"it was stopped {d.stops} times"
            keep_failure(folder, d.job, str(d.path), d.error)
        else:
            d.state = "waiting"


def answer(future: Future, client: Client) -> dict:
    """The outcome of a task that has ended, see process.work(); the state "died" if its worker was killed.

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


def overview(batch: Batch, folder: Path, height: int = 24) -> list[str]:
    """The live picture: a line with the numbers of jobs and the time left, and a line for each running job."""
    all_jobs, left = plural(len(batch.doing), batch.doing[0].job.noun), batch.left
    lines = [f"{batch.count('done', 'found')} of {all_jobs} done, {batch.count('running')} running, "
             f"{batch.count('failed')} failed"]
    if batch.count("elsewhere"):
        lines[0] += f", {batch.count('elsewhere')} in another process"
    if left is not None:
        lines[0] += f", about {clock(left)} left"
    if not batch.workers:
        lines[0] += ", waiting for a worker"
    for d in batch.those("running"):
        with suppress(OSError):                         # on another device it has another folder: the lease knows
            d.path = Path(content(lease_of(folder, d.job.name)).get("run") or d.path)
        lines.append(f"  {d.job.title}  {progress(d.path)}")
    return fit_height(lines, height)
