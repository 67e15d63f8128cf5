"""Weights that share numbers by a hash: the nearest there are, fewer bytes, trained, saved and loaded."""

import numpy as np
import pytest
import torch
import transformers
from trained import QUIET, make_corpus

import compress
import probes
from compress.fusion.hash_weights import hash_weights, hashable
from compress.matrices import block_matrices
from probes.costs import as_stored
from probes.models.fingerprint import weights_fingerprint

NAME = "bert.encoder.layer.1.intermediate.dense.weight"


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_each_number_is_that_of_least_squares(classifier, share):
    before = weights_fingerprint(classifier)
    small = hash_weights(classifier, share=share)
    assert weights_fingerprint(classifier) == before
    module = small.get_submodule(NAME.removesuffix(".weight"))
    given = classifier.get_parameter(NAME).detach().double().numpy()
    numbers, signs = (t.numpy() for t in module.places())
    assert module.buckets == round(share * given.size)
    design = np.zeros((given.size, module.buckets))
    design[np.arange(given.size), numbers.ravel()] = signs.ravel()
    solved = np.linalg.lstsq(design, given.ravel(), rcond=None)[0]
    np.testing.assert_allclose(module.values[:, 0].detach(), solved, atol=1e-6)
    error = np.linalg.norm(given.ravel() - design @ solved) / np.linalg.norm(given)
    assert small.config.compression["relative_error"][NAME] == pytest.approx(error, rel=1e-5)
    torch.testing.assert_close(module.bias, classifier.get_submodule(NAME.removesuffix(".weight")).bias)


def test_weights_that_were_dealt_out_come_back_and_others_lose_as_many_squares_as_numbers(classifier):
    first = hash_weights(classifier, share=0.25, seed=5)
    planted = type(classifier)(classifier.config).eval()
    planted.load_state_dict(classifier.state_dict())
    with torch.no_grad():
        for name, path in hashable(classifier).items():
            planted.get_parameter(name).copy_(first.base_model.get_submodule(path).weight)
    again = hash_weights(planted, share=0.25, seed=5).config.compression["relative_error"]
    assert max(again.values()) < 1e-6
    other = hash_weights(planted, share=0.25, seed=6).config.compression["relative_error"]  # the control: another hash
    assert min(other.values()) > 0.6
    squares = np.square(list(first.config.compression["relative_error"].values()))
    assert squares.mean() == pytest.approx(0.75, abs=0.05)


def test_what_is_saved_is_what_it_is_and_gives_the_same(classifier, tokenizer, tmp_path):
    small = hash_weights(classifier, share=0.125, only="intermediate")
    done = small.config.compression
    weights = sum(classifier.get_parameter(n).numel() for n in done["hashed"])
    assert done["parameters_of_parent"] - done["parameters"] == weights - len(done["hashed"]) * round(
        0.125 * weights / 3
    )
    sizes = [as_stored(m)["stored_bytes"] for m in (classifier, small)]
    assert sizes[0] - sizes[1] == pytest.approx(4 * (weights - weights / 8), abs=1500)  # headers
    for packed in (False, True):
        folder = compress.save(small, tmp_path / str(packed), tokenizer, packed=packed)
        loaded, _ = probes.load_checkpoint(folder)
        given = tokenizer("a red dog ran", return_tensors="pt")
        assert all(torch.equal(v, small.state_dict()[k]) for k, v in loaded.state_dict().items())
        torch.testing.assert_close(loaded(**given).logits, small.eval()(**given).logits, rtol=0, atol=1e-7)


@pytest.mark.parametrize("share", [1e-9, 1])
def test_one_number_a_matrix_and_as_many_as_weights(share, classifier):
    small = hash_weights(classifier, share=share)
    for path in hashable(classifier).values():
        module = small.base_model.get_submodule(path)
        assert module.buckets == (1 if share < 1 else module.in_features * module.out_features)
        assert bool(module.values.isfinite().all())


def test_its_numbers_are_trained(classifier, tokenizer):
    plain = hash_weights(classifier, share=0.25)
    how = {"train": make_corpus(), "tokenizer": tokenizer, "steps": 16, **QUIET, "learning_rate": 1e-2}
    trained = hash_weights(classifier, share=0.25, **how)
    assert trained.history["loss"].iloc[-4:].mean() < trained.history["loss"].iloc[:4].mean()
    for path in hashable(classifier).values():
        one, other = (m.base_model.get_submodule(path) for m in (plain, trained))
        assert not torch.equal(one.values, other.values)
        assert torch.equal(one.places()[0], other.places()[0])
    assert trained.config.compression["objective"] == ["cross_entropy"]
    again = hash_weights(classifier, share=0.25, **how)
    assert weights_fingerprint(again) == weights_fingerprint(trained)


def test_inputs_first_and_a_matrix_of_zeros():
    config = transformers.GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2, n_positions=8)
    model = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        model.transformer.h[0].attn.c_proj.weight.zero_()
    small = hash_weights(model, share=1.0)
    errors = small.config.compression["relative_error"]
    assert errors["transformer.h.0.attn.c_proj.weight"] == 0
    module, weight = small.transformer.h[0].mlp.c_fc, model.transformer.h[0].mlp.c_fc.weight
    moved = (module.weight - weight.T).norm() / weight.norm()
    assert float(moved.detach()) == pytest.approx(errors["transformer.h.0.mlp.c_fc.weight"], rel=1e-5)
    ids = torch.arange(6)[None]
    assert small(input_ids=ids).logits.shape == (1, 6, 20)


@pytest.mark.parametrize("share", [0, -1, 1.5, True, "half", float("nan")])
def test_a_share_that_cannot_be_is_refused(share, classifier):
    with pytest.raises(probes.InputError, match="expected above 0 and at most 1, the numbers of a matrix over its"):
        hash_weights(classifier, share=share)


def test_what_cannot_be_hashed_is_refused(classifier, tiny_models):
    with pytest.raises(probes.InputError, match="only='none' finds none of the matrices"):
        hash_weights(classifier, only="none")
    lstm = compress.LSTMLanguageModel(compress.LSTMConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1))
    with pytest.raises(probes.InputError, match=r"has no plain linear maps inside repeated blocks|finds none"):
        hash_weights(lstm, only="lstm")
    with torch.no_grad():
        block_matrices(classifier)[NAME][2, 3] = float("nan")
    with pytest.raises(probes.InputError, match=f"{NAME}: row 2 holds nan"):
        hash_weights(classifier)
