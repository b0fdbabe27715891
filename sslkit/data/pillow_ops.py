"""Pillow's operations on whole batches, bit for bit: ImageOps, ImageEnhance and their C code (Geometry, Blend, Filter).

Rows come sorted by op, so that the rows of one op are a slice. Nothing loops over images or waits for the device.
"""
import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from sslkit.data.dataset import send

# Ordered by how they are computed: in a batch sorted by op, ops that share a computation lie side by side.
OPS = ("Identity", "AutoContrast", "Equalize", "Posterize", "Solarize", "Brightness", "Contrast", "Color", "Sharpness",
       "Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")
ENHANCE, ROTATE = OPS.index("Brightness"), OPS.index("Rotate")
_LUMA = (19595, 38470, 7471)  # Pillow's weights from RGB to L, in 1/65536


@functools.lru_cache(maxsize=64)
def column(values: tuple[float, ...], device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """(C, 1, 1), one value for each channel."""
    return send(torch.tensor(values, dtype=dtype)[:, None, None], device)


@functools.lru_cache(maxsize=64)
def ramp(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(n,): 0 to n - 1, made once: never change it in place."""
    return torch.arange(n, dtype=dtype, device=device)


def pick(x: Tensor, index: Tensor) -> Tensor:
    """Pixels of x (N, C, P) at index (N, ...), 0 to P - 1, the same for all channels: (N, C, the rest flattened)."""
    return x.gather(2, index.long().flatten(1)[:, None, :].expand(-1, x.shape[1], -1))


def affine(ops: Tensor, value: Tensor, side: int) -> Tensor:
    """Pillow's coefficients, from the result's pixels to the source's. ops, value: (...) -> (..., 2, 3) float64."""
    value = value[..., None] * (ops[..., None] == torch.arange(ROTATE, len(OPS)))
    angle, shear_x, shear_y, shift_x, shift_y = value.unbind(-1)
    angle = -torch.deg2rad(angle.remainder(360.))
    cos, sin, half = angle.cos().round(decimals=15), angle.sin().round(decimals=15), side / 2
    x = cos * -half + sin * -half + half
    y = -sin * -half + cos * -half + half
    return torch.stack((cos, sin + shear_x, x + shift_x, shear_y - sin, cos, y + shift_y), -1).unflatten(-1, (2, 3))


def fixed_point(a: Tensor) -> Tensor:
    """Coefficients `a` in 16.16 fixed point, int32, from the first pixel's centre on (affine_fixed in Geometry.c)."""
    centre = a[..., 2] + a[..., 0] * .5 + a[..., 1] * .5
    shifted = (a[..., 0, 1] == 0) & (a[..., 1, 0] == 0)  # Pillow keeps these in floating point: never rounded up
    centre = torch.where(shifted[..., None], centre.floor(), centre)
    return (torch.cat((a[..., :2], centre[..., None]), -1) * 65536 + .5).floor_().clamp_(-2**30, 2**30).int()


# ---- The ops, on rows x: (M, C, P) uint8, P = side * side; value: (M,) float64. On a CPU, torch is slow with booleans
# and from float to uint8, but fast in int16 and float32: a table and its gather pay only if the arithmetic is long.

def run_slot(x: Tensor, edges: list[int], value: Tensor, maps: Tensor) -> None:
    """One op for each row, in place. x: op k in rows edges[k] to edges[k + 1]. maps: (N, 2, 3), int32 or float64."""
    stretch, equal, bits, solar = (slice(edges[k], edges[k + 1]) for k in range(1, ENHANCE))
    if edges[1] < edges[3]:
        rows = x[edges[1]:edges[3]]
        table = torch.cat((_autocontrast(x[stretch]), _equalize(x[equal])))
        rows.copy_(table.gather(2, rows.long()))
    if bits.start < bits.stop:
        x[bits] &= (256 - torch.exp2(8 - value[bits].trunc())).to(torch.uint8)[:, None, None]
    if solar.start < solar.stop:
        below = (value[solar].ceil() - 1).short()[:, None, None] - x[solar].short()
        x[solar] ^= below.bitwise_right_shift_(15).to(torch.uint8)  # the sign, spread over all bits
    if edges[ENHANCE] < edges[ROTATE]:
        rows = slice(edges[ENHANCE], edges[ROTATE])
        enhance(x[rows], [e - rows.start for e in edges[ENHANCE + 1:ROTATE]], value[rows])
    if edges[ROTATE] < edges[-1]:
        rows = x[edges[ROTATE]:]
        rows.copy_((bilinear if maps.is_floating_point() else nearest)(rows, maps[edges[ROTATE]:]))


def _autocontrast(x: Tensor) -> Tensor:
    """Tables of new levels, (M, C, 256)."""
    low, high = (t[:, :, None].double() for t in (x.amin(2), x.amax(2)))
    # Not 255 / tensor: torch computes that as 255 * reciprocal, rounded twice. A flat image keeps its only level.
    scale = torch.full_like(low, 255) / (high - low).clamp_(min=1)
    offset = low * (low == high) - low * scale
    return (ramp(256, torch.float64, x.device) * scale).add_(offset).short().clamp_(0, 255).to(torch.uint8)


def _equalize(x: Tensor) -> Tensor:
    """Tables of new levels, (M, C, 256)."""
    m, c, p = x.shape
    count = torch.zeros(m, c, 256, dtype=torch.int32, device=x.device)
    count.scatter_add_(2, x.long(), ramp(2, torch.int32, x.device)[1:].expand(m, c, p))
    step = (p - count.gather(2, x.amax(2, keepdim=True).long())) // 255
    table = (count.cumsum(2, dtype=torch.int32).sub_(count).add_(step // 2)) // step.clamp(min=1)
    return torch.where(step > 0, table.clamp_(max=255), ramp(256, torch.int32, x.device)).to(torch.uint8)


def enhance(x: Tensor, ends: list[int], factor: Tensor) -> None:
    """ImageEnhance in place, in Image.blend's float32. x: Brightness, Contrast, Color up to `ends`, then Sharpness."""
    bright, contrast, color = ends
    pixels = x.float()
    base = torch.zeros_like(pixels)
    if bright < color:
        grey = luma(pixels[bright:color])
        base[contrast:color] = grey[contrast - bright:]
        total = grey[:contrast - bright].sum(2, keepdim=True, dtype=torch.float64)
        base[bright:contrast] = (total / x.shape[2] + .5).floor_()
    if color < len(x):
        base[color:] = _smooth(pixels[color:])
    x.copy_(pixels.sub_(base).mul_(factor.float()[:, None, None]).add_(base).short().clamp_(0, 255))


def luma(pixels: Tensor) -> Tensor:
    """(M, C, P) float32 -> (M, 1, P), Pillow's L; every sum is an integer under 2^24, so float32 is exact."""
    if pixels.shape[1] == 1:
        return pixels
    r, g, b = (plane * float(w) for plane, w in zip(pixels.split(1, 1), _LUMA))
    return r.add_(g).add_(b).add_(32768).mul_(2**-16).floor_()


def _smooth(pixels: Tensor) -> Tensor:
    """ImageFilter.SMOOTH: (the sum of 3x3 pixels + 4 times the middle one) / 13, rounded; the border is unchanged."""
    side, flat, out = math.isqrt(pixels.shape[2]), pixels.flatten(), pixels.clone()
    tall = flat[:-2 * side] + flat[side:-side] + flat[2 * side:]
    total = (tall[:-2] + tall[1:-1]).add_(tall[2:]).add_(flat[side + 1:-side - 1] * 4)
    # total / 13 + .5 is never closer than 1/26 to an integer, so float32 rounds it correctly.
    mean = F.pad(total.mul_(1 / 13).add_(.5).floor_(), (side + 1, side + 1))
    inner = (..., slice(1, -1), slice(1, -1))
    out.unflatten(2, (side, side))[inner] = mean.view(-1, pixels.shape[1], side, side)[inner]
    return out


def nearest(x: Tensor, maps: Tensor) -> Tensor:
    """One affine map for each row, nearest neighbour, black outside. maps: (M, 2, 3) int32."""
    side = math.isqrt(x.shape[2])
    # A black frame, one pixel wide: coordinates outside are clamped onto it.
    framed = F.pad(x.unflatten(2, (side, side)), (1, 1, 1, 1)).flatten(2)
    k = ramp(side, torch.int32, x.device)
    right, down, start = maps.permute(2, 1, 0)[..., None]
    at = (start + 65536 + down * k)[..., None] + (right * k)[..., None, :]
    col, row = at.bitwise_right_shift_(16).clamp_(0, side + 1)
    return pick(framed, row.mul_(side + 2).add_(col))


def bilinear(x: Tensor, maps: Tensor, fill: int = 128) -> Tensor:
    """One affine map for each row, bilinear in float64 as in Geometry.c, truncated. maps: (M, 2, 3) float64."""
    side = math.isqrt(x.shape[2])
    k = ramp(side, torch.float64, x.device) + .5
    right, down, start = maps.permute(2, 1, 0)[..., None, None]
    at = right * k + down * k[:, None] + start
    col, row = ((at >= 0) & (at < side))
    inside = (col & row).flatten(1)[:, None]
    low = at.sub_(.5).floor()
    dx, dy = at.sub_(low).flatten(2)[:, :, None]
    (left, top), (right, bottom) = (t.int().clamp_(0, side - 1) for t in (low, low + 1))
    corners = torch.stack([y * side + x for y in (top, bottom) for x in (left, right)], 1)
    a, b, c, d = pick(x, corners).double().unflatten(2, (4, -1)).unbind(2)
    above, below = (b - a).mul_(dx).add_(a), (d - c).mul_(dx).add_(c)
    return below.sub_(above).mul_(dy).add_(above).short().to(torch.uint8).mul_(inside).add_(~inside * fill)


def blank(x: Tensor, start: Tensor, stop: Tensor, fill: tuple[int, int, int]) -> Tensor:
    """Fill rows start[0] to stop[0] and columns start[1] to stop[1] of each image, in place. start, stop: (2, N)."""
    start, stop = send(torch.stack((start, stop)).short(), x.device)[..., None]
    k = ramp(x.shape[2], torch.int16, x.device)
    rows, cols = ((k >= start) & (k < stop)).short()
    box = (rows[:, :, None] * cols[:, None, :]).to(torch.uint8)[:, None]
    x.mul_(1 - box)
    if x.shape[1] == 1:
        fill = (sum(v * w for v, w in zip(fill, _LUMA)) + 32768 >> 16,)
    return x.add_(box * column(fill, x.device, torch.uint8)) if any(fill) else x
