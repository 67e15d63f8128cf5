"""Where the parts of a model are: one table of architectures, and what is read from it.

To add an architecture, write a row below: a `Parts` with names as `named_modules()` has them (the
list of blocks from `model.base_model`, all else from a block), and in `types` the `model_type` of
its configurations. Leave out what it has not got. Pruning of heads and channels, dropping layers
and making students need `projections`, `head_size` and `channels`; single weights are pruned,
quantised, factorised and fused without a row. The tests run over all rows: give
tests/probes/models/test_parts.py the sizes of a tiny model, and tests/structured.py one with a
head.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn
from transformers import PreTrainedModel

from probes.errors import InputError


@dataclass(frozen=True)
class Parts:
    """Where the parts of an architecture are.

    Attributes:
        types: the `model_type` of each configuration that has them.
        blocks: the list of blocks, from `model.base_model`; all other names are from a block.
        attention: the module that computes it.
        projections: query, key and value.
        fused: the one map that makes all three, where they are not apart.
        joined: what joins the heads.
        feed_forward: its two maps, `inner` and `outer`; `gate` multiplies what the inner one gives.
        norms: of the attention and of the feed-forward.
        channels: the key of the configuration that counts what `inner` gives.
        head_size: the attribute of `attention` that says how many features a head has.
        counts: its attributes that count heads, and those that count their features.
        one_width: whether embeddings are as wide as the blocks.
    """

    types: tuple[str, ...]
    blocks: str
    attention: str
    joined: str
    feed_forward: tuple[str, str]
    norms: tuple[str, str]
    projections: tuple[str, ...] = ()
    fused: str = ""
    gate: str = ""
    channels: str = ""
    head_size: str = ""
    counts: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    one_width: bool = True

    @property
    def inner(self) -> str:
        """The first map of the feed-forward."""
        return self.feed_forward[0]

    @property
    def outer(self) -> str:
        """The second map of the feed-forward."""
        return self.feed_forward[1]

    @property
    def is_structured(self) -> bool:
        """Whether all that structured pruning needs is known."""
        return bool(self.projections and self.head_size and self.channels)


BERT = Parts(
    types=("bert", "roberta", "xlm-roberta", "camembert"),
    blocks="encoder.layer",
    attention="attention.self",
    projections=("attention.self.query", "attention.self.key", "attention.self.value"),
    joined="attention.output.dense",
    feed_forward=("intermediate.dense", "output.dense"),
    norms=("attention.output.LayerNorm", "output.LayerNorm"),
    channels="intermediate_size",
    head_size="attention_head_size",
    counts=(("num_attention_heads",), ("all_head_size",)),
)
DISTILBERT = Parts(
    types=("distilbert",),
    blocks="transformer.layer",
    attention="attention",
    projections=("attention.q_lin", "attention.k_lin", "attention.v_lin"),
    joined="attention.out_lin",
    feed_forward=("ffn.lin1", "ffn.lin2"),
    norms=("sa_layer_norm", "output_layer_norm"),
    channels="hidden_dim",
    head_size="attention_head_size",
    counts=(("n_heads",), ()),
)
GPT2 = Parts(
    types=("gpt2",),
    blocks="h",
    attention="attn",
    fused="attn.c_attn",
    joined="attn.c_proj",
    feed_forward=("mlp.c_fc", "mlp.c_proj"),
    norms=("ln_1", "ln_2"),
)
LLAMA = Parts(
    types=("llama", "mistral", "qwen2"),
    blocks="layers",
    attention="self_attn",
    projections=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    joined="self_attn.o_proj",
    feed_forward=("mlp.up_proj", "mlp.down_proj"),
    gate="mlp.gate_proj",
    norms=("input_layernorm", "post_attention_layernorm"),
)
ROWS = (BERT, replace(BERT, types=("electra",), one_width=False), DISTILBERT, GPT2, LLAMA)
FAMILIES: dict[str, Parts] = {kind: row for row in ROWS for kind in row.types}
STRUCTURED: dict[str, Parts] = {kind: row for kind, row in FAMILIES.items() if row.is_structured}


def family_of(model: PreTrainedModel) -> Parts:
    """Return where the parts of a model are; raise `InputError` where what structured pruning needs
    is not known.
    """
    if not isinstance(model, PreTrainedModel):
        raise InputError(f"expected a model of transformers, found {type(model).__name__}")
    family = STRUCTURED.get(model.config.model_type)
    if family is None:
        raise InputError(
            f"{type(model).__name__}: structured pruning knows the architectures {', '.join(STRUCTURED)}, and not "
            f"{model.config.model_type!r}. Use compress.prune, which removes single weights, in its place"
        )
    parts = (*family.projections, family.joined, *family.feed_forward)
    for number, layer in enumerate(layers_of(model, family)):
        for part in parts:
            if type(layer.get_submodule(part)) is not nn.Linear:
                raise InputError(
                    f"layer {number}, {part}: expected a plain torch.nn.Linear, found "
                    f"{type(layer.get_submodule(part)).__name__}. Prune the structure first, then quantise or wrap it"
                )
    return family


def attention_outputs(model: PreTrainedModel) -> list[nn.Module]:
    """Return what joins the heads of each block, of any model whose blocks name it as a row of the
    table does.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> len(attention_outputs(model))
        6
    """
    names = tuple(f".{row.joined}" for row in ROWS)
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
    apart = [row for row in ROWS if not row.fused]
    pairs = [((row.projections[2], row.joined), row.feed_forward) for row in apart]
    return list(dict.fromkeys(pair for both in pairs for pair in both))


def layers_of(model: PreTrainedModel, family: Parts) -> nn.ModuleList:
    """Return the layers of a model."""
    layers = model.base_model.get_submodule(family.blocks)
    assert isinstance(layers, nn.ModuleList)
    return layers


def linear_of(layer: nn.Module, name: str) -> nn.Linear:
    """Return a linear map of a layer by its name."""
    linear = layer.get_submodule(name)
    assert isinstance(linear, nn.Linear)
    return linear


def head_size_of(layer: nn.Module, family: Parts) -> int:
    """Return how many features a head of a layer has."""
    size = getattr(layer.get_submodule(family.attention), family.head_size)
    assert isinstance(size, int)
    return size


def ends_of(layer: nn.Module, family: Parts, what: str) -> tuple[nn.Linear, nn.Linear, int]:
    """Return the map that heads or channels are read with, the one that writes them, and the
    features of each.
    """
    if what == "heads":
        return (
            linear_of(layer, family.projections[2]),
            linear_of(layer, family.joined),
            head_size_of(layer, family),
        )
    return linear_of(layer, family.inner), linear_of(layer, family.outer), 1


def count_of(layer: nn.Module, family: Parts, what: str) -> int:
    """Return how many heads or channels a layer has."""
    _, write, size = ends_of(layer, family, what)
    return write.in_features // size


def keep_parts(layer: nn.Module, family: Parts, what: str, numbers: list[int]) -> None:
    """Keep the heads or channels of these numbers in a layer, in place."""
    read, write, size = ends_of(layer, family, what)
    features = (torch.tensor(numbers)[:, None] * size + torch.arange(size)).flatten()
    for linear in [linear_of(layer, name) for name in family.projections] if what == "heads" else [read]:
        _slice(linear, 0, features)
    _slice(write, 1, features)
    if what == "heads":
        attention = layer.get_submodule(family.attention)
        for names, value in zip(family.counts, (len(numbers), len(features)), strict=True):
            for name in names:
                setattr(attention, name, value)


def _slice(linear: nn.Linear, dimension: int, features: torch.Tensor) -> None:
    """Keep some outputs (dimension 0) or inputs (dimension 1) of a linear map, in place."""
    for parameter in (linear.weight, linear.bias) if dimension == 0 else (linear.weight,):
        if parameter is not None:
            parameter.data = parameter.data.index_select(dimension, features.to(parameter.device)).contiguous()
    linear.out_features, linear.in_features = linear.weight.shape
