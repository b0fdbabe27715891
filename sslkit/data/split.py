"""Which images carry labels: split(), balanced or with a long tail.

The protocol is that of Oliver et al. 2018 (arXiv:1804.09170), as FixMatch uses it (Sohn et al. 2020, arXiv:2001.07685).
"""
import math
from collections.abc import Sequence
from dataclasses import replace
from numbers import Real

import numpy as np
import torch
from torch import Tensor

from sslkit.data.dataset import SSLData, picked, rows_by_class
from sslkit.data.lists import rows_of
from sslkit.errors import require
from sslkit.files import digest


def split(data: SSLData, labels: int | None = None, seed: int = 0, *, include_labeled: bool = True, validation: int = 0,
          imbalance: float = 1.0, unlabeled_imbalance: float | None = None, unlabeled: int | None = None,
          labeled: Sequence[str] | Sequence[int] | Tensor | None = None) -> SSLData:
    """`data` with `labels` labelled rows, labels / C of each class, drawn by `seed`: sets .labeled and .unlabeled.

    `labeled`, in place of `labels`, names the labelled rows themselves, by their numbers or their image files (see
    lists.rows_of); validation rows are then drawn from the others, and `seed` draws rows for `unlabeled` alone.

    The labelled rows are among the unlabelled ones too, unless `include_labeled` is False. `validation` > 0 replaces
    the test set by as many training rows, spread evenly over the classes and the same for every seed: settings can
    then be chosen without looking at the test set.

    `imbalance` F makes a long tail (see long_tail()): the first class has F times as many labelled images as the last;
    with -F, the last has F times as many as the first. Every class keeps at least one (our rule). `unlabeled_imbalance`
    is the factor of the unlabelled images (default: the same). `unlabeled` is their number, without the labelled ones
    among them (default: as many as the data has). Images in neither part leave the data, except those of unknown class.
    data.info stays that of all rows as loaded. Raises InputError for counts that are not possible, for data without
    classes, and as rows_of().
    """
    require(data.num_classes > 0, f"{data.name} has no classes: label some pictures first, either by putting them into "
            "the train/CLASS/ and test/CLASS/ of a folder:PATH, or with `sslkit embed` and `sslkit label`")
    for what, value in (("labels", labels), ("seed", seed), ("validation", validation), ("unlabeled", unlabeled)):
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        free = what == "unlabeled" or what == "labels" and labeled is not None
        require(whole or free and value is None, f"{what} must be a whole number, not {value!r}")
    unlabeled_imbalance = imbalance if unlabeled_imbalance is None else unlabeled_imbalance
    for what, factor in (("imbalance", imbalance), ("unlabeled_imbalance", unlabeled_imbalance)):
        require(isinstance(factor, Real) and math.isfinite(factor) and abs(factor) >= 1,
                f"{what} is {factor!r}, it must be 1 or more (images of the first class for each of the last) or, "
                "for the reverse, -1 or less")
    factors = tuple(1.0 if factor == -1 else float(factor) for factor in (imbalance, unlabeled_imbalance))
    require(0 <= seed < 2**32, f"seed must be from 0 to {2**32 - 1}, not {seed}")
    require(data.left_out is None, "this data was split with a long tail already: split the data as loaded instead")
    require(labeled is None or labels is None and factors[0] == 1,
            "labeled names the labelled images: leave out labels and imbalance")
    listed, list_digest = None, None
    if labeled is not None:
        listed = rows_of(labeled, data)
        list_digest = digest(list(labeled) if isinstance(labeled[0], str) else listed.tolist())
    if validation:
        data = _hold_out(data, int(validation), listed)
        listed = listed if listed is None else listed - np.searchsorted(data.validation.cpu().numpy(), listed)
    y = data.y.cpu().numpy()
    unknown = np.flatnonzero(y < 0)
    require(unlabeled is None or len(unknown) == 0,
            f"{len(unknown):,} images are of no known class, so their number cannot be chosen: leave out unlabeled")
    of_class = rows_by_class(y, data.num_classes, np.random.RandomState(seed))
    chosen = _choose_labeled(of_class, int(labels), factors[0], data.classes) if listed is None else listed
    free = np.bincount(chosen, minlength=len(y)) == 0
    rest = [rows[free[rows]] for rows in of_class]
    others = np.union1d(unknown, _choose_unlabeled(rest, unlabeled, factors[1]))
    stay = np.union1d(chosen, others)
    if len(stay) < len(y):
        data = _drop(data, np.setdiff1d(np.arange(len(y)), stay), "left_out")
    chosen, others = (torch.from_numpy(np.searchsorted(stay, rows)).to(data.y.device)      # their new numbers
                      for rows in (chosen, stay if include_labeled else others))
    return replace(data, labeled=chosen, unlabeled=others, seed=int(seed), imbalance=factors, labeled_list=list_digest,
                   unlabeled_asked=None if unlabeled is None else int(unlabeled))


def long_tail(n_max: float, factor: float, num_classes: int) -> np.ndarray:
    """Images of each class, (C,) int64: floor(n_max F^(-c / (C-1))), for the last floor(n_max / F); -F reverses them.

    As in Cui et al. 2019 (arXiv:1901.05555) and the long-tailed protocols since. With 1,500 images of the first of ten
    classes and factor 50 there are sum(long_tail(1500, 50, 10)) = 4,196 in all.
    """
    share = abs(factor) ** -np.linspace(0, 1, num_classes)
    counts = np.floor(n_max * share * (1 + 1e-12)).astype(np.int64)     # 3000 / 50 is 60, despite rounding
    return counts[::-1] if factor < 0 else counts


def _choose_labeled(of_class: list[np.ndarray], labels: int, factor: float, classes: Sequence[str]) -> np.ndarray:
    """`labels` rows, the first of each class in `of_class`, C arrays. InputError if a class has too few."""
    sizes, num_classes = np.array([len(rows) for rows in of_class]), len(of_class)
    require(labels > 0, f"labels must be above 0, not {labels}: at least {num_classes}, one for each class")
    if factor == 1:
        (each, rest), most = divmod(labels, num_classes), sizes.min()
        near = [str(num_classes * n) for n in (each, each + 1) if 0 < n <= most] or [str(num_classes * most)]
        require(rest == 0, f"labels must be a multiple of the {num_classes} classes, as many for each, and {labels} is "
                           f"not; nearest: {' or '.join(near)}")
        require(each <= most, f"{labels} labels are {each} for each of {num_classes} classes, but the smallest class "
                              f"has {most} training images: at most {num_classes * most}")
        counts = np.full(num_classes, each)
    else:
        require(labels >= num_classes, f"labels must be at least {num_classes}, one for each class, not {labels}")
        counts = _with_sum(labels, factor, num_classes, least=1, what=f"labels with imbalance {factor:g}")
        worst = int((counts - sizes).argmax())
        require(counts[worst] <= sizes[worst], f"{labels} labels with imbalance {factor:g} need {counts[worst]} images "
                                               f"of class {classes[worst]!r}, which has {sizes[worst]}: take fewer")
    # The classes take turns, so that the 20 labelled rows of a seed are the first 20 of its 40.
    return np.array([rows[turn] for turn in range(max(counts)) for rows, n in zip(of_class, counts) if turn < n])


def _choose_unlabeled(of_class: list[np.ndarray], total: int | None, factor: float) -> np.ndarray:
    """`total` rows, the first of each class in `of_class`, or as many as there are. InputError if there are too few."""
    sizes, num_classes = np.array([len(rows) for rows in of_class]), len(of_class)
    if total is None and factor == 1:
        return np.concatenate(of_class)
    share = abs(factor) ** -np.linspace(0, 1, num_classes)[::-1 if factor < 0 else 1]
    counts = long_tail((sizes / share).min(), factor, num_classes)
    if total is not None:
        most = counts.sum()
        require(0 < total <= most, f"unlabeled must be from 1 to {most:,}, not {total:,}: the data has no more")
        counts = _with_sum(total, factor, num_classes, least=0, what=f"unlabelled images with factor {factor:g}")
    return np.concatenate([rows[:n] for rows, n in zip(of_class, counts)])


def _with_sum(total: int, factor: float, num_classes: int, least: int, what: str) -> np.ndarray:
    """The long tail of `total` images, (C,), `least` or more of each class. InputError if no n_max gives that sum."""
    def counts(n_max: float) -> np.ndarray:
        return np.maximum(long_tail(n_max, factor, num_classes), least)

    low, high = 0.0, float(total + 1)
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if counts(middle).sum() <= total else (low, middle)
    under, over = counts(low).sum(), counts(high).sum()
    require(under == total, f"there cannot be {total:,} {what}; nearest: {under:,} or {over:,}")
    return counts(low)


def _drop(data: SSLData, out: np.ndarray, field: str) -> SSLData:
    """`data` without the training rows `out`, which are noted in its `field`."""
    out, stay = (torch.from_numpy(r).to(data.y.device) for r in (out, np.delete(np.arange(len(data.y)), out)))
    features = data.features and data.features.at(stay)
    return replace(data, images=picked(data.images, stay), y=data.y[stay], features=features, **{field: out})


def _hold_out(data: SSLData, count: int, listed: np.ndarray | None) -> SSLData:
    """`data` with `count` training rows, none of them `listed`, in place of the test set."""
    done = len(data.validation)
    require(done == 0, f"{done} training rows are the test set already: split the data as loaded instead")
    y, num_classes = data.y.cpu().numpy().copy(), data.num_classes
    if listed is not None:
        y[listed] = -1
    most = num_classes * (int(np.bincount(y[y >= 0], minlength=num_classes).min()) - 1)
    require(0 < count <= most, f"validation must be from 0 to {most}, not {count}: each of {num_classes} classes gives "
                               f"as many and keeps one, and the smallest has {most // num_classes + 1} training images")
    rng = np.random.RandomState(20)     # fixed, so that every seed is judged by the same rows
    each, rest = divmod(count, num_classes)
    more = set(rng.permutation(num_classes)[:rest].tolist())
    out = np.sort(np.concatenate([r[:each + (c in more)] for c, r in enumerate(rows_by_class(y, num_classes, rng))]))
    kept = _drop(data, out, "validation")
    features = data.features and kept.features.tested_on(data.features.rows["plain"][kept.validation.cpu()])
    return replace(kept, test_images=picked(data.images, kept.validation), test_y=data.y[kept.validation],
                   features=features)
