"""Corpora and tiny models of each kind of labels, which the tests share."""

import numpy as np
import pandas as pd

import probes

CLASSES = ["x", "y", "z"]
OF_WORDS = {"red": "y", "big": "y", "small": "y", "dog": "z", "cat": "z", "bird": "z"}
# The architecture of a kind, and what its configuration says.
HEADS = {
    "classes": ("BertForSequenceClassification", {}),
    "numbers": ("BertForSequenceClassification", {"num_labels": 1}),
    "several": ("BertForSequenceClassification", {"problem_type": "multi_label_classification"}),
    "words": ("BertForTokenClassification", {}),
}


def corpus_of(kind, count=48):
    rng = np.random.default_rng(0)
    known = ["red", "big", "small", "dog", "cat", "bird"]
    texts = [" ".join(rng.permutation(known)[: 2 + i % 4]) for i in range(count)]
    rows = pd.DataFrame({"id": range(count), "language": "en", "text": texts})
    words = [text.split() for text in texts]
    if kind == "words":
        rows["tags"] = [[OF_WORDS.get(word, "x") for word in text] for text in words]
    elif kind == "several":
        rows["labels"] = [sorted({OF_WORDS[w] for w in text if w in ("red", "dog")}) for text in words]
    elif kind == "numbers":
        rows["label"] = [len(text) + 0.5 * ("dog" in text) for text in words]
    else:
        rows["label"] = ["y" if "dog" in text else "x" for text in words]
    return probes.load_corpus(rows)


def model_of(kind, tiny_models, **changes):
    import transformers

    architecture, settings = HEADS[kind]
    if architecture == "BertForTokenClassification":
        model = tiny_models("BertForSequenceClassification", **changes)
        made = transformers.BertForTokenClassification(model.config).eval()
        made.bert.load_state_dict(model.bert.state_dict(), strict=False)
        model = made
    else:
        model = tiny_models(architecture, **{**settings, **changes})
    if kind != "numbers":
        model.config.id2label = dict(enumerate(CLASSES))
    return model
