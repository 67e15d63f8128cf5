"""What every verb and backend can do with a model: which share of its weights, or why nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.distillation.width import check_narrows
from compress.factorization.factorize import check_experts
from compress.factorization.factors import free_modules
from compress.fusion.fuse import check_file
from compress.fusion.hash_weights import hashable
from compress.fusion.pairs import module_name, pairs_of, parts_of
from compress.matrices import block_matrices, check_plain, coverage, matrices_in, matrices_of
from compress.pruning.vocabulary import check_vocabulary
from compress.quantization.backends import BACKENDS, check_backend
from compress.quantization.code_outputs import codable_layer
from probes.errors import InputError
from probes.models.blocks import family_of, sites_of
from probes.models.checked import outline
from probes.models.facts import encoder_of
from probes.models.formats.onnx_model import OnnxModel


def check(
    model: PreTrainedModel | OnnxModel | str | Path,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    allow_pickle: bool = False,
) -> pd.DataFrame:
    """Say what every verb and backend can do with a model, without reading its weights.

    Args:
        model: a checkpoint ("bundled", a folder, a hub name), or a model.
        tokenizer: the tokenizer of a model that is given itself.
        allow_pickle: as in `probes.load_checkpoint`.

    Returns:
        One row a verb: what it `covers`, the share of the weights of the repeated blocks that it
        reaches where nothing else is asked for (NaN where it works on other weights, or cannot
        work), whether it is `possible`, and a `note`: on what it works, or why it cannot, and what
        to do in its place.

    Raises:
        InputError: what `probes.load_checkpoint` raises, as far as it is known without the weights.

    Notes:
        A backend compares what it has made with the original, and refuses what computes something
        else: that is known when it is made.

    Example:
        >>> found = check("bundled").set_index("verb")
        >>> print(found.loc["prune_heads", "covers"].round(2), found.loc["fuse", "possible"])
        0.33 True

    See also:
        `probes.check`, which says what the checkpoint is.
    """
    if isinstance(model, str | Path):
        model, found = outline(model, allow_pickle=allow_pickle)
        tokenizer = found.tokenizer
    rows = []
    for verb, (covers, note) in _VERBS.items():
        try:
            rows.append((verb, covers(model), True, note))
        except InputError as error:
            rows.append((verb, float("nan"), False, str(error)))
    if tokenizer is not None and isinstance(model, PreTrainedModel):
        try:
            check_vocabulary(model, tokenizer)
            rows.append(("prune_vocabulary", float("nan"), True, "the table of embeddings"))
        except InputError as error:
            rows.append(("prune_vocabulary", float("nan"), False, str(error)))
    return pd.DataFrame(rows, columns=["verb", "covers", "possible", "note"])


def _weights(model: PreTrainedModel) -> float:
    return coverage(model, matrices_of(model))


def _heads(model: PreTrainedModel) -> float:
    check_plain(model, "prune_heads")
    return _sites(model, "heads")


def _channels(model: PreTrainedModel) -> float:
    check_plain(model, "prune_channels")
    return _sites(model, "channels")


def _sites(model: PreTrainedModel, what: str) -> float:
    sites = sites_of(model, family_of(model, what), what)
    return coverage(model, matrices_in(model, [f"{site.name}.{name}" for site in sites for name in site.part.names]))


def _layers(model: PreTrainedModel) -> float:
    check_plain(model)
    return coverage(model, matrices_in(model, [family_of(model).blocks]))


def _distilled(model: PreTrainedModel) -> float:
    check_plain(model, "distill")
    return _layers(model)


def _narrowed(model: PreTrainedModel) -> float:
    check_plain(model, "distill")
    check_narrows(model)
    return coverage(model, block_matrices(model))


def _factors(model: PreTrainedModel) -> float:
    check_plain(model)
    check_experts(model)
    free = free_modules(model, None, False)
    return coverage(model, {name: weight for name, weight in block_matrices(model).items() if name in free})


def _fused(model: PreTrainedModel) -> float:
    check_plain(model)
    check_file(model, "matrix")
    pairs_of(model, "matrix")  # raises where there are none
    names = [module_name(part, i) for part, numbers in parts_of(model, "matrix").items() for i in numbers]
    return coverage(model, matrices_in(model, names))


def _hashed(model: PreTrainedModel) -> float:
    check_plain(model)
    found = block_matrices(model)
    return coverage(model, {name: found[name] for name in hashable(model)})


def _sparse(model: PreTrainedModel) -> float:
    check_plain(model, "sparsify_embeddings")
    return float("nan")


def _coded(model: PreTrainedModel) -> float:
    codable_layer(model)
    return float("nan")


def _backend(backend: str) -> Callable[[PreTrainedModel], float]:
    def covers(model: PreTrainedModel) -> float:
        check_backend(model, backend)
        found = block_matrices(model)
        if backend == "onnxruntime" and model.config.is_encoder_decoder:  # which exports what is captured
            own = {id(p) for p in encoder_of(model).parameters()}
            found = {name: weight for name, weight in found.items() if id(weight) in own}
        return coverage(model, found)

    return covers


_VERBS: dict[str, tuple[Callable[..., float], str]] = {
    "prune": (_weights, "single weights"),
    "prune_heads": (_heads, ""),
    "prune_channels": (_channels, ""),
    "drop_layers": (_layers, ""),
    "quantize": (_weights, "simulated, 1 to 8 bits"),
    **{
        f"quantize {name}": (_backend(name), "runs in 8 bits; compared with the original when made")
        for name in BACKENDS
    },
    "product_quantize": (_weights, ""),
    "factorize": (_factors, ""),
    "fuse": (_fused, "by unit='matrix'"),
    "hash_weights": (_hashed, ""),
    "distill layers": (_distilled, ""),
    "distill hidden_size": (_narrowed, ""),
    "code_outputs": (_coded, "the output layer"),
    "sparsify_embeddings": (_sparse, "a head on top of the model"),
}
