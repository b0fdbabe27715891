"""HDL against its slow reference, scikit-learn's neighbours and what it must refuse."""
from importlib import import_module

import numpy as np
import pytest
import references_hdl as reference
import torch
from sklearn.neighbors import NearestNeighbors

from sslkit.errors import InputError
from sslkit.labelers.hdl import KS, hdl, one_shot
from sslkit.labelers.neighbors import neighbors, prepared, reverse


def case(seed, labelled=0.3):
    """Embeddings (n, d) in float64 with and without clusters, labels (n,) with some known, and a k."""
    rng = np.random.default_rng(seed)
    n, classes = int(rng.integers(8, 60)), int(rng.integers(2, 5))
    points = rng.normal(size=(n, int(rng.integers(2, 6)))) + (rng.integers(0, 3, (n, 1)) * 4 if seed % 3 == 0 else 0)
    y, known = np.full(n, -1), rng.permutation(n)[:max(classes, int(n * labelled * rng.random()))]
    y[known] = rng.integers(0, classes, len(known))
    return points, y, int(rng.integers(1, min(n - 1, 9) + 1))


both = pytest.mark.parametrize("metric", ["cosine", "euclidean"])


@both
@pytest.mark.parametrize("mode", ["exact", "layer"])
@pytest.mark.parametrize("seed", range(15))                          # rows are copied in five or more of them
def test_labels_order_layers_and_votes_agree_with_the_reference(seed, mode, metric):
    points, y, k = case(seed)
    expected = {"exact": reference.hdl_exact, "layer": reference.hdl_layer}[mode](points, y, k, metric)
    found = hdl(torch.tensor(points), torch.tensor(y), k=k, mode=mode, metric=metric)
    assert np.array_equal(found.label.numpy(), expected["label"])
    for name in ("order", "layer", "votes"):
        assert np.array_equal(found.rows[name].numpy(), expected[name]), name
    copied = (expected["order"] > 0) & (expected["layer"] == 0)
    assert found.info["rounds"] == expected["order"].max() and found.info["copied"] == copied.sum()


@both
@pytest.mark.parametrize("seed", range(10))
def test_the_chosen_k_and_its_curve_agree_with_the_reference(seed, metric):
    points, y, _ = case(seed, labelled=0.8)
    ks = tuple(k for k in KS if k < len(y))
    k, curve = reference.choose_k(points, y, ks, metric)
    found = hdl(torch.tensor(points), torch.tensor(y), metric=metric)
    assert found.info["k"] == min(k, len(y) - 1) and found.info["curve"].keys() == curve.keys()
    assert all(found.info["curve"][k] == pytest.approx(curve[k], abs=1e-12) for k in curve)
    for k, share in found.info["delta"].items():
        assert share == pytest.approx(reference.delta_k(points, y, k, metric), abs=1e-12)


@both
@pytest.mark.parametrize("seed", range(10))
def test_one_shot_agrees_with_the_reference(seed, metric):
    points, y, k = case(seed)
    found = one_shot(torch.tensor(points), torch.tensor(y), k, metric)
    assert np.array_equal(found.label.numpy(), reference.one_shot_knn(points, y, k, metric))


@both
@pytest.mark.parametrize("k", [1, 7, 40])
def test_neighbors_are_scikit_learns(k, metric):
    points = torch.randn(700, 12, generator=torch.Generator().manual_seed(k), dtype=torch.float64)
    index, similarity = neighbors(prepared(points, torch.zeros(700, dtype=torch.int64), metric), k, metric)
    theirs = NearestNeighbors(n_neighbors=k, metric=metric, algorithm="brute").fit(points.numpy())
    distance, expected = theirs.kneighbors()
    assert np.array_equal(index, expected)
    assert np.allclose(similarity, 1 - distance if metric == "cosine" else -distance, atol=1e-6)


def test_equally_near_rows_come_in_their_order():
    points = torch.zeros(40, 2, dtype=torch.float64)
    points[:, 0] = torch.arange(40) % 4                                    # ten rows at each of four places
    index, _ = neighbors(points, 5, "euclidean")
    assert index[0].tolist() == [4, 8, 12, 16, 20] and index[8].tolist() == [0, 4, 12, 16, 20]
    assert index[39].tolist() == [3, 7, 11, 15, 19]
    index, _ = neighbors(points, 11, "euclidean")
    assert index[5].tolist() == [1, 9, 13, 17, 21, 25, 29, 33, 37, 0, 2]   # then the lowest of both sides


def test_reverse_lists_the_rows_that_have_a_row_as_a_neighbour():
    having = reverse(np.array([[1, 3], [0, 3], [3, 1], [1, 0]]), 5)
    assert [rows.tolist() for rows in having] == [[1, 3], [0, 2, 3], [], [0, 1, 2], []]


def test_two_runs_agree_to_the_row_and_single_precision_nearly():
    g = torch.Generator().manual_seed(0)
    truth = torch.randint(5, (3000,), generator=g)
    points = torch.randn(5, 16, generator=g)[truth] * 2.5 + torch.randn(3000, 16, generator=g)
    y = torch.where(torch.arange(3000) < 25, truth, -1)
    a, b, double = hdl(points, y, k=10), hdl(points, y, k=10), hdl(points.double(), y, k=10)
    assert torch.equal(a.label, b.label) and torch.equal(a.rows["order"], b.rows["order"])
    assert (a.label == double.label).float().mean() > 0.99
    assert (a.label == truth).float().mean() > 0.9


def test_given_labels_stay_and_carry_no_order():
    points, y, k = case(1)
    found = hdl(torch.tensor(points), torch.tensor(y), k=k)
    given = torch.tensor(y >= 0)
    assert torch.equal(found.label[given], torch.tensor(y)[given]) and (found.label >= 0).all()
    assert (found.rows["order"][given] == 0).all()
    assert (found.rows["order"][~given] > 0).all() and found.rows["similarity"][given].isnan().all()
    assert found.rows["similarity"][~given].isfinite().all()


def test_progress_is_reported():
    reported = []
    points, y, _ = case(3)
    hdl(torch.tensor(points), torch.tensor(y), progress=lambda done, total, what: reported.append((what, done, total)))
    assert {what for what, _, _ in reported} == {"neighbours:", "neighbourhood sizes tried:", "labelled:"}
    assert all(done <= total for _, done, total in reported) and reported[-1][1] == reported[-1][2]


GOOD, KNOWN = torch.randn(12, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1] + [-1] * 10)


@pytest.mark.parametrize("points, y, options, message", [
    (GOOD.index_fill(0, torch.tensor([4]), float("nan")), KNOWN, {}, "1 embeddings are not finite, the first in row 4"),
    (GOOD.index_fill(0, torch.tensor([7]), float("inf")), KNOWN, {}, "the first in row 7"),
    (GOOD, KNOWN[:5], {}, "12 embeddings do not fit 5 labels"), (GOOD[:, 0], KNOWN, {}, "must be a table"),
    (GOOD, KNOWN - 5, {}, "no row has a label"),
    (GOOD, KNOWN, {"k": 12}, "k is 12, but a row of 12 has only 11 others"),
    (GOOD, KNOWN, {"k": 0}, "k is 0"), (GOOD, KNOWN, {"k": 2.5}, "k is 2.5"), (GOOD, KNOWN, {"k": True}, "k is True"),
    (GOOD, KNOWN, {"mode": "layers"}, "did you mean 'layer'"),
    (GOOD, KNOWN, {"metric": "cosin"}, "did you mean 'cosine'"),
    (GOOD.index_fill(0, torch.tensor([3]), 0.0), KNOWN, {}, "row 3 is a zero vector")])
def test_what_cannot_be_used_is_refused(points, y, options, message):
    with pytest.raises(InputError, match=message):
        hdl(points, y, **options)


def test_a_zero_vector_is_a_point_like_others_under_euclidean():
    assert (hdl(GOOD.index_fill(0, torch.tensor([3]), 0.0), KNOWN, k=3, metric="euclidean").label >= 0).all()


def test_one_label_a_class_means_k_five_and_no_curve():
    found = hdl(GOOD, KNOWN)
    assert found.info["k"] == 5 and found.info["curve"] == {}


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_k_may_be_a_numpy_integer(metric):
    found = hdl(GOOD, KNOWN, k=np.int64(5), metric=metric)
    assert found.label.equal(hdl(GOOD, KNOWN, k=5, metric=metric).label) and type(found.info["k"]) is int
    assert type(one_shot(GOOD, KNOWN, np.int64(1)).info["k"]) is int


@pytest.mark.parametrize("dtype, scale", [(torch.float64, 1e300), (torch.float64, 1e-200), (torch.float32, 1e30),
                                          (torch.float32, 1e-30)])
def test_cosine_is_right_where_squares_overflow_or_underflow(dtype, scale):
    points, y, _ = case(4, labelled=0.8)
    points, y = torch.tensor(points, dtype=dtype), torch.tensor(y)
    plain, scaled = hdl(points, y, k=3), hdl(points * scale, y, k=3)
    assert scaled.label.equal(plain.label) and scaled.rows["order"].equal(plain.rows["order"])
    one = points.clone()
    one[7] *= scale                                                        # one such row leaves the others as they were
    before, after = prepared(points, y, "cosine"), prepared(one, y, "cosine")
    assert torch.allclose(before, after) and after[:7].equal(before[:7]) and after[8:].equal(before[8:])
    assert one[7].equal(points[7] * scale)                                 # the caller's table is left alone


@pytest.mark.parametrize("dtype, scale", [(torch.float64, 1e300), (torch.float64, 1e308), (torch.float64, 1e-200),
                                          (torch.float32, 1e25), (torch.float32, 1e-30)])
def test_euclidean_refuses_what_its_squares_cannot_hold(dtype, scale):
    points, y, _ = case(3)
    points = torch.tensor(points / np.abs(points).max(), dtype=dtype) * scale
    with pytest.raises(InputError, match="squared distances are too .* divide all embeddings"):
        hdl(points, torch.tensor(y), k=3, metric="euclidean")


def test_equal_rows_are_no_fault_under_euclidean():
    assert hdl(torch.zeros(12, 3), KNOWN, k=3, metric="euclidean").label.tolist() == [0, 1, *[0] * 10]


def test_votes_counted_in_parts_are_the_same(monkeypatch):
    points, y, _ = case(2)
    whole = hdl(torch.tensor(points), torch.tensor(y), k=3)
    monkeypatch.setattr(import_module("sslkit.labelers.hdl"), "VOTE_CELLS", 5)     # the room's `hdl` is the function
    parts = hdl(torch.tensor(points), torch.tensor(y), k=3)
    assert torch.equal(whole.label, parts.label) and torch.equal(whole.rows["votes"], parts.rows["votes"])
