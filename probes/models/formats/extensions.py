"""The list of formats: what a configuration can say of a model beside what plain transformers acts
on.

A new key has a file of its own, which ends with its `Format`, and a line in `FORMATS`:
`load_checkpoint`, the backends, `compress.save` and the checks of the verbs read it here.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from transformers import MODEL_MAPPING, AutoModel, PreTrainedConfig, PreTrainedModel

from probes.errors import InputError
from probes.models.blocks import stacks_of
from probes.models.facts import name_of
from probes.models.formats.channels_kept import CHANNELS_KEPT
from probes.models.formats.coded import CODED
from probes.models.formats.embedding import EMBEDDING
from probes.models.formats.factorized import FACTORIZED
from probes.models.formats.format import Format, Verb
from probes.models.formats.hashed_weights import HASHED_WEIGHTS
from probes.models.formats.heads_kept import HEADS_KEPT
from probes.models.formats.layers_kept import LAYERS_KEPT
from probes.models.formats.output_codes import OUTPUT_CODES
from probes.models.formats.quantized_inputs import QUANTIZED_INPUTS
from probes.models.formats.shared_layers import SHARED_LAYERS
from probes.models.formats.sparse_embeddings import SPARSE_EMBEDDINGS
from probes.models.parts import FAMILIES
from probes.models.spread import check_whole
from probes.silence import quiet

# In the order in which they are made and applied: factors are those of the matrices that pruning has left.
FORMATS = (
    LAYERS_KEPT,
    HEADS_KEPT,
    CHANNELS_KEPT,
    FACTORIZED,
    HASHED_WEIGHTS,
    SPARSE_EMBEDDINGS,
    OUTPUT_CODES,
    SHARED_LAYERS,
    QUANTIZED_INPUTS,
    CODED,
    EMBEDDING,
)


def promised(config: Any) -> list[Format]:
    """Return the formats that a configuration says its model has.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> model.config.quantized_inputs = {"encoder.layer.0.output.dense": {"bits": 8}}
        >>> [found.key for found in promised(model.config)]
        ['quantized_inputs']
    """
    return [known for known in FORMATS if known.promised(config)]


def check_loadable(config: PreTrainedConfig, name: str) -> None:
    """Raise `InputError` where a configuration says what cannot be loaded here, before its weights
    are read.
    """
    for found in promised(config):
        found.check(config, name)


def from_pretrained(kind: Any, config: PreTrainedConfig, /, *args: Any, **settings: Any) -> Any:
    """Load a model as `kind.from_pretrained` does, made with the shapes and modules that its
    configuration names.

    Args:
        kind: a class of models, or `AutoModel`.
        config: the configuration of what is loaded.
        *args, **settings: of `kind.from_pretrained`.

    Returns:
        What that returns. What comes after the weights is for `apply_formats`.
    """
    shaped = shaped_class(kind, config)
    out = shaped.from_pretrained(*args, **settings)
    if shaped is not kind:
        model = out[0] if isinstance(out, tuple) else out
        model.__class__ = shaped.__mro__[1]  # the other is needed while a model is made only
    return out


def shaped_class(kind: Any, config: PreTrainedConfig) -> Any:
    """Return a class whose models are made with the shapes and modules that a configuration names."""
    makers = [found.make for found in promised(config) if found.make is not None]
    if not makers:
        return kind
    if kind is AutoModel:  # which makes its models itself
        kind = MODEL_MAPPING[type(config)]

    def make(self: PreTrainedModel, config: PreTrainedConfig, *args: Any, **settings: Any) -> None:
        kind.__init__(self, config, *args, **settings)
        for one in makers:
            one(self)

    return type(kind.__name__, (kind,), {"__init__": make, "__module__": kind.__module__})


def unlike(model: PreTrainedModel, shapes_only: bool = False) -> str | None:
    """Say what in the blocks of a model would be otherwise in one that is made of its
    configuration, None where nothing would.

    Args:
        model: a model of an architecture that the table of parts has.
        shapes_only: names and shapes of parameters, and not the settings of modules, as the windows
            that they see.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> unlike(model)
        >>> model.config.intermediate_size = 7
        >>> unlike(model)
        'bert.encoder.layer.0.intermediate.dense.weight is 512 x 128, and would be 7 x 128'
    """
    config = type(model.config).from_dict(model.config.to_dict())
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]), quiet():
            twin = shaped_class(type(model), config)(config)
    except (ValueError, TypeError, RuntimeError, AssertionError, IndexError) as error:
        return f"its configuration makes no model: {error}"
    shapes = [{n: tuple(p.shape) for n, p in _in_blocks(m, "parameters")} for m in (model, twin)]
    for name in [*shapes[0], *shapes[1]]:
        mine, made = (" x ".join(map(str, s[name])) if name in s else "not there" for s in shapes)
        if mine != made:
            return f"{name} is {mine}, and would be {made}"
    if shapes_only:
        return None
    modules = [dict(_in_blocks(m, "modules")) for m in (model, twin)]
    for name in modules[0].keys() & modules[1].keys():
        said = [_settings(m[name]) for m in modules]
        for key in said[0].keys() & said[1].keys():
            if said[0][key] != said[1][key]:
                return f"{name}.{key} is {said[0][key]!r}, and would be {said[1][key]!r}"
    return None


def _in_blocks(model: PreTrainedModel, what: str) -> list[tuple[str, Any]]:
    """The modules or parameters in the blocks of a model, by their names in it."""
    blocks = {id(m) for _, stack in stacks_of(model, FAMILIES[model.config.model_type]) for m in stack.modules()}
    found = [(name, module) for name, module in model.named_modules() if id(module) in blocks]
    if what == "modules":
        return found
    return [(f"{name}.{n}", p) for name, module in found for n, p in module.named_parameters(recurse=False)]


def _settings(module: torch.nn.Module) -> dict[str, Any]:
    """What a module was made with: numbers and words that are no state of it."""
    return {
        key: value
        for key, value in vars(module).items()
        if key[0] != "_" and key != "training" and isinstance(value, bool | int | float | str | None)
    }


def apply_formats(model: PreTrainedModel, missing: Collection[str] | None = None) -> set[str]:
    """Do what the configuration of a model asks for once its weights are there, in place.

    Args:
        model: a model of transformers.
        missing: the names of the weights that its file did not have, where that is known.

    Returns:
        The names of the weights that were filled.
    """
    filled: set[str] = set()
    for found in promised(model.config):
        if found.apply is not None:
            filled |= set(found.apply(model, missing))
    return filled


def check_kept(model: PreTrainedModel) -> None:
    """Raise `InputError` where a model has not got what its configuration says.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> model.config.sparse_embeddings = {"features": 512}
        >>> check_kept(model)
        Traceback (most recent call last):
            ...
        probes.errors.InputError: bundled: its configuration promises a sparse head ...
    """
    for found in promised(model.config):
        lacking = found.lacks(model)
        if lacking is not None:
            raise InputError(
                f"{name_of(model)}: its configuration promises {found.has} (config.{found.key}), and {lacking}: "
                "configuration and weights do not belong together. Load it with probes.load_checkpoint"
            )


def check_allowed(model: PreTrainedModel, verb: Verb) -> None:
    """Raise `InputError` where a format of a model forbids what is to be done with it, or is not
    whole.

    Args:
        model: a model of transformers.
        verb: what is to be done: "compress" for whatever works on its weights, or a verb with rules
            of its own.
    """
    check_whole(model, "saving" if verb == "save packed" else "a compression")
    for found in promised(model.config):
        forbidden = found.forbids(model, verb)
        if forbidden is not None:
            raise InputError(forbidden)
    check_kept(model)
