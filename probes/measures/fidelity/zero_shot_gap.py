"""Zero-shot gap: how much worse a language is classified than the one with labels."""

from __future__ import annotations

import numpy as np
import xarray as xr

from probes.errors import InputError
from probes.measures.fidelity.accuracy import rights
from probes.measures.fidelity.loyalty import counted, of_predictions
from probes.measures.probe import Run
from probes.results.draws import POOLED, Sample, sample, weighted_means
from probes.results.result import result


def zero_shot_gap(reps: xr.Dataset, *, pivot: str, draws: int = 200, seed: int = 0) -> xr.Dataset:
    """Measure how much lower the accuracy in a language is than in the one with labels.

    -1 to 1; 0 where both are classified alike, lower is better.

    Args:
        reps: Representations as for `accuracy`.
        pivot: the language whose labels the model was trained on.
        draws, seed: of the bootstrap by sentence id.

    Returns:
        `value, low, high (language)` for every language but the pivot; `pooled` is their mean. The
        same sentences are drawn in both languages, so that a translation is compared with its own.

    Raises:
        InputError: what `accuracy` raises; the pivot is not there, or is the only language.

    Notes:
        The cross-lingual transfer gap (Hu et al. 2020, arXiv 2003.11080), of accuracies.

    See also:
        `accuracy`, `probes.loss_by_size`.

    Example:
        >>> import probes
        >>> reps = probes.from_arrays(
        ...     np.ones((4, 2)), id=["1", "2", "1", "2"], language=["en", "en", "sw", "sw"],
        ...     label=["a", "b", "a", "b"],
        ... )
        >>> logits = (("example", "class"), np.eye(2)[[0, 1, 0, 0]])
        >>> reps = reps.assign(logits=logits).assign_coords({"class": ["a", "b"]})
        >>> float(zero_shot_gap(reps, pivot="en").value.sel(language="sw"))
        0.5
    """
    return _measured(reps, sample(reps, draws=draws, seed=seed), pivot)


def _check_pivot(drawn: Sample, pivot: str | None) -> None:
    if pivot is None or pivot not in drawn.languages or len(drawn.languages) < 2:
        raise InputError(
            f"zero_shot_gap: pivot={pivot!r}: expected the language with labels, one of {', '.join(drawn.languages)}, "
            "beside at least one other"
        )


def _measured(reps: xr.Dataset, drawn: Sample, pivot: str | None) -> xr.Dataset:
    _check_pivot(drawn, pivot)
    assert pivot is not None
    right, of = rights(reps)
    drawn = drawn.over(of)
    means = weighted_means(drawn, right)
    gaps = {language: means[pivot] - means[language] for language in drawn.languages if language != pivot}
    gaps[POOLED] = np.mean(list(gaps.values()), axis=0)
    rows = {language: drawn.group(language) for language in gaps if language != POOLED}
    rows[POOLED] = np.concatenate(list(rows.values()))

    def missing(_: tuple[int, ...], language: str) -> str:
        bad = int(np.isnan(right[rows[language]]).sum()) + int(np.isnan(right[drawn.group(pivot)]).sum())
        return f"the output: the logits of {bad} rows are not finite"

    about = ZERO_SHOT_GAP.about() | {"pivot": pivot}
    out = result(reps, drawn, gaps, about, rows=rows, bounds=(-1, 1), over={}, missing=missing)
    return counted(out, of, rows.__getitem__)


def _check(run: Run) -> None:
    _check_pivot(run.sample, run.pivot)


ZERO_SHOT_GAP = of_predictions(
    name="zero_shot_gap",
    estimator="accuracy in the pivot language minus accuracy in the language",
    range="-1 to 1; 0 where both are classified alike",
    bounds=(-1, 1),
    better="lower",
    higher_is="worse classified than the pivot",
    paper="Hu, Ruder, Siddhant, Neubig, Firat, Johnson 2020, arXiv 2003.11080",
    needs=("logits", "labels of the head", "classes named as the labels are", "pivot"),
    default=False,
    measure=lambda run: _measured(run.reps, run.sample, run.pivot),
    check=_check,
)
