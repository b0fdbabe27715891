"""Studies of HDL: its labels beside a network's own and those of the nearest labelled images; what they are worth."""
import itertools
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from sslkit.data import SSLData
from sslkit.labelers import by_class, confident, hdl, one_shot, precision_curve
from sslkit.lessons.session import trained_or_found
from sslkit.lessons.studies.tools import DIGITS, Rows, labeled
from sslkit.methods import FixMatch, FreeMatch, MixMatch, ReMixMatch, SimMatch
from sslkit.records import PseudoLabels
from sslkit.training import Config, DataSpec, Propagate, Run, RunSpec, labels_found, predict, train

HDL_BASES = (MixMatch, ReMixMatch, FixMatch, FreeMatch, SimMatch)


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


def hdl_evaluations(labels: int, seeds: Sequence[int], steps: int, source: DataSpec = DIGITS,
                    network: str | None = None) -> Rows:
    """A row a seed, method and evaluation of its run: the share that is right of the labels of the images without a
    given one, by HDL from the embeddings, by the network itself, and by the nearest labelled images. On features, the
    head `linear` does not change the embeddings, `hidden` does."""
    rows = []
    for seed, method in itertools.product(seeds, HDL_BASES):
        if source.encoder and (method.pixels or (network == "hidden" and method is MixMatch)):
            continue
        data = labeled(source, labels, seed)
        hidden = data.known < 0
        config = Config(seed=seed, steps=steps, network=network, eval_every=max(1, steps // 5))
        for snap in train(method(), data, config):
            if not snap.evaluated:
                continue
            p, embeddings = predict(snap.nets.teacher, data.inputs, data)
            found = hdl(embeddings, data.known)
            right = {name: (label == data.y)[hidden].float().mean().item()
                     for name, (label, _) in three_labels(p, embeddings, data, found).items()}
            rows.append({"labels": labels, "seed": seed, "method": method.__name__.lower(), "step": snap.step,
                         "k": found.info["k"], **right, "test_acc": snap.metrics["test_acc"]})
    return rows
