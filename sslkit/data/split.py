"""Which images carry labels: split(), balanced or with a long tail.

    data = split(load("digits"), labels=40, seed=1)

The protocol is Oliver et al. 2018 (arXiv:1804.09170) as used by FixMatch (Sohn et al. 2020, arXiv:2001.07685).
"""
import math
from dataclasses import replace
from numbers import Real

import numpy as np
import torch

from sslkit.data.dataset import SSLData, rows_by_class
from sslkit.errors import require


def split(data: SSLData, labels: int, seed: int = 0, *, include_labeled: bool = True, validation: int = 0, imbalance: float = 1.0,
          unlabeled_imbalance: float | None = None, unlabeled: int | None = None) -> SSLData:
    """`data` with `labels` labelled rows in all, labels / C a class, drawn by `seed`: sets .labeled and .unlabeled.

    The labelled rows are among the unlabelled ones too, unless `include_labeled` is False. `validation` > 0 takes as
    many rows, spread evenly over the classes and the same for every seed, from the training set into the test set's
    place: for choosing settings without a look at the test set.

    `imbalance` F makes a long tail (see long_tail()): the first class has F times as many labelled images as the last, and with -F the
    last as many times the first. No class is left without one (ours). `unlabeled_imbalance` is the unlabelled images' factor (default: the
    same), `unlabeled` their number, the labelled among them not counted (default: as many as the data has). Images that are in neither
    leave the data; those whose class is not known stay. Raises InputError for counts that cannot be had.
    """
    for what, value in (("labels", labels), ("seed", seed), ("validation", validation), ("unlabeled", unlabeled)):
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        require(whole or what == "unlabeled" and value is None, f"{what} must be a whole number, not {value!r}")
    given = (imbalance, imbalance if unlabeled_imbalance is None else unlabeled_imbalance)
    factors = tuple(1.0 if factor == -1 else factor for factor in given)
    for what, factor in zip(("imbalance", "unlabeled_imbalance"), factors):
        require(isinstance(factor, Real) and math.isfinite(factor) and abs(factor) >= 1,
                f"{what} is {factor!r}, it must be 1 or more, as often as the largest class outnumbers the smallest, or -1 or less for "
                "the last class to be the largest")
    require(0 <= seed < 2**32, f"seed must be from 0 to {2**32 - 1}, not {seed}")
    require(data.left_out is None, "images left this data for its long tail already: split the data as loaded")
    if validation:
        data = _hold_out(data, int(validation))
    y, num_classes = data.y.cpu().numpy(), data.num_classes
    of_class = rows_by_class(y, num_classes, np.random.RandomState(seed))
    sizes = np.array([len(rows) for rows in of_class])
    count = _labeled_counts(int(labels), float(factors[0]), sizes, data.classes)
    # The classes take turns, so that the 20 labelled rows of a seed are the first 20 of its 40.
    turn, c = np.concatenate([np.arange(n) for n in count]), np.repeat(np.arange(num_classes), count)
    rows = np.concatenate([rows[:n] for rows, n in zip(of_class, count)])[np.lexsort((c, turn))]
    rest = sizes - count
    if factors[1] != 1 or unlabeled is not None:
        require(unlabeled is None or bool((y >= 0).all()), f"{(y < 0).sum():,} images are of no known class: the number of "
                "unlabelled images cannot be chosen")
        rest = _unlabeled_counts(unlabeled, float(factors[1]), rest)
    stay = np.sort(np.concatenate([np.flatnonzero(y < 0), *(r[:n + m] for r, n, m in zip(of_class, count, rest))]))
    keep = np.ones(len(y), bool)
    keep[rows] = include_labeled
    device = data.images.device
    if len(stay) < len(y):
        out, there = (torch.from_numpy(r).to(device) for r in (np.setdiff1d(np.arange(len(y)), stay), stay))
        data = replace(data, images=data.images[there], y=data.y[there], left_out=out)
        rows, keep = np.searchsorted(stay, rows), keep[stay]
    labeled, others = (torch.from_numpy(r).to(device) for r in (rows, np.flatnonzero(keep)))
    return replace(data, labeled=labeled, unlabeled=others, seed=int(seed), imbalance=tuple(map(float, factors)),
                   unlabeled_asked=None if unlabeled is None else int(unlabeled))


def long_tail(n_max: float, factor: float, num_classes: int) -> np.ndarray:
    """Images of each class, (C,) int64: floor(n_max F^(-c / (C-1))), the last has floor(n_max / F); a factor -F: in reverse order.

    As in Cui et al. 2019 (arXiv:1901.05555) and the long-tailed protocols since. 1,500 images of the first of ten classes and factor 50
    are sum(long_tail(1500, 50, 10)) = 4,196 in all.
    """
    share = abs(factor) ** -np.linspace(0, 1, num_classes)
    counts = np.floor(n_max * share * (1 + 1e-12)).astype(np.int64)        # 3000 / 50 is 60, whatever the last bit says
    return counts[::-1] if factor < 0 else counts


def _with_sum(total: int, factor: float, num_classes: int, least: int) -> tuple[np.ndarray, np.ndarray]:
    """The long tails of the largest sum up to `total` and of the next, each class with `least` or more."""
    def counts(n_max: float) -> np.ndarray:
        return np.maximum(long_tail(n_max, factor, num_classes), least)

    low, high = 0.0, float(total + 1)
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if counts(middle).sum() <= total else (low, middle)
    return counts(low), counts(high)


def _labeled_counts(labels: int, factor: float, sizes: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
    """Labelled images of each class, (C,), `labels` in all; sizes (C,): what there is. InputError where that cannot be had."""
    num_classes, smallest = len(sizes), int(sizes.min())
    require(labels > 0, f"labels must be above 0, not {labels}: at least {num_classes}, one for each class")
    if factor == 1:
        each, rest = divmod(labels, num_classes)
        near = [str(num_classes * n) for n in (each, each + 1) if 0 < n <= smallest] or [str(num_classes * smallest)]
        require(rest == 0, f"labels must be a multiple of the {num_classes} classes, as many for each, and {labels} is "
                           f"not; nearest: {' or '.join(near)}")
        require(each <= smallest, f"{labels} labels are {each} for each of {num_classes} classes, but the smallest class "
                                  f"has {smallest} training images: at most {num_classes * smallest}")
        return np.full(num_classes, each)
    require(labels >= num_classes, f"labels must be at least {num_classes}, one for each class, not {labels}")
    under, over = _with_sum(labels, factor, num_classes, 1)
    near = " or ".join(str(counts.sum()) for counts in (under, over))
    require(under.sum() == labels, f"with imbalance {factor:g} there cannot be {labels} labels; nearest: {near}")
    worst = int((under - sizes).argmax())
    require(under[worst] <= sizes[worst], f"{labels} labels with imbalance {factor:g} need {under[worst]} images of class "
                                          f"{classes[worst]!r}, which has {sizes[worst]}: take fewer")
    return under


def _unlabeled_counts(total: int | None, factor: float, sizes: np.ndarray) -> np.ndarray:
    """Unlabelled images of each class, (C,), `total` in all or as many as `sizes` (C,) allow. InputError where that cannot be had."""
    num_classes = len(sizes)
    share = abs(factor) ** -np.linspace(0, 1, num_classes)[::-1 if factor < 0 else 1]
    most = long_tail((sizes / share).min(), factor, num_classes)
    if total is None:
        return most
    require(0 < total <= most.sum(), f"unlabeled must be from 1 to {most.sum():,}, not {total:,}: the classes do not have more")
    under, over = _with_sum(total, factor, num_classes, 0)
    near = " or ".join(f"{counts.sum():,}" for counts in (under, over))
    require(under.sum() == total, f"with factor {factor:g} there cannot be {total:,} unlabelled images; nearest: {near}")
    return under


def _hold_out(data: SSLData, count: int) -> SSLData:
    """`data` with `count` training rows in the test set's place."""
    done = len(data.validation)
    require(done == 0, f"{done} rows took the test set's place already: split the data as loaded")
    y, num_classes = data.y.cpu().numpy(), data.num_classes
    most = num_classes * (int(np.bincount(y[y >= 0], minlength=num_classes).min()) - 1)
    require(0 < count <= most, f"validation must be from 0 to {most}, not {count}: each of {num_classes} classes gives "
                               f"as many and keeps one, and the smallest has {most // num_classes + 1} training images")
    rng = np.random.RandomState(20)     # fixed, so that every seed is judged by the same rows
    each, rest = divmod(count, num_classes)
    more = set(rng.permutation(num_classes)[:rest].tolist())
    out = np.sort(np.concatenate([r[:each + (c in more)] for c, r in enumerate(rows_by_class(y, num_classes, rng))]))
    stay = np.delete(np.arange(len(y)), out)
    out, stay = (torch.from_numpy(r).to(data.images.device) for r in (out, stay))
    return replace(data, images=data.images[stay], y=data.y[stay], test_images=data.images[out], test_y=data.y[out],
                   validation=out)
