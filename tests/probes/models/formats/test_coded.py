"""Weights stored by codes: no verb works on them, and the package that reads them is needed."""

import sys

import pytest

import probes
from probes.models.formats.coded import CODED, check_installed, is_coded


def test_a_model_is_coded_where_its_configuration_says_so(tiny_models):
    model = tiny_models("BertModel")
    assert not is_coded(model)
    model.config.quantization_config = {"quant_method": "torchao"}
    assert is_coded(model)
    assert "are quantised already (config.quantization_config)" in CODED.forbids(model, "compress")
    assert "without packed=True" in CODED.forbids(model, "save packed")


def test_a_package_that_is_missing_is_named_before_weights_are_read(tiny_models, monkeypatch):
    config = tiny_models("BertModel").config
    config.quantization_config = {"quant_method": "torchao"}
    check_installed(config, "m")
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(probes.errors.DependencyError, match="m: a model quantised by torchao needs the pack"):
        check_installed(config, "m")
    config.quantization_config = {"quant_method": "other"}  # which transformers says itself
    check_installed(config, "m")
