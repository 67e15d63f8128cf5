"""Second moments of inputs, by hand, without padding."""

import numpy as np
import pytest
import tiny
from factored import DENSE, QUERY, WORDS, inputs_of
from trained import same, weights

from compress.factorization.factors import free_matrices
from compress.factorization.moments import second_moments
from probes.errors import LayerscopeWarning


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


def test_what_no_text_reaches_counts_all_inputs_alike(corpus, make_tokenizer):
    mamba = tiny.make("mamba")
    matrices = free_matrices(mamba, None, False)
    with pytest.warns(LayerscopeWarning, match=r"no text reaches 'layers.0.mixer.dt_proj.* of the weights alone"):
        found = second_moments(mamba, matrices, corpus, make_tokenizer())
    for name, moment in found.items():
        assert np.array_equal(moment, np.eye(len(moment))) == ("dt_proj" in name)
