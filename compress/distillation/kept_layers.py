"""Which of a model's layers its student is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.objectives.base import is_whole, uniform_layers
from compress.rows import trained_on
from probes.corpus import check_corpus
from probes.errors import InputError, check_choice
from probes.measures.fidelity.similarity import similarity
from probes.models.blocks import depth_of, family_of
from probes.results.draws import POOLED
from probes.states.capture import capture

KEEP = ("uniform", "top", "bottom", "matched")
_TEXTS = 2000  # that layers are chosen by


def runs_of(alike: np.ndarray, count: int) -> list[int]:
    """Cut layers into runs and return of each the one that the others are most like."""
    n = len(alike)
    best: dict[tuple[int, int], tuple[float, list[int]]] = {(0, 0): (0.0, [])}
    for runs in range(1, count + 1):
        for stop in range(runs, n + 1):
            options = []
            for start in range(runs - 1, stop):
                sums = alike[start:stop, start:stop].sum(0)
                before, kept = best.get((runs - 1, start), (-np.inf, []))
                options.append((before + sums.max(), [*kept, start + int(sums.argmax())]))
            best[runs, stop] = max(options, key=lambda option: option[0])
    return best[count, n][1]


def kept_layers(
    model: PreTrainedModel,
    layers: int | None,
    keep: str | Sequence[int] | npt.NDArray[np.integer],
    train: datasets.Dataset | None,
    tokenizer: PreTrainedTokenizerBase | None,
    seed: int,
) -> list[int]:
    """Return the numbers, from 0, of the model's layers that the student is made of."""
    count = depth_of(model, family_of(model))
    if layers is not None and not (is_whole(layers) and 1 <= layers <= count):
        raise InputError(f"layers={layers!r}: expected a whole number from 1 to {count}, the layers of the model")
    if not isinstance(keep, str):
        given: list[Any] = list(keep) if isinstance(keep, Sequence) or np.ndim(keep) == 1 else []
        kept = [int(i) for i in given if is_whole(i)]
        if kept != given or not kept or sorted(set(kept)) != kept or not 0 <= kept[0] <= kept[-1] < count:
            raise InputError(f"keep={keep!r}: expected ascending numbers of layers from 0 to {count - 1}")
        if layers not in (None, len(kept)):
            raise InputError(f"keep={keep!r} are {len(kept)} layers, and layers={layers}: leave one of them out")
        return kept
    wanted = count if layers is None else int(layers)
    if keep == "uniform":
        return [i - 1 for i in uniform_layers(wanted, count)[1:]]
    if keep in ("top", "bottom"):
        return list(range(count - wanted, count)) if keep == "top" else list(range(wanted))
    check_choice("keep", keep, KEEP, "or give numbers")
    assert train is not None
    assert tokenizer is not None
    corpus = check_corpus(train)
    corpus = corpus.select(trained_on(corpus))
    if len(corpus) > _TEXTS:
        corpus = corpus.select(np.sort(np.random.default_rng(seed).choice(len(corpus), _TEXTS, replace=False)))
    states = capture(model, tokenizer, corpus, progress=False)
    alike = similarity(states.isel(layer=slice(1, None)), draws=2).value.sel(language=POOLED).values
    if np.isnan(alike).any():
        raise InputError("keep='matched': not all layers can be compared: look at the texts, or choose another one")
    return runs_of(alike, wanted)
