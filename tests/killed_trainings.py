"""The trainings that are killed at every change of the file system: see `kills`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import conftest
import sklearn.cluster  # codebooks import it late, and the import draws from Python's random numbers
import sklearn.metrics  # noqa: F401
import torch
from trained import QUIET, make_corpus
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_checkpoint_conversion_mapping

import compress
from compress.training.checkpoints import MARKER, files_of
from probes.files import locked

SHORT = {**QUIET, "steps": 6, "save_every": 2}
get_checkpoint_conversion_mapping("bert")  # is made once, for longer than a training takes here
_make_tokenizer = conftest.make_tokenizer.__wrapped__
_tiny_models = conftest.tiny_models.__wrapped__


def by_magnitude(folder: Path) -> str:
    return _ended(folder, compress.prune(_model(), sparsity=0.6, schedule="cubic", prunings=3, **_training(folder)))


def by_movement(folder: Path) -> str:
    options = {"sparsity": 0.6, "criterion": "movement", "schedule": "cubic", "prunings": 3}
    return _ended(folder, compress.prune(_model(), **options, **_training(folder)))


def with_a_bank(folder: Path) -> str:
    objective = [compress.CrossEntropy(), compress.CRD()]
    return _ended(folder, compress.distill(_model(), layers=1, objective=objective, **_training(folder)))


def with_ranges(folder: Path) -> str:
    options = {"bits": 4, "activation_bits": 8, "calibrate": make_corpus(), "noise": 0.3}
    return _ended(folder, compress.quantize(_model(), **options, **_training(folder)))


def with_codebooks(folder: Path) -> str:
    return _ended(folder, compress.product_quantize(_model(), codes=4, block=4, **_training(folder)))


def by_fusion(folder: Path) -> str:
    options = {"share": 0.75, "schedule": "uniform", "fusions": 3}
    return _ended(folder, compress.fuse(_model(), **options, **_training(folder)))


def with_dropped_gradients(folder: Path) -> str:
    return _ended(
        folder, compress.finetune(_model(), gradients=compress.GradDrop(0.5, strict=True), **_training(folder))
    )


def with_the_best_step(folder: Path) -> str:
    return _ended(folder, compress.finetune(_model(), best="accuracy", looks=3, **_training(folder)))


def with_adversaries(folder: Path) -> str:
    ratios = compress.Robust(compress.CrossEntropy(), method="rp-dro", temperature=0.5)
    generated = compress.Robust(compress.CrossEntropy(), method="p-dro", fitted=2, name="generated")
    grouped = compress.Robust(compress.CrossEntropy(), method="group-dro", groups="label", name="grouped")
    given = _training(folder) | {"objective": [ratios, generated, grouped], "balanced": "label"}
    dev = given["train"].filter(lambda row: row["split"] == "dev")
    kept = compress.training.MinmaxValidation(ratios, given["tokenizer"], dev, every=2)
    return _ended(folder, compress.finetune(_model(), callbacks=[kept], **given))


def _model() -> PreTrainedModel:
    dropped = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    model = _tiny_models(_make_tokenizer())("BertForSequenceClassification", **dropped)
    model.config.id2label = {0: "x", 1: "y", 2: "z"}
    return model


def _training(folder: Path) -> dict[str, Any]:
    return {"train": make_corpus(), "tokenizer": _make_tokenizer()(), "folder": folder / "training", **SHORT}


def _ended(folder: Path, model: PreTrainedModel) -> str:
    """What came out of a training, to the byte: weights, history, record, and all files that lie there."""
    text = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        text.update(name.encode() + tensor.detach().contiguous().view(torch.uint8).numpy().tobytes())
    text.update(model.history.to_json().encode())
    text.update(json.dumps(model.config.compression, sort_keys=True).encode())
    with locked(folder / "training"):  # which another process may have by now
        files = {str(path.relative_to(folder)) for path in folder.rglob("*")} - {"training.layerscope-lock"}
        whole = {path.name: files_of(path) for path in sorted((folder / "training").glob("checkpoint-*"))}
    kept = {f"training/{name}/{file}" for name, found in whole.items() for file in (*found, MARKER)}
    assert len(whole) == 2
    assert files - kept == {"training", "training/training.json", *(f"training/{name}" for name in whole)}
    return json.dumps({"model": text.hexdigest(), "checkpoints": whole}, sort_keys=True)
