"""Study: of the sizes of a model trained for the same seconds, which is best once compressed to the same bytes.

    make study-budget

About half an hour of one core, so half as long on two. Runs are kept in runs/study-budget/; an interrupted study goes
on from there. Writes budget.csv (a row a compressed model), budget_loss.csv (a row a measured loss),
budget_batches.csv (the same of batches of several sizes), budget.md (what came out) and budget.png beside this file.
"""

from __future__ import annotations

import os
import sys
import time

# One thread of the tokenizer, too: what a process takes is the clock here.
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import copy
import importlib.util
from collections.abc import Iterator, Sequence
from functools import cache
from types import ModuleType
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from common import HERE, ROOT, SEEDS, bundled, corpus, interval, markdown, provenance, runs, verdict
from scipy import stats
from torch.nn.functional import cross_entropy, normalize
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, PreTrainedModel

import compress
from compress.matrices import block_matrices, matrices_of
from compress.training.loop import train

FOLDER = ROOT / "runs" / "study-budget"
DEPTHS, WIDTHS, HEAD = (1, 2, 3, 4), (24, 48, 72, 96), 24
SECONDS, STEPS = 6.0, 150
LOOKS = 8  # times the validation loss is measured in the seconds, and again in the steps
# Rates are over the root of the width: of 5e-4 to 4e-3, 4e-3 was best after some seconds at width 32, 2e-3 at 128.
PAIRS, WARM_UP, RATE = 16, 20, 0.016
# Of the batch: smaller and larger ones, of two of the sizes.
BATCHES, BATCHED = (8, 16, 64), ((1, 48), (2, 72))
# With fewer steps, or one rate for all, small sizes are not yet fine-tuned when large ones are.
FINE_TUNE_STEPS, RECOVERY_STEPS, FINE_TUNE_RATE = 200, 10, 0.012
SPARSITIES = (0.15, 0.3, 0.45, 0.6, 0.75, 0.9)
BITS = (32, 8, 6, 4)
CONTROLS = {"seconds": f"same {SECONDS:.0f} CPU seconds", "steps": f"same {STEPS} steps"}
COUNTED = {"bytes": "the whole model", "block bytes": "the blocks alone"}
# In kB: what some sizes fit in at 8 bits or more, and others only with more done to them.
LADDERS = {"bytes": (120, 160, 220, 300, 420, 600), "block bytes": (7, 14, 28, 56, 112, 224)}
LIGHT = 4  # a model of more than so many times a budget must be compressed heavily: 8 bits are not enough
CHANCE, CEILING = 1 / 6, 0.98  # of the accuracy
SIZE = ["depth", "width"]


@cache
def build() -> ModuleType:
    """What the bundled model was built with."""
    # data/ holds files, it is no package.
    spec = importlib.util.spec_from_file_location("model", ROOT / "data" / "rebuild" / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def tokens(split: str) -> tuple[torch.Tensor, list[str]]:
    """Token ids (sentence, language, place) of a split, padded, and its languages; made once, outside any clock."""
    _, tokenizer = bundled()
    table = corpus(split).to_pandas().pivot(index="id", columns="language", values="text")
    ids = tokenizer(list(table.to_numpy().ravel()), padding=True, return_tensors="pt")["input_ids"]
    return ids.reshape(*table.shape, -1), list(table.columns)


def trimmed(ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids without what is padding in all rows, the attention mask, and which tokens are special."""
    _, tokenizer = bundled()
    attended = ids != tokenizer.pad_token_id
    longest = int(attended.sum(1).max())
    special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
    return ids[:, :longest], attended[:, :longest].long(), special[:, :longest]


@cache
def validation() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Each dev sentence in one of the languages in turn: token ids, masked ids, what is hidden, attention."""
    _, tokenizer = bundled()
    ids, languages = tokens("dev")
    rows = torch.arange(len(ids))
    some, attended, special = trimmed(ids[rows, rows % len(languages)])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        masked, hidden = build().mask(some, special, tokenizer.mask_token_id)
    return some, masked, hidden, attended


@torch.inference_mode()
def validation_loss(model: PreTrainedModel) -> float:
    """Cross-entropy of the hidden tokens, in nats."""
    ids, masked, hidden, attended = validation()
    states = model.bert(input_ids=masked, attention_mask=attended).last_hidden_state
    return float(cross_entropy(model.cls(states[hidden]), ids[hidden]))


def pretrain(
    depth: int, width: int, seed: int, pairs: int = PAIRS
) -> tuple[dict[str, PreTrainedModel], list[dict[str, float]]]:
    """Pretrain a size as the bundled model was, until both budgets are met: what it was when each was, and its losses.

    A batch is so many sentences, each in two languages.

    The clock is the CPU time of this process, stopped while anything is measured or copied. Steps are those of the
    encoder; the few of the embeddings alone come before, on the clock.
    """
    _, tokenizer = bundled()
    (ids, languages), tools = tokens("train"), build()
    validation()
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = _new(depth, width)

    def translations(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        chosen = rng.choice(len(ids), count, replace=False)
        pair = rng.choice(len(languages), 2, replace=False)
        return trimmed(torch.cat([ids[chosen, language] for language in pair]))

    started = time.process_time()
    optimiser = torch.optim.AdamW(model.bert.embeddings.parameters(), lr=3e-3)
    for _ in range(tools.EMBEDDING_STEPS):
        batch, _, special = translations(tools.EMBEDDING_IDS)
        tools.descend(tools.info_nce(tools.sentence_vectors(model.bert.embeddings(batch), special)), model, optimiser)
    spent = time.process_time() - started

    rate = RATE / width**0.5
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    at_steps = set(np.geomspace(1, STEPS, LOOKS).round().astype(int).tolist())
    step, looks = 0, int(spent / SECONDS * LOOKS)
    since: list[float] = []
    kept: dict[str, PreTrainedModel] = {}
    losses: list[dict[str, float]] = []
    while len(kept) < len(CONTROLS):
        started = time.process_time()
        step += 1
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, step / WARM_UP)
        batch, attended, special = translations(pairs)
        masked, hidden = tools.mask(batch, special, tokenizer.mask_token_id)
        states = model.bert(input_ids=masked, attention_mask=attended).last_hidden_state
        unmasking = cross_entropy(model.cls(states[hidden]), batch[hidden])
        aligning = [tools.sentence_vectors(states, special), normalize(states[:, 0], dim=-1)]
        tools.descend(unmasking + sum(tools.info_nce(v) for v in aligning), model, optimiser)
        spent += time.process_time() - started
        since.append(unmasking.item())
        if int(spent / SECONDS * LOOKS) > looks or step in at_steps:
            looks = int(spent / SECONDS * LOOKS)
            training = float(np.mean(since))
            losses.append({"step": step, "seconds": spent, "loss": validation_loss(model), "training loss": training})
            since = []
        for control, met in (("seconds", spent >= SECONDS), ("steps", step >= STEPS)):
            if met and control not in kept:
                kept[control] = copy.deepcopy(model).eval()
    return kept, losses


def _new(depth: int, width: int) -> BertForMaskedLM:
    _, tokenizer = bundled()
    return BertForMaskedLM(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            num_hidden_layers=depth,
            num_attention_heads=width // HEAD,
            intermediate_size=4 * width,
            max_position_embeddings=64,
            # As of the bundled model.
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )


def fine_tune(encoder: PreTrainedModel, seed: int) -> PreTrainedModel:
    """Put a topic head on an encoder and train both on English labels."""
    torch.manual_seed(seed)
    config = BertConfig(**encoder.config.to_dict())
    config.id2label, config.label2id = bundled()[0].config.id2label, bundled()[0].config.label2id
    model = BertForSequenceClassification(config)
    model.bert.load_state_dict(encoder.bert.state_dict(), strict=False)  # all but the pooler, which is new
    train(
        model, bundled()[1], corpus("train", "en"), objective=[compress.CrossEntropy()], steps=FINE_TUNE_STEPS,
        learning_rate=FINE_TUNE_RATE / config.hidden_size**0.5, seed=seed, progress=False,
    )  # fmt: skip
    return model.eval()


def compressed(model: PreTrainedModel, seed: int) -> Iterator[dict[str, float]]:
    """Prune a model step by step, training in between, and measure it in all bits at every sparsity."""
    rate = FINE_TUNE_RATE / model.config.hidden_size**0.5
    how: dict[str, Any] = {"steps": RECOVERY_STEPS, "learning_rate": rate, "seed": seed, "progress": False}
    for sparsity in (0.0, *SPARSITIES):
        if sparsity:
            model = compress.prune(
                model,
                sparsity=sparsity,
                scope="global",
                train=corpus("train", "en"),
                tokenizer=bundled()[1],
                **how,
            ).eval()
        for bits in BITS:
            # One grid for a matrix, as in the paper; inputs stay as they are.
            made = model
            if bits < 32:
                made = compress.quantize(model, bits=bits, group="tensor", activation_bits=None, embeddings=True).eval()
            yield {"sparsity": sparsity, "bits": bits, **quality(made), **size(model, bits), **errors(model, made)}


def size(model: PreTrainedModel, bits: int) -> dict[str, float]:
    """Bytes of a model whose matrices and word embeddings have so many bits, and of those matrices in its blocks.

    What is zero is not counted, nor where it is. Zeros are those of pruning: that more weights round to zero counts
    for nothing. Norms, biases, positions, pooler and head are never compressed.
    """
    every = sum(int((p != 0).sum()) for p in model.parameters())
    matrices = sum(int((w != 0).sum()) for w in matrices_of(model, embeddings=True).values())
    blocks = sum(int((w != 0).sum()) for w in block_matrices(model).values())
    return {"bytes": matrices * bits / 8 + (every - matrices) * 4, "block bytes": blocks * bits / 8}


def errors(model: PreTrainedModel, made: PreTrainedModel) -> dict[str, float]:
    """How far quantisation moved the weights, |W - Wq| / |W|: mean over the matrices of blocks, and of embeddings."""
    before, after = (matrices_of(m, embeddings=True) for m in (model, made))
    blocks = set(block_matrices(model))
    with torch.no_grad():
        moved = {n: float((after[n] - w).norm() / w.norm()) for n, w in before.items()}
    table = next(v for n, v in moved.items() if n not in blocks)
    return {"error": float(np.mean([v for n, v in moved.items() if n in blocks])), "error of embeddings": table}


@cache
def tested() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, np.ndarray]:
    """The test split in English, then each sentence in one of the other languages in turn; and the classes."""
    ids, languages = tokens("test")
    rows, others = torch.arange(len(ids)), torch.tensor([i for i, x in enumerate(languages) if x != "en"])
    turn = ids[rows, others[rows % len(others)]]
    labels = corpus("test", "en").to_pandas().set_index("id")["label"].sort_index()
    codes = np.array([bundled()[0].config.label2id[label] for label in labels])
    return *trimmed(torch.cat([ids[:, languages.index("en")], turn])), codes


@torch.inference_mode()
def quality(model: PreTrainedModel) -> dict[str, float]:
    """Accuracy in English and in other languages, and how often a translation is the nearest sentence."""
    ids, attended, special, codes = tested()
    guesses, vectors = [], []
    order = attended.sum(1).argsort()
    for rows in order.split(120):
        longest = int(attended[rows].sum(1).max())
        some = {"input_ids": ids[rows, :longest], "attention_mask": attended[rows, :longest]}
        out = model(**some, output_hidden_states=True)
        guesses.append(out.logits.argmax(-1))
        vectors.append(build().sentence_vectors(out.hidden_states[-1], special[rows, :longest]))
    back = order.argsort()
    right = torch.cat(guesses)[back].reshape(2, -1).numpy() == codes
    english, other = torch.cat(vectors)[back].chunk(2)
    scores, own = english @ other.T, torch.arange(len(codes))
    found = [(s.argmax(1) == own).double().mean() for s in (scores, scores.T)]
    accuracy = {"accuracy en": float(right[0].mean()), "accuracy zero-shot": float(right[1].mean())}
    return accuracy | {"retrieval": float(sum(found) / 2)}


def one_run(depth: int, width: int, seed: int) -> dict[str, Any]:
    """Pretrain a size within both budgets, fine-tune and compress what came out of each."""
    kept, losses = pretrain(depth, width, seed)
    points = [
        {"control": control, **point}
        for control in CONTROLS
        for point in compressed(fine_tune(kept[control], seed), seed)
    ]
    blocks = sum(w.numel() for w in block_matrices(kept["steps"]).values())
    return {"block parameters": blocks, "losses": losses, "points": points}


def one_batch(depth: int, width: int, batch: int, seed: int) -> dict[str, Any]:
    """Pretrain a size by batches of so many sentences within both budgets."""
    return {"losses": pretrain(depth, width, seed, batch)[1]}


def settings_of_batches() -> list[dict[str, Any]]:
    """Every run of the batches, of a seed the largest first."""
    every = [(seed, size, batch) for seed in SEEDS for size in reversed(BATCHED) for batch in reversed(BATCHES)]
    return [{"depth": size[0], "width": size[1], "batch": batch, "seed": seed} for seed, size, batch in every]


def settings() -> list[dict[str, Any]]:
    """Every run, the largest sizes of a seed first."""
    return [
        {"depth": depth, "width": width, "seed": seed}
        for seed in SEEDS
        for depth in reversed(DEPTHS)
        for width in reversed(WIDTHS)
    ]


def listed(found: pd.DataFrame, name: str, keys: Sequence[str]) -> pd.DataFrame:
    """What runs list under a name, a row each, with the settings of the run."""
    return pd.DataFrame([{**{k: row[k] for k in keys}, **part} for _, row in found.iterrows() for part in row[name]])


def unpacked(found: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The compressed models, a row each, with the bytes of their originals, and the measured losses, a row each."""
    keys = [*SIZE, "seed"]
    points, losses = (listed(found, name, keys) for name in ("points", "losses"))
    dense = points[(points["sparsity"] == 0) & (points["bits"] == 32)].set_index([*keys, "control"])
    for counted in COUNTED:
        points = points.join(dense[counted].rename(f"original {counted}"), on=[*keys, "control"])
    return points, losses


def milestones(losses: pd.DataFrame, by: Sequence[str] = SIZE) -> tuple[pd.DataFrame, pd.Series]:
    """By size and seed: the loss when each budget was met, steps and seconds to a loss that all sizes reach.

    That loss, by seed, comes second; `by` is the size, and what else tells runs of a seed apart. Between two
    measurements a line is drawn, through the lowest loss until then.
    """
    curves = {key: rows.sort_values("step") for key, rows in losses.groupby([*by, "seed"])}
    lowest = pd.Series({key: rows["loss"].min() for key, rows in curves.items()})
    target = lowest.groupby(level=len(by)).max()
    out = {}
    for key, rows in curves.items():
        falling = rows["loss"].cummin()
        to = {k: float(np.interp(-target[key[-1]], -falling, rows[k])) for k in ("step", "seconds")}
        in_time, in_steps = rows[rows["seconds"] >= SECONDS].iloc[0], rows[rows["step"] >= STEPS].iloc[0]
        out[key] = {
            "loss, seconds": in_time["loss"],
            "loss, steps": in_steps["loss"],
            "steps in the seconds": in_time["step"],
            "ms a step": 1000 * (rows["seconds"].iloc[-1] - rows["seconds"].iloc[0]) / (rows["step"].iloc[-1] - 1),
            "steps to": to["step"],
            "seconds to": to["seconds"],
        }
    table = pd.DataFrame(out).T.rename_axis([*by, "seed"])
    return table, target


def unigram_loss() -> float:
    """Validation loss of a model that knows how frequent each token is, and nothing else."""
    _, tokenizer = bundled()
    ids, _ = tokens("train")
    counts = torch.bincount(ids[~torch.isin(ids, torch.tensor(tokenizer.all_special_ids))], minlength=len(tokenizer))
    some, _, hidden, _ = validation()
    return float(-((counts + 1).double() / (counts + 1).sum()).log()[some[hidden]].mean())


def growth(values: pd.Series, original: pd.Series) -> tuple[float, float, float]:
    """Rank correlation of something with the size of the original, over sizes: mean and 95 % interval over seeds."""
    both = pd.DataFrame({"value": values, "size": original}).dropna()
    by_seed = {seed: stats.spearmanr(rows["value"], rows["size"])[0] for seed, rows in both.groupby(level="seed")}
    return interval(pd.Series(by_seed))


def claims(points: pd.DataFrame, losses: pd.DataFrame) -> pd.DataFrame:
    """Hold what the paper says against what came out."""
    rows = []

    def claim(text: str, gain: tuple[float, float, float]) -> None:
        low, high = sorted(gain[1:])
        rows.append([text, gain[0], low, high, verdict(low, high)])

    index = [*SIZE, "seed"]
    dense = points[(points["sparsity"] == 0) & (points["bits"] == 32)]
    original = dense[dense["control"] == "steps"].set_index(index)["bytes"]
    reached, _ = milestones(losses)
    for text, value in (
        ("reaches a given loss in fewer steps", "steps to"),
        ("reaches it in less time", "seconds to"),
        (f"has a lower loss after {CONTROLS['steps']}", "loss, steps"),
        (f"has a lower loss after {CONTROLS['seconds']}", "loss, seconds"),
    ):
        claim(f"larger {text}", growth(-reached[value], original))
    for control, name in CONTROLS.items():
        mine = points[points["control"] == control].set_index(index)
        before = mine[(mine["sparsity"] == 0) & (mine["bits"] == 32)]
        four = mine[(mine["sparsity"] == 0) & (mine["bits"] == 4)]
        claim(f"{name}: larger has a smaller error at 4 bits, blocks", growth(-four["error"], original))
        claim(f"{name}: the same, word embeddings", growth(-four["error of embeddings"], original))
        for value in ("accuracy en", "accuracy zero-shot"):
            claim(f"{name}: larger keeps more at 4 bits, {value}", growth(kept(four, before, value), original))
            for sparsity in SPARSITIES[-2:]:
                after = mine[(mine["sparsity"] == sparsity) & (mine["bits"] == 32)]
                text = f"{name}: larger keeps more at {sparsity:.0%} sparsity, {value}"
                claim(text, growth(kept(after, before, value), original))
    for counted, what in COUNTED.items():
        for control, name in CONTROLS.items():
            for value in ("accuracy en", "accuracy zero-shot"):
                by_budget = [versus(points, counted, kilo, control, value) for kilo in LADDERS[counted]]
                gain = interval(pd.concat(by_budget, axis=1).mean(axis=1))
                claim(f"{name}: large, heavily compressed, above small at equal bytes of {what}, {value}", gain)
    return pd.DataFrame(rows, columns=["claim", "gain", "low", "high", "verdict"])


def of_batches(losses: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """How each size trained by batches of each size, means over the seeds, and what is claimed of batches."""
    reached, _ = milestones(losses, [*SIZE, "batch"])
    means = reached.groupby(level=[*SIZE, "batch"]).mean().reset_index()
    means.insert(0, "size", [f"{d} x {w}" for d, w in zip(means["depth"], means["width"], strict=True)])
    means["steps in the seconds"] = means["steps in the seconds"].round().astype(int)
    least, usual, most = BATCHES
    (small, large), rows = BATCHED, []

    def at(value: str, batch: int, size: tuple[int, int] | None = None) -> pd.Series:
        there = reached[value].xs(batch, level="batch")
        return there.groupby(level="seed").mean() if size is None else there.loc[size]

    for text, gain in (
        (f"a batch of {most}: fewer steps to a loss than of {least}", at("steps to", least) - at("steps to", most)),
        (f"a batch of {most}: less time to a loss than of {least}", at("seconds to", least) - at("seconds to", most)),
        (
            f"same {SECONDS:.0f} CPU seconds: {large[0]} x {large[1]} by {usual} has a lower loss than "
            f"{small[0]} x {small[1]} by {most}",
            at("loss, seconds", most, small) - at("loss, seconds", usual, large),
        ),
        (
            f"same {STEPS} steps: the same",
            at("loss, steps", most, small) - at("loss, steps", usual, large),
        ),
    ):
        mean, low, high = interval(gain)
        rows.append([text, mean, low, high, verdict(low, high)])
    found = pd.DataFrame(rows, columns=["claim", "gain", "low", "high", "verdict"])
    return means.drop(columns=SIZE), found


def kept(after: pd.DataFrame, before: pd.DataFrame, value: str) -> pd.Series:
    """The share that is left of the accuracy a model had above chance; of none that had less than a tenth."""
    had = before[value] - CHANCE
    return ((after[value] - CHANCE) / had).where(had >= 0.1)


def fitting(points: pd.DataFrame, counted: str, kilo: float, control: str) -> pd.DataFrame:
    """The compressed models of a control that fit in a budget, and whether their originals are large for it."""
    fits = points[(points[counted] <= 1000 * kilo) & (points["control"] == control)]
    return fits.assign(large=fits[f"original {counted}"] > 1000 * kilo * LIGHT)


def versus(points: pd.DataFrame, counted: str, kilo: float, control: str, value: str) -> pd.Series:
    """By seed, the best of the large that fit in a budget minus the best of the small.

    Which are the best is looked up in the other seeds, so that chance favours neither.
    """
    fits = fitting(points, counted, kilo, control)
    out = {}
    for seed in sorted(set(fits["seed"])):
        best = []
        for large in (True, False):
            wide = fits[fits["large"] == large].pivot_table(value, [*SIZE, "sparsity", "bits"], "seed").dropna()
            best.append(wide.loc[wide.drop(columns=seed).mean(axis=1).idxmax(), seed] if len(wide) else np.nan)
        out[seed] = best[0] - best[1]
    return pd.Series(out)


def winners(points: pd.DataFrame, counted: str) -> pd.DataFrame:
    """For each budget and control, the compressed models with the best mean accuracies over the seeds."""
    rows = []
    for kilo in LADDERS[counted]:
        for control in CONTROLS:
            fits = fitting(points, counted, kilo, control)
            row: list[Any] = [f"{kilo} kB", control, len(fits.loc[~fits["large"], SIZE].drop_duplicates())]
            for value in ("accuracy en", "accuracy zero-shot"):
                means = fits.groupby([*SIZE, "sparsity", "bits"])[value].mean()
                depth, width, sparsity, bits = means.idxmax()
                row += [f"{depth} x {width}, {sparsity:.0%}, {bits} bits", float(means.max())]
                row.append(_shown(interval(versus(points, counted, kilo, control, value))))
            rows.append(row)
    columns = ["budget", "same", "small sizes", "best in English", "accuracy", "large minus small"]
    return pd.DataFrame(rows, columns=[*columns, "best zero-shot", "accuracy", "large minus small"])


def _shown(found: tuple[float, float, float]) -> str:
    mean, low, high = found
    return f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"


def trained(points: pd.DataFrame, losses: pd.DataFrame) -> pd.DataFrame:
    """How each size trained, means over the seeds."""
    reached, _ = milestones(losses)
    out = reached.groupby(level=SIZE).mean()
    out["steps in the seconds"] = out["steps in the seconds"].round().astype(int)
    out.insert(0, "kB", points.groupby(SIZE)["original bytes"].mean() / 1000)
    return _named(out)


def compared(points: pd.DataFrame) -> pd.DataFrame:
    """What each size is before and after compression, means over the seeds."""
    out = []
    for control in CONTROLS:
        table = pd.DataFrame({"kB": points.groupby(SIZE)["original bytes"].mean() / 1000, "same": control})
        for value in ("accuracy en", "accuracy zero-shot", "retrieval"):
            for name, sparsity, bits in (("", 0.0, 32), (", 4 bits", 0.0, 4), (", 90 %", 0.9, 32), (", both", 0.9, 4)):
                mine = points[(points[["control", "sparsity", "bits"]] == [control, sparsity, bits]).all(axis=1)]
                table[f"{value.removeprefix('accuracy ')}{name}"] = mine.groupby(SIZE)[value].mean()
        out.append(table)
    return _named(pd.concat(out))


def _named(table: pd.DataFrame) -> pd.DataFrame:
    table = table.sort_values("kB", kind="stable").reset_index()
    names = [f"{depth} x {width}" for depth, width in zip(table["depth"], table["width"], strict=True)]
    return table.drop(columns=SIZE).assign(size=names)[["size", *table.columns.drop(SIZE)]]


def figure(points: pd.DataFrame, losses: pd.DataFrame) -> plt.Figure:
    """Draw losses, and accuracies over bytes with their fronts, for the same seconds and for the same steps."""
    fig, axes = plt.subplots(2, 4, figsize=(18, 8.4), layout="constrained")
    look = {"hue": "width", "style": "depth", "palette": "viridis", "hue_order": WIDTHS, "style_order": DEPTHS}
    first = losses[losses["seed"] == SEEDS[0]].sort_values("step")
    for row, (control, over, most) in enumerate((("seconds", "seconds", SECONDS), ("steps", "step", STEPS))):
        ax = axes[row, 0]
        sns.lineplot(first, x=over, y="loss", ax=ax, linewidth=1.4, legend=False, **look)
        ax.axhline(unigram_loss(), color="0.6", linewidth=1, zorder=0)
        ax.set(xlim=(0, most * 1.02), xlabel="CPU seconds" if control == "seconds" else "steps", ylabel="")
        ax.set_title("validation loss")
        mine = points[points["control"] == control]
        panels = (("bytes", "accuracy en"), ("bytes", "accuracy zero-shot"), ("block bytes", "accuracy zero-shot"))
        for ax, (counted, value) in zip(axes[row, 1:], panels, strict=True):
            means = mine.groupby([*SIZE, "sparsity", "bits"])[[counted, value]].mean().reset_index()
            means["kB"] = means[counted] / 1000
            dots = {"s": 24, "alpha": 0.75, "linewidth": 0.2, "legend": "full" if ax is axes[0, 3] else False}
            sns.scatterplot(means, x="kB", y=value, ax=ax, **dots, **look)
            front = means.sort_values("kB")
            front = front[front[value] > front[value].cummax().shift(fill_value=-1.0)]
            ax.plot(front["kB"], front[value], color="0.2", linewidth=1, drawstyle="steps-post", zorder=1)
            ax.set(xscale="log", xlabel=f"kB of {COUNTED[counted]}", ylabel="")
            ax.set_title(f"{value}, {CONTROLS[control]}")
    for ax in axes.flat:
        ax.set_axisbelow(True)
        ax.grid(color="0.92")
        ax.spines[["top", "right"]].set_visible(False)
    sns.move_legend(axes[0, 3], "upper left", bbox_to_anchor=(1.02, 1.0), frameon=False)
    return fig


def main() -> int:
    """Make the runs, and write what came out."""
    points, losses = unpacked(runs(one_run, settings(), FOLDER, "budget"))
    keys = [*SIZE, "batch", "seed"]
    batched = listed(runs(one_batch, settings_of_batches(), FOLDER / "batches", "batches"), "losses", keys)
    batched.to_csv(HERE / "budget_batches.csv", index=False, float_format="%.5g")
    batches, of_batch = of_batches(batched)
    points.to_csv(HERE / "budget.csv", index=False, float_format="%.5g")
    losses.to_csv(HERE / "budget_loss.csv", index=False, float_format="%.5g")
    figure(points, losses).savefig(HERE / "budget.png", dpi=90)
    found = claims(points, losses)
    reached, target = milestones(losses)
    mine = points[points["control"] == "seconds"].set_index([*SIZE, "seed"])
    before = mine[(mine["sparsity"] == 0) & (mine["bits"] == 32)]
    after = mine[(mine["sparsity"] == 0.9) & (mine["bits"] == 32)]
    text = TEXT.format(
        depths=", ".join(map(str, DEPTHS)),
        widths=", ".join(map(str, WIDTHS)),
        head=HEAD,
        seconds=f"{SECONDS:.0f}",
        steps=STEPS,
        embedding=build().EMBEDDING_STEPS,
        fine_tune=FINE_TUNE_STEPS,
        recovery=RECOVERY_STEPS,
        light=LIGHT,
        claims=markdown(found),
        trained=markdown(trained(points, losses)),
        batches=markdown(batches),
        of_batch=markdown(of_batch),
        pairs=PAIRS,
        compared=markdown(compared(points)),
        ceiling=int((before.groupby(SIZE)["accuracy en"].mean() >= CEILING).sum()),
        below=int((reached["loss, seconds"].groupby(level=SIZE).mean() < unigram_loss()).sum()),
        lost=f"{(before['accuracy en'] - after['accuracy en']).mean():.3f}",
        zero_shot=" to ".join(
            f"{v:.2f}" for v in before.groupby(SIZE)["accuracy zero-shot"].mean().agg(["min", "max"])
        ),
        whole=markdown(winners(points, "bytes")),
        blocks=markdown(winners(points, "block bytes")),
        target=", ".join(f"{t:.2f}" for t in target),
        unigram=f"{unigram_loss():.2f}",
        seeds=len(SEEDS),
        provenance=provenance(
            corpus=f"bundled, {len(tokens('train')[0]):,} sentences of its train split in eight languages to pretrain "
            f"on, their English labels to fine-tune on, {len(validation()[0]):,} sentences of its dev split for the "
            f"validation loss, {len(tested()[0]):,} of its test split to measure",
            pretraining=f"batches of {PAIRS} sentences in two languages, learning rate {RATE} over the root of the "
            f"width after {WARM_UP} steps of warm-up, seeds {', '.join(map(str, SEEDS))}",
            training=f"{FINE_TUNE_STEPS} steps of 32 sentences, then {RECOVERY_STEPS} after each pruning, learning "
            f"rate {FINE_TUNE_RATE} over the root of the width",
        ),
    )
    (HERE / "budget.md").write_text(text, encoding="utf-8")
    print(markdown(found))
    return 0


TEXT = """# Train large, then compress: the best size for a budget of training and of bytes

Sixteen sizes ({depths} layers of {widths} features, heads of {head}) are pretrained from scratch on the bundled
corpus, in all eight languages, for the same {seconds} CPU seconds of one thread; as a control, for the same {steps}
steps. Pretraining is that of the bundled model without its search for hard negatives: the embeddings by InfoNCE
between translations ({embedding} steps), then masked language modelling plus InfoNCE, at a constant rate. Each is then
fine-tuned on English labels for {fine_tune} steps and compressed: pruned by global magnitude in steps of 15 % of the
weights in its blocks, trained for {recovery} steps after each; and at every sparsity rounded to 8, 6 and 4 bits after
training, with one grid for a matrix. {seeds} seeds.

Bytes are non-zero weights times bits; where the zeros are costs nothing, as in the paper as recalled. Word embeddings
are quantised but not pruned, and at 4000 tokens they are most of the narrow models; norms, biases, positions, pooler
and head stay at 32 bits. So bytes are counted twice: of the whole model, and of the matrices in its blocks alone, as
for a model whose embeddings are a small part.

![losses, and accuracies over bytes](budget.png)

Losses are those of one seed, solid for one layer, dashed for two, dotted for three, both for four; the grey line is
the loss of a model that knows how frequent each token is and nothing else ({unigram}). Accuracies are means over the
seeds, the black line is their front. Measured is the test split in English, and each of its sentences in one of the
other languages in turn.

## How far this can tell

After the same seconds and fine-tuning, {ceiling} of the sixteen sizes have an English accuracy of 0.98 or more, and
90 % sparsity of the blocks then takes {lost} of it, mean over all: topics can be told by single words, which the
embeddings know, so there is little that blocks could lose. Zero-shot accuracy is far from its ceiling ({zero_shot},
chance 0.17) and varies more from seed to seed. The loss of {below} sizes is then below that of a model that knows
frequencies alone: the others have not yet learned what their blocks are for, and are compared all the same.

## Claims of the paper

For what larger sizes do, the gain is the rank correlation with the size of the original over the sixteen, oriented so
that 1 is what the paper says in full; a given loss is one that all sizes reach ({target} by seed). What is kept is the
share of the accuracy above chance, of models that had at least 0.1 of it. For equal bytes it is the best of the large
minus the best of the small, mean over the budgets below: large is what had more than {light} times the budget at 32
bits, so that 8 bits are not enough; small is the rest, compressed in whatever way. The best is looked up in the other
seeds.
Low and high are the 95 % interval (Student's t over the {seeds} seeds). It tells how training varies from seed to seed,
not how another corpus would; and with this many claims one or two intervals that leave out zero are to be expected by
chance.

{claims}
## Best at equal bytes, the whole model counted

{whole}
## Best at equal bytes, blocks alone counted

{blocks}
The best, as layers x width, sparsity and bits, is by its mean over the seeds on the test split itself, so its accuracy
flatters it; the differences do not. `small sizes` is how many sizes count as small for the budget.

## How each size trained, means over the seeds

{trained}
`steps to` and `seconds to` are to the loss that all reach. CPU seconds are not the same on a machine that does other
work, as this one did: a step takes longer there, of every size.

## Each size before and after compression, means over the seeds

{compared}
`both` is 90 % sparsity and 4 bits. Retrieval of translations, by the last states, rises where blocks are pruned:
translations are near each other in the embeddings, and fine-tuning on English moves them apart in the blocks. All
compressed models are in `budget.csv`, all losses in `budget_loss.csv`.

## The batch

Two of the sizes, pretrained by batches of fewer and of more sentences (each in two languages), at the same rate and for
the same budgets. The paper's finding: raise the size of a model before that of its batch. Gains are oriented so that
positive is what is claimed.

{of_batch}
{batches}
`steps to` and `seconds to` are to the loss that all of these reach. The rate was chosen for batches of {pairs}; a
larger batch might stand a higher one. All losses are in `budget_batches.csv`.

## What this is not

Models, corpus and budget are smaller than the paper's by several orders of magnitude, and the sentences come from a
grammar; one thread runs no wide matrix in parallel, as an accelerator does. Time is that of pretraining alone:
fine-tuning has the same steps for all sizes, and takes longer in large ones.

## Where the numbers come from

{provenance}"""


if __name__ == "__main__":
    # By its name, so that the processes of the runs find what is kept there.
    import budget

    sys.exit(budget.main())
