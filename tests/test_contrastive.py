"""The jittered view against torchvision's transforms on Pillow images, bit for bit, and what a draw may depend on."""
import numpy as np
import pytest
import torch
from PIL import Image
from test_augment import from_pillow, pictures, to_pillow
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as F

from sslkit.data import contrastive, jitter
from sslkit.errors import InputError
from sslkit.training.config import Config
from sslkit.training.feed import Feed


@pytest.mark.parametrize("side, channels", [(8, 1), (32, 3), (33, 3)])
def test_a_resized_crop_equals_pillow_bit_for_bit(side, channels):
    g, x = torch.Generator().manual_seed(side), pictures(120, channels, side)
    sizes = torch.randint(1, side + 1, (2, len(x)), generator=g).double()
    starts, mirror = (torch.rand(2, len(x), generator=g) * (side - sizes + 1)).floor(), torch.rand(len(x), generator=g) < .5
    ours = contrastive.resized_crop(x, starts, sizes, mirror)
    for image, own, start, size, flipped in zip(x, ours, starts.int().T.tolist(), sizes.int().T.tolist(), mirror):
        theirs = F.resized_crop(to_pillow(image), *start, *size, (side, side))
        assert torch.equal(own, from_pillow(F.hflip(theirs) if flipped else theirs))


@pytest.mark.parametrize("turns", [-.1, -.031, 0., .0039, .07, .1])
def test_the_hue_of_every_colour_equals_pillows(turns):
    levels = torch.arange(0, 256, 3, dtype=torch.uint8)
    x = torch.stack(torch.meshgrid(levels, levels, levels, indexing="ij")).reshape(3, -1, 172)
    ours = contrastive.shift_hue(x.flatten(1)[None], torch.tensor([turns], dtype=torch.float64))[0]
    assert torch.equal(ours.view_as(x), from_pillow(F.adjust_hue(to_pillow(x), turns)))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_colours_equal_torchvisions_in_any_order(channels):
    g, x = torch.Generator().manual_seed(0), pictures(90, channels, 32)
    order = torch.rand(4, 90, generator=g).argsort(0).where(torch.arange(90) % 5 > 0, -1)
    values = torch.rand(4, 90, generator=g, dtype=torch.float64) * torch.tensor([.8, .8, .8, .2])[:, None] + torch.tensor(
        [.6, .6, .6, -.1])[:, None]
    grey = torch.arange(90) % 3 == 0
    ours = contrastive._recolored(x.flatten(2).clone(), order, values, grey).view_as(x)
    steps = F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue
    for k, (image, own) in enumerate(zip(x, ours)):
        theirs = to_pillow(image)
        for op in order[:, k].tolist():
            theirs = steps[op](theirs, values[op, k].item()) if op >= 0 else theirs
        assert torch.equal(own, from_pillow(F.to_grayscale(theirs, channels) if grey[k] else theirs))


def test_boxes_are_drawn_as_torchvision_draws_them():
    """The area and the ratio of the boxes of 20,000 images, beside 20,000 of RandomResizedCrop's."""
    n, seen, g = 20000, [], torch.Generator().manual_seed(0)
    kept, contrastive.resized_crop = contrastive.resized_crop, lambda x, starts, sizes, mirror: seen.append((starts, sizes, mirror)) or x
    try:
        jitter(torch.zeros(n, 1, 32, 32, dtype=torch.uint8), g)
    finally:
        contrastive.resized_crop = kept
    (starts, sizes, mirror), image = seen[0], Image.new("L", (32, 32))
    torch.manual_seed(0)
    theirs = torch.tensor([RandomResizedCrop.get_params(image, (.2, 1), (3 / 4, 4 / 3)) for _ in range(n)]).T.double()
    top, left, high, wide = theirs
    for ours, other in ((sizes[0], high), (sizes[1], wide), (sizes.prod(0), high * wide), (starts[0], top), (starts[1], left),
                        (sizes[0] / sizes[1], high / wide)):
        assert np.allclose(np.quantile(ours, (0, .1, .25, .5, .75, .9, 1)), np.quantile(other, (0, .1, .25, .5, .75, .9, 1)),
                           rtol=.03, atol=1)
        assert ours.mean().item() == pytest.approx(other.mean().item(), rel=.02, abs=.1)
    assert (starts >= 0).all() and (starts + sizes <= 32).all() and mirror.float().mean().item() == pytest.approx(.5, abs=.02)


@pytest.mark.parametrize("channels, side", [(1, 8), (3, 32)])
def test_a_seed_repeats_and_images_of_a_batch_differ(channels, side):
    x = pictures(1, channels, side).expand(64, -1, -1, -1)
    views = jitter(x, torch.Generator().manual_seed(1))
    assert torch.equal(views, jitter(x, torch.Generator().manual_seed(1))) and views.dtype == torch.uint8
    assert len({view.numpy().tobytes() for view in views}) > 30
    assert torch.equal(x, pictures(1, channels, side).expand(64, -1, -1, -1))


def test_a_digit_keeps_half_of_its_area_and_is_not_mirrored():
    g = torch.Generator().manual_seed(0)
    ramp = (torch.arange(8, dtype=torch.uint8) * 30).expand(500, 1, 8, 8)
    views = jitter(ramp, g, flip=False).short()
    assert (views[..., 1:] >= views[..., :-1]).all(), "a mirrored ramp would fall"
    assert (views.amax(3) - views.amin(3)).min() > 210 * .35 * .6 ** 2
    assert views.float().mean((1, 2, 3)).std() > 10, "brightness and contrast change"
    assert (jitter(ramp, g).short().diff(dim=3) < 0).any()


@pytest.mark.parametrize("images", [torch.zeros(2, 3, 8, 8), torch.zeros(2, 2, 8, 8, dtype=torch.uint8)])
def test_other_images_are_refused(images):
    with pytest.raises(InputError, match="images must be uint8"):
        jitter(images, torch.Generator())


def test_a_method_may_ask_for_it(digits):
    from sslkit import CoMatch
    config = Config(batch_size=8, mu=2).resolve(digits, torch.device("cpu"))
    method = CoMatch()
    weak, strong, jittered = Feed(digits, method, config)(0).u
    assert weak.shape == strong.shape == jittered.shape == (16, 1, 8, 8)
    assert not torch.equal(strong, jittered) and jittered.dtype == torch.float32
