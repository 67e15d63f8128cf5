"""Words replaced in training by ones near to them, or by what the model itself would say.

A rule says how many, and from where on; `Replaced` does it to each batch, the same in every process
and from every checkpoint.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import datasets
import numpy as np
import torch
import torch.nn.functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.objectives.base import IGNORED, Objective, Rows, is_number, is_whole
from compress.rows import trained_on
from probes.corpus import check_corpus
from probes.errors import InputError, check_choice
from probes.models.facts import embedding_rows
from probes.states.by_token import predicts_next
from probes.states.vectors import leading, of_prompt, settle

# The share of the words, before it is capped, by the share of the updates that are done.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "static": lambda x: 1.0,
    "linear": lambda x: x,
    "exponential": lambda x: 1 - (1 - x) * math.exp(-x),
    "sigmoid": lambda x: 0.5 * (1 + math.sin(math.pi * x - math.pi / 2)),
    "very slow": lambda x: 2 / (math.exp(10 * (1 - x)) + 1),
    "very fast": lambda x: 1 - 2 / (math.exp(10 * x) + 1),
    "near-linear": lambda x: 1 - (1 - x) / (x + math.exp(-x)),
}
_BLOCK = 1024  # words whose neighbours are looked for at once
_SALT = 7  # apart from what else is drawn by seed and update


@dataclass(frozen=True)
class NearestWords:
    """Replace words that a model reads in training by near ones, and by its own, ever more of them.

    A word is a token of the vocabulary. One that is drawn becomes one of the `k` most similar ones
    by the cosine of their vectors, n with a chance proportional to exp(cosine(n, word)). Labels, and
    the tokens that are to be predicted, stay as they are. Special tokens, also those between texts,
    padding, a prompt, and words without a vector (of zeros, or NaN) are never replaced.

    Args:
        schedule: how the share of replaced words grows with x, the share of the updates that are
            done, up to `upto`:

                "static"        1
                "linear"        x
                "exponential"   1 - (1 - x) exp(-x)
                "sigmoid"       (1 + sin(pi x - pi / 2)) / 2
                "very slow"     2 / (exp(10 (1 - x)) + 1)
                "very fast"     1 - 2 / (exp(10 x) + 1)
                "near-linear"   1 - (1 - x) / (x + exp(-x))

        upto: the largest share, 0 to 1; at 0 the training is the same without, bit for bit.
        k: how many near words there are to choose from, at least 1.
        across: near words are those of the other languages of the corpus that the text's own does
            not have, so that texts switch between languages; else those of its own. A language has
            the words that occur in its texts.
        own_words: the largest share, by the same schedule, of words that are replaced by what the
            model would say there, drawn from its distribution given the text before (scheduled
            sampling); 0 to 1. Drawn apart: where both are, it is the model's word.
        targets: replace by near words what is to be predicted, and not what is read.
        vectors: (token, feature) for each token of the vocabulary; by default the student's input
            embeddings as it begins.

    Raises:
        InputError: a number or word is out of range; before a training: vectors are not one a
            token; `across` with a single language; `own_words` of a model that does not predict the
            next token; `targets` without an objective that predicts tokens; no word has a near one.

    Notes:
        O' Neill and Bollegala 2018, arXiv 1809.05916, with the schedules of the authors' code, whose
        chances are by softmax of distances and so prefer the farthest of the ten; here of
        similarities, as in the paper. Choices made here: x counts updates, not epochs; tokens of
        a subword vocabulary; the model's words come from a first pass, without dropout, over
        the text as it is (two passes, not one a word), and are never special tokens; a teacher
        reads what the student reads. Recommended: "static" or "exponential", up to 0.3 at most.

    Example:
        >>> rule = NearestWords(schedule="exponential", upto=0.3)
        >>> [round(rule.share(x), 3) for x in (0.0, 0.1, 0.5)]
        [0.0, 0.186, 0.3]

    See also:
        `compress.training.train`, `GradDrop`
    """

    schedule: str = "exponential"
    upto: float = 0.3
    k: int = 10
    across: bool = False
    own_words: float = 0.0
    targets: bool = False
    vectors: Any = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_choice("schedule", self.schedule, SCHEDULES)
        for name in ("upto", "own_words"):
            value = getattr(self, name)
            if not is_number(value) or not 0 <= value <= 1:
                raise InputError(f"{name}={value!r}: expected a share of the words that is replaced, 0 to 1")
            object.__setattr__(self, name, float(value))  # as it is written beside a checkpoint
        if not is_whole(self.k) or self.k < 1:
            raise InputError(f"k={self.k!r}: expected how many near words there are to choose from, at least 1")
        object.__setattr__(self, "k", int(self.k))
        if self.vectors is not None:
            given = self.vectors.detach().cpu() if torch.is_tensor(self.vectors) else self.vectors
            table = np.asarray(given, np.float32)
            if table.ndim != 2:
                raise InputError(f"vectors of shape {table.shape}: expected (token, feature), one for each token")
            object.__setattr__(self, "vectors", table)

    def share(self, done: float) -> float:
        """Return the share of the words that is replaced by near ones, where so much of the updates is
        done.
        """
        return min(self.upto, SCHEDULES[self.schedule](done))

    def own_share(self, done: float) -> float:
        """Return the share of the words that is replaced by the model's own."""
        return min(self.own_words, SCHEDULES[self.schedule](done))

    def said(self) -> dict[str, Any]:
        """Return the rule as it is written beside a checkpoint and into a record; of vectors their hash."""
        about = asdict(self) | {"vectors": None}
        if self.vectors is not None:
            about["vectors"] = hashlib.sha256(np.ascontiguousarray(self.vectors).tobytes()).hexdigest()
        return {"rule": type(self).__name__, **about}


class Replaced:
    """Replaces words of batches, as a rule says.

    Args:
        rule: which; None for no rule: then nothing is done.
        student, tokenizer: what is trained, and what reads for it.
        corpus, rows: the texts, and what `compress.rows.training_rows` made of them.
        objective: what is trained for.
        seed, steps: of the training.
        prompt: what stands before each text; None for what the checkpoint declares.

    Raises:
        InputError: the rule does not fit model, text or objectives.
    """

    def __init__(
        self,
        rule: NearestWords | None,
        student: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        corpus: datasets.Dataset,
        rows: Rows,
        objective: Sequence[Objective],
        seed: int,
        steps: int,
        prompt: str | None = None,
    ) -> None:
        """Check what can be before any work, and look for near words."""
        self.rule, self.seed, self.steps, self.at = rule, seed, steps, (-1, 0)
        if rule is None:
            return
        if not isinstance(rule, NearestWords):
            raise InputError(f"replace_words={rule!r}: expected compress.NearestWords(...)")
        if rule.own_words and not predicts_next(student, f"replace_words: own_words={rule.own_words:g}"):
            raise InputError(
                f"replace_words: own_words={rule.own_words:g} is of models that predict the next token, and "
                f"{type(student).__name__} predicts masked ones: leave it out"
            )
        if rule.targets and not any(hasattr(o, "alter") for o in objective):
            given = ", ".join(o.name for o in objective)
            raise InputError(
                f"replace_words: targets=True replaces tokens that are to be predicted, and the objectives ({given}) "
                "predict none: leave it out, or add compress.LanguageModel()"
            )
        for o in objective:
            if (mixture := getattr(o, "mixture", None)) is not None:
                raise InputError(
                    f"replace_words=... and mixture={mixture!r} of the objective {o.name} both say what is read in "
                    "place of the text: leave one of the two out"
                )
        self.special = np.array(sorted(special_tokens(student, tokenizer)))
        self.ordinary = np.setdiff1d(np.arange(len(tokenizer)), self.special)
        how, _ = settle(student, "the student", pooling="mean", max_length=None, prompt=prompt)
        corpus = check_corpus(corpus)
        languages = np.asarray(corpus["language"], object)[trained_on(corpus)]
        names, of_text = np.unique(languages, return_inverse=True)
        self.language_of: np.ndarray = of_text
        # Of rows of several texts, the number of the first one of each.
        counts = [row["segments"][-1] + 1 if "segments" in row else 1 for row in rows]
        self.first_text = np.concatenate([[0], np.cumsum(counts)])
        self.leading = self._leading(rows, leading(tokenizer, replace(how, pools_prompt=False)))
        if rule.upto:
            seen = self._seen(rows, len(names))
            self.near = _near_words(_vectors(rule, student, tokenizer), seen, rule, self.special, names.tolist())

    def stamp(self) -> dict[str, Any]:
        """Return what is kept with a training: the rule; nothing without one."""
        return {} if self.rule is None else {"replace_words": self.rule.said()}

    def apply(
        self, batch: Mapping[str, Any], step: int, say: Callable[[], torch.Tensor | None]
    ) -> dict[str, torch.Tensor]:
        """Return the entries of a batch that are other: `input_ids`, or `targets`.

        Args:
            batch: `input_ids`, `attention_mask` and `index`, as the training has them.
            step: updates done.
            say: gives the student's logits (text, token, token of the vocabulary) for the batch.
        """
        if self.rule is None:
            return {}
        self.at = (step, self.at[1] + 1 if self.at[0] == step else 0)  # which batch of the update it is
        done = step / self.steps
        near, own = self.rule.share(done), self.rule.own_share(done)
        if not near and not own:
            return {}
        ids, attended = batch["input_ids"].cpu().numpy(), batch["attention_mask"].cpu().numpy() > 0
        rng = np.random.default_rng([self.seed, *self.at, _SALT])
        drawn = rng.random((4, *ids.shape))
        languages, places, first = self._places(batch, attended)
        read = ids
        out: dict[str, torch.Tensor] = {}
        if near:
            what = batch["targets"].cpu().numpy() if self.rule.targets else ids
            may = attended & (drawn[0] < near) & (what != IGNORED)
            if not self.rule.targets:
                may &= places >= first
            changed = self._near(what, may, languages, drawn[1])
            if self.rule.targets:
                out["targets"] = torch.from_numpy(changed).to(batch["input_ids"])
            else:
                read = changed
        if own:
            # Of the first token of a text nothing is said.
            may = attended & (places >= np.maximum(first, 1)) & ~np.isin(ids, self.special) & (drawn[2] < own)
            read = self._own(read, may, drawn[3], say) if may.any() else read
        if read is not ids:
            out["input_ids"] = torch.from_numpy(read).to(batch["input_ids"])
        return out

    def _seen(self, rows: Rows, count: int) -> list[np.ndarray]:
        """The tokens that occur in the texts of each language, special ones left out."""
        found: list[set[int]] = [set() for _ in range(count)]
        for i, row in enumerate(rows):
            ids, first = np.asarray(row["input_ids"]), self.first_text[i]
            segments = np.asarray(row.get("segments", np.zeros(len(ids), int)))
            for text in np.unique(segments):
                found[self.language_of[first + text]].update(ids[segments == text].tolist())
        return [np.setdiff1d(np.array(sorted(one), int), self.special) for one in found]

    def _leading(self, rows: Rows, prompt: Sequence[int]) -> np.ndarray:
        """How many tokens of a prompt are before each text."""
        out = np.zeros(self.first_text[-1], int)
        for i, row in enumerate(rows if prompt else ()):
            ids = np.asarray(row["input_ids"])
            starts = np.flatnonzero(np.diff(row.get("segments", np.zeros(len(ids), int)), prepend=-1))
            same = of_prompt(ids, starts, np.diff(starts, append=len(ids)), prompt)
            out[self.first_text[i] + np.arange(len(starts))] = np.add.reduceat(same, starts, dtype=int)
        return out

    def _places(self, batch: Mapping[str, Any], attended: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The language of each token's text, where in it each stands, and where it begins after a prompt,
        (text, token).
        """
        rows = batch["index"].cpu().numpy()
        count = attended.cumsum(1) - 1
        if "segments" not in batch:
            texts = self.first_text[rows][:, None]
            return np.broadcast_to(self.language_of[texts], attended.shape), count, self.leading[texts]
        segments = batch["segments"].cpu().numpy()
        texts = self.first_text[rows][:, None] + segments.clip(0)
        begins = np.ones_like(attended)
        begins[:, 1:] = segments[:, 1:] != segments[:, :-1]
        places = count - np.maximum.accumulate(np.where(begins, count, 0), axis=1)
        return self.language_of[texts], places, self.leading[texts]

    def _near(self, ids: np.ndarray, may: np.ndarray, languages: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        """Replace tokens that are drawn and have near ones."""
        out = ids.copy()
        for number, (place, words, chances) in enumerate(self.near):
            here = may & (languages == number)
            row = np.where(here, place[np.where(here, ids, 0)], -1)
            here = row >= 0
            chosen = (drawn[here][:, None] >= chances[row[here]]).sum(1)
            out[here] = words[row[here], chosen]
        return out

    def _own(
        self, read: np.ndarray, may: np.ndarray, drawn: np.ndarray, say: Callable[[], torch.Tensor | None]
    ) -> np.ndarray:
        """Replace tokens that are drawn by the model's."""
        logits = say()
        assert logits is not None  # predicts_next has raised
        out, (texts, places) = read.copy(), np.nonzero(may)
        at = torch.from_numpy(texts).to(logits.device), torch.from_numpy(places - 1).to(logits.device)
        ordinary = torch.from_numpy(self.ordinary).to(logits.device)
        chances = logits[at][:, ordinary].double().softmax(1).cumsum(1).cpu().numpy()
        chosen = (drawn[may][:, None] * chances[:, -1:] >= chances).sum(1)
        out[may] = self.ordinary[chosen.clip(max=len(self.ordinary) - 1)]
        return out


Near = tuple[np.ndarray, np.ndarray, np.ndarray]


def near_words(
    vectors: torch.Tensor, words: np.ndarray, candidates: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the candidates most similar to each of some words, and the chances of each, none of a
    word itself.

    Args:
        vectors: (token, feature).
        words, candidates: tokens whose vectors are not zero.
        k: how many; as many as there are where these are fewer.

    Returns:
        (word, near) tokens, the most similar first, -1 where there is none, and chances that add
        up to 1, by softmax of the cosines; 0 where there is none.

    Example:
        >>> circle = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
        >>> found, chances = near_words(circle, np.array([0]), np.arange(3), k=2)
        >>> found.tolist(), chances.round(2).tolist()  # e^0.8 to e^0
        ([[1, 2]], [[0.69, 0.31]])
    """
    k = min(k, len(candidates))
    z = F.normalize(vectors[torch.from_numpy(candidates)], dim=1)
    found, chances = [np.zeros((0, k), int)], [np.zeros((0, k))]
    for start in range(0, len(words), _BLOCK):
        part = words[start : start + _BLOCK]
        cosines = F.normalize(vectors[torch.from_numpy(part)], dim=1) @ z.T
        cosines[torch.from_numpy(part[:, None] == candidates)] = -torch.inf
        top = cosines.topk(k, dim=1)
        similar, at = top.values.double(), top.indices.cpu().numpy()
        none = (similar == -torch.inf).cpu().numpy()
        found.append(np.where(none, -1, candidates[at]))
        chances.append(similar.softmax(1).nan_to_num(0).cpu().numpy())
    return np.concatenate(found), np.concatenate(chances)


def _near_words(
    vectors: torch.Tensor, seen: Sequence[np.ndarray], rule: NearestWords, special: np.ndarray, names: Sequence[str]
) -> list[Near]:
    """For each language: the row of each token, -1 for none, and of each row tokens and bounds to draw by."""
    if rule.across and len(seen) < 2:
        raise InputError(
            f"replace_words: across=True takes near words of other languages, and all texts are of {names[0]!r}: give "
            "text of several, or leave it out"
        )
    there = torch.linalg.vector_norm(vectors, dim=1)
    known = np.flatnonzero(((there > 0) & there.isfinite()).cpu().numpy())
    every = np.unique(np.concatenate(list(seen)))
    out: list[Near] = []
    for own in seen:
        words = np.intersect1d(own, known)
        candidates = np.intersect1d(np.setdiff1d(every, own) if rule.across else own, known)
        place = np.full(len(vectors), -1)
        if len(candidates):
            found, chances = near_words(vectors, words, candidates, rule.k)
            some = found[:, 0] >= 0
            place[words[some]] = np.arange(some.sum())
            bounds = chances.cumsum(1)
            bounds[bounds >= bounds[:, -1:]] = np.inf  # of the last one there is, whatever is drawn
            out.append((place, found[some], bounds[some]))
        else:
            out.append((place, np.zeros((0, 1), int), np.zeros((0, 1))))
    if all((place < 0).all() for place, *_ in out):
        raise InputError(
            "replace_words: no word has a near one: expected texts of at least two words of the vocabulary"
            + (" in each of two languages" if rule.across else " in a language")
            + ", special tokens left out, with vectors that are not zero"
        )
    return out


@torch.no_grad()
def _vectors(rule: NearestWords, student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    rows = embedding_rows(student)
    if rule.vectors is None:
        embedding = student.get_input_embeddings()
        every = torch.arange(rows, device=student.device)
        return torch.cat([embedding(part) for part in every.split(_BLOCK)]).float()
    if not len(tokenizer) <= len(rule.vectors) <= rows:
        raise InputError(
            f"replace_words: vectors has {len(rule.vectors):,} rows: expected {len(tokenizer):,}, one for each token "
            "of the tokenizer"
        )
    table: torch.Tensor = torch.from_numpy(rule.vectors)
    return table


def special_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Return the tokens that are no words: those of the tokenizer, and what a model begins, ends and
    pads texts with.

    Example:
        >>> import probes
        >>> sorted(special_tokens(*probes.load_checkpoint("bundled-decoder")))
        [0, 1, 2]
    """
    out: set[Any] = set(tokenizer.all_special_ids)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        given = getattr(model.config.get_text_config(), name, None)
        out.update(given if isinstance(given, list | tuple) else [given])
    return {token for token in out if isinstance(token, int) and token >= 0}
