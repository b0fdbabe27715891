"""VAT: Virtual Adversarial Training (Miyato et al., TPAMI 2019, arXiv 1704.03976) with entropy minimisation
(Grandvalet and Bengio, NeurIPS 2004), as google-research/fixmatch weighs them.

The answer should not change under the small perturbation that would change it most. And it should be a clear answer.

    d   = noise of L2 norm xi over each image;  g = gradient of KL(p(u) || p(u + d)) with respect to d, at that d
    r   = eps g / ||g||,  for each image
    l_u = mean KL(p(u) || p(u + r)), no gradient through p(u) and r;  l_e = mean entropy of p(u)
    L   = l_s + lambda_u min(1, k / (ramp K)) l_u + lambda_e l_e,  l_s = mean H(y, p(a(x))),  u a weak view

Differs from the paper:
1. xi is eps / 100; the sources' 1e-6 is lost in float32. The passes of u and of u + d, which find g, are float32 in
   every run, on a GPU without TF32: in fewer bits their difference would be rounding.
2. eps is 6 for an image of 3 x 32 x 32 values, as in google-research/fixmatch (whose pixels lie in [-1, 1]; ours have
   mean 0 and deviation 1), and follows the square root of their number: the same share of every image.
3. google-research/fixmatch has the two sides of KL exchanged: kl="reverse".
4. Weights and ramp are those of the FixMatch paper's Table 2, and so is the protocol; the paper has weight 1 and no
   ramp. mu is by default that of the other methods; there it is 1 (--mu 1).
5. Short runs have their own clocks for EMA and BatchNorm, see training.Config.
"""
import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslkit.errors import choose, in_unit, not_negative, positive
from sslkit.methods.base import Method
from sslkit.methods.ops import ramp_up
from sslkit.networks import Nets
from sslkit.records import Batch, Spec, Step


def scaled(d: Tensor, norm: float) -> Tensor:
    """Each row of d (n, ...) with the L2 norm `norm`; rows of zeros stay."""
    tiny = torch.finfo(d.dtype).tiny
    rows = d.flatten(1)
    rows = rows / rows.abs().amax(1, keepdim=True).clamp_min(tiny)            # or the squares of small numbers are zero
    return (norm * rows / rows.norm(dim=1, keepdim=True).clamp_min(tiny)).view_as(d)


class VAT(Method):
    """No change of the answer in the worst small direction, and clear answers."""
    views, compiles = ("weak",), False

    def __init__(self,
                 eps: Annotated[float | None, "L2 norm of the perturbation (default: 6 sqrt(values of an image / "
                                "3072); FixMatch paper: 6, pixels in [-1, 1])"] = None,
                 lambda_u: Annotated[float, "weight of the loss under perturbation (default, and FixMatch paper: "
                                     "0.3)"] = 0.3,
                 lambda_e: Annotated[float, "weight of the entropy (default, and FixMatch paper: 0.06)"] = 0.06,
                 xi: Annotated[float | None, "L2 norm of the noise at which the gradient is taken (default: eps / 100; "
                               "paper: 1e-6)"] = None,
                 kl: Annotated[Literal["forward", "reverse"], "forward: KL(p(u) || p(u + r)); reverse: the two sides "
                               "exchanged (default: forward; paper: forward)"] = "forward",
                 ramp: Annotated[float, "share of the run over which lambda_u rises, 0 to 1 (default, and FixMatch "
                                 "paper: 0.4)"] = 0.4):
        super().__init__()
        positive(xi=xi, eps=eps)
        not_negative(lambda_u=lambda_u, lambda_e=lambda_e)
        in_unit(ramp=ramp)
        self.eps, self.lambda_u, self.lambda_e, self.xi, self.ramp = eps, lambda_u, lambda_e, xi, ramp
        self.kl = choose("kl", kl, ("forward", "reverse"))

    def setup(self, spec: Spec) -> dict[str, nn.Module]:
        """Nothing but the shape of the noise, and both lengths."""
        self.image = spec.image
        self.length = 6 * math.sqrt(math.prod(spec.image) / 3072) if self.eps is None else self.eps
        self.noise = self.length / 100 if self.xi is None else self.xi
        return {}

    def draw(self, g: torch.Generator, n_x: int, n_u: int) -> dict[str, Tensor]:
        return {"noise": torch.randn(n_u, *self.image, generator=g)}

    def loss(self, nets: Nets, batch: Batch, progress: Tensor) -> Step:
        (u,) = batch.u
        (x,) = nets(batch.x)
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            (plain,) = nets(u, bn="batch", dtype=torch.float32)
            log_q = plain.logits.detach().log_softmax(1)                      # (mu*B, C)
            d = scaled(batch.draws["noise"], self.noise).requires_grad_()
            (near,) = nets(u.detach() + d, bn="batch", dtype=torch.float32)
            (g,) = torch.autograd.grad(self.divergence(log_q, near.logits), d)
        (far,) = nets(u + scaled(g, self.length), bn="batch")

        l_s = F.cross_entropy(x.logits, batch.y)
        l_u = self.divergence(log_q, far.logits)
        l_e = F.cross_entropy(plain.logits, plain.logits.softmax(1))
        return Step(l_s + self.lambda_u * ramp_up(progress, self.ramp) * l_u + self.lambda_e * l_e,
                    {"sup": l_s.detach(), "unsup": l_u.detach(), "entropy": l_e.detach()},
                    log_q.exp(), torch.ones_like(log_q[:, 0]))

    def divergence(self, log_q: Tensor, logits: Tensor) -> Tensor:
        """() the mean KL between rows of exp(log_q) (n, C) and softmax(logits)."""
        sides = (logits.log_softmax(1), log_q)
        return F.kl_div(*(sides if self.kl == "forward" else sides[::-1]), reduction="batchmean", log_target=True)
