"""A Figure that shows itself in a notebook, with an alternative text; the house style; what several pictures share."""
import base64
import io
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure as MatplotlibFigure
from matplotlib.ticker import MaxNLocator
from PIL import Image

# ten colours that colour-blind readers tell apart too, by hue or lightness; tests/test_plots.py simulates how they see
COLORS = ("#155793", "#FCAA17", "#2F995D", "#B87CAB", "#62C5FD", "#D35A01", "#8DCA67", "#832414", "#6D445F", "#7936D2")
RIGHT, WRONG, INK, PALE = COLORS[2], "#B3161B", "#333333", "#BBBBBB"
STYLE = {
    "font.size": 10, "font.family": "DejaVu Sans", "axes.titlesize": 11, "legend.fontsize": 10,
    "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": INK,
    "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK, "ytick.color": INK, "axes.grid": True,
    "grid.color": "#E8E8E8", "axes.axisbelow": True, "lines.linewidth": 2, "legend.frameon": False,
    "axes.prop_cycle": matplotlib.cycler(color=COLORS), "figure.facecolor": "white", "axes.facecolor": "white"}
PERCENT = "{x:.0%}"                              # for set_major_formatter() of an axis of fractions
SHOWN, WIDEST = 100, 9.0                         # CSS pixels an inch; inches: no figure is wider than 900 pixels
PALETTE = 48                                     # colours of a picture: text and lines stay smooth, and files small
BYTES = np.array([65536, 256, 1])                # red, green and blue in one number
styled = matplotlib.rc_context(STYLE)            # decorator: draw in the house style, whatever the caller's settings


class Figure(MatplotlibFigure):
    """A matplotlib Figure outside pyplot. A notebook shows it once, with an alternative text (`alt`) and `scale`
    pixels for each pixel as shown."""
    alt, scale = "", 2

    @styled
    def encoded(self) -> tuple[str, bytes]:
        """The picture as a file, and its kind: image/png with a palette, which halves the size or better; of
        photographs image/jpeg, a tenth."""
        self.set_dpi(SHOWN * self.scale)
        canvas = FigureCanvasAgg(self)
        canvas.draw()
        pixels, file = np.asarray(canvas.buffer_rgba())[..., :3], io.BytesIO()
        image = Image.fromarray(pixels)
        if not image.getcolors(8192):            # it has more: photographs
            image.save(file, "JPEG", quality=72)
            return "image/jpeg", file.getvalue()
        codes, places = np.unique(pixels @ BYTES, return_inverse=True)
        colors = palette = codes[:, None] // BYTES % 256
        if len(colors) > PALETTE:
            sample = Image.fromarray(np.ascontiguousarray(pixels[::3, ::3]))     # of all pixels: 8 times the time
            found = sample.quantize(PALETTE, Image.Quantize.MEDIANCUT, kmeans=1).getpalette()
            palette = np.reshape(found, (-1, 3))
        nearest = ((colors[:, None] - palette) ** 2).sum(2).argmin(1).astype(np.uint8)
        image = Image.fromarray(nearest[places].reshape(pixels.shape[:2]))
        image.putpalette(palette.astype(np.uint8).tobytes())
        image.save(file, "PNG", optimize=True)
        return "image/png", file.getvalue()

    def _repr_mimebundle_(self, include=None, exclude=None):
        kind, content = self.encoded()
        data = {kind: base64.b64encode(content).decode(), "text/plain": f"<picture: {self.alt}>"}
        width, height = (round(inches * SHOWN) for inches in self.get_size_inches())
        return data, {kind: {"alt": self.alt, "width": width, "height": height}}


def new(width: float, height: float, alt: str, rows: int = 1, columns: int = 1, **options):
    """A Figure of width x height inches, and its axes as subplots(rows, columns, **options) returns them."""
    figure = Figure(figsize=(min(width, WIDEST), height), layout="constrained")
    figure.alt = alt
    return figure, figure.subplots(rows, columns, **options)


def bare(axis) -> None:
    """Take away ticks, grid and frame."""
    axis.set(xticks=[], yticks=[], frame_on=False)


def class_color(c: int, highlight: Sequence[int] = ()) -> str:
    """The colour of class c: from the eleventh on they repeat. Highlighted classes have colours that differ much from
    each other and from the grey of the others."""
    if len(highlight):
        return COLORS[(0, 5, 9, 2, 7)[list(highlight).index(c) % 5]] if c in highlight else PALE
    return COLORS[c % len(COLORS)]


def readable(color: str) -> tuple[float, ...]:
    """The colour, as dark as text on white must be (a contrast of 4.5)."""
    rgb = np.array(to_rgb(color))
    while rgb**2.2 @ (0.2126, 0.7152, 0.0722) > 0.183:
        rgb *= 0.95
    return tuple(rgb)


def percents(axis) -> None:
    """Whole percents on an XAxis or YAxis of fractions."""
    axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(PERCENT)


def fractions(axes, values: Sequence[Sequence], low: float | None = None, high: float | None = None) -> None:
    """Let y show these fractions in whole percents: from `low` or below the least, over 5 points or more, to 100%."""
    every = np.concatenate([[], *(np.asarray(each, float) for each in values)])
    every = every[np.isfinite(every)] if np.isfinite(every).any() else np.array([0.0, 1.0])
    room = 0.06 * max(np.ptp(every), 0.05)
    if low is None:
        low = min(every.min(), every.max() - 0.05) - room
        low = low if low > 0.2 else 0
    if high is None:
        high = max(every.max(), low + 0.05) + room
        high = high if high < 0.95 else 1
    axes.set_ylim(low, high + 0.015 * (high - low))               # a line at 100% is seen whole; the axis ends there
    axes.spines.left.set_bounds(low, high)
    percents(axes.yaxis)


def name_ends(axes, ends: Sequence[tuple[str, float, float, str]]) -> None:
    """Write (text, x, y, color) at the right ends of lines, moved apart where they would overlap."""
    ends, (low, high) = sorted(ends, key=lambda end: end[2]), axes.get_ylim()
    gap = 0.17 / (0.72 * axes.figure.get_figheight()) * (high - low)
    ys = np.clip([end[2] for end in ends], low, high)
    for k in range(1, len(ys)):
        ys[k] = max(ys[k], ys[k - 1] + gap)
    for k in range(len(ys)):
        ys[-1 - k] = min(ys[-1 - k], high - gap * k)             # no pair is too near then: both bounds step by the gap
    for (text, x, _, color), y in zip(ends, ys):
        axes.annotate(text, (x, y), (7, 0), textcoords="offset points", va="center", color=readable(color),
                      annotation_clip=False)
