"""First weights from a file: what public checkpoints look like, what is refused, and what a run's record says of them."""
import argparse
import os
import shutil
from dataclasses import replace

import pytest
import torch
import torchvision

from sslkit.data import augment
from sslkit.errors import InputError
from sslkit.methods import FixMatch, KDFixMatch, Supervised
from sslkit.networks import backbones, encoder
from sslkit.networks.checkpoint import layers
from sslkit.networks.network import build
from sslkit.training.config import Config, Machine
from sslkit.training.identity import protocol
from sslkit.training.loop import set_up
from sslkit.training.rules import Select
from sslkit.training.run import fit
from sslkit.training.spec import DataSpec, RunSpec

CPU = Machine(device="cpu", threads=1)
SHORT = Config(steps=4, eval_every=2, batch_size=8, mu=1, network="wrn-10-1", precision="fp32")


@pytest.fixture(scope="module")
def resnet50():
    """torchvision's network with a classifier, of other weights and running statistics than a fresh one has."""
    torch.manual_seed(5)
    network = torchvision.models.resnet50()
    for value in network.state_dict().values():
        if value.is_floating_point():
            value.add_(0.01 * torch.randn_like(value))
    return network.state_dict()


def renamed(state, prefix, without=("fc.",)):
    return {prefix + name: value for name, value in state.items() if not name.startswith(without)}


def moco(state):
    """As MoCo's code writes them: the encoder, its slower copy, projections in place of the classifier, a queue, the optimiser."""
    mlp = {"fc.0.weight": torch.zeros(9, 9), "fc.0.bias": torch.zeros(9), "fc.2.weight": torch.zeros(4, 9)}
    slow = {name: value + 1 for name, value in state.items()}
    both = renamed(state, "module.encoder_q.") | renamed(mlp, "module.encoder_q.", ()) | renamed(slow, "module.encoder_k.")
    optimizer = {"state": {0: {"momentum_buffer": torch.zeros(64, 3, 7, 7)}}, "param_groups": [{"lr": 0.03, "params": [0]}]}
    return {"epoch": 800, "arch": "resnet50", "state_dict": both | {"module.queue": torch.zeros(4, 9)}, "optimizer": optimizer}


def dino(state):
    slow, head = {name: value - 1 for name, value in state.items()}, {"head.mlp.0.weight": torch.zeros(4, 4)}
    return {"student": renamed(slow, "module.backbone.") | renamed(head, "module.", ()), "epoch": 100, "args": argparse.Namespace(arch="resnet50"),
            "teacher": renamed(state, "backbone.") | head}


FORMS = {
    "torchvision": dict,
    "moco": moco,
    "moco-eman, a file of its first days": lambda state: {"epoch": 1, "state_dict": renamed(state, "module.encoder_q.") | renamed(state, "module.encoder_k.")},
    "simclr": lambda state: {"model": renamed(state, "module.encoder.") | {"module.projector.0.weight": torch.zeros(4, 4)}},
    "byol": lambda state: {"state_dict": renamed(state, "module.online_net.backbone.") | renamed({k: v + 1 for k, v in state.items()}, "module.target_net.backbone.")},
    "dino": dino,
    "trunk": lambda state: renamed(state, "visual.trunk_"),
    "nested": lambda state: {"checkpoint": {"model": {"state_dict": renamed(state, "net.")}}},
    "without counters": lambda state: {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}}


@pytest.mark.parametrize("form", FORMS)
def test_public_checkpoints_of_a_resnet50(form, resnet50, tmp_path):
    torch.save(FORMS[form](resnet50), tmp_path / "checkpoint.pth.tar", _use_new_zipfile_serialization="first days" not in form)
    network, fresh = build("resnet50", 7, seed=3, weights=str(tmp_path / "checkpoint.pth.tar")), build("resnet50", 7, seed=3)
    mine = network.backbone.net.state_dict()
    assert len(mine) == 265 and all(torch.equal(value, resnet50[name]) for name, value in mine.items())
    assert torch.equal(network.classifier.weight, fresh.classifier.weight), "the classifier begins as from random weights"
    assert network.pixels == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) and fresh.pixels is None


def test_half_precision_and_safetensors(resnet50, tmp_path):
    import safetensors.torch

    small = {name: value.half() if value.is_floating_point() else value for name, value in resnet50.items()}
    torch.save(small, tmp_path / "half.pt")
    safetensors.torch.save_file(resnet50, tmp_path / "w.safetensors")
    for file, expected in (("half.pt", small), ("w.safetensors", resnet50)):
        found = build("resnet50", 7, weights=str(tmp_path / file)).backbone.net.conv1.weight
        assert found.dtype == torch.float32 and torch.equal(found, expected["conv1.weight"].float())


@pytest.mark.parametrize("network, channels, side", [("small", 1, 8), ("wrn-10-1", 1, 8), ("efficientnet-b0", 3, 32)])
def test_a_runs_own_checkpoint_begins_another_run(network, channels, side, tmp_path):
    """It has the student and the EMA network, each with its classifier and heads: the EMA network counts."""
    torch.manual_seed(0)
    old, slow = build(network, 10, channels, seed=1), build(network, 10, channels, seed=2)
    slow.heads["emb"] = torch.nn.Linear(slow.feat_dim, 3)
    torch.save({"format": 1, "step": 7, "student": old.state_dict(), "teacher": slow.state_dict(), "method": {"bank": torch.zeros(3, 3)}}, tmp_path / "checkpoint.pt")
    new, x = build(network, 4, channels, weights=str(tmp_path / "checkpoint.pt")), torch.randn(2, channels, side, side)
    assert torch.equal(new.eval()(x).feat, slow.eval()(x).feat) and (new.pixels is None) == (network != "efficientnet-b0")


def test_a_trained_resnet50_is_an_encoder(tmp_path):
    """So `sslkit probe` evaluates what a run has learnt, as SimMatch's Table 3 does: its EMA network, with running statistics."""
    images = torch.randint(0, 256, (8, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    student, teacher = build("resnet50", 10, seed=1), build("resnet50", 10, seed=2)
    for network in (student, teacher):
        network.norm_mode("update", 1.0)
        network(augment.normalize(images, (0.5,) * 3, (0.2,) * 3))
    torch.save({"format": 1, "step": 7, "student": student.state_dict(), "teacher": teacher.state_dict(), "method": {}}, tmp_path / "checkpoint.pt")
    made = encoder("torchvision:resnet50", weights=tmp_path / "checkpoint.pt", size=64)
    with torch.no_grad():
        expected = teacher.eval()(augment.normalize(images, made.mean, made.std)).feat
    assert 0.01 < expected.std() < 100 and (made(images) - expected).abs().max() < 1e-3 * expected.std()


def test_torchvisions_efficientnet(tmp_path):
    torch.manual_seed(3)
    state = torchvision.models.efficientnet_b0().state_dict()
    torch.save(state, tmp_path / "w.pth")
    network = build("efficientnet-b0", 5, 1, weights=str(tmp_path / "w.pth"))
    assert all(torch.equal(value, state[name]) for name, value in network.backbone.net.state_dict().items())
    assert network.pixels == ((pytest.approx(0.449, abs=1e-3),), (pytest.approx(0.226, abs=1e-3),)), "grey"


def test_the_layers_of_a_name():
    assert layers(["layer1.0.conv1.weight", "fc.2.bias", "bn1.weight"]) == {"layer1.0", "fc.2"}


def lacking(state, name):
    return {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize("content, parts", [
    (lambda state: torchvision.models.resnet18().state_dict(),
     ["is not of the network resnet50: it lacks ", " of 265 tensors, as layer1.0.conv3.weight", "layer1.0.conv1.weight (64, 64, 3, 3) and not (64, 64, 1, 1)",
      "it has 122 tensors, as conv1.weight"]),
    (lambda state: torchvision.models.resnet101().state_dict(), ["is not of the network resnet50: it has more layers, as layer3.10, layer3.11, layer3.12;"]),
    (lambda state: moco(lacking(state, "conv1.weight")), ["it lacks 1 of 265 tensors, as conv1.weight; it has "]),
    (lambda state: {"f.0.weight": state["conv1.weight"]} | {f"f.4.{k}.bn1.weight": torch.zeros(64) for k in range(3)},
     ["it lacks 265 of 265 tensors, as conv1.weight, bn1.weight, bn1.bias; it has 4 tensors, as f.0.weight, f.4.0.bn1.weight, f.4.1.bn1.weight"]),
    (lambda state: {"epoch": 3}, ["holds no tensors by name; torch.save"]),
    (lambda state: torch.zeros(3), ["holds no tensors by name"]),
    (lambda state: {"model": torch.nn.Linear(1, 1)}, ["cannot be read as weights (UnpicklingError); a file of tensors is needed"])])
def test_what_is_not_of_the_network_is_refused(content, parts, resnet50, tmp_path):
    torch.save(content(resnet50), tmp_path / "w.pt")
    with pytest.raises(InputError) as caught:
        build("resnet50", 7, weights=str(tmp_path / "w.pt"))
    assert str(caught.value).startswith(str(tmp_path / "w.pt")) and "\n" not in str(caught.value)
    assert all(part in str(caught.value) for part in parts), caught.value


@pytest.fixture
def wrn(tmp_path):
    """A file of the weights of a wide ResNet."""
    torch.save({"model": build("wrn-10-1", 10, 1, seed=9).backbone.state_dict()}, tmp_path / "wrn.pt")
    return tmp_path / "wrn.pt"


def test_the_command_line_takes_a_file_and_refuses_others(sslkit, refused, wrn, tmp_path, monkeypatch):
    words = ["train", "fixmatch", "--network", "wrn-10-1", "--steps", 2, "--batch-size", 4, "--mu", 1]
    (tmp_path / "cut.pt").write_bytes(wrn.read_bytes()[:-3000])
    (tmp_path / "text.pt").write_text("hello")
    for name in ("cut.pt", "text.pt"):
        refused([*words, "--weights", tmp_path / name], f"{tmp_path / name} cannot be read as weights")
    refused(["train", "fixmatch", "--weights", wrn], "is not of the network small: it lacks ", "it has ", "as stem.weight")
    refused([*words, "--weights", wrn, "--network", "wrn-16-1"], "is not of the network wrn-16-1")
    code, _, err = sslkit(*words, "--weights", wrn, "--out", tmp_path / "run")
    assert code == 0, err
    monkeypatch.setattr("sslkit.training.spec.load", lambda *_, **__: pytest.fail("the data were read"))
    refused([*words, "--weights", "a" * 300], f"the weights '{'a' * 300}' cannot be read: File name too long")
    refused([*words, "--weights", tmp_path], f"there is no file {tmp_path} of weights")
    os.mkfifo(tmp_path / "pipe")
    refused([*words, "--weights", tmp_path / "pipe"], f"there is no file {tmp_path / 'pipe'} of weights")
    refused([*words, "--weights", tmp_path / "no.pt"], f"there is no file {tmp_path / 'no.pt'} of weights, and by name only none and imagenet")


def test_a_run_begins_with_the_weights_of_the_file_and_continues_wherever_it_lies(digits, wrn, tmp_path):
    config = replace(SHORT, weights=str(wrn))
    nets = set_up(FixMatch(), digits, config.resolve(digits, torch.device("cpu")))[0]
    first = build("wrn-10-1", 10, 1, seed=9).backbone.stem.weight
    assert torch.equal(nets.student.backbone.stem.weight, first) and torch.equal(nets.teacher.backbone.stem.weight, first)
    assert nets.student.pixels is None, "the images of this network are the data's"

    class Stop(Exception):
        pass

    def stop(snap):
        if snap.step == 2:
            raise Stop

    def begin(config, live=None):
        return fit(FixMatch(), digits, config, CPU, out=tmp_path / "run", live=live)

    with pytest.raises(Stop):
        begin(config, stop)
    moved = tmp_path / "elsewhere" / "other name.pth"
    moved.parent.mkdir()
    shutil.move(wrn, moved)
    run = begin(replace(config, weights=str(moved)))
    assert run.result["steps"] == 4 and run.config["train"]["weights"].startswith("file:") and len(run.config["train"]["weights"]) == 21
    assert run.network().pixels is None and run.restore(digits)[1].student.pixels is None, "they need no file"
    torch.save(build("wrn-10-1", 10, 1, seed=8).backbone.state_dict(), moved)
    with pytest.raises(InputError, match=r"holds another configuration \(train.weights file:\w{16} -> file:\w{16}\)"):
        begin(replace(config, weights=str(moved)))
    with pytest.raises(InputError, match=r"train.weights file:\w{16} -> none"):
        begin(replace(config, weights="none"))


def test_the_protocol_has_the_digest(digits, wrn):
    spec = RunSpec("kd-fixmatch", DataSpec(), replace(SHORT, weights=str(wrn)))
    record = spec.identity(digits)
    assert protocol(record) == spec.protocol() and str(wrn) not in spec.protocol() and spec.protocol().count('"file:') == 2
    assert RunSpec("fixmatch", train=spec.train).argv()[-1] != "" and f"--weights={wrn}" in spec.argv()


def test_images_of_imagenet_for_torchvisions_networks_from_a_file(digits, tmp_path, monkeypatch):
    """A smaller ResNet stands in for the large one."""
    plain = torchvision.models.get_model
    monkeypatch.setattr(torchvision.models, "get_model", lambda name, weights=None: plain("resnet18", num_classes=1))
    monkeypatch.setitem(backbones.TORCHVISION, "resnet50", ("fc", 512, {}))
    torch.save(moco(torchvision.models.resnet18().state_dict()), tmp_path / "moco.pth.tar")
    small = replace(digits, test_images=digits.test_images[:8], test_y=digits.test_y[:8])
    config = Config(steps=1, batch_size=16, lr=1e-3, network="resnet50", weights=str(tmp_path / "moco.pth.tar"), precision="fp32")
    run = fit(Supervised(), small, config, CPU, out=tmp_path / "run")
    for network in (run.network(), run.restore(small)[1].student):
        assert network.pixels == ((pytest.approx(0.449, abs=1e-3),), (pytest.approx(0.226, abs=1e-3),))
    feed = set_up(Supervised(), digits, config.resolve(digits, torch.device("cpu")))[2]
    assert feed.data.mean == run.network().pixels[0]
    batch = feed(0)
    assert batch.x.min() >= augment.normalize(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), *run.network().pixels).min() - 1e-6


def test_a_file_is_not_of_two_networks(digits, wrn, tmp_path):
    config = replace(SHORT, weights=str(wrn))
    with pytest.raises(InputError, match="a file of weights is of one network, the outer one is another: leave out --outer-network"):
        RunSpec("kd-fixmatch", DataSpec(), config, recipe=Select(outer_network="small")).identity(digits)
    for recipe in (Select(), Select(outer_network="wrn-10-1")):
        outer = RunSpec("kd-fixmatch", DataSpec(), config, recipe=recipe).identity(digits)["arguments"]["outer"]
        assert outer["train"]["weights"].startswith("file:")
    on_features = Config(weights="encoder.pt", network="linear")
    assert Select(outer_network="hidden").outer_config(on_features).weights == "encoder.pt"
    assert KDFixMatch().arguments
