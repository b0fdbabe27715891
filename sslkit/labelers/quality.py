"""How good labels are, measured by the hidden truth; and how far each class has grown, which needs no truth."""
import statistics
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def label_quality(label: Tensor, truth: Tensor, num_classes: int) -> dict:
    """How good labels (n,), -1 for none, are by the hidden truth (n,), -1 where unknown: rows labelled, coverage (their
    share), precision (of those whose truth is known; None if there are none), rows per class."""
    given = label >= 0
    right = (label == truth)[given & (truth >= 0)]
    precision = right.float().mean().item() if len(right) else None
    return {"rows": int(given.sum()), "coverage": given.float().mean().item(), "precision": precision,
            "per_class": torch.bincount(label[given], minlength=num_classes).tolist()}


def by_class(answer: Tensor, truth: Tensor, classes: int, groups: Mapping[str, Sequence[int]] = {}) -> dict:
    """Accuracy of each class, a list of C, None for a class without rows in truth; and the mean over each group of
    classes, None for a group without rows. answer, truth (n,) int64; rows with truth -1 are left out."""
    answer, truth = answer[truth >= 0], truth[truth >= 0]
    right = torch.bincount(truth[answer == truth], minlength=classes).tolist()
    each = [r / n if n else None for r, n in zip(right, torch.bincount(truth, minlength=classes).tolist())]
    known = {name: [each[c] for c in group if each[c] is not None] for name, group in groups.items()}
    return {"class": each, **{name: statistics.fmean(values) if values else None for name, values in known.items()}}


def class_growth(label: Tensor, order: Tensor, y: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """How far each class has grown after each of m rounds of a labelling such as HDL's, without the truth.

    label (n,), all known; order (n,): its round, 0 for the given labels; y (n,): the given labels, -1 elsewhere.
    Returns (m,), the share of all n rows that have a label, and (m, C), a class's rows over those it would have in the
    end with its share of the given labels. 1 at the end: it kept that share. Far above 1: it flooded other classes.
    """
    rows = order.argsort(stable=True)
    total = F.one_hot(label[rows], classes).cumsum(0)
    ends = torch.cat([order[rows].diff().nonzero()[:, 0], torch.tensor([len(rows) - 1])])
    expected = len(y) * torch.bincount(y[y >= 0], minlength=classes) / (y >= 0).sum()
    return (ends + 1) / len(y), total[ends] / expected


def interval(right: int, n: int) -> tuple[float, float]:
    """From where to where the share of right labels may lie if `right` of n rows drawn at random are: Wilson's 95%
    interval."""
    from scipy.stats import binomtest

    found = binomtest(right, n).proportion_ci(method="wilson") if n else (0.0, 1.0)
    return float(found[0]), float(found[1])


def by_chance(a: Tensor, b: Tensor) -> float:
    """How probable a difference like that between a and b is if both are equally good. a, b (n,) bool: which of the
    same rows each has right. The exact two-sided sign test over the rows where only one is right (McNemar)."""
    from scipy.stats import binomtest

    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def precision_curve(right: Tensor, order: Tensor) -> Tensor:
    """(n,): the share of right labels in the first row, the first two ... right (n,) bool; order (n,): the rows."""
    return right[order].cumsum(0) / torch.arange(1, len(order) + 1)
