"""What notebooks import: a lesson's session (parameters, runs, kept tables), its plots, its widgets; and the studies behind its tables."""
from sslkit.errors import choose, require
from sslkit.lessons import plots, studies
from sslkit.lessons.session import begin, check, finish, fit_all, fit_once, keep, kept, umap_map, watch
from sslkit.lessons.studies import three_labels
from sslkit.lessons.widgets import slider, sliders
