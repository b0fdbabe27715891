"""Pictures: each shows its arguments, appears once with an alternative text, and leaves matplotlib's settings alone."""
import base64
import io

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from sslkit.lessons import plots
from sslkit.training import metrics


def pixels(figure):
    return np.asarray(Image.open(io.BytesIO(figure.png())).convert("RGB"), dtype=int)


IMAGES = torch.arange(5 * 64, dtype=torch.uint8).view(5, 1, 8, 8)
MATRIX = torch.tensor([[5, 1], [0, 3]])
POINTS, LABEL = np.random.default_rng(0).normal(size=(40, 2)), np.arange(40) % 2
CONFIDENCE, RIGHT = np.linspace(0.3, 1, 50), np.arange(50) > 10

Y, P, Q = torch.tensor([0, 1, 0, 1, 1]), torch.tensor([0.7, 0.3]), torch.tensor([0.5, 0.1, 0.2, 0.1, 0.1])
GRID = np.array([[0.9, 0.8], [float("nan"), 0.7]])

FIGURES = {
    "image_grid": lambda: plots.image_grid({"a": IMAGES, "b": IMAGES.expand(-1, 3, -1, -1)}, list("12345")),
    "curves": lambda: plots.curves({"a": ([1, 2], [0.1, float("nan")])}, "test", shaded={"kept": ([1, 2], [0.2, 0.3])}),
    "confusion": lambda: plots.confusion(MATRIX, ("cat", "dog")),
    "coverage": lambda: plots.coverage(CONFIDENCE, RIGHT, 0.95),
    "scatters": lambda: plots.scatters({"one": POINTS, "two": POINTS[::-1]}, LABEL, ("a", "b"), marked=[1, 2]),
    "panels": lambda: plots.panels({"left": {"a": ([1, 2], [0.1, 0.5])}, "right": {"a": ([1, 2], [0.4, 0.9])}}, low=0),
    "similarity": lambda: plots.similarity(IMAGES[0], IMAGES, Y, "ab", p_w=P),
    "similarity, all": lambda: plots.similarity(IMAGES[0], IMAGES.expand(-1, 3, -1, -1), Y, "ab", p_w=P, q_w=Q, q_hat=Q,
                                                q_agg=P, p_hat=P),
    "similarity, many classes": lambda: plots.similarity(IMAGES[0], IMAGES, Y, [f"class {c}" for c in range(100)],
                                                         p_w=torch.arange(100) / 4950),
    "bars": lambda: plots.bars({"one": {"a": 0.5, "b": 0.2}, "two": {"a": 0.7, "b": None}}),
    "spread": lambda: plots.spread({0.5: [0.8, 0.9], 1.0: [0.7, 0.75]}, "alpha", beside=("paper", {1.0: 0.6})),
    "growth": lambda: plots.growth({"one": ([0.1, 1], [[0.2, 0.1], [1.9, 0.1]])}, "ab"),
    "class_bars": lambda: plots.class_bars({"x": [0.5, None, 0.2], "y": [0.1, 0.9, 1.0]}, "abc",
                                           groups={"head": [0], "tail": [1, 2]}, counts=[30, 20, 1000]),
    "heat": lambda: plots.heat(GRID, (0.5, 1), (0.1, 0.2), ylabel="alpha", xlabel="t"),
    "scatter": lambda: plots.scatter(POINTS, LABEL, ("a", "b"), marked=LABEL == 1),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_shows_itself_with_a_text(name):
    before = dict(matplotlib.rcParams)
    figure = FIGURES[name]()
    data, metadata = figure._repr_mimebundle_()
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG") and metadata["image/png"]["alt"]
    assert pixels(figure).std() > 5, "it must not be blank"
    assert FIGURES[name]().png() == FIGURES[name]().png(), "the same input gives the same bytes"
    assert dict(matplotlib.rcParams) == before and not matplotlib._pylab_helpers.Gcf.get_all_fig_managers()


@pytest.mark.parametrize("name", ["similarity, all", "scatter", "image_grid"])
def test_a_picture_with_a_palette_shows_the_same(name):
    drawn = io.BytesIO()
    with matplotlib.rc_context(plots.STYLE):
        FIGURES[name]().savefig(drawn, format="png")
    full = Image.open(drawn).convert("RGB")
    difference = np.abs(pixels(FIGURES[name]()) - np.asarray(full, dtype=int))
    near = difference.mean() < 0.3 and np.quantile(difference, 0.999) < 16
    assert difference.max() == 0 if full.getcolors(256) else near
    assert len(FIGURES[name]().png()) < len(drawn.getvalue())


@pytest.mark.parametrize("a, b", [
    (lambda: plots.coverage(CONFIDENCE, RIGHT, 0.95), lambda: plots.coverage(CONFIDENCE, RIGHT, 0.9)),
    (lambda: plots.image_grid({"a": IMAGES}), lambda: plots.image_grid({"a": IMAGES.flip(0)})),
    (lambda: plots.image_grid({"a": IMAGES}, list("12345")), lambda: plots.image_grid({"a": IMAGES}, list("12346"))),
    (lambda: plots.scatter(POINTS, LABEL, "ab"), lambda: plots.scatter(POINTS, LABEL, "ab", marked=[0])),
    (lambda: plots.scatter(POINTS, LABEL, "ab"), lambda: plots.scatter(POINTS, np.where(LABEL == 1, -1, 0), "ab")),
    (lambda: plots.confusion(MATRIX, "ab"), lambda: plots.confusion(MATRIX.T, "ab"))])
def test_other_input_another_picture(a, b):
    assert a().png() != b().png()


def test_similarity_shows_the_most_similar_in_order_of_class_and_says_what_came_out():
    figure = plots.similarity(IMAGES[0], IMAGES, Y, "ab", p_w=P, q_w=Q, q_agg=P.flip(0), p_hat=P, most=3)
    bottom, strip = figure.axes[2:]
    heights = [path.vertices[:, 1].max() for path in bottom.collections[0].get_paths()]
    assert heights == pytest.approx([0.5, 0.2, 0.1])                         # rows 0 and 2 of class 0, row 1 of class 1
    assert "3 most similar of 5" in bottom.get_title(loc="left")
    tiles = strip.images[0].get_array()
    cell = tiles.shape[1] // 3
    white = (cell - 8) // 2
    for k, row in enumerate((0, 2, 1)):
        assert np.array_equal(tiles[:, k * cell + white:k * cell + white + 8], IMAGES[row, 0])
    left, right, low, high = strip.images[0].get_extent()
    inch = strip.get_position().bounds[2] * 9 / (strip.get_xlim()[1] - strip.get_xlim()[0])
    tall = (high - low) * strip.get_position().bounds[3] * 4.6
    assert inch * 8 / cell == pytest.approx(tall, rel=0.01), "tiles are square"
    assert figure.alt == "one image: p_w 70% for a, q_agg 70% for b, p_hat 70% for a"


def test_spread_has_mean_and_deviation_over_the_seeds():
    axis = plots.spread({0.5: [0.8, 0.9, 1.0], 1.0: [0.7]}, "alpha").axes[0]
    line = next(line for line in axis.lines if len(line.get_xdata()) == 2)
    assert list(line.get_ydata()) == pytest.approx([0.9, 0.7])
    bar = axis.collections[0].get_segments()[0]
    assert [y for _, y in bar] == pytest.approx([0.8, 1.0])                    # 0.9 +- 0.1, over n - 1
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["0.5", "1"]


def test_spread_without_values_says_so_in_its_alternative_text_too():
    figure = plots.spread({}, "", title="ours")
    assert figure.alt == "ours: nothing yet" and [text.get_text() for text in figure.axes[0].texts] == ["nothing yet"]


def test_bars_stand_side_by_side_and_a_missing_one_leaves_its_place_free():
    axis = plots.bars({"one": {"a": 0.5, "b": 0.2}, "two": {"a": 0.7, "b": None}}).axes[0]
    a, b = ([path.vertices for path in bars.get_paths()] for bars in axis.collections)
    assert [box[:, 1].max() for box in a] == pytest.approx([0.5, 0.7]) and b[0][:, 1].max() == pytest.approx(0.2)
    assert a[0][:, 0].max() < 0 < b[0][:, 0].min(), "a group stands around its tick"
    assert [text.get_text() for text in axis.texts] == ["50.0%", "70.0%", "20.0%", ""]
    low, high = axis.get_xlim()
    assert low + high == pytest.approx(1), "as much room for the missing bar on the right as on the left"


def test_panels_of_a_run_that_kept_nothing_late():
    nothing = ([1, 2, 3, 4], [0.5, float("nan"), float("nan"), float("nan")])
    for lines in ({"SimMatch": nothing}, {"SimMatch": nothing, "FixMatch": ([1, 2], [0.6, 0.7])}):
        low, high = plots.panels({"kept guesses right": lines}).axes[0].get_ylim()
        assert low == pytest.approx(0.57 if len(lines) > 1 else 0.97) and high > 1


def test_coverage_says_how_many_are_kept_and_how_many_of_them_wrong():
    confidence, right = np.array([0.99, 0.97, 0.96, 0.5]), np.array([True, False, True, False])
    assert "3 of 4 kept, 1 of them wrong" in plots.coverage(confidence, right, 0.95).axes[1].get_title(loc="left")


def test_coverage_without_a_kept_row():
    assert "0 of 50 kept" in plots.coverage(CONFIDENCE * 0.5, RIGHT, 0.95).axes[1].get_title(loc="left")


def test_metrics():
    assert metrics.median_last([9.0] * 30 + [float(k) for k in range(20)]) == 9.5
    assert metrics.median_last([3.0, 1.0, 2.0]) == 2.0
    truth, label = torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1, 1, 0])
    assert metrics.confusion(truth, label, 3).tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]
    points = torch.tensor([[0.0], [0.1], [0.2], [5.0], [5.1], [5.2]])
    assert metrics.neighbor_purity(points, torch.tensor([0, 0, 0, 1, 1, 1]), k=2) == 1.0
    purity = metrics.neighbor_purity(points, torch.tensor([0, 0, 1, 1, 1, 1]), k=2)
    assert purity == pytest.approx((0.5 + 0.5 + 0 + 1 + 1 + 1) / 6)


def test_growth_names_the_classes_that_flooded():
    figure = plots.growth({"one": ([0.1, 1], [[0.2, 0.1, 0.4], [1.9, 0.1, 1.1]])}, ["cat", "dog", "cow"])
    assert [text.get_text() for text in figure.axes[0].texts] == ["cat"]


def test_accuracy_of_classes_and_groups():
    truth, answer = torch.tensor([0, 0, 1, 3, 3, -1]), torch.tensor([0, 1, 1, 3, -1, 0])
    found = metrics.by_class(answer, truth, 5, {"head": [0, 1], "middle": [2], "tail": [2, 3]})
    assert found == {"class": [0.5, 1.0, None, 0.5, None], "head": 0.75, "middle": None, "tail": 0.5}


def test_growth_of_classes_counts_the_given_and_each_round():
    y = torch.tensor([0, 0, 1, -1, -1, -1, -1, -1, -1])                           # 2 to 1: of nine images six and three
    label, order = torch.tensor([0, 0, 1, 0, 0, 0, 0, 0, 1]), torch.tensor([0, 0, 0, 1, 2, 2, 2, 4, 3])
    share, growth = metrics.class_growth(label, order, y, 2)
    assert share.tolist() == pytest.approx([3 / 9, 4 / 9, 7 / 9, 8 / 9, 1])
    assert torch.allclose(growth, torch.tensor([[2, 1], [3, 1], [6, 1], [6, 2], [7, 2]]) / torch.tensor([6.0, 3.0]))


def test_precision_of_the_first_rows():
    right, order = torch.tensor([True, False, True, False]), torch.tensor([2, 1, 0])
    assert metrics.precision_curve(right, order).tolist() == pytest.approx([1, 1 / 2, 2 / 3])
