"""The lessons from end to end: papermill runs them; executed notebooks, their figures and a summary page are left.

    out/index.html                          the page, rewritten as lessons begin and end
    out/02_fixmatch.html                    a lesson as a page
    out/notebooks/02_fixmatch.ipynb         and as a notebook, with its error if it failed
    out/figures/02_fixmatch-01.png ...      its figures
    out/tables/simmatch-1.md, .csv ...      the papers' tables with ours, as far as the store has them
"""
import json
import shlex
import sys
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import nbformat

from sslkit import papers, scales
from sslkit.batch.execute_notebook import NotebookJob, executed, short
from sslkit.batch.notebook_file import Lesson, grid, lessons, parameters_of, pick, read, stripped, typed
from sslkit.batch.page import export, page, put
from sslkit.errors import InputError, require
from sslkit.files import cannot_write, terminable
from sslkit.terminal import clock
from sslkit.training import distinct, finished

__all__ = ["Fill", "lessons", "reproduce", "tables_among"]
NOTEBOOKS = {"simmatch": "90_simmatch_tables", "kd-fixmatch": "91_kd_fixmatch_tables", "hdl": "92_hdl_tables"}


def tables_among(names: Iterable[str]) -> list[papers.Table]:
    """The tables that are named; `tables` names all."""
    every = papers.tables()
    found = (one for name in names for one in (every if name == "tables" else [name]) if one in every)
    return [every[one] for one in dict.fromkeys(found)]


def notebook_of(table: papers.Table) -> str:
    """The notebook that shows a table."""
    return next(notebook for start, notebook in NOTEBOOKS.items() if table.name.startswith(start))


@dataclass(frozen=True)
class Fill:
    """How tables are filled: at which scale, with seeds 0, 1 ..."""
    scale: str = "quick"
    seeds: int = 3

    def check(self) -> None:
        """InputError for a scale there is not, and for seeds under 1."""
        scales.scale(self.scale)
        require(self.seeds >= 1, f"seeds is {self.seeds}, it must be at least 1")

    def __call__(self, chosen: list[papers.Table], scheduler: str | None, workers: int | None, stream) -> bool:
        """Train what these tables need and the store has not. True when no run failed."""
        from sslkit.batch.engine import run_batch

        at, begin = scales.scale(self.scale), time.monotonic()
        for table in chosen:
            if not table.jobs(at, 1):
                why = next((cell.missing for cell in table.cells if cell.missing), "no column of its data")
                print(f"note: nothing of {table.name} can be run at scale {self.scale}: {why}", file=stream)
        jobs = distinct(job for table in chosen for job in table.jobs(at, self.seeds))
        if not jobs:
            return True
        batch = run_batch(jobs, scheduler=scheduler, workers=workers, stream=stream)
        for d in batch.doing:
            if d.state == "failed":
                print(f"failed: {d.job.name}: {d.error}", file=stream)
        print(f"{len(jobs)} runs: {batch.count('done')} trained, {batch.count('found')} found, {batch.count('failed')} failed, in "
              f"{clock(time.monotonic() - begin)}", file=stream)
        return not batch.count("failed")


@dataclass
class Report:
    """The folder that is left, kept up to date as lessons begin and end."""
    target: Path
    lessons: list[Lesson]
    command: str
    began: float = field(default_factory=time.monotonic)
    at: datetime = field(default_factory=datetime.now)

    def __post_init__(self):
        try:
            for part in ("notebooks", "figures", "tables"):
                (self.target / part).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(self.target, error) from error

    @property
    def took(self) -> float:
        return time.monotonic() - self.began

    def show(self) -> None:
        """Write the page anew."""
        put(self.target / "index.html", page(self.lessons, self.command, self.at, self.took))

    def tabulate(self) -> None:
        """The papers' tables, as far as the store has them."""
        runs = finished()
        for name, table in papers.tables().items():
            for form in ("md", "csv"):
                put(self.target / "tables" / f"{name}.{form}", papers.FORMATS[form](table, papers.beside(table, runs=runs)) + "\n")

    def collect(self, lesson: Lesson, path: Path) -> None:
        """What the store has of a lesson, in the folder `path`: how far it came, its executed notebook, its figures."""
        with suppress(OSError, ValueError, KeyError):
            progress = json.loads((path / "progress.json").read_text())
            lesson.cell, lesson.seconds, lesson.error = progress["cell"], progress["seconds"], progress["error"] or lesson.error
        if (nb := executed(path / "notebook.ipynb")) is not None:
            put(self.target / "notebooks" / f"{lesson.name}.ipynb", nbformat.writes(nb))
            export(lesson, nb, self.target)


def held_by_the_store() -> str:
    """A hash of all results, for notebooks that show them."""
    return short(sorted((run.path.name, json.dumps(run.result)) for seeds in finished().values() for run in seeds.values()))


@terminable()
def reproduce(names: Iterable[str] = (), *, out: str | Path = "report", parameters: Mapping[str, str | Sequence[str]] | None = None,
              folder: str | Path | None = None, again: bool = False, refresh: bool = False, timeout_s: float = 1800,
              command: str | None = None, tables: Fill | None = None, scheduler: str | None = None, workers: int | None = None,
              stream=None) -> bool:
    """Run the lessons, leave notebooks, figures and a summary page in `out`. True when every one ran through.

    names: which of them (`02`, `02_fixmatch`; none: all); with `tables` also tables, which are filled first. folder: where they lie.
    parameters: as typed, each for the lessons that have one of its name; several values of one make a grid. again: also those that have
    run through before. refresh: write the outputs back into the lessons, to be committed. timeout_s: for one cell. command: as typed, for
    the page (default: made of these). scheduler, workers: see engine.run_batch (a script that calls this needs
    `if __name__ == "__main__":`). stream: where progress is shown (default: stderr). Raises InputError before anything runs where something
    given cannot be used, KeyboardInterrupt when stopped.
    """
    names, stream, good = list(names), stream or sys.stderr, True
    parameters = {name: [value] if isinstance(value, str) else list(value) for name, value in (parameters or {}).items()}
    chosen = tables_among(names) if tables else []
    shows = [notebook_of(table) for table in chosen]
    plain = [name for name in names if not (tables and (name == "tables" or name in papers.tables()))]
    picked = [read(path) for path in pick([*plain, *shows], lessons(folder), more=("tables", *papers.tables()))]
    given = typed(parameters, picked)
    require(workers is None or workers >= 1, f"workers is {workers}, it must be at least 1")
    require(workers is None or scheduler is None, "--workers is of this machine; how many a scheduler has is seen there")
    if tables:
        tables.check()
        for name in shows:
            given[name] = {"scale": [tables.scale], "seeds": [tables.seeds]} | given.get(name, {})
    todo = []
    for lesson in picked:                               # what is the default anyway is not set
        usual = parameters_of(lesson) if given.get(lesson.name) else {}
        for one, point in grid(lesson, given.get(lesson.name, {})):
            todo.append((one, {name: value for name, value in point.items() if value != usual[name]}))
    require(not (refresh and (len(todo) > len(picked) or any(values for _, values in todo))),
            "--refresh writes back what lessons show by default: it takes no parameters")
    same = (Path(out) / "notebooks").resolve() == picked[0].path.parent.resolve()
    require(not same, f"--out {out} would overwrite the lessons themselves")
    if command is None:
        words = ["sslkit", "reproduce", *names, *["--out", str(out)] * (str(out) != "report"), *["--refresh"] * refresh]
        command = shlex.join(words + [word for name, values in parameters.items() for value in values for word in ("-p", name, value)])
    report = Report(Path(out), [lesson for lesson, _ in todo], command)
    if tables:
        good = tables(chosen, scheduler, workers, stream)
    for readers in (False, True):                       # what only shows the store comes when the others are through
        part = [(lesson, values) for lesson, values in todo if (lesson.path.stem in NOTEBOOKS.values()) is readers]
        reads = held_by_the_store() if readers else ""
        at_a_time = workers or (1 if refresh and scheduler is None else None)   # none waits for another's runs: the time is its own
        good &= not part or run(part, report, reads, timeout_s, again or refresh, refresh, scheduler, at_a_time, stream)
    report.tabulate()
    report.show()
    through = sum(lesson.state == "finished" for lesson in report.lessons)
    print(f"{through} of {len(todo)} lessons finished in {clock(report.took)}; see {report.target / 'index.html'}", file=stream)
    return good


def run(part: list[tuple[Lesson, dict]], report: Report, reads: str, timeout_s: float, again: bool, refresh: bool, scheduler: str | None,
        workers: int | None, stream) -> bool:
    """Run lessons with their parameters as a batch; the report follows. True when all went well. See reproduce()."""
    from sslkit.batch.engine import Doing, run_batch

    mark = uuid.uuid4().hex if again else ""
    jobs = {NotebookJob(str(lesson.path), values, reads, timeout_s, mark): lesson for lesson, values in part}
    bad, places = [], {}

    def told(d: Doing) -> str | None:
        lesson, lines = jobs[d.job], []
        lesson.state, places[lesson.name] = {"found": "finished", "done": "finished", "elsewhere": "waiting"}.get(d.state, d.state), d
        if lesson.state in ("finished", "failed"):
            lesson.found, lesson.error = d.state == "found", d.error
            report.collect(lesson, d.path)
            lines = [f"{lesson.name}  {lesson.status}"]
        if refresh and lesson.state == "finished":
            try:
                require(lesson.path.read_text(encoding="utf-8") == lesson.text, f"{lesson.path} was changed while it ran")
                put(lesson.path, stripped(lesson, executed(d.path / "notebook.ipynb")))
            except InputError as error:
                bad.append(lesson)
                lines.append(f"not refreshed: {error}")
        report.show()
        return "\n".join(lines) or None

    try:
        batch = run_batch(list(jobs), scheduler=scheduler, workers=workers, told=told, stream=stream)
    except BaseException as error:
        with suppress(Exception):                       # the first error is the one to be said
            for lesson in jobs.values():
                if lesson.state == "running":
                    lesson.state = "stopped"
                    report.collect(lesson, places[lesson.name].path)
            report.tabulate()
            report.show()
        if not isinstance(error, KeyboardInterrupt):
            raise
        stopped = ", ".join(f"{lesson.name} {lesson.status}" for lesson in report.lessons if lesson.state == "stopped") or "stopped"
        done = ", ".join(lesson.name for lesson in report.lessons if lesson.state == "finished") or "none"
        print(f"{stopped}; finished: {done}; see {report.target / 'index.html'}", file=stream)
        raise
    return not batch.count("failed") and not bad
