"""Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method for Deep Neural Networks (Lee, ICML workshop
2013), as google-research/fixmatch sets it.

Where the network is confident about an image, it is trained on its own answer to the very same view.

    q   = p(a(u))
    l_u = mean over ALL unlabelled rows of 1[max q > tau] H(argmax q, p(a(u)))
    L   = l_s + lambda_u min(1, k / (ramp K)) l_u,  l_s = mean H(y, p(a(x)))

FixMatch is this with another, stronger view in the second place.

Differs from the paper:
1. The threshold tau; the paper trains on every image's answer, with a weight that rises.
2. FixMatch's protocol replaces its own. mu is by default that of the other methods; in the FixMatch paper it is 1
   (--mu 1).
3. Short runs have their own clocks for EMA and BatchNorm, see training.Config.
"""
from typing import Annotated

import torch.nn.functional as F
from torch import Tensor

from sslkit.errors import in_unit, not_negative
from sslkit.methods.base import Method
from sslkit.methods.ops import ramp_up
from sslkit.networks import Nets
from sslkit.records import Batch, Step


class PseudoLabel(Method):
    """Pseudo-labels from weak views, where confident, for the same views."""
    views = ("weak",)

    def __init__(self,
                 tau: Annotated[float, "confidence above which a pseudo-label is kept, 0 to 1 (default, and "
                                "FixMatch paper: 0.95)"] = 0.95,
                 lambda_u: Annotated[float, "weight of the unlabelled loss (default, and FixMatch paper: 1)"] = 1.0,
                 ramp: Annotated[float, "share of the run over which that weight rises, 0 to 1 (default, and "
                                 "FixMatch paper: 0.4)"] = 0.4):
        super().__init__()
        in_unit(tau=tau, ramp=ramp)
        not_negative(lambda_u=lambda_u)
        self.tau, self.lambda_u, self.ramp = tau, lambda_u, ramp

    def loss(self, nets: Nets, batch: Batch, progress: Tensor) -> Step:
        (x,) = nets(batch.x)
        (u,) = nets(*batch.u, bn="batch")

        q = u.logits.detach().softmax(1)                                      # (mu*B, C)
        confidence, label = q.max(1)
        mask = (confidence > self.tau).float()

        l_s = F.cross_entropy(x.logits, batch.y)
        l_u = (F.cross_entropy(u.logits, label, reduction="none") * mask).mean()
        return Step(l_s + self.lambda_u * ramp_up(progress, self.ramp) * l_u,
                    {"sup": l_s.detach(), "unsup": l_u.detach()}, q, mask)
