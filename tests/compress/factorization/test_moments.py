"""Second moments of inputs, by hand, without padding."""

import numpy as np
import torch

from compress.factorization.factors import free_matrices
from compress.factorization.moments import second_moments

QUERY = "bert.encoder.layer.1.attention.self.query.weight"
DENSE = "bert.encoder.layer.1.output.dense.weight"
WORDS = "bert.embeddings.word_embeddings.weight"


def weights(model):
    return {k: v.detach().clone() for k, v in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def inputs_of(model, name, corpus, tokenizer):
    """What a matrix is multiplied with, text by text, without padding: (token, input) in float64."""
    seen = []
    module = model.get_submodule(name.removesuffix(".weight"))
    handle = module.register_forward_pre_hook(lambda _, x: seen.append(x[0][0]))
    with torch.no_grad():
        for text in corpus["text"]:
            model(**tokenizer(text, return_tensors="pt"))
    handle.remove()
    return torch.cat(seen).double().numpy()


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
