"""What quantised models get wrong: the module errors of original and quantised model, in this order."""

import pytest
import xarray as xr

import probes
from compress.quantization.quantization_error import quantization_error
from compress.quantization.quantize import quantize
from probes.errors import InputError


def test_it_is_the_module_error_of_the_original_and_the_quantised_model(classifier, make_tokenizer, corpus):
    quantized, tokenizer = quantize(classifier, bits=3), make_tokenizer()
    found = quantization_error(classifier, quantized, corpus, tokenizer, draws=20, progress=False)
    expected = probes.module_error(classifier, quantized, tokenizer, corpus, draws=20, progress=False)
    xr.testing.assert_equal(found, expected)
    assert (found["value"].sel(measure="local_error", language="pooled") > 0).all()


def test_another_architecture_is_refused(classifier, tiny_models, make_tokenizer, corpus):
    with pytest.raises(InputError, match="the quantised model"):
        quantization_error(classifier, tiny_models("DistilBertModel"), corpus, make_tokenizer(), progress=False)
