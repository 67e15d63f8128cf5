"""What pruning adds to a step of training on the bundled model: masks that grow, and masks that are put on again; and
what a forward pass saves once half of the heads and channels are really gone.

Of the processor's time, beside 54 ms for a step of 16 texts of 24 tokens: 1 ms puts masks on; masks that grow take 5 ms
more of magnitude (a selection by NumPy, 1.6 ms of it). What goes of 36 matrices with 1.2 million weights is found in
8 ms within units (11 before; `torch.where` took a third) and in 5.5 ms by LAMP (15 by the score of every weight), whose
two selections at once would take several times as long as one after the other. It did not get less by a band of a
sample around the threshold in place of the selection by magnitude (2.2 ms), by `masked_fill_` in place of the product
(5.7 ms), or by NumPy's sums and quotients for LAMP.
"""

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median

from common import Row, interleaved, run  # first: it sets the environment

# isort: split
import torch
import transformers
from clock import Clock

import compress
import probes
from compress.objectives import CrossEntropy
from compress.training import train

STEPS, SKIPPED = 12, 2
OFTEN, LONG = 10, 300  # prunings, as `prune` has by default, in so many steps of a training
KINDS = [
    ("magnitude", "matrix"),
    ("magnitude", "global"),
    ("lamp", "global"),
    ("random", "matrix"),
    ("magnitude", "unit"),
]


def rows(quick: bool) -> Iterator[Row]:
    model, tokenizer = probes.load_checkpoint("bundled")
    corpus = probes.load_corpus("bundled", split="train", languages=["en"])
    taken: dict[str, list[float]] = defaultdict(list)

    def settings(name: str, grows: Callable[[int], bool]) -> dict:
        def step(number: int, seconds: float) -> None:
            if number > SKIPPED:
                taken[f"{name}, grows" if grows(number) else name].append(seconds)

        return {"steps": STEPS, "progress": False, "callbacks": [Clock(step)]}

    def plain(kind: str) -> None:
        how = settings(f"{kind}, plain", lambda number: False)
        train(copy.deepcopy(model), tokenizer, corpus, objective=[CrossEntropy()], **how)

    def pruned(kind: str, criterion: str, scope: str) -> None:
        # The masks grow at every other step, and are put on again at all of them.
        how = {"criterion": criterion, "scope": scope, "schedule": "uniform", "prunings": STEPS // 2}
        how |= {"prune_until": 1.0, **settings(kind, lambda number: number % 2 == 0)}
        compress.prune(model, sparsity=0.6, train=corpus, tokenizer=tokenizer, **how)

    for criterion, scope in KINDS:
        kind = f"{criterion}, {scope}"
        # A training without beside each of them: the difference is smaller than what a busy machine makes.
        interleaved(
            {"plain": partial(plain, kind), "pruned": partial(pruned, kind, criterion, scope)}, 3 if quick else 7
        )
        without, put_on, grown = (median(taken[kind + suffix]) for suffix in (", plain", "", ", grows"))
        for what, found in (("masks put on", put_on), ("masks grow and are put on", grown)):
            yield Row(f"a step, {what}: {kind}", found, without, "a step without")
        # As the papers prune: some steps after another, not at every one.
        mean = put_on + (grown - put_on) * OFTEN / LONG
        yield Row(f"a step of {LONG} with {OFTEN} prunings, by these: {kind}", mean, without, "a step without")
    yield from _without_half(quick)


def _without_half(quick: bool) -> Iterator[Row]:
    """Forward passes of 16 texts of 64 tokens, 12 layers of 384, in turns: whole, and without half of its parts."""
    sizes = {"vocab_size": 2000, "hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 12}
    kinds = {
        "llama": {"intermediate_size": 1024, "num_key_value_heads": 4, "head_dim": 32},
        "modernbert": {"intermediate_size": 576, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
        | {"cls_token_id": 1, "sep_token_id": 2},
    }
    for kind, more in kinds.items():
        torch.manual_seed(0)
        model = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(kind, **sizes, **more)).eval()
        smaller = compress.prune_channels(compress.prune_heads(model, 0.5), 0.5)
        ids = torch.randint(5, 2000, (16, 64))
        with torch.inference_mode():
            for one in (model, smaller):
                one(ids)  # warms up
            found = interleaved({"whole": partial(model, ids), "smaller": partial(smaller, ids)}, 5 if quick else 15)
        what = f"a forward pass without half of heads and channels: {kind}"
        yield Row(what, found["smaller"], found["whole"], "the whole model")


if __name__ == "__main__":
    run(rows)
