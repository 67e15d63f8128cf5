"""Tiny random models of the architectures of transformers, and tokenizers in the manner of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import tokenizers
import torch
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

WORDS = ["a", "the", "red", "big", "small", "dog", "cat", "bird", "sat", "ran", "sang", "on", "under", "over", "mat"]
WORDS += ["tree", "house", "and", "but", "then", "he", "she", "it"]
LAYERS = 4
CLASSES = ("base", "head", "lm")
_AUTO = {
    "base": ("AutoModel",),
    "head": ("AutoModelForSequenceClassification",),
    "lm": ("AutoModelForMaskedLM", "AutoModelForSeq2SeqLM", "AutoModelForCausalLM"),
}
# By the names that most configurations use; of these a configuration gets what it knows.
_SIZES = {
    "hidden_size": 32,
    "d_model": 32,
    "embedding_size": 16,
    "num_hidden_layers": LAYERS,
    "encoder_layers": LAYERS,
    "decoder_layers": LAYERS,
    "num_attention_heads": 4,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "d_kv": 8,
    "intermediate_size": 48,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "ffn_dim": 48,
    "n_inner": 48,
    "d_ff": 48,
    "d_inner": 48,
    "hidden_dim": 48,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 24,
    "num_local_experts": 4,
    "num_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 66,
    "sliding_window": 6,
    "num_labels": 3,
}
_ALWAYS = ("num_labels", "architectures")
_SPECIAL = {  # style -> its special tokens from number 0, and the template of a text
    "bert": ("pad unk cls sep mask", "cls A sep"),
    "roberta": ("cls pad sep unk mask", "cls A sep"),
    "t5": ("pad eos unk", "A eos"),
    "m2m": ("bos pad eos unk", "A eos"),
    "xlnet": ("unk bos sep cls mask pad", "A sep cls"),
    "padded": ("pad unk bos", "A"),
    "unpadded": ("unk bos", "A"),
    "clip": ("pad unk bos eos", "bos A eos"),
}


@dataclass(frozen=True)
class Row:
    """An architecture: its `model_type`, how its tokenizer writes, and what its configuration needs beside sizes."""

    type: str
    style: str = "bert"
    changes: dict[str, Any] = field(default_factory=dict)
    known: bool = False  # one of the 16 met most


_DEEPSEEK = {"kv_lora_rank": 8, "q_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8}
_DEEPSEEK |= {"n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "num_key_value_heads": 4, "head_dim": 8}
_NEXT = {"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
_WHISPER = {"max_source_positions": 8, "max_target_positions": 66, "num_mel_bins": 8, "decoder_start_token_id": 2}
ROWS = {
    name: row
    for name, row in {
        "bert": Row("bert", known=True),
        "roberta": Row("roberta", "roberta", known=True),
        "xlm-roberta": Row("xlm-roberta", "roberta", known=True),
        "camembert": Row("camembert", "roberta"),
        "electra": Row("electra"),
        "distilbert": Row("distilbert", known=True),
        "albert": Row("albert"),
        "mpnet": Row("mpnet", "roberta", known=True),
        "deberta": Row("deberta", changes={"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}),
        "deberta-v2": Row(
            "deberta-v2",
            changes={"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0}
            | {"position_buckets": 8, "share_att_key": True, "norm_rel_ebd": "layer_norm"},
            known=True,
        ),
        "modernbert": Row("modernbert", changes={"local_attention": 8}, known=True),
        "nomic_bert": Row("nomic_bert"),
        "gte": Row("gte"),
        "jina_embeddings_v3": Row("jina_embeddings_v3", "roberta"),
        "eurobert": Row("eurobert"),
        "xlnet": Row("xlnet", "xlnet", {"max_position_embeddings": None}),
        "funnel": Row("funnel", changes={"block_sizes": [2, 2], "architectures": ["FunnelModel"]}),
        "longformer": Row("longformer", "roberta", {"attention_window": 4, "max_position_embeddings": 70}),
        "big_bird": Row("big_bird", changes={"attention_type": "original_full"}),
        "xlm": Row("xlm", "bert"),
        "fnet": Row("fnet"),
        "convbert": Row("convbert"),
        "roformer": Row("roformer"),
        "gpt2": Row("gpt2", "unpadded", known=True),
        "gpt_neo": Row("gpt_neo", "unpadded", {"attention_types": [[["global", "local"], 2]], "window_size": 6}),
        "gpt_neox": Row("gpt_neox", "padded"),
        "gptj": Row("gptj", "unpadded", {"rotary_dim": 4}),
        "opt": Row("opt", "padded", {"word_embed_proj_dim": 32}),
        "bloom": Row("bloom", "unpadded", {"pad_token_id": 5}),
        "falcon": Row("falcon", "unpadded", {"pad_token_id": 5, "head_dim": None}),
        "xglm": Row("xglm", "padded", {"num_labels": None}),
        "mamba": Row("mamba", "padded", {"state_size": 4, "time_step_rank": 4, "expand": 2}),
        "rwkv": Row("rwkv", "unpadded", {"attention_hidden_size": 32}),
        "llama": Row("llama", "unpadded", known=True),
        "mistral": Row("mistral", "unpadded", {"pad_token_id": 5}, known=True),
        "qwen2": Row("qwen2", "padded", known=True),
        "qwen3": Row("qwen3", "padded", known=True),
        "gemma": Row("gemma", "padded"),
        "gemma2": Row("gemma2", "padded", known=True),
        "gemma3": Row("gemma3_text", "padded", known=True),
        "phi": Row("phi", "unpadded"),
        "phi3": Row("phi3", "padded", known=True),
        "olmo2": Row("olmo2", "padded"),
        "smollm3": Row("smollm3", "padded"),
        "starcoder2": Row("starcoder2", "unpadded"),
        "stablelm": Row("stablelm", "unpadded"),
        "granite": Row("granite", "unpadded"),
        "cohere": Row("cohere", "padded"),
        "mixtral": Row("mixtral", "unpadded"),
        "qwen2_moe": Row("qwen2_moe", "padded"),
        "qwen3_moe": Row("qwen3_moe", "padded"),
        "deepseek_v3": Row("deepseek_v3", "padded", _DEEPSEEK),
        "gpt_oss": Row("gpt_oss", "padded", {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}),
        "qwen3_next": Row("qwen3_next", "padded", _NEXT),
        "t5": Row("t5", "t5", {"decoder_start_token_id": 0}, known=True),
        "mt5": Row("mt5", "t5"),
        "umt5": Row("umt5", "t5"),
        "bart": Row("bart", "m2m", {"decoder_start_token_id": 2}),
        "mbart": Row("mbart", "m2m", {"decoder_start_token_id": 2}),
        "m2m_100": Row("m2m_100", "m2m", {"decoder_start_token_id": 2}),
        "whisper": Row("whisper", "padded", _WHISPER),
        "clip": Row("clip", "clip"),
        "clip_text": Row("clip_text_model", "clip"),
        "vit": Row("vit", "bert"),
    }.items()
    if row.type in CONFIG_MAPPING
}


def tokenizer_of(name: str) -> transformers.PreTrainedTokenizerFast:
    """A tokenizer of whole words that writes as that of an architecture does."""
    special, template = (text.split() for text in _SPECIAL[ROWS[name].style])
    numbers = {f"<{token}>": i for i, token in enumerate(special)} | {w: len(special) + i for i, w in enumerate(WORDS)}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(numbers, unk_token="<unk>"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    if template != ["A"]:
        single = " ".join("$A" if t == "A" else f"<{t}>" for t in template)
        pair = "<cls> $A <sep> $B:1 <sep>:1" if template[-1] == "sep" else single.replace("$A", "$A $B")
        used = [(f"<{t}>", numbers[f"<{t}>"]) for t in template if t != "A"]
        backend.post_processor = tokenizers.processors.TemplateProcessing(single=single, pair=pair, special_tokens=used)
    typed = ["token_type_ids"] if ROWS[name].style in ("bert", "xlnet") else []
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=64,
        padding_side="left" if ROWS[name].style == "xlnet" else "right",
        model_input_names=["input_ids", *typed, "attention_mask"],
        **{f"{token}_token": f"<{token}>" for token in special},
    )


def config_of(name: str) -> Any:
    """A configuration of an architecture with few and small layers and no dropout."""
    row, tokenizer = ROWS[name], tokenizer_of(name)
    kind = CONFIG_MAPPING[row.type]
    default = kind()
    renamed = getattr(kind, "attribute_map", {})
    wanted = _SIZES | {"vocab_size": len(tokenizer) + 2} | row.changes
    for token in ("pad", "bos", "eos", "cls", "sep"):
        wanted.setdefault(f"{token}_token_id", getattr(tokenizer, f"{token}_token_id"))
    if row.type == "funnel":
        del wanted["num_hidden_layers"]
    if _has(default, "mask_token_id") and "<mask>" in tokenizer.get_vocab():
        wanted["mask_token_id"] = tokenizer.mask_token_id
    for key, value in vars(default).items():
        if "drop" in key and isinstance(value, float):
            wanted[key] = 0.0
    given = {renamed.get(k, k): v for k, v in wanted.items() if v is not None or k.endswith("_token_id")}
    if row.type == "clip":
        part = {k: v for k, v in given.items() if k in vars(default.text_config)}
        seen = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
        return kind(text_config=part, vision_config=seen | {"image_size": 8, "patch_size": 4})
    return kind(**{k: v for k, v in given.items() if _has(default, k) or k.endswith("_token_id") or k in _ALWAYS})


def _has(config: Any, key: str) -> bool:
    try:
        return hasattr(config, key)
    except NotImplementedError:
        return False


def make(name: str, kind: str = "base", seed: int = 0) -> Any:
    """A tiny random model of an architecture, of a class of `CLASSES`; None where transformers has no such class."""
    config = config_of(name)
    auto = next((a for a in (getattr(transformers, n) for n in _AUTO[kind]) if type(config) in a._model_mapping), None)
    if auto is None:
        return None
    torch.manual_seed(seed)
    model = auto.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # as they come, all texts look alike and norms and biases are 0 and 1
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.config.architectures = [type(model).__name__]
    return model
