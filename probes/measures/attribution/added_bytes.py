"""How many bytes it takes to give modules their original weights back, as a model is stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from probes.costs import as_stored
from probes.models.coded_bytes import codeword_bytes, integer_bytes
from probes.models.formats.packed import saved_by_packing
from probes.models.weights import plain_parts

Pairs = Sequence[tuple[torch.nn.Module, torch.nn.Module]]


def added_bytes(base: PreTrainedModel, other: PreTrainedModel) -> Callable[[Pairs], int]:
    """Return what tells how many bytes more a compressed model takes where modules of it become those
    of the original: these less what they took, in the format that it is stored in.

    The format is the smallest that `compress.footprint` knows: of a pruned model without its zeros,
    of a rounded one by its codes. What modules share with others stays where it is, and is taken off
    nothing.

    Args:
        base, other: the original and the compressed model.

    Returns:
        A function of pairs, module of the original and of the compressed model.

    Example:
        >>> import compress, probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> block = model.bert.encoder.layer[0]
        >>> pruned = compress.prune(model, sparsity=0.6)
        >>> more = added_bytes(model, pruned)([(block, pruned.bert.encoder.layer[0])])
        >>> 0 < more < sum(p.nbytes for p in block.parameters())
        True

    See also:
        `compress.restore`.
    """
    stored_as = as_stored(other)["stored_as"]
    used: dict[int, int] = {}
    for _, parameter in other.named_parameters(remove_duplicate=False):
        used[id(parameter)] = used.get(id(parameter), 0) + 1
    coded = _coded(other) if stored_as in ("integers", "codebooks") else {}
    names = {id(p): name for model in (base, other) for name, p in model.named_parameters()}

    def plain(parameter: torch.Tensor) -> int:
        values = parameter.detach()
        size = sum(part.nbytes for part in plain_parts(values))
        return size - (saved_by_packing({names[id(parameter)]: values}) if stored_as == "packed" else 0)

    def more(pairs: Pairs) -> int:
        own: list[torch.Tensor] = []
        for _, module in pairs:
            own += [p for _, p in module.named_parameters(remove_duplicate=False)]
        here = [id(p) for p in own]
        gone = {id(p): p for p in own if here.count(id(p)) == used[id(p)]}
        came = {id(p): p for module, _ in pairs for p in module.parameters()}
        taken = sum(coded[i] if i in coded else plain(p) for i, p in gone.items())
        return sum(plain(p) for p in came.values()) - taken

    return more


def _coded(model: PreTrainedModel) -> dict[int, int]:
    """The bytes of each parameter that a simulated rounding stores by codes."""
    said: Mapping[str, Any] = getattr(model.config, "compression", None) or {}
    out, names = {}, set(said["quantized"])
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name in names:
            across = isinstance(model.get_submodule(name.rpartition(".")[0]), Conv1D)
            values = parameter.detach().T if across else parameter.detach()
            out[id(parameter)] = _of_matrix(said, name, values)
        elif any(n.startswith(f"{name}.") for n in names):  # several matrices in one
            out[id(parameter)] = round(parameter.numel() * said["average_bits"] / 8)
    return out


def _of_matrix(said: Mapping[str, Any], name: str, values: torch.Tensor) -> int:
    if "codes" in said:
        return codeword_bytes(values, said["codes"], said["block"])
    bits = said["bits"][name] if isinstance(said["bits"], Mapping) else said["bits"]
    units, width = values.shape
    return integer_bytes((units, width), bits, said["group"], symmetric=said["symmetric"])
