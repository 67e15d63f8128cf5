"""What another model's output lacks of the original's, text by text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import datasets
import numpy as np
import torch
import torch.nn.functional as F
import xarray as xr
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from probes.corpus import check_corpus
from probes.errors import InputError
from probes.models.facts import (
    body_of,
    check_fit,
    classes_of,
    classifies,
    embedding_rows,
    head_of,
    name_of,
    predicted_tokens,
)
from probes.models.spread import check_whole
from probes.states.by_token import NO_TOKEN, next_of
from probes.states.pooling import pool
from probes.states.predictions import label_codes
from probes.states.representations import as_strings, from_arrays
from probes.states.running import evaluating
from probes.states.tokens import pooled_batches
from probes.states.vectors import finished

_SAME = 1e-6  # cosines that differ by less are one


class OutputDamage:
    """How far models are from an original at the output, text by text, on one corpus.

    Of a head that classifies texts, `kl`, the divergence of its probabilities from the original's
    in nats, `label_loyalty`, whether another class is predicted, and where there are labels what is
    lost of `accuracy` and by how much the `loss` (cross-entropy, in nats) rises. Of a head of
    tokens the same of its tokens but for accuracy, as means over those of a text; `loss` where each
    is predicted from those before it. Without such a head `cosine`, 1 minus that of the pooled
    vectors, and what is lost of `retrieval` against the pivot. All are 0 where nothing has changed
    and above 0 where something is lost.

    Args:
        base: the original.
        tokenizer: of all models.
        corpus: as `load_corpus` gives it.
        pivot: the language of retrieval; needed where there is no head.
        name: what the original is called; by default the name it was loaded by.
        settings: of `capture`: pooling, max_length, prompt, normalize, dimensions, device,
            batch_size, batch_tokens.

    Attributes:
        measures: the names of what is measured, the most sensitive first.
        texts: ids, languages and groups of the texts, as Representations without states.

    Raises:
        InputError: corpus, tokenizer and model do not fit together; there is neither a head nor a
            pivot; the pivot is no language of the corpus.

    Notes:
        The Kullback-Leibler divergence is that of the original's probabilities to the other's.
        Retrieval is the share of sentences whose translation is the nearest, mean of both
        directions, ties count as right; of the pivot it is the mean over the other languages.

    Example:
        >>> import compress, probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> corpus = probes.load_corpus("bundled", split="dev", languages=["en"])
        >>> damage = OutputDamage(model, tokenizer, corpus)
        >>> damage.measures
        ('kl', 'label_loyalty', 'loss', 'accuracy')
        >>> float(damage.of(model).sum())
        0.0
        >>> pruned = compress.prune(model, sparsity=0.6)
        >>> own = {"classifier.weight": model.classifier.weight}
        >>> damage.of(pruned, own).dims
        ('measure', 'example')
    """

    def __init__(
        self,
        base: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        corpus: datasets.Dataset,
        *,
        pivot: str | None = None,
        name: str | None = None,
        **settings: Any,
    ) -> None:
        """Read the corpus; no model runs yet."""
        self.base, self.tokenizer, self.corpus = base, tokenizer, check_corpus(corpus)
        self.name, self.pivot = name or name_of(base), pivot
        check_fit(embedding_rows(base), tokenizer, self.name)
        self.kind = kind_of(base)
        columns: dict[str, Any] = {c: list(corpus[c]) for c in ("id", "language", "group") if c in corpus.column_names}
        self.texts = from_arrays(np.zeros((len(corpus), 1)), **columns).assign_attrs(model=self.name)
        self.labels: np.ndarray | None = None
        if self.kind == "classes":
            self._read_labels()
            self.measures: tuple[str, ...] = ("kl", "label_loyalty") + (
                () if self.labels is None else ("loss", "accuracy")
            )
        elif self.kind == "tokens":
            self.measures = ("kl", "label_loyalty") + (("loss",) if predicted_tokens(base) == "next" else ())
        else:
            self._check_pivot()
            alone = len(set(columns["language"])) == 1
            self.measures = ("cosine",) if alone else ("cosine", "retrieval")
        self.where, self._how, self.batches = pooled_batches(base, tokenizer, self.corpus, self.name, **settings)
        self._kept: list[torch.Tensor] = []

    def check(self, other: PreTrainedModel, name: str) -> None:
        """Raise `InputError` where another model's output cannot be held against the original's."""
        for model in (self.base, other):
            check_whole(model, "the damage at the output")
        check_fit(embedding_rows(other), self.tokenizer, name)
        rows = embedding_rows(self.base), embedding_rows(other)
        if rows[0] != rows[1]:
            raise InputError(
                f"{self.name!r} has {rows[0]:,} embeddings and {name!r} {rows[1]:,}: they read other tokens. Compare "
                "models that share one tokenizer"
            )
        if kind_of(other) != self.kind:
            words = {"classes": "classes of texts", "tokens": "tokens", "vectors": "no classes or tokens"}
            raise InputError(
                f"the head of {self.name!r} gives {words[self.kind]}, that of {name!r} {words[kind_of(other)]}. "
                "Compare models with heads of one kind, or load both without"
            )
        if self.kind == "classes" and _classes(self.base) != _classes(other):
            raise InputError(
                f"{self.name!r} has the classes {', '.join(_classes(self.base)[:10])} and {name!r} "
                f"{', '.join(_classes(other)[:10])}. Compare models of the same classes, named alike in id2label"
            )

    def answer(self, model: PreTrainedModel, inputs: dict[str, torch.Tensor], weights: torch.Tensor) -> torch.Tensor:
        """Return what a model says of a batch: logits (text, class) or (text, token, token), or
        vectors (text, feature).
        """
        if self.kind != "vectors":
            logits: torch.Tensor = model(**inputs).logits
            return logits
        return finished(pool(body_of(model)(**inputs).last_hidden_state, weights, self.name, -1), self._how)

    def differences(
        self, own: torch.Tensor, answer: torch.Tensor, inputs: dict[str, torch.Tensor], rows: np.ndarray
    ) -> dict[str, torch.Tensor]:
        """Return what an answer lacks of the original's, a number a text; all but retrieval."""
        if self.kind == "vectors":
            return {"cosine": 1 - F.cosine_similarity(own.double(), answer.double(), dim=-1)}
        wide = torch.float64 if self.kind == "classes" or own.dtype == torch.float64 else torch.float32
        one, two = (F.log_softmax(x.to(wide), dim=-1) for x in (own, answer))
        kl = (one.exp() * (one - two)).masked_fill(one.exp() == 0, 0.0).sum(-1)
        changed = (own.argmax(-1) != answer.argmax(-1)).to(wide)
        changed = changed.masked_fill(~torch.isfinite(kl), torch.nan)
        if self.kind == "classes":
            out = {"kl": kl, "label_loyalty": changed}
            if self.labels is not None:
                label = torch.as_tensor(self.labels[rows].astype(np.int64), device=own.device)
                out["loss"] = (one - two).gather(1, label[:, None])[:, 0]
                right, still = own.argmax(-1) == label, answer.argmax(-1) == label
                out["accuracy"] = (right.to(wide) - still.to(wide)).masked_fill(~torch.isfinite(kl), torch.nan)
            return out
        there = inputs["attention_mask"].bool()
        if "loss" not in self.measures:
            return {"kl": _over_tokens(kl, there), "label_loyalty": _over_tokens(changed, there)}
        targets = next_of(inputs)
        there = targets != NO_TOKEN  # what follows the last token is not in the text
        told = (one - two).gather(2, targets.clamp(min=0)[..., None])[..., 0]
        found = {"kl": kl, "label_loyalty": changed, "loss": told}
        return {name: _over_tokens(values, there) for name, values in found.items()}

    def lost(self, own: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        """Return what is lost of retrieval, (text,), of vectors (text, feature) of both models."""
        ids, languages = self.texts["id"].values, self.texts["language"].values
        return found(own, ids, languages, self.pivot) - found(vectors, ids, languages, self.pivot)

    def there(self, measure: str) -> np.ndarray:
        """Return which texts a measure says something of."""
        if measure != "retrieval":
            return np.ones(len(self.corpus), bool)
        ids, languages = self.texts["id"].values, self.texts["language"].values
        paired = set(ids[languages == self.pivot])
        back = set(ids[languages != self.pivot])
        return np.array([i in (back if k == self.pivot else paired) for i, k in zip(ids, languages, strict=True)])

    def of(self, other: PreTrainedModel, tensors: Mapping[str, torch.Tensor] | None = None) -> xr.DataArray:
        """Return the damage of a model, as it is or with other tensors in place of some of its own.

        Args:
            other: the model; it is left as it was.
            tensors: name in `other.named_parameters()` or `named_buffers()` -> what stands there
                while it runs; of the same shape. Tied parameters follow.

        Returns:
            (measure, example), with `id` and `language` on `example`; NaN where an output is not
            finite, and of texts without a translation.

        Raises:
            InputError: before the first forward pass, where the models do not fit together, a name
                is unknown or a shape another.
        """
        self.check(other, name_of(other))
        run = _Answering(other, self)
        swapped = {f"model.{k}": v.to(self.where) for k, v in _checked(other, tensors or {}).items()}
        out = np.full((len(self.measures), len(self.corpus)), np.nan)
        ends: list[np.ndarray] = []
        order: list[np.ndarray] = []
        with evaluating(self.base, self.where), evaluating(other, self.where), torch.inference_mode():
            for (rows, inputs, weights), own in zip(self.batches(), self._answers(), strict=True):
                answer = torch.func.functional_call(run, swapped, (inputs, weights))
                for name, values in self.differences(own, answer, inputs, rows).items():
                    out[self.measures.index(name), rows] = values.double().cpu().numpy()
                if "retrieval" in self.measures:
                    order.append(rows)
                    ends.append(torch.stack([own, answer]).float().cpu().numpy())
        if "retrieval" in self.measures:
            both = np.concatenate(ends, axis=1)[:, np.argsort(np.concatenate(order))]
            out[self.measures.index("retrieval")] = self.lost(*both)
        about = {k: ("example", self.texts[k].values) for k in ("id", "language")}
        return xr.DataArray(out, dims=("measure", "example"), coords={"measure": as_strings(self.measures), **about})

    def _answers(self) -> Iterator[torch.Tensor]:
        """What the original says, batch by batch: kept, but for tokens, which are many."""
        if self._kept:
            yield from self._kept
            return
        kept = []
        for _, inputs, weights in self.batches():
            answer = self.answer(self.base, inputs, weights)
            if self.kind != "tokens":
                kept.append(answer)
            yield answer
        self._kept = kept

    def _read_labels(self) -> None:
        if "label" not in self.corpus.column_names:
            return
        labels, classes = as_strings(list(self.corpus["label"])), _classes(self.base)
        known = set(labels) <= set(classes) or set(labels) <= {str(i) for i in range(len(classes))}
        if known:  # else the corpus is about something else than the head
            self.labels = label_codes(labels, classes, self.name)

    def _check_pivot(self) -> None:
        there = list(dict.fromkeys(self.texts["language"].values.tolist()))
        if self.pivot is None:
            raise InputError(
                f"{self.name!r} has no head that gives classes or tokens, so that its output is judged by its vectors "
                f"and by retrieval: give pivot=..., one of {', '.join(map(repr, there))}, or a model with its head"
            )
        if self.pivot not in there:
            raise InputError(
                f"pivot {self.pivot!r}: no such language in the corpus; there are {', '.join(map(repr, there))}"
            )


class _Answering(torch.nn.Module):
    """A model as what it says of a batch, so that tensors in it can be exchanged while it runs."""

    def __init__(self, model: PreTrainedModel, output: OutputDamage) -> None:
        super().__init__()
        self.training = False
        self.model = model
        self.say = output.answer

    def forward(self, inputs: dict[str, torch.Tensor], weights: torch.Tensor) -> torch.Tensor:
        return self.say(self.model, inputs, weights)


def _checked(model: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    known = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    for name, tensor in tensors.items():
        if name not in known:
            raise InputError(f"{name_of(model)!r} has no tensor {name!r}. Name them as model.named_parameters() does")
        if tensor.shape != known[name].shape:
            raise InputError(
                f"{name_of(model)!r}, {name}: expected a tensor of shape {tuple(known[name].shape)}, found "
                f"{tuple(tensor.shape)}"
            )
    return tensors


def kind_of(model: PreTrainedModel) -> str:
    """Return what the output of a model is: "classes" of texts, "tokens", or "vectors"."""
    if classifies(model):
        return "classes"
    return "tokens" if head_of(model) in ("tokens", "words") and not model.config.is_encoder_decoder else "vectors"


def _classes(model: PreTrainedModel) -> list[str]:
    return classes_of(model, int(model.config.num_labels or 0))


def _over_tokens(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean over the tokens of each text."""
    return values.masked_fill(~mask, 0.0).sum(1) / mask.sum(1).clamp(min=1)


def found(vectors: np.ndarray, ids: np.ndarray, languages: np.ndarray, pivot: str | None) -> np.ndarray:
    """Return how often each text finds its translation and is found by it, 0 to 1: (text,); NaN of
    those without one.

    Example:
        >>> vectors = np.array([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1], [0.8, 0.2]])
        >>> ids, languages = np.array([0, 1, 0, 1]), np.array(["en", "en", "fr", "fr"])
        >>> found(vectors, ids, languages, "en").tolist()
        [1.0, 0.5, 1.0, 0.5]
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    out, times = np.zeros(len(ids)), np.zeros(len(ids))
    there = np.flatnonzero(languages == pivot)
    for language in dict.fromkeys(languages.tolist()):
        here = np.flatnonzero(languages == language)
        if language == pivot:
            continue
        _, one, two = np.intersect1d(ids[here], ids[there], assume_unique=True, return_indices=True)
        cosine = units[here[one]] @ units[there[two]].T
        least = np.diagonal(cosine) + _SAME
        right = ((cosine <= least[:, None]).all(axis=1) + (cosine <= least).all(axis=0).astype(float)) / 2
        right[np.isnan(np.diagonal(cosine))] = np.nan
        for at in (here[one], there[two]):
            out[at] += right
            times[at] += 1
    with np.errstate(invalid="ignore"):
        return out / times


# What each is.
DAMAGES = {
    "kl": "mean Kullback-Leibler divergence of the original's probabilities to the other's, in nats",
    "label_loyalty": "share of texts, or of tokens, for which another class is predicted",
    "loss": "mean cross-entropy with the labels, or with the next tokens, minus the original's, in nats",
    "accuracy": "the original's accuracy minus the other's",
    "cosine": "mean of 1 - cosine of the pooled outputs",
    "retrieval": "the original's retrieval against the pivot minus the other's",
}
