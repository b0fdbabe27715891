"""What the lessons share, and the lessons' own shape: short cells, one for parameters, no trace of a machine."""
import json
import os
import re
import time
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch

from sslkit.data.sources import load
from sslkit.data.split import split
from sslkit.errors import InputError
from sslkit.lessons import session as notebook
from sslkit.lessons.plots import Figure
from sslkit.methods import FixMatch, SimMatch, Supervised
from sslkit.papers.scales import SCALES
from sslkit.training.config import Config
from sslkit.training.identity import record, run_path, store
from sslkit.training.run import Run, Stopped

LESSONS = sorted((Path(__file__).parents[1] / "notebooks").glob("[0-9][0-9]_*.ipynb"))
BEGIN = re.compile(r"# [^\n]+\n\n\*\*After this lesson you can\*\* [^\n]+(?:\n[^\n]+)*\n\nReading (?P<minutes>\d+) minutes?, computing [^.\n]+\. ")
every_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)


@every_lesson
def test_a_lesson_has_its_shape(path):
    lesson = nbformat.read(path, as_version=4)
    nbformat.validate(lesson)
    code = [cell for cell in lesson.cells if cell.cell_type == "code"]
    first = lesson.cells[0].source
    assert BEGIN.match(first)
    assert [k for k, cell in enumerate(code) if "parameters" in cell.metadata.get("tags", [])] == [0]
    assert code[0].metadata.tags == ["parameters"]
    assert all(re.fullmatch(r"\w+ = [^#]+  # .+", line) for line in code[0].source.splitlines())
    lines = sorted(len(cell.source.splitlines()) for cell in code)
    assert lines[len(lines) // 2] <= 9 and lines[-1] <= 25
    longest = max(len(line) for cell in code for line in cell.source.splitlines())
    assert longest <= 112, "longer lines are cut off in JupyterLab"
    assert "finish(" in code[-1].source
    asked = sum(cell.source.startswith("exercise(") for cell in code)
    assert path.stem >= "90" or 3 <= asked <= 8, "exercises; the tables have none"


@every_lesson
def test_a_lesson_takes_as_long_to_read_as_it_says(path):
    lesson = nbformat.read(path, as_version=4)
    about = BEGIN.match(lesson.cells[0].source)
    if about is None:
        pytest.skip("its first cell does not say it yet")
    words = sum(len(cell.source.split()) for cell in lesson.cells if cell.cell_type == "markdown")
    code = [cell for cell in lesson.cells if cell.cell_type == "code"]
    if not any(cell.outputs for cell in code):
        pytest.skip("nobody has run it since it was changed")
    figures = sum("image/" in kind for cell in code for output in cell.outputs for kind in output.get("data", {}))
    exercises = sum(len(re.findall(r"^exercise\(", cell.source, re.M)) for cell in code)
    minutes = words / 200 + figures + 2 * exercises
    assert abs(int(about["minutes"]) - minutes) <= 0.25 * minutes + 2, f"{words} words, {figures} figures, {exercises} exercises: {minutes:.0f} minutes"


@every_lesson
def test_a_lesson_has_the_steps_of_the_quick_scale(path):
    first = next(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")
    steps = 200 if path.stem.startswith("04") else SCALES["quick"].steps             # the sweep has many short runs
    assert re.findall(r"^steps = (\d+)", first, re.M) in ([], [str(steps)])


@every_lesson
def test_a_lesson_is_committed_with_outputs_and_without_a_trace_of_a_machine(path):
    text, lesson = path.read_text(), nbformat.read(path, as_version=4)
    assert path.stat().st_size <= 500_000
    assert not re.search(r"/(home|root|work|Users|tmp)/", text)
    code = [cell for cell in lesson.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)) and "widgets" not in lesson.metadata
    pictures = any("image/" in kind for cell in code for output in cell.outputs for kind in output.get("data", {}))
    tables = [output for cell in code for output in cell.outputs if "Markdown object" in output.get("data", {}).get("text/plain", "")]
    assert pictures or tables and path.stem >= "90"
    assert all("text/markdown" in output.data for output in tables), "a reader without a kernel sees no table"
    for cell in code:
        if re.search(r"sliders?\(", cell.source) and "import" not in cell.source:
            pictures = [{"image/png", "image/jpeg"} & {*output.get("data", {})} for output in cell.outputs]
            assert any(pictures), "a slider leaves a picture for readers without a kernel"
        if "nbval-check-output" in cell.metadata.get("tags", []):
            assert cell.outputs and all(o.output_type == "stream" for o in cell.outputs)


def test_watching_a_store_ends_when_nothing_has_run_for_a_while(runs, monkeypatch):
    idle = ["0 running"]
    looks, shown = [["1 running", "x"], idle, ["1 running", "y"], idle, idle, idle, ["never"]], []
    monkeypatch.setattr("sslkit.batch.watch.at_work", lambda folder: looks.pop(0))
    monkeypatch.setattr(notebook, "display", lambda picture, raw, display_id: shown.append(picture) or Handle())

    class Handle:
        def update(self, picture, raw):
            shown.append(picture)

    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=lambda seconds: now.__setitem__(0, now[0] + seconds))
    monkeypatch.setattr(notebook, "time", clock)
    notebook.watch(pause=2, idle=3)                       # between two runs of a batch there is a moment without any
    assert [picture["text/plain"] for picture in shown] == ["1 running\nx", *idle, "1 running\ny", *idle * 2]


def test_watching_an_idle_store(runs, capsys):
    notebook.watch(idle=0)
    assert "0 running, 0 finished, 0 failed" in capsys.readouterr().out


def test_begin_refuses_what_cannot_be_a_count(capsys):
    notebook.begin(labels=20, tau=0.95)
    assert capsys.readouterr().out == "labels = 20, tau = 0.95\n"
    with pytest.raises(InputError, match="steps is -1"):
        notebook.begin(steps=-1)
    with pytest.raises(InputError, match="labels must be a number"):
        notebook.begin(labels=None)


def test_begin_allows_the_negative_imbalance_that_split_offers(capsys):
    notebook.begin(imbalance=-20)
    assert capsys.readouterr().out == "imbalance = -20\n"
    with pytest.raises(InputError, match="seed is -20"):
        notebook.begin(imbalance=-20, seed=-20)


def test_fit_once_trains_once(digits, runs, capsys):
    config = Config(steps=20, eval_every=10, batch_size=8, mu=2)
    first = notebook.fit_once(FixMatch(), digits, config)
    written = (first.path / "result.json").stat().st_mtime_ns
    again = notebook.fit_once(FixMatch(), digits, config)
    out = capsys.readouterr().out
    assert again.path == first.path and (again.path / "result.json").stat().st_mtime_ns == written
    assert "FixMatch: trained, 20 steps" in out and "FixMatch: found in the store, 20 steps" in out


def test_a_sweep_finds_what_is_finished_and_goes_on_where_it_was_stopped(digits, runs, capsys, monkeypatch):
    short = Config(steps=12, eval_every=6, batch_size=8, mu=2)
    jobs = {(alpha, seed): (SimMatch(alpha=alpha), digits, replace(short, seed=seed))
            for alpha in (0.5, 1.0) for seed in (0, 1)}
    trained, fit = [], notebook.fit

    def interrupted(method, data, config, *others, **more):
        if len(trained) == 2:
            stopped = Run("somewhere")
            raise Stopped(stopped, 6, 12)
        trained.append((method.alpha, config.seed))
        return fit(method, data, config)

    monkeypatch.setattr(notebook, "fit", interrupted)
    with pytest.raises(Stopped):
        notebook.fit_all(jobs)
    assert "2 of 4 runs are finished: run the cell again" in capsys.readouterr().out
    monkeypatch.setattr(notebook, "fit", fit)
    found = notebook.fit_all(jobs)
    assert capsys.readouterr().out == "4 runs: 2 trained, 2 found in the store\n"
    assert list(found) == list(jobs)
    settings = [(run.config["arguments"]["alpha"], run.config["train"]["seed"]) for run in found.values()]
    assert settings == list(jobs)
    monkeypatch.delenv("SSLKIT_HEADLESS")
    monkeypatch.setattr(notebook, "display", lambda *data, **options: pytest.fail("there is nothing to train"))
    notebook.fit_all(jobs)


def test_what_another_process_trains_comes_last(digits, runs, monkeypatch):
    config, trained, fit = Config(steps=4, eval_every=2, batch_size=8, mu=2), [], notebook.fit
    jobs = {seed: (Supervised(), digits, replace(config, seed=seed)) for seed in range(4)}
    busy = [run_path(record(Supervised(), digits, jobs[seed][2].resolve(digits, torch.device("cpu")))).name for seed in (0, 2)]
    (runs / "leases").mkdir(parents=True)
    for name in busy:
        (runs / "leases" / name).write_text(json.dumps({"token": "t", "host": "elsewhere", "pid": 1}))
    monkeypatch.setattr(notebook, "fit", lambda method, data, config, **more: trained.append(config.seed) or fit(method, data, config))
    monkeypatch.setattr(notebook, "time", SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: [
        (runs / "leases" / name).unlink(missing_ok=True) for name in busy]))
    assert list(notebook.fit_all(jobs)) == [0, 1, 2, 3] and trained == [1, 3, 0, 2]


@pytest.mark.parametrize("watched", [True, False])
def test_a_lesson_waits_for_a_run_that_another_machine_trains(digits, runs, capsys, monkeypatch, watched):
    if watched:
        monkeypatch.delenv("SSLKIT_HEADLESS")
    config = Config(steps=12, eval_every=6, batch_size=8, mu=2)
    path = run_path(record(Supervised(), digits, config.resolve(digits, torch.device("cpu"))))
    (runs / "leases").mkdir(parents=True)
    lease = runs / "leases" / path.name
    lease.write_text(json.dumps({"token": "t", "host": "elsewhere", "pid": 1}))
    pauses = []

    def sleep(seconds):
        pauses.append(seconds)
        if len(pauses) == 3:
            assert Run(path).config is None, "nothing is trained meanwhile"
            lease.unlink()

    monkeypatch.setattr(notebook, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
    run = notebook.fit_once(Supervised(), digits, config)
    assert len(pauses) == 3 and run.result
    assert capsys.readouterr().out.count("another process trains this run: waiting for it") == watched
    assert not list((runs / "leases").iterdir())


def test_lessons_train_by_functions_that_wait_for_others():
    for path in sorted((Path(__file__).parents[1] / "notebooks").glob("[0-9]*.ipynb")):
        cells = [cell["source"] for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
        found = re.findall(r"(?<![\w.])(?:fit|hdl_on|kd_fixmatch)\(", "\n".join("".join(source) for source in cells))
        assert not found, f"{path.name} calls {found}: fit_once() and fit_all() wait where another lesson trains it"


def test_a_kept_table_reads_back(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "figures").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    rows = [{"alpha": 0.5, "seed": 0.0}, {"alpha": 1.0, "seed": 1.0}]
    notebook.keep("sweep", rows)
    assert notebook.kept("sweep") == rows
    assert (tmp_path / "figures" / "sweep.csv").read_text() == "alpha,seed\n0.5,0.0\n1.0,1.0\n"
    with pytest.raises(InputError, match="nothing.csv is not there"):
        notebook.kept("nothing")


def test_the_sweep_s_table_is_the_full_grid():
    rows = notebook.kept("simmatch_sweep")
    assert len(rows) == 36 * 3 == len({(row["alpha"], row["t"], row["seed"]) for row in rows})
    assert all(0.1 < row["test_acc"] <= 1 and row["steps"] == 2000 and row["labels"] == 20 for row in rows)


def test_live_draws_while_watched_and_says_nothing_else(monkeypatch, capsys):
    from sslkit.records import Snapshot
    shown, clock = [], iter(range(0, 1000, 3))
    monkeypatch.setattr(notebook, "display", lambda figure, display_id: shown.append(figure) or Handle())
    monkeypatch.setattr(notebook.time, "monotonic", lambda: next(clock))

    class Handle:
        def update(self, figure):
            shown.append(figure)

    def go():
        live = notebook.Live(60, "FixMatch")
        for step in range(1, 61):
            live(Snapshot(step, {"test_acc": 0.5, "pseudo_label_acc": None, "mask_rate": 0.0}, True, None, None))

    go()                                                            # SSLKIT_HEADLESS is set
    assert not shown and not capsys.readouterr().out
    monkeypatch.delenv("SSLKIT_HEADLESS")
    go()
    assert len(shown) == 60 and all(isinstance(figure, Figure) for figure in shown) and not capsys.readouterr().out


def test_the_curve_of_a_run_is_the_same_whoever_trained_it(digits, runs, monkeypatch):
    shown, titles = [], []
    monkeypatch.setattr(notebook.plots, "curves", lambda lines, _, title: shown.append(lines) or titles.append(title) or title)
    monkeypatch.setattr(notebook, "display", lambda picture, display_id: SimpleNamespace(update=lambda picture: None))
    config = Config(steps=20, eval_every=5, batch_size=8, mu=2)
    run = notebook.fit_once(FixMatch(), digits, config)
    notebook.fit_once(FixMatch(), digits, config)
    trained, found = shown
    assert list(trained) == ["test accuracy", "kept guesses that are right", "share kept"]
    assert trained["test accuracy"] == run.curve("test_acc") and len(trained["share kept"][0]) == 4
    np.testing.assert_equal(trained, found)                         # NaN where nothing was kept
    assert titles == ["FixMatch: 20 steps"] * 2


def test_umap_is_computed_once_and_a_damaged_file_again(runs, monkeypatch):
    import sys
    import types
    calls = []

    class UMAP:
        def __init__(self, **options):
            pass

        def fit_transform(self, points):
            calls.append(1)
            torch.set_num_threads(torch.get_num_threads() + 1)           # as numba does
            return points[:, :2]

    # the lessons run the real one, which compiles for 20 s
    monkeypatch.setitem(sys.modules, "umap", types.SimpleNamespace(UMAP=UMAP))
    points = np.random.default_rng(0).normal(size=(30, 5))
    threads = torch.get_num_threads()
    a, b = notebook.umap_map(points), notebook.umap_map(points)
    assert np.array_equal(a, b) and len(calls) == 1
    assert torch.get_num_threads() == threads, "a run that is trained after a map would come out otherwise"
    assert len(notebook.umap_map(points + 1)) == 30 and len(calls) == 2
    file = sorted((store() / "cache").iterdir())[0]
    file.write_bytes(file.read_bytes()[:40])
    notebook.umap_map(points), notebook.umap_map(points + 1)
    assert len(calls) == 3


def test_finish_leaves_a_result(runs, capsys):
    notebook.finish("00_tour", fixmatch=0.95)
    assert json.loads((store() / "lessons" / "00_tour.json").read_text()) == {"lesson": "00_tour", "fixmatch": 0.95}
    assert not capsys.readouterr().out, "a student has no use for it"


def a_notebook(pipe, runs):
    """What one of two processes does: fit_once(), when it hears that the other is ready too; it tells what was printed."""
    os.environ["SSLKIT_RUNS"] = str(runs)
    torch.set_num_threads(1)
    pipe.send("ready")
    pipe.recv()
    with redirect_stdout(StringIO()) as out:
        notebook.fit_once(FixMatch(), split(load("digits"), 20, 0), Config(steps=60, eval_every=20, batch_size=8, mu=2))
    pipe.send(out.getvalue())


def test_two_notebooks_that_want_the_same_run_train_it_once(server, runs):
    """The second waits, and finds it."""
    pipes = [server.Pipe() for _ in range(2)]
    both = [server.Process(target=a_notebook, args=(theirs, runs), daemon=True) for _, theirs in pipes]
    for process in both:
        process.start()
    ours = [pipe for pipe, _ in pipes]
    assert all(pipe.poll(100) and pipe.recv() == "ready" for pipe in ours)
    for pipe in ours:
        pipe.send("go")
    assert all(pipe.poll(100) for pipe in ours)
    said = [pipe.recv() for pipe in ours]
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    (run,) = [path for path in store().iterdir() if (path / "config.json").exists()]
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 3
    assert sorted("found in the store" in out for out in said) == [False, True]
