"""What the loss of a classifier does where a weight changes: its slope, and how it bends, over texts."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import datasets
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.experts import ExpertMatrix
from compress.inputs import row_batches
from compress.matrices import Matrix
from compress.rows import training_rows
from compress.views import MatrixView
from probes.errors import InputError, LayerscopeWarning
from probes.models.facts import head_of, name_of
from probes.states.running import evaluating

_Matrices = Mapping[str, Matrix]


def mean_gradients(
    model: PreTrainedModel,
    matrices: _Matrices,
    corpus: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    criterion: str = "gradient",
) -> dict[str, torch.Tensor]:
    """Return the gradient of the mean cross-entropy over a corpus, by matrix, without dropout or a
    trace.

    Args:
        model: with a head that gives each text one of several classes.
        matrices: of the model, by name.
        corpus: with labels; of split "train", where it has splits.
        tokenizer: of the model.
        criterion: what it is for, in messages.

    Raises:
        InputError: the head is of another kind, or the corpus has no labels.
    """
    rows = _rows(model, corpus, tokenizer, criterion, labels=True)
    parameters = _parameters(matrices)
    total, count = {key: torch.zeros_like(p) for key, p in parameters.items()}, 0
    with evaluating(model, model.device), torch.enable_grad():
        for batch in row_batches(rows, tokenizer, model):
            labels = batch.pop("labels")
            loss = torch.nn.functional.cross_entropy(model(**batch).logits, labels, reduction="sum")
            found = torch.autograd.grad(loss, list(parameters.values()))
            for key, gradient in zip(parameters, found, strict=True):
                total[key] += gradient
            count += len(labels)
    return _by_matrix(model, matrices, {key: value / count for key, value in total.items()})


def curvatures(
    model: PreTrainedModel,
    matrices: _Matrices,
    corpus: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    criterion: str,
) -> dict[str, torch.Tensor]:
    """Return the diagonal of the curvature of the mean cross-entropy over a corpus, by matrix: at
    least 0, in float64.

    Args:
        model, matrices, corpus, tokenizer: as in `mean_gradients`; without labels for "obd".
        criterion: "fisher", the mean over the texts of the squared gradient of the loss of a text;
            or "obd", the same over all classes in place of the label, each by its probability.

    Returns:
        Of each matrix, in its shape. "obd" is the diagonal of the Gauss-Newton matrix, exactly: that
        of the Hessian without what the second derivatives of the logits add to it.

    Raises:
        InputError: the head is of another kind; for "fisher" the corpus has no labels.
    """
    rows = _rows(model, corpus, tokenizer, criterion, labels=criterion == "fisher")
    parameters = _parameters(matrices)
    total = {key: torch.zeros_like(p, dtype=torch.float64) for key, p in parameters.items()}
    every = list(parameters.values())
    with evaluating(model, model.device), torch.enable_grad():
        # A text at a time: of several the squares would be of their sum, and as large as all weights for each anyway.
        for row in rows:
            (batch,) = row_batches([row], tokenizer, model)
            label = batch.pop("labels") if "labels" in batch else None
            surprise = -model(**batch).logits[0].float().log_softmax(-1)
            classes = range(len(surprise)) if criterion == "obd" or label is None else [int(label[0])]
            for number in classes:
                share = float(surprise[number].detach().neg().exp()) if criterion == "obd" else 1.0
                found = torch.autograd.grad(surprise[number], every, retain_graph=number != classes[-1])
                for value, gradient in zip(total.values(), found, strict=True):
                    value.add_(gradient.double().square_(), alpha=share / len(rows))
    return _by_matrix(model, matrices, total)


def say_unreached_experts(model: PreTrainedModel, names: Sequence[str]) -> None:
    """Warn of experts that the router sends no token of the texts."""
    experts = sorted({name.rpartition(".")[0].rpartition(".")[0] + name[name.rfind(".") :] for name in names})
    if experts:
        warnings.warn(
            f"{name_of(model)}: no text reaches {len(experts)} of its experts, {', '.join(experts[:8])}"
            f"{', ...' if len(experts) > 8 else ''}: nothing is known of what their weights are fed, so those of one "
            "input count as much as those of another. Give more texts, or leave them out by only=",
            LayerscopeWarning,
            stacklevel=4,
        )


def _rows(
    model: PreTrainedModel, corpus: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, criterion: str, labels: bool
) -> list[dict[str, object]]:
    if (head := head_of(model)) not in ("classes", None):
        raise InputError(
            f"criterion={criterion!r} is of the loss of one class a text, and the head of {name_of(model)} is for "
            f"{head}: choose 'movement', which is gathered in training by any objective, or 'magnitude'"
        )
    rows, labelled = training_rows(corpus, model, tokenizer)
    if labels and not labelled:
        raise InputError(f"criterion={criterion!r} needs labels, and the corpus has none. Give a column 'label'")
    return rows


def _parameters(matrices: _Matrices) -> dict[int, torch.nn.Parameter]:
    return {id(p): p for p in (_parameter(w) for w in matrices.values())}


def _parameter(weight: Matrix) -> torch.nn.Parameter:
    return weight.stack if isinstance(weight, MatrixView) else weight


def _by_matrix(
    model: PreTrainedModel, matrices: _Matrices, found: Mapping[int, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """What was found of parameters, by matrix; say which experts no text reaches."""
    whole = {name: found[id(_parameter(w))] for name, w in matrices.items()}
    out = {n: w.part(whole[n]) if isinstance(w, MatrixView) else whole[n] for n, w in matrices.items()}
    say_unreached_experts(model, [n for n, w in matrices.items() if isinstance(w, ExpertMatrix) and not out[n].any()])
    return out
