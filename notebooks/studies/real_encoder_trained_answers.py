"""What the fine-tuned runs of the study of a real encoder say: claims of papers, and early warning over both parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import common
import numpy as np
import pandas as pd
import real_encoder_warning as warning
from real_encoder_kept import KEYS, Trained
from real_encoder_methods import PIVOT
from real_encoder_tables import LESS, MOVED, RATIO
from real_encoder_trained import AS_GIVEN, PLAIN, SEEDS, family_of
from scipy import stats

DRAWS = 1000  # of groups of sentences
FOR, AGAINST = "for it, by seeds alone", "against it, by seeds alone"
BY_SEEDS = {"confirmed": FOR, "contradicted": AGAINST}  # what is said where no sentences are drawn: less than a verdict
GRADDROP = "O' Neill and Dutta 2023"
# What a paper says: text, source, measure, method, what it is held to ("" for nothing), which sign is the claim's, and
# the claim of the study of the bundled model (page, text).
CLAIMS: list[tuple[str, str, str, str, str, int, str, str]] = [
    (
        "Magnitude: zero-shot languages lose more accuracy than English",
        "arXiv 2204.01385",
        "more lost",
        "magnitude",
        "",
        1,
        "pruning",
        "Magnitude: zero-shot languages lose more accuracy than English",
    ),
    *(
        (f"{method}: {said} magnitude's", source, value, method, "magnitude", sign, "pruning", f"{method}: {small}")
        for method, source in (("SDP cross-correlation", "arXiv 2109.15014"), ("SDP soft labels", "arXiv 2109.15014"))
        for said, value, sign, small in (
            ("zero-shot accuracy above", "accuracy zero-shot", 1, "zero-shot accuracy above magnitude's"),
            (
                "class separability (English) above",
                "class_separability English",
                1,
                "class separability (English) above",
            ),
            ("signal-to-noise ratio (English) above", "snr English", 1, "signal-to-noise ratio (English) above"),
            ("smaller gap after prunings than", "gap", -1, "smaller gap after prunings"),
        )
    ),
    *(
        (
            f"{method}: {said} magnitude's",
            "arXiv 2204.01385",
            value,
            method,
            "magnitude",
            sign,
            "pruning",
            f"{method.removesuffix(', weight 0.1')}: {small}",
        )
        for method in (AS_GIVEN, "aligned, cosine", "aligned, Frobenius")
        for said, value, sign, small in (
            ("zero-shot accuracy above", "accuracy zero-shot", 1, "zero-shot accuracy above magnitude's"),
            (
                "what zero-shot languages lose more than English is less than",
                "more lost",
                -1,
                "what zero-shot languages lose more than English is less",
            ),
            ("retrieval above", "retrieval", 1, "retrieval of translations above"),
        )
    ),
    *(
        (
            f"{method}: zero-shot accuracy above magnitude's",
            source,
            "accuracy zero-shot",
            method,
            "magnitude",
            1,
            "pruning",
            f"{method}: zero-shot accuracy above magnitude's",
        )
        for method, source in (("progressive", "arXiv 2110.08190"), ("SparseBERT", "arXiv 2104.08682"))
    ),
    *(
        (
            f"SDQ: {said} above Quant-Noise's",
            "arXiv 2307.05972",
            value,
            "SDQ attention and logits",
            "Quant-Noise",
            1,
            "quantization",
            f"SDQ attention and logits: {value} above Quant-Noise's",
        )
        for said, value in (("zero-shot accuracy", "accuracy zero-shot"), ("retrieval", "retrieval"))
    ),
    *(
        (f"Students: {said} above {than}, {value}", source, value, one, other, 1, "", "")
        for said, than, source, one, other in (
            ("soft labels", "labels alone", "arXiv 1503.02531", "soft labels", "labels alone"),
            ("text of every language", "English text", "", "soft labels, every language", "soft labels"),
        )
        for value in ("accuracy zero-shot", "retrieval")
    ),
    *(
        (
            f"{method}: {said} above plain fine-tuning's",
            GRADDROP,
            value,
            name,
            PLAIN,
            1,
            "finetune",
            f"{method}: {small}",
        )
        for method, name in (
            ("GradDrop", "gradient dropping"),
            ("GradDrop by epoch", "gradient dropping by epoch"),
        )
        for said, value, small in (
            ("zero-shot accuracy", "accuracy zero-shot", "zero-shot accuracy above plain"),
            ("accuracy in the worst language", "accuracy worst", "worst language above plain"),
        )
    ),
    *(
        (f"{method}: {said} above plain fine-tuning's", source, value, name, PLAIN, 1, "finetune", small)
        for method, name, source, said, value, small in (
            (
                "Gradual unfreezing",
                "gradual unfreezing",
                "arXiv 1801.06146",
                "zero-shot accuracy",
                "accuracy zero-shot",
                "Gradual unfreezing: zero-shot accuracy above plain",
            ),
            (
                "Gradual unfreezing",
                "gradual unfreezing",
                "arXiv 1801.06146",
                "retrieval",
                "retrieval",
                "Gradual unfreezing: retrieval in the last layer above plain",
            ),
            *(
                (
                    "Two layers by variability",
                    "layers by variability",
                    "arXiv 2210.10041",
                    f"{language} accuracy",
                    f"accuracy {language}",
                    f"2 layers by variability: {language} accuracy above all layers",
                )
                for language in ("English", "zero-shot")
            ),
        )
    ),
]


def table_of(found: Trained) -> pd.DataFrame:
    """A row a run with all that claims are of: of all languages together, and of English."""
    runs = found.runs[found.runs["trained"].isin({s for s, _ in _methods(found)})]
    if not len(runs):
        return runs
    for language, end in (("pooled", ""), (PIVOT, " English")):
        own = found.rows[found.rows["language"] == language].drop(columns="language")
        runs = runs.merge(own.rename(columns={c: f"{c}{end}" for c in own if c not in KEYS}), on=KEYS, how="left",
                          suffixes=("", " of all"))  # fmt: skip
    groups = len(str(runs["right English"].iloc[0]).split())
    picks = np.random.default_rng(0).multinomial(groups, np.full(groups, 1 / groups), DRAWS)
    for name in ("English", "zero-shot"):
        runs[f"accuracy {name} drawn"] = [_drawn(cell, picks) for cell in runs[f"right {name}"]]
    for column in (c for c in runs if c.startswith("drawn ")):
        runs[f"{column.removeprefix('drawn ')} drawn"] = [
            np.array(cell.split(), float) if isinstance(cell, str) else None for cell in runs[column]
        ]
    plain = runs[runs["trained"] == PLAIN].set_index("seed")
    for end in ("", " drawn"):
        lost = {
            n: runs["seed"].map(plain[f"accuracy {n}{end}"]) - runs[f"accuracy {n}{end}"]
            for n in ("English", "zero-shot")
        }
        runs[f"more lost{end}"] = lost["zero-shot"] - lost["English"]
    return runs


def _methods(found: Trained) -> list[tuple[str, float]]:
    """Methods that were measured, which trials of a learning rate are not."""
    measured = found.rows[["trained", "strength"]].drop_duplicates() if len(found.rows) else pd.DataFrame()
    return list(measured.itertuples(index=False, name=None))


def _drawn(cell: str, picks: np.ndarray) -> np.ndarray:
    """The share that is right in each draw (draw, group) of groups, of "right/of" by group."""
    right, of = np.array([part.split("/") for part in cell.split()], int).T
    return np.asarray((picks @ right) / (picks @ of))


def gains(
    table: pd.DataFrame, value: str, one: str, base: str
) -> tuple[list[float], dict[int, float], np.ndarray | None, int]:
    """By how much a method is above another: at which strengths, by seed, by draw of sentences, and of how many seeds.

    Strengths count of which all seeds are there, in both; draws are None where the measure or one of the runs has none.
    """
    nothing: tuple[list[float], dict[int, float], np.ndarray | None, int] = ([], {}, None, 0)
    if value not in table or one not in set(table["trained"]):
        return nothing
    columns = [value, *([f"{value} drawn"] if f"{value} drawn" in table else [])]
    mine = table[table["trained"] == one].set_index(["strength", "seed"])[columns]
    if base == PLAIN:
        plain = table[table["trained"] == PLAIN].set_index("seed")[columns]
        other = plain.reindex(mine.index.get_level_values("seed")).set_index(mine.index)
    else:
        other = table[table["trained"] == base].set_index(["strength", "seed"])[columns].reindex(mine.index)
    there = mine[value].notna() & (other[value].notna() if base else True)
    count = there.groupby(level="strength").sum()
    whole = [float(s) for s, n in count.items() if n >= len(SEEDS)]
    if not whole:
        return [], {}, None, int(count.max()) if len(count) else 0
    of = mine.index.get_level_values("strength").isin(whole) & there.to_numpy()
    gain = mine.loc[of, value] - (other.loc[of, value] if base else 0.0)
    drawn = None
    above, below = list(mine.loc[of, columns[-1]]), list(other.loc[of, columns[-1]]) if base else []
    if all(isinstance(cell, np.ndarray) for cell in above + below):
        drawn = np.mean(above, axis=0) - (np.mean(below, axis=0) if base else 0.0)
    return whole, gain.groupby(level="seed").mean().to_dict(), drawn, len(SEEDS)


def claims(table: pd.DataFrame, small: Callable[[str, str], str]) -> pd.DataFrame:
    """Hold what papers say of training against the runs of all seeds, beside the small study's verdicts.

    The interval is of seeds (Student's t), and of groups of sentences too: the squares of both half widths are added,
    which counts what varies with both twice and so is rather too wide than too narrow. Where only seeds are drawn, the
    verdict says so in other words.
    """
    rows = []
    for text, source, value, one, base, sign, page, claim in CLAIMS:
        row: dict[str, Any] = {"claim": f"{text} ({source})" if source else text, "bundled model": small(page, claim)}
        at, by_seed, drawn, seeds = gains(table, value, one, base)
        if not at:
            rows.append(
                row
                | {"at": "", "gain": "", "95 %": "", "of": "", "verdict": f"not run ({seeds} of {len(SEEDS)} seeds)"}
            )
            continue
        mean, low, high = (sign * x for x in common.interval(pd.Series(by_seed)))
        half = abs(high - low) / 2
        if drawn is not None:
            half = float(np.hypot(half, stats.norm.ppf(0.975) * np.std(drawn, ddof=1)))
        row |= {
            "at": ", ".join(f"{s:g}" for s in at),
            "gain": f"{mean:+.3f}",
            "95 %": f"{mean - half:+.3f} to {mean + half:+.3f}",
        }
        verdict = common.verdict(mean - half, mean + half)
        row |= {
            "of": "seeds" if drawn is None else "seeds, sentences",
            "verdict": BY_SEEDS.get(verdict, verdict) if drawn is None else verdict,
        }
        rows.append(row)
    return pd.DataFrame(rows)[["claim", "at", "gain", "95 %", "of", "verdict", "bundled model"]]


def both(rows: pd.DataFrame, runs: pd.DataFrame, found: Trained, probe: str) -> warning.Models:
    """The models of both parts, by their values alone: one without a draw of sentences.

    Args:
        rows, runs: of those without training, real_encoder.csv and real_encoder_runs.csv.
        found: those that were fine-tuned, each beside the fine-tuned model of its seed.
        probe: what is lost.
    """
    names = runs[["run", "family"]].assign(base="original", unit=runs["run"])
    names["saved"] = 1 - runs["stored_bytes"] / runs["stored_bytes before"]
    values = rows.rename(columns={"run": "model"})
    if len(found.rows):
        own = found.runs.merge(found.rows[KEYS].drop_duplicates(), on=KEYS)
        label = own["trained"] + " " + own["strength"].map("{:g}".format)
        plain = own[own["trained"] == PLAIN].set_index("seed")
        own = own.assign(
            run=label + ", seed " + own["seed"].astype(str),
            unit=label,
            family=own["trained"].map(family_of),
            base=f"{PLAIN} 0, seed " + own["seed"].astype(str),
            saved=1 - own["stored_bytes"] / own["seed"].map(plain["stored_bytes"]),
        )
        more = found.rows.merge(own[[*KEYS, "run"]], on=KEYS).drop(columns=KEYS).rename(columns={"run": "model"})
        values = pd.concat([values, more], ignore_index=True)
        made = own[(own["family"] != "") & own["seed"].isin(plain.index)]
        names = pd.concat([names, made[names.columns]], ignore_index=True)
    languages = [
        x for x in rows["language"].drop_duplicates() if x not in ("pooled", *([PIVOT] if probe == "retrieval" else []))
    ]

    def at(column: str, of: str) -> np.ndarray:
        table = values.pivot_table(column, "model", "language", dropna=False, sort=False)
        return table.reindex(index=names[of], columns=languages).to_numpy(float)

    lost = at(probe, "base") - at(probe, "run")
    said = {}
    for measure in (*LESS, *MOVED, *RATIO):
        for place in ("end", "middle"):
            if (column := f"{measure}, {place}") in values:
                x = warning.damage(measure, at(column, "run"), at(column, "base"))
                said[column] = x, x[..., None]
    said |= warning.without_measures(names["saved"].to_numpy(float), (*lost.shape, 1))
    return warning.Models(lost, lost[..., None], said, names["family"].to_numpy(), names["unit"].to_numpy())


def means(table: pd.DataFrame) -> pd.DataFrame:
    """Means over the seeds, a row a method and strength."""
    shown = {
        "accuracy English": "accuracy English",
        "accuracy zero-shot": "accuracy zero-shot",
        "accuracy worst": "worst language",
        "label_loyalty, end": "label loyalty",
        "retrieval": "retrieval",
        "alignment_gap, end": "alignment gap",
        "class_separability English": "separability English",
        "snr English": "SNR English",
        "gap": "gap after prunings",
    }
    named = table.assign(method=table["trained"] + table["strength"].map(lambda s: f" {s:g}" if s else ""))
    groups = named.groupby("method", sort=False)
    out = groups[[c for c in shown if c in table]].mean().rename(columns=shown)
    out.insert(0, "seeds", groups.size())
    return out.reset_index()
