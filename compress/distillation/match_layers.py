"""Which layer of a teacher each layer of a student should learn from."""

from __future__ import annotations

import datasets
import numpy as np
import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.distillation.distill import check_tokens
from probes.corpus import check_corpus
from probes.errors import InputError
from probes.measures.fidelity.similarity import similarity, similarity_of
from probes.models.facts import check_fit, embedding_rows, name_of
from probes.results.draws import POOLED
from probes.results.intervals import interval
from probes.states.capture import capture


def match_layers(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    corpus: datasets.Dataset,
    *,
    tokenizer: PreTrainedTokenizerBase,
    measure: str = "cka",
    draws: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """Say which layer of a teacher each layer of a student is most like, and how sure that is.

    Args:
        teacher, student: models of one tokenizer; they may differ in width, depth and architecture.
        corpus: some hundred texts are enough, and labels are not needed.
        tokenizer: of both.
        measure: of `probes.similarity`, a similarity or a distance, between the mean states of the
            texts.
        draws, seed: of the bootstrap by sentence id.

    Returns:
        A row a layer of the student, 0 the embeddings: `student`; `teacher`, the layer it is most
        like; `value` of the measure, with `low` and `high`; `runner_up`, the layer it is most like
        but one; `lead`, by how much less, with
        `lead_low` and `lead_high`: where that holds 0, the two cannot be told apart; and `matched`,
        the layer in the best map that keeps the order: each later than the one before, with the
        largest sum of similarities (least of distances). As `attrs["layers"]` that map is what
        `HiddenStates(layers=...)` takes.

    Raises:
        InputError: the models do not share a tokenizer, or not with the one given; the student has
            more layers than the teacher; no layer can be compared; the measure is not known, or the
            texts are too few for it.

    Notes:
        The intervals of `lead` compare the two best layers as they were found, on the same draws.
        Even untrained students are like the embeddings of their teacher, and surely so, since both
        see the same words: look whether the layers of a student have different ones in the column
        `teacher`, before taking the map. A layer of the student that has no value, since all its
        states are equal, is left out, with a warning.

    Example:
        >>> import compress, probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> corpus = probes.load_corpus("bundled", split="dev", languages=["en"])
        >>> student = compress.distill(model, layers=2, keep="bottom")
        >>> found = match_layers(model, student, corpus, tokenizer=tokenizer)
        >>> found.attrs["layers"]
        {0: 0, 1: 1, 2: 2}

    See also:
        `HiddenStates`, `distill`, `probes.similarity`.
    """
    about = similarity_of(measure)
    check_tokens(teacher, student)
    corpus = check_corpus(corpus)
    for model in (student, teacher):
        check_fit(embedding_rows(model), tokenizer, name_of(model))
    mine, theirs = (capture(model, tokenizer, corpus, progress=False) for model in (student, teacher))
    if mine.sizes["layer"] > theirs.sizes["layer"]:
        raise InputError(
            f"the student has {mine.sizes['layer'] - 1} layers, the teacher {theirs.sizes['layer'] - 1}: expected at "
            "most as many, so that each learns from another one"
        )
    found = similarity(mine, theirs, measure=measure, draws=draws, seed=seed).sel(language=POOLED)
    sign = 1 if about.kind == "similarity" else -1
    alike = (sign * found["value"]).fillna(-np.inf).values
    usable = [i for i in range(len(alike)) if np.isfinite(alike[i]).any()]
    if not usable:
        raise InputError(
            "no layer of the student can be compared with one of the teacher: look at the texts and weights"
        )
    matched = dict(zip(usable, in_order(alike[usable]), strict=True))
    rows = []
    for i in usable:
        best, second = np.argsort(-alike[i], kind="stable")[:2]
        at = found.isel(layer=i, other_layer=best)
        other = found.isel(layer=i, other_layer=second)
        lead = sign * (at["value"] - other["value"]).values
        low, high = interval(lead, sign * (at["draws"] - other["draws"]).values)
        rows.append(
            {
                "student": i,
                "teacher": int(best),
                **{k: float(at[k]) for k in ("value", "low", "high")},
                "runner_up": int(second),
                "lead": float(lead),
                "lead_low": float(low),
                "lead_high": float(high),
                "matched": matched[i],
            }
        )
    table = pd.DataFrame(rows)
    table.attrs |= {"measure": measure, "kind": about.kind, "layers": matched}
    return table


def in_order(alike: np.ndarray) -> list[int]:
    """Return the ascending columns, one for each row, with the largest sum."""
    n, m = alike.shape
    if np.isfinite(alike).any(0).sum() < n:
        raise InputError(f"only {np.isfinite(alike).any(0).sum()} layers of the teacher can be compared with {n}")
    # best[i, j]: the sum of the first i rows in the first j columns.
    best = np.full((n + 1, m + 1), -np.inf)
    best[0] = 0
    for i in range(1, n + 1):
        for j in range(i, m + 1):
            best[i, j] = max(best[i, j - 1], best[i - 1, j - 1] + alike[i - 1, j - 1])
    out, j = [], m
    for i in range(n, 0, -1):
        while best[i, j] == best[i, j - 1]:
            j -= 1
        j -= 1
        out.append(j)
    return out[::-1]
