"""How far GPTQ is from the best roundings of small problems, found by trying all: a table of the reference page.

    python tests/calibration/exhaustion.py

Inputs are normal, each pair of the same correlation; a problem is eight units and 200 tokens. Best is what costs its
outputs least on the grid that both have. A minute of one core.
"""

import itertools

import numpy as np
import torch

from compress.moments import Moments, squared_error
from compress.quantization.gptq import gptq
from compress.quantization.quantizers import dequantize, quantize_tensor

PROBLEMS, UNITS, TOKENS = 100, 8, 200
CORRELATIONS = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95)
SIZES = ((4, 2), (6, 2), (4, 3))  # inputs, bits


def problem(inputs: int, correlation: float, seed: int) -> tuple[torch.Tensor, Moments]:
    """Weights, and moments of correlated inputs."""
    generator = torch.Generator().manual_seed(seed)
    own = torch.randn(TOKENS, inputs, generator=generator)
    shared = torch.randn(TOKENS, 1, generator=generator)
    x = (1 - correlation) ** 0.5 * own + correlation**0.5 * shared
    return torch.randn(UNITS, inputs, generator=generator), Moments.of(x)


def best(weight: torch.Tensor, bits: int, moments: Moments) -> float:
    """What the best roundings cost."""
    most = 2 ** (bits - 1) - 1
    every = torch.tensor(list(itertools.product(range(-most, most + 1), repeat=weight.shape[1])), dtype=torch.float64)
    steps, products = quantize_tensor(weight, bits).scale.double(), moments.products.double()
    changes = ((every * step - row) for step, row in zip(steps, weight.double(), strict=True))
    return sum(float(((change @ products) * change).sum(1).min()) for change in changes)


def ratios(inputs: int, bits: int, correlation: float) -> dict[str, np.ndarray]:
    """Of each problem, what each way to round costs over the best."""
    found: dict[str, list[float]] = {"gptq": [], "act_order": [], "nearest": []}
    for seed in range(PROBLEMS):
        weight, moments = problem(inputs, correlation, seed)
        least = best(weight, bits, moments)
        codes = {
            "gptq": gptq(weight, bits, moments),
            "act_order": gptq(weight, bits, moments, act_order=True),
            "nearest": quantize_tensor(weight, bits),
        }
        for name, one in codes.items():
            found[name].append(float(squared_error(dequantize(one) - weight, moments.products).double().sum()) / least)
    return {name: np.array(each) for name, each in found.items()}


def main() -> None:
    """Print a row a size and correlation."""
    print(
        "| inputs | bits | correlation | GPTQ, mean | within 5 % | by `act_order`, mean | within 5 % | nearest, mean |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for (inputs, bits), correlation in itertools.product(SIZES, CORRELATIONS):
        found = ratios(inputs, bits, correlation)
        cells = [f"{inputs}", f"{bits}", f"{correlation:g}"]
        for name in ("gptq", "act_order"):
            cells += [f"{found[name].mean():.2f}", f"{(found[name] <= 1.05).mean():.0%}".replace("%", " %")]
        cells.append(f"{found['nearest'].mean():.2f}")
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
