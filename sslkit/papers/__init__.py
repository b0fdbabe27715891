"""The papers' tables, and ours laid beside them: `sslkit table`.

A table is a list of Cells: what the paper reports, what others measured again, and the Job that we would run for it. beside() finds the
finished ones in a store. The csv files are the papers' numbers, in percent; none of them was measured by us.
"""
import csv
import io
import json
import statistics
import textwrap
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from sslkit.errors import InputError, choose
from sslkit.jobs import Job, finished
from sslkit.runs import Run
from sslkit.scales import SCALES, Scale, scale

DATASETS = {"CIFAR-10": "cifar10", "CIFAR-100": "cifar100", "SVHN": "svhn", "STL-10": "stl10", "Food-101": "food101", "digits": "digits"}
OURS = {"MixMatch": "mixmatch", "ReMixMatch": "remixmatch", "FixMatch(RA)": "fixmatch", "SimMatch": "simmatch"}
ABLATION = {"w/o p_hat": {"p_hat": False}, "w/o q_hat": {"q_hat": False}, "standard": {}}
DIGITS = "digits@20"                                     # a column of our own, which no paper has; it stands first
NOT_BUILT, NO_IMAGENET = "not built yet", "ImageNet is not among the data sets yet"


@dataclass(frozen=True)
class Cell:
    """One number of a table: a row and a column, as the paper names them. Numbers in percent, gains in percentage points."""
    row: str
    column: str                                          # data@labels
    paper: float | None = None
    std: float | None = None
    bound: str = ""                                      # "at most"
    reruns: dict[str, float] = field(default_factory=dict)
    method: str | None = None                            # what we run for it, as Job.method; None: nothing yet, `missing` says why
    arguments: dict = field(default_factory=dict)
    imbalance: float = 1.0
    published: dict | None = None                        # the paper's own settings, as far as they are known; None: too few of them
    unknown: str = ""                                    # what of them is not known
    missing: str = ""
    notes: tuple[str, ...] = ()

    def job(self, at: Scale, seed: int) -> Job | None:
        """The run for this cell at a scale; None where there is none."""
        name, _, labels = self.column.partition("@")
        data = DATASETS.get(name.removesuffix("-LT"))
        if self.method is None or data not in at.data:
            return None
        train = {"mu": 1} if data != "digits" and self.method.partition("+")[0] in ("mixmatch", "remixmatch") else {}
        if at is SCALES["paper"]:
            train |= self.papers_own
        return Job(self.method, data, int(labels), seed, at.steps, self.imbalance, self.arguments, train)

    @property
    def papers_own(self) -> dict:
        """Settings of the paper that are not our defaults."""
        own = {"network": "efficientnet-b0", "weights": "imagenet"} if self.method == "kd-fixmatch" else {}
        return own | {name: value for name, value in (self.published or {}).items() if name == "strong"}


@dataclass(frozen=True)
class Table:
    """A paper's table. value: from a run's result to a fraction."""
    name: str
    title: str
    claim: str                                           # what the paper says with it, in a sentence
    unit: str
    value: Callable[[dict], float]
    cells: tuple[Cell, ...]

    def jobs(self, at: Scale, seeds: int) -> list[Job]:
        """The runs that fill it at a scale with seeds 0, 1 ..."""
        return [job for seed in range(seeds) for cell in self.cells if (job := cell.job(at, seed))]


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
        if not self.values:
            return self.cell.missing
        if self.cell.paper is None:
            return "no such number in the paper" + ", code of different versions" * self.mixed
        if self.differs:
            return "no: " + "; ".join(self.differs)
        return "yes, as far as known" + f" (not: {self.cell.unknown})" * bool(self.cell.unknown)


def rows_of(name: str) -> list[dict[str, str]]:
    """The rows of one csv file."""
    return list(csv.DictReader((Path(__file__).parent / f"{name}.csv").read_text(encoding="utf-8").splitlines()))


def number(text: str) -> float | None:
    return float(text) if text else None


@cache
def reruns() -> dict[tuple[str, str], dict[str, float]]:
    """(row, column) -> code base -> what it measured."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows_of("reruns_torchssl"):
        for column in row:
            if column != "method":
                found.setdefault((row["method"], column), {})["TorchSSL"] = float(row[column])
    for row in rows_of("reruns_usb"):
        found.setdefault((row["method"], f"{row['dataset']}@{row['labels']}"), {})["USB"] = float(row["accuracy_mean"])
    return found


DOUBTS = {
    ("Pi-Model", "CIFAR-10@4000"): "58.99 as printed is probably a digit swap of 85.99: the reruns give 86.87 and 87.20",
    ("SimMatch", "CIFAR-10@40"): "the seeds published with ShrinkMatch, 95.34 95.16 92.63 93.76 95.10, have mean 94.40 and std 1.17; the "
                                 "table prints 1.37",
    "Mean Teacher": "USB's unsupervised loss of Mean Teacher is constantly zero",
    "UDA": "USB does not apply the temperature of UDA",
    "Dash": "USB takes Dash's first threshold from the test set",
    "MixMatch": "USB's MixMatch has beta .5, lambda_u 100, a ramp of .4 and one lambda a batch",
    "SimMatch": "USB's SimMatch scales its bank to unit norm over the batch"}
BEST = ("reruns (TorchSSL, USB): the best checkpoint on the test set, 3 seeds; USB has WRN-28-2 on CIFAR-100 too; both train SVHN on train "
        "+ extra")
OURSELVES = ("ours: the last evaluation of the averaged weights; splits of our own, as many labelled images a class; mean and sample std "
             "over the seeds; a difference only where the protocol is the paper's, as far as it is known")


def published(data: str, method: str) -> dict:
    """A common protocol's settings for one method (see Config): what is known of how the paper's numbers were made."""
    known = {"network": "wrn-28-8" if data == "cifar100" else "wrn-28-2", "steps": 2**20, "batch_size": 64, "mu": 7, "strong": "rac"}
    if method in ("mixmatch", "remixmatch"):
        known |= {"mu": 1}
    if method in ("mixmatch", "simmatch"):
        known.pop("strong")                              # MixMatch has none; SimMatch's variant is not known
    return known


def simmatch_1() -> tuple[Cell, ...]:
    cells = []
    for row in rows_of("simmatch_table1"):
        name, column = row["method"], f"{row['dataset']}@{row['labels']}"
        other = reruns().get((name.removesuffix("(RA)"), column), {})
        notes = [DOUBTS[key] for key in ((name, column), name) if key in DOUBTS and (key != name or "USB" in other)]
        method = OURS.get(name)
        cells.append(Cell(name, column, number(row["mean"]), number(row["std"]), reruns=other, method=method,
                          published=published(DATASETS[row["dataset"]], method or ""), notes=tuple(notes), unknown="selection rule"
                          + ", strong views" * (method == "simmatch"),
                          missing="" if method else NOT_BUILT))
    return (*(Cell(name, DIGITS, method=method) for name, method in OURS.items()), *cells)


def simmatch_2() -> tuple[Cell, ...]:
    cells = []
    for row in rows_of("simmatch_table2"):
        name = row["method"] + ("" if row["pretraining"] == "None" else f" after {row['pretraining']}")
        notes = ("the rows VAT+EntMin and UDA carry the same numbers",) if name in ("VAT+EntMin", "UDA") else ()
        if row["pretraining"] in ("PCL", "SimCLR", "SimCLR V2", "BYOL", "SwAV", "WCL"):
            notes = ("the pairing of the pre-training's names with their rows follows the order of print",)
        built = name in ("FixMatch", "SimMatch")
        for share in ("1pct", "10pct"):
            for top in ("top1", "top5"):
                if row[f"{top}_{share}"]:
                    cells.append(Cell(name, f"ImageNet {share.removesuffix('pct')}%, {top}", float(row[f"{top}_{share}"]), notes=notes,
                                      missing=NO_IMAGENET if built else NOT_BUILT))
    return tuple(cells)


def simmatch_3() -> tuple[Cell, ...]:
    return tuple(Cell(row["method"], column, float(value), missing="linear evaluation is not built yet")
                 for row in rows_of("simmatch_table3") for column, value in row.items() if column not in ("method", "epochs"))


def simmatch_5() -> tuple[Cell, ...]:
    printed = tuple(Cell(row["variant"], "ImageNet 1%", float(row["top1"]), missing=NO_IMAGENET) for row in rows_of("simmatch_table5"))
    return (*(Cell(name, DIGITS, method="simmatch", arguments=arguments) for name, arguments in ABLATION.items()), *printed)


def kd_fixmatch() -> tuple[Cell, ...]:
    cells = (Cell("KD-FixMatch", f"{row['dataset']}@{row['labels']}", float(row["gain_over_fixmatch_points"]), method="kd-fixmatch",
                  unknown="steps, batch, views") for row in rows_of("kd_fixmatch_gains"))
    return (Cell("KD-FixMatch", DIGITS, method="kd-fixmatch"), *cells)


def hdl() -> tuple[Cell, ...]:
    cells = []
    for row in rows_of("hdl_gains"):
        if row["base_method"]:
            method = OURS[row["base_method"]]
            cells.append(Cell(f"HDL on {row['base_method']}", f"{row['dataset']}@{row['labels']}", float(row["gain_points"]),
                              method=f"{method}+hdl", unknown="how it goes on with the labels"))
        else:
            cells.append(Cell("HDL, best base", f"{row['dataset']}, factor {row['imbalance_factor']}", float(row["gain_points"]),
                              bound=row["bound"], missing="the paper's numbers of images are not known to us"))
    ours = [Cell(f"HDL on {name}", DIGITS, method=f"{method}+hdl") for name, method in OURS.items() if name != "SimMatch"]
    return (*ours, Cell("HDL on FixMatch(RA)", "digits-LT@20", method="fixmatch+hdl", imbalance=20), *cells)


def accuracy(result: dict) -> float:
    return result["test_acc"]


def gain_over(stage: str) -> Callable[[dict], float]:
    return lambda result: result["test_acc"] - result[stage]["test_acc"]


@cache
def tables() -> dict[str, Table]:
    """Every table, by name."""
    simmatch, accuracies = "SimMatch (Zheng et al., CVPR 2022)", "test accuracy, %"
    every = (
        Table("simmatch-1", f"{simmatch}, Table 1: CIFAR-10 and CIFAR-100", "With few labels SimMatch is more accurate than every method "
              "before it, most of all with the fewest.", accuracies, accuracy, simmatch_1()),
        Table("simmatch-2", f"{simmatch}, Table 2: ImageNet", "The same on ImageNet, with fewer epochs than pre-training takes.",
              accuracies, accuracy, simmatch_2()),
        Table("simmatch-3", f"{simmatch}, Table 3: transfer", "Its features are as good for other data sets as self-supervised ones.",
              "linear evaluation, %; Pets and Flowers the mean of the classes", accuracy, simmatch_3()),
        Table("simmatch-5", f"{simmatch}, Table 5: ablation", "Both corrections matter, q_hat more than p_hat.", accuracies, accuracy,
              simmatch_5()),
        Table("kd-fixmatch", "KD-FixMatch (Wang et al., arXiv 2309.05826): gain over FixMatch", "An inner network that begins with the "
              "trusted labels of an outer one is more accurate.", "points over its outer FixMatch", gain_over("outer"), kd_fixmatch()),
        Table("hdl", "HDL (Ma et al., arXiv 2404.17173): gain over the base method", "Labels from embeddings improve every base method.",
              "points over the base method", gain_over("base"), hdl()))
    return {table.name: table for table in every}


def table(name: str) -> Table:
    """The table called `name`; InputError with the nearest name where there is none."""
    return tables()[choose("table", name, tables())]


def differences(cell: Cell, run: Run) -> tuple[str, ...]:
    """In what the run's protocol differs from what is known of the paper's."""
    used = run.config["train"]
    if cell.published is None:
        return (f"the paper's {cell.unknown} are not known",) if "," in cell.unknown else (f"{cell.unknown} in the paper is not known",)
    return tuple(f"{name.replace('_', ' ')} {used[name]:,}, paper {value:,}" if isinstance(value, int) else
                 f"{name.replace('_', ' ')} {used[name]}, paper {value}"
                 for name, value in cell.published.items() if used[name] != value)


def beside(table: Table, scales: Sequence[str] = tuple(SCALES), store: Path | None = None, seeds: int | None = None) -> list[Line]:
    """The table's cells with what the store holds at each of the scales, of all seeds or of 0 to `seeds` - 1: a Line for each scale that
    has any, one without values where none has."""
    runs, lines = finished(store), []
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


HEAD = ("method", "data@labels", "paper", "TorchSSL", "USB", "ours", "seeds", "difference", "scale", "comparable")


def shown(table: Table, lines: Sequence[Line]) -> tuple[list[tuple[str, ...]], list[str]]:
    """Rows of text under HEAD, and the footnotes that they point at."""
    notes: list[str] = []

    def text(value: float | None, std: float | None = None, sign: str = "") -> str:
        return "" if value is None else f"{value:{sign}.2f}" + (f" ± {std:.2f}" if std is not None else "")

    def marks(cell: Cell, of_usb: bool) -> str:
        mine = [note for note in cell.notes if note.startswith("USB") == of_usb]
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
        writer.writerow((table.name, c.row, c.column, c.bound, *numbers, line.scale, line.verdict, "; ".join(c.notes)))
    return file.getvalue().rstrip("\n")


def as_json(table: Table, lines: Sequence[Line]) -> str:
    rows = [{"method": line.cell.row, "column": line.cell.column, "bound": line.cell.bound or None, "paper": line.cell.paper,
             "paper_std": line.cell.std, "reruns": line.cell.reruns, "ours": line.mean, "ours_std": line.std,
             "seeds": {str(seed): value for seed, value in line.values.items()}, "difference": line.difference, "scale": line.scale or None,
             "comparable": line.comparable, "why": line.verdict or None, "notes": list(line.cell.notes)} for line in lines]
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


def over_control() -> Table:
    """The table of HDL with the gain over the control in place of that over the base."""
    return replace(table("hdl"), value=gain_over("control"), unit="points over the control")


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
        each = [f"{named(line)} {line.mean:.2f}" + (f" ± {line.std:.2f}" if line.std is not None else "") + f" (n = {len(line.values)})"
                for line in mine]
        said.append(f"{column}: " + ", ".join(each))
    return "\n".join(said) or "nothing of ours in the store yet: sslkit reproduce tables"
