"""Pruning: exactly the smallest weights of exactly the matrices of the blocks become zero."""

import copy
from contextlib import nullcontext
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from stops import Stops
from trained import EACH_STEP, QUIET, all_but, texts_of_classes

import probes
from compress import prune, quantize, save
from compress.matrices import block_matrices
from compress.objectives.labels import CrossEntropy, SoftLabels
from probes.models.fingerprint import weights_fingerprint

# Per block: query, key, value, output and two of feed-forward; GPT2 has the first three in one; Llama has a gate.
MATRICES = {
    "BertForSequenceClassification": ("bert.encoder.layer.", 6),
    "BertModel": ("encoder.layer.", 6),
    "DistilBertModel": ("transformer.layer.", 6),
    "RobertaModel": ("encoder.layer.", 6),
    "GPT2LMHeadModel": ("transformer.h.", 4),
    "LlamaModel": ("layers.", 7),
    "LlamaForCausalLM": ("model.layers.", 7),
}


@pytest.mark.parametrize("architecture", MATRICES)
def test_the_matrices_of_the_blocks_are_pruned_and_nothing_else(tiny_models, architecture):
    model = tiny_models(architecture)
    prefix, per_block = MATRICES[architecture]
    expected = {k for k, v in model.state_dict().items() if k.startswith(prefix) and v.ndim == 2}
    assert len(expected) == 3 * per_block
    pruned = prune(model, sparsity=0.6)
    assert type(pruned) is type(model)
    assert pruned.config.compression["pruned"] == sorted(expected)
    for name, before, weight in all_but(model, pruned, expected):
        zero, size = weight == 0, weight.numel()
        assert int(zero.sum()) == round(0.6 * size), name
        assert torch.equal(weight[~zero], before[~zero]), name
        assert before[zero].abs().max() <= before[~zero].abs().min(), name


def test_an_encoder_decoder_is_pruned_in_both_halves(tiny_models):
    names = prune(tiny_models("T5ForConditionalGeneration"), sparsity=0.5).config.compression["pruned"]
    assert len(names) == 3 * 6 + 3 * 10
    assert not any("lm_head" in n or "relative" in n or "shared" in n for n in names)


@pytest.mark.parametrize("sparsity", [0, 0.001, 0.1, 1 / 3, 0.5, 0.7, 0.9, 0.999])
def test_the_count_of_zeros_is_exact_for_every_sparsity(tiny_models, sparsity):
    model = tiny_models("BertModel", intermediate_size=25)
    pruned = prune(model, sparsity=sparsity)
    done = pruned.config.compression
    matrices = [pruned.get_parameter(name) for name in done["pruned"]]
    zeros = [int((w == 0).sum()) for w in matrices]
    assert zeros == [round(sparsity * w.numel()) for w in matrices]
    assert done["sparsity_of_pruned"] == sum(zeros) / sum(w.numel() for w in matrices)
    assert done["sparsity_of_model"] == sum(zeros) / sum(p.numel() for p in pruned.parameters())
    assert done["sparsity"] == sparsity


@pytest.mark.parametrize(
    ("sparsity", "size", "zeros"), [(0.7, 25, 18), (0.1, 12, 1), (0.5, 5, 2), (0.02, 25, 0), (0.22, 25, 6)]
)
def test_half_an_entry_is_rounded_as_python_rounds_it(tiny_models, sparsity, size, zeros):
    model = tiny_models("BertModel")
    model.encoder.layer[0].attention.output.dense.weight = torch.nn.Parameter(torch.arange(1.0, size + 1).view(1, -1))
    weight = prune(model, sparsity=sparsity).encoder.layer[0].attention.output.dense.weight
    assert int((weight == 0).sum()) == zeros == round(sparsity * size)


def test_equal_weights_do_not_change_the_count_and_the_first_are_kept(tiny_models):
    model = tiny_models("BertModel")
    weight = model.encoder.layer[1].attention.self.query.weight
    with torch.no_grad():
        weight.fill_(0.5)
        weight[::2] = -0.5
    pruned = prune(model, sparsity=0.75).encoder.layer[1].attention.self.query.weight
    assert torch.equal((pruned != 0).flatten(), torch.arange(144) < 36)


def test_the_model_that_was_given_is_not_changed(tiny_models):
    model = tiny_models("BertForSequenceClassification").train()
    before, weights = weights_fingerprint(model), {k: v.clone() for k, v in model.state_dict().items()}
    pruned = prune(model, sparsity=0.9)
    assert weights_fingerprint(model) == before == pruned.config.compression["parent"]
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())
    assert not hasattr(model.config, "compression")
    assert model.training
    shared = {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in pruned.parameters()}
    assert shared == set()


def test_sparsity_zero_is_the_identity(tiny_models):
    model = tiny_models("BertModel")
    assert weights_fingerprint(prune(model, sparsity=0)) == weights_fingerprint(model)
    assert weights_fingerprint(prune(model, sparsity=0.1)) != weights_fingerprint(model)


def test_pruning_is_repeatable_and_pruning_again_prunes_no_more(tiny_models):
    once = prune(tiny_models("BertModel"), sparsity=0.5)
    assert weights_fingerprint(prune(tiny_models("BertModel"), sparsity=0.5)) == weights_fingerprint(once)
    assert weights_fingerprint(prune(once, sparsity=0.5)) == weights_fingerprint(once)


@pytest.mark.parametrize("sparsity", [-0.1, 1, 1.5, 60, float("nan"), float("inf")])
def test_a_sparsity_out_of_range_is_refused(tiny_models, sparsity):
    with pytest.raises(probes.InputError, match=f"sparsity={sparsity}: expected at least 0 and below 1"):
        prune(tiny_models("BertModel"), sparsity=sparsity)


def test_what_is_no_model_of_transformers_or_has_no_blocks_is_refused(tiny_models):
    with pytest.raises(probes.InputError, match="expected a model of transformers, found Linear"):
        prune(torch.nn.Linear(2, 2), sparsity=0.5)
    with pytest.raises(probes.InputError, match="BertModel has no weight matrices inside repeated blocks"):
        prune(tiny_models("BertModel", num_hidden_layers=0), sparsity=0.5)


def test_a_pruned_model_gives_other_states_and_the_more_so_the_sparser(tiny_models, make_tokenizer):
    import pandas as pd

    corpus = probes.load_corpus(pd.DataFrame({"id": [0, 1], "language": "en", "text": ["the cat sat", "a big dog"]}))
    model = tiny_models("BertModel")
    states = [
        probes.capture(m, make_tokenizer(), corpus, progress=False).hidden.values
        for m in (model, prune(model, sparsity=0.2), prune(model, sparsity=0.9))
    ]
    assert np.array_equal(states[1][0], states[0][0])  # the embeddings
    little, much = (np.linalg.norm(s[1:] - states[0][1:]) for s in states[1:])
    assert 0 < little < much


# --- while the rest is trained ---------------------------------------------------------------------------------------


@pytest.fixture
def corpus():
    return probes.load_corpus(texts_of_classes(32, lambda _: 3))


class Watch:
    """Notes the zeros of every matrix after every update."""

    def __init__(self):
        self.zeros = []

    def __call__(self, model):
        self.zeros.append({n: w.detach() == 0 for n, w in block_matrices(model).items()})
        return {"zeros": float(sum(z.sum() for z in self.zeros[-1].values()))}


@pytest.mark.parametrize(
    "criterion", ["random", "magnitude", "gradient", "fisher", "lamp", "lookahead", "movement", "wanda"]
)
def test_trained_to_exactly_the_sparsity_that_was_asked_for(classifier, make_tokenizer, corpus, criterion):
    before = {k: v.clone() for k, v in classifier.state_dict().items()}
    watch = Watch()
    pruned = prune(
        classifier,
        sparsity=0.7,
        criterion=criterion,
        schedule="cubic",
        prunings=3,
        train=corpus,
        tokenizer=make_tokenizer(),
        evaluate=watch,
        **EACH_STEP,
        **QUIET,
    )
    matrices = {n: pruned.get_parameter(n) for n in pruned.config.compression["pruned"]}
    zeros = {n: int((w == 0).sum()) for n, w in matrices.items()}
    total = sum(w.numel() for w in matrices.values())
    if criterion in ("fisher", "lamp"):
        assert sum(zeros.values()) == round(0.7 * total)
    else:
        assert zeros == {n: round(0.7 * w.numel()) for n, w in matrices.items()}
    for earlier, later in pairwise(watch.zeros):
        assert all(bool((earlier[n] <= later[n]).all()) for n in matrices)  # masks only grow
    shares = pruned.history.dropna(subset="when").query("when == 'after'")["zeros"].to_numpy() / total
    steps = [0.7 * (1 - (1 - k / 3) ** 3) for k in range(4)]
    np.testing.assert_allclose(shares, np.repeat(steps, [2, 3, 3, 4]), atol=0.01)
    assert all(torch.equal(v, before[k]) for k, v in classifier.state_dict().items())
    assert not torch.equal(pruned.classifier.weight, before["classifier.weight"])


@pytest.mark.parametrize("criterion", ["magnitude", "movement"])
def test_an_interrupted_pruning_ends_as_it_would_have(
    classifier, make_tokenizer, corpus, criterion, tmp_path, monkeypatch
):
    room = []
    monkeypatch.setattr("compress.training.trainer.check_room", lambda *given: room.append(given[-1]))
    options = {
        "sparsity": 0.8,
        "criterion": criterion,
        "schedule": "uniform",
        "prunings": 4,
        "train": corpus,
        "tokenizer": make_tokenizer(),
        "steps": 15,
        "save_every": 5,
        "objective": [CrossEntropy(), SoftLabels(weight=0.5)],
        **QUIET,
    }
    whole = prune(classifier, folder=tmp_path / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        prune(classifier, folder=tmp_path / "run", callbacks=[Stops(11)], **options)
    assert (tmp_path / "run" / "checkpoint-10").is_dir()
    kept = tmp_path / "run" / "checkpoint-10" / "movement.safetensors"
    gathered = sum(v.numel() * v.element_size() for v in load_file(kept).values()) if criterion == "movement" else 0
    assert room[-1] == gathered
    again = prune(classifier, folder=tmp_path / "run", **options)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in whole.state_dict().items())
    pd.testing.assert_frame_equal(again.history, whole.history)


def test_a_pruned_model_stays_so_when_saved_and_loaded_with_what_was_logged(
    classifier, make_tokenizer, corpus, tmp_path
):
    tokenizer = make_tokenizer()
    pruned = prune(classifier, sparsity=0.6, train=corpus, tokenizer=tokenizer, steps=3, **QUIET)
    folder = save(pruned, tmp_path / "out", tokenizer)
    loaded, _ = probes.load_checkpoint(folder)
    assert all(torch.equal(v, loaded.state_dict()[k]) for k, v in pruned.state_dict().items())
    assert loaded.config.compression["sparsity_of_pruned"] == pytest.approx(0.6, abs=2e-3)
    history = pd.read_csv(folder / "history.csv")
    np.testing.assert_allclose(history["loss"], pruned.history["loss"])


def test_only_some_matrices(classifier):
    pruned = prune(classifier, sparsity=0.5, only=r"layer\.1\..*query")
    assert pruned.config.compression["pruned"] == ["bert.encoder.layer.1.attention.self.query.weight"]
    with pytest.raises(
        probes.InputError, match=r"only='none' finds none of the matrices; they are bert.encoder.layer.0"
    ):
        prune(classifier, sparsity=0.5, only="none")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"criterion": "size"}, "criterion='size' is not known"),
        ({"scope": "row"}, "scope='row' is not known"),
        ({"schedule": "linear"}, "schedule='linear' is not known; choose one of 'one_shot', 'uniform', 'cubic'"),
        ({"schedule": "cubic"}, "schedule='cubic' prunes while it trains: give train=... and steps=..."),
        ({"criterion": "movement"}, "criterion='movement' is gathered in training"),
        ({"criterion": "wanda"}, "criterion='wanda' needs text: give train=..., a corpus, and tokenizer=..."),
        ({"steps": 4}, "training needs text: give train=..., a corpus, and tokenizer=..."),
        ({"steps": -1}, "steps=-1: expected a whole number, 0 for no training"),
    ],
)
def test_settings_that_do_not_fit_are_refused(classifier, options, message):
    with pytest.raises(probes.InputError, match=message):
        prune(classifier, sparsity=0.5, **options)


def test_more_prunings_than_steps_are_refused(classifier, make_tokenizer, corpus):
    with pytest.raises(probes.InputError, match="prunings=10: expected a whole number of at least 1 and at most 4"):
        prune(classifier, sparsity=0.5, schedule="cubic", train=corpus, tokenizer=make_tokenizer(), steps=5)
    options = {"train": corpus, "tokenizer": make_tokenizer(), "steps": 5, "prune_until": 1.2}
    with pytest.raises(probes.InputError, match=r"prune_until=1.2: expected a share of the training"):
        prune(classifier, sparsity=0.5, schedule="cubic", **options)


def test_one_shot_prunes_before_it_trains(classifier, make_tokenizer, corpus):
    watch = Watch()
    once = prune(classifier, sparsity=0.6)
    trained = prune(
        classifier,
        sparsity=0.6,
        train=corpus,
        tokenizer=make_tokenizer(),
        steps=3,
        evaluate=watch,
        evaluate_at=[1, 3],
        **QUIET,
    )
    for name, weight in block_matrices(once).items():
        assert all(torch.equal(zeros[name], weight == 0) for zeros in watch.zeros)
        assert not torch.equal(trained.get_parameter(name), weight)


def test_what_was_gone_before_stays_gone_and_counts(classifier, make_tokenizer, corpus):
    first = prune(classifier, sparsity=0.5, criterion="random", seed=1)
    second = prune(
        first, sparsity=0.8, schedule="uniform", prunings=3, train=corpus, tokenizer=make_tokenizer(), steps=8, **QUIET
    )
    for name, weight in block_matrices(first).items():
        after = second.get_parameter(name)
        assert bool((after[weight == 0] == 0).all())
        assert int((after == 0).sum()) == round(0.8 * weight.numel())
    assert all(torch.equal(w, first.state_dict()[k]) for k, w in prune(first, sparsity=0.5).state_dict().items())
    with pytest.raises(probes.InputError, match=r"sparsity=0.3: 50.0% of these weights are zero already. Ask for"):
        prune(first, sparsity=0.3)


@pytest.mark.parametrize("scope", ["matrix", "unit", "global"])
def test_a_matrix_with_more_zeros_than_asked_for_stays_as_it_is_and_is_named(classifier, scope):
    full = copy.deepcopy(classifier)
    name, *others = block_matrices(full)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for one, share in ((name, 0.56), *((other, 0.12) for other in others)):
            weight = full.get_parameter(one)
            weight.mul_(torch.rand(weight.shape, generator=generator) >= share)
    expected = pytest.warns(probes.LayerscopeWarning, match=rf"1 of \d+ matrices stay .* 50.0% .*{name} \(5\d\.\d%\)")
    with nullcontext() if scope == "global" else expected:
        pruned = prune(full, sparsity=0.5, scope=scope)
    if scope != "global":
        assert torch.equal(pruned.get_parameter(name), full.get_parameter(name))
        assert all(
            int((w == 0).sum()) == round(0.5 * w.numel()) for n, w in block_matrices(pruned).items() if n != name
        )
    else:
        zeros = sum(int((w == 0).sum()) for w in block_matrices(pruned).values())
        assert zeros == round(0.5 * sum(w.numel() for w in block_matrices(pruned).values()))


def test_checkpoints_of_another_training_are_refused_and_a_finished_one_is_not_trained_further(
    classifier, make_tokenizer, corpus, tmp_path
):
    options = {
        "schedule": "uniform",
        "prunings": 2,
        "train": corpus,
        "tokenizer": make_tokenizer(),
        "steps": 6,
        "save_every": 2,
        "folder": tmp_path / "run",
        **QUIET,
    }
    first = prune(classifier, sparsity=0.5, **options)
    again = prune(classifier, sparsity=0.5, **options)
    assert len(again.history) == len(first.history) == 6
    assert all(torch.equal(w, again.state_dict()[k]) for k, w in first.state_dict().items())
    for changed, message in (
        ({"sparsity": 0.8}, "sparsity is 0.8 here and was 0.5 there"),
        ({"criterion": "random"}, "criterion is 'random' here and was 'magnitude' there"),
        ({"seed": 7}, "seed is 7 here and was 0 there"),
        ({"learning_rate": 1e-4}, "learning_rate is 0.0001 here"),
    ):
        with pytest.raises(probes.InputError, match="holds checkpoints of another training: " + message):
            prune(classifier, **({"sparsity": 0.5} | options | changed))
    with torch.no_grad():
        classifier.classifier.bias.add_(1)
    with pytest.raises(probes.InputError, match="another training: student is"):
        prune(classifier, sparsity=0.5, **options)


def test_settings_that_do_nothing_are_refused(classifier, make_tokenizer, corpus):
    given = {"train": corpus, "tokenizer": make_tokenizer()}
    for options, message in (
        ({"criteron": "lamp"}, r"criteron='lamp': no such setting"),
        (
            {"learning_rat": 1.0, "steps": 2, **given},
            r"learning_rat=1.0: no such setting. Did you mean learning_rate\?",
        ),
        ({"batch_size": 4}, "batch_size=4 is of a training, and steps=0 trains nothing: give steps="),
        (given, r"train=... is given, and steps=0 trains nothing"),
        ({"steps": 2}, "training needs text: give train="),
        ({"steps": 2, "accumulate": 0, **given}, "accumulate=0: expected a whole number of at least 1"),
        ({"steps": 2, "seed": -1, **given}, "seed=-1: expected a whole number of at least 0"),
        ({"only": "["}, r"only='\[' is no regular expression"),
    ):
        with pytest.raises(probes.InputError, match=message):
            prune(classifier, sparsity=0.5, **options)


def test_exact_where_units_have_unequal_numbers_left(classifier):
    matrix = "bert.encoder.layer.0.intermediate.dense.weight"
    with torch.no_grad():
        classifier.get_parameter(matrix)[:5] = 0  # a quarter of the units have none left
    pruned = prune(classifier, sparsity=0.55, criterion="magnitude", scope="unit")
    for name in pruned.config.compression["pruned"]:
        weight = pruned.get_parameter(name)
        assert int((weight == 0).sum()) == round(0.55 * weight.numel())
    left = (pruned.get_parameter(matrix) != 0).sum(1)
    assert left[:5].tolist() == [0] * 5
    assert left[5:].max() - left[5:].min() <= 1


def test_what_was_done_before_is_kept(classifier):
    twice = quantize(prune(classifier, sparsity=0.5), bits=8)
    done = twice.config.compression
    assert (done["method"], done["before"]["method"], done["before"]["sparsity"]) == ("quantize", "prune", 0.5)
