"""What notebooks import: a lesson's session (parameters, runs, kept tables), plots, widgets, exercises, the studies, a
folder of photographs."""
from sslkit.errors import choose, require
from sslkit.lessons import plots, studies
from sslkit.lessons.changes import Changes
from sslkit.lessons.exercises import Exercise, exercise, guess_first, reveal
from sslkit.lessons.photos import Photos, photographs, right_of
from sslkit.lessons.plane import Plane, learn_plane
from sslkit.lessons.session import begin, finish, fit_all, fit_once, keep, kept, umap_map, watch
from sslkit.lessons.studies import three_labels
from sslkit.lessons.widgets import export_button, label_pictures, review, slider, sliders
