"""Every lesson in JupyterLab in a real browser: it runs, shows no error, and each slider changes its picture."""
import ast
import csv
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

LESSONS = sorted((Path(__file__).parents[1] / "notebooks").glob("[0-8][0-9]_*.ipynb"))         # the tables, 90 and more, move nothing
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
ERROR = "[data-mime-type='application/vnd.jupyter.error'], [data-mime-type='application/vnd.jupyter.stderr']"

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found (Debian: apt-get install chromium)")]


class Address(str):
    """Where JupyterLab answers, and the folder that it shows."""
    folder: Path


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A JupyterLab server in a copy of the notebooks, as `sslkit lab` starts it; its address."""
    folder = tmp_path_factory.mktemp("lab")
    for lesson in LESSONS:
        shutil.copy(lesson, folder)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if name != "SSLKIT_HEADLESS"}      # somebody watches
    environment |= {name: str(tmp_path_factory.mktemp("jupyter")) for name in (
        "JUPYTER_CONFIG_DIR", "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR", "JUPYTER_RUNTIME_DIR")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    log = open(folder / "lab.log", "w")
    server = subprocess.Popen([sys.executable, "-m", "jupyterlab", "--no-browser", f"--port={port}", "--ip=127.0.0.1", "--allow-root",
                               "--IdentityProvider.token=", "--LabApp.news_url=None", "--LabApp.expose_app_in_browser=True"],
                              cwd=folder, env=environment, stdout=log, stderr=log)
    address = Address(f"http://127.0.0.1:{port}")
    address.folder = folder
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{address}/api").read()
                break
            except OSError:
                time.sleep(0.5)
        else:
            pytest.fail("JupyterLab did not start: " + (folder / "lab.log").read_text()[-2000:])
        yield address
    finally:
        server.terminate()
        server.wait(20)
        log.close()


@pytest.fixture
def to_label(lab, tmp_path):
    """to_label(classes) -> a notebook in JupyterLab that asks for labels of sixty of eighty pictures, two of them with odd names; the
    pictures' folder; what its file of labels says, in order."""
    folder, rng = tmp_path / "it's für Katzen", np.random.default_rng(0)
    folder.mkdir()
    for k in range(80):
        Image.fromarray(rng.integers(0, 255, (40, 30 + k, 3)).astype(np.uint8)).save(folder / (f"Käse's {k:02}.png" if k % 9 == 0 else f"{k:02}.png"))
    (folder / "broken.jpg").write_bytes(b"no picture")

    def make(classes):
        source = f"""from sslkit.lessons import Photos, label_pictures
photos = Photos({str(folder)!r}, {classes!r})
photos.embed("efficientnet-lite0", 32, views=0)
label_pictures(photos, photos.first(40, 20))"""
        kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)], metadata=kernel)
        nbformat.write(notebook, lab.folder / "to_label.ipynb")
        return "to_label.ipynb"

    def said():
        with open(folder / "sslkit_labels.csv", newline="") as file:
            return [(row["file"], row["label"]) for row in csv.DictReader(file)]
    return make, said


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"])
        yield chromium
        chromium.close()


def wait_until(ready, seconds, what):
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.2)


def run_all(page, lab, name):
    """Open a notebook and run its cells; its scrolling panel, when they have run."""
    page.goto(f"{lab}/lab/tree/{name}?reset")
    page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=60_000)
    # "Run All Cells" before the kernel is there asks which kernel to take, and runs nothing
    page.evaluate("""async () => {
        await window.jupyterapp.restored;
        const notebook = window.jupyterapp.shell.currentWidget;
        await notebook.context.ready;
        await notebook.sessionContext.ready;
        await notebook.sessionContext.session.kernel.info;
    }""")
    page.get_by_role("menuitem", name="Run").first.click()
    page.get_by_text("Run All Cells", exact=True).first.click()
    busy = page.locator(".jp-Notebook-ExecutionIndicator[data-status='busy']")
    wait_until(busy.count, 60, "the lesson starts")

    done = lambda: not busy.count() and not page.get_by_text("[*]:").count()     # noqa: E731
    wait_until(done, 900, "the lesson has run")
    page.wait_for_timeout(1000)
    return page.locator(".jp-WindowedPanel-outer").first


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_lesson_runs_and_its_sliders_move_their_pictures(lab, browser, lesson):
    page = browser.new_page(viewport={"width": 1280, "height": 1400})
    panel = run_all(page, lab, lesson.name)          # cells out of sight are not in the page: scroll through it
    errors, sliders, top = set(), 0, -1
    panel.evaluate("e => e.scrollTo(0, 0)")
    while True:
        page.wait_for_timeout(400)
        errors |= set(page.locator(ERROR).all_inner_texts())
        handle = page.locator(".jp-NotebookPanel .noUi-handle:not([data-seen])").first
        if handle.count():
            # element handles, not locators: a locator would be looked up again after the mark is set
            cell = handle.locator("xpath=ancestor::div[contains(@class, 'jp-CodeCell')]").element_handle()
            knob = handle.element_handle()
            knob.evaluate("e => e.setAttribute('data-seen', '1')")
            knob.scroll_into_view_if_needed()
            picture = lambda: cell.query_selector(".jp-OutputArea img").get_attribute("src")      # noqa: B023, E731
            before = picture()
            knob.focus()
            back = "ArrowLeft" if float(knob.get_attribute("aria-valuenow")) else "ArrowRight"
            for _ in range(3):
                page.keyboard.press(back)
            wait_until(lambda: picture() != before, 40, f"slider {sliders + 1} changes its picture")      # noqa: B023
            sliders += 1
            continue
        now = panel.evaluate("e => { e.scrollBy(0, e.clientHeight * 0.8); return e.scrollTop }")
        if now == top:
            break
        top = now
    page.close()
    assert not errors, "\n".join(errors)[-3000:]
    cells = [ast.parse(cell.source) for cell in nbformat.read(lesson, as_version=4).cells if cell.cell_type == "code"]
    always = [line for cell in cells for line in cell.body if not isinstance(line, ast.If)]        # else: once somebody has labelled
    calls = [node for line in always for node in ast.walk(line) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    several = [len(call.keywords) for call in calls if call.func.id == "sliders"]
    assert sliders == sum(several) + sum(call.func.id == "slider" for call in calls)


def shown(page) -> str:
    return page.locator(".jp-OutputArea .widget-html img").first.get_attribute("alt")


def press(page, name, done):
    """Click the button `name`, and wait until the widget says how many are done; the file that was shown."""
    file = shown(page)
    page.get_by_role("button", name=name, exact=True).click()
    page.get_by_text(f"{done} of 60", exact=True).wait_for(timeout=20_000)
    return file


def test_sixty_clicks_are_sixty_rows_and_a_restart_goes_on(lab, browser, to_label):
    make, said = to_label
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    run_all(page, lab, make("cat, dog"))
    page.get_by_text("0 of 60", exact=True).wait_for()
    clicks = [(press(page, name, k), name) for k, name in enumerate(["cat", "dog"] * 12 + ["cat"], 1)]
    assert said() == clicks and len({file for file, _ in clicks}) == 25
    page.get_by_role("button", name="back", exact=True).click()
    page.get_by_text("24 of 60", exact=True).wait_for()
    assert shown(page) == clicks[-1][0] and said() == clicks[:-1]
    clicks[-1] = (press(page, "dog", 25), "dog")
    page.get_by_label("another class").fill("bird")
    page.get_by_role("button", name="add", exact=True).click()
    page.get_by_role("button", name="bird", exact=True).wait_for()
    clicks.append((press(page, "bird", 26), "bird"))
    for k in (26, 27):                                               # the page is loaded anew; then the kernel dies too
        if k == 27:
            page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.restartKernel()")
        run_all(page, lab, "to_label.ipynb")
        page.get_by_text(f"{k} of 60", exact=True).wait_for()
        clicks.append((press(page, "bird", k + 1), "bird"))
    clicks += [(press(page, name, k), name) for k, name in enumerate(["dog", "bird"] * 16, 29)]
    page.get_by_text("all done", exact=False).first.wait_for()
    assert said() == clicks and len({file for file, _ in clicks}) == 60
    page.close()


def test_sixty_by_keyboard_and_ten_within_a_second(lab, browser, to_label):
    make, said = to_label
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    run_all(page, lab, make("cat, dog"))
    page.get_by_text("0 of 60", exact=True).wait_for()
    began = time.monotonic()
    page.evaluate("""() => { const dog = [...document.querySelectorAll("button")].find(b => b.textContent.trim() === "dog");
                             for (let k = 0; k < 10; k++) dog.click(); }""")
    assert time.monotonic() - began < 1
    page.get_by_text("10 of 60", exact=True).wait_for()
    assert [label for _, label in said()] == ["dog"] * 10
    page.get_by_role("button", name="cat", exact=True).focus()
    for k in range(11, 61):
        file, name = shown(page), ("cat", "dog")[k % 2]
        page.keyboard.press("Tab" if name == "dog" else "Shift+Tab") if k > 11 or name == "dog" else None
        assert page.evaluate("document.activeElement.textContent.trim()") == name
        page.keyboard.press("Enter")
        page.get_by_text(f"{k} of 60", exact=True).wait_for(timeout=20_000)
        assert said()[-1] == (file, name)
    assert len({file for file, _ in said()}) == 60
    page.close()


@pytest.mark.parametrize("width", [420, 1024])
def test_every_control_has_a_name_and_fits(lab, browser, to_label, width):
    make, _ = to_label
    long = ", ".join(f"a class with a rather long name {k}" for k in range(11))
    page = browser.new_page(viewport={"width": width, "height": 900})
    run_all(page, lab, make(long))
    page.evaluate("() => window.jupyterapp.shell.collapseLeft()")             # else 50 of 420 pixels are left for the notebook
    page.get_by_text("0 of 60", exact=True).wait_for()
    page.wait_for_timeout(500)
    output = page.locator(".jp-OutputArea-output").last
    for control in output.locator("button, input, select").all():
        assert control.evaluate("e => e.textContent.trim() || e.title || e.placeholder || (e.labels && e.labels.length)")
        box, room = control.bounding_box(), output.bounding_box()
        assert box["x"] + box["width"] <= room["x"] + room["width"] + 1, control.evaluate("e => e.outerHTML")
    page.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The pages of the committed lessons, of a lesson with sliders, and the summary page; their folder."""
    from test_batch import a_lesson

    from sslkit.batch import notebook_file, page
    from sslkit.batch.lesson_page import export
    here, out = tmp_path_factory.mktemp("lessons"), tmp_path_factory.mktemp("report")
    for folder in ("figures", "notebooks", "tables"):
        (out / folder).mkdir()
    pictures = [plots_of(k) for k in range(6)]
    cells = a_lesson()
    shown = cells[3].outputs[0].data
    shown[notebook_file.FRAMES] = shown[notebook_file.FRAMES] | {"frames": pictures}
    shown["image/png"] = pictures[3]
    one = shown[notebook_file.FRAMES]
    one = one | {"axes": one["axes"][1:], "frames": pictures[:3], "alts": one["alts"][:3]}
    cells.append(nbformat.v4.new_code_cell("slider()", outputs=[nbformat.v4.new_output("display_data", data={
        "image/png": pictures[0], notebook_file.FRAMES: one})]))
    nbformat.write(nbformat.v4.new_notebook(cells=cells), here / "07_sliders.ipynb")
    course = [notebook_file.read(path) for path in [*notebook_file.lessons(LESSONS[0].parent), here / "07_sliders.ipynb"]]
    for lesson in course:
        lesson.state = "finished"
        export(lesson, lesson.nb, out, course)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSLKIT_RUNS", str(out / "none"))
        (out / "index.html").write_text(page.page(course, "sslkit reproduce", page.datetime(2026, 1, 2), 60, over=True))
    return out


def plots_of(value: int) -> str:
    """A picture, base64."""
    import base64

    from sslkit.lessons import plots
    return base64.b64encode(plots.curves({"x": ([0, 1], [0, value])}, "").encoded()[1]).decode()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [420, 1100, 1920])
def test_pages_fit_their_window_and_load_nothing(report, browser, width, scheme):
    page = browser.new_page(viewport={"width": width, "height": 1000}, color_scheme=scheme)
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    for path in sorted(report.glob("*.html")):
        page.goto(path.as_uri())
        page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        wide = page.evaluate("""() => [...document.querySelectorAll("main *, section *")].filter(e => {
            for (let up = e; up; up = up.parentElement) if (["auto", "scroll"].includes(getComputedStyle(up).overflowX)) return false;
            return e.getBoundingClientRect().right > innerWidth + 1 }).map(e => e.outerHTML.slice(0, 200))""")
        assert page.evaluate("document.documentElement.scrollWidth") <= width and not wide, f"{path.name}: {wide[:2]}"
        light = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/[0-9]+/)[0] > 128")
        assert light == (scheme == "light"), path.name
        broken = page.evaluate("[...document.images].filter(i => i.complete && !i.naturalWidth && i.loading != 'lazy').map(i => i.alt)")
        assert set(broken) <= {"picture"}, "only that of a file that is not there"
    page.close()
    files = {url for url in asked if not url.startswith("data:")}
    assert files and all(url.startswith("file:") for url in files), "nothing from a network"
    assert not [line for line in said if "nothing.png" not in line], said


def test_a_line_of_text_has_65_to_75_characters(report, browser):
    page = browser.new_page(viewport={"width": 1920, "height": 1000})
    page.goto((report / "00_tour.html").as_uri())
    lengths = page.evaluate("""() => [...document.querySelectorAll(".text p")].map(p => {
        const range = document.createRange(); range.selectNodeContents(p);
        const lines = new Set([...range.getClientRects()].map(r => Math.round(r.bottom / 12))).size;
        return [p.textContent.length, lines] }).filter(([, lines]) => lines >= 3).map(([length, lines]) => length / (lines - 0.5))""")
    page.close()
    assert len(lengths) >= 3 and 60 <= sum(lengths) / len(lengths) <= 80, lengths           # how wide letters are, fonts decide


@pytest.mark.parametrize("name", ["07_sliders", "07_sliders-slides"])
def test_on_a_page_too_a_slider_moves_its_picture(report, browser, name):
    page = browser.new_page(viewport={"width": 1100, "height": 900})
    page.goto((report / f"{name}.html").as_uri())
    shown = lambda: [picture.get_attribute("alt") for picture in page.query_selector_all("#figure-1 img") if picture.is_visible()]   # noqa: E731
    first, second = page.query_selector_all("#figure-1 input")
    assert shown() == ["at 3"]
    second.focus()
    page.keyboard.press("ArrowRight")
    assert shown() == ["at 4"] and second.get_attribute("aria-valuetext") == "2"
    box = first.bounding_box()
    page.mouse.move(box["x"] + box["width"] - 8, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + 8, box["y"] + box["height"] / 2, steps=4)
    assert shown() == ["at 1"], "it moves while it is dragged"
    page.mouse.up()
    assert page.query_selector("figure.frames output").inner_text() == "0.5"
    page.close()


def test_a_slider_plays(report, browser):
    page = browser.new_page(viewport={"width": 1100, "height": 900})
    page.goto((report / "07_sliders.html").as_uri())
    assert page.locator("button.play:visible").count() == 1, "for one slider, not for two"
    figure = page.locator("figure.frames").filter(has=page.locator("button.play:visible"))
    figure.get_by_role("button", name="play").click()
    wait_until(lambda: figure.locator("img:visible").get_attribute("alt") == "at 2", 20, "it comes to the end")
    figure.get_by_role("button", name="play").wait_for(timeout=5000)
    figure.get_by_role("button", name="play").click()
    assert figure.locator("img:visible").get_attribute("alt") == "at 0", "and begins again"
    page.close()


def test_code_is_folded_until_it_is_asked_for_and_slides_go_from_heading_to_heading(report, browser):
    page = browser.new_page(viewport={"width": 1100, "height": 900})
    page.goto((report / "00_tour.html").as_uri())
    code = page.locator("details.code pre")
    assert code.count() > 5 and not any(one.is_visible() for one in code.all())
    page.get_by_role("button", name="show all code").click()
    assert all(one.is_visible() for one in code.all()) and page.get_by_role("button", name="hide all code").is_visible()
    family = page.evaluate("getComputedStyle(document.querySelector('details.code pre')).fontFamily")
    assert "monospace" in family and not page.get_by_text(re.compile(r"^In ?\[")).count()
    page.emulate_media(media="print")
    assert not any(one.is_visible() for one in code.all())
    page.emulate_media(media="screen")
    page.goto((report / "00_tour-slides.html").as_uri())
    place = lambda: page.evaluate("[...document.querySelectorAll('section.slide')].findLastIndex(s => s.getBoundingClientRect().top < 2)")  # noqa: E731
    seen = [place()]
    for key in ("ArrowRight", " ", "PageDown", "ArrowLeft", "ArrowLeft", "ArrowLeft", "ArrowLeft"):
        page.keyboard.press(key)
        seen.append(place())
    assert seen == [0, 1, 2, 3, 2, 1, 0, 0] and not page.locator("details.code").count()
    page.close()


def test_the_contents_of_a_lesson_stand_beside_it_where_there_is_room(report, browser):
    for width, visible in ((1100, False), (1920, True)):
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.goto((report / "00_tour.html").as_uri())
        toc = page.locator("nav.toc")
        assert toc.is_visible() == visible
        if visible:
            box = page.locator("main").bounding_box()
            assert box["x"] >= toc.bounding_box()["width"], "it covers nothing"
            toc.get_by_role("link").last.click()
            heading = page.evaluate("document.querySelector(decodeURIComponent(location.hash)).getBoundingClientRect().top")
            assert 0 <= heading < 900
        page.close()
