"""sslkit train | runs | reproduce | table | lab | label | bench: the command line. Exit code 2: something cannot be used; 130: stopped."""
import argparse
import inspect
import json
import os
import re
import shlex
import sys
from dataclasses import replace
from typing import Annotated, Literal

from sslkit.errors import InputError, choose, require
from sslkit.terminal import Parser, ProgressLine, Screen, chosen

USAGE = """usage: sslkit COMMAND [FLAGS]

  train METHOD   one run: supervised, mixmatch, remixmatch, fixmatch, freematch, simmatch, kd-fixmatch; --hdl on all but the last
  runs           what was run, newest first
  reproduce      run the lessons, or with `tables` the papers' tables; leave notebooks, figures and a summary page
  table NAME     a paper's table, ours beside it
  lab            open JupyterLab in the lessons
  label FILES    labels for embeddings of any encoder, from a few labels
  bench          what one training step costs
  --version

`sslkit COMMAND --help` explains every flag."""


RECIPE = """An outer FixMatch labels the images, a clustering confirms some of its labels, a fresh inner network learns from them and from
its own."""


def data_flags(data: Annotated[str, "digits, cifar10, cifar100, svhn, stl10, food101, or folder:PATH, your own images in "
                               "train/CLASS/, test/CLASS/ and perhaps unlabeled/ (default: digits)"] = "digits",
               labels: Annotated[int, "labelled images in all, as many of each class but for --imbalance (default: 20; papers: 40, 250, "
                                 "4000 on CIFAR-10)"] = 20,
               imbalance: Annotated[float, "a long tail: the first class has so many times the labelled and unlabelled images of the last; "
                                    "-X: the last of the first (default: 1, none; papers: 50, 100, 150 on CIFAR-10)"] = 1.0,
               unlabeled_imbalance: Annotated[float | None, "of the unlabelled images alone (default: that of --imbalance)"] = None,
               unlabeled: Annotated[int | None, "unlabelled images in all, the labelled among them not counted (default: as many as there "
                                    "are)"] = None,
               include_labeled: Annotated[bool, "keep the labelled images among the unlabelled ones (default: yes; papers: yes)"] = True,
               validation: Annotated[int, "training images held out and evaluated in the test set's place, to choose settings by "
                                     "(default: 0, evaluate on the test set)"] = 0,
               size: Annotated[int | None, "side in pixels of a folder's and food101's images, resized (default: 32, food101 128)"] = None,
               flip: Annotated[bool | None, "may a weak view mirror an image? (default: yes, but not on digits and svhn)"] = None,
               root: Annotated[str | None, "where downloaded data sets lie (default: $SSLKIT_DATA or ~/.cache/sslkit)"] = None,
               download: Annotated[bool, "download the data set if it is not there"] = False,
               skip_bad_images: Annotated[bool, "leave out files that are no images, and count them"] = False):
    """The flags that choose the data."""


def recipe_flags(outer: Annotated[str | None, "folder of a finished fixmatch run on the same split, to be the outer network (default: "
                                  "train one; paper: train one)"] = None,
                 outer_network: Annotated[str | None, "the outer network, one of those of --network (default: the inner one; paper: the "
                                          "same)"] = None,
                 tau_select: Annotated[float, "confidence from which an outer label may be trusted, a probability (default and paper: 0.8)"]
                 = 0.8,
                 clustering: Annotated[Literal["dec", "kmeans", "spectral", "dbscan", "none"], "of the confident images, which must agree "
                                       "with a trusted label (default and paper: dec)"] = "dec",
                 matching: Annotated[Literal["centers", "hungarian"], "of clusters to classes: by the labelled images' centres or one to "
                                     "one (default: centers; paper: not known)"] = "centers"):
    """The flags of kd-fixmatch that are not its inner network's."""


def hdl_flags(hdl: Annotated[bool, "then label all images from the network's embeddings and go on with those labels for a third of the "
                             "steps; and beside it with the network's own labels"] = False,
              hdl_k: Annotated[str, "neighbours of an image, a whole number, or auto: the one of 1 3 5 10 20 50 by which hidden labels are "
                               "found best (default: auto)"] = "auto",
              hdl_mode: Annotated[Literal["layer", "exact"], "label all images with equally many labelled neighbours together, or one at a "
                                  "time (default: layer)"] = "layer",
              hdl_metric: Annotated[Literal["cosine", "euclidean"], "how similarity is measured (default and paper: cosine)"] = "cosine"):
    """The flags of HDL, on any method but kd-fixmatch."""


def train(argv: list[str]) -> int:
    """sslkit train METHOD: one run, or the stages of a recipe with a line of progress for each."""
    from sslkit import methods
    from sslkit.data import load, split
    from sslkit.training import Config, Machine, Plan, Run, Stopped

    known = [name for name, method in methods.BY_NAME.items() if method.direct] + ["kd-fixmatch"]
    if not argv or argv[0] in ("-h", "--help"):
        names = ", ".join(known)
        print(f"usage: sslkit train METHOD [FLAGS]\n\nmethods: {names}\n`sslkit train METHOD --help` explains its flags")
        return 0 if argv else 2
    require(not argv[0].startswith("-"), f"name a method first: sslkit train fixmatch {argv[0]} ...")
    staged = choose("method", argv[0], known) == "kd-fixmatch"
    kind = methods.KDFixMatch if staged else methods.method_class(argv[0])
    parser = Parser(prog=f"sslkit train {argv[0]}", description=RECIPE if staged else inspect.getdoc(kind))
    run_flags = parser.add_argument_group("the run")
    run_flags.add_argument("--out", metavar="DIR", help="its folder (default: a name of its own under $SSLKIT_RUNS or runs/)")
    run_flags.add_argument("--resume", action="store_true", help="go on with the stopped run in that folder")
    run_flags.add_argument("--json", action="store_true", help="print one line of JSON last: method, data, labels, seed, steps, test_acc, "
                           "test_acc_median20, test_acc_class, pseudo_label_acc, mask_rate (fractions), seconds, run; with a long tail "
                           "test_acc_head, test_acc_middle, test_acc_tail"
                           + ("; trusted, outer" if staged else "; with --hdl also labels_found, base, control"))
    recipe = [(recipe_flags, "the outer network and its trusted labels") if staged else (hdl_flags, "labels from embeddings")]
    for function, title in ((data_flags, "data"), *recipe, (kind, "method"), (Config, "training"), (Machine, "machine")):
        if inspect.signature(function).parameters:
            parser.add_parameters(function, title)
    values = parser.parse(argv[1:])

    method, given, machine = kind(**chosen(kind, values)), Config(**chosen(Config, values)), Machine(**chosen(Machine, values))
    given.check()
    machine.apply()
    line = ProgressLine(0)
    data = load(values.data, root=values.root, download=values.download, size=values.size, skip_bad_images=values.skip_bad_images,
                progress=line.loading)
    for name, why in (("skipped", "that are no images: " + ", ".join(data.info.get("skipped_files", ()))), ("ignored", "of other kinds")):
        if data.info.get(name):
            print(f"note: left out {data.info[name]} files {why}", file=sys.stderr)
    protocol = {name: getattr(values, name) for name in ("include_labeled", "validation", "imbalance", "unlabeled_imbalance", "unlabeled")}
    data = split(data, values.labels, values.seed, **protocol)
    if data.left_out is not None:
        print("images of each class, labelled {}; unlabelled {}".format(*(" ".join(f"{n:,}" for n in part) for part in data.counts())),
              file=sys.stderr)
    if values.flip is not None:
        data = replace(data, flip=values.flip)
    config = given.resolve(data, machine.torch_device())
    if staged:
        require(not values.outer or values.outer_network is None, "--outer is a network already trained: --outer-network has no meaning")
        outer = Run(values.outer) if values.outer else methods.FixMatch(tau=method.tau, lambda_u=method.lambda_u, passes=method.passes)
        first = replace(given, network=values.outer_network or given.network).resolve(data, machine.torch_device())
        select = {name: getattr(values, name) for name in ("tau_select", "clustering", "matching")}
        plan = Plan(method, "kd-fixmatch", {"outer": outer, "outer_config": first, **select})
    elif values.hdl:
        k = int(values.hdl_k) if values.hdl_k.isdecimal() else values.hdl_k
        plan = Plan(method, "hdl", {"k": k, "mode": values.hdl_mode, "metric": values.hdl_metric})
    else:
        plan = Plan(method)
    run = begun(values, plan.record(data, config))
    line = ProgressLine(config.steps)
    try:
        run = plan(data, given, machine, out=run.path, live=line.stage, progress=line.loading)
    except Stopped as stop:
        line.end()
        again = shlex.join(["train", *(a for a in argv if a != "--resume"), "--resume"])
        print(f"{stop}\ngo on with: sslkit {again}", file=sys.stderr)
        return 130
    finally:
        line.end()
    if staged:
        said = quality_said(run.result["trusted"], "confident", "trusted")
        print(f"outer labels of confidence {values.tau_select:g} and more: {said[0]}; of them trusted: {said[1]}", file=sys.stderr)
    elif values.hdl:
        result, said = run.result, quality_said(run.result["labels_found"], "hdl", "control")
        print(f"labels by HDL, k {result['labels_found']['k']}: {said[0]}; the network's own: {said[1]}\ntest accuracy before "
              f"{result['base']['test_acc']:.1%}, after its own labels {result['control']['test_acc']:.1%}, after HDL's:", file=sys.stderr)
    return say(run, values.json)


def quality_said(found: dict, *names: str) -> list[str]:
    """How many labels and how many of them are right, in words, for each of the names."""
    return [f"{found[name]['rows']:,}" + (f" ({found[name]['precision']:.1%} right)" if found[name]["precision"] is not None else "")
            for name in names]


def begun(values: argparse.Namespace, new: dict):
    """The Run of the record `new` in its folder. InputError for a folder that holds another one, and unless what was stopped is resumed."""
    from sslkit.training import Run, run_path

    run = Run(values.out or run_path(new))
    run.check(new)
    require(not values.resume or run.config is not None, f"--resume: there is no run in {run.path}; `sslkit runs` lists those there are, "
            "--out chooses one")
    if run.result is not None:
        print(f"note: {run.path} is finished already, nothing to train", file=sys.stderr)
    else:
        require(values.resume or not any(run.path.rglob("checkpoint.pt")),
                f"{run.path} holds a run that was stopped; --resume goes on with it, another --out leaves it alone")
    return run


def say(run, as_json: bool) -> int:
    """The figures of a finished run, for people or as JSON."""
    result = {key: value for key, value in run.result.items() if key != "machine"} | {"run": str(run.path)}
    found = {name: result.get(f"test_acc_{name}") for name in ("head", "middle", "tail")}
    groups = "".join(f", {name} {acc:.1%}" for name, acc in found.items() if acc is not None)
    print(f"test accuracy {result['test_acc']:.1%} (median of the last 20 evaluations {result['test_acc_median20']:.1%}){groups}, "
          f"{result['seconds']:.0f} s, {run.path}", file=sys.stderr if as_json else sys.stdout)
    if as_json:
        print(json.dumps(result))
    return 0


def runs(argv: list[str]) -> int:
    """sslkit runs."""
    from pathlib import Path

    from sslkit.batch import newest
    from sslkit.training import all_runs, store

    parser = Parser(prog="sslkit runs", description="What was run, newest first.")
    parser.add_argument("--store", metavar="DIR", help="where the runs lie (default: $SSLKIT_RUNS or runs/)")
    parser.add_argument("--json", action="store_true", help="one line of JSON for each run")
    parser.add_argument("--watch", action="store_true", help="show those at work, from any process or machine, until Ctrl-C")
    values = parser.parse(argv)
    folder = Path(values.store) if values.store else store()
    require(not values.store or folder.is_dir(), f"there is no folder {folder}")
    if values.watch:
        require(not values.json, "--watch is for people; --json once")
        return watch(folder)
    rows = []
    for run in all_runs(folder):
        try:
            config, result, now = run.config, run.result or {}, newest(run.path)
            last, steps = (now.metrics or [{}])[-1], (config if result else now.config)["train"]["steps"]
            rows.append({"method": config["method"], "data": config["data"]["name"], "labels": config["data"]["labels"],
                         "seed": config["train"]["seed"], "steps": steps, "step": steps if result else last.get("step", 0),
                         "stage": "" if result or now.path == run.path else now.path.name,
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
        steps = f"{r['steps']:,}" if r["finished"] else f"{r['stage']} {r['step']:,}/{r['steps']:,}".strip()
        seconds = "" if r["seconds"] is None else f"{r['seconds']:.0f}"
        table.append((r["method"], r["data"], f"{r['labels']:,}", str(r["seed"]), steps,
                      percent(r["test_acc"]), percent(r["test_acc_median20"]), seconds, r["run"]))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = [text.ljust(w) if k in (0, 1, 8) else text.rjust(w) for k, (text, w) in enumerate(zip(row, widths, strict=True))]
        print("  ".join(cells).rstrip())
    return 0


def watch(folder) -> int:
    """sslkit runs --watch: what is at work in a store, again and again."""
    import time

    from sslkit.batch import at_work

    screen = Screen(sys.stdout)
    try:
        while True:
            screen.show(at_work(folder, screen.height))
            time.sleep(2 if screen.live else screen.pause)
    except KeyboardInterrupt:
        return 0


def table(argv: list[str]) -> int:
    """sslkit table."""
    from pathlib import Path

    from sslkit import papers
    from sslkit.scales import SCALES

    parser = Parser(prog="sslkit table", description="The papers' tables; or one of them: the paper's numbers, independent reruns, ours "
                    "from the store, and whether they are comparable. `sslkit reproduce NAME` fills it.")
    parser.add_argument("name", nargs="?", metavar="NAME", help="which (default: list them)")
    parser.add_argument("--format", metavar="TEXT", default="md", help="md, csv, json or latex (default: md)")
    parser.add_argument("--scale", metavar="TEXT", help="ours of one scale alone: quick, gpu or paper (default: all)")
    parser.add_argument("--store", metavar="DIR", help="where the runs lie (default: $SSLKIT_RUNS or runs/)")
    values = parser.parse(argv)
    folder = Path(values.store) if values.store else None
    require(folder is None or folder.is_dir(), f"there is no folder {folder}")
    if values.name is None:
        for name, one in papers.tables().items():
            print(f"{name:12} {one.title}")
        return 0
    print(papers.printed(values.name, values.format, (values.scale,) if values.scale else tuple(SCALES), folder))
    return 0


def reproduce(argv: list[str]) -> int:
    """sslkit reproduce."""
    from sslkit import batch

    parser = Parser(prog="sslkit reproduce", description="Run the lessons from end to end, or train what fills the papers' tables; leave "
                    "the executed notebooks, their figures and a summary page. Exit code 1 if one of them failed.")
    parser.add_argument("lessons", nargs="*", metavar="LESSON", help="which, by number or name; `tables`, or a table by its name (default: "
                        "all lessons, and the tables as far as the store holds them)")
    parser.add_argument("--scale", metavar="TEXT", help="of tables: quick, digits on a laptop; gpu, CIFAR-10 and 2^15 steps; paper, the "
                        "papers' data and 2^20 steps (default: quick)")
    parser.add_argument("--seeds", type=int, metavar="N", help="of tables: how many, from 0 up (default: 3; papers: 5)")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="a dask scheduler, as tcp://host:8786, whose workers share the store "
                        "(default: one of our own, on this machine)")
    parser.add_argument("--workers", type=int, metavar="N", help="how many at a time on this machine (default: one a GPU, else one "
                        "a core, as far as the memory goes)")
    parser.add_argument("--out", metavar="DIR", default="report", help="where they are left (default: report)")
    parser.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="set a parameter; "
                        "given more than once, a grid: each lesson with each value")
    parser.add_argument("--timeout", metavar="SECONDS", type=float, default=1800, help="after which a cell is stopped, waiting for "
                        "runs of others included (default: 1800)")
    parser.add_argument("--again", action="store_true", help="also lessons that have run through before (default: found in the store)")
    parser.add_argument("--refresh", action="store_true", help="also write the outputs back into notebooks/, for committing")
    values = parser.parse(argv)
    require(values.timeout > 0, f"timeout is {values.timeout:g}, it must be above 0 seconds")
    tables = None
    if batch.tables_among(values.lessons):
        tables = batch.Fill(values.scale or "quick", 3 if values.seeds is None else values.seeds)
    else:
        for flag in ("scale", "seeds"):
            require(getattr(values, flag) is None, f"--{flag} is for tables: sslkit reproduce tables --{flag} ...")
    parameters: dict[str, list[str]] = {}
    for name, value in values.parameter:
        parameters.setdefault(name, []).append(value)
    good = batch.reproduce(values.lessons, out=values.out, parameters=parameters, again=values.again, refresh=values.refresh,
                           timeout_s=values.timeout, command=shlex.join(["sslkit", "reproduce", *argv]), tables=tables,
                           scheduler=values.scheduler, workers=values.workers)
    return 0 if good else 1


def lab(argv: list[str]) -> int:
    """sslkit lab."""
    import subprocess

    from sslkit import batch
    from sslkit.training import store

    parser = Parser(prog="sslkit lab", description="Open JupyterLab in the lessons; other flags go to JupyterLab, as --port 8890.")
    _, rest = parser.parse_known_args(argv)
    folder = batch.lessons()[0].parent
    environment = {**os.environ, "SSLKIT_RUNS": str(store().absolute())}
    return subprocess.call([sys.executable, "-m", "jupyterlab", *rest], cwd=folder, env=environment)


def label(argv: list[str]) -> int:
    """sslkit label."""
    from sslkit import labelers as room

    parser = Parser(prog="sslkit label", description=inspect.getdoc(room.label).split("\n\n")[0])
    parser.add_argument("embeddings", metavar="EMBEDDINGS", help="a table of numbers, .npy")
    parser.add_argument("labels", metavar="LABELS", help="a .csv file with a column `label`")
    parser.add_parameters(room.label, "how", leave_out=("embeddings", "labels", "progress"))
    parser.add_argument("--json", action="store_true", help="print one line of JSON: k, curve, rounds, copied, growth and the rest")
    values = parser.parse(argv)
    line = ProgressLine(0)
    try:
        info = room.label(values.embeddings, values.labels, values.k, values.mode, values.metric, values.out, line.loading)
    finally:
        line.end()
    if values.json:
        print(json.dumps(info))
        return 0
    for k, accuracy in info["curve"].items():
        print(f"k {k:3}: {accuracy:.1%} of the hidden labels found" + (" (chosen)" if k == info["k"] else ""))
    most = max(info["growth"], key=info["growth"].get)
    print(f"class {most} grew most, to {info['growth'][most]:.1f} times its share of the given labels" + (
        ": it may have flooded others, try a smaller k" if info["growth"][most] > 2 else ""))
    print(f"k {info['k']}, {info['rounds']:,} rounds, {info['copied']:,} labels copied where no row had a labelled neighbour: {values.out}")
    return 0


def bench(argv: list[str]) -> int:
    """sslkit bench."""
    from sslkit.training import bench as room

    parser = Parser(prog="sslkit bench", description=inspect.getdoc(room.bench))
    parser.add_parameters(room.bench, "what is measured")
    parser.add_argument("--json", action="store_true", help="print one line of JSON: naive_ms, bare_ms, step_ms, ratio, speedup, "
                        "augment_images_per_s, pillow_images_per_s and the configuration")
    values = parser.parse(argv)
    figures = room.bench(**chosen(room.bench, values))
    print(json.dumps(figures) if values.json else room.report(figures))
    return 0


COMMANDS = {"train": train, "runs": runs, "reproduce": reproduce, "table": table, "lab": lab, "label": label, "bench": bench}


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
