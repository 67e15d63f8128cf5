"""Study: of a few per cent of the bytes, which ones to give back: by effect, or by cheaper rules.

    make study-restore

The bundled model, pruned, and rounded to 2 bits; about ten minutes of two cores. A real encoder, pruned, with one
budget and fewer texts, where one is at hand and a corpus of it (skipped, and said, where there is none); and rows of
the bundled model's matrices, for so few bytes that no matrix fits:

    python notebooks/studies/restore.py FOLDER CORPUS PIVOT
    python notebooks/studies/restore.py rows

Runs are kept in runs/study-restore/; an interrupted study goes on from there. Writes restore.csv (a row a mended
model) and restore.md (what came out) beside this file; of the others restore_real.csv, restore_rows.csv and their parts
of restore.md.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from common import HERE, ROOT, SEEDS, bundled, corpus, interval, markdown, provenance, runs, verdict, written
from transformers import PreTrainedModel

import compress
import probes
from probes.measures.attribution.output_damage import OutputDamage
from probes.measures.languages.retrieval import retrieval

FOLDER = ROOT / "runs" / "study-restore"
BUDGETS = (0.005, 0.01, 0.02, 0.05)
BY = ("effect", "random", "weights", "drift", "order")
NAMES = {
    "random": "random choice",
    "weights": "largest weight change",
    "drift": "largest drift",
    "order": "layer order",
}
TEXTS, PROOF = 48, 30  # texts to choose on, and sentences of the test split in all languages to prove it on
REAL_TEXTS, REAL_PROOF, REAL_BUDGETS = 8, 20, (0.02,)  # of a real encoder
ROWS, ROWS_TEXTS, ROWS_BUDGETS = "pruned, by rows", 16, (0.005, 0.01)
OTHERS = {
    "pruned": (partial(compress.prune, sparsity=0.7), "matrices"),
    "2 bits": (partial(compress.quantize, bits=2), "bits"),
    ROWS: (partial(compress.prune, sparsity=0.7), "rows"),
}
SECTIONS = {"rows": "## Rows, where no matrix fits\n", "real": "## On a real encoder\n"}
LAST = "## Where the numbers come from\n"
ZERO_SHOT, LOYALTY, ALIGNMENT = "zero-shot accuracy", "loyalty", "alignment"
MEASURES = (ZERO_SHOT, LOYALTY, ALIGNMENT)


@cache
def material(source: str, data: str, pivot: str) -> tuple[PreTrainedModel, Any, Any, Any]:
    """Model, tokenizer, texts to choose on and texts of the proof."""
    if source == "bundled":
        test = corpus("test")
        ids = sorted(set(test["id"]))[:PROOF]
        return *bundled(), corpus("dev"), test.filter(lambda row: row["id"] in set(ids))
    whole = probes.load_corpus(data)
    ids = np.random.default_rng(0).permutation(sorted(set(whole["id"])))
    proof = set(ids[:REAL_PROOF].tolist())
    rest = set(ids[REAL_PROOF:].tolist())
    model, tokenizer = probes.load_checkpoint(source)
    parts = (whole.filter(lambda row, part=part: row["id"] in part) for part in (rest, proof))
    return model, tokenizer, *parts


@cache
def smaller(source: str, data: str, pivot: str, kind: str) -> PreTrainedModel:
    return OTHERS[kind][0](material(source, data, pivot)[0])


def lost(model: PreTrainedModel, source: str, data: str, pivot: str) -> dict[str, float]:
    """What a model has lost of the original on the texts of the proof."""
    output = judge(source, data, pivot)
    damage = output.of(model)
    out: dict[str, float] = {}
    if "accuracy" in damage.measure.values:
        away = damage.sel(measure="accuracy").values[damage["language"].values != pivot]
        out[ZERO_SHOT] = float(away.mean())
    if "label_loyalty" in damage.measure.values:
        out[LOYALTY] = float(damage.sel(measure="label_loyalty").mean())
    out["output"] = float(damage[0].mean())
    return out | {ALIGNMENT: aligned(source, data, pivot) - found_among(model, output, pivot)}


@cache
def judge(source: str, data: str, pivot: str) -> OutputDamage:
    base, tokenizer, _, proof = material(source, data, pivot)
    return OutputDamage(base, tokenizer, proof, **({} if source == "bundled" else {"pivot": pivot}))


@cache
def aligned(source: str, data: str, pivot: str) -> float:
    output = judge(source, data, pivot)
    return found_among(output.base, output, pivot)


def found_among(model: PreTrainedModel, output: OutputDamage, pivot: str) -> float:
    """Retrieval of translations by the last states."""
    reps = probes.capture(model, output.tokenizer, output.corpus, progress=False)
    return float(retrieval(reps, pivot=pivot, draws=2).value.sel(language="pooled").isel(layer=-1))


def one(source: str, data: str, pivot: str, kind: str, by: str, budget: float, seed: int) -> dict[str, Any]:
    """One mended model: what it has lost still. Of budget 0 what the compressed one has lost."""
    base, tokenizer, chosen_on, _ = material(source, data, pivot)
    other = smaller(source, data, pivot, kind)
    if budget == 0:
        return lost(other, source, data, pivot)
    given: dict[str, Any] = {"texts": TEXTS, "seed": seed, "by": by, "units": OTHERS[kind][1], "progress": False}
    if source != "bundled":
        given |= {"pivot": pivot, "texts": REAL_TEXTS}
    if kind == ROWS:
        given["texts"] = ROWS_TEXTS
    try:
        mended = compress.restore(other, base, tokenizer, chosen_on, budget=budget, **given)
    except probes.errors.InputError as error:
        if "the smallest choice" not in str(error):
            raise
        return lost(other, source, data, pivot) | {"bytes": 0, "parts": 0}  # nothing fits: it is as it was
    done = mended.config.compression
    size = {"bytes": done["bytes"] - done["bytes_before"], "parts": len(done["given"])}
    return lost(mended, source, data, pivot) | size


def settings(
    source: str, data: str, pivot: str, kinds: Sequence[str], budgets: Sequence[float]
) -> Iterator[dict[str, Any]]:
    where = {"source": source, "data": data, "pivot": pivot}
    for kind in kinds:
        yield {**where, "kind": kind, "by": "none", "budget": 0, "seed": 0}
        for seed in SEEDS:
            for budget in budgets:
                for by in BY:
                    fixed = by in ("weights", "order")  # which look at no text and draw nothing
                    yield {**where, "kind": kind, "by": by, "budget": budget, "seed": 0 if fixed else seed}


def restored(table: pd.DataFrame) -> pd.DataFrame:
    """The share of what was lost that is back, a row a mended model; rules that draw nothing in each seed."""
    start = table[table["budget"] == 0].set_index("kind")
    rows = table[table["budget"] > 0]
    fixed = rows[rows["by"].isin(("weights", "order"))].drop_duplicates(["kind", "by", "budget"])
    rows = pd.concat([rows[~rows["by"].isin(("weights", "order"))], *(fixed.assign(seed=seed) for seed in SEEDS)])
    out = rows.copy()
    for measure in (*MEASURES, "output"):
        if measure in rows:
            whole = start.loc[rows["kind"], measure].to_numpy()
            with np.errstate(divide="ignore", invalid="ignore"):
                out[measure] = np.where(whole > 0, 1 - rows[measure] / whole, np.nan)
    return out.sort_values(["kind", "budget", "by", "seed"])


def shares(found: pd.DataFrame) -> pd.DataFrame:
    """Means over the seeds."""
    there = [m for m in (*MEASURES, "output") if m in found]
    table = found.groupby(["kind", "budget", "by"], sort=False)[[*there, "bytes", "parts"]].mean().reset_index()
    return table.sort_values(["kind", "budget", "by"], key=lambda c: c.map(BY.index) if c.name == "by" else c)


def fits(found: pd.DataFrame) -> str:
    """For which budgets nothing at all could be given back, in words."""
    most = found.groupby(["kind", "budget"])["parts"].max()
    small = [f"{100 * budget:g} % ({kind})" for kind, budget in most.index[most == 0]]
    return f"Nothing fits in {' or '.join(small)}: nothing is given back there." if small else ""


def claims(found: pd.DataFrame) -> pd.DataFrame:
    """Effect minus each other rule: mean over the budgets, the interval over the seeds."""
    rows = []
    for kind in found["kind"].unique():
        for measure in (m for m in (*MEASURES, "output") if m in found):
            own = found[found["kind"] == kind]
            if own[measure].isna().all():  # nothing of it was lost
                continue
            mine = own.pivot_table(index="seed", columns=["by", "budget"], values=measure)
            for by in BY[1:]:
                gain, low, high = interval((mine["effect"] - mine[by]).mean(axis=1))
                claim = f"{kind}, {measure}: more than by {NAMES[by]}"
                rows.append({"claim": claim, "gain": gain, "low": low, "high": high, "verdict": verdict(low, high)})
    return pd.DataFrame(rows)


def behind(compared: pd.DataFrame) -> str:
    """Where the mean of the effect is below that of another rule, in words."""
    there = compared.loc[compared["gain"] < 0, "claim"].str.replace(": more than by", " against")
    return f"By its mean it is behind in: {'; '.join(there)}." if len(there) else ""


def main(what: str = "bundled", data: str = "bundled", pivot: str = "en") -> int:
    """Make what is missing, and write what came out: of the bundled model, of its "rows", or of a folder."""
    part = {"bundled": "", "rows": "rows"}.get(what, "real")
    if part == "real" and not (Path(what).is_dir() and Path(data).exists()):
        print(f"no real encoder is measured: {what} or {data} is not there")
        return 0
    source = what if part == "real" else "bundled"
    kinds, budgets = {
        "": (["pruned", "2 bits"], BUDGETS),
        "rows": ([ROWS], ROWS_BUDGETS),
        "real": (["pruned"], REAL_BUDGETS),
    }[part]
    every = list({tuple(s.values()): s for s in settings(source, data, pivot, kinds, budgets)}.values())
    table = runs(one, every, FOLDER / Path(source).name if part == "real" else FOLDER, "restore")
    found = restored(table)
    rows = found.drop(columns=["source", "data", "pivot"])
    rows.to_csv(HERE / f"restore{part and '_' + part}.csv", index=False, float_format="%.5g")
    start = (
        table[table["budget"] == 0].set_index("kind")[[m for m in (*MEASURES, "output") if m in table]].reset_index()
    )
    compared = claims(found)
    won = compared["verdict"].value_counts()
    told: dict[str, Any] = {"total": len(compared), "seeds": len(SEEDS), "behind": behind(compared)}
    told |= {"won": int(won.get("confirmed", 0)), "open": int(won.get("not confirmed", 0))}
    told |= {"against": int(won.get("contradicted", 0)), "start": markdown(start)}
    told |= {"shares": markdown(shares(found)), "claims": markdown(compared)}
    if not part:
        about = provenance(corpus="bundled: its dev split to choose on, its test split for the proof")
        kept = "".join(part_of(name) for name in SECTIONS)
        text = TEXT.format(texts=TEXTS, proof=PROOF, fits=fits(found), others=kept, provenance=about, **told)
        return written("restore", text, compared)
    base, _, chosen_on, _ = material(source, data, pivot)
    if part == "real":
        intro = REAL.format(
            name=Path(source).name,
            sizes=f"{base.config.num_hidden_layers} layers of {base.config.hidden_size} features",
            about=f"{len(set(chosen_on['language']))} languages of {Path(data).stem}, pivot {pivot}",
            texts=REAL_TEXTS,
            proof=REAL_PROOF,
            seeds=len(SEEDS),
        )
    else:
        intro = OF_ROWS.format(texts=ROWS_TEXTS, proof=PROOF)
    parts = {name: part_of(name) for name in SECTIONS} | {part: SECTIONS[part] + intro + BELOW.format(**told)}
    head, _, tail = (HERE / "restore.md").read_text(encoding="utf-8").partition(LAST)
    for name in SECTIONS:
        head = head.replace(part_of(name), "")
    return written("restore", head + "".join(parts.values()) + LAST + tail, compared)


def part_of(name: str) -> str:
    """What the page says by now of what else was measured: a section of it."""
    page = HERE / "restore.md"
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    if SECTIONS[name] not in text:
        return ""
    start = text.index(SECTIONS[name])
    return text[start : text.index("\n## ", start) + 1]


REAL = """
{name}, an encoder without a head ({sizes}), of which 70 % of the weights of its blocks are zero; {about}. Chosen on
{texts} texts, in each of {seeds} seeds, proven on {proof} other sentences in all languages. The output is the pooled
vector, its divergence 1 - cosine to the original's; alignment is retrieval against the pivot by the last states.
"""
OF_ROWS = """
The pruned model again, of which output units of its matrices are given back, in at most 16 groups a matrix; chosen on
{texts} texts, proven as above on {proof} sentences.
"""
BELOW = """
In {won} of {total} comparisons the effect is ahead with an interval that leaves out 0, in {against} it is behind, and
in {open} one cannot tell. {behind}

What compression costs:

{start}
The share of it that is back:

{shares}
Is the effect ahead?

{claims}
"""
TEXT = """# What to give back for a few per cent of the bytes

A compressed model gets back what `compress.restore` chooses, for 0.5, 1, 2 and 5 % of its bytes as the smallest format
would store it: a pruned one (70 % of the weights of its blocks are zero) whole matrices, one of 2 bits (its inputs are
rounded to 8) more bits a weight, matrix by matrix. Chosen is by measured effect a byte on {texts} texts of the dev
split, drawn anew in each of {seeds} seeds; or at random, by the largest weight change a byte, from the layer that
drifted most down, or from the first layer on. Proven on the first {proof} sentences of the test split in all languages,
which no choice has seen.

{fits}

In {won} of {total} comparisons the effect is ahead with an interval that leaves out 0, in {against} it is behind, and
in {open} one cannot tell. {behind}

## What compression costs

{start}
The loss of accuracy in languages without labels, the share of texts of another class, the loss of retrieval by the last
states (below 0 it has risen), and the divergence of the output in nats: its first measure, by which effect is told.

## The share of it that is back, means over the seeds

{shares}
0 is nothing, 1 is all, below 0 it is worse than before; nan where nothing had been lost. Where no part fits the
budget nothing is given back, and the share is 0. `bytes` are those that were spent.

## Is the effect ahead?

The share that is back by effect minus that by another rule, mean over the four budgets; low and high are the 95 %
interval (Student's t over the {seeds} seeds, paired). It tells how the texts of the choice matter, and the draw of the
random choice; not how other texts of the proof would do, nor another model. Weight change and layer order look at no
text, and are the same in each seed.

{claims}
{others}## Where the numbers come from

{provenance}"""


if __name__ == "__main__":
    # By its name, so that the processes of the runs find what is kept there.
    import restore

    sys.exit(restore.main(*sys.argv[1:]))
