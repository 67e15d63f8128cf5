"""A second computation of the study of a real encoder: headline numbers again from raw states, by NumPy alone.

    python notebooks/studies/real_encoder_check.py --model FOLDER --data FOLDER
    python notebooks/studies/real_encoder_check.py --model FOLDER --data FOLDER --languages swh_Latn,kor_Hang

The original and one pruned copy are run by plain transformers, text by text in batches of its own, with masked means of
its own; retrieval, accuracy of the kept head, and the cosine to the original are counted here from the definition, and
held to what the run of the study kept.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import AutoModel, AutoTokenizer

FOLDER = Path(__file__).parents[2] / "runs" / "study-real"
PIVOT, PROMPT = "eng_Latn", "query: "
ALIKE = 0.005  # one sentence of 204 may lie on the other side of a tie
RUN: dict[str, Any] = {"method": "magnitude", "strength": 0.5, "text": "no text"}


@torch.inference_mode()
def last_states(model: Any, tokenizer: Any, texts: list[str]) -> np.ndarray:
    """The mean of each text's last states over its tokens and the prompt's, as the encoder was trained: not over the
    first and last token, which are special.
    """
    out = np.zeros((len(texts), model.config.hidden_size))
    order = np.argsort([len(t) for t in texts], kind="stable")
    for at in np.array_split(order, max(1, len(texts) // 16)):
        inputs = tokenizer(
            [PROMPT + texts[i] for i in at], padding=True, truncation=True, max_length=512, return_tensors="pt"
        )
        states = model(**inputs).last_hidden_state.double().numpy()
        for i, state, mask in zip(at, states, inputs["attention_mask"].numpy(), strict=True):
            out[i] = state[1 : mask.sum() - 1].mean(axis=0)
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
            flat = weights.reshape(-1)
            smallest = np.lexsort((-np.arange(flat.size), np.abs(flat)))[:count]  # of equal ones the last
            flat[smallest] = 0
            changed += 1
    return changed


def retrieval(x: np.ndarray, rows: pd.DataFrame, language: str) -> float:
    """How often the nearest sentence by cosine is the translation, to the pivot and from it, the mean of both ways."""
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    sides = [rows[rows["language"] == code].sort_values("id") for code in (language, PIVOT)]
    cosine = unit[sides[0].index] @ unit[sides[1].index].T
    right = np.arange(len(cosine))
    return float(((cosine.argmax(1) == right).mean() + (cosine.argmax(0) == right).mean()) / 2)


def numbers(x: np.ndarray, base: np.ndarray, rows: pd.DataFrame, head: Any) -> dict[tuple[str, str], float]:
    """The three by language, and of all languages together: (measure, language) -> value."""
    said = head["names"][(x @ head["weights"] + head["biases"]).argmax(1)]
    right = said == rows["label"].to_numpy()
    cosine = (x * base).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(base, axis=1)
    out = {}
    for language in rows["language"].unique():
        own = (rows["language"] == language).to_numpy()
        out["accuracy", language] = float(right[own].mean())
        out["cosine_to_baseline", language] = float(cosine[own].mean())
        if language != PIVOT:
            out["retrieval", language] = retrieval(x, rows, language)
    found = [value for (what, _), value in out.items() if what == "retrieval"]
    together = {"retrieval": np.mean(found), "accuracy": right.mean(), "cosine_to_baseline": cosine.mean()}
    return out | {(what, "pooled"): float(value) for what, value in together.items()}


def kept(run: str) -> dict[tuple[str, str], float]:
    """What the study kept of a run at its end."""
    rows = pd.read_parquet(FOLDER / f"{run}.parquet" if run != "original" else FOLDER / "original" / "rows.parquet")
    rows = rows[(rows["layer"] == rows["layer"].max()) | (rows["layer"] == -1)]
    return rows.set_index(["probe", "language"])["value"].to_dict()


def main() -> int:
    """Compute again, print side by side, and say by the exit status whether all agree."""
    given = sys.argv[1:]
    model, data = (Path(given[given.index(name) + 1]) for name in ("--model", "--data"))
    rows = pd.read_parquet(data / "sib200.test.parquet").astype(str)
    some = given[given.index("--languages") + 1].split(",") if "--languages" in given[:-1] else None
    if some is not None:
        rows = rows[rows["language"].isin([PIVOT, *some])]
    rows = rows.reset_index(drop=True)
    torch.set_num_threads(1)
    source, tokenizer = AutoModel.from_pretrained(model).eval(), AutoTokenizer.from_pretrained(model)
    texts, run = list(rows["text"]), "-".join(str(v) for v in RUN.values())
    with np.load(FOLDER / "original" / "head.npz") as saved:
        head = {name: saved[name] for name in ("weights", "biases", "names")}
    base = last_states(source, tokenizer, texts)
    found = {"original": numbers(base, base, rows, head)}
    pruned(source, RUN["strength"])
    found[run] = numbers(last_states(source, tokenizer, texts), base, rows, head)
    worst = 0.0
    for name, own in found.items():
        there = kept(name)
        for what, value in own.items():
            if what in there and not (some is not None and what[1] == "pooled"):
                worst = max(worst, abs(value - there[what]))
                print(f"{name}, {', '.join(what)}: here {value:.5f}, kept {there[what]:.5f}")
    print(f"largest difference {worst:.5f}")
    return int(not worst < ALIKE)


if __name__ == "__main__":
    sys.exit(main())
