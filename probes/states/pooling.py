"""Many tokens to one vector a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from probes.errors import InputError

POOLINGS = {
    "mean": "mean over the tokens of the text, special tokens and padding excluded",
    "mean_all": "mean over all attended tokens, special tokens included, padding excluded",
    "weighted": "mean over the tokens of the text weighted by position (1, 2, 3, ...), special tokens excluded",
    "first": "state of the first token",
    "last": "state of the last attended token",
}


@runtime_checkable
class OfTokens(Protocol):
    """A pooling that is computed of the states of all tokens, or words, of a text."""

    @property
    def name(self) -> str:
        """What it is called, with all its settings."""

    @property
    def means(self) -> str:
        """What it does, in words."""

    @property
    def joins(self) -> bool:
        """Whether it is of words where nothing else is asked for."""

    def needs(self) -> None:
        """Raise where what it computes with is not installed."""

    def begun(self, words: np.ndarray) -> list[Any]:
        """Return what it has to know of each layer, from some states (layer, token, feature)."""

    def vectors(self, states: np.ndarray, counts: np.ndarray, known: Any) -> np.ndarray:
        """Return the vectors (text, feature) of texts of so many tokens each, at one layer."""


# Those that were made of functions, by the names of these; see `probes.pooling`.
OWN: dict[str, OfTokens] = {}


def named_pooling(pooling: Any) -> Any:
    """Return the pooling that is meant by the name of a function that was made one; any other as it is."""
    return OWN.get(pooling, pooling) if isinstance(pooling, str) else pooling


def pool(states: torch.Tensor, weights: torch.Tensor, name: str, layer: int) -> torch.Tensor:
    """Weighted sum over the tokens: (batch, token, feature), (batch, token) -> (batch, feature), in
    float32.
    """
    if states.shape[:2] != weights.shape:
        raise InputError(
            f"{name}, layer {layer}: expected states of shape {(*weights.shape, 'features')}, "
            f"found {tuple(states.shape)}"
        )
    # Zeroed before the product: a padded position may hold NaN or Inf, and 0 times that is NaN.
    states = states.float().masked_fill((weights == 0).unsqueeze(-1), 0.0)
    return torch.bmm(weights.unsqueeze(1), states).squeeze(1)


# A token this many times longer than the middle one of its text, at one place in half of the texts, is a sink.
_DWARFS, _FEWEST_TOKENS = 10.0, 4


def sinks(layers: Sequence[torch.Tensor], weights: torch.Tensor) -> dict[int, tuple[int, float]]:
    """Find the layers at which a mean over tokens is mostly one token: an attention sink, whose
    state is many times longer than those of the others.

    Args:
        layers: states (batch, token, feature) of every layer.
        weights: (batch, token) of every token in the mean of its text; 0 for those left out.

    Returns:
        Layer -> the place of that token among those that count (0 for the first), and how many
        times longer its state is than the middle one, as the median over texts.

    Notes:
        Sun, Chen, Kolter and Liu (2024), Massive Activations in Large Language Models; Xiao et al.
        (2024), Efficient Streaming Language Models with Attention Sinks. The bounds (10 times, in
        half of the texts of a batch) are choices made here.

    Example:
        >>> states = torch.ones(3, 6, 8)
        >>> states[:, 0] *= 100
        >>> sinks([torch.ones(3, 6, 8), states], torch.full((3, 6), 1 / 6))
        {1: (0, 100.0)}
    """
    counted = weights > 0
    enough = counted.sum(1) >= _FEWEST_TOKENS
    found: dict[int, tuple[int, float]] = {}
    if not enough.any():
        return found
    counted = counted[enough]
    place = counted.cumsum(1) - 1
    for number, states in enumerate(layers):
        norms = states.to(weights.device)[enough].float().norm(dim=-1).masked_fill(~counted, torch.nan)
        longest = norms.nan_to_num(nan=-1.0).argmax(1, keepdim=True)
        times = (norms.gather(1, longest) / norms.nanmedian(1, keepdim=True).values)[:, 0]
        where = place.gather(1, longest)[:, 0]
        most = where.mode().values
        here = (times >= _DWARFS) & (where == most)
        if here.float().mean() >= 0.5:
            found[number] = int(most), float(times[here].median())
    return found


def sinks_in_words(found: dict[int, tuple[int, float]]) -> str:
    """Return a sentence on what `sinks` found: the layers, the place and how many times longer.

    Example:
        >>> sinks_in_words({2: (0, 40.2), 3: (0, 90.0)})[:66]
        'at layers 2, 3 one token of each text, the first that counts, is u'
    """
    places = {place for place, _ in found.values()}
    which = "the first that counts, " if places == {0} else ""
    return (
        f"at layer{'s' if len(found) > 1 else ''} {', '.join(map(str, found))} one token of each text, {which}is up to "
        f"{max(times for _, times in found.values()):.0f} times longer than the middle one (an attention sink): the "
        "mean over tokens is mostly that token there. Compare with pooling='last', or with a prompt before the text"
    )
