"""Dash: Semi-Supervised Learning with Dynamic Thresholding (Xu et al., ICML 2021, arXiv 2109.00650), with the settings
of the authors' published script.

FixMatch whose threshold starts as loose as the labelled loss and tightens at a fixed rate. An epoch e is 1/1024 of the
run.

    l_w  = -log max p(a(u));   t = floor((e - 1) / 9);   rho = rho_0 gamma^(-t), rho_0 the labelled loss in epoch 9
    mask = 1 in the first 10 epochs, then l_w < max(rho, rho_min)
    q    = softmax(logits(a(u)) / T) in the first 10 epochs and while rho > rho_min, then the one-hot argmax
    l_u  = mean over the KEPT rows of H(q, p(A(u))), 0 where none is kept
    L    = l_s + lambda_u l_u

Differs from the paper:
1. The authors' code takes rho_0 from the unlabelled rows, mean H(softmax(logits(a(u)) / T), p(A(u))): rho0="unlabeled".
   Public code that takes the test loss looks at the answers.
2. A short run may have no step in epoch 9; rho_0 is then the mean of the last epoch before the tenth that has one.
3. average="all" divides by all rows, as FixMatch does.
4. passes="split" by default, strong views and the clocks of short runs as in FixMatch.
"""
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslkit.errors import choose, not_negative, positive, require
from sslkit.methods.base import Method, Passes, forward, known_passes
from sslkit.methods.ops import mean_of
from sslkit.networks import Nets
from sslkit.processes import all_mean
from sslkit.records import Batch, Spec, Step

EPOCHS, WARM, EVERY = 1024, 10, 9         # of a run; those that keep all rows; those between two tightenings


class Dash(Method):
    """FixMatch with a threshold that starts at the labelled loss and tightens."""

    def __init__(self,
                 gamma: Annotated[float, "how much the threshold tightens each time, above 1 (default and paper: "
                                  "1.27)"] = 1.27,
                 rho_min: Annotated[float, "the tightest threshold, a loss (default and paper: 0.05, a confidence of "
                                    "0.951)"] = 0.05,
                 T: Annotated[float, "sharpening temperature of the soft targets (default and paper: 0.5)"] = 0.5,
                 lambda_u: Annotated[float, "weight of the unlabelled loss (default and paper: 0.9)"] = 0.9,
                 rho0: Annotated[Literal["labeled", "unlabeled"], "the loss that the threshold starts from (default: "
                                 "labeled; paper: unlabeled, in its code)"] = "labeled",
                 average: Annotated[Literal["kept", "all"], "the rows over which the unlabelled loss is a mean "
                                    "(default and paper: kept)"] = "kept",
                 passes: Passes = "split"):
        super().__init__()
        require(1 < gamma < float("inf"), f"gamma is {gamma:g}, it must be a finite number above 1")
        positive(rho_min=rho_min, T=T)
        not_negative(lambda_u=lambda_u)
        self.gamma, self.rho_min, self.T, self.lambda_u, self.passes = gamma, rho_min, T, lambda_u, known_passes(passes)
        self.rho0 = choose("rho0", rho0, ("labeled", "unlabeled"))
        self.average = choose("average", average, ("kept", "all"))

    def setup(self, spec: Spec) -> dict[str, nn.Module]:
        """Of the last epoch of the warm-up that was seen: the sum of its losses, their count, its number."""
        for name in ("total", "count", "epoch"):
            self.register_buffer(name, torch.zeros(()))
        return {}

    def loss(self, nets: Nets, batch: Batch, progress: Tensor) -> Step:
        u_w, u_s = batch.u
        x, weak, strong = forward(nets, batch.x, u_w, u_s, passes=self.passes)

        epoch = (EPOCHS * progress).floor()
        warm = epoch < WARM
        rho = self.total / self.count.clamp(min=1) * self.gamma ** -((epoch - 1) / EVERY).floor()
        logits = weak.logits.detach()
        sharp, label = (logits / self.T).softmax(1), logits.argmax(1)                         # (mu*B, C), (mu*B,)
        q = torch.where(warm | (rho > self.rho_min), sharp, F.one_hot(label, sharp.shape[1]).to(sharp.dtype))
        limit = torch.where(warm, float("inf"), rho.clamp(min=self.rho_min))
        mask = (F.cross_entropy(logits, label, reduction="none") < limit).float()

        l_s = F.cross_entropy(x.logits, batch.y)
        rows = F.cross_entropy(strong.logits, q, reduction="none")
        l_u = (rows * mask).mean() if self.average == "all" else mean_of(rows, mask)
        if self.training:
            self.note(epoch, warm, l_s if self.rho0 == "labeled" else F.cross_entropy(strong.logits, sharp))
        return Step(l_s + self.lambda_u * l_u,
                    {"sup": l_s.detach(), "unsup": l_u.detach(), "tau": (-limit).exp()}, q, mask)

    def note(self, epoch: Tensor, warm: Tensor, loss: Tensor) -> None:
        """Add a loss () of the warm-up to those of its epoch (); a new epoch begins a new sum."""
        same = (epoch == self.epoch).float()
        for buffer, new in ((self.total, all_mean(loss.detach())), (self.count, 1.0)):
            buffer.copy_(torch.where(warm, same * buffer + new, buffer))
        self.epoch.copy_(torch.where(warm, epoch, self.epoch))
