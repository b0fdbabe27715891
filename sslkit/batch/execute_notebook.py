"""Execute a notebook with papermill, in a kernel of this interpreter; `sslkit execute` needs no torch. It leaves:

    config.json         everything that decides what it shows
    notebook.ipynb      the executed notebook, saved after each cell, with its error if it failed
    result.json         written when it is completed
"""
import errno
import logging
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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

from sslkit.batch.notebook_file import executed, failure, job_name, read, typed
from sslkit.batch.process import as_job
from sslkit.errors import require
from sslkit.files import cannot_write, store, terminable, write_file, write_json
from sslkit.terminal import Parser


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
    """papermill's client. A dead kernel and a timeout are errors of their cell here, which papermill shows."""

    def execute(self, **start) -> NotebookNode:
        # papermill's own execute() asks the kernel for its language at the end: a dead or busy one never answers
        self.reset_execution_trackers()
        with self.setup_kernel(**start):
            self.papermill_execute_cells()
            self.set_widgets_metadata()
        return self.nb

    def execute_cell(self, cell: NotebookNode, cell_index: int, **options) -> NotebookNode:
        try:
            return super().execute_cell(cell, cell_index, **options)
        except (DeadKernelError, CellTimeoutError) as error:
            name, value = "DeadKernelError", "the kernel died; perhaps the memory ran out"
            if isinstance(error, CellTimeoutError):
                name, value = "TimeoutError", f"the cell took longer than {self.timeout:g} s"
            red = f"\x1b[31m{name}\x1b[0m: {value}"
            cell.outputs.append(nbformat.v4.new_output("error", ename=name, evalue=value, traceback=[red]))
            raise CellExecutionError("", name, value) from error


class Engine(NBClientEngine):
    """papermill's engine with our client and kernel."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, *, folder, timeout, env, **_):
        client = Client(nb_man, kernel_name=kernel_name, kernel_manager_class=Kernel, timeout=timeout,
                        startup_timeout=60, iopub_timeout=60, log=logging.getLogger("papermill"))
        with tempfile.TemporaryFile("w+", errors="replace") as log:     # what the kernel itself says
            try:
                return client.execute(cwd=str(folder), env=env, stderr=log)
            except RuntimeError as error:                               # the kernel did not start
                log.seek(0)
                raise RuntimeError(f"{error}\n{log.read()[-1000:]}") from error


papermill_engines.register("sslkit", Engine)


def execute(path: Path, target: Path, parameters: Mapping[str, Any], timeout_s: float) -> str:
    """Execute the notebook at `path`, saved as `target`; returns why it failed, empty if it was completed.

    timeout_s: for one cell. Raises InputError where the disk is full, KeyboardInterrupt on SIGINT and SIGTERM.
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
            papermill.execute_notebook(source, result, parameters, engine_name="sslkit", kernel_name="python3",
                                       language="python", progress_bar=False, folder=path.parent, timeout=timeout_s,
                                       env=env)
    except PapermillExecutionError:
        pass                                            # it is in the notebook
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise cannot_write(target, error) from error
        reason = f"{type(error).__name__}: {error}"
    nb = executed(target)
    if nb is None:
        return reason or "it was not executed"
    if why := failure(nb):
        return why
    cells = len(nb.cells)
    if not reason and len(remove_error_markers(nb).cells) < cells:      # it marks cells tagged raises-exception too
        write_file(target, nbformat.writes(nb))
    return reason


def execute_main(argv: list[str]) -> int:
    """sslkit execute."""
    parser = Parser(prog="sslkit execute", description="Execute one notebook in a kernel of this Python, as `sslkit "
                    "reproduce` does with each of its lessons. Exit code 1 if a cell fails.")
    parser.add_argument("notebook", metavar="FILE", help="the notebook")
    parser.add_argument("--out", metavar="DIR", required=True, help="a folder for notebook.ipynb, with its outputs, "
                        "and result.json, when it is completed; a folder that holds a result is left alone")
    parser.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
                        help="set a parameter of its first code cell")
    parser.add_argument("--timeout", metavar="SECONDS", type=float, default=1800, help="of a cell (default: 1800)")
    values = parser.parse(argv)
    lesson, out, begin = read(Path(values.notebook).absolute()), Path(values.out).absolute(), time.monotonic()
    require(values.timeout > 0, f"timeout is {values.timeout:g}, it must be above 0 seconds")
    given = typed({name: [text] for name, text in values.parameter}, [lesson]).get(lesson.name, {})
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(out, error) from error
    parameters = {name: value for name, (value,) in given.items()}
    with as_job(store(), job_name(lesson, parameters), out):
        error = execute(lesson.path, out / "notebook.ipynb", parameters, values.timeout)
        if not error:
            write_json(out / "result.json", {"notebook": lesson.name, "seconds": time.monotonic() - begin})
    if error:
        print(f"{lesson.name}: {error.partition(chr(10))[0]}", file=sys.stderr)
    return 1 if error else 0
