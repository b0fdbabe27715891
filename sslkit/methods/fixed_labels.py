"""FixedLabels, HDL's second stage: a trained network continues with a labeler's labels (Ma et al., arXiv 2404.17173).

Any method's network continues. Its unlabelled images were labelled from their neighbours (labelers.hdl), or from the
network's own answers for the control, and are now trained on as labelled images are, under strong views:

    L = l_s + lambda_u l_u,  l_s = mean H(y, p(a(x)))
    l_u = mean over ALL unlabelled rows of 1[u has a label] H(y_HDL(u), p(A(u)))

The labels come with the data (SSLData.pseudo); any labeler's will do.

Differs from the paper, which has no public code:
1. The loss without a gate, lambda_u = 1, a third of the steps and 0.3 of the learning rate are ours, see hdl_on.
2. Strong views and the clocks of short runs as in FixMatch.
"""
from typing import Annotated

import torch.nn.functional as F
from torch import Tensor, nn

from sslkit.errors import not_negative
from sslkit.methods.base import Method
from sslkit.networks import Nets
from sslkit.records import Batch, Spec, Step


class FixedLabels(Method):
    """Trains on the labels that a labeler gave the unlabelled images. They never change."""
    views, standalone = ("strong",), False

    def __init__(self,
                 lambda_u: Annotated[float, "weight of the unlabelled loss (default: 1; paper: not known)"] = 1.0):
        super().__init__()
        not_negative(lambda_u=lambda_u)
        self.lambda_u = lambda_u

    def setup(self, spec: Spec) -> dict[str, nn.Module]:
        self.pseudo_buffer(spec)
        self.num_classes = spec.num_classes
        return {}

    def loss(self, nets: Nets, batch: Batch, progress: Tensor) -> Step:
        x, strong = nets(batch.x, *batch.u)
        label = self.pseudo[batch.j]                                          # (mu*B,)
        mask = (label >= 0).float()
        label = label.clamp(min=0)

        l_s = F.cross_entropy(x.logits, batch.y)
        l_u = (F.cross_entropy(strong.logits, label, reduction="none") * mask).mean()
        q = F.one_hot(label, self.num_classes) * mask[:, None]                # a row of zeros where there is no label
        return Step(l_s + self.lambda_u * l_u, {"sup": l_s.detach(), "unsup": l_u.detach()}, q, mask)
