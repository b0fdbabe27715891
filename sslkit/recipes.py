"""Training in stages, as plain functions around fit(): each stage is a run of its own in the recipe's folder, and can be resumed.

    OUT/outer/       the outer network's run                 OUT/config.json   everything that decides the result
    OUT/trusted.pt   the trusted subset                      OUT/result.json   the figures of all stages, only when finished
    OUT/inner/       the inner network's run
"""
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from sslkit.data import SSLData
from sslkit.disk import cannot_write, write_atomically, write_json
from sslkit.errors import choose, require
from sslkit.folder import Progress
from sslkit.labelers import CLUSTERINGS, MATCHINGS, Clustering, Matching, cluster_agree, confident
from sslkit.methods import FixMatch, KDFixMatch
from sslkit.methods.base import Method, in_unit
from sslkit.metrics import label_quality
from sslkit.records import PseudoLabels, Snapshot
from sslkit.runs import Run, code_version, fit, record, run_path
from sslkit.train import Config, Machine, predict


def kd_fixmatch(data: SSLData, config: Config = Config(), machine: Machine = Machine(), *, outer: FixMatch | Run | None = None,
                inner: KDFixMatch | None = None, outer_config: Config | None = None,
                tau_select: float = 0.8, clustering: Clustering = "dec", matching: Matching = "centers",
                out: str | Path | None = None, live: Callable[[str, int, Snapshot], None] | None = None,
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

    whole = Run(out or run_path(new))
    whole.check(new)
    if whole.result is not None:
        return whole
    try:
        whole.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(whole.path, error) from error
    write_json(whole.path / "config.json", new)

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


def kd_fixmatch_record(data: SSLData, config: Config, outer: FixMatch | Run, inner: KDFixMatch, outer_config: Config, tau_select: float,
                       clustering: str, matching: str) -> dict:
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
    return record(inner, data, config) | {"method": "kd-fixmatch", "code": code_version("labelers", "recipes"),
                                          "arguments": json.loads(json.dumps(arguments))}


def trusted_labels(path: Path, outer: Run, data: SSLData, machine: Machine, tau: float, clustering: str, matching: str,
                   progress: Progress | None = None) -> PseudoLabels:
    """The trusted subset of a finished outer run, from `path` if it has been found before, else found and written there.

    Its info has the counts and, from the hidden labels, for analysis alone: precision and rows a class of the confident and of the trusted.
    """
    asked = {"outer": outer.result, "split": data.hash, "tau_select": tau, "clustering": clustering, "matching": matching}
    if path.exists():
        try:
            saved = torch.load(path, map_location="cpu", weights_only=True)
            if saved["asked"] == asked:
                return PseudoLabels(saved["label"], saved["weight"], saved["info"], "cluster_agree")
        except Exception as error:                    # cut off, or none of ours: found again below
            print(f"note: {path} cannot be read ({type(error).__name__}), the trusted subset is found again", file=sys.stderr)
    p, features = (out.cpu() for out in predict(outer.network().to(machine.torch_device()), data.images, data))
    truth = data.y.cpu()
    found = cluster_agree(p, features, data.known.cpu(), tau=tau, clustering=clustering, matching=matching,
                          seed=outer.config["train"]["seed"], progress=progress)
    rows = data.unlabeled.cpu()
    info = found.info | {name: label_quality(label[rows], truth[rows], data.num_classes)
                         for name, label in (("confident", confident(p, tau).label), ("trusted", found.label))}
    if not info["confident"]["rows"]:
        print(f"note: no row reaches tau_select {tau:g}: the inner network trains as FixMatch", file=sys.stderr)
    elif not info["trusted"]["rows"]:
        print(f"note: the clustering confirms none of {info['confident']['rows']} confident rows: the inner network trains as FixMatch",
              file=sys.stderr)

    def save(new: Path) -> None:
        with open(new, "wb") as file:
            torch.save({"asked": asked, "label": found.label, "weight": found.weight, "info": info}, file)

    write_atomically(path, save)
    return found._replace(info=info)
