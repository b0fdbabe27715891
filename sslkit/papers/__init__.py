"""The papers' tables, and ours laid beside them: `sslkit table`.

reported: a table is a list of Cells, what the paper reports, what others measured again, and the Job that we would run
for it. ours: beside() finds the finished ones in a store. formats: the whole as text.
"""
from sslkit.papers.formats import FORMATS, as_markdown, dots, filled, printed, ranking, shown
from sslkit.papers.ours import Line, beside
from sslkit.papers.reported import Cell, Table, over_control, rows_of, table, tables
from sslkit.papers.scales import SCALES, Scale, scale

__all__ = ["FORMATS", "SCALES", "Cell", "Line", "Scale", "Table", "as_markdown", "beside", "dots", "filled", "over_control", "printed", "ranking", "rows_of", "scale",
           "shown", "table", "tables"]
