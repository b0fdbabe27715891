"""A job is a command line and the folder where its result is found; the errors of those that failed."""
import json
import platform
import shlex
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sslkit.batch.notebook_file import Lesson, job_name
from sslkit.files import cannot_write, digest, digest_files, store, write_json
from sslkit.training import DataSpec, Machine, RunSpec, has_result

LIBRARIES = ("torch", "torchvision", "numpy", "scikit-learn", "umap-learn", "matplotlib", "ipywidgets")


@dataclass(frozen=True, eq=False)
class Job:
    """A command line. It has done its work when there is a result.json in `path`; its exit code: see process.STATES."""
    name: str                           # of its lease and of the file of its error: short, the same on every machine
    argv: list[str]                     # the words of the command; the first, "sslkit", is this package in any Python
    path: Path                          # its folder, where the command finds the device that this process has
    title: str = ""                     # one-line label for logs
    noun: str = "run"                   # what it is called
    seconds: Callable[[], float] = lambda: 60.0     # about how long it takes here; may raise anything
    again: bool = False                 # do it although there is a result

    @property
    def command(self) -> str:
        """The command, to be pasted into a terminal."""
        return shlex.join(self.argv)


def run_jobs(specs: Iterable[RunSpec]) -> list[Job]:
    """Runs as jobs, each once, to be begun, continued or found. InputError where data is missing."""
    loaded, known, jobs = {}, {}, {}

    def seconds(spec: RunSpec) -> float:
        data = DataSpec(spec.data.data, size=spec.data.size, crop=spec.data.crop)     # another split costs the same
        key = repr(replace(spec, data=data, train=replace(spec.train, seed=0)))
        if key not in known:
            known[key] = spec.seconds(spec.load(loaded))
        return known[key]

    for spec in specs:
        title = f"{spec.title:16} {spec.data.data} {spec.data.labeling} seed {spec.train.seed}"
        jobs[spec.name] = Job(spec.name, ["sslkit", *spec.argv(), "--job"], spec.path(spec.load(loaded)).absolute(),
                              title, seconds=partial(seconds, spec))
    return [*jobs.values()]


def notebook_job(lesson: Lesson, parameters: Mapping[str, Any], reads: str = "", timeout_s: float = 1800,
                 again: bool = False) -> Job:
    """A notebook with parameters as a job. reads: digest of all results, for notebooks that show them: they are not
    found if it differs. timeout_s: for one cell. Its folder is named by all that decides what it shows: cells,
    parameters, package, files beside it, libraries, device."""
    here, package = lesson.path.parent, Path(__file__).parents[1]
    cells = [[cell.cell_type, cell.source, cell.metadata.get("tags")] for cell in lesson.nb.cells]
    beside = [path for path in here.glob("[!.]*") if path.is_file() and path.suffix != ".ipynb"]
    record = {"notebook": lesson.path.stem, "parameters": dict(parameters), "reads": reads, "cells": digest(cells),
              "package": digest_files([*package.rglob("*.py"), *package.rglob("*.csv")]),
              "beside": digest_files([*beside, *here.parent.glob("figures/*.csv")]),
              "device": Machine().torch_device().type, "python": platform.python_version(),
              "libraries": {name: version(name) for name in LIBRARIES}}
    path = (store() / "notebooks" / f"{lesson.path.stem}-{digest(record)}").absolute()
    words = [word for name, value in parameters.items()
             for word in ("-p", name, repr(value) if isinstance(value, str) else str(value))]
    argv = ["sslkit", "execute", str(lesson.path), "--out", str(path), *words]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error
    write_json(path / "config.json", record)
    return Job(job_name(lesson, parameters), argv + ["--timeout", f"{timeout_s:g}"] * (timeout_s != 1800), path,
               " ".join([f"{lesson.path.stem:22}", *(f"{name} {value}" for name, value in parameters.items())]),
               "notebook", lambda: lesson.planned, again)


def failures(store: Path) -> Path:
    """Where the store keeps the errors of failed jobs, a file each."""
    return store / "failed"


def keep_failure(store: Path, job: Job, path: Path, error: str, log: str = "") -> None:
    """Write why a job failed into the store, if possible: its command, its error, the end of what it printed."""
    with suppress(Exception):
        failures(store).mkdir(parents=True, exist_ok=True)
        write_json(failures(store) / f"{job.name}.json", {
            "command": job.command, "run": str(path), "error": error, "log": log[-20_000:],
            "at": datetime.now().isoformat(timespec="seconds")})


def errors(store: Path) -> list[dict]:
    """The failed jobs of a store that have not succeeded since, as keep_failure() wrote them."""
    found = []
    for path in sorted(failures(store).glob("*.json")):
        with suppress(OSError, ValueError, KeyError, TypeError):
            error = json.loads(path.read_text())
            if not has_result(Path(error["run"])):
                found.append(error)
    return found


def make_room(job: Job) -> None:
    """Before it is done: rename results that are no JSON, its own and its stages'; remove one that is made again."""
    for path in sorted(job.path.rglob("result.json")):
        if not has_result(path.parent):
            path.rename(path.with_name(f"result.json.corrupt-{datetime.now():%Y%m%d-%H%M%S}"))
        elif job.again:
            path.unlink()
