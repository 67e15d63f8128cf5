import pytest

from probes.models.weights import block_weights, stored_bytes


def test_the_weights_of_blocks_are_their_matrices_without_biases_and_tables(tiny_models):
    model = tiny_models("BertForSequenceClassification")
    found = block_weights(model)
    # Per layer four matrices of 12 x 12 and two of 12 x 20; three layers.
    assert sorted(w.numel() for w in found.values()) == [144] * 12 + [240] * 6
    assert all(".layer." in name for name in found)
    assert all(dict(model.named_parameters())[name] is w for name, w in found.items())


@pytest.mark.parametrize("name", ["BertModel", "GPT2LMHeadModel", "T5ForConditionalGeneration"])
def test_shared_weights_take_their_bytes_once(tiny_models, name, tmp_path):
    model = tiny_models(name)
    model.save_pretrained(tmp_path)
    with (tmp_path / "model.safetensors").open("rb") as file:
        header = 8 + int.from_bytes(file.read(8), "little")
    written = (tmp_path / "model.safetensors").stat().st_size - header
    buffers = sum(b.nbytes for n, b in model.named_buffers() if n in model.state_dict())
    assert written <= stored_bytes(model) <= written + buffers
