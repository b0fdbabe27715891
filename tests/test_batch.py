"""sslkit reproduce on tiny notebooks, in real kernels."""
import errno
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import papermill
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from papermill.exceptions import PapermillExecutionError

from sslkit.batch import jobs, lesson_page, watch
from sslkit.batch import notebook_file as lesson
from sslkit.batch import page as report
from sslkit.batch import reproduction as batch
from sslkit.batch.execute_notebook import execute
from sslkit.batch.process import lease_of
from sslkit.errors import InputError
from sslkit.files import Lease

FIGURE = "import matplotlib.pyplot as plt\nplt.figure(figsize=(1, 1)); plt.plot([0, 1]); plt.show()"


def write(folder: Path, name: str, *cells: str | tuple[str, str], seconds: int | None = None, title: str = "T") -> Path:
    """A lesson: code, or (code, tag), or markdown that begins with #."""
    nb = new_notebook(cells=[new_markdown_cell(f"# {title}\n\nWhat is **asked**?\nThat.\n\nAnd more.")])
    for cell in cells:
        source, tags = (cell[0], [cell[1]]) if isinstance(cell, tuple) else (cell, [])
        make = new_markdown_cell if source.startswith("#") else new_code_cell
        nb.cells.append(make(source, metadata={"tags": tags} if tags else {}))
    if seconds:
        nb.metadata["sslkit"] = {"seconds": seconds}
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(nb, folder / f"{name}.ipynb")
    return folder / f"{name}.ipynb"


def outputs(path: Path) -> str:
    """All the text that an executed notebook shows."""
    cells = nbformat.read(path, 4).cells
    return "".join(output.get("text", "") for cell in cells for output in cell.get("outputs", []))


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SSLKIT_RUNS", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "notebooks"


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Four lessons, run once, for a user who has another `python3` kernel, and a backend that shows no pictures."""
    here, decoy = tmp_path_factory.mktemp("project {x}"), tmp_path_factory.mktemp("jupyter")
    kernel = decoy / "kernels" / "python3"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text('{"argv": ["/bin/false"], "display_name": "x", "language": "python"}')
    (here / "notebooks" / "data.txt").parent.mkdir()
    (here / "notebooks" / "data.txt").write_text("beside the lesson")
    write(here / "notebooks", "00_good", "import os, sys\nprint('EXE', sys.executable)",
          "print(open('data.txt').read())", "print('RUNS', os.environ['SSLKIT_RUNS'])", "## First", FIGURE,
          "## Second <&>", FIGURE, title="<script>alert(1)</script> & [a link](x.html)")
    write(here / "notebooks", "01_bad", "x = 1", "# text", "raise ValueError('<b>bad</b>\\nsecond line')",
          "print('never')")
    write(here / "notebooks", "02_dead", "import os\nos._exit(3)", "print('never')")
    write(here / "notebooks", "03_meant", ("1 / 0", "raises-exception"), "print('goes on')")
    (here / "out" / "figures").mkdir(parents=True)
    for name in ("00_good-07.png", "other.png"):
        (here / "out" / "figures" / name).write_text("old")
    run = here / "store" / "a"
    run.mkdir(parents=True)
    (run / "config.json").write_text("{}")
    (run / "result.json").write_text(json.dumps({
        "method": "<i>fix", "data": "digits", "labels": 20, "seed": 3, "steps": 2000, "test_acc": .9625,
        "test_acc_median20": .961, "seconds": 22.4}))
    stream = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(decoy))
        patch.setenv("MPLBACKEND", "Agg")
        patch.setenv("SSLKIT_RUNS", "store")
        patch.chdir(here)
        good = batch.reproduce(out="out", stream=stream)
        assert os.getcwd() == str(here)
    return here, good, stream.getvalue()


def test_others_run_when_one_fails(ran):
    here, good, said = ran
    assert not good
    assert re.match(r"4 notebooks: 0 found in the store, 4 to do\non \d workers? with \d+ threads? each, about ", said)
    assert all(re.search(f"^{name}  finished in .+ s$", said, re.M) for name in ("00_good", "03_meant"))
    assert re.search("^2 of 4 lessons finished in 0:.+; see out/index.html$", said, re.M)
    assert "01_bad  failed in cell 2: ValueError: <b>bad</b>\n" in said
    assert "the kernel died" in said


def test_kernel_is_this_interpreters_in_the_lessons_folder_with_one_store(ran):
    text = outputs(ran[0] / "out" / "notebooks" / "00_good.ipynb")
    assert f"EXE {sys.executable}\n" in text
    assert "beside the lesson" in text
    assert f"RUNS {ran[0] / 'store'}\n" in text


@pytest.mark.parametrize("name, error", [("01_bad", "ValueError"), ("02_dead", "DeadKernelError")])
def test_error_is_kept_in_notebook_and_page(ran, name, error):
    out = ran[0] / "out"
    nb = nbformat.read(out / "notebooks" / f"{name}.ipynb", 4)
    assert error in [output.get("ename") for cell in nb.cells for output in cell.get("outputs", [])]
    assert "papermill-error-cell" in "".join(cell.source for cell in nb.cells)
    assert "never" not in outputs(out / "notebooks" / f"{name}.ipynb")
    assert "papermill-error-cell" in (page := (out / f"{name}.html").read_text()) and error in page


def test_an_error_that_is_meant_is_none(ran):
    path = ran[0] / "out" / "notebooks" / "03_meant.ipynb"
    assert "goes on" in outputs(path)
    assert "papermill-error-cell" not in path.read_text()


def test_figures_are_files(ran):
    figures = ran[0] / "out" / "figures"
    assert sorted(path.name for path in figures.iterdir()) == ["00_good-01.png", "00_good-02.png", "other.png"]
    assert (figures / "00_good-01.png").read_bytes()[:4] == b"\x89PNG"
    assert "data:image/png;base64" in (ran[0] / "out" / "00_good.html").read_text()


class Elements(HTMLParser):
    """The tags of a page with their attributes, and its text without what scripts and styles say."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.text, self.inside = [], "", ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside = tag

    def handle_data(self, data):
        self.text += data if self.inside not in ("script", "style") else ""


def exported(tmp_path, *cells) -> Elements:
    """The page of a notebook of these cells."""
    nbformat.write(nb := new_notebook(cells=list(cells)), tmp_path / "00_a.ipynb")
    (tmp_path / "figures").mkdir(exist_ok=True)
    lesson_page.export(lesson.read(tmp_path / "00_a.ipynb"), nb, tmp_path)
    return Elements((tmp_path / "00_a.html").read_text())


def test_an_exported_lesson_runs_nothing_of_a_notebooks_html(tmp_path):
    attack = (r"$\href{javascript:run()}{x} \text{<script>run()</script><img src=y onerror=run()>}$ "
              "<details open ontoggle=run()><summary onclick=run()>more</summary></details> <img src=x onerror=run()> <svg onload=run()></svg> <script>run()</script> [x](javascript:run()) "
              "<a href='javascript:run()'>y</a>")
    page = exported(tmp_path, new_markdown_cell(attack), new_code_cell("1", outputs=[
        new_output("display_data", data={kind: attack}) for kind in (
            "text/html", "text/markdown", "application/javascript", "text/vnd.mermaid", "text/latex", "text/plain",
            "image/svg+xml")]))
    plain = exported(tmp_path, new_markdown_cell("text"))
    assert sum(tag == "script" for tag, _ in page.tags) == sum(tag == "script" for tag, _ in plain.tags) == 1
    assert not [(tag, name) for tag, attributes in page.tags for name in attributes if name.startswith("on")]
    assert not [value for _, attributes in page.tags for value in attributes.values() if "javascript:" in (value or "")]
    assert "x" in [attributes.get("src") for _, attributes in page.tags], "the picture itself stays"
    assert not {"svg", "object", "iframe"} & {tag for tag, _ in page.tags}, "an SVG is shown as an <img>, which runs nothing"
    policy = next(attributes["content"] for tag, attributes in page.tags if "Content-Security" in attributes.get("http-equiv", ""))
    assert policy.startswith("default-src 'none'; img-src data:;") and "script-src 'sha256-" in policy


def test_an_exported_lesson_keeps_headings_tables_formulas_pictures_and_colours(tmp_path):
    table = "method | error\n---|--:\nFixMatch | 4.26"
    text = f"# Head\n\ntext $p < 0.95 & q$ and *more*\n\n$$\\hat{{q}}$$\n\n- item\n\n{table}\n\n![p](p.png)"
    shown = new_output("display_data", data={"text/markdown": table})
    page = exported(tmp_path, new_markdown_cell(text), new_code_cell("x < 1", outputs=[shown]))
    tags = [tag for tag, _ in page.tags]
    assert tags.count("table") == tags.count("thead") == 2 and tags.count("th") == 4
    assert {"h1", "em", "li", "p", "tbody"} <= set(tags) and page.text.count("<") == 2, "no tag is shown as text"
    assert [attributes["display"] for tag, attributes in page.tags if tag == "math"] == ["inline", "block"]
    assert "$" not in page.text and "p<0.95&q" in page.text and "mover" in tags
    styles = [attributes["style"] for tag, attributes in page.tags if tag == "td" and "style" in attributes]
    assert styles == ["text-align:right;"] * 2
    assert any(attributes.get("src") == "p.png" for _, attributes in page.tags)
    assert ("span", {"class": "mi"}) in page.tags, "code is coloured"


def test_summary_page(ran):
    page = (ran[0] / "out" / "index.html").read_text()
    assert "<script" not in page and "&lt;script&gt;alert(1)&lt;/script&gt; &amp; a link" in page
    assert "<title>Learn with few labels</title>" in page and page.index("<article") < page.index("How this page was made")
    assert '<details class="fold log" open>' in page, "a lesson has failed"
    assert "failed in cell 2: ValueError: &lt;b&gt;bad&lt;/b&gt;<" in page
    assert "<pre>ValueError: &lt;b&gt;bad&lt;/b&gt;\nsecond line</pre>" in page
    assert "What is asked? That.<" in page
    assert "2 finished, 2 failed" in page and 'http-equiv="refresh"' not in page
    assert "sslkit reproduce --out out<" in page
    assert "<td>&lt;i&gt;fix</td><td>digits</td>" in page and ">96.2%<" in page and str(ran[0] / "store") in page
    assert 'alt="figure 2 of &lt;script&gt;alert(1)&lt;/script&gt; &amp; a link: Second &lt;&amp;&gt;"' in page
    links = re.findall(r'(?:href|src)="([^"]+)"', page)
    files = {link.partition("#")[0] for link in links}
    assert {"00_good.html", "00_good-slides.html", "notebooks/00_good.ipynb", "figures/00_good-01.png"} <= files
    assert all((ran[0] / "out" / file).is_file() for file in files)                 # and so nothing from the network


def test_pages_lead_to_each_other_in_the_order_of_the_course(tmp_path):
    for name in ("04_d", "02_b", "00_a", "90_t", "08_own"):
        write(tmp_path / "notebooks", name, "# See [b](02_b.ipynb#then), [c](03_c.ipynb), [text](data.txt)", title=f"Title {name}")
    (tmp_path / "notebooks" / "data.txt").write_text("x")
    write(tmp_path / "elsewhere", "03_c")
    (tmp_path / "out" / "figures").mkdir(parents=True)
    course = [lesson.read(path) for path in lesson.lessons(tmp_path / "notebooks")]
    for one in course:
        lesson_page.export(one, one.nb, tmp_path / "out", course)

    def links(name: str, **wanted: str) -> list[str]:
        tags = Elements((tmp_path / "out" / f"{name}.html").read_text()).tags
        return [attributes["href"] for tag, attributes in tags if tag == "a" and wanted.items() <= attributes.items()]

    chain = {name: links(name, rel="prev")[:1] + links(name, rel="next")[:1] for name in ("00_a", "02_b", "04_d", "08_own", "90_t")}
    assert chain == {"00_a": ["02_b.html"], "02_b": ["00_a.html", "04_d.html"], "04_d": ["02_b.html", "08_own.html"],
                     "08_own": ["04_d.html"], "90_t": []}
    found = links("00_a")
    assert {"02_b.html#then", "../notebooks/data.txt", "03_c.ipynb", "index.html", "00_a-slides.html"} <= set(found)
    assert "index.html" in links("90_t") and "00_a.html" in links("00_a-slides")


SLIDER = {"axes": [{"name": "tau", "labels": ["0.5", "0.9"], "start": 1}, {"name": "t", "labels": ["1", "2", "3"], "start": 0}],
          "frames": ["Zg==", "Zh==", "Zi==", "Zj==", "Zk==", "Zl=="], "kinds": ["image/png"] * 6, "alts": [f"at {k}" for k in range(6)]}
SVG = "<svg xmlns='http://www.w3.org/2000/svg'/>"


def a_lesson() -> list:
    """Cells with all that a page changes."""
    shown = new_output("display_data", data={"image/png": "Zj==", lesson.FRAMES: SLIDER, "text/plain": "p"},
                       metadata={"image/png": {"alt": "At 0.9 few are wrong.", "width": 500}})
    fold = "**03.1** How many?\n\n<details><summary>Hint</summary>\n\nSee $x$.\n\n</details>"
    return [new_markdown_cell("# Title\n\ntext"), new_code_cell("hidden = 1", metadata={"tags": ["hide"]}),
            new_markdown_cell("## One\n\n![](nothing.png)"), new_code_cell("slider()", outputs=[shown], metadata={"sslkit": {"cover": True}}),
            new_markdown_cell("## Two *and* $q$\n\n## Two *and* $q$"),
            new_code_cell("how()", outputs=[new_output("display_data", data={"image/svg+xml": SVG})]),
            new_code_cell("exercise()", outputs=[new_output("display_data", data={"text/markdown": fold, "text/plain": "<x>"})]),
            new_code_cell("1 / 0", metadata={"tags": ["hide"]}, outputs=[
                new_output("error", ename="ZeroDivisionError", evalue="no", traceback=["\x1b[31mZeroDivisionError\x1b[0m: no"])])]


def test_a_page_has_sliders_folds_alternative_texts_and_no_hidden_cell(tmp_path):
    from sslkit.lessons.widgets import frames as widgets

    assert widgets.FRAMES == lesson.FRAMES, "a room below may not be asked"
    page = exported(tmp_path, *a_lesson())
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert all(one["alt"] for one in pictures) and len(pictures) == 1 + 6 + 1
    assert [one["alt"] for one in pictures if "hidden" not in one][1] == "at 3", "row by row: the last axis changes fastest"
    ranges = [attributes for tag, attributes in page.tags if tag == "input"]
    assert [(one["type"], one["max"], one["value"], json.loads(one["data-labels"])) for one in ranges] == [
        ("range", "1", "1", ["0.5", "0.9"]), ("range", "2", "0", ["1", "2", "3"])]
    assert pictures[-1]["src"].startswith("data:image/svg+xml;base64,")
    assert "hidden = 1" not in page.text and "1 / 0" in page.text.replace("\n", ""), "an error is always shown"
    assert "ZeroDivisionError: no" in page.text and "\x1b" not in page.text
    tags = [tag for tag, _ in page.tags]
    assert tags.count("details") == 4 + 1 and "Hint" in page.text and "<x>" not in page.text
    ids = [attributes["id"] for _, attributes in page.tags if attributes.get("id", "").startswith("two")]
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a" and attributes["href"].startswith("#")]
    assert len(ids) == len(set(ids)) == 2 and links == ["#one", *(f"#{one}" for one in ids)]
    slides = Elements((tmp_path / "00_a-slides.html").read_text())
    assert [tag for tag, _ in slides.tags].count("section") == 4, "a screen a heading"
    assert "slider()" not in slides.text and [tag for tag, _ in slides.tags].count("input") == 2


def test_columns_keep_their_places_and_sentences_are_wrapped(tmp_path):
    page = exported(tmp_path, new_code_cell("x", outputs=[
        new_output("stream", text=text) for text in ("a long sentence, with 93.5% in it\n", "x   (32, 1)\nlonger (2,)\n")]))
    assert [attributes.get("class") for tag, attributes in page.tags if tag == "pre"][1:] == [" sentences", ""]


def test_the_figures_of_a_lesson_and_which_of_them_stands_for_it(tmp_path):
    nbformat.write(nb := new_notebook(cells=a_lesson()[4:] + a_lesson()[:4]), tmp_path / "00_a.ipynb")
    (tmp_path / "figures").mkdir()
    lesson_page.export(one := lesson.read(tmp_path / "00_a.ipynb"), nb, tmp_path)
    assert one.figures == [("00_a-01.svg", "figure 1 of Two and q: Two and q"), ("00_a-02.png", "At 0.9 few are wrong.")] and one.cover == 1
    assert (tmp_path / "figures" / "00_a-01.svg").read_text() == SVG


def test_a_large_page_names_its_largest_figure(tmp_path):
    (tmp_path / "figures").mkdir()
    shown = [new_output("display_data", data={"image/png": "A" * size}) for size in (400, 1_600_000, 800)]
    nbformat.write(nb := new_notebook(cells=[new_markdown_cell("# T"), new_code_cell("x", outputs=shown)]), tmp_path / "00_a.ipynb")
    assert lesson_page.export(lesson.read(tmp_path / "00_a.ipynb"), nb, tmp_path).startswith(
        "note: 00_a.html has 1.6 MB; its largest figure, 00_a-02.png, makes 1.6 MB of it: ")
    nb.cells[1].outputs = shown[:1]
    assert lesson_page.export(lesson.read(tmp_path / "00_a.ipynb"), nb, tmp_path) == ""


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[1] / "notebooks").glob("[0-9]*.ipynb")), ids=lambda path: path.stem)
def test_the_page_of_a_committed_lesson(path, tmp_path):
    (tmp_path / "figures").mkdir()
    course = [lesson.read(other) for other in lesson.lessons(path.parent)]
    one = next(one for one in course if one.path == path)
    lesson_page.export(one, one.nb, tmp_path, course)
    pages = {f"{other.name}{end}.html" for other in course for end in ("", "-slides")} | {"index.html"}
    page = Elements((tmp_path / f"{one.name}.html").read_text())
    for tag, attributes in page.tags:
        link = attributes.get("href", "").partition("#")[0]
        assert not link or link in pages or link.startswith(("https:", "notebooks/")) or (tmp_path / link).exists(), link
        assert tag != "img" or attributes["alt"], "a picture without an alternative text"
    source = re.sub(r"```.*?```|`[^`]*`", "", "".join(cell.source for cell in one.nb.cells if cell.cell_type == "markdown"), flags=re.S)
    formulas = len(re.findall(r"\$\$.+?\$\$|\$[^$]+\$", source, re.S))
    assert [tag for tag, _ in page.tags].count("math") >= formulas, "each formula is MathML, as is that of a heading in the contents"
    assert "\\" not in "".join(re.findall(r"<math.*?</math>", (tmp_path / f"{one.name}.html").read_text(), re.S)), "a command is unknown"
    assert re.search(r'rel="(prev|next)"', (tmp_path / f"{one.name}.html").read_text()) or path.stem >= "90"


def test_runs_that_differ_in_a_setting_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setenv("SSLKIT_RUNS", str(tmp_path))

    def run(name, arguments, imbalance=1.0, **result):
        (tmp_path / name).mkdir()
        data = {"name": "digits", "labels": 20, "split": name, "imbalance": [imbalance, imbalance]}
        config = {"method": "simmatch", "arguments": arguments, "data": data, "train": {"seed": 1, "steps": 9, "lr": 0.03}, "code": {"core": name}}
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        (tmp_path / name / "result.json").write_text(json.dumps({
            "method": "simmatch", "data": "digits", "labels": 20, "seed": 1, "steps": 9, "test_acc": .9, "test_acc_median20": .9,
            "seconds": 1.0} | result))

    for k in range(2):
        run(f"simmatch-s1-0000000{k}", {"alpha": 0.9, "t": 0.1})
    run("simmatch-s1-00000002", {"alpha": 0.5, "t": 0.1})
    run("simmatch-s1-00000003", {"alpha": 0.9, "t": 0.02}, imbalance=20.0)
    head, *rows = report.finished_runs()
    assert head[-1] == "settings"
    assert sorted(row[-1] for row in rows) == ["(00000000)", "(00000001)", "alpha 0.5", "t 0.02, imbalance [20.0, 20.0]"]


def test_rows_of_a_paper_without_a_number_of_ours_are_folded(tmp_path, monkeypatch):
    monkeypatch.setenv("SSLKIT_RUNS", str(tmp_path))
    page, tables = report.page([], "sslkit reproduce", report.datetime(2026, 1, 2), 1, over=True), [*report.papers_tables()]
    assert all(len(one["parts"][0]) == 1 and len(one["parts"][1]) == one["count"] + 1 for one in tables)
    assert "without a number of ours" not in page and 'class="fold" open' not in page, "nothing of ours: closed as a whole"
    some = [{**one, "ours": 1, "parts": [one["parts"][1][:2], one["parts"][1][:1] + one["parts"][1][2:]]} for one in tables]
    monkeypatch.setattr(report, "papers_tables", lambda: some)
    page = report.page([], "sslkit reproduce", report.datetime(2026, 1, 2), 1, over=True)
    assert page.count("without a number of ours</summary>") == sum(one["count"] > 1 for one in tables)


def test_parameters_are_given_to_the_lessons_that_have_them(project):
    write(project, "00_a", ("steps: int | None = 200  # how many\nlr = .5\nname = 'a=b'\non = True", "parameters"),
          "print(steps, lr, name, on)")
    write(project, "01_b", "print('none here')")
    given = {"steps": "7", "lr": "1", "name": "it's \"x\" \\ {y}", "on": "False"}
    assert batch.reproduce(parameters=given, out="r{steps}", stream=io.StringIO())
    assert outputs(Path("r{steps}/notebooks/00_a.ipynb")) == "7 1.0 it's \"x\" \\ {y} False\n"
    page = Path("r{steps}/index.html").read_text()
    assert "sslkit reproduce --out 'r{steps}' -p steps 7 -p lr 1" in unescape(page) and "2 finished" in page


def test_papermill_itself_is_refused_an_unknown_parameter_too(project):
    how = {"kernel_name": "python3", "language": "python", "progress_bar": False}
    with pytest.raises(PapermillExecutionError, match="unknown parameter 'tua': did you mean 'tau'"):
        papermill.execute_notebook(Path(__file__).parents[1] / "notebooks/02_fixmatch.ipynb", "out.ipynb", {"tua": 0.8}, **how)
    path = write(project, "00_a", ("labels: int = 20\nwrite = False", "parameters"), "x = 1",
                 "from sslkit.lessons import begin\nbegin(labels=labels)\nprint(write)")
    papermill.execute_notebook(path, "out.ipynb", {"write": True}, **how)
    assert outputs(Path("out.ipynb")) == "labels = 20\nTrue\n", "begin() need not be given all"


@pytest.mark.parametrize("given, message", [
    ({"stepps": "7"}, "unknown parameter 'stepps': did you mean 'steps'"),
    ({"steps": "7.5"}, "parameter steps is 7.5, it must be of type int like its default, 200"),
    ({"steps": "many"}, "must be of type int"),
    ({"steps": "True"}, "must be of type int"),
    ({"lr": "fast"}, "must be of type float"),
    ({"on": "1"}, "must be of type bool"),
])
def test_parameters_are_checked_before_anything_runs(project, given, message):
    write(project, "00_a", ("steps = 200\nlr = .5\non = True", "parameters"))
    with pytest.raises(InputError, match=re.escape(message)):
        batch.reproduce(parameters=given, stream=io.StringIO())
    assert not Path("report").exists()


def test_a_parameter_with_several_values_makes_a_grid_and_what_ran_through_is_found(project):
    store = project.parent / "store"
    write(project, "00_a", ("seed = 0\nlr = .5", "parameters"), "print(seed, lr)", FIGURE, title="A")
    write(project, "01_b", "1 / 0")
    write(project, "90_simmatch_tables", "print('the store')")

    def said(names=(), **more) -> dict[str, str]:
        stream = io.StringIO()
        batch.reproduce(names, stream=stream, **more)
        return dict(re.findall(r"^(\S+)  ((?:finished|failed) in .*)$", stream.getvalue(), re.M))

    assert set(said(out="first")) == {"00_a", "01_b"}, "the tables only where they are named"
    names = ["00", "01", "90"]
    lines = said(names, parameters={"seed": ["0", "1", "1"], "lr": "1"})
    assert list(map(str, sorted(lines))) == ["00_a_seed=0", "00_a_seed=1", "01_b", "90_simmatch_tables"]
    assert not any("found" in line for line in lines.values()) and lines["01_b"].startswith("failed in cell 1")
    texts = {path.stem: outputs(path) for path in Path("report/notebooks").iterdir()}
    assert texts == {"00_a_seed=0": "0 1.0\n", "00_a_seed=1": "1 1.0\n", "01_b": "",
                     "90_simmatch_tables": "the store\n"}
    assert Path("report/figures/00_a_seed=1-01.png").exists() and "A: seed 1" in Path("report/index.html").read_text()

    job = jobs.notebook_job(lesson.read(project / "01_b.ipynb"), {})
    (reader,) = (store / "notebooks").glob("90_*/result.json")
    with pytest.raises(InputError, match="cannot be reached"):
        batch.reproduce(again=True, scheduler="nonsense", stream=io.StringIO(), out="none")
    assert 'http-equiv="refresh"' not in Path("none/index.html").read_text(), "nothing will change there any more"
    assert (job.path / "notebook.ipynb").exists() and reader.exists(), "nothing is taken away before anything runs"
    assert watch.at_work(store) == ["0 running, 0 finished, 1 failed"]
    assert [one["command"] for one in jobs.errors(store)] == [shlex.join(job.argv)]
    pasted = subprocess.run([sys.executable, "-m", *job.argv], capture_output=True, text=True)
    assert pasted.returncode == 1 and "ZeroDivisionError: division by zero" in pasted.stderr
    record = json.loads((job.path / "config.json").read_text())
    (job.path / "config.json").write_text(json.dumps(record | {"parameters": {"seed": 2}}))
    with Lease(lease_of(store, job.name), str(job.path)):
        head, line = watch.at_work(store)
    assert head == "0 running, 0 finished, 1 failed, 1 notebook running"
    assert line.split() == "01_b seed 2 cell 1 of 1".split()

    write(project, "01_b", "print('corrected')")
    (store / "x").mkdir()
    config = {"method": "fixmatch", "arguments": {}, "data": {"labels": 20}, "train": {"seed": 0}}
    for name, content in (("config", config), ("result", {"test_acc": .9})):
        (store / "x" / f"{name}.json").write_text(json.dumps(content))
    lines = said(names, parameters={"seed": ["0", "1"], "lr": "1"}, out="second")
    found = {name for name, line in lines.items() if "found" in line}
    assert found == {"00_a_seed=0", "00_a_seed=1"} and len(lines) == 4, "another source, another store for its reader"
    assert outputs(Path("second/notebooks/00_a_seed=0.ipynb")) == "0 1.0\n"
    assert outputs(Path("second/notebooks/01_b.ipynb")) == "corrected\n"
    assert "found in the store" in Path("second/index.html").read_text()
    assert watch.at_work(store) == ["0 running, 1 finished, 0 failed"]


def test_every_point_of_a_grid_has_a_name_of_its_own(project):
    path = write(project, "00_a", ("t = None\nb = 1", "parameters"))
    texts = ["a b", "a/b", "A", "a", "x" * 300, "y" * 300, "1", "True", "1.0", "-1", "None", "'q\"'", "ä"]
    values = lesson.typed({"t": texts}, [lesson.read(path)])["00_a"]
    assert len(values["t"]) == len(texts), "True is no 1"
    names = [one.name for one, _ in lesson.grid(lesson.read(path), values)]
    assert len({name.casefold() for name in names}) == len(texts) and all(len(name) < 120 for name in names)
    assert "00_a_t=a" in names and "00_a_t=-1" in names and not any(set(name) & set('/ "\'') for name in names)
    with pytest.raises(InputError, match="parameter t is no text"):
        lesson.typed({"t": ["\udcff"]}, [lesson.read(path)])


def test_a_lesson_without_code_and_an_executed_notebook_that_is_cut_off(project, monkeypatch, tmp_path):
    path = write(project, "00_text", "# only text")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "notebook.ipynb").write_text(path.read_text()[:100])
    one = lesson.read(path)
    one.state, one.error = "failed", "its process was killed by SIGKILL"
    here = batch.Report(tmp_path / "out", [one], "sslkit reproduce", folders={"00_text": tmp_path / "x"})
    here.collect(one)
    here.show()
    assert one.status == "failed before its first cell: its process was killed by SIGKILL" and not one.exported
    assert "00_text.html" not in (tmp_path / "out" / "index.html").read_text(), "no link that leads nowhere"


@pytest.mark.slow
def test_two_batches_of_lessons_share_one_store_and_its_runs(project):
    program = lessons_that_train(project.parent)
    write(project, "03_too", "print('begins')", TRAINS.format(seed=0))
    said = [ended(process) for process in [run_of(program), run_of(program)]]
    assert all("4 of 4 lessons finished" in one for one in said)
    assert len(list((project.parent / "store").glob("*/result.json"))) == 3, "two lessons want the same run"
    for name in ("00_trains", "01_trains", "02_trains", "03_too"):
        lines = [re.search(f"^{name}  .*$", one, re.M)[0] for one in said]
        assert sorted("found in the store" in line for line in lines) == [False, True], "one runs it"


@pytest.mark.slow
def test_lessons_on_workers_started_by_hand(project):
    write(project, "00_a", "import os\nprint('RUNS', os.environ['SSLKIT_RUNS'], os.getcwd())")
    write(project, "01_b", "1 / 0")
    (elsewhere := project.parent / "elsewhere").mkdir()
    file = elsewhere / "scheduler.json"

    def dask(*words):
        return subprocess.Popen([sys.executable, "-m", "dask", *words], cwd=elsewhere, stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL, env=os.environ | {"SSLKIT_RUNS": str(elsewhere / "store")})

    processes = [dask("scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", file)]
    try:
        while not file.exists():
            time.sleep(.1)
        address = json.loads(file.read_text())["address"]
        processes += [dask("worker", address, "--nworkers", "1", "--nthreads", "1", "--no-dashboard") for _ in range(2)]
        stream = io.StringIO()
        assert not batch.reproduce(scheduler=address, stream=stream)
        assert "01_b  failed in cell 1: ZeroDivisionError" in stream.getvalue() and f"at {address}" in stream.getvalue()
        assert outputs(Path("report/notebooks/00_a.ipynb")) == f"RUNS {project.parent / 'store'} {project}\n"
        assert not (elsewhere / "store").exists()
        begin = time.monotonic()
        while kernels(project.parent / "store") and time.monotonic() - begin < 20:
            time.sleep(.2)
        assert not kernels(project.parent / "store"), "nothing waits for another job"
    finally:
        for process in processes[::-1]:
            process.terminate()
            process.wait()


def test_parameters_where_there_are_none_or_two_cells(project):
    write(project, "00_a", "x = 1")
    write(project, "01_b", ("a = 1", "parameters"), ("b = 1", "parameters"))
    with pytest.raises(InputError, match="00_a takes no parameters"):
        batch.reproduce(["00"], parameters={"a": "1"})
    with pytest.raises(InputError, match="01_b has 2 cells"):
        batch.reproduce(["01"], parameters={"a": "1"})


def test_lessons_are_found_and_chosen(project, monkeypatch, tmp_path):
    with pytest.raises(InputError, match="there are no lessons"):
        lesson.lessons(tmp_path)
    for name in ("00_tour", "02_fixmatch", "01_views"):
        write(project, name)
    (project / "notes.ipynb").write_text("no lesson")
    (tmp_path / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "er")
    paths = lesson.lessons()
    assert [path.stem for path in paths] == ["00_tour", "02_fixmatch", "01_views"] and paths[0].parent == project
    for name in ("02", "2", "02_fixmatch", "02_fixmatch.ipynb", "notebooks/02_fixmatch.ipynb"):
        assert lesson.pick([name], paths) == paths[1:2]
    assert lesson.pick(["01", "00"], paths) == [paths[0], paths[2]]
    tables = [project / "90_tables.ipynb"]
    assert lesson.pick([], [*paths, *tables]) == paths and lesson.pick(["90"], [*paths, *tables]) == lesson.pick([], tables) == tables
    with pytest.raises(InputError, match="unknown lesson '02_fixmach': did you mean '02_fixmatch'"):
        lesson.pick(["02_fixmach"], paths)
    with pytest.raises(InputError, match="unknown lesson '07'"):
        lesson.pick(["07"], paths)


def test_bad_places_are_refused(project, tmp_path):
    path = write(project, "00_a", "x = 1")
    (tmp_path / "file").write_text("mine")
    for out in ("file", "file/deeper"):
        with pytest.raises(InputError, match="could not write .*file"):
            batch.reproduce(out=out)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSLKIT_RUNS", str(tmp_path / "file"))
        with pytest.raises(InputError, match="could not write .*file/notebooks/00_a"):
            batch.reproduce(stream=io.StringIO())
    before = path.read_bytes()
    with pytest.raises(InputError, match="overwrite the lessons"):
        batch.reproduce(out=".")
    assert path.read_bytes() == before
    path.write_text("{")
    with pytest.raises(InputError, match="00_a.ipynb cannot be read as a notebook"):
        batch.reproduce()


def test_full_disk_is_one_sentence(project, monkeypatch):
    write(project, "00_a", "x = 1")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(InputError, match="could not write .*.json: no space left on the disk$"):
            batch.reproduce(stream=io.StringIO())
    monkeypatch.setattr("papermill.engines.write_ipynb", full)
    with pytest.raises(InputError, match="could not write .*x.ipynb: no space left on the disk$"):
        execute(project / "00_a.ipynb", Path("x.ipynb"), {}, 60)


def test_a_cell_that_takes_too_long_fails(project):
    write(project, "00_slow", "import time\ntime.sleep(60)")
    stream, begin = io.StringIO(), time.monotonic()
    assert not batch.reproduce(timeout_s=1, stream=stream)
    assert "failed in cell 1: TimeoutError: the cell took longer than 1 s" in stream.getvalue()
    assert time.monotonic() - begin < 30
    assert "TimeoutError" in Path("report/00_slow.html").read_text()


def test_refresh_writes_outputs_back_and_nothing_else(project):
    path = write(project, "00_a", "import ipywidgets, sys, time\nprint('o', end='', flush=True)\ntime.sleep(.5)\n"
                 "print('ut', flush=True)\nprint('err', file=sys.stderr)",
                 "ipywidgets.IntSlider()", FIGURE, "from IPython.display import HTML\nHTML('<b>x</b>')", "1 + 1",
                 "from IPython.display import Markdown\nMarkdown('| a |\\n|---|')",
                 f"display({{'text/plain': 'p', 'image/svg+xml': '<svg/>', {lesson.FRAMES!r}: {{}}}}, raw=True)")
    nb = nbformat.read(path, 4)
    nb.metadata.update(language_info={"name": "python", "version": "3.0"}, widgets={"x": 1}, papermill={"a": 1},
                       kernelspec={"name": "mine", "display_name": "Mine", "language": "python"})
    nb.cells[1].update(execution_count=5, outputs=[new_output("stream", text="old")])
    nb.cells[1].metadata.update(execution={"shell.execute_reply": "now"}, collapsed=True)
    nb.cells[3].metadata.update(sslkit={"cover": True, "seconds": 3})
    nbformat.write(nb, path)
    ids = [cell.id for cell in nb.cells]
    bad = write(project, "01_bad", "print(1)\n1 / 0")
    changed = write(project, "02_changed", "from pathlib import Path\nPath('02_changed.ipynb').write_text('{}')")
    before, stream = bad.read_bytes(), io.StringIO()
    assert not batch.reproduce(refresh=True, stream=stream)
    assert changed.read_text() == "{}" and "was changed while it ran" in stream.getvalue()
    assert bad.read_bytes() == before

    clean = nbformat.read(path, 4)
    seconds = clean.metadata.pop("sslkit")["seconds"]
    assert isinstance(seconds, int) and 1 <= seconds < 30
    assert clean.metadata == {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
                              "language_info": {"name": "python"}}
    assert [cell.id for cell in clean.cells] == ids
    assert [cell.source for cell in clean.cells] == [cell.source for cell in nb.cells]
    assert [dict(cell.metadata) for cell in clean.cells] == [
        {}, {"collapsed": True}, {}, {"sslkit": {"cover": True}}, {}, {}, {}, {}]
    assert [cell.execution_count for cell in clean.cells[1:]] == list(range(1, len(clean.cells)))
    assert {o.name: o.text for o in clean.cells[1].outputs} == {"stdout": "out\n", "stderr": "err\n"}
    assert clean.cells[2].outputs == []
    assert [set(o.data) for cell in clean.cells[3:] for o in cell.outputs] == [
        {"text/plain", "image/png"}, {"text/plain"}, {"text/plain"}, {"text/plain", "text/markdown"}, {"text/plain", "image/svg+xml"}]
    assert clean.cells[5].outputs[0].execution_count is None
    nbformat.validate(clean)


def test_refresh_takes_no_parameters(project):
    write(project, "00_a", ("a = 1", "parameters"))
    with pytest.raises(InputError, match="takes no parameters"):
        batch.reproduce(refresh=True, parameters={"a": "2"})


def test_stopping_leaves_no_kernel_and_says_what_is_finished(project):
    write(project, "00_a", "1")
    write(project, "01_b", "2", "import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(60)")
    code = ("from sslkit.batch import reproduce\ntry:\n  reproduce(workers=1)\n"
            "except KeyboardInterrupt:\n  raise SystemExit(130)")
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    pid, begin = project / "pid", time.monotonic()
    while not (pid.exists() and pid.read_text()) and time.monotonic() - begin < 60:
        time.sleep(.1)
    process.send_signal(signal.SIGTERM)         # made a KeyboardInterrupt, so this is Ctrl-C too
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 130
    assert said.splitlines()[-1] == "01_b stopped in cell 2; finished: 00_a; see report/index.html"
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
    assert "1 finished, 1 stopped" in Path("report/index.html").read_text()
    assert Path("report/01_b.html").exists()


def lesson_of(tmp_path: Path, name: str, cells: int, **more) -> lesson.Lesson:
    return lesson.read(write(tmp_path, name, *["1"] * cells, **more))


def test_a_lesson_says_how_long_it_takes(tmp_path):
    assert lesson_of(tmp_path, "00_a", 3, seconds=30).planned == 30 and lesson_of(tmp_path, "01_b", 1).planned == 60


TRAINS = """
from sslkit import Config, FixMatch, load, split
from sslkit.lessons.session import fit_once
config = Config(seed={seed}, steps=150, batch_size=16, mu=2, eval_every=10)
run = fit_once(FixMatch(), split(load("digits"), 20, {seed}), config)
print("ACC", run.result["test_acc"], len(run.metrics))
"""
PROGRAM = """
from sslkit.batch import reproduce
raise SystemExit(not reproduce(workers=2))
"""


def kernels(store: Path) -> list[psutil.Process]:
    """Processes that run lessons of this store, with their kernels."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        words = " ".join(process.info["cmdline"] or ())
        of = (process.info["environ"] or {}).get("SSLKIT_RUNS")
        if ("ipykernel" in words or " execute " in words) and of == str(store):
            found.append(process)
    return found


def lessons_that_train(here: Path) -> Path:
    """Three of them, and the program that runs them."""
    for seed in (0, 1, 2):
        write(here / "notebooks", f"0{seed}_trains", "print('begins')", TRAINS.format(seed=seed))
    (here / "program.py").write_text(PROGRAM)
    return here / "program.py"


def run_of(program: Path) -> subprocess.Popen:
    environment = os.environ | {"SSLKIT_RUNS": str(program.parent / "store"), "SSLKIT_LEASE_SECONDS": "5"}
    return subprocess.Popen([sys.executable, program], stderr=subprocess.PIPE, text=True, cwd=program.parent,
                            env=environment)


def shown(here: Path) -> list[list[str]]:
    """The figures that the lessons show."""
    return [re.findall("ACC (.+)", outputs(path)) for path in sorted((here / "report" / "notebooks").iterdir())]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    here = tmp_path_factory.mktemp("undisturbed")
    ended(run_of(lessons_that_train(here)))
    return shown(here)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [8, 11, 14, 17, 20])
def test_a_batch_of_lessons_that_is_killed_goes_on(project, seconds, undisturbed):
    store, program = project.parent / "store", lessons_that_train(project.parent)
    process, begin = run_of(program), time.monotonic()
    while time.monotonic() - begin < seconds and process.poll() is None:
        time.sleep(.1)
    victims = [child for child in kernels(store) if " execute " in " ".join(child.cmdline())]
    for victim in (*victims[:1], process):
        victim.kill()
    process.communicate()
    before = {path: path.stat().st_mtime_ns for path in store.rglob("result.json")}
    said = ended(run_of(program))
    assert said.splitlines()[-1].startswith("3 of 3 lessons finished in "), said
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items()), "what was finished is not run again"
    assert len(list(store.glob("*/result.json"))) == 3 and len(list(store.glob("notebooks/*/result.json"))) == 3
    assert shown(project.parent) == undisturbed and all(len(one) == 1 for one in undisturbed), "every number the same"
    begin = time.monotonic()
    while kernels(store) and time.monotonic() - begin < 30:
        time.sleep(.2)
    assert not kernels(store) and not list((store / "leases").glob("0*")), "nothing is left behind"


def ended(process: subprocess.Popen) -> str:
    """What a batch said."""
    _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said
    return said


@pytest.mark.parametrize("text, title, question", [
    ("# The *title* of `x`\nAt once, a_b.\n\nmore", "The title of x", "At once, a_b."),
    ("text\n\n## Later\n\n\n[Why](a.html)\nso?", "Later", "Why so?"),
    ("# One\n## Two\ntext", "One", ""),
    ("no heading", "00_a", ""),
    ("# How much do $\\alpha$ and $q^{agg}$ matter?\ntext", "How much do alpha and q^agg matter?", "text"),
])
def test_title_and_question(tmp_path, text, title, question):
    nbformat.write(new_notebook(cells=[new_markdown_cell(text)]), tmp_path / "00_a.ipynb")
    read = lesson.read(tmp_path / "00_a.ipynb")
    assert (read.title, read.question) == (title, question)


def test_the_time_that_a_lesson_takes_is_read_from_its_first_cell(tmp_path):
    about = "# T\n\n**After this lesson you can** see.\n\nReading 12 minutes, computing 1 minute. No GPU, nothing to download.\n\nMore."
    nbformat.write(new_notebook(cells=[new_markdown_cell(about)]), tmp_path / "02_a.ipynb")
    read = lesson.read(tmp_path / "02_a.ipynb")
    assert (read.minutes, read.question, read.number) == ("Reading 12 minutes, computing 1 minute", "After this lesson you can see.", "02")
    assert lesson_of(tmp_path, "01_b", 1).minutes == ""


def test_page_while_lessons_run(tmp_path, monkeypatch):
    monkeypatch.setenv("SSLKIT_RUNS", str(tmp_path / "none"))
    todo = [lesson_of(tmp_path, "00_a", 1), lesson_of(tmp_path, "01_b", 1)]
    todo[0].state = "running"
    page = report.page(todo, "sslkit reproduce", report.datetime(2026, 1, 2), 3661)
    assert 'http-equiv="refresh"' in page and "1 running, 1 waiting" in page and "in 1:01:01" in page
    assert "None yet." in page and "href" not in page
