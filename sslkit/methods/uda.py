"""UDA: Unsupervised Data Augmentation for Consistency Training (Xie et al., NeurIPS 2020, arXiv 1904.12848).

The answer to a weak view, sharpened, is the target of the strong view, where the network is confident.

    q   = softmax(logits(a(u)) / T)
    l_u = mean over ALL unlabelled rows of 1[max p(a(u)) > tau] KL(q || p(A(u)))
    L   = l_s + lambda_u l_u

FixMatch is the limit of small T. Training signal annealing (tsa), for few labels, leaves out the labelled images that
the network already knows, so that it does not learn them by heart: l_s = mean of H(y, p(a(x))) over the rows with
p_y <= a (1 - 1/C) + 1/C; with s = k/K, a = s (linear), exp(5 (s - 1)) (exp) or 1 - exp(-5 s) (log).

Differs from the paper:
1. tsa is off by default, as in google-research/fixmatch, whose UDA, the likely origin of SimMatch's Table 1, also has
   tau 0.95 and T 1. The paper's code has >, google-research/fixmatch >=.
2. passes="split" by default, strong views and the clocks of short runs as in FixMatch.
"""
from typing import Annotated, Literal

import torch.nn.functional as F
from torch import Tensor

from sslkit.errors import choose, in_unit, not_negative, positive
from sslkit.methods.base import Method, Passes, forward, known_passes
from sslkit.methods.ops import mean_of
from sslkit.networks import Nets
from sslkit.records import Batch, Step

TSA = Literal["none", "linear", "exp", "log"]


class UDA(Method):
    """Sharpened answers to weak views, where confident, as targets of strong views."""

    def __init__(self,
                 tau: Annotated[float, "confidence above which a target is kept, 0 to 1 (default and paper: "
                                "0.8)"] = 0.8,
                 T: Annotated[float, "sharpening temperature, smaller is sharper (default and paper: 0.4)"] = 0.4,
                 lambda_u: Annotated[float, "weight of the unlabelled loss (default and paper: 1)"] = 1.0,
                 tsa: Annotated[TSA, "training signal annealing: the schedule by which labelled images that the "
                                "network classifies well are used again (default: none; paper: exp, with few "
                                "labels)"] = "none",
                 passes: Passes = "split"):
        super().__init__()
        in_unit(tau=tau)
        positive(T=T)
        not_negative(lambda_u=lambda_u)
        self.tau, self.T, self.lambda_u = tau, T, lambda_u
        self.tsa, self.passes = choose("tsa", tsa, TSA.__args__), known_passes(passes)

    def loss(self, nets: Nets, batch: Batch, progress: Tensor) -> Step:
        u_w, u_s = batch.u
        x, weak, strong = forward(nets, batch.x, u_w, u_s, passes=self.passes)

        logits = weak.logits.detach()
        q = (logits / self.T).softmax(1)                                      # (mu*B, C)
        mask = (logits.softmax(1).amax(1) > self.tau).float()

        l_s = self.annealed(x.logits, batch.y, progress)
        l_u = (F.kl_div(strong.logits.log_softmax(1), q, reduction="none").sum(1) * mask).mean()
        return Step(l_s + self.lambda_u * l_u, {"sup": l_s.detach(), "unsup": l_u.detach()}, q, mask)

    def annealed(self, logits: Tensor, y: Tensor, progress: Tensor) -> Tensor:
        """l_s of logits (B, C) and labels y (B,)."""
        losses, num_classes = F.cross_entropy(logits, y, reduction="none"), logits.shape[1]
        if self.tsa == "none":
            return losses.mean()
        a = {"linear": progress, "exp": (5 * (progress - 1)).exp(), "log": 1 - (-5 * progress).exp()}[self.tsa]
        known = (-losses.detach()).exp() > a * (1 - 1 / num_classes) + 1 / num_classes
        return mean_of(losses, (~known).float())
