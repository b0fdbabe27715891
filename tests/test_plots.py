"""Pictures: each shows its arguments, appears once with an alternative text, and leaves matplotlib's settings alone."""
import base64
import io
import itertools

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex, to_rgb
from matplotlib.text import Text
from PIL import Image

from sslkit.lessons import plots
from sslkit.lessons.plots.figure import INK, PALE, PALETTE, class_color
from sslkit.lessons.plots.figure import RIGHT as GREEN
from sslkit.lessons.plots.figure import WRONG as RED
from sslkit.training import metrics


def pixels(figure):
    return np.asarray(Image.open(io.BytesIO(figure.encoded()[1])).convert("RGB"), dtype=int)


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
    "coverage, chosen": lambda: plots.coverage(CONFIDENCE, RIGHT, 0.5, chosen=RIGHT, name="trusted"),
    "spread": lambda: plots.spread({0.5: [0.8, 0.9], 1.0: [0.7, 0.75]}, "alpha"),
    "spread, lines": lambda: plots.spread({"a": {1: [0.8], 10: [0.9]}, "b": {1: [1.0], 10: [0.7]}}, "k"),
    "spread, points": lambda: plots.spread({"a": {"x": [0.01, -0.02]}, "b": {"x": [0.04, 0.0]}}, "", points=True),
    "growth": lambda: plots.growth({"one": ([0.1, 1], [[0.2, 0.1], [1.9, 0.1]])}, "ab"),
    "growth, four": lambda: plots.growth(dict.fromkeys("abcd", ([0.1, 1], [[0.2, 0.1], [1.9, 0.1]])), "ab", highlight=[1]),
    "class_bars": lambda: plots.class_bars({"x": [0.5, None, 0.2], "y": [0.1, 0.9, 1.0]}, "abc",
                                           groups={"head": [0], "tail": [1, 2]}, counts=[30, 20, 1000]),
    "heat": lambda: plots.heat(GRID, (0.5, 1), (0.1, 0.2), ylabel="alpha", xlabel="t"),
    "scatter": lambda: plots.scatter(POINTS, LABEL, ("a", "b"), marked=LABEL == 1),
    "scatter, many classes": lambda: plots.scatter(POINTS, np.arange(40) - 1, [f"class {c}" for c in range(39)],
                                                   highlight=(3, 30)),
    "confusion, many classes": lambda: plots.confusion(np.eye(24, dtype=int), [f"class {c}" for c in range(24)]),
    "image_grid, wide": lambda: plots.image_grid({"a long name": IMAGES.repeat(5, 1, 1, 1)}, right=[True] * 24 + [False]),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_shows_itself_with_a_text(name):
    before = dict(matplotlib.rcParams)
    figure = FIGURES[name]()
    data, metadata = figure._repr_mimebundle_()
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG") and len(data["image/png"]) < 4 / 3 * 65_000
    shown = metadata["image/png"]
    assert shown["alt"] and shown["width"] <= 900, "as shown, in CSS pixels"
    assert np.abs(np.subtract(pixels(figure).shape[:2], (2 * shown["height"], 2 * shown["width"]))).max() <= 2, "sharp"
    assert pixels(figure).std() > 5, "it must not be blank"
    for text in figure.findobj(Text):
        assert text.get_fontsize() >= 9 or not text.get_text(), f"{text.get_text()} is too small to read"
    for axis in figure.axes:
        for each in (axis.xaxis, axis.yaxis):
            low, high = sorted(each.get_view_interval())
            names = [text.get_text() for place, text in zip(each.get_ticklocs(), each.get_ticklabels())
                     if text.get_text() and low <= place <= high]
            assert len(set(names)) == len(names) or axis.get_ylabel() == "images (log)", "a tick for each name"
            assert all("." not in name and int(name.rstrip("%")) <= 100 for name in names if name.endswith("%"))
    assert FIGURES[name]().encoded()[1] == FIGURES[name]().encoded()[1], "the same input gives the same bytes"
    assert dict(matplotlib.rcParams) == before and not matplotlib._pylab_helpers.Gcf.get_all_fig_managers()


@pytest.mark.parametrize("name", ["similarity, all", "scatter", "image_grid"])
def test_a_picture_with_a_palette_shows_the_same(name):
    drawn = io.BytesIO()
    with matplotlib.rc_context(plots.STYLE):
        FIGURES[name]().savefig(drawn, format="png", dpi=200)
    full = Image.open(drawn).convert("RGB")
    difference = np.abs(pixels(FIGURES[name]()) - np.asarray(full, dtype=int))
    near = difference.mean() < 1 and np.quantile(difference, 0.999) <= 16            # of 255
    assert difference.max() == 0 if full.getcolors(PALETTE) else near
    assert len(FIGURES[name]().encoded()[1]) < len(drawn.getvalue())


# from linear sRGB to what colour-blind people see of it (Machado, Oliveira and Fernandes 2009, severity 1)
SEEN = {"all": np.eye(3),
        "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                         [-0.011820, 0.042940, 0.968881]],
        "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                       [-0.003882, -0.048116, 1.051998]],
        "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                       [0.004733, 0.691367, 0.303900]]}


def cie_lab(colors, seen):
    """CIE Lab (D65) of colours as somebody sees them."""
    rgb = np.array([to_rgb(color) for color in colors])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
                       [0.0193339, 0.1191920, 0.9503041]])
    xyz = np.clip(linear @ np.transpose(SEEN[seen]), 0, 1) @ to_xyz.T / (0.95047, 1, 1.08883)
    root = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * root[:, 1] - 16, 500 * (root[:, 0] - root[:, 1]), 200 * (root[:, 1] - root[:, 2])], 1)


def least_distance(colors, seen):
    lab = cie_lab(colors, seen)
    return min(np.linalg.norm(a - b) for a, b in itertools.combinations(lab, 2))


@pytest.mark.parametrize("seen", SEEN)
def test_ten_classes_differ_for_everybody(seen):
    assert len(plots.COLORS) == 10
    for behind in ("white", "#DDDDDD"):                                         # the paper, and what has no label yet
        assert least_distance([*plots.COLORS, behind], seen) > 24
    assert least_distance([class_color(3, (3, 9)), class_color(9, (3, 9)), PALE], seen) > 35
    assert least_distance([GREEN, RED], seen) > 20
    assert least_distance(["#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#8c564b"], "protanopia") < 5, "as a check"


@pytest.mark.parametrize("draw, says", [
    (lambda **alt: plots.curves({"FixMatch": ([1, 2, 3], [0.1, 0.93, np.nan]), "supervised": ([1], [0.78])}, "", title="test",
                                **alt), "test: FixMatch ends at 93%, supervised at 78%"),
    (lambda **alt: plots.panels({"left": {"a": ([1, 2], [0.1, 0.5])}, "right": {"b": ([1], [np.nan])}}, **alt),
     "left: a ends at 50%; right: no values yet"),
    (lambda **alt: plots.confusion(MATRIX, ("cat", "dog"), **alt),
     "true class and pseudo-label: 1 of 9 wrong, most often dog for cat (1 times)"),
    (lambda **alt: plots.heat(GRID, (0.5, 1), (0.1, 0.2), ylabel="alpha", xlabel="t", **alt),
     "accuracy: 70% to 90%, best at alpha 0.5, t 0.1"),
    (lambda **alt: plots.bars({"one": {"a": 0.5, "b": 0.2}, "two": {"a": 0.7, "b": None}}, title="test", **alt),
     "test: one: a 50%, b 20%; two: a 70%"),
    (lambda **alt: plots.class_bars({"x": [0.5, None, 0.2], "y": [None] * 3}, "abc", **alt),
     "accuracy of each class: x lowest for c (20%), mean 35%"),
    (lambda **alt: plots.coverage(np.array([0.99, 0.97, 0.5]), np.array([True, False, True]), 0.95, **alt),
     "tau 0.95: 2 of 3 kept, 1 of them wrong"),
    (lambda **alt: plots.spread({"a": [0.8, 0.9], "b": [1.0, 0.9]}, "", title="test", **alt),
     "test, means: a: 85%, b: 95%"),
    (lambda **alt: plots.spread({"a": [0.02, 0.01]}, "", points=True, **alt), "accuracy, means, in points: a: +1.5"),
    (lambda **alt: plots.growth({"one": ([0.1, 1], [[0.2, 0.1], [1.9, 0.1]])}, "ab", **alt),
     "one: class a ends highest, at 1.9 times its share"),
    (lambda **alt: plots.scatter(POINTS, LABEL, "ab", marked=[1, 2], marked_name="wrong", title="map", **alt),
     "map: 2 classes, 40 dots in colour; 2 wrong"),
    (lambda **alt: plots.image_grid({"": IMAGES}, "12345", right=[1, 1, 0, 1, 1], **alt),
     "5 images (1; 2; 3; 4; 5); 1 of 5 wrong"),
    (lambda **alt: plots.similarity(IMAGES[0], IMAGES, Y, "ab", p_w=P, **alt), "one image: p_w 70% for a")])
def test_the_alternative_text_says_the_finding_or_what_the_lesson_says(draw, says):
    assert draw().alt == says
    assert draw(alt="seen").alt == "seen"


@pytest.mark.parametrize("a, b", [
    (lambda: plots.coverage(CONFIDENCE, RIGHT, 0.95), lambda: plots.coverage(CONFIDENCE, RIGHT, 0.9)),
    (lambda: plots.image_grid({"a": IMAGES}), lambda: plots.image_grid({"a": IMAGES.flip(0)})),
    (lambda: plots.image_grid({"a": IMAGES}, list("12345")), lambda: plots.image_grid({"a": IMAGES}, list("12346"))),
    (lambda: plots.scatter(POINTS, LABEL, "ab"), lambda: plots.scatter(POINTS, LABEL, "ab", marked=[0])),
    (lambda: plots.scatter(POINTS, LABEL, "ab"), lambda: plots.scatter(POINTS, np.where(LABEL == 1, -1, 0), "ab")),
    (lambda: plots.confusion(MATRIX, "ab"), lambda: plots.confusion(MATRIX.T, "ab"))])
def test_other_input_another_picture(a, b):
    assert a().encoded()[1] != b().encoded()[1]


def test_similarity_shows_the_most_similar_in_order_of_class_and_says_what_came_out():
    figure = plots.similarity(IMAGES[0], IMAGES, Y, "ab", p_w=P, q_w=Q, q_agg=P.flip(0), p_hat=P, most=3)
    bottom, strip = figure.axes[2:]
    heights = [path.vertices[:, 1].max() for path in bottom.collections[0].get_paths()]
    assert heights == pytest.approx([0.5, 0.2, 0.1])                         # rows 0 and 2 of class 0, row 1 of class 1
    assert "3 most similar of 5 images" in bottom.get_title(loc="left")
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


def test_spread_joins_the_dots_of_a_seed_and_has_bars_for_means_at_true_places():
    figure = plots.spread({0.1: [0.8, 0.9, 1.0], 0.5: [0.7, 0.6, 0.5], 1.0: [0.2, 0.3, 0.4]}, "t")
    *seeds, dots, bars = figure.axes[0].lines
    assert [list(seed.get_ydata()) for seed in seeds] == [[0.8, 0.7, 0.2], [0.9, 0.6, 0.3], [1.0, 0.5, 0.4]]
    assert len(dots.get_xdata()) == 9 and list(bars.get_ydata()) == pytest.approx([0.9, 0.6, 0.3])
    assert list(bars.get_xdata()) == [0.1, 0.5, 1.0] and bars.get_marker() == "_"
    assert figure.axes[0].get_xscale() == "log" and figure.axes[0].get_ylim()[1] < 1.02
    assert plots.spread({0.5: [0.8], 1.0: [0.7]}, "alpha").axes[0].get_xscale() == "linear"


def test_spread_joins_seeds_over_names_and_only_where_it_knows_them():
    names = {"before": {"mixmatch": [0.1, 0.2], "fixmatch": [0.3, 0.4]},
             "after": {"mixmatch": [0.5, 0.6], "fixmatch": [0.7, 0.8]}}
    lines = plots.spread(names, "").axes[0].lines
    assert [list(line.get_ydata()) for line in lines[:4]] == [[0.1, 0.5], [0.2, 0.6], [0.3, 0.7], [0.4, 0.8]]
    assert all(abs(line.get_xdata() - k // 2).max() < 0.5 for k, line in enumerate(lines[:4])), "each at its method"
    uneven = plots.spread({"a": [0.5, 0.6], "b": [0.7]}, "").axes[0].lines
    assert len(uneven) == 2, "dots and means alone: which seed is missing is unknown"


def test_spread_of_differences_is_in_points_around_zero():
    axis = plots.spread({"a": [0.013, 0.02], "b": [0.03, 0.001]}, "", points=True).axes[0]
    assert axis.get_ylabel() == "points" and axis.lines[-1].get_ydata() == [0, 0]
    assert axis.yaxis.get_major_formatter()(-2, 0) == "−2" and axis.yaxis.get_major_formatter()(0, 0) == "0"
    assert axis.lines[0].get_ydata() == pytest.approx([1.3, 3.0])


def test_more_lines_than_colours_are_all_drawn():
    names = [f"method {k}" for k in range(12)]
    axis = plots.spread({name: {40: [0.5, 0.6], 250: [0.7, 0.8]} for name in names}, "labels").axes[0]
    assert len(axis.lines) == 24 and {text.get_text().strip() for text in axis.texts} == set(names)
    assert len(plots.curves({name: ([0, 1], [0.1, 0.2]) for name in names}, "accuracy").axes[0].lines) == 12


def test_spread_without_values_says_so_in_its_alternative_text_too():
    figure = plots.spread({}, "", title="ours")
    assert figure.alt == "ours: nothing yet" and [text.get_text() for text in figure.axes[0].texts] == ["nothing yet"]


def test_bars_stand_side_by_side_and_a_missing_one_leaves_its_place_free():
    axis = plots.bars({"one": {"a": 0.5, "b": 0.2}, "two": {"a": 0.7, "b": None}}).axes[0]
    a, b = ([path.vertices for path in bars.get_paths()] for bars in axis.collections)
    assert [box[:, 1].max() for box in a] == pytest.approx([0.5, 0.7]) and b[0][:, 1].max() == pytest.approx(0.2)
    assert a[0][:, 0].max() < 0 < b[0][:, 0].min(), "a group stands around its tick"
    assert [text.get_text() for text in axis.texts] == ["50%", "70%", "20%"]
    assert a[1][:, 0].min() + a[1][:, 0].max() == pytest.approx(2), "alone, it stands at the middle of its group"
    assert axis.get_ylim()[0] == 0


def test_a_bar_of_zero_says_so_and_a_missing_one_does_not():
    axis = plots.class_bars({"x": [0.5, 0.0, None]}, "abc").axes[0]
    assert [(text.get_text(), text.xy) for text in axis.texts] == [("0%", (1, 0))]


def test_similarity_centres_what_is_given_and_keeps_its_colour():
    one, both = (plots.similarity(IMAGES[0], IMAGES, Y, "ab", p_w=P, q_agg=q).axes[1] for q in (None, P))
    box = one.collections[0].get_paths()[0].vertices[:, 0]
    assert box.min() + box.max() == pytest.approx(0)
    assert (one.collections[0].get_facecolor() == both.collections[0].get_facecolor()).all()


def test_heat_frames_the_best_cell_only_beyond_the_spread_of_the_seeds():
    def frames(**options):
        figure = plots.heat(GRID, (0.5, 1), (0.1, 0.2), ylabel="alpha", xlabel="t", **options)
        return len(figure.axes[0].patches), figure.axes[0].images[0].get_clim()
    assert frames() == (0, pytest.approx((0.7, 0.9))) and frames(spread=0.2)[0] == 0
    assert frames(spread=0.05, low=0, high=1) == (1, (0, 1))


def test_wrong_images_have_a_cross_and_not_colour_alone():
    figure = plots.image_grid({"a": IMAGES, "b": IMAGES}, "12345", right={"a": [True, False] * 2 + [True]})
    titles = [axis.title for axis in figure.axes]
    assert [title.get_text() for title in titles[:5]] == ["1", "2 ✗", "3", "4 ✗", "5"]
    assert {title.get_color() for title in titles[:5]} == {INK, RED}
    inches = sum(axis.get_position().height for axis in figure.axes[::5]) * figure.get_figheight()
    assert figure.get_figheight() - inches < 0.4, "no white strips under the rows"


def test_highlighted_classes_have_colour_and_the_others_none():
    labels = np.arange(40) % 4 - 1
    axis = plots.scatter(POINTS, labels, "abc", highlight=(2,)).axes[0]
    colors = {to_hex(color) for color in axis.collections[0].get_facecolor()}
    assert colors == {PALE.lower(), "#dddddd", class_color(2, (2,)).lower()}
    lines = plots.growth({"one": ([0.1, 1], [[0.2, 0.1], [1.9, 0.1]])}, "ab", highlight=(1,)).axes[0]
    assert [text.get_text() for text in lines.texts] == ["b"] and lines.lines[1].get_color() == PALE


def test_names_stand_beside_the_islands():
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(0, 0.1, (200, 2)), rng.normal(3, 0.1, (200, 2))])
    axis = plots.scatter(points, np.arange(400) // 200, ("cat", "dog")).axes[0]
    for text, middle in zip(axis.texts, (0, 3)):
        away = np.linalg.norm(points - text.get_position(), axis=1)
        assert away.min() > 0.05 and np.linalg.norm(np.subtract(text.get_position(), middle)) < 1.2


def test_names_at_the_ends_of_lines_do_not_overlap():
    lines = {name: ([1, 2], [0.1, 0.9 + k / 1000]) for k, name in enumerate("abcd")}
    figure = plots.curves(lines, "", shaded={"e": ([1, 2], [0.9, 0.9])})
    figure.encoded()[1]
    boxes = sorted((text.get_window_extent() for text in figure.axes[0].texts), key=lambda box: box.y0)
    assert len(boxes) == 5 and all(low.y1 < high.y0 + 8 for low, high in itertools.pairwise(boxes))


def test_panels_of_a_run_that_kept_nothing_late():
    nothing = ([1, 2, 3, 4], [0.5, float("nan"), float("nan"), float("nan")])
    for lines in ({"SimMatch": nothing}, {"SimMatch": nothing, "FixMatch": ([1, 2], [0.6, 0.7])}):
        low, high = plots.panels({"kept guesses right": lines}).axes[0].get_ylim()
        assert low == pytest.approx(0.576 if len(lines) > 1 else 0.947) and high > 1


def test_a_panel_names_its_own_lines_alone():
    axes = plots.panels({"left": {"a": ([1], [1.0]), "b": ([1], [0.9])}, "right": {"a": ([1], [0.8])}}).axes
    assert [[text.get_text() for text in axis.texts] for axis in axes] == [["b", "a"], ["a"]]


def test_coverage_says_how_many_are_kept_and_how_many_of_them_wrong():
    confidence, right = np.array([0.99, 0.97, 0.96, 0.5]), np.array([True, False, True, False])
    assert "3 of 4 kept, 1 of them wrong" in plots.coverage(confidence, right, 0.95).axes[1].get_title(loc="left")


def test_coverage_has_right_guesses_above_the_line_and_wrong_ones_below():
    confidence, right = np.array([0.99, 0.99, 0.96, 0.52]), np.array([True, True, False, True])
    left = plots.coverage(confidence, right, 0.95).axes[0]
    heights = [bar.get_height() for bar in left.patches if bar.get_height() and bar.get_width() < 0.03]
    assert heights == [1, 2, -1] and left.get_xlim()[0] == 0.5
    assert left.get_ylabel() == "images (log)"


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
