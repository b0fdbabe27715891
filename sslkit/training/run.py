"""A run on disk: config.json, metrics.jsonl, checkpoint.pt, result.json. fit() trains a run, continues it, or finds it.

config.json has everything that decides the result. metrics.jsonl has a line for each evaluation, written as it happens.
checkpoint.pt is replaced atomically and loads with weights_only=True. result.json comes when the run is finished.
"""
import json
import os
import platform
import re
import shutil
import sys
import time
import zipfile
from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path

import torch

from sslkit.data import SSLData
from sslkit.errors import InputError, Left, choose, require
from sslkit.files import cannot_write, locked, stop_signals, write_atomically, write_json
from sslkit.methods import Method, method_class
from sslkit.networks import Nets, Network, build, expected_pixels
from sslkit.processes import by_first, rank, wait, world
from sslkit.records import Snapshot
from sslkit.training.config import Config, Machine
from sslkit.training.identity import changed_settings, record, run_path
from sslkit.training.loop import set_up, train
from sslkit.training.metrics import median_last

CHECKPOINT_SECONDS = 60
SAVED = {"format", "config", "seconds", "step", "sums", "student", "teacher", "optimizer", "method"}


class Stopped(KeyboardInterrupt):
    """A run was asked to stop (Ctrl-C, SIGTERM) and did, its state saved in `run`."""

    def __init__(self, run: "Run", step: int, steps: int):
        super().__init__(f"stopped at step {step:,} of {steps:,}; {run.path} can be continued from there")
        self.run = run


class Run:
    """A run's folder. Reads lazily; nothing is cached, so that a run can be watched while it trains."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def advice(self) -> str:
        return f"remove {self.path} to train from the start, or give another --out"

    def _json(self, name: str) -> dict | None:
        try:
            content = json.loads((self.path / name).read_text())
            require(isinstance(content, dict), "it is no JSON object")
            return content
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise InputError(f"{self.path / name} cannot be read ({error}); {self.advice}") from error

    @property
    def config(self) -> dict | None:
        """Everything that decides the result; None where there is no run."""
        return self._json("config.json")

    @property
    def result(self) -> dict | None:
        """The final figures; None until the run is finished."""
        return self._json("result.json")

    @property
    def metrics(self) -> list[dict]:
        """A dict for each evaluation, first to last. A line cut off by a crash is left out."""
        path = self.path / "metrics.jsonl"
        try:
            lines = [json.loads(line) for line in path.read_text().split("\n")[:-1]]
            require(all(isinstance(m, dict) and "step" in m for m in lines), "a line is no evaluation")
            return lines
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read ({error}); {self.advice}") from error

    def curve(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of one metric; NaN where it had none."""
        metrics = self.metrics
        return [m["step"] for m in metrics], [float("nan") if m.get(name) is None else m[name] for m in metrics]

    def checkpoint(self) -> dict:
        """The saved state, on the CPU. Raises InputError for a file that is missing, cut off or no checkpoint."""
        path = self.path / "checkpoint.pt"
        require(path.exists(), f"{path} is not there: the run has not saved anything yet")
        try:
            with zipfile.ZipFile(path) as file:
                require(file.testzip() is None, "its checksum is wrong")       # torch does not look at them
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:          # a damaged zip or pickle can raise almost anything
            raise InputError(f"{path} is damaged or not a checkpoint ({type(error).__name__}); "
                             f"{self.advice}") from error
        ours = isinstance(state, dict) and state.get("format") == 1 and SAVED <= state.keys()
        require(ours, f"{path} is not a checkpoint of sslkit; {self.advice}")
        return state

    def network(self, weights: str = "teacher") -> Network:
        """The trained network, on the CPU: the EMA "teacher", which is what is evaluated, or the "student"."""
        saved = self.checkpoint()
        config, state = saved["config"], saved[choose("weights", weights, ("teacher", "student"))]
        network = build(config["train"]["network"], len(config["classes"]), config["channels"])
        network.pixels = pixels_of(config)
        for name in [name for name in state if name.startswith("heads.")]:
            del state[name]                  # in place: the state's own version numbers stay with it
        network.load_state_dict(state)
        return network.eval()

    def restore(self, data: SSLData) -> tuple[Method, Nets]:
        """The method as training left it, in eval mode and with its buffers, and its networks with its heads, on the
        CPU.

        data: split as it was for the run. A call of the networks still says itself how BatchNorm runs: nets(views,
        bn="batch"). Raises InputError where the data is split otherwise, or the checkpoint does not fit this code.
        """
        saved = self.checkpoint()
        config = saved["config"]
        require(config["data"]["split"] == data.hash, f"{self.path} was trained on another split of the data")
        try:
            method = method_class(config["method"])(**config["arguments"])
            plain = Config(**config["train"] | {"weights": "none"})
            nets = set_up(method, data.to("cpu"), plain, Machine(device="cpu"))[0]
            for part, name in ((method, "method"), (nets.student, "student"), (nets.teacher, "teacher")):
                part.load_state_dict(saved[name])
            nets.student.pixels = nets.teacher.pixels = pixels_of(config)
        except (TypeError, RuntimeError) as error:       # an argument or a layer that this code does not have
            raise InputError(f"{self.path} does not fit this code of sslkit: {str(error).splitlines()[0]}") from error
        method.eval()
        return method, nets

    def log(self, metrics: dict) -> None:
        """Append one line to metrics.jsonl."""
        path = self.path / "metrics.jsonl"
        at = path.stat().st_size if path.exists() else 0
        try:
            with open(path, "a") as file:
                file.write(json.dumps(metrics) + "\n")
                file.flush()
                os.fsync(file.fileno())     # a checkpoint on the disk must find every line before it
        except OSError as error:
            with suppress(OSError):
                os.truncate(path, at)
            raise cannot_write(path, error) from error

    def check(self, new: dict) -> None:
        """Raise InputError unless the folder holds a run of the record `new` (its code apart), or nothing."""
        require(not os.path.isfile(self.path), f"{self.path} is a file, not a folder; give another --out")
        old = self.config
        if old is not None:
            changed = changed_settings(old, new)
            require(not changed, f"{self.path} holds another configuration ({changed}); give another --out")
        elif self.path.exists():
            ours = {self.path / ".lock", *self.leftovers()}
            others = [path.name for path in self.path.iterdir() if path not in ours]
            require(not others, f"{self.path} is not empty and holds no run ({others[0] if others else ''}); give "
                                "another --out")

    def leftovers(self) -> list[Path]:
        """Files that a process which was killed had begun to write."""
        ours = ("config.json", "metrics.jsonl", "checkpoint.pt", "result.json")
        return [path for name in ours for path in self.path.glob(f".{name}.*.new")]

    def save(self, state: dict) -> None:
        """Replace checkpoint.pt."""
        def write(new: Path) -> None:
            with open(new, "wb") as file:
                torch.save({"format": 1, **state}, file)

        write_atomically(self.path / "checkpoint.pt", write)


def pixels_of(config: dict) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """expected_pixels() of a run's record."""
    return expected_pixels(config["train"]["network"], config["train"]["weights"], config["channels"])


def has_result(path: Path) -> bool:
    """Is the run finished? One whose result cannot be read is made again."""
    with suppress(InputError):
        return Run(path).result is not None
    return False


def fit(method: Method, data: SSLData, config: Config = Config(), machine: Machine = Machine(), *,
        out: str | Path | None = None, live: Callable[[Snapshot], None] | None = None,
        initial: Network | None = None) -> Run:
    """Train to the end and return the Run. A finished run of the same record is returned, a stopped one is continued.

    out: its folder (default: found in the store by what decides the result). live: shown each Snapshot, may not change
    it. initial: a trained network of the same kind to begin from, as part of the record. Raises InputError where the
    folder holds another configuration, a damaged checkpoint or another process; Stopped on Ctrl-C and SIGTERM, after
    saving; FloatingPointError when the loss is no longer finite.
    """
    machine.apply()
    config = config.resolve(data, machine.torch_device())
    new = record(method, data, config, initial)
    run = Run(out or run_path(new))
    run.check(new)
    fresh = run.config is None
    if not fresh and run.config.get("code") != new["code"]:
        print(f"note: {run.path} was begun by other code of sslkit: {run.config.get('code')}, now "
              f"{new['code']}", file=sys.stderr)
    if run.result is not None:
        return run
    wait()                                           # all have looked at the folder, which now changes
    first = rank() == 0                              # of several processes it alone writes
    try:
        run.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(run.path, error) from error
    with locked(run.path) if first else nullcontext():
        for path in run.leftovers() if first else ():
            path.unlink(missing_ok=True)
        state, path = None, run.path / "checkpoint.pt"
        if path.exists():
            state = run.checkpoint()
            changed = changed_settings(state["config"], new)
            whose = "another split of the data" if "data.split" in changed else "another run"
            require(not changed, f"{path} is from {whose} ({changed}); {run.advice}")
        try:
            if fresh and first:
                write_json(run.path / "config.json", new)
            return _fit(run, method, data, config, machine, state, live, initial and initial.state_dict())
        except (InputError, FloatingPointError) as error:
            left = isinstance(error, Left)           # then it can be resumed
            if first and fresh and not left and not run.metrics and not path.exists():      # nothing came of it
                shutil.rmtree(run.path, ignore_errors=True)
            raise
        except (RuntimeError, ValueError) as error:
            if state and re.search("load(ing|ed) state.dict", str(error)):
                raise InputError(f"{path} does not fit this code of sslkit; {run.advice}") from error
            raise


def _fit(run: Run, method: Method, data: SSLData, config: Config, machine: Machine, state: dict | None, live,
         initial: dict | None) -> Run:
    """The part of fit() inside the lock: train, write as it goes, finish."""
    begin, before, first = time.monotonic(), state["seconds"] if state else 0.0, rank() == 0
    reached = state["step"] if state else 0
    done = [m for m in run.metrics if m["step"] <= reached]              # later evaluations are made again
    due = [k for k in range(1, reached + 1) if k % config.eval_every == 0 or k == config.steps]
    require([m["step"] for m in done] == due, f"{run.path / 'metrics.jsonl'} lacks evaluations from before the "
                                              f"checkpoint; {run.advice}")
    lines = "".join(json.dumps(m) + "\n" for m in done)
    require(wait(reached), f"the processes of this run do not see the same files in {run.path}: give an --out that all "
            "of them see")                           # all have read what the first now writes
    if first:
        write_atomically(run.path / "metrics.jsonl", lambda new: new.write_text(lines))
    worlds = sorted({*(state or {}).get("processes", ()), world()})         # BatchNorm is by process
    saved, about = begin, {"config": run.config, "processes": worlds}

    def seconds() -> float:
        return before + time.monotonic() - begin

    with stop_signals() as asked:
        for snap in train(method, data, config, machine, state=state, initial=initial):
            if not first:                            # it takes part until the first stops
                continue
            if snap.evaluated:
                run.log({"step": snap.step, **snap.metrics, "seconds": round(seconds(), 3)})
            if live:
                live(snap)
            last = snap.step == config.steps
            if last or asked.is_set() or time.monotonic() - saved > CHECKPOINT_SECONDS:
                run.save({**snap.state(), **about, "seconds": seconds()})
                saved = time.monotonic()
            if asked.is_set() and not last:
                raise Stopped(run, snap.step, config.steps)
    by_first(partial(_finish, run, method, data, config, machine, worlds, round(seconds(), 2)))
    return run


def _finish(run: Run, method: Method, data: SSLData, config: Config, machine: Machine, worlds: list[int],
            seconds: float) -> None:
    """Write result.json."""
    metrics, last = run.metrics, run.metrics[-1]
    write_json(run.path / "result.json", {
        "method": type(method).__name__.lower(), "data": data.name, "labels": data.num_labeled, "seed": config.seed,
        "steps": config.steps, "test_acc": last["test_acc"],
        "test_acc_median20": median_last([m["test_acc"] for m in metrics]),
        "pseudo_label_acc": last["pseudo_label_acc"], "mask_rate": last["mask_rate"], "seconds": seconds,
        **{name: value for name, value in last.items() if name.startswith("test_acc_")},
        "machine": {"device": str(machine.torch_device()), "threads": torch.get_num_threads(),
                    "processes": worlds[0] if len(worlds) == 1 else worlds,      # a list: it went on with other numbers
                    "torch": torch.__version__, "python": platform.python_version(),
                    "cpu": platform.processor() or platform.machine()}})
