"""The bench measures what it says: all three steps run, its figures are complete, its Pillow view is variant usb."""
import json
import multiprocessing
import threading
from types import SimpleNamespace

import pytest
import torch

from sslkit import methods
from sslkit.cli import main
from sslkit.errors import InputError
from sslkit.networks.network import Network
from sslkit.training import Config, Machine, bench

KEYS = {"naive_ms", "bare_ms", "step_ms", "ratio", "speedup", "augment_images_per_s", "pillow_images_per_s", "method",
        "net", "batch_size", "mu", "size", "rounds", "precision", "channels_last", "compile", "arguments", "device",
        "device_name", "threads", "torch", "labels", "fixmatch_ms", "to_fixmatch"}
SMALL = "bench --net wrn-10-1 --batch-size 2 --mu 2 --rounds 2 --device cpu --labels 40".split()


def kept_open():
    """A pipe whose end for the other process is not closed here: the other is a thread of this process."""
    ours, theirs = multiprocessing.Pipe()
    theirs.close = lambda: None
    return ours, theirs


@pytest.fixture
def in_a_thread(monkeypatch):
    """The naive step in a thread instead of a process of its own, which imports everything anew."""
    context = SimpleNamespace(Pipe=kept_open, Process=threading.Thread)
    monkeypatch.setattr(bench, "multiprocessing", SimpleNamespace(get_context=lambda way: context))


@pytest.mark.parametrize("method", ["fixmatch", "supervised", "simmatch", "remixmatch", "meanteacher", "vat", "comatch"])
def test_figures_are_complete(method, capsys, in_a_thread):
    assert main([*SMALL, "--method", method, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert set(figures) == KEYS and figures.pop("compile") is False
    assert all(figure > 0 for figure in figures.values() if isinstance(figure, int | float))
    assert (figures["fixmatch_ms"] is None) == (method == "fixmatch")
    if method != "fixmatch":
        assert figures["to_fixmatch"] == pytest.approx(figures["step_ms"] / figures["fixmatch_ms"], rel=0.02)
    assert figures["ratio"] == pytest.approx(figures["step_ms"] / figures["bare_ms"], rel=0.02)
    assert figures["speedup"] == pytest.approx(figures["naive_ms"] / figures["step_ms"], rel=0.02)


def test_it_reads_as_text_and_the_naive_step_has_a_process_of_its_own(capsys, monkeypatch):
    monkeypatch.setattr(bench, "Naive", None)                        # here; the other process imports the module anew
    assert main(SMALL) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("naive", "bare", "step", "images/s"))


@pytest.mark.parametrize("flags, message", [
    (["--rounds", "0"], "rounds is 0"), (["--size", "4"], "size is 4"), (["--method", "fixmach"], "fixmatch"),
    (["--batch-size", "0"], "batch_size is 0"), (["--net", "wrn-11-1"], "depth"), (["--rouns", "1"], "--rounds"),
    (["--labels", "5"], "labels is 5")])
def test_bad_input(flags, message, capsys):
    try:
        code = main(["bench", *flags])
    except SystemExit as stop:
        code = stop.code
    assert code == 2 and message in capsys.readouterr().err


def test_unknown_method_is_an_input_error():
    with pytest.raises(InputError):
        bench.bench(method="nothing")


def test_pillow_views_are_normalised_tensors_of_their_own():
    made = bench.PillowUSB(bench.photographs(1, 32, torch.device("cpu"), 10))("strong", [0] * 20)
    assert made.shape == (20, 3, 32, 32) and made.dtype == torch.float32 and -2 <= made.min() and made.max() <= 2
    assert len({m.numpy().tobytes() for m in made}) == 20 and len(bench.PillowUSB.OPS) == 14


@pytest.mark.parametrize("kind", [kind for kind in methods.ALL if kind.standalone], ids=lambda kind: kind.__name__)
def test_the_step_beside_it_makes_the_same_passes(kind, monkeypatch):
    """As many as the method, of as many rows, in the same modes and precision."""
    data = bench.photographs(64, 8, torch.device("cpu"), 20)
    config, machine = Config(network="small", batch_size=4, mu=2, strong="usb").resolve(data, data.images.device), Machine("cpu")
    method = kind()
    nets, optimizer, feed = bench.set_up(method, data, config, machine)
    passes = bench.Recorded(method, nets, feed(0))
    plain = bench.SamePasses(method.views, passes)
    theirs = bench.set_up(plain, data, config, machine)
    seen, found, forward = [], [], Network.forward
    monkeypatch.setattr(Network, "forward", lambda net, x, dtype=None: seen.append(
        (len(x), torch.is_grad_enabled(), net.training, x.requires_grad, dtype)) or forward(net, x, dtype))
    for made, (own, opt, rows) in ((method, (nets, optimizer, feed)), (plain, theirs)):
        seen.clear()
        bench.take_step(made, own, opt, rows, 1)
        found.append(list(seen))
    assert found[0] == found[1] and len(found[0]) == len(passes.calls)
