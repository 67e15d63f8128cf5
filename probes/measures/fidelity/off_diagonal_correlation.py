"""How much other features of a model and its original say the same, against those of the original."""

from __future__ import annotations

import numpy as np
import xarray as xr

from probes.measures.probe import THIS_SIZE, Probe, Run
from probes.results.draws import POOLED, Sample, sample
from probes.results.intervals import linearised
from probes.results.result import result
from probes.states.depth import side_by_side
from probes.states.representations import states


def off_diagonal_correlation(base: xr.Dataset, other: xr.Dataset, *, draws: int = 200, seed: int = 0) -> xr.Dataset:
    """Measure how strongly different features of two models correlate, against those of the first.

    With C_ij the correlation of feature i of the original with feature j of the other model over
    sentences: the mean of |C_ij| over i and j that differ, divided by the same of the original with
    itself. 0 to infinity; 1 where nothing has changed, lower where features repeat each other less.

    Args:
        base: Representations of the original.
        other: Representations of the compressed model on the same sentences, aligned by id and
            language.
        draws, seed: of the bootstrap by sentence id.

    Returns:
        `value, low, high (layer, language)`, all languages together as `pooled`, on the layers of
        `other`, each beside one of `base`, as in `drift`.

    Raises:
        InputError: the two hold different sentences, or differ in width.

    Notes:
        The off-diagonal part of the cross-correlation of self-distilled pruning (O' Neill, Dutta
        and Assem 2021, arXiv 2109.15014); that it is divided by the original's is a choice made
        here. Features without variance in either model are left out. By chance alone |C_ij| is
        about sqrt(2 / (pi n)) over n sentences, so that the ratio lies nearer to 1 where they are
        few. Draws are of first order.

    See also:
        `drift`, `compress.CrossCorrelation`.

    Example:
        >>> import probes
        >>> rng = np.random.default_rng(0)
        >>> z = rng.normal(size=(500, 2))
        >>> alike, apart = z @ [[1, 1], [0, 0.5]], z
        >>> found = off_diagonal_correlation(probes.from_arrays(alike), probes.from_arrays(apart))
        >>> bool(found.value.sel(layer=0, language="pooled") < 1)
        True
    """
    return _measured(base, other, sample(base, draws=draws, seed=seed))


def _measured(base: xr.Dataset, other: xr.Dataset, drawn: Sample) -> xr.Dataset:
    base, moved = side_by_side(base, other, "off_diagonal_correlation")
    layers = moved["layer"].values.tolist()
    why: dict[tuple[int, str], str] = {}
    statistics = {}
    for group in [*drawn.languages, POOLED]:
        rows = drawn.group(group)
        value, influence = np.full(len(layers), np.nan), np.zeros((len(rows), len(layers)))
        for layer in range(len(layers)):
            x, y = (states(reps, layer, rows) for reps in (base, moved))
            found = _ratio(x, y)
            if isinstance(found, str):
                why[layer, group] = found
            else:
                value[layer], influence[:, layer] = found
        statistics[group] = linearised(
            value, influence, drawn.ids[rows], drawn.weights, drawn.units, OFF_DIAGONAL_CORRELATION.bounds
        )
    return result(
        moved,
        drawn,
        statistics,
        OFF_DIAGONAL_CORRELATION.about() | {"other_model": base.attrs.get("model", "?")},
        bounds=OFF_DIAGONAL_CORRELATION.bounds,
        missing=lambda at, language: f"layer {layers[at[0]]}: {why[at[0], language]}",
    )


def _ratio(x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray] | str:
    """Return the ratio of states (example, feature), and what each example does to it; or why it
    has none.
    """
    if bad := int((~(np.isfinite(x) & np.isfinite(y)).all(axis=1)).sum()):
        return f"{bad} rows are not finite"
    vary = np.ones(x.shape[1], bool)
    scaled = []
    for z in (x, y):
        largest = np.abs(z).max(axis=0)
        z = z - z.mean(axis=0)
        deviation = np.sqrt(np.square(z).mean(axis=0))
        vary &= deviation > 1e-7 * largest
        with np.errstate(invalid="ignore", divide="ignore"):
            scaled.append(z / deviation)
    if vary.sum() < 2:
        return "fewer than two features vary, so there are no two to correlate"
    one, two = (z[:, vary] for z in scaled)
    (top, of_top), (under, of_under) = _mean_size(one, two), _mean_size(one, one)
    if under <= 1e-12:
        return "no two features of the original correlate"
    return top / under, (of_top - top / under * of_under) / under


def _mean_size(x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the mean |correlation| of different features of standardised states, and what each
    example does to it.
    """
    n, d = x.shape
    c = x.T @ y / n
    np.fill_diagonal(c, 0)
    sign, size = np.sign(c), np.abs(c)
    own = ((x @ sign) * y).sum(axis=1) - (np.square(x) @ size.sum(axis=1) + np.square(y) @ size.sum(axis=0)) / 2
    return float(size.sum()) / d / (d - 1), own / d / (d - 1)


def _of_run(run: Run) -> xr.Dataset:
    assert run.base is not None  # it needs another model
    return _measured(run.base, run.reps, run.sample)


OFF_DIAGONAL_CORRELATION = Probe(
    name="off_diagonal_correlation",
    title="correlation of other features",
    estimator="mean |correlation| of different features of both models over that of the baseline with itself",
    range="0 to infinity; 1 where nothing has changed",
    bounds=(0, np.inf),
    higher_is="features repeat each other more",
    unchanged_by=("shift of either", "common scale of either", "scale of each feature of either", "order"),
    paper="O' Neill, Dutta, Assem 2021, arXiv 2109.15014",
    needs=("another model", "models of one width"),
    compares=True,
    interval=THIS_SIZE,
    measure=_of_run,
)
