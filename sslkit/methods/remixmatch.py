"""ReMixMatch: Semi-Supervised Learning with Distribution Alignment and Augmentation Anchoring (Berthelot et al.,
ICLR 2020, arXiv 1911.09785).

MixMatch with three additions: the targets' class shares are aligned with the labels' (distribution alignment), a weak
view labels several strong ones (augmentation anchoring), and the network predicts how far an image was turned.

    q    = sharpen(N(p(a(u)) (p_data + 1e-6) / (p_model + 1e-6)), T),  N normalises; p_model the mean of the last 128
           batch means of p(a(u)), p_data a running mean of the labelled batches' class shares, both 1/C at the start
    rows = x, a(u), S_1(u) .. S_V(u) with targets y, q .. q, mixed as in MixMatch
    L    = mean H(y', p(x')) + lambda_u w mean H(q', p(u')) + lambda_s w mean H(q, p(S_1))
           + lambda_r mean H(r, p_rot(R(S_1)))

w = min(1, k / (ramp K)); S_1 is not mixed in the last two; R turns an image by r quarters, a quarter of the batch by
each r.

Differs from the paper:
1. Strong views are RandAugment's, not CTAugment's. There are 2 by default; the paper's code has 8, TorchSSL and USB 2.
2. The mixed rows run in one forward, S_1 and the turned images in another, each normalised by its own rows. The
   running statistics follow the weak views, as in MixMatch here.
3. FixMatch's protocol. mu is by default that of the other methods; in the paper it is 1 (--mu 1).
4. p_data is estimated from the labelled batches, as in its code. With labels drawn evenly it stays near 1/C.
5. The decay of p_data follows the run's length as the EMA does, min(.999, 1 - 10/K); at the paper's K it is its code's
   .999, with which p_data would still be half 1/C after 693 steps. w rises over 2^14 steps, as in MixMatch here.
"""
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslkit.errors import in_unit, not_negative, positive, require
from sslkit.methods.base import Method
from sslkit.methods.ops import mixup, mixup_draws, papers_ramp, ramp_up, sharpen
from sslkit.networks import Nets
from sslkit.records import Batch, Spec, Step

QUEUE = 128


def turned(images: Tensor, quarters: Tensor) -> Tensor:
    """Images (n, c, H, H), each turned by its number of quarters of a circle (n,)."""
    ways = torch.stack([torch.rot90(images, k, (2, 3)) for k in range(4)])                            # (4, n, c, H, H)
    return ways[quarters, torch.arange(len(images), device=images.device)]


class ReMixMatch(Method):
    """MixMatch with aligned class shares, several strong views of one target, and turned images."""

    pixels = mixes = True

    def __init__(self,
                 T: Annotated[float, "sharpening temperature, smaller is sharper (default and paper: 0.5)"] = 0.5,
                 lambda_u: Annotated[float, "weight of the mixed unlabelled loss (default and paper: 1.5)"] = 1.5,
                 lambda_s: Annotated[float, "weight of the unmixed strong view's loss (default and paper: 0.5)"] = 0.5,
                 lambda_r: Annotated[float, "weight of the rotation loss (default and paper: 0.5)"] = 0.5,
                 alpha: Annotated[float, "mixing shares follow Beta(alpha, alpha) (default and paper: 0.75)"] = 0.75,
                 num_strong: Annotated[int, "strong views V of an image (default: 2; paper: 8)"] = 2,
                 ramp: Annotated[float | None, "share of the run over which the weight of the unlabelled loss rises, 0 "
                                 "to 1 (default: that of 2^14 steps, at most 0.4; paper: 1/64)"] = None):
        super().__init__()
        not_negative(lambda_u=lambda_u, lambda_s=lambda_s, lambda_r=lambda_r)
        positive(T=T, alpha=alpha)
        in_unit(ramp=ramp)
        require(num_strong >= 1, f"num_strong is {num_strong}, it must be at least 1")
        self.T, self.lambda_u, self.lambda_s, self.lambda_r, self.alpha = T, lambda_u, lambda_s, lambda_r, alpha
        self.ramp, self.num_strong, self.views = ramp, num_strong, ("weak", *("strong",) * num_strong)

    def setup(self, spec: Spec) -> dict[str, nn.Module]:
        """The last batch means, the labelled shares; and the rotation head."""
        self.decay = max(0.0, min(0.999, 1 - 10 / spec.steps))
        self.share = papers_ramp(spec.steps) if self.ramp is None else self.ramp
        self.register_buffer("queue", torch.full((QUEUE, spec.num_classes), 1 / spec.num_classes))
        self.register_buffer("pushed", torch.zeros((), dtype=torch.int64))
        self.register_buffer("p_data", torch.full((spec.num_classes,), 1 / spec.num_classes))
        return {"rot": nn.Linear(spec.feat_dim, 4)}

    def draw(self, g: torch.Generator, n_x: int, n_u: int) -> dict[str, Tensor]:
        return {**mixup_draws(g, n_x + (1 + self.num_strong) * n_u, self.alpha), "quarters": torch.arange(n_u) % 4}

    def loss(self, nets: Nets, batch: Batch, progress: Tensor) -> Step:
        (weak,) = nets(batch.u[0], grad=False)
        p = weak.logits.softmax(1)                                                                    # (mu*B, C)
        aligned = p * (self.p_data + 1e-6) / (self.queue.mean(0) + 1e-6)
        q = sharpen(aligned / aligned.sum(1, keepdim=True), self.T)

        y = F.one_hot(batch.y, p.shape[1]).to(q.dtype)
        targets = torch.cat((y, *(q,) * len(batch.u)))
        n, draws, rows = len(batch.x), batch.draws, torch.cat((batch.x, *batch.u))
        mixed, targets = (mixup(a, draws["permutation"], draws["lam"]) for a in (rows, targets))
        x, u = nets(mixed[:n], mixed[n:], bn="batch")
        strong, rotated = nets(batch.u[1], turned(batch.u[1], draws["quarters"]), bn="batch")

        l_s, l_u = F.cross_entropy(x.logits, targets[:n]), F.cross_entropy(u.logits, targets[n:])
        l_1, l_rot = F.cross_entropy(strong.logits, q), F.cross_entropy(rotated.heads["rot"], draws["quarters"])
        if self.training:
            self.queue.index_copy_(0, (self.pushed % QUEUE).view(1), p.mean(0, keepdim=True))
            self.pushed.add_(1)
            self.p_data.lerp_(y.mean(0), 1 - self.decay)
        w = ramp_up(progress, self.share)
        return Step(l_s + w * (self.lambda_u * l_u + self.lambda_s * l_1) + self.lambda_r * l_rot,
                    {"sup": l_s.detach(), "unsup": l_u.detach(), "anchor": l_1.detach(), "rot": l_rot.detach()},
                    q, torch.ones_like(q[:, 0]))
