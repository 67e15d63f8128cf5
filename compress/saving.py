"""What was done to a model, kept with it: in its configuration, and as `compression.json` beside its weights."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from probes.checkpoint import quiet
from probes.errors import InputError
from probes.files import check_writable


def record(model: PreTrainedModel, what: dict[str, Any], history: pd.DataFrame | None = None) -> PreTrainedModel:
    """Keep with a model what was done to it, and what was logged while it was trained, as `model.history`.

    What was done goes into its configuration, which `save_pretrained` and `from_pretrained` carry along.
    """
    model.config.compression = what
    vars(model)["history"] = history
    return model


def save(model: PreTrainedModel, folder: str | Path, tokenizer: PreTrainedTokenizerBase | None = None) -> Path:
    """Save a compressed model so that plain transformers loads it, with `compression.json` beside it.

    What was logged in training goes to `history.csv`.

    Raises:
        InputError: the folder exists and is not empty, or cannot be written to.
    """
    folder = Path(folder)
    check_new(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}.", dir=folder.parent) as scratch:
        partial = Path(scratch) / folder.name
        with quiet():
            model.save_pretrained(partial)
        if tokenizer is not None:
            tokenizer.save_pretrained(partial)
        what = getattr(model.config, "compression", None)
        if what is not None:
            (partial / "compression.json").write_text(json.dumps(what, indent=2) + "\n", encoding="utf-8")
        history = getattr(model, "history", None)
        if history is not None:
            history.to_csv(partial / "history.csv", index=False)
        if folder.exists():
            folder.rmdir()
        partial.replace(folder)
    return folder


def check_new(folder: Path) -> None:
    """Raise `InputError` where a folder is there already and not empty, or cannot be made; leaves no trace."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not an empty folder; it is left as it is. Choose another one")
    check_writable(folder)
