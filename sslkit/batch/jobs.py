"""A run as a job of a batch (a notebook: execute_notebook.NotebookJob), and how the process of a job does it."""
import json
import shlex
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import ClassVar, Protocol

import torch

from sslkit.batch.process import lease_of
from sslkit.errors import Busy
from sslkit.files import Lease, write_json
from sslkit.training import DataSpec, Machine, Propagate, RunSpec, Select, Stopped, has_result, set_up, store, take_step

COST = {Select: 2.0, Propagate: 5 / 3}                 # of a recipe, in runs of its method


class Job(Protocol):
    """What the engine needs to know of a job. loaded: keeps the data sets, for several jobs."""
    noun: ClassVar[str]                 # run, notebook
    name: str                           # short, differs for jobs that differ, the same on every machine
    title: str                          # one-line label for logs
    timing_key: str                     # key under which run times are shared
    command: str                        # the command that does the same

    def place(self, loaded: dict, machine: Machine) -> Path: ...        # its folder; InputError if the data is missing
    def finished(self, path: Path) -> bool: ...                         # is it finished, in the folder `path`?
    def do(self, loaded: dict, machine: Machine) -> None: ...           # do it, or continue it
    def seconds(self, loaded: dict, machine: Machine) -> float: ...     # about how long it takes here


@dataclass(frozen=True)
class RunJob:
    """A run as a Job."""
    spec: RunSpec
    noun: ClassVar[str] = "run"

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def title(self) -> str:
        return f"{self.spec.title:16} {self.spec.data.data} {self.spec.data.labels} seed {self.spec.train.seed}"

    @property
    def timing_key(self) -> str:
        data = DataSpec(self.spec.data.data, size=self.spec.data.size)                  # without the split
        return repr(replace(self.spec, data=data, train=replace(self.spec.train, seed=0)))

    @property
    def command(self) -> str:
        return shlex.join(["sslkit", *self.spec.argv()])

    def place(self, loaded: dict, machine: Machine = Machine()) -> Path:
        return self.spec.path(self.spec.load(loaded), machine)

    def finished(self, path: Path) -> bool:
        return has_result(path)

    def do(self, loaded: dict, machine: Machine = Machine()) -> None:
        self.spec.run(self.spec.load(loaded), machine)

    def seconds(self, loaded: dict, machine: Machine, steps: int = 8) -> float:
        """From the median of a few steps."""
        data = self.spec.load(loaded)
        method, config = self.spec.make(**self.spec.arguments), self.spec.train.resolve(data, machine.torch_device())
        nets, optimizer, feed = set_up(method, data, config, machine)
        times = []
        for step in range(steps + 2):                   # the first two are slow
            begin = time.perf_counter()
            take_step(method, nets, optimizer, feed, step)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times.append(time.perf_counter() - begin)
        return median(times[2:]) * config.steps * COST.get(type(self.spec.recipe), 1.0)


def failures(store: Path) -> Path:
    """Where the store keeps the errors of failed jobs, a file each."""
    return store / "failed"


def keep_failure(store: Path, job: Job, run: str, error: str, trace: str = "") -> None:
    """Write why a job failed into the store, if possible."""
    with suppress(Exception):
        failures(store).mkdir(parents=True, exist_ok=True)
        write_json(failures(store) / f"{job.name}.json", {
            "command": job.command, "run": run, "error": error, "traceback": trace,
            "at": datetime.now().isoformat(timespec="seconds")})


def set_aside(folder: Path) -> None:
    """Rename results that are no JSON, in the run's folder and its stages', so that they are made again."""
    for path in sorted(folder.rglob("result.json")):
        try:
            good = isinstance(json.loads(path.read_text()), dict)
        except ValueError:
            good = False
        if not good:
            path.rename(path.with_name(f"result.json.corrupt-{datetime.now():%Y%m%d-%H%M%S}"))


def perform(job: Job, machine: Machine) -> dict:
    """Do a job, in its own process. Returns {"state": done, found, elsewhere (another process does it), stopped or
    failed, "run": its folder, "error": why it failed}."""
    folder, run, loaded = store(), "", {}
    try:
        machine.apply()
        path = job.place(loaded, machine)
        run = str(path)
        with Lease(lease_of(folder, job.name), run) as lease:
            if not lease.taken:
                return {"state": "elsewhere", "run": run}
            set_aside(path)
            found = job.finished(path)
            if not found:
                job.do(loaded, machine)
            (failures(folder) / f"{job.name}.json").unlink(missing_ok=True)
            return {"state": "found" if found else "done", "run": run}
    except Busy:
        return {"state": "elsewhere", "run": run}
    except (Stopped, KeyboardInterrupt):
        return {"state": "stopped", "run": run}
    except Exception as error:                          # whatever it is, the other jobs continue
        message = f"{type(error).__name__}: {error}"[:2000]
        keep_failure(folder, job, run, message, traceback.format_exc())
        return {"state": "failed", "run": run, "error": message}
