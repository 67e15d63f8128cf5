"""How often codewords are read as the right word, and in how many bits they are wrong."""

from __future__ import annotations

import datasets
import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.objectives.base import IGNORED, is_whole
from compress.rows import padding_for, training_rows
from probes.corpus import check_corpus
from probes.errors import InputError
from probes.models.facts import head_of
from probes.models.formats.output_codes import coded_output_of, saying_bits
from probes.states.batches import collate
from probes.states.by_token import next_tokens
from probes.states.running import evaluating


def code_accuracy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: datasets.Dataset,
    *,
    batch_size: int = 32,
) -> pd.DataFrame:
    """Return how often a model with output codes says the right word, read in three ways.

    Args:
        model: of `code_outputs`: words are next tokens, or the classes of texts.
        tokenizer: of the model.
        corpus: as `load_corpus` gives it, with labels where words are classes.
        batch_size: texts of a batch; the result does not depend on it.

    Returns:
        A row a language, and last "pooled": `words`, how many were to be said; shares of them, 0 to
        1, higher is better: `exact`, whose bits are all on the right side of one half, `hamming`,
        for whom the nearest codeword in Hamming distance is theirs, and `likelihood`, for whom the
        likeliest is; and `bits_wrong`, how many bits of a word are on the wrong side, the mean, 0 to
        the number of bits, lower is better.

    Raises:
        InputError: the model has no output codes, the corpus no labels where they are needed, or
            tokenizer, corpus and model do not fit.

    Notes:
        `hamming` is at least `exact`, and corrects up to half the bits less one by which the
        nearest two codewords differ. Of codewords as near the first word counts.

    Example:
        >>> import compress, probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> coded = compress.code_outputs(model, bits=8)
        >>> corpus = probes.load_corpus("bundled", split="dev", languages=["en"])
        >>> list(code_accuracy(coded, tokenizer, corpus))
        ['language', 'words', 'exact', 'hamming', 'likelihood', 'bits_wrong']

    See also:
        `code_outputs`, `language_model_loss`, `probes.next_token`
    """
    head = coded_output_of(model)
    if not is_whole(batch_size) or batch_size < 1:
        raise InputError(f"batch_size={batch_size!r}: expected a whole number of at least 1")
    tokens = head_of(model) == "tokens"
    corpus = check_corpus(corpus)
    if not tokens and "label" not in corpus.column_names:
        raise InputError("code_accuracy: expected a corpus with a column 'label', whose classes the codewords are of")
    corpus = corpus.remove_columns([c for c in ("split", *(["label"] if tokens else [])) if c in corpus.column_names])
    rows, _ = training_rows(corpus, model, tokenizer, numbered_by=None if tokens else "student")
    if tokens and all(len(row["input_ids"]) < 2 for row in rows):
        raise InputError("code_accuracy: every text is one token long, and none has a next one: give longer texts")
    padding = padding_for(rows, tokenizer, model)
    rows = sorted(rows, key=lambda row: len(row["input_ids"]))
    parts: list[dict[str, np.ndarray]] = []
    with evaluating(model, model.device), saying_bits(model), torch.no_grad():
        for start in range(0, len(rows), batch_size):
            part = rows[start : start + batch_size]
            batch = {k: v.to(model.device) for k, v in collate(padding, part).items()}
            wanted = next_tokens(batch["input_ids"], batch["attention_mask"].bool()) if tokens else batch.pop("labels")
            said = model(**batch).logits
            there = wanted != IGNORED
            said, words = said[there], wanted[there]
            wrong = ((said > 0) != head.table(words).bool()).sum(-1)
            found = {"exact": wrong == 0, "bits_wrong": wrong}
            found |= {by: head.decoded(said, by) == words for by in ("hamming", "likelihood")}
            of = np.array([row["index"] for row in part])[there.nonzero()[:, 0].cpu().numpy()]
            parts.append({k: v.double().cpu().numpy() for k, v in found.items()} | {"index": of})
    every = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
    language = np.array(corpus["language"][:], object)[every["index"]]
    out = []
    for name in [*dict.fromkeys(corpus["language"][:]), "pooled"]:
        here = (language == name) | (name == "pooled")
        mean = {k: float(every[k][here].mean()) if here.any() else np.nan for k in _MEASURED}
        out.append({"language": name, "words": int(here.sum()), **mean})
    return pd.DataFrame(out)


_MEASURED = ("exact", "hamming", "likelihood", "bits_wrong")
