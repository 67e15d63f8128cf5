"""A second computation of the study of a real encoder: headline numbers again from raw states, by NumPy alone.

    python notebooks/studies/real_encoder_check.py --model FOLDER --data FOLDER

The original and one pruned copy are run by plain transformers, text by text in batches of its own, with masked means of
its own; retrieval, accuracy of the kept head, and the cosine to the original are counted here from the definition, and
held to what the run of the study kept.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import AutoModel, AutoTokenizer

FOLDER = Path(__file__).parents[2] / "runs" / "study-real"
PIVOT, PROMPT = "eng_Latn", "query: "
RUN: dict[str, Any] = {"method": "magnitude", "strength": 0.5, "text": "no text"}


@torch.inference_mode()
def last_states(model: Any, tokenizer: Any, texts: list[str]) -> np.ndarray:
    """The mean of each text's last states over its own tokens: not the prompt, not the first and last special token.

    The space after the prompt is the beginning of a text's first word.
    """
    prompt = len(tokenizer(PROMPT.strip(), add_special_tokens=False)["input_ids"])
    out = np.zeros((len(texts), model.config.hidden_size))
    order = np.argsort([len(t) for t in texts], kind="stable")
    for at in np.array_split(order, max(1, len(texts) // 16)):
        inputs = tokenizer(
            [PROMPT + texts[i] for i in at], padding=True, truncation=True, max_length=512, return_tensors="pt"
        )
        states = model(**inputs).last_hidden_state.double().numpy()
        for i, state, mask in zip(at, states, inputs["attention_mask"].numpy(), strict=True):
            out[i] = state[1 + prompt : mask.sum() - 1].mean(axis=0)
    return out


def pruned(model: Any, share: float) -> int:
    """Set the smallest weights of each matrix of the blocks to zero, in place, and say of how many matrices.

    One that has more zeros already stays as it is.
    """
    changed = 0
    for name, parameter in model.named_parameters():
        if ".layer." not in name or parameter.ndim != 2:
            continue
        weights = parameter.detach().numpy()
        count = round(share * weights.size)
        if (weights == 0).sum() <= count:
            smallest = np.argsort(np.abs(weights).ravel(), kind="stable")[:count]
            weights.reshape(-1)[smallest] = 0
            changed += 1
    return changed


def retrieval(x: np.ndarray, rows: pd.DataFrame, language: str) -> float:
    """How often the nearest sentence by cosine is the translation, to the pivot and from it, the mean of both ways."""
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    sides = [rows[rows["language"] == code].sort_values("id") for code in (language, PIVOT)]
    cosine = unit[sides[0].index] @ unit[sides[1].index].T
    right = np.arange(len(cosine))
    return float(((cosine.argmax(1) == right).mean() + (cosine.argmax(0) == right).mean()) / 2)


def numbers(x: np.ndarray, base: np.ndarray, rows: pd.DataFrame, head: Any) -> dict[str, float]:
    """The three, all languages together."""
    others = [c for c in rows["language"].unique() if c != PIVOT]
    said = head["names"][(x @ head["weights"] + head["biases"]).argmax(1)]
    cosine = (x * base).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(base, axis=1)
    return {
        "retrieval": float(np.mean([retrieval(x, rows, c) for c in others])),
        "accuracy": float((said == rows["label"].to_numpy()).mean()),
        "cosine_to_baseline": float(cosine.mean()),
    }


def kept(run: str) -> dict[str, float]:
    """What the study kept of a run, all languages together, at its end."""
    rows = pd.read_parquet(FOLDER / f"{run}.parquet" if run != "original" else FOLDER / "original" / "rows.parquet")
    rows = rows[(rows["language"] == "pooled") & ((rows["layer"] == rows["layer"].max()) | (rows["layer"] == -1))]
    return rows.set_index("probe")["value"].to_dict()


def main() -> int:
    """Compute again, print side by side, and say by the exit status whether all agree."""
    given = sys.argv[1:]
    model, data = (Path(given[given.index(name) + 1]) for name in ("--model", "--data"))
    rows = pd.read_parquet(data / "sib200.test.parquet").astype(str).reset_index(drop=True)
    about = json.loads((FOLDER / "original" / "about.json").read_text(encoding="utf-8"))
    if about["sentences"] != len(rows):
        raise SystemExit(f"the study is of {about['sentences']} sentences, {data} has {len(rows)}")
    torch.set_num_threads(1)
    source, tokenizer = AutoModel.from_pretrained(model).eval(), AutoTokenizer.from_pretrained(model)
    with np.load(FOLDER / "original" / "head.npz") as head:
        base = last_states(source, tokenizer, list(rows["text"]))
        found = {"original": numbers(base, base, rows, head)}
        pruned(source, RUN["strength"])
        run = "-".join(str(v) for v in RUN.values())
        found[run] = numbers(last_states(source, tokenizer, list(rows["text"])), base, rows, head)
    worst = 0.0
    for name, own in found.items():
        there = kept(name)
        for what, value in own.items():
            if what in there:
                worst = max(worst, abs(value - there[what]))
                print(f"{name}, {what}: here {value:.5f}, kept {there[what]:.5f}")
    print(f"largest difference {worst:.5f}")
    return int(worst > 2e-3)


if __name__ == "__main__":
    sys.exit(main())
