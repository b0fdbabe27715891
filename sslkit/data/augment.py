"""Weak and strong views of a batch of uint8 images: every image has its own draw, and nothing loops over images.

The ops equal Pillow's bit for bit (pillow_ops.py). The variants of RandAugment are those of kekmodel/FixMatch-pytorch
(mc), google-research/fixmatch (rac), USB and TorchSSL (usb) and CoMatch (fixed); `small` is ours, for images under
16 px. All random numbers come from one CPU generator: every device makes the same views, and the host knows how many
rows each op gets without waiting for a GPU. MPS has no float64: there, views are made on the CPU.
"""
import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from sslkit.data.dataset import send
from sslkit.data.draws import Share, uniform
from sslkit.data.pillow_ops import OPS, ROTATE, affine, bilinear, blank, column, fixed_point, luma, pick, ramp, run_slot
from sslkit.errors import choose, require


class _Variant(NamedTuple):
    """A variant of RandAugment. A pair (base, span) gives an op's value at level m: base + span * m / 10."""
    slots: int                       # ops for each image
    p: float                         # chance that a slot's op is applied
    levels: tuple[float, float]      # lowest and highest m
    whole: bool                      # m is an integer, and so are degrees, thresholds and shifts
    enhance: tuple[float, float]     # factor of Contrast, Brightness, Color, Sharpness
    bits: tuple[float, float]        # of Posterize
    threshold: tuple[float, float]   # of Solarize
    shift: tuple[float, float]       # span of the translation: (in sides, in pixels)
    pillow_box: bool                 # cutout: Pillow's inclusive rectangle, or a box clipped at every edge
    fill: tuple[int, int, int]       # cutout: colour


_SPECS = {
    "mc": _Variant(2, .5, (1, 9), True, (.05, .9), (4, 4), (256, -256), (.3, 0), True, (127, 127, 127)),
    "rac": _Variant(2, .5, (1, 9), True, (.1, 1.8), (4, -4), (256, -256), (0, 10), False, (128, 128, 128)),
    "usb": _Variant(3, 1., (0, 10), False, (.05, .9), (4, 4), (256, -256), (.3, 0), True, (125, 123, 114)),
    "fixed": _Variant(2, .5, (10, 10), True, (.1, 1.8), (4, 0), (256, 0), (0, 10), False, (128, 128, 128)),
}
VARIANTS = (*_SPECS, "small")


def weak(images: Tensor, g: Generator | Share, *, flip: bool = True, pad: int | None = None) -> Tensor:
    """The weak view: a reflect-padded random crop, then a horizontal flip with p .5 (kekmodel/FixMatch-pytorch).

    images: (N, C, H, W) uint8 on any device, C 1 or 3, H == W; so is the result. g: a CPU generator, the only
    randomness. pad: pixels, by default 12.5% of the side, at least 1; 0 means no crop. InputError for any other images,
    generator or pad.
    """
    n, c, side = checked(images, g)
    pad = max(1, side // 8) if pad is None else pad
    require(0 <= pad < max(side, 1), f"pad must lie in 0..{side - 1} for images of side {side}, not {pad}")
    draws = uniform((3, n), g)
    shift = (draws[:2] * (2 * pad + 1)).int() - pad
    mirror = ((draws[2] < .5) & flip).int()
    # Where rows and columns start, and their steps: a mirrored image starts at the far end and runs back.
    plan = torch.stack((shift[0], shift[1] + mirror * (side - 1), torch.ones_like(mirror), 1 - 2 * mirror))
    plan = send(plan, images.device)[..., None]
    at = plan[:2] + plan[2:] * ramp(side, torch.int32, images.device)
    y, x = side - 1 - (side - 1 - at.abs()).abs()  # reflected at both ends
    return pick(images.flatten(2), (y * side)[:, :, None] + x[:, None, :]).view_as(images)


def randaugment(images: Tensor, g: Generator | Share, variant: str, *, magnitude: float | None = None,
                cutout: bool = True) -> Tensor:
    """A RandAugment variant (Cubuk et al. 2020, arXiv:1909.13719) and its cutout, drawn for each image.

    images, g: as in weak(). magnitude: one strength for all ops and the cutout: 0 changes nothing, 1 is the end of the
    variant's range that changes most; None draws it. InputError for an unknown variant, other images, a magnitude
    outside [0, 1].
    """
    choose("variant", variant, VARIANTS)
    n, c, side = checked(images, g)
    require(magnitude is None or 0 <= magnitude <= 1, f"magnitude must lie in [0, 1], not {magnitude}")
    images = (_small if variant == "small" else _policy)(images, g, variant, magnitude)
    size, *centre = uniform((3, n), g)
    if not cutout or magnitude == 0:
        return images
    if variant != "usb" or magnitude is not None:
        size = torch.full_like(size, 1 if magnitude is None else magnitude)
    size = size * side / (4 if variant == "small" else 2)
    size = size if variant == "usb" else size.floor()
    centre = torch.stack(centre) * side
    if variant != "small" and _SPECS[variant].pillow_box:
        start = (centre - size / 2).clamp_(min=0).floor_()
        stop = (start + size).floor_() + 1
    else:
        start = centre.floor_() - size // 2
        stop = start + size
    return blank(images, start, stop, (0, 0, 0) if variant == "small" else _SPECS[variant].fill)


def strong(images: Tensor, g: Generator | Share, *, variant: str = "mc", flip: bool = True,
           magnitude: float | None = None, first: Callable[..., Tensor] = weak) -> Tensor:
    """The strong view: a new weak view, of `first`, then randaugment() (FixMatch). Shapes and errors as in these."""
    choose("variant", variant, VARIANTS)
    return randaugment(first(images, g, flip=flip), g, variant, magnitude=magnitude)


def centre(images: Tensor, side: int | None) -> Tensor:
    """The central `side` pixels of each side of images (N, C, H, H); None: all of them. InputError where H is less."""
    if side is None:
        return images
    require(1 <= side <= images.shape[-1], f"images of side {images.shape[-1]} have no central square of side {side}")
    at = (images.shape[-1] - side) // 2
    return images[..., at:at + side, at:at + side]


def apply_op(images: Tensor, name: str, value: Tensor) -> Tensor:
    """One op of OPS on a batch, equal to Pillow's bit for bit.

    images: (N, C, H, W) uint8, as in weak(). value: (N,) floats in the op's units: degrees, shear, pixels, bits,
    threshold, factor of enhance(); ignored by an op without one. InputError for an unknown op, other images, or a value
    of another shape.
    """
    at = OPS.index(choose("op", name, OPS))
    n, c, side = checked(images)
    require(value.shape == (n,), f"value must have one entry for each of {n} images, not shape {tuple(value.shape)}")
    value = value.double().cpu()
    maps = fixed_point(affine(torch.full((n,), at), value, side))
    out = images.flatten(2).clone()
    run_slot(out, [0] * (at + 1) + [n] * (len(OPS) - at), *(send(t, images.device) for t in (value, maps)))
    return out.view_as(images)


def normalize(images: Tensor, mean: Sequence[float], std: Sequence[float], *, channels_last: bool = False) -> Tensor:
    """(images / 255 - mean) / std, float32, as torchvision's ToTensor and Normalize.

    images: (N, C, H, W) uint8, as in weak(); the result has the same shape, in channels_last memory if asked.
    mean, std: C floats, in units of [0, 1]. InputError for other images, or if mean or std does not have C entries.
    """
    n, c, side = checked(images)
    require(len(mean) == len(std) == c, f"mean and std need {c} entries each, for images with {c} channels")
    scale = column(tuple(1 / (255 * float(s)) for s in std), images.device)
    offset = column(tuple(-float(m) / float(s) for m, s in zip(mean, std)), images.device)
    out = images.float().mul_(scale).add_(offset)
    return out.contiguous(memory_format=torch.channels_last) if channels_last else out


def checked(images: Tensor, g: Generator | Share | None = None) -> tuple[int, int, int]:
    shape = tuple(images.shape)
    ok = images.dtype == torch.uint8 and len(shape) == 4 and shape[1] in (1, 3) and shape[2] == shape[3]
    require(ok, f"images must be uint8 of shape (N, 1 or 3, side, side), not {images.dtype} of shape {shape}")
    host = getattr(g, "g", g)
    require(g is None or host.device.type == "cpu", "the generator must be on the CPU, where all draws are made")
    return shape[:3]


@functools.lru_cache(maxsize=64)
def _curves(variant: str, side: int, pinned: bool) -> Tensor:
    """(3, 14): base, span, whether span * m / 10 is truncated. Pinned: from no change (m = 0) to the most (m = 10)."""
    v = _SPECS[variant]
    factors = ("Brightness", "Contrast", "Color", "Sharpness")
    shift = (0, v.shift[0] * side + v.shift[1], v.whole)
    curves = {"Posterize": (*v.bits, True), "Solarize": (*v.threshold, v.whole),     # op -> base, span, whole
              **dict.fromkeys(factors, (*v.enhance, False)), "Rotate": (0, 30, v.whole), "ShearX": (0, .3, False),
              "ShearY": (0, .3, False), "TranslateX": shift, "TranslateY": shift}
    if pinned:
        neutral = {"Posterize": 8, "Solarize": 256, **dict.fromkeys(factors, 1)}     # 0 for the others
        for op, (base, span, whole) in curves.items():
            steps = (math.trunc(span * m / 10) if whole else span * m / 10 for m in reversed(v.levels))
            start = neutral.get(op, 0)
            ends = (base + step - start for step in steps)
            curves[op] = start, max(ends, key=lambda change: round(abs(change), 9)), whole
    return torch.tensor([*zip(*(curves.get(op, (0, 0, False)) for op in OPS))], dtype=torch.float64)


def _policy(images: Tensor, g: Generator | Share, variant: str, magnitude: float | None) -> Tensor:
    """The slots of a published variant: ops drawn for each image, all images of a slot at once, sorted by op."""
    v, n, side = _SPECS[variant], len(images), images.shape[-1]
    op, keep, level, sign = uniform((4, v.slots, n), g)
    if magnitude == 0:
        return images.clone()  # AutoContrast and Equalize have no strength to turn down
    low, high = v.levels
    if magnitude is not None:
        level = torch.full_like(level, 10 * magnitude)
    else:
        level = low + (level * (high - low + 1)).floor_() if v.whole else low + level * (high - low)
    ops = (op * len(OPS)).long() * (keep < v.p)
    base, span, whole = _curves(variant, side, magnitude is not None)[:, ops]
    step = span * level / 10
    value = base + torch.where(whole > 0, step.trunc(), step)
    value = torch.where((ops >= ROTATE) & (sign < .5), -value, value)
    ops, order = ops.sort(dim=1, stable=True)  # in a slot, place k holds image order[k], and image i lies at place[i]
    place = torch.empty_like(order).scatter_(1, order, torch.arange(n).expand_as(order))
    value = value.gather(1, order)
    maps = affine(ops, value, side)
    maps = maps if variant == "fixed" else fixed_point(maps)
    edges = torch.searchsorted(ops, torch.arange(len(OPS) + 1).expand(v.slots, -1).contiguous()).tolist()
    moves = torch.cat((order[:1],                           # from the images' order to the first slot's
                       place[:-1].gather(1, order[1:]),     # from each slot's order straight to the next slot's
                       place[-1:]))                         # from the last slot's order back to the images'
    moves, value, maps = (send(t, images.device) for t in (moves, value, maps))
    x = images.flatten(2)
    for slot in range(v.slots):
        x = x.index_select(0, moves[slot])
        run_slot(x, edges[slot], value[slot], maps[slot])
    return x.index_select(0, moves[-1]).view_as(images)


def _small(images: Tensor, g: Generator | Share, variant: str, magnitude: float | None) -> Tensor:
    """One affine map (bilinear, black outside), then contrast and brightness by one table."""
    n, c, side = images.shape[:3]
    draws = 2 * uniform((7, n), g) - 1
    if magnitude is not None:
        draws = torch.where(draws < 0, -magnitude, magnitude).double()
    angle, shift_x, shift_y, scale, shear, contrast, light = draws
    angle, scale, shear = angle * math.radians(23), torch.exp(-.2 * scale), .3 * shear
    cos, sin, half = angle.cos() * scale, angle.sin() * scale, side / 2
    # From a pixel of the result back to the source: undo the shift, then shear, rotate and scale about the middle.
    x, y = half + shift_x * side / 4, half + shift_y * side / 4
    top, bottom = (cos, cos * shear - sin), (sin, sin * shear + cos)
    a = torch.stack((*top, half - top[0] * x - top[1] * y, *bottom, half - bottom[0] * x - bottom[1] * y), 1)
    tone = torch.stack((1 + .5 * contrast, light * .15 * 255))
    a, tone = send(a.view(n, 2, 3), images.device), send(tone.float(), images.device)
    x = bilinear(images.flatten(2), a, fill=0)
    mean = luma(x.float()).mean(2, keepdim=True)
    factor, light = tone[:, :, None, None]
    table = (ramp(256, torch.float32, x.device) - mean) * factor + mean + light
    return table.round_().clamp_(0, 255).to(torch.uint8).expand(-1, c, -1).gather(2, x.long()).view_as(images)
