"""The drawing of FixMatch, built up in four parts; and of the methods that change one part of it, which is coloured."""
import base64
import io
from html import escape
from typing import NamedTuple

import torch
from PIL import Image

from sslkit.data import augment, load
from sslkit.errors import choose, require

DIGITS = 35, 130               # rows of the training images: a 7 and a 4
GREY, BLUE, ORANGE, INK = "#F2F2F2", "#DCEBF7", "#FDE3CC", "#333333"
ALTS = {
    "fixmatch": ("A labelled digit goes through the network; its guess is trained to be the label.",
                 "An unlabelled digit, nearly unchanged (the weak view), goes through the same network, which guesses.",
                 "If the guess is at least 95% confident, it becomes the pseudo-label; otherwise the image waits.",
                 "A strongly changed view of the same digit goes through the network and is trained to give the "
                 "pseudo-label."),
    "simmatch": "As FixMatch, but before the threshold the guess is mixed with the labels of the labelled images in an "
                "album that look most alike.",
    "kd-fixmatch": "As FixMatch, but where the network is not confident the pseudo-label comes from an outer network, "
                   "trained before, if its clusters agree.",
    "hdl": "As FixMatch, but the pseudo-label does not come from the network's guess: labelled neighbours of the "
           "image's embedding vote."}


class Drawing(NamedTuple):
    """An SVG picture with its alternative text; a notebook shows it."""
    svg: str
    alt: str

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"image/svg+xml": self.svg, "text/plain": f"<drawing: {self.alt}>"}, {"image/svg+xml": {"alt": self.alt}}


def text(x: float, y: float, words: str, size: int = 15) -> str:
    """Words, one line for each part between two |, centred at x."""
    lines = words.split("|")
    spans = "".join(f'<tspan x="{x}" y="{y + 1.25 * size * (k - (len(lines) - 1) / 2)}">{escape(line)}</tspan>'
                    for k, line in enumerate(lines))
    return f'<text font-size="{size}" text-anchor="middle" dominant-baseline="central" fill="{INK}">{spans}</text>'


def box(x: float, y: float, width: float, height: float, words: str, color: str = GREY) -> str:
    """A rounded box around its centre x, y."""
    return (f'<rect x="{x - width / 2}" y="{y - height / 2}" width="{width}" height="{height}" rx="8" fill="{color}" '
            f'stroke="#999999"/>' + text(x, y, words))


def arrow(*points: tuple[float, float]) -> str:
    """A line through points, its tip at the last."""
    path = " ".join(f"{x},{y}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{INK}" stroke-width="1.6" marker-end="url(#tip)"/>'


def picture(x: float, y: float, pixels: torch.Tensor, size: float = 64) -> str:
    """A digit (1, 8, 8) of bytes, around its centre."""
    file = io.BytesIO()
    Image.fromarray(255 - pixels[0].numpy()).resize((64, 64), Image.Resampling.NEAREST).save(file, "PNG")
    return (f'<image x="{x - size / 2}" y="{y - size / 2}" width="{size}" height="{size}" href="data:image/png;base64,'
            f'{base64.b64encode(file.getvalue()).decode()}"/><rect x="{x - size / 2}" y="{y - size / 2}" '
            f'width="{size}" height="{size}" fill="none" stroke="#999999"/>')


def bars(x: float, y: float, heights: tuple[float, ...]) -> str:
    """A guess: a bar a class."""
    return text(x, y + 34, "guess", 13) + "".join(
        f'<rect x="{x - 30 + 12 * k}" y="{y + 20 - 44 * h}" width="9" height="{44 * h}" fill="#0072B2"/>'
        for k, h in enumerate(heights)) + (f'<line x1="{x - 34}" x2="{x + 34}" y1="{y + 20}" y2="{y + 20}" '
                                           f'stroke="{INK}"/>')


def how(method: str = "fixmatch", part: int = 4) -> Drawing:
    """The drawing of `method`: fixmatch, up to its part 1 to 4; simmatch, kd-fixmatch, hdl, each FixMatch's with the
    changed part coloured. InputError for another method or part."""
    choose("method", method, ALTS)
    require(part in range(1, 5), f"part is {part}, it must be 1, 2, 3 or 4")
    data, g = load("digits"), torch.Generator().manual_seed(8)
    labeled, image = (data.images[row] for row in DIGITS)
    weak = augment.weak(image[None], g, flip=False)[0]
    strong = augment.strong(image[None], g, variant="small", flip=False)[0]
    top, middle, center, low, change = 60, 210, 290, 370, method != "fixmatch"
    labels = [picture(60, top, labeled) + text(60, top + 46, "labelled: a 7", 13) + arrow((100, top), (286, top)),
              box(340, top, 100, 56, "network", BLUE) + arrow((392, top), (436, top)),
              bars(475, top, (.1, .05, .2, .1, .6)) + arrow((516, top), (742, top)),
              box(830, top, 170, 56, "should say 7|(cross entropy)")]
    guess = [picture(60, center, image) + text(60, center + 46, "unlabelled", 13),
             arrow((60, center - 36), (60, middle), (124, middle)) + picture(160, middle, weak),
             text(160, middle + 46, "weak view", 13) + arrow((200, middle), (286, middle)),
             box(340, middle, 100, 56, "the same|network", BLUE)]
    threshold = [arrow((392, middle), (436, middle)) + bars(475, middle, (.04, .03, .92, .03, .05)),
                 arrow((516, middle), (548, middle)) + box(616, middle, 132, 64, "at least|95% confident?"),
                 arrow((684, middle), (742, middle)) + text(712, middle - 14, "yes", 13),
                 arrow((616, middle + 34), (616, middle + 62))]
    wait, given = text(616, middle + 74, "no: wait", 13), box(830, middle, 170, 56, "pseudo-label: 4")
    lesson = [arrow((60, center + 60), (60, low), (124, low)) + picture(160, low, strong),
              text(160, low + 46, "strong view", 13) + arrow((200, low), (286, low)),
              box(340, low, 100, 56, "the same|network", BLUE) + arrow((392, low), (436, low)),
              bars(475, low, (.15, .1, .4, .2, .15)) + arrow((516, low), (742, low)),
              box(830, low, 170, 56, "should say 4|(cross entropy)") + arrow((830, middle + 30), (830, low - 30))]
    if method == "simmatch":
        threshold += [box(475, 128, 250, 44, "album of labelled images:|which look like this one?", ORANGE),
                      arrow((560, 151), (600, middle - 33))]
    elif method == "kd-fixmatch":
        wait = text(638, middle + 48, "no", 13) + box(
            640, 296, 250, 46, "outer network's label,|if its clusters agree", ORANGE) + arrow(
            (766, 296), (790, 296), (790, middle + 30))
    elif method == "hdl":
        threshold, wait = [arrow((370, middle - 30), (370, 136), (412, 136)), arrow(
            (706, 136), (830, 136), (830, middle - 30))], box(
            560, 136, 290, 48, "embedding: its nearest labelled|neighbours vote", ORANGE)
    parts = [labels, guess + threshold[:1] * (not change), [*threshold, wait, given], lesson]
    shown = [piece for one in (parts if change else parts[:part]) for piece in one]
    height = 440 if change else (130, 360, 360, 440)[part - 1]
    alt = ALTS[method][part - 1] if method == "fixmatch" else ALTS[method]
    svg = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 940 {height}" width="860" role="img" '
           f'font-family="system-ui, sans-serif"><title>{escape(alt)}</title><defs><marker id="{method}{part}" '
           f'markerWidth="9" markerHeight="8" refX="8" refY="4" orient="auto"><path d="M0,0 L9,4 L0,8 z" '
           f'fill="{INK}"/></marker></defs><rect width="940" height="{height}" fill="white"/>{"".join(shown)}</svg>')
    return Drawing(svg.replace("url(#tip)", f"url(#{method}{part})"), alt)
