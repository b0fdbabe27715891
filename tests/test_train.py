"""The loop: what it feeds, how it steps, that it learns, and that a resumed run sees what an uninterrupted one sees."""
import math
from dataclasses import replace

import numpy as np
import pytest
import references
import torch

from sslkit.data import augment
from sslkit.data.sources import load
from sslkit.data.split import split
from sslkit.errors import InputError
from sslkit.methods import FixMatch, Supervised
from sslkit.records import Step
from sslkit.training import loop as train
from sslkit.training.config import Config, Machine
from sslkit.training.feed import Feed
from sslkit.training.loop import learning_rate, means, tally

CPU = torch.device("cpu")
SHORT = Config(steps=24, batch_size=8, mu=2, eval_every=8)


def feed(data, method=None, **config):
    return Feed(data, method or FixMatch(), Config(**{"batch_size": 8, "mu": 2, **config}).resolve(data, CPU), False)


def snapshots(data, method=None, config=SHORT, **options):
    return [s for s in train.train(method or FixMatch(), data, config, Machine(device="cpu"), **options) if s.evaluated]


def test_a_batch_is_a_function_of_seed_and_step(digits):
    one, again, later, other = feed(digits)(3), feed(digits)(3), feed(digits)(4), feed(digits, seed=1)(3)
    same = lambda a, b: all(torch.equal(p, q) for p, q in zip([*a[:2], *a.u, a.i, a.j], [*b[:2], *b.u, b.i, b.j]))   # noqa: E731
    assert same(one, again) and not same(one, later) and not same(one, other)
    steps = feed(digits)
    steps(0), steps(100)
    assert same(steps(3), one), "it must not matter which steps came before"


def test_batches_touch_no_global_randomness(digits):
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    feed(digits)(0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_unlabeled_rows_come_in_shuffled_passes(digits):
    f = feed(digits)
    n, per_step = digits.num_unlabeled, 16
    rows = torch.cat([f.unlabeled_rows(k) for k in range(2 * n // per_step + 1)])
    assert torch.equal(rows[:n].sort().values, torch.arange(n)) and torch.equal(rows[n:2 * n].sort().values, torch.arange(n))
    assert not torch.equal(rows[:n], rows[n:2 * n])


def test_a_step_may_be_longer_than_the_unlabeled_set():
    data = split(load("digits"), 20)
    small = replace(data, unlabeled=data.unlabeled[:5])
    rows = torch.cat([feed(small).unlabeled_rows(k) for k in range(5)])        # 5 x 16 rows are 16 whole passes
    assert len(feed(small).unlabeled_rows(7)) == 16 and torch.bincount(rows).tolist() == [16] * 5


def test_a_batch_holds_what_it_says(digits):
    plain = lambda images, g, **options: images                               # noqa: E731
    saved = augment.weak, augment.strong
    augment.weak = augment.strong = plain
    try:
        batch = feed(digits)(5)
    finally:
        augment.weak, augment.strong = saved
    normal = lambda rows: augment.normalize(digits.images[rows], digits.mean, digits.std)   # noqa: E731
    assert torch.equal(batch.x, normal(digits.labeled[batch.i])) and torch.equal(batch.y, digits.y[digits.labeled[batch.i]])
    assert all(torch.equal(u, normal(digits.unlabeled[batch.j])) for u in batch.u)
    assert len(batch.x) == 8 and len(batch.j) == 16


def test_hidden_labels_do_not_reach_the_method(digits):
    """Change every label outside the labelled set: the run must be the same but for its scores."""
    lied = digits.y.clone()
    hidden = torch.ones(len(lied), dtype=torch.bool)
    hidden[digits.labeled] = False
    lied[hidden] = (lied[hidden] + 1) % 10
    a, b = snapshots(digits)[-1], snapshots(replace(digits, y=lied))[-1]
    assert all(torch.equal(p, q) for p, q in zip(a.nets.student.parameters(), b.nets.student.parameters()))
    assert a.metrics["pseudo_label_acc_all"] != b.metrics["pseudo_label_acc_all"]


def test_optimiser_is_nesterov_sgd_with_the_cosine_and_no_decay_of_norms(digits):
    class Linear(Supervised):
        """A loss whose gradient is 1 for every weight, so that the trajectory is known."""

        def loss(self, nets, batch, progress):
            total = sum(p.sum() for p in nets.student.parameters())
            return Step(total, {"sup": total.detach()})

    config = replace(SHORT, lr=0.2, weight_decay=0.1, momentum=0.8, eval_every=1, steps=6)
    first = train.set_up(Linear(), digits, config.resolve(digits, CPU))[0].student
    start = {name: p.detach().clone().double().numpy() for name, p in first.named_parameters()}
    last = snapshots(digits, Linear(), config)[-1].nets.student
    lrs = [references.cosine_lr(k, 6, 0.2) for k in range(6)]
    for name, p in last.named_parameters():
        decay = 0.1 if p.ndim > 1 else 0.0
        path = references.sgd_nesterov(start[name], [np.ones_like(start[name])] * 6, lrs, 0.8, decay)
        assert np.allclose(p.detach().numpy(), path[-1], atol=1e-5), name


def test_cosine_and_clocks_of_short_runs(digits):
    config = Config(steps=1000, lr=0.03)
    assert all(learning_rate(config, k) == pytest.approx(references.cosine_lr(k, 1000, 0.03)) for k in range(1001))
    assert all(learning_rate(config, k) == 0.03 * math.cos(7 * math.pi * k / (16 * 1000)) for k in range(1001)), "to the bit, as always"
    for steps in (20, 300, 2000, 2**20):
        config = Config(steps=steps).resolve(digits, CPU)
        assert (config.ema_decay, config.bn_momentum) == pytest.approx(references.short_run_clocks(steps))


@pytest.mark.parametrize("schedule, warmup", [("fixmatch", 0.2), ("cosine", 0.0), ("cosine", 0.0125), ("cosine", 0.033), ("steps", 0.05)])
def test_schedules_of_the_learning_rate_are_those_of_the_reference(schedule, warmup):
    config = Config(steps=400, lr=0.03, schedule=schedule, warmup=warmup)
    rates = [learning_rate(config, k) for k in range(400)]
    assert rates == pytest.approx([references.learning_rate(k, 400, 0.03, schedule, warmup) for k in range(400)], abs=1e-12)
    assert max(rates) <= 0.03 and min(rates) > 0


def test_the_schedule_is_what_trains(digits):
    """Every metrics line and the optimiser itself have the rate of the schedule."""
    config = replace(SHORT, steps=4, eval_every=1, schedule="cosine", warmup=0.5)
    found = [(s.metrics["lr"], s.state()["optimizer"]["param_groups"][0]["lr"])
             for s in train.train(FixMatch(), digits, config, Machine(device="cpu")) if s.evaluated]
    assert found == [(pytest.approx(0.1 * part), pytest.approx(0.1 * part)) for part in (0.5, 1.0, 1.0, 0.5)]


def test_metrics_are_means_over_the_steps_since_the_last_evaluation():
    q = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.5, 0.5]])
    truth = torch.tensor([0, 0, -1, 0])                                        # right, wrong, unknown, right (ties go to the lowest)
    step = Step(torch.tensor(2.0), {"sup": torch.tensor(1.5)}, q, torch.tensor([1.0, 1.0, 1.0, 0.0]))
    sums = {k: v.item() + v.item() for k, v in tally(step, truth).items()}
    assert means(sums) == pytest.approx({
        "loss": 2.0, "sup": 1.5, "mask_rate": 0.75, "pseudo_label_acc": 0.5, "pseudo_label_acc_all": 2 / 3})
    nothing = {k: v.item() for k, v in tally(Step(torch.tensor(2.0), {}, q, torch.zeros(4)), truth).items()}
    assert means(nothing)["pseudo_label_acc"] is None
    plain = {k: v.item() for k, v in tally(Step(torch.tensor(2.0), {}), truth[:0]).items()}
    assert means(plain)["mask_rate"] is None and means(plain)["pseudo_label_acc_all"] is None


def test_it_overfits_64_images(digits):
    few = replace(digits, images=digits.images[:64], y=digits.y[:64], labeled=torch.arange(64), unlabeled=torch.arange(64),
                        test_images=digits.images[:64], test_y=digits.y[:64])
    last = snapshots(few, Supervised(), Config(steps=150, eval_every=150))[-1]
    assert last.metrics["test_acc"] == 1.0


def test_resumed_equals_uninterrupted_to_the_bit(digits):
    import io
    whole = snapshots(digits)
    for stop in (8, 16):
        for snap in train.train(FixMatch(), digits, SHORT, Machine(device="cpu")):
            if snap.step == stop and snap.evaluated:
                file = io.BytesIO()
                torch.save(snap.state(), file)
                break
        file.seek(0)
        rest = snapshots(digits, state=torch.load(file, weights_only=True))
        assert [s.metrics for s in rest] == [s.metrics for s in whole if s.step > stop]
        for a, b in ((rest[-1].nets.student, whole[-1].nets.student), (rest[-1].nets.teacher, whole[-1].nets.teacher)):
            assert all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values()))


def test_resume_between_evaluations_keeps_the_running_sums(digits, monkeypatch):
    whole = snapshots(digits)
    clock = iter(range(0, 10**6, 2))
    monkeypatch.setattr(train.time, "monotonic", lambda: next(clock))          # every step is a second after the last: all are shown
    for snap in train.train(FixMatch(), digits, SHORT, Machine(device="cpu")):
        if snap.step == 13:
            assert not snap.evaluated
            state = snap.state()
            break
    rest = snapshots(digits, state=state)
    assert [s.metrics for s in rest] == [s.metrics for s in whole if s.step > 13]


def test_first_weights_do_not_depend_on_the_method(digits):
    config = SHORT.resolve(digits, CPU)
    a, b = (train.set_up(m, digits, config)[0].student for m in (FixMatch(), Supervised()))
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters()))


@pytest.mark.parametrize("machine", [Machine(device="cpu", channels_last=True), Machine(device="cpu", channels_last=False)])
def test_memory_format_is_speed_not_result(digits, machine):
    plain = snapshots(digits, config=replace(SHORT, steps=4, eval_every=4))[-1]
    other = [s for s in train.train(FixMatch(), digits, replace(SHORT, steps=4, eval_every=4), machine) if s.evaluated][-1]
    assert other.metrics["loss"] == pytest.approx(plain.metrics["loss"], rel=1e-3)


def test_bf16_trains(digits):
    last = snapshots(digits, config=replace(SHORT, precision="bf16"))[-1]
    assert np.isfinite(last.metrics["loss"]) and all(p.dtype == torch.float32 for p in last.nets.student.parameters())


def test_nothing_finite_ends_the_run(digits):
    with pytest.raises(FloatingPointError, match="smaller --lr"):
        snapshots(digits, config=replace(SHORT, lr=1e30))


def test_data_without_labels_is_refused():
    with pytest.raises(InputError, match="no labelled rows"):
        next(train.train(FixMatch(), load("digits")))


@pytest.mark.parametrize("settings", [{"steps": 0}, {"batch_size": 0}, {"mu": 0}, {"lr": 0.0}, {"lr": float("nan")}, {"lr": float("inf")},
                                      {"ema_decay": 1.1}, {"weight_decay": -1.0}, {"seed": -1}, {"strong": "mcc"}, {"eval_every": 0},
                                      {"precision": "fp16"}, {"weights": "imagnet"}, {"network": "smal"},
                                      {"schedule": "cosin"}, {"warmup": 1.0}, {"warmup": -0.1}, {"warmup": float("nan")}])
def test_settings_out_of_range_are_refused(digits, settings):
    with pytest.raises(InputError, match=next(iter(settings)).split("_")[0]):
        Config(**settings).resolve(digits, CPU)


def test_unknown_device_is_refused():
    with pytest.raises(InputError, match="did you mean 'cuda'"):
        Machine(device="cudda").torch_device()
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="not here"):
            Machine(device="cuda").torch_device()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_learns_as_the_cpu_does(digits):
    config = Config(steps=300, eval_every=300)
    accuracy = [[s for s in train.train(FixMatch(), digits, config, Machine(device=d)) if s.evaluated][-1].metrics["test_acc"]
                for d in ("cpu", "cuda")]
    assert accuracy[0] == pytest.approx(accuracy[1], abs=0.1)


def test_a_state_can_be_resumed_from_twice(digits):
    for snap in train.train(FixMatch(), digits, SHORT, Machine(device="cpu")):
        if snap.step == 8 and snap.evaluated:
            state = snap.state()
            break
    first, second = snapshots(digits, state=state)[-1], snapshots(digits, state=state)[-1]
    assert first.metrics == second.metrics


def test_no_unlabeled_image_left(digits):
    with pytest.raises(InputError, match="no unlabelled images are left"):
        next(train.train(FixMatch(), replace(digits, unlabeled=digits.unlabeled[:0]), SHORT))
    next(train.train(Supervised(), replace(digits, unlabeled=digits.unlabeled[:0]), SHORT))


def test_compile_falls_back_with_a_message_and_changes_nothing(digits, monkeypatch, capsys):
    plain = snapshots(digits)[-1]

    def broken(module, *args, **options):
        def fail(*inputs):
            raise RuntimeError("no compiler here\nmore")
        module._compiled_call_impl = fail

    monkeypatch.setattr(torch.nn.Module, "compile", broken)
    other = [s for s in train.train(FixMatch(), digits, SHORT, Machine(device="cpu", compile=True)) if s.evaluated][-1]
    assert "torch.compile does not work here (RuntimeError: no compiler here); training continues without it" in capsys.readouterr().err
    assert other.metrics == plain.metrics


def test_channels_last_is_left_out_on_mps(monkeypatch, capsys):
    monkeypatch.setattr(Machine, "torch_device", lambda self: torch.device("mps"))
    assert not Machine().use_channels_last() and not capsys.readouterr().err
    assert not Machine(channels_last=True).use_channels_last() and "does not work on mps" in capsys.readouterr().err
