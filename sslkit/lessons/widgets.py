"""Sliders around functions that draw. Each leaves a picture that stays when no kernel runs."""
from collections.abc import Callable

from IPython.display import display
from ipywidgets import FloatSlider

from sslkit.lessons.plots import Figure


def slider(draw: Callable[[float], Figure], value: float, low: float, high: float, step: float, name: str) -> None:
    """A slider from `low` to `high` with the picture draw(value) under it, redrawn in place for each new value."""
    sliders(lambda **values: draw(values[name]), **{name: (value, low, high, step)})


def sliders(draw: Callable[..., Figure], **controls: tuple[float, float, float, float]) -> None:
    """A slider for each name = (value, low, high, step), with the picture draw(name=value, ...) under them."""
    made = {name: FloatSlider(value=value, min=low, max=high, step=step, description=name, continuous_update=False,
                              readout_format=".3f" if step < 0.01 else ".2f" if step < 1 else ".0f",
                              layout={"width": "480px"})
            for name, (value, low, high, step) in controls.items()}

    def picture() -> Figure:
        return draw(**{name: control.value for name, control in made.items()})

    display(*made.values())
    shown = display(picture(), display_id=True)      # an Output widget would leave no picture without a kernel
    for control in made.values():
        control.observe(lambda change: shown.update(picture()), "value")
