"""Our numbers beside the papers': what a store holds for each cell, and whether it is comparable."""
import statistics
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from sslkit.errors import InputError
from sslkit.papers.reported import Cell, Table
from sslkit.papers.scales import SCALES, scale
from sslkit.training import Run, finished


@dataclass(frozen=True)
class Line:
    """A cell with what a store holds for it at one scale."""
    cell: Cell
    scale: str = ""
    values: dict[int, float] = field(default_factory=dict)       # seed -> percent
    differs: tuple[str, ...] = ()                                # from the paper's protocol, in words
    mixed: str = ""                                              # what makes the seeds unequal, in words

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
        """Ours minus the paper's, where the two are comparable."""
        return self.mean - self.cell.paper if self.comparable else None

    @property
    def verdict(self) -> str:
        """Whether the row is comparable, and if not, why."""
        mixed = f", {self.mixed}" * bool(self.mixed)
        if not self.values:
            return self.cell.missing
        if self.cell.paper is None:
            return "no such number in the paper" + mixed
        if self.differs:
            return "no: " + "; ".join(self.differs) + mixed
        return "yes, as far as known" + f" (not: {self.cell.unknown})" * bool(self.cell.unknown) + mixed


def differences(cell: Cell, run: Run) -> tuple[str, ...]:
    """In what the run's settings, those of its method included, differ from what is known of the paper's."""
    if cell.published is None:
        many = "," in cell.unknown
        return (f"the paper's {cell.unknown} are not known" if many else f"{cell.unknown} in the paper is not known",)
    found = []
    for part, settings in cell.published.items():
        for name, value in settings.items():
            if (used := run.config[part][name]) != value:
                whole = "," if isinstance(value, int) else ""
                found.append(f"{name.replace('_', ' ')} {used:{whole}}, paper {value:{whole}}")
    return tuple(found)


def inequality(runs: Sequence[Run], now: dict) -> str:
    """In what the runs of one line are unequal besides their seed, in words; `now`: the code that would train them
    today."""
    codes, precisions = [run.config.get("code") for run in runs], {run.config["train"]["precision"] for run in runs}
    words = []
    if any(code != codes[0] for code in codes):
        words.append("code of different versions")
    elif codes and codes[0] != now:
        words.append("code of another version than this one")
    if len(precisions) > 1:
        words.append(" and ".join(sorted(precisions)) + " together")
    return ", ".join(words)


def beside(table: Table, scales: Sequence[str] = tuple(SCALES), store: Path | None = None, seeds: int | None = None,
           runs: dict[str, dict[int, Run]] | None = None) -> list[Line]:
    """The table's cells with what the store holds at each of the scales, of all seeds or of 0 to `seeds` - 1: a Line
    for each scale that has any, one without values where none has. runs: what training.finished(store) found, for
    several tables."""
    runs, lines = finished(store) if runs is None else runs, []
    for cell in table.cells:
        mine = []
        for name in scales:
            spec, values, used = cell.spec(scale(name), 0), {}, []
            for seed, run in sorted(runs.get(spec.protocol(), {}).items()) if spec else ():
                if seeds is None or seed < seeds:
                    with suppress(InputError, KeyError, TypeError):             # a result without the figure is none
                        values[seed] = 100 * table.value(run.result)
                        used.append(run)
            if values:
                mine.append(Line(cell, name, values, differences(cell, used[-1]), inequality(used, spec.code)))
        lines += mine or [Line(cell)]
    return lines
