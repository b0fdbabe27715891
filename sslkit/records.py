"""The frozen records that pass between the rooms. B labelled rows a batch, mu unlabelled ones for each, C classes, D features.

H and W are the sides of an image in pixels, `num` its channels. Everything is float32 on the run's device unless it says otherwise.
"""
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

Progress = Callable[[int, int, str], None]         # shown (done, total, what)


class Batch(NamedTuple):
    """One step's images, augmented and normalised. The true labels of u are never here."""
    x: Tensor                     # (B, num, H, W)  weak views of labelled images
    y: Tensor                     # (B,) int64      their labels
    u: tuple[Tensor, ...]         # views of unlabelled images in the order of Method.views, each (mu*B, num, H, W)
    i: Tensor                     # (B,) int64      rows in the labelled set, for memory banks
    j: Tensor                     # (mu*B,) int64   rows in the unlabelled set, for state kept for each image
    draws: dict[str, Tensor]      # the method's own random numbers for this step


class Out(NamedTuple):
    """What a network says of one view, in float32 whatever it ran in."""
    logits: Tensor                # (n, C)
    feat: Tensor                  # (n, D)  pooled features, before the classifier
    heads: dict[str, Tensor]      # what a method's own heads make of feat


class Step(NamedTuple):
    """What every method returns, and so what every plot can rely on."""
    loss: Tensor                  # ()
    terms: dict[str, Tensor]      # detached scalars, the same keys at every step: sup, unsup ...
    q: Tensor | None = None       # (mu*B, C) the target before it is hardened; its argmax is the pseudo-label
    mask: Tensor | None = None    # (mu*B,)   its weight, 0 to 1


class Spec(NamedTuple):
    """What a method may know before the first step."""
    num_classes: int
    feat_dim: int
    y: Tensor                     # (num_labeled,) int64 labels of the labelled set, in the order of Batch.i
    num_unlabeled: int
    batch_size: int
    mu: int
    steps: int
    pseudo: Tensor | None = None  # (num_unlabeled,) int64 a labeler's labels of the unlabelled set, in the order of Batch.j; -1: none


class PseudoLabels(NamedTuple):
    """What a labeler says of N rows."""
    label: Tensor                 # (N,) int64    -1 where it says nothing
    weight: Tensor                # (N,)          0 to 1, 0 where it says nothing
    info: dict[str, Any]          # counts and settings, to be recorded
    source: str                   # which labeler
    rows: dict[str, Tensor] = {}  # what else it says of each row, (N,) each


class Snapshot(NamedTuple):
    """Where a run stands. train() yields one about every second and one at each evaluation."""
    step: int                     # optimiser steps done
    metrics: dict[str, Any]       # running means since the last evaluation; at an evaluation test_acc too
    evaluated: bool               # is this an evaluation? Then the metrics belong into the run's record
    nets: Any                     # nets.Nets: the student and its EMA teacher
    state: Callable[[], dict]     # everything an exact resume needs, as plain tensors and numbers; ask before the next step
