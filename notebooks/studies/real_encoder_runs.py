"""Runs of the study of a real encoder: how each compressed model is made, and what is measured of it.

A run is a file of settings and costs (.json) beside one of rows (.parquet): value, low and high by probe, layer and
language, with the difference to the original. The rows are written first: where the .json is, the run is whole.
"""

from __future__ import annotations

import io
import json
import time
import traceback
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import common
import datasets
import joblib
import numpy as np
import pandas as pd
import torch
import xarray as xr
from real_encoder_methods import PIVOT, PROMPT, SEED, compressed, corpus_of, family_of, rows_of_corpus
from real_encoder_tables import middle_of
from sklearn.linear_model import LogisticRegression
from tqdm.auto import tqdm

import compress
import probes
from compress.matrices import block_matrices
from probes.corpus import corpus_fingerprint
from probes.files import write_whole
from probes.models.fingerprint import weights_fingerprint
from probes.silence import quiet

FOLDER = common.ROOT / "runs" / "study-real"
ORIGINAL = "original"
DRAWS = 100
SAME = 1e-3  # of the largest state: what machines and batches differ by is less
TOLERANCE = {"retrieval": 0.02, "accuracy": 0.02}
# What is measured at every layer in every language, and at the output.
ALONE = ["class_separability", "variability", "snr", "retrieval", "alignment_gap", "accuracy"]
BESIDE = ["drift", "cka", "loyalty"]  # the original
HOW: dict[str, Any] = {"prompt": PROMPT, "batch_tokens": 1024, "progress": False}


class Study(NamedTuple):
    """What all runs share."""

    model: Any
    tokenizer: Any
    test: datasets.Dataset
    states: xr.Dataset  # what the original makes of the test split, with the head's logits
    head: tuple[np.ndarray, np.ndarray, list[str]]  # weights (feature, class), biases (class,), names
    comparison: probes.Comparison  # of the original alone


def head_of(model: Any, tokenizer: Any, data: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """A linear head for the topics, on the original's pooled last states of English text; never trained again.

    Its regularisation is chosen on the English dev split.
    """
    x, y = {}, {}
    for split in ("train", "dev"):
        rows = rows_of_corpus(data, split)
        english = rows[rows["language"] == PIVOT].reset_index(drop=True)
        reps = probes.capture(model, tokenizer, probes.load_corpus(english), **HOW)
        x[split], y[split] = reps.hidden.values[-1].astype(np.float64), reps.label.values.astype(str)
    middle, spread = x["train"].mean(0), x["train"].std(0)
    fits = [
        LogisticRegression(C=c, max_iter=2000).fit((x["train"] - middle) / spread, y["train"])
        for c in (0.001, 0.01, 0.1, 1.0)
    ]
    best = max(fits, key=lambda fit: float(fit.score((x["dev"] - middle) / spread, y["dev"])))
    weights = best.coef_.T / spread[:, None]
    return weights, best.intercept_ - middle @ weights, [str(name) for name in best.classes_]


def with_head(reps: xr.Dataset, head: tuple[np.ndarray, np.ndarray, list[str]]) -> xr.Dataset:
    """States with what the head says of the last ones."""
    weights, biases, names = head
    logits = reps.hidden.values[-1].astype(np.float64) @ weights + biases
    return reps.assign(logits=(("example", "class"), logits.astype(np.float32))).assign_coords({"class": names})


def fingerprints(source: Any, test: datasets.Dataset) -> dict[str, Any]:
    """By what one knows which encoder and which corpus runs are of."""
    return {"weights": weights_fingerprint(source), "corpus": corpus_fingerprint(test)}


def prepared(model: Path, data: Path, ids: int | None = None) -> dict[str, Any]:
    """Measure the original, once, and say what all runs are of; refuse another model or corpus in the same folder."""
    kept = FOLDER / ORIGINAL
    source, tokenizer = probes.load_checkpoint(model)
    test = corpus_of(data, "test", ids)
    own = fingerprints(source, test)
    file = kept / "about.json"
    if file.exists():
        about: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if other := [name for name, value in own.items() if about[name] != value]:
            raise SystemExit(
                f"{FOLDER} holds runs of other {' and '.join(other)}. Move them away, or give what they are of"
            )
        still_the_same(source, tokenizer, test, kept)
        return about
    kept.mkdir(parents=True, exist_ok=True)
    weights, biases, names = head_of(source, tokenizer, data)
    np.savez(kept / "head.npz", weights=weights, biases=biases, names=names)
    begun = time.process_time()
    reps = probes.capture(source, tokenizer, test, store=kept / "states.zarr", **HOW).load()
    captured = time.process_time() - begun
    found = probes.compare(
        {ORIGINAL: with_head(reps, (weights, biases, names))},
        pivot=PIVOT,
        probes=ALONE,
        draws=DRAWS,
        seed=SEED,
        progress=False,
    )
    found.save(kept / "comparison", overwrite=True)
    (kept / "rows.parquet").write_bytes(rows_of(found, ORIGINAL))
    fertility = pd.Series([len(x) for x in tokenizer(list(test["text"]), add_special_tokens=False)["input_ids"]])
    tokens = fertility.groupby(pd.Series(test["language"])).sum()
    about = own | {
        "ids": len(set(test["id"])),
        "groups": len(set(test["group"])),
        "sentences": len(test),
        "layers": int(reps.layer[-1]),
        "features": reps.sizes["feature"],
        "tokens": {str(k): int(v) for k, v in tokens.items()},
        "vocabulary": len(tokenizer),
        "coarse": on_a_grid(source),
        "zeros": zeros(source),
        "seconds": {"capture": captured, "measure": time.process_time() - begun - captured},
        "cost": compress.footprint(source).loc["model"].to_dict(),
    }
    write_whole(file, json.dumps(about, indent=1) + "\n")
    return about


def still_the_same(source: Any, tokenizer: Any, test: datasets.Dataset, kept: Path) -> None:
    """Refuse to go on where this version makes other states of the original than those that all runs are held to."""
    few = test.select(range(0, len(test), max(1, len(test) // 8)))
    now = probes.capture(source, tokenizer, few, **HOW)
    there = probes.open_representations(kept / "states.zarr")
    places = pd.MultiIndex.from_arrays([there.id.values, there.language.values])
    rows = places.get_indexer(pd.MultiIndex.from_arrays([now.id.values, now.language.values]))
    apart = float(np.abs(there.hidden.values[:, rows] - now.hidden.values).max())
    if not apart < SAME * float(np.abs(now.hidden.values).max()):
        raise SystemExit(
            f"{kept}: states of the original are off by {apart:.2g} from what this version gives, so that its runs "
            f"would be held to others. Move {FOLDER} away, and all are made again"
        )


def zeros(model: Any) -> float:
    """The share of the weights in the blocks that are zero as the model is given."""
    matrices = block_matrices(model).values()
    return float(sum(int((m == 0).sum()) for m in matrices) / sum(m.numel() for m in matrices))


def on_a_grid(model: Any) -> bool:
    """Whether weights of the blocks were rounded to 4 bits already: at most 16 values in each 32 inputs of a unit."""
    matrix = next(iter(block_matrices(model).values()))
    blocks = matrix.detach().numpy()[:, : matrix.shape[1] // 32 * 32].reshape(-1, 32)[:500]
    return bool(max(len(np.unique(block)) for block in blocks) <= 16)


@cache
def study(model: Path, data: Path, ids: int | None) -> Study:
    """What all runs of a process share, read once."""
    kept = FOLDER / ORIGINAL
    source, tokenizer = probes.load_checkpoint(model)
    test = corpus_of(data, "test", ids)
    with np.load(kept / "head.npz") as saved:
        head = saved["weights"], saved["biases"], [str(name) for name in saved["names"]]
    states = with_head(probes.open_representations(kept / "states.zarr").load(), head)
    comparison = probes.Comparison.open(kept / "comparison")
    comparison.representations = {ORIGINAL: states}
    comparison.provenance["asked"]["probes"] = [*ALONE, *BESIDE]  # of what is added, too
    return Study(source, tokenizer, test, states, head, comparison)


def geometry_of(reps: xr.Dataset, draws: int | None = None) -> pd.DataFrame:
    """Rows of how states fill the space, in the middle and at the end alone: it takes longest of all."""
    end = int(reps.layer[-1])
    found = probes.geometry(reps.sel(layer=sorted({middle_of(end), end})), draws=draws or DRAWS, seed=SEED)
    index = pd.MultiIndex.from_product([found[d].values for d in ("measure", "layer", "language")])
    dims = ("measure", "layer", "language")
    table = pd.DataFrame({c: found[c].transpose(*dims).values.ravel() for c in ("value", "low", "high")}, index=index)
    drawn = found["draws"].transpose(*dims, "draw").values.reshape(len(table), -1).astype(np.float32)
    return table.assign(draws=list(drawn)).rename_axis(["probe", "layer", "language"]).reset_index()


def beside_own(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of a model where of maps of layers by layers each layer stands with the one beside it alone."""
    if "other_layer" not in rows:
        return rows
    beside = rows["baseline_layer"] if "baseline_layer" in rows else rows["layer"]
    return rows[(rows["other_layer"] == -1) | (rows["other_layer"] == beside)].drop(columns="other_layer")


def rows_of(comparison: probes.Comparison, name: str) -> bytes:
    """The rows of a model as a parquet file, with the draws of those in its middle and at its end."""
    table = comparison.table
    draws = pd.Series(list(comparison.draws["draws"].values.astype(np.float32)), index=comparison.draws["row"].values)
    own = table[table["model"] == name].drop(columns="model")
    last = (own["layer"] == -1) | (own["layer"] == own["layer"].max())
    drawn = last | (own["layer"] == middle_of(int(own["layer"].max())))
    own = beside_own(own.assign(draws=draws.reindex(own.index).where(drawn)))
    if name != ORIGINAL:
        said = comparison.verdict(judge=list(TOLERANCE), tolerance=TOLERANCE).languages
        said = said[["probe", "language", "state", "low", "high"]].rename(
            columns={"low": "state_low", "high": "state_high"}
        )
        at_end = own[last.reindex(own.index)].merge(said, on=["probe", "language"], how="left")
        own = pd.concat([own[~last.reindex(own.index)], at_end], ignore_index=True)
    own = pd.concat([own, geometry_of(comparison.representations[name])], ignore_index=True)
    file = io.BytesIO()
    own.to_parquet(file, index=False)
    return file.getvalue()


def one_run(method: str, strength: float, text: str, *, model: Path, data: Path, ids: int | None) -> dict[str, Any]:
    """Compress the original, see what it makes of the test split, and measure that at every layer in every language."""
    given, spent = study(model, data, ids), [time.process_time()]
    torch.manual_seed(SEED)
    small, tokenizer = compressed(given.model, given.tokenizer, data, method, strength, text)
    spent.append(time.process_time())
    reps = with_head(probes.capture(small, tokenizer, given.test, **HOW), given.head)
    spent.append(time.process_time())
    name = f"{method} {strength:g} {text}"
    measured = given.comparison.add(name, reps, progress=False)
    setting = {"method": method, "strength": strength, "text": text}
    common.file_of(FOLDER, setting).with_suffix(".parquet").write_bytes(rows_of(measured, name))
    spent.append(time.process_time())
    cost = compress.footprint(given.model, small)
    out: dict[str, Any] = {
        "family": family_of(method),
        "weights": weights_fingerprint(small) if isinstance(small, torch.nn.Module) else "",
    }
    for column in ("parameters", "nonzero", "bytes", "stored_bytes", "operations", "seconds_1", "seconds_32"):
        out |= {column: float(cost.loc["smaller", column]), f"{column} before": float(cost.loc["model", column])}
    out["stored_as"] = str(cost.loc["smaller", "stored_as"])
    spent.append(time.process_time())
    for what, seconds in zip(("making", "capture", "measuring", "costs"), np.diff(spent), strict=True):
        out[f"cpu {what}"] = round(float(seconds), 1)
    return out


def made(
    run: Callable[..., dict[str, Any]],
    settings: list[dict[str, Any]],
    folder: Path,
    name: str,
    workers: int,
    after: Callable[[], Any] | None = None,
) -> list[str]:
    """Make the runs that are not there yet, in their order, and return what was said of those that failed.

    Each is kept as soon as it is whole, and one that fails stops no other; `after` is called after each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [(s, f) for s in settings if not (f := common.file_of(folder, s)).exists()]
    jobs = joblib.Parallel(n_jobs=workers, return_as="generator_unordered")(
        joblib.delayed(_kept)(run, *m) for m in missing
    )
    failed = []
    for said in tqdm(jobs, total=len(missing), desc=name, unit="run"):
        failed += [said] if said else []
        if after is not None:
            after()
    return failed


def _kept(run: Callable[..., dict[str, Any]], setting: dict[str, Any], file: Path) -> str:
    torch.set_num_threads(1)  # a core each
    try:
        with quiet():
            found = run(**setting)
    except Exception:
        return f"{file.stem}: {traceback.format_exc(limit=-1)}"
    write_whole(file, json.dumps({**setting, **found}) + "\n")
    return ""


def making(model: Path, data: Path, ids: int | None = None) -> Callable[..., dict[str, Any]]:
    """What makes a run of its settings."""
    return partial(one_run, model=model, data=data, ids=ids)
