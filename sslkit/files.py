"""Writing to disks that fill up, from processes that are stopped: whole files or none, signals that wait, folders held."""
import errno
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sslkit.errors import Busy, InputError


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a new file, then put it in the place of `path`: a reader sees the old file or the new one, never a part.

    Raises InputError where the disk is full or cannot be written; the old file is still there then.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        write(new)
        with open(new, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException as error:
        with suppress(OSError):
            new.unlink()
        # torch's zip writer raises a RuntimeError of its own over the disk's error
        cause = error.__context__ if isinstance(error, RuntimeError) else error
        if isinstance(cause, OSError):
            raise cannot_write(path, cause) from error
        raise


def cannot_write(path: Path, error: OSError) -> InputError:
    """The InputError for a file or folder that could not be written; what was saved before is untouched."""
    reason = "no space left on the disk" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror
    saved = "; what was saved before is untouched, and --resume goes on from there" if os.path.exists(path.parent / "checkpoint.pt") else ""
    return InputError(f"could not write {path}: {reason}{saved}")


def write_json(path: Path, content: dict) -> None:
    """`content` as indented JSON, atomically."""
    write_atomically(path, lambda new: new.write_text(json.dumps(content, indent=2) + "\n"))


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that SIGINT or SIGTERM sets; a second SIGINT interrupts at once. (A second SIGTERM does not: who ends a job of a cluster
    sends several.) Outside the main thread it is never set."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(number, frame):
        if asked.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def terminable() -> Iterator[None]:
    """The first SIGTERM stops as Ctrl-C does; those after it do not disturb the stopping."""
    def stop(number, frame):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, stop) if main else None
    try:
        yield
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)


def is_locked(folder: Path) -> bool:
    """Does a process of this machine hold the folder?"""
    try:
        import fcntl

        with open(folder / ".lock") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (ImportError, OSError):
        pass
    return False


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the run's folder; Busy if another process does. The lock goes with the process, however it ends."""
    try:
        import fcntl
    except ImportError:                     # Windows: no lock, as before there was one
        yield
        return
    try:
        file = open(folder / ".lock", "w")
    except OSError as error:
        raise cannot_write(folder / ".lock", error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy(f"another process is training in {folder}") from error
        except OSError:                     # a file system without locks
            pass
        yield
