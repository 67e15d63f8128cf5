"""Replaced-token detection: the loss in float64 by hand, what is drawn and planted, and what it leaves as it was."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from speaking import masking, of_masked_tokens, spoken
from stops import Stops
from trained import QUIET, same, weights

import compress
import probes
from compress.matrices import matrices_of
from compress.objectives.base import Pass
from compress.objectives.masked import MaskedTokens
from compress.objectives.replaced_tokens import Detecting, ReplacedTokens, draw
from compress.objectives.token_heads import NarrowGenerator
from probes.errors import InputError
from probes.states.batches import collate
from probes.states.tokens import Padding

STEADY = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


@pytest.fixture(scope="module")
def tokenizer(make_tokenizer):
    return masking(make_tokenizer)


@pytest.fixture(scope="module")
def text():
    return spoken()


@pytest.fixture(scope="module")
def encoder(tokenizer):
    """A tiny encoder with a head of classes."""
    import transformers

    config = copy.deepcopy(of_masked_tokens(tokenizer, **STEADY).config)
    config.num_labels = 3
    torch.manual_seed(1)
    model = transformers.BertForSequenceClassification(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture
def batch(tokenizer, text):
    rows = tokenizer(list(text["text"])[:8])["input_ids"]
    rows[0] = rows[0][:4]
    made = collate(Padding(0, left=False), [{"input_ids": row} for row in rows])
    return made | {"index": torch.arange(8)}


def prepared(objective, model, batch, tokenizer, seed=0):
    torch.manual_seed(seed)
    batch = batch | {"modules": {objective.name: objective.prepare(model, None, [], seed)}}
    return batch | objective.alter(batch, tokenizer)


def passed(model, batch):
    out = model(batch["input_ids"], batch["attention_mask"], output_hidden_states=True)
    return Pass(model, out.logits, out.hidden_states)


@pytest.mark.parametrize("given", [False, True], ids=["made", "given"])
def test_the_loss_and_its_gradient_are_those_of_float64(encoder, tokenizer, batch, given):
    model = copy.deepcopy(encoder)
    objective = ReplacedTokens(of_masked_tokens(tokenizer) if given else None, weight=0.7, detection=3.0, masked=0.4)
    full = prepared(objective, model, batch, tokenizer)
    module = full["modules"][objective.name]
    loss = objective(passed(model, full), None, full)
    loss.backward()
    # Again, one token after the other.
    twin, its = copy.deepcopy(model).double(), copy.deepcopy(module).double()
    twin.zero_grad()
    ids, attended = batch["input_ids"], batch["attention_mask"].bool()
    rng = np.random.default_rng([0, 0])
    special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
    chosen = attended & ~special & (torch.from_numpy(rng.random(ids.shape)) < 0.4)
    read = torch.where(chosen, tokenizer.mask_token_id, ids)
    table = twin.get_input_embeddings().weight
    if given:
        logits = its.made(input_ids=read, attention_mask=batch["attention_mask"]).logits
    else:
        narrow = its.made.enter(table[read])
        states = its.made.body(inputs_embeds=narrow, attention_mask=batch["attention_mask"]).last_hidden_state
        head = its.made.head
        logits = head.norm(F.gelu(head.dense(states))) @ table.T + head.bias
    said = [-logits[i, j].log_softmax(0)[ids[i, j]] for i, j in chosen.nonzero().tolist()]
    last = twin.bert(full["input_ids"], batch["attention_mask"]).last_hidden_state
    found = []
    for i, j in attended.nonzero().tolist():
        x = its.head[2](F.gelu(its.head[0](last[i, j])))
        found.append(-F.logsigmoid(x if full["input_ids"][i, j] != ids[i, j] else -x))
    expected = 0.7 * (torch.stack(said).mean() + 3.0 * torch.stack(found).mean())
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    expected.backward()
    compared = 0
    for one, other in ((model, twin), (module, its)):
        for (name, p), q in zip(one.named_parameters(), other.parameters(), strict=True):
            if q.grad is not None:
                torch.testing.assert_close(p.grad.double(), q.grad, atol=2e-5, rtol=1e-3, msg=name)
                compared += float(q.grad.abs().max()) > 1e-4
    assert compared > 40
    # The embeddings of a generator that was made are the student's, and learn by both losses.
    assert full["generator_loss"].grad_fn is not None
    assert int(module.batches) == 1
    if not given:
        again = objective.alter(full | {"input_ids": ids}, tokenizer)["generator_loss"]
        (gradient,) = torch.autograd.grad(again, [model.get_input_embeddings().weight])
        assert float(gradient.abs().sum()) > 0
        assert not any(p is q for p in module.parameters() for q in model.parameters())


def test_what_is_drawn_is_what_the_generator_says_and_no_special_token(encoder, tokenizer, batch):
    logits = torch.randn(1, 7, generator=torch.Generator().manual_seed(0)).repeat(20_000, 1)
    logits[:, 3] = -torch.inf
    found = draw(logits, np.random.default_rng(0).random(20_000))
    share = np.bincount(found, minlength=7) / 20_000
    np.testing.assert_allclose(share, logits[0].softmax(0), atol=0.01)
    ends = draw(torch.tensor([[0.0, 0.0, -torch.inf]] * 2), np.array([0.0, 1.0]))
    assert ends.tolist() == [0, 1]
    objective, special = ReplacedTokens(masked=0.5), torch.tensor(tokenizer.all_special_ids)
    counts, model = np.zeros(3), copy.deepcopy(encoder)
    full = batch | {"modules": {objective.name: objective.prepare(model, None, [], 0)}}
    before = batch["input_ids"].clone()
    for _ in range(30):
        made = objective.alter(full, tokenizer)
        assert torch.equal(made["replaced"], made["input_ids"] != before)
        assert not torch.isin(made["input_ids"][made["replaced"]], special).any()
        assert not made["replaced"][torch.isin(before, special)].any()
        assert int(made["input_ids"].max()) < len(tokenizer)
        counts += [1, float(made["replaced"].sum()), float((~torch.isin(before, special)).sum())]
        full["modules"][objective.name].batches += 1
    assert 0.35 < counts[1] / counts[2] < 0.5  # of a half that is masked, some are drawn as they were
    assert torch.equal(batch["input_ids"], before)


def test_padding_and_dropout_play_no_part_and_seed_and_batch_do(encoder, tokenizer, batch):
    objective = ReplacedTokens(masked=0.4)
    full = prepared(objective, encoder, batch, tokenizer)
    losses = [float(objective(passed(encoder, full), None, full).detach())]
    noise = full["input_ids"].masked_fill(batch["attention_mask"] == 0, 7)
    losses.append(float(objective(passed(encoder, full | {"input_ids": noise}), None, full).detach()))
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    state = full["modules"][objective.name].train()
    assert not any(m.training for m in state.modules())
    state.batches.zero_()
    again = [objective.alter(batch | {"modules": full["modules"]}, tokenizer) for _ in range(2)]
    assert torch.equal(again[0]["input_ids"], again[1]["input_ids"])
    state.batches += 1
    assert not torch.equal(
        objective.alter(batch | {"modules": full["modules"]}, tokenizer)["input_ids"], again[0]["input_ids"]
    )
    # A batch of which no token is drawn has the loss of the others alone.
    bare = batch | {"input_ids": torch.full_like(batch["input_ids"], tokenizer.cls_token_id)}
    made = prepared(objective, encoder, bare, tokenizer)
    assert float(made["generator_loss"].detach()) == 0
    assert np.isfinite(float(objective(passed(encoder, made), None, made).detach()))


def test_replaced_tokens_are_found_where_text_has_an_order_and_not_where_it_has_none(tokenizer, encoder):
    """A generator that says any token alike, so that only the student can learn what does not fit: in texts of one
    word, and in texts of any.
    """
    rng, names = np.random.default_rng(0), ["the", "red", "dog", "cat", "sat", "ran"]
    found = {}
    for planted in (True, False):
        texts = [" ".join([names[k]] * 9 if planted else rng.choice(names, 9)) for k in rng.integers(0, 6, 400)]
        rows = tokenizer(texts)["input_ids"]
        generator = of_masked_tokens(tokenizer)
        with torch.no_grad():
            for parameter in generator.parameters():
                parameter.zero_()
            generator.get_output_embeddings().bias[:] = -30
            generator.get_output_embeddings().bias[tokenizer.convert_tokens_to_ids(names)] = 0
        objective = ReplacedTokens(generator, masked=0.3, detection=1.0)
        model = copy.deepcopy(encoder)
        with torch.no_grad():  # words that are far apart are told apart sooner
            model.get_input_embeddings().weight.normal_(0, 0.4)
        torch.manual_seed(0)
        module = objective.prepare(model, None, [], 0)
        optimizer = torch.optim.Adam([*model.parameters(), *module.head.parameters()], lr=1e-2)
        said = []
        for step in range(80):
            drawn = [{"input_ids": rows[i]} for i in rng.integers(0, 400, 16)]
            given = collate(Padding(0, left=False), drawn) | {"modules": {objective.name: module}}
            given |= objective.alter(given, tokenizer)
            out = passed(model, given)
            if step >= 70:
                own = ~torch.isin(given["input_ids"], torch.tensor(tokenizer.all_special_ids))
                said.append(torch.stack([given["replaced"], module.head(out.hidden_states[-1]).detach()], 2)[own])
            optimizer.zero_grad()
            objective(out, None, given).backward()
            optimizer.step()
        found[planted] = roc_auc_score(*torch.cat(said).T)
    assert found[True] > 0.9
    assert abs(found[False] - 0.5) < 0.06


def healed(model, tokenizer, text, objective, **more):
    how = {"steps": 2, **QUIET, **more}
    return compress.finetune(model, tokenizer, text, objective=objective, **how)


def test_a_pruned_model_stays_pruned_and_all_else_as_it_was(encoder, tokenizer, text):
    pruned = compress.prune(encoder, sparsity=0.7)
    generator = of_masked_tokens(tokenizer)
    before, own = weights(pruned), weights(generator)
    zeros = {name: w == 0 for name, w in matrices_of(pruned).items()}
    for objective in (ReplacedTokens(), ReplacedTokens(generator, learning_rate=1e-2), MaskedTokens()):
        made = healed(pruned, tokenizer, text, objective, keep_zeros=True)
        assert made.config.compression["keep_zeros"] is True
        after = matrices_of(made)
        assert all(torch.equal(after[name] == 0, where) for name, where in zeros.items())
        assert any(not torch.equal(after[name], before[name]) for name in zeros)
        assert all(torch.equal(made.state_dict()[k], v) for k, v in before.items() if k.startswith("classifier"))
        assert set(made.state_dict()) == set(before)  # generator and heads are gone
        assert same(weights(pruned), before)
        assert same(weights(generator), own)
    lost = healed(pruned, tokenizer, text, MaskedTokens())
    assert all(float((matrices_of(lost)[name] == 0).float().mean()) < 0.1 for name in zeros)
    assert "keep_zeros" not in lost.config.compression
    # By the verb that prunes as well; and weights that are rounded stay on their grid.
    again = compress.prune(
        pruned, sparsity=0.7, train=text, tokenizer=tokenizer, objective=[ReplacedTokens()], steps=2, **QUIET
    )
    assert all(torch.equal(matrices_of(again)[name] == 0, where) for name, where in zeros.items())
    rounded = compress.quantize(
        encoder, bits=2, train=text, tokenizer=tokenizer, objective=[ReplacedTokens()], steps=2, noise=1.0, **QUIET
    )
    assert all(len(row.unique()) <= 4 for w in matrices_of(rounded).values() for row in w.detach())
    assert not same(weights(rounded), weights(compress.quantize(encoder, bits=2)), atol=1e-5)


def test_a_weight_of_nothing_changes_nothing(encoder, tokenizer, text):
    made = healed(encoder, tokenizer, text.select([0]), ReplacedTokens(weight=0.0))
    assert same(weights(made), weights(encoder))
    assert made.history["replaced_tokens"].tolist() == [0.0] * 2


def test_it_goes_on_where_it_was_interrupted(encoder, tokenizer, text, tmp_path):
    generator = of_masked_tokens(tokenizer)

    def run(folder, *callbacks, **more):
        objective = ReplacedTokens(**{"masked": 0.3} | more)
        how = {"steps": 6, "save_every": 2, "folder": tmp_path / folder, "callbacks": callbacks, "keep_zeros": True}
        return healed(compress.prune(encoder, sparsity=0.5), tokenizer, text, objective, **how)

    expected = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("made", Stops(5))
    found = run("made")
    pd.testing.assert_frame_equal(found.history, expected.history)
    assert same(weights(found), weights(expected))
    with pytest.raises(KeyboardInterrupt):
        run("given", Stops(3), generator=generator)
    with torch.no_grad():
        generator.cls.predictions.bias += 1
    with pytest.raises(InputError, match=r"generator_weights of replaced_tokens is .* here and was .* there"):
        run("given", generator=generator)


# Bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight": -1}, r"objective replaced_tokens: weight=-1: expected a finite number at least 0"),
        ({"detection": float("nan")}, r"detection=nan: expected a finite number at least 0"),
        ({"masked": 1.0}, r"masked=1.0: expected a share above 0 and below 1"),
        ({"masked": 0}, r"masked=0: expected a finite number above 0"),
        ({"size": 0}, r"size=0: expected a finite number above 0"),
        ({"size": 1.5}, r"size=1.5: expected at most 1, the student's width"),
        ({"learning_rate": 0}, r"learning_rate=0: expected a finite number above 0"),
        ({"generator": 3}, r"the generator is a int: expected a model of transformers that predicts masked"),
        ({"generator": "bundled"}, r"the generator is a BertForSequenceClassification: expected a model of .* masked"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        ReplacedTokens(**settings)


def test_models_and_text_that_do_not_fit_are_refused_before_any_step(
    encoder, tokenizer, text, make_tokenizer, tiny_models, monkeypatch, tmp_path
):
    monkeypatch.setattr(Detecting, "said", lambda *_: pytest.fail("it was trained"))
    with pytest.raises(InputError, match=r"the generator is a BertForSequenceClassification: .* predicts masked"):
        ReplacedTokens(encoder)
    with pytest.raises(InputError, match=r"size=0.5 is of a generator that is made, and one is given"):
        ReplacedTokens(of_masked_tokens(tokenizer), size=0.5)
    other = of_masked_tokens(make_tokenizer(words=[f"w{i}" for i in range(50)]))
    with pytest.raises(InputError, match=r"the generator \w+ has 54 tokens and the student \w+ 20: expected one vocab"):
        healed(encoder, tokenizer, text, ReplacedTokens(other))
    # As many tokens, and others: told where the tokenizer is given too.
    words = [w for w in tokenizer.get_vocab() if w not in tokenizer.all_special_tokens]
    turned = make_tokenizer(words=[*sorted(words), "[MASK]"])
    assert len(turned) == len(tokenizer)
    stranger = of_masked_tokens(turned)
    message = r"the generator \S+ has another vocabulary: of the student's 20 tokens \d+ have other numbers"
    with pytest.raises(InputError, match=message):
        healed(encoder, tokenizer, text, ReplacedTokens((stranger, turned)))
    stranger.save_pretrained(tmp_path)
    turned.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=message):
        healed(encoder, tokenizer, text, ReplacedTokens(tmp_path))
    ReplacedTokens((stranger, tokenizer)).check_text(encoder, tokenizer, [{"input_ids": [5]}])
    with pytest.raises(InputError, match=r"the generator is a BertForMaskedLM: expected a model .* with its tokenizer"):
        ReplacedTokens((stranger, "bundled"))
    bare = masking(make_tokenizer)
    bare.mask_token = None
    with pytest.raises(InputError, match=r"masks tokens, and the tokenizer has no mask token: set tokenizer.mask_t"):
        healed(encoder, bare, text, ReplacedTokens())
    empty = probes.load_corpus(pd.DataFrame({"id": [0, 1], "language": "en", "text": ["[SEP]", "[CLS] [SEP]"]}))
    with pytest.raises(InputError, match=r"no text has a token that is not special: there is nothing to mask"):
        healed(encoder, tokenizer, empty, ReplacedTokens())
    decoder = tiny_models("LlamaForCausalLM")
    with pytest.raises(InputError, match=r"LlamaForCausalLM does not see what comes after a token: expected an enc"):
        ReplacedTokens().check(decoder, None)
    assert NarrowGenerator(encoder, 0.5).body.config.hidden_size == 8
