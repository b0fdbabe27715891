"""Random numbers for a batch of images: every image has its own, whichever process makes its view."""
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from sslkit.processes import own, world


class Share(NamedTuple):
    """A generator that all processes of a run have in common: each draws for the rows of all, and keeps its own."""
    g: Generator


def drawn(draw: Callable[..., Tensor], shape: tuple[int, ...], g: Generator | Share, **how) -> Tensor:
    """draw(shape, generator=g), as of torch.rand. The images lie along the last axis; of a Share, those of this
    process."""
    if isinstance(g, Share):
        return own(drawn(draw, (*shape[:-1], world() * shape[-1]), g.g, **how), axis=-1)
    return draw(shape, generator=g, **how)


def uniform(shape: tuple[int, ...], g: Generator | Share, dtype: torch.dtype = torch.float64) -> Tensor:
    """Numbers from [0, 1) of `shape`, whose last axis are the images."""
    return drawn(torch.rand, shape, g, dtype=dtype)
