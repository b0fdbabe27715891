"""Pi-Model: Temporal Ensembling for Semi-Supervised Learning (Laine and Aila, ICLR 2017, arXiv 1610.02242), as
google-research/fixmatch sets it.

Two views of an image show the same thing, so the network should answer both alike. Its answer to the first view is the
target of the second.

    l_u = mean over the unlabelled rows and the C classes of (p(a1(u)) - p(a2(u)))^2, no gradient through p(a1(u))
    L   = l_s + lambda_u min(1, k / (ramp K)) l_u,  l_s = mean H(y, p(a(x)))

The weight rises slowly: at the start the network would only agree with its own random answers.

Differs from the paper:
1. The target carries no gradient; the paper's flows through both views. Its loss has the labelled images too, and its
   weight rises as a Gaussian.
2. Weight and ramp are those of the FixMatch paper's Table 2, and so is the protocol (the paper has Adam, dropout and
   noise on the pixels). mu is by default that of the other methods; there it is 1 (--mu 1).
3. Short runs have their own clocks for EMA and BatchNorm, see training.Config.
"""
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from sslkit.errors import in_unit, not_negative
from sslkit.methods.base import Method
from sslkit.methods.ops import ramp_up
from sslkit.networks import Nets
from sslkit.records import Batch, Step


class PiModel(Method):
    """Two weak views of an image get the same answer."""
    views = ("weak", "weak")

    def __init__(self,
                 lambda_u: Annotated[float, "weight of the unlabelled loss (default, and FixMatch paper: 10)"] = 10.0,
                 ramp: Annotated[float, "share of the run over which that weight rises, 0 to 1 (default, and "
                                 "FixMatch paper: 0.4)"] = 0.4):
        super().__init__()
        not_negative(lambda_u=lambda_u)
        in_unit(ramp=ramp)
        self.lambda_u, self.ramp = lambda_u, ramp

    def loss(self, nets: Nets, batch: Batch, progress: Tensor) -> Step:
        first, second = batch.u
        (x,) = nets(batch.x)
        (target,) = nets(first, grad=False, bn="batch")
        (u,) = nets(second, bn="batch")

        q = target.logits.softmax(1)                                          # (mu*B, C)
        l_s = F.cross_entropy(x.logits, batch.y)
        l_u = (q - u.logits.softmax(1)).square().mean()
        return Step(l_s + self.lambda_u * ramp_up(progress, self.ramp) * l_u,
                    {"sup": l_s.detach(), "unsup": l_u.detach()}, q, torch.ones_like(q[:, 0]))
