"""Every format with every verb and backend: it is kept, saved and loaded in the same values, or refused before work."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
import transformers

import compress
import probes
from probes.models.fingerprint import weights_fingerprint
from probes.models.formats.extensions import FORMATS, check_kept, promised
from probes.models.formats.onnx_model import OnnxModel

TEXTS = ["a dog sat", "the cat ran", "then he sang", "she sang", "big bird", "red house"]
CODED, NO_MODEL = "weights are quantised already", "expected a model of transformers, found OnnxModel"
STRUCTURE, IN_FACTORS = "expected a plain linear map, found LowRankLinear", "students are not made of those"
HASHED = "are few numbers dealt out by a hash"
SHARED = "layers of this model share their parameters"

# Everything else is kept.
REFUSED = {
    ("heads_kept", "narrow"): "has lost some",
    ("factorized", "prune_heads"): STRUCTURE,
    ("factorized", "prune_channels"): STRUCTURE,
    ("factorized", "drop_layers"): "saved without these parts it could not be loaded again",
    ("factorized", "factorize"): "are in factors already",
    ("factorized", "distill"): IN_FACTORS,
    ("factorized", "narrow"): IN_FACTORS,
    ("shared_layers", "prune_heads"): SHARED,
    ("shared_layers", "prune_channels"): SHARED,
    ("shared_layers", "factorize"): "which factors would part",
    ("shared_layers", "fuse"): "nothing to fuse",
    ("shared_layers", "hash_weights"): "which a hash would part",
    ("shared_layers", "narrow"): SHARED,
    ("output_codes", "narrow"): "the output codes of .* read states of the width",
    ("output_codes", "code_outputs"): "has output codes already",
    ("sparse_embeddings", "onnxruntime"): "has a sparse head .* and an export to ONNX has none",
    ("sparse_embeddings", "narrow"): "the sparse head of .* reads states of the width",
    ("sparse_embeddings", "sparsify_embeddings"): "has a sparse head already",
    ("quantization_config", "save packed"): "Save it without packed=True",
    ("onnx", "save packed"): "an exported model is stored by codes. Save it without",
}
# Which are left out with good reason, and no longer promised.
ENDED = {
    ("shared_layers", "drop_layers"),  # the one layer that is left shares with none
    ("shared_layers", "distill"),
    ("shared_layers", "torchao"),  # each layer gets codes of its own
    ("quantized_inputs", "torchao"),  # the backend rounds inputs itself
    ("quantized_inputs", "onnxruntime"),
    ("quantized_inputs", "narrow"),  # ranges of other features
}


def told_how(model):
    """A copy of a model whose vectors are the first token's, of length 1."""
    told = copy.deepcopy(model)
    told.config.text_embedding = {"pooling": "first", "normalize": True}
    return told


def rows(ids, languages, labels):
    return probes.load_corpus(pd.DataFrame({"id": ids, "language": languages, "text": TEXTS, "label": labels}))


@pytest.fixture(scope="module")
def given(make_tokenizer):
    """A corpus with labels, one with translations, and the tokenizer."""
    return (
        rows(range(6), "en", [0, 1] * 3),
        rows([0, 1, 2] * 2, ["en"] * 3 + ["de"] * 3, [0, 1, 0] * 2),
        make_tokenizer(),
    )


@pytest.fixture(scope="module")
def plain(make_tokenizer):
    """A BERT of two layers; 32 inputs, as four bits of torchao need."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(make_tokenizer()),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=32,
    )
    model = transformers.BertForSequenceClassification(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


MAKERS = {
    "heads_kept": lambda m, *_: compress.prune_heads(m, 0.5),
    "factorized": lambda m, *_: compress.factorize(m, rank=8, embeddings=True),
    "hashed_weights": lambda m, *_: compress.hash_weights(m, share=0.5),
    "shared_layers": lambda m, *_: compress.fuse(m, share=0.5),
    "sparse_embeddings": lambda m, _, pairs, tokenizer: compress.sparsify_embeddings(
        m, train=pairs, tokenizer=tokenizer, features=48, steps=1, progress=False
    ),
    "output_codes": lambda m, *_: compress.code_outputs(m, bits=3),
    "quantized_inputs": lambda m, corpus, _, tokenizer: compress.quantize(m, calibrate=corpus, tokenizer=tokenizer),
    "quantization_config": lambda m, *_: compress.quantize(m, backend="torchao"),
    "text_embedding": lambda m, *_: told_how(m),
    "onnx": lambda m, *_: compress.quantize(m, backend="onnxruntime"),
}
VERBS = {
    "prune": lambda m, *_: compress.prune(m, sparsity=0.5),
    "prune_heads": MAKERS["heads_kept"],
    "prune_channels": lambda m, *_: compress.prune_channels(m, 0.5),
    "drop_layers": lambda m, *_: compress.drop_layers(m, [0]),
    "prune_vocabulary": lambda m, corpus, _, tokenizer: compress.prune_vocabulary(m, tokenizer, corpus),
    "quantize": lambda m, *_: compress.quantize(m),
    "onnxruntime": MAKERS["onnx"],
    "torchao": MAKERS["quantization_config"],
    "product_quantize": lambda m, *_: compress.product_quantize(m, codes=8),
    "factorize": lambda m, *_: compress.factorize(m, rank=8),
    "fuse": MAKERS["shared_layers"],
    "hash_weights": MAKERS["hashed_weights"],
    "distill": lambda m, corpus, _, tokenizer: compress.distill(
        m, layers=1, train=corpus, tokenizer=tokenizer, steps=1, progress=False
    ),
    "narrow": lambda m, corpus, _, tokenizer: compress.distill(
        m, hidden_size=16, train=corpus, tokenizer=tokenizer, steps=1, progress=False
    ),
    "sparsify_embeddings": MAKERS["sparse_embeddings"],
    "code_outputs": MAKERS["output_codes"],
    "save packed": lambda m, *_: m,
}
ADDS = {"prune_heads": "heads_kept", "factorize": "factorized", "fuse": "shared_layers", "quantize": "quantized_inputs"}
ADDS |= {"hash_weights": "hashed_weights"}
ADDS |= {"sparsify_embeddings": "sparse_embeddings", "code_outputs": "output_codes", "torchao": "quantization_config"}


@pytest.fixture(scope="module")
def made(plain, given):
    """Return a function that makes a model of a format, once."""
    models = {}

    def make(name):
        if name not in models:
            models[name] = MAKERS[name](plain, *given)
        return models[name]

    return make


def message(name, verb):
    """What refuses a verb; None where it is done."""
    if (name, verb) in REFUSED:
        return REFUSED[name, verb]
    if name == "onnx":
        return NO_MODEL
    if name == "hashed_weights":
        free = ("drop_layers", "prune_vocabulary", "sparsify_embeddings", "save packed")
        return None if verb in free else HASHED
    return CODED if name == "quantization_config" and verb not in ("drop_layers", "prune_vocabulary") else None


def saved_and_loaded(model, folder, tokenizer, packed=False):
    compress.save(model, folder, tokenizer, packed=packed)
    loaded, _ = probes.load_checkpoint(folder)
    return loaded


def assert_the_same(one, other, corpus, tokenizer):
    states = [probes.capture(m, tokenizer, corpus, progress=False) for m in (one, other)]
    np.testing.assert_allclose(*(s.hidden.values for s in states), rtol=0, atol=1e-6)
    np.testing.assert_allclose(*(s.logits.values for s in states), rtol=0, atol=1e-6)
    if hasattr(one, "sparse_head"):
        heads = [compress.sparse_embeddings(m, tokenizer, corpus, progress=False).toarray() for m in (one, other)]
        np.testing.assert_allclose(*heads, rtol=0, atol=1e-6)


def test_each_key_of_the_list_is_among_those_that_are_tried():
    elsewhere = {"channels_kept", "layers_kept"}  # of architectures whose configuration cannot count them
    assert {f.key for f in FORMATS} - elsewhere == set(MAKERS) - {"onnx"}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", MAKERS)
def test_a_format_is_kept_by_a_verb_or_refused_before_the_work(name, verb, made, given, tmp_path, monkeypatch):
    model, (corpus, _, tokenizer) = made(name), given
    before, had = weights_fingerprint(model), {f.key for f in promised(model.config)}
    assert had == ({name} if name != "onnx" else set())
    refused = message(name, verb)
    if refused is not None:
        monkeypatch.setattr(model, "forward", lambda *_, **__: pytest.fail("the model was run"))
        with pytest.raises(probes.InputError, match=refused):
            compress.save(VERBS[verb](model, *given), tmp_path / "out", tokenizer, packed=verb == "save packed")
        assert list(tmp_path.iterdir()) == []
        assert weights_fingerprint(model) == before
        return
    out = VERBS[verb](model, *given)
    out, tokenizer = out[:2] if isinstance(out, tuple) else (out, tokenizer)
    assert weights_fingerprint(model) == before
    loaded = saved_and_loaded(out, tmp_path / "out", tokenizer, packed=verb == "save packed")
    assert_the_same(out, loaded, corpus, tokenizer)
    has = {f.key for f in promised(out.config)}
    assert has == {f.key for f in promised(loaded.config)}
    ended = {name} if (name, verb) in ENDED else set()
    assert has == (had - ended) | ({ADDS[verb]} if verb in ADDS else set())
    if not isinstance(loaded, OnnxModel):
        check_kept(out)
        check_kept(loaded)


def test_formats_go_together(plain, given, tmp_path):
    corpus, _, tokenizer = given
    model = plain
    for name in ("heads_kept", "factorized", "sparse_embeddings", "output_codes", "shared_layers", "quantized_inputs"):
        model = MAKERS[name](model, *given)
    assert len(promised(model.config)) == 6
    for packed in (False, True):
        loaded = saved_and_loaded(model, tmp_path / str(packed), tokenizer, packed)
        check_kept(loaded)
        assert_the_same(model, loaded, corpus, tokenizer)
    coded = compress.quantize(model, backend="torchao")
    loaded = saved_and_loaded(coded, tmp_path / "coded", tokenizer)
    keys = {"heads_kept", "factorized", "sparse_embeddings", "output_codes", "quantization_config"}
    assert {f.key for f in promised(loaded.config)} == keys
    assert_the_same(coded, loaded, corpus, tokenizer)


def test_four_bits_of_torchao_leave_the_rounding_of_inputs_as_it_was(made, given, tmp_path):
    corpus, _, tokenizer = given
    model = made("quantized_inputs")
    coded = compress.quantize(model, backend="torchao", bits=4)
    assert coded.config.quantized_inputs == model.config.quantized_inputs
    loaded = saved_and_loaded(coded, tmp_path / "out", tokenizer)
    check_kept(loaded)
    assert_the_same(coded, loaded, corpus, tokenizer)


def test_the_sparse_head_that_torchao_keeps_gives_nearly_what_it_gave(made, given):
    corpus, _, tokenizer = given
    model = made("sparse_embeddings")
    coded = compress.quantize(model, backend="torchao")
    one, other = (compress.sparse_embeddings(m, tokenizer, corpus, progress=False).toarray() for m in (model, coded))
    assert ((one * other).sum(1) > 0.99).all()


def test_a_model_that_lacks_what_its_configuration_promises_is_not_saved(made, given, tmp_path):
    made("sparse_embeddings").save_pretrained(tmp_path / "whole")
    bare = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "whole")
    for work in (lambda: compress.save(bare, tmp_path / "out"), lambda: compress.quantize(bare, backend="torchao")):
        with pytest.raises(probes.InputError, match=r"promises a sparse head .*the model has none .*load_checkpoint"):
            work()
    assert not (tmp_path / "out").exists()
