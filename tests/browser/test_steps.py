"""A training in the explorer: a slider of its steps, along which the points of its map travel."""

import numpy as np
import pytest
from browser import cases
from browser.test_explorer import Shown, open_page
from playwright.sync_api import expect

import probes

pytestmark = pytest.mark.browser

STEPS = [0, 10, 25, 40]


def trained():
    """A model, and a training at whose steps one of three classes leaves the others."""
    rng = np.random.default_rng(0)
    y = np.arange(36) % 3
    x, noise = rng.normal(size=(2, 36, 6)), 0.05 * rng.normal(size=(2, 36, 6))
    about = {"id": np.arange(36), "label": y, "text": [f"sentence {i}" for i in range(36)]}
    run = [(step, probes.from_arrays(x + noise + 0.2 * step * np.eye(6)[y], **about)) for step in STEPS]
    models = {"original": probes.from_arrays(x, **about), "run": probes.series(run)}
    return probes.compare(models, probes=["snr", "cosine_to_baseline"], draws=10, progress=False)


@pytest.fixture(scope="module")
def explorer():
    return trained().explore()


@pytest.fixture(scope="module")
def saved(explorer, tmp_path_factory):
    return explorer.save(tmp_path_factory.mktemp("saved") / "view.html")


def test_points_travel_along_the_steps_of_a_saved_page(browser, saved, explorer, tmp_path):
    with open_page(browser, saved) as watched:
        shown = Shown(watched.page)
        shown.ready()
        slider, name = shown("input.lsc-step"), shown(".lsc-map .lsc-map-title .lsc-name")
        expect(slider).to_have_attribute("aria-valuetext", "step 40 of 40")
        expect(name).to_have_text(["original", "run 40"])
        canvas = shown('.lsc-map[data-model="run 40"] canvas.lsc-points').element_handle()
        drawn = {40: canvas.evaluate("canvas => canvas.toDataURL()")}
        slider.focus()
        for step, key in ((0, "Home"), (10, "ArrowRight"), (25, "ArrowRight")):
            shown.step(lambda key=key: watched.page.keyboard.press(key), 1)
            expect(name).to_have_text(["original", f"run {step}"])
            # The map is the same one, so that its points came from where they lay.
            assert (
                shown(f'.lsc-map[data-model="run {step}"] canvas.lsc-points')
                .element_handle()
                .evaluate("(one, other) => one === other", canvas)
            )
            drawn[step] = canvas.evaluate("canvas => canvas.toDataURL()")
        assert len(set(drawn.values())) == len(STEPS)
        shown.step(lambda: watched.page.keyboard.press("End"), 1)
        assert canvas.evaluate("canvas => canvas.toDataURL()") == drawn[40]
        # What is pointed at is where the numbers say that it is.
        at = shown.screen("run 40", explorer.numbers.maps(4).points[1] / explorer.numbers.domain())
        row = int(np.argmax(np.linalg.norm(at - at.mean(0), axis=1)))
        watched.page.mouse.move(*at[row])
        expect(shown(".lsc-tip .lsc-tip-text")).to_have_text(f"sentence {row}")
        watched.page.screenshot(path=str(tmp_path / "steps.png"), full_page=True)
        assert watched.requests == [saved.as_uri()]


def test_points_are_between_two_steps_on_their_way_and_pass_those_between(browser, saved):
    with open_page(browser, saved) as watched:
        page = watched.page
        shown = Shown(page)
        shown.ready()
        # Of all frames of a jump over two steps, some look like neither end; with less motion there are none.
        record = """node => { window.seen = new Set(); const look = () => { seen.add(node.toDataURL());
            window.looking = requestAnimationFrame(look); }; look(); }"""
        canvas = shown('.lsc-map[data-model="run 40"] canvas.lsc-points').element_handle()
        frames = {}
        for motion in ("no-preference", "reduce"):
            page.emulate_media(reduced_motion=motion)
            shown("input.lsc-step").focus()
            canvas.evaluate(record)
            shown.step(lambda: page.keyboard.press("Home"), 1)
            frames[motion] = page.evaluate("cancelAnimationFrame(looking), seen.size")
            shown.step(lambda: page.keyboard.press("End"), 1)
        assert frames["no-preference"] > 3
        assert frames["reduce"] <= 3


def test_it_plays_from_the_first_step_to_the_last_and_curves_follow(browser, saved):
    with open_page(browser, saved) as watched:
        shown = Shown(watched.page)
        shown.ready()
        legend = shown(".lsc-models-legend .lsc-name")
        expect(legend).to_have_text(["original", "run 40"])
        button = shown(".lsc-step-play")
        button.click()
        expect(button).to_have_attribute("aria-label", "Pause")
        seen = set()
        while button.get_attribute("aria-label") == "Pause":
            seen.add(shown(".lsc-step-box").inner_text())
            watched.page.wait_for_timeout(100)
        assert {"0", "10", "25"} <= seen
        expect(legend).to_have_text(["original", "run 40"])
        expect(shown(".lsc-chooser label .lsc-name")).to_have_text(["original", "run 40"])


def test_without_a_training_there_is_no_slider_of_steps(browser, tmp_path):
    path = cases.Explorer({"a": cases.arrays(), "b": cases.arrays(seed=1)}).save(tmp_path / "view.html")
    with open_page(browser, path) as watched:
        Shown(watched.page).ready()
        expect(Shown(watched.page)(".lsc-steps")).to_have_count(0)
