"""Hand-computed cases for references.py: the numbers below were worked out on paper, not read off the code."""

import math

import numpy as np
import pytest
import references as ref

LOG2, LOG3, LOG4 = math.log(2), math.log(3), math.log(4)

# Logits given as log-probabilities have those probabilities as their softmax.
# Labelled: rows 0 and 1 have p[y] = 1/2 and 1/4, row 2 has p[y] = 1/2: H = log 2, log 4, log 2, mean = (4/3) log 2.
P_X = [[1 / 2, 1 / 4, 1 / 4], [1 / 4, 1 / 4, 1 / 2], [1 / 4, 1 / 2, 1 / 4]]
Y = [0, 1, 1]
# Unlabelled: only row 1 passes tau = .95; its label is 2, and the strong view gives class 2 a 1/4: H = log 4.
# The mean divides by 3 although one row is kept: unsup = log(4) / 3.
P_W = [[0.5, 0.3, 0.2], [0.01, 0.02, 0.97], [0.04, 0.94, 0.02]]
P_S = [[1 / 4, 1 / 2, 1 / 4], [1 / 4, 1 / 2, 1 / 4], [1 / 2, 1 / 4, 1 / 4]]


def test_softmax_and_log_softmax():
    # exp(0), exp(log 3) = 1, 3: softmax 1/4, 3/4. Equal logits: 1/2 each. A shift of the row changes nothing.
    logits = [[0.0, LOG3], [7.0, 7.0], [100.0, 100.0 + LOG3]]
    want = [[0.25, 0.75], [0.5, 0.5], [0.25, 0.75]]
    assert np.allclose(ref.softmax(logits), want, atol=1e-12)
    assert np.allclose(ref.log_softmax(logits), np.log(want), atol=1e-12)


def test_log_softmax_does_not_underflow():
    # softmax is (1, 0) in float64, its logarithm -inf; log_softmax is (0, -1000).
    assert ref.softmax([[1000.0, 0.0]]).tolist() == [[1.0, 0.0]]
    assert ref.log_softmax([[1000.0, 0.0]]).tolist() == [[0.0, -1000.0]]


def test_argmax_ties_go_to_the_lowest_index():
    assert ref.argmax_lowest([1.0, 3.0, 3.0]) == 1
    assert ref.argmax_lowest([2.0, 2.0, 2.0]) == 0
    assert ref.argmax_lowest([-3.0, -2.0, -1.0]) == 2


def test_cross_entropy_hard():
    assert np.allclose(ref.cross_entropy_hard(np.log(P_X), Y), [LOG2, LOG4, LOG2], atol=1e-12)


def test_cross_entropy_soft():
    # Row 0: t = (1/2, 1/2, 0), p = (1/2, 1/4, 1/4): (1/2) log 2 + (1/2) log 4 = 1.5 log 2.
    # Row 1: t uniform, p = (1/4, 1/4, 1/2): (log 4 + log 4 + log 2) / 3 = (5/3) log 2.
    # Row 2: one-hot at 1: the hard case, log 2.
    targets = [[0.5, 0.5, 0.0], [1 / 3, 1 / 3, 1 / 3], [0.0, 1.0, 0.0]]
    want = [1.5 * LOG2, 5 / 3 * LOG2, LOG2]
    assert np.allclose(ref.cross_entropy_soft(np.log(P_X), targets), want, atol=1e-12)


def test_soft_cross_entropy_of_one_hot_is_the_hard_one():
    rng = np.random.default_rng(0)
    logits, y = rng.normal(size=(5, 4)), rng.integers(0, 4, size=5)
    assert np.allclose(ref.cross_entropy_soft(logits, np.eye(4)[y]), ref.cross_entropy_hard(logits, y), atol=1e-12)


def test_supervised_loss():
    assert ref.supervised_loss(np.log(P_X), Y) == pytest.approx(4 / 3 * LOG2, abs=1e-12)


def test_fixmatch_by_hand():
    out = ref.fixmatch(np.log(P_X), Y, np.log(P_W), np.log(P_S), tau=0.95, lambda_u=2.0)
    assert out["mask"].tolist() == [0.0, 1.0, 0.0]
    assert out["pseudo"].tolist() == [0, 2, 1]
    assert np.allclose(out["q"], P_W, atol=1e-12)
    assert out["sup"] == pytest.approx(4 / 3 * LOG2, abs=1e-12)
    # A third of log 4 = .462098; dividing by the kept rows would give 1.386294.
    assert out["unsup"] == pytest.approx(LOG4 / 3, abs=1e-12)
    assert out["unsup"] == pytest.approx(0.462098, abs=1e-6)
    # (4/3) log 2 + 2 (2/3) log 2 = (8/3) log 2
    assert out["loss"] == pytest.approx(8 / 3 * LOG2, abs=1e-12)


def test_fixmatch_tau_met_exactly_and_ties():
    # p = (1/2, 1/2) exactly: a tie, so class 0; max p == tau = 1/2, kept. Strong rows (1/4, 3/4): H(0) = log 4.
    # Row 1: p = (1/4, 3/4), class 1, kept, H(1) = log 4/3. Row 2: logits (0, -1), class 0, p about .73, kept, log 4.
    logits_w = [[0.0, 0.0], [0.0, LOG3], [0.0, -1.0]]
    logits_s = [[0.0, LOG3]] * 3
    out = ref.fixmatch([[0.0, 0.0]], [0], logits_w, logits_s, tau=0.5, lambda_u=1.0)
    assert out["mask"].tolist() == [1.0, 1.0, 1.0]
    assert out["pseudo"].tolist() == [0, 1, 0]
    assert out["unsup"] == pytest.approx((LOG4 + math.log(4 / 3) + LOG4) / 3, abs=1e-12)
    # The next float above 1/2 drops row 0 alone.
    out = ref.fixmatch([[0.0, 0.0]], [0], logits_w, logits_s, tau=np.nextafter(0.5, 1.0), lambda_u=1.0)
    assert out["mask"].tolist() == [0.0, 1.0, 1.0]
    assert out["unsup"] == pytest.approx((math.log(4 / 3) + LOG4) / 3, abs=1e-12)


def test_fixmatch_with_no_row_kept():
    out = ref.fixmatch(np.log(P_X), Y, np.log(P_W), np.log(P_S), tau=0.99, lambda_u=1.0)
    assert out["unsup"] == 0.0 and out["loss"] == out["sup"]
    assert not ref.fixmatch_grad_s(np.log(P_W), np.log(P_S), tau=0.99, lambda_u=1.0).any()


def test_fixmatch_grad_by_hand():
    # Row 1 only: lambda_u / 3 * (p - onehot(2)) = 2/3 * (1/4, 1/2, 1/4 - 1) = (1/6, 1/3, -1/2).
    grad = ref.fixmatch_grad_s(np.log(P_W), np.log(P_S), tau=0.95, lambda_u=2.0)
    assert np.allclose(grad, [[0, 0, 0], [1 / 6, 1 / 3, -1 / 2], [0, 0, 0]], atol=1e-12)


def test_fixmatch_grad_is_the_finite_difference():
    rng = np.random.default_rng(1)
    logits_w, logits_s = 3 * rng.normal(size=(6, 4)), rng.normal(size=(6, 4))
    grad = ref.fixmatch_grad_s(logits_w, logits_s, tau=0.7, lambda_u=1.5)
    kept = ref.fixmatch(logits_w, [0] * 6, logits_w, logits_s, 0.7, 1.5)["mask"].sum()
    assert 0 < kept < 6
    eps = 1e-5
    for i in range(6):
        for c in range(4):
            step = np.zeros((6, 4))
            step[i, c] = eps
            up = ref.fixmatch(logits_w, [0] * 6, logits_w, logits_s + step, 0.7, 1.5)["loss"]
            down = ref.fixmatch(logits_w, [0] * 6, logits_w, logits_s - step, 0.7, 1.5)["loss"]
            assert grad[i, c] == pytest.approx((up - down) / (2 * eps), abs=1e-8)


def test_sgd_nesterov_by_hand():
    # wd 0: buffer 1, step 1 + .9 = 1.9, param 1 - .19 = .81; buffer 1.9, step 1 + 1.71 = 2.71, param .539.
    out = ref.sgd_nesterov(1.0, [1.0, 1.0], [0.1, 0.1], momentum=0.9, weight_decay=0.0)
    assert np.allclose(out, [0.81, 0.539], atol=1e-12)
    # The second rate a tenth: the rate is outside the buffer, .81 - .0271 = .7829.
    out = ref.sgd_nesterov(1.0, [1.0, 1.0], [0.1, 0.01], momentum=0.9, weight_decay=0.0)
    assert np.allclose(out, [0.81, 0.7829], atol=1e-12)
    # wd .1: g = 1.1, buffer 1.1, step 1.1 + .99 = 2.09, param .791; g = 1.0791, buffer .99 + 1.0791 = 2.0691,
    # step 1.0791 + 1.86219 = 2.94129, param .791 - .294129 = .496871.
    out = ref.sgd_nesterov(1.0, [1.0, 1.0], [0.1, 0.1], momentum=0.9, weight_decay=0.1)
    assert np.allclose(out, [0.791, 0.496871], atol=1e-12)


def test_sgd_nesterov_shapes_and_inputs():
    # Without momentum, plain SGD: (1, 2) - .5 (2, 4) = (0, 0), then - .5 (0, -2) = (0, 1). The input is not changed.
    param = np.array([[1.0, 2.0]])
    out = ref.sgd_nesterov(param, [[[2.0, 4.0]], [[0.0, -2.0]]], [0.5, 0.5], momentum=0.0, weight_decay=0.0)
    assert out.tolist() == [[[0.0, 0.0]], [[0.0, 1.0]]]
    assert param.tolist() == [[1.0, 2.0]]


def test_fixmatch_eman():
    # One number, two classes, logits (0, h). The teacher's mean is 1, its deviation 2: h = 0 and log 3.
    log3 = math.log(3)
    run = ref.FixMatchEMAN([np.ones(1), np.zeros(1), np.array([[0.0], [1.0]]), np.zeros(2)], [1.0], [4 - 1e-5], 0.75, 0.5)
    out = run.loss([np.ones(1), np.zeros(1), np.array([[0.0], [1.0]]), np.zeros(2)], [[3.0]], [1], [[1.0], [1 + 2 * log3]], [[1.0], [2.0]], 0.7, 2.0)
    # q = (1/2, 1/2) and (1/4, 3/4): the second is kept, label 1.
    assert out["q"] == pytest.approx(np.array([[0.5, 0.5], [0.25, 0.75]])) and list(out["mask"]) == [0, 1]
    # The student's rows 3; 1, 2 have mean 2, variance 2/3: x has h = sqrt(3/2), the kept u_s = 2 has h = 0: H = log 2, halved, times 2.
    sup = math.log(1 + math.exp(-1 / math.sqrt(2 / 3 + 1e-5)))
    assert out["sup"] == pytest.approx(sup) and out["loss"] == pytest.approx(sup + math.log(2))
    # Running statistics: mean (1 + 2)/2, variance (4 + 1)/2, as 2 / (3 - 1) = 1. The EMA has three quarters of its own.
    assert run.mean == [1.5] and run.var == pytest.approx([2.5], abs=1e-5)
    run.update([np.array([5.0]), np.zeros(1), np.array([[0.0], [1.0]]), np.array([4.0, 0.0])])
    assert [float(v.ravel()[0]) for v in run.teacher] == pytest.approx([2.0, 0.0, 0.0, 1.0, 1.125, 3.625], abs=1e-5)


def test_learning_rate():
    # 80 steps, warm-up 1/8: 10 steps up, 1/10 at first, 1 at the tenth; then 70 down: at 45 half-way.
    rate = lambda k, schedule="cosine": ref.learning_rate(k, 80, 2.0, schedule, 0.125)           # noqa: E731
    assert [rate(0), rate(4), rate(9), rate(10), rate(45)] == pytest.approx([0.2, 1.0, 2.0, 2.0, 1.0])
    assert [rate(k, "steps") for k in (0, 10, 47, 48, 63, 64, 79)] == pytest.approx([0.2, 2, 2, 0.2, 0.2, 0.02, 0.02])
    assert rate(45, "fixmatch") == pytest.approx(2 * math.cos(7 * math.pi / 32))


def test_cosine_lr():
    # k = 0: cos 0 = 1. k = 4K/7: cos(pi/4). k = K: cos(7 pi/16) = .19509, so that the rate never reaches 0.
    assert ref.cosine_lr(0, 1000, 0.03) == 0.03
    assert ref.cosine_lr(400, 700, 0.03) == pytest.approx(0.03 * math.sqrt(0.5), abs=1e-12)
    assert ref.cosine_lr(1000, 1000, 0.03) == pytest.approx(0.03 * 0.19509032, abs=1e-9)


def test_ema_closed_form():
    # d = 1/2, start 1, then 2, 4: 1.5, then 2.75; as a sum 1/4 * 1 + 1/4 * 2 + 1/2 * 4 = 2.75.
    assert float(ref.ema_closed_form(1.0, [2.0, 4.0], 0.5)) == 2.75
    assert float(ref.ema_closed_form(1.0, [], 0.5)) == 1.0
    # Three steps of a vector, d = .9: .729 * 0 + .1 (.81 * 1 + .9 * 2 + 3) = .561; a constant stays where it is.
    out = ref.ema_closed_form([0.0, 5.0], [[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]], 0.9)
    assert np.allclose(out, [0.561, 5.0], atol=1e-12)


def test_ema_after_1000_steps_holds_37_percent_of_the_start():
    # methods.md: "at 1,000 steps an EMA of .999 still holds 37% of the random start"; the short clock, .99^1000 = 4e-5.
    zeros = np.zeros(1000)
    assert float(ref.ema_closed_form(1.0, zeros, 0.999)) == pytest.approx(0.3677, abs=1e-4)
    assert float(ref.ema_closed_form(1.0, zeros, ref.short_run_clocks(1000)[0])) == pytest.approx(4.3e-5, abs=1e-6)


@pytest.mark.parametrize(
    "K, ema_decay, bn_momentum",
    [
        (10, 0.0, 0.1),  # 1 - 1; 100/10 = 10, capped
        (100, 0.9, 0.1),  # 100/100 = 1, capped
        (1000, 0.99, 0.1),  # 100/1000 = .1, where the cap ends
        (2000, 0.995, 0.05),
        (10_000, 0.999, 0.01),  # where the decay's cap starts
        (100_000, 0.999, 0.001),  # where the momentum's floor starts
        (2**20, 0.999, 0.001),  # the full run: the protocol's own values
    ],
)
def test_short_run_clocks(K, ema_decay, bn_momentum):
    assert ref.short_run_clocks(K) == pytest.approx((ema_decay, bn_momentum), abs=1e-12)


def test_wrn_parameters_by_hand():
    # WRN-10-1, 10 classes. First convolution 432. Group 1, 16 -> 16, no shortcut: 32 + 2304 + 32 + 2304 = 4672.
    # Group 2, 16 -> 32: 32 + 4608 + 64 + 9216 + 512 = 14432.
    # Group 3, 32 -> 64: 64 + 18432 + 128 + 36864 + 2048 = 57536.
    # BatchNorm 128, classifier 640 + 10. Sum 77850. One input channel: 2 * 16 * 9 = 288 fewer.
    assert ref.wrn_parameters(10, 1, 10) == 77_850
    assert ref.wrn_parameters(10, 1, 10, in_channels=1) == 77_562


def test_wrn_parameters_of_the_protocol():
    assert ref.wrn_parameters(28, 2, 10) == 1_467_610
    assert ref.wrn_parameters(28, 8, 100) == 23_401_012
    # WRN-37-2: 1467610 - 256 - 1290 (the last BatchNorm and classifier at 128) + 512 + 2570 (at 256) + a fourth group:
    # 256 + 294912 + 512 + 589824 + 32768 = 918272 and three times 2 (512 + 589824) = 1180672. Sum 5929434.
    assert ref.wrn_parameters(37, 2, 10) == 5_929_434


def test_median_last():
    # The last 20 of 0 .. 29 are 10 .. 29, the middle two 19 and 20. Order within the window does not matter.
    assert ref.median_last(range(30)) == 19.5
    assert ref.median_last([100.0, 3.0, 1.0, 2.0], n=3) == 2.0
    assert ref.median_last([4.0, 1.0, 3.0]) == 3.0  # fewer than 20: all of them
    assert ref.median_last([9.0, 1.0], n=1) == 1.0
