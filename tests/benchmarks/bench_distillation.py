"""What a step of distillation takes on the bundled model, next to the teacher's forward pass and a step without it.

A step on labels and the teacher's forward pass together are what objectives that cost nothing would take. The student
has 2 of the teacher's 6 layers, "narrower" also 96 of its 128 features, and so learned maps. All on the same batches,
in turns.
"""

import copy
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from statistics import median
from typing import Any

from common import Row, interleaved, run  # first: it sets the environment

# isort: split
import torch
from clock import Clock

import probes
from compress import distill
from compress.objectives import AttentionOutputs, CrossCorrelation, CrossEntropy, HiddenStates, Relational, SoftLabels
from compress.training import train

STEPS, SKIPPED = 12, 2


def rows(quick: bool) -> Iterator[Row]:
    teacher, tokenizer = probes.load_checkpoint("bundled")
    corpus = probes.load_corpus("bundled", split="train", languages=["en"])
    batches: list[dict[str, torch.Tensor]] = []
    taken: dict[str, list[float]] = defaultdict(list)

    def steps(name: str, student: Any, objective: Sequence[Any]) -> None:
        def step(number: int, seconds: float) -> None:
            if number > SKIPPED:
                taken[name].append(seconds)

        settings = {"steps": STEPS, "teacher": teacher, "progress": False, "callbacks": [Clock(step)]}
        train(copy.deepcopy(student), tokenizer, corpus, objective=objective, **settings)

    class Sees(CrossEntropy):
        """Keeps the batches of a training."""

        def __call__(self, student: Any, teacher: Any, batch: Any) -> torch.Tensor:
            batches.append({k: v for k, v in batch.items() if k in ("input_ids", "token_type_ids", "attention_mask")})
            return super().__call__(student, teacher, batch)

    @torch.inference_mode()
    def forward() -> None:
        for batch in batches[SKIPPED:]:
            started = time.perf_counter()
            teacher(**batch, output_hidden_states=True)
            taken["teacher"].append(time.perf_counter() - started)

    students = {"": distill(teacher, layers=2), "narrower": distill(teacher, layers=2, hidden_size=96)}
    labels, soft, hidden = CrossEntropy(), SoftLabels(temperature=2), HiddenStates(layers={0: 0, 1: 3, 2: 6})
    kinds = {
        "labels": [labels],
        "and soft labels": [labels, soft],
        "and hidden states": [labels, soft, hidden],
        "and relations": [labels, soft, Relational()],
        "and all but maps": [labels, soft, hidden, Relational(), CrossCorrelation(), AttentionOutputs()],
    }
    steps("seen", students[""], [Sees()])
    tasks: dict[str, Any] = {"teacher": forward}
    for called, student in students.items():
        for kind, objective in kinds.items():
            name = kind + f", {called}" * bool(called)
            tasks[name] = partial(steps, name, student, objective)
    interleaved(tasks, 3 if quick else 7)
    seconds = {name: median(times) for name, times in taken.items()}
    yield Row("the teacher's forward pass, 32 texts", seconds["teacher"])
    for called in students:
        end = f", {called}" * bool(called)
        plain = seconds[f"labels{end}"]
        yield Row(f"a step on labels{end}", plain)
        for kind in list(kinds)[1:]:
            floor = plain + seconds["teacher"]
            yield Row(f"a step on labels {kind}{end}", seconds[kind + end], floor, "step on labels + teacher")


if __name__ == "__main__":
    run(rows)
