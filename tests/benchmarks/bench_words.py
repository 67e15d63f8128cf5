"""Word mover's: random features by length and number, exact distances beside the lower bound that spares them."""

from collections.abc import Iterator
from functools import partial

from common import Row, interleaved, run  # first: it sets the environment

# isort: split
import numpy as np

import probes
from probes.measures.languages.word_movers import nearest_of
from probes.states.movers import all_distances, bags_of

FEATURES = 384


def rows(quick: bool) -> Iterator[Row]:
    texts, rounds = (10, 2) if quick else (50, 5)
    rng = np.random.default_rng(0)

    def features(words: int, number: int) -> None:
        x = rng.normal(size=(words * texts, FEATURES))
        pooling = probes.WordMoversEmbedding(number)
        (known,) = pooling.begun(x[None])
        pooling.vectors(x, np.full(texts, words), known)

    tried = [(20, 128), (40, 128), (80, 128), (20, 256)]
    seconds = interleaved({str(one): partial(features, *one) for one in tried}, rounds)
    for words, number in tried[1:]:
        what = f"{number} random features, {texts} texts of {words} words"
        times = words / 20 * number / 128
        yield Row(
            what, seconds[str((words, number))], times * seconds[str(tried[0])], f"{times:.0f} times 20 words, 128"
        )

    x = rng.normal(size=(20 * texts, FEATURES))
    x, y = (bags_of(x + noise * rng.normal(size=x.shape), np.full(texts, 20)) for noise in (0, 0.8))
    seconds = interleaved({"screened": lambda: nearest_of(x, y), "all": lambda: all_distances(x, y)}, rounds)
    yield Row(f"nearest of {texts} texts by words", seconds["screened"], seconds["all"], "all pairs exactly")


if __name__ == "__main__":
    run(rows)
