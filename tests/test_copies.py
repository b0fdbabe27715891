"""Near copies: what is found among real photographs, and what is not."""
import io

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from sslkit.data import near_copies
from sslkit.errors import InputError


def tiles() -> list[Image.Image]:
    """Parts of two photographs, 64 by 64 pixels, without plain sky."""
    every = [Image.fromarray(image[y:y + 128, x:x + 128]).resize((64, 64)) for image in load_sample_images().images
            for y in range(0, 384, 128) for x in range(0, 640, 128)]
    return [image for image in every if np.asarray(image).std() > 20]


def stack(images: list[Image.Image]) -> torch.Tensor:
    return torch.from_numpy(np.stack([np.asarray(image).transpose(2, 0, 1) for image in images]))


def saved_again(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=60)
    return Image.open(file)


WAYS = {"saved again": saved_again, "half the size": lambda image: image.resize((32, 32)).resize((64, 64)),
        "brighter": lambda image: image.point(lambda level: level * 0.9 + 20), "grey": lambda image: image.convert("L").convert("RGB")}


@pytest.mark.parametrize("way", WAYS)
def test_a_photograph_that_was_changed_a_little_is_found(way):
    before = tiles()
    found = near_copies(stack(before + [WAYS[way](image) for image in before]))
    assert len(before) > 20 and found.tolist() == [-1] * len(before) + [*range(len(before))]


def test_another_view_is_no_copy():
    before = tiles()
    for other in (lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), lambda image: image.rotate(90)):
        assert (near_copies(stack(before + [other(image) for image in before])) == -1).all()


def test_the_first_of_several_is_named_whatever_the_number_of_rows():
    images = torch.from_numpy(np.random.RandomState(0).randint(0, 256, (600, 1, 8, 8)).astype(np.uint8))
    for row, of in {1: 0, 256: 255, 290: 3, 300: 3, 511: 510, 599: 3}.items():
        images[row] = images[of]
    found = near_copies(images)
    assert {row: int(found[row]) for row in (found >= 0).nonzero().flatten().tolist()} == {1: 0, 256: 255, 290: 3, 300: 3, 511: 510, 599: 3}
    assert found.dtype == torch.int64 and near_copies(images[:0]).shape == (0,)


def test_pictures_of_one_colour_are_copies_only_if_equal():
    colors = [(255, 255, 255), (90, 0, 0), (0, 90, 0), (255, 255, 255), (254, 255, 255), (90, 0, 0), (255, 255, 255)]
    images = torch.tensor(colors, dtype=torch.uint8)[:, :, None, None].repeat(1, 1, 20, 20)
    assert near_copies(images).tolist() == [-1, -1, -1, 0, -1, 1, 0]
    images[1, :, 5, 5] += 3                     # a speck is noise, which a later spot is no copy of
    images[5, :, 5, 5] = 255
    assert near_copies(images).tolist() == [-1, -1, -1, 0, -1, -1, 0]


def test_the_threshold_decides_and_must_be_a_share():
    pair = stack(tiles()[:1] * 2)
    pair[1, :, :24] = 0
    assert near_copies(pair, 0.1).tolist() == [-1, 0] and near_copies(pair).tolist() == [-1, -1]
    with pytest.raises(InputError, match="threshold is 1.5"):
        near_copies(pair, 1.5)
