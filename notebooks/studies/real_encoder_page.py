"""The page of the study of a real encoder: sentences, tables and figures made of the runs that are there."""

from __future__ import annotations

import textwrap
from typing import Any

import common
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import real_encoder_answers as answers
import real_encoder_figures as figures_of
import real_encoder_trained as trained
import real_encoder_warning as warning
from real_encoder_answers import LOST, Kept
from real_encoder_figures import plain
from real_encoder_methods import NEIGHBOURS, PIVOT, PROMPT, TEXTS, settings
from real_encoder_runs import DRAWS, ORIGINAL, TOLERANCE
from real_encoder_text import TEXT

from probes.results.verdict import CEILING
from probes.views.language_names import language_name

DPI = 110
FEW_RUNS = 20  # fewer models are no ground to choose a measure by


def english_names(codes: list[str]) -> str:
    """Languages in words."""
    names = [language_name(x) for x in codes]
    return ", ".join(names[:-1]) + f" and {names[-1]}" if len(names) > 1 else "".join(names)


def span(value: float, low: float, high: float, digits: int = 2) -> str:
    """A number with its interval."""
    return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def answered(
    kept: Kept, falls: dict[str, pd.DataFrame], follows: dict[str, pd.DataFrame], tables: dict[str, pd.DataFrame]
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
        out.append(said)
        does = follows[probe]
        yes = [f"{r._1} ({span(r.correlation, r.low, r.high)})" for r in does.itertuples() if r.verdict == "holds"]
        other = [f"{r._1} ({span(r.correlation, r.low, r.high)})" for r in does.itertuples() if r.verdict != "holds"]
        said = f"**Does that follow what a language is?** The loss of {probe} "
        said += (
            f"is larger in languages that have {'; '.join(yes)}. " if yes else "follows none of what was looked at. "
        )
        out.append(said + (f"One cannot tell, or it is the other way, of: {'; '.join(other)}." if other else ""))
    out.append(_warning_in_words(kept, tables))
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
            + "."
        )
    own, _ = kept.at_end("accuracy", kept.languages)
    order = np.argsort(own[0])
    least, most = (f"{language_name(kept.languages[i])} ({own[0, i]:.3f})" for i in (order[0], order[-1]))
    said.append(f"The head is right least often in {least} and most often in {most}, before any compression.")
    table = answers.front(kept, "retrieval")
    first_fit = table[table["best run"] != "none"].drop_duplicates("best run")
    rows = [f"{r[2]}, {r[4]} of retrieval within {r[1]} of the bytes" for r in first_fit.itertuples()]
    return (
        "**What does compression cost?** "
        + " ".join(said)
        + (f" At equal bytes the best were: {'; '.join(rows)}." if rows else "")
    )


def _warning_in_words(kept: Kept, tables: dict[str, pd.DataFrame]) -> str:
    said = ["**Which measure warns, without labels?**"]
    for probe, table in tables.items():
        real = table[~table["measure"].isin([warning.BYTES, warning.CHANCE])]
        best, second = real.iloc[0], real.iloc[1]
        size = table.set_index("measure").loc[warning.BYTES]
        said.append(
            f"For {probe}, {plain(best['measure'])}: its rank correlation with what each language of each model "
            f"lost is {span(best['over all'], best['low'], best['high'])}, in the family where it does worst "
            f"{best['family left out']:.2f}; that of the bytes saved is "
            f"{span(size['over all'], size['low'], size['high'])}."
        )
        within = real.sort_values("within a model", ascending=False, na_position="last").iloc[0]
        said.append(
            f"Which language of a model loses most is told best by {plain(within['measure'])}: over the languages of "
            f"a model {span(within['within a model'], within['within low'], within['within high'])} on the mean."
        )
        found = warning.ahead(kept, probe, best["measure"], second["measure"])
        sure = "is ahead of" if found[1] > 0 else "cannot be told apart from"
        said.append(
            f"Over all, {plain(best['measure'])} {sure} the next, {plain(second['measure'])} (by {span(*found)})."
        )
    if len(kept.runs) < FEW_RUNS:
        count, families = len(kept.runs), len(set(kept.families))
        said.append(f"These are {count} models of {families} families, too few to choose a measure by.")
    return " ".join(said)


def shown(table: pd.DataFrame) -> str:
    """The table of warnings as Markdown."""
    out = pd.DataFrame(
        {
            "measure": table["measure"].map(plain),
            "over all": [span(r["over all"], r["low"], r["high"]) for _, r in table.iterrows()],
            "within a model": [
                span(r["within a model"], r["within low"], r["within high"]) for _, r in table.iterrows()
            ],
            "mild": table["mild"],
            "family left out": table["family left out"],
            "explained": table["explained"],
        }
    )
    return common.markdown(out, 2)


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


def csv_of(kept: Kept) -> pd.DataFrame:
    """A row a run and language: what is measured at its end."""
    rows = kept.rows[kept.rows["end"]]
    return rows.pivot_table("value", ["run", "language"], "probe", sort=False).reset_index()


def write(kept: Kept, every: int, tuned: pd.DataFrame) -> tuple[Any, ...]:
    """Draw the figures, write the rows, and return the page's text and the table of claims."""
    falls = {p: answers.who_falls(kept, p) for p in LOST}
    follows = {p: answers.follows(kept, p) for p in LOST}
    tables = warning.of_all(kept)
    figures = {
        "tradeoff": figures_of.tradeoff(kept),
        "languages": figures_of.heat(kept),
        "layers": figures_of.depth(kept),
        "warning": figures_of.warnings_figure(kept, tables),
    }
    for name, figure in figures.items():
        figure.savefig(common.HERE / f"real_encoder_{name}.png", dpi=DPI)
        plt.close(figure)
    csv_of(kept).to_csv(common.HERE / "real_encoder.csv", index=False, float_format="%.5g")
    claims = pd.concat([answers.claims(kept), trained.claims(tuned, answers.small_verdict)], ignore_index=True)
    about = kept.about
    coarse = (
        (
            "The copy measured here had been rounded to 4 bits in blocks of 32 before, so that its weights stand on a "
            "grid: what rounding to 8 and 6 bits costs the full weights is not shown by it, and "
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
        tuned=len(tuned),
        all_tuned=len(trained.settings()),
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
        follows="\n".join(f"### By {p}\n\n" + common.markdown(t) for p, t in follows.items()),
        warned="\n".join(f"### {p.capitalize()} lost\n\n" + shown(t) for p, t in tables.items()),
        overview=overview(kept),
        claims=common.markdown(claims),
        trained=trained.means(tuned),
        mild=warning.MILD,
        missing=missing(kept),
        families=len(set(kept.families)),
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


def filled(text: str) -> str:
    """The page with its paragraphs broken into lines; tables, headings, pictures and lists as they are."""
    out = []
    for part in text.split("\n\n"):
        plain_text = not any(line.startswith(("|", "#", "!", "- ")) for line in part.split("\n"))
        joined = " ".join(part.split("\n"))
        out.append(textwrap.fill(joined, 120, break_long_words=False, break_on_hyphens=False) if plain_text else part)
    return "\n\n".join(out)


def missing(kept: Kept) -> str:
    """What was not run, in words."""
    names = [answers.name_of(s) for s in settings()]
    lacking = [n for n in names if n not in set(kept.runs["run"])]
    return (
        "All runs without training are there."
        if not lacking
        else f"Not run so far without training: {'; '.join(lacking)}."
    )
