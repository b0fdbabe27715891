"""What is at work in a store, whoever does it: from its files alone, in lines for a terminal or a notebook."""
import json
from contextlib import suppress
from pathlib import Path

from sslkit.disk import is_locked
from sslkit.errors import InputError
from sslkit.lease import content, held
from sslkit.runs import Run, has_result, store
from sslkit.task import failures


def at(path: Path) -> str:
    """Where a run stands, from its folder: step and accuracy of its last evaluation, of a recipe's that of the stage; a notebook's cell."""
    with suppress(OSError, ValueError, KeyError):
        progress = json.loads((path / "progress.json").read_text())
        return f"cell {progress['cell']} of {progress['cells']}"
    with suppress(OSError, ValueError, IndexError, KeyError, TypeError):
        newest = max(path.rglob("metrics.jsonl"), key=lambda file: file.stat().st_mtime)
        last = json.loads(newest.read_text().splitlines()[-1])
        steps = json.loads((newest.parent / "config.json").read_text())["train"]["steps"]
        stage = f"{newest.parent.name} " if newest.parent != path else ""
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
    """Lines of what is at work in a store, whoever does it: each run with its step and accuracy; and how many are finished and failed."""
    mine = set()
    for path in (folder / "leases").glob("[!.]*"):
        with suppress(OSError):
            if held(path):
                mine.add(str(Path(content(path).get("run", "")).resolve()))
    lines, finished = [], 0
    for path in sorted(file.parent for file in (*folder.glob("*/config.json"), *folder.glob("notebooks/*/config.json"))):
        if (path / "result.json").exists():
            finished += 1
        elif str(path.resolve()) in mine or busy(path):
            with suppress(InputError, KeyError, TypeError):
                config = Run(path).config
                if "notebook" in config:
                    values = "".join(f" {name} {value}" for name, value in config["parameters"].items())
                    lines.append(f"  {config['notebook']:22}{values}  {at(path)}")
                    continue
                data = f"{config['data']['name']} {config['data']['labels']}"
                lines.append(f"  {config['method']:16} {data} seed {config['train']['seed']}  {at(path)}")
    return cut([f"{len(lines)} running, {finished} finished, {len(errors(folder))} failed", *lines], height)
