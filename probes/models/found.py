"""What a checkpoint by path or hub name is, found out and checked without its weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from transformers import (
    MODEL_MAPPING,
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)

from probes.errors import InputError, needed
from probes.models.adapters import Adapter, find_adapter, with_head
from probes.models.declared import check_index, check_said, check_sizes, stored_shapes
from probes.models.facts import check_fit
from probes.models.formats.embedding import EMBEDDING, read_embedding, weights_folder
from probes.models.formats.extensions import check_loadable
from probes.models.formats.onnx_model import FILE as ONNX
from probes.models.formats.packed import PACKED, check_packed, open_safetensors
from probes.silence import quiet


@dataclass(frozen=True)
class Found:
    """What was found of a checkpoint.

    Attributes:
        name: what messages call it.
        source: where its weights are: a folder, or a name on the hub.
        config: its configuration.
        tokenizer: its tokenizer.
        headless: the weights that its head lacks; the configuration then says that there is none.
        adapter: what belongs onto the weights.
        gguf: the file of the folder that holds the weights, where they are in GGUF.
    """

    name: str
    source: str | Path
    config: PreTrainedConfig
    tokenizer: PreTrainedTokenizerBase
    headless: tuple[str, ...] = ()
    adapter: Adapter | None = None
    gguf: str | None = None


def find(source: str | Path, *, allow_pickle: bool = False) -> Found:
    """Find out what a checkpoint is.

    Args:
        source: a folder, a file of GGUF, or a name on the hub.
        allow_pickle: as `probes.load_checkpoint` takes it.

    Raises:
        InputError: as `probes.load_checkpoint`, but for weights that are missing inside their file.

    Example:
        >>> from importlib import resources
        >>> with resources.as_file(resources.files("probes.data") / "model") as folder:
        ...     found = find(folder)
        >>> found.config.model_type, len(found.headless), found.adapter
        ('bert', 0, None)
    """
    if Path(source).suffix.lower() == ".gguf":
        return _gguf(Path(source))
    adapter = find_adapter(source)
    return _plain(source, allow_pickle) if adapter is None else _adapted(source, adapter, allow_pickle)


def _gguf(file: Path) -> Found:
    """A model and its tokenizer in one file, which transformers makes plain numbers of."""
    if not file.is_file():
        raise InputError(f"{file}: no such file. Check the path")
    needed("gguf", f"{file}: a model in GGUF", extra="formats")
    try:
        with quiet():
            config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
        check_said(config.to_dict(), str(file))
    except InputError:
        raise
    except Exception as error:
        raise unloadable(str(file), error) from error
    with quiet():
        tokenizer = _tokenizer(file.parent, str(file), gguf_file=file.name)
    return Found(str(file), file.parent, config, tokenizer, gguf=file.name)


def _adapted(source: str | Path, adapter: Adapter, allow_pickle: bool) -> Found:
    """An adapter and the model that it belongs onto."""
    if Path(adapter.base).resolve() == adapter.folder.resolve() or find_adapter(adapter.base) is not None:
        raise InputError(
            f"{source}: an adapter onto another adapter, {adapter.base!r}: merge that one first, with peft"
        )
    try:
        base = find(adapter.base, allow_pickle=allow_pickle)
        own = (adapter.folder / "tokenizer_config.json").is_file()
        tokenizer = _tokenizer(adapter.folder, str(source)) if own else base.tokenizer
    except InputError as error:
        raise InputError(
            f"{source}: an adapter onto {adapter.base!r}, which cannot be loaded: {error}. Put that model there, or "
            "merge adapter and model with peft: merge_and_unload(), save_pretrained(...)"
        ) from error
    config = with_head(base.config, adapter)
    headless = () if config is not base.config else base.headless
    return replace(base, name=str(source), config=config, tokenizer=tokenizer, headless=headless, adapter=adapter)


def _plain(source: str | Path, allow_pickle: bool) -> Found:
    name, given, source = str(source), source, weights_folder(source)
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
        raise unloadable(name, error) from error
    declared = read_embedding(given)
    if declared and not EMBEDDING.promised(config):
        setattr(config, EMBEDDING.key, declared)
    check_loadable(config, name)
    kind = model_class(config, name)
    headless: list[str] = []
    if weighed:
        try:
            with quiet(), torch.random.fork_rng(devices=[]):
                headless = check_sizes(kind, config, folder, name)
        except InputError:
            raise
        except Exception as error:
            raise unloadable(name, error) from error
        if headless:
            config.architectures = [cast(type, MODEL_MAPPING[type(config)]).__name__]
    tokenizer = _tokenizer(source, name)
    rows = getattr(config, "vocab_size", None)
    if rows is not None and len(tokenizer) > rows:
        check_fit(rows, tokenizer, name)
    return Found(name, source, config, tokenizer, tuple(headless))


def _elsewhere(source: str | Path) -> str:
    """Where the tokenizer of a checkpoint of a training may lie."""
    above = Path(source).parent
    there = Path(source).name.startswith("checkpoint-") and (above / "tokenizer_config.json").is_file()
    return ". There is one in the folder above: copy it from there" if there else ""


def _tokenizer(source: str | Path, name: str, **where: Any) -> PreTrainedTokenizerBase:
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, **where)
    except Exception as error:
        raise InputError(
            f"{name}: the tokenizer could not be loaded ({type(error).__name__}: {_one_line(error)}). "
            f"Save it into the same folder with tokenizer.save_pretrained(...){_elsewhere(source)}"
        ) from error
    # Where its files are missing, transformers makes one that knows nothing but its special tokens.
    if set(tokenizer.get_vocab()) <= {"▁", *tokenizer.all_special_tokens}:
        raise InputError(
            f"{name}: the tokenizer is missing: expected its files beside config.json, found none with a vocabulary. "
            f"Save it into the same folder with tokenizer.save_pretrained(...){_elsewhere(source)}"
        )
    return cast(PreTrainedTokenizerBase, tokenizer)


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
        steps = [path for path in folder.glob("checkpoint-*") if path.name.partition("-")[2].isdecimal()]
        if steps:
            last = max(steps, key=lambda path: int(path.name.partition("-")[2]))
            raise InputError(f"{source}: a training with {len(steps)} checkpoints: give one of them, as {last}")
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
    if is_onnx(folder):
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


def is_onnx(folder: Path) -> bool:
    """Whether a folder holds an exported model, and not beside one that transformers loads."""
    return (folder / ONNX).is_file() and not any(folder.glob("*.safetensors"))


def model_class(config: transformers.PreTrainedConfig, name: str) -> Any:
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


def unloadable(name: str, error: Exception) -> InputError:
    """Return the one kind of error for what transformers has many for."""
    return InputError(f"{name}: the model could not be loaded ({type(error).__name__}: {_one_line(error)})")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
