"""Every tutorial, run top to bottom in JupyterLab, then its solutions, and what it says held against the numbers."""

import re
import shutil
from pathlib import Path

import nbformat
import pytest
from claims import checks, solutions
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
WIDGET = "application/vnd.jupyter.widget-view+json"


def test_there_are_tutorials():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_in_jupyterlab(path, server, open_notebook):
    told = nbformat.read(path, as_version=4)
    for source in (solutions(told), checks(path.stem)):
        told.cells.append(nbformat.v4.new_code_cell(source, id=f"cell-{len(told.cells)}"))
    nbformat.write(told, server.root / path.name)
    (server.root / "studies").mkdir(exist_ok=True)
    for table in re.findall(r"\bstudies/\w+\.csv", "".join(cell.source for cell in told.cells)):
        shutil.copy(path.parent / table, server.root / table)
    with open_notebook(path.name) as notebook:
        notebook.run_all(timeout=900)
        outputs = [o for cell in notebook.cells() if cell["cell_type"] == "code" for o in cell["outputs"]]
        said = "".join("".join(o["text"]) for o in outputs if o.get("name") == "stderr")
        assert said.count("Warning: ") == said.count("LayerscopeWarning: "), said
        # Bars of progress are widgets, too; explorers are those that are followed by a picture.
        explorers = sum("lsc-picture" in "".join(o.get("data", {}).get("text/html", "")) for o in outputs)
        source = "".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")
        assert explorers or not any(word in source for word in (".explore(", "probes.widgets"))
        assert sum(WIDGET in o.get("data", {}) for o in outputs) >= explorers
        page = notebook.page
        expect(page.locator(".lsc")).to_have_count(explorers)
        for one in page.locator(".lsc").all():
            one.scroll_into_view_if_needed()
            expect(one.locator("input.lsc-layer")).to_be_visible()
            expect(one.locator(".lsc-wait:not([hidden])")).to_have_count(0)
        for picture in page.locator("img.lsc-picture").all():
            expect(picture).to_be_hidden()
