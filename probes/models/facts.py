"""What a model is: its name, classes, positions, body and whether it fits its tokenizer."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from probes.errors import InputError, LayerscopeWarning
from probes.forms import check_form
from probes.models.formats.onnx_model import OnnxModel


def name_of(model: torch.nn.Module) -> str:
    """What a model is called in tables and messages: the name it was loaded by, or its kind."""
    return getattr(getattr(model, "config", None), "_name_or_path", "") or type(model).__name__


def check_fit(rows: int, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Raise `InputError` where the tokenizer has more tokens than a model has embeddings; warn
    where far fewer.
    """
    tokens = len(tokenizer)
    if tokens > rows:
        raise InputError(
            f"{name}: tokenizer and model do not fit: {tokens:,} tokens, but {rows:,} embeddings. "
            "Load the tokenizer that the model was trained with"
        )
    if tokens < 0.9 * rows:
        warnings.warn(
            f"{name}: the tokenizer has {tokens:,} tokens and the model {rows:,} embeddings: do they belong together?",
            LayerscopeWarning,
            stacklevel=3,
        )


def layers_made_of(model: torch.nn.Module | OnnxModel) -> list[int] | None:
    """Return the layers, from 0, that a compression left of the model that all began with; None
    where none was taken out.

    Warns:
        LayerscopeWarning: they are not as many as the model has, so that they are not its own.
    """
    config = getattr(model, "config", None)
    done = getattr(config, "compression", None)
    made_of = done.get("made_of") if isinstance(done, dict) else None
    if made_of is not None:
        check_form(made_of, [range(10**6)], "config.json: compression: made_of")
        depth = getattr(config, "num_hidden_layers", None)
        if isinstance(depth, int) and depth != len(made_of):
            name = getattr(config, "_name_or_path", "") or type(model).__name__
            warnings.warn(
                f"{name}: its configuration says which {len(made_of)} layers were left "
                f"(compression: made_of), and it has {depth}: they are compared by their share of the depth",
                LayerscopeWarning,
                stacklevel=3,
            )
            return None
    return made_of


def embedding_rows(model: PreTrainedModel | OnnxModel) -> int:
    """Return how many tokens a model has an embedding for; raise `InputError` where it reads no
    text.
    """
    if isinstance(model, OnnxModel):
        return model.embeddings
    check_reads_text(model)
    weight = model.get_input_embeddings().weight
    assert isinstance(weight, torch.Tensor)
    return len(weight)


def check_reads_text(model: PreTrainedModel) -> None:
    """Raise `InputError` where a model reads pictures or sounds, and say which of its parts read
    text.
    """
    taken = inspect.signature(model.forward).parameters
    other = next((k for k in taken if k in ("pixel_values", "input_features", "input_values")), None)
    # Of a pair of encoders, as CLIP, each needs its own kind of input.
    if other is None or ("input_ids" in taken and not hasattr(model, "get_text_features")):
        return
    parts = [
        name
        for name, module in model.named_modules()
        if name and isinstance(module, PreTrainedModel) and "input_ids" in inspect.signature(module.forward).parameters
    ]
    instead = (
        f"Give the part that reads text: {', '.join(f'model.{name}' for name in parts[:2])}"
        if parts
        else "Give a model that reads text"
    )
    raise InputError(f"{name_of(model)}: {type(model).__name__} reads {other}, not text alone. {instead}")


def check_length(max_length: int | None, positions: int | None, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the longest input in tokens: the smaller of positions and the tokenizer's limit, None
    without one.
    """
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


def classifies(model: Any) -> bool:
    """Whether a model, or the model of a configuration, has a head that puts every text into one
    class.
    """
    if isinstance(model, OnnxModel):
        return "logits" in model.outputs
    config = getattr(model, "config", model)
    if isinstance(model, torch.nn.Module):
        kinds = [c.__name__ for c in type(model).__mro__]
    else:
        kinds = getattr(config, "architectures", None) or []
    return (
        any(k.endswith("ForSequenceClassification") for k in kinds)
        and getattr(config, "num_labels", 0) > 1  # one is a regression
        and getattr(config, "problem_type", None) in (None, "single_label_classification")
    )


def predicted_tokens(model: Any) -> str:
    """Return which tokens a model, or the model of a configuration, predicts: the "next" one,
    "masked" ones, or "" for none.

    Example:
        >>> import probes
        >>> predicted_tokens(probes.load_checkpoint("bundled-decoder")[0])
        'next'
    """
    config = getattr(model, "config", model)
    if isinstance(model, OnnxModel) or getattr(config, "is_encoder_decoder", False):
        return ""
    kinds = (
        {type(model).__name__}
        if isinstance(model, torch.nn.Module)
        else {*(getattr(config, "architectures", None) or [])}
    )
    if kinds & {*MODEL_FOR_MASKED_LM_MAPPING_NAMES.values()}:
        return "masked"
    # An encoder may be loaded with the head of a decoder, and still looks ahead.
    looks_ahead = getattr(config, "is_decoder", None) is False
    return "next" if kinds & {*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()} and not looks_ahead else ""


def head_of(model: torch.nn.Module) -> str | None:
    """Return what the head of a model says of a text: "classes" (one of them), "several" classes, a
    number ("numbers"), a class for each of its "words", or its "tokens"; None without such a head.

    Example:
        >>> import probes
        >>> head_of(probes.load_checkpoint("bundled")[0])
        'classes'
    """
    said = _head([c.__name__ for c in type(model).__mro__], getattr(model, "config", None))
    if said is not None:
        return said
    head = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    return None if head is None else "tokens"


def kept_head(model: Any) -> str | None:
    """Return the kind of the head of a model, or of the model of a configuration, that is run when
    its states are captured, as `head_of` names it; None without one that says something of texts
    or words.

    Example:
        >>> import probes
        >>> kept_head(probes.load_checkpoint("bundled")[0].config)
        'classes'
    """
    if classifies(model):
        return "classes"
    if isinstance(model, OnnxModel):
        return None
    config = getattr(model, "config", model)
    kinds = [c.__name__ for c in type(model).__mro__] if isinstance(model, torch.nn.Module) else None
    head = _head(kinds or getattr(config, "architectures", None) or [], config)
    return head if head in ("numbers", "several", "words") else None


def _head(kinds: Sequence[str], config: Any) -> str | None:
    """What a head of texts or words says, by the names of its class and its bases."""
    if any(k.endswith("ForTokenClassification") for k in kinds):
        return "words"
    if not any(k.endswith("ForSequenceClassification") for k in kinds):
        return None
    problem = getattr(config, "problem_type", None)
    if problem == "multi_label_classification":
        return "several"
    return "numbers" if problem == "regression" or getattr(config, "num_labels", 0) == 1 else "classes"


def classes_of(model: Any, count: int) -> list[str]:
    """Return the names of so many classes of a model, their numbers where they have none."""
    names = getattr(model.config, "id2label", None) or {}
    return [str(names.get(i, i)) for i in range(count)]


def body_of(model: Any) -> Any:
    """Return a model without its head, and of an encoder-decoder the encoder."""
    if isinstance(model, OnnxModel):
        raise InputError(
            f"{model.config.name_or_path or 'the model'} was exported to ONNX and has no modules to look into. Give a "
            "model of transformers"
        )
    return encoder_of(model) if model.config.is_encoder_decoder else model.base_model


def encoder_of(model: Any) -> Any:
    """Return the encoder of an encoder-decoder."""
    return model.base_model.get_encoder()


def input_limit(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, max_length: int | None) -> int | None:
    """Return the most tokens that a model and its tokenizer take, or as many as asked for; None
    without a limit.
    """
    return check_length(max_length, positions_of(model), tokenizer)


def positions_of(model: torch.nn.Module) -> int | None:
    """Return the most tokens that a model takes; None where that is not known or without end."""
    if isinstance(model, OnnxModel):
        return model.positions
    config = getattr(model, "config", None)
    positions = getattr(config, "max_position_embeddings", getattr(config, "max_encoder_position_embeddings", None))
    table = next((m for n, m in model.named_modules() if n.endswith("position_embeddings")), None)
    if isinstance(table, torch.nn.Embedding):
        # RoBERTa counts positions from its padding index on, so two of its 514 are never used.
        offset = 0 if table.padding_idx is None else table.padding_idx + 1
        positions = table.num_embeddings - offset
    return None if positions is None or positions < 1 else positions  # XLNet says -1 for none


def weights_dtype(model: torch.nn.Module) -> str:
    """Return the name of the type that a model's weights have, as "float32"."""
    return str(next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)).removeprefix(
        "torch."
    )


_TYPES = ("xlnet", "xlm", "flaubert")  # whose configurations do not count the types that they take


def types_tokens(model: PreTrainedModel) -> bool:
    """Whether a model tells the two texts of a pair apart: DistilBERT does not, its teacher may.

    Of one type, or none, there is nothing to tell, whatever a tokenizer says (DeBERTa-v3). GPT-2
    would take types for words.
    """
    types = getattr(model.config, "type_vocab_size", None)
    taken = "token_type_ids" in inspect.signature(model.forward).parameters
    return taken and (model.config.model_type in _TYPES if types is None else types > 1)


def size_of(model: PreTrainedModel, what: str) -> int:
    """Return a number of the configuration of the model that reads text, as "hidden_size"."""
    return int(getattr(model.config.get_text_config(), what))
