"""A training that is watched: measured as it goes, changed by nothing."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
import xarray as xr
from transformers import (
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.integrations import get_reporting_integration_callbacks

from probes.comparison import Comparison, compare
from probes.corpus import check_corpus
from probes.errors import InputError, LayerscopeWarning, address_of
from probes.measures.choice import in_order
from probes.models.series import Series
from probes.remote import within
from probes.results.cells import NO_LAYER
from probes.results.draws import check_draws
from probes.states.capture import capture
from probes.states.ranks import alone
from probes.states.running import check_settings


class Watch(TrainerCallback):
    """Measure a model while it trains, every so many steps, in place.

    Add it to a Trainer of transformers, or give it to a verb of `compress` as
    `callbacks=[watch]`. The training is the same to the last bit as without it: the model is read in
    evaluation mode and put back, and random numbers go on where they were. What is found goes to the
    Trainer's own loggers (`report_to`: TensorBoard, W&B, MLflow, ...) and to its history, as
    `retrieval/fra/layer6` with `..._low` and `..._high`.

    Args:
        corpus: what it is measured on, as `load_corpus` gives it.
        every: so many steps; the first and the last one are measured too.
        probes: names of probes or families, as in `compare`; by default those that it measures of
            one model.
        pivot: as in `compare`.
        tokenizer: by default the Trainer's `processing_class`.
        name: what the training is called.
        draws, seed: of the bootstrap.
        store: a folder for the states of every step, one store a step; without it they stay in
            memory.
        settings: of `capture`: pooling, max_length, batch_size, ...

    Attributes:
        states: step -> Representations.

    Raises:
        InputError: every is no whole number of at least 1; what `compare` raises of corpus, probes
            and settings.

    See also:
        `series`, `Comparison.since`, `Comparison.plot_steps`.

    Example:
        >>> import compress, probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> corpus = probes.load_corpus("bundled", split="dev", languages=["en"])
        >>> watch = Watch(corpus, every=2, probes=["snr"], tokenizer=tokenizer, draws=10)
        >>> train = probes.load_corpus("bundled", split="train", languages=["en"])
        >>> how = {"train": train, "tokenizer": tokenizer, "batch_size": 4, "progress": False}
        >>> _ = compress.finetune(model, steps=4, callbacks=[watch], **how)
        >>> watch.comparison().steps()["step"].unique().tolist()
        [0, 2, 4]
    """

    def __init__(
        self,
        corpus: datasets.Dataset,
        *,
        every: int = 100,
        probes: Sequence[str] | None = None,
        pivot: str | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        name: str = "training",
        draws: int = 200,
        seed: int = 0,
        store: str | Path | None = None,
        **settings: Any,
    ) -> None:
        """Check what can be before the training."""
        if not isinstance(every, int) or isinstance(every, bool) or every < 1:
            raise InputError(f"every={every!r}: expected a whole number of steps, at least 1")
        if isinstance(probes, str):
            raise InputError(f"probes={probes!r}: expected a list of names")
        if probes is not None:
            in_order(probes)
        check_draws(draws, seed)
        check_settings(**settings)
        self.corpus = check_corpus(corpus)
        self.every, self.probes, self.pivot, self.tokenizer, self.name = every, probes, pivot, tokenizer, name
        self.draws, self.seed, self.settings = draws, seed, {"progress": False} | settings
        self.store = None if store is None else address_of(store, "store")
        self.states: dict[int, xr.Dataset] = {}
        self._reporters: list[TrainerCallback] | None = None

    def comparison(self) -> Comparison:
        """Return what was measured as a comparison: a series of the steps, the first the baseline.

        Raises:
            InputError: nothing was measured yet.
        """
        if not self.states:
            raise InputError(f"{self.name}: nothing was measured yet: add it to a Trainer and train")
        return self._compared(Series(dict(sorted(self.states.items()))), self.name)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Measure the model as it is given."""
        self._measure(args, state, control, given)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Measure every so many steps."""
        if state.global_step % self.every == 0:
            self._measure(args, state, control, given)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Measure what came out, where that was not done."""
        self._measure(args, state, control, given)

    def _measure(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, given: dict[str, Any]
    ) -> None:
        step = state.global_step
        if step in self.states or not state.is_world_process_zero:
            return
        model = given["model"]
        model = getattr(model, "module", model)  # as it is wrapped on several processes
        tokenizer = given.get("processing_class") if self.tokenizer is None else self.tokenizer
        if not isinstance(tokenizer, PreTrainedTokenizerBase):
            raise InputError(f"{self.name}: the Trainer has no tokenizer: give Watch(..., tokenizer=...)")
        store = None if self.store is None else within(self.store, f"{self.name} {step}.zarr")
        where = {"device": next(model.parameters()).device} | self.settings
        with unchanged(), alone():  # the other processes train on
            name = f"{self.name} {step}"
            reps = capture(model, tokenizer, self.corpus, store=store, name=name, **where)
            with warnings.catch_warnings():
                if self.states:  # said the first time
                    warnings.simplefilter("ignore", LayerscopeWarning)
                found = self._compared(reps, name)
        self.states[step] = reps
        logs = as_logs(found)
        state.log_history.append({**logs, "step": step})
        if self._reporters is None:
            # Of the same kinds as the Trainer's, which a callback is not handed: they write to the same run.
            self._reporters = [kind() for kind in get_reporting_integration_callbacks(args.report_to)]
        for reporter in self._reporters:
            reporter.on_log(args, state, control, logs=dict(logs), model=model)

    def _compared(self, model: Any, name: str) -> Comparison:
        about: dict[str, Any] = {"pivot": self.pivot, "probes": self.probes, "draws": self.draws, "seed": self.seed}
        return compare({name: model}, progress=False, **about)


def as_logs(found: Comparison) -> dict[str, float]:
    """Return the numbers of one model by names as loggers have them; maps are left out.

    Example:
        >>> import numpy as np, probes
        >>> x, y = np.random.default_rng(0).normal(size=(60, 8)), np.arange(60) % 3
        >>> reps = probes.from_arrays(x, label=y)
        >>> sorted(as_logs(probes.compare({"one": reps}, probes=["snr"], progress=False)))[:2]
        ['snr/pooled/layer0', 'snr/pooled/layer0_high']
    """
    out = {}
    for row in found.table[~found.table["probe"].map(found.is_map)].itertuples():
        where = "output" if row.layer == NO_LAYER else f"layer{row.layer}"
        for end, value in (("", row.value), ("_low", row.low), ("_high", row.high)):
            if np.isfinite(value):
                out[f"{row.probe}/{row.language}/{where}{end}"] = float(value)
    return out


@contextmanager
def unchanged() -> Iterator[None]:
    """Let random numbers go on afterwards as if nothing had been drawn."""
    python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - whoever draws from these
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(of_numpy)  # noqa: NPY002
