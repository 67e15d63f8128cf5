"""What the tests of quantisation share: layers, states, some matrices quantised alone, and what one is fed."""

import torch

import probes
from compress.quantization.quantize import quantize

LAYERS = [f"bert.encoder.layer.{i}" for i in range(3)]


def capture(model, tokenizer, sentences):
    return probes.capture(model, tokenizer, sentences, progress=False)


def alone(model, names, bits, **how):
    return quantize(model, bits=dict.fromkeys(names, bits), activation_bits=None, **how)


def inputs_of(model, name, batch):
    seen = []
    handle = model.get_submodule(name).register_forward_pre_hook(lambda _m, args: seen.append(args[0].clone()))
    with torch.no_grad():
        model(**batch)
    handle.remove()
    return seen[0]
