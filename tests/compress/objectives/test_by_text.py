"""Further passes of the texts of a batch: as the loop's own, whatever the padding."""

import pytest
import torch

from compress.objectives.by_text import inputs_by, inputs_of, last_states, padding_by, shared_out

ROWS = [{"input_ids": [2, 7, 9, 3], "token_type_ids": [0] * 4}, {"input_ids": [2, 8, 3], "token_type_ids": [0] * 3}]


def test_losses_of_tokens_are_shared_out():
    losses = torch.tensor([[1.0, 2.0, 0.0], [4.0, 0.0, 0.0]])
    each = shared_out(losses, torch.tensor(3))
    assert each.tolist() == pytest.approx([2.0, 8 / 3])
    assert float(each.mean()) == pytest.approx(7 / 3)
    assert shared_out(torch.zeros(2, 3), torch.tensor(0)).tolist() == [0, 0]


@pytest.mark.parametrize("architecture", ["BertModel", "RobertaModel", "DistilBertModel", "LlamaModel"])
def test_states_of_rows_are_those_of_each_alone(tiny_models, architecture):
    model = tiny_models(architecture)
    inputs = inputs_by(ROWS, model)
    assert ("token_type_ids" in inputs) == (architecture in ("BertModel", "RobertaModel"))
    assert inputs_of({**inputs, "labels": torch.zeros(2)}, model).keys() == inputs.keys()
    found = last_states(model, inputs)
    assert found.requires_grad
    for i, row in enumerate(ROWS):
        alone = model(torch.tensor([row["input_ids"]])).last_hidden_state[0]
        torch.testing.assert_close(found[i, : len(alone)], alone, atol=1e-5, rtol=1e-4)
    assert padding_by(model).token == (1 if architecture == "RobertaModel" else 0)
