"""The page of the study of a real encoder: sentences, tables and figures made of the runs that are there."""

from __future__ import annotations

from typing import Any

import common
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import real_encoder_answers as answers
import real_encoder_figures as figures_of
import real_encoder_warning as warning
from real_encoder_answers import LOST, Kept
from real_encoder_figures import plain
from real_encoder_methods import NEIGHBOURS, PIVOT, PROMPT, TEXTS, VOCABULARY, settings
from real_encoder_runs import DRAWS, ORIGINAL, TOLERANCE
from real_encoder_tables import middle_of, wide
from real_encoder_text import TEXT
from real_encoder_words import DPI, english_names, filled, shown, span, warning_in_words

from probes.results.intervals import interval
from probes.results.verdict import CEILING
from probes.views.language_names import language_name

WORTH = 0.005  # of retrieval, that a run with more bytes keeps more
APART = 0.1  # between languages in the original, that what they lose may hang on
SOME = (0.02, 0.5)  # of retrieval lost, by models that lost neither nothing nor all


def answered(
    kept: Kept,
    falls: dict[str, pd.DataFrame],
    follows: dict[str, pd.DataFrame],
    tables: dict[str, tuple[warning.Models, pd.DataFrame]],
) -> list[str]:
    """The answers, a paragraph each, made of the numbers."""
    out = [_what_is_kept(kept)]
    for probe in LOST:
        table = falls[probe]
        early = table.loc[table["verdict"] == "falls first", "language"].tolist()
        late = table.loc[table["verdict"] == "falls last", "language"].tolist()
        said = f"**Which languages fall first, by {probe}?** "
        worst = table.iloc[0]
        said += f"Over families of compressions the mean loss is largest in {language_name(worst['language'])}, "
        said += f"{worst['lost']:.3f}, and over all languages {table['lost'].mean():.3f}. "
        said += (
            f"Shown to lose more than the mean: {english_names(early)}. "
            if early
            else "None is shown to lose more than the mean. "
        )
        said += f"Shown to lose less: {english_names(late)}." if late else "None is shown to lose less."
        there = kept.at_end(probe, list(table["language"]))[0][0]
        if there.max() - there.min() > APART:
            goes = answers.spearman(table["lost"].to_numpy(), there)
            said += " Who has little can lose little: with what was there before, losses have a rank correlation of "
            said += f"{goes:.2f}."
        out.append(said)
        does = follows[probe]
        yes = [f"{r._1} ({span(r.correlation, r.low, r.high)})" for r in does.itertuples() if r.verdict == "holds"]
        other = [f"{r._1} ({span(r.correlation, r.low, r.high)})" for r in does.itertuples() if r.verdict != "holds"]
        said = f"**Does that follow what a language is?** The loss of {probe} "
        said += (
            f"is larger in languages that have {'; '.join(yes)}. " if yes else "follows none of what was looked at. "
        )
        out.append(said + (f"One cannot tell, or it is the other way, of: {'; '.join(other)}." if other else ""))
    if where := _where(kept):
        out.insert(1, where)
    out.append(warning_in_words(tables))
    return out


def _what_is_kept(kept: Kept) -> str:
    ends = kept.rows[kept.rows["end"] & kept.rows["run"].ne(ORIGINAL)]
    said = []
    for probe in LOST:
        states = ends[(ends["probe"] == probe) & (ends["language"] != "pooled")].groupby("run")["state"].agg(set)
        lost = [name for name, found in states.items() if "lost" in found]
        safe = [name for name, found in states.items() if found <= {"kept", "gained", "not lost"}]
        value, _ = kept.at_end(probe, ["pooled"])
        said.append(
            f"Of {probe} ({value[0, 0]:.3f} in the original), {len(lost)} of {len(states)} compressed models lost more "
            f"than {TOLERANCE[probe]:.2f} in at least one language, and {len(safe)} are shown not to in any"
            + (f" ({'; '.join(safe)})" if safe else "")
            + f"; over all languages together {_together(ends, probe)}."
        )
    said.append(
        f"{kept.about['ids']} sentences are few to show that a language did not: even where none of them changed, "
        "the interval for all languages at once reaches beyond that loss."
    )
    own, _ = kept.at_end("accuracy", kept.languages)
    least, most = (kept.languages[i] for i in (own[0].argmin(), own[0].argmax()))
    said.append(
        f"Before any compression the head is right least often in {language_name(least)} ({own[0].min():.3f}; "
        f"{answers.why_least(kept, least)}), and most often in {language_name(most)} ({own[0].max():.3f})."
    )
    table = answers.front(kept, "retrieval")
    fits = table[table["best run"] != "none"].drop_duplicates("best run")
    fits = fits[fits["retrieval"].astype(float).cummax().diff().fillna(1) > WORTH]
    rows = [f"{r[2]}, {r[4]} of retrieval within {r[1]} of the bytes" for r in fits.itertuples()]
    return (
        "**What does compression cost?** "
        + " ".join(said)
        + (f" At equal bytes the best were: {'; '.join(rows)}; more bytes do not keep more." if rows else "")
        + (" (Weights of this copy had been rounded to 4 bits before; see below.)" if kept.about["coarse"] else "")
    )


def _together(ends: pd.DataFrame, probe: str) -> str:
    """How many models are shown to lose, and not to lose, over all languages together."""
    states = ends[(ends["probe"] == probe) & (ends["language"] == "pooled")]["state"]
    did, safe = (states == "lost").sum(), states.isin(["kept", "gained", "not lost"]).sum()
    return f"{did} did, and {safe} are shown not to"


def _where(kept: Kept) -> str:
    """At which depth retrieval is lost, over models of all layers that lost neither nothing nor all."""
    lost, _ = kept.lost("retrieval", ["pooled"])
    of = kept.rows[(kept.rows["probe"] == "retrieval") & (kept.rows["language"] == "pooled")]
    deep = of.groupby("run")["layer"].max().reindex(kept.runs["run"]).to_numpy() == kept.about["layers"]
    some = np.flatnonzero((lost[:, 0] > SOME[0]) & (lost[:, 0] < SOME[1]) & deep)
    if len(some) < 3:
        return ""
    middle = middle_of(kept.about["layers"])
    value, draws = kept.block(of[of["layer"] == middle], ["pooled"])
    inside, drawn = (x[:1, 0] - x[1:, 0] for x in (value, draws))
    _, at_end = kept.lost("retrieval", ["pooled"])
    low, high = interval(np.array(inside[some].mean()), drawn[some].mean(axis=0))
    ends = interval(np.array(lost[some, 0].mean()), at_end[some, 0].mean(axis=0))
    back = drawn[some].mean(axis=0) - at_end[some, 0].mean(axis=0)
    gained = inside[some].mean() - lost[some, 0].mean()
    one = of[of["layer"] == 1].set_index("run")["value"]
    first = float((one[ORIGINAL] - one.reindex(kept.runs["run"].to_numpy()[some])).mean())
    return (
        f"**At which layer?** Of the {len(some)} models that lost between {SOME[0]:.2f} and {SOME[1]:.1f} of retrieval "
        f"and have all layers, the mean loss is {first:.3f} at layer 1, "
        f"{span(inside[some].mean(), float(low), float(high), 3)} at layer {middle} and "
        f"{span(lost[some, 0].mean(), float(ends[0]), float(ends[1]), 3)} at the end: the last layers find again "
        f"{span(gained, *(float(x) for x in interval(np.array(gained), back)), 3)}."
    )


def overview(kept: Kept) -> str:
    """A row a run: bytes, time, and what is left of each measure at the end, all languages together."""
    columns = {
        p: kept.at_end(p, ["pooled"])[0][:, 0]
        for p in (*LOST, "alignment_gap", "class_separability", "variability", "snr", "cosine_to_baseline", "cka")
    }
    worst = kept.lost("retrieval", kept.others("retrieval"))[0]
    said = [language_name(kept.others("retrieval")[i]) for i in worst.argmax(axis=1)]
    runs = kept.runs
    table = pd.DataFrame({"run": [ORIGINAL, *runs["run"]]})
    table["MB"] = [f"{x / 1e6:.0f}" for x in [kept.about["cost"]["stored_bytes"], *runs["stored_bytes"]]]
    speed = [
        ("" if how in ("integers", "codebooks") else f"{a / b:.2f}")
        for a, b, how in zip(runs["seconds_32 before"], runs["seconds_32"], runs["stored_as"], strict=True)
    ]
    table["times as fast"] = ["1.00", *speed]
    for name, values in columns.items():
        table[plain(name)] = values
    table["retrieval lost most"] = ["", *(f"{n} {w:.3f}" for n, w in zip(said, worst.max(axis=1), strict=True))]
    return common.markdown(table).replace(" nan ", " ")


def runs_of(kept: Kept) -> pd.DataFrame:
    """A row a run: how it was made, what it weighs and how fast it is."""
    columns = ["run", "family", "method", "strength", "text", "stored_as"]
    columns += [
        f"{c}{end}" for c in ("parameters", "stored_bytes", "operations", "seconds_32") for end in ("", " before")
    ]
    return kept.runs[columns]


def write(kept: Kept, every: int) -> tuple[Any, ...]:
    """Draw the figures, write the rows, and return the page's text and the table of claims."""
    falls = {p: answers.who_falls(kept, p) for p in LOST}
    follows = {p: answers.follows(kept, p) for p in LOST}
    tables = warning.of_all(kept)
    figures = {
        "story": figures_of.story(kept),
        "tradeoff": figures_of.tradeoff(kept),
        "languages": figures_of.heat(kept),
        "layers": figures_of.depth(kept),
        "warning": figures_of.warnings_figure(tables),
    }
    for name, figure in figures.items():
        figure.savefig(common.HERE / f"real_encoder_{name}.png", dpi=DPI)
        plt.close(figure)
    wide(kept.rows, "run").to_csv(common.HERE / "real_encoder.csv", index=False, float_format="%.4g")
    runs_of(kept).to_csv(common.HERE / "real_encoder_runs.csv", index=False, float_format="%.6g")
    claims = answers.claims(kept)
    about = kept.about
    coarse = (
        (
            "The copy measured here had been rounded to 4 bits in blocks of 32 before, so that its weights stand on a "
            "grid: what rounding to 8, 6 and 4 bits costs the full weights is not shown by it, and "
            f"{about['zeros']:.0%} of the weights of its blocks are zero to begin with. "
        )
        if about["coarse"]
        else ""
    )
    ceiling = float(kept.at_end("retrieval", ["pooled"])[0][0, 0])
    text = TEXT.format(
        answers="\n\n".join(answered(kept, falls, follows, tables)),
        runs=len(kept.runs),
        every=every,
        coarse=coarse,
        about=about,
        pivot=language_name(PIVOT),
        languages=len(kept.languages),
        names=english_names(kept.languages),
        prompt=PROMPT.strip(),
        tolerance=TOLERANCE["retrieval"],
        draws=DRAWS,
        neighbours=NEIGHBOURS,
        texts=TEXTS,
        ceiling="The original finds nearly every translation, so that hardly a gain could be seen. "
        if ceiling >= CEILING
        else "",
        front="\n".join(common.markdown(answers.front(kept, p)) for p in LOST),
        falls="\n".join(
            f"### By {p}\n\n" + common.markdown(t.assign(language=t["language"].map(language_name)))
            for p, t in falls.items()
        ),
        seen=figures_of.SEEN,
        unseen=int((kept.lost("retrieval", kept.others("retrieval"))[0].max(axis=1) < figures_of.SEEN).sum()),
        traits=len(follows["retrieval"]),
        follows="\n".join(f"### By {p}\n\n" + common.markdown(t) for p, t in follows.items()),
        warned="\n".join(f"### {p.capitalize()} lost\n\n" + shown(t) for p, (_, t) in tables.items()),
        overview=overview(kept),
        claims=common.markdown(claims),
        mild=warning.MILD,
        missing=missing(kept),
        families=len(set(kept.families) - {VOCABULARY}),
        cpu=sum(float(kept.runs[c].mean()) for c in kept.runs if c.startswith("cpu ")),
        provenance=common.provenance(
            model=f"weights {about['weights']}, {about['layers']} layers of {about['features']} features, "
            f"{about['vocabulary']:,} tokens",
            corpus=f"SIB-200, test split, {about['ids']} ids in {about['groups']} groups, {about['sentences']:,} "
            f"sentences; fingerprint {about['corpus']}",
            training="none of the encoder; a linear head on English train text, its regularisation by the dev "
            "split; one draw of calibration text, seed 0",
        ),
    )
    return filled(text), claims[["claim", "gain", "verdict"]]


def missing(kept: Kept) -> str:
    """What was not run, in words."""
    names = [answers.name_of(s) for s in settings()]
    lacking = [n for n in names if n not in set(kept.runs["run"])]
    return (
        "All runs without training are there."
        if not lacking
        else f"Not run so far without training: {'; '.join(lacking)}."
    )
