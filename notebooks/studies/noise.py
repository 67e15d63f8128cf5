"""What the reference says of noise contrast, as tables: its gradient by k, log Z after it, which sentences models find.

`make study-noise ONLY=gradient` takes a minute, `... log_z` and `... sentences` a few.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

import compress
import probes
from compress.objectives.base import IGNORED, Pass
from compress.objectives.by_text import inputs_by
from compress.rows import every_row

SEEDS = 3


def gradient() -> None:
    """The gradient of all weights of the bundled decoder on 64 sentences, beside that of cross-entropy."""
    model, tokenizer = probes.load_checkpoint("bundled-decoder")
    model = model.float().eval()
    rows = every_row(probes.load_corpus("bundled", split="train"), model, tokenizer)
    dev = probes.load_corpus("bundled", split="dev", languages=["en", "de", "ru", "zh"]).select(range(64))
    batch = inputs_by(every_row(dev, model, tokenizer), model)
    targets = compress.NoiseContrast().alter(batch, tokenizer)["targets"]  # type: ignore[arg-type]
    there = targets != IGNORED
    logits = model(**batch).logits
    log_z = logits.detach().logsumexp(-1)[there]
    wanted = flat_gradient(F.cross_entropy(logits[there], targets[there]), model)
    print(f"{int(there.sum())} tokens; log Z of the model: mean {log_z.mean():.2f}, spread {log_z.std():.2f}\n")
    print("| noise | k | normalised: cosine | norm | as it is: cosine | norm |\n|---|---|---|---|---|---|")
    for noise in ("unigram", "bigram"):
        for k in (1, 10, 100, 1000):
            objective = compress.NoiseContrast(noise=noise, k=k, log_normalizer=0.0)
            state = objective.prepare(model, None, rows, seed=0)
            cells = []
            for normalised in (True, False):
                found = []
                for seed in range(SEEDS):
                    state.seed = seed
                    state.batches.zero_()
                    state.log_z.data.fill_(0.0 if normalised else float(log_z.mean()))
                    said = model(**batch).logits
                    given = Pass(model, said.log_softmax(-1) if normalised else said)
                    now = {**batch, "targets": targets, "modules": {objective.name: state}}
                    g = flat_gradient(objective(given, None, now), model)
                    found.append((g @ wanted / g.norm() / wanted.norm(), g.norm() / wanted.norm()))
                cells += [f"{value:.2f}" for value in np.mean(found, axis=0)]
            print(f"| {noise} | {k} | {' | '.join(cells)} |", flush=True)


def flat_gradient(loss: torch.Tensor, model: PreTrainedModel) -> torch.Tensor:
    """The gradient of all weights, end to end."""
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


def log_z(steps: int = 150) -> None:
    """The bundled decoder, and what it is after further training on English."""
    model, tokenizer = probes.load_checkpoint("bundled-decoder")
    train, dev = (probes.load_corpus("bundled", split=split, languages=["en"]) for split in ("train", "dev"))
    kinds: dict[str, Any] = {
        "as it is": None,
        "cross-entropy": compress.LanguageModel(),
        "noise, k = 25": compress.NoiseContrast(),
        "noise, k = 100": compress.NoiseContrast(k=100),
        "noise, k = 25, c = 0": compress.NoiseContrast(log_normalizer=0.0),
    }
    print("| trained by | nats a token | log Z: mean | spread |\n|---|---|---|---|", flush=True)
    for name, objective in kinds.items():
        made = model.float()
        if objective is not None:
            how: dict[str, Any] = {"batch_size": 16, "learning_rate": 1e-3, "progress": False}
            made = compress.finetune(made, tokenizer, train, objective=objective, steps=steps, **how)
        loss = compress.language_model_loss(made, tokenizer, dev)["nats"]
        found = compress.self_normalization(made, tokenizer, dev).iloc[-1]
        print(f"| {name} | {loss:.2f} | {found['mean']:.2f} | {found['spread']:.2f} |", flush=True)


def sentences(steps: int = 200) -> None:
    """Recurrent models of one size, trained on English by likelihood or against noise."""
    _, tokenizer = probes.load_checkpoint("bundled-decoder")
    train, dev = (probes.load_corpus("bundled", split=split, languages=["en"]) for split in ("train", "dev"))
    dev = dev.select(range(120))
    lists = {by: compress.corrupted_texts(dev, by=by) for by in ("words", "order")}  # type: ignore[arg-type]
    left = compress.LSTMConfig(vocab_size=4000, hidden_size=64, num_hidden_layers=1)
    both = compress.BiLSTMConfig(vocab_size=4000, hidden_size=64)
    against = compress.SentenceContrast(k=10)
    kinds: dict[str, list[Any]] = {
        "one direction, likelihood": [compress.LSTMLanguageModel, left, [compress.LanguageModel()], True],
        "one direction, noise": [compress.LSTMLanguageModel, left, [compress.NoiseContrast()], True],
        "both, pseudo-likelihood": [compress.BiLSTMLanguageModel, both, [compress.PseudoLikelihood()], True],
        "both, sentences of noise": [compress.BiLSTMLanguageModel, both, [against], False],
        "both, one after the other": [
            compress.BiLSTMLanguageModel,
            both,
            [compress.PseudoLikelihood(), against],
            False,
        ],
    }
    print("| model | words | order |\n|---|---|---|", flush=True)
    base: dict[str, float] = {}
    for name, (kind, config, objectives, normalized) in kinds.items():
        found: dict[str, list[float]] = {by: [] for by in lists}
        for seed in range(SEEDS):
            torch.manual_seed(seed)
            model = kind(config)
            for objective in objectives:
                how: dict[str, Any] = {"batch_size": 16, "learning_rate": 1e-2, "seed": seed, "progress": False}
                how["steps"] = steps // len(objectives)
                model = compress.finetune(model, tokenizer, train, objective=objective, **how)
            for by, candidates in lists.items():
                row = compress.rescore(model, tokenizer, candidates, normalized=normalized, train=train).iloc[-1]
                found[by].append(row["accuracy"])
                base[by] = row["unigram"]
        cells = [f"{np.mean(v):.3f} ({min(v):.3f} to {max(v):.3f})" for v in found.values()]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    print(f"| single tokens | {' | '.join(f'{value:.3f}' for value in base.values())} |\n| chance | 0.100 | 0.100 |")


if __name__ == "__main__":
    {"gradient": gradient, "log_z": log_z, "sentences": sentences}[sys.argv[1]]()
