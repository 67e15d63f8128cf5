"""What a step of noise contrastive estimation takes by the size of the vocabulary, next to one of the full softmax.

A decoder of 2 layers and 128 features, 16 texts of 32 tokens a step, 25 draws a token, in seconds of the processor: on
a busy machine two trainings differ by more. The optimiser goes through the whole output layer in both.
"""

import time
from collections.abc import Iterator
from statistics import median
from typing import Any

from common import Row, run  # first: it sets the environment

# isort: split
import numpy as np
import pandas as pd
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TrainerCallback

import probes
from compress import LanguageModel, NoiseContrast
from compress.training import train

SIZES = {"hidden_size": 128, "num_hidden_layers": 2, "intermediate_size": 256, "num_attention_heads": 4}
TEXTS, TOKENS, SKIPPED = 16, 32, 2


def rows(quick: bool) -> Iterator[Row]:
    for size in (1000, 10_000) if quick else (1000, 10_000, 100_000):
        steps = SKIPPED + (3 if quick or size > 50_000 else 8)
        full, noise, bigrams = (
            _seconds(size, steps, objective)
            for objective in (LanguageModel(), NoiseContrast(), NoiseContrast(noise="bigram"))
        )
        note = f"of bigrams {1000 * bigrams:,.0f} ms"
        yield Row(f"a step of noise contrast, {size:,} tokens", noise, full, "full softmax", note=note)


def _seconds(size: int, steps: int, objective: Any) -> float:
    """Median seconds of the processor of a step."""
    vocabulary = {"[PAD]": 0, "[UNK]": 1, **{f"w{i}": i for i in range(2, size)}}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    chances = 1 / np.arange(2, size)  # as often as words are, by their rank
    drawn = np.random.default_rng(0).choice(np.arange(2, size), (TEXTS * 16, TOKENS), p=chances / chances.sum())
    texts = [" ".join(f"w{i}" for i in row) for row in drawn]
    corpus = probes.load_corpus(pd.DataFrame({"id": range(len(texts)), "language": "en", "text": texts}))
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=size, max_position_embeddings=TOKENS, pad_token_id=0, **SIZES))
    taken: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.started = time.process_time()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step > SKIPPED:
                taken.append(time.process_time() - self.started)

    given = {"steps": steps, "batch_size": TEXTS, "progress": False, "callbacks": [Clock()]}
    train(model, fast, corpus, objective=[objective], **given)
    return median(taken)


if __name__ == "__main__":
    run(rows)
