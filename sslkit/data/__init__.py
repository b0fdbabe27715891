"""Images in: load() a data set, split() it into labelled and unlabelled rows, augment them (weak and strong views)."""
from sslkit.data import augment
from sslkit.data.cache import LARGE
from sslkit.data.contrastive import crop, jitter
from sslkit.data.copies import near_copies
from sslkit.data.dataset import Rows, SSLData, send
from sslkit.data.draws import Share, drawn
from sslkit.data.features import Encoder, Features, features
from sslkit.data.folder import decode, list_pictures, picture_in
from sslkit.data.lists import read_list
from sslkit.data.marks import Mark, Marks
from sslkit.data.samples import sample_pictures
from sslkit.data.sources import FEATURES, SOURCES, load, source
from sslkit.data.split import long_tail, split
