"""The explorer in JupyterLab and as a saved page: mouse and keyboard, and what page and kernel then hold."""

import re

import numpy as np
import pytest
from browser import cases
from browser.lab import Watched, opened, until
from matplotlib.path import Path as Polygon
from playwright.sync_api import expect

import probes
from probes.widgets import Explorer, LayerCurves

pytestmark = pytest.mark.browser

MODELS = ["base", "pruned", "short"]
DEEPEST = 6
# A polygon that is not its own bounding box, in shares of a map.
CORNERS = [(0.25, 0.2), (0.8, 0.2), (0.8, 0.45), (0.5, 0.45), (0.5, 0.8), (0.25, 0.8)]
LISTEN = """() => {
    window.lscEvents = [];
    for (const name of ["painted", "settled"])
        document.addEventListener(`layerscope:${name}`, ({ detail }) => lscEvents.push([name, detail.layer]), true);
}"""


class Shown:
    """One explorer on a page."""

    def __init__(self, page, place=0):
        self.page, self.root = page, page.locator(".lsc").nth(place)

    def __call__(self, selector):
        return self.root.locator(selector)

    def ready(self):
        expect(self("input.lsc-layer")).to_be_visible()
        expect(self(".lsc-wait:not([hidden])")).to_have_count(0)

    def step(self, act, layer):
        """Do what changes the layer, and wait until the points rest."""
        self.page.evaluate("window.lscEvents.length = 0")
        act()
        self.page.wait_for_function(
            "layer => window.lscEvents.some(([name, at]) => name === 'settled' && at === layer)", arg=layer
        )

    def layer(self, layer):
        expect(self("input.lsc-layer")).to_have_value(str(layer))
        expect(self("input.lsc-layer")).to_have_attribute("aria-valuetext", f"layer {layer} of {DEEPEST}")
        expect(self(".lsc-layer-box")).to_have_value(str(layer))
        expect(self(".lsc-layer-text")).to_contain_text(f"of {DEEPEST}")

    def box(self, model):
        canvas = self(f'.lsc-map[data-model="{model}"] .lsc-over')
        canvas.evaluate("node => node.scrollIntoView({ block: 'center' })")
        return canvas.bounding_box()

    def screen(self, model, points):
        """Where points of a map, from -1 to 1 and y up, lie on the page."""
        box = self.box(model)
        radius = 0.95 * min(box["width"], box["height"]) / 2
        centre = [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2]
        return np.array(centre) + np.asarray(points) * [radius, -radius]

    def lasso(self, model, corners, shift=False):
        """Drag around an area; return its corners on the page."""
        box = self.box(model)
        path = [(round(box["x"] + x * box["width"]), round(box["y"] + y * box["height"])) for x, y in corners]
        mouse = self.page.mouse
        if shift:
            self.page.keyboard.down("Shift")
        mouse.move(*path[0])
        mouse.down()
        for corner in path[1:]:
            mouse.move(*corner)
        mouse.up()
        if shift:
            self.page.keyboard.up("Shift")
        return path

    def listed(self):
        return [int(row) for row in self(".lsc-sentence").evaluate_all("all => all.map(one => one.dataset.row)")]

    def ringed(self, model, at):
        """Whether the map has a ring around a place of the page."""
        canvas = self(f'.lsc-map[data-model="{model}"] .lsc-over')
        return canvas.evaluate(
            """(canvas, [x, y]) => {
                const box = canvas.getBoundingClientRect(), ratio = canvas.width / box.width;
                const [pen, on] = [canvas.getContext("2d"), (v) => Math.round(v * ratio)];
                const alpha = (dx, dy) => pen.getImageData(on(x - box.left + dx), on(y - box.top + dy), 1, 1).data[3];
                return [[7, 0], [-7, 0], [0, 7], [0, -7]].every(([dx, dy]) => alpha(dx, dy) > 0) && alpha(0, 0) === 0;
            }""",
            [float(v) for v in at],
        )


def within(path, screen):
    """Return which points lie in a polygon, and which so near its edge that a rounding decides."""
    edges = np.stack([path, np.roll(path, -1, axis=0)], axis=1).astype(float)
    along = edges[:, 1] - edges[:, 0]
    share = np.einsum("epd,ed->ep", screen[None] - edges[:, None, 0], along) / np.square(along).sum(1)[:, None]
    foot = edges[:, None, 0] + np.clip(share, 0, 1)[..., None] * along[:, None]
    near = np.linalg.norm(screen[None] - foot, axis=2).min(0) < 0.1
    return Polygon(path).contains_points(screen), near


def agrees(found, path, screen):
    inside, near = within(path, screen)
    wanted = set(np.flatnonzero(inside & ~near))
    in_box = ((screen > np.min(path, 0)) & (screen < np.max(path, 0))).all(1)
    assert 3 < len(wanted) < len(screen) - 3
    assert in_box.sum() > inside.sum(), "the polygon is to be told apart from its bounding box"
    assert wanted <= set(found) <= set(np.flatnonzero(inside | near))


def unsaid(root):
    """Return what of a text or label is no word for a reader."""
    said = root.evaluate(
        """root => {
            const all = [...root.querySelectorAll("[aria-label], [title], [aria-valuetext]")];
            return [root.innerText, ...all.flatMap((one) => [one.ariaLabel, one.title, one.ariaValueText])];
        }"""
    )
    return [text for text in said if text and re.search(r"undefined|\bNaN\b|\[object|\bnull\b|Infinity", text)]


def names_without(root):
    """Press Tab through the explorer; return what is not reached, has no name, or does not show the focus."""
    page = root.page
    wanted = root.evaluate(
        """root => {
            const all = [...root.querySelectorAll("select, input, button, summary, .lsc-over, .lsc-curve, .lsc-heat")];
            window.lscWanted = all.filter((one) => !one.disabled && one.checkVisibility());
            window.lscWanted[0].focus();
            return window.lscWanted.length;
        }"""
    )
    page.keyboard.press("Shift+Tab")  # a focus that is set by a script after a click is not to be seen
    page.keyboard.press("Tab")
    seen = page.evaluate_handle("() => new Set()")
    for _ in range(wanted + 5):
        page.evaluate(
            """seen => {
                const one = document.activeElement;
                if (seen.has(one)) return;
                seen.add(one);
                const style = getComputedStyle(one);
                const named = one.getAttribute("aria-label") || one.labels?.[0]?.innerText || one.innerText;
                one.lscNamed = Boolean(named?.trim());
                one.lscSeen = style.outlineStyle !== "none" || style.boxShadow !== "none";
            }""",
            seen,
        )
        page.keyboard.press("Tab")
    assert wanted > 20
    return page.evaluate(
        """seen => {
            const wrong = (one) => {
                if (!seen.has(one)) return "not reached";
                return !one.lscNamed ? "no name" : !one.lscSeen ? "focus not seen" : "";
            };
            return window.lscWanted.filter(wrong).map((one) => `${one.className || one.tagName}: ${wrong(one)}`);
        }""",
        seen,
    )


# ------------------------------------------------------------------------------------------------ in JupyterLab


@pytest.fixture(scope="module")
def notebook(server, open_notebook):
    """A notebook with two explorers of one comparison, run once."""
    path = server.write(
        "explore",
        "from browser import cases\ncomparison = cases.bundled()",
        "explorer = comparison.explore()\nexplorer",
        "import probes\nsecond = probes.widgets.Explorer(comparison, layer=1)\nsecond",
    )
    with open_notebook(path) as notebook:
        notebook.run_all()
        notebook.page.evaluate(LISTEN)
        yield notebook


@pytest.fixture
def kernel(notebook):
    return notebook.kernel


@pytest.fixture
def shown(notebook, kernel):
    """The first explorer as it is at first, whatever a test before has done with it."""
    shown = Shown(notebook.page)
    shown.ready()
    kernel.run(
        "explorer.selection, explorer.models, explorer.probe = None, ['base', 'pruned', 'short'], 'retrieval'\n"
        "explorer.language, explorer.colour, explorer.kind = 'pooled', 'label', 'pca'"
    )
    if kernel.value("explorer.layer") != DEEPEST:
        shown.step(lambda: kernel.run(f"explorer.layer = {DEEPEST}"), DEEPEST)
    expect(shown(".lsc-map")).to_have_count(3)
    expect(shown(".lsc-clear")).to_be_hidden()
    expect(shown(".lsc-probe")).to_have_value("retrieval")
    shown.layer(DEEPEST)
    yield shown
    assert unsaid(shown.root) == []
    assert notebook.errors == []


def points(kernel, model, layer, name="explorer"):
    """The coordinates of a map, from -1 to 1."""
    i = MODELS.index(model)
    return kernel.value(f"({name}.numbers.maps({i}).points[{layer}] / {name}.numbers.domain()).tolist()")


def test_the_slider_is_moved_by_keyboard(notebook, kernel, shown):
    slider = shown("input.lsc-layer")
    slider.focus()
    shown.step(lambda: notebook.page.keyboard.press("ArrowLeft"), 5)
    shown.layer(5)
    kernel.until("explorer.layer == 5")
    shown.step(lambda: notebook.page.keyboard.press("Home"), 0)
    shown.layer(0)
    kernel.until("explorer.layer == 0")
    assert [name for name, at in notebook.page.evaluate("window.lscEvents") if at == 0] == ["painted", "settled"]


def test_maps_move_with_the_slider_and_a_short_model_says_that_it_ends(notebook, kernel, shown):
    caption = shown('.lsc-map[data-model="short"] .lsc-caption')
    drawn = "canvas => canvas.toDataURL()"
    canvases = {m: shown(f'.lsc-map[data-model="{m}"] .lsc-points') for m in MODELS}
    expect(caption).to_contain_text("its last layer, 3")
    before = {m: canvases[m].evaluate(drawn) for m in MODELS}
    shown.step(lambda: kernel.run("explorer.layer = 4"), 4)
    expect(caption).to_contain_text("its last layer, 3")
    after = {m: canvases[m].evaluate(drawn) for m in MODELS}
    assert [m for m in MODELS if before[m] == after[m]] == ["short"]
    shown.step(lambda: kernel.run("explorer.layer = 2"), 2)
    expect(caption).not_to_contain_text("ends at layer")
    share = kernel.value("float(explorer.numbers.maps(2).explained[2])")
    given = float(re.search(r"([\d.]+) %", caption.inner_text())[1]) / 100
    assert given == pytest.approx(share, abs=0.0051)


def test_play_goes_to_the_last_layer_and_stops(kernel, shown):
    kernel.run(f"explorer.layer = {DEEPEST - 2}")
    shown.layer(DEEPEST - 2)
    shown(".lsc-play").click()
    expect(shown(".lsc-play")).to_have_attribute("aria-label", "Pause")
    shown.layer(DEEPEST)
    expect(shown(".lsc-play")).to_have_attribute("aria-label", "Play through the layers")
    kernel.until(f"explorer.layer == {DEEPEST}")


def test_models_are_switched(kernel, shown):
    shown(".lsc-show-model").nth(1).uncheck()
    kernel.until("explorer.models == ['base', 'short']")
    expect(shown(".lsc-map")).to_have_count(2)
    shown(".lsc-show-model").nth(0).uncheck()
    kernel.until("explorer.models == ['short']")
    expect(shown(".lsc-show-model").nth(2)).to_be_disabled()  # one map stays
    shown(".lsc-show-model").nth(1).check()
    kernel.until("explorer.models == ['pruned', 'short']")
    assert shown(".lsc-map").evaluate_all("all => all.map(one => one.dataset.model)") == ["pruned", "short"]


def test_a_probe_a_language_and_colours_are_chosen(kernel, shown):
    shown(".lsc-probe").select_option("cosine_to_baseline")
    kernel.until("explorer.probe == 'cosine_to_baseline'")
    expect(shown(".lsc-curve")).to_have_attribute("aria-label", re.compile("cosine"))
    shown(".lsc-language").select_option("ar")
    kernel.until("explorer.language == 'ar'")
    expect(shown(".lsc-curve")).to_have_attribute("aria-label", re.compile("by layer, Arabic"))
    for colour in ("language", "prediction", "drift"):
        shown(".lsc-colour").select_option(colour)
        kernel.until(f"explorer.colour == '{colour}'")
    expect(shown(".lsc-categories")).to_contain_text("1 − cosine to the baseline")


def test_curves_show_the_numbers_of_the_table(kernel, shown):
    shown(".lsc-curve").focus()
    for layer in (4, 5):
        shown.page.keyboard.press("ArrowRight" if layer == 5 else "ArrowLeft")
    # from layer 6 once to the left, then to the right, is layer 6 again
    table = (
        "comparison.to_dataframe().query(\"probe == 'retrieval' and language == 'pooled' and layer == 6\")"
        ".set_index('model')['value'].to_dict()"
    )
    expect(shown(".lsc-tip")).to_contain_text("layer 6")
    said = shown(".lsc-tip tr").all_inner_texts()
    for (model, value), text in zip(kernel.value(table).items(), said, strict=False):
        assert model in text
        assert float(re.findall(r"\d\.\d+", text)[0]) == pytest.approx(value, abs=5e-4)
    shown.page.keyboard.press("Escape")


def test_a_click_on_the_curves_sets_the_layer(kernel, shown):
    svg = shown(".lsc-curve")
    svg.scroll_into_view_if_needed()
    ticks = svg.locator("text").all()
    two = next(t for t in reversed(ticks) if t.text_content() == "2")
    at, box = two.bounding_box(), svg.bounding_box()
    shown.step(lambda: shown.page.mouse.click(at["x"] + at["width"] / 2, box["y"] + box["height"] / 2), 2)
    kernel.until("explorer.layer == 2")


def test_a_lasso_selects_exactly_what_lies_in_it(kernel, shown):
    shown.step(lambda: kernel.run("explorer.layer = 4"), 4)
    for model in ("pruned", "base"):
        path = shown.lasso(model, CORNERS)
        kernel.until("len(explorer.selection)")
        rows = kernel.value("explorer.selection.index.tolist()")
        agrees(rows, path, shown.screen(model, points(kernel, model, 4)))
        expect(shown(".lsc-count")).to_have_text(f"{len(rows)} selected")
        assert shown.listed() == rows[:50]
        held = kernel.value("explorer.selection[['id', 'language', 'text']].values.tolist()")
        reps = "comparison.representations['base']"
        there = kernel.value(f"list(zip(*({reps}[c].values.tolist() for c in ('id', 'language', 'text'))))")
        assert held == [there[row] for row in rows]
        kernel.run("explorer.selection = None")
        expect(shown(".lsc-clear")).to_be_hidden()


def test_shift_adds_to_a_selection_and_escape_and_empty_space_clear_it(notebook, kernel, shown):
    left = [(0.3, 0.3), (0.5, 0.3), (0.5, 0.7), (0.3, 0.7)]
    right = [(0.55, 0.3), (0.75, 0.3), (0.75, 0.7), (0.55, 0.7)]
    shown.lasso("base", left)
    kernel.until("len(explorer.selection)")
    first = set(kernel.value("explorer.selection.index.tolist()"))
    shown.lasso("base", right, shift=True)
    kernel.until(f"len(explorer.selection) > {len(first)}")
    both = set(kernel.value("explorer.selection.index.tolist()"))
    shown.lasso("base", right)
    kernel.until(f"len(explorer.selection) != {len(both)}")
    second = set(kernel.value("explorer.selection.index.tolist()"))
    assert first
    assert second
    assert both == first | second
    shown.lasso("base", [(0.01, 0.01), (0.05, 0.01), (0.05, 0.05), (0.01, 0.05)])  # a corner without points
    kernel.until("not len(explorer.selection)")
    shown.lasso("base", left)
    kernel.until("len(explorer.selection)")
    notebook.page.keyboard.press("Escape")
    kernel.until("not len(explorer.selection)")


def test_what_the_kernel_sets_is_seen(kernel, shown):
    shown.step(lambda: kernel.run("explorer.layer = 3"), 3)
    shown.layer(3)
    kernel.run("explorer.selection = [comparison.representations['base'].id.values[0]]")
    expect(shown(".lsc-count")).to_have_text("3 selected")  # in three languages
    rows = kernel.value("explorer.selection.index.tolist()")
    assert shown.listed() == rows
    text = kernel.value("comparison.representations['base'].text.values.tolist()")
    assert shown(".lsc-sentence > .lsc-text").all_inner_texts() == [text[row] for row in rows]
    kernel.run("explorer.models = ['short', 'base']")
    expect(shown(".lsc-map")).to_have_count(2)
    assert shown(".lsc-map").evaluate_all("all => all.map(one => one.dataset.model)") == ["short", "base"]
    kernel.run(
        "explorer.probe, explorer.language, explorer.colour = 'snr', 'fr', 'language'\n"
        "explorer.focus, explorer.compared, explorer.measure = 'short', ['short', 'pruned'], 'cka_debiased'"
    )
    for place, value in {
        "probe": "snr",
        "language": "fr",
        "colour": "language",
        "focus": "short",
        "one": "short",
        "other": "pruned",
        "measure": "cka_debiased",
    }.items():
        expect(shown(f".lsc-{place}")).to_have_value(value)
    kernel.run("explorer.focus, explorer.compared, explorer.measure = 'pruned', ['base', 'pruned'], 'cka'")


def test_hover_shows_the_sentence_and_rings_it_in_all_maps(notebook, kernel, shown):
    screens = {m: points(kernel, m, min(DEEPEST, 3 if m == "short" else DEEPEST)) for m in MODELS}
    at = shown.screen("pruned", screens["pruned"])
    row = _alone(at)
    notebook.page.mouse.move(*at[row])
    text = kernel.value(f"comparison.representations['base'].text.values.tolist()[{row}]")
    expect(shown(".lsc-tip .lsc-tip-text")).to_have_text(text)
    for model in MODELS:
        box = shown(f'.lsc-map[data-model="{model}"] .lsc-over').bounding_box()
        radius = 0.95 * min(box["width"], box["height"]) / 2
        x, y = screens[model][row]
        place = box["x"] + box["width"] / 2 + x * radius, box["y"] + box["height"] / 2 - y * radius
        until(lambda model=model, place=place: shown.ringed(model, place), f"a ring in the map of {model}")
    notebook.page.mouse.move(2, 2)
    expect(shown(".lsc-tip")).to_be_hidden()
    assert kernel.value("len(explorer.selection)") == 0


def _alone(screen):
    """A point that is clearly the nearest to where it lies."""
    gaps = np.linalg.norm(screen[:, None] - screen[None], axis=2) + np.eye(len(screen)) * 1e9
    return int(gaps.min(1).argmax())


def test_a_sentence_is_opened_with_translations_and_neighbours(notebook, kernel, shown):
    screen = shown.screen("base", points(kernel, "base", DEEPEST))
    row = _alone(screen)
    notebook.page.mouse.click(*screen[row])
    kernel.until(f"explorer.selection.index.tolist() == [{row}]")
    detail = shown(".lsc-detail")
    for model, name in enumerate(MODELS):
        fold = detail.locator(f'.lsc-neighbours[data-model="{model}"]')
        expect(fold).to_have_count(1)
        found = fold.locator(".lsc-link:not(.lsc-gone)").evaluate_all("all => all.map(one => Number(one.dataset.row))")
        layer = min(DEEPEST, 3 if name == "short" else DEEPEST)
        states = np.array(kernel.value(f"comparison.representations['{name}'].hidden[{layer}].values.tolist()"))
        assert found == _nearest(states, row)
    ids = np.array(kernel.value("comparison.representations['base'].id.values.tolist()"))
    same = set(np.flatnonzero(ids == ids[row])) - {row}
    given = detail.locator(".lsc-block").first.locator(".lsc-link")
    assert set(given.evaluate_all("all => all.map(one => Number(one.dataset.row))")) == same


def _nearest(states, row, k=5):
    unit = states / np.linalg.norm(states, axis=1, keepdims=True)
    cosine = unit @ unit[row]
    cosine[row] = -2
    return np.argsort(-cosine)[:k].tolist()


def test_heat_maps_are_there_and_set_the_layer(kernel, shown):
    expect(shown(".lsc-alignment .lsc-heatbox:visible")).to_have_count(3)
    canvas = shown(".lsc-similarity canvas")
    expect(canvas).to_have_attribute("aria-label", re.compile("similarity of layers: base by pruned, mean"))
    canvas.focus()
    shown.page.keyboard.press("ArrowUp")
    shown.step(lambda: shown.page.keyboard.press("Enter"), DEEPEST - 1)
    kernel.until(f"explorer.layer == {DEEPEST - 1}")


def test_two_explorers_do_not_disturb_each_other(notebook, kernel, shown):
    second = Shown(notebook.page, 1)
    second.ready()
    kernel.run("second.layer, second.selection = 1, None")
    second.layer(1)
    shown.lasso("base", CORNERS)
    kernel.until("len(explorer.selection)")
    shown.step(lambda: kernel.run("explorer.layer = 2"), 2)
    second.layer(1)
    assert kernel.value("[second.layer, len(second.selection)]") == [1, 0]
    rows = kernel.value("explorer.selection.index.tolist()")
    second("input.lsc-layer").focus()
    second.step(lambda: notebook.page.keyboard.press("End"), DEEPEST)
    second.lasso("pruned", [(x, y - 0.1) for x, y in CORNERS])
    kernel.until("len(second.selection)")
    assert kernel.value("explorer.selection.index.tolist()") == rows
    assert kernel.value("second.selection.index.tolist()") != rows
    assert kernel.value("[explorer.layer, second.layer]") == [2, DEEPEST]
    shown.layer(2)
    second.layer(DEEPEST)


def test_everything_is_reached_by_tab_and_has_a_name(notebook, shown):
    shown.lasso("base", CORNERS)
    expect(shown(".lsc-clear")).to_be_visible()
    assert names_without(shown.root) == []


def test_running_the_cell_again_keeps_the_state(notebook, kernel, shown):
    shown.step(lambda: kernel.run("explorer.layer = 2"), 2)
    shown.lasso("base", CORNERS)
    kernel.until("len(explorer.selection)")
    shown(".lsc-probe").select_option("snr")
    kernel.until("explorer.probe == 'snr'")
    rows = kernel.value("explorer.selection.index.tolist()")
    kernel.run("former = explorer")
    notebook.run(1)
    assert kernel.value("explorer is not former")
    assert kernel.value("explorer.selection.index.tolist()") == rows
    again = Shown(notebook.page)
    again.ready()
    again.layer(2)
    expect(again(".lsc-count")).to_have_text(f"{len(rows)} selected")
    expect(again(".lsc-probe")).to_have_value("snr")
    assert again.listed() == rows[:50]
    kernel.run("former.close()")


def test_the_picture_is_hidden_while_the_kernel_runs(notebook, shown):
    expect(notebook.page.locator(".lsc-picture")).to_have_count(2)
    for picture in notebook.page.locator(".lsc-picture").all():
        expect(picture).to_be_hidden()


def test_a_notebook_that_is_opened_again_shows_the_picture(server, open_notebook):
    path = server.write("again", "from browser import cases", "explorer = cases.one_model()\nexplorer")
    with open_notebook(path) as notebook:
        notebook.run_all()
        Shown(notebook.page).ready()
        notebook.command("docmanager:save")
    with open_notebook(path) as notebook:
        # The one complaint is that of the manager of widgets, made of any widget whose kernel is gone.
        manager = "/@jupyter-widgets/jupyterlab-manager/"
        notebook.forgives = lambda error: error.startswith("Error: widget model not found\n") and manager in error
        expect(notebook.page.locator(".lsc-picture figcaption")).to_contain_text("because no kernel runs")
        picture = notebook.page.locator(".lsc-picture img")
        picture.scroll_into_view_if_needed()
        expect(picture).to_be_visible()
        assert picture.evaluate("one => one.naturalWidth") > 400
        assert notebook.page.locator(".lsc").count() == 0


def test_degenerate_comparisons_and_hostile_texts(server, open_notebook):
    names = [*cases.DEGENERATE, "hostile"]
    path = server.write("degenerate", "from browser import cases", *(f"cases.{name}()" for name in names))
    with open_notebook(path) as notebook:
        notebook.run_all()
        for place in range(len(names)):
            expect(Shown(notebook.page, place).root).to_have_count(1)
        for place, name in enumerate(names):
            one = Shown(notebook.page, place)
            one.root.scroll_into_view_if_needed()
            if name != "saved_table":
                one.ready()
            assert unsaid(one.root) == []
        assert notebook.page.evaluate("window.hacked === undefined")


def test_a_kernel_that_was_restarted_is_said(server, open_notebook):
    path = server.write("restarted", "from browser import cases", "explorer = cases.no_labels()\nexplorer")
    with open_notebook(path) as notebook:
        notebook.run_all()
        shown = Shown(notebook.page)
        shown.ready()
        expect(shown(".lsc-silent")).to_be_hidden()
        # JupyterLab says by itself what it had asked of the kernel that is gone.
        notebook.forgives = lambda error: "anywidget" not in error
        (session,) = [one for one in server.ask("GET", "/api/sessions") if one["path"] == path]
        server.ask("POST", f"/api/kernels/{session['kernel']['id']}/restart")
        # What is asked now nobody hears.
        shown("input.lsc-layer").focus()
        notebook.page.keyboard.press("Home")
        expect(shown(".lsc-silent")).to_be_visible()
        expect(shown(".lsc-silent")).to_contain_text(re.compile("restarted.* run the cell again", re.I))


# ------------------------------------------------------------------------------------------------ the saved page


@pytest.fixture(scope="module")
def explorer():
    return cases.bundled().explore()


@pytest.fixture(scope="module")
def saved(explorer, tmp_path_factory):
    return explorer.save(tmp_path_factory.mktemp("saved") / "view.html")


def open_page(browser, path, script=None, **context):
    """Open a saved page; nothing is asked for but the page itself. The script runs before those of the page."""
    watched = Watched(browser, **{"viewport": {"width": 1280, "height": 1000}} | context)
    if script:
        watched.page.add_init_script(f"({script})()")
    watched.page.goto(path.as_uri())
    watched.page.evaluate(LISTEN)
    return opened(watched)


@pytest.fixture
def page(browser, saved):
    with open_page(browser, saved) as watched:
        Shown(watched.page).ready()
        yield watched.page
        assert unsaid(Shown(watched.page).root) == []
        assert watched.requests == [saved.as_uri()]


def coordinates(explorer, model, layer):
    return explorer.numbers.maps(MODELS.index(model)).points[layer] / explorer.numbers.domain()


def test_the_slider_of_a_saved_page(page):
    shown = Shown(page)
    shown.layer(DEEPEST)
    drawn = shown(".lsc-points").first
    before = drawn.evaluate("canvas => canvas.toDataURL()")
    shown("input.lsc-layer").focus()
    shown.step(lambda: page.keyboard.press("Home"), 0)
    shown.layer(0)
    assert drawn.evaluate("canvas => canvas.toDataURL()") != before
    shown.step(lambda: page.keyboard.press("End"), DEEPEST)
    assert drawn.evaluate("canvas => canvas.toDataURL()") == before


def test_hover_in_a_saved_page(page, explorer):
    shown = Shown(page)
    at = shown.screen("base", coordinates(explorer, "base", DEEPEST))
    row = _alone(at)
    places = {}
    for model in MODELS:
        box = shown(f'.lsc-map[data-model="{model}"] .lsc-over').bounding_box()
        radius = 0.95 * min(box["width"], box["height"]) / 2
        x, y = coordinates(explorer, model, 3 if model == "short" else DEEPEST)[row]
        places[model] = box["x"] + box["width"] / 2 + x * radius, box["y"] + box["height"] / 2 - y * radius
        assert not shown.ringed(model, places[model])
    page.mouse.move(*at[row])
    expect(shown(".lsc-tip .lsc-tip-text")).to_have_text(explorer.texts["text"][row])
    for model, place in places.items():
        until(lambda model=model, place=place: shown.ringed(model, place), f"a ring in the map of {model}")


def test_modules_stand_below_their_layer_on_demand(browser, tmp_path):
    """In the saved explorer and in the report: a bar of each, where it says, and named where it is a cause."""
    comparison = cases.caused()
    report = comparison.report(tmp_path / "report.html")
    for path, outer, module in (
        (comparison.explore().save(tmp_path / "view.html"), ".lsc-causes", ".lsc-cause.lsc-module"),
        (report, ".causes", "tr.module .bar"),
    ):
        with open_page(browser, path) as watched:
            page = watched.page
            if outer == ".lsc-causes":
                page.locator(f"{outer} summary").click()
            inside = page.locator(f"{outer} {module}")
            expect(inside).to_have_count(2)
            expect(inside.first).to_be_hidden()
            page.get_by_label("attention and feed-forward").check()
            expect(inside.first).to_be_visible()
            page.screenshot(path=str(tmp_path / f"{path.stem}.png"))
            parts = inside.evaluate_all(
                """all => all.map(one => [one.getBoundingClientRect(), one.firstChild.getBoundingClientRect()]
                    .map(({ left, width }) => [left, width]))"""
            )
            for (left, width), (start, length) in parts:
                assert left - 1 <= start <= start + length <= left + width + 1
            (_, one), (_, two) = parts
            assert one[1] < two[1] / 3  # .01 and .09
            page.get_by_label("attention and feed-forward").uncheck()
            expect(inside.first).to_be_hidden()


def test_a_tooltip_of_curves_alone_is_not_cut(browser, tmp_path):
    path = LayerCurves(cases.bundled()).save(tmp_path / "curves.html")
    with open_page(browser, path) as watched:
        shown = Shown(watched.page)
        shown(".lsc-curve").hover()
        expect(shown(".lsc-tip tr")).to_have_count(3)
        tip, root = shown(".lsc-tip").bounding_box(), shown.root.bounding_box()
        assert root["y"] <= tip["y"]
        assert tip["y"] + tip["height"] <= root["y"] + root["height"]


def test_a_lasso_in_a_saved_page(page, explorer):
    shown = Shown(page)
    path = shown.lasso("pruned", CORNERS)
    screen = shown.screen("pruned", coordinates(explorer, "pruned", DEEPEST))
    count = int(re.match(r"(\d+) selected", shown(".lsc-count").inner_text())[1])
    inside, near = within(path, screen)
    if count <= 50:
        agrees(shown.listed(), path, screen)
    else:
        assert (inside & ~near).sum() <= count <= (inside | near).sum()
        assert set(shown.listed()) <= set(np.flatnonzero(inside | near))
    row = shown.listed()[0]
    shown(".lsc-sentence").first.click()
    expect(shown(".lsc-neighbours")).to_have_count(3)
    for model, name in enumerate(MODELS):
        found = shown(f'.lsc-neighbours[data-model="{model}"] .lsc-link:not(.lsc-gone)')
        states = cases.bundled().representations[name].hidden.values[3 if name == "short" else DEEPEST]
        given = found.evaluate_all("all => all.map(one => Number(one.dataset.row))")
        assert given == _nearest(states.astype(float), row)


def test_everything_in_a_saved_page_is_reached_by_tab_and_has_a_name(page):
    shown = Shown(page)
    shown.lasso("base", CORNERS)
    expect(shown(".lsc-clear")).to_be_visible()
    assert names_without(shown.root) == []


def test_a_saved_page_is_dark_where_the_reader_wants_it(browser, saved):
    brightness = "node => getComputedStyle(node).backgroundColor.match(/[0-9.]+/g).slice(0, 3).map(Number)"
    found = {}
    for scheme in ("light", "dark"):
        with open_page(browser, saved, color_scheme=scheme) as watched:
            shown = Shown(watched.page)
            shown.ready()
            expect(shown.root).to_have_attribute("data-theme", scheme)
            found[scheme] = np.mean(watched.page.locator("body").evaluate(brightness))
    assert found["dark"] < 60 < 200 < found["light"]


@pytest.mark.parametrize("width", [700, 1280, 1920])
def test_nothing_is_wider_than_the_page(browser, saved, width):
    with open_page(browser, saved, viewport={"width": width, "height": 1000}) as watched:
        Shown(watched.page).ready()
        assert watched.page.evaluate("document.documentElement.scrollWidth") <= width
        overlapping = watched.page.evaluate(
            """() => {
                const parts = [...document.querySelectorAll("[data-part]")];
                const beside = (a, b) => a.right <= b.left + 1 || b.right <= a.left + 1;
                const under = (a, b) => a.bottom <= b.top + 1 || b.bottom <= a.top + 1;
                const box = (part) => part.getBoundingClientRect();
                const over = (a, b) => !beside(box(a), box(b)) && !under(box(a), box(b));
                const name = (a, b) => `${a.dataset.part} over ${b.dataset.part}`;
                return parts.flatMap((a, i) => parts.slice(i + 1).filter((b) => over(a, b)).map((b) => name(a, b)));
            }"""
        )
        assert overlapping == []


@pytest.mark.parametrize(("language", "way"), [("en", "ltr"), ("ar", "rtl"), ("zh", "ltr")])
def test_tokens_of_a_sentence_are_chosen_for_their_layers_and_coloured(browser, tmp_path, language, way):
    explorer = cases.decoders().explore()
    here = np.flatnonzero(explorer.scene.frame["language"] == language)
    row = next(int(row) for row in here if str(row) in explorer.about["spoken"])
    explorer.selection = explorer.scene.frame.iloc[[row]]
    parts = explorer.about["spoken"][str(row)][0]["parts"]
    with open_page(browser, explorer.save(tmp_path / "view.html", overwrite=True)) as watched:
        shown = Shown(watched.page)
        shown.ready()
        text = shown(".lsc-said")
        assert text.evaluate("node => node.textContent") == explorer.scene.frame["text"].iloc[row]
        assert text.evaluate("(node, way) => node.matches(`:dir(${way})`)", way)
        tokens = shown(".lsc-said > span")
        layers = [k for k, part in enumerate(parts) if part[4]]
        for k, act in ((layers[0], "click"), (layers[-1], "Enter")):
            if act == "click":
                tokens.nth(k).click()
            else:
                tokens.nth(k).press(act)
            cells = shown(".lsc-lens td").all_text_contents()
            assert cells == [cell for line in parts[k][4] for cell in line[1:]]
            expect(shown(".lsc-chosen")).to_have_attribute("aria-pressed", "true")
            assert shown(".lsc-chosen").evaluate("node => node.textContent") == parts[k][0]
        colour = "node => getComputedStyle(node).backgroundColor"
        most = max(range(len(parts)), key=lambda k: parts[k][2])
        before = tokens.nth(most).evaluate(colour)
        shown(".lsc-token-colour").select_option(label="surprise in the model")
        assert tokens.nth(most).evaluate(colour) != before
        assert unsaid(shown.root) == []


def test_maps_are_coloured_by_a_code_and_its_sentences_are_hidden(browser, tmp_path):
    reps = cases.arrays(rows=40, languages=2)
    some = reps.isel(example=reps.language == "l0")
    found = probes.latent_features(some, k=2, refits=2, permutations=19)
    explorer = Explorer({"base": reps, "other": cases.arrays(rows=40, languages=2, seed=1)}, latent=found)
    with open_page(browser, explorer.save(tmp_path / "view.html")) as watched:
        shown = Shown(watched.page)
        shown.ready()
        shown(".lsc-colour").select_option("code 2")
        having = int(found.codes.sel(code="code 2").sum())
        sums = [f"without code 2{some.sizes['example'] - having}", f"with code 2{having}"]
        sums.append(f"no codes known{reps.sizes['example'] - some.sizes['example']}")
        items = shown(".lsc-categories .lsc-item")
        expect(items).to_have_count(3)
        assert items.all_text_contents() == sums
        expect(shown(".lsc-categories")).to_contain_text("stability")
        pixels = "node => node.toDataURL()"
        before = shown(".lsc-points").first.evaluate(pixels)
        items.nth(1).click()
        shown.ready()
        assert shown(".lsc-points").first.evaluate(pixels) != before
        assert unsaid(shown.root) == []


def test_texts_that_look_like_html_are_shown_as_they_are(browser, tmp_path):
    explorer = cases.hostile()
    explorer.selection = pd_all(explorer)
    with open_page(browser, explorer.save(tmp_path / "hostile.html")) as watched:
        shown = Shown(watched.page)
        shown.ready()
        texts = shown(".lsc-sentence > .lsc-text").evaluate_all("all => all.map(one => one.textContent)")
        assert texts == [text or "(empty text)" for text in explorer.texts["text"]]
        for name in cases.HOSTILE[:2]:
            assert name in shown(".lsc-map").evaluate_all("all => all.map(one => one.dataset.model)")
        directions = shown(".lsc-sentence > .lsc-text").evaluate_all(
            "all => all.map(one => getComputedStyle(one).direction)"
        )
        assert [d == "rtl" for d in directions] == [text == cases.ARABIC for text in explorer.texts["text"]]
        assert watched.page.locator(".lsc script, .lsc img, .lsc svg[onload]").count() == 0
        assert watched.page.evaluate("window.hacked === undefined")


def pd_all(explorer):
    return explorer.scene.frame.loc[:, []]


SAYS = {
    "one_model": ["There is one model only", "There is one language only", "No sentence is there in two languages."],
    "no_labels": ["There are no labels."],
    "no_pivot": ["There are no predictions."],
    "three_sentences": ["No probes were measured.", "UMAP needs at least"],
    "one_layer": ["No probes were measured."],
    "sixty_classes": ["Colours repeat after 10"],
    "empty_texts": ["(empty text)", "No probes were measured."],
    "sampled": ["100 of 400 sentences are shown"],
    "saved_table": ["The Representations are not here"],
}


@pytest.mark.parametrize("name", cases.DEGENERATE)
def test_what_is_missing_is_said(browser, tmp_path, name):
    path = cases.DEGENERATE[name]().save(tmp_path / "view.html")
    with open_page(browser, path) as watched:
        shown = Shown(watched.page)
        expect(shown.root).to_be_visible()
        if name != "saved_table":
            shown.ready()
            shown(".lsc-over").first.focus()  # a sentence is opened, for what is said there
            watched.page.keyboard.press("ArrowRight")
            watched.page.keyboard.press("Enter")
            expect(shown(".lsc-detail")).to_be_visible()
        for summary in shown(".lsc-why > summary").all():
            summary.click()
        for text in SAYS[name]:
            expect(shown.root).to_contain_text(text)
        assert unsaid(shown.root) == []
        if name == "sixty_classes":
            expect(shown(".lsc-categories .lsc-item")).to_have_count(60)
