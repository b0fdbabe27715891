"""An executed lesson as a page for readers (lesson.html, filled in) and as slides without code (slides.html).

Everything a notebook shows is sanitised, and the pages load nothing: formulas become MathML, pictures are in the page.
"""
import base64
import hashlib
import mimetypes
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from html import escape, unescape
from math import prod
from pathlib import Path
from xml.etree.ElementTree import Element

import bleach
from bleach.css_sanitizer import CSSSanitizer
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from latex2mathml.converter import convert_to_element
from nbconvert.filters import Highlight2HTML, strip_ansi
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode

from sslkit.batch.notebook_file import FRAMES, Lesson, is_table, plain_text
from sslkit.files import write_file

HERE = Path(__file__).parent
PAGES = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
                    lstrip_blocks=True)
TAGS = {*bleach.ALLOWED_TAGS, "br", "del", "details", "div", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "img", "p",
        "pre", "s", "span", "sub", "summary", "sup", "table", "tbody", "td", "th", "thead", "tr"}
ATTRIBUTES = {"*": ["class", "id", "style"], "a": ["href", "title"], "details": ["open"],
              "img": ["alt", "src", "title"]}
MATH_ATTRIBUTES = {"accent", "columnalign", "columnspacing", "display", "displaystyle", "fence", "form", "lspace",
                   "linethickness", "mathsize", "mathvariant", "movablelimits", "rowspacing", "rspace", "scriptlevel",
                   "stretchy", "width"}
MARK = "\ue000"                      # around the number of a formula while the text about it is sanitised
KINDS = {"image/svg+xml": "svg", "image/png": "png", "image/jpeg": "jpg"}
LARGE = 1_500_000                    # bytes of a page, from which on it says which picture is the largest


def harmless(html: str) -> str:
    """HTML of a notebook without what a browser would run."""
    return bleach.clean(html, tags=TAGS, attributes=ATTRIBUTES, css_sanitizer=CSSSanitizer())


def mathml(formula: str, block: bool) -> str:
    """LaTeX as MathML, which browsers show without a network; as code if it cannot be read. The converter lets HTML and
    links of a formula through, so the elements are written anew."""
    def written(node: Element) -> str:
        text = unescape(node.text or "").removeprefix("\\")         # of a command that it does not know, as \\arg
        if node.get("mathvariant") == "double-struck" and text.isdigit():     # browsers ignore the attribute
            text = "".join(chr(0x1D7D8 + int(digit)) for digit in text)
        allowed = {name: f'"{escape(value)}"' for name, value in node.items() if name in MATH_ATTRIBUTES}
        inside = escape(text) + "".join(written(child) + escape(unescape(child.tail or "")) for child in node)
        tag = node.tag if re.fullmatch(r"math|m[a-z]+", node.tag) else "mrow"
        return f"<{' '.join([tag, *(f'{name}={value}' for name, value in allowed.items())])}>{inside}</{tag}>"

    with suppress(Exception):        # of the converter, for what is no LaTeX
        return written(convert_to_element(formula.strip(), display="block" if block else "inline"))
    return f"<code>{escape(formula)}</code>"


class Renderer(IPythonRenderer):
    """Markdown to HTML; its formulas are kept apart, its headings have names."""

    def __init__(self):
        super().__init__(escape=False)
        self.formulas, self.names = [], Counter()

    def kept(self, formula: str, block: bool) -> str:
        self.formulas.append(mathml(formula, block))
        return f"{MARK}{len(self.formulas) - 1}{MARK}"

    def inline_math(self, body: str) -> str:
        return self.kept(body, False)

    def block_math(self, body: str) -> str:
        return self.kept(body, True)

    def latex_environment(self, name: str, body: str) -> str:
        return self.kept(f"\\begin{{{name}}}{body}\\end{{{name}}}", True)

    def heading(self, text: str, level: int, **attributes) -> str:
        name = re.sub(r"[^a-z0-9]+", "-", re.sub(r"<[^>]*>", "", text).lower()).strip("-") or "part"
        self.names[name] += 1
        return f'<h{level} id="{name}{f"-{self.names[name]}" * (self.names[name] > 1)}">{text}</h{level}>\n'


class Writer:
    """Makes the blocks of one lesson's page (see blocks.html), and its figures as files. pages: the lessons that have a
    page."""

    def __init__(self, lesson: Lesson, out: Path, pages: set[str]):
        self.lesson, self.out, self.pages, self.renderer = lesson, out, pages, Renderer()
        self.heading, self.sizes = lesson.title, []

    def text(self, markdown: str) -> str:
        """Markdown as sanitised HTML: its formulas as MathML, its links to lessons as links to their pages."""
        return self.html(MarkdownWithMath(self.renderer).render(markdown.replace(MARK, "")))

    def html(self, html: str) -> str:
        """HTML of the notebook, sanitised; each picture has an alternative text."""
        clean = re.sub(r'\b(href|src)="([^"]*)"', lambda m: f'{m[1]}="{escape(self.target(m[1], unescape(m[2])))}"',
                       harmless(html))
        clean = re.sub(r'(<img\b[^>]*?) alt=""', r"\1", clean)
        clean = re.sub(r"<img\b(?![^>]* alt=)", '<img alt="picture"', clean)
        clean = re.sub(f"({MARK}[0-9]+{MARK})([.,;:?!)]+)", r'<span class="together">\1\2</span>', clean)
        return re.sub(f"{MARK}([0-9]+){MARK}", lambda m: self.renderer.formulas[int(m[1])], clean)

    def target(self, attribute: str, link: str) -> str:
        """A link as it is right on the page: to another page, or to the file where it is. A picture comes along."""
        path, _, part = link.partition("#")
        file, part = self.lesson.path.parent / path, f"#{part}" if part else ""
        if not path or re.match(r"[a-z][a-z0-9+.-]*:|/", path, re.I):
            return link
        if file.suffix == ".ipynb" and file.stem in self.pages:
            return f"{file.stem}.html{part}"
        with suppress(OSError, ValueError):
            kind = mimetypes.guess_type(file.name)[0] or ""
            if attribute == "src" and kind.startswith("image/"):
                return data_link(kind, file.read_bytes())
            if file.exists():
                return Path(os.path.relpath(file, self.out)).as_posix() + part
        return link

    def blocks(self, cell: NotebookNode) -> Iterator[dict]:
        """What a page shows of a cell. Of one tagged `hide` only an error."""
        if cell.cell_type == "markdown":
            if found := re.findall(r"^#+ +(.+)$", cell.source, re.M):
                self.heading = plain_text(found[-1])
            for html in re.split(r"(?=<h[12][ >])", self.text(cell.source)):
                if html.strip():
                    yield {"kind": "text", "html": html}
        elif cell.cell_type == "code" and cell.source.strip():
            failed = any(output.output_type == "error" for output in cell.outputs)
            if failed or "hide" not in cell.metadata.get("tags", []):
                html = Highlight2HTML(pygments_lexer="ipython3")(cell.source)
                yield {"kind": "code", "html": html, "open": failed}
                for output in cell.outputs:
                    yield from self.output(output, cell.metadata.get("sslkit", {}).get("cover", False))

    def output(self, output: NotebookNode, cover: bool) -> Iterator[dict]:
        """What a page shows of an output: the best form that it has."""
        data, said = output.get("data", {}), output.get("metadata", {})
        if output.output_type == "stream":
            yield printed(output.text, output.name == "stderr")
        elif output.output_type == "error":
            yield printed("\n".join(output.traceback) or f"{output.ename}: {output.evalue}", True)
        elif any("widget-view" in kind for kind in data):
            return                                      # nobody can move it here; its frames stand beside it
        elif kind := next((kind for kind in KINDS if kind in data), None):
            yield self.figure(kind, data, said.get(kind, {}), cover)
        elif "text/html" in data or "text/markdown" in data:
            html = self.html(data["text/html"]) if "text/html" in data else self.text(data["text/markdown"])
            yield {"kind": "text", "html": html}
        elif "text/latex" in data:
            yield {"kind": "text", "html": self.text(data["text/latex"])}
        elif "text/plain" in data:
            yield printed(data["text/plain"])

    def figure(self, kind: str, data: dict, said: dict, cover: bool) -> dict:
        """A picture, which also becomes a file; with its frames, if a slider has left some."""
        content = content_of(kind, data[kind])
        number = len(self.lesson.figures) + 1
        alt = said.get("alt") or f"figure {number} of {self.lesson.title}: {self.heading}"
        file = f"{self.lesson.name}-{number:02}.{KINDS[kind]}"
        write_file(self.out / "figures" / file, content)
        self.lesson.figures.append((file, alt))
        if cover:
            self.lesson.cover = number - 1
        width = said.get("width") if isinstance(said.get("width"), int) else None
        block = {"kind": "picture", "id": f"figure-{number}", "src": data_link(kind, content), "alt": alt,
                 "width": width}
        frames = data.get(FRAMES, {})
        if frames and len(frames["frames"]) == prod(len(axis["labels"]) for axis in frames["axes"]):
            start = 0
            for axis in frames["axes"]:
                start = start * len(axis["labels"]) + axis["start"]
            alts = frames.get("alts") or [alt] * len(frames["frames"])
            pictures = [{"src": data_link(kind, content_of(kind, frame)), "alt": alts[k] or alt, "width": width}
                        for k, (kind, frame) in enumerate(zip(frames["kinds"], frames["frames"]))]
            block |= {"kind": "frames", "axes": frames["axes"], "frames": pictures, "start": start}
        self.sizes.append(sum(len(one["src"]) for one in block.get("frames", [block])))
        return block


def printed(text: str, error: bool = False) -> dict:
    """What was printed. Columns keep their places, and scroll where the window is narrow; sentences are wrapped."""
    text = strip_ansi(text)
    return {"kind": "printed", "text": text, "error": error, "columns": bool(re.search(r"^\s|\S  +\S|\t", text, re.M))}


def content_of(kind: str, text: str) -> bytes:
    """A picture's bytes, from what a notebook says."""
    text = text if isinstance(text, str) else "".join(text)
    return text.encode() if kind == "image/svg+xml" else base64.b64decode(text)


def data_link(kind: str, content: bytes) -> str:
    """A picture in a link. A browser runs nothing of an SVG that an <img> shows."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def export(lesson: Lesson, nb: NotebookNode, out: Path, course: Sequence[Lesson] = ()) -> str:
    """Write the lesson as a page and as slides, and its figures as files; remove the figures of an earlier call.

    course: the lessons that are exported too, in the order in which one reads them. Returns a note if the page is
    large, else nothing.
    """
    own = re.compile(re.escape(lesson.name) + r"-\d+\.(png|svg|jpg)")
    stale = {path for path in (out / "figures").iterdir() if own.fullmatch(path.name)}
    lesson.figures, lesson.cover = [], 0
    writer = Writer(lesson, out, {one.name for one in course} | {lesson.name})
    blocks = [block for cell in nb.cells for block in writer.blocks(cell)]
    for path in stale - {out / "figures" / name for name, _ in lesson.figures}:
        path.unlink()
    headings, parts = [], [[]]
    for block in blocks:
        found = re.match(r'<h([12]) id="([^"]+)">(.*?)</h', block.get("html", ""), re.S)
        if found and block["kind"] == "text":
            parts.append([])
            if found[1] == "2":
                headings.append((found[2], re.sub(r"</?a\b[^>]*>", "", found[3])))
        parts[-1].append(block)
    chain = [one for one in course if not is_table(one.path)]
    at = next((k for k, one in enumerate(chain) if one is lesson), None)
    beside = [None if at is None or not 0 <= at + step < len(chain) else
              {"href": f"{chain[at + step].name}.html", "title": chain[at + step].title} for step in (-1, 1)]
    script = (HERE / "lesson.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    about = {"title": lesson.title, "script": script, "policy":
             f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"}
    page = PAGES.get_template("lesson.html").render(
        **about, blocks=blocks, headings=headings, number=lesson.number, before=beside[0], after=beside[1],
        slides=f"{lesson.name}-slides.html", notebook=f"notebooks/{lesson.name}.ipynb")
    write_file(out / f"{lesson.name}.html", page)
    write_file(out / f"{lesson.name}-slides.html", PAGES.get_template("slides.html").render(
        **about, parts=[part for part in parts if part], page=f"{lesson.name}.html"))
    lesson.exported = True
    if len(page) <= LARGE:
        return ""
    largest = max(range(len(writer.sizes)), key=writer.sizes.__getitem__, default=0)
    which = f"; its largest figure, {lesson.figures[largest][0]}, makes {writer.sizes[largest] / 1e6:.1f} MB of it: " \
            f"{lesson.figures[largest][1]}" if writer.sizes else ""
    return f"note: {lesson.name}.html has {len(page) / 1e6:.1f} MB{which}"
