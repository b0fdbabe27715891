"""What a method is: a loss on one batch, and the state it keeps in buffers. The loop knows nothing else about it."""
import inspect
import re
import sys
from pathlib import Path
from types import CodeType
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from sslkit.errors import choose
from sslkit.files import digest, digest_files
from sslkit.networks import Nets
from sslkit.records import Batch, Out, Spec, Step

Passes = Annotated[Literal["split", "joint"], "weak views in a forward of their own, without gradient, or all views in "
                   "one (default: split; paper: joint)"]


class Method(nn.Module):
    """Hyper-parameters in __init__ (each kept under its own name), the paper in loss(), all state in buffers.

    loss() is a pure function of (nets, batch, progress, buffers): no generator, no branch on a tensor, no .item(), no
    shape that depends on the data. Losses, similarities and targets are float32. Targets carry no gradient. Where a
    run has several processes, each sees its part of the rows: what couples rows goes through all_mean() and all_rows().
    """
    views: tuple[str, ...] = ("weak", "strong")      # of each unlabelled image, in the order of Batch.u;
    #                                                  strong:0.5 is a strong view of that magnitude, see augment
    pixels = False                                   # True for methods that change pixels, as by turning images
    compiles = True                                  # False where loss() takes a gradient inside
    mixes = False                                    # True where a row becomes a mixture with others: one process alone
    standalone = True                                # False for methods that only exist as a stage of a recipe
    ema_buffers = "copy"                             # the teacher's BatchNorm statistics; "average" is EMAN
    sources: ClassVar[frozenset[str]]                # digests of the files of the class and its parents, see source()
    code: ClassVar[str]                              # one digest of them all, 16 hex digits: part of a run's name

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        own = (kind for kind in cls.__mro__ if kind not in Method.__mro__)
        cls.sources = frozenset().union(*(vars(kind).get("sources") or {source(kind)} for kind in own))
        cls.code = digest(sorted(cls.sources))

    def __init__(self):
        super().__init__()

    def setup(self, spec: Spec) -> dict[str, nn.Module]:
        """Make every buffer. Return the heads, which live in the network: modules, (n, feat_dim) -> (n, *)."""
        return {}

    def pseudo_buffer(self, spec: Spec) -> None:
        """Make the buffer `pseudo` (num_unlabeled,): the data's pseudo-labels, -1 where there is none."""
        none = torch.full((spec.num_unlabeled,), -1)
        self.register_buffer("pseudo", none if spec.pseudo is None else spec.pseudo.clone())

    def draw(self, g: torch.Generator, n_x: int, n_u: int) -> dict[str, Tensor]:
        """The method's own random numbers for a step of n_x labelled and n_u unlabelled rows, from `g` alone. Where it
        does not mix rows: (n_u, *), of which each process gets its own rows."""
        return {}

    def loss(self, nets: Nets, batch: Batch, progress: Tensor) -> Step:
        """The paper. progress: () in [0, 1], the only clock."""
        raise NotImplementedError

    @property
    def arguments(self) -> dict:
        """The hyper-parameters by name, as __init__ got them."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}


def known_passes(passes: str) -> str:
    """`passes` if it is one of Passes, else InputError."""
    return choose("passes", passes, ("split", "joint"))


def forward(nets: Nets, x: Tensor, u_w: Tensor, *u_s: Tensor, passes: Passes) -> tuple[Out, ...]:
    """The student's outputs for x, the weak view u_w and the strong views u_s."""
    if passes == "joint":
        return nets(x, u_w, *u_s)
    (weak,) = nets(u_w, grad=False)
    labeled, *strong = nets(x, *u_s)
    return labeled, weak, *strong


def source(kind: type) -> str:
    """Digest of a class's file, read now. A class without a file (notebook, `python -c`): of its functions."""
    path = Path(getattr(sys.modules.get(kind.__module__), "__file__", None) or "")
    if path.is_file():
        return digest_files([path])
    return digest([(name, outline(value)) for name, value in vars(kind).items() if callable(value) or name[:2] != "__"])


def outline(value) -> list | str:
    """A function's instructions, names and constants, another value as text: the same in every process."""
    value = inspect.unwrap(getattr(value, "fget", getattr(value, "__func__", value)))        # a property's, a decorated
    code = getattr(value, "__code__", value)
    if isinstance(code, CodeType):
        return [code.co_code.hex(), *code.co_names, *map(outline, code.co_consts)]
    return re.sub(" at 0x[0-9a-f]+", "", repr(sorted(code, key=repr) if isinstance(code, (set, frozenset)) else code))
