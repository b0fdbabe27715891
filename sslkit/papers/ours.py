"""Our numbers beside the papers': what a store holds for each cell, and whether it is comparable."""
import statistics
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from sslkit.errors import InputError
from sslkit.papers.reported import Cell, Table
from sslkit.scales import SCALES, scale
from sslkit.training import Run, finished


@dataclass(frozen=True)
class Line:
    """A cell with what a store holds for it at one scale."""
    cell: Cell
    scale: str = ""
    values: dict[int, float] = field(default_factory=dict)       # seed -> percent
    differs: tuple[str, ...] = ()                                # from the paper's protocol, in words
    mixed: bool = False                                          # are they of different versions of the code?

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
        mixed = ", code of different versions" * self.mixed
        if not self.values:
            return self.cell.missing
        if self.cell.paper is None:
            return "no such number in the paper" + mixed
        if self.differs:
            return "no: " + "; ".join(self.differs) + mixed
        return "yes, as far as known" + f" (not: {self.cell.unknown})" * bool(self.cell.unknown) + mixed


def differences(cell: Cell, run: Run) -> tuple[str, ...]:
    """In what the run's protocol differs from what is known of the paper's."""
    used = run.config["train"]
    if cell.published is None:
        return (f"the paper's {cell.unknown} are not known",) if "," in cell.unknown else (f"{cell.unknown} in the paper is not known",)
    return tuple(f"{name.replace('_', ' ')} {used[name]:,}, paper {value:,}" if isinstance(value, int) else
                 f"{name.replace('_', ' ')} {used[name]}, paper {value}"
                 for name, value in cell.published.items() if used[name] != value)


def beside(table: Table, scales: Sequence[str] = tuple(SCALES), store: Path | None = None, seeds: int | None = None,
           runs: dict[str, dict[int, Run]] | None = None) -> list[Line]:
    """The table's cells with what the store holds at each of the scales, of all seeds or of 0 to `seeds` - 1: a Line for each scale that
    has any, one without values where none has. runs: what jobs.finished(store) found, for callers with several tables."""
    runs, lines = finished(store) if runs is None else runs, []
    for cell in table.cells:
        mine = []
        for name in scales:
            at = scale(name)
            job, values, codes = cell.job(at, 0), {}, set()
            for seed, run in sorted(runs.get(job.key(), {}).items()) if job else ():
                if seeds is None or seed < seeds:
                    with suppress(InputError, KeyError, TypeError):             # a result without the figure is none
                        values[seed] = 100 * table.value(run.result)
                        codes.add(str(run.config.get("code")))
            if values:
                mine.append(Line(cell, name, values, differences(cell, run), len(codes) > 1))
        lines += mine or [Line(cell)]
    return lines
