"""Heads that are not in the weights: left out by name, never drawn at random; whole ones stay."""

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

import probes
from probes.errors import LayerscopeWarning
from probes.models.checkpoint import check_checkpoint
from probes.models.facts import classifies
from probes.models.heads import head_of, missing_of_head

LACKING = [
    ("BertForSequenceClassification", "classifier", "BertModel"),
    ("BertForSequenceClassification", "classifier.bias", "BertModel"),
    ("BertForSequenceClassification", "pooler", "BertModel"),  # which the head reads
    ("RobertaForSequenceClassification", "classifier.out_proj", "RobertaModel"),
    ("DistilBertForSequenceClassification", "pre_classifier", "DistilBertModel"),
    ("LlamaForSequenceClassification", "score", "LlamaModel"),
    ("LlamaForCausalLM", "lm_head", "LlamaModel"),
]


def saved(folder, model, tokenizer, without=None):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if without is not None:
        file = folder / "model.safetensors"
        weights = load_file(file)
        assert any(without in key for key in weights)
        save_file({k: v for k, v in weights.items() if without not in k}, file, {"format": "pt"})
    return folder


@pytest.mark.parametrize(("architecture", "lacks", "body"), LACKING)
def test_a_model_without_its_head_is_loaded_without_it_and_that_is_said(
    tmp_path, tiny_models, make_tokenizer, architecture, lacks, body
):
    model = tiny_models(architecture)
    folder = saved(tmp_path / "m", model, make_tokenizer(), lacks)
    with pytest.warns(LayerscopeWarning, match=rf"m: its head is not in its weights \(.*{lacks}") as said:
        loaded, _ = probes.load_checkpoint(folder)
    assert len(said) == 1
    assert said[0].filename == __file__
    assert type(loaded).__name__ == body
    assert loaded.config.architectures == [body]
    assert not classifies(loaded)
    own = dict(model.base_model.named_parameters())
    for name, value in loaded.named_parameters():
        assert "pooler" in name or torch.equal(value, own[name])
    assert not classifies(check_checkpoint(folder)[0])  # known before the weights are read


@pytest.mark.parametrize("architecture", sorted({a for a, _, _ in LACKING} | {"GPT2LMHeadModel", "T5Model"}))
def test_a_model_with_its_head_keeps_it(tmp_path, tiny_models, make_tokenizer, architecture):
    loaded, _ = probes.load_checkpoint(saved(tmp_path / "m", tiny_models(architecture), make_tokenizer()))
    assert type(loaded).__name__ == architecture
    assert missing_of_head(loaded, ["pooler"]) == (["pooler"] if head_of(loaded) else [])


def test_a_head_that_a_pickle_lacks_is_found_when_it_is_read(tmp_path, tiny_models, make_tokenizer):
    folder = saved(tmp_path / "m", tiny_models("BertForSequenceClassification"), make_tokenizer(), "classifier")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.warns(LayerscopeWarning, match=r"not in its weights \(classifier.bias, classifier.weight\)"):
        loaded, _ = probes.load_checkpoint(folder, allow_pickle=True)
    assert type(loaded).__name__ == "BertModel"


def test_what_needs_a_head_is_measured_of_the_models_that_have_one(tmp_path, tiny_models, make_tokenizer):
    model = tiny_models("BertForSequenceClassification")
    whole = saved(tmp_path / "whole", model, make_tokenizer())
    without = saved(tmp_path / "without", model, make_tokenizer(), "classifier")
    words = ["the", "red", "big", "small", "dog", "cat", "bird", "sat", "ran", "sang"]
    frame = pd.DataFrame(
        {"id": range(30), "language": "en", "text": [f"{words[i // 3]} {words[i % 7]}" for i in range(30)]}
    )
    corpus = probes.load_corpus(frame.assign(label=[i % 3 for i in range(30)]))
    models = {"whole": whole, "without": without}
    run = {"draws": 10, "progress": False, "probes": ["accuracy", "label_loyalty", "cka"]}
    said = "no logits of 'without', without a head that classifies texts: accuracy, label_loyalty left out for it"
    with pytest.warns(LayerscopeWarning) as caught:
        table = probes.compare(models, corpus, **run).to_dataframe()
    assert [str(w.message) == said for w in caught].count(True) == 1
    assert any("without: its head is not in its weights" in str(w.message) for w in caught)
    assert set(table[table["model"] == "without"]["probe"]) == {"cka"}
    assert set(table[table["model"] == "whole"]["probe"]) == {"accuracy", "cka"}
    with pytest.raises(probes.InputError, match="accuracy, label_loyalty cannot be measured without logits"):
        probes.compare(models, corpus, **run, baseline="without")
