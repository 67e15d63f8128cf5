"""Do languages with little text in pretraining lose more? Losses of a comparison against sizes."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from probes.errors import InputError, check_choice
from probes.results.cells import NO_LAYER
from probes.results.draws import POOLED
from probes.results.intervals import interval
from probes.results.table import Table

_FEWEST = 4  # languages
_PERMUTATIONS = 9999


def pretraining_sizes() -> pd.Series:
    """Return how much text each language has in CC-100, in gibibytes, by its code.

    Example:
        >>> float(pretraining_sizes()["sw"])
        1.6

    See also:
        `loss_by_size`
    """
    with resources.as_file(resources.files("probes.data") / "pretraining_sizes.tsv") as path:
        # "na" would be a language, not a missing one.
        table = pd.read_csv(path, sep="\t", keep_default_na=False)
    return pd.Series(table["gibibytes"].to_numpy(float), index=table["language"].to_numpy(), name="gibibytes")


def loss_by_size(
    comparison: Table,
    probe: str = "accuracy",
    *,
    layer: int | None = None,
    sizes: Mapping[str, float] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Correlate what each model lost in a language with the text that language had in pretraining.

    Spearman's rank correlation over languages, -1 to 1. Below 0: languages with little text lost
    more; 0: size says nothing of it.

    Args:
        comparison: of models with a baseline, or its `Table`.
        probe: what is lost, a probe that has a better side.
        layer: of a probe of layers; by default the last one that it has, or the output.
        sizes: language -> how much text it had, above 0, in any unit; by default that of CC-100
            (`pretraining_sizes`), in which codes are looked up up to the first "-" or "_".
        seed: of the permutations.

    Returns:
        One row a model but the baseline: `model`, `probe`, `layer`, `correlation`, `low` and `high`
        (95 % over the comparison's draws of sentences), `p` (that sizes are dealt to languages at
        random, by 9,999 permutations, both sides), `languages`.

    Raises:
        InputError: the probe or layer is not in the table, or the probe has no better side; fewer
            than 4 languages have a size; a size is not above 0.

    Notes:
        The interval is for these languages and other sentences, p for these sentences and other
        languages. Noise in the losses draws the correlation towards 0, so that the interval may lie
        nearer to it than the value. A correlation says nothing of the cause: languages of much text
        differ in script and kinship too. NaN where all languages lost the same.

    See also:
        `zero_shot_gap`, `Comparison.verdict`.

    Example:
        >>> import probes
        >>> x, y = np.random.default_rng(0).normal(size=(60, 8)), np.arange(60) % 3
        >>> codes = np.repeat(["en", "de", "hi", "sw"], 15)
        >>> states = [probes.from_arrays(x + k * np.eye(8)[y], label=y, language=codes) for k in (3, 1)]
        >>> comparison = probes.compare({"a": states[0], "b": states[1]}, probes=["snr"])
        >>> loss_by_size(comparison, "snr")["languages"].tolist()
        [4]
    """
    about = comparison.provenance["probes"]
    check_choice("probe", probe, about)
    if about[probe]["better"] not in ("higher", "lower"):
        raise InputError(f"probe={probe!r}: neither side of it is better, so that nothing is lost. Choose another")
    table = comparison.table
    rows = table[(table["probe"] == probe) & (table["language"] != POOLED)]
    there = sorted(set(rows["layer"]))
    layer = there[-1] if layer is None else layer
    if layer not in there:
        raise InputError(f"layer={layer}: {probe} has the layers {there} ({NO_LAYER}: the output)")
    rows = rows[rows["layer"] == layer]
    if "other_layer" in rows:  # maps of layers: each beside itself
        rows = rows[rows["other_layer"].isin([NO_LAYER, layer])]
    known = _sizes(sizes, list(dict.fromkeys(rows["language"])))
    sign = 1.0 if about[probe]["better"] == "higher" else -1.0
    at = pd.Series(np.arange(comparison.draws.sizes["row"]), index=comparison.draws["row"].values)

    def values(model: str) -> np.ndarray:
        own = rows[rows["model"] == model].drop_duplicates("language").set_index("language")
        number = rows[rows["model"] == model].drop_duplicates("language").index
        drawn = comparison.draws["draws"].values[at.reindex(number).to_numpy(int)]
        found = pd.DataFrame(np.column_stack([own["value"].to_numpy(float), drawn]), index=own.index)
        return found.reindex(known.index).to_numpy().T  # (1 + draws, language)

    base = 0.0 if about[probe]["compares"] else values(comparison.baseline)
    out = []
    for model in comparison.provenance["models"]:
        if model == comparison.baseline:
            continue
        loss = sign * (base - values(model))
        kept = np.isfinite(loss[0])
        if kept.sum() < _FEWEST:
            raise InputError(
                f"{probe} of {model!r}: {int(kept.sum())} languages have a value: expected {_FEWEST} or more"
            )
        size = known.to_numpy()[kept]
        found = _correlation(loss[:, kept], size)
        low, high = interval(found[0], found[1:])
        row = {"model": model, "probe": probe, "layer": layer, "correlation": found[0], "low": float(low)}
        out.append(row | {"high": float(high), "p": _chance(loss[0, kept], size, seed), "languages": int(kept.sum())})
    return pd.DataFrame(out)


def _sizes(sizes: Mapping[str, float] | None, languages: list[str]) -> pd.Series:
    """Return the sizes of those languages that have one."""
    given = pretraining_sizes() if sizes is None else pd.Series(dict(sizes), dtype=float)
    short = {name: name.split("-")[0].split("_")[0] if sizes is None else name for name in map(str, languages)}
    found = pd.Series({name: float(given[code]) for name, code in short.items() if code in given.index}, dtype=float)
    if len(found) < _FEWEST:
        lacking = [name for name in short if name not in found.index]
        raise InputError(
            f"{len(found)} languages have a size: expected {_FEWEST} or more; {', '.join(lacking)} have none. Give "
            "sizes=..., language -> size"
        )
    if not (np.isfinite(found) & (found > 0)).all():
        bad = found.index[~(np.isfinite(found) & (found > 0))][0]
        raise InputError(f"sizes: {bad!r} has {found[bad]}: expected a number above 0")
    return found


def _correlation(loss: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return Spearman's correlation of each row of losses (row, language) with sizes."""
    x = rankdata(loss, axis=1)
    y = rankdata(size)
    x, y = x - x.mean(axis=1, keepdims=True), y - y.mean()
    with np.errstate(invalid="ignore", divide="ignore"):
        return x @ y / np.sqrt(np.square(x).sum(axis=1) * np.square(y).sum())


def _chance(loss: np.ndarray, size: np.ndarray, seed: int) -> float:
    """Return how often sizes dealt at random correlate as much, either way."""
    own = _correlation(loss[None], size)[0]
    if not np.isfinite(own):
        return float("nan")
    generator = np.random.default_rng(seed)
    dealt = generator.permuted(np.tile(rankdata(loss), (_PERMUTATIONS, 1)), axis=1)
    as_much = np.abs(_correlation(dealt, size)) >= np.abs(own) - 1e-12
    return float((1 + as_much.sum()) / (1 + _PERMUTATIONS))
