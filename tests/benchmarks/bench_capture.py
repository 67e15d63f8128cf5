"""Capture and all probes against the bare forward pass and the usual way of extracting states.

python tests/benchmarks/bench_capture.py [sentences] [rounds]
"""

import sys
from functools import partial

import torch
from common import checkpoint_and_corpus, interleaved

import probes
from probes.measures.catalogue import families
from probes.states.tokens import Batches, tokenise

rows, rounds = (int(a) for a in (sys.argv[1:] + ["2000", "3"][len(sys.argv) - 1 :]))
model, tokenizer, corpus = checkpoint_and_corpus(rows)
pivot = "eng_Latn" if "eng_Latn" in corpus["language"] else "en"
tokens = tokenise(tokenizer, corpus, tokenizer.model_max_length, model, "model")
batches = Batches(tokens, 64, 4096)
prepared = [batches.tensors(part, "mean", torch.device("cpu"))[0] for part in batches.over(0, rows)]
body = model.base_model


@torch.inference_mode()
def bare() -> None:
    for inputs in prepared:
        body(**inputs)


@torch.inference_mode()
def usual() -> None:
    """Corpus order, batches of 32 padded to the longest, all hidden states, mean over the attended tokens."""
    kept = []
    for i in range(0, rows, 32):
        inputs = tokenizer(corpus[i : i + 32]["text"], padding=True, truncation=True, return_tensors="pt")
        mask = inputs["attention_mask"].unsqueeze(-1)
        states = body(**inputs, output_hidden_states=True).hidden_states
        kept.append(torch.stack([(h * mask).sum(1) / mask.sum(1) for h in states]))
    torch.cat(kept, dim=1)


def capture() -> None:
    global reps
    reps = probes.capture(model, tokenizer, corpus, progress=False)


capture()
seconds = interleaved({"bare forward, same batches": bare, "capture": capture, "usual way": usual}, rounds)
forward = seconds["bare forward, same batches"]
print(f"\n{'extraction':34}{'seconds':>9}{'to bare':>9}{'to usual':>10}")
for name, t in seconds.items():
    print(f"{name:34}{t:9.2f}{t / forward:9.2f}{t / seconds['usual way']:10.2f}")

measures = {name: partial(getattr(probes, name), reps) for name in families()["labels"]}
measures |= {name: partial(getattr(probes, name), reps, pivot=pivot) for name in families()["alignment"]}
seconds = interleaved(measures, rounds + 2)
shape = " x ".join(str(reps.sizes[d]) for d in ("layer", "example", "feature"))
print(f"\n{'probe, 200 draws, ' + shape:44}{'seconds':>9}{'to forward':>12}")
for name, t in (seconds | {"all probes": sum(seconds.values())}).items():
    print(f"{name:44}{t:9.3f}{t / forward:12.3f}")
