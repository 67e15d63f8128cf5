"""Replaced tokens: a small generator puts plausible tokens in place of some, and the student says which."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.objectives.base import (
    Pass,
    Rows,
    State,
    attended_tokens,
    check_number,
    given_entry,
    given_layers,
    given_module,
    wide,
)
from compress.objectives.by_text import inputs_of
from compress.objectives.given import model_and_tokenizer
from compress.objectives.language_model import drawn_tokens
from compress.objectives.masked import check_share
from compress.objectives.token_heads import NarrowGenerator, check_encoder, check_maskable, embeddings_of, width_of
from probes.errors import InputError
from probes.models.facts import embedding_rows, name_of, predicted_tokens
from probes.models.fingerprint import weights_fingerprint


class Detecting(State):
    """A generator and the head by which the student says which tokens it has put in place.

    Both stay in evaluation mode: without dropout, what the student reads depends on the seed and
    the batch alone.

    Args:
        seed: of what is masked and drawn.
        student: whose embeddings a generator that is made shares.
        generator: a copy of one that was given, or a `NarrowGenerator`.
    """

    def __init__(self, seed: int, student: PreTrainedModel, generator: torch.nn.Module) -> None:
        """Draw the head."""
        super().__init__(seed)
        self.student = (student,)  # which is no part of it
        self.made = generator
        width = width_of(student)
        self.head = torch.nn.Sequential(
            torch.nn.Linear(width, width), torch.nn.GELU(), torch.nn.Linear(width, 1), torch.nn.Flatten(-2)
        )

    def train(self, mode: bool = True) -> Detecting:
        """Stay in evaluation mode."""
        return super().train(False)

    def said(self, batch: Mapping[str, Any], chosen: torch.Tensor) -> torch.Tensor:
        """Return the generator's logits (chosen token, token) of a batch in which they are masked."""
        if not isinstance(self.made, NarrowGenerator):
            model: Any = self.made
            logits: torch.Tensor = model(**inputs_of(batch, model), return_dict=True).logits[chosen]
            return wide(logits)
        student = self.student[0]
        inputs = inputs_of(batch, student)
        embedded = student.get_input_embeddings()(inputs.pop("input_ids"))
        states = self.made.states(wide(embedded), inputs.pop("attention_mask"), **inputs)
        found: torch.Tensor = self.made.head(states[chosen], wide(embeddings_of(student)))
        return found


@dataclass(frozen=True)
class ReplacedTokens:
    """Replaced-token detection: of each token, whether a small generator has put it there.

    Some tokens are masked; a generator beside the student predicts them, and what is drawn from it
    takes their places. The student reads that text, and a head beside it says of each token, special
    ones included, whether it is another than was there; a token that was drawn right is not. In nats,

        mean over masked tokens of the generator's cross-entropy
            + detection * mean over all tokens of the binary cross-entropy

    Every token of a text is learned from, and no label is: it heals encoders that were compressed on
    text of all languages. Generator and head are gone after the training; the student's own head, as
    of classes, stays as it is.

    Args:
        generator: a model that predicts masked tokens of the student's vocabulary; a copy of it
            learns. With its tokenizer, as `probes.load_checkpoint` gives both, or as what that takes,
            it is also held against the student's token by token; alone, by their number. By default
            one is made: a narrower encoder of the student's kind, drawn at random, on the student's
            own embeddings, which learn by both losses.
        weight: what the whole is multiplied by.
        detection: what the binary cross-entropy counts, at least 0.
        masked: the share of tokens that is masked, above 0 and below 1.
        size: the share of the student's width that a generator which is made has, above 0 and at
            most 1, rounded to whole heads.
        learning_rate: of generator and head; by default that of the training.
        name: what it is logged under.

    Raises:
        InputError: a number is out of its range; the generator predicts no masked tokens, or is
            given beside `size`; before a training: it has another vocabulary than the student, or
            none can be made of its kind; the student is no encoder; the tokenizer has no mask
            token; no text has a token to mask.

    Notes:
        Clark et al. 2020 (ELECTRA), arXiv 2003.10555, and Niklaus and Giofre 2022 (BudgetLongformer),
        arXiv 2211.17135: weight 50, generators of a quarter to a third. Choices made here: no special
        token is drawn; all that are chosen become the mask; the generator has no dropout; one that is
        given keeps its own embeddings. What is masked and drawn depends on the seed and the batch.

    See also:
        `MaskedTokens`, `finetune`, `prune`, `quantize`, `compress.recipes.replaced_tokens`

    Example:
        >>> import compress, probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> text = probes.load_corpus("bundled", split="train", languages=["en", "zh"]).select(range(8))
        >>> pruned = compress.prune(model, sparsity=0.7)
        >>> how = {"objective": ReplacedTokens(), "steps": 2, "keep_zeros": True, "progress": False}
        >>> healed = compress.finetune(pruned, tokenizer, text, **how)
        >>> list(healed.history), type(healed).__name__
        (['step', 'replaced_tokens', 'loss'], 'BertForSequenceClassification')
    """

    generator: Any = None
    weight: float = 1.0
    detection: float = 50.0
    masked: float = 0.15
    size: float | None = None
    learning_rate: float | None = None
    name: str = "replaced_tokens"
    generator_weights: str | None = field(init=False, repr=False, default=None)  # kept with checkpoints
    generator_tokenizer: Any = field(init=False, repr=False, default=None)
    needs: ClassVar[frozenset[str]] = frozenset({"hidden_states"})

    def __post_init__(self) -> None:
        for setting in ("weight", "detection"):
            check_number(self.name, setting, getattr(self, setting), least=0)
        check_share(self.name, "masked", self.masked)
        if self.learning_rate is not None:
            check_number(self.name, "learning_rate", self.learning_rate, above=0)
        if self.generator is None:
            object.__setattr__(self, "size", 0.25 if self.size is None else self.size)
            check_number(self.name, "size", self.size or 0, above=0)
            if (self.size or 0) > 1:
                raise InputError(f"objective {self.name}: size={self.size!r}: expected at most 1, the student's width")
            return
        if self.size is not None:
            raise InputError(
                f"objective {self.name}: size={self.size!r} is of a generator that is made, and one is given: leave "
                "one of the two out"
            )
        made, tokenizer = model_and_tokenizer(self.generator)
        if (
            not isinstance(made, PreTrainedModel)
            or not isinstance(tokenizer, PreTrainedTokenizerBase | None)
            or predicted_tokens(made) != "masked"
        ):
            raise InputError(
                f"objective {self.name}: the generator is a {type(made).__name__}: expected a model of transformers "
                "that predicts masked tokens, as AutoModelForMaskedLM loads, alone or with its tokenizer; leave it out "
                "to have one made"
            )
        object.__setattr__(self, "generator", made)
        object.__setattr__(self, "generator_tokenizer", tokenizer)
        object.__setattr__(self, "generator_weights", weights_fingerprint(made))

    def check(self, student: PreTrainedModel, teacher: PreTrainedModel | None) -> None:
        """Raise `InputError` where the student is no encoder, or no generator goes with it."""
        check_encoder(student, self.name)
        if self.generator is None:
            with torch.random.fork_rng(devices=[]):
                NarrowGenerator(student, self.size or 0)
            return
        mine, its = embedding_rows(student), embedding_rows(self.generator)
        if mine != its:
            raise InputError(
                f"objective {self.name}: the generator {name_of(self.generator)} has {its:,} tokens and the student "
                f"{name_of(student)} {mine:,}: expected one vocabulary. Give a generator that was trained with the "
                "student's tokenizer, or none, to have one made"
            )

    def check_text(self, student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Rows) -> None:
        """Raise `InputError` where there is nothing to mask by, or nothing to mask, or the generator has
        other tokens.
        """
        check_maskable(tokenizer, rows, self.name)
        if self.generator_tokenizer is None:
            return
        mine, its = (given.get_vocab() for given in (tokenizer, self.generator_tokenizer))
        if other := sorted((number, token) for token, number in mine.items() if its.get(token) != number):
            number, token = other[0]
            found = self.generator_tokenizer.convert_ids_to_tokens(number) if number in its.values() else None
            raise InputError(
                f"objective {self.name}: the generator {name_of(self.generator)} has another vocabulary: of the "
                f"student's {len(mine):,} tokens {len(other):,} have other numbers there or are unknown, as {number}, "
                f"{token!r} here and {found!r} there. Give a generator that was trained with the student's tokenizer, "
                "or none, to have one made"
            )

    def prepare(self, student: PreTrainedModel, teacher: PreTrainedModel | None, rows: Rows, seed: int) -> Detecting:
        """Return the generator and the head of the student."""
        if self.generator is not None:
            return Detecting(seed, student, copy.deepcopy(self.generator))
        return Detecting(seed, student, NarrowGenerator(student, self.size or 0))

    def alter(self, batch: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> dict[str, torch.Tensor]:
        """Return what the models read in place of a batch's `input_ids`, with `replaced` (batch,
        token), which tokens are others than were there, and `generator_loss`, a scalar.
        """
        ids, attended = batch["input_ids"], batch["attention_mask"].bool()
        state = given_module(batch, self.name)
        rng = state.generator()
        chosen = torch.from_numpy(drawn_tokens(ids, attended, tokenizer, rng, self.masked)).to(ids.device)
        masked = ids.masked_fill(chosen, tokenizer.mask_token_id)
        logits = state.said({**batch, "input_ids": masked}, chosen)
        loss = F.cross_entropy(logits, ids[chosen], reduction="sum") / chosen.sum().clamp_min(1)
        with torch.no_grad():
            may = torch.ones(logits.shape[1], dtype=torch.bool, device=ids.device)
            may[len(tokenizer) :] = False  # rows of no token
            may[tokenizer.all_special_ids] = False
            drawn = draw(logits.masked_fill(~may, -torch.inf), rng.random(len(logits)))
            read = ids.masked_scatter(chosen, drawn.to(ids))
        return {"input_ids": read, "replaced": read != ids, "generator_loss": loss}

    def __call__(self, student: Pass, teacher: Pass | None, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return the loss of a batch with `replaced` (batch, token) and `generator_loss`, times the
        weight.
        """
        replaced, own = (given_entry(batch, key, self.name) for key in ("replaced", "generator_loss"))
        state = given_module(batch, self.name)
        states = given_layers(student, "hidden_states", self.name)[-1]
        attended = attended_tokens(batch, states, self.name)
        state.batches += 1
        logits = state.head(wide(states))[attended]
        found = F.binary_cross_entropy_with_logits(logits, replaced[attended].to(logits))
        return self.weight * (own + self.detection * found)


def draw(logits: torch.Tensor, uniform: np.ndarray) -> torch.Tensor:
    """Draw one column of each row of logits (row, column) by numbers (row,) from 0 to 1.

    Example:
        >>> draw(torch.tensor([[0.0, 0.0, -torch.inf]]).repeat(3, 1), np.array([0.1, 0.6, 0.999])).tolist()
        [0, 1, 1]
    """
    sums = logits.double().cpu().softmax(1).cumsum(1)
    found = torch.searchsorted(sums, torch.from_numpy(uniform)[:, None] * sums[:, -1:], right=True)[:, 0]
    last = (sums < sums[:, -1:]).sum(1)  # the last column that can be drawn, where rounding leads beyond it
    return torch.minimum(found, last).to(logits.device)
