"""A model in several places computes what it computes in one, and is not pulled together."""

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import BertForSequenceClassification

import compress
import probes
from probes.models.fingerprint import weights_fingerprint
from probes.models.spread import check_whole, places_of, runs_on, weights_in


@pytest.fixture(scope="module")
def folder(tiny_models, make_tokenizer, tmp_path_factory):
    place = tmp_path_factory.mktemp("spread")
    tokenizer = make_tokenizer()
    tiny_models("BertForSequenceClassification", num_hidden_layers=3).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def models(folder):
    spread = {"bert.embeddings": "cpu", "bert.encoder.layer.0": "cpu", "bert.pooler": "cpu", "classifier": "cpu"}
    spread |= {"bert.encoder.layer.1": "disk", "bert.encoder.layer.2": "disk"}
    whole, tokenizer = probes.load_checkpoint(folder)
    return whole, probes.load_checkpoint(folder, device_map=spread)[0], tokenizer


@pytest.fixture(scope="module")
def corpus():
    words = ["one", "two", "three", "four", "five", "six"]
    rows = [{"id": i, "language": k, "text": " ".join(words[: 2 + i % 4])} for i in range(8) for k in ("en", "fr")]
    return probes.load_corpus(pd.DataFrame(rows))


def test_states_are_those_of_the_model_in_one_place_and_it_stays_where_it_is(models, corpus):
    whole, spread, tokenizer = models
    where = {name: p.device for name, p in spread.named_parameters()}
    assert {str(device) for device in where.values()} == {"cpu", "meta"}
    one, other = (probes.capture(m, tokenizer, corpus, progress=False) for m in (whole, spread))
    np.testing.assert_array_equal(one.hidden, other.hidden)
    np.testing.assert_array_equal(one.logits, other.logits)
    assert one.attrs["fingerprint"] == other.attrs["fingerprint"]
    assert {name: p.device for name, p in spread.named_parameters()} == where
    with pytest.raises(
        probes.InputError, match=r"is spread over cpu, disk \(device_map\) and runs there; device='cpu'"
    ):
        probes.capture(spread, tokenizer, corpus, device="cpu", progress=False)


def test_weights_are_read_where_they_lie(models):
    whole, spread, _ = models
    assert places_of(spread) == ["cpu", "disk"]
    assert places_of(whole) == []
    assert runs_on(spread) == torch.device("cpu")
    assert weights_fingerprint(spread) == weights_fingerprint(whole)
    for (name, one), (other_name, other) in zip(weights_in(whole), weights_in(spread), strict=True):
        assert name == other_name
        assert torch.equal(one, other)
    with torch.no_grad():  # not the same where one weight is not
        changed = BertForSequenceClassification(whole.config)
    assert weights_fingerprint(changed) != weights_fingerprint(spread)


@pytest.mark.parametrize(
    "verb",
    [
        lambda model, _: compress.quantize(model, bits=4),
        lambda model, _: compress.prune(model, sparsity=0.5),
        lambda model, _: compress.drop_layers(model, [0]),
        lambda model, _: compress.prune_heads(model, 0.5),
        lambda model, _: compress.factorize(model, rank=2),
        lambda model, given: compress.prune_vocabulary(model, *given),
        lambda model, given: probes.module_error(model, model, *given),
    ],
)
def test_what_changes_a_model_says_that_it_needs_it_whole(models, corpus, verb, tmp_path):
    _, spread, tokenizer = models
    with pytest.raises(probes.InputError, match=r"needs the model whole, and it is spread over cpu, disk\. Load it"):
        verb(spread, (tokenizer, corpus))
    with pytest.raises(probes.InputError, match=r"saving needs the model whole"):
        compress.save(spread, tmp_path / "out", tokenizer)
    assert not (tmp_path / "out").exists()
    with pytest.raises(probes.InputError, match="patching needs the model whole"):
        check_whole(spread, "patching")


def test_precision_is_that_of_the_file_where_it_is_asked_for(folder, tmp_path):
    model, tokenizer = probes.load_checkpoint(folder)
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert probes.load_checkpoint(tmp_path)[0].dtype == torch.float32
    assert probes.load_checkpoint(tmp_path, dtype="auto")[0].dtype == torch.bfloat16
    assert probes.load_checkpoint(folder, dtype="bfloat16")[0].dtype == torch.bfloat16
    with pytest.raises(probes.InputError, match="dtype='half'"):
        probes.load_checkpoint(folder, dtype="half")


def test_what_is_put_together_in_one_place_is_not_spread(models, tmp_path):
    whole, _, tokenizer = models
    compress.save(compress.quantize(whole, bits=4), tmp_path, tokenizer, packed=True)
    with pytest.raises(probes.InputError, match=r"is for plain checkpoints, and this one has packed weights"):
        probes.load_checkpoint(tmp_path, device_map="auto")
