"""A semi-supervised head on features as a labeler: FreeMatch, which trains a linear classifier on the views of all
pictures. It needs what `sslkit embed` wrote with --views."""
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sslkit.data import FEATURES, Features, SSLData
from sslkit.errors import InputError, require
from sslkit.methods import FreeMatch
from sslkit.records import PseudoLabels
from sslkit.training.config import Config, Machine
from sslkit.training.loop import predict, train


def head(tables: dict[str, Tensor], points: Tensor, y: Tensor, seed: int = 0) -> PseudoLabels:
    """Labels of all rows by a head that FreeMatch trains on them, with the defaults for features.

    tables: weak and strong (N, views, D), features of views; points (N, D): of the plain pictures; y (N,) int64, -1
    unknown. The weight is the probability. Given labels stay.
    """
    for kind, table in tables.items():
        fits = table.ndim == 3 and (len(table), table.shape[2]) == tuple(points.shape)
        require(fits, f"{kind}.npy is not of the pictures of plain.npy: run `sslkit embed` again")
    known, rows = (y >= 0).nonzero()[:, 0], torch.arange(len(y))
    every = {"plain": points.half()[:, None]} | tables
    found = Features("", 0, every, dict.fromkeys(every, rows) | {"test": known}, points.float().mean(0), "")
    no_pixels = torch.zeros(len(y), 1, 1, 1, dtype=torch.uint8)
    data = SSLData("features", no_pixels, y, no_pixels[known], y[known], tuple(map(str, range(int(y.max()) + 1))),
                   (0.0,), (1.0,), False, "", known, rows, seed, {}, rows[:0], features=found)
    config = Config(seed=seed, eval_every=FEATURES.steps)            # its own labels, at the end
    *_, last = train(FreeMatch(), data, config, Machine(device="cpu"))
    confidence, label = predict(last.nets.teacher, data.inputs, data)[0].max(1)
    label = torch.where(y >= 0, y, label)
    return PseudoLabels(label, torch.where(y >= 0, 1.0, confidence), {"steps": last.step}, "head")


def head_of(embeddings: str | Path) -> dict[str, Callable[[Tensor, Tensor], PseudoLabels]]:
    """The labeler `head` for a folder of `sslkit embed`; none where it has no views, or `embeddings` is a file."""
    try:
        tables = {kind: torch.from_numpy(np.load(path, mmap_mode="c")) for kind in ("weak", "strong")
                  if (path := Path(embeddings, f"{kind}.npy")).is_file()}
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"the views in {embeddings} cannot be read ({error}): run `sslkit embed` again") from error
    return {"head": partial(head, tables)} if tables else {}
