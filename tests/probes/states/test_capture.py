"""Capture: the pooled states are right, whatever the batches, and a store is written, reused and resumed."""

import copy
import sys

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
import zarr

import probes
from probes.states.pooling import POOLINGS

TEXTS = [
    "a dog sat on the mat",
    "the cat",
    "then he sang under a small tree and she ran over the red house but it sat",
    "bird",
    "the unknown-word cat ran",
    "she sang and the dog ran",
]


@pytest.fixture
def corpus():
    return make_corpus(TEXTS)


@pytest.fixture
def tokenizer(make_tokenizer):
    return make_tokenizer()


@pytest.fixture
def bert(tiny_models):
    return tiny_models("BertForSequenceClassification")


def make_corpus(texts, **columns):
    frame = pd.DataFrame({"id": range(len(texts)), "language": "en", "text": texts, **columns})
    return probes.load_corpus(frame)


def capture(*args, **options):
    return probes.capture(*args, **{"progress": False, **options})


def independent(body, tokenizer, corpus, pooling="mean", limit=None):
    """One text at a time, pooled in float64: (layer, example, feature)."""
    rows = []
    for row in corpus:
        texts = [row["text"], *([row["text_pair"]] if "text_pair" in row else [])]
        cut = {} if limit is None else {"truncation": True, "max_length": limit}
        inputs = tokenizer(*texts, return_tensors="pt", **cut)
        if not hasattr(body.config, "type_vocab_size"):
            inputs.pop("token_type_ids", None)
        with torch.no_grad():
            states = body(**inputs, output_hidden_states=True).hidden_states
        states = np.stack([s[0].double().numpy() for s in states])
        ids = inputs["input_ids"][0].tolist()
        own = [i for i, t in enumerate(ids) if t not in (tokenizer.cls_token_id, tokenizer.sep_token_id)]
        at = {"mean": own, "mean_all": range(len(ids)), "first": [0], "last": [len(ids) - 1]}[pooling]
        rows.append(states[:, list(at)].mean(1))
    return np.stack(rows, 1)


def assert_close(reps, expected, atol=1e-5):
    values = reps.hidden.values if isinstance(reps, xr.Dataset) else reps
    assert values.shape == expected.shape
    np.testing.assert_allclose(values, expected, rtol=0, atol=atol)


def body_of(model):
    return model.base_model.get_encoder() if model.config.is_encoder_decoder else model.base_model


# --- the values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_pooling_equals_an_independent_computation_and_no_other(bert, tokenizer, corpus, pooling):
    reps = capture(bert, tokenizer, corpus, pooling=pooling)
    assert reps.hidden.dtype == np.float32
    assert reps.hidden.sizes == {"layer": 4, "example": 6, "feature": 12}
    for other in POOLINGS:
        expected = independent(bert.bert, tokenizer, corpus, other)
        if other == pooling:
            assert_close(reps, expected)
        else:
            assert np.abs(reps.hidden.values - expected).max() > 0.05


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


LONG = "the red dog sat on a mat and the big cat sang under a tree then she ran over it"


@pytest.mark.parametrize(
    "options",
    [{"batch_size": 1}, {"batch_size": 4}, {"batch_tokens": 1}, {"batch_tokens": 12}, {"device": "cpu"}],
    ids=str,
)
def test_values_do_not_depend_on_the_batches(bert, tokenizer, corpus, options):
    assert_close(capture(bert, tokenizer, corpus, **options), capture(bert, tokenizer, corpus).hidden.values, 1e-5)


def test_rows_keep_their_order_and_values_whatever_stands_beside_them(bert, tokenizer, corpus):
    plain = capture(bert, tokenizer, corpus)
    assert list(plain.text.values) == TEXTS
    assert list(plain.id.values) == [str(i) for i in range(6)]
    order = [4, 0, 5, 2, 1, 3]
    shuffled = capture(bert, tokenizer, corpus.select(order))
    assert list(shuffled.text.values) == [TEXTS[i] for i in order]
    assert_close(shuffled, plain.hidden.values[:, order], 1e-5)
    padded = capture(bert, tokenizer, make_corpus([*TEXTS, LONG + " and then she sang"]))
    assert_close(padded.hidden.values[:, :6], plain.hidden.values, 1e-5)


def test_pairs_of_texts_are_one_sequence_of_two_segments(bert, tokenizer):
    pairs = make_corpus(TEXTS, text_pair=TEXTS[::-1])
    reps = capture(bert, tokenizer, pairs)
    assert_close(reps, independent(bert.bert, tokenizer, pairs))
    assert np.abs(reps.hidden.values - capture(bert, tokenizer, make_corpus(TEXTS)).hidden.values).max() > 0.05
    assert list(reps.text_pair.values) == TEXTS[::-1]


class Spoiler(torch.nn.Module):
    """Modules with outputs of every kind; `spoilt` is NaN wherever there is padding."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(64, 5)
        self.spoilt = torch.nn.Identity()
        self.tuple = Pair()
        self.flat = torch.nn.Flatten()
        self.wide = torch.nn.Linear(5, 7)
        self.unused = torch.nn.Identity()

    def forward(self, input_ids, attention_mask):
        x = self.table(input_ids)
        self.flat(x)
        self.wide(x)
        self.tuple(x)
        return self.spoilt(x.masked_fill(attention_mask.unsqueeze(-1) == 0, float("nan")))


class Pair(torch.nn.Module):
    def forward(self, x):
        return 2 * x, None


@pytest.mark.parametrize("pooling", POOLINGS)
def test_states_of_padding_do_not_leak_even_where_they_are_nan(tokenizer, corpus, pooling):
    model = Spoiler()
    table = model.table.weight.detach().double().numpy()
    reps = capture(model, tokenizer, corpus, modules=["spoilt", "tuple"], pooling=pooling)
    ids = [tokenizer(text)["input_ids"] for text in TEXTS]
    kept = [{"mean": i[1:-1], "mean_all": i, "first": i[:1], "last": i[-1:]}[pooling] for i in ids]
    expected = np.stack([table[i].mean(0) for i in kept])
    assert_close(reps, np.stack([expected, 2 * expected]))
    assert list(reps.module.values) == ["spoilt", "tuple"]


def test_a_nan_in_the_text_itself_is_not_hidden(tokenizer, corpus):
    model = Spoiler()
    with torch.no_grad():
        model.table.weight[tokenizer.convert_tokens_to_ids("bird")] = float("nan")
    reps = capture(model, tokenizer, corpus, modules=["spoilt"])
    assert [bool(np.isnan(v).all()) for v in reps.hidden.values[0]] == ["bird" in text.split() for text in TEXTS]


def test_bfloat16_is_close_but_not_equal(bert, tokenizer, corpus):
    full = capture(bert, tokenizer, corpus)
    half = capture(bert, tokenizer, corpus, dtype="bfloat16")
    a, b = full.hidden.values, half.hidden.values
    cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    assert cosine.min() > 0.99
    assert not np.array_equal(a, b)
    assert (full.attrs["dtype"], half.attrs["dtype"]) == ("float32", "bfloat16")
    assert b.dtype == np.float32
    assert full.attrs["fingerprint"] != half.attrs["fingerprint"]


# --- length ----------------------------------------------------------------------------------------------------------


def test_long_texts_are_cut_counted_and_warned_about(bert, tokenizer, corpus):
    with pytest.warns(probes.LayerscopeWarning, match="3 of 6 texts are longer than 7 tokens and are cut there"):
        reps = capture(bert, tokenizer, corpus, max_length=7)
    assert reps.attrs["texts_cut"] == 3
    assert reps.attrs["max_length"] == 7
    assert_close(reps, independent(bert.bert, tokenizer, corpus, limit=7))
    whole = capture(bert, tokenizer, corpus)
    assert (whole.attrs["texts_cut"], whole.attrs["max_length"]) == (0, 32)
    assert np.abs(reps.hidden.values - whole.hidden.values).max() > 0.05


@pytest.mark.parametrize(
    ("architecture", "positions"),
    [("BertModel", 32), ("RobertaModel", 64), ("DistilBertModel", 32), ("GPT2LMHeadModel", 32)],
)
def test_texts_are_cut_at_the_positions_that_a_model_can_use(tiny_models, make_tokenizer, architecture, positions):
    model, tokenizer = tiny_models(architecture), make_tokenizer(limit=None)
    texts = make_corpus(["the " * n for n in (positions - 2, positions - 1, 300)])
    with pytest.warns(probes.LayerscopeWarning, match=f"2 of 3 texts are longer than {positions} tokens"):
        reps = capture(model, tokenizer, texts)
    assert reps.attrs["max_length"] == positions
    np.testing.assert_allclose(reps.hidden[:, 0], reps.hidden[:, 2], atol=1e-5)


def test_a_model_without_positions_takes_texts_of_any_length(tiny_models, make_tokenizer):
    texts = make_corpus(["the " * 300, "cat"])
    model, tokenizer = tiny_models("T5Model"), make_tokenizer(limit=None)
    reps = capture(model, tokenizer, texts)
    assert reps.attrs["max_length"] == -1
    assert_close(reps, independent(model.encoder, tokenizer, texts))


# --- settings and material that cannot be used -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "max"}, "pooling='max' is not known; choose one of 'mean', 'mean_all', 'first', 'last'"),
        ({"dtype": "float16"}, "dtype='float16' is not known; choose one of 'float32', 'bfloat16'"),
        ({"max_length": 0}, "max_length=0: expected 1 to 32"),
        ({"max_length": -3}, "max_length=-3: expected 1 to 32"),
        ({"max_length": 33}, "max_length=33: expected 1 to 32, the most tokens the model and its tokenizer take"),
        ({"max_length": 1}, "1 tokens leave no room for special tokens. Raise max_length"),
        ({"max_length": 2}, r"row 0 \(id '0', language 'en'\) has no tokens of its own within 2 tokens; 6 such in all"),
        ({"batch_size": 0}, "expected batch_size and batch_tokens of at least 1; found 0 and 4096"),
        ({"batch_tokens": 0}, "found 64 and 0"),
        ({"device": "bogus"}, "device='bogus' cannot be used here"),
        ({"device": "cuda:99"}, "device='cuda:99' cannot be used here"),
        ({"modules": ["bert.encoder.layer.7"]}, "no module named 'bert.encoder.layer.7'; it has bert, bert.embeddings"),
        ({"modules": []}, r"no module named \(none given\)"),
    ],
)
def test_bad_settings_are_refused_before_the_model_runs(
    bert, tokenizer, corpus, monkeypatch, tmp_path, options, message
):
    monkeypatch.setattr(bert.bert, "forward", lambda *_, **__: pytest.fail("the model was run"))
    with pytest.raises(probes.InputError, match=message):
        capture(bert, tokenizer, corpus, store=tmp_path / "s.zarr", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_length_that_is_bad_for_any_model_is_refused_without_a_limit(tiny_models, make_tokenizer, corpus):
    with pytest.raises(probes.InputError, match=r"max_length=0: expected at least 1$"):
        capture(tiny_models("T5Model"), make_tokenizer(limit=None), corpus, max_length=0)


def test_a_tokenizer_of_another_model_is_refused(bert, make_tokenizer, corpus):
    with pytest.raises(probes.InputError, match=r"do not fit: 64 tokens, but \d+ embeddings"):
        capture(bert, make_tokenizer(words=[str(i) for i in range(60)]), corpus)


def test_a_text_without_tokens_of_its_own_is_refused_with_its_row(bert, make_tokenizer):
    from tokenizers import normalizers

    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("!", "")
    with pytest.raises(
        probes.InputError, match=r"row 1 \(id '1', language 'en'\) has no tokens of its own.*1 such in all"
    ):
        capture(bert, tokenizer, make_corpus(["the cat", "!!!"]))


def test_a_corpus_that_was_not_checked_is(bert, tokenizer, corpus):
    with pytest.raises(probes.InputError, match=r"expected a datasets\.Dataset, found list"):
        capture(bert, tokenizer, TEXTS)
    with pytest.raises(probes.InputError, match="no column 'language'"):
        capture(bert, tokenizer, corpus.remove_columns("language"))


# --- named modules, and the model afterwards -------------------------------------------------------------------------


def hooks(model):
    return {n: (dict(m._forward_hooks), dict(m._forward_pre_hooks)) for n, m in model.named_modules()}


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


def test_the_model_is_left_as_it_was(bert, tokenizer, corpus):
    bert.train()
    bert.bert.encoder.layer[1].eval()
    capture(bert, tokenizer, corpus)  # transformers puts its own hooks on the layers the first time
    before = hooks(bert), {n: m.training for n, m in bert.named_modules()}, {p.requires_grad for p in bert.parameters()}
    weights = {k: v.clone() for k, v in bert.state_dict().items()}
    first = capture(bert, tokenizer, corpus)
    capture(bert, tokenizer, corpus, modules=["bert.embeddings"])
    again = capture(bert, tokenizer, corpus)
    after = hooks(bert), {n: m.training for n, m in bert.named_modules()}, {p.requires_grad for p in bert.parameters()}
    assert after == before
    assert not bert.bert.encoder.layer[1].training
    assert bert.training
    assert {p.device.type for p in bert.parameters()} == {"cpu"}
    assert all(torch.equal(v, weights[k]) for k, v in bert.state_dict().items())
    assert_close(again, first.hidden.values, 0)


def test_the_training_mode_is_restored_after_an_error(bert, tokenizer, corpus, monkeypatch):
    bert.train()
    monkeypatch.setattr(bert.bert, "forward", broken)
    with pytest.raises(KeyboardInterrupt):
        capture(bert, tokenizer, corpus)
    assert all(m.training for m in bert.modules())


def broken(*_args, **_inputs):
    raise KeyboardInterrupt


def test_dropout_is_off_also_in_a_model_in_training_mode(bert, tokenizer, corpus):
    expected = capture(bert, tokenizer, corpus).hidden.values
    bert.train()
    assert_close(capture(bert, tokenizer, corpus), expected, 0)


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


# --- the store -------------------------------------------------------------------------------------------------------

SCRIPTS = ["the cat ø", "中文 句子", "جملة عربية", "हिन्दी वाक्य", "e\u0301 \u202e right", "𝔘𝔫𝔦 🙂", '<b>"&\\ \t x']


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_store_holds_what_memory_holds(bert, tokenizer, tmp_path):
    corpus = make_corpus(SCRIPTS, label=[f"класс {i % 2}" for i in range(7)], split="тест", text_pair=SCRIPTS[::-1])
    memory = capture(bert, tokenizer, corpus, name="m")
    stored = capture(bert, tokenizer, corpus, name="m", store=tmp_path / "deep" / "s.zarr")
    opened = probes.open_representations(tmp_path / "deep" / "s.zarr")
    for reps in (stored, opened):
        xr.testing.assert_identical(reps.load(), memory)
    assert list(opened.text.values) == SCRIPTS
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["s.zarr"]


def test_a_file_of_a_store_that_gets_lost_is_not_read_as_zeros(bert, tokenizer, corpus, tmp_path):
    store = tmp_path / "s.zarr"
    whole = capture(bert, tokenizer, corpus, store=store, progress=False).load()
    next(p for p in (store / "hidden" / "c" / "1").rglob("*") if p.is_file()).unlink()
    found = probes.open_representations(store).load()
    assert found.hidden.sel(layer=1).isnull().all()
    xr.testing.assert_identical(found.drop_sel(layer=1), whole.drop_sel(layer=1))


def test_no_pickle_lies_in_a_store(bert, tokenizer, corpus, tmp_path):
    capture(bert, tokenizer, corpus, store=tmp_path / "s.zarr", modules=["bert.embeddings"])
    metadata = [v.decode() for k, v in contents(tmp_path / "s.zarr").items() if k.endswith("zarr.json")]
    assert any('"string"' in m for m in metadata)
    assert not any("pickle" in m for m in metadata)
    assert all(not data.startswith(b"\x80") for data in contents(tmp_path / "s.zarr").values())


def test_a_complete_store_is_reused_without_running_the_model(bert, tokenizer, corpus, tmp_path, monkeypatch):
    first = capture(bert, tokenizer, corpus, store=tmp_path / "s.zarr", name="one").load()
    monkeypatch.setattr(bert.bert, "forward", lambda *_, **__: pytest.fail("the model was run"))
    again = capture(bert, tokenizer, corpus, store=str(tmp_path / "s.zarr"), name="two", batch_size=2)
    assert again.attrs["model"] == "two"
    xr.testing.assert_identical(again.load(), first.assign_attrs(model="two"))


def changed_weights(model, tokenizer, corpus):
    with torch.no_grad():
        model.bert.encoder.layer[0].output.dense.weight[0, 0] += 1
    return (model, tokenizer, corpus), {}


def lower_case(model, tokenizer, corpus):
    from tokenizers import normalizers

    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("dog", "cat")
    return (model, tokenizer, corpus), {}


@pytest.mark.parametrize(
    "change",
    [
        changed_weights,
        lower_case,
        lambda m, t, c: ((m, t, c), {"pooling": "first"}),
        lambda m, t, c: ((m, t, c), {"dtype": "bfloat16"}),
        lambda m, t, c: ((m, t, c), {"max_length": 31}),
        lambda m, t, c: ((m, t, c), {"modules": ["bert.encoder.layer.0"]}),
        lambda m, t, c: ((m, t, c.select(range(5))), {}),
        lambda m, t, c: ((m, t, c.select([1, 0, 2, 3, 4, 5])), {}),
    ],
    ids=["weights", "tokenizer", "pooling", "dtype", "max_length", "modules", "fewer rows", "other order"],
)
def test_a_store_of_something_else_is_made_anew_and_said_so(bert, make_tokenizer, corpus, tmp_path, change):
    tokenizer = make_tokenizer()
    capture(bert, tokenizer, corpus, store=tmp_path / "s.zarr")
    arguments, options = change(bert, tokenizer, corpus)
    with pytest.warns(probes.LayerscopeWarning, match=r"s.zarr was captured from another model, corpus or settings"):
        stored = capture(*arguments, store=tmp_path / "s.zarr", **options)
    xr.testing.assert_identical(stored.load(), capture(*arguments, **options))
    assert [p.name for p in tmp_path.iterdir()] == ["s.zarr"]


def a_file(path):
    path.write_text("mine")


def a_folder(path):
    path.mkdir()
    (path / "mine.txt").write_text("mine")


def another_zarr(path):
    zarr.create_group(path).create_array("mine", shape=(2,), dtype="f4")[:] = 1


@pytest.mark.parametrize(
    ("make", "place"),
    [
        (a_file, "s.zarr"),
        (a_folder, "s.zarr"),
        (another_zarr, "s.zarr"),
        (a_file, "s.zarr.partial"),
        (a_folder, "s.zarr.partial"),
    ],
)
def test_what_lies_at_the_path_and_is_no_store_is_left_as_it_was(bert, tokenizer, corpus, tmp_path, make, place):
    make(tmp_path / place)
    before = contents(tmp_path)
    with pytest.raises(
        probes.InputError, match=f"{place} exists and is no store of Representations; it is left as it is"
    ):
        capture(bert, tokenizer, corpus, store=tmp_path / "s.zarr")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("begin", [lambda path: path.mkdir(), zarr.create_group])
def test_a_capture_that_was_interrupted_as_it_made_its_store_is_begun_again(bert, tokenizer, corpus, tmp_path, begin):
    begin(tmp_path / "s.zarr.partial")
    stored = capture(bert, tokenizer, corpus, store=tmp_path / "s.zarr")
    xr.testing.assert_identical(stored.load(), capture(bert, tokenizer, corpus))
    assert [p.name for p in tmp_path.iterdir()] == ["s.zarr"]


@pytest.fixture
def windows(monkeypatch):
    """Twenty rows in windows of four."""
    module = sys.modules["probes.states.capture"]  # the name itself is the function
    monkeypatch.setattr(module, "BLOCK", 4)
    monkeypatch.setattr(module, "_WINDOW", 4)
    return make_corpus([" ".join(LONG.split()[: 1 + i % 7]) + f" w{i}" for i in range(20)])


def count_rows(model, monkeypatch, stop_after=None):
    """Count the rows that a model is run on; raise once it was run on so many."""
    seen, forward = [], model.bert.forward

    def counting(*args, **inputs):
        if stop_after is not None and sum(seen) >= stop_after:
            raise KeyboardInterrupt
        seen.append(len(args[0] if args else inputs["input_ids"]))
        return forward(*args, **inputs)

    monkeypatch.setattr(model.bert, "forward", counting)
    return seen


@pytest.mark.parametrize("stop_after", [0, 1, 5, 9, 17])
def test_an_interrupted_capture_goes_on_where_it_stopped(bert, tokenizer, windows, tmp_path, monkeypatch, stop_after):
    store, partial = tmp_path / "s.zarr", tmp_path / "s.zarr.partial"
    expected = capture(bert, tokenizer, windows, store=tmp_path / "whole" / "s.zarr").load()
    with monkeypatch.context() as patched:
        seen = count_rows(bert, patched, stop_after)
        with pytest.raises(KeyboardInterrupt):
            capture(bert, tokenizer, windows, store=store)
    finished = max(0, sum(seen) - 1) // 4  # before the windows, the longest row is run once by itself
    assert finished == max(0, stop_after - 1) // 4
    assert partial.exists() == (stop_after > 0)
    assert not store.exists()
    for path in (store, partial):
        with pytest.raises(probes.InputError, match=r"expected a zarr store|not complete"):
            probes.open_representations(path)
    seen = count_rows(bert, monkeypatch)
    resumed = capture(bert, tokenizer, windows, store=store)
    assert sum(seen) == 1 + 20 - 4 * finished
    xr.testing.assert_identical(resumed.load(), expected)
    assert not partial.exists()


def test_an_interrupted_capture_of_another_model_is_not_gone_on_with(bert, tokenizer, windows, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        count_rows(bert, patched, 9)
        with pytest.raises(KeyboardInterrupt):
            capture(bert, tokenizer, windows, store=tmp_path / "s.zarr")
    with torch.no_grad():
        bert.bert.embeddings.LayerNorm.bias += 1
    seen = count_rows(bert, monkeypatch)
    reps = capture(bert, tokenizer, windows, store=tmp_path / "s.zarr")
    assert sum(seen) == 21
    assert_close(reps, independent(bert.bert, tokenizer, windows))


def test_a_store_in_many_windows_equals_one_in_memory(bert, tokenizer, windows, tmp_path):
    stored = capture(bert, tokenizer, windows, store=tmp_path / "s.zarr")
    assert zarr.open_group(tmp_path / "s.zarr")["hidden"].chunks == (1, 4, 12)
    memory = capture(bert, tokenizer, windows)
    assert_close(stored, memory.hidden.values)
    for outputs in ("logits", "head_input"):
        np.testing.assert_allclose(stored[outputs], memory[outputs], atol=1e-5)
    arrays = ["hidden", "logits", "head_input"]
    xr.testing.assert_identical(stored.load().drop_vars(arrays), memory.drop_vars(arrays))


# --- a real checkpoint and real text ---------------------------------------------------------------------------------


@pytest.mark.pretrained
@pytest.mark.shared_data
def test_states_of_a_pretrained_model_do_not_depend_on_batch_padding_or_order(pretrained, shared_data):
    model, tokenizer = probes.load_checkpoint(pretrained)
    frame = pd.read_parquet(shared_data / "sib200.test.parquet")
    frame = frame[frame["id"].isin(sorted(frame["id"].unique())[:10])]
    corpus = probes.load_corpus(frame, languages=["eng_Latn", "arb_Arab", "zho_Hans"])
    n = len(corpus)
    assert n == 30
    plain = capture(model, tokenizer, corpus)
    assert_close(plain, independent(model.base_model, tokenizer, corpus), 1e-4)
    assert_close(capture(model, tokenizer, corpus, batch_size=1), plain.hidden.values, 1e-4)
    order = np.random.default_rng(0).permutation(n)
    assert_close(capture(model, tokenizer, corpus.select(order)), plain.hidden.values[:, order], 1e-4)
    long = make_corpus([*corpus["text"], " ".join(corpus["text"][:6])])
    padded = capture(model, tokenizer, long, batch_size=64, batch_tokens=10**6)
    assert_close(padded.hidden.values[:, :n], plain.hidden.values, 1e-4)
    # The control: states that are pooled over padding too are far from these.
    wrong = independent(model.base_model, tokenizer, corpus, "mean_all")
    assert np.abs(wrong - plain.hidden.values).max() > 0.1
