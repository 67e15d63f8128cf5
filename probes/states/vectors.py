"""How the vector of a text is made: as was asked for, as the checkpoint says, or the mean."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import datasets
import numpy as np
import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerBase

from probes.errors import InputError, LayerscopeWarning
from probes.models.facts import input_limit
from probes.models.formats.embedding import Embedding, embedding_of
from probes.states.pooling import POOLINGS, OfTokens


def settle(
    model: object,
    name: str,
    *,
    pooling: str | OfTokens | None = None,
    max_length: int | None = None,
    prompt: str | None = None,
    normalize: bool | None = None,
    dimensions: int | None = None,
) -> tuple[Embedding, list[str]]:
    """Return how vectors are made, and which of that the checkpoint says and nobody asked for.

    Args:
        model: a model, or its configuration.
        name: what it is called.
        pooling, max_length, prompt, normalize, dimensions: as `capture` takes them.

    Raises:
        InputError: the checkpoint says a pooling that is none of ours, and no other was asked for;
            more features were asked for than there are.

    Example:
        >>> from transformers import BertConfig
        >>> config = BertConfig(text_embedding={"pooling": "first", "normalize": True})
        >>> how, said = settle(config, "base", normalize=False)
        >>> how.pooling, how.normalize, said
        ('first', False, ['pooling'])
    """
    declared = embedding_of(model)
    if isinstance(pooling, OfTokens):  # of the tokens that a mean is of
        pooling, normalize = "mean", bool(normalize)
    asked = {
        "pooling": pooling,
        "max_length": max_length,
        "prompt": prompt,
        "normalize": normalize,
        "dimensions": dimensions,
    }
    how = replace(declared, **{k: v for k, v in asked.items() if v is not None})  # type: ignore[arg-type]
    if how.pooling not in POOLINGS:
        raise InputError(
            f"{name}: its files say that tokens are pooled by {how.pooling!r}, which is none of "
            f"{', '.join(map(repr, POOLINGS))}. Choose one with pooling=..."
        )
    width = getattr(getattr(model, "config", model), "hidden_size", None)
    if how.dimensions is not None and isinstance(width, int) and how.dimensions > width:
        raise InputError(f"{name}: dimensions={how.dimensions}: expected 1 to {width}, the features of its states")
    return how, [key for key in declared.said() if asked.get(key) is None]


def compare_vectors(models: Mapping[str, object], settings: Mapping[str, Any]) -> None:
    """Warn where the vectors of models that are compared are not made alike; raise as `settle`.

    Args:
        models: models or their configurations, by what they are called.
        settings: of `capture`.

    Example:
        >>> from transformers import BertConfig
        >>> models = {"a": BertConfig(), "b": BertConfig(text_embedding={"pooling": "first"})}
        >>> with warnings.catch_warnings(record=True) as said:
        ...     warnings.simplefilter("always")
        ...     compare_vectors(models, {})
        >>> print(said[0].message)  # doctest: +ELLIPSIS
        vectors differ in how they are made: pooling is 'mean' of 'a', 'first' of 'b'. Set ...
    """
    asked = {k: settings.get(k) for k in ("pooling", "prompt", "normalize", "dimensions")}
    made = {name: settle(model, name, **asked)[0] for name, model in models.items()}
    told, keys = [], []
    for key in ("pooling", "prompt", "pools_prompt", "lowercase", "normalize", "dimensions"):
        found = {name: getattr(how, key) for name, how in made.items()}
        if len(set(found.values())) > 1:
            told.append(f"{key} is " + ", ".join(f"{value!r} of {name!r}" for name, value in found.items()))
            keys.append(key)
    if told:
        to_set = [f"{key}=..." for key in keys if key not in ("pools_prompt", "lowercase")]
        warnings.warn(
            f"vectors differ in how they are made: {'; '.join(told)}."
            + (f" Set {', '.join(to_set)}" if to_set else ""),
            LayerscopeWarning,
            stacklevel=3,
        )


def length_of(
    how: Embedding, model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, said: list[str]
) -> int | None:
    """Return the most tokens of a text; None without a limit. What a checkpoint says may be more
    than it takes, what was asked for may not.
    """
    if "max_length" not in said:
        return input_limit(model, tokenizer, how.max_length)
    limit = input_limit(model, tokenizer, None)
    return how.max_length if limit is None else min(limit, how.max_length or limit)


def prompted(corpus: datasets.Dataset, how: Embedding) -> datasets.Dataset:
    """Return a corpus whose texts are as the model is to read them; they are made where they are read.

    Example:
        >>> corpus = datasets.Dataset.from_dict({"id": ["1"], "text": ["A cat"]})
        >>> prompted(corpus, Embedding(prompt="query: ", lowercase=True))["text"][:]
        ['query: a cat']
    """
    if not how.prompt and not how.lowercase:
        return corpus
    return corpus.with_transform(partial(_prompted, how))


def _prompted(how: Embedding, rows: dict[str, list[str]]) -> dict[str, list[str]]:
    texts = (text.lower() if how.lowercase else text for text in rows["text"])
    return rows | {"text": [(how.prompt or "") + text for text in texts]}


def leading(tokenizer: PreTrainedTokenizerBase, how: Embedding) -> list[int]:
    """Return the tokens of a prompt that no mean counts, as they are by themselves; none without one."""
    if how.pools_prompt or not how.prompt:
        return []
    ids: list[int] = tokenizer(how.prompt)["input_ids"]
    return ids[:-1] if ids[-1] in tokenizer.all_special_ids else ids


def of_prompt(ids: np.ndarray, starts: np.ndarray, lengths: np.ndarray, prompt: Sequence[int]) -> np.ndarray:
    """Return which tokens of some texts, end to end, are those of a prompt before each: (token,).

    Its last one may be another before some texts: a space at its end is a token by itself, and of a
    word the beginning.

    Example:
        >>> ids = np.array([0, 7, 9, 5, 2, 0, 7, 6, 2])  # of two texts, after a prompt of 0, 7, 9
        >>> of_prompt(ids, np.array([0, 5]), np.array([5, 4]), [0, 7, 9]).astype(int)
        array([1, 1, 1, 0, 0, 1, 1, 0, 0])
    """
    out, same = np.zeros(len(ids), bool), np.ones(len(starts), bool)
    for k, token in enumerate(prompt):
        same &= lengths > k
        same[same] = ids[starts[same] + k] == token
        out[starts[same] + k] = True
    return out


def finished(vectors: torch.Tensor, how: Embedding) -> torch.Tensor:
    """Return vectors (..., feature) with as many features as are kept, of length 1 where that is
    asked for.
    """
    vectors = vectors[..., : how.dimensions]
    return F.normalize(vectors, dim=-1) if how.normalize else vectors


def counted(special: np.ndarray, prompt: np.ndarray, how: Embedding) -> np.ndarray:
    """Return which tokens (end to end) no mean counts, 1 where so: special ones unless all count,
    and those of a prompt.
    """
    out = special.copy() if how.pooling in ("mean", "weighted") else np.zeros_like(special)
    out[prompt] = 1
    return out
