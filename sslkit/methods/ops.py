"""Pure tensor maths that several methods share."""
import numpy as np
import torch
from torch import Tensor


def sharpen(q: Tensor, T: float) -> Tensor:
    """(n, C): q^(1/T), rows normalised. q (n, C) probabilities."""
    return (q.clamp_min(torch.finfo(q.dtype).tiny).log() / T).softmax(1)


def mixup(a: Tensor, permutation: Tensor, lam: Tensor) -> Tensor:
    """(n, ...): row i is lam_i a_i + (1 - lam_i) a_permutation(i); lam (n,) from 1/2 up, permutation (n,)."""
    lam = lam.view(-1, *(1,) * (a.ndim - 1)).to(a.dtype)
    return torch.lerp(a.index_select(0, permutation), a, lam)


def mixup_draws(g: torch.Generator, n: int, alpha: float) -> dict[str, Tensor]:
    """A permutation of n rows and lam (n,) = max(l, 1 - l), l from Beta(alpha, alpha), from `g` alone."""
    lam = np.random.default_rng(int(torch.randint(2**62, (), generator=g))).beta(alpha, alpha, n).astype(np.float32)
    return {"permutation": torch.randperm(n, generator=g), "lam": torch.from_numpy(np.maximum(lam, 1 - lam))}
