"""A backbone with its classifier and a method's heads; build() makes one by name."""
import re

import torch
from torch import Tensor, nn

from sslkit.errors import choose, require
from sslkit.networks.backbones import TORCHVISION, Hidden, Linear, SmallConvNet, TorchvisionBackbone, WideResNet
from sslkit.networks.checkpoint import load_backbone, weights_file
from sslkit.records import Out

HEADS = {"linear": Linear, "hidden": Hidden}         # on features; the others are for images
NETWORKS = ("small", "wrn-28-2", "wrn-28-8", "wrn-37-2", "resnet50", "efficientnet-b0", *HEADS)


class Network(nn.Module):
    """A backbone, a linear classifier and a method's heads, (n, channels, H, W) -> Out. `dtype` is the backbone's."""
    def __init__(self, backbone: nn.Module, num_classes: int):
        super().__init__()
        self.backbone, self.feat_dim = backbone, backbone.feat_dim
        self.classifier, self.heads = nn.Linear(self.feat_dim, num_classes), nn.ModuleDict()
        nn.init.xavier_normal_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)
        self.pixels = None        # (mean, std) of the images that the weights expect; None: those of the data
        self.find_norms()

    def forward(self, x: Tensor, dtype: torch.dtype = torch.float32) -> Out:
        if dtype not in (torch.float32, torch.bfloat16):
            raise ValueError(f"a backbone computes in float32 or bfloat16, not in {dtype}")
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            feat = self.backbone(x)
        feat = feat.float()
        return Out(self.classifier(feat), feat, {name: head(feat) for name, head in self.heads.items()})

    def find_norms(self) -> None:
        """Collect the BatchNorm layers, those of the heads too. Call it again after adding heads."""
        self.norms = [m for m in self.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        for m in self.norms:
            m.num_batches_tracked = None     # needed only if momentum is None; counting costs a kernel a layer

    def norm_mode(self, bn: str, momentum: float) -> None:
        """Normalise by the batch; with "update" also update the running statistics, with "running" use them instead."""
        if self.training != (bn != "running"):
            self.train(bn != "running")
        momentum = momentum if bn == "update" else 0.0
        if self.norms and self.norms[0].momentum != momentum:
            for m in self.norms:
                m.momentum = momentum


def known_network(name: str) -> tuple[int, int] | None:
    """(depth, width) if `name` is a wide ResNet's, None for another network. InputError for an unknown name."""
    wide = re.fullmatch(r"wrn-(\d+)-(\d+)", name)
    if not wide:
        choose("network", name, NETWORKS)
        return None
    return int(wide[1]), int(wide[2])


def expected_pixels(name: str, weights: str, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and std, in [0, 1] units, of the images that the first weights of the network `name` expect: ImageNet's, of
    a file too, for torchvision's networks; None, those of the data, for random weights and the other networks."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)          # torchvision's, of every ImageNet model
    if channels == 1:
        mean, std = (sum(mean) / 3,), (sum(std) / 3,)
    return (mean, std) if weights != "none" and name in TORCHVISION else None


def build(name: str, num_classes: int, channels: int = 3, *, seed: int = 0, weights: str = "none") -> Network:
    """The network `name`: small, wrn-DEPTH-WIDTH, resnet50 or efficientnet-b0, initialised by (name, seed) alone; on
    features, of which there are `channels`, linear or hidden.

    weights: "imagenet" for resnet50 and efficientnet-b0, downloaded; or a file, see checkpoint.load_backbone.
    InputError: unknown name, no such weights, a file that does not fit, failed download.
    """
    wide, file = known_network(name), weights_file(weights)
    require(weights != "imagenet" or name in TORCHVISION,
            f"there are no imagenet weights for {name}, only for {' and '.join(TORCHVISION)}; or give a file of them")
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)     # of the CPU alone
        if wide:
            backbone = WideResNet(*wide, channels, groups=4 if wide[0] == 37 else 3)
        elif name in HEADS:
            backbone = HEADS[name](channels)
        else:
            backbone = SmallConvNet(channels) if name == "small" else TorchvisionBackbone(name, weights)
        network = Network(backbone, num_classes)
    if file is not None:
        load_backbone(backbone, file, name)
    if name == "linear":          # on 1,280 features random weights would be sure of something from the start
        nn.init.zeros_(network.classifier.weight)
    network.pixels = expected_pixels(name, weights, channels)
    return network
