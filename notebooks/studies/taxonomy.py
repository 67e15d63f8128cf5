"""What the families of compression cost and keep: one member of each that works here, on the bundled model.

    make study-taxonomy

The page lists every family of two surveys, O' Neill 2020, arXiv 2006.03669, and Xu and McAuley 2023, arXiv 2202.07105,
with the call that does it here, or why there is none. `FAMILIES` is that list, `MEMBERS` the calls that are measured:
the words of the page are what is run.

Runs are kept in runs/study-taxonomy/; an interrupted study goes on from there. Writes taxonomy.csv beside this file and
../guide/taxonomy.md.
"""

from __future__ import annotations

import sys
import time
from functools import cache
from typing import Any

import common
import pandas as pd
import torch
from taxonomy_families import FAMILIES, MEMBERS

import compress
import probes
from probes.costs import as_stored

FOLDER = common.ROOT / "runs" / "study-taxonomy"
PAGE = common.ROOT / "notebooks" / "guide" / "taxonomy.md"
IDS, DRAWS, STEPS = 120, 200, 40
HOW: dict[str, Any] = {"steps": STEPS, "learning_rate": 5e-4, "progress": False}


def names() -> dict[str, Any]:
    """What the calls of the page are made with."""
    model, tokenizer = common.bundled()
    train, dev = common.corpus("train", "en"), common.corpus("dev")
    chosen = set(sorted(set(dev["id"]))[:20])
    torch.manual_seed(0)
    return {
        "compress": compress,
        "model": model,
        "tokenizer": tokenizer,
        "untrained": type(model)(model.config),
        "train": train,
        "few": train.select(range(0, len(train), 20)),
        "some": dev.select([i for i, one in enumerate(dev["id"]) if one in chosen]).remove_columns("split"),
        "trained": HOW,
        "how": {"train": train, "tokenizer": tokenizer, **HOW},
    }


def states_of(model: Any) -> Any:
    """What the last layer of a model makes of some sentences of the test split, in all languages; its number is 0, so
    that models of any depth are compared.
    """
    _, tokenizer = common.bundled()
    test = common.corpus("test")
    every = sorted(set(test["id"]))
    chosen = set(every[:: len(every) // IDS][:IDS])
    some = test.select([i for i, sentence in enumerate(test["id"]) if sentence in chosen])
    return probes.capture(model, tokenizer, some, progress=False).isel(layer=[-1]).assign_coords(layer=[0])


@cache
def states_before() -> Any:
    """What the bundled model makes of them."""
    return states_of(common.bundled()[0])


def one_run(member: str) -> dict[str, Any]:
    """Make a smaller model by a call of the page, and measure it."""
    known = names()
    started = time.process_time()
    made = eval(MEMBERS[member], known)
    seconds = time.process_time() - started
    found: dict[str, Any] = {"seconds": seconds, **as_stored(made)}
    before, after = states_before(), states_of(made)
    for name, probe, further in (("retrieval", probes.retrieval, {"pivot": "en"}), ("accuracy", probes.accuracy, {})):
        one, other = (probe(reps, draws=DRAWS, **further) for reps in (after, before))
        change = probes.difference(one, other)
        found[name] = float(one.value.sel(language="pooled").values.ravel()[0])
        for key in ("difference", "low", "high"):
            found[f"{name} {key}"] = float(change[key].sel(language="pooled").values.ravel()[0])
    return found


def main() -> int:
    """Make the runs that are missing, and write the table and the page."""
    table = common.runs(one_run, [{"member": name} for name in MEMBERS], FOLDER, "members")
    table.insert(1, "call", [MEMBERS[name] for name in table["member"]])
    table.round(5).to_csv(common.HERE / "taxonomy.csv", index=False, lineterminator="\n")
    PAGE.write_text(page(table), encoding="utf-8")
    return 0


def page(table: pd.DataFrame) -> str:
    """The page: the families, and what their members cost and keep."""
    by_name = table.set_index("member")
    chance, whole = by_name.loc["random, the control"], by_name.loc["as it is"]
    return TEXT.format(
        chance_retrieval=chance["retrieval"],
        chance_accuracy=chance["accuracy"],
        whole_retrieval=whole["retrieval"],
        families="\n".join(map(_family, FAMILIES)),
        members=_members(table),
        ids=IDS,
        draws=DRAWS,
        steps=common.steps(STEPS),
        rate=HOW["learning_rate"],
        minutes=round(table["seconds"].sum() / 60, 1),
        provenance=common.provenance(),
    )


def _family(family: str) -> str:
    rows = [("", "what works here", "not here, because"), ("---", "---", "---")]
    linked: dict[str, None] = {}
    for part in FAMILIES[family]:
        rows.append((part.name, "<br>".join(f"`{call}`" for call in part.calls) or "-", part.not_here or "-"))
        linked |= dict.fromkeys(part.names)
    lines = "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in rows)
    return f"## {family}\n\n{lines}\nIn the reference: {', '.join(f'`{name}`' for name in linked)}.\n"


def _members(table: pd.DataFrame) -> str:
    whole = table.set_index("member").loc["as it is", "stored_bytes"]
    out = pd.DataFrame({"": table["member"], "call": "`" + table["call"] + "`"})
    out["MB"] = [f"{b / 1e6:.2f}" for b in table["stored_bytes"]]
    out["of the bytes"] = [f"{b / whole:.0%}" for b in table["stored_bytes"]]
    for name in ("retrieval", "accuracy"):
        out[name] = [f"{v:.3f}" for v in table[name]]
        ends = zip(table[f"{name} difference"], table[f"{name} low"], table[f"{name} high"], strict=True)
        out[f"change of {name}"] = [
            "" if member == "as it is" else f"{d:+.3f} [{low:+.3f}, {high:+.3f}]"
            for member, (d, low, high) in zip(table["member"], ends, strict=True)
        ]
    out["seconds"] = [f"{s:.1f}" for s in table["seconds"]]
    return common.markdown(out)


TEXT = """# Families of compression

What there is to make a model smaller, by the families of two surveys (O' Neill 2020, arXiv 2006.03669, whose order
this is, and Xu and McAuley 2023, arXiv 2202.07105, for inference), and the call that does it here, or why there is
none. What these calls cost and keep is [measured below](#what-they-cost-and-keep).

{families}
## What they cost and keep

One member of each that makes the bundled model smaller, measured on {ids} sentences of its test split in all eight
languages: `MB` as the smallest format that is known here would store the whole model, its embeddings too, which most
members leave as they are; retrieval of translations by the last states (pivot English) and accuracy of the topics, both
pooled over the languages, with the paired change to the model as it is and its 95 % interval ({draws} draws of
sentences); seconds of processor time to make it. `how` is {steps} on the English labels (learning rate {rate}),
`trained` the same without the corpus, `few` and `some` are 60 English sentences of the train split and 20 of the dev
split in all languages, `untrained` is the model before any training.

{members}
What is of decoders, of samplers and of embeddings of sentences has tables of its own: [output codes, noise contrast,
healing, near words, rewards and samplers](../studies/training.md), and
[sparse embeddings](../reference/compress/retrieval/sparsify_embeddings.md).

How to read it: the calls are not of equal size, so that rows of different `MB` are no ranking. Studies of their own
compare [pruning](../studies/pruning.md), [quantisation](../studies/quantization.md),
[distillation](../studies/distillation.md) and [what to give back](../studies/restore.md), with seeds. A training is on
English alone (of a teacher that learns, which asks for several languages, on `some`), short and of one seed: it tells
whether a member learns, not how far it gets.

Retrieval alone says little here: weights taken away by chance, the control, leave it at {chance_retrieval:.2f} where
the model, fine-tuned on topics, has {whole_retrieval:.2f}, and accuracy at {chance_accuracy:.2f}, chance among six
topics. So a gain in retrieval beside a loss in accuracy is no gain, and accuracy is to be read first.

Made by `make study-taxonomy`; the calls alone took {minutes} minutes of processor time.

{provenance}"""


if __name__ == "__main__":
    # By its name, so that the processes of the runs find what is kept there.
    import taxonomy

    sys.exit(taxonomy.main())
