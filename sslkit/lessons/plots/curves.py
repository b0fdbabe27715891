"""Values over steps, settings and shares."""
from collections.abc import Mapping, Sequence

import matplotlib
import matplotlib.patheffects
import matplotlib.ticker
import numpy as np

from sslkit.lessons.plots.figure import COLORS, INK, PALE, Figure, new, styled


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
