"""Layer fusion: layers that are alike share one tensor, at once or step by step while the model is trained."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
import pandas as pd
import torch
import transformers
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from transformers.pytorch_utils import Conv1D
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from compress.matrices import block_matrices, check_plain
from compress.objectives.base import Objective, is_whole
from compress.objectives.labels import CrossEntropy
from compress.pruning.structure import drop_layers
from compress.saving import record
from compress.training.loop import check_settings
from compress.training.loop import train as run_training
from probes.corpus import check_corpus, corpus_fingerprint
from probes.errors import InputError
from probes.files import write_whole
from probes.measures.fidelity.similarity import similarity as states_similarity
from probes.models.fingerprint import weights_fingerprint
from probes.models.formats.shared_layers import apply_sharing
from probes.models.parts import family_of
from probes.states.capture import capture
from probes.states.representations import from_arrays

MERGES = ("mean", "mix", "freeze", "drop")
SCHEDULES = ("one_shot", "uniform")
UNITS = ("matrix", "layer")
_EMD = (10, 100)  # draws, and the weights of each
_NUMBERED = re.compile(r"^(.*?\.)(\d+)(\..+)?$")


def fuse(
    model: PreTrainedModel,
    *,
    share: float = 0.5,
    similarity: str = "euclidean",
    merge: str = "mean",
    unit: str = "matrix",
    corpus: datasets.Dataset | None = None,
    schedule: str = "one_shot",
    fusions: int = 10,
    train: datasets.Dataset | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    steps: int = 0,
    objective: Sequence[Objective] = (),
    teacher: PreTrainedModel | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    **settings: Any,
) -> PreTrainedModel:
    """Return a copy of a model in which the layers that are most alike share one set of parameters.

    As many layers are computed as before, with fewer tensors: those fused are one `torch.nn.Parameter` at several
    places, so that it gets the sum of their gradients and is saved once. Pairs are fused from the most similar on; a
    layer that was fused into another is not taken again, but others may join that one, so that groups grow beyond two.

    Args:
        model: a model of transformers; it is not changed.
        share: of the n tensors of one part (all query matrices, say) floor(share * n) go; above 0 and below 1.
        similarity: "cka" (of what the layers compute, over texts), or one of the weights alone: "euclidean", "cosine",
            "kl", "wasserstein", "emd", "covariance", "weight_cka", "moments" (see `layer_similarity`).
        merge: what the one tensor is. "mean": the mean of all that share it. "mix": every element is that of one of
            them, drawn at random. "freeze": that of one of them, drawn at random, which from now on gets no gradient
            (`requires_grad` is False; files do not keep that). "drop": that of the first of them; with unit="layer"
            the later layer is taken out of the model and nothing is shared.
        unit: what is fused: every "matrix" with its bias, only with those of the same part, or a "layer" with all that
            is in it.
        corpus: what "cka" is measured over, and no other similarity; by default the rows of `train` that are trained
            on. Some hundred texts are enough.
        schedule: "one_shot" (before any training) or "uniform": while it trains, step by step, by similarities that are
            measured anew each time.
        fusions: how many steps, at even distances, with as many updates after the last as between two.
        train: a corpus to train on.
        tokenizer: of the model, where there is text.
        steps: updates of the weights; 0 for no training.
        objective: what is trained for, of `compress.objectives`; by default the cross-entropy with the labels.
        teacher: for the objectives that need one; by default the model itself, before any fusion.
        seed: of what is drawn, and of the training.
        folder: for checkpoints, as in `compress.training.train`; a training that was interrupted goes on.
        settings: further settings of `compress.training.train`: batch_size, learning_rate, accumulate, evaluate,
            evaluate_at, callbacks, save_every, progress.

    Returns:
        A new model of the same class. `model.config.compression` says what was done to it: the `groups` of layers by
        part, every fusion with its similarity, and the parameters before and after, each counted once; after training
        `model.history` is what was logged.

    Raises:
        InputError: share, similarity, merge, unit or schedule is not known or does not fit what else is given; a corpus
            is given and nothing reads it; there is nothing to fuse: no two layers of one shape, a share that is less
            than one of them, or a model in which so many are shared already; what `compress.training.train` raises.

    Notes:
        O' Neill, Ver Steeg and Galstyan 2020, arXiv 2007.14917. Ours: a share is rounded down in each part, over all
        fusions and not in each; the mean of a group counts each of its layers once; "mix" is without noise and drawn
        once; of "freeze" what is left is one tensor.

        Weights that are zero stay zero without training only where they are zero in all layers that are fused; training
        changes them like any other.

        The configuration of transformers cannot say that layers share parameters, so `probes.load_checkpoint` (not
        plain `from_pretrained`, which puts random numbers in place of what is not in the file, and warns of missing
        keys) loads what `compress.save` wrote; `apply_sharing` of `probes.models.formats.shared_layers` mends a
        model that was loaded so, and `unshare` there gives up the sharing. Layers that were taken out ("drop" of
        layers) need neither.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> fused = fuse(model, share=0.5)
        >>> fused.config.compression["groups"]["encoder.layer.*.output.dense"]
        [[0, 1, 2, 3]]
    """
    check_plain(model)
    check_settings(settings, train, tokenizer, steps)
    _check_settings(share, similarity, merge, unit, schedule, fusions, train, corpus, tokenizer, steps)
    if similarity == "cka" and corpus is None:
        assert train is not None  # _check_settings has raised
        corpus = train
        if "split" in corpus.column_names:
            corpus = corpus.select([i for i, split in enumerate(corpus["split"]) if split == "train"])
    goals = _goals(model, unit, share)
    if unit == "layer" and merge == "drop":
        family_of(model)  # raises where layers cannot be taken out
    fused = copy.deepcopy(model)
    before = groups_of(fused)
    work = _Fuses(fused, goals, similarity, merge, unit, corpus, tokenizer, seed)
    history = None
    times: list[int] = []
    if schedule == "one_shot":
        work.fuse(1.0, step=0)
        if unit == "layer" and merge == "drop":
            fused = drop_layers(model, sorted(int(f["other_layer"]) for f in work.done))
    if steps:
        assert train is not None  # _check_settings has raised
        assert tokenizer is not None
        callbacks = []
        if schedule != "one_shot":
            times = [max(1, round(k * steps / (fusions + 1))) for k in range(1, fusions + 1)]
            work.shares = {step: (k + 1) / fusions for k, step in enumerate(times)}
            settings["evaluate_at"] = {*times, *settings.get("evaluate_at", ())}
            callbacks = [work]
        history = run_training(
            fused,
            tokenizer,
            train,
            objective=list(objective) or [CrossEntropy()],
            teacher=model if teacher is None else teacher,
            steps=steps,
            callbacks=[*callbacks, *settings.pop("callbacks", ())],
            folder=folder,
            seed=seed,
            about={
                "share": share,
                "similarity": similarity,
                "merge": merge,
                "unit": unit,
                "fused_at": times,
                "similar_on": None if corpus is None else corpus_fingerprint(check_corpus(corpus)),
            },
            **settings,
        )
        history.attrs["fused_at"] = times
    what = {
        "method": "fuse",
        "similarity": similarity,
        "merge": merge,
        "unit": unit,
        "share": share,
        "schedule": schedule,
        "groups": groups_of(fused),
        "fusions": work.done,
        "parameters": sum(p.numel() for p in fused.parameters()),
        "parameters_of_parent": sum(p.numel() for p in model.parameters()),
        "parent": weights_fingerprint(model),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    if unit == "layer" and merge == "drop":
        what["dropped"] = sorted(f["other_layer"] for f in work.done)
    if before:
        what["groups_of_parent"] = before
    if steps or similarity == "emd" or merge in ("mix", "freeze"):
        what["seed"] = seed
    if steps:
        what |= {"steps": steps, "fused_at": times, "objective": [o.name for o in objective] or ["cross_entropy"]}
    return record(fused, what, history)


def layer_similarity(
    model: PreTrainedModel,
    *,
    similarity: str = "euclidean",
    unit: str = "matrix",
    corpus: datasets.Dataset | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Measure how alike the layers of a model are, pair by pair within one part of them, in float64.

    With W a matrix (output, input):

    - "euclidean": |W_i - W_j|, Frobenius; a distance.
    - "cosine": the mean over the rows of the cosine of row with row; of a row of zeros it is 0.
    - "kl": |KL(softmax(W_i) || softmax(W_j))| over all weights, i the earlier layer; a distance.
    - "wasserstein": Wasserstein-1 between the two samples of softmax(W), over all weights: where in the matrix they
      stand does not matter; a distance.
    - "emd": Wasserstein-1 between 100 weights of each, drawn at the same places, the mean of 10 draws; a distance.
    - "covariance": ||S_i| - |S_j||, Frobenius, S the covariance of the rows of W with each column standardised; a
      distance.
    - "weight_cka": <W_i, W_j> / (|W_i| |W_j|), each column less its mean.
    - "moments": sqrt(|m_i - m_j| + |s_i - s_j|), mean and standard deviation of the weights; a distance.
    - "cka": linear CKA of the layers' pooled outputs over the texts of a corpus (`probes.similarity`).

    Args:
        model: a model of transformers.
        similarity: one of these.
        unit: "matrix", or "layer": of the weights, the mean over its matrices; for "cka" what the whole layer gives.
        corpus, tokenizer: for "cka", some hundred texts and the model's tokenizer.
        seed: of the draws of "emd".

    Returns:
        One row a pair of one shape: `part` (the name with `*` for the number of the layer), `layer`, `other_layer`
        (from 0, as in the model's list of layers) and `value`; of each part the most similar pair first, which is the
        smallest value of a distance. What has no value comes last. Of layers that share a tensor the first stands for
        all. `attrs` has the similarity and its `kind`, "similarity" or "distance".

    Raises:
        InputError: the similarity or unit is not known; no two layers are of one shape; weights are not finite; "cka"
            without corpus and tokenizer, or a corpus for another similarity.

    Notes:
        After the released code of O' Neill, Ver Steeg and Galstyan 2020, arXiv 2007.14917. What it leaves open is
        chosen here: the Frobenius norm, population standard deviations, centred columns, and draws at the same places.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> table = layer_similarity(model, similarity="cosine")
        >>> table.columns.tolist(), table.attrs["kind"]
        (['part', 'layer', 'other_layer', 'value'], 'similarity')
    """
    _check_similarity(similarity, unit, corpus is None or tokenizer is None, corpus is not None)
    pairs = _pairs(model, unit)
    if similarity == "cka":
        assert corpus is not None  # _check_similarity has raised
        assert tokenizer is not None
        values = _by_states(model, pairs, corpus, tokenizer)
    else:
        values = _by_weights(model, pairs, similarity, seed)
    kind = "similarity" if similarity in _LARGE else "distance"
    rows = [(part, i, j, values[_name(part, i), _name(part, j)]) for part, between in pairs.items() for i, j in between]
    table = pd.DataFrame(rows, columns=["part", "layer", "other_layer", "value"])
    order = {part: k for k, part in enumerate(pairs)}
    # Of equal values the first pair comes first.
    table = table.iloc[
        np.lexsort(
            (
                table["other_layer"],
                table["layer"],
                table["value"].fillna(np.inf if kind == "distance" else -np.inf) * (1 if kind == "distance" else -1),
                table["part"].map(order),
            )
        )
    ].reset_index(drop=True)
    table.attrs = {"similarity": similarity, "kind": kind, "unit": unit}
    return table


def groups_of(model: PreTrainedModel) -> dict[str, list[list[int]]]:
    """Return which layers of a model share one tensor, by part: the numbers of each group, the first of them first."""
    shared: dict[str, str] = getattr(model.config, "shared_layers", None) or {}
    groups: dict[str, dict[int, list[int]]] = {}
    for target, source in shared.items():
        (part, number), (_, first) = _split(target), _split(source)
        groups.setdefault(part, {}).setdefault(first, [first]).append(number)
    return {part: [sorted(found) for _, found in sorted(by.items())] for part, by in sorted(groups.items())}


_LARGE = ("cosine", "weight_cka", "cka")  # most similar where largest


class _Similarity(NamedTuple):
    prepare: Callable[[torch.Tensor], torch.Tensor]  # of one matrix (output, input) in float64
    compare: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # of two that were prepared


def _similarities(seed: int) -> dict[str, _Similarity]:
    def flat_mean(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a - b).abs().mean()

    def drawn(w: torch.Tensor) -> torch.Tensor:
        places = torch.randint(w.numel(), _EMD, generator=torch.Generator().manual_seed(seed))
        return w.flatten()[places.to(w.device)].sort(dim=1).values

    return {
        "euclidean": _Similarity(lambda w: w, lambda a, b: (a - b).norm()),
        "cosine": _Similarity(lambda w: nn.functional.normalize(w, dim=1), lambda a, b: (a * b).sum(1).mean()),
        "kl": _Similarity(lambda w: w.flatten().log_softmax(0), lambda a, b: (a.exp() * (a - b)).sum().abs()),
        # In one dimension the optimal transport between samples of one size leads from rank to rank.
        "wasserstein": _Similarity(lambda w: w.flatten().softmax(0).sort().values, flat_mean),
        "emd": _Similarity(drawn, flat_mean),
        "covariance": _Similarity(_size_of_covariance, lambda a, b: (a - b).abs()),
        "weight_cka": _Similarity(lambda w: _unit(w - w.mean(0)), lambda a, b: (a * b).sum()),
        "moments": _Similarity(
            lambda w: torch.stack([w.mean(), w.std(correction=0)]), lambda a, b: (a - b).abs().sum().sqrt()
        ),
    }


def _unit(w: torch.Tensor) -> torch.Tensor:
    return w / w.norm()


def _size_of_covariance(w: torch.Tensor) -> torch.Tensor:
    """Frobenius norm of the covariance of the rows, each column standardised."""
    w = w - w.mean(0)
    sd = w.std(0, correction=0)
    w = torch.where(sd > 0, w / sd, 0.0)
    w = w - w.mean(1, keepdim=True)
    # |W W'| = |W' W|: the smaller one.
    return (w @ w.T if len(w) <= w.shape[1] else w.T @ w).norm() / (w.shape[1] - 1)


def _by_weights(
    model: PreTrainedModel, pairs: Mapping[str, Sequence[tuple[int, int]]], similarity: str, seed: int
) -> dict[tuple[str, str], float]:
    """The value of every pair of modules: of a layer the mean over its matrices."""
    prepare, compare = _similarities(seed)[similarity]
    base: Any = model.base_model
    values: dict[tuple[str, str], float] = {}
    with torch.no_grad():
        for part, between in pairs.items():
            numbers = sorted({i for pair in between for i in pair})
            modules = {i: base.get_submodule(_name(part, i)) for i in numbers}
            inside = [n for n, m in modules[numbers[0]].named_modules() if isinstance(m, nn.Linear | Conv1D)]
            found = {pair: [] for pair in between}  # type: dict[tuple[int, int], list[float]]
            for name in inside:
                ready = {i: prepare(_weight(m.get_submodule(name), _name(part, i))) for i, m in modules.items()}
                for i, j in between:
                    found[i, j].append(float(compare(ready[i], ready[j])))
            values |= {(_name(part, i), _name(part, j)): float(np.mean(v)) for (i, j), v in found.items()}
    return values


def _weight(module: Any, name: str) -> torch.Tensor:
    weight = (module.weight.T if isinstance(module, Conv1D) else module.weight).detach().double()
    if not torch.isfinite(weight).all():
        raise InputError(
            f"{name}: its weights are not all finite, so it is like no other layer. Look at the checkpoint"
        )
    return weight


def _by_states(
    model: PreTrainedModel,
    pairs: Mapping[str, Sequence[tuple[int, int]]],
    corpus: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
) -> dict[tuple[str, str], float]:
    """Linear CKA of the pooled outputs of every pair of modules."""
    base: Any = model.base_model
    prefix = "" if base is model else f"{model.base_model_prefix}."
    widths: dict[int, list[str]] = {}  # one pass for all that are of one width
    for part, between in pairs.items():
        for number in sorted({i for pair in between for i in pair}):
            name = _name(part, number)
            module = base.get_submodule(name)
            width = 0  # whole layers, which are alone
            if isinstance(module, nn.Linear | Conv1D):
                width = module.weight.shape[isinstance(module, Conv1D)]
            widths.setdefault(width, []).append(name)
    states: dict[str, np.ndarray] = {}
    for names in widths.values():
        found = capture(model, tokenizer, corpus, modules=[prefix + name for name in names], progress=False)
        states |= dict(zip(names, found["hidden"].values, strict=True))
    values: dict[tuple[str, str], float] = {}
    for part, between in pairs.items():
        numbers = sorted({i for pair in between for i in pair})
        # All texts as those of one language: only their whole is asked for.
        reps = from_arrays(np.stack([states[_name(part, i)] for i in numbers]))
        cka = states_similarity(reps, measure="cka", draws=2)["value"].sel(language="pooled").values
        values |= {(_name(part, i), _name(part, j)): float(cka[numbers.index(i), numbers.index(j)]) for i, j in between}
    return values


def _parts(model: PreTrainedModel, unit: str) -> dict[str, list[int]]:
    """The layers of each part of a model, by number."""
    prefix = "" if model.base_model is model else f"{model.base_model_prefix}."
    parts: dict[str, list[int]] = {}
    for name in block_matrices(model):
        part, number = _split(name.removeprefix(prefix).removesuffix(".weight"))
        part = part if unit == "matrix" else part[: part.index("*") + 1]
        if number not in parts.setdefault(part, []):
            parts[part].append(number)
    return parts


def _split(name: str) -> tuple[str, int]:
    """The part that a module is of, and the number of its layer: the first number in its name."""
    place = _NUMBERED.match(name)
    assert place is not None  # what stands in a list of modules has a number
    return f"{place[1]}*{place[3] or ''}", int(place[2])


def _name(part: str, number: int) -> str:
    return part.replace("*", str(number), 1)


def _pairs(model: PreTrainedModel, unit: str) -> dict[str, list[tuple[int, int]]]:
    """The pairs of layers of one shape, by part; raise `InputError` where there are none."""
    if not isinstance(model, PreTrainedModel):
        raise InputError(f"expected a model of transformers, found {type(model).__name__}")
    base: Any = model.base_model
    shared: dict[str, str] = getattr(model.config, "shared_layers", None) or {}
    parts = _parts(model, unit)
    for name in (*shared, *shared.values()):
        if _split(name)[0] not in parts:
            other = next(u for u in UNITS if u != unit)
            raise InputError(
                f"unit={unit!r}: layers of this model share their tensors by unit={other!r} already (config."
                f"shared_layers names {name!r}). Go on with unit={other!r}, or fuse the model as it was before"
            )
    pairs: dict[str, list[tuple[int, int]]] = {}
    for part, numbers in parts.items():
        shapes = {
            i: {n: tuple(p.shape) for n, p in base.get_submodule(_name(part, i)).named_parameters()}
            for i in sorted(numbers)
            if _name(part, i) not in shared
        }
        between = [(i, j) for i, j in combinations(shapes, 2) if shapes[i] == shapes[j]]
        if between:
            pairs[part] = between
    if not pairs:
        count = max((len(numbers) for numbers in parts.values()), default=0)
        if count < 2:
            why = f"has {count} layer{'' if count == 1 else 's'} with weight matrices"
        else:
            why = f"has {count} layers, of which no two have tensors of their own that are of one shape"
        raise InputError(
            f"nothing to fuse: {type(model).__name__} {why}. Expected at least two of one shape, as in a model before "
            "its layers were pruned or fused"
        )
    return pairs


class _Fuses(TrainerCallback):
    """Fuses layers of a model in place, at once or at some steps of a training."""

    def __init__(
        self,
        model: PreTrainedModel,
        goals: Mapping[str, int],
        similarity: str,
        merge: str,
        unit: str,
        corpus: datasets.Dataset | None,
        tokenizer: PreTrainedTokenizerBase | None,
        seed: int,
    ) -> None:
        self.model, self.goals, self.similarity, self.merge, self.unit = model, dict(goals), similarity, merge, unit
        self.corpus, self.tokenizer, self.seed = corpus, tokenizer, seed
        self.done: list[dict[str, Any]] = []
        self.shares: dict[int, float] = {}  # of the goals, reached at each step

    def fuse(self, share: float, step: int) -> None:
        """Fuse the most similar pairs of each part until the share of its goal is reached."""
        counts = {part: math.floor(share * goal + 1e-9) for part, goal in self.goals.items()}
        for fusion in self.done:
            counts[fusion["part"]] -= 1
        if not any(count > 0 for count in counts.values()):
            return
        table = layer_similarity(
            self.model,
            similarity=self.similarity,
            unit=self.unit,
            corpus=self.corpus,
            tokenizer=self.tokenizer,
            seed=self.seed + step,
        )
        generator = torch.Generator().manual_seed(self.seed + step)
        gone: set[tuple[str, int]] = set()
        for part, i, j, value in table.itertuples(index=False):
            if counts.get(part, 0) > 0 and (part, i) not in gone and (part, j) not in gone:
                self._merge(_name(part, i), _name(part, j), generator)
                found = float(value) if math.isfinite(value) else None  # JSON has no NaN
                fusion = {"part": part, "layer": int(i), "other_layer": int(j), "similarity": found}
                self.done.append(fusion | ({"step": step} if step else {}))
                gone.add((part, j))
                counts[part] -= 1

    def _merge(self, first: str, second: str, generator: torch.Generator) -> None:
        """Put the tensors of two modules together as those of the first, which the second shares from now on."""
        if self.merge == "drop" and self.unit == "layer":
            return
        base: Any = self.model.base_model
        shared: dict[str, str] = dict(getattr(self.model.config, "shared_layers", None) or {})
        sizes = [1 + sum(source == name for source in shared.values()) for name in (first, second)]
        of_second = sizes[1] / sum(sizes)
        modules = [base.get_submodule(name) for name in (first, second)]
        taken = torch.rand((), generator=generator) < of_second
        with torch.no_grad():
            for p, q in zip(*(m.parameters() for m in modules), strict=True):
                if self.merge == "mean":
                    p.copy_((sizes[0] * p.double() + sizes[1] * q.double()) / sum(sizes))
                elif self.merge == "mix":
                    mask = torch.rand(p.shape, generator=generator) < of_second
                    p.copy_(torch.where(mask.to(p.device), q, p))
                elif self.merge == "freeze" and taken:
                    p.copy_(q)
        self._share(first, second)

    def _share(self, first: str, second: str) -> None:
        config = self.model.config
        shared: dict[str, str] = dict(getattr(config, "shared_layers", None) or {})
        # All that shared the second's.
        shared = {t: first if s == second else s for t, s in shared.items()} | {second: first}
        config.shared_layers = dict(sorted(shared.items()))
        base: Any = self.model.base_model
        for parameter in base.get_submodule(second).parameters():
            parameter.grad = None
        apply_sharing(self.model)
        if self.merge == "freeze":
            for parameter in base.get_submodule(first).parameters():
                parameter.requires_grad_(False)
                parameter.grad = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        saved = _saved(args.output_dir, state.global_step)
        if saved.is_file():  # a training that goes on: what it had fused, with the weights that it had
            self.done = json.loads(saved.read_text(encoding="utf-8"))
            for fusion in self.done:
                self._share(*(_name(fusion["part"], fusion[k]) for k in ("layer", "other_layer")))

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            write_whole(_saved(args.output_dir, state.global_step), json.dumps(self.done) + "\n")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step in self.shares:
            with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
                self.fuse(self.shares[state.global_step], state.global_step)


def _saved(folder: str, step: int) -> Path:
    return Path(folder) / f"{PREFIX_CHECKPOINT_DIR}-{step}" / "fusions.json"


def _goals(model: PreTrainedModel, unit: str, share: float) -> dict[str, int]:
    """How many tensors of each part are still to go; raise `InputError` where none is."""
    pairs = _pairs(model, unit)
    parts = _parts(model, unit)
    shared: dict[str, str] = getattr(model.config, "shared_layers", None) or {}
    # 0.29 * 100 is 28.999...
    wanted = {part: math.floor(share * len(parts[part]) + 1e-9) for part in pairs}
    goals = {part: count - sum(_name(part, i) in shared for i in parts[part]) for part, count in wanted.items()}
    if max(goals.values()) > 0:
        return {part: max(0, goal) for part, goal in goals.items()}
    most = max(len(parts[part]) for part in pairs)
    if max(wanted.values()) == 0:
        raise InputError(
            f"nothing to fuse: share={share} of {most} layers is less than one. Ask for at least {1 / most:.2g}"
        )
    raise InputError(
        f"nothing to fuse: share={share}, and so many layers of this model share their tensors already. Ask for more"
    )


def _check_similarity(similarity: str, unit: str, no_text: bool, corpus: bool) -> None:
    known = ("cka", *_similarities(0))
    if similarity not in known:
        raise InputError(f"similarity={similarity!r} is not known; choose one of {', '.join(map(repr, known))}")
    if unit not in UNITS:
        raise InputError(f"unit={unit!r} is not known; choose one of {', '.join(map(repr, UNITS))}")
    if similarity == "cka" and no_text:
        raise InputError("similarity='cka' compares what layers make of texts: give corpus=... and tokenizer=...")
    if similarity != "cka" and corpus:
        raise InputError(
            f"corpus=... is given and nothing reads it: similarity={similarity!r} is of the weights alone. Leave it "
            "out, or choose similarity='cka'"
        )


def _check_settings(
    share: float,
    similarity: str,
    merge: str,
    unit: str,
    schedule: str,
    fusions: int,
    train: datasets.Dataset | None,
    corpus: datasets.Dataset | None,
    tokenizer: PreTrainedTokenizerBase | None,
    steps: int,
) -> None:
    if not 0 < share < 1:
        raise InputError(f"share={share}: expected above 0 and below 1, the share of the layers that go by sharing")
    if merge not in MERGES:
        raise InputError(f"merge={merge!r} is not known; choose one of {', '.join(map(repr, MERGES))}")
    _check_similarity(similarity, unit, (corpus is None and train is None) or tokenizer is None, corpus is not None)
    if train is not None and not steps and (similarity != "cka" or corpus is not None):
        raise InputError("train=... is given, and steps=0 trains nothing: give steps=..., or leave it out")
    if schedule not in SCHEDULES:
        raise InputError(f"schedule={schedule!r} is not known; choose one of {', '.join(map(repr, SCHEDULES))}")
    if schedule == "one_shot":
        return
    if not steps:
        raise InputError(f"schedule={schedule!r} fuses while it trains: give train=... and steps=...")
    if unit == "layer" and merge == "drop":
        raise InputError("merge='drop' takes whole layers out before any training: leave schedule='one_shot'")
    if not is_whole(fusions) or not 1 <= fusions < steps:
        raise InputError(
            f"fusions={fusions!r}: expected a whole number of at least 1 and below {steps}, the steps that they are "
            "spread over"
        )
