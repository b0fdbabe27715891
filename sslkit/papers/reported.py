"""What the papers report, and which of our runs belongs to each number. The csv files hold the papers' numbers, in
percent, and doubts.csv what is doubtful about them. We measured none of them."""
import csv
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from sslkit.data import SOURCES, augment
from sslkit.errors import choose
from sslkit.methods import method_class
from sslkit.papers.imagenet import METHODS as BY_COMMAND
from sslkit.papers.imagenet import published as on_imagenet
from sslkit.papers.scales import SCALES, Scale
from sslkit.training import Config, DataSpec, Propagate, RunSpec

DATASETS = {source.title: name for name, source in SOURCES.items()}
METHODS = {"Pi-Model": "pimodel", "Pseudo-Labeling": "pseudolabel", "Mean Teacher": "meanteacher", "UDA": "uda",
           "MixMatch": "mixmatch", "ReMixMatch": "remixmatch", "FixMatch(RA)": "fixmatch", "Dash": "dash",
           "CoMatch": "comatch", "SimMatch": "simmatch"}
HDL_BASES = ("MixMatch", "ReMixMatch", "FixMatch(RA)")
ONE_EACH = ("pimodel", "pseudolabel", "meanteacher", "mixmatch", "remixmatch")     # of these mu is 1 in Table 1
ABLATION = {"w/o p_hat": {"p_hat": False}, "w/o q_hat": {"q_hat": False}, "standard": {}}
DIGITS = "digits@20"                                     # our own column, which no paper has; it comes first
TABLE_2 = ("Pseudo-label", "VAT+EntMin", "UDA", "FixMatch", "CoMatch", "SimMatch")
NOT_BUILT, NO_IMAGENET = "not built yet", "no command for it on ImageNet yet"
COMMAND = "your images of ImageNet are needed: sslkit.papers.imagenet() gives the command"


@dataclass(frozen=True)
class Cell:
    """One number of a table. Row and column as the paper names them; numbers in percent, gains in points."""
    row: str
    column: str                                          # data@labels
    paper: float | None = None
    std: float | None = None
    bound: str = ""                                      # "at most"
    reruns: dict[str, float] = field(default_factory=dict)       # code base -> its number
    method: str | None = None                            # what we run for it; None: nothing yet, see `missing`
    hdl: bool = False                                    # do we run HDL on that method?
    arguments: dict = field(default_factory=dict)        # of the method
    imbalance: float = 1.0
    published: dict | None = None                        # the paper's settings, see published(); None: too few known
    unknown: str = ""                                    # which of the paper's settings are not known
    missing: str = ""                                    # why we run nothing for it
    imagenet: int = 0                                    # percent of ImageNet's labels, of a row of imagenet.METHODS
    figure: str = "test_acc"                             # its name in a run's result
    notes: tuple[str, ...] = ()                          # doubts about the paper's number
    usb_notes: tuple[str, ...] = ()                      # doubts about USB's number

    def spec(self, at: Scale, seed: int) -> RunSpec | None:
        """Our run for this cell at a scale, None if there is none. At the scale `paper` it has the paper's settings."""
        title, _, labels = self.column.partition("@")
        data = DATASETS.get(title.removesuffix("-LT"))
        if self.method is None or data not in at.data:
            return None
        if at.encoder and method_class(self.method.replace("-", "")).pixels:
            return None
        train, arguments = {"seed": seed, "steps": at.steps}, self.arguments
        if data != "digits" and not at.encoder and self.method in ONE_EACH:
            train["mu"] = 1
        kept = {}
        if at is SCALES["paper"]:
            known = self.published or {"train": {}, "arguments": {}}
            arguments, kept = known["arguments"] | arguments, known.get("data", {})
            if known["train"].get("strong") in augment.VARIANTS:
                train["strong"] = known["train"]["strong"]
            if self.method == "kd-fixmatch":
                train |= {"network": "efficientnet-b0", "weights": "imagenet"}
        spec = DataSpec(data, int(labels), self.imbalance, encoder=at.encoder, size=at.size, **kept)
        return RunSpec(self.method, spec, Config(**train), arguments, Propagate() if self.hdl else None)


@dataclass(frozen=True)
class Table:
    """A paper's table."""
    name: str
    title: str
    claim: str                                           # what the paper says with it, in a sentence
    unit: str
    over: str                                            # the run's stage over which it gives the gain; "": none
    cells: list[Cell]

    def value(self, result: dict, figure: str = "test_acc") -> float:
        """The table's figure in a run's result: test accuracy, or the gain in it, as a fraction."""
        return result[figure] - (result[self.over][figure] if self.over else 0.0)

    def specs(self, at: Scale, seeds: int) -> list[RunSpec]:
        """The runs that fill the table at a scale, with seeds from 0 to `seeds` - 1."""
        return [spec for seed in range(seeds) for cell in self.cells if (spec := cell.spec(at, seed))]


def rows_of(name: str) -> list[dict[str, str]]:
    """The rows of one csv file."""
    return list(csv.DictReader((Path(__file__).parent / f"{name}.csv").read_text(encoding="utf-8").splitlines()))


@cache
def reruns() -> dict[tuple[str, str], dict[str, float]]:
    """(row, column) -> code base -> what it measured."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows_of("reruns_torchssl"):
        method = row.pop("method")
        for column, accuracy in row.items():
            found.setdefault((method, column), {})["TorchSSL"] = float(accuracy)
    for row in rows_of("reruns_usb"):
        found.setdefault((row["method"], f"{row['dataset']}@{row['labels']}"), {})["USB"] = float(row["accuracy_mean"])
    return found


def published(data: str, method: str) -> dict[str, dict]:
    """Table 1's settings for one method, as far as known: `train` (fields of Config), the method's `arguments`, and for
    CoMatch `data`."""
    train = {"network": SOURCES[data].network, "steps": 2**20, "batch_size": 64, "mu": 1 if method in ONE_EACH else 7}
    strong = {"fixmatch": "rac", "remixmatch": "CTAugment", "comatch": "fixed"}     # that of others is not known
    joint = {"passes": "joint"}
    arguments = {"fixmatch": joint, "simmatch": joint, "comatch": joint,
                 "dash": joint | {"rho0": "unlabeled"}, "uda": joint | {"tau": 0.95, "T": 1.0},
                 "remixmatch": {"num_strong": 8}, "mixmatch": {"lambda_u": 150.0 if data == "cifar100" else 75.0}}
    return {"train": train | ({"strong": strong[method]} if method in strong else {}),
            "arguments": arguments.get(method, {}), "data": {"include_labeled": False} if method == "comatch" else {}}


def simmatch_1() -> list[Cell]:
    doubts = {(row["method"], row["number"]): (row["doubt"],) for row in rows_of("doubts")}
    cells = [Cell(name, DIGITS, method=method) for name, method in METHODS.items()]
    for row in rows_of("simmatch_table1"):
        name, column = row["method"], f"{row['dataset']}@{row['labels']}"
        method, others = METHODS.get(name), reruns().get((name.removesuffix("(RA)"), column), {})
        cells.append(Cell(name, column, float(row["mean"]), float(row["std"]), reruns=others, method=method,
                          published=method and published(DATASETS[row["dataset"]], method),
                          unknown="selection rule" + ", strong views" * (method in ("simmatch", "uda", "dash")),
                          missing="" if method else NOT_BUILT, notes=doubts.get((name, column), ()),
                          usb_notes=doubts.get((name, "USB"), ()) if "USB" in others else ()))
    return cells


def simmatch_2() -> list[Cell]:
    cells = [Cell("VAT+EntMin", DIGITS, method="vat")]
    for row in rows_of("simmatch_table2"):
        name, before, notes = row["method"], row["pretraining"], ()
        if before in ("PCL", "SimCLR", "SimCLR V2", "BYOL", "SwAV", "WCL"):
            notes = ("the pairing of the pre-training's names with their rows follows the order of print",)
        elif name in ("VAT+EntMin", "UDA"):
            notes = ("the rows VAT+EntMin and UDA carry the same numbers",)
        title = name if before == "None" else f"{name} after {before}"
        ours = name in BY_COMMAND
        missing = COMMAND if ours else NO_IMAGENET if title in TABLE_2 else NOT_BUILT
        cells += [Cell(title, f"ImageNet {share}%, {top}", float(accuracy), missing=missing, notes=notes,
                       imagenet=share if ours else 0, figure=figure,
                       published=on_imagenet(name, share) if ours else None)
                  for share in (1, 10) for top, figure in (("top1", "test_acc"), ("top5", "test_acc_top5"))
                  if (accuracy := row[f"{top}_{share}pct"])]
    return cells


def simmatch_3() -> list[Cell]:
    missing = "its weights are needed: sslkit probe --weights FILE"
    trained = "a run on ImageNet is needed: sslkit probe --encoder torchvision:resnet50 --weights RUN/checkpoint.pt"
    return [Cell(row["method"], column, float(row[column]), missing=trained if "SimMatch" in row["method"] else missing)
            for row in rows_of("simmatch_table3") for column in row if column not in ("method", "epochs")]


def simmatch_5() -> list[Cell]:
    ours = [Cell(name, column, method="simmatch", arguments=arguments) for column in (DIGITS, "CIFAR-10@40")
            for name, arguments in ABLATION.items()]
    return ours + [Cell(row["variant"], "ImageNet 1%", float(row["top1"]), missing=NO_IMAGENET)
                   for row in rows_of("simmatch_table5")]


def kd_fixmatch() -> list[Cell]:
    ours = Cell("KD-FixMatch", DIGITS, method="kd-fixmatch")
    return [ours, *(replace(ours, column=f"{row['dataset']}@{row['labels']}", unknown="steps, batch, views",
                            paper=float(row["gain_over_fixmatch_points"])) for row in rows_of("kd_fixmatch_gains"))]


def hdl() -> list[Cell]:
    cells = [Cell(f"HDL on {name}", DIGITS, method=METHODS[name], hdl=True) for name in HDL_BASES]
    cells.append(Cell("HDL on FixMatch(RA)", "digits-LT@20", method="fixmatch", hdl=True, imbalance=20.0))
    for row in rows_of("hdl_gains"):
        data, base, gain = row["dataset"], row["base_method"], float(row["gain_points"])
        if base:
            cells.append(Cell(f"HDL on {base}", f"{data}@{row['labels']}", gain, method=METHODS[base], hdl=True,
                              unknown="how it continues with the labels"))
        else:
            cells.append(Cell("HDL, best base", f"{data}, factor {row['imbalance_factor']}", gain, bound=row["bound"],
                              missing="the paper's numbers of images are not known to us"))
    return cells


@cache
def tables() -> dict[str, Table]:
    """Every table, by name."""
    cells = {"simmatch-1": simmatch_1, "simmatch-2": simmatch_2, "simmatch-3": simmatch_3, "simmatch-5": simmatch_5,
             "kd-fixmatch": kd_fixmatch, "hdl": hdl}
    return {row["name"]: Table(**row, cells=cells[row["name"]]()) for row in rows_of("tables")}


def table(name: str) -> Table:
    """The table called `name`. InputError with the nearest name if there is none."""
    return tables()[choose("table", name, tables())]


def over_control() -> Table:
    """The table of HDL with the gain over the control in place of that over the base."""
    return replace(table("hdl"), over="control", unit="points over the control")
