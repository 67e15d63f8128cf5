"""Formats: a configuration promises what its key says, and nothing by default is made, applied or forbidden."""

from transformers import BertConfig

from probes.models.formats.format import Format


def test_a_key_that_is_there_and_not_empty_is_a_promise():
    form = Format("heads_kept", "fewer heads", [int])
    assert form.said(BertConfig()) is None
    assert not form.promised(BertConfig(heads_kept=[]))
    assert form.promised(BertConfig(heads_kept=[2]))
    assert form.said(BertConfig(heads_kept=[2])) == [2]


def test_a_format_that_says_nothing_else_does_nothing(tiny_models):
    model, form = tiny_models("BertModel"), Format("key", "something", dict)
    form.check(model.config, "m")
    assert (form.make, form.apply, form.lacks(model), form.forbids(model, "compress")) == (None, None, None, None)
