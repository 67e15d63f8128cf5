"""A model of each token from both sides: what it computes, what it does not see, and that it trains and comes back."""

import pytest
import torch
from afresh import in_a_new_process
from speaking import masking_tokenizer, spoken_corpus
from trained import QUIET, same, weights

import compress
from compress.factorization.bilstm_model import BiLSTMConfig, BiLSTMLanguageModel
from probes.errors import InputError

tokenizer, corpus = masking_tokenizer, spoken_corpus


@pytest.fixture
def model(tokenizer):
    torch.manual_seed(0)
    return BiLSTMLanguageModel(BiLSTMConfig(len(tokenizer), hidden_size=8, num_hidden_layers=2)).eval()


@torch.no_grad()
def test_it_computes_what_its_parts_do_and_padding_changes_nothing(model):
    ids = torch.tensor([[5, 6, 7, 8, 9], [9, 10, 11, 0, 0], [7, 0, 0, 0, 0]])
    found = model(ids, attention_mask=(ids > 0).long()).logits
    for row, length in zip(range(3), (5, 3, 1), strict=True):
        read = model.embeddings(ids[row, :length])
        for place in range(length):
            one, two = torch.zeros(8), torch.zeros(8)
            if place:
                one = model.before(read[None, :place])[0][0, -1]
            if place < length - 1:
                two = model.after(read[None, place + 1 :].flip(1))[0][0, -1]
            torch.testing.assert_close(found[row, place], model.output(torch.cat([one, two])))
    torch.testing.assert_close(model(ids[:1]).logits, found[:1])


@torch.no_grad()
def test_a_token_is_not_seen_where_it_is_predicted_and_seen_everywhere_else(model):
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    for place in range(5):
        other = ids.clone()
        other[0, place] = 12
        changed = (model(ids).logits != model(other).logits).any(-1)[0]
        assert changed.tolist() == [i != place for i in range(5)]


def test_it_trains_from_both_sides_and_comes_back_from_a_folder(model, tokenizer, corpus, tmp_path):
    before = weights(model)
    how = QUIET | {"learning_rate": 3e-2, "steps": 25, "objective": compress.PseudoLikelihood()}
    tuned = compress.finetune(model, tokenizer, corpus, **how)
    assert same(weights(model), before)
    assert tuned.history["loss"][-3:].mean() < 0.7 * tuned.history["loss"][0]
    compress.save(tuned, tmp_path / "saved", tokenizer)
    compress.save(tuned, tmp_path / "packed", tokenizer, packed=True)
    for folder in ("saved", "packed"):
        back = BiLSTMLanguageModel.from_pretrained(tmp_path / folder)
        assert type(back) is BiLSTMLanguageModel
        assert same(weights(back), weights(tuned))
    assert back.config.compression["objective"] == ["pseudo_likelihood"]
    code = "import compress\nmodel = compress.BiLSTMLanguageModel.from_pretrained(given[0]).eval()\n"
    found = in_a_new_process(f"{code}out = model(torch.tensor([[4, 8, 15, 6]])).logits", tmp_path / "saved")
    assert (torch.from_numpy(found) == tuned(torch.tensor([[4, 8, 15, 6]])).logits).all()


def test_sizes_are_checked():
    with pytest.raises(InputError, match="num_hidden_layers=0: expected a whole number of at least 1"):
        BiLSTMConfig(num_hidden_layers=0)
