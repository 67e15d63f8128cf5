"""What modules are fed: every token once and padding never, as a forward pass by hand has it; no hook stays."""

import pandas as pd
import pytest
import tiny
import torch

import probes
from compress.inputs import fed, row_batches, run_of, say_unreached, tokens_of, walk
from compress.rows import training_rows

TEXTS = ["a dog sat on the mat", "the cat", "then he sang under a small tree and she ran", "bird"]


@pytest.fixture
def bert(tiny_models):
    return tiny_models("BertForSequenceClassification")


@pytest.fixture
def rows(bert, make_tokenizer):
    corpus = pd.DataFrame({"id": range(40), "language": "en", "text": TEXTS * 10, "label": [0, 1, 2, 1] * 10})
    return training_rows(probes.load_corpus(corpus), bert, make_tokenizer())[0]


def modules_of(model):
    names = ("embeddings.word_embeddings", "encoder.layer.0.output.dense", "encoder.layer.2.attention.self.key")
    return {name: model.base_model.get_submodule(name) for name in names}


def hooks(model):
    return [len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules()]


def test_rows_come_in_batches_in_their_order(bert, rows, make_tokenizer):
    batches = list(row_batches(rows, make_tokenizer(), bert))
    assert [len(batch["input_ids"]) for batch in batches] == [32, 8]
    assert torch.cat([batch["labels"] for batch in batches]).tolist() == [row["labels"] for row in rows]
    lengths = torch.cat([batch["attention_mask"].sum(1) for batch in batches])
    assert lengths.tolist() == [len(row["input_ids"]) for row in rows]


@pytest.mark.parametrize("body", [True, False], ids=["body", "model"])
def test_what_is_seen_is_what_each_text_alone_is_fed(bert, rows, make_tokenizer, body):
    rows = [{k: v for k, v in row.items() if k != "labels"} for row in rows]
    modules, seen, alone = modules_of(bert), {}, {}
    run = bert.bert if body else bert
    bert.train()
    before = hooks(bert)
    batches = row_batches(rows, make_tokenizer(), bert)
    walk(bert, run, modules, batches, lambda n, x: seen.setdefault(n, []).append(x), device=bert.device)
    assert hooks(bert) == before
    assert bert.training
    bert.eval()
    with fed(modules, lambda n, x: alone.setdefault(n, []).append(x[0].detach())):
        for row in rows:
            run(**{k: torch.tensor([v]) for k, v in row.items() if k != "index"})
    assert set(seen) == set(alone) == set(modules)
    for name in modules:
        assert not torch.is_grad_enabled() or not seen[name][0].requires_grad
        torch.testing.assert_close(torch.cat(seen[name]), torch.cat(alone[name]), atol=1e-5, rtol=0)


def test_no_hook_stays_where_a_run_or_a_reader_fails(bert, rows, make_tokenizer):
    before = hooks(bert)

    def fail(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        walk(
            bert,
            bert.bert,
            modules_of(bert),
            row_batches(rows, make_tokenizer(), bert),
            fail,
            device=bert.device,
        )
    assert hooks(bert) == before


def test_the_first_to_see_gets_what_no_other_hook_has_changed():
    layer, seen = torch.nn.Linear(2, 1), {}
    layer.register_forward_pre_hook(lambda _, inputs: (0 * inputs[0],))
    for first in (True, False):
        with fed({"it": layer}, lambda _, x, key=first: seen.update({key: x}), first=first):
            layer(torch.ones(3, 2))
    assert seen[True].all()
    assert not seen[False].any()


def test_what_has_another_shape_than_tokens_is_taken_whole():
    mask = torch.tensor([[True, True, False], [True, False, False]])
    x = torch.arange(12.0).reshape(2, 3, 2)
    assert tokens_of(x, mask).tolist() == [[0, 1], [2, 3], [6, 7]]
    assert tokens_of(torch.arange(6).reshape(2, 3), mask).tolist() == [0, 1, 3]
    assert tokens_of(x, None).shape == (6, 2)
    assert tokens_of(x[:, 0], mask).shape == (2, 2)  # what a pooler is fed
    assert tokens_of(torch.arange(3), mask).tolist() == [0, 1, 2]  # positions


def test_modules_that_no_text_reaches_are_named(bert):
    say_unreached(bert, [], "nothing is said")
    with pytest.warns(probes.LayerscopeWarning, match=r"no text reaches 'b' and 1 more, .* by itself: so it is$"):
        say_unreached(bert, ["b", "c"], "so it is")


@pytest.mark.parametrize(("name", "count"), [("longformer", 12), ("xlnet", 9)])
def test_tokens_first_and_padding_of_a_model_s_own_are_told_apart(name, count):
    """Also where a batch has as many texts as tokens, so that no shape tells which come first."""
    model, tokenizer = tiny.make(name, "head"), tiny.tokenizer_of(name)
    maps = {n: m for n, m in model.base_model.named_modules() if isinstance(m, torch.nn.Linear)}
    texts = [" ".join(["dog", "sat", "on", "a", "mat", "and", "ran"][:n]) for n in range(1, 7)] * 2
    rows = [{"input_ids": tokenizer(text)["input_ids"]} for text in texts[:count]]
    assert max(len(row["input_ids"]) for row in rows) == 8
    seen, alone = {}, {}

    def see(name, x):
        seen.setdefault(name, []).append(x)

    walk(model, run_of(model), maps, row_batches(rows, tokenizer, model), see, device=model.device)
    with torch.no_grad(), fed(maps, lambda n, x: alone.setdefault(n, []).append(x.flatten(0, -2))):
        for row in rows:
            alone_before = {n: len(found) for n, found in alone.items()}
            model(torch.tensor([row["input_ids"]]))
            for n, found in alone.items():
                found[alone_before.get(n, 0) :] = [x[: len(row["input_ids"])] for x in found[alone_before.get(n, 0) :]]
    assert set(seen) == set(alone)
    for n in seen:
        one, other = torch.cat(seen[n]).sort(0)[0], torch.cat(alone[n]).sort(0)[0]
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_a_head_that_changes_its_body_is_run_and_logits_of_tokens_are_not(tiny_models):
    longformer = tiny.make("longformer", "head")
    assert run_of(longformer) is longformer  # which attends to the first token from everywhere
    t5 = tiny_models("T5ForConditionalGeneration")
    assert run_of(t5) is t5.base_model


def test_tokens_in_other_shapes_are_told_from_padding():
    mask = torch.tensor([[True, True, False], [True, False, False]])
    x = torch.arange(12.0).reshape(2, 3, 2)
    wanted = x[mask].tolist()
    assert tokens_of(x.flatten(0, 1), mask).tolist() == wanted  # as OPT and experts are fed
    assert sorted(tokens_of(x.transpose(0, 1), mask).tolist()) == wanted  # tokens first
    assert tokens_of(x[:, None], mask).tolist() == wanted  # as the latent of DeepSeek's keys
    further = torch.cat([x, torch.full((2, 1, 2), 9.0)], 1)  # as Longformer pads by itself, see `inside_of`
    with pytest.raises(probes.InputError, match=r"fed 2 x 4 x 2 where the batch has 2 x 3 tokens, .* with only="):
        tokens_of(further, mask)


def test_a_model_that_reads_padding_gets_texts_of_one_length(make_tokenizer):
    model, rows = tiny.make("funnel"), [{"input_ids": [5] * n} for n in (3, 2, 3, 2, 1)]
    batches = list(row_batches(rows, make_tokenizer(), model))
    assert [tuple(batch["input_ids"].shape) for batch in batches] == [(2, 3), (2, 2), (1, 1)]
    assert all(batch["attention_mask"].all() for batch in batches)
