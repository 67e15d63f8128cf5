"""Study: does a teacher help a small masked language model, and what do decoders and LSTMs lose by bytes.

    make study-language-models

About half an hour of one quiet core. Runs are kept in runs/study-language-models/; an interrupted study goes on from
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
from common import (
    HERE,
    ROOT,
    SEEDS,
    bundled,
    corpus,
    markdown,
    paired,
    provenance,
    runs,
    verdict,
    written,
)
from transformers import BertForMaskedLM, GPT2Config, GPT2LMHeadModel, PreTrainedModel, set_seed

import compress
import probes

FOLDER = ROOT / "runs" / "study-language-models"
TEACHER = {"steps": 300, "learning_rate": 1e-3, "warmup": 0.1, "weight_decay": 0.01}
STUDENT = {"steps": 150, "learning_rate": 1e-3, "warmup": 0.1, "weight_decay": 0.01}
AFTER = {"steps": 30, "warmup": 0.1, "weight_decay": 0.01}
RATES = {"decoder": 5e-4, "LSTM": 5e-3}  # after it; of 3e-3 to 2e-2 the last was best to train the LSTM by
MASKED, DECODER, RECURRENT = "masked, 2 of 6 layers", "decoder", "LSTM"
SMALLER_SEEDS = SEEDS[:1]  # of what is made of the decoder and of the LSTM
ALONE, TAUGHT = ARMS = ("text alone", "with its teacher")


def kept(name: str, made: Any, kind: Any = None) -> PreTrainedModel:
    """A model that is trained once, and loaded from then on; by its class where transformers does not know it."""
    folder = FOLDER / "models" / name
    if not folder.exists():
        model = made()
        compress.save(model, folder, bundled()[1])
    return probes.load_checkpoint(folder)[0] if kind is None else kind.from_pretrained(folder)


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

    return kept("masked-0", made)


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

    return kept("decoder-0", made)


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


def recurrent() -> PreTrainedModel:
    """A small LSTM language model, trained on the text of all languages."""

    def made() -> PreTrainedModel:
        set_seed(0)
        config = compress.LSTMConfig(len(bundled()[1]), hidden_size=128, pad_token_id=bundled()[1].pad_token_id)
        return compress.finetune(compress.LSTMLanguageModel(config), **given(0, TEACHER | {"learning_rate": 2e-2}))

    return kept("lstm-0", made, compress.LSTMLanguageModel)


def in_factors(
    model: PreTrainedModel, *, rank: int, into: Any, bits: int = 0, sparsity: float = 0.0, **how: Any
) -> Any:
    """An LSTM of low rank or in tensor trains, trained further, then pruned and quantised without training."""
    model = compress.finetune(into(model, rank), **how)
    model = compress.prune(model, sparsity=sparsity) if sparsity else model
    return compress.quantize(model, bits=bits, **GRID) if bits else model


def at_once(model: PreTrainedModel, *, sparsity: float, only: str, **how: Any) -> PreTrainedModel:
    """A pruned model, without training."""
    return compress.prune(model, sparsity=sparsity, only=only)


GRID = {"group": "tensor", "symmetric": False, "activation_bits": None, "embeddings": True}  # one grid a matrix
LOW, TRAIN = compress.low_rank_model, compress.tensor_train_model
RANKS: dict[str, dict[str, Any]] = {"low rank 64": {"rank": 64, "into": LOW}, "low rank 32": {"rank": 32, "into": LOW}}
RANKS |= {"tensor train 16": {"rank": 16, "into": TRAIN}, "low rank 64, 8 bits": {"rank": 64, "into": LOW, "bits": 8}}
RANKS["low rank 64, pruned 0.5, 8 bits"] = {"rank": 64, "into": LOW, "bits": 8, "sparsity": 0.5}
OUTPUT = {"sparsity": 0.9, "only": "output"}
PIPELINE: dict[str, Callable[..., PreTrainedModel]] = {
    "as it is": lambda m, **how: m,
    "trained on": compress.finetune,
    "output pruned 0.9 at once": partial(at_once, **OUTPUT),
    "output pruned 0.9": partial(compress.prune, prunings=3, schedule="uniform", **OUTPUT),
    "all pruned 0.5": partial(compress.prune, sparsity=0.5, prunings=3, schedule="uniform"),
    **{f"{bits} bits": partial(compress.quantize, bits=bits, **GRID) for bits in (8, 4)},
    **{name: partial(in_factors, **given) for name, given in RANKS.items()},
}

COMPRESSIONS: dict[str, Callable[..., PreTrainedModel]] = {
    "as it is": lambda m, **how: m,
    "trained on": compress.finetune,
    **{
        f"{name} {budget}": partial(low_rank, budget=budget, method=method)
        for name, method in (("low rank", "svd"), ("tensor train", "tensor_train"))
        for budget in (0.5, 0.25)
    },
    **{f"fused {share}": partial(compress.fuse, share=share) for share in (0.5,)},
    **{f"pruned {s}": partial(compress.prune, sparsity=s, prunings=3, schedule="uniform") for s in (0.5,)},
    **{f"{bits} bits": partial(compress.quantize, bits=bits, activation_bits=None) for bits in (8, 4)},
}


def of_smaller(what: str, arm: str, seed: int) -> dict[str, Any]:
    """One way to make the decoder or the LSTM smaller, and its loss."""
    made, ways = {DECODER: (decoder, COMPRESSIONS), RECURRENT: (recurrent, PIPELINE)}[what]
    how = given(seed, AFTER | {"learning_rate": RATES[what]})
    return said(ways[arm](made(), **how, objective=compress.LanguageModel()))


def one(what: str, arm: str, seed: int) -> dict[str, Any]:
    return {MASKED: of_student}.get(what, of_smaller)(what, arm, seed)


def settings() -> Iterator[dict[str, Any]]:
    for seed in SEEDS:
        for arm in ARMS:
            yield {"what": MASKED, "arm": arm, "seed": seed}
    for seed in SMALLER_SEEDS:
        for what, ways in ((DECODER, COMPRESSIONS), (RECURRENT, PIPELINE)):
            for arm in ways:
                yield {"what": what, "arm": arm, "seed": seed}


def figure(table: pd.DataFrame) -> None:
    """Perplexity against bytes, a mark a model, with the interval over texts."""
    fig, axes = plt.subplots(1, 2, figsize=(13, 4.5), layout="constrained")
    for ax, what in zip(axes, (DECODER, RECURRENT), strict=True):
        for number, row in enumerate(table[table["what"] == what].to_dict("records")):
            spread = [[row["perplexity"] - np.exp(row["low"])], [np.exp(row["high"]) - row["perplexity"]]]
            look = {
                "fmt": "osD^vPX"[number % 7],
                "color": f"C{number % 10}",
                "label": row["arm"],
                "ms": 5,
                "capsize": 2,
            }
            ax.errorbar(row["bytes"] / 1e6, row["perplexity"], spread, **look)
        ax.set(xlabel="MB as stored", yscale="log", title=what)
        for which in ("major", "minor"):
            ax.tick_params(which=which, labelsize=8)
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter("{x:g}")
        ax.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    axes[0].set_ylabel("perplexity of a token, held-out text (lower is better)")
    fig.savefig(HERE / "language_models.png", dpi=110)


def taught(students: pd.DataFrame) -> pd.DataFrame:
    """Hold what is claimed of a teacher against what came out: nats less, by seed."""
    found = paired(students, "nats", {"arm": ALONE}, {"arm": TAUGHT})
    rows = [["a student with its teacher has less loss than without", *found, verdict(*found[1:])]]
    return pd.DataFrame(rows, columns=["claim", "nats less", "low", "high", "verdict"])


def main() -> int:
    table = runs(one, settings(), FOLDER, "language models")
    table.to_csv(HERE / "language_models.csv", index=False)
    students, decoders, recurrents = (table[table["what"] == what] for what in (MASKED, DECODER, RECURRENT))
    figure(table)
    by_text = students.loc[students["arm"] == TAUGHT, ["seed", "less", "less_low", "less_high"]]
    by_text = by_text.rename(columns={"less": "taught minus alone", "less_low": "low", "less_high": "high"})
    columns = ["arm", "bytes", "nats", "low", "high", "perplexity", "bits_per_byte"]
    teacher, claims = said(masked_teacher())["nats"], taught(students)
    texts = f"bundled, {len(corpus('train')):,} sentences in 8 languages of its train split to train on, "
    texts += f"{len(held_out()):,} of its test split to measure"
    text = f"""# Language models: a teacher, and perplexity against bytes

{provenance(corpus=texts)}
All by `compress.LanguageModel`, {TEACHER["steps"]} steps of 32 sentences for the models that the others are made of.

## Does a teacher help?

A masked language model of 2 of the 6 layers of its teacher (loss {teacher:.3f} nats a masked token of
held-out text), trained for {STUDENT["steps"]} steps on the text of all languages: by the text alone, or half by the
text and half by what its teacher says of the masked tokens. {len(SEEDS)} seeds, of one teacher; mean over the seeds and
its 95 % interval (Student's t), positive is what is claimed:

{markdown(claims)}
{markdown(students.groupby("arm", sort=False)[["nats"]].mean().reset_index())}
All are hardly trained: the teacher itself, without the steps of its students, is no better than they are.

Nats a masked token, over the texts that were held out (bootstrap by sentence), one pair of students a seed:

{markdown(by_text)}
## A decoder: perplexity against bytes

The architecture of GPT-2 (6 layers, 128 wide, {len(bundled()[1]):,} tokens), made smaller and trained for
{AFTER["steps"]} steps after it, or while it is; "trained on" has had these steps and is as large as before. Bytes are
those that the smallest format known here would store. `low` and `high` are of `nats`, over sentences.

{markdown(decoders[columns])}
## An LSTM: pruned, quantised, of low rank, in tensor trains

Two layers, 128 wide, after Grachev, Ignatov and Savchenko 2019, arXiv 1902.02380: the output layer pruned, all matrices
and embeddings on one affine grid each, the recurrent part and the output of low rank or the recurrent part in tensor
trains, and these one after another. All but "as it is" and "at once" had {AFTER["steps"]} steps. No format here stores
integers without zeros: where both are done, bytes are those of the integers.

{markdown(recurrents[columns])}
![Perplexity against bytes](language_models.png)
"""
    return written("language_models", text, claims, by_text, decoders[columns], recurrents[columns])


if __name__ == "__main__":
    sys.exit(main())
