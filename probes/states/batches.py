"""Rows of token ids side by side, as tensors: texts of a corpus, or random ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from probes.models.facts import embedding_rows
from probes.models.formats.onnx_model import OnnxModel
from probes.states.tokens import Padding, pads_left


def random_batch(model: PreTrainedModel | OnnxModel, lengths: Sequence[int], seed: int = 0) -> dict[str, torch.Tensor]:
    """Return a batch of texts of random tokens, of these lengths, on the model's device.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> random_batch(model, [3, 2])["attention_mask"].tolist()
        [[1, 1, 1], [1, 1, 0]]
    """
    count, generator = embedding_rows(model), torch.Generator().manual_seed(seed)
    rows = [torch.randint(0, count, (length,), generator=generator).tolist() for length in lengths]
    end = getattr(model.config, "eos_token_id", None)
    if isinstance(end, int) and 0 <= end < count:  # where heads of encoder-decoders look: once, in the end
        rows = [[(end + 1) % count if token == end else token for token in row[:-1]] + [end] for row in rows]
    token = getattr(model.config, "pad_token_id", None)
    padding = Padding(0 if token is None or token < 0 else token, pads_left(model))
    return {k: v.to(model.device) for k, v in collate(padding, [{"input_ids": row} for row in rows]).items()}


def collate(padding: Padding, batch: Sequence[Mapping[str, Any]], indexed: bool = False) -> dict[str, torch.Tensor]:
    """Pad the rows of a batch to one width, as `padding_of` says; `indexed`, with their numbers.

    What lies `beside` a text in its row is left out.

    Example:
        >>> batch = collate(Padding(0, left=False), [{"input_ids": [5, 6]}, {"input_ids": [7]}])
        >>> batch["attention_mask"].tolist()
        [[1, 1], [1, 0]]
    """
    width = max(len(row["input_ids"]) for row in batch)

    def filled(values: Sequence[int], fill: int) -> list[int]:
        rest = [fill] * (width - len(values))
        return [*rest, *values] if padding.left else [*values, *rest]

    fill = {"input_ids": padding.token, "targets": -100, "tags": -100}  # of no token
    fill |= {"words": -1, "segments": -1}  # of no word, of no text
    keys = [key for key in batch[0] if key not in ("labels", "index", "beside")]
    out = {key: torch.tensor([filled(row[key], fill.get(key, 0)) for row in batch]) for key in keys}
    out["attention_mask"] = torch.tensor([filled([1] * len(row["input_ids"]), 0) for row in batch])
    if "tags" in out:
        out["labels"] = out.pop("tags")
    for key in ("labels", "index"):
        if key in batch[0] and (indexed or key != "index"):
            out[key] = torch.tensor([row[key] for row in batch])
    return out
