"""Mean Teacher: Weight-averaged consistency targets improve semi-supervised deep learning results (Tarvainen and
Valpola, NeurIPS 2017, arXiv 1703.01780), as google-research/fixmatch sets it.

The Pi-Model with a better target: the answer of the teacher, whose weights are a running mean of the student's.

    l_u = mean over the unlabelled rows and the C classes of (p_teacher(a1(u)) - p(a2(u)))^2
    L   = l_s + lambda_u min(1, k / (ramp K)) l_u,  l_s = mean H(y, p(a(x)))

The teacher normalises by its own batch. With running statistics, which lag behind the weights, it fails: 34.7% in place
of 84.8% on digits. The two views are two draws; public code that compares a view with itself has a loss of zero.

Differs from the paper:
1. The teacher's decay is the same in all steps; the paper's is lower at the start. The paper's loss has the labelled
   images too, and its weight rises as a sigmoid.
2. Weight and ramp are those of the FixMatch paper's Table 2, and so is the protocol. mu is by default that of the other
   methods; there it is 1 (--mu 1).
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


class MeanTeacher(Method):
    """The student answers a weak view as the EMA teacher answers another."""
    views = ("weak", "weak")

    def __init__(self,
                 lambda_u: Annotated[float, "weight of the unlabelled loss (default, and FixMatch paper: 50)"] = 50.0,
                 ramp: Annotated[float, "share of the run over which that weight rises, 0 to 1 (default, and "
                                 "FixMatch paper: 0.4)"] = 0.4):
        super().__init__()
        not_negative(lambda_u=lambda_u)
        in_unit(ramp=ramp)
        self.lambda_u, self.ramp = lambda_u, ramp

    def loss(self, nets: Nets, batch: Batch, progress: Tensor) -> Step:
        first, second = batch.u
        (x,) = nets(batch.x)
        (target,) = nets(first, teacher=True, grad=False)
        (u,) = nets(second, bn="batch")

        q = target.logits.softmax(1)                                          # (mu*B, C)
        l_s = F.cross_entropy(x.logits, batch.y)
        l_u = (q - u.logits.softmax(1)).square().mean()
        return Step(l_s + self.lambda_u * ramp_up(progress, self.ramp) * l_u,
                    {"sup": l_s.detach(), "unsup": l_u.detach()}, q, torch.ones_like(q[:, 0]))
