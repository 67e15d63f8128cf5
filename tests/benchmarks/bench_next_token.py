"""The next-token family against the two forward passes that it cannot do without, in seconds of the processor."""

import time
from collections.abc import Iterator

from common import Row, interleaved, run  # first: it sets the environment

# isort: split
import torch

import compress
import probes
from probes.states.by_token import said_by
from probes.states.tokens import batches_of


def rows(quick: bool) -> Iterator[Row]:
    texts, rounds = (300, 3) if quick else (2000, 5)
    model, tokenizer = probes.load_checkpoint("bundled-decoder")
    other = compress.quantize(model, bits=4)
    corpus = probes.load_corpus("bundled", split="test").select(range(texts))
    prepared = [inputs for _, inputs in batches_of(model, tokenizer, corpus, "model", device="cpu")[1]()]

    @torch.inference_mode()
    def bare() -> None:
        for inputs in prepared:
            model(**inputs, use_cache=False)
            other(**inputs, use_cache=False)

    def said() -> None:
        said_by([model, other], tokenizer, corpus, ["base", "other"], who="next_token", device="cpu")

    def ours() -> None:
        probes.next_token(model, other, tokenizer, corpus, device="cpu", progress=False)

    seconds = interleaved({"bare": bare, "said": said, "ours": ours}, rounds, 60, time.process_time)
    what = f"of {texts:,} texts, {len(tokenizer):,} tokens in the vocabulary"
    against = "both forward passes with all logits, same batches"
    yield Row(f"tokens compared {what}", seconds["said"], seconds["bare"], against)
    yield Row(f"next_token {what}, 200 draws", seconds["ours"], seconds["bare"], against)


if __name__ == "__main__":
    run(rows)
