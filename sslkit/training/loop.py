"""The loop: train() yields Snapshots. It names no method, keeps no files, and nothing in its step waits for the device.

Everything random is a function of (seed, step): rows, views and a method's own draws come from a generator made anew
for each step, so that a resumed run sees what an uninterrupted one sees.
"""
import copy
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from sslkit.data import Rows, SSLData, augment
from sslkit.errors import require
from sslkit.labelers import by_class
from sslkit.methods import Method
from sslkit.networks import HEADS, Nets, Network, build, known_network
from sslkit.processes import all_rows, rank, world
from sslkit.records import Batch, Snapshot, Spec, Step
from sslkit.training.config import Config, Machine
from sslkit.training.feed import Feed


def learning_rate(config: Config, step: int) -> float:
    """The learning rate of step k, the first is 0. It rises as (k + 1) / w for w = warmup K steps. Then it falls with
    (k - w) / (K - w): fixmatch (google-research/fixmatch) to 0.195 lr, cosine (SimMatch's code) to 0; steps
    (FixMatch-EMAN's code) falls at 0.6 K and 0.8 K, whatever w is. `config` is resolved."""
    rise, steps = config.warmup * config.steps, config.steps
    if step < rise:
        return config.lr * min(1.0, (step + 1) / rise)
    if config.schedule == "steps":
        return config.lr * 0.1 ** sum(10 * step >= tenths * steps for tenths in (6, 8))
    if config.schedule == "cosine":
        return config.lr * (1 + math.cos(math.pi * (step - rise) / (steps - rise))) / 2
    return config.lr * math.cos(7 * math.pi * (step - rise) / (16 * (steps - rise)))


def tally(out: Step, truth: Tensor) -> dict[str, Tensor]:
    """Sums of one step. truth (mu*B,): the hidden labels, -1 where unknown; they are used here and nowhere else."""
    sums = {"steps": torch.ones_like(out.loss), "loss": out.loss.detach(), **out.terms}
    if out.q is not None:
        guessed = out.q.any(1)                       # a row of zeros is no guess
        known, right = guessed & (truth >= 0), guessed & (out.q.argmax(1) == truth)
        sums |= {"rows": torch.full_like(out.loss, len(truth)), "kept": out.mask.sum(), "known": known.sum(),
                 "kept_known": (out.mask * known).sum(), "kept_right": (out.mask * right).sum(), "right": right.sum()}
    return {name: value.float() for name, value in sums.items()}


def means(sums: dict[str, float]) -> dict[str, float | None]:
    """The metrics of a record: mean loss and terms, the share kept, the accuracy of kept and of all pseudo-labels (None
    where there are none)."""
    counts = ("steps", "rows", "kept", "kept_known", "kept_right", "known", "right")
    metrics = {name: value / sums["steps"] for name, value in sums.items() if name not in counts}
    share = lambda a, b: sums[a] / sums[b] if sums.get(b) else None         # noqa: E731
    return metrics | {"mask_rate": share("kept", "rows"), "pseudo_label_acc": share("kept_right", "kept_known"),
                      "pseudo_label_acc_all": share("right", "known")}


@torch.no_grad()
def predict(network: Network, inputs: Tensor, data: SSLData, *, dtype: torch.dtype = torch.float32,
            batch_size: int = 500) -> tuple[Tensor, Tensor]:
    """Probabilities (n, C) and pooled features (n, D) of `inputs`, rows of data.inputs or data.test_inputs: plain uint8
    images (n, num, H, W), of which a network gets the central square if data.crop is set, normalised by the mean and
    std of `data`, or of ImageNet for a network that began with its weights; or an encoder's features."""
    network.norm_mode("running", 0.0)
    device, (mean, std) = network.classifier.weight.device, network.pixels or (data.mean, data.std)
    ready = data.features.ready if data.features else (
        lambda part: augment.normalize(augment.centre(part, data.crop), mean, std))
    outs = [network(ready(part).to(device), dtype) for part in inputs.split(batch_size)]
    return torch.cat([o.logits for o in outs]).softmax(1), torch.cat([o.feat for o in outs])


def evaluate(network: Network, data: SSLData, *, dtype: torch.dtype = torch.float32) -> dict:
    """Accuracy on the test images, fractions: test_acc; test_acc_class, a list of C; with more than ten classes also
    test_acc_top5, whose five best hold the true one; with a long tail test_acc_head, test_acc_middle, test_acc_tail."""
    inputs, truth = data.test_inputs, data.test_y.cpu()
    if world() > 1:                                  # each process answers for its part, the last for what is left
        size = math.ceil(len(truth) / world())
        rows = torch.arange(size * rank(), size * (rank() + 1), device=inputs.device).clamp(max=len(truth) - 1)
        inputs = Rows(inputs, rows)
    p = predict(network, inputs, data, dtype=dtype)[0]
    answer = all_rows(p.argmax(1))[:len(truth)].cpu()
    found = by_class(answer, truth, data.num_classes, data.groups)
    if data.num_classes > 10:
        found["top5"] = (all_rows(p.topk(5).indices)[:len(truth)].cpu() == truth[:, None]).any(1).float().mean().item()
    return {"test_acc": (answer == truth).sum().item() / len(truth), **{f"test_acc_{k}": v for k, v in found.items()}}


def check_network(name: str, features: bool) -> None:
    """Raise an InputError for a network that is for images where there are features, or for features where there are
    none."""
    known_network(name)
    fits = "features, this data has none: add --encoder" if name in HEADS else (
        f"images, this data has features: take {' or '.join(HEADS)}")
    require((name in HEADS) == features, f"the network {name} is for {fits}")


def set_up(method: Method, data: SSLData, config: Config, machine: Machine = Machine(),
           ) -> tuple[Nets, torch.optim.Optimizer, Feed]:
    """Networks, the method's heads and buffers, the optimiser and the feed, on the machine's device. `config` is
    resolved."""
    device = machine.torch_device()
    require(world() == 1 or not method.mixes, f"{type(method).__name__} mixes the rows of a batch, it trains in one "
            "process: take another method, or start one process")
    check_network(config.network, data.features is not None)
    network = build(config.network, data.num_classes, data.channels, seed=config.seed, weights=config.weights)
    pseudo = None if data.pseudo is None else data.pseudo[data.unlabeled]
    spec = Spec(data.num_classes, network.feat_dim, data.y[data.labeled], data.num_unlabeled, config.batch_size,
                config.mu, config.steps, pseudo, data.view)
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(config.seed + 1)
        network.heads.update(method.setup(spec))
    method.to(device).train()
    nets = Nets(network.to(device), ema_decay=config.ema_decay, bn_momentum=config.bn_momentum,
                ema_buffers=method.ema_buffers, dtype=torch.bfloat16 if config.precision == "bf16" else torch.float32)
    weights = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]              # BatchNorm and biases do not decay
    groups = [{"params": weights, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0,
                                fused=device.type in ("cpu", "cuda"))
    channels_last = machine.use_channels_last()
    if channels_last and not data.features:
        nets.student.to(memory_format=torch.channels_last)
        nets.teacher.to(memory_format=torch.channels_last)
    mean, std = network.pixels or (data.mean, data.std)
    feed = Feed(replace(data, mean=mean, std=std), method, config, channels_last, device)
    if machine.compile:
        compile_or_say(method, nets, feed(0))
    return nets, optimizer, feed


def compile_or_say(method: Method, nets: Nets, batch: Batch) -> None:
    """torch.compile the student's backbone where this machine can, tried on a batch; else print a note and train
    without it."""
    before = {name: copy.deepcopy(part.state_dict()) for name, part in (("method", method), ("student", nets.student))}
    nets.student.backbone.compile()
    try:
        method.loss(nets, batch, torch.zeros((), device=batch.x.device)).loss.backward()
    except Exception as error:                       # no compiler, no Triton, an operator that it cannot trace
        nets.student.backbone._compiled_call_impl = None
        why = f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
        print(f"note: torch.compile does not work here ({why}); training continues without it", file=sys.stderr)
    finally:
        nets.student.zero_grad()
        method.load_state_dict(before["method"])
        nets.student.load_state_dict(before["student"])


def take_step(method: Method, nets: Nets, optimizer: torch.optim.Optimizer, feed: Feed, step: int) -> dict[str, Tensor]:
    """Draw, augment, forward, backward, SGD, EMA: one step, and its sums over all processes for the metrics. Nothing
    here waits for the device."""
    config, batch = feed.config, feed(step)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(config, step)
    out = method.loss(nets, batch, torch.full((), step / config.steps, device=batch.x.device))
    optimizer.zero_grad()
    out.loss.backward()
    sums = tally(out, feed.truth[batch.j])
    if world() > 1:
        sums = nets.meet(sums)
    optimizer.step()
    nets.update_ema()
    return sums


def train(method: Method, data: SSLData, config: Config = Config(), machine: Machine = Machine(), *,
          state: dict | None = None, initial: dict[str, Tensor] | None = None) -> Iterator[Snapshot]:
    """Train `method` on `data` (split, see data.split); a Snapshot about every second and at each evaluation. Stop by
    `break`.

    state: what an earlier Snapshot's state() gave; training continues from there, on a CPU with the same threads to the
    bit. initial: a network's state dict, for both networks to begin from instead of random weights; the method's heads
    begin anew. Raises InputError for settings out of range, FloatingPointError when the loss is no longer finite.
    """
    require(data.num_labeled > 0, "the data has no labelled rows yet: sslkit.split(data, labels, seed) chooses them")
    require(data.num_unlabeled > 0 or not method.views,
            "no unlabelled images are left: take fewer labels, or keep the labelled among them")
    device = machine.torch_device()
    config = config.resolve(data, device)
    nets, optimizer, feed = set_up(method, data, config, machine)
    data, sums, start = feed.data, {}, 0
    parts = {"student": nets.student, "teacher": nets.teacher, "optimizer": optimizer, "method": method}
    if initial is not None:
        for net in (nets.student, nets.teacher):
            weights = net.state_dict()                       # changed in place: its version numbers stay with it
            weights.update((name, value) for name, value in initial.items() if not name.startswith("heads."))
            net.load_state_dict(weights)
    if state is not None:
        for name, part in parts.items():
            part.load_state_dict(copy.deepcopy(state[name]))         # SGD would write into the caller's own tensors
        start, sums = state["step"], {name: torch.tensor(value, device=device) for name, value in state["sums"].items()}

    def state_at(step: int, sums: dict[str, Tensor]) -> dict:
        return {"step": step, "sums": {name: value.item() for name, value in sums.items()},
                **{name: part.state_dict() for name, part in parts.items()}}

    shown = time.monotonic()
    for step in range(start, config.steps):
        new = take_step(method, nets, optimizer, feed, step)
        sums = {name: sums[name] + value for name, value in new.items()} if sums else new

        done = step + 1
        evaluated = done % config.eval_every == 0 or done == config.steps
        if evaluated or time.monotonic() - shown > 1:
            metrics = means(dict(zip(sums, torch.stack(list(sums.values())).tolist())))
            metrics["lr"] = learning_rate(config, step)
            if not math.isfinite(metrics["loss"]):
                raise FloatingPointError(f"the loss is {metrics['loss']} at step {done}: try a smaller --lr than "
                                         f"{config.lr:g}")
            if evaluated:
                metrics, sums = metrics | evaluate(nets.teacher, data, dtype=nets.dtype), {}
            yield Snapshot(done, metrics, evaluated, nets, partial(state_at, done, sums))
            shown = time.monotonic()


