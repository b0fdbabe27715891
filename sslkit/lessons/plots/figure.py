"""A Figure that shows itself in a notebook, with an alternative text; and the house style."""
import base64
import functools
import io

import matplotlib
import matplotlib.patheffects
import matplotlib.ticker
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as MatplotlibFigure
from PIL import Image

# Okabe and Ito's colours, told apart by colour-blind readers too
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999933", "#882255", "#44AA99", "#666666")
INK, PALE = "#333333", "#BBBBBB"
STYLE = {
    "figure.dpi": 100, "savefig.dpi": 100, "font.size": 10, "font.family": "DejaVu Sans", "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": INK, "axes.labelcolor": INK, "text.color": INK,
    "xtick.color": INK, "ytick.color": INK, "axes.grid": True, "grid.color": "#E8E8E8", "axes.axisbelow": True, "lines.linewidth": 2,
    "legend.frameon": False, "axes.prop_cycle": matplotlib.cycler(color=COLORS), "figure.facecolor": "white", "axes.facecolor": "white"}


class Figure(MatplotlibFigure):
    """A matplotlib Figure outside pyplot that a notebook shows once, as a PNG with an alternative text (`alt`)."""
    alt = ""

    def png(self) -> bytes:
        """The picture's bytes, with a palette, half the size or less, where its colours fit into one, or nearly do: all but photographs."""
        with matplotlib.rc_context(STYLE):
            canvas = FigureCanvasAgg(self)
            canvas.draw()
        code = np.asarray(canvas.buffer_rgba()).view(np.uint32)[..., 0]              # a number for each pixel's colour
        image, file = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]), io.BytesIO()
        if image.getcolors(256):
            colors, first, place = np.unique(code, return_index=True, return_inverse=True)
            image_colors = np.asarray(image).reshape(-1, 3)[first]
            image = Image.fromarray(place.reshape(code.shape).astype(np.uint8))
            image.putpalette(image_colors.tobytes())
        elif image.getcolors(8192):
            image = image.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        image.save(file, "PNG", compress_level=6)
        return file.getvalue()

    def _repr_mimebundle_(self, include=None, exclude=None):
        data = {"image/png": base64.b64encode(self.png()).decode(), "text/plain": f"<picture: {self.alt}>"}
        return data, {"image/png": {"alt": self.alt}}


def styled(function):
    """Draw in the house style, whatever the caller's settings."""
    @functools.wraps(function)
    def wrapper(*args, **options):
        with matplotlib.rc_context(STYLE):
            return function(*args, **options)
    return wrapper


def new(width: float, height: float, alt: str, rows: int = 1, columns: int = 1, **options):
    """A Figure of width x height inches and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.alt = alt
    return figure, figure.subplots(rows, columns, **options)


def bare(axis) -> None:
    """No ticks, no grid, no frame."""
    axis.grid(False)
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set_visible(False)
