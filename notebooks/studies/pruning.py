"""Study: published recipes of pruning against plain magnitude, on the bundled model.

    make study-pruning

About an hour on two cores. Runs are kept in runs/study-pruning/; an interrupted study goes on from there. Writes
pruning.csv (a row a run), pruning.md (what came out) and pruning.png beside this file.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import common
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from transformers import PreTrainedModel

import compress
from compress import recipes
from compress.matrices import block_matrices
from probes.models.weights import hoyer_sparsity

FOLDER = common.ROOT / "runs" / "study-pruning"
SPARSITIES = (0.5, 0.8, 0.95)
STEPS, PRUNINGS = 200, 5
# 1e-4, 5e-4 and 1e-3 were tried, with plain magnitude at 95 %: English dev accuracy 0.32, 0.62 and 0.90.
LEARNING_RATE = 1e-3
LOOKED_AT = (0, 4, 8, 16)  # steps after a pruning at which the English dev accuracy is measured

Recipe = Callable[..., PreTrainedModel]
EQUAL_STEPS: dict[str, tuple[Recipe, dict[str, Any]]] = {
    "magnitude": (recipes.magnitude_pruning, {}),
    "SDP cross-correlation": (recipes.self_distilled_pruning, {"variant": "cross_correlation"}),
    "SDP soft labels": (recipes.self_distilled_pruning, {"variant": "soft_labels"}),
    "SDP MSE": (recipes.self_distilled_pruning, {"variant": "mse"}),
    "SDP cosine": (recipes.self_distilled_pruning, {"variant": "cosine"}),
    "aligned, cosine": (recipes.aligned_weights, {"form": "cosine"}),
    "aligned, Frobenius": (recipes.aligned_weights, {"form": "frobenius"}),
    "aligned to pretrained": (recipes.aligned_weights, {"form": "cosine"}),
}
CUBIC: dict[str, tuple[Recipe, dict[str, Any]]] = {
    "SparseBERT": (recipes.sparse_bert, {}),
    "progressive": (recipes.sparse_progressive_distillation, {}),
}
RECIPES = EQUAL_STEPS | CUBIC


def one_run(recipe: str, sparsity: float, seed: int) -> dict[str, float]:
    """Prune the bundled model by a recipe, on English labels, and measure what is left."""
    model, tokenizer = common.bundled()
    prune, settings = RECIPES[recipe]
    settings = {"steps": STEPS, "learning_rate": LEARNING_RATE, "seed": seed, "progress": False, **settings}
    if recipe in EQUAL_STEPS:
        at = [round(k * STEPS / (PRUNINGS + 1)) + after for k in range(1, PRUNINGS + 1) for after in LOOKED_AT]
        settings |= {"prunings": PRUNINGS, "evaluate": common.english_accuracy, "evaluate_at": at}
    before = model
    if recipe == "aligned to pretrained":
        settings["reference"] = common.pretrained(FOLDER)
    if recipe == "SparseBERT":
        before, settings["teacher"] = common.pretrained(FOLDER), model
    pruned = prune(before, tokenizer, common.corpus("train", "en"), sparsity=sparsity, **settings)
    found = common.measure(pruned) | {"dev accuracy": common.english_accuracy(pruned)["accuracy"]} | _weights(pruned)
    if recipe in EQUAL_STEPS:
        steps = compress.recovery(pruned.history)
        lost = steps[steps["drop"] > 0.01]  # where there is something to recover
        found |= {
            "drop": float(steps["drop"].mean()),
            "gap": float(steps["gap"].mean()),
            "prunings that cost": float(len(lost)),
            "recovered": float(np.isfinite(lost["t90"]).mean()) if len(lost) else float("nan"),
        }
        found["distortion"] = float(steps["distortion"].mean())
    return found


@torch.inference_mode()
def _weights(model: PreTrainedModel) -> dict[str, float]:
    """Hoyer sparsity of the matrices, and the mean correlation between different units of the representation."""
    hoyer = hoyer_sparsity(block_matrices(model).values())
    _, tokenizer = common.bundled()
    inputs = tokenizer(list(common.corpus("dev", "en")["text"]), padding=True, return_tensors="pt")
    first = [m.base_model(**inputs).last_hidden_state[:, 0] for m in (model, common.bundled()[0])]
    s, t = (torch.nn.functional.normalize(z - z.mean(0), dim=0) for z in first)
    crossed = (s.T @ t).abs()
    off = float(crossed.sum() - crossed.trace()) / (crossed.numel() - len(crossed))
    return {"hoyer": hoyer, "off-diagonal correlation": off}


def claims(table: pd.DataFrame) -> pd.DataFrame:
    """Hold what the papers say against what came out."""
    high = table[table["sparsity"] >= 0.8]
    rows = []

    def claim(text: str, value: str, one: str, other: str = "magnitude", sign: int = 1) -> None:
        mean, low, top = (sign * x for x in common.paired(high, value, {"recipe": one}, {"recipe": other}))
        low, top = sorted((low, top))
        rows.append([text, mean, low, top, common.verdict(low, top)])

    for kind in ("cross-correlation", "soft labels", "MSE", "cosine"):
        name = f"SDP {kind}"
        claim(f"{name}: English accuracy above magnitude's", "accuracy en", name)
        claim(f"{name}: zero-shot accuracy above magnitude's", "accuracy zero-shot", name)
        claim(f"{name}: class separability (English) above", "separability en", name)
        claim(f"{name}: signal-to-noise ratio (English) above", "snr en", name)
        claim(f"{name}: smaller gap after prunings", "gap", name, sign=-1)
    for worse in ("soft labels", "cosine", "MSE"):
        one, other = "SDP cross-correlation", f"SDP {worse}"
        claim(f"SDP: cross-correlation above {worse}, zero-shot accuracy", "accuracy zero-shot", one, other)
    name = "SDP cross-correlation"
    claim(f"{name}: less distortion when pruned", "distortion", name, sign=-1)
    claim(f"{name}: weights sparser by Hoyer's measure", "hoyer", name)
    claim(f"{name}: other units correlate less with the teacher's", "off-diagonal correlation", name, sign=-1)
    text = f"{name}: gain in zero-shot accuracy at 95 % above that at 50 %"
    rows.append([text, *_growth(table, name, "accuracy zero-shot")])
    rows.append(["Magnitude: zero-shot languages lose more accuracy than English", *_more_lost(high, "magnitude")])
    for kind in ("aligned, cosine", "aligned, Frobenius", "aligned to pretrained"):
        claim(f"{kind}: zero-shot accuracy above magnitude's", "accuracy zero-shot", kind)
        claim(f"{kind}: what zero-shot languages lose more than English is less", "more lost", kind, sign=-1)
        claim(f"{kind}: zero-shot representations moved less", "drift zero-shot", kind, sign=-1)
        claim(f"{kind}: retrieval of translations above", "retrieval", kind)
    for kind in CUBIC:
        claim(f"{kind}: English accuracy above magnitude's", "accuracy en", kind)
        claim(f"{kind}: zero-shot accuracy above magnitude's", "accuracy zero-shot", kind)
    columns = ["claim, at 80 and 95 % sparsity unless it says otherwise", "gain", "low", "high", "verdict"]
    return pd.DataFrame(rows, columns=columns)


def _growth(table: pd.DataFrame, recipe: str, value: str) -> tuple[float, float, float, str]:
    wide = table.pivot_table(value, ["seed", "sparsity"], "recipe")
    gain = (wide[recipe] - wide["magnitude"]).unstack("sparsity")
    mean, low, high = common.interval(gain[SPARSITIES[-1]] - gain[SPARSITIES[0]])
    return mean, low, high, common.verdict(low, high)


def _more_lost(table: pd.DataFrame, recipe: str) -> tuple[float, float, float, str]:
    mean, low, high = common.interval(table[table["recipe"] == recipe].groupby("seed")["more lost"].mean())
    return mean, low, high, common.verdict(low, high)


def figure(table: pd.DataFrame, before: dict[str, float]) -> plt.Figure:
    """Draw what matters, by recipe and sparsity; lines are the model before any pruning."""
    values = ["accuracy en", "accuracy zero-shot", "retrieval", "separability en", "snr en", "drift zero-shot"]
    long = table.melt(["recipe", "sparsity", "seed"], values, "measure")
    long = long.sort_values("sparsity", kind="stable")
    long["sparsity"] = long["sparsity"].map("{:.0%}".format)
    grid = sns.catplot(
        long, x="value", y="recipe", hue="sparsity", col="measure", col_wrap=3, kind="point", errorbar=("sd", 1),
        linestyle="none", dodge=0.5, markersize=4, height=3.2, aspect=1.2, palette="colorblind", sharex=False,
    )  # fmt: skip
    grid.set_titles("{col_name}").set_axis_labels("", "")
    for ax, value in zip(grid.axes.flat, values, strict=True):
        ax.grid(axis="y", color="0.92")
        ax.axvline(before.get(value, 0.0), color="0.6", linewidth=1, zorder=0)
    return grid.figure


def main() -> int:
    """Make the runs, and write what came out."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    common.pretrained(FOLDER)
    settings = [
        {"recipe": recipe, "sparsity": sparsity, "seed": seed}
        for seed in common.SEEDS
        for sparsity in reversed(SPARSITIES)
        for recipe in RECIPES
    ]
    table = common.runs(one_run, settings, FOLDER, "pruning")
    before = common.measure(common.bundled()[0])
    gap = before["accuracy en"] - before["accuracy zero-shot"]
    # Of the accuracy there was before, in how much more the zero-shot languages lost than English.
    table["more lost"] = table["accuracy en"] - table["accuracy zero-shot"] - gap
    table.to_csv(common.HERE / "pruning.csv", index=False, float_format="%.5f")
    figure(table, before).savefig(common.HERE / "pruning.png", dpi=90)
    shown = ["accuracy en", "accuracy zero-shot", "retrieval", "separability en", "snr en", "drift zero-shot", "gap"]
    means = table.pivot_table(shown, ["recipe", "sparsity"], sort=False)[shown].reset_index()
    means = means.sort_values(["sparsity", "recipe"], key=lambda c: c if c.name == "sparsity" else c.map(_place))
    found = claims(table)
    text = TEXT.format(
        claims=common.markdown(found),
        means=common.markdown(means),
        before=", ".join(f"{k} {before[k]:.3f}" for k in shown if k in before),
        seeds=len(common.SEEDS),
        steps=STEPS,
        prunings=PRUNINGS,
        provenance=common.provenance(
            training=f"{common.steps(STEPS)}, learning rate {LEARNING_RATE}, {common.seeds()}"
        ),
    )
    return common.written("pruning", text, found)


def _place(recipe: str) -> int:
    return list(RECIPES).index(recipe)


TEXT = """# Pruning: what the recipes do to a small multilingual model

The bundled model is pruned while it is trained on English labels, by plain magnitude and by each recipe of
`compress.recipes`, to 50, 80 and 95 % of the weights in its blocks, {seeds} times each. Measured is the test split
in all eight languages: seven of them get no label, neither before nor here. All have the same {steps} steps; plain
magnitude, self-distilled pruning (SDP) and aligned weights prune {prunings} times by equal amounts, SparseBERT and
progressive distillation as their authors do, by a cubic schedule, SparseBERT from the model before fine-tuning.

![measures by sparsity and recipe](pruning.png)

The line is the model before any pruning ({before}); bars are one standard deviation over seeds.

## Claims of the papers

The gain is the mean over seeds of the difference between runs of the same seed, oriented so that a positive one is what
the paper says; low and high are its 95 % interval (Student's t over the {seeds} seeds). An interval tells how training
varies from seed to seed, not how another model or corpus would; and with this many claims one or two intervals that
leave out zero are to be expected by chance.

To some of these claims a real encoder is held on [its own page](real_encoder_trained.md#claims), with five seeds.

{claims}
## Means over the seeds

{means}
`separability` (with self pairs, as in the paper) and `snr` are of the last states of English sentences, `drift` of
their distance to those before pruning, `retrieval` of translations in the last layer, `gap` the mean loss of English
dev accuracy between a pruning and the next. All runs are in `pruning.csv`.

## Where the numbers come from

{provenance}"""


if __name__ == "__main__":
    sys.exit(main())
