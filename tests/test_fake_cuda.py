"""Every method's step on a CUDA device that is not there: no tensor stays on the CPU, and nothing waits for the device.

Tensors on the device are fake: they have a shape, a dtype and a place, but no numbers. Those on the CPU are real, for the
host draws and plans a batch with them. Left out: the backward pass, which asks the driver for the device; the fused
optimiser, which has no fake kernel; methods that take a gradient in their loss; and channels_last, which a fake network does not take.
"""
from dataclasses import replace

import pytest
import torch
from test_methods import KINDS, name_of
from torch import Tensor
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from sslkit.data.pillow_ops import column, ramp
from sslkit.training.config import Config, Machine
from sslkit.training.loop import set_up, take_step

pytestmark = [pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="needs a PyTorch that is built for CUDA"),
              pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")]     # copying a network does


class Fake(FakeTensorMode):
    def __deepcopy__(self, memo):
        return self                                        # the teacher stays on the student's device


class AbsentDevice(TorchFunctionMode):
    """Fakes every call that concerns the device. In a step, those that would wait for it raise."""

    def __init__(self):
        super().__init__()
        self.fake, self.in_step = Fake(), False

    def __torch_function__(self, call, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = tree_leaves((args, kwargs))
        if call is Tensor.pin_memory:
            return args[0]
        if call is Tensor.backward:
            return None                                    # without gradients the optimiser changes nothing
        if not any(isinstance(a, FakeTensor) or isinstance(a, (str, torch.device)) and str(a)[:4] == "cuda" for a in given):
            return call(*args, **kwargs)
        if call is Tensor.to and not isinstance(args[0], FakeTensor):
            assert not self.in_step or kwargs.get("non_blocking"), "this copy to the device waits"
            args = (self.fake.from_tensor(args[0]), *args[1:])
        assert not self.in_step or call not in (torch.tensor, torch.as_tensor), "this copy to the device waits"
        with self.fake:
            out = call(*args, **kwargs)
        there = (t.device.type == "cuda" for t in tree_leaves(out) if isinstance(t, Tensor))
        assert not self.in_step or all(there), "this copy to the CPU waits"
        return out


@pytest.fixture
def device(monkeypatch):
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)     # it would turn bf16 off
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    caches = column, ramp                                  # no fake tensor in them for others, no real one for us
    for cache in caches:
        cache.cache_clear()
    with AbsentDevice() as device:
        yield device
    for cache in caches:
        cache.cache_clear()


@pytest.mark.parametrize("precision, network, strong", [("fp32", "small", "small"), ("bf16", "wrn-10-1", "mc")])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.func.compiles], ids=name_of)
def test_step_never_waits_for_the_device(kind, precision, network, strong, device, digits):
    """All of take_step but the gradients: batch, loss, EMA and the sums for the metrics."""
    data = replace(digits, images=digits.images.expand(-1, 3, -1, -1), mean=digits.mean * 3, std=digits.std * 3)
    config = Config(batch_size=6, mu=3, precision=precision, network=network, strong=strong)
    method, machine = kind(), Machine(device="cuda", channels_last=False)
    nets, optimizer, feed = set_up(method, data, config.resolve(data, torch.device("cpu")), machine)
    seen = set()
    nets.student.backbone.register_forward_hook(lambda module, images, feat: seen.add(feat.dtype))
    device.in_step = True
    sums = take_step(method, nets, optimizer, feed, 0)
    assert seen == {torch.bfloat16 if precision == "bf16" else torch.float32}
    assert all(isinstance(t, FakeTensor) and t.shape == () and t.dtype == torch.float32 for t in sums.values())
    assert set(sums) > {"loss", "sup"} and ("kept" in sums) == bool(method.views)


@pytest.mark.parametrize("wait", [
    lambda x: x[0].item(), lambda x: bool(x[0] > 0), lambda x: x.tolist(), lambda x: x.nonzero(), lambda x: x[x > 0],
    lambda x: x.cpu(), lambda x: x.to("cpu"), lambda x: x + torch.zeros(3), lambda x: torch.zeros(3).to(x.device),
    lambda x: torch.tensor([1.0], device="cuda"), lambda x: x.unique(), lambda x: x[torch.tensor([0])]])
def test_the_absent_device_raises_where_a_real_one_would_wait(wait, device):
    x, device.in_step = torch.ones(3, device="cuda"), True
    raised = AssertionError, fake_tensor.DataDependentOutputException, fake_tensor.DynamicOutputShapeException
    with pytest.raises(raised):
        wait(x)
