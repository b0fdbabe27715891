"""KD-FixMatch's references against numbers worked out by hand, and the labelers against the references."""
import math

import numpy as np
import pytest
import references as ref
import torch

from sslkit.errors import InputError
from sslkit.labelers import cluster_agree, cluster_classes, clusters, label_quality, trusted

L2, L3, L10 = math.log(2), math.log(3), math.log(10)


def close(a, b, atol=1e-12):
    np.testing.assert_allclose(a, b, rtol=0, atol=atol)


CENTRES = np.array([[0., 0.], [1., 1.]])


def test_kd_soft_assignment_by_hand():
    # Soft assignment. c0 = (0,0), c1 = (1,1).
    #   z = (0,0): d = (0,2), s = (1, 1/3)    -> (3/4, 1/4)
    #   z = (1,0): d = (1,1), s = (1/2, 1/2)  -> (1/2, 1/2)
    #   z = (2,1): d = (5,1), s = (1/6, 1/2)  -> (1/4, 3/4)
    close(ref.dec_soft_assignment([[0, 0], [1, 0], [2, 1]], CENTRES), [[3/4, 1/4], [1/2, 1/2], [1/4, 3/4]])


F = np.array([[0., 0.], [1., 0.]])
Q = np.array([[3/4, 1/4], [1/2, 1/2]])
P = np.array([[27/32, 5/32], [3/8, 5/8]])


def test_kd_target_by_hand():
    # Target of the first two rows: f = (5/4, 3/4).
    #   row 0: (9/16 * 4/5, 1/16 * 4/3) = (9/20, 1/12) = (27, 5)/60 -> (27/32, 5/32)
    #   row 1: (1/4 * 4/5, 1/4 * 4/3)   = (1/5, 1/3)   = (3, 5)/15  -> (3/8, 5/8)
    close(ref.dec_target(Q), P)
    close(ref.dec_target([[1., 0.], [0., 1.]]), np.eye(2))


def test_kd_loss_by_hand():
    # Loss: (27/32 log(9/8) + 5/32 log(5/8) + 3/8 log(3/4) + 5/8 log(5/4)) / 2; one-hot p: (log(4/3) + log 2) / 2.
    close(ref.dec_loss(P, Q),
          (27/32 * math.log(9/8) + 5/32 * math.log(5/8) + 3/8 * math.log(3/4) + 5/8 * math.log(5/4)) / 2)
    close(ref.dec_loss(np.eye(2), Q), (math.log(4/3) + L2) / 2)
    close(ref.dec_loss(Q, Q), 0)


def numeric(W, features, centres, p, h=1e-6):
    """Central differences of the loss, with z = features W^T in one matrix product."""
    def value(w, c):
        return ref.dec_loss(p, ref.dec_soft_assignment(np.asarray(features) @ w.T, c))
    out = []
    for which, param in enumerate((W, centres)):
        grad = np.zeros_like(param)
        for at in np.ndindex(*param.shape):
            up, down = [W.copy(), centres.copy()], [W.copy(), centres.copy()]
            up[which][at] += h
            down[which][at] -= h
            grad[at] = (value(*up) - value(*down)) / (2 * h)
        out.append(grad)
    return out


GW, GC = np.array([[-1/16, 0], [-1/16, 0]]), np.array([[1/16, 0], [-1/32, 1/32]])


def test_kd_gradients_by_hand():
    # Gradients at W = I, 2/n = 1, slope s (p - q):
    #   row 0: (1 * 3/32, 1/3 * -3/32) = (3, -1)/32; z - c = (0,0), (-1,-1) -> dz0 = (1,1)/32, to c0 0, to c1 -(1,1)/32
    #   row 1: (1/2 * -1/8, 1/2 * 1/8) = (-1, 1)/16; z - c = (1,0), (0,-1)  -> dz1 = -(1,1)/16, c0 (1,0)/16, c1 (0,1)/16
    #   dW = dz1 f1^T, f1 = (1,0); f0 = 0.
    grad_W, grad_centres = ref.dec_gradients(np.eye(2), F, CENTRES, P)
    close(grad_W, GW)
    close(grad_centres, GC)

    rng = np.random.default_rng(0)
    W, feats, cents = rng.normal(size=(3, 3)), rng.normal(size=(7, 3)), rng.normal(size=(4, 3))  # W is not symmetric
    p = ref.dec_target(ref.dec_soft_assignment(rng.normal(size=(7, 3)), cents))
    for got, want in zip(ref.dec_gradients(W, feats, cents, p), numeric(W, feats, cents, p)):
        assert np.abs(want).max() > .01
        close(got, want, 1e-8)
    p[:3] = np.eye(4)[:3]                                 # one-hot rows: 0 log 0
    for got, want in zip(ref.dec_gradients(W, feats, cents, p), numeric(W, feats, cents, p)):
        close(got, want, 1e-8)
    for got, want in zip(ref.dec_gradients(np.eye(2), F, CENTRES, P), numeric(np.eye(2), F, CENTRES, P)):
        close(got, want, 1e-8)


def test_kd_fit_by_hand():
    # Fit, one step on both rows, lr 1/10, and on row 1 alone with P over all rows (twice row 1's part; P over the batch
    # would be (1/2, 1/2) and the gradient zero).
    before = CENTRES.copy()
    W1, C1, a, taken, history = ref.dec_fit(F, CENTRES, 1, [[0, 1]], lr=.1)
    close(W1, np.eye(2) - GW / 10)
    close(C1, CENTRES - GC / 10)
    assert a.tolist() == [0, 0] and taken == 1 and history == []   # row 1: a tie, to cluster 0
    close(CENTRES, before)                                # the argument is not changed
    W_, C_, *_ = ref.dec_fit(F, CENTRES, 1, [[1]], lr=.1)
    close(W_, np.eye(2) - np.array([[-1/8, 0], [-1/8, 0]]) / 10)
    close(C_, CENTRES - np.array([[1/8, 0], [0, 1/8]]) / 10)

    # Second step by finite differences: momentum 9/10 on the first gradients, P kept (refresh 2) or anew (refresh 1).
    new_q = ref.dec_soft_assignment(F @ W1.T, C1)
    assert new_q[1, 1] > new_q[1, 0]                      # row 1 moved to cluster 1
    for refresh, target in ((2, P), (1, ref.dec_target(new_q))):
        gw, gc = numeric(W1, F[[1]], C1, target[[1]])
        W2, C2, a, taken, history = ref.dec_fit(F, CENTRES, 2, [[0, 1], [1]], lr=.1, refresh=refresh)
        close(W2, W1 - .1 * (.9 * GW + gw), 1e-9)
        close(C2, C1 - .1 * (.9 * GC + gc), 1e-9)
        assert taken == 2
        assert history == ([] if refresh == 2 else [1/2]) and a.tolist() == ([0, 0] if refresh == 2 else [0, 1])
        # a third step where refresh 2 falls due: the share is seen there
        assert ref.dec_fit(F, CENTRES, 3, [[0, 1], [1], [1]], lr=.1, refresh=2)[4] == [1/2]

    # Stop: at the first refresh after step 0 half of the rows changed: under .51 stops there, under 1/2 (strict) does
    # not; lr 0 never changes anything: stops at the refresh after the first, and never under a tolerance of 0.
    W_, C_, a, taken, history = ref.dec_fit(F, CENTRES, 9, [[0, 1]] * 9, lr=.1, refresh=1, tolerance=.51)
    assert taken == 1 and history == [1/2] and a.tolist() == [0, 1]
    close(W_, W1)
    close(C_, C1)
    _, _, _, taken, history = ref.dec_fit(F, CENTRES, 9, [[0, 1]] * 9, lr=.1, refresh=1, tolerance=.5)
    assert taken == 2 and history == [1/2, 0.]
    _, _, _, taken, history = ref.dec_fit(F, CENTRES, 400, [[0]] * 140, lr=0.)
    assert taken == 140 and history == [0.]               # and step 140 asked for no batch
    _, _, _, taken, history = ref.dec_fit(F, CENTRES, 5, [[0]] * 5, lr=0., refresh=2, tolerance=0.)
    assert taken == 5 and history == [0., 0.]             # refreshes at 0, 2, 4
    _, _, _, taken, history = ref.dec_fit(F, CENTRES, 2, [[0]] * 2, lr=0., refresh=2)
    assert taken == 2 and history == []                   # none at step 2 = steps


Z = [[1., 5.], [0., 2.], [9., 9.], [4., 0.]]


def test_kd_centres_by_hand():
    # Centres: class 0 from rows 3 and 1: ((4,0) + (0,2))/2 = (2,1); class 1 from row 0.
    close(ref.labelled_centres(Z, [3, 0, 1], [0, 1, 0], 2), [[2, 1], [1, 5]])


def test_kd_matching_by_hand():
    # Matching: entry j is the class of cluster j (a 3-cycle tells it from its inverse); cluster 0 holds classes
    # 0 0 0 1 1, cluster 1 holds 0 0: the largest cell first gives 3 + 0, the best is 2 + 2; ties to the
    # lexicographically smallest.
    assert ref.match_clusters([0, 1, 2], [1, 2, 0], 3).tolist() == [1, 2, 0]
    assert ref.match_clusters([0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 0, 0], 2).tolist() == [1, 0]
    assert ref.match_clusters([0, 1], [0, 0], 2).tolist() == [0, 1]
    assert ref.match_clusters([0], [1], 3).tolist() == [1, 0, 2]
    assert ref.match_clusters([2], [0], 3).tolist() == [1, 2, 0]


PROBS = [[.8, .2], [.8, .2], [.1, .9], [.79, .21], [.3, .7]]


def test_kd_trusted_subset_by_hand():
    # Trusted: exactly .8 passes; (1/2, 1/2) is class 0; a row under the confidence does not look at its cluster.
    confident, trusted = ref.trusted_subset(PROBS, [0, 1, 1, 0, -1], .8)
    assert confident.tolist() == [True, True, True, False, False]
    assert trusted.tolist() == [True, False, True, False, False]
    confident, trusted = ref.trusted_subset([[.5, .5], [.5, .5]], [0, 1], .5)
    assert confident.all() and trusted.tolist() == [True, False]


LOGITS = np.log([[1/2, 1/4, 1/4]] * 2)


def test_kd_sce_by_hand():
    # SCE. p = (1/2, 1/4, 1/4): y = 0: CE ln 2, RCE 4 ln 10 * 1/2; y = 1: CE 2 ln 2, RCE 4 ln 10 * 3/4.
    close(ref.sce(LOGITS, [0, 1], 1, 0), [L2, 2 * L2])
    close(ref.sce(LOGITS, [0, 1], 0, 1), [2 * L10, 3 * L10])
    close(4 * L10, 9.2103, 5e-5)
    close(ref.sce(LOGITS, [0, 1], 6, .1), [6 * L2 + .2 * L10, 12 * L2 + .3 * L10])
    # p = (1, 4e-18): y = 1: CE 7 ln 10, the clip, in place of 40; RCE 4 ln 10 * 1. y = 0: CE 0; RCE 4 ln 10 * 1e-7.
    close(ref.sce([[0., -40.]] * 2, [1, 0], 1, 0), [7 * L10, 0])
    close(ref.sce([[0., -40.]] * 2, [1, 0], 0, 1), [4 * L10, 4e-7 * L10])
    # p_y = 1e-6 is not clipped: 6 ln 10
    close(ref.sce(np.log([[1 - 1e-6, 1e-6]]), [1], 1, 0), [6 * L10])


WEAK = np.log([[3/4, 1/4], [1/3, 2/3], [1/2, 1/2], [1/4, 3/4]])
STRONG = np.log([[1/2, 1/2], [1/4, 3/4], [1e-3, 1 - 1e-3], [1/3, 2/3]])
X, Y, T = np.log([[2/3, 1/3]]), [1], [1, 0, -1, -1]


def test_kd_inner_loss_by_hand():
    # Inner loss, tau .7, lambda 2. Weak (3/4,1/4) with T 1: own 0 overrides; (1/3,2/3) with T 0: trusted 0;
    # (1/2,1/2) outside T: masked; (1/4,3/4) outside T: own 1. Strong p of the targets 1/2, 1/4, -, 2/3:
    #   l_u = (ln 2 + 2 ln 2 + ln 3/2)/4 = ln 12 / 4 over ALL four rows; l_s = ln 3.
    out = ref.kd_inner_loss(X, Y, WEAK, STRONG, T, .7, 2)
    assert out["target"].tolist() == [0, 0, -1, 1] and out["mask"].tolist() == [1, 1, 0, 1]
    assert out["source"].tolist() == [1, 2, 0, 1]
    close([out["l_s"], out["l_u"], out["loss"]], [L3, math.log(12) / 4, L3 + math.log(12) / 2])
    # SCE with a 2, b 1/2: 1 - p_t = 1/2 + 3/4 + 1/3 = 19/12, l_u = (2 ln 12 + 1/2 * 4 ln 10 * 19/12)/4; l_s stays CE.
    out = ref.kd_inner_loss(X, Y, WEAK, STRONG, T, .7, 2, "sce", 2, .5)
    close([out["l_s"], out["l_u"]], [L3, (2 * math.log(12) + 19/6 * L10) / 4])
    # exactly tau is own (1/2, a tie: class 0), although T says 1; nothing own, nothing trusted: l_u 0
    out = ref.kd_inner_loss(X, Y, [[0., 0.]], [[0., 0.]], [1], .5, 1)
    assert out["target"].tolist() == [0] and out["source"].tolist() == [1]
    out = ref.kd_inner_loss(X, Y, WEAK, STRONG, [-1] * 4, .95, 1)
    assert out["l_u"] == 0 and not out["mask"].any() and out["loss"] == out["l_s"]

    # With T empty it is FixMatch.
    plain = ref.fixmatch(X, Y, WEAK, STRONG, .7, 2)
    out = ref.kd_inner_loss(X, Y, WEAK, STRONG, [-1] * 4, .7, 2)
    close(out["loss"], plain["loss"])
    assert out["mask"].tolist() == plain["mask"].tolist()


# The labelers against the references, and on data whose answer is known.

def double(x):
    return torch.tensor(np.asarray(x), dtype=torch.float64)


def blobs(n=300, classes=4, dim=6, apart=6.0, seed=0, labels=3):
    """Points of known classes around centres, probabilities that name the right class, and a few labels: p, features,
    y, truth."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, n)
    truth[:classes * labels] = np.tile(np.arange(classes), labels)
    features = apart * rng.normal(size=(classes, dim))[truth] + rng.normal(size=(n, dim))
    p = np.full((n, classes), 0.1 / (classes - 1))
    p[np.arange(n), truth] = 0.9
    y = np.full(n, -1)
    y[:classes * labels] = truth[:classes * labels]
    return torch.tensor(p).float(), torch.tensor(features).float(), torch.tensor(y), torch.tensor(truth)


@pytest.mark.parametrize("seed", range(5))
def test_dec_agrees_with_the_reference(seed):
    rng = np.random.default_rng(seed)
    features, centers = rng.normal(size=(20, 3)), rng.normal(size=(4, 3))
    batches = [rng.integers(0, 20, 6) for _ in range(30)]
    expected = ref.dec_fit(features, centers, 30, batches, lr=0.1, refresh=7, tolerance=0.02)
    found = clusters.dec(double(features), double(centers), steps=30, refresh=7, tolerance=0.02, lr=0.1,
                         batches=iter([torch.tensor(b) for b in batches]))
    for mine, theirs in zip((found.weight, found.centers), expected[:2]):
        close(mine.numpy(), theirs, 1e-9)
    assert found.cluster.tolist() == expected[2].tolist() and found.steps == expected[3]
    close(found.changed, expected[4])
    q = clusters.soft_assignment(double(features), double(centers))
    close(q.numpy(), ref.dec_soft_assignment(features, centers))
    close(clusters.sharpened(q).numpy(), ref.dec_target(q.numpy()))


def test_dec_begins_where_a_feature_lies_on_a_centre():
    features = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    found = clusters.dec(features, features[:4], steps=20)
    assert found.weight.isfinite().all() and found.centers.isfinite().all()


def test_shuffled_batches_leave_no_row_out():
    batches = clusters.shuffled(10, 4, 0)
    rows = torch.cat([next(batches) for _ in range(5)])
    assert sorted(rows[:10].tolist()) == sorted(rows[10:].tolist()) == list(range(10))
    again = clusters.shuffled(10, 4, 0)
    assert torch.equal(rows, torch.cat([next(again) for _ in range(5)]))


def test_centres_and_matching_agree_with_the_references():
    rng = np.random.default_rng(0)
    for _ in range(20):
        z, y = rng.normal(size=(12, 3)), np.concatenate((np.arange(3), rng.integers(0, 3, 4), np.full(5, -1)))
        rows = np.flatnonzero(y >= 0)
        centers = ref.labelled_centres(z, rows, y[rows], 3)
        close(clusters.labeled_centers(double(z), torch.tensor(y), 3).numpy(), centers)
        cluster = np.concatenate((np.arange(3), rng.integers(0, 3, 9)))
        means = np.array([z[cluster == k].mean(0) for k in range(3)])
        nearest = np.array([((means - row) ** 2).sum(1).argmin() for row in z[rows]])
        best = ref.match_clusters(nearest, y[rows], 3)
        given = double(z), torch.tensor(cluster), double(z[rows]), torch.tensor(y[rows]), 3
        found = clusters.match(*given, "hungarian").numpy()
        assert sorted(found) == [0, 1, 2]
        hits = lambda matched: (matched[nearest] == y[rows]).sum()           # noqa: E731, B023
        assert hits(found) == hits(best)                                     # equal where the best is not unique
        by_center = clusters.match(*given, "centers")
        assert by_center.tolist() == [int(((centers - mean) ** 2).sum(1).argmin()) for mean in means]


@pytest.mark.parametrize("matching", ["centers", "hungarian"])
@pytest.mark.parametrize("clustering", ["dec", "kmeans", "spectral", "dbscan"])
def test_clusters_find_wrong_confident_labels_among_blobs(clustering, matching):
    p, features, y, truth = blobs()
    wrong = torch.arange(100, 140)
    p[wrong] = p[wrong].roll(1, 1)                                # 40 rows of which the classifier is sure and wrong
    p[200:220] = 0.25                                             # and 20 of which it is not sure
    found = cluster_agree(p, features, y, clustering=clustering, matching=matching)
    assert found.info["confident"] == 280 and (found.label[wrong] == -1).all() and (found.label[200:220] == -1).all()
    quality = label_quality(found.label, truth, 4)
    lost = 45 if clustering == "dbscan" else 0                    # its noise
    assert quality["precision"] == 1.0 and 240 - lost <= quality["rows"] <= 240
    assert quality["rows"] == found.info["trusted"] == sum(quality["per_class"])
    assert torch.equal(found.weight, (found.label >= 0).float()) and found.source == "cluster_agree"
    assert cluster_agree(p, features, y, clustering=clustering, matching=matching).label.equal(found.label)


def test_without_clustering_every_confident_row_is_trusted():
    p, features, y, truth = blobs()
    p[:40] = p[:40].roll(1, 1)
    found = cluster_agree(p, features, y, clustering="none")
    assert found.info == {"rows": 300, "confident": 300, "trusted": 300, "clustering": "none", "tau_select": 0.8}
    assert label_quality(found.label, truth, 4)["precision"] == pytest.approx(260 / 300)


def test_no_row_passes():
    p, features, y, truth = blobs()
    found = cluster_agree(p, features, y, tau=0.95)
    assert found.info["confident"] == found.info["trusted"] == 0
    assert (found.label == -1).all() and found.weight.sum() == 0
    assert label_quality(found.label, truth, 4)["precision"] is None


@pytest.mark.parametrize("clustering", ["dec", "kmeans", "spectral", "dbscan"])
def test_a_handful_of_rows_goes_by_the_nearest_labelled_centre(clustering):
    p, features, y, truth = blobs()
    p[3:] = 0.25
    p[1] = p[1].roll(1)
    found = cluster_agree(p, features, y, clustering=clustering)
    assert found.label[:3].tolist() == [0, -1, 2] and (found.label[3:] == -1).all()


@pytest.mark.parametrize("rows", [3, 4, 5, 9, 10, 11])
def test_spectral_clustering_takes_fewer_rows_than_ten_neighbours(rows):
    noise = torch.randn(rows, 4, generator=torch.Generator().manual_seed(rows))
    features = noise + 9 * (torch.arange(rows) % 2)[:, None]
    found = cluster_classes(features, features[:2], torch.tensor([0, 1]), 2, clustering="spectral")
    assert found.shape == (rows,) and set(found.tolist()) <= {0, 1}
    assert found.equal(cluster_classes(features, features[:2], torch.tensor([0, 1]), 2, clustering="spectral"))


@pytest.mark.parametrize("labels", [2, 40])                       # torch.cdist has another way for more than 25 rows
def test_no_labelled_row_is_nearest_to_an_empty_cluster(labels):
    features = torch.tensor([[10.0, 0.0], [10.0, 1.0], [0.0, 10.0], [1.0, 10.0]])
    y = torch.arange(labels) % 2                                  # class 1 lies nearer to the origin than to cluster 2
    labeled = torch.tensor([[10.0, 0.0], [1.0, 2.0]])[y]
    found = clusters.match(features, torch.tensor([0, 0, 2, 2]), labeled, y, 2, "hungarian")
    assert found[[0, 2]].tolist() == [0, 1]


def test_trusted_agrees_with_the_reference(monkeypatch):
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(3, 0.2), 50)
    classes = rng.integers(0, 3, 50)
    confident, kept = ref.trusted_subset(p, classes, 0.8)
    monkeypatch.setattr(trusted, "cluster_classes", lambda features, *rest, **options: torch.tensor(classes[confident]))
    found = cluster_agree(double(p), torch.zeros(50, 2), torch.tensor([0, 1, 2] + [-1] * 47))
    assert np.array_equal((found.label >= 0).numpy(), kept)
    assert np.array_equal(found.label[kept].numpy(), p.argmax(1)[kept])


@pytest.mark.parametrize("change, message", [
    ({"tau": 1.5}, "tau is 1.5"), ({"clustering": "deck"}, "did you mean 'dec'"),
    ({"matching": "hungrian"}, "did you mean 'hungarian'"),
    ({"y": torch.full((300,), -1)}, "class 0 has no labelled row"),
    ({"y": torch.zeros(3, dtype=torch.int64)}, "the same rows"),
    ({"features": torch.full((300, 6), float("nan"))}, "must be finite"),
    ({"features": torch.zeros(2, 6)}, "the same rows")])
def test_bad_input_is_refused(change, message):
    p, features, y, _ = blobs()
    with pytest.raises(InputError, match=message):
        cluster_agree(**{"p": p, "features": features, "y": y} | change)


def test_spectral_clustering_says_what_it_cannot_take(monkeypatch):
    monkeypatch.setattr(clusters, "SPECTRAL_ROWS", 100)
    p, features, y, _ = blobs()
    with pytest.raises(InputError, match="spectral clustering of 300 rows"):
        cluster_agree(p, features, y, clustering="spectral")


def test_wide_embeddings_are_clustered_in_their_principal_components():
    g = torch.Generator().manual_seed(0)
    y = torch.arange(300) % 3
    z = torch.nn.functional.one_hot(y, 3).float() @ torch.randn(3, 200, generator=g) * 3 + torch.randn(300, 200, generator=g)
    sizes, dec = [], clusters.dec
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clusters, "dec", lambda points, *rest, **how: sizes.append(points.shape) or dec(points, *rest, **how))
        found = cluster_classes(z, z[:30], y[:30], 3)
        cluster_classes(z[:, :128], z[:30, :128], y[:30], 3)
    assert sizes == [(300, 128), (300, 128)] and (found == y).float().mean() > 0.95
