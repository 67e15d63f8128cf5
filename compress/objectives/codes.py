"""Objectives of models whose output layer says codewords: their bits, of tokens or of labels.

With latent mixture sampling a language model is trained on what it would say itself: a part of each
word that it reads is taken from its own prediction of that word, bit by bit.
"""

from __future__ import annotations

import math
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
    check_count,
    check_number,
    given_entry,
    given_logits,
)
from compress.objectives.by_text import inputs_of, shared_out
from probes.errors import InputError, check_choice
from probes.models.formats.output_codes import CodedOutput, coded_output_of, saying_bits
from probes.states.by_token import next_tokens, predicts_next
from probes.states.running import evaluating

MIXTURES = ("curriculum", "differentiable")
_NEAR = 8  # words that a mixed codeword is read as, each by its share
_SURE = 1e-6  # how far a mixed bit stays from 0 and 1, so that its logarithm is a number
_START = -2.0  # of the mixing share, as a logit: about an eighth


@dataclass(frozen=True)
class CodedLabels:
    """Binary cross-entropy of the bits of a label's codeword, in nats, the mean over bits and texts.

    Args:
        weight: what the loss is multiplied by.
        name: what it is logged under.

    Raises:
        InputError: the weight is negative or not finite; the student has no output codes; at the
            call, labels or logits are missing.

    Notes:
        Minus the log-likelihood of the codeword, over its bits: what words other than the label are
        likely does not count, and nothing is summed over them.

    See also:
        `CodedTokens`, `code_outputs`

    Example:
        >>> import compress, probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> coded = compress.code_outputs(model, bits=8)
        >>> said = Pass(coded, coded(torch.tensor([[1, 2, 3]])).logits)
        >>> loss = CodedLabels()(said, None, {"labels": torch.tensor([4])})
        >>> bool((loss * 8).isclose(-said.logits[0, 4]))
        True
    """

    weight: float = 1.0
    name: str = "coded_labels"
    needs: ClassVar[frozenset[str]] = frozenset({"labels"})
    kinds: ClassVar[frozenset[str]] = frozenset({"classes"})

    def __post_init__(self) -> None:
        check_number(self.name, "weight", self.weight, least=0)

    def check(self, student: PreTrainedModel, teacher: PreTrainedModel | None) -> None:
        """Raise `InputError` where the student has no output codes."""
        coded_output_of(student)

    def __call__(self, student: Pass, teacher: Pass | None, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return the loss of a batch with `labels` (batch,), times the weight."""
        return self.each(student, teacher, batch).mean()

    def each(self, student: Pass, teacher: Pass | None, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return the loss of each text (batch,), times the weight."""
        said, labels = given_logits(student, self.name), given_entry(batch, "labels", self.name)
        return self.weight * bit_losses(coded_output_of(student.model), said, labels)


@dataclass(frozen=True)
class CodedTokens:
    """Binary cross-entropy of the bits of the next token's codeword, in nats, the mean over bits and
    tokens.

    Args:
        weight: what the loss is multiplied by.
        mixture: what is read in place of the text, all but its first token and special ones: None
            for the text; "curriculum": some bits of each token's codeword, likely ones first, are
            those that the model says of it from what stands before, and the word nearest to that is
            read; "differentiable": a learned share of each bit is a relaxed draw of what the model
            says of it, and the mean of the embeddings of the words nearest to that is read, each
            by its likelihood, so that the gradient reaches the prediction too.
        batches: over how many batches the mixture comes in, at least 1.
        most: of the curriculum, the share of bits at the end, above 0 and at most 1.
        temperature: of the differentiable mixture, that of the draws at the end, above 0.
        name: what it is logged under.

    Raises:
        InputError: a setting is out of its range; before a training: the student has no output
            codes, or does not predict the next token, or no text has a token to predict.

    Notes:
        After Error-correcting neural sequence prediction (O'Neill and Bollegala 2019, arXiv
        1901.07002). Theirs: the loss; bits drawn without repetition in proportion to their
        likelihood, their share 2 / (1 + exp(10 (1 - x))) of the way x; temperatures that rise along
        a sigmoid. Choices made here: predictions come from a pass over the text as it is
        (Mihaylova and Martins 2019, arXiv 1906.07651), without dropout, so that a training takes
        two passes; one learned share for all bits; eight words nearest.

    See also:
        `CodedLabels`, `code_outputs`, `LanguageModel`, whose loss of the same model is renormalised
        over words.

    Example:
        >>> import compress, transformers
        >>> sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
        >>> config = transformers.LlamaConfig(vocab_size=20, num_attention_heads=2, **sizes)
        >>> coded = compress.code_outputs(transformers.LlamaForCausalLM(config), bits=20)
        >>> said = Pass(coded, coded(torch.tensor([[1, 9]])).logits)
        >>> loss = CodedTokens()(said, None, {"targets": torch.tensor([[9, -100]]), "modules": {}})
        >>> bool((loss * 20).isclose(-said.logits[0, 0, 9]))
        True
    """

    weight: float = 1.0
    mixture: str | None = None
    batches: int = 1000
    most: float = 0.5
    temperature: float = 2.5
    name: str = "coded_tokens"
    needs: ClassVar[frozenset[str]] = frozenset()
    by_token: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number(self.name, "weight", self.weight, least=0)
        if self.mixture is not None:
            check_choice("mixture", self.mixture, MIXTURES, "or None for the text as it is")
        check_count(self.name, "batches", self.batches)
        check_number(self.name, "most", self.most, above=0)
        if self.most > 1:
            raise InputError(f"objective {self.name}: most={self.most!r}: expected a share above 0 and at most 1")
        check_number(self.name, "temperature", self.temperature, above=0)

    def check(self, student: PreTrainedModel, teacher: PreTrainedModel | None) -> None:
        """Raise `InputError` where the student has no output codes."""
        coded_output_of(student)

    def check_text(self, student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Rows) -> None:
        """Raise `InputError` where the student predicts no next token, or no text has one."""
        if not predicts_next(student, f"objective {self.name}"):
            raise InputError(
                f"objective {self.name}: {type(student).__name__} predicts masked tokens: expected a decoder"
            )
        if all(len(row["input_ids"]) < 2 for row in rows):
            raise InputError(
                f"objective {self.name}: every text is one token long, and none has a next one: give longer texts"
            )

    def prepare(self, student: PreTrainedModel, teacher: PreTrainedModel | None, rows: Rows, seed: int) -> State:
        """Return the count of batches, and the share of mixing where that is learned."""
        return _Mixing(seed, student, self.mixture == "differentiable")

    def alter(self, batch: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> dict[str, torch.Tensor]:
        """Return `targets` (batch, token), which token each place is to predict, -100 where none, and
        what is read in place of the batch's `input_ids`, where that is mixed.
        """
        ids, attended = batch["input_ids"], batch["attention_mask"].bool()
        targets = next_tokens(ids, attended)
        if self.mixture is None:
            return {"targets": targets}
        special = torch.tensor(tokenizer.all_special_ids, device=ids.device)
        # Each place but the first, where the one before it says something of it.
        mixed = (targets[:, :-1] != IGNORED) & ~torch.isin(ids[:, 1:], special)
        state: _Mixing = batch["modules"][self.name]
        way = min(1.0, int(state.batches) / self.batches)
        if self.mixture == "curriculum":
            return {"targets": targets, "input_ids": self._curriculum(state, batch, mixed, special, way)}
        return {"targets": targets, "inputs_embeds": self._differentiable(state, batch, mixed, way)}

    def _curriculum(
        self, state: _Mixing, batch: Mapping[str, Any], mixed: torch.Tensor, special: torch.Tensor, way: float
    ) -> torch.Tensor:
        """The words (batch, token) that the codewords with some bits of the predicted are nearest to."""
        ids, model = batch["input_ids"], state.student[0]
        head = coded_output_of(model)
        count = int(head.bits * self.most * very_slow(way))
        if not count:
            return ids
        with torch.no_grad():
            said = _bits_said(model, batch)[:, :-1][mixed]
            drawn = torch.from_numpy(state.generator().gumbel(size=said.shape)).to(said)
            chosen = (F.logsigmoid(said) + drawn).topk(count, dim=-1).indices
            own = head.table(ids[:, 1:][mixed]) * 2 - 1
            words = head.decoded(own.scatter(-1, chosen, said.to(own).gather(-1, chosen)), "hamming")
        read = ids.clone()
        read[:, 1:][mixed] = words.where(~torch.isin(words, special), ids[:, 1:][mixed])
        return read

    def _differentiable(
        self, state: _Mixing, batch: Mapping[str, Any], mixed: torch.Tensor, way: float
    ) -> torch.Tensor:
        """The embeddings (batch, token, feature) of codewords with a share of drawn bits."""
        ids, model = batch["input_ids"], state.student[0]
        head, embeds = coded_output_of(model), model.get_input_embeddings()
        said = _bits_said(model, batch)[:, :-1][mixed]
        noise = torch.from_numpy(state.generator().logistic(size=said.shape)).to(said)
        temperature = self.temperature / (1 + math.exp(-10 * (way - 0.5)))
        own = head.table(ids[:, 1:][mixed]).to(said)
        soft = own + torch.sigmoid(state.mixing) * (torch.sigmoid((said + noise) / temperature) - own)
        soft = soft.clamp(_SURE, 1 - _SURE)
        words = nearest_words(head, soft.detach(), _NEAR)
        codes = head.table(words).to(soft)
        likely = (codes * soft.log()[:, None] + (1 - codes) * (1 - soft).log()[:, None]).sum(-1)
        means = (likely.softmax(-1)[..., None] * embeds(words)).sum(1)
        read = embeds(ids)
        there = F.pad(mixed, (1, 0))
        return read.masked_scatter(there[..., None], means.to(read.dtype))

    def __call__(self, student: Pass, teacher: Pass | None, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return the loss of a batch with `targets` (batch, token), times the weight; 0 where none
        is to be predicted.
        """
        return self.each(student, teacher, batch).mean()

    def each(self, student: Pass, teacher: Pass | None, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return what the tokens of each text (batch,) add to their mean loss, times the weight."""
        said, targets = given_logits(student, self.name), given_entry(batch, "targets", self.name)
        if (state := batch["modules"].get(self.name)) is not None:
            state.batches += 1
        there = targets != IGNORED
        found = bit_losses(coded_output_of(student.model), said[there], targets[there])
        return self.weight * shared_out(found.new_zeros(there.shape).masked_scatter(there, found), there.sum())


def bit_losses(head: CodedOutput, said: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
    """Return the mean binary cross-entropy of the bits of each word (n,), in nats.

    Args:
        head: whose codewords they are.
        said: logits of bits (n, bit) where the head says bits, else those of words (n, word).
        words: which it is (n,).
    """
    if head.says == "words":
        return -said.gather(1, words[:, None])[:, 0] / head.bits
    return F.binary_cross_entropy_with_logits(said, head.table(words).to(said), reduction="none").mean(1)


def very_slow(way: float) -> float:
    """Return how far a schedule is that comes in late, from 0 to 1, of the way from 0 to 1.

    Example:
        >>> [round(very_slow(x), 3) for x in (0.0, 0.5, 0.9, 1.0)]
        [0.0, 0.013, 0.538, 1.0]
    """
    return 2 / (math.exp(10 * (1 - way)) + 1)


@torch.no_grad()
def nearest_words(head: CodedOutput, soft: torch.Tensor, count: int) -> torch.Tensor:
    """Return the words (n, count) under whose codewords mixed bits (n, bit), above 0 and below 1, are
    likeliest, the first first; all words where there are no more.
    """
    logits = torch.logit(soft)
    count = min(count, head.out_features)
    step = max(1, 2**22 // head.out_features)
    parts = [head.likelihoods(logits[k : k + step]).topk(count).indices for k in range(0, max(len(soft), 1), step)]
    return torch.cat(parts)


def _bits_said(model: PreTrainedModel, batch: Mapping[str, Any]) -> torch.Tensor:
    """What a model says of bits (batch, token, bit) where it reads the text as it is, without dropout."""
    with evaluating(model, model.device), saying_bits(model):
        out: torch.Tensor = model(**inputs_of(batch, model)).logits
    return out.to(torch.promote_types(out.dtype, torch.float32))


class _Mixing(State):
    """The count of batches, the student that is asked, and the learned share of mixing."""

    def __init__(self, seed: int, student: PreTrainedModel, learned: bool) -> None:
        super().__init__(seed)
        self.student = [student]  # in a list: it is no part of what is learned
        if learned:
            self.mixing = torch.nn.Parameter(torch.tensor(_START))
