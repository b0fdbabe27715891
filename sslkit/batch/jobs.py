"""A run as a job of a batch; its fellow is execute_notebook.NotebookJob."""
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch

from sslkit.training import Machine, Propagate, RunSpec, Select, has_result, set_up, take_step

COST = {Select: 2.0, Propagate: 5 / 3}                 # of a recipe, in runs of its method


@dataclass(frozen=True)
class RunJob:
    """What the engine needs to know of a run. loaded: keeps the data sets, for several jobs."""
    spec: RunSpec
    noun: ClassVar[str] = "run"

    @property
    def name(self) -> str:
        """A short name that differs for jobs that differ."""
        return self.spec.name

    @property
    def title(self) -> str:
        """One line for logs."""
        return f"{self.spec.title:16} {self.spec.data.data} {self.spec.data.labels} seed {self.spec.train.seed}"

    @property
    def timing_key(self) -> str:
        """Key under which run times are shared: everything but data split and seed."""
        alike = replace(self.spec, train=replace(self.spec.train, seed=0))
        return json.dumps([asdict(alike) | {"data": self.spec.data.data}], sort_keys=True)

    @property
    def plain(self) -> dict[str, Any]:
        """A JSON-serialisable dict, for from_plain()."""
        return asdict(self.spec)

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "RunJob":
        return cls(RunSpec.from_plain(plain))

    def place(self, loaded: dict, machine: Machine = Machine()) -> Path:
        """Its folder in the store. InputError where the data is not there."""
        return self.spec.path(self.spec.load(loaded), machine)

    def finished(self, path: Path) -> bool:
        """Is it finished, in the folder `path`?"""
        return has_result(path)

    def do(self, loaded: dict, machine: Machine = Machine()) -> None:
        """Train it, continue it, or find it finished."""
        self.spec.run(self.spec.load(loaded), machine)

    def seconds(self, loaded: dict, machine: Machine, steps: int = 8) -> float:
        """About how long it takes here, from the median of a few steps."""
        data = self.spec.load(loaded)
        method, config = self.spec.make(**self.spec.arguments), self.spec.train.resolve(data, machine.torch_device())
        nets, optimizer, feed = set_up(method, data, config, machine)
        times = []
        for step in range(steps + 2):
            begin = time.perf_counter()
            take_step(method, nets, optimizer, feed, step)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times.append(time.perf_counter() - begin)
        return sorted(times[2:])[steps // 2] * config.steps * COST.get(type(self.spec.recipe), 1.0)
