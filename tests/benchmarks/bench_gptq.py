"""GPTQ of one matrix, 768 x 3072 both ways, 4 bits in groups of 128: time and error beside llmcompressor's.

Both are given the same second moments and the same first grids; ours makes the grid of each group anew when its turn
comes, and compares each unit with rounding to nearest. torchao's needs a GPU. The error is the sum of squared changes
of the outputs on what was seen, over that of rounding to nearest; theirs has one more code below 0 on the same grid.
"""

from collections.abc import Iterator

from common import Row, interleaved, run  # first: it sets the environment

# isort: split
import torch

from compress.moments import Moments, squared_error
from compress.quantization.gptq import gptq
from compress.quantization.quantizers import dequantize, quantize_tensor

BITS, GROUP = 4, 128


def rows(quick: bool) -> Iterator[Row]:
    for units, inputs in ((768, 3072), (3072, 768)):
        yield of_one(units, inputs, 3 if quick else 7)


def of_one(units: int, inputs: int, rounds: int) -> Row:
    """Ours and llmcompressor's on a random matrix that is fed correlated inputs."""
    from compressed_tensors.quantization import QuantizationArgs
    from llmcompressor.modifiers.gptq.gptq_quantize import quantize_weight

    arguments = QuantizationArgs(num_bits=BITS, symmetric=True, strategy="group", group_size=GROUP)
    generator = torch.Generator().manual_seed(0)
    mixed = torch.eye(inputs) + torch.randn(inputs, inputs, generator=generator) / inputs**0.5
    x = torch.randn(4096, inputs, generator=generator) @ mixed
    weight, moments = torch.randn(units, inputs, generator=generator), Moments.of(x)
    nearest = quantize_tensor(weight, BITS, group=GROUP)
    hessian = (moments.products / moments.tokens).float()
    scale = nearest.scale.reshape(1, units, -1)
    found: dict[str, torch.Tensor] = {}

    def ours() -> None:
        found["ours"] = dequantize(gptq(weight, BITS, moments, group=GROUP))

    def theirs() -> None:
        given = (weight[None].clone(), hessian[None].clone(), scale, torch.zeros_like(scale), None, arguments)
        found["theirs"] = quantize_weight(*given)[0][0]

    seconds = interleaved({"ours": ours, "theirs": theirs}, rounds, most=60)
    worst = squared_error(dequantize(nearest) - weight, moments.products).sum()
    errors = {k: float(squared_error(v - weight, moments.products).sum() / worst) for k, v in found.items()}
    note = f"error to nearest's: {errors['ours']:.3f}, theirs {errors['theirs']:.3f}"
    return Row(f"GPTQ of {units} x {inputs}", seconds["ours"], seconds["theirs"], "llmcompressor", note=note)


if __name__ == "__main__":
    run(rows)
