"""sslkit train: one run, in one process or several."""
import argparse
import json
import math
import os
import shlex
import sys
import threading
from contextlib import ExitStack, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from sslkit import batch
from sslkit.cli.launch import launch
from sslkit.errors import Left, require
from sslkit.terminal import ProgressLine

if TYPE_CHECKING:
    from sslkit.training import Machine, Run, RunSpec

MANY_VIEWS = 20_000                  # in a step; more are slow enough for a note


def train(argv: list[str]) -> int:
    """sslkit train METHOD: one run, or the stages of a recipe with a line of progress for each."""
    from sslkit import processes
    from sslkit.data import source
    from sslkit.training import method_names, parse

    if not argv or argv[0] in ("-h", "--help"):
        names = ", ".join(method_names())
        print(f"usage: sslkit train METHOD [FLAGS]\n\nmethods: {names}\n"
              "`sslkit train METHOD --help` explains its flags")
        return 0 if argv else 2
    require(not argv[0].startswith("-"), f"name a method first: sslkit train fixmatch {argv[0]} ...")
    spec, machine, values = parse(argv)
    method = spec.make(**spec.arguments)
    spec.train.check()
    count = values.processes if processes.asked_for() == 1 else processes.asked_for()
    require(count >= 1, f"processes is {count}, it must be at least 1")
    require(count == 1 or not method.mixes, f"{argv[0]} mixes the rows of a batch, it trains in one process: leave out "
            "--processes, or take another method")
    size = spec.train.batch_size or source(spec.data.data, spec.data.encoder is not None).batch_size
    require(size % count == 0, f"{count} processes cannot share {size} labelled images a step: take a --batch-size "
            f"that is a multiple of {count}")
    if count > processes.asked_for():
        return launch(["train", *argv], count)
    if count == 1:
        return trained(argv, spec, machine, values)
    if os.environ.get(processes.WATCHED):
        threading.Thread(target=batch.stop_when_alone, daemon=True).start()
    machine = replace(machine, device=processes.join(machine.device))
    with ExitStack() as stack:
        stack.callback(processes.leave)
        if processes.rank():                         # the first one speaks for all
            silent = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(redirect_stdout(silent))
            stack.enter_context(redirect_stderr(silent))
        try:
            return trained(argv, spec, machine, values)
        except Left as error:
            raise Left(f"{error}; {again(argv)}") from error


def again(argv: list[str]) -> str:
    """How a stopped run goes on."""
    from sslkit import processes

    by_torchrun = processes.asked_for() > 1 and processes.WATCHED not in os.environ
    words = shlex.join(["train", *(word for word in argv if word != "--resume"), "--resume"])
    return f"continue with: {'torchrun ... -m ' * by_torchrun}sslkit {words}"


def trained(argv: list[str], spec: "RunSpec", machine: "Machine", values: argparse.Namespace) -> int:
    """The run of train(), in this process."""
    from sslkit import processes
    from sslkit.training import Stopped, begun, labels_in_words, store

    machine.apply()
    line = ProgressLine(0)
    data = processes.in_turn(partial(spec.load, progress=line.loading, machine=machine))
    for name, why in (("skipped", "that are no images: " + ", ".join(data.info.get("skipped_files", ()))),
                      ("ignored", "of other kinds")):
        if data.info.get(name):
            print(f"note: left out {data.info[name]} files {why}", file=sys.stderr)
    if data.left_out is not None:
        labeled, unlabeled = (" ".join(f"{n:,}" for n in part) for part in data.counts())
        print(f"images of each class, labelled {labeled}; unlabelled {unlabeled}", file=sys.stderr)
    run, config = begun(values, spec.identity(data, machine)), spec.train.resolve(data, machine.torch_device())
    views = config.batch_size * (1 + config.mu * len(spec.make(**spec.arguments).views))
    if views > MANY_VIEWS:
        size = 4e-9 * views * math.prod(data.view)
        print(f"note: a step makes {views:,} views, {size:.1f} GB before the network; a smaller --batch-size or --mu "
              "needs less memory and time", file=sys.stderr)
    line = ProgressLine(config.steps)
    try:
        job = values.job and not processes.rank()
        with batch.as_job(store(), spec.name, run.path.absolute()) if job else nullcontext():
            run = spec.run(data, machine, out=run.path, live=line.stage, progress=line.loading)
    except Stopped as stop:
        line.end()
        print(f"{stop}\n{again(argv)}", file=sys.stderr)
        return 130
    finally:
        line.end()
    print(labels_in_words(run.result), end="", file=sys.stderr)
    return report(run, values.json)


def report(run: "Run", as_json: bool) -> int:
    """Print the figures of a finished run, for people or as JSON."""
    result = {key: value for key, value in run.result.items() if key != "machine"} | {"run": str(run.path)}
    found = {name: result.get(f"test_acc_{name}") for name in ("head", "middle", "tail")}
    groups = "".join(f", {name} {acc:.1%}" for name, acc in found.items() if acc is not None)
    print(f"test accuracy {result['test_acc']:.1%} (median of the last 20 evaluations "
          f"{result['test_acc_median20']:.1%}){groups}, {result['seconds']:.0f} s, {run.path}",
          file=sys.stderr if as_json else sys.stdout)
    if as_json:
        print(json.dumps(result))
    return 0
