"""Pure tensor maths that several methods share."""
import numpy as np
import torch
from torch import Tensor

from sslkit.processes import all_mean, world


def sharpen(q: Tensor, T: float) -> Tensor:
    """(n, C): q^(1/T), rows normalised. q (n, C) probabilities."""
    return (q.clamp_min(torch.finfo(q.dtype).tiny).log() / T).softmax(1)


def ramp_up(progress: Tensor, share: float) -> Tensor:
    """() from 0 at the start of a run to 1 after `share` of it, then 1. progress: () in [0, 1]."""
    return (progress / share).clamp(max=1) if share > 1e-9 else torch.ones_like(progress)


def papers_ramp(steps: int) -> float:
    """The share of a run that takes 2^14 steps, 1/64 of the papers' 2^20, but at most 0.4."""
    return min(0.4, 2**14 / steps)


def align(logits: Tensor, queue: Tensor, pushed: Tensor) -> tuple[Tensor, Tensor]:
    """Distribution alignment: log p (n, C), p divided by the mean of the last batch means, this one among them, rows
    normalised; and the queue with this one. logits (n, C); queue (length, C), a ring; pushed (), how many it got."""
    log_p, slot = logits.log_softmax(1), (pushed % len(queue)).view(1)
    queue = queue.index_copy(0, slot, all_mean(log_p.exp().mean(0, keepdim=True)))
    usual = queue.sum(0) / (pushed + 1).clamp(max=len(queue))
    return (log_p - usual.clamp_min(torch.finfo(usual.dtype).tiny).log()).log_softmax(1), queue


def mean_of(rows: Tensor, kept: Tensor) -> Tensor:
    """() the mean of `rows` (n,) over those of all processes that `kept` (n,) weighs 1, not 0; 0 where there are none.
    Each process returns its part of it, times their number."""
    return (rows * kept).sum() / all_mean(kept.sum()).clamp(min=1 / world())


def mixup(a: Tensor, permutation: Tensor, lam: Tensor) -> Tensor:
    """(n, ...): row i is lam_i a_i + (1 - lam_i) a_permutation(i); lam (n,) from 1/2 up, permutation (n,)."""
    lam = lam.view(-1, *(1,) * (a.ndim - 1)).to(a.dtype)
    return torch.lerp(a.index_select(0, permutation), a, lam)


def mixup_draws(g: torch.Generator, n: int, alpha: float) -> dict[str, Tensor]:
    """A permutation of n rows and lam (n,) = max(l, 1 - l), l from Beta(alpha, alpha), from `g` alone."""
    lam = np.random.default_rng(int(torch.randint(2**62, (), generator=g))).beta(alpha, alpha, n).astype(np.float32)
    return {"permutation": torch.randperm(n, generator=g), "lam": torch.from_numpy(np.maximum(lam, 1 - lam))}
