"""The papers' tables, and ours laid beside them: `sslkit table`.

reported: a table is a list of Cells, what the paper reports, what others measured again, and the RunSpec that we would
run for it. ours: beside() finds the finished runs in a store. formats: the table as text. imagenet: the commands of
Table 2's runs on ImageNet.
"""
from sslkit.papers.formats import FORMATS, as_markdown, dots, filled, printed, ranking, shown
from sslkit.papers.imagenet import imagenet
from sslkit.papers.ours import Line, beside
from sslkit.papers.reported import Cell, Table, over_control, rows_of, table, tables
from sslkit.papers.scales import SCALES, Scale, scale
