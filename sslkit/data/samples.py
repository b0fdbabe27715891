"""A folder of small photographs that needs no download: tiles of the two that come with scikit-learn."""
import io
from pathlib import Path

from PIL import Image

from sslkit.data.cache import home
from sslkit.files import write_file

SIDE = 64                         # pixels a side of a tile


def sample_pictures() -> Path:
    """A folder of 120 tiles in the cache, train/ and test/ with flower/ and temple/ each; made if it is not there."""
    from sklearn.datasets import load_sample_image

    folder = home("sample-pictures")
    for name, source in (("flower", "flower.jpg"), ("temple", "china.jpg")):
        photograph = Image.fromarray(load_sample_image(source))
        for k in range((photograph.width // SIDE) * (photograph.height // SIDE)):
            y, x = (SIDE * part for part in divmod(k, photograph.width // SIDE))
            file = folder / ("train" if k % 4 else "test") / name / f"{k:02}.jpg"
            if not file.exists():
                content = io.BytesIO()
                photograph.crop((x, y, x + SIDE, y + SIDE)).save(content, "JPEG", quality=95)
                file.parent.mkdir(parents=True, exist_ok=True)
                write_file(file, content.getvalue())
    return folder
