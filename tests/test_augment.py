"""Each op against Pillow bit for bit, the variants against slow transcriptions, and what a draw may depend on."""
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from sslkit.data import augment as A
from sslkit.data import pillow_ops
from sslkit.errors import InputError

AFFINE, BILINEAR = Image.Transform.AFFINE, Image.Resampling.BILINEAR
FILL = {"RGB": (128, 128, 128), "L": 128}
VALUES = {  # a range wider than any variant's, and the values where Pillow takes another path
    "Posterize": (1, 8, [1, 4, 8]), "Solarize": (0, 256, [0, 128, 255, 256]),
    "Rotate": (-200, 200, [0, 30, -45, 60, 90, 180, -90]), "ShearX": (-.6, .6, [0, .3]), "ShearY": (-.6, .6, [0, -.3]),
    "TranslateX": (-20, 20, [0, 3, -3, .5, -.5, 1.499999, 1000, -9e5]),
    "TranslateY": (-20, 20, [0, 2, -2, 1.5, -1.5, -.500001, 1000]),
    **dict.fromkeys(("Brightness", "Contrast", "Color", "Sharpness"), (0, 2.5, [0, 1, -.5])),
}


def pillow(image, name, v, bilinear=False):
    """The op in the words of the usual RandAugment code."""
    how = {"resample": BILINEAR, "fillcolor": FILL[image.mode]} if bilinear else {}
    maps = {"ShearX": (1, v, 0, 0, 1, 0), "ShearY": (1, 0, 0, v, 1, 0),
            "TranslateX": (1, 0, v, 0, 1, 0), "TranslateY": (1, 0, 0, 0, 1, v)}
    if name in maps:
        return image.transform(image.size, AFFINE, maps[name], **how)
    if name in ("Brightness", "Contrast", "Color", "Sharpness"):
        return getattr(ImageEnhance, name)(image).enhance(v)
    return {"Identity": lambda: image, "AutoContrast": lambda: ImageOps.autocontrast(image),
            "Equalize": lambda: ImageOps.equalize(image), "Posterize": lambda: ImageOps.posterize(image, int(v)),
            "Solarize": lambda: ImageOps.solarize(image, v),
            "Rotate": lambda: image.rotate(v, **how)}[name]()


def to_pillow(x):
    return Image.fromarray(x[0].numpy() if len(x) == 1 else x.permute(1, 2, 0).contiguous().numpy())


def from_pillow(image):
    x = torch.from_numpy(np.array(image))
    return x[None] if x.ndim == 2 else x.permute(2, 0, 1)


def pictures(n, c, side, seed=0):
    """Noise, gradients, noise in a narrow range, few levels, constants, and dark ones with one bright pixel."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, (n, c, side, side), generator=g, dtype=torch.uint8)
    ramp = torch.linspace(0, 255, side).to(torch.uint8)
    x[1::6] = ramp
    x[1::12] = ramp[:, None]
    x[2::6] = x[2::6] // 5 + torch.randint(0, 150, (n, c, 1, 1), generator=g, dtype=torch.uint8)[2::6]
    x[3::6] = x[3::6] // 100 * 100
    x[4::6] = x[4::6, :, :1, :1]
    x[5::6] = 0
    x[5::6, 0, side // 2, 1] = 200
    return x


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("side", [3, 33])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", A.OPS)
def test_op_equals_pillow_bit_for_bit(name, channels, side):
    n = 120
    x = pictures(n, channels, side)
    low, high, special = VALUES.get(name, (0, 1, []))
    value = low + (high - low) * torch.rand(n, generator=seeded(1))
    value[:len(special)] = torch.tensor(special)
    before = x.clone()
    ours = A.apply_op(x, name, value)
    theirs = torch.stack([from_pillow(pillow(to_pillow(i), name, v)) for i, v in zip(x, value.tolist())])
    assert torch.equal(ours, theirs) and torch.equal(x, before)


def test_every_blend_of_two_bytes_equals_pillow():
    square = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    factors = torch.rand(300, generator=seeded()) * 2
    ours = A.apply_op(square.expand(300, 1, 16, 16).contiguous(), "Contrast", factors)
    image = to_pillow(square[0])
    theirs = torch.stack([from_pillow(ImageEnhance.Contrast(image).enhance(f)) for f in factors.tolist()])
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [7, 32])
def test_bilinear_geometry_equals_pillow_bit_for_bit(side, channels):
    x = pictures(60, channels, side)
    for k, name in enumerate(A.OPS[pillow_ops.ROTATE:]):
        low, high, _ = VALUES[name]
        value = low + (high - low) * torch.rand(60, generator=seeded(k), dtype=torch.float64)
        maps = pillow_ops.affine(torch.full((60,), pillow_ops.ROTATE + k), value, side)
        ours = pillow_ops.bilinear(x.flatten(2), maps).view_as(x)
        theirs = [from_pillow(pillow(to_pillow(i), name, v, bilinear=True)) for i, v in zip(x, value.tolist())]
        assert torch.equal(ours, torch.stack(theirs)), name


# The four published variants once more, image by image, as their authors have them.
def slow_value(variant, name, m, side):
    if name in ("Brightness", "Contrast", "Color", "Sharpness"):
        return .05 + .09 * m if variant in ("mc", "usb") else .1 + .18 * m
    if name == "Posterize":
        return {"mc": 4 + int(.4 * m), "usb": int(4 + .4 * m), "rac": 4 - int(.4 * m), "fixed": 4}[variant]
    if name == "Solarize":
        return {"usb": 256 - 25.6 * m, "fixed": 256}.get(variant, 256 - int(25.6 * m))
    if name == "Rotate":
        return 3 * m if variant == "usb" else int(3 * m)
    if name in ("ShearX", "ShearY"):
        return .03 * m
    return {"mc": int(.03 * m * side), "usb": .03 * m * side}.get(variant, m)


def slow_view(image, variant, draws, cut):
    """draws: (slots, 4) of op, keep, level, sign; cut: size, row, column; all in [0, 1)."""
    side, geometric = image.size[0], A.OPS[pillow_ops.ROTATE:]
    for op, keep, level, sign in draws:
        name = A.OPS[int(op * 14)]
        m = {"usb": 10 * level, "fixed": 10}.get(variant, 1 + int(9 * level))
        v = slow_value(variant, name, m, side) if name in VALUES else 0
        if keep < (1 if variant == "usb" else .5):
            image = pillow(image, name, -v if name in geometric and sign < .5 else v, bilinear=variant == "fixed")
    image = image.copy()
    size, row, col = cut[0] * side / 2 if variant == "usb" else side // 2, cut[1] * side, cut[2] * side
    if variant in ("mc", "usb"):
        fill = (127, 127, 127) if variant == "mc" else (125, 123, 114)
        x0, y0 = int(max(0, col - size / 2)), int(max(0, row - size / 2))
        x1, y1 = min(side, x0 + size), min(side, y0 + size)
        grey = Image.new("RGB", (1, 1), fill).convert("L").getpixel((0, 0))
        ImageDraw.Draw(image).rectangle((x0, y0, x1, y1), fill if image.mode == "RGB" else grey)
    else:
        array, half = np.array(image), size // 2
        array[max(0, int(row) - half):int(row) + half, max(0, int(col) - half):int(col) + half] = 128
        image = Image.fromarray(array)
    return image


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("variant", ["mc", "rac", "usb", "fixed"])
def test_variant_equals_its_transcription_on_the_same_draws(variant, channels):
    n, side, slots = 300, 32, 3 if variant == "usb" else 2
    x = pictures(n, channels, side)
    ours = A.randaugment(x, seeded(3), variant)
    g = seeded(3)
    draws = torch.rand(4, slots, n, generator=g, dtype=torch.float64).permute(2, 1, 0).tolist()
    cuts = torch.rand(3, n, generator=g, dtype=torch.float64).T.tolist()
    theirs = torch.stack([from_pillow(slow_view(to_pillow(i), variant, d, c)) for i, d, c in zip(x, draws, cuts)])
    assert torch.equal(ours, theirs)


def boxes(variant, side, n=2000, **options):
    """Height, width, top and left of the cutout in black images, as far as it stands out."""
    black = torch.zeros(n, 3, side, side, dtype=torch.uint8)
    view = A.randaugment(black, seeded(5), variant, **options)
    plain = A.randaugment(black, seeded(5), variant, cutout=False, **options)
    box = (view != plain).any(1)
    return box.any(2).sum(1), box.any(1).sum(1), box


def test_cutout_geometry():
    for variant, biggest in (("mc", 17), ("usb", 16), ("rac", 16)):
        height, width, box = boxes(variant, 32)
        assert height.max() == width.max() == biggest, variant
        assert all(box[:, i].any(1).float().mean() < .9 for i in (0, 31))
    height, _, box = boxes("mc", 32)
    assert height.min() == 9 and (height[box[:, 0].any(1)] == 17).all()  # slid inside at the top, cut at the bottom
    height, _, box = boxes("rac", 32)
    assert height.min() == 8 and height[box[:, 0].any(1)].min() == 8  # clipped at both


def test_small_stays_recognisable_and_in_its_ranges():
    x = torch.zeros(4000, 1, 8, 8, dtype=torch.uint8)
    x[:, :, 3:5, 3:5] = 200
    view = A.randaugment(x, seeded(), "small", cutout=False).double()
    light = view.amin((1, 2, 3))  # a black border: contrast about the mean of 12.5, then at most 38 more
    assert 0 <= light.min() and 30 < light.max() <= 45
    bright = (view - light[:, None, None, None]).clamp(min=0)
    ramp = torch.arange(8.) + .5
    centre = (bright.sum(2)[:, 0] @ ramp.double()) / bright.sum((1, 2, 3))
    assert (centre - 4).abs().max() < 2.2 and (centre - 4).std() > .8
    full, cut = A.randaugment(x + 9, seeded(), "small", cutout=False), A.randaugment(x + 9, seeded(), "small")
    changed = (full != cut).flatten(1).sum(1)
    assert changed.max() <= 4 and (cut[full != cut] == 0).all() and changed.float().mean() > 1.5


@pytest.mark.parametrize("variant", A.VARIANTS)
@pytest.mark.parametrize("channels", [1, 3])
def test_magnitude_zero_changes_nothing_and_one_the_most(variant, channels):
    x = pictures(200, channels, 16)
    assert torch.equal(A.randaugment(x, seeded(), variant, magnitude=0), x)
    views = [A.randaugment(x, seeded(), variant, magnitude=m, cutout=False) for m in (.05, .5, 1)]
    change = [(view.float() - x).abs().mean().item() for view in views]
    assert 0 < change[0] < change[1] < change[2]
    first, later = seeded(), seeded()
    A.randaugment(x, first, variant, magnitude=0), A.randaugment(x, later, variant)
    assert torch.equal(first.get_state(), later.get_state())  # a slider never changes what is drawn next


def test_pinned_strengths_run_from_neutral_to_the_end_that_changes_most():
    def end(variant, name):
        base, span, cut = A._curves(variant, 32, True)[:, A.OPS.index(name)].tolist()
        return base, base + span
    assert end("mc", "Color") == pytest.approx((1, .14)) and end("rac", "Color") == pytest.approx((1, 1.72))
    assert [end(v, "Posterize")[1] for v in ("mc", "rac", "usb", "fixed")] == [4, 1, 4, 4]
    assert [end(v, "Solarize")[1] for v in ("mc", "rac", "usb", "fixed")] == [26, 26, 0, 256]
    assert [end(v, "Rotate") for v in ("mc", "rac", "usb", "fixed")] == [(0, 27), (0, 27), (0, 30), (0, 30)]
    assert [round(end(v, "TranslateX")[1], 9) for v in ("mc", "rac", "usb", "fixed")] == [8, 9, 9.6, 10]


@pytest.mark.parametrize("variant", A.VARIANTS)
def test_each_image_has_its_own_draw_and_the_generator_is_the_only_randomness(variant):
    x = pictures(1, 3, 32).expand(64, -1, -1, -1)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    one = A.strong(x, seeded(7), variant=variant)
    torch.manual_seed(99)
    two = A.strong(x, seeded(7), variant=variant)
    torch.manual_seed(0)
    assert torch.equal(one, two) and torch.equal(torch.get_rng_state(), state)
    assert len({i.numpy().tobytes() for i in one}) > 60
    g = seeded(7)
    assert not torch.equal(A.strong(x, g, variant=variant), A.strong(x, g, variant=variant))
    assert one.dtype == torch.uint8 and one.shape == x.shape
    assert A.strong(x[:0], seeded(), variant=variant).shape == (0, 3, 32, 32)


def test_ops_are_drawn_uniformly_and_applied_with_their_chance():
    x = pictures(1, 3, 32).expand(4000, -1, -1, -1).contiguous()
    mc, usb = ((A.randaugment(x, seeded(), v, cutout=False) == x).flatten(1).all(1) for v in ("mc", "usb"))
    assert usb.float().mean().item() == pytest.approx((1 / 14) ** 3, abs=.02)  # some ops leave some images as they are
    assert mc.float().mean().item() == pytest.approx(.25 + 2 * .25 / 14, abs=.08)


@pytest.mark.parametrize("channels,side,pad", [(3, 32, None), (1, 8, None), (3, 5, 4), (3, 17, 1)])
def test_weak_view_is_a_reflect_padded_crop(channels, side, pad):
    x = torch.randint(0, 256, (300, channels, side, side), dtype=torch.uint8, generator=seeded(1))
    p = max(1, int(.125 * side)) if pad is None else pad
    frame = F.pad(x.float(), (p, p, p, p), mode="reflect").to(torch.uint8)
    crops = torch.stack([frame[:, :, i:i + side, j:j + side] for i in range(2 * p + 1) for j in range(2 * p + 1)])
    plain, flipped = A.weak(x, seeded(), flip=False, pad=pad), A.weak(x, seeded(), pad=pad)
    found = (crops == plain).flatten(2).all(2)
    assert found.any(0).all() and found.any(1).float().mean() > .9
    kept = (flipped == plain).flatten(1).all(1)[:, None, None, None]
    assert torch.equal(torch.where(kept, plain, plain.flip(3)), flipped)
    assert .35 < (flipped != plain).flatten(1).any(1).float().mean() < .65
    assert torch.equal(A.weak(x, seeded(), flip=False, pad=0), x)


def test_strong_is_a_weak_view_then_randaugment():
    x, g = pictures(40, 3, 32), seeded()
    by_hand = A.randaugment(A.weak(x, g, flip=False), g, "usb")
    assert torch.equal(A.strong(x, seeded(), variant="usb", flip=False), by_hand)
    assert torch.equal(A.strong(x.to(memory_format=torch.channels_last), seeded(), variant="usb", flip=False), by_hand)
    assert torch.equal(A.strong(x, seeded()), A.strong(x, seeded(), variant="mc"))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("channels_last", [False, True])
def test_normalize(channels, channels_last):
    x = pictures(6, channels, 9)
    mean, std = [.49, .48, .44][:channels], [.24, .25, .26][:channels]
    out = A.normalize(x, mean, std, channels_last=channels_last)
    m, s = (torch.tensor(t, dtype=torch.float64)[:, None, None] for t in (mean, std))
    expected = (x / 255. - m) / s
    assert out.dtype == torch.float32 and torch.allclose(out.double(), expected, atol=1e-5, rtol=0)
    assert out.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def test_what_cannot_be_used_is_named():
    x = pictures(4, 3, 8)
    with pytest.raises(InputError, match="did you mean 'fixed'"):
        A.randaugment(x, seeded(), "fixd")
    with pytest.raises(InputError, match="unknown variant"):
        A.strong(x, seeded(), variant="nothing")
    with pytest.raises(InputError, match="did you mean 'Posterize'"):
        A.apply_op(x, "posterise", torch.zeros(4))
    for call in (lambda: A.weak(x.float(), seeded()), lambda: A.weak(x[:, :2], seeded()),
                 lambda: A.weak(x[..., 1:], seeded()), lambda: A.weak(x, seeded(), pad=8),
                 lambda: A.randaugment(x, seeded(), "mc", magnitude=1.1),
                 lambda: A.apply_op(x, "Rotate", torch.zeros(3)), lambda: A.normalize(x, (.5,), (.5,))):
        with pytest.raises(InputError):
            call()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("variant", A.VARIANTS)
def test_a_gpu_makes_the_same_views_and_never_waits(variant):
    x = pictures(64, 3, 32)
    on_gpu = x.cuda()
    A.normalize(A.strong(on_gpu, seeded(), variant=variant), (.5,) * 3, (.2,) * 3)
    torch.cuda.set_sync_debug_mode("error")
    try:
        view = A.strong(on_gpu, seeded(2), variant=variant)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(view.cpu(), A.strong(x, seeded(2), variant=variant))
