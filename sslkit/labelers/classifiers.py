"""Labels of all rows of embeddings from a few labels, by well-known methods: logistic regression, the nearest labelled
row, label spreading (Zhou et al. 2004). HDL (hdl.py) is the elaborate one beside them."""
import warnings

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from sslkit.errors import require
from sslkit.labelers.hdl import one_shot
from sslkit.labelers.neighbors import neighbors, prepared
from sslkit.records import PseudoLabels

FOLDS = 4                            # in which labels are hidden
CS = (1.0, 10.0, 100.0, 1000.0)      # of logistic regression: the inverse of its L2 strength, for rows of length 1
NEIGHBORS, ALPHA = 15, 0.9           # of label spreading


def scaled(embeddings: Tensor, y: Tensor) -> Tensor:
    """embeddings (n, d) with columns of mean 0 and variance 1, then rows of length 1. y (n,) int64, -1 unknown.

    Raises InputError as neighbors.prepared() does under euclidean.
    """
    points = prepared(embeddings.cpu(), y, "euclidean")
    spread = points.std(0, correction=0)
    return normalize(points / torch.where(spread > 0, spread, 1))


def hidden_folds(y: Tensor, repeats: int = 1) -> list[np.ndarray]:
    """The labelled rows of y (n,), -1 unknown, in FOLDS parts that are alike in their classes, drawn `repeats` times.

    Each class keeps a row outside each part: one with a single row is in none. No parts if no class has two rows.
    """
    from sklearn.model_selection import RepeatedStratifiedKFold

    y = y.numpy()
    _, where, count = np.unique(y, return_inverse=True, return_counts=True)
    rows = np.flatnonzero((y >= 0) & (count[where] > 1))
    if not len(rows):
        return []
    parts = RepeatedStratifiedKFold(n_splits=min(FOLDS, count[where[rows]].max()), n_repeats=repeats, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)            # a class of fewer rows than parts is hidden in some
        return [rows[part] for _, part in parts.split(rows, y[rows])]


def with_given(y: Tensor, classes: np.ndarray, p: np.ndarray, source: str, info: dict) -> PseudoLabels:
    """The class of `classes` (C,) with the largest p (n, C) for each row, that p its weight; the labels in y (n,) stay,
    with weight 1."""
    weight, best = torch.from_numpy(p).float().max(1)
    label = torch.where(y >= 0, y, torch.from_numpy(classes)[best])
    return PseudoLabels(label, weight.masked_fill(y >= 0, 1), info, source)


def nearest(embeddings: Tensor, y: Tensor) -> PseudoLabels:
    """The label of the most similar labelled row for each row of embeddings (n, d). y (n,) int64, -1 unknown.

    Raises InputError as scaled() does.
    """
    return one_shot(scaled(embeddings, y), y, 1, "euclidean")._replace(info={}, source="nearest", rows={})


def logistic(embeddings: Tensor, y: Tensor) -> PseudoLabels:
    """scikit-learn's logistic regression, fitted to the labelled rows of embeddings (n, d). y (n,) int64, -1 unknown.

    C is the one of CS under which labels hidden in folds are likeliest; 10 if no class has two labels. weight: the
    probability of the label. Raises InputError as scaled() does, and for labels of one class alone.
    """
    from sklearn.linear_model import LogisticRegression

    points, known = scaled(embeddings, y).numpy(), np.flatnonzero(y >= 0)
    # L2 gives no weight to what is orthogonal to all labelled rows, so their span is enough: a tenth of the columns
    points = points @ np.linalg.qr(points[known].T)[0]
    classes, given = np.unique(y.numpy()[known]), y.numpy()
    require(len(classes) > 1, "all labels are of one class, and logistic regression needs two: label rows of others")

    def fit(C: float, rows: np.ndarray) -> LogisticRegression:
        return LogisticRegression(C=C, max_iter=1000).fit(points[rows], given[rows])

    def surprise(C: float) -> float:
        return -sum(fit(C, np.setdiff1d(known, part)).predict_log_proba(points[part])[
            range(len(part)), np.searchsorted(classes, given[part])].sum() for part in parts)

    parts = hidden_folds(y)
    C = min(CS, key=surprise) if parts else 10.0
    return with_given(y, classes, fit(C, known).predict_proba(points), "logistic", {"C": C})


def graph_of(embeddings: Tensor, y: Tensor) -> np.ndarray:
    """(n, NEIGHBORS) int32: the most similar rows of each row of embeddings (n, d), fewer if there are no more."""
    return neighbors(scaled(embeddings, y), NEIGHBORS, "euclidean")[0]


def spreading(embeddings: Tensor, y: Tensor, graph: np.ndarray | None = None) -> PseudoLabels:
    """scikit-learn's label spreading between neighbours in embeddings (n, d). y (n,) int64, -1 unknown.

    Rows are neighbours if one is among the NEIGHBORS most similar to the other. graph: from graph_of(), if known
    already. weight: the share of the label in what reached the row. What no label reaches gets the label of the nearest
    labelled row, with the weight of a guess, 1 / C. Raises InputError as scaled() does.
    """
    from scipy.sparse import csr_array
    from sklearn.semi_supervised import LabelSpreading

    graph = graph_of(embeddings, y) if graph is None else graph
    n, k = graph.shape
    one_way = csr_array((np.ones(n * k), graph.ravel(), np.arange(0, n * k + 1, k)), (n, n))
    model = LabelSpreading(lambda *_: one_way + one_way.T, alpha=ALPHA, max_iter=1000).fit(np.zeros((n, 1)), y.numpy())
    found = with_given(y, model.classes_, model.label_distributions_, "spreading", {})
    apart = torch.from_numpy(model.label_distributions_.sum(1) == 0)
    if not apart.any():
        return found
    return found._replace(label=torch.where(apart, nearest(embeddings, y).label, found.label),
                          weight=found.weight.masked_fill(apart, 1 / len(model.classes_)))
