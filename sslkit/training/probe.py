"""sslkit probe: linear evaluation of an encoder (the protocol of SimMatch's Table 3, after Kornblith et al. 2019,
arXiv:1805.08974): features of the plain pictures, logistic regression with an L2 penalty, its strength chosen on
validation rows; then trained again on all training rows and tested once."""
import json
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import numpy as np
from torch import Tensor

from sslkit.data import SSLData, features, load, source, split
from sslkit.errors import require
from sslkit.files import cannot_write, digest, store, write_json
from sslkit.networks import encoder as encoder_called
from sslkit.records import Progress
from sslkit.training.config import Machine
from sslkit.training.embed import Device, EncoderName, Size, SkipBad, WeightsFile

STRENGTHS = np.logspace(-6, 2, 9)           # C of scikit-learn, for features of length 36


def probe(data: Annotated[str, "cifar10, food101, folder:PATH ...; see sslkit train"] = "digits",
          encoder: EncoderName = "auto", size: Size = None, weights: WeightsFile = None,
          validation: Annotated[float, "share of the training images by which the strength of the penalty is chosen, "
                                       "above 0 and below 1"] = 0.1,
          root: Annotated[str | None, "where downloaded data sets lie (default: $SSLKIT_DATA or "
                                      "~/.cache/sslkit)"] = None,
          download: Annotated[bool, "download the data set if it is not there"] = False,
          skip_bad_images: SkipBad = False, device: Device = "auto", progress: Progress | None = None) -> dict:
    """Linear evaluation: how well a straight line between classes does on an encoder's features, with all labels.

    Returns data, encoder, dim, size, C (the chosen strength), validation_acc, test_acc, test_acc_mean_class (the mean
    of the classes' accuracies), fractions; and keeps them in the store, where `sslkit table simmatch-3` finds them.
    InputError for data or an encoder that cannot be used.
    """
    require(0 < validation < 1, f"validation is {validation:g}, it must be above 0 and below 1")
    made = encoder_called(encoder, weights=weights, size=size, device=Machine(device).torch_device())
    known = load(data, root=root, download=download, size=made.side if source(data).sized else None,
                 skip_bad_images=skip_bad_images, progress=progress)
    held_out(known, validation)                         # its errors before all computing
    known = features(known, made, views=0, progress=progress)
    found = {"data": known.name, "encoder": made.name, "size": made.side, "dim": known.features.dim,
             **evaluated(known, validation), "digest": known.digest}
    path = store() / "probes" / f"{digest([known.digest, validation])}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error
    write_json(path, found)
    return found


def evaluated(data: SSLData, validation: float = 0.1) -> dict:
    """C, validation_acc, test_acc and test_acc_mean_class on the features of `data`, not yet split."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    rows, held = (data.y >= 0).nonzero()[:, 0], held_out(data, validation)
    y, x = data.y.numpy(), data.features.ready(data.inputs).numpy()
    fit = np.setdiff1d(rows.numpy(), held.numpy())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)         # the weakest penalties need not win
        line = LogisticRegression(max_iter=200, warm_start=True)    # from strong to weak: each begins at the last
        scores = [line.set_params(C=C).fit(x[fit], y[fit]).score(x[held], y[held]) for C in STRENGTHS]
        C = STRENGTHS[int(np.argmax(scores))]
        line = LogisticRegression(C=C, max_iter=1000).fit(x[rows], y[rows])
    truth = data.test_y.numpy()
    right = line.predict(data.features.ready(data.test_inputs).numpy()) == truth
    classes = [right[truth == c].mean() for c in range(data.num_classes)]
    return {"C": float(C), "validation_acc": float(max(scores)), "test_acc": float(right.mean()),
            "test_acc_mean_class": float(np.mean(classes))}


def held_out(data: SSLData, validation: float) -> Tensor:
    """The training rows that are a share `validation` of those of known class, one of each class or more."""
    count = max(data.num_classes, round(validation * int((data.y >= 0).sum())))
    return split(data, data.num_classes, validation=count).validation


def probes(folder: Path | None = None) -> list[dict]:
    """What probe() has kept in a store; a file that cannot be read is left out."""
    found = []
    for path in sorted(((folder or store()) / "probes").glob("*.json")):
        with suppress(OSError, ValueError):
            found.append(json.loads(path.read_text()))
    return found
