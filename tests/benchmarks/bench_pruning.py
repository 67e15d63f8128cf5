"""What pruning adds to a step of training on the bundled model: masks that grow, and masks that are put on again.

python tests/benchmarks/bench_pruning.py [rounds]
"""

import sys

import torch
from common import interleaved

import probes
from compress.criteria import scores
from compress.matrices import block_matrices
from compress.prune import _Masks
from compress.training import collate, training_rows

rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
model, tokenizer = probes.load_checkpoint("bundled")
corpus = probes.load_corpus("bundled", split="train", languages=["en"])
rows, _ = training_rows(corpus, model, tokenizer)
batch = collate(tokenizer, rows[:32])
labels = batch.pop("labels")
optimiser = torch.optim.AdamW(model.train().parameters(), lr=1e-5)
matrices = block_matrices(model)


def step() -> None:
    loss = torch.nn.functional.cross_entropy(model(**batch).logits, labels)
    loss.backward()
    optimiser.step()
    optimiser.zero_grad()


tasks = {"a step of training, 32 texts": step}
for criterion in ("magnitude", "lamp"):
    masks = _Masks(model, matrices, "matrix" if criterion == "magnitude" else "global")
    masks.grow(scores(model, matrices, criterion), 0.5)
    tasks[f"masks grow, {criterion}"] = lambda c=criterion, m=masks: m.grow(scores(model, matrices, c), 0.6)
tasks["masks are put on again"] = masks.apply
seconds = interleaved(tasks, rounds)
whole = seconds["a step of training, 32 texts"]
print(f"\n{'bundled model, ' + str(torch.get_num_threads()) + ' threads':34}{'ms':>9}{'to a step':>11}")
for name, t in seconds.items():
    print(f"{name:34}{1000 * t:9.2f}{t / whole:11.3f}")
