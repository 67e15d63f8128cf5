"""The loss of layers quantised by now: against numpy, from the step on at which they are, and what is refused."""

import numpy as np
import pytest
import torch
from trained import QUIET, make_corpus

import compress
from compress.matrices import block_matrices
from compress.objectives.base import Pass
from compress.objectives.layers import watching_attention
from compress.quantization.quantized_layers import QuantizedLayers
from probes.errors import InputError


def two(tiny_models):
    student, teacher = (tiny_models("BertForSequenceClassification") for _ in range(2))
    with torch.no_grad():
        for w in block_matrices(student).values():
            w.add_(0.1 * torch.randn(w.shape, generator=torch.Generator().manual_seed(w.numel())))
    ids, mask = torch.tensor([[5, 6, 7], [8, 9, 0]]), torch.tensor([[1, 1, 1], [1, 1, 0]])
    passes = []
    for model in (student, teacher):
        with watching_attention(model) as seen:
            model(ids, mask)
        passes.append(Pass(model, None, attention_outputs=tuple(seen)))
    return passes, {"attention_mask": mask}


def test_it_is_weights_and_attention_of_the_layers_that_are_quantised(tiny_models):
    (student, teacher), batch = two(tiny_models)
    objective, done = QuantizedLayers(weights=0.3, attention=2.0, weight=0.5), set()
    objective.follow(done)
    assert objective(student, teacher, batch).item() == 0
    names = [n for n in block_matrices(student.model) if "layer.0." in n or "layer.2." in n]
    done |= set(names)
    own, theirs = (dict(p.model.named_parameters()) for p in (student, teacher))
    far = sum(((own[n] - theirs[n]).detach().double().numpy() ** 2).sum() for n in names)
    there = batch["attention_mask"].bool().numpy()
    heads = [
        ((s - t).detach().double().numpy() ** 2)[there].mean()
        for s, t in zip(student.attention_outputs, teacher.attention_outputs, strict=True)
    ]
    expected = 0.5 * (0.3 * far + 2.0 / 2 * (heads[0] + heads[2]))
    loss = objective(student, teacher, batch)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    loss.backward()
    assert all(p.grad is None for p in teacher.model.parameters())
    layers = student.model.bert.encoder.layer
    # Of the second layer only what the third attends to is heard of, nothing of its distance.
    torch.testing.assert_close(
        layers[2].output.dense.weight.grad, 0.3 * (own[names[-1]] - theirs[names[-1]]).detach(), rtol=1e-4, atol=1e-6
    )


def test_a_layer_counts_from_the_step_at_which_it_is_quantised(tiny_models, make_tokenizer):
    model = tiny_models("BertForSequenceClassification", id2label=dict(enumerate("xyz")))
    how = {"codes": 4, "block": 2, "train": make_corpus(), "tokenizer": make_tokenizer(), "steps": 8, **QUIET}
    objective = [compress.CrossEntropy(), QuantizedLayers(attention=0.0)]
    made = compress.product_quantize(model, objective=objective, **how)
    losses = made.history["quantized_layers"].to_numpy()
    first, *others = made.history.attrs["quantized_at"]
    assert (losses[:first] == 0).all()
    assert (np.diff(losses)[np.array(others) - 1] > 0).all()  # one more at each
    how |= {"learning_rate": 3e-2, "steps": 12}
    held = compress.product_quantize(model, objective=[compress.CrossEntropy(), QuantizedLayers(100.0, 0.0)], **how)
    free = compress.product_quantize(model, objective=[compress.CrossEntropy()], **how)
    error = [sum(m.config.compression["mean_squared_error"].values()) for m in (held, free)]
    assert error[0] < 0.9 * error[1]


def test_what_is_refused(tiny_models):
    (student, teacher), batch = two(tiny_models)
    with pytest.raises(InputError, match="layers that are quantised one by one: use product_quantize"):
        QuantizedLayers()(student, teacher, batch)
    with pytest.raises(InputError, match="weights=-1: expected a finite number at least 0"):
        QuantizedLayers(weights=-1)
    wide = tiny_models("BertForSequenceClassification", intermediate_size=24)
    objective = QuantizedLayers()
    objective.follow(["bert.encoder.layer.0.intermediate.dense.weight"])
    with pytest.raises(InputError, match=r"of the teacher is of shape \(24, 12\): expected a teacher"):
        objective(student, Pass(wide, None, attention_outputs=teacher.attention_outputs), batch)
