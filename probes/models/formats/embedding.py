"""How a checkpoint says that its tokens become one vector a text: pooling, prompt, length, norm.

sentence-transformers writes it into files beside the weights; here it is kept in the configuration,
so that a model that was made from another one says it too.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

from probes.errors import InputError, LayerscopeWarning
from probes.forms import read_json
from probes.models.formats.format import Format

KEY = "text_embedding"
# Names of sentence-transformers -> ours. Others are kept as they are called, and refused where they are to be used.
_POOLINGS = {"cls": "first", "mean": "mean_all", "lasttoken": "last"}
_MODULES = [{"type": str, "path?": str}]
_POOLING = {"pooling_mode?": (str, [str]), "include_prompt?": bool}
_LENGTH = {"max_seq_length?": (range(1, 2**31), None), "do_lower_case?": bool}
_PROMPTS = {
    "prompts?": ({str: (str, None)}, None),
    "default_prompt_name?": (str, None),
    "truncate_dim?": (range(1, 2**31), None),
}
_LENGTHS = [
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
]


@dataclass(frozen=True)
class Embedding:
    """How the vectors of texts are made of the states of their tokens.

    Attributes:
        pooling: one of `probes.states.pooling.POOLINGS`, or what sentence-transformers calls one
            that is none of them.
        max_length: longest text in tokens; None for no limit but the model's own.
        prompt: what is put before every text.
        pools_prompt: whether the prompt's tokens count in a mean.
        lowercase: whether texts are put into small letters.
        normalize: whether vectors are divided by their length.
        dimensions: how many of the features are kept, the first ones; None for all.

    Example:
        >>> Embedding(pooling="first", normalize=True).said()
        {'pooling': 'first', 'normalize': True}
    """

    pooling: str = "mean"
    max_length: int | None = None
    prompt: str = ""
    pools_prompt: bool = True
    lowercase: bool = False
    normalize: bool = False
    dimensions: int | None = None

    def said(self) -> dict[str, Any]:
        """Return what differs from the default, as a configuration says it."""
        return {k: v for k, v in vars(self).items() if v != vars(Embedding())[k]}


def embedding_of(model: Any) -> Embedding:
    """Return what the configuration of a model, or a configuration, says of its vectors; the
    default where it says nothing.

    Example:
        >>> import probes
        >>> embedding_of(probes.load_checkpoint("bundled")[0]) == Embedding()
        True
    """
    return Embedding(**(EMBEDDING.said(getattr(model, "config", model)) or {}))


def read_embedding(source: str | Path) -> dict[str, Any] | None:
    """Return what the files of sentence-transformers beside a checkpoint say, as a configuration
    keeps it; None where there are none.

    Args:
        source: a folder, or a name on the hub.

    Raises:
        InputError: a file is no JSON of the form that sentence-transformers writes; a path leads
            out of the folder; texts are read by something else than a model of transformers.

    Warns:
        LayerscopeWarning: modules come after the pooling that are not applied.
    """
    found = _file(source, "modules.json")
    if found is None:
        return None
    modules = read_json(found, _MODULES)
    kinds = [module["type"].rpartition(".")[2] for module in modules]
    if not kinds or kinds[0] != "Transformer":
        raise InputError(
            f"{source}: modules.json says that texts are read by {kinds[0] if kinds else 'nothing'}: expected a "
            "Transformer, which has layers to measure"
        )
    said: dict[str, Any] = {}
    for kind, module in zip(kinds, modules, strict=True):
        if kind == "Pooling":
            said |= _pooling(source, module.get("path", ""))
        elif kind == "Normalize":
            said["normalize"] = True
    left_out = [kind for kind in kinds[1:] if kind not in ("Pooling", "Normalize", "Dropout")]
    if left_out:
        warnings.warn(
            f"{source}: modules.json names {', '.join(left_out)} after the model: left out, so that vectors are those "
            "before it",
            LayerscopeWarning,
            stacklevel=3,
        )
    lengths = next((path for name in _LENGTHS if (path := _file(source, name, modules[0].get("path", "")))), None)
    if lengths is not None:
        length = read_json(lengths, _LENGTH)
        said |= {"max_length": length.get("max_seq_length"), "lowercase": length.get("do_lower_case", False)}
    texts = _file(source, "config_sentence_transformers.json")
    if texts is not None:
        also = read_json(texts, _PROMPTS)
        named, default = also.get("prompts") or {}, also.get("default_prompt_name")
        if default is not None and default not in named:
            raise InputError(f"{texts}: default_prompt_name={default!r} is none of its prompts {sorted(named)}")
        said |= {"dimensions": also.get("truncate_dim"), "prompt": named.get(default) or ""}
    return Embedding(**said).said()


def weights_folder(source: str | Path) -> str | Path:
    """Return the folder that the model of a folder of sentence-transformers is in: older ones have
    it in one of their own.
    """
    folder = Path(source)
    if (folder / "config.json").is_file() or not (folder / "modules.json").is_file():
        return source
    modules = read_json(folder / "modules.json", _MODULES)
    inside = _inside(folder, modules[0].get("path", "")) if modules else folder
    return inside if (inside / "config.json").is_file() else source


def _pooling(source: str | Path, path: str) -> dict[str, Any]:
    found = _file(source, "config.json", path)
    if found is None:
        raise InputError(f"{source}: modules.json names a pooling in {path!r}, and there is no config.json in it")
    said = read_json(found, _POOLING)
    modes = said.get("pooling_mode")
    if modes is None:  # as versions before 6 write it
        said_so = [
            k.removeprefix("pooling_mode_") for k, v in said.items() if k.startswith("pooling_mode_") and v is True
        ]
        modes = [mode.removesuffix("_tokens").removesuffix("_token") for mode in said_so]
    modes = [modes] if isinstance(modes, str) else modes
    pooling = "+".join(_POOLINGS.get(mode, mode) for mode in modes)
    return {"pooling": pooling or "mean_all", "pools_prompt": said.get("include_prompt", True)}


def _file(source: str | Path, name: str, inside: str = "") -> Path | None:
    """A file beside a checkpoint, from the hub where that is meant; None where there is none."""
    folder = Path(source)
    if folder.is_dir():
        path = _inside(folder, inside) / name
        return path if path.is_file() else None
    try:
        stored = cached_file(
            str(source),
            f"{inside}/{name}" if inside else name,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            _raise_exceptions_for_gated_repo=False,
        )
    except OSError:  # no such repository: whoever reads the configuration says so
        return None
    return None if stored is None else Path(stored)


def _inside(folder: Path, name: str) -> Path:
    if name in ("", "."):
        return folder
    if Path(name).name != name or name == ".." or "\0" in name:
        raise InputError(
            f"{folder / 'modules.json'} names the folder {name!r}: expected names of folders of its own only"
        )
    return folder / name


EMBEDDING = Format(
    KEY,
    "a way of its own to make vectors of texts",
    {
        "pooling?": str,
        "max_length?": range(1, 2**31),
        "prompt?": str,
        "pools_prompt?": bool,
        "lowercase?": bool,
        "normalize?": bool,
        "dimensions?": range(1, 2**31),
    },
)
