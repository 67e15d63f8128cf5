"""Which layer causes the damage: what of it goes away where a layer is given back."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import datasets
import numpy as np
import torch
import xarray as xr
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from probes.errors import InputError, LayerscopeWarning, check_choice
from probes.measures.attribution.output_damage import DAMAGES, OutputDamage
from probes.measures.probe import LARGE
from probes.models.facts import layers_made_of, name_of
from probes.models.parts import FAMILIES, FeedForward
from probes.results.draws import Sample, sample, weighted_ratios
from probes.results.intervals import interval
from probes.results.result import result, stack_measures
from probes.states.representations import as_strings
from probes.states.resumed import Trace, blocks_of, has_module, record, with_block, with_module, with_states
from probes.states.running import evaluating

_AT = ("layers", "modules", "weights")
_INTO = ("other", "base")
KINDS = ("attention", "feed-forward")
# What a share says of itself, whatever it is of.
_ABOUT = {
    "range": "-infinity to infinity; 0 where it changes nothing, 1 where all damage goes away",
    "better": "",
    "higher_is": "more of the damage",
    "unchanged_by": "order",
    "paper": "Zhang and Nanda 2023, arXiv 2309.16042",
    "interval": LARGE,
}


@dataclass(frozen=True)
class Place:
    """Where something is put in, and how: `run` is told the traces of host and donor."""

    layer: int
    name: str
    kind: str
    run: Callable[[Callable[[], Any], Trace, Trace], Any]


def patching(
    base: PreTrainedModel,
    other: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: datasets.Dataset,
    *,
    at: str = "layers",
    into: str = "other",
    layers: Mapping[int, int] | None = None,
    pivot: str | None = None,
    draws: int = 200,
    seed: int = 0,
    progress: bool = True,
    names: tuple[str, str] | None = None,
    **settings: Any,
) -> xr.Dataset:
    """Measure which share of the damage goes away where a layer of a compressed model is given back.

    The compressed model runs on; at one place the original's states, or the original's block, stand
    for its own, and what its output then lacks of the original's is held against what it lacked
    before. Drift says where states moved; this says whether that mattered.

    0 where it changes nothing, 1 where all damage goes away, below 0 where it makes things worse.

    Args:
        base, other: the original and the compressed model.
        tokenizer: of both.
        corpus: as `load_corpus` gives it.
        at: "layers", the states after a block with all that came before it; "modules", what the
            attention and the feed-forward part of a block give, likewise; "weights", a block, with
            the states that the compressed model feeds it: what leaving it alone would give.
        into: "other", or the other way round "base": the compressed model's states or block in the
            original, and the share of the damage that this alone does.
        layers: layer of `other` -> layer of `base` that stands for it, where they are not equally
            deep; by default what the compression says it left. Of states only.
        pivot: the language of retrieval; needed where there is no head.
        draws, seed: of the bootstrap by sentence id: the same draws at every place.
        progress: show a progress bar.
        names: what the two are called in tables and messages; by default the names they were loaded
            by.
        settings: of `capture`: pooling, max_length, prompt, device, batch_size, batch_tokens.

    Returns:
        `value, low, high (measure, layer, language)`, all languages together as `pooled`; of
        modules along `module`, with `layer` and `kind` as coordinates. The measures are those of
        `OutputDamage`, the most sensitive first. Beside them `gain, gain_low, gain_high`, what goes
        away in units of the measure (of `into="base"` what is done), with its draws `gain_draws`,
        and `damage, damage_low, damage_high (measure, language)`, all there is.

    Raises:
        InputError: before the first forward pass, where models, corpus and settings do not fit
            together: other tokens or classes, other width, another depth without a map, weights of
            another architecture, neither head nor pivot.

    Warns:
        LayerscopeWarning: there is no damage by the first measure, or outputs are not finite. Where
            the interval of a damage holds 0 there are no shares of it.

    Notes:
        Activation patching: Vig et al. 2020, arXiv 2004.12265; Zhang and Nanda 2023, arXiv
        2309.16042. There the inputs are spoiled, here the model is. Layer l is what block l gives,
        layer 0 the embeddings; the norm after the last block and the head stay the host's, so that
        what is left at the last layer is theirs. Blocks below a place are not run again: all layers
        take (layers - 1) / 2 passes beside the two of the models, and one where embeddings differ.

    See also:
        `drift`, `module_error`.

    Example:
        >>> import compress, probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> corpus = probes.load_corpus("bundled", split="dev", languages=["en"])
        >>> pruned = compress.prune(model, sparsity=0.6)
        >>> effect = patching(model, pruned, tokenizer, corpus, progress=False)
        >>> float(effect.value.sel(measure="kl", language="pooled")[-1].round(2))
        1.0
    """
    check_choice("at", at, _AT)
    check_choice("into", into, _INTO)
    one, two = names or (name_of(base), name_of(other))
    output = OutputDamage(base, tokenizer, corpus, pivot=pivot, name=one, **settings)
    output.check(other, two)
    drawn = sample(output.texts, draws=draws, seed=seed)
    places = _places(base, other, (one, two), at, into, layers)
    damages = _measured(output, other, places, into, progress)
    found = _results(output, drawn, places, damages, {"model": two, "at": at, "into": into})
    _say_what_is_missing(damages, found)
    return found


def _places(
    base: PreTrainedModel,
    other: PreTrainedModel,
    names: tuple[str, str],
    at: str,
    into: str,
    layers: Mapping[int, int] | None,
) -> list[Place]:
    """Where something is put in; raise `InputError` where the models do not allow it."""
    depths = [len(blocks_of(model)) for model in (base, other)]
    widths = [getattr(model.config.get_text_config(), "hidden_size", None) for model in (base, other)]
    if widths[0] != widths[1]:
        raise InputError(
            f"the states of {names[0]!r} have {widths[0]} features and those of {names[1]!r} {widths[1]}, so that "
            "neither's can stand for the other's. Patch between models of one width, and see such pairs by similarity"
        )
    if at == "layers":
        pairs = _pairs(other, names, depths, layers)
        hosts = pairs if into == "other" else {b: o for o, b in pairs.items()}
        blocks = blocks_of(other if into == "other" else base)

        def states(layer: int, donor: int) -> Place:
            return Place(
                layer,
                "",
                "states",
                lambda run, host, given: with_states(run, blocks, host, layer, given.layer(donor)),
            )

        return [states(host, donor) for host, donor in sorted(hosts.items())]
    kinds = base.config.model_type, other.config.model_type
    if depths[0] != depths[1] or kinds[0] != kinds[1] or layers is not None:
        raise InputError(
            f"at={at!r}: a part stands for the same part of a model of one architecture and depth; {names[0]!r} is "
            f"{kinds[0]} of {depths[0]} layers and {names[1]!r} {kinds[1]} of {depths[1]}"
            + (", and layers= is of states" if layers is not None else "")
            + '. Patch states, with at="layers"'
        )
    host, donor = (other, base) if into == "other" else (base, other)
    return _blocks(host, donor, names) if at == "weights" else _modules(host, donor, names)


def _pairs(
    other: PreTrainedModel, names: tuple[str, str], depths: list[int], layers: Mapping[int, int] | None
) -> dict[int, int]:
    """Layer of the compressed model -> layer of the original."""
    left = layers_made_of(other)
    if layers is not None:
        wrong = [(o, b) for o, b in layers.items() if o not in range(depths[1] + 1) or b not in range(depths[0] + 1)]
        if wrong or not layers:
            raise InputError(
                f"layers={dict(layers)}: expected layers 0 to {depths[1]} of {names[1]!r}, each with one of 0 to "
                f"{depths[0]} of {names[0]!r}"
            )
        return dict(layers)
    if depths[0] == depths[1]:
        return {layer: layer for layer in range(depths[0] + 1)}
    if left is not None and max(left) < depths[0]:
        return {0: 0} | {place + 1: layer + 1 for place, layer in enumerate(left)}
    raise InputError(
        f"{names[0]!r} has {depths[0]} layers and {names[1]!r} {depths[1]}: say which layer of {names[0]!r} stands for "
        f"which of {names[1]!r}, with layers={{0: 0, ..., {depths[1]}: {depths[0]}}}"
    )


def _blocks(host: PreTrainedModel, donor: PreTrainedModel, names: tuple[str, str]) -> list[Place]:
    kinds = [getattr(model.config, "_attn_implementation", None) for model in (host, donor)]
    if kinds[0] != kinds[1]:
        raise InputError(
            f"{names[0]!r} and {names[1]!r} compute attention in two ways ({kinds[1]}, {kinds[0]}), so that their "
            "blocks read other masks. Load both with one attn_implementation"
        )
    own, given = blocks_of(host), blocks_of(donor)
    return [
        Place(number + 1, "", "block", partial(_with_block, own, number, block)) for number, block in enumerate(given)
    ]


def _with_block(
    blocks: list[torch.nn.Module],
    number: int,
    block: torch.nn.Module,
    run: Callable[[], Any],
    host: Trace,
    _given: Trace,
) -> Any:
    return with_block(run, blocks, host, number, block)


def inside_of(model: PreTrainedModel, name: str) -> dict[str, str]:
    """Return the modules of a block whose outputs are what its attention and feed-forward part
    give, each with its kind.

    Raises:
        InputError: the table of architectures does not know the model.
    """
    family = FAMILIES.get(model.config.model_type)
    if family is None:
        raise InputError(
            f'{name!r}: at="modules" knows the architectures {", ".join(FAMILIES)}, and not '
            f'{model.config.model_type!r}. Patch states, with at="layers"'
        )
    parts = {family.attention.joined: KINDS[0]} | {_end_of(part): KINDS[1] for part in family.feed_forwards}
    return {n: kind for n, kind in parts.items() if any(has_module(block, n) for block in blocks_of(model))}


def _end_of(part: FeedForward) -> str:
    """The module that gives what a feed-forward part gives: of experts what holds them all."""
    return part.outer.rpartition(".")[0] if part.experts else part.outer


def _modules(host: PreTrainedModel, donor: PreTrainedModel, names: tuple[str, str]) -> list[Place]:
    own, given = blocks_of(host), blocks_of(donor)
    out = []
    for number in range(len(own)):
        for name, kind in inside_of(host, names[0]).items():
            if has_module(own[number], name) and has_module(given[number], name):
                out.append(Place(number + 1, name, kind, partial(_with_module, own, (number, name))))
    if not out:
        raise InputError(f"{names[0]!r} and {names[1]!r} share no attention or feed-forward part by name")
    return out


def _with_module(
    blocks: list[torch.nn.Module], place: tuple[int, str], run: Callable[[], Any], host: Trace, given: Trace
) -> Any:
    return with_module(run, blocks, host, place, given.inside[place])


def _measured(
    output: OutputDamage, other: PreTrainedModel, places: list[Place], into: str, progress: bool
) -> dict[str, np.ndarray]:
    """The damage of every text (text, 1 + place) by measure: of the compressed model, and patched."""
    base, corpus = output.base, output.corpus
    host = other if into == "other" else base
    inside = sorted({p.name for p in places if p.name})
    out = {m: np.full((len(corpus), 1 + len(places)), np.nan) for m in output.measures}
    ends: list[np.ndarray] = []
    order: list[np.ndarray] = []
    bar = tqdm(total=len(corpus), desc="patching", unit="text", disable=not progress)
    with bar, evaluating(base, output.where), evaluating(other, output.where), torch.inference_mode():
        for rows, inputs, weights in output.batches():
            one, two = (
                record(partial(output.answer, model, inputs, weights), blocks_of(model), inside)
                for model in (base, other)
            )
            there, given = (two, one) if into == "other" else (one, two)
            run = partial(output.answer, host, inputs, weights)
            vectors = [one.answer, two.answer] if "retrieval" in out else []
            for number, answer in enumerate(_answers(run, places, there, given, two)):
                for name, values in output.differences(one.answer, answer, inputs, rows).items():
                    out[name][rows, number] = values.double().cpu().numpy()
                if number and "retrieval" in out:
                    vectors.append(answer)
            if vectors:
                ends.append(torch.stack(vectors).cpu().numpy())
                order.append(rows)
            bar.update(len(rows))
    if ends:
        together = np.concatenate(ends, axis=1)[:, np.argsort(np.concatenate(order))]
        out["retrieval"] = np.stack([output.lost(together[0], vectors) for vectors in together[1:]], axis=1)
    return out


def _answers(
    run: Callable[[], Any], places: list[Place], host: Trace, donor: Trace, compressed: Trace
) -> Iterator[torch.Tensor]:
    yield compressed.answer
    for place in places:
        yield place.run(run, host, donor)


def _results(
    output: OutputDamage, drawn: Sample, places: list[Place], damages: dict[str, np.ndarray], about: dict[str, str]
) -> xr.Dataset:
    along = "module" if any(p.name for p in places) else "layer"
    labels = as_strings([f"{p.layer}.{p.name}" for p in places]) if along == "module" else [p.layer for p in places]
    texts = output.texts.assign_attrs(model=about["model"])
    out = []
    for name in output.measures:
        there = output.there(name)
        counted = np.where(there[:, None], damages[name], 0.0)
        means = weighted_ratios(drawn, counted, there.astype(float))
        gain, share = {}, {}
        for language, of in means.items():
            whole, patched = of[:, :1], of[:, 1:]
            gain[language] = whole - patched if about["into"] == "other" else patched
            low, high = interval(whole[0], whole[1:])
            told = bool((low > 0) & np.isfinite(high))
            with np.errstate(invalid="ignore", divide="ignore"):
                share[language] = np.where(told, gain[language] / whole, np.nan)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LayerscopeWarning)  # said for all measures at once
            one = result(
                texts,
                drawn,
                share,
                {**_ABOUT, "probe": name, "estimator": f"share that goes away of: {DAMAGES[name]}"}
                | {"other_model": output.name}
                | about,
                rows={language: (rows := drawn.group(language))[there[rows]] for language in means},
                over={along: labels},
                missing=lambda at, language: "no damage",
            )
        out.append(_beside(one, means, gain, along))
    stacked = stack_measures(out)
    if along == "module":
        stacked = stacked.assign_coords(
            layer=("module", [p.layer for p in places]), kind=("module", as_strings([p.kind for p in places]))
        )
    return stacked


def _beside(one: xr.Dataset, means: dict[str, np.ndarray], gain: dict[str, np.ndarray], along: str) -> xr.Dataset:
    """A result with what goes away and all there is, in units of the measure."""
    gains = np.stack(list(gain.values()), axis=-1)
    whole = np.stack([of[:, 0] for of in means.values()], axis=-1)
    dims = (along, "language")
    (low, high), (least, most) = interval(gains[0], gains[1:]), interval(whole[0], whole[1:])
    return one.assign(
        gain=(dims, gains[0]),
        gain_low=(dims, low),
        gain_high=(dims, high),
        gain_draws=(("draw", *dims), gains[1:]),
        damage=("language", whole[0]),
        damage_low=("language", least),
        damage_high=("language", most),
    )


def _say_what_is_missing(damages: dict[str, np.ndarray], out: xr.Dataset) -> None:
    """Warn, once, where there is no damage by the most sensitive measure, or outputs are not finite."""
    reasons: dict[str, dict[str, list[str]]] = {}
    for name, of in damages.items():
        one = out.sel(measure=name)
        for language in out["language"].values[one["value"].isnull().any(axis=0).values]:
            bad = int((~np.isfinite(of)).any(axis=1).sum()) if name != "retrieval" else 0
            why = "cannot be told from none"
            if bad:
                why = f"is not known: the outputs of {bad} texts are not finite"
            elif name != out["measure"].values[0]:
                continue  # its damage and interval say it
            elif not float(one["damage"].sel(language=language)):
                why = "is none"
            reasons.setdefault(why, {}).setdefault(str(language), []).append(name)
    if reasons:
        told = "; ".join(
            f"{why} by " + ", ".join(f"{' and '.join(m)} ({k})" for k, m in by.items()) for why, by in reasons.items()
        )
        warnings.warn(
            f"patching: what {out.attrs['model']!r} lacks of {out.attrs['other_model']!r} {told}. There are no shares "
            "of it there",
            LayerscopeWarning,
            stacklevel=3,
        )
