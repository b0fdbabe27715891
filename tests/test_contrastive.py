"""Crops and jittered views against torchvision's transforms on Pillow images, bit for bit, and what a draw may depend on."""
import numpy as np
import PIL
import pytest
import torch
from PIL import Image
from test_augment import from_pillow, pictures, to_pillow
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as F

from sslkit.data import contrastive, crop, jitter
from sslkit.errors import InputError
from sslkit.training.config import Config
from sslkit.training.feed import Feed

PILLOW = int(PIL.__version__.split(".")[0])         # until 12, it scales the width of every box first


@pytest.mark.parametrize("side, channels, out, n", [(8, 1, 8, 120), (32, 3, 32, 120), (33, 3, 33, 120), (64, 3, 32, 120), (64, 1, 24, 120),
                                                    (64, 3, 24, 120), (97, 3, 13, 90), (256, 3, 224, 40), (256, 1, 32, 60), (32, 3, 64, 60)])
def test_a_resized_crop_equals_pillow_bit_for_bit(side, channels, out, n):
    """Boxes smaller and larger than what is made of them, in one batch."""
    g, x = torch.Generator().manual_seed(side), pictures(n, channels, side)
    sizes = torch.randint(1, side + 1, (2, n), generator=g).double()
    sizes[:, 0], sizes[:, 1], sizes[0, 2], sizes[1, 3] = side, min(side, out), side, side
    starts, mirror = (torch.rand(2, n, generator=g) * (side - sizes + 1)).floor(), torch.rand(n, generator=g) < .5
    ours = contrastive.resized_crop(x, starts, sizes, mirror, out)
    assert ours.shape == (n, channels, out, out) and ours.is_contiguous()
    for image, own, start, (high, wide), flipped in zip(x, ours, starts.int().T.tolist(), sizes.int().T.tolist(), mirror):
        theirs = F.resized_crop(to_pillow(image), *start, high, wide, (out, out))
        theirs, other = from_pillow(F.hflip(theirs) if flipped else theirs), high > max(out, 2 * wide - out) and PILLOW < 13
        assert torch.equal(own, theirs) or other and (own.int() - theirs.int()).abs().max() <= 1


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


@pytest.mark.parametrize("view, side, out", [(jitter, 32, None), (crop, 64, 56), (crop, 32, 48)])
def test_boxes_are_drawn_as_torchvision_draws_them(view, side, out, monkeypatch):
    """The area and the ratio of the boxes of 20,000 images, beside 20,000 of RandomResizedCrop's."""
    n, seen, g = 20000, [], torch.Generator().manual_seed(0)
    monkeypatch.setattr(contrastive, "resized_crop", lambda x, starts, sizes, mirror, side: seen.append((starts, sizes, mirror, side)) or x)
    view(torch.zeros(n, 1, side, side, dtype=torch.uint8), g, side=out)
    (starts, sizes, mirror, given), image = seen[0], Image.new("L", (side, side))
    torch.manual_seed(0)
    theirs = torch.tensor([RandomResizedCrop.get_params(image, (.2, 1), (3 / 4, 4 / 3)) for _ in range(n)]).T.double()
    top, left, high, wide = theirs
    for ours, other in ((sizes[0], high), (sizes[1], wide), (sizes.prod(0), high * wide), (starts[0], top), (starts[1], left),
                        (sizes[0] / sizes[1], high / wide)):
        assert np.allclose(np.quantile(ours, (0, .1, .25, .5, .75, .9, 1)), np.quantile(other, (0, .1, .25, .5, .75, .9, 1)),
                           rtol=.03, atol=side / 32)
        assert ours.mean().item() == pytest.approx(other.mean().item(), rel=.02, abs=.1 * side / 32)
    assert (starts >= 0).all() and (starts + sizes <= side).all() and mirror.float().mean().item() == pytest.approx(.5, abs=.02)
    assert given == out and starts.dtype == sizes.dtype == torch.float64


@pytest.mark.parametrize("channels, side", [(1, 8), (3, 32)])
@pytest.mark.parametrize("view, out", [(jitter, None), (jitter, 24), (crop, None), (crop, 24)])
def test_a_seed_repeats_and_images_of_a_batch_differ(view, out, channels, side):
    x = pictures(1, channels, side).expand(64, -1, -1, -1)
    views = view(x, torch.Generator().manual_seed(1), side=out)
    assert torch.equal(views, view(x, torch.Generator().manual_seed(1), side=out)) and views.dtype == torch.uint8
    assert views.shape == (64, channels, *[out or side] * 2) and len({v.numpy().tobytes() for v in views}) > 30
    assert torch.equal(x, pictures(1, channels, side).expand(64, -1, -1, -1))


def test_a_crop_is_a_flipped_box_and_nothing_else():
    ramp = (torch.arange(64, dtype=torch.uint8) * 4).expand(500, 1, 64, 64)
    views = crop(ramp, torch.Generator().manual_seed(0), side=32).short()
    step, g = views.diff(dim=3), torch.Generator().manual_seed(0)
    rises, falls = (step >= 0).all(3).all(2).all(1), (step <= 0).all(3).all(2).all(1)
    assert (rises ^ falls).all() and .4 < falls.float().mean() < .6, "whole images are mirrored, half of them"
    assert (views == views[:, :, :1]).all(), "each row is the same"
    assert (crop(ramp, g, flip=False, side=32).short().diff(dim=3) >= 0).all()


@pytest.mark.parametrize("view", [jitter, crop])
@pytest.mark.parametrize("side", [0, -3, 1025])
def test_a_side_that_no_view_can_have_is_refused(view, side):
    with pytest.raises(InputError, match=f"side is {side}, it must be from 1 to 1024"):
        view(pictures(2, 3, 8), torch.Generator(), side=side)


def test_a_digit_keeps_half_of_its_area_and_is_not_mirrored():
    g = torch.Generator().manual_seed(0)
    ramp = (torch.arange(8, dtype=torch.uint8) * 30).expand(500, 1, 8, 8)
    views = jitter(ramp, g, flip=False).short()
    assert (views[..., 1:] >= views[..., :-1]).all(), "a mirrored ramp would fall"
    assert (views.amax(3) - views.amin(3)).min() > 210 * .35 * .6 ** 2
    assert views.float().mean((1, 2, 3)).std() > 10, "brightness and contrast change"
    assert (jitter(ramp, g).short().diff(dim=3) < 0).any()


@pytest.mark.parametrize("images", [torch.zeros(2, 3, 8, 8), torch.zeros(2, 2, 8, 8, dtype=torch.uint8)])
@pytest.mark.parametrize("view", [jitter, crop])
def test_other_images_are_refused(view, images):
    with pytest.raises(InputError, match="images must be uint8"):
        view(images, torch.Generator())


def test_a_method_may_ask_for_it(digits):
    from sslkit import CoMatch
    config = Config(batch_size=8, mu=2).resolve(digits, torch.device("cpu"))
    method = CoMatch()
    weak, strong, jittered = Feed(digits, method, config)(0).u
    assert weak.shape == strong.shape == jittered.shape == (16, 1, 8, 8)
    assert not torch.equal(strong, jittered) and jittered.dtype == torch.float32
