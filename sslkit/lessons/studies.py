"""The tables that lessons keep: several seeds of several variants, trained once, a row of numbers each. A lesson names
the command.

Runs that the store has are found, so that a study goes on where it was stopped; two that share runs do not train them
twice.
"""
import itertools
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from sslkit.data import SSLData, load, split
from sslkit.labelers import by_class, cluster_agree, confident, label_quality, one_shot, precision_curve
from sslkit.lessons.session import fit_all, patient
from sslkit.methods import FixMatch, FreeMatch, KDFixMatch, MixMatch, ReMixMatch, SimMatch
from sslkit.records import PseudoLabels
from sslkit.training import Config, DataSpec, Propagate, Run, RunSpec, labels_found, predict, train

Rows = list[dict[str, float | str | None]]
WEAK_LABELS = 10                     # one of each digit
HDL_BASES = (MixMatch, ReMixMatch, FixMatch, FreeMatch, SimMatch)


class Heard(FixMatch):
    """FixMatch that keeps what it heard: for each step the unlabelled rows, the confidence and the label of each."""
    def __init__(self):
        super().__init__()
        self.heard: list[tuple[Tensor, ...]] = []

    def loss(self, nets, batch, progress):
        step = super().loss(nets, batch, progress)
        self.heard.append((batch.j, *step.q.max(1)))
        return step


def early(data: SSLData, config: Config, until: int) -> tuple[Tensor, Tensor]:
    """FixMatch's pseudo-labels in its first `until` steps, those of each step: their confidence and whether they are
    right, (n,) each."""
    method, truth = Heard(), data.y[data.unlabeled]
    for snap in train(method, data, config):
        if snap.step >= until:
            break
    rows, confidence, label = (torch.cat(part) for part in zip(*method.heard[:until]))
    return confidence, label == truth[rows]


def weak_outer(data: SSLData, config: Config, until: int) -> tuple[Tensor, Tensor]:
    """Probabilities and features of all training images from a FixMatch that is stopped at the first evaluation from
    `until` on."""
    for snap in train(FixMatch(), data, config):
        if snap.evaluated and snap.step >= until:
            break
    return predict(snap.nets.teacher, data.images, data)


def noisy(labels: PseudoLabels, rate: float, num_classes: int, seed: int) -> PseudoLabels:
    """The same labels, a share `rate` of them, drawn by seed, replaced by another class."""
    g, label = torch.Generator().manual_seed(seed), labels.label.clone()
    rows = (label >= 0).nonzero()[:, 0]
    rows = rows[torch.randperm(len(rows), generator=g)[:round(rate * len(rows))]]
    label[rows] = (label[rows] + torch.randint(1, num_classes, (len(rows),), generator=g)) % num_classes
    return labels._replace(label=label)


def quality(data: SSLData, name: str, labels: PseudoLabels) -> dict[str, float | None]:
    """Share and precision of the unlabelled images' labels, as two columns of a row."""
    found = label_quality(labels.label[data.unlabeled], data.y[data.unlabeled], data.num_classes)
    return {f"{name}_share": found["coverage"], f"{name}_precision": found["precision"]}


def top(confidence: Tensor, right: Tensor, share: float) -> float:
    """Precision of the `share` most confident labels: as many rows by confidence alone."""
    return right[confidence.argsort(descending=True, stable=True)[:round(share * len(right))]].float().mean().item()


def splits_and_outer(labels: int, seeds: Sequence[int], steps: int) -> dict:
    """seed -> the data, its configuration, and the finished outer network's (probabilities, features) of all training
    images."""
    found = {seed: (split(load("digits"), labels, seed), Config(seed=seed, steps=steps)) for seed in seeds}
    runs = fit_all({f"FixMatch, {labels} labels, seed {seed}": (FixMatch(), *job) for seed, job in found.items()})
    return {seed: (*job, predict(run.network(), job[0].images, job[0])) for (seed, job), run in zip(found.items(), runs.values())}


def accuracies(jobs: dict) -> dict:
    """The test accuracy of each job's run."""
    return {key: run.result["test_acc"] for key, run in fit_all(jobs).items()}


def kd_methods(labels: int, seeds: Sequence[int], steps: int) -> Rows:
    """A row a seed: early pseudo-labels of FixMatch beside the trusted subset, then the accuracy of FixMatch, of
    FixMatch with as many steps as both networks together, of the inner network without clustering, with it, and with
    SCE; and of one whose outer network is weak: WEAK_LABELS labels, stopped after a quarter of its steps.
    """
    jobs, rows = {}, []
    for seed, (data, config, (p, features)) in splits_and_outer(labels, seeds, steps).items():
        every, agreed = confident(p, 0.8), cluster_agree(p, features, data.known, seed=seed)
        confidence, right = early(data, config, steps // 3)
        kept, row = confidence >= FixMatch().tau, {"seed": seed, "labels": labels, "steps": steps}
        row |= {"early_kept_share": kept.float().mean().item(), "early_kept_precision": right[kept].float().mean().item(),
                "early_all_precision": right.float().mean().item()}
        row |= quality(data, "confident", every) | quality(data, "trusted", agreed)
        row["early_as_many_precision"] = top(confidence, right, row["trusted_share"])
        jobs |= {(seed, "fixmatch"): (FixMatch(), data, config),
                 (seed, "fixmatch_twice"): (FixMatch(), data, Config(seed=seed, steps=2 * steps)),
                 (seed, "kd_none"): (KDFixMatch(), data.told(every), config),
                 (seed, "kd_dec"): (KDFixMatch(), data.told(agreed), config),
                 (seed, "kd_sce"): (KDFixMatch(loss="sce"), data.told(agreed), config)}

        weak = split(load("digits"), WEAK_LABELS, seed)
        p, features = weak_outer(weak, config, steps // 4)
        every, agreed = confident(p, 0.8), cluster_agree(p, features, weak.known, seed=seed)
        row |= quality(weak, "weak_confident", every) | quality(weak, "weak_trusted", agreed)
        jobs |= {(seed, "weak_fixmatch"): (FixMatch(), weak, config), (seed, "weak_none"): (KDFixMatch(), weak.told(every), config),
                 (seed, "weak_dec"): (KDFixMatch(), weak.told(agreed), config)}
        rows.append(row)
    found = accuracies(jobs)
    return [row | {name: acc for (seed, name), acc in found.items() if seed == row["seed"]} for row in rows]


def kd_noise(labels: int, seeds: Sequence[int], steps: int, rates: Sequence[float] = (0, 0.1, 0.2, 0.4)) -> Rows:
    """A row a seed and rate: the inner network's accuracy with CE and SCE when that share of the trusted labels is made
    wrong."""
    jobs = {}
    for seed, (data, config, (p, features)) in splits_and_outer(labels, seeds, steps).items():
        agreed = cluster_agree(p, features, data.known, seed=seed)
        jobs |= {(seed, rate, loss): (KDFixMatch(loss=loss), data.told(noisy(agreed, rate, data.num_classes, seed)), config)
                 for rate in rates for loss in ("ce", "sce")}
    found = accuracies(jobs)
    return [{"seed": seed, "labels": labels, "steps": steps, "noise": rate, **{loss: found[seed, rate, loss] for loss in ("ce", "sce")}}
            for seed in seeds for rate in rates]


def kd_thresholds(labels: int, seeds: Sequence[int], steps: int, selects: Sequence[float] = (0.5, 0.8, 0.95, 0.99),
                  taus: Sequence[float] = (0.8, 0.95, 0.99)) -> Rows:
    """A row a seed and pair of thresholds: share and precision of the trusted subset, the inner network's accuracy."""
    jobs, rows = {}, []
    for seed, (data, config, (p, features)) in splits_and_outer(labels, seeds, steps).items():
        for select in selects:
            agreed = cluster_agree(p, features, data.known, tau=select, seed=seed)
            jobs |= {(seed, select, tau): (KDFixMatch(tau=tau), data.told(agreed), config) for tau in taus}
            rows += [{"seed": seed, "labels": labels, "steps": steps, "tau_select": select, "tau": tau, **quality(data, "trusted", agreed)}
                     for tau in taus]
    found = accuracies(jobs)
    return [row | {"test_acc": found[row["seed"], row["tau_select"], row["tau"]]} for row in rows]


def kd_labels(labels: int, seeds: Sequence[int], steps: int) -> Rows:
    """A row a seed and number of labels, from half of `labels` to five times as many: the accuracy of FixMatch, of
    FixMatch with twice the steps, and of KD-FixMatch."""
    jobs, rows = {}, []
    for count in (labels // 2, labels, 2 * labels, 5 * labels):
        for seed, (data, config, (p, features)) in splits_and_outer(count, seeds, steps).items():
            agreed = cluster_agree(p, features, data.known, seed=seed)
            rows.append({"seed": seed, "labels": count, "steps": steps, **quality(data, "trusted", agreed)})
            jobs |= {(count, seed, "fixmatch"): (FixMatch(), data, config),
                     (count, seed, "fixmatch_twice"): (FixMatch(), data, Config(seed=seed, steps=2 * steps)),
                     (count, seed, "kd_dec"): (KDFixMatch(), data.told(agreed), config)}
    found = accuracies(jobs)
    return [row | {name: acc for (*key, name), acc in found.items() if key == [row["labels"], row["seed"]]} for row in rows]


KD_FIXMATCH = {"methods": kd_methods, "noise": kd_noise, "thresholds": kd_thresholds, "labels": kd_labels}


def hdl_order(labels: PseudoLabels) -> Tensor:
    """(m,) the rows that HDL labelled, as it labelled them; of a round the most similar to the neighbours that voted
    first."""
    rows = (labels.rows["order"] > 0).nonzero()[:, 0]
    rows = rows[labels.rows["similarity"][rows].argsort(descending=True, stable=True)]
    return rows[labels.rows["order"][rows].argsort(stable=True)]


def three_labels(p: Tensor, features: Tensor, data: SSLData, found: PseudoLabels) -> dict[str, tuple[Tensor, Tensor]]:
    """name -> (labels (N,), order (m,) of the images without a given label, the surest first): HDL's `found`; the
    network's own, by confidence; the vote of the k nearest labelled images, by their similarity. p (N, C), features (N,
    D)."""
    own, nearest = confident(p, 0.0), one_shot(features, data.known, min(found.info["k"], data.num_labeled - 1))
    rows = (data.known < 0).nonzero()[:, 0]
    surest = {"own": p.amax(1), "nearest": nearest.rows["similarity"]}
    orders = {name: rows[sure[rows].argsort(descending=True, stable=True)] for name, sure in surest.items()}
    return {"hdl": (found.label, hdl_order(found)), "own": (own.label, orders["own"]), "nearest": (nearest.label, orders["nearest"])}


def hdl_gains(labels: int, seeds: Sequence[int], steps: int, imbalances: Sequence[float] = (1, 20)) -> Rows:
    """A row an imbalance, seed and base method: HDL's k; of its labels, of the network's own and of the nearest
    labelled images' the share that is right among the surest quarter, half, three quarters and all, and in the tail;
    the test accuracy, and that of head and tail, before (base), after the network's own labels (control) and after
    HDL's.
    """
    rows = []
    for imbalance, seed, method in itertools.product(imbalances, seeds, HDL_BASES):
        spec = RunSpec(method.__name__.lower(), DataSpec("digits", labels, imbalance), Config(seed=seed, steps=steps),
                       recipe=Propagate())
        data = spec.load()
        run = patient(spec.path(data), partial(spec.run, data))
        p, features = predict(Run(run.path / "base").network(), data.images, data)
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
        print(f"seed {seed}, imbalance {imbalance:g}, {row['method']}: {row['acc_base']:.1%}, control {row['acc_control']:.1%}, "
              f"HDL {row['acc_hdl']:.1%}", flush=True)
    return rows


HDL = {"gains": hdl_gains}
