"""Rebuild the bundled decoder: train a small language model on the bundled corpus, in all its languages.

Run as `python data/rebuild/decoder.py`; takes about ten minutes on two cores and writes `data/decoder/` and
`data/DECODER.md`. Only the train split is trained on; the test split gives the figures of the card, beside those of a
model of three tokens in a row (interpolated, modified Kneser-Ney) that has seen the same text by the same tokens.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import pandas as pd
import torch
import transformers
from datasets import Dataset
from model import DATA, SEED, build_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import compress
import probes

LAYERS, WIDTH, HEADS, KEYS, WITHIN = 6, 128, 4, 2, 384
HOW = {
    "steps": 1200, "batch_size": 64, "learning_rate": 3e-3, "warmup": 0.05, "scheduler": "cosine", "weight_decay": 0.1,
    "betas": (0.9, 0.95),
}  # fmt: skip
ORDER = 3


def train(tokenizer: PreTrainedTokenizerFast, corpus: Dataset) -> LlamaForCausalLM:
    """Train from scratch, each sentence a text; the weights are rounded to bfloat16, as they are kept."""
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KEYS,
        intermediate_size=WITHIN,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        **{f"{k}_token_id": getattr(tokenizer, f"{k}_token_id") for k in ("bos", "eos", "pad")},
    )
    given = {"train": corpus, "tokenizer": tokenizer, "objective": compress.LanguageModel(), "seed": SEED}
    model = compress.finetune(LlamaForCausalLM(config), **given, **HOW)
    del model.config.compression
    return model.bfloat16().float().eval()


class Ngrams:
    """Interpolated Kneser-Ney with three discounts an order (Chen and Goodman 1999), of texts as lists of tokens."""

    def __init__(self, texts: list[list[int]], vocabulary: int) -> None:
        """Count; every text begins with a token that is not predicted."""
        self.vocabulary = vocabulary
        counts: list[Counter[tuple[int, ...]]] = [Counter() for _ in range(ORDER)]
        for text in texts:
            # Whole n-grams at the highest order and at the beginning of a text; the others count what precedes them.
            for end in range(1, len(text)):
                gram = tuple(text[max(0, end - ORDER + 1) : end + 1])
                counts[len(gram) - 1][gram] += 1
        for order in range(ORDER - 1, 0, -1):
            for gram in counts[order]:
                counts[order - 1][gram[1:]] += 1
        self.levels = [self._level(c) for c in counts]

    @staticmethod
    def _level(counts: Counter[tuple[int, ...]]) -> tuple[Counter, dict, dict]:
        """The discounted counts of an order, the sum after each context, and what was taken off there."""
        of = Counter(min(c, 4) for c in counts.values())
        y = of[1] / (of[1] + 2 * of[2])
        off = [0.0, *(n - (n + 1) * y * of[n + 1] / of[n] for n in (1, 2, 3))]
        # Text that a grammar makes has counts of another kind, for which these may be below 0.
        off = [found if 0 <= found <= n else n / 2 for n, found in enumerate(off)]
        total, taken = defaultdict(float), defaultdict(float)
        kept = Counter()
        for gram, count in counts.items():
            total[gram[:-1]] += count
            taken[gram[:-1]] += off[min(count, 3)]
            kept[gram] = count - off[min(count, 3)]
        return kept, total, taken

    def probability(self, gram: tuple[int, ...]) -> float:
        """The probability of the last token after the others."""
        if not gram:
            return 1 / self.vocabulary
        kept, total, taken = self.levels[len(gram) - 1]
        context, below = gram[:-1], self.probability(gram[1:])
        if not total[context]:
            return below
        return (kept[gram] + taken[context] * below) / total[context]

    def nats(self, text: list[int]) -> float:
        """The loss of a text, of all its tokens but the first."""
        grams = (tuple(text[max(0, end - ORDER + 1) : end + 1]) for end in range(1, len(text)))
        return -sum(math.log(self.probability(gram)) for gram in grams)


def by_language(losses: pd.DataFrame) -> pd.DataFrame:
    """Nats a token, perplexity and bits a byte of texts: in each language, and of all."""
    said = pd.concat([losses, losses.assign(language="all")])
    sums = said.groupby("language", sort=False)[["nats", "tokens", "bytes"]].sum()
    found = pd.DataFrame({"nats": sums["nats"] / sums["tokens"]})
    found["perplexity"] = np.exp(found["nats"])
    found["bits_per_byte"] = sums["nats"] / math.log(2) / sums["bytes"]
    return found


def main() -> int:
    """Build, measure and write the model and its card."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=DATA / "decoder", help="folder to write (%(default)s)")
    out = parser.parse_args().out
    started = time.monotonic()
    seen, unseen = (probes.load_corpus(DATA / "corpus.tsv", split=split) for split in ("train", "test"))
    special = {"pad": "<pad>", "bos": "<s>", "eos": "</s>"}
    tokenizer = build_tokenizer(list(seen["text"]), special, "<s> $A </s>", None)
    model = train(tokenizer, seen)
    minutes = (time.monotonic() - started) / 60

    losses = compress.text_losses(model, tokenizer, unseen)
    ngrams = Ngrams(tokenizer(list(seen["text"]))["input_ids"], len(tokenizer))
    rows = tokenizer(list(unseen["text"]))["input_ids"]
    counted = losses.assign(nats=[ngrams.nats(row) for row in rows])
    table, beside = by_language(losses), by_language(counted)
    fitted = by_language(compress.text_losses(model, tokenizer, seen))
    gain = 1 - table["bits_per_byte"]["all"] / beside["bits_per_byte"]["all"]
    print(table, beside, fitted, f"built in {minutes:.1f} minutes, {gain:.3f} better", sep="\n")
    if gain < 0.1:
        print("error: the model is worse than its card promises; nothing was written", file=sys.stderr)
        return 1
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.bfloat16().save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    shutil.rmtree(out, ignore_errors=True)
    partial.replace(out)
    (out.parent / "DECODER.md").write_text(card(model, table, beside, fitted), encoding="utf-8")
    return 0


def card(model: LlamaForCausalLM, table: pd.DataFrame, beside: pd.DataFrame, fitted: pd.DataFrame) -> str:
    """The model card, with the figures just measured."""
    parameters = sum(p.numel() for p in model.parameters())
    versions = f"torch {torch.__version__.split('+')[0]}, transformers {transformers.__version__}"
    rows = "\n".join(
        f"| {language} | {row.nats:.3f} | {row.perplexity:.2f} | {row.bits_per_byte:.3f} "
        f"| {beside['perplexity'][language]:.2f} | {beside['bits_per_byte'][language]:.3f} "
        f"| {fitted['bits_per_byte'][language]:.3f} |"
        for language, row in table.iterrows()
    )
    gain = 1 - table["bits_per_byte"]["all"] / beside["bits_per_byte"]["all"]
    return f"""# The bundled decoder

A small multilingual language model of the architecture of Llama ({LAYERS} layers of {WIDTH}, {HEADS} heads that share
{KEYS} of keys and values, {parameters:,} parameters in bfloat16, byte-level BPE with {model.config.vocab_size:,}
tokens), to try layerscope on a decoder without any download: `probes.load_checkpoint("bundled-decoder")`. It knows the
sentences of the bundled corpus (`CORPUS.md`) and nothing else: it is no model for real text.

**Trained** from scratch on the train split in all eight languages, each sentence a text between `<s>` and `</s>`, by
the next token ({HOW["steps"]} steps of {HOW["batch_size"]} sentences, AdamW, learning rate {HOW["learning_rate"]} with
warm-up and half a cosine, weight decay {HOW["weight_decay"]}).

Measured on the test split (360 sentences in each language, none of them in train), `</s>` among what is predicted. Bits
per byte are of UTF-8: unlike perplexity, they may be compared between tokenizers, and with care between languages (a
letter takes one byte in English, two in Russian and Arabic, three in Hindi and Chinese).

| language | nats a token | perplexity | bits per byte | 3-gram: perplexity | bits per byte | on train: bits per byte |
|---|---|---|---|---|---|---|
{rows}

The 3-gram model has seen the same text by the same tokens (interpolated, modified Kneser-Ney). In bits per byte the
decoder is better by {gain:.0%}.

`python data/rebuild/decoder.py` rebuilds it in about ten minutes on two cores (seed {SEED}; {versions}).
Figures may differ a little on another processor. Licence: Apache-2.0.
"""


if __name__ == "__main__":
    sys.exit(main())
