"""Training in stages, as plain functions around fit(): each stage is a run of its own in the recipe's folder, and can
be resumed.

    OUT/config.json   everything that decides the result
    OUT/result.json   the figures of all stages, only when the recipe is finished

    kd_fixmatch()     OUT/outer/ and OUT/inner/, the two networks' runs; between them OUT/trusted.pt, the trusted subset
    hdl_on(method)    OUT/base/, the method's run; OUT/labels.pt; OUT/hdl/ and OUT/control/, which continue with labels
                      from its embeddings and with its own

A stage that the store has as a finished run is linked into the recipe's folder, not trained again.
"""
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sslkit.data import SSLData
from sslkit.errors import require
from sslkit.files import cannot_write, write_atomically, write_json
from sslkit.labelers import by_class, cluster_agree, confident, hdl, label_quality
from sslkit.methods import FixedLabels, FixMatch, KDFixMatch, Method
from sslkit.networks import Network
from sslkit.processes import by_first, rank, wait
from sslkit.records import Progress, PseudoLabels, Snapshot
from sslkit.training.config import Config, Machine
from sslkit.training.identity import RECIPE_CODE, code_of, record, run_path, settings
from sslkit.training.loop import predict
from sslkit.training.rules import Propagate, Select, outer_method
from sslkit.training.run import Run, fit, has_result

Live = Callable[[str, int, Snapshot], None]            # shown the stage, its steps, where it stands


def kd_fixmatch(data: SSLData, config: Config = Config(), machine: Machine = Machine(), *,
                inner: KDFixMatch | None = None, outer: FixMatch | Run | str | None = None,
                outer_config: Config | None = None, out: str | Path | None = None, live: Live | None = None,
                progress: Progress | None = None, **select: Any) -> Run:
    """KD-FixMatch (Wang et al., arXiv 2309.05826). An outer FixMatch labels the training images, a clustering confirms
    some of its labels (labelers.cluster_agree), a fresh inner network of the same first weights learns from them and
    from its own.

    outer: the outer network's method (default: FixMatch with inner's tau, lambda_u and passes), or a finished FixMatch
    run on the same split (or its folder), which is then not trained again. outer_config: its configuration (default:
    `config`). select: the fields of Select. out: the folder (default: found in the store). live: shown (stage, its
    steps, Snapshot). progress: of the clustering, as in load(). Finished stages are not trained again. Returns the
    recipe's Run. Raises InputError as fit() does, and for an outer run that is unfinished, of another method or of
    another split.
    """
    inner, rule, device = inner or KDFixMatch(), Select(**select), machine.torch_device()
    first, outer_config = outer or outer_method(inner), outer_config or rule.outer_config(config)
    first = Run(first) if isinstance(first, str) else first
    resolved = config.resolve(data, device), outer_config.resolve(data, device)
    whole = opened(kd_fixmatch_record(data, inner, first, *resolved, rule), out)
    if whole.result is not None:
        return whole
    if not isinstance(first, Run):
        first = stage(whole, "outer", first, data, outer_config, machine, live)
    labels = trusted_labels(whole, first, data, machine, rule, progress)
    second = stage(whole, "inner", inner, data.told(labels), config, machine, live)

    of_outer = ("test_acc", "test_acc_median20", "pseudo_label_acc", "mask_rate", "seconds", "steps")
    by_first(partial(write_json, whole.path / "result.json", second.result | {
        "method": "kd-fixmatch", "trusted": labels.info,
        "seconds": round(second.result["seconds"] + first.result["seconds"], 2),
        "outer": {key: first.result[key] for key in of_outer}}))
    return whole


def kd_fixmatch_record(data: SSLData, inner: KDFixMatch, outer: FixMatch | Run, config: Config, outer_config: Config,
                       rule: Select) -> dict:
    """config.json of the recipe; the configurations are resolved. InputError for what cannot be used."""
    rule.check()
    if isinstance(outer, Run):
        require(rule.outer_network is None, "the outer network is already trained: outer_network has no meaning")
        require(outer.result is not None, f"{outer.path} is not finished; the outer network's labels need all of it")
        known = outer.config
        require(known["method"] == "fixmatch", f"{outer.path} is a run of {known['method']}; the outer network is one "
                                               "of fixmatch")
        require(known["data"]["split"] == data.hash, f"{outer.path} was trained on another data set or split "
                f"({known['data']['name']}, {known['data']['labels']} labels, seed {known['train']['seed']})")
        first = {name: known[name] for name in ("method", "arguments", "data", "train", "code")}
    else:
        first = {"method": "fixmatch", "arguments": outer.arguments, "train": settings(outer_config)}
    return record(inner, data, config) | {"method": "kd-fixmatch", "arguments": rule.arguments(inner, first),
                                          "code": code_of(inner, "kd-fixmatch")}


def trusted_labels(whole: Run, outer: Run, data: SSLData, machine: Machine, rule: Select,
                   progress: Progress | None = None) -> PseudoLabels:
    """The trusted subset of a finished outer run: read from the recipe's folder, or found and written there.

    Its info has the counts and, from the hidden labels, for analysis alone: precision and rows a class of the confident
    and of the trusted labels, those of the labelled images left out.
    """
    tau = rule.tau_select

    def find() -> dict:
        p, features = (out.cpu() for out in predict(outer.network().to(machine.torch_device()), data.inputs, data))
        how = {"tau": tau, "clustering": rule.clustering, "matching": rule.matching, "progress": progress}
        found = cluster_agree(p, features, data.known.cpu(), seed=outer.config["train"]["seed"], **how)
        info = found.info | {"confident": quality(data, confident(p, tau)), "trusted": quality(data, found)}
        if not info["confident"]["rows"]:
            print(f"note: no image reaches tau_select {tau:g}: the inner network trains as FixMatch", file=sys.stderr)
        elif not info["trusted"]["rows"]:
            print(f"note: the clustering confirms none of {info['confident']['rows']} confident images: the inner "
                  "network trains as FixMatch", file=sys.stderr)
        return {"label": found.label, "weight": found.weight, "info": info}

    asked = {"outer": outer.result, "split": data.hash, "tau_select": tau, "clustering": rule.clustering,
             "matching": rule.matching}
    return PseudoLabels(**once(whole, "trusted.pt", asked, find), source="cluster_agree")


def hdl_on(method: Method, data: SSLData, config: Config = Config(), machine: Machine = Machine(), *,
           out: str | Path | None = None, live: Live | None = None, progress: Progress | None = None,
           **propagate: Any) -> Run:
    """HDL on a method (Ma et al., arXiv 2404.17173). Train it, label all training images from the embeddings of its EMA
    network (labelers.hdl; the embeddings are the pooled features), continue from that network with those labels
    (methods.FixedLabels) for a third of the steps at 0.3 of the learning rate (ours). Beside it always the control: the
    same continuation with the network's own labels, its most probable class. Both know the true labels of the labelled
    images.

    propagate: the fields of Propagate. out, live, progress: as in kd_fixmatch(). Finished stages are not trained again.
    Returns the recipe's Run. Raises InputError as fit() and hdl() do, and where a class has no labelled image.
    """
    rule, resolved = Propagate(**propagate), config.resolve(data, machine.torch_device())
    later = replace(config, steps=max(1, resolved.steps // 3), lr=0.3 * resolved.lr)
    whole = opened(hdl_record(method, data, resolved, rule), out)
    if whole.result is not None:
        return whole
    runs = {"base": stage(whole, "base", method, data, config, machine, live)}

    def find() -> dict:
        network = runs["base"].network().to(machine.torch_device())
        p, features = (out.cpu() for out in predict(network, data.inputs, data))
        known = data.known.cpu()
        found, own = hdl(features, known, **vars(rule), progress=progress), confident(p, 0.0)
        own = own._replace(label=torch.where(known >= 0, known, own.label))
        info = found.info | {"hdl": quality(data, found), "control": quality(data, own)}
        return {"hdl": found.label, "control": own.label, "rows": found.rows, "info": info}

    labels = once(whole, "labels.pt", {"base": runs["base"].result, "split": data.hash, **vars(rule)}, find)
    every = torch.ones(len(data.images))
    for name in ("control", "hdl"):
        told = data.told(PseudoLabels(labels[name], every, {}, name))
        runs[name] = stage(whole, name, FixedLabels(), told, later, machine, live, runs["base"].network())
    seconds = sum(run.result["seconds"] for run in runs.values())
    before = {name: {key: value for key, value in runs[name].result.items()
                     if key in ("seconds", "steps") or key.startswith("test_acc")} for name in ("base", "control")}
    by_first(partial(write_json, whole.path / "result.json", runs["hdl"].result | {
        "method": whole.config["method"], "steps": resolved.steps, "seconds": round(seconds, 2),
        "labels_found": labels["info"], **before}))
    return whole


def hdl_record(method: Method, data: SSLData, config: Config, rule: Propagate) -> dict:
    """config.json of the recipe; the configuration is resolved. InputError for what cannot be used."""
    rule.check()
    require(rule.k == "auto" or rule.k < len(data.images),
            f"k is {rule.k}, but there are only {len(data.images)} training images")
    known = torch.bincount(data.y[data.labeled].cpu(), minlength=data.num_classes)
    require(bool((known > 0).all()),
            f"class {data.classes[int(known.argmin())]!r} has no labelled image: HDL would never give its label")
    new = record(method, data, config)
    return new | {"method": f"{new['method']}+hdl", "arguments": rule.arguments(method), "code": code_of(method, "hdl")}


def labels_found(run: Run) -> dict:
    """Of a finished run of hdl_on(): `hdl` and `control`, the labels (n,) of all training images; `rows`, the order in
    which HDL gave its labels; and `info`."""
    return torch.load(run.path / "labels.pt", weights_only=True)["found"]


def labels_in_words(result: dict) -> str:
    """What a recipe's labels were worth, in lines; empty for a run without a recipe."""
    def worth(found: dict) -> str:
        right = found["precision"]
        return f"{found['rows']:,}" + ("" if right is None else f" ({right:.1%} right)")

    if found := result.get("trusted"):
        return (f"outer labels of confidence {found['tau_select']:g} and more: {worth(found['confident'])}; of them "
                f"trusted: {worth(found['trusted'])}\n")
    if found := result.get("labels_found"):
        before, control = (result[name]["test_acc"] for name in ("base", "control"))
        return (f"labels by HDL, k {found['k']}: {worth(found['hdl'])}; the network's own: {worth(found['control'])}\n"
                f"test accuracy before {before:.1%}, after its own labels {control:.1%}, after HDL's:\n")
    return ""


def opened(new: dict, out: str | Path | None) -> Run:
    """The recipe's folder for the record `new`, made if it is not there. InputError where it holds anything else."""
    whole = Run(out or run_path(new))
    whole.check(new)
    known = whole.config
    wait()                                           # all have looked at the folder, which now changes
    if known is None:
        try:
            whole.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(whole.path, error) from error
        if rank() == 0:
            write_json(whole.path / "config.json", new)
    elif known.get("code") != new["code"]:
        print(f"note: {whole.path} was begun by other code of sslkit: {known.get('code')}, now "
              f"{new['code']}", file=sys.stderr)
    return whole


def stage(whole: Run, name: str, method: Method, data: SSLData, config: Config, machine: Machine, live: Live | None,
          initial: Network | None = None) -> Run:
    """A stage's run in the recipe's folder: the store's finished run of the same record, linked there, or trained
    there."""
    config, here = config.resolve(data, machine.torch_device()), whole.path / name

    def linked() -> None:
        if not here.exists() and has_result(stored := run_path(record(method, data, config, initial))):
            new = whole.path / f".{name}.{os.getpid()}.new"
            try:
                shutil.copytree(stored, new, copy_function=link, ignore=shutil.ignore_patterns(".*"))
                new.rename(here)
            except OSError as error:
                shutil.rmtree(new, ignore_errors=True)
                raise cannot_write(here, error) from error

    by_first(linked)
    shown = live and partial(live, name, config.steps)
    return fit(method, data, config, machine, out=here, live=shown, initial=initial)


def link(old: str, new: str) -> None:
    """The same file under a second name, a copy where the disk has no links: a finished run's files are only ever
    replaced."""
    try:
        os.link(old, new)
    except OSError:
        shutil.copy2(old, new)


def quality(data: SSLData, labels: PseudoLabels) -> dict:
    """How good the labels are that a labeler gave, by the hidden truth: all, each class's, with a long tail head,
    middle, tail. The labelled images are left out: some labelers know theirs."""
    rows = data.unlabeled[data.known[data.unlabeled] < 0].cpu()
    label, truth = labels.label[rows], data.y.cpu()[rows]
    return label_quality(label, truth, data.num_classes) | by_class(label, truth, data.num_classes, data.groups)


def once(whole: Run, name: str, asked: dict, find: Callable[[], dict]) -> dict:
    """What find() finds, as tensors and plain values: from the recipe's file `name` if the same code found it for the
    same `asked` before, else now, and written."""
    path, asked = whole.path / name, asked | {"code": RECIPE_CODE}

    def saved() -> dict | None:
        with suppress(FileNotFoundError):
            content = torch.load(path, map_location="cpu", weights_only=True)
            return content["found"] if content["asked"] == asked else None

    def save(found: dict, new: Path) -> None:
        with open(new, "wb") as file:
            torch.save({"asked": asked, "found": found}, file)

    def found_or_saved() -> None:
        try:
            if saved() is not None:
                return
        except Exception as error:                    # cut off, or another program's
            print(f"note: {path} cannot be read ({type(error).__name__}), the labels are found again", file=sys.stderr)
        write_atomically(path, partial(save, find()))

    by_first(found_or_saved)
    return saved()
