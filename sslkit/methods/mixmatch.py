"""MixMatch: A Holistic Approach to Semi-Supervised Learning (Berthelot et al., NeurIPS 2019, arXiv 1905.02249).

The network's mean answer to two weak views, sharpened, is the target of both. Then each image and its target are mixed
with another image and its target, so that the network learns to be linear between them.

    q    = sharpen((p(a1(u)) + p(a2(u))) / 2, T),  sharpen(q)_c = q_c^(1/T) / sum
    rows = x, a1(u), a2(u) with targets y, q, q;   row i' = lam_i row i + (1 - lam_i) row permutation(i), targets alike,
           lam_i = max(l, 1 - l), l from Beta(alpha, alpha)
    l_s  = mean H(y', p(x'))                       over the first B mixed rows
    l_u  = mean over the other rows and the C classes of (q' - p(u'))^2
    L    = l_s + lambda_u min(1, k / (ramp K)) l_u

Differs from the paper:
1. The mixed rows run in one forward, normalised together; its code splits them into batches of B, interleaved. The
   running statistics follow the weak views, which the network is evaluated on; its code's follow the first such batch.
2. FixMatch's protocol replaces its own (Adam, a constant learning rate, weight decay by hand), as in Table 2 of the
   FixMatch paper. mu is by default that of the other methods; there it is 1 (--mu 1).
3. Short runs have their own clocks, see training.Config. The weight rises over 2^14 steps, as in the paper's runs, but
   at most over 0.4 of the run. Over 1/64 of a short run, 31 steps of 2,000, the first, poor targets do harm.
"""
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslkit.errors import in_unit, not_negative, positive
from sslkit.methods.base import Method
from sslkit.methods.ops import mixup, mixup_draws, papers_ramp, ramp_up, sharpen
from sslkit.networks import Nets
from sslkit.records import Batch, Spec, Step


class MixMatch(Method):
    """Sharpened mean answers to two weak views as targets, and every image mixed with another."""
    views, mixes = ("weak", "weak"), True

    def __init__(self,
                 T: Annotated[float, "sharpening temperature, smaller is sharper (default and paper: 0.5)"] = 0.5,
                 lambda_u: Annotated[float, "weight of the unlabelled loss (default and paper: 75 on CIFAR-10; "
                                     "CIFAR-100 150, SVHN 250, STL-10 50)"] = 75.0,
                 alpha: Annotated[float, "mixing shares follow Beta(alpha, alpha) (default and paper: 0.75)"] = 0.75,
                 ramp: Annotated[float | None, "share of the run over which the weight of the unlabelled loss rises, 0 "
                                 "to 1 (default: that of 2^14 steps, at most 0.4; paper: 1/64)"] = None):
        super().__init__()
        not_negative(lambda_u=lambda_u)
        positive(T=T, alpha=alpha)
        in_unit(ramp=ramp)
        self.T, self.lambda_u, self.alpha, self.ramp = T, lambda_u, alpha, ramp

    def setup(self, spec: Spec) -> dict[str, nn.Module]:
        """Nothing but the share of the run over which the weight rises."""
        self.share = papers_ramp(spec.steps) if self.ramp is None else self.ramp
        return {}

    def draw(self, g: torch.Generator, n_x: int, n_u: int) -> dict[str, Tensor]:
        return mixup_draws(g, n_x + 2 * n_u, self.alpha)

    def loss(self, nets: Nets, batch: Batch, progress: Tensor) -> Step:
        first, second = nets(*batch.u, grad=False)
        q = sharpen((first.logits.softmax(1) + second.logits.softmax(1)) / 2, self.T)                 # (mu*B, C)

        targets = torch.cat((F.one_hot(batch.y, q.shape[1]).to(q.dtype), q, q))
        n, rows = len(batch.x), torch.cat((batch.x, *batch.u))
        mixed, targets = (mixup(a, batch.draws["permutation"], batch.draws["lam"]) for a in (rows, targets))
        x, u = nets(mixed[:n], mixed[n:], bn="batch")

        l_s = F.cross_entropy(x.logits, targets[:n])
        l_u = (u.logits.softmax(1) - targets[n:]).square().mean()
        return Step(l_s + self.lambda_u * ramp_up(progress, self.share) * l_u,
                    {"sup": l_s.detach(), "unsup": l_u.detach()}, q, torch.ones_like(q[:, 0]))
