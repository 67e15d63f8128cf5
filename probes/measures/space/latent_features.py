"""Binary latent features: which yes-or-no properties of sentences are the states of all layers sums of?"""

from __future__ import annotations

import warnings

import numpy as np
import xarray as xr
from scipy.fft import dct
from scipy.optimize import linear_sum_assignment

from probes.errors import InputError
from probes.measures.space.pursuit import Codes, centred, coded, features_of, pursue
from probes.measures.threads import one_thread
from probes.results.draws import POOLED, Sample, sample
from probes.states.representations import states


def latent_features(
    reps: xr.Dataset, k: int = 16, *, refits: int = 10, permutations: int = 199, seed: int = 0
) -> xr.Dataset:
    """Find binary codes of sentences, one for all layers, of whose features the states are sums.

    At layer l the states are about mean_l + codes @ features_l. Every layer counts alike, by its
    share of the mean square around the mean.

    Args:
        reps: Representations.
        k: how many codes; fewer are found where more explain nothing.
        refits: bootstrap draws of ids (or groups) that codes are found in again, at least 2.
        permutations: of labels and of languages, at least 19.
        seed: of the search, the draws and the permutations.

    Returns:
        Without intervals; codes come in the order of what is lost without each:

        - `codes (example, code)`, boolean, beside `id` and `of_language`; at most half of the
          sentences have a code.
        - `features (layer, code, feature)` and `mean (layer, feature)`, in units of the states.
        - `explained (layer, language)`, the share of squares around the mean that the sum explains,
          `pooled` over all languages from 0 to 1; below 0 where it is worse than the mean for one.
        - `bound (layer)`: what as many principal components of that layer explain, which no codes
          exceed; `nonnegative (layer)`, what as many parts of all layers explain whose shares in a
          sentence and features are not negative, of each feature above its least.
        - `left (step)`: the share left after each step of the search, never rising.
        - `stability (code)`, 0 to 1: mean absolute correlation with the matching code of a refit,
          on sentences that the refit has not seen; `stability_chance`, the largest of a
          refit, on average, for states of the same covariance that are no sums of codes (rows mixed
          by a random rotation).
        - `information (code, about)`: mutual information in nats with `label` (where there are any)
          and `language`, at least 0, at most log 2; `chance (code, about)`, the 95 % quantile of
          that with them permuted, and `p (code, about)`.

    Raises:
        InputError: k below 1, or not below the number of sentences; states are not finite, or all
            equal at every layer; refits or permutations cannot be used.

    Notes:
        After Chang et al. 2018, arXiv 1810.04754; here the sought directions lie in the leading
        components, in place of a semidefinite relaxation. Labels are permuted by group where each
        has one, else by id, else (as the languages of translations) within ids; p is of each code
        alone. Memory is that of a matrix of sentences by sentences and of the states of all layers.

    See also:
        `geometry`, `sparse_probe`, `probes.widgets.Explorer`, whose maps are coloured by a code.

    Example:
        >>> import probes
        >>> rng = np.random.default_rng(0)
        >>> codes = rng.random((60, 2)) < 0.4
        >>> x = codes @ rng.normal(size=(3, 2, 8))
        >>> found = latent_features(probes.from_arrays(x, label=codes[:, 0].astype(int)), k=2)
        >>> found.explained.sel(language="pooled").round(3).values.tolist()
        [1.0, 1.0, 1.0]
    """
    drawn = _checked(reps, k, refits, permutations, seed)
    layers, n = reps.sizes["layer"], reps.sizes["example"]
    # In the order of ids and languages: that of the corpus must not matter.
    order = np.lexsort((np.array(drawn.languages).astype(str)[drawn.language], drawn.ids))
    rng = np.random.default_rng(seed)
    with one_thread():
        gram, squares = np.zeros((n, n)), np.zeros(layers)
        for layer in range(layers):
            x = _around(reps, layer, order)[0]
            squares[layer] = np.square(x).sum()
            if squares[layer]:
                gram += x @ x.T / squares[layer]
        if not squares.any():
            raise InputError("latent_features: at every layer the states of all sentences are equal")
        whole = pursue(gram, k, rng)
        weights = drawn.weights[1:, drawn.ids[order]]
        stable = np.mean([_again(gram, whole.bits, times, k, rng) for times in weights], axis=0)
        chance = []
        for times in weights:
            mixed = without_codes(gram, rng)
            chance.append(_again(mixed, pursue(mixed, k, rng).bits, times, k, rng).max())
        bits = np.empty((n, whole.bits.shape[1]), bool)
        bits[order] = whole.bits
        out = _fitted(reps, drawn, bits)
        out = out.assign(nonnegative=("layer", _of_parts(reps, order, squares, bits.shape[1], seed)))
    out = out.assign(left=("step", np.array(whole.left)), stability=("code", stable), stability_chance=np.mean(chance))
    names = [f"code {1 + j}" for j in range(bits.shape[1])]
    out = out.assign_coords(id=reps["id"].variable, of_language=("example", reps["language"].values), code=names)
    about = {"label": drawn.label} if len(drawn.classes) > 1 else {}
    about |= {"language": drawn.language} if len(drawn.languages) > 1 else {}
    # A group that is an id, or holds several: what it is of is permuted as a whole where it can be.
    units = [drawn.units[drawn.ids[order]], drawn.ids[order]]
    told = np.zeros((3, bits.shape[1], len(about)))
    for at, of_row in enumerate(about.values()):
        told[..., at] = _information(bits[order], of_row[order], units, permutations, rng)
    out = out.assign(
        {name: (("code", "about"), one) for name, one in zip(("information", "chance", "p"), told, strict=True)}
    )
    return out.assign_coords(about=np.array(list(about), dtype=object)).assign_attrs(
        probe="latent_features", model=reps.attrs.get("model", "?"), k=k, seed=seed, resampling=drawn.key
    )


def _checked(reps: xr.Dataset, k: int, refits: int, permutations: int, seed: int) -> Sample:
    for name, value, least in (("k", k, 1), ("refits", refits, 2), ("permutations", permutations, 19)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise InputError(f"latent_features: {name}={value!r}: expected a whole number, at least {least}")
    drawn = sample(reps, draws=refits, seed=seed)
    n = reps.sizes["example"]
    if n <= k:
        raise InputError(
            f"latent_features: k={k} codes of {n} sentences: give more sentences than codes, or a smaller k"
        )
    for layer in range(reps.sizes["layer"]):
        bad = int((~np.isfinite(states(reps, layer, np.arange(n))).all(axis=1)).sum())
        if bad:
            raise InputError(
                f"latent_features: model {reps.attrs.get('model', '?')}, layer {reps['layer'].values[layer]}: the "
                f"states of {bad} sentences are not finite. Leave these sentences, or the layer, out"
            )
    return drawn


def _around(reps: xr.Dataset, layer: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """States less their mean, and the mean; all 0 where only rounding is left."""
    x = states(reps, layer, rows).astype(np.float64)
    mean = x.mean(axis=0)
    size = np.abs(x).max(initial=0)
    x -= mean
    return (x if np.abs(x).max(initial=0) > 1e-12 * size else np.zeros_like(x)), mean


def _fitted(reps: xr.Dataset, drawn: Sample, bits: np.ndarray) -> xr.Dataset:
    """Features of each layer by least squares, what they explain, and the most that could be."""
    layers, rows = reps.sizes["layer"], np.arange(reps.sizes["example"])
    groups = [*drawn.languages, POOLED]
    features = np.zeros((layers, bits.shape[1], reps.sizes["feature"]))
    means, bound = np.zeros((layers, reps.sizes["feature"])), np.full(layers, np.nan)
    explained = np.full((layers, len(groups)), np.nan)
    around = bits - bits.mean(axis=0)
    for layer in range(layers):
        x, mean = _around(reps, layer, rows)
        features[layer] = np.linalg.lstsq(around, x, rcond=None)[0]
        means[layer] = mean - bits.mean(axis=0) @ features[layer]
        if not x.any():
            continue
        missed, whole = (np.square(one).sum(axis=1) for one in (x - around @ features[layer], x))
        some = [drawn.group(group) for group in groups]
        with np.errstate(invalid="ignore", divide="ignore"):
            explained[layer] = [1 - missed[at].sum() / whole[at].sum() for at in some]
        values = np.linalg.eigvalsh(x.T @ x if x.shape[1] < len(x) else x @ x.T)[::-1]
        bound[layer] = values[: bits.shape[1]].sum() / whole.sum()
    dims = {
        "codes": (("example", "code"), bits),
        "features": (("layer", "code", "feature"), features),
        "mean": (("layer", "feature"), means),
        "explained": (("layer", "language"), explained),
        "bound": ("layer", bound),
    }
    return xr.Dataset(dims, coords={"layer": reps["layer"].values, "language": np.array(groups, dtype=object)})


def _of_parts(reps: xr.Dataset, order: np.ndarray, squares: np.ndarray, k: int, seed: int) -> np.ndarray:
    """What k parts that are not negative explain of each layer, with features by least squares, as of codes."""
    from sklearn.decomposition import NMF
    from sklearn.exceptions import ConvergenceWarning

    out = np.full(len(squares), np.nan)
    if not k:
        return out
    n, width = len(order), reps.sizes["feature"]
    there = np.flatnonzero(squares).tolist()
    above = np.empty((n, len(there) * width), np.float32)
    for place, layer in enumerate(there):
        x = _around(reps, layer, order)[0] / np.sqrt(squares[layer] / n)
        above[:, place * width : (place + 1) * width] = x - x.min(axis=0)
    init = "nndsvda" if k <= min(above.shape) else "random"
    with warnings.catch_warnings():
        # More steps changed it by 0.01 at most for the bundled encoder.
        warnings.simplefilter("ignore", ConvergenceWarning)
        shares = NMF(k, init=init, random_state=seed % 2**32).fit_transform(above).astype(np.float64)
    around = shares - shares.mean(axis=0)
    for layer in there:
        x = _around(reps, layer, order)[0]
        out[layer] = 1 - np.square(x - around @ np.linalg.lstsq(around, x, rcond=None)[0]).sum() / squares[layer]
    return out


def _again(gram: np.ndarray, bits: np.ndarray, times: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """How well each code (row, code) agrees with the matching one of a refit on drawn rows, on the others.

    Args:
        gram: (row, row) products.
        bits: (row, code).
        times: (row,) how often each row is drawn.
        k: as `pursue` takes it.
        rng: of the search.
    """
    drawn: np.ndarray = np.repeat(np.arange(len(gram)), times)
    out = np.flatnonzero(times == 0)
    again = pursue(gram[np.ix_(drawn, drawn)], k, rng)
    return matched(bits[out], _others(gram, drawn, out, again))


def without_codes(gram: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the products (row, row) of rows that are mixed by a random rotation, so that their
    covariance stays and they are nearly Gaussian.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(8, 2))
        >>> bool(np.isclose(np.trace(without_codes(x @ x.T, np.random.default_rng(0))), np.square(x - x.mean(0)).sum()))
        True
    """
    gram = centred(gram)
    for _ in range(2):
        signs = rng.choice([-1.0, 1.0], len(gram))
        gram = dct(dct(signs[:, None] * gram * signs, axis=0, norm="ortho"), axis=1, norm="ortho")
    return gram


def _others(gram: np.ndarray, drawn: np.ndarray, out: np.ndarray, found: Codes) -> np.ndarray:
    """Codes of rows that are not drawn, by the features of those that are."""
    inside = gram[np.ix_(drawn, drawn)]
    products, _, mix = features_of(centred(inside), found.bits)
    across = gram[np.ix_(out, drawn)]
    across = across - across.mean(axis=1, keepdims=True) - inside.mean(axis=0) + inside.mean()
    towards = across @ mix + found.bits.mean(axis=0) @ products
    return coded(towards, products, towards @ np.linalg.pinv(products, hermitian=True) > 0.5)


def matched(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the absolute correlation of each code with the one that it is matched to, 0 without one.

    Args:
        one: (row, code).
        other: (row, code), in any order; each is matched once, so that the sum is largest.

    Example:
        >>> one = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
        >>> matched(one, 1 - one[:, ::-1]).tolist()
        [1.0, 1.0]
    """
    x, y = (z - z.mean(axis=0) if len(z) else z.astype(float) for z in (one, other))
    sizes = np.sqrt(np.outer(np.square(x).sum(axis=0), np.square(y).sum(axis=0)))
    alike = np.abs(x.T @ y) / np.where(sizes > 0, sizes, 1)
    at, to = linear_sum_assignment(-alike)
    found = np.zeros(one.shape[1])
    found[at] = alike[at, to]
    return found


def information(bits: np.ndarray, of_row: np.ndarray) -> np.ndarray:
    """Return the mutual information of each code with what rows are of, in nats.

    Args:
        bits: (row, code).
        of_row: (row,) numbers from 0.

    Example:
        >>> information(np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.array([0, 0, 1, 1])).round(2).tolist()
        [0.69, 0.0]
    """
    rows = np.eye(int(of_row.max()) + 1)[of_row]
    both = np.stack([rows.T @ bits, rows.T @ (1 - bits.astype(float))], axis=-1) / len(bits)  # (of, code, bit)
    apart = rows.mean(axis=0)[:, None, None] * both.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        each = both * np.log(both / apart)
    out: np.ndarray = np.maximum(np.where(both > 0, each, 0.0).sum(axis=(0, 2)), 0.0)
    return out


def _information(
    bits: np.ndarray, of_row: np.ndarray, units: list[np.ndarray], permutations: int, rng: np.random.Generator
) -> tuple[np.ndarray, ...]:
    """Information of codes, its 95 % quantile with what rows are of permuted, and p."""
    value = information(bits, of_row)
    null = np.array([information(bits, of_row[permuted(of_row, units, rng)]) for _ in range(permutations)])
    # As high up to rounding is as high.
    as_high = (null >= value * (1 - 1e-9) - 1e-12).sum(axis=0)
    return value, np.quantile(null, 0.95, axis=0), (1 + as_high) / (1 + permutations)


def permuted(of_row: np.ndarray, units: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Return rows to take what each row is of from: other units of which each is of one thing, the
    largest such units; else other rows of the same smallest unit.

    Args:
        of_row: (row,) numbers.
        units: (row,) numbers of the unit of each row, largest units first.
        rng: of the permutation.

    Example:
        >>> permuted(np.array([0, 1, 0, 1]), [np.array([0, 0, 1, 1])], np.random.default_rng(0)).tolist()
        [1, 0, 3, 2]
    """
    for unit in units:
        first = np.unique(unit, return_index=True)[1]
        if (of_row[first[unit]] == of_row).all():
            return first[rng.permutation(len(first))][unit]
    unit = units[-1]
    out: np.ndarray = np.empty(len(unit), int)
    out[np.argsort(unit, kind="stable")] = np.lexsort((rng.random(len(unit)), unit))
    return out
