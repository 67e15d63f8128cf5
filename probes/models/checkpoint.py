"""A checkpoint by path or hub name -> model and tokenizer, safely: safetensors only, no remote
code, checked to fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from transformers import (
    MODEL_MAPPING,
    AutoModel,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from probes.errors import InputError, check_choice
from probes.models.adapters import merged
from probes.models.bundled import BUNDLED, bundled_folder
from probes.models.facts import check_fit, embedding_rows
from probes.models.formats.coded import read_plain, say_plain
from probes.models.formats.extensions import apply_formats, from_pretrained, promised
from probes.models.formats.onnx_model import OnnxModel
from probes.models.formats.packed import PACKED, unpack
from probes.models.found import Found, find, is_onnx, model_class, unloadable
from probes.models.heads import missing_of_head, warn_of_head
from probes.silence import quiet


def load_checkpoint(
    source: str | Path,
    *,
    allow_pickle: bool = False,
    dtype: str = "float32",
    device_map: str | Mapping[str, str | int] | None = None,
    offload_folder: str | Path | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a checkpoint of transformers with the head it was saved with, in float32 on the CPU.

    Args:
        source: "bundled" (a small encoder) or "bundled-decoder", a folder (also one of packed
            weights, as `compress.save(..., packed=True)` writes it, or of sentence-transformers,
            whose pooling, prompt, length and norm `capture` then uses), of an adapter of peft,
            which is merged into the model that it names), a file of GGUF, or a name on the Hugging
            Face hub. What other packages have quantised runs as it is (bitsandbytes, torchao) or is
            made plain numbers while it is loaded (GPTQ, AWQ, compressed-tensors, fp8, GGUF), as
            `model.config.dequantized` says.
        allow_pickle: also read weights from pickle files (`pytorch_model.bin`). A pickle can run
            any code when it is opened: ask for it only where you trust who made it.
        dtype: "float32", or "auto" as the weights are stored (bfloat16 in half the memory; states
            then differ by rounding), or the name of another.
        device_map: for models larger than one device, as in transformers: "auto" spreads the model
            over the devices there are, then memory, then the disk; or module -> device ("cpu",
            "disk", "cuda:0"). `capture` leaves such a model where it is; compressions and most
            measures that change a model while it runs need it whole, and say so.
        offload_folder: where what goes to the disk is written, if it is not read from the
            checkpoint's own safetensors.

    Returns:
        The model in evaluation mode, and its tokenizer. Code from the checkpoint is never run. Of a
        folder that `compress.quantization.deploy` exported a model to, the model is a
        `probes.models.formats.onnx_model.OnnxModel`.

    Raises:
        InputError: the folder holds no model; its weights are pickles only, or both plain and
            packed; weights of the encoder are missing; packed ones do not fit together; the
            tokenizer is missing or does not fit the model; `device_map` beside packed weights, an
            adapter, an exported model or a format that is put together after loading.

    Warns:
        LayerscopeWarning: the head is not in the weights: the model comes without it.

    Example:
        >>> model, tokenizer = load_checkpoint("bundled")
        >>> type(model).__name__
        'BertForSequenceClassification'
    """
    check_choice("dtype", dtype, ("auto", "float32", "bfloat16", "float16"))
    if source in BUNDLED:
        with bundled_folder(source) as folder:
            model, tokenizer = load_checkpoint(folder, dtype=dtype, device_map=device_map)
        model.name_or_path = model.config.name_or_path = str(source)  # not a path on this computer
        return model, tokenizer
    found = find(source, allow_pickle=allow_pickle)
    name, folder = found.name, Path(found.source)
    if device_map is not None:
        _check_spread(found, folder)
    if is_onnx(folder):
        exported = OnnxModel.from_pretrained(found.source)
        check_fit(exported.embeddings, found.tokenizer, name)
        return cast(PreTrainedModel, exported), found.tokenizer
    try:
        weights = unpack(folder / PACKED) if (folder / PACKED).is_file() else read_plain(folder, found.config, name)
        say_plain(found.config, "gguf" if found.gguf else "")
        # What a checkpoint lacks (a pooler) is drawn at random: the same each time, so that one checkpoint has one
        # fingerprint, and without a trace in the caller's random numbers.
        with quiet(), torch.random.fork_rng(devices=[]):
            kind = model_class(found.config, name)
            torch.default_generator.manual_seed(0)
            if kind is AutoModel and weights is not None:  # it takes them from where its configuration is only
                kind = MODEL_MAPPING[type(found.config)]
            model, loaded = from_pretrained(
                kind,
                found.config,
                str(found.source) if weights is None else None,
                state_dict=weights,
                **({"gguf_file": found.gguf} if found.gguf else {}),
                generation_config=None if weights is None else _generation(folder),
                config=found.config,
                dtype=dtype if dtype == "auto" else getattr(torch, dtype),
                device_map=device_map if device_map is None or isinstance(device_map, str) else dict(device_map),
                **({} if offload_folder is None else {"offload_folder": str(offload_folder)}),
                use_safetensors=None if allow_pickle else True,
                weights_only=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # they are refused below, by name
                output_loading_info=True,
            )
            brought: set[str] = set()
            if found.adapter is not None:
                model, brought = merged(model, found.adapter, name)
            model.name_or_path = model.config.name_or_path = name
    except InputError:
        raise
    except Exception as error:  # transformers raises OSError, ValueError, KeyError, RuntimeError ... for the same thing
        raise unloadable(name, error) from error
    missing = set(loaded["missing_keys"]) - brought
    missing -= apply_formats(model, missing)
    mismatched = [key for key in loaded["mismatched_keys"] if key[0] not in brought]
    _check_loaded(model, loaded | {"missing_keys": missing, "mismatched_keys": mismatched}, name)
    headless = missing_of_head(model, missing)  # known only now where it is read from the hub, or from a pickle
    if headless:
        model = cast(PreTrainedModel, model.base_model)
        model.config.architectures = [type(model).__name__]
    if lacking := headless or list(found.headless):
        warn_of_head(lacking, name, 2)
    check_fit(embedding_rows(model), found.tokenizer, name)
    return model.eval(), found.tokenizer


def loading_of(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what of the settings of a comparison is for `load_checkpoint`, and what for `capture`.

    Example:
        >>> loading_of({"dtype": "auto", "device_map": "auto", "pooling": "mean"})
        ({'device_map': 'auto', 'dtype': 'auto'}, {'pooling': 'mean'})
        >>> loading_of({"dtype": "bfloat16"})  # of the forward pass
        ({}, {'dtype': 'bfloat16'})
    """
    loading = {k: settings[k] for k in ("device_map", "offload_folder") if settings.get(k) is not None}
    loading |= {"dtype": "auto"} if settings.get("dtype") == "auto" else {}
    others = {k: v for k, v in settings.items() if k not in (*loading, "device_map", "offload_folder")}
    return loading, others


def check_checkpoint(
    source: str | Path, *, allow_pickle: bool = False, spread: bool = False
) -> tuple[PreTrainedConfig, PreTrainedTokenizerBase]:
    """Return the configuration and the tokenizer of a checkpoint, having checked all that can be
    without its weights.

    Args:
        source, allow_pickle: as `load_checkpoint` takes them.
        spread: whether it will be spread over several places.

    Raises:
        InputError: as `load_checkpoint`, but for weights that are missing inside their file.
    """
    if source in BUNDLED:
        with bundled_folder(source) as folder:
            return check_checkpoint(folder)
    found = find(source, allow_pickle=allow_pickle)
    if spread:
        _check_spread(found, Path(found.source))
    return found.config, found.tokenizer


def _check_spread(found: Found, folder: Path) -> None:
    """Raise `InputError` where what is loaded has to be whole before it can be spread."""
    kinds = {
        "an exported model": is_onnx(folder),
        "packed weights": (folder / PACKED).is_file(),
        "an adapter": found.adapter is not None,
        "GGUF": bool(found.gguf),
    }
    kinds |= {f"{one.has} (config.{one.key})": True for one in promised(found.config)}
    if wrong := [kind for kind, there in kinds.items() if there]:
        raise InputError(
            f"{found.name}: device_map is for plain checkpoints, and this one has {wrong[0]}, which is put together in "
            "one place. Leave device_map out"
        )


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
