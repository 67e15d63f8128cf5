"""A model that an objective is given beside student and teacher: itself, with its tokenizer, or by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from probes.models.checkpoint import load_checkpoint


def model_and_tokenizer(given: Any) -> tuple[Any, Any]:
    """Return a model and its tokenizer, None where there is none; what they are is not looked at.

    Args:
        given: a model, a model and its tokenizer, or what `probes.load_checkpoint` takes.

    Example:
        >>> model, tokenizer = model_and_tokenizer("bundled")
        >>> model_and_tokenizer((model, tokenizer))[1] is tokenizer, model_and_tokenizer(model)[1]
        (True, None)
    """
    if isinstance(given, str | Path):
        return load_checkpoint(given)
    if isinstance(given, tuple | list) and len(given) == 2:
        return given[0], given[1]
    return given, None
