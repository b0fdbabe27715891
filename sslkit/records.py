"""The frozen records that the rooms pass to each other: float32 on the run's device, unless a comment says otherwise.

B labelled rows a batch, mu unlabelled ones for each, C classes, D features, num channels, H and W pixels a side.
"""
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

Progress = Callable[[int, int, str], None]         # called with (done, total, what is done)


class Batch(NamedTuple):
    """One step's images, augmented and normalised. It never holds the true labels of u."""
    x: Tensor                     # (B, num, H, W)  weak views of labelled images
    y: Tensor                     # (B,) int64      their labels
    u: tuple[Tensor, ...]         # views of unlabelled images, in the order of Method.views, (mu*B, num, H, W) each
    i: Tensor                     # (B,) int64      rows in the labelled set, for memory banks
    j: Tensor                     # (mu*B,) int64   rows in the unlabelled set, for state of each image
    draws: dict[str, Tensor]      # the method's own random numbers for this step


class Out(NamedTuple):
    """A network's output for one view, in float32 even if the network ran in bfloat16."""
    logits: Tensor                # (n, C)
    feat: Tensor                  # (n, D)  pooled features, before the classifier
    heads: dict[str, Tensor]      # outputs of the method's own heads on feat


class Step(NamedTuple):
    """What every method returns and every plot can rely on."""
    loss: Tensor                  # ()
    terms: dict[str, Tensor]      # detached scalars, with the same keys at every step: sup, unsup ...
    q: Tensor | None = None       # (mu*B, C) target before hardening; its argmax is the pseudo-label (zeros: none)
    mask: Tensor | None = None    # (mu*B,)   weight of each pseudo-label, 0 to 1 (0: not used)


class Spec(NamedTuple):
    """What a method may know before the first step."""
    num_classes: int
    feat_dim: int
    y: Tensor                     # (num_labeled,) int64 labels of the labelled set, in the order of Batch.i
    num_unlabeled: int
    batch_size: int
    mu: int
    steps: int
    pseudo: Tensor | None = None  # (num_unlabeled,) int64 a labeler's labels, in the order of Batch.j; -1: none
    image: tuple[int, ...] = ()   # shape of one view: (num, H, W), or (D,) of features


class PseudoLabels(NamedTuple):
    """A labeler's labels of N rows."""
    label: Tensor                 # (N,) int64    -1: no label
    weight: Tensor                # (N,)          0 to 1; 0: no label
    info: dict[str, Any]          # counts and settings, to be recorded
    source: str                   # name of the labeler
    rows: dict[str, Tensor] = {}  # other results for each row, (N,) each


class Snapshot(NamedTuple):
    """Where a run stands. train() yields one about every second and one at each evaluation."""
    step: int                     # optimiser steps done
    metrics: dict[str, Any]       # running means since the last evaluation; at an evaluation also test_acc
    evaluated: bool               # is this an evaluation? If so, its metrics go into the run's record
    nets: Any                     # networks.Nets: the student and its EMA teacher
    state: Callable[[], dict]     # all that an exact resume needs, as tensors and numbers; call before the next step
