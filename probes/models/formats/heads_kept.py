"""Models that lost heads or channels: how one is made with the heads that were kept."""

from __future__ import annotations

from transformers import PreTrainedConfig, PreTrainedModel

from probes.errors import InputError
from probes.models.facts import name_of, size_of
from probes.models.formats.format import Format, Verb
from probes.models.parts import STRUCTURED, count_of, family_of, head_size_of, keep_parts, layers_of


def apply_shapes(model: PreTrainedModel) -> None:
    """Give a freshly made model, in place, the number of heads a layer that its configuration says
    were kept.

    `config.heads_kept` has it, one number a layer, where heads were pruned. Which heads these were
    does not matter any more: the weights are loaded after it.
    """
    kept = HEADS_KEPT.said(model.config)
    if kept is None:
        return
    family = family_of(model)
    layers = layers_of(model, family)
    if len(kept) != len(layers):
        raise InputError(
            f"config.heads_kept has {len(kept)} numbers and the model {len(layers)} layers: they do not belong together"
        )
    for layer, count in zip(layers, kept, strict=True):
        if count_of(layer, family, "heads") != count:
            keep_parts(layer, family, "heads", list(range(count)))


def heads_of(model: PreTrainedModel) -> list[int]:
    """Return how many attention heads each block has, also where some were pruned.

    Example:
        >>> import compress, probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> heads_of(compress.prune_heads(model, 0.5))
        [2, 2, 2, 2, 2, 2]
    """
    kept = HEADS_KEPT.said(model.config)
    whole = [size_of(model, "num_attention_heads")] * size_of(model, "num_hidden_layers")
    return whole if kept is None else list(kept)


def _lacks(model: PreTrainedModel) -> str | None:
    family = STRUCTURED[model.config.model_type]  # also of matrices in factors, or stored by codes
    there = [
        int(layer.get_submodule(family.joined).in_features) // head_size_of(layer, family)  # type: ignore[arg-type]
        for layer in layers_of(model, family)
    ]
    kept = list(model.config.heads_kept)
    return None if there == kept else f"says {kept} of each layer where the model has {there}"


def _forbidden(model: PreTrainedModel, verb: Verb) -> str | None:
    if verb == "narrow":
        return (
            f"hidden_size: narrower students are made of models with all their heads, and {name_of(model)} has lost "
            "some (config.heads_kept). Give one as student=..., or leave hidden_size out"
        )
    return None


def _check(config: PreTrainedConfig, name: str) -> None:
    whole = int(getattr(config.get_text_config(), "num_attention_heads", 0))
    most = max(HEADS_KEPT.said(config))
    if most > whole:
        raise InputError(
            f"{name}: config.heads_kept says {most} heads of a layer, and num_attention_heads {whole}: a layer cannot "
            "keep more than it had. The configuration was changed, or is not this model's"
        )


HEADS_KEPT = Format(
    "heads_kept", "fewer heads", [range(1, 2**16)], check=_check, make=apply_shapes, lacks=_lacks, forbids=_forbidden
)
