"""Pi-Model, Pseudo-Labeling, Mean Teacher, VAT + EntMin, UDA, Dash and CoMatch: slow NumPy (float64, explicit loops),
transcribed from methods.md and written apart from the package, as references.py.

Throughout, k is the step, the first one 0, and K the number of steps; masks are (n,) of 0.0 and 1.0; "sup" and "unsup"
are before any weight and ramp.
"""

import math

import numpy as np
from references import (
    _array,
    argmax_lowest,
    cross_entropy_hard,
    cross_entropy_soft,
    log_softmax,
    simmatch_align,
    softmax,
    supervised_loss,
    unit,
)
from references_base import _mean_of


def ramp(k, K, share):
    """w(k) = min(1, k / (share K)); share 0 is no ramp, 1. [methods.md, section "Pi-Model": share .4]"""
    if share == 0:
        return 1.0
    return min(1.0, k / (share * K))


def _mean_square(a, b):
    """Mean over rows AND classes of (a - b)^2. [methods.md, sections "Pi-Model" and "Mean Teacher"]"""
    n, num_classes = a.shape
    total = 0.0
    for i in range(n):
        for c in range(num_classes):
            total += (a[i, c] - b[i, c]) ** 2
    return float(total / (n * num_classes))


def pi_model(logits_x, y, logits_1, logits_2, k, K, lambda_u=10, share=.4):
    """L = L_s + w(k) lambda_u mean over rows and classes of (sg p(a1(u)) - p(a2(u)))^2. [methods.md, "Pi-Model"]

    Returns loss, sup, unsup, q (p of view 1, the target) and w.
    """
    q = softmax(logits_1)
    sup = supervised_loss(logits_x, y)
    unsup = _mean_square(q, softmax(logits_2))
    w = ramp(k, K, share)
    return {"loss": sup + w * lambda_u * unsup, "sup": sup, "unsup": unsup, "q": q, "w": w}


def pseudo_label(logits_x, y, logits_u, k, K, tau=.95, lambda_u=1, share=.4):
    """L = L_s + w(k) lambda_u mean 1[max p > tau] H(argmax p, p), p = p(a(u)). [methods.md, "Pseudo-Labeling"]

    Strictly above tau; the mean divides by ALL rows. Returns loss, sup, unsup, q (p), mask, label (n,), for dropped
    rows too, and w.
    """
    q = softmax(logits_u)
    n = q.shape[0]
    label = np.zeros(n, dtype=np.int64)
    mask = np.zeros(n)
    for i in range(n):
        label[i] = argmax_lowest(q[i])
        mask[i] = 1.0 if q[i, label[i]] > tau else 0.0
    h = cross_entropy_hard(logits_u, label)
    unsup = _mean_of([mask[i] * h[i] for i in range(n)])
    sup = supervised_loss(logits_x, y)
    w = ramp(k, K, share)
    return {"loss": sup + w * lambda_u * unsup, "sup": sup, "unsup": unsup, "q": q, "mask": mask, "label": label,
            "w": w}


def mean_teacher(logits_x, y, teacher_logits_1, logits_2, k, K, lambda_u=50, share=.4):
    """L = L_s + w(k) lambda_u mean over rows and classes of (p_ema(a1(u)) - p(a2(u)))^2. [methods.md, "Mean Teacher"]

    Returns loss, sup, unsup, q (the teacher's p of view 1) and w.
    """
    return pi_model(logits_x, y, teacher_logits_1, logits_2, k, K, lambda_u, share)


def _linear(u, W):
    """u @ W, (n, C), as sums of products."""
    u, W = _array(u), _array(W)
    logits = np.zeros((u.shape[0], W.shape[1]))
    for i in range(u.shape[0]):
        for c in range(W.shape[1]):
            for j in range(W.shape[0]):
                logits[i, c] += u[i, j] * W[j, c]
    return logits


def kl_rows(logits_a, logits_b):
    """KL(p_a || p_b) = sum_c p_a[c] (log p_a[c] - log p_b[c]) of each row (n,). [methods.md, "VAT + EntMin", "UDA"]"""
    p_a, log_a, log_b = softmax(logits_a), log_softmax(logits_a), log_softmax(logits_b)
    kl = np.zeros(p_a.shape[0])
    for i in range(p_a.shape[0]):
        for c in range(p_a.shape[1]):
            kl[i] += p_a[i, c] * (log_a[i, c] - log_b[i, c])
    return kl


def vat_gradient(u, W, d, reverse=False):
    """Gradient (n, D), with respect to d at d, of mean KL(sg p(u) || p(u+d)), logits = u @ W. ["VAT + EntMin"]

    Derived here. With P = p(u) constant, Q = p(u+d) = softmax(z), z = (u+d) W, and dQ_j/dz_c = Q_j (1[j = c] - Q_c):
        forward: d/dz_c of -sum_j P_j log Q_j = Q_c - P_c;
        reverse, KL(Q || P): with a_j = log Q_j - log P_j, d/dz_c of sum_j Q_j a_j = sum_j dQ_j/dz_c (a_j + 1)
            = Q_c (a_c - sum_j Q_j a_j), the ones falling out.
    Then d/dd[i, m] = sum_c W[m, c] d/dz[i, c], and 1/n for the mean over n rows.
    """
    u, W, d = _array(u), _array(W), _array(d)
    clean, moved = _linear(u, W), _linear(u + d, W)
    P, Q, log_P, log_Q = softmax(clean), softmax(moved), log_softmax(clean), log_softmax(moved)
    n, num_classes = P.shape
    g = np.zeros_like(u)
    for i in range(n):
        middle = sum(Q[i, c] * (log_Q[i, c] - log_P[i, c]) for c in range(num_classes))
        for c in range(num_classes):
            if reverse:
                slope = Q[i, c] * (log_Q[i, c] - log_P[i, c] - middle)
            else:
                slope = Q[i, c] - P[i, c]
            for m in range(u.shape[1]):
                g[i, m] += W[m, c] * slope / n
    return g


def vat(x, y, u, W, noise, k, K, lambda_u=.3, lambda_e=.06, eps=6, xi=1e-2, share=.4, reverse=False):
    """L = L_s + w(k) lambda_u mean KL(sg p(u) || p(u+r)) + lambda_e mean entropy of p(u). [methods.md, "VAT + EntMin"]

    For the linear network logits = u @ W: x (B, D), u and noise (n, D), W (D, C). d = xi noise/||noise|| for each row;
    g the gradient at d; r = eps g/||g|| for each row; one power step. No ramp on the entropy. reverse: KL(p(u+d) ||
    p(u)) for g, KL(p(u+r) || p(u)) for the loss. A row of noise or g that is 0 stays 0 (unit's floor, 1e-12).
    Returns loss, sup, unsup (the mean KL at r), entropy (the mean), d, g, r (n, D), q (p(u)) and w.
    """
    u, noise = _array(u), _array(noise)
    n = u.shape[0]
    d, r = np.zeros_like(u), np.zeros_like(u)
    for i in range(n):
        d[i] = xi * unit(noise[i])
    g = vat_gradient(u, W, d, reverse)
    for i in range(n):
        r[i] = eps * unit(g[i])
    clean, moved = _linear(u, W), _linear(u + r, W)
    unsup = _mean_of(kl_rows(moved, clean) if reverse else kl_rows(clean, moved))
    q = softmax(clean)
    entropy = _mean_of(cross_entropy_soft(clean, q))
    sup = supervised_loss(_linear(x, W), y)
    w = ramp(k, K, share)
    return {"loss": sup + w * lambda_u * unsup + lambda_e * entropy, "sup": sup, "unsup": unsup, "entropy": entropy,
            "d": d, "g": g, "r": r, "q": q, "w": w}


def tsa_threshold(k, K, C, tsa):
    """a_k (1 - 1/C) + 1/C, a_k = t, exp(5(t-1)) or 1 - exp(-5t), t = k/K. [methods.md, section "UDA"]"""
    t = k / K
    a = {"linear": t, "exp": math.exp(5.0 * (t - 1.0)), "log": 1.0 - math.exp(-5.0 * t)}[tsa]
    return a * (1.0 - 1.0 / C) + 1.0 / C


def uda(logits_x, y, logits_w, logits_s, k, K, tau=.8, T=.4, lambda_u=1, tsa="none"):
    """L = L_s + lambda_u mean mask KL(q || p(A(u))), q = softmax(logits(a(u))/T). [methods.md, section "UDA"]

    mask = max p(a(u)) > tau, strictly, on the unsharpened p; the mean divides by ALL rows. With tsa, labelled rows of
    p_correct > threshold (strictly) are dropped and L_s = sum over the kept rows / max(1, rows kept).
    Returns loss, sup, unsup, q, mask, kept_labeled (B,) of 0.0 and 1.0, kl (n,), before the mask, and threshold (of
    the annealing, None without).
    """
    logits_w = _array(logits_w)
    p_w, sharp = softmax(logits_w), logits_w / T
    n, num_classes = p_w.shape
    kl = kl_rows(sharp, logits_s)
    mask = np.zeros(n)
    for i in range(n):
        mask[i] = 1.0 if max(p_w[i]) > tau else 0.0
    unsup = _mean_of([mask[i] * kl[i] for i in range(n)])

    h_x, p_x = cross_entropy_hard(logits_x, y), softmax(logits_x)
    kept = np.ones(len(h_x))
    threshold = None if tsa == "none" else tsa_threshold(k, K, num_classes, tsa)
    total = 0.0
    for b in range(len(h_x)):
        if threshold is not None and p_x[b, int(y[b])] > threshold:
            kept[b] = 0.0
        total += kept[b] * h_x[b]
    sup = float(total / max(1.0, sum(kept)))
    return {"loss": sup + lambda_u * unsup, "sup": sup, "unsup": unsup, "q": softmax(sharp), "mask": mask,
            "kept_labeled": kept, "kl": kl, "threshold": threshold}


def dash_start():
    """The state before the first step: the warm-up epoch last seen, its sum of per-step means, its steps. ["Dash"]"""
    return {"epoch": None, "total": 0.0, "steps": 0}


def dash(state, logits_x, y, logits_w, logits_s, k, K, gamma=1.27, rho_min=.05, T=.5, lambda_u=.9, rho0="labeled",
         average="kept"):
    """L = L_s + lambda_u mean over the kept rows of H(target, p(A(u))), 0 when none is kept. [methods.md, "Dash"]

    e = floor(1024k/K). e < 10: every row kept, soft targets softmax(logits_w/T), rho None. Then l_u = -log max p(a(u))
    < max(rho, rho_min), strictly, with rho = rho_0 gamma^(-t), t = floor((e-1)/9); targets soft while rho > rho_min,
    strictly, then the one-hot argmax. rho_0: mean over the steps of epoch 9 (of the last epoch before 10 that has a
    step) of "labeled" L_s or "unlabeled" mean H(softmax(logits_w/T), p(A(u))) over all rows. average "all" divides by
    all rows. Returns loss, sup, unsup, q (the targets as used), mask, rho, state (new), epoch, l_u (n,), soft
    (softmax(logits_w/T)) and h (n,), H(q, p(A(u))) before the mask.
    """
    logits_w = _array(logits_w)
    log_w, soft = log_softmax(logits_w), softmax(logits_w / T)
    n, num_classes = log_w.shape
    sup = supervised_loss(logits_x, y)
    epoch = (1024 * int(k)) // int(K)
    l_u = np.array([-max(log_w[i]) for i in range(n)])
    state = dict(state)
    if epoch < 10:
        rho, q, mask = None, soft, np.ones(n)
        if state["epoch"] != epoch:
            state = {"epoch": epoch, "total": 0.0, "steps": 0}
        measure = {"labeled": sup, "unlabeled": _mean_of(cross_entropy_soft(logits_s, soft))}[rho0]
        state["total"] += measure
        state["steps"] += 1
    else:
        rho = state["total"] / state["steps"] * float(gamma) ** -((epoch - 1) // 9)
        mask = np.zeros(n)
        for i in range(n):
            mask[i] = 1.0 if l_u[i] < max(rho, rho_min) else 0.0
        q = soft
        if not rho > rho_min:
            q = np.zeros((n, num_classes))
            for i in range(n):
                q[i, argmax_lowest(log_w[i])] = 1.0
    h = cross_entropy_soft(logits_s, q)
    total = sum(mask[i] * h[i] for i in range(n))
    count = {"kept": sum(mask), "all": n}[average]
    unsup = float(total / count) if count else 0.0
    return {"loss": sup + lambda_u * unsup, "sup": sup, "unsup": unsup, "q": q, "mask": mask, "rho": rho,
            "state": state, "epoch": epoch, "l_u": l_u, "soft": soft, "h": h}


def comatch_start():
    """The state before the first step: batch means, (z, p) blocks of a step each, steps done. ["CoMatch"]"""
    return {"queue": [], "memory": [], "steps": 0}


def _units(z):
    """unit(z) row by row. [methods.md, "CoMatch": "Embeddings z unit norm"]"""
    return np.array([unit(row) for row in _array(z)])


def comatch(state, logits_x, y, z_x, logits_w, z_w, logits_s0, z_s0, z_s1, tau=.95, alpha=.9, t=.2, graph=.8,
            lambda_u=1, lambda_c=1, da_length=32, memory=5):
    """L = L_s + lambda_u L_u + lambda_c L_c. [methods.md, section "CoMatch"]

    p_w aligned by the mean of the last da_length batch means, the current one pushed first. q = alpha p_w + (1-alpha)
    sum_k a_k p_k, a = softmax(z_w . z_k / t) over the memory as it stands before this step; p_w alone in the first
    memory + 1 steps. The step's (z_w, aligned p_w before smoothing) and (z_x, one-hot) are appended after that.
    L_u = mean over ALL rows of 1[max q >= tau] H(q, p(s0)). W = q_b.q_j over all rows, masked or not, diagonal 1, zero
    under graph (graph itself kept), rows normalised; S = softmax(z_s0 . z_s1 / t); L_c = -mean over b of
    sum_j W_bj log(S_bj + 1e-7). The z come raw. Returns loss, sup, unsup, con (L_c), p_w (aligned), q, mask, W, S,
    state (new) and a (n, memory rows), None in the first steps.
    """
    p_w, queue = simmatch_align(softmax(logits_w), state["queue"], da_length)
    z_x, z_w, z_s0, z_s1 = _units(z_x), _units(z_w), _units(z_s0), _units(z_s1)
    n, num_classes = p_w.shape

    a, q = None, p_w.copy()
    if state["steps"] > memory:
        z_k = [row for z, _ in state["memory"] for row in z]
        p_k = [row for _, p in state["memory"] for row in p]
        a = softmax(_linear(z_w, np.transpose(z_k)) / t)
        for b in range(n):
            for c in range(num_classes):
                smooth = sum(a[b, i] * p_k[i][c] for i in range(len(p_k)))
                q[b, c] = alpha * p_w[b, c] + (1.0 - alpha) * smooth
    one_hot = np.zeros((len(z_x), num_classes))
    for b in range(len(z_x)):
        one_hot[b, int(y[b])] = 1.0
    blocks = [*state["memory"], (np.array([*z_w, *z_x]), np.array([*p_w, *one_hot]))]
    blocks = blocks[max(0, len(blocks) - memory):]

    h = cross_entropy_soft(logits_s0, q)
    mask = np.array([1.0 if max(q[b]) >= tau else 0.0 for b in range(n)])
    unsup = _mean_of([mask[b] * h[b] for b in range(n)])

    W, S = _linear(q, q.T), softmax(_linear(z_s0, z_s1.T) / t)
    con = 0.0
    for b in range(n):
        W[b, b] = 1.0
        for j in range(n):
            if j != b and W[b, j] < graph:
                W[b, j] = 0.0
        total = sum(W[b])
        for j in range(n):
            W[b, j] /= total
            con -= W[b, j] * math.log(S[b, j] + 1e-7) / n
    sup = supervised_loss(logits_x, y)
    return {"loss": sup + lambda_u * unsup + lambda_c * con, "sup": sup, "unsup": unsup, "con": float(con), "p_w": p_w,
            "q": q, "mask": mask, "W": W, "S": S, "a": a,
            "state": {"queue": queue, "memory": blocks, "steps": state["steps"] + 1}}
