import pytest

from probes.models.facts import embedding_rows
from probes.states.batches import collate, random_batch
from probes.states.tokens import Padding


def test_a_batch_is_padded_on_the_side_that_is_asked_for_and_numbered_where_it_is():
    rows = [
        {"input_ids": [5, 6, 7], "token_type_ids": [0, 1, 1], "labels": 2, "index": 8},
        {"input_ids": [9], "token_type_ids": [1], "labels": 0, "index": 3},
    ]
    batch = {k: v.tolist() for k, v in collate(Padding(4, left=False), rows).items()}
    assert batch == {
        "input_ids": [[5, 6, 7], [9, 4, 4]],
        "token_type_ids": [[0, 1, 1], [1, 0, 0]],
        "attention_mask": [[1, 1, 1], [1, 0, 0]],
        "labels": [2, 0],
    }
    numbered = {k: v.tolist() for k, v in collate(Padding(4, left=False), rows, indexed=True).items()}
    assert numbered == batch | {"index": [8, 3]}
    left = {k: v.tolist() for k, v in collate(Padding(4, left=True), rows).items()}
    assert left["input_ids"] == [[5, 6, 7], [4, 4, 9]]
    assert left["token_type_ids"] == [[0, 1, 1], [0, 0, 1]]
    assert left["attention_mask"] == [[1, 1, 1], [0, 0, 1]]


@pytest.mark.parametrize("name", ["BertModel", "GPT2LMHeadModel", "T5ForConditionalGeneration"])
def test_random_texts_are_the_same_each_time_and_have_the_lengths_that_are_asked_for(tiny_models, name):
    model = tiny_models(name)
    batch, again, other = (random_batch(model, [5, 3, 4], seed=seed) for seed in (1, 1, 2))
    assert batch["attention_mask"].sum(1).tolist() == [5, 3, 4]
    assert 0 <= int(batch["input_ids"].min()) <= int(batch["input_ids"].max()) < embedding_rows(model)
    assert batch["input_ids"].equal(again["input_ids"])
    assert not batch["input_ids"].equal(other["input_ids"])
