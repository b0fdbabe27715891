"""Leases: one holder at a time, over processes; an expired one is taken over by exactly one."""
import json
import os
import platform
import subprocess
import sys
import time

import pytest

from sslkit import lease
from sslkit.errors import InputError
from sslkit.lease import Lease, held


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(lease, "SECONDS", 1.5)


def test_one_holds_it_and_gives_it_back(tmp_path):
    path = tmp_path / "leases" / "run"
    with Lease(path) as mine:
        assert mine.taken and held(path)
        with Lease(path) as other:
            assert not other.taken
        assert held(path), "whoever did not get it takes nothing away"
    assert not held(path) and not path.exists() and not list(path.parent.iterdir())


def test_where_there_are_no_links(tmp_path, monkeypatch):
    def link(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    with Lease(tmp_path / "run", "x") as mine, Lease(tmp_path / "run") as other:
        assert mine.taken and not other.taken and lease.content(tmp_path / "run")["run"] == "x"
    assert not list(tmp_path.iterdir())


def test_a_store_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="could not write .*run: Not a directory"):
        with Lease(tmp_path / "file" / "leases" / "run"):
            pass


def test_it_is_kept_while_its_owner_works(tmp_path):
    with Lease(tmp_path / "run"):
        time.sleep(2.2)
        assert held(tmp_path / "run")


def foreign(path, age, **more):
    path.write_text(json.dumps({"token": "t", "host": "elsewhere", "pid": 1} | more))
    os.utime(path, (time.time() - age,) * 2)


def test_of_another_machine_it_counts_until_it_expires(tmp_path):
    foreign(tmp_path / "run", 0)
    with Lease(tmp_path / "run") as mine:
        assert not mine.taken
    foreign(tmp_path / "run", 5)
    with Lease(tmp_path / "run") as mine:
        assert mine.taken


def test_of_a_process_of_this_machine_that_is_no_more_it_counts_no_more(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    foreign(tmp_path / "run", 0, host=platform.node(), pid=gone.pid)
    assert not held(tmp_path / "run")
    with Lease(tmp_path / "run") as mine:
        assert mine.taken


def test_what_is_no_lease_counts_until_it_is_old(tmp_path):
    (tmp_path / "run").write_text("{")
    assert held(tmp_path / "run")
    os.utime(tmp_path / "run", (time.time() - 5,) * 2)
    with Lease(tmp_path / "run") as mine:
        assert mine.taken


@pytest.mark.parametrize("before", ["nothing", "an expired one"])
def test_of_many_that_try_at_once_one_gets_it(before, tmp_path):
    code = ("import sys, time\nfrom pathlib import Path\nfrom sslkit.lease import Lease\nwhile time.time() < float(sys.argv[2]): pass\n"
            "with Lease(Path(sys.argv[1])) as mine:\n  print(int(mine.taken)); time.sleep(2)")
    for round in range(2):
        path = tmp_path / f"run{round}"
        if before != "nothing":
            foreign(path, 100)
        start = str(time.time() + 1.5)
        several = [subprocess.Popen([sys.executable, "-c", code, path, start], stdout=subprocess.PIPE, text=True) for _ in range(6)]
        assert sorted(process.communicate()[0].strip() for process in several) == ["0"] * 5 + ["1"]


def test_an_owner_whose_lease_was_taken_over_is_asked_to_stop(tmp_path):
    code = ("import signal, sys, time\nfrom pathlib import Path\nfrom sslkit import lease\nlease.SECONDS = 1\n"
            "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
            "with lease.Lease(Path(sys.argv[1])):\n  print('held', flush=True); time.sleep(20)")
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path / "run"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    foreign(tmp_path / "run", 0)
    assert process.wait(10) == 7 and held(tmp_path / "run"), "and does not take away what is another's"
