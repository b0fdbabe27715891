"""The lessons from end to end: papermill runs them; executed notebooks, their figures and a summary page are left.

    out/index.html                          the page, rewritten as lessons begin and end
    out/02_fixmatch.html                    a lesson as a page
    out/notebooks/02_fixmatch.ipynb         and as a notebook, with its error if it failed
    out/figures/02_fixmatch-01.png ...      its figures
    out/tables/simmatch-1.md, .csv ...      the papers' tables with ours, as far as the store has them
"""
import errno
import logging
import os
import shlex
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import nbformat
import papermill
import zmq
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillExecutionError
from papermill.execute import remove_error_markers
from traitlets import default

from sslkit import papers, scales
from sslkit.disk import cannot_write
from sslkit.errors import InputError, require
from sslkit.jobs import distinct, finished
from sslkit.lesson import Lesson, lessons, parameters_of, pick, read, stripped, typed
from sslkit.report import clock, export, page, put
from sslkit.runs import store

__all__ = ["Fill", "lessons", "reproduce", "tables_among"]
NOTEBOOKS = {"simmatch": "90_simmatch_tables", "kd-fixmatch": "91_kd_fixmatch_tables", "hdl": "92_hdl_tables"}


class Kernel(AsyncKernelManager):
    """A kernel of this very interpreter, whatever `python3` kernels the user has, and with no environment activated."""

    @default("kernel_spec_manager")
    def _none_but_our_own(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[])

    @default("transport_encryption")
    def _where_zmq_can(self) -> str:
        return "auto" if zmq.has("curve") else "disabled"           # without, each kernel warns on the terminal


class Client(PapermillNotebookClient):
    """Notes which cell runs; a dead kernel and a timeout become errors of their cell, which papermill keeps visible."""

    lesson: Lesson

    def execute(self, **start) -> NotebookNode:
        # papermill's own asks the kernel for its language last, and so waits for one that is dead or busy
        self.reset_execution_trackers()
        with self.setup_kernel(**start):
            self.papermill_execute_cells()
            self.set_widgets_metadata()
        return self.nb

    def execute_cell(self, cell: NotebookNode, cell_index: int, **options) -> NotebookNode:
        if cell.cell_type == "code" and cell.source.strip():
            self.lesson.cell, self.lesson.cell_began = self.lesson.cell + 1, time.monotonic()
        try:
            return super().execute_cell(cell, cell_index, **options)
        except DeadKernelError as error:
            name, value, cause = "DeadKernelError", "the kernel died; perhaps the memory ran out", error
        except CellTimeoutError as error:
            name, value, cause = "TimeoutError", f"the cell took longer than {self.timeout:g} s", error
        red = f"\x1b[31m{name}\x1b[0m: {value}"
        cell.outputs.append(nbformat.v4.new_output("error", ename=name, evalue=value, traceback=[red]))
        raise CellExecutionError("", name, value) from cause


class Engine(NBClientEngine):
    """papermill's engine with our client and kernel."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, *, lesson, timeout, env, start_timeout=60, **_):
        client = Client(nb_man, kernel_name=kernel_name, kernel_manager_class=Kernel, timeout=timeout,
                        startup_timeout=start_timeout, iopub_timeout=60, log=logging.getLogger("papermill"))
        client.lesson = lesson
        with tempfile.TemporaryFile("w+", errors="replace") as log:     # what its process says would break our line
            try:
                return client.execute(cwd=str(lesson.path.parent), env=env, stderr=log)
            except RuntimeError as error:                               # it did not start
                log.seek(0)
                raise RuntimeError(f"{error}\n{log.read()[-1000:]}") from error


papermill_engines.register("sslkit", Engine)


def execute(lesson: Lesson, target: Path, parameters: dict, timeout: float) -> NotebookNode:
    """Run one lesson; sets its state. Returns the executed notebook, which lies at `target`, its error in it."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    env = {**os.environ, "PATH": path, "SSLKIT_RUNS": str(store().absolute()), "SSLKIT_HEADLESS": "1",
           "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    # papermill formats paths with the parameters
    source, result = (str(path).replace("{", "{{").replace("}", "}}") for path in (lesson.path, target))
    lesson.cell_began = began = time.monotonic()
    lesson.plan += [0] * bool(parameters)               # the injected cell
    try:
        target.unlink(missing_ok=True)
        papermill.execute_notebook(source, result, parameters, engine_name="sslkit", kernel_name="python3",
                                   language="python", progress_bar=False, lesson=lesson, timeout=timeout, env=env)
    except PapermillExecutionError:
        pass                                            # it is in the notebook
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise cannot_write(target, error) from error
        lesson.state, lesson.error = "failed", f"{type(error).__name__}: {error}"
    finally:
        lesson.seconds = time.monotonic() - began
    nb = nbformat.read(target if target.exists() else lesson.path, as_version=4)
    if nb.metadata.get("papermill", {}).get("exception"):
        cell = next(cell for cell in nb.cells if cell.metadata.get("papermill", {}).get("exception"))
        errors = [f"{output.ename}: {output.evalue}" for output in cell.outputs if output.output_type == "error"]
        lesson.state, lesson.error = "failed", (errors or ["it raised an error"])[0][:2000]
    elif lesson.state == "running":
        lesson.state, lesson.cell, cells = "finished", len(lesson.plan) + 1, len(nb.cells)
        if len(remove_error_markers(nb).cells) < cells:     # papermill marks what is tagged raises-exception too
            put(target, nbformat.writes(nb))
    return nb


class Progress:
    """One line: rewritten every second on a terminal, elsewhere at most one in 10 seconds. The context draws it."""

    def __init__(self, todo: list[Lesson], stream):
        self.todo, self.stream, self.live = todo, stream, stream.isatty()
        self.begin = self.told = time.monotonic()
        self.width, self.ended, self.lock = 0, threading.Event(), threading.Lock()

    def __enter__(self) -> "Progress":
        self.thread = threading.Thread(target=self._draw, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.ended.set()
        self.thread.join()

    def _draw(self) -> None:
        while not self.ended.wait(1):
            now, running = time.monotonic(), [k for k, lesson in enumerate(self.todo) if lesson.state == "running"]
            if running and (self.live or now - self.told >= 10):
                self.write(self.line(running[0], now))

    def write(self, text: str, stays: bool = False) -> None:
        """Show `text`; on a terminal the next one takes its place unless it stays."""
        with self.lock:
            if self.live:
                text = text if stays else text[:shutil.get_terminal_size().columns - 1]
                self.stream.write("\r" + text.ljust(self.width) + ("\n" if stays else ""))
                self.width = 0 if stays else len(text)
            else:
                self.stream.write(text + "\n")
            self.stream.flush()
            self.told = time.monotonic()

    def line(self, k: int, now: float) -> str:
        """Which lesson, which cell, how long it took and how long it may still take."""
        lesson = self.todo[k]
        return (f"lesson {k + 1} of {len(self.todo)}  {lesson.name}  cell {max(1, lesson.cell)} of {len(lesson.plan)}  "
                f"{clock(now - self.begin)} elapsed, about {clock(self.left(lesson, now))} left")

    def left(self, lesson: Lesson, now: float) -> float:
        """Seconds left: those planned, at the pace so far; 10 s at pace 1 stand in for a beginning."""
        cell = lesson.plan[max(0, lesson.cell - 1):lesson.cell]
        later = sum(lesson.plan[lesson.cell:]) + sum(sum(other.plan) for other in self.todo if other.state == "waiting")
        done = sum(sum(other.plan[:max(0, other.cell - 1)]) for other in self.todo)
        pace = (lesson.cell_began - self.begin + 10) / (done + 10)
        return max(0, sum(cell) * pace - (now - lesson.cell_began)) + later * pace


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM stops as Ctrl-C does: what trains in a lesson is saved, and no kernel is left behind."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler) if main else None
    try:
        yield
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)


def tables_among(names: Iterable[str]) -> list[papers.Table]:
    """The tables that are named; `tables` names all."""
    every = papers.tables()
    found = (one for name in names for one in (every if name == "tables" else [name]) if one in every)
    return [every[one] for one in dict.fromkeys(found)]


def notebook_of(table: papers.Table) -> str:
    """The notebook that shows a table."""
    return next(notebook for start, notebook in NOTEBOOKS.items() if table.name.startswith(start))


@dataclass(frozen=True)
class Fill:
    """How tables are filled: at which scale, with seeds 0, 1 ...; see engine.run_batch for the rest."""
    scale: str = "quick"
    seeds: int = 3
    scheduler: str | None = None
    workers: int | None = None

    def check(self) -> None:
        """InputError for a scale there is not, seeds or workers under 1."""
        scales.scale(self.scale)
        require(self.seeds >= 1, f"seeds is {self.seeds}, it must be at least 1")
        require(self.workers is None or self.workers >= 1, f"workers is {self.workers}, it must be at least 1")
        require(self.workers is None or self.scheduler is None, "--workers is of this machine; how many a scheduler has is seen there")

    def __call__(self, chosen: list[papers.Table], stream=None) -> bool:
        """Train what these tables need and the store has not. True when no run failed."""
        from sslkit.engine import run_batch

        at = scales.scale(self.scale)
        for table in chosen:
            if not table.jobs(at, 1):
                why = next((cell.missing for cell in table.cells if cell.missing), "no column of its data")
                print(f"note: nothing of {table.name} can be run at scale {self.scale}: {why}", file=stream or sys.stderr)
        jobs = distinct(job for table in chosen for job in table.jobs(at, self.seeds))
        return not jobs or not run_batch(jobs, scheduler=self.scheduler, workers=self.workers, stream=stream).count("failed")


def reproduce(names: Iterable[str] = (), *, out: str | Path = "report", parameters: dict[str, str] | None = None,
              folder: str | Path | None = None, refresh: bool = False, timeout_s: float = 1800, command: str | None = None,
              tables: Fill | None = None, stream=None) -> bool:
    """Run the lessons, leave notebooks, figures and a summary page in `out`. True when every one ran through.

    names: which of them (`02`, `02_fixmatch`; none: all); with `tables` also tables, which are filled first. folder: where they lie.
    parameters: as typed, each for the lessons that have one of its name. refresh: write the outputs back into the lessons, to be committed.
    timeout_s: for one cell. command: as typed, for the page (default: made of these). stream: where progress is shown (default: stderr).
    Raises InputError before anything runs where something given cannot be used, KeyboardInterrupt when stopped.
    """
    names, parameters, began, begin = list(names), parameters or {}, datetime.now(), time.monotonic()
    chosen = tables_among(names) if tables else []
    shows = [notebook_of(table) for table in chosen]
    plain = [name for name in names if not (tables and (name == "tables" or name in papers.tables()))]
    todo = [read(path) for path in pick([*plain, *shows], lessons(folder), more=("tables", *papers.tables()))]
    given = typed(parameters, todo)
    if tables:
        tables.check()
        for name in shows:
            given[name] = {"scale": tables.scale, "seeds": tables.seeds} | given.get(name, {})
    changed = any(value != parameters_of(lesson)[name] for lesson in todo for name, value in given.get(lesson.name, {}).items())
    require(not (refresh and changed), "--refresh writes back what lessons show by default: it takes no parameters")
    target, index = Path(out).absolute(), Path(out) / "index.html"
    same = (target / "notebooks").resolve() == todo[0].path.parent.resolve()
    require(not same, f"--out {out} would overwrite the lessons themselves")
    try:
        for part in ("notebooks", "figures", "tables"):
            (target / part).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(target, error) from error
    if command is None:
        words = ["sslkit", "reproduce", *names, *["--out", str(out)] * (str(out) != "report"), *["--refresh"] * refresh]
        command = shlex.join(words + [word for item in parameters.items() for word in ("-p", *item)])
    logging.getLogger("papermill").setLevel(logging.CRITICAL)       # its news are in the notebooks and in our lines

    def tabulate() -> None:
        runs = finished()
        for name, table in papers.tables().items():
            for form in ("md", "csv"):
                put(target / "tables" / f"{name}.{form}", papers.FORMATS[form](table, papers.beside(table, runs=runs)) + "\n")

    def show() -> None:
        put(target / "index.html", page(todo, command, began, time.monotonic() - begin))

    good = tables(chosen, stream) if tables else True
    with terminable(), Progress(todo, stream or sys.stderr) as progress:
        for number, lesson in enumerate(todo, 1):
            executed = target / "notebooks" / lesson.path.name
            try:
                lesson.state = "running"
                show()
                nb = execute(lesson, executed, given.get(lesson.name, {}), timeout_s)
                export(lesson, nb, target)
                show()
            except KeyboardInterrupt:
                lesson.state = "stopped"
                if executed.exists():
                    export(lesson, nbformat.read(executed, as_version=4), target)
                tabulate()
                show()
                done = ", ".join(other.name for other in todo if other.state == "finished") or "none"
                progress.write(f"{lesson.name} {lesson.status}; finished: {done}; see {index}", stays=True)
                raise
            progress.write(f"lesson {number} of {len(todo)}  {lesson.name}  {lesson.status}", stays=True)
            good &= lesson.state == "finished"
            if refresh and lesson.state == "finished":
                try:
                    unchanged = lesson.path.read_text(encoding="utf-8") == lesson.text
                    require(unchanged, f"{lesson.path} was changed while it ran")
                    put(lesson.path, stripped(lesson, nb))
                except InputError as error:
                    good = False
                    progress.write(f"not refreshed: {error}", stays=True)
        tabulate()
        through = sum(lesson.state == "finished" for lesson in todo)
        took = clock(time.monotonic() - begin)
        progress.write(f"{through} of {len(todo)} lessons finished in {took}; see {index}", stays=True)
    return good
