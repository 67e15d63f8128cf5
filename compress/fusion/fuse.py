"""Layer fusion: layers that are alike share one tensor, at once or step by step in training."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.fusion.layer_similarity import check_compared, check_similarity
from compress.fusion.merging import Fusing
from compress.fusion.pairs import groups_of, module_name, pairs_of, parts_of
from compress.matrices import check_plain, covered, joined_in_files, matrices_in
from compress.objectives.base import Objective, is_whole
from compress.pruning.drop_layers import drop_layers
from compress.rows import trained_on
from compress.saving import record
from compress.training.inside import Training
from probes.corpus import check_corpus, corpus_fingerprint
from probes.errors import InputError, check_choice
from probes.models.blocks import family_of
from probes.models.facts import name_of
from probes.models.formats.shared_layers import shared_of

MERGES = ("mean", "mix", "freeze", "drop")
SCHEDULES = ("one_shot", "uniform")
_WHOLE = "unit='layer' shares all of a layer"


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

    As many layers are computed as before, with fewer tensors: those fused are one
    `torch.nn.Parameter` at several places, so that it gets the sum of their gradients and is saved
    once. Pairs are fused from the most similar on; a layer that was fused into another is not taken
    again, but others may join that one, so that groups grow beyond two.

    Args:
        model: a model of transformers; it is not changed.
        share: of the n tensors of one part (all query matrices, say) floor(share * n) go; above 0
            and below 1.
        similarity: "cka" (of what the layers compute, over texts), or one of the weights alone:
            "euclidean", "cosine", "kl", "wasserstein", "emd", "covariance", "weight_cka", "moments"
            (see `layer_similarity`).
        merge: what the one tensor is. "mean": the mean of all that share it. "mix": every element
            is that of one of them, drawn at random. "freeze": that of one of them, drawn at random,
            which from now on gets no gradient (`requires_grad` is False; files do not keep that).
            "drop": that of the first of them; with unit="layer" the later layer is taken out of the
            model and nothing is shared.
        unit: what is fused: every "matrix" with its bias, only with those of the same part, or a
            "layer" with all that is in it. Convolutions are fused as matrices are, of one shape;
            the layers of an LSTM whole, either way.
        corpus: what "cka" is measured over, and no other similarity; by default the rows of `train`
            that are trained on. Some hundred texts are enough.
        schedule: "one_shot" (before any training) or "uniform": while it trains, step by step, by
            similarities that are measured anew each time.
        fusions: how many steps, at even distances, with as many updates after the last as between
            two.
        train: a corpus to train on.
        tokenizer: of the model, where there is text.
        steps: updates of the weights; 0 for no training.
        objective: what is trained for, of `compress.objectives`; by default what the model's
            head is for: its labels, or the tokens of the text.
        teacher: for the objectives that need one; by default the model itself, before any fusion.
        seed: of what is drawn, and of the training.
        folder: for checkpoints, as in `compress.training.train`; a training that was interrupted
            goes on.
        settings: how the training goes, of `compress.TrainingSettings` (batch_size, learning_rate,
            weight_decay, warmup, max_length, ...), and further ones of `compress.training.train`
            (evaluate, evaluate_at, callbacks, save_every, progress).

    Returns:
        A new model of the same class. `model.config.compression` says what was done to it: the
        `groups` of layers by part, every fusion with its similarity, and the parameters before and
        after, each counted once; after training `model.history` is what was logged.

    Raises:
        InputError: share, similarity, merge, unit or schedule is not known or does not fit what
            else is given; a corpus is given and nothing reads it; there is nothing to fuse: no two
            layers of one shape, a share that is less than one of them, or a model in which so many
            are shared already, or one whose file keeps several matrices as one tensor, by "matrix"
            (nomic_bert, gte, jina_embeddings_v3); what `compress.training.train` raises.

    Notes:
        O' Neill, Ver Steeg and Galstyan 2020, arXiv 2007.14917. Ours: a share is rounded down in
        each part, over all fusions and not in each; the mean of a group counts each of its layers
        once; "mix" is without noise and drawn once; of "freeze" what is left is one tensor. Plain
        `from_pretrained` puts random numbers in place of what is not in the file:
        `probes.load_checkpoint` loads what `compress.save` wrote. The reference page says more.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> fused = fuse(model, share=0.5)
        >>> fused.config.compression["groups"]["encoder.layer.*.output.dense"]
        [[0, 1, 2, 3]]

    See also:
        `layer_similarity`, `drop_layers`, `save`.
    """
    check_plain(model)
    used = similarity == "cka" and corpus is None  # also without steps
    training = Training(
        model, train, tokenizer, steps, objective, teacher, folder=folder, seed=seed, used=used, **settings
    )
    _check_settings(share, similarity, merge, unit, schedule, fusions, train, corpus, tokenizer, steps)
    if similarity == "cka" and corpus is None:
        assert train is not None  # _check_settings has raised
        corpus = train.select(trained_on(train))
    check_file(model, unit)
    goals = _goals(model, unit, share)
    check_compared(model, pairs_of(model, unit), similarity)
    parts = [module_name(part, i) for part, numbers in parts_of(model, unit).items() for i in numbers]
    touched = covered(model, matrices_in(model, parts), "fuse", False, "" if unit == "layer" else _WHOLE)
    if unit == "layer" and merge == "drop":
        family_of(model)  # raises where layers cannot be taken out
    fused = copy.deepcopy(model)
    before = groups_of(fused)
    work = Fusing(fused, goals, similarity, merge, unit, corpus, tokenizer, seed)
    times: list[int] = []
    if schedule == "one_shot":
        work.fuse(1.0, step=0)
        if unit == "layer" and merge == "drop":
            fused = drop_layers(model, sorted(int(f["other_layer"]) for f in work.done))
    if steps:
        if schedule != "one_shot":
            times = [max(1, round(k * steps / (fusions + 1))) for k in range(1, fusions + 1)]
            work.shares = {step: (k + 1) / fusions for k, step in enumerate(times)}
        training.run(
            fused,
            callbacks=[work] if times else [],
            at=times,
            noted="fused_at",
            about={
                "share": share,
                "similarity": similarity,
                "merge": merge,
                "unit": unit,
                "similar_on": None if corpus is None else corpus_fingerprint(check_corpus(corpus)),
            },
        )
    what = {
        "method": "fuse",
        "similarity": similarity,
        "merge": merge,
        "unit": unit,
        "share": share,
        "schedule": schedule,
        "groups": groups_of(fused),
        "coverage": touched,
        "fusions": work.done,
        "parameters": sum(p.numel() for p in fused.parameters()),
        "parameters_of_parent": sum(p.numel() for p in model.parameters()),
    }
    if unit == "layer" and merge == "drop":
        what["dropped"] = sorted(f["other_layer"] for f in work.done)
    if before:
        what["groups_of_parent"] = before
    if similarity == "emd" or merge in ("mix", "freeze"):
        what["seed"] = seed
    return record(fused, what | training.recorded(), parent=model, history=training.history)


def check_file(model: PreTrainedModel, unit: str) -> None:
    """Raise `InputError` where a file keeps several of the matrices as one tensor."""
    prefix = "" if model.base_model is model else f"{model.base_model_prefix}."
    names = [prefix + module_name(part, i) for part, numbers in parts_of(model, unit).items() for i in numbers]
    for together in joined_in_files(model) if unit == "matrix" else ():
        inside = [name for name in names if name.endswith(together)]
        if inside:
            raise InputError(
                f"{name_of(model)} ({model.config.model_type}): its file keeps {', '.join(together)} as one tensor, so "
                f"that {inside[0]} cannot be shared without the others, and what is saved could not be loaded. Fuse "
                "by unit='layer'"
            )


def _goals(model: PreTrainedModel, unit: str, share: float) -> dict[str, int]:
    """How many tensors of each part are still to go; raise `InputError` where none is."""
    pairs = pairs_of(model, unit)
    parts = parts_of(model, unit)
    shared = shared_of(model)
    # 0.29 * 100 is 28.999...
    wanted = {part: math.floor(share * len(parts[part]) + 1e-9) for part in pairs}
    goals = {part: count - sum(module_name(part, i) in shared for i in parts[part]) for part, count in wanted.items()}
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
    check_choice("merge", merge, MERGES)
    check_similarity(similarity, unit, (corpus is None and train is None) or tokenizer is None, corpus is not None)
    check_choice("schedule", schedule, SCHEDULES)
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
