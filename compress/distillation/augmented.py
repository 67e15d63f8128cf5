"""More text of the kind there is: words replaced by those that a model's embeddings hold to be near."""

from __future__ import annotations

from typing import Any

import datasets
import numpy as np
import torch
import torch.nn.functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.rows import trained_on
from probes.corpus import check_corpus
from probes.errors import InputError

_BLOCK = 1024  # words whose neighbours are looked for at once


def augmented(
    corpus: datasets.Dataset,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    copies: int = 20,
    share: float = 0.4,
    candidates: int = 15,
    seed: int = 0,
) -> datasets.Dataset:
    """Add copies of the texts trained on, in which words are replaced by near ones.

    A word that is one piece of the vocabulary is replaced with probability `share` by one of the
    `candidates` pieces that are nearest to it, drawn alike, by the cosine of the model's input
    embeddings. Near are only pieces that stand for a word of the corpus too, so that no end of a
    word takes the place of a whole one. Words of several pieces stay.

    Args:
        corpus: as `load_corpus` gives it; copies are made of the rows of split "train", where it
            has splits.
        model: whose embeddings say what is near; it is not changed.
        tokenizer: of the model; one that says which piece is of which word (`is_fast`).
        copies: of each text, at least 0.
        share: probability that a word is replaced, from 0 to 1.
        candidates: how many near pieces there are to choose from, at least 1.
        seed: of the draws.

    Returns:
        The corpus with the copies behind it: their text is new, all else, label and id too, is that
        of the text they are made of. Copies that came out as their text are left out.

    Raises:
        InputError: a number is outside its range; the tokenizer is slow; the corpus has pairs.

    Notes:
        After the augmentation of TinyBERT (Jiao et al. 2019, arXiv 1909.10351), which SparseBERT
        uses (Xu, Yen, Zhao and Xiao 2021, arXiv 2104.08682): 20 copies, 0.4 and 15 as recalled.
        There words of one piece are replaced by what a masked language model proposes and others by
        neighbours among word vectors; here no further model is asked.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> corpus = probes.load_corpus("bundled", split="train", languages=["en"]).select(range(4))
        >>> more = augmented(corpus, model, tokenizer, copies=2)
        >>> len(corpus) < len(more) <= 12
        True

    See also:
        `compress.recipes.sparse_bert`
    """
    if not isinstance(copies, int) or copies < 0:
        raise InputError(f"copies={copies!r}: expected a whole number of at least 0")
    if not isinstance(candidates, int) or candidates < 1:
        raise InputError(f"candidates={candidates!r}: expected a whole number of at least 1")
    if not 0 <= share <= 1:
        raise InputError(f"share={share!r}: expected from 0 to 1")
    if not tokenizer.is_fast:
        raise InputError(f"{type(tokenizer).__name__} does not say which piece is of which word: give a fast one")
    corpus = check_corpus(corpus)
    if "text_pair" in corpus.column_names:
        raise InputError("the corpus has pairs of texts, of which copies are not made: leave augmentation out")
    rows = trained_on(corpus)
    if not copies or not rows:
        return corpus
    read = tokenizer([corpus["text"][i] for i in rows], add_special_tokens=False, return_offsets_mapping=True)
    texts = [corpus["text"][i] for i in rows]
    spans = [_whole_words(read, k) for k in range(len(rows))]
    words = sorted({token for found in spans for token, *_ in found} - set(tokenizer.all_special_ids))
    near = _near(model, words, candidates)
    place = {token: i for i, token in enumerate(words)}
    pieces = [str(tokenizer.decode([token])).strip() for token in words]
    generator, made, of = np.random.default_rng(seed), [], []
    for row, text, found in zip(rows, texts, spans, strict=True):
        for _ in range(copies):
            out, end = [], 0
            for token, start, stop in found:
                if token in place and generator.random() < share and near.shape[1]:
                    chosen = pieces[near[place[token], generator.integers(near.shape[1])]]
                    out += [text[end:start], chosen]
                    end = stop
            new = "".join(out) + text[end:]
            if new != text:
                made.append(new)
                of.append(row)
    if not made:
        return corpus
    copied = corpus.select(of).to_dict() | {"text": made}
    return datasets.concatenate_datasets([corpus, datasets.Dataset.from_dict(copied, features=corpus.features)])


def _whole_words(read: Any, text: int) -> list[tuple[int, int, int]]:
    """Return token, start and end of each word of a text that is one piece."""
    ids, offsets = read["input_ids"][text], read["offset_mapping"][text]
    of = read.word_ids(text)
    alone = [i for i, w in enumerate(of) if w is not None and of.count(w) == 1]
    return [(ids[i], *offsets[i]) for i in alone if offsets[i][0] < offsets[i][1]]


@torch.no_grad()
def _near(model: PreTrainedModel, words: list[int], candidates: int) -> np.ndarray:
    """Return for each of some tokens the places of the others nearest to it (word, candidate)."""
    weight: Any = model.get_input_embeddings().weight
    z = F.normalize(weight[torch.tensor(words, dtype=torch.long, device=weight.device)].float(), dim=1)
    out = []
    for start in range(0, len(z), _BLOCK):
        cosines = z[start : start + _BLOCK] @ z.T
        own = torch.arange(len(cosines), device=z.device)
        cosines[own, own + start] = -torch.inf
        out.append(cosines.topk(min(candidates, len(z) - 1), dim=1).indices)
    return torch.cat(out).cpu().numpy() if out else np.zeros((0, 0), int)
