"""Capture and all default probes against the bare forward pass and the usual way of extracting states.

The default probes with 200 draws on 7 layers of 2,000 x 384 (8 languages) took 1.6 to 1.8 s of the processor, 0.11 to
0.13 of the forward pass of MiniLM. At least 0.55 s of it are matrix products that are needed: 0.24 s CKA
(the Gram matrices of 14 layers, half of each), 0.12 s SNR, 0.07 s variability, 0.08 s retrieval and margin retrieval,
0.04 s alignment gap, at 110 thousand million operations a second in float32. Tables, labels and p-values are 1 %. What
did not pay: products of torch in place of NumPy's (0.9 times as fast); the sums of CKA along the rows by batched
products (twice the time of `einsum`; along the columns a quarter) and by turned copies (four times); sums over parts
along the other axis first; smaller blocks of distances. What would: where NumPy's OpenBLAS does not know the
processor, `OPENBLAS_CORETYPE=SkylakeX` (see the guide).
"""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial

from common import Row, agreement, checkpoint_and_corpus, interleaved, run  # first: it sets the environment

# isort: split
import torch

import probes
from probes.measures.catalogue import by_name
from probes.measures.probe import Run
from probes.results.draws import sample
from probes.states.tokens import batches_of

# What a comparison of two models of one width on labelled translations has, and what heads add.
THERE = {"labels", "pivot", "another model", "models of one width", "two texts in every language"}
OF_HEADS = {"logits", "models of the same classes", "labels of the head", "classes named as the labels are"}


def rows(quick: bool) -> Iterator[Row]:
    texts, rounds = (250, 3) if quick else (2000, 5)
    model, tokenizer, corpus, called = checkpoint_and_corpus(texts)
    # The batches that capture makes too.
    prepared = [inputs for _, inputs in batches_of(model, tokenizer, corpus, "model", device="cpu")[1]()]
    body = model.base_model
    kept = {}

    @torch.inference_mode()
    def bare() -> None:
        for inputs in prepared:
            body(**inputs)

    @torch.inference_mode()
    def usual() -> None:
        """Corpus order, batches of 32 padded to the longest, all hidden states, mean over the attended tokens."""
        found = []
        for i in range(0, texts, 32):
            inputs = tokenizer(corpus[i : i + 32]["text"], padding=True, truncation=True, return_tensors="pt")
            mask = inputs["attention_mask"].unsqueeze(-1)
            states = body(**inputs, output_hidden_states=True).hidden_states
            found.append(torch.stack([(h * mask).sum(1) / mask.sum(1) for h in states]))
        kept["usual"] = torch.cat(found, dim=1)

    def ours() -> None:
        plain = {"pooling": "mean_all", "normalize": False}  # whatever the checkpoint declares
        kept["ours"] = probes.capture(model, tokenizer, corpus, **plain, device="cpu", progress=False)

    ours()
    seconds = interleaved({"bare": bare, "ours": ours, "usual": usual}, rounds)
    what = f"capture of {texts:,} texts, {called}"
    apart = agreement(kept["ours"].hidden, kept["usual"], 1e-4)
    yield Row(what, seconds["ours"], seconds["usual"], "usual way, 32 a batch", note=apart)
    yield Row(what, seconds["ours"], seconds["bare"], "bare forward pass, same batches")

    def kept_in_store(**of_tokens: bool) -> None:
        with tempfile.TemporaryDirectory() as folder:
            probes.capture(
                model, tokenizer, corpus, device="cpu", progress=False, store=f"{folder}/s.zarr", **of_tokens
            )

    kinds = {"pooled": {}, "tokens": {"tokens": True}, "words": {"words": True}}
    seconds |= interleaved({name: partial(kept_in_store, **kind) for name, kind in kinds.items()}, rounds)
    for name in ("tokens", "words"):
        yield Row(f"states of {name} into a store, {texts:,} texts", seconds[name], seconds["pooled"], "pooled states")

    reps = kept["ours"]
    there = THERE | (OF_HEADS if "logits" in reps else set())
    given = Run(reps, sample(reps, draws=200, seed=0), base=reps, pivot="en", seed=0, progress=False)
    measures: dict[Callable, list[str]] = {}  # one pass gives several probes
    for probe in by_name().values():
        if probe.default and there.issuperset(probe.needs):
            measures.setdefault(probe.measure, []).append(probe.name)
    taken = interleaved({", ".join(names): partial(of, given) for of, names in measures.items()}, rounds)
    shape = " x ".join(str(reps.sizes[d]) for d in ("layer", "example", "feature"))
    for name, t in (taken | {"all default probes": sum(taken.values())}).items():
        yield Row(f"{name}, 200 draws, {shape}", t, seconds["bare"], "bare forward pass")


if __name__ == "__main__":
    run(rows)
