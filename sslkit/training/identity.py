"""What names a run: its record, the code that made it, its folder in the store."""
import hashlib
import json
import os
import re
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch

from sslkit import __version__
from sslkit.data import SSLData
from sslkit.methods import Method
from sslkit.networks import Network
from sslkit.training.config import Config


def store() -> Path:
    """Where runs lie: $SSLKIT_RUNS, else `runs` beside the nearest pyproject.toml above the working directory, else here."""
    if os.environ.get("SSLKIT_RUNS"):
        return Path(os.environ["SSLKIT_RUNS"]).expanduser()
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / "pyproject.toml").exists()), here) / "runs"


@cache
def code_version(*more: str) -> dict[str, str]:
    """The package's version and a hash of the files that decide a result; `more` of them for what is more than a run."""
    folder, digest = Path(__file__).parents[1], hashlib.sha256()
    rooms = (sorted(folder.glob(f"{room}/*.py")) for room in ("data", "networks", "methods"))
    for path in [*(folder / f"{name}.py" for name in ("training/config", "training/feed", "training/loop", *more)), *(path for room in rooms for path in room)]:
        digest.update(path.read_bytes())
    return {"version": __version__, "hash": digest.hexdigest()[:16]}


def record(method: Method, data: SSLData, config: Config, initial: Network | None = None) -> dict:
    """config.json for a run of `method` on `data`, from the weights `initial` if given, as it reads back; `config` is resolved."""
    more = {"channels": data.images.shape[1], "classes": data.classes}
    if initial is not None:
        digest = hashlib.sha256()
        for value in initial.state_dict().values():
            digest.update(value.cpu().numpy().tobytes())
        more["initial"] = digest.hexdigest()[:16]
    return json.loads(json.dumps({**describe(method, data, config), **more, "code": code_version()}))


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


def changes(old: dict, new: dict) -> str:
    """The first settings in which two records differ, in words; "" where only the code does."""
    return "; ".join(difference({**old, "code": 0}, {**new, "code": 0})[:4])


def describe(method: Method, data: SSLData, config: Config) -> dict:
    """What decides a result, as plain numbers and strings; `config` is resolved."""
    return {"method": type(method).__name__.lower(), "arguments": method.arguments,
            "data": {"name": data.name, "labels": data.num_labeled, "unlabeled": data.num_unlabeled, "split": data.hash,
                     "imbalance": list(data.imbalance), "validation": len(data.validation),
                     "include_labeled": bool(torch.isin(data.labeled, data.unlabeled).any()),
                     "unlabeled_asked": data.unlabeled_asked, "side": data.side, "flip": data.flip},
            "train": asdict(config)}


USUAL = {"imbalance": [1.0, 1.0], "validation": 0, "include_labeled": True, "unlabeled_asked": None}



def protocol(config: dict) -> str:
    """What makes two records' results comparable: everything but the seed, the rows drawn, the code, the precision and the machine."""
    def plain(value: Any) -> Any:
        return {k: plain(v) for k, v in value.items() if k not in ("precision", "seed")} if isinstance(value, dict) else value

    data = USUAL | {name: value for name, value in config["data"].items() if name not in ("unlabeled", "split")}
    return json.dumps(plain({"method": config["method"], "arguments": config["arguments"], "data": data, "train": config["train"],
                             "initial": config.get("initial")}), sort_keys=True)
