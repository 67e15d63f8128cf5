"""Representer values: which training sentences, of which languages, carry a model's prediction."""

from __future__ import annotations

import numbers
import warnings
from contextlib import nullcontext
from functools import cache

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
import xarray as xr
from scipy.special import softmax
from threadpoolctl import ThreadpoolController

from probes.errors import InputError, LayerscopeWarning
from probes.measures.attribution.minimum import MANY, minimum
from probes.measures.attribution.rows import Rows, rows_of_arrays, rows_of_representations
from probes.measures.attribution.values import Certificate, RepresenterValues

_WARN = 1e-6
L2 = 3e-4  # strength of the penalty
# Made once: it looks through all libraries that are loaded.
_threads = cache(ThreadpoolController)


def representers(
    train: xr.Dataset | npt.ArrayLike,
    test: xr.Dataset | npt.ArrayLike,
    *,
    labels: npt.ArrayLike | None = None,
    head: torch.nn.Module | None = None,
    layer: object = None,
    l2: float = L2,
) -> RepresenterValues:
    """Split every prediction into what each training sentence adds to it.

    A linear head Theta on the features f is brought to the minimum of (1/n) sum_i
    CE(target_i, Theta f_i) + l2 ||Theta||^2. There Theta f_t = sum_i alpha_i f_i.f_t with
    alpha_i = (target_i - p_i) / (2 l2 n): every logit is a sum over the training rows.
    alpha_ij f_i.f_t above 0 is excitatory (row i speaks for class j), below 0 inhibitory.

    Args:
        train, test: Representations of one model, or arrays (example, feature). Those that explain
            a model need its outputs: `logits` and, unless a layer is named, `head_input`.
        labels: (example,) of the training rows, beside arrays. Representations have their own, as
            `label`.
        head: explain this head by its own outputs, not by labels: the model that the
            Representations were captured from, or, beside arrays, the `torch.nn.Linear` that they
            are the input of. One with a single output z is two classes, "0" and "1", with logits
            -z/2 and z/2.
        layer: which layer's states are the features. By default the input of the model's last
            linear layer where a model is explained, and the last layer where there are labels.
        l2: strength of the penalty. Larger: values that cancel less, of a head that is less sure
            than the given one. Smaller: a closer copy of the given head, of larger values of both
            signs, and a longer search. The default is for explaining a head; labels that the
            features cannot separate want 1e-2 or more.

    Returns:
        RepresenterValues: `top(id)`, `by_language()`, `by_class()`, `support()`, `mislabelled()`,
        `matrix(rows)`, `logits` and `certificate`. Read the certificate first: it says how well the
        values sum to the logits, and how well these agree with the given head on rows that the
        solution has not seen.

    Raises:
        InputError: before the search, where train, test, labels and head do not fit together, or a
            row is not finite.

    Notes:
        Yeh, Kim, Yen and Ravikumar 2018, arXiv 1811.09720, at the exact minimum. A constant 1 is
        appended to the features, so that the bias is penalised too. The penalty knows the scale of
        the features: where they are small, a smaller l2 is needed, as the certificate shows. The
        predicted class is that of the given model, also where another layer would have it
        otherwise. Values do not change with the order of rows or with which rows are asked for.

    See also:
        `representer_support`, `linear_probe`.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = np.arange(300) % 3
        >>> x = rng.normal(size=(300, 8)) + 2 * np.eye(8)[y]
        >>> values = representers(x[:240], x[240:], labels=y[:240])
        >>> bool(np.allclose(values.matrix().sum(axis=1), values.logits.max(axis=1)))
        True
        >>> top = values.top(7, k=2)
        >>> top[["target", "side", "rank", "label"]].head(2)
          target        side  rank label
        0      1  excitatory     1     1
        1      1  excitatory     2     1
    """
    if isinstance(l2, bool) or not isinstance(l2, numbers.Real) or not (np.isfinite(l2) and l2 > 0):
        raise InputError(f"l2={l2!r}: expected a number above 0; 3e-4 is the default")
    if labels is not None and head is not None:
        raise InputError("labels and head exclude each other: train on labels, or explain the outputs of a head")
    if isinstance(train, xr.Dataset) and isinstance(test, xr.Dataset):
        a, b, classes, explains = rows_of_representations(train, test, labels, head, layer)
    elif isinstance(train, xr.Dataset) or isinstance(test, xr.Dataset):
        kinds = ("Representations" if isinstance(x, xr.Dataset) else "an array" for x in (train, test))
        raise InputError("expected two Representations or two arrays; found train: {}, test: {}".format(*kinds))
    else:
        a, b, classes, explains = rows_of_arrays(train, test, labels, head, layer)
    return solved(a, b, classes, explains, float(l2))


def solved(a: Rows, b: Rows, classes: list[str], explains: str, l2: float) -> RepresenterValues:
    """Bring the head to its minimum on the training rows a, and split what it says of the test rows
    b.
    """
    if a.outputs is None:
        target = np.eye(len(classes))[pd.Categorical(a.frame["label"], classes).codes]
    else:
        target = softmax(a.outputs, axis=1)
    small = a.features.size * len(classes) < MANY
    with _threads().limit(limits=1, user_api="blas") if small else nullcontext():
        theta, p, iterations = minimum(a.features, target, l2)
        alpha = (target - p) / (2 * l2 * len(target))
        # From here on everything goes by way of the alphas, so that what they miss is seen.
        summed = alpha.T @ a.features
        logits, direct = b.features @ summed.T, b.features @ theta.T
        given = direct if b.outputs is None else b.outputs
        error = float(np.abs(logits - direct).max())
        certificate = Certificate(
            gradient_norm=float(2 * l2 * np.linalg.norm(theta - summed)),
            error=error,
            relative_error=error / max(float(np.abs(direct).max()), np.finfo(float).tiny),
            correlation_train=_correlation(p, p if a.outputs is None else target),
            correlation_test=_correlation(softmax(logits, axis=1), softmax(given, axis=1)),
            agreement=float(np.mean(logits.argmax(axis=1) == given.argmax(axis=1))),
            iterations=iterations,
        )
    if certificate.relative_error > _WARN and error > 1e-12:  # all logits may be 0
        warnings.warn(
            "representers: the head has not come to a stationary point (gradient norm "
            f"{certificate.gradient_norm:.1e} after {iterations} steps): the values miss the logits by "
            f"{certificate.relative_error:.1e} of the largest. Use a larger l2, or subtract the mean of the features "
            "and scale them down",
            LayerscopeWarning,
            stacklevel=3,
        )
    return RepresenterValues(
        alpha=alpha,
        theta=theta,
        train_features=a.features,
        test_features=b.features,
        train=a.frame,
        test=b.frame,
        classes=classes,
        logits=logits,
        predicted=np.array(classes, dtype=object)[given.argmax(axis=1)],
        explains=explains,
        l2=l2,
        certificate=certificate,
    )


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson correlation over all entries; NaN where one of the two is constant."""
    x, y = x - x.mean(), y - y.mean()
    scale = np.linalg.norm(x) * np.linalg.norm(y)
    return float(np.vdot(x, y) / scale) if scale > 0 else float("nan")
