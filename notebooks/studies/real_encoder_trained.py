"""Part 2 of the study of a real encoder: fine-tuned on English topics, its embeddings frozen, by seeds.

A step of 32 sentences takes two to three seconds of a core, so that a run takes some minutes and all of them several
evenings. What real_encoder_kept.py finds in the repository is not made again.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
import pandas as pd
import real_encoder_methods as given
import real_encoder_runs as of
import torch
import xarray as xr
from real_encoder_tables import wide

import compress
import probes
from compress import CrossEntropy, GradDrop, GradualUnfreezing, SoftLabels, TrainedLayers, recipes
from compress.tuning.heads import with_head
from probes.corpus import corpus_fingerprint
from probes.errors import LayerscopeWarning
from probes.files import locked
from probes.models.fingerprint import weights_fingerprint

SEEDS = (0, 1, 2, 3, 4)
TRIAL_SEED = 100  # of what is chosen by accuracy on the English dev split:
RATES = (3e-5, 1e-4, 3e-4)  # for all
HIGHER = (1e-3,)  # tried after runs had been made: it chooses nothing, and tells whether it would have been better
WEIGHTS = (0.1, 1.0, 10.0, 100.0, 1000.0)  # what aligned weights count beside the loss
TRIED_AT = 0.7  # of the weights pruned, where these are chosen
DRAWS = 100  # of groups of sentences, the same for every run
DRAWN = {  # of which probe and language
    "retrieval": ("retrieval", "pooled"),
    "class_separability English": ("class_separability", given.PIVOT),
    "snr English": ("snr", given.PIVOT),
}
WORST = "accuracy worst"
STEPS = 66  # of 32 sentences: three times through the 701 of the train split
PRUNINGS, LOOKED_AT = 5, (0, 4)  # steps after a pruning at which the accuracy on the English dev split is measured
TRIAL, LATER, PLAIN = "trial of a rate", "trial of a higher rate", "fine-tuned"
TRIALS_OF_WEIGHTS = {
    "trial of a weight, cosine": "aligned, cosine",
    "trial of a weight, Frobenius": "aligned, Frobenius",
}
AS_GIVEN = "aligned, cosine, weight 0.1"  # which the recipe has by default

Recipe = Callable[..., Any]
UNIFORM: dict[str, Recipe] = {
    "magnitude": recipes.magnitude_pruning,
    "SDP cross-correlation": partial(recipes.self_distilled_pruning, variant="cross_correlation"),
    "SDP soft labels": partial(recipes.self_distilled_pruning, variant="soft_labels"),
    AS_GIVEN: partial(recipes.aligned_weights, form="cosine"),
    "aligned, cosine": partial(recipes.aligned_weights, form="cosine"),
    "aligned, Frobenius": partial(recipes.aligned_weights, form="frobenius"),
}
CUBIC: dict[str, Recipe] = {
    "progressive": recipes.sparse_progressive_distillation,
    "SparseBERT": recipes.sparse_bert,
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
# Fine-tuned in another way: how, by a strength and the number of layers, of the embeddings none.
TUNED: dict[str, Callable[[float, int], dict[str, Any]]] = {
    "gradient dropping": lambda share, depth: {"gradients": GradDrop([1.0] + depth * [share])},
    "gradient dropping by epoch": lambda share, depth: {"gradients": GradDrop([1.0] + depth * [share], per="epoch")},
    "gradual unfreezing": lambda *_: {"gradients": GradualUnfreezing()},  # three epochs reach the last two layers
    "layers by variability": lambda tuned, _: {"layers": "by variability", "tuned": round(tuned)},
}


def family_of(trained: str) -> str:
    """Which family of compressions a method belongs to; none where nothing is made smaller."""
    kinds = {"pruning, trained": UNIFORM | CUBIC, "quantisation, trained": ROUNDED, "students": STUDENTS}
    return next((family for family, methods in kinds.items() if trained in methods), "")


def settings() -> list[dict[str, Any]]:
    """All runs of part 2, what decides most first: each claim with all of its seeds before the next."""
    first: list[tuple[str, float]] = [
        (PLAIN, 0),
        ("magnitude", 0.7),
        ("SDP cross-correlation", 0.7),
        (AS_GIVEN, 0.7),
        ("labels alone", 6),
        ("gradient dropping", 0.3),
        ("gradient dropping by epoch", 0.3),
        ("layers by variability", 2),
        ("gradual unfreezing", 0),
        ("soft labels", 6),
        ("soft labels, every language", 6),
    ]
    then: list[tuple[str, float]] = [
        ("Quant-Noise", 3),
        ("SDQ attention and logits", 3),
        ("progressive", 0.7),
        ("SparseBERT", 0.7),
        ("aligned, cosine", 0.7),
        ("aligned, Frobenius", 0.7),
        ("SDP soft labels", 0.7),
        *((method, 3) for method in STUDENTS),
        *((method, 0.5) for method in (*UNIFORM, *CUBIC) if method != AS_GIVEN),
        *((method, 4) for method in ROUNDED),
    ]
    return [{"trained": m, "strength": float(s), "seed": seed} for m, s in first + then for seed in SEEDS]


def trials() -> list[dict[str, Any]]:
    """The learning rates that are tried, those that one is chosen of first."""
    tried = [(TRIAL, rate) for rate in RATES] + [(LATER, rate) for rate in HIGHER]
    return [{"trained": trial, "strength": rate, "seed": TRIAL_SEED} for trial, rate in tried]


def trials_of_weights(asked: list[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
    """The weights that are tried, at the rate that is chosen, of the methods of some runs which have one; or of all."""
    methods = {run["trained"] for run in (settings() if asked is None else asked)}
    tried = [(trial, w) for trial, method in TRIALS_OF_WEIGHTS.items() if method in methods for w in WEIGHTS]
    return [{"trained": trial, "strength": w, "seed": TRIAL_SEED} for trial, w in tried]


def every_setting() -> list[dict[str, Any]]:
    """All that is made, in its order."""
    return [*trials(), *trials_of_weights(), *settings()]


def measured(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that are no trials."""
    return runs[~runs["trained"].isin([TRIAL, LATER, *TRIALS_OF_WEIGHTS])]


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


def made_of(model: Path, data: Path, steps: int = STEPS) -> dict[str, Any]:
    """What all runs are of: encoder, corpora and steps, by which one is known to be one of these."""
    own = of.fingerprints(probes.load_checkpoint(model)[0], given.corpus_of(data, "test"))
    return own | {"train": corpus_fingerprint(english(data, "train")), "steps": steps}


def encoder(model: Path) -> tuple[Any, Any]:
    """The encoder before any fine-tuning, without a head: each seed draws its own, with its pooler."""
    source, tokenizer = probes.load_checkpoint(model)
    body: Any = source.base_model
    body.pooler = None
    return body, tokenizer


def tune(model: Path, data: Path, seed: int, rate: float, steps: int, **how: Any) -> tuple[Any, Any]:
    """The encoder fine-tuned on English topics, and its tokenizer."""
    body, tokenizer = encoder(model)
    train = english(data, "train")
    if not {"gradients", "layers"} & set(how):
        how["layers"] = list(range(1, body.config.num_hidden_layers + 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LayerscopeWarning)  # that a head is made
        tuned = compress.finetune(
            body, tokenizer, train, steps=steps, learning_rate=rate, seed=seed, progress=False, **how
        )
    return tuned, tokenizer


def kept_at(seed: int, rate: float, steps: int) -> Path:
    """Where the fine-tuned model of a seed is kept, with what it makes of the test split."""
    return of.FOLDER / "trained" / "models" / f"{seed}-{rate:g}-{steps}"


def tuned_of(model: Path, data: Path, seed: int, rate: float, steps: int) -> tuple[Any, Any]:
    """The fine-tuned model of a seed, which is trained once, and its tokenizer."""
    kept = kept_at(seed, rate, steps)
    kept.parent.mkdir(parents=True, exist_ok=True)
    with locked(kept):
        if not (kept / "done").exists():
            tuned, tokenizer = tune(model, data, seed, rate, steps)
            tuned.save_pretrained(kept)
            tokenizer.save_pretrained(kept)
            (kept / "done").touch()
    return probes.load_checkpoint(kept)


def original(
    model: Path, data: Path, seed: int, rate: float, steps: int, ids: int | None = None
) -> tuple[Any, Any, xr.Dataset]:
    """The fine-tuned model of a seed, which all others of that seed start from and are held to.

    It is trained, and run on the test split, once.
    """
    tuned, tokenizer = tuned_of(model, data, seed, rate, steps)
    kept = kept_at(seed, rate, steps)
    with locked(kept):
        test = given.corpus_of(data, "test", ids)
        states = probes.capture(tuned, tokenizer, test, store=kept.with_name(f"{kept.name}.zarr"), **of.HOW)
    return tuned, tokenizer, states.load()


def on_dev(model: Any, tokenizer: Any, data: Path) -> dict[str, float]:
    """How right a model is on the English dev split."""
    reps = probes.capture(model, tokenizer, english(data, "dev"), progress=False)
    logits = torch.from_numpy(reps.logits.values).log_softmax(-1).numpy()
    place = pd.Index(reps["class"].values.astype(str)).get_indexer(reps.label.values.astype(str))
    nats = -logits[np.arange(len(logits)), place]
    return {"dev accuracy": float((logits.argmax(1) == place).mean()), "dev nats": float(nats.mean())}


def best_of(table: pd.DataFrame, trial: str, tried: tuple[float, ...]) -> float:
    """What had the highest accuracy of all that was tried, and of as high ones the fewest nats."""
    rows = table[table["trained"] == trial].sort_values(["dev accuracy", "dev nats"], ascending=[False, True])
    if len(rows) < len(tried):
        raise SystemExit(f"{trial}: {len(rows)} of {len(tried)} were tried, so that none can be chosen yet")
    return float(rows["strength"].iloc[0])


class Chosen(NamedTuple):
    """What the trials say: a rate for all, and a weight for each method that has one."""

    rate: float
    weights: dict[str, float]

    @classmethod
    def of(cls, table: pd.DataFrame) -> Chosen:
        """The best of what was tried; weights that were not all tried are not there."""
        count = table["trained"].value_counts()
        tried = {t: method for t, method in TRIALS_OF_WEIGHTS.items() if count.get(t, 0) == len(WEIGHTS)}
        weights = {method: best_of(table, trial, WEIGHTS) for trial, method in tried.items()}
        return cls(best_of(table, TRIAL, RATES), weights)


def looking(tokenizer: Any, data: Path) -> Callable[[Any], dict[str, float]]:
    """What says how right a model is on the English dev split, quickly: what recovery is measured by."""
    rows = english(data, "dev")
    inputs = tokenizer(list(rows["text"]), padding=True, truncation=True, max_length=512, return_tensors="pt")
    labels = np.array(rows["label"])

    @torch.inference_mode()
    def look(model: Any) -> dict[str, float]:
        said = np.array([model.config.id2label[int(i)] for i in model(**inputs).logits.argmax(-1)])
        return {"accuracy": float((said == labels).mean())}

    return look


def compressed(
    method: str,
    strength: float,
    seed: int,
    tuned: Any,
    tokenizer: Any,
    model: Path,
    data: Path,
    chosen: Chosen,
    steps: int,
) -> Any:
    """A compressed copy of a fine-tuned encoder, trained on English topics; its embeddings stay."""
    depth = round(strength) if method in STUDENTS else tuned.config.num_hidden_layers
    how: dict[str, Any] = {"learning_rate": chosen.rate, "seed": seed, "steps": steps, "progress": False}
    how["gradients"] = TrainedLayers(range(1, depth + 1))
    train = english(data, "train")
    if method in TUNED:
        return tune(model, data, seed, chosen.rate, steps, **TUNED[method](strength, depth))[0]
    if method in STUDENTS:
        text = every(data) if method.endswith("every language") else train
        return compress.distill(tuned, layers=depth, train=text, tokenizer=tokenizer, objective=STUDENTS[method], **how)
    if method in ROUNDED:
        return ROUNDED[method](tuned, tokenizer, train, bits=round(strength), **how)
    if method == "SparseBERT":
        start = with_head(encoder(model)[0], tokenizer, train, "classes", seed)
        return CUBIC[method](start, tokenizer, train, teacher=tuned, sparsity=strength, **how)
    if method == "progressive":
        del how["gradients"]  # blocks alone are trained
        return CUBIC[method](tuned, tokenizer, train, sparsity=strength, **how)
    prunings = min(PRUNINGS, max(1, steps // 3))
    looked = [round(k * steps / (prunings + 1)) + after for k in range(1, prunings + 1) for after in LOOKED_AT]
    how |= {"prunings": prunings, "evaluate": looking(tokenizer, data), "evaluate_at": looked}
    if method in TRIALS_OF_WEIGHTS.values():
        how["weight"] = chosen.weights[method]
    return UNIFORM[method](tuned, tokenizer, train, sparsity=strength, **how)


def recovered(small: Any) -> dict[str, float]:
    """What prunings cost on the English dev split, and what of it came back before the next."""
    steps = compress.recovery(small.history)
    lost = steps[steps["drop"] > 0.01]  # where there is something to recover
    return {
        "drop": float(steps["drop"].mean()),
        "gap": float(steps["gap"].mean()),
        "prunings that cost": len(lost),
        "recovered": float(np.isfinite(lost["t90"]).mean()) if len(lost) else float("nan"),
    }


def by_language(base: xr.Dataset, reps: xr.Dataset | None = None) -> pd.DataFrame:
    """A row a language, and of all together: what is measured at the end, and without labels in the middle too.

    Values alone: seeds and sentences are what varies, and `right_by_group` is kept for the latter.
    """
    models = {of.ORIGINAL: base} | ({} if reps is None else {"run": reps})
    asked = [*of.ALONE, *([] if reps is None else of.BESIDE)]
    found = probes.compare(models, pivot=given.PIVOT, probes=asked, draws=2, progress=False)
    name = list(models)[-1]
    rows = of.beside_own(found.table[found.table["model"] == name])
    spread = of.geometry_of(models[name], draws=2)
    return wide(pd.concat([rows, spread], ignore_index=True))


def right_by_group(reps: xr.Dataset) -> dict[str, str]:
    """How many texts of each group of sentences are right, of how many: in English, and in all other languages."""
    place = pd.Index(reps["class"].values.astype(str)).get_indexer(reps.label.values.astype(str))
    right = pd.Series(reps.logits.values.argmax(1) == place)
    group = reps.group.values.astype(str)
    out = {}
    for name, own in (
        ("English", reps.language.values == given.PIVOT),
        ("zero-shot", reps.language.values != given.PIVOT),
    ):
        counted = right[own].groupby(group[own]).agg(["sum", "size"])
        out[f"right {name}"] = " ".join(f"{a}/{b}" for a, b in counted.itertuples(index=False))
    return out


def draws_at_end(reps: xr.Dataset) -> dict[str, str]:
    """What draws of groups of sentences make of that at the end which counts of right texts do not tell."""
    found = probes.compare(
        {"run": reps.isel(layer=[-1])},
        pivot=given.PIVOT,
        probes=[*(probe for probe, _ in DRAWN.values()), "accuracy"],
        draws=DRAWS,
        seed=0,
        progress=False,
    )
    drawn = pd.DataFrame(found.draws["draws"].values, index=found.draws["row"].values).reindex(found.table.index)
    drawn.index = pd.MultiIndex.from_frame(found.table[["probe", "language"]])
    out = {name: drawn.loc[of_] for name, of_ in DRAWN.items()}
    out[WORST] = drawn.loc["accuracy"].drop([given.PIVOT, "pooled"]).min()
    return {f"drawn {name}": " ".join(f"{x:.4g}" for x in values) for name, values in out.items()}


def one_run(
    trained: str,
    strength: float,
    seed: int,
    *,
    model: Path,
    data: Path,
    chosen: Chosen | None,
    made_of: dict[str, Any],
    ids: int | None = None,
) -> dict[str, Any]:
    """Train, and measure the test split: accuracy by language, loyalty to the fine-tuned model, alignment, classes."""
    begun = time.process_time()
    steps = made_of["steps"]
    if trained in (TRIAL, LATER):
        found = on_dev(*tune(model, data, seed, strength, steps), data)
        return made_of | found | {"cpu": round(time.process_time() - begun, 1)}
    if chosen is None:
        raise ValueError("the learning rate is chosen by the trials, which come first")
    rate = chosen.rate
    if trained in TRIALS_OF_WEIGHTS:
        tuned, tokenizer = tuned_of(model, data, seed, rate, steps)
        method = TRIALS_OF_WEIGHTS[trained]
        chosen = Chosen(rate, {method: strength})
        small = compressed(method, TRIED_AT, seed, tuned, tokenizer, model, data, chosen, steps)
        found = on_dev(small, tokenizer, data) | {"rate": rate, "cpu": round(time.process_time() - begun, 1)}
        return made_of | found
    tuned, tokenizer, base = original(model, data, seed, rate, steps, ids)
    if trained == PLAIN:
        small, reps = tuned, base
    else:
        torch.manual_seed(seed)
        small = compressed(trained, strength, seed, tuned, tokenizer, model, data, chosen, steps)
        reps = probes.capture(small, tokenizer, given.corpus_of(data, "test", ids), **of.HOW)
    rows = by_language(base, None if trained == PLAIN else reps)
    accuracy = rows.set_index("language")["accuracy"]
    zero_shot = accuracy.drop([given.PIVOT, "pooled"])
    out: dict[str, Any] = made_of | {"rate": rate, "original": weights_fingerprint(tuned), "torch": torch.__version__}
    out |= {
        "accuracy English": float(accuracy[given.PIVOT]),
        "accuracy zero-shot": float(zero_shot.mean()),
        WORST: float(zero_shot.min()),
        "worst": str(zero_shot.idxmin()),
    }
    if trained in UNIFORM:
        out |= recovered(small)
    if trained in chosen.weights:
        out["weight"] = chosen.weights[trained]
    cost = compress.footprint(small).loc["model"]
    out |= {name: float(cost[name]) for name in ("parameters", "stored_bytes", "operations")}
    out |= right_by_group(reps) | draws_at_end(reps) | {"cpu": round(time.process_time() - begun, 1)}
    return out | {"rows": rows.to_dict("records")}


def making(
    model: Path, data: Path, made_of: dict[str, Any], chosen: Chosen | None = None, ids: int | None = None
) -> Callable[..., dict[str, Any]]:
    """What makes a run of its settings."""
    return partial(one_run, model=model, data=data, chosen=chosen, made_of=made_of, ids=ids)
