"""Distillation: a student with fewer layers, or narrower ones, made of its teacher and trained to do as it does."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
import torch
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.matrices import block_of, check_plain
from compress.objectives.base import Objective, is_whole, uniform_layers
from compress.objectives.labels import CrossEntropy, SoftLabels
from compress.objectives.layers import HiddenStates
from compress.pruning.structure import drop_layers, prune_channels, prune_heads
from compress.saving import record
from compress.training.loop import check_settings
from compress.training.loop import train as run_training
from probes.corpus import check_corpus
from probes.errors import InputError
from probes.measures.fidelity.similarity import similarity
from probes.models.facts import classifies, embedding_rows, name_of
from probes.models.fingerprint import weights_fingerprint
from probes.models.parts import FAMILIES, family_of, head_size_of, layers_of
from probes.results.draws import POOLED
from probes.states.capture import capture

KEEP = ("uniform", "top", "bottom", "matched")
INITIALISE = ("truncate", "svd")
_EPOCHS = 3
_TEXTS = 2000  # that layers are chosen by
_NARROWED = ("bert", "roberta", "xlm-roberta", "camembert", "distilbert")


def distill(
    model: PreTrainedModel,
    *,
    layers: int | None = None,
    keep: str | Sequence[int] | npt.NDArray[np.integer] = "uniform",
    hidden_size: int | None = None,
    initialise: str = "truncate",
    student: PreTrainedModel | None = None,
    train: datasets.Dataset | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    steps: int | None = None,
    objective: Sequence[Objective] = (),
    teacher: PreTrainedModel | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    **settings: Any,
) -> PreTrainedModel:
    """Return a smaller model that is made of a model's weights and trained to do as the model does.

    Fewer layers: those that are kept are copied. Narrower ones: of what all layers read from and write to, and so of
    the embeddings and norms, `hidden_size` features or directions are kept; of the heads and channels of every layer
    the same share, those of the largest norm as in `compress.prune_heads` and `compress.prune_channels`.

    Args:
        model: a model of the BERT, RoBERTa, XLM-RoBERTa, CamemBERT, ELECTRA (not narrower) or DistilBERT family, or any
            where `student` is given; it is not changed.
        layers: how many layers the student has, 1 to as many as the model; by default as many.
        keep: which of the model's layers they are. "uniform": every k-th, with the last; "top" or "bottom": the last or
            first ones; "matched": the layers, measured on `train`, that the others are most like; or their numbers,
            from 0, ascending.
        hidden_size: of the student, a multiple of the size of a head; by default as the model's.
        initialise: what of its features is kept. "truncate": those with the largest weights; "svd": the directions with
            the largest weights, by singular value decomposition.
        student: any other model of the same tokenizer, in place of the four above; it is not changed.
        train: a corpus to train on; by soft labels and hidden states it needs no labels, and may be of any language.
        tokenizer: of the model, where there is text.
        steps: updates of the weights; by default three times through the rows of `train`, none without it.
        objective: what is trained for, of `compress.objectives`. By default the sum of the cross-entropy with the
            labels, where there are some; of soft labels of temperature 2; and of the squared difference of the hidden
            states, each of the student's layers from the model's that it was copied from (of a `student`: uniformly).
        teacher: what the student learns from; by default the model.
        seed: of the training.
        folder: for checkpoints, as in `compress.training.train`; a training that was interrupted goes on.
        settings: further settings of `compress.training.train`: batch_size, learning_rate, accumulate, evaluate,
            evaluate_at, callbacks, save_every, progress.

    Returns:
        A new model. `model.config.compression` says how it was made and is saved with it; after training
        `model.history` is what was logged.

    Raises:
        InputError: nothing is to be made smaller; layers or hidden size that the model has not; a setting is not known;
            there is no text to train or choose layers on; student and teacher do not share a tokenizer; the
            architecture is not known; layers that are in factors are to go, or a model with a sparse head or weights
            that are NaN or infinite to become narrower; what `compress.training.train` raises.

    Notes:
        Hinton, Vinyals and Dean 2015, arXiv 1503.02531. Choices made here: layer i of s (from 1) is the model's i t / s
        of t, rounded. "matched" cuts the layers into runs and keeps of each the one that the others of the run are most
        like, by linear CKA of the states after them on at most 2,000 texts, so that the sum over all layers is largest.
        What a feature or direction weighs is the sum of squares of the embeddings, and of the weights that read from
        and write to it, each matrix divided by its norm. Along directions, norms get the gain that independent features
        would have there. Of what a pooler gives, the features with the largest weights into and out of it are kept.
        The weights of the three default objectives, 1 each, and the temperature are choices too.

        Weights that are zero stay zero without training, but for narrower layers by "svd"; training changes them like
        any other. Inputs that were rounded (`compress.quantize`) still are in fewer layers. In narrower ones they are
        not: the ranges were measured on features that are no longer there.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> student = distill(model, layers=2, hidden_size=96)
        >>> student.config.compression["kept"], student.config.num_attention_heads
        ([2, 5], 3)
        >>> corpus = probes.load_corpus("bundled", split="train", languages=["en"])
        >>> student = distill(model, layers=2, train=corpus, tokenizer=tokenizer, steps=3, progress=False)
        >>> list(student.history)
        ['step', 'cross_entropy', 'soft_labels', 'hidden_states', 'loss']
    """
    check_plain(model)
    teacher = model if teacher is None else teacher
    if steps is None:
        steps = _steps(train, settings.get("batch_size", 32))
    check_settings(settings, train, tokenizer, steps)
    matching = isinstance(keep, str) and keep == "matched"
    if matching and (train is None or tokenizer is None):
        raise InputError("keep='matched' needs text: give train=..., a corpus, and tokenizer=...")
    if train is not None and not steps and not matching:
        raise InputError("train=... is given, and steps=0 trains nothing: give steps=..., or leave it out")
    how: dict[str, Any] = {"method": "distill"}
    matched: dict[int, int] | None = None
    if student is not None:
        if layers is not None or hidden_size is not None or not isinstance(keep, str) or keep != "uniform":
            raise InputError("student=... has its layers and width already: leave layers, keep and hidden_size out")
        check_plain(student)
        check_tokens(student, teacher)
        small = copy.deepcopy(student)
        how |= {"student": weights_fingerprint(student)}
    else:
        check_tokens(model, teacher)
        if layers is None and hidden_size is None and isinstance(keep, str):
            raise InputError("nothing to make smaller: give layers=..., hidden_size=... or student=...")
        if initialise not in INITIALISE:
            raise InputError(
                f"initialise={initialise!r} is not known; choose one of {', '.join(map(repr, INITIALISE))}"
            )
        _check_layers(model)
        if hidden_size is not None:
            _check_width(model, hidden_size)
            hidden_size = int(hidden_size)  # what is saved as JSON
        kept = _kept(model, layers, keep, train, tokenizer, seed)
        small = drop_layers(model, [i for i in range(len(layers_of(model, family_of(model)))) if i not in kept])
        if hidden_size is not None:
            small = _narrow(small, hidden_size, initialise)
        how |= {"layers": len(kept), "keep": keep if isinstance(keep, str) else "given", "kept": kept}
        how |= {"hidden_size": small.config.hidden_size}
        if hidden_size is not None:
            how |= {"initialise": initialise}
        # Of what was done only what was done to the model before, not the steps to its student.
        small.config.compression = getattr(model.config, "compression", None)
        if teacher.config.get_text_config().num_hidden_layers == model.config.num_hidden_layers:
            matched = {0: 0} | {i + 1: k + 1 for i, k in enumerate(kept)}
    history = None
    if steps:
        assert train is not None
        assert tokenizer is not None
        objective = list(objective) or _objectives(small, train, matched)
        given = {o.name: getattr(o, "layers", None) for o in objective}
        maps = {name: {str(int(i)): int(j) for i, j in pairs.items()} for name, pairs in given.items() if pairs}
        history = run_training(
            small,
            tokenizer,
            train,
            objective=objective,
            teacher=teacher,
            steps=steps,
            folder=folder,
            seed=seed,
            about={"map": maps},
            **settings,
        )
        how |= {"steps": steps, "seed": seed, "objective": [o.name for o in objective], "map": maps}
    how |= {
        "parameters": sum(p.numel() for p in small.parameters()),
        "parameters_of_parent": sum(p.numel() for p in model.parameters()),
        "parent": weights_fingerprint(model),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    return record(small, how, history)


def _runs(alike: np.ndarray, count: int) -> list[int]:
    """Cut layers into so many runs, and return of each the one the others are most like: (layer, layer) -> layers."""
    n = len(alike)
    best: dict[tuple[int, int], tuple[float, list[int]]] = {(0, 0): (0.0, [])}
    for runs in range(1, count + 1):
        for stop in range(runs, n + 1):
            options = []
            for start in range(runs - 1, stop):
                sums = alike[start:stop, start:stop].sum(0)
                before, kept = best.get((runs - 1, start), (-np.inf, []))
                options.append((before + sums.max(), [*kept, start + int(sums.argmax())]))
            best[runs, stop] = max(options, key=lambda option: option[0])
    return best[count, n][1]


def _kept(
    model: PreTrainedModel,
    layers: int | None,
    keep: str | Sequence[int] | npt.NDArray[np.integer],
    train: datasets.Dataset | None,
    tokenizer: PreTrainedTokenizerBase | None,
    seed: int,
) -> list[int]:
    """Return the numbers, from 0, of the model's layers that the student is made of."""
    count = len(layers_of(model, family_of(model)))
    if layers is not None and not (is_whole(layers) and 1 <= layers <= count):
        raise InputError(f"layers={layers!r}: expected a whole number from 1 to {count}, the layers of the model")
    if not isinstance(keep, str):
        given: list[Any] = list(keep) if isinstance(keep, Sequence) or np.ndim(keep) == 1 else []
        kept = [int(i) for i in given if is_whole(i)]
        if kept != given or not kept or sorted(set(kept)) != kept or not 0 <= kept[0] <= kept[-1] < count:
            raise InputError(f"keep={keep!r}: expected ascending numbers of layers from 0 to {count - 1}")
        if layers not in (None, len(kept)):
            raise InputError(f"keep={keep!r} are {len(kept)} layers, and layers={layers}: leave one of them out")
        return kept
    wanted = count if layers is None else int(layers)
    if keep == "uniform":
        return [i - 1 for i in uniform_layers(wanted, count)[1:]]
    if keep in ("top", "bottom"):
        return list(range(count - wanted, count)) if keep == "top" else list(range(wanted))
    if keep != "matched":
        raise InputError(f"keep={keep!r} is not known; choose one of {', '.join(map(repr, KEEP))}, or give numbers")
    assert train is not None
    assert tokenizer is not None
    corpus = _trained_on(train)
    if len(corpus) > _TEXTS:
        corpus = corpus.select(np.sort(np.random.default_rng(seed).choice(len(corpus), _TEXTS, replace=False)))
    states = capture(model, tokenizer, corpus, progress=False)
    alike = similarity(states.isel(layer=slice(1, None)), draws=2).value.sel(language=POOLED).values
    if np.isnan(alike).any():
        raise InputError("keep='matched': not all layers can be compared: look at the texts, or choose another one")
    return _runs(alike, wanted)


def _trained_on(corpus: datasets.Dataset) -> datasets.Dataset:
    """Return the rows that a training takes."""
    corpus = check_corpus(corpus)
    if "split" in corpus.column_names:
        corpus = corpus.select([i for i, split in enumerate(corpus["split"]) if split == "train"])
    if not len(corpus):
        raise InputError("the corpus has no row of split 'train': give one that has some, or one without splits")
    return corpus


def _steps(train: datasets.Dataset | None, batch_size: int) -> int:
    if train is None:
        return 0
    # What is no size of a batch is refused where the training begins.
    return _EPOCHS * -(-len(_trained_on(train)) // (batch_size if is_whole(batch_size) and batch_size > 0 else 1))


def _objectives(
    student: PreTrainedModel, train: datasets.Dataset, matched: Mapping[int, int] | None
) -> list[Objective]:
    """Return what a student is trained for where nothing is said."""
    out: list[Objective] = []
    if classifies(student):
        out += [CrossEntropy()] if "label" in train.column_names else []
        out.append(SoftLabels(temperature=2))
    return [*out, HiddenStates(layers=matched)]


def check_tokens(student: PreTrainedModel, teacher: PreTrainedModel) -> None:
    """Raise `InputError` where two models cannot be of one tokenizer."""
    rows, padding = (
        [of(model) for model in (student, teacher)]
        for of in (embedding_rows, lambda model: model.config.get_text_config().pad_token_id)
    )
    for what, (mine, theirs), but in (
        (
            "{:,} token embeddings",
            rows,
            # Which rows are no tokens a model does not say.
            f"; where one has the other's tokens and only more rows, make both {max(rows)} by resize_token_embeddings",
        ),
        ("the padding token {}", padding, ""),
    ):
        if mine != theirs and None not in (mine, theirs):
            raise InputError(
                f"student and teacher are not known to share a tokenizer: the student {name_of(student)} has "
                f"{what.format(mine)}, the teacher {name_of(teacher)} {what.format(theirs)}. Give two models of one "
                f"tokenizer{but}"
            )


def _check_layers(model: PreTrainedModel) -> None:
    """Raise `InputError` where the layers of a model are in factors, and not of a kind that is taken apart here."""
    factors = [name for name in getattr(model.config, "factorized", None) or {} if block_of(name) is not None]
    if factors:
        raise InputError(
            f"{name_of(model)}: {len(factors)} matrices of its layers are in factors (config.factorized), the first "
            f"{factors[0]}, and students are not made of those. Distil first, then factorise; or give a student=..., "
            "which may be in factors"
        )


def _check_width(model: PreTrainedModel, hidden_size: int) -> None:
    family = family_of(model)
    if model.config.model_type not in _NARROWED or getattr(model.config, "heads_kept", None):
        raise InputError(
            f"hidden_size: narrower students are made of {', '.join(_NARROWED)} with all their heads, and not of "
            f"{name_of(model)}. Give one as student=..., or leave hidden_size out"
        )
    if hasattr(model, "sparse_head"):
        raise InputError(
            f"hidden_size: the sparse head of {name_of(model)} reads states of the width that it has. Make the model "
            "narrower that it was made from, then call sparsify_embeddings; or leave hidden_size out"
        )
    whole, size = model.config.hidden_size, head_size_of(layers_of(model, family)[0], family)
    fits = is_whole(hidden_size) and 0 < hidden_size <= whole and hidden_size % size == 0
    if not fits:
        raise InputError(
            f"hidden_size={hidden_size!r}: expected a multiple of {size}, the size of an attention head, and at most "
            f"{whole}, the model's, so that whole heads are kept"
        )
    _rules(model)
    for name, weight in model.named_parameters():
        bad = int((~torch.isfinite(weight)).sum())
        if bad:
            raise InputError(
                f"{name}: {bad} of its {weight.numel()} values are NaN or infinite, so what it weighs is not known. "
                "Look at how it was trained or saved"
            )


def _rules(model: PreTrainedModel) -> tuple[dict[str, tuple[str | None, ...]], list[str]]:
    """Return which dimensions of parameters are the model's width, by name, and the parameters that make the pooled.

    "stream": what all layers read from and write to; "pooled": what the last linear map reads.
    """
    family = FAMILIES[model.config.model_type]
    reads = [*family["projections"], family["inner"]]
    writes = [family["joined"], family["outer"]]
    norms = r"(LayerNorm|sa_layer_norm|output_layer_norm)"
    pooled = r"(pooler\.dense|pre_classifier|classifier\.dense)"
    layer = re.escape(family["layers"]) + r"\.\d+\."
    known: list[tuple[str, tuple[str | None, ...]]] = [
        (r"embeddings\.\w+_embeddings\.weight", (None, "stream")),
        (rf"(.*\.)?{norms}\.(weight|bias)", ("stream",)),
        *((rf"{layer}{re.escape(name)}\.weight", (None, "stream")) for name in reads),
        *((rf"{layer}{re.escape(name)}\.bias", (None,)) for name in reads),
        *((rf"{layer}{re.escape(name)}\.weight", ("stream", None)) for name in writes),
        *((rf"{layer}{re.escape(name)}\.bias", ("stream",)) for name in writes),
        (rf"{pooled}\.weight", ("pooled", "stream")),
        (rf"{pooled}\.bias", ("pooled",)),
    ]
    prefix = f"{model.base_model_prefix}."
    names = [name for name, _ in model.named_parameters()]
    makers = [n for n in names if re.fullmatch(rf"{pooled}\.weight", n.removeprefix(prefix))]
    known.append((r"(classifier|classifier\.out_proj|qa_outputs)\.weight", (None, "pooled" if makers else "stream")))
    known.append((r"(classifier|classifier\.out_proj|qa_outputs)\.bias", (None,)))
    rules = {}
    for name in names:
        found = [kinds for pattern, kinds in known if re.fullmatch(pattern, name.removeprefix(prefix))]
        if not found:
            raise InputError(
                f"hidden_size: how {name} of {type(model).__name__} is made narrower is not known. Give a student=..., "
                "or a model whose head gives classes"
            )
        rules[name] = found[0]
    return rules, makers


def _narrow(model: PreTrainedModel, hidden_size: int, initialise: str) -> PreTrainedModel:
    """Return a narrower copy of a model, whose inputs are not rounded."""
    share = 1 - hidden_size / model.config.hidden_size
    small = prune_channels(prune_heads(model, share), share)
    config = copy.deepcopy(small.config)
    config.num_attention_heads = small.config.heads_kept[0]
    config.hidden_size = hidden_size
    del config.heads_kept, config.compression
    if hasattr(config, "quantized_inputs"):
        del config.quantized_inputs  # ranges of other features
    rules, makers = _rules(small)
    state = {name: p.detach().double() for name, p in small.named_parameters()}
    directions = _directions(state, rules, hidden_size, initialise)
    for name, kinds in rules.items():
        # The gain of a norm is no vector of the stream, but a scale of each feature.
        gain = initialise == "svd" and kinds == ("stream",) and re.search(r"(?i)norm\.weight$", name)
        for dimension, kind in enumerate(kinds):
            if kind == "stream":
                along = state[name].movedim(dimension, -1)
                along = (along.square() @ directions.square()).sqrt() if gain else along @ directions
                state[name] = along.movedim(-1, dimension)
    for maker in makers:
        _keep_pooled(state, rules, maker, hidden_size)
    with torch.random.fork_rng(devices=[]):
        narrow: Any = type(model)(config)
    narrow.to(device=model.device, dtype=model.dtype).train(model.training)
    own = dict(narrow.named_parameters())
    with torch.no_grad():
        for name, tensor in state.items():
            own[name].copy_(tensor)
    return narrow


def _directions(
    state: Mapping[str, torch.Tensor], rules: Mapping[str, tuple[str | None, ...]], count: int, initialise: str
) -> torch.Tensor:
    """Return what is kept of the stream, as columns of unit length: (feature, count)."""
    width = next(state[n].shape[-1] for n, kinds in rules.items() if kinds == (None, "stream"))
    products = torch.zeros(width, width, dtype=torch.float64, device=next(iter(state.values())).device)
    for name, kinds in rules.items():
        if len(kinds) == 2 and "stream" in kinds:
            rows = state[name].movedim(kinds.index("stream"), -1)
            products += rows.T @ rows / rows.square().sum().clamp_min(torch.finfo(torch.float64).tiny)
    if initialise == "truncate":
        largest = torch.argsort(products.diagonal(), descending=True, stable=True)[:count].sort().values
        return torch.eye(width, dtype=torch.float64, device=products.device)[:, largest]
    directions = torch.linalg.eigh(products).eigenvectors.flip(1)[:, :count]
    # A direction has no sign of its own: its largest part is positive.
    signs = directions.gather(0, directions.abs().argmax(0, keepdim=True)).sign()
    return directions * signs


def _keep_pooled(
    state: dict[str, torch.Tensor], rules: Mapping[str, tuple[str | None, ...]], maker: str, count: int
) -> None:
    """Keep the features of the largest weights of what a pooler gives, in place."""
    readers = [name for name, kinds in rules.items() if kinds == (None, "pooled")]
    bias = state[maker.removesuffix("weight") + "bias"]
    weight = state[maker].square().sum(1) + bias.square()
    for reader in readers:
        weight = weight * state[reader].square().sum(0)
    kept = torch.argsort(weight, descending=True, stable=True)[:count].sort().values
    for name, kinds in rules.items():
        if "pooled" in kinds:
            state[name] = state[name].index_select(kinds.index("pooled"), kept)
