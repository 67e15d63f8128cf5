"""A checkpoint by path or hub name -> model and tokenizer, safely: safetensors only, no remote code, checked to fit."""

from __future__ import annotations

import hashlib
import json
import warnings
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from probes.errors import InputError, LayerscopeWarning
from probes.shapes import with_shapes

# What a configuration says of where and when a model was saved, not of what it computes.
_NOT_COMPUTED = {
    "_name_or_path",
    "transformers_version",
    "architectures",
    "dtype",
    "compression",
    "id2label",
    "label2id",
}


def load_checkpoint(
    source: str | Path, *, allow_pickle: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a transformers checkpoint, with the head it was saved with, in float32 on the CPU, ready for evaluation.

    Args:
        source: "bundled", a folder, or a name on the Hugging Face hub.
        allow_pickle: also read weights from pickle files (`pytorch_model.bin`). A pickle can run any code when it is
            opened: ask for it only where you trust who made it.

    Returns:
        The model in evaluation mode, and its tokenizer. Code from the checkpoint is never run.

    Raises:
        InputError: the folder holds no model; its weights are pickles only; weights of the encoder are missing; the
            tokenizer is missing or does not fit the model.

    Example:
        >>> model, tokenizer = load_checkpoint("bundled")
        >>> type(model).__name__
        'BertForSequenceClassification'
    """
    if source == "bundled":
        with resources.as_file(resources.files("probes.data") / "model") as folder:
            return load_checkpoint(folder)
    config, tokenizer = check_checkpoint(source, allow_pickle=allow_pickle)
    name = str(source)
    try:
        # What a checkpoint lacks (a head, a pooler) is drawn at random: the same each time, so that one checkpoint has
        # one fingerprint, and without a trace in the caller's random numbers.
        with quiet(), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            kind = _model_class(config, name)
            # What a configuration of transformers cannot say: how many heads each layer has kept.
            shaped = with_shapes(kind) if getattr(config, "heads_kept", None) and kind is not AutoModel else kind
            model, loaded = shaped.from_pretrained(
                name,
                config=config,
                dtype=torch.float32,
                use_safetensors=None if allow_pickle else True,
                weights_only=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # they are refused below, by name
                output_loading_info=True,
            )
            if shaped is not kind:
                model.__class__ = kind
    except Exception as error:  # transformers raises OSError, ValueError, KeyError, RuntimeError ... for the same thing
        raise InputError(
            f"{name}: the model could not be loaded ({type(error).__name__}: {_one_line(error)})"
        ) from error
    _check_loaded(model, loaded, name)
    check_fit(embedding_rows(model), tokenizer, name)
    return model.eval(), tokenizer


def check_checkpoint(
    source: str | Path, *, allow_pickle: bool = False
) -> tuple[transformers.PreTrainedConfig, PreTrainedTokenizerBase]:
    """Return the configuration and the tokenizer of a checkpoint, having checked all that can be without its weights.

    Raises:
        InputError: as `load_checkpoint`, but for weights that are missing inside their file.
    """
    if source == "bundled":
        with resources.as_file(resources.files("probes.data") / "model") as folder:
            return check_checkpoint(folder)
    _check_files(source, allow_pickle)
    name = str(source)
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # as above: one kind for the user, many in transformers
        raise InputError(
            f"{name}: the model could not be loaded ({type(error).__name__}: {_one_line(error)})"
        ) from error
    _model_class(config, name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:
        raise InputError(
            f"{name}: the tokenizer could not be loaded ({type(error).__name__}: {_one_line(error)}). "
            "Save it into the same folder with tokenizer.save_pretrained(...)"
        ) from error
    # Where its files are missing, transformers makes one that knows nothing but its special tokens.
    if set(tokenizer.get_vocab()) <= {"▁", *tokenizer.all_special_tokens}:
        raise InputError(
            f"{name}: the tokenizer is missing: expected its files beside config.json, found none with a vocabulary. "
            "Save it into the same folder with tokenizer.save_pretrained(...)"
        )
    rows = getattr(config, "vocab_size", None)
    if rows is not None and len(tokenizer) > rows:
        check_fit(rows, tokenizer, name)
    return config, tokenizer


def _check_files(source: str | Path, allow_pickle: bool) -> None:
    """Raise `InputError` where a path holds no model, or only one that would be unpickled. Hub names pass."""
    folder = Path(source)
    looks_like_path = isinstance(source, Path) or str(source).startswith((".", "/", "~")) or str(source).count("/") > 1
    if not folder.exists():
        if looks_like_path:
            raise InputError(f"{source}: no such folder. Check the path")
        return
    if not folder.is_dir():
        raise InputError(f"{source}: expected a folder that holds a model, found a file. Give the folder it is in")
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{source}: a folder without a model: no config.json in it. Expected what model.save_pretrained(...) writes"
        )
    weights = sorted(folder.glob("*.safetensors"))
    for file in weights:
        try:
            with safe_open(file, framework="pt"):
                pass
        except Exception as error:  # cut short, or something else under that name
            raise InputError(
                f"{file}: not readable as safetensors ({_one_line(error)}). Copy or save it again"
            ) from error
    if weights:
        return
    pickles = [f.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for f in folder.glob(pattern)]
    if pickles and not allow_pickle:
        raise InputError(
            f"{source}: expected weights in safetensors, found pickles only ({', '.join(sorted(pickles))}), which can "
            "run any code when opened. Convert it with model.save_pretrained(...), or, if you trust who made it, ask "
            "for allow_pickle=True (--allow-pickle)"
        )
    if not pickles:
        raise InputError(f"{source}: a folder without weights: expected *.safetensors beside config.json, found none")


def check_fit(rows: int, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Raise `InputError` where the tokenizer has more tokens than a model has embeddings; warn where far fewer."""
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


def embedding_rows(model: PreTrainedModel) -> int:
    """Return how many tokens a model has an embedding for."""
    weight = model.get_input_embeddings().weight
    assert isinstance(weight, torch.Tensor)
    return len(weight)


def weights_fingerprint(model: torch.nn.Module) -> str:
    """Return a hash of a model's weights, buffers and configuration: the same for the same function, on any device."""
    digest = hashlib.sha256()
    config = getattr(model, "config", None)
    if config is not None:
        settings = {k: v for k, v in config.to_dict().items() if k not in _NOT_COMPUTED and not k.startswith("_")}
        digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    digest.update(type(model).__name__.encode())
    for key, tensor in sorted(model.state_dict().items()):
        if not isinstance(tensor, torch.Tensor):
            digest.update(f"{key}{tensor}".encode())
            continue
        digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _model_class(config: transformers.PreTrainedConfig, name: str) -> Any:
    """The class that the checkpoint was saved from, so that its head comes along; without one, the bare model."""
    for architecture in config.architectures or []:
        kind = getattr(transformers, architecture, None)
        if kind is None:
            raise InputError(
                f"{name}: its architecture {architecture!r} is not one of transformers {transformers.__version__}; "
                "code that comes with a checkpoint is never run. Load the model yourself and pass it in its place"
            )
        return kind
    return AutoModel


def _check_loaded(model: PreTrainedModel, loaded: dict, name: str) -> None:
    prefix = f"{model.base_model_prefix}."
    own = {k for k, _ in model.base_model.named_parameters()}
    missing = sorted(k for k in loaded.get("missing_keys", ()) if k.removeprefix(prefix) in own)
    # A pooler on top is not part of any layer, and many encoders are saved without it.
    missing = [k for k in missing if "pooler" not in k]
    mismatched = sorted(str(k[0] if isinstance(k, tuple) else k) for k in loaded.get("mismatched_keys", ()))
    if missing or mismatched:
        wrong = missing or mismatched
        raise InputError(
            f"{name}: weights of the model are {'missing' if missing else 'of another shape'} in the checkpoint: "
            f"{', '.join(wrong[:5])}{f' and {len(wrong) - 5} more' if len(wrong) > 5 else ''}. "
            "Its config.json and its weights do not belong together"
        )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


class quiet:
    """Silence transformers' bars and its table of unexpected keys while it loads or saves; what matters is checked."""

    def __enter__(self) -> None:
        self.level = transformers.logging.get_verbosity()
        self.bars = transformers.utils.logging.is_progress_bar_enabled()
        transformers.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        transformers.logging.set_verbosity(self.level)
        if self.bars:
            transformers.utils.logging.enable_progress_bar()
