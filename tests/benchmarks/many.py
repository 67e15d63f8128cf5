"""What a comparison of two models takes whose states lie on disk: peak memory above the start, and rows per second.

python tests/benchmarks/many.py --rows 200000 --layers 13 [--probes NAMES] [--languages 20]
    [--draws 200] [--folder PLACE]

Of pairs within a language, as retrieval compares, there are most in few languages: --languages 2.
"""

import argparse
import tempfile
import time
import warnings
from pathlib import Path

from common import alone, held, here, peak  # first: it sets the environment

# isort: split
import numpy as np

import probes
from probes.states.store import Store

BLOCK, CLASSES = 1024, 6


def write(path: Path, rows: int, layers: int, width: int, languages: int, seed: int) -> None:
    """Write states of classes, in languages that lie close to each other, piece by piece, as capture does."""
    ids = rows // languages
    rng = np.random.default_rng(0)
    label, centres = rng.integers(0, CLASSES, ids), rng.normal(size=(CLASSES, width)).astype(np.float32)
    about = {
        "id": np.tile(np.arange(ids), languages),
        "language": np.repeat([f"l{i}" for i in range(languages)], ids),
        "label": np.tile(label, languages),
        "text": [f"The text of sentence {i}, about as long as many are elsewhere." for i in range(ids)] * languages,
    }
    reps = probes.from_arrays(np.zeros((layers, ids * languages, 1), np.float32), **about, name=path.stem)
    store = Store(path, path.stem)
    shape = (layers, ids * languages, width)
    array = store.open(reps.drop_vars("hidden").assign_attrs(fingerprint=path.stem), {"hidden": shape}, 1)["hidden"]
    noise = np.random.default_rng([1, seed])
    for start in range(0, shape[1], BLOCK):
        stop = min(start + BLOCK, shape[1])
        at = np.arange(start, stop) % ids
        # What a sentence says is the same in all its languages and in both models.
        own = np.stack([np.random.default_rng([2, int(i)]).standard_normal(width, np.float32) for i in at])
        for layer in range(layers):
            array[layer, start:stop] = centres[label[at]] + own + noise.standard_normal(own.shape, np.float32)
    store.finish()


def measure(paths: list[Path], names: list[str] | None, draws: int) -> tuple[float, float]:
    """Return by how much a comparison lifts the peak above the start, in MiB, and its seconds."""
    warnings.simplefilter("ignore")
    before, started = held(), time.monotonic()
    models = {path.stem: probes.open_representations(path) for path in paths}
    probes.compare(models, pivot="l0", probes=names, draws=draws, timing=False, progress=False)
    return peak() - before, time.monotonic() - started


def pair(folder: Path, rows: int, layers: int, width: int, languages: int) -> list[Path]:
    """Return the stores of two models, written where they are not there yet."""
    paths = [folder / f"{name}_{rows}x{layers}x{width}_{languages}.zarr" for name in ("base", "other")]
    for seed, path in enumerate(paths):
        if not path.exists():
            alone(write, path, rows, layers, width, languages, seed)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rows", 200_000), ("layers", 13), ("width", 384), ("languages", 20), ("draws", 200)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--probes", help="names, separated by commas; by default the usual ones")
    parser.add_argument("--folder", type=Path, help="where the states are kept; by default they are removed again")
    given = parser.parse_args()
    print(here(), flush=True)
    with tempfile.TemporaryDirectory() as place:
        folder = given.folder or Path(place)
        paths = pair(folder, given.rows, given.layers, given.width, given.languages)
        most, seconds = alone(measure, paths, given.probes.split(",") if given.probes else None, given.draws)
    print(
        f"{given.rows:,} rows x {given.layers} layers x {given.width}, two models: {most:,.0f} MiB above the start, "
        f"{seconds:,.0f} s, {2 * given.rows / seconds:,.0f} rows per second"
    )


if __name__ == "__main__":
    main()
