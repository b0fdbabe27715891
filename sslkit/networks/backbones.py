"""Backbones: from images to pooled features."""
import torch.nn.functional as F
from torch import Tensor, nn

from sslkit.errors import InputError, require

TORCHVISION = {"resnet50": ("fc", 2048, {}), "efficientnet-b0": ("classifier", 1280, {"stochastic_depth_prob": 0.0})}


class Linear(nn.Module):
    """Nothing between features and classifier: (n, D) -> (n, D)."""
    def __init__(self, dim: int):
        super().__init__()
        self.feat_dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return x


class Hidden(nn.Module):
    """One hidden layer on features, BatchNorm and ReLU: (n, D) -> (n, width)."""
    def __init__(self, dim: int, width: int = 256):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(dim, width, bias=False), nn.BatchNorm1d(width), nn.ReLU())
        self.feat_dim = width

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class SmallConvNet(nn.Module):
    """Five 3x3 convolutions, 36 thousand weights, for images of 8 to 16 px on a CPU: (n, channels, H, W) -> (n, 64)."""
    def __init__(self, channels: int = 3, widths: tuple[int, ...] = (16, 16, 32, 32, 64)):
        super().__init__()
        layers: list[nn.Module] = []
        for k, (before, width) in enumerate(zip((channels, *widths), widths)):
            layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width),
                       nn.LeakyReLU(0.1, inplace=True)]
            if k in (1, 3):
                layers.append(nn.MaxPool2d(2))
        self.layers, self.feat_dim = nn.Sequential(*layers), widths[-1]

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).mean((2, 3))


class Block(nn.Module):
    """Two 3x3 convolutions, each after BatchNorm and LeakyReLU, plus a shortcut (1x1 if the width changes)."""
    def __init__(self, before: int, width: int, stride: int, activate_shortcut: bool):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(before, eps=1e-3), nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(width, eps=1e-3), nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(before, width, 1, stride, bias=False) if before != width else None
        self.activate_shortcut = activate_shortcut

    def forward(self, x: Tensor) -> Tensor:
        h = F.leaky_relu_(self.bn1(x), 0.1)     # some public code skips this if the width changes; the original has it
        if self.shortcut is not None:
            x = self.shortcut(h if self.activate_shortcut else x)
        return self.conv2(F.leaky_relu_(self.bn2(self.conv1(h)), 0.1)).add_(x)


class WideResNet(nn.Module):
    """WRN-depth-widen of google-research/fixmatch: (n, channels, H, W) -> (n, 64 * widen); four groups: 128 * widen.

    28-2 for CIFAR-10 and SVHN, 28-8 for CIFAR-100, 37-2 with four groups for STL-10.
    """
    def __init__(self, depth: int = 28, widen: int = 2, channels: int = 3, groups: int = 3):
        super().__init__()
        blocks, rest = divmod(depth - groups - 1, 2 * groups)
        require(rest == 0 and blocks > 0 and widen > 0, f"a wide ResNet with {groups} groups needs depth "
                f"{groups + 1} + {2 * groups}n and width 1 or more, not {depth} and {widen}")
        widths = [16, *(16 * widen * 2**k for k in range(groups))]
        self.stem = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.blocks = nn.Sequential(*(
            Block(widths[k] if b == 0 else widths[k + 1], widths[k + 1], 2 if k and b == 0 else 1, k == 0)
            for k in range(groups) for b in range(blocks)))
        self.bn, self.feat_dim = nn.BatchNorm2d(widths[-1], eps=1e-3), widths[-1]
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu_(self.bn(self.blocks(self.stem(x))), 0.1).mean((2, 3))


class TorchvisionBackbone(nn.Module):
    """torchvision's `name` without its classifier: (n, 1 or 3, H, W) -> (n, feat_dim), grey repeated to 3 channels."""
    def __init__(self, name: str, weights: str = "none"):
        super().__init__()
        import torchvision

        last, self.feat_dim, options = TORCHVISION[name]
        try:
            known = "DEFAULT" if weights == "imagenet" else None
            self.net = torchvision.models.get_model(name.replace("-", "_"), weights=known, **options)
        except (OSError, RuntimeError) as error:     # no internet; a file whose hash is wrong
            raise InputError(f"the ImageNet weights of {name} could not be downloaded ({error}); "
                             "without internet, train from scratch with --weights none") from error
        setattr(self.net, last, nn.Identity())     # drops Dropout too: a resumed run repeats only the loop's draws

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.expand(-1, 3, -1, -1))
