"""Each job of a batch runs in a process of its own, `python -m sslkit.batch.process`, which a dask worker starts.

The process reads a pickled (job, machine) from standard input and writes the outcome as JSON to standard output. If
its input closes, whoever gave the job is gone or wants it stopped: the process saves its run and ends. The worker
starts the next process ahead, so that its imports are done when the next job comes. Dask workers import this module,
so it does not import torch.
"""
import json
import os
import pickle
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

SAVE_SECONDS = 30                    # for saving after the input has closed


def lease_of(store: Path, job: str) -> Path:
    """Lease path of a job. Keyed by name, not by run folder, because the folder's hash depends on the device."""
    return store / "leases" / job


def stop_when_alone() -> None:
    """When the input closes, send SIGTERM, on which fit() saves and stops; end the process if it does not stop."""
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(SAVE_SECONDS)
    os._exit(3)


def main() -> None:
    """Read a job, do it, and write how it went."""
    from sslkit.batch.jobs import perform  # before the job comes: imports take seconds

    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)                                       # what a run prints goes to the log
    try:
        job, machine = pickle.load(sys.stdin.buffer)
    except EOFError:                                    # no job came
        return
    threading.Thread(target=stop_when_alone, daemon=True).start()
    print(json.dumps(perform(job, machine)), file=answer, flush=True)
    os._exit(0)                                         # a thread still waits for input


class Child(subprocess.Popen):
    """A process that waits for a job, as its worker sees it."""

    def __init__(self, environment: dict[str, str]):
        self.environment, self.log = environment, tempfile.TemporaryFile()
        super().__init__([sys.executable, "-m", "sslkit.batch.process"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                         stderr=self.log, start_new_session=True, env={**os.environ, **environment})

    def close_input(self) -> None:
        """Ask it to save and end."""
        with suppress(OSError):
            self.stdin.close()

    def outcome(self) -> dict:
        """What it wrote, once it has ended; the state "died" if it wrote nothing."""
        written = self.stdout.read().splitlines()
        if self.returncode == 0 and written:
            return json.loads(written[-1])
        how = f"ended with code {self.returncode}"
        if self.returncode < 0:
            how = f"was killed by {signal.Signals(-self.returncode).name}"
        self.log.seek(0)
        last = self.log.read().decode(errors="replace").strip().rpartition("\n")[2][-2000:]
        return {"state": "died", "run": "", "error": f"its process {how}" + (f": {last}" if last else "")}


_spare: list[Child] = []             # at most one, started ahead for the next job
_lock = threading.Lock()


def _child(environment: dict[str, str], ahead: bool) -> Child:
    """The spare process if it fits, else a new one. ahead: start a spare one for the next job."""
    with _lock:
        child = _spare.pop() if _spare else Child(environment)
        if child.environment != environment or child.poll() is not None:
            child.close_input()
            child = Child(environment)
        if ahead:
            _spare.append(Child(environment))
    return child


def end_spare() -> None:
    """The batch is over: end the process that waits for a job."""
    with _lock:
        while _spare:
            _spare.pop().close_input()


def _is_over(batch: str) -> bool:
    """Has the batch given back its lease? Open rather than stat: this makes NFS revalidate its cache."""
    try:
        open(batch).close()
    except OSError as error:                            # a disk may fail to answer once
        return isinstance(error, FileNotFoundError)
    return False


def work(job: bytes, environment: dict[str, str], batch: str, ahead: bool) -> dict:
    """Do a job in a process of its own; runs in a dask worker.

    job: what the process reads, unpickled only there. environment: of the process. batch: path of the batch's lease;
    once that is gone, the process is asked to save and end. ahead: will more jobs come? Returns the outcome, see
    jobs.perform(), or the state "died" if the process ended without one, or "blind" if this machine does not see the
    batch's lease, and so not the store.
    """
    if _is_over(batch):
        return {"state": "blind", "run": "", "error": platform.node()}
    child = _child(environment, ahead)
    with suppress(OSError):                             # it is dead: the outcome says so
        child.stdin.write(job)
        child.stdin.flush()
    while child.poll() is None:
        with suppress(subprocess.TimeoutExpired):
            child.wait(1)
        if _is_over(batch):
            child.close_input()
    return child.outcome()


def dask_setup(worker) -> None:
    """dask preload hook: ignore Ctrl-C in workers; the batch stops them itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


if __name__ == "__main__":
    main()
