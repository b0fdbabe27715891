"""Feed: the batch of a step, a function of (seed, step) alone."""
import hashlib
import math
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import torch
from torch import Tensor

from sslkit.data import LARGE, Share, SSLData, augment, crop, drawn, jitter, send
from sslkit.errors import choose, require
from sslkit.methods import Method
from sslkit.processes import own, world
from sslkit.records import Batch
from sslkit.training.config import Config

NOTHING = -1, Future()               # no step is coming


def generator(*key: object) -> torch.Generator:
    """A CPU generator whose stream is a function of `key`, of 32 bits of its hash: of 2^20 steps about 128 pairs share
    theirs."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4], "little"))


class Feed:
    """feed(step) -> Batch: labelled rows with replacement, unlabelled rows in an endless sequence of shuffled epochs.
    Of a batch each process gets its own part, the same whatever their number.

    data: split; its mean and std normalise the views. device: where batches go (default: where the data is). Where the
    images are not on the device or lie in a file, those of the next step are fetched in the background. Raises
    InputError for a kind of view that there is not.
    """

    def __init__(self, data: SSLData, method: Method, config: Config, channels_last: bool = False,
                 device: torch.device | None = None):
        self.device = data.y.device if device is None else device
        # views are made in float64, which MPS lacks; features lie in files
        self.made_on = torch.device("cpu") if self.device.type == "mps" or data.features else self.device
        self.data, self.labeled, self.unlabeled = data.to(self.made_on), data.labeled.cpu(), data.unlabeled.cpu()
        self.y = data.y.cpu()[self.labeled]
        self.method, self.config, self.channels_last = method, config, channels_last
        whole = partial(crop, side=data.view[-1]) if data.features is None else None
        weak = augment.weak if data.crop is None else whole
        self.kinds = {"weak": weak, "strong": partial(augment.strong, variant=config.strong, first=weak),
                      "crop": whole, "jitter": partial(jitter, side=data.view[-1])}
        for kind in method.views:
            choose("kind of view", kind.split(":")[0], self.kinds)
        require(not (method.pixels and data.features), f"{type(method).__name__} changes pixels, it cannot train on "
                "features: leave out --encoder, or take another method")
        require(config.batch_size % world() == 0, f"{world()} processes cannot share {config.batch_size} labelled "
                "images a step: take a --batch-size that is a multiple of their number")
        self.n_u = config.mu * config.batch_size if method.views else 0
        self.truth = data.y[data.unlabeled].to(self.device)            # for scores alone, never in a Batch
        self.epochs: dict[int, Tensor] = {}
        images = self.data.images
        behind = data.features is None and (images.device.type != self.made_on.type or math.prod(images.shape) > LARGE)
        self.pool, self.coming = ThreadPoolExecutor(1) if behind else None, NOTHING

    def unlabeled_rows(self, step: int) -> Tensor:
        """(mu*B,) rows in the unlabelled set, of all processes."""
        n, at = self.data.num_unlabeled, torch.arange(step * self.n_u, (step + 1) * self.n_u)
        needed = range(int(at[0]) // n, int(at[-1]) // n + 1)
        self.epochs = {k: self.epochs[k] if k in self.epochs else
                       torch.randperm(n, generator=generator(self.config.seed, "pass", k)) for k in needed}
        return torch.cat([self.epochs[k][at[at // n == k] % n] for k in needed])

    def images(self, rows: Tensor) -> Tensor:
        """The training images `rows`, or features' rows themselves, where views are made of them."""
        if self.data.features:
            return rows
        images = self.data.images
        return send(images.index_select(0, send(rows, images.device)), self.made_on)

    def view(self, kind: str, rows: Tensor, g: torch.Generator | Share) -> Tensor:
        """(n, num, H, W) float32 on the device: the training images `rows`, augmented and normalised; or (n, D), stored
        features of such views."""
        return self.made(kind, self.images(rows), g)

    def made(self, kind: str, images: Tensor, g: torch.Generator | Share) -> Tensor:
        """view() of what images() gave."""
        data = self.data
        if data.features:
            return send(data.features.view(kind, images, g), self.device)
        name, _, magnitude = kind.partition(":")
        how = {"magnitude": float(magnitude)} if magnitude else {}
        views = self.kinds[name](images, g, flip=data.flip, **how)
        return augment.normalize(views, data.mean, data.std, channels_last=self.channels_last).to(self.device)

    def begin(self, step: int) -> tuple:
        """The part of a step's batch that needs the images: a generator for the rest, rows, draws, images."""
        g, count = Share(generator(self.config.seed, "step", step)), self.config.batch_size
        i = drawn(partial(torch.randint, self.data.num_labeled), (count // world(),), g)
        j = own(self.unlabeled_rows(step)) if self.n_u else torch.empty(0, dtype=torch.int64)
        draws = {name: own(value) for name, value in self.method.draw(g.g, count, self.n_u).items()}
        return g, i, j, draws, self.images(self.labeled[i]), self.images(self.unlabeled[j]) if self.n_u else None

    def begun(self, step: int) -> tuple:
        """begin(), perhaps from the background, where the next step's then begins."""
        if self.pool is None:
            return self.begin(step)
        number, coming = self.coming
        parts = (coming if number == step else self.pool.submit(self.begin, step)).result()
        self.coming = (step + 1, self.pool.submit(self.begin, step + 1)) if step + 1 < self.config.steps else NOTHING
        return parts

    def __call__(self, step: int) -> Batch:
        g, i, j, draws, labeled, unlabeled = self.begun(step)
        x = self.made("weak", labeled, g)
        u = tuple(self.made(kind, unlabeled, g) for kind in self.method.views)
        y, i, j, *draws_there = (send(t, self.device) for t in (self.y[i], i, j, *draws.values()))
        return Batch(x, y, u, i, j, dict(zip(draws, draws_there)))
