"""Published methods that quantise while they distil."""

from __future__ import annotations

from typing import Any, Literal

import datasets
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.objectives.base import Objective
from compress.objectives.kinds import supervised, taught
from compress.objectives.layers import AttentionOutputs, HiddenStates
from compress.quantization.codebooks import product_quantize
from compress.quantization.quantize import quantize
from compress.quantization.quantized_layers import QuantizedLayers
from probes.errors import check_choice
from probes.models.facts import size_of


def self_distilled_quantization(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: datasets.Dataset,
    *,
    steps: int,
    variant: Literal["attention_and_logits", "logits", "attention", "hidden_states"] = "attention_and_logits",
    host: Literal["quant_noise", "product"] = "quant_noise",
    alpha: float = 0.5,
    beta: float = 1.0,
    temperature: float = 2.0,
    weights: float = 1.0,
    **settings: Any,
) -> PreTrainedModel:
    """Quantise a model in training, while the model in full precision is distilled into it.

    Args:
        model: the fine-tuned model, also the teacher; it is not changed.
        tokenizer: of the model.
        train: a corpus with labels of any kind that `compress.objectives.kinds` lists, or, for a
            language model, text.
        steps: updates of the weights.
        variant: what is distilled beside the labels: what each attention head gives, the class
            probabilities, both, or the hidden states after each block, not the embeddings.
        host: "quant_noise" rounds random blocks in training and all in the end
            (`compress.quantize`), on the paper's grid, affine and one a matrix, unless `symmetric`
            or `group` say otherwise; "product" gives one layer after another few codewords
            (`compress.product_quantize`).
        alpha, beta: what class probabilities count, and what heads or hidden states do.
        temperature: of the class probabilities.
        weights: for the host "product" with attention: what the squared distance of the weights of
            quantised layers to those before counts.
        settings: of the host: bits, group, noise, ... or codes, block, ..., and of
            `compress.training.train`.

    Returns:
        A new model, as the host gives it.

    Raises:
        InputError: variant or host is not known; what the host raises.

    Notes:
        O' Neill and Dutta 2023, arXiv 2307.05972, its objectives as recalled; the labels count with
        either host. With the host "product" attention is compared in the layers that are quantised
        by then, and their weights are held to those before (`QuantizedLayers`). Embeddings are not
        rounded without `embeddings=True`, and no variant compares them.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> train = probes.load_corpus("bundled", split="train", languages=["en"])
        >>> made = self_distilled_quantization(
        ...     model, tokenizer, train, bits=4, steps=2, batch_size=4, progress=False
        ... )
        >>> made.config.compression["objective"]
        ['cross_entropy', 'soft_labels', 'attention_outputs']

    See also:
        `quantize`, `product_quantize`, `AttentionOutputs`.
    """
    layers = {i: i for i in range(1, 1 + size_of(model, "num_hidden_layers"))}
    logits = taught(model, alpha, temperature)
    attention: Objective = AttentionOutputs(weight=beta)
    if host == "product":
        attention = QuantizedLayers(weights=weights, attention=beta)
    distilled: dict[str, list[Objective]] = {
        "attention_and_logits": [logits, attention],
        "logits": [logits],
        "attention": [attention],
        "hidden_states": [HiddenStates(weight=beta, layers=layers)],
    }
    hosts = {"quant_noise": quantize, "product": product_quantize}
    check_choice("variant", variant, distilled)
    check_choice("host", host, hosts)
    grid: dict[str, Any] = {"group": "tensor", "symmetric": False} if host == "quant_noise" else {}
    how: dict[str, Any] = {
        "tokenizer": tokenizer,
        "train": train,
        "steps": steps,
        "objective": [supervised(model), *distilled[variant]],
    }
    return hosts[host](model, **how, **grid | settings)
