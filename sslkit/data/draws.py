"""Random numbers for a batch of images: every image has its own, whichever process makes its view."""
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Generator, Tensor


class Share(NamedTuple):
    """A generator that the processes of a run have in common: each of the `world` processes draws for the rows of all
    and keeps those of its own, the part of number `rank`."""
    g: Generator
    rank: int
    world: int

    def own(self, rows: Tensor, axis: int = 0) -> Tensor:
        """This process's part of what there is for the rows of all, which lie along `axis`."""
        return rows.tensor_split(self.world, axis)[self.rank]


def drawn(draw: Callable[..., Tensor], shape: tuple[int, ...], g: Generator | Share, **how) -> Tensor:
    """draw(shape, generator=g), as of torch.rand. The images lie along the last axis; a Share draws for all processes
    and gives the numbers of its own images."""
    if isinstance(g, Share):
        return g.own(drawn(draw, (*shape[:-1], g.world * shape[-1]), g.g, **how), axis=-1)
    return draw(shape, generator=g, **how)


def uniform(shape: tuple[int, ...], g: Generator | Share, dtype: torch.dtype = torch.float64) -> Tensor:
    """Numbers from [0, 1) of `shape`, whose last axis are the images."""
    return drawn(torch.rand, shape, g, dtype=dtype)
