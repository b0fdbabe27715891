"""Training in stages, as plain functions around fit(): each stage is a run of its own in the recipe's folder, and can be resumed.

    OUT/config.json   everything that decides the result
    OUT/result.json   the figures of all stages, only when finished

    kd_fixmatch()     OUT/outer/ and OUT/inner/, the two networks' runs, between them OUT/trusted.pt, the trusted subset
    hdl_on(method)    OUT/base/, the method's run; OUT/labels.pt; OUT/hdl/ and OUT/control/, which go on with labels from its embeddings and
                      with its own
"""
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from sslkit.data import SSLData
from sslkit.errors import choose, in_unit, require
from sslkit.files import cannot_write, write_atomically, write_json
from sslkit.labelers import (
    CLUSTERINGS,
    MATCHINGS,
    Clustering,
    Matching,
    Metric,
    Mode,
    by_class,
    cluster_agree,
    confident,
    hdl,
    label_quality,
)
from sslkit.methods import HDL, FixMatch, KDFixMatch, Method
from sslkit.networks import Network
from sslkit.records import Progress, PseudoLabels, Snapshot
from sslkit.training.config import Config, Machine
from sslkit.training.identity import code_version, record, run_path
from sslkit.training.loop import predict
from sslkit.training.run import Run, fit

CODE = {"kd-fixmatch": ("labelers/trusted", "labelers/clusters", "training/recipes"),       # files that decide a recipe's result too
        "hdl": ("labelers/hdl", "labelers/neighbors", "training/recipes")}


Live = Callable[[str, int, Snapshot], None]            # the stage, its steps, where it stands


@dataclass(frozen=True)
class Plan:
    """A method, and the recipe around it, if any: whatever is trained has a record and is trained by a call.

    options: of the recipe's function, but `outer_config` is resolved already. initial: see fit(); for a method without a recipe. InputError
    and the rest as fit() and the recipes raise them.
    """
    method: Method
    recipe: Literal["", "kd-fixmatch", "hdl"] = ""
    options: dict[str, Any] = field(default_factory=dict)
    initial: Network | None = None

    def record(self, data: SSLData, config: Config) -> dict:
        """config.json of what would be trained; the configuration is resolved."""
        if self.recipe == "kd-fixmatch":
            given = {"outer": FixMatch(), "outer_config": config} | self.options
            return kd_fixmatch_record(data, config, given.pop("outer"), self.method, given.pop("outer_config"), **given)
        if self.recipe:
            return hdl_record(self.method, data, config, **self.options)
        return record(self.method, data, config, self.initial)

    def __call__(self, data: SSLData, config: Config, machine: Machine = Machine(), *, out: str | Path | None = None,
                 live: Live | None = None, progress: Progress | None = None) -> Run:
        """Train it, go on with it, or find it finished. A run without a recipe is one stage without a name."""
        if self.recipe == "kd-fixmatch":
            return kd_fixmatch(data, config, machine, inner=self.method, **self.options, out=out, live=live, progress=progress)
        if self.recipe:
            return hdl_on(self.method, data, config, machine, **self.options, out=out, live=live, progress=progress)
        steps = config.resolve(data, machine.torch_device()).steps
        return fit(self.method, data, config, machine, out=out, live=live and partial(live, "", steps), initial=self.initial)


def kd_fixmatch(data: SSLData, config: Config = Config(), machine: Machine = Machine(), *, outer: FixMatch | Run | None = None,
                inner: KDFixMatch | None = None, outer_config: Config | None = None,
                tau_select: float = 0.8, clustering: Clustering = "dec", matching: Matching = "centers",
                out: str | Path | None = None, live: Live | None = None,
                progress: Progress | None = None) -> Run:
    """KD-FixMatch (Wang et al., arXiv 2309.05826): an outer FixMatch labels the training images, a clustering confirms some of its labels
    (labelers.cluster_agree), a fresh inner network of the same first weights learns from them and from its own. Returns the recipe's Run.

    outer: the method of the outer network, or a finished FixMatch run on the same split, which is then not trained again. outer_config:
    where it differs from the inner network's `config`. tau_select, clustering, matching: see labelers.cluster_agree.
    out: the folder (default: found in the store). live: shown (stage, its steps, Snapshot). progress: of the clustering, as in load().
    What is finished is not done again. Raises InputError as fit() does, and for an outer run that is unfinished, of another method or of
    another split.
    """
    outer, inner = outer or FixMatch(), inner or KDFixMatch()
    device = machine.torch_device()
    config, outer_config = config.resolve(data, device), (outer_config or config).resolve(data, device)
    new = kd_fixmatch_record(data, config, outer, inner, outer_config, tau_select, clustering, matching)

    whole = opened(new, out)
    if whole.result is not None:
        return whole

    def stage(name: str, method: Method, data: SSLData, config: Config) -> Run:
        return fit(method, data, config, machine, out=whole.path / name, live=live and partial(live, name, config.steps))

    if not isinstance(outer, Run):
        outer = stage("outer", outer, data, outer_config)
    labels = trusted_labels(whole.path / "trusted.pt", outer, data, machine, tau_select, clustering, matching, progress)
    second = stage("inner", inner, data.told(labels), config)

    of_outer = ("test_acc", "test_acc_median20", "pseudo_label_acc", "mask_rate", "seconds", "steps")
    write_json(whole.path / "result.json", second.result | {
        "method": "kd-fixmatch", "seconds": round(second.result["seconds"] + outer.result["seconds"], 2), "trusted": labels.info,
        "outer": {key: outer.result[key] for key in of_outer}})
    return whole


def kd_fixmatch_record(data: SSLData, config: Config, outer: FixMatch | Run, inner: KDFixMatch, outer_config: Config,
                       tau_select: float = 0.8, clustering: str = "dec", matching: str = "centers") -> dict:
    """config.json of the recipe; the configurations are resolved. InputError for what cannot be used."""
    in_unit(tau_select=tau_select)
    choose("clustering", clustering, CLUSTERINGS)
    choose("matching", matching, MATCHINGS)
    if isinstance(outer, Run):
        require(outer.result is not None, f"{outer.path} is not finished; the outer network's labels need all of it")
        known = outer.config
        require(known["method"] == "fixmatch", f"{outer.path} is a run of {known['method']}; the outer network is one of fixmatch")
        require(known["data"]["split"] == data.hash, f"{outer.path} was trained on another data set or split ({known['data']['name']}, "
                f"{known['data']['labels']} labels, seed {known['train']['seed']})")
        first = {name: known[name] for name in ("method", "arguments", "data", "train", "code")}
    else:
        first = {"method": "fixmatch", "arguments": outer.arguments, "train": asdict(outer_config)}
    arguments = {**inner.arguments, "tau_select": tau_select, "clustering": clustering, "matching": matching, "outer": first}
    return record(inner, data, config) | {"method": "kd-fixmatch", "code": code_version(*CODE["kd-fixmatch"]),
                                          "arguments": json.loads(json.dumps(arguments))}


def trusted_labels(path: Path, outer: Run, data: SSLData, machine: Machine, tau: float, clustering: str, matching: str,
                   progress: Progress | None = None) -> PseudoLabels:
    """The trusted subset of a finished outer run, from `path` if it has been found before, else found and written there.

    Its info has the counts and, from the hidden labels, for analysis alone: precision and rows a class of the confident and of the trusted.
    """
    def find() -> dict:
        p, features = (out.cpu() for out in predict(outer.network().to(machine.torch_device()), data.images, data))
        found = cluster_agree(p, features, data.known.cpu(), tau=tau, clustering=clustering, matching=matching,
                              seed=outer.config["train"]["seed"], progress=progress)
        info = found.info | {"confident": quality(data, confident(p, tau)), "trusted": quality(data, found)}
        if not info["confident"]["rows"]:
            print(f"note: no row reaches tau_select {tau:g}: the inner network trains as FixMatch", file=sys.stderr)
        elif not info["trusted"]["rows"]:
            print(f"note: the clustering confirms none of {info['confident']['rows']} confident rows: the inner network trains as FixMatch",
                  file=sys.stderr)
        return {"label": found.label, "weight": found.weight, "info": info}

    asked = {"outer": outer.result, "split": data.hash, "tau_select": tau, "clustering": clustering, "matching": matching}
    return PseudoLabels(**once(path, asked, find), source="cluster_agree")


def hdl_on(method: Method, data: SSLData, config: Config = Config(), machine: Machine = Machine(), *, k: int | Literal["auto"] = "auto",
           mode: Mode = "layer", metric: Metric = "cosine", out: str | Path | None = None,
           live: Live | None = None, progress: Progress | None = None) -> Run:
    """HDL on a method (Ma et al., arXiv 2404.17173): fit it, label all training images from the embeddings of its EMA network (hdl.hdl),
    go on from that network with those labels (methods.HDL) for a third of the steps at 0.3 of the learning rate (ours). Beside it always
    the control: the same continuation with the network's own labels, its most probable class of every image. Returns the recipe's Run.

    k, mode, metric: see hdl.hdl; the embeddings are the pooled features. out, live, progress: as in kd_fixmatch(). What is finished is not
    done again. Raises InputError as fit() and hdl() do, and where a class has no labelled image.
    """
    resolved = config.resolve(data, machine.torch_device())
    later = replace(config, steps=max(1, resolved.steps // 3), lr=0.3 * resolved.lr)
    whole = opened(hdl_record(method, data, resolved, k, mode, metric), out)
    if whole.result is not None:
        return whole

    def stage(name: str, method: Method, data: SSLData, config: Config, initial: Network | None = None) -> Run:
        steps = config.resolve(data, machine.torch_device()).steps
        return fit(method, data, config, machine, out=whole.path / name, live=live and partial(live, name, steps), initial=initial)

    base = stage("base", method, data, config)

    def find() -> dict:
        p, features = (out.cpu() for out in predict(base.network().to(machine.torch_device()), data.images, data))
        ours, own = hdl(features, data.known.cpu(), k=k, mode=mode, metric=metric, progress=progress), confident(p, 0.0)
        info = ours.info | {"hdl": quality(data, ours), "control": quality(data, own)}
        return {"hdl": ours.label, "control": own.label, "rows": ours.rows, "info": info}

    labels = once(whole.path / "labels.pt", {"base": base.result, "split": data.hash, "k": k, "mode": mode, "metric": metric}, find)
    runs, every = {"base": base}, torch.ones(len(data.images))
    for name in ("control", "hdl"):
        told = data.told(PseudoLabels(labels[name], every, {}, name))
        runs[name] = stage(name, HDL(), told, later, base.network())
    seconds = sum(run.result["seconds"] for run in runs.values())
    before = {name: {key: value for key, value in runs[name].result.items() if key in ("seconds", "steps") or key.startswith("test_acc")}
              for name in ("base", "control")}
    write_json(whole.path / "result.json", runs["hdl"].result | {
        "method": whole.config["method"], "steps": resolved.steps, "seconds": round(seconds, 2), "labels_found": labels["info"], **before})
    return whole


def hdl_record(method: Method, data: SSLData, config: Config, k: int | str = "auto", mode: str = "layer", metric: str = "cosine") -> dict:
    """config.json of the recipe; the configuration is resolved. InputError for what cannot be used."""
    choose("mode", mode, get_args(Mode))
    choose("metric", metric, get_args(Metric))
    whole = isinstance(k, int) and not isinstance(k, bool) and k >= 1
    require(k == "auto" or whole, f"k is {k!r}, it must be a whole number from 1 up, or auto")
    require(k == "auto" or k < len(data.images), f"k is {k}, but there are only {len(data.images)} training images")
    known = torch.bincount(data.y[data.labeled].cpu(), minlength=data.num_classes)
    require(bool((known > 0).all()), f"class {data.classes[int(known.argmin())]!r} has no labelled image: HDL would never give its label")
    new = record(method, data, config)
    return new | {"method": f"{new['method']}+hdl", "code": code_version(*CODE["hdl"]),
                  "arguments": {**new["arguments"], "hdl_k": k, "hdl_mode": mode, "hdl_metric": metric}}


def labels_found(run: Run) -> dict:
    """Of a finished run of hdl_on(): `hdl` and `control`, the labels (n,) of all training images; `rows`, the order in which HDL gave its;
    and `info`."""
    return torch.load(run.path / "labels.pt", weights_only=True)["found"]


def opened(new: dict, out: str | Path | None) -> Run:
    """The recipe's folder for the record `new`, made if it is not there. InputError where it holds anything else."""
    whole = Run(out or run_path(new))
    whole.check(new)
    if whole.result is None:
        try:
            whole.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(whole.path, error) from error
        write_json(whole.path / "config.json", new)
    return whole


def quality(data: SSLData, labels: PseudoLabels) -> dict:
    """How good the unlabelled images' labels are, by their hidden ones: all, each class's, and with a long tail head, middle, tail."""
    rows = data.unlabeled.cpu()
    label, truth = labels.label[rows], data.y.cpu()[rows]
    return label_quality(label, truth, data.num_classes) | by_class(label, truth, data.num_classes, data.groups)


def once(path: Path, asked: dict, find: Callable[[], dict]) -> dict:
    """What find() finds, as tensors and plain values: from `path` if it was found for the same `asked` before, else now, and written."""
    if path.exists():
        try:
            saved = torch.load(path, map_location="cpu", weights_only=True)
            if saved["asked"] == asked:
                return saved["found"]
        except Exception as error:                    # cut off, or none of ours
            print(f"note: {path} cannot be read ({type(error).__name__}), the labels are found again", file=sys.stderr)
    found = find()

    def save(new: Path) -> None:
        with open(new, "wb") as file:
            torch.save({"asked": asked, "found": found}, file)

    write_atomically(path, save)
    return found
