"""Execute a notebook with papermill, in a kernel of this interpreter; `sslkit execute` needs no torch. It leaves:

    config.json         everything that decides what it shows
    notebook.ipynb      the executed notebook, saved after each cell, with its error if it failed
    result.json         written when it is completed
"""
import errno
import logging
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import nbformat
import papermill
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError
from papermill.execute import raise_for_execution_errors, remove_error_markers
from traitlets import default

from sslkit.batch.notebook_file import code_cells, executed, failure, how_far, job_name, read, typed
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


def execute(path: Path, target: Path, parameters: Mapping[str, Any], timeout_s: float) -> str:
    """Execute the notebook at `path`, saved as `target`; returns why it failed, empty if it was completed.

    timeout_s: for one cell. Raises InputError where the disk is full, KeyboardInterrupt on SIGINT and SIGTERM.
    """
    # papermill fills parameters into paths
    source, result = (str(path).replace("{", "{{").replace("}", "}}") for path in (path, target))
    logging.getLogger("papermill").setLevel(logging.CRITICAL)           # the notebook and our lines say it all
    reason, ended = "", ()
    try:
        target.unlink(missing_ok=True)
        with terminable():
            papermill.execute_notebook(source, result, parameters, kernel_name="python3", language="python",
                                       progress_bar=False, cwd=path.parent, execution_timeout=timeout_s,
                                       kernel_manager_class=Kernel, iopub_timeout=60)
    except PapermillExecutionError:
        pass                                            # it is in the notebook
    except DeadKernelError:
        ended = "DeadKernelError", "the kernel died; perhaps the memory ran out"
    except CellTimeoutError:
        ended = "TimeoutError", f"the cell took longer than {timeout_s:g} s"
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise cannot_write(target, error) from error
        reason = f"{type(error).__name__}: {error}"
    nb = executed(target)
    if nb is None:
        return reason or "it was not executed"
    begun, *_ = how_far(nb)
    if ended and begun:
        name, value = ended
        cell = code_cells(nb)[begun - 1]
        cell.outputs = [output for output in cell.outputs if output.output_type != "error"]        # of the interruption
        cell.outputs.append(nbformat.v4.new_output("error", ename=name, evalue=value, traceback=[f"{name}: {value}"]))
        cell.metadata.papermill.update(exception=True, status="failed")
        with suppress(PapermillExecutionError):
            raise_for_execution_errors(nb, str(target))                 # marks the cell, as for any other error
    if why := failure(nb) or ": ".join(ended):
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
    os.environ |= {"SSLKIT_RUNS": str(store().absolute()), "SSLKIT_HEADLESS": "1",
                   "MPLBACKEND": "module://matplotlib_inline.backend_inline",
                   "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))}
    with as_job(store(), job_name(lesson, parameters), out):
        error = execute(lesson.path, out / "notebook.ipynb", parameters, values.timeout)
        if not error:
            write_json(out / "result.json", {"notebook": lesson.name, "seconds": time.monotonic() - begin})
    if error:
        print(f"{lesson.name}: {error.partition(chr(10))[0]}", file=sys.stderr)
    return 1 if error else 0
