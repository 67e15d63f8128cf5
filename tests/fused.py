"""What the tests of fusion share: the parts of a layer, which names stand for one tensor, and models without it."""

import copy

import torch

PARTS = [
    f"encoder.layer.*.{name}"
    for name in (
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    )
]
QUIET = {"batch_size": 8, "learning_rate": 1e-3, "progress": False}


def queries(model):
    return [layer.attention.self.query for layer in model.bert.encoder.layer]


def storages(model):
    """Which names stand for one tensor."""
    places = {}
    for name, tensor in model.state_dict().items():
        places.setdefault(tensor.data_ptr(), []).append(name)
    return sorted(tuple(names) for names in places.values())


def untied(model):
    """The same numbers, each module with its own."""
    out = copy.deepcopy(model)
    for module in out.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                setattr(module, name, torch.nn.Parameter(parameter.detach().clone()))
    return out


def batch(model, tokenizer, corpus):
    tokens = tokenizer(list(corpus["text"])[:8], return_tensors="pt", padding=True)
    return {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}
