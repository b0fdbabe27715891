"""SimMatch: Semi-supervised Learning with Similarity Matching (Zheng et al., CVPR 2022, arXiv 2203.06915).

An unlabelled image gets two pseudo-labels: the classifier's, and that of the labelled images that it resembles. Each
corrects the other: the pseudo-label sharpens where the labelled images are surer of the same class, and flattens where
they are not. Algorithm 1:

    p_w   = DA(p(a(u)))                                     semantic similarity: classes, divided by their recent mean
    q_w,i = softmax_i(z_w . Q_i / t),  z = unit(emb(a(u)))  instance similarity: the K_l labelled images
    q_hat = unfold: q_w,i p_w[class of i], normalised       the target over images, corrected by the classes
    p_hat = alpha p_w + (1 - alpha) q_agg                   the target over classes, corrected by the images;
                                                            q_agg[c] = sum of q_w,i over the images i of class c
    l_u   = mean over ALL unlabelled rows of 1[max p_hat >= tau] H(p_hat, p(A(u)))
    l_in  = mean H(q_hat, q_s),  q_s,i = softmax_i(z_s . Q_i / t)
    L     = l_s + lambda_u l_u + lambda_in l_in

Then the labelled images' embeddings are written into the bank Q. memory="temporal" (CIFAR) blends them into its rows
and takes the targets from the student. memory="teacher" (ImageNet) takes both from the EMA teacher, with its own
classifier and head, normalised by its own batch; memory="eman" does too, with averaged BatchNorm statistics.

Differs from the paper:
1. Until every row of the bank was written once, l_in = 0 and p_hat = p_w; the authors' code waits for the first epoch.
   The first write of a row replaces its random start.
2. Rows that a batch repeats are averaged before they are blended, so that their order does not matter; every row has
   unit norm. Public code normalises the batch's rows over the batch axis instead: legacy_bank_norm.
3. The EMA network is evaluated with every memory; the authors evaluate the student on ImageNet. Their teacher shuffles
   its BatchNorm batches across devices, here is one device. memory="teacher" sets nothing else of that recipe.
4. The paper prints max p_hat > tau, and the blended row without unit norm; its code has >= and unit norm, as here.
5. p_hat=False and q_hat=False are our reading of Table 5.
6. passes="split" by default, strong views and the clocks of short runs as in FixMatch; the authors run one forward.
"""
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslkit.errors import choose, in_unit, not_negative, positive, require
from sslkit.methods.base import Method, forward, known_passes
from sslkit.methods.ops import align
from sslkit.networks import Nets
from sslkit.processes import all_rows
from sslkit.records import Batch, Spec, Step

DIM, MEMORY = 128, Literal["temporal", "teacher", "eman"]


def unfold(log_p: Tensor, similarity: Tensor, y: Tensor) -> Tensor:
    """q_hat (n, K_l): softmax(similarity) p[y], normalised. log_p (n, C); similarity / t (n, K_l); labels y (K_l,)."""
    return (similarity + log_p.index_select(1, y)).softmax(1)


def aggregate(q: Tensor, y: Tensor, num_classes: int) -> Tensor:
    """q_agg (n, C): the sums of q (n, K_l) over the rows of each class. y (K_l,)."""
    return q.new_zeros(len(q), num_classes).index_add(1, y, q)


class SimMatch(Method):
    """Pseudo-labels from the classifier and from the resemblance to labelled images, each corrected by the other."""

    def __init__(self,
                 tau: Annotated[float, "confidence to keep a pseudo-label, 0 to 1 (default and paper: 0.95; ImageNet "
                                "0.7)"] = 0.95,
                 lambda_u: Annotated[float, "weight of the unlabelled loss (default and paper: 1; ImageNet 10)"] = 1.0,
                 lambda_in: Annotated[float, "weight of the instance loss (default and paper: 1; ImageNet 5)"] = 1.0,
                 alpha: Annotated[float, "share of the classifier in the pseudo-label, 0 to 1; the rest is the "
                                  "resemblance's (default and paper: 0.9)"] = 0.9,
                 t: Annotated[float, "temperature of the cosine similarities (default and paper: 0.1)"] = 0.1,
                 memory: Annotated[MEMORY, "temporal: the student's embeddings, blended; teacher: the EMA teacher's, "
                                   "which labels too; eman: a teacher with averaged BatchNorm statistics (default: "
                                   "temporal; paper: teacher on ImageNet)"] = "temporal",
                 bank_momentum: Annotated[float, "share of the old row in a blend (default and paper: 0.7)"] = 0.7,
                 da_length: Annotated[int, "batches over which distribution alignment averages (default and paper: 32; "
                                      "ImageNet 256)"] = 32,
                 p_hat: Annotated[bool, "correct the pseudo-label by the resemblance; without it alpha is 1 (default "
                                  "and paper: yes; no: our reading of Table 5)"] = True,
                 q_hat: Annotated[bool, "correct the resemblance by the classifier; without it the target is q_w "
                                  "(default and paper: yes; no: our reading of Table 5)"] = True,
                 legacy_bank_norm: Annotated[bool, "normalise the written rows over the batch axis, a slip of public "
                                             "code: rows come out of norm about sqrt(128 / rows a batch), another t in "
                                             "effect (default and paper: no)"] = False,
                 passes: Annotated[Literal["split", "joint"], "weak views in a forward of their own, without gradient, "
                                   "or all views in one; a teacher's are always apart (default: split; paper: joint)"]
                 = "split"):
        super().__init__()
        in_unit(tau=tau, alpha=alpha, bank_momentum=bank_momentum)
        not_negative(lambda_u=lambda_u, lambda_in=lambda_in)
        positive(t=t)
        require(1 <= da_length <= 10000, f"da_length is {da_length}, it must be from 1 to 10000")
        self.tau, self.lambda_u, self.lambda_in, self.alpha, self.t = tau, lambda_u, lambda_in, alpha, t
        self.memory, self.passes = choose("memory", memory, MEMORY.__args__), known_passes(passes)
        self.bank_momentum, self.da_length, self.p_hat, self.q_hat = bank_momentum, da_length, p_hat, q_hat
        self.legacy_bank_norm = legacy_bank_norm
        self.ema_buffers = "average" if memory == "eman" else "copy"

    def setup(self, spec: Spec) -> dict[str, nn.Module]:
        """The bank, its labels, the queue; and the embedding head. InputError where a class has no labelled image."""
        rows = torch.bincount(spec.y, minlength=spec.num_classes).tolist()
        require(min(rows) > 0, "SimMatch compares with labelled images of every class, "
                f"class {rows.index(min(rows))} has none: take more labels")
        self.register_buffer("y", spec.y.clone())                                                # (K_l,)
        self.register_buffer("bank", F.normalize(torch.randn(len(spec.y), DIM)))                 # (K_l, 128)
        self.register_buffer("written", torch.zeros(len(spec.y), dtype=torch.bool))
        self.register_buffer("queue", torch.zeros(self.da_length, spec.num_classes))             # ring of batch means
        self.register_buffer("pushed", torch.zeros((), dtype=torch.int64))
        return {"emb": nn.Sequential(nn.Linear(spec.feat_dim, spec.feat_dim), nn.ReLU(), nn.Linear(spec.feat_dim, DIM))}

    def loss(self, nets: Nets, batch: Batch, progress: Tensor) -> Step:
        u_w, u_s = batch.u
        if self.memory == "temporal":
            x, weak, strong = forward(nets, batch.x, u_w, u_s, passes=self.passes)
            labeled = x
        else:
            statistics = "running" if self.memory == "eman" else "batch"
            labeled, weak = nets(batch.x, u_w, teacher=True, grad=False, bn=statistics)
            x, strong = nets(batch.x, u_s)

        log_p_w, queue = align(weak.logits.detach(), self.queue, self.pushed)                        # (mu*B, C)
        z_w, z_s = F.normalize(weak.heads["emb"].detach()), F.normalize(strong.heads["emb"])          # (mu*B, 128)
        bank = self.bank.clone()                           # the gradient still reads it after the write below
        similarity_w, similarity_s = z_w @ bank.T / self.t, z_s @ bank.T / self.t                     # (mu*B, K_l)
        p_w, q_w, warm = log_p_w.exp(), similarity_w.softmax(1), self.written.all()
        q_hat = unfold(log_p_w, similarity_w, self.y) if self.q_hat else q_w
        p_hat = self.alpha * p_w + (1 - self.alpha) * aggregate(q_w, self.y, p_w.shape[1]) if self.p_hat else p_w
        p_hat = torch.where(warm, p_hat, p_w)
        mask = (p_hat.amax(1) >= self.tau).float()

        l_s = F.cross_entropy(x.logits, batch.y)
        l_u = (F.cross_entropy(strong.logits, p_hat, reduction="none") * mask).mean()
        l_in = F.cross_entropy(similarity_s, q_hat) * warm
        if self.training:
            self.queue.copy_(queue)
            self.pushed.add_(1)
            self.write(all_rows(batch.i), all_rows(F.normalize(labeled.heads["emb"].detach())))
        return Step(l_s + self.lambda_u * l_u + self.lambda_in * l_in,
                    {"sup": l_s.detach(), "unsup": l_u.detach(), "inst": l_in.detach()}, p_hat, mask)

    def write(self, i: Tensor, z: Tensor) -> None:
        """Write unit embeddings z (B, 128) into the rows i (B,) of the bank; repeated rows are averaged."""
        same = i[:, None] == i[None, :]
        count, first = same.sum(1, keepdim=True), same.int().argmax(1)
        new = (same.to(z.dtype) @ z / count)[first]                      # repeats write the same numbers, in any order
        if self.memory == "temporal":
            blend = torch.where(self.written[i], self.bank_momentum, 0.0)[:, None]
            new = blend * self.bank[i] + (1 - blend) * new
        slip = (new.square() / count).sum(0).sqrt().clamp_min(1e-12)
        new = new / slip if self.legacy_bank_norm else F.normalize(new)
        self.bank.index_copy_(0, i, new)
        self.written.index_fill_(0, i, True)
