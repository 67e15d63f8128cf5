"""Make the pictures of the explorer in notebooks/images/ again, in JupyterLab.

python tests/browser/screenshots.py [folder]

Hindi and Chinese need fonts. Where there are none, those of the packages fontpkg-noto-sans-devanagari and
cvttf-notosanscjk-regular do, with `pip install --target` into a folder that the file in FONTCONFIG_FILE names.
"""

import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1])]

from browser.lab import Notebook, Server, chromium  # noqa: E402
from playwright.sync_api import Page, expect, sync_playwright  # noqa: E402

FOLDER = Path(__file__).parents[2] / "notebooks" / "images"
DEMO = Path(__file__).parents[2] / "runs" / "demo"  # what `make demo` makes
CELLS = (
    f"""import probes

models = {{"base": "bundled"}} | {{name: f"{DEMO}/{{name}}" for name in ("pruned", "quantized", "distilled")}}
corpus = probes.load_corpus("bundled", split="test")
comparison = probes.compare(models, corpus, pivot="en", progress=False)""",
    """explorer = comparison.explore(probe="retrieval", layer=5)
explorer.focus, explorer.compared = "distilled", ["base", "distilled"]
explorer""",
    """from probes.widgets import LayerCurves

LayerCurves(comparison, probe="retrieval", layer=5)""",
)
# What the explorer's picture does not need.
ONLY = ".jp-Notebook { padding: 0 !important } .lsc { padding: 12px !important }"


def lasso(page: Page) -> None:
    """Draw around a part of the first map."""
    canvas = page.locator(".lsc-over").first
    canvas.evaluate("node => node.scrollIntoView({ block: 'center' })")
    box = canvas.bounding_box()
    assert box
    corners = [(0.62, 0.3), (0.74, 0.28), (0.83, 0.38), (0.82, 0.52), (0.72, 0.58), (0.63, 0.5)]
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=4)
    page.mouse.up()
    page.mouse.move(2, 2)


def rests(page: Page) -> None:
    """Wait until everything that was asked for is here."""
    expect(page.locator(".lsc-wait:not([hidden]), .lsc-stale, .lsc-late:visible")).to_have_count(0)
    page.evaluate("() => new Promise((done) => setTimeout(done, 600))")  # the points move, the answers are drawn


def main(folder: Path) -> None:
    """Write all pictures."""
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        browser, server = chromium(playwright), Server(Path(place))
        try:
            # High enough for the whole explorer, so that a picture of it is not cut by the notebook.
            notebook = Notebook(
                browser, server, server.write("explore", *CELLS), viewport={"width": 1408, "height": 2160}
            )
            page = notebook.page
            notebook.command("application:toggle-left-area")
            notebook.run_all(timeout=600)
            page.add_style_tag(content=ONLY)
            page.locator(".lsc").first.scroll_into_view_if_needed()
            rests(page)
            explorer, curves = page.locator(".lsc").nth(0), page.locator(".lsc").nth(1)
            lasso(page)
            expect(explorer.locator(".lsc-count")).to_contain_text("selected")
            for name, theme in (("dark", "JupyterLab Dark"), ("light", "JupyterLab Light")):
                notebook.command("apputils:change-theme", theme=theme)
                expect(explorer).to_have_attribute("data-theme", name)
                rests(page)
                explorer.screenshot(path=folder / f"explorer_{name}.png")
            for part in ("maps", "alignment", "similarity"):
                explorer.locator(f".lsc-{part}").screenshot(path=folder / f"explorer_{part}.png")
            explorer.locator(".lsc-sentence").first.click()
            page.mouse.move(2, 2)
            expect(explorer.locator(".lsc-neighbours").first).to_be_visible()
            rests(page)
            explorer.locator(".lsc-sentences").screenshot(path=folder / "explorer_sentences.png")
            curves.scroll_into_view_if_needed()
            curve = curves.locator(".lsc-curve")
            box = curve.bounding_box()
            assert box
            page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.3 * box["height"])
            expect(curves.locator(".lsc-tip")).to_be_visible()
            curves.screenshot(path=folder / "explorer_curves.png")
            notebook.close()
            assert notebook.errors == []
        finally:
            server.close()
            browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else FOLDER)
