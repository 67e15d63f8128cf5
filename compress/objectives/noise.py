"""Noise contrastive estimation: the next token told apart from noise, without a softmax over the vocabulary."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
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
    class_count,
    given_entry,
    given_module,
    is_number,
)
from compress.objectives.by_text import inputs_by, shared_out
from compress.objectives.ngrams import ORDERS, Ngrams, Noise, Shares, check_noise, check_support, contexts_of
from compress.objectives.sampled import logits_of, rows_are_logits
from probes.errors import InputError
from probes.states.by_token import next_tokens, predicts_next

_TEXTS = 32  # at whose mean log Z a learned constant begins


class Noisy(State):
    """What noise is drawn from, and the log of the normaliser, which may be learned.

    Args:
        seed: of what is drawn.
        noise: what is drawn from.
        start: the log of the normaliser.
        learned: whether it is trained.
        samples: whether rows of the output layer are enough.

    Attributes:
        log_z: the log of the normaliser, a scalar.
    """

    def __init__(self, seed: int, noise: Noise, start: float, learned: bool, samples: bool = False) -> None:
        """Begin with no batch."""
        super().__init__(seed)
        self.noise, self.samples = noise, samples
        self.log_z = torch.nn.Parameter(torch.tensor(float(start)), requires_grad=learned)


@dataclass(frozen=True)
class NoiseContrast:
    """The next token told apart from `k` tokens of noise, in nats, the mean over tokens.

    With s(w) the logit of a token, c the log of a normaliser that is the same for all contexts, and
    q the noise, d(w) = s(w) - c - log(k q(w)), and of a token w with noise v_1, ..., v_k

        - log sigmoid(d(w)) - sum over j of log sigmoid(-d(v_j))

    Only k + 1 logits of a place are computed: the output layer does not run. What is learned is
    close to normalised by itself: exp(s - c) are probabilities.

    Args:
        weight: what the loss is multiplied by.
        noise: "unigram", or "bigram", "trigram" or "4-gram", given the tokens before: counted from
            the tokens that are trained on, with a small chance for all others. Or a count for each
            token of the vocabulary.
        k: draws for each token, at least 1; a draw may be the token itself.
        log_normalizer: c: "learned" beside the model, from the mean of log Z over 32 texts on, or a
            number.
        name: what it is logged under.

    Raises:
        InputError: a setting is out of range; before a training: the model predicts no next token;
            counts that were given are not of its vocabulary, or 0 for a token that a text has.

    Notes:
        Gutmann and Hyvarinen 2010; Mnih and Teh 2012, arXiv 1206.6426, who take unigrams, k = 25 and
        c = 0, from scratch. Choices made here: where c begins, since a model trained by cross-entropy
        is far from 0, and the smoothing of noise (`compress.objectives.ngrams.Ngrams`). With k the
        gradient tends to that of maximum likelihood. Where the output layer is no plain linear map,
        or an objective beside it reads logits, all are computed, to the same loss.

    See also:
        `compress.self_normalization`, `SentenceContrast`, `LanguageModel`,
        `compress.recipes.noise_contrast`

    Example:
        >>> import compress, probes
        >>> model, tokenizer = probes.load_checkpoint("bundled-decoder")
        >>> train = probes.load_corpus("bundled", split="train", languages=["en"]).select(range(16))
        >>> how = {"steps": 2, "batch_size": 4, "progress": False}
        >>> objective = compress.NoiseContrast(noise="unigram", k=5)
        >>> list(compress.finetune(model, tokenizer, train, objective=objective, **how).history)
        ['step', 'noise_contrast', 'loss']
    """

    weight: float = 1.0
    noise: str | Sequence[float] = "unigram"
    k: int = 25
    log_normalizer: float | Literal["learned"] = "learned"
    name: str = "noise_contrast"
    needs: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        if not isinstance(self.noise, str):
            object.__setattr__(self, "noise", tuple(np.asarray(self.noise).tolist()))
        check_number(self.name, "weight", self.weight, least=0)
        check_noise(self.name, self.noise)  # type: ignore[arg-type]
        check_count(self.name, "k", self.k)
        check_normalizer(self.name, self.log_normalizer)

    def check_text(self, student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Rows) -> None:
        """Raise `InputError` where the student predicts no next token, none is to be predicted, or
        noise has no chance for one.
        """
        if not predicts_next(student, f"objective {self.name}"):
            raise InputError(
                f"objective {self.name}: {type(student).__name__} predicts masked tokens: expected a model of the next "
                "token; LanguageModel trains this one"
            )
        texts = [row["input_ids"][1:] for row in rows if len(row["input_ids"]) > 1]
        if not texts:
            raise InputError(
                f"objective {self.name}: every text is one token long, and none has a next one: give longer texts"
            )
        if not isinstance(self.noise, str):
            check_support(self.name, self.noise, texts, class_count(student))

    def prepare(self, student: PreTrainedModel, teacher: PreTrainedModel | None, rows: Rows, seed: int) -> Noisy:
        """Return the noise, counted, and the normaliser."""
        noise: Noise
        if isinstance(self.noise, str):
            texts = [row["input_ids"] for row in rows]
            noise = Ngrams(texts, ORDERS[self.noise], class_count(student), first=1)
        else:
            noise = Shares(self.noise)
        learned = self.log_normalizer == "learned"
        start = mean_log_z(student, rows, seed) if learned else float(self.log_normalizer)
        return Noisy(seed, noise, start, learned, rows_are_logits(student))

    def alter(self, batch: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> dict[str, torch.Tensor]:
        """Return `targets` (batch, token): which token each place is to predict, -100 where none."""
        return {"targets": next_tokens(batch["input_ids"], batch["attention_mask"].bool())}

    def __call__(self, student: Pass, teacher: Pass | None, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return the loss of a batch with `targets` (batch, token), times the weight; 0 where none
        is to be predicted.
        """
        return self.each(student, teacher, batch).mean()

    def each(self, student: Pass, teacher: Pass | None, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return what the tokens of each text (batch,) add to their mean loss, times the weight."""
        targets, state = given_entry(batch, "targets", self.name), given_module(batch, self.name)
        there = targets != IGNORED
        contexts = np.zeros((*there.shape, 0), np.int64)
        if isinstance(state.noise, Ngrams) and state.noise.context:
            ids, attended = (batch[key].cpu().numpy() for key in ("input_ids", "attention_mask"))
            contexts = contexts_of(ids, attended.astype(bool), state.noise.context, state.noise.start)
        asked = contexts[there.cpu().numpy()]
        wanted = targets[there].cpu().numpy()[:, None]
        tokens = np.concatenate([wanted, state.noise.draw(asked, self.k, state.generator())], axis=1)
        state.batches += 1
        scores = logits_of(student, there, torch.from_numpy(tokens).to(targets), self.name)
        log_q = torch.from_numpy(state.noise.log_chances(asked, tokens)).to(scores)
        found = contrast(scores - state.log_z - math.log(self.k) - log_q)
        return self.weight * shared_out(found.new_zeros(there.shape).masked_scatter(there, found), there.sum())


def contrast(logits: torch.Tensor) -> torch.Tensor:
    """Return the loss of each row of log odds of data against noise (row, 1 + k): data stands first.

    Example:
        >>> contrast(torch.zeros(1, 3)).tolist()  # 3 log 2
        [2.079441547393799]
    """
    return F.softplus(-logits[:, 0]) + F.softplus(logits[:, 1:]).sum(1)


def check_normalizer(name: str, value: float | str) -> None:
    """Raise where the log of a normaliser is no number, and not learned."""
    if value != "learned" and not is_number(value):
        raise InputError(f'objective {name}: log_normalizer={value!r}: expected a finite number, or "learned"')


def mean_log_z(model: PreTrainedModel, rows: Rows, seed: int) -> float:
    """Return the mean of log Z, of the softmax over tokens, at the places of some texts that predict."""
    few = [rows[i] for i in np.random.default_rng(seed).permutation(len(rows))]
    few = [row for row in few if len(row["input_ids"]) > 1][:_TEXTS]
    found: list[torch.Tensor] = []
    with torch.no_grad():
        for row in few:
            logits = model(**inputs_by([row], model)).logits[0, :-1].float()
            found.append(logits.logsumexp(1).double().cpu())
    return float(torch.cat(found).mean())
