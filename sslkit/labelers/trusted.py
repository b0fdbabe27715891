"""Labelers: from what a network says of the training rows, probabilities or embeddings, to PseudoLabels. No network, no loop.

confident() believes every confident row. cluster_agree() is KD-FixMatch's trusted subset (Wang et al., arXiv 2309.05826): the confident
rows whose cluster, found without looking at the classifier, is of the class that the classifier names. Clusters by deep embedding
clustering (DEC: Xie et al. 2016, arXiv 1511.06335), or scikit-learn's. What the paper leaves open is marked "ours".
"""
import warnings

import torch
from torch import Tensor

from sslkit.errors import choose, in_unit, require
from sslkit.labelers.clusters import CLUSTERINGS, MATCHINGS, SPECTRAL_ROWS, Clustering, Matching, dec, labeled_centers, match
from sslkit.records import PseudoLabels


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
