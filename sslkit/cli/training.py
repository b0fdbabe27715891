"""The commands around training: runs, table, reproduce, study, execute, lab, bench."""
import inspect
import json
import os
import shlex
import sys
import time
from pathlib import Path

from sslkit import batch
from sslkit.errors import InputError, choose, require
from sslkit.terminal import Parser, Screen, aligned, chosen


def runs(argv: list[str]) -> int:
    """sslkit runs."""
    from sslkit.training import all_runs, note_earlier, store, summary

    parser = Parser(prog="sslkit runs", description="The runs of a store, newest first.")
    parser.add_argument("--store", metavar="DIR", help="where the runs lie (default: $SSLKIT_RUNS or runs/)")
    parser.add_argument("--json", action="store_true", help="one line of JSON for each run")
    parser.add_argument("--watch", action="store_true", help="show what is running, on any machine, until Ctrl-C")
    values = parser.parse(argv)
    folder = Path(values.store) if values.store else store()
    require(not values.store or folder.is_dir(), f"there is no folder {folder}")
    if values.watch:
        require(not values.json, "--watch is for people; --json prints once")
        return watch(folder)
    found, rows = all_runs(folder), []
    for run in found:
        try:
            rows.append(summary(run))
        except (InputError, KeyError, TypeError) as error:
            print(f"note: {run.path} is left out: {error}", file=sys.stderr)
    note_earlier(found)
    if values.json:
        for row in rows:
            print(json.dumps(row))
    elif not rows:
        print(f"no runs in {folder} yet; `sslkit train fixmatch` makes one")
    else:
        table = [("method", "data", "labels", "seed", "steps", "test", "median 20", "seconds", "run")]
        for r in rows:
            steps = f"{r['steps']:,}" if r["finished"] else f"{r['stage']} {r['step']:,}/{r['steps']:,}".strip()
            figures = ((r["test_acc"], ".1%"), (r["test_acc_median20"], ".1%"), (r["seconds"], ".0f"))
            table.append((r["method"], r["data"], f"{r['labels']:,}", str(r["seed"]), steps,
                          *("" if value is None else format(value, form) for value, form in figures), r["run"]))
        print("\n".join(aligned(table, left=(0, 1, 8))))
    return 0


def watch(folder: Path) -> int:
    """sslkit runs --watch: what is running in a store, again and again."""
    screen = Screen(sys.stdout)
    try:
        while True:
            screen.show(batch.at_work(folder, screen.height))
            time.sleep(2 if screen.live else screen.pause)
    except KeyboardInterrupt:
        return 0


def table(argv: list[str]) -> int:
    """sslkit table."""
    from sslkit import papers
    from sslkit.training import all_runs, note_earlier

    parser = Parser(prog="sslkit table", description="The papers' tables; or one of them: the paper's numbers, "
                    "independent reruns, our numbers from the store, and whether they are comparable. `sslkit "
                    "reproduce NAME` fills it.")
    parser.add_argument("name", nargs="?", metavar="NAME", help="which (default: list them)")
    parser.add_argument("--format", metavar="TEXT", default="md", help="md, csv, json or latex (default: md)")
    parser.add_argument("--scale", metavar="TEXT", help="our numbers of one scale alone: quick, gpu or paper (default: "
                                                        "all)")
    parser.add_argument("--store", metavar="DIR", help="where the runs lie (default: $SSLKIT_RUNS or runs/)")
    values = parser.parse(argv)
    folder = Path(values.store) if values.store else None
    require(folder is None or folder.is_dir(), f"there is no folder {folder}")
    if values.name is None:
        for name, one in papers.tables().items():
            print(f"{name:12} {one.title}")
        return 0
    scales = (values.scale,) if values.scale else tuple(papers.SCALES)
    text = papers.printed(values.name, values.format, scales, folder)
    note_earlier(all_runs(folder))
    print(text)
    return 0


def reproduce(argv: list[str]) -> int:
    """sslkit reproduce."""
    parser = Parser(prog="sslkit reproduce", description="Run the lessons from end to end, or train what fills the "
                    "papers' tables; leave the executed notebooks, their figures and a summary page. Finished work is "
                    "skipped. After Ctrl-C or a crash, run the same command again to continue. Exit code 1 if a lesson "
                    "or a run failed.")
    parser.add_argument("lessons", nargs="*", metavar="LESSON", help="which, by number or name; `tables`, or a table "
                        "by its name (default: all lessons, without the notebooks of tables, 90 and more)")
    parser.add_argument("--scale", metavar="TEXT", help="of tables: quick, digits on a laptop; gpu, CIFAR-10 and 2^15 "
                        "steps; paper, the papers' data and 2^20 steps (default: quick)")
    parser.add_argument("--seeds", type=int, metavar="N", help="of tables: how many, from 0 up (default: 3; papers: 5)")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="a dask scheduler, as tcp://host:8786, whose workers "
                        "share the store (default: a cluster of processes on this machine)")
    parser.add_argument("--workers", type=int, metavar="N", help="how many at a time on this machine (default: one a "
                        "GPU, else one a core, as far as the memory goes)")
    parser.add_argument("--out", metavar="DIR", default="report", help="where they are left (default: report)")
    parser.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
                        help="set a parameter; twice or more for one makes a grid: each lesson with each value")
    parser.add_argument("--timeout", metavar="SECONDS", type=float, default=1800, help="after which a cell is stopped; "
                        "the time that it waits for the runs of other lessons counts (default: 1800)")
    parser.add_argument("--again", action="store_true", help="also run lessons that the store has (default: they are "
                                                             "found)")
    parser.add_argument("--refresh", action="store_true", help="also write the outputs back into notebooks/, for "
                                                               "committing")
    values = parser.parse(argv)
    require(values.timeout > 0, f"timeout is {values.timeout:g}, it must be above 0 seconds")
    parameters: dict[str, list[str]] = {}
    for name, value in values.parameter:
        parameters.setdefault(name, []).append(value)
    good = batch.reproduce(values.lessons, scale=values.scale, seeds=values.seeds, out=values.out,
                           parameters=parameters, again=values.again, refresh=values.refresh, timeout_s=values.timeout,
                           scheduler=values.scheduler, workers=values.workers,
                           command=shlex.join(["sslkit", "reproduce", *argv]))
    return 0 if good else 1


def study(argv: list[str]) -> int:
    """sslkit study."""
    from sslkit.data import source
    from sslkit.lessons import keep, studies
    from sslkit.training import DataSpec, Machine

    parser = Parser(prog="sslkit study", description="Make one of the tables that lessons read: several variants with "
                    "several seeds. Runs that the store has are found, so the same command continues a study that was "
                    "stopped. Two at once share the runs, but for hdl_gains and equal_seconds. NAME: "
                    f"{', '.join(studies.STUDIES)}.")
    parser.add_argument("name", metavar="NAME", help="which")
    parser.add_argument("--seeds", type=int, metavar="N", default=5, help="how many, from 0 up (default: 5)")
    parser.add_argument("--steps", type=int, metavar="N", help="of each run (default: as for the data)")
    parser.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
                        help="set a parameter of the study, as `-p imbalances 1,50`")
    parser.add_argument("--table", metavar="NAME", help="the table's name: it becomes figures/NAME.csv (default: the "
                                                        "study's)")
    leave_out = ("imbalance", "unlabeled_imbalance", "unlabeled", "include_labeled", "labeled_list", "validation")
    parser.add_parameters(DataSpec, "data", leave_out=leave_out)
    parser.add_parameters(Machine, "machine")
    values = parser.parse(argv)
    make = studies.STUDIES[choose("study", values.name, studies.STUDIES)]
    require(values.seeds >= 1, f"seeds is {values.seeds}, it must be at least 1")
    asked = DataSpec(**{name: value for name, value in vars(values).items()
                        if name in inspect.signature(DataSpec).parameters})
    grid = {name: p.default for name, p in inspect.signature(make).parameters.items() if p.default is not p.empty}
    for name, text in values.parameter:
        choose("parameter", name, sorted(set(grid) - {"source"}))
        grid[name] = tuple(map(number, text.split(","))) if isinstance(grid[name], tuple) else text
    Machine(**chosen(Machine, values)).apply()
    steps = source(asked.data, asked.encoder is not None).steps if values.steps is None else values.steps
    print(keep(values.table or values.name, make(asked.labels, range(values.seeds), steps, **grid | {"source": asked})))
    return 0


def number(text: str) -> float:
    """A number that was typed in. InputError for anything else."""
    try:
        return float(text)
    except ValueError as error:
        raise InputError(f"{text!r} is not a number: give numbers with commas between them, as 1,50") from error


def execute(argv: list[str]) -> int:
    """sslkit execute."""
    return batch.execute_main(argv)


def lab(argv: list[str]) -> int:
    """sslkit lab."""
    import subprocess

    from sslkit.training import store

    parser = Parser(prog="sslkit lab", description="Open JupyterLab in the lessons; other flags go to JupyterLab, as "
                                                   "--port 8890.")
    _, rest = parser.parse_known_args(argv)
    environment = {**os.environ, "SSLKIT_RUNS": str(store().absolute())}
    return subprocess.call([sys.executable, "-m", "jupyterlab", *rest], cwd=batch.lessons()[0].parent, env=environment)


def bench(argv: list[str]) -> int:
    """sslkit bench."""
    from sslkit.training import bench as measure

    parser = Parser(prog="sslkit bench", description=inspect.getdoc(measure.bench))
    parser.add_parameters(measure.bench, "what is measured")
    parser.add_argument("--json", action="store_true", help="print one line of JSON: naive_ms, bare_ms, step_ms, "
                        "ratio, speedup, augment_images_per_s, pillow_images_per_s and the configuration")
    values = parser.parse(argv)
    figures = measure.bench(**chosen(measure.bench, values))
    print(json.dumps(figures) if values.json else measure.report(figures))
    return 0
