"""Objectives of models that score whole sentences: from both sides, and against sentences of noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
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
    attended_tokens,
    check_choice,
    check_count,
    check_number,
    class_count,
    given_entry,
    given_logits,
    given_module,
    wide,
)
from compress.objectives.by_text import inputs_by, shared_out
from compress.objectives.ngrams import ORDERS, Ngrams
from compress.objectives.noise import Noisy, check_normalizer, contrast
from compress.objectives.sampled import left_out, logits_of, rows_are_logits
from probes.errors import InputError
from probes.states.batches import random_batch
from probes.states.by_token import alike, next_tokens, predicts_next
from probes.states.running import evaluating

_SENTENCES = 64  # of noise, at whose mean score a learned constant begins


@dataclass(frozen=True)
class PseudoLikelihood:
    """Cross-entropy of each token of a text given all others, in nats, the mean over tokens.

    Args:
        weight: what the loss is multiplied by.
        name: what it is logged under.

    Raises:
        InputError: the weight is negative or not finite; before a training: what the model says of a
            token depends on that token.

    Notes:
        Besag 1975. The product over tokens is no probability of a text.

    See also:
        `BiLSTMLanguageModel`, `SentenceContrast`

    Example:
        >>> import torch
        >>> batch = {"input_ids": torch.tensor([[4, 5]]), "attention_mask": torch.tensor([[1, 1]])}
        >>> round(float(PseudoLikelihood()(Pass(None, torch.zeros(1, 2, 8)), None, batch)), 3)  # log 8
        2.079
    """

    weight: float = 1.0
    name: str = "pseudo_likelihood"
    needs: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        check_number(self.name, "weight", self.weight, least=0)

    def check_text(self, student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Rows) -> None:
        """Raise `InputError` where the student does not predict tokens from both sides."""
        if predicts_from(student, self.name) != "both sides":
            raise InputError(
                f"objective {self.name}: {type(student).__name__} predicts the next token: expected a model that "
                "predicts each token from both sides, as BiLSTMLanguageModel; LanguageModel trains this one"
            )

    def __call__(self, student: Pass, teacher: Pass | None, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return the loss of a batch, times the weight."""
        return self.each(student, teacher, batch).mean()

    def each(self, student: Pass, teacher: Pass | None, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return what the tokens of each text (batch,) add to their mean loss, times the weight."""
        logits, ids = given_logits(student, self.name), given_entry(batch, "input_ids", self.name)
        there = attended_tokens(batch, logits, self.name)
        found = F.cross_entropy(logits[there], ids[there], reduction="none")
        return self.weight * shared_out(found.new_zeros(there.shape).masked_scatter(there, found), there.sum())


class _Sentences(Noisy):
    """Sentences of noise, no longer than the longest of the texts, and from which side tokens are predicted."""

    def __init__(
        self, seed: int, noise: Ngrams, start: float, learned: bool, samples: bool, side: str, longest: int
    ) -> None:
        super().__init__(seed, noise, start, learned, samples)
        self.side, self.longest = side, longest

    def scores(self, model: PreTrainedModel, texts: list[list[int]]) -> torch.Tensor:
        """Return the score of each text (text,), without running the output layer where rows of it are enough."""
        inputs = inputs_by([{"input_ids": text} for text in texts], model)
        with left_out(model, self.samples) as fed:
            logits = model(**inputs).logits
        given = Pass(model, None, output_inputs=fed[0]) if fed else Pass(model, logits)
        return self.of(given, inputs["input_ids"], inputs["attention_mask"].bool())

    def of(self, given: Pass, ids: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        """Return the score of each text (text,), of what a model gave for them."""
        targets = _targets(ids, there, self.side)
        asked = targets != IGNORED
        found = logits_of(given, asked, targets[asked][:, None], SentenceContrast.name)[:, 0]
        return found.new_zeros(asked.shape).masked_scatter(asked, found).sum(1)


@dataclass(frozen=True)
class SentenceContrast:
    """A text told apart from `k` texts of noise, in nats, the mean over texts.

    The score s(W) of a text is the sum of the logits of its tokens, by a model that need not be
    normalised; with c the log of a normaliser, q(W) the chance of a text by n-grams and
    d(W) = s(W) - c - log(k q(W)), of a text W with noise V_1, ..., V_k

        - log sigmoid(d(W)) - sum over j of log sigmoid(-d(V_j))

    Args:
        weight: what the loss is multiplied by.
        noise: "unigram", "bigram", "trigram" or "4-gram": from what texts of noise are drawn, with
            their ends, counted from the texts that are trained on.
        k: texts of noise for each text, at least 1; each takes a forward pass.
        log_normalizer: c: "learned" beside the model, from where 64 texts of noise are even on, or a
            number.
        name: what it is logged under.

    Raises:
        InputError: a setting is out of range; before a training: the model predicts neither the next
            token nor each from both sides.

    Notes:
        He, Zhang, Droppo and Yu 2016, arXiv 1602.06064, of which the abstract was at hand: a
        bi-directional model is no probability of a text, and is so trained as one of whole texts,
        against 4-grams. k, where c begins, and that logits are taken and not their softmax, are
        choices made here. No noise is longer than the longest text: there it ends.

    See also:
        `BiLSTMLanguageModel`, `PseudoLikelihood`, `compress.rescore`, `NoiseContrast`

    Example:
        >>> import compress, probes
        >>> _, tokenizer = probes.load_checkpoint("bundled-decoder")
        >>> model = compress.BiLSTMLanguageModel(compress.BiLSTMConfig(vocab_size=4000, hidden_size=8))
        >>> train = probes.load_corpus("bundled", split="train", languages=["en"]).select(range(16))
        >>> how = {"steps": 2, "batch_size": 4, "progress": False}
        >>> list(compress.finetune(model, tokenizer, train, objective=SentenceContrast(k=2), **how).history)
        ['step', 'sentence_contrast', 'loss']
    """

    weight: float = 1.0
    noise: str = "4-gram"
    k: int = 10
    log_normalizer: float | Literal["learned"] = "learned"
    name: str = "sentence_contrast"
    needs: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        check_number(self.name, "weight", self.weight, least=0)
        check_choice(self.name, "noise", self.noise, tuple(ORDERS))
        check_count(self.name, "k", self.k)
        check_normalizer(self.name, self.log_normalizer)

    def check_text(self, student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Rows) -> None:
        """Raise `InputError` where the student does not score tokens by others."""
        predicts_from(student, self.name)

    def prepare(self, student: PreTrainedModel, teacher: PreTrainedModel | None, rows: Rows, seed: int) -> State:
        """Return the noise, counted, and the normaliser."""
        texts = [row["input_ids"] for row in rows]
        noise = Ngrams(texts, ORDERS[self.noise], class_count(student), ends=True)
        learned = self.log_normalizer == "learned"
        longest, side = max(map(len, texts)), predicts_from(student, self.name)
        start = 0.0 if learned else float(self.log_normalizer)
        state = _Sentences(seed, noise, start, learned, rows_are_logits(student), side, longest)
        if learned:
            drawn, log_q = noise_texts(noise, _SENTENCES, longest, np.random.default_rng(seed))
            with torch.no_grad():
                scores = state.scores(student, drawn).double().cpu().numpy()
                state.log_z.fill_(float((scores - log_q).mean()) - math.log(self.k))
        return state

    def __call__(self, student: Pass, teacher: Pass | None, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return the loss of a batch, times the weight."""
        return self.each(student, teacher, batch).mean()

    def each(self, student: Pass, teacher: Pass | None, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return the loss of each text (batch,), times the weight."""
        ids, state = given_entry(batch, "input_ids", self.name), given_module(batch, self.name)
        there = attended_tokens(batch, ids, self.name)
        texts = [row[mask].tolist() for row, mask in zip(ids.cpu(), there.cpu(), strict=True)]
        drawn, log_q = noise_texts(state.noise, self.k * len(ids), state.longest, state.generator())
        state.batches += 1
        log_q = np.concatenate([log_chances(state.noise, texts, state.longest), log_q])
        scores = torch.cat([state.of(student, ids, there), state.scores(student.model, drawn)])
        delta = scores - state.log_z - math.log(self.k) - torch.from_numpy(log_q).to(scores)
        return self.weight * contrast(torch.cat([delta[: len(ids), None], delta[len(ids) :].view(len(ids), -1)], 1))


def predicts_from(model: PreTrainedModel, name: str) -> Literal["before", "both sides"]:
    """Return from where a model predicts tokens: from those "before", at the place before, or from
    "both sides", at its own place.

    Raises:
        InputError: what it says of a token depends on that token, or it predicts none.

    Example:
        >>> import probes
        >>> predicts_from(probes.load_checkpoint("bundled-decoder")[0], "rescore")
        'before'
    """
    if not model.config.is_encoder_decoder and model.get_output_embeddings() is not None:
        ids = random_batch(model, [6])["input_ids"]
        other = ids.clone()
        other[:, 3] = ids[:, 0]
        other[:, 3] += (other[:, 3] == ids[:, 3]).long() * (1 if ids[0, 3] == 0 else -1)
        with evaluating(model, model.device), torch.no_grad():
            one, two = model(input_ids=torch.cat([ids, other])).logits.float()
        if alike(one[3], two[3]) and not alike(one[:3], two[:3]):
            return "both sides"
    if predicts_next(model, f"objective {name}"):
        return "before"
    raise InputError(
        f"objective {name}: {type(model).__name__} predicts masked tokens: expected a model that predicts the next "
        "token, or each from both sides, as BiLSTMLanguageModel"
    )


def text_scores(
    logits: torch.Tensor, ids: torch.Tensor, there: torch.Tensor, side: str, normalized: bool = False
) -> torch.Tensor:
    """Return the sum over tokens of each text (text,) of what a model says of them.

    Args:
        logits: (text, token, vocabulary).
        ids, there: (text, token), the second False at padding.
        side: as `predicts_from` says; by those before it, the first token of a text has no part.
        normalized: sum log probabilities of the softmax in place of logits.

    Example:
        >>> ids = torch.tensor([[1, 0]])
        >>> text_scores(torch.tensor([[[2.0, 3.0], [5.0, 7.0]]]), ids, ids >= 0, "both sides").tolist()
        [8.0]
    """
    targets = _targets(ids, there, side)
    asked = targets != IGNORED
    wanted = targets[asked][:, None]
    here = wide(logits[asked])
    found = here.gather(1, wanted)[:, 0].double()
    if normalized:
        found = found - here.logsumexp(1)
    return found.new_zeros(asked.shape).masked_scatter(asked, found).sum(1)


def _targets(ids: torch.Tensor, there: torch.Tensor, side: str) -> torch.Tensor:
    """Return which token each place predicts (text, token), -100 where none."""
    return next_tokens(ids, there) if side == "before" else ids.where(there, IGNORED)


def noise_texts(
    noise: Ngrams, count: int, longest: int, rng: np.random.Generator
) -> tuple[list[list[int]], np.ndarray]:
    """Return texts drawn from n-grams that know ends, and the log of the chance of each (text,).

    No text is longer than `longest`: there it ends, with chance 1. An empty one is drawn anew.

    Example:
        >>> noise = Ngrams([[0, 1], [0, 1, 1]], order=2, vocabulary=2, ends=True)
        >>> texts, log_q = noise_texts(noise, 3, 4, np.random.default_rng(0))
        >>> np.allclose(log_q, log_chances(noise, texts, 4))
        True
    """
    contexts = np.full((count, noise.context), noise.start, np.int64)
    texts: list[list[int]] = [[] for _ in range(count)]
    going = np.arange(count)
    for place in range(longest):
        drawn = noise.draw(contexts[going], 1, rng)[:, 0]
        while place == 0 and (empty := drawn == noise.vocabulary).any():
            drawn[empty] = noise.draw(contexts[going[empty]], 1, rng)[:, 0]
        going, drawn = going[drawn < noise.vocabulary], drawn[drawn < noise.vocabulary]
        for text, token in zip(going, drawn, strict=True):
            texts[text].append(int(token))
        if noise.context:
            contexts[going] = np.concatenate([contexts[going][:, 1:], drawn[:, None]], axis=1)
    return texts, log_chances(noise, texts, longest)


def log_chances(noise: Ngrams, texts: list[list[int]], longest: int) -> np.ndarray:
    """Return the log of the chance of each text (text,), of those that are not empty."""
    begun = [[noise.start] * noise.context + text + [noise.vocabulary] for text in texts]
    flat = np.concatenate([np.asarray(text, np.int64) for text in begun])
    sizes = np.array([len(text) for text in texts])
    starts = np.cumsum([0, *[len(text) for text in begun[:-1]]]) + noise.context
    of = np.repeat(np.arange(len(texts)), sizes + 1)
    place = np.arange(len(of)) - np.repeat(np.cumsum(sizes + 1) - sizes - 1, sizes + 1)
    windows = flat[(starts[of] + place)[:, None] + np.arange(-noise.context, 1)]
    each = noise.log_chances(windows[:, :-1], windows[:, -1:])[:, 0]
    each[(place == sizes[of]) & (sizes[of] >= longest)] = 0.0  # where it has to end
    begins = place == 0
    end = noise.log_chances(windows[begins, :-1], np.full((len(texts), 1), noise.vocabulary))[:, 0]
    each[begins] -= np.log1p(-np.exp(end))
    return np.bincount(of, each, len(texts))
