"""Similarity of every layer of one model to every layer of another, over the same sentences."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import overload

import numpy as np
import numpy.typing as npt
import xarray as xr

from probes.errors import InputError, LayerscopeWarning, check_choice
from probes.measures.fidelity.canonical import PWCCA, SVCCA
from probes.measures.fidelity.cka import CKA, CKA_DEBIASED
from probes.measures.fidelity.cka_in_pieces import cka_in_pieces, in_pieces
from probes.measures.fidelity.layer_pairs import Measure, layers_between, side_of, side_of_array
from probes.measures.fidelity.mutual_information import MUTUAL_INFORMATION
from probes.measures.fidelity.neighbour_overlap import NEIGHBOUR_OVERLAP, searched
from probes.measures.fidelity.procrustes import PROCRUSTES
from probes.measures.fidelity.rsa import RSA
from probes.measures.probe import Run
from probes.results.draws import POOLED, sample
from probes.results.intervals import linearised
from probes.results.result import result
from probes.states.representations import aligned, as_numbers, check_enough

_EQUAL = 1e-9  # what a value of 1 is off by, of a layer and itself


def similarity_of(measure: str) -> Measure:
    """Return what a measure is; raise `InputError` where there is none of that name."""
    check_choice("measure", measure, MEASURES)
    return MEASURES[measure]


@overload
def similarity(
    x: xr.Dataset,
    y: xr.Dataset | None = None,
    *,
    measure: str = "cka",
    search: str = "exact",
    draws: int = 200,
    seed: int = 0,
) -> xr.Dataset: ...


@overload
def similarity(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    measure: str = "cka",
    search: str = "exact",
    draws: int = 200,
    seed: int = 0,
) -> float: ...


def similarity(
    x: xr.Dataset | npt.ArrayLike,
    y: xr.Dataset | npt.ArrayLike | None = None,
    *,
    measure: str = "cka",
    search: str = "exact",
    draws: int = 200,
    seed: int = 0,
) -> xr.Dataset | float:
    """Measure how alike every layer of one model and every layer of another are, over one corpus.

    The attributes of the result say of the measure whether it is a similarity or a distance
    (`kind`), its `range`, whether it is `symmetric`, and what it is `unchanged_by`. Models may
    differ in width and depth.

    Args:
        x: Representations, or an array (example, feature).
        y: of another model on the same sentences, aligned by id and language; by default the layers
            of one model are compared with each other.
        measure: "cka" (biased), "cka_debiased", "procrustes" (a distance), "svcca", "pwcca", "rsa",
            "neighbour_overlap" or "mutual_information" (a share of the most that is seen).
        search: of "neighbour_overlap": "exact", or "ivf" of some 100,000 examples and more, in
            the nearest clusters alone (faiss, layerscope[neighbours]). `estimator` says so, and a
            warning where it misses many.
        draws, seed: of the bootstrap by sentence id.

    Returns:
        `value, low, high (layer, other_layer, language)`, with all languages together as `pooled`;
        `n` is the number of examples. `layer` counts the layers of x, `other_layer` those of y. For
        arrays a float.

    Raises:
        InputError: the measure is not known, or looks for no neighbours; the two hold different
            sentences; a language has too few.
        DependencyError: search="ivf" without faiss.

    Notes:
        "cka" and the measures of canonical correlation and Procrustes are above 0 (below pi / 2)
        even for unrelated states where examples are few against features; "cka_debiased" is not,
        and where it comes out below 0 it stays so. SVCCA and PWCCA have no value where the
        directions to match (99 % of the variance of both) are as many as the examples, and no
        interval, which a warning says, where layers are nearly alike (0.95 and above), as mutual
        information of more than 200 examples. RSA ranks
        the pairs of at most 1,000 examples, drawn by the seed. The draws are of first order
        (Procrustes: second, as its rotation follows each example); the intervals are for samples of
        this size.

    See also:
        `drift`, `alignment_gap`, `difference`.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(100, 8))
        >>> round(similarity(x, 2 * x[:, ::-1] + 1), 6)
        1.0
    """
    about = searched(similarity_of(measure), search)
    if not isinstance(x, xr.Dataset):
        return _of_arrays(about, x, y)
    if y is not None and not isinstance(y, xr.Dataset):
        raise InputError(f"expected Representations beside Representations; found {type(y).__name__}")
    return _measured(about, Run(x, sample(x, draws=draws, seed=seed), base=y, seed=seed))


def _measured(about: Measure, run: Run) -> xr.Dataset:
    x, y, drawn = run.reps, run.base, run.sample
    other = x if y is None else aligned(x, y)
    check_enough(x, about.fewest, about.name)
    statistics: dict[str, np.ndarray] = {}
    used: dict[str, np.ndarray] = {}
    reasons: dict[tuple[str, int, str], str] = {}
    for group in [*drawn.languages, POOLED]:
        if group == POOLED and len(drawn.languages) == 1:  # the same examples
            (language,) = drawn.languages
            statistics[POOLED], used[POOLED] = statistics[language], used[language]
            reasons |= {(which, layer, POOLED): reason for (which, layer, _), reason in reasons.items()}
            break
        rows = drawn.group(group)
        if about.most is not None and len(rows) > about.most:
            rows = _some(rows, drawn.ids, x["language"].values, about.most, run.seed)
        used[group] = rows
        if about.debiased is not None and in_pieces(x, None if y is None else other, len(rows)):
            found, said = cka_in_pieces(
                x, None if y is None else other, rows, drawn, about.bounds, debiased=about.debiased
            )
            statistics[group], reasons = found, reasons | {(*place, group): why for place, why in said.items()}
            continue
        value, influence, why = layers_between(about, side_of(x, rows), None if y is None else side_of(other, rows))
        reasons |= {(which, layer, group): reason for (which, layer), reason in why.items()}
        statistics[group] = linearised(value, influence, drawn.ids[rows], drawn.weights, drawn.units, about.bounds)
    attributes = about.about() | {
        "kind": about.kind,
        "symmetric": about.symmetric,
        "other_model": other.attrs.get("model", "?"),
    }
    over = {"layer": x["layer"].values, "other_layer": other["layer"].values}

    def missing(at: tuple[int, ...], language: str) -> str:
        for which, layer, reps in zip(("layer", "other"), at, (x, other), strict=True):
            if (which, layer, language) in reasons:
                of = "" if y is None else f" of model {reps.attrs.get('model', '?')}"
                return f"layer {reps['layer'].values[layer]}{of}: {reasons[which, layer, language]}"
        return about.nothing

    out = result(x, drawn, statistics, attributes, rows=used, bounds=about.bounds, over=over, missing=missing)
    return _where_sure(about, out)


def _where_sure(about: Measure, found: xr.Dataset) -> xr.Dataset:
    """The result without the intervals that would be too narrow, and a warning that says so."""
    many = found["n"] > about.sure_up_to
    unsure = (found["value"] < 1 - _EQUAL) & ((found["value"] >= about.sure_below) | many)
    if not unsure.any():
        return found
    layer, other, language = (int(at[0]) for at in np.nonzero(unsure.values))
    of = (
        f"more than {about.sure_up_to} examples"
        if many.any()
        else f"layers that are nearly alike ({about.sure_below} and above)"
    )
    warnings.warn(
        f"{about.name} of model {found.attrs['model']} has no interval at {int(unsure.sum())} of {unsure.size} places, "
        f"the first of them layers {found['layer'].values[layer]} and {found['other_layer'].values[other]} "
        f"({found['language'].values[language]}): of {of} its draws spread too little. Take 'cka' there",
        LayerscopeWarning,
        stacklevel=4,
    )
    return found.assign({name: found[name].where(~unsure) for name in ("low", "high", "draws")})


def _of_arrays(about: Measure, x: npt.ArrayLike, y: npt.ArrayLike | xr.Dataset | None) -> float:
    if y is None or isinstance(y, xr.Dataset) or np.ndim(x) != 2 or np.ndim(y) != 2 or len(x) != len(y):  # type: ignore[arg-type]
        found = type(y).__name__ if y is None or isinstance(y, xr.Dataset) else np.shape(y)
        raise InputError(
            "expected two arrays (example, feature) with the same examples in the same order; "
            f"found {np.shape(x)} and {found}"
        )
    sides = [as_numbers(z) for z in (x, y)]
    if any(z.dtype.kind not in "fiub" or not z.size for z in sides):
        raise InputError(f"expected arrays of numbers; found {' and '.join(f'{z.dtype} {z.shape}' for z in sides)}")
    n = len(sides[0])
    if n < about.fewest:
        raise InputError(f"{about.name}: expected at least {about.fewest} examples; found {n}")
    if about.most is not None and n > about.most:
        # The same ones as of Representations, where every row is a sentence that is called by its number.
        ids = np.unique(np.arange(n).astype(str), return_inverse=True)[1]
        rows = _some(np.arange(n), ids, np.full(n, ""), about.most, 0)
        sides = [z[rows] for z in sides]
    return float(layers_between(about, *map(side_of_array, sides))[0][0, 0])


def _some(rows: np.ndarray, ids: np.ndarray, languages: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Draw so many rows, the same ones in whichever order they come."""
    ordered = rows[np.lexsort((languages[rows].astype(str), ids[rows]))]
    return np.sort(np.random.default_rng(seed).choice(ordered, most, replace=False))


def _declared(about: Callable[..., Measure]) -> Measure:
    found: Measure = about(
        measure=lambda run: _measured(found, run),
        check=lambda run: check_enough(run.reps, found.fewest, found.name),
    )
    return found


MEASURES = {
    measure.name: measure
    for measure in map(
        _declared, (CKA, CKA_DEBIASED, PROCRUSTES, SVCCA, PWCCA, RSA, NEIGHBOUR_OVERLAP, MUTUAL_INFORMATION)
    )
}
