"""What a probe says of itself, once: command line, figures, report, explorer and tests read it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import xarray as xr

from probes.results.draws import Sample

# What an interval is for.
LARGE = "for the value of a large sample"
THIS_SIZE = "for the mean over samples of this size"


@dataclass(frozen=True)
class Run:
    """What `compare` hands to a probe: a model's Representations, and what is the same for all
    models.

    Before the first model has run, `check` gets one too; its Representations hold no states yet.
    """

    reps: xr.Dataset
    sample: Sample  # of all models, so that their draws are paired
    base: xr.Dataset | None = None  # of the baseline; None where this is the baseline
    pivot: str | None = None
    seed: int = 0
    progress: bool = True
    corpus: Any = None
    # The baseline (None where this is the baseline) and the model themselves, and the tokenizer of both, where they are
    # at hand and probes run them.
    models: tuple[Any, Any, Any] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)  # of batches, for what runs the models
    # What `once` has computed: of these states, so that another run, made by `replace` or not, begins with nothing.
    kept: dict[str, Any] = field(default_factory=dict, init=False, compare=False)

    @property
    def draws(self) -> int:
        """The number of bootstrap draws."""
        return len(self.sample.weights) - 1

    def once(self, key: str, compute: Callable[[], Any]) -> Any:
        """Compute what does not depend on the draws, and is dear, once for these states."""
        if key not in self.kept:
            self.kept[key] = compute()
        return self.kept[key]


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A declaration. Probes that share one `measure` are measured by one call of it.

    Args:
        name: as in tables, and as it is asked for.
        title: as it stands over figures; the name in words where nothing else is given.
        estimator: what is computed, in one line.
        range: the values it can take, in words, and what the ends mean.
        bounds: what its interval is kept within.
        better: "higher" or "lower"; "" where neither is better.
        higher_is: what a higher value says, as "better separated".
        unchanged_by: what may happen to states or examples and leave the value as it is; all of it,
            and no more. "of either" where it may happen to one of two models alone.
        paper: where it is from; without one it has no single source.
        measure: from what a run gives to a result, or to several side by side along `measure`.
        family: the name under which it is asked for together with others.
        needs: what models and corpus have to give, in the words of `choice.NEEDS`.
        compares: whether it compares with the baseline, so that there is no difference to that.
        unchanged: where it compares, the value that says "nothing has changed".
        default: whether it is measured where nothing is asked for.
        tolerance: where models are judged by it, the largest loss that does not matter.
        harder: the name of one that asks the same of more, for where this one finds nearly all.
        interval: what the interval is for; "" where the value has none.
        check: raises `InputError` where ids, languages, labels and splits do not allow it.
    """

    name: str
    title: str = ""
    estimator: str
    range: str
    higher_is: str
    unchanged_by: tuple[str, ...]
    measure: Callable[[Run], xr.Dataset]
    paper: str = "no single source"
    better: Literal["higher", "lower", ""] = ""
    bounds: tuple[float, float] = (-float("inf"), float("inf"))
    family: str = ""
    needs: tuple[str, ...] = ()
    compares: bool = False
    unchanged: float = 1.0
    default: bool = False
    tolerance: float | None = None
    harder: str = ""
    interval: str = THIS_SIZE
    check: Callable[[Run], object] | None = None

    def __post_init__(self) -> None:
        if not self.title:
            object.__setattr__(self, "title", self.name.replace("_", " "))

    def about(self) -> dict[str, str]:
        """What stands beside its numbers, as attributes of a result."""
        return {
            "probe": self.name,
            "estimator": self.estimator,
            "range": self.range,
            "better": self.better,
            "higher_is": self.higher_is,
            "unchanged_by": ", ".join(self.unchanged_by),
            "paper": self.paper,
            "interval": self.interval,
        }

    def for_tables(self) -> dict[str, Any]:
        """What a reader of a table of its numbers has to know, as JSON keeps it."""
        about = {k: v for k, v in self.about().items() if k != "probe"}
        unchanged = str(self.unchanged) if math.isinf(self.unchanged) else self.unchanged
        return about | {
            "title": self.title,
            "compares": self.compares,
            "unchanged": unchanged if self.compares else None,
            "tolerance": self.tolerance,
            "harder": self.harder,
            "share": self.bounds == (0, 1),
        }
