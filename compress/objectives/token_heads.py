"""What says tokens beside a model that has no head for them: a head on its embeddings, and a narrow generator."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.objectives.base import Rows
from probes.errors import InputError
from probes.models.facts import body_of, embedding_rows, name_of, size_of
from probes.states.batches import random_batch
from probes.states.by_token import alike
from probes.states.running import evaluating


class TokenHead(torch.nn.Module):
    """Logits of tokens from states: a map to the width of embeddings, GELU, a norm, and the embeddings themselves.

    Args:
        width: features of a state.
        embedded: features of an embedding.
        tokens: how many there are.

    Example:
        >>> head = TokenHead(4, 3, 7)
        >>> head(torch.ones(2, 4), torch.ones(7, 3)).shape
        torch.Size([2, 7])
    """

    def __init__(self, width: int, embedded: int, tokens: int) -> None:
        """Draw the map; the norm begins as it is and the bias of each token at 0."""
        super().__init__()
        self.dense = torch.nn.Linear(width, embedded)
        self.norm = torch.nn.LayerNorm(embedded)
        self.bias = torch.nn.Parameter(torch.zeros(tokens))

    def forward(self, states: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """Return logits (..., token) from states (..., feature) and embeddings (token, feature)."""
        return F.linear(self.norm(F.gelu(self.dense(states))), table, self.bias)


class NarrowGenerator(torch.nn.Module):
    """A narrower encoder of a model's kind, drawn at random, that reads and says the tokens of the model's embeddings.

    A map makes the embeddings as narrow as the encoder, a `TokenHead` what it gives as wide as they
    are. The embeddings stay the model's: they are given at each call, and learn by it.

    Args:
        model: whose kind it is of, and whose depth and positions it has.
        size: its share of the width, of heads and feed-forward channels, at least one head.

    Raises:
        InputError: the architecture cannot be made narrower by its configuration alone.
    """

    def __init__(self, model: PreTrainedModel, size: float) -> None:
        """Draw its weights."""
        super().__init__()
        embedded = embeddings_of(model).shape[1]
        body = body_of(model)
        try:
            config = narrowed(body.config, size)
            self.body = type(body)(config)
            self.enter = torch.nn.Linear(embedded, int(config.hidden_size))
            with torch.no_grad():
                self.states(torch.zeros(1, 3, embedded), torch.ones(1, 3, dtype=torch.long))
        except Exception as error:
            said = " ".join(str(error).split())[:160]
            raise InputError(
                f"{name_of(model)}: no narrower {type(body).__name__} can be made by its configuration alone ({said}). "
                "Give generator=..., a small model that predicts masked tokens of the same vocabulary"
            ) from error
        self.head = TokenHead(int(config.hidden_size), embedded, embedding_rows(model))

    def states(self, embeddings: torch.Tensor, attended: torch.Tensor, **more: torch.Tensor) -> torch.Tensor:
        """Return its last states (batch, token, feature) from embeddings of tokens (batch, token, feature)."""
        given = self.body(inputs_embeds=self.enter(embeddings), attention_mask=attended, return_dict=True, **more)
        found: torch.Tensor = given.last_hidden_state
        return found


def narrowed(config: Any, size: float) -> Any:
    """Return the configuration of an encoder so much narrower, by whole heads, of as few tokens as it needs.

    Example:
        >>> import probes
        >>> small = narrowed(probes.load_checkpoint("bundled")[0].config, 0.25)
        >>> small.hidden_size, small.num_attention_heads, small.intermediate_size, small.num_hidden_layers
        (32, 1, 128, 6)
    """
    small = copy.deepcopy(config)
    heads = max(1, round(config.num_attention_heads * size))
    head = config.hidden_size // config.num_attention_heads
    small.num_attention_heads, small.hidden_size = heads, heads * head
    for key in ("intermediate_size", "hidden_dim"):
        if isinstance(channels := getattr(config, key, None), int):
            setattr(small, key, max(1, round(channels * heads / config.num_attention_heads)))
    if hasattr(config, "num_key_value_heads"):
        small.num_key_value_heads = heads
    if hasattr(config, "embedding_size"):
        small.embedding_size = heads * head
    # It is given embeddings: a table of its own would be of no use.
    small.vocab_size = 1 + max(getattr(config, "pad_token_id", None) or 0, 0)
    return small


def embeddings_of(model: PreTrainedModel) -> torch.Tensor:
    """Return the embeddings of a model's tokens (token, feature), with their gradient."""
    table: Any = model.get_input_embeddings()
    if type(table) is torch.nn.Embedding:
        return table.weight
    made: torch.Tensor = table(torch.arange(embedding_rows(model), device=model.device))
    return made


def check_encoder(model: PreTrainedModel, name: str) -> None:
    """Raise `InputError` where a model does not read a text both ways.

    Args:
        model: the student.
        name: of the objective.
    """
    if model.config.is_encoder_decoder:
        raise InputError(
            f"objective {name}: {type(model).__name__} is an encoder-decoder: expected an encoder, which reads a text "
            "both ways"
        )
    ids = random_batch(model, [6])["input_ids"]
    other = ids.clone()
    other[:, -1] = ids[:, 0]
    other[:, -1] += (other[:, -1] == ids[:, -1]).long() * (1 if ids[0, -1] == 0 else -1)
    body = body_of(model)
    with evaluating(model, model.device), torch.no_grad():
        one, two = body(input_ids=torch.cat([ids, other])).last_hidden_state[:, :-1].float()
    if alike(one, two):
        raise InputError(
            f"objective {name}: {type(model).__name__} does not see what comes after a token: expected an encoder. "
            "Train a decoder with LanguageModel"
        )


def check_maskable(tokenizer: PreTrainedTokenizerBase, rows: Rows, name: str) -> None:
    """Raise `InputError` where there is nothing to mask by, or nothing to mask.

    Args:
        tokenizer: of the student.
        rows: what is trained on.
        name: of the objective.
    """
    if tokenizer.mask_token_id is None:
        raise InputError(
            f"objective {name} masks tokens, and the tokenizer has no mask token: set tokenizer.mask_token to the one "
            "that the model was trained with"
        )
    special = set(tokenizer.all_special_ids)
    if all(special.issuperset(row["input_ids"]) for row in rows):
        raise InputError(f"objective {name}: no text has a token that is not special: there is nothing to mask")


def width_of(model: PreTrainedModel) -> int:
    """Return how many features the states of a model have."""
    return size_of(model, "hidden_size")
