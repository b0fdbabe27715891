"""The process that one job of a batch, a run or a notebook, has to itself: `python -m sslkit.task` reads it from its standard input, and
writes how it went.

It is started ahead, so that what a run needs is imported when it comes. When its input closes, whoever gave the job is gone or wants it
stopped: what trains is saved, and goes on when the job is given again.
"""
import json
import os
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from datetime import datetime
from pathlib import Path

SAVE_SECONDS = 30                    # for saving after the input has closed


def failures(store: Path) -> Path:
    """Where the errors of failed runs are kept."""
    return store / "failed"


def lease_of(store: Path, job: str) -> Path:
    """The lease of a job, by its name: the run's folder may have another one on another device."""
    return store / "leases" / job


def keep_failure(store: Path, name: str, job: dict, run: str, error: str, trace: str = "") -> None:
    """Write why a job failed into the store, if that can be written."""
    from sslkit.files import write_json

    with suppress(Exception):
        failures(store).mkdir(parents=True, exist_ok=True)
        write_json(failures(store) / f"{name}.json", {"job": job, "run": run, "error": error, "traceback": trace,
                                                      "at": datetime.now().isoformat(timespec="seconds")})


def stop_when_alone() -> None:
    """SIGTERM, on which fit() saves and stops, when nobody listens any more; soon after that the end."""
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(SAVE_SECONDS)
    os._exit(3)


def set_aside(folder: Path) -> list[str]:
    """Rename results that are no JSON, in the run's folder and its stages', so that they are made again; their new names."""
    renamed = []
    for path in sorted(folder.rglob("result.json")):
        try:
            good = isinstance(json.loads(path.read_text()), dict)
        except ValueError:
            good = False
        if not good:
            new = path.with_name(f"result.json.corrupt-{datetime.now():%Y%m%d-%H%M%S}")
            path.rename(new)
            renamed.append(str(new))
    return renamed


def perform(spec: dict) -> dict:
    """Do the job `spec` describes: {"state": done, found, elsewhere, stopped or failed, "run": its folder, "error": why it failed}."""
    from sslkit.errors import Busy
    from sslkit.lease import Lease
    from sslkit.training import Job, Machine, Stopped, store

    if spec["kind"] == "notebook":                      # what it needs is slow to import
        from sslkit.execute import NotebookJob
    job = (NotebookJob if spec["kind"] == "notebook" else Job)(**spec["job"])
    folder, where, known = store(), "", {}
    try:
        machine = Machine(threads=spec.get("threads"))
        machine.apply()
        path = job.place(known, machine)
        where = str(path)
        with Lease(lease_of(folder, job.name), where) as lease:
            if not lease.taken:
                return {"state": "elsewhere", "run": where}
            aside = set_aside(path)
            there = job.finished(path)
            if not there:
                job.do(known, machine)
            (failures(folder) / f"{job.name}.json").unlink(missing_ok=True)
            return {"state": "found" if there else "done", "run": where, "aside": aside}
    except Busy:
        return {"state": "elsewhere", "run": where}
    except (Stopped, KeyboardInterrupt):
        return {"state": "stopped", "run": where}
    except Exception as error:                          # whatever it is, the others go on
        said = f"{type(error).__name__}: {error}"[:2000]
        keep_failure(folder, job.name, spec["job"], where, said, traceback.format_exc())
        return {"state": "failed", "run": where, "error": said}


def main() -> int:
    from sslkit.training import CODE_OF, code_version

    for names in CODE_OF:                                # of what has been imported, not of what the files hold when the job comes
        code_version(*names)
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)                                       # what a run prints is no answer
    line = sys.stdin.buffer.readline()
    if not line:
        return 0
    threading.Thread(target=stop_when_alone, daemon=True).start()
    outcome = perform(json.loads(line))
    print(json.dumps(outcome), file=answer, flush=True)
    os._exit(0)                                         # a thread still waits for input


if __name__ == "__main__":
    sys.exit(main())
