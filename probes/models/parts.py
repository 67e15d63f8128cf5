"""Where the parts of a model are: one table of architectures.

To add an architecture, write a row below, or add its `model_type` to the row that fits: a `Parts`
with names as `named_modules()` has them (lists of blocks from `model.base_model`, all else from a
block). Leave out what it has not got; what cannot be removed says why in `kept`. A second list of
blocks, as of a decoder, is a row of its own in `others`. Give tests/architectures.py the sizes of a
tiny model: the tests walk every row, remove what it names and hold the result against the original
with these parts silenced. What is done with a row is in `probes.models.blocks`; single weights are
pruned, quantised and fused without one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Attention:
    """Where the heads of a block are.

    Attributes:
        module: what computes it.
        projections: query, key and value, each by itself; or one map that makes all three; the last
            one makes the value.
        joined: what joins the heads.
        size: the attribute of `module` that says how many features of the value a head has.
        segments: 3 for one map that makes all queries, then all keys, then all values; 1 where
            those of each head, or of each group of heads that share key and value, lie together.
        also: what else has a piece for each head: further maps, vectors, or tables of positions
            (position, head) in each block.
        table: one table of positions (position, head) for all blocks, from `model.base_model`: all
            its blocks keep the same heads.
        slopes: the argument of `module` that has a number for each head, by its place.
        says: the keys of the configuration that count heads and those that share key and value,
            and that say the size of a head; empty where it cannot.
        kept: why heads cannot be removed.
        kept_where: the key of the configuration that says so; empty where it is always so.
    """

    module: str
    projections: tuple[str, ...]
    joined: str
    size: str = "head_dim"
    segments: int = 1
    also: tuple[str, ...] = ()
    table: str = ""
    slopes: str = ""
    says: tuple[str, str, str] = ("", "", "")
    kept: str = ""
    kept_where: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Its maps; the last one reads what the others make."""
        return (*self.projections, self.joined)


@dataclass(frozen=True)
class FeedForward:
    """Where the channels of a block are.

    Attributes:
        inner: what makes them: one map, or the gate and what it multiplies.
        outer: what reads them.
        channels: the key of the configuration that counts them; empty where it cannot.
        halves: 2 for one map that makes all gates, then all that they multiply.
        experts: whether both are parameters of three dimensions, an expert in each place of the
            first.
    """

    inner: tuple[str, ...]
    outer: str
    channels: str = "intermediate_size"
    halves: int = 1
    experts: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Its maps; the last one reads what the others make."""
        return (*self.inner, self.outer)


@dataclass(frozen=True)
class Parts:
    """Where the parts of an architecture are.

    Attributes:
        types: the `model_type` of each configuration that has them.
        blocks: the list of blocks, from `model.base_model`; other names are from a block.
        attention: where its heads are.
        feed_forwards: where its channels are; of several a block has those that are there.
        norms: of the attention and of the feed-forward.
        layers: the key of the configuration that counts the blocks.
        first: a module, its part and its flag that only the first block has.
        after_first: what follows the first block, from `model.base_model`.
        shared: whether all layers are one block, which runs many times.
        narrows: whether narrower students are made of it.
        others: further lists of blocks, as of a decoder, and further attentions in them.
    """

    types: tuple[str, ...]
    blocks: str
    attention: Attention
    feed_forwards: tuple[FeedForward, ...]
    norms: tuple[str, ...]
    layers: str = "num_hidden_layers"
    first: tuple[str, str, str] = ("", "", "")
    after_first: str = ""
    shared: bool = False
    narrows: bool = False
    others: tuple[Parts, ...] = ()


def _projections(prefix: str, names: str) -> tuple[str, ...]:
    return tuple(f"{prefix}.{name}" for name in names.split())


_QKV = "q_proj k_proj v_proj"
_GROUPED = ("num_attention_heads", "num_key_value_heads", "head_dim")
_UNGROUPED = ("num_attention_heads", "", "head_dim")

BERT = Parts(
    types=("bert", "roberta", "xlm-roberta", "camembert"),
    blocks="encoder.layer",
    attention=Attention(
        "attention.self",
        _projections("attention.self", "query key value"),
        "attention.output.dense",
        size="attention_head_size",
    ),
    feed_forwards=(FeedForward(("intermediate.dense",), "output.dense"),),
    norms=("attention.output.LayerNorm", "output.LayerNorm"),
    narrows=True,
)
ELECTRA = replace(BERT, types=("electra", "ernie", "data2vec-text", "roformer"), narrows=False)
DISTILBERT = Parts(
    types=("distilbert",),
    blocks="transformer.layer",
    attention=Attention(
        "attention", _projections("attention", "q_lin k_lin v_lin"), "attention.out_lin", size="attention_head_size"
    ),
    feed_forwards=(FeedForward(("ffn.lin1",), "ffn.lin2", "hidden_dim"),),
    norms=("sa_layer_norm", "output_layer_norm"),
    narrows=True,
)
ALBERT = Parts(
    types=("albert",),
    blocks="encoder.albert_layer_groups",
    attention=Attention(
        "albert_layers.0.attention",
        _projections("albert_layers.0.attention", "query key value"),
        "albert_layers.0.attention.dense",
        size="attention_head_size",
    ),
    feed_forwards=(FeedForward(("albert_layers.0.ffn",), "albert_layers.0.ffn_output"),),
    norms=("albert_layers.0.attention.LayerNorm", "albert_layers.0.full_layer_layer_norm"),
    shared=True,
)
MPNET = replace(
    ELECTRA,
    types=("mpnet",),
    attention=Attention(
        "attention.attn",
        _projections("attention.attn", "q k v"),
        "attention.attn.o",
        size="attention_head_size",
        table="encoder.relative_attention_bias",
    ),
    norms=("attention.LayerNorm", "output.LayerNorm"),
)
DEBERTA = replace(
    ELECTRA,
    types=("deberta-v2",),
    attention=Attention(
        "attention.self",
        _projections("attention.self", "query_proj key_proj value_proj"),
        "attention.output.dense",
        size="attention_head_size",
        also=("attention.self.pos_key_proj", "attention.self.pos_query_proj"),
    ),
    after_first="encoder.conv",
)
DEBERTA_1 = replace(
    DEBERTA,
    types=("deberta",),
    attention=Attention(
        "attention.self",
        ("attention.self.in_proj",),
        "attention.output.dense",
        size="attention_head_size",
        also=_projections("attention.self", "q_bias v_bias pos_proj pos_q_proj"),
        kept="its heads are mixed (talking_head)",
        kept_where="talking_head",
    ),
    after_first="",
)
BIG_BIRD = replace(
    ELECTRA,
    types=("big_bird",),
    attention=replace(BERT.attention, kept="its attention is made anew, with all of them, where texts are long"),
)
LONGFORMER = replace(
    ELECTRA,
    types=("longformer",),
    attention=replace(
        BERT.attention,
        also=_projections("attention.self", "query_global key_global value_global"),
        kept="its attention joins them by the width of the states",
        size="head_dim",
    ),
)
MODERNBERT = Parts(
    types=("modernbert",),
    blocks="layers",
    attention=Attention("attn", ("attn.Wqkv",), "attn.Wo", segments=3),
    feed_forwards=(FeedForward(("mlp.Wi",), "mlp.Wo", halves=2),),
    norms=("attn_norm", "mlp_norm"),  # the first is none in the first block
)
LLAMA = Parts(
    types=("llama", "mistral", "ministral", "qwen2", "smollm3", "eurobert", "granite", "gemma", "olmo"),
    blocks="layers",
    attention=Attention("self_attn", _projections("self_attn", _QKV), "self_attn.o_proj", says=_GROUPED),
    feed_forwards=(FeedForward(_projections("mlp", "gate_proj up_proj"), "mlp.down_proj"),),
    norms=("input_layernorm", "post_attention_layernorm"),
)
NOMIC = replace(
    LLAMA,
    types=("nomic_bert", "gte"),
    attention=replace(LLAMA.attention, says=_UNGROUPED),
    norms=("post_attention_layernorm", "post_mlp_layernorm"),
)
JINA = replace(NOMIC, types=("jina_embeddings_v3",), feed_forwards=(FeedForward(("mlp.fc1",), "mlp.fc2"),))
_HEAD_NORMS = _projections("self_attn", "q_norm k_norm")  # of the features of each head, the same for all
QWEN3 = replace(LLAMA, types=("qwen3",), norms=(*LLAMA.norms, *_HEAD_NORMS))
_FOUR = (*LLAMA.norms, "pre_feedforward_layernorm", "post_feedforward_layernorm")
GEMMA2 = replace(LLAMA, types=("gemma2",), norms=_FOUR)
GEMMA3 = replace(LLAMA, types=("gemma3_text",), norms=(*_FOUR, *_HEAD_NORMS))
OLMO2 = replace(
    LLAMA,
    types=("olmo2", "olmo3"),
    attention=replace(
        LLAMA.attention,
        kept="its norms of query and key (self_attn.q_norm) take all heads of a layer together, so that what is left "
        "would change with every head that goes",
    ),
    norms=("post_attention_layernorm", "post_feedforward_layernorm", *_HEAD_NORMS),
)
PHI3 = replace(
    LLAMA,
    types=("phi3",),
    attention=Attention("self_attn", ("self_attn.qkv_proj",), "self_attn.o_proj", segments=3, says=_GROUPED),
    feed_forwards=(FeedForward(("mlp.gate_up_proj",), "mlp.down_proj", halves=2),),
)
PHI = replace(
    LLAMA,
    types=("phi",),
    attention=replace(LLAMA.attention, joined="self_attn.dense"),
    feed_forwards=JINA.feed_forwards,
    norms=("input_layernorm", *_projections("self_attn", "q_layernorm k_layernorm")),
)
STARCODER2 = replace(LLAMA, types=("starcoder2",), feed_forwards=(FeedForward(("mlp.c_fc",), "mlp.c_proj"),))
_NORM_OF_EACH = "its norms of query and key have weights for each head, which are not sliced here"
STABLELM = replace(
    LLAMA,
    types=("stablelm",),
    attention=replace(LLAMA.attention, says=("", "", ""), kept=_NORM_OF_EACH, kept_where="qk_layernorm"),
)
COHERE = replace(
    LLAMA,
    types=("cohere",),
    attention=replace(LLAMA.attention, kept=_NORM_OF_EACH, kept_where="use_qk_norm"),
    norms=("input_layernorm",),
)

_EXPERTS = FeedForward(("mlp.experts.gate_up_proj",), "mlp.experts.down_proj", halves=2, experts=True)
_DENSE = LLAMA.feed_forwards[0]  # of the blocks without experts
_ROUTED = replace(_EXPERTS, channels="moe_intermediate_size")
MIXTRAL = replace(LLAMA, types=("mixtral",), feed_forwards=(_EXPERTS,))
QWEN2_MOE = replace(
    LLAMA,
    types=("qwen2_moe",),
    feed_forwards=(
        _DENSE,
        _ROUTED,
        FeedForward(
            _projections("mlp.shared_expert", "gate_proj up_proj"),
            "mlp.shared_expert.down_proj",
            "shared_expert_intermediate_size",
        ),
    ),
)
QWEN3_MOE = replace(QWEN3, types=("qwen3_moe",), feed_forwards=(_DENSE, _ROUTED))
GPT_OSS = replace(
    LLAMA,
    types=("gpt_oss",),
    attention=replace(LLAMA.attention, also=("self_attn.sinks",)),
    feed_forwards=(replace(_EXPERTS, halves=1),),  # gate and what it multiplies side by side
)
_MLA = _projections("self_attn", "q_proj q_b_proj kv_b_proj")  # of the first two one is there
DEEPSEEK = replace(
    LLAMA,
    types=("deepseek_v3",),
    attention=Attention(
        "self_attn",
        _MLA,
        "self_attn.o_proj",
        size="v_head_dim",
        says=("num_attention_heads", "num_key_value_heads", ""),
    ),
    feed_forwards=(
        _DENSE,
        _ROUTED,
        FeedForward(
            _projections("mlp.shared_experts", "gate_proj up_proj"),
            "mlp.shared_experts.down_proj",
            "moe_intermediate_size",
        ),
    ),
    norms=(*LLAMA.norms, *_projections("self_attn", "q_a_layernorm kv_a_layernorm")),
)

GPT2 = Parts(
    types=("gpt2",),
    blocks="h",
    attention=Attention("attn", ("attn.c_attn",), "attn.c_proj", segments=3),
    feed_forwards=(FeedForward(("mlp.c_fc",), "mlp.c_proj", "n_inner"),),
    norms=("ln_1", "ln_2"),
)
GPT_NEO = replace(
    GPT2,
    types=("gpt_neo",),
    attention=Attention("attn.attention", _projections("attn.attention", _QKV), "attn.attention.out_proj"),
    feed_forwards=(FeedForward(("mlp.c_fc",), "mlp.c_proj"),),
)
GPTJ = replace(
    GPT2,
    types=("gptj",),
    attention=Attention("attn", _projections("attn", _QKV), "attn.out_proj"),
    feed_forwards=(FeedForward(("mlp.fc_in",), "mlp.fc_out", "n_inner"),),
    norms=("ln_1",),
)
_TO_4H = FeedForward(("mlp.dense_h_to_4h",), "mlp.dense_4h_to_h")
GPT_NEOX = replace(
    LLAMA,
    types=("gpt_neox",),
    attention=Attention("attention", ("attention.query_key_value",), "attention.dense", size="head_size"),
    feed_forwards=(_TO_4H,),
)
BLOOM = replace(
    LLAMA,
    types=("bloom",),
    blocks="h",
    attention=Attention("self_attention", ("self_attention.query_key_value",), "self_attention.dense", slopes="alibi"),
    feed_forwards=(replace(_TO_4H, channels=""),),
)
FALCON = replace(
    BLOOM,
    types=("falcon",),
    attention=replace(
        BLOOM.attention,
        slopes="",
        kept="each head has a slope of its own by its place (alibi=True), which is in the mask too",
        kept_where="alibi",
    ),
    feed_forwards=(replace(_TO_4H, channels="ffn_hidden_size"),),
    norms=("input_layernorm", "post_attention_layernorm", "ln_attn", "ln_mlp"),
)
OPT = Parts(
    types=("opt",),
    blocks="decoder.layers",
    attention=Attention("self_attn", _projections("self_attn", _QKV), "self_attn.out_proj"),
    feed_forwards=(FeedForward(("fc1",), "fc2", "ffn_dim"),),
    norms=("self_attn_layer_norm", "final_layer_norm"),
)
CLIP_TEXT = replace(
    OPT,
    types=("clip_text_model",),
    blocks="encoder.layers",
    feed_forwards=(FeedForward(("mlp.fc1",), "mlp.fc2"),),
    norms=("layer_norm1", "layer_norm2"),
)
XGLM = replace(OPT, types=("xglm",), blocks="layers")

_BART_DECODER = replace(
    OPT, types=(), feed_forwards=(FeedForward(("fc1",), "fc2", "decoder_ffn_dim"),), layers="decoder_layers"
)
_BART_CROSS = replace(
    _BART_DECODER,
    attention=Attention("encoder_attn", _projections("encoder_attn", _QKV), "encoder_attn.out_proj"),
    feed_forwards=(),
    norms=("encoder_attn_layer_norm",),
)
BART = replace(
    OPT,
    types=("bart", "mbart", "marian", "m2m_100", "pegasus"),
    blocks="encoder.layers",
    feed_forwards=(FeedForward(("fc1",), "fc2", "encoder_ffn_dim"),),
    layers="encoder_layers",
    others=(_BART_DECODER, _BART_CROSS),
)


def _t5(types: tuple[str, ...], own_tables: bool) -> Parts:
    """Return the row of T5 and its kin: one table of positions a stack, or one a block."""
    own, positions = "layer.0.SelfAttention", "relative_attention_bias"

    def attention(stack: str, module: str = own, tables: bool = True) -> Attention:
        return Attention(
            module,
            _projections(module, "q k v"),
            f"{module}.o",
            size="key_value_proj_dim",
            also=(f"{own}.{positions}",) if tables and own_tables else (),
            table=f"{stack}.block.0.{own}.{positions}" if tables and not own_tables else "",
            says=("num_heads", "", "d_kv"),
        )

    def feed_forwards(layer: int) -> tuple[FeedForward, ...]:
        inside = f"layer.{layer}.DenseReluDense"
        gated = FeedForward(_projections(inside, "wi_0 wi_1"), f"{inside}.wo", "d_ff")
        return (gated, replace(gated, inner=(f"{inside}.wi",)))

    first = ("", "", "") if own_tables else (own, positions, "has_relative_attention_bias")
    cross_attention = attention("decoder", "layer.1.EncDecAttention", tables=False)
    cross = Parts((), "decoder.block", cross_attention, (), ("layer.1.layer_norm",), "num_decoder_layers")
    norms = ("layer.0.layer_norm", "layer.2.layer_norm")
    decoder = Parts((), "decoder.block", attention("decoder"), feed_forwards(2), norms, "num_decoder_layers", first)
    norms = ("layer.0.layer_norm", "layer.1.layer_norm")
    return Parts(
        types,
        "encoder.block",
        attention("encoder"),
        feed_forwards(1),
        norms,
        "num_layers",
        first,
        others=(decoder, cross),
    )


T5 = _t5(("t5", "mt5"), own_tables=False)
UMT5 = _t5(("umt5",), own_tables=True)

ROWS = (
    BERT, ELECTRA, DISTILBERT, ALBERT, MPNET, DEBERTA, DEBERTA_1, BIG_BIRD, LONGFORMER, MODERNBERT, NOMIC,
    JINA, LLAMA, QWEN3, GEMMA2, GEMMA3, OLMO2, PHI3, PHI, STARCODER2, STABLELM, COHERE, MIXTRAL, QWEN2_MOE, QWEN3_MOE,
    GPT_OSS, DEEPSEEK, GPT2, GPT_NEO, GPT_NEOX, GPTJ, BLOOM, FALCON, OPT, CLIP_TEXT, XGLM, BART, T5, UMT5,
)  # fmt: skip
FAMILIES: dict[str, Parts] = {kind: row for row in ROWS for kind in row.types}
