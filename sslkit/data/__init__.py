"""Images in: load() a data set, split() it into labelled and unlabelled rows, draw weak and strong views of a batch (augment)."""
from sslkit.data import augment
from sslkit.data.dataset import SSLData
from sslkit.data.pillow_ops import send
from sslkit.data.sources import load
from sslkit.data.split import long_tail, split

__all__ = ["SSLData", "augment", "load", "long_tail", "send", "split"]
