"""What a method is: a loss on one batch, and the state it keeps in buffers. The loop knows nothing else of it."""
import inspect

import torch
from torch import Tensor, nn

from sslkit.networks import Nets
from sslkit.records import Batch, Spec, Step


class Method(nn.Module):
    """Hyper-parameters in __init__ (each kept under its own name), the paper in loss(), all state in buffers that setup() makes.

    loss() is a pure function of (nets, batch, progress, buffers): no generator, no branch on a tensor, no .item(), no shape that
    depends on the data. Losses, similarities and targets are float32. Targets carry no gradient.
    """
    views: tuple[str, ...] = ("weak", "strong")      # of each unlabelled image, in the order of Batch.u
    direct = True                                    # may `sslkit train` name it, or is it a stage of a recipe?
    ema_buffers = "copy"                             # the teacher's BatchNorm statistics; "average" is EMAN

    def __init__(self):
        super().__init__()

    def setup(self, spec: Spec) -> dict[str, nn.Module]:
        """Make every buffer; return the heads, which live in the network (Linear, Sequential ...: (n, feat_dim) -> (n, *))."""
        return {}

    def draw(self, g: torch.Generator, n_x: int, n_u: int) -> dict[str, Tensor]:
        """The method's own random numbers for a step of n_x labelled and n_u unlabelled rows, from `g` alone."""
        return {}

    def loss(self, nets: Nets, batch: Batch, progress: Tensor) -> Step:
        """The paper. progress: () in [0, 1], the only clock."""
        raise NotImplementedError

    @property
    def arguments(self) -> dict:
        """The hyper-parameters by name, as __init__ was given them."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}
