"""Leases: one holder at a time, over processes; an expired one is taken over by exactly one. Folder locks."""
import fcntl
import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sslkit import files
from sslkit.errors import Busy, InputError
from sslkit.files import Lease, held, is_locked, locked, waiting

HOLD = ("import signal, sys, time\nfrom pathlib import Path\nfrom sslkit.files import Lease\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "with Lease(Path(sys.argv[1])) as lease:\n  print(lease.taken, flush=True); time.sleep(20)")


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(files, "LEASE_SECONDS", 1.5)


def owner_of(path: Path, seconds: float = 1) -> subprocess.Popen:
    """Another process of this machine that holds the lease."""
    environment = os.environ | {"SSLKIT_LEASE_SECONDS": str(seconds)}
    owner = subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True, env=environment)
    assert owner.stdout.readline() == "True\n"
    return owner


def foreign(path: Path, age: float) -> None:
    """A lease of another machine that was last refreshed `age` seconds ago."""
    path.write_text(json.dumps({"token": "t", "host": "elsewhere", "pid": 1}))
    os.utime(path, (time.time() - age,) * 2)


def test_one_holds_it_and_releases_it(tmp_path):
    path = tmp_path / "leases" / "run"
    with Lease(path, "x") as lease:
        assert lease.taken and held(path) and files.content(path)["run"] == "x"
        with Lease(path) as other:
            assert not other.taken
        assert held(path), "whoever did not get it takes nothing away"
    assert not held(path) and not path.exists() and not list(path.parent.iterdir())


def test_it_can_be_given_back_before_the_end(tmp_path):
    with Lease(tmp_path / "run") as lease:
        lease.give_back()
        assert not held(tmp_path / "run")
        with Lease(tmp_path / "run") as next_one:
            assert next_one.taken
            lease.give_back()
            assert held(tmp_path / "run"), "twice does no harm"


def test_a_store_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="could not write .*run: Not a directory"):
        with Lease(tmp_path / "file" / "leases" / "run"):
            pass


def test_a_disk_that_fills_up_leaves_no_lease_without_an_owner(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.json, "dump", full)
    with pytest.raises(InputError, match="could not write .*run: no space left on the disk"):
        with Lease(tmp_path / "run"):
            pass
    assert not list(tmp_path.iterdir())


def test_it_is_refreshed_while_its_owner_works(tmp_path):
    with Lease(tmp_path / "run"):
        time.sleep(2.2)
        assert held(tmp_path / "run")


def test_one_of_another_machine_counts_until_it_expires(tmp_path):
    foreign(tmp_path / "run", 0)
    with Lease(tmp_path / "run") as lease:
        assert not lease.taken
    foreign(tmp_path / "run", 5)
    with Lease(tmp_path / "run") as lease:
        assert lease.taken
    assert not list(tmp_path.iterdir())


def test_one_whose_owner_on_this_machine_was_killed_is_free_at_once(tmp_path):
    owner = owner_of(tmp_path / "run", seconds=60)
    assert held(tmp_path / "run")
    owner.kill()
    owner.wait()
    assert not held(tmp_path / "run")
    with Lease(tmp_path / "run") as lease:
        assert lease.taken


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({"host": platform.node(), "pid": 10 ** 30})])
def test_what_is_no_lease_counts_until_it_is_old(text, tmp_path):
    (tmp_path / "run").write_text(text)
    assert held(tmp_path / "run")
    os.utime(tmp_path / "run", (time.time() - 5,) * 2)
    with Lease(tmp_path / "run") as lease:
        assert lease.taken


@pytest.mark.parametrize("before", ["nothing", "an expired one", "an expired one and an abandoned claim"])
def test_of_many_that_try_at_once_one_gets_it(before, tmp_path):
    code = ("import os, sys, time\nfrom pathlib import Path\nfrom sslkit.files import Lease\nhere = Path(sys.argv[1])\n"
            "(here / f'ready{os.getpid()}').touch()\n"
            "while not (here / 'go').exists(): time.sleep(.002)\n"
            "with Lease(here / 'run') as lease:\n"
            "  print(int(lease.taken), flush=True)\n"
            "  while not (here / 'end').exists(): time.sleep(.02)")
    if before != "nothing":
        foreign(tmp_path / "run", 100)
    if "claim" in before:
        foreign(claim := tmp_path / ".run.claim", 100)
        with Lease(tmp_path / "run") as lease:
            assert not lease.taken and not claim.exists(), "free for the next one who asks"
    several = [subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True) for _ in range(6)]
    while len(list(tmp_path.glob("ready*"))) < 6:
        time.sleep(.02)
    (tmp_path / "go").touch()
    taken = sorted(process.stdout.readline() for process in several)
    (tmp_path / "end").touch()
    assert taken == ["0\n"] * 5 + ["1\n"] and [process.wait() for process in several] == [0] * 6


@pytest.mark.parametrize("moment, winner", [(1, "the other"), (2, "the first")])
def test_two_that_judge_an_expired_one_at_the_same_time(moment, winner, tmp_path, monkeypatch):
    """The other asks just after the first has judged the lease: before the claim (1), or under it (2)."""
    path, judge, judged, others = tmp_path / "run", files.held, [], []

    def interrupted(path):
        found = judge(path)
        judged.append(found)
        if len(judged) == moment:
            others.append(Lease(path).__enter__())
        return found

    foreign(path, 100)
    monkeypatch.setattr(files, "held", interrupted)
    with Lease(path) as lease:
        assert [lease.taken, others[0].taken] == [winner == "the first", winner == "the other"]
    others[0].give_back()
    assert not list(tmp_path.iterdir())


def test_an_owner_that_was_suspended_too_long_is_asked_to_stop(tmp_path):
    owner = owner_of(tmp_path / "run")
    os.kill(owner.pid, signal.SIGSTOP)
    time.sleep(1.7)
    with Lease(tmp_path / "run") as lease:
        assert lease.taken, "SSLKIT_LEASE_SECONDS is over"
        os.kill(owner.pid, signal.SIGCONT)
        assert owner.wait(10) == 7 and held(tmp_path / "run"), "and does not take away what is another's"


def test_who_has_just_finished_is_not_asked_to_stop(tmp_path, monkeypatch):
    """The refreshing thread reads the lease at the moment when it is given back."""
    monkeypatch.setattr(files, "LEASE_SECONDS", 0.3)
    asked, read, looking = [], files.content, threading.Event()

    def slow(path):
        if threading.current_thread() is not threading.main_thread():
            looking.set()
            while path.exists():
                time.sleep(0.01)
        return read(path)

    before = signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
    try:
        monkeypatch.setattr(files, "content", slow)
        with Lease(tmp_path / "run"):
            assert looking.wait(5)
        time.sleep(0.2)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not asked


def test_a_look_at_a_folder_does_not_keep_a_run_out(tmp_path):
    with open(tmp_path / ".lock", "w") as look:
        fcntl.flock(look, fcntl.LOCK_SH)                # as is_locked() does, for some milliseconds
        threading.Timer(0.02, fcntl.flock, (look, fcntl.LOCK_UN)).start()
        with locked(tmp_path):
            assert is_locked(tmp_path)
            with pytest.raises(Busy, match="another process is training in"), locked(tmp_path):
                pass
    assert not is_locked(tmp_path)


def test_who_waits_for_a_folder_gets_it_though_it_was_renamed_meanwhile(tmp_path, monkeypatch, capsys):
    folder, naps, others = tmp_path / "work", [], []

    def nap(seconds):
        naps.append(seconds)
        if len(naps) == 16:                             # the other one has finished: it renames the folder, and goes
            folder.rename(tmp_path / "place")
            first.__exit__(None, None, None)

    first = waiting(folder, "works")
    first.__enter__()
    monkeypatch.setattr(files.time, "sleep", lambda seconds: nap(seconds) if len(naps) < 30 else others.append(seconds))
    with waiting(folder, "decodes the same images"):
        assert is_locked(folder) and not is_locked(tmp_path / "place")
    assert capsys.readouterr().err == "note: another process decodes the same images; waiting for it\n" and not others


def test_a_lock_on_a_folder_that_another_has_replaced_is_none(tmp_path, monkeypatch):
    folder, opened, real = tmp_path / "work", [], files._lock

    def replaced(file, kind):                           # between the opening of the file and its lock
        if not opened:
            opened.append(folder.rename(tmp_path / "place"))
        return real(file, kind)

    monkeypatch.setattr(files, "_lock", replaced)
    with waiting(folder, "works"):
        assert is_locked(folder) and opened


def test_a_folder_that_cannot_be_made_is_not_waited_for(tmp_path):
    (tmp_path / "file").write_text("no folder")
    for folder in (tmp_path / "file/work", Path("/proc/work")):
        with pytest.raises(InputError, match="could not write"), waiting(folder, "works"):
            pass


def test_a_lock_that_is_a_link_is_refused_and_its_target_untouched(tmp_path):
    (tmp_path / "mine").write_text("text")
    (tmp_path / ".lock").symlink_to(tmp_path / "mine")
    with pytest.raises(InputError, match=r"could not write .*\.lock: it is a symbolic link"), locked(tmp_path):
        pass
    assert (tmp_path / "mine").read_text() == "text"
