"""What retrieval by sparse vectors finds, and what it costs.

An index has a list for each feature, of the texts in which it is not zero. A query goes through the
lists of its own features only. What that costs is the chance that a feature is active in both,
summed over the features: least, at so many non-zeros a text, where all features are active equally
often.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse

from compress.objectives.base import is_whole
from compress.retrieval.index import check_sparse
from compress.retrieval.sparse_embeddings import ZERO
from probes.errors import InputError


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

    See also:
        `nearest`, `probes.retrieval`.
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
        vectors: (text, feature), sparse; at least two texts. Absolute values up to 1e-8 count as
            zero.

    Returns:
        `nonzeros`: of a text, the mean, sum_j p_j.
        `features`: d; `features_used`: how many are active in any text.
        `flops`: F = sum_j p_j^2, multiplications expected for a pair of a query and a text that are
            drawn alike.
        `flops_unbiased`: sum_j n_j (n_j - 1) / (n (n - 1)), of pairs of different texts.
        `flops_relaxed`: sum_j a_j^2 with a_j the mean of |f_j|, what is trained for.
        `suboptimality`: d F / nonzeros^2, at least 1; 1 where all features are active equally
            often.
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

    See also:
        `sparsify_embeddings`, `footprint`.
    """
    given = scipy.sparse.csr_array(check_sparse(vectors, "vectors"))
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
