"""Output layers that say bits of a codeword in place of one number for each word, and how a model
that has one is loaded.

Words are what a model tells apart: tokens of a language model, classes of a classifier.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from probes.errors import InputError, check_choice
from probes.models.facts import name_of
from probes.models.formats.format import Format, Verb

DECODING = ("likelihood", "hamming")
_ROWS = 2**22  # numbers of a product that are held at once where words are looked for


class CodedOutput(nn.Module):
    """An output layer of n bits: each word has a codeword, and a state says how likely each bit is.

    With c the bits of a word and z the logits of the bits, the word's logit is the log-likelihood
    sum_b c_b log sigmoid(z_b) + (1 - c_b) log sigmoid(-z_b). Their softmax is the likelihood
    renormalised over the words that there are; where every codeword is a word, it is that already.

    Attributes:
        linear: Linear, features of the states -> bits.
        codes: (word, ceil(bits / 8)) of uint8, the codewords, eight bits a byte, the first highest.
        in_features, out_features, bits: features, words and bits.
        says: "words", or within `saying_bits` "bits": their logits (..., bit) in place of words.

    Notes:
        It has bits * (features + 1) parameters and ceil(bits / 8) bytes a word, where a plain layer
        has features * words parameters. Up to what all words share its logits are those of a plain
        layer whose matrix is the table of codewords times `linear.weight`.

    Example:
        >>> import torch
        >>> layer = CodedOutput(8, words=5, bits=3)
        >>> layer.set_codes(torch.tensor([[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0], [1, 1, 1]]))
        >>> layer(torch.zeros(2, 8)).shape, layer.codes.flatten().tolist()
        (torch.Size([2, 5]), [0, 32, 64, 128, 224])
    """

    codes: torch.Tensor

    def __init__(
        self, in_features: int, words: int, bits: int, device: Any = None, dtype: torch.dtype | None = None
    ) -> None:
        """Make a layer of random weights, whose codewords are all zero."""
        super().__init__()
        self.in_features, self.out_features, self.bits = in_features, words, bits
        self.linear = nn.Linear(in_features, bits, device=device, dtype=dtype)
        self.register_buffer("codes", torch.zeros(words, -(-bits // 8), dtype=torch.uint8, device=device))
        self.says = "words"

    def set_codes(self, table: torch.Tensor | np.ndarray) -> None:
        """Take codewords (word, bit) of zeros and ones.

        Raises:
            InputError: they are of another shape, or hold something else.
        """
        given = np.asarray(table)
        if given.shape != (self.out_features, self.bits) or not np.isin(given, (0, 1)).all():
            raise InputError(
                f"codewords: expected zeros and ones of shape {(self.out_features, self.bits)}, a row a word, found "
                f"{given.dtype} of shape {given.shape}"
            )
        self.codes.copy_(torch.from_numpy(np.packbits(given.astype(np.uint8), axis=1)))

    def keep(self, words: torch.Tensor) -> None:
        """Keep some words by their numbers, in this order."""
        self.codes = self.codes.index_select(0, words.to(self.codes.device)).contiguous()
        self.out_features = len(words)

    def table(self, words: torch.Tensor | slice = slice(None)) -> torch.Tensor:
        """Return the codewords of some words, or of all, as zeros and ones (..., bit) in float32."""
        packed = self.codes[words]
        places = torch.arange(7, -1, -1, device=packed.device, dtype=torch.uint8)
        bits = (packed[..., None] >> places) & 1
        return bits.flatten(-2)[..., : self.bits].float()

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Map states (..., feature) to the logits of words (..., word), in float32 at least."""
        bits = self.linear(states)
        return bits if self.says == "bits" else self.likelihoods(bits)

    def likelihoods(self, bits: torch.Tensor) -> torch.Tensor:
        """Return the log-likelihood of each word (..., word) of logits of bits (..., bit)."""
        bits = bits.to(torch.promote_types(bits.dtype, torch.float32))
        with torch.autocast(bits.device.type, enabled=False):  # sums of many bits
            out: torch.Tensor = bits @ self.table().to(bits.dtype).T - F.softplus(bits).sum(-1, keepdim=True)
        return out

    @torch.no_grad()
    def decoded(self, bits: torch.Tensor, by: str = "likelihood") -> torch.Tensor:
        """Return the word (...) that logits of bits (..., bit) say: the likeliest, or the nearest in
        Hamming distance to the bits that are likelier than not; of several as near the first.

        Example:
            >>> layer = CodedOutput(2, words=2, bits=3)
            >>> layer.set_codes(torch.tensor([[0, 0, 0], [1, 1, 1]]))
            >>> said = torch.tensor([0.1, 0.2, -5.0])  # two bits of three, neither of them sure
            >>> layer.decoded(said, "hamming").item(), layer.decoded(said).item()
            (1, 0)
        """
        check_choice("by", by, DECODING)
        flat = bits.reshape(-1, self.bits)
        if by == "hamming":
            flat = (flat > 0).float() * 2 - 1  # so that products fall with the bits that differ
        step = max(1, _ROWS // self.out_features)
        signs = self.table() * 2 - 1
        found = [(flat[k : k + step].to(signs.dtype) @ signs.T).argmax(-1) for k in range(0, len(flat), step)]
        return (torch.cat(found) if found else flat.new_zeros(0, dtype=torch.long)).reshape(bits.shape[:-1])


@contextmanager
def saying_bits(model: PreTrainedModel, says: str = "bits") -> Iterator[None]:
    """Let a model with output codes give logits of bits (..., bit) in place of those of words, for a
    while; with says="words" those of words again.
    """
    head = coded_output_of(model)
    before, head.says = head.says, says
    try:
        yield
    finally:
        head.says = before


def output_layer(model: PreTrainedModel) -> tuple[str, nn.Module] | None:
    """Return the layer that has one output for each token or class of a model, with its name; None
    where there is none.

    Example:
        >>> import probes
        >>> output_layer(probes.load_checkpoint("bundled")[0])
        ('classifier', Linear(in_features=128, out_features=6, bias=True))
    """
    body = {id(module) for module in model.base_model.modules()}
    said = model.get_output_embeddings()
    named = [(name, module) for name, module in model.named_modules() if id(module) not in body]
    if said is not None:
        return next(((name, module) for name, module in named if module is said), None)
    coded = [(name, module) for name, module in named if isinstance(module, CodedOutput)]
    if coded:  # whose own map may have as many outputs
        return coded[0]
    classes = int(getattr(model.config, "num_labels", 0) or 0)
    found = [(n, module) for n, module in named if isinstance(module, nn.Linear) and module.out_features == classes]
    return found[-1] if found else None  # a dense layer before it may be as wide


def coded_output_of(model: Any) -> CodedOutput:
    """Return the coded output layer of a model; raise `InputError` where it has none."""
    found = next((module for module in model.modules() if isinstance(module, CodedOutput)), None)
    if found is None:
        raise InputError(
            f"{name_of(model)} has no output codes: expected a model of compress.code_outputs, or one that "
            "probes.load_checkpoint loaded (plain transformers draws an output layer of its own)"
        )
    return found


def apply_output_codes(model: PreTrainedModel) -> None:
    """Give a model, in place, the coded output layer that its configuration names; its weights and
    codewords come after.

    `config.output_codes` has its size, {"bits": 40}. A layer that is there already stays, and a
    model without its head has none.

    Args:
        model: a model of transformers; it is changed.

    Raises:
        InputError: there is no layer to replace, or too few bits for so many words.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled-decoder")
        >>> model.config.output_codes = {"bits": 40}
        >>> apply_output_codes(model)
        >>> model.lm_head.linear, model.lm_head.out_features
        (Linear(in_features=128, out_features=40, bias=True), 4000)
    """
    if not OUTPUT_CODES.promised(model.config) or model.base_model is model:
        return
    bits = OUTPUT_CODES.said(model.config)["bits"]
    found = output_layer(model)
    if found is None:
        raise InputError(
            f"config.output_codes asks for codewords, and {type(model).__name__} has no layer with an output for each "
            "token or class: configuration and weights do not belong together"
        )
    name, layer = found
    if isinstance(layer, CodedOutput):
        return
    weight: Any = layer.weight
    words, features = weight.shape
    check_bits(bits, words, "config.output_codes")
    # Without a trace in the caller's random numbers.
    made = CodedOutput(features, words, bits, "meta", weight.dtype).train(layer.training)
    made = made if weight.is_meta else made.to_empty(device=weight.device)
    tied = getattr(model, "all_tied_weights_keys", None)
    if tied is not None:  # with the embeddings, which stay
        model.all_tied_weights_keys = {k: v for k, v in tied.items() if not k.startswith(f"{name}.")}
    model.config.tie_word_embeddings = False
    model.set_submodule(name, made)


def check_bits(bits: int, words: int, who: str) -> None:
    """Raise `InputError` where so many bits cannot tell so many words apart."""
    least = max(1, (words - 1).bit_length())
    if bits < least:
        raise InputError(
            f"{who}: {bits} bits make {2**bits:,} codewords at most, and there are {words:,} words to tell apart: "
            f"expected at least {least} bits, and more to correct errors"
        )


def check_distinct(table: np.ndarray, who: str) -> None:
    """Raise `InputError` where two words have the same codeword; rows are words."""
    first: dict[bytes, int] = {}
    for word, code in enumerate(np.ascontiguousarray(table)):
        other = first.setdefault(code.tobytes(), word)
        if other != word:
            raise InputError(
                f"{who}: the words {other} and {word} have the same codeword, so that nothing tells them apart: "
                "expected one of its own for each word"
            )


def _check_read(model: PreTrainedModel, missing: Collection[str] | None) -> Collection[str]:
    """Raise where the codewords were not in the file of a model, or two are the same."""
    if any(name.endswith(".codes") for name in missing or ()):
        raise InputError(
            f"{name_of(model)}: its configuration promises {OUTPUT_CODES.has} (config.output_codes), and the codewords "
            "are not in its weights: configuration and weights do not belong together"
        )
    if model.base_model is not model:
        check_distinct(coded_output_of(model).codes.cpu().numpy(), f"{name_of(model)}: config.output_codes")
    return ()


def _lacks(model: PreTrainedModel) -> str | None:
    if model.base_model is model:
        return None
    found = output_layer(model)
    if found is None or not isinstance(found[1], CodedOutput):
        return "its output layer has a number for each word (plain transformers draws one at random)"
    bits, said = found[1].bits, model.config.output_codes["bits"]
    return None if bits == said else f"says {said} bits where the output layer has {bits}"


def _forbidden(model: PreTrainedModel, verb: Verb) -> str | None:
    name = name_of(model)
    if verb == "code_outputs":
        return f"{name} has output codes already: give the model that it was made from"
    if verb == "narrow":
        return (
            f"hidden_size: the output codes of {name} read states of the width that it has. Make the model narrower "
            "that it was made from, then call code_outputs; or leave hidden_size out"
        )
    return None


OUTPUT_CODES = Format(
    "output_codes",
    "an output layer of codewords",
    {"bits": range(1, 2**16)},
    make=apply_output_codes,
    apply=_check_read,
    lacks=_lacks,
    forbids=_forbidden,
)
