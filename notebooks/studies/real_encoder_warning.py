"""Early warning: which measure, without labels, tells what each language lost to a compression that it has not seen?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from real_encoder_answers import LOST, Kept, _rowwise, spearman
from real_encoder_runs import middle_of
from sklearn.isotonic import IsotonicRegression

from probes.results.intervals import interval

RESAMPLES = 300
MILD = 0.1  # a model that lost less than this over all languages is one that nobody has noticed yet
# Measures without labels, and how what they say becomes a damage: less of it is more damage, it says how far it moved
# from the original, or how far from the value of what has not changed.
LESS = ("cosine_to_baseline", "signal_to_error", "cka", "probability_loyalty", "label_loyalty", "alignment_gap")
MOVED = (
    "mean_cosine_of_pairs",
    "iso_score",
    "effective_rank",
    "participation_ratio",
    "intrinsic_dimension",
    "norm",
    "largest_feature_share",
)
RATIO = ("norm_ratio",)
BYTES, CHANCE = "share of bytes saved", "random numbers"  # what needs no measure, and what can know nothing


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
            found[f"{probe}, {place}"] = _damage(probe, value, draws)
    shape = next(iter(found.values()))[1].shape
    saved = 1 - (kept.runs["stored_bytes"] / kept.runs["stored_bytes before"]).to_numpy()
    chance = np.random.default_rng(0).normal(size=shape[:2])
    for name, x in ((BYTES, np.broadcast_to(saved[:, None], shape[:2])), (CHANCE, chance)):
        found[name] = x, np.broadcast_to(x[..., None], shape)
    return found


def _damage(probe: str, value: np.ndarray, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Higher is more damage; the first row is the original's, of what is measured of one model alone."""
    if probe == "alignment_gap":
        return value[:1] - value[1:], draws[:1] - draws[1:]
    if probe in LESS:
        return -value[1:], -draws[1:]
    if probe in RATIO:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.abs(np.log(value[1:])), np.abs(np.log(draws[1:]))
    return np.abs(value[1:] - value[:1]), np.abs(draws[1:] - draws[:1])


def warned(kept: Kept, probe: str) -> pd.DataFrame:
    """Say for each measure how well it tells the losses of a probe, the best first.

    Returns:
        measure; `over all`, its rank correlation with the loss over all models and languages; `within a model`, over
        languages alone, the mean over models that lost something; `mild`, over models that lost little; `family left
        out`, the lowest of those within one family; `explained`, the share of the error that is saved in a family by
        what the others teach, mean over families; each of the first two with an interval over sentences, models and
        languages.
    """
    languages = kept.others(probe)
    lost, lost_draws = kept.lost(probe, languages)
    families = kept.families.to_numpy()
    said = damages(kept, languages)
    picks = resampled(families, len(languages), lost_draws.shape[2])
    loss_again = [lost_draws[np.ix_(m, x)][..., d] for m, x, d in picks]
    rows = []
    for name, (value, draws) in said.items():
        again = np.array(
            [_both(draws[np.ix_(m, x)][..., d], loss) for (m, x, d), loss in zip(picks, loss_again, strict=True)]
        )
        own = _both(value, lost)
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


def ahead(kept: Kept, probe: str, one: str, other: str) -> tuple[float, float, float]:
    """By how much one measure's rank correlation with the loss is above another's, on the same resamples."""
    languages = kept.others(probe)
    lost, lost_draws = kept.lost(probe, languages)
    said = damages(kept, languages)
    picks = resampled(kept.families.to_numpy(), len(languages), lost_draws.shape[2])
    value = spearman(said[one][0].ravel(), lost.ravel()) - spearman(said[other][0].ravel(), lost.ravel())
    again = []
    for m, x, d in picks:
        loss = lost_draws[np.ix_(m, x)][..., d].ravel()
        first, second = (spearman(said[k][1][np.ix_(m, x)][..., d].ravel(), loss) for k in (one, other))
        again.append(first - second)
    low, high = interval(np.array(value), np.array(again))
    return value, float(low), float(high)


def resampled(families: np.ndarray, languages: int, draws: int) -> list[tuple[np.ndarray, np.ndarray, int]]:
    """Runs (drawn within their families), languages, and the draw of sentences of each resample."""
    generator = np.random.default_rng(0)
    groups = [np.flatnonzero(families == f) for f in dict.fromkeys(families)]
    return [
        (
            np.concatenate([generator.choice(g, len(g)) for g in groups]),
            generator.integers(0, languages, languages),
            int(generator.integers(draws)),
        )
        for _ in range(RESAMPLES)
    ]


def _both(value: np.ndarray, lost: np.ndarray) -> tuple[float, float]:
    """The rank correlation over all, and the mean over models that lost something of that over languages."""
    some = lost.mean(axis=1) > 0.01
    within = _rowwise(value[some], lost[some]) if some.any() else np.array([np.nan])
    within = within[np.isfinite(within)]
    return spearman(value.ravel(), lost.ravel()), float(within.mean()) if len(within) else np.nan


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


def of_all(kept: Kept) -> dict[str, pd.DataFrame]:
    """The table of each loss."""
    return {probe: warned(kept, probe) for probe in LOST}
