"""Sliders around functions that draw. The picture moves while the handle is dragged; without a viewer it is stored with
frames, so that a page without a kernel can have a slider too."""
import itertools
import math
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import NamedTuple

import numpy as np
from IPython.display import display
from ipywidgets import HBox, Play, SelectionSlider, VBox, jslink

from sslkit.errors import InputError, choose, require
from sslkit.lessons.plots import Figure
from sslkit.lessons.session import redraw, watched

FRAMES = "application/vnd.sslkit.frames+json"
AXIS_FRAMES, ALL_FRAMES = 24, 30
PLAY_MS = 500                                       # a picture takes up to 0.3 s


class Axis(NamedTuple):
    """The values that a slider goes through, their labels, and the place where it begins."""
    options: list
    labels: list[str]
    start: int


def label(option: object) -> str:
    return f"{option:g}" if isinstance(option, Real) and not isinstance(option, Integral) else str(option)


def axis(name: str, value: object, options: Sequence) -> Axis:
    """An Axis that begins at `value`. A number that is not among the options is put in its place between them."""
    options = options.tolist() if hasattr(options, "tolist") else list(options)
    labels = [label(option) for option in options]
    if label(value) not in labels and all(isinstance(number, Real) for number in (value, *options)):
        options.insert(sum(option < value for option in options), value)
        labels = [label(option) for option in options]
    require(len(set(labels)) == len(labels), f"the slider {name} has an option twice: {', '.join(labels)}")
    return Axis(options, labels, labels.index(choose(f"start of the slider {name}", label(value), labels)))


def shown(draw: Callable[..., Figure], values: dict, small: bool = False) -> tuple[dict, dict, str]:
    """The picture at these values as data, metadata and alternative text; of an InputError its sentence. small: a PNG
    has as many pixels as the page shows, a third of the bytes."""
    try:
        picture = draw(**values)
    except InputError as error:
        return {"text/plain": str(error)}, {}, str(error)
    if small and isinstance(picture, Figure):
        picture.scale = 1
    return *picture._repr_mimebundle_(), picture.alt


def thinned(axes: list[Axis]) -> list[list[int]]:
    """For each axis the places to draw frames at: at most 24, evenly chosen, the start among them; 30 in all."""
    counts = [min(len(each.labels), AXIS_FRAMES) for each in axes]
    while math.prod(counts) > ALL_FRAMES:
        counts[counts.index(max(counts))] -= 1
    places = [np.linspace(0, len(each.labels) - 1, count).round().astype(int) for each, count in zip(axes, counts)]
    for each, chosen in zip(axes, places):
        if each.start not in chosen:                # instead of the nearest, but for the two ends
            inner = chosen[1:-1] if len(chosen) > 2 else chosen
            inner[np.abs(inner - each.start).argmin()] = each.start
    return [chosen.tolist() for chosen in places]


def stored(draw: Callable[..., Figure], axes: dict[str, Axis]) -> tuple[dict, dict]:
    """The picture at the start, with the frames for a page as FRAMES: data and metadata. A frame that draw() refuses is
    empty, its alternative text says why."""
    places = thinned([*axes.values()])
    frames = {at: shown(draw, {name: each.options[k] for (name, each), k in zip(axes.items(), at)}, small=True)
              for at in itertools.product(*places)}
    data, metadata, _ = shown(draw, {name: each.options[each.start] for name, each in axes.items()})
    kinds = [next((kind for kind in frame if kind.startswith("image/")), "") for frame, *_ in frames.values()]
    return data | {FRAMES: {
        "axes": [{"name": name, "labels": [each.labels[k] for k in at], "start": at.index(each.start)}
                 for (name, each), at in zip(axes.items(), places)],
        "frames": [frame.get(kind, "") for kind, (frame, *_) in zip(kinds, frames.values())], "kinds": kinds,
        "alts": [alt for *_, alt in frames.values()]}}, metadata


def control(name: str, each: Axis, play: bool) -> tuple[SelectionSlider, SelectionSlider | HBox]:
    """A slider, and the row to show: itself, or with a play button before it."""
    made = SelectionSlider(options=each.labels, index=each.start, description=name, tooltip=name,
                           continuous_update=True, style={"description_width": "initial"}, layout={"width": "480px"})
    if not play:
        return made, made
    button = Play(value=each.start, max=len(each.labels) - 1, interval=PLAY_MS, tooltip=f"play {name}")
    jslink((button, "value"), (made, "index"))
    return made, HBox([button, made])


def show(draw: Callable[..., Figure], controls: dict[str, tuple], play: bool) -> None:
    axes = {name: axis(name, *given) for name, given in controls.items()}
    if not watched():
        data, metadata = stored(draw, axes)
        display(data, metadata=metadata, raw=True)
        return
    made, rows = zip(*(control(name, each, play) for name, each in axes.items()))

    place = None

    def picture(_: object = None) -> None:
        nonlocal place
        values = {name: axes[name].options[slider.index] for name, slider in zip(axes, made)}
        data, metadata, _ = shown(draw, values)
        place = redraw(place, data, metadata=metadata, raw=True)

    display(VBox(rows))
    picture()                                       # an Output widget would leave no picture without a kernel
    for slider in made:
        slider.observe(picture, "index")


def slider(draw: Callable[..., Figure], value: object, options: Sequence, name: str, play: bool = False) -> None:
    """A slider that begins at `value` and goes through the options, numbers or texts, with the picture draw(value)
    under it. play: with a button that goes through them by itself."""
    show(lambda **values: draw(values[name]), {name: (value, options)}, play)


def sliders(draw: Callable[..., Figure], **controls: tuple[object, Sequence]) -> None:
    """A slider for each name=(value, options), as of slider(), with the picture draw(name=value, ...) under them.

    Where draw() raises an InputError, its sentence stands in place of the picture.
    """
    show(draw, controls, play=False)
