"""What a step of distillation takes on the bundled model, next to the teacher's forward pass and a step without it.

The ratio is a step over the sum of these two: 1 would be objectives that cost nothing. The student has 2 of the
teacher's 6 layers, "narrower" also 96 of its 128 features, and so learned maps. All on the same batches, in turns.

python tests/benchmarks/bench_distillation.py [rounds]
"""

import copy
import sys
import time
from collections.abc import Sequence
from functools import partial
from statistics import median
from typing import Any

import torch
from common import interleaved
from transformers import PreTrainedModel, TrainerCallback

import probes
from compress.distillation.distill import distill
from compress.objectives.labels import CrossEntropy, SoftLabels
from compress.objectives.layers import AttentionOutputs, HiddenStates
from compress.objectives.texts import CrossCorrelation, Relational
from compress.training.loop import train

STEPS, SKIPPED = 12, 2
rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
teacher, tokenizer = probes.load_checkpoint("bundled")
corpus = probes.load_corpus("bundled", split="train", languages=["en"])
batches: list[dict[str, torch.Tensor]] = []
taken: dict[str, list[float]] = {}


class Clock(TrainerCallback):
    def __init__(self, name: str) -> None:
        self.name = name

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step > SKIPPED:
            taken.setdefault(self.name, []).append(time.perf_counter() - self.started)


def steps(name: str, student: PreTrainedModel, objective: Sequence[Any]) -> None:
    settings = {"steps": STEPS, "teacher": teacher, "progress": False, "callbacks": [Clock(name)]}
    train(copy.deepcopy(student), tokenizer, corpus, objective=objective, **settings)


class Sees(CrossEntropy):
    """Keeps the batches of a training."""

    def __call__(self, student: Any, teacher: Any, batch: Any) -> torch.Tensor:
        batches.append({k: v for k, v in batch.items() if k in ("input_ids", "token_type_ids", "attention_mask")})
        return super().__call__(student, teacher, batch)


@torch.inference_mode()
def forward(name: str) -> None:
    for batch in batches[SKIPPED:]:
        started = time.perf_counter()
        teacher(**batch, output_hidden_states=True)
        taken.setdefault(name, []).append(time.perf_counter() - started)


students = {"": distill(teacher, layers=2), "narrower, ": distill(teacher, layers=2, hidden_size=96)}
labels, soft, hidden = CrossEntropy(), SoftLabels(temperature=2), HiddenStates(layers={0: 0, 1: 3, 2: 6})
kinds = {
    "labels": [labels],
    "and soft labels": [labels, soft],
    "and hidden states": [labels, soft, hidden],
    "and relations": [labels, soft, Relational()],
    "and all but maps": [labels, soft, hidden, Relational(), CrossCorrelation(), AttentionOutputs()],
}
steps("seen", students[""], [Sees()])
tasks = {"teacher": partial(forward, "teacher")}
for prefix, student in students.items():
    for kind, objective in kinds.items():
        tasks[prefix + kind] = partial(steps, prefix + kind, student, objective)
interleaved(tasks, rounds)
seconds = {name: median(times) for name, times in taken.items()}
print(f"\nbundled model, 32 texts a step, {torch.get_num_threads()} threads")
print(f"the teacher's forward pass takes {1000 * seconds['teacher']:.1f} ms")
print(f"{'a step on':32}{'takes':>12}{'ratio':>9}")
for prefix in students:
    for kind in kinds:
        step, plain = seconds[prefix + kind], seconds[f"{prefix}labels"]
        ratio = "" if kind == "labels" else f"{step / (plain + seconds['teacher']):9.2f}"
        print(f"{prefix + kind:32}{1000 * step:9.1f} ms{ratio}")
