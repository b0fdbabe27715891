"""Studies of KD-FixMatch: the trusted labels, and what they are worth to the inner network."""
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sslkit.data import SSLData
from sslkit.errors import require
from sslkit.labelers import CLUSTERINGS, cluster_agree, confident
from sslkit.lessons.session import fit_all
from sslkit.lessons.studies.tools import DIGITS, Rows, labeled, share_and_precision, with_accuracies
from sslkit.methods import FixMatch, KDFixMatch
from sslkit.records import PseudoLabels
from sslkit.training import Config, DataSpec, predict, train

WEAK_LABELS = 10                     # one of each digit


class LabelRecorder(FixMatch):
    """FixMatch that records its pseudo-labels: for each step the unlabelled rows, their confidence and labels."""
    def __init__(self):
        super().__init__()
        self.recorded: list[tuple[Tensor, ...]] = []

    def loss(self, nets, batch, progress):
        step = super().loss(nets, batch, progress)
        self.recorded.append((batch.j, *step.q.max(1)))
        return step


def early(data: SSLData, config: Config, until: int) -> tuple[Tensor, Tensor]:
    """The pseudo-labels of FixMatch's first `until` steps, one step after another: (n,) confidence, (n,) bool, whether
    each is right."""
    method, truth = LabelRecorder(), data.y[data.unlabeled]
    next(snap for snap in train(method, data, config) if snap.step >= until)
    rows, confidence, label = (torch.cat(part) for part in zip(*method.recorded[:until]))
    return confidence, label == truth[rows]


def weak_outer(data: SSLData, config: Config, until: int) -> tuple[Tensor, Tensor]:
    """Probabilities (N, C) and features (N, D) of all training images from a FixMatch that is stopped at the first
    evaluation from step `until` on."""
    snap = next(snap for snap in train(FixMatch(), data, config) if snap.evaluated and snap.step >= until)
    return predict(snap.nets.teacher, data.inputs, data)


def noisy(labels: PseudoLabels, rate: float, num_classes: int, seed: int) -> PseudoLabels:
    """The same labels, but a share `rate` of them, drawn by seed, is replaced by another class."""
    g, label = torch.Generator().manual_seed(seed), labels.label.clone()
    rows = (label >= 0).nonzero()[:, 0]
    rows = rows[torch.randperm(len(rows), generator=g)[:round(rate * len(rows))]]
    label[rows] = (label[rows] + torch.randint(1, num_classes, (len(rows),), generator=g)) % num_classes
    return labels._replace(label=label)


def top(confidence: Tensor, right: Tensor, share: float) -> float:
    """Precision of the `share` most confident labels: as many rows, chosen by confidence alone."""
    return right[confidence.argsort(descending=True, stable=True)[:round(share * len(right))]].float().mean().item()


def outer_networks(labels: int, seeds: Sequence[int], steps: int, source: DataSpec) -> Iterator[tuple]:
    """For each seed: the first columns of its rows, the data, the configuration, and the finished outer network's
    probabilities (N, C) and features (N, D) of all training images."""
    jobs = {seed: (FixMatch(), labeled(source, labels, seed), Config(seed=seed, steps=steps)) for seed in seeds}
    runs = fit_all({f"FixMatch, {labels} labels, seed {seed}": job for seed, job in jobs.items()})
    for (seed, (_, data, config)), run in zip(jobs.items(), runs.values()):
        row = {"seed": seed, "labels": labels, "steps": steps}
        yield row, data, config, *predict(run.network(), data.inputs, data)


def fixmatch_jobs(data: SSLData, config: Config) -> dict[str, tuple]:
    """FixMatch with as many steps as the inner network, and with as many as both networks together."""
    return {"fixmatch": (FixMatch(), data, config),
            "fixmatch_twice": (FixMatch(), data, replace(config, steps=2 * config.steps))}


def kd_methods(labels: int, seeds: Sequence[int], steps: int, source: DataSpec = DIGITS) -> Rows:
    """A row a seed: early pseudo-labels of FixMatch beside the trusted subset, then the accuracy of FixMatch, of
    FixMatch with as many steps as both networks together, of the inner network without clustering, with it, and with
    SCE; and of one whose outer network is weak: WEAK_LABELS labels, stopped after a quarter of its steps.
    """
    plan = []
    for row, data, config, p, features in outer_networks(labels, seeds, steps, source):
        every, agreed = confident(p, 0.8), cluster_agree(p, features, data.known, seed=config.seed)
        confidence, right = early(data, config, steps // 3)
        kept = confidence >= FixMatch().tau
        row |= {"early_kept_share": kept.float().mean().item(),
                "early_kept_precision": right[kept].float().mean().item(),
                "early_all_precision": right.float().mean().item(),
                **share_and_precision(data, "confident", every), **share_and_precision(data, "trusted", agreed)}
        row["early_as_many_precision"] = top(confidence, right, row["trusted_share"])
        jobs = fixmatch_jobs(data, config) | {
            "kd_none": (KDFixMatch(), data.told(every), config), "kd_dec": (KDFixMatch(), data.told(agreed), config),
            "kd_sce": (KDFixMatch(loss="sce"), data.told(agreed), config)}

        weak = labeled(source, WEAK_LABELS, config.seed)
        p, features = weak_outer(weak, config, steps // 4)
        every, agreed = confident(p, 0.8), cluster_agree(p, features, weak.known, seed=config.seed)
        row |= share_and_precision(weak, "weak_confident", every) | share_and_precision(weak, "weak_trusted", agreed)
        jobs |= {"weak_fixmatch": (FixMatch(), weak, config), "weak_none": (KDFixMatch(), weak.told(every), config),
                 "weak_dec": (KDFixMatch(), weak.told(agreed), config)}
        plan.append((row, jobs))
    return with_accuracies(plan)


def kd_noise(labels: int, seeds: Sequence[int], steps: int, rates: Sequence[float] = (0, 0.1, 0.2, 0.4),
             source: DataSpec = DIGITS) -> Rows:
    """A row a seed and rate: the inner network's accuracy with CE and SCE when that share of the trusted labels is made
    wrong."""
    plan = []
    for row, data, config, p, features in outer_networks(labels, seeds, steps, source):
        agreed = cluster_agree(p, features, data.known, seed=config.seed)
        for rate in rates:
            told = data.told(noisy(agreed, rate, data.num_classes, config.seed))
            jobs = {loss: (KDFixMatch(loss=loss), told, config) for loss in ("ce", "sce")}
            plan.append((row | {"noise": rate}, jobs))
    return with_accuracies(plan)


def kd_mistakes(labels: int, seeds: Sequence[int], steps: int, source: DataSpec = DIGITS) -> Rows:
    """A row a seed: does it matter which labels are wrong? The accuracy of FixMatch, and of the inner network with

    own      the confident labels of an outer network that is stopped after a quarter of its steps,
    trusted  those of them that its clusters confirm,
    random   the same images as own and as many wrong labels, but which ones are wrong is drawn at random,
    true     the same images, no label wrong.
    """
    plan = []
    for seed in seeds:
        data, config = labeled(source, labels, seed), Config(seed=seed, steps=steps)
        p, features = weak_outer(data, config, steps // 4)
        own, agreed = confident(p, 0.8), cluster_agree(p, features, data.known, seed=seed)
        given = own.label >= 0
        true = own._replace(label=torch.where(given, data.y, -1))
        wrong = (own.label != data.y)[given].double().mean().item() if given.any() else 0.0
        handed = {"true": true, "random": noisy(true, wrong, data.num_classes, seed), "own": own, "trusted": agreed}
        row = {"seed": seed, "labels": labels, "steps": steps}
        for name in ("own", "trusted"):
            row |= share_and_precision(data, name, handed[name])
        plan.append((row, {"fixmatch": (FixMatch(), data, config)} | {
            name: (KDFixMatch(), data.told(each), config) for name, each in handed.items()}))
    return with_accuracies(plan)


def kd_thresholds(labels: int, seeds: Sequence[int], steps: int, selects: Sequence[float] = (0.5, 0.8, 0.95, 0.99),
                  taus: Sequence[float] = (0.8, 0.95, 0.99), source: DataSpec = DIGITS) -> Rows:
    """A row a seed and pair of thresholds: share and precision of the trusted subset, the inner network's accuracy."""
    plan = []
    for row, data, config, p, features in outer_networks(labels, seeds, steps, source):
        for select in selects:
            agreed = cluster_agree(p, features, data.known, tau=select, seed=config.seed)
            found, told = share_and_precision(data, "trusted", agreed), data.told(agreed)
            plan += [(row | {"tau_select": select, "tau": tau, **found},
                      {"test_acc": (KDFixMatch(tau=tau), told, config)}) for tau in taus]
    return with_accuracies(plan)


def kd_labels(labels: int, seeds: Sequence[int], steps: int, source: DataSpec = DIGITS) -> Rows:
    """A row a seed and number of labels, from half of `labels` to five times as many: the accuracy of FixMatch, of
    FixMatch with twice the steps, and of KD-FixMatch."""
    plan = []
    for count in (labels // 2, labels, 2 * labels, 5 * labels):
        for row, data, config, p, features in outer_networks(count, seeds, steps, source):
            agreed = cluster_agree(p, features, data.known, seed=config.seed)
            jobs = fixmatch_jobs(data, config) | {"kd_dec": (KDFixMatch(), data.told(agreed), config)}
            plan.append((row | share_and_precision(data, "trusted", agreed), jobs))
    return with_accuracies(plan)


def kd_clusterings(labels: int, seeds: Sequence[int], steps: int, source: DataSpec = DIGITS) -> Rows:
    """A row a seed and clustering: share and precision of the trusted subset, the inner network's accuracy."""
    plan = []
    for row, data, config, p, features in outer_networks(labels, seeds, steps, source):
        for clustering in CLUSTERINGS:
            agreed = cluster_agree(p, features, data.known, clustering=clustering, seed=config.seed)
            plan.append((row | {"clustering": clustering, **share_and_precision(data, "trusted", agreed)},
                         {"test_acc": (KDFixMatch(), data.told(agreed), config)}))
    return with_accuracies(plan)


def kd_encoders(labels: int, seeds: Sequence[int], steps: int, source: DataSpec,
                other: str = "efficientnet-lite2") -> Rows:
    """A row a seed, outer and inner encoder, of those of `source` and `other`: share and precision of the outer
    network's confident and trusted labels, and the accuracy of FixMatch on the inner encoder, alone, with twice the
    steps, and with the trusted labels. Data without an encoder raises an InputError."""
    require(source.encoder is not None, "this study compares two encoders: name one by --encoder")
    sources, plan = {name: replace(source, encoder=name) for name in (source.encoder, other)}, []
    for first, inner in itertools.product(sources, repeat=2):
        for row, outside, config, p, features in outer_networks(labels, seeds, steps, sources[first]):
            agreed, data = (cluster_agree(p, features, outside.known, seed=config.seed),
                            labeled(sources[inner], labels, config.seed))
            found = (share_and_precision(data, "confident", confident(p, 0.8))
                     | share_and_precision(data, "trusted", agreed))
            jobs = fixmatch_jobs(data, config) | {"kd_dec": (KDFixMatch(), data.told(agreed), config)}
            plan.append((row | {"outer": first, "inner": inner, **found}, jobs))
    return with_accuracies(plan)
