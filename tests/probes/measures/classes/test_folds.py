"""What a linear probe cannot learn from is refused by name, before anything is trained."""

import numpy as np
import pytest
from planted import planted, with_split

import probes
from probes.measures.classes.folds import groups
from probes.measures.classes.linear_probe import linear_probe


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
