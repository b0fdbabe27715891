"""Clusters of embeddings: deep embedding clustering (DEC: Xie et al. 2016, arXiv 1511.06335), and which class a cluster has."""
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from sslkit.errors import require

Clustering, Matching = Literal["dec", "kmeans", "spectral", "dbscan", "none"], Literal["centers", "hungarian"]
CLUSTERINGS, MATCHINGS = get_args(Clustering), get_args(Matching)
SPECTRAL_ROWS = 20_000              # beyond, its graph and eigenvectors grow out of hand


class DEC(NamedTuple):
    """What deep embedding clustering found."""
    weight: Tensor                # (D, D)  z = weight @ feature
    centers: Tensor               # (K, D)  in the space of z
    cluster: Tensor               # (n,) int64  of each row, at the last refresh
    steps: int                    # SGD steps taken
    changed: list[float]          # share of rows that changed cluster, at each refresh after the first


def soft_assignment(z: Tensor, centers: Tensor) -> Tensor:
    """q (n, K): 1 / (1 + squared distance of z (n, D) to each centre (K, D)), rows normalised (DEC, eq. 1)."""
    near = 1 / (1 + torch.cdist(z, centers, compute_mode="donot_use_mm_for_euclid_dist").square())
    return near / near.sum(1, keepdim=True)


def sharpened(q: Tensor) -> Tensor:
    """p (n, K): q squared, divided by each cluster's total over ALL rows, rows normalised (DEC, eq. 3)."""
    p = q.square() / q.sum(0)
    return p / p.sum(1, keepdim=True)


def shuffled(n: int, batch_size: int, seed: int) -> Iterator[Tensor]:
    """Endless batches of rows: shuffled passes one after another, none left out."""
    g, rows = torch.Generator().manual_seed(seed), torch.empty(0, dtype=torch.int64)
    while True:
        while len(rows) < batch_size:
            rows = torch.cat((rows, torch.randperm(n, generator=g)))
        yield rows[:batch_size]
        rows = rows[batch_size:]


def dec(features: Tensor, centers: Tensor, *, steps: int = 20_000, refresh: int = 140, tolerance: float = 0.001, lr: float = 0.01,
        momentum: float = 0.9, batches: Iterator[Tensor] | None = None, seed: int = 0,
        progress: Callable[[int, int, str], None] | None = None) -> DEC:
    """Deep embedding clustering of features (n, D) from initial centres (K, D).

    A linear map, at first the identity, and the centres are trained so that q comes near its own sharpened form p, mean KL(p || q); p and
    the clusters are computed anew over all rows every `refresh` steps (the linear map and the initial centres: ours; XifengGuo/DEC-keras
    trains an encoder). Ends at a refresh where under `tolerance` of the rows changed cluster. batches: of rows (default: shuffled, 256).
    progress: shown (steps, most steps, what) at each refresh.
    """
    weight = torch.eye(features.shape[1], dtype=features.dtype, requires_grad=True)
    centers = centers.to(features.dtype).clone().requires_grad_()
    optimizer = torch.optim.SGD([weight, centers], lr=lr, momentum=momentum)
    batches = shuffled(len(features), 256, seed) if batches is None else batches
    cluster, changed = None, []
    for step in range(steps):
        if step % refresh == 0:
            with torch.no_grad():
                q = soft_assignment(features @ weight.T, centers)
                p, now = sharpened(q), q.argmax(1)
            if cluster is not None:
                changed.append((now != cluster).double().mean().item())
            cluster = now
            if progress:
                progress(step, steps, "clustering: step")
            if changed and changed[-1] < tolerance:
                steps = step
                break
        rows = next(batches)
        q = soft_assignment(features[rows] @ weight.T, centers)
        optimizer.zero_grad()
        (p[rows] * (p[rows].log() - q.log())).sum(1).mean().backward()
        optimizer.step()
    return DEC(weight.detach(), centers.detach(), cluster, steps, changed)


def labeled_centers(features: Tensor, y: Tensor, num_classes: int) -> Tensor:
    """(C, D): the mean feature of each class's labelled rows. features (N, D), y (N,), -1 unknown. InputError for a class without one."""
    known = y >= 0
    counts = torch.bincount(y[known], minlength=num_classes)
    require(counts.min() > 0, f"class {int(counts.argmin())} has no labelled row to begin its cluster from")
    sums = features.new_zeros(num_classes, features.shape[1]).index_add(0, y[known], features[known])
    return sums / counts[:, None]


def match(features: Tensor, cluster: Tensor, labeled: Tensor, y: Tensor, num_classes: int, matching: str) -> Tensor:
    """(K,) int64: the class of each cluster of features (n, D), -1 for none; labeled (m, D) of classes y (m,) say which.

    centers: the class whose labelled centre is nearest to the cluster's mean. hungarian: one to one, so that as many labelled rows as
    possible are nearest to the mean of their class's cluster.
    """
    from scipy.optimize import linear_sum_assignment

    members = torch.bincount(cluster)
    means = features.new_zeros(len(members), features.shape[1]).index_add(0, cluster, features) / members[:, None].clamp(min=1)
    if matching == "centers":
        return torch.cdist(means, labeled_centers(labeled, y, num_classes)).argmin(1)
    nearest = torch.cdist(labeled, means).argmin(1)
    hits = torch.zeros(len(means), num_classes).index_put_((nearest, y), torch.ones(len(y)), accumulate=True)
    rows, columns = map(torch.as_tensor, linear_sum_assignment(hits.numpy(), maximize=True))
    found = torch.full((len(means),), -1)
    found[rows] = columns
    return found
