"""A checkpoint by path or hub name -> model and tokenizer, safely: safetensors only, no remote
code, checked to fit.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from transformers import (
    MODEL_MAPPING,
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from probes.errors import InputError, needed
from probes.models.declared import check_index, check_said, check_sizes, stored_shapes
from probes.models.facts import check_fit, embedding_rows
from probes.models.formats.embedding import EMBEDDING, read_embedding, weights_folder
from probes.models.formats.extensions import apply_formats, check_loadable, from_pretrained
from probes.models.formats.onnx_model import FILE as ONNX
from probes.models.formats.onnx_model import OnnxModel
from probes.models.formats.packed import PACKED, check_packed, open_safetensors, unpack
from probes.models.heads import missing_of_head, warn_of_head
from probes.silence import quiet


def load_checkpoint(
    source: str | Path, *, allow_pickle: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a checkpoint of transformers with the head it was saved with, in float32 on the CPU.

    Args:
        source: "bundled", a folder (also one of packed weights, as `compress.save(...,
            packed=True)` writes it, or of sentence-transformers, whose pooling, prompt, length and
            norm `capture` then uses), or a name on the Hugging Face hub.
        allow_pickle: also read weights from pickle files (`pytorch_model.bin`). A pickle can run
            any code when it is opened: ask for it only where you trust who made it.

    Returns:
        The model in evaluation mode, and its tokenizer. Code from the checkpoint is never run. Of a
        folder that `compress.quantization.deploy` exported a model to, the model is a
        `probes.models.formats.onnx_model.OnnxModel`.

    Raises:
        InputError: the folder holds no model; its weights are pickles only, or both plain and
            packed; weights of the encoder are missing; packed ones do not fit together; the
            tokenizer is missing or does not fit the model.

    Warns:
        LayerscopeWarning: the head is not in the weights: the model comes without it.

    Example:
        >>> model, tokenizer = load_checkpoint("bundled")
        >>> type(model).__name__
        'BertForSequenceClassification'
    """
    if source == "bundled":
        with resources.as_file(resources.files("probes.data") / "model") as folder:
            model, tokenizer = load_checkpoint(folder)
        model.name_or_path = model.config.name_or_path = source  # not a path on this computer
        return model, tokenizer
    config, tokenizer, headless = _checked(source, allow_pickle)
    name, source = str(source), weights_folder(source)
    if _is_onnx(Path(source)):
        exported = OnnxModel.from_pretrained(source)
        check_fit(exported.embeddings, tokenizer, name)
        return cast(PreTrainedModel, exported), tokenizer
    file = Path(source) / PACKED
    weights = unpack(file) if file.is_file() else None
    try:
        # What a checkpoint lacks (a head, a pooler) is drawn at random: the same each time, so that one checkpoint has
        # one fingerprint, and without a trace in the caller's random numbers.
        with quiet(), torch.random.fork_rng(devices=[]):
            kind = _model_class(config, name)
            torch.default_generator.manual_seed(0)
            if kind is AutoModel and weights is not None:  # it takes them from where its configuration is only
                kind = MODEL_MAPPING[type(config)]
            model, loaded = from_pretrained(
                kind,
                config,
                str(source) if weights is None else None,
                state_dict=weights,
                generation_config=None if weights is None else _generation(Path(source)),
                config=config,
                dtype=torch.float32,
                use_safetensors=None if allow_pickle else True,
                weights_only=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # they are refused below, by name
                output_loading_info=True,
            )
            model.name_or_path = model.config.name_or_path = name
    except InputError:
        raise
    except Exception as error:  # transformers raises OSError, ValueError, KeyError, RuntimeError ... for the same thing
        raise _unloadable(name, error) from error
    missing = set(loaded["missing_keys"])
    missing -= apply_formats(model, missing)
    _check_loaded(model, loaded | {"missing_keys": missing}, name)
    if unread := missing_of_head(model, missing):  # known only now where it is read from the hub, or from a pickle
        headless = unread
        model = model.base_model
        model.config.architectures = [type(model).__name__]
    if headless:
        warn_of_head(headless, name, 2)
    check_fit(embedding_rows(model), tokenizer, name)
    return model.eval(), tokenizer


def check_checkpoint(
    source: str | Path, *, allow_pickle: bool = False
) -> tuple[PreTrainedConfig, PreTrainedTokenizerBase]:
    """Return the configuration and the tokenizer of a checkpoint, having checked all that can be
    without its weights.

    Raises:
        InputError: as `load_checkpoint`, but for weights that are missing inside their file.
    """
    if source == "bundled":
        with resources.as_file(resources.files("probes.data") / "model") as folder:
            return check_checkpoint(folder)
    return _checked(source, allow_pickle)[:2]


def _checked(source: str | Path, allow_pickle: bool) -> tuple[PreTrainedConfig, PreTrainedTokenizerBase, list[str]]:
    """What `check_checkpoint` returns, and the weights of a head that are missing: the
    configuration then says that there is none.
    """
    name, declared, source = str(source), read_embedding(source), weights_folder(source)
    _check_files(source, allow_pickle)
    folder = Path(source)
    try:
        said, _ = PreTrainedConfig.get_config_dict(source)
        weighed = any(folder.glob("*.safetensors"))
        check_said(said, name, len(stored_shapes(folder)) if weighed else None)
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    except InputError:
        raise
    except Exception as error:  # as above: one kind for the user, many in transformers
        raise _unloadable(name, error) from error
    if declared and not EMBEDDING.promised(config):
        setattr(config, EMBEDDING.key, declared)
    check_loadable(config, name)
    kind = _model_class(config, name)
    headless: list[str] = []
    if weighed:
        try:
            with quiet(), torch.random.fork_rng(devices=[]):
                headless = check_sizes(kind, config, folder, name)
        except InputError:
            raise
        except Exception as error:
            raise _unloadable(name, error) from error
        if headless:
            config.architectures = [cast(type, MODEL_MAPPING[type(config)]).__name__]
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
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
    return config, tokenizer, headless


def _check_files(source: str | Path, allow_pickle: bool) -> None:
    """Raise `InputError` where a path holds no model, or only one that would be unpickled. Hub
    names pass.
    """
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
    check_index(folder)
    weights = sorted(folder.glob("*.safetensors"))
    for file in weights:
        with open_safetensors(file):
            pass
    plain = [file.name for file in weights if file.name.startswith("model")]
    if folder / PACKED in weights:
        if plain:
            raise InputError(
                f"{source}: expected one set of weights, found {plain[0]} and {PACKED}: which one is meant cannot be "
                "known. Move one of them away"
            )
        check_packed(folder / PACKED)
    if weights:
        return
    if _is_onnx(folder):
        needed("onnxruntime", f"{source}: a model in ONNX")
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


def _is_onnx(folder: Path) -> bool:
    """Whether a folder holds an exported model, and not beside one that transformers loads."""
    return (folder / ONNX).is_file() and not any(folder.glob("*.safetensors"))


def _model_class(config: transformers.PreTrainedConfig, name: str) -> Any:
    """The class that the checkpoint was saved from, so that its head comes along; without one, the
    bare model.
    """
    for architecture in config.architectures or []:
        kind = getattr(transformers, architecture, None)
        if kind is None:
            raise InputError(
                f"{name}: its architecture {architecture!r} is not one of transformers {transformers.__version__}; "
                "code that comes with a checkpoint is never run. Load the model yourself and pass it in its place"
            )
        return kind
    return AutoModel


def _generation(folder: Path) -> GenerationConfig | None:
    """How a model with packed weights writes text, which transformers reads by itself only beside
    plain weights.
    """
    return GenerationConfig.from_pretrained(folder) if (folder / "generation_config.json").is_file() else None


def _check_loaded(model: PreTrainedModel, loaded: dict, name: str) -> None:
    prefix = f"{model.base_model_prefix}."
    own = {k for k, _ in model.base_model.named_parameters()}
    # Nor may that be missing which only a configuration of ours asks for.
    missing = sorted(
        k for k in loaded.get("missing_keys", ()) if k.removeprefix(prefix) in own or k.startswith("sparse_head.")
    )
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


def _unloadable(name: str, error: Exception) -> InputError:
    return InputError(f"{name}: the model could not be loaded ({type(error).__name__}: {_one_line(error)})")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
