"""What is at work in a store, whoever does it: from its files alone, in lines for a terminal or a notebook."""
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from sslkit.batch.process import failures
from sslkit.errors import InputError
from sslkit.files import content, held, is_locked
from sslkit.training import Run, has_result, store


def newest(path: Path) -> Run:
    """The run that was trained last in a folder: the folder's own, or the newest stage of a recipe."""
    metrics = [(file.stat().st_mtime, file) for file in path.rglob("metrics.jsonl")]
    return Run(max(metrics)[1].parent if metrics else path)


def at(path: Path) -> str:
    """Where a run stands, from its folder: step and accuracy of its last evaluation, of a recipe's that of the stage; a notebook's cell."""
    with suppress(OSError, ValueError, KeyError):
        progress = json.loads((path / "progress.json").read_text())
        return f"cell {progress['cell']} of {progress['cells']}"
    with suppress(InputError, OSError, IndexError, KeyError, TypeError):
        run = newest(path)
        last, steps = run.metrics[-1], run.config["train"]["steps"]
        stage = f"{run.path.name} " if run.path != path else ""
        return f"{stage}step {last['step']:,} of {steps:,}  test {last['test_acc']:.1%}"
    return "begins"


def busy(path: Path) -> bool:
    """Does a process of this machine train there, whether or not it has a lease?"""
    return any(is_locked(lock.parent) for lock in path.rglob(".lock"))


def cut(lines: list[str], height: int) -> list[str]:
    """As many lines as fit, and how many do not."""
    most = max(1, height - 2)
    return lines if len(lines) <= most else [*lines[:most], f"  and {len(lines) - most} more"]


def errors(folder: Path | None = None) -> list[dict]:
    """The failed runs of a store that have not gone well since: job, run, error, traceback, at."""
    found = []
    for path in sorted(failures(folder or store()).glob("*.json")):
        with suppress(OSError, ValueError, KeyError, TypeError):
            error = json.loads(path.read_text())
            if not (error["run"] and has_result(Path(error["run"]))):
                found.append(error)
    return found


def at_work(folder: Path, height: int = 1000) -> list[str]:
    """Lines of what is at work in a store, whoever does it: how many runs are at work, finished and failed, how many notebooks are at work;
    each notebook with its cell, each run with its step and accuracy."""
    mine = set()
    for path in (folder / "leases").glob("[!.]*"):
        with suppress(OSError):
            if held(path):
                mine.add(str(Path(content(path).get("run", "")).resolve()))

    def lines(pattern: str, said: Callable[[dict], str]) -> list[str]:
        found = []
        for path in sorted(file.parent for file in folder.glob(pattern)):
            if not (path / "result.json").exists() and (str(path.resolve()) in mine or busy(path)):
                with suppress(InputError, KeyError, TypeError):
                    found.append(f"  {said(Run(path).config)}  {at(path)}")
        return found

    notebooks = lines("notebooks/*/config.json", lambda config: " ".join(
        [f"{config['notebook']:22}", *(f"{name} {value}" for name, value in config["parameters"].items())]))
    runs = lines("*/config.json", lambda config: f"{config['method']:16} {config['data']['name']} {config['data']['labels']} "
                                                 f"seed {config['train']['seed']}")
    finished = len(list(folder.glob("*/result.json")))
    more = f", {len(notebooks)} notebook{'s' * (len(notebooks) > 1)} at work" if notebooks else ""
    return cut([f"{len(runs)} running, {finished} finished, {len(errors(folder))} failed{more}", *notebooks, *runs], height)
