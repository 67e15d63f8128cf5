"""How quick the explorer is under the hand, in JupyterLab and Chromium, and how its kernel grows.

A step of the layer slider is timed in the page: from the event of the slider until the maps are painted for the first
time, on their way, and until the points have arrived; the layers in turns, with the time between two steps that a hand
would need. Opening is `comparison.explore()` and the picture that is stored with it, on Representations read from zarr.

python tests/benchmarks/bench_explorer.py [steps]
"""

import sys
import tempfile
from pathlib import Path
from statistics import median

sys.path[:0] = [str(Path(__file__).parents[1])]

from browser.lab import Notebook, Server, chromium  # noqa: E402
from playwright.sync_api import expect, sync_playwright  # noqa: E402

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 60
GROWTH = 500  # steps over which the kernel's memory is watched
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


def high(values: list[float]) -> float:
    """The 95th percentile, a value that was measured."""
    return sorted(values)[min(len(values) - 1, int(0.95 * len(values)))]


with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
    browser, server = chromium(playwright), Server(Path(folder))
    try:
        print(f"{STEPS} steps; memory over {GROWTH}")
        print(
            f"{'sentences':>9}{'models':>7}{'layers':>7}{'painted, median':>17}{'p95':>7}{'settled, median':>17}",
            end="",
        )
        print(f"{'p95':>7}{'explore()':>11}{'and shown':>11}{'MiB before':>12}{'after':>7}")
        for n, models, layers in SIZES:
            opening = OPEN.format(n=n, models=models, layers=layers)
            path = server.write(f"bench_{n}", PREPARE, opening, "explorer")
            notebook = Notebook(browser, server, path, viewport={"width": 1400, "height": 1100})
            notebook.run_all(timeout=600)
            page = notebook.page
            expect(page.locator(".lsc-over")).to_have_count(models)
            expect(page.locator(".lsc-wait:not([hidden])")).to_have_count(0)
            page.locator(".lsc").scroll_into_view_if_needed()
            # Opened once more, with nothing computed; the first time has warmed the imports.
            notebook.kernel.run(
                "from probes.widgets.picture import picture\n"
                "fresh = probes.Comparison(comparison.table, comparison.provenance, "
                "{k: probes.open_representations(f'" + str(n) + "_{i}.zarr') for i, k in enumerate(models)})\n"
                "started = time.perf_counter()\n"
                f"other = fresh.explore(most={n}, layer=0)\n"
                "explored = time.perf_counter() - started\n"
                "picture(other, maps=True)\n"
                "opened = time.perf_counter() - started\n"
                "other.close(); del other, fresh"
            )
            explored, opened = notebook.kernel.value("[explored, opened]")
            page.evaluate(STEP, [layers * 2, layers, 150])  # every layer's answers are there once
            times = page.evaluate(STEP, [STEPS, layers, 150])
            painted, settled = ([t[k] for t in times] for k in (0, 1))
            before = notebook.kernel.value("(explorer.wait(), resident())[1]")
            page.evaluate(STEP, [GROWTH, layers, 0])
            after = notebook.kernel.value("(explorer.wait(), resident())[1]")
            print(
                f"{n:9}{models:7}{layers:7}{median(painted):14.0f} ms{high(painted):7.0f}{median(settled):14.0f} ms"
                f"{high(settled):7.0f}{explored:9.2f} s{opened:9.2f} s{before:12.0f}{after:7.0f}",
                flush=True,
            )
            assert notebook.errors == [], notebook.errors
            notebook.close()
    finally:
        server.close()
        browser.close()
