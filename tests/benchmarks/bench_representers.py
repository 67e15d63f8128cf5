"""Representer values against dattri, on the same inputs, and a large set in a process of its own.

python tests/benchmarks/bench_representers.py [rounds]
"""

import resource
import subprocess
import sys
import time

import common  # sets the environment before torch is imported
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from probes.measures.attribution.representers import representers

L2 = 0.003  # dattri's default
LARGE = (50_000, 768, 15)


def against_dattri(kind: str, rounds: int) -> None:
    """Both explain the outputs of one linear head on 600 training and 100 test rows.

    dattri stops at 1/200 of the first gradient where float32 gets there, and after 3,000 steps where it does not.
    """
    try:
        from dattri.algorithm.rps import RPSAttributor
        from dattri.task import AttributionTask
    except ImportError as error:
        print(f"dattri is missing ({error}): only this project's times are taken")
        RPSAttributor = None
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
    tasks = {"layerscope": lambda: representers(x.numpy(), t.numpy(), head=head, l2=L2).matrix()}
    if RPSAttributor is not None:

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
        fitted = {}

        def dattri() -> torch.Tensor:
            named = Named()  # a new one each time: the search changes its weights in place
            task = AttributionTask(
                loss_func=torch.nn.functional.cross_entropy, model=named, checkpoints=named.state_dict()
            )
            attributor = RPSAttributor(task=task, final_linear_layer_name="fc", l2_strength=L2)
            attributor.cache(train)
            scores = attributor.attribute(train, loader(t, target))
            fitted["theta"] = attributor.finetuned_theta.detach().double().numpy()
            fitted["scores"] = scores.detach().double().numpy()
            return scores

        tasks["dattri"] = dattri
    seconds = common.interleaved(tasks, rounds)
    values = representers(x.numpy(), t.numpy(), head=head, l2=L2)
    direct = np.column_stack([t, np.ones(m)]) @ values.theta.T
    print(f"\n{f'{n} x {width}, {classes} classes, {kind}':30}{'seconds':>9}{'error':>10}")
    print(f"{'layerscope':30}{seconds['layerscope']:9.4f}{_error(values.matrix().sum(axis=1), direct, target):10.1e}")
    if RPSAttributor is not None:
        direct = t.double().numpy() @ fitted["theta"].T
        # Its sums are the logits / n; here they are given the missing factor.
        error = _error(n * fitted["scores"].sum(axis=0), direct, target)
        print(f"{'dattri':30}{seconds['dattri']:9.4f}{error:10.1e}")
        print(f"ratio {seconds['dattri'] / seconds['layerscope']:.0f}")


def _error(summed: np.ndarray, logits: np.ndarray, target: torch.Tensor) -> float:
    picked = logits[np.arange(len(logits)), target.numpy()]
    return float(np.abs(summed - picked).max() / np.abs(picked).max())


def large(kind: str) -> None:
    """Print the seconds and the peak memory of a large set of features: white, or dominated by their mean."""
    n, width, classes = LARGE
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
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    started, worked = time.perf_counter(), time.process_time()
    values = representers(x[:n], x[n:], labels=y[:n])
    seconds, worked = time.perf_counter() - started, time.process_time() - worked
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    c = values.certificate
    print(f"{kind:30}{seconds:9.1f}{worked:13.1f}{before:9.0f}{peak:9.0f}{c.relative_error:10.1e}{c.iterations:7}")


if sys.argv[1:] and not sys.argv[1].isdigit():
    large(sys.argv[1])
else:
    print(
        f"{torch.get_num_threads()} threads; error: how far sums of values are from the fitted head's logits, relative"
    )
    for kind in ("random head", "trained head"):
        against_dattri(kind, int(sys.argv[1]) if sys.argv[1:] else 3)
    name = "{:,} x {}, {} classes".format(*LARGE)
    print(f"\n{name:30}{'seconds':>9}{'CPU seconds':>13}{'MiB at':>9}{'peak':>9}{'error':>10}{'steps':>7}")
    for kind in ("white", "dominated by the mean"):
        print(
            subprocess.run([sys.executable, __file__, kind], check=True, capture_output=True, text=True).stdout, end=""
        )
