"""The view of contrastive learning: a piece of the image, scaled up, in other colours. CoMatch's second strong view
(Li et al., ICCV 2021), after MoCo v2 and SimCLR.

It equals torchvision's RandomResizedCrop, RandomHorizontalFlip, ColorJitter and RandomGrayscale on Pillow images, bit
for bit, draws apart. Every image has its own draw; all of them are made on the CPU, as in augment.py.
"""
import torch
from torch import Generator, Tensor

from sslkit.data.augment import checked
from sslkit.data.dataset import send
from sslkit.data.pillow_ops import enhance, luma

TRIES = 10                        # boxes that RandomResizedCrop draws before it takes the whole image
BITS = 22                         # of Pillow's fixed-point weights (PRECISION_BITS in Resample.c)
CHANGE, HUE = 0.4, 0.1            # factors of brightness, contrast and saturation from .6 to 1.4; turns of the hue


def jitter(images: Tensor, g: Generator, *, flip: bool = True) -> Tensor:
    """The jittered view of images (N, C, H, H) uint8, C 1 or 3, in the same shape.

    A box of a fifth to all of the area (under 16 px half to all: ours, or nothing of a digit is left) and of sides 3:4
    to 4:3 is scaled to the whole; flip p .5 if `flip`; with p .8 brightness, contrast, saturation and hue in any order;
    with p .2 grey. g: a CPU generator. InputError for any other images or generator.
    """
    n, c, side = checked(images, g)
    area, shape, *corner = torch.rand(4, TRIES, n, generator=g, dtype=torch.float64)
    mirror, jittered, grey = torch.rand(3, n, generator=g) < torch.tensor([.5 * flip, .8, .2])[:, None]
    turn, *factors = 2 * torch.rand(4, n, generator=g, dtype=torch.float64) - 1
    order = torch.rand(4, n, generator=g).argsort(0)

    least = .5 if side < 16 else .2
    area, ratio = (least + (1 - least) * area) * side**2, (4 / 3) ** (2 * shape - 1)
    sizes = torch.stack(((area / ratio).sqrt(), (area * ratio).sqrt())).round()               # (2, TRIES, N): h and w
    fits = (sizes <= side).all(0)
    first = fits.int().argmax(0)[None, None]
    sizes = torch.where(fits.any(0), sizes.gather(1, first.expand(2, 1, n))[:, 0], side)
    starts = (torch.stack(corner).gather(1, first.expand(2, 1, n))[:, 0] * (side - sizes + 1)).floor()
    x = resized_crop(images, starts, sizes, mirror)
    values = torch.stack((*(1 + CHANGE * f for f in factors), turn * HUE))
    return _recolored(x.flatten(2), order.where(jittered, -1), values, grey).view_as(images)


def resized_crop(images: Tensor, starts: Tensor, sizes: Tensor, mirror: Tensor) -> Tensor:
    """Each image's box scaled to the whole image, bilinear, as Pillow's crop() and resize(). images: (N, C, H, H)
    uint8; starts: (2, N), the box's first row and column; sizes: (2, N), rows and columns; mirror: (N,) bool."""
    rows, columns = (_taps(images.shape[-1], start, size) for start, size in zip(starts, sizes))
    columns = tuple(torch.where(mirror[:, None, None], part.flip(1), part) for part in columns)
    x = _resampled(images, *(send(part, images.device) for part in columns))
    return _resampled(x.mT, *(send(part, images.device) for part in rows)).mT.contiguous()


def _taps(side: int, start: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Which two pixels make each new one, and their weights (precompute_coeffs in Resample.c). start, size: (N,) ->
    (N, side, 2) int64 and int32."""
    centre = (torch.arange(side) + .5) * (size / side)[:, None]
    low = (centre - .5).floor().clamp(min=0)[..., None] + torch.arange(2)
    weight = (1 - (low + .5 - centre[..., None]).abs()).clamp(min=0) * (low < size[:, None, None])
    weight = (weight / weight.sum(2, keepdim=True) * 2**BITS + .5).floor().int()
    return (torch.minimum(low, size[:, None, None] - 1) + start[:, None, None]).long(), weight


def _resampled(x: Tensor, at: Tensor, weight: Tensor) -> Tensor:
    """Along the last axis of x (N, C, R, H) uint8, in integers as Pillow's; at, weight: see _taps()."""
    at, weight = (part[:, None, None] for part in (at, weight))
    shape = (*x.shape[:3], at.shape[3])
    total = sum(x.gather(3, at[..., k].expand(shape)).int() * weight[..., k] for k in range(2)) + 2**(BITS - 1)
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
