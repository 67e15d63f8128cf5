"""One forward pass -> pooled hidden states of every layer, to memory or to a zarr store that
resumes and is reused.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
import transformers
import xarray as xr
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from probes.corpus import check_corpus, corpus_fingerprint
from probes.errors import InputError, LayerscopeWarning, address_of
from probes.models.facts import (
    check_fit,
    classes_of,
    embedding_rows,
    kept_head,
    layers_made_of,
    name_of,
    weights_dtype,
)
from probes.models.fingerprint import tokenizer_fingerprint, weights_fingerprint
from probes.models.formats.onnx_model import OnnxModel
from probes.states.by_token import names_of
from probes.states.examples import column_of
from probes.states.layers import check_part, runner_of
from probes.states.long_texts import check_windows, read_texts
from probes.states.pooling import POOLINGS, OfTokens, named_pooling, pool, sinks, sinks_in_words
from probes.states.predictions import KEPT
from probes.states.ragged import with_units
from probes.states.ranks import fill, ranks_of
from probes.states.remote_store import store_at
from probes.states.representations import BLOCK, as_strings, in_once
from probes.states.running import check_settings, decoder_inputs, evaluating, place_of, precision
from probes.states.store import DIMS
from probes.states.texts import READ_LATER, of_column
from probes.states.tokens import Batches, tokenise
from probes.states.transfers import landed
from probes.states.units import Units, Words, check_words, units_of
from probes.states.vectors import counted, finished, leading, length_of, prompted, settle
from probes.states.words import scores_of_words, word_places

_WINDOW = 2 * BLOCK  # rows that are kept before they are written
_BEGUN = 256  # texts from which a pooling of tokens begins
_HELD = 2**28  # bytes of the states of tokens, likewise


def capture(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    corpus: datasets.Dataset,
    *,
    modules: Sequence[str] | None = None,
    part: str = "encoder",
    pooling: str | OfTokens | None = None,
    max_length: int | None = None,
    prompt: str | None = None,
    normalize: bool | None = None,
    dimensions: int | None = None,
    long_texts: str = "cut",
    overlap: int | None = None,
    dtype: str = "float32",
    device: str | torch.device | None = None,
    batch_size: int = 64,
    batch_tokens: int = 4096,
    tokens: bool = False,
    words: Words = False,
    store: str | Path | None = None,
    name: str | None = None,
    progress: bool = True,
    wait: bool = True,
) -> xr.Dataset:
    """Run a corpus through a model once and keep one vector a layer and text.

    Layer 0 is the embeddings, layer l the output of block l; in a decoder the last one is after the
    final norm. An encoder-decoder gives the layers of one part. A head that says something of texts
    or words (classes, several of a text, a number, a class a word) is run too and what it says is
    kept; any other head is left out.

    Args:
        model: an encoder or decoder of transformers, an `OnnxModel` made of one, or any module
            whose `modules` are named.
        tokenizer: the tokenizer that belongs to it.
        corpus: as `load_corpus` gives it; rows with a `text_pair` are encoded as one sequence.
        modules: names from `model.named_modules()` whose outputs (batch, token, feature) are taken
            in place of the hidden states; they become layers 0, 1, ... and their names the
            coordinate `module`.
        part: of an encoder-decoder, whose layers are taken: of the "encoder", or of the "decoder",
            which is fed the `text_pair`, or without one the text itself, shifted by one token as in
            training: the state at a token's place is what predicts it. Then the encoder reads the
            text alone, and there are no logits.
        pooling: "mean" over the text's own tokens, "weighted" by their position (as of decoders,
            whose later tokens have read more: Muennighoff 2022, arXiv 2202.08904), "mean_all" with
            special tokens, "first" or "last" token; or a `WordMoversEmbedding`, which is computed
            of all words of a text. By default what the checkpoint says (files of
            sentence-transformers, read by `load_checkpoint`), else "mean"; the same holds for the
            next four.
        max_length: longest text in tokens, special ones included; longer ones are cut, or read in
            windows of so many. At most, and else, the smaller of the model's positions and the
            tokenizer's limit.
        prompt: put before every text, as "query: "; "" for none.
        normalize: divide the vectors of every layer by their length.
        dimensions: how many features of every layer are kept, the first ones, as of an embedding
            that was trained to be cut (Matryoshka).
        long_texts: what becomes of texts of more than `max_length` tokens: "cut", of which a warning
            tells; or read in "windows" that overlap: their states are pooled over all of them by
            tokens, of which each counts once (what a window is, the attribute `windows` says), and
            what a head says is the mean over windows by the tokens that count there. Shorter texts
            have the same vectors either way.
        overlap: how many tokens of a text two windows share, by default a quarter of those that
            have room in one.
        dtype: "float32", or "bfloat16" for mixed precision (about twice as fast; cosine to float32
            above 0.999).
        device: by default CUDA, MPS or the CPU, the first there is. A model that is spread over
            several (`load_checkpoint(device_map=)`) stays where it is.
        batch_size, batch_tokens: most texts, and most tokens with padding, in one batch.
        tokens: keep the state of every token of a text too, special ones and a prompt left out; in
            memory that takes as much as there are tokens, in a store a piece of them at a time.
        words: keep the states of words in place of tokens, each the mean of its tokens: of what the
            tokenizer splits before it makes pieces (in scripts without spaces each piece), or what
            spaces separate where the corpus has `tags`. For languages without spaces also functions
            from a text to its words, as {"th": cut}.
        store: a path for a zarr store, or a URL that fsspec reaches, as s3://bucket/states.zarr
            (`pip install 'layerscope[remote]'`). An interrupted capture goes on where it stopped; a
            complete one with the same weights, corpus and settings is opened without running the
            model; one that does not match is made anew, and a warning says so. Under `torchrun` all
            processes must ask for it, and each runs a part of the texts; without a store each runs
            all.
        name: what the model is called in tables and messages; by default the name it was loaded by.
        progress: show a progress bar.
        wait: where another process writes into the store, wait until it is done, and say so; False
            to be refused.

    Returns:
        Representations: `hidden (layer, example, feature)` in float32, rows in the order of the
        corpus, with the settings, versions and fingerprints as attributes. Of a model for sequence
        classification also `logits (example, class)`, with the names of the classes, and
        `head_input (example, head_feature)`, what its last linear layer gets, where that is known;
        of one of several classes a text `several (example, choice)`; of a regression `numbers
        (example, number)`; of token classification `words (word, example, tag)`, the logits at the
        first token of each word, -inf where a text has no such word or is cut before it.
        With tokens or words also `tokens (layer, token, feature)` in float32, those of all texts
        end to end: of an example `token_count (example)` from `token_start (example)` on; and of
        each `token_place (token)` in its text and `token_code (token)`, which of `token_text` it is.

    Raises:
        InputError: before the first forward pass, where corpus, tokenizer, model and settings do
            not fit together; the store cannot be written to, or a process of another host writes
            into it; its disk has not room for the states; processes of `torchrun` do not see the
            same corpus, model, settings or disk, or not all of them ask for the store.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> corpus = probes.load_corpus("bundled", split="dev", languages=["en", "zh"])
        >>> reps = capture(model, tokenizer, corpus, progress=False)
        >>> reps.hidden.dims
        ('layer', 'example', 'feature')
    """
    ranks = ranks_of(store)
    corpus = check_corpus(corpus)
    if isinstance(model, OnnxModel):
        model.check(device, dtype)
        device = model.device
    pooling = named_pooling(pooling)
    vectors: dict[str, Any] = {"prompt": prompt, "dimensions": dimensions, "long_texts": long_texts, "overlap": overlap}
    where = check_settings(pooling, dtype, device, batch_size, batch_tokens, **vectors)
    name = name or name_of(model)
    where = place_of(model, device, where, name)
    if isinstance(model, PreTrainedModel | OnnxModel):
        check_fit(embedding_rows(model), tokenizer, name)
    how, declared = settle(
        model,
        name,
        pooling=pooling,
        max_length=max_length,
        prompt=prompt,
        normalize=normalize,
        dimensions=dimensions,
    )
    check_part(model, part, name)
    check_words(words, tokenizer, column_of(corpus, "language").tolist() if words else [])
    head = kept_head(model) if modules is None and part == "encoder" else None
    kept = "" if head is None else KEPT[head][0]
    check_windows(
        long_texts,
        pairs="text_pair" in corpus.column_names,
        decoder=part == "decoder",
        tokens=bool(tokens or words or isinstance(pooling, OfTokens)),
        of_words=kept == "words",
        name=name,
    )
    runner, taken = runner_of(model, modules, name, part)
    limit, texts, told = length_of(how, model, tokenizer, declared), corpus, None
    if part == "decoder" and "text_pair" in corpus.column_names:
        texts = corpus.remove_columns("text_pair")
        pairs = corpus.remove_columns("text").rename_column("text_pair", "text")
        told = tokenise(tokenizer, pairs, limit, model, name)
    cutting: dict[str, Any] = {"long_texts": long_texts, "overlap": overlap, "prompt": how.prompt or ""}
    read, long = read_texts(tokenizer, prompted(texts, how), limit, model, name, **cutting)
    places = word_places(tokenizer, prompted(texts, how), len(how.prompt or ""), limit) if kept == "words" else None
    made = pooling if isinstance(pooling, OfTokens) else None
    if made is not None and tokens:
        raise InputError(
            f"tokens=True keeps states of another width than {made.name} makes. Capture twice, or leave tokens out"
        )
    pooling = how.pooling
    units = None
    if tokens or words or made is not None:
        of, shown = (read, texts) if told is None else (told, pairs)
        units = units_of(
            of,
            tokenizer,
            prompted(shown, how) if told is None else shown,
            words or (made is not None and made.joins),
            start=len(how.prompt or "") if told is None else 0,
            prompt=leading(tokenizer, replace(how, pools_prompt=False)) if told is None else [],
            name=name,
        )
    unpooled = leading(tokenizer, how)
    if unpooled:
        for its in (read,) if long is None else (read, long.whole):
            its.special = counted(its.special, its.before_texts(unpooled), how)
        pooling = "mean" if pooling == "mean_all" else pooling
    if long is not None:
        long.weigh(pooling)
    attributes: dict[str, Any] = {
        "model": name,
        "weights": weights_fingerprint(model),
        "corpus": corpus_fingerprint(corpus),
        "tokenizer": tokenizer_fingerprint(tokenizer),
        "pooling": how.pooling if made is None else made.name,
        "pooling_means": POOLINGS[how.pooling] + (", the prompt excluded" if unpooled else "")
        if made is None or units is None
        else f"{made.means}; of {units.called}",
        "prompt": how.prompt,
        "lowercase": how.lowercase,
        "normalize": how.normalize,
        "dimensions": -1 if how.dimensions is None else how.dimensions,
        "declared": declared,
        "dtype": dtype if dtype == "bfloat16" else weights_dtype(model),
        "dequantized": getattr(getattr(model, "config", None), "dequantized", ""),
        "max_length": -1 if read.limit is None else read.limit,
        "texts_cut": read.cut,
        **({} if long is None else long.about()),
        "modules": list(modules or []),
        "part": part,
        "logits": kept if kept not in ("", "logits") else bool(kept),
        "tokens": "" if units is None or made is not None else units.called,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    # What the states depend on. Versions, batches and devices change them by rounding only.
    depends = (
        *(
            "weights",
            "corpus",
            "tokenizer",
            "pooling",
            "pooling_means",
            "prompt",
            "lowercase",
            "normalize",
            "dimensions",
        ),
        *("dtype", "max_length", "modules", "logits"),
        *(["part"] if part == "decoder" else []),
        *(["tokens"] if attributes["tokens"] else []),
        *(["long_texts", "overlap"] if long is not None else []),
    )
    digest = hashlib.sha256(json.dumps([attributes[k] for k in depends]).encode())
    if units is not None and words and words is not True:  # what a function makes of a text, no text says
        digest.update(units.of_token.tobytes())
    attributes["fingerprint"] = digest.hexdigest()[:16]
    if (made_of := layers_made_of(model)) is not None:
        attributes["made_of"] = made_of
    here = {"device": where.type, "batch_size": batch_size, "batch_tokens": batch_tokens}
    ranks.check_same(attributes | here)
    if read.cut and ranks.number == 0:
        warnings.warn(
            f"{name}: {read.cut} of {len(corpus)} texts are longer than {read.limit} tokens and are cut there. "
            "long_texts='windows' reads all of each",
            LayerscopeWarning,
            stacklevel=2,
        )
    target = None if store is None else store_at(address_of(store, "store"), attributes["fingerprint"])
    with nullcontext() if target is None else ranks.writing(target, wait=wait) as ready:
        if ready is not None:
            ready.attrs.pop("made_of", None)  # of this model, whose weights another folder may have as well
            return ready.assign_attrs({k: attributes[k] for k in ("model", "made_of") if k in attributes})
        if target is not None and modules is None:
            ranks.first(target.check_space, _expected(model, len(corpus), None if made else units))
        batches = Batches(read, batch_size, batch_tokens)
        answers = batches if told is None else Batches(told, batch_size, batch_tokens)
        bar = tqdm(total=len(corpus), desc=f"capture {name}", unit="text", disable=not progress or ranks.number > 0)
        with bar, evaluating(model, where), taken as states_of, torch.inference_mode(), precision(where, dtype):
            # Whether a mean is one of tokens at all is seen in the second call: the first batch of several texts.
            watched = iter([False, made is None and how.pooling in ("mean", "weighted", "mean_all")])
            found: dict[int, tuple[int, float]] = {}

            known: list[Any] = []

            def of_units(layers: Sequence[torch.Tensor], rows: np.ndarray) -> torch.Tensor:
                assert units is not None
                return units.states(layers, read if told is None else told, rows)[..., : how.dimensions]

            def pooled(rows: np.ndarray, begin: bool = False) -> dict[str, torch.Tensor]:
                inputs, mask = batches.tensors(rows, pooling, where)
                if part == "decoder":
                    given, mask = answers.tensors(rows, pooling, where)
                    inputs["decoder_input_ids"] = decoder_inputs(model, given["input_ids"])
                    inputs["decoder_attention_mask"] = given["attention_mask"]
                if long is not None:
                    mask = long.counted(rows, mask)
                layers, outputs = states_of(runner, inputs)
                if next(watched, False):
                    found.update(sinks(layers, mask))
                if places is not None:
                    outputs["words"] = scores_of_words(outputs["words"], places[rows], read.before(rows))
                if made is not None and units is not None:
                    states = of_units(layers, rows).double().cpu()
                    if begin:
                        return {"begun": states}
                    each = zip(states.numpy(), known, strict=True)
                    vectors = np.stack([made.vectors(x, units.counts[rows], of) for x, of in each])
                    hidden = finished(torch.from_numpy(vectors), replace(how, dimensions=None))
                else:
                    raw = torch.stack([pool(h, mask.to(h.device), name, i).to(where) for i, h in enumerate(layers)])
                    if long is not None:
                        long.begin(rows, {"hidden": raw} | outputs)
                    hidden = finished(raw, how)
                    if units is not None:
                        outputs["tokens"] = of_units(layers, rows)
                return {"hidden": hidden} | outputs

            def further(inputs: dict[str, torch.Tensor], mask: torch.Tensor) -> dict[str, torch.Tensor]:
                layers, outputs = states_of(runner, inputs)
                raw = [pool(h, mask.to(h.device), name, i).to(where) for i, h in enumerate(layers)]
                return {"hidden": torch.stack(raw)} | outputs

            if made is not None:  # from some of the texts, the same ones in whatever order
                some = np.argsort(names_of(corpus), kind="stable")[:_BEGUN]
                begun = [pooled(rows, begin=True)["begun"].numpy() for rows in batches.of(some)]
                known += made.begun(np.concatenate(begun, axis=1))
            first = pooled(batches.longest())
            # The examples are the last dimension but one of all of them.
            bounds = dict.fromkeys(first, np.arange(len(corpus) + 1))
            if units is not None and made is None:
                bounds["tokens"] = units.bounds
            sizes = {k: (*v.shape[:-2], int(bounds[k][-1]), v.shape[-1]) for k, v in first.items()}
            coordinates = {
                # Beside states in memory texts are small, and beside those in a store they are all that grows.
                c: of_column(corpus, c)
                if c in READ_LATER and target is not None
                else in_once("example", column_of(corpus, c))
                for c in corpus.column_names
            }
            dataset = xr.Dataset(coords={"layer": np.arange(sizes["hidden"][0])} | coordinates)
            if modules:
                dataset = dataset.assign_coords(module=("layer", as_strings(list(modules))))
            if kept and kept != "numbers":
                classes = as_strings(classes_of(model, sizes[kept][-1]))
                dataset = dataset.assign_coords({KEPT[str(head)][1]: classes})
            if units is not None and made is None:
                dataset = with_units(dataset, units)
            dataset.attrs = attributes

            def of_rows(start: int, stop: int) -> dict[str, np.ndarray]:
                counts = {k: int(of_k[stop] - of_k[start]) for k, of_k in bounds.items()}
                buffers = {k: np.empty((*size[:-2], counts[k], size[-1]), np.float32) for k, size in sizes.items()}
                for rows, states in landed((rows, pooled(rows)) for rows in batches.over(start, stop)):
                    for k, values in states.items():
                        at = units.at(rows, start) if units is not None and k == "tokens" else rows - start
                        buffers[k][..., at, :] = values
                    bar.update(len(rows))
                for row, sums in () if long is None else long.rest(start, stop, batches, where, further):
                    sums["hidden"] = finished(sums["hidden"], how)
                    for k, whole in sums.items():
                        buffers[k][..., row - start, :] = whole.numpy()
                return buffers

            if target is None:
                buffers = of_rows(0, len(corpus))
            else:
                # What is kept before it is written: enough rows to sort by length, whatever the size of the corpus.
                windows = _windows(bounds, sizes)
                arrays = ranks.open(target, dataset, sizes, len(windows))
                fill(ranks, target, arrays, windows, bounds, of_rows, bar)
        if found and ranks.number == 0:
            warnings.warn(f"{name}: {sinks_in_words(found)}", LayerscopeWarning, stacklevel=2)
        if target is not None:
            return ranks.finish(target)
        return dataset.assign({k: (DIMS[k], values) for k, values in buffers.items()})


def _windows(bounds: dict[str, np.ndarray], sizes: dict[str, tuple[int, ...]]) -> list[tuple[int, int]]:
    """From which row to which is written at a time: few enough for the memory, of tokens too."""
    rows = len(bounds["hidden"]) - 1
    of_tokens = bounds.get("tokens", np.zeros(rows + 1, int))
    most = _HELD // (4 * sizes["tokens"][0] * sizes["tokens"][2]) if "tokens" in sizes else 0
    out, start = [], 0
    while start < rows:
        within = int(np.searchsorted(of_tokens, of_tokens[start] + most, side="right")) - 1
        stop = min(max(start + 1, within), start + _WINDOW, rows)
        out.append((start, stop))
        start = stop
    return out


def _expected(model: Any, examples: int, units: Units | None) -> dict[str, tuple[int, ...]]:
    """The size of what is captured, as far as a configuration tells it before the first forward pass."""
    config = model.config.get_text_config()
    layers, width = (getattr(config, name, None) for name in ("num_hidden_layers", "hidden_size"))
    if not isinstance(layers, int) or not isinstance(width, int):
        return {}
    rows = {"hidden": examples} | ({} if units is None else {"tokens": int(units.bounds[-1])})
    return {k: (layers + 1, n, width) for k, n in rows.items()}
