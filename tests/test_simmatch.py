"""SimMatch: its references against numbers worked out by hand, the method against the references, its bank, what it
refuses."""
import math

import numpy as np
import pytest
import references as ref
import torch

from sslkit import SimMatch
from sslkit.errors import InputError
from sslkit.methods.ops import align
from sslkit.methods.simmatch import aggregate, unfold
from sslkit.records import Batch, Out, Spec

# By hand: C = 2, K_l = 3, t = 1, alpha = 1/2
L2, L3 = math.log(2), math.log(3)


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


# Alignment. Batch mean (1/2, 1/2), queue [(1/4, 3/4)]: prior (3/8, 5/8).
#   (1/2, 1/2) -> (4/3, 4/5) = (20, 12)/15 -> (5/8, 3/8)
#   (3/4, 1/4) -> (2, 2/5)                 -> (5/6, 1/6)
#   (1/4, 3/4) -> (2/3, 6/5) = (10, 18)/15 -> (5/14, 9/14)
P = np.array([[1/2, 1/2], [3/4, 1/4], [1/4, 3/4]])
ALIGNED = np.array([[5/8, 3/8], [5/6, 1/6], [5/14, 9/14]])


def test_unit_by_hand():
    close(ref.unit([3, 4]), [.6, .8])
    close(ref.unit([0, 0]), [0, 0])
    close(ref.unit([1e-13, 0]), [.1, 0])


def test_simmatch_align_by_hand():
    before = [np.array([1/4, 3/4])]
    aligned, queue = ref.simmatch_align(P, before, 2)
    close(aligned, ALIGNED)
    close(queue, [[1/4, 3/4], [1/2, 1/2]])
    assert len(before) == 1
    aligned, queue = ref.simmatch_align(P, [], 2)            # alone: prior (1/2, 1/2), nothing changes
    close(aligned, P)
    aligned, queue = ref.simmatch_align(P, [[.9, .1], [1/4, 3/4]], 2)   # full: the oldest goes, as in the first case
    close(aligned, ALIGNED)
    close(queue, [[1/4, 3/4], [1/2, 1/2]])
    aligned, queue = ref.simmatch_align(P, [[1/4, 3/4]], 1)  # size 1: the current batch alone
    close(aligned, P)
    # one row pushed alone becomes uniform: (a/a, b/b) -> (1/2, 1/2)
    close(ref.simmatch_align([[.9, .1]], [], 32)[0], [[1/2, 1/2]])


# Similarities with UNIT rows and t = 1: bank = identity, z = (s + ln 2, s, s) gives q = (2, 1, 1)/4 for any s;
# |z| = 1 asks 3 s^2 + 2 s ln 2 + (ln 2)^2 = 1, s = (-ln 2 + sqrt(3 - 2 (ln 2)^2)) / 3.
S = (-L2 + math.sqrt(3 - 2 * L2 * L2)) / 3
Z = np.full((3, 3), S) + L2 * np.eye(3)              # Z[k]: half on row k, a quarter on the others
BANK, LABELS = np.eye(3), [0, 1, 0]
# Targets. q_w = (2,1,1)/4, (1,2,1)/4, (1,1,2)/4; bank labels 0, 1, 0.
#   row 0: f = (5,3,5)/8;  q f = (10,3,5)/32 -> (10,3,5)/18; q_agg = (3/4, 1/4); p_hat = (11/16, 5/16)
#   row 1: f = (5,1,5)/6;  q f = (5,2,5)/24  -> (5,2,5)/12;  q_agg = (1/2, 1/2); p_hat = (2/3, 1/3)
#   row 2: f = (5,9,5)/14; q f = (5,9,10)/56 -> (5,9,10)/24; q_agg = (3/4, 1/4); p_hat = (31/56, 25/56)
Q_W = np.array([[2, 1, 1], [1, 2, 1], [1, 1, 2]]) / 4
Q_HAT = np.array([[10/18, 3/18, 5/18], [5/12, 2/12, 5/12], [5/24, 9/24, 10/24]])
Q_AGG = np.array([[3/4, 1/4], [1/2, 1/2], [3/4, 1/4]])
P_HAT = np.array([[11/16, 5/16], [2/3, 1/3], [31/56, 25/56]])


def test_simmatch_targets_by_hand():
    close((Z * Z).sum(1), 1)
    found = ref.simmatch_targets(ALIGNED, Z, BANK, LABELS, 1.0, .5)
    for name, value in (("q_w", Q_W), ("q_hat", Q_HAT), ("q_agg", Q_AGG), ("p_hat", P_HAT)):
        close(found[name], value)
    # t = 1/2 squares the odds: (4,1,1)/6 in row 0; alpha = .9: .9*5/8 + .1*5/6 = 27/48 + 4/48 = 31/48
    found = ref.simmatch_targets(ALIGNED, Z, BANK, LABELS, .5, .9)
    close(found["q_w"][0], [4/6, 1/6, 1/6])
    close(found["p_hat"][0], [31/48, 17/48])
    # a class with no row in the bank: q_agg = 0 there
    close(ref.simmatch_targets(ALIGNED, Z, BANK, [1, 1, 1], 1.0, .5)["q_agg"], [[0, 1]] * 3)


# Loss. p_s = (1/2,1/2), (1/4,3/4), (1/2,1/2); tau .6: max p_hat .6875, .667, .554 -> mask 1, 1, 0.
#   H = ln 2; (2/3) ln 4 + (1/3) ln(4/3) = 2 ln 2 - ln 3 / 3; dropped -> L_u = (3 ln 2 - ln 3 / 3) / 3
# q_s has its half on bank row 1, 2, 0: H(q, q_s) = ln 2 * (2 - q at the half).
#   q_hat: 2 - 3/18, 2 - 5/12, 2 - 5/24 = (44 + 38 + 43)/24 = 125/24 -> L_in = 125/72 ln 2
# L_s: uniform logits -> ln 2.
LOGITS_S = np.log([[1/2, 1/2], [1/4, 3/4], [1/2, 1/2]])
Z_S = Z[[1, 2, 0]]


def loss(warm=True, tau=.6, **options):
    return ref.simmatch_loss(np.zeros((2, 2)), [0, 1], np.log(P) + 5, LOGITS_S, Z, Z_S, BANK, LABELS, [[1/4, 3/4]],
                             tau, .5, 1.0, 2.0, 3.0, 2, warm, **options)


def test_simmatch_loss_by_hand():
    l_u, l_in = (3 * L2 - L3 / 3) / 3, 125 / 72 * L2
    r = loss()
    for name, value in (("l_s", L2), ("l_u", l_u), ("l_in", l_in), ("loss", L2 + 2 * l_u + 3 * l_in), ("p_w", ALIGNED),
                        ("q_w", Q_W), ("q_s", Q_W[[1, 2, 0]]), ("q_hat", Q_HAT), ("q_agg", Q_AGG), ("p_hat", P_HAT),
                        ("mask", [1, 1, 0]), ("queue", [[1/4, 3/4], [1/2, 1/2]])):
        close(r[name], value)
    # tau met exactly keeps the row (code >=, SEED >)
    assert loss(tau=r["p_hat"][1].max())["mask"].tolist() == [1, 1, 0]
    assert loss(tau=.68)["mask"].tolist() == [1, 0, 0]
    # w/o q_hat: every q_w has a quarter at the half of q_s -> 2 - 1/4
    r = loss(use_q_hat=False)
    close(r["l_in"], 7 / 4 * L2)
    close([r["l_u"], r["loss"]], [l_u, L2 + 2 * l_u + 21 / 4 * L2])
    # w/o p_hat: p_w itself, max 5/8, 5/6, 9/14, all kept; H = ln 2, (5/6) ln 4 + (1/6) ln(4/3), ln 2
    #   (5/6) ln 4 + (1/6) (ln 4 - ln 3) = 2 ln 2 - ln 3 / 6 -> L_u = (4 ln 2 - ln 3 / 6) / 3
    l_u_plain = (4 * L2 - L3 / 6) / 3
    r = loss(use_p_hat=False)
    close([r["l_u"], r["l_in"]], [l_u_plain, l_in])
    close(r["p_hat"], ALIGNED)
    close(r["mask"], [1, 1, 1])
    # cold: the same L_u, no L_in, whatever the ablation
    for options in ({}, {"use_p_hat": False}, {"use_q_hat": False}):
        r = loss(warm=False, **options)
        close([r["l_u"], r["l_in"], r["loss"]], [l_u_plain, 0, L2 + 2 * l_u_plain])
        close(r["p_hat"], ALIGNED)
        close(r["queue"], [[1/4, 3/4], [1/2, 1/2]])


# Writes. Row 0 twice, (1,0) and (0,1): average (1/2, 1/2). Row 2 once, (3/5, 4/5).
#   row 0 written before, (1,0): (.7 + .15, .15) = (.85, .15), |.|^2 = .7225 + .0225 = .745
#   row 2 first: (3/5, 4/5). Row 2 written before, (0,-1): (.18, -.46), |.|^2 = .0324 + .2116 = .244
#   row 0 first: (1, 1)/sqrt 2
B3 = np.array([[1., 0.], [0., 1.], [0., -1.]])
ROWS, Z3 = np.array([0, 2, 0]), np.array([[1, 0], [3/5, 4/5], [0, 1]])


def test_simmatch_writes_by_hand():
    bank, written = ref.simmatch_write(B3, np.array([True, False, False]), ROWS, Z3)
    close(bank, [[.85 / math.sqrt(.745), .15 / math.sqrt(.745)], [0, 1], [3/5, 4/5]])
    assert written.tolist() == [True, False, True] and B3[2].tolist() == [0, -1]
    bank, written = ref.simmatch_write(B3, np.array([False, False, True]), ROWS, Z3)
    close(bank, [[math.sqrt(.5)] * 2, [0, 1], [.18 / math.sqrt(.244), -.46 / math.sqrt(.244)]])
    # momentum .5: (.5 + .25, .25) -> (3, 1)/sqrt 10
    close(ref.simmatch_write(B3, np.array([True] * 3), ROWS, Z3, .5)[0][0], [3 / math.sqrt(10), 1 / math.sqrt(10)])
    bank, written = ref.simmatch_write_teacher(B3, np.array([True, False, False]), ROWS, Z3)
    close(bank, [[math.sqrt(.5)] * 2, [0, 1], [3/5, 4/5]])
    assert written.tolist() == [True, False, True]
    # legacy: blended rows (.85, .15) and (.18, -.46); column norms^2 .7225 + .0324 = .7549 and .0225 + .2116 = .2341
    n0, n1 = math.sqrt(.7549), math.sqrt(.2341)
    close(ref.simmatch_write_legacy(B3, ROWS, Z3), [[.85 / n0, .15 / n1], [0, 1], [.18 / n0, -.46 / n1]])
    # order does not matter
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
        close(ref.simmatch_write(B3, np.array([True, False, False]), ROWS[order], Z3[order])[0][0],
              [.85 / math.sqrt(.745), .15 / math.sqrt(.745)])
        close(ref.simmatch_write_legacy(B3, ROWS[order], Z3[order])[0], [.85 / n0, .15 / n1])
    # methods.md: legacy rows come out with root mean square norm sqrt(D/b): each of D columns has unit norm over b rows
    rng = np.random.default_rng(0)
    block = ref.simmatch_write_legacy(rng.normal(size=(64, 128)), np.arange(64), rng.normal(size=(64, 128)))
    close((block * block).sum() / 64, 128 / 64)


# The method against the references, in double precision.

class Given:
    """Nets with given logits and embeddings. A view is a column of row numbers, plus 1000 for each pair of tables."""

    def __init__(self, *tables):
        self.tables = [tuple(torch.tensor(x, requires_grad=True) for x in pair) for pair in tables]
        self.calls = []

    def __call__(self, *views, teacher=False, grad=True, bn="update"):
        self.calls.append((len(views), teacher, grad, bn))
        outs = []
        for view in views:
            pair = self.tables[int(view[0, 0]) // 1000 + 10 * teacher]
            logits, emb = (table[view[:, 0].long() % 1000] for table in pair)
            outs.append(Out(logits if grad else logits.detach(), logits, {"emb": emb if grad else emb.detach()}))
        return tuple(outs)


def view(k, n):
    return (1000 * k + torch.arange(n))[:, None]


def units(x):
    return np.array([ref.unit(row) for row in x])


N_X, N_U, CLASSES, DIM = 5, 8, 4, 128
half = torch.tensor(0.5)


def a_method(y, **arguments):
    method = SimMatch(**arguments)
    method.setup(Spec(CLASSES, 6, torch.tensor(y), 40, N_X, 2, 100))
    return method.double().train()


def follow(method, seed, steps, near=0.0):
    """Several steps of method and reference side by side, each with its own bank and queue, compared each step."""
    rng = np.random.default_rng(seed)
    y, a = method.y.numpy(), method.arguments
    bank, written, queue, every = method.bank.numpy().copy(), np.zeros(len(y), bool), [], []
    for _ in range(steps):
        table = lambda n: (rng.normal(0, 3, (n, CLASSES)), rng.normal(0, 1, (n, DIM)))                # noqa: E731, B023
        tables = [table(n) for n in (N_X, N_U, N_U)]
        teacher = [table(n) for n in (N_X, N_U)]
        for emb in (tables[1][1], tables[2][1], teacher[1][1]):
            emb[:] = units(emb) + near * bank[rng.integers(0, len(y), N_U)]          # near: not all cosines about 0
        i = rng.integers(0, len(y), N_X)                                             # with replacement: rows repeat
        nets = Given(*tables, *[tables[0]] * 7, *teacher)
        batch = Batch(view(0, N_X), torch.tensor(y[i]), (view(1, N_U), view(2, N_U)), torch.tensor(i),
                      torch.arange(N_U), {})
        step = method.loss(nets, batch, half)
        (logits_l, z_l), (logits_w, z_w) = (tables if a["memory"] == "temporal" else teacher)[:2]
        expected = ref.simmatch_loss(
            tables[0][0], y[i], logits_w, tables[2][0], units(z_w), units(tables[2][1]), bank, y, queue, a["tau"],
            a["alpha"], a["t"], a["lambda_u"], a["lambda_in"], a["da_length"], bool(written.all()), a["p_hat"],
            a["q_hat"])
        queue = expected["queue"]
        assert step.loss.item() == pytest.approx(expected["loss"], abs=1e-6)
        for name, theirs in (("sup", "l_s"), ("unsup", "l_u"), ("inst", "l_in")):
            assert step.terms[name].item() == pytest.approx(expected[theirs], abs=1e-6)
        close_to(step.q.numpy(), expected["p_hat"])
        assert np.array_equal(step.mask.numpy(), expected["mask"])
        if a["legacy_bank_norm"]:
            for row in set(i[~written[i]]):                      # the first write replaces a row: blend it with itself
                bank[row] = units(z_l)[i == row].mean(0)
            momentum = a["bank_momentum"] if a["memory"] == "temporal" else 0.0
            bank = ref.simmatch_write_legacy(bank, i, units(z_l), momentum)
            written[i] = True
        elif a["memory"] == "temporal":
            bank, written = ref.simmatch_write(bank, written, i, units(z_l), a["bank_momentum"])
        else:
            bank, written = ref.simmatch_write_teacher(bank, written, i, units(z_l))
        close_to(method.bank.numpy(), bank)
        assert np.array_equal(method.written.numpy(), written)
        step.loss.backward()
        close_to(nets.tables[0][0].grad.numpy(), (ref.softmax(tables[0][0]) - np.eye(CLASSES)[y[i]]) / N_X)
        every.append(nets)
    return every, expected, written


def close_to(a, b):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("arguments", [
    {}, {"passes": "joint"}, {"p_hat": False}, {"q_hat": False}, {"memory": "teacher"}, {"memory": "eman"},
    {"legacy_bank_norm": True}, {"legacy_bank_norm": True, "memory": "teacher"}],
    ids=lambda a: "-".join(map(str, a.values())) or "default")
def test_simmatch_agrees_with_the_reference(seed, arguments):
    rng = np.random.default_rng(1000 + seed)
    per_class = (1, 3, 2, 1)[seed]                                          # one label a class among them
    method = a_method(rng.permutation(np.repeat(np.arange(CLASSES), per_class)), tau=rng.uniform(0.4, 0.9),
                      lambda_u=rng.uniform(0.2, 3), lambda_in=rng.uniform(0.2, 3), alpha=rng.uniform(0, 1),
                      t=rng.uniform(0.05, 0.5), da_length=3, bank_momentum=rng.uniform(0, 0.9), **arguments)
    every, expected, written = follow(method, seed, steps=20, near=1.0)
    assert written.all() and expected["l_in"] > 0                   # the first steps were cold, the last ones warm
    assert sum(nets.tables[2][0].grad.abs().sum() for nets in every) > 0 and every[-1].tables[2][1].grad.abs().sum() > 0
    targets = [table for nets in every for table in nets.tables[1] + nets.tables[11]]
    assert all(table.grad is None or table.grad.abs().sum() == 0 for table in targets)


def test_each_memory_makes_its_own_passes():
    follows = {"temporal": [(1, False, False, "update"), (2, False, True, "update")],
               "teacher": [(2, True, False, "batch"), (2, False, True, "update")],
               "eman": [(2, True, False, "running"), (2, False, True, "update")]}
    for memory, calls in follows.items():
        method = a_method(np.arange(CLASSES), memory=memory)
        assert follow(method, 0, steps=1)[0][0].calls == calls
        assert method.ema_buffers == ("average" if memory == "eman" else "copy")
    assert follow(a_method(np.arange(CLASSES), passes="joint"), 0, steps=1)[0][0].calls == [(3, False, True, "update")]


def test_a_pseudo_label_as_sure_as_tau_is_kept():
    method = a_method(np.arange(CLASSES)).eval()
    rng = np.random.default_rng(0)
    tables = [(rng.normal(0, 3, (n, CLASSES)), units(rng.normal(size=(n, DIM)))) for n in (N_X, N_U, N_U)]
    batch = Batch(view(0, N_X), torch.zeros(N_X, dtype=torch.int64), (view(1, N_U), view(2, N_U)), torch.zeros(N_X),
                  torch.arange(N_U), {})
    method.tau = method.loss(Given(*tables), batch, half).q.max().item()
    assert method.loss(Given(*tables), batch, half).mask.sum() == 1
    method.tau = np.nextafter(method.tau, 2)
    assert method.loss(Given(*tables), batch, half).mask.sum() == 0


def test_the_head_is_the_paper_s():
    first, between, last = SimMatch().setup(Spec(2, 6, torch.tensor([0, 1]), 8, 2, 2, 10))["emb"]
    assert first.weight.shape == (6, 6) and isinstance(between, torch.nn.ReLU) and last.weight.shape == (128, 6)


def test_alignment_of_a_class_that_is_hardly_ever_named():
    method = a_method(np.arange(CLASSES))
    p = np.array([[1e-9, 0.5, 0.25, 0.25 - 1e-9], [3e-9, 0.5, 0.2, 0.3 - 3e-9]])
    expected, _ = ref.simmatch_align(p, [], 32)
    assert expected[0, 0] > 0.05 and expected[1, 0] > 0.2
    close_to(align(torch.tensor(p).log(), method.queue, method.pushed)[0].exp().numpy(), expected)


def test_unfold_and_aggregate_by_hand():
    # the targets above: log q_w stands for the similarities, which softmax shifts alike
    y = torch.tensor(LABELS)
    close_to(unfold(torch.tensor(ALIGNED).log(), torch.tensor(Q_W).log(), y), Q_HAT)
    close_to(aggregate(torch.tensor(Q_W), y, 2), Q_AGG)


def test_targets_stay_finite_where_probabilities_underflow():
    # logits 200 apart: in float32 every probability but one is 0, and so is the mean of the batch
    method = SimMatch(t=0.01)
    method.setup(Spec(2, 6, torch.tensor([0, 1]), 8, 2, 2, 10))
    log_p, _ = align(torch.tensor([[0.0, 200.0], [0.0, 200.0]]), method.queue, method.pushed)
    far = torch.tensor([[100.0, -100.0], [100.0, -100.0]])                  # only the image of class 0 is alike
    q_hat = unfold(log_p, far, torch.tensor([0, 1]))
    assert log_p.isfinite().all() and q_hat.isfinite().all()
    close_to(q_hat.sum(1), [1, 1])


# The bank

def test_bank_rows_stay_unit_norm_and_the_slip_does_not():
    for arguments, norm in (({}, 1.0), ({"memory": "teacher"}, 1.0), ({"legacy_bank_norm": True}, math.sqrt(128 / 64))):
        method = SimMatch(**arguments)
        method.setup(Spec(10, 6, torch.arange(200) % 10, 8, 64, 2, 10))
        g = torch.Generator().manual_seed(0)
        for _ in range(30):
            i = torch.randperm(200, generator=g)[:64]
            method.write(i, torch.nn.functional.normalize(torch.randn(64, 128, generator=g)))
        assert method.written.all()
        norms = method.bank[i].square().sum(1)
        assert math.sqrt(norms.mean()) == pytest.approx(norm, abs=1e-5)
        assert norm != 1 or (method.bank.norm(dim=1) - 1).abs().max() < 1e-5


@pytest.mark.parametrize("arguments", [{}, {"memory": "teacher"}, {"legacy_bank_norm": True}], ids=str)
def test_the_write_does_not_depend_on_the_order_of_repeated_rows(arguments):
    g = torch.Generator().manual_seed(0)
    i, z = torch.tensor([3, 1, 3, 3, 0, 1]), torch.nn.functional.normalize(torch.randn(6, 128, generator=g))
    banks = []
    for order in (torch.arange(6), torch.arange(5, -1, -1), torch.tensor([2, 5, 0, 4, 1, 3])):
        torch.manual_seed(0)
        method = SimMatch(**arguments)
        method.setup(Spec(2, 6, torch.arange(6) % 2, 8, 6, 2, 10))
        for _ in range(2):
            method.write(i[order], z[order])
        banks.append(method.bank)
        assert method.written.tolist() == [True, True, False, True, False, False]
    assert torch.allclose(banks[0], banks[1], atol=1e-6) and torch.allclose(banks[0], banks[2], atol=1e-6)


def test_imagenet_s_tenth_fits_in_70_megabytes_of_buffers():
    method = SimMatch(da_length=256)
    method.setup(Spec(1000, 16, torch.arange(128_116) % 1000, 10, 64, 5, 10))
    assert sum(b.nbytes for b in method.buffers()) < 70e6


def test_alignment_evens_out_skewed_predictions_and_forgets():
    queue, uniform, skewed, found = torch.zeros(3, 2), torch.zeros(4, 2), torch.tensor([[2.0, 0.0]] * 4), []
    for pushed, logits in enumerate((uniform, skewed, skewed, skewed, skewed)):
        log_p, queue = align(logits, queue, torch.tensor(pushed))
        found.append(log_p.exp()[0, 0].item())
    assert found[0] == pytest.approx(0.5) and 0.5 < found[1] < skewed.softmax(1)[0, 0]
    assert found[-1] == pytest.approx(0.5)                 # the ring holds nothing but the skewed batches now


# What is refused

@pytest.mark.parametrize("arguments, message", [
    ({"alpha": 1.2}, "alpha is 1.2"), ({"alpha": -0.1}, "alpha"), ({"alpha": float("nan")}, "alpha"),
    ({"t": 0.0}, "t is 0"), ({"t": -1.0}, "t is -1"), ({"t": float("inf")}, "t is inf"),
    ({"t": float("nan")}, "t is nan"), ({"tau": 2.0}, "tau is 2"), ({"lambda_in": -1.0}, "lambda_in is -1"),
    ({"bank_momentum": 1.5}, "bank_momentum is 1.5"), ({"da_length": 0}, "da_length is 0"),
    ({"memory": "teacherr"}, "did you mean 'teacher'"), ({"passes": "splitt"}, "did you mean 'split'")])
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        SimMatch(**arguments)


def test_a_class_without_a_labelled_image_is_refused():
    with pytest.raises(InputError, match="class 2 has none"):
        SimMatch().setup(Spec(3, 6, torch.tensor([0, 1, 1]), 8, 2, 2, 10))
