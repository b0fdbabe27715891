"""sslkit train | runs | reproduce | lab | bench: the command line. Exit code 2: something given cannot be used; 130: stopped."""
import argparse
import difflib
import inspect
import json
import os
import re
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from sslkit.errors import InputError, choose, require

USAGE = """usage: sslkit COMMAND [FLAGS]

  train METHOD   one run: supervised, fixmatch, simmatch, kd-fixmatch
  runs           what was run, newest first
  reproduce      run the lessons, leave notebooks, figures and a summary page
  lab            open JupyterLab in the lessons
  bench          what one training step costs
  --version

`sslkit COMMAND --help` explains every flag."""


RECIPE = """An outer FixMatch labels the images, a clustering confirms some of its labels, a fresh inner network learns from them and from
its own."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that names the nearest flag when it does not know one."""

    def __init__(self, **options):
        style = lambda prog: argparse.HelpFormatter(prog, max_help_position=30, width=110)          # noqa: E731
        super().__init__(allow_abbrev=False, formatter_class=style, **options)

    def parse(self, argv: list[str]) -> argparse.Namespace:
        values, unknown = self.parse_known_args(argv)
        if unknown:
            word = unknown[0].split("=")[0]
            if not word.startswith("-"):
                self.error(f"unexpected word {word!r}")
            near = difflib.get_close_matches(word, [s for a in self._actions for s in a.option_strings], n=1, cutoff=0.5)
            self.error(f"unknown flag {word}" + (f": did you mean {near[0]}?" if near else ""))
        return values

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message}\nsee {self.prog} --help\n")

    def _check_value(self, action: argparse.Action, value: Any):
        try:
            if action.choices is not None:
                choose("value", value, action.choices)
        except InputError as error:
            raise argparse.ArgumentError(action, str(error)) from error

    def add_parameters(self, function: Callable, title: str) -> None:
        """A flag for each parameter of `function` (or dataclass), annotated Annotated[type, "help"]."""
        group, hints = self.add_argument_group(title), get_type_hints(function, include_extras=True)
        if inspect.isclass(function):
            hints |= get_type_hints(function.__init__, include_extras=True)
        for name, parameter in inspect.signature(function).parameters.items():
            kind, text = get_args(hints[name])[:2] if get_origin(hints[name]) is Annotated else (hints[name], "")
            kind = next((a for a in get_args(kind) if a is not type(None)), kind) if type(None) in get_args(kind) else kind
            if "default" not in text:
                given = ("no", "yes")[parameter.default] if kind is bool else parameter.default
                text = f"{text[:-1]}; default: {given})" if text.endswith(")") else f"{text} (default: {given})"
            flag, options = "--" + name.replace("_", "-"), {"default": parameter.default, "help": text.replace("%", "%%")}
            if kind is bool:
                action = "store_true" if parameter.default is False else argparse.BooleanOptionalAction
                group.add_argument(flag, action=action, dest=name, **options).help = options["help"]     # the second adds to it
            elif get_origin(kind) is Literal:
                group.add_argument(flag, choices=get_args(kind), dest=name, **options)
            else:
                group.add_argument(flag, type=kind, dest=name, metavar={int: "N", float: "X"}.get(kind, "TEXT"), **options)


def chosen(function: Callable, values: argparse.Namespace) -> dict[str, Any]:
    """The values for the parameters of `function`."""
    return {name: getattr(values, name) for name in inspect.signature(function).parameters}


def data_flags(data: Annotated[str, "digits, cifar10, cifar100, svhn, stl10, food101, or folder:PATH, your own images in "
                               "train/CLASS/, test/CLASS/ and perhaps unlabeled/ (default: digits)"] = "digits",
               labels: Annotated[int, "labelled images, as many of each class (default: 20; papers: 40, 250, 4000 on CIFAR-10)"] = 20,
               include_labeled: Annotated[bool, "keep the labelled images among the unlabelled ones (default: yes; papers: yes)"] = True,
               validation: Annotated[int, "training images held out and evaluated in the test set's place, to choose settings by "
                                     "(default: 0, evaluate on the test set)"] = 0,
               size: Annotated[int | None, "side in pixels of a folder's and food101's images, resized (default: 32, food101 128)"] = None,
               flip: Annotated[bool | None, "may a weak view mirror an image? (default: yes, but not on digits and svhn)"] = None,
               root: Annotated[str | None, "where downloaded data sets lie (default: $SSLKIT_DATA or ~/.cache/sslkit)"] = None,
               download: Annotated[bool, "download the data set if it is not there"] = False,
               skip_bad_images: Annotated[bool, "leave out files that are no images, and count them"] = False):
    """The flags that choose the data."""


class ProgressLine:
    """One line that is rewritten on a terminal; elsewhere a line of its own every 10 seconds."""

    def __init__(self, steps: int, stream=None):
        self.steps, self.stream = steps, stream or sys.stderr
        self.live = self.stream.isatty()
        self.begin, self.first, self.told, self.width, self.acc = time.monotonic(), None, 0.0, 0, None

    def write(self, text: str, last: bool = False) -> None:
        now = time.monotonic()
        if self.live:
            columns = os.get_terminal_size(self.stream.fileno()).columns or 80
            text = (text if len(text) < columns else text.replace("  ", " "))[:columns - 1]       # a line that wraps cannot be rewritten
            self.stream.write("\r" + text.ljust(self.width) + ("\n" if last else ""))
            self.width = 0 if last else len(text)
        elif last or now - self.told > 10:
            self.stream.write(text + "\n")
        else:
            return
        self.told = now
        self.stream.flush()

    def end(self) -> None:
        """Go to a new line if one is being written."""
        if self.width:
            self.stream.write("\n")
            self.width = 0

    def loading(self, done: int, total: int, what: str) -> None:
        self.write(f"{what} {done:,} of {total:,}", last=done == total)

    def __call__(self, snap) -> None:
        m, now = snap.metrics, time.monotonic()
        self.first = self.first or (snap.step, now)
        self.acc = m.get("test_acc", self.acc)
        pace = (now - self.first[1]) / (snap.step - self.first[0]) if snap.step > self.first[0] else (now - self.begin) / max(1, snap.step)
        left = round(pace * (self.steps - snap.step))
        share = lambda v: "  -  " if v is None else f"{v:5.1%}"                 # noqa: E731
        pseudo = "" if m["mask_rate"] is None else f"  kept {share(m['mask_rate'])}  pseudo {share(m['pseudo_label_acc'])}"
        clock = (f"{left // 3600}:{left // 60 % 60:02}" if left >= 3600 else f"{left // 60}") + f":{left % 60:02}"
        self.write(f"step {snap.step:,}/{self.steps:,}  loss {m['loss']:.3f}{pseudo}  test {share(self.acc)}  {clock} left",
                   last=snap.step == self.steps)


def train(argv: list[str]) -> int:
    """sslkit train METHOD."""
    from sslkit import methods
    from sslkit.data import load, split
    from sslkit.runs import Run, Stopped, fit, record, run_path
    from sslkit.train import Config, Machine

    known = [name for name, method in methods.BY_NAME.items() if method.direct] + ["kd-fixmatch"]
    if not argv or argv[0] in ("-h", "--help"):
        names = ", ".join(known)
        print(f"usage: sslkit train METHOD [FLAGS]\n\nmethods: {names}\n`sslkit train METHOD --help` explains its flags")
        return 0 if argv else 2
    require(not argv[0].startswith("-"), f"name a method first: sslkit train {known[-1]} {argv[0]} ...")
    staged = choose("method", argv[0], known) == "kd-fixmatch"
    kind = methods.KDFixMatch if staged else methods.method_class(argv[0])
    parser = Parser(prog=f"sslkit train {argv[0]}", description=RECIPE if staged else inspect.getdoc(kind))
    run_flags = parser.add_argument_group("the run")
    run_flags.add_argument("--out", metavar="DIR", help="its folder (default: a name of its own under $SSLKIT_RUNS or runs/)")
    run_flags.add_argument("--resume", action="store_true", help="go on with the stopped run in that folder")
    run_flags.add_argument("--json", action="store_true", help="print one line of JSON last: method, data, labels, seed, steps, test_acc, "
                           "test_acc_median20, pseudo_label_acc, mask_rate (fractions), seconds, run")
    recipe = [(recipe_flags, "the outer network and its trusted labels")] if staged else []
    for function, title in ((data_flags, "data"), *recipe, (kind, "method"), (Config, "training"), (Machine, "machine")):
        if inspect.signature(function).parameters:
            parser.add_parameters(function, title)
    values = parser.parse(argv[1:])

    method, config, machine = kind(**chosen(kind, values)), Config(**chosen(Config, values)), Machine(**chosen(Machine, values))
    config.check()
    machine.apply()
    line = ProgressLine(0)
    data = load(values.data, root=values.root, download=values.download, size=values.size, skip_bad_images=values.skip_bad_images,
                progress=line.loading)
    for name, why in (("skipped", "that are no images: " + ", ".join(data.info.get("skipped_files", ()))), ("ignored", "of other kinds")):
        if data.info.get(name):
            print(f"note: left out {data.info[name]} files {why}", file=sys.stderr)
    data = split(data, values.labels, values.seed, include_labeled=values.include_labeled, validation=values.validation)
    if values.flip is not None:
        data = replace(data, flip=values.flip)
    config = config.resolve(data, machine.torch_device())
    if staged:
        return train_recipe(argv, values, data, method, config, machine)
    new = record(method, data, config)
    run = Run(values.out or run_path(new))
    run.check(new)
    if values.resume and run.config is None:
        raise InputError(f"--resume: there is no run in {run.path}; `sslkit runs` lists those there are, --out chooses one")
    if run.result is not None:
        print(f"note: {run.path} is finished already, nothing to train", file=sys.stderr)
    elif (run.path / "checkpoint.pt").exists() and not values.resume:
        raise InputError(f"{run.path} holds a run that was stopped; --resume goes on with it, another --out leaves it alone")
    line = ProgressLine(config.steps)
    try:
        run = fit(method, data, config, machine, out=run.path, live=line)
    except Stopped as stop:
        return stopped(line, stop, argv)
    finally:
        line.end()
    return say(run, values.json)


def stopped(line: ProgressLine, stop: KeyboardInterrupt, argv: list[str]) -> int:
    """Say where a run was stopped and how it goes on; the exit code."""
    line.end()
    again = shlex.join(["train", *(a for a in argv if a != "--resume"), "--resume"])
    print(f"{stop}\ngo on with: sslkit {again}", file=sys.stderr)
    return 130


def say(run, as_json: bool) -> int:
    """The figures of a finished run, for people or as JSON."""
    result = {key: value for key, value in run.result.items() if key != "machine"} | {"run": str(run.path)}
    print(f"test accuracy {result['test_acc']:.1%} (median of the last 20 evaluations {result['test_acc_median20']:.1%}), "
          f"{result['seconds']:.0f} s, {run.path}", file=sys.stderr if as_json else sys.stdout)
    if as_json:
        print(json.dumps(result))
    return 0


def recipe_flags(outer: Annotated[str | None, "folder of a finished fixmatch run on the same split, to be the outer network (default: "
                                  "train one; paper: train one)"] = None,
                 tau_select: Annotated[float, "confidence from which an outer label may be trusted, a probability (default and paper: 0.8)"]
                 = 0.8,
                 clustering: Annotated[Literal["dec", "kmeans", "spectral", "dbscan", "none"], "of the confident images, which must agree "
                                       "with a trusted label (default and paper: dec)"] = "dec",
                 matching: Annotated[Literal["centers", "hungarian"], "of clusters to classes: by the labelled images' centres or one to "
                                     "one (default: centers; paper: not known)"] = "centers"):
    """The flags of kd-fixmatch that are not its inner network's."""


def train_recipe(argv: list[str], values: argparse.Namespace, data, method, config, machine) -> int:
    """sslkit train kd-fixmatch: both stages, a line of progress for each."""
    from sslkit import recipes
    from sslkit.methods import FixMatch
    from sslkit.runs import Run, Stopped, run_path

    lines = {"outer": ProgressLine(config.steps), "inner": ProgressLine(config.steps)}

    def live(stage: str, snap) -> None:
        if lines[stage].first is None:
            print(f"{stage} network", file=sys.stderr)
        lines[stage](snap)

    first = Run(values.outer) if values.outer else FixMatch(tau=method.tau, lambda_u=method.lambda_u, passes=method.passes)
    chosen_labels = {name: getattr(values, name) for name in ("tau_select", "clustering", "matching")}
    begun = Run(values.out or run_path(recipes.kd_fixmatch_record(data, config, first, method, config, **chosen_labels)))
    if values.resume and begun.config is None:
        raise InputError(f"--resume: there is no run in {begun.path}; `sslkit runs` lists those there are, --out chooses one")
    if begun.result is not None:
        print(f"note: {begun.path} is finished already, nothing to train", file=sys.stderr)
    elif begun.config is not None and not values.resume:
        raise InputError(f"{begun.path} holds a run that was stopped; --resume goes on with it, another --out leaves it alone")
    try:
        run = recipes.kd_fixmatch(data, config, machine, outer=first, inner=method, **chosen_labels, out=begun.path, live=live)
    except Stopped as stop:
        return stopped(lines["inner"], stop, argv)
    finally:
        for line in lines.values():
            line.end()
    found = run.result["trusted"]
    said = {name: f"{found[name]['rows']:,}" + (f" ({found[name]['precision']:.1%} right)" if found[name]["precision"] is not None else "")
            for name in ("confident", "trusted")}
    print(f"outer labels of confidence {values.tau_select:g} and more: {said['confident']}; of them trusted: {said['trusted']}",
          file=sys.stderr)
    return say(run, values.json)


def runs(argv: list[str]) -> int:
    """sslkit runs."""
    from pathlib import Path

    from sslkit.runs import all_runs, store

    parser = Parser(prog="sslkit runs", description="What was run, newest first.")
    parser.add_argument("--store", metavar="DIR", help="where the runs lie (default: $SSLKIT_RUNS or runs/)")
    parser.add_argument("--json", action="store_true", help="one line of JSON for each run")
    values = parser.parse(argv)
    folder = Path(values.store) if values.store else store()
    require(not values.store or folder.is_dir(), f"there is no folder {folder}")
    rows = []
    for run in all_runs(folder):
        try:
            config, result, metrics = run.config, run.result or {}, run.metrics
            last = metrics[-1] if metrics else {}
            rows.append({"method": config["method"], "data": config["data"]["name"], "labels": config["data"]["labels"],
                         "seed": config["train"]["seed"], "steps": config["train"]["steps"], "step": last.get("step", 0),
                         "finished": bool(result), **{key: result.get(key, last.get(key)) for key in (
                             "test_acc", "test_acc_median20", "pseudo_label_acc", "mask_rate", "seconds")}, "run": str(run.path)})
        except (InputError, KeyError, TypeError) as error:
            print(f"note: {run.path} is left out: {error}", file=sys.stderr)
    if values.json:
        for row in rows:
            print(json.dumps(row))
        return 0
    if not rows:
        print(f"no runs in {folder} yet; `sslkit train fixmatch` makes one")
        return 0
    percent = lambda v: "" if v is None else f"{v:.1%}"                         # noqa: E731
    table = [("method", "data", "labels", "seed", "steps", "test", "median 20", "seconds", "run")]
    for r in rows:
        steps = f"{r['steps']:,}" if r["finished"] else f"{r['step']:,}/{r['steps']:,}"
        seconds = "" if r["seconds"] is None else f"{r['seconds']:.0f}"
        table.append((r["method"], r["data"], f"{r['labels']:,}", str(r["seed"]), steps,
                      percent(r["test_acc"]), percent(r["test_acc_median20"]), seconds, r["run"]))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = [text.ljust(w) if k in (0, 1, 8) else text.rjust(w) for k, (text, w) in enumerate(zip(row, widths, strict=True))]
        print("  ".join(cells).rstrip())
    return 0


def reproduce(argv: list[str]) -> int:
    """sslkit reproduce."""
    from sslkit import batch

    parser = Parser(prog="sslkit reproduce", description="Run the lessons from end to end; leave the executed notebooks, their figures "
                    "and a summary page. Exit code 1 if one of them failed.")
    parser.add_argument("lessons", nargs="*", metavar="LESSON", help="which, by number or name (default: all)")
    parser.add_argument("--out", metavar="DIR", default="report", help="where they are left (default: report)")
    parser.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="set a parameter")
    parser.add_argument("--timeout", metavar="SECONDS", type=float, default=1800, help="after which a cell is stopped (default: 1800)")
    parser.add_argument("--refresh", action="store_true", help="also write the outputs back into notebooks/, for committing")
    values = parser.parse(argv)
    require(values.timeout > 0, f"timeout is {values.timeout:g}, it must be above 0 seconds")
    good = batch.reproduce(values.lessons, out=values.out, parameters=dict(values.parameter), refresh=values.refresh,
                           timeout_s=values.timeout)
    return 0 if good else 1


def lab(argv: list[str]) -> int:
    """sslkit lab."""
    import subprocess

    from sslkit import batch
    from sslkit.runs import store

    parser = Parser(prog="sslkit lab", description="Open JupyterLab in the lessons; other flags go to JupyterLab, as --port 8890.")
    _, rest = parser.parse_known_args(argv)
    folder = batch.lessons()[0].parent
    environment = {**os.environ, "SSLKIT_RUNS": str(store().absolute())}
    return subprocess.call([sys.executable, "-m", "jupyterlab", *rest], cwd=folder, env=environment)


def bench(argv: list[str]) -> int:
    """sslkit bench."""
    from sslkit import bench as room

    parser = Parser(prog="sslkit bench", description=inspect.getdoc(room.bench))
    parser.add_parameters(room.bench, "what is measured")
    parser.add_argument("--json", action="store_true", help="print one line of JSON: naive_ms, bare_ms, step_ms, ratio, speedup, "
                        "augment_images_per_s, pillow_images_per_s and the configuration")
    values = parser.parse(argv)
    figures = room.bench(**chosen(room.bench, values))
    print(json.dumps(figures) if values.json else room.report(figures))
    return 0


COMMANDS = {"train": train, "runs": runs, "reproduce": reproduce, "lab": lab, "bench": bench}


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
        return 2 if isinstance(error, InputError) else 1
    except RuntimeError as error:
        if not re.search("out of memory|can't allocate memory|not enough memory", str(error)):
            raise
        print("sslkit: the memory does not suffice; try a smaller --batch-size, --mu or --size", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())      # or Python's own flush at the end would complain
        return 141
