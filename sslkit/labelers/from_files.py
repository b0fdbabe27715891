"""sslkit label: embeddings and a few labels from files, HDL's labels of all rows into a file; for embeddings of any encoder."""
import csv
import sys
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch

from sslkit.errors import InputError, require
from sslkit.files import write_atomically
from sslkit.records import Progress

COLUMNS = ("row", "label", "layer", "order", "votes", "similarity")


def read_embeddings(path: str | Path) -> torch.Tensor:
    """The table (n, d) in an .npy file. InputError for a file that is none."""
    try:
        table = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}") from error
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is no .npy file of numbers") from error
    require(isinstance(table, np.ndarray), f"{path} holds several tables; numpy.save writes one")
    require(table.dtype.kind in "fiu", f"{path} holds {table.dtype}, not real numbers")
    require(table.ndim == 2, f"{path} has shape {table.shape}; a table is needed, a row for each image")
    return torch.from_numpy(np.ascontiguousarray(table, np.float64 if table.dtype == np.float64 else np.float32))


def read_labels(path: str | Path) -> tuple[torch.Tensor, list[str]]:
    """Column `label` of a CSV file as class numbers (n,), -1 where it is empty or -1; and the classes' names, numbers in their order."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            require(reader.fieldnames is not None and "label" in reader.fieldnames,
                    f"{path} has no column `label` (its first line: {', '.join(reader.fieldnames or [])[:80]!r})")
            words = [(row["label"] or "").strip() for row in reader]
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read ({error})") from error
    known = {word for word in words if word not in ("", "-1")}
    try:
        names = sorted(known, key=int)
        gaps = [str(c) for c in range(int(names[-1]) if names else 0) if str(c) not in known] if int(names[0] if names else 0) >= 0 else []
    except ValueError:
        names, gaps = sorted(known), []
    if gaps:
        print(f"note: no row of {path} has label {', '.join(gaps[:8])}: no row will be given it", file=sys.stderr)
    place = {name: k for k, name in enumerate(names)}
    return torch.tensor([place.get(word, -1) for word in words], dtype=torch.int64), names


def label(embeddings: str, labels: str,
          k: Annotated[str, "neighbours of a row, a whole number, or auto: the one of 1 3 5 10 20 50 by which hidden labels are found best "
                            "(default: auto)"] = "auto",
          mode: Annotated[Literal["layer", "exact"], "label all rows with equally many labelled neighbours together, or one at a time "
                          "(default: layer)"] = "layer",
          metric: Annotated[Literal["cosine", "euclidean"], "how similarity is measured (default and paper: cosine)"] = "cosine",
          out: Annotated[str, "the file that is written: row, label, layer, order, votes, similarity (default: out.csv)"] = "out.csv",
          progress: Progress | None = None) -> dict:
    """Label every row of the table in EMBEDDINGS (.npy, a row for each image) from the few that LABELS (.csv, column `label`, empty or -1
    where there is none) names, by HDL: rows with the most labelled neighbours first, by their vote.

    Returns what was found: k, the curve of hidden-label accuracies, rounds, copied; the growth of each class, its share of all labels over
    its share of the given ones, far above 1 where it flooded. InputError for files that cannot be used.
    """
    from sslkit.labelers.hdl import hdl
    from sslkit.labelers.quality import class_growth

    try:
        size = k if k == "auto" else int(k)
    except ValueError:
        raise InputError(f"k is {k!r}, it must be a whole number from 1 up, or auto") from None
    points, (y, names) = read_embeddings(embeddings), read_labels(labels)
    require(len(points) == len(y), f"{embeddings} has {len(points):,} rows, {labels} {len(y):,}: they must be the same images")
    require(not Path(out).is_dir(), f"{out} is a folder; --out names a file")
    found = hdl(points, y, k=size, mode=mode, metric=metric, progress=progress)
    columns = [found.rows[name].tolist() for name in ("layer", "order", "votes", "similarity")]

    def save(new: Path) -> None:
        with open(new, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            for row, (c, *rest, similarity) in enumerate(zip(found.label.tolist(), *columns)):
                writer.writerow((row, names[c], *rest, "" if similarity != similarity else f"{similarity:.6g}"))

    write_atomically(Path(out), save)
    grown = class_growth(found.label, found.rows["order"], y, len(names))[1][-1]
    return found.info | {"growth": {name: round(value, 3) for name, value in zip(names, grown.tolist())}}
