"""The share of the largest feature: whether one feature decides lengths and cosines."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np

from probes.measures.space.sentences import Sentences, of_geometry
from probes.results.counts import Weights, sums_over

# From here on one feature is named: it decides cosines, and no language or topic does.
_DECIDES, _TIMES = 0.5, 20.0


class Largest(NamedTuple):
    """The feature that is largest in a layer."""

    feature: int
    share: float  # of the squared length
    times: float  # its root mean square over that of the middle feature

    @property
    def decides(self) -> bool:
        """Whether cosines are mostly of this feature."""
        return self.share >= _DECIDES and self.times >= _TIMES

    def in_words(self, place: str) -> str:
        """Return a clause on it: where, which, how large.

        Example:
            >>> Largest(3, 0.9, 41.2).in_words("layer 2")
            'layer 2: feature 3 is 90 % of the squared length, 41 times the middle one'
        """
        return f"{place}: feature {self.feature} is {self.share:.0%} of the squared length, ".replace("%", " %") + (
            f"{self.times:.0f} times the middle one"
        )


def largest_feature(squares: np.ndarray, weights: Weights, sentences: Sentences) -> tuple[np.ndarray, Largest]:
    """Share of the largest feature in the squared length, for every row of weights, and which it is.

    The feature is that of the sample in every draw.

    Args:
        squares: (sentence, feature) summed squares of each sentence.
        weights: (1 + draws, ids), row 0 all ones.
        sentences: which ids they are.
    """
    total = squares.sum(axis=0)
    feature = int(total.argmax())
    with np.errstate(invalid="ignore", divide="ignore"):
        one, every = (sums_over(weights, sentences.there, s) for s in (squares[:, feature], squares.sum(axis=1)))
        share = one / every
        times = float(np.sqrt(total[feature] / np.median(total)))
    return share, Largest(feature, float(share[0]), times)


LARGEST_FEATURE = partial(
    of_geometry,
    name="largest_feature_share",
    title="share of the largest feature",
    estimator="mean square of the largest feature over the mean squared length",
    range="0 to 1; 1 / features where all are alike, 1 where one feature is all there is",
    bounds=(0, 1),
    higher_is="more of the length in one feature",
    unchanged_by=("common scale", "order"),
    paper="after Sun, Chen, Kolter and Liu 2024 (massive activations), arXiv 2402.17762; the share is ours",
)
