"""Study: small students by distillation, shared layers and factors, on the bundled model.

    make study-distillation

About half an hour on two cores. Runs are kept in runs/study-distillation/; an interrupted study goes on from there.
Writes distillation.csv (a row a run), distillation.md (what came out) and distillation.png beside this file.
"""

from __future__ import annotations

import copy
import json
import re
import sys
from collections.abc import Mapping
from typing import Any

import common
import datasets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
import xarray as xr
from transformers import BertForSequenceClassification, PreTrainedModel

import compress
import probes
from compress import CRD, CoDIR, CrossEntropy, HiddenStates, Relational, SoftLabels, recipes
from compress.matrices import block_matrices
from compress.objectives.base import Objective
from compress.training.loop import train
from probes.files import write_whole
from probes.models.formats.shared_layers import apply_sharing

FOLDER = common.ROOT / "runs" / "study-distillation"
LAYERS, STEPS = 2, 150
RATE, LOWER = 5e-4, 1e-4
ENGLISH, EVERY = "English, labels", "all languages, no labels"

SOFT = SoftLabels(temperature=2)
CODIR, CONTRAST = 0.1, 0.8  # as `compress.recipes` weigh them
OBJECTIVES: dict[str, list[Objective]] = {
    "labels alone": [],
    "logits": [SOFT],
    "hidden states": [SOFT, HiddenStates()],
    "relational": [SOFT, Relational()],
    "CoDIR": [SOFT, CoDIR(weight=CODIR)],
    "CRD uniform": [SOFT, CRD(weight=CONTRAST)],
    "CRD classes": [SOFT, CRD(weight=CONTRAST, negatives="classes")],
    "CRD instances": [SOFT, CRD(weight=CONTRAST, negatives="instances")],
    "CRD uniform, mixup": [SOFT, CRD(weight=CONTRAST, mixup=0.2)],
    "CRD classes, mixup": [SOFT, CRD(weight=CONTRAST, negatives="classes", mixup=0.2)],
    "CRD instances, mixup": [SOFT, CRD(weight=CONTRAST, negatives="instances", mixup=0.2)],
}
DISTILLED = [*(name for name in OBJECTIVES if name != "labels alone"), "Meta-KD"]
UNLABELLED = ["logits", "hidden states", "relational", "CoDIR", "CRD uniform", "CRD instances", "Meta-KD"]
CONTROLS = ["labels alone", "labels alone, random start", "logits, random start", "shuffled labels", "not trained"]

FUSED: dict[str, dict[str, Any]] = {
    "fuse, mean": {},
    "fuse, mix": {"merge": "mix"},
    "fuse, freeze": {"merge": "freeze"},
    "fuse, drop": {"merge": "drop"},
    "fuse, mean, Wasserstein": {"similarity": "wasserstein"},
    "fuse, mean, covariance": {"similarity": "covariance"},
    "fuse, mean, at random": {},
}
FACTORS = {"SVD": "svd", "SVD, activation": "activation", "tensor train": "tensor_train"}
SHARES = (1 / 3, 0.1)  # of the matrices' parameters; a third is what two layers of six have
FACTORIZED = {f"{name}, {share:.0%}": (method, share) for share in SHARES for name, method in FACTORS.items()}
METHODS = [*CONTROLS[:3], *DISTILLED, "labels of the teacher", *CONTROLS[3:], *FUSED, *FACTORIZED]


def every_language(labelled: bool = False) -> datasets.Dataset:
    """The train split in all languages, without its labels, or with those that the teacher gives."""
    texts = common.corpus("train").remove_columns("label")
    return texts.add_column("label", labels_of_teacher()) if labelled else texts


def labels_of_teacher() -> list[str]:
    """What the bundled model takes the sentences of the train split for, in all languages; found once."""
    kept = FOLDER / "labels_of_teacher"
    if not kept.exists():
        model, tokenizer = common.bundled()
        logits = probes.capture(model, tokenizer, common.corpus("train"), progress=False)["logits"]
        classes = list((model.config.id2label or {}).values())
        write_whole(kept, json.dumps([classes[k] for k in logits.values.argmax(1)]))
    labels: list[str] = json.loads(kept.read_text(encoding="utf-8"))
    return labels


def one_run(method: str, text: str, rate: float, seed: int) -> dict[str, float]:
    """Make a small model of the bundled one, train it, and measure what came out."""
    model, tokenizer = common.bundled()
    how: dict[str, Any] = {"steps": STEPS, "learning_rate": rate, "seed": seed, "progress": False}
    with_text = {"train": common.corpus("train", "en"), "tokenizer": tokenizer}
    found: dict[str, float] = {}
    if method in FUSED:
        share = 1 - LAYERS / model.config.num_hidden_layers + 1e-9
        random = method.endswith("at random")
        small = (
            fused_at_random(model, seed) if random else compress.fuse(model, share=share, seed=seed, **FUSED[method])
        )
        found |= _before_training(small)
        train(small, tokenizer, with_text["train"], objective=[CrossEntropy()], **how)
    elif method in FACTORIZED:
        kind, share = FACTORIZED[method]
        calibrate = {"calibrate": common.corpus("dev"), "tokenizer": tokenizer} if kind == "activation" else {}
        small = compress.factorize(model, budget=share, method=kind, **calibrate)
        found |= _before_training(small)
        train(small, tokenizer, with_text["train"], objective=[CrossEntropy()], **how)
    else:
        small = _student(method, text, how, with_text)
    reps = common.states_of(small)
    cost = compress.footprint(small).loc["model"]
    found |= common.measures_of(reps) | {"dev accuracy": common.english_accuracy(small)["accuracy"]}
    found |= {name: float(cost[name]) for name in ("parameters", "encoder", "bytes")}
    found["flops"] = float(cost["operations"])
    return found | _likeness(reps)


def _student(method: str, text: str, how: dict[str, Any], with_text: dict[str, Any]) -> PreTrainedModel:
    model, _ = common.bundled()
    if method == "not trained":
        return compress.distill(model, layers=LAYERS)
    if method == "Meta-KD":
        # Its domains are topics where there is English alone, and else languages, by the labels that the teacher gives.
        given = with_text["train"] if text == ENGLISH else every_language(labelled=True)
        domain = "label" if text == ENGLISH else "language"
        passes = -(-len(with_text["train"]) // 32)
        return recipes.meta_distillation(
            model, with_text["tokenizer"], given, layers=LAYERS, domain=domain, teacher_steps=passes, **how
        )
    made_of: dict[str, Any] = {"layers": LAYERS}
    if method.endswith("random start"):
        config: Any = copy.deepcopy(model.config)
        config.num_hidden_layers = LAYERS
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(how["seed"])
            made_of = {"student": BertForSequenceClassification(config)}
    objective: list[Objective] = [CrossEntropy()] if text == ENGLISH else []
    if method == "labels of the teacher":
        with_text, objective = {**with_text, "train": every_language(labelled=True)}, [CrossEntropy()]
    elif method == "shuffled labels":
        rows = with_text["train"]
        shuffled = np.random.default_rng(how["seed"]).permutation(rows["label"]).tolist()
        with_text = {**with_text, "train": rows.remove_columns("label").add_column("label", shuffled)}
    else:
        objective += OBJECTIVES[method.removesuffix(", random start")]
        if text == EVERY:
            with_text = {**with_text, "train": every_language()}
    return compress.distill(model, objective=objective, **made_of, **with_text, **how)


def fused_at_random(model: PreTrainedModel, seed: int) -> PreTrainedModel:
    """Share one mean among layers drawn at random, as many as are left otherwise: what similarity is held to."""
    fused, generator = copy.deepcopy(model), np.random.default_rng(seed)
    shared: dict[str, str] = {}
    for part in sorted({re.sub(r"layer\.\d+\.", "layer.*.", name) for name in block_matrices(fused)}):
        order = generator.permutation(fused.config.num_hidden_layers)
        groups = [[int(i)] for i in order[:LAYERS]]
        for i in order[LAYERS:]:
            groups[generator.integers(LAYERS)].append(int(i))
        for group in groups:
            names = [part.replace("*", str(i)).removesuffix(".weight") for i in sorted(group)]
            modules: list[Any] = [fused.get_submodule(name) for name in names]
            with torch.no_grad():
                for which in ("weight", "bias"):
                    tensors = [getattr(module, which) for module in modules]
                    tensors[0].copy_(torch.stack(tensors).mean(0))
            first, *others = (name.removeprefix(f"{fused.base_model_prefix}.") for name in names)
            shared |= dict.fromkeys(others, first)
    fused.config.shared_layers = shared
    apply_sharing(fused)
    return fused


def _before_training(small: PreTrainedModel) -> dict[str, float]:
    found = common.measures_of(common.states_of(small))
    return {f"{name} before training": found[name] for name in ("accuracy en", "accuracy zero-shot")}


def _likeness(reps: xr.Dataset) -> dict[str, float]:
    """CKA of first, middle and last states to those that stand at the same depth of the teacher, and the nearest."""
    alike = probes.similarity(reps, common.states_before(), measure="cka_debiased", draws=2).value.sel(
        language="pooled"
    )
    deep, of = (alike.sizes[d] - 1 for d in ("layer", "other_layer"))
    found = {}
    for name, depth in (("first", 0.0), ("middle", 0.5), ("last", 1.0)):
        mine = alike.sel(layer=round(depth * deep))
        found[f"CKA {name}"] = float(mine.sel(other_layer=round(depth * of)))
        found[f"nearest {name}"] = float(mine.idxmax("other_layer"))
    return found


def settings() -> list[dict[str, Any]]:
    """All runs."""
    kinds: list[list[tuple[str, str, float]]] = [
        [(m, ENGLISH, RATE) for m in [*CONTROLS[:3], *DISTILLED]],
        [(m, EVERY, RATE) for m in [*UNLABELLED, "labels of the teacher"]],
        [("labels alone", ENGLISH, LOWER), ("logits", ENGLISH, LOWER), ("logits", EVERY, LOWER)],
        [(m, ENGLISH, RATE) for m in [*FACTORIZED, *FUSED]],
    ]
    controls = [("not trained", "none"), ("shuffled labels", ENGLISH)]
    return [
        *(
            {"method": m, "text": t, "rate": r, "seed": seed}
            for many in kinds
            for seed in common.SEEDS
            for m, t, r in many
        ),
        *({"method": m, "text": t, "rate": RATE, "seed": common.SEEDS[0]} for m, t in controls),
    ]


def must_hold(table: pd.DataFrame, teacher: Mapping[str, float]) -> pd.DataFrame:
    """Say of every student that is distilled whether it keeps English and beats labels alone in zero-shot accuracy."""
    kinds = table[table["method"].isin(DISTILLED) | table["method"].isin(["labels of the teacher"])]
    rows = []
    for (rate, text, method), group in kinds.groupby(["rate", "text", "method"], sort=False):
        least = float(group["accuracy en"].min()) / teacher["accuracy en"]
        one = {"method": method, "text": text, "rate": rate}
        gains = [
            common.paired(table, "accuracy zero-shot", one, {"method": "labels alone", "rate": at})
            for at in (rate, LOWER if rate == RATE else RATE)
        ]
        said = ["yes" if low > 0 else "not surely" if gain > 0 else "no" for gain, low, _ in gains]
        rows.append([method, text, f"{rate:.0e}", least, "yes" if least >= 0.9 else "no", *gains[0], *said])
    columns = ["student", "text", "rate", "least share of English accuracy", "at least 0.9", "zero-shot gain", "low"]
    columns += ["high", "beats labels alone", "and those of the other rate"]
    order = {name: i for i, name in enumerate(METHODS)}
    return pd.DataFrame(rows, columns=columns).sort_values(
        ["rate", "text", "student"],
        key=lambda c: c.map(order) if c.name == "student" else c,
        ascending=[False, True, True],
    )


def claims(table: pd.DataFrame) -> pd.DataFrame:
    """Hold what the papers say against what came out."""
    rows = []

    def claim(said: str, value: str, one: str, other: str, text: str = ENGLISH) -> None:
        first, second = ({"method": m, "text": text, "rate": RATE} for m in (one, other))
        mean, low, high = common.paired(table, value, first, second)
        rows.append([said, mean, low, high, common.verdict(low, high)])

    zero, loyal = "accuracy zero-shot", "loyalty zero-shot"
    for text, what in ((ENGLISH, "English"), (EVERY, "all languages")):
        claim(f"CoDIR above logits, zero-shot accuracy ({what})", zero, "CoDIR", "logits", text)
        claim(f"CoDIR above logits, probability loyalty ({what})", loyal, "CoDIR", "logits", text)
        claim(f"CoDIR above hidden states, zero-shot accuracy ({what})", zero, "CoDIR", "hidden states", text)
        claim(f"CoDIR above logits, retrieval ({what})", "retrieval", "CoDIR", "logits", text)
        claim(f"CRD above logits, zero-shot accuracy ({what})", zero, "CRD uniform", "logits", text)
        claim(f"Relational above logits, zero-shot accuracy ({what})", zero, "relational", "logits", text)
        claim(f"Meta-KD above logits, zero-shot accuracy ({what})", zero, "Meta-KD", "logits", text)
    for kind in ("classes", "instances"):
        claim(f"Negatives of similar {kind} above uniform, zero-shot accuracy", zero, f"CRD {kind}", "CRD uniform")
        claim(
            f"Negatives of similar {kind} above uniform, English accuracy", "accuracy en", f"CRD {kind}", "CRD uniform"
        )
        claim(f"Negatives of similar {kind} above uniform, probability loyalty", loyal, f"CRD {kind}", "CRD uniform")
    said = "Negatives of similar instances above uniform, zero-shot accuracy (all languages)"
    claim(said, zero, "CRD instances", "CRD uniform", EVERY)
    for kind in ("uniform", "classes", "instances"):
        claim(f"Mixup above none, {kind}, zero-shot accuracy", zero, f"CRD {kind}, mixup", f"CRD {kind}")
    claim("Soft labels of all languages above the teacher's hard labels, zero-shot accuracy", zero, "logits",
          "labels of the teacher", EVERY)  # fmt: skip
    for merge in ("mean", "mix"):
        claim(f"Fusion: {merge} above drop, zero-shot accuracy", zero, f"fuse, {merge}", "fuse, drop")
        claim(f"Fusion: {merge} above drop, English accuracy", "accuracy en", f"fuse, {merge}", "fuse, drop")
    for kind, name in (("Euclidean", ""), ("Wasserstein", ", Wasserstein"), ("covariance", ", covariance")):
        claim(f"Fusion: most similar ({kind}) above random layers, zero-shot accuracy", zero, f"fuse, mean{name}",
              "fuse, mean, at random")  # fmt: skip
    claim("Fusion of six layers above two layers, labels alone, zero-shot accuracy", zero, "fuse, mean", "labels alone")
    for share in SHARES:
        svd, activation, trains = (f"{name}, {share:.0%}" for name in FACTORS)
        at = f"at {share:.0%} of the parameters"
        claim(f"SVD by activations above plain, {at}, zero-shot accuracy", zero, activation, svd)
        claim(f"SVD by activations above plain, {at}, probability loyalty", loyal, activation, svd)
        claim(f"Low rank above tensor trains, {at}, English accuracy", "accuracy en", svd, trains)
        claim(f"Low rank above tensor trains, {at}, zero-shot accuracy", zero, svd, trains)
    columns = ["claim, after training unless it says otherwise", "gain", "low", "high", "verdict"]
    return pd.DataFrame(rows, columns=columns)


def figure(table: pd.DataFrame, teacher: Mapping[str, float]) -> plt.Figure:
    """Draw what matters, by method and text; lines are the teacher."""
    values = [
        "accuracy en",
        "accuracy zero-shot",
        "retrieval",
        "label loyalty zero-shot",
        "loyalty zero-shot",
        "CKA last",
    ]
    shown = table[(table["rate"] == RATE) & ~table["method"].isin(CONTROLS[1:])]
    long = shown.melt(["method", "text", "seed"], values, "measure")
    long["measure"] = long["measure"].replace("loyalty zero-shot", "probability loyalty zero-shot")
    grid = sns.catplot(
        long, x="value", y="method", hue="text", col="measure", col_wrap=3, kind="point", errorbar=("sd", 1),
        linestyle="none", markersize=4, height=6.4, aspect=0.62, palette="colorblind", sharex=False,
        order=[m for m in METHODS if m in set(shown["method"])],
    )  # fmt: skip
    grid.set_titles("{col_name}").set_axis_labels("", "")
    sns.move_legend(grid, "lower center", ncol=2, title=None, bbox_to_anchor=(0.5, 0.995))
    for ax, value in zip(grid.axes.flat, values, strict=True):
        ax.grid(axis="y", color="0.92")
        ax.locator_params(axis="x", nbins=5)
        ax.axvline(teacher.get(value, 1.0), color="0.6", linewidth=1, zorder=0)
    return grid.figure


def main() -> int:
    """Make the runs, and write what came out."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    labels_of_teacher()
    table = common.runs(one_run, settings(), FOLDER, "distillation")
    teacher = common.measure(common.bundled()[0])
    table.to_csv(common.HERE / "distillation.csv", index=False, float_format="%.5f")
    figure(table, teacher).savefig(common.HERE / "distillation.png", dpi=90, bbox_inches="tight")
    shown = ["accuracy en", "accuracy zero-shot", "retrieval", "alignment gap", "label loyalty en"]
    shown += ["label loyalty zero-shot", "loyalty en", "loyalty zero-shot"]
    alike = ["CKA first", "CKA middle", "CKA last", "nearest middle", "nearest last"]
    size = ["megabytes", "flops, share"]
    before = ["accuracy en before training", "accuracy zero-shot before training"]
    whole = compress.footprint(common.bundled()[0]).loc["model"]
    table = table.assign(
        **{"megabytes": table["bytes"] / 1e6, "flops, share": table["flops"] / whole["operations"]},
        rate=table["rate"].map("{:.0e}".format),
    )
    kinds = {"students": table[~table["method"].isin([*FUSED, *FACTORIZED])]}
    kinds["others"] = table[table["method"].isin([*FUSED, *FACTORIZED])]
    by = ["rate", "text", "method"]
    order = {name: i for i, name in enumerate(METHODS)}
    means = {
        name: rows.groupby(by, sort=False)[columns]
        .mean()
        .reset_index()
        .sort_values(by, key=lambda c: c.map(order) if c.name == "method" else c, ascending=[False, True, True])
        for name, rows, columns in (
            ("students", kinds["students"], [*shown, *size]),
            ("alike", kinds["students"], alike),
            ("others", kinds["others"], [*before, *shown[:3], *shown[-1:], *alike[1:3], *size]),
        )
    }
    numbers = table.assign(rate=table["rate"].astype(float))
    found = claims(numbers)
    held = must_hold(numbers, teacher)
    text = TEXT.format(
        held=common.markdown(held),
        claims=common.markdown(found),
        students=common.markdown(means["students"]),
        alike=common.markdown(means["alike"]),
        others=common.markdown(means["others"].drop(columns=["rate", "text"])),
        teacher=", ".join(f"{k} {teacher[k]:.3f}" for k in ("accuracy en", "accuracy zero-shot", "retrieval")),
        cosine=f"{compress.layer_similarity(common.bundled()[0], similarity='cosine')['value'].max():.2f}",
        megabytes=f"{whole['bytes'] / 1e6:.2f}",
        seeds=len(common.SEEDS),
        steps=STEPS,
        rate=f"{RATE:.0e}",
        lower=f"{LOWER:.0e}",
        provenance=common.provenance(
            training=f"{common.steps(STEPS)}, learning rates {RATE} and {LOWER}, {common.seeds()}; of all languages "
            f"{len(common.corpus('train')):,} sentences of the train split"
        ),
    )
    return common.written("distillation", text, held, found)


TEXT = """# Distillation: what small students keep of a multilingual model

Students of two layers are made of the third and the last of the six layers of the bundled model and trained for {steps}
steps: on English labels alone; with what the model gives distilled into them on the same English sentences (soft
labels, called logits here, and beside them hidden states, relations between texts, CoDIR, CRD with uniform negatives or
those of similar classes or instances, with and without mixup; and Meta-KD, with topics as domains); and by the same
distillation, without any label, on text of all eight languages (Meta-KD: with the labels that the teacher gives, and
languages as domains). They are held to models of six layers with about as many bytes: layers fused until two tensors of
six are left of each part, or every matrix in factors, trained as long on English labels. Each was done {seeds} times,
two controls once. Measured is the test split in eight languages, of which seven never get a label of the corpus.

![measures by method and text](distillation.png)

The line is the teacher ({teacher}, {megabytes} MB); bars are one standard deviation over seeds.

## Does distillation hold what it must

The student is to keep at least 0.9 of the teacher's English accuracy, with each of the seeds, and to beat the same
student, from the same start and by the same learning rate, on English labels alone in zero-shot accuracy: the 95 %
interval (Student's t over the {seeds} seeds) of the gain is above 0, "not surely" where only the gain is. In the last
column it is held to labels alone by the other of the two learning rates. Students of all languages have seen text of
the languages that they are measured in, those on labels alone have not.

{held}
## Claims of the papers

The gain is the mean over seeds of the difference between runs of the same seed, oriented so that a positive one is what
the paper says; low and high are its 95 % interval. It tells how training varies from seed to seed, not how another
model or corpus would; and with this many claims one or two intervals that leave out zero are to be expected by chance.
The learning rate is {rate}; what is fused or in factors, and what is distilled without further words, is trained on
English labels.

To some of these claims a real encoder is held on [its own page](real_encoder_trained.md#claims), with five seeds.

{claims}
## Means over the seeds: students

{students}
`loyalty` is that of probabilities, 1 for those of the teacher; `retrieval` of translations and the `alignment gap` are
of the last layer; flops are shares of the teacher's. "Shuffled labels" are English labels in a wrong order, "not
trained" is how students begin.

## Like which layer of the teacher

Debiased CKA over all sentences: of the embeddings, the first layer of two and the last to the teacher's at the same
depth, and the layer of the teacher, 0 to 6, that each is most like, the mean over seeds.

{alike}
## Means over the seeds: fused and in factors

{others}
`fuse, drop` lets the first matrix of a group stand for the others, which are gone. The layers of this model are not
alike to begin with: the rows of two layers have a mean cosine of {cosine} at most, so that a mean of several is much
smaller than each of them. All runs are in `distillation.csv`.

## Where the numbers come from

{provenance}"""


if __name__ == "__main__":
    sys.exit(main())
