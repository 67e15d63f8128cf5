"""What the runs of the study of a real encoder say: of languages, of equal bytes, and of the papers' claims."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import common
import numpy as np
import pandas as pd
from real_encoder_methods import PIVOT, VOCABULARY
from real_encoder_runs import ORIGINAL
from scipy.stats import rankdata

import probes
from probes.results.correlations import correlations
from probes.results.intervals import interval

RESAMPLES = 2000  # of languages, each with a draw of sentences
# Family of the language, and its code in the counts of CC-100.
LANGUAGES = {
    "eng_Latn": ("Germanic", "en"),
    "fra_Latn": ("Romance", "fr"),
    "deu_Latn": ("Germanic", "de"),
    "spa_Latn": ("Romance", "es"),
    "ita_Latn": ("Romance", "it"),
    "por_Latn": ("Romance", "pt"),
    "nld_Latn": ("Germanic", "nl"),
    "rus_Cyrl": ("Slavic", "ru"),
    "bul_Cyrl": ("Slavic", "bg"),
    "ukr_Cyrl": ("Slavic", "uk"),
    "pol_Latn": ("Slavic", "pl"),
    "ell_Grek": ("Hellenic", "el"),
    "tur_Latn": ("Turkic", "tr"),
    "arb_Arab": ("Semitic", "ar"),
    "heb_Hebr": ("Semitic", "he"),
    "hin_Deva": ("Indo-Aryan", "hi"),
    "urd_Arab": ("Indo-Aryan", "ur"),
    "tha_Thai": ("Kra-Dai", "th"),
    "vie_Latn": ("Austroasiatic", "vi"),
    "zho_Hans": ("Sinitic", "zh"),
    "jpn_Jpan": ("Japonic", "ja"),
    "kor_Hang": ("Koreanic", "ko"),
    "swh_Latn": ("Bantu", "sw"),
    "fin_Latn": ("Uralic", "fi"),
}
# Billions of tokens in mC4, as counted in arXiv 2010.11934 (Hebrew is "iw" there).
MC4 = {
    "eng_Latn": 2733,
    "fra_Latn": 318,
    "deu_Latn": 347,
    "spa_Latn": 433,
    "ita_Latn": 162,
    "por_Latn": 146,
    "nld_Latn": 73,
    "rus_Cyrl": 713,
    "bul_Cyrl": 22,
    "ukr_Cyrl": 41,
    "pol_Latn": 130,
    "ell_Grek": 43,
    "tur_Latn": 71,
    "arb_Arab": 57,
    "heb_Hebr": 17,
    "hin_Deva": 24,
    "urd_Arab": 2.4,
    "tha_Thai": 11,
    "vie_Latn": 116,
    "zho_Hans": 39,
    "jpn_Jpan": 164,
    "kor_Hang": 26,
    "swh_Latn": 1,
    "fin_Latn": 25,
}
LOST = ("retrieval", "accuracy")  # what a model can lose; both are shares, higher is better


@dataclass
class Kept:
    """All runs that are there: a row a run, their rows by layer and language, and what the original is."""

    runs: pd.DataFrame
    rows: pd.DataFrame  # run, probe, layer, language, value, low, high, draws, state, ...
    about: dict[str, Any]
    folder: Path

    @classmethod
    def read(cls, folder: Path, there: Sequence[dict[str, Any]]) -> Kept:
        """Read those of some settings, and the original."""
        files = [common.file_of(folder, s) for s in there]
        runs = pd.DataFrame([json.loads(f.read_text(encoding="utf-8")) for f in files])
        frames = [pd.read_parquet(folder / ORIGINAL / "rows.parquet").assign(run=ORIGINAL)]
        if len(runs):
            runs.insert(0, "run", [name_of(s) for s in there])
            frames += [
                pd.read_parquet(f.with_suffix(".parquet")).assign(run=r)
                for f, r in zip(files, runs["run"], strict=True)
            ]
        rows = pd.concat(frames, ignore_index=True)
        last = rows.groupby("run")["layer"].transform("max")
        rows["end"] = (rows["layer"] == last) | (rows["layer"] == -1)
        about = json.loads((folder / ORIGINAL / "about.json").read_text(encoding="utf-8"))
        return cls(runs, rows, about, folder)

    @cached_property
    def languages(self) -> list[str]:
        """In the order of the corpus."""
        return [x for x in self.rows["language"].drop_duplicates() if x != "pooled"]

    @cached_property
    def families(self) -> pd.Series:
        """The family of each run."""
        return self.runs.set_index("run")["family"]

    def at_end(self, probe: str, languages: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Values (1 + run, language) at the end of the original and of each run, and draws (..., draw)."""
        rows = self.rows[(self.rows["probe"] == probe) & self.rows["end"]]
        return self.block(rows, languages)

    def block(self, rows: pd.DataFrame, languages: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Values and draws of rows of one probe and layer a run; NaN where a run has none."""
        names = [ORIGINAL, *self.runs["run"]]
        index = pd.MultiIndex.from_product([names, languages])
        found = rows.set_index(["run", "language"]).reindex(index)
        count = max((len(d) for d in found["draws"] if isinstance(d, np.ndarray)), default=0)
        empty = np.full(count, np.nan)
        draws = np.stack([d if isinstance(d, np.ndarray) else empty for d in found["draws"]])
        shape = (len(names), len(languages))
        return found["value"].to_numpy(float).reshape(shape), draws.astype(float).reshape(*shape, count)

    def lost(self, probe: str, languages: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """What each run lost (run, language), and its draws (run, language, draw)."""
        value, draws = self.at_end(probe, languages)
        return value[:1] - value[1:], draws[:1] - draws[1:]

    def others(self, probe: str) -> list[str]:
        """The languages in which a measure is: translations are found in all but the pivot."""
        return [x for x in self.languages if probe != "retrieval" or x != PIVOT]


def name_of(setting: dict[str, Any]) -> str:
    """What a run is called: its method, how much, and what it looked at where that is a choice."""
    method, strength = setting["method"], setting["strength"]
    much = f"{strength:.0%}".replace("%", " %") if strength < 1 else f"{strength:g}"
    unit = " bits" if "round" in method or method in ("GPTQ", "AWQ", "onnxruntime") else ""
    unit = " layers" if method.startswith("drop") else unit
    said = f"{method} {much}{unit}" if method != "vocabulary" else f"vocabulary of {setting['text']}"
    return said + (", English text" if setting["text"] == "English" and method != "vocabulary" else "")


def by_family(kept: Kept, x: np.ndarray) -> np.ndarray:
    """The mean over families of the mean over the runs (run, ...) of each, so that no family counts for its number.

    But for smaller vocabularies: what they lose is by which languages' tokens were left out.
    """
    families = kept.families.to_numpy()
    counted = [f for f in dict.fromkeys(families) if f != VOCABULARY] or [VOCABULARY]
    return np.mean([x[families == f].mean(axis=0) for f in counted], axis=0)


def why_least(kept: Kept, language: str) -> str:
    """What the head says most of the language that it is least right in, and whether its states stand apart."""
    folder = kept.folder / ORIGINAL
    reps = probes.open_representations(folder / "states.zarr")
    x, spoken = reps.hidden.isel(layer=-1).values.astype(float), reps.language.values
    with np.load(folder / "head.npz") as saved:
        said = saved["names"][(x @ saved["weights"] + saved["biases"]).argmax(axis=1)]
    own = spoken == language
    topic, count = next(iter(pd.Series(said[own]).value_counts().items()))
    means = pd.DataFrame((x - x.mean(axis=0)) / x.std(axis=0)).groupby(spoken).mean()
    apart = pd.Series(np.linalg.norm(means - means.mean(), axis=1), index=means.index)
    true = int((reps.label.values[own].astype(str) == topic).sum())
    why = f"it takes {count} of {own.sum()} sentences for {topic}, where {true} are"
    return why + (
        ", and no other language's mean state stands so far from the rest" if apart.idxmax() == language else ""
    )


def who_falls(kept: Kept, probe: str) -> pd.DataFrame:
    """What each language loses beyond the mean of all, over families of compressions; jointly over languages.

    Returns:
        language, lost, beyond, low, high, verdict, the most lost first.
    """
    languages = kept.others(probe)
    lost, draws = kept.lost(probe, languages)
    mean, drawn = by_family(kept, lost), by_family(kept, draws)  # (language,), (language, draw)
    beyond, moved = mean - mean.mean(), drawn - drawn.mean(axis=0)
    spread = np.maximum(moved.std(axis=1, ddof=1), 1e-9)
    worst = np.abs(moved - moved.mean(axis=1, keepdims=True)) / spread[:, None]
    reach = np.quantile(worst.max(axis=0), 0.95) * spread
    table = pd.DataFrame(
        {"language": languages, "lost": mean, "beyond": beyond, "low": beyond - reach, "high": beyond + reach}
    )
    words = np.select([table["low"] > 0, table["high"] < 0], ["falls first", "falls last"], "cannot tell")
    return table.assign(verdict=words).sort_values("lost", ascending=False).reset_index(drop=True)


def traits(kept: Kept, languages: Sequence[str]) -> dict[str, np.ndarray]:
    """What languages may fall by, higher = expected to lose more."""
    sizes = probes.pretraining_sizes()
    tokens = kept.about["tokens"]
    rows = kept.rows[(kept.rows["run"] == ORIGINAL) & kept.rows["end"]]

    def original(probe: str) -> np.ndarray:
        values = rows[rows["probe"] == probe].set_index("language")["value"]
        return values.reindex(languages).to_numpy(float)

    return {
        "more tokens a sentence": np.array([tokens[x] / tokens[PIVOT] for x in languages]),
        "a script other than Latin": np.array([float(not x.endswith("_Latn")) for x in languages]),
        "less text in CC-100": np.array([-float(sizes.get(LANGUAGES[x][1], np.nan)) for x in languages]),
        "less text in mC4": np.array([-MC4[x] for x in languages]),
        "a family other than Germanic or Romance": np.array(
            [float(LANGUAGES[x][0] not in ("Germanic", "Romance")) for x in languages]
        ),
        "translations farther from English in the original": -original("alignment_gap"),
    }


def follows(kept: Kept, probe: str) -> pd.DataFrame:
    """Rank correlations over languages of what they lost with what they are, with intervals for all traits at once.

    Each resample draws languages with repetition, and a draw of sentences: both vary.
    """
    languages = [x for x in kept.others(probe) if x != PIVOT]
    lost, draws = kept.lost(probe, languages)
    mean, drawn = by_family(kept, lost), by_family(kept, draws)
    known = traits(kept, languages)
    generator = np.random.default_rng(0)
    chosen = generator.integers(0, len(languages), (RESAMPLES, len(languages)))
    sentences = generator.integers(0, drawn.shape[1], RESAMPLES)
    rows = []
    for name, trait in known.items():
        there = np.isfinite(trait)
        value = spearman(mean[there], trait[there])
        again = _rowwise(drawn[chosen, sentences[:, None]], trait[chosen])
        again = again[np.isfinite(again)]  # a resample of languages that are all alike has none
        ends = [0.025 / len(known), 1 - 0.025 / len(known)]
        low, high = np.quantile(again, ends) if len(again) else (np.nan, np.nan)
        rows.append([name, value, min(low, value), max(high, value), int(there.sum()), yes_or_no(low, high)])
    return pd.DataFrame(
        rows, columns=["languages lose more that have", "correlation", "low", "high", "languages", "verdict"]
    )


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Rank correlation of two rows of numbers; NaN where one is the same everywhere."""
    return float(_rowwise(x[None], y[None])[0])


def _rowwise(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Rank correlations of each row (row, item) with the row beside it."""
    there = np.isfinite(x) & np.isfinite(y)
    if there.all():
        ranks = rankdata(x, axis=1), rankdata(y, axis=1)
        return correlations(*ranks, np.ones_like(ranks[0]))
    return np.array([spearman(a[t], b[t]) if t.sum() > 2 else np.nan for a, b, t in zip(x, y, there, strict=True)])


def yes_or_no(low: float, high: float) -> str:
    """What an interval says of a claim that a number is above zero."""
    return "holds" if low > 0 else "the other way" if high < 0 else "cannot tell"


def front(kept: Kept, probe: str, budgets: Sequence[float] = (0.15, 0.3, 0.5, 0.9, 0.95)) -> pd.DataFrame:
    """The run that keeps most within each budget of bytes, as a share of the original's as it is stored."""
    value, draws = kept.at_end(probe, ["pooled"])
    share = (kept.runs["stored_bytes"] / kept.runs["stored_bytes before"]).to_numpy()
    rows = []
    for budget in budgets:
        fits = np.flatnonzero(share <= budget)
        if not len(fits):
            rows.append([f"{budget:.0%}", "none", "", "", ""])
            continue
        best = fits[np.argmax(value[1:, 0][fits])]
        low, high = interval(value[1 + best, 0], draws[1 + best, 0])
        runs = kept.runs.iloc[best]
        rows.append(
            [
                f"{budget:.0%}",
                runs["run"],
                f"{runs['stored_bytes'] / 1e6:.0f}",
                f"{value[1 + best, 0]:.3f}",
                f"{float(low):.3f} to {float(high):.3f}",
            ]
        )
    return pd.DataFrame(rows, columns=["share of the bytes", "best run", "MB", probe, "95 %"])


def gain(
    kept: Kept,
    probe: str,
    one: Sequence[str],
    other: Sequence[str],
    languages: Sequence[str] = ("pooled",),
    less: Sequence[str] = (),
) -> tuple[float, float, float] | None:
    """By how much some runs keep more than others, mean over them, with the interval over groups of sentences.

    Where `less` languages are named, it is what the former languages keep more than these.
    """
    names = list(kept.runs["run"])
    if not one or not set(one) | set(other) <= {*names, ORIGINAL}:
        return None

    def mean(of: Sequence[str], within: Sequence[str]) -> tuple[float, np.ndarray]:
        value, draws = kept.at_end(probe, within)
        rows = [0 if name == ORIGINAL else 1 + names.index(name) for name in of]
        return float(value[rows].mean()), draws[rows].mean(axis=(0, 1))

    found = [mean(one, languages), mean(other, languages)]
    value, draws = found[0][0] - found[1][0], found[0][1] - found[1][1]
    if less:
        beside = [mean(one, less), mean(other, less)]
        value, draws = value - (beside[0][0] - beside[1][0]), draws - (beside[0][1] - beside[1][1])
    low, high = interval(np.array(value), draws)
    return value, float(low), float(high)


def small_verdict(page: str, claim: str) -> str:
    """What the study of the bundled model says of a claim, from the table on its page; nothing where it has none."""
    if not claim:
        return ""
    text = (common.HERE / f"{page}.md").read_text(encoding="utf-8")
    found = re.search(rf"^\| {re.escape(claim)} \|.*\| ([a-z ]+) \|$", text, re.MULTILINE)
    if found is None:
        raise SystemExit(f"{page}.md has no claim {claim!r} any more")
    return found.group(1)


def claims(kept: Kept) -> pd.DataFrame:
    """Hold what papers say of compression without training against the runs, beside the small study's verdicts."""
    rows = []
    others = [x for x in kept.languages if x != PIVOT]

    def strengths(method: str, text: str | None = None) -> dict[float, str]:
        of = kept.runs[kept.runs["method"] == method] if len(kept.runs) else pd.DataFrame()
        return {r.strength: r.run for r in of.itertuples() if text is None or r.text == text} if len(of) else {}

    def claim(
        text: str,
        source: str,
        probe: str,
        one: dict[float, str],
        other: dict[float, str] | None,
        page: str = "",
        small: str = "",
        at: Sequence[float] = (),
        **how: Any,
    ) -> None:
        common_to = sorted(one) if other is None else sorted(set(one) & set(other))
        common_to = [s for s in common_to if not at or s in at]
        found = gain(
            kept,
            probe,
            [one[s] for s in common_to],
            [ORIGINAL] if other is None else [other[s] for s in common_to],
            **how,
        )
        row = {"claim": f"{text} ({source})" if source else text, "measure": probe}
        row |= {"at": ", ".join(f"{s:g}" for s in common_to), "bundled model": small_verdict(page, small)}
        if found is None:
            rows.append(row | {"gain": "", "95 %": "", "verdict": "not run"})
            return
        verdict = {"holds": "confirmed", "the other way": "contradicted", "cannot tell": "not confirmed"}[
            yes_or_no(*found[1:])
        ]
        rows.append(
            row | {"gain": f"{found[0]:+.3f}", "95 %": f"{found[1]:+.3f} to {found[2]:+.3f}", "verdict": verdict}
        )

    every = "every language"
    for method in ("magnitude", "Wanda", "rounding", "SVD", "drop by removal"):
        text, small = f"{method}: other languages lose more accuracy than English", ""
        if method == "magnitude":
            small = "Magnitude: zero-shot languages lose more accuracy than English"
        claim(
            text,
            "arXiv 2204.01385" if small else "",
            "accuracy",
            strengths(method, None if method in ("magnitude", "rounding", "SVD") else every),
            None,
            "pruning",
            small,
            languages=[PIVOT],
            less=others,
        )
    for probe in LOST:
        plain = strengths("magnitude")
        claim("Wanda keeps more than magnitude", "arXiv 2306.11695", probe, strengths("Wanda", every), plain)
        claim("SparseGPT keeps more than magnitude", "arXiv 2301.00774", probe, strengths("SparseGPT", every), plain)
        claim(
            "SparseGPT keeps more than Wanda",
            "arXiv 2306.11695",
            probe,
            strengths("SparseGPT", every),
            strengths("Wanda", every),
        )
        claim("LAMP keeps more than magnitude", "arXiv 2010.07611", probe, strengths("LAMP"), plain)
        rounded = strengths("rounding")
        alike: dict[str, Any] = {"at": (3, 4)}  # bits; with fewer, ranges of plain rounding are chosen in another way
        claim("GPTQ keeps more than rounding", "arXiv 2210.17323", probe, strengths("GPTQ", every), rounded, **alike)
        claim("AWQ keeps more than rounding", "arXiv 2306.00978", probe, strengths("AWQ", every), rounded, **alike)
        claim(
            "SVD by activations keeps more than plain SVD",
            "arXiv 2312.05821",
            probe,
            strengths("SVD by activation", every),
            strengths("SVD"),
            "distillation" if probe == "accuracy" else "",
            "SVD by activations above plain, at 33% of the parameters, zero-shot accuracy"
            if probe == "accuracy"
            else "",
        )
        claim(
            "Layers chosen by removal keep more than by similarity",
            "arXiv 2004.03844",
            probe,
            strengths("drop by removal", every),
            strengths("drop by similarity", every),
        )
    for method in ("Wanda", "SparseGPT", "GPTQ", "AWQ", "SVD by activation", "drop by removal"):
        claim(
            f"{method}: text of every language keeps other languages better than English text",
            "",
            "retrieval",
            strengths(method, every),
            strengths(method, "English"),
        )
    return pd.DataFrame(rows)[["claim", "measure", "at", "gain", "95 %", "verdict", "bundled model"]]
