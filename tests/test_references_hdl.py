"""Hand-computed cases of references_hdl.py. The working is in the comments.

d is a Euclidean distance, rows are #0, #1, ... Unless said otherwise the metric is euclidean on whole numbers, so that
every tie is exact.
"""

import math

import numpy as np
import pytest
import references_hdl as ref


def line(*positions):
    return np.array(positions, dtype=np.float64)[:, None]


def same(out, label=None, order=None, layer=None, votes=None):
    assert set(out) == {"label", "order", "layer", "votes"}
    for name, want in (("label", label), ("order", order), ("layer", layer), ("votes", votes)):
        if want is not None:
            assert out[name].tolist() == want, name


# ------------------------------------------------------------------------------------------ similarity, neighbours


def test_similarity_values():
    # (3, 4) has length 5; (0, 2) points up; (-6, -8) is (3, 4) turned round, twice as long.
    x = np.array([[3.0, 4.0], [0.0, 2.0], [-6.0, -8.0]])
    want = np.array([[1.0, 0.8, -1.0], [0.8, 1.0, -0.8], [-1.0, -0.8, 1.0]])
    np.testing.assert_allclose(ref.similarity(x, "cosine"), want, rtol=0, atol=1e-15)
    # d(#0, #1) = sqrt(9 + 4); d(#0, #2) = sqrt(81 + 144) = 15; d(#1, #2) = sqrt(36 + 100)
    a, b = math.sqrt(13), math.sqrt(136)
    want = -np.array([[0.0, a, 15.0], [a, 0.0, b], [15.0, b, 0.0]])
    got = ref.similarity(x, "euclidean")
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-14)
    assert got.dtype == np.float64 and got.shape == (3, 3)


def test_neighbours_ties_and_large_k():
    # Positions 0 1 2 4. #0: d 1 2 4. #1: d 1 to #0 and to #2 (tie, lower first), 3. #2: d 1 to #1, 2 to #0 and #3
    # (tie). #3: d 2, 3, 4.
    sim = ref.similarity(line(0, 1, 2, 4), "euclidean")
    assert ref.neighbours(sim, 1) == [[1], [0], [1], [2]]
    assert ref.neighbours(sim, 2) == [[1, 2], [0, 2], [1, 0], [2, 1]]
    everyone = [[1, 2, 3], [0, 2, 3], [1, 0, 3], [2, 1, 0]]
    assert ref.neighbours(sim, 3) == everyone
    assert ref.neighbours(sim, 50) == everyone


def test_neighbours_leave_out_the_row_not_its_duplicate():
    # Three copies of one point and one elsewhere: the row itself is out, its copies are not.
    sim = ref.similarity(line(7, 7, 7, 9), "euclidean")
    assert ref.neighbours(sim, 1) == [[1], [0], [0], [0]]
    assert ref.neighbours(sim, 2) == [[1, 2], [0, 2], [0, 1], [0, 1]]


def test_neighbours_on_a_circle():
    # Angles 0, 90, 180, 270 degrees, lengths 1 2 3 4: cosine 0 to both sides, -1 to the opposite point.
    x = np.array([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0], [0.0, -4.0]])
    sim = ref.similarity(x, "cosine")
    assert ref.neighbours(sim, 2) == [[1, 3], [0, 2], [1, 3], [0, 2]]
    assert ref.neighbours(sim, 1) == [[1], [0], [1], [0]]


# ------------------------------------------------------------------------------------------------------- the vote


@pytest.mark.parametrize("hdl", [ref.hdl_exact, ref.hdl_layer])
@pytest.mark.parametrize(
    "positions, y, winner, layer, votes",
    [
        # #0 sits at 0 and sees all others. Count first: class 0 twice (d 4, 5), class 1 once, nearer (d 1).
        ((0, -4, 5, 1), (-1, 0, 0, 1), 0, 3, 2),
        # One vote each: sums -1 for class 1, -2 for class 0; the higher class wins.
        ((0, -1, 2), (-1, 1, 0), 1, 2, 1),
        # One vote each, sums equal: the lowest class, though its row has the higher index.
        ((0, -1, 1), (-1, 1, 0), 0, 2, 1),
        # Two votes each: class 2 by 1 + 6 = 7, class 5 by 3 + 3 = 6, nearest row notwithstanding.
        ((0, 1, -6, 3, -3), (-1, 2, 2, 5, 5), 5, 4, 2),
        # Sums over the class's own voters, not the mean of all: class 1 (d 2, 2) against class 3 (d 1, 3): tie, 1.
        ((0, 1, -3, 2, -2), (-1, 3, 3, 1, 1), 1, 4, 2),
    ],
)
def test_vote(hdl, positions, y, winner, layer, votes):
    out = hdl(line(*positions), np.array(y), len(positions) - 1, "euclidean")
    given = list(y[1:])
    same(out, [winner] + given, [1] + [0] * len(given), [layer] + [0] * len(given), [votes] + [0] * len(given))
    assert ref.one_shot_knn(line(*positions), np.array(y), len(given), "euclidean").tolist() == [winner] + given


def test_metric_matters():
    # u = (2, 1) with k 1. Cosine: 2/sqrt5 to (10, 0), 1/sqrt5 to (0, 1): class 0. Distance: sqrt65 against 2: class 1.
    x = np.array([[10.0, 0.0], [0.0, 1.0], [2.0, 1.0]])
    y = np.array([0, 1, -1])
    for hdl in (ref.hdl_exact, ref.hdl_layer):
        same(hdl(x, y, 1), [0, 1, 0], [0, 0, 1], [0, 0, 1], [0, 0, 1])
        same(hdl(x, y, 1, "euclidean"), [0, 1, 1], [0, 0, 1], [0, 0, 1], [0, 0, 1])


# ---------------------------------------------------------------------------------------------------- choice, layers


def test_the_set_grows():
    # 0 1 2 3, k 1: kNN = [1] [0] [1] [2]. #1 sees #0 (L 1), #2 sees #1 (L 0). Step 1: #1 takes 0. Step 2: #2 takes 0
    # from #1, though the given #3 is just as near: HDL asks kNN(2) = [1], one-shot asks the nearest labelled row, #3.
    x, y = line(0, 1, 2, 3), np.array([0, -1, -1, 1])
    for hdl in (ref.hdl_exact, ref.hdl_layer):
        same(hdl(x, y, 1, "euclidean"), [0, 0, 0, 1], [0, 1, 2, 0], [0, 1, 1, 0], [0, 1, 1, 0])
    assert ref.one_shot_knn(x, y, 1, "euclidean").tolist() == [0, 0, 1, 1]


def test_the_largest_layer_goes_first_and_lifts_the_next():
    # #0 at 0, #1 at 2 given class 0; #2 at 4: kNN = [1 (d 2), 3 (d 3)], L 1; #3 at 1: kNN = [0, 1], L 2.
    # First #3 (L 2, 2 votes). Then #2 sees two labelled rows: L 2, 2 votes.
    x, y = line(0, 2, 4, 1), np.array([0, 0, -1, -1])
    for hdl in (ref.hdl_exact, ref.hdl_layer):
        same(hdl(x, y, 2, "euclidean"), [0, 0, 0, 0], [0, 0, 2, 1], [0, 0, 2, 2], [0, 0, 2, 2])


def test_exact_and_layer_differ():
    # #0 at 0 class 0, #1 at 2, #2 at 5, #3 at 9 class 1; k 2. kNN(1) = [0 (d 2), 2 (d 3)], kNN(2) = [1 (d 3), 3 (d 4)]:
    # both L 1. Layer: both from the given labels, #1 takes 0, #2 takes 1, one round.
    # Exact: g is 1 for both (each is in the other's list); means -2 and -4, so #1 first, class 0. Then L_2 = 2, one
    # vote each, sums -3 for class 0 and -4 for class 1: #2 takes 0.
    x, y = line(0, 2, 5, 9), np.array([0, -1, -1, 1])
    same(ref.hdl_layer(x, y, 2, "euclidean"), [0, 0, 1, 1], [0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 1, 0])
    same(ref.hdl_exact(x, y, 2, "euclidean"), [0, 0, 0, 1], [0, 1, 2, 0], [0, 1, 2, 0], [0, 1, 1, 0])


def test_exact_g_before_similarity_and_index():
    # #0 at 0 class 0, #1 at 100 class 1, #2 at 1, #3 at 102, #4 at 105; k 1: kNN = [2] [3] [0] [1] [3].
    # L: #2 1, #3 1, #4 0. g_2: only #0 has #2, and #0 is labelled: 0. g_3: #1 labelled, #4 counts: 1. So #3 first,
    # though #2 is nearer to its neighbour (-1 against -2) and lower. Then #2 (-1) and #4 (-3), g 0 both: #2, then #4.
    x, y = line(0, 100, 1, 102, 105), np.array([0, 1, -1, -1, -1])
    same(ref.hdl_exact(x, y, 1, "euclidean"), [0, 1, 0, 1, 1], [0, 0, 2, 1, 3], [0, 0, 1, 1, 1], [0, 0, 1, 1, 1])
    same(ref.hdl_layer(x, y, 1, "euclidean"), [0, 1, 0, 1, 1], [0, 0, 1, 1, 2], [0, 0, 1, 1, 1], [0, 0, 1, 1, 1])


def test_exact_similarity_before_index_then_index():
    # k 1, both unlabelled rows see #0, g 0 both (kNN(0) = the nearer one, but #0 is labelled).
    y = np.array([0, -1, -1])
    same(ref.hdl_exact(line(0, 2, -1), y, 1, "euclidean"), [0, 0, 0], [0, 2, 1])  # d 2 and 1: #2 first
    same(ref.hdl_exact(line(0, 1, -1), y, 1, "euclidean"), [0, 0, 0], [0, 1, 2])  # d 1 and 1: lower index first


def test_exact_mean_is_over_all_labelled_neighbours():
    # k 3, two far groups, each one unlabelled row and three given ones: L 3, g 0 both (only given rows see them).
    # #0 at 0 sees class 0 at 1 and -1 (winners, mean -1) and class 1 at 10: mean of all -4.
    # #4 at 1000 sees class 0 at 998 and 1002 (winners, mean -2) and class 1 at 1003: mean of all -7/3. #4 is first.
    x = line(0, 1, -1, 10, 1000, 998, 1002, 1003)
    y = np.array([-1, 0, 0, 1, -1, 0, 0, 1])
    out = ref.hdl_exact(x, y, 3, "euclidean")
    same(out, [0, 0, 0, 1, 0, 0, 0, 1], [2, 0, 0, 0, 1, 0, 0, 0], [3, 0, 0, 0, 3, 0, 0, 0], [2, 0, 0, 0, 2, 0, 0, 0])


# ------------------------------------------------------------------------------------------------------- all L are 0


def test_copy_then_g_of_the_rows_still_unlabelled():
    # A #0 (0, 0) class 3; r #1 (10, 0); x #2 (10, 1); z #3 (10, -2); w #4 (10, -5). k 1:
    # kNN(A) = r (d 10); kNN(r) = x (d 1, z at 2); kNN(x) = r (d 1); kNN(z) = r (d 2, x and w at 3); kNN(w) = z (d 3).
    # No unlabelled row has A: all L 0. To A: r 10, x sqrt101, z sqrt104, w sqrt125: r copies 3 (step 1).
    # Now L_x = L_z = 1. g_x: r has x, but r is labelled: 0. g_z: w: 1. So z (step 2), though x is nearer; with an old
    # g_x of 1 x would have been first. Then x (-1) before w (-3), g 0 both.
    x = np.array([[0.0, 0.0], [10.0, 0.0], [10.0, 1.0], [10.0, -2.0], [10.0, -5.0]])
    y = np.array([3, -1, -1, -1, -1])
    same(ref.hdl_exact(x, y, 1, "euclidean"), [3] * 5, [0, 1, 3, 2, 4], [0, 0, 1, 1, 1], [0, 1, 1, 1, 1])
    # Layer: r copies alone; x and z together; w.
    same(ref.hdl_layer(x, y, 1, "euclidean"), [3] * 5, [0, 1, 2, 2, 3], [0, 0, 1, 1, 1], [0, 1, 1, 1, 1])


def test_copy_ties():
    # #0 at 0 class 1, #1 at 20 class 0, #2 and #3 both at 10; k 1: #2 and #3 see each other, all L 0. All four
    # distances are 10: lowest unlabelled row #2, lowest labelled row #0: class 1, not the lowest class.
    # Then #3 from #2.
    x, y = line(0, 20, 10, 10), np.array([1, 0, -1, -1])
    for hdl in (ref.hdl_exact, ref.hdl_layer):
        same(hdl(x, y, 1, "euclidean"), [1, 0, 1, 1], [0, 0, 1, 2], [0, 0, 0, 1], [0, 0, 1, 1])


def test_copy_twice_each_a_step_of_its_own():
    # #0 at 0 class 0. Pairs #1 #2 at 100, 101 and #3 #4 at 51, 50; k 1: each pair sees itself (d 1), kNN(0) = #4.
    # All L 0: #4 (d 50) copies. #3 sees #4: L 1, voted for. Now #1 #2 have L 0, and are alone: the nearest labelled
    # row to #1 is #3 (d 49): copies. Then #2 from #1.
    x, y = line(0, 100, 101, 51, 50), np.array([0, -1, -1, -1, -1])
    for hdl in (ref.hdl_exact, ref.hdl_layer):
        same(hdl(x, y, 1, "euclidean"), [0] * 5, [0, 3, 4, 2, 1], [0, 0, 1, 1, 0], [0, 1, 1, 1, 1])


def test_copy_of_the_most_similar_on_a_circle():
    # Cosine, k 1, angles: #0 0 (class 4), #1 180 (class 6), #2 100, #3 110 degrees; #2 and #3 see each other
    # (10 degrees). Angles to labelled rows: #2 100 and 80, #3 110 and 70: #3 copies 6 from #1, then #2 takes 6 from #3.
    t = np.radians([0.0, 180.0, 100.0, 110.0])
    x = np.stack([np.cos(t), np.sin(t)], axis=1) * np.array([[1.0], [5.0], [0.1], [30.0]])
    for hdl in (ref.hdl_exact, ref.hdl_layer):
        same(hdl(x, np.array([4, 6, -1, -1]), 1), [4, 6, 6, 6], [0, 0, 2, 1], [0, 0, 1, 0], [0, 0, 1, 1])


def test_nothing_to_label_and_a_single_row():
    for hdl in (ref.hdl_exact, ref.hdl_layer):
        same(hdl(line(1, 2, 3), np.array([2, 0, 1]), 2, "euclidean"), [2, 0, 1], [0] * 3, [0] * 3, [0] * 3)
        same(hdl(line(1), np.array([2]), 1), [2], [0], [0], [0])


# ---------------------------------------------------------------------------------------------- the choice of k, delta


# Line: #0 0, #1 3, #2 2, #3 5 are class 0; #4 1 is class 1, alone, never hidden. Fold 0 hides #0 #2, fold 1 #1 #3.
NOISE = line(0, 3, 2, 5, 1), np.array([0, 0, 0, 0, 1])


def test_choose_k_layer():
    # k 1. Fold 0: kNN(0) = [4], wrong; kNN(2) = [1] (d 1 to #1 and #4, lower index), right: 1/2. Fold 1: kNN(1) = [2]
    #   right; kNN(3) = [1], hidden, a round later, right: 1. Mean 3/4.
    # k 3. Fold 0: kNN(0) = [4 2 1]: #4 -1 against #1 -3, wrong; kNN(2) = [1 4 0]: #1 -1, #4 -1, lowest class, right:
    #   1/2. Fold 1: kNN(1) = [2 3 4]: #2 -1, #4 -2, right; kNN(3) = [1 2 4]: #2 -3, #4 -4, right: 1. Mean 3/4.
    # k 4. Every hidden row sees two given rows of class 0 and #4: right. Mean 1.
    x, y = NOISE
    assert ref.choose_k(x, y, (1, 3, 4), "euclidean", "layer") == (4, {1: 0.75, 3: 0.75, 4: 1.0})
    assert ref.choose_k(x, y, (3, 1), "euclidean") == (1, {1: 0.75, 3: 0.75})  # the smaller k, whatever the order
    # k above n - 1 = 4 runs as 4 under its own key
    assert ref.choose_k(x, y, metric="euclidean") == (5, {1: 0.75, 3: 0.75, 5: 1.0, 10: 1.0, 20: 1.0, 50: 1.0})


def test_choose_k_exact():
    # k 3, fold 0, one at a time: L 2 both, g 1 both (#2 in kNN(0), #0 in kNN(2)), means -2 for #0, -1 for #2: #2 first,
    # class 0 (tie -1 -1). Then #0 has #1 and #2 for class 0, #4 for class 1: right. Fold 1: #1 (mean -1.5) before #3
    # (-3.5), both right. Mean 1. k 1 as in the layer mode: 3/4.
    x, y = NOISE
    assert ref.choose_k(x, y, (1, 3, 4), "euclidean", "exact") == (3, {1: 0.75, 3: 1.0, 4: 1.0})


def test_choose_k_splits_by_position_within_the_class():
    # Class 0 at #0 #3 #5, class 1 at #2 #4, class 2 at #6, #1 unknown. Positions: class 0 -> #0 even, #3 odd, #5 even;
    # class 1 -> #2 even, #4 odd; class 2 hides nothing.
    assert ref.hidden_folds([0, -1, 1, 0, 1, 0, 2]) == ([0, 2, 5], [3, 4])
    # Class 0 at #0 (0), #2 (1), class 1 at #1 (10), #3 (11), k 1: each hidden row sees its partner. A split by the
    # parity of the index would hide the whole of class 0 at once.
    x, y = line(0, 10, 1, 11), np.array([0, 1, 0, 1])
    assert ref.choose_k(x, y, (1, 3), "euclidean") == (1, {1: 1.0, 3: 1.0})


def test_choose_k_is_the_mean_of_the_folds_not_of_the_rows():
    # #0 0, #1 2, #2 9 class 0, #3 10 class 1, k 1. Fold 0 hides #0 (kNN = #1, right) and #2 (kNN = #3, wrong): 1/2.
    # Fold 1 hides #1 (kNN = #0, right): 1. Mean of folds 3/4, of rows 2/3.
    x, y = line(0, 2, 9, 10), np.array([0, 0, 0, 1])
    assert ref.choose_k(x, y, (1,), "euclidean") == (1, {1: 0.75})


def test_choose_k_uses_unlabelled_rows():
    # #0 at 0, #1 at 6, class 0; #2 at 11, class 1 alone; unknown #3 2, #4 4. k 1, layer: kNN(0) = [3], kNN(1) = [4]
    # (d 2), kNN(2) = [1] (d 5), kNN(3) = [0] (d 2, tie with #4), kNN(4) = [1]: d 2 to #1 and #3, lower index.
    # Fold 0 hides #0: L: #4 1 (sees #1), others 0: #4 = 0. Then #0 sees #3, #3 sees #0: all L 0. Distances:
    #   #3 to #4 2, #0 to #4 4: #3 copies 0; #0 takes 0: right.
    # Fold 1 hides #1: #3 sees #0: 0. #1 sees #4, #4 sees #1: L 0. To labelled: #4 to #3 2; #1 to #2 5, to #3 4: #4
    #   copies 0, #1 takes 0: right. (One-shot: #1 is nearest to #2 at 5, not #0 at 6: wrong.)
    x, y = line(0, 6, 11, 2, 4), np.array([0, 0, 1, -1, -1])
    for mode in ("exact", "layer"):
        assert ref.choose_k(x, y, (1,), "euclidean", mode) == (1, {1: 1.0})
    assert ref.one_shot_knn(x, np.array([0, -1, 1, -1, -1]), 1, "euclidean")[1] == 1


def test_choose_k_with_one_label_a_class():
    assert ref.choose_k(line(1, 2, 3), np.array([0, -1, 1]), (1, 3), "euclidean") == (5, {})


def test_delta_k():
    # Labelled: #0 0 and #1 1 class 0, #3 3 class 1; #2 at 2 is unknown and no neighbour. k 1: #0 -> #1 same,
    # #1 -> #0 same, #3 -> #1 other: 1/3. k 2, all others: 1/2, 1/2, 1: 2/3. Larger k is cut to 2.
    x, y = line(0, 1, 2, 3), np.array([0, 0, -1, 1])
    assert ref.delta_k(x, y, 1, "euclidean") == pytest.approx(1 / 3, abs=1e-15)
    assert ref.delta_k(x, y, 2, "euclidean") == pytest.approx(2 / 3, abs=1e-15)
    assert ref.delta_k(x, y, 50, "euclidean") == pytest.approx(2 / 3, abs=1e-15)
    # 0 1 2 as classes 1 0 0: #1 is as near to #0 as to #2: the lower index, another class.
    # #0 -> #1 other, #2 -> #1 same: 2/3.
    assert ref.delta_k(line(0, 1, 2), np.array([1, 0, 0]), 1, "euclidean") == pytest.approx(2 / 3, abs=1e-15)
    assert math.isnan(ref.delta_k(line(0, 1), np.array([1, -1]), 1, "euclidean"))


def test_one_shot_knn():
    # Unknown #0 at 0; class 1 at 1, class 0 at -2 and 3. k 1: 1. k 2: one vote each, -1 against -2: 1. k 3: class 0.
    # Unknown #4 at 0 too: an unlabelled row never votes. k above 3 is cut to 3.
    x, y = line(0, 1, -2, 3, 0), np.array([-1, 1, 0, 0, -1])
    for k, c in ((1, 1), (2, 1), (3, 0), (50, 0)):
        assert ref.one_shot_knn(x, y, k, "euclidean").tolist() == [c, 1, 0, 0, c]
    # Equal distances: the lower index is the one nearest row.
    assert ref.one_shot_knn(line(0, 1, -1), np.array([-1, 1, 0]), 1, "euclidean").tolist() == [1, 1, 0]


# ---------------------------------------------------------------------------------------------- facts on random data


@pytest.mark.parametrize("metric", ref.METRICS)
@pytest.mark.parametrize("seed", range(5))
def test_facts(metric, seed):
    rng = np.random.default_rng(seed)
    n, given = 16, 5
    x = rng.standard_normal((n, 3))
    y = np.full(n, -1)
    y[rng.permutation(n)[:given]] = rng.integers(0, 3, given)
    known = y != -1
    for k in (1, 2, 4):
        exact, layer = ref.hdl_exact(x, y, k, metric), ref.hdl_layer(x, y, k, metric)
        assert sorted(exact["order"][~known].tolist()) == list(range(1, n - given + 1))
        for out in (exact, layer):
            assert (out["label"][known] == y[known]).all() and set(out["label"]) <= set(y[known])
            for name in ("order", "layer", "votes"):
                assert (out[name][known] == 0).all()
            copied = ~known & (out["layer"] == 0)
            assert (out["votes"][copied] == 1).all() and (out["order"][~known] > 0).all()
            assert (out["votes"][~copied] <= out["layer"][~copied]).all() and (out["layer"] <= k).all()
            # orders are 1 .. rounds without a gap, and a round holds one layer
            rounds = sorted(set(out["order"][~known].tolist()))
            assert rounds == list(range(1, len(rounds) + 1))
            assert all(len(set(out["layer"][out["order"] == r])) == 1 for r in rounds)
    # k = n - 1: every row sees all given rows, so one layer of L = given, which is the one-shot vote of all of them.
    out = ref.hdl_layer(x, y, n - 1, metric)
    assert (out["label"] == ref.one_shot_knn(x, y, given, metric)).all()
    assert (out["order"][~known] == 1).all() and (out["layer"][~known] == given).all()
