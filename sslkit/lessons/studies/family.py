"""Studies of the family: all methods for the same seconds, all methods under hardship, and all methods beside one
network: what each would keep of it at the same moment."""
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import median

import torch
from torch import Tensor, nn

from sslkit.data import SSLData, split
from sslkit.files import digest
from sslkit.lessons.session import fit_all
from sslkit.lessons.studies.tools import DIGITS, Rows, labeled, read, standalone
from sslkit.methods import FixMatch, Method
from sslkit.records import Batch, Out, Spec, Step
from sslkit.training import Config, DataSpec, Feed, Machine, set_up, take_step, train

FEW, SKEW = 200, 20.0            # unlabelled images, and how many of the first class there are for each of the last


def one_wrong(data: SSLData) -> SSLData:
    """The data with the label of its first labelled image wrong: the next class."""
    row = int(data.labeled[0])
    y = data.y.clone()
    y[row] = (y[row] + 1) % data.num_classes
    return replace(data, y=y, digest=digest([data.digest, "wrong label", row]))


def hardships(labels: int, seeds: Sequence[int], steps: int, source: DataSpec = DIGITS) -> Rows:
    """Every method as usual; with one wrong label; with FEW unlabelled images; with as many, skewed by SKEW, while the
    labelled ones are not. A row a condition, method and seed: test accuracy, and that of the third of the classes that
    is most frequent where they are skewed, and of the rarest third."""
    jobs, third = {}, max(1, read(source).num_classes // 3)
    for seed in seeds:
        usual = labeled(source, labels, seed)
        hard = {"as usual": usual, "one wrong label": one_wrong(usual),
                f"{FEW} unlabelled": split(read(source), labels, seed, unlabeled=FEW),
                f"{FEW} unlabelled, skewed": split(read(source), labels, seed, unlabeled=FEW, unlabeled_imbalance=SKEW)}
        jobs |= {(name, method, seed): (made, data, Config(seed=seed, steps=steps))
                 for name, data in hard.items() for method, made in standalone(source).items()}
    runs = fit_all(jobs)
    return [{"condition": name, "method": method, "seed": seed, "labels": labels, "steps": steps,
             "test_acc": run.result["test_acc"], "common_acc": sum(run.result["test_acc_class"][:third]) / third,
             "rare_acc": sum(run.result["test_acc_class"][-third:]) / third}
            for (name, method, seed), run in runs.items()]


def equal_seconds(labels: int, seeds: Sequence[int], steps: int, source: DataSpec = DIGITS) -> Rows:
    """Every method for the seconds that FixMatch needs for `steps`, from the median of steps measured in turn. A row a
    method and seed: the cost of a step in FixMatch's, the steps, test accuracy."""
    data = {seed: labeled(source, labels, seed) for seed in seeds}
    methods = standalone(source)
    cost = costs(methods, data[seeds[0]], Config(steps=steps))
    lasts = {name: max(100, int(round(steps / value, -2))) for name, value in cost.items()}
    runs = fit_all({(name, seed): (method, data[seed], Config(seed=seed, steps=lasts[name]))
                    for seed in seeds for name, method in methods.items()})
    return [{"method": name, "seed": seed, "labels": labels, "cost": round(cost[name], 3), "steps": lasts[name],
             "test_acc": run.result["test_acc"]} for (name, seed), run in runs.items()]


def costs(methods: Mapping[str, Method], data: SSLData, config: Config, rounds: int = 40) -> dict[str, float]:
    """The time of a step of each method, in steps of FixMatch: medians over rounds, in each of which all take one."""
    config, times = config.resolve(data, data.images.device), {name: [] for name in methods}
    ready = {name: (method, *set_up(method, data, config)) for name, method in methods.items()}
    for step in range(rounds):
        for name, parts in ready.items():
            begin = time.perf_counter()
            take_step(*parts, step)["loss"].item()               # it waits for the device
            times[name].append(time.perf_counter() - begin)
    return {name: median(values) / median(times["FixMatch"]) for name, values in times.items()}


class Heads:
    """Networks whose every head is a random projection of the pooled features; where it is as wide as these, it keeps
    all their cosines."""

    def __init__(self, nets, rotations: Mapping[str, Tensor]):
        self.nets, self.rotations = nets, rotations

    def __call__(self, *views: Tensor, **how) -> tuple[Out, ...]:
        how = {"bn": "batch"} | how                                # running statistics are FixMatch's to update
        return tuple(out._replace(heads={name: out.feat @ way for name, way in self.rotations.items()})
                     for out in self.nets(*views, **how))


class Beside(FixMatch):
    """FixMatch, with other methods beside it, which see the same networks and images at each step and keep their own
    thresholds, memories and banks, but never train."""
    views = ("weak", "strong", "weak", "jitter")

    def __init__(self, others: Mapping[str, Method]):
        super().__init__()
        self.others = nn.ModuleDict(others)

    @property
    def arguments(self) -> dict:
        return {name: method.arguments for name, method in self.others.items()}

    def setup(self, spec: Spec) -> dict[str, nn.Module]:
        self.rotations, g = {}, torch.Generator().manual_seed(0)
        for name, method in self.others.items():
            ways = {}
            for head, module in method.setup(spec).items():
                size = module(torch.zeros(1, spec.feat_dim)).shape[1]
                square = torch.randn(max(size, spec.feat_dim), max(size, spec.feat_dim), generator=g)
                ways[head] = torch.linalg.qr(square).Q[:spec.feat_dim, :size]
            self.rotations[name] = ways
        return {}

    def draw(self, g: torch.Generator, n_x: int, n_u: int) -> dict[str, Tensor]:
        own = torch.Generator().manual_seed(int(torch.randint(2**31, (), generator=g)))       # the views stay the same
        return {f"{name} {key}": value for name, method in self.others.items()
                for key, value in method.draw(own, n_x, n_u).items()}

    def answers(self, nets, batch: Batch, progress: Tensor) -> dict[str, Step]:
        """What each method makes of the batch."""
        found = {}
        for name, method in self.others.items():
            left = {kind: [u for own, u in zip(self.views, batch.u) if own == kind] for kind in method.views}
            views = tuple(left[kind].pop(0) if len(left[kind]) > 1 else left[kind][0] for kind in method.views)
            draws = {key.partition(" ")[2]: value for key, value in batch.draws.items() if key.startswith(f"{name} ")}
            own = batch._replace(u=views, draws=draws)
            with torch.no_grad():
                found[name] = method.loss(Heads(nets, self.rotations[name]), own, progress)
        return found

    def loss(self, nets, batch: Batch, progress: Tensor) -> Step:
        self.answers(nets, batch, progress)
        return super().loss(nets, batch._replace(u=batch.u[:2]), progress)


def same_moment(data: SSLData, config: Config, step: int, source: DataSpec = DIGITS,
                ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Train FixMatch to `step` with every other semi-supervised method beside it. For each method, of all unlabelled
    images: the labels (N,) that it would give at that moment, and which of them it would keep (N,) bool."""
    beside = Beside({name: method for name, method in standalone(source).items() if method.views})
    for snap in train(beside, data, replace(config, eval_every=step), Machine("cpu")):
        if snap.step >= step:
            break
    config = config.resolve(data, data.images.device)
    feed, g = Feed(data, beside, config), torch.Generator().manual_seed(0)
    beside.eval()
    labels, kept = ({name: [] for name in beside.others} for _ in range(2))
    for part in torch.arange(data.num_unlabeled).split(config.mu * config.batch_size):
        i = torch.arange(config.batch_size) % data.num_labeled
        u = tuple(feed.view(kind, data.unlabeled[part], g) for kind in beside.views)
        batch = Batch(feed.view("weak", data.labeled[i], g), data.y[data.labeled[i]], u, i, part,
                      beside.draw(g, len(i), len(part)))
        for name, answer in beside.answers(snap.nets, batch, torch.tensor(snap.step / config.steps)).items():
            labels[name].append(answer.q.argmax(1))
            kept[name].append(answer.mask > 0)
    join = partial(map, torch.cat)
    return dict(zip(labels, join(labels.values()))), dict(zip(kept, join(kept.values())))
