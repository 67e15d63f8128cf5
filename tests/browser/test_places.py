"""The explorer where people work: in Notebook 7, Voila, marimo, Firefox, and as VS Code and Colab load it."""

import json
import os
import re
import socket
import subprocess
import sys
import urllib.request
from contextlib import closing

import numpy as np
import pytest
from browser import cases
from browser import firefox as firefoxes
from browser.lab import TESTS, WAIT, Watched, until
from browser.test_explorer import CORNERS, LISTEN, Shown
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

CELLS = ("from browser import cases\nexplorer = cases.many(3)", "explorer")


def works(page, heard=True):
    """Drive an explorer: the slider to its first layer, a search, an answer that only the kernel has.

    Args:
        heard: whether what happens in it can be heard on the page; not where it lies in a shadow tree.
    """
    shown = Shown(page)
    shown.ready()
    page.evaluate(LISTEN)
    shown("input.lsc-layer").focus()
    if heard:
        shown.step(lambda: page.keyboard.press("Home"), 0)
    else:
        page.keyboard.press("Home")
    expect(shown(".lsc-layer-box")).to_have_value("0")
    expect(shown(".lsc-alignment .lsc-heatbox:visible")).to_have_count(3)
    expect(shown(".lsc-alignment .lsc-heat-one .lsc-heat-title")).to_contain_text("layer 0")
    shown(".lsc-find-language").select_option(label="German")
    expect(shown(".lsc-count")).to_have_text("8 selected")
    shown(".lsc-sentence").first.click()
    expect(shown(".lsc-neighbours")).to_have_count(2)  # which the kernel computes
    expect(shown(".lsc-silent")).to_be_hidden()
    return shown


def test_in_notebook_7(browser, server):
    pytest.importorskip("notebook", reason="Notebook is not installed: pip install notebook")
    path = server.write("notebook", *CELLS)
    with closing(Watched(browser, viewport={"width": 1400, "height": 1100})) as watched:
        page = watched.page
        page.goto(f"{server.url}/notebooks/{path}?token={server.token}", wait_until="commit")
        expect(page.locator(".jp-CodeCell")).to_have_count(len(CELLS))
        expect(page.locator(".jp-NotebookKernelStatus, .jp-Notebook-ExecutionIndicator").first).to_be_attached()
        page.get_by_role("menuitem", name="Run").click()
        page.get_by_text("Run All Cells", exact=True).click()
        works(page)
        expect(page.locator(".lsc-picture")).to_be_hidden()
        assert page.locator(".lsc").count() == 1
        assert [url for url in watched.requests if not url.startswith(server.url)] == []
        assert [error for error in watched.errors if "layerscope" in error or "lsc" in error] == []


MARIMO = """
import marimo

app = marimo.App()


@app.cell
def _():
    import marimo as mo
    from browser import cases

    mo.ui.anywidget(cases.many(3))
    return
"""


@pytest.fixture
def marimo(tmp_path):
    """The address of a marimo that shows an explorer."""
    pytest.importorskip("marimo", reason="marimo is not installed: pip install marimo")
    (tmp_path / "shown.py").write_text(MARIMO)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "marimo", "run", "shown.py", "--headless", "--no-token", f"--port={port}"]
    places = {"PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}", "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "passive"}
    with (tmp_path / "marimo.log").open("w") as log:
        process = subprocess.Popen(command, env=os.environ | places, cwd=tmp_path, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        until(lambda: _answers(address), f"marimo answers; see {tmp_path / 'marimo.log'}")
        yield address
    finally:
        process.terminate()
        process.wait(WAIT)


def _answers(address):
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=WAIT) as answer:
            return answer.status == 200
    except OSError:
        return False


def test_in_marimo(browser, marimo):
    with closing(Watched(browser, viewport={"width": 1400, "height": 1100})) as watched:
        watched.context.route(lambda url: not url.startswith(marimo), lambda route: route.abort())
        watched.page.goto(marimo, wait_until="commit")
        works(watched.page, heard=False)
        assert watched.page.locator(".lsc").count() == 1
        outside = [url for url in watched.requests if not url.startswith((marimo, marimo.replace("http", "ws")))]
        assert [url for url in outside if re.search("anywidget|layerscope", url)] == []
        assert [error for error in watched.errors if "layerscope" in error or "lsc" in error] == []


def test_in_voila(browser, server):
    pytest.importorskip("voila", reason="Voila is not installed: pip install voila")
    path = server.write("voila", *CELLS)
    with closing(Watched(browser, viewport={"width": 1400, "height": 1100})) as watched:
        page = watched.page
        watched.context.route(lambda url: not url.startswith(server.url), lambda route: route.abort())
        page.goto(f"{server.url}/voila/render/{path}?token={server.token}", wait_until="commit")  # it runs the cells
        works(page)
        expect(page.locator(".lsc-picture")).to_be_hidden()
        assert page.locator(".lsc").count() == 1
        # What Voila's page asks of others is its own; it goes without, and so do we.
        outside = [url for url in watched.requests if not url.startswith(server.url)]
        assert [url for url in outside if re.search("anywidget|layerscope", url)] == []
        assert [error for error in watched.errors if "layerscope" in error or "lsc" in error] == []


# ------------------------------------------------------------------------------------------------ VS Code and Colab


def test_the_module_runs_from_what_the_widget_itself_holds(browser):
    # As VS Code and Colab load it: one module from a blob, in a page that may ask nobody for anything.
    explorer = cases.many(3)
    explorer.selection = None
    state = {name: getattr(explorer, name) for name in (*explorer.DATA, *explorer.STATE)}
    data = {k: {"bytes": list(v)} if isinstance(v, bytes) else v for k, v in state.items()}
    policy = "default-src 'none'; script-src 'unsafe-inline' blob:; style-src 'unsafe-inline'"
    html = (
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><body class="vscode-dark"><div id="at"></div>'
    )
    with closing(Watched(browser)) as watched:
        page = watched.page
        page.set_content(html)
        page.expose_function("lscAsk", lambda ask: _answered(explorer, ask))
        page.evaluate(
            """async ([code, style, given]) => {
                const module = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
                const { default: widget } = await import(module);
                const named = document.createElement("style");
                named.textContent = style;
                document.head.append(named);
                const data = {};
                for (const [name, value] of Object.entries(given))
                    data[name] = value?.bytes ? new DataView(new Uint8Array(value.bytes).buffer) : value;
                const heard = {};
                const model = {
                    get: (name) => data[name],
                    set: (name, value) => { data[name] = value; },
                    save_changes() {},
                    on: (event, act) => { (heard[event] ??= []).push(act); },
                    off() {},
                    send: async (ask) => {
                        const [content, buffers] = await lscAsk(ask);
                        const views = buffers.map((one) => new DataView(new Uint8Array(one).buffer));
                        for (const act of heard["msg:custom"] ?? []) act(content, views);
                    },
                };
                widget.render({ model, el: document.getElementById("at") });
            }""",
            [explorer._esm, explorer._css, data],
        )
        works(page)
        expect(Shown(page).root).to_have_attribute("data-theme", "dark")  # as VS Code's page says
        assert watched.errors == []
        assert watched.requests == []


def _answered(explorer, ask):
    content, buffers = explorer.answer(ask)
    return [json.loads(json.dumps(content)), [list(buffer) for buffer in buffers]]


# ------------------------------------------------------------------------------------------------ Firefox


@pytest.fixture(scope="module")
def firefox(tmp_path_factory):
    if not firefoxes.there():
        pytest.skip("There is no Firefox: apt-get install firefox-esr")
    with closing(firefoxes.Firefox(tmp_path_factory.mktemp("firefox"))) as firefox:
        yield firefox


def test_a_saved_page_in_firefox(firefox, tmp_path):
    explorer = cases.many(24)
    explorer.colour = "language"
    path = explorer.save(tmp_path / "view.html")
    firefox.open(path.as_uri())
    firefox.until("document.querySelectorAll('.lsc-map').length === 2")
    firefox.until("!document.querySelector('.lsc-wait:not([hidden])')")
    firefox.value("document.querySelector('input.lsc-layer').focus()")
    firefox.press("\ue011")  # Home
    firefox.until("document.querySelector('.lsc-layer-box').value === '0'")
    box = firefox.value(
        """(() => {
            const over = document.querySelector(".lsc-over");
            over.scrollIntoView({ block: "center" });
            const { left, top, width, height } = over.getBoundingClientRect();
            return [left, top, width, height];
        })()"""
    )
    left, top, width, height = box
    firefox.drag(*((left + x * width, top + y * height) for x, y in CORNERS))
    firefox.until("document.querySelector('.lsc-count').textContent.endsWith('selected')")
    chosen = int(firefox.value("document.querySelector('.lsc-count').textContent").split()[0])
    points = explorer.numbers.maps(0).points[0] / explorer.numbers.domain()
    radius = 0.95 * min(width, height) / 2
    screen = np.array([left + width / 2, top + height / 2]) + points * [radius, -radius]
    from matplotlib.path import Path as Polygon

    inside = Polygon([(round(left + x * width), round(top + y * height)) for x, y in CORNERS]).contains_points(screen)
    assert abs(chosen - inside.sum()) <= 3  # where a rounding of a pixel decides
    assert chosen > 3
    colours = firefox.value(
        "[...new Set([...document.querySelectorAll('.lsc-item path')].map((p) => p.outerHTML))].length"
    )
    assert colours >= 24
    drawn = firefox.value(
        """[...document.querySelectorAll(".lsc-points, .lsc-heat")].map((canvas) => {
            const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            return new Set(new Uint32Array(data.buffer)).size;
        })"""
    )
    assert min(drawn) > 5  # every map and matrix has colours
    assert firefox.value("document.documentElement.scrollWidth") <= firefox.value("innerWidth")
    assert firefox.errors == []
    assert [url for url in firefox.requests if not url.startswith(("file:", "about:"))] == []
