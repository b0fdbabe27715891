"""Which rows a person should label first, and which measure how right labels are."""
import warnings

import numpy as np
import torch
from torch import Tensor

from sslkit.errors import require
from sslkit.labelers.classifiers import scaled


def typical(embeddings: Tensor, number: int, among: Tensor | None = None, seed: int = 0) -> list[int]:
    """`number` different rows of embeddings (n, d) that stand for all: k-means with so many centres, and the row
    nearest to each, the largest cluster first. among: row numbers to choose from (default: all); fewer if there are no
    more.

    Random rows show what is frequent ten times; these show each kind once (the "typical" samples of active learning
    with few labels, Hacohen et al., ICML 2022, there by density in place of the distance to the centre).
    """
    from sklearn.cluster import KMeans

    require(number >= 0, f"the number of rows to pick is {number}, it must not be negative")
    rows = torch.arange(len(embeddings)) if among is None else among
    if len(rows) <= number or not number:
        return rows.tolist()[:number]
    points = scaled(embeddings[rows], torch.zeros(len(rows), dtype=torch.int64)).numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")                 # fewer different points than centres
        found = KMeans(number, n_init=1, random_state=seed).fit(points)
    order = np.argsort(-np.bincount(found.labels_, minlength=number), kind="stable")
    picked: list[int] = []
    for center in found.cluster_centers_[order]:
        nearest = np.argsort(((points - center) ** 2).sum(1), kind="stable")
        picked.append(next(row for row in nearest.tolist() if row not in picked))
    return rows[picked].tolist()


def at_random(n: int, number: int, seed: int, leave_out: Tensor) -> list[int]:
    """`number` of n rows, drawn at random, without the rows `leave_out`; fewer if there are no more."""
    allowed = torch.ones(n, dtype=torch.bool)
    allowed[leave_out] = False
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return order[allowed[order]].tolist()[:number]
