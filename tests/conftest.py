"""A store of its own for every test session, so that no test finds a run that somebody trained before; kernels and workers inherit it.
$SSLKIT_TEST_STORE names one that is kept, for the sessions of one check."""
import multiprocessing
import os
import re
import shutil
import tempfile

MINE = "SSLKIT_TEST_STORE" not in os.environ
STORE = os.environ.get("SSLKIT_TEST_STORE") or tempfile.mkdtemp(prefix="sslkit-tests-")
os.environ.update(SSLKIT_TEST_STORE=STORE, SSLKIT_RUNS=f"{STORE}/runs", SSLKIT_CACHE=f"{STORE}/cache", SSLKIT_HEADLESS="1",
                  PYTHONHASHSEED="0", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")     # one thread: the workers share the cores

import pytest  # noqa: E402
import torch  # noqa: E402
from xdist.scheduler import LoadScopeScheduling  # noqa: E402

from sslkit.data.sources import load  # noqa: E402
from sslkit.data.split import split  # noqa: E402

torch.set_num_threads(1)


def pytest_unconfigure(config):
    if MINE:                                        # xdist's workers have it from their parent
        shutil.rmtree(STORE, ignore_errors=True)


class ByLesson(LoadScopeScheduling):
    """Workers take a file at a time, or a lesson: its cells share a kernel, and its browser test has trained its runs."""

    def _split_scope(self, nodeid):
        lesson = re.search(r"(?:test_browser.*\[|notebooks/)(\w+)", nodeid)
        return lesson[1] if lesson else nodeid.split("::")[0]


def pytest_collection_modifyitems(items):
    """What takes longest first, or one worker would end alone; and not two lessons at once that want the same run: one would wait for
    the other."""
    order = [f"notebooks/{number}_" for number in ("00", "03", "05", "06", "04", "08", "09", "01", "02", "07", "9")] + [
        f"tests/test_{name}.py" for name in ("engine", "batch", "methods", "cli", "recipes", "train", "studies", "embed", "bench", "identity")]
    items.sort(key=lambda item: next((k for k, start in enumerate(order) if item.nodeid.startswith(start)), len(order)))


def pytest_xdist_make_scheduler(config, log):
    return ByLesson(config, log)


@pytest.fixture(scope="session")
def digits():
    """Digits with 20 labels, seed 0."""
    return split(load("digits"), 20, 0)


@pytest.fixture(scope="session")
def server():
    """Begins processes in a tenth of a fresh interpreter's time: it has imported torch and not yet used it. Their environment is that
    of the first test that asks for it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "sslkit.training", "sslkit.methods", "sslkit.lessons", "sklearn.datasets"])
    return context


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """An empty store for this test alone."""
    monkeypatch.setenv("SSLKIT_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def sslkit(capsys, runs):
    """sslkit(words) -> exit code, stdout, stderr, in this process and with an empty store."""
    from sslkit import cli

    def call(*words):
        capsys.readouterr()
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()
    return call


@pytest.fixture
def refused(sslkit, runs, tmp_path):
    """refused(words, *parts): exit code 2, one sentence on stderr that has each part besides progress, nothing on stdout, and no file or
    folder that was not there."""
    def call(words, *parts):
        files = lambda: sorted({*tmp_path.rglob("*")} - {runs})          # noqa: E731 -- an empty store may be left
        before = files()
        code, out, err = sslkit(*words)
        said = [line for line in err.splitlines() if not line.startswith(("see sslkit ", "decoding ", "embedding "))]
        assert code == 2 and out == "" and len(said) == 1 and said[0].startswith("sslkit"), (code, out, err)
        assert all(part in said[0] for part in parts), said[0]
        assert files() == before, "something was left behind"
    return call
