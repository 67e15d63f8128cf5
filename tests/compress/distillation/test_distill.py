"""Distillation: students are parts of their teacher at first, then trained; layers are matched by similarity."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from stops import Stops

import compress
import probes
from compress.distillation.distill import distill
from compress.distillation.kept_layers import runs_of
from compress.distillation.match_layers import in_order, match_layers
from compress.objectives.labels import CrossEntropy, SoftLabels
from compress.objectives.layers import HiddenStates
from probes.models.fingerprint import weights_fingerprint
from probes.models.formats.sparse_embeddings import apply_sparse_head
from probes.models.parts import FAMILIES

KINDS = {
    "bert": "BertForSequenceClassification",
    "roberta": "RobertaForSequenceClassification",
    "xlm-roberta": "XLMRobertaForSequenceClassification",
    "camembert": "CamembertForSequenceClassification",
    "distilbert": "DistilBertForSequenceClassification",
}
QUIET = {"progress": False, "batch_size": 8, "learning_rate": 1e-3}
WORDS = {"x": "red dog ran on mat", "y": "small bird sang under tree", "z": "big cat sat over house"}


def build(family="bert", layers=3, kind=None, seed=0, **changes):
    """A tiny random model: 4 heads of 3 features in a width of 12, and 20 channels."""
    kind = getattr(transformers, kind or KINDS[family])
    sizes = {"hidden_size": 12, "num_attention_heads": 4, "num_hidden_layers": layers, "intermediate_size": 20}
    if family == "distilbert":
        sizes = {"dim": 12, "n_heads": 4, "n_layers": layers, "hidden_dim": 20}
    sizes |= {"vocab_size": 27, "max_position_embeddings": 40, "id2label": dict(enumerate("xyz"))}
    if family in ("roberta", "xlm-roberta", "camembert"):
        sizes |= {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    torch.manual_seed(seed)
    model = kind(kind.config_class(**(sizes | changes))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def tokenizer(make_tokenizer):
    return make_tokenizer()


@pytest.fixture(scope="module")
def corpus():
    rng = np.random.default_rng(0)
    rows = []
    for i in range(48):
        label = "xyz"[i % 3]
        text = " ".join(rng.permutation(WORDS[label].split())[: 2 + i % 4])
        rows.append({"id": i, "language": "en", "text": text, "label": label, "split": "dev" if i < 12 else "train"})
    return probes.load_corpus(pd.DataFrame(rows))


@torch.no_grad()
def logits(model):
    torch.manual_seed(1)
    ids = torch.randint(4, 27, (3, 9))
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    return model(input_ids=ids, attention_mask=mask).logits


def weights(model):
    return {k: v.detach().clone() for k, v in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def blocks(model):
    return model.base_model.get_submodule(FAMILIES[model.config.model_type]["layers"])


# Fewer layers


@pytest.mark.parametrize("family", KINDS)
@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"layers": 2}, [2, 5]),
        ({"layers": 4}, [1, 2, 4, 5]),
        ({"layers": 2, "keep": "top"}, [4, 5]),
        ({"layers": 2, "keep": "bottom"}, [0, 1]),
        ({"keep": [0, 3, 4]}, [0, 3, 4]),
    ],
)
def test_a_shallow_student_has_the_layers_of_the_model_that_it_is_said_to_have(family, settings, kept):
    model = build(family, layers=6)
    before = weights(model)
    student = distill(model, **settings)
    assert same(before, weights(model))
    assert type(student) is type(model)
    assert student.config.num_hidden_layers == len(kept)
    assert student.config.compression["kept"] == kept
    for mine, theirs in zip(blocks(student), [blocks(model)[i] for i in kept], strict=True):
        assert same(weights(mine), weights(theirs))
    inside = [k for k in before if ".layer." not in k]
    assert all(torch.equal(before[k], student.state_dict()[k]) for k in inside)
    assert not torch.allclose(logits(student), logits(model), atol=1e-4)


def test_a_student_of_all_layers_is_the_model():
    model = build()
    assert torch.equal(logits(distill(model, layers=3)), logits(model))
    assert torch.equal(logits(distill(model, keep=[0, 1, 2])), logits(model))


def test_matched_layers_are_those_that_stand_for_runs_of_others(tokenizer, corpus):
    model = build(layers=6)
    with torch.no_grad():  # blocks 1, 2, 4 and 5 hardly change what they are given
        for i in (1, 2, 4, 5):
            for name in ("attention.output.dense", "output.dense"):
                for parameter in blocks(model)[i].get_submodule(name).parameters():
                    parameter.mul_(0.02)
            for norm in ("attention.output.LayerNorm", "output.LayerNorm"):
                blocks(model)[i].get_submodule(norm).weight.fill_(1)
                blocks(model)[i].get_submodule(norm).bias.zero_()
    kept = distill(model, layers=2, keep="matched", train=corpus, tokenizer=tokenizer, steps=0).config.compression[
        "kept"
    ]
    assert kept[0] in (0, 1, 2)
    assert kept[1] in (3, 4, 5)
    # The control: one of three, where the last ones are as they were and the first five alike.
    for i in (0, 3):
        blocks(model)[i].load_state_dict(blocks(model)[1].state_dict())
    blocks(model)[5].load_state_dict(blocks(build(layers=1, seed=5))[0].state_dict())
    kept = distill(model, layers=2, keep="matched", train=corpus, tokenizer=tokenizer, steps=0).config.compression[
        "kept"
    ]
    assert kept[0] < 5
    assert kept[1] == 5


@pytest.mark.parametrize("seed", range(4))
def test_layers_are_chosen_as_well_as_trying_all_would(seed):
    alike = np.random.default_rng(seed).random((6, 6))
    for count in (1, 2, 4, 6):
        best = -np.inf
        for cuts in itertools.combinations(range(1, 6), count - 1):
            runs = [range(a, b) for a, b in itertools.pairwise((0, *cuts, 6))]
            kept = [max(run, key=lambda k: sum(alike[j, k] for j in run)) for run in runs]
            value = sum(alike[j, k] for run, k in zip(runs, kept, strict=True) for j in run)
            if value > best:
                best, expected = value, kept
        assert runs_of(alike, count) == expected
    alike = alike[:3]
    expected = max(itertools.combinations(range(6), 3), key=lambda js: sum(alike[i, j] for i, j in enumerate(js)))
    assert in_order(alike) == list(expected)


def test_layers_in_order_pass_over_those_without_a_value():
    alike = np.array([[0.1, -np.inf, 0.9, 0.2], [0.8, -np.inf, 0.1, 0.3]])
    assert in_order(alike) == [2, 3]
    with pytest.raises(probes.InputError, match="only 1 layers of the teacher can be compared with 2"):
        in_order(np.where(np.arange(4) == 2, alike, -np.inf))


# Narrower layers


def kept_by_hand(model, heads, channels):
    """Heads and channels of each layer by the norm of what they write times what they read, in numpy."""
    family = FAMILIES[model.config.model_type]
    out = []
    for block in blocks(model):
        w = {
            n: block.get_submodule(n)
            for n in (*family["projections"], family["joined"], family["inner"], family["outer"])
        }

        def with_bias(linear):
            return torch.cat([linear.weight, linear.bias[:, None]], 1).detach().double().numpy()

        value, joined = with_bias(w[family["projections"][2]]), w[family["joined"]].weight.detach().double().numpy()
        inner, outer = with_bias(w[family["inner"]]), w[family["outer"]].weight.detach().double().numpy()
        size = 3
        of_heads = [
            np.linalg.norm(joined[:, h * size : (h + 1) * size] @ value[h * size : (h + 1) * size]) for h in range(4)
        ]
        of_channels = [np.linalg.norm(outer[:, c]) * np.linalg.norm(inner[c]) for c in range(20)]
        out.append([sorted(np.argsort(of_heads)[-heads:]), sorted(np.argsort(of_channels)[-channels:])])
    return out


def stream_rows(model, kept):
    """Every matrix with the stream as columns, of the heads and channels that are kept."""
    family = FAMILIES[model.config.model_type]
    rows = [p for n, p in model.base_model.named_parameters() if n.startswith("embeddings.") and p.ndim == 2]
    for block, (heads, channels) in zip(blocks(model), kept, strict=True):
        features = np.concatenate([np.arange(3 * h, 3 * h + 3) for h in heads])
        rows += [block.get_submodule(n).weight[features] for n in family["projections"]]
        rows += [block.get_submodule(family["joined"]).weight[:, features].T]
        rows += [block.get_submodule(family["inner"]).weight[channels]]
        rows += [block.get_submodule(family["outer"]).weight[:, channels].T]
    for name, p in model.named_parameters():
        if name.endswith(("pooler.dense.weight", "pre_classifier.weight", "classifier.dense.weight")):
            rows.append(p)
    return [r.detach().double().numpy() / np.linalg.norm(r.detach().double().numpy()) for r in rows]


@pytest.mark.parametrize("initialise", ["truncate", "svd"])
@pytest.mark.parametrize("family", KINDS)
def test_a_narrow_student_is_the_part_of_the_model_along_its_largest_weights(family, initialise):
    model = build(family)
    before = weights(model)
    student = distill(model, hidden_size=9, initialise=initialise)
    assert same(before, weights(model))
    config = student.config
    channels = config.hidden_dim if family == "distilbert" else config.intermediate_size
    assert (config.hidden_size, config.num_attention_heads, channels) == (9, 3, 15)
    kept = kept_by_hand(model, 3, 15)
    rows = np.concatenate(stream_rows(model, kept))
    if initialise == "truncate":
        p = np.eye(12)[:, sorted(np.argsort((rows**2).sum(0))[-9:])]
    else:
        _, s, vt = np.linalg.svd(rows, full_matrices=False)
        p = vt[:9].T
        # What is lost is what was discarded; along features more is.
        assert np.linalg.norm(rows - rows @ p @ p.T) ** 2 == pytest.approx((s[9:] ** 2).sum())
        assert np.sort((rows**2).sum(0))[:3].sum() > 1.05 * (s[9:] ** 2).sum()
    found = dict(student.base_model.named_parameters())
    table = "embeddings.word_embeddings.weight"
    expected = dict(model.base_model.named_parameters())[table].detach().double().numpy() @ p
    signs = np.sign((expected * found[table].detach().numpy()).sum(0))
    p = p * signs
    if initialise == "truncate":
        assert (signs == 1).all()

    def check(name, expected):
        np.testing.assert_allclose(found[name].detach().numpy(), expected, atol=1e-5, err_msg=name)

    check(table, expected * signs)
    parts = FAMILIES[family]
    names = {id(q): n for n, q in model.base_model.named_parameters()}
    for block, (heads, channels) in zip(blocks(model), kept, strict=True):
        features = np.concatenate([np.arange(3 * h, 3 * h + 3) for h in heads])

        def numbers(q):
            return names[id(q)], q.detach().double().numpy()

        for part in (*parts["projections"], parts["inner"]):
            at = channels if part == parts["inner"] else features
            linear = block.get_submodule(part)
            name, w = numbers(linear.weight)
            check(name, w[at] @ p)
            name, b = numbers(linear.bias)
            check(name, b[at])
        for part in (parts["joined"], parts["outer"]):
            linear = block.get_submodule(part)
            name, w = numbers(linear.weight)
            check(name, p.T @ w[:, channels if part == parts["outer"] else features])
            name, b = numbers(linear.bias)
            check(name, p.T @ b)
    norms = [m for m in model.base_model.modules() if isinstance(m, torch.nn.LayerNorm)]
    assert len(norms) == 7
    for norm in norms:
        gain = norm.weight.detach().double().numpy()
        check(names[id(norm.weight)], gain @ p if initialise == "truncate" else np.sqrt((p**2).T @ gain**2))
        check(names[id(norm.bias)], p.T @ norm.bias.detach().double().numpy())
    # The head reads what is kept of the pooled features.
    every = dict(model.named_parameters())
    maker = next(
        n for n in every if n.endswith(("pooler.dense.weight", "pre_classifier.weight", "classifier.dense.weight"))
    )
    reader = next(n for n in every if n.endswith(("classifier.weight", "out_proj.weight")) and "pre_" not in n)
    w = every[maker].detach().double().numpy() @ p
    b, c = (every[n].detach().double().numpy() for n in (maker.replace("weight", "bias"), reader))
    pooled = sorted(np.argsort(((w**2).sum(1) + b**2) * (c**2).sum(0))[-9:])
    found = dict(student.named_parameters())
    check(maker, w[pooled])
    check(maker.replace("weight", "bias"), b[pooled])
    check(reader, c[:, pooled])
    check(reader.replace("weight", "bias"), every[reader.replace("weight", "bias")].detach().numpy())


@pytest.mark.parametrize("family", KINDS)
def test_a_student_of_the_models_width_is_the_model(family):
    model = build(family)
    np.testing.assert_allclose(logits(distill(model, hidden_size=12)), logits(model), atol=1e-6)


def test_features_of_small_weights_go_and_others_stay():
    model = build()
    small, table = [1, 5, 10], "embeddings.word_embeddings.weight"
    with torch.no_grad():
        for name, p in model.base_model.named_parameters():
            if p.ndim == 2 and name.endswith(("embeddings.weight", "query.weight", "key.weight", "value.weight")):
                p[:, small] *= 0.1
            if p.ndim == 2 and name.endswith(("intermediate.dense.weight", "pooler.dense.weight")):
                p[:, small] *= 0.1
            if p.ndim == 2 and name.endswith("output.dense.weight"):
                p[small] *= 0.1
    found = distill(model, hidden_size=9).base_model.state_dict()[table]
    stay = [i for i in range(12) if i not in small]
    assert torch.equal(found, model.base_model.state_dict()[table][:, stay])
    control = build()
    found = distill(control, hidden_size=9).base_model.state_dict()[table]
    assert not torch.equal(found, control.base_model.state_dict()[table][:, stay])


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        ("bert", "BertModel"),
        ("roberta", "XLMRobertaModel"),
        ("bert", "BertForTokenClassification"),
        ("distilbert", "DistilBertForTokenClassification"),
        ("distilbert", "DistilBertModel"),
    ],
)
@pytest.mark.parametrize("initialise", ["truncate", "svd"])
def test_other_heads_and_none_become_narrower_too(family, kind, initialise):
    model = build(family, kind=kind)
    whole, narrow = distill(model, hidden_size=12), distill(model, layers=2, hidden_size=6, initialise=initialise)
    ids = torch.randint(4, 27, (2, 7), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        np.testing.assert_allclose(whole(ids)[0], model(ids)[0], atol=1e-6)
        assert torch.isfinite(narrow(ids)[0]).all()
    assert narrow.base_model.get_input_embeddings().weight.shape == (27, 6)


def test_making_a_student_draws_no_random_numbers_and_keeps_type_and_mode():
    model = build().to(torch.bfloat16).train()
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    student = distill(model, layers=2, hidden_size=9)
    assert torch.equal(torch.rand(3), expected)
    assert student.dtype == torch.bfloat16
    assert student.training


@pytest.mark.parametrize("settings", [{"layers": 2}, {"hidden_size": 9}, {"layers": 1, "hidden_size": 6}])
@pytest.mark.parametrize("family", ["bert", "xlm-roberta", "distilbert"])
def test_a_student_is_saved_and_plain_transformers_loads_it(family, settings, tmp_path):
    model = build(family)
    student = distill(model, **settings)
    compress.save(student, tmp_path / "student")
    plain = type(model).from_pretrained(tmp_path / "student").eval()
    assert torch.equal(logits(plain), logits(student))
    assert plain.config.compression == student.config.compression
    what = student.config.compression
    assert what["method"] == "distill"
    assert what["parent"] == weights_fingerprint(model)
    assert "before" not in what
    assert what["parameters"] == sum(p.numel() for p in plain.parameters()) < what["parameters_of_parent"]


def test_what_was_done_before_stays_said():
    once = distill(build(layers=4), layers=3)
    twice = distill(once, layers=2).config.compression
    assert twice["before"] == once.config.compression
    assert (twice["kept"], twice["parent"]) == ([1, 2], weights_fingerprint(once))


# Training


def test_a_student_learns_and_says_what_was_done(tokenizer, corpus):
    model = build(layers=4)
    before = weights(model)
    student = distill(model, layers=2, train=corpus, tokenizer=tokenizer, steps=30, seed=5, **QUIET)
    assert same(before, weights(model))
    names = ["cross_entropy", "soft_labels", "hidden_states"]
    assert list(student.history) == ["step", *names, "loss"]
    for name in ("soft_labels", "hidden_states"):
        assert student.history[name][-5:].mean() < 0.9 * student.history[name][:5].mean()
    what = student.config.compression
    assert what["objective"] == names
    assert what["map"] == {"hidden_states": {"0": 0, "1": 2, "2": 4}}
    assert (what["steps"], what["seed"], what["layers"], what["keep"]) == (30, 5, 2, "uniform")
    again = distill(model, layers=2, train=corpus, tokenizer=tokenizer, steps=30, seed=5, **QUIET)
    assert same(weights(student), weights(again))
    other = distill(model, layers=2, train=corpus, tokenizer=tokenizer, steps=30, seed=6, **QUIET)
    assert not same(weights(student), weights(other))


def test_what_is_trained_for_by_default_is_what_there_is(tokenizer, corpus):
    settings = {"tokenizer": tokenizer, "steps": 1, **QUIET}
    bare = corpus.remove_columns("label")
    found = distill(build(), layers=2, hidden_size=6, train=bare, **settings).history
    assert list(found) == ["step", "soft_labels", "hidden_states", "loss"]
    found = distill(build(kind="BertModel"), layers=2, train=bare, **settings).history
    assert list(found) == ["step", "hidden_states", "loss"]
    given = [CrossEntropy(), HiddenStates(name="own", layers={2: 3})]
    student = distill(build(), layers=2, train=corpus, objective=given, **settings)
    assert list(student.history) == ["step", "cross_entropy", "own", "loss"]
    assert student.config.compression["map"] == {"own": {"2": 3}}


def test_by_default_the_rows_are_trained_on_three_times(tokenizer, corpus):
    student = distill(build(), layers=1, train=corpus, tokenizer=tokenizer, objective=[SoftLabels()], **QUIET)
    assert len(student.history) == 15  # 36 rows of 48, in batches of 8
    assert distill(build(), layers=1).history is None


def test_numbers_and_arrays_of_numpy_are_taken_and_saved(tokenizer, corpus, tmp_path):
    model = build()
    given = distill(model, keep=np.array([0, 2]), hidden_size=np.int64(9))
    assert same(weights(given), weights(distill(model, keep=[0, 2], hidden_size=9)))
    how = {"train": corpus, "tokenizer": tokenizer, "steps": 1, **QUIET}
    maps = [
        HiddenStates(layers=dict(zip(*(f(pair) for pair in ([1, 2], [2, 3])), strict=True))) for f in (list, np.array)
    ]
    plain, student = (distill(model, layers=n, objective=[o], **how) for n, o in ((2, maps[0]), (np.int64(2), maps[1])))
    assert same(weights(plain), weights(student))
    for name, made in (("given", given), ("student", student)):
        loaded, _ = probes.load_checkpoint(compress.save(made, tmp_path / name, tokenizer))
        assert same(weights(loaded), weights(made))
    assert student.config.compression["map"] == {"hidden_states": {"1": 2, "2": 3}}
    for keep in (np.array([2, 0]), np.array([0.0, 2.0]), np.array([[0, 2]]), np.array([True, False]), 1):
        with pytest.raises(probes.InputError, match="expected ascending numbers of layers from 0 to 2"):
            distill(model, keep=keep)


@pytest.mark.parametrize("calibrated", [False, True])
def test_a_narrower_student_of_rounded_inputs_is_the_one_that_is_saved(tokenizer, corpus, tmp_path, calibrated):
    text = {"calibrate": corpus, "tokenizer": tokenizer} if calibrated else {}
    rounded = compress.quantize(build(), bits=4, activation_bits=2, **text)
    for name, settings in (("narrow", {"hidden_size": 9}), ("shallow", {"layers": 2})):
        student = distill(rounded, **settings)
        loaded, _ = probes.load_checkpoint(compress.save(student, tmp_path / name, tokenizer))
        assert torch.equal(logits(loaded), logits(student))
        assert hasattr(student.config, "quantized_inputs") == (name == "shallow")


def test_a_student_of_another_width_learns_in_float64(tokenizer, corpus):
    how = {"layers": 2, "hidden_size": 9, "train": corpus, "tokenizer": tokenizer, "steps": 2, **QUIET}
    double, single = (distill(build().to(dtype), **how) for dtype in (torch.float64, torch.float32))
    assert double.dtype == torch.float64
    assert double.history["loss"].to_numpy() == pytest.approx(single.history["loss"].to_numpy(), rel=1e-4)


def test_any_student_of_the_same_tokenizer_learns(tokenizer, corpus):
    model, student = build(layers=4), build("distilbert", layers=2, dim=8)
    student.config.id2label = model.config.id2label
    before = weights(student)
    found = distill(model, student=student, train=corpus, tokenizer=tokenizer, steps=20, **QUIET)
    assert same(before, weights(student))
    assert isinstance(found, transformers.DistilBertForSequenceClassification)
    assert not same(before, weights(found))
    assert found.history["hidden_states"][-5:].mean() < found.history["hidden_states"][:5].mean()
    assert found.config.compression["student"] == weights_fingerprint(student)
    assert "kept" not in found.config.compression


def test_a_teacher_of_its_own_is_what_is_learned_from(tokenizer, corpus):
    model, teacher = build(), build(seed=1, layers=4)
    settings = {"layers": 2, "train": corpus, "tokenizer": tokenizer, "steps": 1, **QUIET}
    found = [
        distill(model, objective=[SoftLabels()], **settings, **more).history for more in ({}, {"teacher": teacher})
    ]
    assert found[0]["soft_labels"][0] != pytest.approx(found[1]["soft_labels"][0], rel=1e-2)
    distill(model, teacher=teacher, **settings)


def test_a_distillation_that_was_interrupted_ends_as_it_would_have(tokenizer, corpus, tmp_path):
    def run(folder, *callbacks):
        settings = {"layers": 2, "hidden_size": 6, "train": corpus, "tokenizer": tokenizer, "steps": 9, "save_every": 3}
        return distill(build(), folder=tmp_path / folder, callbacks=callbacks, **settings, **QUIET)

    whole = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("run", Stops(5))
    again = run("run")
    pd.testing.assert_frame_equal(again.history, whole.history)
    assert same(weights(again), weights(whole))


def test_a_student_of_two_layers_keeps_english_and_what_was_never_labelled():
    """The bundled model: six layers, labels in English alone. Texts of other languages need none to learn from it."""
    model, tokenizer = probes.load_checkpoint("bundled")
    languages = ["en", "de", "fr", "ru"]
    test = probes.load_corpus("bundled", split="test", languages=languages)

    def accuracy(one):
        found = probes.accuracy(probes.capture(one, tokenizer, test, progress=False), draws=2).value
        return float(found.sel(language="en")), float(found.drop_sel(language=["en", "pooled"]).mean())

    settings = {"layers": 2, "tokenizer": tokenizer, "steps": 40, "learning_rate": 5e-4, "seed": 1, "progress": False}
    english = probes.load_corpus("bundled", split="train", languages=["en"])
    labelled = distill(model, train=english, objective=[CrossEntropy()], **settings)
    texts = probes.load_corpus("bundled", split="train", languages=languages).remove_columns("label")
    distilled = distill(model, train=texts, **settings)
    (whole, _), (_, zero_shot), (kept, more) = (accuracy(one) for one in (model, labelled, distilled))
    assert kept >= 0.9 * whole
    assert more > zero_shot + 0.02


# Matching layers


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(0)
    words = " ".join(WORDS.values()).split()
    rows = [{"id": i, "language": "en", "text": " ".join(rng.choice(words, 5))} for i in range(80)]
    return probes.load_corpus(pd.DataFrame(rows))


def planted(kept, layers=5):
    """A teacher of which the blocks that are not kept change little, next to the others."""
    teacher = build(layers=layers)
    with torch.no_grad():
        for i, block in enumerate(blocks(teacher)):
            for name in ("attention.output.dense", "output.dense"):
                block.get_submodule(name).weight.mul_(4 if i in kept else 0.25)
            for norm in ("attention.output.LayerNorm", "output.LayerNorm"):
                block.get_submodule(norm).weight.fill_(1)
                block.get_submodule(norm).bias.zero_()
    return teacher


@pytest.mark.parametrize("measure", ["cka", "cka_debiased", "procrustes"])
@pytest.mark.parametrize("kept", [[0, 2, 4], [1, 3], [0, 1, 3]])
def test_a_student_of_some_layers_is_matched_to_these(texts, tokenizer, kept, measure):
    teacher = planted(kept)
    student = distill(teacher, keep=kept)
    found = match_layers(teacher, student, texts, tokenizer=tokenizer, measure=measure)
    assert found["student"].tolist() == list(range(len(kept) + 1))
    assert found.attrs["layers"] == dict(zip(found["student"], found["matched"], strict=True))
    # What follows a kept block is nearly what it gives: a run of the teacher's layers is right.
    runs = [range(a + 1, b + 1) for a, b in itertools.pairwise([*kept, 5])]
    for j, run in zip(found["matched"][1:], runs, strict=True):
        assert j in run
    assert (found["matched"].diff()[1:] > 0).all()
    assert (found["lead"] >= 0).all()
    HiddenStates(layers=found.attrs["layers"]).check(student, teacher)


def test_a_student_of_the_first_layers_is_matched_to_these_with_certainty(texts, tokenizer):
    teacher = build(layers=5)
    found = match_layers(teacher, distill(teacher, layers=3, keep="bottom"), texts, tokenizer=tokenizer)
    assert found["teacher"].tolist() == found["matched"].tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(found["value"], 1, atol=1e-6)
    assert (found["lead_low"] > 0).all()


def test_a_student_of_random_weights_has_no_clear_match(texts, tokenizer):
    # The teacher's blocks change nothing but by chance, so that all its layers are as near.
    teacher = planted([], layers=3)
    found = match_layers(teacher, build(layers=3, seed=9), texts, tokenizer=tokenizer)
    assert (found["lead_low"] <= 0).all()
    assert (found["lead_high"] >= 0).all()
    # Near as they are, its own are told apart.
    found = match_layers(teacher, distill(teacher, layers=3), texts, tokenizer=tokenizer)
    assert (found["lead_low"] > 0).all()


def test_all_layers_of_an_untrained_student_are_most_like_the_embeddings_of_a_real_model():
    model, tokenizer = probes.load_checkpoint("bundled")
    corpus = probes.load_corpus("bundled", split="dev", languages=["en"]).select(range(100))
    student = distill(model, layers=2, keep="bottom")
    trained = match_layers(model, student, corpus, tokenizer=tokenizer)
    torch.manual_seed(0)
    found = match_layers(model, type(model)(student.config), corpus, tokenizer=tokenizer)
    assert found["teacher"].tolist() == [0, 0, 0]
    assert trained["teacher"].tolist() == [0, 1, 2]
    assert found["value"].max() < trained["low"].min()


def test_the_table_is_that_of_the_similarities(texts, tokenizer):
    teacher, student = build(layers=4), build(layers=2, seed=3)
    states = [probes.capture(m, tokenizer, texts, progress=False) for m in (student, teacher)]
    x, y = (s.hidden.values for s in states)
    for measure, sign in (("cka", 1), ("procrustes", -1)):
        found = match_layers(teacher, student, texts, tokenizer=tokenizer, measure=measure)
        values = np.array([[probes.similarity(a, b, measure=measure) for b in y] for a in x])
        order = np.argsort(-sign * values, axis=1)
        assert found["teacher"].tolist() == order[:, 0].tolist()
        assert found["runner_up"].tolist() == order[:, 1].tolist()
        ranked = np.take_along_axis(values, order, 1)
        np.testing.assert_allclose(found["value"], ranked[:, 0], rtol=1e-6)
        np.testing.assert_allclose(found["lead"], sign * (ranked[:, 0] - ranked[:, 1]), atol=1e-7)
        assert (found["low"] <= found["value"]).all()
        assert (found["value"] <= found["high"]).all()
        assert (found["lead_low"] <= found["lead"]).all()
        assert (found["lead"] <= found["lead_high"]).all()
        draws = sign * probes.similarity(*states, measure=measure).draws.sel(language="pooled").values
        gaps = [draws[:, i, best] - draws[:, i, second] for i, (best, second) in enumerate(order[:, :2])]
        low, high = np.quantile(gaps, [0.025, 0.975], axis=1, method="weibull")
        np.testing.assert_allclose(found["lead_low"], np.minimum(low, found["lead"]), atol=1e-12)
        np.testing.assert_allclose(found["lead_high"], np.maximum(high, found["lead"]), atol=1e-12)
        options = itertools.combinations(range(5), 3)
        best = max(options, key=lambda js: sum(sign * values[i, j] for i, j in enumerate(js)))
        assert found["matched"].tolist() == list(best)


def test_a_layer_without_a_value_is_left_out(texts, tokenizer):
    teacher, student = build(layers=3), build(layers=3, seed=3)
    with torch.no_grad():
        blocks(student)[1].output.LayerNorm.weight.zero_()  # all texts become one
    with pytest.warns(probes.LayerscopeWarning, match="all states are equal"):
        found = match_layers(teacher, student, texts, tokenizer=tokenizer)
    assert found["student"].tolist() == list(found.attrs["layers"]) == [0, 1]
    with torch.no_grad():
        student.base_model.embeddings.LayerNorm.weight.zero_()
    with (
        pytest.warns(probes.LayerscopeWarning, match="all states are equal"),
        pytest.raises(probes.InputError, match="no layer of the student can be compared"),
    ):
        match_layers(teacher, student, texts, tokenizer=tokenizer)


# Bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"nothing to make smaller: give layers=..., hidden_size=... or student=..."),
        ({"layers": 4}, r"layers=4: expected a whole number from 1 to 3, the layers of the model"),
        ({"layers": 0}, r"layers=0: expected a whole number from 1 to 3"),
        ({"layers": True}, r"layers=True: expected a whole number"),
        ({"layers": 2, "keep": "middle"}, r"keep='middle' is not known; choose one of 'uniform', 'top', 'bottom'"),
        ({"keep": [0, 3]}, r"keep=\[0, 3\]: expected ascending numbers of layers from 0 to 2"),
        ({"keep": [1, 0]}, r"keep=\[1, 0\]: expected ascending"),
        ({"keep": []}, r"keep=\[\]: expected ascending"),
        ({"keep": [0.5, 2]}, r"keep=\[0.5, 2\]: expected ascending"),
        ({"keep": [False, True]}, r"keep=\[False, True\]: expected ascending"),
        ({"layers": 2, "keep": [0]}, r"keep=\[0\] are 1 layers, and layers=2: leave one of them out"),
        ({"layers": 2, "keep": "matched"}, r"keep='matched' needs text: give train=..., a corpus, and tokenizer=..."),
        ({"layers": 2, "steps": 3}, r"training needs text: give train=..., a corpus, and tokenizer=..."),
        ({"layers": 2, "steps": -1}, r"steps=-1: expected a whole number, 0 for no training"),
        ({"layers": 2, "step": 1}, r"step=1: no such setting"),
        (
            {"hidden_size": 10},
            r"hidden_size=10: expected a multiple of 3, the size of an attention head, and at most 12",
        ),
        ({"hidden_size": 15}, r"hidden_size=15: expected a multiple of 3, .* at most 12, the model's"),
        ({"hidden_size": 0}, r"hidden_size=0: expected a multiple of 3"),
        ({"hidden_size": 9, "initialise": "pca"}, r"initialise='pca' is not known; choose one of 'truncate', 'svd'"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(probes.InputError, match=message):
        distill(build(), **settings)


def test_models_that_do_not_fit_are_refused(tokenizer, corpus, tiny_models, texts):
    model = build()
    with pytest.raises(probes.InputError, match=r"student=... has its layers and width already: leave layers"):
        distill(model, layers=2, student=build(layers=1))
    with pytest.raises(probes.InputError, match="expected a model of transformers, found Linear"):
        distill(model, student=torch.nn.Linear(2, 2))
    with pytest.raises(probes.InputError, match="expected a model of transformers, found Linear"):
        distill(torch.nn.Linear(2, 2), layers=2)
    other = build(vocab_size=30)
    message = (
        r"not known to share a tokenizer: the student .* has 30 token embeddings, the teacher .* 27 token .* make "
    )
    message += "both 30 by resize_token_embeddings"
    with pytest.raises(probes.InputError, match=message):
        distill(model, student=other)
    with pytest.raises(probes.InputError, match="not known to share a tokenizer"):
        distill(other, layers=2, teacher=model)
    model.resize_token_embeddings(30)  # as the message says
    assert distill(model, student=other).config.vocab_size == 30
    model = build()
    with pytest.raises(probes.InputError, match=r"share a tokenizer: .* the padding token 1, the teacher .* 0"):
        match_layers(model, build("roberta"), texts, tokenizer=tokenizer)
    with pytest.raises(probes.InputError, match="the student has 4 layers, the teacher 3: expected at most as many"):
        match_layers(model, build(layers=4), texts, tokenizer=tokenizer)
    with pytest.raises(probes.InputError, match="the student has 5 layers to compare, the teacher 4: say with layers="):
        distill(model, student=build(layers=4), train=corpus, tokenizer=tokenizer, steps=1, **QUIET)
    with pytest.raises(probes.InputError, match="measure='cosine' is not known"):
        match_layers(model, model, texts, tokenizer=tokenizer, measure="cosine")
    with pytest.raises(probes.InputError, match=r"train=... is given, and steps=0 trains nothing"):
        distill(model, layers=2, train=corpus, tokenizer=tokenizer, steps=0)
    with pytest.raises(probes.InputError, match="batch_size=0: expected a whole number of at least 1"):
        distill(model, layers=2, train=corpus, tokenizer=tokenizer, **QUIET | {"batch_size": 0})
    dev = corpus.filter(lambda row: row["split"] == "dev")
    with pytest.raises(probes.InputError, match="the corpus has no row of split 'train'"):
        distill(model, layers=2, train=dev, tokenizer=tokenizer)
    with pytest.raises(probes.InputError, match="at least one row, found none"):
        distill(model, layers=2, train=corpus.select([]), tokenizer=tokenizer)
    out_of_range = HiddenStates(layers={3: 1})
    with pytest.raises(probes.InputError, match="layers has 3: 1: expected a layer of the student from 0 to 2"):
        distill(model, layers=2, train=corpus, tokenizer=tokenizer, objective=[out_of_range], steps=1, **QUIET)


def test_architectures_that_cannot_be_made_narrower_are_refused(tiny_models):
    with pytest.raises(probes.InputError, match="structured pruning knows the architectures"):
        distill(tiny_models("GPT2ForSequenceClassification"), layers=2)
    with pytest.raises(probes.InputError, match=r"narrower students are made of .* Give one as student=..., or leave"):
        distill(compress.prune_heads(build(), 0.5), hidden_size=6)
    with pytest.raises(
        probes.InputError, match=r"how .*predictions.* of BertForMaskedLM is made narrower is not known"
    ):
        distill(build(kind="BertForMaskedLM"), hidden_size=9)


def test_models_whose_weights_cannot_be_weighed_are_not_made_narrower():
    model = build()
    with torch.no_grad():
        model.bert.encoder.layer[1].output.dense.weight[2, 3:5] = float("nan")
    with pytest.raises(
        probes.InputError, match=r"layer.1.output.dense.weight: 2 of its 240 values are NaN or infinite"
    ):
        distill(model, hidden_size=9)
    model = build()
    model.config.sparse_embeddings = {"features": 4}
    apply_sparse_head(model)
    with pytest.raises(
        probes.InputError, match=r"hidden_size: the sparse head of .* reads states of the width .* or leave"
    ):
        distill(model, hidden_size=9)


def test_models_in_factors_are_refused_with_what_to_do(tokenizer, corpus):
    model = build()
    low = compress.factorize(model, rank=2)
    message = r"18 matrices of its layers are in factors .* Distil first, then factorise; or give a student="
    for settings in ({"layers": 2}, {"hidden_size": 9}):
        with pytest.raises(probes.InputError, match=message):
            distill(low, **settings)
    distill(model, student=low, train=corpus, tokenizer=tokenizer, steps=1, **QUIET)
    words = compress.factorize(model, rank=2, only="word_embeddings", embeddings=True)
    student = distill(words, layers=2)
    assert same(weights(blocks(student)[0]), weights(blocks(words)[1]))
