"""What sparse vectors cost and find, by how hard they are pushed to be sparse; and next to them dense ones.

The task: to each test sentence of the bundled corpus in seven languages, its English translation among 360. "dense" are
the mean last states of the bundled model; "dense, trained" a linear map of them to as many features, without ReLU,
trained on the same contrastive loss. Times are of one query at a time, on one thread, against 100,000 texts, drawn so
that each feature is active as often as in the test split, and in turns with dense vectors by a matrix product. In time
the 1,000 best are re-ranked, by dense vectors of the model's own size; in recall the 100 best, by the mean states of
the same model.
"""

import copy
import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median

from common import Row, run  # first: it sets the environment

# isort: split
import numpy as np
import scipy.sparse
import torch
import torch.nn.functional as F
from threadpoolctl import threadpool_limits

import probes
from compress import (
    inverted_index,
    nearest,
    recall,
    retrieval_cost,
    sparse_embeddings,
    sparsify_embeddings,
)
from compress.objectives import Translations
from compress.training import train

FEATURES = 512
WEIGHTS = [("flops", 0.0), ("flops", 0.1), ("flops", 1.0), ("flops", 10.0), ("l1", 0.003), ("l1", 0.03), ("l1", 0.3)]


def rows(quick: bool) -> Iterator[Row]:
    steps, texts, queries = (50, 20_000, 20) if quick else (200, 100_000, 50)
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

    def states(of_model) -> np.ndarray:  # type: ignore[no-untyped-def]
        how = {"pooling": "mean_all", "device": "cpu", "progress": False}
        return probes.capture(of_model, tokenizer, test, **how).hidden.values[-1]

    def found_by(vectors: scipy.sparse.csr_array, dense: np.ndarray | None = None) -> list[float]:
        """Recall at 1 and at 10, the mean over languages."""
        index, each = inverted_index(vectors[english]), []
        for own in of.values():
            rerank = None if dense is None else (dense[own], dense[english])
            found, _ = nearest(vectors[own], index, k=10, rerank=rerank, candidates=100)
            each.append([recall(found, np.arange(len(own)), k) for k in (1, 10)])
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

    def seconds(ways: list[Callable[[int], object]]) -> list[float]:
        """Of a query, by each of some ways in turns, so that a busy machine is busy for all of them."""
        taken: list[list[float]] = [[] for _ in ways]
        for i in range(queries):
            for way, times in zip(ways, taken, strict=True):
                started = time.perf_counter()
                way(i)
                times.append(time.perf_counter() - started)
        return [median(times) for times in taken]

    torch.set_num_threads(1)
    own = normalised(states(model))
    control = copy.deepcopy(model)
    control.sparse_head = Dense()
    pairs = corpus.remove_columns("label")
    how = {"steps": steps, "learning_rate": 1e-3, "progress": False}
    train(control, tokenizer, pairs, objective=[Translations(pairs["id"][:], tokenizer)], **how)
    with torch.inference_mode():
        mapped = control.sparse_head(torch.from_numpy(states(control))).numpy()
    trained = found_by(scipy.sparse.csr_array(mapped))[0]
    untrained = found_by(scipy.sparse.csr_array(own))[0]
    with threadpool_limits(1):
        sizes = (FEATURES, model.config.hidden_size)
        plain = {size: [rng.standard_normal((n, size), dtype=np.float32) for n in (queries, texts)] for size in sizes}
        for form, weight in WEIGHTS[1:6:2] if quick else WEIGHTS:
            given = {"flops": 0.0, form: weight, **how}
            sparse = sparsify_embeddings(model, train=corpus, tokenizer=tokenizer, features=FEATURES, **given)
            vectors, dense = sparse_embeddings(sparse, tokenizer, test, progress=False), normalised(states(sparse))
            cost, (one, ten), again = retrieval_cost(vectors), found_by(vectors), found_by(vectors, dense)[0]
            chances = np.bincount(vectors.indices, minlength=FEATURES) / len(test)
            index, asked = inverted_index(drawn(chances, texts)), drawn(chances, queries)
            by_states = plain[dense.shape[1]]
            ways = [lambda i, q=asked, x=index: nearest(q[[i]], x)]
            ways += [lambda i, q=asked, x=index, d=by_states: nearest(q[[i]], x, rerank=(d[0][[i]], d[1]))]
            ways += [partial(brute_force, *plain[size]) for size in sizes]
            bare, reranked, wide, narrow = seconds(ways)
            what = f"query among {texts:,} sparse vectors, {form} {weight:g}"
            note = f"recall@1 {one:.3f} (dense, trained: {trained:.3f}), @10 {ten:.3f}; {cost['features_used']:.0f} "
            note += f"features used, {cost['nonzeros']:.1f} non-zeros, F {cost['flops']:.2f}, "
            note += f"R_sub {cost['suboptimality']:.2f}, d/F {cost['speed_up']:.0f}"
            yield Row(what, bare, wide, f"dense, {FEATURES}", note=note)
            note = f"recall@1 {again:.3f} (dense, not trained: {untrained:.3f})"
            yield Row(f"{what}, re-ranked", reranked, narrow, f"dense, {dense.shape[1]}", note=note)


def normalised(states: np.ndarray) -> np.ndarray:
    return states / np.linalg.norm(states, axis=1, keepdims=True)


def brute_force(queries: np.ndarray, texts: np.ndarray, i: int) -> np.ndarray:
    scores = texts @ queries[i]
    best = np.argpartition(-scores, 10)[:10]
    return best[np.argsort(-scores[best])]


if __name__ == "__main__":
    run(rows)
