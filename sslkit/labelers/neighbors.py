"""The nearest rows of each row, found exactly and in little memory; HDL's labels (hdl.py) are made from them. Why not
by scikit-learn: it leaves the order of equally near rows open, so a labelling could not be repeated row by row."""
import heapq
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from sslkit.errors import choose, require
from sslkit.records import Progress

Metric = Literal["cosine", "euclidean"]


def prepared(embeddings: Tensor, y: Tensor, metric: str) -> Tensor:
    """The embeddings (n, d) as neighbors() takes them: each row of norm 1 for cosine, their mean 0 for euclidean.

    Raises InputError for another shape, sizes that differ, labels y (n,) that are all -1, a value that is not finite, a
    zero vector under cosine, and, under euclidean, squared distances that the dtype cannot hold.
    """
    require(embeddings.ndim == 2, f"embeddings must be a table, a row an image, not of shape {tuple(embeddings.shape)}")
    require(len(embeddings) == len(y), f"{len(embeddings)} embeddings do not fit {len(y)} labels")
    require(bool((y >= 0).any()), "no row has a label: at least one is needed")
    embeddings = embeddings if embeddings.dtype == torch.float64 else embeddings.float()
    bad = ~embeddings.isfinite().all(1)
    require(not bad.any(), f"{int(bad.sum())} embeddings are not finite, the first in row {int(bad.int().argmax())}")
    smallest, largest = torch.finfo(embeddings.dtype).tiny, torch.finfo(embeddings.dtype).max
    if choose("metric", metric, get_args(Metric)) == "euclidean":
        embeddings = embeddings - embeddings.mean(0)
        square = embeddings.square().sum(1).max()                   # a squared distance is at most 4 times this
        require(bool(smallest <= square <= largest / 4) or not embeddings.any(), "squared distances are too large or "
                "too small to compute with: divide all embeddings by their largest absolute value")
        return embeddings
    peak, norm = (embeddings.norm(order, dim=1, keepdim=True) for order in (torch.inf, 2))
    require(bool(peak.all()), f"row {int(peak.argmin())} is a zero vector, which has no cosine: try euclidean")
    lost = (norm**2 < smallest) | (norm > largest)                  # rows whose squares under- or overflow: scale them
    if lost.any():
        embeddings = embeddings / torch.where(lost, peak, 1)
        norm = embeddings.norm(dim=1, keepdim=True)
    return embeddings / norm


def neighbors(points: Tensor, k: int, metric: str = "cosine", *, among: Tensor | None = None,
              progress: Progress | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The k most similar rows of each row, without itself: the most similar first, of equal ones the lower index first.

    Returns index (n, k) int32 and similarity (n, k): the cosine, or minus the Euclidean distance. points (n, d): from
    prepared(). among (m, d): another such table, in which the neighbours are found instead. Fewer than k if there are
    no more. Exact; works in chunks of 256 MB.
    """
    n, others = len(points), points if among is None else among
    k = min(k, len(others) - (1 if among is None else 0))
    square, dtype = others.square().sum(1), np.float64 if points.dtype == torch.float64 else np.float32
    index, similarity = np.empty((n, k), np.int32), np.empty((n, k), dtype)
    chunk = max(16, min(4096, 2**26 // len(others)))
    for begin in range(0, n, chunk):
        part = points[begin:begin + chunk]
        near = part @ others.T
        if metric == "euclidean":                          # minus half the squared distance, but for the row's own part
            near.sub_(square, alpha=0.5)
        if among is None:
            near.diagonal(begin).fill_(-torch.inf)
        value, where = near.topk(min(k + 1, near.shape[1]))
        tied = (value[:, k - 1] == value[:, k]).nonzero()[:, 0].tolist() if value.shape[1] > k else []
        where = where[:, :k].sort(1).values                 # of equal ones the lower index first ...
        value, order = near.gather(1, where).sort(dim=1, descending=True, stable=True)
        where = where.gather(1, order)
        for row in tied:                                    # ... also at the cut, where topk takes any of them
            where[row] = near[row].sort(dim=0, descending=True, stable=True).indices[:k]
        if metric == "euclidean":
            value = -(part.square().sum(1, keepdim=True) - 2 * value).clamp_min(0).sqrt()
        index[begin:begin + chunk], similarity[begin:begin + chunk] = where.numpy(), value.numpy()
        if progress:
            progress(min(n, begin + chunk), n, "neighbours:")
    return index, similarity


def reverse(index: np.ndarray, n: int) -> list[np.ndarray]:
    """For each of n rows, the rows of `index` (m, k) that have it as a neighbour, ascending."""
    row = index.ravel()
    who = (np.argsort(row, kind="stable") // index.shape[1]).astype(np.int32)
    return np.split(who, np.bincount(row, minlength=n).cumsum()[:-1])


class Nearest:
    """Finds the unlabelled row that is most similar to any labelled row, for when no row has a labelled neighbour.

    A labelled row (a source) is compared with its K nearest rows at once, and waits in `later` to be compared with all
    others. Invariant: every unseen similarity of a source is at most its K-th. So the best one seen is the best of all
    once it is larger than the K-th of every source in `later`.
    """

    def __init__(self, points: Tensor, metric: str, index: np.ndarray, similarity: np.ndarray, label: np.ndarray):
        self.points, self.metric, self.index, self.similarity = points, metric, index, similarity
        self.unlabelled, self.later = label < 0, []                     # later: a heap of (minus the K-th, source)
        self.best = np.full(len(label), -np.inf, similarity.dtype)      # seen, of each unlabelled row, and its source
        self.source = np.zeros(len(label), np.int64)
        self.add(np.flatnonzero(label >= 0))

    def add(self, rows: np.ndarray) -> None:
        """`rows` have a label now."""
        self.unlabelled[rows], self.best[rows] = False, -np.inf
        for row in rows.tolist():
            self.see(self.index[row], self.similarity[row], row)
            heapq.heappush(self.later, (-self.similarity[row, -1], row))

    def see(self, rows: np.ndarray, similarity: np.ndarray, source) -> None:
        """Note how similar each of `rows` is to `source`: one labelled row, or one for each."""
        best = self.best[rows]
        better = self.unlabelled[rows] & ((similarity > best) | (similarity == best) & (source < self.source[rows]))
        self.best[rows[better]] = similarity[better]
        self.source[rows[better]] = source if np.isscalar(source) else source[better]

    def find(self) -> tuple[np.ndarray, int, float]:
        """The row (1,), the labelled row that it is most similar to, and their similarity."""
        while True:
            row = int(self.best.argmax())
            if not self.later or -self.later[0][0] < self.best[row]:
                return np.array([row]), int(self.source[row]), float(self.best[row])
            some = np.sort([heapq.heappop(self.later)[1] for _ in range(min(256, len(self.later)))])
            rows, sources = np.flatnonzero(self.unlabelled), self.points[some]
            for part in np.split(rows, range(2**18, len(rows), 2**18)):
                there = self.points[part]
                near = -torch.cdist(there, sources) if self.metric == "euclidean" else there @ sources.T
                value, which = near.max(1)
                self.see(part, value.numpy(), some[which.numpy()])
