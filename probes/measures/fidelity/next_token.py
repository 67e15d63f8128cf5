"""What compression does to the distribution of the next token: loss, divergence, agreement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import datasets
import numpy as np
import xarray as xr
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from probes.corpus import check_corpus
from probes.measures.fidelity.tokens import shown_tokens
from probes.measures.probe import LARGE, Probe, Run
from probes.models.facts import name_of
from probes.results.draws import POOLED, Sample, sample, spread, weighted_ratios
from probes.results.intervals import of_shares
from probes.results.result import result, stack_measures
from probes.states.by_token import PER_TEXT, Said, said_by
from probes.states.representations import from_arrays


def next_token(
    base: PreTrainedModel,
    other: PreTrainedModel | None,
    tokenizer: PreTrainedTokenizerBase,
    corpus: datasets.Dataset,
    *,
    per_text: int = PER_TEXT,
    draws: int = 200,
    seed: int = 0,
    progress: bool = True,
    names: tuple[str, str] | None = None,
    **settings: Any,
) -> xr.Dataset:
    """Measure how well a compressed language model predicts text, and how far its predictions are
    from its original's, token by token.

    Args:
        base, other: the original and the compressed model, both of the next token or both of
            masked ones; without `other` the original alone is measured.
        tokenizer: of both.
        corpus: as `load_corpus` gives it.
        per_text: of models of masked tokens, how many tokens of a text are masked at most, each
            alone (a pseudo-log-likelihood); which, its id, its language and the seed say.
        draws, seed: of the bootstrap by sentence id.
        progress: show a progress bar.
        names: what the two are called in tables and messages; by default the names they were loaded
            by.
        settings: of `capture`: max_length, prompt, device, batch_size, batch_tokens.

    Returns:
        `value, low, high (measure, language)`, all languages together as `pooled`. Of one model:

        | measure | |
        |---|---|
        | `nats_per_token` | mean loss of a predicted token, 0 to infinity, lower is better |
        | `perplexity` | its exponential, 1 to infinity, lower is better |
        | `bits_per_byte` | all bits over the bytes of the texts in UTF-8, lower is better: the one \
that may be compared between tokenizers, and with care between languages |

        Against the original: `kl` (mean of KL(base || other) in nats, 0 to infinity, lower is
        better preserved), `kl_median`, `kl_p90`, `kl_p99`, `kl_p999` and `kl_max` over tokens,
        `same_top_token` (share of tokens, 0 to 1), `probability_change` (of the right token, mean,
        -1 to 1), `probability_change_rms` (0 to 1) and `log_perplexity_ratio` (0 where nothing has
        changed, above where the other predicts worse). The attribute `worst_tokens` holds the
        sentences of the ten tokens of decoders that moved most, token by token, and `drawn_tokens`
        one that the seed draws, in up to twelve languages.

    Raises:
        InputError: before the first forward pass: a model has no output layer over tokens, the two
            predict other tokens, every text is one token long, there is no mask token.

    Notes:
        The statistics are those that llama.cpp prints, with these differences: whole sentences are
        read rather than the second half of windows of a text; changes of probabilities are shares,
        not per cent; errors are intervals over sentences, not over tokens that are taken for
        independent; nothing is rounded before it is compared. Pseudo-log-likelihood: Salazar et al.
        2020, arXiv 1910.14659. The first token of a text is predicted only where the tokenizer sets
        one before it; its bytes count all the same. Logits are held of so many tokens at a time as
        make a megabyte, and never of a batch.

    See also:
        `compare`, `loyalty`, `module_error`.

    Example:
        >>> import compress, probes
        >>> model, tokenizer = probes.load_checkpoint("bundled-decoder")
        >>> corpus = probes.load_corpus("bundled", split="dev", languages=["en"]).select(range(20))
        >>> rounded = compress.quantize(model, bits=8)
        >>> found = next_token(model, rounded, tokenizer, corpus, progress=False)
        >>> bool(found.value.sel(measure="kl", language="pooled") < 0.05)
        True
    """
    corpus = check_corpus(corpus)
    # One number a text stands for its states: what is drawn is texts.
    columns: dict[str, Any] = {c: corpus[c][:] for c in ("id", "language", "group") if c in corpus.column_names}
    reps = from_arrays(np.zeros((len(corpus), 1)), **columns)
    one, two = names or (name_of(base), name_of(base if other is None else other))
    run = Run(
        reps.assign_attrs(model=one if other is None else two),
        sample(reps, draws=draws, seed=seed),
        base=None if other is None else reps.assign_attrs(model=one),
        seed=seed,
        progress=progress,
        corpus=corpus,
        models=(None, base, tokenizer) if other is None else (base, other, tokenizer),
        settings=settings,
    )
    return _measured(run, per_text)


def _measured(run: Run, per_text: int = PER_TEXT) -> xr.Dataset:
    assert run.models is not None  # it needs models to run
    base, own, tokenizer = run.models
    both = [m for m in (base, own) if m is not None]
    names = [str(r.attrs["model"]) for r in (run.base, run.reps) if r is not None][-len(both) :]
    given: dict[str, Any] = {"who": "next_token", "per_text": per_text, "seed": run.seed, "progress": run.progress}
    said = run.once("next_token", lambda: said_by(both, tokenizer, run.corpus, names, **given, **run.settings))
    results = _of_one(run, said)
    if base is None:
        return stack_measures(results)
    results += _of_two(run, said, names[0])
    worst, drawn = run.once(
        "shown tokens", lambda: shown_tokens((base, own), tokenizer, run.corpus, said, names, run.settings, run.seed)
    )
    return stack_measures(results).assign_attrs(worst_tokens=worst, drawn_tokens=drawn)


def _of_one(run: Run, said: Said) -> list[xr.Dataset]:
    """What is said of a model by itself."""
    drawn, count = run.sample, len(run.sample.ids)
    losses = _summed(said.nats[-1], said, count)
    nats = weighted_ratios(drawn, losses, _summed(1, said, count))
    bits = weighted_ratios(drawn, losses / np.log(2), said.size.astype(float))
    with np.errstate(over="ignore"):
        return [
            _result(run, said, _NATS, nats),
            _result(run, said, _PERPLEXITY, {k: np.exp(v) for k, v in nats.items()}),
            _result(run, said, _BITS, {k: np.where(np.isnan(nats[k]), np.nan, v) for k, v in bits.items()}),
        ]


def _of_two(run: Run, said: Said, original: str) -> list[xr.Dataset]:
    """What is said of a model beside its original."""
    drawn, count = run.sample, len(run.sample.ids)
    tokens = _summed(1, said, count)
    change = np.exp(-said.nats[1]) - np.exp(-said.nats[0])

    def mean(values: np.ndarray) -> dict[str, np.ndarray]:
        return weighted_ratios(drawn, _summed(values, said, count), tokens)

    def out(probe: Probe, values: dict[str, np.ndarray]) -> xr.Dataset:
        return _result(run, said, probe, values).assign_attrs(other_model=original)

    over = _quantiles(drawn, said.kl, said.row, list(_AT.values()))
    found = [out(_KL, mean(said.kl))]
    counts = [max(tokens[drawn.group(group)].sum(), 1) for group in over]
    of_tokens = xr.DataArray(counts, dims="language")
    for i, (probe, at) in enumerate(_AT.items()):
        one = out(probe, {k: v[:, i] for k, v in over.items()})
        told = of_tokens * (1 - at) >= _BEYOND
        found.append(one.assign(low=one["low"].where(told), high=one["high"].where(told)))
    share = out(_SAME, mean(np.where(np.isnan(said.kl), np.nan, said.same)))
    # What is right or wrong is tokens: the interval is for as many of these as their spread speaks of.
    found.append(of_shares(share.assign(n=of_tokens)).assign(n=share["n"]))
    found.append(out(_CHANGE, mean(change)))
    found.append(out(_CHANGE_RMS, {k: np.sqrt(v) for k, v in mean(change**2).items()}))
    found.append(out(_RATIO, mean(said.nats[1] - said.nats[0])))
    return found


def _summed(values: Any, said: Said, count: int) -> np.ndarray:
    """Sums over the tokens of each text (text,)."""
    return np.bincount(said.row, np.broadcast_to(np.asarray(values, float), said.row.shape), minlength=count)


def _quantiles(drawn: Sample, values: np.ndarray, row: np.ndarray, at: Sequence[float]) -> dict[str, np.ndarray]:
    """Quantiles of tokens in every language and pooled, (1 + draws, quantile), interpolated linearly as numpy does.

    A draw holds the tokens of each text as often as the text: quantiles of what that repeats, without repeating it.
    """
    order = np.argsort(values, kind="stable")
    values, row = values[order], row[order]
    out = {}
    for group in [*drawn.languages, POOLED]:
        rows = drawn.group(group)
        here = np.ones(len(row), bool) if group == POOLED else np.isin(row, rows)
        there, of = values[here], drawn.ids[row[here]]
        found = np.full((len(drawn.weights), len(at)), np.nan)
        if len(there) and np.isfinite(there).all():
            for draw, weights in enumerate(drawn.weights):
                ends = np.cumsum(weights[of], dtype=np.int64)  # so many tokens are at most this one
                if ends[-1]:
                    places = np.asarray(at) * (ends[-1] - 1)
                    low, high = (there[np.searchsorted(ends, f(places), side="right")] for f in (np.floor, np.ceil))
                    found[draw] = low + (places - np.floor(places)) * (high - low)
        out[group] = spread(drawn, found, rows)
    return out


def _result(run: Run, said: Said, probe: Probe, values: dict[str, np.ndarray]) -> xr.Dataset:
    drawn = run.sample
    tokens = _summed(1, said, len(drawn.ids))
    bad = _summed(~(np.isfinite(said.nats).all(axis=0)), said, len(drawn.ids))
    if len(said.kl):
        bad += _summed(~np.isfinite(said.kl) & np.isfinite(said.nats).all(axis=0), said, len(drawn.ids))
    # An infinite loss or divergence has no interval, and is told from a large one by name.
    values = {k: np.where(np.isinf(v), np.nan, v) if probe is not _PERPLEXITY else v for k, v in values.items()}

    def missing(_at: tuple[int, ...], language: str) -> str:
        rows = drawn.group(language)
        if not tokens[rows].sum():
            return "the output: no text has a token to predict"
        return f"the output: what is said of {int(bad[rows].sum())} tokens is not finite (logits that are NaN or -inf)"

    out = result(run.reps, drawn, values, probe.about(), bounds=probe.bounds, over={}, missing=missing)
    return out.assign_attrs(reads=said.reads)


_NONE = "none: no draw holds a larger one"
_BEYOND = 5  # tokens that lie beyond a quantile where it has an interval: of fewer no draw tells how far they may lie
_of_tokens: Callable[..., Probe] = partial(
    Probe,
    better="lower",
    bounds=(0, np.inf),
    unchanged_by=("a constant added to all logits of a token", "order"),
    needs=("predicted tokens", "models to run"),
    family="next_token",
    default=True,
    interval=LARGE,
    measure=_measured,
)
_NATS = _of_tokens(
    name="nats_per_token",
    title="nats a token",
    estimator="mean of -log p of the tokens that are predicted, over all tokens, in nats",
    range="0 to infinity; 0 where every token is certain",
    higher_is="worse predicted",
)
_PERPLEXITY = replace(
    _NATS,
    name="perplexity",
    title="perplexity",
    estimator="exp of the mean of -log p of the tokens that are predicted",
    range="1 to infinity; 1 where every token is certain; of one tokenizer only",
    bounds=(1, np.inf),
)
_BITS = replace(
    _NATS,
    name="bits_per_byte",
    title="bits per byte",
    estimator="sum of -log2 p of the tokens that are predicted, over the bytes of the texts in UTF-8",
    range="0 to infinity; may be compared between tokenizers",
    tolerance=0.02,
)
_KL = _of_tokens(
    name="kl",
    title="KL divergence from the baseline",
    estimator="mean over tokens of KL(baseline || model) of the distributions of a token, in nats",
    range="0 to infinity; 0 where all distributions are the same",
    higher_is="worse preserved",
    needs=("predicted tokens", "models to run", "another model", "models of one tokenizer"),
    compares=True,
    unchanged=0.0,
)
_AT = {
    replace(
        _KL,
        name=f"kl_{name}",
        title=f"KL divergence from the baseline, {words}",
        estimator=f"{words} over tokens of KL(baseline || model), in nats, interpolated linearly",
        interval=_NONE if at == 1 else f"{LARGE}; none where fewer than {_BEYOND} tokens lie beyond",
    ): at
    for name, words, at in (
        ("median", "median", 0.5),
        ("p90", "90th percentile", 0.9),
        ("p99", "99th percentile", 0.99),
        ("p999", "99.9th percentile", 0.999),
        ("max", "maximum", 1.0),
    )
}
_SAME = replace(
    _KL,
    name="same_top_token",
    title="same top token",
    estimator="share of tokens for which both models hold the same one for the likeliest",
    range="0 to 1",
    bounds=(0, 1),
    better="higher",
    higher_is="better preserved",
    unchanged_by=("a constant added to all logits of a token", "a common factor of all logits", "order"),
    unchanged=1.0,
    tolerance=0.05,
)
_CHANGE = replace(
    _KL,
    name="probability_change",
    title="change of the right token's probability",
    estimator="mean over tokens of p of the right token in the model minus that in the baseline",
    range="-1 to 1; 0 where nothing has changed; below where the model predicts worse",
    bounds=(-1, 1),
    better="higher",
    higher_is="better predicted",
)
_CHANGE_RMS = replace(
    _KL,
    name="probability_change_rms",
    title="change of the right token's probability, root mean square",
    estimator="root of the mean over tokens of the squared change of p of the right token",
    range="0 to 1; 0 where nothing has changed",
    bounds=(0, 1),
)
_RATIO = replace(
    _KL,
    name="log_perplexity_ratio",
    title="log ratio of perplexities",
    estimator="log of the model's perplexity over the baseline's: mean change of -log p of the right token, in nats",
    range="-infinity to infinity; 0 where nothing has changed; above where the model predicts worse",
    bounds=(-np.inf, np.inf),
    higher_is="worse predicted",
)
NEXT_TOKEN = (_NATS, _PERPLEXITY, _BITS, _KL, *_AT, _SAME, _CHANGE, _CHANGE_RMS, _RATIO)
