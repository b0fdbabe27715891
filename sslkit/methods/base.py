"""What a method is: a loss on one batch, and the state it keeps in buffers. The loop knows nothing else of it."""
import hashlib
import inspect
import sys
from pathlib import Path
from types import CodeType
from typing import ClassVar

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

    sources: ClassVar[frozenset[str]]                # a digest of each source that makes the class, see source()
    code: ClassVar[str]                              # one digest of them all, 16 hex digits

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        own = (kind for kind in cls.__mro__ if kind not in Method.__mro__)
        cls.sources = frozenset().union(*(vars(kind).get("sources") or {source(kind)} for kind in own))
        cls.code = hashlib.sha256("".join(sorted(cls.sources)).encode()).hexdigest()[:16]

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


def source(kind: type) -> str:
    """SHA-256 of what a class is made from: its file as it is now, or without one (notebook, `python -c`) its functions."""
    try:
        content = Path(sys.modules[kind.__module__].__file__).read_bytes()
    except (KeyError, AttributeError, TypeError, OSError):
        content = repr([(name, outline(value)) for name, value in vars(kind).items()
                        if callable(value) or not name.startswith("__")]).encode()
    return hashlib.sha256(content).hexdigest()


def outline(value) -> object:
    """Of a function, its instructions, names and constants; of plain values, the values: what is the same in every process."""
    value = getattr(value, "fget", getattr(value, "__func__", value))             # property; staticmethod, classmethod
    code = getattr(value, "__code__", value)
    if isinstance(code, CodeType):
        return code.co_code, code.co_names, [outline(constant) for constant in code.co_consts]
    if isinstance(code, frozenset):
        return sorted(map(repr, code))
    return code if isinstance(code, (str, bytes, int, float, complex, tuple, type(None))) else None
