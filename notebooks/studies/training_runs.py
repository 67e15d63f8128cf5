"""The runs of the study of training methods: one function a part, which gives the numbers of one seed."""

from __future__ import annotations

import os

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import math
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import common
import datasets
import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from transformers import PreTrainedModel

import compress
import probes
from compress.training.loop import train

CODES, GRADIENT, TOKENS, SENTENCES = "output codes", "noise: gradient", "noise: tokens", "noise: sentences"
HEALING, WORDS, REWARD, DIFFUSION = "healing", "near words", "reward", "diffusion"

BITS, RANK = 32, 2  # of about the same bytes: 32,512 and 33,024
PRUNED = 0.7
TEXTS = {TOKENS: 1200, WORDS: 300}  # English sentences to train on
STEPS = {CODES: 60, TOKENS: 60, SENTENCES: 200, HEALING: 40, WORDS: 200, REWARD: 50}
BATCH = {CODES: 32, TOKENS: 16, SENTENCES: 16, HEALING: 32, WORDS: 16, REWARD: 64}
UPDATES = {"teacher": 1500, "guidance": 1000, "halving": 200}
PROMPTS, WRITTEN = 64, 60  # trained on, and of dev

CODED: dict[str, dict[str, Any]] = {
    "random, bits": {"assignment": "random"},
    "embedding, bits": {"assignment": "embedding"},
    "random, loss": {"assignment": "random", "objective": compress.LanguageModel()},
    "embedding, loss": {"assignment": "embedding", "objective": compress.LanguageModel()},
    "SVD, loss": {},
    "frequency, bits": {"assignment": "frequency"},
    "12 bits, embedding, bits": {"bits": 12},
    "100 bits, embedding, bits": {"bits": 100},
    "embedding, bits, curriculum": {"mixture": "curriculum"},
    "embedding, bits, differentiable": {"mixture": "differentiable"},
}
DRAWS = (1, 10, 100, 1000)
OF_TOKENS: dict[str, Any] = {"softmax": compress.LanguageModel(), "noise": compress.NoiseContrast()}
OF_SENTENCES: dict[str, list[Any]] = {
    "one direction, likelihood": [compress.LanguageModel()],
    "both, pseudo-likelihood": [compress.PseudoLikelihood()],
    "both, sentences of noise": [compress.SentenceContrast(k=10)],
    "both, one after the other": [compress.PseudoLikelihood(), compress.SentenceContrast(k=10)],
}
HEALED: dict[str, Any] = {
    "none": None,
    "masked": compress.MaskedTokens(learning_rate=1e-3),
    "replaced": compress.ReplacedTokens(learning_rate=1e-3),
}
NEAR: dict[str, dict[str, Any]] = {
    "none": {},
    "static 0.2": {"schedule": "static", "upto": 0.2},
    "exponential 0.2": {"schedule": "exponential", "upto": 0.2},
    "linear 0.8": {"schedule": "linear", "upto": 0.8},
    "sigmoid 0.8": {"schedule": "sigmoid", "upto": 0.8},
    "static 0.2, own words 0.2": {"schedule": "static", "upto": 0.2, "own_words": 0.2},
}


@cache
def decoder() -> tuple[PreTrainedModel, Any]:
    """The bundled decoder and its tokenizer."""
    return probes.load_checkpoint("bundled-decoder")


def output_codes(method: str, seed: int) -> dict[str, float]:
    """The decoder with an output layer of few bytes, trained: nats a token on 30 sentences of dev in all languages."""
    warnings.simplefilter("ignore", probes.LayerscopeWarning)  # that embeddings stay
    model, tokenizer = decoder()
    text, dev = common.corpus("train"), common.corpus("dev").select(range(240))
    how: dict[str, Any] = {"learning_rate": 3e-3, "warmup": 0.1, "seed": seed, "progress": False}
    how |= {"steps": STEPS[CODES], "batch_size": BATCH[CODES]}
    if method.startswith("SVD"):
        from output_codes import low_rank_output

        made = low_rank_output(model, RANK)
        size = sum(p.numel() * p.element_size() for p in made.lm_head.parameters())
        train(made, tokenizer, text, objective=[compress.LanguageModel()], **how)
    else:
        given = {"bits": BITS, "train": text, "tokenizer": tokenizer} | CODED[method]
        made = compress.code_outputs(model, **given, **how)
        size = made.config.compression["output_bytes"]
    return {"bytes": float(size), "nats": float(compress.language_model_loss(made, tokenizer, dev)["nats"])}


def gradient(method: str, seed: int) -> dict[str, float]:
    """The cosine of the gradient against noise, of normalised logits, with that of cross-entropy, by draws a token."""
    from noise import flat_gradient

    from compress.objectives.base import IGNORED, Pass
    from compress.objectives.by_text import inputs_by
    from compress.rows import every_row

    model, tokenizer = decoder()
    model = model.float().eval()
    rows = every_row(common.corpus("train"), model, tokenizer)
    dev = probes.load_corpus("bundled", split="dev", languages=["en", "de", "ru", "zh"]).select(range(64))
    batch = inputs_by(every_row(dev, model, tokenizer), model)
    objective = compress.NoiseContrast(k=int(method.split()[-1]), log_normalizer=0.0)
    targets = objective.alter(batch, tokenizer)["targets"]  # type: ignore[arg-type]
    there = targets != IGNORED
    wanted = flat_gradient(F.cross_entropy(model(**batch).logits[there], targets[there]), model)
    state = objective.prepare(model, None, rows, seed=seed)
    said = model(**batch).logits.log_softmax(-1)
    now = {**batch, "targets": targets, "modules": {objective.name: state}}
    found = flat_gradient(objective(Pass(model, said), None, now), model)
    return {"cosine": float(found @ wanted / found.norm() / wanted.norm())}


def english(split: str, count: int | None = None) -> datasets.Dataset:
    """English sentences of a split."""
    rows = common.corpus(split, "en")
    return rows.select(range(count)) if count else rows


def tokens(method: str, seed: int) -> dict[str, float]:
    """The decoder trained further by a softmax or against noise: nats a token, and the spread of log Z, on dev."""
    model, tokenizer = decoder()
    how: dict[str, Any] = {"learning_rate": 1e-3, "seed": seed, "progress": False}
    how |= {"steps": STEPS[TOKENS], "batch_size": BATCH[TOKENS]}
    made = compress.finetune(
        model.float(), tokenizer, english("train", TEXTS[TOKENS]), objective=OF_TOKENS[method], **how
    )
    dev = english("dev")
    spread = compress.self_normalization(made, tokenizer, dev).iloc[-1]["spread"]
    return {"nats": float(compress.language_model_loss(made, tokenizer, dev)["nats"]), "spread": float(spread)}


def sentences(method: str, seed: int) -> dict[str, float]:
    """Recurrent models of 64 features: the share of 120 sentences of dev that are found among 9 corrupted ones."""
    _, tokenizer = decoder()
    torch.manual_seed(seed)
    if method.startswith("both"):
        model: Any = compress.BiLSTMLanguageModel(compress.BiLSTMConfig(vocab_size=4000, hidden_size=64))
    else:
        config = compress.LSTMConfig(vocab_size=4000, hidden_size=64, num_hidden_layers=1)
        model = compress.LSTMLanguageModel(config)
    text = english("train")
    for objective in OF_SENTENCES[method]:
        how: dict[str, Any] = {"batch_size": BATCH[SENTENCES], "learning_rate": 1e-2, "seed": seed, "progress": False}
        how["steps"] = STEPS[SENTENCES] // len(OF_SENTENCES[method])
        model = compress.finetune(model, tokenizer, text, objective=objective, **how)
    out = {}
    for by in ("words", "order"):
        lists = compress.corrupted_texts(english("dev", 120), by=by)  # type: ignore[arg-type]
        given = {"normalized": "likelihood" in method, "train": text}
        out[by] = float(compress.rescore(model, tokenizer, lists, **given).iloc[-1]["accuracy"])
    return out


def healing(method: str, seed: int) -> dict[str, float]:
    """The bundled encoder pruned and healed on text without labels, its zeros kept: its last states on dev."""
    model, tokenizer = common.bundled()
    text, dev = common.corpus("train").remove_columns("label"), common.corpus("dev")
    ids = set(sorted(set(dev["id"]))[::2])
    dev = dev.filter(lambda row: row["id"] in ids)
    made = compress.prune(model, sparsity=PRUNED)
    if HEALED[method] is not None:
        how: dict[str, Any] = {"learning_rate": 2e-4, "seed": seed, "progress": False, "keep_zeros": True}
        how |= {"steps": STEPS[HEALING], "batch_size": BATCH[HEALING]}
        made = compress.finetune(made, tokenizer, text, objective=HEALED[method], **how)
    reps = probes.capture(made, tokenizer, dev, progress=False)
    last = {"layer": int(reps.layer[-1]), "language": "pooled"}
    out = {name: float(probe(reps, pivot="en", draws=2).value.sel(last)) for name, probe in
           (("retrieval", probes.retrieval), ("alignment gap", probes.alignment_gap))}  # fmt: skip
    out["separability"] = float(probes.class_separability(reps, draws=2).value.sel(last))
    return out | {"accuracy": float(probes.accuracy(reps, draws=2).value.sel(language="pooled"))}


def near_words(method: str, seed: int) -> dict[str, float]:
    """A small recurrent model, from scratch, on few sentences that it reads often: nats a token on dev."""
    model, tokenizer = decoder()
    torch.manual_seed(seed)
    small = compress.LSTMLanguageModel(compress.LSTMConfig(vocab_size=4000, hidden_size=64, num_hidden_layers=1))
    how: dict[str, Any] = {"learning_rate": 1e-2, "seed": seed, "progress": False}
    how |= {"steps": STEPS[WORDS], "batch_size": BATCH[WORDS]}
    if NEAR[method]:
        vectors = model.get_input_embeddings().weight.detach().float().numpy()
        how["replace_words"] = compress.NearestWords(**NEAR[method], vectors=vectors)
    made = compress.finetune(
        small, tokenizer, english("train", TEXTS[WORDS]), objective=compress.LanguageModel(), **how
    )
    return {"nats": float(compress.language_model_loss(made, tokenizer, english("dev"))["nats"])}


def bleu(text: list[int], reference: list[int], longest: int = 4) -> float:
    """BLEU of one text of tokens, 0 to 1, beyond single tokens with one added to both counts (Lin and Och 2004)."""
    if not text or not reference:
        return 0.0
    logs = []
    for n in range(1, longest + 1):
        mine, theirs = (Counter(zip(*(ids[i:] for i in range(n)), strict=False)) for ids in (text, reference))
        found, of = sum((mine & theirs).values()) + (n > 1), sum(mine.values()) + (n > 1)
        logs.append(math.log(found / of) if found else -math.inf)
    return math.exp(sum(logs) / longest + min(0.0, 1 - len(reference) / len(text)))


@dataclass(frozen=True)
class BleuReward(compress.SimilarityReward):
    """`SimilarityReward` with BLEU in the place of the encoder: of the whole text, at its end."""

    def rewards(
        self, texts: Sequence[Sequence[int]], references: Sequence[Sequence[int]], tokenizer: Any, ends: Sequence[int]
    ) -> list[list[float]]:
        own = [[token for token in text if token not in ends] for text in texts]
        return [
            [*[0.0] * (len(text) - 1), bleu(mine, list(reference))]
            for text, mine, reference in zip(texts, own, references, strict=True)
        ]


def reward(method: str, seed: int) -> dict[str, float]:
    """A decoder of half the layers, rewarded for what the whole one writes: before and after, on prompts of dev."""

    def begun(rows: datasets.Dataset) -> datasets.Dataset:
        prompts = [" ".join(text.split()[:4]) for text in rows["text"]]
        return rows.remove_columns("text").add_column("text", prompts)

    model, tokenizer = decoder()
    how: dict[str, Any] = {"seed": seed, "progress": False}
    given = {"train": english("train", 600), "tokenizer": tokenizer, "steps": 60, "learning_rate": 1e-3}
    student = compress.distill(model, layers=3, **given, **how)
    aim = compress.SimilarityReward(common.bundled(), length=12, kl=0.05)
    trains = BleuReward(common.bundled(), length=12, kl=0.05) if method == "BLEU" else aim
    made = compress.finetune(
        student, tokenizer, begun(english("train", PROMPTS)), objective=trains, teacher=model, steps=STEPS[REWARD],
        batch_size=BATCH[REWARD], learning_rate=3e-4, **how,
    )  # fmt: skip
    trained = made.history["similarity_reward.reward"]
    out = {"trained": float(trained.tail(10).mean()), "trained before": float(trained.head(10).mean())}
    for end, one in (("", made), (" before", student)):
        said = compress.continuations(one, tokenizer, begun(english("dev", WRITTEN)), aim, teacher=model)
        for name in ("reward", "word_movers", "sliding_windows", "length"):
            out[name + end] = float(said[name].mean())
    return out


def waves(t: torch.Tensor) -> torch.Tensor:
    """A number in [0, 1] as sines and cosines."""
    return torch.cat([f(torch.pi * k * t[:, None]) for k in range(1, 9) for f in (torch.sin, torch.cos)], dim=1)


class Block(torch.nn.Module):
    """A step of two maps, told of level, guidance and class."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.told = torch.nn.LayerNorm(width), torch.nn.Linear(width, 2 * width)
        self.up, self.down = torch.nn.Linear(width, 2 * width), torch.nn.Linear(2 * width, width)

    def forward(self, state: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
        scale, shift = self.told(told).chunk(2, dim=1)
        after: torch.Tensor = self.down(F.silu(self.up(self.norm(state) * (1 + scale) + shift)))
        return state + after


class Digits(torch.nn.Module):
    """The denoiser of tutorial 12."""

    def __init__(self, width: int, depth: int, classes: int) -> None:
        super().__init__()
        self.classes, self.settings = classes, {"width": width, "depth": depth, "classes": classes}
        self.first, self.last = torch.nn.Linear(64, width), torch.nn.Linear(width, 64)
        self.of_level, self.of_guidance = torch.nn.Linear(16, width), torch.nn.Linear(16, width)
        self.of_label = torch.nn.Embedding(classes + 1, width)
        self.blocks = torch.nn.ModuleList(Block(width) for _ in range(depth))

    def forward(
        self, x: torch.Tensor, level: torch.Tensor, label: torch.Tensor, guidance: torch.Tensor
    ) -> torch.Tensor:
        told = self.of_level(waves(level)) + self.of_guidance(waves(guidance / 2)) + self.of_label(label)
        state = self.first(x)
        for block in self.blocks:
            state = block(state, F.silu(told))
        said: torch.Tensor = self.last(state)
        return said


def diffusion(method: str, seed: int) -> dict[str, float]:
    """The denoiser in 64 steps, and distilled to 4: samples judged by a small classifier, seconds of the processor."""
    pictures, digit = load_digits(return_X_y=True)
    x = (pictures / 8 - 1).astype("float32")
    judge = MLPClassifier((64,), random_state=0, max_iter=60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 60 passes are enough for a judge
        judge.fit(x[:1200], digit[:1200])

    def seen(rows: np.ndarray) -> np.ndarray:
        return np.asarray(np.maximum(rows @ judge.coefs_[0] + judge.intercepts_[0], 0))

    torch.manual_seed(seed)
    how: dict[str, Any] = {"batch_size": 128, "seed": seed, "progress": False}
    teacher = compress.train_denoiser(
        Digits(128, 3, 10), (x, digit), updates=UPDATES["teacher"], learning_rate=2e-3, warmup=0.05, **how
    )
    how |= {"guidance": (0, 2), "learning_rate": 1e-3, "sampler": method}
    student = compress.distill_diffusion(teacher, (x, digit), steps=[64], updates=UPDATES["guidance"], **how)
    for steps in (32, 16, 8, 4):
        given = {"steps": [2 * steps, steps], "updates": UPDATES["halving"]}
        student = compress.distill_diffusion(student, (x, digit), **given, **how)
    wanted = np.arange(1000) % 10
    start = np.random.default_rng(seed).standard_normal((1000, 64))
    out: dict[str, float] = {}
    for weight in (0, 1):
        for name, model, steps in (("teacher 64", teacher, 64), ("teacher 4", teacher, 4), ("student 4", student, 4)):
            begun = time.process_time()
            rows = compress.sample_diffusion(model, start, wanted, steps=steps, guidance=weight)
            out[f"{name}, w={weight}: seconds"] = time.process_time() - begun
            out[f"{name}, w={weight}: accuracy"] = float(judge.score(rows, wanted))
            out[f"{name}, w={weight}: Fréchet"] = float(compress.frechet_distance(seen(rows), seen(x)))
    return out


PARTS = {
    CODES: output_codes,
    GRADIENT: gradient,
    TOKENS: tokens,
    SENTENCES: sentences,
    HEALING: healing,
    WORDS: near_words,
    REWARD: reward,
    DIFFUSION: diffusion,
}


def one_run(part: str, method: str, seed: int) -> dict[str, float]:
    """One run of a part: what it measured, and the seconds of the processor that it took."""
    begun = time.process_time()
    found = PARTS[part](method, seed)
    return found | {"cpu seconds": time.process_time() - begun}
