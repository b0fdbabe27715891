"""sslkit label: reads embeddings of any encoder and a few labels, and writes labels of all rows into a file."""
from collections.abc import Mapping
from typing import Annotated

import torch

from sslkit.errors import choose, require
from sslkit.labelers.choosing import LABELERS, Labeler, choose_labeler, with_graphs
from sslkit.labelers.hdl import Mode, hdl
from sslkit.labelers.neighbors import Metric
from sslkit.labelers.quality import class_growth
from sslkit.labelers.tables import read_embeddings, read_labels, target_of, write_labels
from sslkit.records import Progress


def label(embeddings: str, labels: str,
          labeler: Annotated[str, "spreading, logistic, hdl, nearest; head, a classifier that learns from all rows, "
                                  "where EMBEDDINGS has views; or auto: the one that finds most hidden labels; of "
                                  "those that they cannot tell apart, the first (default: auto)"] = "auto",
          k: Annotated[str, "hdl: neighbours of a row, a whole number, or auto: the one of 1 3 5 10 20 50 that finds "
                            "most hidden labels (default: auto)"] = "auto",
          mode: Annotated[Mode, "hdl: label all rows with equally many labelled neighbours together, or one row at a "
                                "time (default: layer)"] = "layer",
          metric: Annotated[Metric, "hdl: the measure of similarity (default and paper: cosine)"] = "cosine",
          out: Annotated[str, "output: row, file (if known), label, confidence, and of hdl order, layer, votes, "
                              "similarity (default: out.csv)"] = "out.csv",
          progress: Progress | None = None, extra: Mapping[str, Labeler] = {}) -> dict:
    """Label every row of the table in EMBEDDINGS (.npy, a row for each image, or a folder that `sslkit embed` wrote)
    from the few labels in LABELS (.csv, with a column `label`; empty, nan or -1: none). For a folder, LABELS may have
    a column `file` and the labelled files alone.

    extra: further labelers by name; auto prefers them to those of LABELERS. Returns the labeler's info, labeler, choice
    (what auto found of each; see choosing.Choice), why, and growth: each class's share of all labels over its share of
    the given ones, far above 1 if it flooded others. If `out` is a link, the file it points at is written. InputError
    for files and flags that cannot be used.
    """
    target = target_of(out)
    choose("labeler", labeler, ("auto", *LABELERS, *extra))
    for flag, value, default in (("k", k, "auto"), ("mode", mode, "layer"), ("metric", metric, "cosine")):
        require(labeler == "hdl" or value == default, f"--{flag} belongs to hdl: add --labeler hdl, or leave it out")
    (points, files), why, table = read_embeddings(embeddings), "", []
    y, names, files = read_labels(labels, files)
    require(len(points) == len(y), f"{embeddings} has {len(points):,} rows, {labels} {len(y):,}: they must be the same")
    if labeler == "auto":
        labeler, why, table = choose_labeler(points, y, {**extra, **with_graphs(points, y, progress)}, progress)
    if labeler == "hdl":
        found = hdl(points, y, k=int(k) if k.isdecimal() else k, mode=mode, metric=metric, progress=progress)
    else:
        found = (LABELERS | extra)[labeler](points, y)
    write_labels(target, found, names, files)
    grown = class_growth(found.label, torch.zeros_like(y), y, len(names))[1][-1]
    return found.info | {"labeler": labeler, "choice": table, "why": why,
                         "growth": {name: round(value, 3) for name, value in zip(names, grown.tolist())}}
