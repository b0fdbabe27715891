"""Values over steps, settings and shares."""
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator, PercentFormatter

from sslkit.lessons.plots.figure import COLORS, INK, PALE, PERCENT, Figure, class_colors, new, styled

Lines = Mapping[str, tuple[Sequence, Sequence]]      # name -> (x (n,), y (n,))


@styled
def curves(lines: Lines, ylabel: str, *, title: str = "", xlabel: str = "step", percent: bool = True,
           shaded: Lines | None = None) -> Figure:
    """Values over steps, a line for each name, those in `shaded` as filled areas behind; fractions if `percent`."""
    figure, axis = new(7, 3.4, f"{ylabel or title} by {xlabel}: " + ", ".join([*lines, *(shaded or {})]))
    for name, (x, y) in (shaded or {}).items():
        axis.fill_between(x, y, color=PALE, alpha=0.35, linewidth=0)
        axis.plot(x, y, color="#999999", linewidth=1, label=name)
    for name, (x, y) in lines.items():
        axis.plot(x, y, label=name)
    if percent:
        axis.yaxis.set_major_formatter(PERCENT)
    axis.set(xlabel=xlabel, ylabel=ylabel, title=title)
    axis.legend(loc="best")
    return figure


@styled
def panels(lines: Mapping[str, Lines], *, xlabel: str = "step", low: float | None = None) -> Figure:
    """Small multiples with one scale: title -> name -> (steps, fractions). A name has the same colour in each panel.
    low: where y begins; by default so that the last three quarters of every line are seen."""
    if low is None:
        late = [y[len(y) // 4:] for group in lines.values() for _, y in group.values()]
        low = np.nanmin(np.concatenate([*late, [1.0]])) - 0.03
    alt = "; ".join(f"{title}: {', '.join(group)}" for title, group in lines.items())
    figure, axes = new(3.1 * len(lines), 3.0, alt, 1, len(lines), sharey=True, squeeze=False)
    for axis, (title, group) in zip(axes.flat, lines.items()):
        for name, (x, y) in group.items():
            axis.plot(x, y, label=name)
        axis.set(title=title, xlabel=xlabel, ylim=(low, 1.01))
        axis.yaxis.set_major_formatter(PERCENT)
    axes.flat[-1].legend(handles=max((axis.lines for axis in axes.flat), key=len), loc="lower right")
    return figure


@styled
def coverage(confidence, right, tau: float, *, chosen=None, name: str = "") -> Figure:
    """Left: confidences (n,), in [0, 1], of right and wrong pseudo-labels, cut at tau. Right: accuracy by share kept; a
    dot marks tau, a diamond the rows that another rule, `name`, has chosen. right, chosen: (n,) bool."""
    confidence, right = np.asarray(confidence, float), np.asarray(right, bool)
    kept, wrong = confidence >= tau, ~right
    alt = f"confidences, and accuracy against coverage, tau {tau:g}" + (f", {name}" if name else "")
    figure, (left, curve) = new(9, 3.3, alt, 1, 2)
    each, bins = [confidence[right], confidence[wrong]], np.linspace(0, 1, 41)
    left.hist(each, bins, color=(COLORS[2], COLORS[5]), label=["right", "wrong"])
    left.set_yscale("symlog", linthresh=10)
    left.axvline(tau, color=INK, linewidth=1.5)
    left.axvspan(0, tau, color="white", alpha=0.6)
    left.set(title="confidence of each pseudo-label", xlabel="max p(a(u))", ylabel="images", xlim=(0, 1.01))
    left.legend(loc="upper left")
    count = np.arange(1, len(confidence) + 1)
    accuracy = np.cumsum(right[np.argsort(-confidence, kind="stable")]) / count
    curve.plot(count / len(count), accuracy, color=COLORS[0])
    if kept.any():
        curve.plot(kept.mean(), right[kept].mean(), "o", color=COLORS[5], markersize=9)
    if chosen is None:
        curve.set_title(f"tau {tau:.3f}: {kept.sum():,} of {len(kept):,} kept, {(kept & wrong).sum():,} of them wrong")
    else:
        chosen = np.asarray(chosen, bool)
        curve.set_title(f"tau {tau:.2f}: {kept.sum():,} kept, {(kept & wrong).sum():,} wrong; "
                        f"{name}: {chosen.sum():,}, {(chosen & wrong).sum():,} wrong", fontsize=9)
        if chosen.any():
            curve.plot(chosen.mean(), right[chosen].mean(), "D", color=COLORS[2], markersize=8, label=name)
            curve.legend(loc="lower left")
    curve.set(xlabel="share kept (coverage)", ylabel="accuracy of the kept")
    curve.set(xlim=(0, 1.02), ylim=(accuracy.min() - 0.02, 1.005))
    curve.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    curve.xaxis.set_major_formatter(PERCENT)
    curve.yaxis.set_major_formatter(PERCENT)
    return figure


@styled
def spread(values: Mapping, xlabel: str, *, title: str = "", limits: tuple[float, float] | None = None,
           beside: tuple[str, Mapping[float, float]] | None = None) -> Figure:
    """Accuracy over a setting: x -> a fraction for each seed, drawn as dots, their mean and standard deviation (n - 1).
    Or name -> x -> fractions, all with the same x: one colour a name. The x are numbers or names, evenly spaced.
    limits: of the y axis. beside: a title, and x -> one fraction, in a second panel with a scale of its own."""
    alt = (title or "accuracy") + (f" by {xlabel}" if xlabel else "") + (f"; beside it {beside[0]}" if beside else "")
    n = 2 if beside else 1
    figure, ((axis, *other),) = new(5 + 2 * n, 3.4, alt, 1, n, squeeze=False, width_ratios=(1.7, 1)[:n])
    if not values:
        figure.alt += ": nothing yet"
        axis.set(title=title, xticks=[], yticks=[])
        axis.text(0.5, 0.5, "nothing yet", ha="center", va="center", fontsize=12, color="#888888")
        return figure
    groups = values if isinstance(next(iter(values.values())), Mapping) else {"": values}
    xs = list(next(iter(groups.values())))
    several = any(len(seeds) > 1 for group in groups.values() for seeds in group.values())
    names = [x if isinstance(x, str) else f"{x:g}" for x in xs]
    for g, (name, group) in enumerate(groups.items()):
        at = np.arange(len(xs)) + 0.09 * (2 * g - len(groups) + 1)
        for place, x in zip(at, xs):
            axis.plot([place] * len(group[x]), group[x], "o", color=COLORS[g], alpha=0.35, markersize=5)
        means = [np.mean(group[x]) for x in xs]
        stds = [np.std(group[x], ddof=1) if len(group[x]) > 1 else 0.0 for x in xs] if several else None
        axis.errorbar(at, means, stds, color=COLORS[g], capsize=3, marker="o", linestyle="none" if names == xs else "-",
                      label=name or ("mean and std, dots: seeds" if several else "one seed"))
    axis.set(title=title, ylim=limits)
    axis.legend(loc="best")
    if beside:
        at = [xs.index(x) for x in beside[1]]
        other[0].plot(at, list(beside[1].values()), "D--", color=COLORS[5], linewidth=1, markersize=7)
        other[0].set(title=beside[0], ymargin=0.5)
    for each in (axis, *other):
        each.set(xlabel=xlabel, xlim=(-0.4, len(xs) - 0.6))
        each.set_xticks(range(len(xs)), names)
        each.yaxis.set_major_formatter(PercentFormatter(1))
    return figure


@styled
def growth(ratios: Lines, classes: Sequence[str]) -> Figure:
    """How far each class has grown while rows were labelled: title -> (share labelled (m,), growth (m, C)), as
    class_growth() computes them. A class is named where its line ends above 1.5."""
    alt = "growth of each class: " + ", ".join(ratios)
    figure, axes = new(3.1 * len(ratios), 3.2, alt, 1, len(ratios), squeeze=False, sharey=True)
    for axis, (title, (share, ratio)) in zip(axes.flat, ratios.items()):
        axis.axhline(1, color=INK, linewidth=1, linestyle=":")
        for name, color, line in zip(classes, class_colors(len(classes)), np.asarray(ratio).T):
            axis.plot(share, line, color=color, linewidth=1.5)
            if line[-1] > 1.5:
                axis.text(1.02, line[-1], name, color=color, fontweight="bold", va="center")
        axis.set(title=title, xlabel="share of the images labelled", xlim=(0, 1.1))
        axis.xaxis.set_major_formatter(PERCENT)
    axes[0, 0].set_ylabel("images, as a multiple of\nthe given labels' share")
    return figure
