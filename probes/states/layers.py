"""Which states are taken from a forward pass: those of every layer, or what named modules give."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from transformers import PreTrainedModel

from probes.errors import InputError, check_choice
from probes.models.facts import body_of, encoder_of, kept_head
from probes.models.formats.onnx_model import OnnxModel
from probes.states.predictions import KEPT
from probes.states.running import last_token_map, last_tokens, removed

# The states of every layer (batch, token, feature), and what the head gives for every text.
States = Callable[
    [Callable[..., object], dict[str, torch.Tensor]], tuple[Sequence[torch.Tensor], dict[str, torch.Tensor]]
]


def check_part(model: torch.nn.Module, part: str, name: str) -> None:
    """Raise `InputError` where a model has no such part of its own."""
    check_choice("part", part, ("encoder", "decoder"))
    if part == "decoder" and not (isinstance(model, PreTrainedModel) and model.config.is_encoder_decoder):
        raise InputError(
            f"{name}: part='decoder' is of an encoder-decoder, and {type(model).__name__} is none. Leave part= out: "
            "its layers are captured as they are"
        )


def modules_named(model: torch.nn.Module, modules: Sequence[str], name: str) -> list[torch.nn.Module]:
    """Return modules of a model by their names; raise where there are none of them."""
    known = dict(model.named_modules())
    unknown = [m for m in modules if m not in known]
    if unknown or not modules:
        raise InputError(
            f"{name}: no module named {', '.join(map(repr, unknown)) or '(none given)'}; "
            f"it has {', '.join(list(known)[1:8])}, ... (all of them: model.named_modules())"
        )
    return [known[m] for m in modules]


def runner_of(
    model: torch.nn.Module, modules: Sequence[str] | None, name: str, part: str = "encoder"
) -> tuple[Callable[..., object], AbstractContextManager[States]]:
    """Return what to call with the inputs, and a context that gives the function that calls it and
    collects states.
    """
    if isinstance(model, OnnxModel):
        if modules is not None:
            raise InputError(f"{name}: an exported model has no modules to name, only its layers. Leave modules= out")
        return model, nullcontext(_exported)
    if modules is not None:
        watched = modules_named(model, modules, name)
        encodes = isinstance(model, PreTrainedModel) and model.config.is_encoder_decoder and part == "encoder"
        window = getattr(getattr(model, "config", None), "attention_window", None) or 1
        filled = window if isinstance(window, int) else max(window)
        hooked = _hooked(watched, list(modules), name, filled)
        return encoder_of(model) if encodes else model, hooked
    if not isinstance(model, PreTrainedModel):
        raise InputError(
            f"{name}: {type(model).__name__} is no model of transformers, so its layers are not known. "
            "Name them with modules=[...], from model.named_modules()"
        )
    if part == "decoder":
        whole: Any = model.base_model
        return whole, _layers(whole, whole.get_decoder(), name, part)
    body = body_of(model)
    return (model if kept_head(model) else body), _layers(model, body, name)


def _exported(
    run: Callable[..., object], inputs: dict[str, torch.Tensor]
) -> tuple[Sequence[torch.Tensor], dict[str, torch.Tensor]]:
    """What `_layers` collects, of a model whose outputs it is."""
    given: Any = run(**inputs)
    return given.hidden_states, {k: given[k] for k in ("logits", "head_input") if k in given}


@contextmanager
def _layers(model: PreTrainedModel, body: Any, name: str, part: str = "encoder") -> Iterator[States]:
    """Collect all hidden states, what a head says, and of one that puts texts into classes what its
    last linear layer gets.
    """
    expected = getattr(body.config, "num_hidden_layers", None)
    if part == "decoder":  # BART's has the same configuration as its encoder
        expected = getattr(body.config, "decoder_layers", expected)
    head = kept_head(model)
    has_head = head == "classes"  # whose last linear layer is looked for
    kinds = ("decoder_hidden_states",) if part == "decoder" else ("hidden_states", "encoder_hidden_states")
    by_last = last_token_map(model) if has_head else None
    within = set(body.modules()) if by_last is None else set(model.modules()) - {by_last}
    watched = [m for m in model.modules() if has_head and m not in within and hasattr(m, "out_features")]
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def hook(_module: torch.nn.Module, inputs: Sequence[torch.Tensor], output: torch.Tensor) -> None:
        seen.append((inputs[0], output))

    def states_of(
        run: Callable[..., object], inputs: dict[str, torch.Tensor]
    ) -> tuple[Sequence[torch.Tensor], dict[str, torch.Tensor]]:
        seen.clear()
        given: Any = run(**inputs, output_hidden_states=True, return_dict=True)
        states = _named(given, kinds)
        lengths = [int(state.shape[1]) for state in states]  # tensors, while a model is traced
        if len(set(lengths)) > 1:
            raise InputError(
                f"{name}: its hidden states differ in length ({lengths} for {inputs['input_ids'].shape[1]} tokens), so "
                "which of them are a text's own is not known below the first. Capture modules that keep the length, "
                "with modules=[...], from model.named_modules()"
            )
        if expected is not None and len(states) != expected + 1:
            raise InputError(
                f"{name}: expected {expected + 1} hidden states (the embeddings and {expected} layers, as its config "
                f"says), {len(states)} came back. If a layer was replaced after the model had run, save and reload it"
            )
        widths = [int(state.shape[-1]) for state in states]
        if len(set(widths)) > 1:
            raise InputError(
                f"{name}: its hidden states differ in width ({widths}), so they are no one space. Capture the layers "
                "of one width by name, with modules=[...], from model.named_modules()"
            )
        if head is None:
            return states, {}
        if not has_head:
            return states, {KEPT[head][0]: given.logits}
        logits: torch.Tensor = given.logits
        if by_last is not None:  # fed all tokens
            last = last_tokens(inputs["attention_mask"])
            return states, {"logits": logits, "head_input": seen[-1][0][torch.arange(last.shape[0]), last]}
        # The linear layer that gives the logits is known by that.
        sources = [x for x, y in seen if x.ndim == 2 and y.shape == logits.shape and torch.equal(y, logits)]
        return states, {"logits": logits} | ({"head_input": sources[-1]} if sources else {})

    with removed(m.register_forward_hook(hook) for m in watched):
        yield states_of


def _named(given: Any, names: Sequence[str]) -> Sequence[torch.Tensor]:
    """The first of some outputs of a model that there is."""
    return next((states for n in names if (states := getattr(given, n, None)) is not None), ())


@contextmanager
def _hooked(modules: list[torch.nn.Module], names: list[str], name: str, filled: int = 1) -> Iterator[States]:
    """Collect the outputs of modules by forward hooks that are removed again.

    Longformer fills texts up to a multiple of its window by itself: what that adds is taken off.
    """
    found: dict[int, torch.Tensor] = {}

    def keep(i: int) -> Callable[..., None]:
        def hook(_module: torch.nn.Module, _inputs: object, output: object) -> None:
            found[i] = output[0] if isinstance(output, tuple | list) else output  # type: ignore[assignment]

        return hook

    def states_of(
        run: Callable[..., object], inputs: dict[str, torch.Tensor]
    ) -> tuple[Sequence[torch.Tensor], dict[str, torch.Tensor]]:
        found.clear()
        _call(run, inputs)
        for i, module in enumerate(names):
            state, wanted = found.get(i), inputs.get("decoder_input_ids", inputs["input_ids"]).shape
            if isinstance(state, torch.Tensor) and state.shape[1:2] == (wanted[1] + -wanted[1] % filled,):
                state = found[i] = state[:, : wanted[1]]
            if not isinstance(state, torch.Tensor) or state.ndim != 3 or state.shape[:2] != wanted:
                shape = tuple(state.shape) if isinstance(state, torch.Tensor) else type(state).__name__
                raise InputError(
                    f"{name}: module {module!r}: expected an output of shape (batch, token, feature) for inputs of "
                    f"shape {tuple(wanted)}, found {shape}. Choose another module"
                )
        widths = {names[i]: found[i].shape[-1] for i in found}
        if len(set(widths.values())) > 1:
            raise InputError(f"{name}: the modules differ in width ({widths}). Capture them one width at a time")
        return [found[i] for i in range(len(names))], {}

    with removed(module.register_forward_hook(keep(i)) for i, module in enumerate(modules)):
        yield states_of


def _call(run: Callable[..., object], inputs: dict[str, torch.Tensor]) -> object:
    parameters = inspect.signature(getattr(run, "forward", run)).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return run(**inputs)
    known = {k: v for k, v in inputs.items() if k in parameters}
    return run(**known) if "input_ids" in known else run(inputs["input_ids"], **known)
