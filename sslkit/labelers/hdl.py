"""HDL, hierarchical dynamic labelling: labels from embeddings, not from a classifier (Ma et al., arXiv 2404.17173).

The row with the most labelled neighbours is labelled first, by their vote, and then helps to label others. Round by
round this reaches rows that are near no labelled row. We know the paper in part from secondary sources only.

    found = hdl(embeddings, y)                     # y: labels, -1 where unknown
    found.label, found.rows["order"], found.info["k"]
"""
import heapq
from numbers import Integral
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from sslkit.errors import choose, require
from sslkit.labelers.neighbors import Metric, Nearest, neighbors, prepared, reverse
from sslkit.records import Progress, PseudoLabels

Mode = Literal["layer", "exact"]
KS = (1, 3, 5, 10, 20, 50)
LEAST_NEIGHBORS = 10                 # found even if k is smaller, so that Nearest rarely searches all rows
VOTE_CELLS = 2**24                   # largest table (rows, classes) of a vote; more rows vote in parts


def vote(label: np.ndarray, index: np.ndarray, similarity: np.ndarray, num_classes: int) -> tuple[np.ndarray, ...]:
    """The class (m,) that most labelled neighbours of each row have, its votes (m,) and their mean similarity (m,). Of
    equal classes the one with the largest sum of similarities, then the lowest.

    label (n,): -1 unknown. index, similarity (m, k): the rows' neighbours; each row must have a labelled one.
    """
    most = max(1, VOTE_CELLS // num_classes)
    if len(index) > most:
        parts = [slice(begin, begin + most) for begin in range(0, len(index), most)]
        return tuple(map(np.concatenate, zip(*(vote(label, index[p], similarity[p], num_classes) for p in parts))))
    theirs, rows = label[index], np.arange(len(index))
    known = theirs >= 0
    cell = (rows[:, None] * num_classes + theirs)[known]
    count = np.bincount(cell, minlength=len(rows) * num_classes).reshape(-1, num_classes)
    total = np.bincount(cell, similarity[known], minlength=len(rows) * num_classes).reshape(-1, num_classes)
    best = np.where(count == count.max(1, keepdims=True), total, -np.inf).argmax(1)
    return best, count[rows, best], total[rows, best] / count[rows, best]


class Labeling:
    """The labels so far, and of each row the number L of its labelled neighbours, updated in each round.

    index, similarity (n, k): the neighbours of each row; having: the rows that have it as one. y (n,): given labels,
    -1 elsewhere. L (n,): 0 once a row has a label. left: how many have none. rows: what hdl() returns of each row.
    """

    def __init__(self, index: np.ndarray, similarity: np.ndarray, y: np.ndarray):
        self.index, self.similarity, self.having = index, similarity, reverse(index, len(y))
        self.label, self.L = y.copy(), np.where(y < 0, (y[index] >= 0).sum(1, dtype=np.int32), 0)
        self.left, self.rounds, self.copied = int((y < 0).sum()), 0, 0
        self.rows = {name: np.zeros(len(y), np.int32) for name in ("order", "layer", "votes")}
        self.rows["similarity"] = np.full(len(y), np.nan, np.float32)

    def layer(self) -> np.ndarray:
        """The rows of the largest L, which mode `layer` labels at once; none if no row has a labelled neighbour."""
        largest = self.L.max()
        return np.flatnonzero(self.L == largest) if largest else np.empty(0, int)

    def add(self, rows: np.ndarray, label, layer: int, votes, similarity) -> np.ndarray:
        """Label `rows`, in a round of their own. Returns the unlabelled rows that have some of them as neighbours."""
        self.rounds, self.left = self.rounds + 1, self.left - len(rows)
        self.label[rows], self.L[rows] = label, 0
        for record, value in zip(self.rows.values(), (self.rounds, layer, votes, similarity)):
            record[rows] = value
        near = np.concatenate([self.having[row] for row in rows])
        grown, times = np.unique(near[self.label[near] < 0], return_counts=True)
        self.L[grown] += times.astype(np.int32)
        return grown


class ExactOrder:
    """Mode `exact`: one row at a time, that of the largest L; of equal ones the one that most unlabelled rows have as a
    neighbour (g), then the one of the largest mean similarity to its labelled neighbours, then the lowest. A heap: a
    row whose entry changes is pushed again, and pop() skips the old entry."""

    def __init__(self, state: Labeling):
        self.state, known = state, state.label[state.index] >= 0
        self.total = np.where(known, state.similarity, 0).sum(1, dtype=np.float64)
        self.g = np.bincount(state.index[state.label < 0].ravel(), minlength=len(state.label))
        self.heap = [self.entry(row) for row in np.flatnonzero(state.L)]
        heapq.heapify(self.heap)

    def entry(self, row: int) -> tuple:
        L = self.state.L[row]
        return -int(L), -int(self.g[row]), -float(self.total[row] / L), int(row)

    def push(self, grown: np.ndarray, row: int) -> None:
        """`row` has a label now, and the L of the rows `grown` became larger."""
        state, own = self.state, self.state.index[row]
        self.g[own] -= 1
        for i in grown:
            self.total[i] += state.similarity[i, state.index[i] == row].sum()
        for i in {*grown.tolist(), *own[state.L[own] > 0].tolist()}:
            heapq.heappush(self.heap, self.entry(i))

    def pop(self) -> np.ndarray:
        """The next row; none if no row has a labelled neighbour."""
        while self.heap:
            entry = heapq.heappop(self.heap)
            if self.state.label[entry[3]] < 0 and entry == self.entry(entry[3]):
                return np.array([entry[3]])
        return np.empty(0, int)


def label_all(points: Tensor, index: np.ndarray, similarity: np.ndarray, y: np.ndarray, k: int, mode: str, metric: str,
              needed: np.ndarray | None = None, progress: Progress | None = None) -> Labeling:
    """Label every row of y (n,) that is -1, by its k first neighbours; stop once all rows `needed` have a label."""
    state, num_classes = Labeling(index[:, :k], similarity[:, :k], y), int(y.max()) + 1
    exact, nearest, total = ExactOrder(state) if mode == "exact" else None, None, state.left
    while state.left and (needed is None or (state.label[needed] < 0).any()):
        rows = exact.pop() if exact else state.layer()
        if len(rows):
            votes = vote(state.label, state.index[rows], state.similarity[rows], num_classes)
            grown = state.add(rows, votes[0], int(state.L[rows[0]]), *votes[1:])
        else:
            nearest = nearest or Nearest(points, metric, index, similarity, state.label)
            rows, source, value = nearest.find()
            grown = state.add(rows, state.label[source], 0, 1, value)
            state.copied += 1
        if exact:
            exact.push(grown, rows[0])
        if nearest:
            nearest.add(rows)
        if progress and (state.rounds % 200 == 0 or not state.left):
            progress(total - state.left, total, "labelled:")
    return state


def halves(y: np.ndarray) -> list[np.ndarray]:
    """Two halves of the labelled rows, by turns within each class; a class with one labelled row is in neither."""
    classes = [rows for c in np.unique(y[y >= 0]) if len(rows := np.flatnonzero(y == c)) > 1]
    return [np.concatenate([rows[first::2] for rows in classes]) for first in (0, 1)] if classes else []


def choose_k(points: Tensor, index: np.ndarray, similarity: np.ndarray, y: np.ndarray, metric: str, ks: tuple[int, ...],
             mode: str = "layer", progress: Progress | None = None) -> tuple[int, dict[int, float]]:
    """The k that finds most hidden labels, the smaller of equal ones; and the share of them that each k finds.

    Our choice: half of the labelled rows are hidden, class by class, then the other half; a class with one labelled row
    is never hidden. If no class has two: k = 5 and no shares. On rows that the network was trained on the shares are
    biased: HDL does not see the hidden labels, but the network has seen them.
    """
    folds, curve = halves(y), {}
    for at, k in enumerate(ks if folds else ()):
        right = []
        for hidden in folds:
            shown = y.copy()
            shown[hidden] = -1
            state = label_all(points, index, similarity, shown, k, mode, metric, hidden)
            right.append((state.label[hidden] == y[hidden]).mean())
        curve[k] = float(np.mean(right))
        if progress:
            progress(at + 1, len(ks), "neighbourhood sizes tried:")
    return (max(curve, key=lambda k: (curve[k], -k)) if curve else min(5, len(y) - 1)), curve


def delta(points: Tensor, y: Tensor, k: int, metric: str = "cosine") -> float:
    """delta_k: the mean share of the k nearest labelled rows that have another label, over the labelled rows. points
    (n, d) as neighbors.prepared() gives them, y (n,), -1 unknown. InputError for fewer than two labelled rows."""
    rows = (y >= 0).nonzero()[:, 0]
    require(len(rows) > 1, "delta_k needs two labelled rows")
    index, _ = neighbors(points[rows], k, metric)
    return float((y[rows].numpy()[index] != y[rows].numpy()[:, None]).mean())


def whole(k) -> int:
    """k as an int. InputError unless it is a whole number from 1 up."""
    ok = isinstance(k, Integral) and not isinstance(k, bool) and k >= 1
    require(ok, f"k is {k!r}, it must be a whole number from 1 up (hdl also takes 'auto')")
    return int(k)


def one_shot(embeddings: Tensor, y: Tensor, k: int = 5, metric: Metric = "cosine") -> PseudoLabels:
    """HDL's baseline: labels all unlabelled rows at once, each by the vote of its k nearest labelled rows (all of them
    if there are fewer; ties as in HDL). Raises InputError as hdl() does, but not for a large k."""
    k, points, num_classes = whole(k), prepared(embeddings, y, metric), int(y.max()) + 1
    label, similarity = y.numpy().copy(), np.full(len(y), np.nan, np.float32)
    index, near = neighbors(points, k, metric, among=points[y >= 0])
    rows = np.flatnonzero(label < 0)
    label[rows], _, similarity[rows] = vote(label[label >= 0], index[rows], near[rows], num_classes)
    return PseudoLabels(torch.from_numpy(label), torch.ones(len(y)), {"k": k, "metric": metric}, "one_shot",
                        {"similarity": torch.from_numpy(similarity)})


def hdl(embeddings: Tensor, y: Tensor, *, k: int | Literal["auto"] = "auto", mode: Mode = "layer",
        metric: Metric = "cosine", progress: Progress | None = None) -> PseudoLabels:
    """Labels of all rows of embeddings (n, d) from the few labels in y (n,) int64, -1 elsewhere.

    k: neighbours of a row, or `auto`: the k of KS that finds most hidden labels (choose_k). mode: `exact` labels a row
    at a time, `layer` all rows with equally many labelled neighbours. progress: called with (done, total, what).

    Its rows: order (the round in which it was labelled; 0: given), layer (how many labelled neighbours it had then; 0:
    given, or copied from the most similar labelled row because no row had a labelled neighbour), votes (how many of
    them have its label), similarity (their mean). Its info: k, the share of hidden labels found (curve) and delta by k
    (both only for k=auto), rounds, copied.
    Raises InputError as neighbors.prepared() does, for an unknown mode, and for a k outside 1 to n - 1.
    """
    points, n = prepared(embeddings.cpu(), y, metric), len(y)
    choose("mode", mode, get_args(Mode))
    if k != "auto":
        require(whole(k) < n, f"k is {k}, but a row of {n} has only {n - 1} others")
    truth, ks, curve, deltas = y.cpu().numpy(), tuple(size for size in KS if size < n), {}, {}
    found = max(ks, default=1) if k == "auto" else min(n - 1, max(whole(k), LEAST_NEIGHBORS))
    index, similarity = neighbors(points, found, metric, progress=progress)
    if k == "auto":
        k, curve = choose_k(points, index, similarity, truth, metric, ks, mode, progress)
        deltas = {size: delta(points, y.cpu(), size, metric) for size in ks if size < int((y >= 0).sum())}
    state = label_all(points, index, similarity, truth, int(k), mode, metric, progress=progress)
    info = {"k": int(k), "mode": mode, "metric": metric, "rounds": state.rounds, "copied": state.copied, "curve": curve,
            "delta": deltas}
    return PseudoLabels(torch.from_numpy(state.label), torch.ones(n), info, "hdl",
                        {name: torch.from_numpy(record) for name, record in state.rows.items()})
