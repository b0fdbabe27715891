"""CoMatch: Semi-Supervised Learning with Contrastive Graph Regularization (Li, Xiong and Hoi, ICCV 2021, arXiv
2011.11183).

An image's pseudo-label is smoothed by those of similar images seen lately. Two strong views of the image, and images
with similar pseudo-labels, get similar embeddings: the graph of pseudo-labels is the target of the graph of embeddings.

    p_w = DA(p(a(u)))                         divided by the mean of the last 32 batch means, this one's among them
    q   = alpha p_w + (1 - alpha) sum_k a_k p_k,  a = softmax_k(z_w . z_k / t);  z = unit(emb(.)), in R^64
          (z_k, p_k) the memory: of the last 5 steps the rows (z_w, p_w) and (z_x, y); in the first 6 steps q = p_w
    l_u = mean over ALL unlabelled rows of 1[max q >= tau] H(q, p(s0))
    W   = q_b . q_j, 1 on the diagonal, 0 where under contrast_th, rows normalised;  S = softmax_j(z_s0,b . z_s1,j / t)
    l_c = -mean_b sum_j W_bj log(S_bj + 1e-7)
    L   = l_s + lambda_u l_u + lambda_c l_c

s0 is a strong view, s1 a jittered one. No gradient goes through z_w, z_x and q.

Differs from the paper:
1. The labelled images are among the unlabelled ones by default; its code leaves them out (--no-include-labeled).
2. s0 is RandAugment `mc` by default; its code's is `fixed` (--strong fixed). Under 16 px the views are our own.
3. On features of an encoder, s0 and s1 are drawn from the stored views, each on its own.
4. passes="split" by default and the clocks of short runs as in FixMatch; the authors run one forward.
"""
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslkit.errors import in_unit, not_negative, positive, require
from sslkit.methods.base import Method, Passes, forward, known_passes
from sslkit.methods.ops import align
from sslkit.networks import Nets
from sslkit.processes import all_rows, own
from sslkit.records import Batch, Spec, Step

DIM = 64


class CoMatch(Method):
    """Pseudo-labels smoothed by a memory; embeddings drawn together where pseudo-labels agree."""
    views = ("weak", "strong", "jitter")

    def __init__(self,
                 tau: Annotated[float, "confidence to keep a pseudo-label, 0 to 1 (default and paper: 0.95)"] = 0.95,
                 alpha: Annotated[float, "share of the classifier in the pseudo-label, 0 to 1; the rest is the "
                                  "memory's (default and paper: 0.9)"] = 0.9,
                 t: Annotated[float, "temperature of the cosine similarities (default and paper: 0.2)"] = 0.2,
                 contrast_th: Annotated[float, "similarity of pseudo-labels from which two images belong together, 0 "
                                        "to 1 (default and paper: 0.8)"] = 0.8,
                 lambda_u: Annotated[float, "weight of the unlabelled loss (default and paper: 1)"] = 1.0,
                 lambda_c: Annotated[float, "weight of the contrastive loss (default and paper: 1)"] = 1.0,
                 queue_batch: Annotated[int, "steps whose rows are remembered (default and paper: 5, 2,560 rows)"] = 5,
                 da_length: Annotated[int, "batches over which distribution alignment averages (default and paper: "
                                      "32)"] = 32,
                 passes: Passes = "split"):
        super().__init__()
        in_unit(tau=tau, alpha=alpha, contrast_th=contrast_th)
        positive(t=t)
        not_negative(lambda_u=lambda_u, lambda_c=lambda_c)
        for name, value in (("queue_batch", queue_batch), ("da_length", da_length)):
            require(1 <= value <= 10000, f"{name} is {value}, it must be from 1 to 10000")
        self.tau, self.alpha, self.t, self.contrast_th = tau, alpha, t, contrast_th
        self.lambda_u, self.lambda_c = lambda_u, lambda_c
        self.queue_batch, self.da_length, self.passes = queue_batch, da_length, known_passes(passes)

    def setup(self, spec: Spec) -> dict[str, nn.Module]:
        """The memory, the queue of batch means; and the embedding head."""
        rows, d = spec.batch_size * (1 + spec.mu), spec.feat_dim
        self.register_buffer("z", torch.zeros(self.queue_batch, rows, DIM))                      # a ring of steps
        self.register_buffer("p", torch.zeros(self.queue_batch, rows, spec.num_classes))
        self.register_buffer("queue", torch.zeros(self.da_length, spec.num_classes))             # a ring of batch means
        self.register_buffer("pushed", torch.zeros((), dtype=torch.int64))                       # steps
        return {"emb": nn.Sequential(nn.Linear(d, d), nn.LeakyReLU(0.1), nn.Linear(d, DIM))}

    def loss(self, nets: Nets, batch: Batch, progress: Tensor) -> Step:
        x, weak, strong, jittered = forward(nets, batch.x, *batch.u, passes=self.passes)
        z_x, z_w, z_0, z_1 = (F.normalize(out.heads["emb"]) for out in (x, weak, strong, jittered))
        z_x, z_w = z_x.detach(), z_w.detach()

        log_p_w, queue = align(weak.logits.detach(), self.queue, self.pushed)
        p_w = log_p_w.exp()                                                                      # (mu*B, C)
        near = (z_w @ self.z.flatten(0, 1).T / self.t).softmax(1)                                # (mu*B, memory)
        q = self.alpha * p_w + (1 - self.alpha) * near @ self.p.flatten(0, 1)
        q = torch.where(self.pushed > self.queue_batch, q, p_w)
        mask = (q.amax(1) >= self.tau).float()

        others = all_rows(q)
        alike = torch.where(own(torch.eye(len(others), device=q.device)) > 0, 1, q @ others.T)   # (mu*B, mu*B)
        alike = alike * (alike >= self.contrast_th)
        alike = alike / alike.sum(1, keepdim=True)
        similar = (z_0 @ all_rows(z_1).T / self.t).softmax(1)

        l_s = F.cross_entropy(x.logits, batch.y)
        l_u = (F.cross_entropy(strong.logits, q, reduction="none") * mask).mean()
        l_c = -(alike * (similar + 1e-7).log()).sum(1).mean()
        if self.training:
            slot = (self.pushed % self.queue_batch).view(1)
            y = F.one_hot(batch.y, p_w.shape[1]).to(p_w.dtype)
            self.z.index_copy_(0, slot, torch.cat((all_rows(z_w), all_rows(z_x)))[None])
            self.p.index_copy_(0, slot, torch.cat((all_rows(p_w), all_rows(y)))[None])
            self.queue.copy_(queue)
            self.pushed.add_(1)
        return Step(l_s + self.lambda_u * l_u + self.lambda_c * l_c,
                    {"sup": l_s.detach(), "unsup": l_u.detach(), "con": l_c.detach()}, q, mask)
