"""What `sslkit reproduce` leaves: each lesson as a page, its figures, one summary page that needs no network."""
import base64
import os
import platform
import re
import subprocess
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from html import escape
from pathlib import Path
from urllib.parse import quote

import torch
from nbformat import NotebookNode

from sslkit import __version__, papers
from sslkit.batch.notebook_file import Lesson, plain
from sslkit.errors import InputError
from sslkit.files import write_atomically
from sslkit.terminal import clock
from sslkit.training import Machine, all_runs, finished, store

STYLE = """
:root { color-scheme: light dark; --ink: #1c2230; --soft: #5b6473; --line: #dfe3ea; --page: #f5f6f8; --card: #fff;
  --blue: #1d5fbf; --green: #1b7f4b; --red: #b3261e; --amber: #8a5a00;
  --text: system-ui, "Segoe UI", Roboto, Helvetica, sans-serif; --code: ui-monospace, Menlo, Consolas, monospace }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #9aa4b4; --line: #2f3643; --page: #14171d;
  --card: #1c2129; --blue: #82b1ff; --green: #6fd3a0; --red: #ff938a; --amber: #f0c060 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 var(--text) }
main { max-width: 68rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem } h2 { font-size: 1.25rem; margin: 2.6rem 0 .8rem }
h3 { font-size: 1.12rem; margin: 0 } p { margin: .35rem 0 } a { color: var(--blue) }
code { font: .88em var(--code); overflow-wrap: anywhere }
.soft, dt, th { color: var(--soft) } .lead { font-size: 1.1rem }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.25rem; margin: 1.2rem 0 0 }
dl { font-size: .94rem } dd { margin: 0 }
article, .table { background: var(--card); border: 1px solid var(--line); border-radius: 10px }
article { padding: 1.1rem 1.3rem; margin: 0 0 1rem; border-left: 4px solid var(--mark, var(--line)) }
.top { display: flex; flex-wrap: wrap; gap: .2rem 1rem; justify-content: space-between; align-items: baseline }
.status { color: var(--mark, var(--soft)); font-size: .92rem; font-weight: 600; overflow-wrap: anywhere }
.finished { --mark: var(--green) } .failed { --mark: var(--red) }
.running { --mark: var(--blue) } .stopped { --mark: var(--amber) }
pre { margin: .7rem 0 0; padding: .6rem .8rem; border-radius: 6px; background: var(--page); color: var(--red);
  white-space: pre-wrap; overflow-wrap: anywhere; font: .86rem/1.45 var(--code) }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .6rem }
.figures { margin-top: .9rem }
.figures a { display: block; background: #fff; border: 1px solid var(--line); border-radius: 6px; padding: .35rem }
.figures a:hover, .figures a:focus { border-color: var(--blue) }
.figures img { display: block; width: 100%; height: 7rem; object-fit: contain; color: #444; font-size: .8rem }
.table { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: .93rem; font-variant-numeric: tabular-nums }
th, td { padding: .45rem .9rem; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap }
details { margin: 0 0 1rem } summary { cursor: pointer; font-weight: 600; margin: 0 0 .5rem } li { margin: .2rem 0 }
tr:last-child td { border-bottom: 0 } th { font-weight: 600 } .n { text-align: right }
"""


def put(path: Path, content: str | bytes) -> None:
    """Write a file, atomically; InputError where that cannot be."""
    write_atomically(path, lambda new: new.write_bytes(content.encode() if isinstance(content, str) else content))


def export(lesson: Lesson, nb: NotebookNode, out: Path) -> None:
    """The lesson as a page, and its figures as files; those of an earlier call that are no more are removed."""
    from nbconvert import HTMLExporter

    heading, own = lesson.title, re.compile(re.escape(lesson.name) + r"-\d+\.png")
    stale = {path for path in (out / "figures").iterdir() if own.fullmatch(path.name)}
    lesson.figures = []
    for cell in nb.cells:
        if cell.cell_type == "markdown" and (found := re.findall(r"^#+ +(.+)$", cell.source, re.M)):
            heading = plain(found[-1])
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                path = out / "figures" / f"{lesson.name}-{len(lesson.figures) + 1:02}.png"
                put(path, base64.b64decode(output.data["image/png"]))
                lesson.figures.append((path.name, heading))
    for path in stale - {out / "figures" / name for name, _ in lesson.figures}:
        path.unlink()
    page, _ = HTMLExporter().from_notebook_node(nb, resources={"metadata": {"name": lesson.title}})
    put(out / f"{lesson.name}.html", page)
    lesson.exported = True


@cache
def machine() -> str:
    """Processor, cores and device."""
    name = platform.processor() or platform.machine()
    try:
        if platform.system() == "Darwin":
            name = subprocess.check_output(["sysctl", "-n", "machdep.cpu.brand_string"], text=True).strip()
        else:
            name = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.M)[1]
    except (OSError, subprocess.SubprocessError, TypeError):
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    device = Machine().torch_device()
    graphics = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    return f"{name}, {cores} cores, device {device}{graphics}"


def finished_runs() -> Iterator[tuple[str, ...]]:
    """A row for each finished run of the store, newest first."""
    for run in all_runs():
        try:
            if r := run.result:
                yield (r["method"], Path(r["data"]).name, f"{r['labels']:,}", str(r["seed"]), f"{r['steps']:,}",
                       f"{r['test_acc']:.1%}", f"{r['test_acc_median20']:.1%}", f"{r['seconds']:.0f}")
        except (InputError, KeyError, TypeError, ValueError):
            continue                    # damaged, or another program's: `sslkit runs` says so


def card(lesson: Lesson) -> str:
    """A lesson: what it asks, how it went, its figures."""
    name, links, figures, error = quote(lesson.name), "", "", ""
    if lesson.exported:
        links = (f'<p><a href="{name}.html">Read the lesson</a> · '
                 f'<a href="notebooks/{name}.ipynb">executed notebook</a></p>')
    for number, (file, shows) in enumerate(lesson.figures, 1):
        figures += (f'<a href="figures/{quote(file)}"><img loading="lazy" src="figures/{quote(file)}" '
                    f'alt="{escape(f"figure {number} of {lesson.title}: {shows}")}"></a>\n')
    if lesson.error not in lesson.status:               # there it is cut short
        error = f"<pre>{escape(lesson.error)}</pre>\n"
    return f"""<article class="{lesson.state}">
<div class="top"><h3>{escape(lesson.title)}</h3><span class="status">{escape(lesson.status)}</span></div>
<p>{escape(lesson.question)}</p>
{error}{links}
{f'<div class="figures">{figures}</div>' if figures else ""}
</article>
"""


def papers_tables() -> str:
    """The papers' tables, each to be opened, those with figures of ours open."""
    parts, runs = [], finished()
    for name, one in papers.tables().items():
        lines = papers.beside(one, runs=runs)
        rows, notes = papers.shown(one, lines)
        head, *rows = papers.filled(rows)
        ours = sum(bool(line.values) for line in lines)
        said = f"{ours} of {len(lines)} rows have figures of ours" if ours else "nothing of ours yet"
        below = "".join(f"<li>{escape(note)}</li>" for note in notes)
        summary = f'{escape(one.title)} <span class="soft">{escape(one.unit)}; {said}</span>'
        links = f'<p class="soft">As text: <a href="tables/{name}.md">{name}.md</a>, <a href="tables/{name}.csv">{name}.csv</a></p>'
        parts.append(f"<details{' open' * bool(ours)}><summary>{summary}</summary>\n{table(tuple(head), rows)}"
                     f'<ul class="soft">{below}</ul>{links}</details>\n')
    return "".join(parts)


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table; the first two columns are text, the others numbers."""
    def line(cells: tuple[str, ...], tag: str) -> str:
        return "".join(f"<{tag}{' class=n' * (k > 1)}>{escape(cell)}</{tag}>" for k, cell in enumerate(cells))

    body = "".join(f"<tr>{line(row, 'td')}</tr>\n" for row in rows)
    return f'<div class="table"><table>\n<tr>{line(head, "th")}</tr>\n{body}</table></div>'


def page(lessons: list[Lesson], command: str, began: datetime, seconds: float) -> str:
    """The summary page. While lessons run it loads itself again."""
    states = [lesson.state for lesson in lessons]
    going = "running" in states or ("waiting" in states and "stopped" not in states)
    order = ("finished", "failed", "stopped", "running", "waiting")
    counts = ", ".join(f"{states.count(state)} {state}" for state in order if state in states)
    facts = {"Begun": began.strftime("%Y-%m-%d %H:%M"), "Command": f"<code>{escape(command)}</code>",
             "Machine": escape(machine()),
             "Versions": f"sslkit {__version__}, torch {torch.__version__}, Python {platform.python_version()}"}
    head = ("method", "data", "labels", "seed", "steps", "test accuracy", "median of last 20", "seconds")
    rows = list(finished_runs())
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{'<meta http-equiv="refresh" content="5">' if going else ""}
<title>sslkit: the lessons</title>
<style>{STYLE}</style>
</head>
<body><main>
<h1>sslkit: the lessons</h1>
<p class="lead">{counts} <span class="soft">in {clock(seconds)}</span></p>
<dl>{"".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts.items())}</dl>
<h2>Lessons</h2>
{"".join(map(card, lessons))}
<h2>The papers' tables</h2>
{"<p>When the lessons are through.</p>" if going else papers_tables()}
<h2>Runs</h2>
<p class="soft">Finished runs in <code>{escape(str(store().absolute()))}</code>, newest first.</p>
{table(head, rows) if rows else "<p>None yet.</p>"}
</main></body>
</html>
"""
