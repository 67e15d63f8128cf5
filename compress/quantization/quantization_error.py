"""What a quantised model gets wrong, module by module: by itself, and from the layers before."""

from __future__ import annotations

from typing import Any

import datasets
import xarray as xr
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from probes.measures.fidelity.module_error import module_error


def quantization_error(
    model: PreTrainedModel,
    quantized: PreTrainedModel,
    corpus: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    **settings: Any,
) -> xr.Dataset:
    """Measure, module by module, what a quantised model gets wrong and what it inherits.

    Args:
        model: in full precision.
        quantized: the same, quantised in any way that left its modules in place.
        corpus: as `load_corpus` gives it.
        tokenizer: of both.
        settings: of `probes.module_error`, which this is.

    Returns:
        `value, low, high (measure, module, language)`: `local_error`, `accumulated_error` and their
        ratio `amplification`. As the family "module_error" of `probes.compare` it is drawn, modules
        by layers.

    Raises:
        InputError: the models are not of one architecture.

    Example:
        >>> import compress, probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> corpus = probes.load_corpus("bundled", split="dev", languages=["en"])
        >>> quantized = compress.quantize(model, bits=4)
        >>> error = quantization_error(model, quantized, corpus, tokenizer, progress=False)
        >>> last = error.value.sel(measure="amplification", language="pooled").isel(module=-1)
        >>> bool(last > 1)  # the last block inherits more than it adds
        True

    See also:
        `probes.module_error`, `quantize`.
    """
    return module_error(model, quantized, tokenizer, corpus, names=("the original", "the quantised model"), **settings)
