"""What holds on every corpus: on made comparisons whose losses are known."""

import itertools

import judged
import numpy as np
import pytest

from probes.errors import InputError
from probes.results.agreed import agreement, common_languages, on_all
from probes.results.draws import POOLED
from probes.results.verdict import SAFE, verdict

CODES = ["en", "fr", "sw", "yo"]


def table(seed, losses, *, codes=CODES, probe="accuracy"):
    rng = np.random.default_rng(seed)
    right = judged.right_answers(rng, 3000, len(codes), 0.9, [(loss, 0.001) for loss in losses])
    return judged.table_of(right, rng, probe=probe, names=codes)


@pytest.fixture(scope="module")
def tables():
    # m1 loses in French on both, in Swahili on the first alone; m2 nowhere.
    return {"a": table(0, [[0, 0.3, 0.3, 0], 0]), "b": table(1, [[0, 0.3, 0, 0], 0])}


def test_what_is_lost_on_all_and_what_on_one_alone_is_told_apart(tables):
    found = agreement(tables, tolerance={"accuracy": 0.03})
    m1 = found.languages.query("model == 'm1'").set_index("language")
    assert m1["state"].drop(POOLED).to_dict() == {"fr": "lost", "sw": "differs", "en": "kept", "yo": "kept"}
    assert m1.loc["sw", ["on a", "on b"]].tolist() == ["lost", "kept"]
    assert set(found.languages.query("model == 'm2'")["state"]) == {"kept"}
    assert (found.state("m1"), found.state("m2"), found.order()) == ("lost", "kept", ["m1", "m2"])


def test_each_corpus_is_judged_as_it_is_alone(tables):
    found = agreement(tables, tolerance={"accuracy": 0.03})
    for name, one in tables.items():
        alone = verdict(one, tolerance={"accuracy": 0.03})
        both = alone.languages.merge(found.languages, on=["model", "probe", "language"], suffixes=("", " together"))
        assert len(both) == len(alone.languages)
        assert (both["state"] == both[f"on {name}"]).all()


def test_on_all_against_what_each_state_says_of_the_change():
    # What a state leaves open of the true change: below, within or above what is tolerated.
    allows = {"lost": "-", "gained": "+", "kept": "0", "not lost": "0+", "cannot tell": "-0+", "no value": "-0+"}
    for states in itertools.product(allows, repeat=3):
        found, sets = on_all(states), [set(allows[s]) for s in states]
        lost, safe = ([s <= set(which) for s in sets] for which in ("-", "0+"))
        assert (found == "lost") == all(lost)
        assert (found in SAFE) == all(safe)
        assert (found == "differs") == (any(lost) and any(safe))
        assert found not in ("kept", "gained") or len(set(states)) == 1


def test_languages_are_matched_by_code_and_the_others_stay_with_their_corpus(tables):
    other = table(2, [0, 0], codes=["yo", "fr", "zh"])
    mixed = {"a": tables["a"], "c": other}
    assert common_languages(mixed) == ["fr", "yo"]
    found = agreement(mixed, tolerance={"accuracy": 0.03})
    assert set(found.languages["language"]) == {"fr", "yo", POOLED}
    assert "zh" in set(found.corpora["c"].languages["language"])


def test_what_is_judged_is_what_every_corpus_has(tables):
    with pytest.raises(InputError, match=r"no measure can be judged on every corpus .a by accuracy; b by retrieval"):
        agreement({"a": tables["a"], "b": table(3, [0, 0], probe="retrieval")})
    with pytest.raises(InputError, match="corpus 'b': probe 'accuracy' was not measured"):
        agreement({"a": tables["a"], "b": table(3, [0, 0], probe="retrieval")}, judge=["accuracy"])
