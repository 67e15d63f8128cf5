"""Second moments of inputs, by hand, without padding."""

import numpy as np
from factored import DENSE, QUERY, WORDS, inputs_of
from trained import same, weights

from compress.factorization.factors import free_matrices
from compress.factorization.moments import second_moments


def test_the_second_moment_is_that_of_all_tokens_but_padding(classifier, corpus, make_tokenizer):
    tokenizer = make_tokenizer()
    before = weights(classifier)
    matrices = free_matrices(classifier, None, True)
    found = second_moments(classifier.train(), matrices, corpus, tokenizer)
    assert classifier.training
    assert same(weights(classifier), before)
    assert not any(m._forward_pre_hooks for m in classifier.modules())
    classifier.eval()
    for name in (QUERY, DENSE):
        x = inputs_of(classifier, name, corpus, tokenizer)
        np.testing.assert_allclose(found[name].numpy(), x.T @ x / len(x), rtol=1e-4, atol=1e-5)
    tokens = np.concatenate([tokenizer(text)["input_ids"] for text in corpus["text"]])
    counts = np.bincount(tokens, minlength=len(found[WORDS]))
    np.testing.assert_allclose(found[WORDS].numpy(), counts / len(tokens), atol=1e-12)
