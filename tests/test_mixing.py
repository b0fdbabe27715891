"""MixMatch, ReMixMatch and FreeMatch against references that were written apart from them."""
import numpy as np
import pytest
import references_base as reference
import torch
from references import softmax

from sslkit.errors import InputError
from sslkit.methods import FreeMatch, MixMatch, ReMixMatch, ops
from sslkit.records import Batch, Out, Spec

B, N, C, SIDE = 4, 8, 5, 4


class Linear:
    """Nets that are one matrix, in double precision: a reference can work out the logits of mixed images too."""

    def __init__(self, rng):
        self.weight = torch.tensor(rng.normal(size=(SIDE * SIDE, C)), requires_grad=True)
        self.rot = torch.tensor(rng.normal(size=(SIDE * SIDE, 4)), requires_grad=True)

    def __call__(self, *views, grad=True, **options):
        outs = []
        for view in views:
            flat = view.flatten(1)
            logits, rot = flat @ self.weight, flat @ self.rot
            outs.append(Out(logits if grad else logits.detach(), flat, {"rot": rot if grad else rot.detach()}))
        return tuple(outs)


def a_batch(rng, method, views):
    images = lambda n: torch.tensor(rng.normal(size=(n, 1, SIDE, SIDE)))         # noqa: E731
    g = torch.Generator().manual_seed(int(rng.integers(2**31)))
    method.setup(Spec(C, SIDE * SIDE, torch.arange(10) % C, 40, B, N // B, 100))
    method.double()
    return Batch(images(B), torch.tensor(rng.integers(0, C, B)), tuple(images(N) for _ in range(views)),
                 torch.arange(B), torch.arange(N), method.draw(g, B, N))


def mixed(batch, q, weight):
    """Logits of the mixed rows and their targets, by the reference's loops: those of x', those of u'."""
    x, *u = (view.flatten(1).numpy() for view in (batch.x, *batch.u))
    rows, targets = np.concatenate([x, *u]), np.concatenate([np.eye(C)[batch.y.numpy()], *[q] * len(u)])
    order = batch.draws["permutation"].numpy()
    rows, targets = (reference.mixup_rows(a, a[order], batch.draws["lam"].numpy()) for a in (rows, targets))
    logits = rows @ weight.detach().numpy()
    return logits[:B], targets[:B], logits[B:], targets[B:]


@pytest.mark.parametrize("seed", range(20))
def test_mixmatch_agrees_with_the_reference(seed):
    rng = np.random.default_rng(seed)
    T, lambda_u, progress = rng.uniform(0.3, 1), rng.uniform(1, 100), [0, 0.005, 0.5][seed % 3]
    method, nets = MixMatch(T=T, lambda_u=lambda_u, ramp=1 / 64), Linear(rng)
    batch = a_batch(rng, method, 2)
    step = method.loss(nets, batch, torch.tensor(progress))
    weak = [view.flatten(1).numpy() @ nets.weight.detach().numpy() for view in batch.u]
    q = reference.mixmatch_targets(*weak, T)
    expected = reference.mixmatch_loss(*mixed(batch, q, nets.weight), progress * 100, 100, lambda_u)
    assert np.allclose(step.q.numpy(), q, atol=1e-9) and (step.mask == 1).all()
    assert step.loss.item() == pytest.approx(expected["loss"], abs=1e-6)
    assert step.terms["sup"].item() == pytest.approx(expected["sup"], abs=1e-6)
    assert step.terms["unsup"].item() == pytest.approx(expected["unsup"], abs=1e-6)


@pytest.mark.parametrize("views", [1, 2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_remixmatch_agrees_with_the_reference_over_many_steps(seed, views):
    rng = np.random.default_rng(seed)
    T, weights = rng.uniform(0.3, 1), rng.uniform(0.2, 3, 3)
    method = ReMixMatch(T=T, lambda_u=weights[0], lambda_s=weights[1], lambda_r=weights[2], num_strong=views,
                        ramp=1 / 64)
    queue, p_data = np.full((128, C), 1 / C), np.full(C, 1 / C)
    for k in range(6):
        nets = Linear(rng)
        batch = a_batch(rng, method, 1 + views) if k == 0 else a_batch(rng, ReMixMatch(num_strong=views), 1 + views)
        step = method.loss(nets, batch, torch.tensor(k / 100))
        p = softmax(batch.u[0].flatten(1).numpy() @ nets.weight.detach().numpy())
        q = reference.remixmatch_align(p, p_data, queue, T)
        strong = batch.u[1].numpy()
        turned = np.stack([np.rot90(image, r, (1, 2)) for image, r in zip(strong, batch.draws["quarters"].numpy())])
        logits = strong.reshape(N, -1) @ nets.weight.detach().numpy()
        rot = turned.reshape(N, -1) @ nets.rot.detach().numpy()
        quarters = batch.draws["quarters"].numpy()
        expected = reference.remixmatch_loss(*mixed(batch, q, nets.weight), logits, q, rot, quarters, k, 100, *weights)
        queue = reference.remixmatch_push(queue, k % 128, p)
        p_data = reference.remixmatch_p_data(p_data, batch.y.numpy(), C, decay=0.9)          # 1 - 10/K of 100 steps
        assert np.allclose(step.q.numpy(), q, atol=1e-6)
        assert step.loss.item() == pytest.approx(expected["loss"], abs=1e-5)
        for ours, theirs in (("sup", "sup"), ("unsup", "unsup"), ("anchor", "s1"), ("rot", "rot")):
            assert step.terms[ours].item() == pytest.approx(expected[theirs], abs=1e-5)
        assert np.allclose(method.queue.numpy(), queue, atol=1e-6)
        assert np.allclose(method.p_data.numpy(), p_data, atol=1e-6)
    assert sorted(batch.draws["quarters"].tolist()) == [0, 0, 1, 1, 2, 2, 3, 3], "a quarter of the batch by each"


def test_remixmatchs_class_shares_are_those_of_the_labels_after_a_short_run():
    """Also at 100 steps; at the paper's K the decay is the paper's."""
    rng, shares = np.random.default_rng(0), torch.tensor([0.5, 0.25, 0.25, 0, 0])
    method, nets = ReMixMatch(), Linear(rng)
    batch = a_batch(rng, method, 3)._replace(y=torch.tensor([0, 0, 1, 2]))
    for k in range(100):
        method.loss(nets, batch, torch.tensor(k / 100))
    assert torch.allclose(method.p_data, shares.double(), atol=1e-4)
    for steps, decay in ((2**20, 0.999), (2000, 0.995), (5, 0.0)):
        method.setup(Spec(C, SIDE * SIDE, torch.arange(10) % C, 40, B, N // B, steps))
        method.double().loss(nets, batch, torch.tensor(0.5))
        assert torch.allclose(method.p_data, (decay / C + (1 - decay) * shares).double(), atol=1e-6)


@pytest.mark.parametrize("kind", [MixMatch, ReMixMatch])
@pytest.mark.parametrize("steps, share", [(2**20, 1 / 64), (2**16, 1 / 4), (2000, 0.4)])
def test_the_weight_rises_as_in_the_papers_runs_or_over_two_fifths(kind, steps, share):
    method = kind()
    method.setup(Spec(C, SIDE * SIDE, torch.arange(10) % C, 40, B, N // B, steps))
    assert method.share == share and kind(ramp=0.2).arguments["ramp"] == 0.2


@pytest.mark.parametrize("passes", ["split", "joint"])
@pytest.mark.parametrize("seed", range(10))
def test_freematch_agrees_with_the_reference_over_many_steps(seed, passes):
    rng = np.random.default_rng(seed)
    lambda_u, lambda_f, m, top = rng.uniform(0.2, 3), rng.uniform(0.01, 2), rng.uniform(0.3, 0.99), [1.0, 0.5][seed % 2]
    method = FreeMatch(lambda_u=lambda_u, lambda_f=lambda_f, m=m, max_tau=top, passes=passes)
    tau, p_tilde, hist = 1 / C, np.full(C, 1 / C), np.full(C, 1 / C)
    for k in range(8):
        nets = Linear(rng)
        batch = a_batch(rng, method, 2) if k == 0 else a_batch(rng, FreeMatch(), 2)
        if k == 7:                                              # nobody is sure of anything: no row is kept
            nets.weight = (nets.weight.detach() * 1e-3).requires_grad_()
            tau = 0.9
            method.tau.fill_(0.9)
        step = method.loss(nets, batch, torch.tensor(0.5))
        x, w, s = (view.flatten(1).numpy() @ nets.weight.detach().numpy() for view in (batch.x, *batch.u))
        expected = reference.freematch_loss(x, batch.y.numpy(), w, s, tau, p_tilde, hist, m, lambda_u, lambda_f, top)
        tau, p_tilde, hist = expected["tau"], expected["p_tilde"], expected["hist"]
        assert np.array_equal(step.mask.numpy() > 0, expected["mask"])
        assert step.loss.item() == pytest.approx(expected["loss"], abs=1e-6)
        for name in ("sup", "unsup", "fair"):
            assert step.terms[name].item() == pytest.approx(expected[name], abs=1e-6)
        assert method.tau.item() == pytest.approx(tau, abs=1e-6)
        assert np.allclose(method.p_tilde, p_tilde, atol=1e-6) and np.allclose(method.h, hist, atol=1e-6)
        step.loss.backward()
        assert nets.weight.grad.isfinite().all()
    assert expected["mask"].sum() == 0 and step.terms["fair"] == 0 or top < 1


@pytest.mark.parametrize("seed", range(10))
def test_freematchs_fairness_has_the_references_gradient(seed):
    rng = np.random.default_rng(seed)
    logits = torch.tensor(rng.normal(0, 2, (12, C)), requires_grad=True)
    mask = torch.tensor((rng.random(12) < 0.6).astype(float))
    p_tilde, hist = (torch.tensor(rng.dirichlet(np.ones(C))) for _ in range(2))
    method = FreeMatch()
    method.fairness(logits, mask, p_tilde, hist).backward()
    expected = reference.freematch_fair_grad(logits.detach().numpy(), mask.numpy() > 0, p_tilde.numpy(), hist.numpy())
    assert np.allclose(logits.grad.numpy(), expected, atol=1e-6)


def test_mixup_draws_are_permutations_and_shares_of_at_least_a_half():
    draws = ops.mixup_draws(torch.Generator().manual_seed(3), 4000, 0.75)
    again = ops.mixup_draws(torch.Generator().manual_seed(3), 4000, 0.75)
    assert all(torch.equal(draws[name], again[name]) for name in draws)
    assert torch.equal(draws["permutation"].sort().values, torch.arange(4000))
    assert 0.5 <= draws["lam"].min() and draws["lam"].max() <= 1 and draws["lam"].dtype == torch.float32
    # E max(l, 1 - l) of Beta(.75, .75) is 0.7783
    assert draws["lam"].mean().item() == pytest.approx(0.778, abs=0.01)


@pytest.mark.parametrize("T", [0.25, 0.5, 1.0])
def test_sharpen_agrees_with_the_reference(T):
    p = torch.softmax(torch.randn(20, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 5, 1)
    assert np.allclose(ops.sharpen(p, T).numpy(), reference.sharpen(p.numpy(), T), atol=1e-12)
    assert torch.allclose(ops.sharpen(torch.tensor([[1.0, 0.0]]), T), torch.tensor([[1.0, 0.0]]), atol=1e-12)


@pytest.mark.parametrize("kind, arguments, message", [
    (MixMatch, {"T": 0.0}, "T is 0"), (MixMatch, {"lambda_u": -1.0}, "lambda_u"),
    (MixMatch, {"alpha": -0.5}, "alpha is -0.5"), (ReMixMatch, {"alpha": float("inf")}, "alpha is inf"),
    (ReMixMatch, {"num_strong": 0}, "num_strong is 0"), (ReMixMatch, {"lambda_r": float("nan")}, "lambda_r is nan"),
    (FreeMatch, {"m": 1.5}, "m is 1.5"), (FreeMatch, {"max_tau": 2.0}, "max_tau is 2"),
    (FreeMatch, {"lambda_f": -1.0}, "lambda_f"),
    (FreeMatch, {"passes": "splitt"}, "did you mean 'split'")])
def test_arguments_out_of_range_are_refused(kind, arguments, message):
    with pytest.raises(InputError, match=message):
        kind(**arguments)
