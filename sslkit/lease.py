"""Who is at work on a run: a file that its owner keeps touching, and that expires where nobody does. For processes and machines that share
a store; on one machine the lock of disk.locked() stands behind it.
"""
import json
import os
import platform
import signal
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path

from sslkit.files import cannot_write

SECONDS = float(os.environ.get("SSLKIT_LEASE_SECONDS", "60"))       # after which an untouched lease counts no more


def age(path: Path) -> float:
    """Seconds since `path` was touched, by the clock that stamps files there, which may be another machine's. OSError where it is gone."""
    touched = path.stat().st_mtime
    probe = path.with_name(f".clock-{os.getpid()}-{threading.get_ident()}")
    try:
        probe.touch()
        return probe.stat().st_mtime - touched
    except OSError:                                     # a store that we may only read, or a full one
        return time.time() - touched
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)


def content(path: Path) -> dict:
    """What a lease says: token, host, pid, run. Empty where it is no lease of ours. OSError where it is gone."""
    with suppress(ValueError):
        found = json.loads(path.read_text())
        return found if isinstance(found, dict) else {}
    return {}


def held(path: Path) -> bool:
    """Is there a lease at `path` that has not expired, nor belongs to a process of this machine that is no more?"""
    try:
        if age(path) > SECONDS:
            return False
        owner = content(path)
        if owner.get("host") == platform.node() and os.name == "posix":
            os.kill(owner["pid"], 0)
    except (FileNotFoundError, ProcessLookupError):
        return False
    except (OSError, KeyError, TypeError):
        return True
    return True


class Lease:
    """with Lease(path) as mine: `mine.taken` says whether we hold it. Touched by a thread; where another has taken it over, because we were
    suspended for longer than it lasts, SIGTERM asks this process to stop. InputError where the store cannot be written."""

    def __init__(self, path: Path, run: str = ""):
        self.path, self.token, self.taken, self.ended, self.run = path, uuid.uuid4().hex, False, threading.Event(), run

    def __enter__(self) -> "Lease":
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.taken = self._create() or self._take_over()
        except OSError as error:
            raise cannot_write(self.path, error) from error
        if self.taken:
            threading.Thread(target=self._keep, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.give_back()

    def give_back(self) -> None:
        """Before the end of the context, if need be."""
        self.ended.set()
        if self.taken and self._ours():
            with suppress(OSError):
                self.path.unlink(missing_ok=True)

    def _ours(self) -> bool:
        """Unless it is gone or another's: a disk that does not answer for once is no reason to stop."""
        try:
            return content(self.path).get("token") == self.token
        except FileNotFoundError:
            return False
        except OSError:
            return True

    def _new(self) -> Path:
        new = self.path.with_name(f".{self.path.name}.{self.token}")
        try:
            new.write_text(json.dumps({"token": self.token, "host": platform.node(), "pid": os.getpid(), "run": self.run}))
        except OSError:
            with suppress(OSError):
                new.unlink(missing_ok=True)
            raise
        return new

    def _create(self) -> bool:
        new = self._new()
        try:
            os.link(new, self.path)                     # whole or not at all, and for one of us alone
            return True
        except FileExistsError:
            return False
        except OSError:                                 # a file system without links: for one of us alone, but empty for a moment
            return self._create_empty(new.read_text())
        finally:
            new.unlink()

    def _create_empty(self, text: str) -> bool:
        try:
            file = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            return False
        with open(file, "w") as opened:
            opened.write(text)
        return True

    def _take_over(self) -> bool:
        """An expired lease, by a claim on that very one, which only one process can make."""
        try:
            token = content(self.path).get("token", "unreadable")             # first: it may change while we look
            if held(self.path):
                return False
            claim = self.path.with_name(f".{self.path.name}.{token}.claim")
            try:
                os.close(os.open(claim, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                if age(claim) > SECONDS:                # whoever made it died in these lines
                    claim.unlink(missing_ok=True)
                return False
            try:
                if content(self.path).get("token", "unreadable") != token:      # somebody was faster
                    return False
                os.replace(self._new(), self.path)
                return True
            finally:
                claim.unlink(missing_ok=True)
        except FileNotFoundError:                       # given back meanwhile
            return self._create()

    def _keep(self) -> None:
        while not self.ended.wait(SECONDS / 6):
            if not self._ours():
                os.kill(os.getpid(), signal.SIGTERM)
                return
            with suppress(OSError):
                os.utime(self.path)
