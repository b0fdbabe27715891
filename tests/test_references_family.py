"""Hand-computed cases for references_family.py: the numbers below were worked out on paper, not read off the code."""

import math

import numpy as np
import pytest
import references_family as ref

L2 = math.log(2)
LOG = math.log

# Two labelled rows of two classes: -log 1/2 and -log 1/4, mean 3/2 log 2.
X_LOGITS = np.log([[1 / 2, 1 / 2], [1 / 4, 3 / 4]])
Y = [1, 0]
SUP = 1.5 * L2


def close(a, b, atol=1e-12):
    np.testing.assert_allclose(a, b, rtol=0, atol=atol)


def test_ramp():
    # k / (.4 * 1000) reaches 1 at k = 400; share 0 is 1 from the first step.
    close([ref.ramp(k, 1000, 0.4) for k in (0, 100, 400, 401, 1000)], [0, 0.25, 1, 1, 1])
    assert ref.ramp(0, 1000, 0) == 1.0


# ------------------------------------------------------------------------- Pi-Model, Pseudo-Labeling, Mean Teacher

# Views (1/2, 1/2) | (3/4, 1/4) and (1/4, 3/4) | (1, 3)/4: differences (1/4, -1/4) and (1/2, -1/2): squares
# 1/16 + 1/16 + 1/4 + 1/4 = 5/8 over 2 rows and 2 classes: 5/32.
VIEW_1 = np.log([[1 / 2, 1 / 2], [3 / 4, 1 / 4]])
VIEW_2 = np.log([[1 / 4, 3 / 4], [1 / 4, 3 / 4]])


@pytest.mark.parametrize("method, weight", [(ref.pi_model, 10), (ref.mean_teacher, 50)])
def test_squares(method, weight):
    for k, w in [(0, 0), (100, 0.25), (400, 1), (999, 1)]:
        out = method(X_LOGITS, Y, VIEW_1, VIEW_2, k, 1000)
        close([out["sup"], out["unsup"], out["loss"]], [SUP, 5 / 32, SUP + w * weight * 5 / 32])
    close(out["q"], [[1 / 2, 1 / 2], [3 / 4, 1 / 4]])       # view 1, or the teacher
    close(method(X_LOGITS, Y, VIEW_1, VIEW_2, 0, 1000, lambda_u=3, share=0)["loss"], SUP + 15 / 32)


def test_pseudo_label():
    # tau .7: rows 1 and 2 are above; H = -log 3/4 and -log 9/10 (the same view), over 3 rows.
    u = np.log([[1 / 2, 1 / 2], [1 / 4, 3 / 4], [9 / 10, 1 / 10]])
    out = ref.pseudo_label(X_LOGITS, Y, u, 100, 1000, tau=0.7)
    assert list(out["mask"]) == [0, 1, 1] and list(out["label"]) == [0, 1, 0]       # the tie goes to 0
    unsup = (LOG(4 / 3) + LOG(10 / 9)) / 3
    close([out["sup"], out["unsup"], out["loss"]], [SUP, unsup, SUP + unsup / 4])
    close(out["q"], np.exp(u))
    # .9 is not above the default .95; 1/2 is exact, and not above tau 1/2.
    assert list(ref.pseudo_label(X_LOGITS, Y, u, 0, 1)["mask"]) == [0, 0, 0]
    assert list(ref.pseudo_label(X_LOGITS, Y, [[0.0, 0.0]], 0, 1, tau=0.5)["mask"]) == [0]
    close(ref.pseudo_label(X_LOGITS, Y, u, 0, 1, tau=0.7, lambda_u=2, share=0)["loss"], SUP + 2 * unsup)


# ---------------------------------------------------------------------------------------------------- VAT + EntMin

# Logits (u_1, -u_1), so that p = (s(2 u_1), s(-2 u_1)), s the logistic function, p_0 - p_1 = tanh u_1. u_2 is unused.
W = [[1.0, -1.0], [0.0, 0.0]]
S = LOG(3) / 2              # tanh S = 1/2, cosh S = 2/sqrt 3, p = (3/4, 1/4)
U = [[0.0, 5.0], [S, 5.0]]
NOISE = [[3.0, 4.0], [-7.0, 0.0]]


def test_vat():
    # xi = eps = S. d = S (3/5, 4/5) and (-S, 0). g_1 = (Q_0 - P_0) - (Q_1 - P_1) = tanh(u_1 + d_1) - tanh u_1, over
    # 2 rows: tanh(.6 S)/2 and (0 - 1/2)/2; g_2 = 0. r = (S, 0) and (-S, 0).
    # KL row 0: (1/2, 1/2) to (3/4, 1/4): -log 2 - (log 3/4 + log 1/4)/2 = log(2/sqrt 3) = log cosh S.
    # KL row 1: (3/4, 1/4) to (1/2, 1/2): log 2 - H, H = log 4 - 3/4 log 3. Entropies log 2 and H.
    out = ref.vat(np.array(U)[:1], [1], U, W, NOISE, 100, 1000, eps=S, xi=S)
    close(out["d"], [[0.6 * S, 0.8 * S], [-S, 0]])
    close(out["g"], [[math.tanh(0.6 * S) / 2, 0], [-1 / 4, 0]])
    close(out["r"], [[S, 0], [-S, 0]])
    close(out["q"], [[1 / 2, 1 / 2], [3 / 4, 1 / 4]])
    h = LOG(4) - 0.75 * LOG(3)
    unsup, entropy = (LOG(2 / math.sqrt(3)) + L2 - h) / 2, (L2 + h) / 2
    close([out["sup"], out["unsup"], out["entropy"]], [L2, unsup, entropy])
    close(out["loss"], L2 + 0.25 * 0.3 * unsup + 0.06 * entropy)        # the ramp is on the KL only


def test_vat_reverse():
    # From u_1 = 0, with v = u_1 + d_1: KL(Q || 1/2) = v tanh v - log cosh v, whose slope is v / cosh^2 v.
    # At S: S/2 - log(2/sqrt 3). Row 1 of the other test ends at Q = (1/2, 1/2): KL = log cosh S, by row 0 there.
    v = 0.6 * S
    out = ref.vat(U, [0, 0], U, W, NOISE, 400, 1000, eps=S, xi=S, reverse=True)
    close(out["g"][0], [v / math.cosh(v) ** 2 / 2, 0])
    close(out["r"], [[S, 0], [-S, 0]])
    cosh = LOG(2 / math.sqrt(3))
    close(out["unsup"], (S / 2 - cosh + cosh) / 2)
    # sup: -log 1/2 and -log 3/4. lambda_u .3, at full ramp.
    close(out["loss"], (L2 + LOG(4 / 3)) / 2 + 0.3 * S / 4 + 0.06 * out["entropy"])


@pytest.mark.parametrize("reverse", [False, True])
def test_vat_gradient(reverse):
    """Central differences of the mean KL, written out here once more, at a d that is not small."""
    rng = np.random.default_rng(0)
    u, weights, d = rng.normal(size=(3, 4)), rng.normal(size=(4, 5)), rng.normal(size=(3, 4))

    def mean_kl(d):
        a, b = (np.exp(z) / np.exp(z).sum(1, keepdims=True) for z in (u @ weights, (u + d) @ weights))
        a, b = (b, a) if reverse else (a, b)
        return (a * np.log(a / b)).sum(1).mean()

    numeric = np.zeros_like(d)
    for index in np.ndindex(d.shape):
        step = np.zeros_like(d)
        step[index] = 1e-5
        numeric[index] = (mean_kl(d + step) - mean_kl(d - step)) / 2e-5
    close(ref.vat_gradient(u, weights, d, reverse), numeric, atol=1e-8)
    # vat's g is that gradient at its own d, of L2 norm 1e-2 for each row; r of norm 6, along g; unsup the KL at r.
    out = ref.vat(u, [0, 1, 2], u, weights, d, 0, 1, reverse=reverse)
    close(out["g"], ref.vat_gradient(u, weights, out["d"], reverse))
    close(np.linalg.norm(out["d"], axis=1), [1e-2] * 3)
    close(np.linalg.norm(out["r"], axis=1), [6] * 3)
    close(out["r"], 6 * out["g"] / np.linalg.norm(out["g"], axis=1, keepdims=True))
    close(out["unsup"], mean_kl(out["r"]))


# ------------------------------------------------------------------------------------------------------------- UDA


def test_uda():
    # T 1/2 squares: (3/4, 1/4) -> (9/10, 1/10). KL to (1/2, 1/2) = 9/10 log 9/5 + 1/10 log 1/5; row 1 is dropped.
    w, s = np.log([[3 / 4, 1 / 4], [2 / 3, 1 / 3]]), [[0.0, 0.0], [0.0, 0.0]]
    out = ref.uda(X_LOGITS, Y, w, s, 0, 1, tau=0.7, T=0.5)
    kl = 0.9 * LOG(9 / 5) + 0.1 * LOG(1 / 5)
    close(out["q"], [[9 / 10, 1 / 10], [4 / 5, 1 / 5]])
    assert list(out["mask"]) == [1, 0] and list(out["kept_labeled"]) == [1, 1]
    close([out["sup"], out["unsup"], out["loss"]], [SUP, kl / 2, SUP + kl / 2])
    close(ref.uda(X_LOGITS, Y, w, s, 0, 1, tau=0.7, T=0.5, lambda_u=3)["loss"], SUP + 1.5 * kl)
    # The mask looks at p, not at q: 3/4 is under .8. Strict: 1/2 is not above 1/2. T is .4 by default: power 5/2.
    assert list(ref.uda(X_LOGITS, Y, w, s, 0, 1)["mask"]) == [0, 0]
    assert list(ref.uda(X_LOGITS, Y, s, s, 0, 1, tau=0.5)["mask"]) == [0, 0]
    close(ref.uda(X_LOGITS, Y, w, s, 0, 1)["q"][1], np.array([2**2.5, 1]) / (2**2.5 + 1))


def test_uda_annealing():
    # Two classes, t = 1/2: linear 3/4; exp(-5/2) = .0821: .5410; 1 - exp(-5/2) = .9179: .9590.
    p = np.array([0.52, 0.7, 0.9, 0.97])
    x, y = np.log(np.stack([p, 1 - p], axis=1)), [0, 0, 0, 0]
    u = [[0.0, 0.0]]
    for tsa, kept in [("none", 4), ("log", 3), ("linear", 2), ("exp", 1)]:
        out = ref.uda(x, y, u, u, 512, 1024, tsa=tsa)
        assert list(out["kept_labeled"]) == [1] * kept + [0] * (4 - kept)
        close(out["sup"], -np.log(p[:kept]).sum() / kept)
    # t = 0: 1/2 for linear and log. A row of exactly 1/2 is kept, 3/4 dropped, 1/4 kept: (log 2 + log 4)/2.
    x = [[0.0, 0.0], *np.log([[1 / 4, 3 / 4], [1 / 4, 3 / 4]])]
    for tsa in ("linear", "log"):
        out = ref.uda(x, [1, 1, 0], u, u, 0, 1024, tsa=tsa)
        assert list(out["kept_labeled"]) == [1, 0, 1]
        close(out["sup"], SUP)
        assert ref.uda(x[1:2], [1], u, u, 0, 1024, tsa=tsa)["sup"] == 0.0       # none kept: 0 / max(1, 0)
    # exp at t = 1: a = 1, threshold 1. Four classes, linear, t = 1/2: 1/2 * 3/4 + 1/4 = 5/8.
    close([ref.tsa_threshold(9, 9, 2, "exp"), ref.tsa_threshold(1, 2, 4, "linear")], [1, 5 / 8])


# ------------------------------------------------------------------------------------------------------------ Dash

# l_u = log 2 (exact) and log 4/3. Squares: (1/2, 1/2) and (9/10, 1/10); to (1/2, 1/2) and (3/4, 1/4).
D_W = np.array([[0.0, 0.0], [LOG(3), 0.0]])
D_S = np.log([[1 / 2, 1 / 2], [3 / 4, 1 / 4]])
H1 = 0.9 * LOG(4 / 3) + 0.1 * LOG(4)


def run_dash(ks, K, x_rows=None, **options):
    """The result of the last of the steps ks; x_rows[k] is p of the one labelled row's class (default 1/4)."""
    state = ref.dash_start()
    for k in ks:
        p = (x_rows or {}).get(k, 1 / 4)
        out = ref.dash(state, np.log([[p, 1 - p]]), [0], D_W, D_S, k, K, **options)
        state = out["state"]
    return out


def test_dash_warm_up():
    start = ref.dash_start()
    out = ref.dash(start, X_LOGITS, Y, D_W, D_S, 9, 1024)
    assert out["rho"] is None and list(out["mask"]) == [1, 1] and start == ref.dash_start()
    close(out["q"], [[1 / 2, 1 / 2], [9 / 10, 1 / 10]])
    close([out["sup"], out["unsup"], out["loss"]], [SUP, (L2 + H1) / 2, SUP + 0.45 * (L2 + H1)])


def test_dash_rho():
    # K 2048: two steps an epoch, 18 and 19 are epoch 9 with labelled losses log 2 and log 8, mean 2 log 2; the epochs
    # before do not count. Epoch 10 (20, 21): rho = 2 log 2 / 1.27, as far as epoch 18 (37); 19 (38) 1.27^2; 28 1.27^3.
    rows = {18: 1 / 2, 19: 1 / 8, 17: 1 / 100}
    for k, t in [(20, 1), (21, 1), (37, 1), (38, 2), (55, 2), (56, 3)]:
        out = run_dash([16, 17, 18, 19, k], 2048, rows)
        close(out["rho"], 2 * L2 / 1.27**t)
    close(run_dash([18, 19, 20], 2048, rows, gamma=2)["rho"], L2)
    # "unlabeled": the mean of H(soft, p_s) over all rows, (log 2 + H1)/2 at each step.
    close(run_dash([18, 19, 20], 2048, rows, rho0="unlabeled")["rho"], (L2 + H1) / 2 / 1.27)
    # K 64: step 0 is epoch 0, step 1 epoch 16, t = floor(15/9) = 1. K 200: 51 k/10: step 1 is epoch 5, step 2 epoch 10.
    close(run_dash([0, 1], 64, {0: 1 / 2})["rho"], L2 / 1.27)
    out = run_dash([0, 1, 2], 200, {0: 1 / 100, 1: 1 / 2})
    assert out["epoch"] == 10
    close(out["rho"], L2 / 1.27)


def test_dash_masks():
    # rho_0 = log 2. gamma 1.27: rho = .5458, under log 2 = .693, over log 4/3 = .2877: row 1 alone, soft.
    rows = {9: 1 / 2}
    out = run_dash([9, 10], 1024, rows)
    assert list(out["mask"]) == [0, 1]
    close(out["q"], [[1 / 2, 1 / 2], [9 / 10, 1 / 10]])
    close([out["sup"], out["unsup"], out["loss"]], [LOG(4), H1, LOG(4) + 0.9 * H1])
    out = run_dash([9, 10], 1024, rows, average="all")
    close([out["unsup"], out["loss"]], [H1 / 2, LOG(4) + 0.45 * H1])
    # gamma 100: rho = .0069 is under rho_min .05: one-hot, and nothing is under .05: 0.
    for average in ("kept", "all"):
        out = run_dash([9, 10], 1024, rows, gamma=100, average=average)
        assert list(out["mask"]) == [0, 0] and out["unsup"] == 0.0 and out["loss"] == out["sup"]
        close(out["rho"], L2 / 100)
    # rho_min .5 takes over as the threshold: row 1, whose H is now -log 3/4. One-hot of a tie: class 0.
    out = run_dash([9, 10], 1024, rows, gamma=100, rho_min=0.5)
    assert list(out["mask"]) == [0, 1]
    close(out["q"], [[1, 0], [1, 0]])
    close(out["unsup"], LOG(4 / 3))
    # Both strict: rho = rho_min = log 2, exact. l_u = log 2 is dropped, and the targets are hard.
    out = run_dash([9, 10], 1024, rows, gamma=1, rho_min=-np.log(0.5))
    assert out["rho"] == L2 and list(out["mask"]) == [0, 1]
    close(out["q"], [[1, 0], [1, 0]])


# --------------------------------------------------------------------------------------------------------- CoMatch

E1, E2 = [1.0, 0.0], [0.0, 1.0]
T = 1 / LOG(3)              # exp(1/T) = 3


def test_comatch_first_step():
    # p = (1/2, 1/2), (3/4, 1/4), mean (5/8, 3/8). p/mean: (4/5, 4/3) -> (3/8, 5/8); (6/5, 2/3) -> (9/14, 5/14).
    # q_0 . q_1 = (27 + 25)/112 = 13/28, over .4; rows over 41/28. S: dots 1 and 0, so (3, 1)/4 (z scaled to unit).
    # L_c = -(28/41 log(3/4 + 1e-7) + 13/41 log(1/4 + 1e-7)), the same for both rows.
    # tau .63 keeps row 1 (9/14 = .643): H((9, 5)/14, (1/4, 3/4)) over 2 rows.
    start = ref.comatch_start()
    w, s0 = np.log([[1 / 2, 1 / 2], [3 / 4, 1 / 4]]), np.log([[1 / 2, 1 / 2], [1 / 4, 3 / 4]])
    args = start, X_LOGITS, Y, [E1, E1], w, [E1, E2], s0, [[5.0, 0], [0, 2.0]], [[0.1, 0], [0, 1.0]]
    out = ref.comatch(*args, tau=0.63, t=T, graph=0.4)
    close(out["p_w"], [[3 / 8, 5 / 8], [9 / 14, 5 / 14]])
    close(out["q"], out["p_w"])
    assert list(out["mask"]) == [0, 1]
    close(out["W"], [[28 / 41, 13 / 41], [13 / 41, 28 / 41]])
    close(out["S"], [[3 / 4, 1 / 4], [1 / 4, 3 / 4]])
    unsup = (9 / 14 * LOG(4) + 5 / 14 * LOG(4 / 3)) / 2
    con = -(28 / 41 * LOG(3 / 4 + 1e-7) + 13 / 41 * LOG(1 / 4 + 1e-7))
    close([out["sup"], out["unsup"], out["con"], out["loss"]], [SUP, unsup, con, SUP + unsup + con])
    out = ref.comatch(*args, tau=0.63, t=T, graph=0.47, lambda_u=2, lambda_c=3)        # no edge left
    close(out["W"], np.eye(2))
    close(out["loss"], SUP + 2 * unsup - 3 * LOG(3 / 4 + 1e-7))
    assert start == ref.comatch_start() and out["state"]["steps"] == 1
    # Not strict, both: uniform rows stay uniform, max q = q_0 . q_1 = 1/2 exactly. Rows of W (1, 1/2) / (3/2).
    uniform = start, X_LOGITS, Y, [E1, E1], np.zeros((2, 2)), [E1, E2], s0, [E1, E2], [E1, E2]
    out = ref.comatch(*uniform, tau=0.5, graph=0.5)
    assert list(out["mask"]) == [1, 1]
    close(out["W"], [[2 / 3, 1 / 3], [1 / 3, 2 / 3]])


def test_comatch_memory():
    # Mirrored rows (3/4, 1/4), (1/4, 3/4): mean (1/2, 1/2), the alignment changes nothing. memory 1: p_w alone in two
    # steps; the third sees the second's block alone: z E1 p (3/4, 1/4), z E2 p (1/4, 3/4), z E1 label 0.
    # Row 0, z E1: a = (3, 1, 3)/7: class 0: (9/4 + 1/4 + 3)/7 = 11/14; row 1, z E2: a = (1, 3, 1)/5:
    # (3/4 + 3/4 + 1)/5 = 1/2. alpha 1/2: (3/4 + 11/14)/2 = 43/56 and (1/4 + 1/2)/2 = 3/8.
    w, s = np.log([[3 / 4, 1 / 4], [1 / 4, 3 / 4]]), np.zeros((2, 2))
    state, outs = ref.comatch_start(), []
    for y, z_x in [([1], E2), ([0], [9.0, 0.0]), ([1], E2)]:
        out = ref.comatch(state, [[0.0, 0.0]], y, [z_x], w, [[2.0, 0.0], E2], s, [E1, E2], [E1, E2], tau=0.7, alpha=0.5,
                          t=T, memory=1)
        state = out["state"]
        outs.append(out)
    for out in outs[:2]:
        close(out["q"], [[3 / 4, 1 / 4], [1 / 4, 3 / 4]])
    out = outs[2]
    close(out["a"], [[3 / 7, 1 / 7, 3 / 7], [1 / 5, 3 / 5, 1 / 5]])
    close(out["q"], [[43 / 56, 13 / 56], [3 / 8, 5 / 8]])
    assert list(out["mask"]) == [1, 0]
    # Soft targets against (1/2, 1/2): log 2, one of two rows. L_s = log 2.
    close([out["sup"], out["unsup"]], [L2, L2 / 2])
    # The block kept holds the unit z and the aligned p_w, not q; the labelled row one-hot.
    assert len(state["memory"]) == 1 and state["steps"] == 3
    close(state["memory"][0][0], [E1, E2, E2])
    close(state["memory"][0][1], [[3 / 4, 1 / 4], [1 / 4, 3 / 4], [0, 1]])


def test_comatch_lengths():
    # Defaults: p_w alone in 6 steps, 5 blocks of 2 + 1 rows; the queue keeps da_length means, 32 by default.
    state = ref.comatch_start()
    for step in range(8):
        out = ref.comatch(state, [[0.0, 0.0]], [0], [E1], [[step, 0.0]] * 2, [E1, E2], np.zeros((2, 2)), [E1, E2],
                          [E1, E2], da_length=2)
        state = out["state"]
        assert (out["a"] is None) == (step < 6) and len(state["memory"]) == min(step + 1, 5)
        assert len(state["queue"]) == min(step + 1, 2)
    assert out["a"].shape == (2, 15)
