"""What a linear probe cannot learn from is refused by name, before anything is trained."""

import importlib

import numpy as np
import pytest
from planted import planted, with_split

import probes
from probes.measures.classes.folds import folds_of, groups
from probes.measures.classes.linear_probe import linear_probe
from probes.results.draws import sample


def refused(message, reps, **options):
    with pytest.raises(probes.InputError, match=message):
        linear_probe(reps, **{"pivot": "l0", "progress": False, **options})


@pytest.mark.usefixtures("untrained")
def test_the_pivot_must_be_a_language_of_the_corpus():
    reps = planted(np.random.default_rng(0), ids=40)
    refused("expected pivot=..., the language that the probe is trained on", reps, pivot=None)
    refused("pivot 'xx': no such language in the corpus; there are 'l0', 'l1'", reps, pivot="xx")


@pytest.mark.usefixtures("untrained")
def test_an_id_in_both_splits_is_refused():
    reps = with_split(planted(np.random.default_rng(0), ids=40))
    split = reps.split.values.copy()
    split[40 + 7] = "test"
    refused(
        r"id '7' is in split 'train' and in split 'test', so the probe would be tested on translations of what it was "
        r"trained on\. Give all rows of an id the same split",
        reps.assign_coords(split=("example", split)),
    )


@pytest.mark.usefixtures("untrained")
def test_a_class_that_is_tested_must_be_trained_on():
    reps = planted(np.random.default_rng(0), ids=60)
    lacking = with_split(reps)
    lacking = lacking.isel(
        example=~((lacking.language == "l0") & (lacking.label == "2")).values,
    )
    for one in (lacking, lacking.drop_vars("split")):
        refused(
            r"class '2' is missing in train: language 'l1' is tested on it, and the pivot 'l0' has no training row of "
            r"it\. Add some, or drop the class",
            one,
        )


@pytest.mark.usefixtures("untrained")
def test_one_class_to_train_on_is_refused():
    reps = with_split(planted(np.random.default_rng(0), ids=60, classes=2), dev=0.2)
    reps = reps.isel(example=((reps.label == "0") | (reps.split == "dev")).values)
    refused("the training rows of the pivot 'l0' have only one class, '0'; a probe needs at least two", reps)


@pytest.mark.usefixtures("untrained")
def test_too_few_ids_of_a_class_are_refused():
    reps = planted(np.random.default_rng(0), ids=60)
    few = (reps.label != "1").values | (reps.id.values.astype(int) < 14)  # 1, 5, 9, 13
    for one in (reps.isel(example=few), with_split(reps.isel(example=few), test=0.5)):
        refused(
            r"class '1' has 4 ids to train on in the pivot 'l0', and folds need at least 5\. Merge or drop the class, "
            "or add sentences of it",
            one,
        )
    with pytest.raises(probes.InputError, match="class '1' has 2 ids to train on"):
        linear_probe(np.eye(12), [0] * 10 + [1] * 2)


@pytest.mark.usefixtures("untrained")
def test_a_language_without_test_rows_and_a_pivot_without_training_rows_are_refused():
    reps = with_split(planted(np.random.default_rng(0), ids=60))
    part = reps.isel(example=~((reps.language == "l1") & (reps.split == "test")).values)
    refused("language 'l1' has no row in split 'test'. Drop the language, or add test rows", part)
    part = reps.isel(example=~((reps.language == "l0") & (reps.split == "train")).values)
    refused(
        "pivot 'l0' has no row in split 'train', which the probe is trained on. Choose .* that has some: 'l1'", part
    )


def test_folds_hold_every_class_where_each_has_five_ids():
    y = np.repeat(np.arange(4), [5, 7, 11, 30])
    for seed in range(10):
        folds = groups(5, seed).split(y, y, np.arange(len(y)))
        assert all(np.unique(y[test]).tolist() == [0, 1, 2, 3] for _, test in folds)


def in_groups(rng, groups=40, size=4, features=12):
    """States that tell their group, and a label of the group that they do not tell otherwise."""
    group = np.repeat(np.arange(groups), size)
    label = rng.permutation(np.arange(groups) % 2)[group]
    x = 2 * rng.normal(size=(groups, features))[group] + 0.3 * rng.normal(size=(len(group), features))
    order = rng.permutation(len(group))
    return x[order], label[order], group[order]


def test_no_probe_is_tested_on_a_group_that_it_has_learned_from():
    x, y, group = in_groups(np.random.default_rng(0))
    drawn = sample(probes.from_arrays(x, label=y, group=group), draws=2, seed=0)
    of_row = drawn.units[drawn.ids]
    tested = np.zeros(len(x), int)
    for fold in folds_of(drawn, "und", 0):
        tested += fold.test
        assert not np.intersect1d(of_row[fold.train], of_row[fold.test]).size
        rows = np.flatnonzero(fold.train)[np.argsort(drawn.ids[fold.train], kind="stable")]
        for learned, judged in fold.inner:
            assert not np.intersect1d(of_row[rows[learned]], of_row[rows[judged]]).size
    assert (tested == 1).all()
    assert np.array_equal(drawn.units == drawn.units[:, None], np.equal.outer(*[group[np.argsort(drawn.ids)]] * 2))


def test_folds_of_groups_take_off_what_sentences_of_one_article_tell_of_each_other(monkeypatch):
    module = importlib.import_module("probes.measures.classes.linear_probe")
    monkeypatch.setattr(module, "STRENGTHS", (1e-2, 1.0))
    monkeypatch.setattr(module, "SHUFFLES", 1)
    alone, grouped = [], []
    for seed in range(2):
        x, y, group = in_groups(np.random.default_rng(seed), features=30)
        for found, of in ((alone, None), (grouped, group)):
            reps = probes.from_arrays(x, label=y, group=of)
            found.append(float(linear_probe(reps, progress=False, draws=2).value.sel(measure="linear_probe").mean()))
    assert np.mean(alone) > 0.8
    assert abs(np.mean(grouped) - 0.5) < 0.1  # chance


@pytest.mark.usefixtures("untrained")
def test_groups_that_folds_cannot_keep_apart_are_refused():
    x, y, group = in_groups(np.random.default_rng(0))
    message = r"group '\d+' is in split 'train' and in split 'test', so the probe would be tested on sentences that"
    half = np.where(np.arange(len(x)) < len(x) // 2, "train", "test").astype(object)
    reps = probes.from_arrays(x, label=y, group=group)
    with pytest.raises(probes.InputError, match=message):
        linear_probe(reps.assign_coords(split=("example", half)), progress=False)
    few = probes.from_arrays(x, label=np.where(group < 4, 2, y), group=group)
    with pytest.raises(
        probes.InputError, match="class '2' has 4 groups to train on in the pivot 'und', and folds need"
    ):
        linear_probe(few, progress=False)
