"""Vocabulary pruning: keep the tokens that a corpus uses, embeddings and tokenizer together."""

from __future__ import annotations

import copy
import json
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.saving import record
from probes.corpus import check_corpus, corpus_fingerprint
from probes.errors import InputError
from probes.models.facts import check_reads_text, embedding_rows
from probes.models.formats.output_codes import CodedOutput
from probes.models.spread import check_whole
from probes.silence import quiet

_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_ROWS = 4096  # texts tokenised at a time


def prune_vocabulary(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: datasets.Dataset,
    *,
    keep: Iterable[str] = (),
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return a copy of a model and its tokenizer with the tokens that a corpus uses, and few more.

    Kept are the tokens of the corpus; all special and added tokens; those of `keep`; and what other
    texts need to be tokenised still: the 256 bytes where the tokenizer falls back on bytes, else
    every single character (at a word's start and inside it) that occurs in a token kept, so that a
    new word of these letters is spelled and not unknown; in byte-pair encoding the parts that a
    token is merged from. The order of the tokens stays and their numbers are closed up. Token
    embeddings, an output layer over the vocabulary and its bias shrink with it, tied or not.

    Args:
        model: a model of transformers; it is not changed.
        tokenizer: the one that belongs to it, a fast one: byte-pair encoding, WordPiece, Unigram or
            whole words.
        corpus: the texts that matter, as `load_corpus` gives them; labels are not needed.
        keep: further tokens to keep, as the tokenizer writes them.

    Returns:
        The new model and the new tokenizer. Every text of the corpus becomes the same tokens as
        before, which is checked here, and so has the same hidden states; plain transformers loads
        both when they are saved. `model.config.compression` says how many tokens were kept.

    Raises:
        InputError: the corpus is empty, a token of `keep` is not known, the tokenizer is slow or
            does not fit the model, or the corpus would not be tokenised as before.

    Notes:
        That nothing changes for the corpus is no accident. Longest match first (WordPiece) and the
        best sum of scores (Unigram) still find the same tokens among fewer; byte-pair merges are
        done in order, and those that a text needs are all there, in the same order. Abdaoui, Pradel
        and Sigel 2020, arXiv 2010.05609; Yang, Cui and Chen 2022, arXiv 2203.15996.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> german = probes.load_corpus("bundled", languages=["de"])
        >>> smaller, its_tokenizer = prune_vocabulary(model, tokenizer, german)
        >>> smaller.config.vocab_size == len(its_tokenizer) < len(tokenizer)
        True

    See also:
        `prune`, `footprint`.
    """
    check_whole(model, "prune_vocabulary")
    backend, vocabulary = check_vocabulary(model, tokenizer)
    corpus = check_corpus(corpus)
    known = tokenizer.get_vocab()
    keep = [keep] if isinstance(keep, str) else list(keep)
    unknown = [token for token in keep if token not in known]
    if unknown:
        raise InputError(
            f"keep: {', '.join(map(repr, unknown[:5]))} {'is' if len(unknown) == 1 else 'are'} not in the vocabulary. "
            f"Write tokens as the tokenizer does, as in {', '.join(map(repr, list(known)[-3:]))}"
        )
    used = {number for ids in _tokenised(tokenizer, corpus) for number in ids}
    names = {number: token for token, number in known.items()}
    wanted = used | {number for _, _, number in _token_ids(model) if number in names}
    kept_tokens = _needed(backend, {names[number] for number in wanted} | set(keep), set(vocabulary))
    numbers = sorted({known[token] for token in kept_tokens} | set(range(_first_rows(model))))
    smaller_tokenizer = _smaller_tokenizer(tokenizer, backend, {old: new for new, old in enumerate(numbers)}, names)
    _check_same(tokenizer, smaller_tokenizer, corpus, numbers)

    smaller = copy.deepcopy(model)
    _slice(smaller, numbers)
    record(
        smaller,
        {
            "method": "prune_vocabulary",
            "tokens": len(numbers),
            "tokens_of_parent": len(known),
            "tokens_of_corpus": len(used),
            "corpus": corpus_fingerprint(corpus),
            "keep": keep,
            "parameters": sum(p.numel() for p in smaller.parameters()),
            "parameters_of_parent": sum(p.numel() for p in model.parameters()),
        },
        parent=model,
    )
    return smaller, smaller_tokenizer


def check_vocabulary(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> tuple[dict[str, Any], dict[str, int]]:
    """Return the tokenizer as JSON and its own vocabulary, where they can be pruned."""
    if not isinstance(model, PreTrainedModel):
        raise InputError(f"expected a model of transformers, found {type(model).__name__}")
    check_reads_text(model)
    if not isinstance(model.get_input_embeddings(), nn.Embedding):
        raise InputError(
            f"{type(model).__name__}: expected one plain torch.nn.Embedding of tokens, found "
            f"{type(model.get_input_embeddings()).__name__}. Prune the vocabulary first, then quantise or wrap it"
        )
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise InputError(
            f"expected a fast tokenizer, found {type(tokenizer).__name__}. Load it with AutoTokenizer, which makes a "
            "fast one where it can"
        )
    if len(tokenizer) > embedding_rows(model):
        raise InputError(
            f"tokenizer and model do not fit: {len(tokenizer):,} tokens, but {embedding_rows(model):,} embeddings. "
            "Load the tokenizer that the model was trained with"
        )
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = backend["model"]["vocab"]
    if backend["model"].get("type") not in ("BPE", "WordPiece", "Unigram", "WordLevel"):
        raise InputError(f"expected BPE, WordPiece, Unigram or WordLevel, found {backend['model'].get('type')!r}")
    if isinstance(vocabulary, list):
        vocabulary = {token: number for number, (token, _) in enumerate(vocabulary)}
    return backend, vocabulary


def _tokenised(tokenizer: PreTrainedTokenizerBase, corpus: datasets.Dataset) -> Iterator[list[int]]:
    """Yield the token ids of every text, whole, and of every second text where there are pairs."""
    reader = copy.deepcopy(tokenizer)  # a call changes how the tokenizer itself cuts and pads
    for start in range(0, len(corpus), _ROWS):
        part = corpus[start : start + _ROWS]
        for column in ("text", "text_pair"):
            if column in part:
                yield from reader(part[column], padding=False, truncation=False, verbose=False)["input_ids"]


def _check_same(
    tokenizer: PreTrainedTokenizerBase, smaller: PreTrainedTokenizerBase, corpus: datasets.Dataset, numbers: list[int]
) -> None:
    old = np.array(numbers)
    pairs = zip(_tokenised(tokenizer, corpus), _tokenised(smaller, corpus), strict=True)
    for row, (before, after) in enumerate(pairs):
        if before != old[after].tolist():
            raise InputError(
                f"text {row} of the corpus would not be tokenised as before ({before[:8]}, now "
                f"{old[after][:8].tolist()}): this tokenizer does something that pruning its vocabulary does not keep"
            )


def _needed(backend: dict[str, Any], tokens: set[str], vocabulary: set[str]) -> set[str]:
    """The tokens given, and what they and other texts need."""
    model = backend["model"]
    kept = tokens | {added["content"] for added in backend["added_tokens"]}
    if model.get("unk_token") in vocabulary:
        kept.add(model["unk_token"])
    if model["type"] == "Unigram":
        scores = [score for _, score in model["vocab"]]
        if model.get("unk_id") is not None:
            kept.add(model["vocab"][model["unk_id"]][0])
        # What is unknown costs ten more than the lowest score there is: it must not become cheaper.
        kept.add(model["vocab"][int(np.argmin(scores))][0])
    if model["type"] == "WordLevel":
        return kept
    if model["type"] == "BPE":
        kept = _with_parts(kept, model)
    if _byte_level(backend):
        return kept | (set(_byte_characters()) & vocabulary)
    if model.get("byte_fallback"):
        kept |= {token for token in vocabulary if _BYTE.fullmatch(token)}
    inside = model.get("continuing_subword_prefix") or ""
    end = model.get("end_of_word_suffix") or ""
    plain = (token.removeprefix(inside).removesuffix(end) for token in kept & vocabulary)
    letters = {letter for token in plain for letter in token}
    spelled = {a + letter + b for letter in letters for a in ("", inside) for b in ("", end)}
    return kept | (spelled & vocabulary)


def _with_parts(tokens: set[str], model: dict[str, Any]) -> set[str]:
    """The tokens, and all that they are merged from, in every way."""
    parts: dict[str, list[str]] = {}
    for merge in model["merges"]:
        left, right, made = _merge(merge, model)
        parts.setdefault(made, []).extend((left, right))
    kept, todo = set(tokens), list(tokens)
    while todo:
        for part in parts.get(todo.pop(), ()):
            if part not in kept:
                kept.add(part)
                todo.append(part)
    return kept


def _merge(merge: str | list[str], model: dict[str, Any]) -> tuple[str, str, str]:
    """Return what a merge joins, and what it makes of it."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right, left + right.removeprefix(model.get("continuing_subword_prefix") or "")


def _byte_level(part: Any) -> bool:
    """Whether some step of a tokenizer writes bytes as characters."""
    if isinstance(part, dict):
        steps = [part.get("pre_tokenizer"), part.get("normalizer")] if "added_tokens" in part else list(part.values())
        return part.get("type") == "ByteLevel" or any(_byte_level(step) for step in steps)
    return isinstance(part, list) and any(_byte_level(step) for step in part)


def _byte_characters() -> list[str]:
    """The 256 characters that bytes are written with."""
    from tokenizers.pre_tokenizers import ByteLevel

    return ByteLevel.alphabet()


def _first_rows(model: PreTrainedModel) -> int:
    """How many of the first tokens keep their number, which positions are counted from."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            return module.padding_idx + 1
    return 0


def _smaller_tokenizer(
    tokenizer: PreTrainedTokenizerBase, backend: dict[str, Any], new: dict[int, int], names: dict[int, str]
) -> PreTrainedTokenizerBase:
    """Make a tokenizer of the tokens whose old numbers are given, with their new ones."""
    edited = copy.deepcopy(backend)
    model = edited["model"]
    if model["type"] == "Unigram":
        if model.get("unk_id") is not None:
            model["unk_id"] = new[model["unk_id"]]
        model["vocab"] = [piece for number, piece in enumerate(model["vocab"]) if number in new]
    else:
        model["vocab"] = {token: new[number] for token, number in model["vocab"].items() if number in new}
    if model["type"] == "BPE":
        there = model["vocab"]
        model["merges"] = [merge for merge in model["merges"] if all(token in there for token in _merge(merge, model))]
    for added in edited["added_tokens"]:
        added["id"] = new[added["id"]]
    _renumber(edited["post_processor"], new)
    if edited["padding"]:
        edited["padding"]["pad_id"] = new[edited["padding"]["pad_id"]]
    with tempfile.TemporaryDirectory() as folder, quiet():
        tokenizer.save_pretrained(folder)
        (Path(folder) / "tokenizer.json").write_text(json.dumps(edited, ensure_ascii=False), encoding="utf-8")
        for file in Path(folder).iterdir():  # a vocabulary beside it, or older files, would speak of other numbers
            if file.name not in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
                file.unlink()
        made = type(tokenizer).from_pretrained(folder, trust_remote_code=False)
    made.name_or_path = tokenizer.name_or_path
    made_vocabulary = made.get_vocab()
    wrong = [names.get(number) for number, place in new.items() if made_vocabulary.get(names.get(number, "")) != place]
    if wrong or len(made) != len(new):
        raise InputError(
            f"{type(tokenizer).__name__} cannot be made with {len(new):,} of its tokens: it gives "
            f"{', '.join(map(repr, wrong[:5])) or f'{len(made):,} tokens'} other numbers than its file says"
        )
    return made


def _renumber(part: Any, new: dict[int, int]) -> None:
    """Put the new numbers of special tokens into a post-processor, in place, whatever its kind."""
    if isinstance(part, list):
        for step in part:
            _renumber(step, new)
    if not isinstance(part, dict):
        return
    if part.get("type") == "TemplateProcessing":
        for special in part["special_tokens"].values():
            special["ids"] = [new[number] for number in special["ids"]]
    for key in ("sep", "cls"):  # BertProcessing and RobertaProcessing: ["</s>", 2]
        if part.get("type") in ("BertProcessing", "RobertaProcessing"):
            part[key][1] = new[part[key][1]]
    _renumber(part.get("processors"), new)


def _slice(model: PreTrainedModel, numbers: list[int]) -> None:
    """Keep some rows of the token embeddings, and of all that has one number a token."""
    new = {old: place for place, old in enumerate(numbers)}
    outputs: Any = model.get_output_embeddings()
    if isinstance(outputs, CodedOutput):
        outputs.keep(torch.tensor(numbers))
        outputs = None
    tables = {id(module.weight) for module in (model.get_input_embeddings(), outputs) if module is not None}
    # The bias of an output layer is its own, or belongs to the head that it is a part of.
    heads = [m for m in model.modules() if outputs is not None and (m is outputs or outputs in m.children())]
    biases = {id(m.bias) for m in heads if isinstance(getattr(m, "bias", None), nn.Parameter)}
    index = torch.tensor(numbers)
    for parameter in list(model.parameters()):
        if id(parameter) in tables | biases:
            parameter.data = parameter.data.index_select(0, index.to(parameter.device)).contiguous()
    for module in model.modules():
        if isinstance(module, nn.Embedding) and id(module.weight) in tables:
            module.num_embeddings = len(numbers)
            if module.padding_idx is not None:
                module.padding_idx = new.get(module.padding_idx)
        elif isinstance(module, nn.Linear) and id(module.weight) in tables:
            module.out_features = len(numbers)
        bias = getattr(module, "final_logits_bias", None)  # of BART and its kin: (1, token)
        if isinstance(bias, torch.Tensor):
            module.final_logits_bias = bias.index_select(-1, index.to(bias.device))
    for settings, key in {(id(s), k): (s, k) for s, k, _ in _token_ids(model)}.values():
        value = getattr(settings, key)
        setattr(settings, key, [new.get(v) for v in value] if isinstance(value, list) else new.get(value))
    model.config.vocab_size = len(numbers)


def _token_ids(model: PreTrainedModel) -> list[tuple[Any, str, int]]:
    """The tokens that a model's configurations name: where, under which key, the number."""
    found = []
    for settings in (model.config, getattr(model, "generation_config", None)):
        for key, value in (settings.to_dict() if settings is not None else {}).items():
            if key.endswith("_token_id"):
                found += [(settings, key, v) for v in (value if isinstance(value, list) else [value]) if v is not None]
    return found
