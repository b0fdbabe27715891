"""Sliders around the functions of plots.py. Each leaves a picture that stays when nothing runs."""
from collections.abc import Callable

import ipywidgets
from IPython.display import display

from sslkit.lessons.plots import Figure


def slider(draw: Callable[[float], Figure], value: float, low: float, high: float, step: float, name: str) -> None:
    """A slider from `low` to `high` and the picture draw(value) under it, drawn again in its place for each new value."""
    sliders(lambda **values: draw(values[name]), **{name: (value, low, high, step)})


def sliders(draw: Callable[..., Figure], **controls: tuple[float, float, float, float]) -> None:
    """A slider for each name, (value, low, high, step), and the picture draw(name=value, ...) under them."""
    made = {name: ipywidgets.FloatSlider(value=value, min=low, max=high, step=step, description=name, continuous_update=False,
                                         readout_format=".3f" if step < 0.01 else ".2f" if step < 1 else ".0f", layout={"width": "480px"})
            for name, (value, low, high, step) in controls.items()}
    display(*made.values())

    def picture() -> Figure:
        return draw(**{name: control.value for name, control in made.items()})

    # not an Output widget: a display that is updated is an ordinary picture, which readers without a kernel see too
    shown = display(picture(), display_id=True)
    for control in made.values():
        control.observe(lambda change: shown.update(picture()), "value")
