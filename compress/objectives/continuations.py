"""What a model writes after prompts, how like its references that is, and whether a reward is gamed."""

from __future__ import annotations

import warnings
from typing import Any

import datasets
import numpy as np
import pandas as pd
from scipy import stats
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.objectives.base import check, is_whole
from compress.objectives.reward import SimilarityReward, decoded, ends_of, prompt_of
from compress.objectives.sampling import continued
from compress.objectives.sentences import movers_similarity, repetition, sliding_similarity
from compress.rows import training_rows
from probes.errors import InputError, LayerscopeWarning
from probes.states.movers import transport

_LEFT_OUT = ("split", "label", "labels", "tags")
_SURE = 0.01  # a rank correlation of the reward is told where chance gives as much in fewer cases


def continuations(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: datasets.Dataset,
    reward: SimilarityReward,
    *,
    teacher: PreTrainedModel | None = None,
    window: int = 3,
    batch_size: int = 32,
    seed: int | None = 0,
    max_length: int | None = None,
    prompt: str | None = None,
) -> pd.DataFrame:
    """Let a causal model write after some prompts, and measure how like the references that is.

    Args:
        model: it is not changed.
        tokenizer: the tokenizer that belongs to it.
        prompts: as `load_corpus` gives it, with the column of references; of one with splits give
            those that were held out.
        reward: says which the references are, the encoder, and how much is written.
        teacher: writes the references where no column has them.
        window: words of a window, of `sliding_windows`, at least 1.
        batch_size: texts that are written side by side, at least 1.
        seed: of what is drawn, batch by batch; None for the likeliest token each time.
        max_length, prompt: how prompts are read, as in training.

    Returns:
        A row a prompt, in the order of the corpus:

        | column | |
        |---|---|
        | `id`, `language` | of the prompt |
        | `text`, `reference` | what was written, and what it is compared with |
        | `reward` | 0 to 1, higher is more alike; what is trained for |
        | `word_movers` | 1 / (1 + word mover's distance), 0 to 1, higher is more alike |
        | `sliding_windows` | mean cosine of windows at the same place, -1 to 1, likewise |
        | `length`, `reference_length` | in tokens of the model |
        | `repetition`, `reference_repetition` | share of pairs of tokens that were there before, 0 to 1 |

        `attrs` has the rank correlations of the reward with length and repetition,
        `reward_by_length` and `reward_by_repetition`, -1 to 1; NaN where one is the same everywhere.

    Raises:
        InputError: the package POT is not installed (layerscope[transport]); a number is out of
            range; what `SimilarityReward` raises before a training.

    Warns:
        LayerscopeWarning: the reward is gamed: it grows with repetition, and texts repeat themselves
            more than the references.

    Notes:
        O' Neill and Bollegala 2019, arXiv 1909.03622, for both measures, whose details are choices
        made here. Words are tokens of the encoder by its input embeddings, in which no context is: a
        reward that grows while they do not is won by other means than the text.

    See also:
        `SimilarityReward`, `probes.word_movers`

    Example:
        >>> import compress, probes
        >>> encoder = probes.load_checkpoint("bundled")
        >>> model, tokenizer = probes.load_checkpoint("bundled-decoder")
        >>> prompts = probes.load_corpus("bundled", split="dev", languages=["en"]).select(range(4))
        >>> prompts = prompts.add_column("reference", prompts["text"])
        >>> reward = compress.SimilarityReward(encoder, references="reference", length=8)
        >>> found = continuations(model, tokenizer, prompts, reward, max_length=6)
        >>> found.shape, bool(found["reward"].between(0, 1).all())
        ((4, 11), True)
    """
    transport()
    for name, number in (("window", window), ("batch_size", batch_size)):
        if not is_whole(number) or number < 1:
            raise InputError(f"{name}={number!r}: expected a whole number of at least 1")
    left = prompts.remove_columns([c for c in _LEFT_OUT if c in prompts.column_names and c != reward.references])
    given: dict[str, Any] = {"columns": ("id", *reward.columns), "max_length": max_length, "prompt": prompt}
    rows, _ = training_rows(left, model, tokenizer, numbered_by=None, **given)
    check([reward], model, teacher, False, tokenizer, rows)
    encoder, ends = reward.sentences(tokenizer), ends_of(model, tokenizer)
    out: list[dict[str, object]] = []
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        asked = [prompt_of(row["input_ids"], tokenizer) for row in part]
        drawn = None if seed is None else seed + start
        texts = continued(model, asked, most=reward.length, ends=ends, seed=drawn)
        if reward.references is not None:
            references = [
                tokenizer(row["beside"][reward.references], add_special_tokens=False)["input_ids"] for row in part
            ]
        else:
            assert teacher is not None  # check has raised
            theirs = ends_of(teacher, tokenizer)
            found = continued(teacher, asked, most=reward.length, ends=theirs, seed=None)
            references = [[t for t in text if t not in theirs] for text in found]
        won = reward.rewards(texts, references, tokenizer, ends)
        own = [[token for token in text if token not in ends] for text in texts]
        said, wanted = ([decoded(ids, tokenizer) for ids in side] for side in (own, references))
        words = zip(encoder.words(said), encoder.words(wanted), strict=True)
        for row, text, reference, rewards, mine, goal, (x, y) in zip(
            part, said, wanted, won, own, references, words, strict=True
        ):
            x, y = (side[np.linalg.norm(side, axis=1) > 0] for side in (x, y))
            out.append(
                {
                    "id": row["beside"]["id"],
                    "language": row["beside"]["language"],
                    "text": text,
                    "reference": reference,
                    "reward": sum(rewards),
                    "word_movers": movers_similarity(x, y),
                    "sliding_windows": sliding_similarity(x, y, window),
                    "length": len(mine),
                    "reference_length": len(goal),
                    "repetition": repetition(mine),
                    "reference_repetition": repetition(goal),
                }
            )
    return _with_correlations(pd.DataFrame(out))


def _with_correlations(found: pd.DataFrame) -> pd.DataFrame:
    """Say how the reward goes with length and repetition; warn where it is gamed."""
    for name in ("length", "repetition"):
        told = found[["reward", name]].nunique().min() > 1
        by, p = stats.spearmanr(found["reward"], found[name]) if told else (np.nan, 1.0)
        found.attrs[f"reward_by_{name}"] = float(by)
        own, theirs = found["repetition"].mean(), found["reference_repetition"].mean()
        if name == "repetition" and by > 0 and p < _SURE and own > theirs:
            warnings.warn(
                "the reward is gamed: the more a text repeats itself, the higher its reward (rank correlation "
                f"{by:.2f} over {len(found)} texts), and {own:.2f} of the pairs of tokens repeat, of the references "
                f"{theirs:.2f}. Look at word_movers and sliding_windows; raise kl, reward segments, or take another "
                "encoder",
                LayerscopeWarning,
                stacklevel=3,
            )
    return found
