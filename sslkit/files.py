"""Where the store is, atomic file writes, digests, deferred stop signals, folder locks and leases."""
import errno
import hashlib
import itertools
import json
import os
import platform
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from sslkit.errors import Busy, InputError

LEASE_SECONDS = float(os.environ.get("SSLKIT_LEASE_SECONDS", "60"))     # from its last refresh until a lease expires


def store() -> Path:
    """Where runs lie: $SSLKIT_RUNS, else `runs` beside the nearest pyproject.toml above the working directory, else
    here."""
    if os.environ.get("SSLKIT_RUNS"):
        return Path(os.environ["SSLKIT_RUNS"]).expanduser()
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / "pyproject.toml").exists()), here) / "runs"


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a new file, then put it in the place of `path`: a reader sees all of the old file or of the new.

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


def write_file(path: Path, content: str | bytes) -> None:
    """Write bytes, or text as UTF-8, atomically."""
    write_atomically(path, lambda new: new.write_bytes(content.encode() if isinstance(content, str) else content))


def write_json(path: Path, content: dict) -> None:
    """Write `content` as indented JSON, atomically."""
    write_file(path, json.dumps(content, indent=2) + "\n")


def cannot_write(path: Path, error: OSError) -> InputError:
    """The InputError for a file or folder that could not be written; what was saved before is untouched."""
    full = "no space left on the disk"
    reasons = {errno.ENOSPC: full, errno.EDQUOT: full, errno.ELOOP: "it is a symbolic link"}
    saved = "; what was saved before is untouched, and --resume continues from there"
    if not os.path.exists(path.parent / "checkpoint.pt"):
        saved = "; nothing was saved before, the run will begin anew" * (path.name == "checkpoint.pt")
    return InputError(f"could not write {path}: {reasons.get(error.errno, error.strerror)}{saved}")


def digest(value: object) -> str:
    """16 hexadecimal digits for a JSON-serialisable value: the start of the SHA-256 of its JSON, keys sorted."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def digest_files(paths: Iterable[Path]) -> str:
    """16 hexadecimal digits for the names and contents of files, in any order. Unreadable files are left out."""
    found = hashlib.sha256()
    for path in sorted(paths):
        with suppress(OSError):
            found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()[:16]


@contextmanager
def _handled_by(handler: Callable, *signals: int) -> Iterator[None]:
    """Handle signals so for a while; not outside the main thread, where Python does not allow it."""
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handler) for number in signals} if main else {}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that SIGINT or SIGTERM sets; never outside the main thread. A second SIGINT interrupts at once; a second
    SIGTERM does not, since a cluster sends several to end a job."""
    asked = threading.Event()

    def ask(number, frame):
        if asked.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.set()

    with _handled_by(ask, signal.SIGINT, signal.SIGTERM):
        yield asked


@contextmanager
def terminable() -> Iterator[None]:
    """The first SIGTERM stops as Ctrl-C does; later ones do not disturb the stopping."""
    def stop(number, frame):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    with _handled_by(stop, signal.SIGTERM):
        yield


def _lock(file, kind: str) -> bool:
    """Lock an open file (LOCK_SH, LOCK_EX); False if another process holds it. True where there are no locks."""
    try:
        import fcntl

        fcntl.flock(file, getattr(fcntl, kind) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        pass
    return True


def is_locked(folder: Path) -> bool:
    """Does a process of this machine hold the folder?"""
    try:
        with open(folder / ".lock") as file:
            return not _lock(file, "LOCK_SH")
    except OSError:
        return False


@contextmanager
def locked(folder: Path) -> Iterator[IO]:
    """Hold the run's folder; Busy if another process does. The lock goes with the process, however it ends. Gives the
    open file that carries it."""
    flags = getattr(os, "O_NOFOLLOW", 0)                # a file that a link points at is not ours to touch
    try:
        file = open(folder / ".lock", "a", opener=lambda path, more: os.open(path, flags | more, 0o666))
    except OSError as error:
        raise cannot_write(folder / ".lock", error) from error
    with file:
        if not _lock(file, "LOCK_EX"):
            time.sleep(0.05)                            # is_locked() may have looked at this moment
            if not _lock(file, "LOCK_EX"):
                raise Busy(f"another process is training in {folder}")
        yield file


@contextmanager
def waiting(folder: Path, what: str) -> Iterator[None]:
    """Hold `folder` as locked() does, made where it is missing. While another process holds it, wait, with a note on
    stderr that says `what` it does. InputError where the folder cannot be written."""
    gone = 0
    with ExitStack() as stack:
        for wait in itertools.count():
            try:
                folder.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context(locked(folder))
                if os.path.samestat(os.fstat(file.fileno()), os.stat(folder / ".lock")):
                    break
            except Busy:
                if wait == 6:
                    print(f"note: another process {what}; waiting for it", file=sys.stderr)
            except (OSError, InputError) as error:
                cause, gone = error.__cause__ or error, gone + 1
                if not isinstance(cause, FileNotFoundError) or gone > 20:     # else: it was removed at this moment
                    raise cannot_write(folder, cause) from cause
            stack.close()                               # that lock went away with a folder that was here before
            time.sleep(min(1, 0.05 * 2**min(wait, 5)))
        yield


def age(path: Path) -> float:
    """Seconds since `path` was touched, by the clock of its file system. OSError where it is gone."""
    try:
        with tempfile.TemporaryFile(dir=path.parent, prefix=".clock-") as probe:
            now = os.fstat(probe.fileno()).st_mtime
    except OSError:                                     # the store is full, or we may only read it
        now = time.time()
    return now - path.stat().st_mtime


def content(path: Path) -> dict:
    """What a lease says: token, host, pid, run. Empty if `path` is no lease of sslkit. OSError where it is gone."""
    with suppress(ValueError):
        found = json.loads(path.read_text())
        return found if isinstance(found, dict) else {}
    return {}


def held(path: Path) -> bool:
    """Is there a lease that has not expired, and does its owner, if it is a process of this machine, still run?"""
    try:
        if age(path) > LEASE_SECONDS:
            return False
        owner = content(path)
        if owner.get("host") == platform.node() and os.name == "posix":
            os.kill(owner["pid"], 0)
    except (FileNotFoundError, ProcessLookupError):
        return False
    except (OSError, KeyError, TypeError, OverflowError):
        pass
    return True


class Lease:
    """`with Lease(path, run) as lease` says in the store who works on a run; `lease.taken`: does this process hold it?

    A thread refreshes it. Where another process has taken it over, because this one was suspended for longer than
    LEASE_SECONDS, SIGTERM asks this process to stop. Raises InputError where the store cannot be written. (filelock's
    SoftFileLease cannot take over the lease of a dead owner on NFS or SMB.)
    """

    def __init__(self, path: Path, run: str = ""):
        self.path, self.taken, self.ended = path, False, threading.Event()
        self.owner = {"token": uuid.uuid4().hex, "host": platform.node(), "pid": os.getpid(), "run": run}

    def __enter__(self) -> "Lease":
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.taken = self._create() or not held(self.path) and self._replace()
        except OSError as error:
            raise cannot_write(self.path, error) from error
        if self.taken:
            threading.Thread(target=self._refresh, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.give_back()

    def give_back(self) -> None:
        """Release the lease; the end of the context does it too."""
        self.ended.set()                                # first: _refresh() takes a missing file for a loss
        if self.taken and self._ours():
            with suppress(OSError):
                self.path.unlink(missing_ok=True)

    def _ours(self) -> bool:
        """False where the lease is gone or another's. A disk that fails to answer once is no reason to stop."""
        try:
            return content(self.path).get("token") == self.owner["token"]
        except OSError as error:
            return not isinstance(error, FileNotFoundError)

    def _create(self) -> bool:
        try:
            file = open(self.path, "x")                 # for one process alone
        except FileExistsError:
            return False
        try:
            with file:
                json.dump(self.owner, file)
        except OSError:
            self.path.unlink()
            raise
        return True

    def _replace(self) -> bool:
        """Replace an expired lease, if no other process is doing so: only one can make the claim."""
        claim = self.path.with_name(f".{self.path.name}.claim")
        try:
            claim.touch(exist_ok=False)
        except FileExistsError:
            with suppress(FileNotFoundError):
                if age(claim) > LEASE_SECONDS:          # whoever made it died in the next lines
                    claim.unlink()
            return False
        try:
            if self.path.exists() and not held(self.path):
                self.path.unlink(missing_ok=True)
            return self._create()
        finally:
            claim.unlink(missing_ok=True)

    def _refresh(self) -> None:
        while not self.ended.wait(LEASE_SECONDS / 6):
            if self._ours():
                with suppress(OSError):
                    os.utime(self.path)
            elif not self.ended.is_set():
                os.kill(os.getpid(), signal.SIGTERM)
                return
