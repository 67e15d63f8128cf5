"""Language models that the tests share, tiny and random: of masked tokens and of the next one, and text of theirs."""

import numpy as np
import pandas as pd
import pytest
import torch
import transformers

import probes

TEXT = "the red dog cat sat ran on under mat tree and a big small house"
BERT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


def masking(make_tokenizer):
    made = make_tokenizer(words=f"[MASK] {TEXT}".split())
    made.add_special_tokens({"mask_token": "[MASK]"})
    return made


def spoken():
    rng = np.random.default_rng(0)
    halves = ["the red dog", "the big cat"], ["sat on a mat", "ran under the tree and the house"]
    texts = [" ".join(half[rng.integers(2)] for half in halves) for _ in range(40)]
    return probes.load_corpus(pd.DataFrame({"id": range(40), "language": "en", "text": texts}))


@pytest.fixture
def masking_tokenizer(make_tokenizer):
    return masking(make_tokenizer)


@pytest.fixture
def spoken_corpus():
    return spoken()


def of_masked_tokens(tokenizer, **options):
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer), max_position_embeddings=32, pad_token_id=0, **BERT, **options
    )
    return transformers.BertForMaskedLM(config).eval()


def of_the_next_token(tokenizer):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=32, num_key_value_heads=2, pad_token_id=0, **BERT
    )
    return transformers.LlamaForCausalLM(config).eval()


SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
GROUPED = SMALL | {"num_key_value_heads": 1, "head_dim": 8, "pad_token_id": 0, "max_position_embeddings": 32}
GPT = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
# Logits are divided by, capped, projected, made by a layer with a bias, of experts.
ARCHITECTURES = {
    "llama": GROUPED,
    "mistral": GROUPED | {"sliding_window": 4},
    "qwen2": GROUPED,
    "qwen3": GROUPED,
    "gemma2": GROUPED | {"final_logit_softcapping": 2.0},
    "gemma3_text": GROUPED,
    "phi3": GROUPED,
    "gpt2": GPT,
    "gpt_neox": SMALL | {"max_position_embeddings": 32},
    "opt": SMALL | {"ffn_dim": 24, "word_embed_proj_dim": 12, "max_position_embeddings": 32, "pad_token_id": 0},
    "bloom": {"hidden_size": 16, "n_layer": 2, "n_head": 2},
    "mixtral": GROUPED | {"num_local_experts": 2, "num_experts_per_tok": 1},
    "granite": GROUPED | {"logits_scaling": 3.0},
    "cohere": GROUPED | {"logit_scale": 0.5},
    "gptj": GPT | {"rotary_dim": 4},
}


def of_kind(kind, tokenizer, seed=0):
    torch.manual_seed(seed)
    config = transformers.AutoConfig.for_model(kind, vocab_size=len(tokenizer), **ARCHITECTURES[kind])
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    if kind == "mixtral":
        model.set_experts_implementation("eager")  # the others take no float64
    with torch.no_grad():  # as they come, all tokens are nearly as likely
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def two_of(tokenizer):
    """Two decoders of one architecture."""
    return of_kind("llama", tokenizer), of_kind("llama", tokenizer, seed=1)
