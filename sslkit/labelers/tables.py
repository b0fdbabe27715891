"""The files of sslkit label: embeddings as .npy or as a folder of sslkit embed, labels as .csv, what it writes."""
import csv
import io
import os
import re
import sys
from itertools import islice
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from sslkit.errors import InputError, require
from sslkit.files import write_file
from sslkit.records import PseudoLabels

NO_LABEL, WHOLE = re.compile(r"(nan|-0*1(\.0*)?)?", re.I), re.compile(r"[+-]?[0-9]{1,18}(\.0*)?")


def require_file(path: str | Path) -> None:
    """Raise an InputError unless a regular file is there."""
    require(os.path.isfile(path), f"there is no file {path}" + (
        ": it is a folder, a pipe or a device; copy its content into a file" if os.path.exists(path) else ""))


def read_npy(path: str | Path) -> Tensor:
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


def read_embeddings(path: str | Path) -> tuple[Tensor, list[str] | None]:
    """The table (n, d) at `path`, an .npy file or a folder of `sslkit embed`; and in a folder the file of each row.

    Raises InputError for what read_npy() refuses, a folder without files.csv, and a number of files that is not n.
    """
    if not os.path.isdir(path):
        return read_npy(path), None
    listed = Path(path, "files.csv")
    require(listed.is_file(), f"{path} is a folder without files.csv, so not one that `sslkit embed` wrote: name that "
            "folder, or an .npy file")
    points, files = read_npy(Path(path, "plain.npy")), read_columns(listed, "file")["file"]
    require(len(points) == len(files), f"{path} has {len(points):,} embeddings of {len(files):,} files: run `sslkit "
            "embed` again")
    return points, files


def read_columns(path: str | Path, needed: str) -> dict[str, list[str]]:
    """The columns of a CSV file, by name. InputError unless column `needed` is there, and it and `file` but once."""
    require_file(path)
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = list(reader.fieldnames or ())
            require(needed in columns, f"{path} has no column `{needed}` (its first line: {', '.join(columns)[:80]!r})")
            for name in (needed, "file"):
                require(columns.count(name) < 2, f"{path} has several columns `{name}`; rename all but one of them")
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read ({error})") from error
    return {name: [row[name] or "" for row in rows] for name in columns}


def classes_of(words: list[str], path: str | Path) -> tuple[list[int], list[str]]:
    """Class numbers of the words of a column `label`, -1 for no label; and the names of the classes in their order.

    Empty, nan and -1 (also -1.0) mean no label. If all others are whole numbers, 01, 1 and 1.0 are one class, named 1;
    else each word is a class. Prints which numbers are missing in `path`.
    """
    words = [word.strip() for word in words]
    given = {word for word in words if not NO_LABEL.fullmatch(word)}
    whole = all(map(WHOLE.fullmatch, given))
    name = {word: int(word.split(".")[0]) if whole else word for word in given}
    classes = {c: k for k, c in enumerate(sorted(set(name.values())))}
    numbers = range(max(classes)) if whole and classes and min(classes) >= 0 else ()
    if gaps := [str(c) for c in islice((c for c in numbers if c not in classes), 9)]:
        gaps[8:] = ["..."] if len(gaps) > 8 else []
        print(f"note: no row of {path} has label {', '.join(gaps)}: no row will get it", file=sys.stderr)
    return [classes[name[word]] if word in given else -1 for word in words], [str(c) for c in classes]


def read_labels(path: str | Path, files: list[str] | None = None) -> tuple[Tensor, list[str], list[str] | None]:
    """The labels in a CSV file as class numbers (n,) int64, -1 for no label; the names of the classes; the file of each
    row, if known.

    A row of the CSV is a row of the embeddings, unless both name files: then its rows may be fewer, in any order.
    Raises InputError for a file without one column `label`, for names that are not in `files`, and for two labels of
    one file.
    """
    table = read_columns(path, "label")
    y, names = classes_of(table["label"], path)
    if files is None or "file" not in table:
        return torch.tensor(y, dtype=torch.int64), names, files or table.get("file")
    place, found = {file: row for row, file in enumerate(files)}, torch.full((len(files),), -1)
    unknown = [file for file in table["file"] if file not in place]
    require(not unknown, f"{len(unknown):,} files of {path} have no embedding: {', '.join(unknown[:3])[:200]}"
            f"{' ...' if len(unknown) > 3 else ''}; write their names as files.csv does")
    for file, c in zip(table["file"], y):
        row = place[file]
        if c >= 0:
            require(found[row] in (-1, c), f"{path} gives {file} two labels, {names[found[row]]} and {names[c]}: keep "
                    "one of them")
            found[row] = c
    return found, names, files


def target_of(out: str) -> Path:
    """Where `out` is to be written, or the file that it points at. InputError if no file can be there."""
    out = out or "."                                    # nothing is a name of the folder here
    require(os.path.isfile(out) or not os.path.exists(out), f"{out} is a folder, a pipe or a device: try another --out")
    require(not re.search("[\ud800-\udfff]", out), f"{out!r} is not in UTF-8: try another --out")
    target = Path(os.path.realpath(out))
    require(target.parent.is_dir(), f"there is no folder {target.parent}; make it, or try another --out")
    return target


def write_labels(target: Path, found: PseudoLabels, names: list[str], files: list[str] | None) -> None:
    """A CSV file: row, file (if known), label, confidence, and what the labeler says of each row (found.rows)."""
    def word(value: float) -> str | int:
        return value if isinstance(value, int) else "" if value != value else f"{value:.6g}"

    columns = {"row": range(len(found.label)), **({"file": files} if files else {}),
               "label": [names[c] for c in found.label.tolist()], "confidence": map(word, found.weight.tolist()),
               **{name: map(word, values.tolist()) for name, values in found.rows.items()}}
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values()))
    write_file(target, table.getvalue())
