"""One run of a batch as plain values, which travel between processes: what is trained, where it lies in the store, whether it is there."""
import hashlib
import json
import re
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import torch

from sslkit.data import SSLData, load, split
from sslkit.methods import FixMatch, KDFixMatch, method_class
from sslkit.records import Progress
from sslkit.training.config import Config, Machine
from sslkit.training.identity import protocol, run_path
from sslkit.training.loop import set_up, take_step
from sslkit.training.recipes import CODE, Plan
from sslkit.training.run import Run, has_result

SIDES = {"digits": 8, "stl10": 96, "food101": 128}      # of the others 32
CODE_OF = ((), *CODE.values())                          # for runs.code_version: of a run, of each recipe
SELECT = {"tau_select": 0.8, "clustering": "dec", "matching": "centers"}
COST = {"kd-fixmatch": 2.0, "+hdl": 5 / 3}              # of a recipe, in runs of its method
LABELING = {"k": "auto", "mode": "layer", "metric": "cosine"}


@dataclass(frozen=True)
class Job:
    """A run, a method's or a recipe's, from defaults: what is not said here is as `sslkit train` would have it."""
    method: str                   # fixmatch; fixmatch+hdl, HDL on it; kd-fixmatch
    data: str
    labels: int
    seed: int
    steps: int
    imbalance: float = 1.0
    arguments: dict[str, Any] = field(default_factory=dict)       # of the method
    train: dict[str, Any] = field(default_factory=dict)           # of train.Config
    root: str | None = None                                       # where the data lie
    noun: ClassVar[str] = "run"

    @property
    def name(self) -> str:
        """A short name that differs for jobs that differ."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:6]
        return re.sub(r"[^\w.+-]+", "-", f"{self.method}-{self.data}-{self.labels}-s{self.seed}-{digest}")

    @property
    def said(self) -> str:
        """For people."""
        return f"{self.method:16} {self.data} {self.labels} seed {self.seed}"

    @property
    def kind(self) -> str:
        """What takes equally long has the same one."""
        return json.dumps([self.method, self.data, self.train, self.arguments, self.steps], sort_keys=True)

    @property
    def values(self) -> dict[str, Any]:
        """It as plain values, which travel."""
        return asdict(self)

    @property
    def config(self) -> Config:
        return Config(seed=self.seed, steps=self.steps, **self.train)

    @property
    def plan(self) -> Plan:
        """The method and its recipe, as `sslkit train` has them by default."""
        if self.method == "kd-fixmatch":
            return Plan(KDFixMatch(**self.arguments), "kd-fixmatch", SELECT)
        name = self.method.removesuffix("+hdl")
        method = method_class(name)(**self.arguments)
        return Plan(method) if name == self.method else Plan(method, "hdl", LABELING)

    def opened(self, known: dict[tuple, SSLData], progress: Progress | None = None) -> SSLData:
        """The data, split. `known` keeps what is loaded. InputError where it is not there."""
        if (self.data, self.root) not in known:
            known[self.data, self.root] = load(self.data, root=self.root, progress=progress)
        return split(known[self.data, self.root], self.labels, self.seed, imbalance=self.imbalance)

    def path(self, data: SSLData, machine: Machine = Machine()) -> Path:
        """The folder in the store, a function of everything that decides the result."""
        return run_path(self.plan.record(data, self.config.resolve(data, machine.torch_device())))

    def perform(self, data: SSLData, machine: Machine = Machine()) -> Run:
        """Train it, go on with it, or find it finished. Raises as runs.fit does."""
        return self.plan(data, self.config, machine)

    def place(self, known: dict[tuple, SSLData], machine: Machine = Machine()) -> Path:
        """path() of the data it names; see opened()."""
        return self.path(self.opened(known), machine)

    def finished(self, path: Path) -> bool:
        """Is it finished, in the folder `path`?"""
        return has_result(path)

    def do(self, known: dict[tuple, SSLData], machine: Machine = Machine()) -> None:
        """perform() on the data it names; see opened()."""
        self.perform(self.opened(known), machine)

    def seconds(self, known: dict[tuple, SSLData], machine: Machine, steps: int = 8) -> float:
        """About how long it takes here, from the median of a few steps."""
        data = self.opened(known)
        method, config = self.plan.method, self.config.resolve(data, machine.torch_device())
        nets, optimizer, feed = set_up(method, data, config, machine)
        times = []
        for step in range(steps + 2):
            begin = time.perf_counter()
            take_step(method, nets, optimizer, feed, step)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times.append(time.perf_counter() - begin)
        one = sorted(times[2:])[steps // 2]
        return one * self.steps * next((cost for name, cost in COST.items() if self.method.endswith(name)), 1.0)

    def key(self) -> str:
        """What protocol() of its record is, without the data."""
        like = SimpleNamespace(name=self.data, side=SIDES.get(self.data, 32))
        train, method = asdict(self.config.resolve(like, torch.device("cpu"))), self.plan.method
        arguments = method.arguments
        if self.method == "kd-fixmatch":
            arguments |= SELECT | {"outer": {"method": "fixmatch", "arguments": FixMatch().arguments, "train": train}}
        elif self.method.endswith("+hdl"):
            arguments |= {f"hdl_{name}": value for name, value in LABELING.items()}
        data = {"name": self.data, "labels": self.labels, "imbalance": [float(self.imbalance)] * 2, "side": like.side,
                "flip": self.data not in ("digits", "svhn")}
        return protocol({"method": self.method, "arguments": arguments, "data": data, "train": train})


def distinct(jobs: Iterable[Job]) -> list[Job]:
    """Each job once, in their order."""
    return list({job.name: job for job in jobs}.values())
