"""Which codeword each word has: at random, by how frequent it is, or so that similar words differ in
few bits.

A table of codewords is (word, bit), zeros and ones, and no two rows of it are the same.
"""

from __future__ import annotations

import numpy as np
import torch

from probes.errors import InputError
from probes.models.formats.output_codes import check_bits, check_distinct

ASSIGNMENTS = ("random", "frequency", "embedding")


def random_codewords(words: int, bits: int, seed: int = 0) -> np.ndarray:
    """Return codewords (word, bit) drawn evenly from all tables of distinct ones.

    Raises:
        InputError: there are not so many codewords.

    Example:
        >>> random_codewords(4, 2).sum(0).tolist()  # every codeword of two bits once
        [2, 2]
    """
    check_bits(bits, words, f"bits={bits}")
    rng = np.random.default_rng(seed)
    if bits <= 20:
        numbers = rng.choice(2**bits, words, replace=False)
        return in_binary(numbers, bits)
    table = rng.integers(0, 2, (words, bits), dtype=np.uint8)
    while len(again := _repeated(table)):  # rarely: of 250,000 words of 40 bits 3 in a hundred tables
        table[again] = rng.integers(0, 2, (len(again), bits), dtype=np.uint8)
    return table


def frequency_codewords(counts: np.ndarray, bits: int, seed: int = 0) -> np.ndarray:
    """Return codewords (word, bit) by how frequent words are (word,).

    The first ceil(log2 words) bits are the word's rank in binary, 0 that of the most frequent one
    (of words as frequent the one of the lower number first), so that frequent words share their
    first bits. Each further bit is the parity of a random half of them, as in a random linear code:
    codewords of neighbours lie apart in about half of those.

    Raises:
        InputError: there are not so many codewords.

    Example:
        >>> frequency_codewords(np.array([5, 90, 7, 1]), bits=2).tolist()
        [[1, 0], [0, 0], [0, 1], [1, 1]]
    """
    words = len(counts)
    check_bits(bits, words, f"bits={bits}")
    rank = np.empty(words, np.int64)
    rank[np.argsort(-np.asarray(counts), kind="stable")] = np.arange(words)
    least = max(1, (words - 1).bit_length())
    first = in_binary(rank, least)
    chosen = np.random.default_rng(seed).integers(0, 2, (least, bits - least))
    for bit in range(bits - least):  # a parity of no bit says nothing
        if not chosen[:, bit].any():
            chosen[bit % least, bit] = 1
    return np.concatenate([first, (first.astype(np.int64) @ chosen % 2).astype(np.uint8)], axis=1)


def embedding_codewords(vectors: np.ndarray | torch.Tensor, bits: int, seed: int = 0) -> np.ndarray:
    """Return codewords (word, bit) of words with vectors (word, feature): similar ones differ in few
    bits.

    The first ceil(log2 words) bits are a tree: words are cut into halves along the direction in
    which they vary most, each half again, until each is alone; a direction points to the side that
    the one before it at the same depth points to. Each further bit says on which side of a random
    hyperplane through the median a word lies, so that two words differ in as many of them, on
    average, as the angle between their vectors over 180 degrees says.

    Raises:
        InputError: there are not so many codewords; a vector is not finite.

    Notes:
        Hyperplanes: Charikar 2002, Similarity estimation techniques from rounding algorithms. That
        the codes of error-correcting output codes follow similarity is from the literature; the
        tree, which makes them distinct by any number of bits, is a choice made here.

    Example:
        >>> near = np.array([[1.0, 0.1], [-1.0, 0.0], [1.0, 0.0], [-1.0, 0.1]])
        >>> table = embedding_codewords(near, bits=20)
        >>> differ = (table[:, None] != table).sum(-1)
        >>> bool(differ[0, 2] < differ[0, 1])
        True
    """
    x = torch.as_tensor(np.asarray(vectors), dtype=torch.float64)
    words, features = x.shape
    check_bits(bits, words, f"bits={bits}")
    if not torch.isfinite(x).all():
        bad = int((~torch.isfinite(x).all(1)).nonzero()[0, 0])
        raise InputError(f"the vector of word {bad} holds NaN or infinite values: look at how the model was saved")
    x = x - x.mean(0)
    least = max(1, (words - 1).bit_length())
    tree = np.zeros((words, least), np.uint8)
    groups = [torch.arange(words)]
    for depth in range(least):
        before: torch.Tensor | None = None
        halves = []
        for group in groups:
            if len(group) == 1:
                halves.append(group)
                continue
            direction = _widest(x[group])
            if before is not None and float(direction @ before) < 0:
                direction = -direction
            before = direction
            order = group[torch.argsort(x[group] @ direction, stable=True)]
            low, high = order[: -(-len(order) // 2)], order[-(-len(order) // 2) :]
            tree[high.numpy(), depth] = 1
            halves += [low, high]
        groups = halves
    planes = np.random.default_rng(seed).standard_normal((features, bits - least))
    sides = x.numpy() @ planes
    return np.concatenate([tree, (sides > np.median(sides, axis=0)).astype(np.uint8)], axis=1)


def given_codewords(table: np.ndarray, words: int, bits: int) -> np.ndarray:
    """Return a table that was given as codewords (word, bit) of uint8; raise where it is none.

    Raises:
        InputError: it is of another shape, holds something else than 0 and 1, or two words have the
            same codeword.

    Example:
        >>> given_codewords(np.array([[0, 1], [0, 1]]), 2, 2)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        probes.errors.InputError: assignment: the words 0 and 1 have the same codeword, so that nothing tells ...
    """
    check_bits(bits, words, f"bits={bits}")
    found = np.asarray(table)
    if found.shape != (words, bits) or not np.isin(found, (0, 1)).all():
        raise InputError(
            f"assignment: expected one of {', '.join(map(repr, ASSIGNMENTS))}, or zeros and ones of shape "
            f"{(words, bits)}, a row a word, found {found.dtype} of shape {found.shape}"
        )
    found = found.astype(np.uint8)
    check_distinct(found, "assignment")
    return found


def in_binary(numbers: np.ndarray, bits: int) -> np.ndarray:
    """Return whole numbers (...) as bits (..., bit), the highest first.

    Example:
        >>> in_binary(np.array([5, 2]), 3).tolist()
        [[1, 0, 1], [0, 1, 0]]
    """
    return ((np.asarray(numbers)[..., None] >> np.arange(bits - 1, -1, -1)) & 1).astype(np.uint8)


def _widest(x: torch.Tensor) -> torch.Tensor:
    """The direction (feature,) in which vectors vary most; where they do not vary, any."""
    x = x - x.mean(0)
    if len(x) == 2:
        direction = x[1]
    elif len(x) > x.shape[1]:
        direction = torch.linalg.eigh(x.T @ x).eigenvectors[:, -1]
    else:
        direction = torch.linalg.eigh(x @ x.T).eigenvectors[:, -1] @ x
    # A direction has no sign of its own: its largest part is positive.
    return direction * torch.sign(direction[direction.abs().argmax()])


def _repeated(table: np.ndarray) -> np.ndarray:
    """The rows that are the same as one before them."""
    packed = np.packbits(table, axis=1)
    _, first = np.unique(packed, axis=0, return_index=True)
    return np.setdiff1d(np.arange(len(table)), first)
