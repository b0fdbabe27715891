"""Networks that give logits, pooled features and heads: backbones, build() by name, and the pair of student and EMA teacher."""
from sslkit.networks.network import Network, build, known_network
from sslkit.networks.pair import Nets

__all__ = ["Nets", "Network", "build", "known_network"]
