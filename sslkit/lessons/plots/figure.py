"""A Figure that shows itself in a notebook, with an alternative text; the house style; what several pictures share."""
import base64
import io

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as MatplotlibFigure
from PIL import Image

# Okabe and Ito's colours first, which colour-blind readers can tell apart too
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999933", "#882255", "#44AA99", "#666666")
INK, PALE = "#333333", "#BBBBBB"
STYLE = {
    "figure.dpi": 100, "savefig.dpi": 100, "font.size": 10, "font.family": "DejaVu Sans", "axes.titlesize": 11,
    "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": INK,
    "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK, "ytick.color": INK, "axes.grid": True,
    "grid.color": "#E8E8E8", "axes.axisbelow": True, "lines.linewidth": 2, "legend.frameon": False,
    "axes.prop_cycle": matplotlib.cycler(color=COLORS), "figure.facecolor": "white", "axes.facecolor": "white"}
PERCENT = "{x:.0%}"                              # for set_major_formatter() of an axis of fractions
styled = matplotlib.rc_context(STYLE)            # decorator: draw in the house style, whatever the caller's settings


class Figure(MatplotlibFigure):
    """A matplotlib Figure outside pyplot. A notebook shows it once, as a PNG with an alternative text (`alt`)."""
    alt = ""

    @styled
    def png(self) -> bytes:
        """The picture as a PNG file; all but photographs have a palette, which halves the size or better."""
        canvas = FigureCanvasAgg(self)
        canvas.draw()
        image, file = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]), io.BytesIO()
        if colors := image.getcolors(8192):      # None: more. The palette is exact for up to 256, close for the others
            image = image.quantize(min(len(colors), 256), Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        image.save(file, "PNG", compress_level=6)
        return file.getvalue()

    def _repr_mimebundle_(self, include=None, exclude=None):
        data = {"image/png": base64.b64encode(self.png()).decode(), "text/plain": f"<picture: {self.alt}>"}
        return data, {"image/png": {"alt": self.alt}}


def new(width: float, height: float, alt: str, rows: int = 1, columns: int = 1, **options):
    """A Figure of width x height inches, and its axes as subplots(rows, columns, **options) returns them."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.alt = alt
    return figure, figure.subplots(rows, columns, **options)


def bare(axis) -> None:
    """Take away ticks, grid and frame."""
    axis.set(xticks=[], yticks=[], frame_on=False)


def class_colors(count: int) -> list[tuple[float, float, float]]:
    """A colour for each of `count` classes, all different up to 20."""
    palette = matplotlib.colormaps["tab10" if count <= 10 else "tab20"].colors
    return [palette[c % len(palette)] for c in range(count)]
