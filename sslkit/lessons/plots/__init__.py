"""Pictures: pure functions from arrays or runs to a Figure. None of them trains, reads a disk or keeps state.

A Figure shows itself as the last expression of a cell, with an alternative text; to save it, call savefig().
"""
from sslkit.lessons.plots.bars import bars, class_bars, confusion, heat
from sslkit.lessons.plots.curves import coverage, curves, growth, panels, spread
from sslkit.lessons.plots.family import TREE, dots, tree
from sslkit.lessons.plots.figure import COLORS, STYLE, Figure, bare, new, styled
from sslkit.lessons.plots.how import how
from sslkit.lessons.plots.images import image_grid, picture, scatter, scatters, similarity
from sslkit.lessons.plots.photographs import intervals, picture_map
from sslkit.lessons.plots.plane import plane
