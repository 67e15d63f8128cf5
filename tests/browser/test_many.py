"""The explorer with many languages and models: what is read, found and told apart, on saved pages."""

import itertools
import re
from collections import Counter

import numpy as np
import pytest
from browser import cases
from browser.test_explorer import Shown, open_page
from playwright.sync_api import expect

from probes.widgets import Explorer

pytestmark = pytest.mark.browser

# Note what is drawn on a canvas: texts with their place and font, and filled boxes, of the last drawing of each.
DRAWN = """() => {
    const kept = (pen) => (pen.canvas.lscDrawn ??= { texts: [], boxes: [] });
    const { fillText, fillRect, clearRect } = CanvasRenderingContext2D.prototype;
    Object.assign(CanvasRenderingContext2D.prototype, {
        clearRect(...given) { this.canvas.lscDrawn = null; clearRect.apply(this, given); },
        fillText(text, x, y, ...rest) {
            const at = this.getTransform().transformPoint(new DOMPoint(x, y));
            const turned = Math.abs(this.getTransform().b) > 0.5;
            kept(this).texts.push({ text, x: at.x, y: at.y, size: parseFloat(this.font), turned });
            fillText.call(this, text, x, y, ...rest);
        },
        fillRect(x, y, w, h) { kept(this).boxes.push([w, h]); fillRect.call(this, x, y, w, h); },
    });
}"""
# Texts on the page that are smaller than 9 px, or of which a part is cut.
UNREADABLE = """root => {
    const said = (one) => [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    const small = (one) => parseFloat(getComputedStyle(one).fontSize) < 9;
    const cut = (one) => getComputedStyle(one).overflow === "hidden" && one.scrollWidth > one.clientWidth + 1;
    const all = [...root.querySelectorAll("*")].filter((one) => one.checkVisibility() && said(one));
    const hidden = (one) => one.closest(".lsc-unseen") || one.tagName === "OPTION";
    const wrong = all.filter((one) => !hidden(one) && (small(one) || cut(one)));
    return wrong.map((one) => `${one.className}: ${one.textContent}`);
}"""
OVERLAPPING = """root => {
    const box = (one) => one.getBoundingClientRect();
    const apart = (a, b) =>
        a.right <= b.left + 1 || b.right <= a.left + 1 || a.bottom <= b.top + 1 || b.bottom <= a.top + 1;
    const groups = ["[data-part]", ".lsc-item", ".lsc-map", ".lsc-heatbox", ".lsc-head > *", ".lsc-tools > *"];
    return groups.flatMap((group) => {
        const all = [...root.querySelectorAll(group)].filter((one) => one.checkVisibility());
        return all.flatMap((a, i) => all.slice(i + 1).filter((b) => !apart(box(a), box(b))).map(() => group));
    });
}"""


def shown_page(browser, explorer, folder, **context):
    """Open a saved page on which everything that is drawn is noted."""
    folder.mkdir(exist_ok=True)
    path = explorer.save(folder / "view.html", overwrite=True)
    return open_page(browser, path, script=DRAWN, **context)


def heat_names(heat):
    """Names of rows and of columns of a matrix, which is scrolled through, and how far apart they lie at least."""
    rows, columns, gaps = {}, {}, []
    scroller = heat.locator(".lsc-heatscroll")
    size = scroller.evaluate("one => [one.scrollWidth, one.scrollHeight, one.clientWidth, one.clientHeight]")
    across = range(0, max(1, size[0] - size[2] + 1), 100)
    down = range(0, max(1, size[1] - size[3] + 1), 100)
    places = {(0, y) for y in [*down, size[1]]} | {(x, 0) for x in [*across, size[0]]}
    for x, y in sorted(places):
        drawn = heat.evaluate(
            """async (heat, [x, y]) => {
                const scroller = heat.querySelector(".lsc-heatscroll");
                scroller.scrollTo(x, y);
                await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
                return heat.querySelector("canvas").lscDrawn;
            }""",
            [x, y],
        )
        assert all(min(box) >= 9 for box in drawn["boxes"])
        assert all(text["size"] >= 9 for text in drawn["texts"])
        names = [t for t in drawn["texts"] if not re.match(r"[↓−.\d]|other language", t["text"])]
        rows |= {t["text"]: t["y"] for t in names if not t["turned"]}
        columns |= {t["text"]: t["x"] for t in names if t["turned"]}
        for turned, axis in ((False, "y"), (True, "x")):
            gaps += np.diff(sorted(t[axis] for t in names if t["turned"] is turned)).tolist()
    return list(rows), list(columns), min(gaps)


@pytest.mark.parametrize("languages", [24, 60])
def test_all_names_of_many_languages_can_be_read(browser, tmp_path, languages):
    explorer = cases.many(languages)
    with shown_page(browser, explorer, tmp_path) as watched:
        shown = Shown(watched.page)
        shown.ready()
        expect(shown(".lsc-heatbox:visible")).to_have_count(4)
        for heat in shown(".lsc-alignment .lsc-heatbox").all():
            rows, columns, gap = heat_names(heat)
            assert set(rows) == set(columns) == set(explorer.about["names"])
            assert gap >= 12  # letters of 11 px


@pytest.mark.parametrize("width", [1280, 1920])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("languages", "models"), [(8, 1), (24, 6)])
def test_nothing_is_small_cut_or_covered(browser, tmp_path, width, scheme, languages, models):
    explorer = cases.many(languages, models)
    explorer.models, explorer.colour = explorer.scene.names, "language"
    context = {"viewport": {"width": width, "height": 1000}, "color_scheme": scheme}
    with shown_page(browser, explorer, tmp_path, **context) as watched:
        shown = Shown(watched.page)
        shown.ready()
        assert shown.root.evaluate(UNREADABLE) == []
        assert shown.root.evaluate(OVERLAPPING) == []
        assert watched.page.evaluate("document.documentElement.scrollWidth") <= width


def test_languages_are_sorted_by_loss_and_by_script(browser, tmp_path):
    explorer = cases.many(24)
    about = explorer.about
    with shown_page(browser, explorer, tmp_path) as watched:
        shown = Shown(watched.page)
        shown.ready()
        gap = shown(".lsc-heat-gap")
        expect(gap).to_be_visible()
        order = shown(".lsc-order")
        expect(order).to_have_value("script")
        rows = heat_names(gap)[0]
        scripts = [dict(zip(about["names"], about["scripts"], strict=True))[name] for name in rows]
        assert len(re.findall(r"(\w+)(?: \1)*", " ".join(s.replace(" ", "") for s in scripts))) == len(set(scripts))
        order.select_option("loss")
        found = [explorer.numbers.alignment(m, 1) for m in (1, 0)]
        lost = np.nanmean(found[0] - found[1], axis=1)
        assert heat_names(gap)[0] == [about["names"][i] for i in np.argsort(lost, kind="stable")]
        assert heat_names(gap)[0][0] == "German"  # which this model was made to lose
        order.select_option("corpus")
        assert heat_names(gap)[0] == about["names"]


def test_thirty_languages_have_thirty_colours(browser, tmp_path):
    for scheme in ("light", "dark"):
        explorer = cases.many(30)
        explorer.colour = "language"
        with shown_page(browser, explorer, tmp_path / scheme, color_scheme=scheme) as watched:
            shown = Shown(watched.page)
            shown.ready()
            fills = shown(".lsc-categories .lsc-item path").evaluate_all(
                "all => all.map(one => one.getAttribute('fill'))"
            )
            names = shown(".lsc-categories .lsc-item .lsc-name").all_inner_texts()
            assert sorted(names) == sorted(explorer.about["names"])
            colours = np.array([[int(v) for v in re.findall(r"\d+", fill)] for fill in fills])
            apart = np.linalg.norm(_oklab(colours)[:, None] - _oklab(colours)[None], axis=2)
            assert apart[~np.eye(30, dtype=bool)].min() > 0.03
            expect(shown(".lsc-repeats")).to_be_hidden()
            scripts = shown(".lsc-categories .lsc-script").all_inner_texts()
            count = Counter(explorer.about["scripts"])
            assert scripts == [s for s, n in count.most_common() if n > 1] + ["other scripts"]
            hue = np.arctan2(*_oklab(colours)[:, [2, 1]].T) / (2 * np.pi) % 1
            of = dict(zip(explorer.about["names"], explorer.about["scripts"], strict=True))
            turn = [of[names[i]] for i in np.argsort((hue - hue[0] + 0.02) % 1)]
            changes = sum(a != b for a, b in itertools.pairwise(turn))
            assert changes <= len(count)  # each has a part of the circle


def _oklab(colours):
    share = colours / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    to_lms = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566]]
    to_lms += [[0.0883024619, 0.2817188376, 0.6299787005]]
    to_lab = [[0.2104542553, 0.793617785, -0.0040720468], [1.9779984951, -2.428592205, 0.4505937099]]
    to_lab += [[0.0259040371, 0.7827717662, -0.808675766]]
    return np.cbrt(linear @ np.array(to_lms).T) @ np.array(to_lab).T


def test_sentences_are_searched_and_filtered(browser, tmp_path):
    explorer = cases.bundled().explore()
    explorer.selection = None
    frame, scene = explorer.scene.frame, explorer.scene
    with shown_page(browser, explorer, tmp_path) as watched:
        shown = Shown(watched.page)
        shown.ready()

        def found(rows):
            expect(shown(".lsc-count")).to_have_text(f"{len(rows)} selected" if len(rows) else "")
            assert shown.listed() == list(rows)[:50]

        word = "the "
        shown(".lsc-search").fill(word.upper())
        rows = np.flatnonzero(frame["text"].str.lower().str.contains(word.strip()))
        assert 3 < len(rows) < 100
        found(rows)
        shown(".lsc-find-label").select_option(label=scene.labels[0])
        rows = rows[frame["label"].iloc[rows] == scene.labels[0]]
        found(rows)
        shown(".lsc-clear").click()
        expect(shown(".lsc-search")).to_have_value("")
        expect(shown(".lsc-find-label")).to_have_value("")
        found([])
        shown(".lsc-find-language").select_option(label="Arabic")
        found(np.flatnonzero(frame["language"] == "ar"))
        shown(".lsc-find-only").select_option(label="pruned disagrees with base")
        differs = (scene.predicted[1] != scene.predicted[0]) & (frame["language"] == "ar").to_numpy()
        found(np.flatnonzero(differs))
        shown(".lsc-find-only").select_option(label="moved most in pruned")
        moved = explorer.numbers.drift(1)[-1]
        arabic = np.flatnonzero(frame["language"] == "ar")
        wanted = arabic[np.argsort(-moved[arabic], kind="stable")][:50]
        listed = shown.listed()
        assert sorted(listed) == sorted(wanted)
        np.testing.assert_allclose(moved[listed], moved[wanted], atol=1e-4)  # in the order of their movement
        watched.page.keyboard.press("Escape")
        shown(".lsc-search").fill("no sentence has this")
        expect(shown(".lsc-nothing")).to_have_text("No sentence is found so.")
        shown.lasso("base", [(0.1, 0.1), (0.9, 0.1), (0.9, 0.9), (0.1, 0.9)])
        expect(shown(".lsc-search")).to_have_value("")  # it is no longer what is shown


def test_a_layer_is_typed(browser, tmp_path):
    with shown_page(browser, cases.bundled().explore(layer=6), tmp_path) as watched:
        shown = Shown(watched.page)
        shown.ready()
        box = shown(".lsc-layer-box")
        for typed, layer in (("2", 2), ("77", 6), ("", 6), ("0", 0)):
            box.fill(typed)
            box.press("Enter")
            shown.layer(layer)
        expect(shown(".lsc-layer-text")).to_contain_text("embeddings")


def test_a_fifth_model_is_shown_by_choice_and_each_may_have_its_own_scale(browser, tmp_path):
    explorer = cases.many(3, 6)
    explorer.colour = "drift"
    with shown_page(browser, explorer, tmp_path) as watched:
        shown = Shown(watched.page)
        shown.ready()
        expect(shown(".lsc-map")).to_have_count(4)
        shown(".lsc-show-model").nth(4).check()
        shown(".lsc-show-model").nth(5).check()
        expect(shown(".lsc-map")).to_have_count(6)
        drift = [explorer.numbers.drift(m) for m in range(6)]
        ends = [float(np.quantile(one, 0.995)) for one in drift]
        scale = shown(".lsc-categories")
        expect(scale).to_contain_text(f"{max(ends):.2f}")
        before = [one.evaluate("canvas => canvas.toDataURL()") for one in shown(".lsc-points").all()]
        shown(".lsc-own").check()
        expect(shown(".lsc-end")).to_have_count(6)
        for text, end in zip(shown(".lsc-end").all_inner_texts()[1:], ends[1:], strict=True):
            assert float(text) == pytest.approx(end, abs=6e-3)
        after = [one.evaluate("canvas => canvas.toDataURL()") for one in shown(".lsc-points").all()]
        assert [a == b for a, b in zip(before, after, strict=True)].count(True) <= 2  # the baseline, and the farthest


def test_a_map_that_shows_little_says_so(browser, tmp_path):
    explorer = Explorer({"base": cases.arrays(rows=300, width=64)})
    share = explorer.numbers.maps(0).explained[-1]
    assert share < 0.15
    with shown_page(browser, explorer, tmp_path) as watched:
        shown = Shown(watched.page)
        shown.ready()
        expect(shown(".lsc-caption")).to_have_text(f"PCA, the map shows little: {100 * share:.1f} % of the variance")
        expect(shown(".lsc-layer-text")).not_to_contain_text("embeddings")  # nobody said that these are
