"""The parts of a model, found by the table of architectures: counted, sliced, and what follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from probes.errors import InputError
from probes.models.parts import FAMILIES, ROWS, Attention, FeedForward, Parts

KINDS = {"heads": "head", "channels": "channel"}
# What attentions call the number of their heads, of the features of all of them, of those that share key and value.
_COUNTS = ("num_heads", "num_attention_heads", "n_heads")
_WIDTHS = ("all_head_size", "inner_dim", "split_size", "embed_dim")
_SHARING = ("num_key_value_heads", "num_kv_heads")
_CHANNELS = ("intermediate_size", "intermediate_dim")  # and feed-forwards their channels


@dataclass(frozen=True)
class Site:
    """A place of a model that has heads or channels.

    Attributes:
        name: of the block, from `model.base_model`.
        block: it.
        part: where in the block they are.
        expert: which one, where there are several.
    """

    name: str
    block: nn.Module
    part: Attention | FeedForward
    expert: int | None = None


def family_of(model: PreTrainedModel, what: str = "layers") -> Parts:
    """Return where the parts of a model are.

    Args:
        model: a model of transformers.
        what: is to be removed: "layers", "heads" or "channels".

    Raises:
        InputError: the architecture is not known, or what is to be removed cannot be: a message
            that names the model, the part and what to do in place of it.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> family_of(model, "heads").attention.joined
        'attention.output.dense'
    """
    if not isinstance(model, PreTrainedModel):
        raise InputError(f"expected a model of transformers, found {type(model).__name__}")
    family = FAMILIES.get(model.config.model_type)
    if family is None:
        raise InputError(
            f"{type(model).__name__}: structured pruning knows the architectures {', '.join(FAMILIES)}, and not "
            f"{model.config.model_type!r}. Use compress.prune, which removes single weights, in its place"
        )
    if not stacks_of(model, family):
        raise InputError(
            f"{type(model).__name__}: expected its blocks in {family.blocks} of {type(model.base_model).__name__}, as "
            f"models of {model.config.model_type!r} have them. Give the model whole"
        )
    attention = family.attention
    if what == "heads" and attention.kept and getattr(model.config, attention.kept_where or "model_type", None):
        raise InputError(
            f"{type(model).__name__} ({model.config.model_type}): heads cannot be removed, for {attention.kept}. Use "
            "compress.prune_channels or drop_layers, or compress.prune, which removes single weights"
        )
    for site in () if what == "layers" else sites_of(model, family, what):
        for name in _maps(site):
            found: Any = site.block.get_submodule(name)
            if not (type(found) in (nn.Linear, Conv1D) or type(found).__module__.startswith("transformers.models.")):
                raise InputError(
                    f"{type(model).__name__}, {site.name}.{name}: expected a plain linear map, found "
                    f"{type(found).__name__}. Prune the structure first, then quantise or wrap it"
                )
    return family


def stacks_of(model: PreTrainedModel, family: Parts) -> list[tuple[Parts, nn.ModuleList]]:
    """Return the lists of blocks that a model has, each with its row: of an encoder-decoder those
    of the encoder come first.
    """
    known = dict(model.base_model.named_modules())
    rows = [row for row in (family, *family.others) if isinstance(known.get(row.blocks), nn.ModuleList)]
    return [(row, known[row.blocks]) for row in rows]


def layers_of(model: PreTrainedModel, family: Parts) -> nn.ModuleList:
    """Return the blocks of a model, of an encoder-decoder those of the encoder."""
    return stacks_of(model, family)[0][1]


def depth_of(model: PreTrainedModel, family: Parts) -> int:
    """Return how many layers a model runs, which are fewer blocks where they are shared."""
    row, layers = stacks_of(model, family)[0]
    return int(getattr(model.config, row.layers)) if row.shared else len(layers)


def sites_of(model: PreTrainedModel, family: Parts, what: str) -> list[Site]:
    """Return the places of a model that have heads or channels.

    Block by block: of an encoder-decoder first those of the encoder, then those of the decoder,
    then what the decoder reads the encoder with; of experts one by one.
    """
    out: list[Site] = []
    for row, blocks in stacks_of(model, family):
        for number, block in enumerate(blocks):
            name = f"{row.blocks}.{number}"
            if what == "heads":
                out.append(Site(name, block, row.attention))
                continue
            for part in row.feed_forwards:
                if not all(has_part(block, n) for n in part.names):
                    continue
                experts = range(len(block.get_parameter(part.outer))) if part.experts else [None]
                out += [Site(name, block, part, expert) for expert in experts]
    return out


def has_part(block: nn.Module, name: str) -> bool:
    """Whether a module has a module or parameter of this name."""
    inside, _, last = name.rpartition(".")
    try:
        return getattr(block.get_submodule(inside), last, None) is not None
    except AttributeError:
        return False


def _maps(site: Site) -> list[str]:
    """Return the names of the linear maps of a place that are sliced."""
    if isinstance(site.part, FeedForward) and site.part.experts:
        return []
    return [name for name in site.part.names if has_part(site.block, name)]


def linear_of(layer: nn.Module, name: str) -> Any:
    """Return a linear map of a layer by its name."""
    return layer.get_submodule(name)


def weight_of(module: Any) -> torch.Tensor:
    """Return the weight of a linear map as (output, input), whichever way it lies."""
    weight: torch.Tensor = module.weight.detach()
    return weight.T if isinstance(module, Conv1D) else weight


def head_size_of(site: Site) -> int:
    """Return how many features a head of a place has."""
    assert isinstance(site.part, Attention)
    return int(getattr(site.block.get_submodule(site.part.module), site.part.size))


def heads_of_site(site: Site) -> tuple[int, int]:
    """Return how many heads a place has, and how many of them have a key and value of their own."""
    part, size = site.part, head_size_of(site)
    assert isinstance(part, Attention)
    heads = _width(site.block.get_submodule(part.joined), 1) // size
    made = _width(site.block.get_submodule(part.projections[-1]), 0) // size
    there = sum(has_part(site.block, name) for name in part.projections)
    if there == 1:  # queries, keys and values of one map
        return heads, (made - heads) // 2
    return heads, heads if part.size == "v_head_dim" else made


def _width(module: Any, way: int) -> int:
    """How many outputs (0) or inputs (1) a linear map has, also one in factors."""
    if hasattr(module, "in_features"):
        return int(module.in_features if way else module.out_features)
    return weight_of(module).shape[way]


def count_of(site: Site) -> int:
    """Return how many heads or channels a place has: heads that share key and value count as one,
    but where all share them.
    """
    part = site.part
    if isinstance(part, Attention):
        heads, sharing = heads_of_site(site)
        return heads if sharing == 1 else sharing
    return _expert(site, part.outer).shape[1] if part.experts else _width(site.block.get_submodule(part.outer), 1)


def ends_of(site: Site) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Return what heads or channels are read with, and what they write with.

    Returns:
        Of heads the map that makes the value, (head, feature, input), its bias as the last input;
        and what joins them, (head, feature, output). Of channels all that makes them, (channel, 1,
        input), and what reads them, (channel, 1, output). Heads that share key and value count as
        one, with the features of all; in float64.
    """
    part, block = site.part, site.block
    if isinstance(part, FeedForward):
        made = [_with_bias(site, name) for name in part.inner]
        if len(made) == 1:
            count = count_of(site)
            by_channel = made[0].unflatten(0, (part.halves, count)).transpose(0, 1) if part.halves == 2 else made[0]
            made = list(by_channel.reshape(count, -1, made[0].shape[1]).unbind(1))
        outer = _expert(site, part.outer) if part.experts else weight_of(block.get_submodule(part.outer))
        return [one[:, None] for one in made], outer.double().T[:, None]
    size, (heads, sharing) = head_size_of(site), heads_of_site(site)
    values = _with_bias(site, part.projections[-1])
    if sharing == 1 or part.segments == 3:
        values = values[-sharing * size :]
    values = values.unflatten(0, (sharing, -1))[:, -size:]  # of each the last rows
    values = values.repeat_interleave(heads // sharing, 0)
    joined = weight_of(block.get_submodule(part.joined)).double().T.unflatten(0, (heads, size))
    return [values], joined


def _with_bias(site: Site, name: str) -> torch.Tensor:
    """A map as (output, input), its bias as the last input, in float64."""
    if isinstance(site.part, FeedForward) and site.part.experts:
        weight, bias = _expert(site, name), _expert_bias(site, name)
    else:
        module: Any = site.block.get_submodule(name)
        weight, bias = weight_of(module), module.bias
    parts = [weight.double()] + ([] if bias is None else [bias.detach().double()[:, None]])
    return torch.cat(parts, 1)


def _expert(site: Site, name: str) -> torch.Tensor:
    """The map of an expert as (output, input)."""
    assert site.expert is not None
    weight = site.block.get_parameter(name).detach()[site.expert]
    return weight.T if inputs_first(site.block.get_submodule(name.rpartition(".")[0])) else weight


def _expert_bias(site: Site, name: str) -> torch.Tensor | None:
    if not has_part(site.block, f"{name}_bias"):
        return None
    bias: torch.Tensor = site.block.get_parameter(f"{name}_bias").detach()[site.expert]
    return bias


def inputs_first(experts: nn.Module) -> bool:
    """Whether the maps of experts hold their inputs along the first dimension."""
    return bool(getattr(experts, "is_transposed", False))


def keep_parts(model: PreTrainedModel, family: Parts, what: str, kept: Sequence[Sequence[int]]) -> None:
    """Keep, in place, heads or channels of these numbers in each place that `sites_of` gives."""
    sites = sites_of(model, family, what)
    tables = {s.part.table: k for s, k in zip(sites, kept, strict=True) if isinstance(s.part, Attention)}
    for name, numbers in tables.items():
        if name:
            _keep_columns(model.base_model.get_submodule(name), numbers)
    experts: dict[tuple[int, str], list[tuple[Site, Sequence[int]]]] = {}
    for site, numbers in zip(sites, kept, strict=True):
        if isinstance(site.part, Attention):
            _keep_heads(site, numbers)
        elif site.part.experts:
            experts.setdefault((id(site.block), site.part.outer), []).append((site, numbers))
        else:
            for name in site.part.inner:
                module = site.block.get_submodule(name)
                half = _width(module, 0) // site.part.halves
                _slice(module, 0, _places([half] * site.part.halves, [count_of(site)] * site.part.halves, numbers))
            _slice(site.block.get_submodule(site.part.outer), 1, torch.tensor(numbers, device="cpu"))
            _count_channels(site, len(numbers))
    for together in experts.values():
        _keep_in_experts(together[0][0], [list(numbers) for _, numbers in together])


def _places(widths: Sequence[int], units: Sequence[int], numbers: Sequence[int]) -> torch.Tensor:
    """The rows of some units of a map whose segments have such widths and so many units each; a
    segment of none stays whole.
    """
    out, start = [], 0
    for width, count in zip(widths, units, strict=True):
        if count:
            size = width // count
            out.append(
                (
                    start + torch.tensor(numbers, device="cpu")[:, None] * size + torch.arange(size, device="cpu")
                ).flatten()
            )
        else:
            out.append(start + torch.arange(width, device="cpu"))
        start += width
    return torch.cat(out)


def _keep_heads(site: Site, numbers: Sequence[int]) -> None:
    part, block = site.part, site.block
    assert isinstance(part, Attention)
    size, (heads, sharing), units = head_size_of(site), heads_of_site(site), count_of(site)
    own = units if sharing > 1 or heads == 1 else 0  # what all heads share stays
    for name in (n for n in part.projections if has_part(block, n)):
        module = block.get_submodule(name)
        width = _width(module, 0)
        if width == (heads + 2 * sharing) * size and (part.segments == 3 or sharing == 1):
            widths, counts = [heads * size, sharing * size, sharing * size], [units, own, own]
        else:
            widths, counts = [width], [units if name == part.projections[0] or sharing > 1 else own]
        _slice(module, 0, _places(widths, counts, numbers))
    _slice(block.get_submodule(part.joined), 1, _places([heads * size], [units], numbers))
    for name in (n for n in part.also if has_part(block, n)):
        inside, _, last = name.rpartition(".")
        found: Any = getattr(block.get_submodule(inside), last)
        if isinstance(found, nn.Parameter):
            found.data = found.data[_places([len(found)], [units], numbers).to(found.device)].contiguous()
        elif isinstance(found, nn.Embedding):
            _keep_columns(found, numbers)
        else:
            _slice(found, 0, _places([_width(found, 0)], [units], numbers))
    left = len(numbers) * (heads // units)
    attention: Any = block.get_submodule(part.module)
    groups = sharing if own == 0 else len(numbers)
    for names, value in (
        (_COUNTS, left),
        (_WIDTHS, left * size),
        (_SHARING, groups),
        (("num_key_value_groups",), left // groups),
    ):
        for name in names:
            if isinstance(getattr(attention, name, None), int):
                setattr(attention, name, value)
    if part.slopes:
        attention.register_forward_pre_hook(
            partial(_select, part.slopes, heads, _places([heads], [units], numbers)), with_kwargs=True
        )


def _select(
    name: str, heads: int, kept: torch.Tensor, _module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Give an attention, of what has a place for each head of each text, those of its heads."""
    by_head = named[name].unflatten(0, (-1, heads))
    return inputs, named | {name: by_head[:, kept.to(by_head.device)].flatten(0, 1)}


def _keep_columns(table: Any, numbers: Sequence[int]) -> None:
    """Keep, of a table (position, head), the columns of some heads, in place."""
    table.weight.data = table.weight.data[:, torch.tensor(numbers, device=table.weight.device)].contiguous()
    table.embedding_dim = len(numbers)


def _keep_in_experts(site: Site, kept: list[list[int]]) -> None:
    """Keep channels of all experts of a block, of each its own."""
    part = site.part
    assert isinstance(part, FeedForward)
    across = inputs_first(site.block.get_submodule(part.outer.rpartition(".")[0]))
    count = count_of(site)
    for name in part.names:
        reads = name == part.outer
        parameter = site.block.get_parameter(name)
        along = 1 if reads != across else 0  # of the map of one expert: the channels
        width = parameter.shape[1 + along]
        halves = 1 if reads else part.halves
        places = torch.stack([_places([width // halves] * halves, [count] * halves, numbers) for numbers in kept])
        parameter.data = _gathered(parameter.data, 1 + along, places.to(parameter.device))
        if not reads and has_part(site.block, f"{name}_bias"):
            bias = site.block.get_parameter(f"{name}_bias")
            bias.data = _gathered(bias.data, 1, places.to(bias.device))
    _count_channels(site, len(kept[0]))


def _count_channels(site: Site, count: int) -> None:
    """Let the module that has the maps say how many channels it has, where it does."""
    owner: Any = site.block.get_submodule(site.part.names[-1].rpartition(".")[0])
    for name in _CHANNELS:
        if isinstance(getattr(owner, name, None), int):
            setattr(owner, name, count)


def _gathered(values: torch.Tensor, dimension: int, places: torch.Tensor) -> torch.Tensor:
    """Take of each expert's values, along a dimension, those at its places (expert, place)."""
    shape = [len(places)] + [1] * (values.dim() - 1)
    shape[dimension] = places.shape[1]
    whole = [*values.shape]
    whole[dimension] = places.shape[1]
    return values.gather(dimension, places.view(shape).expand(whole)).contiguous()


def _slice(module: Any, dimension: int, features: torch.Tensor) -> None:
    """Keep some outputs (dimension 0) or inputs (dimension 1) of a linear map, in place."""
    turned = isinstance(module, Conv1D)
    weight, bias = module.weight, module.bias
    kept = weight.data.index_select(1 - dimension if turned else dimension, features.to(weight.device))
    weight.data = kept.contiguous()
    if bias is not None and dimension == 0:
        bias.data = bias.data.index_select(0, features.to(bias.device)).contiguous()
    if turned:
        module.nx, module.nf = weight.shape
    else:
        module.out_features, module.in_features = weight.shape


def attention_outputs(model: PreTrainedModel) -> list[nn.Module]:
    """Return what joins the heads of each block, of an encoder-decoder those of the encoder; of a
    model without a row whatever is named as in one.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> len(attention_outputs(model))
        6
    """
    family = FAMILIES.get(model.config.model_type)
    if family is not None and (stacks := stacks_of(model, family)):
        row, blocks = stacks[0]
        return [block.get_submodule(row.attention.joined) for block in blocks]
    names = tuple(f".{row.attention.joined}" for row in ROWS)
    return [module for name, module in model.named_modules() if name.endswith(names)]


def read_next() -> list[tuple[str, str]]:
    """Return the names of maps in a block, each with the one that reads, unit by unit, what it
    gives.

    These are value and what joins the heads, and the feed-forward pair, of the rows whose maps are
    apart.

    Example:
        >>> read_next()[0]
        ('attention.self.value', 'attention.output.dense')
    """
    out: dict[tuple[str, str], None] = {}
    for row in (one for family in ROWS for one in (family, *family.others)):
        if len(row.attention.projections) == 3 and row.attention.size != "v_head_dim":
            out[row.attention.projections[2], row.attention.joined] = None
        for part in row.feed_forwards:
            if not part.experts and part.halves == 1:
                out[part.inner[-1], part.outer] = None
    return list(out)
