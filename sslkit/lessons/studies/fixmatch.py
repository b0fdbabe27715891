"""Studies of FixMatch: its relatives beside it, what each of its parts brings, how strong the strong view should be."""
from collections.abc import Mapping, Sequence
from dataclasses import replace

from sslkit.data import SSLData
from sslkit.lessons.session import fit_all
from sslkit.lessons.studies.tools import DIGITS, Rows, labeled, standalone
from sslkit.methods import FixedLabels, FixMatch, FreeMatch, Method, Supervised
from sslkit.training import Config, DataSpec


class SameView(FixMatch):
    """FixMatch that learns its guess on the same weak view on which it guessed."""
    views = ("weak",)

    def loss(self, nets, batch, progress):
        return super().loss(nets, batch._replace(u=batch.u * 2), progress)


class Strength(FixMatch):
    """FixMatch whose strong views all have one magnitude, see augment.randaugment()."""
    def __init__(self, magnitude: float):
        super().__init__()
        self.magnitude, self.views = magnitude, ("weak", f"strong:{magnitude}")


def labels_alone(data: SSLData) -> SSLData:
    """The data with its labelled images in the place of the unlabelled ones, their labels known: FixedLabels then
    learns weak and strong views of the labelled images, and sees no other."""
    return replace(data, unlabeled=data.labeled, pseudo=data.known)


def variants(methods: Mapping[object, Method], column: str, labels: int, seeds: Sequence[int], steps: int,
             source: DataSpec) -> Rows:
    """A row a method and seed, its name in `column`: test accuracy; of the pseudo-labels at the last evaluation
    the share kept, and the shares that are right of the kept ones and of all."""
    data = {seed: labeled(source, labels, seed) for seed in seeds}
    runs = fit_all({(name, seed): (
        method, labels_alone(data[seed]) if isinstance(method, FixedLabels) else data[seed],
        Config(seed=seed, steps=steps)) for seed in seeds for name, method in methods.items()})
    names = {"kept": "mask_rate", "kept_right": "pseudo_label_acc", "all_right": "pseudo_label_acc_all"}
    return [{column: name, "seed": seed, "labels": labels, "steps": steps, "test_acc": run.result["test_acc"],
             **{short: run.metrics[-1].get(key) for short, key in names.items()}} for (name, seed), run in runs.items()]


def fixmatch_parts(labels: int, seeds: Sequence[int], steps: int, source: DataSpec = DIGITS) -> Rows:
    """Labels alone, also with strong views; pseudo-labels learnt on the same view; FixMatch without a threshold;
    FixMatch."""
    methods = {"labels only": Supervised(), "labels only, strong views": FixedLabels(),
               "the same view": SameView(), "no threshold": FixMatch(tau=0.0), "FixMatch": FixMatch()}
    return variants(methods, "method", labels, seeds, steps, source)


def fixmatch_strength(labels: int, seeds: Sequence[int], steps: int, source: DataSpec = DIGITS,
                      magnitudes: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0)) -> Rows:
    """FixMatch with strong views of one magnitude each."""
    return variants({m: Strength(m) for m in magnitudes}, "magnitude", labels, seeds, steps, source)


def methods_compared(labels: int, seeds: Sequence[int], steps: int, source: DataSpec = DIGITS,
                     amounts: Sequence[float] = ()) -> Rows:
    """Every method that trains alone on this data, with `labels` labelled images, or with each of these amounts."""
    return [row for amount in amounts or (labels,)
            for row in variants(standalone(source), "method", int(amount), seeds, steps, source)]


def thresholds_compared(labels: int, seeds: Sequence[int], steps: int, source: DataSpec = DIGITS,
                        amounts: Sequence[float] = (), taus: Sequence[float] = (0.0, 0.5, 0.8, 0.95)) -> Rows:
    """Labels alone; FixMatch at several thresholds; FreeMatch, whose threshold moves, with and without its fairness
    loss. With `labels` labelled images, or with each of these amounts."""
    methods = {"labels only": Supervised()} | {f"FixMatch, tau {tau:g}": FixMatch(tau=tau) for tau in taus} | {
        "FreeMatch": FreeMatch(), "FreeMatch, no fairness": FreeMatch(lambda_f=0.0)}
    return [row for amount in amounts or (labels,)
            for row in variants(methods, "method", int(amount), seeds, steps, source)]
