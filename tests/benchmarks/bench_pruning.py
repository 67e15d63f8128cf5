"""What pruning adds to a step of training on the bundled model: masks that grow, and masks that are put on again.

python tests/benchmarks/bench_pruning.py [rounds]
"""

import sys
from collections.abc import Callable

import torch
from common import interleaved

import probes
from compress.matrices import block_matrices
from compress.pruning.criteria import scores
from compress.pruning.prune import Masks
from compress.rows import collate, training_rows

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


tasks: dict[str, Callable[[], object]] = {"step": step}
pairs = [
    ("magnitude", "matrix"),
    ("magnitude", "global"),
    ("lamp", "global"),
    ("random", "matrix"),
    ("magnitude", "unit"),
]
for criterion, scope in pairs:
    # From half to 0.6, on weights of their own, so that every round finds the same.
    own = {name: torch.nn.Parameter(w.detach().clone()) for name, w in matrices.items()}
    masks = Masks(model, own, scope)
    masks.grow(scores(model, own, criterion), 0.5)
    half = masks.kept

    def grow(masks: Masks = masks, half: dict[str, torch.Tensor] = half, criterion: str = criterion) -> None:
        masks.kept = half
        masks.grow(scores(model, masks.matrices, criterion), 0.6)

    tasks[f"{criterion}, {scope}: grow"] = grow
    tasks[f"{criterion}, {scope}: apply"] = masks.apply
seconds = interleaved(tasks, rounds)
whole = seconds["step"]
print(f"\nbundled model, {torch.get_num_threads()} threads; a step of training on 32 texts takes {1000 * whole:.1f} ms")
print(f"{'':20}{'masks grow':>12}{'of a step':>11}{'put on again':>14}{'of a step':>11}")
for criterion, scope in pairs:
    grown, applied = (seconds[f"{criterion}, {scope}: {what}"] for what in ("grow", "apply"))
    print(
        f"{criterion + ', ' + scope:20}{1000 * grown:9.2f} ms{grown / whole:11.1%}{1000 * applied:11.2f} ms"
        f"{applied / whole:11.1%}"
    )
