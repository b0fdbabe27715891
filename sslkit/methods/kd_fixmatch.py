"""KD-FixMatch, the inner network's loss (Wang et al., arXiv 2309.05826; its recipe trains an outer network first).

Early in training FixMatch's own labels are few and often wrong. KD-FixMatch begins with labels that a finished FixMatch run gave, those
of them that a clustering confirms (the trusted subset T, labelers.cluster_agree), and lets the network's own confident ones override them:

    target(u) = argmax p(a(u))   where max p(a(u)) >= tau          its own
                y_o(u)           else, where u is in T             the outer network's
    l_u = mean over ALL unlabelled rows of m(u) l(target, p(A(u))), m(u) = 0 where there is neither
    L   = l_s + lambda_u l_u
    l   = CE, or symmetric cross entropy a CE + b RCE (Wang et al., ICCV 2019), on p clipped at 1e-7:
    RCE = -sum_c p_c log clip(onehot_c, 1e-4, 1) = 9.2103 (1 - p_y)

T comes with the data (SSLData.pseudo). Where T is empty and loss="ce", this is FixMatch to the bit.

Differs from the paper, of which no code is public:
1. The merge rule as a formula is ours; that the inner network's confident predictions override the outer's is told by its readers.
2. a = b = 1: the paper's own are not known. Symmetric cross entropy's authors have .1 and 1 on CIFAR-10, 6 and .1 on CIFAR-100.
3. passes, strong views and the clocks of short runs as in FixMatch.
"""
import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslkit.errors import choose, in_unit, not_negative
from sslkit.methods.base import Method
from sslkit.networks import Nets
from sslkit.records import Batch, Spec, Step


def symmetric_cross_entropy(logits: Tensor, label: Tensor, a: float, b: float) -> Tensor:
    """a CE + b RCE of each row (n,). logits (n, C), label (n,) int64."""
    p = logits.softmax(1).clamp_min(1e-7)
    p_y = p.gather(1, label[:, None])[:, 0]
    return -a * p_y.log() - b * math.log(1e-4) * (p.sum(1) - p_y)


class KDFixMatch(Method):
    """Pseudo-labels of a finished run where a clustering confirms them, and the network's own where it is sure."""
    direct = False                   # trained as the second stage of a recipe

    def __init__(self,
                 tau: Annotated[float, "confidence from which the inner network's own label counts, a probability (default and paper: "
                                "0.95)"] = 0.95,
                 lambda_u: Annotated[float, "weight of the unlabelled loss (default and paper: 1)"] = 1.0,
                 loss: Annotated[Literal["ce", "sce"], "of pseudo-labels: cross entropy, or symmetric cross entropy, which forgives wrong "
                                 "ones (default: ce; paper: both)"] = "ce",
                 a: Annotated[float, "weight of the cross entropy in sce (default: 1; paper: not known)"] = 1.0,
                 b: Annotated[float, "weight of the reverse cross entropy in sce (default: 1; paper: not known)"] = 1.0,
                 passes: Annotated[Literal["split", "joint"], "weak views in a forward of their own, without gradient, or all views "
                                   "in one (default: split; paper: joint)"] = "split"):
        super().__init__()
        in_unit(tau=tau)
        not_negative(lambda_u=lambda_u, a=a, b=b)
        self.tau, self.lambda_u, self.a, self.b = tau, lambda_u, a, b
        self.kind, self.passes = choose("loss", loss, ("ce", "sce")), choose("passes", passes, ("split", "joint"))

    @property
    def arguments(self) -> dict:
        return {"tau": self.tau, "lambda_u": self.lambda_u, "loss": self.kind, "a": self.a, "b": self.b, "passes": self.passes}

    def setup(self, spec: Spec) -> dict[str, nn.Module]:
        """The trusted labels of the unlabelled rows, -1 where there is none."""
        self.register_buffer("trusted", torch.full((spec.num_unlabeled,), -1) if spec.pseudo is None else spec.pseudo.clone())
        return {}

    def loss(self, nets: Nets, batch: Batch, progress: Tensor) -> Step:
        u_w, u_s = batch.u
        if self.passes == "joint":
            x, weak, strong = nets(batch.x, u_w, u_s)
        else:
            (weak,) = nets(u_w, grad=False)
            x, strong = nets(batch.x, u_s)

        p = weak.logits.detach().softmax(1)                                   # (mu*B, C)
        confidence, own = p.max(1)
        outer, sure = self.trusted[batch.j], confidence >= self.tau
        told = ~sure & (outer >= 0)
        target = torch.where(told, outer, own)
        mask = (sure | told).float()

        l_s = F.cross_entropy(x.logits, batch.y)
        each = (F.cross_entropy(strong.logits, target, reduction="none") if self.kind == "ce" else
                symmetric_cross_entropy(strong.logits, target, self.a, self.b))
        l_u = (each * mask).mean()
        q = torch.where(told[:, None], F.one_hot(target, p.shape[1]).to(p.dtype), p)
        return Step(l_s + self.lambda_u * l_u, {"sup": l_s.detach(), "unsup": l_u.detach(), "told": told.float().mean()}, q, mask)
