"""Slow NumPy references (float64, explicit loops), transcribed from methods.md and written apart from the package.

Each docstring names the section of methods.md it transcribes. Nothing here is meant to be fast, and nothing imports
torch or sslkit. Nothing checks its input.
"""

import itertools
import math

import numpy as np


def _array(x):
    """A float64 copy of x."""
    return np.array(x, dtype=np.float64)


def softmax(logits):
    """p = softmax of the logits, row by row (n, C). [methods.md, preamble: "p = softmax of the logits"]"""
    logits = _array(logits)
    p = np.zeros_like(logits)
    for i in range(logits.shape[0]):
        top = max(logits[i])
        exps = [math.exp(z - top) for z in logits[i]]
        total = sum(exps)
        for c in range(logits.shape[1]):
            p[i, c] = exps[c] / total
    return p


def log_softmax(logits):
    """log p, row by row (n, C), never as log(softmax). [methods.md, preamble: "logarithms by log_softmax"]"""
    logits = _array(logits)
    log_p = np.zeros_like(logits)
    for i in range(logits.shape[0]):
        top = max(logits[i])
        log_total = math.log(sum(math.exp(z - top) for z in logits[i]))
        for c in range(logits.shape[1]):
            log_p[i, c] = (logits[i, c] - top) - log_total
    return log_p


def argmax_lowest(row):
    """Index of the largest entry of one row. [methods.md, preamble: "ties in argmax go to the lowest index"]"""
    best = 0
    for c in range(1, len(row)):
        if row[c] > row[best]:
            best = c
    return best


def cross_entropy_hard(logits, y):
    """H(y, p) of each row (n,): -log p[y]. [methods.md, preamble: "H is cross entropy", log_softmax]"""
    log_p = log_softmax(logits)
    labels = [int(c) for c in y]
    h = np.zeros(log_p.shape[0])
    for i, label in enumerate(labels):
        h[i] = -log_p[i, label]
    return h


def cross_entropy_soft(logits, targets):
    """H(t, p) of each row (n,): -sum_c t[c] log p[c]. [methods.md, preamble: "H is cross entropy", log_softmax]

    targets is (n, C) and is used as it is: not normalised, not checked to sum to one.
    """
    log_p = log_softmax(logits)
    targets = _array(targets)
    h = np.zeros(log_p.shape[0])
    for i in range(log_p.shape[0]):
        for c in range(log_p.shape[1]):
            h[i] -= targets[i, c] * log_p[i, c]
    return h


def supervised_loss(logits_x, y):
    """L_s = mean H(y, p(a(x))), over all rows. [methods.md, section "Supervised"]"""
    h = cross_entropy_hard(logits_x, y)
    total = 0.0
    for value in h:
        total += value
    return float(total / len(h))


def _fixmatch_targets(logits_w, tau):
    """q = p(a(u)), mask = 1[max q >= tau] and pseudo = argmax q, row by row. [methods.md, section "FixMatch (RA)"]"""
    q = softmax(logits_w)
    n = q.shape[0]
    mask = np.zeros(n)
    pseudo = np.zeros(n, dtype=np.int64)
    for i in range(n):
        pseudo[i] = argmax_lowest(q[i])
        mask[i] = 1.0 if q[i, pseudo[i]] >= tau else 0.0
    return q, mask, pseudo


def fixmatch(logits_x, y, logits_w, logits_s, tau, lambda_u):
    """L = L_s + lambda_u * mean 1[max p(a(u)) >= tau] H(argmax p(a(u)), p(A(u))). [methods.md, "FixMatch (RA)"]

    The mean divides by ALL mu*B rows, kept or not. Returns loss, sup, unsup (the mean, before lambda_u), q (n, C),
    mask (n,) of 0.0 and 1.0, and pseudo (n,), given for dropped rows too.
    """
    logits_s = _array(logits_s)
    q, mask, pseudo = _fixmatch_targets(logits_w, tau)
    sup = supervised_loss(logits_x, y)
    log_p = log_softmax(logits_s)
    total = 0.0
    for i in range(q.shape[0]):
        if mask[i]:
            total += -log_p[i, pseudo[i]]
    unsup = float(total / q.shape[0])
    return {"loss": sup + lambda_u * unsup, "sup": sup, "unsup": unsup, "q": q, "mask": mask, "pseudo": pseudo}


class FixMatchEMAN:
    """FixMatch whose labels come from the EMA network, over a run's steps. [methods.md, section "FixMatch-EMAN": "The
    teacher is the EMA of parameters AND BatchNorm statistics, in eval mode; it labels the weak views"]

    The network is BatchNorm (scale g, shift b, eps 1e-5) and a linear classifier (weight w (C, D), bias a): weights is
    the list [g, b, w, a]. momentum is the share of a new batch in the running statistics, whose variance is divided by
    n - 1, as PyTorch's; the batch is normalised by its variance over n. The student's batch is x and u_s together.
    """

    def __init__(self, weights, mean, var, decay, momentum):
        self.decay, self.momentum = decay, momentum
        self.mean, self.var = [float(v) for v in mean], [float(v) for v in var]               # the student's
        self.teacher = [np.array(v, dtype=np.float64) for v in (*weights, mean, var)]

    def loss(self, weights, x, y, u_w, u_s, tau, lambda_u):
        """The figures of fixmatch() for a step; the student's running statistics move on."""
        rows = [*np.asarray(x, dtype=np.float64), *np.asarray(u_s, dtype=np.float64)]
        n = len(rows)
        means = [sum(row[d] for row in rows) / n for d in range(len(self.mean))]
        squares = [sum((row[d] - means[d]) ** 2 for row in rows) for d in range(len(means))]
        logits = normed_logits(rows, *weights, means, [square / n for square in squares])
        teacher = normed_logits(u_w, *self.teacher)
        for d, square in enumerate(squares):
            self.mean[d] += self.momentum * (means[d] - self.mean[d])
            self.var[d] += self.momentum * (square / (n - 1) - self.var[d])
        return fixmatch(logits[:len(x)], y, teacher, logits[len(x):], tau, lambda_u)

    def update(self, weights):
        """After the optimiser's step, `weights` are the student's new ones."""
        for old, new in zip(self.teacher, (*weights, self.mean, self.var)):
            old[...] = self.decay * old + (1.0 - self.decay) * np.asarray(new, dtype=np.float64)


def normed_logits(rows, g, b, w, a, mean, var):
    """Logits (n, C) of a linear classifier on BatchNorm of the rows (n, D), by the mean and variance given."""
    logits = np.zeros((len(rows), len(a)))
    for i, row in enumerate(rows):
        h = [g[d] * (float(row[d]) - mean[d]) / math.sqrt(var[d] + 1e-5) + b[d] for d in range(len(g))]
        for c in range(len(a)):
            logits[i, c] = a[c] + sum(w[c][d] * h[d] for d in range(len(h)))
    return logits


def fixmatch_grad_s(logits_w, logits_s, tau, lambda_u):
    """Gradient (n, C) of lambda_u * unsup with respect to logits_s. [methods.md, section "FixMatch (RA)"]

    Derived here: d(-log p[t]) / dz[c] = p[c] - 1[c = t], so that row i gets lambda_u * mask / n times that, with n
    all the rows. The gradient for logits_w is zero. [methods.md, preamble: "targets carry no gradient"]
    """
    logits_s = _array(logits_s)
    q, mask, pseudo = _fixmatch_targets(logits_w, tau)
    p = softmax(logits_s)
    n, num_classes = p.shape
    grad = np.zeros((n, num_classes))
    for i in range(n):
        for c in range(num_classes):
            target = 1.0 if c == pseudo[i] else 0.0
            grad[i, c] = lambda_u * mask[i] * (p[i, c] - target) / n
    return grad


def sgd_nesterov(param, grads_sequence, lr_sequence, momentum, weight_decay):
    """Trajectory (K, *param.shape) of one parameter, after steps 1 .. K, the initial value left out.

    [methods.md, section "Common protocol": "SGD, Nesterov momentum 0.9", "Weight decay 5e-4 ..., none on BatchNorm and
    biases": pass 0 for those.] PyTorch's convention, dampening 0:
        g <- g + wd * param;  buffer <- momentum * buffer + g (at the first step buffer <- g);
        param <- param - lr * (g + momentum * buffer).
    The learning rate stays outside the buffer, and weight decay is L2, inside the gradient, not decoupled.
    """
    grads, lrs = list(grads_sequence), list(lr_sequence)
    param = np.array(param, dtype=np.float64)
    flat = [float(v) for v in param.ravel()]
    buffer = [0.0] * len(flat)
    trajectory = np.zeros((len(grads), *param.shape))
    for k, (grad, lr) in enumerate(zip(grads, lrs)):
        grad = np.asarray(grad, dtype=np.float64)
        for j, g in enumerate(grad.ravel()):
            g = float(g) + weight_decay * flat[j]
            buffer[j] = g if k == 0 else momentum * buffer[j] + g
            flat[j] -= lr * (g + momentum * buffer[j])
        trajectory[k] = np.array(flat).reshape(param.shape)
    return trajectory


def cosine_lr(k, K, lr):
    """lr * cos(7 pi k / (16 K)), no warm-up; the first step is k = 0. [methods.md, section "Common protocol"]"""
    return lr * math.cos(7.0 * math.pi * k / (16.0 * K))


def learning_rate(k, K, lr, schedule, warmup):
    """Step k of K, from 0, with a linear rise over the first `warmup` K steps. [methods.md, "SimMatch", ImageNet: "lr
    linear over 5 epochs, then .03*(1+cos(pi*(e-5)/395))/2"; "FixMatch-EMAN": "steps at 60 and 80 of 100 epochs, 5 of
    warm-up"]

    The rise counts from 1, as the code of both: its last step has lr. The fall is in steps here, not in whole epochs.
    """
    w = warmup * K
    if k < w:
        return lr if k + 1 > w else lr * (k + 1) / w
    done = (k - w) / (K - w)
    if schedule == "cosine":
        return lr * (1.0 + math.cos(math.pi * done)) / 2.0
    if schedule == "steps":
        return lr if 100 * k < 60 * K else lr / 10.0 if 100 * k < 80 * K else lr / 100.0
    return lr * math.cos(7.0 * math.pi * done / 16.0)


def ema_closed_form(initial, trajectory, decay):
    """EMA after the last step, as a weighted sum. [methods.md, section "Common protocol": "EMA of the parameters"]

    EMA_K = d^K theta_0 + (1 - d) sum_{t=1..K} d^(K-t) theta_t, with theta_t the parameters after step t: it starts as
    a copy of the initial weights, has no bias correction and is updated after each optimiser step.
    """
    initial = np.array(initial, dtype=np.float64)
    steps = [np.asarray(theta, dtype=np.float64) for theta in trajectory]
    K = len(steps)
    total = decay**K * initial
    for t, theta in enumerate(steps, start=1):
        total = total + (1.0 - decay) * decay ** (K - t) * theta
    return total


def short_run_clocks(K):
    """(ema_decay, bn_momentum) = (min(.999, 1 - 10/K), min(.1, max(.001, 100/K))). [methods.md, "Common protocol",
    "Short runs (OURS)"]

    Under 10 steps the formula's decay is negative, and methods.md says nothing.
    """
    return min(0.999, 1.0 - 10.0 / K), min(0.1, max(0.001, 100.0 / K))


def wrn_parameters(depth, widen, num_classes, in_channels=3):
    """Number of trainable parameters of a wide ResNet. [methods.md, section "Common protocol": WRN-28-2, STL-10]

    A 3x3 convolution to 16 channels; groups of n blocks, widths 16w, 32w, 64w; BatchNorm; a classifier with bias.
    Block: BN(in), 3x3 in -> out, BN(out), 3x3 out -> out, a 1x1 in -> out where the width changes; no convolution has
    a bias; each BatchNorm has a scale and a shift (buffers are not counted). Depth 6n + 4 has three groups, depth
    8n + 5 four, the fourth of width 128w ("WRN-37-2, a fourth group, width 256").
    """
    if (depth - 4) % 6 == 0:
        groups, blocks = 3, (depth - 4) // 6
    else:
        groups, blocks = 4, (depth - 5) // 8
    width_in = 16
    total = 3 * 3 * in_channels * width_in
    for group in range(groups):
        width_out = 16 * 2**group * widen
        for _ in range(blocks):
            total += 2 * width_in + 3 * 3 * width_in * width_out
            total += 2 * width_out + 3 * 3 * width_out * width_out
            if width_in != width_out:
                total += width_in * width_out
            width_in = width_out
    total += 2 * width_in
    total += width_in * num_classes + num_classes
    return total


def median_last(values, n=20):
    """Median of the last n evaluations. [methods.md, section "Common protocol": "median of the last 20"]

    An even count gives the mean of the middle two; fewer than n values give the median of those there are.
    """
    values = [float(v) for v in values]
    last = sorted(values[-n:])
    half = len(last) // 2
    if len(last) % 2 == 1:
        return last[half]
    return (last[half - 1] + last[half]) / 2.0


def unit(v):
    """v / max(|v|, 1e-12) for one row (D,). [methods.md, "SimMatch" 1: z = unit(head(h)); the 1e-12 is ours]"""
    v = np.array(v, dtype=np.float64)
    total = 0.0
    for value in v:
        total += value * value
    norm = max(math.sqrt(total), 1e-12)
    return np.array([value / norm for value in v])


def simmatch_align(p_w, queue, size):
    """p_w / mean of the queue of batch means, renormalised for each row. [methods.md, "SimMatch" 2]

    queue holds the earlier batch means, oldest first, at most size. The mean of the current p_w, before alignment, is
    pushed first and the oldest dropped once size are held; before it is full, the mean of those pushed. Returns aligned
    (n, C) and the new queue, a new list.
    """
    p_w = _array(p_w)
    n, num_classes = p_w.shape
    new_queue = [_array(mean) for mean in queue]
    current = np.zeros(num_classes)
    for c in range(num_classes):
        for i in range(n):
            current[c] += p_w[i, c]
        current[c] /= n
    new_queue.append(current)
    while len(new_queue) > size:
        new_queue.pop(0)
    aligned = np.zeros_like(p_w)
    for c in range(num_classes):
        prior = sum(mean[c] for mean in new_queue) / len(new_queue)
        for i in range(n):
            aligned[i, c] = p_w[i, c] / prior
    for i in range(n):
        total = sum(aligned[i])
        for c in range(num_classes):
            aligned[i, c] /= total
    return aligned, new_queue


def _simmatch_similarity_logits(z, bank, t):
    """z . Q_f / t, (n, K_l), with z and the bank as they are given. [methods.md, "SimMatch" 3]"""
    z = _array(z)
    bank = _array(bank)
    logits = np.zeros((z.shape[0], bank.shape[0]))
    for b in range(z.shape[0]):
        for i in range(bank.shape[0]):
            dot = 0.0
            for d in range(bank.shape[1]):
                dot += z[b, d] * bank[i, d]
            logits[b, i] = dot / t
    return logits


def simmatch_targets(p_w, z_w, bank, bank_labels, t, alpha):
    """The two targets of SimMatch from the ALIGNED p_w (n, C). [methods.md, "SimMatch" 3 to 5]

    q_w = softmax(z_w . Q_f / t); q_hat_i = q_w,i f_i / sum_k q_w,k f_k with f_i = p_w[Q_l(i)]; q_agg[c] = sum over i
    with Q_l(i) = c of the ORIGINAL q_w,i; p_hat = alpha*p_w + (1-alpha)*q_agg. Returns q_w, q_hat (n, K_l), q_agg,
    p_hat (n, C).
    """
    p_w = _array(p_w)
    n, num_classes = p_w.shape
    q_w = softmax(_simmatch_similarity_logits(z_w, bank, t))
    num_bank = q_w.shape[1]
    bank_labels = [int(c) for c in bank_labels]
    q_hat = np.zeros_like(q_w)
    q_agg = np.zeros_like(p_w)
    p_hat = np.zeros_like(p_w)
    for b in range(n):
        total = 0.0
        for i in range(num_bank):
            q_hat[b, i] = q_w[b, i] * p_w[b, bank_labels[i]]
            total += q_hat[b, i]
        for i in range(num_bank):
            q_hat[b, i] /= total
            q_agg[b, bank_labels[i]] += q_w[b, i]
        for c in range(num_classes):
            p_hat[b, c] = alpha * p_w[b, c] + (1.0 - alpha) * q_agg[b, c]
    return {"q_w": q_w, "q_hat": q_hat, "q_agg": q_agg, "p_hat": p_hat}


def simmatch_loss(logits_x, y, logits_w, logits_s, z_w, z_s, bank, bank_labels, queue, tau, alpha, t, lambda_u,
                  lambda_in, queue_size, warm, use_p_hat=True, use_q_hat=True):
    """L = L_s + lambda_u L_u + lambda_in L_in. [methods.md, "SimMatch" 1 to 7]

    L_u = mean 1[max p_hat >= tau] H(p_hat, p_s), soft p_hat; L_in = mean H(q_hat, q_s), no mask; both means over ALL
    rows. The bank is read as it stands before this step's write. warm False (the bank is not filled): L_in = 0 and
    p_hat = p_w, the aligned one; the queue is pushed all the same. [Ablation: use_p_hat False is alpha 1; use_q_hat
    False puts q_w in place of q_hat]

    z_w and z_s are unit rows already and are used as given. Returns l_s, l_u, l_in (the means, before their weights),
    loss, p_w (aligned), q_w, q_s, q_hat (always the unfolded one), q_agg, p_hat (the one used), mask (n,) of 0.0 and
    1.0, queue (the new one).
    """
    logits_s = _array(logits_s)
    p_w, new_queue = simmatch_align(softmax(logits_w), queue, queue_size)
    if not use_p_hat or not warm:
        alpha = 1.0
    targets = simmatch_targets(p_w, z_w, bank, bank_labels, t, alpha)
    similarity_s = _simmatch_similarity_logits(z_s, bank, t)
    q_s = softmax(similarity_s)
    n = p_w.shape[0]

    l_s = supervised_loss(logits_x, y)

    h_u = cross_entropy_soft(logits_s, targets["p_hat"])
    mask = np.zeros(n)
    l_u = 0.0
    for b in range(n):
        mask[b] = 1.0 if max(targets["p_hat"][b]) >= tau else 0.0
        if mask[b]:
            l_u += h_u[b]
    l_u = float(l_u / n)

    h_in = cross_entropy_soft(similarity_s, targets["q_hat"] if use_q_hat else targets["q_w"])
    l_in = 0.0
    if warm:
        for b in range(n):
            l_in += h_in[b]
    l_in = float(l_in / n)

    return {"l_s": l_s, "l_u": l_u, "l_in": l_in, "loss": l_s + lambda_u * l_u + lambda_in * l_in, "p_w": p_w,
            "q_w": targets["q_w"], "q_s": q_s, "q_hat": targets["q_hat"], "q_agg": targets["q_agg"],
            "p_hat": targets["p_hat"], "mask": mask, "queue": new_queue}


def _average_repeats(bank, rows, z):
    """{row: the average of the z written to it}, distinct rows ascending. [methods.md, "SimMatch", known slips]"""
    z = _array(z)
    rows = [int(i) for i in rows]
    averages = {}
    for row in sorted(set(rows)):
        total = np.zeros(z.shape[1])
        count = 0
        for b in range(len(rows)):
            if rows[b] == row:
                total = total + z[b]
                count += 1
        averages[row] = total / count
    return averages


def simmatch_write(bank, written, rows, z, momentum=0.7):
    """Temporal ensembling: Q_f[i] = unit(.7*Q_f[i] + .3*z). [methods.md, "SimMatch" 7, 8 and known slips]

    Repeated rows: average their z, blend, then unit (the average is not brought to unit norm before the blend). The
    FIRST write of a row sets it to z, for repeated rows to unit(average): a row that repeats within its first batch
    is written once, not set and then blended. Returns the new bank and the new written, both copies.
    """
    bank = _array(bank)
    written = np.array(written)
    for row, average in _average_repeats(bank, rows, z).items():
        if written[row]:
            bank[row] = unit(momentum * bank[row] + (1.0 - momentum) * average)
        else:
            bank[row] = unit(average)
        written[row] = True
    return bank, written


def simmatch_write_teacher(bank, written, rows, z):
    """Student-teacher: the EMA teacher's embedding z overwrites the row. [methods.md, "SimMatch" 8]

    Repeated rows: average, then unit. Returns the new bank and the new written, both copies.
    """
    bank = _array(bank)
    written = np.array(written)
    for row, average in _average_repeats(bank, rows, z).items():
        bank[row] = unit(average)
        written[row] = True
    return bank, written


def simmatch_write_legacy(bank, rows, z, momentum=0.7):
    """The known slip: blended, then renormalised over the batch axis (each feature, not each row). ["SimMatch", slips]

    Repeated rows are averaged first, and each feature is brought to unit norm over the distinct rows of the batch, so
    that the result does not depend on order (ours). No first-write rule: every row is blended. Returns the new bank.
    """
    bank = _array(bank)
    averages = _average_repeats(bank, rows, z)
    distinct = list(averages)
    block = np.zeros((len(distinct), bank.shape[1]))
    for b, row in enumerate(distinct):
        block[b] = momentum * bank[row] + (1.0 - momentum) * averages[row]
    for d in range(bank.shape[1]):
        block[:, d] = unit(block[:, d])
    for b, row in enumerate(distinct):
        bank[row] = block[b]
    return bank


def _dec_similarity(z, centres):
    """s_ij = (1 + ||z_i - c_j||^2)^-1, (n, K), not normalised. [methods.md, "KD-FixMatch" 3]"""
    z = _array(z)
    centres = _array(centres)
    s = np.zeros((z.shape[0], centres.shape[0]))
    for i in range(z.shape[0]):
        for j in range(centres.shape[0]):
            distance = 0.0
            for d in range(z.shape[1]):
                distance += (z[i, d] - centres[j, d]) ** 2
            s[i, j] = 1.0 / (1.0 + distance)
    return s


def dec_soft_assignment(z, centres):
    """q_ij proportional to (1 + ||z_i - c_j||^2)^-1, rows normalised, (n, K). [methods.md, "KD-FixMatch" 3]"""
    q = _dec_similarity(z, centres)
    for i in range(q.shape[0]):
        total = sum(q[i])
        for j in range(q.shape[1]):
            q[i, j] /= total
    return q


def dec_target(q):
    """p_ij proportional to q_ij^2 / f_j, f_j = sum_i q_ij, rows normalised. [methods.md, "KD-FixMatch" 3]

    f runs over all the rows of q, which is to hold all n rows of the clustering, not a batch. A column of zeros has no
    target (0/0): the Student-t similarities are never zero.
    """
    q = _array(q)
    n, k = q.shape
    f = [0.0] * k
    for j in range(k):
        for i in range(n):
            f[j] += q[i, j]
    p = np.zeros_like(q)
    for i in range(n):
        total = 0.0
        for j in range(k):
            p[i, j] = q[i, j] ** 2 / f[j]
            total += p[i, j]
        for j in range(k):
            p[i, j] /= total
    return p


def dec_loss(p, q):
    """Mean over the rows given of sum_j p_ij log(p_ij / q_ij), 0 log 0 = 0. [methods.md, "KD-FixMatch" 3: "Loss"]

    p > 0 where q = 0 would be infinite.
    """
    p = _array(p)
    q = _array(q)
    total = 0.0
    for i in range(p.shape[0]):
        for j in range(p.shape[1]):
            if p[i, j] > 0.0:
                total += p[i, j] * (math.log(p[i, j]) - math.log(q[i, j]))
    return float(total / p.shape[0])


def _dec_embed(W, features):
    """z_i = W f_i, (n, D): z[i, a] = sum_b W[a, b] f[i, b], no bias. [methods.md, "KD-FixMatch" 3: "z = W*feature"]"""
    W = _array(W)
    features = _array(features)
    z = np.zeros_like(features)
    for i in range(features.shape[0]):
        for a in range(W.shape[0]):
            for b in range(W.shape[1]):
                z[i, a] += W[a, b] * features[i, b]
    return z


def dec_gradients(W, features, centres, p):
    """Gradients (D, D) and (K, D) of dec_loss(p, q) for W and the centres, p constant. [methods.md, "KD-FixMatch" 3]

    Derived here, with d_ij = ||z_i - c_j||^2, s_ij = 1 / (1 + d_ij), q_ij = s_ij / sum_k s_ik and P_i = sum_j p_ij:
        the loss of row i is const - sum_j p_ij log s_ij + P_i log sum_k s_ik,
        d/dd_ij = p_ij s_ij - P_i s_ij^2 / sum_k s_ik = s_ij (p_ij - P_i q_ij),
        d/dz_i = sum_j 2 s_ij (p_ij - P_i q_ij) (z_i - c_j) and d/dc_j = minus the same terms, summed over i,
        d/dW[a, b] = sum_i (d/dz_i)[a] f[i, b],
    all over the n rows given (the batch). P_i is 1 for normalised targets.
    """
    z = _dec_embed(W, features)
    features = _array(features)
    centres = _array(centres)
    p = _array(p)
    s = _dec_similarity(z, centres)
    n, dim = z.shape
    grad_W = np.zeros((dim, dim))
    grad_centres = np.zeros_like(centres)
    for i in range(n):
        mass = sum(p[i])
        total = sum(s[i])
        grad_z = [0.0] * dim
        for j in range(centres.shape[0]):
            slope = s[i, j] * (p[i, j] - mass * s[i, j] / total)
            for d in range(dim):
                step = 2.0 * slope * (z[i, d] - centres[j, d]) / n
                grad_z[d] += step
                grad_centres[j, d] -= step
        for a in range(dim):
            for b in range(dim):
                grad_W[a, b] += grad_z[a] * features[i, b]
    return grad_W, grad_centres


def dec_fit(features, centres, steps, batches, lr=.01, momentum=.9, refresh=140, tolerance=.001):
    """DEC on z = W f with W from the identity; the features stay as they are. [methods.md, "KD-FixMatch" 3]

    Step k = 0 .. steps - 1: where k is a multiple of refresh (k = 0 too), Q over ALL rows under the current W and
    centres, P = dec_target(Q), assignments argmax_j q_ij, ties to the lowest j; at a refresh after the first, the share
    of assignments that differ from the refresh before is put in the history, and under tolerance (strictly) the fit
    stops before this step. Then one SGD step of W and the centres on the rows batches[k], with those rows of P.
    PyTorch's SGD without Nesterov: buffer <- momentum * buffer + grad (first step: grad), param <- param - lr * buffer;
    the buffers live on over refreshes; no weight decay, lr constant.

    batches[k] is an array of row indices for step k, one for each step taken. Returns W, centres, assignments, steps
    taken, history (a list, one share for each refresh after the first). The assignments are those of the LAST REFRESH,
    as in DEC-keras; when the steps run out, W and the centres have moved on since, and there is no refresh at k =
    steps. dec_soft_assignment of the returned W and centres gives the others.
    """
    features = _array(features)
    centres = _array(centres)
    n, dim = features.shape
    k = centres.shape[0]
    W = np.zeros((dim, dim))
    for d in range(dim):
        W[d, d] = 1.0
    buffer_W = np.zeros((dim, dim))
    buffer_centres = np.zeros((k, dim))
    assignments, p, history = None, None, []
    for step in range(steps):
        if step % refresh == 0:
            q = dec_soft_assignment(_dec_embed(W, features), centres)
            p = dec_target(q)
            new = np.array([argmax_lowest(row) for row in q], dtype=np.int64)
            if assignments is not None:
                changed = 0
                for i in range(n):
                    if new[i] != assignments[i]:
                        changed += 1
                history.append(changed / n)
            assignments = new
            if history and history[-1] < tolerance:
                return W, centres, assignments, step, history
        rows = [int(i) for i in batches[step]]
        grad_W, grad_centres = dec_gradients(W, [features[i] for i in rows], centres, [p[i] for i in rows])
        for a in range(dim):
            for b in range(dim):
                buffer_W[a, b] = momentum * buffer_W[a, b] + grad_W[a, b]
                W[a, b] -= lr * buffer_W[a, b]
        for j in range(k):
            for d in range(dim):
                buffer_centres[j, d] = momentum * buffer_centres[j, d] + grad_centres[j, d]
                centres[j, d] -= lr * buffer_centres[j, d]
    return W, centres, assignments, steps, history


def labelled_centres(z, labeled_rows, y, num_classes):
    """Centre c (C, D) = mean z of the labelled rows of class c. [methods.md, "KD-FixMatch" 3: "Centres start at ..."]

    labeled_rows are indices into z, each image once; y[i] is the label of labeled_rows[i]. They count whether or not
    they pass the confidence. A class without a labelled row has no centre.
    """
    z = _array(z)
    rows = [int(i) for i in labeled_rows]
    labels = [int(c) for c in y]
    centres = np.zeros((num_classes, z.shape[1]))
    for c in range(num_classes):
        count = 0
        for row, label in zip(rows, labels):
            if label == c:
                count += 1
                for d in range(z.shape[1]):
                    centres[c, d] += z[row, d]
        for d in range(z.shape[1]):
            centres[c, d] /= count
    return centres


def match_clusters(assignments_of_labelled, y, num_classes):
    """(C,) integers, entry j the class of cluster j. [methods.md, "KD-FixMatch" 3: "k-means with Hungarian matching"]

    The one-to-one matching under which most labelled rows sit in their own class's cluster, by trying all C!
    permutations; among equals the lexicographically smallest (ours). As many clusters as classes (C at most 8 here).
    """
    labels = [int(c) for c in y]
    clusters = [int(c) for c in assignments_of_labelled]
    best, best_hits = None, -1
    for permutation in itertools.permutations(range(num_classes)):  # in lexicographic order
        hits = 0
        for cluster, label in zip(clusters, labels):
            if permutation[cluster] == label:
                hits += 1
        if hits > best_hits:
            best, best_hits = permutation, hits
    return np.array(best, dtype=np.int64)


def trusted_subset(probabilities, clusters_as_classes, tau_select):
    """T = {s(u) >= tau_select} and {cluster(u) = y_o(u)}, s = max p, y_o = argmax p. [methods.md, "KD-FixMatch" 2, 3]

    clusters_as_classes is (n,) integers, the class of each row's cluster; where the confidence is not passed the entry
    is not looked at (-1, say). Returns two boolean masks (n,): those that pass the confidence, and T, a part of them.
    """
    p = _array(probabilities)
    n, num_classes = p.shape
    clusters = np.asarray(clusters_as_classes)
    confident = np.zeros(n, dtype=bool)
    trusted = np.zeros(n, dtype=bool)
    for i in range(n):
        label = argmax_lowest(p[i])
        if p[i, label] >= tau_select:
            confident[i] = True
            trusted[i] = bool(clusters[i] == label)
    return confident, trusted


def sce(logits, labels, a, b):
    """a * CE + b * RCE of each row (n,). [methods.md, "KD-FixMatch" 4: "a*CE + b*RCE on p clipped at 1e-7"]

    What is clipped, read word for word: the predicted p, to pc = max(p, 1e-7), every class, from below only (p is at
    most 1), NOT renormalised; BOTH terms are taken on pc:
        CE = -log pc_y = min(-log p_y, 7 log 10), so never over 16.118, and flat in the logits where p_y < 1e-7;
        RCE = -sum_c pc_c log clip(onehot_c, 1e-4, 1) = 4 log 10 * sum_{c != y} pc_c.
    The one-hot label is clipped at 1e-4 inside RCE's logarithm only (log 1 = 0 at c = y); CE keeps the one-hot itself.
    methods.md's "= 9.2103*(1 - p_y)" is then exact unless some class other than y has p < 1e-7; otherwise it is short
    by 9.2103 * sum of (1e-7 - p_c) over those classes, under 9.3e-7 a class.
    """
    log_p = log_softmax(logits)
    p = softmax(logits)
    n, num_classes = p.shape
    labels = [int(c) for c in labels]
    values = np.zeros(n)
    for i in range(n):
        ce = -max(log_p[i, labels[i]], math.log(1e-7))
        rce = 0.0
        for c in range(num_classes):
            onehot = 1.0 if c == labels[i] else 0.0
            rce -= max(p[i, c], 1e-7) * math.log(min(max(onehot, 1e-4), 1.0))
        values[i] = a * ce + b * rce
    return values


def kd_inner_loss(logits_x, y, logits_w, logits_s, trusted_label, tau_inner, lambda_u, loss="ce", a=1.0, b=1.0):
    """L = L_s + lambda_u * mean m(u) l(target, p_i(A(u))) of the inner network. [methods.md, "KD-FixMatch" 4]

    One hard target a row: where max p_i(a(u)) >= tau_inner, the inner network's own argmax, in T or not; else, in T,
    trusted_label = y_o(u); else none, m(u) = 0. trusted_label is (n,) integers, -1 outside T. The mean divides
    by ALL rows. l is the cross entropy ("ce") or sce(., a, b) ("sce"); L_s is the cross entropy in both. Returns l_s,
    l_u (the mean, before lambda_u), loss, target (n,) with -1 where masked, mask (n,) of 0.0 and 1.0, and source (n,):
    0 masked, 1 own, 2 trusted.
    """
    p = softmax(logits_w)
    logits_s = _array(logits_s)
    n, num_classes = p.shape
    trusted = np.asarray(trusted_label)
    target = np.zeros(n, dtype=np.int64)
    mask = np.zeros(n)
    source = np.zeros(n, dtype=np.int64)
    for i in range(n):
        own = argmax_lowest(p[i])
        if p[i, own] >= tau_inner:
            target[i], mask[i], source[i] = own, 1.0, 1
        elif trusted[i] >= 0:
            target[i], mask[i], source[i] = trusted[i], 1.0, 2
        else:
            target[i], mask[i], source[i] = -1, 0.0, 0
    total = 0.0
    for i in range(n):
        if mask[i]:
            row, label = logits_s[i : i + 1], target[i : i + 1]
            total += float(cross_entropy_hard(row, label)[0] if loss == "ce" else sce(row, label, a, b)[0])
    l_s = supervised_loss(logits_x, y)
    l_u = float(total / n)
    return {"l_s": l_s, "l_u": l_u, "loss": l_s + lambda_u * l_u, "target": target, "mask": mask, "source": source}
