"""The command line: sslkit train | runs | reproduce | study | execute | table | lab | embed | label | probe | bench.

Exit code 1: something failed; 2: something given cannot be used; 69: another process of the run is gone;
75: another process does it; 130: stopped.
"""
import os
import re
import sys

from sslkit.cli.labels import embed, label, probe
from sslkit.cli.one_run import train
from sslkit.cli.training import bench, execute, lab, reproduce, runs, study, table
from sslkit.errors import InputError, choose

USAGE = """usage: sslkit COMMAND [FLAGS]

  train METHOD   one run; without METHOD, a list of the methods
  runs           the runs of a store, newest first
  reproduce      run the lessons, or with `tables` the papers' tables; leave notebooks, figures and a summary page
  study NAME     one of the tables that lessons read
  execute FILE   one notebook, as reproduce does it
  table NAME     a paper's table, ours beside it
  lab            open JupyterLab in the lessons
  embed FOLDER   features of a folder of pictures, by a pre-trained encoder
  label FILES    labels for embeddings of any encoder, from a few labels
  probe          how good an encoder's features are, by linear evaluation with all labels
  bench          what one training step costs
  --version

`sslkit COMMAND --help` explains every flag."""

COMMANDS = {command.__name__: command
            for command in (train, runs, reproduce, study, execute, table, lab, embed, label, probe, bench)}


def main(argv: list[str] | None = None) -> int:
    """Run one command; its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if argv else 2
    if argv[0] == "--version":
        from sslkit import __version__
        print(__version__)
        return 0
    try:
        code = COMMANDS[choose("command", argv[0], COMMANDS)](argv[1:])
        sys.stdout.flush()
        return code
    except (InputError, FloatingPointError) as error:
        print(f"sslkit: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, InputError) else 1
    except RuntimeError as error:
        if not re.search("out of memory|can't allocate memory|not enough memory", str(error)):
            raise
        print("sslkit: the memory does not suffice; try a smaller --batch-size, --mu or --size", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())    # or Python's flush at the end would complain
        return 141
