"""What a denoiser makes of noise, how far that is from data, and what its layers hold on the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr

from compress.distillation.denoisers import Data, Guided, check_denoiser, labels_of, numbers_of, rows_of
from compress.distillation.diffusion import distilled
from compress.objectives.base import is_number, is_whole
from compress.objectives.diffusion import SAMPLERS, noised, noised_further, stepped
from probes.errors import InputError, check_choice
from probes.states.modules import capture_modules
from probes.states.running import device_of, evaluating


def sample_diffusion(
    denoiser: torch.nn.Module,
    noise: npt.ArrayLike,
    label: npt.ArrayLike,
    *,
    steps: int | None = None,
    guidance: float = 0.0,
    sampler: str | None = None,
    seed: int = 0,
    batch_size: int = 1024,
    device: str | torch.device | None = None,
) -> np.ndarray:
    """Make samples of some classes out of noise.

    Args:
        denoiser: as of `Denoiser`: one that `distill_diffusion` gave
            runs once a step; any other twice, where there is guidance.
        noise: (row, ...), of variance 1, of the shape of what the denoiser was trained on. The same
            noise makes the same samples, by the deterministic sampler.
        label: (row,), of which class each is to be; the number of classes for none.
        steps: of the sampler; by default as many as the denoiser was distilled to.
        guidance: the weight: 0 for what the denoiser says of the class; above, samples are more
            typical of it and less various.
        sampler: "deterministic", or "stochastic", which goes twice as far in each step and half of
            it back by new noise; by default what the denoiser was distilled for, else
            "deterministic".
        seed: of the stochastic sampler's noise.
        batch_size: rows that are run at once.
        device: by default CUDA, MPS or the CPU, the first there is.

    Returns:
        (row, ...) in float32, as of the noise.

    Raises:
        InputError: a label is out of range; the steps, the weight or the sampler are not those that
            the denoiser was distilled for; none are given, and it was not distilled; the shape of
            the noise is not one that it takes.

    Notes:
        The deterministic sampler is that of Song, Meng and Ermon 2020, arXiv 2010.02502, from level
        i / steps to the next lower one; the stochastic one that of Meng et al. 2022, arXiv
        2210.03142. Neither cuts x off where data end.

    See also:
        `distill_diffusion`, `frechet_distance`

    Example:
        >>> class Still(torch.nn.Module):  # takes all there is for noise
        ...     classes = 1
        ...
        ...     def forward(self, x, level, label, guidance):
        ...         return x / (torch.pi / 2 * level[:, None]).sin()
        >>> sample_diffusion(Still(), [[2.0], [3.0]], [0, 0], steps=1).round(4).tolist()
        [[-2.0], [-3.0]]
    """
    classes = check_denoiser(denoiser)
    z, about = numbers_of(noise, "noise"), distilled(denoiser)
    labels = labels_of(label, len(z), classes, none=True)
    steps, sampler = _as_distilled(denoiser, about, steps, guidance, sampler)
    check_denoiser(denoiser, z)
    where = device_of(device)
    run = denoiser if about is not None or guidance == 0 else Guided(denoiser)
    draws, out = np.random.default_rng(seed), []
    with evaluating(denoiser, where), torch.inference_mode():
        for begin in range(0, len(z), batch_size):
            x, of = (values[begin : begin + batch_size].to(where) for values in (z, labels))
            weight = torch.full((len(x),), float(guidance), device=where)
            for i in range(steps, 0, -1):
                level, next_one, far = (
                    torch.full((len(x),), j / steps, device=where) for j in (i, i - 1, max(i - 2, 0))
                )
                velocity = run(x, level, of, weight)
                if sampler == "deterministic" or i == 1:
                    x = stepped(x, velocity, level, next_one)
                    continue
                new = torch.from_numpy(draws.standard_normal(x.shape)).to(x)
                x = noised_further(stepped(x, velocity, level, far), new, far, next_one)
            out.append(x.float().cpu().numpy())
    return np.concatenate(out)


def _as_distilled(
    denoiser: torch.nn.Module, about: Any, steps: int | None, guidance: float, sampler: str | None
) -> tuple[int, str]:
    """Return steps and sampler; raise where they or the weight are not what a denoiser learned."""
    name = type(denoiser).__name__
    if not is_number(guidance) or guidance < 0:
        raise InputError(f"guidance={guidance!r}: expected a weight of at least 0")
    if sampler is not None:
        check_choice("sampler", sampler, SAMPLERS)
    if about is not None:
        low, high = about["guidance"]
        if not low <= guidance <= high:
            raise InputError(f"guidance={guidance!r}: {name} was distilled for weights of {low:g} to {high:g}")
        halved = len(about["steps"]) > 1 or "before" in about
        if halved and steps not in (None, about["steps"][-1]):
            raise InputError(f"steps={steps!r}: {name} was distilled to take {about['steps'][-1]} steps")
        if sampler is not None and about["sampler"] not in (None, sampler):
            raise InputError(f"sampler={sampler!r}: {name} was distilled for the {about['sampler']} one")
        steps, sampler = about["steps"][-1] if steps is None else steps, about["sampler"] or sampler
    if steps is None:
        raise InputError(f"{name} was not distilled to a number of steps: give steps=..., as 64")
    if not is_whole(steps) or steps < 1:
        raise InputError(f"steps={steps!r}: expected a whole number of at least 1")
    return steps, sampler or SAMPLERS[0]


def frechet_distance(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Return the squared Frechet distance of two sets of vectors, each taken for a normal
    distribution: 0 where mean and covariance are the same, else above; lower is nearer.

    Args:
        x, y: (row, feature), at least two rows each: as what a classifier computes of samples and of
            data before its last layer.

    Raises:
        InputError: they are no two such sets of one width, or hold what is not finite.

    Notes:
        Heusel et al. 2017, arXiv 1706.08500: the squared distance of the means plus the trace of
        A + B - 2 (A B)^(1/2), of covariances by n - 1. Few rows make it larger: hold it against that
        of two halves of the data, of as many rows.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(500, 3))
        >>> round(frechet_distance(x, x + 2), 6)  # 3 * 2 ** 2
        12.0
    """
    a, b = (np.asarray(values, np.float64) for values in (x, y))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1:] != b.shape[1:] or min(len(a), len(b)) < 2 or not a.shape[1]:
        raise InputError(
            f"expected two sets of vectors of one width, (row, feature), of at least two rows each; found {a.shape} "
            f"and {b.shape}"
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InputError("expected vectors of finite numbers; found NaN or infinite ones")
    first, second = (np.atleast_2d(np.cov(values.T)) for values in (a, b))
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    both = np.sqrt(np.linalg.eigvalsh(root @ second @ root).clip(0)).sum()
    means = ((a.mean(0) - b.mean(0)) ** 2).sum()
    return float(max(means + np.trace(first) + np.trace(second) - 2 * both, 0.0))


def capture_denoiser(
    denoiser: torch.nn.Module,
    data: Data,
    *,
    modules: Sequence[str],
    levels: Sequence[float] = (0.25, 0.5, 0.75, 1.0),
    guidance: float = 0.0,
    seed: int = 0,
    features: int = 1,
    batch_size: int = 1024,
    device: str | torch.device | None = None,
    name: str | None = None,
) -> xr.Dataset:
    """Capture what named modules of a denoiser hold of data with noise, level by level.

    Args:
        denoiser: as of `Denoiser`.
        data: x (row, ...) and label (row,).
        modules: names from `denoiser.named_modules()`; they become layers 0, 1, ...
        levels: of noise, each above 0 and at most 1, to two decimals; of what was distilled those at
            which it samples.
        guidance: the weight; of a denoiser that was not distilled 0 alone, as it then runs once.
        seed: of the noise, the same for every level and every denoiser.
        features, batch_size, device, name: as of `probes.capture_modules`.

    Returns:
        Representations: an example a row and level. The level takes the place of the language, as
        "noise 0.10", so that every probe by language is one by level, and the row is the id: the
        levels of one row belong together as translations do.

    Raises:
        InputError: what `probes.capture_modules` raises; a level or label is out of range; the weight
            is not one that the denoiser was distilled for.

    See also:
        `probes.capture_modules`, `probes.similarity`

    Example:
        >>> class Least(torch.nn.Linear):
        ...     classes = 2
        ...
        ...     def __init__(self):
        ...         super().__init__(4, 4)
        ...         self.inner = torch.nn.Linear(4, 4)
        ...
        ...     def forward(self, x, level, label, guidance):
        ...         return super().forward(self.inner(x))
        >>> reps = capture_denoiser(Least(), (np.eye(4), [0, 0, 1, 1]), modules=["inner"], levels=[0.2, 0.8])
        >>> dict(reps.sizes), sorted(set(reps["language"].values))
        ({'layer': 1, 'example': 8, 'feature': 4}, ['noise 0.20', 'noise 0.80'])
    """
    classes = check_denoiser(denoiser)
    x, label = rows_of(data, classes)
    about = distilled(denoiser)
    if about is None and guidance != 0:
        raise InputError(
            f"guidance={guidance!r}: {type(denoiser).__name__} was not distilled, and runs twice for that: capture it "
            "at 0, or what distill_diffusion(..., steps=[64]) makes of it"
        )
    if about is not None:
        _as_distilled(denoiser, about, None, guidance, None)
    named = [f"noise {level:.2f}" if is_number(level) and 0 < level <= 1 else None for level in levels]
    if not named or None in named or len(set(named)) < len(named):
        raise InputError(
            f"levels={list(levels)!r}: expected levels of noise above 0 and at most 1, no two alike to two decimals"
        )
    check_denoiser(denoiser, x)
    noise = torch.from_numpy(np.random.default_rng(seed).standard_normal(x.shape)).to(x)
    each = [torch.full((len(x),), float(level)) for level in levels]
    inputs = {
        "x": torch.cat([noised(x, level, noise) for level in each]),
        "level": torch.cat(each),
        "label": label.repeat(len(each)),
        "guidance": torch.full((len(x) * len(each),), float(guidance)),
    }
    reps = capture_modules(
        denoiser,
        inputs,
        modules,
        id=np.tile(np.arange(len(x)), len(each)),
        language=np.repeat(np.asarray(named, dtype=str), len(x)),
        label=inputs["label"],
        features=features,
        batch_size=batch_size,
        device=device,
        name=name,
    )
    return reps.assign_attrs(languages_are="noise level")
