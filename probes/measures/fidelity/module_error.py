"""Error of every module of a compressed model: what it adds, and what it inherits."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import datasets
import numpy as np
import torch
import xarray as xr
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from probes.corpus import check_corpus
from probes.errors import InputError
from probes.measures.probe import LARGE, Probe, Run
from probes.models.facts import body_of, check_fit, embedding_rows, name_of
from probes.models.spread import check_whole
from probes.results.counts import sums_over
from probes.results.draws import POOLED, sample
from probes.results.result import result, stack_measures
from probes.states.representations import as_strings, from_arrays
from probes.states.running import evaluating, removed
from probes.states.tokens import batches_of

_BLOCK = re.compile(r"^(?:.*?\.)?(\d+)(?:\.(.+))?$")


def module_error(
    base: PreTrainedModel,
    other: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: datasets.Dataset,
    *,
    draws: int = 200,
    seed: int = 0,
    progress: bool = True,
    names: tuple[str, str] | None = None,
    **settings: Any,
) -> xr.Dataset:
    """Measure the error of every module of a compressed model: accumulated, local, their ratio.

    Both models run on the same batches. The accumulated error of a module compares its outputs in
    both; the local error gives the compressed module the inputs of the original's, so that it is
    the only one that is compressed. Errors that grow with depth while local ones do not are handed
    on from layer to layer.

    Args:
        base, other: the original and the compressed model, of one architecture.
        tokenizer: of both.
        corpus: as `load_corpus` gives it.
        draws, seed: of the bootstrap by sentence id.
        progress: show a progress bar.
        names: what the two are called in tables and messages; by default the names they were loaded
            by.
        settings: of `capture`: max_length, device, batch_size, batch_tokens.

    Returns:
        `value, low, high (measure, module, language)`, all languages together as `pooled`, with the
        number of the layer and the kind of module (`block` for the whole layer) as coordinates on
        `module`. The measures: `accumulated_error`, `local_error` (both 0 to infinity, higher is
        worse preserved) and `amplification`, their ratio: above 1 where error is inherited.

    Raises:
        InputError: the models are not of one architecture.

    Notes:
        Modules are the linear layers of every block, what holds at least three of them (attention,
        gated feed-forward parts), and the block itself. After the figures of O' Neill and Dutta
        2023, arXiv 2307.05972; the formulas are ours. Padding is left out, special tokens count. A
        module that computes what the original's does has a local error of 0 and no amplification.

    See also:
        `drift`, `loyalty`.

    Example:
        >>> import compress, probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> corpus = probes.load_corpus("bundled", split="dev", languages=["en"])
        >>> pruned = compress.prune(model, sparsity=0.6)
        >>> error = module_error(model, pruned, tokenizer, corpus, progress=False)
        >>> error.measure.values.tolist()
        ['accumulated_error', 'local_error', 'amplification']
    """
    corpus = check_corpus(corpus)
    # One number a text stands for its states: what is drawn is texts.
    columns: dict[str, Any] = {c: list(corpus[c]) for c in ("id", "language", "group") if c in corpus.column_names}
    reps = from_arrays(np.zeros((len(corpus), 1)), **columns)
    if names is None:
        one, two = map(name_of, (base, other))
        names = one, two
    run = Run(
        reps.assign_attrs(model=names[1]),
        sample(reps, draws=draws, seed=seed),
        base=reps.assign_attrs(model=names[0]),
        progress=progress,
        corpus=corpus,
        models=(base, other, tokenizer),
        settings=settings,
    )
    return _measured(run)


def _measured(run: Run) -> xr.Dataset:
    return _results(run, *run.once("module_error", lambda: _errors(run)))


def _errors(run: Run) -> tuple[np.ndarray, list[str]]:
    """What is summed over each text, (3, text, module), and the names of the modules."""
    assert run.models is not None  # it needs models to run
    assert run.base is not None
    (base, other, tokenizer), corpus = run.models, run.corpus
    names = str(run.base.attrs["model"]), str(run.reps.attrs["model"])
    for model, name in zip((base, other), names, strict=True):
        check_whole(model, "module_error")
        check_fit(embedding_rows(model), tokenizer, name)
    where, batches = batches_of(base, tokenizer, corpus, names[0], **run.settings)
    bodies = [body_of(m) for m in (base, other)]
    modules = _modules(bodies[0])
    theirs: dict[str, Any] = dict(bodies[1].named_modules())
    lacking = [m for m in modules if m not in theirs]
    if lacking or not modules:
        raise InputError(
            f"module_error compares module with module: {names[1]!r} has no module {lacking[0]!r}, which {names[0]!r} "
            "has. Compare models of one architecture"
            if lacking
            else f"{names[0]!r}: no numbered blocks with linear layers were found in it"
        )
    sums = np.zeros((3, len(corpus), len(modules)))
    with evaluating(base, where), evaluating(other, where), torch.inference_mode():
        kept: list[str] = []
        bar = tqdm(total=len(corpus), desc="module errors", unit="text", disable=not run.progress)
        for rows, inputs in batches():
            mask = inputs["attention_mask"].bool()
            first, second = _run(bodies[0], modules, inputs), _run(bodies[1], modules, inputs)
            kept = kept or [m for m in modules if m in first and m in second and _is_state(first[m][2], mask)]
            if not kept:
                raise InputError(
                    f"module_error: no module of {names[0]!r} gives an output of shape (batch, token, feature) for "
                    f"inputs of shape {tuple(mask.shape)}, so there is nothing to compare"
                )
            for m in kept:
                args, kwargs, output = first[m]
                if second[m][2].shape != output.shape:
                    raise InputError(
                        f"module_error: module {m!r} gives {tuple(output.shape)} in {names[0]!r} and "
                        f"{tuple(second[m][2].shape)} in {names[1]!r}. Compare models of one architecture"
                    )
                alone: Any = theirs[m]
                compared = [output, second[m][2], _tensor(alone(*args, **kwargs))]
                sums[:, rows, modules.index(m)] = _sizes(compared, mask)
            bar.update(len(rows))
        bar.close()
    found = [modules.index(m) for m in kept]
    return sums[:, :, found], kept


def _modules(body: torch.nn.Module) -> list[str]:
    """The blocks of a model, their linear layers, and what holds at least three of these."""
    out = []
    for name, module in body.named_modules():
        place = _BLOCK.match(name)
        if place is None:
            continue
        linear = [c for c in module.children() if _is_linear(c)]
        if place.group(2) is None or _is_linear(module) or len(linear) >= 3:
            out.append(name)
    blocks = {m for m in out if (place := _BLOCK.match(m)) and place.group(2) is None}
    return [m for m in out if any(m == b or m.startswith(b + ".") for b in blocks)]


def _is_linear(module: torch.nn.Module) -> bool:
    matrix = getattr(getattr(module, "weight", None), "ndim", 0) == 2
    return hasattr(module, "out_features") or (matrix and not isinstance(module, torch.nn.Embedding))


def _is_state(output: torch.Tensor, mask: torch.Tensor) -> bool:
    return output.ndim >= 3 and output.shape[:2] == mask.shape


def _tensor(output: Any) -> torch.Tensor:
    return output[0] if isinstance(output, tuple | list) else output


def _run(
    body: Any, modules: list[str], inputs: dict[str, torch.Tensor]
) -> dict[str, tuple[tuple, dict[str, Any], torch.Tensor]]:
    """Arguments and output of every module in one forward pass."""
    seen: dict[str, tuple[tuple, dict[str, Any], torch.Tensor]] = {}

    def watch(name: str) -> Callable[..., None]:
        def hook(_module: torch.nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
            if name in seen:
                raise InputError(
                    f"module_error: module {name!r} runs more than once a text, since layers share it, so it has no "
                    "one error. Compare models whose layers are their own"
                )
            seen[name] = (args, kwargs, _tensor(output))

        return hook

    known = dict(body.named_modules())
    with removed(known[m].register_forward_hook(watch(m), with_kwargs=True) for m in modules):
        # Without a cache, which the second run of a module would write into.
        body(**inputs, **({"use_cache": False} if hasattr(body.config, "use_cache") else {}))
    return seen


def _sizes(compared: list[torch.Tensor], mask: torch.Tensor) -> np.ndarray:
    """Sums of |a|, |a - b| and |a - c| over the tokens of each text: (3, batch)."""
    a, b, c = (x.float() for x in compared)
    out = []
    for x in (a, a - b, a - c):
        by_token = x.flatten(2).abs().sum(dim=2, dtype=torch.float64)
        out.append(by_token.masked_fill(~mask, 0.0).sum(dim=1))
    return torch.stack(out).cpu().numpy()


def _results(run: Run, sums: np.ndarray, modules: list[str]) -> xr.Dataset:
    assert run.base is not None
    reps, drawn, original = run.reps, run.sample, str(run.base.attrs["model"])
    found: dict[str, dict[str, np.ndarray]] = {p.name: {} for p in MODULE_ERROR}
    for group in [*drawn.languages, POOLED]:
        rows = drawn.group(group)
        size, accumulated, local = np.moveaxis(
            sums_over(drawn.weights, drawn.ids[rows], np.moveaxis(sums[:, rows], 0, 1)), 1, 0
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            found["accumulated_error"][group], found["local_error"][group] = accumulated / size, local / size
            found["amplification"][group] = np.where(local > 0, accumulated / local, np.nan)
    places = [_BLOCK.match(m) for m in modules]
    over = {"module": as_strings(modules)}

    def missing(at: tuple[int, ...], language: str) -> str:
        if np.isfinite(sums[:, drawn.group(language), at[0]]).all():
            return f"module {modules[at[0]]}: alone it makes no error"
        return f"module {modules[at[0]]}: its outputs are not finite"

    out = stack_measures(
        [
            result(
                reps,
                drawn,
                found[probe.name],
                probe.about() | {"other_model": original},
                bounds=probe.bounds,
                over=over,
                missing=missing,
            )
            for probe in MODULE_ERROR
        ]
    )
    # Layer l is what block l gives; layer 0 is the embeddings.
    return out.assign_coords(
        layer=("module", [int(p.group(1)) + 1 for p in places if p]),
        kind=("module", as_strings([p.group(2) or "block" for p in places if p])),
    )


# What all of them say: how much is lost, the less the better.
_lost = partial(
    Probe,
    bounds=(0, np.inf),
    better="lower",
    higher_is="worse preserved",
    needs=("another model", "models to run", "models of one architecture", "models in one place"),
    family="module_error",
    compares=True,
    unchanged=0.0,
    interval=LARGE,
    measure=_measured,
)
_ACCUMULATED = _lost(
    name="accumulated_error",
    estimator="mean |a - b| / mean |a| of a module's outputs a in the original and b in the compressed model",
    range="0 to infinity; 0 where nothing has changed",
    unchanged_by=("common scale", "order"),
    paper="O' Neill and Dutta 2023 (self-distilled quantization), arXiv 2307.05972",
)
MODULE_ERROR = (
    _ACCUMULATED,
    replace(
        _ACCUMULATED,
        name="local_error",
        title="local error",
        estimator="mean |a - b| / mean |a|, b from the compressed module on the inputs that the original's gets",
    ),
    replace(
        _ACCUMULATED,
        name="amplification",
        title="amplification of error",
        estimator="accumulated error / local error",
        range="0 to infinity; above 1 where error is inherited from the modules before",
        better="",
        higher_is="more inherited",
        unchanged_by=("shift", "common scale", "order"),
        unchanged=1.0,
    ),
)
