"""Patching to first order: all modules at once, from one backward pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from probes.errors import InputError
from probes.measures.attribution.output_damage import OutputDamage
from probes.measures.attribution.places import Place
from probes.models.facts import name_of
from probes.states.resumed import Trace, blocks_of, record
from probes.states.running import evaluating, removed

CHECKED, _TEXTS = 8, 8  # modules whose exact effect is measured, on so many texts


def screened(
    output: OutputDamage, other: PreTrainedModel, places: list[Place], progress: bool
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the damage of every text (text, 1 + place) as it is, and as a straight line says that it
    would be with the original's output of each module; and how far that is right.

    Along the difference of a module's outputs the damage falls at first as its gradient says:
    grad . (original's - own). One pass of each model and one backward pass, which takes about as much
    as one more, tell that for all modules; what is checked takes four passes over eight texts.

    Args:
        output: the damage, of which the first measure is taken: the others have no gradient.
        other: the compressed model.
        places: modules, of `places_of`.
        progress: show a progress bar.

    Returns:
        The damages by measure, and attributes: `estimate`, `correlation` of what goes away with the
        exact effect (NaN of fewer than two modules), over `checked` modules in `checked_texts`.

    Raises:
        InputError: nothing in the model has a gradient, as where integers are multiplied.

    Notes:
        Attribution patching: Syed, Rager and Conmy 2023, arXiv 2310.10348. The damage is curved, and
        zero at the original, so that a straight line often says more than goes away: it ranks.
    """
    measure = output.measures[0]
    found = np.full((len(output.corpus), 1 + len(places)), np.nan)
    exact = found.copy()
    inside = sorted({p.name for p in places})
    some, texts = _spread(len(places), CHECKED), _spread(len(found), _TEXTS)
    blocks = blocks_of(other)
    bar = tqdm(total=len(found), desc="screening", unit="text", disable=not progress)
    with bar, evaluating(output.base, output.where), evaluating(other, output.where), torch.enable_grad():
        for rows, inputs, weights in output.batches():
            with torch.no_grad():
                one = record(partial(output.answer, output.base, inputs, weights), blocks_of(output.base), inside)
            with removed([blocks[0].register_forward_pre_hook(_followed, with_kwargs=True)]):
                two = record(partial(output.answer, other, inputs, weights), blocks, inside, keep=False)
            damage = output.differences(one.answer, two.answer, inputs, rows)[measure]
            at = [(place.layer - 1, place.name) for place in places]
            grads = _gradients(damage, [two.inside[key] for key in at], other)
            found[rows, 0] = damage.detach().double().cpu().numpy()
            for number, (key, grad) in enumerate(zip(at, grads, strict=True)):
                moved = (grad.double() * (one.inside[key] - two.inside[key].detach()).double()).flatten(1).sum(1)
                found[rows, 1 + number] = found[rows, 0] + moved.cpu().numpy()
            exact[rows, 0] = found[rows, 0]
            chosen = np.flatnonzero(np.isin(rows, texts))
            if len(chosen):
                parts = [_of_some(given, chosen, len(rows)) for given in (inputs, weights, one, two)]
                _measure(output, other, [(i, places[i]) for i in some], rows[chosen], parts, exact)
            bar.update(len(rows))
    about = _agreement(exact[texts], found[texts], some)
    return {measure: found}, {"estimate": "first order"} | about


def _spread(count: int, most: int) -> np.ndarray:
    """At most so many numbers below `count`, at even distances."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int))


@torch.no_grad()
def _measure(
    output: OutputDamage,
    other: PreTrainedModel,
    places: list[tuple[int, Place]],
    rows: np.ndarray,
    parts: list[Any],
    exact: np.ndarray,
) -> None:
    """Write the exact damage of some texts with modules of the original, one at a time."""
    inputs, weights, one, two = parts
    for number, place in places:
        answer = place.run(partial(output.answer, other, inputs, weights), two, one)
        values = output.differences(one.answer, answer, inputs, rows)[output.measures[0]]
        exact[rows, 1 + number] = values.double().cpu().numpy()


def _of_some(given: Any, chosen: np.ndarray, texts: int) -> Any:
    """What is of some texts of a batch, in whatever holds it."""
    own = partial(_of_some, chosen=chosen, texts=texts)
    if isinstance(given, torch.Tensor):
        return given.detach()[chosen] if given.ndim and len(given) == texts else given
    if isinstance(given, Trace):
        return Trace(own(given.fed), own(given.given), own(given.inside), own(given.answer))
    if isinstance(given, tuple | list):
        return type(given)(own(one) for one in given)
    return {key: own(one) for key, one in given.items()} if isinstance(given, dict) else given


def _followed(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Let gradients begin at what the first block is fed, whether or not weights have any."""
    own: Callable[[torch.Tensor], torch.Tensor] = lambda x: x if x.requires_grad else x.detach().requires_grad_()  # noqa: E731
    if args:
        return (own(args[0]), *args[1:]), kwargs
    return args, kwargs | {"hidden_states": own(kwargs["hidden_states"])}


def _gradients(damage: torch.Tensor, outputs: list[torch.Tensor], model: PreTrainedModel) -> list[torch.Tensor]:
    try:
        return list(torch.autograd.grad(damage.sum(), outputs))
    except RuntimeError as error:
        raise InputError(
            f"{name_of(model)!r}: what a module gives has no gradient ({str(error).splitlines()[0]}), as where "
            "integers are multiplied. Patch with exact=True"
        ) from error


def _agreement(exact: np.ndarray, found: np.ndarray, some: np.ndarray) -> dict[str, Any]:
    """How far estimates are right: against the exact effect of some modules, on a few texts."""
    columns = [0, *(1 + some)]
    rows = np.isfinite(exact[:, columns]).all(axis=1)
    gains = [(of[rows, :1] - of[rows][:, 1 + some]).mean(axis=0) for of in (exact, found)]
    known = len(some) > 1 and rows.any() and all(np.ptp(gain) > 0 for gain in gains)
    return {
        "correlation": float(np.corrcoef(*gains)[0, 1]) if known else float("nan"),
        "checked": len(some),
        "checked_texts": int(rows.sum()),
    }
