"""The contract that every method keeps, and each method against its independent reference."""
import functools
import importlib
import inspect
import os
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import references
import torch

from sslkit import methods
from sslkit.errors import InputError
from sslkit.networks.network import Network, build
from sslkit.networks.pair import Nets
from sslkit.records import Batch, Out, Spec
from sslkit.training.loop import means, tally

B, MU, C = 6, 3, 5
# a value of each hyper-parameter that must change the loss of some batch
OTHER = {"tau": 0.3, "lambda_u": 3.0, "passes": "joint", "eman": True, "lambda_in": 3.0, "alpha": 0.5, "t": 0.4, "memory": "teacher",
         "bank_momentum": 0.2, "da_length": 1, "p_hat": False, "q_hat": False, "legacy_bank_norm": True,
         "loss": "sce", "a": 3.0, "b": 3.0, "T": 1.0, "lambda_s": 3.0, "lambda_r": 3.0, "lambda_f": 3.0,
         "num_strong": 3, "m": 0.2, "max_tau": 0.0, "ramp": 1.0, "eps": 3.0, "lambda_e": 3.0, "xi": 3.0,
         "kl": "reverse", "tsa": "exp", "gamma": 1.01, "rho_min": 3.0, "rho0": "unlabeled", "average": "all",
         "contrast_th": 0.0, "queue_batch": 1, "lambda_c": 3.0}
# what else must be set for it to matter
WITH = {"a": {"loss": "sce"}, "b": {"loss": "sce"}, "max_tau": {"m": 0.2}, "rho0": {"gamma": 2.5},
        "average": {"gamma": 4.0}}
# when it matters, a share of the run, if not half-way: Dash's targets are soft and its threshold falls at the start
WHEN = {"Dash": 0.03}
# arguments besides the default under which a method must keep the contract too
ALSO = {"FixMatch": ({"eman": True},), "SimMatch": ({"memory": "teacher"}, {"memory": "eman"}), "KDFixMatch": ({"loss": "sce"},),
        "VAT": ({"kl": "reverse"},), "UDA": ({"tsa": "linear"},), "Dash": ({"rho0": "unlabeled"},)}


PSEUDO = torch.where(torch.arange(40) % 2 == 0, torch.arange(40) % C, -1)     # a labeler's labels of half the rows


def make(kind, **arguments):
    method = kind(**arguments)
    net = build("small", C, 1)
    torch.manual_seed(0)
    net.heads.update(method.setup(Spec(C, net.feat_dim, torch.arange(10) % C, 40, B, MU, 100, PSEUDO, (1, 8, 8))))
    return method.train(), Nets(net, bn_momentum=0.1)


def a_batch(method, seed=0):
    g = torch.Generator().manual_seed(seed)
    u = tuple(torch.randn(MU * B, 1, 8, 8, generator=g) for _ in method.views)
    rows = torch.randint(10, (B,), generator=g)
    return Batch(torch.randn(B, 1, 8, 8, generator=g), rows % C, u, rows, torch.randperm(40, generator=g)[:MU * B],
                 method.draw(g, B, MU * B if u else 0))


def warm(method, nets):
    """Show every labelled row, from the start of the run on, so that banks and memories are filled."""
    with torch.no_grad():
        for k in range(7):
            batch = a_batch(method, 100 + k)
            rows = (torch.arange(B) + k * B) % 10
            method.loss(nets, batch._replace(i=rows, y=rows % C), torch.tensor(k / 1024))


def confident(nets):
    """Make the networks sure of themselves, so that rows are kept."""
    with torch.no_grad():
        for net in (nets.student, nets.teacher):
            net.classifier.weight.mul_(40)
    return nets


half = torch.tensor(0.5)
KINDS = [functools.partial(kind, **arguments) for kind in methods.ALL
         for arguments in ({}, *ALSO.get(kind.__name__, ()))]
name_of = lambda kind: "-".join((kind.func.__name__, *map(str, kind.keywords.values())))                   # noqa: E731
every = pytest.mark.parametrize("kind", KINDS, ids=name_of)
with_unlabeled = pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.func.views], ids=name_of)


@every
def test_loss_is_finite_and_its_record_complete(kind):
    method, nets = make(kind)
    step = method.loss(nets, a_batch(method), half)
    assert step.loss.isfinite() and step.loss.shape == () and step.loss.dtype == torch.float32
    assert all(not t.requires_grad and t.shape == () for t in step.terms.values())
    if method.views:
        assert step.q.shape == (MU * B, C) and step.mask.shape == (MU * B,) and not step.q.requires_grad
        guessed = step.q.any(1)                                                         # a row of zeros is no guess
        assert torch.allclose(step.q.sum(1), guessed.float(), atol=1e-5) and not step.mask[~guessed].any()
        assert guessed.all() or kind.func is methods.FixedLabels
        assert 0 <= step.mask.min() <= step.mask.max() <= 1
    again = method.loss(nets, a_batch(method, 1), half)
    assert again.terms.keys() == step.terms.keys()


@with_unlabeled
def test_unlabeled_term_has_a_gradient_through_the_strong_view_and_none_through_the_targets(kind):
    # keep all rows: of random networks with a bank nothing would be kept
    zero = {name: value for name, value in (("tau", 0.0), ("rho_min", 50.0))
            if name in inspect.signature(kind.func).parameters}
    method, nets = make(kind, **zero)
    warm(method, confident(nets))
    batch = a_batch(method)
    batch = batch._replace(u=tuple(u.requires_grad_() for u in batch.u))
    step = method.loss(nets, batch, half)
    assert step.terms["unsup"] > 0 and step.mask.sum() > 0
    assert all(step.terms[name] > 0 for name in step.terms.keys() - {"from_outer", "fair"})
    for k, (name, gradient) in enumerate(zip(method.views, torch.autograd.grad(step.loss, batch.u, allow_unused=True))):
        if name != "weak" or kind.func in MIXING or k == LEARNT.get(kind.func):
            assert gradient.abs().sum() > 0
        else:
            assert gradient is None or gradient.abs().sum() == 0


MIXING = (methods.MixMatch, methods.ReMixMatch)      # every view is in what the student is trained on
# the weak view on which the student is trained, of methods without a strong one
LEARNT = {methods.PiModel: 1, methods.PseudoLabel: 0, methods.MeanTeacher: 1, methods.VAT: 0}


@pytest.mark.parametrize("kind", MIXING)
def test_targets_of_mixed_rows_carry_no_gradient(kind):
    """Each row is mixed with itself, so that the weak views' gradient comes through the mixed rows alone."""
    method, nets = make(kind)
    confident(nets)
    batch = a_batch(method)
    own = torch.arange(len(batch.draws["lam"]))
    batch = batch._replace(draws=batch.draws | {"permutation": own}, u=tuple(u.requires_grad_() for u in batch.u))
    q = method.loss(nets, batch, half).q
    assert not q.requires_grad and q.grad_fn is None


@pytest.mark.parametrize("kind", methods.ALL, ids=lambda kind: kind.__name__)
def test_every_hyper_parameter_changes_the_loss_on_some_batch(kind):
    names, when = inspect.signature(kind).parameters, torch.tensor(WHEN.get(kind.__name__, 0.5))
    assert set(names) == set(kind().arguments)
    for name in names:
        for seed in range(3):
            losses = []
            for arguments in ({}, {name: OTHER[name]}):
                method, nets = make(kind, **({"tau": 0.5} if "tau" in names else {}) | WITH.get(name, {}) | arguments)
                if seed:
                    confident(nets)
                warm(method, nets)
                method.loss(nets, a_batch(method, seed), when).loss.backward()
                losses.append(torch.cat([p.grad.flatten() for p in nets.student.parameters()]))
            changed = not torch.allclose(*losses)
            if changed:
                break
        assert changed, name


def permuted(draws, rows, u):
    """The same draws for permuted rows: `rows` of x and all views of u, `u` of one."""
    if "permutation" in draws:
        draws = draws | {"lam": draws["lam"][rows], "permutation": rows.argsort()[draws["permutation"][rows]]}
    return {name: draw[u] if name in ("quarters", "noise") else draw for name, draw in draws.items()}


@every
def test_permuting_rows_changes_nothing(kind):
    method, nets = make(kind)
    warm(method, confident(nets))
    batch = a_batch(method)
    before = method.loss(nets, batch, half)
    x, u = torch.randperm(B), torch.randperm(MU * B)
    shuffled = Batch(batch.x[x], batch.y[x], tuple(v[u] for v in batch.u), batch.i[x], batch.j[u],
                     permuted(batch.draws, torch.cat((x, *(B + k * MU * B + u for k in range(len(batch.u))))), u))
    method, nets = make(kind)
    warm(method, confident(nets))
    after = method.loss(nets, shuffled, half)
    assert torch.allclose(before.loss, after.loss, atol=1e-4)
    if method.views:
        assert torch.allclose(before.q[u], after.q, atol=1e-4)


@every
def test_eval_mode_leaves_every_buffer_as_it_was_and_state_round_trips(kind):
    method, nets = make(kind)
    for seed in range(3):
        method.loss(nets, a_batch(method, seed), half)
    state = {k: v.clone() for k, v in method.state_dict().items()}
    method.eval()
    method.loss(nets, a_batch(method, 9), half)
    assert all(torch.equal(state[k], v) for k, v in method.state_dict().items())
    fresh, _ = make(kind)
    fresh.load_state_dict(state)
    assert all(torch.equal(state[k], v) for k, v in fresh.state_dict().items())


@every
def test_loss_compiles_as_one_graph(kind):
    method, nets = make(kind)
    eager = method.loss(nets, a_batch(method), half).loss
    method, nets = make(kind)
    if not method.compiles:
        pytest.skip("it takes a gradient inside")
    compiled = torch.compile(method.loss, fullgraph=True, backend="eager")(nets, a_batch(method), half).loss
    assert torch.allclose(eager, compiled, atol=1e-6)


@every
def test_a_methods_file_says_where_it_comes_from(kind):
    doc = inspect.getdoc(inspect.getmodule(kind.func))
    assert kind.func.__name__.lower() in re.sub("[- ]", "", doc.lower()) or "L_s" in doc
    assert kind.func.__name__ == "Supervised" or "Differs from the paper" in doc


def test_unknown_method_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'fixmatch'"):
        methods.method_class("fixmach")


class Fixed:
    """Nets whose logits are given, in double precision."""

    def __init__(self, *logits):
        self.given = [torch.tensor(x, requires_grad=True) for x in logits]

    def __call__(self, *views, grad=True, **options):
        """A view is a column of row numbers, offset by 1000 for each tensor of logits."""
        outs = []
        for view in views:
            which, rows = int(view[0, 0]) // 1000, view[:, 0].long() % 1000
            logits = self.given[which][rows]
            outs.append(Out(logits if grad else logits.detach(), logits, {}))
        return tuple(outs)


@pytest.mark.parametrize("passes", ["split", "joint"])
@pytest.mark.parametrize("seed", range(20))
def test_fixmatch_agrees_with_the_reference(seed, passes):
    rng = np.random.default_rng(seed)
    n_x, n_u, tau, lambda_u = 4, 12, rng.uniform(0.3, 0.97), rng.uniform(0.2, 3)
    x, w, s = (rng.normal(0, 3, (n, 7)) for n in (n_x, n_u, n_u))
    y = rng.integers(0, 7, n_x)
    nets = Fixed(x, w, s)
    view = lambda k, n: (1000 * k + torch.arange(n))[:, None]                # noqa: E731
    batch = Batch(view(0, n_x), torch.tensor(y), (view(1, n_u), view(2, n_u)), torch.arange(n_x), torch.arange(n_u), {})
    step = methods.FixMatch(tau=tau, lambda_u=lambda_u, passes=passes).loss(nets, batch, half)
    expected = references.fixmatch(x, y, w, s, tau, lambda_u)
    assert step.loss.item() == pytest.approx(expected["loss"], abs=1e-6)
    assert step.terms["sup"].item() == pytest.approx(expected["sup"], abs=1e-6)
    assert step.terms["unsup"].item() == pytest.approx(expected["unsup"], abs=1e-6)
    assert np.allclose(step.q.numpy(), expected["q"], atol=1e-6) and np.array_equal(step.mask.numpy(), expected["mask"])
    assert np.array_equal(step.q.argmax(1).numpy(), expected["pseudo"])
    step.loss.backward()
    assert np.allclose(nets.given[2].grad.numpy(), references.fixmatch_grad_s(w, s, tau, lambda_u), atol=1e-6)
    assert nets.given[1].grad is None or nets.given[1].grad.abs().max() == 0


class Norm(torch.nn.Module):
    """A backbone that is BatchNorm alone, on rows of 5 numbers, in double precision."""

    def __init__(self):
        super().__init__()
        self.norm, self.feat_dim = torch.nn.BatchNorm1d(5).double(), 5

    def forward(self, x):
        return self.norm(x)


@pytest.mark.parametrize("seed", range(5))
def test_fixmatch_eman_agrees_with_the_reference(seed, monkeypatch):
    """Over steps of SGD: who labels, by which statistics, what is averaged, and which rows the student sees together."""
    rng = np.random.default_rng(seed)
    decay, m, tau, lambda_u = rng.uniform(0.5, 0.9), rng.uniform(0.1, 0.4), rng.uniform(0.5, 0.8), rng.uniform(0.5, 3)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)             # Network gives float32
    method, net = methods.FixMatch(tau=tau, lambda_u=lambda_u, eman=True), Network(Norm(), 4).double()
    with torch.no_grad():
        for value in (*net.parameters(), net.backbone.norm.running_mean):
            value.copy_(torch.tensor(rng.normal(0, 1, value.shape)))
    nets = Nets(net, ema_decay=decay, bn_momentum=m, ema_buffers=method.ema_buffers)
    sgd = torch.optim.SGD(net.parameters(), lr=0.3)
    numbers = lambda: [value.detach().numpy().copy() for value in (              # noqa: E731
        net.backbone.norm.weight, net.backbone.norm.bias, net.classifier.weight, net.classifier.bias)]
    reference = references.FixMatchEMAN(numbers(), net.backbone.norm.running_mean.numpy(), net.backbone.norm.running_var.numpy(), decay, m)
    masks = []
    for _ in range(6):
        x, w, s = (rng.normal(rng.normal(), 2, (n, 5)) for n in (4, 12, 12))
        y = rng.integers(0, 4, 4)
        expected = reference.loss(numbers(), x, y, w, s, tau, lambda_u)
        views = [torch.tensor(v, requires_grad=True) for v in (x, w, s)]
        step = method.loss(nets, Batch(views[0], torch.tensor(y), tuple(views[1:]), torch.arange(4), torch.arange(12), {}), half)
        assert step.loss.item() == pytest.approx(expected["loss"], abs=1e-6) and step.q.numpy() == pytest.approx(expected["q"], abs=1e-6)
        assert np.array_equal(step.mask.numpy(), expected["mask"])
        assert (step.terms["sup"].item(), step.terms["unsup"].item()) == pytest.approx((expected["sup"], expected["unsup"]), abs=1e-6)
        sgd.zero_grad()
        step.loss.backward()
        assert views[1].grad is None and views[2].grad.abs().sum() > 0
        sgd.step()
        nets.update_ema()
        reference.update(numbers())
        masks.append(step.mask)
    assert 0 < torch.cat(masks).mean() < 1


def test_supervised_agrees_with_the_reference():
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 3, (5, 7)), rng.integers(0, 7, 5)
    batch = Batch(torch.arange(5)[:, None], torch.tensor(y), (), torch.arange(5), torch.empty(0), {})
    step = methods.Supervised().loss(Fixed(x), batch, half)
    assert step.loss.item() == pytest.approx(references.supervised_loss(x, y), abs=1e-6)


@pytest.mark.parametrize("arguments, message", [
    ({"tau": 1.2}, "tau is 1.2"), ({"tau": -0.1}, "tau"), ({"tau": float("nan")}, "tau"),
    ({"lambda_u": -1.0}, "lambda_u is -1"), ({"passes": "splitt"}, "did you mean 'split'")])
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        methods.FixMatch(**arguments)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("loss", ["ce", "sce"])
def test_kd_fixmatch_agrees_with_the_reference(seed, loss):
    rng = np.random.default_rng(seed)
    n_x, n_u, tau, lambda_u, a, b = 4, 15, rng.uniform(0.4, 0.97), *rng.uniform(0.2, 3, 3)
    x, w, s = (rng.normal(0, 3, (n, 7)) for n in (n_x, n_u, n_u))
    s[0, :2] = (60, -60)                                          # a probability under the clip
    y, trusted = rng.integers(0, 7, n_x), rng.integers(-1, 7, 40)
    method, rows = methods.KDFixMatch(tau=tau, lambda_u=lambda_u, loss=loss, a=a, b=b), rng.permutation(40)[:n_u]
    method.setup(Spec(7, 64, torch.tensor(y), 40, n_x, 3, 10, torch.tensor(trusted)))
    nets = Fixed(x, w, s)
    view = lambda k, n: (1000 * k + torch.arange(n))[:, None]                # noqa: E731
    batch = Batch(view(0, n_x), torch.tensor(y), (view(1, n_u), view(2, n_u)), torch.arange(n_x), torch.tensor(rows),
                  {})
    step = method.loss(nets, batch, half)
    expected = references.kd_inner_loss(x, y, w, s, trusted[rows], tau, lambda_u, loss, a, b)
    assert step.loss.item() == pytest.approx(expected["loss"], abs=1e-6)
    assert step.terms["sup"].item() == pytest.approx(expected["l_s"], abs=1e-6)
    assert step.terms["unsup"].item() == pytest.approx(expected["l_u"], abs=1e-6)
    assert step.terms["from_outer"].item() == pytest.approx((expected["source"] == 2).mean(), abs=1e-6)
    kept = expected["mask"] > 0
    assert np.array_equal(step.mask.numpy(), expected["mask"])
    assert np.array_equal(step.q.argmax(1).numpy()[kept], expected["target"][kept])
    step.loss.backward()
    assert nets.given[1].grad is None or nets.given[1].grad.abs().max() == 0


def test_kd_fixmatch_without_a_trusted_row_is_fixmatch_to_the_bit(digits, tmp_path):
    from sslkit.records import PseudoLabels
    from sslkit.training.config import Config, Machine
    from sslkit.training.run import fit
    nobody = digits.told(PseudoLabels(torch.full((1397,), -1), torch.zeros(1397), {}, "nobody"))
    config = Config(steps=30, eval_every=10, batch_size=16, mu=2)
    machine = Machine(device="cpu", threads=1)
    plain = fit(methods.FixMatch(tau=0.3), digits, config, machine, out=tmp_path / "plain")
    for data in (digits, nobody):
        inner = fit(methods.KDFixMatch(tau=0.3), data, config, machine, out=tmp_path / f"inner-{data.hash}")
        ours = [{k: v for k, v in m.items() if k not in ("seconds", "from_outer")} for m in inner.metrics]
        assert ours == [{k: v for k, v in m.items() if k != "seconds"} for m in plain.metrics]
        assert plain.metrics[-1]["mask_rate"] > 0.1
        assert all(torch.equal(v, inner.checkpoint()["student"][k]) for k, v in plain.checkpoint()["student"].items())


def test_pseudo_labels_are_part_of_the_data(digits):
    from sslkit.records import PseudoLabels
    labels = torch.full((1397,), -1)
    empty = digits.told(PseudoLabels(labels, torch.zeros(1397), {}, "nobody"))
    other = digits.told(PseudoLabels(labels.index_fill(0, torch.tensor([5]), 3), torch.zeros(1397), {}, "one"))
    assert len({digits.hash, empty.hash, other.hash}) == 3 and other.to("cpu").pseudo[5] == 3
    with pytest.raises(InputError, match="3 pseudo-labels do not fit 1397 training images"):
        digits.told(PseudoLabels(torch.zeros(3, dtype=torch.int64), torch.zeros(3), {}, "short"))
    with pytest.raises(InputError, match="a pseudo-label is 10"):
        digits.told(PseudoLabels(labels + 11, torch.zeros(1397), {}, "wrong"))


@pytest.mark.parametrize("arguments, message", [({"loss": "scee"}, "did you mean 'sce'"), ({"a": -1.0}, "a is -1"),
                                                ({"b": float("nan")}, "b is nan"), ({"tau": 1.2}, "tau is 1.2")])
def test_kd_fixmatch_refuses_what_is_out_of_range(arguments, message):
    with pytest.raises(InputError, match=message):
        methods.KDFixMatch(**arguments)


def test_a_row_without_a_label_is_no_guess():
    """Half the rows have a label, class 1; every true label is 0. A row without one must not count as a guess "0"."""
    method, nets = make(methods.FixedLabels)
    method.pseudo.copy_(torch.where(PSEUDO >= 0, 1, -1))
    batch = a_batch(method)

    def figures():
        step = method.loss(nets, batch, half)
        sums = tally(step, torch.zeros(MU * B, dtype=torch.int64))
        return step.q, means({name: value.item() for name, value in sums.items()})

    labelled = method.pseudo[batch.j] >= 0
    q, metrics = figures()
    assert (q.argmax(1)[labelled] == 1).all() and not q[~labelled].any() and 0 < labelled.sum() < len(q)
    assert metrics["pseudo_label_acc_all"] == metrics["pseudo_label_acc"] == 0
    assert metrics["mask_rate"] == labelled.float().mean().item()
    method.pseudo.fill_(-1)
    _, metrics = figures()
    assert metrics["pseudo_label_acc_all"] is metrics["pseudo_label_acc"] is None and metrics["mask_rate"] == 0


# ---- Method.code, a digest of the source that makes a method

def imported(path, monkeypatch):
    """The module of a new file, under a name of its own."""
    monkeypatch.syspath_prepend(path.parent)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    sys.modules.pop(path.stem, None)
    importlib.invalidate_caches()
    return importlib.import_module(path.stem)


MINE = "from sslkit import Method\nclass Mine(Method):\n    def loss(self, nets, batch, progress):\n        return {}\n"


def test_code_is_that_of_the_file_as_it_was_imported(tmp_path, monkeypatch):
    path = tmp_path / "one_method.py"
    path.write_text(MINE.format(1) + "class Other(Mine):\n    views = ()\n")
    before = imported(path, monkeypatch)
    code = before.Mine.code
    assert re.fullmatch("[0-9a-f]{16}", code) and before.Other.code == code
    path.write_text(MINE.format(2) + "class Other(Mine):\n    views = ()\n")
    assert before.Mine.code == code
    late = type("Late", (before.Mine,), {"__module__": "one_method"})
    assert late.code != code, "a class that the edited file makes is another one"
    assert imported(path, monkeypatch).Mine.code != code
    path.write_text(MINE.format(1) + "class Other(Mine):\n    views = ()\n")
    assert imported(path, monkeypatch).Mine.code == code
    assert len({kind.code for kind in methods.ALL} | {code}) == len(methods.ALL) + 1


def test_code_counts_the_files_of_parents_too(tmp_path, monkeypatch):
    parent, child = tmp_path / "parent_method.py", tmp_path / "child_method.py"
    parent.write_text(MINE.format(1) + "class Mixin:\n    pass\n")
    child.write_text("from parent_method import Mine, Mixin\nclass Child(Mine):\n    pass\n")
    first = imported(child, monkeypatch).Child
    assert first.code not in (sys.modules["parent_method"].Mine.code, methods.FixMatch.code)
    parent.write_text(MINE.format(2) + "class Mixin:\n    pass\n")
    assert imported(child, monkeypatch).Child.code == first.code, "the parent is still the one that was imported"
    imported(parent, monkeypatch)
    second = imported(child, monkeypatch).Child
    assert second.code != first.code
    child.write_text("from parent_method import Mine, Mixin\nclass Child(Mixin, Mine):\n    pass\n")
    assert imported(child, monkeypatch).Child.code not in (first.code, second.code)


@pytest.mark.parametrize("body, same", [
    ("def loss(self, nets, batch, progress): return F.cross_entropy(nets, batch)", True),
    ("\n\ndef loss(self, nets, batch, progress): return F.cross_entropy(nets, batch)", True),
    ("def loss(self, nets, batch, progress): return F.mse_loss(nets, batch)", False),
    ("def loss(self, nets, batch, progress): return F.cross_entropy(batch, nets)", False),
    ("def loss(self, nets, batch, progress): return 2 * F.cross_entropy(nets, batch)", False),
    ("def loss(self, nets, batch, progress): return (lambda: F.cross_entropy(nets, batch))()", False),
    ("views = ()\ndef loss(self, nets, batch, progress): return F.cross_entropy(nets, batch)", False)])
def test_code_of_a_class_without_a_file_is_that_of_its_functions(body, same):
    def made(body):
        space = {"__name__": "__nowhere__", "Method": methods.Method, "torch": torch}
        exec("class Mine(Method):\n" + textwrap.indent(body, "    "), space)
        return space["Mine"].code

    first = "def loss(self, nets, batch, progress): return F.cross_entropy(nets, batch)"
    assert (made(first) == made(body)) is same
    for decorator in ("@property", "@staticmethod", "@torch.no_grad()"):
        assert made(f"{decorator}\n{first}") != made(f"{decorator}\n" + first.replace("cross", "binary_cross"))


def test_code_of_a_class_without_a_file_is_the_same_in_every_process():
    made = ("from sslkit import FixMatch\nclass Mine(FixMatch):\n    def loss(self, nets, batch, progress):\n"
            "        return [lambda: k in {'sup', 'unsup', 'fair', 'inst', 'mixed', 's1', 'rot', 'x'} for k in batch]\n")
    space = {"__name__": "__nowhere__"}
    exec(made, space)
    there = subprocess.run([sys.executable, "-c", made + "print(Mine.code)"], env=os.environ | {"PYTHONHASHSEED": "123"}, text=True,
                           capture_output=True, check=True).stdout.strip()
    assert there == space["Mine"].code and len(there) == 16
