"""What names a run: its record (everything that decides the result), the code that makes it, and its folder in the
store."""
import hashlib
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from sslkit import __version__
from sslkit.data import SOURCES, SSLData
from sslkit.files import digest, digest_files, store
from sslkit.methods import FixedLabels, FixMatch, Method
from sslkit.networks import Network, weights_file
from sslkit.training.config import Config

CORE_FILES = ("data/*", "networks/*", "records", "processes", "methods/base", "methods/ops", "labelers/quality",
              "training/config", "training/feed", "training/loop")   # with its method's file they decide a run's result
RECIPE_FILES = {"kd-fixmatch": ("labelers/trusted", "labelers/clusters", "training/recipes"),
                "hdl": ("labelers/hdl", "labelers/neighbors", "training/recipes")}
LATER = {"schedule": "fixmatch", "warmup": 0.0, "eman": False}     # what older records lack, and what it was then
USUAL = {"imbalance": [1.0, 1.0], "validation": 0, "include_labeled": True, "unlabeled_asked": None}


def files_of(names: tuple[str, ...]) -> list[Path]:
    """The files of these names in the package; a * stands for all of a room."""
    package = Path(__file__).parents[1]
    return [path for name in names for path in package.glob(f"{name}.py") if path.name != "__init__.py"]


# read when imported: a file that is edited later is not the code that runs here
CORE = digest_files(files_of(CORE_FILES))
RECIPE_CODE = {name: digest_files(files_of(files)) for name, files in RECIPE_FILES.items()}


def code_of(method: Method, recipe: str = "") -> dict[str, str]:
    """The code that decides a result: the package's version, digests of the core, of the method's file, of the recipe's
    files."""
    others = {"": "", "kd-fixmatch": FixMatch.code, "hdl": FixedLabels.code}[recipe]
    more = {"recipe": digest([RECIPE_CODE[recipe], others])} if recipe else {}
    return {"version": __version__, "core": CORE, "method": type(method).code, **more}


def settings(config: Config) -> dict:
    """The fields of a resolved configuration as records have them: of a file of weights the digest of its content."""
    if (path := weights_file(config.weights)) is None:
        return asdict(config)
    with open(path, "rb") as file:
        return asdict(config) | {"weights": f"file:{hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"}


def is_earlier(record: dict) -> bool:
    """Was the run made by a version of sslkit that named runs by one hash of the whole package?"""
    return "hash" in record["code"]


def record(method: Method, data: SSLData, config: Config, initial: Network | None = None) -> dict:
    """config.json of a run of `method` on `data`, from the weights `initial` if given, as it reads back. `config` is
    resolved."""
    included = bool(torch.isin(data.labeled, data.unlabeled).any())
    found = {"method": type(method).__name__.lower(), "arguments": method.arguments, "data": {
        "name": data.name, "labels": data.num_labeled, "unlabeled": data.num_unlabeled, "split": data.hash,
        "imbalance": list(data.imbalance), "validation": len(data.validation), "include_labeled": included,
        "unlabeled_asked": data.unlabeled_asked, "side": data.side, "flip": data.flip},
        "train": settings(config), "channels": data.channels, "classes": data.classes}
    if data.name in SOURCES and "files" in data.info:
        found["data"]["image_files"] = True              # perhaps JPEG: not the published pixels
    found["data"] |= {name: value for name in ("crop", "labeled_list") if (value := getattr(data, name)) is not None}
    if data.features is not None:
        found["data"] |= {"encoder": data.features.encoder, "side": data.features.side, "views": data.features.views}
    if initial is not None:
        weights = hashlib.sha256()
        for value in initial.state_dict().values():
            weights.update(value.cpu().numpy().tobytes())
        found["initial"] = weights.hexdigest()[:16]
    return json.loads(json.dumps({**found, "code": code_of(method)}))


def run_path(record: dict, folder: Path | None = None) -> Path:
    """Where the run of this record lies in the store: method, data, labels, seed, and a hash of everything."""
    data, train = record["data"], record["train"]
    name = re.sub(r"[^\w.-]+", "-", Path(data["name"]).name)
    return (folder or store()) / f"{record['method']}-{name}-{data['labels']}-s{train['seed']}-{digest(record)[:8]}"


def difference(old: dict, new: dict, prefix: str = "") -> list[str]:
    """The settings in which two records differ, as `name old -> new`. What an older record lacks is as in LATER."""
    rows = []
    for key in sorted({*old, *new}):
        a, b = (side.get(key, LATER.get(key)) for side in (old, new))
        if isinstance(a, dict) and isinstance(b, dict):
            rows += difference(a, b, f"{prefix}{key}.")
        elif a != b:
            rows.append(f"{prefix}{key} {a} -> {b}")
    return rows


def changed_settings(old: dict, new: dict) -> str:
    """The first settings in which two records differ, in words; "" where only the code does."""
    return "; ".join(difference({**old, "code": 0}, {**new, "code": 0})[:4])


def protocol(record: dict) -> str:
    """What makes the results of two records comparable: everything but seed, rows drawn, code, precision and
    machine. Settings as in LATER are left out, as older records do."""
    def plain(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        kept = {k: v for k, v in value.items() if k not in ("precision", "seed", "code")}
        return {k: plain(v) for k, v in kept.items() if k not in LATER or v != LATER[k]}

    parts = {name: record[name] for name in ("method", "arguments", "train")} | {"initial": record.get("initial")}
    data = {name: value for name, value in record["data"].items() if name not in ("unlabeled", "split", "image_files")}
    return json.dumps(plain(parts | {"data": USUAL | data}), sort_keys=True)
