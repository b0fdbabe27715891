"""The process of a job: run() starts it in a dask worker, as_job() is what it does about its lease and its end.

A dask worker imports this module, so it does not import torch.
"""
import json
import os
import platform
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from sslkit.errors import Busy
from sslkit.files import Lease

if TYPE_CHECKING:
    from distributed import Event

SAVE_SECONDS = 30                    # for saving after it was asked to stop
STATES = {0: "done", 1: "failed", 2: "failed", Busy.exit_code: "elsewhere", 130: "stopped",
          -signal.SIGINT: "stopped", -signal.SIGTERM: "stopped"}                # any other exit code: "died"


def lease_of(store: Path, job: str) -> Path:
    """Lease path of a job. Keyed by name, not by run folder, because the folder's hash depends on the device."""
    return store / "leases" / job


def stop_when_alone() -> None:
    """When the input closes, send SIGTERM, on which fit() saves and stops; end the process if it does not stop."""
    while os.read(0, 4096):                             # not sys.stdin, whose lock would be missed at the end
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(SAVE_SECONDS)
    os._exit(3)


@contextmanager
def as_job(store: Path, name: str, path: Path) -> Iterator[None]:
    """Hold the lease of a job whose folder is `path`; print the folder as JSON first. If standard input is a pipe that
    closes, whoever gave the job is gone or wants it stopped: SIGTERM. Raises Busy if another process does or did it."""
    print(json.dumps({"run": str(path)}), flush=True)
    if stat.S_ISFIFO(os.fstat(0).st_mode):
        threading.Thread(target=stop_when_alone, daemon=True).start()
    with Lease(lease_of(store, name), str(path)) as lease:
        if not lease.taken or (path / "result.json").exists():
            raise Busy(f"another process does this job, or has done it: {path}")
        yield


def run(argv: list[str], environment: dict[str, str], gpus: list[str], store: str, stop: "Event") -> dict:
    """Do a job in a process of its own; runs in a dask worker.

    environment: of the process; gpus: those of this machine, one for each worker. stop: when it is set, the process is
    asked to save and end. Returns {"state": see STATES; or died, killed by others; or blind, this machine does not see
    the store, "run": its folder, "error": why it failed, "log": what it printed}.
    """
    if not Path(store).is_dir():
        return {"state": "blind", "error": platform.node()}
    if gpus:
        from distributed import get_worker

        environment = environment | {"CUDA_VISIBLE_DEVICES": gpus[get_worker().name % len(gpus)]}
    words = [sys.executable, "-m", *argv] if argv[0] == "sslkit" else argv
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as log:
        child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=out, stderr=log, start_new_session=True,
                                 env={**os.environ, **environment})
        while child.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                child.wait(1)
            if over(stop):
                child.stdin.close()
        child.stdin.close()
        out.seek(0)
        return outcome(child.returncode, out.readline(), last(log))


def over(stop: "Event") -> bool:
    """Is the event set, or the scheduler gone?"""
    try:
        return stop.is_set()
    except Exception:                                   # of many kinds
        return True


def last(file: BinaryIO) -> str:
    """The last 20,000 bytes of a file as text."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - 20_000))
    return file.read().decode(errors="replace").strip()


def outcome(code: int, first: bytes, log: str) -> dict:
    """How a job went, from its exit code, the first line that it printed, and what it printed about errors."""
    state, run, error = STATES.get(code, "died"), "", log.rpartition("\n")[2].removeprefix("sslkit: ")[-2000:]
    with suppress(ValueError, KeyError, TypeError):
        run = json.loads(first)["run"]
    if state == "died":
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        error = f"its process {how}" + f": {error}" * bool(error)
    return {"state": state, "run": run, "error": error if state in ("failed", "died") else "", "log": log}
