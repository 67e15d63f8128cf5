"""Rewards of what a causal model writes, by how like a reference it is; learned by actor and critic."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.objectives.base import (
    Pass,
    Rows,
    State,
    check_choice,
    check_count,
    check_number,
    given_module,
    is_whole,
    wide,
)
from compress.objectives.given import model_and_tokenizer
from compress.objectives.sampling import continued
from compress.objectives.sentences import SIMILARITIES, STEEPNESS, Sentences, likeness, repetition
from probes.errors import InputError
from probes.models.facts import name_of, positions_of, size_of
from probes.models.fingerprint import weights_fingerprint
from probes.states.by_token import predicts_next
from probes.states.running import evaluating


@dataclass(frozen=True)
class SimilarityReward:
    """Let a causal student write on after prompts, and reward it for texts that are like a reference.

    The texts trained on are prompts. After each the student draws a text from its own distribution,
    whose reward, 0 to 1, is how like the reference a frozen encoder finds it, the prompt left out:
    r = 1 / (1 + exp(-steepness (cosine - middle))), or exp(-steepness * distance). A critic, a
    linear map of the student's last states, learns by cross-entropy what reward is still to come at
    each token; the student follows, for each token y of a text and R the reward from it on,

        -(R - critic - kl * what is to come of KL) * log p(y), plus kl * KL(student, start)

    summed over the tokens, as a mean over texts: in expectation the gradient of -(reward - kl *
    KL). No gradient reaches encoder and critic's states.

    Args:
        encoder: what says how alike texts are: a model, which reads by the student's tokenizer; a
            model and its tokenizer, as `probes.load_checkpoint` gives them; or what that takes.
        references: the column of the corpus that has them; by default what the teacher writes, the
            likeliest token each time.
        layer: of the encoder: 0, its embeddings, to the last one, which it is by default; its
            tokens are pooled as `probes.capture` pools them.
        similarity: "cosine", or "manhattan" or "euclidean" distance.
        steepness: by default 10 of the cosine, 1 of distances.
        middle: the cosine whose reward is 1/2.
        segment: None to reward the whole text at its end; a number to reward each so many tokens
            as they end, by the same place of the reference: all segments together reward 1.
        length: tokens that are written at most.
        kl: what the divergence from the student as it began counts, in nats, summed over tokens;
            0 to leave it free.
        weight: what the loss is multiplied by.
        learning_rate: of the critic; by default that of the training.
        name: what it is logged under: minus the reward plus kl times KL. Beside it the history has
            `.reward`, `.kl`, `.length`, in tokens, `.repetition`, the share of pairs of tokens that
            were there before, and `.critic`, its loss in nats.

    Raises:
        InputError: a number or word is out of range; before a training: the student predicts no next
            token; a reference is missing; prompt and text are longer than the student reads; the
            encoder's tokenizer knows no letter of the texts of a language, but bytes at most.

    Notes:
        O' Neill and Bollegala 2019, arXiv 1909.03622, an LSTM captioner rewarded by InferSent, with
        the shaping of their figure. Choices made here: segments are of so many tokens; the critic
        reads the student's states, not the target text; both learn from the first batch on; KL is
        that of whole distributions. Train by the next token before. A text without a token that the
        encoder knows has reward 0. The critic is gone after the training.

    See also:
        `continuations`, `LanguageModel`, `compress.training.train`

    Example:
        >>> import compress, probes
        >>> encoder = probes.load_checkpoint("bundled")
        >>> student, tokenizer = probes.load_checkpoint("bundled-decoder")
        >>> prompts = probes.load_corpus("bundled", split="train", languages=["en"]).select(range(8))
        >>> prompts = prompts.add_column("reference", prompts["text"])
        >>> reward = SimilarityReward(encoder, references="reference", length=4)
        >>> made = compress.finetune(
        ...     student, tokenizer, prompts, objective=reward, steps=1, max_length=8, progress=False
        ... )
        >>> [name.removeprefix("similarity_reward") for name in made.history][1:]
        ['', 'loss', '.reward', '.kl', '.length', '.repetition', '.critic']
    """

    encoder: Any = field(repr=False)
    references: str | None = None
    layer: int | None = None
    similarity: Literal["cosine", "manhattan", "euclidean"] = "cosine"
    steepness: float | None = None
    middle: float = 0.7
    segment: int | None = None
    length: int = 32
    kl: float = 0.05
    weight: float = 1.0
    learning_rate: float | None = None
    name: str = "similarity_reward"
    encoder_tokenizer: Any = field(default=None, init=False, repr=False)
    encoded_by: str = field(default="", init=False)  # which weights, kept with the settings of a training

    def __post_init__(self) -> None:
        encoder, tokenizer = model_and_tokenizer(self.encoder)
        if not isinstance(encoder, PreTrainedModel) or not isinstance(tokenizer, PreTrainedTokenizerBase | None):
            raise InputError(
                f"objective {self.name}: the encoder is a {type(self.encoder).__name__}: expected a model of "
                "transformers, a model and its tokenizer, or what probes.load_checkpoint takes"
            )
        for setting, value in (("encoder", encoder), ("encoder_tokenizer", tokenizer)):
            object.__setattr__(self, setting, value)
        object.__setattr__(self, "encoded_by", weights_fingerprint(encoder))
        check_choice(self.name, "similarity", self.similarity, SIMILARITIES)
        if self.steepness is None:
            object.__setattr__(self, "steepness", STEEPNESS[self.similarity])
        check_number(self.name, "steepness", self.steepness or 0, above=0)
        check_number(self.name, "middle", self.middle)
        for setting in ("kl", "weight"):
            check_number(self.name, setting, getattr(self, setting), least=0)
        if self.learning_rate is not None:
            check_number(self.name, "learning_rate", self.learning_rate, above=0)
        check_count(self.name, "length", self.length)
        if self.segment is not None:
            check_count(self.name, "segment", self.segment)
        if self.references is not None and not isinstance(self.references, str):
            raise InputError(
                f"objective {self.name}: references is a {type(self.references).__name__}: expected the name of a "
                "column of the corpus, or nothing for what the teacher writes"
            )
        if self.layer is not None and not is_whole(self.layer):
            raise InputError(f"objective {self.name}: layer={self.layer!r}: expected a whole number of at least 0")

    @property
    def needs(self) -> frozenset[str]:
        """A teacher, where it writes the references."""
        return frozenset({"teacher"} if self.references is None else ())

    @property
    def columns(self) -> tuple[str, ...]:
        """What is read of the corpus."""
        return ("language",) if self.references is None else ("language", self.references)

    def check(self, student: PreTrainedModel, teacher: PreTrainedModel | None) -> None:
        """Raise `InputError` where the student, or a teacher that writes references, is no causal model."""
        writing = [student, *([teacher] if self.references is None and teacher is not None else [])]
        for model in writing:
            try:
                causal = predicts_next(model, self.name)
            except InputError:  # it predicts no tokens, or reads those that it is to predict
                causal = False
            if not causal:
                raise InputError(
                    f"objective {self.name}: {type(model).__name__} writes no text: expected a causal language model, "
                    "which predicts the next token"
                )

    def check_text(self, student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Rows) -> None:
        """Raise `InputError` where a reference is missing, a text has no room, or the encoder knows none
        of a language.
        """
        encoder = self.sentences(tokenizer)
        texts: dict[str, list[str]] = {}
        for row in rows:
            language = row["beside"]["language"]
            if self.references is None:
                text = decoded(row["input_ids"], tokenizer, skip_special_tokens=True)
            else:
                text = row["beside"][self.references]
                if not isinstance(text, str) or not text.strip():
                    raise InputError(
                        f"objective {self.name}: row {row['index']} of those trained on (language {language!r}) has "
                        f"no reference: expected a text in the column {self.references!r}, found {text!r}. Give it "
                        "one, or drop the row"
                    )
            texts.setdefault(language, []).append(text)
        limit = positions_of(student)
        longest = max(len(prompt_of(row["input_ids"], tokenizer)) for row in rows)
        if limit is not None and longest + self.length > limit:
            raise InputError(
                f"objective {self.name}: a prompt of {longest} tokens and length={self.length} more are above the "
                f"{limit} that {name_of(student)} reads: lower length, or max_length"
            )
        for language, found in texts.items():
            if not any(encoder.reads(text) for text in found):
                raise InputError(
                    f"objective {self.name}: the encoder {name_of(self.encoder)} cannot embed the language "
                    f"{language!r}: its tokenizer knows no letter of its {len(found)} texts, as {found[0][:60]!r}. "
                    "Give an encoder that was trained on it, or leave the language out"
                )

    def prepare(self, student: PreTrainedModel, teacher: PreTrainedModel | None, rows: Rows, seed: int) -> State:
        """Return the critic, with the student as it begins."""
        return _Critic(self, student, teacher, rows, seed)

    def sentences(self, tokenizer: PreTrainedTokenizerBase) -> Sentences:
        """Return the encoder, which reads by its own tokenizer or this one."""
        own = tokenizer if self.encoder_tokenizer is None else self.encoder_tokenizer
        return Sentences(self.encoder, own, self.layer, f"objective {self.name}")

    def rewards(
        self,
        texts: Sequence[Sequence[int]],
        references: Sequence[Sequence[int]],
        tokenizer: PreTrainedTokenizerBase,
        ends: Sequence[int],
    ) -> list[list[float]]:
        """Return the reward of each token of some texts: 0 but where a text, or a segment, ends.

        Args:
            texts: the tokens that were written, with the one that ends a text.
            references: the tokens of the reference of each.
            tokenizer: of the student.
            ends: tokens that end a text, which are none of it.
        """
        pairs: list[tuple[str, str]] = []
        places: list[tuple[int, int, int]] = []  # the text, the token that is rewarded, and segments of the reference
        for number, (text, reference) in enumerate(zip(texts, references, strict=True)):
            own = [token for token in text if token not in ends]
            size = self.segment or max(len(own), len(reference), 1)
            count = max(1, -(-len(reference) // size))
            for part in range(min(count, -(-len(own) // size))):
                start, stop = part * size, (part + 1) * size
                pairs.append((decoded(own[start:stop], tokenizer), decoded(reference[start:stop], tokenizer)))
                # A segment is whole with its last token, a text when nothing more is written.
                whole = self.segment is not None and stop <= len(own)
                places.append((number, stop - 1 if whole else len(text) - 1, count))
        out = [[0.0] * len(text) for text in texts]
        if pairs:
            both = self.sentences(tokenizer).vectors([text for pair in zip(*pairs, strict=True) for text in pair])
            found = likeness(both[: len(pairs)], both[len(pairs) :], self.similarity, self.steepness, self.middle)
            for (number, place, count), value in zip(places, found.tolist(), strict=True):
                out[number][place] += value / count
        return out

    def __call__(self, student: Pass, teacher: Pass | None, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return the loss of a batch of prompts: its value is minus what is aimed at, its gradient that
        of actor and critic.
        """
        state: _Critic = given_module(batch, self.name)
        read = state.written(student.model, batch)
        with evaluating(student.model, student.model.device):  # what is written is drawn without dropout
            given = student.model(
                input_ids=read.ids, attention_mask=read.mask, output_hidden_states=True, return_dict=True
            )
        logs = wide(given.logits)[:, :-1].log_softmax(2)
        with torch.no_grad():
            start = (
                None if state.start is None else wide(state.start(input_ids=read.ids, attention_mask=read.mask).logits)
            )
        values = state.value(wide(given.hidden_states[-1])[:, :-1].detach())
        said = actor_critic(
            logs, read.ids[:, 1:], values, read.rewards, read.written, None if start is None else start[:, :-1], self.kl
        )
        state.batches += 1
        reward, divergence = read.rewards.sum(1).mean(), said.divergence.sum(1).mean()
        critic = said.critic.sum() / read.written.sum()
        numbers = {"reward": reward, "kl": divergence, "length": read.lengths.mean()}
        numbers |= {"repetition": read.repetition.mean(), "critic": critic}
        state.noted = {f"{self.name}.{name}": float(value.detach()) for name, value in numbers.items()}
        aim = self.kl * divergence.detach() - reward
        actor = said.actor.mean()
        return self.weight * (aim.to(actor) + actor - actor.detach()) + critic - critic.detach()


class Losses(NamedTuple):
    """What actor and critic learn by."""

    actor: torch.Tensor  # (text,)
    critic: torch.Tensor  # (text, token), in nats; 0 where nothing was written
    divergence: torch.Tensor  # (text, token), KL in nats; 0 where nothing was written


def actor_critic(
    logs: torch.Tensor,
    taken: torch.Tensor,
    values: torch.Tensor,
    rewards: torch.Tensor,
    written: torch.Tensor,
    start: torch.Tensor | None = None,
    kl: float = 0.0,
) -> Losses:
    """Return what actor and critic learn by; drawn from the actor, the mean gradient of its loss is
    that of minus the expected reward, plus kl times the expected divergence from the start.

    Args:
        logs: (text, token, token of the vocabulary), logarithms of the actor's probabilities.
        taken: (text, token), what was written there.
        values: (text, token), the logit of what the critic expects from there on.
        rewards: (text, token), for what was written there, all of a text together 0 to 1.
        written: (text, token), False at the prompt and at padding.
        start: logits of the model that the actor is held to.
        kl: what the divergence counts.

    Example:
        >>> logs = torch.tensor([[[0.25, 0.75]]]).log()
        >>> one, zero = torch.ones(1, 1), torch.zeros(1, 1)
        >>> said = actor_critic(logs, zero.long(), zero, one, one.bool())  # (1 - 1/2) * log 4
        >>> round(said.actor.item(), 3), round(said.critic.item(), 3)
        (0.693, 0.693)
    """
    returns = _to_come(rewards)
    if start is None or not kl:
        divergence = torch.zeros_like(rewards).to(logs)
    else:
        other = start.log_softmax(2)
        each = torch.where(logs > -torch.inf, logs.exp() * (logs - other), 0)
        divergence = each.sum(2).masked_fill(~written, 0)
    later = _to_come(divergence.detach()) - divergence.detach()
    gain = returns.to(logs) - values.detach().sigmoid().to(logs) - kl * later
    of_taken = logs.gather(2, taken[..., None])[..., 0].masked_fill(~written, 0)
    actor = (-gain.masked_fill(~written, 0) * of_taken + kl * divergence).sum(1)
    critic = F.binary_cross_entropy_with_logits(values, returns.clamp(0, 1).to(values), reduction="none")
    return Losses(actor, critic.masked_fill(~written, 0), divergence)


def _to_come(x: torch.Tensor) -> torch.Tensor:
    """The sum from each token to the last one."""
    return x.flip(1).cumsum(1).flip(1)


def prompt_of(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens of a prompt without the special ones that end a text.

    Example:
        >>> import probes
        >>> _, tokenizer = probes.load_checkpoint("bundled-decoder")
        >>> prompt_of(tokenizer("They")["input_ids"], tokenizer)  # without </s>
        [1, 3386]
    """
    special, out = set(tokenizer.all_special_ids), list(ids)
    while len(out) > 1 and out[-1] in special:
        out.pop()
    return out


def decoded(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase, **how: Any) -> str:
    """Return the text of some tokens."""
    return str(tokenizer.decode(list(ids), **how))


def ends_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens that end a text, by the tokenizer and what the model says."""
    own = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    found = [tokenizer.eos_token_id, tokenizer.sep_token_id, *(own if isinstance(own, list | tuple) else [own])]
    return sorted({token for token in found if isinstance(token, int)})


class _Read(NamedTuple):
    """Prompts with what was written after them, padded on the right."""

    ids: torch.Tensor  # (text, 1 + token)
    mask: torch.Tensor
    written: torch.Tensor  # (text, token), of the tokens after the first
    rewards: torch.Tensor  # (text, token)
    lengths: torch.Tensor  # (text,)
    repetition: torch.Tensor  # (text,)


class _Critic(State):
    """A map from the student's states to what reward is to come; what else a training of rewards remembers."""

    def __init__(
        self,
        objective: SimilarityReward,
        student: PreTrainedModel,
        teacher: PreTrainedModel | None,
        rows: Rows,
        seed: int,
    ) -> None:
        super().__init__(seed)
        self.value_head = torch.nn.Linear(size_of(student, "hidden_size"), 1)
        torch.nn.init.zeros_(self.value_head.weight)
        torch.nn.init.zeros_(self.value_head.bias)
        start = None
        if objective.kl:
            start = copy.deepcopy(student).eval().requires_grad_(False)
        # In tuples: none of it is learned, or kept in checkpoints.
        self.apart = (objective, start, teacher)
        self.rows, self.noted, self.known = rows, dict[str, float](), dict[int, list[int]]()

    @property
    def start(self) -> Any:
        """The student as it began, None where it is not held to that."""
        return self.apart[1]

    def value(self, states: torch.Tensor) -> torch.Tensor:
        """Return the logits of what is expected from each state on (text, token)."""
        said: torch.Tensor = self.value_head(states.to(self.value_head.weight.dtype))[..., 0]
        return said

    def written(self, student: PreTrainedModel, batch: Mapping[str, Any]) -> _Read:
        """Return what the student writes after the prompts of a batch, with its rewards."""
        objective, _, _ = self.apart
        tokenizer, device = batch["tokenizer"], student.device
        there = batch["attention_mask"].bool()
        prompts = [
            prompt_of(ids[mask].tolist(), tokenizer) for ids, mask in zip(batch["input_ids"], there, strict=True)
        ]
        ends = ends_of(student, tokenizer)
        seed = int(self.generator().integers(2**31))
        texts = continued(student, prompts, most=objective.length, ends=ends, seed=seed)
        references = self._references(batch["index"].tolist(), tokenizer)
        rewards = objective.rewards(texts, references, tokenizer, ends)
        width = max(len(p) + len(t) for p, t in zip(prompts, texts, strict=True))

        def beside(rows: Sequence[Sequence[float]], dtype: torch.dtype) -> torch.Tensor:
            return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], dtype=dtype, device=device)

        both = list(zip(prompts, texts, strict=True))
        ids = beside([p + t for p, t in both], torch.long)
        mask = beside([[1] * (len(p) + len(t)) for p, t in both], torch.long)
        written = beside([[0] * len(p) + [1] * len(t) for p, t in both], torch.bool)[:, 1:]
        of = beside([[0] * len(p) + r for p, r in zip(prompts, rewards, strict=True)], torch.float64)[:, 1:]
        own = [[token for token in text if token not in ends] for text in texts]
        numbers = torch.tensor([[len(text), repetition(text)] for text in own], dtype=torch.float64)
        return _Read(ids, mask, written, of, numbers[:, 0], numbers[:, 1])

    def _references(self, index: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
        """The tokens of the references of some rows; those of the teacher are written once."""
        objective, _, teacher = self.apart
        new = sorted(set(index) - self.known.keys())
        if objective.references is not None:
            for i in new:
                text = self.rows[i]["beside"][objective.references]
                self.known[i] = tokenizer(text, add_special_tokens=False)["input_ids"]
        elif new:
            assert teacher is not None  # it was asked for
            prompts = [prompt_of(self.rows[i]["input_ids"], tokenizer) for i in new]
            ends = ends_of(teacher, tokenizer)
            found = continued(teacher, prompts, most=objective.length, ends=ends, seed=None)
            self.known |= {i: [t for t in text if t not in ends] for i, text in zip(new, found, strict=True)}
        return [self.known[i] for i in index]
