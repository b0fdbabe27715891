"""What is trained is said once: RunSpec, its command line, its record, its protocol."""
from dataclasses import replace

import pytest
import torch

from sslkit.errors import InputError
from sslkit.training.config import Config
from sslkit.training.identity import protocol
from sslkit.training.loop import set_up
from sslkit.training.parse import method_names, parse
from sslkit.training.rules import Propagate, Select
from sslkit.training.spec import DataSpec, RunSpec

OTHER_DATA = DataSpec("folder:my photos", 44, -20.0, 3.5, 1000, False, validation=300, size=48, flip=False, root="/data", download=True,
                      skip_bad_images=True)
LISTED = DataSpec("imagefolder:/data/imagenet", unlabeled=90, labeled_list="lists/1percent.txt", size=256, crop=224)
OTHER_TRAIN = Config(seed=7, steps=90, batch_size=8, mu=2, lr=0.025, momentum=0.8, weight_decay=1e-4, ema_decay=0.99, bn_momentum=0.05,
                     network="wrn-10-2", weights="imagenet", strong="usb", eval_every=30, precision="fp32",
                     schedule="steps", warmup=0.05)


def other(value):
    """Another value of a hyper-parameter."""
    return {bool: lambda: not value, float: lambda: value * 0.75 + 0.001, int: lambda: value + 1}[type(value)]()


def specs():
    for method in method_names():
        usual = RunSpec(method)
        changed = {name: other(value) for name, value in usual.make().arguments.items() if isinstance(value, (bool, int, float))}
        recipes = [Select(), Select("runs/one"), Select(None, "small", 0.6, "kmeans", "hungarian")] if method == "kd-fixmatch" else [
            None, Propagate(), Propagate(5, "exact", "euclidean")]
        for recipe in recipes:
            yield RunSpec(method, recipe=recipe)
            yield RunSpec(method, LISTED, recipe=recipe)
            yield RunSpec(method, OTHER_DATA, OTHER_TRAIN, changed, recipe)
            if not usual.make().pixels:
                on_features = replace(recipe, outer_network="hidden") if getattr(recipe, "outer_network", None) else recipe
                yield RunSpec(method, replace(OTHER_DATA, encoder="timm:resnet18", views=9), replace(OTHER_TRAIN, weights="a.pth", network="hidden"), changed, on_features)


@pytest.mark.parametrize("spec", list(specs()), ids=lambda spec: spec.name)
def test_the_command_line_of_a_run_is_parsed_into_that_run(spec):
    words = spec.argv()
    assert words[0] == "train" and all(isinstance(word, str) for word in words)
    assert parse(words[1:])[0] == spec


def test_names_differ_where_runs_do():
    every = list(specs())
    assert len({spec.name for spec in every}) == len(every)
    assert RunSpec("fixmatch", LISTED).name.startswith("fixmatch-imagenet-1percent-s0-")
    assert RunSpec("simmatch", arguments={"alpha": 0.9}) == RunSpec("simmatch"), "a default is not an argument"
    assert "imagenet" not in " ".join(RunSpec("fixmatch").argv()) and RunSpec("fixmatch").argv() == ["train", "fixmatch"]


@pytest.mark.parametrize("method, recipe", [("supervised", None), ("mixmatch", None), ("simmatch", None), ("fixmatch", Propagate(k=5)),
                                            ("kd-fixmatch", None), ("kd-fixmatch", Select(outer_network="wrn-10-1"))])
def test_the_protocol_is_that_of_the_record_and_needs_no_data(method, recipe, digits):
    arguments = {"tau": 0.9} if method == "kd-fixmatch" else {}
    for data in (DataSpec(), DataSpec(crop=8), DataSpec(labels=40, imbalance=-20.0, validation=100, include_labeled=False, flip=True)):
        spec = RunSpec(method, data, Config(steps=40), arguments, recipe)
        new = spec.identity(spec.load())
        assert protocol(new) == spec.protocol() and new["method"] == spec.title and new["code"] == spec.code


def test_the_outer_network_takes_its_settings_from_the_inner_one_everywhere(digits):
    """On the command line, in a batch and in Python alike."""
    words = ["kd-fixmatch", "--tau", "0.9", "--passes", "joint", "--steps", "40"]
    outer = parse(words)[0].identity(digits)["arguments"]["outer"]
    assert outer["arguments"] == {"tau": 0.9, "lambda_u": 1.0, "passes": "joint", "eman": False} and outer["train"]["steps"] == 40


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="a Select belongs to kd-fixmatch"):
        RunSpec("fixmatch", recipe=Select())
    with pytest.raises(InputError, match="--outer-network has no meaning"):
        RunSpec("kd-fixmatch", recipe=Select(outer="runs/a", outer_network="small")).recipe.check()
    for value, what in ((1.5, "mu is 1.5, it must be a whole number"), (True, "mu is True, it must be a whole number")):
        with pytest.raises(InputError, match=what):
            Config(mu=value).check()
    with pytest.raises(InputError, match="steps is 100.5, it must be a whole number"):
        Config(steps=100.5).check()


def test_an_unknown_kind_of_view_is_refused(digits):
    from sslkit.methods import FixMatch

    method, config = FixMatch(), Config(steps=4).resolve(digits, torch.device("cpu"))
    method.views = ("weak", "Strong")
    with pytest.raises(InputError, match="unknown kind of view 'Strong': did you mean 'strong'"):
        set_up(method, digits, config)


def test_imagenets_weights_get_images_as_imagenets_are(digits, monkeypatch, tmp_path):
    """The data's own mean and std would be another input than the weights were trained on."""
    import torchvision

    from sslkit.data import augment
    from sslkit.methods import Supervised
    from sslkit.networks import backbones
    from sslkit.training.loop import predict
    from sslkit.training.run import fit

    plain = torchvision.models.get_model
    monkeypatch.setattr(torchvision.models, "get_model", lambda name, weights=None: plain("resnet18", num_classes=1))    # smaller
    monkeypatch.setitem(backbones.TORCHVISION, "resnet50", ("fc", 512, {}))
    config = Config(steps=1, batch_size=16, lr=1e-3, network="resnet50", weights="imagenet", precision="fp32")
    small = replace(digits, test_images=digits.test_images[:8], test_y=digits.test_y[:8])
    run = fit(Supervised(), small, config, out=tmp_path / "run")
    mean, std = (0.449,), (0.226,)
    for network in (run.network(), run.restore(small)[1].student):
        assert network.pixels == (pytest.approx(mean, abs=1e-3), pytest.approx(std, abs=1e-3))
    network = run.network()
    expected = network(augment.normalize(digits.images[:4], *network.pixels)).logits.softmax(1)
    assert expected.isfinite().all()
    assert torch.allclose(predict(network, digits.images[:4], digits)[0], expected, atol=1e-6)
    feed = set_up(Supervised(), digits, config.resolve(digits, torch.device("cpu")))[2]
    assert feed.data.mean == network.pixels[0] and digits.mean != feed.data.mean
