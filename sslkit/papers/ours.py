"""Our numbers beside the papers': what a store holds for each cell, and whether it is comparable."""
import statistics
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from sslkit.data import source
from sslkit.errors import InputError
from sslkit.papers.imagenet import DIFFERS, belongs
from sslkit.papers.reported import Cell, Table
from sslkit.papers.scales import SCALES, scale
from sslkit.training import Run, RunSpec, finished, probes


@dataclass(frozen=True)
class Line:
    """A cell, and what a store holds for it at one scale. Numbers in percent; None where there is none."""
    cell: Cell
    scale: str = ""                                              # "" if the store holds nothing
    values: dict[int, float] = field(default_factory=dict)       # seed -> our number
    differs: tuple[str, ...] = ()                                # settings that differ from the paper's, in words
    mixed: str = ""                                              # what differs between the seeds' runs, in words

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.values.values()) if self.values else None

    @property
    def std(self) -> float | None:
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else None

    @property
    def comparable(self) -> bool:
        return bool(self.values) and self.cell.paper is not None and not self.differs

    @property
    def difference(self) -> float | None:
        """Our mean minus the paper's number, if the two are comparable."""
        return self.mean - self.cell.paper if self.comparable else None

    @property
    def verdict(self) -> str:
        """Whether the line is comparable, and if not, why."""
        if not self.values:
            return self.cell.missing
        if self.cell.paper is None:
            answer = "no such number in the paper"
        elif self.differs:
            answer = "no: " + "; ".join(self.differs)
        else:
            answer = "yes, as far as known" + (f" (not: {self.cell.unknown})" if self.cell.unknown else "")
        return f"{answer}, {self.mixed}" if self.mixed else answer

    def as_dict(self) -> dict:
        """The line as plain values, as the JSON table has them."""
        cell = self.cell
        return {"method": cell.row, "column": cell.column, "bound": cell.bound or None, "paper": cell.paper,
                "paper_std": cell.std, "reruns": cell.reruns, "ours": self.mean, "ours_std": self.std,
                "seeds": self.values, "difference": self.difference, "scale": self.scale or None,
                "comparable": self.comparable, "why": self.verdict or None, "notes": [*cell.notes, *cell.usb_notes]}


def differences(cell: Cell, run: Run) -> tuple[str, ...]:
    """The settings of the run, its method's included, that differ from the paper's known ones, in words."""
    data = run.config["data"]
    found = ["images read from files, not the published ones"] * ("image_files" in data)
    found += [f"features of {data['encoder']} at {data['side']} px"] if "encoder" in data else []
    if cell.published is None:
        many = "," in cell.unknown
        word = f"the paper's {cell.unknown} are not known" if many else f"{cell.unknown} in the paper is not known"
        return (*found, word)
    found += DIFFERS[cell.row.split()[0]] if cell.imagenet else ()
    for part, settings in cell.published.items():
        for name, value in settings.items():
            if (used := run.config[part].get(name)) != value:
                form = "," if type(used) is type(value) is int else ""
                found.append(f"{name.replace('_', ' ')} {used:{form}}, paper {value:{form}}")
    return tuple(found)


def inequality(runs: Sequence[Run], now: dict) -> str:
    """What but the seed differs between the runs of one line, in words. now: the code that would train them today."""
    codes, precisions = [run.config.get("code") for run in runs], {run.config["train"]["precision"] for run in runs}
    words = []
    if any(code != codes[0] for code in codes):
        words.append("code of different versions")
    elif codes and codes[0] != now:
        words.append("code of another version than this one")
    if len(precisions) > 1:
        words.append(" and ".join(sorted(precisions)) + " together")
    return ", ".join(words)


def candidates(cell: Cell, scales: Sequence[str],
               runs: dict[str, dict[int, Run]]) -> Iterator[tuple[str, dict[int, Run], dict]]:
    """(scale, seed -> run, the code that would train them today) for each protocol of which a cell may have runs.

    Runs on ImageNet, whose folder and list of labels are somebody's own, are known by their record, at any setting."""
    for name in scales:
        if spec := cell.spec(scale(name), 0):
            yield name, runs.get(spec.protocol(), {}), spec.code
    if cell.imagenet and "paper" in scales:
        for found in runs.values():
            record = next(iter(found.values())).config
            if belongs(record, cell.row.split()[0], cell.imagenet):
                yield "paper", found, RunSpec(record["method"]).code


def beside(table: Table, scales: Sequence[str] = tuple(SCALES), store: Path | None = None, seeds: int | None = None,
           runs: dict[str, dict[int, Run]] | None = None) -> list[Line]:
    """The table's cells with our numbers from the store: a Line for each scale that has any, one without values if none
    has. InputError for a scale that does not exist.

    seeds: only those from 0 to `seeds` - 1 (default: all). runs: what training.finished(store) found, so that several
    tables read the store once.
    """
    runs, lines = finished(store) if runs is None else runs, []
    for cell in table.cells:
        mine = []
        for name, found, code in candidates(cell, scales, runs):
            values, used = {}, []
            for seed, run in sorted(found.items()):
                if seeds is None or seed < seeds:
                    with suppress(InputError, KeyError, TypeError):             # a result without the figure is skipped
                        values[seed] = 100 * table.value(run.result, cell.figure)
                        used.append(run)
            if values:
                mine.append(Line(cell, name, values, differences(cell, used[-1]), inequality(used, code)))
        lines += mine or [Line(cell)]
    return lines + (evaluations(store) if table.name == "simmatch-3" else [])


def evaluations(store: Path | None = None) -> list[Line]:
    """A Line for each encoder and data set that `sslkit probe` has evaluated."""
    return [Line(Cell(f"{found['encoder']}, {found['size']} px", source(found["data"]).title), "",
                 {0: 100 * found["test_acc"]}) for found in probes(store)]
