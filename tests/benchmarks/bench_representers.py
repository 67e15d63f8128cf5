"""Representer values against dattri, on the same inputs, and a large set in a process of its own.

Errors are how far the sums of values are from the logits of the fitted head, relative to the largest.
"""

import time
from collections.abc import Iterator
from typing import Any

from common import Row, alone, installed, interleaved, peak, run  # first: it sets the environment

# isort: split
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

import probes

L2 = 0.003  # dattri's default
LARGE, SMALLER = (50_000, 768, 15), (10_000, 256, 8)


def rows(quick: bool) -> Iterator[Row]:
    for kind in ("random head", "trained head"):
        yield against_dattri(kind, 3 if quick else 5)
    size = SMALLER if quick else LARGE
    for kind in ("white", "dominated by the mean"):
        found = alone(large, kind, size)
        what = "{:,} x {}, {} classes, ".format(*size) + kind
        note = f"{found['worked']:.1f} CPU seconds, {found['steps']} steps, relative error {found['error']:.0e}"
        yield Row(what, found["seconds"], note=note)
        yield Row(f"memory of {what}", found["added"], found["features"], "the features", unit="MiB")


def against_dattri(kind: str, rounds: int) -> Row:
    """Both explain the outputs of one linear head on 600 training and 100 test rows.

    dattri stops at 1/200 of the first gradient where float32 gets there, and after 3,000 steps where it does not.
    """
    rps = installed("dattri.algorithm.rps")
    tasks_of_dattri = installed("dattri.task") if rps else None
    n, m, width, classes = 600, 100, 64, 4
    rng = np.random.default_rng(0)
    y = rng.integers(0, classes, n + m)
    head = torch.nn.Linear(width, classes)
    states = rng.standard_normal((n + m, width))
    weight, bias = rng.standard_normal((classes, width)) / np.sqrt(width), np.zeros(classes)
    if kind == "trained head":  # on rectified states of classes
        states = np.maximum(1 + states + 0.5 * rng.standard_normal((classes, width))[y], 0)
        trained = LogisticRegression(max_iter=1000).fit(states[:n], y[:n])
        weight, bias = trained.coef_, trained.intercept_
    with torch.no_grad():
        head.weight.copy_(torch.tensor(weight))
        head.bias.copy_(torch.tensor(bias))
    x, t = torch.tensor(states, dtype=torch.float32).split([n, m])
    target = head(t).argmax(dim=1)
    fitted: dict[str, np.ndarray] = {}

    class Named(torch.nn.Module):
        """dattri asks for the last layer by the name of an attribute."""

        def __init__(self) -> None:
            super().__init__()
            self.fc = torch.nn.Linear(width, classes)
            self.fc.load_state_dict(head.state_dict())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x)

    def loader(x: torch.Tensor, y: torch.Tensor) -> torch.utils.data.DataLoader:
        return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=len(x))

    train = loader(x, head(x).argmax(dim=1))

    def ours() -> None:
        probes.representers(x.numpy(), t.numpy(), head=head, l2=L2).matrix()

    def dattri() -> None:
        named = Named()  # a new one each time: the search changes its weights in place
        loss = torch.nn.functional.cross_entropy
        task = tasks_of_dattri.AttributionTask(loss_func=loss, model=named, checkpoints=named.state_dict())
        attributor = rps.RPSAttributor(task=task, final_linear_layer_name="fc", l2_strength=L2)
        attributor.cache(train)
        fitted["scores"] = attributor.attribute(train, loader(t, target)).detach().double().numpy()
        fitted["theta"] = attributor.finetuned_theta.detach().double().numpy()

    seconds = interleaved({"ours": ours} | ({"dattri": dattri} if tasks_of_dattri else {}), rounds)
    values = probes.representers(x.numpy(), t.numpy(), head=head, l2=L2)
    direct = np.column_stack([t, np.ones(m)]) @ values.theta.T
    note = f"relative error {_error(values.matrix().sum(axis=1), direct, target):.0e}"
    if fitted:
        direct = t.double().numpy() @ fitted["theta"].T
        # Its sums are the logits / n; here they are given the missing factor.
        note += f", dattri's {_error(n * fitted['scores'].sum(axis=0), direct, target):.0e}"
    return Row(f"{n} x {width}, {classes} classes, {kind}", seconds["ours"], seconds.get("dattri"), "dattri", note=note)


def _error(summed: np.ndarray, logits: np.ndarray, target: torch.Tensor) -> float:
    picked = logits[np.arange(len(logits)), target.numpy()]
    return float(np.abs(summed - picked).max() / np.abs(picked).max())


def large(kind: str, size: tuple[int, int, int]) -> dict[str, Any]:
    """Seconds and memory of a large set of features: white, or dominated by their mean."""
    n, width, classes = size
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((classes, width)).astype(np.float32)
    spread = (np.arange(1, width + 1) ** -0.7).astype(np.float32)
    turn = np.linalg.qr(rng.standard_normal((width, width)))[0].astype(np.float32)
    mean = 5 * rng.standard_normal(width).astype(np.float32)
    mean[:3] *= 20
    y = rng.integers(0, classes, n + 2000)
    x = rng.standard_normal((n + 2000, width), np.float32)
    if kind == "white":
        x += 0.3 * centres[y]
    else:
        x = (3 * x * spread + 2 * centres[y] * spread) @ turn + mean
    before = peak()
    started, worked = time.perf_counter(), time.process_time()
    values = probes.representers(x[:n], x[n:], labels=y[:n])
    seconds, worked = time.perf_counter() - started, time.process_time() - worked
    known = {"seconds": seconds, "worked": worked, "added": peak() - before, "features": x.nbytes / 2**20}
    return known | {"error": values.certificate.relative_error, "steps": values.certificate.iterations}


if __name__ == "__main__":
    run(rows)
