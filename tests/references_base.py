"""MixMatch, ReMixMatch and FreeMatch, the base methods of HDL: slow NumPy (float64, explicit loops), transcribed from
methods.md and written apart from the package, as references.py.
"""

import math

import numpy as np
from references import _array, argmax_lowest, cross_entropy_hard, cross_entropy_soft, softmax, supervised_loss


def _mean_of_rows(p):
    """The mean of the rows of p, (C,)."""
    mean = np.zeros(p.shape[1])
    for c in range(p.shape[1]):
        for i in range(p.shape[0]):
            mean[c] += p[i, c]
        mean[c] /= p.shape[0]
    return mean


def _mean_of(values):
    """The mean of a list of numbers, as a float."""
    total = 0.0
    for value in values:
        total += float(value)
    return total / len(values)


def ramp_64(k, K):
    """w(k) = min(1, 64 k / K). [methods.md, sections "MixMatch" and "ReMixMatch"]

    The first step is k = 0, as in cosine_lr, so that the first step has w = 0.
    """
    return min(1.0, 64.0 * k / K)


def sharpen(q, T):
    """sharpen(q)_i = q_i^(1/T) / sum, row by row (n, C). [methods.md, section "MixMatch"]

    The rows need not sum to one.
    """
    q = _array(q)
    out = np.zeros_like(q)
    for i in range(q.shape[0]):
        total = 0.0
        for c in range(q.shape[1]):
            out[i, c] = float(q[i, c]) ** (1.0 / T)
            total += out[i, c]
        for c in range(q.shape[1]):
            out[i, c] /= total
    return out


def mixup_rows(a, b, lam):
    """Row i = lam_i * a_i + (1 - lam_i) * b_i, with lam_i replaced by max(lam_i, 1 - lam_i) first.

    [methods.md, section "MixMatch": "lambda = max(lambda, 1-lambda), for each row"] a and b are (n, ...), of any
    trailing shape (none included), the same for both; lam is (n,), as drawn.
    """
    a = np.array(a, dtype=np.float64)
    b = np.array(b, dtype=np.float64)
    lam = np.array(lam, dtype=np.float64)
    out = np.zeros_like(a)
    for i in range(a.shape[0]):
        share = max(lam[i], 1.0 - lam[i])
        for index in np.ndindex(a.shape[1:]):
            out[(i, *index)] = share * a[(i, *index)] + (1.0 - share) * b[(i, *index)]
    return out


def mixmatch_targets(logits_u1, logits_u2, T=0.5):
    """q = sharpen(mean of the two weak views' softmax, T), (n, C). [methods.md, section "MixMatch"]"""
    p_1, p_2 = softmax(logits_u1), softmax(logits_u2)
    mean = np.zeros_like(p_1)
    for i in range(p_1.shape[0]):
        for c in range(p_1.shape[1]):
            mean[i, c] = (p_1[i, c] + p_2[i, c]) / 2.0
    return sharpen(mean, T)


def mixmatch_mix(x, y_onehot, u1, u2, q, permutation, lam):
    """Concatenate x, u1, u2 with targets y, q, q; mix row i with row permutation[i] by lam[i]. [methods.md, "MixMatch"]

    "Concatenate x and both u with their targets; MixUp with one permutation of all": the same permutation and lam for
    rows and targets. Row i of the result stands where row i stood, so that the first B are x' and the rest u'.
    x (B, ...), u1 and u2 (mu*B, ...) with images of any one shape; y_onehot (B, C) is used as it is, not checked to
    be one-hot. Returns the mixed rows (B + 2*mu*B, ...) and the mixed targets (B + 2*mu*B, C).
    """
    x, u1, u2 = (np.array(v, dtype=np.float64) for v in (x, u1, u2))
    y_onehot = _array(y_onehot)
    q = _array(q)
    rows = [*x, *u1, *u2]
    targets = [*y_onehot, *q, *q]
    order = [int(j) for j in permutation]
    partner_rows = [rows[j] for j in order]
    partner_targets = [targets[j] for j in order]
    return mixup_rows(rows, partner_rows, lam), mixup_rows(targets, partner_targets, lam)


def mixmatch_loss(logits_x_mixed, y_mixed, logits_u_mixed, q_mixed, k, K, lambda_u=75):
    """L = mean H(y', p(x')) + lambda_u w(k) * mean of (q' - p(u'))^2. [methods.md, section "MixMatch"]

    The second mean is over the 2*mu*B mixed unlabelled rows AND the C classes.
    w(k) = min(1, 64k/K). sup and unsup are the two means, unsup before lambda_u and w.
    """
    h_x = cross_entropy_soft(logits_x_mixed, y_mixed)
    p_u = softmax(logits_u_mixed)
    q_mixed = _array(q_mixed)
    n, num_classes = p_u.shape
    sup = _mean_of(h_x)
    unsup = 0.0
    for i in range(n):
        for c in range(num_classes):
            unsup += (q_mixed[i, c] - p_u[i, c]) ** 2
    unsup = float(unsup / (n * num_classes))
    return {"loss": sup + lambda_u * ramp_64(k, K) * unsup, "sup": sup, "unsup": unsup}


def remixmatch_align(p_w, p_data, p_model, T=0.5):
    """q = sharpen(N(p * (p_data + 1e-6) / (p_model + 1e-6)), T), (n, C). [methods.md, section "ReMixMatch"]

    p_w (n, C) is the raw p(a(u)); p_model is given as the queue (m, C) of stored batch means (128, all 1/C at the
    start), whose plain mean is taken here as it stands: the current batch is pushed after the step (remixmatch_push).
    p_data (C,) is used as it is.
    """
    p_w = _array(p_w)
    n, num_classes = p_w.shape
    p_data = _array(p_data)
    queue = _array(p_model)
    model = _mean_of_rows(queue)
    aligned = np.zeros_like(p_w)
    for i in range(n):
        total = 0.0
        for c in range(num_classes):
            aligned[i, c] = p_w[i, c] * (p_data[c] + 1e-6) / (model[c] + 1e-6)
            total += aligned[i, c]
        for c in range(num_classes):
            aligned[i, c] /= total
    return sharpen(aligned, T)


def remixmatch_push(queue, pointer, p_w):
    """A new queue (m, C) with the batch mean of the RAW p_w in place pointer. [methods.md, section "ReMixMatch"]

    "the current one pushed after the step": to be called after the step's targets are formed. A ring: place pointer
    is overwritten, the others stay; moving the pointer on, (pointer + 1) mod m, is left to the caller.
    """
    queue = _array(queue)
    mean = _mean_of_rows(_array(p_w))
    for c in range(queue.shape[1]):
        queue[pointer, c] = mean[c]
    return queue


def remixmatch_p_data(p_data, y, C, decay=0.999):
    """decay * p_data + (1 - decay) * class shares of the labelled batch y, (C,). [methods.md, section "ReMixMatch"]

    p_data starts at 1/C each; no bias correction. The decay of the paper's code is .999; of a short run of K steps ours
    is 1 - 10/K (see references.short_run_clocks).
    """
    p_data = _array(p_data)
    labels = [int(c) for c in y]
    out = np.zeros(C)
    for c in range(C):
        count = 0
        for label in labels:
            if label == c:
                count += 1
        out[c] = decay * p_data[c] + (1.0 - decay) * (count / len(labels))
    return out


def remixmatch_loss(logits_x_mixed, y_mixed, logits_u_mixed, q_mixed, logits_s1, q, logits_rot, rot_labels, k, K,
                    w_mixed=1.5, w_s1=0.5, w_rot=0.5):
    """L = mean H(y', p(x')) + w_mixed w mean H(q', p(u')) + w_s1 w mean H(q, p(S1)) + w_rot mean H(rot, p_rot(R(S1))).

    [methods.md, section "ReMixMatch"] w = min(1, 64k/K) on the second and third term only. The targets are soft
    (cross entropies, no squared error), the rotation labels hard, 0 to 3. u' are the mixed rows of a(u), S1..SV: their
    number must be (1 + V) times the rows of S1, V >= 1; R(S1) has as many rows as S1 (each image turned once).
    Returns loss, and sup, unsup, s1, rot: the four means before weights and ramp.
    """
    sup = _mean_of(cross_entropy_soft(logits_x_mixed, y_mixed))
    unsup = _mean_of(cross_entropy_soft(logits_u_mixed, q_mixed))
    s1 = _mean_of(cross_entropy_soft(logits_s1, q))
    rot = _mean_of(cross_entropy_hard(logits_rot, rot_labels))
    w = ramp_64(k, K)
    loss = sup + w_mixed * w * unsup + w_s1 * w * s1 + w_rot * rot
    return {"loss": loss, "sup": sup, "unsup": unsup, "s1": s1, "rot": rot}


def freematch_update(tau, p_tilde, hist, p_w, m):
    """(tau, p_tilde, hist) after one step's update from p_w (n, C). [methods.md, section "FreeMatch"]

    tau <- m tau + (1-m) mean max p; p_tilde <- m p_tilde + (1-m) mean p; hist <- m hist + (1-m) histogram of argmax p.
    The histogram is read as shares (counts over ALL n rows), since hist begins at 1/C. tau is not capped here.
    """
    p_w = _array(p_w)
    n, num_classes = p_w.shape
    p_tilde = _array(p_tilde)
    hist = _array(hist)
    mean_p = _mean_of_rows(p_w)
    mean_max = 0.0
    counts = [0] * num_classes
    for i in range(n):
        best = argmax_lowest(p_w[i])
        mean_max += p_w[i, best]
        counts[best] += 1
    mean_max /= n
    new_p_tilde = np.zeros(num_classes)
    new_hist = np.zeros(num_classes)
    for c in range(num_classes):
        new_p_tilde[c] = m * p_tilde[c] + (1.0 - m) * mean_p[c]
        new_hist[c] = m * hist[c] + (1.0 - m) * (counts[c] / n)
    return float(m * tau + (1.0 - m) * mean_max), new_p_tilde, new_hist


def freematch_mask(tau, p_tilde, p_w):
    """max p >= tau * (p_tilde(c) / max p_tilde), c = argmax p, row by row (n,) bools. [methods.md, section "FreeMatch"]

    tau and p_tilde are those AFTER the step's update. The quotient is taken first, so that the class with the largest
    p_tilde has exactly tau as its threshold. For a capped tau pass min(tau, max_tau).
    """
    p_w = _array(p_w)
    n, num_classes = p_w.shape
    p_tilde = _array(p_tilde)
    largest = max(p_tilde)
    mask = np.zeros(n, dtype=bool)
    for i in range(n):
        best = argmax_lowest(p_w[i])
        mask[i] = p_w[i, best] >= tau * (p_tilde[best] / largest)
    return mask


def _kept_rows(mask, n):
    """The indices of the kept rows of a mask (n,) of booleans or of zeros and ones."""
    return [i for i in range(n) if mask[i] == 1]


def _freematch_hbar(p_s, kept):
    """hbar (C,), the argmax histogram of the kept rows of p(A(u)), as shares. [methods.md, section "FreeMatch"]"""
    hbar = np.zeros(p_s.shape[1])
    for i in kept:
        hbar[argmax_lowest(p_s[i])] += 1.0 / len(kept)
    return hbar


def freematch_fair(logits_s, mask, p_tilde, hist, hbar=None):
    """L_f = sum_c N(p_tilde/hist)_c * log(N(r)_c + 1e-12), minimised as printed. [methods.md, section "FreeMatch"]

    r_c = pbar_c / hbar_c, 0 where hbar_c = 0; pbar the mean and hbar the normalised argmax histogram of p(A(u)) over
    the KEPT rows (both divide by the rows kept; N(r) is the same whatever they divide by); N sum-normalises. 0 when no
    row is kept. p_tilde and hist are those after the step's update. A class with hbar_c = 0 stays in the sum, with
    log(1e-12): a constant, about -27.6 times its weight, and its r_c stays out of the denominator of N(r). hist_c = 0
    leaves p_tilde/hist without a value. A given hbar replaces the histogram of logits_s: it is used to hold hbar
    constant in finite differences.
    """
    p_s = softmax(logits_s)
    n, num_classes = p_s.shape
    kept = _kept_rows(mask, n)
    p_tilde = _array(p_tilde)
    hist = _array(hist)
    if hbar is not None:
        hbar = _array(hbar)
    if not kept:
        return 0.0
    if hbar is None:
        hbar = _freematch_hbar(p_s, kept)
    pbar = np.zeros(num_classes)
    for c in range(num_classes):
        for i in kept:
            pbar[c] += p_s[i, c]
        pbar[c] /= len(kept)
    weight = np.zeros(num_classes)
    r = np.zeros(num_classes)
    for c in range(num_classes):
        weight[c] = p_tilde[c] / hist[c]
        if hbar[c] > 0.0:
            r[c] = pbar[c] / hbar[c]
    weight_total, r_total = sum(weight), sum(r)
    fair = 0.0
    for c in range(num_classes):
        fair += weight[c] / weight_total * math.log(r[c] / r_total + 1e-12)
    return float(fair)


def freematch_fair_grad(logits_s, mask, p_tilde, hist, eps=1e-5):
    """Gradient (n, C) of freematch_fair with respect to logits_s, by central differences. [methods.md, "FreeMatch"]

    "gradient through pbar only": hbar is the one at logits_s and stays there, as do p_tilde and hist; with hbar the
    classes of r = 0 stay constant too. Accurate to about 1e-9. Zero for the rows dropped.
    """
    logits_s = _array(logits_s)
    p_s = softmax(logits_s)
    kept = _kept_rows(mask, p_s.shape[0])
    grad = np.zeros_like(logits_s)
    if not kept:
        return grad
    hbar = _freematch_hbar(p_s, kept)
    for i in range(logits_s.shape[0]):
        for c in range(logits_s.shape[1]):
            up, down = logits_s.copy(), logits_s.copy()
            up[i, c] += eps
            down[i, c] -= eps
            difference = freematch_fair(up, mask, p_tilde, hist, hbar) - freematch_fair(down, mask, p_tilde, hist, hbar)
            grad[i, c] = difference / (2.0 * eps)
    return grad


def freematch_loss(logits_x, y, logits_w, logits_s, tau, p_tilde, hist, m, lambda_u=1, w_f=0.001, max_tau=1.0):
    """L = L_s + lambda_u L_u + w_f L_f, update first, then mask. [methods.md, section "FreeMatch"]

    tau, p_tilde and hist are those before the step; the ones returned are after its update, and mask and L_f use the
    updated ones. L_u as FixMatch: hard labels argmax p(a(u)), divided by ALL mu*B rows. max_tau caps tau where the
    mask uses it, before p_tilde(c) / max p_tilde scales it; the tau returned (the running mean) is NOT capped.
    Returns loss, sup, unsup and fair (before their weights), mask (n,) bools, tau, p_tilde, hist.
    """
    p_w = softmax(logits_w)
    n, num_classes = p_w.shape
    tau, p_tilde, hist = freematch_update(tau, p_tilde, hist, p_w, m)
    mask = freematch_mask(min(tau, max_tau), p_tilde, p_w)
    sup = supervised_loss(logits_x, y)
    h_s = cross_entropy_hard(logits_s, [argmax_lowest(p_w[i]) for i in range(n)])
    unsup = 0.0
    for i in range(n):
        if mask[i]:
            unsup += h_s[i]
    unsup = float(unsup / n)
    fair = freematch_fair(logits_s, mask, p_tilde, hist)
    return {"loss": sup + lambda_u * unsup + w_f * fair, "sup": sup, "unsup": unsup, "fair": fair, "mask": mask,
            "tau": tau, "p_tilde": p_tilde, "hist": hist}
