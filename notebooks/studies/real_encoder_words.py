"""Words and tables that both pages of the study of a real encoder share."""

from __future__ import annotations

import textwrap

import common
import pandas as pd
import real_encoder_warning as warning
from real_encoder_figures import plain

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


def warning_in_words(tables: dict[str, tuple[warning.Models, pd.DataFrame]]) -> str:
    """Which measure tells what was lost, a paragraph made of the numbers."""
    said, real = ["**Which measure warns, without labels?**"], {}
    for probe, (models, table) in tables.items():
        own = real[probe] = table[~table["measure"].isin([warning.BYTES, warning.CHANCE])]
        best, second = own.iloc[0], own.iloc[1]
        size = table.set_index("measure").loc[warning.BYTES]
        found = warning.ahead(models, best["measure"], second["measure"])
        sure = "is ahead of" if found[1] > 0 else "cannot be told apart from"
        within = own.sort_values("within a model", ascending=False, na_position="last").iloc[0]
        told = span(within["within a model"], within["within low"], within["within high"])
        which = f"told best by {plain(within['measure'])}, {told}" if within["within low"] > 0 else (
            f"told by none: the best, {plain(within['measure'])}, has {told}")  # fmt: skip
        said.append(
            f"For {probe}, {plain(best['measure'])}: its rank correlation with what each language of each model "
            f"lost is {span(best['over all'], best['low'], best['high'])}, in the family where it does worst "
            f"{best['family left out']:.2f}; that of the bytes saved is "
            f"{span(size['over all'], size['low'], size['high'])}. It {sure} the next, {plain(second['measure'])} "
            f"(by {span(*found)}). Which languages of one model lose most (the mean correlation over languages) is "
            f"{which}."
        )
    worst = pd.concat([t.set_index("measure")["over all"] for t in real.values()], axis=1).min(axis=1)
    one = worst.idxmax()
    each = ", ".join(f"{t.set_index('measure').loc[one, 'over all']:.2f} for {probe}" for probe, t in real.items())
    said.append(
        f"Who looks at one number for both looks at {plain(one)}: {each}. The best were chosen on the models that they "
        f"are told by, among {len(worst)}, which flatters them a little."
    )
    models = next(iter(tables.values()))[0]
    if len(models.lost) < FEW_RUNS:
        count, families = len(models.lost), len(set(models.families))
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
    return common.markdown(out, 2).replace("nan (nan to nan)", "").replace(" nan ", "  ")


def filled(text: str) -> str:
    """The page with its paragraphs broken into lines; tables, headings, pictures and lists as they are."""
    out = []
    for part in text.split("\n\n"):
        plain_text = not any(line.startswith(("|", "#", "!", "- ")) for line in part.split("\n"))
        joined = " ".join(part.split("\n"))
        out.append(textwrap.fill(joined, 120, break_long_words=False, break_on_hyphens=False) if plain_text else part)
    return "\n\n".join(out)
