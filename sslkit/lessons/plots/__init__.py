"""Pictures: pure functions from arrays or runs to a Figure. Nothing here trains, reads a disk or keeps state.

Every Figure shows itself as the last expression of a cell, with an alternative text, and has savefig().
"""
from sslkit.lessons.plots.bars import bars, class_bars, confusion, heat
from sslkit.lessons.plots.curves import coverage, curves, growth, panels, spread
from sslkit.lessons.plots.figure import COLORS, STYLE, Figure, bare, new, styled
from sslkit.lessons.plots.images import image_grid, picture
from sslkit.lessons.plots.maps import scatter, scatters
from sslkit.lessons.plots.simmatch import similarity

__all__ = ["COLORS", "STYLE", "Figure", "bare", "bars", "class_bars", "confusion", "coverage", "curves", "growth", "heat", "image_grid",
           "new", "panels", "picture", "scatter", "scatters", "similarity", "spread", "styled"]
