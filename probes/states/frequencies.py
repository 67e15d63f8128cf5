"""What changes slowly and what fast along the tokens of a text: the discrete cosine transform, in
bands, and a band of it as a pooling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from probes.errors import InputError


def band_numbers(tokens: int, bands: int) -> np.ndarray:
    """Return the band of each coefficient of a text of so many tokens, (tokens,).

    Band 0 is the mean alone; the others part the frequencies above it evenly, up to a change of
    sign from each token to the next. A short text has none in some of them.

    Example:
        >>> band_numbers(9, 5).tolist()
        [0, 1, 1, 2, 2, 3, 3, 4, 4]
        >>> band_numbers(1, 5).tolist()
        [0]
    """
    k = np.arange(tokens)
    return np.where(k == 0, 0, 1 + np.minimum(bands - 2, ((k - 1) * (bands - 1)) // max(1, tokens - 1)))


def check_bands(bands: int, who: str, longest: int | None = None) -> None:
    """Raise `InputError` where there are too few bands, or more than the longest text has tokens."""
    if type(bands) is not int or bands < 2:
        raise InputError(f"{who}: bands={bands!r}: expected a whole number, at least 2 (the mean, and what is faster)")
    if longest is not None and bands > longest:
        raise InputError(
            f"{who}: bands={bands}: the longest text has {longest} token{'' if longest == 1 else 's'}, so that some "
            f"bands are empty everywhere. Choose at most {longest}, or give longer texts"
        )


def amplitudes(states: np.ndarray, counts: np.ndarray, bands: int) -> np.ndarray:
    """Return how strongly each feature changes in each band, (text, band, feature), in float64.

    In band 0 the mean, with its sign; in the others the root mean square, over the tokens, of what
    the band is of the feature: 0 where a text is too short for it. Squares add up to the mean
    square over the tokens.

    Args:
        states: (token, feature) of all texts end to end.
        counts: (text,) tokens of each.
        bands: how many there are.

    Example:
        >>> amplitudes(np.array([[1.0], [3.0], [1.0], [3.0]]), np.array([4]), 3).round(2).ravel().tolist()
        [2.0, 0.38, 0.92]
    """
    from scipy.fft import dct

    out = np.zeros((len(counts), bands, states.shape[1]))
    starts = np.cumsum(counts) - counts
    for tokens in np.unique(counts):
        rows = np.flatnonzero(counts == tokens)
        x = states[starts[rows][:, None] + np.arange(tokens)].astype(np.float64)
        found = dct(x, axis=1, norm="ortho") / np.sqrt(tokens)
        numbers = band_numbers(int(tokens), bands)
        out[rows, 0] = found[:, 0]
        for band in range(1, numbers.max() + 1):
            out[rows, band] = np.sqrt(np.square(found[:, numbers == band]).sum(axis=1))
    return out


@dataclass(frozen=True)
class Band:
    """One vector a text of what changes along it at some speed: a pooling for `capture`.

    Every probe then runs on it: band 0 is the mean over the tokens, higher ones hold for each
    feature how strongly it changes that fast, whatever its sign.

    Args:
        number: which band, from 0, the mean, to bands - 1, the fastest.
        bands: how many there are; those above 0 part the frequencies evenly.

    Raises:
        InputError: there is no such band.

    Notes:
        The discrete cosine transform along tokens, as Tamkin, Jurafsky and Goodman 2020 take it
        (arXiv 2011.04823); of the band the root mean square by feature, since the sign of a fast
        component depends on where a text begins. A text too short for a band has zeros there.

    See also:
        `spectrum`, `capture`, `WordMoversEmbedding`.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> corpus = probes.load_corpus("bundled", split="dev", languages=["en"]).select(range(4))
        >>> reps = probes.capture(model, tokenizer, corpus, pooling=Band(2, bands=4), progress=False)
        >>> reps.hidden.shape, bool((reps.hidden >= 0).all())
        ((7, 4, 128), True)
    """

    number: int
    bands: int = 5

    def __post_init__(self) -> None:
        check_bands(self.bands, "Band")
        if type(self.number) is not int or not 0 <= self.number < self.bands:
            raise InputError(
                f"Band: number={self.number!r}: expected 0 to {self.bands - 1}, one of the {self.bands} bands"
            )

    @property
    def name(self) -> str:
        """What it is called among poolings."""
        return f"band({self.number}, {self.bands})"

    @property
    def means(self) -> str:
        """What it does, in words."""
        return f"band {self.number} of {self.bands} of the cosine transform along tokens, root mean square by feature"

    @property
    def joins(self) -> bool:
        """Whether it is of words where nothing else is asked for."""
        return False

    def needs(self) -> None:
        """Raise where what it computes with is not installed: nothing but scipy."""

    def begun(self, words: np.ndarray) -> list[Any]:
        """Return what it has to know of each layer: nothing."""
        return [None] * len(words)

    def vectors(self, states: np.ndarray, counts: np.ndarray, known: Any) -> np.ndarray:
        """Return the vectors (text, feature) of texts at one layer.

        Args:
            states: (token, feature) of the texts end to end.
            counts: (text,) tokens of each.
            known: nothing.
        """
        return amplitudes(states, counts, self.bands)[:, self.number]
