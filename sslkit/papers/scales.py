"""How large a reproduction is: one definition of each scale, for lessons, tables and batches."""
from dataclasses import dataclass

from sslkit.data import FEATURES, SOURCES
from sslkit.errors import choose


@dataclass(frozen=True)
class Scale:
    """The data sets that are trained on, and for how many steps; all else is training.Config's default for the data."""
    about: str
    data: tuple[str, ...]
    steps: int
    encoder: str | None = None                # train on its features, see training.DataSpec
    size: int | None = None                   # pixels a side of what it gets


SCALES = {
    "quick": Scale("digits and a small network: minutes on a laptop", ("digits",), SOURCES["digits"].steps),
    "features": Scale("CIFAR-10 as features of a pre-trained EfficientNet-Lite0: half an hour of embedding once, then "
                      "seconds a run on a laptop", ("cifar10",), FEATURES.steps, "efficientnet-lite0", 96),
    "gpu": Scale("CIFAR-10, WRN-28-2, 2^15 steps: minutes a run on one modern GPU", ("cifar10",),
                 SOURCES["cifar10"].steps),
    "paper": Scale("the papers' data and networks, 2^20 steps", ("cifar10", "cifar100", "svhn", "stl10", "food101"),
                   2**20)}


def scale(name: str) -> Scale:
    """The scale called `name`. InputError with the nearest name if there is none."""
    return SCALES[choose("scale", name, SCALES)]
