"""Labels without training: by confidence and clusters (trusted), from embeddings (hdl), and how good they are (quality)."""
from sslkit.labelers.clusters import CLUSTERINGS, MATCHINGS, Clustering, Matching, dec, labeled_centers, sharpened, soft_assignment
from sslkit.labelers.from_files import label
from sslkit.labelers.hdl import KS, Metric, Mode, delta, hdl, one_shot
from sslkit.labelers.quality import by_class, class_growth, label_quality, precision_curve
from sslkit.labelers.trusted import cluster_agree, cluster_classes, confident

__all__ = ["CLUSTERINGS", "Clustering", "KS", "MATCHINGS", "Matching", "Metric", "Mode", "by_class", "class_growth", "cluster_agree",
           "cluster_classes", "confident", "dec", "delta", "hdl", "label", "label_quality", "labeled_centers", "one_shot", "precision_curve",
           "sharpened", "soft_assignment"]
