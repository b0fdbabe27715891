"""Pi-Model, Pseudo-Label, Mean Teacher, VAT, UDA, Dash and CoMatch against references that were written apart from them,
over sequences of steps; what they refuse; a resumed run."""
import math

import numpy as np
import pytest
import references_family as reference
import torch

from sslkit.errors import InputError
from sslkit.methods import UDA, VAT, CoMatch, Dash, MeanTeacher, PiModel, PseudoLabel
from sslkit.networks.network import build
from sslkit.networks.pair import Nets
from sslkit.records import Batch, Out, Spec
from sslkit.training.config import Config, Machine
from sslkit.training.loop import train

B, N, C, SIDE, D = 4, 8, 5, 4, 16
seeds = pytest.mark.parametrize("seed", range(10))
both_passes = pytest.mark.parametrize("passes", ["split", "joint"])


class Linear:
    """Nets of one matrix each, and one for the head, in double precision; the teacher is a little behind."""

    def __init__(self, rng, scale=1.0):
        self.weight = torch.tensor(scale * rng.normal(size=(D, C)), requires_grad=True)
        self.teacher = self.weight.detach() + torch.tensor(rng.normal(size=(D, C)))
        self.emb = torch.tensor(rng.normal(size=(D, 64)), requires_grad=True)

    def __call__(self, *views, teacher=False, grad=True, **options):
        outs = []
        with torch.set_grad_enabled(grad):
            for view in views:
                flat = view.flatten(1)
                outs.append(Out(flat @ (self.teacher if teacher else self.weight), flat, {"emb": flat @ self.emb}))
        return tuple(outs)

    def logits(self, view, teacher=False):
        return view.flatten(1).numpy() @ (self.teacher if teacher else self.weight).detach().numpy()


def a_batch(rng, method, first=True):
    """A batch, and the method set up if it is the first."""
    images = lambda n: torch.tensor(rng.normal(size=(n, 1, SIDE, SIDE)))         # noqa: E731
    if first:
        method.setup(Spec(C, D, torch.arange(10) % C, 40, B, N // B, 100, None, (1, SIDE, SIDE)))
        method.double()
    draws = method.draw(torch.Generator().manual_seed(int(rng.integers(2**31))), B, N)
    return Batch(images(B), torch.tensor(rng.integers(0, C, B)), tuple(images(N) for _ in method.views),
                 torch.arange(B), torch.arange(N), {name: draw.double() for name, draw in draws.items()})


def agree(step, expected, *terms):
    """The loss, the terms, targets and masks are the reference's."""
    assert step.loss.item() == pytest.approx(expected["loss"], abs=1e-6)
    for name in ("sup", "unsup", *terms):
        assert step.terms[name].item() == pytest.approx(expected[name], abs=1e-6), name
    assert np.allclose(step.q.numpy(), expected["q"], atol=1e-6)
    assert np.array_equal(step.mask.numpy(), expected.get("mask", np.ones(N)))


@seeds
@pytest.mark.parametrize("kind", [PiModel, MeanTeacher])
def test_consistency_agrees_with_the_reference(kind, seed):
    rng = np.random.default_rng(seed)
    weight, share = rng.uniform(1, 60), [0.4, 0.0, 1.0][seed % 3]
    method, nets, teacher = kind(lambda_u=weight, ramp=share), Linear(rng), kind is MeanTeacher
    for k in (0, 13, 40, 99):
        batch = a_batch(rng, method)
        first, second = batch.u
        step = method.loss(nets, batch, torch.tensor(k / 100))
        loss = reference.mean_teacher if teacher else reference.pi_model
        agree(step, loss(nets.logits(batch.x), batch.y.numpy(), nets.logits(first, teacher), nets.logits(second), k, 100,
                         weight, share))


@seeds
def test_pseudo_label_agrees_with_the_reference(seed):
    rng = np.random.default_rng(seed)
    tau, weight = rng.uniform(0.3, 0.97), rng.uniform(0.2, 3)
    method, nets = PseudoLabel(tau=tau, lambda_u=weight), Linear(rng)
    for k in (0, 13, 40, 99):
        batch = a_batch(rng, method)
        step = method.loss(nets, batch, torch.tensor(k / 100))
        agree(step, reference.pseudo_label(nets.logits(batch.x), batch.y.numpy(), nets.logits(*batch.u), k, 100, tau,
                                           weight))


@seeds
@pytest.mark.parametrize("kl", ["forward", "reverse"])
def test_vat_agrees_with_the_reference(seed, kl):
    rng = np.random.default_rng(seed)
    eps, weights = rng.uniform(0.2, 3), rng.uniform(0.1, 2, 2)
    method, nets = VAT(eps=eps, lambda_u=weights[0], lambda_e=weights[1], kl=kl), Linear(rng, 0.3)
    for k in (0, 13, 99):
        batch = a_batch(rng, method)
        flat, noise = (t.flatten(1).numpy() for t in (*batch.u, batch.draws["noise"]))
        step = method.loss(nets, batch, torch.tensor(k / 100))
        expected = reference.vat(batch.x.flatten(1).numpy(), batch.y.numpy(), flat, nets.weight.detach().numpy(), noise,
                                 k, 100, *weights, eps=eps, xi=eps / 100, reverse=kl == "reverse")
        agree(step, expected, "entropy")
        step.loss.backward()
        assert nets.weight.grad.isfinite().all()


def direction(xi, dtype, precision=torch.float32):
    """VAT's perturbation r (64, 64) of a network of `dtype`, whose backbone computes in `precision`."""
    x, g = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0)).to(dtype), torch.Generator().manual_seed(1)
    net, seen, method = build("wrn-10-1", C, 1).to(dtype), [], VAT(xi=xi)
    with torch.no_grad():
        net.classifier.weight.mul_(5)
    forward = net.forward if dtype == torch.float32 else lambda x, how: Out(
        net.classifier(feat := net.backbone(x)), feat, {})                       # Network computes features in float32
    net.forward = lambda x, how: seen.append(x.detach()) or forward(x, how)
    method.setup(Spec(C, 64, torch.arange(C), 64, B, 16, 10, None, (1, 8, 8)))
    noise = {"noise": torch.randn(64, 1, 8, 8, generator=g).to(dtype)}
    batch = Batch(x[:B], torch.zeros(B, dtype=torch.int64), (x,), None, None, noise)
    method.loss(Nets(net, dtype=precision), batch, torch.tensor(0.5))
    return (seen[-1] - x).flatten(1).double()


def test_vats_direction_is_that_of_double_precision():
    """Also where the run computes in bfloat16. With the papers' xi it is not, in float32."""
    alike = lambda a, b: torch.cosine_similarity(a, b).mean()                   # noqa: E731
    exact = direction(None, torch.float64)
    assert alike(direction(None, torch.float32), exact) > 0.99
    assert alike(direction(None, torch.float32, torch.bfloat16), exact) > 0.99
    assert alike(direction(1e-6, torch.float32), direction(1e-6, torch.float64)) < 0.8
    assert torch.allclose(exact.norm(dim=1), torch.tensor(6 * math.sqrt(64 / 3072)).double(), rtol=1e-3)


@seeds
@both_passes
@pytest.mark.parametrize("tsa", ["none", "linear", "exp", "log"])
def test_uda_agrees_with_the_reference(seed, passes, tsa):
    rng = np.random.default_rng(seed)
    tau, T, weight = rng.uniform(0.3, 0.97), rng.uniform(0.2, 1), rng.uniform(0.2, 3)
    method, nets = UDA(tau=tau, T=T, lambda_u=weight, tsa=tsa, passes=passes), Linear(rng)
    for k in (0, 13, 50, 99):
        batch = a_batch(rng, method)
        step = method.loss(nets, batch, torch.tensor(k / 100))
        agree(step, reference.uda(nets.logits(batch.x), batch.y.numpy(), *map(nets.logits, batch.u), k, 100, tau, T, weight,
                                  tsa))


@seeds
@pytest.mark.parametrize("steps, when", [(2048, (0, 3, 16, 17, 18, 19, 20, 39, 60, 300, 2047)), (800, (0, 1, 6, 7, 8, 20, 799)),
                                         (50, (0, 1, 2, 25, 49))], ids=["long", "no epoch 9", "one warm step"])
def test_dash_agrees_with_the_reference_over_a_run(seed, steps, when):
    rng = np.random.default_rng(seed)
    options = {"gamma": rng.uniform(1.05, 1.5), "rho_min": rng.uniform(0.01, 0.3), "T": rng.uniform(0.3, 1),
               "lambda_u": rng.uniform(0.2, 2), "rho0": ("labeled", "unlabeled")[seed % 2], "average": ("kept", "all")[seed // 2 % 2]}
    method, state = Dash(**options, passes=("split", "joint")[seed % 2]), reference.dash_start()
    for at, k in enumerate(when):
        nets, batch = Linear(rng, 0.5), a_batch(rng, method, first=at == 0)
        step = method.loss(nets, batch, torch.tensor(k / steps))
        expected = reference.dash(state, nets.logits(batch.x), batch.y.numpy(), *map(nets.logits, batch.u), k, steps, **options)
        agree(step, expected)
        limit = math.inf if expected["rho"] is None else max(expected["rho"], options["rho_min"])
        assert step.terms["tau"].item() == pytest.approx(math.exp(-limit), abs=1e-6)
        state = expected["state"]
        assert method.total.item() == pytest.approx(state["total"], abs=1e-6)
        assert (method.count.item(), method.epoch.item()) == (state["steps"], state["epoch"])


@seeds
@both_passes
@pytest.mark.parametrize("memory", [5, 2])
def test_comatch_agrees_with_the_reference_over_a_run(seed, passes, memory):
    rng = np.random.default_rng(seed)
    options = {"tau": rng.uniform(0.3, 0.9), "alpha": rng.uniform(0.2, 0.95), "t": rng.uniform(0.1, 1),
               "contrast_th": rng.uniform(0.1, 0.8), "lambda_u": rng.uniform(0.2, 3), "lambda_c": rng.uniform(0.2, 3),
               "da_length": int(rng.integers(1, 6)), "queue_batch": memory}
    method, state = CoMatch(**options, passes=passes), reference.comatch_start()
    named = {{"contrast_th": "graph", "queue_batch": "memory"}.get(name, name): value for name, value in options.items()}
    for k in range(10):
        nets, batch = Linear(rng), a_batch(rng, method, first=k == 0)
        step = method.loss(nets, batch, torch.tensor(k / 100))
        z = lambda view: (view.flatten(1) @ nets.emb).detach().numpy()           # noqa: B023, E731
        w, s0, s1 = batch.u
        expected = reference.comatch(state, nets.logits(batch.x), batch.y.numpy(), z(batch.x), nets.logits(w), z(w),
                                     nets.logits(s0), z(s0), z(s1), **named)
        agree(step, expected, "con")
        state = expected["state"]
        have = {(k - at) % memory: block for at, block in enumerate(reversed(state["memory"]))}
        for slot, (rows, p) in have.items():
            assert np.allclose(method.z[slot].numpy(), rows, atol=1e-6) and np.allclose(method.p[slot].numpy(), p, atol=1e-6)
        assert method.pushed == state["steps"]
    rows = method.z.flatten(0, 1).norm(dim=1)
    assert torch.allclose(rows, torch.ones_like(rows)), "rows of the memory stay unit norm"


@pytest.mark.parametrize("kind", [PiModel, PseudoLabel, MeanTeacher, VAT, UDA, Dash, CoMatch])
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(kind, digits):
    config, machine = Config(steps=24, batch_size=8, mu=2, eval_every=12), Machine(device="cpu", threads=1)
    whole = list(train(kind(), digits, config, machine))[-1].state()
    half = next(snap for snap in train(kind(), digits, config, machine) if snap.step == 12).state()
    resumed = list(train(kind(), digits, config, machine, state=half))[-1].state()
    for part in ("student", "teacher", "method"):
        assert all(torch.equal(value, resumed[part][name]) for name, value in whole[part].items()), part


@pytest.mark.parametrize("kind, arguments, message", [
    (PiModel, {"lambda_u": -1.0}, "lambda_u is -1"), (PiModel, {"ramp": 1.5}, "ramp is 1.5"),
    (PseudoLabel, {"tau": 2.0}, "tau is 2"), (MeanTeacher, {"ramp": float("nan")}, "ramp is nan"),
    (VAT, {"eps": 0.0}, "eps is 0"), (VAT, {"xi": -1.0}, "xi is -1"), (VAT, {"kl": "revers"}, "did you mean 'reverse'"),
    (VAT, {"lambda_e": float("inf")}, "lambda_e is inf"), (UDA, {"T": 0.0}, "T is 0"),
    (UDA, {"tsa": "lin"}, "did you mean 'linear'"), (UDA, {"passes": "splitt"}, "did you mean 'split'"),
    (Dash, {"gamma": 1.0}, "gamma is 1, it must be a finite number above 1"), (Dash, {"rho_min": 0.0}, "rho_min is 0"),
    (Dash, {"rho0": "labelled"}, "did you mean 'labeled'"), (Dash, {"average": "al"}, "did you mean 'all'"),
    (CoMatch, {"queue_batch": 0}, "queue_batch is 0"), (CoMatch, {"da_length": 0}, "da_length is 0"),
    (CoMatch, {"contrast_th": 1.1}, "contrast_th is 1.1"),
    (CoMatch, {"queue_batch": 10**30}, "from 1 to 10000"), (UDA, {"T": 1e-50}, "at least 1.2e-38"), (CoMatch, {"t": 0.0}, "t is 0")])
def test_arguments_out_of_range_are_refused(kind, arguments, message):
    with pytest.raises(InputError, match=message):
        kind(**arguments)


@pytest.mark.parametrize("kind", [PiModel, PseudoLabel, MeanTeacher, VAT])
def test_only_the_labelled_pass_updates_the_running_statistics(kind):
    running = lambda net: torch.cat([m.running_mean for m in net.norms])        # noqa: E731
    method, nets, plain = kind(), *(Nets(build("small", C, 1), bn_momentum=0.1) for _ in range(2))
    method.setup(Spec(C, 64, torch.arange(10) % C, 40, B, N // B, 100, None, (1, 8, 8)))
    g, before = torch.Generator().manual_seed(0), running(nets.teacher)
    x, *u = (torch.randn(n, 1, 8, 8, generator=g) for n in (B, *(N for _ in method.views)))
    batch = Batch(x, torch.arange(B), tuple(u), torch.arange(B), torch.arange(N), method.draw(g, B, N))
    method.loss(nets, batch, torch.tensor(0.5))
    plain(x)
    assert torch.equal(running(nets.student), running(plain.student)) and not torch.equal(running(nets.student), before)
    assert torch.equal(running(nets.teacher), before)


def slope(loss, weight, at, size=1e-6):
    """The slope of the loss (a function of the weight) at one entry, by central differences."""
    moved = [weight.copy() for _ in range(2)]
    for each, sign in zip(moved, (1, -1)):
        each[at] += sign * size
    return (loss(moved[0]) - loss(moved[1])) / (2 * size)


@pytest.mark.parametrize("passes", ["split", "joint"])
def test_comatchs_embeddings_learn_from_both_strong_views(passes):
    """Against central differences of the reference's contrastive loss, in which z_w, z_x and q stay as they are."""
    rng = np.random.default_rng(0)
    method, nets = CoMatch(passes=passes, contrast_th=0.2), Linear(rng)
    batch = a_batch(rng, method)
    method.loss(nets, batch, torch.tensor(0.5)).loss.backward()
    x, w, s0, s1 = (view.flatten(1).numpy() for view in (batch.x, *batch.u))
    logits = {name: view @ nets.weight.detach().numpy() for name, view in (("x", x), ("w", w), ("s0", s0))}
    still = nets.emb.detach().numpy()

    def loss(emb):
        return reference.comatch(reference.comatch_start(), logits["x"], batch.y.numpy(), x @ still, logits["w"], w @ still,
                                 logits["s0"], s0 @ emb, s1 @ emb, graph=0.2)["con"]

    for at in ((0, 0), (3, 7), (15, 63)):
        assert nets.emb.grad[at].item() == pytest.approx(slope(loss, still, at), abs=1e-6)


@pytest.mark.parametrize("weights", [(0.0, 1.0), (1.0, 0.0)], ids=["entropy", "perturbed"])
def test_vats_gradients_are_those_of_the_reference(weights):
    """By central differences: of the entropy, through both its parts; of KL(p(u) || p(u + r)), p(u) and r as they are."""
    rng = np.random.default_rng(0)
    method, nets = VAT(eps=1.0, lambda_u=weights[0], lambda_e=weights[1], ramp=0.0), Linear(rng, 0.3)
    batch = a_batch(rng, method)
    x, u, noise = (t.flatten(1).numpy() for t in (batch.x, *batch.u, batch.draws["noise"]))
    y, still = batch.y.numpy(), nets.weight.detach().numpy()
    options = {"eps": 1.0, "xi": 0.01, "share": 0.0}
    r = reference.vat(x, y, u, still, noise, 1, 2, *weights, **options)["r"]
    method.loss(nets, batch, torch.tensor(0.5)).loss.backward()

    def loss(weight):
        found = reference.vat(x, y, u, weight, noise, 1, 2, *weights, **options)
        return found["sup"] + weights[0] * np.mean(reference.kl_rows(u @ still, (u + r) @ weight)) + weights[1] * found["entropy"]

    for at in ((0, 0), (3, 2), (15, 4)):
        assert nets.weight.grad[at].item() == pytest.approx(slope(loss, still, at), abs=1e-6)
