"""A backbone with its classifier and a method's heads; build() makes one by name."""
import re

import torch
from torch import Tensor, nn

from sslkit.errors import choose, require
from sslkit.networks.backbones import TORCHVISION, SmallConvNet, TorchvisionBackbone, WideResNet
from sslkit.records import Out

NETWORKS = ("small", "wrn-28-2", "wrn-28-8", "wrn-37-2", "resnet50", "efficientnet-b0")


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
