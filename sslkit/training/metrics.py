"""Figures of merit: plain functions of arrays, shapes in their first line."""
import statistics
from collections.abc import Sequence

import torch
from torch import Tensor

from sslkit.labelers import by_class, class_growth, label_quality, precision_curve  # noqa: F401


def median_last(values: Sequence[float], n: int = 20) -> float:
    """Median of the last n values, or of all if there are fewer; google-research/fixmatch reports it over its
    checkpoints."""
    return statistics.median(values[-n:])


def confusion(truth: Tensor, label: Tensor, num_classes: int) -> Tensor:
    """(C, C) int64 counts: row the true class, column the label. truth, label (n,) int64."""
    return torch.bincount(truth * num_classes + label, minlength=num_classes**2).view(num_classes, num_classes)


def neighbor_purity(points: Tensor, truth: Tensor, k: int = 10) -> float:
    """Mean share of a point's k nearest neighbours (Euclidean, itself excluded) that have its class. points (n, d),
    truth (n,)."""
    distance = torch.cdist(points.float(), points.float()).fill_diagonal_(float("inf"))
    return (truth[distance.topk(k, largest=False).indices] == truth[:, None]).float().mean().item()
