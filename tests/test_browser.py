"""Every lesson in JupyterLab in a real browser: it runs, shows no error, and each slider changes its picture."""
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


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_lesson_runs_and_its_sliders_move_their_pictures(lab, browser, lesson):
    page = browser.new_page(viewport={"width": 1280, "height": 1400})
    page.goto(f"{lab}/lab/tree/{lesson.name}?reset")
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

    panel = page.locator(".jp-WindowedPanel-outer").first            # cells out of sight are not in the page: scroll through it
    done = lambda: not busy.count() and not page.get_by_text("[*]:").count()     # noqa: E731
    wait_until(done, 900, "the lesson has run")
    page.wait_for_timeout(1000)
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
            for _ in range(3):
                page.keyboard.press("ArrowLeft")
            wait_until(lambda: picture() != before, 40, f"slider {sliders + 1} changes its picture")      # noqa: B023
            sliders += 1
            continue
        now = panel.evaluate("e => { e.scrollBy(0, e.clientHeight * 0.8); return e.scrollTop }")
        if now == top:
            break
        top = now
    page.close()
    assert not errors, "\n".join(errors)[-3000:]
    source = "\n".join(cell.source for cell in nbformat.read(lesson, as_version=4).cells)
    one, several = (re.findall(rf"^{name}\(.*", source, re.M) for name in ("slider", "sliders"))
    assert sliders == len(one) + sum(call.count("=(") for call in several)
