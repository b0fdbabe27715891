"""Who is at work on a run: a file that its owner keeps touching, and that expires where nobody does. For processes and machines that share
a store; on one machine the lock of disk.locked() stands behind it.
"""
import json
import os
import platform
import signal
import threading
import uuid
from contextlib import suppress
from pathlib import Path

SECONDS = float(os.environ.get("SSLKIT_LEASE_SECONDS", "60"))       # after which an untouched lease counts no more


def now(folder: Path) -> float:
    """The time by the clock that stamps files in `folder`, which may be another machine's."""
    probe = folder / f".clock-{os.getpid()}-{threading.get_ident()}"
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def held(path: Path) -> bool:
    """Is there a lease at `path` that has not expired, nor belongs to a process of this machine that is no more?"""
    try:
        if now(path.parent) - path.stat().st_mtime > SECONDS:
            return False
        owner = json.loads(path.read_text())
        if owner["host"] == platform.node():
            os.kill(owner["pid"], 0)
    except (OSError, ValueError, KeyError) as error:
        return not isinstance(error, (FileNotFoundError, ProcessLookupError))
    return True


class Lease:
    """with Lease(path) as mine: `mine.taken` says whether we hold it. Touched by a thread; where another has taken it over, because we were
    suspended for longer than it lasts, SIGTERM asks this process to stop."""

    def __init__(self, path: Path):
        self.path, self.token, self.taken, self.ended = path, uuid.uuid4().hex, False, threading.Event()

    def __enter__(self) -> "Lease":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.taken = self._create() or self._take_over()
        if self.taken:
            threading.Thread(target=self._keep, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.ended.set()
        if self.taken and self._ours():
            self.path.unlink(missing_ok=True)

    def _text(self) -> str:
        return json.dumps({"token": self.token, "host": platform.node(), "pid": os.getpid()})

    def _ours(self) -> bool:
        with suppress(OSError, ValueError):
            return json.loads(self.path.read_text())["token"] == self.token
        return False

    def _create(self) -> bool:
        new = self.path.with_name(f".{self.path.name}.{self.token}")
        new.write_text(self._text())
        try:
            os.link(new, self.path)                     # whole or not at all, and for one of us alone
            return True
        except FileExistsError:
            return False
        finally:
            new.unlink()

    def _take_over(self) -> bool:
        """An expired lease, by a claim on that very one, which only one process can make."""
        if held(self.path):
            return False
        try:
            claim = self.path.with_name(f".{self.path.name}.{json.loads(self.path.read_text())['token']}.claim")
        except FileNotFoundError:
            return self._create()
        except (OSError, ValueError, KeyError):         # none of ours
            claim = self.path.with_name(f".{self.path.name}.unreadable.claim")
        try:
            os.close(os.open(claim, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            if now(self.path.parent) - claim.stat().st_mtime > SECONDS:         # whoever made it died in these lines
                claim.unlink(missing_ok=True)
            return False
        try:
            new = self.path.with_name(f".{self.path.name}.{self.token}")
            new.write_text(self._text())
            os.replace(new, self.path)
        finally:
            claim.unlink(missing_ok=True)
        return True

    def _keep(self) -> None:
        while not self.ended.wait(SECONDS / 6):
            if not self._ours():
                os.kill(os.getpid(), signal.SIGTERM)
                return
            with suppress(OSError):
                os.utime(self.path)
