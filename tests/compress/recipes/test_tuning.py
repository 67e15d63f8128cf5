"""Recipes that fine-tune: each is finetune with what its paper says."""

import copy

import pytest
from trained import QUIET, make_corpus, same, weights

import compress
from compress import recipes


@pytest.mark.parametrize(
    ("recipe", "said", "plain"),
    [
        ("graddrop", {"p": 0.6, "strict": True}, {"gradients": compress.GradDrop(0.6, strict=True)}),
        ("gradual_unfreezing", {}, {"gradients": compress.GradualUnfreezing()}),
        ("variability_tuning", {"tuned": 1}, {"layers": "by variability", "tuned": 1, "warmup": 0.06}),
    ],
)
def test_each_is_finetune_by_its_rule(classifier, tokenizer, recipe, said, plain):
    how = {"steps": 6, **QUIET}
    made = getattr(recipes, recipe)(classifier, tokenizer, make_corpus(), **said, **how)
    tuned = compress.finetune(classifier, tokenizer, make_corpus(), **plain, **how)
    assert same(weights(made), weights(tuned))
    assert made.config.compression == tuned.config.compression


def test_replaced_tokens_is_finetune_by_its_objective_and_keeps_zeros(classifier, tokenizer):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.mask_token = "it"
    pruned, how = compress.prune(classifier, sparsity=0.5), {"steps": 2, **QUIET}
    made = recipes.replaced_tokens(pruned, tokenizer, make_corpus(), **how)
    objective = compress.ReplacedTokens()
    tuned = compress.finetune(pruned, tokenizer, make_corpus(), objective=objective, keep_zeros=True, **how)
    assert same(weights(made), weights(tuned))
    assert made.config.compression == tuned.config.compression
    assert made.config.compression["keep_zeros"] is True
