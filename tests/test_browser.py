"""Every lesson in JupyterLab in a real browser: it runs, shows no error, and each slider changes its picture."""
import ast
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

LESSONS = sorted((Path(__file__).parents[1] / "notebooks").glob("[0-8][0-9]_*.ipynb"))         # the tables, 90 and more, move nothing
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
ERROR = "[data-mime-type='application/vnd.jupyter.error'], [data-mime-type='application/vnd.jupyter.stderr']"

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found (Debian: apt-get install chromium)")]


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
    address = f"http://127.0.0.1:{port}"
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
    source = "\n".join(cell.source for cell in nbformat.read(lesson, as_version=4).cells if cell.cell_type == "code")
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    assert sliders == sum({"slider": 1, "sliders": len(call.keywords)}.get(call.func.id, 0) for call in calls)


TRY = ("""from sslkit.lessons import exercise, plots, predict, reveal, slider
slider(lambda tau: plots.curves({"a": ([0, 1], [0, tau])}, "", title=f"tau {tau:g}"), 0.9, [k / 10 for k in range(10)], "tau", play=True)""",
       'predict("01.p")', 'reveal("01.p", 58)', 'exercise("01.1")', 'exercise("01.3")')


@pytest.fixture
def desk(lab, browser):
    """A notebook with a slider, a prediction and exercises, run."""
    page = browser.new_page(viewport={"width": 1280, "height": 1400})
    page.goto(f"{lab}/lab")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in TRY], metadata={
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}})
    page.wait_for_function("window.jupyterapp")
    page.evaluate("content => window.jupyterapp.serviceManager.contents.save('try.ipynb', {type: 'notebook', format: 'json', content})",
                  notebook)
    run_all(page, lab, "try.ipynb")
    page.locator(".noUi-handle").wait_for(timeout=60_000)
    yield page
    page.close()


def test_a_picture_moves_while_its_slider_is_dragged_and_the_page_stays(desk):
    handle = desk.locator(".noUi-handle")
    # what every painted frame shows: which picture, is it there, how high is it, has the page moved
    handle.evaluate("""handle => {
        const cell = handle.closest('.jp-CodeCell'), panel = document.querySelector('.jp-WindowedPanel-outer');
        window.frames_seen = [];
        const look = () => {
            const image = cell.querySelector('.jp-OutputArea img');
            window.frames_seen.push([image ? image.src : '', !!image && image.complete && image.naturalWidth > 0,
                                     image ? image.getBoundingClientRect().height : 0, panel.scrollTop]);
            requestAnimationFrame(look);
        };
        look();
    }""")
    seen = lambda: desk.evaluate("window.frames_seen")                                                  # noqa: E731
    knob, track = handle.bounding_box(), desk.locator(".noUi-base").bounding_box()
    y = knob["y"] + knob["height"] / 2
    desk.mouse.move(knob["x"] + knob["width"] / 2, y)
    desk.mouse.down()
    for k in range(40):
        desk.mouse.move(track["x"] + track["width"] * (1 - k / 40), y)
        desk.wait_for_timeout(50)
    wait_until(lambda: len({picture for picture, *_ in seen()}) >= 4, 20, "the picture moves while the handle is held")
    desk.mouse.up()
    _, there, height, scrolled = (set(column) for column in zip(*seen()))
    assert there == {True} and len(height) == 1 and len(scrolled) == 1, "no flicker, no jump"
    desk.wait_for_timeout(1500)                                     # the last picture of the drag
    still = seen()[-1][0]
    desk.locator(".widget-play button").first.click()
    wait_until(lambda: seen()[-1][0] != still, 20, "play moves it")


def test_an_exercise_is_answered_by_typing(desk):
    answer = desk.get_by_label("answer", exact=True).first
    cell = answer.locator("xpath=ancestor::div[contains(@class, 'jp-CodeCell')]")
    assert "81" not in cell.inner_text()
    for typed, said in (("eighty", "Not yet. Please type a number"), ("80", "Not yet. Try again."), ("82", "Not yet. The hint may help."), ("81", "Right.")):
        answer.fill(typed)
        answer.press("Enter")
        wait_until(lambda: said in cell.inner_text(), 20, said)                                          # noqa: B023
        assert cell.locator("details[open]").count() == (typed == "82")
    choice = desk.locator(".jp-CodeCell").nth(4)
    choice.get_by_role("button", name="mirror left to right").click()
    choice.get_by_role("button", name="check").click()
    wait_until(lambda: "Right." in choice.inner_text(), 20, "a choice is right")
    desk.get_by_label("I think", exact=True).fill("40%")
    wait_until(lambda: "You said 40%. It is 58." in desk.locator(".jp-CodeCell").nth(2).inner_text(), 20, "the prediction is shown")
    assert not desk.locator(ERROR).count()
