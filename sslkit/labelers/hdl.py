"""HDL, hierarchical dynamic labelling: labels from embeddings, not from a classifier's answers (Ma et al., arXiv 2404.17173).

The row with the most labelled neighbours is labelled first, by their vote, and helps to label others. Layer by layer this reaches rows that
no labelled row is near. What of the paper is known at second hand, and what is our own choice, stands beside each function.

    found = hdl(embeddings, y)                     # y: labels, -1 where unknown
    found.label, found.rows["order"], found.info["k"]
"""
import heapq
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sslkit.errors import choose, require
from sslkit.labelers.neighbors import checked, neighbors, reverse
from sslkit.records import Progress, PseudoLabels

Mode, Metric = Literal["layer", "exact"], Literal["cosine", "euclidean"]
KS = (1, 3, 5, 10, 20, 50)
WIDE = 10                            # neighbours found at least, for Nearest
CELLS = 2**24                        # of (rows, classes) that a vote counts at a time


def vote(label: np.ndarray, index: np.ndarray, similarity: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The class of most labelled ones among the neighbours (m, k), then of the largest sum of similarities, then the lowest; its votes and
    their mean similarity. label (n,), -1 unknown; each of the m rows has a labelled neighbour."""
    said = label[index]
    known = said >= 0
    cell = (np.arange(len(said))[:, None] * num_classes + said)[known]
    count = np.bincount(cell, minlength=len(said) * num_classes).reshape(-1, num_classes)
    total = np.bincount(cell, similarity[known], minlength=len(said) * num_classes).reshape(-1, num_classes)
    rows = np.arange(len(said))
    best = np.where(count == count.max(1, keepdims=True), total, -np.inf).argmax(1)
    return best, count[rows, best], total[rows, best] / count[rows, best]


class Labeling:
    """The labels so far, and for each row the number L of labelled neighbours, kept up by counters, never counted again."""

    def __init__(self, index: np.ndarray, similarity: np.ndarray, y: np.ndarray, num_classes: int):
        self.index, self.similarity, self.num_classes, (self.start, self.who) = index, similarity, num_classes, reverse(index, len(y))
        self.label, self.rounds, self.left, self.copied = y.copy(), 0, int((y < 0).sum()), 0
        self.order, self.layer, self.votes = (np.zeros(len(y), np.int32) for _ in range(3))
        self.sure = np.full(len(y), np.nan, np.float32)
        self.L = (y[index] >= 0).sum(1, dtype=np.int32)

    def reached(self, rows: np.ndarray) -> np.ndarray:
        """The unlabelled rows that have one of `rows` as a neighbour, as often as they do."""
        lengths = self.start[rows + 1] - self.start[rows]
        found = self.who[np.repeat(self.start[rows + 1] - lengths.cumsum(), lengths) + np.arange(lengths.sum())]
        return found[self.label[found] < 0]

    def add(self, rows: np.ndarray, label, layer: int, votes, sure) -> np.ndarray:
        """Label `rows`, in a round of their own; returns the rows whose L grew."""
        self.rounds += 1
        self.label[rows], self.order[rows], self.layer[rows], self.votes[rows], self.sure[rows] = label, self.rounds, layer, votes, sure
        self.left -= len(rows)
        grown, times = np.unique(self.reached(rows), return_counts=True)
        self.L[grown] += times.astype(np.int32)
        return grown

    def vote(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What the labelled neighbours of each row say, its votes, their mean similarity."""
        parts = np.split(rows, range(n := max(1, CELLS // self.num_classes), len(rows), n))
        votes = [vote(self.label, self.index[part], self.similarity[part], self.num_classes) for part in parts]
        return tuple(map(np.concatenate, zip(*votes)))


class Layers:
    """Mode `layer`: all rows of the largest L, voted for from the labels before and then added together. Buckets by L."""

    def __init__(self, state: Labeling):
        self.state, self.level, self.buckets = state, 0, [[] for _ in range(state.index.shape[1] + 1)]
        self.push(np.flatnonzero((state.label < 0) & (state.L > 0)), np.empty(0, int))

    def push(self, grown: np.ndarray, added: np.ndarray) -> None:
        for level in np.unique(self.state.L[grown]):
            self.buckets[level].append(grown[self.state.L[grown] == level])
            self.level = max(self.level, int(level))

    def pop(self) -> np.ndarray:
        """The next rows; none where no row has a labelled neighbour."""
        while self.level:
            if self.buckets[self.level]:
                rows = np.unique(np.concatenate(self.buckets[self.level]))
                self.buckets[self.level] = []
                rows = rows[(self.state.label[rows] < 0) & (self.state.L[rows] == self.level)]      # those that grew since lie higher
                if len(rows):
                    return rows
            self.level -= 1
        return np.empty(0, int)


class One:
    """Mode `exact`: of the rows of the largest L the one that most unlabelled rows have as a neighbour, then of the largest mean similarity
    to its labelled neighbours, then the lowest. A heap; what has changed is pushed again, the old entry is left behind."""

    def __init__(self, state: Labeling):
        self.state, known = state, state.label[state.index] >= 0
        self.total = np.where(known, state.similarity, 0).sum(1, dtype=np.float64)
        self.g = np.bincount(state.index[state.label < 0].ravel(), minlength=len(state.label))
        self.heap = [self.entry(row) for row in np.flatnonzero((state.label < 0) & (state.L > 0))]
        heapq.heapify(self.heap)

    def entry(self, row: int) -> tuple:
        L = self.state.L[row]
        return -int(L), -int(self.g[row]), -float(self.total[row] / L), int(row)

    def push(self, grown: np.ndarray, added: np.ndarray) -> None:
        state, (row,) = self.state, added
        own = state.index[row]
        self.g[own] -= 1
        for i in grown:
            self.total[i] += state.similarity[i, state.index[i] == row].sum()
        for i in {*grown.tolist(), *own[(state.label[own] < 0) & (state.L[own] > 0)].tolist()}:
            heapq.heappush(self.heap, self.entry(i))

    def pop(self) -> np.ndarray:
        """The next row; none where no row has a labelled neighbour."""
        while self.heap:
            entry = heapq.heappop(self.heap)
            if self.state.label[entry[3]] < 0 and entry == self.entry(entry[3]):
                return np.array([entry[3]])
        return np.empty(0, int)


class Nearest:
    """The unlabelled row with the largest similarity to any labelled row, for when no row has a labelled neighbour.

    A labelled row is compared with its K nearest rows at once, with all others only when they could matter: none of them is more similar
    to it than its K-th.
    """

    def __init__(self, points: Tensor, metric: str, index: np.ndarray, similarity: np.ndarray, label: np.ndarray):
        self.points, self.metric, self.index, self.similarity = points, metric, index, similarity
        self.best, self.source = np.full(len(label), -np.inf, similarity.dtype), np.zeros(len(label), np.int64)
        self.open, self.later = label < 0, []
        self.add(np.flatnonzero(label >= 0))

    def add(self, rows: np.ndarray) -> None:
        """`rows` have a label now."""
        self.open[rows], self.best[rows] = False, -np.inf
        for row in rows.tolist():
            self.compare(self.index[row], self.similarity[row], row)
            heapq.heappush(self.later, (-self.similarity[row, -1], row))

    def compare(self, rows: np.ndarray, similarity: np.ndarray, source) -> None:
        """The labelled `source` is that similar to each of `rows`."""
        better = self.open[rows] & ((similarity > self.best[rows]) | (similarity == self.best[rows]) & (source < self.source[rows]))
        self.best[rows[better]] = similarity[better]
        self.source[rows[better]] = source if np.isscalar(source) else source[better]

    def __call__(self) -> tuple[int, int, float]:
        """The row, the labelled row it is most similar to, and how similar."""
        while True:
            at = int(self.best.argmax())
            if not self.later or -self.later[0][0] < self.best[at]:
                return at, int(self.source[at]), float(self.best[at])
            some = np.sort([heapq.heappop(self.later)[1] for _ in range(min(256, len(self.later)))])
            rows, there = np.flatnonzero(self.open), self.points[some]
            for part in np.split(rows, range(2**18, len(rows), 2**18)):
                near = -torch.cdist(self.points[part], there) if self.metric == "euclidean" else self.points[part] @ there.T
                value, which = near.max(1)
                self.compare(part, value.numpy(), some[which.numpy()])


def label_all(points: Tensor, index: np.ndarray, similarity: np.ndarray, y: np.ndarray, num_classes: int, k: int, mode: str, metric: str,
              needed: np.ndarray | None = None, progress: Progress | None = None) -> Labeling:
    """Label every row of y (n,) that is -1, by its k first neighbours; or stop when the rows `needed` have a label."""
    state = Labeling(index[:, :k], similarity[:, :k], y, num_classes)
    queue, nearest, total = (Layers if mode == "layer" else One)(state), None, state.left
    missing = None if needed is None else len(needed)
    is_needed = None if needed is None else np.isin(np.arange(len(y)), needed)
    while state.left and missing != 0:
        rows = queue.pop()
        if len(rows):
            layer = int(state.L[rows[0]])
            best, count, mean = state.vote(rows)
            grown = state.add(rows, best, layer, count, mean)
        else:
            nearest = nearest or Nearest(points, metric, index, similarity, state.label)
            row, source, value = nearest()
            rows = np.array([row])
            grown = state.add(rows, state.label[source], 0, 1, value)
            state.copied += 1
        queue.push(grown, rows)
        if nearest:
            nearest.add(rows)
        if missing is not None:
            missing -= int(is_needed[rows].sum())
        if progress and (state.rounds % 200 == 0 or not state.left):
            progress(total - state.left, total, "labelled:")
    return state


def halves(y: np.ndarray) -> list[np.ndarray]:
    """Two halves of the labelled rows, class by class, by turns; a class with one labelled row is in neither."""
    parts: tuple[list, list] = ([], [])
    for c in np.unique(y[y >= 0]):
        rows = np.flatnonzero(y == c)
        if len(rows) > 1:
            parts[0].append(rows[::2])
            parts[1].append(rows[1::2])
    return [np.concatenate(part) for part in parts if part]


def choose_k(points: Tensor, index: np.ndarray, similarity: np.ndarray, y: np.ndarray, num_classes: int, metric: str, ks: tuple[int, ...],
             mode: str = "layer", progress: Progress | None = None) -> tuple[int, dict[int, float]]:
    """The k whose labels of hidden labelled rows are right most often, the smaller of equal ones; and the accuracy of each k.

    Half of the labelled rows are hidden, class by class, then the other half; a class with one labelled row is never hidden. Where no class
    has two: k = 5, and no curve. On rows that the network was trained on this is biased: they are hidden from HDL, not from it (ours).
    """
    folds, curve = halves(y), {}
    for at, k in enumerate(ks if folds else ()):
        right = []
        for hidden in folds:
            shown = y.copy()
            shown[hidden] = -1
            state = label_all(points, index, similarity, shown, num_classes, k, mode, metric, hidden)
            right.append((state.label[hidden] == y[hidden]).mean())
        curve[k] = float(np.mean(right))
        if progress:
            progress(at + 1, len(ks), "neighbourhood sizes tried:")
    return (max(curve, key=lambda k: (curve[k], -k)) if curve else min(5, len(y) - 1)), curve


def delta(points: Tensor, y: Tensor, k: int, metric: str = "cosine") -> float:
    """delta_k: over the labelled rows, the mean share of the k nearest labelled rows that have another label."""
    rows = (y >= 0).nonzero()[:, 0]
    require(len(rows) > 1, "delta_k needs two labelled rows")
    index, _ = neighbors(points[rows], k, metric)
    return float((y[rows].numpy()[index] != y[rows].numpy()[:, None]).mean())


def one_shot(embeddings: Tensor, y: Tensor, k: int = 5, metric: Metric = "cosine") -> PseudoLabels:
    """What HDL is measured against: every unlabelled row by the vote of its k nearest labelled rows, all at once (ties as in HDL)."""
    points, num_classes = checked(embeddings, y, metric), int(y.max()) + 1
    known, label = (y >= 0).nonzero()[:, 0], y.numpy().copy()
    index, similarity = neighbors(points, k, metric, among=known)
    rows = np.flatnonzero(label < 0)
    best, count, mean = vote(y.numpy(), index[rows], similarity[rows], num_classes)
    label[rows] = best
    sure = np.full(len(y), np.nan, np.float32)
    sure[rows] = mean
    return PseudoLabels(torch.from_numpy(label), torch.ones(len(y)), {"k": k, "metric": metric}, "one_shot",
                        {"similarity": torch.from_numpy(sure)})


def hdl(embeddings: Tensor, y: Tensor, *, k: int | Literal["auto"] = "auto", mode: Mode = "layer", metric: Metric = "cosine",
        progress: Progress | None = None) -> PseudoLabels:
    """Labels of all rows of embeddings (n, d) from the few that y (n,) int64 has, -1 elsewhere.

    k: neighbours of a row, or `auto`: the best of KS for hidden labels (choose_k). mode: `exact` labels one row at a time, `layer` all
    rows with equally many labelled neighbours together. metric: cosine or euclidean. progress: shown (done, total, what).

    Its rows: order (0: given; else the round in which it was labelled), layer (how many labelled neighbours it then had; 0: given, or
    copied from the most similar labelled row because no row had one), votes (of them for its label), similarity (theirs, the mean). Its
    info: k, the curve of hidden-label accuracies and delta by k (none where k was given), rounds, copied.
    Raises InputError for sizes that differ, what is no finite number, no label at all, a zero vector under cosine, k outside 1 to n - 1.
    """
    points = checked(embeddings.cpu(), y, metric)
    choose("mode", mode, Mode.__args__)
    n, num_classes = len(y), int(y.max()) + 1
    if k != "auto":
        require(isinstance(k, int) and k >= 1, f"k is {k!r}, it must be a whole number from 1 up, or auto")
        require(k < n, f"k is {k}, but a row of {n} has only {n - 1} others")
    truth, ks = y.cpu().numpy(), tuple(size for size in KS if size < n)
    index, similarity = neighbors(points, max(ks, default=1) if k == "auto" else min(n - 1, max(k, WIDE)), metric, progress=progress)
    curve, deltas = {}, {}
    if k == "auto":
        k, curve = choose_k(points, index, similarity, truth, num_classes, metric, ks, mode, progress)
        deltas = {size: delta(points, y.cpu(), size, metric) for size in ks if size < int((y >= 0).sum())}
    state = label_all(points, index, similarity, truth, num_classes, k, mode, metric, progress=progress)
    rows = {name: torch.from_numpy(getattr(state, field)) for name, field in (
        ("order", "order"), ("layer", "layer"), ("votes", "votes"), ("similarity", "sure"))}
    info = {"k": int(k), "mode": mode, "metric": metric, "rounds": state.rounds, "copied": state.copied, "curve": curve, "delta": deltas}
    return PseudoLabels(torch.from_numpy(state.label), torch.ones(n), info, "hdl", rows)
