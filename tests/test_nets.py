"""Networks: their size, their first weights, what their BatchNorm does in each mode, and the EMA teacher."""
import pytest
import references
import torch
from torch import nn

from sslkit.errors import InputError
from sslkit.networks.network import Network, build
from sslkit.networks.pair import Nets


def parameters(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("name, classes, count", [("wrn-28-2", 10, 1_467_610), ("wrn-28-8", 100, 23_401_012)])
def test_wide_resnet_has_the_published_number_of_parameters(name, classes, count):
    assert parameters(build(name, classes)) == count == references.wrn_parameters(28, int(name[-1]), classes)


@pytest.mark.parametrize("depth, widen", [(10, 1), (16, 4), (37, 2)])
def test_other_wide_resnets_agree_with_the_count_from_the_description(depth, widen):
    assert parameters(build(f"wrn-{depth}-{widen}", 7)) == references.wrn_parameters(depth, widen, 7)


def test_every_batchnorm_of_a_wide_resnet_gets_a_gradient():
    net = build("wrn-10-2", 10)
    net(torch.randn(4, 3, 16, 16)).logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


@pytest.mark.parametrize("name, channels, side", [
    ("small", 1, 8), ("wrn-28-2", 3, 32), ("wrn-10-1", 1, 8), ("resnet50", 3, 32), ("efficientnet-b0", 1, 32)])
def test_every_network_gives_logits_features_and_heads(name, channels, side):
    net = build(name, 5, channels)
    net.heads["projection"] = nn.Linear(net.feat_dim, 3)
    out = net(torch.randn(2, channels, side, side), torch.bfloat16)
    assert out.logits.shape == (2, 5) and out.feat.shape == (2, net.feat_dim)
    assert out.heads["projection"].shape == (2, 3)
    assert {t.dtype for t in (out.logits, out.feat, out.heads["projection"])} == {torch.float32}


def test_bfloat16_is_inside_the_backbone_alone():
    net, x = build("wrn-10-1", 10), torch.randn(4, 3, 16, 16)
    full, half = net(x), net(x, torch.bfloat16)
    assert not torch.equal(full.feat, half.feat) and torch.allclose(full.feat, half.feat, atol=0.1)
    assert torch.equal(net.classifier(half.feat), half.logits)


def test_first_weights_are_a_function_of_name_and_seed():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    a, b, c = build("small", 10, 1, seed=3), build("small", 10, 1, seed=3), build("small", 10, 1, seed=4)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters()))
    assert not torch.equal(a.classifier.weight, c.classifier.weight)


def test_convolutions_are_he_normal_by_fan_out():
    weight = build("wrn-28-8", 10).backbone.blocks[5].conv2.weight
    assert weight.std().item() == pytest.approx((2 / (weight.shape[0] * 9)) ** 0.5, rel=0.01)


@pytest.mark.parametrize("name", ["wrn-29-2", "wrn-28-0", "wrn-4-2", "resnet51", "wrn"])
def test_an_unknown_network_is_refused(name):
    with pytest.raises(InputError, match="depth|known"):
        build(name, 10)


def test_imagenet_weights_for_a_network_without_them_are_refused():
    with pytest.raises(InputError, match="no imagenet weights for small"):
        build("small", 10, weights="imagenet")
    with pytest.raises(InputError, match="there is no file places of weights, and by name only none and imagenet"):
        build("resnet50", 10, weights="places")


def test_imagenet_weights_without_internet_say_so(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def no_network(*args, **options):
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    monkeypatch.setattr("torch.hub.urlopen", no_network)
    with pytest.raises(InputError, match="could not be downloaded.*--weights none"):
        build("efficientnet-b0", 10, weights="imagenet")


def running(net):
    return torch.cat([m.running_mean for m in net.norms])


def test_batchnorm_modes():
    nets, x = Nets(build("small", 10, 1), bn_momentum=0.1), torch.randn(16, 1, 8, 8) * 3 + 1
    first = running(nets.student)
    (batch,) = nets(x, bn="batch")
    assert torch.equal(running(nets.student), first)
    (plain,) = nets(x, bn="running")
    assert torch.equal(running(nets.student), first) and not torch.allclose(batch.logits, plain.logits)
    (update,) = nets(x)
    assert torch.equal(update.logits, batch.logits) and not torch.equal(running(nets.student), first)
    expected = 0.1 * nets.student.backbone.layers[0](x).mean((0, 2, 3))
    assert torch.allclose(nets.student.norms[0].running_mean, expected, atol=1e-6)


def test_a_teacher_is_normalised_by_its_batch_and_never_written_into():
    nets, x = Nets(build("small", 10, 1), bn_momentum=0.1), 3 + torch.randn(16, 1, 8, 8)
    nets(x)
    before = running(nets.teacher)
    (plain,), (batch,), (lagging,) = (nets(x, teacher=True, **bn) for bn in ({}, {"bn": "batch"}, {"bn": "running"}))
    assert torch.equal(plain.logits, batch.logits) and not torch.allclose(plain.logits, lagging.logits)
    assert torch.equal(running(nets.teacher), before)
    with pytest.raises(ValueError, match="must not write into it"):
        nets(x, teacher=True, bn="update")


def test_a_pass_may_have_a_precision_of_its_own():
    nets, x = Nets(build("wrn-10-1", 10, 1), dtype=torch.bfloat16), torch.randn(4, 1, 8, 8)
    (half,), (full,) = nets(x, bn="batch"), nets(x, bn="batch", dtype=torch.float32)
    nets.dtype = torch.float32
    (plain,) = nets(x, bn="batch")
    assert torch.equal(full.logits, plain.logits) and not torch.equal(half.logits, plain.logits)


def test_views_share_one_forward_and_come_back_apart():
    nets = Nets(build("small", 10, 1))
    a, b = torch.randn(3, 1, 8, 8), torch.randn(5, 1, 8, 8)
    one, two = nets(a, b, bn="batch")
    (both,) = nets(torch.cat([a, b]), bn="batch")
    assert torch.equal(torch.cat([one.logits, two.logits]), both.logits) and one.feat.shape == (3, 64)


def test_no_gradient_where_none_is_wanted():
    nets, x = Nets(build("small", 10, 1)), torch.randn(4, 1, 8, 8)
    assert nets(x)[0].logits.requires_grad
    assert not nets(x, grad=False)[0].logits.requires_grad and not nets(x, teacher=True)[0].logits.requires_grad


@pytest.mark.parametrize("ema_buffers", ["copy", "average"])
def test_ema_is_the_closed_form(ema_buffers):
    nets = Nets(build("small", 4, 1), ema_decay=0.9, bn_momentum=0.1, ema_buffers=ema_buffers)
    start, start_buffer = nets.student.classifier.bias.detach().clone(), running(nets.student)
    trajectory, buffers = [], []
    for _ in range(6):
        nets(torch.randn(8, 1, 8, 8))
        with torch.no_grad():
            for p in nets.student.parameters():
                p.add_(torch.randn_like(p))
        nets.update_ema()
        trajectory.append(nets.student.classifier.bias.detach().numpy().copy())
        buffers.append(running(nets.student).numpy())
    expected = references.ema_closed_form(start.numpy(), trajectory, 0.9)
    assert torch.allclose(nets.teacher.classifier.bias, torch.tensor(expected, dtype=torch.float32), atol=1e-6)
    averaged = torch.tensor(references.ema_closed_form(start_buffer.numpy(), buffers, 0.9), dtype=torch.float32)
    expected = averaged if ema_buffers == "average" else running(nets.student)
    assert torch.allclose(running(nets.teacher), expected, atol=1e-6)


def test_batchnorm_in_a_methods_head_keeps_its_mode_too():
    net = build("small", 4, 1)
    net.heads["projection"] = nn.Sequential(nn.Linear(64, 8), nn.BatchNorm1d(8))
    nets = Nets(net, bn_momentum=0.1)
    nets(torch.randn(8, 1, 8, 8), bn="batch")
    assert net.heads["projection"][1].running_mean.abs().max() == 0
    nets(torch.randn(8, 1, 8, 8), teacher=True, bn="batch")
    assert nets.teacher.heads["projection"][1].running_mean.abs().max() == 0


class Flat(nn.Module):
    """A backbone without BatchNorm, and so without a float buffer."""
    def __init__(self, counter: bool):
        super().__init__()
        self.linear, self.feat_dim = nn.Linear(64, 5), 5
        if counter:
            self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        return self.linear(x.flatten(1))


@pytest.mark.parametrize("counter", [False, True])
@pytest.mark.parametrize("ema_buffers", ["copy", "average"])
def test_a_network_without_float_buffers_has_an_ema_teacher(ema_buffers, counter):
    nets = Nets(Network(Flat(counter), 4), ema_decay=0.75, ema_buffers=ema_buffers)
    start = nets.teacher.backbone.linear.weight.clone()
    with torch.no_grad():
        nets.student.backbone.linear.weight.add_(1)
    nets.update_ema()
    assert torch.allclose(nets.teacher.backbone.linear.weight, start + 0.25)
    assert nets(torch.randn(2, 1, 8, 8), teacher=True)[0].logits.shape == (2, 4)
