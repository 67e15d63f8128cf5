"""Several texts side by side in one row, which neither attend to each other nor count each other's positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from probes.errors import InputError
from probes.models.facts import embedding_rows, name_of
from probes.states.batches import random_batch
from probes.states.running import evaluating

_NO = -1  # the text that padding is of
_PER_TOKEN = ("token_type_ids", "words")


def packed_rows(rows: Sequence[Mapping[str, Any]], limit: int | None) -> list[dict[str, Any]]:
    """Return rows of texts as fewer ones of several texts each, as they come, while they fit.

    Args:
        rows: as `compress.rows.training_rows` gives them.
        limit: tokens of a row at most.

    Returns:
        Rows with `input_ids`, what else there is of each token, `segments`, the number of each
        token's text in its row, and `index`, the number of the row. Labels are left out.

    Raises:
        InputError: there is no limit.

    Example:
        >>> rows = packed_rows([{"input_ids": [5, 6]}, {"input_ids": [7]}, {"input_ids": [8, 9]}], 3)
        >>> [(row["input_ids"], row["segments"]) for row in rows]
        [([5, 6, 7], [0, 0, 1]), ([8, 9], [0, 0])]
    """
    if limit is None:
        raise InputError(
            "packed=True fills rows up, and neither model nor tokenizer says how long they may be: give max_length=..."
        )
    out: list[dict[str, Any]] = []
    for row in rows:
        length = len(row["input_ids"])
        if not out or len(out[-1]["input_ids"]) + length > limit:
            empty: dict[str, Any] = {"input_ids": [], **{key: [] for key in _PER_TOKEN if key in row}}
            out.append(empty | {"segments": [], "index": len(out)})
        last = out[-1]
        begins = len(last["input_ids"])
        number = last["segments"][-1] + 1 if begins else 0
        for key in last:
            if key == "segments":
                last[key] += [number] * length
            elif key == "words":  # a text has no more words than tokens
                last[key] += [word + begins if word >= 0 else word for word in row[key]]
            elif key != "index":
                last[key] += row[key]
    return out


class Apart:
    """What a model is given so that the texts of a row are read as if each stood alone.

    Args:
        model: it is tried with texts of random tokens, apart and in one row.
        forward: whether it predicts the next token.

    Raises:
        InputError: it computes something else for texts in one row.

    Notes:
        A mask of four dimensions, each token those of its own text (and of a model of the next
        token those before it), and positions that begin anew with each text.
    """

    def __init__(self, model: PreTrainedModel, forward: bool) -> None:
        """Find how the model counts its positions."""
        self.forward = forward
        padding = getattr(model.config, "pad_token_id", None)
        padding = -1 if padding is None else padding
        ways: list[int | None] = [0, padding + 1, None]
        batch = random_batch(model, [5, 3])
        ids = batch["input_ids"]  # without padding's token in them, which some models count no position for
        batch["input_ids"] = torch.where(ids == padding, (ids + 1) % embedding_rows(model), ids)
        whole = batch["attention_mask"].bool()
        segments = torch.tensor([[0] * 5 + [1] * 3], device=model.device)
        together = {"input_ids": batch["input_ids"][whole][None], "attention_mask": torch.ones_like(segments)}
        with evaluating(model, model.device), torch.no_grad():
            wanted = model(**batch).logits[whole].float()
            for self.first in ways:
                try:
                    found = model(**self(model, together, segments)).logits[0].float()
                except (TypeError, ValueError, RuntimeError, IndexError):  # it takes no such positions, or no such mask
                    continue
                if torch.allclose(found, wanted, rtol=0, atol=1e-4 * float(wanted.abs().max())):
                    return
        raise InputError(
            f"packed=True: {name_of(model)} ({type(model).__name__}) computes something else for texts that share a "
            "row than for each alone: leave it out"
        )

    def __call__(
        self, model: PreTrainedModel, inputs: Mapping[str, torch.Tensor], segments: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Return the inputs of a batch with the mask and the positions of its texts, of which
        `segments` (batch, token) says which token is of which, -1 for padding.
        """
        sees = segments[:, :, None] == segments[:, None, :]
        place = torch.arange(segments.shape[1], device=segments.device)
        if self.forward:
            sees = sees & (place[:, None] >= place[None, :])
        dtype = model.dtype
        mask = torch.zeros(sees.shape, dtype=dtype, device=segments.device).masked_fill(~sees, torch.finfo(dtype).min)
        out = {**inputs, "attention_mask": mask[:, None]}
        if self.first is not None:
            begins = torch.ones_like(segments, dtype=torch.bool)
            begins[:, 1:] = segments[:, 1:] != segments[:, :-1]
            start = torch.where(begins, place.expand_as(segments), 0).cummax(1).values
            out["position_ids"] = place - start + self.first
        return out
