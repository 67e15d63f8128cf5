"""Product quantisation: sub-vectors of few codewords, each the nearest; in training codes stay and codewords move."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from stops import Stops
from trained import EACH_STEP, QUIET, all_but, texts_of_classes
from transformers import TrainerCallback

import probes
from compress import save
from compress.matrices import block_matrices
from compress.objectives.labels import CrossEntropy, SoftLabels
from compress.quantization.codebooks import fit_codebook, product_quantize
from probes.models.fingerprint import weights_fingerprint


def parts_of(weight, block=4, transposed=False):
    """The sub-vectors one by one: of each output, so many inputs after the other."""
    rows = weight.detach().double().numpy()
    rows = rows.T if transposed else rows
    return np.array([row[i : i + block] for row in rows for i in range(0, len(row), block)])


def distinct(weight, **how):
    return len({tuple(part) for part in parts_of(weight, **how)})


def groups(weight, **how):
    """Which sub-vectors are equal: for each the first that is like it."""
    seen = {}
    return [seen.setdefault(tuple(part), i) for i, part in enumerate(parts_of(weight, **how))]


def nearest(vectors, codewords):
    return [min(((v - c) ** 2).sum() for c in codewords) for v in vectors]


# --- the codebook ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [200, 2000])  # of the second a part only is looked at
def test_every_vector_has_its_nearest_codeword(size):
    rng = np.random.default_rng(0)
    vectors = torch.from_numpy(rng.normal(size=(size, 3)))
    codewords, numbers = fit_codebook(vectors, codes=6)
    assert codewords.shape == (6, 3)
    assert set(numbers.tolist()) == set(range(6))
    errors = ((vectors - codewords[numbers]) ** 2).sum(1).numpy()
    np.testing.assert_allclose(errors, nearest(vectors.numpy(), codewords.numpy()), rtol=1e-12)
    assert errors.mean() < 0.5 * vectors.numpy().var(0).sum()
    shuffled = codewords[numbers.roll(1)]
    assert ((vectors - shuffled) ** 2).sum(1).mean() > 2 * errors.mean()


def test_what_is_nearest_is_told_after_rounding():
    vectors = (1 + 0.02 * torch.randn(400, 2, generator=torch.Generator().manual_seed(0))).bfloat16()
    codewords, numbers = fit_codebook(vectors, codes=12)
    assert codewords.dtype == torch.bfloat16
    given, rounded = vectors.double().numpy(), codewords.double().numpy()
    errors = ((given - rounded[numbers]) ** 2).sum(1)
    np.testing.assert_allclose(errors, nearest(given, rounded), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_clear_groups_are_found_and_their_means_are_the_codewords(scale):
    rng = np.random.default_rng(0)
    centres = 100 * rng.permutation(np.array([[i, j] for i in range(4) for j in range(4)], float))[:12]
    group = rng.permutation(np.repeat(np.arange(12), 20))
    vectors = scale * (centres[group] + rng.normal(size=(240, 2)))
    codewords, numbers = fit_codebook(torch.from_numpy(vectors), codes=12)
    for k in range(12):
        assert len(set(numbers[group == k].tolist())) == 1
        found = codewords[numbers[group == k][0]].numpy()
        np.testing.assert_allclose(found, vectors[group == k].mean(0), rtol=1e-9, atol=1e-9 * scale)


def test_of_single_numbers_the_best_cut_is_found():
    values = np.array([0.0, 1.0, 1.5, 9.0, 9.2, 10.0, 30.0, 31.0])
    cuts = [(i, j) for i in range(1, 8) for j in range(i + 1, 8)]
    least = min(sum(((p - p.mean()) ** 2).sum() for p in np.split(values, cut)) for cut in cuts)
    codewords, numbers = fit_codebook(torch.from_numpy(values)[:, None], codes=3)
    assert float(((torch.from_numpy(values) - codewords[numbers, 0]) ** 2).sum()) == pytest.approx(least)


@pytest.mark.parametrize(
    "vectors",
    [
        torch.zeros(9, 2),
        torch.full((9, 2), 3.25),
        torch.tensor([[0.0, 1.0], [-0.0, 1.0]]),
        torch.arange(10.0)[:, None],
        torch.tensor([[1e-30], [1.5e-30]]),
    ],
)
def test_few_distinct_vectors_are_kept_as_they_are(vectors):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        codewords, numbers = fit_codebook(vectors, codes=10)
    assert torch.equal(codewords[numbers], vectors)
    assert len(codewords) == len({tuple(v) for v in vectors.tolist()})


def test_no_warning_where_vectors_are_nearly_equal_and_none_is_left_out():
    generator = torch.Generator().manual_seed(0)
    vectors = 1 + 1e-7 * torch.randn(300, 2, generator=generator)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        codewords, numbers = fit_codebook(vectors, codes=20)
    assert len(codewords) <= 20
    assert len(numbers) == 300
    assert len(codewords.unique(dim=0)) == len(codewords)


# --- a model at once -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["BertForSequenceClassification", "GPT2LMHeadModel", "LlamaModel", "T5Model"])
def test_the_matrices_of_the_blocks_are_quantised_and_nothing_else(tiny_models, architecture):
    model = tiny_models(architecture)
    names = set(block_matrices(model))
    transposed = architecture.startswith("GPT2")
    block = 2 if architecture == "T5Model" else 4
    quantized = product_quantize(model, codes=8, block=block)
    assert type(quantized) is type(model)
    assert quantized.config.compression["quantized"] == sorted(names)
    for name, before, weight in all_but(model, quantized, names):
        now, then = (parts_of(w, block, transposed) for w in (weight, before))
        codewords = np.unique(now, axis=0)
        assert len(codewords) == 8, name
        np.testing.assert_allclose(((now - then) ** 2).sum(1), nearest(then, codewords), rtol=1e-5, atol=1e-12)
        error = quantized.config.compression["mean_squared_error"][name]
        assert error == pytest.approx(np.mean((now - then) ** 2), rel=1e-9)
        assert error > 0
        if weight.shape[0] % block == 0:  # cut the other way they are no codewords
            assert distinct(weight, block=block, transposed=not transposed) > 8


def test_a_matrix_of_sixteen_codewords_needs_sixteen_codes(tiny_models):
    model = tiny_models("BertModel")
    weight = model.encoder.layer[1].intermediate.dense.weight
    codewords = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        weight.copy_(codewords[torch.arange(60) % 16].view(20, 12))
    name = "encoder.layer.1.intermediate.dense.weight"
    enough = product_quantize(model, codes=16, block=4)
    assert torch.equal(enough.get_parameter(name), weight)
    assert enough.config.compression["mean_squared_error"][name] == 0
    few = product_quantize(model, codes=4, block=4)
    assert distinct(few.get_parameter(name)) == 4
    assert few.config.compression["mean_squared_error"][name] > 0.1


def test_the_error_falls_with_codes_and_with_shorter_blocks(tiny_models):
    def error(codes, block):
        return sum(product_quantize(model, codes=codes, block=block).config.compression["mean_squared_error"].values())

    model = tiny_models("BertModel")
    by_codes = [error(codes, 4) for codes in (2, 4, 8, 16, 32, 64)]
    assert by_codes == sorted(by_codes, reverse=True)
    assert by_codes[-2] > by_codes[-1] == 0  # at most 60 sub-vectors
    by_block = [error(4, block) for block in (1, 2, 4)]
    assert by_block[0] < by_block[1] < by_block[2]


@pytest.mark.parametrize(("codes", "bits"), [(8, 3), (5, 3), (2, 1)])
def test_bytes_are_those_of_a_packed_format(tiny_models, codes, bits):
    model = tiny_models("BertModel")
    done = product_quantize(model, codes=codes, block=4).config.compression
    book = codes * 4 * 4  # codewords of four floats
    square, tall = 36 * bits / 8, 60 * bits / 8  # of 36 and 60 sub-vectors
    packed = 3 * (4 * (np.ceil(square) + book) + 2 * (np.ceil(tall) + book))
    weights = 3 * (4 * 12 * 12 + 2 * 12 * 20)
    everything = 4 * sum(p.numel() for p in model.parameters())
    assert done["bytes_of_quantized"] == packed
    assert done["average_bits"] == 8 * packed / weights
    assert done["bytes_of_model"] == everything - 4 * weights + packed


def test_codewords_that_a_matrix_does_not_use_take_no_bytes(tiny_models):
    model = tiny_models("BertModel")
    with torch.no_grad():
        model.encoder.layer[0].output.dense.weight.copy_(torch.arange(5.0).repeat_interleave(4).expand(12, 20))
    done = product_quantize(model, codes=8, block=4, only=r"0\.output\.dense").config.compression
    assert done["bytes_of_quantized"] == 23 + 5 * 4 * 4  # 60 numbers of 3 bits; of eight codes five
    assert done["average_bits"] == 8 * 103 / 240


def test_embeddings_stay_tied_and_are_counted_once(tiny_models):
    model = tiny_models("GPT2LMHeadModel")
    without = product_quantize(model, codes=4, block=4)
    quantized = product_quantize(model, codes=4, block=4, embeddings=True)
    table = quantized.transformer.wte.weight
    assert quantized.lm_head.weight is table
    assert distinct(table) == 4 < distinct(without.transformer.wte.weight)
    names = quantized.config.compression["quantized"]
    assert set(names) - set(without.config.compression["quantized"]) == {"transformer.wte.weight"}
    rows = table.shape[0]
    packed = int(np.ceil(3 * rows * 2 / 8)) + 4 * 4 * 4
    for kind, more in (("quantized", packed), ("model", packed - 4 * 12 * rows)):
        key = f"bytes_of_{kind}"
        assert quantized.config.compression[key] - without.config.compression[key] == more


def test_the_type_of_the_weights_stays_and_codewords_are_counted_in_it(tiny_models):
    model = tiny_models("BertModel").to(torch.bfloat16)
    quantized = product_quantize(model, codes=8, block=4)
    for name, weight in block_matrices(quantized).items():
        assert weight.dtype == torch.bfloat16
        assert distinct(weight) <= 8
        now, then = parts_of(weight), parts_of(model.get_parameter(name))
        codewords = np.unique(now, axis=0)
        np.testing.assert_allclose(((now - then) ** 2).sum(1), nearest(then, codewords), rtol=1e-9, atol=1e-12)
    assert quantized.config.compression["bytes_of_quantized"] <= 3 * (4 * (14 + 64) + 2 * (23 + 64))


def test_the_model_that_was_given_is_not_changed_and_the_result_is_repeatable(tiny_models):
    model = tiny_models("BertForSequenceClassification").train()
    before = weights_fingerprint(model)
    first, again, other = (product_quantize(model, codes=8, block=4, seed=seed) for seed in (0, 0, 1))
    assert weights_fingerprint(model) == before == first.config.compression["parent"]
    assert not hasattr(model.config, "compression")
    assert model.training
    assert not {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in first.parameters()}
    assert weights_fingerprint(first) == weights_fingerprint(again) != weights_fingerprint(other)
    twice = product_quantize(first, codes=8, block=4, seed=1)
    assert weights_fingerprint(twice) == weights_fingerprint(first)


def test_only_some_matrices(tiny_models):
    model = tiny_models("BertModel")
    name = "encoder.layer.1.attention.self.query.weight"
    quantized = product_quantize(model, codes=8, block=4, only=r"layer\.1\..*query")
    assert quantized.config.compression["quantized"] == [name]
    assert [n for n, p in quantized.named_parameters() if not torch.equal(p, model.get_parameter(n))] == [name]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"codes": 1}, "codes=1: expected a whole number from 2 to 65536"),
        ({"codes": 65537}, "codes=65537: expected a whole number from 2 to 65536"),
        ({"codes": 8.0}, "codes=8.0: expected a whole number from 2 to 65536"),
        ({"block": 0}, "block=0: expected a whole number of at least 1"),
        (
            {"block": 8},
            r"block=8 does not divide the 12 inputs of encoder\.layer\.0\.attention\.self\.query\.weight\. Give one "
            r"that does, as 4, or",
        ),
        ({"block": 6}, r"block=6 does not divide the 20 inputs of encoder\.layer\.0\.output\.dense\.weight"),
        ({"only": "none"}, "only='none' finds none of the matrices; they are encoder.layer.0"),
        ({"steps": 4}, "training needs text: give train=..., a corpus, and tokenizer=..."),
        ({"steps": -1}, "steps=-1: expected a whole number, 0 for no training"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tiny_models, options, message):
    with pytest.raises(probes.InputError, match=message):
        product_quantize(tiny_models("BertModel"), **{"codes": 8, "block": 4} | options)


def test_the_width_that_counts_is_that_of_the_inputs(tiny_models):
    model = tiny_models("GPT2LMHeadModel", n_embd=12, n_inner=18)
    with pytest.raises(
        probes.InputError, match=r"block=4 does not divide the 18 inputs of .*h\.0\.mlp\.c_proj\.weight"
    ):
        product_quantize(model, codes=8, block=4)
    assert product_quantize(model, codes=8, block=6).config.compression["block"] == 6


def test_models_that_cannot_be_quantised_are_refused(tiny_models):
    with pytest.raises(probes.InputError, match="expected a model of transformers, found Linear"):
        product_quantize(torch.nn.Linear(8, 8))
    with pytest.raises(probes.InputError, match="BertModel has no weight matrices inside repeated blocks"):
        product_quantize(tiny_models("BertModel", num_hidden_layers=0))
    model = tiny_models("BertModel")
    with torch.no_grad():
        model.encoder.layer[2].output.dense.weight[0, :3] = torch.tensor([np.nan, np.inf, 1.0])
    with pytest.raises(
        probes.InputError, match=r"layer\.2\.output\.dense\.weight: 2 of its 240 weights are not finite"
    ):
        product_quantize(model, codes=8, block=4)


# --- layer by layer in training --------------------------------------------------------------------------------------


@pytest.fixture
def corpus():
    return probes.load_corpus(texts_of_classes(32, lambda _: 3))


SMALL = {"codes": 8, "block": 4}
LAYERS = [f"bert.encoder.layer.{i}." for i in range(3)]


class Watch:
    """Notes all weights, each time it is called."""

    def __init__(self):
        self.seen = []

    def __call__(self, model):
        self.seen.append({n: p.detach().clone() for n, p in model.named_parameters()})
        return {"number": float(len(self.seen))}


def test_layers_are_quantised_from_the_bottom_and_codes_stay(classifier, make_tokenizer, corpus):
    before = weights_fingerprint(classifier)
    watch = Watch()
    quantized = product_quantize(
        classifier,
        train=corpus,
        tokenizer=make_tokenizer(),
        evaluate=watch,
        **EACH_STEP,
        **SMALL,
        **QUIET,
    )
    assert weights_fingerprint(classifier) == before
    assert quantized.history.attrs["quantized_at"] == [3, 6, 9]
    # Twice a step: before and after what is done at it.
    for i, weights in enumerate(watch.seen):
        step, after = 1 + i // 2, i % 2
        for layer, at in zip(LAYERS, (3, 6, 9), strict=True):
            for name in (n for n in block_matrices(classifier) if n.startswith(layer)):
                if step < at or (step == at and not after):
                    assert distinct(weights[name]) == weights[name].numel() // 4, (name, step)
                else:
                    assert distinct(weights[name]) == 8, (name, step)
                    assert groups(weights[name]) == groups(watch.seen[2 * at - 1][name]), (name, step)
    for name in block_matrices(classifier):
        at = (3, 6, 9)[int(name.split(".")[3])]
        just, then = watch.seen[2 * at - 2][name], watch.seen[2 * at - 1][name]
        np.testing.assert_allclose(  # of the weights as they were just then, the nearest codewords
            ((parts_of(just) - parts_of(then)) ** 2).sum(1),
            nearest(parts_of(just), parts_of(then)),
            rtol=1e-5,
            atol=1e-9,
        )
        assert not torch.equal(quantized.get_parameter(name), then)  # codewords are trained
        now = quantized.get_parameter(name).detach().double().numpy()
        error = np.mean((now - classifier.get_parameter(name).detach().double().numpy()) ** 2)
        assert quantized.config.compression["mean_squared_error"][name] == pytest.approx(error, rel=1e-9)
    assert not torch.equal(quantized.classifier.weight, classifier.classifier.weight)
    assert quantized.config.compression["bytes_of_quantized"] == 3 * (4 * (14 + 128) + 2 * (23 + 128))


class Spy(TrainerCallback):
    """Follows one step: the gradients as they come, and what the optimiser makes of them."""

    def __init__(self, at):
        self.at = at

    def on_train_begin(self, args, state, control, model=None, **_):
        self.raw = {}
        for name, p in model.named_parameters():
            p.register_post_accumulate_grad_hook(lambda p, name=name: self.raw.update({name: p.grad.clone()}))

    def on_pre_optimizer_step(self, args, state, control, model=None, optimizer=None, **_):
        if state.global_step + 1 == self.at:
            named = dict(model.named_parameters())
            self.used = {n: p.grad.clone() for n, p in named.items()}
            self.weights = {n: p.detach().clone() for n, p in named.items()}
            self.state = {
                n: {k: torch.as_tensor(v).clone() for k, v in optimizer.state[p].items()} for n, p in named.items()
            }
            self.group = {k: v for k, v in optimizer.param_groups[0].items() if k != "params"}
            self.came = dict(self.raw)

    def on_step_end(self, args, state, control, model=None, **_):
        if state.global_step == self.at:
            self.after = {n: p.detach().clone() for n, p in model.named_parameters()}


@pytest.mark.parametrize("architecture", ["BertForSequenceClassification", "GPT2ForSequenceClassification"])
def test_a_codeword_moves_by_the_mean_of_the_gradients_of_its_sub_vectors(
    tiny_models, make_tokenizer, corpus, architecture
):
    model = tiny_models(architecture)
    model.config.id2label = {0: "x", 1: "y", 2: "z"}
    transposed = architecture.startswith("GPT2")
    spy = Spy(at=3)  # the step after the lowest layer was quantised
    product_quantize(
        model, train=corpus, tokenizer=make_tokenizer(), steps=8, callbacks=[spy], **SMALL, **QUIET | {"batch_size": 32}
    )
    clipped = float(spy.used["score.weight" if transposed else "classifier.weight"].norm()) / float(
        spy.came["score.weight" if transposed else "classifier.weight"].norm()
    )
    lowest = [n for n in block_matrices(model) if ".0." in n]
    assert len(lowest) == (4 if transposed else 6)
    lr, (b1, b2), eps = spy.group["lr"], spy.group["betas"], spy.group["eps"]
    assert spy.group["weight_decay"] == 0
    for name in lowest:
        like = groups(spy.weights[name], transposed=transposed)
        members = {first: [i for i, g in enumerate(like) if g == first] for first in set(like)}
        assert len(members) == 8

        def cut(values):
            return parts_of(values, transposed=transposed)

        raw, used, codewords, after = (cut(v[name]) for v in (spy.came, spy.used, spy.weights, spy.after))
        first, second = (cut(spy.state[name][k]) for k in ("exp_avg", "exp_avg_sq"))
        t = float(spy.state[name]["step"]) + 1
        assert t == 3
        for those in members.values():
            mean = clipped * sum(raw[i] for i in those) / len(those)
            # By hand, one codeword as a parameter of its own.
            m = b1 * first[those[0]] + (1 - b1) * mean
            v = b2 * second[those[0]] + (1 - b2) * mean**2
            expected = codewords[those[0]] - lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
            for i in those:
                np.testing.assert_allclose(used[i], mean, rtol=1e-4, atol=1e-8)
                np.testing.assert_array_equal(first[i], first[those[0]])
                np.testing.assert_array_equal(second[i], second[those[0]])
                np.testing.assert_array_equal(after[i], after[those[0]])
                np.testing.assert_allclose(after[i], expected, rtol=0, atol=2e-3 * lr)
    for name in set(spy.used) - set(lowest):  # what is not quantised has its own gradients
        np.testing.assert_allclose(spy.used[name], clipped * spy.came[name], rtol=1e-4, atol=1e-8)
    assert (
        max(
            np.ptp(cut(spy.came[n])[np.array(groups(spy.weights[n], transposed=transposed)) == 0], 0).max()
            for n in lowest
        )
        > 0
    )


def test_an_interrupted_quantisation_ends_as_it_would_have(classifier, make_tokenizer, corpus, tmp_path, monkeypatch):
    options = {
        "train": corpus,
        "tokenizer": make_tokenizer(),
        "steps": 15,
        "save_every": 4,
        "objective": [CrossEntropy(), SoftLabels(weight=0.5)],
        "embeddings": True,
        **SMALL,
        **QUIET,
    }
    room = []
    monkeypatch.setattr("compress.training.trainer.check_room", lambda *given: room.append(given[-1]))
    whole = product_quantize(classifier, folder=tmp_path / "whole", **options)
    codes = load_file(tmp_path / "whole" / "checkpoint-12" / "codes.safetensors")
    assert room == [sum(v.numel() * v.element_size() for v in codes.values())]

    # Three of the four layers (at 3, 6, 9, 12) are quantised when it is interrupted, two when it was saved last.
    with pytest.raises(KeyboardInterrupt):
        product_quantize(classifier, folder=tmp_path / "run", callbacks=[Stops(11)], **options)
    files = sorted((tmp_path / "run").glob("checkpoint-*/codes.safetensors"))
    assert [f.parent.name for f in files] == ["checkpoint-4", "checkpoint-8"]
    again = product_quantize(classifier, folder=tmp_path / "run", **options)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in whole.state_dict().items())
    pd.testing.assert_frame_equal(again.history, whole.history)
    assert again.config.compression == whole.config.compression
    assert whole.config.compression["objective"] == ["cross_entropy", "soft_labels"]
    for name in whole.config.compression["quantized"]:
        assert distinct(again.get_parameter(name)) == 8


class Change(TrainerCallback):
    """Does to the lowest layer what no quantisation would."""

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        generator = torch.Generator().manual_seed(state.global_step)
        for name, weight in block_matrices(model).items():
            if name.startswith(LAYERS[0]):
                weight.grad += torch.randn(weight.shape, generator=generator)

    def on_step_end(self, args, state, control, model=None, **_):
        if state.global_step == 6:
            for name, weight in block_matrices(model).items():
                if name.startswith(LAYERS[0]):
                    weight.detach().fill_(0.1)


def test_codes_outlast_equal_codewords_and_whatever_else_moves_the_weights(
    classifier, make_tokenizer, corpus, tmp_path
):
    options = {"train": corpus, "tokenizer": make_tokenizer(), "steps": 9, "save_every": 6, **SMALL, **QUIET}
    whole = product_quantize(classifier, folder=tmp_path / "whole", callbacks=[Change()], **options)
    for name, weight in block_matrices(whole).items():
        assert distinct(weight) == 8, name
    with pytest.raises(KeyboardInterrupt):
        product_quantize(classifier, folder=tmp_path / "run", callbacks=[Change(), Stops(7)], **options)
    again = product_quantize(classifier, folder=tmp_path / "run", callbacks=[Change()], **options)
    assert weights_fingerprint(again) == weights_fingerprint(whole)


@pytest.mark.parametrize("changed", [{"codes": 4}, {"block": 2}])
def test_a_checkpoint_of_other_settings_is_refused(classifier, make_tokenizer, corpus, tmp_path, changed):
    options = {"train": corpus, "tokenizer": make_tokenizer(), "steps": 6, "save_every": 3, "folder": tmp_path, **QUIET}
    product_quantize(classifier, **SMALL, **options)
    with pytest.raises(probes.InputError, match=r"holds checkpoints of another training: (codes|block) is"):
        product_quantize(classifier, **SMALL | changed, **options)


def test_a_quantised_model_stays_so_when_saved_and_loaded_with_what_was_logged(
    classifier, make_tokenizer, corpus, tmp_path
):
    tokenizer = make_tokenizer()
    quantized = product_quantize(classifier, train=corpus, tokenizer=tokenizer, steps=4, **SMALL, **QUIET)
    folder = save(quantized, tmp_path / "out", tokenizer)
    loaded, _ = probes.load_checkpoint(folder)
    assert all(torch.equal(v, loaded.state_dict()[k]) for k, v in quantized.state_dict().items())
    assert {distinct(w) for w in block_matrices(loaded).values()} == {8}
    assert loaded.config.compression == quantized.config.compression
    np.testing.assert_allclose(pd.read_csv(folder / "history.csv")["loss"], quantized.history["loss"])


def test_training_that_does_not_fit_is_refused(classifier, make_tokenizer, corpus):
    text = {"train": corpus, "tokenizer": make_tokenizer()}
    with pytest.raises(
        probes.InputError, match="steps=3: expected more than 3, the layers that are quantised one after"
    ):
        product_quantize(classifier, steps=3, **text, **SMALL)
    with pytest.raises(probes.InputError, match="steps=4: expected more than 4"):
        product_quantize(classifier, steps=4, embeddings=True, **text, **SMALL)
    with pytest.raises(probes.InputError, match=r"train=... is given, and steps=0 trains nothing: give steps="):
        product_quantize(classifier, **text, **SMALL)
    with pytest.raises(probes.InputError, match=r"training needs text: give train=..., a corpus, and tokenizer="):
        product_quantize(classifier, train=corpus, steps=5, **SMALL)
