"""What a checkpoint is and which of its parts are known, said before its weights are read."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from probes.errors import InputError
from probes.files import in_words
from probes.models.blocks import KINDS, count_of, depth_of, family_of, heads_of_site, sites_of
from probes.models.bundled import BUNDLED, bundled_folder
from probes.models.declared import stored_types
from probes.models.facts import classes_of, classifies, embedding_rows, input_limit, name_of
from probes.models.formats.coded import CODED, PLAIN, say_plain
from probes.models.formats.embedding import embedding_of
from probes.models.formats.extensions import apply_formats, promised, shaped_class
from probes.models.formats.onnx_model import OnnxModel
from probes.models.found import Found, find, is_onnx, model_class, unloadable
from probes.silence import quiet

_Row = tuple[str, str, str]


def check(
    model: PreTrainedModel | OnnxModel | str | Path,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    allow_pickle: bool = False,
) -> pd.DataFrame:
    """Say what a checkpoint is and which of its parts are known, without reading its weights.

    Args:
        model: a checkpoint ("bundled", a folder, a hub name), or a model.
        tokenizer: the tokenizer of a model that is given itself.
        allow_pickle: as in `load_checkpoint`.

    Returns:
        One row a fact: what is spoken of (`part`), what was `found`, and a `note`: what to know of
        it, or why something cannot be done and what can be done in its place.

    Raises:
        InputError: what `load_checkpoint` raises, as far as it is known without the weights.

    Example:
        >>> found = check("bundled").set_index("part")
        >>> found.loc["layers", "found"], found.loc["heads", "found"]
        ('6', '4 in each place')

    See also:
        `compress.check`, which says what every verb can do with it; `layerscope check` prints both.
    """
    headless: tuple[str, ...] = ()
    files: list[_Row] = []
    if isinstance(model, str | Path):
        model, found = outline(model, allow_pickle=allow_pickle)
        tokenizer, headless = found.tokenizer, found.headless
        files = [*_files(found)]
    rows = [*_what(model), *files, *_formats(model)]
    if tokenizer is not None:
        rows += _tokens(model, tokenizer)
    rows += [*_head(model, headless), _vectors(model), *_parts(model)]
    return pd.DataFrame(rows, columns=["part", "found", "note"])


def outline(source: str | Path, *, allow_pickle: bool = False) -> tuple[PreTrainedModel | OnnxModel, Found]:
    """Return the model of a checkpoint without numbers, and what was found of it.

    Raises:
        InputError: as `load_checkpoint`, but for weights that are missing inside their file.

    Example:
        >>> model, found = outline("bundled")
        >>> str(model.device), model.name_or_path
        ('meta', 'bundled')
    """
    if source in BUNDLED:
        with bundled_folder(source) as folder:
            model, found = outline(folder)
        model.name_or_path = model.config.name_or_path = str(source)  # not a path on this computer
        return model, found
    found = find(source, allow_pickle=allow_pickle)
    if is_onnx(Path(found.source)):
        return OnnxModel.from_pretrained(found.source), found
    config = copy.deepcopy(found.config)
    say_plain(config, "gguf" if found.gguf else "")
    if hasattr(config, PLAIN) and hasattr(config, CODED.key):
        delattr(config, CODED.key)
    made = shaped_class(model_class(config, found.name), config)
    make = made.from_config if hasattr(made, "from_config") else made._from_config
    try:
        with quiet(), torch.device("meta"), torch.random.fork_rng(devices=[]):
            model = make(config)
            apply_formats(model)
    except Exception as error:  # transformers raises several kinds for the same thing
        raise unloadable(found.name, error) from error
    model.name_or_path = model.config.name_or_path = found.name
    return model.eval(), found


def _what(model: Any) -> Iterator[_Row]:
    config = model.config.get_text_config()
    yield "model", f"{type(model).__name__} of {name_of(model)}", f"architecture {model.config.model_type!r}"
    if isinstance(model, OnnxModel):
        yield "size", f"{in_words(model.onnx.numel())}, {embedding_rows(model):,} embeddings", "runs in onnxruntime"
        return
    width = getattr(config, "hidden_size", None)
    count = sum(p.numel() for p in model.parameters())
    yield "size", f"{count:,} parameters" + ("" if width is None else f", {width:,} features a token"), ""
    states = "of the encoder" if model.config.is_encoder_decoder else "layer 0 is the embeddings"
    depth = getattr(config, "num_hidden_layers", None)
    if isinstance(depth, int):
        yield "states", f"{depth + 1} layers", states


def _files(found: Found) -> Iterator[_Row]:
    stored = stored_types(found.source)
    if found.gguf:
        yield "files", found.gguf, "GGUF; made plain numbers in float32 while it is loaded"
    elif stored is None:
        here = Path(found.source).exists()
        yield "files", "no safetensors" if here else "on the hub", "loaded in float32"
    else:
        names, types = stored
        kinds = ", ".join(f"{kind} ({count})" if len(types) > 1 else kind for kind, count in types.most_common())
        yield "files", ", ".join(names), f"tensors of {kinds}; loaded in float32"
    if found.adapter is not None:
        yield "adapter", str(found.adapter.folder), f"merged into {found.adapter.base}"


def _formats(model: Any) -> Iterator[_Row]:
    if codes := getattr(model.config, PLAIN, None):
        yield "format", f"codes of {codes}", "made plain numbers while they are loaded"
    for known in promised(model.config):
        yield "format", f"{known.has} (config.{known.key})", "loaded by probes.load_checkpoint"


def _tokens(model: Any, tokenizer: PreTrainedTokenizerBase) -> Iterator[_Row]:
    pads = "" if tokenizer.pad_token is not None else "no padding token"
    yield "tokenizer", f"{type(tokenizer).__name__}, {len(tokenizer):,} tokens", pads
    limit = input_limit(model, tokenizer, None)
    yield (
        "longest text",
        "any" if limit is None else f"{limit:,} tokens",
        "" if limit is None else "longer ones are cut",
    )


def _head(model: Any, headless: tuple[str, ...]) -> Iterator[_Row]:
    if headless:
        lost = f"{', '.join(headless[:3])} {'is' if len(headless) == 1 else 'are'} not in the weights"
        yield "head", "none", f"{lost}: what needs a head is not measured"
    elif classifies(model):
        names = classes_of(model, model.config.num_labels)
        yield "head", f"{len(names)} classes", ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
    else:
        bare = isinstance(model, OnnxModel) or model.base_model is model
        yield "head", "none" if bare else type(model).__name__, "no classes of texts: accuracy and loyalty are left out"


def _vectors(model: Any) -> _Row:
    said = embedding_of(model)
    differs = ", ".join(f"{k}={v!r}" for k, v in said.said().items() if k != "pooling")
    return "pooling", said.pooling, differs if said.said() else "none is declared"


def _parts(model: Any) -> Iterator[_Row]:
    for what in ("layers", *KINDS):
        try:
            if isinstance(model, OnnxModel):
                raise InputError("an exported model has no parts: give the model that it was made from")
            family = family_of(model, what)
            if what == "layers":
                yield what, str(depth_of(model, family)), "one block, run so many times" if family.shared else ""
                continue
            sites = sites_of(model, family, what)
            counts = Counter(map(count_of, sites))
            found = ", ".join(
                f"{n:,} in {'each place' if len(counts) == 1 else f'{places} places'}" for n, places in counts.items()
            )
            together = what == "heads" and any(heads_of_site(s)[0] != count_of(s) for s in sites)
            yield what, found, "heads that share key and value count as one" if together else ""
        except InputError as error:
            yield what, "not known", str(error)
