"""Part 2 of the study of a real encoder: fine-tuned on English topics, its embeddings frozen, by seeds.

Written like the runs without training: a file a run. A step of 32 sentences takes two to three seconds of a core, so
that a run takes some minutes and all of them several evenings.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import common
import datasets
import numpy as np
import pandas as pd
import real_encoder_methods as given
import real_encoder_runs as of
import torch

import compress
import probes
from compress import CrossEntropy, SoftLabels, TrainedLayers, recipes
from probes.errors import LayerscopeWarning

FOLDER = of.FOLDER / "trained"
SEEDS = (0, 1, 2, 3, 4)
RATES, RATE_SEED = (3e-5, 1e-4, 3e-4), 100  # by accuracy on the English dev split, with a seed of its own
STEPS = 66  # of 32 sentences: three times through the 701 of the train split
PLAIN = "fine-tuned"
SPARSITIES, BITS = (0.5, 0.7), (4, 3)
COLUMNS = ["method", "runs", "accuracy eng_Latn", "accuracy zero-shot", "accuracy worst", "loyalty", "retrieval"]


def settings() -> list[dict[str, Any]]:
    """All runs of part 2, seed by seed, the model that the others start from first."""
    pruned = [
        "magnitude",
        "SDP cross-correlation",
        "SDP soft labels",
        "aligned, cosine",
        "aligned, Frobenius",
        "progressive",
    ]
    rounded = ["Quant-Noise", "SDQ attention and logits"]
    students = ["labels alone", "soft labels", "soft labels, every language"]
    out = []
    for seed in SEEDS:
        out.append({"trained": PLAIN, "strength": 0.0, "seed": seed})
        out += [{"trained": m, "strength": s, "seed": seed} for s in SPARSITIES for m in pruned]
        out += [{"trained": m, "strength": float(b), "seed": seed} for b in BITS for m in rounded]
        out += [{"trained": m, "strength": float(n), "seed": seed} for n in (6, 3) for m in students]
    return out


def english(data: Path, split: str) -> datasets.Dataset:
    """The English sentences of a split with their topics, as the model is fed them."""
    rows = given.rows_of_corpus(data, split)
    return given.fed(rows[rows["language"] == given.PIVOT])


def every(data: Path) -> datasets.Dataset:
    """The train split in all languages without labels, a sentence in one language each, so that it is as long."""
    rows = given.rows_of_corpus(data, "train")
    languages = sorted(rows["language"].unique())
    which = {one: languages[i % len(languages)] for i, one in enumerate(sorted(rows["id"].unique()))}
    chosen = rows[rows["language"] == rows["id"].map(which)]
    return given.fed(chosen.drop(columns="label"))


def finetuned(model: Path, data: Path, seed: int, rate: float, steps: int) -> Any:
    """The encoder fine-tuned on English topics; kept, since others start from it."""
    kept = FOLDER / "models" / f"{seed}-{rate:g}-{steps}"
    if not (kept / "done").exists():
        source: Any
        source, tokenizer = probes.load_checkpoint(model)
        source.pooler = None  # each seed draws its own, with the head
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LayerscopeWarning)  # that a head is made
            tuned = compress.finetune(
                source,
                tokenizer,
                english(data, "train"),
                steps=steps,
                learning_rate=rate,
                seed=seed,
                layers=list(range(1, source.config.num_hidden_layers + 1)),
                progress=False,
            )
        tuned.save_pretrained(kept)
        tokenizer.save_pretrained(kept)
        (kept / "done").touch()
    return probes.load_checkpoint(kept)


def rate_of(model: Path, data: Path, steps: int = STEPS) -> float:
    """The learning rate of the highest accuracy on the English dev split; tried once."""
    file = FOLDER / f"rates-{steps}.csv"
    if not file.exists():
        dev, rows = english(data, "dev"), []
        for rate in RATES:
            tuned, tokenizer = finetuned(model, data, RATE_SEED, rate, steps)
            reps = probes.capture(tuned, tokenizer, dev, progress=False)
            rows.append([rate, float(probes.accuracy(reps, draws=2).value.sel(language="pooled").squeeze())])
        file.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows, columns=["rate", "accuracy"]).to_csv(file, index=False)
    found = pd.read_csv(file)
    return float(found.loc[found["accuracy"].idxmax(), "rate"])


def compressed(
    method: str, strength: float, seed: int, tuned: Any, tokenizer: Any, data: Path, rate: float, steps: int
) -> Any:
    """A compressed copy of a fine-tuned encoder, trained on English topics; its embeddings stay."""
    depth = round(strength) if method in STUDENTS else tuned.config.num_hidden_layers
    how: dict[str, Any] = {"learning_rate": rate, "seed": seed, "steps": steps, "progress": False}
    how["gradients"] = TrainedLayers(range(1, depth + 1))
    train = english(data, "train")
    if method in STUDENTS:
        text = every(data) if method.endswith("every language") else train
        return compress.distill(tuned, layers=depth, train=text, tokenizer=tokenizer, objective=STUDENTS[method], **how)
    if method in ROUNDED:
        return ROUNDED[method](tuned, tokenizer, train, bits=round(strength), **how)
    if method == "progressive":
        del how["gradients"]  # blocks alone are trained
    return PRUNED[method](tuned, tokenizer, train, sparsity=strength, **how)


Recipe = Callable[..., Any]
PRUNED: dict[str, Recipe] = {
    "magnitude": recipes.magnitude_pruning,
    "SDP cross-correlation": partial(recipes.self_distilled_pruning, variant="cross_correlation"),
    "SDP soft labels": partial(recipes.self_distilled_pruning, variant="soft_labels"),
    "aligned, cosine": partial(recipes.aligned_weights, form="cosine"),
    "aligned, Frobenius": partial(recipes.aligned_weights, form="frobenius"),
    "progressive": recipes.sparse_progressive_distillation,
}


def _quant_noise(model: Any, tokenizer: Any, train: datasets.Dataset, **how: Any) -> Any:
    return compress.quantize(model, tokenizer=tokenizer, train=train, activation_bits=8, **how)


ROUNDED: dict[str, Recipe] = {
    "Quant-Noise": _quant_noise,
    "SDQ attention and logits": partial(recipes.self_distilled_quantization, symmetric=True, group="channel"),
}
STUDENTS: dict[str, list[Any]] = {
    "labels alone": [CrossEntropy()],
    "soft labels": [CrossEntropy(), SoftLabels()],
    "soft labels, every language": [SoftLabels()],
}


def one_run(
    trained: str, strength: float, seed: int, *, model: Path, data: Path, ids: int | None, steps: int = STEPS
) -> dict[str, Any]:
    """Train, and measure the test split: accuracy by language, loyalty to the fine-tuned model, alignment, classes."""
    begun = time.process_time()
    rate = rate_of(model, data, steps)
    tuned, tokenizer = finetuned(model, data, seed, rate, steps)
    torch.manual_seed(seed)
    small = tuned if trained == PLAIN else compressed(trained, strength, seed, tuned, tokenizer, data, rate, steps)
    test = given.corpus_of(data, "test", ids)
    base = probes.capture(tuned, tokenizer, test, store=FOLDER / "models" / f"states-{seed}.zarr", **of.HOW)
    reps = base if trained == PLAIN else probes.capture(small, tokenizer, test, **of.HOW)
    few, last = {"draws": 2}, {"layer": int(reps.layer[-1])}
    accuracy = probes.accuracy(reps, **few).value.squeeze()
    out = {f"accuracy {x}": float(accuracy.sel(language=x)) for x in accuracy.language.values}
    zero_shot = accuracy.drop_sel(language=[given.PIVOT, "pooled"])
    out |= {"accuracy zero-shot": float(zero_shot.mean()), "accuracy worst": float(zero_shot.min()), "rate": rate}
    loyal = probes.loyalty(base, reps, **few).value.sel(measure="label_loyalty").squeeze()
    out["loyalty"] = float(loyal.drop_sel(language=[given.PIVOT, "pooled"]).mean())
    aligned: dict[str, Any] = {"retrieval": probes.retrieval, "alignment gap": probes.alignment_gap}
    told: dict[str, Any] = {"separability": probes.class_separability, "snr": probes.snr}
    for name, probe in aligned.items():
        out[name] = float(probe(reps, pivot=given.PIVOT, **few).value.sel(last).sel(language="pooled"))
    for name, probe in told.items():
        value = probe(reps, **few).value.sel(last)
        out |= {f"{name} {x}": float(value.sel(language=x)) for x in (given.PIVOT, "pooled")}
    cost = compress.footprint(small).loc["model"]
    out |= {name: float(cost[name]) for name in ("parameters", "stored_bytes", "operations")}
    return out | {"cpu": round(time.process_time() - begun, 1)}


# Of the papers, what needs training: text, source, and the claim of the bundled model's study (page, text).
CLAIMS: dict[tuple[str, str], tuple[str, str, str, str]] = {
    ("SDP cross-correlation", "accuracy zero-shot"): (
        "SDP, cross-correlation: zero-shot accuracy above magnitude's",
        "arXiv 2109.15014",
        "pruning",
        "SDP cross-correlation: zero-shot accuracy above magnitude's",
    ),
    ("SDP soft labels", "accuracy zero-shot"): (
        "SDP, soft labels: zero-shot accuracy above magnitude's",
        "arXiv 2109.15014",
        "pruning",
        "SDP soft labels: zero-shot accuracy above magnitude's",
    ),
    ("aligned, cosine", "accuracy zero-shot"): (
        "Aligned weights, cosine: zero-shot accuracy above magnitude's",
        "arXiv 2204.01385",
        "pruning",
        "aligned, cosine: zero-shot accuracy above magnitude's",
    ),
    ("aligned, Frobenius", "accuracy zero-shot"): (
        "Aligned weights, Frobenius: zero-shot accuracy above magnitude's",
        "arXiv 2204.01385",
        "pruning",
        "aligned, Frobenius: zero-shot accuracy above magnitude's",
    ),
    ("progressive", "accuracy zero-shot"): (
        "Progressive distillation: zero-shot accuracy above magnitude's",
        "arXiv 2110.08190",
        "pruning",
        "progressive: zero-shot accuracy above magnitude's",
    ),
    ("SDQ attention and logits", "accuracy zero-shot"): (
        "SDQ: zero-shot accuracy above Quant-Noise's",
        "arXiv 2307.05972",
        "quantization",
        "SDQ attention and logits: accuracy zero-shot above Quant-Noise's",
    ),
}


def claims(table: pd.DataFrame, small: Callable[[str, str], str]) -> pd.DataFrame:
    """Hold what needs training against the seeds that are there (Student's t, seeds paired)."""
    rows = []
    for (method, value), (text, source, page, claim) in CLAIMS.items():
        base = "Quant-Noise" if method in ROUNDED else "magnitude"
        row = {"claim": f"{text} ({source})", "measure": value, "bundled model": small(page, claim)}
        gains = pd.Series(dtype=float)
        if len(table):
            wide = table[table["trained"].isin([method, base])].pivot_table(value, ["seed", "strength"], "trained")
            if {method, base} <= set(wide):
                gains = (wide[method] - wide[base]).dropna().groupby("seed").mean()
        if len(gains) < len(SEEDS):
            rows.append(
                row | {"at": "", "gain": "", "95 %": "", "verdict": f"not run ({len(gains)} of {len(SEEDS)} seeds)"}
            )
            continue
        mean, low, high = common.interval(gains)
        rows.append(
            row
            | {
                "at": "all strengths",
                "gain": f"{mean:+.3f}",
                "95 %": f"{low:+.3f} to {high:+.3f}",
                "verdict": common.verdict(low, high),
            }
        )
    return pd.DataFrame(rows)[["claim", "measure", "at", "gain", "95 %", "verdict", "bundled model"]]


def means(table: pd.DataFrame) -> str:
    """Means over the seeds, a row a method and strength, as Markdown."""
    if not len(table):
        return "Not run.\n"
    table = table.assign(method=table["trained"] + table["strength"].map(lambda s: f" {s:g}" if s else ""))
    shown = table.groupby("method", sort=False)[COLUMNS[2:]].mean()
    shown.insert(0, "runs", table.groupby("method", sort=False).size())
    return common.markdown(shown.reset_index())


def there(every_one: list[dict[str, Any]]) -> pd.DataFrame:
    """The runs that are kept, as a table."""
    files = [f for f in (common.file_of(FOLDER, s) for s in every_one) if f.exists()]
    return pd.DataFrame([pd.read_json(f, typ="series").to_dict() for f in files])


def spread_of(table: pd.DataFrame, column: str) -> str:
    """Mean and standard deviation over the seeds of the fine-tuned model."""
    values = table.loc[table["trained"] == PLAIN, column] if len(table) else pd.Series(dtype=float)
    return f"{np.mean(values):.3f} ({np.std(values, ddof=1):.3f})" if len(values) > 1 else ""


def making(model: Path, data: Path, ids: int | None = None, steps: int = STEPS) -> Callable[..., dict[str, Any]]:
    """What makes a run of its settings."""
    return partial(one_run, model=model, data=data, ids=ids, steps=steps)
