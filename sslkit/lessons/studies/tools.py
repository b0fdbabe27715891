"""What the studies share: the data, and the accuracy of many jobs as rows of a table."""
from collections.abc import Sequence
from functools import cache

from sslkit.data import SSLData, split
from sslkit.labelers import label_quality
from sslkit.lessons.session import fit_all
from sslkit.methods import ALL, Method
from sslkit.records import PseudoLabels
from sslkit.training import DataSpec

Rows = list[dict[str, float | str | None]]
DIGITS = DataSpec("digits")


@cache
def read(data: DataSpec) -> SSLData:
    """The data as load() gives it, with features if an encoder is asked for; once a process."""
    return data.read()


def labeled(data: DataSpec, labels: int, seed: int, imbalance: float = 1.0) -> SSLData:
    """The data with `labels` labelled rows."""
    return split(read(data), labels, seed, imbalance=imbalance)


def standalone(data: DataSpec) -> dict[str, Method]:
    """Every method that trains alone on this data, by its class's name."""
    return {kind.__name__: kind() for kind in ALL if kind.standalone and not (data.encoder and kind.pixels)}


def share_and_precision(data: SSLData, name: str, labels: PseudoLabels) -> dict[str, float | None]:
    """Share and precision of the labels of all unlabelled images, as two columns of a row. The labelled images among
    them count too; training.quality(), by which recipes report, leaves them out."""
    found = label_quality(labels.label[data.unlabeled], data.y[data.unlabeled], data.num_classes)
    return {f"{name}_share": found["coverage"], f"{name}_precision": found["precision"]}


def with_accuracies(plan: Sequence[tuple[dict, dict[str, tuple]]]) -> Rows:
    """The rows of a plan, each with the test accuracy of its jobs: (row, column -> job as fit_all() takes it)."""
    runs = fit_all({(k, name): job for k, (_, jobs) in enumerate(plan) for name, job in jobs.items()})
    return [row | {name: runs[k, name].result["test_acc"] for name in jobs} for k, (row, jobs) in enumerate(plan)]
