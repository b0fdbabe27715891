"""`sslkit reproduce`: execute the lessons, fill tables; leave notebooks, figures, tables and a summary page.

    out/index.html                          the page, rewritten as lessons begin and end
    out/02_fixmatch.html                    a lesson as a page
    out/02_fixmatch-slides.html             and as slides without code
    out/notebooks/02_fixmatch.ipynb         and as a notebook, with its error if it failed
    out/figures/02_fixmatch-01.png ...      its figures
    out/tables/simmatch-1.md, .csv ...      the papers' tables with our results, as far as the store has them
"""
import json
import shlex
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import nbformat

from sslkit import papers
from sslkit.batch import notebook_file
from sslkit.batch.engine import Doing, run_batch
from sslkit.batch.jobs import notebook_job, run_jobs
from sslkit.batch.lesson_page import export
from sslkit.batch.notebook_file import Lesson, executed, grid, lessons, pick, read
from sslkit.batch.page import page
from sslkit.errors import require
from sslkit.files import cannot_write, digest, terminable, write_file
from sslkit.terminal import clock
from sslkit.training import finished

__all__ = ["lessons", "reproduce"]
NOTEBOOKS = {"simmatch": "90_simmatch_tables", "kd-fixmatch": "91_kd_fixmatch_tables", "hdl": "92_hdl_tables"}


def fill(tables: list[papers.Table], scale: str, seeds: int, **how) -> bool:
    """Train what these tables need at a scale, with seeds 0, 1 ..., and the store does not have. True if no run failed.
    how: of run_batch()."""
    begin, specs = time.monotonic(), []
    for table in tables:
        found = table.specs(papers.scale(scale), seeds)
        specs += found
        if not found:
            why = next((cell.missing for cell in table.cells if cell.missing), "no column of its data")
            print(f"note: no run fills {table.name} at scale {scale}: {why}", file=how["stream"])
    if not specs:
        return True
    batch = run_batch(run_jobs(specs), **how)
    for d in batch.those("failed"):
        print(f"failed: {d.job.name}: {d.error}", file=how["stream"])
    print(f"{len(batch.doing)} runs: {batch.count('done')} trained, {batch.count('found')} found, "
          f"{batch.count('failed')} failed, in {clock(time.monotonic() - begin)}", file=how["stream"])
    return not batch.count("failed")


@dataclass
class Report:
    """The folder that is left, kept up to date as lessons begin and end."""
    target: Path
    lessons: list[Lesson]
    command: str
    refresh: bool = False                # write the outputs back into the lessons?
    good: bool = True                    # False once a lesson has failed, or was not written back
    folders: dict[str, Path] = field(default_factory=dict)              # in the store, by the lesson's name
    over: bool = False
    began: float = field(default_factory=time.monotonic)
    at: datetime = field(default_factory=datetime.now)

    def __post_init__(self):
        try:
            for part in ("notebooks", "figures", "tables"):
                (self.target / part).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(self.target, error) from error

    def those(self, state: str) -> list[Lesson]:
        """The lessons in this state."""
        return [lesson for lesson in self.lessons if lesson.state == state]

    @property
    def took(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.began

    def show(self) -> None:
        """Write the page."""
        write_file(self.target / "index.html", page(self.lessons, self.command, self.at, self.took, self.over))

    def finish(self) -> None:
        """Write the papers' tables, as far as the store has them, and the page for the last time."""
        self.over = True
        runs = finished()
        for name, table in papers.tables().items():
            for form in ("md", "csv"):
                text = papers.FORMATS[form](table, papers.beside(table, runs=runs))
                write_file(self.target / "tables" / f"{name}.{form}", text + "\n")
        self.show()

    def collect(self, lesson: Lesson) -> str:
        """Take over a lesson's progress, executed notebook and figures from its folder in the store. Returns a note to
        print, if there is one."""
        if (nb := executed(self.folders[lesson.name] / "notebook.ipynb")) is not None:
            lesson.cell, _, lesson.seconds = notebook_file.how_far(nb)
            lesson.error = notebook_file.failure(nb) or lesson.error
            write_file(self.target / "notebooks" / f"{lesson.name}.ipynb", nbformat.writes(nb))
            return export(lesson, nb, self.target, self.lessons)
        return ""

    def note(self, lesson: Lesson, d: Doing) -> str | None:
        """Note how a lesson goes. Returns what to print about one that has ended."""
        self.folders[lesson.name], line = d.path, None
        lesson.state = {"found": "finished", "done": "finished", "elsewhere": "waiting"}.get(d.state, d.state)
        if lesson.state in ("finished", "failed"):
            lesson.found, lesson.error = d.state == "found", d.error
            note = self.collect(lesson)
            self.good &= lesson.state == "finished"
            line = "\n".join(filter(None, (f"{lesson.name}  {lesson.status}", note)))
        if self.refresh and lesson.state == "finished":
            if lesson.path.read_text(encoding="utf-8") == lesson.text:
                write_file(lesson.path, notebook_file.stripped(lesson, executed(d.path / "notebook.ipynb")))
            else:
                self.good, line = False, f"{line}\nnot refreshed: {lesson.path} was changed while it ran"
        self.show()
        return line

    def stop(self) -> None:
        """The batch ends early: keep what the running lessons have shown so far."""
        for lesson in self.those("running"):
            lesson.state = "stopped"
            self.collect(lesson)
        self.finish()


def results_digest() -> str:
    """A digest of all results in the store, for notebooks that show them."""
    return digest(sorted((run.path.name, json.dumps(run.result)) for seeds in finished().values()
                         for run in seeds.values()))


def run(todo: list[tuple[Lesson, dict]], report: Report, timeout_s: float, again: bool, **how) -> None:
    """Execute lessons with their parameters; the report follows. Those that show results come last. how: of
    run_batch()."""
    try:
        for shows_results in (False, True):
            reads = results_digest() if shows_results else ""
            jobs = {notebook_job(lesson, values, reads, timeout_s, again): lesson for lesson, values in todo
                    if (lesson.path.stem in NOTEBOOKS.values()) == shows_results}
            if jobs:
                run_batch(list(jobs), **how, on_change=lambda d, jobs=jobs: report.note(jobs[d.job], d))
    except BaseException as error:
        with suppress(Exception):                       # the first error is the one to report
            report.stop()
        if isinstance(error, KeyboardInterrupt):
            stopped = ", ".join(f"{one.name} {one.status}" for one in report.those("stopped")) or "stopped"
            done = ", ".join(one.name for one in report.those("finished")) or "none"
            print(f"{stopped}; finished: {done}; see {report.target / 'index.html'}", file=how["stream"])
        raise


@terminable()
def reproduce(names: Iterable[str] = (), *, scale: str | None = None, seeds: int | None = None,
              out: str | Path = "report", parameters: Mapping[str, str | Sequence[str]] | None = None,
              folder: str | Path | None = None, again: bool = False, refresh: bool = False, timeout_s: float = 1800,
              command: str | None = None, scheduler: str | None = None, workers: int | None = None,
              stream=None) -> bool:
    """Execute lessons; leave notebooks, figures and a summary page in `out`. True if all were completed.

    names: the lessons (`02`, `02_fixmatch`; none: all but the tables' notebooks, 90 and more), and tables
    (`simmatch-1`; `tables`: all), which are filled first, at `scale` (default: quick) with `seeds` seeds (default: 3),
    and then shown by their notebook. parameters: as typed, each for the lessons that have one of its name; several
    values of one make a grid. folder: where the lessons lie. again: also execute those that were completed before.
    refresh: write the outputs back into the lessons, to be committed. timeout_s: for one cell. command: for the page
    (default: made of these arguments). scheduler, workers: see engine.run_batch. stream: where progress is shown
    (default: stderr). Raises InputError before anything runs if an argument cannot be used, KeyboardInterrupt when
    stopped.
    """
    names, out, every = list(names), Path(out), papers.tables()
    how = {"scheduler": scheduler, "workers": workers, "stream": stream or sys.stderr}
    parameters = {name: [value] if isinstance(value, str) else [*value] for name, value in (parameters or {}).items()}
    named = dict.fromkeys(one for name in names for one in (every if name == "tables" else [name]) if one in every)
    tables = [every[name] for name in named]
    for name, value in {"scale": scale, "seeds": seeds}.items():
        require(bool(tables) or value is None, f"--{name} is for tables: sslkit reproduce tables --{name} ...")
    scale, seeds = scale or "quick", 3 if seeds is None else seeds
    papers.scale(scale)
    require(seeds >= 1, f"seeds is {seeds}, it must be at least 1")
    shows = [notebook for name in named for start, notebook in NOTEBOOKS.items() if name.startswith(start)]
    asked = [name for name in names if name not in ("tables", *every)]
    picked = [read(path) for path in pick([*asked, *shows], lessons(folder), more=["tables", *every])]
    given = notebook_file.typed(parameters, picked)
    for lesson in picked:
        if tables and lesson.path.stem in NOTEBOOKS.values():
            given[lesson.name] = {"scale": [scale], "seeds": [seeds]} | given.get(lesson.name, {})
    todo = [point for lesson in picked for point in grid(lesson, given.get(lesson.name, {}))]
    require(workers is None or workers >= 1, f"workers is {workers}, it must be at least 1")
    require(workers is None or scheduler is None, "--workers is for this machine only: leave it out with --scheduler, "
            "which uses all workers of the scheduler")
    require(not (refresh and (len(todo) > len(picked) or any(values for _, values in todo))),
            "--refresh writes back what lessons show by default: it takes no parameters")
    require((out / "notebooks").resolve() != picked[0].path.parent.resolve(),
            f"--out {out} would overwrite the lessons themselves: choose another folder")
    if command is None:
        words = ["sslkit", "reproduce", *names, *["--out", str(out)] * (str(out) != "report"), *["--refresh"] * refresh]
        words += [word for name, values in parameters.items() for value in values for word in ("-p", name, value)]
        command = shlex.join(words)
    report = Report(out, [lesson for lesson, _ in todo], command, refresh)
    if tables:
        report.good = fill(tables, scale, seeds, **how)
    if refresh and scheduler is None:
        how["workers"] = workers or 1                   # the time that is noted does not contain another lesson's runs
    run(todo, report, timeout_s, again or refresh, **how)
    report.finish()
    print(f"{len(report.those('finished'))} of {len(todo)} lessons finished in {clock(report.took)}; "
          f"see {out / 'index.html'}", file=how["stream"])
    return report.good
