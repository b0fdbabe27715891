"""Which labeler to trust: each labels all rows from a part of the given labels, and the others say how well it did."""
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sslkit.labelers.classifiers import graph_of, hidden_folds, logistic, nearest, spreading
from sslkit.labelers.hdl import KS, choose_k, hdl, label_all
from sslkit.labelers.neighbors import neighbors, prepared
from sslkit.records import Progress, PseudoLabels

Labeler = Callable[[Tensor, Tensor], PseudoLabels]     # (embeddings (n, d), y (n,) int64, -1 unknown) -> all labels
# Where hidden labels cannot tell some apart, the first is taken. The order is that of five under which auto lost least
# to the best labeler of four data sets (photographs, digits, wine, breast cancer), on the draws it was chosen by: 0.6
# points in the mean. On ten new draws of the photographs it lost 1.9, 1.2 and 2.4 (40, 100 and 250 labels).
LABELERS: dict[str, Labeler] = {"spreading": spreading, "logistic": logistic, "hdl": hdl, "nearest": nearest}
REPEATS = 5                          # of the folds in which labels are hidden


class Choice(NamedTuple):
    """The labeler to take and why."""
    labeler: str                  # its name
    why: str                      # in words
    table: list[dict]             # of each labeler: labeler, found, error, behind, behind_error; empty: nothing tried


def with_graphs(embeddings: Tensor, y: Tensor, progress: Progress | None = None) -> dict[str, Labeler]:
    """LABELERS for these embeddings (n, d) and any part of the labels in y (n,): what does not depend on the labels is
    computed here, once. So is HDL's k, from all of y, which favours HDL a little among the others.

    HDL is left out, with a note, where an embedding is all zeros, which has no cosine.
    """
    again = LABELERS | {"spreading": partial(spreading, graph=graph_of(embeddings, y))}
    if not embeddings.any(1).all():
        print("note: an embedding is all zeros, which has no cosine: hdl is left out", file=sys.stderr)
        del again["hdl"]
        return again
    points, ks = prepared(embeddings, y, "cosine"), tuple(k for k in KS if k < len(y))
    index, similarity = neighbors(points, max(ks), progress=progress)
    k, _ = choose_k(points, index, similarity, y.numpy(), "cosine", ks, progress=progress)

    def hdl_again(_: Tensor, y: Tensor) -> PseudoLabels:
        state = label_all(points, index, similarity, y.numpy(), k, "layer", "cosine")
        return PseudoLabels(torch.from_numpy(state.label), torch.ones(len(y)), {}, "hdl")

    return again | {"hdl": hdl_again}


def choose_labeler(embeddings: Tensor, y: Tensor, candidates: Mapping[str, Labeler],
                   progress: Progress | None = None, repeats: int = REPEATS) -> Choice:
    """The first labeler that finds hidden labels as well as the best, as far as they can tell.

    embeddings (n, d), y (n,) int64, -1 unknown; candidates: labelers by name, the preferred first. FOLDS parts of the
    labels are hidden in turn, drawn `repeats` times. found: the share of hidden labels found, behind: by how much it is
    smaller than the best one's. Their standard errors are those of a mean over the hidden rows, of each row's share of
    hits, or of its difference. Taken is the first labeler that is behind by no more than the error of that.
    If most classes have a single label, nothing is tried and the first candidate is taken.
    """
    counts, first = torch.bincount(y[y >= 0]), next(iter(candidates))
    if (counts == 1).sum() * 2 > (counts > 0).sum():
        return Choice(first, f"most classes have a single label, too few to choose by: {first} is taken; label two "
                      "rows of each class or more", [])
    parts, hits = hidden_folds(y, repeats), {name: np.zeros(len(y)) for name in candidates}
    for at, part in enumerate(parts):
        shown = y.clone()
        shown[part] = -1
        for name, labeler in candidates.items():
            hits[name][part] += (labeler(embeddings, shown).label[part] == y[part]).numpy()
        if progress:
            progress(at + 1, len(parts), "labelers tried on hidden labels:")
    rows = np.unique(np.concatenate(parts))
    share = {name: hit[rows] / repeats for name, hit in hits.items()}
    best = max(share, key=lambda name: share[name].mean())

    def error(values: np.ndarray) -> float:
        return float(values.std(ddof=1) / len(values)**0.5)

    table = [{"labeler": name, "found": float(one.mean()), "error": error(one),
              "behind": float((share[best] - one).mean()), "behind_error": error(share[best] - one)}
             for name, one in share.items()]
    level = [row["labeler"] for row in table if row["behind"] <= row["behind_error"]]
    why = f"{best} found most of {len(rows)} hidden labels"
    if len(level) > 1:
        why = (f"{len(rows)} hidden labels cannot tell {', '.join(level[:-1])} and {level[-1]} apart: "
               f"{level[0]} comes first")
    return Choice(level[0], why, table)
