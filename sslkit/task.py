"""The process that one run of a batch has to itself: `python -m sslkit.task` reads the job from its standard input, and writes how it went.

It is started ahead, so that everything is imported when the job comes. When its input closes, whoever gave the job is gone or wants it
stopped: the run is saved, and goes on when the job is given again.
"""
import json
import os
import signal
import sys
import threading
import time
import traceback
from datetime import datetime
from pathlib import Path

SAVE_SECONDS = 30                    # for saving after the input has closed


def failures(store: Path) -> Path:
    """Where the errors of failed runs are kept."""
    return store / "failed"


def lease_of(store: Path, run: Path) -> Path:
    return store / "leases" / run.name


def stop_when_alone() -> None:
    """SIGTERM, on which fit() saves and stops, when nobody listens any more; soon after that the end."""
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(SAVE_SECONDS)
    os._exit(3)


def set_aside(folder: Path) -> list[str]:
    """Rename results that cannot be read, in the run's folder and its stages', so that they are made again; their new names."""
    from sslkit.errors import InputError
    from sslkit.runs import Run

    renamed = []
    for path in sorted(folder.rglob("result.json")):
        try:
            Run(path.parent).result     # noqa: B018
        except InputError:
            new = path.with_name(f"result.json.corrupt-{datetime.now():%Y%m%d-%H%M%S}")
            path.rename(new)
            renamed.append(str(new))
    return renamed


def perform(spec: dict) -> dict:
    """Do the job `spec` describes: {"state": trained, found, elsewhere, stopped or failed, "run": its folder, "error": why it failed}."""
    from sslkit.disk import write_json
    from sslkit.errors import Busy
    from sslkit.jobs import Job
    from sslkit.lease import Lease
    from sslkit.runs import Run, Stopped, store
    from sslkit.train import Machine

    job, folder = Job(**spec["job"]), store()
    failed = failures(folder) / f"{job.name}.json"
    where = ""
    try:
        machine = Machine(threads=spec.get("threads"))
        machine.apply()
        data = job.opened({})
        path = job.path(data, machine)
        where = str(path)
        with Lease(lease_of(folder, path)) as lease:
            if not lease.taken:
                return {"state": "elsewhere", "run": where}
            aside = set_aside(path)
            if Run(path).result is not None:
                return {"state": "found", "run": where}
            job.perform(data, machine)
            failed.unlink(missing_ok=True)
            return {"state": "trained", "run": where, "aside": aside}
    except Busy:
        return {"state": "elsewhere", "run": where}
    except (Stopped, KeyboardInterrupt):
        return {"state": "stopped", "run": where}
    except Exception as error:                          # whatever it is, the others go on
        said = f"{type(error).__name__}: {error}"
        try:
            failed.parent.mkdir(parents=True, exist_ok=True)
            write_json(failed, {"job": spec["job"], "run": where, "error": said, "traceback": traceback.format_exc(),
                                "at": datetime.now().isoformat(timespec="seconds")})
        except Exception:                               # a full or read-only disk: it is told all the same
            pass
        return {"state": "failed", "run": where, "error": said}


def main() -> int:
    import sslkit.jobs  # noqa: F401

    answer, sys.stdout = sys.stdout, sys.stderr         # what a run prints is no answer
    line = sys.stdin.buffer.readline()
    if not line:
        return 0
    threading.Thread(target=stop_when_alone, daemon=True).start()
    outcome = perform(json.loads(line))
    print(json.dumps(outcome), file=answer, flush=True)
    os._exit(0)                                         # a thread still waits for input


if __name__ == "__main__":
    sys.exit(main())
