"""How alike two texts are, by a frozen encoder: sentences by their vectors, words by how far they travel."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import datasets
import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.objectives.base import cosines
from probes.errors import InputError
from probes.models.facts import body_of, check_fit, embedding_rows, name_of
from probes.states.layers import runner_of
from probes.states.movers import bags_of, costs, movers_distance
from probes.states.pooling import pool
from probes.states.running import evaluating
from probes.states.tokens import pooled_batches
from probes.states.vectors import finished

SIMILARITIES = ("cosine", "manhattan", "euclidean")
# What similarities are multiplied by before they are squashed, where nothing is said.
STEEPNESS = {"cosine": 10.0, "manhattan": 1.0, "euclidean": 1.0}
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_BYTES = 512  # tokens, at most, of a tokenizer that has bytes alone, and means them


class Sentences:
    """A frozen encoder of sentences: vectors of texts at one of its layers, as `probes.capture` makes them.

    Args:
        model, tokenizer: the encoder; it is not changed.
        layer: 0, the embeddings, to the last one; None for the last.
        who: asks, as messages begin.

    Raises:
        InputError: model and tokenizer do not fit; the layer is not there.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, layer: int | None = None, who: str = "encoder"
    ) -> None:
        """Check what can be before any text."""
        self.model, self.tokenizer, self.who = model, tokenizer, who
        check_fit(embedding_rows(model), tokenizer, name_of(model))
        depth = body_of(model).config.get_text_config().num_hidden_layers
        self.layer = depth if layer is None else layer
        if not 0 <= self.layer <= depth:
            raise InputError(
                f"{who}: layer={layer!r}: expected 0, the embeddings of {name_of(model)}, to {depth}, its last layer"
            )

    def known(self, text: str) -> list[int]:
        """Return the tokens of a text that the encoder knows, special ones left out."""
        ids = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] if text.strip() else []
        left_out = {*self.tokenizer.all_special_ids, self.tokenizer.unk_token_id}
        return [token for token in ids if token not in left_out]

    def reads(self, text: str) -> bool:
        """Say whether a token of a text that the encoder knows has a whole letter of it; of a text
        without letters, whether any is known.

        Many tokenizers cut a script that they do not know into spaces and bytes, which are tokens as
        others are.
        """
        known = self.known(text)
        if len(self.tokenizer) <= _BYTES or not any(map(str.isalpha, text)):
            return bool(known)
        whole = [token for token in known if not _BYTE.fullmatch(str(self.tokenizer.convert_ids_to_tokens(token)))]
        return any(letter.isalpha() for token in whole for letter in str(self.tokenizer.decode([token])))

    def vectors(self, texts: Sequence[str]) -> torch.Tensor:
        """Return the vectors (text, feature) of some texts in float64, NaN for one without a known token."""
        there = [i for i, text in enumerate(texts) if self.known(text)]
        where = self.model.device
        out = torch.full((len(texts), 1), torch.nan, dtype=torch.float64, device=where)
        if not there:
            return out
        corpus = datasets.Dataset.from_dict(
            {"id": [str(i) for i in there], "language": ["?"] * len(there), "text": [texts[i] for i in there]}
        )
        name = name_of(self.model)
        _, how, batches = pooled_batches(
            self.model, self.tokenizer, corpus, name, pooling=None, max_length=None, prompt=None, device=where
        )
        run, taken = runner_of(self.model, None, name)
        with evaluating(self.model, where), taken as states_of, torch.no_grad():
            for rows, inputs, weights in batches():
                states = states_of(run, inputs)[0][self.layer]
                found = finished(pool(states, weights, name, self.layer), how).double()
                if out.shape[1] != found.shape[1]:
                    out = out.expand(-1, found.shape[1]).clone()
                out[torch.tensor([there[i] for i in rows], device=where)] = found
        return out

    def words(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the input embeddings (word, feature) of the known tokens of each text."""
        table = self.model.get_input_embeddings()
        with torch.no_grad():
            return [
                table(torch.tensor(self.known(text), dtype=torch.long, device=self.model.device)).double().cpu().numpy()
                for text in texts
            ]


def likeness(
    x: torch.Tensor, y: torch.Tensor, similarity: str = "cosine", steepness: float | None = None, middle: float = 0.7
) -> torch.Tensor:
    """Return how alike the rows of two tensors are, (text,), 0 to 1, higher is more alike; 0 where one
    is not finite.

    Args:
        x, y: (text, feature), one of them also (1, feature).
        similarity: "cosine": 1 / (1 + exp(-steepness (cosine - middle))); "manhattan" or
            "euclidean": exp(-steepness times the distance).
        steepness: by default 10 of the cosine, 1 of distances.
        middle: the cosine that is worth 1/2.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [3.0, 4.0]])
        >>> [round(float(r), 3) for r in likeness(x, torch.tensor([[7.0, 0.0]]))]  # of cosines 1 and 0.6
        [0.953, 0.269]
    """
    steepness = STEEPNESS[similarity] if steepness is None else steepness
    x, y = torch.broadcast_tensors(x, y)
    there = torch.isfinite(x).all(1) & torch.isfinite(y).all(1)
    x, y = (z.masked_fill(~there[:, None], 0) for z in (x, y))
    if similarity == "cosine":
        found = torch.sigmoid(steepness * (cosines(x, y) - middle))
    else:
        found = torch.exp(
            -steepness * torch.linalg.vector_norm(x - y, ord=1 if similarity == "manhattan" else 2, dim=1)
        )
    return found.masked_fill(~there, 0)


def movers_similarity(x: np.ndarray, y: np.ndarray) -> float:
    """Return 1 / (1 + word mover's distance) of the words of two texts, 0 to 1; 0 where one has none.

    Words at unit length, all of equal weight, as those of `probes.word_movers` without idf.

    Args:
        x, y: (word, feature), not zero.

    Raises:
        InputError: the package POT is not installed (layerscope[transport]).

    Example:
        >>> x = np.eye(3)
        >>> movers_similarity(x, x[::-1]), round(movers_similarity(x[:1], x[1:]), 3)  # 1 / (1 + sqrt(2))
        (1.0, 0.414)
    """
    if not len(x) or not len(y):
        return 0.0
    one, other = (bags_of(z, np.array([len(z)])) for z in (x, y))
    return 1 / (1 + movers_distance(costs(one.states, other.states), one.weights, other.weights))


def sliding_similarity(x: np.ndarray, y: np.ndarray, window: int = 3) -> float:
    """Return the mean cosine of the mean words of windows at the same place of two texts, -1 to 1.

    A window that the other text does not have counts 0, so that neither a short nor a long text
    gains. A text that is shorter than a window is one window.

    Args:
        x, y: (word, feature).
        window: words of one, at least 1.

    Example:
        >>> x = np.eye(4)
        >>> sliding_similarity(x, x), sliding_similarity(x[:3], x)  # of two windows one
        (1.0, 0.5)
    """
    if not len(x) or not len(y):
        return 0.0
    one, other = (_windows(z, window) for z in (x, y))
    both = min(len(one), len(other))
    lengths = np.linalg.norm(one[:both], axis=1) * np.linalg.norm(other[:both], axis=1)
    products = (one[:both] * other[:both]).sum(1)
    found = np.divide(products, lengths, out=np.zeros(both), where=lengths > 0)
    return float(found.sum() / max(len(one), len(other)))


def _windows(x: np.ndarray, window: int) -> np.ndarray:
    """The mean words of all windows, (window, feature)."""
    size = min(window, len(x))
    whole = np.concatenate([np.zeros((1, x.shape[1])), np.cumsum(x, axis=0)])
    return (whole[size:] - whole[:-size]) / size


def repetition(tokens: Sequence[int]) -> float:
    """Return the share of the pairs of neighbouring tokens that were there before in the text, 0 to 1.

    Example:
        >>> repetition([5, 6, 7]), repetition([5, 6, 5, 6, 5])
        (0.0, 0.5)
    """
    pairs = list(itertools.pairwise(tokens))
    return 1 - len(set(pairs)) / len(pairs) if pairs else 0.0
