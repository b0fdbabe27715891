"""Supervised training on the labelled images alone: what every semi-supervised method is measured against.

    L_s = mean H(y, p(a(x)))
"""
import torch.nn.functional as F
from torch import Tensor

from sslkit.methods.base import Method
from sslkit.networks import Nets
from sslkit.records import Batch, Step


class Supervised(Method):
    """Cross entropy on weak views of the labelled images; the unlabelled ones are not looked at."""
    views = ()

    def loss(self, nets: Nets, batch: Batch, progress: Tensor) -> Step:
        (x,) = nets(batch.x)
        l_s = F.cross_entropy(x.logits, batch.y)
        return Step(l_s, {"sup": l_s.detach()})
