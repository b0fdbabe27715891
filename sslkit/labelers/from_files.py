"""sslkit label: reads embeddings of any encoder and a few labels, and writes HDL's labels of all rows into a file."""
import csv
import io
import os
import re
import sys
from itertools import islice
from pathlib import Path
from typing import Annotated
from zipfile import BadZipFile

import numpy as np
import torch

from sslkit.errors import InputError, require
from sslkit.files import write_file
from sslkit.labelers.hdl import Mode, hdl
from sslkit.labelers.neighbors import Metric
from sslkit.labelers.quality import class_growth
from sslkit.records import Progress

COLUMNS = ("row", "label", "layer", "order", "votes", "similarity")
NO_LABEL, WHOLE = re.compile(r"(nan|-0*1(\.0*)?)?", re.I), re.compile(r"[+-]?[0-9]{1,18}(\.0*)?")


def require_file(path: str | Path) -> None:
    """Raise an InputError unless a regular file is there."""
    require(os.path.isfile(path), f"there is no file {path}" + (
        ": it is a folder, a pipe or a device; copy its content into a file" if os.path.exists(path) else ""))


def read_embeddings(path: str | Path) -> torch.Tensor:
    """The table (n, d) in an .npy file, float64 as it is, all else as float32. InputError for any other content."""
    require_file(path)
    try:
        table = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, OverflowError, MemoryError, BadZipFile) as error:
        raise InputError(f"{path} is no .npy file of numbers, or does not fit into memory") from error
    require(isinstance(table, np.ndarray), f"{path} holds several tables; numpy.save writes one")
    require(table.dtype.kind in "fiu", f"{path} holds {table.dtype}, not real numbers")
    require(table.ndim == 2, f"{path} has shape {table.shape}; a table is needed, a row for each image")
    return torch.from_numpy(np.ascontiguousarray(table, np.float64 if table.dtype == np.float64 else np.float32))


def read_labels(path: str | Path) -> tuple[torch.Tensor, list[str]]:
    """Column `label` of a CSV file as class numbers (n,), -1 for no label; and the names of the classes in their order.

    Empty, nan and -1 (also -1.0) mean no label. If all others are whole numbers, 01, 1 and 1.0 are one class, named 1;
    else each word is a class. Prints which numbers are missing. InputError for a file without exactly one such column.
    """
    require_file(path)
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = list(reader.fieldnames or ())
            require("label" in columns, f"{path} has no column `label` (its first line: {', '.join(columns)[:80]!r})")
            require(columns.count("label") == 1, f"{path} has several columns `label`; rename all but one of them")
            words = [(row["label"] or "").strip() for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read ({error})") from error
    given = {word for word in words if not NO_LABEL.fullmatch(word)}
    whole = all(map(WHOLE.fullmatch, given))
    name = {word: int(word.split(".")[0]) if whole else word for word in given}
    classes = {c: k for k, c in enumerate(sorted(set(name.values())))}
    numbers = range(max(classes)) if whole and classes and min(classes) >= 0 else ()
    if gaps := [str(c) for c in islice((c for c in numbers if c not in classes), 9)]:
        gaps[8:] = ["..."] if len(gaps) > 8 else []
        print(f"note: no row of {path} has label {', '.join(gaps)}: no row will get it", file=sys.stderr)
    y = [classes[name[word]] if word in given else -1 for word in words]
    return torch.tensor(y, dtype=torch.int64), [str(c) for c in classes]


def label(embeddings: str, labels: str,
          k: Annotated[str, "neighbours of a row, a whole number, or auto: the one of 1 3 5 10 20 50 that finds most "
                            "hidden labels (default: auto)"] = "auto",
          mode: Annotated[Mode, "label all rows with equally many labelled neighbours together, or one row at a time "
                                "(default: layer)"] = "layer",
          metric: Annotated[Metric, "the measure of similarity (default and paper: cosine)"] = "cosine",
          out: Annotated[str, "output: row, label, layer, order, votes, similarity (default: out.csv)"] = "out.csv",
          progress: Progress | None = None) -> dict:
    """Label every row of the table in EMBEDDINGS (.npy, a row for each image) from the few labels in LABELS (.csv, with
    a column `label`; empty, nan or -1: none). HDL labels rows with the most labelled neighbours first, by their vote.

    Returns hdl()'s info and growth: each class's share of all labels over its share of the given ones, far above 1 if
    it flooded others. If `out` is a link, the file it points at is written. InputError for files that cannot be used.
    """
    out = out or "."                                    # nothing is a name of the folder here
    require(os.path.isfile(out) or not os.path.exists(out), f"{out} is a folder, a pipe or a device: try another --out")
    require(not re.search("[\ud800-\udfff]", out), f"{out!r} is not in UTF-8: try another --out")
    target = Path(os.path.realpath(out))
    require(target.parent.is_dir(), f"there is no folder {target.parent}; make it, or try another --out")
    points, (y, names) = read_embeddings(embeddings), read_labels(labels)
    require(len(points) == len(y), f"{embeddings} has {len(points):,} rows, {labels} {len(y):,}: they must be the same")
    found = hdl(points, y, k=int(k) if k.isdecimal() else k, mode=mode, metric=metric, progress=progress)
    columns = [found.rows[column].tolist() for column in COLUMNS[2:]]
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row, (c, *rest, similarity) in enumerate(zip(found.label.tolist(), *columns)):
        writer.writerow((row, names[c], *rest, "" if similarity != similarity else f"{similarity:.6g}"))
    write_file(target, table.getvalue())
    grown = class_growth(found.label, found.rows["order"], y, len(names))[1][-1]
    return found.info | {"growth": {name: round(value, 3) for name, value in zip(names, grown.tolist())}}
