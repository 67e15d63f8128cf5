"""Study: what quantisation and pruning make a decoder forget, language by language.

    make study-decoder

About ten minutes of one quiet core. Runs are kept in runs/study-decoder/; an interrupted study goes on from there.
Writes decoder.csv (a row a model), decoder.md (what came out) and decoder.png beside this file.
"""

from __future__ import annotations

import os
import sys

os.environ["TOKENIZERS_PARALLELISM"] = "false"

from collections.abc import Iterator
from typing import Any

import datasets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from common import HERE, ROOT, SEEDS, corpus, interval, markdown, paired, provenance, runs, verdict, written
from scipy.stats import spearmanr
from transformers import PreTrainedModel

import compress
import probes
from probes.models.fingerprint import weights_fingerprint

FOLDER = ROOT / "runs" / "study-decoder"
BITS = (8, 4, 3, 2)
GROUP = 64
CALIBRATION = 256  # sentences
ROUNDED, PRUNED = ("rtn", "gptq", "awq"), ("magnitude", "wanda", "sparsegpt")
UNFITTED = ("rtn", "magnitude")  # which look at no text, so that there is one of each
MEASURES = ("kl", "bits_per_byte", "nats_per_token", "same_top_token")


def decoder() -> tuple[PreTrainedModel, Any]:
    """The bundled decoder and its tokenizer."""
    return probes.load_checkpoint("bundled-decoder")


def held_out() -> datasets.Dataset:
    """Every fourth sentence of the test split, in all languages."""
    ids = set(sorted(set(corpus("test")["id"]))[::4])
    return corpus("test").filter(lambda row: row["id"] in ids)


def calibration(seed: int) -> datasets.Dataset:
    """Sentences of the train split, as many of each language as come, drawn by the seed."""
    rows = np.random.default_rng(seed).permutation(len(corpus("train")))[:CALIBRATION]
    return corpus("train").select(sorted(rows.tolist()))


def smaller(method: str, how: str, seed: int) -> PreTrainedModel:
    """The decoder made smaller in one way."""
    model, tokenizer = decoder()
    text = {} if method in UNFITTED else {"tokenizer": tokenizer, "progress": False}
    if method in ROUNDED:
        text |= {} if method in UNFITTED else {"calibrate": calibration(seed), "act_order": method == "gptq"}
        return compress.quantize(model, bits=int(how), group=GROUP, method=method, activation_bits=None, **text)
    text |= {} if method in UNFITTED else {"train": calibration(seed)}
    pattern = how if ":" in how else None
    return compress.prune(model, sparsity=0.5, criterion=method, pattern=pattern, **text)


def one(method: str, how: str, seed: int) -> dict[str, Any]:
    """One way to make the decoder smaller, and what it says then, by language."""
    model, tokenizer = decoder()
    other = None if method == "as it is" else smaller(method, how, seed)
    found = probes.next_token(model, other, tokenizer, held_out(), progress=False)
    out: dict[str, Any] = {}
    for measure in MEASURES:
        if measure in found.measure.values:
            part = found.sel(measure=measure)
            out |= {f"{measure} {name}": float(part.value.sel(language=name)) for name in part.language.values}
            ends = part.sel(language="pooled")
            out |= {f"{measure} low": float(ends.low), f"{measure} high": float(ends.high)}
    said = probes.lens(model if other is None else other, tokenizer, held_out(), progress=False)
    out["settles"] = float(said.settles.sel(language="pooled"))
    layers = said.value.sel(measure="lens_kl", language="pooled")
    return out | {f"lens_kl {layer}": float(layers.sel(layer=layer)) for layer in layers.layer.values}


def settings() -> Iterator[dict[str, Any]]:
    yield {"method": "as it is", "how": "", "seed": 0}
    for methods, ways in ((ROUNDED, tuple(map(str, BITS))), (PRUNED, ("half", "2:4"))):
        for method in methods:
            for how in ways:
                for seed in SEEDS[:1] if method in UNFITTED else SEEDS:
                    yield {"method": method, "how": how, "seed": seed}


def weaker(table: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Rank correlation over languages of what the decoder itself is worth there with how far it moved, by arm."""
    before = table[table["method"] == "as it is"].iloc[0]
    languages = [name.split()[1] for name in table if name.startswith(f"{measure} ")]
    languages = [name for name in languages if name not in ("pooled", "low", "high")]
    rows = []
    for row in table[table["method"] != "as it is"].to_dict("records"):
        moved = [row[f"kl {name}"] for name in languages]
        rank = float(spearmanr([before[f"{measure} {name}"] for name in languages], moved).statistic)
        rows.append({"method": row["method"], "how": row["how"], "seed": row["seed"], "rank": rank})
    return pd.DataFrame(rows)


def figure(table: pd.DataFrame) -> None:
    """KL by bits for each method of rounding, and by language for the arms of about the same harm."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for method in ROUNDED:
        means = table[table["method"] == method].groupby("how")["kl pooled"].mean()
        left.plot(BITS, [means[str(b)] for b in BITS], "o-", ms=4, label=method)
    for (method, how), part in table[table["method"].isin(PRUNED)].groupby(["method", "how"]):
        left.axhline(part["kl pooled"].mean(), lw=0.8, ls="--" if how == "2:4" else ":", color="0.5")
        at = {"magnitude": 7.9, "wanda": 6.9, "sparsegpt": 6.1}[method]
        left.annotate(f"{method} {how}", (at, part["kl pooled"].mean()), fontsize=7, ha="left", va="bottom")
    left.set(xlabel="bits of a weight", ylabel="KL to the original, nats a token", yscale="log", xticks=BITS)
    left.invert_xaxis()
    left.legend()
    before = table[table["method"] == "as it is"].iloc[0]
    names = [n.split()[1] for n in table if n.startswith("kl ") and n.split()[1] not in ("pooled", "low", "high")]
    for method, how in (("rtn", "3"), ("gptq", "3"), ("sparsegpt", "2:4")):
        means = table[(table["method"] == method) & (table["how"] == how)].mean(numeric_only=True)
        right.plot([before[f"nats_per_token {n}"] for n in names], [means[f"kl {n}"] for n in names], "o", ms=5,
                   label=f"{method} {how}")  # fmt: skip
    for name in names:
        right.axvline(before[f"nats_per_token {name}"], color="0.9", lw=0.6, zorder=0)
        right.annotate(name, (before[f"nats_per_token {name}"], 0.01), xycoords=("data", "axes fraction"), fontsize=7)
    right.set(xlabel="nats a token of the original", ylabel="KL, nats a token", yscale="log")
    right.legend()
    fig.savefig(HERE / "decoder.png", dpi=110)


def claims(table: pd.DataFrame) -> pd.DataFrame:
    """KL that one method spares against another, mean and interval over calibration seeds."""
    rows = []
    pairs = [("gptq", "rtn", str(b)) for b in BITS] + [("awq", "rtn", str(b)) for b in BITS]
    pairs += [("gptq", "awq", str(b)) for b in BITS]
    pairs += [(one, other, how) for how in ("half", "2:4") for one, other in (("wanda", "magnitude"),)]
    pairs += [("sparsegpt", other, how) for how in ("half", "2:4") for other in ("magnitude", "wanda")]
    for better, worse, how in pairs:
        parts = {m: table[(table["method"] == m) & (table["how"] == how)] for m in (better, worse)}
        if worse in UNFITTED:
            spared = interval(float(parts[worse]["kl pooled"].iloc[0]) - parts[better]["kl pooled"])
        else:
            given = [{"method": m, "how": how} for m in (worse, better)]
            spared = paired(table, "kl pooled", *given)
        rows.append({
            "claim": f"{better} moves less than {worse}, {how}{' bits' if how.isdigit() else ''}",
            "spared": spared[0], "low": spared[1], "high": spared[2], "verdict": verdict(*spared[1:]),
        })  # fmt: skip
    return pd.DataFrame(rows)


def settled(table: pd.DataFrame) -> str:
    """What becomes of the layer from which on the likeliest token stays, in words."""
    before = float(table[table["method"] == "as it is"]["settles"].iloc[0])
    arms = table[table["method"] != "as it is"].groupby(["method", "how"], sort=False)[["kl pooled", "settles"]].mean()
    rank = float(spearmanr(arms["kl pooled"], arms["settles"]).statistic)
    later = int((arms["settles"] > before).sum())
    return (
        f"Of the model as it is the likeliest token stays from layer {before:.2f} on; it settles later in {later} of "
        f"{len(arms)} arms, at most at {arms['settles'].max():.2f} and at least at {arms['settles'].min():.2f}. Rank "
        f"correlation over the arms of the KL to the original with where it settles: {rank:.2f}."
    )


def main() -> int:
    table = runs(one, settings(), FOLDER, "decoder")
    table.to_csv(HERE / "decoder.csv", index=False)
    figure(table)
    arms = table.groupby(["method", "how"], sort=False)
    means = arms[["kl pooled", "same_top_token pooled", "bits_per_byte pooled"]].mean()
    spread = arms["kl pooled"].agg(lambda v: v.max() - v.min()).rename("kl, spread over seeds")
    summary = means.join(spread).reset_index()
    names = [n for n in table if n.startswith("kl ") and n.split()[1] not in ("pooled", "low", "high")]
    by_language = arms[names].mean().reset_index()
    by_language = by_language[by_language["method"] != "as it is"]
    before = table[table["method"] == "as it is"].iloc[0]
    inside = arms[["settles", *(c for c in table if c.startswith("lens_kl "))]].mean().reset_index()
    ranks = {m: weaker(table, m).groupby(["method", "how"])["rank"].mean() for m in ("nats_per_token", "bits_per_byte")}
    held = claims(table)
    tokens = ranks["nats_per_token"]
    positive, far = int((tokens > 0).sum()), int((tokens.abs() >= 0.74).sum())
    weak = pd.DataFrame({
        "language": [n.split()[1] for n in names],
        "nats a token": [before[f"nats_per_token {n.split()[1]}"] for n in names],
        "bits a byte": [before[f"bits_per_byte {n.split()[1]}"] for n in names],
    })  # fmt: skip
    given = (
        f"bundled, {CALIBRATION} sentences of its train split to calibrate on (seeds {', '.join(map(str, SEEDS))}), "
    )
    given += f"{len(held_out()):,} of its test split to measure"
    text = f"""# What a decoder forgets

{provenance(model=f"bundled-decoder, weights {weights_fingerprint(decoder()[0])}", corpus=given)}
The matrices of the blocks are rounded (groups of {GROUP} inputs, GPTQ by `act_order`) or half of their weights set
to zero, anywhere or two of four; embeddings, which are the output layer too, stay. Nothing is trained afterwards. KL is
that of the next token, from the original to the smaller model, in nats a token, mean over held-out sentences.

{markdown(summary)}
`rtn` and `magnitude` look at no text, so there is one of each; all others are means over the seeds of what they were
calibrated on.

## What helps

KL that is spared, mean and 95 % interval over seeds (Student's t):

{markdown(held)}
## By language

{markdown(by_language)}
## What the layers say already

By the logit lens: the mean over tokens of the first layer from which on the likeliest token stays (`settles`), and KL
of what each layer would say, were it the last, to what the same model says in the end, in nats a token.

{markdown(inside)}
{settled(table)}

## Is the damage larger where the model is weaker?

What the decoder as it is needs for a token, and for a byte, of each language:

{markdown(weak)}
Rank correlation (Spearman) over the eight languages of the nats a token of the original with the KL of the smaller
model: {tokens.mean():.2f} in the mean over {len(tokens)} arms, from {tokens.min():.2f} to {tokens.max():.2f}, positive
in {positive}; with bits a byte in the place of nats a token {ranks["bits_per_byte"].mean():.2f} in the mean. With eight
languages a rank correlation below 0.74 is what chance gives once in twenty: {far} of the arms are beyond it. So of this
decoder one cannot tell that weaker languages lose more; and a token that is hard to predict has more probability to
move, so that some of a positive one would come from what KL is.

![KL by bits and by language](decoder.png)
"""
    return written("decoder", text, summary, held)


if __name__ == "__main__":
    sys.exit(main())
