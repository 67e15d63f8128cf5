"""Modules that share their parameters: which ones is in the configuration of a model, the tensors
are saved once.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from probes.errors import InputError
from probes.models.formats.format import Format, Verb


def apply_sharing(model: PreTrainedModel, missing: Collection[str] | None = None) -> set[str]:
    """Let the modules that a model's configuration names share their parameters, in place.

    `config.shared_layers` has for each module that has none of its own the one whose it takes, both
    by their names in `model.base_model`: {"encoder.layer.2.output.dense":
    "encoder.layer.1.output.dense"}; a layer of an LSTM has the number of it in its name: {"lstm.1":
    "lstm.0"}. To call it again changes nothing. `save_pretrained` then writes
    each tensor once. `probes.load_checkpoint` calls it; a model that transformers itself has loaded
    holds random numbers in the modules that are not in the file (it warns of missing keys) until it
    was called.

    Args:
        model: a model of transformers; the modules take what the others hold now.
        missing: names, as in `model.state_dict()`, of the weights that a file did not have. What it
            has for a module must be what the other one holds.

    Returns:
        The names, as in `model.state_dict()`, of the parameters that are those of another module.

    Raises:
        InputError: the configuration names a module that the model does not have, that shares
            another's itself, or that is of another shape; the file has other weights for it.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> one, other = (f"encoder.layer.{n}.output.dense" for n in (1, 0))
        >>> model.config.shared_layers = {one: other}
        >>> sorted(apply_sharing(model))
        ['bert.encoder.layer.1.output.dense.bias', 'bert.encoder.layer.1.output.dense.weight']
        >>> layers = model.bert.encoder.layer
        >>> layers[1].output.dense.weight is layers[0].output.dense.weight
        True
    """
    shared = shared_of(model)
    base: Any = model.base_model
    own = {name: _parameters(name, model) for name in {*shared, *shared.values()}}
    prefix = "" if base is model else f"{model.base_model_prefix}."
    tied: dict[str, str] = {}
    for target, source in shared.items():
        shapes = [{n: tuple(base.get_parameter(p).shape) for n, p in own[name].items()} for name in (target, source)]
        if source in shared or shapes[0] != shapes[1]:
            raise InputError(
                f"config.shared_layers gives {target!r} the parameters of {source!r}, which "
                + ("shares those of another module" if source in shared else "are of other names or shapes")
                + ": configuration and weights do not belong together"
            )
        for name, path in own[target].items():
            key, other = f"{prefix}{path}", base.get_parameter(own[source][name])
            if missing is not None and key not in missing and not torch.equal(base.get_parameter(path), other):
                raise InputError(
                    f"config.shared_layers says that {target!r} shares the parameters of {source!r}, and the file has "
                    "others for it: configuration and weights do not belong together"
                )
            tied[path] = own[source][name]
    for path, other in tied.items():
        _put(base, path, base.get_parameter(other))
    if hasattr(model.config, "shared_layers"):
        # What transformers goes by where it saves: these names are left out.
        own_keys = vars(base).setdefault("_tied_before", base._tied_weights_keys)  # of some models their own
        base._tied_weights_keys = {**(own_keys or {}), **tied}
    return {f"{prefix}{name}" for name in tied}


def renumber_sharing(model: PreTrainedModel, layers: str, kept: Sequence[int]) -> None:
    """Make `config.shared_layers` fit a model that has lost some of its layers, in place.

    Where the layer that the others took their parameters from is gone, they are those of the first
    that is left.

    Args:
        model: a model of transformers, its layers taken out already.
        layers: the name of the list that they were in, in `model.base_model`.
        kept: the numbers, ascending, that the layers left had before.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> shared = {f"encoder.layer.{n}": "encoder.layer.0" for n in (3, 4)}
        >>> model.config.shared_layers = shared
        >>> _ = apply_sharing(model)
        >>> del model.bert.encoder.layer[0]
        >>> renumber_sharing(model, "encoder.layer", [1, 2, 3, 4, 5])
        >>> model.config.shared_layers
        {'encoder.layer.3': 'encoder.layer.2'}
    """
    shared = shared_of(model)
    if not shared:
        return
    place = {number: i for i, number in enumerate(kept)}
    groups: dict[str, list[str]] = {}
    for target, source in shared.items():
        groups.setdefault(source, [source]).append(target)
    out: dict[str, str] = {}
    for group in groups.values():
        left = []
        for name in group:
            numbered = re.match(rf"{re.escape(layers)}\.(\d+)(.*)", name)
            if numbered is None:
                left.append((0, name))
            elif int(numbered[1]) in place:
                number = place[int(numbered[1])]
                left.append((number, f"{layers}.{number}{numbered[2]}"))
        names = [name for _, name in sorted(left)]
        for name in names[1:]:
            out[name] = names[0]
    model.config.shared_layers = dict(sorted(out.items()))
    apply_sharing(model)


def shared_of(model: PreTrainedModel) -> dict[str, str]:
    """Return for each module that has no parameters of its own the one whose it takes, by their
    names.

    Example:
        >>> import probes
        >>> shared_of(probes.load_checkpoint("bundled")[0])
        {}
    """
    return dict(SHARED_LAYERS.said(model.config) or {})


def unshare(model: PreTrainedModel) -> None:
    """Give every module parameters of its own again, in place: equal numbers, in separate tensors.

    Plain transformers loads what is saved then; it takes as much room as before the modules shared
    anything.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> model.config.shared_layers = {"encoder.layer.1": "encoder.layer.0"}
        >>> _ = apply_sharing(model)
        >>> unshare(model)
        >>> layers = model.bert.encoder.layer
        >>> layers[1].output.dense.weight is layers[0].output.dense.weight
        False
    """
    if not hasattr(model.config, "shared_layers"):
        return
    base: Any = model.base_model
    for target in model.config.shared_layers or {}:
        for path in _parameters(target, model).values():
            parameter = base.get_parameter(path)
            own = torch.nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad)
            _put(base, path, own)
    del model.config.shared_layers
    if "_tied_before" in vars(base):
        base._tied_weights_keys = vars(base).pop("_tied_before")


def layer_parameters(modules: Mapping[str, torch.nn.Module], name: str) -> dict[str, str]:
    """Return the parameters of a module, or of a layer of an LSTM, as "lstm.0": the name that each
    has in any such layer, and its own in the model.

    Args:
        modules: those of a model without its head, by name.
        name: of one of them, or of a `torch.nn.LSTM` and the number of its layer.

    Raises:
        KeyError: there is no such module or layer.

    Example:
        >>> list(layer_parameters({"lstm": torch.nn.LSTM(3, 4, num_layers=2, bias=False)}, "lstm.1").items())
        [('weight_ih', 'lstm.weight_ih_l1'), ('weight_hh', 'lstm.weight_hh_l1')]
    """
    if name in modules:
        return {n: f"{name}.{n}" for n, _ in modules[name].named_parameters(remove_duplicate=False)}
    owner, _, number = name.rpartition(".")
    lstm = modules.get(owner)
    if not isinstance(lstm, torch.nn.LSTM) or not number.isdigit() or int(number) >= lstm.num_layers:
        raise KeyError(name)
    own = re.compile(rf"(.+)_l{int(number)}(_reverse)?")
    found = ((own.fullmatch(n), n) for n, _ in lstm.named_parameters(remove_duplicate=False))
    return {match[1] + (match[2] or ""): f"{owner}.{n}" for match, n in found if match}


def _parameters(name: str, model: PreTrainedModel) -> dict[str, str]:
    try:
        return layer_parameters(dict(model.base_model.named_modules()), name)
    except KeyError:
        raise SHARED_LAYERS.unknown(model, name) from None


def _put(base: Any, path: str, parameter: torch.nn.Parameter) -> None:
    inside, _, last = path.rpartition(".")
    setattr(base.get_submodule(inside), last, parameter)


def _lacks(model: PreTrainedModel) -> str | None:
    base: Any = model.base_model
    for target, source in shared_of(model).items():
        other = _parameters(source, model)
        for name, path in _parameters(target, model).items():
            if name not in other or base.get_parameter(path) is not base.get_parameter(other[name]):
                return f"{target} has a {name} of its own"
    return None


def _forbidden(model: PreTrainedModel, verb: Verb) -> str | None:
    what = {"prune_heads": "heads", "prune_channels": "channels"}.get(verb)
    if what is None:
        return None
    return (
        f"{what} are chosen in each layer, and layers of this model share their parameters (config.shared_layers). "
        f"Prune its {what} first, then fuse it; or take copies apart with "
        "probes.models.formats.shared_layers.unshare"
    )


SHARED_LAYERS = Format(
    "shared_layers",
    "layers that share their parameters",
    {str: str},
    apply=apply_sharing,
    lacks=_lacks,
    forbids=_forbidden,
)
