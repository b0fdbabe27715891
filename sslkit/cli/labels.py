"""The commands for pictures of your own: embed, label, probe."""
import argparse
import inspect
import json
import os
import sys
from collections.abc import Callable

from sslkit.errors import require
from sslkit.terminal import Parser, ProgressLine, aligned, chosen


def called(function: Callable, values: argparse.Namespace) -> dict:
    """What `function` returns for these flags, with a line of progress."""
    line = ProgressLine(0)
    values.progress = line.loading
    try:
        return function(**chosen(function, values))
    finally:
        line.end()


def embed(argv: list[str]) -> int:
    """sslkit embed."""
    from sslkit import training

    parser = Parser(prog="sslkit embed", description=inspect.getdoc(training.embed).split("\n\n")[0])
    parser.add_argument("folder", metavar="FOLDER", help="pictures, at any depth")
    parser.add_parameters(training.embed, "how", leave_out=("folder", "progress"))
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    values = parser.parse(argv)
    info = called(training.embed, values)
    for name, why in (("skipped", "that are no images"), ("ignored", "of other kinds")):
        if info[name]:
            print(f"note: left out {info[name]} files {why}", file=sys.stderr)
    print(json.dumps(info) if values.json else training.embedded_in_words(info))
    return 0


def probe(argv: list[str]) -> int:
    """sslkit probe."""
    from sslkit import training

    parser = Parser(prog="sslkit probe", description=inspect.getdoc(training.probe).split("\n\n")[0])
    parser.add_parameters(training.probe, "how", leave_out=("progress",))
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    values = parser.parse(argv)
    found = called(training.probe, values)
    print(json.dumps(found) if values.json else f"{found['encoder']} on {found['data']}: test accuracy "
          f"{found['test_acc']:.1%}, the mean of the classes {found['test_acc_mean_class']:.1%} (C {found['C']:g} by "
          f"{found['validation_acc']:.1%} of the validation images)")
    return 0


def label(argv: list[str]) -> int:
    """sslkit label."""
    from sslkit import labelers
    from sslkit.training import head_of

    parser = Parser(prog="sslkit label", description=inspect.getdoc(labelers.label).split("\n\n")[0])
    parser.add_argument("embeddings", metavar="EMBEDDINGS", help="a table of numbers, .npy, or a folder")
    parser.add_argument("labels", metavar="LABELS", help="a .csv file with a column `label`")
    parser.add_parameters(labelers.label, "how", leave_out=("embeddings", "labels", "progress", "extra"))
    parser.add_argument("--json", action="store_true", help="print one line of JSON: labeler, choice, why, growth and "
                                                            "more")
    values, line = parser.parse(argv), ProgressLine(0)
    try:
        how = (values.labeler, values.k, values.mode, values.metric, values.out)
        require(os.path.exists(values.embeddings), f"there is no file {values.embeddings}")
        more = head_of(values.embeddings)
        require(values.labeler != "head" or bool(more), f"{values.embeddings} has no features of views, which head "
                "needs: sslkit embed FOLDER --views 6 writes some")
        info = labelers.label(values.embeddings, values.labels, *how, line.loading, more)
    finally:
        line.end()
    if values.json:
        print(json.dumps(info))
        return 0
    if info["choice"]:
        rows = [(row["labeler"], *(f"{row[one]:.1%} ± {row[other]:.1%}" for one, other in (
            ("found", "error"), ("behind", "behind_error")))) for row in info["choice"]]
        print("\n".join(aligned([("labeler", "hidden labels found", "behind the best"), *rows], left=(0,))))
    if info["why"]:
        print(info["why"])
    for k, accuracy in info.get("curve", {}).items():
        print(f"k {k:3}: {accuracy:.1%} of the hidden labels found" + (" (chosen)" if k == info["k"] else ""))
    most = max(info["growth"], key=info["growth"].get)
    print(f"class {most} grew most, to {info['growth'][most]:.1f} times its share of the given labels" + (
        ": it may have flooded others, look at some of its rows" + ", try a smaller k" * ("k" in info)
        if info["growth"][most] > 2 else ""))
    if info["labeler"] == "hdl":
        print(f"k {info['k']}, {info['rounds']:,} rounds, {info['copied']:,} labels copied where no row had a labelled "
              "neighbour")
    print(f"labels by {info['labeler']}: {values.out}")
    return 0
