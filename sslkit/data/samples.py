"""A folder of small photographs that needs no download: tiles of the two that come with scikit-learn."""
from pathlib import Path

from PIL import Image

from sslkit.data.cache import home
from sslkit.files import cannot_write

SIDE = 64                         # pixels a side of a tile


def sample_pictures() -> Path:
    """A folder of 120 tiles, flower/ and temple/, in the cache; made if it is not there."""
    from sklearn.datasets import load_sample_image

    folder = home("sample-pictures")
    for name, source in (("flower", "flower.jpg"), ("temple", "china.jpg")):
        photograph, place = Image.fromarray(load_sample_image(source)), folder / name
        try:
            place.mkdir(parents=True, exist_ok=True)
            for k in range((photograph.width // SIDE) * (photograph.height // SIDE)):
                y, x = (SIDE * part for part in divmod(k, photograph.width // SIDE))
                if not (place / f"{k:02}.jpg").exists():
                    photograph.crop((x, y, x + SIDE, y + SIDE)).save(place / f"{k:02}.jpg", quality=95)
        except OSError as error:
            raise cannot_write(place, error) from error
    return folder
