"""FreeMatch: Self-adaptive Thresholding for Semi-supervised Learning (Wang et al., ICLR 2023, arXiv 2205.07246).

FixMatch without tau: the threshold follows the network's own confidence, lower for classes of which it is less sure. A
fairness loss keeps the predictions of all classes alive.

    tau_k = m tau_(k-1) + (1-m) mean max p(a(u));  p~ = m p~ + (1-m) mean p(a(u))
    h     = m h + (1-m) histogram of argmax p(a(u));  all three start at 1/C and are updated before the masking
    mask  = max p(a(u)) >= tau_k p~(c) / max p~,  c = argmax p(a(u));   l_u as in FixMatch
    l_f   = sum_c N(p~/h)_c log(N(r)_c + 1e-12),  r_c = pbar_c / hbar_c, 0 where hbar_c = 0; 0 where no row is kept;
            pbar and hbar the mean and the histogram of p(A(u)) over the kept rows, the gradient flows through pbar
            alone; N normalises
    L     = l_s + lambda_u l_u + lambda_f l_f

Differs from the paper:
1. m follows the run's length as the EMA does, min(.999, 1 - 10/K); at the paper's K it is the paper's .999.
2. lambda_f is USB's .001 (TorchSSL has .01; the paper .01 or .05).
3. max_tau caps tau_k; USB sets .95 on SVHN, we leave it at 1 everywhere.
4. passes="split" by default, strong views and the clocks of short runs as in FixMatch.
"""
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslkit.errors import in_unit, not_negative
from sslkit.methods.base import Method, Passes, forward, known_passes
from sslkit.networks import Nets
from sslkit.processes import all_mean, world
from sslkit.records import Batch, Spec, Step


def shares(label: Tensor, num_classes: int, weight: Tensor) -> Tensor:
    """(C,): the weight (n,) of each label (n,) of all processes, summing to 1; zeros where all weights are 0."""
    counts = all_mean(weight.new_zeros(num_classes).index_add(0, label, weight))
    return counts / counts.sum().clamp_min(1 / world())


class FreeMatch(Method):
    """FixMatch whose thresholds follow the network's confidence, one for each class."""

    def __init__(self,
                 lambda_u: Annotated[float, "weight of the unlabelled loss (default and paper: 1)"] = 1.0,
                 lambda_f: Annotated[float, "weight of the fairness loss (default: 0.001; paper: 0.01, 0.05)"] = 0.001,
                 m: Annotated[float | None, "decay of the running means, 0 to 1 (default: min(0.999, 1 - 10/K); "
                              "paper: 0.999)"] = None,
                 max_tau: Annotated[float, "the threshold's upper end, 0 to 1 (default: 1; paper: 0.95 on SVHN)"] = 1.0,
                 passes: Passes = "split"):
        super().__init__()
        not_negative(lambda_u=lambda_u, lambda_f=lambda_f)
        in_unit(max_tau=max_tau, m=m)
        self.lambda_u, self.lambda_f, self.m, self.max_tau = lambda_u, lambda_f, m, max_tau
        self.passes = known_passes(passes)

    def setup(self, spec: Spec) -> dict[str, nn.Module]:
        """The running means: of the confidence, of the probabilities, of the labels."""
        self.decay = max(0.0, min(0.999, 1 - 10 / spec.steps)) if self.m is None else self.m
        self.register_buffer("tau", torch.full((), 1 / spec.num_classes))
        self.register_buffer("p_tilde", torch.full((spec.num_classes,), 1 / spec.num_classes))
        self.register_buffer("h", torch.full((spec.num_classes,), 1 / spec.num_classes))
        return {}

    def loss(self, nets: Nets, batch: Batch, progress: Tensor) -> Step:
        u_w, u_s = batch.u
        x, weak, strong = forward(nets, batch.x, u_w, u_s, passes=self.passes)

        q = weak.logits.detach().softmax(1)                                   # (mu*B, C)
        confidence, label = q.max(1)
        every = torch.ones_like(confidence)
        tau, p_tilde, h = (torch.lerp(new, old, self.decay) for old, new in (
            (self.tau, all_mean(confidence.mean())), (self.p_tilde, all_mean(q.mean(0))),
            (self.h, shares(label, q.shape[1], every))))
        mask = (confidence >= tau.clamp(max=self.max_tau) * (p_tilde / p_tilde.max())[label]).float()

        l_s = F.cross_entropy(x.logits, batch.y)
        l_u = (F.cross_entropy(strong.logits, label, reduction="none") * mask).mean()
        l_f = self.fairness(strong.logits, mask, p_tilde, h)
        if self.training:
            for buffer, new in ((self.tau, tau), (self.p_tilde, p_tilde), (self.h, h)):
                buffer.copy_(new)
        return Step(l_s + self.lambda_u * l_u + self.lambda_f * l_f,
                    {"sup": l_s.detach(), "unsup": l_u.detach(), "fair": l_f.detach(), "tau": tau}, q, mask)

    def fairness(self, logits: Tensor, mask: Tensor, p_tilde: Tensor, h: Tensor) -> Tensor:
        """l_f of the strong views' logits (n, C), over the rows kept by mask (n,)."""
        p, kept = logits.softmax(1), all_mean(mask.sum())
        p_bar = all_mean((p * mask[:, None]).sum(0)) / kept.clamp_min(1 / world())
        h_bar = shares(p.detach().argmax(1), p.shape[1], mask)
        r = torch.where(h_bar > 0, p_bar / h_bar.where(h_bar > 0, 1), 0)
        usual = p_tilde / h.clamp_min(1e-12)
        tiny = torch.finfo(p.dtype).tiny
        l_f = (usual / usual.sum() * (r / r.sum().clamp_min(tiny) + 1e-12).log()).sum()
        return torch.where(kept > 0, l_f, 0.0)
