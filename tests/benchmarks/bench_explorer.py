"""How quick the explorer is under the hand, in JupyterLab and Chromium, and how its kernel grows.

A step of the layer slider is timed in the page: from the event of the slider until the maps are painted for the first
time, on their way, and until the points have arrived; the layers in turns, with the time between two steps that a hand
would need. Opening is `comparison.explore()` and the picture that is stored with it, on Representations read from zarr.
The picture needs all layers of the baseline, onto which maps are turned, and of other models the layer that is shown:
0.7 s of the processor at 2,000 x 4 x 13, where the maps of all layers took 1.7 s. Of 20,000 sentences it needs that
layer of both models, and of the baseline's other layers the first 2,048 sentences, by which maps are turned: 0.8 s of
the processor beside a busy neighbour. The maps of all layers take 3.5 s more (a layer 0.13 s, most of it reads zarr);
the page asks for them once those of the layer that is shown are there.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from common import Row, run  # first: it sets the environment

SIZES = [(2000, 4, 13), (20_000, 2, 13)]  # sentences, models, layers
PREPARE = """
import os, time
import numpy as np
import probes
import probes.widgets

def made(seed, n, layers, width=384):
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=(6, width))[np.arange(n) % 6]
    x = np.stack([rng.normal(size=(n, width)) + layer / 4 * centre for layer in range(layers)]).astype("f4")
    ids, languages = np.repeat(np.arange(n // 4), 4), np.tile(["en", "fr", "ar", "zh"], n // 4)
    texts = [f"sentence {i}" for i in ids]
    return probes.from_arrays(x, id=ids, language=languages, label=np.arange(n) % 6, text=texts)

def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
"""
OPEN = """
models = {{}}
for i in range({models}):
    made(i, {n}, {layers}).to_zarr(f"{n}_{{i}}.zarr", consolidated=False)
    models[f"model {{i}}"] = probes.open_representations(f"{n}_{{i}}.zarr")
comparison = probes.compare(models, probes=["class_separability"], draws=10, progress=False)
started = time.perf_counter()
explorer = comparison.explore(most={n}, layer=0)
explored = time.perf_counter() - started
"""
# Milliseconds until painted and until settled, of every step.
STEP = """([steps, layers, pause]) => new Promise((done) => {
    const slider = document.querySelector("input.lsc-layer"), times = [];
    let begun = 0, painted = 0, direction = 1;
    const step = () => {
        const now = slider.valueAsNumber;
        if (now + direction < 0 || now + direction >= layers) direction = -direction;
        slider.value = now + direction;
        begun = performance.now();
        slider.dispatchEvent(new Event("input", { bubbles: true }));
    };
    const seen = () => { painted = performance.now() - begun; };
    const settled = () => {
        times.push([painted, performance.now() - begun]);
        if (times.length < steps) setTimeout(step, pause);
        else {
            document.removeEventListener("layerscope:painted", seen, true);
            document.removeEventListener("layerscope:settled", settled, true);
            done(times);
        }
    };
    document.addEventListener("layerscope:painted", seen, true);
    document.addEventListener("layerscope:settled", settled, true);
    step();
})"""


# Opened once more, with nothing computed; the first time has warmed the imports.
AGAIN = """
stored = {{k: probes.open_representations(f"{n}_{{i}}.zarr") for i, k in enumerate(models)}}
fresh = probes.Comparison(comparison.table, comparison.provenance, comparison.draws, stored)
started = time.perf_counter()
other = fresh.explore(most={n}, layer=0)
explored = time.perf_counter() - started
other._ipython_display_()
opened = time.perf_counter() - started
other.close(); del other, fresh
"""


def rows(quick: bool) -> Iterator[Row]:
    from browser.lab import Server, chromium
    from playwright.sync_api import sync_playwright

    # Steps that are timed, and steps over which the kernel's memory is watched.
    steps, growth = (20, 100) if quick else (60, 500)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = chromium(playwright)
        server = Server(Path(folder))
        try:
            for n, models, layers in SIZES[:1] if quick else SIZES:
                yield from opened(browser, server, (n, models, layers), steps, growth)
        finally:
            server.close()
            browser.close()


def opened(browser: Any, server: Any, size: tuple[int, int, int], steps: int, growth: int) -> Iterator[Row]:
    from browser.lab import Notebook

    n, models, layers = size
    path = server.write(f"bench_{n}", PREPARE, OPEN.format(n=n, models=models, layers=layers), "explorer")
    notebook = Notebook(browser, server, path, viewport={"width": 1400, "height": 1100})
    notebook.run_all(timeout=600)
    page = notebook.page
    page.wait_for_function("count => document.querySelectorAll('.lsc-over').length === count", arg=models)
    page.wait_for_function("() => !document.querySelector('.lsc-wait:not([hidden])')")
    page.locator(".lsc").scroll_into_view_if_needed()
    notebook.kernel.run(AGAIN.format(n=n))
    explored, shown = notebook.kernel.value("[explored, opened]")
    page.evaluate(STEP, [layers * 2, layers, 150])  # every layer's answers are there once
    times = page.evaluate(STEP, [steps, layers, 150])
    painted, settled = ([t[k] / 1000 for t in times] for k in (0, 1))
    before = notebook.kernel.value("(explorer.wait(), resident())[1]")
    page.evaluate(STEP, [growth, layers, 0])
    after = notebook.kernel.value("(explorer.wait(), resident())[1]")
    notebook.close()
    what = f"{n:,} sentences, {models} models: "
    errors = f"differs: errors in the page: {notebook.errors}" if notebook.errors else ""
    yield Row(f"{what}explore()", explored, note=f"with its picture {shown:.2f} s")
    yield Row(f"{what}step painted", median(painted), note=f"p95 {1000 * high(painted):.0f} ms")
    yield Row(f"{what}step settled", median(settled), note=f"p95 {1000 * high(settled):.0f} ms")
    grown = f"before {growth} steps"
    yield Row(f"{what}memory of the kernel", after, before, grown, unit="MiB", note=errors)


def high(values: list[float]) -> float:
    """The 95th percentile, a value that was measured."""
    return sorted(values)[min(len(values) - 1, int(0.95 * len(values)))]


if __name__ == "__main__":
    run(rows)
