"""The objective that keeps surviving weights close to those of a reference."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from typing import ClassVar, Literal

import torch
from transformers import PreTrainedModel

from compress.matrices import Matrix, every_matrix, transposed
from compress.objectives.base import Pass, check_choice, check_number, cosines, wide
from compress.views import MatrixView
from probes.errors import InputError


@dataclass(frozen=True)
class AlignedWeights:
    """Distance of a model's surviving weights from a reference, as the model before it was pruned.

    With w_i a row of a matrix W, the weights of one output unit, and w0_i and W0 those of the
    reference: "cosine" is the mean over rows of 1 - cos(w_i, w0_i), 0 to 2, whatever the scale of
    each unit; "frobenius" is ||W - W0|| / ||W0||, 0 where they are equal. The loss is the mean over
    the matrices.

    A weight that is exactly 0 counts as pruned: it gets no gradient from here. A row that is pruned
    as a whole has the cosine 0. Rows, and for "frobenius" matrices, that are zero in the reference
    have nothing to align with and count nothing.

    Args:
        reference: a model, or tensors by name. A copy is kept, so it may be the model that is
            trained. It may have another head than the model in training, or none.
        form: "cosine" or "frobenius".
        weight: what the loss is multiplied by.
        matrices: names of parameters of the model in training; without it, the matrices of its
            blocks that `compress.prune` prunes.
        name: what it is logged under, by default "aligned_weights_" and the form.

    Raises:
        InputError: the weight is negative or not finite, or the form unknown; at the check and the
            call, the model has no such matrices, or the reference lacks one or has it in another
            shape.

    Notes:
        O' Neill, Dutta and Assem 2022, arXiv 2204.01385: two regularisers that keep the units of a
        pruned network aligned with those of the unpruned one. The formulas are choices made here
        after their names; "frobenius" is relative, so that one weight suits all layers. The
        reference is the fine-tuned model, as recalled; the pretrained one can be given instead.
        With W = W0 but for pruned entries, each cosine is the square root of the share of the row's
        energy that is kept, and the distance that of the share of the matrix's that is lost.

    Example:
        >>> import probes
        >>> from compress import prune
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> aligned = AlignedWeights(model, form="frobenius")
        >>> aligned(Pass(model, None), None, {}).item()
        0.0
        >>> pruned = prune(model, sparsity=0.6)
        >>> 0.1 < aligned(Pass(pruned, None), None, {}).item() < 0.6
        True
    """

    reference: InitVar[PreTrainedModel | Mapping[str, torch.Tensor]]
    form: Literal["cosine", "frobenius"] = "cosine"
    weight: float = 1.0
    matrices: Sequence[str] | None = None
    name: str = ""
    needs: ClassVar[frozenset[str]] = frozenset()
    by_token: ClassVar[bool] = True  # it reads no text
    _kept: dict[str, torch.Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self, reference: PreTrainedModel | Mapping[str, torch.Tensor]) -> None:
        if not self.name:
            object.__setattr__(self, "name", f"aligned_weights_{self.form}")
        check_number(self.name, "weight", self.weight, least=0)
        check_choice(self.name, "form", self.form, ("cosine", "frobenius"))
        if isinstance(self.matrices, str) or (self.matrices is not None and not self.matrices):
            raise InputError(f"objective {self.name}: matrices={self.matrices!r}: expected a list of names, or None")
        tensors: Mapping[str, torch.Tensor]
        if not isinstance(reference, PreTrainedModel):
            tensors = reference
        elif self.matrices is None:
            tensors = {name: weight.detach() for name, weight in every_matrix(reference).items()}
        else:
            every, prefix = dict(reference.named_parameters()), reference.base_model_prefix
            found = [_known_as(name, prefix, every) for name in self.matrices]
            tensors = {name: every[name] for name in found if name is not None}
        self._kept.update({name: tensor.detach().clone() for name, tensor in tensors.items()})

    def check(self, student: PreTrainedModel, teacher: PreTrainedModel | None) -> None:
        """Raise `InputError` where student or reference lack the matrices."""
        for _ in self._matrices(student):
            pass

    def __call__(self, student: Pass, teacher: Pass | None, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the loss of the student's weights, times the weight; the batch plays no part."""
        each = []
        for weight, reference in self._matrices(student.model):
            w = weight.masked_fill(weight == 0, 0)  # what is pruned gets no gradient
            w, w0 = wide(w), reference.to(wide(w).dtype)
            if self.form == "cosine":
                there = (w0 != 0).any(1)
                each.append((1 - cosines(w, w0)).where(there, 0).sum() / there.sum().clamp_min(1))
            else:
                size = torch.linalg.vector_norm(w0)
                each.append(torch.linalg.vector_norm(w - w0) / size.where(size > 0, math.inf))
        return self.weight * torch.stack(each).mean()

    def _matrices(self, model: PreTrainedModel) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield each matrix and its reference on the same device, one row an output unit."""
        inside = every_matrix(model)
        parameters: dict[str, Matrix] = dict(model.named_parameters()) | inside  # type: ignore[operator]
        names = list(inside) if self.matrices is None else self.matrices
        if not names:
            raise InputError(f"objective {self.name}: {type(model).__name__} has no matrices in blocks: give matrices=")
        across = transposed(model, [name for name in names if name in parameters])
        for name in names:
            if name not in parameters or len(parameters[name].shape) != 2:
                raise InputError(
                    f"objective {self.name}: {type(model).__name__} has no matrix {name}: expected names of its "
                    f"parameters of two dimensions, such as {next(iter(inside), 'none')}"
                )
            found = parameters[name]
            weight: torch.Tensor = found.part(found.stack) if isinstance(found, MatrixView) else found
            known = _known_as(name, model.base_model_prefix, self._kept)
            if known is None:
                raise InputError(
                    f"objective {self.name}: the reference has no matrix {name}: give one of the model's architecture"
                )
            reference = self._kept[known]
            if reference.shape != weight.shape:
                raise InputError(
                    f"objective {self.name}: {name} has shape {tuple(weight.shape)}, in the reference "
                    f"{tuple(reference.shape)}: expected the same"
                )
            if reference.device != weight.device:
                reference = self._kept[known] = reference.to(weight.device)
            if across[name]:
                weight, reference = weight.T, reference.T
            yield weight, reference


def _known_as(name: str, prefix: str, among: Mapping[str, torch.Tensor]) -> str | None:
    """Return what a parameter is called among others, with or without the name of the body."""
    bare = name.removeprefix(f"{prefix}.")
    return next((known for known in (name, bare, f"{prefix}.{bare}") if known in among), None)
