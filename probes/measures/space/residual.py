"""What known dynamics of layers leave of another model: a linear map and a small network, by a neural ODE."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from probes.measures.space.dynamics import Known, affine, ridge

KEPT = 3  # residuals of earlier checkpoints and the newest, at most
_HIDDEN, _BATCH, _RATE, _EACH = 64, 128, 0.01, 10
_DECAY = 5e-8  # of the squares of all parameters
_PATIENCE = 4  # times that the choosing rows are asked without a better answer


@dataclass
class Residual:
    """What one checkpoint adds to the field of a step: a linear part, and a network of one hidden layer.

    The linear part is that of where the step begins and stays for all of it, as the known map does;
    the network reads the state on the way.

    Attributes:
        linear: (step, feature + 1, feature), the last row for a constant.
        parts: `read` (feature, hidden) and `write` (hidden, feature) of the network, which all steps
            share, and of each step `gate` and `bias` (step, 1, hidden).
        size: (step, 1, 1) what the linear part leaves of a step, in which the network counts.
    """

    linear: torch.Tensor
    size: torch.Tensor
    parts: dict[str, torch.Tensor] = field(default_factory=dict)

    def on_the_way(self, step: int | slice, z: torch.Tensor) -> torch.Tensor:
        """Return what the network adds to the field at z (..., example, feature)."""
        p = self.parts
        seen = torch.tanh(z @ p["read"] + p["bias"][step])
        return self.size[step] * ((p["gate"][step] * seen) @ p["write"])


class Cascade:
    """Known dynamics and the residuals of checkpoints, the newest last: each older one counts 1 / e less.

    Args:
        known: (step, feature + 1, feature) what a step of the known dynamics adds.
        residuals: at most three.
        network: False leaves the networks out.
    """

    def __init__(self, known: torch.Tensor, residuals: Sequence[Residual] = (), network: bool = True) -> None:
        """Add up what is linear."""
        weights = [math.exp(age) for age in range(1 - len(residuals), 1)]
        self.linear = known
        for weight, one in zip(weights, residuals, strict=True):
            self.linear = self.linear + weight * one.linear
        self.networks = [(w, r) for w, r in zip(weights, residuals, strict=True) if r.parts and network]

    def step(self, step: int | slice, z: torch.Tensor) -> torch.Tensor:
        """Return the states after a step from z (example, feature), or after several steps side by
        side from z (step, example, feature).

        What is linear is exact, the rest is integrated by one step of Runge and Kutta's fourth
        order.
        """
        fixed = z @ self.linear[step][..., :-1, :] + self.linear[step][..., -1:, :]
        if not self.networks:
            return z + fixed

        def field_at(x: torch.Tensor) -> torch.Tensor:
            out = fixed
            for weight, one in self.networks:
                out = out + weight * one.on_the_way(step, x)
            return out

        one = field_at(z)
        two = field_at(z + one / 2)
        three = field_at(z + two / 2)
        return z + (one + 2 * two + 2 * three + field_at(z + three)) / 6

    def ahead(self, states: torch.Tensor, count: int) -> Iterator[torch.Tensor]:
        """Yield what states (layer, example, feature) of all layers but the last are predicted to
        become 1, 2, ... `count` layers on: (start, example, feature), as many as are followed by that.
        """
        steps = len(states) - 1
        z = states[:-1]
        for k in range(min(count, steps)):
            z = self.step(slice(k, steps), z[: steps - k])
            yield z


def learned(
    known: Known,
    older: Sequence[Residual],
    z: np.ndarray,
    choosing: np.ndarray,
    *,
    look_ahead: int,
    steps: int,
    seed: int,
) -> Residual:
    """Learn the residual of a checkpoint, those of older ones frozen.

    The linear part is a ridge regression of one step; the network then learns to predict so many
    layers ahead, from every layer. What of it predicts the choosing rows best is kept, and that may
    be none of it.

    Args:
        known: the known dynamics.
        older: residuals of earlier checkpoints, the newest last; the last two count.
        z: (layer, row, feature) states of the checkpoint in the coordinates of the known dynamics.
        choosing: (row,) boolean.
        look_ahead: layers ahead; 1 is a fit of one step.
        steps: of Adam, at most.
        seed: of the network and the batches.
    """
    known_maps = torch.from_numpy(known.maps).float()
    older = list(older)[-(KEPT - 1) :]
    states = torch.from_numpy(z).float()
    count = len(z) - 1
    nothing = Residual(torch.zeros_like(known_maps), torch.ones(count, 1, 1))
    ageing = Cascade(known_maps, [*older, nothing])
    linear, sizes = [], []
    with torch.no_grad():
        for step in range(count):
            left = z[step + 1] - ageing.step(step, states[step]).double().numpy()
            linear.append(ridge(z[step], left, choosing))
            sizes.append(np.sqrt(np.square(left - affine(linear[-1], z[step])).mean()))
    own = Residual(torch.from_numpy(np.array(linear)).float(), torch.from_numpy(np.reshape(sizes, (-1, 1, 1))).float())
    if not torch.isfinite(own.linear).all() or not torch.isfinite(states).all():
        return own
    generator = torch.Generator().manual_seed(seed)
    d = z.shape[-1]
    own.parts = {
        "read": torch.randn(d, _HIDDEN, generator=generator) / math.sqrt(d),
        "write": torch.zeros(_HIDDEN, d),
        "gate": torch.ones(count, 1, _HIDDEN),
        "bias": 0.5 * torch.randn(count, 1, _HIDDEN, generator=generator),
    }
    whole, unit = Cascade(known_maps, [*older, own]), float(own.size.square().mean()) or 1.0
    rows, apart = (torch.from_numpy(np.flatnonzero(x)) for x in (~choosing, choosing))
    for part in own.parts.values():
        part.requires_grad_()
    optimiser = torch.optim.Adam(list(own.parts.values()), lr=_RATE)
    best, kept, since = math.inf, own.parts, 0
    for number in range(steps + 1):
        if number % _EACH == 0 or number == steps:
            with torch.no_grad():
                error = float(missed(whole, states[:, apart], look_ahead))
            since += 1
            if error < best:
                best, kept, since = error, {k: p.detach().clone() for k, p in own.parts.items()}, 0
        if number == steps or since == _PATIENCE:
            break
        some = rows[torch.randperm(len(rows), generator=generator)[:_BATCH]]
        with torch.enable_grad():
            loss = missed(whole, states[:, some], look_ahead) / unit
            loss = loss + _DECAY * sum((p.square().sum() for p in own.parts.values()), torch.zeros(()))
            for part, gradient in zip(
                own.parts.values(), torch.autograd.grad(loss, list(own.parts.values())), strict=True
            ):
                part.grad = gradient
        optimiser.step()
    own.parts = kept
    return own


def missed(cascade: Cascade, states: torch.Tensor, look_ahead: int) -> torch.Tensor:
    """Return the mean square of what is missed of states (layer, row, feature), predicted 1 to so
    many layers ahead from every layer.
    """
    errors = [(said - states[k:]).square().flatten() for k, said in enumerate(cascade.ahead(states, look_ahead), 1)]
    return torch.cat(errors).mean()
