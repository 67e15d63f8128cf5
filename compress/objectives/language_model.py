"""The objective of language models: the next token, or masked ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.objectives.base import IGNORED, Pass, Rows, State, check_number, given_entry, given_logits
from compress.objectives.by_text import shared_out
from probes.errors import InputError
from probes.states.by_token import next_tokens, predicts_next

# What becomes of a token that is to be predicted, where tokens are masked: so many become the mask, so many any token.
MASK, ANY = 0.8, 0.1


class _Asking(State):
    """How many batches there were, and whether the next token is asked for."""

    def __init__(self, seed: int, forward_only: bool) -> None:
        super().__init__(seed)
        self.forward_only = forward_only


@dataclass(frozen=True)
class LanguageModel:
    """Cross-entropy of tokens given their context, in nats, the mean over those that are predicted.

    A model that predicts the next token is asked for each but the first; one with a head for masked
    tokens for a share of them, drawn anew for every batch. No label is needed: the text is.

    Args:
        weight: what the loss is multiplied by.
        masked: the share of tokens that is predicted, above 0 and below 1, where tokens are masked.
            Each is drawn apart; of those drawn 80 % become the mask, 10 % any token of the
            vocabulary, and 10 % stay. Special tokens are not drawn.
        whole_words: mask all tokens of a word or none of them. What a word is the tokenizer says:
            one that splits at spaces alone takes a clause of a script without spaces for a word.
        packed: several texts a row, as many as the length takes, so that there is little padding. They
            do not attend to each other, and positions begin anew with each: the loss is that of
            each alone. A batch is so many rows then, of more texts.
        name: what it is logged under.

    Raises:
        InputError: the weight is negative or not finite, the share not between 0 and 1; before a
            training: the model predicts no tokens, or is an encoder-decoder, or reads the tokens
            that it is to predict; the tokenizer has no mask token, or does not say what words are;
            no text has a token to predict; rows are packed, and the model computes something else
            for texts that share one, or another objective compares whole texts.

    Notes:
        Which kind a model is is seen in what it gives: whether a token changes with one after it.
        Masking as in Devlin et al. 2018, arXiv 1810.04805, drawn anew for each batch as in Liu et
        al. 2019, arXiv 1907.11692. What is drawn depends on the seed and the batch alone, so that a
        training that goes on draws as it would have, on any number of processes. `SoftLabels`
        beside it compares student and teacher at the tokens that are predicted, and nowhere else.

    See also:
        `language_model_loss`, `text_losses`, `SoftLabels`

    Example:
        >>> import torch
        >>> said = Pass(None, torch.zeros(1, 3, 8))
        >>> batch = {"targets": torch.tensor([[4, 5, -100]]), "modules": {}}
        >>> round(float(LanguageModel()(said, None, batch)), 3)  # log 8
        2.079
    """

    weight: float = 1.0
    masked: float = 0.15
    whole_words: bool = False
    packed: bool = False
    name: str = "language_model"
    needs: ClassVar[frozenset[str]] = frozenset()
    by_token: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number(self.name, "weight", self.weight, least=0)
        check_number(self.name, "masked", self.masked, above=0)
        if self.masked >= 1:
            raise InputError(f"objective {self.name}: masked={self.masked!r}: expected a share above 0 and below 1")

    @property
    def words(self) -> bool:
        """Whether rows have to say which word a token is of."""
        return self.whole_words

    def check_text(self, student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Rows) -> None:
        """Raise `InputError` where the student predicts no tokens, there is nothing to mask by, or
        nothing to predict.
        """
        if predicts_next(student, f"objective {self.name}"):
            if all(len(row["input_ids"]) < 2 for row in rows):
                raise InputError(
                    f"objective {self.name}: every text is one token long, and none has a next one: give longer texts"
                )
            return
        if tokenizer.mask_token_id is None:
            raise InputError(
                f"objective {self.name}: {type(student).__name__} predicts masked tokens, and the tokenizer has no "
                "mask token: set tokenizer.mask_token to the one that the model was trained with"
            )
        special = set(tokenizer.all_special_ids)
        if all(special.issuperset(row["input_ids"]) for row in rows):
            raise InputError(
                f"objective {self.name}: no text has a token that is not special: there is nothing to mask"
            )

    def prepare(self, student: PreTrainedModel, teacher: PreTrainedModel | None, rows: Rows, seed: int) -> State:
        """Return the count of batches, by which tokens are drawn, and which tokens are predicted."""
        return _Asking(seed, predicts_next(student, f"objective {self.name}"))

    def alter(self, batch: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> dict[str, torch.Tensor]:
        """Return what the models read in place of a batch's `input_ids`, and `targets` (batch,
        token): which token each place is to predict, -100 where none.
        """
        ids, attended = batch["input_ids"], batch["attention_mask"].bool()
        state = batch["modules"][self.name]
        if state.forward_only:
            targets = next_tokens(ids, attended)
            if "segments" in batch:  # the last of a text has no next one
                own = batch["segments"]
                targets[:, :-1] = targets[:, :-1].where(own[:, 1:] == own[:, :-1], IGNORED)
            return {"targets": targets}
        words = batch["words"] if self.whole_words else None
        return masked_tokens(ids, attended, tokenizer, state.generator(), self.masked, words)

    def __call__(self, student: Pass, teacher: Pass | None, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return the loss of a batch with `targets` (batch, token), times the weight; 0 where none
        is to be predicted.
        """
        return self.each(student, teacher, batch).mean()

    def each(self, student: Pass, teacher: Pass | None, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return what the tokens of each text (batch,) add to their mean loss, times the weight."""
        logits, targets = given_logits(student, self.name), given_entry(batch, "targets", self.name)
        if logits.shape[:-1] != targets.shape:
            raise InputError(
                f"objective {self.name}: expected logits of shape {tuple(targets.shape)} x vocabulary, found "
                f"{tuple(logits.shape)}: expected a model that predicts tokens"
            )
        if (state := batch["modules"].get(self.name)) is not None:
            state.batches += 1
        there = targets != IGNORED
        found = F.cross_entropy(logits[there], targets[there], reduction="none")
        return self.weight * shared_out(found.new_zeros(there.shape).masked_scatter(there, found), there.sum())


def masked_tokens(
    ids: torch.Tensor,
    attended: torch.Tensor,
    tokenizer: PreTrainedTokenizerBase,
    rng: np.random.Generator,
    share: float,
    words: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """Return a batch with some tokens masked, `input_ids`, and which they were, `targets`.

    Args:
        ids, attended: (batch, token), the second False at padding.
        tokenizer: says which tokens are special and which is the mask.
        rng: draws.
        share: of the tokens that are not special.
        words: (batch, token), the number of each token's word in its text, negative for none; all
            tokens of a word are drawn together.

    Returns:
        `input_ids` (batch, token) and `targets` (batch, token), -100 where nothing is predicted.
    """
    special = np.asarray(tokenizer.all_special_ids)
    here = ids.cpu().numpy()
    chosen = drawn_tokens(ids, attended, tokenizer, rng, share, words)
    becomes = rng.random(here.shape)
    ordinary = np.setdiff1d(np.arange(len(tokenizer)), special)
    any_token = ordinary[rng.integers(len(ordinary), size=here.shape)]
    read = np.where(chosen & (becomes < MASK), tokenizer.mask_token_id, here)
    read = np.where(chosen & (becomes >= MASK) & (becomes < MASK + ANY), any_token, read)
    return {
        "input_ids": torch.from_numpy(read).to(ids),
        "targets": torch.from_numpy(np.where(chosen, here, IGNORED)).to(ids),
    }


def drawn_tokens(
    ids: torch.Tensor,
    attended: torch.Tensor,
    tokenizer: PreTrainedTokenizerBase,
    rng: np.random.Generator,
    share: float,
    words: torch.Tensor | None = None,
) -> np.ndarray:
    """Return which tokens of a batch are drawn, (batch, token); the arguments are those of `masked_tokens`."""
    here = ids.cpu().numpy()
    may = attended.cpu().numpy() & ~np.isin(here, np.asarray(tokenizer.all_special_ids))
    drawn = rng.random(here.shape)
    if words is not None:
        of_word = words.cpu().numpy()
        may &= of_word >= 0
        drawn = np.take_along_axis(drawn, of_word.clip(0), axis=1)  # a text has no more words than tokens
    chosen: np.ndarray = may & (drawn < share)
    return chosen
