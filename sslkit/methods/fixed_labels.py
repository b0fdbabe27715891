"""HDL's second stage: a trained network goes on with labels that were read off its embeddings (Ma et al., arXiv 2404.17173).

Any method's network is trained on; its unlabelled images have been labelled by their neighbours (hdl.hdl), and are now trained on as
labelled ones are, under strong views:

    L = l_s + lambda_u l_u,  l_s = mean H(y, p(a(x))),  l_u = mean over ALL unlabelled rows of 1[u has a label] H(y_HDL(u), p(A(u)))

The labels come with the data (SSLData.pseudo); any labeler's will do, so that the same stage with labels by confidence is the control.

Differs from the paper, of which no code is public:
1. That this loss has no gate, and lambda_u = 1, are ours; so are a third of the steps and 0.3 of the learning rate, see recipes.hdl_on.
2. Strong views and clocks of short runs as in FixMatch.
"""
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslkit.errors import not_negative
from sslkit.methods.base import Method
from sslkit.networks import Nets
from sslkit.records import Batch, Spec, Step


class HDL(Method):
    """Goes on from a trained network with a labeler's labels."""
    views, direct = ("strong",), False

    def __init__(self, lambda_u: Annotated[float, "weight of the unlabelled loss (default: 1; paper: not known)"] = 1.0):
        super().__init__()
        not_negative(lambda_u=lambda_u)
        self.lambda_u = lambda_u

    def setup(self, spec: Spec) -> dict[str, nn.Module]:
        """The labels of the unlabelled rows, -1 where there is none."""
        self.register_buffer("told", torch.full((spec.num_unlabeled,), -1) if spec.pseudo is None else spec.pseudo.clone())
        self.num_classes = spec.num_classes
        return {}

    def loss(self, nets: Nets, batch: Batch, progress: Tensor) -> Step:
        x, strong = nets(batch.x, *batch.u)
        label = self.told[batch.j]                                            # (mu*B,)
        mask = (label >= 0).float()
        label = label.clamp(min=0)

        l_s = F.cross_entropy(x.logits, batch.y)
        l_u = (F.cross_entropy(strong.logits, label, reduction="none") * mask).mean()
        q = F.one_hot(label, self.num_classes).float()
        return Step(l_s + self.lambda_u * l_u, {"sup": l_s.detach(), "unsup": l_u.detach()}, q, mask)
