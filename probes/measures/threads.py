"""One thread for many products of small matrices, where several wait for each other."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import scipy.linalg  # noqa: F401  (its library is there to be found, beside numpy's)
from threadpoolctl import ThreadpoolController


@cache
def _libraries() -> ThreadpoolController:
    # To look for them takes longer than the products do.
    return ThreadpoolController().select(user_api="blas")


def one_thread() -> AbstractContextManager[Any]:
    """Return a context in which linear algebra runs on one thread.

    Example:
        >>> import numpy as np
        >>> with one_thread():
        ...     print(np.eye(2) @ [1.0, 2.0])
        [1. 2.]
    """
    limited: AbstractContextManager[Any] = _libraries().limit(limits=1)
    return limited
