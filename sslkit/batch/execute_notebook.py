"""Run a notebook with papermill, in a kernel of this interpreter. As a job of a batch it has a folder in the store:

    notebook.ipynb      the executed notebook, with its error if it failed
    config.json         everything that decides what it shows
    progress.json       the cell that runs, or ran last; why it failed
    result.json         written when it is completed
"""
import errno
import logging
import os
import platform
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

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

from sslkit.batch.notebook_file import Lesson, read
from sslkit.errors import InputError
from sslkit.files import cannot_write, digest, digest_files, terminable, write_file, write_json
from sslkit.training import Machine, Run, store

LIBRARIES = ("torch", "torchvision", "numpy", "scikit-learn", "umap-learn", "matplotlib", "ipywidgets")


class NotebookFailed(Exception):
    """A notebook was not completed; the message says in which cell it failed, and why."""


class Kernel(AsyncKernelManager):
    """A kernel of this very interpreter, whatever `python3` kernels the user has, and with no environment activated."""

    @default("shutdown_wait_time")
    def _time_to_save(self) -> float:
        return 20.0                                     # of process.SAVE_SECONDS

    @default("kernel_spec_manager")
    def _only_our_own(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[])

    @default("transport_encryption")
    def _where_zmq_can(self) -> str:
        return "auto" if zmq.has("curve") else "disabled"           # otherwise each kernel warns on the terminal


class Client(PapermillNotebookClient):
    """Calls begins() at each cell; makes a dead kernel and a timeout errors of their cell, which papermill shows."""

    begins: Callable[[], None]

    def execute(self, **start) -> NotebookNode:
        # papermill's own execute() asks the kernel for its language at the end: a dead or busy one never answers
        self.reset_execution_trackers()
        with self.setup_kernel(**start):
            self.papermill_execute_cells()
            self.set_widgets_metadata()
        return self.nb

    def execute_cell(self, cell: NotebookNode, cell_index: int, **options) -> NotebookNode:
        if cell.cell_type == "code" and cell.source.strip():
            self.begins()
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
    def execute_managed_notebook(cls, nb_man, kernel_name, *, folder, begins, timeout, env, start_timeout=60, **_):
        client = Client(nb_man, kernel_name=kernel_name, kernel_manager_class=Kernel, timeout=timeout,
                        startup_timeout=start_timeout, iopub_timeout=60, log=logging.getLogger("papermill"))
        client.begins = begins
        with tempfile.TemporaryFile("w+", errors="replace") as log:     # the kernel's own words would break our line
            try:
                return client.execute(cwd=str(folder), env=env, stderr=log)
            except RuntimeError as error:                               # the kernel did not start
                log.seek(0)
                raise RuntimeError(f"{error}\n{log.read()[-1000:]}") from error


papermill_engines.register("sslkit", Engine)


def execute(path: Path, target: Path, parameters: dict[str, Any], timeout_s: float,
            begins: Callable[[], None] = lambda: None) -> str:
    """Run the notebook at `path`; returns why it failed, empty if it was completed. `target`: the executed notebook.

    timeout_s: for one cell. begins: called before each code cell. Raises InputError where the disk is full,
    KeyboardInterrupt on SIGINT and SIGTERM.
    """
    places = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    env = {**os.environ, "PATH": places, "SSLKIT_RUNS": str(store().absolute()), "SSLKIT_HEADLESS": "1",
           "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    # papermill fills parameters into paths
    source, result = (str(path).replace("{", "{{").replace("}", "}}") for path in (path, target))
    logging.getLogger("papermill").setLevel(logging.CRITICAL)           # the notebook and our lines say it all
    reason = ""
    try:
        target.unlink(missing_ok=True)
        with terminable():
            papermill.execute_notebook(
                source, result, parameters, engine_name="sslkit", kernel_name="python3", language="python",
                progress_bar=False, folder=path.parent, begins=begins, timeout=timeout_s, env=env)
    except PapermillExecutionError:
        pass                                            # it is in the notebook
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise cannot_write(target, error) from error
        reason = f"{type(error).__name__}: {error}"
    nb = executed(target)
    if nb is None:
        return reason or "it was not executed"
    if nb.metadata.get("papermill", {}).get("exception"):
        cell = next(cell for cell in nb.cells if cell.metadata.get("papermill", {}).get("exception"))
        errors = [f"{output.ename}: {output.evalue}" for output in cell.outputs if output.output_type == "error"]
        return (errors or ["it raised an error"])[0][:2000]
    cells = len(nb.cells)
    if not reason and len(remove_error_markers(nb).cells) < cells:      # it marks cells tagged raises-exception too
        write_file(target, nbformat.writes(nb))
    return reason


def executed(path: Path) -> NotebookNode | None:
    """The executed notebook at `path`. None if there is none, or only a part of it: papermill writes it as it goes."""
    with suppress(OSError, ValueError, AttributeError, nbformat.ValidationError):
        return nbformat.read(path, as_version=4)


@dataclass(frozen=True, eq=False)
class NotebookJob:
    """A notebook with parameters as a job of a batch, beside jobs.RunJob. Found if it was completed before."""
    notebook: str                       # its path
    parameters: dict[str, Any] = field(default_factory=dict)
    reads: str = ""                     # digest of all results, for notebooks that show them: they re-run if it differs
    timeout_s: float = 1800             # for one cell
    again: str = ""                     # if set, it is found only if the batch of this name completed it
    noun: ClassVar[str] = "notebook"

    @cached_property
    def lesson(self) -> Lesson:
        return read(Path(self.notebook))

    @cached_property
    def record(self) -> dict:
        """All that decides what the notebook shows: cells, parameters, package, files beside it, libraries, device."""
        here, package = Path(self.notebook).parent, Path(__file__).parents[1]
        cells = [[cell.cell_type, cell.source, cell.metadata.get("tags")] for cell in self.lesson.nb.cells]
        beside = [path for path in here.glob("[!.]*") if path.is_file() and path.suffix != ".ipynb"]
        return {"notebook": self.lesson.name, "parameters": self.parameters, "reads": self.reads,
                "cells": digest(cells), "package": digest_files([*package.rglob("*.py"), *package.rglob("*.csv")]),
                "beside": digest_files([*beside, *here.parent.glob("figures/*.csv")]),
                "device": Machine().torch_device().type, "python": platform.python_version(),
                "libraries": {name: version(name) for name in LIBRARIES}}

    @cached_property
    def name(self) -> str:
        """A short name, the same on every machine."""
        return f"{self.lesson.name}-{digest([self.parameters, self.reads])}"

    @property
    def title(self) -> str:
        """One line for logs."""
        return " ".join([f"{self.lesson.name:22}", *(f"{name} {value}" for name, value in self.parameters.items())])

    @property
    def timing_key(self) -> str:
        """Key under which run times are shared."""
        return self.notebook

    @property
    def command(self) -> str:
        """The command that does the same."""
        words = [word for name, value in self.parameters.items() for word in ("-p", name, str(value))]
        return shlex.join(["sslkit", "reproduce", Path(self.notebook).stem, *words])

    def place(self, known: dict | None = None, machine: Machine | None = None) -> Path:
        """Its folder in the store, whose name depends on the whole record."""
        return store() / "notebooks" / f"{self.lesson.name}-{digest(self.record)}"

    def finished(self, path: Path) -> bool:
        """Is it completed, in the folder `path`?"""
        with suppress(InputError):
            return (result := Run(path).result) is not None and self.again in ("", result.get("again"))
        return False

    def seconds(self, known: dict | None = None, machine: Machine | None = None) -> float:
        """About how long it takes: the time that was noted when its outputs were last written."""
        return max(1.0, sum(self.lesson.plan))

    def do(self, known: dict | None = None, machine: Machine | None = None) -> None:
        """Run it. Raises NotebookFailed if it is not completed."""
        path, begin, cell = self.place(), time.monotonic(), 0
        path.mkdir(parents=True, exist_ok=True)
        for name in ("result.json", "progress.json", "notebook.ipynb"):         # of an earlier attempt
            (path / name).unlink(missing_ok=True)
        write_json(path / "config.json", self.record)

        def note(error: str = "") -> None:
            cells, seconds = len(self.lesson.plan) + bool(self.parameters), time.monotonic() - begin
            with suppress(InputError):                  # only for watching; writing the result tells of a full disk
                write_json(path / "progress.json", {"cell": cell, "cells": cells, "seconds": seconds, "error": error})

        def begins() -> None:
            nonlocal cell
            cell += 1
            note()

        note()
        error = execute(Path(self.notebook), path / "notebook.ipynb", self.parameters, self.timeout_s, begins)
        note(error)
        if error:
            raise NotebookFailed(f"in cell {cell}: {error}")
        write_json(path / "result.json", {"notebook": self.lesson.name, "cells": cell, "again": self.again,
                                          "seconds": time.monotonic() - begin})
