"""What the tests of factorisation share: families, states, a matrix on its own, and what a matrix is fed."""

import torch
from torch import nn

from compress.factorization.factors import Matrix

FAMILIES = ["BertForSequenceClassification", "RobertaModel", "DistilBertModel", "GPT2LMHeadModel", "LlamaModel"]
QUERY = "bert.encoder.layer.1.attention.self.query.weight"
DENSE = "bert.encoder.layer.1.output.dense.weight"
WORDS = "bert.embeddings.word_embeddings.weight"


def states(model, batch):
    with torch.no_grad():
        return torch.stack(model(**batch, output_hidden_states=True).hidden_states)


def module_of(model, name):
    return model.get_submodule(name.removesuffix(".weight"))


def plain(values):
    """A matrix on its own, as `LowRank` and `TensorTrain` take it."""
    return Matrix(nn.Linear(1, 1), "", torch.as_tensor(values))


def inputs_of(model, name, corpus, tokenizer):
    """What a matrix is multiplied with, text by text, without padding: (token, input) in float64."""
    seen = []
    module = model.get_submodule(name.removesuffix(".weight"))
    handle = module.register_forward_pre_hook(lambda _, x: seen.append(x[0][0]))
    with torch.no_grad():
        for text in corpus["text"]:
            model(**tokenizer(text, return_tensors="pt"))
    handle.remove()
    return torch.cat(seen).double().numpy()
