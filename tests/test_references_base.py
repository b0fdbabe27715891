"""Hand-computed cases for references_base.py: the numbers below were worked out on paper, not read off the code."""

import math

import numpy as np
import references_base as ref

L2 = math.log(2)
LOG = math.log
E = 1e-6


def close(a, b, atol=1e-12):
    np.testing.assert_allclose(a, b, rtol=0, atol=atol)


# ---------------------------------------------------------------------------------------------------------- shared


def test_sharpen():
    # T = 1/2 squares: (4, 1, 1)/16 of sum 6/16; (9, 1)/16 of sum 10/16. T = 1 changes nothing.
    close(ref.sharpen([[1 / 2, 1 / 4, 1 / 4]], 0.5), [[2 / 3, 1 / 6, 1 / 6]])
    close(ref.sharpen([[3 / 4, 1 / 4], [1.0, 0.0]], 0.5), [[9 / 10, 1 / 10], [1.0, 0.0]])
    close(ref.sharpen([[0.7, 0.3]], 1.0), [[0.7, 0.3]])
    # T = 2 takes roots: (.8, .6) / 1.4. Scale does not matter: (3, 1) as (3/4, 1/4).
    close(ref.sharpen([[0.64, 0.36]], 2.0), [[4 / 7, 3 / 7]])
    close(ref.sharpen([[3.0, 1.0]], 0.5), [[9 / 10, 1 / 10]])


def test_mixup_rows():
    # lam 1/4 becomes 3/4, so that row i stays nearer to a; 1 and 0 both leave a; 1/2 the middle.
    a = [[8.0, 0.0], [1.0, 2.0], [1.0, 2.0], [0.0, 4.0]]
    b = [[0.0, 4.0], [9.0, 9.0], [9.0, 9.0], [4.0, 4.0]]
    close(ref.mixup_rows(a, b, [0.25, 1.0, 0.0, 0.5]), [[6, 1], [1, 2], [1, 2], [2, 4]])
    close(ref.mixup_rows(a, b, [0.75, 1.0, 0.0, 0.5]), [[6, 1], [1, 2], [1, 2], [2, 4]])
    # Trailing shapes: none, and (2, 1, 2). Inputs stay as they were.
    close(ref.mixup_rows([4.0, 0.0], [0.0, 4.0], [0.25, 0.5]), [3, 2])
    image = np.array([[[[0.0, 4.0]], [[8.0, 12.0]]]])
    close(ref.mixup_rows(image, np.zeros_like(image), [0.25]), [[[[0, 3]], [[6, 9]]]])
    assert image[0, 1, 0, 1] == 12.0


def test_ramp():
    # 64 k / K reaches 1 at k = K/64 = 100 of 6400.
    assert [ref.ramp_64(k, 6400) for k in (0, 25, 50, 100, 101, 6400)] == [0.0, 0.25, 0.5, 1.0, 1.0, 1.0]


# -------------------------------------------------------------------------------------------------------- MixMatch


def test_mixmatch_targets():
    # Row 0: mean of (1/2, 1/4, 1/4) and (1/4, 1/2, 1/4) = (3, 3, 2)/8, squares (9, 9, 4)/22.
    # Row 1: mean of (1/2, 1/4, 1/4) and (3/4, 1/8, 1/8) = (10, 3, 3)/16, squares (100, 9, 9)/118. The mean of the
    # logits would give another: (3/8, 1/32, 1/32), squared and normalised (144, 1, 1)/146.
    u1 = np.log([[1 / 2, 1 / 4, 1 / 4], [1 / 2, 1 / 4, 1 / 4]])
    u2 = np.log([[1 / 4, 1 / 2, 1 / 4], [3 / 4, 1 / 8, 1 / 8]])
    close(ref.mixmatch_targets(u1, u2), [[9 / 22, 9 / 22, 4 / 22], [100 / 118, 9 / 118, 9 / 118]])
    # T = 1: the mean itself.
    close(ref.mixmatch_targets(u1, u2, T=1.0), [[3 / 8, 3 / 8, 1 / 4], [5 / 8, 3 / 16, 3 / 16]])


def test_mixmatch_mix_by_hand():
    # Rows (8, 0) | (0, 4) | (4, 4), images of shape (1, 2); permutation 1, 2, 0; lam 1/4 -> 3/4, 1/2, 1.
    #   row 0 = 3/4 (8, 0) + 1/4 (0, 4) = (6, 1); row 1 = half (0, 4), half (4, 4) = (2, 4); row 2 stays.
    #   targets y = (1, 0), q = (1/4, 3/4) twice: row 0 = 3/4 (1, 0) + 1/4 q = (13/16, 3/16); rows 1 and 2 stay q
    #   (row 2's partner is row 0, with weight 0).
    rows, targets = ref.mixmatch_mix([[[8, 0]]], [[1, 0]], [[[0, 4]]], [[[4, 4]]], [[1 / 4, 3 / 4]], [1, 2, 0],
                                     [0.25, 0.5, 1.0])
    close(rows, [[[6, 1]], [[2, 4]], [[4, 4]]])
    close(targets, [[13 / 16, 3 / 16], [1 / 4, 3 / 4], [1 / 4, 3 / 4]])
    # lam 1/4 for the last: 3/4 (4, 4) + 1/4 (8, 0) = (5, 3); 3/4 q + 1/4 (1, 0) = (7/16, 9/16).
    rows, targets = ref.mixmatch_mix([[[8, 0]]], [[1, 0]], [[[0, 4]]], [[[4, 4]]], [[1 / 4, 3 / 4]], [1, 2, 0],
                                     [1.0, 1.0, 0.25])
    close(rows[2], [[5, 3]])
    close(targets[2], [7 / 16, 9 / 16])


def test_mixmatch_mix_order():
    # The identity leaves all rows, whatever lam: x, then the whole of u1, then the whole of u2; y, q, q.
    rows, targets = ref.mixmatch_mix([[1.0]], [[1, 0]], [[2.0], [3.0]], [[4.0], [5.0]], [[0.5, 0.5], [0.2, 0.8]],
                                     np.arange(5), [0.1, 0.3, 0.5, 0.7, 0.9])
    close(rows, [[1], [2], [3], [4], [5]])
    close(targets, [[1, 0], [0.5, 0.5], [0.2, 0.8], [0.5, 0.5], [0.2, 0.8]])
    # Reversed with lam 1/2: the sums of rows 0 + 4, 1 + 3, 2 + 2 halved; permutation[i] is the partner of row i.
    rows, _ = ref.mixmatch_mix([[1.0]], [[1, 0]], [[2.0], [3.0]], [[4.0], [5.0]], [[0.5, 0.5], [0.2, 0.8]],
                               [4, 3, 2, 1, 0], [0.5] * 5)
    close(rows, [[3], [3], [3], [3], [3]])
    # A 3-cycle tells permutation from its inverse: row 0 is mixed with row 2 (lam 3/4): 3/4 * 1 + 1/4 * 3 = 1.5.
    rows, _ = ref.mixmatch_mix([[1.0]], [[1, 0]], [[2.0], [3.0]], [[4.0], [5.0]], [[0.5, 0.5], [0.2, 0.8]],
                               [2, 0, 1, 3, 4], [0.75] * 5)
    close(rows, [[1.5], [1.75], [2.75], [4], [5]])


# Two labelled rows: H((3/4, 1/4, 0), (1/2, 1/4, 1/4)) = 3/4 log 2 + 1/4 * 2 log 2 = 5/4 log 2, and log 2: mean
# 9/8 log 2.
X_LOGITS = np.log([[1 / 2, 1 / 4, 1 / 4], [1 / 4, 1 / 4, 1 / 2]])
Y_MIXED = [[3 / 4, 1 / 4, 0], [0, 0, 1]]


def test_mixmatch_loss():
    # Squares: (1/4, -1/4, 0): 1/8; (1/4, 1/4, -1/2): 3/8. Sum 1/2 over 2 rows and 3 classes: 1/12.
    # lambda_u 75: 75/12 = 6.25 at w = 1, 3.125 at w = 1/2 (k = 50 of 6400), nothing at k = 0.
    q = [[1 / 4, 1 / 2, 1 / 4], [0, 0, 1]]
    for k, added in [(0, 0.0), (50, 3.125), (100, 6.25), (6400, 6.25)]:
        out = ref.mixmatch_loss(X_LOGITS, Y_MIXED, X_LOGITS, q, k, 6400)
        close([out["sup"], out["unsup"], out["loss"]], [9 / 8 * L2, 1 / 12, 9 / 8 * L2 + added])
    out = ref.mixmatch_loss(X_LOGITS, Y_MIXED, X_LOGITS, q, 100, 6400, lambda_u=150)
    close(out["loss"], 9 / 8 * L2 + 12.5)


# ------------------------------------------------------------------------------------------------------ ReMixMatch


def test_remixmatch_align():
    # The queue's mean is (1/2, 1/2), so that only p_data tilts: (3/4 + e, 1/4 + e) after N, about
    # (9/10, 1/10) sharpened.
    queue = [[1 / 4, 3 / 4], [3 / 4, 1 / 4]]
    a, b = (3 / 4 + E) ** 2, (1 / 4 + E) ** 2
    close(ref.remixmatch_align([[1 / 2, 1 / 2]], [3 / 4, 1 / 4], queue), [[a / (a + b), b / (a + b)]])
    close(ref.remixmatch_align([[1 / 2, 1 / 2]], [3 / 4, 1 / 4], queue), [[0.9, 0.1]], atol=1e-5)
    # p_data = the queue's mean: sharpen(p) exactly. Queue mean (1/4, 3/4) from (0, 1) and (1/2, 1/2).
    close(ref.remixmatch_align([[3 / 4, 1 / 4]], [1 / 4, 3 / 4], [[0, 1], [1 / 2, 1 / 2]]), [[9 / 10, 1 / 10]])
    # A class that was never predicted: (1/2 + e)/(1 + e) against (1/2 + e)/e, that is e : 1 + e; T = 1/2 squares them.
    aligned = ref.remixmatch_align([[1 / 2, 1 / 2]], [1 / 2, 1 / 2], [[1, 0]], T=1.0)
    close(aligned, [[E / (1 + 2 * E), (1 + E) / (1 + 2 * E)]])
    total = E**2 + (1 + E) ** 2
    aligned = ref.remixmatch_align([[1 / 2, 1 / 2]], [1 / 2, 1 / 2], [[1, 0]])
    close(aligned, [[E**2 / total, (1 + E) ** 2 / total]], atol=1e-15)
    # N comes row by row, before sharpening: with T = 1, p = (.2, .8), p_data uniform, queue (1/4, 3/4): .2/.25 = .8 and
    # .8/.75 = 16/15: (12, 16)/15 -> (3/7, 4/7), up to e.
    out = ref.remixmatch_align([[0.2, 0.8], [0.5, 0.5]], [1 / 2, 1 / 2], [[1 / 4, 3 / 4]], T=1.0)
    close(out, [[3 / 7, 4 / 7], [3 / 4, 1 / 4]], atol=1e-5)


def test_remixmatch_push():
    # Batch mean (3/4 + 1/4 + 1, 1/4 + 3/4 + 0)/3 = (2/3, 1/3), in place 1 alone; the old queue stays.
    queue = np.full((3, 2), 0.5)
    out = ref.remixmatch_push(queue, 1, [[3 / 4, 1 / 4], [1 / 4, 3 / 4], [1, 0]])
    close(out, [[1 / 2, 1 / 2], [2 / 3, 1 / 3], [1 / 2, 1 / 2]])
    assert (queue == 0.5).all()


def test_remixmatch_p_data():
    # .9 * 1/2 + .1 * 3/4 = .525. The default .999 from 1/3 with shares (1/2, 1/2, 0): .333 + .0005, .333.
    close(ref.remixmatch_p_data([1 / 2, 1 / 2], [0, 0, 1, 0], 2, decay=0.9), [0.525, 0.475])
    close(ref.remixmatch_p_data([1 / 3] * 3, [1, 0], 3), [0.3335, 0.3335, 0.333])


def test_remixmatch_loss():
    # sup 9/8 log 2 (above). u': p = (1/2, 1/4, 1/4) four times, q' one-hot at 0: log 2; at 1: 2 log 2;
    # (1/2, 1/2, 0): 1.5; (0, 1/2, 1/2): 2; mean 6.5/4 = 1.625 log 2.
    # S1: p = (1/4, 1/4, 1/2), q one-hot at 2: log 2; q = p: 1/4 * 2 + 1/4 * 2 + 1/2 = 1.5; mean 1.25 log 2.
    # Rotation: uniform over 4: 2 log 2; p = 1/2 on the right turn: log 2; mean 1.5 log 2.
    u = np.log([[1 / 2, 1 / 4, 1 / 4]] * 4)
    q_mixed = [[1, 0, 0], [0, 1, 0], [1 / 2, 1 / 2, 0], [0, 1 / 2, 1 / 2]]
    s1, q = np.log([[1 / 4, 1 / 4, 1 / 2]] * 2), [[0, 0, 1], [1 / 4, 1 / 4, 1 / 2]]
    rot = np.log([[1 / 4] * 4, [1 / 6, 1 / 6, 1 / 6, 1 / 2]])
    args = (X_LOGITS, Y_MIXED, u, q_mixed, s1, q, rot, [2, 3])
    # w = 0: 1.125 + .5 * 1.5 = 1.875. w = 1/2: + .75 * 1.625 + .25 * 1.25 = 1.21875 + .3125: 3.40625.
    # w = 1: 1.875 + 2.4375 + .625 = 4.9375.
    for k, want in [(0, 1.875), (50, 3.40625), (100, 4.9375), (6400, 4.9375)]:
        out = ref.remixmatch_loss(*args, k, 6400)
        close([out["sup"], out["unsup"], out["s1"], out["rot"]], np.array([1.125, 1.625, 1.25, 1.5]) * L2)
        close(out["loss"], want * L2)
    # Other weights at w = 1/2: 1.125 + 1 * .5 * 1.625 + 0 + 2 * 1.5 = 4.9375 by chance; at w = 1: 5.75.
    close(ref.remixmatch_loss(*args, 50, 6400, w_mixed=1.0, w_s1=0.0, w_rot=2.0)["loss"], 4.9375 * L2)
    close(ref.remixmatch_loss(*args, 100, 6400, w_mixed=1.0, w_s1=0.0, w_rot=2.0)["loss"], 5.75 * L2)


# ------------------------------------------------------------------------------------------------------- FreeMatch


def test_freematch_update():
    # mean max = (.8 + .6 + .9 + .7)/4 = .75; mean p = (.7, .3); argmax shares (3/4, 1/4); all by .9/.1 from 1/2.
    p_w = [[0.8, 0.2], [0.4, 0.6], [0.9, 0.1], [0.7, 0.3]]
    tau, p_tilde, hist = ref.freematch_update(0.5, [0.5, 0.5], [0.5, 0.5], p_w, 0.9)
    close(tau, 0.525)
    close(p_tilde, [0.52, 0.48])
    close(hist, [0.525, 0.475])
    # A tie counts for the lowest class. m = 0 forgets, m = 1 stays.
    tau, p_tilde, hist = ref.freematch_update(0.5, [0.3, 0.7], [0.3, 0.7], [[0.5, 0.5]], 0.0)
    assert (tau, p_tilde.tolist(), hist.tolist()) == (0.5, [0.5, 0.5], [1.0, 0.0])
    tau, p_tilde, hist = ref.freematch_update(0.5, [0.3, 0.7], [0.4, 0.6], [[0.9, 0.1]], 1.0)
    assert (tau, p_tilde.tolist(), hist.tolist()) == (0.5, [0.3, 0.7], [0.4, 0.6])


def test_freematch_mask():
    # p_tilde (1/2, 1/4, 1/4): thresholds .8, .4, .4; equality keeps.
    p_w = [[0.79, 0.11, 0.10], [0.8, 0.1, 0.1], [0.3, 0.4, 0.3], [0.31, 0.38, 0.31], [0.2, 0.3, 0.5]]
    mask = ref.freematch_mask(0.8, [0.5, 0.25, 0.25], p_w)
    assert mask.dtype == bool and mask.tolist() == [False, True, True, False, True]
    # The tie (.45, .45, .1) belongs to class 0, whose threshold is .8: dropped, although class 1 would keep it.
    assert ref.freematch_mask(0.8, [0.5, 0.25, 0.25], [[0.45, 0.45, 0.1]]).tolist() == [False]
    # The largest class has exactly tau, while (.9 * p)/p is not .9 in float64 at p = .3 and 1/7.
    for p in (0.1, 0.3, 0.7, 1 / 3, 1 / 7):
        assert ref.freematch_mask(0.9, [p, p], [[0.9, 0.1]]).tolist() == [True]
        assert ref.freematch_mask(np.nextafter(0.9, 1), [p, p], [[0.9, 0.1]]).tolist() == [False]


P_TILDE, HIST = [1 / 2, 1 / 4, 1 / 4], [1 / 4, 1 / 2, 1 / 4]
# p_tilde / hist = (2, 1/2, 1), sum 7/2: weights (4, 1, 2)/7.


def test_freematch_fair_with_an_empty_class():
    # Kept: (1/2, 1/4, 1/4) twice and (1/4, 1/4, 1/2): pbar = (5, 3, 4)/12, hbar = (2/3, 0, 1/3), r = (5/8, 0, 1),
    # N(r) = (5/13, 0, 8/13). The dropped row, a sure class 1, changes nothing. Class 1 stays with log(1e-12).
    s = np.log([[1 / 2, 1 / 4, 1 / 4], [0.01, 0.98, 0.01], [1 / 2, 1 / 4, 1 / 4], [1 / 4, 1 / 4, 1 / 2]])
    want = 4 / 7 * LOG(5 / 13 + 1e-12) + 1 / 7 * LOG(1e-12) + 2 / 7 * LOG(8 / 13 + 1e-12)
    close(ref.freematch_fair(s, [1, 0, 1, 1], P_TILDE, HIST), want)
    close(ref.freematch_fair(s, np.array([True, False, True, True]), P_TILDE, HIST), want)


def test_freematch_fair_full_and_none():
    # One row for each class, each 1/2 on its own: pbar = hbar = 1/3, N(r) = 1/3 each: log(1/3).
    s = np.log([[1 / 2, 1 / 4, 1 / 4], [1 / 4, 1 / 2, 1 / 4], [1 / 4, 1 / 4, 1 / 2]])
    close(ref.freematch_fair(s, [1, 1, 1], P_TILDE, HIST), LOG(1 / 3 + 1e-12))
    assert ref.freematch_fair(s, [0, 0, 0], P_TILDE, HIST) == 0.0
    assert not ref.freematch_fair_grad(s, [0, 0, 0], P_TILDE, HIST).any()
    # A tie of the strong view goes to the lowest class: hbar = (1, 0), N(r) = (1, 0), weights (1/2, 1/2).
    close(ref.freematch_fair([[0.0, 0.0]], [1], [0.5, 0.5], [0.5, 0.5]), 0.5 * LOG(1 + 1e-12) + 0.5 * LOG(1e-12))


def test_freematch_fair_grad_by_hand():
    # Weights: (1/2)/(1/3) = 3/2 and (1/2)/(2/3) = 3/4: (2/3, 1/3). Rows (3/4, 1/4), (1/4, 3/4) kept: pbar = hbar = 1/2,
    # r = (1, 1). dL/dr_j = a_j/r_j - 1/(sum r) = (1/6, -1/6), dL/dpbar = (1/3, -1/3); a step of z_0 moves
    # pbar by +-p_0 p_1 / 2 = +-3/32: 2/3 * 3/32 = 1/16. The dropped row has 0.
    s = np.log([[3 / 4, 1 / 4], [1 / 4, 3 / 4], [0.9, 0.1]])
    grad = ref.freematch_fair_grad(s, [1, 1, 0], [1 / 2, 1 / 2], [1 / 3, 2 / 3])
    close(grad, [[1 / 16, -1 / 16], [1 / 16, -1 / 16], [0, 0]], atol=1e-8)
    # One predicted class only: N(r) = (1, 0) however pbar moves: no gradient.
    grad = ref.freematch_fair_grad(s, [1, 0, 1], [1 / 2, 1 / 2], [1 / 3, 2 / 3])
    close(grad, np.zeros((3, 2)), atol=1e-8)


def test_freematch_fair_grad_holds_hbar():
    # A row on the tie (1/2, 1/2), class 0: a step would flip its argmax, and L_f would jump. With hbar = (1/2, 1/2):
    # pbar = (3/8, 5/8), r = (3/4, 5/4); dL/dr = (2/3 * 4/3 - 1/2, 1/3 * 4/5 - 1/2) = (7/18, -7/30), dL/dpbar twice
    # that, (7/9, -7/15), difference 56/45. Row 0: p_0 p_1 / 2 = 1/8: 7/45. Row 1: 3/32: 7/60.
    s = [[0.0, 0.0], [0.0, LOG(3)]]
    grad = ref.freematch_fair_grad(s, [1, 1], [1 / 2, 1 / 2], [1 / 3, 2 / 3])
    close(grad, [[7 / 45, -7 / 45], [7 / 60, -7 / 60]], atol=1e-8)


def test_freematch_fair_grad_formula():
    # dL/dpbar_j = a_j/pbar_j - A/(hbar_j sum r) on the classes with hbar_j > 0 (A their sum of weights; without 1e-12),
    # 0 on the others; dpbar_j/dz_ic = p_ij (1[j = c] - p_ic) / kept.
    rng = np.random.default_rng(0)
    s = rng.normal(size=(5, 4))
    s[:, 2] -= 5.0  # class 2 is never predicted
    mask = [1, 1, 0, 1, 1]
    p_tilde, hist = np.array([0.4, 0.3, 0.1, 0.2]), np.array([0.1, 0.2, 0.3, 0.4])
    a = p_tilde / hist / (p_tilde / hist).sum()
    p = np.exp(s) / np.exp(s).sum(axis=1, keepdims=True)
    kept = np.array(mask, dtype=bool)
    pbar = p[kept].mean(axis=0)
    hbar = np.bincount(p[kept].argmax(axis=1), minlength=4) / 4
    assert hbar[2] == 0 and (hbar > 0).sum() >= 2
    on = hbar > 0
    d = np.zeros(4)
    d[on] = a[on] / pbar[on] - a[on].sum() / (hbar[on] * (pbar[on] / hbar[on]).sum())
    want = np.zeros((5, 4))
    for i in np.flatnonzero(kept):
        want[i] = p[i] * (d - (d * p[i]).sum()) / 4
    close(ref.freematch_fair_grad(s, mask, p_tilde, hist), want, atol=1e-8)


# m = 1/2 from 1/2: mean max = (.9 + .8 + .7 + .6)/4 = .75: tau .625; mean p = (.65, .35): p_tilde (.575, .425);
# argmax shares (3/4, 1/4): hist (.625, .375). Class 1's threshold: .625 * .425/.575 = .462. Row 3 (.6) is dropped,
# which the tau before the update (.5) would keep.
W = np.log([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
S = np.log([[3 / 4, 1 / 4], [1 / 4, 3 / 4], [1 / 4, 3 / 4], [1 / 2, 1 / 2]])
# Labelled: 1/2 and 1/4 on the label: (log 2 + 2 log 2)/2 = 1.5 log 2.
X, Y = np.log([[1 / 2, 1 / 2], [1 / 4, 3 / 4]]), [0, 0]
START = (0.5, [0.5, 0.5], [0.5, 0.5], 0.5)
# Kept rows 0, 1, 2 with labels 0, 0, 1: H = log 4/3, log 4, log 4/3, over 4 rows: (2 log 4/3 + log 4)/4.
UNSUP = (2 * LOG(4 / 3) + LOG(4)) / 4
# pbar = (5/12, 7/12), hbar = (1/3, 2/3): r = (5/4, 7/8), N = (10/17, 7/17). p_tilde/hist = 23/25, 17/15 = 69/75, 85/75.
FAIR = 69 / 154 * LOG(10 / 17 + 1e-12) + 85 / 154 * LOG(7 / 17 + 1e-12)


def test_freematch_loss():
    out = ref.freematch_loss(X, Y, W, S, *START)
    assert out["mask"].tolist() == [True, True, True, False]
    close(out["tau"], 0.625)
    close(out["p_tilde"], [0.575, 0.425])
    close(out["hist"], [0.625, 0.375])
    close([out["sup"], out["unsup"], out["fair"]], [1.5 * L2, UNSUP, FAIR])
    close(out["loss"], 1.5 * L2 + UNSUP + 0.001 * FAIR)
    close(ref.freematch_loss(X, Y, W, S, *START, lambda_u=3.0, w_f=0.01)["loss"], 1.5 * L2 + 3 * UNSUP + 0.01 * FAIR)


def test_freematch_loss_cap():
    # tau at most .59: row 3 (.6) is kept now, with H = log 2; the running tau returned is .625 all the same.
    out = ref.freematch_loss(X, Y, W, S, *START, max_tau=0.59)
    assert out["mask"].all()
    close(out["tau"], 0.625)
    close(out["unsup"], UNSUP + L2 / 4)
    # A cap above tau does nothing.
    close(ref.freematch_loss(X, Y, W, S, *START, max_tau=0.95)["loss"], 1.5 * L2 + UNSUP + 0.001 * FAIR)


def test_freematch_loss_none_kept():
    # tau 1 with m = 1 and a uniform p_tilde: the threshold is 1 for both classes.
    out = ref.freematch_loss(X, Y, W, S, 1.0, [0.5, 0.5], [0.5, 0.5], 1.0)
    assert not out["mask"].any() and out["unsup"] == 0.0 and out["fair"] == 0.0 and out["loss"] == out["sup"]
