"""Models that lost heads: how one is made with the heads that were kept."""

from __future__ import annotations

from transformers import PreTrainedConfig, PreTrainedModel

from probes.errors import InputError
from probes.models.blocks import count_of, family_of, heads_of_site, keep_parts, sites_of
from probes.models.facts import name_of, size_of
from probes.models.formats.format import Format, Verb
from probes.models.parts import FAMILIES


def apply_shapes(model: PreTrainedModel) -> None:
    """Give a freshly made model, in place, the heads that its configuration says were kept.

    `config.heads_kept` has it where the configuration of an architecture cannot say it: for each
    attention one number, or, where heads differ by their place, the numbers of those kept.
    """
    kept = HEADS_KEPT.said(model.config)
    if kept is None:
        return
    family = family_of(model, "heads")
    sites = sites_of(model, family, "heads")
    if len(kept) != len(sites):
        raise InputError(
            f"config.heads_kept has {len(kept)} numbers and the model {len(sites)} layers: they do not belong together"
        )
    if any(isinstance(k, list) for k in kept):
        return keep_parts(model, family, "heads", kept)
    there = [heads_of_site(site)[0] for site in sites]
    if there != list(kept):
        # First whole groups of heads that share key and value, then heads of the last group.
        groups = [max(1, k * count_of(site) // heads) for k, site, heads in zip(kept, sites, there, strict=True)]
        keep_parts(model, family, "heads", [range(count) for count in groups])
    if [heads_of_site(site)[0] for site in sites] != list(kept):
        keep_parts(model, family, "heads", [range(count) for count in kept])
    return None


def heads_of(model: PreTrainedModel) -> list[int]:
    """Return how many attention heads each layer has, also where some were pruned; of an
    encoder-decoder those of the encoder.

    Example:
        >>> import compress, probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> heads_of(compress.prune_heads(model, 0.5))
        [2, 2, 2, 2, 2, 2]
    """
    kept, layers = HEADS_KEPT.said(model.config), size_of(model, "num_hidden_layers")
    if kept is None:
        return [size_of(model, "num_attention_heads")] * layers
    family = FAMILIES[model.config.model_type]
    counts = [k if isinstance(k, int) else len(k) for k in kept]
    return counts * layers if family.shared else counts[:layers]


def _lacks(model: PreTrainedModel) -> str | None:
    family = FAMILIES[model.config.model_type]  # also of matrices in factors, or stored by codes
    there = [heads_of_site(site)[0] for site in sites_of(model, family, "heads")]
    kept = [k if isinstance(k, int) else len(k) for k in model.config.heads_kept]
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
    most = max(k if isinstance(k, int) else max(len(k), *(i + 1 for i in k)) for k in HEADS_KEPT.said(config))
    if most > whole:
        raise InputError(
            f"{name}: config.heads_kept says {most} heads of a layer, and num_attention_heads {whole}: a layer cannot "
            "keep more than it had. The configuration was changed, or is not this model's"
        )


_FORM = [(range(1, 2**16), [range(2**16)])]
HEADS_KEPT = Format(
    "heads_kept", "fewer heads", _FORM, check=_check, make=apply_shapes, lacks=_lacks, forbids=_forbidden
)
