"""Sliders around the functions of plots.py. Each leaves a picture that stays when nothing runs."""
from collections.abc import Callable

import ipywidgets
from IPython.display import display

from sslkit.plots import Figure


def slider(draw: Callable[[float], Figure], value: float, low: float, high: float, step: float, name: str) -> None:
    """A slider from `low` to `high` and the picture draw(value) under it, drawn again in its place for each new value."""
    control = ipywidgets.FloatSlider(value=value, min=low, max=high, step=step, description=name, continuous_update=False,
                                     readout_format=".3f" if step < 0.01 else ".2f", layout={"width": "480px"})
    display(control)
    # not an Output widget: a display that is updated is an ordinary picture, which readers without a kernel see too
    shown = display(draw(value), display_id=True)
    control.observe(lambda change: shown.update(draw(change["new"])), "value")
