"""What the tests of contrastive objectives share: rows, batches and what models gave for them."""

import numpy as np
import torch

from compress.objectives.base import Pass

ROWS, BATCH, TOKENS = 12, 4, 3
LABELS = [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2]
SIZE = 5


def some_rows(labels=LABELS, count=None):
    draw = np.random.default_rng(3)
    rows = []
    for i in range(len(labels) if labels else count):
        ids = draw.integers(4, 20, size=2 + i % 4).tolist()
        rows.append({"input_ids": ids, "token_type_ids": [0] * len(ids), "index": i})
        if labels:
            rows[-1]["labels"] = labels[i]
    return rows


def a_pass(model, seed, count=BATCH, dtype=torch.float64):
    make = torch.Generator().manual_seed(seed)
    layers, width = 1 + model.config.num_hidden_layers, model.config.hidden_size
    states = [torch.randn(count, TOKENS, width, generator=make, dtype=torch.float64) for _ in range(layers)]
    return Pass(model, None, hidden_states=tuple(x.to(dtype) for x in states))


def a_batch(index, memory, name, labels=None):
    mask = torch.ones(len(index), TOKENS, dtype=torch.long)
    mask[0, 2:] = 0
    batch = {"attention_mask": mask, "index": torch.tensor(index), "modules": {name: memory}}
    return batch if labels is None else {**batch, "labels": torch.tensor(labels)}
