"""Models that lost channels, of architectures whose configuration cannot count them."""

from __future__ import annotations

from transformers import PreTrainedModel

from probes.errors import InputError
from probes.models.blocks import count_of, family_of, keep_parts, sites_of
from probes.models.formats.format import Format
from probes.models.parts import FAMILIES


def apply_channels(model: PreTrainedModel) -> None:
    """Give a freshly made model, in place, as many feed-forward channels as its configuration says
    were kept: `config.channels_kept`, a number for each place that has some.
    """
    kept = CHANNELS_KEPT.said(model.config)
    if kept is None:
        return
    family = family_of(model, "channels")
    sites = sites_of(model, family, "channels")
    there = [count_of(site) for site in sites]
    if len(kept) != len(there) or any(k > t for k, t in zip(kept, there, strict=True)):
        raise InputError(
            f"config.channels_kept says {kept} and the model has {there}: they do not belong together. Load a folder "
            "as compress.save wrote it"
        )
    keep_parts(model, family, "channels", [range(k) for k in kept])


def _lacks(model: PreTrainedModel) -> str | None:
    there = [count_of(site) for site in sites_of(model, FAMILIES[model.config.model_type], "channels")]
    kept = list(model.config.channels_kept)
    return None if there == kept else f"says {kept} of each layer where the model has {there}"


CHANNELS_KEPT = Format("channels_kept", "fewer channels", [range(1, 2**31)], make=apply_channels, lacks=_lacks)
