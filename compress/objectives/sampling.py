"""What a causal model writes after some prompts: drawn from its distribution, or the likeliest each time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel

from probes.states.running import evaluating


def continued(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    most: int,
    ends: Sequence[int] = (),
    seed: int | None = 0,
) -> list[list[int]]:
    """Return the tokens that a model writes after each prompt, with the one that ends it.

    Args:
        model: a causal language model; it runs without dropout, and is not changed.
        prompts: token ids, one at least each.
        most: how many tokens at most, at least 1.
        ends: tokens that end a text.
        seed: of what is drawn, from the softmax of the logits as they are, whatever the checkpoint
            says of temperature, penalties and the like; None for the likeliest token each time. The
            random numbers of torch are left as they were.

    Notes:
        By `generate` of transformers, with its cache, where the model has it; others run once a
        token over the whole text.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled-decoder")
        >>> prompt = tokenizer("They tried to discuss the lyrics two days")["input_ids"][:-1]
        >>> tokenizer.decode(continued(model, [prompt], most=8, ends=[2], seed=None)[0])
        ' ago.</s>'
    """
    with (
        evaluating(model, model.device),
        torch.no_grad(),
        torch.random.fork_rng(devices=range(torch.cuda.device_count())),
    ):
        torch.manual_seed(0 if seed is None else seed)
        if model.can_generate():
            return _generated(model, prompts, most, ends, seed is not None)
        return _each(model, prompts, most, ends, seed is not None)


def _generated(
    model: Any, prompts: Sequence[Sequence[int]], most: int, ends: Sequence[int], drawn: bool
) -> list[list[int]]:
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    how: dict[str, Any] = {"do_sample": drawn, "max_new_tokens": most, "pad_token_id": 0, "use_cache": True}
    how |= {"eos_token_id": list(ends) or None}
    if drawn:
        how |= {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
    with _plainly(model, GenerationConfig(**how)):
        found = model.generate(input_ids=ids, attention_mask=mask)[:, width:].tolist()
    return [_ended(row, ends) for row in found]


@contextmanager
def _plainly(model: Any, config: GenerationConfig) -> Iterator[None]:
    """Leave out what a checkpoint says of how it generates: penalties, forced tokens, temperatures."""
    before, model.generation_config = model.generation_config, config
    try:
        yield
    finally:
        model.generation_config = before


def _each(model: Any, prompts: Sequence[Sequence[int]], most: int, ends: Sequence[int], drawn: bool) -> list[list[int]]:
    texts, going = [list(p) for p in prompts], list(range(len(prompts)))
    for _ in range(most):
        width = max(len(texts[i]) for i in going)
        ids = torch.tensor([texts[i] + [0] * (width - len(texts[i])) for i in going], device=model.device)
        lengths = torch.tensor([len(texts[i]) for i in going], device=model.device)
        mask = (torch.arange(width, device=model.device) < lengths[:, None]).long()
        logits = model(input_ids=ids, attention_mask=mask).logits[torch.arange(len(going)), lengths - 1].float()
        said = torch.multinomial(logits.softmax(1), 1)[:, 0] if drawn else logits.argmax(1)
        for i, token in zip(going, said.tolist(), strict=True):
            texts[i].append(token)
        going = [i for i in going if texts[i][-1] not in ends]
        if not going:
            break
    return [text[len(prompt) :] for text, prompt in zip(texts, prompts, strict=True)]


def _ended(tokens: Sequence[int], ends: Sequence[int]) -> list[int]:
    """The tokens until the first that ends a text, with it."""
    stop = next((i for i, token in enumerate(tokens) if token in ends), len(tokens) - 1)
    return list(tokens[: stop + 1])
