"""Runs a model from one of its blocks on, with something else put in there.

A forward pass is recorded once: what the first block was fed and what every block gave. To run it
again from block k on, blocks before k hand on what they gave then, block k gives what is put in its
place, and those after it run. Embeddings, masks, norms between blocks and heads are the model's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from probes.errors import InputError
from probes.models.blocks import depth_of, stacks_of
from probes.models.facts import body_of, name_of
from probes.models.parts import FAMILIES
from probes.states.running import removed, run_by

Call = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


@dataclass
class Trace:
    """What a forward pass leaves behind.

    Attributes:
        fed: what the first block was fed, (batch, token, feature).
        given: what every block gave, in the order in which they ran, as blocks give it.
        inside: what named modules gave, by the number of their block and their name in it.
        answer: what the model gave.
    """

    fed: torch.Tensor | None = None
    given: list[Any] = field(default_factory=list)
    inside: dict[tuple[int, str], torch.Tensor] = field(default_factory=dict)
    answer: Any = None

    def layer(self, number: int) -> torch.Tensor:
        """Return the states of a layer: 0 is what the first block was fed, l what block l gave."""
        found = self.fed if number == 0 else state_of(self.given[number - 1])
        assert found is not None
        return found


class _SameAsBefore(Exception):
    """A block gives what it gave before, so that all that follows is known."""


def blocks_of(model: Any) -> list[nn.Module]:
    """Return the blocks of a model, one a layer; of an encoder-decoder those of its encoder.

    Raises:
        InputError: there are none that the table of architectures knows, nor a list of as many
            modules as its configuration counts.

    Example:
        >>> import probes
        >>> len(blocks_of(probes.load_checkpoint("bundled")[0]))
        6
    """
    body = body_of(model)
    family = FAMILIES.get(model.config.model_type)
    if family is not None and (stacks := stacks_of(model, family)):
        found = stacks[0][1]
        depth = depth_of(model, family)  # of fewer blocks than layers each runs several times, in order
        return [found[layer * len(found) // depth] for layer in range(depth)]
    count = getattr(body.config, "num_hidden_layers", None)
    lists = [m for m in body.modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    if not lists:
        raise InputError(
            f"{name_of(model)}: the blocks of {type(model).__name__} ({model.config.model_type!r}) are not known. Give "
            f"a model of one of {', '.join(FAMILIES)}"
        )
    return list(lists[0])


def state_of(given: Any) -> torch.Tensor:
    """Return the states in what a block gives, alone or first of several."""
    return given[0] if isinstance(given, tuple | list) else given


def record(
    run: Callable[[], Any], blocks: Sequence[nn.Module], inside: Sequence[str] = (), *, keep: bool = True
) -> Trace:
    """Run a model and keep what its blocks, and some modules inside them, gave.

    Args:
        run: runs the model on a batch.
        blocks: as `blocks_of` gives them.
        inside: names of modules in a block.
        keep: copies are kept, which nothing that runs later can change; else the tensors
            themselves, as for gradients.
    """
    trace = Trace()
    kept: Callable[[torch.Tensor], torch.Tensor] = torch.clone if keep else lambda state: state

    def step(number: int, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if number == 0:
            trace.fed = kept(_fed(args, kwargs))
        given = own(*args, **kwargs)
        trace.given.append(_with_state(given, kept(state_of(given))))
        return given

    def watch(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: object, output: Any) -> None:
            trace.inside[len(trace.given), name] = kept(state_of(output))

        return hook

    modules = {(id(b), n): (b.get_submodule(n), n) for b in blocks for n in inside if has_module(b, n)}
    with removed(m.register_forward_hook(watch(n)) for m, n in modules.values()), _stepping(blocks, step):
        trace.answer = run()
    return trace


def has_module(block: nn.Module, name: str) -> bool:
    """Whether a block has a module of this name."""
    with suppress(AttributeError):
        return isinstance(block.get_submodule(name), nn.Module)
    return False


def with_states(
    run: Callable[[], Any], blocks: Sequence[nn.Module], trace: Trace, layer: int, states: torch.Tensor
) -> Any:
    """Return what a model gives with other states at a layer, 0 for what its first block is fed."""
    if torch.equal(states, trace.layer(layer)):
        return trace.answer
    if layer == 0:

        def fed(own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if args:
                return own(states, *args[1:], **kwargs)
            return own(**kwargs | {"hidden_states": states})

        return _resumed(run, blocks, trace, 0, fed)
    given = _with_state(trace.given[layer - 1], states)
    return _resumed(run, blocks, trace, layer - 1, lambda own, args, kwargs: given)


def with_block(run: Callable[[], Any], blocks: Sequence[nn.Module], trace: Trace, number: int, block: nn.Module) -> Any:
    """Return what a model gives with another block in the place of one of its own, from 0."""
    return _resumed(run, blocks, trace, number, lambda own, args, kwargs: block(*args, **kwargs))


def with_parts(
    run: Callable[[], Any], blocks: Sequence[nn.Module], trace: Trace, number: int, parts: Mapping[str, nn.Module]
) -> Any:
    """Return what a model gives with other modules in the place of some inside one of its blocks, by
    their names in it.
    """

    def call(own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with ExitStack() as stack:
            for name, part in parts.items():
                stack.enter_context(run_by(blocks[number].get_submodule(name), part))
            return own(*args, **kwargs)

    return _resumed(run, blocks, trace, number, call)


def with_module(
    run: Callable[[], Any],
    blocks: Sequence[nn.Module],
    trace: Trace,
    place: tuple[int, str],
    output: torch.Tensor,
) -> Any:
    """Return what a model gives where a module in a block gives something else."""
    number, name = place
    if torch.equal(output, trace.inside[place]):
        return trace.answer
    module = blocks[number].get_submodule(name)

    def instead(_module: nn.Module, _args: object, given: Any) -> Any:
        return _with_state(given, output)

    def call(own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with removed([module.register_forward_hook(instead)]):
            return own(*args, **kwargs)

    return _resumed(run, blocks, trace, number, call)


def _resumed(run: Callable[[], Any], blocks: Sequence[nn.Module], trace: Trace, number: int, call: Call) -> Any:
    def step(now: int, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if now < number:
            return trace.given[now]
        if now > number:
            return own(*args, **kwargs)
        given = call(own, args, kwargs)
        before = state_of(trace.given[now])
        if state_of(given).shape != before.shape:
            raise InputError(
                f"expected states of shape {tuple(before.shape)} from block {number + 1}, found "
                f"{tuple(state_of(given).shape)}. Patch between models of one width"
            )
        if torch.equal(state_of(given), before):
            raise _SameAsBefore
        return _with_state(trace.given[now], state_of(given))

    try:
        with _stepping(blocks, step):
            return run()
    except _SameAsBefore:
        return trace.answer


@contextmanager
def _stepping(
    blocks: Sequence[nn.Module],
    step: Callable[[int, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any],
) -> Iterator[None]:
    """Let every run of a block be made by `step`, which is told how many ran before: one block that
    stands for all layers runs as often as there are layers.
    """
    ran = 0

    def of(own: Callable[..., Any]) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            nonlocal ran
            ran += 1
            return step(ran - 1, own, args, kwargs)

        return forward

    with ExitStack() as stack:
        for block in {id(b): b for b in blocks}.values():
            stack.enter_context(run_by(block, of(block.forward)))
        yield


def _fed(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    state: torch.Tensor = args[0] if args else kwargs["hidden_states"]
    return state


def _with_state(given: Any, states: torch.Tensor) -> Any:
    """What a block gives, with other states in it."""
    if isinstance(given, tuple):
        return (states, *given[1:])
    return [states, *given[1:]] if isinstance(given, list) else states
