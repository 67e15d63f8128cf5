"""Objectives that compare student and teacher layer by layer, token by token."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from compress.objectives.base import (
    HOW,
    Pass,
    Rows,
    attended_tokens,
    check_choice,
    check_number,
    check_shapes,
    given_layers,
    given_teacher,
    layer_pairs,
    wide,
)
from compress.objectives.scores import check_scores, watching_scores
from probes.errors import InputError
from probes.models.blocks import attention_outputs
from probes.models.facts import size_of
from probes.models.formats.heads_kept import heads_of
from probes.states.running import removed


@dataclass(frozen=True)
class _ByLayer:
    """What objectives of layers share: the mean over layers of the mean squared difference."""

    weight: float = 1.0
    layers: Mapping[int, int] | None = None
    name: str = ""
    first: ClassVar[int] = 0  # how many layers stand before that of the first block

    @property
    def what(self) -> str:
        """The attribute of `Pass` that is compared."""
        raise NotImplementedError

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"teacher", self.what})

    def __post_init__(self) -> None:
        check_number(self.name, "weight", self.weight, least=0)
        if self.layers is not None and not self.layers:
            raise InputError(
                f"objective {self.name}: layers is empty: give a layer of the teacher for each of the student's"
            )

    def check(self, student: PreTrainedModel, teacher: PreTrainedModel) -> None:
        """Raise `InputError` where student or teacher lack a layer that is compared."""
        self._pairs(len(self._sizes(student)), len(self._sizes(teacher)))

    def prepare(self, student: PreTrainedModel, teacher: PreTrainedModel, rows: Rows, seed: int) -> torch.nn.Module:
        """Return the maps from the student's sizes to the teacher's, where they differ."""
        s, t = self._sizes(student), self._sizes(teacher)
        return projections_of(
            s, t, self._pairs(len(s), len(t)), bias=self.what not in ("attentions", "attention_scores")
        )

    def __call__(self, student: Pass, teacher: Pass | None, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return the loss of a batch with `attention_mask` (batch, token), times the weight."""
        s, t = (given_layers(p, self.what, self.name) for p in (student, given_teacher(teacher, self.name)))
        each = []
        for i, j in self._pairs(len(s), len(t)):
            there = self._there(batch, s[i], t[j])
            mine = self._mapped(wide(s[i]), i, batch)
            check_shapes(self.name, HOW[self.what][0], mine, t[j])
            squares = (mine - wide(t[j]).detach()).masked_fill(~there, 0).square()
            each.append(squares.sum() / (there.sum().clamp_min(1) * (squares.numel() // there.numel())))
        return self.weight * torch.stack(each).mean()

    def _sizes(self, model: PreTrainedModel) -> list[int]:
        """Return how many features, or heads, each layer gives."""
        raise NotImplementedError

    def _pairs(self, student: int, teacher: int) -> list[tuple[int, int]]:
        """Return which of so many layers of the student is compared to which of the teacher's."""
        return layer_pairs(self.name, student, teacher, self.layers, self.first)

    def _mapped(self, x: torch.Tensor, layer: int, batch: Mapping[str, Any]) -> torch.Tensor:
        """Map what a layer of the student gives to the size of the teacher's."""
        return projected(x, layer, self.name, batch)

    def _there(self, batch: Mapping[str, torch.Tensor], x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Mark what is not padding in a layer's (batch, token, feature)."""
        return attended_tokens(batch, x, self.name)[..., None]


@dataclass(frozen=True)
class HiddenStates(_ByLayer):
    """Mean squared difference of the student's and the teacher's hidden states, layer by layer.

    The mean over layers, embeddings included, of the mean over features and over the tokens that
    are not padding of (student - teacher)^2, in squared units of the hidden states.

    Args:
        weight: what the loss is multiplied by.
        layers: the teacher's layer for each layer of the student that is compared, 0 the
            embeddings, i the states after block i; `compress.match_layers` proposes one. Without it
            all layers of the student, uniformly: with s blocks, i to the teacher's i t / s of t,
            rounded.
        name: what it is logged under.

    Raises:
        InputError: the weight is negative or not finite, or `layers` is empty; at the check and the
            call, layers are compared that student or teacher do not have, or the student has more
            than the teacher and no `layers`; at the call, the teacher or hidden states are missing,
            or they differ in width and there is no learned map.

    Notes:
        As in self-distilled quantization (O' Neill and Dutta 2023, arXiv 2307.05972), as recalled.
        Sparse progressive distillation (arXiv 2110.08190) and SparseBERT (arXiv 2104.08682) sum
        over the layers, which is a weight of the number of layers here, and their code takes the
        mean over padding as well. A learned map of its own for each layer, where the widths differ,
        and the uniform map are choices made here.

    Example:
        >>> import torch, probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> student = Pass(model, None, hidden_states=(torch.zeros(1, 2, 4), torch.zeros(1, 2, 4)))
        >>> teacher = Pass(model, None, hidden_states=(torch.zeros(1, 2, 4), torch.ones(1, 2, 4)))
        >>> float(HiddenStates()(student, teacher, {"attention_mask": torch.tensor([[1, 0]])}))
        0.5
    """

    name: str = "hidden_states"
    by_token: ClassVar[bool] = True
    first: ClassVar[int] = 1

    @property
    def what(self) -> str:
        """Hidden states."""
        return "hidden_states"

    def _sizes(self, model: PreTrainedModel) -> list[int]:
        return [size_of(model, "hidden_size")] * (1 + size_of(model, "num_hidden_layers"))


@dataclass(frozen=True)
class Attentions(_ByLayer):
    """Mean squared difference of the student's and the teacher's attention maps, layer by layer.

    The mean over blocks of the mean over heads and over pairs of tokens, of which neither is
    padding, of (student - teacher)^2. Probabilities, after the softmax, lie between 0 and 1, and so
    does the loss. Scores, before it, are Q K^T / sqrt(d) with what the model adds for positions;
    pairs that are masked are left out, and the loss has no bound.

    Args:
        weight: what the loss is multiplied by.
        layers: the teacher's layer for each layer of the student that is compared, 1 the first
            block: 0, the embeddings, has no attention. Without it all blocks of the student,
            uniformly: with s blocks, i to the teacher's i t / s of t, rounded.
        name: what it is logged under.
        form: "probabilities" or "scores".

    Raises:
        InputError: the weight is negative or not finite, `layers` is empty, or the form is not
            known; at the check and the call, blocks are compared that student or teacher do not
            have, or the student has more than the teacher and no `layers`; at the check, the scores
            of an architecture cannot be collected; at the call, the teacher or attention maps are
            missing, or they differ in heads and there is no learned map.

    Notes:
        Scores are what the code of sparse progressive distillation (Huang et al. 2022, arXiv
        2110.08190) and SparseBERT (Xu, Yen, Zhao, Xiao 2021, arXiv 2104.08682) compares, summed
        over blocks, those of padding (-100 and less) set to 0 and counted. Probabilities differ so
        much less that a weight of theirs does not carry over. The pairs that a decoder masks count
        as probabilities, which are 0 in both. Where heads differ, a learned mixture of the
        student's does.

    See also:
        `AttentionOutputs`, `HiddenStates`, `compress.recipes.sparse_bert`

    Example:
        >>> import torch, probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> itself = torch.eye(2)[None, None]  # what each token sees
        >>> student = Pass(model, None, attentions=(itself,))
        >>> teacher = Pass(model, None, attentions=(torch.full((1, 1, 2, 2), 0.5),))
        >>> float(Attentions()(student, teacher, {"attention_mask": torch.tensor([[1, 1]])}))
        0.25
    """

    name: str = "attentions"
    form: Literal["probabilities", "scores"] = "probabilities"

    @property
    def what(self) -> str:
        """Maps or scores."""
        return "attention_scores" if self.form == "scores" else "attentions"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.name, "form", self.form, ("probabilities", "scores"))

    def check(self, student: PreTrainedModel, teacher: PreTrainedModel) -> None:
        """Raise `InputError` where a block is not there, or scores cannot be collected."""
        super().check(student, teacher)
        for model in (student, teacher) if self.form == "scores" else ():
            check_scores(self.name, model)

    def _sizes(self, model: PreTrainedModel) -> list[int]:
        return heads_of(model)

    def _mapped(self, x: torch.Tensor, layer: int, batch: Mapping[str, Any]) -> torch.Tensor:
        x = x.masked_fill(x == -torch.inf, 0)  # which a mixture of heads would make NaN of
        return projected(x.movedim(1, -1), layer, self.name, batch).movedim(-1, 1)

    def _there(self, batch: Mapping[str, torch.Tensor], x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Mark pairs of tokens without padding, in a block's (batch, head, token, token)."""
        attended = attended_tokens(batch, x[:, 0], self.name)
        there = (attended[:, :, None] & attended[:, None, :])[:, None]
        for scores in (x, other):  # heads of a block mask the same pairs
            there = there & (scores[:, :1] > -torch.inf)
        return there


@dataclass(frozen=True)
class AttentionOutputs(_ByLayer):
    """Mean squared difference of what the heads of student and teacher give, block by block.

    A[l, h] = softmax(Q K^T / sqrt(d)) V of head h in block l, before the output projection. The
    mean over blocks and heads of the mean over features and over the tokens that are not padding of
    (student - teacher)^2, in squared units of the values V. It works with any implementation of
    attention.

    Args:
        weight, layers, name: as for `Attentions`.

    Raises:
        InputError: the weight is negative or not finite, or `layers` is empty; at the check, the
            attention outputs of the architecture are not known; at the check and the call, blocks
            are compared that student or teacher do not have, or the student has more than the
            teacher and no `layers`; at the call, the teacher or attention outputs are missing, or
            they differ in heads times their size and there is no learned map.

    Notes:
        The loss of self-distilled quantization (O' Neill and Dutta 2023, arXiv 2307.05972), where
        it is added to `CrossEntropy` and `SoftLabels`; form as recalled. Leaving out padding and
        `layers` are choices made here. Heads of one block have one size, so the mean over heads is
        one over all their features side by side; that is what is compared where student and teacher
        split the same width into heads of different number.

    Example:
        >>> import torch, probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> student = Pass(model, None, attention_outputs=(torch.zeros(1, 2, 4),))
        >>> teacher = Pass(model, None, attention_outputs=(torch.ones(1, 2, 4),))
        >>> float(AttentionOutputs()(student, teacher, {"attention_mask": torch.tensor([[1, 0]])}))
        1.0
    """

    name: str = "attention_outputs"
    by_token: ClassVar[bool] = True

    @property
    def what(self) -> str:
        """What heads give."""
        return "attention_outputs"

    def _sizes(self, model: PreTrainedModel) -> list[int]:
        return [_width(module) for module in _projections(model)]


@contextmanager
def watching(model: PreTrainedModel, needs: Collection[str]) -> Iterator[dict[str, list[torch.Tensor]]]:
    """Collect what objectives need of a model and it does not return: attention outputs, scores.

    Example:
        >>> import torch, probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> with watching(model, {"attention_scores", "labels"}) as seen:
        ...     _ = model(torch.tensor([[1, 2, 3]]))
        >>> {what: len(layers) for what, layers in seen.items()}
        {'attention_scores': 6}
    """
    ways = {"attention_scores": watching_scores, "attention_outputs": watching_attention}
    with ExitStack() as stack:
        yield {what: stack.enter_context(ways[what](model)) for what in ways if what in needs}


@contextmanager
def watching_attention(model: PreTrainedModel) -> Iterator[list[torch.Tensor]]:
    """Collect what the heads of each block give while a model runs (batch, token, heads * size).

    Args:
        model: a model of the BERT, DistilBERT, GPT-2 or Llama family; nothing of it is changed, and
            nothing is watched any more afterwards.

    Returns:
        A list that a forward pass fills, one entry a block.

    Raises:
        InputError: the architecture is not known.

    Example:
        >>> import torch, probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> with watching_attention(model) as seen:
        ...     _ = model(torch.tensor([[1, 2, 3]]))
        >>> len(seen), seen[0].shape
        (6, torch.Size([1, 3, 128]))
    """
    seen: list[torch.Tensor] = []
    with removed(m.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])) for m in _projections(model)):
        yield seen


def _projections(model: PreTrainedModel) -> list[torch.nn.Module]:
    """Return the attention output projection of each block."""
    found = attention_outputs(model)
    blocks = size_of(model, "num_hidden_layers")
    if len(found) != blocks or model.config.is_encoder_decoder:
        raise InputError(
            f"{type(model).__name__}: the attention outputs of this architecture are not known: expected a model of "
            f"one stack, {blocks} blocks with an attention output projection that probes.models.parts lists, found "
            f"{len(found)} and is_encoder_decoder={model.config.is_encoder_decoder}. Compare hidden states in their "
            "place"
        )
    return found


def _width(module: torch.nn.Module) -> int:
    """Return how many features a linear map reads."""
    # Conv1D, of GPT-2, has its inputs first and does not name them as Linear does.
    found: Any = module.weight.shape[0] if isinstance(module, Conv1D) else module.in_features
    return int(found)


def projections_of(
    student: Sequence[int], teacher: Sequence[int], pairs: Sequence[tuple[int, int]], bias: bool = True
) -> torch.nn.ModuleDict:
    """Return a linear map for each layer of the student of another size than the teacher's."""
    different = [(i, j) for i, j in pairs if student[i] != teacher[j]]
    return torch.nn.ModuleDict({str(i): torch.nn.Linear(student[i], teacher[j], bias) for i, j in different})


def projected(x: torch.Tensor, layer: int, name: str, batch: Mapping[str, Any]) -> torch.Tensor:
    """Map the last dimension by what was learned for a layer of the student, if something was."""
    learned = batch.get("modules", {}).get(name)
    if learned is None or str(layer) not in learned:
        return x
    linear: Any = learned[str(layer)]
    mapped: torch.Tensor = linear(x.to(linear.weight.dtype))
    return mapped.to(x.dtype)
