"""Lists of labelled images, as papers publish them: SimCLR's 1percent.txt and 10percent.txt of ImageNet, names of image
files, one a line (Chen et al. 2020, arXiv:2002.05709)."""
import os
from collections import defaultdict
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path

import numpy as np
from torch import Tensor

from sslkit.data.dataset import SSLData
from sslkit.errors import InputError, require


def read_list(path: str | Path) -> list[str]:
    """The names in a text file, one a line, in its order; blank lines are ignored. InputError: no file that can be
    read, no text, no name."""
    try:
        lines = Path(path).expanduser().read_text("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text: a list has the name of an image on each line") from error
    except (OSError, RuntimeError) as error:      # RuntimeError: the home of nobody, ~nobody/list.txt
        why = getattr(error, "strerror", None) or error
        raise InputError(f"the list {str(path)!r} cannot be read: {why}") from error
    names = [line.strip() for line in lines if line.strip()]
    require(bool(names), f"{path} is empty: a list has the name of an image on each line")
    return names


def rows_of(labeled: Sequence[str] | Sequence[int] | Tensor, data: SSLData) -> np.ndarray:
    """The training rows that `labeled` names, (num_labeled,) int64, in its order: numbers of rows of data.images, or
    names of image files, each the end of a path in data.info["files"], as `cat/1.jpg` or `1.jpg` of `train/cat/1.jpg`.

    InputError: no name, data whose images have none, one that fits no training image of a known class, one that fits
    two, an image that is named twice, a class without a labelled image.
    """
    asked = list(labeled.tolist() if isinstance(labeled, (Tensor, np.ndarray)) else labeled)
    require(len(asked) > 0, "labeled is empty: name at least one image of each class")
    y, named = data.y.cpu().numpy(), all(isinstance(one, str) for one in asked)
    require(named or all(isinstance(one, Integral) and not isinstance(one, bool) for one in asked),
            "labeled must be names of images, or numbers of training rows")
    found = _fitting(asked, data, y) if named else [[one] if 0 <= one < len(y) and y[one] >= 0 else [] for one in asked]
    none = [one for one, rows in zip(asked, found) if not rows]
    require(not none, f"{len(none):,} of {len(asked):,} labelled images fit no training image of a known class, the "
                      f"first is {none[0] if none else ''!r}")
    seen = set()
    for one, (row, *more) in zip(asked, found):
        require(not more, f"{one!r} fits {len(more) + 1} training images: add their folders to the name")
        require(row not in seen, f"{one!r} is among the labelled images twice")
        seen.add(row)
    rows = np.array(found, np.int64)[:, 0]
    missing = np.flatnonzero(np.bincount(y[rows], minlength=data.num_classes) == 0)
    require(len(missing) == 0, f"{len(missing):,} of {data.num_classes:,} classes have no labelled image, the first is "
                               f"{data.classes[missing[0]] if len(missing) else ''!r}")
    return rows


def _fitting(names: Sequence[str], data: SSLData, y: np.ndarray) -> list[list[int]]:
    """The rows of known class whose file has each name."""
    require("files" in data.info, f"the images of {data.name} have no names, so a list cannot choose among them: it is "
                                  "for folder:PATH, imagefolder:PATH and data sets that lie as image files")
    held_out, last = set(data.validation.tolist()), [name.rpartition("/")[2] for name in names]
    wanted, places = set(last), defaultdict(list)
    files = data.info["files"][:len(y) + len(held_out)]
    for row, file in enumerate(file for k, file in enumerate(files) if k not in held_out):
        file = file.replace(os.sep, "/")
        if y[row] >= 0 and (end := file.rpartition("/")[2]) in wanted:
            places[end].append((row, "/" + file))
    return [[row for row, file in places[end] if file.endswith("/" + name)] for name, end in zip(names, last)]
