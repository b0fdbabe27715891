"""What one training step costs, beside the step as it is usually written, and beside the network alone.

naive: eager float32, NCHW, all views in one forward with a gradient through each, SGD and EMA parameter by parameter,
Pillow augmentation of each image; in a process of its own, whose memory allocator is as Python leaves it. bare: the
method's passes through the network, forward and backward, in our own configuration, on ready-made tensors. step: our
whole step. fixmatch, for another method: a step with the same views and passes, and FixMatch's arithmetic on them. Each
round measures all in turn; medians over the rounds.
"""
import itertools
import multiprocessing
import platform
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Annotated

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from torch import Tensor

from sslkit import methods
from sslkit.data import SSLData, augment
from sslkit.errors import InputError, require
from sslkit.methods import FixMatch, Method
from sslkit.networks import Nets
from sslkit.records import Batch, Out, Step
from sslkit.training.config import Config, Machine, Precision
from sslkit.training.feed import Feed
from sslkit.training.loop import set_up, take_step

SIGNS = (-1, 1)


class PillowUSB:
    """Views of variant usb as its own code base makes them: Pillow, image by image, Python's random numbers."""

    def __init__(self, data: SSLData):
        from torchvision import transforms as T

        weak = [T.RandomCrop(data.side, padding=data.side // 8, padding_mode="reflect"), T.RandomHorizontalFlip()]
        last, strong = [T.ToTensor(), T.Normalize(data.mean, data.std)], [self.randaugment, self.cutout]
        colors = T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8)
        jitter = [T.RandomResizedCrop(data.side, (0.2, 1)), T.RandomHorizontalFlip(), colors, T.RandomGrayscale(0.2)]
        self.kinds = {kind: T.Compose([*steps, *last]) for kind, steps in (
            ("weak", weak), ("strong", weak + strong), ("jitter", jitter))}
        self.images = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in data.images.cpu()]

    def __call__(self, kind: str, rows: list[int]) -> Tensor:
        return torch.stack([self.kinds[kind](self.images[row]) for row in rows])

    OPS = (                                            # an operation, the least and the greatest v
        (lambda i, v: ImageOps.autocontrast(i), 0, 1), (lambda i, v: ImageOps.equalize(i), 0, 1),
        *((lambda i, v, kind=kind: kind(i).enhance(v), 0.05, 0.95) for kind in (
            ImageEnhance.Brightness, ImageEnhance.Color, ImageEnhance.Contrast, ImageEnhance.Sharpness)),
        (lambda i, v: ImageOps.posterize(i, max(1, int(v))), 4, 8), (lambda i, v: ImageOps.solarize(i, v), 0, 256),
        (lambda i, v: i, 0, 1), (lambda i, v: i.rotate(random.choice(SIGNS) * v), 0, 30),
        (lambda i, v: i.transform(i.size, Image.AFFINE, (1, random.choice(SIGNS) * v, 0, 0, 1, 0)), 0, 0.3),
        (lambda i, v: i.transform(i.size, Image.AFFINE, (1, 0, 0, random.choice(SIGNS) * v, 1, 0)), 0, 0.3),
        (lambda i, v: i.transform(i.size, Image.AFFINE, (1, 0, random.choice(SIGNS) * v * i.size[0], 0, 1, 0)), 0, 0.3),
        (lambda i, v: i.transform(i.size, Image.AFFINE, (1, 0, 0, 0, 1, random.choice(SIGNS) * v * i.size[1])), 0, 0.3))

    def randaugment(self, image: Image.Image) -> Image.Image:
        for op, low, high in random.choices(self.OPS, k=3):
            image = op(image, random.uniform(low, high))
        return image

    def cutout(self, image: Image.Image) -> Image.Image:
        side = image.size[0]
        size = random.uniform(0, 0.5) * side
        x, y = (int(max(0, random.uniform(0, side) - size / 2)) for _ in range(2))
        image = image.copy()
        ImageDraw.Draw(image).rectangle((x, y, min(side, x + size), min(side, y + size)), (125, 123, 114))
        return image


class Naive:
    """The step as the widely used frameworks take it."""

    def __init__(self, method: Method, data: SSLData, config: Config, machine: Machine):
        device = machine.torch_device()
        arguments = method.arguments | ({"passes": "joint"} if "passes" in method.arguments else {})
        self.method, self.data, self.config, self.device = type(method)(**arguments), data, config, device
        plain = replace(config, precision="fp32")
        self.nets = set_up(self.method, data, plain, Machine(device=machine.device, channels_last=False))[0]
        self.optimizer = torch.optim.SGD(
            self.nets.student.parameters(), lr=config.lr, momentum=config.momentum, nesterov=True,
            weight_decay=config.weight_decay, foreach=False, fused=False)
        self.view = PillowUSB(data)

    def __call__(self, step: int) -> None:
        config, data = self.config, self.data
        i = random.choices(range(data.num_labeled), k=config.batch_size)
        j = random.sample(range(data.num_unlabeled), config.mu * config.batch_size) if self.method.views else []
        x = self.view("weak", data.labeled[i].tolist()).to(self.device)
        u = tuple(self.view(kind, data.unlabeled[j].tolist()).to(self.device) for kind in self.method.views)
        rows = torch.tensor(i, device=self.device), torch.tensor(j, dtype=torch.int64, device=self.device)
        draws = self.method.draw(torch.Generator().manual_seed(step), len(i), len(j))
        draws = {name: value.to(self.device) for name, value in draws.items()}
        batch = Batch(x, data.y[data.labeled[i]].to(self.device), u, *rows, draws)
        self.optimizer.zero_grad()
        out = self.method.loss(self.nets, batch, torch.tensor(0.0, device=self.device))
        out.loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            for teacher, student in zip(self.nets.teacher.parameters(), self.nets.student.parameters()):
                teacher.mul_(0.999).add_(student, alpha=0.001)
            for teacher, student in zip(self.nets.teacher.buffers(), self.nets.student.buffers()):
                teacher.copy_(student)
        out.loss.item()


def naive_steps(pipe, method: str, count: int, size: int, labels: int, config: Config, machine: Machine) -> None:
    """A process of its own: take a naive step for each message and send its milliseconds back; None ends it."""
    where = machine.torch_device()
    if machine.threads:
        torch.set_num_threads(machine.threads)
    naive = Naive(methods.method_class(method)(), photographs(count, size, where, labels), config, machine)
    for step in iter(pipe.recv, None):
        pipe.send(timed(lambda: naive(step), where))         # noqa: B023


def photographs(count: int, side: int, device: torch.device, labels: int) -> SSLData:
    """Noise as smooth as photographs, in ten classes; what the pixels show does not change the cost. `labels` rows are
    labelled; where that is more than `count`, some images several times."""
    g = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, max(2, side // 4), max(2, side // 4), generator=g)
    fine = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic", align_corners=False)
    images = (255 * (fine + 0.1 * torch.randn(count, 3, side, side, generator=g)).clamp(0, 1)).to(torch.uint8)
    rows, y = torch.arange(count), torch.arange(count) % 10
    return SSLData("noise", images, y, images[:10], y[:10], tuple("0123456789"), (0.5,) * 3, (0.25,) * 3, True, "",
                   torch.arange(labels) % count, rows, 0, {}, rows[:0]).to(device)


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Milliseconds of one call, the device's own work included."""
    wait = {"cuda": torch.cuda.synchronize, "mps": torch.mps.synchronize}.get(device.type, lambda: None)
    wait()
    begin = time.perf_counter()
    work()
    wait()
    return 1000 * (time.perf_counter() - begin)


class Recorded:
    """The passes that a method makes through the networks in a step; call it with networks that shall make them, on the
    tensors of that step."""

    def __init__(self, method: Method, nets: Nets, batch: Batch):
        self.calls = []

        def noted(*views: Tensor, **how) -> tuple[Out, ...]:
            self.calls.append(([(view.detach(), view.requires_grad) for view in views], how))
            return nets(*views, **how)

        method.loss(noted, batch, torch.zeros((), device=batch.x.device))

    def __call__(self, nets: Nets) -> list[Out]:
        """The outputs that carry a gradient. Where the method asked for one with respect to a view, it is computed."""
        outs = []
        for views, how in self.calls:
            given = [view.clone().requires_grad_() if wanted else view for view, wanted in views]
            found = nets(*given, **how)
            wanted = [view for view in given if view.requires_grad]
            if wanted:
                torch.autograd.grad(sum(out.logits.square().mean() for out in found), wanted)
            else:
                outs += [out for out in found if out.logits.requires_grad]
        return outs


class SamePasses(Method):
    """FixMatch's arithmetic on the passes of another method."""

    def __init__(self, views: tuple[str, ...], passes: Recorded):
        super().__init__()
        self.views, self.passes = views, passes

    def loss(self, nets: Nets, batch: Batch, progress: Tensor) -> Step:
        x, *others = self.passes(nets)
        loss = F.cross_entropy(x.logits, batch.y)
        for out in others:
            confidence, label = out.logits.detach().softmax(1).max(1)
            loss = loss + (F.cross_entropy(out.logits, label, reduction="none") * (confidence >= 0.95)).mean()
        return Step(loss, {"sup": loss.detach()})


def our_works(method: Method, data: SSLData, config: Config, machine: Machine) -> tuple[dict[str, Callable], Feed]:
    """What is measured beside the naive step, and the feed of our step. bare, step: of the method. fixmatch: see above.
    augment, pillow: a batch's strong views of variant usb, ours and Pillow's."""
    nets, optimizer, feed = set_up(method, data, config, machine)
    passes, step = Recorded(method, nets, feed(0)), itertools.count()

    def bare() -> None:
        """The gradient is that of the plainest loss."""
        outs = passes(nets)
        optimizer.zero_grad()
        sum(out.logits.mean() for out in outs).backward()

    works = {"bare": bare, "step": lambda: take_step(method, nets, optimizer, feed, next(step))}
    if not isinstance(method, FixMatch):
        plain = SamePasses(method.views, passes)
        theirs = (plain, *set_up(plain, data, config, machine))
        works["fixmatch"] = lambda: take_step(*theirs, next(step))
    images, g, pillow = feed.data.images, torch.Generator().manual_seed(0), PillowUSB(data)
    rows = (torch.arange(config.batch_size * config.mu) % len(images)).to(images.device)
    normalized = partial(augment.normalize, mean=data.mean, std=data.std, channels_last=feed.channels_last)
    works["augment"] = lambda: normalized(augment.strong(images[rows], g, variant="usb")).to(machine.torch_device())
    works["pillow"] = lambda: pillow("strong", rows.tolist())
    return works, feed


def measure(works: dict[str, Callable], naive: tuple, rounds: int, device: torch.device) -> dict[str, float]:
    """Median milliseconds of the naive step (naive: the arguments of naive_steps()) and of each work, all in turn in
    each round. Raises InputError where the naive step's process dies."""
    for work in works.values():
        work(), work()
    context = multiprocessing.get_context("spawn")
    pipe, other = context.Pipe()
    process = context.Process(target=naive_steps, args=(other, *naive), daemon=True)
    process.start()
    other.close()
    times = {name: [] for name in ("naive", *works)}
    for k in range(rounds + 1):
        try:
            pipe.send(k)
            naive_ms = pipe.recv()
        except (EOFError, OSError) as error:
            raise InputError("the naive step's process died; perhaps the memory does not suffice: try a smaller "
                             "--batch-size") from error
        if k:                                                # the first only warms it up
            times["naive"].append(naive_ms)
            for name, work in works.items():
                times[name].append(timed(work, device))
    pipe.send(None)
    process.join()
    return {name: statistics.median(values) for name, values in times.items()}


def bench(method: Annotated[str, "which method (default: fixmatch)"] = "fixmatch",
          net: Annotated[str, "network (default: wrn-28-2, the papers' for CIFAR-10)"] = "wrn-28-2",
          batch_size: Annotated[int, "labelled images a step (default: 16; paper: 64)"] = 16,
          mu: Annotated[int, "unlabelled images for each labelled one (default: 7; paper: 7)"] = 7,
          size: Annotated[int, "side of the images in pixels (default: 32, CIFAR)"] = 32,
          labels: Annotated[int, "labelled images, the rows of a memory bank "
                                 "(default: 4000, the papers' most on CIFAR-10)"] = 4000,
          rounds: Annotated[int, "how often each is measured, in turn (default: 9)"] = 9,
          precision: Annotated[Precision, "of bare and step (default: auto)"] = "auto",
          device: Annotated[str, "cpu, cuda ... (default: auto)"] = "auto",
          threads: Annotated[int | None, "CPU threads (default: PyTorch's own, one a core)"] = None,
          channels_last: Annotated[bool | None, "images as N H W C, for bare and step "
                                                "(default: yes, but not on mps)"] = None,
          compile: Annotated[bool, "torch.compile, for bare and step"] = False) -> dict:
    """What one training step costs, in milliseconds: naive, bare, step, medians of measurements in turn. For another
    method than FixMatch also a step with FixMatch's arithmetic on the same passes. And how many images a second get the
    strong view of variant usb, by our code and by Pillow.
    """
    require(rounds >= 1, f"rounds is {rounds}, it must be at least 1")
    require(8 <= size <= 512, f"size is {size}, it must be from 8 to 512")
    machine = Machine(device, threads, channels_last, compile)
    machine.apply()
    where = machine.torch_device()
    config = Config(network=net, batch_size=batch_size, mu=mu, strong="usb", precision=precision)
    config.check()
    require(labels >= 10, f"labels is {labels}, it must be at least 10, one a class")
    unlabeled = batch_size * mu
    count = max(512, 2 * unlabeled)
    data = photographs(count, size, where, labels)
    config, ours = config.resolve(data, where), methods.method_class(method)()
    works, feed = our_works(ours, data, config, machine)
    ms = measure(works, (method, count, size, labels, config, machine), rounds, where)
    fixmatch = ms.get("fixmatch")
    return {"naive_ms": round(ms["naive"], 2), "bare_ms": round(ms["bare"], 2), "step_ms": round(ms["step"], 2),
            "ratio": round(ms["step"] / ms["bare"], 3), "speedup": round(ms["naive"] / ms["step"], 2),
            "fixmatch_ms": fixmatch and round(fixmatch, 2),
            "to_fixmatch": fixmatch and round(ms["step"] / fixmatch, 3),
            **{f"{name}_images_per_s": round(1000 * unlabeled / ms[name]) for name in ("augment", "pillow")},
            "method": method, "net": net, "batch_size": batch_size, "mu": mu, "size": size, "labels": labels,
            "rounds": rounds, "precision": config.precision, "channels_last": feed.channels_last, "compile": compile,
            "arguments": ours.arguments, "device": str(where),
            "device_name": torch.cuda.get_device_name(where) if where.type == "cuda" else platform.machine(),
            "threads": torch.get_num_threads(), "torch": torch.__version__}


def report(f: dict) -> str:
    """The figures as a few lines for people."""
    beside = "" if f["fixmatch_ms"] is None else (
        f"  fixmatch {f['fixmatch_ms']:7.1f} ms   FixMatch's arithmetic, same passes: step is {f['to_fixmatch']:.3f} "
        "times that\n")
    ours, pillow = f["augment_images_per_s"], f["pillow_images_per_s"]
    return (f"{f['method']}, {f['net']}, B {f['batch_size']}, mu {f['mu']}, {f['size']} px, {f['precision']}, "
            f"{f['device']}, {f['threads']} threads\n"
            f"  naive  {f['naive_ms']:9.1f} ms   float32, all views with gradient, Pillow\n"
            f"  bare   {f['bare_ms']:9.1f} ms   forward and backward of the network alone\n"
            f"  step   {f['step_ms']:9.1f} ms   everything: {f['ratio']:.2f} times bare, "
            f"{f['speedup']:.2f} times as fast as naive\n{beside}"
            f"  strong view (usb)  {ours:,} images/s, Pillow {pillow:,}: {ours / pillow:.1f} times as many")
