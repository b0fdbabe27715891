"""One notebook from end to end: papermill runs it in a kernel of this very interpreter. A job of a batch, whose folder in the store holds

    notebook.ipynb      the executed notebook, with its error if it failed
    config.json         everything that decides what it shows
    progress.json       which of its cells runs, or was the last; why it failed
    result.json         when it ran through
"""
import errno
import hashlib
import json
import logging
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
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
from sslkit.batch.page import put
from sslkit.errors import InputError
from sslkit.files import cannot_write, terminable, write_json
from sslkit.training import Machine, Run, store

LIBRARIES = ("torch", "torchvision", "numpy", "scikit-learn", "umap-learn", "matplotlib", "ipywidgets")


class NotebookFailed(Exception):
    """A notebook did not run through; the message says in which cell, and why."""


class Kernel(AsyncKernelManager):
    """A kernel of this very interpreter, whatever `python3` kernels the user has, and with no environment activated."""

    @default("shutdown_wait_time")
    def _time_to_save(self) -> float:
        return 20.0                                     # of task.SAVE_SECONDS

    @default("kernel_spec_manager")
    def _none_but_our_own(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[])

    @default("transport_encryption")
    def _where_zmq_can(self) -> str:
        return "auto" if zmq.has("curve") else "disabled"           # without, each kernel warns on the terminal


class Client(PapermillNotebookClient):
    """Says when a cell begins; a dead kernel and a timeout become errors of their cell, which papermill keeps visible."""

    begins: Callable[[], None]

    def execute(self, **start) -> NotebookNode:
        # papermill's own asks the kernel for its language last, and so waits for one that is dead or busy
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
        with tempfile.TemporaryFile("w+", errors="replace") as log:     # what its process says would break our line
            try:
                return client.execute(cwd=str(folder), env=env, stderr=log)
            except RuntimeError as error:                               # it did not start
                log.seek(0)
                raise RuntimeError(f"{error}\n{log.read()[-1000:]}") from error


papermill_engines.register("sslkit", Engine)


def execute(path: Path, target: Path, parameters: dict[str, Any], timeout_s: float, begins: Callable[[], None] = lambda: None) -> str:
    """Run the notebook at `path`; returns why it failed, empty where it ran through. It lies at `target` then, its error in it.

    begins: called before each code cell. InputError where the disk is full, KeyboardInterrupt on SIGINT and SIGTERM.
    """
    places = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    env = {**os.environ, "PATH": places, "SSLKIT_RUNS": str(store().absolute()), "SSLKIT_HEADLESS": "1",
           "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    # papermill formats paths with the parameters
    source, result = (str(path).replace("{", "{{").replace("}", "}}") for path in (path, target))
    logging.getLogger("papermill").setLevel(logging.CRITICAL)           # its news are in the notebook and in our lines
    said = ""
    try:
        target.unlink(missing_ok=True)
        with terminable():
            papermill.execute_notebook(source, result, parameters, engine_name="sslkit", kernel_name="python3", language="python",
                                       progress_bar=False, folder=path.parent, begins=begins, timeout=timeout_s, env=env)
    except PapermillExecutionError:
        pass                                            # it is in the notebook
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise cannot_write(target, error) from error
        said = f"{type(error).__name__}: {error}"
    nb = executed(target)
    if nb is None:
        return said or "it was not executed"
    if nb.metadata.get("papermill", {}).get("exception"):
        cell = next(cell for cell in nb.cells if cell.metadata.get("papermill", {}).get("exception"))
        errors = [f"{output.ename}: {output.evalue}" for output in cell.outputs if output.output_type == "error"]
        return (errors or ["it raised an error"])[0][:2000]
    cells = len(nb.cells)
    if not said and len(remove_error_markers(nb).cells) < cells:        # papermill marks what is tagged raises-exception too
        put(target, nbformat.writes(nb))
    return said


def executed(path: Path) -> NotebookNode | None:
    """The notebook that was executed there; None where there is none, or only a part of it: papermill writes it as it goes."""
    with suppress(OSError, ValueError, AttributeError, nbformat.ValidationError):
        return nbformat.read(path, as_version=4)


def digest(paths: Iterable[Path]) -> str:
    """Of the names and the content of files."""
    found = hashlib.sha256()
    for path in sorted(paths):
        with suppress(OSError):
            found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()[:16]


def short(content: Any) -> str:
    """A hash of plain values."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]


@dataclass(frozen=True, eq=False)
class NotebookJob:
    """A notebook with parameters as a job of a batch, as jobs.Job is a run. `found` where the same one has run through before."""
    notebook: str                                                  # where it lies
    parameters: dict[str, Any] = field(default_factory=dict)
    reads: str = ""                                                # what the store held, for one that shows that
    timeout_s: float = 1800                                        # of a cell
    again: str = ""                                                # found only if it ran through in the batch of this name
    noun: ClassVar[str] = "notebook"

    @cached_property
    def lesson(self) -> Lesson:
        return read(Path(self.notebook))

    @cached_property
    def record(self) -> dict:
        """What decides what the notebook shows: its cells, its parameters, the package, the files beside it, the libraries, the device."""
        here, package = Path(self.notebook).parent, Path(__file__).parents[1]
        cells = [[cell.cell_type, cell.source, cell.metadata.get("tags")] for cell in self.lesson.nb.cells]
        beside = [path for path in here.glob("[!.]*") if path.is_file() and path.suffix != ".ipynb"]
        return {"notebook": self.lesson.name, "parameters": self.parameters, "reads": self.reads,
                "cells": short(cells),
                "package": digest([*package.rglob("*.py"), *package.rglob("*.csv")]),
                "beside": digest([*beside, *here.parent.glob("figures/*.csv")]),
                "device": Machine().torch_device().type, "python": platform.python_version(),
                "libraries": {name: version(name) for name in LIBRARIES}}

    @cached_property
    def name(self) -> str:
        """A short name, the same on every machine."""
        return f"{self.lesson.name}-{short([self.parameters, self.reads])}"

    @property
    def said(self) -> str:
        """For people."""
        return " ".join([f"{self.lesson.name:22}", *(f"{name} {value}" for name, value in self.parameters.items())])

    @property
    def kind(self) -> str:
        """What takes equally long has the same one."""
        return self.notebook

    @property
    def values(self) -> dict[str, Any]:
        """It as plain values, which travel."""
        return asdict(self)

    def place(self, known: dict | None = None, machine: Machine | None = None) -> Path:
        """The folder in the store, a function of everything that decides what it shows."""
        return store() / "notebooks" / f"{self.lesson.name}-{short(self.record)}"

    def finished(self, path: Path) -> bool:
        """Has it run through, in the folder `path`?"""
        with suppress(InputError):
            return (result := Run(path).result) is not None and self.again in ("", result.get("again"))
        return False

    def seconds(self, known: dict | None = None, machine: Machine | None = None) -> float:
        """About how long it takes: what it said when its outputs were last written."""
        return max(1.0, sum(self.lesson.plan))

    def do(self, known: dict | None = None, machine: Machine | None = None) -> None:
        """Run it. NotebookFailed where it does not run through."""
        path, begin, cell = self.place(), time.monotonic(), 0
        path.mkdir(parents=True, exist_ok=True)
        for name in ("result.json", "progress.json", "notebook.ipynb"):         # of an earlier attempt
            (path / name).unlink(missing_ok=True)
        write_json(path / "config.json", self.record)

        def note(error: str = "") -> None:
            with suppress(InputError):                  # for those who watch; a full disk will be said where it matters
                write_json(path / "progress.json", {"cell": cell, "cells": len(self.lesson.plan) + bool(self.parameters),
                                                    "seconds": time.monotonic() - begin, "error": error})

        def begins() -> None:
            nonlocal cell
            cell += 1
            note()

        note()
        error = execute(Path(self.notebook), path / "notebook.ipynb", self.parameters, self.timeout_s, begins)
        note(error)
        if error:
            raise NotebookFailed(f"in cell {cell}: {error}")
        write_json(path / "result.json", {"notebook": self.lesson.name, "cells": cell, "seconds": time.monotonic() - begin,
                                           "again": self.again})
