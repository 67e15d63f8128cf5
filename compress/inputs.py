"""What modules are fed, on texts: one walk over a corpus, its hooks set and removed here."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.experts import ExpertMatrix, fed_to_experts
from probes.errors import InputError, LayerscopeWarning
from probes.models.facts import name_of
from probes.states.batches import collate
from probes.states.running import evaluating, removed
from probes.states.tokens import padding_of, reads_padding

_BATCH = 32
# Gets the name of a module and what it is fed: (token, feature), of an embedding (token).
See = Callable[[str, torch.Tensor], None]


def row_batches(
    rows: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel
) -> Iterator[dict[str, torch.Tensor]]:
    """Yield rows, as `training_rows` gives them, in batches of 32 as a model reads them, on its
    device, in the order in which they come; of one length where it would read padding.
    """
    padding = padding_of(tokenizer, model)
    if reads_padding(model):
        by_length: dict[int, list[dict[str, Any]]] = {}
        for row in rows:
            by_length.setdefault(len(row["input_ids"]), []).append(row)
        groups = list(by_length.values())
    else:
        groups = [list(rows)]
    for some in (group[start : start + _BATCH] for group in groups for start in range(0, len(group), _BATCH)):
        batch = collate(padding, some)
        yield {key: value.to(model.device) for key, value in batch.items()}


def fed(modules: Mapping[str, nn.Module], see: See, first: bool = False) -> AbstractContextManager[None]:
    """Hand what modules are fed to a function while they run, as it comes.

    Args:
        modules: by any names.
        see: gets the name of a module and its first input.
        first: before any other hook, as those that round inputs.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> with fed({"it": layer}, lambda name, x: print(name, tuple(x.shape))):
        ...     _ = layer(torch.zeros(3, 2))
        it (3, 2)
    """

    def hook_of(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            see(name, inputs[0])

        return hook

    return removed([m.register_forward_pre_hook(hook_of(name), prepend=first) for name, m in modules.items()])


def run_of(model: PreTrainedModel) -> nn.Module:
    """Return what is run of a model to see what its modules are fed: all of it, since a head may
    change what its body does, but for one of tokens, whose logits are large.

    Example:
        >>> import probes
        >>> type(run_of(probes.load_checkpoint("bundled")[0])).__name__
        'BertForSequenceClassification'
    """
    body: nn.Module = model.base_model
    return model if model.get_output_embeddings() is None else body


def inside_of(model: nn.Module, mask: torch.Tensor) -> Callable[[nn.Module], torch.Tensor]:
    """Return what gives, of a module, which tokens of a batch are none of padding, in the shape in
    which it is fed them.

    Longformer pads a batch further by itself, to a multiple of its window; what its attention
    reads, and all of XLNet, has tokens first.

    Args:
        model: a model, or what has its body.
        mask: (batch, token), the attention mask.
    """
    config: Any = getattr(model, "config", None)
    kind = getattr(config, "model_type", None)
    inside, turned = mask.bool(), set()
    if kind == "longformer":
        window = config.attention_window
        window = window if isinstance(window, int) else max(window)
        inside = nn.functional.pad(inside, (0, -inside.shape[1] % window))
        turned = {id(m) for name, m in model.named_modules() if ".attention.self." in name}
    elif kind == "xlnet":
        turned = {id(m) for m in model.modules()}
    return lambda module: inside.T if id(module) in turned else inside


def tokens_of(x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Return what a module is fed on a batch token by token, without padding.

    Args:
        x: (batch, token, feature), of an embedding (batch, token), or of any other shape with
            features last.
        mask: (batch, token), true for tokens. What has all its tokens in one row, as experts get
            them, further axes after them, as cores of a tensor train, or one head between, as
            DeepSeek's keys, is cut too; what is of another shape is taken whole, as what a pooler
            is fed.

    Raises:
        InputError: there is more of it than there are tokens, so that some of it is padding that no
            mask tells.

    Example:
        >>> mask = torch.tensor([[True, True, True], [True, False, False]])
        >>> tokens_of(torch.zeros(2, 3, 5), mask).shape
        torch.Size([4, 5])
    """
    of_tokens = x.shape[:-1] if x.is_floating_point() else x.shape
    if mask is not None and of_tokens == mask.shape:
        return x[mask]
    if mask is not None and x.is_floating_point() and of_tokens[:2] == mask.shape:  # as cores of a tensor train are fed
        return x[mask].flatten(0, -2)
    if mask is not None and of_tokens == (mask.numel(),):
        return x[mask.flatten()]
    if mask is not None and of_tokens == (len(mask), 1, mask.shape[1]):
        return x[:, 0][mask]
    if mask is not None and of_tokens == mask.shape[::-1]:  # tokens first
        return x[mask.T]
    if mask is not None and len(of_tokens) > 1 and of_tokens.numel() > mask.numel():
        raise InputError(
            f"a module is fed {' x '.join(map(str, x.shape))} where the batch has {' x '.join(map(str, mask.shape))} "
            "tokens, so which of it is padding is not known. Leave such modules out with only="
        )
    return x.flatten(0, -2) if x.is_floating_point() else x.flatten()


def walk(
    model: nn.Module,
    run: Callable[..., Any],
    modules: Mapping[str, nn.Module | ExpertMatrix],
    batches: Iterable[Mapping[str, torch.Tensor]],
    see: See,
    *,
    device: torch.device,
    first: bool = False,
) -> None:
    """Run batches through a model and hand what its modules are fed to a function.

    The model is in evaluation mode meanwhile, on the device, and keeps no gradients.

    Args:
        model: whose modules they are.
        run: what is called with each batch: the model, or the model without its head.
        modules: by any names, or matrices of experts.
        batches: what `run` takes, with an `attention_mask`.
        see: gets the name of a module and its input, (token, feature) or of an embedding (token),
            once a call.
        device: where the model runs.
        first: before any other hook, as those that round inputs.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> dense = model.bert.encoder.layer[0].output.dense
        >>> texts = ["one text", "another, longer text"]
        >>> batch = tokenizer(texts, padding=True, return_tensors="pt")
        >>> def see(name, x):
        ...     print(name, x.shape[1])
        >>> walk(model, model, {"dense": dense}, [batch], see, device=model.device)
        dense 512
    """
    mask: torch.Tensor | None = None
    inside: Callable[[nn.Module], torch.Tensor] | None = None
    experts = {name: m for name, m in modules.items() if isinstance(m, ExpertMatrix)}
    others = {name: m for name, m in modules.items() if not isinstance(m, ExpertMatrix)}
    with (
        fed_to_experts(experts, see, lambda: mask),
        fed(others, lambda name, x: see(name, tokens_of(x.detach(), inside and inside(others[name]))), first),
        evaluating(model, device),
        torch.inference_mode(),
    ):
        for batch in batches:
            mask = batch["attention_mask"].bool()
            inside = inside_of(model, mask)
            run(**batch)


def say_unreached(model: nn.Module, names: Sequence[str], so: str) -> None:
    """Warn of modules that were fed nothing, where there are some; `so` says what follows."""
    if names:
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        warnings.warn(
            f"{name_of(model)}: no text reaches {names[0]!r}{others}, as of experts that no token is sent to, of "
            f"attention that these texts do not ask for, or where a model reads weights by itself: {so}",
            LayerscopeWarning,
            stacklevel=4,
        )
