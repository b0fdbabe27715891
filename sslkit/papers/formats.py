"""A table as text: Markdown, CSV, JSON, LaTeX; and what ours show, in words and as dots."""
import csv
import io
import json
import textwrap
from collections.abc import Sequence
from pathlib import Path

from sslkit.errors import choose
from sslkit.papers.ours import Line, beside
from sslkit.papers.reported import Cell, Table, table
from sslkit.papers.scales import SCALES, scale

BEST = ("reruns (TorchSSL, USB): the best checkpoint on the test set, 3 seeds; USB has WRN-28-2 on CIFAR-100 too; both "
        "train SVHN on train + extra")
OURSELVES = ("ours: the last evaluation of the averaged weights; splits of our own, as many labelled images a class; "
             "mean and sample std over the seeds; a difference only where the protocol is the paper's, as far as it is "
             "known")
HEAD = ("method", "data@labels", "paper", "TorchSSL", "USB", "ours", "seeds", "difference", "scale", "comparable")


def shown(table: Table, lines: Sequence[Line]) -> tuple[list[tuple[str, ...]], list[str]]:
    """Rows of text under HEAD, and the footnotes that they point at."""
    notes: list[str] = []

    def text(value: float | None, std: float | None = None, sign: str = "") -> str:
        return "" if value is None else f"{value:{sign}.2f}" + (f" ± {std:.2f}" if std is not None else "")

    def marks(cell: Cell, of_usb: bool) -> str:
        mine = cell.usb_notes if of_usb else cell.notes
        notes.extend(note for note in mine if note not in notes)
        return "".join(f" [{notes.index(note) + 1}]" for note in mine)

    rows = []
    for line in lines:
        cell, paper = line.cell, f"{line.cell.bound} {text(line.cell.paper, line.cell.std)}".strip()
        rows.append((cell.row, cell.column, paper + marks(cell, False), text(cell.reruns.get("TorchSSL")),
                     text(cell.reruns.get("USB")) + marks(cell, True), text(line.mean, line.std), str(len(line.values) or ""),
                     text(line.difference, sign="+"), line.scale, line.verdict))
    numbered = [f"[{k}] {note}" for k, note in enumerate(notes, 1)]
    return rows, [*numbered, *([BEST] if any(line.cell.reruns for line in lines) else []), OURSELVES]


def filled(rows: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """The head and the rows without the columns of reruns and scale where no row has any."""
    shows = [k for k, name in enumerate(HEAD) if name not in ("TorchSSL", "USB", "scale", "difference") or any(row[k] for row in rows)]
    return [tuple(row[k] for k in shows) for row in (HEAD, *rows)]


def as_markdown(table: Table, lines: Sequence[Line]) -> str:
    rows, notes = shown(table, lines)
    head, *rows = filled(rows)
    widths = [max(len(row[k]) for row in (head, *rows)) for k in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").ljust(width) for cell, width in zip(cells, widths)) + " |"

    body = [line(head), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(line, rows)]
    return "\n".join([f"**{table.title}**, {table.unit}", "", *body, "", *(f"- {note}" for note in notes)])


def as_csv(table: Table, lines: Sequence[Line]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("table", "method", "data@labels", "bound", "paper", "paper_std", "torchssl", "usb", "ours", "ours_std", "seeds",
                     "difference", "scale", "comparable", "notes"))
    for line in lines:
        c = line.cell
        figures = (c.paper, c.std, c.reruns.get("TorchSSL"), c.reruns.get("USB"), line.mean, line.std, len(line.values), line.difference)
        numbers = ("" if figure is None else round(figure, 4) for figure in figures)
        writer.writerow((table.name, c.row, c.column, c.bound, *numbers, line.scale, line.verdict, "; ".join((*c.notes, *c.usb_notes))))
    return file.getvalue().rstrip("\n")


def as_json(table: Table, lines: Sequence[Line]) -> str:
    rows = [{"method": line.cell.row, "column": line.cell.column, "bound": line.cell.bound or None, "paper": line.cell.paper,
             "paper_std": line.cell.std, "reruns": line.cell.reruns, "ours": line.mean, "ours_std": line.std,
             "seeds": {str(seed): value for seed, value in line.values.items()}, "difference": line.difference, "scale": line.scale or None,
             "comparable": line.comparable, "why": line.verdict or None, "notes": [*line.cell.notes, *line.cell.usb_notes]} for line in lines]
    return json.dumps({"table": table.name, "title": table.title, "claim": table.claim, "unit": table.unit, "rows": rows})


def as_latex(table: Table, lines: Sequence[Line]) -> str:
    """A tabular; needs booktabs."""
    def safe(text: str) -> str:
        for sign in "%_&#":
            text = text.replace(sign, f"\\{sign}")
        return text.replace("±", "$\\pm$")

    rows, notes = shown(table, lines)
    head, *body = (" & ".join(map(safe, row)) + " \\\\" for row in filled(rows))
    columns = "ll" + "r" * (head.count("&") - 2) + "l"
    return "\n".join([f"% {table.title}, {table.unit}", f"\\begin{{tabular}}{{{columns}}}", "\\toprule", head, "\\midrule", *body,
                      "\\bottomrule", "\\end{tabular}", *(f"% {note}" for note in notes)])


FORMATS = {"md": as_markdown, "csv": as_csv, "json": as_json, "latex": as_latex}


def printed(name: str, form: str = "md", scales: Sequence[str] = tuple(SCALES), store: Path | None = None) -> str:
    """A table in one of FORMATS. InputError for a table, format or scale that there is not."""
    choose("format", form, FORMATS)
    for at in scales:
        scale(at)
    chosen = table(name)
    return FORMATS[form](chosen, beside(chosen, scales, store))


def named(line: Line) -> str:
    """The row, with its column where that is a long tail's."""
    return line.cell.row + (", long tail" if "-LT" in line.cell.column else "")


def dots(lines: Sequence[Line]) -> dict[str, list[float]]:
    """Row -> a fraction for each seed, for plots.spread; of several columns the row names each."""
    ours = [line for line in lines if line.values]
    several = len({line.cell.column.replace("-LT", "") for line in ours}) > 1
    return {textwrap.fill(named(line), 14) + f"\n{line.cell.column}" * several: [v / 100 for v in line.values.values()] for line in ours}


def ranking(lines: Sequence[Line]) -> str:
    """What ours show, a line for each column, from the best down: mean, std and seeds of each."""
    columns: dict[str, list[Line]] = {}
    for line in lines:
        if line.values:
            columns.setdefault(line.cell.column.replace("-LT", ""), []).append(line)
    said = []
    for column, mine in columns.items():
        mine = sorted(mine, key=lambda line: -line.mean)
        each = [f"{named(line)} {line.mean:.2f}" + (f" ± {line.std:.2f}" if line.std is not None else "") + " (n = "
                                                                                                            f"{len(line.values)})"
                for line in mine]
        said.append(f"{column}: " + ", ".join(each))
    return "\n".join(said) or "nothing of ours in the store yet: sslkit reproduce tables"
