"""What each layer of a decoder would say already: the logit lens and the tuned lens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import datasets
import numpy as np
import xarray as xr
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from probes.corpus import check_corpus
from probes.errors import InputError, check_choice
from probes.measures.probe import LARGE, Probe, Run
from probes.models.facts import name_of
from probes.results.draws import sample, weighted_ratios
from probes.results.result import result, stack_measures
from probes.states.by_token import Planned, names_of, planned
from probes.states.lenses import Translators, batches_of_layers, fitted, said_at
from probes.states.representations import as_strings, from_arrays

Kind = Literal["logit", "tuned"]
SHARED = "shared"  # a token that says no language
_TELLING = 0.9  # of the uses of a token, each language counted alike, that are in one


def lens(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: datasets.Dataset,
    *,
    kind: Kind = "logit",
    train: datasets.Dataset | None = None,
    draws: int = 200,
    seed: int = 0,
    name: str | None = None,
    progress: bool = True,
    **settings: Any,
) -> xr.Dataset:
    """Measure what each layer of a decoder would say already, were it the last.

    The states of a layer go through the final norm and the output layer ("logit"), or through an
    affine translator of the layer before them ("tuned"), which is fitted so that they come near
    the output.

    Args:
        model: one that predicts the next token.
        tokenizer: of it.
        corpus: as `load_corpus` gives it; what is measured on.
        kind: "logit" or "tuned".
        train: texts to fit the translators on, which `corpus` does not hold; only for "tuned".
        draws, seed: of the bootstrap by sentence id; the seed is also of the fitting.
        name: what the model is called; by default the name it was loaded by.
        progress: show a progress bar.
        settings: of `capture`: max_length, prompt, device, batch_size, batch_tokens.

    Returns:
        `value, low, high (measure, layer, language)`, all languages together as `pooled`:

        | measure | |
        |---|---|
        | `lens_kl` | mean KL(output || layer) in nats, 0 at the last layer |
        | `lens_probability` | mean probability of the right token, 0 to 1, higher is better |
        | `lens_rank` | geometric mean of the right token's rank, from 1, lower is better |

        and beside them `settles (language)`, the mean over tokens of the first layer from which the
        likeliest token stays that of the output, and `top_language (layer, language,
        other_language)`, in which language the likeliest token is used. Of "tuned" the names begin
        with `tuned_`, and the attribute `held_out` says for each layer the KL before and after on
        texts that were not fitted on.

    Raises:
        InputError: the model predicts no next token; what it does after its last block is not
            known; there is nothing to fit on.

    Notes:
        Logit lens: nostalgebraist 2020. Tuned lens: Belrose et al. 2023, arXiv 2303.08112; here it
        starts at a ridge regression, and is kept for a layer only where that helps on held-out
        texts. A token is of a language where 0.9 of its uses in the corpus are, each language
        counted alike, and else "shared". Layer 0 is the embeddings; the last one is the output.

    See also:
        `next_token`

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled-decoder")
        >>> corpus = probes.load_corpus("bundled", split="dev", languages=["en", "fr"]).select(range(20))
        >>> found = lens(model, tokenizer, corpus, progress=False).sel(language="pooled")
        >>> bool((found.value.sel(measure="lens_kl").diff("layer") < 0).all())
        True
    """
    check_choice("kind", kind, ("logit", "tuned"))
    if (kind == "tuned") != (train is not None):
        raise InputError(f"lens: kind={kind!r} {'needs' if kind == 'tuned' else 'takes no'} train=, texts to fit on")
    corpus, count = check_corpus(corpus), len(corpus)
    every, rows = corpus, np.arange(count)
    if train is not None:
        columns = [c for c in ("id", "language", "text") if c in corpus.column_names]
        other = check_corpus(train).select_columns(columns)
        every = datasets.concatenate_datasets([corpus.select_columns(columns), other])
    given: dict[str, Any] = {c: list(corpus[c]) for c in ("id", "language", "group") if c in corpus.column_names}
    reps = from_arrays(np.zeros((count, 1)), **given, name=name or name_of(model))
    run = Run(reps, sample(reps, draws=draws, seed=seed), seed=seed, progress=progress, corpus=every, settings=settings)
    found = _said(run, model, tokenizer, rows, np.arange(count, len(every)) if kind == "tuned" else None)
    probes = _BY_KIND[kind]
    out = stack_measures(_curves(run, found, probes))
    for label, one in (("settles", _settles(run, found, probes[3])), ("top_language", _tops(run, found, probes[4]))):
        out = out.assign({label: one["value"], f"{label}_low": one["low"], f"{label}_high": one["high"]})
    return out


@dataclass(frozen=True)
class _Sums:
    """Sums over the tokens of each text of a run."""

    tokens: np.ndarray  # (text,)
    curves: np.ndarray  # (measure, text, layer)
    settled: np.ndarray  # (text,)
    tops: np.ndarray  # (text, layer, language and shared)
    held_out: str


def _said(
    run: Run, model: Any, tokenizer: PreTrainedTokenizerBase, rows: np.ndarray, train: np.ndarray | None
) -> _Sums:
    """What layers say of some texts of a run's corpus, which come first in its sample."""
    name = str(run.reps.attrs["model"])
    plan = planned([model], tokenizer, run.corpus, [name], "lens", **run.settings)
    if not plan.forward:
        raise InputError(f"lens: {name}: {type(model).__name__} predicts masked tokens: expected a decoder")
    translate = None if train is None else fitted(model, plan, "lens", train, names_of(run.corpus), run.seed)
    of_token = _languages_of(plan, run, tokenizer)
    count, kinds = len(run.sample.ids), len(run.sample.languages) + 1
    sums: list[np.ndarray] = []
    bar = tqdm(total=len(rows), desc=f"lens {name}", unit="text", disable=not run.progress)
    for row, targets, layers in batches_of_layers(model, plan, "lens", rows):
        bar.update(len(np.unique(row)))
        depth = len(layers.states)
        if not sums:
            shapes = (count,), (3, count, depth), (count,), (count, depth, kinds)
            sums = [np.zeros(shape) for shape in shapes]
        for part, said in said_at(layers, targets, translate):
            text = row[part]
            np.add.at(sums[0], text, 1)
            tops = np.stack([one["top"].cpu().numpy() for one in said])
            for layer, one in enumerate(said):
                for measure, key in enumerate(("kl", "p", "rank")):
                    np.add.at(sums[1][measure, :, layer], text, one[key].cpu().numpy())
                np.add.at(sums[3][:, layer], (text, of_token[np.minimum(tops[layer], len(of_token) - 1)]), 1)
            stays = np.cumprod((tops == tops[-1])[::-1], axis=0).sum(axis=0)  # so many layers from the end
            np.add.at(sums[2], text, depth - stays)
            bad = np.stack([~np.isfinite(one["kl"].cpu().numpy()) for one in said])
            sums[2][text[bad.any(axis=0)]] = np.nan
            for number in np.flatnonzero(bad.any(axis=1)):
                sums[3][text[bad[number]], number] = np.nan
    bar.close()
    tokens, curves, settled, tops = sums
    return _Sums(tokens, curves, settled, tops, _held_out(translate))


def _held_out(translate: Translators | None) -> str:
    if translate is None:
        return ""
    return "; ".join(f"layer {n}: {one:.3f} -> {two:.3f}" for n, (one, two) in enumerate(translate.held_out))


def _languages_of(plan: Planned, run: Run, tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """Of each token the language that uses it, by number, and the number after the last where it says none; one more
    token stands for all those that the tokenizer has not got.
    """
    tokens, names = plan.batches.tokens, sorted(run.sample.languages)
    language = np.array([names.index(x) if x in names else len(names) for x in run.corpus["language"]])
    ids = tokens.inputs["input_ids"]
    size = max(len(tokenizer), int(ids.max()) + 1)
    of_language, keep = np.repeat(language, tokens.lengths), ~np.isin(ids, tokenizer.all_special_ids)
    uses = np.zeros((len(names), size), np.float32)
    for number in range(len(names)):
        mine = ids[keep & (of_language == number)]
        uses[number] = np.bincount(mine, minlength=size)[:size] / max(len(mine), 1)
    total = uses.sum(axis=0)
    telling = uses.max(axis=0) >= _TELLING * total
    return np.append(np.where((total > 0) & telling, uses.argmax(axis=0), len(names)), len(names))


def _curves(run: Run, found: _Sums, probes: tuple[Probe, ...]) -> list[xr.Dataset]:
    out = []
    for probe, summed in zip(probes[:3], found.curves, strict=True):
        values = weighted_ratios(run.sample, summed, found.tokens)
        if probe.name.endswith("lens_rank"):
            values = {k: np.exp(v) for k, v in values.items()}
        out.append(_result(run, found, probe, values, {"layer": np.arange(found.curves.shape[-1])}))
    return out


def _settles(run: Run, found: _Sums, probe: Probe) -> xr.Dataset:
    return _result(run, found, probe, weighted_ratios(run.sample, found.settled, found.tokens), {})


def _tops(run: Run, found: _Sums, probe: Probe) -> xr.Dataset:
    over = {
        "layer": np.arange(found.tops.shape[1]),
        "other_language": as_strings([*sorted(run.sample.languages), SHARED]),
    }
    return _result(run, found, probe, weighted_ratios(run.sample, found.tops, found.tokens), over)


def _result(run: Run, found: _Sums, probe: Probe, values: dict[str, np.ndarray], over: dict[str, Any]) -> xr.Dataset:
    there = found.tokens > 0
    rows = {group: (at := run.sample.group(group))[there[at]] for group in values}

    def missing(at: tuple[int, ...], language: str) -> str:
        if not len(rows[language]):
            return "the output: no text has a token to predict"
        return f"layer {at[0]}: its logits are not finite" if over else "the output: its logits are not finite"

    about = probe.about() | ({"held_out": found.held_out} if found.held_out else {})
    return result(run.reps, run.sample, values, about, rows=rows, bounds=probe.bounds, over=over, missing=missing)


# --- in a comparison -------------------------------------------------------------------------------------------------


def _of_run(run: Run, kind: Kind) -> _Sums:
    assert run.models is not None  # it needs models to run
    _, model, tokenizer = run.models
    split = run.reps["split"].values if kind == "tuned" else np.full(len(run.sample.ids), "")
    rows = np.flatnonzero(split == "test") if kind == "tuned" else np.arange(len(split))
    train = np.flatnonzero(split == "train") if kind == "tuned" else None
    return run.once(f"{kind} lens", lambda: _said(run, model, tokenizer, rows, train))


def _measure(kind: Kind, what: Callable[[Run, _Sums], xr.Dataset]) -> Callable[[Run], xr.Dataset]:
    return lambda run: what(run, _of_run(run, kind))


_lens = partial(
    Probe,
    unchanged_by=("a constant added to all logits of a token", "order"),
    needs=("predicted tokens", "models to run"),
    interval=LARGE,
    paper="nostalgebraist 2020 (logit lens)",
)


def _declared(kind: Kind) -> tuple[Probe, ...]:
    """The probes of a lens: three curves, a number, and a map of languages."""
    curves = _measure(kind, lambda run, found: stack_measures(_curves(run, found, _BY_KIND[kind])))
    kl = _lens(
        name="lens_kl",
        title="lens: KL divergence from the output",
        estimator="mean over tokens of KL(output || layer), in nats",
        range="0 to infinity; 0 at the last layer",
        bounds=(0, np.inf),
        higher_is="farther from the output",
        family="lens",
        measure=curves,
    )
    made = (
        kl,
        replace(
            kl,
            name="lens_probability",
            title="lens: probability of the right token",
            estimator="mean over tokens of the probability that a layer would give the right token",
            range="0 to 1",
            bounds=(0, 1),
            better="higher",
            higher_is="better predicted",
        ),
        replace(
            kl,
            name="lens_rank",
            title="lens: rank of the right token",
            estimator="geometric mean over tokens of the rank of the right token, 1 for the likeliest",
            range="1 to the size of the vocabulary",
            bounds=(1, np.inf),
            better="lower",
            higher_is="worse predicted",
            unchanged_by=("a constant added to all logits of a token", "a common factor of all logits", "order"),
        ),
        replace(
            kl,
            name="lens_settles",
            title="lens: layer that settles the top token",
            estimator="mean over tokens of the first layer from which the likeliest token stays that of the output",
            range="0 to the last layer",
            higher_is="later settled",
            unchanged_by=("a constant added to all logits of a token", "a common factor of all logits", "order"),
            measure=_measure(kind, lambda run, found: _settles(run, found, _BY_KIND[kind][3])),
        ),
        replace(
            kl,
            name="lens_language",
            title="lens: language of the top token",
            estimator="share of tokens whose likeliest one is used in a language of the corpus, or in several",
            range="0 to 1",
            bounds=(0, 1),
            higher_is="more in that language",
            unchanged_by=("a constant added to all logits of a token", "a common factor of all logits", "order"),
            measure=_measure(kind, lambda run, found: _tops(run, found, _BY_KIND[kind][4])),
        ),
    )
    if kind == "logit":
        return made
    return tuple(
        replace(
            probe,
            name=f"tuned_{probe.name}",
            title=f"tuned {probe.title}",
            estimator=f"{probe.estimator}; through a translator fitted on the split train, measured on test",
            needs=(*probe.needs, "splits"),
            unchanged_by=("a constant added to all logits of a token", "order"),
            family="tuned_lens",
            paper="Belrose et al. 2023, arXiv 2303.08112",
        )
        for probe in made
    )


_BY_KIND: dict[Kind, tuple[Probe, ...]] = {}
for _kind in ("logit", "tuned"):
    _BY_KIND[_kind] = _declared(_kind)
LENS = (*_BY_KIND["logit"], *_BY_KIND["tuned"][:3])
