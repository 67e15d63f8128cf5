"""Channels that were kept, where the configuration of an architecture cannot count them."""

import pytest
from architectures import make

import compress
import probes
from probes.models.blocks import count_of, family_of, sites_of
from probes.models.formats.channels_kept import apply_channels
from probes.models.formats.extensions import check_kept


def test_a_model_is_made_with_the_channels_that_were_kept():
    model = make("bloom")
    apply_channels(model)  # nothing is said
    model.config.channels_kept = [5, 6, 7, 128]
    apply_channels(model)
    assert [count_of(site) for site in sites_of(model, family_of(model), "channels")] == [5, 6, 7, 128]
    check_kept(model)
    model.config.channels_kept = [5, 6, 7, 8]
    with pytest.raises(probes.InputError, match=r"fewer channels \(config.channels_kept\), and says \[5, 6, 7, 8\]"):
        check_kept(model)


@pytest.mark.parametrize("kept", [[1, 1], [1, 1, 1, 129]])
def test_channels_kept_of_another_model_are_refused(kept, make_tokenizer, tmp_path):
    pruned = compress.prune_channels(make("bloom"), 0.5)
    pruned.config.channels_kept = kept
    pruned.save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(
        probes.InputError, match=r"config.channels_kept says \[1, .*the model has \[128, .*Load a folder"
    ):
        probes.load_checkpoint(tmp_path)
