"""Where a part of one model can stand for that of another, and how it is put there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from probes.errors import InputError
from probes.measures.attribution.output_damage import OutputDamage
from probes.models.facts import layers_made_of
from probes.models.parts import FAMILIES, FeedForward, Parts
from probes.states.resumed import Trace, blocks_of, has_module, record, with_block, with_module, with_parts, with_states
from probes.states.running import evaluating

KINDS = ("attention", "feed-forward")


@dataclass(frozen=True)
class Place:
    """Where something is put in, and how: `run` is told the traces of host and donor, which hold what
    modules of the name gave where that is to be `recorded`.
    """

    layer: int
    name: str
    kind: str
    run: Callable[[Callable[[], Any], Trace, Trace], Any]
    recorded: bool = False


def places_of(
    base: PreTrainedModel,
    other: PreTrainedModel,
    names: tuple[str, str],
    at: str,
    into: str,
    layers: Mapping[int, int] | None,
    maps: Mapping[int, Callable[[torch.Tensor], torch.Tensor]] | None = None,
) -> list[Place]:
    """Where something is put in; raise `InputError` where the models do not allow it. States go
    through the map of their layer, where there are to be `maps` by the time that they run.
    """
    depths = [len(blocks_of(model)) for model in (base, other)]
    widths = [getattr(model.config.get_text_config(), "hidden_size", None) for model in (base, other)]
    if maps is not None and at != "layers":
        raise InputError(f'at={at!r}: train= is for maps of states. Patch these, with at="layers", or leave it out')
    if widths[0] != widths[1] and maps is None:
        raise InputError(
            f"the states of {names[0]!r} have {widths[0]} features and those of {names[1]!r} {widths[1]}, so that "
            "neither's can stand for the other's. Give texts as train=, from which maps of them are learned, or see "
            "such pairs by similarity"
        )
    if at == "layers":
        hosts = hosts_of(base, other, names, into, layers)
        blocks = blocks_of(other if into == "other" else base)

        def mapped(layer: int, states: torch.Tensor) -> torch.Tensor:
            return states if maps is None else maps[layer](states)

        def states(layer: int, donor: int) -> Place:
            return Place(
                layer,
                "",
                "states",
                lambda run, host, given: with_states(run, blocks, host, layer, mapped(layer, given.layer(donor))),
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
    if at == "modules":
        return _modules(host, donor, names)
    _check_attention(host, donor, names)
    return _blocks(host, donor) if at == "weights" else _parts(host, donor, names)


def hosts_of(
    base: PreTrainedModel, other: PreTrainedModel, names: tuple[str, str], into: str, layers: Mapping[int, int] | None
) -> dict[int, int]:
    """Return the layer of the donor that stands for each layer of the host."""
    depths = [len(blocks_of(model)) for model in (base, other)]
    pairs = _pairs(other, names, depths, layers)
    return pairs if into == "other" else {b: o for o, b in pairs.items()}


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


def _check_attention(host: PreTrainedModel, donor: PreTrainedModel, names: tuple[str, str]) -> None:
    kinds = [getattr(model.config, "_attn_implementation", None) for model in (host, donor)]
    if kinds[0] != kinds[1]:
        raise InputError(
            f"{names[0]!r} and {names[1]!r} compute attention in two ways ({kinds[1]}, {kinds[0]}), so that their "
            "blocks read other masks. Load both with one attn_implementation"
        )


def _blocks(host: PreTrainedModel, donor: PreTrainedModel) -> list[Place]:
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
    given: Trace,
) -> Any:
    if number == 0 and torch.equal(host.layer(0), given.layer(0)):  # what it makes of that is known
        return with_states(run, blocks, host, 1, given.layer(1))
    return with_block(run, blocks, host, number, block)


def inside_of(model: PreTrainedModel, name: str) -> dict[str, str]:
    """Return the modules of a block whose outputs are what its attention and feed-forward part
    give, each with its kind.

    Raises:
        InputError: the table of architectures does not know the model.
    """
    family = _family(model, name)
    parts = {family.attention.joined: KINDS[0]} | {_end_of(part): KINDS[1] for part in family.feed_forwards}
    return {n: kind for n, kind in parts.items() if any(has_module(block, n) for block in blocks_of(model))}


def _family(model: PreTrainedModel, name: str) -> Parts:
    family = FAMILIES.get(model.config.model_type)
    if family is None:
        raise InputError(
            f'{name!r}: at="modules" knows the architectures {", ".join(FAMILIES)}, and not '
            f'{model.config.model_type!r}. Patch states, with at="layers"'
        )
    return family


def parts_of(model: PreTrainedModel, number: int, name: str) -> dict[str, dict[str, torch.nn.Module]]:
    """Return the modules that hold the weights of the attention and of the feed-forward part of a
    block, from 0, by kind and by name in the block; norms are of neither.

    Raises:
        InputError: the table of architectures does not know the model.

    Example:
        >>> import probes
        >>> found = parts_of(probes.load_checkpoint("bundled")[0], 0, "bundled")
        >>> list(found["attention"]), list(found["feed-forward"])
        (['attention.self', 'attention.output.dense'], ['intermediate.dense', 'output.dense'])
    """
    family, block = _family(model, name), blocks_of(model)[number]
    attention = [family.attention.module, family.attention.joined]
    outer = [n for part in family.feed_forwards for n in ((_end_of(part),) if part.experts else part.names)]
    out = {}
    for kind, modules in zip(KINDS, (attention, outer), strict=True):
        there = [n for n in dict.fromkeys(modules) if has_module(block, n)]
        # What lies in another one goes with it.
        whole = [n for n in there if not any(n.startswith(f"{m}.") for m in there)]
        if whole:
            out[kind] = {n: block.get_submodule(n) for n in whole}
    return out


def _parts(host: PreTrainedModel, donor: PreTrainedModel, names: tuple[str, str]) -> list[Place]:
    own, out = blocks_of(host), []
    for number in range(len(own)):
        mine, given = (parts_of(model, number, names[0]) for model in (host, donor))
        for kind in [k for k in mine if set(mine[k]) == set(given.get(k, {}))]:
            out.append(Place(number + 1, kind, kind, partial(_with_parts, own, number, given[kind])))
    return out


def _with_parts(
    blocks: list[torch.nn.Module],
    number: int,
    parts: dict[str, torch.nn.Module],
    run: Callable[[], Any],
    host: Trace,
    _given: Trace,
) -> Any:
    return with_parts(run, blocks, host, number, parts)


def _end_of(part: FeedForward) -> str:
    """The module that gives what a feed-forward part gives: of experts what holds them all."""
    return part.outer.rpartition(".")[0] if part.experts else part.outer


def _modules(host: PreTrainedModel, donor: PreTrainedModel, names: tuple[str, str]) -> list[Place]:
    own, given = blocks_of(host), blocks_of(donor)
    out = []
    for number in range(len(own)):
        for name, kind in inside_of(host, names[0]).items():
            if has_module(own[number], name) and has_module(given[number], name):
                out.append(Place(number + 1, name, kind, partial(_with_module, own, (number, name)), True))
    if not out:
        raise InputError(f"{names[0]!r} and {names[1]!r} share no attention or feed-forward part by name")
    return out


def _with_module(
    blocks: list[torch.nn.Module], place: tuple[int, str], run: Callable[[], Any], host: Trace, given: Trace
) -> Any:
    return with_module(run, blocks, host, place, given.inside[place])


def measured_at(
    output: OutputDamage, other: PreTrainedModel, places: list[Place], into: str, progress: bool
) -> dict[str, np.ndarray]:
    """The damage of every text (text, 1 + place) by measure: of the compressed model, and patched."""
    base, corpus = output.base, output.corpus
    host = other if into == "other" else base
    inside = sorted({p.name for p in places if p.recorded})
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
        rows = np.concatenate(order)
        if len(rows) < len(corpus):  # of a part of the texts there is no retrieval
            return out
        together = np.concatenate(ends, axis=1)[:, np.argsort(rows)]
        out["retrieval"] = np.stack([output.lost(together[0], vectors) for vectors in together[1:]], axis=1)
    return out


def _answers(
    run: Callable[[], Any], places: list[Place], host: Trace, donor: Trace, compressed: Trace
) -> Iterator[torch.Tensor]:
    yield compressed.answer
    for place in places:
        yield place.run(run, host, donor)
