"""Influence functions: what a prediction would be without a training row, to first order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve
from scipy.special import softmax

from probes.errors import InputError
from probes.measures.attribution.values import RepresenterValues

_MOST = 20_000  # numbers in a head, the square of which is kept


def influence(values: RepresenterValues, rows: npt.ArrayLike | None = None, *, target: str | None = None) -> np.ndarray:
    """Return what each training row does to a logit, by influence functions.

    A baseline of `representers`.

    For the head Theta at the minimum of (1/n) sum_i CE(target_i, Theta f_i) + l2 ||Theta||^2, with
    the Hessian H there: the logit of test row t as it is less what it would be without training row
    i, to first order,

        (1/n) (e_j f_t)' H^-1 ((target_i - p_i) f_i)

    Above 0 row i speaks for class j, below 0 against it, as representer values do; other than
    these, they do not sum to the logit.

    Args:
        values: of `representers`, which found the head.
        rows: positions of test rows, or a mask; by default all.
        target: the class; by default the predicted one of each row.

    Returns:
        (test row, train row), in units of the logits.

    Raises:
        InputError: the class is not known; the head has more than 20,000 numbers.

    Notes:
        Koh and Liang 2017, arXiv 1703.04730, of the last layer alone and with the exact inverse,
        which Yeh, Kim, Yen and Ravikumar 2018, arXiv 1811.09720, compare representer values with.
        One row in n hardly moves a head, so that the first order is near the truth; it is less so
        for rows that alone hold a class.

    See also:
        `representers`

    Example:
        >>> import probes
        >>> y = np.arange(300) % 3
        >>> x = np.random.default_rng(0).normal(size=(300, 8)) + 2 * np.eye(8)[y]
        >>> values = probes.representers(x[:240], x[240:], labels=y[:240], l2=1e-2)
        >>> one = influence(values, [7])[0]
        >>> own = values.train["label"] == values.predicted[7]
        >>> bool(one[own].mean() > 0 > one[~own].mean())
        True
    """
    train, theta = values.train_features, values.theta
    classes, width = theta.shape
    if classes * width > _MOST:
        raise InputError(
            f"influence: a head of {classes} classes by {width} features: expected {_MOST} numbers at most, since "
            "their square is kept. Take representer values, or fewer features"
        )
    chosen = np.arange(len(values.test))[slice(None) if rows is None else np.atleast_1d(np.asarray(rows))]
    if target is not None and str(target) not in values.classes:
        raise InputError(f"no class {str(target)!r}; there are {', '.join(map(repr, values.classes))}")
    named = values.predicted[chosen] if target is None else [str(target)] * len(chosen)
    codes = np.array([values.classes.index(str(name)) for name in named], int)
    n = len(train)
    p = softmax(train @ theta.T, axis=1)
    hessian = np.zeros((classes, width, classes, width))
    for a in range(classes):
        for b in range(a, classes):
            part = train.T @ ((p[:, a] * ((a == b) - p[:, b]))[:, None] * train) / n
            hessian[a, :, b, :] = hessian[b, :, a, :] = part
    flat = hessian.reshape(classes * width, classes * width)
    flat.flat[:: len(flat) + 1] += 2 * values.l2
    wanted = np.zeros((len(chosen), classes, width))
    wanted[np.arange(len(chosen)), codes] = values.test_features[chosen]
    moved = cho_solve(cho_factor(flat), wanted.reshape(len(chosen), -1).T).T.reshape(wanted.shape)
    pull = values.alpha * 2 * values.l2  # (target - p) / n
    out: np.ndarray = np.einsum("tci,ic->ti", moved @ train.T, pull)
    return out
