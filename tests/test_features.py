"""Features of pictures as views: computed once, found by pixels, the same after a kill; every method trains on them."""
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from sslkit import Config, Machine, fit, load, split
from sslkit.data import Encoder, features
from sslkit.data.features import POOLS
from sslkit.errors import InputError
from sslkit.methods import BY_NAME
from sslkit.training import RunSpec, evaluate, hdl_on, kd_fixmatch, predict
from sslkit.training.feed import Feed
from sslkit.training.loop import set_up
from sslkit.training.rules import Propagate, Select
from sslkit.training.spec import DataSpec

CPU = Machine(device="cpu")


class Counted(nn.Module):
    """Fixed random features of pictures of 8 pixels, and how many it has made."""
    def __init__(self, dim=12):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3 * 64, dim, generator=torch.Generator().manual_seed(0)), requires_grad=False)
        self.seen = 0

    def forward(self, x):
        self.seen += len(x)
        return (x.flatten(1) @ self.weight).relu()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SSLKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


@pytest.fixture(scope="session")
def small():
    """Some digits, not split."""
    data = load("digits")
    return replace(data, images=data.images[:150], y=data.y[:150], test_images=data.test_images[:50], test_y=data.test_y[:50],
                   unlabeled=torch.arange(150), digest="some digits")


def encoder(**settings):
    return Encoder("counted", Counted(), **{"side": 8, **settings})


@pytest.mark.parametrize("views, weak, strong", [(0, 0, 0), (1, 0, 1), (6, 2, 4), (7, 2, 5)])
def test_the_features_are_the_encoders_of_the_plain_image_and_of_views(small, cache, views, weak, strong):
    made = encoder()
    found = features(small, made, views=views)
    assert torch.equal(found.inputs, made(small.images).half()) and torch.equal(found.test_inputs, made(small.test_images).half())
    assert {kind: table.shape[1] for kind, table in found.features.tables.items()} == {
        kind: n for kind, n in (("plain", 1), ("weak", weak), ("strong", strong)) if n}
    assert found.features.views == views and found.channels == 12 and found.digest != small.digest
    for kind, table in found.features.tables.items():
        if kind != "plain":
            of_views = table[found.features.rows[kind]].float()
            assert not torch.equal(of_views[:, 0], found.inputs.float()) and of_views.isfinite().all()
            assert table.shape[1] < 2 or not torch.equal(of_views[:, 0], of_views[:, 1])


def test_weak_views_are_closer_to_the_image_than_strong_ones(small, cache):
    found = features(small, encoder()).features
    near = {kind: torch.cosine_similarity(found.ready(found.plain())[:, None], torch.stack([
        found.ready(found.tables[kind][found.rows[kind], v]) for v in range(2)], 1), dim=2).mean() for kind in ("weak", "strong")}
    assert 0.1 < near["strong"] < near["weak"] < 0.99


def test_a_view_is_drawn_from_its_pool_and_made_ready(small, cache):
    found = features(small, encoder()).features
    rows = torch.arange(150)
    for kind, pool in POOLS.items():
        drawn = [found.view(kind, rows, torch.Generator().manual_seed(seed)) for seed in range(40)]
        options = torch.cat([found.tables[name][found.rows[name]] for name in pool], 1)
        ready = torch.stack([found.ready(options[:, v]) for v in range(options.shape[1])], 1)           # (n, views, D)
        which = (torch.stack(drawn)[:, :, None] - ready).abs().amax(3).argmin(2)
        assert (torch.stack(drawn) == ready[rows, which]).all(), "each is one of the stored views of its own row"
        shares = torch.bincount(which.flatten(), minlength=options.shape[1]) / which.numel()
        assert (shares - 1 / options.shape[1]).abs().max() < 0.07, "all of them about equally often: a weak view may equal the plain one"
    assert torch.allclose(drawn[0].norm(dim=1), torch.full((150,), 36.0))
    with pytest.raises(InputError, match="unknown kind of view of features 'medium'"):
        found.view("medium", rows, torch.Generator())
    with pytest.raises(InputError, match="no strong views among these features: compute some, with --views 6"):
        features(small, encoder(), views=0).features.view("strong", rows, torch.Generator())


def test_what_was_computed_is_found_by_its_pixels(small, cache):
    made = encoder()
    first, seen = features(small, made), made.network.seen
    assert seen == 1 + 150 * 7 + 50
    again = features(small, made)
    assert made.network.seen == seen + 1 and again.digest == first.digest, "one black image tells how many numbers it gives"
    fewer = replace(small, images=small.images.flip(0)[:100], y=small.y.flip(0)[:100], unlabeled=torch.arange(100), digest="others")
    moved = features(fewer, made)
    assert made.network.seen == seen + 2 and torch.equal(moved.inputs, first.inputs.flip(0)[:100])
    more = features(small, made, views=9)
    assert made.network.seen == seen + 3 + 150 * 9 and torch.equal(more.inputs, first.inputs)
    features(small, encoder(mean=(0.1,) * 3), views=0)
    assert len(list(cache.glob("counted-*"))) == 2, "an encoder with other settings has tables of its own"


def test_equal_pictures_are_computed_once(small, cache):
    made = encoder()
    twice = replace(small, images=torch.cat([small.images, small.images]), y=torch.cat([small.y, small.y]), unlabeled=torch.arange(300), digest="twice")
    found = features(twice, made)
    assert made.network.seen == 1 + 150 * 7 + 50 and torch.equal(found.inputs[:150], found.inputs[150:])


class Dies(Counted):
    def forward(self, x):
        if self.seen > 500:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x)


def child(data, network, place, answer):
    """Embed in a process of its own."""
    os.environ["SSLKIT_CACHE"] = str(place)
    found = features(data, Encoder("counted", network, 8))
    answer.put((found.digest, network.seen))


def test_a_killed_process_goes_on_where_it_was(server, small, tmp_path, monkeypatch):
    monkeypatch.setenv("SSLKIT_CACHE", str(tmp_path / "undisturbed"))
    whole = features(small, encoder())
    monkeypatch.setenv("SSLKIT_CACHE", str(tmp_path / "killed"))
    process = server.Process(target=child, args=(small, Dies(), tmp_path / "killed", None))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    (values,) = (tmp_path / "killed" / "features").glob("*/strong*.values")
    with open(values, "ab") as file:
        file.write(b"half a row")
    made = encoder()
    after = features(small, made)
    assert 100 < made.network.seen < 900, "not all of it again"
    assert after.digest == whole.digest and all(torch.equal(after.features.tables[kind], whole.features.tables[kind]) for kind in after.features.tables)


def test_two_processes_at_once_do_the_work_once(server, small, tmp_path):
    answer = server.Queue()
    both = [server.Process(target=child, args=(small, Counted(), tmp_path, answer)) for _ in range(2)]
    for process in both:
        process.start()
    answers = [answer.get(timeout=60) for _ in both]
    assert answers[0][0] == answers[1][0] and sorted(seen for _, seen in answers) == [1, 1101]


def test_split_keeps_each_rows_features(small, cache):
    data = features(small, encoder())
    expected = encoder()
    for how in ({"validation": 40}, {"imbalance": 4.0, "labels": 20}):
        part = split(data, how.pop("labels", 20), 1, **how)
        assert torch.equal(part.inputs, expected(part.images).half()) and torch.equal(part.test_inputs, expected(part.test_images).half())
        assert len(part.inputs) < 150
    with pytest.raises(InputError, match="features are computed before split"):
        features(split(small, 20), encoder())
    with pytest.raises(InputError, match="features are computed before split"):
        features(data, encoder())


@pytest.mark.parametrize("views", [-1, 1.5, True, 2000])
def test_a_number_of_views_that_cannot_be(small, cache, views):
    with pytest.raises(InputError, match="it must be a whole number from 0 to 1000"):
        features(small, encoder(), views=views)


@pytest.mark.parametrize("network, what", [
    (lambda x: x, r"gives no table of features, a row for each picture, but \(1, 3, 8, 8\)"), (lambda x: None, "but NoneType"),
    (lambda x: x.flatten(1)[:0], r"but \(0, 192\)"), (lambda x: x.flatten(1) * float("nan"), "numbers that are not finite"),
    (lambda x: x.flatten(1) * 1e6, "too large for float16")])
def test_an_encoder_that_gives_no_features(small, cache, network, what):
    with pytest.raises(InputError, match=what):
        features(small, Encoder("bad", network, 8))


def test_a_cache_that_cannot_be_written_is_a_sentence(small, cache, monkeypatch):
    cache.mkdir(parents=True)
    (cache / f"keys-{small.digest[:32]}.npy").mkdir()
    with pytest.raises(InputError, match="could not write"):
        features(small, encoder())


@pytest.fixture(scope="module")
def featured(tmp_path_factory):
    """Digits as features, 20 labels: those of an untrained line."""
    before = os.environ["SSLKIT_CACHE"]
    os.environ["SSLKIT_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    try:
        return split(features(load("digits"), encoder()), 20, 0)
    finally:
        os.environ["SSLKIT_CACHE"] = before


@pytest.mark.parametrize("name", [name for name, kind in BY_NAME.items() if kind.standalone and not kind.pixels])
@pytest.mark.parametrize("network", ["linear", "hidden"])
def test_every_method_trains_on_features(featured, tmp_path, name, network):
    run = fit(BY_NAME[name](), featured, Config(steps=60, network=network), CPU, out=tmp_path / "run")
    assert run.result["test_acc"] > (0 if (name, network) == ("mixmatch", "hidden") else 0.3), "MixMatch alone fails there"
    assert run.config["data"]["encoder"] == "counted" and run.config["data"]["views"] == 6
    assert run.config["channels"] == 12 and run.config["train"]["lr"] == 0.003 and run.config["train"]["precision"] == "fp32"
    assert evaluate(run.network(), featured)["test_acc"] == run.result["test_acc"]
    method, nets = run.restore(featured)
    assert torch.equal(predict(nets.teacher, featured.test_inputs, featured)[0], predict(run.network(), featured.test_inputs, featured)[0])


def test_recipes_train_on_features(featured, tmp_path):
    run = kd_fixmatch(featured, Config(steps=40), CPU, out=tmp_path / "kd", clustering="kmeans")
    assert run.result["test_acc"] > 0.2 and run.result["outer"]["steps"] == 40
    run = hdl_on(BY_NAME["freematch"](), featured, Config(steps=60), CPU, out=tmp_path / "hdl", k=5)
    assert run.result["labels_found"]["hdl"]["precision"] > 0.3


def test_a_batch_is_a_function_of_the_step_and_holds_no_pixels(featured):
    method = BY_NAME["simmatch"]()
    config = Config(steps=20).resolve(featured, torch.device("cpu"))
    feed = Feed(featured, method, config)
    once, again = feed(7), Feed(featured, method, config)(7)
    assert once.x.shape == (32, 12) and [u.shape for u in once.u] == [(224, 12)] * 2
    assert all(torch.equal(a, b) for a, b in zip((once.x, *once.u, once.y, once.i, once.j), (again.x, *again.u, again.y, again.i, again.j)))
    assert not torch.equal(once.u[0], once.u[1])


def test_what_needs_pixels_or_features_says_so(featured, digits):
    with pytest.raises(InputError, match="remixmatch changes pixels, it cannot train on features: leave out --encoder"):
        RunSpec("remixmatch", DataSpec(encoder="efficientnet-lite0"))
    with pytest.raises(InputError, match="ReMixMatch changes pixels"):
        set_up(BY_NAME["remixmatch"](), featured, Config(steps=5, network="linear").resolve(featured, torch.device("cpu")))
    for data, network, what in ((digits, "linear", "the network linear is for features, this data has none: add --encoder"),
                                (featured, "small", "the network small is for images, this data has features: take linear or hidden")):
        with pytest.raises(InputError, match=what):
            set_up(BY_NAME["supervised"](), data, Config(steps=5, network=network).resolve(data, torch.device("cpu")))


@pytest.mark.parametrize("recipe", [None, Propagate(k=5), Select(clustering="kmeans")])
def test_the_protocol_is_that_of_the_record(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("sslkit.training.spec.encoder", lambda name, **how: Encoder(name, Counted(), how["size"]))
    spec = RunSpec("kd-fixmatch" if isinstance(recipe, Select) else "fixmatch", DataSpec(encoder="mine", size=8, views=3), Config(steps=40), {}, recipe)
    data = spec.load()
    record = spec.identity(data)
    from sslkit.training.identity import protocol
    assert protocol(record) == spec.protocol() and record["data"]["views"] == 3 and record["train"]["weights"] == "none"


def test_data_sets_may_lie_as_image_files(tmp_path):
    from PIL import Image
    rng = np.random.default_rng(0)
    for part, n in (("train", 6), ("test", 2)):
        for c in ("cat", "dog"):
            (tmp_path / "cifar10" / part / c).mkdir(parents=True)
            for k in range(n):
                Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(tmp_path / "cifar10" / part / c / f"{k}.png")
    data = load("cifar10", root=tmp_path)
    assert data.name == "cifar10" and len(data.images) == 12 and data.classes == ("cat", "dog") and data.side == 32
    from sslkit.training.identity import record
    config = Config(steps=5).resolve(data, torch.device("cpu"))
    assert record(BY_NAME["fixmatch"](), split(data, 2), config)["data"]["image_files"] is True


def test_views_mirror_only_where_the_data_may(small, cache):
    """A mirrored digit is no digit: neither kind of view mirrors it, and another choice has tables of its own."""
    still = features(small, encoder(), views=3)
    assert not small.flip and not torch.equal(features(replace(small, flip=True), encoder(), views=3).features.tables["strong"], still.features.tables["strong"])
