"""What a dask worker does with a job: gives it to a process of its own and waits. Imports nothing heavy: workers only wait."""
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

_spare: list = []                    # a started process that waits for a job, with its log
_lock = threading.Lock()


def _start() -> tuple[subprocess.Popen, object]:
    log = tempfile.TemporaryFile()
    child = subprocess.Popen([sys.executable, "-m", "sslkit.task"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                             start_new_session=True, env={**os.environ, **_environment})
    return child, log


_environment: dict[str, str] = {}


def work(spec: dict) -> dict:
    """Do spec["job"] in a process of its own; see task.perform for what comes back. spec["environment"]: of that process. While the file
    spec["stop"] exists, the run is asked to save and stop."""
    with _lock:
        if spec["environment"] != _environment:
            _environment.clear()
            _environment.update(spec["environment"])
            while _spare:
                _spare.pop()[0].stdin.close()
        child, log = _spare.pop() if _spare and _spare[0][0].poll() is None else _start()
        if spec.get("ahead"):
            _spare[:] = [_start()]
    try:
        child.stdin.write(json.dumps({"job": spec["job"], "threads": spec.get("threads")}).encode() + b"\n")
        child.stdin.flush()
        stop = Path(spec["stop"])
        while child.poll() is None:
            time.sleep(0.1)
            if not child.stdin.closed and stop.exists():
                child.stdin.close()
        words = child.stdout.read().decode().splitlines()
        if child.returncode == 0 and words:
            return json.loads(words[-1])
        log.seek(0)
        tail = log.read()[-2000:].decode(errors="replace").strip()
    except (OSError, ValueError) as error:
        tail = str(error)
    code = child.wait()
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    return {"state": "died", "run": "", "error": f"its process was {how}" + (f": {tail.splitlines()[-1]}" if tail else "")}
