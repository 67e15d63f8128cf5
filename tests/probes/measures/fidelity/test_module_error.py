import copy

import numpy as np
import pytest
import torch

import compress
import probes
from probes.measures.fidelity.module_error import module_error

TEXTS = ["a big red dog ran", "the cat sat on the mat", "a bird sang", "it ran over the big house and the small tree"]


@pytest.fixture
def corpus():
    import pandas as pd

    rows = [{"id": i % 4, "language": k, "text": t} for k in ("en", "xx") for i, t in enumerate(TEXTS)]
    return probes.load_corpus(pd.DataFrame(rows))


@pytest.fixture
def tokenizer(make_tokenizer):
    return make_tokenizer()


def outputs(body, name, tokenizer, text):
    """Input and output of a module for one text alone, without padding."""
    seen = {}
    module = dict(body.named_modules())[name]

    def hook(_module, args, kwargs, output):
        seen["in"], seen["out"] = (args, kwargs), output[0] if isinstance(output, tuple) else output

    handle = module.register_forward_hook(hook, with_kwargs=True)
    with torch.inference_mode():
        body(**tokenizer(text, return_tensors="pt"))
    handle.remove()
    return seen["in"], seen["out"].double()


def test_equals_a_loop_over_texts_and_modules_without_padding(tiny_models, tokenizer, corpus):
    base = tiny_models("BertForSequenceClassification")
    other = compress.prune(base, sparsity=0.5)
    out = module_error(base, other, tokenizer, corpus, progress=False, draws=10)
    assert out.value.dims == ("measure", "module", "language")
    assert set(out.kind.values) >= {
        "block",
        "attention.self",
        "attention.self.query",
        "intermediate.dense",
        "output.dense",
    }
    theirs = dict(other.bert.named_modules())
    for name in ("encoder.layer.0.attention.self", "encoder.layer.1.output.dense", "encoder.layer.2"):
        size = accumulated = local = 0.0
        for text in TEXTS:
            (args, kwargs), a = outputs(base.bert, name, tokenizer, text)
            _, b = outputs(other.bert, name, tokenizer, text)
            with torch.inference_mode():
                alone = theirs[name](*args, **kwargs)
            alone = (alone[0] if isinstance(alone, tuple) else alone).double()
            size, accumulated, local = (
                total + float(x.abs().sum()) for total, x in ((size, a), (accumulated, a - b), (local, a - alone))
            )
        at = out.sel(module=name, language="en")
        np.testing.assert_allclose(at.value, [accumulated / size, local / size, accumulated / local], rtol=1e-4)
        assert ((at.low <= at.value) & (at.value <= at.high)).all()
        assert int(out.layer.sel(module=name)) == int(name.split(".")[2]) + 1


def test_a_module_that_alone_is_changed_has_no_error_before_it_and_hands_it_on(tiny_models, tokenizer, corpus):
    base = tiny_models("BertModel")
    other = copy.deepcopy(base)
    with torch.no_grad():
        other.encoder.layer[1].attention.self.value.weight += 0.3
    with pytest.warns(probes.LayerscopeWarning, match=r"module encoder.layer.0: alone it makes no error"):
        out = module_error(base, other, tokenizer, corpus, progress=False, draws=10).value.sel(language="pooled")
    accumulated, local = out.sel(measure="accumulated_error"), out.sel(measure="local_error")
    before = out.module.str.startswith("encoder.layer.0") | out.module.isin(["encoder.layer.1.attention.self.query"])
    assert (accumulated[before.values] == 0).all()
    holders = {"encoder.layer.1", "encoder.layer.1.attention.self", "encoder.layer.1.attention.self.value"}
    assert set(out.module.values[(local > 1e-6).values]) == holders
    assert float(accumulated.sel(module="encoder.layer.2")) > 0.01
    assert float(local.sel(module="encoder.layer.2")) == 0
    # In the first module that is changed nothing is inherited yet.
    assert float(out.sel(measure="amplification", module="encoder.layer.1.attention.self.value")) == pytest.approx(1)


def test_padding_does_not_count(tiny_models, tokenizer, corpus):
    base = tiny_models("BertModel")
    other = compress.prune(base, sparsity=0.5)
    together, alone = (
        module_error(base, other, tokenizer, corpus, progress=False, draws=10, batch_size=b) for b in (8, 1)
    )
    np.testing.assert_allclose(together.value, alone.value, rtol=1e-4)
    np.testing.assert_allclose(together.low, alone.low, rtol=1e-4)


@pytest.mark.parametrize(
    "architecture", ["RobertaModel", "DistilBertModel", "GPT2LMHeadModel", "LlamaModel", "T5Model"]
)
def test_other_architectures(tiny_models, tokenizer, corpus, architecture):
    base = tiny_models(architecture)
    other = copy.deepcopy(base)
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if (
                parameter.ndim == 2
                and "embed" not in name
                and "shared" not in name
                and "wte" not in name
                and "wpe" not in name
            ):
                parameter.add_(0.05 * torch.randn_like(parameter))
    out = module_error(base, other, tokenizer, corpus, progress=False, draws=10).sel(language="pooled")
    assert sorted(set(out.layer.values)) == [1, 2, 3]
    blocks = out.value.sel(module=out.kind == "block")
    first = blocks.sel(measure="amplification").values[0]
    assert first == pytest.approx(1, abs=1e-3)
    assert (blocks.sel(measure="local_error") > 0).all()


def test_models_of_different_make_are_refused(tiny_models, tokenizer, corpus):
    base = tiny_models("BertModel")
    with pytest.raises(
        probes.InputError, match=r"has no module 'encoder.layer.1', which .* Compare models of one arch"
    ):
        module_error(base, tiny_models("BertModel", num_hidden_layers=1), tokenizer, corpus, progress=False)
    with pytest.raises(probes.InputError, match=r"module 'encoder.layer.0' gives \(.*12\) in .* and \(.*16\) in"):
        module_error(base, tiny_models("BertModel", hidden_size=16), tokenizer, corpus, progress=False)


def test_models_are_left_as_they_were(tiny_models, tokenizer, corpus):
    base = tiny_models("BertModel").train()
    other = compress.prune(base, sparsity=0.5)
    module_error(base, other, tokenizer, corpus, progress=False, draws=10)
    hooks = [len(m._forward_hooks) for m in (*base.modules(), *other.modules())]
    module_error(base, other, tokenizer, corpus, progress=False, draws=10)
    assert [len(m._forward_hooks) for m in (*base.modules(), *other.modules())] == hooks
    assert base.training


def test_layers_that_share_their_weights_have_no_error_of_their_own(tiny_models, tokenizer, corpus):
    import transformers

    config = transformers.AlbertConfig(
        vocab_size=len(tokenizer),
        embedding_size=12,
        hidden_size=12,
        num_attention_heads=2,
        intermediate_size=20,
        num_hidden_layers=3,
    )
    model = transformers.AlbertModel(config)
    with pytest.raises(probes.InputError, match=r"runs more than once a text, since layers share it"):
        module_error(model, copy.deepcopy(model), tokenizer, corpus, progress=False)
