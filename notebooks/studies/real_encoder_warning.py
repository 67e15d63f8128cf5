"""Early warning: which measure, without labels, tells what each language lost to a compression that it has not seen?"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from real_encoder_answers import LOST, Kept, _rowwise, spearman
from real_encoder_tables import LESS, MOVED, RATIO, middle_of
from scipy.stats import rankdata
from sklearn.isotonic import IsotonicRegression

from probes.results.correlations import correlations
from probes.results.intervals import interval

RESAMPLES = 300
MILD = 0.1  # a model that lost less than this over all languages is one that nobody has noticed yet
BYTES, CHANCE = "share of bytes saved", "random numbers"  # what needs no measure, and what can know nothing


class Models(NamedTuple):
    """What compressed models lost in each language, and what measures without labels say of them."""

    lost: np.ndarray  # (model, language)
    draws: np.ndarray  # (model, language, draw of sentences)
    said: dict[str, tuple[np.ndarray, np.ndarray]]  # measure -> the same two of the damage that it sees
    families: np.ndarray
    units: np.ndarray  # models of one setting, as of several seeds, are drawn together


def of_runs(kept: Kept, probe: str) -> Models:
    """The models without training, with their draws of sentences."""
    languages = kept.others(probe)
    return Models(
        *kept.lost(probe, languages),
        damages(kept, languages),
        kept.families.to_numpy(),
        np.arange(len(kept.runs)),
    )


def damages(kept: Kept, languages: list[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What each measure says of each run and language: (run, language), and its draws (run, language, draw)."""
    rows = kept.rows[kept.rows["language"].isin(languages)]
    last = rows.groupby("run")["layer"].transform("max")
    places = {"end": rows["end"], "middle": rows["layer"] == last.map(lambda n: middle_of(int(n)))}
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for place, there in places.items():
        for probe in (*LESS, *MOVED, *RATIO):
            own = rows[there & (rows["probe"] == probe)]
            if own.empty:
                continue
            value, draws = kept.block(own, languages)
            found[f"{probe}, {place}"] = damage(probe, value[1:], value[:1]), damage(probe, draws[1:], draws[:1])
    saved = 1 - (kept.runs["stored_bytes"] / kept.runs["stored_bytes before"]).to_numpy()
    return found | without_measures(saved, next(iter(found.values()))[1].shape)


def without_measures(saved: np.ndarray, shape: tuple[int, ...]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What needs no measure, and what can know nothing, as if they were measured: shapes as of the draws."""
    chance = np.random.default_rng(0).normal(size=shape[:2])
    both = {BYTES: np.broadcast_to(saved[:, None], shape[:2]), CHANCE: chance}
    return {name: (x, np.broadcast_to(x[..., None], shape)) for name, x in both.items()}


def damage(probe: str, value: np.ndarray, base: np.ndarray) -> np.ndarray:
    """What a measure says as a damage, higher is more; `base` is the original's, of what is measured of one model."""
    if probe == "alignment_gap":
        return base - value
    if probe in LESS:
        return -value
    if probe in RATIO:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.abs(np.log(value))
    return np.abs(value - base)


def warned(models: Models) -> pd.DataFrame:
    """Say for each measure how well it tells what was lost, the best first.

    Returns:
        measure; `over all`, its rank correlation with the loss over all models and languages; `within a model`, over
        languages alone, the mean over models that lost something; `mild`, over models that lost little; `family left
        out`, the lowest of those within one family; `explained`, the share of the error that is saved in a family by
        what the others teach, mean over families; each of the first two with an interval over sentences, models and
        languages.
    """
    lost, families = models.lost, models.families
    picks = resampled(models)
    loss_again = [_Loss(models.draws[np.ix_(m, x)][..., d]) for m, x, d in picks]
    loss = _Loss(lost)
    rows = []
    for name, (value, draws) in models.said.items():
        again = np.array(
            [held.told(draws[np.ix_(m, x)][..., d]) for (m, x, d), held in zip(picks, loss_again, strict=True)]
        )
        own = loss.told(value)
        ends = [interval(np.array(own[k]), again[:, k]) for k in (0, 1)]
        mild = lost.mean(axis=1) < MILD
        within = {
            f: spearman(value[families == f].ravel(), lost[families == f].ravel()) for f in dict.fromkeys(families)
        }
        rows.append(
            {
                "measure": name,
                "over all": own[0],
                "low": float(ends[0][0]),
                "high": float(ends[0][1]),
                "within a model": own[1],
                "within low": float(ends[1][0]),
                "within high": float(ends[1][1]),
                "mild": spearman(value[mild].ravel(), lost[mild].ravel()) if mild.sum() > 1 else np.nan,
                "family left out": min(within.values(), default=np.nan),
                "explained": explained(value, lost, families),
            }
        )
    return pd.DataFrame(rows).sort_values("over all", ascending=False, ignore_index=True)


def ahead(models: Models, one: str, other: str) -> tuple[float, float, float]:
    """By how much one measure's rank correlation with the loss is above another's, on the same resamples."""
    said, lost = models.said, models.lost
    value = spearman(said[one][0].ravel(), lost.ravel()) - spearman(said[other][0].ravel(), lost.ravel())
    again = []
    for m, x, d in resampled(models):
        loss = models.draws[np.ix_(m, x)][..., d].ravel()
        first, second = (spearman(said[k][1][np.ix_(m, x)][..., d].ravel(), loss) for k in (one, other))
        again.append(first - second)
    low, high = interval(np.array(value), np.array(again))
    return value, float(low), float(high)


def resampled(models: Models) -> list[tuple[np.ndarray, np.ndarray, int]]:
    """Models (drawn within their families, those of a setting together), languages, and the draw of each resample."""
    generator = np.random.default_rng(0)
    languages, draws = models.draws.shape[1:]
    groups = [
        [
            np.flatnonzero((models.families == f) & (models.units == u))
            for u in np.unique(models.units[models.families == f])
        ]
        for f in dict.fromkeys(models.families)
    ]
    return [
        (
            np.concatenate([g[i] for g in groups for i in generator.integers(0, len(g), len(g))]),
            generator.integers(0, languages, languages),
            int(generator.integers(draws)),
        )
        for _ in range(RESAMPLES)
    ]


class _Loss:
    """Losses (model, language) and their ranks, which all measures are held to."""

    def __init__(self, lost: np.ndarray) -> None:
        self.lost, self.some = lost, lost.mean(axis=1) > 0.01
        self.over_all, self.within = rankdata(lost.ravel()), rankdata(lost[self.some], axis=1)

    def told(self, value: np.ndarray) -> tuple[float, float]:
        """The rank correlation over all, and the mean over models that lost something of that over languages."""
        if np.isfinite(value).all():
            over_all = _correlated(rankdata(value.ravel())[None], self.over_all[None])
            within = _correlated(rankdata(value[self.some], axis=1), self.within)
        else:
            over_all = np.array([spearman(value.ravel(), self.lost.ravel())])
            within = _rowwise(value[self.some], self.lost[self.some])
        within = within[np.isfinite(within)]
        return float(over_all[0]), float(within.mean()) if len(within) else np.nan


def _correlated(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return correlations(x, y, np.ones_like(x))


def explained(value: np.ndarray, lost: np.ndarray, families: np.ndarray) -> float:
    """What a rising curve of losses over damages, fitted on all families but one, saves of the error in that one.

    1 is all of it, 0 is no better than the mean loss of the other families, below 0 it is worse.
    """
    out = []
    for family in dict.fromkeys(families):
        of = families == family
        x, y, there = value[~of].ravel(), lost[~of].ravel(), np.isfinite(value[~of].ravel())
        if there.sum() < 10 or not np.isfinite(value[of]).any():
            continue
        curve: Any = IsotonicRegression(out_of_bounds="clip").fit(x[there], y[there])
        own = np.isfinite(value[of].ravel())
        wanted = lost[of].ravel()[own]
        error = np.abs(curve.predict(value[of].ravel()[own]) - wanted).mean()
        constant = np.abs(y[there].mean() - wanted).mean()
        out.append(1 - error / constant if constant > 0 else np.nan)
    return float(np.nanmean(out)) if out else np.nan


def of_all(kept: Kept) -> dict[str, tuple[Models, pd.DataFrame]]:
    """The models and the table of each loss."""
    found = {probe: of_runs(kept, probe) for probe in LOST}
    return {probe: (models, warned(models)) for probe, models in found.items()}
