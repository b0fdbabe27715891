"""The commands that label: label."""
import inspect
import json

from sslkit.terminal import Parser, ProgressLine


def label(argv: list[str]) -> int:
    """sslkit label."""
    from sslkit import labelers

    parser = Parser(prog="sslkit label", description=inspect.getdoc(labelers.label).split("\n\n")[0])
    parser.add_argument("embeddings", metavar="EMBEDDINGS", help="a table of numbers, .npy")
    parser.add_argument("labels", metavar="LABELS", help="a .csv file with a column `label`")
    parser.add_parameters(labelers.label, "how", leave_out=("embeddings", "labels", "progress"))
    parser.add_argument("--json", action="store_true", help="print one line of JSON: k, curve, rounds, copied, growth "
                                                            "and more")
    values, line = parser.parse(argv), ProgressLine(0)
    try:
        how = (values.k, values.mode, values.metric, values.out)
        info = labelers.label(values.embeddings, values.labels, *how, line.loading)
    finally:
        line.end()
    if values.json:
        print(json.dumps(info))
        return 0
    for k, accuracy in info["curve"].items():
        print(f"k {k:3}: {accuracy:.1%} of the hidden labels found" + (" (chosen)" if k == info["k"] else ""))
    most = max(info["growth"], key=info["growth"].get)
    print(f"class {most} grew most, to {info['growth'][most]:.1f} times its share of the given labels" + (
        ": it may have flooded others, try a smaller k" if info["growth"][most] > 2 else ""))
    print(f"k {info['k']}, {info['rounds']:,} rounds, {info['copied']:,} labels copied where no row had a labelled "
          f"neighbour: {values.out}")
    return 0
