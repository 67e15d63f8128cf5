"""What the study of a real encoder is of: the corpus, and how each compressed model is made of the original."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd

import compress
import probes

PIVOT, PROMPT = "eng_Latn", "query: "
SEED = 0
TEXTS = 120  # that calibration looks at: English ones, or as many of each language
ENGLISH, EVERY, NONE = "English", "every language", "no text"
NEIGHBOURS = 5  # sentences whose numbers are no further apart are taken for one article


def rows_of_corpus(data: Path, split: str, ids: int | None = None) -> pd.DataFrame:
    """A split of SIB-200, its sentences grouped by article: ids are their numbers in FLORES, where one follows another.

    Args:
        data: the folder with sib200.train.parquet, sib200.dev.parquet and sib200.test.parquet.
        split: one of these.
        ids: so many ids, spread evenly over all; by default all.
    """
    file = data / f"sib200.{split}.parquet"
    if not file.is_file():
        raise SystemExit(
            f"DATA={data}: {file.name} is not there. notebooks/studies/real_encoder.md says where it is from"
        )
    rows = pd.read_parquet(file, columns=["id", "language", "text", "label"]).astype(str)
    number = np.sort(rows["id"].astype(int).unique())
    group = dict(zip(number, np.cumsum(np.diff(number, prepend=number[0]) > NEIGHBOURS), strict=True))
    rows["group"] = rows["id"].astype(int).map(group).map("{:04d}".format)
    if ids is not None:
        kept = number[np.unique(np.linspace(0, len(number) - 1, ids).round().astype(int))]
        rows = rows[rows["id"].astype(int).isin(kept)]
    return rows.reset_index(drop=True)


def corpus_of(data: Path, split: str, ids: int | None = None) -> datasets.Dataset:
    """The same as a corpus."""
    return probes.load_corpus(rows_of_corpus(data, split, ids))


def fed(rows: pd.DataFrame) -> datasets.Dataset:
    """Rows as what the model is fed in training and calibration, where nothing puts the prompt before them."""
    return probes.load_corpus(rows.assign(text=PROMPT + rows["text"]).drop(columns="group").reset_index(drop=True))


def texts_of(data: Path, calibrated: str) -> datasets.Dataset:
    """Texts of the train split for calibration, as the model is fed them: English, or each of a language in turn."""
    rows = rows_of_corpus(data, "train")
    languages = [PIVOT] if calibrated == ENGLISH else sorted(rows["language"].unique())
    ids = np.random.default_rng(SEED).permutation(np.sort(rows["id"].unique()))[:TEXTS]
    which = {one: languages[i % len(languages)] for i, one in enumerate(ids)}
    chosen = rows[rows["language"] == rows["id"].map(which)].sort_values("id")
    return fed(chosen.drop(columns="label"))


# How a compression is made: model, tokenizer, texts to look at (None of those that look at none), strength.
Make = Callable[[Any, Any, datasets.Dataset | None, float], Any]


def _prune(criterion: str) -> Make:
    def make(model: Any, tokenizer: Any, texts: datasets.Dataset | None, strength: float) -> Any:
        looked = {} if texts is None else {"train": texts, "tokenizer": tokenizer}
        return compress.prune(model, sparsity=strength, criterion=criterion, seed=SEED, **looked)

    return make


def _quantize(**how: Any) -> Make:
    def make(model: Any, tokenizer: Any, texts: datasets.Dataset | None, strength: float) -> Any:
        looked = {} if texts is None else {"calibrate": texts, "tokenizer": tokenizer}
        ranges = {"ranges": "least_squares"} if strength <= 2 and how.get("method", "rtn") == "rtn" else {}
        return compress.quantize(model, bits=round(strength), **({"activation_bits": None} | ranges | how | looked))

    return make


def _drop(importance: str) -> Make:
    def make(model: Any, tokenizer: Any, texts: datasets.Dataset | None, strength: float) -> Any:
        looked = {"corpus": texts, "tokenizer": tokenizer}
        return compress.drop_layers(model, round(strength), importance=importance, **looked)

    return make


def _factorize(method: str) -> Make:
    def make(model: Any, tokenizer: Any, texts: datasets.Dataset | None, strength: float) -> Any:
        looked = {} if texts is None else {"calibrate": texts, "tokenizer": tokenizer}
        return compress.factorize(model, budget=strength, method=method, **looked)

    return make


def _fuse(model: Any, tokenizer: Any, texts: datasets.Dataset | None, strength: float) -> Any:
    return compress.fuse(model, share=strength, seed=SEED)


def _deploy(model: Any, tokenizer: Any, texts: datasets.Dataset | None, strength: float) -> Any:
    return compress.quantize(model, bits=round(strength), backend="onnxruntime")


METHODS: dict[str, tuple[str, Make]] = {
    "magnitude": ("pruning", _prune("magnitude")),
    "Wanda": ("pruning", _prune("wanda")),
    "LAMP": ("pruning", _prune("lamp")),
    "SparseGPT": ("pruning", _prune("sparsegpt")),
    "rounding": ("quantisation", _quantize()),
    "rounding, inputs too": ("quantisation", _quantize(activation_bits=8)),
    "rounding, embeddings too": ("quantisation", _quantize(embeddings=True)),
    "GPTQ": ("quantisation", _quantize(method="gptq")),
    "AWQ": ("quantisation", _quantize(method="awq")),
    "onnxruntime": ("quantisation", _deploy),
    "drop by removal": ("fewer layers", _drop("removal")),
    "drop by similarity": ("fewer layers", _drop("similarity")),
    "drop by effect": ("fewer layers", _drop("effect")),
    "SVD": ("factors", _factorize("svd")),
    "SVD by activation": ("factors", _factorize("activation")),
    "fuse": ("fusion", _fuse),
}
VOCABULARY = "vocabulary"  # of a kind of its own: the tokenizer is another one too


def settings() -> list[dict[str, Any]]:
    """All runs without training, what decides most first."""
    first = [
        ("magnitude", 0.5, NONE),
        ("Wanda", 0.5, EVERY),
        ("rounding", 3, NONE),
        ("drop by removal", 4, EVERY),
        ("SVD", 0.5, NONE),
        (VOCABULARY, 1, EVERY),
        ("magnitude", 0.3, NONE),
        ("rounding", 4, NONE),
        ("Wanda", 0.6, EVERY),
        ("magnitude", 0.6, NONE),
        ("drop by removal", 2, EVERY),
        ("rounding", 2, NONE),
        ("rounding, embeddings too", 4, NONE),
        ("SVD", 0.7, NONE),
        ("rounding", 8, NONE),
        ("SparseGPT", 0.5, EVERY),
        ("GPTQ", 3, EVERY),
        ("AWQ", 3, EVERY),
        ("SVD by activation", 0.5, EVERY),
        ("magnitude", 0.7, NONE),
        ("Wanda", 0.7, EVERY),
        ("drop by removal", 6, EVERY),
        (VOCABULARY, 1, ENGLISH),
        ("Wanda", 0.5, ENGLISH),
        ("fuse", 0.25, NONE),
        ("onnxruntime", 8, NONE),
    ]
    then = [
        ("Wanda", 0.6, ENGLISH),
        ("SparseGPT", 0.6, EVERY),
        ("SparseGPT", 0.6, ENGLISH),
        ("GPTQ", 2, EVERY),
        ("GPTQ", 3, ENGLISH),
        ("AWQ", 3, ENGLISH),
        ("rounding, embeddings too", 8, NONE),
        ("rounding, embeddings too", 3, NONE),
        ("rounding, inputs too", 8, NONE),
        ("rounding, inputs too", 4, NONE),
        ("rounding, inputs too", 3, NONE),
        ("drop by similarity", 4, EVERY),
        ("drop by effect", 4, EVERY),
        ("drop by removal", 4, ENGLISH),
        ("SVD by activation", 0.35, EVERY),
        ("SVD", 0.35, NONE),
        ("SVD by activation", 0.5, ENGLISH),
        ("LAMP", 0.5, NONE),
        ("LAMP", 0.6, NONE),
        ("LAMP", 0.7, NONE),
        ("SparseGPT", 0.7, EVERY),
        ("Wanda", 0.3, EVERY),
        ("magnitude", 0.2, NONE),
        ("magnitude", 0.4, NONE),
        ("LAMP", 0.3, NONE),
        ("SparseGPT", 0.3, EVERY),
        ("rounding", 6, NONE),
        ("GPTQ", 4, EVERY),
        ("AWQ", 4, EVERY),
        ("AWQ", 2, EVERY),
        ("fuse", 0.5, NONE),
        ("drop by removal", 1, EVERY),
        ("drop by removal", 3, EVERY),
        ("drop by removal", 5, EVERY),
        ("drop by similarity", 2, EVERY),
        ("drop by similarity", 6, EVERY),
        ("drop by effect", 2, EVERY),
        ("drop by effect", 6, EVERY),
        ("SVD by activation", 0.7, EVERY),
        ("rounding, inputs too", 6, NONE),
        ("rounding, inputs too", 2, NONE),
    ]
    return [{"method": m, "strength": float(s), "text": t} for m, s, t in first + then]


def family_of(method: str) -> str:
    """Which family of compressions a method belongs to."""
    return VOCABULARY if method == VOCABULARY else METHODS[method][0]


def compressed(model: Any, tokenizer: Any, data: Path, method: str, strength: float, text: str) -> tuple[Any, Any]:
    """A compressed copy of the original, and its tokenizer."""
    if method == VOCABULARY:
        rows = pd.concat(
            [rows_of_corpus(data, split).assign(id=lambda x, s=split: s + x["id"]) for split in ("train", "dev")]
        )
        rows = rows[rows["language"] == PIVOT] if text == ENGLISH else rows
        small: tuple[Any, Any] = compress.prune_vocabulary(model, tokenizer, fed(rows))
        return small
    texts = None if text == NONE else texts_of(data, text)
    return METHODS[method][1](model, tokenizer, texts, strength), tokenizer
