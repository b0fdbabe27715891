"""Labels without training: from probabilities and clusters (trusted) or embeddings (classifiers, hdl), which of the
latter to take (choosing), and their quality (quality). What a network says of the training rows becomes PseudoLabels;
there is no network and no loop in this room."""
from sslkit.labelers.choosing import LABELERS, Choice, Labeler, choose_labeler, with_graphs
from sslkit.labelers.classifiers import logistic, nearest, spreading
from sslkit.labelers.clusters import CLUSTERINGS, MATCHINGS, Clustering, Matching, cluster_classes

# isort: split
from sslkit.labelers.clusters import dec, labeled_centers, sharpened, soft_assignment
from sslkit.labelers.from_files import label
from sslkit.labelers.hdl import KS, Mode, delta, hdl, one_shot
from sslkit.labelers.neighbors import Metric
from sslkit.labelers.picking import at_random, typical
from sslkit.labelers.quality import by_chance, by_class, class_growth, interval, label_quality, precision_curve
from sslkit.labelers.trusted import cluster_agree, confident
