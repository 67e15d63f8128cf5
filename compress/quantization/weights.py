"""The matrices of a model that are quantised: which, how, and what they become."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from transformers import PreTrainedModel

from compress.matrices import Matrix, every_matrix, found_by, matrices_of, transposed
from compress.quantization.quantizers import (
    check_matrix,
    dequantize,
    packed_bytes,
    quantize_tensor,
)
from compress.views import MatrixView
from probes.errors import InputError


class QuantizedMatrices:
    """The matrices of a model that are quantised, how, and their values quantised."""

    def __init__(self, model: PreTrainedModel, chosen: Mapping[str, int], how: dict[str, Any]) -> None:
        """Args: a model, the bits of each matrix, and how `quantize_tensor` rounds."""
        self.bits, self.how = dict(chosen), how
        known: dict[str, Matrix] = dict(model.named_parameters(remove_duplicate=False))
        known |= {name: w for name, w in every_matrix(model).items() if isinstance(w, MatrixView)}
        self.parameters = {name: known[name] for name in chosen}
        self.transposed = transposed(model, chosen)
        for name, weight in self.parameters.items():
            if weight.dtype != torch.float32:
                raise InputError(
                    f"{name}: expected weights in float32, found {weight.dtype}, in which quantised values are not "
                    "exact. Give model.float()"
                )
            check_matrix(self.by_unit(name, weight.detach()), how["group"], name)

    def by_unit(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """Return a matrix as (unit, input), or one of that shape as the model has it."""
        return weight.T if self.transposed[name] else weight

    def rounded(self, names: Iterable[str] | None = None) -> dict[str, torch.Tensor]:
        """Return what the matrices, or those of some names, are when each value is rounded to the
        nearest one of its grid, as the model has them.
        """
        out = {}
        for name in self.parameters if names is None else names:
            weight = self.parameters[name]
            codes = quantize_tensor(self.by_unit(name, weight.detach()), self.bits[name], name=name, **self.how)
            out[name] = self.by_unit(name, dequantize(codes))
        return out

    def write(self, values: Mapping[str, torch.Tensor]) -> None:
        """Put values into the model."""
        with torch.no_grad():
            for name, value in values.items():
                self.parameters[name].detach().copy_(value)

    def read(self) -> dict[str, torch.Tensor]:
        """Return a copy of the values in the model."""
        return {name: weight.detach().clone() for name, weight in self.parameters.items()}

    def bytes(self) -> int:
        """Return how many bytes the packed matrices take."""
        how = {"group": self.how["group"], "symmetric": self.how["symmetric"]}
        shapes = {name: self.by_unit(name, weight.detach()).shape for name, weight in self.parameters.items()}
        return sum(packed_bytes((shapes[n][0], shapes[n][1]), self.bits[n], **how) for n in shapes)


def chosen_bits(
    model: PreTrainedModel, bits: int | Mapping[str, int], embeddings: bool, only: str | None
) -> dict[str, int]:
    """The matrices that are quantised, and their bits."""
    known = list(matrices_of(model, embeddings=embeddings))
    if isinstance(bits, Mapping):
        for name in bits:
            if name not in known:
                raise InputError(
                    f"bits names {name!r}, which is none of the matrices; they are {', '.join(known[:6])}, ... (all of "
                    "them: compress.matrices.every_matrix; with embeddings=True the word embeddings too)"
                )
        if not bits:
            raise InputError("bits names no matrix: expected a number of bits, or at least one matrix and its bits")
        chosen = {name: bits[name] for name in known if name in bits}
    else:
        chosen = dict.fromkeys(known, bits)
    return found_by(only, chosen)
