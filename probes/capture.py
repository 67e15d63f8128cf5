"""One forward pass -> pooled hidden states of every layer, to memory or to a zarr store that resumes and is reused."""

from __future__ import annotations

import hashlib
import inspect
import json
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
import transformers
import xarray as xr
import zarr
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from probes.checkpoint import check_fit, embedding_rows, name_of, weights_fingerprint
from probes.corpus import check_corpus, corpus_fingerprint
from probes.errors import InputError, LayerscopeWarning
from probes.onnx_model import OnnxModel
from probes.representations import BLOCK, as_strings, open_representations

POOLINGS = {
    "mean": "mean over the tokens of the text, special tokens and padding excluded",
    "mean_all": "mean over all attended tokens, special tokens included, padding excluded",
    "first": "state of the first token",
    "last": "state of the last attended token",
}
_DIMS = {
    "hidden": ("layer", "example", "feature"),
    "logits": ("example", "class"),
    "head_input": ("example", "head_feature"),
}
_WINDOW = _TOKENISED = 2 * BLOCK  # rows at a time


def capture(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    corpus: datasets.Dataset,
    *,
    modules: Sequence[str] | None = None,
    pooling: str = "mean",
    max_length: int | None = None,
    dtype: str = "float32",
    device: str | torch.device | None = None,
    batch_size: int = 64,
    batch_tokens: int = 4096,
    store: str | Path | None = None,
    name: str | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Run a corpus through a model once and keep one vector a layer and text.

    Layer 0 is the embeddings, layer l the output of block l; in a decoder the last one is after the final norm. An
    encoder-decoder gives the layers of its encoder. A head that classifies texts is run too and its outputs are kept;
    any other head is left out.

    Args:
        model: an encoder or decoder of transformers, an `OnnxModel` made of one, or any module whose `modules` are
            named.
        tokenizer: the tokenizer that belongs to it.
        corpus: as `load_corpus` gives it; rows with a `text_pair` are encoded as one sequence.
        modules: names from `model.named_modules()` whose outputs (batch, token, feature) are taken in place of the
            hidden states; they become layers 0, 1, ... and their names the coordinate `module`.
        pooling: "mean" over the text's own tokens (default), "mean_all" with special tokens, "first" or "last" token.
        max_length: longest text in tokens, special ones included; longer ones are cut. By default the smaller of the
            model's positions and the tokenizer's limit.
        dtype: "float32", or "bfloat16" for mixed precision (about twice as fast; cosine to float32 above 0.999).
        device: by default CUDA, MPS or the CPU, the first there is.
        batch_size, batch_tokens: most texts, and most tokens with padding, in one batch.
        store: a path for a zarr store. An interrupted capture goes on where it stopped; a complete one with the same
            weights, corpus and settings is opened without running the model; one that does not match is made anew,
            and a warning says so.
        name: what the model is called in tables and messages; by default the name it was loaded by.
        progress: show a progress bar.

    Returns:
        Representations: `hidden (layer, example, feature)` in float32, rows in the order of the corpus, with the
        settings, versions and fingerprints as attributes. Of a model for sequence classification also `logits
        (example, class)`, with the names of the classes, and `head_input (example, head_feature)`, what its last linear
        layer gets, where that is known.

    Raises:
        InputError: before the first forward pass, where corpus, tokenizer, model and settings do not fit together.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> corpus = probes.load_corpus("bundled", split="dev", languages=["en", "zh"])
        >>> reps = capture(model, tokenizer, corpus, progress=False)
        >>> reps.hidden.dims
        ('layer', 'example', 'feature')
    """
    corpus = check_corpus(corpus)
    if isinstance(model, OnnxModel):
        model.check(device, dtype)
        device = model.device
    where = check_settings(pooling, dtype, device, batch_size, batch_tokens)
    name = name or name_of(model)
    if isinstance(model, PreTrainedModel | OnnxModel):
        check_fit(embedding_rows(model), tokenizer, name)
    runner, taken = runner_of(model, modules, name)
    tokens = _tokenise(tokenizer, corpus, input_limit(model, tokenizer, max_length), model, name)
    attributes: dict[str, Any] = {
        "model": name,
        "weights": weights_fingerprint(model),
        "corpus": corpus_fingerprint(corpus),
        "tokenizer": _tokenizer_fingerprint(tokenizer),
        "pooling": pooling,
        "pooling_means": POOLINGS[pooling],
        "dtype": dtype if dtype == "bfloat16" else _weights_dtype(model),
        "max_length": -1 if tokens.limit is None else tokens.limit,
        "texts_cut": tokens.cut,
        "modules": list(modules or []),
        "logits": modules is None and classifies(model),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    # What the states depend on. Versions, batches and devices change them by rounding only.
    depends = ("weights", "corpus", "tokenizer", "pooling", "dtype", "max_length", "modules", "logits")
    attributes["fingerprint"] = hashlib.sha256(json.dumps([attributes[k] for k in depends]).encode()).hexdigest()[:16]
    if tokens.cut:
        warnings.warn(
            f"{name}: {tokens.cut} of {len(corpus)} texts are longer than {tokens.limit} tokens and are cut there",
            LayerscopeWarning,
            stacklevel=2,
        )
    target = None if store is None else _Store(Path(store), attributes["fingerprint"])
    if target is not None and target.complete():
        return open_representations(target.path).assign_attrs(model=name)

    batches = _Batches(tokens, batch_size, batch_tokens)
    with evaluating(model, where), taken as states_of, torch.inference_mode(), _precision(where, dtype):

        def pooled(rows: np.ndarray) -> dict[str, np.ndarray]:
            inputs, mask = batches.tensors(rows, pooling, where)
            layers, outputs = states_of(runner, inputs)
            hidden = torch.stack([_pool(h, mask, name, i) for i, h in enumerate(layers)])
            return {k: v.float().cpu().numpy() for k, v in ({"hidden": hidden} | outputs).items()}

        first = pooled(batches.longest())
        # The examples are the last dimension but one of all of them.
        sizes = {k: (*v.shape[:-2], len(corpus), v.shape[-1]) for k, v in first.items()}
        coordinates = {c: as_strings(list(corpus[c])) for c in corpus.column_names}
        dataset = xr.Dataset(
            coords={"layer": np.arange(sizes["hidden"][0])} | {k: ("example", v) for k, v in coordinates.items()}
        )
        if modules:
            dataset = dataset.assign_coords(module=("layer", as_strings(list(modules))))
        if "logits" in sizes:
            dataset = dataset.assign_coords({"class": as_strings(_classes(model, sizes["logits"][1]))})
        dataset.attrs = attributes
        # What is kept before it is written: enough rows to sort by length, whatever the size of the corpus.
        window = len(corpus) if target is None else _WINDOW
        arrays = {} if target is None else target.open(dataset, sizes, window)
        bar = tqdm(total=len(corpus), desc=f"capture {name}", unit="text", disable=not progress)
        for number, start in enumerate(range(0, len(corpus), window)):
            stop = min(start + window, len(corpus))
            if target is not None and target.done(number):
                bar.update(stop - start)
                continue
            buffers = {k: np.empty((*size[:-2], stop - start, size[-1]), np.float32) for k, size in sizes.items()}
            for rows in batches.over(start, stop):
                for k, values in pooled(rows).items():
                    buffers[k][..., rows - start, :] = values
                bar.update(len(rows))
            if target is not None:
                for k, array in arrays.items():
                    array[..., start:stop, :] = buffers[k]
                target.mark(number)
        bar.close()
    if target is not None:
        target.finish()
        return open_representations(target.path)
    return dataset.assign({k: (_DIMS[k], values) for k, values in buffers.items()})


def check_settings(
    pooling: str = "mean",
    dtype: str = "float32",
    device: str | torch.device | None = None,
    batch_size: int = 64,
    batch_tokens: int = 4096,
    **_: object,
) -> torch.device:
    """Return the device to run on; raise `InputError` where a setting of `capture` that needs no model is wrong."""
    if pooling not in POOLINGS:
        raise InputError(f"pooling={pooling!r} is not known; choose one of {', '.join(map(repr, POOLINGS))}")
    if dtype not in ("float32", "bfloat16"):
        raise InputError(f"dtype={dtype!r} is not known; choose 'float32' or 'bfloat16'")
    if batch_size < 1 or batch_tokens < 1:
        raise InputError(f"expected batch_size and batch_tokens of at least 1; found {batch_size} and {batch_tokens}")
    return _device(device)


def check_length(max_length: int | None, positions: int | None, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the longest input in tokens: the smaller of positions and the tokenizer's limit, None without one."""
    limits = [tokenizer.model_max_length] if tokenizer.model_max_length < 10**9 else []
    if positions is not None and positions > 0:
        limits.append(positions)
    limit = min(limits, default=None)
    if max_length is not None and (max_length < 1 or (limit is not None and max_length > limit)):
        raise InputError(
            f"max_length={max_length}: expected "
            + ("at least 1" if limit is None else f"1 to {limit}, the most tokens the model and its tokenizer take")
        )
    return max_length or limit


def batches_of(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: datasets.Dataset,
    name: str,
    *,
    max_length: int | None = None,
    device: str | torch.device | None = None,
    batch_size: int = 64,
    batch_tokens: int = 4096,
) -> tuple[torch.device, Callable[[], Iterator[tuple[np.ndarray, dict[str, torch.Tensor]]]]]:
    """Return the device to run on, and what yields the rows and inputs of one batch after another, as `capture` does.

    For probes that need more of a forward pass than its hidden states.
    """
    where = check_settings(device=device, batch_size=batch_size, batch_tokens=batch_tokens)
    tokens = _tokenise(tokenizer, corpus, input_limit(model, tokenizer, max_length), model, name)
    batches = _Batches(tokens, batch_size, batch_tokens)
    return where, lambda: ((rows, batches.tensors(rows, "mean", where)[0]) for rows in batches.over(0, len(corpus)))


# --- what is run, and which states are taken -------------------------------------------------------------------------

# The states of every layer (batch, token, feature), and what the head gives for every text.
_States = Callable[
    [Callable[..., object], dict[str, torch.Tensor]], tuple[Sequence[torch.Tensor], dict[str, torch.Tensor]]
]


def runner_of(
    model: torch.nn.Module, modules: Sequence[str] | None, name: str
) -> tuple[Callable[..., object], AbstractContextManager[_States]]:
    """Return what to call with the inputs, and a context that gives the function that calls it and collects states."""
    if isinstance(model, OnnxModel):
        if modules is not None:
            raise InputError(f"{name}: an exported model has no modules to name, only its layers. Leave modules= out")
        return model, nullcontext(_exported)
    if modules is not None:
        known = dict(model.named_modules())
        unknown = [m for m in modules if m not in known]
        if unknown or not modules:
            raise InputError(
                f"{name}: no module named {', '.join(map(repr, unknown)) or '(none given)'}; "
                f"it has {', '.join(list(known)[1:8])}, ... (all of them: model.named_modules())"
            )
        encodes = isinstance(model, PreTrainedModel) and model.config.is_encoder_decoder
        return _encoder(model) if encodes else model, _hooked([known[m] for m in modules], list(modules), name)
    if not isinstance(model, PreTrainedModel):
        raise InputError(
            f"{name}: {type(model).__name__} is no model of transformers, so its layers are not known. "
            "Name them with modules=[...], from model.named_modules()"
        )
    body = body_of(model)
    return (model if classifies(model) and not hasattr(model, "score") else body), _layers(model, body, name)


def _exported(
    run: Callable[..., object], inputs: dict[str, torch.Tensor]
) -> tuple[Sequence[torch.Tensor], dict[str, torch.Tensor]]:
    """What `_layers` collects, of a model whose outputs it is."""
    given: Any = run(**inputs)
    return given.hidden_states, {k: given[k] for k in ("logits", "head_input") if k in given}


def classifies(model: Any) -> bool:
    """Whether a model, or the model of a configuration, has a head that puts every text into one class."""
    if isinstance(model, OnnxModel):
        return "logits" in model.outputs
    config = getattr(model, "config", model)
    if isinstance(model, torch.nn.Module):
        kinds = [c.__name__ for c in type(model).__mro__]
    else:
        kinds = getattr(config, "architectures", None) or []
    return (
        any(k.endswith("ForSequenceClassification") for k in kinds)
        and not getattr(config, "is_encoder_decoder", False)
        and getattr(config, "num_labels", 0) > 1  # one is a regression
        and getattr(config, "problem_type", None) in (None, "single_label_classification")
    )


def _classes(model: Any, count: int) -> list[str]:
    names = getattr(model.config, "id2label", None) or {}
    return [str(names.get(i, i)) for i in range(count)]


@contextmanager
def _layers(model: PreTrainedModel, body: Any, name: str) -> Iterator[_States]:
    """Collect all hidden states, and of a model that classifies the logits and what its last linear layer gets."""
    expected = getattr(body.config, "num_hidden_layers", None)
    has_head = classifies(model)
    # A decoder's head is linear, and looks for the last token by the padding's id, which another may have: it is put on
    # the last attended state here. Of any other head the linear layers are watched, and the one that gives the logits
    # is known by that.
    score: Any = getattr(model, "score", None) if has_head else None
    within = set(body.modules())
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def hook(_module: torch.nn.Module, inputs: Sequence[torch.Tensor], output: torch.Tensor) -> None:
        seen.append((inputs[0], output))

    watched = [m for m in model.modules() if has_head and m not in within and hasattr(m, "out_features")]
    handles = [] if score is not None else [m.register_forward_hook(hook) for m in watched]

    def states_of(
        run: Callable[..., object], inputs: dict[str, torch.Tensor]
    ) -> tuple[Sequence[torch.Tensor], dict[str, torch.Tensor]]:
        seen.clear()
        given = run(**inputs, output_hidden_states=True, return_dict=True)
        states: Sequence[torch.Tensor] = getattr(given, "hidden_states", None) or ()
        if expected is not None and len(states) != expected + 1:
            raise InputError(
                f"{name}: expected {expected + 1} hidden states (the embeddings and {expected} layers, as its config "
                f"says), {len(states)} came back. If a layer was replaced after the model had run, save and reload it"
            )
        widths = [int(state.shape[-1]) for state in states]  # tensors, while a model is traced
        if len(set(widths)) > 1:
            raise InputError(
                f"{name}: its hidden states differ in width ({widths}), so they are no one space. Capture the layers "
                "of one width by name, with modules=[...], from model.named_modules()"
            )
        if callable(score):
            last = inputs["attention_mask"].sum(1) - 1
            taken: torch.Tensor = states[-1][torch.arange(last.shape[0], device=last.device), last]
            return states, {"logits": score(taken), "head_input": taken}
        if not has_head:
            return states, {}
        logits: torch.Tensor = given.logits  # type: ignore[attr-defined]
        sources = [x for x, y in seen if x.ndim == 2 and y.shape == logits.shape and torch.equal(y, logits)]
        return states, {"logits": logits} | ({"head_input": sources[-1]} if sources else {})

    try:
        yield states_of
    finally:
        for handle in handles:
            handle.remove()


def body_of(model: Any) -> Any:
    """Return a model without its head, and of an encoder-decoder the encoder."""
    if isinstance(model, OnnxModel):
        raise InputError(
            f"{model.config.name_or_path or 'the model'} was exported to ONNX and has no modules to look into. Give a "
            "model of transformers"
        )
    return _encoder(model) if model.config.is_encoder_decoder else model.base_model


def _encoder(model: Any) -> Any:
    return model.base_model.get_encoder()


@contextmanager
def _hooked(modules: list[torch.nn.Module], names: list[str], name: str) -> Iterator[_States]:
    """Collect the outputs of modules by forward hooks that are removed again."""
    found: dict[int, torch.Tensor] = {}

    def keep(i: int) -> Callable[..., None]:
        def hook(_module: torch.nn.Module, _inputs: object, output: object) -> None:
            found[i] = output[0] if isinstance(output, tuple | list) else output  # type: ignore[assignment]

        return hook

    def states_of(
        run: Callable[..., object], inputs: dict[str, torch.Tensor]
    ) -> tuple[Sequence[torch.Tensor], dict[str, torch.Tensor]]:
        found.clear()
        _call(run, inputs)
        for i, module in enumerate(names):
            state = found.get(i)
            if not isinstance(state, torch.Tensor) or state.ndim != 3 or state.shape[:2] != inputs["input_ids"].shape:
                shape = tuple(state.shape) if isinstance(state, torch.Tensor) else type(state).__name__
                raise InputError(
                    f"{name}: module {module!r}: expected an output of shape (batch, token, feature) for inputs of "
                    f"shape {tuple(inputs['input_ids'].shape)}, found {shape}. Choose another module"
                )
        widths = {names[i]: found[i].shape[-1] for i in found}
        if len(set(widths.values())) > 1:
            raise InputError(f"{name}: the modules differ in width ({widths}). Capture them one width at a time")
        return [found[i] for i in range(len(names))], {}

    handles = [module.register_forward_hook(keep(i)) for i, module in enumerate(modules)]
    try:
        yield states_of
    finally:
        for handle in handles:
            handle.remove()


def _call(run: Callable[..., object], inputs: dict[str, torch.Tensor]) -> object:
    parameters = inspect.signature(getattr(run, "forward", run)).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return run(**inputs)
    known = {k: v for k, v in inputs.items() if k in parameters}
    return run(**known) if "input_ids" in known else run(inputs["input_ids"], **known)


def _pool(states: torch.Tensor, weights: torch.Tensor, name: str, layer: int) -> torch.Tensor:
    """Weighted sum over the tokens: (batch, token, feature), (batch, token) -> (batch, feature), in float32."""
    if states.shape[:2] != weights.shape:
        raise InputError(
            f"{name}, layer {layer}: expected states of shape {(*weights.shape, 'features')}, "
            f"found {tuple(states.shape)}"
        )
    # Zeroed before the product: a padded position may hold NaN or Inf, and 0 times that is NaN.
    states = states.float().masked_fill((weights == 0).unsqueeze(-1), 0.0)
    return torch.bmm(weights.unsqueeze(1), states).squeeze(1)


# --- tokens and batches ----------------------------------------------------------------------------------------------


@dataclass
class _Tokens:
    """The corpus as token ids, once: for every input of the model all rows end to end, and where each row starts."""

    inputs: dict[str, np.ndarray]
    special: np.ndarray
    lengths: np.ndarray
    padding: dict[str, int]
    limit: int | None
    cut: int

    def __post_init__(self) -> None:
        self.starts = np.cumsum(self.lengths) - self.lengths

    def padded(self, values: np.ndarray, rows: np.ndarray, padding: int) -> torch.Tensor:
        """Return some rows of an input side by side: (row, token)."""
        column = np.arange(self.lengths[rows].max())
        inside = column < self.lengths[rows, None]
        out = np.full(inside.shape, padding, np.int64)
        out[inside] = values[(self.starts[rows, None] + column)[inside]]
        return torch.from_numpy(out)


def input_limit(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, max_length: int | None) -> int | None:
    """Return the most tokens that a model and its tokenizer take, or as many as asked for; None without a limit."""
    return check_length(max_length, positions_of(model), tokenizer)


def positions_of(model: torch.nn.Module) -> int | None:
    """Return the most tokens that a model takes; None where that is not known or without end."""
    if isinstance(model, OnnxModel):
        return model.positions
    positions = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    table = next((m for n, m in model.named_modules() if n.endswith("position_embeddings")), None)
    if isinstance(table, torch.nn.Embedding):
        # RoBERTa counts positions from its padding index on, so two of its 514 are never used.
        offset = 0 if table.padding_idx is None else table.padding_idx + 1
        positions = table.num_embeddings - offset
    return positions


def _tokenise(
    tokenizer: PreTrainedTokenizerBase, corpus: datasets.Dataset, limit: int | None, model: torch.nn.Module, name: str
) -> _Tokens:
    pieces = [
        _encode(tokenizer, corpus.select(range(start, min(start + _TOKENISED, len(corpus)))), limit)
        for start in range(0, len(corpus), _TOKENISED)
    ]
    inputs = {key: np.concatenate([piece[key] for piece in pieces]) for key in pieces[0]}
    lengths, special, cut = inputs.pop("lengths"), inputs.pop("special_tokens_mask"), int(inputs.pop("cut").sum())
    if limit is not None and lengths.max() > limit:  # a tokenizer does not cut below its special tokens
        raise InputError(f"{name}: at most {limit} tokens leave no room for special tokens. Raise max_length")
    own = np.bincount(np.repeat(np.arange(len(lengths)), lengths), 1 - special, minlength=len(lengths))
    if not own.all():
        bare = np.flatnonzero(own == 0)
        row = corpus[int(bare[0])]
        raise InputError(
            f"{name}: the text of row {bare[0]} (id {row['id']!r}, language {row['language']!r}) has no tokens of its "
            f"own{f' within {limit} tokens' if lengths[bare[0]] == limit else ''}; {len(bare)} such in all. "
            "Drop it, or raise max_length"
        )
    highest = int(inputs["input_ids"].max())
    if isinstance(model, PreTrainedModel | OnnxModel) and highest >= embedding_rows(model):
        raise InputError(
            f"{name}: tokenizer and model do not fit: token {highest} occurs, but there are {embedding_rows(model)} "
            "embeddings. Load the tokenizer that the model was trained with"
        )
    pad = tokenizer.pad_token_id
    if pad is None:
        pad = getattr(getattr(model, "config", None), "pad_token_id", None)
        pad = 0 if pad is None or pad < 0 else pad  # the configurations of older decoders say -1 for none
    padding = {key: pad if key == "input_ids" else 0 for key in inputs}
    return _Tokens(inputs, special, lengths, padding, limit, cut)


def _encode(tokenizer: PreTrainedTokenizerBase, part: datasets.Dataset, limit: int | None) -> dict[str, np.ndarray]:
    """Token ids and what goes with them, rows end to end: lists of lists take ten times the memory."""

    def encode(rows: datasets.Dataset, truncation: bool) -> dict[str, list[list[int]]]:
        return dict(
            tokenizer(
                list(rows["text"]),
                list(rows["text_pair"]) if "text_pair" in rows.column_names else None,
                truncation=truncation,
                max_length=limit if truncation else None,
                padding=False,
                return_attention_mask=False,
                return_special_tokens_mask=True,
                verbose=False,
            )
        )

    encoded = encode(part, False)
    long = [] if limit is None else [i for i, ids in enumerate(encoded["input_ids"]) if len(ids) > limit]
    if long:
        for key, values in encode(part.select(long), True).items():
            for row, value in zip(long, values, strict=True):
                encoded[key][row] = value
    lengths = np.array([len(ids) for ids in encoded["input_ids"]])
    flat = {key: np.fromiter(chain.from_iterable(values), np.int32) for key, values in encoded.items()}
    return flat | {"lengths": lengths, "cut": np.array([len(long)])}


@dataclass
class _Batches:
    tokens: _Tokens
    size: int
    budget: int

    def longest(self) -> np.ndarray:
        """The row with the most tokens: if memory is short, it is short here and not after an hour."""
        return np.array([int(self.tokens.lengths.argmax())])

    def over(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """Yield the rows start to stop, longest first, so that those of a batch have nearly the same length."""
        lengths = self.tokens.lengths[start:stop]
        order = np.argsort(-lengths, kind="stable") + start
        while len(order):
            longest = int(self.tokens.lengths[order[0]])
            count = max(1, min(self.size, self.budget // longest))
            yield order[:count]
            order = order[count:]

    def tensors(
        self, rows: np.ndarray, pooling: str, device: torch.device
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Return the padded inputs of some rows, and the weight of every token in its text's vector."""
        tokens = self.tokens
        inputs = {key: tokens.padded(values, rows, tokens.padding[key]) for key, values in tokens.inputs.items()}
        lengths = torch.from_numpy(tokens.lengths[rows])
        width = int(lengths.max())
        attention = (torch.arange(width) < lengths[:, None]).long()
        if pooling == "mean":
            weights = 1.0 - tokens.padded(tokens.special, rows, 1).float()
        elif pooling == "mean_all":
            weights = attention.float()
        else:
            at = torch.zeros_like(lengths) if pooling == "first" else lengths - 1
            weights = torch.nn.functional.one_hot(at, width).float()
        weights = weights / weights.sum(1, keepdim=True)
        inputs["attention_mask"] = attention
        return {k: v.to(device) for k, v in inputs.items()}, weights.to(device)


# --- where and how it runs -------------------------------------------------------------------------------------------


def _device(wanted: str | torch.device | None) -> torch.device:
    if wanted is not None:
        if str(wanted).startswith("meta"):
            raise InputError("device='meta' holds no numbers; choose 'cuda', 'mps' or 'cpu'")
        try:
            return torch.empty(0, device=wanted).device
        except (RuntimeError, AssertionError) as error:  # unknown to torch, or not on this machine
            raise InputError(f"device={str(wanted)!r} cannot be used here ({str(error).splitlines()[0]})") from error
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _precision(device: torch.device, dtype: str) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == "bfloat16")


def _weights_dtype(model: torch.nn.Module) -> str:
    return str(next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)).removeprefix(
        "torch."
    )


@contextmanager
def evaluating(model: torch.nn.Module, device: torch.device) -> Iterator[None]:
    """Run in evaluation mode on a device, and leave the model as it was found."""
    training = [module for module in model.modules() if module.training]
    home = next((p.device for p in model.parameters()), device)
    model.eval()
    try:
        if home != device:
            model.to(device)
        yield
    finally:
        if home != device:
            model.to(home)
        for module in training:
            module.training = True


def _tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    # Truncation and padding are set by every call; what is left says how a text becomes tokens.
    state = json.loads(backend.to_str()) if backend is not None else {"vocabulary": tokenizer.get_vocab()}
    state = {k: v for k, v in state.items() if k not in ("truncation", "padding")}
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]


# --- the store -------------------------------------------------------------------------------------------------------


class _Store:
    """A zarr store that grows beside its place and is moved there when it is whole.

    Rows are captured a window at a time; `done` marks the windows that are written, so that an interrupted capture
    goes on with the first that is not.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path = path
        self.partial = path.with_name(path.name + ".partial")
        self.fingerprint = fingerprint
        # What an interruption leaves may lack its attributes still, but nothing that is no zarr store is of our making.
        begun = (self.partial / "zarr.json").is_file() or (self.partial.is_dir() and not any(self.partial.iterdir()))
        for place, ours in ((path, _attributes(path) is not None), (self.partial, begun)):
            if place.exists() and not ours:
                raise InputError(
                    f"{place} exists and is no store of Representations; it is left as it is. "
                    "Choose another path for store="
                )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{path} cannot be written to ({error.strerror}). Choose another path for store="
            ) from error

    def complete(self) -> bool:
        attributes = _attributes(self.path)
        if attributes is None:
            return False
        if attributes["fingerprint"] == self.fingerprint:
            return True
        warnings.warn(
            f"{self.path} was captured from another model, corpus or settings; it is made anew",
            LayerscopeWarning,
            stacklevel=4,
        )
        return False

    def open(self, dataset: xr.Dataset, sizes: Mapping[str, tuple[int, ...]], window: int) -> dict[str, zarr.Array]:
        """Return the arrays to write into, with what an interrupted capture has written already."""
        attributes = _attributes(self.partial)
        examples = sizes["hidden"][1]
        windows = -(-examples // window)
        if attributes is not None and attributes["fingerprint"] == self.fingerprint:
            group = zarr.open_group(self.partial, mode="r+")
            done, begun = group.get("done"), {k: group.get(k) for k in sizes}
            there = {k: a for k, a in begun.items() if isinstance(a, zarr.Array) and a.shape == sizes[k]}
            if isinstance(done, zarr.Array) and done.shape == (windows,) and len(there) == len(sizes):
                self._done = done
                return there
        if self.partial.exists():
            shutil.rmtree(self.partial)
        dataset.to_zarr(self.partial, zarr_format=3, consolidated=False)
        group = zarr.open_group(self.partial, mode="r+")
        arrays = {
            k: group.create_array(
                k,
                shape=size,
                dtype="float32",
                fill_value=float("nan"),  # so that a file that gets lost is not read as zeros
                chunks=(*(1 for _ in size[:-2]), min(BLOCK, examples), size[-1]),
                dimension_names=_DIMS[k],
                compressors=None,  # floats of a network do not shrink
            )
            for k, size in sizes.items()
        }
        self._done = group.create_array(
            "done", shape=(windows,), dtype="uint8", chunks=(1,), dimension_names=("window",)
        )
        return arrays

    def done(self, window: int) -> bool:
        return bool(self._done[window])

    def mark(self, window: int) -> None:
        self._done[window] = 1

    def finish(self) -> None:
        del zarr.open_group(self.partial, mode="r+")["done"]
        if self.path.exists():
            shutil.rmtree(self.path)
        self.partial.replace(self.path)


def _attributes(path: Path) -> dict | None:
    """The attributes of a store of Representations, None where there is no such store."""
    try:
        attributes = dict(zarr.open_group(path, mode="r").attrs)
    except Exception:  # zarr raises several kinds for a folder that is no store of its
        return None
    return attributes if "fingerprint" in attributes else None
