"""Masked tokens for an encoder of any head, by a head that is learned beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.objectives.base import (
    IGNORED,
    Pass,
    Rows,
    State,
    check_number,
    given_entry,
    given_layers,
    given_module,
    wide,
)
from compress.objectives.by_text import shared_out
from compress.objectives.language_model import masked_tokens
from compress.objectives.token_heads import TokenHead, check_encoder, check_maskable, embeddings_of, width_of
from probes.errors import InputError
from probes.models.facts import embedding_rows, predicted_tokens


class _Masking(State):
    """A head for tokens, where the student has none."""

    def __init__(self, seed: int, student: PreTrainedModel) -> None:
        super().__init__(seed)
        own = predicted_tokens(student) == "masked"
        embedded = embeddings_of(student).shape[1]
        self.head = None if own else TokenHead(width_of(student), embedded, embedding_rows(student))


@dataclass(frozen=True)
class MaskedTokens:
    """Cross-entropy of masked tokens, in nats, the mean over them, for an encoder of any head.

    What an encoder was pretrained by, to heal one that was compressed on text without labels, in any
    languages. A student that predicts masked tokens itself is asked by its own head (as
    `LanguageModel` does); for any other one a head is learned beside it, a map and the student's own
    embeddings, which is gone after the training. Its own head, as of classes, stays as it is.

    Args:
        weight: what the loss is multiplied by.
        masked: the share of tokens that is predicted, above 0 and below 1, drawn anew for every
            batch. Of those drawn 80 % become the mask, 10 % any token, and 10 % stay.
        learning_rate: of the head beside it; by default that of the training.
        name: what it is logged under.

    Raises:
        InputError: the weight is negative or not finite, the share not between 0 and 1; before a
            training: the student is no encoder; the tokenizer has no mask token; no text has a
            token to mask.

    Notes:
        Devlin et al. 2018, arXiv 1810.04805. What is drawn depends on the seed and the batch alone, so
        that a training that goes on draws as it would have. Logits are made of the masked tokens
        alone.

    See also:
        `ReplacedTokens`, `LanguageModel`, `finetune`, `prune`

    Example:
        >>> import compress, probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> text = probes.load_corpus("bundled", split="train", languages=["en", "zh"]).select(range(8))
        >>> pruned = compress.prune(model, sparsity=0.7)
        >>> how = {"objective": MaskedTokens(), "steps": 2, "keep_zeros": True, "progress": False}
        >>> healed = compress.finetune(pruned, tokenizer, text, **how)
        >>> list(healed.history), type(healed).__name__
        (['step', 'masked_tokens', 'loss'], 'BertForSequenceClassification')
    """

    weight: float = 1.0
    masked: float = 0.15
    learning_rate: float | None = None
    name: str = "masked_tokens"
    needs: ClassVar[frozenset[str]] = frozenset({"hidden_states"})

    def __post_init__(self) -> None:
        check_number(self.name, "weight", self.weight, least=0)
        check_share(self.name, "masked", self.masked)
        if self.learning_rate is not None:
            check_number(self.name, "learning_rate", self.learning_rate, above=0)

    def check(self, student: PreTrainedModel, teacher: PreTrainedModel | None) -> None:
        """Raise `InputError` where the student is no encoder."""
        check_encoder(student, self.name)

    def check_text(self, student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Rows) -> None:
        """Raise `InputError` where there is nothing to mask by, or nothing to mask."""
        check_maskable(tokenizer, rows, self.name)

    def prepare(self, student: PreTrainedModel, teacher: PreTrainedModel | None, rows: Rows, seed: int) -> State:
        """Return the head, where the student has none, and the count of batches."""
        return _Masking(seed, student)

    def alter(self, batch: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> dict[str, torch.Tensor]:
        """Return what the models read in place of a batch's `input_ids`, and `targets` (batch,
        token): which token each place is to predict, -100 where none.
        """
        ids, attended = batch["input_ids"], batch["attention_mask"].bool()
        return masked_tokens(ids, attended, tokenizer, given_module(batch, self.name).generator(), self.masked)

    def __call__(self, student: Pass, teacher: Pass | None, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return the loss of a batch with `targets` (batch, token), times the weight; 0 where none
        is to be predicted.
        """
        return self.each(student, teacher, batch).mean()

    def each(self, student: Pass, teacher: Pass | None, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return what the tokens of each text (batch,) add to their mean loss, times the weight."""
        targets, state = given_entry(batch, "targets", self.name), given_module(batch, self.name)
        there = targets != IGNORED
        if state.head is None:
            assert student.logits is not None  # it predicts tokens
            logits = wide(student.logits[there])
        else:
            states = given_layers(student, "hidden_states", self.name)[-1]
            logits = state.head(wide(states[there]), wide(embeddings_of(student.model)))
        state.batches += 1
        found = F.cross_entropy(logits, targets[there], reduction="none")
        return self.weight * shared_out(found.new_zeros(there.shape).masked_scatter(there, found), there.sum())


def check_share(name: str, setting: str, value: float) -> None:
    """Raise `InputError` where a setting of an objective is no share above 0 and below 1."""
    check_number(name, setting, value, above=0)
    if value >= 1:
        raise InputError(f"objective {name}: {setting}={value!r}: expected a share above 0 and below 1")
