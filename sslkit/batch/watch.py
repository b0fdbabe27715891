"""Which runs and notebooks are in progress, read from the store's files; as lines for a terminal or a notebook."""
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from sslkit.batch.jobs import errors
from sslkit.batch.notebook_file import executed, how_far
from sslkit.errors import InputError
from sslkit.files import content, held, is_locked
from sslkit.training import Run, newest


def progress(path: Path) -> str:
    """How far a job is, from its folder: a notebook's cell; a run's step and accuracy at its last evaluation, with the
    stage of a recipe."""
    if (nb := executed(path / "notebook.ipynb")) is not None:
        return "cell {} of {}".format(*how_far(nb))
    with suppress(InputError, OSError, IndexError, KeyError, TypeError):
        run = newest(path)
        last, steps = run.metrics[-1], run.config["train"]["steps"]
        stage = f"{run.path.name} " if run.path != path else ""
        return f"{stage}step {last['step']:,} of {steps:,}  test {last['test_acc']:.1%}"
    return "begins"


def busy(path: Path) -> bool:
    """Does a process of this machine train there, with or without a lease?"""
    return any(is_locked(lock.parent) for lock in path.rglob(".lock"))


def fit_height(lines: list[str], height: int) -> list[str]:
    """As many lines as fit on a screen of that height, and a count of the others."""
    most = max(1, height - 2)
    return lines if len(lines) <= most else [*lines[:most], f"  and {len(lines) - most} more"]


def at_work(folder: Path, height: int = 1000) -> list[str]:
    """How many runs of a store are running, finished and failed, how many notebooks are running, whoever started them;
    then a line for each notebook with its cell, and for each run with its step and accuracy."""
    leased = set()
    for path in (folder / "leases").glob("[!.]*"):
        with suppress(OSError):
            if held(path):
                leased.add(str(Path(content(path).get("run", "")).resolve()))

    def running(pattern: str, title: Callable[[dict], str]) -> list[str]:
        found = []
        for path in sorted(file.parent for file in folder.glob(pattern)):
            if not (path / "result.json").exists() and (str(path.resolve()) in leased or busy(path)):
                with suppress(InputError, KeyError, TypeError):
                    found.append(f"  {title(Run(path).config)}  {progress(path)}")
        return found

    notebooks = running("notebooks/*/config.json", lambda config: " ".join(
        [f"{config['notebook']:22}", *(f"{name} {value}" for name, value in config["parameters"].items())]))
    runs = running("*/config.json", lambda config: f"{config['method']:16} {config['data']['name']} "
                   f"{config['data']['labels']} seed {config['train']['seed']}")
    finished = len(list(folder.glob("*/result.json")))
    more = f", {len(notebooks)} notebook{'s' if len(notebooks) > 1 else ''} running" if notebooks else ""
    head = f"{len(runs)} running, {finished} finished, {len(errors(folder))} failed{more}"
    return fit_height([head, *notebooks, *runs], height)
