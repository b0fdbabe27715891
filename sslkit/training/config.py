"""What decides a run besides method and data (Config), and where and how fast it computes (Machine)."""
import ctypes
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from numbers import Integral
from typing import Annotated, Any, Literal, get_args

import torch

from sslkit.data import SSLData, augment, source
from sslkit.errors import InputError, choose, require
from sslkit.networks import HEADS, known_network, weights_file

Precision = Literal["auto", "fp32", "bf16"]
Schedule = Literal["fixmatch", "cosine", "steps"]
WHOLE = ("seed", "steps", "batch_size", "mu", "eval_every")


@dataclass(frozen=True)
class Config:
    """Everything besides method and data that decides a run's result. None: the default for the data, filled in by
    resolve()."""

    seed: Annotated[int, "seed of the split, the first weights, and every draw (papers: 5 seeds)"] = 0
    steps: Annotated[int | None, "optimiser steps K (default: 2000 on digits, 800 on features, 32768 elsewhere; paper: "
                                 "1048576)"] = None
    batch_size: Annotated[int | None, "labelled images a step, B (default: 32 on digits and features, 64 elsewhere; "
                                      "paper: 64)"] = None
    mu: Annotated[int | None, "unlabelled images for each labelled one in a step (default: 3 on digits, 7 elsewhere; "
                              "paper: 7)"] = None
    lr: Annotated[float | None, "highest learning rate; --schedule lowers it (default: 0.1 on digits, 0.003 on "
                                "features, 0.03 elsewhere; paper: 0.03)"] = None
    schedule: Annotated[Schedule, "how the learning rate falls: fixmatch, as cos(7 pi k / 16 K), to a fifth; cosine, "
                                  "as (1 + cos(pi k / K)) / 2, to 0; steps, to a tenth at 60% and a hundredth at 80% "
                                  "of the run (default and paper: fixmatch; ImageNet: SimMatch cosine, FixMatch-EMAN "
                                  "steps)"] = "fixmatch"
    warmup: Annotated[float, "share of the run over which the learning rate rises linearly from 0, before it falls "
                             "(default and paper: 0; ImageNet, 5 epochs: SimMatch 0.0125, FixMatch-EMAN 0.05)"] = 0.0
    momentum: Annotated[float, "nesterov momentum of SGD, 0 to 1 (paper: 0.9)"] = 0.9
    weight_decay: Annotated[float | None, "L2 penalty on weights, none on BatchNorm and biases (default and paper: "
                                          "0.0005; CIFAR-100 0.001)"] = None
    ema_decay: Annotated[float | None, "decay of the averaged weights that are evaluated, a step (default: "
                                       "min(0.999, 1 - 10/K); paper: 0.999)"] = None
    bn_momentum: Annotated[float | None, "share of a new batch in BatchNorm's running statistics (default: "
                                         "min(0.1, max(0.001, 100/K)); paper: 0.001)"] = None
    network: Annotated[str | None, "small, wrn-DEPTH-WIDTH, resnet50 or efficientnet-b0; on features linear or hidden, "
                                   "one layer of 256 (default: small on digits, linear on features, else the paper's: "
                                   "wrn-28-2, CIFAR-100 wrn-28-8, STL-10 wrn-37-2)"] = None
    weights: Annotated[str, "first weights of the network: none (random); imagenet, torchvision's of resnet50 and "
                            "efficientnet-b0, downloaded; or a file, a checkpoint of MoCo, SimCLR, BYOL, DINO ..., "
                            "torchvision's state dict or a run's checkpoint.pt. With imagenet or a file, these two "
                            "networks take images as ImageNet's are normalised. With --encoder: a file of its weights "
                            "(default: none, or those that the encoder's library downloads; paper: none; "
                            "FixMatch-EMAN: MoCo-EMAN's)"] = "none"
    strong: Annotated[str | None, "RandAugment variant of the strong views: mc, rac, usb, fixed or small (default: "
                                  "small under 16 px, else mc; paper: rac)"] = None
    eval_every: Annotated[int | None, "steps between evaluations (default: K/50; paper: 1024)"] = None
    precision: Annotated[Precision, "what the network computes in; auto: bf16 where the device has it and the network "
                                    "is not `small` (paper: fp32)"] = "auto"

    def resolve(self, data: SSLData, device: torch.device) -> "Config":
        """This configuration with every None replaced for `data`. Raises InputError for a number out of its range."""
        self.check()
        known = source(data.name, data.features is not None)
        steps = known.steps if self.steps is None else self.steps
        defaults = {name: getattr(known, name) for name in ("batch_size", "mu", "lr", "weight_decay", "network")} | {
            "steps": steps, "ema_decay": max(0.0, min(0.999, 1 - 10 / steps)),
            "bn_momentum": min(0.1, max(0.001, 100 / steps)), "eval_every": max(1, steps // 50),
            "strong": "small" if (data.crop or data.side) < 16 else "mc"}
        given = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        if given["precision"] == "auto":
            small = (self.network or known.network) in ("small", *HEADS)
            given["precision"] = "bf16" if not small and has_bf16(device) else "fp32"
        if data.features:                     # what they were made by, their own digest says
            given |= {"weights": "none"}
        else:
            weights_file(self.weights)
        return Config(**{**defaults, **given})

    def check(self) -> None:
        """Raise an InputError for the first value that is given and cannot be used."""
        def within(good: Callable[[Any], bool], what: str, *names: str) -> None:
            for name in names:
                value = getattr(self, name)
                require(value is None or good(value), f"{name} is {value}, it must be {what}")

        within(lambda v: isinstance(v, Integral) and not isinstance(v, bool), "a whole number", *WHOLE)
        within(lambda v: v >= 1, "at least 1", "steps", "batch_size", "mu", "eval_every")
        within(lambda v: v <= 2**40, f"at most {2**40}", "steps")
        within(lambda v: 0 <= v <= 1, "between 0 and 1", "bn_momentum")
        within(lambda v: 0 <= v < 1, "from 0 up and below 1", "ema_decay", "momentum", "warmup")
        within(lambda v: 0 < v < math.inf, "a finite number above 0", "lr")
        within(lambda v: 0 <= v < math.inf, "a finite number from 0 up", "weight_decay")
        within(lambda v: 0 <= v < 2**32, "a whole number from 0 to 4294967295", "seed")
        if self.strong is not None:
            choose("strong view", self.strong, augment.VARIANTS)
        if self.network is not None:
            known_network(self.network)
        choose("precision", self.precision, get_args(Precision))
        choose("schedule", self.schedule, get_args(Schedule))


@dataclass(frozen=True)
class Machine:
    """Where and how fast a run computes; never part of its identity."""

    device: Annotated[str, "cpu, cuda, cuda:1, mps ... (auto: cuda, else mps, else cpu)"] = "auto"
    threads: Annotated[int | None, "CPU threads (default: PyTorch's own, one a core). A resumed run is equal to the "
                                   "bit only with the same number"] = None
    channels_last: Annotated[bool | None, "images as N H W C in memory, a third less time on a CPU (default: yes, but "
                                          "not on mps)"] = None
    compile: Annotated[bool, "torch.compile the network; it does not pay on a CPU"] = False

    def apply(self) -> None:
        """Set this process up: threads; on Linux keep freed memory, which glibc otherwise returns and maps anew."""
        if self.threads is not None:
            require(self.threads >= 1, f"threads is {self.threads}, it must be at least 1")
            require(self.threads <= 4096, f"threads is {self.threads}, it must be at most 4096")
            torch.set_num_threads(self.threads)
        if sys.platform == "linux" and self.torch_device().type == "cpu":
            mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda option, value: None)
            mallopt(-4, 0)              # M_MMAP_MAX: no mapping of its own for a large block
            mallopt(-1, 2**31 - 1)      # M_TRIM_THRESHOLD: keep what is freed at the top of the heap

    def use_channels_last(self) -> bool:
        """channels_last, where it works: BatchNorm's gradient in that format is wrong on MPS (pytorch#175189)."""
        mps = self.torch_device().type == "mps"
        if mps and self.channels_last:
            print("note: channels_last does not work on mps; training continues without it", file=sys.stderr)
        return not mps and self.channels_last is not False

    def torch_device(self) -> torch.device:
        """The device itself. Raises InputError where this machine does not have it."""
        name = self.device
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        kind = choose("device", name.split(":")[0], ("cpu", "cuda", "mps"))
        require(kind == "cuda" or name == kind, f"device {name!r}: only cuda devices have a number, give {kind}")
        try:
            torch.zeros(1, device=name)
        except (RuntimeError, AssertionError) as error:
            raise InputError(f"device {name!r} is not here: {str(error).splitlines()[0]}") from error
        return torch.device(name)


def has_bf16(device: torch.device) -> bool:
    """Does the device compute in bfloat16 itself, rather than by emulation?"""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, name, lambda: False)() for name in names)
