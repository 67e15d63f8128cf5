"""Tiny random models of every architecture in the table of parts."""

import torch
import transformers

from probes.models.parts import FAMILIES

# 4 layers of 4 heads of 8 features, 48 channels; key and value shared by 2 heads each where they can be.
_PLAIN = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4}
_PLAIN |= {"intermediate_size": 48, "pad_token_id": 0, "max_position_embeddings": 64}
_GROUPED = _PLAIN | {"num_key_value_heads": 2, "head_dim": 8}
_EXPERTS = _GROUPED | {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2}
_EXPERTS |= {"moe_intermediate_size": 24, "shared_expert_intermediate_size": 40}
_T5 = {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 4, "num_decoder_layers": 4, "num_heads": 4}
_STACKS = [f"{stack}_{what}" for stack in ("encoder", "decoder") for what in ("layers", "attention_heads", "ffn_dim")]
_BART = {"vocab_size": 64, "d_model": 32, "max_position_embeddings": 64, "pad_token_id": 1, "bos_token_id": 0}
_BART |= {"eos_token_id": 2, "decoder_start_token_id": 2, "encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0}
_BART |= dict(zip(_STACKS, (4, 4, 48, 4, 4, 48), strict=True))
_GPT = {"vocab_size": 64, "max_position_embeddings": 64, "hidden_size": 32, "pad_token_id": 0}
_SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
_WINDOW = {"sliding_window": 4}
_BY_TYPE = {
    "electra": _PLAIN | {"embedding_size": 16},
    "albert": _PLAIN | {"embedding_size": 16},
    "distilbert": _PLAIN | {"dim": 32, "n_layers": 4, "n_heads": 4, "hidden_dim": 48},
    "deberta-v2": _PLAIN
    | {"relative_attention": True, "pos_att_type": "c2p|p2c", "position_biased_input": False, "share_att_key": True}
    | {"position_buckets": 8, "norm_rel_ebd": "layer_norm", "type_vocab_size": 0},
    "deberta": _PLAIN | {"relative_attention": True, "pos_att_type": "c2p|p2c", "type_vocab_size": 0},
    "longformer": _PLAIN | _SPECIAL | {"attention_window": [4, 8, 4, 8], "max_position_embeddings": 70},
    "big_bird": _PLAIN | {"attention_type": "original_full"},
    "clip_text_model": _PLAIN | _SPECIAL | {"eos_token_id": 62},
    "modernbert": _PLAIN | _SPECIAL | {"global_attn_every_n_layers": 3, "local_attention": 4},
    "gpt2": _GPT | {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_inner": 48} | _SPECIAL,
    "gpt_neo": _GPT
    | {"num_layers": 4, "num_heads": 4, "intermediate_size": 48, "window_size": 4}
    | {"attention_types": [[["global", "local"], 2]]},
    "gptj": _GPT | {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_inner": 48, "rotary_dim": 4, "n_positions": 64},
    "opt": _PLAIN | {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "bloom": _GPT | {"n_layer": 4, "n_head": 4},
    "falcon": _PLAIN | {"new_decoder_architecture": True, "num_kv_heads": 2, "bias": True},
    "xglm": _GPT | {"d_model": 32, "ffn_dim": 48, "num_layers": 4, "attention_heads": 4},
    "deepseek_v3": _PLAIN
    | {"num_key_value_heads": 4, "n_routed_experts": 4, "n_shared_experts": 2, "num_experts_per_tok": 2}
    | {"moe_intermediate_size": 24, "first_k_dense_replace": 1, "n_group": 2, "topk_group": 1, "q_lora_rank": 16}
    | {"kv_lora_rank": 16, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 8},
    "qwen2_moe": _EXPERTS | {"decoder_sparse_step": 2},
    "gpt_oss": _EXPERTS | _WINDOW,
    "mixtral": _EXPERTS,
    "qwen3_moe": _EXPERTS,
    **dict.fromkeys(("gemma2", "gemma3_text", "phi3", "mistral", "ministral", "olmo3"), _GROUPED | _WINDOW),
    "qwen2": _GROUPED | {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2},
    **dict.fromkeys(("t5", "mt5", "umt5"), _T5),
    "mt5": _T5 | {"feed_forward_proj": "gated-gelu"},
    **dict.fromkeys(("bart", "mbart", "marian", "m2m_100", "pegasus"), _BART),
    **dict.fromkeys(
        ("bert", "roberta", "xlm-roberta", "camembert", "ernie", "data2vec-text", "roformer", "mpnet"), _PLAIN
    ),
    **dict.fromkeys(("nomic_bert", "gte", "jina_embeddings_v3", "gpt_neox"), _PLAIN),
}
KEEP_HEADS = ("olmo2", "olmo3", "big_bird", "longformer")
# The same type made otherwise.
VARIANTS = {
    "deberta-v2, keys of its own": ("deberta-v2", {"share_att_key": False}),
    "t5, gated": ("t5", {"feed_forward_proj": "gated-gelu"}),
    "falcon, one key": ("falcon", {"new_decoder_architecture": False, "multi_query": True, "bias": False}),
    "falcon, keys of its own": (
        "falcon",
        {"new_decoder_architecture": False, "multi_query": False, "num_kv_heads": 4, "parallel_attn": False},
    ),
    "gemma, one key": ("gemma", {"num_key_value_heads": 1}),
    "phi3, one key": ("phi3", {"num_key_value_heads": 1}),
    "llama, keys of its own": ("llama", {"num_key_value_heads": 4}),
    "deepseek_v3, queries whole": ("deepseek_v3", {"q_lora_rank": None}),
    "gpt2, scaled by place": ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
}
EVERY = [*FAMILIES, *VARIANTS]


def make(kind, auto="AutoModel", noise=0.2, **changes):
    """A tiny random model in float64, of a type or one of its variants."""
    kind, other = VARIANTS.get(kind, (kind, {}))
    torch.manual_seed(0)
    sizes = _BY_TYPE.get(kind, _GROUPED) | other | changes
    config = transformers.AutoConfig.for_model(kind, **sizes)
    model = getattr(transformers, auto).from_config(config, dtype=torch.float64).eval()
    if hasattr(config, "num_experts_per_tok"):
        model.set_experts_implementation("eager")  # the others take no float64
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
    return model


def inputs(model):
    """Three texts of up to nine tokens, padded on the right by fewer than a window has."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(4, 60, (3, 9), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 7:] = mask[2, 6:] = 0
    out = {"input_ids": ids, "attention_mask": mask}
    return out | ({"decoder_input_ids": ids[:, :5]} if model.config.is_encoder_decoder else {})


@torch.no_grad()
def states(model):
    """The last states of all tokens but padding."""
    given = inputs(model)
    kind = torch.get_default_dtype()
    torch.set_default_dtype(model.dtype)  # of a number that XGLM compares with
    try:
        out = model(**given).last_hidden_state
    finally:
        torch.set_default_dtype(kind)
    return out if model.config.is_encoder_decoder else out[given["attention_mask"].bool()]
