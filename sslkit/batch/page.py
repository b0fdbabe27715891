"""What `sslkit reproduce` leaves: each lesson as a page, its figures, one summary page (page.html, filled in)."""
import base64
import os
import platform
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from functools import cache
from html import escape
from pathlib import Path

import bleach
import torch
from bleach.css_sanitizer import CSSSanitizer
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from nbformat import NotebookNode

from sslkit import __version__, papers
from sslkit.batch.notebook_file import Lesson, plain_text
from sslkit.errors import InputError
from sslkit.files import write_file
from sslkit.terminal import clock
from sslkit.training import Machine, all_runs, finished, store

STATES = ("finished", "failed", "stopped", "running", "waiting")
PAGES = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
                    trim_blocks=True, lstrip_blocks=True)
TAGS = {*bleach.ALLOWED_TAGS, "br", "del", "div", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "img", "p", "pre", "s",
        "span", "sub", "sup", "table", "tbody", "td", "th", "thead", "tr"}
ATTRIBUTES = {"*": ["class", "id", "style"], "a": ["href", "title"], "img": ["alt", "src", "title"]}


def harmless(html: str) -> str:
    """HTML of a notebook without what a browser would run. (nbconvert's own filter shows `<h1>` and `<p>` as text.)"""
    return bleach.clean(html, tags=TAGS, attributes=ATTRIBUTES, css_sanitizer=CSSSanitizer())


def export(lesson: Lesson, nb: NotebookNode, out: Path) -> None:
    """Write the lesson as a page, sanitised, and its figures as files; remove the figures of an earlier call."""
    from nbconvert import HTMLExporter

    heading, own = lesson.title, re.compile(re.escape(lesson.name) + r"-\d+\.png")
    stale = {path for path in (out / "figures").iterdir() if own.fullmatch(path.name)}
    lesson.figures = []
    for cell in nb.cells:
        if cell.cell_type == "markdown" and (found := re.findall(r"^#+ +(.+)$", cell.source, re.M)):
            heading = plain_text(found[-1])
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            data |= {kind: escape(text) for kind, text in data.items() if "mermaid" in kind}      # nbconvert does not
            if "image/png" in data:
                path = out / "figures" / f"{lesson.name}-{len(lesson.figures) + 1:02}.png"
                write_file(path, base64.b64decode(data["image/png"]))
                lesson.figures.append((path.name, heading))
    for path in stale - {out / "figures" / name for name, _ in lesson.figures}:
        path.unlink()
    exporter = HTMLExporter(sanitize_html=True)
    exporter.register_filter("clean_html", harmless)
    page, _ = exporter.from_notebook_node(nb, resources={"metadata": {"name": lesson.title}})
    write_file(out / f"{lesson.name}.html", page)
    lesson.exported = True


@cache
def machine() -> str:
    """Processor, cores and device."""
    name, device = platform.processor() or platform.machine(), Machine().torch_device()
    with suppress(OSError, TypeError):                  # Linux alone has it
        name = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.M)[1]
    graphics = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    return f"{name}, {os.cpu_count()} cores, device {device}{graphics}"


def finished_runs() -> Iterator[tuple[str, ...]]:
    """A head, then a row for each finished run of the store, newest first. `sslkit runs` says what cannot be read."""
    yield "method", "data", "labels", "seed", "steps", "test accuracy", "median of last 20", "seconds"
    for run in all_runs():
        with suppress(InputError, KeyError, TypeError, ValueError):
            if r := run.result:
                yield (r["method"], Path(r["data"]).name, f"{r['labels']:,}", str(r["seed"]), f"{r['steps']:,}",
                       f"{r['test_acc']:.1%}", f"{r['test_acc_median20']:.1%}", f"{r['seconds']:.0f}")


def papers_tables() -> Iterator[dict]:
    """The papers' tables with our results, as page.html shows them."""
    runs = finished()
    for name, one in papers.tables().items():
        lines = papers.beside(one, runs=runs)
        rows, notes = papers.shown(one, lines)
        yield {"name": name, "title": one.title, "unit": one.unit, "rows": papers.filled(rows), "notes": notes,
               "ours": sum(bool(line.values) for line in lines), "count": len(lines)}


def page(lessons: list[Lesson], command: str, began: datetime, seconds: float, over: bool = False) -> str:
    """The summary page. While lessons run it loads itself again every 5 seconds. over: none will run any more."""
    states = [lesson.state for lesson in lessons]
    going = not over and ("running" in states or "waiting" in states)
    return PAGES.get_template("page.html").render(
        lessons=lessons, command=command, began=began.strftime("%Y-%m-%d %H:%M"), took=clock(seconds), going=going,
        counts=", ".join(f"{states.count(state)} {state}" for state in STATES if state in states), machine=machine(),
        versions=f"sslkit {__version__}, torch {torch.__version__}, Python {platform.python_version()}",
        tables=[] if going else list(papers_tables()), runs=list(finished_runs()), store=store().absolute())
