"""Views that are a piece of the image, scaled: crop(), the weak view of ImageNet's images, and jitter(), the view of
contrastive learning, which is in other colours. CoMatch's second strong view (Li et al., ICCV 2021), after MoCo v2 and
SimCLR.

It equals torchvision's RandomResizedCrop, RandomHorizontalFlip, ColorJitter and RandomGrayscale on Pillow images, bit
for bit, draws apart (before version 13 Pillow always scaled the width first: some pixels of a box that shrinks then
differ by 1). Every image has its own draw; all of them are made on the CPU, as in augment.py.
"""
import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from sslkit.data.augment import checked
from sslkit.data.dataset import send
from sslkit.data.draws import Share, uniform
from sslkit.data.pillow_ops import enhance, luma
from sslkit.errors import require

TRIES = 10                        # boxes that RandomResizedCrop draws before it takes the whole image
BITS = 22                         # of Pillow's fixed-point weights (PRECISION_BITS in Resample.c)
CHANGE, HUE = 0.4, 0.1            # factors of brightness, contrast and saturation from .6 to 1.4; turns of the hue


def crop(images: Tensor, g: Generator | Share, *, flip: bool = True, side: int | None = None) -> Tensor:
    """The weak view of large images (N, C, H, H) uint8, C 1 or 3: a box, see jitter(), scaled to `side` pixels a side
    (default: H), then a flip with p .5 if `flip`. InputError for any other images, generator or side."""
    boxes = _boxes(images, g, side)
    mirror = uniform((1, len(images)), g, torch.float32)[0] < .5 * flip
    return resized_crop(images, *boxes, mirror, side)


def jitter(images: Tensor, g: Generator | Share, *, flip: bool = True, side: int | None = None) -> Tensor:
    """The jittered view of images (N, C, H, H) uint8, C 1 or 3: (N, C, side, side), by default as large.

    A box of a fifth to all of the area (under 16 px half to all: ours, or nothing of a digit is left) and of sides 3:4
    to 4:3 is scaled to the whole; flip p .5 if `flip`; with p .8 brightness, contrast, saturation and hue in any order;
    with p .2 grey. g: a CPU generator. InputError for any other images, generator or side.
    """
    n, boxes = len(images), _boxes(images, g, side)
    mirror, jittered, grey = uniform((3, n), g, torch.float32) < torch.tensor([.5 * flip, .8, .2])[:, None]
    turn, *factors = 2 * uniform((4, n), g) - 1
    order = uniform((4, n), g, torch.float32).argsort(0)
    x = resized_crop(images, *boxes, mirror, side)
    values = torch.stack((*(1 + CHANGE * f for f in factors), turn * HUE))
    return _recolored(x.flatten(2), order.where(jittered, -1), values, grey).view_as(x)


def _boxes(images: Tensor, g: Generator | Share, out: int | None) -> tuple[Tensor, Tensor]:
    """A box of each image, as RandomResizedCrop draws it: (2, N) first row and column, (2, N) rows and columns."""
    n, c, side = checked(images, g)
    require(out is None or 1 <= out <= 1024, f"side is {out}, it must be from 1 to 1024")
    area, shape, *corner = uniform((4, TRIES, n), g)
    least = .5 if side < 16 else .2
    area, ratio = (least + (1 - least) * area) * side**2, (4 / 3) ** (2 * shape - 1)
    sizes = torch.stack(((area / ratio).sqrt(), (area * ratio).sqrt())).round()               # (2, TRIES, N): h and w
    fits = (sizes <= side).all(0)
    first = fits.int().argmax(0)[None, None]
    sizes = torch.where(fits.any(0), sizes.gather(1, first.expand(2, 1, n))[:, 0], side)
    starts = (torch.stack(corner).gather(1, first.expand(2, 1, n))[:, 0] * (side - sizes + 1)).floor()
    return starts, sizes


def resized_crop(images: Tensor, starts: Tensor, sizes: Tensor, mirror: Tensor, side: int | None = None) -> Tensor:
    """Each image's box scaled to `side` pixels a side (default: as many as the image has), bilinear, antialiased, as
    Pillow's crop() and resize(). images: (N, C, H, H) uint8; starts: (2, N), the box's first row and column; sizes:
    (2, N), rows and columns, float64; mirror: (N,) bool. (N, C, side, side)."""
    side = side or images.shape[-1]
    rows, columns = zip(*(part.chunk(2) for part in _taps(side, starts.flatten(), sizes.flatten())))
    columns = tuple(torch.where(mirror[:, None, None], part.flip(1), part) for part in columns)
    turned = (sizes[0] > side) & (sizes[0] > 2 * sizes[1] - side)     # Pillow 13 scales the height of these first
    if not turned.any():
        return _scaled(images, columns, rows).mT.contiguous()
    there, turned = send(turned, images.device)[:, None, None, None], turned[:, None, None]
    first = tuple(torch.where(turned, down, along) for down, along in zip(rows, columns))
    second = tuple(torch.where(turned, along, down) for down, along in zip(rows, columns))
    x = _scaled(torch.where(there, images.mT, images), first, second)
    return torch.where(there, x, x.mT)


def _scaled(x: Tensor, first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """x (N, C, H, H) scaled along its last axis by `first`, then along the other by `second`, which is then the last.
    first, second: see _taps()."""
    x = _resampled(x, *(send(part, x.device) for part in first))
    return _resampled(x.mT, *(send(part, x.device) for part in second))


def _taps(side: int, start: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Which K pixels make each new one, and their weights (precompute_coeffs in Resample.c): two, or as many as shrink
    into one. start, size: (N,) -> (N, side, K) int64 and int32."""
    scale = (size / side)[:, None]
    reach, centre = scale.clamp(min=1), (torch.arange(side) + .5) * scale
    low = (centre - reach + .5).floor().clamp(min=0)[..., None] + torch.arange(math.ceil(2 * float(reach.max())))
    weight = (1 - ((low - centre[..., None] + .5) * (1 / reach)[..., None]).abs()).clamp(min=0)
    weight = weight * (low < size[:, None, None])
    weight = (weight / weight.cumsum(2)[..., -1:] * 2**BITS + .5).floor().int()
    return (torch.minimum(low, size[:, None, None] - 1) + start[:, None, None]).long(), weight


def _resampled(x: Tensor, at: Tensor, weight: Tensor) -> Tensor:
    """Along the last axis of x (N, C, R, H) uint8, in integers as Pillow's; at, weight: see _taps()."""
    at, weight = (part[:, None, None] for part in (at, weight))
    shape = (*x.shape[:3], at.shape[3])
    taps = range(at.shape[-1])
    total = sum(x.gather(3, at[..., k].expand(shape)).int() * weight[..., k] for k in taps) + 2**(BITS - 1)
    return total.bitwise_right_shift_(BITS).to(torch.uint8)


def _recolored(x: Tensor, order: Tensor, values: Tensor, grey: Tensor) -> Tensor:
    """ColorJitter and RandomGrayscale, in place. x: (N, C, P) uint8; order: (4, N), which op comes at each turn, -1 for
    none; values: (4, N) of brightness, contrast, saturation and hue, of which one channel has the first two; grey:
    (N,)."""
    values = values if x.shape[1] == 3 else values[:2]
    for turn in order:
        for k, value in enumerate(values):
            rows = (turn == k).nonzero()[:, 0]
            if len(rows):
                there, value = send(rows, x.device), send(value[rows], x.device)
                part = x.index_select(0, there)
                if k < 3:
                    enhance(part, [len(part) * (k <= op) for op in range(3)], value)
                x.index_copy_(0, there, part if k < 3 else shift_hue(part, value))
    rows = send(grey.nonzero()[:, 0], x.device)
    return x.index_copy_(0, rows, luma(x.index_select(0, rows).float()).to(torch.uint8).expand(-1, x.shape[1], -1))


def shift_hue(x: Tensor, turns: Tensor) -> Tensor:
    """The hue of x (N, 3, P) uint8 moved by `turns` (N,) of the colour circle, through Pillow's HSV in bytes."""
    top, least = x.amax(1), x.amin(1)
    span = (top.int() - least.int()).float()
    r, g, b = ((top.int() - plane.int()).float() / span.clamp(min=1) for plane in x.unbind(1))
    red, green = x[:, 0] == top, x[:, 1] == top
    hue = torch.where(red, b - g, torch.where(green, (2.0 + r.double() - b).float(), (4.0 + g.double() - r).float()))
    hue = (hue.double() / 6 + 1).fmod(1).float()
    hue = (hue.double() * 255).int() * (span > 0)
    saturation = ((span / top.clamp(min=1).float()).double() * 255).int()

    hue = (hue + (turns * 255).trunc().int()[:, None]) % 256
    sector = hue.float().double() * 6 / 255
    whole = sector.floor()
    f, fs = (sector - whole).float().double(), (saturation.double() / 255).float().double()
    v = top.double()
    p, q, t = ((v * (1 - part)).add_(.5).floor_() for part in (fs, fs * f, fs * (1 - f)))
    ways = torch.stack((v, t, p, q, v, p, p, v, t, p, q, v, t, p, v, v, p, q), 1).unflatten(1, (6, 3))   # (N, 6, 3, P)
    index = (whole.long() % 6)[:, None, None].expand(-1, 1, 3, -1)
    return ways.gather(1, index)[:, 0].clamp_(0, 255).to(torch.uint8)
