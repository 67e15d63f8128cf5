"""Whether two models have their weights at the same places, and of which layer each is."""

from __future__ import annotations

from transformers import PreTrainedModel

from compress.matrices import check_plain
from probes.errors import InputError
from probes.models.facts import name_of
from probes.models.formats.factorized import FACTORS
from probes.states.resumed import blocks_of


def check_places(other: PreTrainedModel, base: PreTrainedModel) -> None:
    """Raise `InputError` where weights of one model could not stand in another: other class, depth,
    type of numbers, names or shapes; modules that are in factors in `other` alone may differ.

    Example:
        >>> import compress, probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> check_places(compress.prune(model, sparsity=0.6), model)
        >>> check_places(compress.prune_heads(model, 0.5), model)
        Traceback (most recent call last):
            ...
        probes.errors.InputError: bert.encoder.layer.0.attention.self.query.weight is 64 x 128 ...
    """
    for model in (other, base):
        check_plain(model)
    names = [name_of(model) for model in (other, base)]
    if type(other) is not type(base):
        raise InputError(
            f"{names[0]!r} is a {type(other).__name__} and {names[1]!r} a {type(base).__name__}: give back to a model "
            "what was taken from one of its own kind"
        )
    depths = [len(blocks_of(model)) for model in (other, base)]
    if depths[0] != depths[1]:
        raise InputError(
            f"{names[0]!r} has {depths[0]} layers and {names[1]!r} {depths[1]}: what is given back goes where it was, "
            "which needs models of one depth. Compress again with fewer layers taken out"
        )
    if other.dtype != base.dtype:
        raise InputError(f"{names[0]!r} is in {other.dtype} and {names[1]!r} in {base.dtype}: load both in one")
    factors = factors_of(other, base)
    mine = {k: tuple(p.shape) for k, p in other.named_parameters() if not inside(factors, k)}
    theirs = {k: tuple(p.shape) for k, p in base.named_parameters() if not inside(factors, k)}
    for key in [*mine, *theirs]:
        one, two = (" x ".join(map(str, m[key])) if key in m else "not there" for m in (mine, theirs))
        if one != two:
            raise InputError(
                f"{key} is {one} in {names[0]!r} and {two} in {names[1]!r}. What is given back are weights where they "
                "were: of models that were pruned by single weights, quantised or factorised, and not of those from "
                "which heads, channels or tokens were taken, or whose layers share their weights"
            )


def inside(factors: list[str], key: str) -> bool:
    """Return whether a parameter is of one of some modules.

    Example:
        >>> inside(["encoder.0"], "encoder.0.weight"), inside(["encoder.1"], "encoder.10.weight")
        (True, False)
    """
    return any(key.startswith(f"{name}.") for name in factors)


def factors_of(model: PreTrainedModel, base: PreTrainedModel) -> list[str]:
    """Return the modules that are in factors in one model and whole in another, by name.

    Example:
        >>> import compress, probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> factors_of(compress.factorize(model, rank=8, only=r"layer\\.0\\.output"), model)
        ['bert.encoder.layer.0.output.dense']
    """
    theirs = dict(base.named_modules())
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, FACTORS) and name in theirs and not isinstance(theirs[name], FACTORS)
    ]


def layers_of(model: PreTrainedModel) -> dict[str, int]:
    """Return of each parameter of a model the layer whose states it helps to make: 0 before the
    first block, the last one after all blocks.

    Example:
        >>> import probes
        >>> found = layers_of(probes.load_checkpoint("bundled")[0])
        >>> found["bert.embeddings.LayerNorm.weight"], found["bert.encoder.layer.2.output.dense.bias"]
        (0, 3)
        >>> found["classifier.weight"]
        6
    """
    numbers = {id(block): number for number, block in enumerate(blocks_of(model), start=1)}
    prefixes = [(f"{name}.", numbers[id(m)]) for name, m in model.named_modules() if id(m) in numbers]
    out: dict[str, int] = {}
    for key, _ in model.named_parameters():
        after = max(out.values(), default=0) and len(numbers)
        out[key] = next((number for prefix, number in prefixes if key.startswith(prefix)), after)
    return out
