"""Clusters of embeddings and their classes: deep embedding clustering (DEC: Xie et al. 2016, arXiv 1511.06335), or
scikit-learn's. "Our choice" marks what KD-FixMatch's paper (Wang et al., arXiv 2309.05826) leaves open."""
import warnings
from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from sslkit.errors import choose, require
from sslkit.records import Progress

Clustering, Matching = Literal["dec", "kmeans", "spectral", "dbscan", "none"], Literal["centers", "hungarian"]
CLUSTERINGS, MATCHINGS = get_args(Clustering), get_args(Matching)
DEC_WIDTH = 128                     # of wider embeddings DEC gets as many principal components (our choice)
SPECTRAL_ROWS = 20_000              # the most for spectral clustering, whose graph and eigenvectors grow too large


class DEC(NamedTuple):
    """The result of deep embedding clustering."""
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


def dec(features: Tensor, centers: Tensor, *, steps: int = 20_000, refresh: int = 140, tolerance: float = 0.001,
        lr: float = 0.01, momentum: float = 0.9, batches: Iterator[Tensor] | None = None, seed: int = 0,
        progress: Progress | None = None) -> DEC:
    """Deep embedding clustering of features (n, D) from initial centres (K, D).

    A linear map, at first the identity, and the centres are trained to bring q near its own sharpened form p: mean
    KL(p || q). Every `refresh` steps p and the clusters are computed again from all rows; it ends there if less than
    `tolerance` of the rows changed cluster. The linear map and the initial centres are our choice; XifengGuo/DEC-keras
    trains an encoder. batches: of rows (default: shuffled, 256 each). progress: (steps, most, what) at each refresh.
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
    """(C, D): the mean of features (N, D) in each class of y (N,), -1 unknown. InputError for a class without rows."""
    known = y >= 0
    counts = torch.bincount(y[known], minlength=num_classes)
    require(counts.min() > 0, f"class {int(counts.argmin())} has no labelled row to begin its cluster from")
    sums = features.new_zeros(num_classes, features.shape[1]).index_add(0, y[known], features[known])
    return sums / counts[:, None]


def match(features: Tensor, cluster: Tensor, labeled: Tensor, y: Tensor, num_classes: int, matching: str) -> Tensor:
    """(K,) int64: the class of each cluster of features (n, D), -1: none. labeled (m, D), y (m,): the labelled rows.

    centers: the class whose labelled centre is nearest to the cluster's mean. hungarian: one to one, so that as many
    labelled rows as possible are nearest to the mean of their class's cluster. A cluster without rows has any class.
    """
    from scipy.optimize import linear_sum_assignment

    size = torch.bincount(cluster)
    means = features.new_zeros(len(size), features.shape[1]).index_add(0, cluster, features)
    means /= size[:, None].clamp(min=1)
    if matching == "centers":
        return torch.cdist(means, labeled_centers(labeled, y, num_classes)).argmin(1)
    nearest = torch.cdist(labeled, means).masked_fill(size == 0, torch.inf).argmin(1)       # no rows: no mean
    hits = torch.zeros(len(means), num_classes).index_put_((nearest, y), torch.ones(len(y)), accumulate=True)
    rows, columns = map(torch.as_tensor, linear_sum_assignment(hits.numpy(), maximize=True))
    return torch.full((len(means),), -1).index_copy(0, rows, columns)


def cluster_classes(features: Tensor, labeled: Tensor, y: Tensor, num_classes: int, *, clustering: str = "dec",
                    matching: str = "centers", seed: int = 0, progress: Progress | None = None) -> Tensor:
    """(n,) int64: the class of the cluster of each row of features (n, D), -1 for a row in no cluster (dbscan's noise).

    labeled (m, D), y (m,): the labelled rows' features and classes. dec and kmeans begin at the labelled centres, so a
    cluster has a class from the start (matching: centers) or gets one afterwards (hungarian). spectral and dbscan know
    no classes. dbscan's radius is the 90th percentile of the distances to the fifth neighbour, of at most 10,000 rows
    (our choice). Up to num_classes rows get the class of the nearest labelled centre. Raises InputError for an unknown
    clustering or matching, a class without a labelled row, and more rows than spectral clustering can take.
    """
    from sklearn.cluster import DBSCAN, KMeans, SpectralClustering
    from sklearn.decomposition import PCA
    from sklearn.neighbors import NearestNeighbors

    choose("clustering", clustering, CLUSTERINGS[:-1])
    choose("matching", matching, MATCHINGS)
    centers, n = labeled_centers(labeled, y, num_classes), len(features)
    if n <= num_classes:
        return torch.cdist(features, centers).argmin(1)
    table = features.numpy()
    if clustering == "dec":
        points = features, centers
        if features.shape[1] > DEC_WIDTH:
            fewer = PCA(min(DEC_WIDTH, n), random_state=seed).fit(table)
            points = [torch.as_tensor(fewer.transform(x.numpy())) for x in points]
        cluster = dec(*points, seed=seed, progress=progress).cluster
    elif clustering == "kmeans":
        cluster = KMeans(num_classes, init=centers.numpy(), n_init=1, random_state=seed).fit_predict(table)
    elif clustering == "spectral":
        require(n <= SPECTRAL_ROWS, f"spectral clustering of {n:,} rows would take too long and too much memory: "
                f"at most {SPECTRAL_ROWS:,}; use dec or kmeans")
        model = SpectralClustering(num_classes, affinity="nearest_neighbors", n_neighbors=min(10, n),
                                   assign_labels="cluster_qr", random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)            # a graph in several parts: these are the clusters
            cluster = model.fit_predict(table)
    else:                                                           # each row is its own first neighbour
        fifth = NearestNeighbors(n_neighbors=min(6, n)).fit(table).kneighbors(table[::n // 10_000 + 1])[0][:, -1]
        cluster = DBSCAN(eps=float(torch.as_tensor(fifth).quantile(0.9)), min_samples=5).fit_predict(table)
    cluster = torch.as_tensor(cluster).long()
    if clustering in ("dec", "kmeans") and matching == "centers":
        return cluster
    found, inside = torch.full_like(cluster, -1), cluster >= 0
    if inside.any():
        classes = match(features[inside], cluster[inside], labeled, y, num_classes, matching)
        found[inside] = classes[cluster[inside]]
    return found
