"""A lesson's notebook: find and read it, check its parameters, clean it to be committed with its outputs."""
import ast
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

import sslkit
from sslkit.errors import InputError, choose, require
from sslkit.files import digest

SECONDS_UNKNOWN = 60                # for a lesson that does not say how long it takes
SCALARS = (str, int, float, bool, type(None))
COURSE = ("00", "02", "01", "06", "03", "05", "04", "09", "07", "08")   # in the order of understanding
FRAMES = "application/vnd.sslkit.frames+json"           # what a slider leaves for pages
KEPT = {"text/plain", "text/markdown", "image/png", "image/jpeg", "image/svg+xml"}      # of outputs that are committed


@dataclass
class Lesson:
    """A notebook and its progress. `cell`: the code cell that runs or failed, counted from 1 as in `In [1]`."""

    path: Path
    text: str
    nb: NotebookNode = field(repr=False)
    point: dict[str, object] = field(default_factory=dict)              # of a grid: the parameters that differ in it
    state: str = "waiting"          # running, finished, failed, stopped
    found: bool = False             # was it completed before?
    cell: int = 0
    seconds: float = 0.0
    error: str = ""
    exported: bool = False          # is there a page and an executed notebook of it?
    figures: list[tuple[str, str]] = field(default_factory=list)        # file name, what it shows
    cover: int = 0                  # which of them stands for the lesson

    def __post_init__(self) -> None:
        self.name = name_of(self.path.stem, self.point)
        self.planned = max(1, self.nb.metadata.get("sslkit", {}).get("seconds", SECONDS_UNKNOWN))
        title, self.question = title_and_question(self.nb)
        at = ", ".join(f"{name} {value}" for name, value in self.point.items())
        self.title = (title or self.path.stem) + (f": {at}" if at else "")
        self.number = self.path.stem[:2]
        first = self.nb.cells[0].source if self.nb.cells else ""
        found = re.search(r"^Reading \d+ minutes?, computing [^.]+\.", first, re.M)
        self.minutes = found[0].rstrip(".") if found else ""

    @property
    def status(self) -> str:
        """State, time and error in one line."""
        where = f"in cell {self.cell}" if self.cell else "before its first cell"
        found = ", found in the store" if self.found else ""
        return {"finished": f"finished in {self.seconds:.0f} s{found}", "stopped": f"stopped {where}",
                "failed": f"failed {where}: {self.error.partition(chr(10))[0][:200]}"}.get(self.state, self.state)


def name_of(stem: str, point: Mapping[str, object]) -> str:
    """A file name without ending, from the notebook's and the parameters of a grid. It differs where they differ, also
    on disks that do not distinguish A from a."""
    full = "_".join([stem, *(f"{name}={value}" for name, value in point.items())])
    plain = re.fullmatch(r"[\w.+=-]{1,100}", full) and full.isascii() and full == full.lower()
    return full if plain or not point else f"{re.sub(r'[^A-Za-z0-9_.+=-]+', '-', full)[:100]}_{digest(full)[:6]}"


def job_name(lesson: Lesson, parameters: Mapping[str, Any]) -> str:
    """The name of the job, the same on every machine and for every state of its cells."""
    return f"{lesson.path.stem}-{digest(dict(parameters))}"


def code_cells(nb: NotebookNode) -> list[NotebookNode]:
    """The cells that count, as in `In [1]`."""
    return [cell for cell in nb.cells if cell.cell_type == "code" and cell.source.strip()]


def executed(path: Path) -> NotebookNode | None:
    """The executed notebook at `path`. None if there is none, or only a part of it: papermill writes it as it goes."""
    with suppress(OSError, ValueError, AttributeError, nbformat.ValidationError):
        return nbformat.read(path, as_version=4)


def how_far(nb: NotebookNode) -> tuple[int, int, float]:
    """Of a notebook that papermill executes: how many code cells have begun, how many there are, the seconds."""
    notes = [cell.metadata.get("papermill", {}) for cell in code_cells(nb)]
    return (sum(bool(note.get("start_time")) for note in notes), len(notes),
            nb.metadata.get("papermill", {}).get("duration") or sum(note.get("duration") or 0 for note in notes))


def failure(nb: NotebookNode) -> str:
    """The error that ended an executed notebook; empty if none did."""
    for cell in code_cells(nb):
        if cell.metadata.get("papermill", {}).get("exception"):
            errors = [f"{output.ename}: {output.evalue}" for output in cell.outputs if output.output_type == "error"]
            return (errors or ["it raised an error"])[0][:2000]
    return ""


def title_and_question(nb: NotebookNode) -> tuple[str, str]:
    """The first heading and the paragraph after it, as plain text; empty where there are none."""
    prose = "\n\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown")
    heading = re.search(r"^#+ +(.+)$", prose, re.M)
    if heading is None:
        return "", ""
    after = re.split(r"\n\s*\n|^#", prose[heading.end():].strip(), flags=re.M)[0]
    return plain_text(heading[1]), plain_text(after)


def plain_text(markdown: str) -> str:
    """One line without the marks of links, emphasis, code and formulas."""
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", markdown)
    text = re.sub(r"\$([^$]+)\$", lambda formula: re.sub(r"[\\{}]", "", formula[1]), text)
    return " ".join(re.sub(r"\*\*|`|(?<!\w)[*_]|[*_](?!\w)", "", text).split())


def is_table(path: Path) -> bool:
    """Is it a notebook of tables for researchers, and no lesson?"""
    return path.stem >= "90"


def place(path: Path) -> tuple[int, str]:
    """Where a lesson stands in the course, to sort by."""
    number = path.stem[:2]
    return COURSE.index(number) if number in COURSE else len(COURSE), path.stem


def lessons(folder: str | Path | None = None) -> list[Path]:
    """The numbered notebooks of `folder`, else of the nearest `notebooks` above, else of that beside the package; in
    the order of the course."""
    above = [one / "notebooks" for one in (Path.cwd(), *Path.cwd().parents)]
    places = [Path(folder)] if folder else [*above, Path(sslkit.__file__).parents[1] / "notebooks"]
    for one in places:
        if found := sorted(one.absolute().glob("[0-9][0-9]_*.ipynb"), key=place):
            return found
    more = "" if folder else f", in one above it or in {places[-1]}"
    raise InputError(f"there are no lessons (NN_name.ipynb) in {places[0]}{more}")


def pick(names: Iterable[str], paths: list[Path], more: Iterable[str] = ()) -> list[Path]:
    """The lessons of these names (`02`, `02_fixmatch.ipynb`), in order; for no name all that are no tables. more: names
    to suggest."""
    chosen, stems = set(), [path.stem for path in paths]
    for name in names:
        stem = Path(name).name.removesuffix(".ipynb")
        numbered = {other for other in stems if stem.isdigit() and other.startswith(stem.zfill(2) + "_")}
        chosen |= numbered or {choose("lesson", stem, (*stems, *more))}
    return [path for path in paths if (path.stem in chosen if chosen else not is_table(path))] or paths


def read(path: Path, point: dict[str, object] | None = None) -> Lesson:
    """A lesson from its file; InputError if that is no notebook. point: the parameters that differ in a grid."""
    try:
        text = path.read_text(encoding="utf-8")
        return Lesson(path, text, nbformat.reads(text, as_version=4), point or {})
    except (OSError, ValueError, AttributeError, nbformat.ValidationError) as error:
        raise InputError(f"{path} cannot be read as a notebook: {str(error).partition(chr(10))[0][:200]}") from error


def parameters_of(lesson: Lesson) -> dict[str, object]:
    """Names and defaults in the cell tagged `parameters`.

    Parsed as Python: papermill's pattern misses `x: int | None = None` and values with a second `=`.
    """
    cells = [cell for cell in lesson.nb.cells if "parameters" in cell.metadata.get("tags", [])]
    require(len(cells) <= 1, f"{lesson.name} has {len(cells)} cells tagged `parameters`; papermill takes one")
    try:
        lines = ast.parse(cells[0].source).body if cells else []
    except SyntaxError as error:
        raise InputError(f"the parameters of {lesson.name} are not plain Python: {error}") from error
    found = {}
    for line in lines:
        target = line.targets[0] if isinstance(line, ast.Assign) else getattr(line, "target", None)
        with suppress(AttributeError, ValueError):      # no assignment, or not of a literal
            value = ast.literal_eval(line.value)
            if isinstance(target, ast.Name) and isinstance(value, SCALARS):
                found[target.id] = value
    return found


def parse(name: str, text: str, default: object) -> object:
    """A parameter as typed on the command line, in the type of its default; InputError if it has another type."""
    try:
        value = ast.literal_eval(text)
    except UnicodeEncodeError as error:
        raise InputError(f"parameter {name} is no text: {text!r}") from error
    except (ValueError, SyntaxError):
        value = text
    if isinstance(default, str) and not isinstance(value, str):
        value = text
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    kind = type(default)
    require(isinstance(value, SCALARS) and (default is None or type(value) is kind),
            f"parameter {name} is {text}, it must be of type {kind.__name__} like its default, {default!r}")
    return value


def typed(given: Mapping[str, Sequence[str]], todo: list[Lesson]) -> dict[str, dict[str, list]]:
    """For each lesson, by name, the values of the parameters that it has; InputError for one that no lesson has."""
    known = {lesson.name: parameters_of(lesson) for lesson in todo} if given else {}
    every = dict.fromkeys(name for have in known.values() for name in have)
    require(every or not given, f"{', '.join(known)} takes no parameters")
    for name in given:
        choose("parameter", name, every)

    def distinct(name: str, default: object) -> list:
        values = [parse(name, text, default) for text in given[name]]
        return list({(type(value), value): value for value in values}.values())         # True is not 1

    return {lesson: {name: distinct(name, have[name]) for name in given if name in have}
            for lesson, have in known.items()}


def grid(lesson: Lesson, values: Mapping[str, list]) -> list[tuple[Lesson, dict[str, object]]]:
    """The lesson at each combination of the values, with those that are not its default; the same Lesson if no
    parameter has several values."""
    several, usual = [name for name in values if len(values[name]) > 1], parameters_of(lesson) if values else {}
    points = [dict(zip(values, point)) for point in itertools.product(*values.values())]
    return [(read(lesson.path, {name: point[name] for name in several}) if several else lesson,
             {name: value for name, value in point.items() if value != usual[name]}) for point in points]


def stripped(lesson: Lesson, nb: NotebookNode) -> str:
    """The lesson as it is committed: its source with the outputs of `nb`. tests/test_notebook.py looks at what they
    show."""
    clean, number = nbformat.reads(lesson.text, as_version=4), 0
    for cell, run in zip(clean.cells, nb.cells, strict=True):
        cover = cell.metadata.get("sslkit", {}).get("cover", False)
        for key in ("execution", "papermill", "sslkit"):
            cell.metadata.pop(key, None)
        if cover:
            cell.metadata["sslkit"] = {"cover": True}
        if cell.cell_type == "code":
            # counted from the top, the same at every refresh: nbval refuses outputs of a cell without a count
            number += bool(cell.source.strip())
            cell.execution_count, cell.outputs = number if cell.source.strip() else None, tidy(run.outputs)
    clean.metadata = nbformat.from_dict({
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"}, "sslkit": {"seconds": max(1, round(lesson.seconds))}})
    return nbformat.writes(clean).rstrip("\n") + "\n"


def tidy(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Text, tables and pictures alone. No widgets, and no frames of sliders: nobody can move them without a kernel, and
    a picture stands beside each."""
    kept = []
    for output in outputs:
        if any("widget-view" in kind for kind in output.get("data", {})):
            continue
        for part in (output.get("data", {}), output.get("metadata", {})):
            for kind in set(part) - KEPT:
                del part[kind]
        if "execution_count" in output:
            output.execution_count = None
        if output.output_type == "stream" and kept and kept[-1].get("name") == output.name:
            kept[-1].text += output.text                # where one write ends and the next begins is chance
        elif output.get("data", True):
            kept.append(output)
    return kept
