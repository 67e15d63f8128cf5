"""Output layers of codewords: what is made, trained, measured, saved and refused."""

import math

import numpy as np
import pytest
import torch
import transformers
from afresh import in_a_new_process
from speaking import masking_tokenizer, of_kind, of_masked_tokens, of_the_next_token, spoken_corpus
from trained import QUIET, make_corpus, same, weights

import compress
import probes
from compress.objectives.held_out import language_model_loss
from compress.quantization.code_outputs import code_outputs, distances
from compress.quantization.codewords import frequency_codewords, in_binary, random_codewords
from probes.errors import InputError, LayerscopeWarning
from probes.models.fingerprint import weights_fingerprint
from probes.models.formats.output_codes import coded_output_of

tokenizer, corpus = masking_tokenizer, spoken_corpus
WORDS = 20  # of the vocabulary of `masking_tokenizer`


@pytest.fixture
def model(tokenizer):
    return of_the_next_token(tokenizer)


def test_a_layer_whose_words_are_codewords_times_weights_is_found_exactly(model):
    table = random_codewords(WORDS, 7, seed=2)
    with torch.no_grad():  # and what all words share, which a softmax does not see
        model.lm_head.weight.copy_(torch.from_numpy(table).float() @ torch.randn(7, 16) + torch.randn(16))
    ids = torch.tensor([[4, 8, 15]])
    expected = model(ids).logits.log_softmax(-1)
    coded = code_outputs(model, bits=7, assignment=table)
    torch.testing.assert_close(coded(ids).logits.log_softmax(-1), expected, rtol=1e-3, atol=1e-4)
    other = code_outputs(model, bits=7, assignment="random", seed=5)
    assert float((other(ids).logits.log_softmax(-1) - expected).detach().abs().max()) > 0.1


def test_it_begins_by_least_squares_weighted_by_frequency(model, tokenizer, corpus):
    coded = code_outputs(model, bits=6, assignment="frequency", train=corpus, tokenizer=tokenizer)
    head, texts = coded_output_of(coded), [tokenizer(t)["input_ids"] for t in corpus["text"]]
    counts = np.bincount(np.concatenate([ids[1:] for ids in texts]), minlength=WORDS)
    assert np.array_equal(head.table().numpy(), frequency_codewords(counts, 6))
    root = np.sqrt(counts + 1.0)[:, None]
    left = root * np.column_stack([head.table().numpy(), np.ones(WORDS)])  # what all words share is free
    solved = np.linalg.lstsq(left, root * model.lm_head.weight.detach().numpy(), rcond=None)[0][:6]
    np.testing.assert_allclose(head.linear.weight.detach(), solved, rtol=1e-3, atol=1e-4)
    assert float(head.linear.bias.detach().abs().max()) < 1e-6  # the layer had none


@pytest.mark.parametrize("mixture", [None, "curriculum", "differentiable"])
def test_it_is_trained_without_touching_the_model(model, tokenizer, corpus, mixture):
    before = weights_fingerprint(model)
    how = {"train": corpus, "tokenizer": tokenizer, **QUIET, "learning_rate": 3e-2}
    looks = []

    def evaluate(coded):
        looks.append(coded(torch.tensor([[4, 5]])).logits.shape[-1])
        return {"looks": len(looks)}

    coded = code_outputs(model, bits=8, mixture=mixture, steps=12, evaluate=evaluate, evaluate_at=[12], **how)
    assert weights_fingerprint(model) == before
    assert looks == [WORDS, WORDS]
    losses = coded.history["coded_tokens"].dropna()
    assert losses.iloc[-1] < 0.8 * losses.iloc[0]
    found = language_model_loss(coded, tokenizer, corpus)
    assert found["nats"] < 0.7 * language_model_loss(model, tokenizer, corpus)["nats"]
    assert 0 < found["nats"] < math.log(WORDS)
    done = coded.config.compression
    assert (done["method"], done["bits"], done["assignment"]) == ("code_outputs", 8, "embedding")
    assert (done["mixture"], done["words"], done["objective"], done["steps"]) == (mixture, 20, ["coded_tokens"], 12)
    assert (done["output_bytes_of_parent"], done["output_bytes"]) == (20 * 16 * 4, 8 * 17 * 4 + 20)
    assert coded_output_of(coded).says == "words"


def test_saying_bits_in_training_changes_no_number(model, tokenizer, corpus):
    how = {"train": corpus, "tokenizer": tokenizer, "steps": 2, **QUIET}
    objective = compress.CodedTokens()

    class Nothing:
        name, weight, needs = "nothing", 0.0, frozenset()

        def __call__(self, student, teacher, batch):
            assert student.logits.shape[-1] == WORDS  # of another objective's sake
            return 0 * student.logits.sum()

    one, two = (code_outputs(model, bits=8, objective=o, **how) for o in (objective, [objective, Nothing()]))
    assert same(weights(one), weights(two), atol=1e-6)
    seen = []

    class Looks(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **_):
            seen.append(model(torch.tensor([[4]])).logits.shape[-1])

    three = code_outputs(model, bits=8, callbacks=[Looks()], **how)
    assert seen == [WORDS, WORDS]
    assert same(weights(one), weights(three), atol=1e-6)
    words = compress.NearestWords("static", 0.5, own_words=0.5)  # of words, not of bits
    assert not same(weights(one), weights(code_outputs(model, bits=8, replace_words=words, **how)), atol=1e-6)
    renormalised = code_outputs(model, bits=8, objective=compress.LanguageModel(), **how)
    assert list(renormalised.history) == ["step", "language_model", "loss"]
    assert not same(weights(one), weights(renormalised), atol=1e-5)


def test_a_classifier_is_coded_and_learns_its_labels(make_classifier, make_tokenizer):
    model, train, tokens = make_classifier(), make_corpus(), make_tokenizer()
    coded = code_outputs(model, bits=5, train=train, tokenizer=tokens, steps=60, **QUIET | {"learning_rate": 5e-3})
    assert list(coded.history) == ["step", "coded_labels", "loss"]
    dev = train.filter(lambda row: row["split"] == "dev")
    quality = compress.quality(coded, tokens, dev, draws=2).set_index("language")
    assert quality.loc["pooled", "value"] == 1.0
    reps = probes.capture(coded, tokens, dev, progress=False)
    assert reps.logits.shape == (12, 3)


def test_it_is_compared_like_any_model_and_counted(model, tokenizer, corpus):
    coded = code_outputs(model, bits=8, train=corpus, tokenizer=tokenizer, steps=2, **QUIET)
    found = probes.next_token(model, coded, tokenizer, corpus, draws=10, progress=False).value.sel(language="pooled")
    known = language_model_loss(coded, tokenizer, corpus)
    assert float(found.sel(measure="nats_per_token")) == pytest.approx(known["nats"], rel=1e-5)
    assert float(found.sel(measure="kl")) > 0
    reps = [probes.capture(m, tokenizer, corpus, progress=False) for m in (model, coded)]
    assert reps[0].hidden.shape == reps[1].hidden.shape
    cost = compress.footprint(model, coded)
    saved = 20 * 16 - 8 * 17
    assert cost.loc["model", "parameters"] - cost.loc["smaller", "parameters"] == saved
    expected = saved * 4 - 20  # and a byte a word
    assert cost.loc["model", "bytes"] - cost.loc["smaller", "bytes"] == pytest.approx(expected, abs=400)


@pytest.mark.parametrize("packed", [False, True])
def test_it_is_loaded_with_the_same_outputs(model, tokenizer, tmp_path, packed):
    coded = code_outputs(model, bits=11)
    compress.save(coded, tmp_path / "out", tokenizer, packed=packed)
    loaded, _ = probes.load_checkpoint(tmp_path / "out")
    ids = torch.tensor([[4, 8, 15, 6]])
    assert torch.equal(loaded(ids).logits, coded(ids).logits)
    assert weights_fingerprint(loaded) == weights_fingerprint(coded)


def test_a_new_process_loads_it_with_the_same_outputs(model, tokenizer, tmp_path):
    coded = code_outputs(model, bits=11)
    compress.save(coded, tmp_path / "coded", tokenizer)
    code = "import probes\nout = probes.load_checkpoint(given[0])[0](torch.tensor([[4, 8, 15, 6]])).logits"
    found = in_a_new_process(code, tmp_path / "coded")
    assert np.array_equal(found, coded(torch.tensor([[4, 8, 15, 6]])).logits.detach().numpy())


@pytest.mark.parametrize("assignment", ["random", "embedding"])
def test_what_was_interrupted_goes_on_and_ends_as_it_would_have(
    model, tokenizer, corpus, tmp_path, monkeypatch, assignment
):
    def run(folder, bits=7):
        how = {"train": corpus, "tokenizer": tokenizer, "steps": 4, "folder": folder, "save_every": 2, **QUIET}
        return code_outputs(model, bits=bits, assignment=assignment, mixture="curriculum", seed=3, **how)

    def stops(self, *args):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return loss(self, *args)

    whole, calls, loss = run(tmp_path / "whole"), [], compress.CodedTokens.__call__
    with monkeypatch.context() as patch:
        patch.setattr(compress.CodedTokens, "__call__", stops)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "run")
    assert sorted(p.name for p in (tmp_path / "run").glob("checkpoint-*")) == ["checkpoint-2"]
    again = run(tmp_path / "run")
    assert same(weights(again), weights(whole))
    assert again.history.equals(whole.history)
    with pytest.raises(InputError, match="run holds checkpoints of another training: student is"):
        run(tmp_path / "run", bits=9)


def test_a_vocabulary_of_a_quarter_of_a_million_words_becomes_as_many_rows_as_bits():
    config = transformers.LlamaConfig(
        vocab_size=250_000, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    model = transformers.LlamaForCausalLM(config)
    coded = code_outputs(model, bits=40, assignment="random")
    assert coded.lm_head.linear.weight.shape == (40, 8)
    cost = compress.footprint(model, coded)
    assert cost.loc["model", "parameters"] - cost.loc["smaller", "parameters"] == 250_000 * 8 - 40 * 9
    done = coded.config.compression
    assert (done["output_bytes_of_parent"], done["output_bytes"]) == (8_000_000, 40 * 9 * 4 + 5 * 250_000)


def test_tied_embeddings_stay_and_that_is_said(tokenizer, tmp_path):
    model = of_kind("gpt2", tokenizer)
    assert model.lm_head.weight is model.transformer.wte.weight
    with pytest.warns(
        LayerscopeWarning, match="its output layer is its table of embeddings, which stays: codewords add"
    ):
        coded = code_outputs(model, bits=6)
    assert torch.equal(coded.transformer.wte.weight, model.transformer.wte.weight)
    assert model.config.tie_word_embeddings
    compress.save(coded, tmp_path / "out", tokenizer)
    loaded, _ = probes.load_checkpoint(tmp_path / "out")
    ids = torch.tensor([[4, 8]])
    assert torch.equal(loaded(ids).logits, coded(ids).logits)
    assert coded.generate(ids, max_new_tokens=3, do_sample=False).shape == (1, 5)


def test_a_vocabulary_is_pruned_with_its_codewords(model, tokenizer, corpus):
    coded = code_outputs(model, bits=8)
    small, tokens = compress.prune_vocabulary(coded, tokenizer, corpus.select(range(2)))
    assert coded_output_of(coded).out_features == WORDS > coded_output_of(small).out_features == len(tokens)
    text = corpus["text"][0]
    old, new = (t(text, return_tensors="pt")["input_ids"] for t in (tokenizer, tokens))
    kept = torch.tensor([tokenizer.get_vocab()[w] for w, _ in sorted(tokens.get_vocab().items(), key=lambda x: x[1])])
    torch.testing.assert_close(small(new).logits, coded(old).logits[..., kept])


def test_distances_are_those_of_all_pairs():
    table = random_codewords(30, 9)
    differ = [(table[i] != table[j]).sum() for i in range(30) for j in range(30) if i != j]
    assert distances(table) == {"least": min(differ), "mean": pytest.approx(np.mean(differ))}
    assert distances(in_binary(np.arange(1), 1)) == {"least": 1.0, "mean": 0.0}


def test_what_cannot_be_coded_is_refused_before_the_work(model, tokenizer, corpus, tiny_models, monkeypatch):
    monkeypatch.setattr("compress.quantization.code_outputs.apply_output_codes", lambda _: pytest.fail("work began"))
    text = {"train": corpus, "tokenizer": tokenizer}
    for settings, message in [
        ({"bits": 4}, r"bits=4: 4 bits make 16 codewords at most, and there are 20 words .* at least 5 bits"),
        ({"bits": 0}, "bits=0: expected a whole number of at least 1"),
        ({"bits": 5.0}, "bits=5.0: expected a whole number"),
        ({"bits": 5, "assignment": "near"}, "assignment='near' is not known; choose one of 'random', .* or give zeros"),
        ({"bits": 5, "assignment": np.zeros((20, 5))}, "the words 0 and 1 have the same codeword"),
        ({"bits": 5, "assignment": "frequency"}, "assignment='frequency' counts words: give train="),
        ({"bits": 5, "mixture": "some", "steps": 2, **text}, "mixture='some' is not known; choose one of"),
        ({"bits": 5, "mixture": "curriculum"}, "mixture='curriculum' is of a training, and steps=0 trains nothing"),
        ({"bits": 5, "steps": 2}, "training needs text: give train="),
        ({"bits": 5, "learning_rat": 2}, "learning_rat=2: no such setting"),
        ({"bits": 5, **text}, "steps=0 trains nothing: give steps="),
        (
            {"bits": 5, "mixture": "curriculum", "steps": 2, "objective": compress.LanguageModel(), **text},
            "both say what is trained for",
        ),
    ]:
        with pytest.raises(InputError, match=message):
            code_outputs(model, **settings)
    for other, message in [
        (tiny_models("BertModel"), "BertModel has no output layer of tokens or classes: expected a decoder"),
        (tiny_models("T5ForConditionalGeneration"), "T5ForConditionalGeneration is an encoder-decoder"),
        (of_masked_tokens(tokenizer), "BertForMaskedLM predicts masked tokens: expected a decoder"),
        (of_kind("gemma2", tokenizer), "scales or caps what its output layer gives"),
        (tiny_models("BertForSequenceClassification", num_labels=1), "has no output layer of tokens or classes"),
    ]:
        with pytest.raises(InputError, match=message):
            code_outputs(other, bits=9)
    with pytest.raises(InputError, match="mixes tokens that are read, and the model puts texts into classes"):
        code_outputs(tiny_models("BertForSequenceClassification"), bits=9, mixture="curriculum")
    with torch.no_grad():
        model.lm_head.weight[3, 2] = torch.nan
    with pytest.raises(InputError, match="the output layer: row 3 holds nan"):
        code_outputs(model, bits=9)
