"""Labels from a network's answers for the training rows: probabilities, and for the trusted subset embeddings too."""
import torch
from torch import Tensor

from sslkit.errors import choose, in_unit, require
from sslkit.labelers.clusters import CLUSTERINGS, Clustering, Matching, cluster_classes
from sslkit.records import PseudoLabels


def confident(p: Tensor, tau: float = 0.95) -> PseudoLabels:
    """Every row whose largest probability is at least tau, with the label of that probability. p (N, C)."""
    in_unit(tau=tau)
    confidence, label = p.max(1)
    kept = confidence >= tau
    info = {"rows": len(p), "confident": int(kept.sum())}
    return PseudoLabels(torch.where(kept, label, -1), kept.float(), info, "confident")


def cluster_agree(p: Tensor, features: Tensor, y: Tensor, *, tau: float = 0.8, clustering: Clustering = "dec",
                  matching: Matching = "centers", seed: int = 0, progress=None) -> PseudoLabels:
    """KD-FixMatch's trusted subset (Wang et al., arXiv 2309.05826): the confident rows whose cluster has the class that
    the classifier gives them. The clusters are found from the features alone, without the classifier's answers.

    p (N, C) and features (N, D): of all training rows, plain images; y (N,): the known labels, -1 elsewhere. Only the
    confident rows are clustered; clustering="none" trusts them all. info: how many rows were confident, how many of
    them are trusted.
    Raises InputError for an unknown clustering or matching, a tau outside [0, 1], a class without a labelled row,
    different numbers of rows, and values that are not finite.
    """
    choose("clustering", clustering, CLUSTERINGS)
    require(len(p) == len(features) == len(y),
            f"p has {len(p)} rows, features {len(features)}, y {len(y)}: they must be the same rows")
    require(bool(features.isfinite().all() and p.isfinite().all()), "features and probabilities must be finite numbers")
    passed = confident(p, tau)
    rows, label = (passed.label >= 0).nonzero()[:, 0], passed.label.clone()
    if clustering != "none" and len(rows):
        known = y >= 0
        found = cluster_classes(features[rows].cpu(), features[known].cpu(), y[known].cpu(), p.shape[1],
                                clustering=clustering, matching=matching, seed=seed, progress=progress).to(label.device)
        label[rows] = torch.where(found == label[rows], found, -1)
    info = passed.info | {"trusted": int((label >= 0).sum()), "clustering": clustering, "tau_select": tau}
    return PseudoLabels(label, (label >= 0).float(), info, "cluster_agree")
