"""The nearest rows of each row, exactly and in little memory: what labels from embeddings are made of.

Not scikit-learn's: among equally near rows its order is not defined, and a labelling that is to be repeated to the row needs one.
"""
import numpy as np
import torch
from torch import Tensor

from sslkit.errors import choose, require
from sslkit.records import Progress

METRICS = ("cosine", "euclidean")


def checked(embeddings: Tensor, y: Tensor, metric: str) -> Tensor:
    """The embeddings (n, d) as neighbors() takes them: of unit norm under cosine, centred under euclidean. InputError for what cannot be
    used."""
    require(embeddings.ndim == 2, f"embeddings must be a table, a row an image, not of shape {tuple(embeddings.shape)}")
    require(len(embeddings) == len(y), f"{len(embeddings)} embeddings do not fit {len(y)} labels")
    require(bool((y >= 0).any()), "no row has a label: at least one is needed")
    embeddings = embeddings if embeddings.dtype == torch.float64 else embeddings.float()
    bad = ~embeddings.isfinite().all(1)
    require(not bad.any(), f"{int(bad.sum())} embeddings hold what is no finite number, the first in row {int(bad.int().argmax())}")
    if choose("metric", metric, METRICS) == "euclidean":
        return embeddings - embeddings.mean(0)
    norm = embeddings.norm(dim=1, keepdim=True)
    zero = norm[:, 0] == 0
    require(not zero.any(), f"row {int(zero.int().argmax())} is a zero vector, whose cosine means nothing; euclidean can take it")
    return embeddings / norm


def neighbors(points: Tensor, k: int, metric: str = "cosine", *, among: Tensor | None = None,
              progress: Progress | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The k most similar rows of each row, itself excluded, the most similar first, ties to the lower index: index (n, k) int32 and
    similarity (n, k), the cosine, or minus the Euclidean distance. points as checked() gives them.

    among (m,): the only rows that may be neighbours, ascending. k is at most all of them. Exact; in chunks, 256 MB at a time.
    """
    n, others = len(points), points if among is None else points[among]
    places = torch.arange(n) if among is None else torch.full((n,), -1).index_copy(0, among, torch.arange(len(among)))
    k = min(k, len(others) - (1 if among is None else 0))
    square = others.square().sum(1)
    index, similarity = np.empty((n, k), np.int32), np.empty((n, k), np.float64 if points.dtype == torch.float64 else np.float32)
    chunk = max(16, min(4096, 2**26 // len(others)))
    for begin in range(0, n, chunk):
        part = points[begin:begin + chunk]
        near = part @ others.T
        if metric == "euclidean":                           # minus half the squared distance, but for the row's own part
            near.sub_(square, alpha=0.5)
        own = places[begin:begin + chunk]
        near[(own >= 0).nonzero()[:, 0], own[own >= 0]] = -torch.inf
        value, where = near.topk(min(k + 1, near.shape[1]))
        tied = (value[:, k - 1] == value[:, k]).nonzero()[:, 0].tolist() if value.shape[1] > k else []
        where = where[:, :k].sort(1).values                 # of equal ones the lower index first ...
        value, order = near.gather(1, where).sort(dim=1, descending=True, stable=True)
        where = where.gather(1, order)
        for row in tied:                                    # ... and at the end too, where topk cuts at will
            where[row] = near[row].sort(dim=0, descending=True, stable=True).indices[:k]
        if metric == "euclidean":
            value = -(part.square().sum(1, keepdim=True) - 2 * value).clamp_min(0).sqrt()
        index[begin:begin + chunk] = (where if among is None else among[where]).numpy()
        similarity[begin:begin + chunk] = value.numpy()
        if progress:
            progress(min(n, begin + chunk), n, "neighbours:")
    return index, similarity


def reverse(index: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Whose neighbour is each of n rows? Rows of `index` (n, k) as (start (n + 1,), who): who[start[i]:start[i + 1]] have i."""
    flat = index.ravel()
    start = np.concatenate(([0], np.bincount(flat, minlength=n).cumsum()))
    return start, (np.argsort(flat, kind="stable") // index.shape[1]).astype(np.int32)
