"""Repair: the few weights, or bits, of the original whose loss does most of the damage, given back."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import datasets
import numpy as np
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.saving import record
from compress.tuning.given_back import UNITS, GivenBack, Part
from probes.corpus import check_corpus, corpus_fingerprint
from probes.errors import InputError, LayerscopeWarning, check_choice
from probes.files import in_words
from probes.measures.attribution.output_damage import DAMAGES, OutputDamage
from probes.measures.fidelity.drift import drift
from probes.models.facts import name_of
from probes.models.fingerprint import weights_fingerprint
from probes.states.capture import capture

BY = ("effect", "random", "weights", "drift", "order")
_KEPT_BACK = "test"  # the split that no choice is made on


def restore(
    other: PreTrainedModel,
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: datasets.Dataset,
    *,
    budget: float = 0.02,
    units: str | None = None,
    by: str | Mapping[int, float] = "effect",
    held_out: datasets.Dataset | None = None,
    texts: int = 256,
    seed: int = 0,
    progress: bool = True,
    **settings: Any,
) -> PreTrainedModel:
    """Return a copy of a compressed model to which the weights that matter most are given back.

    Each part of the original is put in by itself, and what of the damage at the output then goes
    away is measured; the part with most of it a byte stays, and the others are measured again with
    it there, until the budget is used up or nothing that fits helps.

    Args:
        other: the compressed model: pruned by single weights, quantised (simulated), by codebooks,
            or in factors; it is not changed.
        base: the original, of the same class and depth.
        tokenizer: of both.
        corpus: texts that the choice is made on, as `load_corpus` gives it; rows of split "test"
            are left out, for the proof.
        budget: bytes to give back, as a share of those of `other` in the format that
            `compress.footprint` says it is stored in. May be above 1.
        units: what is given back together: "blocks", "matrices" (a module with all of its own
            weights), "rows" (output units of a matrix, in at most 16 groups), "bits" (of a matrix
            that is rounded one more bit a weight, after 8 all 32) or "ranks" (of a matrix in two
            factors the largest of the difference, a sixteenth of the rank at a time, until the
            whole takes less). By default bits where there are such, else matrices.
        by: "effect". The others are to compare with: "random"; "weights", the largest fall of the
            squared distance from the original's weights a byte; "drift", the layers whose states
            have moved most first; "order", the first layers first; or a number for each layer (0 for
            embeddings), the largest first and none below or at 0, as `probes.depth_control` gives.
        held_out: the texts of the proof, where they are no split: refused where the choice would be
            made on one of them.
        texts: to choose on, at most; sentences are drawn by the seed, with all their translations.
        seed: of the draw, and of "random".
        progress: show a progress bar.
        settings: of `probes.measures.attribution.output_damage.OutputDamage`: pivot, pooling,
            max_length, batch_size, ...

    Returns:
        A new model of the same class. `model.config.compression` says what was `given`, with the
        bytes of each, `bytes` of the model now and `bytes_before`, and of "effect" the damage on
        the texts of the choice before and after.

    Raises:
        InputError: before the first forward pass: the models differ in class, depth, tokens or in
            the shapes of weights that are no factors; nothing fits the budget; there is no text to
            choose on, or one of `held_out`.

    Warns:
        LayerscopeWarning: there is no damage on these texts, or nothing that helps.

    Notes:
        Damage is the first measure of `OutputDamage`: the divergence of the output's probabilities,
        or without a head 1 - cosine of pooled vectors. The queue is lazy (Minoux 1978): only what
        was the best when it was last measured is measured again, which is exact where gains only
        fall. Damage on the texts of the choice flatters: prove it on others. A matrix that is whole
        again is fed what it was in the original, not rounded. A correction of low rank is for
        factors alone: added to zeros or codes, it leaves no zero and no code.

    Example:
        >>> import compress, probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> corpus = probes.load_corpus("bundled", split="dev", languages=["en"])
        >>> pruned = compress.prune(model, sparsity=0.8)
        >>> how = {"budget": 0.2, "units": "blocks", "texts": 16, "progress": False}
        >>> done = restore(pruned, model, tokenizer, corpus, **how).config.compression
        >>> len(done["given"]), done["bytes"] - done["bytes_before"] <= done["budget_bytes"]
        (1, True)

    See also:
        `probes.patching`, `compress.footprint`, `allocate_bits`.
    """
    _check_settings(budget, units, by, texts)
    chosen = _to_choose_on(check_corpus(corpus), held_out, texts, seed)
    output = OutputDamage(base, tokenizer, chosen, **settings)
    output.check(other, name_of(other))
    back = GivenBack(other, base, units or _default_units(other))
    allowed = math.floor(budget * back.size)
    _check_budget(back, budget, allowed)
    before = back.size
    ask = partial(_damage, output, back)
    start = ask() if by == "effect" else math.nan
    score = _scores(by, back, ask, start, output, seed, settings)
    with tqdm(total=allowed, desc="restore", unit="B", unit_scale=True, disable=not progress) as bar:
        given = _choose(back, allowed, score, bar) if start != 0 else []
    if not given:
        why = "there is no damage on these texts" if start == 0 else "nothing that fits the budget helps on these texts"
        warnings.warn(
            f"{name_of(other)}: {why}, so that nothing was given back. Choose on other texts"
            + ("" if start == 0 else ", by other units, or with a larger budget"),
            LayerscopeWarning,
            stacklevel=2,
        )
    model = back.settle()
    what: dict[str, Any] = {
        "method": "restore",
        "units": units or _default_units(other),
        "by": by if isinstance(by, str) else {str(layer): float(share) for layer, share in by.items()},
        "budget": budget,
        "budget_bytes": allowed,
        "given": given,
        "bytes": back.size,
        "bytes_before": before,
        "stored_as": back.stored_as,
        "base": weights_fingerprint(base),
        "texts": len(chosen),
        "corpus": corpus_fingerprint(chosen),
        "seed": seed,
    }
    if by == "effect":
        after = ask()
        what |= {"measure": output.measures[0], "damage_before": start, "damage_after": after}
    return record(model, what | back.recorded(), parent=other)


def _check_settings(budget: float, units: str | None, by: str | Mapping[int, float], texts: int) -> None:
    if isinstance(budget, bool) or not isinstance(budget, int | float) or not 0 < budget < math.inf:
        raise InputError(f"budget={budget!r}: expected a number above 0, the share of the bytes that may be given back")
    if units is not None:
        check_choice("units", units, UNITS)
    if not isinstance(by, Mapping):
        check_choice("by", by, BY, "or give a number for each layer")
    elif not by or not all(type(k) is int and isinstance(v, int | float) and math.isfinite(v) for k, v in by.items()):
        raise InputError(f"by={by!r}: expected the number of each layer, as {{0: 0.0, 1: 0.7}}, all of them finite")
    if type(texts) is not int or texts < 1:
        raise InputError(f"texts={texts!r}: expected a whole number of at least 1, the texts to choose on")


def _to_choose_on(
    corpus: datasets.Dataset, held_out: datasets.Dataset | None, texts: int, seed: int
) -> datasets.Dataset:
    """The texts that the choice is made on: whole sentences, drawn, none of those of the proof."""
    rows = np.arange(len(corpus))
    if "split" in corpus.column_names:
        rows = rows[np.asarray(corpus["split"], object) != _KEPT_BACK]
        if not len(rows):
            raise InputError(
                f"all {len(corpus)} rows of the corpus are of split {_KEPT_BACK!r}, which is for the proof: choose on "
                "others, as of split 'dev'"
            )
    ids = np.asarray(corpus["id"], object)
    order = {one: k for k, one in enumerate(np.random.default_rng(seed).permutation(len(set(ids[rows]))))}
    places = np.array([order[k] for k in np.unique(ids[rows].astype(str), return_inverse=True)[1]])
    counts = np.cumsum(np.bincount(places))
    last = max(int((counts <= texts).sum()), 1)
    chosen = corpus.select(rows[places < last])
    if held_out is not None:
        proof = set(zip(held_out["language"], held_out["text"], strict=True))
        both = [t for t in zip(chosen["language"], chosen["text"], strict=True) if t in proof]
        if both:
            raise InputError(
                f"{len(both)} of the {len(chosen)} texts to choose on are in held_out too, as {both[0][1]!r} "
                f"({both[0][0]}): what is chosen on them proves nothing there. Give other texts"
            )
    return chosen


def _default_units(other: PreTrainedModel) -> str:
    return "bits" if "bits" in (getattr(other.config, "compression", None) or {}) else "matrices"


def _check_budget(back: GivenBack, budget: float, allowed: int) -> None:
    costs = [(cost, part.name) for part in back.parts if (cost := back.cost(part)) is not None]
    least, name = min(costs)
    if least > allowed:
        raise InputError(
            f"budget={budget}: {allowed:,} bytes of {in_words(back.size)} ({back.stored_as}), and the smallest choice, "
            f"{name}, takes {least:,}: give a budget of at least {math.ceil(1e4 * least / back.size) / 1e4:g}, or "
            "smaller units"
        )


def _damage(output: OutputDamage, back: GivenBack) -> float:
    """The mean damage of the model as it is now; infinite where an output is not finite."""
    values = output.of(back.model).sel(measure=output.measures[0]).values
    return float(values.mean()) if np.isfinite(values).all() else math.inf


def _scores(
    by: str | Mapping[int, float],
    back: GivenBack,
    ask: Callable[[], float],
    start: float,
    output: OutputDamage,
    seed: int,
    settings: dict[str, Any],
) -> Callable[[Part, bool], float]:
    """What says how good it is to give a part back now; above 0 where it is."""
    if by == "effect":
        if not math.isfinite(start):
            raise InputError(
                f"{name_of(back.model)!r} gives outputs that are NaN or infinite on texts of the corpus, so that no "
                f"damage can be told ({DAMAGES[output.measures[0]]}). Look at its weights"
            )
        return _Effect(back, ask, start)
    if by == "weights":
        return lambda part, _: back.change(part) / max(back.cost(part) or 0, 1)
    order = {part.name: len(back.parts) - i for i, part in enumerate(back.parts)}
    if isinstance(by, Mapping):  # of one layer in the order of the model
        return lambda part, _: by.get(part.layer, 0.0) + 1e-12 * order[part.name] * (by.get(part.layer, 0.0) > 0)
    if by == "drift":
        given = {k: v for k, v in settings.items() if k != "pivot"} | {"progress": False}
        states = [capture(m, output.tokenizer, output.corpus, **given) for m in (output.base, back.model)]
        found = drift(states[0], states[1], draws=2).value.sel(measure="cosine_to_baseline", language="pooled")
        moved = {int(layer): 1 - float(found.sel(layer=layer)) for layer in found.layer.values}
        # Of one layer in the order of the model.
        return lambda part, _: moved[part.layer] + 1 + 1e-9 * order[part.name]
    if by == "random":
        order = dict(zip(order, np.random.default_rng(seed).permutation(len(order)) + 1, strict=True))
    return lambda part, _: float(order[part.name])


class _Effect:
    """The damage that goes away a byte, measured."""

    def __init__(self, back: GivenBack, ask: Callable[[], float], start: float) -> None:
        self.back, self.ask, self.now = back, ask, start
        self.then: dict[str, float] = {}

    def __call__(self, part: Part, stays: bool) -> float:
        """Return it for a part; where that has just been given back, take the damage as it is."""
        if stays:
            self.now = self.then[part.name]
            return 0.0
        cost = self.back.cost(part) or 0
        take_away = self.back.give(part)
        try:
            self.then[part.name] = self.ask()
        finally:
            take_away()
        return (self.now - self.then[part.name]) / max(cost, 1)


def _choose(
    back: GivenBack, allowed: int, score: Callable[[Part, bool], float], bar: Any
) -> list[dict[str, str | int]]:
    """Give back the best part that fits, until none does or none helps."""
    known: dict[str, tuple[float, int]] = {}
    given: list[dict[str, str | int]] = []
    left = allowed
    while True:
        offers = {part.name: part for part in back.parts if (cost := back.cost(part)) is not None and cost <= left}
        stale = [name for name in offers if known.get(name, (0.0, -1))[1] < len(given)]
        while offers:
            best = max(offers, key=lambda name: known.get(name, (math.inf, -1))[0])
            if best not in stale and (known[best][0] > 0 or not stale):
                break
            at = best if best in stale else stale[0]
            known[at] = score(offers[at], False), len(given)
            stale.remove(at)
            bar.set_postfix_str(f"{len(stale)} to measure", refresh=False)
            bar.update(0)
        if not offers or known[best][0] <= 0:
            return given
        part = offers[best]
        cost = back.cost(part)
        assert cost is not None
        back.give(part)
        left -= cost
        given.append({"part": part.name, "layer": part.layer, "bytes": cost})
        score(part, True)
        bar.update(cost)
