"""Sparse representations: vectors that are mostly zeros, learned so that retrieval by an inverted index is cheap.

An index has a list for each feature, of the texts in which it is not zero. A query goes through the lists of its own
features only. What that costs is the chance that a feature is active in both, summed over the features: least, at so
many non-zeros a text, where all features are active equally often.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import scipy.sparse
import torch
import transformers
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.matrices import check_plain
from compress.objectives.base import is_whole, pooled
from compress.objectives.sparse import SparseActivations, Translations
from compress.saving import record
from compress.training.loop import check_settings
from compress.training.loop import train as run_training
from probes.corpus import check_corpus
from probes.errors import InputError, LayerscopeWarning
from probes.models.facts import body_of, check_fit, embedding_rows, name_of, types_tokens
from probes.models.fingerprint import weights_fingerprint
from probes.models.formats.sparse_embeddings import apply_sparse_head, sparse_head_of
from probes.states.running import evaluating
from probes.states.tokens import batches_of

ZERO = 1e-8  # up to here a feature counts as zero
_SOME = 1024  # texts that say where the head begins, and what its vectors cost in the end
_SCORES = 2**24  # most scores in memory at once


def sparsify_embeddings(
    model: PreTrainedModel,
    *,
    train: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    steps: int,
    features: int = 512,
    flops: float = 0.1,
    l1: float = 0.0,
    ramp: int | None = None,
    temperature: float = 0.05,
    learning_rate: float = 1e-3,
    seed: int = 0,
    folder: str | Path | None = None,
    **settings: Any,
) -> PreTrainedModel:
    """Return a copy of a model that gives sparse vectors of texts, trained to find translations by them.

    The mean of the last hidden states goes through a linear map to many features, ReLU, and division by the length. Map
    and model are trained on two losses: the vectors of translations of one sentence come together (`Translations`), and
    few features are active, all equally often (`SparseActivations`).

    Args:
        model: an encoder or decoder of transformers; it is not changed.
        train: a corpus with sentence ids in two languages or more; of rows with a split, those of "train". Rows without
            a translation are left out. Labels are not looked at.
        tokenizer: of the model.
        steps: updates of the weights.
        features: of the sparse vectors, at least 1.
        flops: weight of the loss that keeps retrieval cheap, at least 0: the larger, the sparser. 0 for none.
        l1: weight of the L1 norm of the vectors in its place, to compare with.
        ramp: steps until these weights are whole; by default half of all.
        temperature: of the contrastive loss, above 0.
        learning_rate: of the head and the model.
        seed: of the head and the training.
        folder: for checkpoints, as in `compress.training.train`; a training that was interrupted goes on.
        settings: further settings of `compress.training.train`: batch_size, accumulate, evaluate, evaluate_at,
            callbacks, save_every, progress. The negatives of a text are the others of its batch: a larger one is a
            harder task.

    Returns:
        A new model with `model.sparse_head`, for `sparse_embeddings`. `model.config.sparse_embeddings` has its size:
        `probes.load_checkpoint` reads it, and plain transformers loads the model without the head.
        `model.config.compression` says how it was made, and by `cost` what `retrieval_cost` is on at most 1,024 of the
        texts that were trained on; `model.history` is what was logged.

    Raises:
        InputError: no sentence of the corpus is there in two languages; features, steps, weights or ramp are out of
            range; a setting is not known; the model is an encoder-decoder, or has a sparse head already; tokenizer and
            model do not fit; all vectors have become zero; what `compress.training.train` raises.

    Notes:
        Paria, Yeh, Yen, Xu, Ravikumar and Poczos 2020, arXiv 2004.05665: ReLU, the length divided out before the
        regulariser, the mean over the batch before the square, and the quadratic ramp are theirs. Choices made here:
        the contrastive loss, for parallel sentences (theirs were faces and images, with ArcFace and triplets); the mean
        over all tokens, special ones included; AdamW with linear decay; all weights and sizes. The head begins with
        random directions, and with every feature active for about half the texts: its bias is minus the mean of what
        the weights give on at most 1,024 texts.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> corpus = probes.load_corpus("bundled", languages=["en", "de"])
        >>> sparse = sparsify_embeddings(model, train=corpus, tokenizer=tokenizer, steps=2, progress=False)
        >>> list(sparse.history)
        ['step', 'translations', 'flops', 'loss']
        >>> vectors = sparse_embeddings(sparse, tokenizer, corpus.select(range(10)), progress=False)
        >>> vectors.shape
        (10, 512)
    """
    check_plain(model)
    if model.config.is_encoder_decoder:
        raise InputError(f"{type(model).__name__} is an encoder-decoder: expected an encoder or a decoder")
    if hasattr(model, "sparse_head"):
        raise InputError(f"{type(model).__name__} has a sparse head already: give the model that it was made from")
    if not is_whole(features) or features < 1:
        raise InputError(f"features={features!r}: expected a whole number of at least 1")
    for name, weight in (("flops", flops), ("l1", l1)):
        if not isinstance(weight, int | float) or not math.isfinite(weight) or weight < 0:
            raise InputError(f"{name}={weight!r}: expected a finite number of at least 0")
    if not is_whole(steps) or steps < 1:
        raise InputError(f"steps={steps!r}: expected a whole number of at least 1: the head is nothing untrained")
    if ramp is not None and (not is_whole(ramp) or ramp < 0):
        raise InputError(f"ramp={ramp!r}: expected a whole number of steps, 0 for none, or None")
    features, steps = int(features), int(steps)  # what is saved as JSON
    check_settings(settings, train, tokenizer, steps)
    check_fit(embedding_rows(model), tokenizer, name_of(model))
    rows, left_out = _with_translations(train)
    ramp = max(1, steps // 2) if ramp is None else int(ramp)
    sparse = copy.deepcopy(model)
    sparse.config.sparse_embeddings = {"features": features}
    apply_sparse_head(sparse)
    _begin(sparse, tokenizer, _some(rows, seed), seed)
    batches = settings.get("accumulate", 1)
    objective: list[Any] = [Translations(rows["id"][:], tokenizer, temperature)]
    for form, weight in (("flops", flops), ("l1", l1)):
        if weight:
            objective.append(SparseActivations(weight, form, ramp * batches))  # type: ignore[arg-type]
    handle = sparse.register_forward_hook(_keep_head)
    try:
        history = run_training(
            sparse,
            tokenizer,
            rows,
            objective=objective,
            steps=steps,
            learning_rate=learning_rate,
            seed=seed,
            folder=folder,
            about={"ramp": ramp, "temperature": temperature},
            **settings,
        )
    finally:
        handle.remove()
    home: Any = next(model.parameters()).device
    sparse.to(home).train(model.training)
    some = _some(rows, seed)
    how: dict[str, Any] = {
        "method": "sparsify_embeddings",
        "features": features,
        "flops": flops,
        "l1": l1,
        "ramp": ramp,
        "temperature": temperature,
        "steps": steps,
        "learning_rate": learning_rate,
        "seed": seed,
        "texts": len(rows),
        "texts_left_out": left_out,
        "cost": retrieval_cost(sparse_embeddings(sparse, tokenizer, some, progress=False)),
        "parent": weights_fingerprint(model),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    return record(sparse, how, history)


def sparse_embeddings(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: datasets.Dataset,
    *,
    max_length: int | None = None,
    device: str | torch.device | None = None,
    batch_size: int = 64,
    batch_tokens: int = 4096,
    progress: bool = True,
) -> scipy.sparse.csr_array:
    """Return the sparse vectors of texts, by a model of `sparsify_embeddings`.

    Args:
        model: a model with a sparse head.
        tokenizer: the tokenizer that belongs to it.
        corpus: as `load_corpus` gives it.
        max_length, device, batch_size, batch_tokens, progress: as in `probes.capture`.

    Returns:
        (text, feature) in float32, rows in the order of the corpus and of length 1, so that products are cosines. What
        is at most 1e-8 is left out.

    Raises:
        InputError: the model has no sparse head; every vector is zero; corpus, tokenizer, model and settings do not fit
            together.

    Notes:
        A text in which no feature is active has a row of zeros, which finds nothing and is not found; a warning says
        how many there are.

    Example:
        See `sparsify_embeddings`.
    """
    head = sparse_head_of(model)
    corpus = check_corpus(corpus)
    check_fit(embedding_rows(model), tokenizer, name_of(model))
    how = {"max_length": max_length, "device": device, "batch_size": batch_size, "batch_tokens": batch_tokens}
    order, parts = [], []
    for rows, means in _pooled_states(model, tokenizer, corpus, progress, **how):
        vectors = head(means).float().cpu().numpy()
        order.append(rows)
        parts.append(scipy.sparse.csr_array(np.where(np.abs(vectors) > ZERO, vectors, np.float32(0))))
    found = scipy.sparse.csr_array(scipy.sparse.vstack(parts, format="csr"))[np.argsort(np.concatenate(order))]
    empty = int((np.diff(found.indptr) == 0).sum())
    if empty == len(corpus):
        raise InputError(
            f"{name_of(model)}: the vectors of all {empty} texts are zero: the head is dead. Train it again with a "
            "smaller flops= (or l1=), a longer ramp=, or a lower learning_rate="
        )
    if empty:
        warnings.warn(
            f"{name_of(model)}: the vectors of {empty} of {len(corpus)} texts are zero: they find nothing and are not "
            "found. A smaller flops= in training leaves more features active",
            LayerscopeWarning,
            stacklevel=2,
        )
    return found


def inverted_index(vectors: scipy.sparse.sparray) -> scipy.sparse.csr_array:
    """Return the lists of an index: of each feature, the texts in which it is not zero, (feature, text).

    Args:
        vectors: (text, feature), sparse, of the texts that are to be found.

    Raises:
        InputError: the vectors are not sparse, there are none, or a value is NaN or infinite.

    Example:
        >>> import numpy as np, scipy.sparse
        >>> inverted_index(scipy.sparse.csr_array(np.array([[1.0, 0.0], [0.6, 0.8]]))).indices.tolist()
        [0, 1, 1]
    """
    index = scipy.sparse.csr_array(_checked(vectors, "vectors").T)
    index.eliminate_zeros()
    index.sort_indices()
    return index


def nearest(
    queries: scipy.sparse.sparray,
    index: scipy.sparse.csr_array,
    *,
    k: int = 10,
    threshold: float = 0.0,
    rerank: tuple[np.ndarray, np.ndarray] | None = None,
    candidates: int = 1000,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the texts of an index that are most similar to each query, by the products of their vectors.

    Args:
        queries: (query, feature), sparse.
        index: of `inverted_index`.
        k: how many texts for each query, at least 1.
        threshold: texts score above it, at least 0: a text that shares no feature with a query is never found.
        rerank: dense vectors of the queries (query, dimension) and of the texts (text, dimension): the best
            `candidates` texts of each query are put in order by their products instead.
        candidates: of these, at least k.

    Returns:
        Two arrays (query, k): the rows of the texts, the most similar first, -1 where fewer were found; and their
        scores, those of the dense vectors where these were given, NaN where there is none. Of texts with equal scores
        the first comes first.

    Raises:
        InputError: the sizes of queries, index and dense vectors do not fit together; a number is out of range; values
            are NaN or infinite.

    Notes:
        Paria et al. 2020, arXiv 2004.05665, keep scores above 0.25, take the 1,000 best and put these in order by
        dense vectors.

    Example:
        >>> import numpy as np, scipy.sparse
        >>> texts = scipy.sparse.csr_array(np.array([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]]))
        >>> rows, scores = nearest(texts[[0]], inverted_index(texts), k=3)
        >>> rows.tolist(), scores.tolist()
        ([[0, 1, -1]], [[1.0, 0.6, nan]])
    """
    wanted = scipy.sparse.csr_array(_checked(queries, "queries"))
    if not scipy.sparse.issparse(index):
        raise InputError(f"index is a {type(index).__name__}: expected what inverted_index(...) returns")
    if wanted.shape[1] != index.shape[0]:
        raise InputError(
            f"queries of {wanted.shape[1]} features and an index of {index.shape[0]}: expected the same. Give "
            "inverted_index(vectors), not the vectors themselves"
        )
    for name, number in (("k", k), ("candidates", candidates)):
        if not is_whole(number) or number < 1:
            raise InputError(f"{name}={number!r}: expected a whole number of at least 1")
    if not threshold >= 0 or not math.isfinite(threshold):
        raise InputError(f"threshold={threshold!r}: expected a finite number of at least 0")
    dense = None if rerank is None else _dense(rerank, (wanted.shape[0], index.shape[1]))
    if dense is not None and candidates < k:
        raise InputError(f"candidates={candidates} and k={k}: expected at least as many candidates")
    texts = index.shape[1]
    rows, scores = np.full((wanted.shape[0], k), -1), np.full((wanted.shape[0], k), np.nan)
    block = max(1, _SCORES // max(texts, 1))
    for start in range(0, wanted.shape[0], block):
        # Row by row through the lists of the query's features, adding up scores.
        product = wanted[start : start + block] @ index
        for i in range(product.shape[0]):
            part = slice(product.indptr[i], product.indptr[i + 1])
            found, values = product.indices[part], product.data[part]
            above = values > threshold
            found, values = _best(found[above], values[above], k if dense is None else candidates)
            if dense is not None:
                found, values = _best(found, dense[1][found] @ dense[0][start + i], k)
            rows[start + i, : len(found)], scores[start + i, : len(found)] = found, values
    return rows, scores


def recall(found: np.ndarray, wanted: np.ndarray, k: int) -> float:
    """Return the share of queries whose text is among the first k that were found.

    Args:
        found: (query, at least k) rows of texts, as `nearest` returns them.
        wanted: (query), the row of the text that each should find.
        k: at least 1.

    Raises:
        InputError: there are no queries, sizes differ, or fewer than k were looked for.

    Example:
        >>> import numpy as np
        >>> recall(np.array([[3, 1], [2, -1]]), np.array([1, 0]), k=2)
        0.5
    """
    found, wanted = np.asarray(found), np.asarray(wanted)
    if found.ndim != 2 or wanted.shape != found.shape[:1] or not len(wanted):
        raise InputError(
            f"expected found (query, k) and wanted (query), found {found.shape} and {wanted.shape}: one wanted text a "
            "query, and at least one query"
        )
    if not is_whole(k) or not 1 <= k <= found.shape[1]:
        raise InputError(f"k={k!r}: expected a whole number from 1 to {found.shape[1]}, as many as were looked for")
    return float((found[:, :k] == wanted[:, None]).any(1).mean())


def retrieval_cost(vectors: scipy.sparse.sparray) -> dict[str, float]:
    """Say what retrieval by sparse vectors costs, and how evenly their non-zeros are spread.

    With d features, n texts, n_j of them with feature j active, and p_j = n_j / n:

    Args:
        vectors: (text, feature), sparse; at least two texts. Absolute values up to 1e-8 count as zero.

    Returns:
        `nonzeros`: of a text, the mean, sum_j p_j.
        `features`: d; `features_used`: how many are active in any text.
        `flops`: F = sum_j p_j^2, multiplications expected for a pair of a query and a text that are drawn alike.
        `flops_unbiased`: sum_j n_j (n_j - 1) / (n (n - 1)), of pairs of different texts.
        `flops_relaxed`: sum_j a_j^2 with a_j the mean of |f_j|, what is trained for.
        `suboptimality`: d F / nonzeros^2, at least 1; 1 where all features are active equally often.
        `speed_up`: d / F, over dense vectors of as many features; in operations, not in time.

    Raises:
        InputError: there are fewer than two vectors, or all are zero; a value is NaN or infinite.

    Notes:
        Paria et al. 2020, arXiv 2004.05665.

    Example:
        >>> import numpy as np, scipy.sparse
        >>> cost = retrieval_cost(scipy.sparse.csr_array(np.eye(4)))
        >>> cost["flops"], cost["flops_unbiased"], cost["suboptimality"], cost["speed_up"]
        (0.25, 0.0, 1.0, 16.0)
    """
    given = scipy.sparse.csr_array(_checked(vectors, "vectors"))
    n, d = given.shape
    sizes = np.abs(given.data.astype(np.float64))
    active = np.bincount(given.indices[sizes > ZERO], minlength=d).astype(np.float64)
    if n < 2 or not active.any():
        raise InputError(
            f"expected at least two vectors that are not all zero, found {n} with {int(active.sum())} non-zeros"
        )
    flops = float(((active / n) ** 2).sum())
    nonzeros = float(active.sum() / n)
    return {
        "nonzeros": nonzeros,
        "features": float(d),
        "features_used": float((active > 0).sum()),
        "flops": flops,
        "flops_unbiased": float((active * (active - 1)).sum() / (n * (n - 1))),
        "flops_relaxed": float(((np.bincount(given.indices, sizes, minlength=d) / n) ** 2).sum()),
        "suboptimality": d * flops / nonzeros**2,
        "speed_up": d / flops,
    }


def _keep_head(model: torch.nn.Module, inputs: Any, output: Any) -> None:
    """Let the first output depend on the head, which processes that train together look for there."""
    if not torch.is_grad_enabled():
        return
    head: Any = model.sparse_head
    first = next(iter(output))
    output[first] = output[first] + sum(p.sum() * 0 for p in head.parameters())


def _some(corpus: datasets.Dataset, seed: int) -> datasets.Dataset:
    """Return some rows of a corpus, the same for a seed."""
    return corpus.select(np.sort(np.random.default_rng(seed).permutation(len(corpus))[:_SOME]))


def _begin(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, corpus: datasets.Dataset, seed: int) -> None:
    """Give the head its first weights: random directions, each active for about half of the texts."""
    means = torch.cat([x for _, x in _pooled_states(model, tokenizer, corpus, progress=False)])
    linear = sparse_head_of(model).linear
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        drawn = torch.randn(linear.weight.shape, generator=random) / math.sqrt(linear.in_features)
        linear.weight.copy_(drawn)
        linear.bias.copy_(-(linear.weight @ means.mean(0).to(linear.weight)))


def _pooled_states(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: datasets.Dataset,
    progress: bool,
    **how: Any,
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Yield rows and mean last states of one batch after another, the model in evaluation mode while it runs."""
    where, batches = batches_of(model, tokenizer, corpus, name_of(model), **how)
    body = body_of(model)
    bar = tqdm(total=len(corpus), desc=f"vectors {name_of(model)}", unit="text", disable=not progress)
    with evaluating(model, where), torch.inference_mode(), bar:
        for rows, inputs in batches():
            given = {k: v for k, v in inputs.items() if k != "token_type_ids" or types_tokens(body)}
            states = body(**given, return_dict=True).last_hidden_state
            yield rows, pooled(states, inputs["attention_mask"].bool(), "mean")
            bar.update(len(rows))


def _with_translations(corpus: datasets.Dataset) -> tuple[datasets.Dataset, int]:
    """Return the rows that are trained on and have a translation, without labels, and how many have none."""
    corpus = check_corpus(corpus)
    if "split" in corpus.column_names and "train" in set(corpus["split"]):  # without any, the training says so
        corpus = corpus.select([i for i, split in enumerate(corpus["split"]) if split == "train"])
    ids, languages = np.array(corpus["id"][:], object), set(corpus["language"])
    _, group, counts = np.unique(ids, return_inverse=True, return_counts=True)
    kept = np.flatnonzero(counts[group] > 1)
    if not len(kept):
        raise InputError(
            f"expected sentences in two languages or more, found {len(ids)} rows in {len(languages)} language(s) "
            f"({', '.join(sorted(languages)[:5])}) and no id in two of them: translations are what is trained on. Give "
            "a corpus in which translations of a sentence have the same id"
        )
    if len(np.unique(group[kept])) < 2:
        raise InputError("only one sentence has translations: expected at least two, to tell them apart")
    unread = [c for c in ("label",) if c in corpus.column_names]
    return corpus.select(kept).remove_columns(unread), len(ids) - len(kept)


def _checked(vectors: Any, name: str) -> Any:
    if not scipy.sparse.issparse(vectors):
        raise InputError(
            f"{name} is a {type(vectors).__name__}: expected a sparse matrix (text, feature), as sparse_embeddings "
            "returns it, or scipy.sparse.csr_array(...) of it"
        )
    if vectors.ndim != 2 or 0 in vectors.shape:
        raise InputError(f"{name} has shape {vectors.shape}: expected (text, feature), at least one of each")
    if not np.isfinite(vectors.data).all():
        raise InputError(f"{name} has values that are NaN or infinite: look at the model they were made by")
    return vectors


def _dense(rerank: Any, counts: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    shapes = [np.shape(x) for x in rerank]
    if len(shapes) != 2 or any(len(s) != 2 for s in shapes) or shapes[0][1] != shapes[1][1]:
        raise InputError(f"rerank has shapes {shapes}: expected (query, dimension) and (text, dimension)")
    if (shapes[0][0], shapes[1][0]) != counts:
        raise InputError(
            f"rerank has vectors of {shapes[0][0]} queries and {shapes[1][0]} texts: expected {counts[0]} and "
            f"{counts[1]}"
        )
    queries, texts = (np.asarray(x) for x in rerank)
    return queries, texts


def _best(found: np.ndarray, values: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k largest of some values, largest first, and of equal ones the first row first."""
    if len(values) > k:
        kth = np.partition(values, len(values) - k)[len(values) - k]
        some = values >= kth
        found, values = found[some], values[some]
    order = np.lexsort((found, -values))[:k]
    return found[order], values[order]
