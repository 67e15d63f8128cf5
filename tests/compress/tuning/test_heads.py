"""A head for the labels of a corpus: of which kind, by whose names, and on the same body."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from trained import QUIET, WORDS, make_corpus, same

import compress
import probes
from compress.tuning.heads import missing_head, with_head
from probes.errors import InputError, LayerscopeWarning
from probes.models.facts import head_of


def corpus_with(**columns):
    texts = [WORDS["xyz"[i % 3]] for i in range(12)]
    rows = pd.DataFrame({"id": range(12), "language": "en", "text": texts})
    return probes.load_corpus(rows.assign(**{k: [v[i % len(v)] for i in range(12)] for k, v in columns.items()}))


TAGS = ["N V A P D", "N V A P D", "N V A P D"]


@pytest.mark.parametrize(
    ("columns", "objective", "kind", "names"),
    [
        ({"label": ["y", "x", "z"]}, [], "classes", ["x", "y", "z"]),
        ({"label": [10, 9, 2]}, [compress.CrossEntropy()], "classes", ["2", "9", "10"]),
        ({"label": [0.5, -1.0]}, [], "numbers", ["number"]),
        ({"labels": ["b a", "", "c"]}, [], "several", ["a", "b", "c"]),
        ({"tags": TAGS}, [], "words", ["A", "D", "N", "P", "V"]),
        ({"label": [1, 2]}, [compress.SquaredError()], "numbers", ["number"]),
        ({"label": [1, 2]}, [compress.Robust(compress.SquaredError(), method="cvar")], "numbers", ["number"]),
    ],
)
def test_the_head_is_of_the_kind_and_names_of_the_labels(tiny_models, tokenizer, columns, objective, kind, names):
    model, corpus = tiny_models("BertModel"), corpus_with(**columns)
    assert missing_head(model, corpus, objective) == kind
    said = r"BertModel: it has no head for labels, so one for .*was made, by seed 0"
    with pytest.warns(LayerscopeWarning, match=said):
        tuned = compress.finetune(model, tokenizer, corpus, steps=1, objective=objective, **QUIET)
    assert head_of(tuned) == kind
    assert list(tuned.config.id2label.values()) == names
    assert tuned.config.label2id == {name: i for i, name in enumerate(names)}
    assert head_of(model) is None
    assert model.config.num_labels == 2


def test_the_body_is_that_of_the_model_and_the_head_drawn_by_the_seed(tiny_models, tokenizer):
    model = tiny_models("BertModel")
    before = torch.random.get_rng_state()
    with pytest.warns(LayerscopeWarning, match="by seed"):
        one, again, other = (with_head(model, tokenizer, make_corpus(), "classes", seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    for made in (one, other):
        assert same(made.base_model.state_dict(), model.state_dict())
    assert same(one.state_dict(), again.state_dict())
    assert not torch.equal(one.classifier.weight, other.classifier.weight)
    assert all(m.config is one.config for m in one.modules() if hasattr(m, "config"))


@pytest.mark.parametrize("name", ["RobertaModel", "DistilBertModel", "LlamaModel"])
def test_it_loads_in_plain_transformers(tiny_models, tokenizer, tmp_path, name):
    import transformers

    model = tiny_models(name)
    with pytest.warns(LayerscopeWarning, match="it has no head for labels"):
        tuned = compress.finetune(model, tokenizer, make_corpus(), steps=1, **QUIET)
    compress.save(tuned, tmp_path / "it", tokenizer)
    back = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "it").eval()
    batch = tokenizer(list(WORDS.values()), return_tensors="pt", padding=True)
    batch = {k: batch[k] for k in ("input_ids", "attention_mask")}
    with torch.no_grad():
        assert torch.equal(back(**batch).logits, tuned.eval()(**batch).logits)
    assert back.config.id2label == {0: "x", 1: "y", 2: "z"}


def test_what_was_pruned_of_the_body_stays_so(tiny_models, tokenizer):
    model = compress.prune_heads(tiny_models("BertModel"), 0.5, importance=np.ones((3, 2)))
    with pytest.warns(LayerscopeWarning, match="it has no head"):
        tuned = compress.finetune(model, tokenizer, make_corpus(), steps=1, **QUIET)
    own = tuned.bert.encoder.layer[0].attention.self.query.weight
    assert own.shape == model.encoder.layer[0].attention.self.query.weight.shape
    assert tuned.config.compression["before"]["method"] == "prune_heads"


def test_none_is_made_where_there_is_one_or_none_is_asked_for(classifier, tiny_models, tokenizer):
    corpus = make_corpus()
    assert missing_head(classifier, corpus, []) is None
    assert missing_head(tiny_models("BertModel"), corpus, [compress.HiddenStates()]) is None
    assert missing_head(tiny_models("GPT2LMHeadModel"), corpus, []) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error", LayerscopeWarning)
        compress.finetune(classifier, tokenizer, corpus, steps=1, **QUIET)


def test_masked_tokens_are_no_labels(make_tokenizer):
    from speaking import masking, of_masked_tokens

    speaking = masking(make_tokenizer)
    model = of_masked_tokens(speaking)
    assert missing_head(model, make_corpus(), []) == "classes"
    assert missing_head(model, make_corpus().remove_columns("label"), []) is None
    assert missing_head(model, make_corpus(), [compress.LanguageModel()]) is None


def test_what_cannot_be(tiny_models, classifier, tokenizer):
    bare = make_corpus().remove_columns("label")
    with pytest.raises(InputError, match=r"BertModel has no head, and the corpus no labels to make one for: add a"):
        compress.finetune(tiny_models("BertModel"), tokenizer, bare, steps=1, **QUIET)
    with pytest.raises(InputError, match="a head needs two classes at least, and the corpus has 'x'"):
        compress.finetune(tiny_models("BertModel"), tokenizer, corpus_with(label=["x"]), steps=1, **QUIET)
    with pytest.raises(InputError, match=r"label 'w' is no class of model .*; it has 'x', 'y', 'z'"):
        compress.finetune(classifier, tokenizer, corpus_with(label=["x", "w"]), steps=1, **QUIET)
    with pytest.raises(InputError, match=r"transformers has no model of 't5' .* class a word|stands on a"):
        with_head(tiny_models("T5Model").encoder, tokenizer, make_corpus(), "classes")
