"""What was done to a model, kept with it: in its configuration and as `compression.json`."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from probes.errors import InputError, path_of
from probes.files import beside, check_space, check_writable, locked, named, remove
from probes.models.fingerprint import weights_fingerprint
from probes.models.formats.coded import CODED
from probes.models.formats.extensions import check_allowed, check_kept
from probes.models.formats.layers_kept import LAYERS_KEPT
from probes.models.formats.onnx_model import OnnxModel
from probes.models.formats.packed import pack_weights
from probes.models.spread import check_whole
from probes.models.weights import stored_bytes
from probes.silence import quiet


def record(
    model: PreTrainedModel,
    what: dict[str, Any],
    *,
    parent: PreTrainedModel,
    history: pd.DataFrame | None = None,
    layers: Sequence[int] | None = None,
) -> PreTrainedModel:
    """Keep with a model what was done to it, and what was logged in training, as `model.history`.

    What was done goes into its configuration, which `save_pretrained` and `from_pretrained` carry
    along; what had been done to the model before, as its configuration still says, stays there as
    `before`. The weights it was made of, and the versions of what computed it, are added here, and
    `made_of`, where layers were taken out: the numbers of those that are left, in the model that
    all began with.

    Args:
        model: what came out.
        what: was done.
        parent: what it was done to.
        history: of the training.
        layers: of the parent, from 0, that are left; None where all are.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> list(record(model, {"method": "none"}, parent=model).config.compression)
        ['method', 'parent', 'torch', 'transformers']
    """
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    what = what | {"parent": weights_fingerprint(parent)} | versions
    before = getattr(model.config, "compression", None)
    made_of = None if before is None else before.get("made_of")
    if layers is not None:
        made_of = [layer if made_of is None else made_of[layer] for layer in layers]
    if made_of is not None:
        what |= {"made_of": made_of}
    model.config.compression = what if before is None else {"before": before, **what}
    if history is not None and "coverage" in what:
        history.attrs["coverage"] = what["coverage"]
    vars(model)["history"] = history
    return model


def save(
    model: PreTrainedModel | OnnxModel,
    folder: str | Path,
    tokenizer: PreTrainedTokenizerBase | None = None,
    packed: bool = False,
    *,
    comparison: Any = None,
    wait: bool = True,
) -> Path:
    """Save a compressed model so that plain transformers loads it, and what was done to it.

    What was done lies beside the weights as `compression.json`; what was logged in training goes to
    `history.csv`.

    Args:
        model: a model of transformers.
        folder: where to; new or empty.
        tokenizer: is saved beside the model.
        packed: leave out the zeros. In place of `model.safetensors` the folder holds
            `packed.safetensors`, of which the size falls with the number of zeros: a bit for every
            weight, and in full only those that are not zero.
        comparison: a `probes.Comparison` that the model is part of, for `README.md`: what it lost by
            language, and the hub's `model-index` (`Comparison.to_model_card`).
        wait: where another process writes into the folder, wait until it is done, and say so; False
            to be refused.

    Returns:
        The folder.

    Raises:
        InputError: the folder exists and is not empty, or cannot be written to; its disk has not
            room for the weights; the model is not part of the comparison, or has not got what its
            configuration says; `packed` is asked for weights that transformers quantised.

    Notes:
        Plain transformers cannot read packed weights; `probes.load_checkpoint` can, and so all here
        that takes a path, with the same weights bit for bit. To turn them back, load and save:
        `model, tokenizer = probes.load_checkpoint("packed")`, then `compress.save(model, "plain",
        tokenizer)`. A model whose layers are not as their places make them, as a ModernBERT without
        its first one, is always saved packed, but for one of codes: plain transformers would load
        it with other numbers and say so in a warning only. Zeros are left out on disk only: in
        memory and in time the model is as it was.

    Example:
        >>> import compress, probes
        >>> from tempfile import TemporaryDirectory
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> with TemporaryDirectory() as folder:
        ...     pruned = compress.prune(model, sparsity=0.9)
        ...     out = save(pruned, f"{folder}/small", tokenizer, packed=True)
        ...     back, _ = probes.load_checkpoint(out)
        >>> back.config.compression["sparsity"]
        0.9
    """
    place = Path(os.path.realpath(path_of(folder, "folder")))
    coded = isinstance(model, OnnxModel) or CODED.promised(model.config)
    packed = packed or (LAYERS_KEPT.promised(model.config) and not coded)
    if isinstance(model, OnnxModel):
        if packed:
            raise InputError("packed=True leaves out zeros, and an exported model is stored by codes. Save it without")
    elif packed:
        check_allowed(model, "save packed")
    else:
        check_whole(model, "saving")
        check_kept(model)
    card = None if comparison is None else _card(model, comparison)
    partial = beside(place, "partial")
    with locked(place, wait=wait), named(place):
        check_new(place)
        check_space(place, stored_bytes(model), "the weights")
        try:
            remove(partial)  # of a saving that was killed
            with quiet():
                model.save_pretrained(partial)
            _name_dotted(partial)
            if packed:
                pack_weights(partial)
            written = set(partial.iterdir())
            if tokenizer is not None:
                tokenizer.save_pretrained(partial)
            what = getattr(model.config, "compression", None)
            if what is not None:
                (partial / "compression.json").write_text(json.dumps(what, indent=2) + "\n", encoding="utf-8")
            if card is not None:
                (partial / "README.md").write_text(card, encoding="utf-8")
            history = getattr(model, "history", None)
            if history is not None:
                history.to_csv(partial / "history.csv", index=False)
            if lost := written - set(partial.iterdir()):  # something else removes what lies there
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(min(lost)))
            if place.exists():
                place.rmdir()
            partial.rename(place)
        finally:
            remove(partial)
    return Path(folder)


def _card(model: Any, comparison: Any) -> str:
    """What a comparison says of a model, which is known in it by its weights."""
    weights = weights_fingerprint(model)
    models = comparison.provenance["models"]
    names = [n for n, about in models.items() if about.get("weights") == weights and n != comparison.baseline]
    if not names:
        raise InputError(
            f"comparison=...: none of its models beside the baseline ({', '.join(models)}) has the weights of this "
            "one. Compare the model as it is saved"
        )
    return str(comparison.to_model_card(names[0]))


def check_new(folder: Path) -> None:
    """Raise `InputError` where a folder is not empty or cannot be made; leaves no trace."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not an empty folder; it is left as it is. Choose another one")
    check_writable(folder)
    check_writable(Path(os.path.realpath(folder)).parent)  # where it is made, to be moved into place


def _name_dotted(folder: Path) -> None:
    """Leave the tensors beside a model's modules, as BART's bias of logits, out of torchao's list
    of those that it reads: it fails on a name without a dot, and transformers reads them anyway.
    """
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata() or {}
        names = json.loads(metadata.get("tensor_names", "[]"))
        dotted = [name for name in names if "." in name]
        if dotted != names:
            save_file(load_file(file), file, metadata | {"tensor_names": json.dumps(dotted)})
