"""The share of the predictions that the training sentences of every language carry."""

from __future__ import annotations

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from probes.errors import InputError
from probes.measures.attribution.representers import L2, solved
from probes.measures.attribution.rows import rows_of_representations
from probes.measures.probe import LARGE, Probe, Run
from probes.results.draws import POOLED, sample
from probes.results.result import result
from probes.states.representations import as_strings, check_representations, states


def representer_support(
    reps: xr.Dataset, *, draws: int = 200, seed: int = 0, l2: float = L2, progress: bool = True
) -> xr.Dataset:
    """Measure which share of the predictions the training sentences of every language carry.

    At every layer, `representers` splits the logits of the predicted classes of the test rows into
    what each training row adds; summed by language and divided by the sum of the logits these are
    shares.

    Args:
        reps: Representations whose `split` holds "train" and "test". With logits the model's own
            predictions are explained; without, those of a head that is trained on the labels.
        draws, seed: of the bootstrap by sentence id. The test rows are drawn; the training rows are
            what they are.
        l2: as in `representers`.
        progress: show a progress bar.

    Returns:
        `value, low, high (layer, other_language, language)`: of test language `language` (all
        together as `pooled`) the share that training language `other_language` has. Shares sum to
        1, and one is below 0 where a language speaks against what is predicted. `n` is the number
        of test rows.

    Raises:
        InputError: there is no such split, or neither logits nor labels; an id is in both splits.

    See also:
        `representers`.

    Example:
        >>> import probes
        >>> y = np.arange(90) % 3
        >>> x = np.random.default_rng(0).normal(size=(90, 8)) + 3 * np.eye(8)[y]
        >>> split = ("example", np.where(np.arange(90) < 60, "train", "test"))
        >>> reps = probes.from_arrays(x, label=y).assign_coords(split=split)
        >>> out = representer_support(reps, progress=False)
        >>> float(out.value.squeeze().sel(language="pooled").round(6))
        1.0
    """
    return _support(reps, draws, seed, l2, progress)


def _support(reps: xr.Dataset, draws: int, seed: int, l2: float, progress: bool) -> xr.Dataset:
    parts = check_splits(reps)
    train, test = (reps.isel(example=rows) for rows in parts.values())
    drawn = sample(test, draws=draws, seed=seed)
    names = list(dict.fromkeys(train["language"].values))
    found: dict[str, list[np.ndarray]] = {group: [] for group in [*drawn.languages, POOLED]}
    reasons: dict[int, str] = {}
    outputs = "logits" in reps
    unknown = 0
    if outputs:
        given = reps["logits"].values[np.concatenate(list(parts.values()))]
        unknown = int((~np.isfinite(given).all(axis=1)).sum())
    bar = tqdm(
        reps["layer"].values, desc=f"representers {reps.attrs.get('model', '?')}", unit="layer", disable=not progress
    )
    for i, layer in enumerate(bar):
        used = states(reps, i, np.concatenate(list(parts.values())))
        if bad := int((~np.isfinite(used).all(axis=1)).sum()):
            reasons[i] = f"layer {layer}: {bad} rows are not finite"
        elif unknown:
            reasons[i] = f"every layer: the logits of {unknown} rows are not finite"
        if i in reasons:
            for shares in found.values():
                shares.append(np.full((len(drawn.weights), len(names)), np.nan))
            continue
        values = solved(*rows_of_representations(train, test, None, None, layer, outputs=outputs), l2)
        table, logits = values.support()
        for group in found:
            rows = drawn.group(group)
            w = drawn.weights[:, drawn.ids[rows]].astype(np.float64)
            with np.errstate(invalid="ignore", divide="ignore"):
                found[group].append((w @ table[names].to_numpy()[rows]) / (w @ logits[rows])[:, None])
    return result(
        test,
        drawn,
        {group: np.stack(layers, axis=1) for group, layers in found.items()},
        REPRESENTER_SUPPORT.about(),
        over={"layer": reps["layer"].values, "other_language": as_strings(names)},
        missing=lambda at, language: reasons.get(at[0], f"layer {reps['layer'].values[at[0]]}: all logits are 0"),
    )


def check_splits(reps: xr.Dataset) -> dict[str, np.ndarray]:
    """Return the rows of split "train" and "test"; raise `InputError` where one has none, or they
    share an id.
    """
    check_representations(reps)
    split = reps["split"].values if "split" in reps.coords else np.array([], object)
    parts = {name: np.flatnonzero(split == name) for name in ("train", "test")}
    for name, rows in parts.items():
        if not len(rows):
            raise InputError(
                f"representer_support: no row has the split {name!r}; expected a coordinate 'split' that holds 'train' "
                "and 'test'. Capture a corpus with a column 'split'"
            )
    both = sorted(set(reps["id"].values[parts["train"]]) & set(reps["id"].values[parts["test"]]))
    if both:
        raise InputError(
            f"id {both[0]!r} is in split 'train' and in split 'test', so a sentence would be explained by its own "
            "translations. Give all rows of an id the same split"
        )
    return parts


def _check(run: Run) -> None:
    check_splits(run.reps)


REPRESENTER_SUPPORT = Probe(
    name="representer_support",
    title="support for the prediction",
    estimator="share of the logits of the predicted classes that the training sentences of a language add up to",
    range="-infinity to infinity; the shares of all training languages sum to 1",
    higher_is="more support",
    unchanged_by=("rotation", "order"),
    paper="Yeh, Kim, Yen, Ravikumar 2018, arXiv 1811.09720",
    needs=("labels or logits", "splits"),
    interval=f"{LARGE} of test rows",
    measure=lambda run: _support(run.reps, run.draws, run.seed, L2, run.progress),
    check=_check,
)
