"""The tables that lessons keep: several variants with several seeds, each trained once, and a row of numbers for each.
The lesson that shows a table names the command.

Runs that the store has are found. So a study continues where it was stopped, and two that share runs train them once.
Each study takes `source`, the data set, digits unless another is given: features of photographs too.
"""
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache, partial

import torch
from torch import Tensor

from sslkit.data import SSLData, split
from sslkit.labelers import by_class, cluster_agree, confident, label_quality, one_shot, precision_curve
from sslkit.lessons.session import fit_all, trained_or_found
from sslkit.methods import FixMatch, FreeMatch, KDFixMatch, MixMatch, ReMixMatch, SimMatch
from sslkit.records import PseudoLabels
from sslkit.training import Config, DataSpec, Propagate, Run, RunSpec, labels_found, predict, train

Rows = list[dict[str, float | str | None]]
WEAK_LABELS = 10                     # one of each digit
DIGITS = DataSpec("digits")
HDL_BASES = (MixMatch, ReMixMatch, FixMatch, FreeMatch, SimMatch)


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


def share_and_precision(data: SSLData, name: str, labels: PseudoLabels) -> dict[str, float | None]:
    """Share and precision of the labels of all unlabelled images, as two columns of a row. The labelled images among
    them count too; training.quality(), by which recipes report, leaves them out."""
    found = label_quality(labels.label[data.unlabeled], data.y[data.unlabeled], data.num_classes)
    return {f"{name}_share": found["coverage"], f"{name}_precision": found["precision"]}


def top(confidence: Tensor, right: Tensor, share: float) -> float:
    """Precision of the `share` most confident labels: as many rows, chosen by confidence alone."""
    return right[confidence.argsort(descending=True, stable=True)[:round(share * len(right))]].float().mean().item()


@cache
def read(data: DataSpec) -> SSLData:
    """The data as load() gives it, with features if an encoder is asked for; once a process."""
    return data.read()


def labeled(data: DataSpec, labels: int, seed: int, imbalance: float = 1.0) -> SSLData:
    """The data with `labels` labelled rows."""
    return split(read(data), labels, seed, imbalance=imbalance)


def outer_networks(labels: int, seeds: Sequence[int], steps: int, source: DataSpec) -> Iterator[tuple]:
    """For each seed: the first columns of its rows, the data, the configuration, and the finished outer network's
    probabilities (N, C) and features (N, D) of all training images."""
    jobs = {seed: (FixMatch(), labeled(source, labels, seed), Config(seed=seed, steps=steps)) for seed in seeds}
    runs = fit_all({f"FixMatch, {labels} labels, seed {seed}": job for seed, job in jobs.items()})
    for (seed, (_, data, config)), run in zip(jobs.items(), runs.values()):
        row = {"seed": seed, "labels": labels, "steps": steps}
        yield row, data, config, *predict(run.network(), data.inputs, data)


def with_accuracies(plan: Sequence[tuple[dict, dict[str, tuple]]]) -> Rows:
    """The rows of a plan, each with the test accuracy of its jobs: (row, column -> job as fit_all() takes it)."""
    runs = fit_all({(k, name): job for k, (_, jobs) in enumerate(plan) for name, job in jobs.items()})
    return [row | {name: runs[k, name].result["test_acc"] for name in jobs} for k, (row, jobs) in enumerate(plan)]


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


KD_FIXMATCH = {"methods": kd_methods, "noise": kd_noise, "thresholds": kd_thresholds, "labels": kd_labels}


def hdl_order(labels: PseudoLabels) -> Tensor:
    """(m,) the rows that HDL labelled, in its order; within a round those most similar to their voters come first."""
    rows = (labels.rows["order"] > 0).nonzero()[:, 0]
    rows = rows[labels.rows["similarity"][rows].argsort(descending=True, stable=True)]
    return rows[labels.rows["order"][rows].argsort(stable=True)]


def three_labels(p: Tensor, features: Tensor, data: SSLData, found: PseudoLabels) -> dict[str, tuple[Tensor, Tensor]]:
    """name -> (labels (N,), order (m,) of the images without a given label, the surest first). hdl: `found`; own: the
    network's, by confidence; nearest: the vote of the k nearest labelled images, by their similarity. p (N, C),
    features (N, D)."""
    own, nearest = confident(p, 0.0), one_shot(features, data.known, min(found.info["k"], data.num_labeled - 1))
    rows = (data.known < 0).nonzero()[:, 0]
    surest = {"own": p.amax(1), "nearest": nearest.rows["similarity"]}
    orders = {name: rows[sure[rows].argsort(descending=True, stable=True)] for name, sure in surest.items()}
    return {"hdl": (found.label, hdl_order(found)), "own": (own.label, orders["own"]),
            "nearest": (nearest.label, orders["nearest"])}


def hdl_gains(labels: int, seeds: Sequence[int], steps: int, imbalances: Sequence[float] = (1, 20),
              source: DataSpec = DIGITS) -> Rows:
    """A row an imbalance, seed and base method. It has HDL's k. Of HDL's labels, the network's own and those of the
    nearest labelled images it has the share that is right among the surest quarter, half, three quarters and all, and
    in the tail. It has the test accuracy, also of head and tail, before (base), after training with the network's own
    labels (control) and after training with HDL's.
    """
    rows = []
    for imbalance, seed, method in itertools.product(imbalances, seeds, HDL_BASES):
        if source.encoder and method.pixels:
            continue
        asked = replace(source, labels=labels, imbalance=imbalance)
        spec = RunSpec(method.__name__.lower(), asked, Config(seed=seed, steps=steps), recipe=Propagate())
        data = labeled(source, labels, seed, imbalance)
        run = trained_or_found(spec.path(data), partial(spec.run, data))
        p, features = predict(Run(run.path / "base").network(), data.inputs, data)
        found = labels_found(run)
        k = found["info"]["k"]
        row = {"labels": labels, "imbalance": imbalance, "seed": seed, "steps": steps, "method": spec.method, "k": k}
        hdl_labels = PseudoLabels(found["hdl"], torch.ones(len(p)), found["info"], "hdl", found["rows"])
        for name, (label, order) in three_labels(p, features, data, hdl_labels).items():
            right = precision_curve(label == data.y, order)
            row |= {f"{name}_{share}": right[round(len(right) * share / 100) - 1].item() for share in (25, 50, 75, 100)}
            row[f"{name}_tail"] = by_class(label[order], data.y[order], data.num_classes, data.groups).get("tail")
        for name, result in (("base", run.result["base"]), ("control", run.result["control"]), ("hdl", run.result)):
            row |= {f"acc_{name}{part}": result.get(f"test_acc{part}") for part in ("", "_head", "_tail")}
        rows.append(row)
        print(f"seed {seed}, imbalance {imbalance:g}, {row['method']}: {row['acc_base']:.1%}, "
              f"control {row['acc_control']:.1%}, HDL {row['acc_hdl']:.1%}", flush=True)
    return rows


HDL = {"gains": hdl_gains}
