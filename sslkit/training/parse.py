"""From the words after `sslkit train` to a RunSpec; RunSpec.argv() is the way back."""
import argparse
import inspect
import sys

from sslkit import methods
from sslkit.errors import choose, require
from sslkit.terminal import Parser, chosen
from sslkit.training.config import Config, Machine
from sslkit.training.identity import run_path
from sslkit.training.rules import Propagate, Select
from sslkit.training.run import Run
from sslkit.training.spec import DataSpec, RunSpec

RECIPE = """An outer FixMatch labels the images, a clustering confirms some of its labels, a fresh inner network learns
from them and from its own (KD-FixMatch, arXiv 2309.05826). The run's folder holds two such runs, outer/ and inner/,
and between them trusted.pt, the trusted labels."""
JSON = """print one line of JSON last: method, data, labels, seed, steps, test_acc, test_acc_median20, test_acc_class,
pseudo_label_acc, mask_rate (fractions), seconds, run; with more than ten classes test_acc_top5; with a long tail
test_acc_head, test_acc_middle, test_acc_tail; """
HDL = """then label all images from the network's embeddings and continue with those labels for a third of the steps,
at 0.3 of the learning rate; and beside it with the network's own labels, the control, which HDL has to beat. The run's
folder holds three runs, base/, hdl/ and control/ (default: no)"""


def method_names() -> list[str]:
    """What `sslkit train` can train."""
    return [*(name for name, kind in methods.BY_NAME.items() if kind.standalone), "kd-fixmatch"]


def train_parser(method: str) -> Parser:
    """The parser of `sslkit train METHOD`. Raises InputError for an unknown one."""
    staged = choose("method", method, method_names()) == "kd-fixmatch"
    kind = methods.KDFixMatch if staged else methods.method_class(method)
    parser = Parser(prog=f"sslkit train {method}", description=RECIPE if staged else inspect.getdoc(kind))
    group = parser.add_argument_group("the run")
    group.add_argument("--out", metavar="DIR", help="its folder (default: a name of its own under $SSLKIT_RUNS or "
                                                    "runs/)")
    group.add_argument("--resume", action="store_true", help="continue the stopped run in that folder")
    group.add_argument("--json", action="store_true", help=JSON + ("trusted, outer" if staged else "with --hdl also "
                                                                   "labels_found, base, control"))
    group.add_argument("--job", action="store_true", help="as batches call it: begin the run or continue it; print its "
                       "folder first, as JSON; exit code 75 if another process does it or has done it")
    group.add_argument("--processes", type=int, metavar="N", default=1, help="processes of this machine that share "
                       "each batch, each with a GPU of its own, or with its part of the cores; torchrun starts them on "
                       "several machines. BatchNorm sees the rows of its own process, as in the papers' code (default: "
                       "1)")
    parser.add_parameters(DataSpec, "data")
    if staged:
        parser.add_parameters(Select, "the outer network and its trusted labels")
    else:
        group = parser.add_argument_group("labels from embeddings")
        group.add_argument("--hdl", action="store_true", help=HDL)
        parser.add_parameters(Propagate, group.title, prefix="hdl_")
    for part, title in ((kind, "method"), (Config, "training"), (Machine, "machine")):
        parser.add_parameters(part, title)
    return parser


def parse(words: list[str]) -> tuple[RunSpec, Machine, argparse.Namespace]:
    """What METHOD and its flags ask for; and the values of --out, --resume, --json, --job. Raises InputError."""
    values = train_parser(words[0]).parse(words[1:])
    for name in ("out", "outer"):
        require(getattr(values, name, None) != "", f"--{name} is empty: give a folder, or leave the flag out")
    data, train, machine = (part(**chosen(part, values)) for part in (DataSpec, Config, Machine))
    if words[0] == "kd-fixmatch":
        kind, recipe = methods.KDFixMatch, Select(**chosen(Select, values))
    else:
        kind = methods.method_class(words[0])
        recipe = Propagate(**chosen(Propagate, values, "hdl_"))
        require(values.hdl or recipe == Propagate(), "--hdl-k, --hdl-mode and --hdl-metric belong to --hdl: add it")
        recipe = recipe if values.hdl else None
    return RunSpec(words[0], data, train, chosen(kind, values), recipe), machine, values


def begun(values: argparse.Namespace, new: dict) -> Run:
    """The Run of the record `new` in its folder. InputError for a folder that holds another run, and for a stopped run
    that is not resumed, unless --job is given."""
    run = Run(values.out or run_path(new))
    run.check(new)
    if values.job:
        return run
    require(not values.resume or run.config is not None,
            f"--resume: there is no run in {run.path}; `sslkit runs` lists those there are, --out chooses one")
    if run.result is not None:
        print(f"note: {run.path} is finished already, nothing to train", file=sys.stderr)
    else:
        require(values.resume or not any(run.path.rglob("checkpoint.pt")),
                f"{run.path} holds a run that was stopped; --resume continues it, another --out leaves it alone")
    return run
