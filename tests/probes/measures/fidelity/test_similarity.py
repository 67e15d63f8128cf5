import numpy as np
import pytest
import torch
from alike import BY_HAND, rotation

import probes
from probes.measures.fidelity.similarity import MEASURES, similarity
from probes.results.draws import sample
from probes.states.tokens import Batches

SIMILARITIES = [m for m in MEASURES if MEASURES[m].kind == "similarity"]


@pytest.mark.parametrize("measure", MEASURES)
def test_equals_an_independent_computation(measure, two_arrays):
    assert similarity(*two_arrays, measure=measure) == pytest.approx(BY_HAND[measure](*two_arrays), abs=1e-9)
    x, y = two_arrays
    assert abs(BY_HAND[measure](x, y) - BY_HAND[measure](x, np.roll(y, 1, axis=0))) > 0.05


@pytest.mark.parametrize("measure", MEASURES)
def test_says_what_it_is_as_data(measure, two):
    out = similarity(*two, measure=measure, draws=2)
    about = MEASURES[measure]
    assert out.attrs["probe"] == measure
    assert (out.attrs["kind"], out.attrs["symmetric"]) == (about.kind, about.symmetric)
    assert out.attrs["higher_is"] == ("more alike" if about.kind == "similarity" else "less alike")
    for key in ("estimator", "range", "unchanged_by", "paper", "interval"):
        assert out.attrs[key]
    assert (out.value.values >= about.bounds[0]).all()
    assert (out.value.values <= about.bounds[1]).all()


@pytest.mark.parametrize("measure", MEASURES)
def test_symmetric_or_not_as_it_says(measure, two_arrays):
    x, y = two_arrays
    assert (abs(similarity(x, y, measure=measure) - similarity(y, x, measure=measure)) < 1e-9) == MEASURES[
        measure
    ].symmetric


@pytest.mark.parametrize("change", ["rotation", "shift", "scale", "order"])
@pytest.mark.parametrize("measure", MEASURES)
def test_unchanged_by_what_it_says_it_ignores(rng, measure, change, two_arrays):
    x, y = two_arrays
    order = rng.permutation(len(x))
    moved = {
        "rotation": (x, y @ rotation(rng, y.shape[1])),
        "shift": (x, y + 5 * rng.normal(size=y.shape[1])),
        "scale": (x, 3.7 * y),
        "order": (x[order], y[order]),
    }[change]
    ignores = any(change in stated for stated in MEASURES[measure].unchanged_by)
    near = similarity(*moved, measure=measure) == pytest.approx(similarity(x, y, measure=measure), abs=1e-9)
    assert near == ignores


@pytest.mark.parametrize("measure", MEASURES)
def test_changed_by_what_none_ignores(rng, measure, two_arrays):
    x, y = two_arrays
    value = similarity(x, y, measure=measure)
    for moved in (y[rng.permutation(len(y))], y * np.exp(rng.normal(size=y.shape[1])), y**3):
        assert abs(similarity(x, moved, measure=measure) - value) > 1e-3 or measure in ("svcca", "pwcca")
    # Canonical correlations follow every invertible map, as far as it keeps the directions above 99 %.
    assert abs(similarity(x, y[rng.permutation(len(y))], measure=measure) - value) > 1e-2


@pytest.mark.parametrize("measure", MEASURES)
def test_noise_makes_layers_less_alike_step_by_step(rng, measure):
    x = rng.normal(size=(150, 10))
    values = [similarity(x, x + s * rng.normal(size=x.shape), measure=measure) for s in (0.1, 0.5, 2.0, 10.0)]
    ordered = sorted(values, reverse=MEASURES[measure].kind == "similarity")
    assert values == ordered


def layered(rng, ids, sets, noise=1.0, features=8):
    """Two models whose layers, pair by pair, are data sets of their own: (set, example, feature) twice."""
    x = rng.normal(size=(sets, ids, features)) * np.linspace(2, 0.5, features)
    return x, x @ rotation(rng, features) + noise * rng.normal(size=x.shape)


@pytest.mark.parametrize("measure", MEASURES)
def test_intervals_hold_the_mean_over_data_sets_of_this_size(measure):
    rng = np.random.default_rng(1)
    held, values = [], []
    for seed in range(60):
        x, y = layered(rng, 80, 3)
        out = similarity(probes.from_arrays(x), probes.from_arrays(y), measure=measure, seed=seed).sel(
            language="pooled"
        )
        values += [float(out.value[i, i]) for i in range(3)]
        held += [(float(out.low[i, i]), float(out.high[i, i])) for i in range(3)]
    truth = np.mean(values)
    coverage = np.mean([low <= truth <= high for low, high in held])
    # 180 sets: two standard errors are 3 %. To leave a neighbour out moves more than another sample does.
    assert 0.88 <= coverage <= (1 if measure == "mutual_information" else 0.995), coverage


@pytest.mark.parametrize("measure", MEASURES)
def test_intervals_hold_their_value_and_narrow_with_more_sentences(measure):
    rng = np.random.default_rng(2)
    wide = []
    for ids in (40, 160) if measure == "mutual_information" else (40, 160, 640):  # of many it has none
        x, y = (probes.from_arrays(z) for z in layered(rng, ids, 4))
        out = similarity(x, y, measure=measure).sel(language="pooled")
        assert ((out.low <= out.value) & (out.value <= out.high)).all()
        wide.append(float((out.high - out.low).values.diagonal().mean()))
    # By half for four times as many, where the value itself does not depend on their number.
    assert wide[0] > 1.2 * wide[1]
    assert measure == "mutual_information" or wide[1] > 1.4 * wide[2]


def test_draws_take_translations_together():
    rng = np.random.default_rng(3)
    x, y = layered(rng, 60, 1)
    repeated = [
        probes.from_arrays(np.tile(z, (1, 3, 1)), id=np.tile(np.arange(60), 3), language=np.repeat(["a", "b", "c"], 60))
        for z in (x, y)
    ]
    alone = similarity(*(probes.from_arrays(z) for z in (x, y))).sel(language="pooled")
    pooled = similarity(*repeated).sel(language="pooled")
    # Three copies of a sentence are one sentence, not three.
    np.testing.assert_allclose(pooled.high - pooled.low, alone.high - alone.low, rtol=1e-6)


def test_draws_are_those_of_other_probes():
    x, y = (probes.from_arrays(z) for z in layered(np.random.default_rng(4), 30, 2))
    assert similarity(x, y).attrs["resampling"] == sample(x, draws=200, seed=0).key
    np.testing.assert_array_equal(similarity(x, y, seed=5).draws, similarity(x, y, seed=5).draws)
    assert not np.array_equal(similarity(x, y, seed=5).draws, similarity(x, y, seed=6).draws)


def test_another_order_is_aligned_by_id_and_language(two):
    base, other = two
    order = np.random.default_rng(0).permutation(base.sizes["example"])
    shuffled = similarity(base, other.isel(example=order))
    np.testing.assert_allclose(shuffled.value, similarity(base, other).value)
    np.testing.assert_allclose(shuffled.low, similarity(base, other).low)
    unaligned = probes.from_arrays(other.hidden.values[:, order], id=base.id.values, language=base.language.values)
    assert np.abs(similarity(base, unaligned).value - shuffled.value).max() > 0.05


def test_other_sentences_are_refused(two):
    base, other = two
    base, other = base.assign_attrs(model="A"), other.assign_attrs(model="B")
    with pytest.raises(
        probes.InputError, match=r"1 of model 'A' \(first: id '39', language 'l1'\) are not among those of model 'B'"
    ):
        similarity(base, other.isel(example=slice(0, -1)))
    with pytest.raises(
        probes.InputError, match=r"different sentences: 40 of model 'B' .* not among those of model 'A'. Capture"
    ):
        similarity(base.isel(example=slice(0, 40)), other)


def test_too_few_examples_are_refused_with_the_language(two):
    with pytest.raises(
        probes.InputError, match=r"neighbour_overlap: language 'l0' has 5 examples, and needs at least 11"
    ):
        similarity(two[0].isel(example=slice(0, 5)), measure="neighbour_overlap")
    with pytest.raises(probes.InputError, match=r"cka_debiased: expected at least 4 examples; found 3"):
        similarity(np.eye(3), np.eye(3), measure="cka_debiased")


def test_what_is_no_measure_or_no_pair_of_arrays_is_refused(rng):
    with pytest.raises(probes.InputError, match="measure='CKA' is not known; choose one of 'cka', 'cka_debiased'"):
        similarity(np.eye(4), np.eye(4), measure="CKA")
    for y, found in ((None, "NoneType"), (np.eye(5), r"\(5, 5\)"), (np.ones(4), r"\(4,\)")):
        with pytest.raises(probes.InputError, match=rf"same examples in the same order; found \(4, 4\) and {found}"):
            similarity(np.eye(4), y)
    with pytest.raises(probes.InputError, match="expected Representations beside Representations; found ndarray"):
        similarity(probes.from_arrays(np.eye(4)), np.eye(4))


@pytest.mark.pretrained
@pytest.mark.shared_data
@pytest.mark.parametrize("measure", MEASURES)
def test_padding_changes_nothing_on_a_pretrained_model(padded_pair, measure):
    plain, padded = padded_pair
    if measure in ("svcca", "pwcca"):  # that need more examples than twice the directions
        plain, padded = plain.isel(feature=slice(0, 20)), padded.isel(feature=slice(0, 20))
    if measure == "procrustes":
        plain, padded = plain.isel(feature=slice(0, 100)), padded.isel(feature=slice(0, 100))
    a, b = similarity(plain, measure=measure), similarity(plain, padded, measure=measure)
    if measure == "procrustes":  # an angle near 0 is the square root of its rounding
        a, b = np.cos(a.value), np.cos(b.value)
        np.testing.assert_allclose(a, b, atol=1e-5)
    else:
        # One neighbour of ten that changes place by rounding is 0.1 / n.
        by_neighbours = measure in ("neighbour_overlap", "mutual_information")
        np.testing.assert_allclose(a.value, b.value, atol=2e-3 if by_neighbours else 1e-5)


@pytest.fixture(scope="module")
def padded_pair(pretrained, shared_data):
    """Representations of a pretrained model, and once more with 24 more tokens of padding after every text."""
    model, tokenizer = probes.load_checkpoint(pretrained)
    corpus = probes.load_corpus(shared_data / "sib200.test.parquet", languages=["eng_Latn", "arb_Arab"])
    corpus = corpus.select(range(0, len(corpus), 3))
    plain = probes.capture(model, tokenizer, corpus, max_length=512, progress=False)
    make = Batches.tensors

    def padded(self, rows, pooling, device):
        inputs, weights = make(self, rows, pooling, device)
        padding = {k: tokenizer.pad_token_id if k == "input_ids" else 0 for k in inputs}
        inputs = {k: torch.nn.functional.pad(v, (0, 24), value=padding[k]) for k, v in inputs.items()}
        return inputs, torch.nn.functional.pad(weights, (0, 24))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Batches, "tensors", padded)
        return plain, probes.capture(model, tokenizer, corpus, max_length=512, progress=False)
