"""Labelers: from what a network says of the training rows, probabilities or embeddings, to PseudoLabels. No network, no loop.

confident() believes every confident row. cluster_agree() is KD-FixMatch's trusted subset (Wang et al., arXiv 2309.05826): the confident
rows whose cluster, found without looking at the classifier, is of the class that the classifier names. Clusters by deep embedding
clustering (DEC: Xie et al. 2016, arXiv 1511.06335), or scikit-learn's. What the paper leaves open is marked "ours".
"""
import warnings
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from sslkit.errors import choose, in_unit, require
from sslkit.records import PseudoLabels

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


def cluster_classes(features: Tensor, labeled: Tensor, y: Tensor, num_classes: int, *, clustering: str = "dec", matching: str = "centers",
                    seed: int = 0, progress=None) -> Tensor:
    """(n,) int64: the class of the cluster of each row of features (n, D), -1 where it is in none (dbscan's noise).

    labeled (m, D), y (m,): the labelled rows' features. dec and kmeans begin at the labelled centres, so that a cluster has a class from
    the start (matching: centers) or is given one afterwards (hungarian); spectral and dbscan know no classes. dbscan's radius is the 90th
    percentile of the distances to the fifth neighbour, of at most 10,000 rows (ours). InputError where spectral clustering would be given
    too many rows.
    """
    from sklearn.cluster import DBSCAN, KMeans, SpectralClustering
    from sklearn.neighbors import NearestNeighbors

    choose("clustering", clustering, CLUSTERINGS[:-1])
    choose("matching", matching, MATCHINGS)
    centers = labeled_centers(labeled, y, num_classes)
    if len(features) <= num_classes:                                                 # too few to cluster: the nearest labelled centre
        return torch.cdist(features, centers).argmin(1)
    if clustering == "dec":
        cluster = dec(features, centers, seed=seed, progress=progress).cluster
    elif clustering == "kmeans":
        cluster = KMeans(num_classes, init=centers.numpy(), n_init=1, random_state=seed).fit_predict(features.numpy())
    elif clustering == "spectral":
        require(len(features) <= SPECTRAL_ROWS, f"spectral clustering of {len(features):,} rows would take too long and too much memory: "
                f"at most {SPECTRAL_ROWS:,}; dec and kmeans can take more")
        model = SpectralClustering(num_classes, affinity="nearest_neighbors", assign_labels="cluster_qr", random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)                             # a graph in several parts: clusters are just that
            cluster = model.fit_predict(features.numpy())
    else:
        some = features[::len(features) // 10_000 + 1]                               # a row is its own first neighbour
        fifth = NearestNeighbors(n_neighbors=min(6, len(features))).fit(features.numpy()).kneighbors(some.numpy())[0][:, -1]
        cluster = DBSCAN(eps=float(torch.as_tensor(fifth).quantile(0.9)), min_samples=5).fit_predict(features.numpy())
    cluster = torch.as_tensor(cluster).long()
    if clustering in ("dec", "kmeans") and matching == "centers":
        return cluster
    found, inside = torch.full_like(cluster, -1), cluster >= 0
    if inside.any():
        found[inside] = match(features[inside], cluster[inside], labeled, y, num_classes, matching)[cluster[inside]]
    return found


def confident(p: Tensor, tau: float = 0.95) -> PseudoLabels:
    """Every row whose largest probability reaches tau, labelled by it. p (N, C)."""
    in_unit(tau=tau)
    confidence, label = p.max(1)
    kept = confidence >= tau
    return PseudoLabels(torch.where(kept, label, -1), kept.float(), {"rows": len(p), "confident": int(kept.sum())}, "confident")


def cluster_agree(p: Tensor, features: Tensor, y: Tensor, *, tau: float = 0.8, clustering: Clustering = "dec",
                  matching: Matching = "centers", seed: int = 0, progress=None) -> PseudoLabels:
    """KD-FixMatch's trusted subset: rows whose largest probability reaches tau and whose cluster has the class it names.

    p (N, C) and features (N, D) of all training rows on the plain images; y (N,), the labels that may be known, -1 elsewhere. Only the
    confident rows are clustered. clustering="none" trusts them all. info says how many passed the confidence and how many the clustering.
    Raises InputError for an unknown clustering or matching, a tau outside [0, 1], a class without a labelled row, features that are no
    numbers.
    """
    choose("clustering", clustering, CLUSTERINGS)
    require(len(p) == len(features) == len(y), f"p has {len(p)} rows, features {len(features)}, y {len(y)}: they must be the same rows")
    require(bool(features.isfinite().all() and p.isfinite().all()), "features and probabilities must be finite numbers")
    passed = confident(p, tau)
    rows, label = (passed.label >= 0).nonzero()[:, 0], passed.label.clone()
    if clustering != "none" and len(rows):
        known = y >= 0
        found = cluster_classes(features[rows].cpu(), features[known].cpu(), y[known].cpu(), p.shape[1], clustering=clustering,
                                matching=matching, seed=seed, progress=progress).to(label.device)
        label[rows] = torch.where(found == label[rows], found, -1)
    info = passed.info | {"trusted": int((label >= 0).sum()), "clustering": clustering, "tau_select": tau}
    return PseudoLabels(label, (label >= 0).float(), info, "cluster_agree")
