"""What an objective is, and what all of them need: checks before a training, and parts of a batch.

A training loop calls each objective once a batch with what student and teacher gave, and adds up
what comes back:

    loss = sum(objective(student, teacher, batch) for objective in objectives)

An objective is any object with `name`, `weight`, `needs` and such a call, see `Objective`. Those
here compute in float32 at least, whatever the models compute in. No gradient reaches the teacher.

Where student and teacher differ in width, objectives that compare their features learn a linear
map, with bias, of the student's to the teacher's, one for each pair of layers that is compared;
after the training it is gone.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.kinds import COLUMNS
from probes.errors import InputError
from probes.models.facts import head_of, size_of

NEEDS = frozenset({"labels", "teacher", "hidden_states", "attentions", "attention_scores", "attention_outputs"})
IGNORED = -100  # the label of a token that has none
# What layers have to compare, in words, and how a model is made to give it.
HOW = {
    "hidden_states": ("hidden states", "call it with output_hidden_states=True"),
    "attentions": (
        "attention maps",
        'call it with output_attentions=True after model.set_attn_implementation("eager"); no other implementation '
        "returns them",
    ),
    "attention_scores": ("attention scores", "call it within watching_scores(model)"),
    "attention_outputs": ("attention outputs", "call it within watching_attention(model)"),
}

Rows = Sequence[Mapping[str, Any]]  # the texts that are trained on, as `compress.rows.training_rows` gives them


@dataclass(frozen=True)
class Pass:
    """What a model gave for one batch.

    Attributes:
        model: the model itself, without what a training loop wraps around it.
        logits: (batch, class), or (batch, token, class) of a model that labels or predicts tokens;
            None without a head.
        hidden_states: (batch, token, feature) of the embeddings and after each block, where they
            were asked for.
        attentions: (batch, head, token, token), probabilities of each block, where asked for.
        attention_outputs: (batch, token, heads * size) of each block, what its heads give, side by
            side, before the output projection, where they were asked for; `watching_attention`
            collects them.
        attention_scores: what the softmax makes attentions of, -inf where a pair is masked, where
            they were asked for; `watching_scores` collects them.
        output_inputs: (batch, token, feature), what would be fed to an output layer that is left out.

    Example:
        >>> import probes, torch
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> out = model(torch.tensor([[1, 2, 3]]), output_hidden_states=True)
        >>> given = Pass(model, out.logits, out.hidden_states)
        >>> given.logits.shape, len(given.hidden_states)
        (torch.Size([1, 6]), 7)
    """

    model: PreTrainedModel
    logits: torch.Tensor | None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    attention_outputs: tuple[torch.Tensor, ...] | None = None
    attention_scores: tuple[torch.Tensor, ...] | None = None
    output_inputs: torch.Tensor | None = None


class Objective(Protocol):
    """What a training loop asks of an objective.

    It may also have a method `check(student, teacher)` of two models, the teacher None where there
    is none, that raises `InputError` where it cannot work with them; `check` of this module calls
    it.

    One that takes labels of some kinds alone has the attribute `kinds`, of what
    `probes.models.facts.head_of` says, or an empty one that takes none; `check` refuses others.

    One that does not need labels, and takes those there are for the teacher's classes, has the
    attribute `labels_of`, "teacher".

    An objective that learns or remembers something has a method `prepare(student, teacher, rows,
    seed)`, which `compress.training.train` calls once before the first step, with both models in
    evaluation mode and on their device (the teacher None where there is none), the rows of
    `compress.rows.training_rows`, and the seed of the training. It returns a `torch.nn.Module`, as
    a `State`: its parameters are trained beside the student's, by the learning rate of the training
    or the objective's attribute `learning_rate`, and its buffers are kept in checkpoints with them.
    At each call `batch["modules"][name]` is that module, `batch["index"]` (batch,) says which of
    the rows the texts are, and `batch["tokenizer"]` reads for the student; where the module has
    `noted`, name -> number, it is logged beside the losses. The objective itself stays as it is,
    and can be used again.

    One that changes what the models read has a method `alter(batch, tokenizer)`, which returns the
    entries of the batch that are other or new, as `input_ids` and `targets`, or `inputs_embeds`,
    which the student reads instead; one at most of those trained on together. A method
    `check_text(student, tokenizer, rows)` of it raises `InputError` where it cannot; where it has
    `words` true, the batch has `words` (batch, token), the number of each token's word, or -1.

    One with the attribute `packed` true has several texts in each row; beside it are only those
    whose attribute `by_token` is true: they compare tokens, each by itself.

    One whose loss is a mean over texts has a method `each(student, teacher, batch)`, to be called in
    place of it: the loss of each text (batch,), times the weight, whose mean is what the call gives.
    `Robust` counts texts by it.

    One that reads columns of the corpus has the attribute `columns`, their names: the rows that it
    is given have them as `beside`, as `compress.rows.training_rows` says; where its attribute
    `apart` is true, the texts of a pair are read apart.
    Where the modules of all have the attribute `samples` true, the output layer does not run.

    Under `torchrun` each process calls it on the whole of every batch, so that what it remembers is
    the same in all of them, as long as it draws from a generator of its own, seeded by `seed` and
    what the module holds.

    See also:
        `objectives.check`, `training.train`

    Example:
        >>> import torch
        >>> class Entropy:  # of what the student says, in nats
        ...     name, weight, needs = "entropy", 0.1, frozenset()
        ...
        ...     def __call__(self, student, teacher, batch):
        ...         said = torch.distributions.Categorical(logits=student.logits)
        ...         return self.weight * said.entropy().mean()
        >>> round(float(Entropy()(Pass(None, torch.zeros(2, 6)), None, {})), 3)  # log(6) / 10
        0.179
    """

    @property
    def name(self) -> str:
        """What its values are logged under."""

    @property
    def weight(self) -> float:
        """What its loss is multiplied by, at least 0."""

    @property
    def needs(self) -> frozenset[str]:
        """What the loop must provide beside the logits: any of `NEEDS`."""

    def __call__(self, student: Pass, teacher: Pass | None, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return the loss of a batch, a scalar, times `weight`."""


class State(torch.nn.Module):
    """What an objective learns or remembers, with a count of its batches; `prepare` returns it.

    Args:
        seed: of what is drawn in a batch.

    Attributes:
        batches: batches so far, kept in checkpoints. What is drawn in a batch depends on it and the
            seed only, so that a training that goes on from what was saved draws as it would have.

    Example:
        >>> state = State(seed=3)
        >>> first, again = state.generator().random(), state.generator().random()
        >>> state.batches += 1
        >>> first == again, first == state.generator().random()
        (True, False)
    """

    batches: torch.Tensor

    def __init__(self, seed: int = 0) -> None:
        """Begin with no batch."""
        super().__init__()
        self.seed = seed
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))

    def generator(self) -> np.random.Generator:
        """Return the random numbers of the batch that comes next."""
        return np.random.default_rng([self.seed, int(self.batches)])


def check(
    objectives: Sequence[Objective],
    student: PreTrainedModel,
    teacher: PreTrainedModel | None,
    labelled: bool,
    tokenizer: PreTrainedTokenizerBase | None = None,
    rows: Rows = (),
) -> None:
    """Raise where objectives cannot work with two models and the data, before any training.

    Args:
        objectives: what the student is to be trained on.
        student: the model to be trained.
        teacher: the model it learns from, where there is one.
        labelled: whether the data has labels.
        tokenizer, rows: for objectives that change what the models read.

    Raises:
        InputError: there are no objectives; two change what the models read, or one cannot; two
            have one name; a weight is negative or not finite; labels or a teacher are needed and
            there are none; student and teacher differ in classes, or lack layers, where an
            objective compares them, or are of an architecture whose attention outputs are not
            known; a reference lacks a matrix or has it in another shape.

    Example:
        >>> import compress, probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> check([compress.SoftLabels()], model, None, labelled=True)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        probes.errors.InputError: objective soft_labels needs a teacher, found none: ...
    """
    for role, model in (("student", student), ("teacher", teacher)):
        if model is not None and not isinstance(model, PreTrainedModel):
            raise InputError(f"the {role} is a {type(model).__name__}: expected a model of transformers")
    if not objectives:
        raise InputError("expected at least one objective, found none: without one there is nothing to train on")
    names = [objective.name for objective in objectives]
    changing = [o.name for o in objectives if hasattr(o, "alter")]
    if len(changing) > 1:
        raise InputError(f"the objectives {' and '.join(changing)} each change what the models read: take one of them")
    packing = [o.name for o in objectives if getattr(o, "packed", False)]
    for objective in objectives:
        name = objective.name
        if packing and not getattr(objective, "by_token", False):
            raise InputError(
                f"objective {name} compares texts, and {packing[0]} packs several of them into a row (packed=True): "
                "leave one of the two out"
            )
        if names.count(name) > 1:
            raise InputError(f"{names.count(name)} objectives are named {name}: give each its own name, with name=...")
        check_number(name, "weight", objective.weight, least=0)
        if unknown := sorted(objective.needs - NEEDS):
            raise InputError(f"objective {name} needs {unknown}: expected any of {sorted(NEEDS)}")
        if "labels" in objective.needs and not labelled:
            raise InputError(f"objective {name} needs labels, the data has none: {_to_add(student)}, or leave it out")
        if labelled or "labels" in objective.needs:
            _check_kind(objective, student)
        if "teacher" in objective.needs and teacher is None:
            raise InputError(f"objective {name} needs a teacher, found none: give one, or leave it out")
        if (own_check := getattr(objective, "check", None)) is not None:
            own_check(student, teacher)
        if rows and (check_text := getattr(objective, "check_text", None)) is not None:
            check_text(student, tokenizer, rows)


def _to_add(model: PreTrainedModel) -> str:
    """What there is to add where labels are missing, by the head that they are for."""
    head = head_of(model)
    if head not in COLUMNS or head in ("classes", "numbers"):
        return "add a label column"
    column, holds = COLUMNS[head]
    return f"add a column {column!r}, {holds}"


def _check_kind(objective: Objective, model: PreTrainedModel) -> None:
    """Raise where an objective cannot take the labels of a head."""
    kinds, head = getattr(objective, "kinds", None), head_of(model)
    if kinds is None or head is None or head in kinds:
        return
    taken = " or ".join(COLUMNS[kind][1] for kind in COLUMNS if kind in kinds)
    found = COLUMNS[head][1] if head in COLUMNS else "the tokens of a text"
    raise InputError(
        f"objective {objective.name} takes labels of {taken}, and the head of {type(model).__name__} is for {found}: "
        "take another objective, or another head"
    )


def wide(x: torch.Tensor) -> torch.Tensor:
    """Return a tensor in float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def given_teacher(teacher: Pass | None, name: str) -> Pass:
    """Return what the teacher gave; raise where there is none."""
    if teacher is None:
        raise InputError(f"objective {name} needs a teacher, found none: give one, or leave it out")
    return teacher


def given_entry(batch: Mapping[str, torch.Tensor], key: str, name: str) -> torch.Tensor:
    """Return an entry of a batch; raise where there is none."""
    if batch.get(key) is None:
        raise InputError(f"objective {name}: the batch has no {key}, found {sorted(batch)}: add it")
    return batch[key]


def given_logits(given: Pass, name: str) -> torch.Tensor:
    """Return the logits a model gave, in float32 at least; raise where there are none."""
    if given.logits is None:
        raise InputError(
            f"objective {name}: {type(given.model).__name__} gave no logits: expected a model with a head of classes"
        )
    return wide(given.logits)


def given_layers(given: Pass, what: str, name: str) -> tuple[torch.Tensor, ...]:
    """Return what a model gave by layer: `hidden_states`, `attentions` and so on."""
    found: tuple[torch.Tensor, ...] | None = getattr(given, what)
    if not found or any(layer is None for layer in found):
        words, how = HOW[what]
        raise InputError(f"objective {name}: {type(given.model).__name__} gave no {words}: {how}")
    return found


def attended_tokens(batch: Mapping[str, torch.Tensor], like: torch.Tensor, name: str) -> torch.Tensor:
    """Mark the tokens that are not padding (batch, token), for a tensor that begins so."""
    mask = given_entry(batch, "attention_mask", name)
    if mask.shape != like.shape[:2]:
        raise InputError(
            f"objective {name}: expected an attention_mask of shape {tuple(like.shape[:2])}, one entry to each token, "
            f"found {tuple(mask.shape)}"
        )
    return mask.bool()


def uniform_layers(student: int, teacher: int) -> list[int]:
    """Return for each layer of a student of some blocks, 0 the embeddings, the teacher's that fits.

    Example:
        >>> uniform_layers(2, 6), uniform_layers(3, 4)
        ([0, 3, 6], [0, 1, 3, 4])
    """
    # Halves up: of 5 blocks 2 stand for the 3rd and the 5th.
    return [(2 * i * teacher + student) // (2 * student) for i in range(student + 1)] if student else [0]


def layer_pairs(
    name: str, student: int, teacher: int, layers: Mapping[int, int] | None, first: int
) -> list[tuple[int, int]]:
    """Return which of so many layers of the student is compared to which of the teacher's.

    Of them `first`, 1 or 0, stand before that of the first block: the embeddings, or nothing.
    `layers` counts from 0, the embeddings; what comes back are places among those that can be
    compared.
    """
    if layers is None:
        if student > teacher:
            raise InputError(
                f"objective {name}: the student has {student} layers to compare, the teacher {teacher}: say with "
                "layers= which of the teacher's each of the student's is compared to"
            )
        uniform = uniform_layers(student - first, teacher - first)
        return [(i, uniform[i + 1 - first] - 1 + first) for i in range(student)]
    least = 1 - first
    for i, j in layers.items():
        if not (least <= i < least + student and least <= j < least + teacher):
            raise InputError(
                f"objective {name}: layers has {i}: {j}: expected a layer of the student from {least} to "
                f"{least + student - 1} and one of the teacher from {least} to {least + teacher - 1}"
                f"{', as 0 is the embeddings' if least else ''}"
            )
    return [(i - least, j - least) for i, j in layers.items()]


def class_count(model: PreTrainedModel) -> int:
    """Return how many classes a model tells apart, or tokens it predicts."""
    return size_of(model, "vocab_size") if model.get_output_embeddings() is not None else model.config.num_labels or 0


def check_classes(name: str, model: PreTrainedModel) -> None:
    """Raise where a model does not tell classes apart."""
    if model.base_model is model and model.get_output_embeddings() is None:
        raise InputError(f"objective {name}: {type(model).__name__} has no head: expected a model that gives classes")
    if class_count(model) < 2:
        raise InputError(
            f"objective {name}: {type(model).__name__} gives {class_count(model)} number(s) a text or token: "
            "expected at least two classes"
        )


def check_shapes(name: str, what: str, student: torch.Tensor, teacher: torch.Tensor) -> None:
    """Raise where what student and teacher gave differs in shape."""
    if student.shape != teacher.shape:
        raise InputError(
            f"objective {name}: {what} of shape {tuple(student.shape)} by the student, {tuple(teacher.shape)} by the "
            "teacher: expected the same"
        )


def check_choice(name: str, setting: str, value: str, known: tuple[str, ...]) -> None:
    """Raise where a setting is none of the known words."""
    if value not in known:
        raise InputError(f"objective {name}: {setting}={value!r}: expected one of {known}")


def check_number(name: str, setting: str, value: float, *, least: float = -math.inf, above: float = -math.inf) -> None:
    """Raise where a setting is no finite number within its bounds."""
    if not isinstance(value, numbers.Real) or not math.isfinite(value) or value < least or value <= above:
        bound = f"above {above:g}" if above > -math.inf else f"at least {least:g}"
        raise InputError(f"objective {name}: {setting}={value!r}: expected a finite number {bound}")


def check_softened(name: str, weight: float, temperature: float) -> None:
    """Raise where the weight of a loss is negative, or the temperature that it softens by not above 0."""
    check_number(name, "weight", weight, least=0)
    check_number(name, "temperature", temperature, above=0)


def is_whole(value: object) -> bool:
    """Say whether something is a whole number, of Python or NumPy; True and False are none."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Say whether something is a finite real number, of Python or NumPy; True and False are none."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def pooled(states: torch.Tensor, attended: torch.Tensor, pooling: str) -> torch.Tensor:
    """Return one representation a text: its first token's, or the mean over all but padding."""
    states = wide(states)
    if pooling == "first":  # after padding, where that is on the left
        return states[torch.arange(len(states), device=states.device), attended.int().argmax(1)]
    return states.masked_fill(~attended[..., None], 0).sum(1) / attended.sum(1, keepdim=True).clamp_min(1)


def given_module(batch: Mapping[str, Any], name: str) -> Any:
    """Return what `prepare` of an objective made; raise where it is not in the batch."""
    modules = batch.get("modules") or {}
    if name not in modules:
        raise InputError(
            f"objective {name}: the batch has no module of it, found {sorted(modules)}: call prepare once before "
            f'training and give what it returns as batch["modules"]["{name}"]'
        )
    return modules[name]


def check_count(name: str, setting: str, value: int) -> None:
    """Raise where a setting is no whole number of at least 1."""
    if not is_whole(value) or value < 1:
        raise InputError(f"objective {name}: {setting}={value!r}: expected a whole number of at least 1")


def cosines(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Cosine of each row of x with that of y; 0, with a finite gradient, where one is zero."""
    lengths = (torch.linalg.vector_norm(z, dim=1) for z in (x, y))
    x_length, y_length = (length.where(length > 0, 1) for length in lengths)
    return (x * y).sum(1) / (x_length * y_length)
