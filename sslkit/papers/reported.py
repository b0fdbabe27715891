"""What the papers report, and which of our runs belongs to each number. The csv files hold the papers' numbers, in
percent; we measured none of them."""
import csv
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from sslkit.data import SOURCES, augment
from sslkit.errors import choose
from sslkit.papers.scales import SCALES, Scale
from sslkit.training import Config, DataSpec, Propagate, RunSpec

DATASETS = {source.title: name for name, source in SOURCES.items()}
OURS = {"MixMatch": "mixmatch", "ReMixMatch": "remixmatch", "FixMatch(RA)": "fixmatch", "SimMatch": "simmatch"}
ABLATION = {"w/o p_hat": {"p_hat": False}, "w/o q_hat": {"q_hat": False}, "standard": {}}
DIGITS = "digits@20"                                     # our own column, which no paper has; it stands first
NOT_BUILT, NO_IMAGENET = "not built yet", "ImageNet is not among the data sets yet"


@dataclass(frozen=True)
class Cell:
    """One number of a table: a row and a column, as the paper names them. Numbers in percent, gains in percentage
    points."""
    row: str
    column: str                                          # data@labels
    paper: float | None = None
    std: float | None = None
    bound: str = ""                                      # "at most"
    reruns: dict[str, float] = field(default_factory=dict)
    method: str | None = None                            # what we run for it; None: nothing yet, `missing` says why
    hdl: bool = False                                    # HDL on that method?
    arguments: dict = field(default_factory=dict)
    imbalance: float = 1.0
    published: dict | None = None                        # the paper's settings, see published(); None: too few are known
    unknown: str = ""                                    # which of them are not known
    missing: str = ""
    notes: tuple[str, ...] = ()                          # doubts about the paper's number
    usb_notes: tuple[str, ...] = ()                      # and about USB's

    def spec(self, at: Scale, seed: int) -> RunSpec | None:
        """The run for this cell at a scale; None where there is none. At the scale `paper` it has the paper's
        settings."""
        title, _, labels = self.column.partition("@")
        data = DATASETS.get(title.removesuffix("-LT"))
        if self.method is None or data not in at.data:
            return None
        train, arguments = {"seed": seed, "steps": at.steps}, self.arguments
        if data != "digits" and self.method in ("mixmatch", "remixmatch"):
            train["mu"] = 1
        if at is SCALES["paper"]:
            known = self.published or {"train": {}, "arguments": {}}
            arguments = known["arguments"] | arguments
            if known["train"].get("strong") in augment.VARIANTS:
                train["strong"] = known["train"]["strong"]
            if self.method == "kd-fixmatch":
                train |= {"network": "efficientnet-b0", "weights": "imagenet"}
        return RunSpec(self.method, DataSpec(data, int(labels), self.imbalance), Config(**train), arguments,
                       Propagate() if self.hdl else None)


@dataclass(frozen=True)
class Table:
    """A paper's table. value: from a run's result to a fraction."""
    name: str
    title: str
    claim: str                                           # what the paper says with it, in a sentence
    unit: str
    value: Callable[[dict], float]
    cells: tuple[Cell, ...]

    def specs(self, at: Scale, seeds: int) -> list[RunSpec]:
        """The runs that fill it at a scale with seeds 0, 1 ..."""
        return [spec for seed in range(seeds) for cell in self.cells if (spec := cell.spec(at, seed))]


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


DOUBTS = {                                               # (row, column) -> a doubt about the paper's number
    ("Pi-Model", "CIFAR-10@4000"): "58.99 as printed is probably a digit swap of 85.99: the reruns give 86.87 and "
                                   "87.20",
    ("SimMatch", "CIFAR-10@40"): "the seeds published with ShrinkMatch, 95.34 95.16 92.63 93.76 95.10, have mean 94.40 "
                                 "and std 1.17; the table prints 1.37"}
USB_DOUBTS = {                                           # row -> a doubt about USB's numbers
    "Mean Teacher": "USB's unsupervised loss of Mean Teacher is constantly zero",
    "UDA": "USB does not apply the temperature of UDA",
    "Dash": "USB takes Dash's first threshold from the test set",
    "MixMatch": "USB's MixMatch has beta .5, lambda_u 100, a ramp of .4 and one lambda a batch",
    "SimMatch": "USB's SimMatch scales its bank to unit norm over the batch"}


def published(data: str, method: str) -> dict[str, dict]:
    """Table 1's settings for one method, as far as they are known: `train` (see Config) and the method's
    `arguments`."""
    train = {"network": SOURCES[data].network, "steps": 2**20, "batch_size": 64, "mu": 7, "strong": "rac"}
    arguments = {"passes": "joint"} if method in ("fixmatch", "simmatch") else {}
    if method in ("mixmatch", "remixmatch"):
        train["mu"] = 1
    if method == "mixmatch":
        arguments["lambda_u"] = 150.0 if data == "cifar100" else 75.0
    if method == "remixmatch":
        train["strong"], arguments["num_strong"] = "CTAugment", 8
    if method in ("mixmatch", "simmatch"):
        del train["strong"]                              # MixMatch has none; SimMatch's variant is not known
    return {"train": train, "arguments": arguments}


def simmatch_1() -> tuple[Cell, ...]:
    cells = []
    for row in rows_of("simmatch_table1"):
        name, column = row["method"], f"{row['dataset']}@{row['labels']}"
        other, method = reruns().get((name.removesuffix("(RA)"), column), {}), OURS.get(name)
        usb = (USB_DOUBTS[name],) if "USB" in other and name in USB_DOUBTS else ()
        notes = (DOUBTS[name, column],) if (name, column) in DOUBTS else ()
        cells.append(Cell(name, column, number(row["mean"]), number(row["std"]), reruns=other, method=method,
                          published=published(DATASETS[row["dataset"]], method or ""), notes=notes, usb_notes=usb,
                          unknown="selection rule" + ", strong views" * (method == "simmatch"),
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
                              method=method, hdl=True, unknown="how it continues with the labels"))
        else:
            cells.append(Cell("HDL, best base", f"{row['dataset']}, factor "
                                                f"{row['imbalance_factor']}", float(row["gain_points"]),
                              bound=row["bound"], missing="the paper's numbers of images are not known to us"))
    ours = [Cell("HDL on "
                 f"{name}", DIGITS, method=method, hdl=True) for name, method in OURS.items() if name != "SimMatch"]
    return (*ours, Cell("HDL on FixMatch(RA)", "digits-LT@20", method="fixmatch", hdl=True, imbalance=20.0), *cells)


def accuracy(result: dict) -> float:
    return result["test_acc"]


def gain_over(stage: str) -> Callable[[dict], float]:
    return lambda result: result["test_acc"] - result[stage]["test_acc"]


@cache
def tables() -> dict[str, Table]:
    """Every table, by name."""
    simmatch, accuracies = "SimMatch (Zheng et al., CVPR 2022)", "test accuracy, %"
    every = (
        Table("simmatch-1", f"{simmatch}, Table 1: CIFAR-10 and CIFAR-100", "With few labels SimMatch is more accurate "
              "than every method before it, most of all with the fewest.", accuracies, accuracy, simmatch_1()),
        Table("simmatch-2", f"{simmatch}, Table 2: ImageNet", "The same on ImageNet, with fewer epochs than "
                                                              "pre-training takes.",
              accuracies, accuracy, simmatch_2()),
        Table("simmatch-3", f"{simmatch}, Table 3: transfer", "Its features are as good for other data sets as "
                                                              "self-supervised ones.",
              "linear evaluation, %; Pets and Flowers the mean of the classes", accuracy, simmatch_3()),
        Table("simmatch-5", f"{simmatch}, Table 5: ablation", "Both corrections matter, q_hat more than "
                                                              "p_hat.", accuracies, accuracy,
              simmatch_5()),
        Table("kd-fixmatch", "KD-FixMatch (Wang et al., arXiv 2309.05826): gain over FixMatch", "An inner network that "
              "begins with the trusted labels of an outer one is more accurate.", "points over its outer "
                                                                                  "FixMatch", gain_over("outer"), kd_fixmatch()),
        Table("hdl", "HDL (Ma et al., arXiv 2404.17173): gain over the base method", "Labels from embeddings improve "
                                                                                     "every base method.",
              "points over the base method", gain_over("base"), hdl()))
    return {table.name: table for table in every}


def table(name: str) -> Table:
    """The table called `name`; InputError with the nearest name where there is none."""
    return tables()[choose("table", name, tables())]


def over_control() -> Table:
    """The table of HDL with the gain over the control in place of that over the base."""
    return replace(table("hdl"), value=gain_over("control"), unit="points over the control")
