"""Adversaries that learn which texts are hard: one that models the texts, and one that models their weight."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from compress.objectives.base import Rows, given_entry, pooled, wide
from compress.objectives.by_text import inputs_of
from compress.objectives.robust_weights import Weights
from probes.models.facts import body_of, size_of

_RECENT = 5  # batches whose losses set the scale of one
_BATCH = 32  # texts that an adversary reads at a time where it is fitted
_FITTING_RATE = 1e-3
_SIZES = {"n_embd": 64, "n_layer": 2, "n_head": 4}


class Adversary(Weights):
    """What learns which texts are hard, beside the student.

    It stays in evaluation mode: without dropout in the adversary, what the student is given does not
    depend on chance.
    """

    def train(self, mode: bool = True) -> Adversary:
        """Stay in evaluation mode."""
        return super().train(False)

    def logs(self, rows: Rows, model: PreTrainedModel, batch: Any) -> torch.Tensor:
        """Return log q of some texts, or log r up to a constant (text,)."""
        raise NotImplementedError


class Generator(Adversary):
    """A small language model of texts and their labels, q(text, label); a text counts q / q at the start.

    It predicts the label, where there are any, as the first token, and then the text. It is fitted
    to the rows before the training, and then follows the losses.

    Args:
        seed, inner: as for `Weights`.
        rows: what is trained on; they say which tokens there are.
        temperature: of the losses that it follows.
        fitted: updates of the fit.
        device: where it computes.
    """

    start: torch.Tensor
    recent: torch.Tensor
    tokens: torch.Tensor

    def __init__(
        self,
        seed: int,
        inner: torch.nn.Module | None,
        rows: Rows,
        temperature: float,
        fitted: int,
        device: torch.device,
    ) -> None:
        """Fit a language model to the rows."""
        from transformers import GPT2Config, GPT2LMHeadModel

        super().__init__(seed, inner)
        self.temperature, self.rows = temperature, rows
        known = np.unique(np.concatenate([np.asarray(row["input_ids"]) for row in rows]))
        self.known = known
        self.classes = 1 + max(_label(row) for row in rows)  # 0 without labels
        longest = max(len(row["input_ids"]) for row in rows)
        self.longest = longest
        vocabulary = len(known) + 2 + self.classes  # after the tokens: the begin, another one, the labels
        dropouts = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
        sizes: dict[str, Any] = {"vocab_size": vocabulary, "n_positions": longest + 2, **_SIZES, **dropouts}
        sizes |= {"bos_token_id": None, "eos_token_id": None}  # those of GPT-2 are beyond this vocabulary
        made: Any = GPT2LMHeadModel
        self.network = made(GPT2Config(**sizes)).to(device)
        self._fit(fitted)
        self.register_buffer("recent", torch.full((_RECENT,), -math.inf))
        with torch.no_grad():
            parts = [self.logs(rows[i : i + _BATCH]) for i in range(0, len(rows), _BATCH)]
        self.register_buffer("start", torch.cat(parts))

    def _fit(self, updates: int) -> None:
        generator = self.generator()
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=_FITTING_RATE, weight_decay=0)
        for _ in range(updates):
            drawn = generator.choice(len(self.rows), min(_BATCH, len(self.rows)), replace=False)
            loss = -self.logs([self.rows[i] for i in drawn]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        optimizer.zero_grad()

    def logs(self, rows: Rows, model: Any = None, batch: Any = None) -> torch.Tensor:
        """Return log q(text, label) of some rows (text,), in nats."""
        begin = len(self.known)
        texts = []
        for row in rows:
            ids = np.asarray(row["input_ids"])[: self.longest]
            at = np.searchsorted(self.known, ids).clip(max=len(self.known) - 1)
            at = np.where(self.known[at] == ids, at, begin + 1)  # one that no row has
            label = [begin + 2 + min(_label(row), self.classes - 1)] if self.classes else []
            texts.append(torch.tensor([begin, *label, *at.tolist()]))
        device = self.network.device
        read = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True).to(device)
        lengths = torch.tensor([len(text) for text in texts], device=device)
        there = torch.arange(read.shape[1], device=device) < lengths[:, None]
        logits = self.network(input_ids=read, attention_mask=there.long()).logits[:, :-1]
        losses = F.cross_entropy(logits.transpose(1, 2), read[:, 1:], reduction="none")
        return -losses.masked_fill(~there[:, 1:], 0).sum(1)

    def weigh(self, losses: torch.Tensor, batch: Any, model: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Return q / q at the start of each text, and the cross-entropy of q with what the losses say."""
        index = batch["index"]
        logs = self.logs([self.rows[int(i)] for i in index])
        scaled = losses.to(logs) / self.temperature
        self.recent[int(self.batches) % _RECENT] = scaled.logsumexp(0)
        wanted = (scaled - self.recent.logsumexp(0)).exp()
        return (logs.detach() - self.start[index]).exp().to(losses), -(wanted * logs).sum()


class Ratios(Adversary):
    """A model of the ratio itself: how much a text counts is read from it by a network of the student's kind.

    A copy of the student's body as it begins, and a linear map of the mean state of a text: where
    there are labels, log r is the log-probability of the text's label, and else one number. The map
    begins at zero, so that all texts count 1 in the beginning.

    Args:
        seed, inner: as for `Weights`.
        rows: what is trained on.
        student: whose body is copied.
        temperature: what mean r log r counts.
        penalty: what (log mean r)^2 counts; None for ratios that are normalised over the batch.
    """

    def __init__(
        self,
        seed: int,
        inner: torch.nn.Module | None,
        rows: Rows,
        student: PreTrainedModel,
        temperature: float,
        penalty: float | None,
    ) -> None:
        """Copy the student's body."""
        super().__init__(seed, inner)
        self.temperature, self.penalty = temperature, penalty
        self.body = copy.deepcopy(body_of(student))
        self.classes = 1 + max(_label(row) for row in rows)
        self.head = torch.nn.Linear(size_of(student, "hidden_size"), max(self.classes, 1))
        torch.nn.init.zeros_(self.head.weight)
        torch.nn.init.zeros_(self.head.bias)
        self.to(student.device)

    def logs(self, rows: Rows, model: PreTrainedModel, batch: Any) -> torch.Tensor:
        """Return log r of a batch as the network gives it (text,); 0 where nothing is told apart."""
        states = self.body(**inputs_of(batch, model), return_dict=True).last_hidden_state
        mean = pooled(states, batch["attention_mask"].bool(), "mean")
        said = wide(self.head(mean.to(self.head.weight.dtype)))
        if not self.classes:
            return said[:, 0]
        labels = given_entry(batch, "labels", "robust")
        return said.log_softmax(1).gather(1, labels[:, None])[:, 0] + math.log(self.classes)

    def weigh(self, losses: torch.Tensor, batch: Any, model: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the ratio of each text, and what its network learns by."""
        logs = self.logs((), model, batch)
        return ratios(logs, self.penalty).detach().to(losses), ratio_loss(
            logs, losses.to(logs), self.temperature, self.penalty
        )


def ratios(logs: torch.Tensor, penalty: float | None) -> torch.Tensor:
    """Return ratios of their logarithms (text,): 1 on average, or, held to it by a penalty, as they are."""
    return len(logs) * logs.softmax(0) if penalty is None else logs.exp()


def ratio_loss(logs: torch.Tensor, losses: torch.Tensor, temperature: float, penalty: float | None) -> torch.Tensor:
    """Return -mean(r * loss) + temperature * mean(r log r), and what the penalty adds.

    Example:
        >>> losses = torch.tensor([0.0, 1.0])
        >>> best = ratio_loss(losses / 0.5, losses, 0.5, None)  # r proportional to exp(loss / 0.5)
        >>> bool(best < ratio_loss(losses, losses, 0.5, None))
        True
    """
    r = ratios(logs, penalty)
    found = -(r * losses).mean() + temperature * torch.special.xlogy(r, r).mean()
    return found if penalty is None else found + penalty * (logs.logsumexp(0) - math.log(len(logs))).square()


def _label(row: Any) -> int:
    """The number of the class of a text, -1 where it has none, or another kind of label."""
    label = row.get("labels", -1)
    return label if isinstance(label, int) else -1


def relative_entropy(r: Sequence[float] | np.ndarray) -> float:
    """Return mean r log r of ratios, which is 0 where all texts count alike.

    Example:
        >>> round(relative_entropy([2.0, 0.0]), 3)  # log 2
        0.693
    """
    r = np.asarray(r, float)
    return float(np.mean(np.where(r > 0, r * np.log(np.where(r > 0, r, 1)), 0)))
