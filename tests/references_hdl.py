"""Slow NumPy reference of HDL (Hierarchical Dynamic Labeling), transcribed from methods.md, section "HDL".

Written apart from the package: explicit loops, float64, nothing imported from torch, sklearn or sslkit. Every step
recounts L, g, the votes and the similarities from the labels of that moment; there are no counters and no queue.

Read throughout, where the text leaves room:
- Ties are ties of float64 values, compared exactly, with no tolerance. Sums are math.fsum: correctly rounded, so they
  do not depend on the order of the terms. Another program may break a tie of rounded numbers differently; compare it
  on coordinates whose similarities are exact (integers on a line), or on data without ties.
- Embeddings are turned into float64 before anything is computed.
- Labels are integers; -1 is unknown. Class numbers may have gaps.
- k above n - 1 is cut to n - 1 without a word.
- Nothing checks its input.
"""

import math

import numpy as np

METRICS = ("cosine", "euclidean")
MODES = ("exact", "layer")


# ---------------------------------------------------------------------------------------------------------------
# similarity and neighbours
# ---------------------------------------------------------------------------------------------------------------


def similarity(embeddings, metric="cosine"):
    """How alike each pair of rows is, (n, n) float64, larger is more alike. [section "HDL", step 1]

    "cosine": dot products of the rows scaled to unit length. "euclidean": minus the Euclidean distance. The diagonal is
    computed like any other entry (a cosine of a row with itself may differ from 1 in the last digit); nothing below
    reads it. Both are symmetric to the last digit.
    """
    x = np.array(embeddings, dtype=np.float64)
    n, d = x.shape
    sim = np.zeros((n, n))
    if metric == "cosine":
        for i in range(n):
            length = math.hypot(*x[i])
            for t in range(d):
                x[i, t] = x[i, t] / length
        for i in range(n):
            for j in range(n):
                sim[i, j] = math.fsum(float(x[i, t]) * float(x[j, t]) for t in range(d))
    else:
        for i in range(n):
            for j in range(n):
                differences = [float(x[i, t]) - float(x[j, t]) for t in range(d)]
                distance = math.hypot(*differences)
                sim[i, j] = 0.0 - distance
    return sim


def _most_similar(sim, i, candidates, k):
    """The k candidates most similar to row i, most similar first, ties to the lower index; i itself never."""
    left = [j for j in candidates if j != i]
    chosen = []
    while left and len(chosen) < k:
        best = left[0]
        for j in left[1:]:
            if sim[i, j] > sim[i, best] or (sim[i, j] == sim[i, best] and j < best):
                best = j
        chosen.append(best)
        left.remove(best)
    return chosen


def neighbours(sim, k):
    """kNN(i) for each row: n lists of min(k, n - 1) rows, most similar first. [section "HDL", step 1]

    The row itself is left out by its index, not by its similarity: a duplicate of the row stays. Ties go to the lower
    index. Labelled and unlabelled rows are searched together.
    """
    sim = np.array(sim, dtype=np.float64)
    n = sim.shape[0]
    return [_most_similar(sim, i, range(n), min(k, n - 1)) for i in range(n)]


# ---------------------------------------------------------------------------------------------------------------
# one step, counted from scratch
# ---------------------------------------------------------------------------------------------------------------


def _vote(sim, i, voters, label):
    """(class, its votes): the vote of the voters on row i. [step 1: count; sum of similarities; lowest class]

    Each voter has one vote for its own class. The sum is over the voters of that class only.
    """
    best_class, best_count, best_sum = None, None, None
    for c in sorted({label[j] for j in voters}):
        count = sum(1 for j in voters if label[j] == c)
        total = math.fsum(float(sim[i, j]) for j in voters if label[j] == c)
        if best_class is None or count > best_count or (count == best_count and total > best_sum):
            best_class, best_count, best_sum = c, count, total
    return best_class, best_count


def _labelled_neighbours(knn, i, label):
    """The rows of kNN(i) that have a label now; L_i is how many they are."""
    return [j for j in knn[i] if label[j] != -1]


def _unlabelled_reverse(knn, i, label):
    """g_i: the number of rows j != i, unlabelled now, that have i in kNN(j)."""
    return sum(1 for j in range(len(knn)) if j != i and label[j] == -1 and i in knn[j])


def _copy_pair(sim, label):
    """(unlabelled row, labelled row) of the largest similarity; ties: lowest unlabelled, then lowest labelled."""
    best = None
    for i in range(len(label)):
        if label[i] != -1:
            continue
        for j in range(len(label)):
            if label[j] == -1:
                continue
            if best is None or sim[i, j] > sim[best[0], best[1]]:
                best = (i, j)
    return best


def _run(sim, labels, k, mode):
    """Label every row; the body of hdl_exact and hdl_layer, on checked input."""
    n = len(labels)
    knn = neighbours(sim, k)
    label = list(labels)
    order = [0] * n
    layer = [0] * n
    votes = [0] * n
    step = 0
    while any(c == -1 for c in label):
        step += 1
        unlabelled = [i for i in range(n) if label[i] == -1]
        level = {i: len(_labelled_neighbours(knn, i, label)) for i in unlabelled}
        top = max(level.values())

        if top == 0:
            i, j = _copy_pair(sim, label)
            label[i] = label[j]
            order[i], layer[i], votes[i] = step, 0, 1
            continue

        largest = [i for i in unlabelled if level[i] == top]
        if mode == "exact":
            chosen, chosen_key = None, None
            for i in largest:  # ascending, and only a strictly larger key replaces: ties stay with the lowest index
                voters = _labelled_neighbours(knn, i, label)
                mean = math.fsum(float(sim[i, j]) for j in voters) / len(voters)
                key = (_unlabelled_reverse(knn, i, label), mean)
                if chosen is None or key > chosen_key:
                    chosen, chosen_key = i, key
            largest = [chosen]

        before = list(label)  # the labels before this step or layer: the only ones that vote in it
        for i in largest:
            voters = _labelled_neighbours(knn, i, before)
            label[i], votes[i] = _vote(sim, i, voters, before)
            order[i], layer[i] = step, top
    return {
        "label": np.array(label, dtype=np.int64),
        "order": np.array(order, dtype=np.int64),
        "layer": np.array(layer, dtype=np.int64),
        "votes": np.array(votes, dtype=np.int64),
    }


# ---------------------------------------------------------------------------------------------------------------
# the algorithm
# ---------------------------------------------------------------------------------------------------------------


def hdl_exact(embeddings, y, k, metric="cosine"):
    """HDL one row at a time. [section "HDL", steps 1 and 2, mode `exact`]

    Each step takes, among the unlabelled rows of the largest L_i, the one with the largest g_i, then the largest mean
    similarity to ALL its labelled neighbours (of every class), then the lowest index, and labels it by the vote of its
    labelled neighbours. When every L_i is 0, the unlabelled row with the largest similarity to any labelled row copies
    the label of that row (searched over all labelled rows; rows labelled in earlier steps count as labelled), and this
    is a step of its own. After a copy the L_i are counted anew, so votes may resume.

    Returns arrays of n int64: label; order (0 for given rows, then the number of the step, 1, 2, ...); layer (L_i when
    the row was labelled; 0 for given and copied rows); votes (for the winning class; 0 for given, 1 for copied rows).
    """
    sim = similarity(embeddings, metric)
    return _run(sim, [int(c) for c in y], k, "exact")


def hdl_layer(embeddings, y, k, metric="cosine"):
    """HDL one layer at a time. [section "HDL", steps 1 and 2, mode `layer`]

    All unlabelled rows of the largest L_i are voted for from the labels before the layer, then added together. When
    every L_i is 0 one row copies, as in hdl_exact, in a round of its own. The same arrays as hdl_exact; order is the
    number of the round, so that rows added together share it.
    """
    sim = similarity(embeddings, metric)
    return _run(sim, [int(c) for c in y], k, "layer")


def hidden_folds(y):
    """The two lists of hidden rows: within each class the labelled rows in ascending index order alternate.

    Even positions (0, 2, ...) are hidden in fold 0, odd ones in fold 1. A class with one labelled row hides nothing.
    A class with an odd number of them (3, 5, ...) hides one row more in fold 0.
    """
    labels = [int(c) for c in y]
    folds = ([], [])
    for c in sorted(set(labels) - {-1}):
        rows = [i for i in range(len(labels)) if labels[i] == c]
        if len(rows) < 2:
            continue
        for position, i in enumerate(rows):
            folds[position % 2].append(i)
    return sorted(folds[0]), sorted(folds[1])


def choose_k(embeddings, y, ks=(1, 3, 5, 10, 20, 50), metric="cosine", mode="layer"):
    """(k, {k: accuracy}): the k of the best two-fold hidden-label accuracy. [section "HDL", step 3]

    Each fold hides its rows (hidden_folds), labels all rows by HDL with the hidden ones as unlabelled, and counts the
    share of its hidden rows that get their true label. The accuracy of a k is the plain mean of the two folds'
    accuracies, not weighted by their sizes (a fold with no hidden row would be left out; the split never makes one
    once some class has two labelled rows). The best mean wins, the smaller k on ties whatever the order of ks.

    The keys are the k as they were asked for: one above n - 1 runs as n - 1 and keeps its own key. HDL is run to the
    end in each fold: the text stops when the hidden rows are labelled, and labels never change afterwards.
    If no class has two labelled rows, nothing can be hidden: (5, {}), whether or not 5 is among ks, and not cut to
    n - 1.
    """
    sim = similarity(embeddings, metric)
    labels = [int(c) for c in y]
    folds = [hidden for hidden in hidden_folds(labels) if hidden]
    if not folds:
        return 5, {}
    accuracy = {}
    for k in ks:
        shares = []
        for hidden in folds:
            shown = [-1 if i in hidden else labels[i] for i in range(len(labels))]
            got = _run(sim, shown, k, mode)["label"]
            shares.append(sum(1 for i in hidden if int(got[i]) == labels[i]) / len(hidden))
        accuracy[k] = sum(shares) / len(shares)
    best = None
    for k in sorted(accuracy):
        if best is None or accuracy[k] > accuracy[best]:
            best = k
    return best, accuracy


def delta_k(embeddings, y, k, metric="cosine"):
    """Mean over labelled rows of the share of their k nearest labelled rows with another label. [step 3]

    The neighbours are searched among the labelled rows only, the row itself excluded, at most (labelled rows - 1) of
    them, ties to the lower index; unlabelled rows play no part. With a single labelled row the share is 0 of 0: nan.
    """
    sim = similarity(embeddings, metric)
    labels = [int(c) for c in y]
    labelled = [i for i in range(len(labels)) if labels[i] != -1]
    if len(labelled) == 1:
        return float("nan")
    shares = []
    for i in labelled:
        near = _most_similar(sim, i, labelled, k)
        shares.append(sum(1 for j in near if labels[j] != labels[i]) / len(near))
    return float(math.fsum(shares) / len(shares))


def one_shot_knn(embeddings, y, k, metric="cosine"):
    """Each unlabelled row by the vote of its k nearest labelled rows, (n,) int64. [section "HDL", step 4]

    At most as many as there are labelled rows, ties of similarity to the lower index; the vote is HDL's: count, then
    sum of similarities, then lowest class. Only given labels vote. Given rows keep their label.
    """
    sim = similarity(embeddings, metric)
    labels = [int(c) for c in y]
    labelled = [i for i in range(len(labels)) if labels[i] != -1]
    label = list(labels)
    for i in range(len(labels)):
        if labels[i] == -1:
            label[i], _ = _vote(sim, i, _most_similar(sim, i, labelled, k), labels)
    return np.array(label, dtype=np.int64)
