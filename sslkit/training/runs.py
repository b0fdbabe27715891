"""All runs of a store."""
from pathlib import Path

from sslkit.errors import InputError
from sslkit.training.identity import protocol, store
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
