"""A read-out of words and relations from states: all ways to split a sentence, summed by a forward recursion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

RANK = 16  # directions of states that are read
_MIN_COUNT = 2  # of a word in training, to be known
_STEPS, _PENALTY = 30, 1e-3  # of L-BFGS; of squared weights, over words


@dataclass(frozen=True)
class Sentences:
    """Sentences as numbers: their words, and the spans at which names of the topic's facts stand.

    Attributes:
        words: (sentence,) the words of each.
        starts: (sentence,) the number of the first word among all, end to end.
        sentence, start, stop: (span,) the sentence, its first word there, and the word after it.
        fact, alias: (span,) which fact of the topic, and which of its names.
        relations: (span, fact) numbers of the relations of the topic's facts, -1 where there are no more.
        sizes: (span, alias) how many words each name of the object has, 0 where there are no more.
    """

    words: list[list[str]]
    starts: np.ndarray
    sentence: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    fact: np.ndarray
    alias: np.ndarray
    relations: np.ndarray
    sizes: np.ndarray


Step = tuple[int, torch.Tensor, torch.Tensor]  # where spans begin, their sentences, their numbers


class Ways:
    """Where spans stand, in the order of the recursion: by the word after them, then by their first.

    Args:
        places: (span,) sentence, first word, and the word after it.
    """

    def __init__(self, places: Sequence[tuple[int, int, int]] = ()) -> None:
        """Put spans together that can be added at once: those of other sentences."""
        groups: dict[int, list[tuple[int, dict[int, int]]]] = {}
        for number, (sentence, start, stop) in enumerate(places):
            there = groups.setdefault(stop, [])
            free = next((of for begin, of in there if begin == start and sentence not in of), None)
            if free is None:
                there.append((start, free := {}))
            free[sentence] = number
        self.ending: dict[int, list[Step]] = {
            stop: [(start, torch.tensor(list(of)), torch.tensor(list(of.values()))) for start, of in there]
            for stop, there in groups.items()
        }

    @classmethod
    def of(cls, given: Sentences) -> Ways:
        """Return those of sentences as numbers."""
        return cls([(int(i), int(a), int(b)) for i, a, b in zip(given.sentence, given.start, given.stop, strict=True)])


def forward(words: torch.Tensor, spans: torch.Tensor, ways: Ways) -> torch.Tensor:
    """Return the log of the sum over all ways to split sentences into words and spans, (..., sentence).

    With a[t] that of the first t words, a[t] = log(exp(a[t-1] + word t) + sum over spans from s to t
    of exp(a[s] + span)).

    Args:
        words: (..., sentence, word) log-probability of each word as a word; 0 after the last one.
        spans: (..., span) of each span as a relation.
        ways: where the spans stand.

    Example:
        >>> both = forward(torch.zeros(1, 2).double(), torch.zeros(1).double(), Ways([(0, 0, 2)]))
        >>> both.exp().round().tolist()  # word by word, or the span: each has probability 1
        [2.0]
    """
    alpha = [torch.zeros_like(words[..., 0])]
    for t in range(1, words.shape[-1] + 1):
        now = alpha[-1] + words[..., t - 1]
        for start, sentences, numbers in ways.ending.get(t, ()):
            added = torch.logaddexp(now[..., sentences], alpha[start][..., sentences] + spans[..., numbers])
            now = now.index_copy(-1, sentences, added)
        alpha.append(now)
    return alpha[-1]


def posteriors(words: torch.Tensor, spans: torch.Tensor, ways: Ways) -> torch.Tensor:
    """Return the share of each span in the sum over all ways to split its sentence, (..., span): the
    derivative of `forward` by its log-probability.

    Example:
        >>> how = torch.zeros(1, 2).double(), torch.tensor([1.0986]).double(), Ways([(0, 0, 2)])
        >>> posteriors(*how).round(decimals=2).tolist()
        [0.75]
    """
    if not spans.shape[-1]:
        return spans.clone()
    given = spans.detach().clone().requires_grad_()
    with torch.enable_grad():
        (found,) = torch.autograd.grad(forward(words.detach(), given, ways).sum(), given)
    return found


class Spelling:
    """What unknown words cost: letters one after the other, each after the one before (add-one)."""

    def __init__(self, words: Sequence[str]) -> None:
        """Count pairs of letters in words of the training sentences."""
        self.pairs: Counter[tuple[str, str]] = Counter()
        self.firsts: Counter[str] = Counter()
        self.letters = {letter for word in words for letter in word}
        for word in words:
            for one, two in zip(f"\0{word}", f"{word}\0", strict=True):
                self.pairs[one, two] += 1
                self.firsts[one] += 1

    def nats(self, word: str) -> float:
        """Return minus the log-probability of a word, its end and letters never seen among what is spelled."""
        many = len(self.letters) + 2
        pairs = zip(f"\0{word}", f"{word}\0", strict=True)
        return float(-sum(np.log((self.pairs[p] + 1) / (self.firsts[p[0]] + many)) for p in pairs))


@dataclass(frozen=True)
class Vocabulary:
    """Which words are known, by their numbers, and what spelling the others costs."""

    numbers: dict[str, int]
    spelling: Spelling

    @classmethod
    def of(cls, sentences: Sequence[Sequence[str]]) -> Vocabulary:
        """Make one of training sentences."""
        counts = Counter(word for words in sentences for word in words)
        known = sorted(word for word, count in counts.items() if count >= _MIN_COUNT)
        return cls({word: k for k, word in enumerate(known, start=1)}, Spelling(sorted(counts)))

    def look_up(self, words: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return numbers of words, 0 for unknown ones, and what spelling those costs."""
        numbers = np.array([self.numbers.get(word, 0) for word in words], np.int64)
        costs = np.array([0.0 if n else self.spelling.nats(w) for w, n in zip(words, numbers, strict=True)])
        return numbers, costs


class ReadOut:
    """Words, or words and relations, read linearly from a few directions of states, of all layers side by side.

    Args:
        rank: how many directions.
        vocabulary: how many words are known, the unknown one among them.
        relations: how many there are; 0 for words alone.
        layers: how many.
    """

    def __init__(self, rank: int, vocabulary: int, relations: int, layers: int) -> None:
        """Begin with weights of 0."""
        shapes = {"word": vocabulary}
        if relations:
            # A relation, and not a word, comes; which one; which name of it: a number for the first, one a word.
            shapes |= {"source": 1, "relation": relations, "alias": 2}
        self.weights = {k: torch.zeros(layers, rank + 1, n) for k, n in shapes.items()}
        self.rank = rank

    @property
    def size(self) -> int:
        """The number of weights a layer."""
        return sum(w[0].numel() for w in self.weights.values())

    def _read(self, what: str, z: torch.Tensor) -> torch.Tensor:
        by = self.weights[what]
        return torch.baddbmm(by[:, -1:], z[..., : self.rank], by[:, :-1])

    def said(
        self, z: torch.Tensor, numbers: torch.Tensor, costs: torch.Tensor, given: Sentences
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return log-probabilities of words (layer, sentence, word) and of spans (layer, span).

        Args:
            z: (layer, word, direction) what is read, words end to end.
            numbers, costs: (word,) of `Vocabulary.look_up`.
            given: the sentences.
        """
        logits = self._read("word", z)
        own = logits.gather(2, numbers.expand(len(z), -1)[..., None])[..., 0] - logits.logsumexp(-1) - costs
        spans = own.new_zeros(len(z), 0)
        if "source" in self.weights:
            source = self._read("source", z)[..., 0]
            own = own + F.logsigmoid(-source)
            if len(given.sentence):
                spans = self._spans(z, source, given)
        lengths = [len(words) for words in given.words]
        out = own.new_zeros(len(z), len(lengths), max(lengths))
        row = np.repeat(np.arange(len(lengths)), lengths)
        column = np.concatenate([np.arange(n) for n in lengths])
        out[:, row, column] = own
        return out, spans

    def _spans(self, z: torch.Tensor, source: torch.Tensor, given: Sentences) -> torch.Tensor:
        at, here = _at(given)
        sizes = torch.from_numpy(given.sizes)
        alias = self._read("alias", z[:, at])
        first = (torch.arange(sizes.shape[1]) == 0).float()
        names = alias[..., :1] * first + alias[..., 1:] * sizes
        name = names.masked_fill(sizes == 0, -torch.inf).log_softmax(-1)
        return F.logsigmoid(source[:, at]) + self.chosen(z, given) + name[:, here, torch.from_numpy(given.alias)]

    def chosen(self, z: torch.Tensor, given: Sentences) -> torch.Tensor:
        """Return the log-probability of the fact of each span among those of its subject, (layer, span)."""
        at, here = _at(given)
        there = torch.from_numpy(given.relations)
        scores = self._read("relation", z[:, at])[:, here[:, None], there.clamp_min(0)]
        found: torch.Tensor = scores.masked_fill(there < 0, -torch.inf).log_softmax(-1)
        return found[:, here, torch.from_numpy(given.fact)]

    def fit(self, z: torch.Tensor, numbers: torch.Tensor, costs: torch.Tensor, given: Sentences) -> ReadOut:
        """Fit to the likelihood of sentences by L-BFGS, with a penalty of squared weights."""
        parts = list(self.weights.values())
        for part in parts:
            part.requires_grad_()
        optimiser = torch.optim.LBFGS(parts, max_iter=_STEPS, history_size=10, line_search_fn="strong_wolfe")
        ways = Ways.of(given) if "source" in self.weights else Ways()

        def loss() -> torch.Tensor:
            optimiser.zero_grad()
            words, spans = self.said(z, numbers, costs, given)
            out = -forward(words, spans, ways).sum() / len(numbers)
            out = out + _PENALTY * sum((p[:, :-1].square().sum() for p in parts), torch.zeros(()))
            out.backward()
            return out

        with torch.enable_grad():
            optimiser.step(loss)
        for part in parts:
            part.requires_grad_(False)
            part.grad = None
        return self


def _at(given: Sentences) -> tuple[torch.Tensor, torch.Tensor]:
    """The word before which each span is read, among all, and its own number."""
    at = torch.from_numpy(given.starts[given.sentence] + given.start)
    return at, torch.arange(len(at))


def directions_of(states: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of states (word, feature) and a map to their first directions, each of variance 1.

    Directions without variance are 0.
    """
    mean = states.mean(axis=0)
    _, values, vectors = np.linalg.svd(states - mean, full_matrices=False)
    spread = values[:rank] / np.sqrt(len(states))
    there = spread > 1e-6 * max(float(spread.max(initial=0.0)), 1e-30)
    out = np.zeros((states.shape[1], rank))
    out[:, : len(spread)] = np.where(there, vectors[:rank].T / np.where(there, spread, 1.0), 0.0)
    return mean, out
