"""Pictures: pure functions from arrays or runs to a Figure. Nothing here trains, reads a disk or keeps state.

Every Figure shows itself as the last expression of a cell, with an alternative text, and has savefig().
"""
import base64
import functools
import io
from collections.abc import Mapping, Sequence

import matplotlib
import matplotlib.patheffects
import matplotlib.ticker
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure as MatplotlibFigure
from PIL import Image

# Okabe and Ito's colours, told apart by colour-blind readers too
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999933", "#882255", "#44AA99", "#666666")
INK, PALE = "#333333", "#BBBBBB"
STYLE = {
    "figure.dpi": 100, "savefig.dpi": 100, "font.size": 10, "font.family": "DejaVu Sans", "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": INK, "axes.labelcolor": INK, "text.color": INK,
    "xtick.color": INK, "ytick.color": INK, "axes.grid": True, "grid.color": "#E8E8E8", "axes.axisbelow": True, "lines.linewidth": 2,
    "legend.frameon": False, "axes.prop_cycle": matplotlib.cycler(color=COLORS), "figure.facecolor": "white", "axes.facecolor": "white"}


class Figure(MatplotlibFigure):
    """A matplotlib Figure outside pyplot that a notebook shows once, as a PNG with an alternative text (`alt`)."""
    alt = ""

    def png(self) -> bytes:
        """The picture's bytes, with a palette, half the size or less, where its colours fit into one, or nearly do: all but photographs."""
        with matplotlib.rc_context(STYLE):
            canvas = FigureCanvasAgg(self)
            canvas.draw()
        code = np.asarray(canvas.buffer_rgba()).view(np.uint32)[..., 0]              # a number for each pixel's colour
        image, file = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]), io.BytesIO()
        if image.getcolors(256):
            colors, first, place = np.unique(code, return_index=True, return_inverse=True)
            image_colors = np.asarray(image).reshape(-1, 3)[first]
            image = Image.fromarray(place.reshape(code.shape).astype(np.uint8))
            image.putpalette(image_colors.tobytes())
        elif image.getcolors(8192):
            image = image.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        image.save(file, "PNG", compress_level=6)
        return file.getvalue()

    def _repr_mimebundle_(self, include=None, exclude=None):
        data = {"image/png": base64.b64encode(self.png()).decode(), "text/plain": f"<picture: {self.alt}>"}
        return data, {"image/png": {"alt": self.alt}}


def styled(function):
    """Draw in the house style, whatever the caller's settings."""
    @functools.wraps(function)
    def wrapper(*args, **options):
        with matplotlib.rc_context(STYLE):
            return function(*args, **options)
    return wrapper


def new(width: float, height: float, alt: str, rows: int = 1, columns: int = 1, **options):
    """A Figure of width x height inches and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.alt = alt
    return figure, figure.subplots(rows, columns, **options)


def picture(axis, image, title: str = "", color: str = INK) -> None:
    """One uint8 image (num, H, W) on an axis without ticks."""
    image = np.asarray(image)
    axis.imshow(image[0] if len(image) == 1 else image.transpose(1, 2, 0), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axis.set_title(title, fontsize=9, loc="center", color=color)
    bare(axis)


def bare(axis) -> None:
    """No ticks, no grid, no frame."""
    axis.grid(False)
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set_visible(False)


@styled
def image_grid(rows: Mapping[str, Sequence], titles: Sequence[str] | Mapping[str, Sequence[str]] = (), *, colors: Sequence[str] = (),
               size: float = 0.85) -> Figure:
    """A row of images for each name. rows: name -> (n, num, H, W) uint8; titles: n strings over the first row, or name -> n strings."""
    n = max(1, *(len(images) for images in rows.values()))
    over = titles if isinstance(titles, Mapping) else dict.fromkeys([next(iter(rows))] if titles else [], titles)
    figure, axes = new(size * n + (max(1.0, 0.075 * max(map(len, rows))) if any(rows) else 0), (size + 0.12) * len(rows) + 0.25 * len(over),
                       "images: " + ", ".join(rows), len(rows), n, squeeze=False)
    for axis in axes.flat:
        bare(axis)
    for r, (name, images) in enumerate(rows.items()):
        axes[r, 0].set_ylabel(name, rotation=0, ha="right", va="center", labelpad=8)
        for k, image in enumerate(images):
            picture(axes[r, k], image, over[name][k] if name in over else "", colors[k] if colors else INK)
    return figure


@styled
def curves(lines: Mapping[str, tuple[Sequence, Sequence]], ylabel: str, *, title: str = "", xlabel: str = "step", percent: bool = True,
           shaded: Mapping[str, tuple[Sequence, Sequence]] | None = None) -> Figure:
    """Values over steps, a line for each name; `shaded` ones as filled areas behind. Values are fractions if `percent`."""
    figure, axis = new(7, 3.4, f"{ylabel or title} by {xlabel}: " + ", ".join([*lines, *(shaded or {})]))
    for name, (x, y) in (shaded or {}).items():
        axis.fill_between(x, y, color=PALE, alpha=0.35, linewidth=0)
        axis.plot(x, y, color="#999999", linewidth=1, label=name)
    for name, (x, y) in lines.items():
        axis.plot(x, y, label=name)
    if percent:
        axis.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1, decimals=0))
    axis.set(xlabel=xlabel, ylabel=ylabel, title=title)
    axis.legend(loc="best")
    return figure


@styled
def confusion(matrix, classes: Sequence[str], *, title: str = "", xlabel: str = "pseudo-label", ylabel: str = "true class") -> Figure:
    """Counts (C, C), row the true class; each row is coloured by its share, the diagonal left pale so that the errors stand out."""
    matrix = np.asarray(matrix)
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    side = max(4.0, 0.45 * len(classes) + 0.8)
    figure, axis = new(side + 0.6, side, "confusion of true class and pseudo-label")
    wrong = np.ma.masked_where(np.eye(len(classes), dtype=bool), share)
    axis.set_facecolor("#F2F2F2")
    top = max(0.1, wrong.max())
    axis.imshow(wrong, cmap="Oranges", vmin=0, vmax=top)
    for r, c in np.argwhere(matrix > 0):
        dark = r != c and share[r, c] > 0.6 * top
        axis.text(c, r, f"{matrix[r, c]}", ha="center", va="center", fontsize=8, color="white" if dark else INK if r != c else "#888888")
    axis.grid(False)
    axis.set(title=title, xlabel=xlabel, ylabel=ylabel, xticks=range(len(classes)), yticks=range(len(classes)))
    axis.set_xticklabels(classes, rotation=0 if max(map(len, classes)) < 4 else 60)
    axis.set_yticklabels(classes)
    return figure


@styled
def coverage(confidence, right, tau: float, *, chosen=None, name: str = "") -> Figure:
    """Left: confidences of right and wrong pseudo-labels, cut at tau. Right: their accuracy against the share kept, tau marked.

    confidence (n,) in [0, 1], right (n,) bool. chosen (n,) bool: rows kept by another rule called `name`, marked on the right too.
    """
    confidence, right = np.asarray(confidence, float), np.asarray(right, bool)
    kept = confidence >= tau
    figure, (left, curve) = new(9, 3.3, f"confidences, and accuracy against coverage, tau {tau:g}" + f", {name}" * bool(name), 1, 2)
    bins = np.linspace(0, 1, 41)
    left.hist([confidence[right], confidence[~right]], bins, color=COLORS[2::3][:2], label=["right", "wrong"])
    left.set_yscale("symlog", linthresh=10)
    left.axvline(tau, color=INK, linewidth=1.5)
    left.axvspan(0, tau, color="white", alpha=0.6)
    left.set(title="confidence of each pseudo-label", xlabel="max p(a(u))", ylabel="images", xlim=(0, 1.01))
    left.legend(loc="upper left")

    order = np.argsort(-confidence, kind="stable")
    share, accuracy = np.arange(1, len(order) + 1) / len(order), np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    curve.plot(share, accuracy, color=COLORS[0])
    if kept.any():
        curve.plot(kept.mean(), right[kept].mean(), "o", color=COLORS[5], markersize=9)
    curve.set_title(f"tau {tau:.3f}: {kept.sum():,} of {len(kept):,} kept, {(kept & ~right).sum():,} of them wrong")
    if chosen is not None:
        chosen = np.asarray(chosen, bool)
        if chosen.any():
            curve.plot(chosen.mean(), right[chosen].mean(), "D", color=COLORS[2], markersize=8, label=name)
            curve.legend(loc="lower left")
        curve.set_title(f"tau {tau:.2f}: {kept.sum():,} kept, {(kept & ~right).sum():,} wrong; "
                        f"{name}: {chosen.sum():,}, {(chosen & ~right).sum():,} wrong", fontsize=9)
    curve.set(xlabel="share kept (coverage)", ylabel="accuracy of the kept", xlim=(0, 1.02), ylim=(accuracy.min() - 0.02, 1.005))
    curve.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(6, steps=[1, 2, 5, 10]))
    for axis in (curve.xaxis, curve.yaxis):
        axis.set_major_formatter(matplotlib.ticker.PercentFormatter(1, decimals=0))
    return figure


@styled
def scatter(points, label, classes: Sequence[str], *, marked=None, title: str = "", marked_name: str = "labelled") -> Figure:
    """A map of points (n, 2) coloured by label (n,), grey where it is -1; `marked` (rows or a mask) ringed. A class's name stands at its
    median."""
    figure, axis = new(7.2, 5.4, title or "map of the features")
    _map(axis, points, label, classes, marked=marked, title=title, marked_name=marked_name)
    if marked is not None:
        figure.legend(loc="outside lower left")
    return figure


@styled
def scatters(maps: Mapping[str, Sequence], label, classes: Sequence[str], *, marked=None, marked_name: str = "labelled") -> Figure:
    """Several maps of the same rows side by side: title -> points (n, 2); label (n,), or a list of one for each map; the rest as in
    scatter()."""
    figure, axes = new(4.6 * len(maps), 4.4, "maps: " + ", ".join(maps), 1, len(maps), squeeze=False)
    labels = label if isinstance(label, list) else [label] * len(maps)
    for axis, (title, points), each in zip(axes.flat, maps.items(), labels):
        _map(axis, points, each, classes, marked=marked, title=title, marked_name=marked_name)
    if marked is not None:
        figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower left")
    return figure


def _map(axis, points, label, classes, *, marked, title, marked_name) -> None:
    points, label = np.asarray(points), np.asarray(label)
    palette = matplotlib.colormaps["tab10" if len(classes) <= 10 else "tab20"].colors
    if (label < 0).any():
        axis.scatter(*points[label < 0].T, s=5, color="#DDDDDD", linewidths=0)
    for c, name in enumerate(classes):
        mine = points[label == c]
        axis.scatter(*mine.T, s=9, color=palette[c % len(palette)], alpha=0.6, linewidths=0)
        if len(mine):
            axis.text(*np.median(mine, 0), name, ha="center", va="center", fontsize=15, fontweight="bold", color=palette[c % len(palette)],
                      path_effects=[matplotlib.patheffects.withStroke(linewidth=4, foreground="white")])
    if marked is not None:
        rings = points[marked]
        size, width = (48, 1.1) if len(rings) < 60 else (20, 0.6)
        axis.scatter(*rings.T, s=size, facecolors="none", edgecolors="black", linewidths=width, label=marked_name)
    axis.set_title(title)
    bare(axis)


@styled
def panels(lines: Mapping[str, Mapping[str, tuple[Sequence, Sequence]]], *, xlabel: str = "step", low: float | None = None) -> Figure:
    """Small multiples with one scale: title -> name -> (steps, fractions), a line of the same colour for each name.

    low: where y begins; by default so that the last three quarters of every line are seen.
    """
    if low is None:
        low = min(np.nanmin(y[len(y) // 4:]) for group in lines.values() for _, y in group.values()) - 0.03
    figure, axes = new(3.1 * len(lines), 3.0, "; ".join(f"{title}: {', '.join(group)}" for title, group in lines.items()), 1, len(lines),
                       sharey=True, squeeze=False)
    for axis, (title, group) in zip(axes.flat, lines.items()):
        for name, (x, y) in group.items():
            axis.plot(x, y, label=name)
        axis.set(title=title, xlabel=xlabel, ylim=(low, 1.01))
        axis.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1, decimals=0))
    most = max(axes.flat, key=lambda axis: len(axis.lines))
    axes.flat[-1].legend(handles=most.lines, loc="lower right")
    return figure


@styled
def similarity(image, labeled, y, classes: Sequence[str], *, p_w, q_w=None, q_hat=None, q_agg=None, p_hat=None, tau: float = 0.95,
               most: int = 20) -> Figure:
    """SimMatch's two answers for one image, as far as they are given. Over the classes, the `most` probable if there are more: p_w, q_agg
    and their mixture p_hat, each (C,), with tau. Over the `most` similar of the labelled images (K_l, num, H, W), ordered by their class
    y (K_l,): q_w and q_hat, each (K_l,).
    """
    # places by hand: a layout engine would draw everything twice, and this is redrawn while a slider moves
    figure = Figure(figsize=(9, 2.2 if q_w is None else 4.6))
    given = {name: np.asarray(p) for name, p in (("p_w", p_w), ("q_agg", q_agg), ("p_hat", p_hat)) if p is not None}
    best = [f"{name} {p.max():.0%} for {classes[p.argmax()]}" for name, p in given.items()]
    figure.alt = "one image: " + ", ".join(best)
    low, high = (0.14, 0.72) if q_w is None else (0.56, 0.34)
    picture(figure.add_axes((0.01, low, 0.16, high)), image, "the image")
    top = figure.add_axes((0.23, low, 0.75, high))
    probable = np.sort(np.argsort(-np.max(list(given.values()), 0), kind="stable")[:most])
    _grouped(top, {"$p_w$: the classifier": (p_w, COLORS[0]), "$q^{agg}$: the labelled images": (q_agg, COLORS[1]),
                   "$\\hat p$: both": (p_hat, INK)}, probable)
    top.axhline(tau, color=INK, linewidth=1, linestyle=":")
    top.set_title("which class?")
    names = [classes[c] for c in probable]
    room = max(map(len, names)) * len(names) < 80
    top.set_xticks(range(len(names)), names, rotation=0 if room else 30, ha="center" if room else "right", fontsize=10 if room else 8)
    if q_w is None:
        return figure
    q_w = np.asarray(q_w)
    shown = np.sort(np.argsort(-q_w, kind="stable")[:most])
    shown = shown[np.argsort(np.asarray(y)[shown], kind="stable")]
    bottom = figure.add_axes((0.23, 0.12, 0.75, 0.27))
    _grouped(bottom, {"$q_w$: how similar": (q_w, COLORS[1]), "$\\hat q$: corrected by $p_w$": (q_hat, COLORS[5])}, shown)
    bottom.set_xticks([])
    bottom.set_title("which labelled image?" + (f" the {len(shown)} most similar of {len(q_w)}" if len(shown) < len(q_w) else ""))
    # the tiles as one image, each centred under its bars with white beside it, square, at most half an inch
    tiles, slot, height = np.asarray(labeled)[shown], 6.75 / (len(shown) + 0.2), 0.11 * 4.6
    side = tiles.shape[-1]
    gap = max(1, round(side * (slot / min(0.9 * slot, height) - 1) / 2))
    tiles = np.pad(tiles, ((0, 0), (0, 0), (0, 0), (gap, gap)), constant_values=255).transpose(2, 0, 3, 1)
    mosaic = tiles.reshape(side, -1, tiles.shape[-1])
    strip = figure.add_axes((0.23, 0.0, 0.75, 0.11))
    strip.imshow(mosaic[..., 0] if mosaic.shape[-1] == 1 else mosaic, cmap="gray", vmin=0, vmax=255, interpolation="nearest",
                 extent=(-0.5, len(shown) - 0.5, 1 - slot * side / (side + 2 * gap) / height, 1), aspect="auto")
    strip.set(xlim=bottom.get_xlim(), ylim=(0, 1))
    bare(strip)
    return figure


def _grouped(axis, series: Mapping[str, tuple], rows) -> None:
    """Bars of fractions side by side for each of `rows`; a series without values keeps its place free, so that pictures can be compared."""
    width, at = 0.82 / len(series), np.arange(len(rows))
    for k, (name, (values, color)) in enumerate(series.items()):
        if values is not None:
            left = at + (k - len(series) / 2 + 0.04) * width
            corners = [[(x, 0), (x, y), (x + 0.92 * width, y), (x + 0.92 * width, 0)] for x, y in zip(left, np.asarray(values)[rows])]
            axis.add_collection(PolyCollection(corners, facecolors=color, linewidths=0, label=name))      # bar() is slow
    axis.set(xlim=(-0.6, len(at) - 0.4), ylim=(0, 1.04))
    axis.legend(ncols=len(series), fontsize=8, loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0)
    axis.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1, decimals=0))


@styled
def bars(groups: Mapping[str, Mapping[str, float]], *, title: str = "", low: float = 0.0) -> Figure:
    """Fractions side by side: group -> name -> value, each with its number; None where there is none. low: where the axis begins."""
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    figure, axis = new(1.4 + 1.7 * len(groups), 3.2, title or ", ".join(groups))
    width = 0.8 / len(names)
    for k, name in enumerate(names):
        found = axis.bar(np.arange(len(groups)) + (k - (len(names) - 1) / 2) * width,
                         [np.nan if group.get(name) is None else group[name] for group in groups.values()], 0.92 * width, label=name)
        axis.bar_label(found, ["" if group.get(name) is None else f"{group[name]:.1%}" for group in groups.values()], fontsize=8, padding=2)
    axis.set(title=title, xticks=range(len(groups)), ylim=(low, 1.0))
    axis.set_xticklabels(groups)
    axis.grid(False, axis="x")
    axis.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1, decimals=0))
    if len(names) > 1:
        figure.legend(loc="outside lower center", ncols=len(names))
    return figure


@styled
def spread(values: Mapping, xlabel: str, *, title: str = "", limits: tuple[float, float] | None = None,
           beside: tuple[str, Mapping[float, float]] | None = None) -> Figure:
    """Accuracy over a setting: x -> a fraction for each seed, as dots, their mean and standard deviation over them. The x are numbers or
    names and stand evenly spaced. Or name -> x -> fractions: one colour for each name.

    limits: of the y axis. beside: a title and single points, x -> fraction, in a panel of their own with a scale of its own.
    """
    alt = (title or "accuracy") + f" by {xlabel}" * bool(xlabel) + (f"; beside it {beside[0]}" if beside else "")
    figure, axes = new(9 if beside else 7, 3.4, alt, 1, 2 if beside else 1, squeeze=False, width_ratios=(1.7, 1) if beside else None)
    if not values:
        axes[0, 0].set(title=title, xticks=[], yticks=[])
        axes[0, 0].text(0.5, 0.5, "nothing yet", ha="center", va="center", fontsize=12, color="#888888")
        return figure
    named = isinstance(next(iter(values.values())), Mapping)
    groups = values if named else {"": values}
    axis, xs = axes[0, 0], list(next(iter(groups.values())))
    several = any(len(v) > 1 for group in groups.values() for v in group.values())
    for g, (name, group) in enumerate(groups.items()):
        at = np.arange(len(xs)) + 0.09 * (2 * g - len(groups) + 1)
        means, stds = ([f(group[x]) for x in xs] for f in (np.mean, lambda v: np.std(v, ddof=1) if len(v) > 1 else 0.0))
        for k, x in enumerate(xs):
            axis.plot([at[k]] * len(group[x]), group[x], "o", color=COLORS[g], alpha=0.35, markersize=5)
        axis.errorbar(at, means, stds if several else None, color=COLORS[g], capsize=3, marker="o",
                      linestyle="none" if any(isinstance(x, str) for x in xs) else "-",
                      label=name or ("mean and std, dots: seeds" if several else "one seed"))
    axis.set(title=title, ylim=limits)
    axis.legend(loc="best")
    if beside:
        axes[0, 1].plot([xs.index(x) for x in beside[1]], list(beside[1].values()), "D--", color=COLORS[5], linewidth=1, markersize=7)
        axes[0, 1].set(title=beside[0])
        axes[0, 1].margins(y=0.5)
    for axis in axes.flat:
        axis.set(xlabel=xlabel, xlim=(-0.4, len(xs) - 0.6))
        axis.set_xticks(range(len(xs)), [x if isinstance(x, str) else f"{x:g}" for x in xs])
        axis.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1))
    return figure


@styled
def heat(matrix, rows: Sequence, columns: Sequence, *, ylabel: str, xlabel: str, title: str = "") -> Figure:
    """Fractions (rows, columns) as coloured cells with their numbers; NaN stays empty."""
    matrix = np.asarray(matrix, float)
    figure, axis = new(1.6 + 0.85 * len(columns), 1.3 + 0.5 * len(rows), title or f"accuracy by {ylabel} and {xlabel}")
    axis.imshow(matrix, cmap="viridis", aspect="auto")
    middle = (np.nanmin(matrix) + np.nanmax(matrix)) / 2
    for r, c in np.argwhere(~np.isnan(matrix)):
        axis.text(c, r, f"{matrix[r, c]:.1%}", ha="center", va="center", fontsize=9, color="white" if matrix[r, c] <= middle else "black")
    axis.grid(False)
    axis.set(title=title, xlabel=xlabel, ylabel=ylabel, xticks=range(len(columns)), yticks=range(len(rows)))
    axis.set_xticklabels([f"{c:g}" for c in columns])
    axis.set_yticklabels([f"{r:g}" for r in rows])
    return figure


@styled
def growth(panels: Mapping[str, tuple[Sequence, Sequence]], classes: Sequence[str]) -> Figure:
    """How far each class has grown while rows were labelled, see metrics.class_growth: title -> (share labelled (m,), growth (m, C))."""
    figure, axes = new(3.1 * len(panels), 3.2, "growth of each class: " + ", ".join(panels), 1, len(panels), squeeze=False, sharey=True)
    palette = matplotlib.colormaps["tab10" if len(classes) <= 10 else "tab20"].colors
    for axis, (title, (share, ratio)) in zip(axes.flat, panels.items()):
        share, ratio = np.asarray(share), np.asarray(ratio)
        axis.axhline(1, color=INK, linewidth=1, linestyle=":")
        for c, name in enumerate(classes):
            color = palette[c % len(palette)]
            axis.plot(share, ratio[:, c], color=color, linewidth=1.5)
            if ratio[-1, c] > 1.5:
                axis.text(1.02, ratio[-1, c], name, color=color, fontweight="bold", va="center")
        axis.set(title=title, xlabel="share of the images labelled", xlim=(0, 1.1))
        axis.xaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1, decimals=0))
    axes[0, 0].set_ylabel("images, as a multiple of\nthe given labels' share")
    return figure


@styled
def class_bars(values: Mapping[str, Sequence[float | None]], classes: Sequence[str], *, groups: Mapping[str, Sequence[int]] = {},
               counts: Sequence[int] = (), title: str = "") -> Figure:
    """Fractions of each class side by side: name -> (C,), None where there is none. groups: head, middle and tail, each on a ground of its
    own; counts (C,): training images, under each class's name."""
    figure, axis = new(max(6.0, 1.2 + 0.75 * len(classes)), 3.3, (title or "accuracy of each class") + ": " + ", ".join(values))
    width, at = 0.8 / len(values), np.arange(len(classes))
    for name, group in groups.items():
        axis.axvspan(min(group) - 0.5, max(group) + 0.5, color="#F4F4F4" if name == "middle" else "#E9EEF4", linewidth=0, zorder=0)
        axis.text(np.mean(group), 1.02, name, ha="center", va="bottom", fontsize=9, transform=axis.get_xaxis_transform())
    for k, (name, each) in enumerate(values.items()):
        heights = [np.nan if value is None else value for value in each]
        axis.bar(at + (k - (len(values) - 1) / 2) * width, heights, 0.92 * width, label=name)
    axis.set_title(title, pad=18 if groups else None)
    names = [f"{name}\n{count:,}" for name, count in zip(classes, counts)] if len(counts) else list(classes)
    axis.set_xticks(at, names, rotation=0 if max(map(len, classes)) < 8 else 60)
    axis.set(xlim=(-0.6, len(classes) - 0.4), ylim=(0, 1.0))
    axis.grid(False, axis="x")
    axis.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1, decimals=0))
    if len(values) > 1:
        figure.legend(loc="outside lower center", ncols=len(values))
    return figure
