"""The labelers of embeddings, against their definitions; and the choice among them by hidden labels."""
import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_wine
from sklearn.linear_model import LogisticRegression

from sslkit.errors import InputError
from sslkit.labelers import LABELERS, choose_labeler, classifiers, with_graphs
from sslkit.labelers.classifiers import hidden_folds, logistic, nearest, scaled, spreading
from sslkit.records import PseudoLabels


def case(seed=0, n=120, classes=3, each=4, noise=1.0):
    """Embeddings (n, 6) in blobs, the labels of `each` rows of a class, the truth."""
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % classes
    points = torch.tensor(rng.normal(size=(classes, 6))[truth] * 2 + noise * rng.normal(size=(n, 6)))
    return points, torch.tensor(np.where(np.arange(n) < classes * each, truth, -1)), torch.tensor(truth)


def balanced(truth, each, seed):
    """Labels (n,) int64, `each` rows of a class of truth (n,), -1 elsewhere."""
    order, y = np.random.RandomState(seed).permutation(len(truth)), np.full(len(truth), -1)
    for c in np.unique(truth):
        y[[row for row in order if truth[row] == c][:each]] = c
    return torch.tensor(y)


def claims(label, y, weight=1.0):
    return PseudoLabels(torch.where(y >= 0, y, label), torch.full((len(y),), weight), {}, "a test")


# ---- the labelers

@pytest.mark.parametrize("name", LABELERS)
def test_given_labels_stay_and_every_row_has_one(name):
    points, y, truth = case()
    y[5] = (y[5] + 1) % 3                                                   # given wrongly: kept all the same
    found = LABELERS[name](points, y)
    known = y >= 0
    assert found.label[known].equal(y[known]) and (found.weight[known] == 1).all() and found.source == name
    assert (found.label[~known] == truth[~known]).float().mean() > 0.8 and found.label.dtype == torch.int64
    assert found.weight.min() > 0 and found.weight.max() <= 1


@pytest.mark.parametrize("name", LABELERS)
def test_class_numbers_may_have_gaps_and_values_may_be_single(name):
    points, y, truth = case()
    found = LABELERS[name](points.float(), torch.where(y == 2, 7, y))
    assert set(found.label.tolist()) == {0, 1, 7}


def test_scaled_rows_have_length_one_and_no_column_counts_for_its_unit():
    points, y, _ = case()
    points[:, 2] = 5                                                        # constant: no part in anything
    moved = scaled(points * torch.tensor([1e3, 1, 1, 1e-3, 1, 1]) + 7, y)
    assert torch.allclose(moved, scaled(points, y)) and torch.allclose(moved.norm(dim=1), torch.ones(120).double())
    assert (moved[:, 2] == 0).all() and torch.allclose(scaled(torch.ones(120, 3), y), torch.zeros(120, 3))


def test_nearest_is_the_most_similar_labelled_row():
    points, y, _ = case(1)
    known = y >= 0
    similar = scaled(points, y) @ scaled(points, y)[known].T
    assert nearest(points, y).label.equal(torch.where(known, y, y[known][similar.argmax(1)]))


def test_logistic_is_scikit_learns_with_the_likeliest_c():
    points, y, truth = case(2, n=150, each=6, noise=2.5)
    x, known = scaled(torch.cat([points, torch.randn(150, 40, generator=torch.Generator().manual_seed(0))], 1), y).numpy(), y.numpy() >= 0
    found = logistic(torch.tensor(x), y)
    x = scaled(torch.tensor(x), y).numpy()
    surprise = {}
    for C in classifiers.CS:
        surprise[C] = 0
        for part in hidden_folds(y):
            shown = known & ~np.isin(np.arange(150), part)
            p = LogisticRegression(C=C, max_iter=1000).fit(x[shown], y[shown]).predict_proba(x[part])
            surprise[C] -= np.log(p[np.arange(len(part)), y[part]]).sum()
    assert found.info["C"] == min(surprise, key=surprise.get) and len(set(surprise.values())) == 4
    p = LogisticRegression(C=found.info["C"], max_iter=1000).fit(x[known], y[known]).predict_proba(x)
    assert np.allclose(found.weight[~known], p.max(1)[~known], atol=2e-3) and (found.label.numpy() == p.argmax(1))[~known].mean() > 0.99


def test_spreading_solves_its_equation():
    points, y, _ = case(3, noise=2)
    x = scaled(points, y)
    near = (x @ x.T).fill_diagonal_(-9).topk(classifiers.NEIGHBORS).indices
    W = torch.zeros(120, 120).double().scatter(1, near, 1.0)
    W = W + W.T
    S = W / (W.sum(0) * W.sum(1)[:, None]).sqrt()
    F = torch.linalg.solve(torch.eye(120).double() - classifiers.ALPHA * S, torch.nn.functional.one_hot(y.clamp(0), 3).double() * (y >= 0)[:, None])
    share, label = (F / F.sum(1, keepdim=True)).max(1)
    found, unknown = spreading(points, y), y < 0
    assert torch.allclose(found.weight[unknown].double(), share[unknown], atol=1e-3) and found.label[unknown].equal(label[unknown])


def test_what_no_label_reaches_is_labelled_by_the_nearest():
    points, y, _ = case()
    graph = np.concatenate([(np.arange(60)[:, None] + [1, 2, 3]) % 60, 60 + (np.arange(60)[:, None] + [1, 2, 3]) % 60])
    found = spreading(points, y, graph)
    assert found.label[60:].equal(nearest(points, y).label[60:]) and torch.allclose(found.weight[60:], torch.tensor(1 / 3))
    assert (found.weight[12:60] > 1 / 3).all() and len(set(found.label[60:].tolist())) == 3


@pytest.mark.parametrize("labeler", [logistic, nearest, spreading])
def test_what_cannot_be_used_is_refused(labeler):
    points, y, _ = case()
    with pytest.raises(InputError, match="1 embeddings are not finite, the first in row 4"):
        labeler(points.index_fill(0, torch.tensor([4]), torch.nan), y)
    with pytest.raises(InputError, match="no row has a label"):
        labeler(points, y.fill_(-1))


# ---- hidden labels

def test_each_class_keeps_a_label_and_all_others_are_hidden_in_turn():
    y = torch.tensor([0] * 9 + [1] * 3 + [2] * 2 + [3] + [-1] * 5)
    parts = hidden_folds(y, 3)
    assert len(parts) == 3 * classifiers.FOLDS and sorted(np.concatenate(parts)) == sorted(list(range(14)) * 3)
    assert all(set(np.delete(y.numpy(), part).tolist()) == {0, 1, 2, 3, -1} for part in parts)
    assert {tuple(part) for part in parts[:4]} != {tuple(part) for part in parts[4:8]}
    assert hidden_folds(torch.tensor([0, 1, 2, -1])) == [] and len(hidden_folds(torch.tensor([0, 0, 1, 1]))) == 2


# ---- the choice

def test_the_table_and_its_errors_by_hand():
    y = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, -1, -1])
    right = {"a": [0, 1, 4], "b": [0, 1, 2, 4, 5, 6], "c": [0, 1, 2, 4, 5, 6]}
    seen = []

    def finds(rows):
        def labeler(points, shown):
            seen.append(shown)
            return claims(torch.where(torch.isin(torch.arange(10), torch.tensor(rows)), y, 1 - y), shown)
        return labeler

    choice = choose_labeler(torch.randn(10, 2), y, {name: finds(rows) for name, rows in right.items()})
    a, b, c = choice.table
    assert [row["found"] for row in choice.table] == [3 / 8, 6 / 8, 6 / 8] and b["behind"] == c["behind"] == b["behind_error"] == 0
    assert a["behind"] == 3 / 8 and a["error"] == pytest.approx((15 / 56 / 8)**0.5) and a["behind_error"] == pytest.approx((15 / 56 / 8)**0.5)
    assert choice.labeler == "b" and choice.why == "8 hidden labels cannot tell b and c apart: b comes first"
    assert all((shown[:8] >= 0).sum() == 6 and (shown[8:] < 0).all() for shown in seen)      # a quarter is hidden
    one = choose_labeler(torch.randn(10, 2), y, {"a": finds([0]), "b": finds(range(8))})
    assert one.labeler == "b" and one.why == "b found most of 8 hidden labels"
    near = choose_labeler(torch.randn(10, 2), y, {"a": finds([0, 1, 2, 4, 7]), "b": finds([0, 1, 2, 4, 5, 6])})
    assert near.table[0]["behind"] == 1 / 8 < near.table[0]["behind_error"] and near.labeler == "a"    # first, not best


def test_a_candidate_from_elsewhere_may_win():
    points, y, truth = case(noise=6)
    candidates = with_graphs(points, y) | {"head": lambda points, y: claims(truth, y)}
    choice = choose_labeler(points, y, candidates)
    assert choice.labeler == "head" and [row["labeler"] for row in choice.table] == [*LABELERS, "head"]
    assert choice.table[-1]["found"] == 1 and choice.table[0]["behind"] > choice.table[0]["behind_error"]


def test_labelers_with_their_graphs_say_what_they_say_without():
    points, y, _ = case(4, noise=2)
    again = with_graphs(points, y)
    for name, labeler in LABELERS.items():
        assert again[name](points, y).label.equal(labeler(points, y).label), name


def test_an_embedding_of_zeros_keeps_hdl_out():
    points, y, _ = case()
    points[9] = 0
    assert [*with_graphs(points, y)] == ["spreading", "logistic", "nearest"]


def test_single_labels_are_too_few_to_choose_by():
    y = torch.tensor([0, 1, 2, 2] + [-1] * 20)
    choice = choose_labeler(torch.randn(24, 2), y, dict.fromkeys(LABELERS))
    assert choice.labeler == "spreading" and choice.table == [] and "most classes have a single label" in choice.why


@pytest.mark.parametrize("load, each, least", [(load_wine, 5, 0.9), (load_digits, 4, 0.85)])
def test_tables_that_are_no_embeddings(load, each, least):
    table, truth = (part[:600] for part in load(return_X_y=True))
    y = balanced(truth, each, 0)
    points = torch.tensor(table)
    choice = choose_labeler(points, y, with_graphs(points, y))
    accuracy = {name: (labeler(points, y).label.numpy() == truth)[y < 0].mean() for name, labeler in LABELERS.items()}
    assert accuracy[choice.labeler] > least and accuracy[choice.labeler] > max(accuracy.values()) - 0.05, (choice, accuracy)
