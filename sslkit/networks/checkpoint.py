"""First weights from a file: a checkpoint of a self-supervised method, torchvision's state dict, a run's own."""
import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from sslkit.errors import InputError, require


def weights_file(weights: str) -> Path | None:
    """The file that `weights` names, None if it is none or imagenet. InputError where the file is not there, or
    cannot be read."""
    if weights in ("none", "imagenet"):
        return None
    path = Path(weights)
    try:
        if there := path.is_file():
            path.open("rb").close()
    except OSError as error:
        raise InputError(f"the weights {weights!r} cannot be read: {error.strerror}") from error
    require(there, f"there is no file {weights} of weights, and by name only none and imagenet")
    return path


def read_file(path: Path) -> object:
    """What torch.save wrote, read with weights_only, or the tensors in a .safetensors file. InputError if neither."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file
            return load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]):       # settings, in checkpoints of DINO and MAE
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:          # a damaged zip or pickle, or one with code in it, can raise almost anything
        raise InputError(f"{path} cannot be read as weights ({type(error).__name__}); a file of tensors is needed, "
                         "as torch.save(network.state_dict(), FILE) writes") from error


def load_backbone(backbone: nn.Module, path: Path, name: str) -> None:
    """Copy all weights and running statistics of `backbone`, that of the network `name`, from a file.

    The file has tensors by name, at its top or under any key, as `state_dict`; named as torchvision names them, those
    of small and wrn as sslkit does, after any prefix: module.encoder_q., backbone. ... If several fit, those under the
    key `teacher` count, else the first. All else is left out: classifier, projection, optimiser. InputError for a file
    that cannot be read, or lacks a tensor, or has one of another shape, or more layers.
    """
    wanted = getattr(backbone, "net", backbone).state_dict()                # a Network's: BatchNorm counts no batches

    def fitting(table: dict[str, Tensor]) -> int:
        right = sum(key in table and table[key].shape == value.shape for key, value in wanted.items())
        return right if 4 * right > len(wanted) else 0            # a few are in any network

    tables = [inside for table in tables_in(read_file(path)) for inside in without_prefix(table, wanted)]
    require(bool(tables), f"{path} holds no tensors by name; torch.save(network.state_dict(), FILE) writes them")
    found = max(tables, key=fitting)
    lacking = [key for key in wanted if key not in found]
    other = [key for key in wanted if key in found and found[key].shape != wanted[key].shape]
    why = [f"it lacks {len(lacking)} of {len(wanted)} tensors, as {', '.join(lacking[:3])}"] if lacking else []
    if other:
        shapes = " and not ".join(str(tuple(values[other[0]].shape)) for values in (found, wanted))
        why.append(f"{len(other)} have another shape, as {other[0]} {shapes}")
    if more := more_layers(found, wanted):
        why.append(f"it has more layers, as {', '.join(more[:3])}")
    require(not why, f"{path} is not of the network {name}: {'; '.join(why)}; it has {len(found)} tensors, as "
                     f"{', '.join(list(found)[:3])}")
    with torch.no_grad():
        for key, value in wanted.items():
            value.copy_(found[key])


def tables_in(content: object) -> Iterator[dict[str, Tensor]]:
    """Every dict of tensors by name within `content`; of those beside each other that of the key `teacher` first."""
    if isinstance(content, dict):
        table = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
        yield from [table] if table else []
        for key in sorted(content, key=lambda key: key != "teacher"):
            yield from tables_in(content[key])


def without_prefix(table: dict[str, Tensor], wanted: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """All of `table`; then those under each prefix that some name in `wanted` has there, without it."""
    for prefix in dict.fromkeys(["", *(key.removesuffix(end) for key in table for end in wanted if key.endswith(end))]):
        yield {key.removeprefix(prefix): value for key, value in table.items() if key.startswith(prefix)}


def more_layers(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """The numbered layers of the tensors `names` that stand beside layers of `known` and are not among them."""
    mine = layers(known)
    lists = {layer.rpartition(".")[0] for layer in mine}
    return sorted(layer for layer in layers(names) - mine if layer.rpartition(".")[0] in lists)


def layers(names: Iterable[str]) -> set[str]:
    """The numbered layers of the tensors `names`: layer1.0 of layer1.0.conv1.weight."""
    parts = [name.split(".") for name in names]
    return {".".join(part[:k + 1]) for part in parts for k, word in enumerate(part) if word.isdecimal()}
