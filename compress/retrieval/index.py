"""An inverted index of sparse vectors: the texts of each feature, and what is nearest by it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.sparse

from compress.objectives.base import is_whole
from probes.errors import InputError

_SCORES = 2**24  # most scores in memory at once


def inverted_index(vectors: scipy.sparse.sparray) -> scipy.sparse.csr_array:
    """Return of each feature the texts in which it is not zero, (feature, text): an index.

    Args:
        vectors: (text, feature), sparse, of the texts that are to be found.

    Raises:
        InputError: the vectors are not sparse, there are none, or a value is NaN or infinite.

    Example:
        >>> import numpy as np, scipy.sparse
        >>> texts = scipy.sparse.csr_array(np.array([[1.0, 0.0], [0.6, 0.8]]))
        >>> inverted_index(texts).indices.tolist()
        [0, 1, 1]

    See also:
        `nearest`, `sparse_embeddings`.
    """
    index = scipy.sparse.csr_array(check_sparse(vectors, "vectors").T)
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
    """Return the texts of an index most similar to each query, by products of their vectors.

    Args:
        queries: (query, feature), sparse.
        index: of `inverted_index`.
        k: how many texts for each query, at least 1.
        threshold: texts score above it, at least 0: a text that shares no feature with a query is
            never found.
        rerank: dense vectors of the queries (query, dimension) and of the texts (text, dimension):
            the best `candidates` texts of each query are put in order by their products instead.
        candidates: of these, at least k.

    Returns:
        Two arrays (query, k): the rows of the texts, the most similar first, -1 where fewer were
        found; and their scores, those of the dense vectors where these were given, NaN where there
        is none. Of texts with equal scores the first comes first.

    Raises:
        InputError: the sizes of queries, index and dense vectors do not fit together; a number is
            out of range; values are NaN or infinite.

    Notes:
        Paria et al. 2020, arXiv 2004.05665, keep scores above 0.25, take the 1,000 best and put
        these in order by dense vectors.

    Example:
        >>> import numpy as np, scipy.sparse
        >>> texts = np.array([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
        >>> texts = scipy.sparse.csr_array(texts)
        >>> rows, scores = nearest(texts[[0]], inverted_index(texts), k=3)
        >>> rows.tolist(), scores.tolist()
        ([[0, 1, -1]], [[1.0, 0.6, nan]])

    See also:
        `inverted_index`, `recall`.
    """
    wanted = scipy.sparse.csr_array(check_sparse(queries, "queries"))
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


def check_sparse(vectors: Any, name: str) -> Any:
    """Return vectors that are sparse and finite; raise `InputError` where they are not."""
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
