"""Which layer causes the damage: what of it goes away where a layer is given back."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import xarray as xr
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from probes.errors import InputError, LayerscopeWarning, check_choice
from probes.measures.attribution.output_damage import DAMAGES, OutputDamage
from probes.measures.attribution.places import Place, hosts_of, measured_at, places_of
from probes.measures.attribution.projections import Projection, check_apart, projections
from probes.measures.attribution.screening import screened
from probes.measures.probe import LARGE
from probes.models.facts import name_of
from probes.results.draws import Sample, sample, weighted_ratios
from probes.results.intervals import interval
from probes.results.result import result, stack_measures
from probes.states.representations import as_strings

_AT = ("layers", "modules", "weights", "module_weights")
_INTO = ("other", "base")
# What a share says of itself, whatever it is of.
_ABOUT = {
    "range": "-infinity to infinity; 0 where it changes nothing, 1 where all damage goes away",
    "better": "",
    "higher_is": "more of the damage",
    "unchanged_by": "order",
    "paper": "Zhang and Nanda 2023, arXiv 2309.16042",
    "interval": LARGE,
}


def patching(
    base: PreTrainedModel,
    other: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: datasets.Dataset,
    *,
    at: str = "layers",
    into: str = "other",
    exact: bool = True,
    layers: Mapping[int, int] | None = None,
    train: datasets.Dataset | None = None,
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
            the states that the compressed model feeds it: what leaving it alone would give;
            "module_weights", the attention or the feed-forward part of a block likewise.
        into: "other", or the other way round "base": the compressed model's states or block in the
            original, and the share of the damage that this alone does.
        exact: False for an estimate of all modules at once, from one backward pass: what goes away
            to first order. Attributes say its `correlation` with the exact effect over `checked`
            modules in `checked_texts`.
        layers: layer of `other` -> layer of `base` that stands for it, where they are not equally
            deep; by default what the compression says it left. Of states only.
        train: other texts, for students whose states are of another width or kind: from them a
            straight map of the states of one model to those of the other is learned at each layer,
            and what is put in goes through it. `residual (layer)` says what share of the variance of
            sentences held out it leaves. What a straight map can undo is no damage then.
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
        2309.16042 (there inputs are spoiled, here the model is); to first order Syed, Rager and
        Conmy 2023, arXiv 2310.10348. Layer l is what block l gives, layer 0 the embeddings; the norm
        after the last block and the head stay the host's, so that what is left at the last layer is
        theirs. Blocks below a place are not run again: all layers take (layers - 1) / 2 passes
        beside the two of the models, and one more where embeddings differ; all blocks, each of which
        has to be run itself, (layers + 1) / 2.

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
    one, two = names or (name_of(base), name_of(other))
    how: dict[str, Any] = {
        "at": at,
        "into": into,
        "layers": layers,
        "pivot": pivot,
        "names": (one, two),
        "exact": exact,
    }
    maps: dict[int, Projection] | None = None if train is None else {}
    output, places = check_patching(base, other, tokenizer, corpus, **how, maps=maps, **settings)
    if train is not None and maps is not None:
        train = check_apart(train, output.corpus)
        host, donor = (other, base) if into == "other" else (base, other)
        hosts = hosts_of(base, other, (one, two), into, layers)
        maps |= projections(donor, host, tokenizer, train, hosts, **settings)
    drawn = sample(output.texts, draws=draws, seed=seed)
    about: dict[str, Any] = {"model": two, "at": at, "into": into}
    if exact:
        damages = measured_at(output, other, places, into, progress)
    else:
        damages, checked = screened(output, other, places, progress)
        about |= checked
    found = _results(output, drawn, places, damages, about)
    if maps:
        found = found.assign(residual=("layer", [maps[place.layer].residual for place in places]))
    _say_what_is_missing(damages, found)
    return found


def patched_together(
    base: PreTrainedModel,
    other: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: datasets.Dataset,
    *,
    at: Sequence[str],
    names: tuple[str, str],
    only: Collection[int] | None = None,
    pivot: str | None = None,
    draws: int = 200,
    seed: int = 0,
    progress: bool = True,
    **settings: Any,
) -> list[xr.Dataset]:
    """Return what `patching` gives of each `at`, from one pass of each model for all of them.

    Args:
        base, other, tokenizer, corpus, names, pivot, draws, seed, progress, settings: of
            `patching`.
        at: several of it.
        only: the layers that are looked at; by default all.
    """
    output, _ = check_patching(base, other, tokenizer, corpus, at=at[0], pivot=pivot, names=names, **settings)
    drawn = sample(output.texts, draws=draws, seed=seed)
    groups = [places_of(base, other, names, one, "other", None) for one in at]
    groups = [[p for p in places if only is None or p.layer in only] for places in groups]
    damages = measured_at(output, other, [p for places in groups for p in places], "other", progress)
    out, first = [], 1
    for one, places in zip(at, groups, strict=True):
        columns = [0, *range(first, first + len(places))]
        first += len(places)
        own = {name: of[:, columns] for name, of in damages.items()}
        out.append(_results(output, drawn, places, own, {"model": names[1], "at": one, "into": "other"}))
    _say_what_is_missing(damages, out[0])
    return out


def check_patching(
    base: PreTrainedModel,
    other: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: datasets.Dataset,
    *,
    names: tuple[str, str],
    at: str = "layers",
    into: str = "other",
    exact: bool = True,
    layers: Mapping[int, int] | None = None,
    maps: dict[int, Projection] | None = None,
    pivot: str | None = None,
    **settings: Any,
) -> tuple[OutputDamage, list[Place]]:
    """Return what `patching` measures by and where; raise `InputError` as it does, and run nothing."""
    check_choice("at", at, _AT)
    check_choice("into", into, _INTO)
    if not exact and (at, into) != ("modules", "other"):
        raise InputError(
            f'exact=False estimates what modules of the original give the other: at="modules" and into="other"; found '
            f"at={at!r} and into={into!r}. Leave exact= out"
        )
    output = OutputDamage(base, tokenizer, corpus, pivot=pivot, name=names[0], **settings)
    output.check(other, names[1])
    return output, places_of(base, other, names, at, into, layers, maps)


def _results(
    output: OutputDamage, drawn: Sample, places: list[Place], damages: dict[str, np.ndarray], about: dict[str, str]
) -> xr.Dataset:
    along = "module" if any(p.name for p in places) else "layer"
    labels = as_strings([f"{p.layer}.{p.name}" for p in places]) if along == "module" else [p.layer for p in places]
    texts = output.texts.assign_attrs(model=about["model"])
    out = []
    for name in damages:
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
