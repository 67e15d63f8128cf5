"""What models cost: parameters, bytes, operations and time, also side by side."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import datasets
import numpy as np
import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from probes.errors import DependencyError, InputError
from probes.files import in_words
from probes.models.bundled import BUNDLED, bundled_folder
from probes.models.facts import positions_of
from probes.models.formats.coded import is_coded
from probes.models.formats.embedding import weights_folder
from probes.models.formats.onnx_model import FILE, OnnxModel
from probes.models.formats.packed import saved_by_packing
from probes.models.spread import places_of, weight_in
from probes.models.weights import block_weights, embedding_parameters, hoyer_sparsity, stored_bytes
from probes.printing import two_digits
from probes.silence import quiet
from probes.states.batches import random_batch
from probes.states.layers import runner_of
from probes.states.running import device_of, evaluating, place_of, precision
from probes.states.tokens import batches_of

TEXTS = (1, 32)  # texts of the batches that are timed
_TOKENS = 32  # of each where there is no corpus
ROUNDS = 7  # of which the least and the most hold the median of many in 98 %
COUNTS = ["parameters", "nonzero", "embeddings", "encoder", "encoder_nonzero", "bytes", "stored_bytes", "stored_as"]
SECONDS = [f"seconds_{count}" for count in TEXTS]
SPEEDS = [f"speed_{count}{end}" for count in TEXTS for end in ("", "_low", "_high")]
COLUMNS = [*COUNTS, "operations", *SECONDS, *SPEEDS]


@dataclass(frozen=True)
class Subject:
    """A model, what runs it, and the batches that it is run on: of one text and of 32."""

    model: PreTrainedModel | OnnxModel
    run: Callable[..., object]
    batches: Mapping[int, Sequence[Mapping[str, torch.Tensor]]]
    device: torch.device
    dtype: str = "float32"


def footprint(model: PreTrainedModel | OnnxModel, smaller: PreTrainedModel | OnnxModel | None = None) -> pd.DataFrame:
    """Count and measure what a model costs, and what a smaller one does.

    Args:
        model: a model of transformers, or one that onnxruntime runs.
        smaller: what was made of it, to be measured side by side.

    Returns:
        One row a model: "model"; where two are given also "smaller", and "share", the smaller over
        the model. The columns: `parameters` and `nonzero` (of the whole model), `embeddings` (the
        parameters in its tables of embeddings), `encoder` and `encoder_nonzero` (of the weight
        matrices in its blocks), `bytes` (of its weights as `save_pretrained` writes them),
        `stored_bytes` (as the smallest format would store them that is known here) and `stored_as`
        (which: "as it is", "integers" or "codebooks" as a quantisation that is simulated counts
        them, "packed" as `compress.save(..., packed=True)` leaves out zeros), `operations`
        (multiplications and additions in matrix products of one forward pass over 32 texts of 32
        tokens, zeros counted like any number), and `seconds_1` and `seconds_32` (of a pass over 1
        and over 32 such texts, the median of 7, both models in turns, on the device that the model
        is on), `hoyer` (Hoyer's sparsity of the weight matrices in its blocks, the mean: 0 where all
        weights of a matrix are of one size, 1 where one alone is not zero).

    Raises:
        InputError: the model is none of transformers or onnxruntime.

    Notes:
        What is run is what `capture` runs: a model with its head where that puts texts into
        classes, else without it, and without its decoder where it has an encoder. Weights that are
        zero take as many bytes and as long as others, unless a format or a kernel makes something
        of them: what is saved and what is fast is told by `bytes`, `stored_bytes` and `seconds_32`,
        what could be by `nonzero`. Packed weights are small on disk only; loaded, they take the
        memory of any others.

    Example:
        >>> import compress, probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> cost = footprint(model, compress.prune(model, sparsity=0.6))
        >>> cost.loc["share", ["parameters", "encoder_nonzero"]].astype(float).round(2).tolist()
        [1.0, 0.4]

    See also:
        `compress.retrieval_cost`, `compress.save`.
    """
    models = {"model": model} | ({} if smaller is None else {"smaller": smaller})
    for name, one in models.items():
        if not isinstance(one, PreTrainedModel | OnnxModel):
            raise InputError(f"{name}: expected a model of transformers, found {type(one).__name__}")
    subjects = {name: on_random_texts(one, name) for name, one in models.items()}
    seconds = seconds_of(list(subjects.values()))
    rows = {name: counted(one) | {"operations": operations_of(one)} for name, one in subjects.items()}
    for i, (row, one) in enumerate(zip(rows.values(), models.values(), strict=True)):
        row |= {name: float(np.median(seconds[:, i, k])) for k, name in enumerate(SECONDS)}
        weights = [] if isinstance(one, OnnxModel) else [_at_hand(one, n, p) for n, p in block_weights(one).items()]
        row["hoyer"] = math.nan if is_coded(one) else hoyer_sparsity(weights)
    if smaller is not None:
        pairs = ((name, rows["smaller"][name], whole) for name, whole in rows["model"].items())
        rows["share"] = {
            k: "" if isinstance(one, str) else one / whole if whole else math.nan for k, one, whole in pairs
        }
    return pd.DataFrame.from_dict(rows, orient="index").astype({k: float for k in rows["model"] if k != "stored_as"})


def on_random_texts(model: PreTrainedModel | OnnxModel, name: str) -> Subject:
    """Return a model to be run on texts of 32 random tokens, or of fewer where it takes no more."""
    tokens = min(_TOKENS, positions_of(model) or _TOKENS)
    batches = {count: [random_batch(model, [tokens] * count)] for count in TEXTS}
    return Subject(model, runner_of(model, None, name)[0], batches, place_of(model, None, model.device, name))


def on_texts(
    model: PreTrainedModel | OnnxModel,
    tokenizer: Any,
    corpus: datasets.Dataset,
    name: str,
    seed: int = 0,
    *,
    device: str | torch.device | None = None,
    dtype: str = "float32",
    max_length: int | None = None,
    prompt: str | None = None,
    modules: Sequence[str] | None = None,
    part: str = "encoder",
    **_: object,
) -> Subject:
    """Return a model to be run on texts of a corpus: 32 that are drawn, and the one of middle
    length of these. The settings are those of `capture`.
    """
    rows = np.random.default_rng(seed).permutation(len(corpus))
    rows = np.resize(rows, max(TEXTS))  # a smaller corpus more than once
    middle = rows[np.argsort([len(corpus[int(row)]["text"]) for row in rows], kind="stable")[len(rows) // 2]]
    device = "cpu" if isinstance(model, OnnxModel) else device
    where = place_of(model, device, device_of(device), name)
    how: dict[str, Any] = {"max_length": max_length, "prompt": prompt, "device": device, "batch_tokens": 2**40}
    batches = {
        count: [
            batch
            for _, batch in batches_of(model, tokenizer, corpus.select(chosen), name, batch_size=count, **how)[1]()  # type: ignore[arg-type]
        ]
        for count, chosen in zip(TEXTS, ([middle], rows), strict=True)
    }
    return Subject(model, runner_of(model, modules, name, part)[0], batches, where, dtype)


def counted(subject: Subject, source: str | Path | None = None) -> dict[str, Any]:
    """Return parameters and bytes of a model, as `COUNTS` names them.

    Args:
        subject: the model.
        source: the folder that it was loaded from, where it was.
    """
    model = subject.model
    files = None if source is None else weight_files(source)
    size = _written(model) if files is None else sum(file.stat().st_size for file in files)
    if isinstance(model, OnnxModel):
        parameters = _of_graph(model)
    else:
        blocks = block_weights(model)
        counts = {name: (p.numel(), _nonzero(_at_hand(model, name, p))) for name, p in model.named_parameters()}
        parameters = {
            "parameters": sum(count for count, _ in counts.values()),
            "nonzero": sum(count for _, count in counts.values()),
            "embeddings": embedding_parameters(model),
            "encoder": sum(counts[name][0] for name in blocks),
            "encoder_nonzero": sum(counts[name][1] for name in blocks),
        }
    return parameters | {"bytes": size} | _stored(model, size)


def as_stored(model: PreTrainedModel | OnnxModel) -> dict[str, Any]:
    """Return the bytes of a model in the smallest format that is known here, and which that is:
    `stored_bytes` and `stored_as`, as `footprint` has them.

    Example:
        >>> import compress, probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> as_stored(compress.prune(model, sparsity=0.6))["stored_as"]
        'packed'
    """
    return _stored(model, _written(model))


def operations_of(subject: Subject) -> float:
    """Return multiplications and additions in the matrix products of a pass over 32 texts."""
    batches, model = subject.batches[max(TEXTS)], subject.model
    if isinstance(model, OnnxModel):
        return sum(model.operations(**batch) for batch in batches)
    # Fused attention is not counted everywhere; the plain one does the same operations.
    implementation = model.config._attn_implementation
    model.set_attn_implementation("eager")
    learned = [p for p in model.parameters() if p.requires_grad]  # the counter would follow their gradients: none here
    try:
        for p in learned:
            p.requires_grad_(False)
        with evaluating(model, subject.device), torch.no_grad(), FlopCounterMode(display=False) as counter:
            for batch in batches:
                subject.run(**batch)
    finally:
        model.set_attn_implementation(implementation)
        for p in learned:
            p.requires_grad_(True)
    return counter.get_total_flops()


def seconds_of(subjects: Sequence[Subject]) -> np.ndarray:
    """Return the seconds of 7 rounds: (round, model, batch of 1 or 32 texts).

    The models take turns, so that a machine that is busy is busy for all.
    """
    out = np.empty((ROUNDS + 1, len(subjects), len(TEXTS)))
    with ExitStack() as until_done:
        for one in subjects:
            until_done.enter_context(evaluating(one.model, one.device))
        until_done.enter_context(torch.inference_mode())
        for number in range(len(out)):  # the first round warms up
            for i, one in enumerate(subjects):
                with precision(one.device, one.dtype):
                    for k, count in enumerate(TEXTS):
                        _wait(one.device)
                        started = time.perf_counter()
                        for batch in one.batches[count]:
                            one.run(**batch)
                        _wait(one.device)
                        out[number, i, k] = time.perf_counter() - started
    return out[1:]


def as_table(
    rows: Mapping[str, Mapping[str, Any]], seconds: Mapping[str, np.ndarray], baseline: str, models: Sequence[str]
) -> pd.DataFrame:
    """Return what models cost, a row a model, empty where it was not measured.

    Args:
        rows: of a model, what `counted` and `operations_of` say.
        seconds: of a model, what `seconds_of` says of the baseline and it; of the baseline alone,
            of it.
        baseline: which model that is.
        models: all of them.
    """
    out = pd.DataFrame(index=pd.Index(models, name="model"), columns=COLUMNS, dtype=object)
    for name, row in rows.items():
        for column, value in row.items():
            out.loc[name, column] = value
    every = [found[:, 0] for found in seconds.values()]
    for name, found in seconds.items():
        own = np.concatenate(every) if name == baseline else found[:, -1]
        faster = found[:, 0] / found[:, -1]
        for k, count in enumerate(TEXTS):
            out.loc[name, f"seconds_{count}"] = median(own[:, k])
            if name != baseline:
                ends = {"": median(faster[:, k]), "_low": faster[:, k].min(), "_high": faster[:, k].max()}
                for end, value in ends.items():
                    out.loc[name, f"speed_{count}{end}"] = value
    out["stored_as"] = out["stored_as"].fillna("").astype(str)
    return out.astype({name: float for name in COLUMNS if name != "stored_as"}).reset_index()


def seconds_in_words(seconds: float) -> str:
    """Return a time to two digits.

    Example:
        >>> seconds_in_words(0.0312), seconds_in_words(2.31)
        ('31 ms', '2.3 s')
    """
    return f"{two_digits(1000 * seconds)} ms" if seconds < 0.995 else f"{two_digits(seconds)} s"


def as_rows(models: pd.DataFrame) -> list[dict[str, str]]:
    """Return a table of what models cost as texts, a row a model: of the columns that have values,
    in the words of its head.
    """
    names: dict[str, tuple[str, Callable[[Any], str]]] = {
        "stored_bytes": ("stored", in_words),
        "stored_as": ("stored as", str),
        "bytes": ("file", in_words),
        "parameters": ("parameters", lambda n: f"{n:,.0f}"),
        "nonzero": ("not zero", lambda n: f"{n:,.0f}"),
        "embeddings": ("in embeddings", lambda n: f"{n:,.0f}"),
        "operations": ("operations, 32 texts", lambda n: f"{n / 1e9:.3g} billion"),
        "seconds_1": ("time, 1 text", seconds_in_words),
        "seconds_32": ("time, 32 texts", seconds_in_words),
        "speed_1": ("times as fast, 1 text", two_digits),
        "speed_32": ("times as fast, 32 texts", two_digits),
    }
    there = [name for name in names if name in models and (models[name].notna() & (models[name] != "")).any()]
    out = []
    for row in models.to_dict("records"):
        cells = {names[n][0]: "" if pd.isna(row[n]) else names[n][1](row[n]) for n in there}
        for count in (1, 32):
            if (low := row.get(f"speed_{count}_low")) is not None and not pd.isna(low):
                ends = f" [{two_digits(low)}, {two_digits(row[f'speed_{count}_high'])}]"
                cells[names[f"speed_{count}"][0]] += ends
        out.append({"model": str(row["model"]), **cells})
    return out


def weight_files(source: str | Path) -> list[Path] | None:
    """Return the files of weights that a checkpoint is loaded from; None where they are not in a
    folder of their own, as those of an adapter or of a name on the hub.

    Example:
        >>> [file.name for file in weight_files("bundled")]
        ['model.safetensors']
    """
    if source in BUNDLED:
        with bundled_folder(source) as folder:
            return weight_files(folder)
    if Path(source).is_file():  # of GGUF
        return [Path(source)]
    folder = Path(weights_folder(source))
    if not folder.is_dir() or (folder / "adapter_config.json").is_file():
        return None
    for pattern in ("*.safetensors", FILE, "pytorch_model*.bin"):  # the first that there is, as it is loaded
        if found := sorted(folder.glob(pattern)):
            return found
    return None


def _written(model: PreTrainedModel | OnnxModel) -> int:
    """How many bytes its weights take as it is saved; of a model in several places without what a file has beside."""
    if places_of(model):
        return sum(p.numel() * p.element_size() for p in model.parameters())
    with tempfile.TemporaryDirectory() as folder:
        with quiet():
            model.save_pretrained(folder)
        return sum(f.stat().st_size for f in Path(folder).iterdir() if f.suffix == ".safetensors" or f.name == FILE)


def _stored(model: PreTrainedModel | OnnxModel, size: int) -> dict[str, Any]:
    """The smallest of the formats that a model could be stored in."""
    ways = {"as it is": float(size)}
    plain = not (isinstance(model, OnnxModel) or is_coded(model) or places_of(model))
    done = getattr(model.config, "compression", None)
    if plain and isinstance(done, dict) and isinstance(done.get("bytes_of_model"), int | float):
        ways["codebooks" if "codes" in done else "integers"] = float(done["bytes_of_model"])
    # Packed or in fewer bits already, where the file is smaller than the numbers that were loaded.
    if isinstance(model, PreTrainedModel) and plain and size > 0.98 * stored_bytes(model):
        saved = saved_by_packing(model.state_dict())
        ways |= {"packed": float(size - saved)} if saved else {}
    way = min(ways, key=lambda name: ways[name])
    return {"stored_bytes": ways[way], "stored_as": way}


def _of_graph(model: OnnxModel) -> dict[str, float]:
    """The parameters of an exported model; those of its blocks are not known apart."""
    try:
        weights, tables = model.weights()
    except DependencyError:  # onnxruntime runs without onnx
        return dict.fromkeys(("parameters", "nonzero", "embeddings", "encoder", "encoder_nonzero"), math.nan)
    return {
        "parameters": sum(w.size for w in weights.values()),
        "nonzero": sum(int(np.count_nonzero(w)) for w in weights.values()),
        "embeddings": sum(weights[name].size for name in tables),
        "encoder": math.nan,
        "encoder_nonzero": math.nan,
    }


def _at_hand(model: PreTrainedModel, name: str, weight: torch.Tensor) -> torch.Tensor:
    """A weight, read from where it lies."""
    return weight_in(model, name) if weight.is_meta else weight


def _nonzero(weight: torch.Tensor) -> int:
    # What another package stores by codes does not count by itself.
    return int((weight.dequantize() if hasattr(weight, "__tensor_flatten__") else weight).count_nonzero())


def _wait(device: torch.device) -> None:
    """Let what was handed to an accelerator finish."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
