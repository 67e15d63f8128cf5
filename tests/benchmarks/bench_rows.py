"""Peak memory of each default probe, and of others that compare all pairs, at 2,000, 20,000 and 200,000 rows of two
models whose states lie on disk, its growth a row, and rows per second; each in a process of its own.

What compares all pairs of a layer is left out at 200,000 rows: many.py measures it at any size.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from common import Row, alone, run  # first: it sets the environment

# isort: split
from many import measure, pair

LAYERS, WIDTH, LANGUAGES, DRAWS = 2, 384, 20, 50
MOST = 20_000  # rows, for what compares all pairs
PROBES = (
    *("class_separability", "variability", "snr", "retrieval", "margin_retrieval", "alignment_gap"),
    *("drift", "cka"),
)
ALL_PAIRS = ("neighbour_overlap", "intrinsic_dimension")


def rows(quick: bool) -> Iterator[Row]:
    counts = (2_000, 8_000) if quick else (2_000, 20_000, 200_000)
    with tempfile.TemporaryDirectory() as place:
        for name in (*PROBES, *ALL_PAIRS):
            at = [n for n in counts if name in PROBES or n <= MOST]
            found = {n: alone(measure, pair(Path(place), n, LAYERS, WIDTH, LANGUAGES), [name], DRAWS) for n in at}
            (less, few), (most, many) = ((found[n][0], n) for n in at[-2:])
            states = many * LAYERS * WIDTH * 4 / 2**20
            note = ", ".join(
                f"{n:,} rows: {lifted:.0f} MiB, {2 * n / s:,.0f} rows/s" for n, (lifted, s) in found.items()
            )
            note += f"; {(most - less) * 2**20 / (many - few):,.0f} bytes more a row"
            yield Row(f"{name}, {many:,} rows", most, states, "the states of one model", unit="MiB", note=note)


if __name__ == "__main__":
    run(rows)
