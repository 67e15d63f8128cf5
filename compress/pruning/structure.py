"""Structured pruning: heads and channels really removed, so that models are smaller and faster."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.matrices import check_plain, coverage, matrices_in
from compress.pruning.importance import gate_scores, given_scores, magnitude_scores
from compress.saving import record
from probes.errors import InputError, check_choice
from probes.models.blocks import (
    KINDS,
    Site,
    count_of,
    family_of,
    head_size_of,
    heads_of_site,
    keep_parts,
    sites_of,
)
from probes.models.facts import name_of
from probes.models.formats.channels_kept import CHANNELS_KEPT
from probes.models.formats.extensions import unlike
from probes.models.formats.heads_kept import HEADS_KEPT
from probes.models.parts import Attention, FeedForward, Parts

IMPORTANCE = ("magnitude", "taylor", "fisher", "random")
OF_TEXTS = ("taylor", "fisher")


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

    The same share in every layer: of n heads round(share * n) go, and at least one stays. The rows
    of query, key and value and the columns of the attention output are really removed; the rest of
    the model stays as it is. Heads that share key and value go together, but where all share them;
    heads of a table of positions that all layers share go in all of them.

    Args:
        model: a model of an architecture that `probes.models.parts` lists, as BERT, ModernBERT,
            Llama, GPT-2, T5 and their kin; it is not changed. Of an encoder-decoder heads of both
            go, those that the decoder reads the encoder with too.
        share: share of each layer's heads that goes, at least 0 and below 1.
        importance: what says which heads matter. "magnitude": the Frobenius norm of the map that a
            head writes with, output times value (with its bias). "taylor": the mean over the texts
            of |dL/dm|, where m = 1 scales what the head gives and L is the cross-entropy of the
            text's label: to first order, how much L changes without it. "fisher": the mean of
            (dL/dm)^2 / 2, to second order of a model that is trained. "random": a control. Or
            scores of your own (layer, head), higher is more important.
        corpus, tokenizer: for "taylor" and "fisher", a corpus with labels and the model's
            tokenizer.
        seed: for "random".

    Returns:
        A new model of the same class. `model.config.compression` says which heads, or groups of
        heads, were `kept`, by their number in the model given, and in which `places` where these
        are not its layers one by one.

    Raises:
        InputError: the share is out of range; the architecture is not known, or one whose heads
            cannot be removed (OLMo 2, Falcon with alibi); scores of another shape; for "taylor" and
            "fisher", no corpus with labels that the model's head knows.

    Notes:
        Plain `from_pretrained` loads what was saved where the configuration can count heads of
        another size (Llama and its kin, Phi-3, mixtures of experts, T5). Of the others it raises
        an error, and `probes.load_checkpoint` loads them: `model.config.heads_kept` says them.
        Michel, Levy and Neubig 2019, arXiv 1905.10650.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> pruned = prune_heads(model, 0.5)
        >>> pruned.config.compression["kept"][0]
        [0, 2]

    See also:
        `prune_channels`, `drop_layers`.
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

    The same share in every layer: of n channels round(share * n) go, and at least one stays. A
    channel is a row of the first feed-forward matrix (of both where one is a gate), its bias, and a
    column of the second; all are really removed, in every expert its own.

    Args:
        model: a model of a family that `prune_heads` knows; it is not changed.
        share: share of each layer's channels that goes, at least 0 and below 1.
        importance: as for `prune_heads`. The magnitude of a channel is the norm of what it reads
            with (its bias too; of a gate and what it multiplies the product) times the norm of what
            it writes with.
        corpus, tokenizer, seed: as for `prune_heads`.

    Returns:
        A new model of the same class, which plain transformers loads when it is saved (of BLOOM
        `probes.load_checkpoint`).
        `model.config.compression` says which channels were kept, by their number in the model given
        ("0-3,7" are 0, 1, 2, 3 and 7).

    Raises:
        InputError: as `prune_heads`.

    Notes:
        Molchanov et al. 2019, arXiv 1906.10771, for the Taylor importance, Theis, Korshunova, Tejani
        and Huszar 2018, arXiv 1801.05787, for that of Fisher, without their count of operations.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> prune_channels(model, 0.75).config.intermediate_size
        128

    See also:
        `prune_heads`, `drop_layers`.
    """
    return _prune(model, "channels", share, importance, corpus, tokenizer, seed)


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
    check_plain(model, "prune_heads" if what == "heads" else "prune_channels")
    family = family_of(model, what)
    sites = sites_of(model, family, what)
    counts = [count_of(site) for site in sites]
    if isinstance(importance, str):
        check_choice("importance", importance, IMPORTANCE, f"or give scores (layer, {KINDS[what]})")
        scores = _scores(model, sites, importance, corpus, tokenizer, seed)
    else:
        if len(set(counts)) > 1:
            raise InputError(
                f"the layers differ in their {what} ({counts}), so scores (layer, {KINDS[what]}) cannot be given"
            )
        scores = list(given_scores(importance, (len(sites), counts[0]), f"layer, {KINDS[what]}"))
        importance = "given scores"
    _together(sites, scores)
    kept = [
        _largest(values, _left(model, site, count, share))
        for site, values, count in zip(sites, scores, counts, strict=True)
    ]
    pruned = copy.deepcopy(model)
    keep_parts(pruned, family, what, kept)
    _say(pruned, family, what, kept)
    names = [f"{site.name}.{name}" for site in sites for name in site.part.names]
    settings: dict[str, Any] = {"share": share, "coverage": coverage(model, matrices_in(model, names))}
    settings |= {"kept": kept if what == "heads" else [_ranges(k) for k in kept]}
    if [site.name for site in sites] != [f"{family.blocks}.{i}" for i in range(len(sites))]:
        settings["places"] = [_place(site) for site in sites]
    if importance == "random":
        settings["seed"] = seed
    return record_removal(model, pruned, f"prune_{what}", importance, settings)


def _scores(
    model: PreTrainedModel,
    sites: Sequence[Site],
    importance: str,
    corpus: datasets.Dataset | None,
    tokenizer: PreTrainedTokenizerBase | None,
    seed: int,
) -> list[np.ndarray]:
    if importance == "magnitude":
        return [magnitude_scores(site) for site in sites]
    if importance == "random":
        draw = np.random.default_rng(seed)
        return [draw.random(count_of(site)) for site in sites]
    return gate_scores(model, sites, corpus, tokenizer, importance)


def _together(sites: Sequence[Site], scores: list[np.ndarray]) -> None:
    """Give heads of one table, whose blocks keep the same ones, one score, in place."""
    tables = [site.part.table if isinstance(site.part, Attention) else "" for site in sites]
    for table in filter(None, set(tables)):
        places = [i for i, t in enumerate(tables) if t == table]
        mean = np.mean([scores[i] for i in places], 0)
        for i in places:
            scores[i] = mean


def _left(model: PreTrainedModel, site: Site, count: int, share: float) -> int:
    """How many of a place stay: of a multiple of what the configuration counts, one too."""
    whole = getattr(model.config, site.part.channels or "-", None) if isinstance(site.part, FeedForward) else None
    times = count // whole if isinstance(whole, int) and whole and count % whole == 0 else 1
    return times * max(1, count // times - round(share * (count // times)))


def _largest(values: np.ndarray, count: int) -> list[int]:
    return sorted(np.argsort(-values, kind="stable")[:count].tolist())


def _place(site: Site) -> str:
    return f"{site.name}.{site.part.names[-1]}" + ("" if site.expert is None else f".{site.expert}")


def _say(pruned: PreTrainedModel, family: Parts, what: str, kept: list[list[int]]) -> None:
    """Let the configuration of a pruned model say what it has, in its own keys where it can."""
    config: Any = pruned.config
    own = HEADS_KEPT if what == "heads" else CHANNELS_KEPT
    sites = sites_of(pruned, family, what)
    wanted: dict[str, set[int]] = {}
    for site in sites:
        if isinstance(site.part, Attention):
            heads, sharing = heads_of_site(site)
            for key, value in zip(site.part.says, (heads, sharing, head_size_of(site)), strict=True):
                wanted.setdefault(key, set()).add(value)
        else:
            wanted.setdefault(site.part.channels, set()).add(count_of(site))
    if what == "heads" and family.attention.says[0]:
        wanted.pop("", None)
    if "" not in wanted and not own.promised(config):
        before = {key: getattr(config, key) for key in wanted if hasattr(config, key)}
        for key, values in wanted.items():
            setattr(config, key, min(values))
        if unlike(pruned) is None:
            # Encoder and decoder may have copies, as those of T5.
            for copied in (c for m in pruned.modules() if (c := getattr(m, "config", config)) is not config):
                for key, values in wanted.items():
                    setattr(copied, key, min(values))
            return
        for key in wanted:
            setattr(config, key, before[key]) if key in before else delattr(config, key)
    if what == "heads" and family.attention.slopes:
        there = config.heads_kept if own.promised(config) else [range(max(numbers) + 1) for numbers in kept]
        config.heads_kept = [[of[i] for i in numbers] for of, numbers in zip(there, kept, strict=True)]
    else:
        left = [heads_of_site(s)[0] if isinstance(s.part, Attention) else count_of(s) for s in sites]
        setattr(config, own.key, left)
    check_remade(pruned)


def check_remade(model: PreTrainedModel) -> None:
    """Raise `InputError` where a model with parts removed could not be loaded again."""
    otherwise = unlike(model, shapes_only=True)
    if otherwise is not None:
        raise InputError(
            f"{name_of(model)} ({model.config.model_type}): saved without these parts it could not be loaded again: "
            f"{otherwise}. Take the model as transformers makes it, or use compress.prune, which removes single weights"
        )


def _ranges(numbers: list[int]) -> str:
    """Write ascending numbers short: "0-3,7,9-10"."""
    starts = [n for i, n in enumerate(numbers) if i == 0 or numbers[i - 1] != n - 1]
    stops = [n for i, n in enumerate(numbers) if i == len(numbers) - 1 or numbers[i + 1] != n + 1]
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, stops, strict=True))


def record_removal(
    model: PreTrainedModel,
    pruned: PreTrainedModel,
    method: str,
    importance: Any,
    settings: dict[str, Any],
    layers: list[int] | None = None,
) -> PreTrainedModel:
    """Note in a pruned model what was removed from which."""
    return record(
        pruned,
        {
            "method": method,
            "importance": importance,
            **settings,
            "parameters": sum(p.numel() for p in pruned.parameters()),
            "parameters_of_parent": sum(p.numel() for p in model.parameters()),
        },
        parent=model,
        layers=layers,
    )
