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
