"""Study: does a teacher help a small masked language model, and what do decoders lose by bytes.

    make study-language-models

About ten minutes of one quiet core. Runs are kept in runs/study-language-models/; an interrupted study goes on from
there. Writes language_models.csv (a row a model), language_models.md (what came out) and language_models.png beside
this file.
"""

from __future__ import annotations

import os
import sys

os.environ["TOKENIZERS_PARALLELISM"] = "false"

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import datasets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from common import HERE, ROOT, bundled, corpus, markdown, provenance, runs, written
from transformers import BertForMaskedLM, GPT2Config, GPT2LMHeadModel, PreTrainedModel, set_seed

import compress
import probes

FOLDER = ROOT / "runs" / "study-language-models"
TEACHER = {"steps": 300, "learning_rate": 1e-3, "warmup": 0.1, "weight_decay": 0.01}
STUDENT = {"steps": 150, "learning_rate": 1e-3, "warmup": 0.1, "weight_decay": 0.01}
AFTER = {"steps": 30, "learning_rate": 5e-4, "warmup": 0.1, "weight_decay": 0.01}
MASKED, DECODER = "masked, 2 of 6 layers", "decoder"
SEEDS = (0,)
ALONE, TAUGHT = ARMS = ("text alone", "with its teacher")


def kept(name: str, made: Any) -> PreTrainedModel:
    """A model that is trained once, and loaded from then on."""
    folder = FOLDER / "models" / name
    if not folder.exists():
        model = made()
        compress.save(model, folder, bundled()[1])
    return probes.load_checkpoint(folder)[0]


@cache
def held_out() -> datasets.Dataset:
    """Every fourth sentence of the test split, in all languages."""
    ids = sorted(set(corpus("test")["id"]))[::4]
    return corpus("test").filter(lambda row: row["id"] in ids)


def given(seed: int, how: dict[str, Any]) -> dict[str, Any]:
    return {"train": corpus("train"), "tokenizer": bundled()[1], "seed": seed, "progress": False, **how}


def masked_teacher() -> PreTrainedModel:
    """The bundled model's body with a head for masked tokens, trained on the text of all languages."""

    def made() -> PreTrainedModel:
        set_seed(0)
        model = BertForMaskedLM(bundled()[0].config)
        model.bert.load_state_dict(bundled()[0].bert.state_dict(), strict=False)
        return compress.finetune(model, objective=compress.LanguageModel(), **given(0, TEACHER))

    return kept("masked", made)


def decoder() -> PreTrainedModel:
    """A small model of the architecture of GPT-2, trained on the text of all languages."""

    def made() -> PreTrainedModel:
        set_seed(0)
        tokenizer = bundled()[1]
        special = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": tokenizer.cls_token_id}
        size = {"n_embd": 128, "n_layer": 6, "n_head": 4, "n_positions": 64}
        config = GPT2Config(vocab_size=len(tokenizer), **size, **special, eos_token_id=tokenizer.sep_token_id)
        config.tie_word_embeddings = False  # as otherwise the table of embeddings is the output layer, too
        return compress.finetune(GPT2LMHeadModel(config), objective=compress.LanguageModel(), **given(0, TEACHER))

    return kept("decoder", made)


def said(model: PreTrainedModel) -> dict[str, Any]:
    """The loss on held-out text, and what the model takes."""
    table = compress.held_out_loss(compress.text_losses(model, bundled()[1], held_out()))
    pooled = table.iloc[-1]
    cost = compress.footprint(model).iloc[0]
    by = {f"nats {row.language}": row.nats for row in table.itertuples()}
    return {
        "nats": pooled.nats, "low": pooled.low, "high": pooled.high, "perplexity": pooled.perplexity,
        "bits_per_byte": pooled.bits_per_byte, "bytes": int(cost["stored_bytes"]), **by,
    }  # fmt: skip


def student(arm: str, seed: int) -> PreTrainedModel:
    """A masked model of 2 of the teacher's layers, by itself or by the teacher too, at masked tokens."""
    teacher = masked_teacher()
    objective = {
        ALONE: [compress.LanguageModel()],
        TAUGHT: [compress.LanguageModel(weight=0.5), compress.SoftLabels(weight=0.5)],
    }[arm]
    return compress.distill(teacher, layers=2, objective=objective, **given(seed, STUDENT))


def of_student(what: str, arm: str, seed: int) -> dict[str, Any]:
    """One student, and the difference of its loss from that of the one trained without the teacher, text by text."""
    model = kept(f"student-{ARMS.index(arm)}-{seed}", lambda: student(arm, seed))
    found = said(model)
    if arm != ALONE:
        alone = kept(f"student-0-{seed}", lambda: student(ALONE, seed))
        one, other = (compress.text_losses(m, bundled()[1], held_out()) for m in (model, alone))
        row = compress.held_out_loss(one, other).iloc[-1]
        found |= {"less": row.nats, "less_low": row.low, "less_high": row.high}
    return found


def low_rank(model: PreTrainedModel, *, budget: float, method: str, **how: Any) -> PreTrainedModel:
    """A model in factors, trained further as such."""
    return compress.finetune(compress.factorize(model, budget=budget, method=method), **how)


COMPRESSIONS: dict[str, Callable[..., PreTrainedModel]] = {
    "as it is": lambda m, **how: m,
    **{
        f"{name} {budget}": partial(low_rank, budget=budget, method=method)
        for name, method in (("low rank", "svd"), ("tensor train", "tensor_train"))
        for budget in (0.5, 0.25)
    },
    **{f"fused {share}": partial(compress.fuse, share=share) for share in (0.5,)},
    **{f"pruned {s}": partial(compress.prune, sparsity=s, prunings=3, schedule="uniform") for s in (0.5,)},
    **{f"{bits} bits": partial(compress.quantize, bits=bits, activation_bits=None) for bits in (8, 4)},
}


def of_decoder(what: str, arm: str, seed: int) -> dict[str, Any]:
    """One way to make the decoder smaller, and its loss."""
    return said(COMPRESSIONS[arm](decoder(), **given(seed, AFTER), objective=compress.LanguageModel()))


def one(what: str, arm: str, seed: int) -> dict[str, Any]:
    return {MASKED: of_student, DECODER: of_decoder}[what](what, arm, seed)


def settings() -> Iterator[dict[str, Any]]:
    for seed in SEEDS:
        for arm in ARMS:
            yield {"what": MASKED, "arm": arm, "seed": seed}
    for arm in COMPRESSIONS:
        yield {"what": DECODER, "arm": arm, "seed": 0}


def figure(table: pd.DataFrame) -> None:
    """Perplexity against bytes, a mark a model, with the interval over texts."""
    fig, ax = plt.subplots(figsize=(7, 4.5), layout="constrained")
    low, high = np.exp(table["low"]), np.exp(table["high"])
    spread = [table["perplexity"] - low, high - table["perplexity"]]
    ax.errorbar(table["bytes"] / 1e6, table["perplexity"], spread, fmt="o", ms=5, capsize=2)
    for row in table.to_dict("records"):
        at = (row["bytes"] / 1e6, row["perplexity"])
        ax.annotate(row["arm"], at, (5, 3), textcoords="offset points", fontsize=8)
    ax.set(xlabel="MB as stored", ylabel="perplexity of a token, held-out text (lower is better)", yscale="log")
    fig.savefig(HERE / "language_models.png", dpi=110)


def main() -> int:
    table = runs(one, settings(), FOLDER, "language models")
    table.to_csv(HERE / "language_models.csv", index=False)
    parts = {what: table[table["what"] == what].reset_index(drop=True) for what in (MASKED, DECODER)}
    students, decoders = parts.values()
    figure(decoders)
    by_text = students.loc[students["arm"] == TAUGHT, ["seed", "less", "less_low", "less_high"]]
    helped = bool((by_text["less_high"] < 0).all())
    count = "the one run" if len(SEEDS) == 1 else f"each of {len(SEEDS)} runs"
    claim = f"in {count} that was made, its interval below 0" if helped else f"not in {count}"
    columns = ["arm", "bytes", "nats", "low", "high", "perplexity", "bits_per_byte"]
    by_text = by_text.rename(columns={"less": "taught minus alone", "less_low": "low", "less_high": "high"})
    teacher = said(masked_teacher())
    texts = f"bundled, {len(corpus('train')):,} sentences in 8 languages of its train split to train on, "
    texts += f"{len(held_out()):,} of its test split to measure"
    text = f"""# Language models: a teacher, and perplexity against bytes

{provenance(corpus=texts)}
All by `compress.LanguageModel`, {TEACHER["steps"]} steps of 32 sentences for the models that the others are made of.

## Does a teacher help?

A masked language model of 2 of the 6 layers of its teacher (loss {teacher["nats"]:.3f} nats a masked token of
held-out text), trained for {STUDENT["steps"]} steps on the text of all languages: by the text alone, or half by the
text and half by what its teacher says of the masked tokens. The student that is taught has less loss: {claim}.

{markdown(students.groupby("arm", sort=False)[["nats"]].mean().reset_index())}
All are hardly trained: the teacher itself, without the steps of its students, is no better than they are.

Nats a masked token, over the texts that were held out (bootstrap by sentence), one pair of students a seed:

{markdown(by_text)}
## Perplexity against bytes

A decoder of the architecture of GPT-2 (6 layers, 128 wide, {len(bundled()[1]):,} tokens), made smaller and trained for
{AFTER["steps"]} steps after it, or while it is. Bytes are those that the smallest format known here would store.
`low` and `high` are of `nats`, over sentences. The decoder as it is has not had these steps, which are worth more to it
than 8 bits or half of its weights cost: the others say what they lose against each other.

{markdown(decoders[columns])}
![Perplexity against bytes](language_models.png)
"""
    return written("language_models", text, decoders[columns], by_text)


if __name__ == "__main__":
    sys.exit(main())
