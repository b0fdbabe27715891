"""The summary page of `sslkit reproduce` (page.html, filled in): a course first, then how it was made."""
import os
import platform
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from functools import cache
from pathlib import Path

import torch

from sslkit import __version__, papers
from sslkit.batch.lesson_page import PAGES
from sslkit.batch.notebook_file import Lesson, is_table
from sslkit.errors import InputError
from sslkit.terminal import clock
from sslkit.training import Machine, all_runs, finished, store

STATES = ("finished", "failed", "stopped", "running", "waiting")
NO_CHOICE = {"method", "name", "labels", "seed", "steps", "split", "unlabeled", "channels", "classes", "flip", "side"}


@cache
def machine() -> str:
    """Processor, cores and device."""
    name, device = platform.processor() or platform.machine(), Machine().torch_device()
    with suppress(OSError, TypeError):                  # Linux alone has it
        name = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.M)[1]
    graphics = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    return f"{name}, {os.cpu_count()} cores, device {device}{graphics}"


def settings(record: Mapping) -> Iterator[tuple[str, str]]:
    """The settings in a run's config.json, flat, without those that have a column or that are no choice."""
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from settings(value) if name != "code" else ()
        elif name not in NO_CHOICE:
            yield name, f"{value:g}" if isinstance(value, float) else str(value)


def finished_runs() -> list[tuple[str, ...]]:
    """A head, then a row for each finished run of the store, newest first. `settings`: where it differs from most runs
    of its method; its digest where that does not tell it from another run. `sslkit runs` says what cannot be read."""
    found, counts = [], {}
    for run in all_runs():
        with suppress(InputError, KeyError, TypeError, ValueError, AttributeError):
            if r := run.result:
                row = (r["method"], Path(r["data"]).name, f"{r['labels']:,}", str(r["seed"]), f"{r['steps']:,}",
                       f"{r['test_acc']:.1%}", f"{r['test_acc_median20']:.1%}", f"{r['seconds']:.0f}")
                found.append((row, dict(settings(run.config)), run.path.name[-8:]))
    for (method, *_), mine, _ in found:
        for name, value in mine.items():
            counts.setdefault((method, name), Counter())[value] += 1
    special = [", ".join(f"{name} {value}" for name, value in mine.items()
                         if value != counts[row[0], name].most_common(1)[0][0]) for row, mine, _ in found]
    alike = Counter((row[:5], said) for (row, *_), said in zip(found, special))
    return [("method", "data", "labels", "seed", "steps", "test accuracy", "median of last 20", "seconds", "settings"),
            *((*row, said if alike[row[:5], said] == 1 else f"{said} ({digest})".strip())
              for (row, _, digest), said in zip(found, special))]


def papers_tables() -> Iterator[dict]:
    """The papers' tables with our results, as page.html shows them: first the rows that have any."""
    runs = finished()
    for name, one in papers.tables().items():
        lines = papers.beside(one, runs=runs)
        rows, notes = papers.shown(one, lines)
        ours = [bool(row["ours"]) for row in rows]
        head, *rows = papers.filled(rows)
        yield {"name": name, "title": one.title, "unit": one.unit, "notes": notes, "ours": sum(ours),
               "count": len(lines), "parts": [
                   [head, *(row for row, mine in zip(rows, ours) if mine == ask)] for ask in (True, False)]}


def page(lessons: list[Lesson], command: str, began: datetime, seconds: float, over: bool = False) -> str:
    """The summary page. While lessons run it loads itself again every 5 seconds. over: none will run any more."""
    states = [lesson.state for lesson in lessons]
    course, tables = ([one for one in lessons if is_table(one.path) == ask] for ask in (False, True))
    going = not over and ("running" in states or "waiting" in states)
    return PAGES.get_template("page.html").render(
        course=course, hero=next((one for one in course if one.figures), None), lessons=lessons, command=command,
        going=going, for_researchers=tables, began=began.strftime("%Y-%m-%d %H:%M"),
        counts=", ".join(f"{states.count(state)} {state}" for state in STATES if state in states), took=clock(seconds),
        look=going or {"failed", "stopped"} & {*states}, machine=machine(), store=store().absolute(),
        versions=f"sslkit {__version__}, torch {torch.__version__}, Python {platform.python_version()}",
        tables=[] if going else list(papers_tables()), runs=finished_runs())
