"""Stock ipywidgets around a lesson's functions: sliders, a labeller and a reviewer of photographs."""
from sslkit.lessons.widgets.frames import slider, sliders
from sslkit.lessons.widgets.labeling import export_button, label_pictures
from sslkit.lessons.widgets.reviewing import review
