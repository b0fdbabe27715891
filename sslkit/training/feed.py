"""Feed: the batch of a step, a function of (seed, step) alone."""
import hashlib
from functools import partial

import torch
from torch import Tensor

from sslkit.data import SSLData, augment, jitter, send
from sslkit.errors import choose, require
from sslkit.methods import Method
from sslkit.records import Batch
from sslkit.training.config import Config


def generator(*key: object) -> torch.Generator:
    """A CPU generator whose stream is a function of `key`, of 32 bits of its hash: of 2^20 steps about 128 pairs share
    theirs."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4], "little"))


class Feed:
    """feed(step) -> Batch: labelled rows with replacement, unlabelled rows in an endless sequence of shuffled epochs.

    data: split; its mean and std normalise the views. device: where batches go (default: where the data is). Raises
    InputError for a kind of view that there is not.
    """

    def __init__(self, data: SSLData, method: Method, config: Config, channels_last: bool = False,
                 device: torch.device | None = None):
        self.device = data.images.device if device is None else device
        # views are made in float64, which MPS lacks; features lie in files
        self.data = data.to("cpu" if self.device.type == "mps" or data.features else self.device)
        self.method, self.config, self.channels_last = method, config, channels_last
        self.kinds = {"weak": augment.weak, "strong": partial(augment.strong, variant=config.strong), "jitter": jitter}
        for kind in method.views:
            choose("kind of view", kind.split(":")[0], self.kinds)
        require(not (method.pixels and data.features), f"{type(method).__name__} changes pixels, it cannot train on "
                "features: leave out --encoder, or take another method")
        self.n_u = config.mu * config.batch_size if method.views else 0
        self.truth = data.y[data.unlabeled].to(self.device)            # for scores alone, never in a Batch
        self.epochs: dict[int, Tensor] = {}

    def unlabeled_rows(self, step: int) -> Tensor:
        """(mu*B,) rows in the unlabelled set."""
        n, at = self.data.num_unlabeled, torch.arange(step * self.n_u, (step + 1) * self.n_u)
        needed = range(int(at[0]) // n, int(at[-1]) // n + 1)
        self.epochs = {k: self.epochs[k] if k in self.epochs else
                       torch.randperm(n, generator=generator(self.config.seed, "pass", k)) for k in needed}
        return torch.cat([self.epochs[k][at[at // n == k] % n] for k in needed])

    def view(self, kind: str, rows: Tensor, g: torch.Generator) -> Tensor:
        """(n, num, H, W) float32 on the device: the training images `rows`, augmented and normalised; or (n, D), stored
        features of such views."""
        data = self.data
        if data.features:
            return send(data.features.view(kind, rows, g), self.device)
        name, _, magnitude = kind.partition(":")
        how = {"magnitude": float(magnitude)} if magnitude else {}
        images = self.kinds[name](data.images.index_select(0, rows), g, flip=data.flip, **how)
        return augment.normalize(images, data.mean, data.std, channels_last=self.channels_last).to(self.device)

    def __call__(self, step: int) -> Batch:
        g, data = generator(self.config.seed, "step", step), self.data
        i = torch.randint(data.num_labeled, (self.config.batch_size,), generator=g)
        j = self.unlabeled_rows(step) if self.n_u else torch.empty(0, dtype=torch.int64)
        draws = self.method.draw(g, len(i), len(j))
        i, j = send(i, data.images.device), send(j, data.images.device)
        x = self.view("weak", data.labeled[i], g)
        u = tuple(self.view(kind, data.unlabeled[j], g) for kind in self.method.views)
        y, i, j, *draws_there = (send(t, self.device) for t in (data.y[data.labeled[i]], i, j, *draws.values()))
        return Batch(x, y, u, i, j, dict(zip(draws, draws_there)))
