"""Poolings of one's own: a function of the states of a text's tokens becomes one that `capture` takes."""

from __future__ import annotations

import functools
import hashlib
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from probes.errors import InputError
from probes.states.pooling import OWN, POOLINGS

Function = Callable[[np.ndarray], Any]


@dataclass(frozen=True)
class OwnPooling:
    """A function that was made a pooling; called, it is that function still."""

    function: Function
    called: str
    name: str
    means: str
    joins: bool

    def __call__(self, x: np.ndarray) -> Any:
        """Return what the function gives of the states (token, feature) of one text."""
        return self.function(x)

    def needs(self) -> None:
        """Raise where what it computes with is not installed: that is up to the function."""

    def begun(self, words: np.ndarray) -> list[Any]:
        """Return what it has to know of each layer: nothing."""
        return [None] * len(words)

    def vectors(self, states: np.ndarray, counts: np.ndarray, known: Any) -> np.ndarray:
        """Return the vectors (text, feature) of texts at one layer; NaN of texts without tokens.

        Args:
            states: (token, feature) of the texts end to end.
            counts: (text,) tokens of each.
            known: nothing.
        """
        ends = np.cumsum(counts)
        made = [
            vector_of(self.function, self.called, states[end - count : end]) if count else None
            for end, count in zip(ends, counts, strict=True)
        ]
        width = next((len(v) for v in made if v is not None), states.shape[1])
        for vector, count in zip(made, counts, strict=True):
            if vector is not None and len(vector) != width:
                raise InputError(
                    f"pooling {self.called} of a text of {count} tokens: expected as many numbers as of other texts, "
                    f"{width}, found {len(vector)}"
                )
        return np.stack([np.full(width, np.nan) if v is None else v for v in made])


def pooling(function: Function | None = None, *, means: str = "", words: bool = False) -> Any:
    """Make a function of the states of a text's tokens a pooling, for `capture` and `compare`.

    Write it as a decorator. The function gets the states of one text at one layer as an array
    (token, feature) in float64, special tokens left out, and returns one vector, of the same length
    for all texts. `capture(..., pooling=first_and_last)` takes it from then on, also by its name,
    and `layerscope compare --pooling file:first_and_last` by the module that holds it.

    Args:
        function: of `x (token, feature)`.
        means: what it does, in words, for the provenance; the first line of its docstring where
            nothing is given.
        words: give it the states of words in place of tokens.

    Returns:
        The function, which is a pooling now.

    Raises:
        InputError: the function has no name, or that of a pooling of layerscope; on small planted
            texts it raises, or gives no vector, or vectors of several lengths.

    Notes:
        What was captured is kept by the code of the function too: after a change of it states are
        captured again.

    See also:
        `capture`, `probe`, `Band`.

    Example:
        >>> import numpy as np, probes
        >>> @probes.pooling
        ... def first_and_last(x):
        ...     return np.concatenate([x[0], x[-1]])
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> corpus = probes.load_corpus("bundled", split="dev", languages=["en"]).select(range(4))
        >>> how = {"pooling": first_and_last, "progress": False}
        >>> probes.capture(model, tokenizer, corpus, **how).hidden.shape
        (7, 4, 256)
    """
    if function is None:
        return functools.partial(pooling, means=means, words=words)
    called = getattr(function, "__name__", "")
    if not called.isidentifier():
        raise InputError(f"{function!r}: expected a function with a name, made by def")
    if called in POOLINGS:
        raise InputError(f"{called!r} is a pooling of layerscope: give the function another name")
    rng = np.random.default_rng(0)
    found = [len(vector_of(function, called, rng.normal(size=(count, 8)))) for count in (1, 2, 5)]
    if len(set(found)) > 1:
        raise InputError(
            f"pooling {called} on planted texts of 1, 2 and 5 tokens: expected vectors of one length, found "
            f"{', '.join(map(str, found))} numbers"
        )
    first = inspect.cleandoc(function.__doc__).splitlines()[0] if function.__doc__ else f"{called}, a function"
    made = OwnPooling(function, called, f"{called}({_code_of(function)})", means or first, words)
    OWN[called] = made
    return made


def vector_of(function: Function, called: str, x: np.ndarray) -> np.ndarray:
    """Call a function on the states of one text, and hold what it gives against what it may."""
    where = f"pooling {called} of a text of {len(x)} token{'' if len(x) == 1 else 's'} and {x.shape[1]} features"
    try:
        found = np.asarray(function(x.astype(np.float64)))
    except Exception as error:
        raise InputError(f"{where} raised {type(error).__name__}: {error}") from error
    if found.ndim != 1 or not found.size or found.dtype.kind not in "fiub":
        what = f"an array of shape {found.shape}" if found.ndim else type(found.item()).__name__
        raise InputError(f"{where}: expected one vector of numbers, found {what}. Return one, as by x.max(axis=0)")
    return found.astype(np.float64)


def _code_of(function: Function) -> str:
    """A hash of what a function does, as far as that is its own code."""
    try:
        code = textwrap.dedent(inspect.getsource(function)).encode()
    except (OSError, TypeError):
        inner: Any = getattr(function, "__code__", None)
        code = repr((inner.co_code, inner.co_consts, inner.co_names)).encode() if inner else repr(function).encode()
    return hashlib.sha256(code).hexdigest()[:8]
