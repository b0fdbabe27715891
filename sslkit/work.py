"""What a dask worker does with a job: gives it to a process of its own and waits. Imports nothing heavy: workers only wait."""
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time

_spare: list = []                    # a started process that waits for a job, its log, and the environment it was started in
_lock = threading.Lock()


def _start(environment: dict[str, str]) -> tuple:
    log = tempfile.TemporaryFile()
    child = subprocess.Popen([sys.executable, "-m", "sslkit.task"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
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
