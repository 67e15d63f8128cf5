"""The page of the fine-tuned models of the study of a real encoder, made of what the repository keeps alone."""

from __future__ import annotations

from typing import Any

import common
import matplotlib.pyplot as plt
import pandas as pd
import real_encoder_figures as figures_of
import real_encoder_trained as trained
import real_encoder_trained_answers as of
import real_encoder_warning as warning
import seaborn as sns
from real_encoder_answers import LOST, small_verdict
from real_encoder_kept import RUNS, Trained
from real_encoder_words import DPI, filled, shown, warning_in_words

from probes.views.language_names import language_name

NAME = "real_encoder_trained"
WORDS = ("confirmed", "contradicted", of.FOR, of.AGAINST, "not confirmed")


def write(found: Trained) -> tuple[Any, ...]:
    """Draw the figures, and return the page's text and the table of claims."""
    rows, runs = (pd.read_csv(common.HERE / f"real_encoder{end}.csv") for end in ("", "_runs"))
    table = of.table_of(found)
    models = {probe: of.both(rows, runs, found, probe) for probe in LOST}
    tables = {probe: (one, warning.warned(one)) for probe, one in models.items()}
    figures = {"warning": figures_of.warnings_figure(tables)}
    if len(table):
        figures["accuracy"] = by_method(table)
    for name, figure in figures.items():
        figure.savefig(common.HERE / f"{NAME}_{name}.png", dpi=DPI)
        plt.close(figure)
    claims = of.claims(table, small_verdict)
    every = trained.settings()
    without = len(runs)
    text = TEXT.format(
        runs=len(table),
        every=len(every),
        answers="\n\n".join([*_answers(table, claims, rows), warning_in_words(tables)]),
        figure=f"![accuracy by method]({NAME}_accuracy.png)\n\n" if len(table) else "",
        without=without,
        trained=len(next(iter(models.values())).lost) - without,
        steps=common.steps(trained.STEPS),
        rates=", ".join(f"{r:g}" for r in trained.RATES),
        rate=_rate(found),
        weights=", ".join(f"{w:g}" for w in trained.WEIGHTS),
        weight=_weights(found),
        prunings=trained.PRUNINGS,
        seeds=len(trained.SEEDS),
        missing=_missing(found, every),
        claims=common.markdown(claims),
        means=common.markdown(of.means(table)).replace(" nan ", "  ") if len(table) else "Not run.\n",
        languages=_by_language(found),
        warned="\n".join(f"### {p.capitalize()} lost\n\n" + shown(t) for p, (_, t) in tables.items()),
        mild=warning.MILD,
        bytes=warning.BYTES,
        chance=warning.CHANCE,
        provenance=_provenance(found),
    )
    return filled(text), claims[["claim", "gain", "verdict"]]


def by_method(table: pd.DataFrame) -> plt.Figure:
    """Accuracy in English, zero-shot and in the worst language, a point a seed, and retrieval beside it."""
    named = table.assign(method=table["trained"] + table["strength"].map(lambda s: f" {s:g}" if s else ""))
    values = ["accuracy English", "accuracy zero-shot", "accuracy worst", "retrieval"]
    order = list(dict.fromkeys(named["method"]))
    figure, axes = plt.subplots(1, len(values), figsize=(11.6, 1.8 + 0.3 * len(order)), sharey=True)
    for ax, value in zip(axes, values, strict=True):
        sns.stripplot(named, x=value, y="method", order=order, ax=ax, color="#0173b2", size=4, alpha=0.7, jitter=False)
        means = named.groupby("method", sort=False)[value].mean().reindex(order)
        ax.scatter(means, range(len(order)), marker="|", s=140, color="black", zorder=3)
        ax.axvline(means.get(trained.PLAIN, float("nan")), color="0.6", linestyle=":", linewidth=1)
        ax.set(title=value, xlabel="", ylabel="")
        ax.grid(color="0.93")
        ax.set_axisbelow(True)
    figure.tight_layout()
    return figure


def _answers(table: pd.DataFrame, claims: pd.DataFrame, rows: pd.DataFrame) -> list[str]:
    if not len(table):
        return ["**Which claims hold?** No run is there yet."]
    plain, out = table[table["trained"] == trained.PLAIN], []
    if len(plain):
        before = rows[(rows["run"] == "original") & (rows["language"] == "pooled")]["retrieval"].iloc[0]
        worst = plain["worst"].mode().iloc[0]
        out.append(
            f"**What does fine-tuning alone do?** Over {len(plain)} seeds it is right for "
            f"{plain['accuracy English'].mean():.3f} of the English sentences, "
            f"{plain['accuracy zero-shot'].mean():.3f} of those in other languages, and "
            f"{plain['accuracy worst'].mean():.3f} in the worst language (most often {language_name(worst)}). Of the "
            f"translations {plain['retrieval'].mean():.3f} are found at the last layer; before fine-tuning it is "
            f"{before:.3f}."
        )
    return [*out, _claims_in_words(claims)]


def _claims_in_words(claims: pd.DataFrame) -> str:
    """Each claim that an interval decides with its gain, and how many of each method none does."""
    said = {word: claims[claims["verdict"] == word] for word in WORDS}
    held = sum(map(len, said.values()))
    out = [
        f"**Which claims hold?** Of {len(claims)} claims {held} have all their seeds: {len(said['confirmed'])} are "
        f"confirmed, {len(said['contradicted'])} contradicted, "
        f"{len(said[of.FOR]) + len(said[of.AGAINST])} told by seeds alone, and of {len(said['not confirmed'])} one "
        "cannot tell. A gain is positive where it is what the claim says."
    ]
    decided = [f"- {word}: {c['claim']}, {c['gain']} ({c['95 %']})"
               for word in WORDS[:-1] for _, c in said[word].iterrows()]  # fmt: skip
    out += ["\n".join(decided)] if decided else []
    if len(open_ones := said["not confirmed"]):
        counted = open_ones["claim"].str.split(":").str[0].value_counts(sort=False)
        which = "; ".join(f"{method} ({count})" for method, count in counted.items())
        out.append(
            f"One cannot tell, since intervals hold both gains and losses: {which}. All are in the table of claims."
        )
    return "\n\n".join(out)


def _rate(found: Trained) -> str:
    said = _best(found, trained.TRIAL, trained.RATES, "that was tried then")
    later = found.runs[found.runs["trained"] == trained.LATER]
    for rate, accuracy in zip(later["strength"], later["dev accuracy"], strict=True):
        said += f"; {rate:g}, tried after runs had been made, has {accuracy:.3f}"
    return said if len(later) else f"{said}; a higher one may be better"


def _weights(found: Trained) -> str:
    """What the aligned weights count, a method after the other."""
    return "; ".join(
        f"{method}, {_best(found, trial, trained.WEIGHTS, 'that was tried')}"
        for trial, method in trained.TRIALS_OF_WEIGHTS.items()
    )


def _best(found: Trained, trial: str, every: tuple[float, ...], at_the_end: str) -> str:
    """Which of all that was to be tried is taken, with the accuracy of each."""
    tried = found.runs[found.runs["trained"] == trial]
    if len(tried) < len(every):
        return "not chosen yet"
    accuracy = ", ".join(f"{x:g}: {a:.3f}" for x, a in zip(tried["strength"], tried["dev accuracy"], strict=True))
    best = trained.best_of(found.runs, trial, every)
    edge = f", the highest {at_the_end}" if best == max(every) else ""
    return f"{best:g}{edge} (accuracy: {accuracy})"


def _missing(found: Trained, every: list[dict[str, Any]]) -> str:
    lacking, again = pd.DataFrame(found.missing(every)), _without_draws(found, every)
    if lacking.empty:
        return f"All runs are there.{again}"
    seeds = lacking.groupby(["trained", "strength"], sort=False)["seed"].size()
    said = [
        f"{m}{f' {s:g}' if s else ''}{'' if n == len(trained.SEEDS) else f' ({n} seeds)'}"
        for (m, s), n in seeds.items()
    ]
    return f"{len(lacking)} runs are missing, in the order in which they are made: {'; '.join(said)}.{again}"


def _without_draws(found: Trained, every: list[dict[str, Any]]) -> str:
    """Which runs are made again for the draws of their sentences."""
    if not (without := found.without_draws(every)):
        return ""
    return (
        f" {len(without)} runs were made before draws of sentences were kept, and are made again at the end: "
        f"{'; '.join(dict.fromkeys(s['trained'] for s in without))}. Until then claims of them that are not of mean "
        "accuracy are told by seeds alone."
    )


def _by_language(found: Trained) -> str:
    """Accuracy of each language, mean over seeds, a column a method."""
    if not len(found.rows):
        return "Not run.\n"
    rows = found.rows[found.rows["language"] != "pooled"]
    named = rows.assign(method=rows["trained"] + rows["strength"].map(lambda s: f" {s:g}" if s else ""))
    table = named.pivot_table("accuracy", "language", "method", sort=False)
    table.insert(0, "language", [language_name(x) for x in table.index])
    return common.markdown(table, 2)


def _provenance(found: Trained) -> str:
    if not len(found.runs):
        return "- no run yet\n"
    first, measured = found.runs.iloc[0], found.runs.dropna(subset=["cpu"])
    lines = {
        "encoder": f"weights {first['weights']}",
        "corpus": f"SIB-200, train split fingerprint {first['train']}, test split {first['corpus']}",
        "training": f"{common.steps(int(first['steps']))}, seeds {', '.join(map(str, trained.SEEDS))}",
        "time": f"{measured['cpu'].mean():.0f} seconds of a core a run, {measured['cpu'].sum() / 3600:.1f} hours of it",
    }
    if "torch" in found.runs:
        lines["versions"] = f"torch {', '.join(sorted(set(found.runs['torch'].dropna())))}"
        plain = found.runs[found.runs["trained"] == trained.PLAIN].set_index("seed")["original"]
        rest = (runs := trained.measured(found.runs))[runs["trained"] != trained.PLAIN]
        other = int((rest["original"] != rest["seed"].map(plain)).sum())
        lines["originals"] = (
            f"{other} of {len(rest)} runs are held to a fine-tuned model that was made again and is not quite the same"
        )
    return "".join(f"- {key}: {value}\n" for key, value in lines.items())


TEXT = """# A real encoder, fine-tuned: claims of papers, and which measure warns

The encoder of [what compression does to 24 languages](real_encoder.md), fine-tuned on English topics and compressed by
methods that train: do claims of papers hold on it, and which measure, taken without labels, warns of what the models
of both pages lost? **{runs} of {every} fine-tuned runs, and {without} models without training, are in it so far.**

## Answers

{answers}

{figure}![how well each measure tells what was lost](real_encoder_trained_warning.png)

## How it was done

Fine-tuned is on the 701 English sentences of SIB-200's train split, {steps}, three times through them; embeddings,
82 % of the parameters, stay as they are, in all that follows too. The learning rate was chosen among {rates} by the
accuracy on the English dev split, with a seed of its own: {rate}. All methods have it, also those that would do better
with another one. From the fine-tuned model of each of {seeds} seeds the methods of `compress.recipes` start that prune,
round and distil, again in {steps} on the same sentences; SparseBERT and what fine-tunes in another way start from the
encoder before it. Students on English text learn its labels, with soft labels or without; on text of every language (as
many sentences, each in one language) soft labels alone, so that these two differ in text and objective. What aligned
weights count beside the loss was chosen among {weights}, by the same accuracy of models pruned by 70 %, with the same
seed: {weight}.
Those that prune uniformly do so {prunings} times; after each, and 4 steps later, accuracy on the dev split is
measured, and `gap` is the mean distance below what it was before the pruning, until the next one.

Measured is the test split in all 24 languages as on the other page, with the head that was trained, each model beside
the fine-tuned one of its seed. Intervals of claims are of seeds (Student's t) and of groups of sentences:
squares of both half widths are added, which is rather too wide than too narrow. Where the column `of` has seeds alone,
nothing is said to be confirmed or contradicted; of gaps after prunings, which are measured on the dev split, there are
no draws of sentences.

## What is not in it

{missing}

Runs are kept in `{kept}` and not made twice, on whichever machine: `make study-real MODEL=FOLDER DATA=FOLDER
ONLY=fine-tuned` goes on with what is missing, and `real_encoder.py --so-far` writes this page from what is there.
Not looked at: other tasks, other encoders, longer trainings, embeddings that are trained, a learning rate for each
method. Other objectives than aligned weights count as much as the recipes say by default.
What would change the mind: a claim that turns with a rate of its own, or with more steps.

## Claims

The gain is the mean over seeds, and over the strengths under `at` (a share of weights that go, bits, layers, or a share
of gradients), oriented so that a positive one is what the paper says. The last column is the verdict of the studies of
the bundled model. With this many claims one or two intervals that leave out zero are to be expected by chance.

{claims}
## Means over the seeds

{means}
## Accuracy by language

Means over the seeds; a column a method.

{languages}
## Which measure warns, over both parts

As on the other page, over {without} models without training and {trained} fine-tuned ones, these beside the fine-tuned
model of their seed; families are those of the other page, and pruning, quantisation and students with training. Values
alone are kept here, so that intervals draw models (all seeds of a setting together) within their families, and
languages, but no sentences. Each measure is taken as damage; `within a model` is over languages, the mean over models
that lost more than 0.01; `mild` over models that lost less than {mild:.1f}; "family left out" the lowest within one
family; `explained` the share of the error that a curve learned on all other families saves. "{bytes}" needs no measure,
"{chance}" can know nothing.

{warned}
## Where the numbers come from

{provenance}""".replace("{kept}", RUNS)
