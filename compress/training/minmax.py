"""Which step of a robust training is kept where no group is known: the one that the worst adversary finds least fault
with.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.objectives.base import Pass, given_logits, is_whole
from compress.objectives.by_text import inputs_by
from compress.objectives.robust import Robust
from compress.objectives.robust_adversaries import Adversary, relative_entropy
from compress.rows import training_rows
from compress.training.checkpoints import AGAIN
from compress.training.kept import Keeps
from probes.corpus import corpus_fingerprint
from probes.errors import InputError
from probes.models.facts import head_of
from probes.models.weights import stored_bytes
from probes.states.running import evaluating

_BATCH = 32
_MOST = float(np.log(10))  # mean r log r of an adversary that looks at few texts alone, and counts nothing


class MinmaxValidation(Keeps):
    """Keeps the weights of the step that does best by the worst adversary, on held-out text.

    Every some steps it takes the losses of held-out texts, and how much the adversary of that step
    makes each count, r, 1 on average. The robust loss of some weights is the largest mean of r *
    loss over all adversaries until then, plain training (r = 1) among them; one whose mean r log r is
    above log 10 is left out. The weights with the lowest robust loss stay, and are put into the model
    at the end.

    Args:
        objective: what is trained for, of method "rp-dro" or "p-dro".
        tokenizer: of the model.
        dev: held-out text, with labels; no group is needed.
        every: steps from one look to the next, at least 1; there is one at the end of the training,
            where it is divided by it.
        errors: count errors, each 0 or 1, in place of losses: of one class a text.
        max_length, prompt: how held-out text is read, those of the training; None for what the
            checkpoint declares.

    Attributes:
        looks: one row a look: `step`, `loss` (plain), `robust` as it was then, and whether it was
            `kept`; with `errors` both are of errors.

    Raises:
        InputError: the objective has no adversary, or needs a teacher; `every` is no whole number; at
            the training, another objective is trained for, there are no classes to be wrong about, or
            it goes on from one that looked at other text, at other steps, or counted the other.

    Notes:
        Michel, Hashimoto and Neubig 2021, arXiv 2103.10282, by losses; 2022 (RP-DRO), arXiv
        2204.06340, by errors. Choices made here: r of P-DRO is brought to the mean 1, and of all
        steps the best one until then is held to each new one, so that one that was passed over does
        not come back.

    Example:
        >>> import compress, probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> corpus = probes.load_corpus("bundled", languages=["en"])
        >>> train, dev = (corpus.select(range(i, i + 16)) for i in (0, 16))
        >>> objective = compress.Robust(compress.CrossEntropy(), method="rp-dro")
        >>> kept = MinmaxValidation(objective, tokenizer, dev.remove_columns("split"), every=1)
        >>> how = {"steps": 2, "batch_size": 8, "progress": False, "callbacks": [kept]}
        >>> tuned = compress.finetune(
        ...     model, tokenizer=tokenizer, train=train.remove_columns("split"), objective=objective, **how
        ... )
        >>> kept.looks["step"].tolist()
        [1, 2]

    See also:
        `Robust`, `compress.recipes.rp_dro`
    """

    file = "minmax.safetensors"

    def __init__(
        self,
        objective: Robust,
        tokenizer: PreTrainedTokenizerBase,
        dev: datasets.Dataset,
        *,
        every: int,
        errors: bool = False,
        max_length: int | None = None,
        prompt: str | None = None,
    ) -> None:
        """Check what can be before the training."""
        if not isinstance(objective, Robust) or objective.method not in ("rp-dro", "p-dro"):
            raise InputError(
                "MinmaxValidation asks adversaries, and the objective has none: give a Robust of method "
                '"rp-dro" or "p-dro"'
            )
        if "teacher" in objective.needs:
            raise InputError(
                f"MinmaxValidation: {objective.objective.name} needs a teacher: give an objective of labels"
            )
        if not is_whole(every) or every < 1:
            raise InputError(f"every={every!r}: expected a whole number of at least 1, steps from one look to the next")
        if "split" in dev.column_names:
            dev = dev.remove_columns("split")
        self.objective, self.tokenizer, self.dev, self.every, self.errors = objective, tokenizer, dev, every, errors
        self.reading: dict[str, Any] = {"max_length": max_length, "prompt": prompt}
        self.modules: Mapping[str, torch.nn.Module] = {}  # what objectives learn, which a training gives
        self.found: dict[str, np.ndarray] = {}
        self.weights: dict[str, torch.Tensor] = {}
        self.fingerprint = corpus_fingerprint(dev)

    @property
    def looks(self) -> pd.DataFrame:
        """What was found at each look."""
        names = ("step", "loss", "robust", "kept")
        return pd.DataFrame({name: self.found.get(name, np.zeros(0)) for name in names}).astype(
            {"step": int, "kept": bool}
        )

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> None:
        """Ask the adversary how it begins, or take up what was found until a checkpoint."""
        if not isinstance(self.modules.get(self.objective.name), Adversary):
            raise InputError(
                f"MinmaxValidation is given objective {self.objective.name}, which is not trained for: give the same "
                "to both"
            )
        columns = self.objective.columns
        self.rows, labelled = training_rows(self.dev, model, self.tokenizer, columns=columns, **self.reading)
        if self.errors and not (labelled and head_of(model) == "classes"):
            raise InputError(
                "MinmaxValidation(errors=True) counts texts whose class is wrong: give a model with a head of classes "
                "and dev a column 'label', or leave errors out"
            )
        super().on_train_begin(args, state, control, model=model, **more)
        if not state.global_step:
            self.found["start"] = self._seen(model)[1]

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Look, where it is time."""
        if state.global_step % self.every:
            return
        losses, logs = self._seen(model)
        self.take(state.global_step, losses, logs - self.found["start"], model)

    def take(self, step: int, losses: np.ndarray, logs: np.ndarray, model: torch.nn.Module) -> None:
        """Take up losses (text,) and log-ratios up to a constant (text,) of a step."""
        r = np.exp(logs - logs.max())
        r = r / r.mean()
        before = self.found.get("r", np.ones((1, len(losses))))
        every = np.concatenate([before, r[None]]) if relative_entropy(r) <= _MOST else before
        robust, best = worst(losses, every), self.found.get("best")
        keep = best is None or robust < worst(best, every)
        if keep:
            self.found["best"] = losses
            self.weights = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
        self.found["r"] = every
        for name, value in (("step", step), ("loss", losses.mean()), ("robust", robust), ("kept", keep)):
            self.found[name] = np.append(self.found.get(name, np.zeros(0)), float(value))

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Put the best weights into the model."""
        if self.weights:
            model.load_state_dict(self.weights)

    def _seen(self, model: PreTrainedModel) -> tuple[np.ndarray, np.ndarray]:
        """Return loss, or error, and log-ratio of each held-out text, as model and adversary are now."""
        adversary: Any = self.modules[self.objective.name]
        losses, logs = [], []
        with evaluating(model, model.device), torch.no_grad():
            for i in range(0, len(self.rows), _BATCH):
                rows = self.rows[i : i + _BATCH]
                batch: dict[str, Any] = {**inputs_by(rows, model), "modules": {self.objective.name: adversary}}
                batch["index"] = torch.arange(len(rows), device=model.device)
                if "labels" in rows[0]:
                    batch["labels"] = torch.tensor([row["labels"] for row in rows], device=model.device)
                given = {k: v for k, v in batch.items() if k not in ("modules", "index", "labels")}
                student = Pass(model, model(**given, return_dict=True).logits)
                if self.errors:
                    cost = given_logits(student, self.objective.name).argmax(1) != batch["labels"]
                else:
                    cost = self.objective.objective.each(student, None, batch)  # type: ignore[attr-defined]
                losses.append(cost.double().cpu())
                logs.append(adversary.logs(rows, model, batch).double().cpu())
        return torch.cat(losses).numpy(), torch.cat(logs).numpy()

    def size(self, student: PreTrainedModel) -> int:
        """Return the bytes of the weights that are kept."""
        return stored_bytes(student)

    def settings(self) -> dict[str, str]:
        """Return what a training that goes on must have as it was."""
        dev = f"text of fingerprint {self.fingerprint}"
        return {"every": str(self.every), "errors": str(self.errors), "dev": dev}

    def write(self, path: Path) -> None:
        """Write what was found so far, and the best weights."""
        found = {f"found/{k}": torch.from_numpy(np.ascontiguousarray(v)) for k, v in self.found.items()}
        save_file(found | {f"weights/{k}": v.contiguous() for k, v in self.weights.items()}, path, self.settings())

    def read(self, path: Path) -> None:
        """Take up what was found until a checkpoint."""
        with safe_open(path, "pt") as opened:
            there = opened.metadata() or {}
            kept = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        for name, value in self.settings().items():
            if there.get(name) != value:
                raise InputError(f"{name} is {value} here and was {there.get(name)} there. {AGAIN}")
        self.found = {k.removeprefix("found/"): v.numpy() for k, v in kept.items() if k.startswith("found/")}
        self.weights = {k.removeprefix("weights/"): v for k, v in kept.items() if k.startswith("weights/")}


def worst(losses: np.ndarray, ratios: np.ndarray) -> float:
    """Return the largest mean loss (text,) over adversaries whose ratios (adversary, text) weigh it.

    Example:
        >>> worst(np.array([1.0, 3.0]), np.array([[1.0, 1.0], [0.0, 2.0]]))
        3.0
    """
    return float((ratios * losses).mean(1).max())
