"""Networks: backbones, build() by name, the pair of student and EMA teacher, and pre-trained encoders."""
from sslkit.networks.checkpoint import weights_file
from sslkit.networks.encoders import encoder, encoder_side
from sslkit.networks.network import HEADS, Network, build, expected_pixels, known_network
from sslkit.networks.pair import Nets
