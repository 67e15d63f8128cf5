"""Layers: the states of every architecture, what a head gives, and the modules that are named."""

import copy

import numpy as np
import pytest
import tiny
import torch
from capturing import Spoiler, assert_close, capture, hooks, independent

import probes


def body_of(model):
    return model.base_model.get_encoder() if model.config.is_encoder_decoder else model.base_model


@pytest.mark.parametrize(
    "architecture",
    [
        "BertModel",
        "RobertaModel",
        "DistilBertModel",
        "GPT2LMHeadModel",
        "LlamaModel",
        "LlamaForCausalLM",
        "T5Model",
        "T5ForConditionalGeneration",
    ],
)
@pytest.mark.parametrize("special", [True, False], ids=["special tokens", "no pad token"])
def test_every_architecture_equals_an_independent_computation(
    tiny_models, make_tokenizer, corpus, architecture, special
):
    model, tokenizer = tiny_models(architecture), make_tokenizer(special)
    assert (tokenizer.pad_token is None) == (not special)
    reps = capture(model, tokenizer, corpus)
    assert_close(reps, independent(body_of(model), tokenizer, corpus))
    assert reps.sizes["layer"] == 4


def test_a_head_changes_no_state(bert, tokenizer, corpus):
    assert_close(capture(bert, tokenizer, corpus), capture(bert.bert, tokenizer, corpus).hidden.values, 0)


def test_a_head_that_does_not_classify_texts_is_not_run(tiny_models, tokenizer, corpus, monkeypatch):
    model = tiny_models("GPT2LMHeadModel")
    monkeypatch.setattr(model, "forward", lambda *_, **__: pytest.fail("the head was run"))
    assert "logits" not in capture(model, tokenizer, corpus)


@pytest.mark.parametrize("architecture", ["Bert", "Roberta", "DistilBert", "GPT2", "Llama"])
def test_logits_are_those_of_each_text_alone_and_linear_in_the_input_of_the_head(
    tiny_models, tokenizer, corpus, tmp_path, architecture
):
    model = tiny_models(f"{architecture}ForSequenceClassification")
    model.config.id2label = {0: "no", 1: "so", 2: "yes"}
    capture(model, tokenizer, corpus)  # at the first run transformers puts hooks of its own
    before = hooks(model)
    reps = capture(model, tokenizer, corpus, store=tmp_path / "s.zarr")
    assert hooks(model) == before
    with torch.inference_mode():
        alone = [model(**tokenizer(text, return_tensors="pt")).logits[0] for text in corpus["text"]]
        last = next(
            m
            for n, m in model.named_modules()
            if n.split(".")[-1] in ("classifier", "out_proj", "score") and hasattr(m, "weight")
        )
        again = last(torch.from_numpy(reps.head_input.values))
    np.testing.assert_allclose(reps.logits, torch.stack(alone), atol=1e-5)
    np.testing.assert_allclose(reps.logits, again, atol=1e-5)
    assert reps["class"].values.tolist() == ["no", "so", "yes"]
    assert np.abs(reps.logits.values - np.roll(reps.logits.values, 1, axis=0)).max() > 1e-3


def test_a_head_whose_logits_are_not_linear_gives_no_input(bert, tokenizer, corpus):
    bert.classifier = torch.nn.Sequential(torch.nn.Linear(12, 3), torch.nn.Tanh())
    reps = capture(bert, tokenizer, corpus)
    assert "logits" in reps
    assert "head_input" not in reps


def test_a_decoder_whose_configuration_says_minus_one_for_no_padding_is_captured(tiny_models, make_tokenizer, corpus):
    model = tiny_models("LlamaModel")
    model.config.pad_token_id = -1
    assert_close(capture(model, make_tokenizer(False), corpus), independent(model, make_tokenizer(False), corpus))


def test_named_blocks_of_a_model_give_its_hidden_states(bert, tokenizer, corpus):
    names = ["bert.embeddings", *(f"bert.encoder.layer.{i}" for i in range(3))]
    reps = capture(bert, tokenizer, corpus, modules=names)
    assert_close(reps, independent(bert.bert, tokenizer, corpus))
    assert list(reps.module.values) == names
    one = capture(bert, tokenizer, corpus, modules=names[2:0:-1])
    assert_close(one, reps.hidden.values[[2, 1]], 0)


def test_named_modules_of_an_encoder_are_captured_in_an_encoder_decoder(tiny_models, tokenizer, corpus):
    model = tiny_models("T5Model")
    reps = capture(model, tokenizer, corpus, modules=["encoder.block.0", "encoder.block.1"])
    assert_close(reps, independent(model.encoder, tokenizer, corpus)[1:3])
    with pytest.raises(probes.InputError, match=r"module 'decoder\.block\.0'.*found NoneType"):
        capture(model, tokenizer, corpus, modules=["decoder.block.0"])


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (["none"], "no module named 'none'; it has table, spoilt"),
        (["spoilt", "flat"], r"module 'flat': expected .*\(batch, token, feature\) for inputs of shape .*, found \("),
        (["unused"], "module 'unused': .*found NoneType. Choose another module"),
        (["spoilt", "wide"], "the modules differ in width .*'wide': 7"),
        (None, r"Spoiler is no model of transformers.*Name them with modules=\[...\]"),
    ],
)
def test_modules_that_give_no_states_are_refused_and_no_hook_stays(tokenizer, corpus, modules, message):
    model = Spoiler()
    before = hooks(model)
    with pytest.raises(probes.InputError, match=message):
        capture(model, tokenizer, corpus, modules=modules)
    assert hooks(model) == before
    assert model.training


def test_a_layer_that_was_replaced_after_a_capture_is_noticed(bert, tokenizer, corpus):
    capture(bert, tokenizer, corpus)
    layer = bert.bert.encoder.layer[1]
    bert.bert.encoder.layer[1] = type(layer)(bert.config).eval()
    with pytest.raises(probes.InputError, match=r"expected 4 hidden states .*, 3 came back.*save and reload"):
        capture(bert, tokenizer, corpus)


def test_a_copy_of_a_captured_model_is_captured_by_its_own_weights(bert, tokenizer, corpus):
    capture(bert, tokenizer, corpus)
    other = copy.deepcopy(bert)
    with torch.no_grad():
        other.bert.encoder.layer[0].output.dense.weight.zero_()
    reps = capture(other, tokenizer, corpus)
    assert_close(reps, independent(other.bert, tokenizer, corpus))
    assert np.abs(reps.hidden.values - capture(bert, tokenizer, corpus).hidden.values).max() > 0.01


def test_layers_of_a_state_space_begin_with_the_embeddings(corpus):
    model, tokenizer = tiny.make("mamba"), tiny.tokenizer_of("mamba")
    reps = capture(model, tokenizer, corpus, pooling="last")
    for example, text in enumerate(corpus["text"]):
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            states, given = [model.embeddings(ids)], model(ids)
            for block in model.layers:
                states.append(block(states[-1]))
        states[-1] = given.last_hidden_state  # after the norm
        found = reps.hidden.values[:, example]
        np.testing.assert_allclose(found, [s[0, -1].detach().numpy() for s in states], atol=1e-5)


def test_states_of_several_lengths_are_refused_with_the_reason(corpus):
    with pytest.raises(
        probes.InputError, match=r"FunnelModel: its hidden states differ in length \(.* Capture modules"
    ):
        capture(tiny.make("funnel"), tiny.tokenizer_of("funnel"), corpus)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("clip", r"CLIPModel reads pixel_values, not text alone. Give the part that reads text: model.text_model"),
        ("whisper", r"WhisperModel reads input_features, not text alone. Give the part .*: model.decoder"),
        ("vit", r"ViTModel reads pixel_values, not text alone. Give a model that reads text"),
    ],
)
def test_what_reads_no_text_is_refused_by_what_it_reads_and_its_part_that_does(corpus, name, reason):
    model, tokenizer = tiny.make(name), tiny.tokenizer_of(name)
    for modules in (None, [list(dict(model.named_modules()))[-1]]):
        with pytest.raises(probes.InputError, match=reason):
            capture(model, tokenizer, corpus, modules=modules)


@pytest.mark.parametrize(("name", "part"), [("clip", "text_model"), ("whisper", "decoder")])
def test_the_part_that_reads_text_is_captured_and_its_modules_too(corpus, name, part):
    model, tokenizer = tiny.make(name), tiny.tokenizer_of(name)
    reads = getattr(model, part)
    assert capture(reads, tokenizer, corpus).sizes["layer"] == 5
    inner = next(n for n, m in reads.named_modules() if "layers.1." in n and n.endswith("fc2"))
    assert capture(reads, tokenizer, corpus, modules=[inner]).sizes["feature"] == 32


@pytest.mark.parametrize("name", ["t5", "mt5", "bart"])
def test_a_classifier_that_is_an_encoder_decoder_gives_its_logits(corpus, name):
    model, tokenizer = tiny.make(name, "head"), tiny.tokenizer_of(name)
    reps = capture(model, tokenizer, corpus)
    with torch.no_grad():
        each = [model(**tokenizer(t, return_tensors="pt")).logits[0].numpy() for t in corpus["text"]]
    np.testing.assert_allclose(reps.logits.values, each, atol=1e-5)
    assert reps.sizes["layer"] == 5
    assert "head_input" in reps


def spoken(model, tokenizer, text, answer):
    """States of a decoder, one text at a time, fed what it shall give one token later; and which tokens are its own."""
    given, told = (dict(tokenizer(t, return_tensors="pt", return_special_tokens_mask=True)) for t in (text, answer))
    ids = told["input_ids"]
    start = torch.full((1, 1), model.config.decoder_start_token_id)
    inputs = {"input_ids": given["input_ids"], "decoder_input_ids": torch.cat([start, ids[:, :-1]], 1)}
    with torch.no_grad():
        states = model.base_model(**inputs, output_hidden_states=True).decoder_hidden_states
    return [s[0] for s in states], told["special_tokens_mask"][0] == 0


@pytest.mark.parametrize("kind", ["base", "lm"])
@pytest.mark.parametrize("name", ["t5", "bart", "m2m_100"])
def test_a_decoder_is_captured_as_it_predicts_the_text_or_its_pair(corpus, name, kind):
    model, tokenizer = tiny.make(name, kind), tiny.tokenizer_of(name)
    answers = list(reversed(corpus["text"]))
    for given, told in ((corpus, corpus["text"]), (corpus.add_column("text_pair", answers), answers)):
        reps = capture(model, tokenizer, given, part="decoder", batch_size=4)
        assert reps.attrs["part"] == "decoder"
        assert "logits" not in reps
        for example, (text, answer) in enumerate(zip(corpus["text"], told, strict=True)):
            states, own = spoken(model, tokenizer, text, answer)
            expected = np.stack([s[own].mean(0).numpy() for s in states])
            np.testing.assert_allclose(reps.hidden.values[:, example], expected, atol=2e-5)
    encoder = capture(model, tokenizer, corpus)
    assert encoder.attrs["fingerprint"] != capture(model, tokenizer, corpus, part="decoder").attrs["fingerprint"]


def test_modules_of_a_decoder_are_taken_by_name(corpus):
    model, tokenizer = tiny.make("bart"), tiny.tokenizer_of("bart")
    whole = capture(model, tokenizer, corpus, part="decoder")
    named = capture(model, tokenizer, corpus, part="decoder", modules=["decoder.layers.1"])
    np.testing.assert_allclose(named.hidden.values[0], whole.hidden.values[2], atol=1e-6)


def test_only_an_encoder_decoder_has_a_decoder_beside_its_encoder(corpus):
    for name in ("bert", "llama"):
        with pytest.raises(probes.InputError, match=r"part='decoder' is of an encoder-decoder, and .* none. Leave"):
            capture(tiny.make(name), tiny.tokenizer_of(name), corpus, part="decoder")
    with pytest.raises(probes.InputError, match="part='both' is not known; choose one of"):
        capture(tiny.make("t5"), tiny.tokenizer_of("t5"), corpus, part="both")
