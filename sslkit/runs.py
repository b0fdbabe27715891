"""A run on disk: config.json, metrics.jsonl, checkpoint.pt, result.json; and fit(), which trains one, goes on with one, or finds it.

config.json is everything that decides the result. metrics.jsonl has a line for each evaluation, written as it happens. checkpoint.pt
is replaced atomically and loads with weights_only=True. result.json is there only when the run is finished.
"""
import errno
import hashlib
import json
import os
import platform
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

from sslkit import __version__
from sslkit.data import SSLData
from sslkit.errors import InputError, require
from sslkit.methods.base import Method
from sslkit.metrics import median_last
from sslkit.nets import Network, build
from sslkit.records import Snapshot
from sslkit.train import Config, Machine, describe, train

CHECKPOINT_SECONDS = 60


class Stopped(KeyboardInterrupt):
    """A run was asked to stop (Ctrl-C, SIGTERM) and did, its state saved in `run`."""

    def __init__(self, run: "Run", step: int, steps: int):
        super().__init__(f"stopped at step {step:,} of {steps:,}; {run.path} can go on from there")
        self.run = run


def store() -> Path:
    """Where runs lie: $SSLKIT_RUNS, else `runs` beside the nearest pyproject.toml above the working directory, else here."""
    if os.environ.get("SSLKIT_RUNS"):
        return Path(os.environ["SSLKIT_RUNS"])
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / "pyproject.toml").exists()), here) / "runs"


@cache
def code_version() -> dict[str, str]:
    """The package's version and a hash of the files that decide a result."""
    folder, digest = Path(__file__).parent, hashlib.sha256()
    for path in [folder / f"{name}.py" for name in ("augment", "data", "folder", "nets", "train")] + sorted(folder.glob("methods/*.py")):
        digest.update(path.read_bytes())
    return {"version": __version__, "hash": digest.hexdigest()[:16]}


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a new file, then put it in the place of `path`: a reader sees the old file or the new one, never a part.

    Raises InputError where the disk is full or cannot be written; the old file is still there then.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        write(new)
        with open(new, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException as error:
        new.unlink(missing_ok=True)
        # torch's zip writer reports a full disk as a RuntimeError about its own position
        if isinstance(error, OSError) or (isinstance(error, RuntimeError) and "inline_container" in str(error)):
            raise cannot_write(path, error) from error
        raise


def cannot_write(path: Path, error: Exception) -> InputError:
    """The InputError for a file that could not be written; what was saved before is untouched."""
    full = not isinstance(error, OSError) or error.errno in (errno.ENOSPC, errno.EDQUOT)
    reason = "no space left on the disk" if full else getattr(error, "strerror", None) or error
    return InputError(f"could not write {path}: {reason}; what was saved before is untouched, and --resume goes on from there")


def write_json(path: Path, content: dict) -> None:
    """`content` as indented JSON, atomically."""
    write_atomically(path, lambda new: new.write_text(json.dumps(content, indent=2) + "\n"))


class Run:
    """A run's folder. Reads lazily; nothing is cached, so that a run can be watched while it trains."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def _json(self, name: str) -> dict | None:
        try:
            return json.loads((self.path / name).read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise InputError(f"{self.path / name} cannot be read ({error}); move the folder away or give another --out") from error

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
        try:
            lines = (self.path / "metrics.jsonl").read_text().split("\n")[:-1]
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines]

    def curve(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of one metric; NaN where it had none."""
        metrics = self.metrics
        return [m["step"] for m in metrics], [float("nan") if m.get(name) is None else m[name] for m in metrics]

    def checkpoint(self) -> dict:
        """The saved state, on the CPU. Raises InputError for a file that is missing, truncated or none of ours."""
        path = self.path / "checkpoint.pt"
        require(path.exists(), f"{path} is not there: the run has not saved anything yet")
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:          # a damaged zip or pickle can raise almost anything
            raise InputError(f"{path} is truncated or not a checkpoint ({type(error).__name__}); remove it to train from the start") from error
        require(isinstance(state, dict) and state.get("format") == 1, f"{path} is not a checkpoint of sslkit; remove it to train from the start")
        return state

    def network(self, weights: str = "teacher") -> Network:
        """The trained network, on the CPU: the EMA "teacher", which is what is evaluated, or the "student"."""
        config, state = self.config, self.checkpoint()[weights]
        network = build(config["train"]["network"], *(state["classifier.weight"].shape[:1]), config["channels"])
        network.load_state_dict({name: value for name, value in state.items() if not name.startswith("heads.")})
        return network.eval()

    def log(self, metrics: dict) -> None:
        """Append one line to metrics.jsonl."""
        path = self.path / "metrics.jsonl"
        at = path.stat().st_size if path.exists() else 0
        try:
            with open(path, "a") as file:
                file.write(json.dumps(metrics) + "\n")
        except OSError as error:
            os.truncate(path, at)
            raise cannot_write(path, error) from error

    def save(self, state: dict) -> None:
        """Replace checkpoint.pt."""
        write_atomically(self.path / "checkpoint.pt", lambda new: torch.save({"format": 1, **state}, new))


def all_runs(folder: Path | None = None) -> list[Run]:
    """The runs of a store, newest first."""
    runs = [Run(path.parent) for path in (folder or store()).glob("*/config.json")]
    return sorted(runs, key=lambda run: (run.path / "config.json").stat().st_mtime, reverse=True)


def record(method: Method, data: SSLData, config: Config) -> dict:
    """config.json for a run of `method` on `data`; `config` is resolved."""
    return {**describe(method, data, config), "channels": data.images.shape[1], "classes": list(data.classes), "code": code_version()}


def run_path(record: dict, folder: Path | None = None) -> Path:
    """Where the run of this record lies in the store: method, data, labels, seed, and a hash of everything."""
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:8]
    data = re.sub(r"[^\w.-]+", "-", Path(record["data"]["name"]).name)
    return (folder or store()) / f"{record['method']}-{data}-{record['data']['labels']}-s{record['train']['seed']}-{digest}"


def difference(old: dict, new: dict, prefix: str = "") -> list[str]:
    """The settings in which two records differ, as `name old -> new`."""
    rows = []
    for key in sorted({*old, *new}):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            rows += difference(a, b, f"{prefix}{key}.")
        elif a != b:
            rows.append(f"{prefix}{key} {a} -> {b}")
    return rows


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets; a second one interrupts at once. Outside the main thread it is never set."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(number, frame):
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the run's folder; InputError if another process does. The lock goes with the process, however it ends."""
    try:
        import fcntl
    except ImportError:                     # Windows: no lock, as before there was one
        yield
        return
    with open(folder / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"another process is training in {folder}") from error
        yield


def fit(method: Method, data: SSLData, config: Config = Config(), machine: Machine = Machine(), *, out: str | Path | None = None,
        live: Callable[[Snapshot], None] | None = None) -> Run:
    """Train to the end and return the Run. A finished run of the same record is returned as it is, a stopped one goes on.

    out: its folder (default: found in the store by what decides the result). live: shown each Snapshot, may not change it.
    Raises InputError where the folder holds another configuration, a damaged checkpoint or another process; Stopped on Ctrl-C and
    SIGTERM, after saving; FloatingPointError when the loss is no longer finite.
    """
    config = config.resolve(data, machine.torch_device())
    new = record(method, data, config)
    run = Run(out or run_path(new))
    try:
        run.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(run.path, error) from error
    with locked(run.path):
        old, state = run.config, None
        if old is not None:
            changed = difference({**old, "code": 0}, {**new, "code": 0})
            require(not changed, f"{run.path} holds another configuration ({'; '.join(changed[:4])}); give another --out")
            if run.result is not None:
                return run
        if (run.path / "checkpoint.pt").exists():
            state = run.checkpoint()
            require(state["split"] == data.hash, f"{run.path / 'checkpoint.pt'} is from another split of the data; give another --out")
        if old is None:
            require(not any(p.name != ".lock" for p in run.path.iterdir()), f"{run.path} is not empty and holds no run; give another --out")
            write_json(run.path / "config.json", new)
        elif old["code"] != new["code"]:
            print(f"note: the run was begun by other code of sslkit ({old['code']}); going on with this one", file=sys.stderr)
        return _fit(run, method, data, config, machine, state, live)


def _fit(run: Run, method: Method, data: SSLData, config: Config, machine: Machine, state: dict | None, live) -> Run:
    """The part of fit() inside the lock: train, write as it goes, finish."""
    begin, before = time.monotonic(), state["seconds"] if state else 0.0
    done = [m for m in run.metrics if state and m["step"] <= state["step"]]      # lines after the checkpoint come again
    write_atomically(run.path / "metrics.jsonl", lambda new: new.write_text("".join(json.dumps(m) + "\n" for m in done)))
    saved = begin

    def save(snap: Snapshot) -> None:
        run.save({**snap.state(), "split": data.hash, "seconds": seconds()})

    def seconds() -> float:
        return before + time.monotonic() - begin

    with stop_signals() as asked:
        for snap in train(method, data, config, machine, state=state):
            if snap.evaluated:
                run.log({"step": snap.step, **snap.metrics, "seconds": round(seconds(), 3)})
            if live:
                live(snap)
            last, due = snap.step == config.steps, time.monotonic() - saved > CHECKPOINT_SECONDS
            if last or asked.is_set() or (snap.evaluated and due):
                save(snap)
                saved = time.monotonic()
            if asked.is_set() and not last:
                raise Stopped(run, snap.step, config.steps)
    metrics = run.metrics
    write_json(run.path / "result.json", {
        "method": type(method).__name__.lower(), "data": data.name, "labels": data.num_labeled, "seed": config.seed, "steps": config.steps,
        "test_acc": metrics[-1]["test_acc"], "test_acc_median20": median_last([m["test_acc"] for m in metrics]),
        "pseudo_label_acc": metrics[-1]["pseudo_label_acc"], "mask_rate": metrics[-1]["mask_rate"], "seconds": round(seconds(), 2),
        "machine": {"device": str(data.images.device if machine.device == "auto" else machine.device), "threads": torch.get_num_threads(),
                    "torch": torch.__version__, "python": platform.python_version(), "cpu": platform.processor() or platform.machine()}})
    return run
