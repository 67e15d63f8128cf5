"""What models write: as often as their distribution says, by generate and without it, and the likeliest text."""

import copy

import numpy as np
import pytest
import scipy.stats
import torch

from compress import LSTMConfig, LSTMLanguageModel
from compress.objectives.sampling import continued

PROMPTS = [[1, 2, 3], [4], [2, 4]]
END = 0


@pytest.fixture(scope="module", params=["Llama", "GPT2", "LSTM"])
def writer(request, tiny_models):
    """A model of five tokens."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 12, "num_hidden_layers": 1}
    if request.param == "LSTM":
        model = LSTMLanguageModel(LSTMConfig(vocab_size=5, **sizes)).eval()
        for parameter in model.parameters():
            parameter.data.mul_(3)
        return model
    model = tiny_models({"GPT2": "GPT2LMHeadModel", "Llama": "LlamaForCausalLM"}[request.param])
    model.resize_token_embeddings(5)
    model.generation_config.update(temperature=0.1, top_k=1, repetition_penalty=3.0, do_sample=False)
    return model


def chances(model, prompt, most):
    """The probability of every text of a model, by one pass over each beginning without padding."""
    found, going = {}, {(): 1.0}
    for left in range(most, 0, -1):
        further = {}
        for text, chance in going.items():
            with torch.no_grad():
                said = model(input_ids=torch.tensor([[*prompt, *text]])).logits[0, -1].double().softmax(0)
            for token in range(5):
                (found if token == END or left == 1 else further)[(*text, token)] = chance * float(said[token])
        going = further
    return found


def test_texts_come_as_often_as_the_model_says(writer):
    before = torch.get_rng_state()
    for prompt in PROMPTS:
        expected = chances(writer, prompt, 2)
        assert sum(expected.values()) == pytest.approx(1)
    many = [prompt for prompt in PROMPTS for _ in range(1500)]
    found = continued(writer, many, most=2, ends=[END], seed=3)
    assert torch.equal(before, torch.get_rng_state())
    for number, prompt in enumerate(PROMPTS):
        expected = chances(writer, prompt, 2)
        drawn = [tuple(text) for text in found[1500 * number : 1500 * (number + 1)]]
        counts = np.array([drawn.count(text) for text in expected])
        assert counts.sum() == 1500
        wanted = 1500 * np.array(list(expected.values()))
        rare = wanted < 5
        counts, wanted = ([*x[~rare], x[rare].sum()] if rare.any() else x for x in (counts, wanted))
        assert scipy.stats.chisquare(counts, np.array(wanted) * 1500 / np.sum(wanted)).pvalue > 1e-3
    again = continued(writer, many[:40], most=2, ends=[END], seed=3)
    assert again == continued(writer, many[:40], most=2, ends=[END], seed=3)
    assert again != continued(writer, many[:40], most=2, ends=[END], seed=4)


def test_the_likeliest_token_each_time_whatever_stands_beside(writer):
    expected = []
    for prompt in PROMPTS:
        text = []
        while len(text) < 4 and (not text or text[-1] != END):
            with torch.no_grad():
                text.append(int(writer(input_ids=torch.tensor([prompt + text])).logits[0, -1].argmax()))
        expected.append(text)
    state = copy.deepcopy(writer.state_dict())
    assert continued(writer, PROMPTS, most=4, ends=[END], seed=None) == expected
    assert all(torch.equal(state[k], v) for k, v in writer.state_dict().items())
    assert not writer.training
    free = continued(writer, PROMPTS, most=4, seed=None)
    assert [len(text) for text in free] == [4, 4, 4]
