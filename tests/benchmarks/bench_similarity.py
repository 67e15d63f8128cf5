"""CKA and retrieval against the peers, on the same pooled states and from the same text, in one process.

python tests/benchmarks/bench_similarity.py [rounds]

Peers: pytorch-cka, ckatorch and torch_cka (`make bench` installs them), and the formula of MEXA in Python.
"""

import contextlib
import copy
import io
import sys
import warnings

import numpy as np
import torch
from common import checkpoint_and_corpus, interleaved

import compress
import probes

rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7


def table(title: str, seconds: dict[str, float], ours: str) -> None:
    print(f"\n{title:58}{'seconds':>9}{'to ours':>9}")
    for name, t in seconds.items():
        print(f"{name:58}{t:9.3f}{t / seconds[ours]:9.1f}")


def pooled_states() -> None:
    try:
        import cka as pytorch_cka
        import ckatorch
    except ImportError:
        print("pytorch-cka and ckatorch are not installed")
        return
    rng = np.random.default_rng(0)
    states = np.cumsum(rng.normal(size=(13, 1000, 768)), axis=0).astype(np.float32)
    others = states + rng.normal(size=states.shape).astype(np.float32)
    reps, other = probes.from_arrays(states), probes.from_arrays(others)
    x, y = torch.from_numpy(states), torch.from_numpy(others)

    def one_by_one() -> None:
        for a in x:
            for b in x:
                ckatorch.cka_base(a, b, unbiased=True)

    def debiased(*models, draws: int = 2):  # type: ignore[no-untyped-def]
        return lambda: probes.similarity(*models, measure="cka_debiased", draws=draws)

    table(
        "debiased CKA of 13 x 13 layers, 1000 x 768, one model",
        interleaved({"ours": debiased(reps), "pytorch-cka": lambda: pytorch_cka.cka_from_features(x, x)}, rounds)
        | interleaved({"ckatorch": one_by_one}, 1),
        "ours",
    )
    table(
        "the same, two models",
        interleaved(
            {"ours": debiased(reps, other), "pytorch-cka": lambda: pytorch_cka.cka_from_features(x, y)}, rounds
        ),
        "ours",
    )
    table(
        "the same, with 200 bootstrap draws",
        interleaved({"ours, the value alone": debiased(reps), "ours, 200 draws": debiased(reps, draws=200)}, rounds),
        "ours, the value alone",
    )


def from_text() -> None:
    try:
        from torch_cka import CKA
    except ImportError:
        print("torch_cka is not installed")
        return
    model, tokenizer, corpus = checkpoint_and_corpus(1024)
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
        reps = [probes.capture(m, tokenizer, corpus, progress=False) for m in (model, pruned)]
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
            CKA(*models, **names, device="cpu").compare(loader)
        for module in (*models[0].modules(), *models[1].modules()):
            module._forward_hooks.clear()

    table("two models from 1,024 texts to CKA", interleaved({"ours": ours, "torch_cka": theirs}, 3), "ours")


def retrieval() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1000, 768)).astype(np.float32)
    y = x + rng.normal(size=x.shape).astype(np.float32)
    ids = np.tile(np.arange(1000), 2)
    reps = probes.from_arrays(np.concatenate([x, y])[None], id=ids, language=np.repeat(["a", "b"], 1000))

    def mexa() -> float:
        """Its formula, one cosine a pair in Python."""
        cosine = np.empty((len(x), len(x)))
        for i, a in enumerate(x):
            for j, b in enumerate(y):
                cosine[i, j] = np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b))
        best = [
            cosine[i, i] > max(np.delete(cosine[i], i).max(), np.delete(cosine[:, i], i).max()) for i in range(len(x))
        ]
        return float(np.mean(best))

    tasks = {
        "ours": lambda: probes.retrieval(reps, pivot="a", draws=2),
        "ours, 200 draws": lambda: probes.retrieval(reps, pivot="a"),
    }
    table(
        "retrieval of 1000 x 768, one layer",
        interleaved(tasks, rounds) | interleaved({"MEXA's formula in Python": mexa}, 1),
        "ours",
    )


warnings.simplefilter("ignore")
print(f"{torch.get_num_threads()} threads")
pooled_states()
retrieval()
from_text()
