"""What sparse vectors cost and find, by how hard they are pushed to be sparse; and next to them dense ones.

The task: to each test sentence of the bundled corpus in seven languages, its English translation among 360. "dense" are
the mean last states of the bundled model; "dense, trained" a linear map of them to as many features, without ReLU,
trained on the same contrastive loss. Times are of one query at a time against 100,000 texts, drawn so that each feature
is active as often as in the test split, and in turns with dense vectors of as many dimensions as are named, by a matrix
product. In time the 1,000 best are re-ranked, by dense vectors of the model's own size; in recall the 100 best, by the
mean states of the same model.

python tests/benchmarks/bench_retrieval.py [steps]
"""

import copy
import sys
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import common  # noqa: F401  # quiet threads, before NumPy is loaded
import numpy as np
import scipy.sparse
import torch
import torch.nn.functional as F
from threadpoolctl import threadpool_limits

import probes
from compress.objectives.sparse import Translations
from compress.retrieval.index import inverted_index, nearest
from compress.retrieval.retrieval_cost import recall, retrieval_cost
from compress.retrieval.sparse_embeddings import sparse_embeddings
from compress.retrieval.sparsify_embeddings import sparsify_embeddings
from compress.training.loop import train

FEATURES, TEXTS, QUERIES = 512, 100_000, 50
WEIGHTS = [("flops", 0.0), ("flops", 0.1), ("flops", 1.0), ("flops", 10.0), ("l1", 0.003), ("l1", 0.03), ("l1", 0.3)]
steps = int(sys.argv[1]) if len(sys.argv) > 1 else 200
model, tokenizer = probes.load_checkpoint("bundled")
corpus, test = probes.load_corpus("bundled", split="train"), probes.load_corpus("bundled", split="test")
languages, ids = np.array(test["language"][:]), np.array(test["id"][:])
of = {name: np.flatnonzero(languages == name)[np.argsort(ids[languages == name])] for name in np.unique(languages)}
english = of.pop("en")
rng = np.random.default_rng(0)


class Dense(torch.nn.Module):
    """In the place of a sparse head: a linear map, no ReLU."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(model.config.hidden_size, FEATURES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.linear(x), dim=-1)


def states(of_model) -> np.ndarray:
    out = probes.capture(of_model, tokenizer, test, pooling="mean_all", progress=False).hidden.values[-1]
    return out / np.linalg.norm(out, axis=1, keepdims=True)


def found_by(vectors: scipy.sparse.csr_array, dense: np.ndarray | None = None) -> list[float]:
    """Recall at 1 and at 10, the mean over languages."""
    index, each = inverted_index(vectors[english]), []
    for rows in of.values():
        rerank = None if dense is None else (dense[rows], dense[english])
        found, _ = nearest(vectors[rows], index, k=10, rerank=rerank, candidates=100)
        each.append([recall(found, np.arange(len(rows)), k) for k in (1, 10)])
    return np.mean(each, axis=0).tolist()


def drawn(chances: np.ndarray, count: int) -> scipy.sparse.csr_array:
    """Vectors with each feature as often active, positive, of length 1."""
    parts = []
    for start in range(0, count, 10_000):
        size = (min(10_000, count - start), len(chances))
        parts.append(scipy.sparse.csr_array((rng.random(size) < chances) * rng.random(size).astype(np.float32)))
    out = scipy.sparse.csr_array(scipy.sparse.vstack(parts, format="csr"))
    lengths = np.sqrt(out.multiply(out).sum(1))
    return scipy.sparse.csr_array(out / np.where(lengths > 0, lengths, 1)[:, None])


def milliseconds(ways: list[Callable[[int], object]]) -> list[float]:
    """Of a query, by each of some ways in turns, so that a busy machine is busy for all of them."""
    taken: list[list[float]] = [[] for _ in ways]
    for i in range(QUERIES):
        for way, seconds in zip(ways, taken, strict=True):
            started = time.perf_counter()
            way(i)
            seconds.append(time.perf_counter() - started)
    return [1000 * median(seconds) for seconds in taken]


def brute_force(queries: np.ndarray, texts: np.ndarray, i: int) -> np.ndarray:
    scores = texts @ queries[i]
    best = np.argpartition(-scores, 10)[:10]
    return best[np.argsort(-scores[best])]


torch.set_num_threads(1)
own = states(model)
dense_rows = [("dense", model.config.hidden_size, found_by(scipy.sparse.csr_array(own)))]
control = copy.deepcopy(model)
control.sparse_head = Dense()
rows = corpus.remove_columns("label")
how = {"steps": steps, "learning_rate": 1e-3, "progress": False}
train(control, tokenizer, rows, objective=[Translations(rows["id"][:], tokenizer)], **how)
with torch.inference_mode():
    mapped = control.sparse_head(
        torch.from_numpy(probes.capture(control, tokenizer, test, pooling="mean_all", progress=False).hidden.values[-1])
    ).numpy()
dense_rows.append(("dense, trained", FEATURES, found_by(scipy.sparse.csr_array(mapped))))
with threadpool_limits(1):
    sizes = [size for _, size, _ in dense_rows]
    plain = {size: [rng.standard_normal((n, size), dtype=np.float32) for n in (QUERIES, TEXTS)] for size in sizes}
    print(f"\n{steps} steps, {FEATURES} features, one thread; {len(english)} English sentences, 7 languages")
    print(f"{'':16}{'used':>6}{'non-zeros':>11}{'F':>8}{'R_sub':>7}{'d/F':>8}{'recall@1':>10}{'@10':>6}", end="")
    print(f"{'re-ranked@1':>13}{'ms/query':>10}{'re-ranked':>11}" + "".join(f"{f'dense {s}':>11}" for s in sizes))
    for name, size, (one, ten) in dense_rows:
        print(f"{name:16}{size:6}{size:11}{size:8}{'':15}{one:10.3f}{ten:6.3f}")
    for form, weight in WEIGHTS:
        given = {"flops": 0.0, form: weight, **how}
        sparse = sparsify_embeddings(model, train=corpus, tokenizer=tokenizer, features=FEATURES, **given)
        vectors, dense = sparse_embeddings(sparse, tokenizer, test, progress=False), states(sparse)
        cost, (one, ten), again = retrieval_cost(vectors), found_by(vectors), found_by(vectors, dense)[0]
        chances = np.bincount(vectors.indices, minlength=FEATURES) / len(test)
        texts, queries = drawn(chances, TEXTS), drawn(chances, QUERIES)
        index = inverted_index(texts)
        by_states = plain[dense.shape[1]]
        ways = [lambda i, q=queries, x=index: nearest(q[[i]], x)]
        ways += [lambda i, q=queries, x=index, d=by_states: nearest(q[[i]], x, rerank=(d[0][[i]], d[1]))]
        ways += [partial(brute_force, *plain[size]) for size in sizes]
        taken = milliseconds(ways)
        print(
            f"{f'{form} {weight:g}':16}{cost['features_used']:6.0f}{cost['nonzeros']:11.1f}{cost['flops']:8.2f}"
            f"{cost['suboptimality']:7.2f}{cost['speed_up']:8.0f}{one:10.3f}{ten:6.3f}{again:13.3f}{taken[0]:10.2f}"
            + "".join(f"{ms:11.2f}" for ms in taken[1:]),
            flush=True,
        )
