"""Structured pruning: attention heads, feed-forward channels and whole layers really removed: smaller and faster."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
import torch
import transformers
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.matrices import check_plain
from compress.saving import record
from probes.corpus import check_corpus
from probes.errors import InputError
from probes.measures.fidelity.similarity import similarity
from probes.models.facts import check_fit, classifies, embedding_rows, name_of
from probes.models.fingerprint import weights_fingerprint
from probes.models.formats.quantized_inputs import quantized_inputs_of
from probes.models.formats.shared_layers import renumber_sharing
from probes.models.parts import count_of, ends_of, family_of, keep_parts, layers_of
from probes.states.capture import capture
from probes.states.running import evaluating
from probes.states.tokens import batches_of

_KINDS = {"heads": "head", "channels": "channel"}


def prune_heads(
    model: PreTrainedModel,
    share: float,
    *,
    importance: str | npt.ArrayLike = "magnitude",
    corpus: datasets.Dataset | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    seed: int = 0,
) -> PreTrainedModel:
    """Return a copy of a model without the least important attention heads of every layer.

    The same share in every layer: of n heads round(share * n) go, and at least one stays. The rows of query, key and
    value and the columns of the attention output are really removed; the rest of the model stays as it is.

    Args:
        model: a model of the BERT, RoBERTa, XLM-RoBERTa, CamemBERT, ELECTRA or DistilBERT family; it is not changed.
        share: share of each layer's heads that goes, at least 0 and below 1.
        importance: what says which heads matter. "magnitude": the Frobenius norm of the map that a head writes with,
            output times value (with its bias). "taylor": the mean over the texts of |dL/dm|, where m = 1 scales what
            the head gives and L is the cross-entropy of the text's label: to first order, how much L changes without
            it. "random": a control. Or scores of your own (layer, head), higher is more important.
        corpus, tokenizer: for "taylor", a corpus with labels and the model's tokenizer.
        seed: for "random".

    Returns:
        A new model of the same class. `model.config.compression` says which heads were kept, by their number in the
        model given.

    Raises:
        InputError: the share is out of range, the architecture is not known, scores of another shape, or, for
            "taylor", no corpus with labels that the model's head knows.

    Notes:
        The configuration of these architectures cannot say that heads are missing, so `probes.load_checkpoint` (not
        plain `from_pretrained`) loads what `compress.save` wrote. Michel, Levy and Neubig 2019, arXiv 1905.10650.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> pruned = prune_heads(model, 0.5)
        >>> pruned.config.compression["kept"][0]
        [0, 2]
    """
    return _prune(model, "heads", share, importance, corpus, tokenizer, seed)


def prune_channels(
    model: PreTrainedModel,
    share: float,
    *,
    importance: str | npt.ArrayLike = "magnitude",
    corpus: datasets.Dataset | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    seed: int = 0,
) -> PreTrainedModel:
    """Return a copy of a model without the least important feed-forward channels of every layer.

    The same share in every layer: of n channels round(share * n) go, and at least one stays. A channel is a row of the
    first feed-forward matrix, its bias, and a column of the second; all are really removed.

    Args:
        model: a model of a family that `prune_heads` knows; it is not changed.
        share: share of each layer's channels that goes, at least 0 and below 1.
        importance: as for `prune_heads`. The magnitude of a channel is the norm of what it reads with (its bias too)
            times the norm of what it writes with.
        corpus, tokenizer, seed: as for `prune_heads`.

    Returns:
        A new model of the same class, which plain transformers loads when it is saved. `model.config.compression` says
        which channels were kept, by their number in the model given ("0-3,7" are 0, 1, 2, 3 and 7).

    Raises:
        InputError: as `prune_heads`.

    Notes:
        Molchanov et al. 2019, arXiv 1906.10771, for the Taylor importance.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> prune_channels(model, 0.75).config.intermediate_size
        128
    """
    return _prune(model, "channels", share, importance, corpus, tokenizer, seed)


def drop_layers(
    model: PreTrainedModel,
    layers: int | Sequence[int],
    *,
    importance: str | npt.ArrayLike = "removal",
    corpus: datasets.Dataset | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> PreTrainedModel:
    """Return a copy of a model without some of its layers: those named, or those that a similarity probe misses least.

    Args:
        model: a model of a family that `prune_heads` knows; it is not changed.
        layers: the numbers of the layers that go, from 0, as in the model's list of layers (layer i makes hidden state
            i + 1); or how many go.
        importance: where `layers` is a count. "removal": the layer goes without which the pooled last states are most
            like those of the whole model (1 - linear CKA is least), one after another, measured anew each time.
            "similarity": those go whose pooled output is most like their input, measured once. Or scores of your own,
            one a layer, higher is more important.
        corpus, tokenizer: for both measures: some hundred texts are enough, and labels are not needed.

    Returns:
        A new model of the same class, which plain transformers loads when it is saved and `capture` captures.

    Raises:
        InputError: a layer that is not there, all layers, a count without a corpus, scores of another shape, or an
            architecture that is not known.

    Notes:
        Sajjad et al. 2020, arXiv 2004.03844, dropped layers by name and by similarity of input and output; Kornblith
        et al. 2019, arXiv 1905.00414, for CKA.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> drop_layers(model, [4, 5]).config.num_hidden_layers
        4
    """
    family = family_of(model)
    count = len(layers_of(model, family))
    scores: list[float] = []
    if isinstance(layers, int | np.integer) and not isinstance(layers, bool):
        if not 0 <= layers < count:
            raise InputError(f"layers={layers}: expected a count from 0 to {count - 1}, so that one layer is left")
        if isinstance(importance, str):
            if importance not in ("removal", "similarity"):
                raise InputError(
                    f"importance={importance!r} is not known; choose 'removal', 'similarity' or give scores"
                )
            rank = _by_removal if importance == "removal" else _by_similarity
            gone, scores = rank(model, int(layers), *_measurable(model, corpus, tokenizer, importance))
        else:
            values = _scores(importance, (count,), "layer")
            gone = np.argsort(values, kind="stable")[:layers].tolist()
            scores, importance = values[gone].tolist(), "given scores"
    else:
        gone, importance = _layer_numbers(layers, count), "named"
    pruned = copy.deepcopy(model)
    _drop(pruned, gone)
    kept = [i for i in range(count) if i not in set(gone)]
    return _record(model, pruned, "drop_layers", importance, {"kept": kept, "dropped": list(gone), "scores": scores})


def _prune(
    model: PreTrainedModel,
    what: str,
    share: float,
    importance: str | npt.ArrayLike,
    corpus: datasets.Dataset | None,
    tokenizer: PreTrainedTokenizerBase | None,
    seed: int,
) -> PreTrainedModel:
    if not 0 <= share < 1:
        raise InputError(f"share={share}: expected at least 0 and below 1, the share of each layer's {what} that goes")
    check_plain(model)
    family = family_of(model)
    if getattr(model.config, "shared_layers", None):
        raise InputError(
            f"{what} are chosen in each layer, and layers of this model share their parameters (config.shared_layers). "
            f"Prune its {what} first, then fuse it; or take copies apart with "
            "probes.models.formats.shared_layers.unshare"
        )
    layers = layers_of(model, family)
    counts = [count_of(layer, family, what) for layer in layers]
    scores: Sequence[np.ndarray]
    if not isinstance(importance, str):
        if len(set(counts)) > 1:
            raise InputError(
                f"the layers differ in their {what} ({counts}), so scores (layer, {_KINDS[what]}) cannot be given"
            )
        scores = list(_scores(importance, (len(layers), counts[0]), f"layer, {_KINDS[what]}"))
        importance = "given scores"
    elif importance == "magnitude":
        scores = [_magnitude(layer, family, what) for layer in layers]
    elif importance == "random":
        draw = np.random.default_rng(seed)
        scores = [draw.random(n) for n in counts]
    elif importance == "taylor":
        scores = _taylor(model, family, what, counts, corpus, tokenizer)
    else:
        raise InputError(
            f"importance={importance!r} is not known; choose 'magnitude', 'taylor' or 'random', or give scores "
            f"(layer, {_KINDS[what]})"
        )
    kept = []
    for values in scores:
        order = np.argsort(-values, kind="stable")
        kept.append(sorted(order[: max(1, len(values) - round(share * len(values)))].tolist()))
    pruned = copy.deepcopy(model)
    for layer, numbers in zip(layers_of(pruned, family), kept, strict=True):
        keep_parts(layer, family, what, numbers)
    sizes = [len(numbers) for numbers in kept]
    if what == "heads":
        pruned.config.heads_kept = sizes
    else:
        setattr(pruned.config, family["channels"], sizes[0])
    settings: dict[str, Any] = {"share": share, "kept": kept if what == "heads" else [_ranges(k) for k in kept]}
    if importance == "random":
        settings["seed"] = seed
    return _record(model, pruned, f"prune_{what}", importance, settings)


def _drop(model: PreTrainedModel, gone: Sequence[int]) -> None:
    """Take layers out of a model, in place."""
    family = family_of(model)
    layers = layers_of(model, family)
    kept = [i for i in range(len(layers)) if i not in set(gone)]
    for number in sorted(gone, reverse=True):
        del layers[number]
    _renumber(model, layers)
    renumber_sharing(model, family["layers"], kept)
    heads = getattr(model.config, "heads_kept", None)
    if heads is not None:
        model.config.heads_kept = [heads[i] for i in kept]
    if getattr(model.config, "quantized_inputs", None):
        model.config.quantized_inputs = quantized_inputs_of(model)


def _renumber(model: PreTrainedModel, layers: nn.ModuleList) -> None:
    """Make the configuration, and the place of each layer in a decoder's cache, fit the layers that are there."""
    model.config.num_hidden_layers = len(layers)
    for number, layer in enumerate(layers):
        for module in layer.modules():
            if getattr(module, "layer_idx", None) is not None:
                module.layer_idx = number  # type: ignore[assignment]


def _ranges(numbers: list[int]) -> str:
    """Write ascending numbers short: "0-3,7,9-10"."""
    starts = [n for i, n in enumerate(numbers) if i == 0 or numbers[i - 1] != n - 1]
    stops = [n for i, n in enumerate(numbers) if i == len(numbers) - 1 or numbers[i + 1] != n + 1]
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, stops, strict=True))


def _record(
    model: PreTrainedModel, pruned: PreTrainedModel, method: str, importance: Any, settings: dict[str, Any]
) -> PreTrainedModel:
    return record(
        pruned,
        {
            "method": method,
            "importance": importance,
            **settings,
            "parameters": sum(p.numel() for p in pruned.parameters()),
            "parameters_of_parent": sum(p.numel() for p in model.parameters()),
            "parent": weights_fingerprint(model),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    )


def _scores(values: npt.ArrayLike, shape: tuple[int, ...], named: str) -> np.ndarray:
    try:
        scores = np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise InputError(f"importance: expected numbers of shape ({named}) = {shape}, found {values!r}") from error
    if scores.shape != shape:
        raise InputError(f"importance: expected scores of shape ({named}) = {shape}, found {scores.shape}")
    if not np.isfinite(scores).all():
        raise InputError(f"importance: score {np.argwhere(~np.isfinite(scores))[0].tolist()} is not finite")
    return scores


def _magnitude(layer: nn.Module, family: dict[str, Any], what: str) -> np.ndarray:
    """Frobenius norm of the product of what every head or channel writes with and reads with: (head or channel)."""
    read, write, size = ends_of(layer, family, what)
    into = read.weight.detach().double()
    if read.bias is not None:
        into = torch.cat([into, read.bias.detach().double()[:, None]], dim=1)
    into = into.unflatten(0, (-1, size))  # (head, feature, input)
    out = write.weight.detach().double().T.unflatten(0, (-1, size))  # (head, feature, output)
    # |W R|^2 = trace(W'W RR'), from matrices of the size of a head.
    squares = ((out @ out.transpose(1, 2)) * (into @ into.transpose(1, 2))).sum((1, 2))
    return squares.clamp_min(0).sqrt().cpu().numpy()


def _taylor(
    model: PreTrainedModel,
    family: dict[str, Any],
    what: str,
    counts: list[int],
    corpus: datasets.Dataset | None,
    tokenizer: PreTrainedTokenizerBase | None,
) -> list[np.ndarray]:
    """Mean over the texts of |dL/dm|, m = 1 scaling what a head or channel gives: one array a layer."""
    if not classifies(model):
        problem = getattr(model.config, "problem_type", None)
        raise InputError(
            f"importance='taylor' needs a head that gives each text one of several classes, found "
            f"{type(model).__name__} with problem_type={problem!r}, num_labels={model.config.num_labels}. "
            "Give a model with such a head, or choose 'magnitude'"
        )
    corpus, tokenizer = _measurable(model, corpus, tokenizer, "taylor")
    codes = _label_codes(model, corpus)
    where, batches = batches_of(model, tokenizer, corpus, name_of(model))
    writers = [ends_of(layer, family, what)[1] for layer in layers_of(model, family)]
    totals = [np.zeros(n) for n in counts]
    scales: list[torch.Tensor] = []

    def scaled(number: int, _module: nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        given = inputs[0].unflatten(-1, (counts[number], -1))  # (text, token, head, feature)
        return ((given * scales[number][:, None, :, None].to(given.dtype)).flatten(-2),)

    hooks = [writer.register_forward_pre_hook(partial(scaled, i)) for i, writer in enumerate(writers)]
    try:
        with evaluating(model, where), torch.enable_grad():
            for rows, inputs in batches():
                scales[:] = [torch.ones(len(rows), n, device=where, requires_grad=True) for n in counts]
                wanted = codes[torch.from_numpy(rows)].to(where)
                # A sum, so that each text's gradient is its own, whatever the batch.
                loss = nn.functional.cross_entropy(model(**inputs).logits.float(), wanted, reduction="sum")
                for total, gradient in zip(totals, torch.autograd.grad(loss, scales), strict=True):
                    total += gradient.abs().double().sum(0).cpu().numpy()
    finally:
        for hook in hooks:
            hook.remove()
    means = [total / len(corpus) for total in totals]
    for number, values in enumerate(means):
        if not np.isfinite(values).all():
            raise InputError(f"importance='taylor': a gradient in layer {number} is not finite. Look at the weights")
    return means


def _label_codes(model: PreTrainedModel, corpus: datasets.Dataset) -> torch.Tensor:
    """The number of every text's class, named as the head names it or by its number."""
    if "label" not in corpus.column_names:
        raise InputError("importance='taylor' needs a corpus with labels, and it has no column 'label'")
    names = {str(i): i for i in range(model.config.num_labels or 0)}
    named = {str(name): int(i) for i, name in (model.config.id2label or {}).items()}
    labels = [str(label) for label in corpus["label"]]
    known = named if set(labels) <= set(named) else names
    for row, label in enumerate(labels):
        if label not in known:
            raise InputError(
                f"importance='taylor': row {row}: label {label!r} is no class of the model, which "
                f"has {', '.join(map(repr, list(named)[:10]))}. Name them as the labels are, in model.config.id2label"
            )
    return torch.tensor([known[label] for label in labels])


def _measurable(
    model: PreTrainedModel, corpus: datasets.Dataset | None, tokenizer: PreTrainedTokenizerBase | None, importance: str
) -> tuple[datasets.Dataset, PreTrainedTokenizerBase]:
    """Return the corpus, checked, and the tokenizer."""
    if corpus is None or tokenizer is None:
        lacking = " and ".join(n for n, v in (("corpus", corpus), ("tokenizer", tokenizer)) if v is None)
        raise InputError(
            f"importance={importance!r} is measured on texts: {lacking} missing. Give corpus= and tokenizer="
        )
    corpus = check_corpus(corpus)
    check_fit(embedding_rows(model), tokenizer, name_of(model))
    return corpus, tokenizer


def _by_removal(
    model: PreTrainedModel, count: int, corpus: datasets.Dataset, tokenizer: PreTrainedTokenizerBase
) -> tuple[list[int], list[float]]:
    """The layers that go, in order, and 1 - CKA of the last states without them and those of the whole model."""
    whole = capture(model, tokenizer, corpus, progress=False)["hidden"].values[-1]
    smaller = copy.deepcopy(model)
    layers = layers_of(smaller, family_of(smaller))
    left = list(range(len(layers)))
    gone: list[int] = []
    losses: list[float] = []
    for _ in range(count):
        found = []
        for place in range(len(layers)):
            layer = layers[place]
            del layers[place]
            _renumber(smaller, layers)
            found.append(1 - _cka(whole, capture(smaller, tokenizer, corpus, progress=False)["hidden"].values[-1]))
            layers.insert(place, layer)
        best = int(np.argmin(found))
        del layers[best]
        gone.append(left.pop(best))
        losses.append(found[best])
    return gone, losses


def _by_similarity(
    model: PreTrainedModel, count: int, corpus: datasets.Dataset, tokenizer: PreTrainedTokenizerBase
) -> tuple[list[int], list[float]]:
    """The layers whose output is most like their input, in order, and 1 - CKA of the two."""
    states = capture(model, tokenizer, corpus, progress=False)["hidden"].values
    changes = np.array([1 - _cka(before, after) for before, after in pairwise(states)])
    gone = np.argsort(changes, kind="stable")[:count].tolist()
    return gone, changes[gone].tolist()


def _cka(x: np.ndarray, y: np.ndarray) -> float:
    value = similarity(x, y, measure="cka")
    return -1.0 if np.isnan(value) else value  # no value where all states are equal: nothing is left of them


def _layer_numbers(layers: Any, count: int) -> list[int]:
    if isinstance(layers, str | bool) or not isinstance(layers, Sequence | np.ndarray):
        raise InputError(f"layers={layers!r}: expected how many layers go, or their numbers, as in [4, 5]")
    for number in layers:
        if isinstance(number, bool) or not isinstance(number, int | np.integer) or not 0 <= number < count:
            raise InputError(f"layer {number!r} is not there: the model has the layers 0 to {count - 1}")
    gone = sorted({int(n) for n in layers})
    if len(gone) == count:
        raise InputError(f"layers={layers!r} are all {count} layers of the model. Leave at least one")
    return gone
