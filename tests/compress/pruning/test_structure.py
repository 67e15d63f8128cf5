"""Structured pruning: what is left computes what the whole model does with the removed parts silenced."""

import copy

import datasets
import numpy as np
import pytest
import torch
import transformers

import compress
import probes
from compress.pruning.drop_layers import drop_layers
from compress.pruning.structure import prune_channels, prune_heads
from probes.models.fingerprint import weights_fingerprint
from probes.models.formats.heads_kept import with_shapes
from probes.models.parts import FAMILIES

ARCHITECTURES = {
    "bert": "BertForSequenceClassification",
    "roberta": "RobertaForSequenceClassification",
    "xlm-roberta": "XLMRobertaForSequenceClassification",
    "camembert": "CamembertForSequenceClassification",
    "electra": "ElectraForSequenceClassification",
    "distilbert": "DistilBertForSequenceClassification",
}


def make(family, heads=4, channels=20, layers=3, seed=0, **changes):
    """A tiny random model of every family: heads of 3 features in a width of 12."""
    kind = getattr(transformers, ARCHITECTURES[family])
    sizes = {"hidden_size": 12, "num_attention_heads": heads, "num_hidden_layers": layers, "num_labels": 3}
    sizes |= {"vocab_size": 27, "max_position_embeddings": 40, "embedding_size": 8} | changes
    sizes["hidden_dim" if family == "distilbert" else "intermediate_size"] = channels
    if family != "electra":
        del sizes["embedding_size"]
    if family == "distilbert":
        sizes |= {"dim": sizes.pop("hidden_size"), "n_heads": heads, "n_layers": layers}
        del sizes["num_attention_heads"], sizes["num_hidden_layers"]
    if family in ("roberta", "xlm-roberta", "camembert"):
        sizes |= {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    torch.manual_seed(seed)
    model = kind(kind.config_class(**sizes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def parts(model, layer):
    """What a layer's heads and channels are read and written with: {part: (reading maps, writing map)}."""
    if model.config.model_type == "distilbert":
        block = model.base_model.transformer.layer[layer]
        a, f = block.attention, block.ffn
        return {"heads": ((a.q_lin, a.k_lin, a.v_lin), a.out_lin), "channels": ((f.lin1,), f.lin2)}
    block = model.base_model.encoder.layer[layer]
    a = block.attention.self
    return {
        "heads": ((a.query, a.key, a.value), block.attention.output.dense),
        "channels": ((block.intermediate.dense,), block.output.dense),
    }


def inputs():
    torch.manual_seed(1)
    ids = torch.randint(4, 27, (3, 9))
    mask = torch.ones_like(ids)
    mask[1, 6:] = mask[2, 4:] = 0
    return {"input_ids": ids, "attention_mask": mask}


@torch.no_grad()
def outputs(model):
    return model(**inputs()).logits


def close(one, other, tolerance=1e-5):
    return torch.allclose(outputs(one), outputs(other), rtol=0, atol=tolerance)


@pytest.fixture(scope="module")
def texts(make_tokenizer):
    words = ["a", "the", "red", "big", "small", "dog", "cat", "bird", "sat", "ran"]
    draw = np.random.default_rng(0)
    rows = [" ".join(draw.choice(words, 3 + i % 5)) for i in range(24)]
    corpus = datasets.Dataset.from_dict(
        {
            "id": [str(i) for i in range(24)],
            "language": ["en"] * 24,
            "text": rows,
            "label": [str(i % 3) for i in range(24)],
        }
    )
    return {"corpus": corpus, "tokenizer": make_tokenizer()}


# --- what is left computes the same ----------------------------------------------------------------------------------


def load_pruned(folder):
    """The model alone, as `probes.load_checkpoint` loads it with its tokenizer."""
    config = transformers.AutoConfig.from_pretrained(folder)
    kind = getattr(transformers, config.architectures[0])
    model = with_shapes(kind).from_pretrained(folder, config=config)
    model.__class__ = kind
    return model.eval()


def test_a_checkpoint_without_some_heads_and_channels_is_loaded_and_captured_as_any(texts, tmp_path):
    corpus, tokenizer = texts["corpus"], texts["tokenizer"]
    pruned = drop_layers(prune_channels(prune_heads(make("bert"), 0.5), 0.5), [1])
    compress.save(pruned, tmp_path / "out", tokenizer)
    loaded, again = probes.load_checkpoint(tmp_path / "out")
    assert type(loaded) is type(pruned)
    assert weights_fingerprint(loaded) == weights_fingerprint(pruned)
    one, other = (probes.capture(m, t, corpus, progress=False) for m, t in ((pruned, tokenizer), (loaded, again)))
    np.testing.assert_array_equal(one.hidden, other.hidden)
    assert one.sizes["layer"] == 3


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("prune", "what", "size", "left"), [(prune_heads, "heads", 3, 2), (prune_channels, "channels", 1, 10)]
)
def test_the_pruned_model_is_the_parent_with_the_removed_parts_silenced(family, prune, what, size, left, tmp_path):
    model = make(family)
    before, state = weights_fingerprint(model), copy.deepcopy(model.config.to_dict())
    scores = np.random.default_rng(0).random((3, {"heads": 4, "channels": 20}[what]))
    pruned = prune(model, 0.5, importance=scores)
    assert weights_fingerprint(model) == before
    assert model.config.to_dict() == state
    assert type(pruned) is type(model)
    silenced = copy.deepcopy(model)
    for layer in range(3):
        reads, write = parts(pruned, layer)[what]
        assert {r.weight.shape[0] for r in reads} == {left * size} == {r.bias.shape[0] for r in reads}
        assert write.weight.shape == (12, left * size)
        assert write.in_features == reads[0].out_features == left * size
        gone = np.argsort(scores[layer])[: len(scores[layer]) - left]
        with torch.no_grad():
            whole = parts(silenced, layer)[what][1].weight.view(12, -1, size)
            whole[:, torch.from_numpy(gone)] = 0
    assert close(pruned, silenced)
    assert not close(pruned, model, 1e-3)
    assert pruned.num_parameters() < model.num_parameters()
    done = pruned.config.compression
    assert done["parameters"] == pruned.num_parameters()
    assert done["parent"] == before
    # saved and loaded again, and in plain transformers where its configuration can say so
    compress.save(pruned, tmp_path / "saved")
    again = load_pruned(tmp_path / "saved")
    assert type(again) is type(model)
    assert close(again, pruned, 1e-6)
    assert again.config.compression == done
    if what == "channels":
        assert close(type(model).from_pretrained(tmp_path / "saved").eval(), pruned, 1e-6)
    else:
        with pytest.raises(RuntimeError, match="size"):  # never silently with other weights
            type(model).from_pretrained(tmp_path / "saved")


@pytest.mark.parametrize("family", FAMILIES)
def test_dropped_layers_are_the_remaining_ones_run_by_hand(family, tmp_path):
    model = make(family, layers=4)
    before = weights_fingerprint(model)
    pruned = drop_layers(model, [2, 0])
    assert weights_fingerprint(model) == before
    by_hand = copy.deepcopy(model)
    blocks = by_hand.base_model.transformer if family == "distilbert" else by_hand.base_model.encoder
    blocks.layer = torch.nn.ModuleList([blocks.layer[1], blocks.layer[3]])
    assert close(pruned, by_hand, 0)
    assert not close(pruned, model, 1e-3)
    assert pruned.config.num_hidden_layers == 2
    assert pruned.config.compression["kept"] == [1, 3]
    assert pruned.config.compression["dropped"] == [0, 2]
    pruned.save_pretrained(tmp_path)
    assert close(type(model).from_pretrained(tmp_path).eval(), pruned, 1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_three_follow_each_other_in_any_order_and_are_captured_and_saved(family, texts, tmp_path):
    model = make(family)
    probes.capture(model, **texts, progress=False)  # transformers hangs its hooks on the layers that it sees first
    one = prune_channels(drop_layers(prune_heads(model, 0.5), [1]), 0.75)
    other = prune_heads(prune_channels(drop_layers(model, [1]), 0.75), 0.5)
    # transformers leaves a rounding between them: fewer columns are added up in another order
    assert close(one, other)
    for number, pruned in enumerate((one, other)):
        reps = probes.capture(pruned, **texts, progress=False)
        assert reps.sizes["layer"] == 3
        with torch.no_grad():
            last = pruned.base_model(**inputs()).last_hidden_state
            states = pruned.base_model(**inputs(), output_hidden_states=True).hidden_states
        assert torch.equal(states[-1], last)
        compress.save(pruned, tmp_path / str(number))
        again = load_pruned(tmp_path / str(number))
        assert close(again, pruned, 1e-6)
        assert weights_fingerprint(again) == weights_fingerprint(pruned)
        assert again.config.compression["before"]["before"]["method"] in ("prune_heads", "drop_layers")


def test_pruned_without_a_record_of_it_still_loads(tmp_path):
    pruned = compress.prune(prune_heads(make("bert"), 0.5), sparsity=0.5)
    assert pruned.config.compression["method"] == "prune"
    pruned.save_pretrained(tmp_path)
    assert close(load_pruned(tmp_path), pruned, 1e-6)


def test_a_pruned_model_trains_and_is_as_frozen_as_before():
    model = make("bert")
    model.base_model.encoder.layer[0].requires_grad_(False)
    pruned = prune_channels(prune_heads(model, 0.5), 0.5)
    assert [p.requires_grad for p in pruned.parameters()] == [p.requires_grad for p in model.parameters()]
    pruned.train()(**inputs(), labels=torch.tensor([0, 1, 2])).loss.backward()
    assert parts(pruned, 1)["heads"][1].weight.grad.shape == (12, 6)
    assert pruned.training
    assert not model.training


def test_a_decoder_still_uses_its_cache_without_a_layer():
    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=12, num_attention_heads=4, num_hidden_layers=3, intermediate_size=20, vocab_size=32, is_decoder=True
    )
    pruned = drop_layers(prune_heads(transformers.BertLMHeadModel(config).eval(), 0.5), [0])
    ids = inputs()["input_ids"]
    with torch.no_grad():
        whole = pruned(input_ids=ids).logits[:, -1]
        cache = pruned(input_ids=ids[:, :-1], use_cache=True).past_key_values
        assert torch.allclose(pruned(input_ids=ids[:, -1:], past_key_values=cache).logits[:, -1], whole, atol=1e-5)


@pytest.mark.parametrize(("share", "left"), [(0, 4), (0.2, 3), (0.25, 3), (0.5, 2), (0.9, 1), (0.999, 1)])
def test_the_count_is_exact_and_one_head_always_stays(share, left):
    pruned = prune_heads(make("bert"), share)
    assert pruned.config.heads_kept == [left] * 3
    assert [parts(pruned, i)["heads"][0][0].out_features for i in range(3)] == [3 * left] * 3
    assert prune_channels(make("bert"), share).config.intermediate_size == max(1, 20 - round(share * 20))


def test_what_was_kept_is_recorded_short_and_right():
    scores = np.tile([1.0, 0, 1, 1, 0, 1], (3, 1))
    done = prune_channels(make("bert", channels=6), 1 / 3, importance=scores).config.compression
    assert done["kept"] == ["0,2-3,5"] * 3
    assert (
        prune_heads(make("bert"), 0.5, importance=np.tile([1, 0, 0, 1], (3, 1))).config.compression["kept"]
        == [[0, 3]] * 3
    )


# --- importance ------------------------------------------------------------------------------------------------------


def gone_of(pruned, what):
    kept = pruned.config.compression["kept"]
    if what == "heads":
        return [sorted(set(range(4)) - set(k)) for k in kept]
    ends = [[[int(n) for n in part.split("-")] for part in k.split(",")] for k in kept]
    return [sorted(set(range(20)) - {n for e in layer for n in range(e[0], e[-1] + 1)}) for layer in ends]


@pytest.mark.parametrize("importance", ["magnitude", "taylor"])
@pytest.mark.parametrize("end", ["read", "write"])
@pytest.mark.parametrize(
    ("prune", "what", "size", "share"), [(prune_heads, "heads", 3, 0.25), (prune_channels, "channels", 1, 0.05)]
)
def test_a_planted_useless_part_goes_first(prune, what, size, share, end, importance, texts):
    model = make("bert")
    given = texts if importance == "taylor" else {}
    planted = {0: 2, 1: 0, 2: 3}
    untouched = gone_of(prune(model, share, importance=importance, **given), what)
    assert [[planted[i]] for i in range(3)] != untouched  # the control: they do not go first by themselves
    for layer, number in planted.items():
        reads, write = parts(model, layer)[what]
        at = slice(size * number, size * (number + 1))
        with torch.no_grad():
            if end == "write":
                write.weight[:, at] = 0
            else:  # what the value gives is zero; whatever query and key are
                reads[-1].weight[at] = 0
                reads[-1].bias[at] = 0
    pruned = prune(model, share, importance=importance, **given)
    assert gone_of(pruned, what) == [[planted[i]] for i in range(3)]
    assert close(pruned, model)


def test_magnitude_is_the_norm_of_the_map_by_hand():
    model = make("distilbert")
    (_, _, value), out = parts(model, 1)["heads"]
    (first,), second = parts(model, 1)["channels"]
    read = lambda m: torch.cat([m.weight, m.bias[:, None]], 1).detach().double()  # noqa: E731
    write = out.weight.detach().double()
    by_hand = [torch.linalg.norm(write[:, 3 * h : 3 * h + 3] @ read(value)[3 * h : 3 * h + 3]) for h in range(4)]
    from compress.pruning.importance import magnitude_scores
    from probes.models.parts import DISTILBERT, layers_of

    layer = layers_of(model, DISTILBERT)[1]
    assert np.allclose(magnitude_scores(layer, DISTILBERT, "heads"), np.array(by_hand), rtol=1e-9)
    by_hand = read(first).norm(dim=1) * second.weight.detach().double().norm(dim=0)
    assert np.allclose(magnitude_scores(layer, DISTILBERT, "channels"), by_hand.numpy(), rtol=1e-9)


@pytest.mark.parametrize(("what", "size"), [("heads", 3), ("channels", 1)])
@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_taylor_is_the_finite_difference_text_by_text(family, what, size, texts):
    from compress.pruning.importance import taylor_scores

    model = make(family).double().train()
    corpus, tokenizer = texts["corpus"].select(range(7)), texts["tokenizer"]
    states = {k: v.clone() for k, v in model.state_dict().items()}
    counts = [{"heads": 4, "channels": 20}[what]] * 3
    found = taylor_scores(model, FAMILIES[family], what, counts, corpus, tokenizer)
    assert all(torch.equal(v, states[k]) for k, v in model.state_dict().items())
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    model.eval()

    def losses():
        with torch.no_grad():
            return [
                float(
                    torch.nn.functional.cross_entropy(
                        model(
                            **{
                                k: v
                                for k, v in tokenizer(row["text"], return_tensors="pt").items()
                                if k != "token_type_ids"
                            }
                        ).logits,
                        torch.tensor([int(row["label"])]),
                    )
                )
                for row in corpus
            ]

    for layer in range(3):
        weight = parts(model, layer)[what][1].weight
        for number in range(0, counts[0], 3):
            at = slice(size * number, size * (number + 1))
            kept, step = weight[:, at].clone(), 1e-5
            ends = []
            for scale in (1 + step, 1 - step):
                with torch.no_grad():
                    weight[:, at] = kept * scale
                ends.append(np.array(losses()))
                with torch.no_grad():
                    weight[:, at] = kept
            expected = np.abs(ends[0] - ends[1]).mean() / (2 * step)
            assert np.isclose(found[layer][number], expected, rtol=1e-4, atol=1e-9)


def test_taylor_names_classes_as_the_head_does_and_ignores_the_order_of_the_corpus(texts):
    model = make("bert")
    model.config.id2label = {0: "zero", 1: "one", 2: "two"}
    names = [model.config.id2label[int(i)] for i in texts["corpus"]["label"]]
    named = texts["corpus"].remove_columns("label").add_column("label", names)
    state = copy.deepcopy(model.config.to_dict())
    by_number, by_name, shuffled, wrong = (
        prune_channels(model, 0.5, importance="taylor", corpus=corpus, tokenizer=texts["tokenizer"])
        for corpus in (
            texts["corpus"],
            named,
            named.select(range(23, -1, -1)),
            named.remove_columns("label").add_column("label", ["two"] * 24),
        )
    )
    assert model.config.to_dict() == state
    assert (
        by_number.config.compression["kept"]
        == by_name.config.compression["kept"]
        == shuffled.config.compression["kept"]
    )
    assert by_number.config.compression["kept"] != wrong.config.compression["kept"]


def test_random_is_reproducible_by_its_seed():
    model = make("bert")
    one, same, other = (prune_channels(model, 0.5, importance="random", seed=s) for s in (3, 3, 4))
    assert weights_fingerprint(one) == weights_fingerprint(same) != weights_fingerprint(other)
    assert one.config.compression["seed"] == 3


@pytest.mark.parametrize("importance", ["removal", "similarity"])
def test_a_layer_that_does_nothing_goes_first(importance, texts):
    model = make("bert", layers=4)
    untouched = drop_layers(model, 1, importance=importance, **texts).config.compression["dropped"]
    useless = (untouched[0] + 2) % 4
    block = model.base_model.encoder.layer[useless]
    with torch.no_grad():  # the norm of a state that is normalised already changes nothing
        previous = model.base_model.encoder.layer[useless - 1].output if useless else model.base_model.embeddings
        for part in (block.attention.output, block.output):
            part.dense.weight.zero_()
            part.dense.bias.zero_()
            part.LayerNorm.weight.fill_(1)
            part.LayerNorm.bias.zero_()
        previous.LayerNorm.weight.fill_(1)
        previous.LayerNorm.bias.zero_()
    before = weights_fingerprint(model)
    pruned = drop_layers(model, 1, importance=importance, **texts)
    assert weights_fingerprint(model) == before
    assert pruned.config.compression["dropped"] == [useless]
    assert pruned.config.compression["scores"] == pytest.approx([0], abs=1e-5)
    assert close(pruned, model, 1e-4)


def test_removal_measures_anew_after_each_layer(texts):
    ascending = False
    for seed in (0, 5, 7):
        model = make("bert", layers=4, seed=seed)
        whole = probes.capture(model, **texts, progress=False)["hidden"].values[-1]
        gone, losses = [], []
        for _ in range(2):
            found = {}
            for layer in set(range(4)) - set(gone):
                smaller = drop_layers(model, [*gone, layer])
                last = probes.capture(smaller, **texts, progress=False)["hidden"].values[-1]
                found[layer] = 1 - probes.similarity(whole, last, measure="cka")
            gone.append(min(found, key=found.get))
            losses.append(found[gone[-1]])
        done = drop_layers(model, 2, **texts).config.compression
        assert done["dropped"] == gone
        assert done["scores"] == pytest.approx(losses, abs=1e-6)
        ascending |= gone[0] < gone[1]
    assert ascending  # where numbers in what is left and in the model differ


def test_layers_go_by_given_scores():
    done = drop_layers(make("bert", layers=4), 2, importance=[3, 1, 4, 2]).config.compression
    assert done["dropped"] == [1, 3]
    assert done["kept"] == [0, 2]
    assert drop_layers(make("bert"), 0, importance=[0, 0, 0]).config.num_hidden_layers == 3


# --- the bundled model -----------------------------------------------------------------------------------------------


def test_the_bundled_model_changes_less_than_by_chance():
    model, tokenizer = probes.load_checkpoint("bundled")
    corpus = probes.load_corpus("bundled", split="dev", languages=["en"])
    corpus = corpus.select(range(0, len(corpus), max(1, len(corpus) // 60)))
    base = probes.capture(model, tokenizer, corpus, progress=False)["logits"].values

    def change(**settings):
        pruned = prune_channels(model, 0.75, **settings)
        return np.abs(probes.capture(pruned, tokenizer, corpus, progress=False)["logits"].values - base).mean()

    chance = min(change(importance="random", seed=s) for s in range(3))
    assert change() < chance
    assert change(importance="taylor", corpus=corpus, tokenizer=tokenizer) < chance


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prune", [prune_heads, prune_channels])
@pytest.mark.parametrize(
    ("share", "settings", "message"),
    [
        (1, {}, r"share=1: expected at least 0 and below 1"),
        (-0.1, {}, r"share=-0.1: expected at least 0 and below 1"),
        (float("nan"), {}, r"share=nan: expected"),
        (
            0.5,
            {"importance": "loudest"},
            r"importance='loudest' is not known; choose 'magnitude', 'taylor' or 'random'",
        ),
        (
            0.5,
            {"importance": np.ones((2, 4))},
            r"expected scores of shape \(layer, (head|channel)\) = \(3, \d+\), found \(2, 4\)",
        ),
        (0.5, {"importance": [["a"]]}, r"importance: expected numbers of shape"),
        (0.5, {"importance": "taylor"}, r"importance='taylor' is measured on texts: corpus and tokenizer missing"),
    ],
)
def test_bad_settings_are_refused(prune, share, settings, message):
    with pytest.raises(probes.InputError, match=message):
        prune(make("bert"), share, **settings)


def test_scores_that_are_not_finite_are_refused():
    with pytest.raises(probes.InputError, match=r"score \[1, 2\] is not finite"):
        prune_heads(make("bert"), 0.5, importance=[[0] * 4, [0, 0, np.nan, 0], [0] * 4])


@pytest.mark.parametrize(
    ("layers", "settings", "message"),
    [
        ([3], {}, r"layer 3 is not there: the model has the layers 0 to 2"),
        ([-1], {}, r"layer -1 is not there"),
        ([0.5], {}, r"layer 0.5 is not there"),
        ([0, 1, 2], {}, r"all 3 layers of the model. Leave at least one"),
        (3, {}, r"layers=3: expected a count from 0 to 2"),
        (-1, {}, r"layers=-1: expected a count"),
        ("1", {}, r"layers='1': expected how many layers go, or their numbers"),
        (True, {}, r"layers=True: expected how many"),
        (1, {}, r"importance='removal' is measured on texts: corpus and tokenizer missing"),
        (1, {"importance": "magnitude"}, r"importance='magnitude' is not known; choose 'removal', 'similarity'"),
        (1, {"importance": [1, 2]}, r"expected scores of shape \(layer\) = \(3,\), found \(2,\)"),
    ],
)
def test_bad_layers_are_refused(layers, settings, message):
    with pytest.raises(probes.InputError, match=message):
        drop_layers(make("bert"), layers, **settings)


@pytest.mark.parametrize("prune", [prune_heads, prune_channels, drop_layers])
def test_what_is_not_known_is_refused(prune, tiny_models):
    with pytest.raises(probes.InputError, match=r"knows the architectures bert, .*distilbert, and not 'gpt2'"):
        prune(tiny_models("GPT2LMHeadModel"), 0)
    with pytest.raises(probes.InputError, match="expected a model of transformers, found Linear"):
        prune(torch.nn.Linear(2, 2), 0)


def test_a_linear_map_of_another_kind_is_refused():
    model = make("bert")
    model.base_model.encoder.layer[1].output.dense = torch.nn.Identity()
    with pytest.raises(
        probes.InputError, match=r"layer 1, output.dense: expected a plain torch.nn.Linear, found Identity"
    ):
        prune_heads(model, 0.5)


def test_taylor_needs_a_head_that_classifies_and_labels_it_knows(texts):
    corpus, tokenizer = texts["corpus"], texts["tokenizer"]
    for model, given, message in (
        (make("bert").base_model, corpus, "needs a head that gives each text one of several classes, found BertModel"),
        (
            make("bert", num_labels=1),
            corpus,
            "found BertForSequenceClassification with problem_type=None, num_labels=1",
        ),
        (
            make("bert", problem_type="multi_label_classification"),
            corpus,
            "found BertForSequenceClassification with problem_type='multi_label_classification'",
        ),
        (make("bert"), corpus.remove_columns("label"), "needs a corpus with labels"),
        (make("bert"), corpus.select([]), "expected at least one row, found none"),
        (
            make("bert", num_labels=2),
            corpus,
            "row 2: label '2' is no class of the model, which has 'LABEL_0', 'LABEL_1'",
        ),
        (make("bert", vocab_size=10), corpus, "tokenizer and model do not fit"),
    ):
        with pytest.raises(probes.InputError, match=message):
            prune_heads(model, 0.5, importance="taylor", corpus=given, tokenizer=tokenizer)


def test_heads_kept_of_another_model_are_refused(tmp_path):
    pruned = prune_heads(make("bert"), 0.5)
    pruned.config.heads_kept = [2, 2]
    pruned.save_pretrained(tmp_path)
    with pytest.raises(probes.InputError, match=r"config.heads_kept has 2 numbers and the model 3 layers"):
        load_pruned(tmp_path)


def test_a_quantised_model_that_loses_layers_rounds_the_inputs_of_those_it_keeps(tiny_models, tmp_path, make_tokenizer):
    model = compress.quantize(tiny_models("BertModel"), bits=8)
    settings = model.config.quantized_inputs
    smaller = drop_layers(model, [1])
    second = {k: v for k, v in settings.items() if ".2." in k}
    kept = {k: v for k, v in settings.items() if ".0." in k} | {k.replace(".2.", ".1."): v for k, v in second.items()}
    assert smaller.config.quantized_inputs == kept
    assert model.config.quantized_inputs == settings
    assert len(settings) == 18
    compress.save(smaller, tmp_path / "out", make_tokenizer())
    loaded, _ = probes.load_checkpoint(tmp_path / "out")
    ids = torch.tensor([[2, 5, 7, 3]])
    with torch.no_grad():
        states = [m(ids).last_hidden_state for m in (smaller, loaded)]
    assert torch.equal(*states)
