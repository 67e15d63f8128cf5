"""CKA and retrieval against the peers, on the same pooled states and from the same text, in one process.

Peers: pytorch-cka, ckatorch and torch_cka, and the formula of MEXA in Python.
"""

import contextlib
import copy
import io
from collections.abc import Iterator

from common import Row, agreement, checkpoint_and_corpus, installed, interleaved, run  # first: it sets the environment

# isort: split
import numpy as np
import torch

import compress
import probes


def rows(quick: bool) -> Iterator[Row]:
    rounds = 3 if quick else 7
    yield from pooled_states(rounds, layers=4 if quick else 13)
    yield from retrieval(rounds, sentences=300 if quick else 1000)
    yield from from_text(3, texts=128 if quick else 1024)


def pooled_states(rounds: int, layers: int) -> Iterator[Row]:
    pytorch_cka, ckatorch = installed("cka"), installed("ckatorch")
    rng = np.random.default_rng(0)
    states = np.cumsum(rng.normal(size=(layers, 1000, 768)), axis=0).astype(np.float32)
    others = states + rng.normal(size=states.shape).astype(np.float32)
    reps, other = probes.from_arrays(states), probes.from_arrays(others)
    x, y = torch.from_numpy(states), torch.from_numpy(others)
    found = {}

    def ours(*models, draws: int = 2) -> None:  # type: ignore[no-untyped-def]
        found["ours"] = probes.similarity(*models, measure="cka_debiased", draws=draws).value.sel(language="pooled")

    def stacked(second: torch.Tensor) -> None:
        found["pytorch-cka"] = pytorch_cka.cka_from_features(x, second)

    def one_by_one() -> None:
        pairs = [ckatorch.cka_base(a, b, unbiased=True) for a in x for b in x]
        found["ckatorch"] = torch.stack(pairs).reshape(layers, layers)

    def said(peer: str) -> str:
        return agreement(found["ours"], found[peer], 1e-4) if peer in found else ""

    what = f"debiased CKA of {layers} x {layers} layers, 1000 x 768, one model"
    tasks = {"ours": lambda: ours(reps)}
    tasks |= {"pytorch-cka": lambda: stacked(x)} if pytorch_cka else {}
    seconds = interleaved(tasks | ({"ckatorch": one_by_one} if ckatorch else {}), rounds)
    for peer in ("pytorch-cka", "ckatorch"):
        yield Row(what, seconds["ours"], seconds.get(peer), peer, note=said(peer))
    tasks = {"ours": lambda: ours(reps, other)}
    seconds = interleaved(tasks | ({"pytorch-cka": lambda: stacked(y)} if pytorch_cka else {}), rounds)
    what = what.replace("one model", "two models")
    yield Row(what, seconds["ours"], seconds.get("pytorch-cka"), "pytorch-cka", note=said("pytorch-cka"))
    seconds = interleaved({"draws": lambda: ours(reps, draws=200), "value": lambda: ours(reps)}, rounds)
    yield Row(what.replace("two models", "200 draws"), seconds["draws"], seconds["value"], "ours, the value alone")


def retrieval(rounds: int, sentences: int) -> Iterator[Row]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(sentences, 768)).astype(np.float32)
    y = x + 4 * rng.normal(size=x.shape).astype(np.float32)
    ids = np.tile(np.arange(sentences), 2)
    reps = probes.from_arrays(np.concatenate([x, y])[None], id=ids, language=np.repeat(["a", "b"], sentences))
    found = {}

    def mexa() -> None:
        """Its formula, one cosine a pair in Python."""
        cosine = np.empty((len(x), len(x)))
        for i, a in enumerate(x):
            for j, b in enumerate(y):
                cosine[i, j] = np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b))
        best = [
            cosine[i, i] > max(np.delete(cosine[i], i).max(), np.delete(cosine[:, i], i).max()) for i in range(len(x))
        ]
        found["mexa"] = np.mean(best)

    def ours(draws: int) -> None:
        found["ours"] = probes.retrieval(reps, pivot="a", draws=draws).value.sel(language="b")

    tasks = {"value": lambda: ours(2), "draws": lambda: ours(200), "mexa": mexa}
    seconds = interleaved(tasks, rounds)
    what = f"retrieval of {sentences} x 768, one layer"
    apart = agreement(found["ours"], found["mexa"], 1e-9)
    yield Row(what, seconds["value"], seconds["mexa"], "MEXA's formula in Python", note=apart)
    yield Row(f"{what}, 200 draws", seconds["draws"], seconds["mexa"], "MEXA's formula in Python, no draws")


def from_text(rounds: int, texts: int) -> Iterator[Row]:
    torch_cka = installed("torch_cka")
    model, tokenizer, corpus, called = checkpoint_and_corpus(texts)
    pruned = compress.prune(model, sparsity=0.6)
    copies = [copy.deepcopy(m.base_model) for m in (model, pruned)]  # for the peer, which leaves its hooks

    class Runs(torch.nn.Module):
        """Takes tokens and mask as one tensor, which is what torch_cka hands on."""

        def __init__(self, body: torch.nn.Module) -> None:
            super().__init__()
            self.body = body

        def forward(self, both: torch.Tensor) -> torch.Tensor:
            return self.body(input_ids=both[:, 0], attention_mask=both[:, 1]).last_hidden_state

    def ours() -> None:
        reps = [probes.capture(m, tokenizer, corpus, device="cpu", progress=False) for m in (model, pruned)]
        probes.similarity(*reps, measure="cka_debiased")

    @torch.inference_mode()
    def theirs() -> None:
        tokens = tokenizer(list(corpus["text"]), padding=True, truncation=True, return_tensors="pt")
        both = torch.stack([tokens["input_ids"], tokens["attention_mask"]], dim=1)
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(both), batch_size=64)
        layers = ["body.embeddings", *(f"body.encoder.layer.{i}" for i in range(model.config.num_hidden_layers))]
        models = [Runs(body) for body in copies]
        names = {"model1_name": "base", "model2_name": "pruned", "model1_layers": layers, "model2_layers": layers}
        with contextlib.redirect_stderr(io.StringIO()):
            torch_cka.CKA(*models, **names, device="cpu").compare(loader)
        for module in (*models[0].modules(), *models[1].modules()):
            module._forward_hooks.clear()

    seconds = interleaved({"ours": ours} | ({"torch_cka": theirs} if torch_cka else {}), rounds, most=60)
    yield Row(
        f"two models from {texts:,} texts to CKA, {called}",
        seconds["ours"],
        seconds.get("torch_cka"),
        "torch_cka",
        note="another quantity: torch_cka takes all tokens, padding too, 64 texts at a time",
    )


if __name__ == "__main__":
    run(rows)
