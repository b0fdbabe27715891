"""Splits: the same on every machine, balanced or with a long tail; counts that cannot be had are refused."""
from dataclasses import replace

import numpy as np
import pytest
import torch

from sslkit.data.dataset import SSLData
from sslkit.data.sources import load
from sslkit.data.split import long_tail, split
from sslkit.errors import InputError


@pytest.fixture(scope="module")
def digits() -> SSLData:
    return load("digits")


def test_a_split_has_as_many_of_each_class(digits):
    for labels in (10, 40, 250, 1340):
        data = split(digits, labels, 3)
        assert data.num_labeled == labels == len(set(data.labeled.tolist())) and data.seed == 3
        assert data.y[data.labeled].bincount().tolist() == [labels // 10] * 10
        assert data.unlabeled.tolist() == list(range(1397))
        assert data.labeled.dtype == data.unlabeled.dtype == torch.int64


def test_a_seed_draws_the_same_rows_on_every_machine(digits):
    assert split(digits, 20, 1).labeled.tolist() == [333, 348, 258, 1057, 978, 54, 1103, 727, 14, 395,
                                                     319, 870, 1058, 828, 1080, 90, 279, 958, 74, 1007]
    assert split(digits, 20, 1).hash == "eb53a8a5bcc25205"
    data = split(digits, 20, 7, include_labeled=False, validation=100)
    assert data.labeled.tolist()[:10] == [891, 250, 418, 466, 808, 35, 1069, 990, 570, 1080]
    assert data.hash == "e8abbb5ec67ee155"


def test_the_rows_are_the_first_of_each_class_in_a_shuffle_by_the_seed(digits):
    rng, y = np.random.RandomState(5), digits.y.numpy()
    want = [rng.permutation(np.flatnonzero(y == c))[:4].tolist() for c in range(10)]
    assert sorted(split(digits, 40, 5).labeled.tolist()) == sorted(sum(want, []))


def test_fewer_labels_are_the_first_of_more(digits):
    rows = split(digits, 400, 2).labeled.tolist()
    for labels in (10, 40, 100):
        assert split(digits, labels, 2).labeled.tolist() == rows[:labels]


def test_seeds_draw_different_rows_and_share_the_test_set(digits):
    draws = [split(digits, 40, seed) for seed in range(5)]
    assert len({tuple(sorted(data.labeled.tolist())) for data in draws}) == len({data.hash for data in draws}) == 5
    assert all(torch.equal(data.test_images, digits.test_images) for data in draws)


def test_labelled_rows_can_be_left_out_of_the_unlabelled(digits):
    data = split(digits, 40, include_labeled=False)
    assert data.num_unlabeled == 1357 and data.unlabeled.tolist() == sorted(data.unlabeled.tolist())
    assert not set(data.unlabeled.tolist()) & set(data.labeled.tolist())
    assert torch.equal(data.labeled, split(digits, 40).labeled)


@pytest.mark.parametrize("count", [10, 100, 105, 1330])
def test_validation_rows_leave_the_training_set_for_the_test_sets_place(digits, count):
    data = split(digits, 10, 1, validation=count)
    assert len(data.images) == len(data.y) == data.num_unlabeled == 1397 - count
    assert torch.equal(data.test_images, digits.images[data.validation])
    assert torch.equal(data.test_y, digits.y[data.validation])
    each = data.test_y.bincount(minlength=10)
    assert int(each.sum()) == len(set(data.validation.tolist())) == count and int(each.max() - each.min()) <= 1
    rest = np.delete(np.arange(1397), data.validation.numpy())
    assert torch.equal(data.images, digits.images[rest]) and torch.equal(data.y, digits.y[rest])
    assert data.y[data.labeled].tolist() == list(range(10))
    assert torch.equal(split(digits, 10, 5, validation=count).validation, data.validation)     # whatever the seed


def test_rows_without_a_label_are_never_drawn_nor_held_out(digits):
    y = digits.y.clone()
    y[::2] = -1
    data = split(replace(digits, y=y), 500, validation=50)
    assert (data.y[data.labeled] >= 0).all() and (data.test_y >= 0).all() and data.num_unlabeled == 1347
    with pytest.raises(InputError, match="at most"):
        split(replace(digits, y=y), 1340)


def test_the_hash_is_of_content_and_protocol(digits):
    first = split(digits, 40, 1)
    others = [split(digits, 20, 1), split(digits, 40, 2), split(digits, 40, 1, include_labeled=False),
              split(digits, 40, 1, validation=100), split(digits, 40, 1, validation=110), digits,
              replace(first, labeled=first.labeled.flip(0)), split(replace(digits, digest="f" * 64), 40, 1)]
    assert len({data.hash for data in [first, *others]}) == 9
    assert all(len(data.hash) == 16 and int(data.hash, 16) >= 0 for data in others)
    assert first.hash == split(load("digits"), 40, 1).hash == replace(first, name="other", info={"x": 1}).hash
    assert split(split(digits, 40, 1), 20, 2).hash == split(digits, 20, 2).hash


def test_a_split_can_be_drawn_again_from_what_was_held_out(digits):
    once = split(digits, 20, 4, validation=100)
    assert split(split(digits, 40, 1, validation=100), 20, 4).hash == once.hash
    with pytest.raises(InputError, match="100 training rows are the test set already"):
        split(once, 20, validation=50)


REFUSED = [
    ({"labels": 0}, "labels must be above 0, not 0: at least 10, one for each class"),
    ({"labels": -40}, "labels must be above 0, not -40"),
    ({"labels": 25}, "labels must be a multiple of the 10 classes.*25 is not; nearest: 20 or 30"),
    ({"labels": 5}, "5 is not; nearest: 10$"),
    ({"labels": 1345}, "1345 is not; nearest: 1340$"),
    ({"labels": 1350}, "1350 labels are 135 for each of 10 classes.*smallest class has 134 .*at most 1340"),
    ({"labels": 40.0}, "labels must be a whole number, not 40.0"),
    ({"labels": "40"}, "labels must be a whole number, not '40'"),
    ({"labels": True}, "labels must be a whole number, not True"),
    ({"labels": None}, "labels must be a whole number, not None"),
    ({"labels": 40, "seed": -1}, "seed must be from 0 to 4294967295, not -1"),
    ({"labels": 40, "seed": 2**32}, "seed must be from 0"),
    ({"labels": 40, "seed": 0.5}, "seed must be a whole number, not 0.5"),
    ({"labels": 40, "validation": -10}, "validation must be from 0 to 1330, not -10"),
    ({"labels": 40, "validation": 1331}, "validation must be from 0 to 1330, not 1331.*has 134 training images"),
    ({"labels": 40, "validation": 0.1}, "validation must be a whole number, not 0.1"),
    ({"labels": 1340, "validation": 100}, "1340 labels are 134 for each.*smallest class has 124"),
]


@pytest.mark.parametrize("how, message", REFUSED)
def test_counts_that_cannot_be_had_are_refused(digits, how, message):
    with pytest.raises(InputError, match=message):
        split(digits, **how)


def test_numpy_integers_are_whole_numbers(digits):
    assert split(digits, np.int64(40), np.int32(1)).hash == split(digits, 40, 1).hash


# The long tail

def test_a_long_tail_is_the_papers():
    assert long_tail(1500, 50, 10).tolist() == [1500, 971, 628, 407, 263, 170, 110, 71, 46, 30]
    assert long_tail(3000, 50, 10)[-1] == 60 and long_tail(150, 10, 100)[[0, -1]].tolist() == [150, 15]
    assert long_tail(5000, 100, 10).tolist() == [int(5000 * 100 ** (-c / 9) + 1e-6) for c in range(10)]
    assert long_tail(300, -20, 10).tolist() == long_tail(300, 20, 10).tolist()[::-1]
    assert long_tail(7, 1, 3).tolist() == [7, 7, 7]


@pytest.mark.parametrize("factor", [1.7, 20, 50, -20, 1000])
@pytest.mark.parametrize("labels", [10, 20, 47])
def test_labels_have_a_long_tail_and_every_class_one(digits, factor, labels):
    data = split(digits, labels, 3, imbalance=factor)
    labeled, unlabeled = data.counts()
    assert sum(labeled) == data.num_labeled == labels and min(labeled) >= 1 and data.imbalance == (factor, factor)
    if factor < 0:
        labeled, unlabeled = labeled[::-1], unlabeled[::-1]
    assert labeled == sorted(labeled, reverse=True) and unlabeled == sorted(unlabeled, reverse=True)
    n_max = [n for n in np.arange(1, 60, 0.01) if np.maximum(long_tail(n, abs(factor), 10), 1).tolist() == labeled]
    assert n_max, "they are max(1, long_tail(n)) for some n"
    rest = [u - n for u, n in zip(unlabeled, labeled)]
    m_max = [n for n in np.arange(max(rest), max(rest) + 1, 0.01) if long_tail(n, abs(factor), 10).tolist() == rest]
    assert m_max, "so are the unlabelled, the labelled among them not counted"
    sizes = digits.y.bincount().tolist()[::-1 if factor < 0 else 1]
    step = long_tail(2, abs(factor), 10).max()
    assert any(u + step >= size for u, size in zip(unlabeled, sizes)), "as many as there are"


def test_images_in_neither_part_leave_the_data(digits):
    data = split(digits, 20, 1, imbalance=20)
    assert len(data.images) == len(data.y) == data.num_unlabeled == sum(data.counts()[1]) < 1397
    assert sorted(set(data.unlabeled.tolist())) == list(range(len(data.images)))
    assert len(data.left_out) + len(data.images) == 1397
    stay = np.setdiff1d(np.arange(1397), data.left_out.numpy())
    assert torch.equal(data.images, digits.images[stay]) and torch.equal(data.y, digits.y[stay])
    assert torch.equal(data.test_images, digits.test_images)
    plain = split(digits, 20, 1)
    first = [int(stay[row]) for row in data.labeled[:10]]
    assert first == plain.labeled[:10].tolist(), "the same first image of each class as without a long tail"


def test_labelled_and_unlabelled_have_a_factor_each(digits):
    data = split(digits, 20, 1, imbalance=20, unlabeled_imbalance=-5)
    labeled, unlabeled = data.counts()
    assert labeled == split(digits, 20, 1, imbalance=20).counts()[0] and unlabeled[-1] > 4 * unlabeled[0]
    even = split(digits, 20, 1, unlabeled_imbalance=50)
    assert even.counts()[0] == [2] * 10 and even.imbalance == (1, 50)
    assert even.counts()[1][0] > 20 * even.counts()[1][-1]
    rest = split(digits, 20, 1, imbalance=20, unlabeled_imbalance=1)
    assert rest.counts()[1] == digits.y.bincount().tolist() and rest.left_out is None, "a factor of 1 drops nothing"
    apart = split(digits, 20, 1, imbalance=20, include_labeled=False)
    both = split(digits, 20, 1, imbalance=20)
    assert [u + n for u, n in zip(*apart.counts())] == both.counts()[1] and len(apart.images) == len(both.images)


def test_the_number_of_unlabelled_images_can_be_chosen(digits):
    assert split(digits, 20, 1, unlabeled=400).counts()[1] == [42] * 10
    data = split(digits, 20, 1, imbalance=20, unlabeled=200, include_labeled=False)
    assert data.num_unlabeled == 200 and data.counts()[1] == sorted(data.counts()[1], reverse=True)


def test_head_middle_and_tail(digits):
    assert split(digits, 20).groups == {} == split(digits, 20, imbalance=-1).groups
    assert split(digits, 20, imbalance=-1).hash == split(digits, 20).hash
    assert split(digits, 20, imbalance=np.int64(20)).num_labeled == 20
    assert split(digits, 20, imbalance=20).groups == {"head": [0, 1, 2], "middle": [3, 4, 5, 6], "tail": [7, 8, 9]}
    assert split(digits, 20, imbalance=-20).groups == {"head": [7, 8, 9], "middle": [3, 4, 5, 6], "tail": [0, 1, 2]}
    assert split(digits, 20, imbalance=20, unlabeled_imbalance=-20).groups["head"] == [0, 1, 2]
    assert split(digits, 20, unlabeled_imbalance=-20).groups["head"] == [7, 8, 9]
    two = replace(digits, y=digits.y % 2, classes=("even", "odd"))
    assert split(two, 20, imbalance=4).groups == {"head": [0], "tail": [1]}


def test_images_of_no_known_class_stay(digits):
    y = digits.y.clone()
    y[::2] = -1
    data = split(replace(digits, y=y), 20, 1, imbalance=10)
    assert int((data.y < 0).sum()) == int((y < 0).sum()) and data.counts()[1][0] > 5 * data.counts()[1][-1]
    with pytest.raises(InputError, match="699 images are of no known class"):
        split(replace(digits, y=y), 20, 1, imbalance=10, unlabeled=100)


def test_a_long_tail_of_held_out_data(digits):
    data = split(digits, 20, 1, imbalance=20, validation=200)
    assert len(data.test_y) == 200 and data.test_y.bincount().tolist() == [20] * 10 and data.counts()[0][0] > 3


def test_a_hundred_classes(digits):
    many = replace(digits, y=torch.arange(1397) % 100, classes=tuple(map(str, range(100))))
    data = split(many, 300, 0, imbalance=10)
    assert sum(data.counts()[0]) == 300 and [len(part) for part in data.groups.values()] == [33, 34, 33]


def test_the_hash_knows_the_long_tail(digits):
    every = [split(digits, 20, 1, **how) for how in (
        {}, {"imbalance": 20}, {"imbalance": -20}, {"imbalance": 20, "unlabeled_imbalance": 1}, {"unlabeled": 400},
        {"imbalance": 20, "include_labeled": False}, {"imbalance": 20, "unlabeled_imbalance": 30})]
    assert len({data.hash for data in every}) == 7
    assert split(load("digits"), 20, 1, imbalance=20).hash == every[1].hash
    moved = every[1].to("cpu")
    assert moved.hash == every[1].hash and moved.left_out is not None


@pytest.mark.parametrize("how, message", [
    ({"imbalance": 0.5}, "imbalance is 0.5, it must be 1 or more"), ({"imbalance": float("nan")}, "imbalance is nan"),
    ({"imbalance": float("inf")}, "imbalance is inf"), ({"imbalance": "x"}, "imbalance is 'x'"),
    ({"imbalance": 0}, "imbalance is 0"), ({"unlabeled_imbalance": 0.1}, "unlabeled_imbalance is 0.1"),
    ({"labels": 9, "imbalance": 20}, "at least 10, one for each class, not 9"),
    ({"labels": 1000, "imbalance": 20}, "need 295 images of class '0', which has 138"),
    # The first class and the last grow together.
    ({"imbalance": 1.5}, "there cannot be 20 labels with imbalance 1.5; nearest: 19 or 21"),
    ({"unlabeled": 0}, "unlabeled must be from 1 to 1,320"),
    ({"unlabeled": 10**6}, "unlabeled must be from 1 to 1,320, not 1,000,000: the data has no more"),
    ({"unlabeled": 405}, "there cannot be 405 unlabelled images with factor 1; nearest: 400 or 410"),
    ({"unlabeled": 1.5}, "whole number, not 1.5")])
def test_a_long_tail_that_cannot_be_had_is_refused(digits, how, message):
    with pytest.raises(InputError, match=message):
        split(digits, **{"labels": 20, "seed": 1, **how})


def test_a_long_tail_is_not_split_again(digits):
    with pytest.raises(InputError, match="split the data as loaded"):
        split(split(digits, 20, 1, imbalance=20), 20, 2)
