"""How recipes find labels: Select, KD-FixMatch's trusted subset; Propagate, HDL's labels from embeddings."""
import json
from dataclasses import dataclass, replace
from typing import Annotated, get_args

from sslkit.errors import choose, in_unit, require
from sslkit.labelers import CLUSTERINGS, MATCHINGS, Clustering, Matching, Metric, Mode
from sslkit.methods import FixMatch, KDFixMatch, Method
from sslkit.networks import HEADS
from sslkit.training.config import Config


@dataclass(frozen=True)
class Select:
    """KD-FixMatch's outer network, and which of its labels are trusted."""
    outer: Annotated[str | None, "folder of a finished fixmatch run on the same split, with any network, to be the "
                                 "outer network (default: train one; paper: train one)"] = None
    outer_network: Annotated[str | None, "the outer network, one of those of --network (default and paper: the inner "
                                         "one; paper: efficientnet-b0 with --weights imagenet)"] = None
    tau_select: Annotated[float, "confidence from which an outer label may be trusted, a probability (default and "
                                 "paper: 0.8)"] = 0.8
    clustering: Annotated[Clustering, "how the confident images are clustered; an outer label is trusted where its "
                                      "cluster has the same class, with none always (default and paper: dec)"] = "dec"
    matching: Annotated[Matching, "how a cluster gets its class: by the labelled images' centres or one to one "
                                  "(default: centers; paper: not known)"] = "centers"

    def check(self) -> None:
        """Raise an InputError for the first value that cannot be used."""
        in_unit(tau_select=self.tau_select)
        choose("clustering", self.clustering, CLUSTERINGS)
        choose("matching", self.matching, MATCHINGS)
        require(not self.outer or self.outer_network is None,
                "--outer is a network already trained: --outer-network has no meaning")

    def arguments(self, inner: KDFixMatch, outer: dict) -> dict:
        """The recipe's arguments as its record has them. outer: method, arguments and configuration of the outer
        network."""
        rule = {name: getattr(self, name) for name in ("tau_select", "clustering", "matching")}
        return json.loads(json.dumps({**inner.arguments, **rule, "outer": outer}))

    def outer_config(self, config: Config) -> Config:
        """The outer network's configuration, from that of the inner one. InputError for a file of weights, which is of
        the inner network alone, where the two differ."""
        same = self.outer_network in (None, config.network, *HEADS)           # of features, the file is the encoder's
        require(same or config.weights in ("none", "imagenet"), "a file of weights is of one network, the outer one is "
                "another: leave out --outer-network, or train it first and give its run by --outer")
        return replace(config, network=self.outer_network or config.network)


def outer_method(inner: KDFixMatch) -> FixMatch:
    """The outer network's method: FixMatch with the inner one's tau, lambda_u and passes."""
    return FixMatch(tau=inner.tau, lambda_u=inner.lambda_u, passes=inner.passes)


@dataclass(frozen=True)
class Propagate:
    """How HDL finds labels; see labelers.hdl."""
    k: Annotated[str | int, "neighbours of an image, a whole number, or auto: the one of 1 3 5 10 20 50 by which "
                            "hidden labels are found best (default: auto)"] = "auto"
    mode: Annotated[Mode, "label all images with equally many labelled neighbours together, or one at a time (default: "
                          "layer)"] = "layer"
    metric: Annotated[Metric, "how similarity is measured (default and paper: cosine)"] = "cosine"

    def __post_init__(self) -> None:
        if isinstance(self.k, str) and self.k.isdecimal():
            object.__setattr__(self, "k", int(self.k))

    def check(self) -> None:
        """Raise an InputError for the first value that cannot be used."""
        choose("mode", self.mode, get_args(Mode))
        choose("metric", self.metric, get_args(Metric))
        whole = isinstance(self.k, int) and not isinstance(self.k, bool) and self.k >= 1
        require(self.k == "auto" or whole, f"k is {self.k!r}, it must be a whole number from 1 up, or auto")

    def arguments(self, method: Method) -> dict:
        """The recipe's arguments as its record has them."""
        return {**method.arguments, **{f"hdl_{name}": value for name, value in vars(self).items()}}
