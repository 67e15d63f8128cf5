"""What each layer of a decoder would say already: its states, through what follows the last block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from probes.errors import InputError
from probes.models.facts import body_of
from probes.states.by_token import NO_TOKEN, Planned, after_output, alike, next_of, rows_at_once
from probes.states.distributions import Shares, likeliest
from probes.states.running import evaluating, removed

# From states of a layer (token, feature), by its number, to states as the last block gives them.
Translate = Callable[[int, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Layers:
    """The states of some tokens at all layers, and what makes logits of them."""

    states: list[torch.Tensor]  # (token, feature) a layer, the embeddings first; the last is what the last block gives
    fed: torch.Tensor  # (token, feature) what the output layer is fed
    finish: Callable[[torch.Tensor], torch.Tensor]  # from what the last block gives to what the output layer is fed
    said: Callable[[torch.Tensor], torch.Tensor]  # from that to logits

    @cached_property
    def vocabulary(self) -> int:
        """How many tokens have a logit."""
        return int(self.said(self.fed[:1]).shape[-1])

    def of(self, part: slice) -> torch.Tensor:
        """Return the logits of the output of a part of the tokens (token, vocabulary), in float32."""
        return self.logits(len(self.states) - 1, part)

    def logits(self, layer: int, rows: slice | torch.Tensor, translate: Translate | None = None) -> torch.Tensor:
        """Return the logits of some tokens at a layer (token, vocabulary), in float32."""
        if layer == len(self.states) - 1:
            return self.said(self.fed[rows]).float()
        states = self.states[layer][rows]
        return self.said(self.finish(states if translate is None else translate(layer, states))).float()


@contextmanager
def at_layers(model: Any, plan: Planned, who: str) -> Iterator[Callable[[dict[str, torch.Tensor], Any], Layers]]:
    """Give a function from inputs and places (batch, token) to the `Layers` of the tokens there.

    Raises:
        InputError: the model has no list of blocks, or what it does between the last one and its
            logits is not a chain of modules and what its configuration says: seen on the shortest text.
    """
    head = model.get_output_embeddings()
    block = _last_block(model, who)
    first = plan.batches.tensors(np.array([int(plan.batches.tokens.lengths.argmin())]), "mean", plan.device)[0]
    kept: dict[str, torch.Tensor] = {}

    def given(_module: Any, _args: Any, output: Any) -> None:
        kept["given"] = _tensor(output)

    def fed(_module: Any, args: Any) -> None:
        kept["fed"] = args[0]

    with evaluating(model, plan.device), torch.no_grad():
        chain = _chain(model, block, head, first)
    after = after_output(model)

    def finish(states: torch.Tensor) -> torch.Tensor:
        for module in chain or ():
            states = _tensor(module(states))
        return states

    def run(inputs: dict[str, torch.Tensor], there: torch.Tensor) -> Layers:
        with removed([block.register_forward_hook(given), head.register_forward_pre_hook(fed)]):
            out = model(**inputs, output_hidden_states=True, use_cache=False)
        states = [h[there] for h in out.hidden_states[:-1]]
        width = kept["fed"].shape[-1]
        fed_there = kept["fed"].reshape(*there.shape, width)[there]
        last = kept["given"].reshape(*there.shape, -1)[there]
        return Layers([*states, last], fed_there, finish, lambda x: after(head(x)))

    with ExitStack() as stack, torch.no_grad():
        stack.enter_context(evaluating(model, plan.device))
        there = first["attention_mask"].bool()
        same = chain is not None
        if same:
            found = run(first, there)
            logits = model(**first, use_cache=False).logits[there].float()
            ends = found.said(found.fed).float(), found.said(finish(found.states[-1])).float()
            same = all(alike(x, logits) for x in ends)
        if not same:
            raise InputError(
                f"{who}: what {type(model).__name__} does between its last block and its logits is not known, so that "
                "its other layers cannot be read by it. Give a decoder whose blocks are followed by norms and maps "
                "alone"
            )
        yield run


def _last_block(model: Any, who: str) -> torch.nn.Module:
    body = body_of(model)
    count = getattr(body.config.get_text_config(), "num_hidden_layers", None)
    lists = (m for m in body.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == count)
    found = next(lists, None)
    if found is None:
        raise InputError(
            f"{who}: {type(model).__name__} has no list of {count} blocks, so that its layers cannot be read: expected "
            "a decoder with a block for each layer"
        )
    return found[-1]


def _chain(
    model: Any, block: torch.nn.Module, head: torch.nn.Module, inputs: dict[str, torch.Tensor]
) -> list[torch.nn.Module] | None:
    """The modules between what the last block gives and what the output layer is fed, each fed by the one before."""
    holding = {m for m in model.modules() if any(part is head for part in m.modules())}
    chain: list[torch.nn.Module] = []
    now: dict[str, Any] = {"states": None, "open": None, "ends": False}

    def enter(module: torch.nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        states = args[0] if args else kwargs.get("hidden_states")
        if now["open"] is None and _same(states, now["states"]):
            now["open"] = module

    def leave(module: torch.nn.Module, _args: Any, output: Any) -> None:
        if module is block:
            now["states"], now["open"] = _tensor(output), None
            chain.clear()
        elif module is now["open"]:
            now["states"], now["open"] = _tensor(output), None
            chain.append(module)

    def end(_module: torch.nn.Module, args: Any) -> None:
        now["ends"] = _same(args[0], now["states"])

    inside = {*head.modules()}  # what a head is made of may be fed what it is fed
    outside = [m for m in model.modules() if m not in holding | inside]
    hooks = [m.register_forward_pre_hook(enter, with_kwargs=True) for m in outside]
    hooks += [m.register_forward_hook(leave) for m in outside]
    with removed([*hooks, head.register_forward_pre_hook(end)]):
        model(**inputs, use_cache=False)
    return chain if now["ends"] else None


def _same(one: Any, other: Any) -> bool:
    """Whether two are the same numbers at one place of memory, as a view is."""
    both = isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)
    return both and one.data_ptr() == other.data_ptr() and one.numel() == other.numel()


def _tensor(output: Any) -> torch.Tensor:
    return output[0] if isinstance(output, tuple | list) else output


def batches_of_layers(
    model: PreTrainedModel, plan: Planned, who: str, rows: np.ndarray
) -> Iterator[tuple[np.ndarray, torch.Tensor, Layers]]:
    """Yield for each batch of some texts: the row of each token that is predicted, which it is, and its `Layers`."""
    wanted = np.zeros(len(plan.batches.tokens.lengths), bool)
    wanted[rows] = True
    with at_layers(model, plan, who) as run:
        for batch in plan.batches.over(0, len(wanted)):
            some = batch[wanted[batch]]
            if not len(some):
                continue
            inputs = plan.batches.tensors(some, "mean", plan.device)[0]
            targets = next_of(inputs)
            there = targets != NO_TOKEN
            yield some[there.nonzero()[:, 0].cpu().numpy()], targets[there], run(inputs, there)


def said_at(
    layers: Layers, targets: torch.Tensor, translate: Translate | None = None
) -> Iterator[tuple[slice, list[dict[str, torch.Tensor]]]]:
    """Yield for some tokens at a time what every layer says of them: `kl` from the output, `p` of the right token, the
    log of its `rank` (0 for the likeliest), and the likeliest, `top`.
    """
    step = rows_at_once(layers.vocabulary)
    last = len(layers.states) - 1
    for start in range(0, len(targets), step):
        rows = slice(start, start + step)
        wanted, output = targets[rows], Shares.of(layers.logits(last, rows))
        found = []
        for layer in range(last + 1):
            one = output if layer == last else Shares.of(layers.logits(layer, rows, translate))
            rank = 1 + (one.logits > one.logits.gather(1, wanted[:, None])).sum(-1)
            found.append(
                {
                    "kl": output.to(one),
                    "p": (-one.nats(wanted)).exp(),
                    "rank": rank.double().log(),
                    "top": likeliest(one.logits),
                }
            )
        yield rows, found


# --- translators -----------------------------------------------------------------------------------------------------

_TOKENS, _STEPS, _BATCH, _RATE, _HELD_OUT = 4096, 40, 256, 1e-3, 5


@dataclass(frozen=True)
class Translators:
    """An affine map a layer, from its states to those that the last block gives, and what it was worth."""

    weights: list[torch.Tensor]  # (feature, feature) a layer but the last; states are rows
    biases: list[torch.Tensor]  # (feature,)
    held_out: list[tuple[float, float]]  # nats of KL from the output on held-out texts: as it is, and translated

    def __call__(self, layer: int, states: torch.Tensor) -> torch.Tensor:
        """Return states (token, feature) of a layer as those of the last block."""
        return states @ self.weights[layer] + self.biases[layer]


def fitted(
    model: PreTrainedModel, plan: Planned, who: str, rows: np.ndarray, names: np.ndarray, seed: int
) -> Translators:
    """Fit an affine translator for every layer but the last on some texts.

    A closed-form start (ridge regression of the last block's states on those of the layer), and a
    few steps on the divergence from the output; of the layer as it is, the start and the end that
    is kept which is nearest to the output on a fifth of the texts, which is not fitted on.

    Args:
        model, plan, who: as `at_layers` takes them.
        rows: of the texts to fit on; of many so many as hold 4,096 tokens.
        names: a number for the name of each text of the corpus, so that its order changes nothing.
        seed: which texts these are, and the order of the steps.

    Raises:
        InputError: fewer than ten texts to fit on.
    """
    rows = rows[np.argsort(names[rows], kind="stable")]
    rows = np.random.default_rng(seed).permutation(rows)
    ends = np.cumsum(plan.batches.tokens.lengths[rows] - 1)
    rows = rows[: max(int(np.searchsorted(ends, _TOKENS)), 10)]
    if len(rows) < 10:
        raise InputError(f"{who}: {len(rows)} texts to fit translators on: expected at least 10, as of a split 'train'")
    apart = set(rows[::_HELD_OUT].tolist())
    found: list[list[torch.Tensor]] = []
    fed, held, named = [], [], []
    last: Layers | None = None
    with torch.no_grad():
        for of_row, _, layers in batches_of_layers(model, plan, who, np.sort(rows)):
            found.append(layers.states)
            fed.append(layers.fed)
            held.append(torch.tensor([row in apart for row in of_row]))
            named.append(names[of_row])
            last = layers
    assert last is not None
    order = torch.from_numpy(np.argsort(np.concatenate(named), kind="stable"))
    states = [torch.cat(parts)[order].float() for parts in zip(*found, strict=True)]
    whole = Layers(states, torch.cat(fed)[order], last.finish, last.said)
    out = torch.cat(held)[order].to(plan.device)
    weights, biases, losses = [], [], []
    generator = torch.Generator().manual_seed(seed)
    for layer in range(len(states) - 1):
        start = _ridge(states[layer][~out], states[-1][~out])
        as_it_is = torch.eye(len(start[0]), device=plan.device), torch.zeros_like(start[1])
        nearest = min(as_it_is, start, key=lambda pair: _divergence(whole, layer, pair, out))
        known = [as_it_is, start, _steps(whole, layer, nearest, ~out, generator)]
        each = [_divergence(whole, layer, pair, out) for pair in known]
        best = int(np.argmin(each))
        weights.append(known[best][0])
        biases.append(known[best][1])
        losses.append((each[0], each[best]))
    return Translators(weights, biases, losses)


def _ridge(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The affine map from x to y, drawn to the identity a little; in float64."""
    x, change = x.double(), y.double() - x.double()
    middle = x.mean(0)
    square = (x - middle).T @ (x - middle)
    square.diagonal().add_(0.01 * square.diagonal().mean() + 1e-12)
    moved = torch.linalg.solve(square, (x - middle).T @ (change - change.mean(0)))
    bias = change.mean(0) - middle @ moved
    return (moved + torch.eye(len(moved), device=x.device)).float(), bias.float()


def _steps(
    whole: Layers,
    layer: int,
    start: tuple[torch.Tensor, torch.Tensor],
    there: torch.Tensor,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A few steps of Adam on the divergence of a layer from the output."""
    weight, bias = (x.clone().requires_grad_() for x in start)
    optimiser = torch.optim.Adam([weight, bias], lr=_RATE)
    tokens = there.nonzero()[:, 0].cpu()
    for _ in range(_STEPS):
        some = tokens[torch.randint(len(tokens), (min(_BATCH, len(tokens)),), generator=generator)]
        with torch.no_grad():
            target = F.log_softmax(whole.said(whole.fed[some]).float(), -1)
        with torch.enable_grad():
            said = whole.said(whole.finish(whole.states[layer][some] @ weight + bias)).float()
            loss = F.kl_div(F.log_softmax(said, -1), target, log_target=True, reduction="batchmean")
            weight.grad, bias.grad = torch.autograd.grad(loss, [weight, bias])
        optimiser.step()
    return weight.detach(), bias.detach()


@torch.no_grad()
def _divergence(whole: Layers, layer: int, pair: tuple[torch.Tensor, torch.Tensor], there: torch.Tensor) -> float:
    """Mean KL of a translated layer from the output, over some tokens."""
    tokens, total = there.nonzero()[:, 0], 0.0
    step = rows_at_once(whole.vocabulary)
    for start in range(0, len(tokens), step):
        some = tokens[start : start + step]
        translated = whole.states[layer][some] @ pair[0] + pair[1]
        one, two = (Shares.of(whole.said(x).float()) for x in (whole.fed[some], whole.finish(translated)))
        total += float(one.to(two).sum())
    return total / max(len(tokens), 1)
