"""Capture and all probes against the bare forward pass and the usual way of extracting states."""

from collections.abc import Iterator
from functools import partial

from common import Row, agreement, checkpoint_and_corpus, interleaved, run  # first: it sets the environment

# isort: split
import torch

import probes
from probes.measures.catalogue import families
from probes.states.tokens import batches_of

LABELS, ALIGNMENT = families()["labels"], families()["alignment"]


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

    reps = kept["ours"]
    measures = {name: partial(getattr(probes, name), reps) for name in LABELS}
    measures |= {name: partial(getattr(probes, name), reps, pivot="en") for name in ALIGNMENT}
    taken = interleaved(measures, rounds)
    shape = " x ".join(str(reps.sizes[d]) for d in ("layer", "example", "feature"))
    for name, t in (taken | {"all of these probes": sum(taken.values())}).items():
        yield Row(f"{name}, 200 draws, {shape}", t, seconds["bare"], "bare forward pass")


if __name__ == "__main__":
    run(rows)
