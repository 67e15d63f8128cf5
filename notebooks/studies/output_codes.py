"""Output codes of the bundled decoder beside what else makes its output layer small, at equal bytes.

Each is trained for the same steps on the train split, by its own loss; measured is the loss on the
dev split, renormalised over words. The table goes into the reference page; about nine minutes on one core.
"""

from __future__ import annotations

import copy
import re
import time
import warnings
from collections.abc import Iterator
from typing import Any

import common
import pandas as pd
import torch

import compress
import probes
from compress.objectives.held_out import held_out_loss, text_losses
from compress.training.loop import train
from probes.files import write_whole
from probes.models.formats.factorized import LowRankLinear
from probes.models.formats.output_codes import CodedOutput

PAGE = common.ROOT / "notebooks" / "reference" / "compress" / "quantization" / "code_outputs.md"
TRAINING: dict[str, Any] = {"steps": 150, "learning_rate": 3e-3, "warmup": 0.1, "batch_size": 32, "progress": False}
CODES = [
    ("random", 40, {}),
    ("frequency", 40, {}),
    ("embedding", 40, {}),
    ("embedding", 40, {"objective": compress.LanguageModel()}),
    ("embedding", 40, {"mixture": "curriculum"}),
    ("embedding", 40, {"mixture": "differentiable"}),
    ("embedding", 12, {}),
    ("embedding", 100, {}),
    ("embedding", 100, {"objective": compress.LanguageModel()}),
    ("random", 40, {"objective": compress.LanguageModel()}),
]
RANKS = (2, 6)  # about the bytes of 40 and of 100 bits
AS_ENGLISH = {"bits": 455, "rank": 28}  # about the bytes of the tokens of English


def main() -> None:
    warnings.simplefilter("ignore", probes.LayerscopeWarning)  # that embeddings stay
    model, tokenizer = probes.load_checkpoint("bundled-decoder")
    text, dev = common.corpus("train"), common.corpus("dev")
    dev = dev.select(range(480))  # 60 sentences in 8 languages
    english = dev.filter(lambda row: row["language"] == "en")
    layer = model.get_output_embeddings().weight
    rows: list[dict[str, Any]] = []

    def add(name: str, trained: str, size: int, one: Any, its_tokenizer: Any = tokenizer, on: Any = dev) -> None:
        found = held_out_loss(text_losses(one, its_tokenizer, on), draws=200).iloc[-1]
        row = {"output layer": name, "trained by": trained, "bytes": f"{size:,}", "nats": f"{found.nats:.2f}"}
        row |= {"95 %": f"{found.low:.2f} to {found.high:.2f}", "perplexity": f"{found.perplexity:.1f}"}
        if any(isinstance(m, CodedOutput) for m in one.modules()):
            right = compress.code_accuracy(one, its_tokenizer, on).iloc[-1]
            row |= {k: f"{right[k]:.2f}" for k in ("exact", "hamming", "likelihood")}
        rows.append(row)
        print(row, f"{time.process_time():.0f} s", flush=True)

    add("as it is", "", layer.numel() * layer.element_size(), model)
    for assignment, bits, how in CODES:
        how = how | {"assignment": assignment, "train": text, "tokenizer": tokenizer}
        coded = compress.code_outputs(model, bits=bits, **how, **TRAINING)
        by = "renormalised loss" if "objective" in how else "bits" + (f", {how['mixture']}" if "mixture" in how else "")
        add(f"{bits} bits, {assignment}", by, coded.config.compression["output_bytes"], coded)
    for rank in RANKS:
        low = low_rank_output(model, rank)
        size = sum(p.numel() * p.element_size() for p in low.lm_head.parameters())
        train(low, tokenizer, text, objective=[compress.LanguageModel()], **TRAINING)
        add(f"SVD of rank {rank}", "loss", size, low)
    for name, used, on in (("all languages", text, dev), ("English", text.filter(_is_english), english)):
        small, fewer = compress.prune_vocabulary(model, tokenizer, used)
        size = small.get_output_embeddings().weight.numel() * layer.element_size()
        add(f"{len(fewer):,} tokens, {name}", "", size, small, fewer, on)
    add("as it is, English", "", layer.numel() * layer.element_size(), model, on=english)
    for name, by, size, one, its_tokenizer in of_english(model, tokenizer, text.filter(_is_english)):
        add(name, by, size, one, its_tokenizer, english)
    table = pd.DataFrame(rows).fillna("")
    lines = ["| " + " | ".join(table.columns) + " |", "|" + "---|" * len(table.columns)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in table.itertuples(index=False)]
    page = PAGE.read_text(encoding="utf-8")
    begin, end = "<!-- table -->\n", "<!-- end -->"
    made = begin + "\n".join(lines) + "\n" + end
    write_whole(PAGE, re.sub(f"{begin}.*?{end}", lambda _: made, page, flags=re.DOTALL))


def of_english(model: Any, tokenizer: Any, text: Any) -> Iterator[tuple[str, str, int, Any, Any]]:
    """The tokens of English, and codewords and factors of as many bytes, all trained on English: what each is called,
    what it is trained by, the bytes of its output layer, the model and its tokenizer.
    """
    small, fewer = compress.prune_vocabulary(model, tokenizer, text)
    size = small.get_output_embeddings().weight.numel() * 4
    made = compress.finetune(small, fewer, text, objective=compress.LanguageModel(), **TRAINING)
    yield f"{len(fewer):,} tokens, English, trained", "loss", size, made, fewer
    bits, rank = AS_ENGLISH["bits"], AS_ENGLISH["rank"]
    how: dict[str, Any] = {"train": text, "tokenizer": tokenizer, "objective": compress.LanguageModel()}
    coded = compress.code_outputs(model, bits=bits, **how, **TRAINING)
    size = coded.config.compression["output_bytes"]
    yield f"{bits} bits, embedding, English", "renormalised loss", size, coded, tokenizer
    low = low_rank_output(model, rank)
    size = sum(p.numel() * p.element_size() for p in low.lm_head.parameters())
    train(low, tokenizer, text, objective=[compress.LanguageModel()], **TRAINING)
    yield f"SVD of rank {rank}, English", "loss", size, low, tokenizer


def _is_english(row: Any) -> bool:
    return bool(row["language"] == "en")


def low_rank_output(model: Any, rank: int) -> Any:
    """A copy whose output layer is the product nearest to it of this rank."""
    low = copy.deepcopy(model)
    weight = low.lm_head.weight.detach().double()
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    factors = LowRankLinear(weight.shape[1], weight.shape[0], rank, bias=False)
    with torch.no_grad():
        factors.first.weight.copy_(values[:rank].sqrt()[:, None] * right[:rank])
        factors.second.weight.copy_(left[:, :rank] * values[:rank].sqrt())
    low.lm_head, low.config.tie_word_embeddings = factors, False
    low.all_tied_weights_keys = {}
    return low


if __name__ == "__main__":
    main()
