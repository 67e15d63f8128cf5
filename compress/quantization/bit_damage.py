"""What it does to a model's representations to round each matrix, or each layer, alone."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import datasets
import numpy as np
import pandas as pd
import torch
import xarray as xr
from scipy.special import log_softmax
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.experts import expert_matrices
from compress.matrices import Matrix, block_of, matrices_of, transposed
from compress.quantization.quantizers import (
    check_bits,
    check_matrix,
    check_quantizer,
    dequantize,
    packed_bytes,
    quantize_tensor,
)
from probes.corpus import check_corpus
from probes.errors import InputError, LayerscopeWarning, check_choice
from probes.measures.attribution.output_damage import OutputDamage
from probes.measures.classes.class_separability import class_separability
from probes.measures.fidelity.loyalty import divergence
from probes.measures.languages.pairs import check_pivot
from probes.models.facts import check_fit, classifies, embedding_rows
from probes.states.capture import capture
from probes.states.representations import directions
from probes.states.running import check_settings, removed

CHOICES = (2, 3, 4, 5, 6, 8)
COLUMNS = ["unit", "bits", "damage", "bytes"]
_TEMPERATURE = 0.05


def bit_damage(
    model: PreTrainedModel,
    corpus: datasets.Dataset | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    damage: str = "alignment",
    choices: Collection[int] = CHOICES,
    by: str = "matrix",
    pivot: str | None = None,
    group: str | int = "channel",
    symmetric: bool = True,
    ranges: str = "minmax",
    percentile: float = 99.9,
    progress: bool = True,
    **settings: Any,
) -> pd.DataFrame:
    """Measure what it does to representations to round one matrix, or one layer, alone.

    The corpus runs through the model once for every unit and number of bits, and once more.

    Args:
        model: a model of transformers, in float32; it is not changed.
        corpus: as `probes.load_corpus` gives it; not needed for "weights".
        tokenizer: of the model.
        damage: what is measured, 0 where nothing has changed, on the states of the last layer or
            the predictions: "alignment": how far the matching of translations has moved. Every
            sentence of the pivot is matched with those of another language by a softmax over
            cosines / 0.05, and the other way round; the Kullback-Leibler divergence of the
            original's probabilities to the rounded model's, in nats, mean over both directions and
            over languages. "drift": 1 - mean cosine of a sentence's states in both models, 0 to 2.
            "loyalty": mean Jensen-Shannon divergence of the predicted probabilities, in bits, 0 to
            1. "separability": size of the change of `probes.class_separability`, mean over
            languages, 0 to 1. "effect": what the output lacks, as `probes.patching` and
            `compress.restore` measure it: the Kullback-Leibler divergence of the original's
            probabilities of classes or tokens to the rounded model's, in nats, mean over texts, or
            without a head 1 - cosine of pooled vectors. "weights": the sum of squared changes of
            the weights, which needs no text.
        choices: numbers of bits to measure, 1 to 8, as `compress.quantize` takes them.
        by: "matrix", each matrix alone, or "layer", those of a layer together.
        pivot: for "alignment", the language that every other one is compared with; by default the
            first of the corpus.
        group, symmetric, ranges, percentile: as in
            `compress.quantization.quantizers.quantize_tensor`.
        progress: show a progress bar.
        settings: of `probes.capture`: pooling, max_length, dtype, device, batch_size, batch_tokens.

    Returns:
        One row a unit and number of bits: `unit`, the name of the matrix or of its layer, `bits`,
        `damage`, and `bytes`, of the packed unit.

    Raises:
        InputError: choices, by, damage or settings of the quantiser are out of range; corpus,
            tokenizer, translations, labels or a head are needed and missing; weights are not in
            float32, or NaN or infinite; no text reaches a matrix; a damage is not finite.

    Notes:
        Choices made here: all measures grow with the square of small changes, for which those of
        units add up where changes are independent; only "separability" grows in proportion. Inputs
        of matrices are not rounded: at the same bits in all cases, they would change no choice.
        Memory for "alignment" grows with the square of the number of sentences in a language; a
        hundred in four languages do for the bundled model.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> table = bit_damage(model, damage="weights", choices=[4, 8], by="layer", progress=False)
        >>> table[["unit", "bits", "bytes"]].head(2)
                           unit  bits   bytes
        0  bert.encoder.layer.0     4  102912
        1  bert.encoder.layer.0     8  201216

    See also:
        `allocate_bits`, `probes.alignment_gap`, `probes.loyalty`.
    """
    check_choice("damage", damage, DAMAGES)
    check_choice("by", by, ("matrix", "layer"))
    chosen = check_choices(choices)
    check_quantizer(chosen[0], group, ranges, percentile, symmetric)
    shapes = matrix_shapes(model, group)
    work = copy.deepcopy(model)
    measured: Callable[[], float] | None = None
    if damage != "weights":
        measured = _measured(model, work, corpus, tokenizer, damage, pivot, list(shapes), settings)
    weights, across = matrices_of(work), transposed(work, shapes)
    how: dict[str, Any] = {"group": group, "symmetric": symmetric, "ranges": ranges, "percentile": percentile}
    units = units_of(shapes, by)
    rows = []
    bar = tqdm(total=len(units) * len(chosen), desc=f"{damage} by bits", unit="run", disable=not progress)
    for unit, names in units.items():
        before = {name: weights[name].detach().clone() for name in names}
        for bits in chosen:
            error = 0.0
            for name, weight in before.items():
                codes = quantize_tensor(weight.T if across[name] else weight, bits, name=name, **how)
                rounded = dequantize(codes).T if across[name] else dequantize(codes)
                error += float((rounded - weight).double().square().sum())
                _write(weights[name], rounded)
            found = error if measured is None else measured()
            if not np.isfinite(found):
                raise InputError(
                    f"{unit}: its damage ({damage}) at {bits} bits is {found}: the states of some texts are not "
                    "finite, or all zero. Look at the model, or measure damage='weights'"
                )
            size = sum(packed_bytes(shapes[name], bits, group=group, symmetric=symmetric) for name in names)
            rows.append((unit, bits, found, size))
            bar.update()
        for name, weight in before.items():
            _write(weights[name], weight)
    bar.close()
    return pd.DataFrame(rows, columns=COLUMNS)


def _alignment(base: xr.Dataset, other: xr.Dataset, pivot: str) -> float:
    ids, languages = base["id"].values, base["language"].values
    there = np.flatnonzero(languages == pivot)
    out = []
    for language in dict.fromkeys(languages[languages != pivot]):
        rows = np.flatnonzero(languages == language)
        _, one, two = np.intersect1d(ids[there], ids[rows], assume_unique=True, return_indices=True)
        cosines = [directions(r, -1, there[one]) @ directions(r, -1, rows[two]).T for r in (base, other)]
        for axis in (0, 1):  # each direction
            p, q = (log_softmax(c / _TEMPERATURE, axis=axis) for c in cosines)
            out.append((np.exp(p) * (p - q)).sum(axis=axis).mean())
    return float(np.mean(out))


def _drift(base: xr.Dataset, other: xr.Dataset, _pivot: str) -> float:
    x, y = (directions(r, -1, slice(None)) for r in (base, other))
    # As half the squared distance, which keeps the digits of small angles.
    return float(np.square(x - y).sum(axis=1).mean() / 2)


def _loyalty(base: xr.Dataset, other: xr.Dataset, _pivot: str) -> float:
    return float(divergence(base["logits"].values, other["logits"].values).mean())


def _separability(base: xr.Dataset, other: xr.Dataset, _pivot: str) -> float:
    changes = []
    for language in dict.fromkeys(base["language"].values):
        rows = np.flatnonzero(base["language"].values == language)
        labels = base["label"].values[rows]
        one, two = (class_separability(directions(r, -1, rows), labels, fewest=2) for r in (base, other))
        changes.append(abs(one - two))
    return float(np.mean(changes))


_MEASURES = {"alignment": _alignment, "drift": _drift, "loyalty": _loyalty, "separability": _separability}
DAMAGES = (*_MEASURES, "effect", "weights")


def _measured(
    model: PreTrainedModel,
    work: PreTrainedModel,
    corpus: datasets.Dataset | None,
    tokenizer: PreTrainedTokenizerBase | None,
    damage: str,
    pivot: str | None,
    matrices: Sequence[str],
    settings: Mapping[str, Any],
) -> Callable[[], float]:
    """What measures how far a model has come from what it is now."""
    if corpus is None or tokenizer is None:
        raise InputError(f"damage={damage!r} looks at text: give a corpus and its tokenizer, or damage='weights'")
    corpus = check_corpus(corpus)
    check_fit(embedding_rows(work), tokenizer, type(work).__name__)
    check_settings(**settings)
    pivot = corpus[0]["language"] if pivot is None else pivot
    if damage == "alignment":
        check_pivot(np.array(corpus["id"]), np.array(corpus["language"]), pivot, "alignment_gap")
    if damage == "loyalty" and not classifies(work):
        raise InputError(
            f"damage='loyalty' compares predictions, and {type(work).__name__} has no head that classifies texts. Give "
            "a model for sequence classification, or damage='drift'"
        )
    if damage == "separability":
        _check_labels(corpus)
    if damage == "effect" and "dtype" in settings:
        raise InputError("damage='effect' runs the model in its own precision: leave dtype out")
    reached: set[str] = set()
    hooks = (_module_of(work, name).register_forward_hook(lambda *_, n=name: reached.add(n)) for name in matrices)
    run: Callable[[], Any] = partial(capture, work, tokenizer, corpus, progress=False, **settings)
    if damage == "effect":
        output = OutputDamage(model, tokenizer, corpus, pivot=str(pivot), **settings)
        run = lambda: float(output.of(work)[0].mean())  # noqa: E731
    with removed(hooks):
        base = run()
    missed = [name for name in matrices if name not in reached]
    if missed:
        raise InputError(
            f"no text reaches {missed[0]!r} and {len(missed) - 1} more, as of a decoder whose encoder alone is run, so "
            "their damage is not known. Measure damage='weights'"
        )

    if damage == "effect":
        return run

    def measured() -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LayerscopeWarning)  # said of the first run
            return _MEASURES[damage](base, run(), str(pivot))

    return measured


def _check_labels(corpus: datasets.Dataset) -> None:
    if "label" not in corpus.column_names:
        raise InputError("damage='separability' needs labels, and the corpus has none. Give a column 'label'")
    sizes = pd.DataFrame({c: list(corpus[c]) for c in ("language", "label")}).value_counts()
    classes = (sizes > 1).groupby("language").sum()
    if classes.min() < 2:
        raise InputError(
            f"damage='separability' compares classes of two sentences or more, and language {classes.idxmin()!r} has "
            f"{'only one' if classes.min() else 'none'}. Drop the language, or measure another damage"
        )


def matrix_shapes(model: PreTrainedModel, group: str | int) -> dict[str, tuple[int, int]]:
    """The matrices that are quantised, by name, with their shapes (unit, input)."""
    matrices = matrices_of(model)
    across = transposed(model, matrices)
    out = {}
    for name, weight in matrices.items():
        if weight.dtype != torch.float32:
            raise InputError(f"{name}: expected weights in float32, found {weight.dtype}. Give model.float()")
        units_first = weight.detach().T if across[name] else weight.detach()
        check_matrix(units_first, group, name)
        out[name] = units_first.shape[0], units_first.shape[1]
    return out


def units_of(names: Iterable[str], by: str) -> dict[str, list[str]]:
    """The matrices of each unit; a layer is what the first number in their names counts."""
    units: dict[str, list[str]] = {}
    for name in names:
        layer = block_of(name) if by == "layer" else None
        units.setdefault(layer or name, []).append(name)
    return units


def _write(weight: Matrix, values: torch.Tensor) -> None:
    with torch.no_grad():
        weight.detach().copy_(values)


def _module_of(model: PreTrainedModel, name: str) -> torch.nn.Module:
    """The module that has a matrix, of an expert that of all experts."""
    experts = expert_matrices(model)
    return experts[name].experts if name in experts else model.get_submodule(name.rpartition(".")[0])


def check_choices(choices: Collection[int]) -> list[int]:
    """Return numbers of bits to choose from, ascending."""
    if isinstance(choices, str) or not isinstance(choices, Collection) or not choices:
        raise InputError(f"choices={choices!r}: expected numbers of bits to choose from, of 1 to 8, at least one")
    for bits in choices:
        check_bits("choices", bits, least=1)
    return sorted(set(choices))
