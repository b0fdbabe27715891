"""The loop: train() yields Snapshots. It names no method, keeps no files, and nothing in its step waits for the device.

Everything random is a function of (seed, step): rows, views and a method's own draws come from a generator made anew for each
step, so that a resumed run sees what an uninterrupted one sees.
"""
import copy
import ctypes
import hashlib
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Literal, get_args

import torch
from torch import Tensor

from sslkit.data import SSLData, augment, send
from sslkit.errors import InputError, choose, require
from sslkit.labelers import by_class
from sslkit.methods.base import Method
from sslkit.networks import Nets, Network, build, known_network
from sslkit.records import Batch, Snapshot, Spec, Step
from sslkit.scales import SCALES

WEIGHTS, PRECISION = Literal["none", "imagenet"], Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True)
class Config:
    """Everything besides method and data that decides a run's result. None: the default for the data, filled in by resolve()."""

    seed: Annotated[int, "seed of the split, the first weights, and every draw (papers: 5 seeds)"] = 0
    steps: Annotated[int | None, "optimiser steps K (default: 2000 on digits, 32768 elsewhere; paper: 1048576)"] = None
    batch_size: Annotated[int | None, "labelled images a step, B (default: 32 on digits, 64 elsewhere; paper: 64)"] = None
    mu: Annotated[int | None, "unlabelled images for each labelled one in a step (default: 3 on digits, 7 "
                              "elsewhere; paper: 7)"] = None
    lr: Annotated[float | None, "first learning rate; it falls as cos(7 pi k / 16 K) (default: 0.1 on digits, 0.03 "
                                "elsewhere; paper: 0.03)"] = None
    momentum: Annotated[float, "nesterov momentum of SGD, 0 to 1 (paper: 0.9)"] = 0.9
    weight_decay: Annotated[float | None, "L2 penalty on weights, none on BatchNorm and biases (default and paper: "
                                          "0.0005; CIFAR-100 0.001)"] = None
    ema_decay: Annotated[float | None, "decay of the averaged weights that are evaluated, a step (default: "
                                       "min(0.999, 1 - 10/K); paper: 0.999)"] = None
    bn_momentum: Annotated[float | None, "share of a new batch in BatchNorm's running statistics (default: "
                                         "min(0.1, max(0.001, 100/K)); paper: 0.001)"] = None
    network: Annotated[str | None, "small, wrn-DEPTH-WIDTH, resnet50 or efficientnet-b0 (default: small on digits, "
                                   "else the paper's: wrn-28-2, CIFAR-100 wrn-28-8, STL-10 wrn-37-2)"] = None
    weights: Annotated[WEIGHTS, "first weights of resnet50 and efficientnet-b0: random, or "
                                                    "torchvision's from ImageNet, which are downloaded (paper: none)"] = "none"
    strong: Annotated[str | None, "RandAugment variant of the strong views: mc, rac, usb, fixed or small (default: "
                                  "small under 16 px, else mc; paper: rac)"] = None
    eval_every: Annotated[int | None, "steps between evaluations (default: K/50; paper: 1024)"] = None
    precision: Annotated[PRECISION, "what the network computes in; auto: bf16 where the "
                                                          "device has it and the network is not `small` (paper: fp32)"] = "auto"

    def resolve(self, data: SSLData, device: torch.device) -> "Config":
        """This configuration with every None replaced for `data`. Raises InputError for a number out of its range."""
        digits = data.name == "digits"
        self.check()
        steps = SCALES["quick" if digits else "gpu"].steps if self.steps is None else self.steps
        network = self.network or {"digits": "small", "cifar100": "wrn-28-8", "stl10": "wrn-37-2"}.get(data.name, "wrn-28-2")
        defaults = {
            "steps": steps, "batch_size": 32 if digits else 64, "mu": 3 if digits else 7, "lr": 0.1 if digits else 0.03,
            "weight_decay": 1e-3 if data.name == "cifar100" else 5e-4, "ema_decay": max(0.0, min(0.999, 1 - 10 / steps)),
            "bn_momentum": min(0.1, max(0.001, 100 / steps)), "network": network, "strong": "small" if data.side < 16 else "mc",
            "eval_every": max(1, steps // 50)}
        given = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        if given["precision"] == "auto":
            given["precision"] = "bf16" if network != "small" and has_bf16(device) else "fp32"
        return Config(**{**defaults, **given})

    def check(self) -> None:
        """Raise an InputError for the first number that is given and out of its range."""
        def within(good: Callable[[float], bool], what: str, *names: str) -> None:
            for name in names:
                value = getattr(self, name)
                require(value is None or good(value), f"{name} is {value}, it must be {what}")

        within(lambda v: v >= 1, "at least 1", "steps", "batch_size", "mu", "eval_every")
        within(lambda v: 0 <= v <= 1, "between 0 and 1", "ema_decay", "bn_momentum", "momentum")
        within(lambda v: 0 < v < math.inf, "a finite number above 0", "lr")
        within(lambda v: 0 <= v < math.inf, "a finite number from 0 up", "weight_decay")
        within(lambda v: 0 <= v < 2**32, "a whole number from 0 to 4294967295", "seed")
        if self.strong is not None:
            choose("strong view", self.strong, augment.VARIANTS)
        if self.network is not None:
            known_network(self.network)
        choose("weights", self.weights, get_args(WEIGHTS))
        choose("precision", self.precision, get_args(PRECISION))


@dataclass(frozen=True)
class Machine:
    """How a run computes: its speed, not what it is."""

    device: Annotated[str, "cpu, cuda, cuda:1, mps ... (auto: cuda, else mps, else cpu)"] = "auto"
    threads: Annotated[int | None, "CPU threads (default: PyTorch's own, one a core). A resumed run is equal to "
                                   "the bit only with the same number"] = None
    channels_last: Annotated[bool | None, "images as N H W C in memory, a third less time on a CPU (default: yes, but not on mps)"] = None
    compile: Annotated[bool, "torch.compile the network; it does not pay on a CPU"] = False

    def apply(self) -> None:
        """Set this process up: threads, and on Linux keep freed memory, which glibc otherwise returns and maps anew for large tensors."""
        if self.threads is not None:
            require(self.threads >= 1, f"threads is {self.threads}, it must be at least 1")
            torch.set_num_threads(self.threads)
        if sys.platform == "linux" and self.torch_device().type == "cpu":
            mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda option, value: None)
            mallopt(-4, 0)              # M_MMAP_MAX: no mapping of its own for a large block
            mallopt(-1, 2**31 - 1)      # M_TRIM_THRESHOLD: keep what is freed at the top of the heap

    def images_last(self) -> bool:
        """channels_last, where it works: BatchNorm's gradient in that format is wrong on MPS (pytorch#175189)."""
        mps = self.torch_device().type == "mps"
        if mps and self.channels_last:
            print("note: channels_last does not work on mps; going on without it", file=sys.stderr)
        return not mps and self.channels_last is not False

    def torch_device(self) -> torch.device:
        """The device itself. Raises InputError where this machine does not have it."""
        name = self.device
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        choose("device", name.split(":")[0], ("cpu", "cuda", "mps"))
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


def cosine_lr(lr: float, step: int, steps: int) -> float:
    """lr * cos(7 pi k / 16 K): from lr down to 0.195 lr (google-research/fixmatch)."""
    return lr * math.cos(7 * math.pi * step / (16 * steps))


def generator(*key: object) -> torch.Generator:
    """A CPU generator whose stream is a function of `key`."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4], "little"))


class Feed:
    """feed(step) -> Batch: labelled rows with replacement, unlabelled rows in an endless sequence of shuffled passes."""

    def __init__(self, data: SSLData, method: Method, config: Config, channels_last: bool = False, device: torch.device | None = None):
        self.device = data.images.device if device is None else device
        self.data = data.to("cpu" if self.device.type == "mps" else self.device)      # MPS lacks the float64 that views are made in
        self.method, self.config, self.channels_last = method, config, channels_last
        self.n_u = config.mu * config.batch_size if method.views else 0
        self.truth = data.y[data.unlabeled].to(self.device)                           # for scores alone, never in a Batch
        self.passes: dict[int, Tensor] = {}

    def unlabeled_rows(self, step: int) -> Tensor:
        """(mu*B,) rows in the unlabelled set."""
        n, at = self.data.num_unlabeled, torch.arange(step * self.n_u, (step + 1) * self.n_u)
        needed = range(int(at[0]) // n, int(at[-1]) // n + 1)
        self.passes = {k: self.passes[k] if k in self.passes else torch.randperm(n, generator=generator(self.config.seed, "pass", k))
                       for k in needed}
        return torch.cat([self.passes[k][at[at // n == k] % n] for k in needed])

    def view(self, kind: str, rows: Tensor, g: torch.Generator) -> Tensor:
        """(n, num, H, W) float32 on the device: the training images `rows`, augmented and normalised."""
        images, flip = self.data.images.index_select(0, rows), self.data.flip
        images = augment.weak(images, g, flip=flip) if kind == "weak" else augment.strong(images, g, variant=self.config.strong, flip=flip)
        return augment.normalize(images, self.data.mean, self.data.std, channels_last=self.channels_last).to(self.device)

    def __call__(self, step: int) -> Batch:
        g, data = generator(self.config.seed, "step", step), self.data
        i = torch.randint(data.num_labeled, (self.config.batch_size,), generator=g)
        j = self.unlabeled_rows(step) if self.n_u else torch.empty(0, dtype=torch.int64)
        draws = self.method.draw(g, len(i), len(j))
        i, j = send(i, data.images.device), send(j, data.images.device)
        x = self.view("weak", data.labeled[i], g)
        u = tuple(self.view(kind, data.unlabeled[j], g) for kind in self.method.views)
        y, i, j, *draws_there = (send(t, self.device) for t in (data.y[data.labeled[i]], i, j, *draws.values()))
        return Batch(x, y, u, i, j, dict(zip(draws, draws_there)))


def tally(out: Step, truth: Tensor) -> dict[str, Tensor]:
    """Sums of one step. truth (mu*B,): the hidden labels, -1 where unknown; they are used here and nowhere else."""
    sums = {"steps": torch.ones_like(out.loss), "loss": out.loss.detach(), **out.terms}
    if out.q is not None:
        known, right = truth >= 0, out.q.argmax(1) == truth
        sums |= {"rows": torch.full_like(out.loss, len(truth)), "kept": out.mask.sum(), "kept_known": (out.mask * known).sum(),
                 "kept_right": (out.mask * right).sum(), "known": known.sum(), "right": right.sum()}
    return {name: value.float() for name, value in sums.items()}


def means(sums: dict[str, float]) -> dict[str, float | None]:
    """The metrics of a record: mean loss and terms, the share kept, the accuracy of kept and of all pseudo-labels (None: there is none)."""
    counts = ("steps", "rows", "kept", "kept_known", "kept_right", "known", "right")
    metrics = {name: value / sums["steps"] for name, value in sums.items() if name not in counts}
    share = lambda a, b: sums[a] / sums[b] if sums.get(b) else None         # noqa: E731
    return metrics | {"mask_rate": share("kept", "rows"), "pseudo_label_acc": share("kept_right", "kept_known"),
                      "pseudo_label_acc_all": share("right", "known")}


@torch.no_grad()
def predict(network: Network, images: Tensor, data: SSLData, *, dtype: torch.dtype | None = None,
            batch_size: int = 500) -> tuple[Tensor, Tensor]:
    """Probabilities (n, C) and pooled features (n, D) of plain uint8 `images` (n, num, H, W), normalised as `data` is."""
    network.norm_mode("running", 0.0)
    device = network.classifier.weight.device
    outs = [network(augment.normalize(part, data.mean, data.std).to(device), dtype) for part in images.split(batch_size)]
    return torch.cat([o.logits for o in outs]).softmax(1), torch.cat([o.feat for o in outs])


def evaluate(network: Network, data: SSLData, *, dtype: torch.dtype | None = None) -> dict:
    """Accuracy on the test images, fractions: test_acc; test_acc_class, a list of C; with a long tail test_acc_head, _middle and _tail."""
    answer, truth = predict(network, data.test_images, data, dtype=dtype)[0].argmax(1).cpu(), data.test_y.cpu()
    found = {f"test_acc_{name}": value for name, value in by_class(answer, truth, data.num_classes, data.groups).items()}
    return {"test_acc": (answer == truth).sum().item() / len(truth), **found}


def set_up(method: Method, data: SSLData, config: Config, machine: Machine = Machine()) -> tuple[Nets, torch.optim.Optimizer, Feed]:
    """Networks, the method's heads and buffers, the optimiser and the feed, on the machine's device. `config` is resolved."""
    device = machine.torch_device()
    network = build(config.network, data.num_classes, data.images.shape[1], seed=config.seed, weights=config.weights)
    pseudo = None if data.pseudo is None else data.pseudo[data.unlabeled]
    spec = Spec(data.num_classes, network.feat_dim, data.y[data.labeled], data.num_unlabeled, config.batch_size, config.mu, config.steps,
                pseudo)
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(config.seed + 1)
        network.heads.update(method.setup(spec))
    method.to(device).train()
    nets = Nets(network.to(device), ema_decay=config.ema_decay, bn_momentum=config.bn_momentum, ema_buffers=method.ema_buffers,
                dtype=torch.bfloat16 if config.precision == "bf16" else None)
    weights = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]              # BatchNorm and biases do not decay
    optimizer = torch.optim.SGD([{"params": weights, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}],
                                lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0, fused=device.type in ("cpu", "cuda"))
    channels_last = machine.images_last()
    if channels_last:
        nets.student.to(memory_format=torch.channels_last)
        nets.teacher.to(memory_format=torch.channels_last)
    feed = Feed(data, method, config, channels_last, device)
    if machine.compile:
        compile_or_say(method, nets, feed(0))
    return nets, optimizer, feed


def compile_or_say(method: Method, nets: Nets, batch: Batch) -> None:
    """torch.compile the student's backbone where this machine can, tried on a batch; else say so and go on without."""
    before = {name: copy.deepcopy(part.state_dict()) for name, part in (("method", method), ("student", nets.student))}
    nets.student.backbone.compile()
    try:
        method.loss(nets, batch, torch.zeros((), device=batch.x.device)).loss.backward()
    except Exception as error:                       # no compiler, no Triton, an operator it cannot trace: whatever it is, we can go on
        nets.student.backbone._compiled_call_impl = None
        print(f"note: torch.compile does not work here ({type(error).__name__}: {str(error).splitlines()[0][:120]}); going on without it",
              file=sys.stderr)
    finally:
        nets.student.zero_grad()
        method.load_state_dict(before["method"])
        nets.student.load_state_dict(before["student"])


def take_step(method: Method, nets: Nets, optimizer: torch.optim.Optimizer, feed: Feed, step: int) -> dict[str, Tensor]:
    """Draw, augment, forward, backward, SGD, EMA: one step, and its sums for the metrics. Nothing here waits for the device."""
    config, batch = feed.config, feed(step)
    for group in optimizer.param_groups:
        group["lr"] = cosine_lr(config.lr, step, config.steps)
    out = method.loss(nets, batch, torch.full((), step / config.steps, device=batch.x.device))
    optimizer.zero_grad()
    out.loss.backward()
    optimizer.step()
    nets.update_ema()
    return tally(out, feed.truth[batch.j])


def train(method: Method, data: SSLData, config: Config = Config(), machine: Machine = Machine(), *,
          state: dict | None = None, initial: dict[str, Tensor] | None = None) -> Iterator[Snapshot]:
    """Train `method` on `data` (split, see splits.split); a Snapshot about every second and at each evaluation. Stop by `break`.

    state: what an earlier Snapshot's state() gave; training goes on from there, on a CPU with the same threads to the bit.
    initial: a network's state dict, for both networks to begin from instead of random weights; the method's heads begin anew.
    Raises InputError for settings out of range, FloatingPointError when the loss is no longer finite.
    """
    require(data.num_labeled > 0, "the data has no labelled rows yet: sslkit.split(data, labels, seed) chooses them")
    require(data.num_unlabeled > 0 or not method.views, "no unlabelled images are left: take fewer labels, or keep the labelled among them")
    device = machine.torch_device()
    config = config.resolve(data, device)
    nets, optimizer, feed = set_up(method, data, config, machine)
    data, sums, start = feed.data, {}, 0
    parts = {"student": nets.student, "teacher": nets.teacher, "optimizer": optimizer, "method": method}
    if initial is not None:
        for net in (nets.student, nets.teacher):
            weights = net.state_dict()                       # changed in place: its version numbers stay with it
            weights.update((name, value) for name, value in initial.items() if not name.startswith("heads."))
            net.load_state_dict(weights)
    if state is not None:
        for name, part in parts.items():
            part.load_state_dict(copy.deepcopy(state[name]))         # SGD would go on in the caller's own tensors
        start, sums = state["step"], {name: torch.tensor(value, device=device) for name, value in state["sums"].items()}

    def current() -> dict:
        return {"step": done, "sums": {k: v.item() for k, v in sums.items()}, **{name: part.state_dict() for name, part in parts.items()}}

    shown = time.monotonic()
    for step in range(start, config.steps):
        new = take_step(method, nets, optimizer, feed, step)
        sums = {name: sums[name] + value for name, value in new.items()} if sums else new

        done = step + 1
        evaluated = done % config.eval_every == 0 or done == config.steps
        if evaluated or time.monotonic() - shown > 1:
            metrics = {**means(dict(zip(sums, torch.stack(list(sums.values())).tolist()))), "lr": cosine_lr(config.lr, step, config.steps)}
            if not math.isfinite(metrics["loss"]):
                raise FloatingPointError(f"the loss is {metrics['loss']} at step {done}: try a smaller --lr than {config.lr:g}")
            if evaluated:
                metrics, sums = metrics | evaluate(nets.teacher, data, dtype=nets.dtype), {}
            yield Snapshot(done, metrics, evaluated, nets, current)
            shown = time.monotonic()


def describe(method: Method, data: SSLData, config: Config) -> dict:
    """What decides a result, as plain numbers and strings; `config` is resolved."""
    return {"method": type(method).__name__.lower(), "arguments": method.arguments,
            "data": {"name": data.name, "labels": data.num_labeled, "unlabeled": data.num_unlabeled, "split": data.hash,
                     "imbalance": list(data.imbalance), "validation": len(data.validation),
                     "include_labeled": bool(torch.isin(data.labeled, data.unlabeled).any()),
                     "unlabeled_asked": data.unlabeled_asked, "side": data.side, "flip": data.flip},
            "train": asdict(config)}
