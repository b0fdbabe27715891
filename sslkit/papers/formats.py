"""A table as text: Markdown, CSV, JSON, LaTeX; and our results in words and as dots."""
import csv
import io
import json
import textwrap
from collections.abc import Sequence
from pathlib import Path

from sslkit.errors import choose
from sslkit.papers.ours import Line, beside
from sslkit.papers.reported import Table, table
from sslkit.papers.scales import SCALES

ABOUT_RERUNS = ("reruns (TorchSSL, USB): the best checkpoint on the test set, 3 seeds; USB has WRN-28-2 on CIFAR-100 "
                "too; both train SVHN on train + extra")
ABOUT_OURS = ("ours: the last evaluation of the averaged weights; splits of our own, as many labelled images a class; "
              "mean and sample std over the seeds; a difference only where the protocol is the paper's, as far as it "
              "is known")
OPTIONAL = ("TorchSSL", "USB", "difference", "scale")             # columns that are left out if no row fills them
CSV_COLUMNS = ("table", "method", "data@labels", "bound", "paper", "paper_std", "torchssl", "usb", "ours", "ours_std",
               "seeds", "difference", "scale", "comparable", "notes")


def percent(value: float | None, std: float | None = None, sign: str = "") -> str:
    """Two decimals, with ± std if there is one; "" for None."""
    return "" if value is None else f"{value:{sign}.2f}" + (f" ± {std:.2f}" if std is not None else "")


def shown(table: Table, lines: Sequence[Line]) -> tuple[list[dict[str, str]], list[str]]:
    """The lines as text, column -> text for each, those without any number last; and the footnotes that they name."""
    notes: list[str] = []

    def marks(mine: Sequence[str]) -> str:
        notes.extend(note for note in mine if note not in notes)
        return "".join(f" [{notes.index(note) + 1}]" for note in mine)

    rows = []
    for line in sorted(lines, key=lambda one: not (one.values or one.cell.reruns) and one.cell.paper is None):
        cell = line.cell
        rows.append({"method": cell.row, "data@labels": cell.column,
                     "paper": f"{cell.bound} {percent(cell.paper, cell.std)}".strip() + marks(cell.notes),
                     "TorchSSL": percent(cell.reruns.get("TorchSSL")),
                     "USB": percent(cell.reruns.get("USB")) + marks(cell.usb_notes),
                     "ours": percent(line.mean, line.std), "seeds": str(len(line.values) or ""),
                     "difference": percent(line.difference, sign="+"), "scale": line.scale, "comparable": line.verdict})
    numbered = [f"[{k}] {note}" for k, note in enumerate(notes, 1)]
    return rows, [*numbered, *([ABOUT_RERUNS] if any(line.cell.reruns for line in lines) else []), ABOUT_OURS]


def filled(rows: Sequence[dict[str, str]]) -> list[tuple[str, ...]]:
    """The head and the rows of shown(), without the optional columns that no row fills."""
    head = [name for name in rows[0] if name not in OPTIONAL or any(row[name] for row in rows)]
    return [tuple(head), *(tuple(row[name] for name in head) for row in rows)]


def as_markdown(table: Table, lines: Sequence[Line]) -> str:
    """A table with straight columns, and the footnotes as a list."""
    rows, notes = shown(table, lines)
    head, *rows = filled(rows)
    widths = [max(len(row[k]) for row in (head, *rows)) for k in range(len(head))]

    def text(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").ljust(width) for cell, width in zip(cells, widths)) + " |"

    body = [text(head), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(text, rows)]
    return "\n".join([f"**{table.title}**, {table.unit}", "", *body, "", *(f"- {note}" for note in notes)])


def as_csv(table: Table, lines: Sequence[Line]) -> str:
    """A row for each line; numbers rounded to four places."""
    file = io.StringIO()
    writer = csv.DictWriter(file, CSV_COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for line in lines:
        row = line.as_dict()
        row |= {"table": table.name, "data@labels": row["column"], "torchssl": row["reruns"].get("TorchSSL"),
                "usb": row["reruns"].get("USB"), "seeds": len(row["seeds"]), "comparable": row["why"],
                "notes": "; ".join(row["notes"])}
        writer.writerow({name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()})
    return file.getvalue().rstrip("\n")


def as_json(table: Table, lines: Sequence[Line]) -> str:
    """The table as one object: table, title, claim, unit, and rows as Line.as_dict() has them."""
    return json.dumps({"table": table.name, "title": table.title, "claim": table.claim, "unit": table.unit,
                       "rows": [line.as_dict() for line in lines]})


def as_latex(table: Table, lines: Sequence[Line]) -> str:
    """A tabular; needs booktabs."""
    def safe(text: str) -> str:
        for sign in "%_&#":
            text = text.replace(sign, f"\\{sign}")
        return text.replace("±", "$\\pm$")

    rows, notes = shown(table, lines)
    head, *body = (" & ".join(map(safe, row)) + " \\\\" for row in filled(rows))
    columns = "ll" + "r" * (head.count("&") - 2) + "l"
    return "\n".join([f"% {table.title}, {table.unit}", f"\\begin{{tabular}}{{{columns}}}", "\\toprule", head,
                      "\\midrule", *body, "\\bottomrule", "\\end{tabular}", *(f"% {note}" for note in notes)])


FORMATS = {"md": as_markdown, "csv": as_csv, "json": as_json, "latex": as_latex}


def printed(name: str, form: str = "md", scales: Sequence[str] = tuple(SCALES), store: Path | None = None) -> str:
    """The table called `name` in one of FORMATS. InputError for a table, format or scale that does not exist."""
    choose("format", form, FORMATS)
    return FORMATS[form](table(name), beside(table(name), scales, store))


def row_title(line: Line) -> str:
    """The row's name, which says so where the column is a long tail."""
    return line.cell.row + (", long tail" if "-LT" in line.cell.column else "")


def dots(lines: Sequence[Line]) -> dict[str, list[float]]:
    """Row -> a fraction for each seed, for plots.spread. If there are several columns, each row names its own."""
    ours = [line for line in lines if line.values]
    several = len({line.cell.column.replace("-LT", "") for line in ours}) > 1
    return {textwrap.fill(row_title(line), 14) + (f"\n{line.cell.column}" if several else ""):
            [value / 100 for value in line.values.values()] for line in ours}


def ranking(lines: Sequence[Line]) -> str:
    """Our results in words: a paragraph for each column, the best first, with mean, std and number of seeds."""
    columns: dict[str, list[Line]] = {}
    for line in lines:
        if line.values:
            columns.setdefault(line.cell.column.replace("-LT", ""), []).append(line)
    found = []
    for column, mine in columns.items():
        found.append(f"{column}: " + ", ".join(
            f"{row_title(line)} {percent(line.mean, line.std)} (n = {len(line.values)})"
            for line in sorted(mine, key=lambda line: -line.mean)))
    return "\n\n".join(found) or (
        "We have no results for this table yet: its numbers are those of the papers. `sslkit reproduce tables` trains "
        "ours; at scale quick that takes about 10 minutes on two cores.")
