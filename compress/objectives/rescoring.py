"""Does a language model find the true sentence among others: corrupted ones, or a list of the best of some system?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import datasets
import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.objectives.base import class_count, is_number, is_whole
from compress.objectives.ngrams import Ngrams
from compress.objectives.sentence_noise import predicts_from, text_scores
from compress.rows import every_row, padding_for
from probes.corpus import check_corpus
from probes.errors import InputError
from probes.results.draws import balanced_weights
from probes.results.intervals import interval
from probes.states.batches import collate
from probes.states.running import evaluating

BY = ("words", "order")
_SAME = 1e-9  # relative: scores nearer than this are equal, but for the order in which they were summed


def corrupted_texts(
    corpus: datasets.Dataset,
    *,
    by: Literal["words", "order"] = "words",
    count: int = 9,
    share: float = 0.15,
    seed: int = 0,
) -> datasets.Dataset:
    """Return each text of a corpus among corrupted ones, as `rescore` takes them.

    Args:
        corpus: as `load_corpus` gives it.
        by: how a text is corrupted: some of its "words" become others, drawn as often as they stand
            in the language's texts; or in their "order", some change places with the next one. A
            text without spaces is taken letter by letter; of several spaces one stays.
        count: corrupted ones of each text, at least 1, none of which is the text itself.
        share: of the words that change, above 0 and at most 1; one at least.
        seed: of what is drawn, apart for each text.

    Returns:
        A corpus with a row a candidate: `id`, `language`, `text`, `group`, the id of the text, and
        `right`, 1 of the text itself and 0 of the others.

    Raises:
        InputError: a setting is out of range; a text cannot be changed: it has one word, or all of
            its words, or of its language's, are alike.

    Notes:
        Words are drawn by how often they are, so that a model of single words finds nothing, but
        that it knows which words it has not seen; of another order it finds exactly nothing.

    Example:
        >>> import probes
        >>> corpus = probes.load_corpus("bundled", split="dev", languages=["en"]).select(range(3))
        >>> lists = corrupted_texts(corpus, by="order", count=4)
        >>> len(lists), sum(lists["right"])
        (15, 3)

    See also:
        `rescore`
    """
    if by not in BY:
        raise InputError(f"by={by!r}: expected one of {BY}")
    if not is_whole(count) or count < 1:
        raise InputError(f"count={count!r}: expected a whole number of at least 1")
    if not is_number(share) or not 0 < share <= 1:
        raise InputError(f"share={share!r}: expected a number above 0 and at most 1")
    corpus = check_corpus(corpus)
    ids, languages, texts = (corpus[column][:] for column in ("id", "language", "text"))
    split = [(text.split(), " ") if len(text.split()) > 1 else (list(text.strip()), "") for text in texts]
    pools: dict[str, list[str]] = {}
    for (words, _), language in zip(split, languages, strict=True):
        pools.setdefault(language, []).extend(words)
    rows: list[dict[str, Any]] = []
    for number, ((words, between), language) in enumerate(zip(split, languages, strict=True)):
        pool, where = pools[language], f"id {ids[number]!r}, language {language!r}"
        alike = set(words) if by == "order" else set(pool)
        if len(words) < 2 or len(alike) < 2:
            raise InputError(
                f'{where}: by="{by}" cannot change the text {" ".join(words)[:60]!r}: expected words that differ, at '
                "least two in the text. Leave it out"
            )
        rng = np.random.default_rng([seed, number])
        made = [between.join(words), *(between.join(_changed(words, pool, by, share, rng)) for _ in range(count))]
        rows += [
            {
                "id": f"{ids[number]}/{place}",
                "language": language,
                "text": text,
                "group": str(ids[number]),
                "right": int(place == 0),
            }
            for place, text in enumerate(made)
        ]
    return datasets.Dataset.from_list(rows)


def _changed(words: Sequence[str], pool: Sequence[str], by: str, share: float, rng: np.random.Generator) -> list[str]:
    """Change some words, and something in any case."""
    made = list(words)
    times = max(1, round(share * len(words)))
    while made == list(words):
        made = list(words)
        if by == "words":
            for place in rng.choice(len(words), times, replace=False):
                made[place] = pool[int(rng.integers(len(pool)))]
        else:
            for place in rng.choice(len(words) - 1, min(times, len(words) - 1), replace=False):
                made[place], made[place + 1] = made[place + 1], made[place]
    return made


def rescore(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    lists: datasets.Dataset,
    *,
    normalized: bool = True,
    train: datasets.Dataset | None = None,
    batch_size: int = 32,
    draws: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Return how often a language model scores the right text of a list highest, by language and pooled.

    Higher is better. The score of a text is the sum over its tokens, given those before, or all
    others of a model from both sides: scores are compared within a list and a model, never between
    models.

    Args:
        model: of the next token, or from both sides, as `BiLSTMLanguageModel`; it is not changed.
        tokenizer: the tokenizer that belongs to it.
        lists: a row a candidate: `id`, `language`, `text`, `group`, which list it is of, and `right`,
            1 of one candidate at least and 0 of the others: as `corrupted_texts` gives them, or a
            list of the best of some system, with ids of its own.
        normalized: sum log probabilities of the softmax; False for logits, what `SentenceContrast`
            trains.
        train: texts, of which single tokens are counted, as the baseline; without, it is NaN.
        batch_size: texts.
        draws, seed: of the bootstrap by group.

    Returns:
        A row a language, and last "pooled": `language`, `accuracy` with `low` and `high`, the 95 %
        interval, `chance`, what choosing blindly reaches, `unigram`, the accuracy of single tokens,
        and `lists`, how many. Of candidates that score alike each is chosen as often.

    Raises:
        InputError: a column is missing, or a list has no right candidate or no other; the model
            predicts masked tokens, or none; a setting is out of range.

    Notes:
        The task of He, Zhang, Droppo and Yu 2016, arXiv 1602.06064. Sums favour short texts.
        Unigrams are smoothed as `compress.objectives.ngrams.Ngrams` says, and leave out what the
        model's score does: the first token, of a model of the next one.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled-decoder")
        >>> corpus = probes.load_corpus("bundled", split="dev", languages=["en"]).select(range(20))
        >>> found = rescore(model, tokenizer, corrupted_texts(corpus, by="order"))
        >>> found["language"].tolist(), found["lists"].tolist(), bool(found["accuracy"][0] > 0.5)
        (['en', 'pooled'], [20, 20], True)

    See also:
        `corrupted_texts`, `SentenceContrast`, `PseudoLikelihood`, `text_losses`
    """
    for name, value, least in (("batch_size", batch_size, 1), ("draws", draws, 2)):
        if not is_whole(value) or value < least:
            raise InputError(f"{name}={value!r}: expected a whole number of at least {least}")
    right = _marks(lists)
    lists = check_corpus(lists)
    side = predicts_from(model, "rescore")
    rows = every_row(lists, model, tokenizer)
    padding = padding_for(rows, tokenizer, model)
    counted = None
    first = int(side == "before")
    if train is not None:
        texts = [row["input_ids"] for row in every_row(check_corpus(train), model, tokenizer)]
        counted = Ngrams(texts, 1, class_count(model), first=first)
    scores = np.zeros(len(rows))
    with evaluating(model, model.device), torch.no_grad():
        by_length = sorted(rows, key=lambda row: len(row["input_ids"]))
        for start in range(0, len(rows), batch_size):
            part = by_length[start : start + batch_size]
            batch = {k: v.to(model.device) for k, v in collate(padding, part).items()}
            there = batch["attention_mask"].bool()
            logits = model(**batch).logits
            found = text_scores(logits, batch["input_ids"], there, side, normalized)
            scores[[row["index"] for row in part]] = found.cpu().numpy()
    unigram = np.full(len(rows), np.nan)
    if counted is not None:
        for row in rows:
            ids = np.asarray(row["input_ids"][first:], np.int64)[:, None]
            unigram[row["index"]] = counted.log_chances(np.zeros((len(ids), 0), np.int64), ids).sum()
    frame = pd.DataFrame({"group": list(lists["group"]), "language": list(lists["language"]), "right": right})
    frame["accuracy"], frame["unigram"] = scores, unigram
    each = [
        {
            "group": group,
            "language": language,
            "accuracy": share_right(part["accuracy"].to_numpy(), part["right"].to_numpy()),
            "unigram": share_right(part["unigram"].to_numpy(), part["right"].to_numpy()),
            "chance": float(part["right"].mean()),
        }
        for (language, group), part in frame.groupby(["language", "group"], sort=False)
    ]
    return _by_language(pd.DataFrame(each), draws, seed)


def share_right(scores: np.ndarray, right: np.ndarray) -> float:
    """Return which share of the candidates with the highest score are right; NaN where a score is.

    Example:
        >>> share_right(np.array([-3.0, -2.0, -2.0]), np.array([0, 1, 0]))
        0.5
    """
    best = scores.max()
    if not np.isfinite(best):
        return float("nan")
    return float(right[scores >= best - _SAME * abs(best)].mean())


def _marks(lists: datasets.Dataset) -> np.ndarray:
    """Return which candidates are right; raise where a list has none, or nothing else."""
    missing = [c for c in ("id", "language", "text", "group", "right") if c not in lists.column_names]
    if missing:
        raise InputError(
            f"the lists have no column {missing[0]!r}: expected id, language, text, group, which list a candidate is "
            "of, and right, 1 or 0"
        )
    right = np.asarray(lists["right"][:], float)
    if not np.isin(right, (0, 1)).all():
        row = int(np.flatnonzero(~np.isin(right, (0, 1)))[0])
        raise InputError(f"row {row}: right is {lists['right'][row]!r}: expected 1 of the right candidate, 0 of others")
    frame = pd.DataFrame({"language": lists["language"][:], "group": lists["group"][:], "right": right})
    means = frame.groupby(["language", "group"], sort=False)["right"].mean()
    for (language, group), mean in means.items():
        if mean in (0, 1):
            found = "right candidates alone" if mean else "no right candidate"
            raise InputError(
                f"list {group!r} in language {language!r} has {found}: expected one that is right, and one that is not"
            )
    return right


def _by_language(each: pd.DataFrame, draws: int, seed: int) -> pd.DataFrame:
    unit, names = pd.factorize(each["group"], sort=True)
    weights = balanced_weights(len(names), draws, seed).astype(np.int64)
    rows = []
    for language in [*dict.fromkeys(each["language"]), "pooled"]:
        here = np.flatnonzero((each["language"] == language).to_numpy() | (language == "pooled"))
        part, drawn = each.iloc[here], weights[:, unit[here]]
        with np.errstate(invalid="ignore"):
            found = drawn @ part["accuracy"].to_numpy() / drawn.sum(1)
        low, high = interval(found[0], found[1:])
        row = {"language": language, "accuracy": found[0], "low": float(low), "high": float(high)}
        row |= {name: float(part[name].mean()) for name in ("chance", "unigram")}
        rows.append(row | {"lists": len(part)})
    return pd.DataFrame(rows)
