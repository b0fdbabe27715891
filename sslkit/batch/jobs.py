"""A job is a command line and the folder where its result is found. Runs as jobs; a notebook: execute_notebook."""
import json
import shlex
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path

from sslkit.files import write_json
from sslkit.training import DataSpec, RunSpec, has_result


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
        data = DataSpec(spec.data.data, size=spec.data.size)                    # another split or seed costs the same
        key = repr(replace(spec, data=data, train=replace(spec.train, seed=0)))
        if key not in known:
            known[key] = spec.seconds(spec.load(loaded))
        return known[key]

    for spec in specs:
        title = f"{spec.title:16} {spec.data.data} {spec.data.labels} seed {spec.train.seed}"
        jobs[spec.name] = Job(spec.name, ["sslkit", *spec.argv(), "--job"], spec.path(spec.load(loaded)).absolute(),
                              title, seconds=partial(seconds, spec))
    return [*jobs.values()]


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
