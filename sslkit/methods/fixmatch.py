"""FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence (Sohn et al., NeurIPS 2020,
arXiv 2001.07685).

The network labels a weakly augmented image itself. Where it is confident, the strongly augmented image is trained on
that label.

    q   = p(a(u))
    l_u = mean over ALL unlabelled rows of 1[max q >= tau] H(argmax q, p(A(u)))
    L   = l_s + lambda_u l_u,  l_s = mean H(y, p(a(x)))

eman=True is FixMatch-EMAN (Cai et al., CVPR 2021, arXiv 2101.08482): the EMA network, whose BatchNorm statistics are
averaged as its weights are, gives q, normalised by these statistics; the student sees a(x) and A(u) in one forward.

Differs from the paper:
1. passes="split" (the default) runs the weak views in a forward of their own, without gradient, normalised by their own
   batch statistics; the running statistics are updated twice a step. The paper's code runs all views in one forward
   (passes="joint"), where the weak rows also receive a gradient through the statistics that all rows share.
2. RandAugment, by default `mc` (under 16 px our own `small`); the paper's code has `rac`, and offers CTAugment too.
3. Short runs have their own clocks for EMA and BatchNorm, see training.Config; at the paper's K they are the paper's.
4. The EMA network is evaluated with eman too; the authors of FixMatch-EMAN evaluate the student, and train it without
   Nesterov momentum. eman sets nothing else of their recipe for ImageNet.
"""
from typing import Annotated

import torch.nn.functional as F
from torch import Tensor

from sslkit.errors import in_unit, not_negative
from sslkit.methods.base import Method, Passes, forward, known_passes
from sslkit.networks import Nets
from sslkit.records import Batch, Step


class FixMatch(Method):
    """Pseudo-labels from weak views, where confident, for strong views."""

    def __init__(self,
                 tau: Annotated[float, "confidence to keep a pseudo-label, 0 to 1 (default and paper: 0.95)"] = 0.95,
                 lambda_u: Annotated[float, "weight of the unlabelled loss (default and paper: 1)"] = 1.0,
                 passes: Passes = "split",
                 eman: Annotated[bool, "the EMA network labels the weak views, its BatchNorm statistics averaged too "
                                 "(default and paper: no; FixMatch-EMAN: yes, on ImageNet with tau 0.7, lambda_u 10)"]
                 = False):
        super().__init__()
        in_unit(tau=tau)
        not_negative(lambda_u=lambda_u)
        self.tau, self.lambda_u, self.passes = tau, lambda_u, known_passes(passes)
        self.eman, self.ema_buffers = eman, "average" if eman else "copy"

    def loss(self, nets: Nets, batch: Batch, progress: Tensor) -> Step:
        u_w, u_s = batch.u
        if self.eman:
            (weak,) = nets(u_w, teacher=True, grad=False, bn="running")
            x, strong = nets(batch.x, u_s)
        else:
            x, weak, strong = forward(nets, batch.x, u_w, u_s, passes=self.passes)

        q = weak.logits.detach().softmax(1)                                   # (mu*B, C)
        confidence, label = q.max(1)
        mask = (confidence >= self.tau).float()

        l_s = F.cross_entropy(x.logits, batch.y)
        l_u = (F.cross_entropy(strong.logits, label, reduction="none") * mask).mean()
        return Step(l_s + self.lambda_u * l_u, {"sup": l_s.detach(), "unsup": l_u.detach()}, q, mask)
