"""Where and how a model runs: device, precision, evaluation mode; how it reads a batch of texts."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from probes.errors import InputError, check_choice
from probes.models.facts import body_of, encoder_of, types_tokens
from probes.models.spread import places_of, runs_on
from probes.states.pooling import OWN, POOLINGS, OfTokens

LONG_TEXTS = ("cut", "windows")  # what becomes of texts that are longer than a model reads


def check_settings(
    pooling: str | OfTokens | None = None,
    dtype: str = "float32",
    device: str | torch.device | None = None,
    batch_size: int = 64,
    batch_tokens: int = 4096,
    *,
    prompt: str | None = None,
    dimensions: int | None = None,
    long_texts: str = "cut",
    overlap: int | None = None,
    **_: object,
) -> torch.device:
    """Return the device to run on; raise `InputError` where a setting of `capture` that needs no
    model is wrong.
    """
    if isinstance(pooling, OfTokens):
        pooling.needs()
    elif callable(pooling):
        raise InputError(f"pooling={pooling!r}: a function is made a pooling by @probes.pooling, and this one was not")
    elif pooling is not None:
        check_choice("pooling", pooling, [*POOLINGS, *OWN])
    if prompt is not None and not isinstance(prompt, str):
        raise InputError(f"prompt={prompt!r}: expected a text, as 'query: '")
    if dimensions is not None and (type(dimensions) is not int or dimensions < 1):
        raise InputError(f"dimensions={dimensions!r}: expected a whole number, at least 1")
    check_choice("long_texts", long_texts, LONG_TEXTS)
    if overlap is not None and (type(overlap) is not int or overlap < 0):
        raise InputError(f"overlap={overlap!r}: expected a whole number of tokens, at least 0")
    if overlap is not None and long_texts == "cut":
        raise InputError(f"overlap={overlap} is of windows: give long_texts='windows', or leave it out")
    check_choice("dtype", dtype, ("float32", "bfloat16"))
    if batch_size < 1 or batch_tokens < 1:
        raise InputError(f"expected batch_size and batch_tokens of at least 1; found {batch_size} and {batch_tokens}")
    return device_of(device)


def device_of(wanted: str | torch.device | None) -> torch.device:
    """Return the device asked for, or the first there is of CUDA, MPS and the CPU."""
    if wanted is not None:
        if str(wanted).startswith("meta"):
            raise InputError("device='meta' holds no numbers; choose 'cuda', 'mps' or 'cpu'")
        try:
            return torch.empty(0, device=wanted).device
        except (RuntimeError, AssertionError) as error:  # unknown to torch, or not on this machine
            raise InputError(f"device={str(wanted)!r} cannot be used here ({str(error).splitlines()[0]})") from error
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def place_of(
    model: torch.nn.Module, wanted: str | torch.device | None, device: torch.device, name: str
) -> torch.device:
    """Return where a model reads its inputs: on a device, or, in several places, where it is spread."""
    places = places_of(model)
    if places and wanted is not None:
        raise InputError(
            f"{name} is spread over {', '.join(places)} (device_map) and runs there; device={str(wanted)!r} would pull "
            "it together: leave device out"
        )
    return runs_on(model) if places else device


def precision(device: torch.device, dtype: str) -> torch.autocast:
    """Return the context in which a model runs in bfloat16 where that is asked for."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == "bfloat16")


@contextmanager
def run_by(module: torch.nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Let a module run by something else for a while; then by what it ran by, whatever happens.

    Example:
        >>> model = torch.nn.Linear(2, 1)
        >>> with run_by(model, lambda x: x + 1):
        ...     model(torch.zeros(1)).item()
        1.0
        >>> "forward" in vars(model)
        False
    """
    before = vars(module).get("forward")  # what was set on it, by which it then runs in place of its class's
    vars(module)["forward"] = forward
    try:
        yield
    finally:
        del vars(module)["forward"]
        if before is not None:
            vars(module)["forward"] = before


@contextmanager
def removed(hooks: Iterable[RemovableHandle]) -> Iterator[None]:
    """Take hooks away again, whatever happens while they are there.

    Example:
        >>> model = torch.nn.Linear(2, 1)
        >>> with removed([model.register_forward_hook(lambda *_: print("run"))]):
        ...     _ = model(torch.zeros(1, 2))
        run
        >>> _ = model(torch.zeros(1, 2))
    """
    hooks = list(hooks)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def reading(model: torch.nn.Module) -> Iterator[None]:
    """Let a model of any kind read batches of texts: of `input_ids` and `attention_mask`.

    Token types that it does not tell apart are left out. Decoders of encoder-decoders are given the
    same text, shifted by one token, where they are given none. A head that looks for the last token
    of a text by the id of the padding, which a word may have and some models have not got, finds it
    by the attention mask. Hidden states begin with the embeddings: models of a state space leave
    those out and give what the last block gives twice, before the norm and after it.

    Example:
        >>> import transformers
        >>> sizes = {"num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 2}
        >>> config = transformers.LlamaConfig(vocab_size=9, intermediate_size=8, **sizes)
        >>> model = transformers.LlamaForSequenceClassification(config)  # which has no padding
        >>> ids, mask = torch.tensor([[5, 6], [7, 0]]), torch.tensor([[1, 1], [1, 0]])
        >>> with reading(model):
        ...     model(input_ids=ids, attention_mask=mask).logits.shape
        torch.Size([2, 2])
    """
    if not isinstance(model, PreTrainedModel):
        yield
        return
    parts = [model, model.base_model, *([encoder_of(model)] if model.config.is_encoder_decoder else [])]
    hooks = [part.register_forward_pre_hook(_fitting, with_kwargs=True) for part in {id(p): p for p in parts}.values()]
    masks: list[torch.Tensor] = []

    def before(module: Any, _args: object, kwargs: dict[str, Any]) -> None:
        masks[:] = [m for m in (kwargs.get("attention_mask"),) if m is not None]
        config = module.config.get_text_config()
        if config.pad_token_id is None and masks:  # batches of more than one text are refused without
            config.pad_token_id, module._no_padding = 0, True

    def after(module: Any, _args: object, _output: object) -> None:
        if vars(module).pop("_no_padding", False):
            module.config.get_text_config().pad_token_id = None

    def last(_module: torch.nn.Module, _args: object, output: torch.Tensor) -> torch.Tensor | None:
        if not masks or output.ndim != 3 or output.shape[:2] != masks[0].shape:
            return None
        rows = torch.arange(output.shape[0], device=output.device)
        return output[rows, last_tokens(masks[0])][:, None].expand_as(output)

    hooks += _from_the_embeddings(body_of(model))
    head = last_token_map(model)
    if head is not None:
        hooks += [model.register_forward_pre_hook(before, with_kwargs=True)]
        hooks += [model.register_forward_hook(after, always_call=True)]
        hooks += [head.register_forward_hook(last)]
    with removed(hooks):
        try:
            yield
        finally:
            after(model, None, None)


def _from_the_embeddings(body: Any) -> list[RemovableHandle]:
    """Let a model's hidden states begin with what its first block is fed."""
    count = getattr(body.config, "num_hidden_layers", None)
    blocks = next((m for m in body.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == count), None)
    ends: dict[str, Any] = {}

    def enter(_module: torch.nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        ends["fed"] = args[0] if args else kwargs.get("hidden_states")

    def leave(_module: torch.nn.Module, _args: object, output: Any) -> None:
        ends["given"] = output[0] if isinstance(output, tuple | list) else output

    def number(_module: torch.nn.Module, _args: object, output: Any) -> None:
        states = getattr(output, "hidden_states", None)
        if states and _same(ends.get("given"), states[0]) and not _same(ends.get("fed"), states[0]):
            output["hidden_states"] = (ends["fed"], *states[:-2], states[-1])
        ends.clear()

    if not blocks:
        return []
    first = [blocks[0].register_forward_pre_hook(enter, with_kwargs=True), blocks[0].register_forward_hook(leave)]
    return [*first, body.register_forward_hook(number)]


def _same(one: Any, other: torch.Tensor) -> bool:
    return isinstance(one, torch.Tensor) and one.shape == other.shape and torch.equal(one, other)


def last_tokens(mask: torch.Tensor) -> torch.Tensor:
    """Return where the last attended token of each text is, on whichever side the padding lies.

    Example:
        >>> last_tokens(torch.tensor([[1, 1, 0], [0, 1, 1]]))
        tensor([1, 2])
    """
    return (mask.long() * torch.arange(mask.shape[1], device=mask.device)).argmax(1)


_LAST = {"ctrl": "classifier", "modernbert-decoder": "classifier"}  # what other decoders call a score


def last_token_map(model: PreTrainedModel) -> torch.nn.Module | None:
    """Return the linear map of a head that is fed all tokens of a text, of which the last counts;
    None of any other head.
    """
    if not any(kind.__name__.endswith("ForSequenceClassification") for kind in type(model).__mro__):
        return None
    found = getattr(model, _LAST.get(model.config.model_type, "score"), None)
    return found if isinstance(found, torch.nn.Module) else None


def decoder_inputs(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Return what the decoder of an encoder-decoder is fed to give these tokens: shifted by one.

    Each state then is what predicts the token at its place.
    """
    config = model.config
    if config.model_type == "mbart":  # its texts begin with what they end with, the language
        return sys.modules[type(model).__module__].shift_tokens_right(ids, config.pad_token_id)
    start = getattr(config, "decoder_start_token_id", None)
    start = config.pad_token_id if start is None else start  # as T5 has it
    if start is None:
        raise InputError(
            f"{type(model).__name__}: its configuration has neither decoder_start_token_id nor pad_token_id, so "
            "what its decoder begins with is not known. Set model.config.decoder_start_token_id"
        )
    return torch.cat([torch.full_like(ids[:, :1], start), ids[:, :-1]], 1)


def _fitting(module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Leave out and add what a model's inputs need."""
    if "token_type_ids" in kwargs and not types_tokens(module):
        kwargs = {k: v for k, v in kwargs.items() if k != "token_type_ids"}
    taken = inspect.signature(module.forward).parameters
    lacks = not any(kwargs.get(k) is not None for k in ("decoder_input_ids", "decoder_inputs_embeds", "labels"))
    if "decoder_input_ids" in taken and lacks and kwargs.get("input_ids") is not None:
        kwargs = kwargs | {"decoder_input_ids": decoder_inputs(module, kwargs["input_ids"])}
    return args, kwargs


@contextmanager
def evaluating(model: torch.nn.Module, device: torch.device) -> Iterator[None]:
    """Run in evaluation mode on a device, and leave the model as it was found; it reads texts as
    `reading` says.
    """
    training = [module for module in model.modules() if module.training]
    home = device if places_of(model) else next((p.device for p in model.parameters()), device)
    model.eval()
    try:
        if home != device:
            model.to(device)
        with reading(model):
            yield
    finally:
        if home != device:
            model.to(home)
        for module in training:
            module.training = True
