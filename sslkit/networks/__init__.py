"""Networks: backbones, build() by name, and the pair of student and EMA teacher."""
from sslkit.networks.network import Network, build, expected_pixels, known_network
from sslkit.networks.pair import Nets
