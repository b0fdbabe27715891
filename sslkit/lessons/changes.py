"""What one method changes in another: the lines of the two loss() in the package, taken out and put in."""
import difflib
import inspect
import textwrap
from html import escape

from sslkit.methods import Method

OUT, IN = "rgba(215, 90, 80, 0.22)", "rgba(70, 160, 90, 0.22)"
LINE = "display:block;white-space:pre-wrap"


def lines(kind: type[Method]) -> list[str]:
    """The lines of loss(), without the indentation of the class."""
    return textwrap.dedent(inspect.getsource(kind.loss)).splitlines()


class Changes:
    """From `parent` to `child`, folded unless `unfolded`: a notebook shows it. What is equal in both stays grey."""

    def __init__(self, parent: type[Method], child: type[Method], idea: str, unfolded: bool = False):
        self.title = f"{parent.__name__} \N{RIGHTWARDS ARROW} {child.__name__}"
        self.idea, self.unfolded, self.files = idea, unfolded, [inspect.getmodule(k).__file__ for k in (parent, child)]
        self.rows = [line for line in difflib.ndiff(lines(parent), lines(child)) if line[0] != "?"]

    def __repr__(self) -> str:
        return "\n".join((f"{self.title}: {self.idea}", *self.rows))

    def _repr_html_(self) -> str:
        marks = {"-": f"background-color:{OUT}", "+": f"background-color:{IN}", " ": "color:gray"}
        shown = "".join(f'<span style="{LINE};{marks[row[0]]}">{escape(row)}</span>' for row in self.rows)
        return (f'<details{" open" * self.unfolded}><summary><b>{escape(self.title)}</b>: {escape(self.idea)}</summary>'
                f'<pre style="font-size:12px;line-height:1.35">{shown}</pre></details>')
