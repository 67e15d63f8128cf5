import datasets
import numpy as np
import pytest
from planted import planted, with_split
from scipy.special import rel_entr, softmax

import probes
from probes.measures.classes.label_names import Classifier, classified, label_names
from probes.results.result import split_measures


@pytest.fixture(autouse=True)
def few_factors(monkeypatch):
    monkeypatch.setattr("probes.measures.classes.label_names.BETAS", (1.0, 10.0))
    monkeypatch.setattr("probes.measures.classes.linear_probe.STRENGTHS", (1e-2,))


def corpus(seed=0, ids=240, distance=4.0, **settings):
    return with_split(planted(np.random.default_rng(seed), ids=ids, distance=distance, **settings), test=0.4, dev=0.2)


def names(right=True, noise=0.0):
    """Two templates a class, that lie where the classes do, or where the next ones do."""
    label = np.repeat(np.arange(4), 2)
    where = np.eye(16)[label if right else (label + 1) % 4]
    x = where + noise * np.random.default_rng(0).normal(size=where.shape)
    return probes.from_arrays(x, label=label)


def measured(reps, named, **options):
    return split_measures(label_names(reps, named, **{"pivot": "l0", "draws": 50, **options}))


def test_names_that_lie_with_their_classes_classify_and_others_do_not():
    found = measured(corpus(), names())
    assert (found["label_names"].value > 0.8).all()
    assert (measured(corpus(), names(right=False))["label_names"].value < 0.2).all()


def test_the_support_mends_bad_names():
    found = measured(corpus(), names(right=False))
    assert (found["label_names_support"].value > found["label_names"].value + 0.4).all()


def test_labels_that_say_nothing_are_at_chance():
    reps = corpus()
    label = np.random.default_rng(1).permutation(reps.label.values[:240])
    found = measured(reps.assign_coords(label=("example", np.tile(label, 2))), names())
    for name in ("label_names", "label_names_support"):
        np.testing.assert_allclose(found[name].value, 0.25, atol=0.15)


@pytest.mark.parametrize("seed", range(2))
def test_the_terms_are_those_of_tip_x_by_loops(seed):
    rng = np.random.default_rng(seed)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (rng.normal(size=(n, 6)) for n in (3, 7, 5))]
    w, f, t = unit
    label = np.array([0, 1, 2, 0, 1, 2, 0])
    share = (label[:, None] == np.arange(3)) / np.bincount(label)
    low, span, least, width = 0.01, 0.7, -0.2, 1.1
    alpha, beta, gamma = 2.0, 3.0, 1.5
    found = Classifier(w, f, share, (low, span, least, width), (alpha, beta, gamma)).logits(7.0 * t)
    for i in range(5):
        for c in range(3):
            near = through = 0.0
            for j in np.flatnonzero(label == c):
                near += np.exp(-beta * (1 - t[i] @ f[j])) / (label == c).sum()
                s, other = softmax(w @ t[i] / 0.5), softmax(w @ f[j] / 0.5)
                m = (rel_entr(s, other).sum() - low) / span * width + least
                through -= m / (label == c).sum()
            assert found[i, c] == pytest.approx(100 * t[i] @ w[c] + alpha * near + gamma * through)


def test_the_factors_are_the_smallest_of_the_best_on_dev():
    reps = corpus()
    x, y, split = reps.hidden[0].values, reps.label.values.astype(int), reps.split.values
    pivot = reps.language.values == "l0"
    train, dev = (np.flatnonzero(pivot & (split == part)) for part in ("train", "dev"))
    far = 100.0 * np.eye(16)[:4]
    perfect = classified(far, np.arange(4), x[train], y[train], far, np.arange(4))
    assert perfect.factors[::2] == (0.0, 0.0)  # names alone are enough
    mended = classified(np.roll(far, 1, axis=0), np.arange(4), x[train], y[train], x[dev], y[dev])
    assert max(mended.factors[::2]) > 0


def test_no_label_of_another_language_and_no_test_row_is_used():
    reps = corpus()
    one = measured(reps, names(right=False))
    label = reps.label.values.copy()
    other = (reps.language.values != "l0") & (reps.split.values != "test")
    label[other] = "0"
    again = measured(reps.assign_coords(label=("example", label)), names(right=False))
    few = reps.isel(example=(reps.split.values != "test") | (reps.id.values.astype(int) % 2 == 0))
    for name, found in one.items():
        np.testing.assert_array_equal(found.value, again[name].value)
        assert found.n.sel(language="l1") == 2 * measured(few, names(right=False))[name].n.sel(language="l1")


def test_the_gain_is_the_difference_to_a_linear_probe_on_the_support():
    reps = corpus(distance=2.0)
    found = measured(reps, names())
    of_train = reps.isel(example=reps.split.values != "dev")
    linear = split_measures(probes.linear_probe(of_train, pivot="l0", progress=False, draws=10))["linear_probe"]
    np.testing.assert_allclose(found["label_names_gain"].value, found["label_names_support"].value - linear.value)


def test_a_support_of_its_own_is_the_same_as_the_split_train():
    reps = corpus()
    support, rest = (reps.isel(example=(reps.split.values == "train") == which) for which in (True, False))
    one, other = measured(reps, names(right=False)), measured(rest, names(right=False), support=support)
    np.testing.assert_array_equal(one["label_names_support"].value, other["label_names_support"].value)


def test_texts_are_run_by_the_model():
    model, tokenizer = probes.load_checkpoint("bundled")
    rows = probes.load_corpus("bundled", languages=["en"])
    rows = rows.select(range(0, len(rows), 12))
    reps = probes.capture(model, tokenizer, rows, progress=False).isel(layer=[6])
    texts = {c: [f"They talk about {c}.", c] for c in set(rows["label"])}
    found = split_measures(label_names(reps, texts, model=model, tokenizer=tokenizer, draws=10))
    value = {k: v.value.sel(language="en").item() for k, v in found.items()}
    assert value["label_names_support"] > max(0.8, value["label_names"] + 0.1)
    with pytest.raises(probes.InputError, match="names are texts, which a model has to run: give model="):
        label_names(reps, texts)


def test_names_are_run_as_the_texts_were():
    model, tokenizer = probes.load_checkpoint("bundled")
    rows = probes.load_corpus("bundled", languages=["en"])
    rows = rows.select(range(0, len(rows), 24))
    texts = {c: [f"They talk about {c}."] for c in set(rows["label"])}
    how = {"pooling": "first", "prompt": "It is said: ", "normalize": True, "dimensions": 32, "progress": False}
    how |= {"modules": ["bert.embeddings", "bert.encoder.layer.1"]}
    reps = probes.capture(model, tokenizer, rows, **how)
    found = measured(reps, texts, pivot="en", model=model, tokenizer=tokenizer)
    corpus = datasets.Dataset.from_dict(
        {"id": list(texts), "language": ["und"] * len(texts), "text": [v[0] for v in texts.values()]}
        | {"label": list(texts)}
    )
    named = probes.capture(model, tokenizer, corpus, **how)
    for name, one in measured(reps, named, pivot="en").items():
        np.testing.assert_array_equal(one.value, found[name].value)
    reps = probes.capture(model, tokenizer, rows, pooling=probes.Band(1, 3), progress=False)
    with pytest.raises(probes.InputError, match=r"are 'band\(1, 3\)', which cannot be made of names by themselves"):
        label_names(reps, texts, model=model, tokenizer=tokenizer)


def test_a_layer_without_length_has_no_value_and_is_named():
    reps = corpus(layers=2)
    hidden = reps.hidden.values.copy()
    hidden[1] = 0.0
    named = names()
    named = probes.from_arrays(np.stack([named.hidden[0]] * 2), label=named.label.values)
    with pytest.warns(probes.LayerscopeWarning, match="label_names.* has no value at layer 1: states of"):
        found = measured(reps.assign(hidden=(reps.hidden.dims, hidden)), named)
    assert np.isnan(found["label_names"].value.sel(layer=1)).all()
    assert np.isfinite(found["label_names"].value.sel(layer=0)).all()


def refused(message, reps, named, **options):
    with pytest.raises(probes.InputError, match=message):
        measured(reps, named, **options)


def test_what_is_lacking_is_said():
    reps = corpus()
    refused("label '3' has no name; there are names of '0', '1', '2'", reps, names().isel(example=slice(6)))
    refused("label '0' has no name; there are names of none", reps, {})
    refused("no support set: expected rows of the pivot 'l0'", reps.isel(example=reps.split != "train"), names())
    refused("no row of the pivot 'l0' has the split 'dev'", reps.isel(example=reps.split != "dev"), names())
    refused("names have 1 layers of 3 features, and texts 1 of 16", reps, names().isel(feature=slice(3)))
    refused("support: expected Representations of texts of the pivot 'l0'", reps, names(), support=names())
    refused("id '.*' is in the support and in split 'dev' or 'test'", reps, names(), support=reps)
    train = np.flatnonzero((reps.split == "train").values & (reps.language == "l0").values)
    some = reps.isel(example=train[(reps.label.values[train].astype(int) != 2) | (np.arange(len(train)) < 9)])
    few = len(set(some.id.values[some.label.values.astype(str) == "2"]))
    assert few < 4
    rest = reps.isel(example=reps.split != "train")
    refused(f"label '2' has {few} sentences in the support, and the linear probe", rest, names(), support=some)
    groups = (np.arange(len(train)) % 3).astype(str).astype(object)
    grouped = reps.isel(example=train).assign_coords(group=("example", groups))
    refused("label '0' has . groups in the support", rest, names(), support=grouped)


def test_groups_and_translations_of_what_is_classified_are_not_learned_or_chosen_by(monkeypatch):
    reps = corpus(ids=120)
    split = dict(zip(reps.id.values, reps.split.values, strict=True))
    first = {part: [number for number, of in split.items() if of == part] for part in ("train", "dev", "test")}
    both = {"g": (first["train"][0], first["test"][0]), "h": (first["dev"][0], first["test"][1])}
    for group, says in (
        ("g", "group 'g' is in the support and in split 'dev' or 'test', so a text would be classified by labels of"),
        ("h", "group 'h' is in split 'dev' and in split 'test', so the factors by which a text is classified would be"),
    ):
        groups = [group if number in both[group] else number for number in reps.id.values]
        refused(says, reps.assign_coords(group=("example", np.array(groups, object))), names())
    moved = np.where((reps.id == first["test"][0]) & (reps.language == "l0"), "dev", reps.split).astype(object)
    refused("id '.*' is in split 'dev' and in split 'test'", reps.assign_coords(split=("example", moved)), names())
    # The linear probe beside it chooses its strength in folds of groups.
    at = {number: k // 4 for part in first.values() for k, number in enumerate(part)}
    groups = [f"{split[number]} {at[number]}" for number in reps.id.values]
    seen = []

    def spied(x, y, inner):
        seen.extend(inner)
        return lambda x, labels: lambda x: np.zeros((1, len(x)), int)

    monkeypatch.setattr("probes.measures.classes.label_names.fitted", spied)
    measured(reps.assign_coords(group=("example", np.array(groups, object))), names())
    learned = reps.isel(example=(reps.split == "train") & (reps.language == "l0"))
    of_row = np.array([at[number] for number in sorted(learned.id.values)])
    assert len(seen) == 4
    assert all(not set(of_row[one]) & set(of_row[other]) for one, other in seen)
