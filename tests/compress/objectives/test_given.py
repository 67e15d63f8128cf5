"""A model, a model and its tokenizer, or a checkpoint: what an objective may be given."""

import pytest

from compress.objectives.given import model_and_tokenizer


@pytest.mark.parametrize("pair", [tuple, list])
def test_a_pair_is_taken_apart_and_anything_else_stands_alone(make_classifier, tokenizer, pair):
    model = make_classifier()
    found = model_and_tokenizer(pair([model, tokenizer]))
    assert found[0] is model
    assert found[1] is tokenizer
    assert model_and_tokenizer(model) == (model, None)
    assert model_and_tokenizer((model,)) == ((model,), None)  # told by who asked


def test_a_folder_is_loaded(make_classifier, tokenizer, tmp_path):
    make_classifier().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    for given in (tmp_path, str(tmp_path)):
        model, own = model_and_tokenizer(given)
        assert type(model).__name__ == type(make_classifier()).__name__
        assert own.get_vocab() == tokenizer.get_vocab()
