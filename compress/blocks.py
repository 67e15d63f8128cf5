"""Block by block: what the matrices of each are fed once those of the blocks before it are changed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from functools import partial
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from compress.experts import ExpertMatrix
from compress.inputs import run_of, say_unreached, walk
from compress.matrices import Matrix, block_of, transposed
from compress.moments import Moments
from probes.errors import InputError, LayerscopeWarning
from probes.models.facts import name_of
from probes.states.running import evaluating, removed, run_by

# Gets what the matrices of a block are fed, by name, and changes their weights.
Change = Callable[[Mapping[str, Moments]], None]
_Batch = Mapping[str, torch.Tensor]
_NEAR = 1e-5  # of the largest value: how near what a block is fed must come when those before it are skipped


class _Reached(Exception):
    """What was asked for has run; the rest of the model need not."""


def block_by_block(
    model: PreTrainedModel,
    matrices: Mapping[str, Matrix],
    batches: Sequence[_Batch],
    change: Change,
    *,
    so: str,
    progress: bool = True,
) -> None:
    """Change the matrices of a model block by block, each told what it is fed behind those changed
    before it.

    Of a block all matrices are measured before the first of them is changed. Held in memory are the
    moments of one block, and the states of the texts between two blocks; every block runs twice.
    Where a model does more between its blocks than to hand on what they give, or runs one of them
    several times, all of it runs for each block.

    Args:
        model: it is changed, by `change`.
        matrices: by name; they belong to the model.
        batches: of texts, as `compress.inputs.row_batches` gives them.
        change: gets the moments of the matrices of a block, by name.
        so: what follows for matrices that no text reaches, for the warning.
        progress: show a progress bar.

    Example:
        >>> import probes
        >>> from compress.matrices import matrices_of
        >>> from compress.rows import every_row
        >>> from compress.inputs import row_batches
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> corpus = probes.load_corpus("bundled", split="dev", languages=["en"])
        >>> batches = list(row_batches(every_row(corpus, model, tokenizer), tokenizer, model))
        >>> def change(moments):
        ...     print(*{m.products.shape for m in moments.values()})
        >>> chosen = matrices_of(model, only=r"layer\\.[01]\\.output")
        >>> block_by_block(model, chosen, batches, change, so="", progress=False)
        torch.Size([512, 512])
        torch.Size([512, 512])
    """
    groups: dict[str, list[str]] = {}
    for name in matrices:
        groups.setdefault(block_of(name) or "", []).append(name)
    across = transposed(model, matrices)
    modules: dict[str, nn.Module | ExpertMatrix] = {
        n: w if isinstance(w, ExpertMatrix) else model.get_submodule(n.rpartition(".")[0]) for n, w in matrices.items()
    }
    runs = _Runs(model, groups, batches)
    unreached: list[str] = []
    for block in tqdm(runs.order, desc="blocks", disable=not progress):
        found: dict[str, Moments] = {}
        runs.fill(block, {name: modules[name] for name in groups[block]}, found)
        for name in groups[block]:
            if name not in found:
                unreached.append(name)
                width = matrices[name].shape[0 if across[name] else 1]
                found[name] = Moments.none(width, matrices[name].device)
            found[name].check(name)
        change(found)
    say_unreached(model, unreached, so)


def check_tokens(model: PreTrainedModel, widths: Mapping[str, int], tokens: int, damping: float, given: str) -> None:
    """Say where there are fewer tokens than a matrix has inputs; raise `InputError` where nothing
    is added to their second moments, which then have no inverse.

    Args:
        model: whose matrices they are.
        widths: how many inputs each matrix has, by name.
        tokens: of the texts.
        damping: share of the mean square of inputs that is added.
        given: what the texts are called.
    """
    wide = [name for name, width in widths.items() if tokens < width]
    if not wide:
        return
    others = f" (and {len(wide) - 1} more)" if len(wide) > 1 else ""
    found = (
        f"{name_of(model)}: {given} has {tokens} tokens, fewer than the {widths[wide[0]]} inputs of {wide[0]}{others}"
    )
    if not damping:
        raise InputError(f"{found}, so that damping=0 leaves nothing to invert. Give more texts, or damping=0.01")
    warnings.warn(
        f"{found}: what is fitted rests on damping={damping}, the share of the mean square of inputs that is added to "
        "each, more than on the texts. Give more of them",
        LayerscopeWarning,
        stacklevel=4,
    )


class _Runs:
    """Runs of a model up to one block after the other, those before it skipped where they can be."""

    def __init__(self, model: PreTrainedModel, groups: Mapping[str, Any], batches: Sequence[_Batch]) -> None:
        """Find in which order blocks run, and try on the first batch whether they can be skipped."""
        self.model, self.batches, self.run = model, batches, run_of(model)
        self.kept: dict[str, list[Any]] = {}  # of each list of blocks what its last one gave, batch by batch
        self.number = 0
        names = dict(model.named_modules())
        # All blocks of a list, not only those that have something to change: what is fed to a block is made by them.
        lists = {_stack(block) for block in groups}
        every = [name for name in names if _stack(name) in lists and isinstance(names[_stack(name)], nn.ModuleList)]
        self.blocks = {name: names[name] for name in every}
        self.order, self.skips = list(groups), False
        calls, outputs, given = self._scan()
        if len(calls) == len(set(calls)) and set(groups) <= set(calls):
            self.all = calls
            self.order = [name for name in calls if name in groups]
            last = calls[-1]
            stacks = {_stack(name): outputs[name] for name in calls[:-1]}
            found = self._given(last, {n: stacks[_stack(n)] for n in calls[:-1]})
            self.skips = _alike(found, given[last])

    def fill(self, block: str, modules: Mapping[str, Any], found: dict[str, Moments]) -> None:
        """Run up to a block, and put what its modules are fed into `found`."""
        last: dict[str, Any] = {"x": None, "moments": None}

        def see(name: str, x: torch.Tensor) -> None:
            # What several read, as query, key and value do, is multiplied once.
            if last["x"] is None or x.shape != last["x"].shape or not torch.equal(x, last["x"]):
                last["x"], last["moments"] = x, Moments.of(x)
            found.setdefault(name, Moments.none(1)).add(last["moments"])

        if not self.skips:
            walk(self.model, self.run, modules, self.batches, see, device=self.model.device)
            return
        at = self.all.index(block)
        done = self.all.index(self.order[self.order.index(block) - 1]) if block != self.order[0] else 0
        # Blocks before `done` gave what is kept; those from it to this one run, and what they give is kept.
        with ExitStack() as stack:
            for name in self.all[:done]:
                stack.enter_context(_gives(self.blocks[name], partial(self._kept, _stack(name))))
            stack.enter_context(removed([self._keeps(name) for name in self.all[done:at]]))
            stack.enter_context(removed([self.blocks[block].register_forward_hook(_stop)]))
            walk(self.model, self._until_reached, modules, self._numbered(), see, device=self.model.device)

    def _kept(self, stack: str) -> Any:
        return self.kept[stack][self.number]

    def _numbered(self) -> Iterator[_Batch]:
        for number, batch in enumerate(self.batches):
            self.number = number
            yield batch

    def _until_reached(self, **batch: torch.Tensor) -> None:
        with suppress(_Reached):
            self.run(**batch)

    def _keeps(self, name: str) -> Any:
        def hook(_module: nn.Module, _given: Any, output: Any) -> None:
            self.kept.setdefault(_stack(name), [None] * len(self.batches))[self.number] = output

        return self.blocks[name].register_forward_hook(hook)

    def _scan(self) -> tuple[list[str], dict[str, Any], dict[str, Any]]:
        """Which blocks run on the first batch, in their order, what they give and what they get."""
        calls: list[str] = []
        outputs: dict[str, Any] = {}
        given: dict[str, Any] = {}

        def hook_of(name: str) -> Callable[..., None]:
            def hook(_module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
                calls.append(name)
                outputs[name], given[name] = output, (args, kwargs)

            return hook

        hooks = [m.register_forward_hook(hook_of(name), with_kwargs=True) for name, m in self.blocks.items()]
        with evaluating(self.model, self.model.device), torch.inference_mode(), removed(hooks):
            self.run(**self.batches[0])
        return calls, outputs, given

    def _given(self, name: str, outputs: Mapping[str, Any]) -> Any:
        """What a block gets on the first batch where others give what is said."""
        found: list[Any] = []

        def hook(_module: nn.Module, args: Any, kwargs: Any) -> None:
            found.append((args, kwargs))
            raise _Reached

        with ExitStack() as stack:
            for other, output in outputs.items():
                stack.enter_context(_gives(self.blocks[other], partial(_same, output)))
            stack.enter_context(removed([self.blocks[name].register_forward_pre_hook(hook, with_kwargs=True)]))
            stack.enter_context(evaluating(self.model, self.model.device))
            stack.enter_context(torch.inference_mode())
            self._until_reached(**self.batches[0])
        return found[0]


def _stack(block: str) -> str:
    return block.rpartition(".")[0]


def _same(output: Any) -> Any:
    return output


def _stop(*_: Any) -> None:
    raise _Reached


def _gives(module: nn.Module, output: Callable[[], Any]) -> AbstractContextManager[None]:
    """Let a module give something without running."""
    return run_by(module, lambda *_, **__: output())


def _alike(one: Any, other: Any) -> bool:
    """Whether what is given to a block is the same but for rounding."""
    pairs = list(zip(_numbers(one), _numbers(other), strict=False))
    return len(_numbers(one)) == len(_numbers(other)) and all(
        a.shape == b.shape and bool(((a - b).abs() <= _NEAR * b.abs().max()).all()) for a, b in pairs
    )


def _numbers(given: Any) -> list[torch.Tensor]:
    """The tensors of floating point in arguments, also in tuples of them."""
    if isinstance(given, torch.Tensor):
        return [given] if given.is_floating_point() else []
    if isinstance(given, Mapping):
        given = list(given.values())
    return [x for part in given for x in _numbers(part)] if isinstance(given, list | tuple) else []
