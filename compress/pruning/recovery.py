"""Recovery: how much a model loses at each pruning, and how fast it comes back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from probes.errors import InputError


def recovery(history: pd.DataFrame, metric: str = "accuracy", at: Sequence[int] | None = None) -> pd.DataFrame:
    """Tell from what was logged in training what each pruning cost, and when it was made up for.

    Args:
        history: `model.history` of `compress.prune(..., evaluate=...)`: rows with `when` "before"
            and "after".
        metric: the measured number, higher is better.
        at: the steps of the prunings; by default those that `compress.prune` noted.

    Returns:
        One row a pruning: `step`; `before` and `after`, the metric on both sides of it; `drop`,
        their difference; `t90`, after how many updates nine tenths of the drop were regained
        (infinite where that does not come before the next pruning, 0 where nothing was lost);
        `gap`, the mean distance below `before` until the next pruning; and of the matrices that are
        pruned, where `compress.prune` logged them, `distortion`, the length of what was set to zero
        over that of the weights (0 to 1), and `hoyer`, their mean sparsity just before.

    Raises:
        InputError: the history holds no such metric, or no measure around a pruning.

    Notes:
        After the learning curves of O' Neill, Dutta and Assem 2021, arXiv 2109.15014; the numbers
        are a choice made here. The metric is known where it was measured (`evaluate_at`), and taken
        as a straight line in between.

    Example:
        >>> rows = [(1, "before", 0.9), (1, "after", 0.5), (2, "after", 0.7)]
        >>> rows += [(3, "after", 0.9), (4, "after", 0.9)]
        >>> history = pd.DataFrame(rows, columns=["step", "when", "accuracy"])
        >>> recovery(history, at=[1])[["drop", "t90", "gap"]].round(3).values.tolist()
        [[0.4, 2.0, 0.133]]

    See also:
        `prune`, `compress.recipes.self_distilled_pruning`.
    """
    at = history.attrs.get("pruned_at") if at is None else list(at)
    if "when" not in history or metric not in history:
        raise InputError(
            f"the history has no {metric!r} measured before and after a pruning, only {', '.join(map(repr, history))}. "
            "Prune with evaluate=..., which gives it"
        )
    if not at:
        raise InputError("which steps pruned is not noted in the history: give at=[...]")
    measured = history.dropna(subset=["when", metric]).set_index(["when", "step"])[metric]
    rows = []
    for step, following in zip(at, [*at[1:], np.inf], strict=True):
        if ("before", step) not in measured.index or ("after", step) not in measured.index:
            raise InputError(f"step {step}: the metric was not measured before and after it. Add it to evaluate_at")
        before, after = float(measured["before", step]), float(measured["after", step])
        curve = measured["after"]
        curve = curve[(curve.index >= step) & (curve.index < following)]
        if ("before", following) in measured.index:  # what the interval ends with
            curve.loc[following] = measured["before", following]
        t, value, drop = curve.index.to_numpy(float) - step, curve.to_numpy(float), before - after
        back = t[value >= after + 0.9 * drop]
        gap = np.trapezoid(np.maximum(before - value, 0), t) / t[-1] if t[-1] > 0 else max(drop, 0.0)
        t90 = 0.0 if drop <= 0 else float(back[0]) if len(back) else np.inf
        row = {"step": step, "before": before, "after": after, "drop": drop, "t90": t90, "gap": float(gap)}
        if {"weight_norm", "hoyer"} <= set(history):
            row |= _of_weights(history, step)
        rows.append(row)
    return pd.DataFrame(rows)


def _of_weights(history: pd.DataFrame, step: int) -> dict[str, float]:
    """Return what a pruning did to the weights, and how sparse they were."""
    here = history[history["step"] == step].dropna(subset=["when"]).set_index("when")
    before, after = (float(here.loc[when, "weight_norm"]) for when in ("before", "after"))
    share = (after / before) ** 2 if before else np.nan
    return {"distortion": float(np.sqrt(max(1 - share, 0.0))), "hoyer": float(here.loc["before", "hoyer"])}
