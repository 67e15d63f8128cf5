"""Product quantisation: sub-vectors of weights share codewords, also layer by layer (iPQ)."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from threadpoolctl import threadpool_limits
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.matrices import Matrix, block_of, check_plain, covered, distinct, matrices_of, transposed
from compress.objectives.base import Objective
from compress.quantization.clusters import clusters, nearest_of
from compress.saving import record
from compress.training.inside import Training
from compress.training.kept import Keeps
from compress.views import MatrixView
from probes.errors import InputError

_MOST = 65536  # codes: an index of two bytes
_FITTED = 256  # sub-vectors a code that a codebook is fitted to, where there are more
_ROUNDS = 50  # of k-means


def product_quantize(
    model: PreTrainedModel,
    *,
    codes: int = 256,
    block: int = 8,
    only: str | None = None,
    embeddings: bool = False,
    train: datasets.Dataset | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    steps: int = 0,
    objective: Sequence[Objective] = (),
    teacher: PreTrainedModel | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    **settings: Any,
) -> PreTrainedModel:
    """Return a copy of a model whose weights are made of few codewords.

    Each weight matrix of the transformer blocks (query, key, value, attention output, feed-forward)
    is cut into sub-vectors of neighbouring inputs of one output. K-means finds the matrix a
    codebook, and every sub-vector is replaced by its nearest codeword. With training (iterative
    product quantisation, iPQ) one layer after another is quantised, from the bottom, at even
    distances: those above are still trained as they are, and of those that are quantised the
    codewords are trained, while which sub-vector has which codeword stays.

    Args:
        model: a model of transformers; it is not changed.
        codes: codewords a matrix, 2 to 65536.
        block: weights of a sub-vector; it must divide the inputs of every matrix. 1 is weight
            sharing by clustering: each weight of a matrix has one of its few values.
        only: a regular expression; of the matrices only those whose name it finds are quantised.
        embeddings: whether the table of token embeddings is quantised too, as the lowest layer; an
            output layer that is tied to it is the same table.
        train: a corpus to train on.
        tokenizer: of the model, where there is training.
        steps: updates of the weights, more than there are layers to quantise; 0 for no training.
        objective: what is trained for, of `compress.objectives`; by default what the model's
            head is for: its labels, or the tokens of the text.
        teacher: for the objectives that need one; by default the model itself, as it is given.
        seed: of k-means and of the training.
        folder: for checkpoints, as in `compress.training.train`; a training that was interrupted
            goes on.
        settings: how the training goes, of `compress.TrainingSettings` (batch_size, learning_rate,
            weight_decay, warmup, max_length, ...), and further ones of `compress.training.train`
            (evaluate, evaluate_at, callbacks, save_every, progress).

    Returns:
        A new model of the same class, its weights as wide as before. `model.config.compression`
        says what was done to it and what a packed format takes: `bytes_of_quantized` (an index of
        whole bits a sub-vector and, in the type of the weights, the codewords that are used),
        `average_bits`, these bytes in bits over the number of weights, `bytes_of_model` with all
        other parameters as they are; and for each matrix the `mean_squared_error` to that of the
        model given. After training `model.history` is what was logged.

    Raises:
        InputError: codes or block is out of range, or block does not divide the inputs of a matrix;
            no matrix is found; weights are not finite; too few steps for the layers; what
            `compress.training.train` raises.

    Notes:
        Stock et al. 2019, arXiv 1907.05686, and, for training layer by layer, Fan et al. 2020,
        arXiv 2004.07320. The codebook is fitted to the weights alone, the sum of ||W - W~||^2, not
        to what a layer gives on data. A matrix of no more distinct sub-vectors than codes is kept
        exactly. Weights that are zero do not stay so. The reference page says what else is a choice
        made here.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> quantized = product_quantize(model, codes=64, block=4, only="query")
        >>> bits = quantized.config.compression["average_bits"]
        >>> round(bits, 2)  # 1.5 of numbers, 0.5 of codewords
        2.0

    See also:
        `quantize`, `compress.recipes.self_distilled_quantization`.
    """
    if not isinstance(codes, int) or not 2 <= codes <= _MOST:
        raise InputError(f"codes={codes!r}: expected a whole number from 2 to {_MOST}, the codewords a matrix")
    if not isinstance(block, int) or block < 1:
        raise InputError(f"block={block!r}: expected a whole number of at least 1, the weights of a sub-vector")
    check_plain(model)
    training = Training(model, train, tokenizer, steps, objective, teacher, folder=folder, seed=seed, **settings)
    quantized = copy.deepcopy(model)
    matrices = matrices_of(quantized, only, embeddings)
    layers = _layers(matrices)
    if steps and steps <= len(layers):
        raise InputError(
            f"steps={steps}: expected more than {len(layers)}, the layers that are quantised one after another in "
            "training"
        )
    share = covered(quantized, matrices, "product_quantize", asked=only is not None)
    books = _Codebooks(quantized, matrices, codes, block, seed)
    for one in training.objective:
        if (follow := getattr(one, "follow", None)) is not None:
            follow(books.codes.keys())  # those that are quantised by then
    if steps:
        times = [round(k * steps / (len(layers) + 1)) for k in range(1, len(layers) + 1)]
        training.run(
            quantized,
            callbacks=[_Quantizes(books, dict(zip(times, layers, strict=True)))],
            at=times,
            noted="quantized_at",
            about={"codes": codes, "block": block, "only": only, "embeddings": embeddings},
        )
    else:
        for name in matrices:
            books.quantize(name)
    packed = books.packed_bytes()
    weights = sum(w.numel() for w in matrices.values())
    rest = sum(p.numel() * p.element_size() for p in quantized.parameters())
    rest -= sum(w.numel() * w.element_size() for w in distinct(matrices).values())
    before = matrices_of(model, only, embeddings)
    what = {
        "method": "product_quantize",
        "codes": codes,
        "block": block,
        "average_bits": 8 * packed / weights,
        "bytes_of_quantized": packed,
        "bytes_of_model": packed + rest,
        "mean_squared_error": {
            name: float((w.detach().cpu().double() - before[name].detach().cpu().double()).square().mean())
            for name, w in matrices.items()
        },
        "quantized": sorted(matrices),
        "coverage": share,
        "seed": seed,
        "scikit-learn": version("scikit-learn"),
    }
    return record(quantized, what | training.recorded(), parent=model, history=training.history)


def fit_codebook(vectors: torch.Tensor, codes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a codebook for some vectors by k-means, and the number of each one's codeword.

    Args:
        vectors: (vectors, features), finite.
        codes: codewords at most; as few vectors, or as few distinct ones, are their own codewords.
        seed: of the first centroids, and of which vectors are looked at where there are more than
            256 a code. Of single numbers all are looked at, and nothing is drawn.

    Returns:
        The codewords (codeword, feature), in the type of the vectors, each of them used; and their
        numbers (vectors,).

    Example:
        >>> import torch
        >>> codewords, numbers = fit_codebook(torch.tensor([[0.0], [4.0], [1.0], [5.0]]), codes=2)
        >>> codewords[numbers].flatten().tolist()
        [0.5, 4.5, 0.5, 4.5]

    See also:
        `product_quantize`.
    """
    # In float64, where neither nearly equal nor very small vectors are lost in squares.
    given = vectors.detach().cpu().double().numpy()
    if given.shape[1] == 1:  # along a line what is nearest lies side by side
        found = torch.from_numpy(clusters(given[:, 0], codes)).to(vectors.dtype)
        centres, numbers = nearest_of(given[:, 0], found.double().numpy())
        codewords = torch.from_numpy(centres[:, None]).to(vectors.device, vectors.dtype)
        return codewords, torch.from_numpy(numbers).long().to(vectors.device)

    # Takes a while to import, and only this needs it.
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import pairwise_distances_argmin

    centres, numbers = np.unique(given, axis=0, return_inverse=True)
    if len(centres) > codes:
        fitted = given
        if len(given) > _FITTED * codes:
            fitted = given[np.random.default_rng(seed).choice(len(given), _FITTED * codes, replace=False)]
        # One thread: several add up in an order that is not always the same.
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct ones than codes among those looked at
            found = KMeans(codes, n_init=1, max_iter=_ROUNDS, random_state=seed).fit(fitted).cluster_centers_
            # As the weights will have them: what is nearest is told after rounding.
            centres = torch.from_numpy(found).to(vectors.dtype).double().numpy()
            numbers = pairwise_distances_argmin(given, centres)
        used, numbers = np.unique(numbers, return_inverse=True)
        centres = centres[used]
    codewords = torch.from_numpy(centres).to(vectors.device, vectors.dtype)
    return codewords, torch.from_numpy(numbers.reshape(-1)).long().to(vectors.device)


class _Codebooks:
    """Which sub-vectors of a model's matrices share a codeword, and what keeps them equal."""

    def __init__(
        self,
        model: PreTrainedModel,
        matrices: Mapping[str, Matrix],
        codes: int,
        block: int,
        seed: int,
    ) -> None:
        self.matrices, self.most, self.block, self.seed = dict(matrices), codes, block, seed
        self.transposed = transposed(model, matrices)
        self.codes: dict[str, torch.Tensor] = {}  # of the matrices that are quantised: the code of each sub-vector
        for name, weight in matrices.items():
            width = weight.shape[0 if self.transposed[name] else 1]
            if width % block:
                raise InputError(
                    f"block={block} does not divide the {width} inputs of {name}. Give one that does, as "
                    f"{math.gcd(block, width)}, or leave the matrix out by only=..."
                )
            _check_finite(name, weight.detach())

    def parts(self, name: str, values: torch.Tensor) -> torch.Tensor:
        """Return the sub-vectors of a matrix, or of something of its shape, one a row."""
        return (values.T if self.transposed[name] else values).reshape(-1, self.block)

    def fill(self, name: str, values: torch.Tensor, codewords: torch.Tensor) -> None:
        """Replace, in place, each sub-vector by the codeword of its code."""
        rows = values.T if self.transposed[name] else values
        rows.copy_(codewords[self.codes[name]].view(rows.shape))

    def quantize(self, name: str) -> None:
        """Find a matrix its codebook, and replace its sub-vectors by their codewords."""
        weight = self.matrices[name].detach()
        _check_finite(name, weight)
        codewords, self.codes[name] = fit_codebook(self.parts(name, weight), self.most, self.seed)
        self.fill(name, weight, codewords)

    def restore(self, name: str, codes: torch.Tensor) -> None:
        """Take up the codes of a matrix from a checkpoint."""
        parts = self.parts(name, self.matrices[name].detach())
        if len(codes) != len(parts) or int(codes.max()) >= self.most:
            raise InputError(
                f"{name}: the checkpoint is of a quantisation with other codes or another block than "
                f"codes={self.most}, block={self.block}. Give its own, or another folder"
            )
        self.codes[name] = codes.long().to(parts.device)

    def average(self, name: str, values: torch.Tensor) -> None:
        """Replace the sub-vectors of one code by their mean, in weights, gradients or moments."""
        codes = self.codes[name]
        # In float64, so that the mean of equal ones is these exactly.
        parts = self.parts(name, values).double()
        sums = parts.new_zeros(int(codes.max()) + 1, self.block).index_add_(0, codes, parts)
        self.fill(name, values, sums / codes.bincount()[:, None])

    def packed_bytes(self) -> int:
        """Return the bytes of indices and codebooks: whole bits an index, bytes a matrix."""
        index = math.ceil(math.log2(self.most))
        total = 0
        for name, codes in self.codes.items():
            used = len(codes.unique())
            total += math.ceil(len(codes) * index / 8) + used * self.block * self.matrices[name].element_size()
        return total


class _Quantizes(Keeps):
    """Quantises a layer at some steps of a training, and trains the codewords from then on."""

    def __init__(self, books: _Codebooks, layers: Mapping[int, Sequence[str]]) -> None:
        self.books, self.layers = books, layers
        self.file = "codes.safetensors"

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.due = [name for step, names in self.layers.items() if step <= state.global_step for name in names]
        super().on_train_begin(args, state, control)

    def size(self, student: PreTrainedModel) -> int:
        every = [self.books.matrices[name] for names in self.layers.values() for name in names]
        return sum(4 * math.prod(matrix.shape) // self.books.block for matrix in every)

    def write(self, path: Path) -> None:
        save_file({n: c.int() for n, c in self.books.codes.items()}, path)

    def read(self, path: Path) -> None:
        saved = load_file(path)
        for name in self.due:
            self.books.restore(name, saved[name])

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        for name in self.books.codes:
            gradient = self.books.matrices[name].grad
            if gradient is not None:
                self.books.average(name, gradient)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # Equal weights, gradients and moments move alike, but for the last bit of some vectorised update.
        for name in self.books.codes:
            self.books.average(name, self.books.matrices[name].detach())

    def on_step_end(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
        for name in self.layers.get(state.global_step, ()):
            weight = self.books.matrices[name]
            self.books.quantize(name)
            parameter = weight.stack if isinstance(weight, MatrixView) else weight
            for moment in optimizer.state.get(parameter, {}).values():
                if isinstance(moment, torch.Tensor) and moment.shape == parameter.shape:
                    self.books.average(name, weight.part(moment) if isinstance(weight, MatrixView) else moment)


def _check_finite(name: str, weight: torch.Tensor) -> None:
    wrong = int((~weight.detach().isfinite()).sum())
    if wrong:
        raise InputError(f"{name}: {wrong} of its {weight.numel()} weights are not finite, so they have no codewords")


def _layers(matrices: Mapping[str, Any]) -> list[list[str]]:
    """The names of the matrices, layer by layer from the bottom, embeddings by themselves."""
    layers: dict[str, list[str]] = {}
    for name in matrices:
        layers.setdefault(block_of(name) or name, []).append(name)
    return list(layers.values())
