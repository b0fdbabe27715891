"""A lesson's notebook: found, read, its parameters checked, and cleaned to be committed with its outputs."""
import ast
import hashlib
import itertools
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbformat import NotebookNode

import sslkit
from sslkit.errors import InputError, choose, require
from sslkit.training import store

MAX_BYTES = 500_000                 # of a notebook that is committed
SECONDS_UNKNOWN = 60                # for a lesson that does not say how long it takes
SCALARS = (str, int, float, bool, type(None))


@dataclass
class Lesson:
    """One notebook and how far it is. `cell` is the code cell that runs or failed, counted from 1 as in `In [1]`."""

    path: Path
    text: str
    nb: NotebookNode = field(repr=False)
    point: dict[str, object] = field(default_factory=dict)              # of a grid: the parameters that differ in it
    state: str = "waiting"          # running, finished, failed, stopped
    found: bool = False             # it had run through before
    cell: int = 0
    seconds: float = 0.0
    error: str = ""
    exported: bool = False          # is there a page and an executed notebook of it?
    figures: list[tuple[str, str]] = field(default_factory=list)        # file name, what it shows

    def __post_init__(self) -> None:
        def seconds(node: NotebookNode, otherwise: float) -> float:
            return node.metadata.get("sslkit", {}).get("seconds", otherwise)

        self.name = "_".join([self.path.stem, *(f"{name}={value}" for name, value in self.point.items())])
        plain_name = re.sub(r"[^\w.+=-]+", "-", self.name)[:100] if self.point else self.name
        if plain_name != self.name:                     # two that differ must not become the same
            self.name = f"{plain_name}_{hashlib.sha256(self.name.encode()).hexdigest()[:6]}"
        codes = [cell for cell in self.nb.cells if cell.cell_type == "code" and cell.source.strip()]
        known = [seconds(cell, 0) for cell in codes]
        rest = max(0, seconds(self.nb, SECONDS_UNKNOWN) - sum(known)) / max(1, len(codes))
        self.plan = [own + rest for own in known]                       # the seconds that each code cell may take
        prose = "\n\n".join(cell.source for cell in self.nb.cells if cell.cell_type == "markdown")
        heading = re.search(r"^#+ +(.+)$", prose, re.M)
        after = re.split(r"\n\s*\n|^#", prose[heading.end():].strip(), flags=re.M)[0] if heading else ""
        at = ", ".join(f"{name} {value}" for name, value in self.point.items())
        self.title = (plain(heading[1]) if heading else self.path.stem) + f": {at}" * bool(at)
        self.question = plain(after)

    @property
    def status(self) -> str:
        """Where it stands, in one line."""
        where = f"in cell {self.cell}" if self.cell else "before its first cell"
        return {"finished": f"finished in {self.seconds:.0f} s" + ", found in the store" * self.found, "stopped": f"stopped {where}",
                "failed": f"failed {where}: {self.error.partition(chr(10))[0][:200]}"}.get(self.state, self.state)


def plain(markdown: str) -> str:
    """One line without the marks of links, emphasis and code."""
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", markdown)
    return " ".join(re.sub(r"\*\*|`|(?<!\w)[*_]|[*_](?!\w)", "", text).split())


def lessons(folder: str | Path | None = None) -> list[Path]:
    """The numbered notebooks of `folder`, else of the nearest `notebooks` above, else of that beside the package."""
    above = [place / "notebooks" for place in (Path.cwd(), *Path.cwd().parents)]
    places = [Path(folder)] if folder else [*above, Path(sslkit.__file__).parents[1] / "notebooks"]
    for place in places:
        if found := sorted(place.absolute().glob("[0-9][0-9]_*.ipynb")):
            return found
    more = "" if folder else f", in one above it or in {places[-1]}"
    raise InputError(f"there are no lessons (NN_name.ipynb) in {places[0]}{more}")


def pick(names: Iterable[str], paths: list[Path], more: Iterable[str] = ()) -> list[Path]:
    """The lessons of these names (`02`, `02_fixmatch`, `02_fixmatch.ipynb`), in order; all of them for no name. more: what else a name
    might have meant."""
    chosen, stems = set(), [path.stem for path in paths]
    for name in names:
        stem = Path(name).name.removesuffix(".ipynb")
        numbered = {other for other in stems if stem.isdigit() and other.startswith(stem.zfill(2) + "_")}
        chosen |= numbered or {choose("lesson", stem, (*stems, *more))}
    return [path for path in paths if not chosen or path.stem in chosen]


def read(path: Path, point: dict[str, object] | None = None) -> Lesson:
    """A lesson from its file; InputError where that is no notebook. point: of a grid, the parameters that differ in it."""
    try:
        text = path.read_text(encoding="utf-8")
        return Lesson(path, text, nbformat.reads(text, as_version=4), point or {})
    except (OSError, ValueError, AttributeError, nbformat.ValidationError) as error:
        raise InputError(f"{path} cannot be read as a notebook: {str(error).partition(chr(10))[0][:200]}") from error


def parameters_of(lesson: Lesson) -> dict[str, object]:
    """Names and defaults in the cell tagged `parameters`.

    Python itself reads it: papermill's pattern does not see `x: int | None = None`, nor a value with a second `=`.
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
        try:
            value = ast.literal_eval(line.value)
        except (AttributeError, ValueError):
            continue
        if isinstance(target, ast.Name) and isinstance(value, SCALARS):
            found[target.id] = value
    return found


def parse(name: str, text: str, default: object) -> object:
    """A parameter as typed, in the type of its default. Raises InputError where it has another."""
    try:
        text.encode()
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
    """For each lesson, by name, the values of those parameters that it has. Raises InputError for a parameter that none of them has."""
    known = {lesson.name: parameters_of(lesson) for lesson in todo} if given else {}
    every = dict.fromkeys(name for have in known.values() for name in have)
    require(every or not given, f"{', '.join(known)} takes no parameters")
    for name in given:
        choose("parameter", name, every)
    def distinct(name: str, default: object) -> list:
        values = [parse(name, text, default) for text in given[name]]
        return list({(type(value), value): value for value in values}.values())         # True is no 1

    return {lesson: {name: distinct(name, have[name]) for name in given if name in have} for lesson, have in known.items()}


def grid(lesson: Lesson, values: Mapping[str, list]) -> list[tuple[Lesson, dict[str, object]]]:
    """The lesson with each combination of the values, and these: itself where no parameter has several."""
    several = [name for name in values if len(values[name]) > 1]
    points = [dict(zip(values, point)) for point in itertools.product(*values.values())]
    found = [(read(lesson.path, {name: point[name] for name in several}) if several else lesson, point) for point in points]
    for k, (one, _) in enumerate(found):                # a disk may not tell A from a
        if any(other.name.casefold() == one.name.casefold() for other, _ in found[:k]):
            one.name += f"_{k}"
    return found


def stripped(lesson: Lesson, nb: NotebookNode) -> str:
    """The lesson as it is committed: its source with the outputs of `nb`, and nothing of the machine that made them.

    Raises InputError where a path of this machine is in an output, or where the notebook is too large.
    """
    clean, number = nbformat.reads(lesson.text, as_version=4), 0
    private = [str(path) for path in (Path.home(), lesson.path.parents[1], store().absolute(), sys.prefix)]
    private.append(os.path.join(tempfile.gettempdir(), "ipykernel"))    # where a warning says that its cell lies
    for cell, run in zip(clean.cells, nb.cells, strict=True):
        for key in ("execution", "papermill", "sslkit"):
            cell.metadata.pop(key, None)
        if cell.cell_type != "code":
            continue
        number += bool(cell.source.strip())
        took = run.metadata.papermill.duration or 0
        if took >= 2:                                   # for the time left; less would be noise in the diff
            cell.metadata["sslkit"] = {"seconds": round(took)}
        # counted from the top, the same at every refresh: nbval refuses outputs of a cell without a count
        cell.execution_count, cell.outputs = number if cell.source.strip() else None, tidy(run.outputs)
        shown = "\n".join(str(text) for output in cell.outputs for text in (
            output.get("text", ""), output.get("data", {}).get("text/plain", ""), *output.get("traceback", [])))
        for path in private:
            where = f"{path}, under its cell {number}: {cell.source.strip()[:80]!r}"
            require(len(path) == 1 or path not in shown, f"{lesson.name} shows a path of this machine, {where}")
    clean.metadata = nbformat.from_dict({
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"}, "sslkit": {"seconds": max(1, round(lesson.seconds))}})
    text = nbformat.writes(clean).rstrip("\n") + "\n"
    size = len(text.encode())
    limit = MAX_BYTES // 1000
    require(size <= MAX_BYTES, f"{lesson.name} has {size / 1000:.0f} kB with its outputs, {limit} kB are allowed")
    return text


def tidy(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Text and PNG alone. A widget is left out: nobody can move it without a kernel, and a figure stands beside it."""
    kept = []
    for output in outputs:
        if any("widget-view" in kind for kind in output.get("data", {})):
            continue
        for part in (output.get("data", {}), output.get("metadata", {})):
            for kind in set(part) - {"text/plain", "image/png"}:
                del part[kind]
        if "execution_count" in output:
            output.execution_count = None
        if output.output_type == "stream" and kept and kept[-1].get("name") == output.name:
            kept[-1].text += output.text                # where one write ends and the next begins is chance
        elif output.get("data", True):
            kept.append(output)
    return kept
