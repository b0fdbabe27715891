"""Sliders: the picture moves with the handle; without a viewer there are frames for a page."""
import base64
import io
import json
import math

import nbclient
import nbformat
import numpy as np
import pytest
import torch
from ipywidgets import Play, SelectionSlider
from PIL import Image

from sslkit.errors import InputError, require
from sslkit.lessons import plots, session, slider, sliders
from sslkit.lessons.widgets import frames as widgets


def draw(value):
    require(value != 13, "13 has no picture, choose another number")
    return plots.curves({"a": ([0, 1], [0, 1])}, "", title=str(value))


@pytest.fixture
def shown(monkeypatch):
    """What is displayed, with a viewer: the controls, then each picture in its place."""
    places = []

    class Place:
        def update(self, data, metadata, raw):
            places.append(data)

    def display(what, metadata=None, raw=False, display_id=False):
        places.append(what)
        return Place()

    monkeypatch.setattr(widgets, "display", display)
    monkeypatch.setattr(session, "display", display)
    monkeypatch.delenv("SSLKIT_HEADLESS")
    return places


def test_the_picture_follows_the_handle(shown):
    values = []
    slider(lambda value: values.append(value) or draw(value), 2, [1, 2, 3], "rounds")
    (control,) = shown[0].children
    assert isinstance(control, SelectionSlider) and control.continuous_update and control.description == "rounds" and control.label == "2"
    control.index = 2
    control.index = 0
    assert values == [2, 3, 1] and all("image/png" in data or "image/svg+xml" in data for data in shown[1:]) and len(shown) == 4


def test_a_refused_value_shows_its_sentence_and_the_next_a_picture(shown):
    slider(draw, 12, [12, 13, 14], "n")
    shown[0].children[0].index = 1
    assert shown[-1] == {"text/plain": "13 has no picture, choose another number"}
    shown[0].children[0].index = 2
    assert len(shown[-1]) >= 2
    slider(draw, 13, [12, 13, 14], "n")
    assert shown[-1] == {"text/plain": "13 has no picture, choose another number"}


def test_play_has_a_button_that_goes_through_the_options(shown):
    slider(draw, 2, range(1, 9), "rounds", play=True)
    button, control = shown[0].children[0].children
    assert isinstance(button, Play) and isinstance(control, SelectionSlider)
    assert (button.min, button.max, button.value, button.step) == (0, 7, 1, 1) and "rounds" in button.tooltip


def test_two_sliders_draw_one_picture(shown):
    seen = []
    sliders(lambda alpha, way: seen.append((alpha, way)) or draw(alpha), alpha=(0.5, np.linspace(0, 1, 3)), way=("b", ("a", "b")))
    alpha, way = shown[0].children
    alpha.index, way.index = 2, 0
    assert seen == [(0.5, "b"), (1.0, "b"), (1.0, "a")]


@pytest.mark.parametrize("value, options, labels, start", [
    (0.95, (0.3, 0.95, 0.999), ["0.3", "0.95", "0.999"], 1), (0.3, np.arange(0, 0.5, 0.1), ["0", "0.1", "0.2", "0.3", "0.4"], 3),
    (torch.tensor(2), torch.arange(3), ["0", "1", "2"], 2), ("b", "abc", ["a", "b", "c"], 1), (1000, range(0, 2000, 1000), ["0", "1000"], 1),
    (0.93, (0.5, 0.95), ["0.5", "0.93", "0.95"], 1), (2, (0.5, 0.95), ["0.5", "0.95", "2"], 2)])
def test_options_and_where_they_begin(value, options, labels, start):
    made = widgets.axis("n", getattr(value, "item", lambda: value)(), options)
    assert (made.labels, made.start) == (labels, start) and len(made.options) == len(labels)


def test_a_start_that_no_option_has_and_an_option_twice_are_refused(shown):
    with pytest.raises(InputError, match="unknown start of the slider way 'd': known: a, b, c"):
        slider(draw, "d", "abc", "way")
    with pytest.raises(InputError, match="the slider n has an option twice: 1, 1"):
        slider(draw, 1, [1, 1], "n")


@pytest.mark.parametrize("sizes, starts, counts", [
    ([5], [2], [5]), ([24], [0], [24]), ([100], [37], [24]), ([100], [99], [24]), ([21, 25], [10, 3], [5, 6]), ([3, 40], [1, 39], [3, 10]),
    ([2, 2], [0, 1], [2, 2]), ([20, 20, 20], [7, 8, 9], [3, 3, 3]), ([1], [0], [1]), ([2, 40], [0, 1], [2, 15])])
def test_frames_are_few_even_and_have_the_start_among_them(sizes, starts, counts):
    chosen = widgets.thinned([widgets.Axis([], [""] * size, start) for size, start in zip(sizes, starts)])
    assert [len(places) for places in chosen] == counts and math.prod(counts) <= widgets.ALL_FRAMES
    for places, size, start in zip(chosen, sizes, starts):
        assert places == sorted(set(places)) and start in places
        assert size == 1 or (places[0], places[-1]) == (0, size - 1)
        assert np.diff(places, prepend=0).max() <= 2 * math.ceil(size / len(places))


def test_without_a_viewer_a_picture_and_frames_of_each_value(monkeypatch):
    shown = []
    monkeypatch.setattr(widgets, "display", lambda data, metadata, raw: shown.append((data, metadata)))
    sliders(lambda n, way: draw(n), n=(12, (12, 13)), way=("b", ("a", "b", "c")))
    ((data, metadata),) = shown
    bundle = json.loads(json.dumps(data[widgets.FRAMES]))
    assert bundle["axes"] == [{"name": "n", "labels": ["12", "13"], "start": 0}, {"name": "way", "labels": ["a", "b", "c"], "start": 1}]
    frames = bundle["frames"]
    assert len(frames) == 6 == len(bundle["alts"]) and all(frames[:3]) and frames[3:] == [""] * 3
    assert bundle["alts"][3] == "13 has no picture, choose another number"
    (kind,) = set(bundle["kinds"][:3])
    assert "12" in bundle["alts"][0]
    if kind == "image/png":
        sizes = [Image.open(io.BytesIO(base64.b64decode(png))).size for png in (frames[1], data[kind])]
        shown_at = metadata[kind]["width"], metadata[kind]["height"]
        assert sizes == [shown_at, tuple(2 * side for side in shown_at)], "a frame has the pixels that a page shows"


def test_frames_are_in_rows_the_last_axis_the_fastest(monkeypatch):
    shown = []
    monkeypatch.setattr(widgets, "display", lambda data, metadata, raw: shown.append(data))
    sliders(lambda x, y: draw(f"{x}{y}"), x=(1, (1, 2)), y=("a", ("a", "b")))
    slider(draw, "1b", ("1a", "1b", "2a", "2b"), "xy")
    assert shown[0][widgets.FRAMES]["frames"] == shown[1][widgets.FRAMES]["frames"]
    assert len(set(shown[0][widgets.FRAMES]["frames"])) == 4


@pytest.mark.parametrize("watched", [True, False])
def test_in_a_kernel(watched, monkeypatch):
    if watched:
        monkeypatch.delenv("SSLKIT_HEADLESS")
    source = ("from sslkit.lessons import plots, slider\nfrom ipywidgets.widgets.widget import _instances\n"
              'slider(lambda v: plots.curves({"a": ([0, 1], [0, v])}, "", title=v), 37, range(40), "rounds", play=True)')
    move = "[made] = [w for w in _instances.values() if type(w).__name__ == 'SelectionSlider']\nmade.index = 5\nprint(made.label)"
    lesson = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(each) for each in (source, move)[:1 + watched]])
    nbclient.NotebookClient(lesson, timeout=60, kernel_name="python3").execute()
    nbformat.validate(lesson)
    data = [output.data for output in lesson.cells[0].outputs]
    assert {"image/png", "image/svg+xml"} & {*data[-1]}, "a picture for readers of the notebook alone"
    if watched:
        assert len(data) == 2 and "application/vnd.jupyter.widget-view+json" in data[0] and widgets.FRAMES not in data[1]
        assert "5" in data[1]["text/plain"], "the same output has the picture of the value it was moved to"
    else:
        (axis,), frames = (data[0][widgets.FRAMES][part] for part in ("axes", "frames"))
        assert len(data) == 1 and len(frames) == 24 == len(axis["labels"])
        assert axis["labels"][axis["start"]] == "37" and len({*frames}) == 24
