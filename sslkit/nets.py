"""Networks that give logits, pooled features and heads; and Nets, the pair of student and EMA teacher that a method is handed."""
import copy
import re
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslkit.errors import InputError, choose, require
from sslkit.records import Out

NETWORKS = ("small", "wrn-28-2", "wrn-28-8", "wrn-37-2", "resnet50", "efficientnet-b0")
TORCHVISION = {"resnet50": ("fc", 2048, {}), "efficientnet-b0": ("classifier", 1280, {"stochastic_depth_prob": 0.0})}


class SmallConvNet(nn.Module):
    """Five 3x3 convolutions with BatchNorm and LeakyReLU, halved twice: for images of 8 to 16 px on a CPU (36 thousand weights).

    (n, channels, H, W) -> (n, 64).
    """
    def __init__(self, channels: int = 3, widths: tuple[int, ...] = (16, 16, 32, 32, 64)):
        super().__init__()
        layers: list[nn.Module] = []
        for k, (before, width) in enumerate(zip((channels, *widths), widths)):
            layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.LeakyReLU(0.1, inplace=True)]
            if k in (1, 3):
                layers.append(nn.MaxPool2d(2))
        self.layers, self.feat_dim = nn.Sequential(*layers), widths[-1]

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).mean((2, 3))


class Block(nn.Module):
    """Two 3x3 convolutions, each after BatchNorm and LeakyReLU, beside a shortcut: 1x1 where the width changes, else the input."""
    def __init__(self, before: int, width: int, stride: int, activate_shortcut: bool):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(before, eps=1e-3), nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(width, eps=1e-3), nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(before, width, 1, stride, bias=False) if before != width else None
        self.activate_shortcut = activate_shortcut

    def forward(self, x: Tensor) -> Tensor:
        h = F.leaky_relu_(self.bn1(x), 0.1)       # public code often skips this one where the width changes; the original has it
        if self.shortcut is not None:
            x = self.shortcut(h if self.activate_shortcut else x)
        return self.conv2(F.leaky_relu_(self.bn2(self.conv1(h)), 0.1)).add_(x)


class WideResNet(nn.Module):
    """WRN-depth-widen as google-research/fixmatch has it: 28-2 for CIFAR-10 and SVHN, 28-8 for CIFAR-100, 37-2 (four groups) for STL-10.

    (n, channels, H, W) -> (n, 64 * widen), or 128 * widen with four groups.
    """
    def __init__(self, depth: int = 28, widen: int = 2, channels: int = 3, groups: int = 3):
        super().__init__()
        blocks, rest = divmod(depth - groups - 1, 2 * groups)
        require(rest == 0 and blocks > 0 and widen > 0,
                f"a wide ResNet of {groups} groups has depth {groups + 1} + {2 * groups}n and a width from 1, not {depth} and {widen}")
        widths = [16, *(16 * widen * 2**k for k in range(groups))]
        self.stem = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.blocks = nn.Sequential(*(
            Block(widths[k] if b == 0 else widths[k + 1], widths[k + 1], 2 if k and b == 0 else 1, activate_shortcut=k == 0)
            for k in range(groups) for b in range(blocks)))
        self.bn, self.feat_dim = nn.BatchNorm2d(widths[-1], eps=1e-3), widths[-1]
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu_(self.bn(self.blocks(self.stem(x))), 0.1).mean((2, 3))


class TorchvisionBackbone(nn.Module):
    """torchvision's `name` without its classifier; grey images are repeated to three channels. (n, 1 or 3, H, W) -> (n, feat_dim)."""
    def __init__(self, name: str, weights: str = "none"):
        super().__init__()
        import torchvision

        last, self.feat_dim, options = TORCHVISION[name]
        try:
            known = "DEFAULT" if weights == "imagenet" else None
            self.net = torchvision.models.get_model(name.replace("-", "_"), weights=known, **options)
        except (OSError, RuntimeError) as error:              # no network; a file whose hash is wrong
            raise InputError(f"the ImageNet weights of {name} could not be downloaded ({error}); "
                             "without a network, train from scratch with --weights none") from error
        setattr(self.net, last, nn.Identity())       # its Dropout goes too: draws are the loop's alone, or no run could be resumed

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.expand(-1, 3, -1, -1))


class Network(nn.Module):
    """A backbone, a linear classifier and a method's heads. (n, channels, H, W) -> Out; the backbone may run in bfloat16, the rest not."""
    def __init__(self, backbone: nn.Module, num_classes: int):
        super().__init__()
        self.backbone, self.feat_dim = backbone, backbone.feat_dim
        self.classifier, self.heads = nn.Linear(self.feat_dim, num_classes), nn.ModuleDict()
        nn.init.xavier_normal_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)
        self.find_norms()

    def forward(self, x: Tensor, dtype: torch.dtype | None = None) -> Out:
        with torch.autocast(x.device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            feat = self.backbone(x)
        feat = feat.float()
        return Out(self.classifier(feat), feat, {name: head(feat) for name, head in self.heads.items()})

    def find_norms(self) -> None:
        """Note the BatchNorm layers, those of the heads included; to be called again when heads were added."""
        self.norms = [m for m in self.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        for m in self.norms:
            m.num_batches_tracked = None             # only a momentum of None would need it, and it costs a kernel a layer

    def norm_mode(self, bn: str, momentum: float) -> None:
        """Normalise by the batch and update the running statistics, by the batch alone, or by the running statistics."""
        if self.training != (bn != "running"):
            self.train(bn != "running")
        momentum = momentum if bn == "update" else 0.0
        if self.norms and self.norms[0].momentum != momentum:
            for m in self.norms:
                m.momentum = momentum


def known_network(name: str) -> tuple[int, int] | None:
    """(depth, width) of a wide ResNet's name, None for another network. Raises InputError, with the nearest, for a name that is none."""
    wide = re.fullmatch(r"wrn-(\d+)-(\d+)", name)
    if not wide:
        choose("network", name, NETWORKS)
        return None
    return int(wide[1]), int(wide[2])


def build(name: str, num_classes: int, channels: int = 3, *, seed: int = 0, weights: str = "none") -> Network:
    """The network called `name`: small, wrn-DEPTH-WIDTH, resnet50 or efficientnet-b0. Its first weights depend on (name, seed) alone.

    weights: "none" or "imagenet" (torchvision's two, downloaded). Raises InputError for an unknown name and for weights that are not there.
    """
    wide = known_network(name)
    require(weights == "none" or name in TORCHVISION, f"there are no {weights} weights for {name}; only for {', '.join(TORCHVISION)}")
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)         # the CPU's alone
        if wide:
            backbone = WideResNet(*wide, channels, groups=4 if wide[0] == 37 else 3)
        else:
            backbone = SmallConvNet(channels) if name == "small" else TorchvisionBackbone(name, weights)
        return Network(backbone, num_classes)


class Nets:
    """The student and its EMA teacher (decay as given; a copy at the start, no bias correction), called by view.

    BatchNorm buffers of the teacher are copied from the student ("copy") or averaged like its weights ("average", EMAN).
    dtype: what the backbone computes in, None for float32.
    """
    def __init__(self, network: Network, *, ema_decay: float = 0.999, bn_momentum: float = 0.001,
                 ema_buffers: Literal["copy", "average"] = "copy", dtype: torch.dtype | None = None):
        network.find_norms()
        self.student, self.teacher = network, copy.deepcopy(network).requires_grad_(False)
        self.ema_decay, self.bn_momentum, self.ema_buffers, self.dtype = ema_decay, bn_momentum, ema_buffers, dtype
        self.pairs = [[list(m) for m in zip(*((t, s) for t, s in zip(a, b) if t.is_floating_point()))] for a, b in (
            (self.teacher.parameters(), self.student.parameters()), (self.teacher.buffers(), self.student.buffers()))]

    def __call__(self, *views: Tensor, teacher: bool = False, grad: bool = True,
                 bn: Literal["update", "batch", "running"] = "update") -> tuple[Out, ...]:
        """One forward of all `views` together, each (n_v, channels, H, W); an Out for each."""
        net = self.teacher if teacher else self.student
        net.norm_mode(bn, self.bn_momentum)
        with torch.set_grad_enabled(grad and torch.is_grad_enabled()):
            out = net(torch.cat(views) if len(views) > 1 else views[0], self.dtype)
        if len(views) == 1:
            return (out,)
        sizes = [len(v) for v in views]
        heads = {name: h.split(sizes) for name, h in out.heads.items()}
        return tuple(Out(logits, feat, {name: h[k] for name, h in heads.items()})
                     for k, (logits, feat) in enumerate(zip(out.logits.split(sizes), out.feat.split(sizes))))

    @torch.no_grad()
    def update_ema(self) -> None:
        """teacher = ema_decay * teacher + (1 - ema_decay) * student, after each optimiser step."""
        for (teacher, student), copied in zip(self.pairs, (False, self.ema_buffers == "copy")):
            if copied:
                torch._foreach_copy_(teacher, student)
            else:
                torch._foreach_lerp_(teacher, student, 1 - self.ema_decay)
