"""The bundled models are found by their names, wherever a checkpoint may be named."""

import pytest

import probes
from probes.costs import weight_files
from probes.models.bundled import BUNDLED, bundled_folder
from probes.models.checked import outline
from probes.models.checkpoint import check_checkpoint


@pytest.mark.parametrize(
    ("name", "kind"), [("bundled", "BertForSequenceClassification"), ("bundled-decoder", "LlamaForCausalLM")]
)
def test_a_name_stands_for_a_folder_of_the_package(name, kind):
    model, tokenizer = probes.load_checkpoint(name)
    assert type(model).__name__ == kind
    assert model.name_or_path == model.config.name_or_path == name  # no path on this computer
    config, _ = check_checkpoint(name)
    assert config.architectures == [kind]
    assert type(outline(name)[0]).__name__ == kind
    with bundled_folder(name) as folder:
        assert weight_files(name) == [folder / "model.safetensors"]
    assert len(tokenizer) == 4000
    assert name in BUNDLED
