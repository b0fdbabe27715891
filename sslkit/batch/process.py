"""The process that one job of a batch, a run or a notebook, has to itself: `python -m sslkit.batch.process` reads it from its standard input, and
writes how it went.

It is started ahead, so that what a run needs is imported when it comes. When its input closes, whoever gave the job is gone or wants it
stopped: what trains is saved, and goes on when the job is given again.
"""
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from contextlib import suppress
from datetime import datetime
from pathlib import Path

_spare: list = []                    # a started process that waits for a job, its log, and the environment it was started in
_lock = threading.Lock()
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
    from sslkit.files import Lease
    from sslkit.training import Job, Machine, Stopped, store

    if spec["kind"] == "notebook":                      # what it needs is slow to import
        from sslkit.batch.execute_notebook import NotebookJob
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


def _start(environment: dict[str, str]) -> tuple:
    log = tempfile.TemporaryFile()
    child = subprocess.Popen([sys.executable, "-m", "sslkit.batch.process"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                             start_new_session=True, env={**os.environ, **environment})
    return child, log, environment


def _process(environment: dict[str, str], ahead: bool) -> tuple:
    """A process for a job, the spare one if it fits; and a new spare one if more is to come."""
    with _lock:
        mine = None
        while _spare:
            child, log, known = _spare.pop()
            if mine is None and known == environment and child.poll() is None:
                mine = child, log
            else:
                child.stdin.close()
                child.wait()
        mine = mine or _start(environment)[:2]
        if ahead:
            _spare.append(_start(environment))
    return mine


def _gone(batch: str) -> bool:
    """Has the batch given its lease back? Opened, not asked for: over a network that looks again."""
    try:
        open(batch).close()
    except FileNotFoundError:
        return True
    except OSError:                                     # a disk that does not answer for once
        pass
    return False


def work(spec: dict) -> dict:
    """Do spec["job"] in a process of its own; see task.perform for what comes back. spec["environment"]: of that process, and what it was
    started with has to be the same. spec["batch"]: the lease of the batch; when that is gone the job is asked to save and stop. Where it
    cannot be seen to begin with, the state is blind."""
    if _gone(spec["batch"]):
        return {"state": "blind", "run": "", "error": platform.node()}
    child, log = _process(spec["environment"], spec["ahead"])
    try:
        child.stdin.write(json.dumps({name: spec[name] for name in ("kind", "job", "threads")}).encode() + b"\n")
        child.stdin.flush()
        looked = time.monotonic()
        while child.poll() is None:
            time.sleep(0.1)
            if not child.stdin.closed and time.monotonic() - looked > 1:
                looked = time.monotonic()
                if _gone(spec["batch"]):
                    child.stdin.close()
        words = child.stdout.read().decode().splitlines()
        if child.returncode == 0 and words:
            return json.loads(words[-1])
        log.seek(0)
        tail = log.read()[-2000:].decode(errors="replace").strip()
    except (OSError, ValueError) as error:
        tail = str(error)
    try:
        child.stdin.close()                             # what it was at is saved
    except OSError:
        pass
    code = child.wait()
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    return {"state": "died", "run": "", "error": f"its process was {how}" + (f": {tail.splitlines()[-1]}" if tail else "")}


def end_spare() -> None:
    """The batch is over: nothing waits for a job any more."""
    with _lock:
        while _spare:
            _spare.pop()[0].stdin.close()


def dask_setup(worker) -> None:
    """For a worker of our own cluster, by the name dask wants. Ctrl-C in a terminal reaches every process: the batch stops what runs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(main())
