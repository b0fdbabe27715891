"""All runs of a store."""
import sys
from collections.abc import Iterable
from pathlib import Path

from sslkit.errors import InputError
from sslkit.files import store
from sslkit.training.identity import is_earlier, protocol
from sslkit.training.run import Run


def all_runs(folder: Path | None = None) -> list[Run]:
    """The runs of a store, newest first."""
    runs = [Run(path.parent) for path in (folder or store()).glob("*/config.json")]
    return sorted(runs, key=lambda run: (run.path / "config.json").stat().st_mtime, reverse=True)


def finished(folder: Path | None = None) -> dict[str, dict[int, Run]]:
    """protocol -> seed -> the newest finished run of it in a store. What cannot be read is left out."""
    found: dict[str, dict[int, Run]] = {}
    for run in all_runs(folder):
        try:
            if run.result is not None:
                found.setdefault(protocol(run.config), {}).setdefault(run.config["train"]["seed"], run)
        except (InputError, KeyError, TypeError, AttributeError):
            continue
    return found


def newest(path: Path) -> Run:
    """The run that was trained last in a folder: the folder's own, or the newest stage of a recipe."""
    metrics = [(file.stat().st_mtime, file) for file in path.rglob("metrics.jsonl")]
    return Run(max(metrics)[1].parent if metrics else path)


def summary(run: Run) -> dict:
    """A run in one row: settings, how far it is, its figures. KeyError or TypeError for another program's folder."""
    config, result, now = run.config, run.result or {}, newest(run.path)
    last, steps = (now.metrics or [{}])[-1], (config if result else now.config)["train"]["steps"]
    figures = ("test_acc", "test_acc_median20", "pseudo_label_acc", "mask_rate", "seconds")
    return {"method": config["method"], "data": config["data"]["name"], "labels": config["data"]["labels"],
            "seed": config["train"]["seed"], "steps": steps, "step": steps if result else last.get("step", 0),
            "stage": "" if result or now.path == run.path else now.path.name, "finished": bool(result),
            **{key: result.get(key, last.get(key)) for key in figures}, "run": str(run.path)}


def note_earlier(runs: Iterable[Run]) -> None:
    """Print a note where some of these runs were made by an earlier version of sslkit, whose names mean something
    else."""
    count, folder = 0, None
    for run in runs:
        try:
            if is_earlier(run.config):
                count, folder = count + 1, run.path.parent
        except (InputError, KeyError, TypeError):
            continue
    if count:
        print(f"note: {count} of the runs in {folder} were made by an earlier version of sslkit: they are listed and "
              "stand in tables, but no command finds or continues them by itself; nothing in them is "
              "changed", file=sys.stderr)
