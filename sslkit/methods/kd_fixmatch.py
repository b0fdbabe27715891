"""KD-FixMatch, the loss of the inner network (Wang et al., arXiv 2309.05826). The recipe trains an outer network first.

Early in training FixMatch's own labels are few and often wrong. KD-FixMatch starts with labels from a finished FixMatch
run: those that a clustering confirms (the trusted subset T, labelers.cluster_agree). The inner network's own labels
override them where it is confident:

    target(u) = argmax p(a(u))   where max p(a(u)) >= tau          its own
                y_o(u)           else, where u is in T             the outer network's
    l_u = mean over ALL unlabelled rows of m(u) l(target, p(A(u))), m(u) = 0 where there is neither
    L   = l_s + lambda_u l_u
    l   = CE, or symmetric cross entropy a CE + b RCE (Wang et al., ICCV 2019), on p clipped at 1e-7:
    RCE = -sum_c p_c log clip(onehot_c, 1e-4, 1) = 9.2103 (1 - p_y)

T comes with the data (SSLData.pseudo). Where T is empty and loss="ce", this is FixMatch to the bit.

Differs from the paper, which has no public code:
1. The formula of the merge rule is ours. That confident inner predictions override the outer labels is reported by
   secondary sources only.
2. a = b = 1: the paper's values are not known. The authors of symmetric cross entropy have .1 and 1 on CIFAR-10, 6 and
   .1 on CIFAR-100.
3. passes, strong views and the clocks of short runs as in FixMatch.
"""
import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslkit.errors import choose, in_unit, not_negative
from sslkit.methods.base import Method, Passes, forward, known_passes
from sslkit.networks import Nets
from sslkit.records import Batch, Spec, Step


def symmetric_cross_entropy(logits: Tensor, label: Tensor, a: float, b: float) -> Tensor:
    """a CE + b RCE of each row (n,). logits (n, C), label (n,) int64."""
    p = logits.softmax(1).clamp_min(1e-7)
    p_y = p.gather(1, label[:, None])[:, 0]
    return -a * p_y.log() - b * math.log(1e-4) * (p.sum(1) - p_y)


class KDFixMatch(Method):
    """Pseudo-labels of a finished run where a clustering confirms them, and the network's own where it is sure."""
    standalone = False

    def __init__(self,
                 tau: Annotated[float, "confidence from which the inner network's own label counts, a probability "
                                "(default and paper: 0.95)"] = 0.95,
                 lambda_u: Annotated[float, "weight of the unlabelled loss (default and paper: 1)"] = 1.0,
                 loss: Annotated[Literal["ce", "sce"], "of pseudo-labels: cross entropy, or symmetric cross entropy, "
                                 "which forgives wrong ones (default: ce; paper: both)"] = "ce",
                 a: Annotated[float, "weight of the cross entropy in sce (default: 1; paper: not known)"] = 1.0,
                 b: Annotated[float, "weight of the reverse cross entropy in sce (default: 1; paper: not known)"] = 1.0,
                 passes: Passes = "split"):
        super().__init__()
        in_unit(tau=tau)
        not_negative(lambda_u=lambda_u, a=a, b=b)
        self.tau, self.lambda_u, self.a, self.b = tau, lambda_u, a, b
        self.pseudo_loss, self.passes = choose("loss", loss, ("ce", "sce")), known_passes(passes)

    @property
    def arguments(self) -> dict:
        return super().arguments | {"loss": self.pseudo_loss}                 # the attribute `loss` is the method

    def setup(self, spec: Spec) -> dict[str, nn.Module]:
        self.pseudo_buffer(spec)
        return {}

    def loss(self, nets: Nets, batch: Batch, progress: Tensor) -> Step:
        u_w, u_s = batch.u
        x, weak, strong = forward(nets, batch.x, u_w, u_s, passes=self.passes)

        p = weak.logits.detach().softmax(1)                                   # (mu*B, C)
        confidence, own = p.max(1)
        outer, sure = self.pseudo[batch.j], confidence >= self.tau
        from_outer = ~sure & (outer >= 0)
        target = torch.where(from_outer, outer, own)
        mask = (sure | from_outer).float()

        l_s = F.cross_entropy(x.logits, batch.y)
        each = (F.cross_entropy(strong.logits, target, reduction="none") if self.pseudo_loss == "ce" else
                symmetric_cross_entropy(strong.logits, target, self.a, self.b))
        l_u = (each * mask).mean()
        q = torch.where(from_outer[:, None], F.one_hot(target, p.shape[1]).to(p.dtype), p)
        return Step(l_s + self.lambda_u * l_u,
                    {"sup": l_s.detach(), "unsup": l_u.detach(), "from_outer": from_outer.float().mean()}, q, mask)
