"""Adapters of peft: small weights that belong onto a model -> that model with them in it."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import transformers
from transformers import PreTrainedConfig, PreTrainedModel

from probes.errors import InputError, needed
from probes.forms import read_json
from probes.models.formats.coded import is_coded
from probes.models.formats.packed import open_safetensors

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_FORM = {"peft_type": str, "base_model_name_or_path": str, "task_type?": (str, None)}
_HEADS = ("classifier.out_proj.weight", "classifier.weight", "score.weight", "classifier.dense.weight")
_MERGE = (
    "merge it where the model is: peft.AutoPeftModel.from_pretrained(...).merge_and_unload().save_pretrained(...), and "
    "give that folder"
)


@dataclass(frozen=True)
class Adapter:
    """An adapter that was found in a folder.

    Attributes:
        folder: where it lies.
        base: the model that it belongs onto, a folder or a name on the hub.
        task: what peft calls the task of the model, as "SEQ_CLS"; "" where it says none.
        shapes: of its tensors, by name.
    """

    folder: Path
    base: str
    task: str
    shapes: dict[str, tuple[int, ...]]


def find_adapter(source: str | Path) -> Adapter | None:
    """Return the adapter that a folder holds, None where it holds none.

    Raises:
        InputError: full weights lie beside it, so that which model is meant cannot be known; it
            cannot be merged; its weights are a pickle, or missing.
        DependencyError: peft is not installed.
    """
    folder = Path(source)
    if not (folder / CONFIG).is_file():
        return None
    full = sorted(f.name for f in folder.glob("*.safetensors") if not f.name.startswith("adapter_"))
    full += sorted(f.name for f in folder.glob("pytorch_model*.bin"))
    if full:
        raise InputError(
            f"{source}: expected a model or an adapter, found {full[0]} and {CONFIG}: whether the adapter is merged "
            f"into these weights cannot be known. Move one of them away, or {_MERGE}"
        )
    said = read_json(folder / CONFIG, _FORM)
    if not (folder / WEIGHTS).is_file():
        raise InputError(
            f"{source}: an adapter of peft without {WEIGHTS}: expected its weights in safetensors, found "
            f"{', '.join(sorted(f.name for f in folder.glob('adapter_model*'))) or 'none'}. Save it again with "
            "save_pretrained(..., safe_serialization=True)"
        )
    if said.get("megatron_config"):
        raise InputError(f"{source}: {CONFIG} names code of other packages, which is not run. Else, {_MERGE}")
    needed("peft", f"{source}: an adapter of peft", extra="formats")
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    kinds = {
        str(kind.value) for kind, tuner in PEFT_TYPE_TO_TUNER_MAPPING.items() if hasattr(tuner, "merge_and_unload")
    }
    if said["peft_type"] not in kinds:
        raise InputError(
            f"{source}: an adapter of the type {said['peft_type']}, which cannot be merged into weights; those "
            f"that can are {', '.join(sorted(kinds))}. Load model and adapter yourself, and pass the model in its place"
        )
    with open_safetensors(folder / WEIGHTS) as opened:
        names = list(opened.keys())
        shapes = {name: tuple(opened.get_slice(name).get_shape()) for name in names}
    return Adapter(folder, said["base_model_name_or_path"], said.get("task_type") or "", shapes)


def with_head(config: PreTrainedConfig, adapter: Adapter) -> PreTrainedConfig:
    """Return the configuration of the model that an adapter was trained in: where it brings a head
    that classifies texts, that of its base with such a head.
    """
    heads = {name: shape for name, shape in adapter.shapes.items() if name.endswith(_HEADS)}
    if adapter.task != "SEQ_CLS" or not heads:
        return config
    config = copy.deepcopy(config)
    kind = transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]
    config.architectures = [cast(type, kind).__name__]
    own = adapter.folder / "config.json"
    labels = json.loads(own.read_text(encoding="utf-8")).get("id2label") if own.is_file() else None
    last = max(heads, key=lambda name: [name.endswith(end) for end in reversed(_HEADS)])
    if isinstance(labels, dict) and len(labels) == heads[last][0]:
        config.id2label = {int(k): str(v) for k, v in labels.items()}
        config.label2id = {v: k for k, v in config.id2label.items()}
    elif config.num_labels != heads[last][0]:
        config.num_labels = heads[last][0]
    return config


def merged(model: PreTrainedModel, adapter: Adapter, name: str) -> tuple[PreTrainedModel, set[str]]:
    """Return a model with an adapter in its weights, and the names of the weights that the adapter
    brought whole, as those of a head.

    Args:
        model: the base, in float32, or quantised by another package: it is then dequantised first.
        adapter: as `find_adapter` gives it.
        name: what the checkpoint is called.

    Raises:
        InputError: the adapter does not fit the model.
    """
    from peft import PeftModel, get_peft_model_state_dict

    if is_coded(model):
        model = model.dequantize()
    wrapped: Any = PeftModel.from_pretrained(model, str(adapter.folder))
    wanted = {key: tuple(value.shape) for key, value in get_peft_model_state_dict(wrapped).items()}
    given = adapter.shapes
    wrong = sorted(key for key in wanted.keys() ^ given.keys()) or [k for k in wanted if wanted[k] != given[k]]
    if wrong:
        raise InputError(
            f"{name}: the adapter does not fit the model {adapter.base!r} that it names: {', '.join(wrong[:4])}"
            f"{f' and {len(wrong) - 4} more' if len(wrong) > 4 else ''} in one of them alone, or of another shape. "
            f"Give the model that it was trained on, or {_MERGE}"
        )
    whole = {key.removeprefix("base_model.model.") for key in given}
    out: PreTrainedModel = wrapped.merge_and_unload(safe_merge=True)
    return out, whole
