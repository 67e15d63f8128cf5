"""What language models say of each token of texts, and how far two of them are apart there."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import datasets
import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from probes.errors import InputError
from probes.models.facts import check_fit, embedding_rows
from probes.states.batches import random_batch
from probes.states.distributions import compared
from probes.states.running import check_settings, evaluating, run_by
from probes.states.tokens import Batches, Tokens, tokenise
from probes.states.vectors import length_of, prompted, settle

NO_TOKEN = -100  # in place of one that is to be predicted
_LOGITS = 2**18  # of a model that are held at once, whatever the batch: few enough to stay near the processor
_TOKENS = 32  # whose logits are held at least, so that the output layer is read rarely
PER_TEXT = 16  # tokens of a text that are masked at most, each alone


@dataclass(frozen=True)
class Said:
    """What models say of every token that is predicted, in the order of the texts and of each text."""

    row: np.ndarray  # (token,) the text it is of
    place: np.ndarray  # (token,) where it stands in that, special tokens counted
    token: np.ndarray  # (token,) which it is
    nats: np.ndarray  # (model, token) minus the log of its probability
    kl: np.ndarray  # (token,) nats from the first model's distribution to the second's; empty of one model
    same: np.ndarray  # (token,) whether both hold the same token for the likeliest; empty of one model
    size: np.ndarray  # (text,) bytes of each text in UTF-8, of one that is cut those that are left
    reads: str  # "next" or "masked"


def predicts_next(model: PreTrainedModel, who: str) -> bool:
    """Return whether a model predicts the next token, and not masked ones; raise where neither.

    Args:
        model: of transformers.
        who: asks, as messages begin.

    Raises:
        InputError: it has no output layer over tokens, is an encoder-decoder, or reads the token
            that it is to predict.

    Example:
        >>> import probes
        >>> predicts_next(probes.load_checkpoint("bundled-decoder")[0], "next_token")
        True
    """
    of = type(model).__name__
    if model.config.is_encoder_decoder:
        raise InputError(
            f"{who}: {of} is an encoder-decoder: expected a decoder, or an encoder with a head for masked tokens"
        )
    if model.get_output_embeddings() is None:
        raise InputError(
            f"{who}: {of} predicts no tokens: expected a model with a head for the next token or for masked ones"
        )
    if not _looks_ahead(model):
        return True
    if of in MODEL_FOR_MASKED_LM_MAPPING_NAMES.values():
        return False
    raise InputError(
        f"{who}: {of} sees the token that it is to predict, as what it gives for one changes with the next: expected a "
        "decoder (of a BERT-like model with is_decoder=True), or a head for masked tokens"
    )


def _looks_ahead(model: PreTrainedModel) -> bool:
    """Whether what a model gives for a token changes with the tokens after it."""
    ids = random_batch(model, [6])["input_ids"]
    other = ids.clone()
    other[:, -1] = ids[:, 0]
    other[:, -1] += (other[:, -1] == ids[:, -1]).long() * (1 if ids[0, -1] == 0 else -1)
    with evaluating(model, model.device), torch.no_grad():
        one, two = model(input_ids=torch.cat([ids, other])).logits[:, :-1].float()
    return not alike(one, two)


def alike(one: torch.Tensor, two: torch.Tensor) -> bool:
    """Return whether two tensors of logits are the same but for rounding, by the size of the largest."""
    near = 1e-4 * float(two.abs().nan_to_num(posinf=0, neginf=0).max()) if two.numel() else 0.0
    return one.shape == two.shape and torch.allclose(one, two, rtol=0, atol=near, equal_nan=True)


def next_tokens(ids: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
    """Return which token each place is to predict, (batch, token), -100 where there is none.

    Example:
        >>> next_tokens(torch.tensor([[5, 6, 7, 0]]), torch.tensor([[True, True, True, False]])).tolist()
        [[6, 7, -100, -100]]
    """
    targets = torch.full_like(ids, NO_TOKEN)
    targets[:, :-1] = ids[:, 1:].where(attended[:, 1:] & attended[:, :-1], NO_TOKEN)
    return targets


class Planned(NamedTuple):
    """How texts are read by language models."""

    batches: Batches
    device: torch.device
    forward: bool  # whether the next token is predicted, and not masked ones


def planned(
    models: Sequence[PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    corpus: datasets.Dataset,
    names: Sequence[str],
    who: str,
    *,
    max_length: int | None = None,
    prompt: str | None = None,
    device: str | torch.device | None = None,
    batch_size: int = 64,
    batch_tokens: int = 4096,
) -> Planned:
    """Return how the texts of a corpus are read by one language model or by several of one kind.

    Args:
        models, tokenizer, corpus, names: of them, their texts, and what they are called.
        who: asks, as messages begin.
        max_length, prompt, device, batch_size, batch_tokens: of `capture`.

    Raises:
        InputError: a model predicts no tokens, or they predict others; no text has a token to
            predict; there is nothing to mask by.
    """
    where = check_settings(device=device, batch_size=batch_size, batch_tokens=batch_tokens)
    for model, name in zip(models, names, strict=True):
        if not isinstance(model, PreTrainedModel):
            raise InputError(f"{who}: {name}: expected a model of transformers, found {type(model).__name__}")
        check_fit(embedding_rows(model), tokenizer, name)
    kinds = {predicts_next(model, f"{who}: {name}") for model, name in zip(models, names, strict=True)}
    if len(kinds) > 1:
        raise InputError(
            f"{who}: one of {', '.join(map(repr, names))} predicts the next token and the other masked ones. Compare "
            "models of one kind"
        )
    forward = kinds.pop()
    how, declared = settle(models[0], names[0], pooling="mean", max_length=max_length, prompt=prompt)
    tokens = tokenise(
        tokenizer, prompted(corpus, how), length_of(how, models[0], tokenizer, declared), models[0], names[0]
    )
    if forward and tokens.lengths.max() < 2:
        raise InputError(f"{who}: every text is one token long, and none has a next one: give longer texts")
    if not forward and tokenizer.mask_token_id is None:
        raise InputError(
            f"{who}: {type(models[0]).__name__} predicts masked tokens, and the tokenizer has no mask token: set "
            "tokenizer.mask_token to the one that the model was trained with"
        )
    return Planned(Batches(tokens, batch_size, batch_tokens), where, forward)


def said_by(
    models: Sequence[PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    corpus: datasets.Dataset,
    names: Sequence[str],
    *,
    who: str,
    per_text: int = PER_TEXT,
    seed: int = 0,
    progress: bool = False,
    **settings: Any,
) -> Said:
    """Return what one model, or two on the same batches, say of the tokens of texts.

    Every token but the first of a text is predicted from those before it; of models of masked
    tokens each from all others, one masked at a time, and of texts with many a sample of them.

    Args:
        models: one, or two of one tokenizer, of one kind.
        tokenizer, corpus, names: of them, their texts, and what they are called.
        who: asks, as messages begin.
        per_text: how many tokens of a text are masked at most, drawn by its id and language.
        seed: of what is masked.
        progress: show a progress bar.
        settings: of `planned`.

    Raises:
        InputError: before the first forward pass: a model predicts no tokens, or they predict
            others; no text has a token to predict; there is nothing to mask by.
    """
    if type(per_text) is not int or per_text < 1:
        raise InputError(f"{who}: per_text={per_text!r}: expected a whole number, at least 1")
    given = planned(models, tokenizer, corpus, names, who, **settings)
    batches, where, forward = given.batches, given.device, given.forward
    draws = None if forward else _Masking(corpus, tokenizer, per_text, seed)
    parts: list[dict[str, np.ndarray]] = []
    bar = tqdm(total=len(corpus), desc=who.replace("_", " "), unit="text", disable=not progress)
    with bar, ExitStack() as stack, torch.inference_mode():
        for model in models:
            stack.enter_context(evaluating(model, where))
        layers = [stack.enter_context(before_output(m, batches, where)) for m in models]
        for rows in batches.over(0, len(corpus)):
            inputs = batches.tensors(rows, "mean", where)[0]
            asks = [(rows, inputs, next_of(inputs))] if draws is None else draws(rows, inputs, batches)
            for at, asked, targets in asks:
                parts.append(_of_batch(layers, at, asked, targets, int(forward)))
            bar.update(len(rows))
    every = {k: np.concatenate([p[k] for p in parts], axis=-1) for k in parts[0]}
    order = np.lexsort((every["place"], every["row"]))
    return Said(
        **{k: v[..., order] if v.shape[-1] else v for k, v in every.items()},
        size=_sizes(corpus, batches.tokens, tokenizer),
        reads="next" if forward else "masked",
    )


def next_of(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return `next_tokens` of a batch."""
    return next_tokens(inputs["input_ids"], inputs["attention_mask"].bool())


class _Masking:
    """Makes of a batch of texts those with one token masked, each time another."""

    def __init__(self, corpus: datasets.Dataset, tokenizer: Any, per_text: int, seed: int) -> None:
        self.mask, self.special = tokenizer.mask_token_id, torch.tensor(tokenizer.all_special_ids)
        self.per_text, self.seed = per_text, seed
        self.names = names_of(corpus)

    def __call__(
        self, rows: np.ndarray, inputs: dict[str, torch.Tensor], batches: Batches
    ) -> Iterator[tuple[np.ndarray, dict[str, torch.Tensor], torch.Tensor]]:
        """Yield rows, inputs and targets of batches no larger than others."""
        ids = inputs["input_ids"]
        own = inputs["attention_mask"].bool() & ~torch.isin(ids, self.special.to(ids.device))
        which, places = [], []
        for i, row in enumerate(rows):
            there = own[i].nonzero()[:, 0].cpu().numpy()
            if len(there) > self.per_text:
                there = np.random.default_rng([self.seed, self.names[row]]).choice(there, self.per_text, replace=False)
            which += [i] * len(there)
            places += there.tolist()
        size = max(1, min(batches.size, batches.budget // ids.shape[1]))
        for start in range(0, len(which), size):
            text = torch.tensor(which[start : start + size], device=ids.device)
            place = torch.tensor(places[start : start + size], device=ids.device)[:, None]
            asked = {k: v[text] for k, v in inputs.items()}
            targets = torch.full_like(asked["input_ids"], NO_TOKEN)
            targets.scatter_(1, place, asked["input_ids"].gather(1, place))
            asked["input_ids"] = asked["input_ids"].scatter(1, place, self.mask)
            yield rows[text.cpu().numpy()], asked, targets


def names_of(corpus: datasets.Dataset) -> np.ndarray:
    """Return a number for the name of each text, (text,): what is drawn by it does not depend on the order of texts."""
    pairs = zip(corpus["id"][:], corpus["language"][:], strict=True)
    return np.array([zlib.crc32(f"{i}\0{language}".encode()) for i, language in pairs], np.int64)


# From inputs, and which places are asked for, to so many rows of logits at a time.
Outputs = Callable[[dict[str, torch.Tensor], torch.Tensor], "Logits"]


@dataclass
class Logits:
    """The logits of some tokens, made when they are asked for, so that few are held at once."""

    states: torch.Tensor  # (token, feature) that the output layer is fed, or the logits themselves
    made: Callable[[torch.Tensor], torch.Tensor]
    vocabulary: int

    def of(self, part: slice) -> torch.Tensor:
        """Return the logits of a part of the tokens (token, vocabulary), in float32."""
        return self.made(self.states[part]).float()


@contextmanager
def before_output(model: Any, batches: Batches, device: torch.device) -> Iterator[Outputs]:
    """Give a function that runs a model up to its output layer, and the layer for some tokens at a time.

    Where what a model does to its logits after that is not known, it runs as a whole, and holds the
    logits of a batch: this is seen on the shortest text.
    """
    head = model.get_output_embeddings()
    vocabulary = _vocabulary(head, model)
    seen: list[torch.Tensor] = []
    after = after_output(model)

    def instead(states: torch.Tensor, *_args: Any, **_kwargs: Any) -> torch.Tensor:
        seen.append(states)
        return states.new_zeros((*states.shape[:-1], 1))

    def made(states: torch.Tensor) -> torch.Tensor:
        return after(head(states))

    def run(inputs: dict[str, torch.Tensor], there: torch.Tensor) -> Logits:
        seen.clear()
        with run_by(head, instead):
            model(**inputs, **_uncached(model))
        return Logits(seen[-1].reshape(*there.shape, -1)[there], made, vocabulary)

    def whole(inputs: dict[str, torch.Tensor], there: torch.Tensor) -> Logits:
        return Logits(model(**inputs, **_uncached(model)).logits[there], lambda logits: logits, vocabulary)

    first = batches.tensors(np.array([int(batches.tokens.lengths.argmin())]), "mean", device)[0]
    attended = first["attention_mask"].bool()
    with torch.no_grad():
        known = whole(first, attended).states.float()
        try:
            same = alike(run(first, attended).of(slice(None)), known)
        except (RuntimeError, IndexError, ValueError):  # it looks at what the layer gives
            same = False
    yield run if same else whole


def rows_at_once(vocabulary: int) -> int:
    """Return of how many tokens logits are held at once.

    Example:
        >>> rows_at_once(4000), rows_at_once(250_000)
        (65, 32)
    """
    return max(_TOKENS, _LOGITS // vocabulary)


def after_output(model: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return what a model does to what its output layer gives, as its configuration says."""
    config = model.config.get_text_config()
    scale = float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0)
    scale *= float(getattr(config, "lm_head_multiplier", None) or 1.0)
    cap = getattr(config, "final_logit_softcapping", None)

    def after(logits: torch.Tensor) -> torch.Tensor:
        logits = logits if scale == 1 else logits * scale
        return logits if cap is None else cap * torch.tanh(logits / cap)

    return after


def _uncached(model: Any) -> dict[str, bool]:
    return {"use_cache": False} if hasattr(model.config.get_text_config(), "use_cache") else {}


def _vocabulary(head: Any, model: PreTrainedModel) -> int:
    return int(getattr(head, "out_features", 0) or getattr(head, "num_embeddings", 0) or embedding_rows(model))


def _of_batch(
    layers: Sequence[Outputs], rows: np.ndarray, inputs: dict[str, torch.Tensor], targets: torch.Tensor, ahead: int
) -> dict[str, np.ndarray]:
    """What `Said` keeps of a batch; a target stands so many places ahead of where it is predicted."""
    there = targets != NO_TOKEN
    text, place = (x.cpu().numpy() for x in there.nonzero(as_tuple=True))
    wanted = targets[there]
    made = [layer(inputs, there) for layer in layers]
    step = rows_at_once(made[0].vocabulary)
    starts = range(0, max(len(wanted), 1), step)  # once where there are none, which tells the shapes
    parts = [compared([m.of(slice(k, k + step)) for m in made], wanted[k : k + step]) for k in starts]
    return {k: torch.cat([p[k] for p in parts], dim=-1).cpu().numpy() for k in parts[0]} | {
        "row": rows[text].astype(np.int32),
        "place": (place + ahead).astype(np.int32),
        "token": wanted.cpu().numpy().astype(np.int32),
    }


def _sizes(corpus: datasets.Dataset, tokens: Tokens, tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """Bytes of each text in UTF-8; of one that is cut those that its tokens stand for."""
    texts = corpus["text"][:]
    if "text_pair" in corpus.column_names:
        texts = [one + two for one, two in zip(texts, corpus["text_pair"][:], strict=True)]
    size = np.array([len(text.encode()) for text in texts], np.int64)
    if tokens.cut:
        for row in np.flatnonzero(tokens.lengths == tokens.limit):
            ids = tokens.inputs["input_ids"][tokens.starts[row] : tokens.starts[row] + tokens.lengths[row]]
            kept = str(tokenizer.decode(ids.tolist(), skip_special_tokens=True))
            size[row] = min(size[row], len(kept.encode()))
    return size
