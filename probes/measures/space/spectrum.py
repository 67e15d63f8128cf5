"""Spectrum: what do slow and what do fast changes along a sentence, or along the layers, carry?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from probes.errors import InputError
from probes.measures.probe import LARGE, THIS_SIZE, Probe, Run
from probes.measures.threads import one_thread
from probes.results.draws import POOLED, Sample, need_classes, sample, weighted_ratios
from probes.results.intervals import linearised, of_shares
from probes.results.result import result, stack_measures
from probes.states.frequencies import amplitudes, check_bands
from probes.states.ragged import broken_tokens, check_tokens, in_pieces, states_of_tokens
from probes.states.representations import states

FOLDS = 5
STRENGTHS = (1.0, 10.0, 100.0, 1000.0, 10000.0)  # penalties of the classifier, on standardised features


def spectrum(reps: xr.Dataset, *, bands: int = 5, draws: int = 200, seed: int = 0, progress: bool = True) -> xr.Dataset:
    """Measure what is carried by slow and what by fast changes of the states along a sentence.

    Args:
        reps: Representations captured with `tokens=True`, or `words=True`.
        bands: how many; 0 is the mean over the tokens, the others part the frequencies above it
            evenly, up to a change of sign from each token to the next.
        draws, seed: of the bootstrap by sentence id; the seed is also that of the folds.
        progress: show a progress bar.

    Returns:
        Along `measure`, each `value, low, high (layer, band, language)` with all languages together
        as `pooled`:

        - `spectrum_energy`: the band's share of the mean square of the states, 0 to 1, without what
          all tokens of a language have in common.
        - `spectrum_language`: how often a linear classifier names the language of a sentence from
          the band alone, 0 to 1; where there are several.
        - `spectrum_class`: how often one names the class; where there are labels.

    Raises:
        InputError: there are no states of tokens; there are more bands than the longest text has
            tokens; a class or language has fewer than 5 ids (or groups).

    Notes:
        The discrete cosine transform after Tamkin, Jurafsky and Goodman 2020, arXiv 2011.04823; of
        each band and feature the root mean square (`Band`). The classifier is ridge regression on
        standardised features, its penalty chosen on the training rows, in 5 folds of ids (of
        groups, where there are any); the interval is that of the test rows. What `pooled` has to
        beat is the share of the largest class.

    See also:
        `Band`, `band_gates`, `depth_spectrum`; `compare` for three speeds of words, as
        `probes=["spectrum_class"]`.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> corpus = probes.load_corpus("bundled", split="dev", languages=["en", "zh"])
        >>> few = corpus.filter(lambda row: row["id"] < "s0400")
        >>> reps = probes.capture(model, tokenizer, few, tokens=True, progress=False)
        >>> found = spectrum(reps.isel(layer=[0]), bands=4, draws=20, progress=False)
        >>> found.value.sel(measure="spectrum_energy", language="en").sum("band").round(6).item()
        1.0
    """
    check_tokens(reps, "spectrum")
    run = Run(reps, sample(reps, draws=draws, seed=seed), seed=seed, progress=progress)
    there = {"energy": True, "language": len(run.sample.languages) > 1, "class": len(run.sample.classes) > 1}
    return stack_measures(_found(run, bands, [what for what in there if there[what]]))


def _found(run: Run, bands: int, asked: Sequence[str]) -> list[xr.Dataset]:
    """Results by band: the "energy", and how often the "language" and the "class" are named."""
    reps, drawn = run.reps, run.sample
    check_bands(bands, "spectrum", int(reps["token_count"].max()))
    kinds = _kinds(drawn, asked)
    # The same folds, whichever is asked for.
    by_class = len(drawn.classes) > 1 and np.bincount(drawn.label).min() >= FOLDS
    folds = folds_of(drawn, run.seed, drawn.label if by_class else drawn.language) if kinds else []
    layers, examples = reps.sizes["layer"], reps.sizes["example"]
    squares = np.empty((examples, layers, bands))
    right = {kind: np.empty((examples, layers, bands)) for kind in kinds}
    bar = tqdm(range(layers), desc=f"spectrum {reps.attrs.get('model', '?')}", unit="layer", disable=not run.progress)
    for layer in bar:
        x = amplitudes_of(reps, layer, bands)
        squares[:, layer] = _energy(reps, drawn, layer, x)
        for kind, of_row in kinds.items():
            for band in range(bands):
                right[kind][:, layer, band] = named_right(x[:, band], of_row, folds)
    over = {"layer": reps["layer"].values, "band": np.arange(bands)}
    total = squares.sum(axis=2, keepdims=True)

    def missing(at: tuple[int, ...], language: str) -> str:
        bad = broken_tokens(reps, at[0], drawn.group(language))
        return f"layer {reps['layer'].values[at[0]]}: {bad} tokens are not finite" if bad else ""

    out = []
    if "energy" in asked:
        out.append(_result(reps, drawn, _shares(drawn, squares, total), "spectrum_energy", over, missing))
    for kind, hits in right.items():
        found = {}
        for group in [*drawn.languages, POOLED]:
            rows = drawn.group(group)
            value = hits[rows].mean(axis=0)
            found[group] = linearised(value, hits[rows], drawn.ids[rows], drawn.weights, drawn.units, (0, 1))
        out.append(of_shares(_result(reps, drawn, found, f"spectrum_{kind}", over, missing)))
    return out


def depth_spectrum(reps: xr.Dataset, *, draws: int = 200, seed: int = 0) -> xr.Dataset:
    """Measure which part of the path of a sentence through the layers is smooth.

    The share of each frequency along the layers: 0 is what stays, 1 a drift from first to last, the
    highest a jump to and fro from layer to layer. 0 to 1; all of them add up to 1.

    Args:
        reps: Representations.
        draws, seed: of the bootstrap by sentence id.

    Returns:
        `value, low, high (frequency, language)`, all languages together as `pooled`.

    Raises:
        InputError: there are fewer than 3 layers.

    Notes:
        The discrete cosine transform along layers of the states without what all sentences of a
        language have in common there, each layer of mean square 1, so that growing lengths are no
        change. A layer that is all equal or not finite leaves no value.

    See also:
        `spectrum`, `geometry`.

    Example:
        >>> import probes
        >>> still = np.repeat(np.random.default_rng(0).normal(size=(1, 30, 8)), 4, axis=0)
        >>> depth_spectrum(probes.from_arrays(still)).value.sel(language="und").round(3).values.tolist()
        [1.0, 0.0, 0.0, 0.0]
    """
    from scipy.fft import dct

    drawn = sample(reps, draws=draws, seed=seed)
    layers = reps.sizes["layer"]
    if layers < 3:
        raise InputError(f"depth_spectrum: found {layers} layers, and needs at least 3 for a path through them")
    squares = np.full((reps.sizes["example"], layers), np.nan)
    for language in drawn.languages:
        rows = drawn.group(language)
        path = np.stack([states(reps, layer, rows) for layer in range(layers)])
        path -= path.mean(axis=1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            size = np.sqrt(np.square(path).mean(axis=(1, 2), keepdims=True))
            path = path / np.where(size > 1e-12 * np.abs(path).max(initial=1e-300), size, np.nan)
        squares[rows] = np.square(dct(path, axis=0, norm="ortho")).sum(axis=2).T
    over = {"frequency": np.arange(layers)}
    shares = _shares(drawn, squares, squares.sum(axis=1, keepdims=True))
    why = "every frequency: at some layer states are all equal or not finite"
    return _result(reps, drawn, shares, "depth_spectrum", over, lambda at, language: why)


def amplitudes_of(reps: xr.Dataset, layer: int, bands: int) -> np.ndarray:
    """Return the bands of all examples at one layer (by position), read in pieces: (example, band,
    feature).
    """
    rows = np.arange(reps.sizes["example"])
    return np.concatenate([amplitudes(*states_of_tokens(reps, layer, part), bands) for part in in_pieces(reps, rows)])


def _energy(reps: xr.Dataset, drawn: Sample, layer: int, x: np.ndarray) -> np.ndarray:
    """Summed squares by example and band, without the mean over all tokens of a language, which is
    in the mean of each text alone.
    """
    counts = reps["token_count"].values
    x = x.copy()
    for language in drawn.languages:
        rows = drawn.group(language)
        x[rows, 0] -= np.average(x[rows, 0], axis=0, weights=counts[rows])
    squares: np.ndarray = np.square(x).sum(axis=2) * counts[:, None]
    return squares


def _kinds(drawn: Sample, asked: Sequence[str]) -> dict[str, np.ndarray]:
    """What a classifier is asked to name, by example; raise `InputError` where there is too little of one."""
    every = {"language": drawn.language, "class": need_classes(drawn).label if "class" in asked else drawn.label}
    kinds = {kind: of_row for kind, of_row in every.items() if kind in asked}
    for kind, of_row in kinds.items():
        need_units(drawn, of_row, drawn.languages if kind == "language" else drawn.classes, f"spectrum: {kind}")
    return kinds


def need_units(drawn: Sample, of_row: np.ndarray, names: Sequence[object], who: str) -> None:
    """Raise `InputError` where folds of ids, or groups, cannot each hold something of a class.

    Args:
        drawn: of the rows.
        of_row: (row,) numbers of classes, or languages.
        names: of them.
        who: asks, and of what, as messages begin.
    """
    what = "groups" if drawn.grouped else "sentences"
    for number, name in enumerate(names):
        count = len(np.unique(drawn.units[drawn.ids[of_row == number]]))
        if count < FOLDS:
            raise InputError(
                f"{who} {str(name)!r} has {count} {what}, and needs at least {FOLDS}. Give more, or leave it out"
            )


def folds_of(drawn: Sample, seed: int, of_row: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the rows to train and to test on, in folds of ids, or groups, that hold what rows are of
    evenly.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    # In the order of ids and languages: that of the corpus must not matter.
    order = np.lexsort((np.array(drawn.languages).astype(str)[drawn.language], drawn.ids))
    split = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed % 2**32)
    return [
        (order[train], order[test]) for train, test in split.split(order, of_row[order], drawn.units[drawn.ids[order]])
    ]


def named_right(x: np.ndarray, of_row: np.ndarray, folds: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Return which rows are named right by a classifier that has not seen them, nor their
    translations; NaN where states are not finite.
    """
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    out = np.full(len(x), np.nan)
    if not np.isfinite(x).all():
        return out
    with one_thread():
        for train, test in folds:
            fit = make_pipeline(StandardScaler(), RidgeClassifierCV(STRENGTHS)).fit(x[train], of_row[train])
            out[test] = fit.predict(x[test]) == of_row[test]
    return out


def _shares(drawn: Sample, squares: np.ndarray, total: np.ndarray) -> dict[str, np.ndarray]:
    """Ratios of sums over examples, in every language and in all: (1 + draws, ...)."""
    whole = weighted_ratios(drawn, np.concatenate([squares, total], axis=-1), np.ones(len(squares)))
    with np.errstate(invalid="ignore", divide="ignore"):
        return {group: both[..., :-1] / both[..., -1:] for group, both in whole.items()}


_OF_ROWS = f"{LARGE} of test rows, by the classifiers as they are trained (other training rows move it further)"
_SAID = {
    "spectrum_energy": ("share of the mean square of states along tokens, by band of the cosine transform", LARGE),
    "spectrum_language": ("accuracy of a linear classifier of languages, by band", _OF_ROWS),
    "spectrum_class": ("accuracy of a linear classifier of classes, by band", _OF_ROWS),
    "depth_spectrum": ("share of the mean square of states along layers, by frequency", THIS_SIZE),
}


def _result(
    reps: xr.Dataset,
    drawn: Sample,
    found: dict[str, np.ndarray],
    name: str,
    over: dict[str, np.ndarray],
    missing: Callable[[tuple[int, ...], str], str] | None = None,
) -> xr.Dataset:
    estimator, interval = _SAID[name]
    about = {
        "probe": name,
        "estimator": estimator,
        "range": "0 to 1",
        "better": "",
        "higher_is": "more of it in this band",
        "unchanged_by": "common scale, order",
        "paper": "after Tamkin, Jurafsky and Goodman 2020, arXiv 2011.04823",
        "interval": interval,
    }
    return result(reps, drawn, found, about, bounds=(0, 1), over=over, missing=missing)


# --- in a comparison: the mean, the slower half of what is faster, and the faster half -------------------------------

SPEEDS = ("mean", "slow", "fast")


def _of_run(run: Run, what: str) -> xr.Dataset:
    check_tokens(run.reps, "spectrum")
    (found,) = _found(run, len(SPEEDS), [what])
    about = [probe.about() for probe in SPECTRUM if probe.name.startswith(f"spectrum_{what}")]
    parts = [found.isel(band=k, drop=True) for k in range(len(SPEEDS))]
    kept = {"interval": found.attrs["interval"]}
    return stack_measures([part.assign_attrs(one | kept) for part, one in zip(parts, about, strict=True)])


def _declared(what: str, words: str, like: Probe) -> tuple[Probe, ...]:
    by = ("the mean of the words", "slow changes along the words", "fast changes along the words")
    return tuple(
        replace(like, name=f"spectrum_{what}_{speed}", title=f"{words} {said}", estimator=like.estimator.format(band))
        for speed, said, band in zip(SPEEDS, by, ("mean", "slower half", "faster half"), strict=True)
    )


_ENERGY = Probe(
    name="spectrum_energy",
    estimator="share of the mean square of states along words, of the cosine transform the {}",
    range="0 to 1; the three shares sum to 1",
    bounds=(0, 1),
    higher_is="more of it at this speed",
    unchanged_by=("rotation", "shift", "common scale", "order"),
    paper="after Tamkin, Jurafsky and Goodman 2020, arXiv 2011.04823",
    family="spectrum_energy",
    needs=("states of tokens",),
    interval=LARGE,
    measure=partial(_of_run, what="energy"),
)
_NAMED = replace(
    _ENERGY,
    range="0 to 1; by chance the share of the largest",
    unchanged_by=("shift", "common scale", "scale of each feature", "order"),
    interval=_OF_ROWS,
)
_LANGUAGE = replace(
    _NAMED,
    estimator="accuracy of a linear classifier of languages, of the cosine transform along words the {}",
    family="spectrum_language",
    needs=("states of tokens", "several languages"),
    measure=partial(_of_run, what="language"),
    check=lambda run: _kinds(run.sample, ["language"]),
)
_CLASS = replace(
    _NAMED,
    estimator="accuracy of a linear classifier of classes, of the cosine transform along words the {}",
    family="spectrum_class",
    needs=("states of tokens", "labels"),
    measure=partial(_of_run, what="class"),
    check=lambda run: _kinds(run.sample, ["class"]),
)
SPECTRUM = (
    *_declared("energy", "energy of", _ENERGY),
    *_declared("language", "language from", _LANGUAGE),
    *_declared("class", "class from", _CLASS),
)
