import itertools
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from planted import planted
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr

import probes
from probes.measures.fidelity.similarity import MEASURES, similarity
from probes.results.draws import sample
from probes.states.tokens import Batches

SIMILARITIES = [m for m in MEASURES if MEASURES[m].kind == "similarity"]


def hsic(k, l, debiased):  # noqa: E741
    n = len(k)
    if not debiased:
        h = np.eye(n) - 1 / n
        return np.trace(h @ k @ h @ l)
    k, l, one = k - np.diag(np.diag(k)), l - np.diag(np.diag(l)), np.ones(n)  # noqa: E741
    return np.trace(k @ l) + one @ k @ one * (one @ l @ one) / (n - 1) / (n - 2) - 2 * one @ k @ l @ one / (n - 2)


def cka(x, y, debiased=False):
    k, l = (z.astype(np.float64) @ z.astype(np.float64).T for z in (x, y))  # noqa: E741
    return hsic(k, l, debiased) / np.sqrt(hsic(k, k, debiased) * hsic(l, l, debiased))


def procrustes(x, y):
    x, y = (z - z.mean(axis=0) for z in (x, y))
    cosine = np.linalg.norm(x.T @ y, "nuc") / np.linalg.norm(x) / np.linalg.norm(y)
    return np.arccos(np.clip(cosine, -1, 1))


def canonical(x, y, weighted):
    main = []
    for z in (x, y):
        z = z - z.mean(axis=0)
        values, axes = np.linalg.eigh(z.T @ z)
        values, axes = values[::-1], axes[:, ::-1]
        kept = np.flatnonzero(np.cumsum(values) / values.sum() >= 0.99 - 1e-12)[0] + 1
        main.append(z @ axes[:, :kept])
    # By the eigenvectors of the product of projections, in place of a singular value decomposition.
    projections = [z @ np.linalg.pinv(z) for z in main]
    values, axes = np.linalg.eig(projections[0] @ projections[1])
    order = np.argsort(-values.real)[: min(z.shape[1] for z in main)]
    rho = np.sqrt(np.clip(values.real[order], 0, 1))
    if not weighted:
        return rho.mean()
    directions = axes[:, order].real
    directions /= np.linalg.norm(directions, axis=0)
    weight = np.abs(directions.T @ (x - x.mean(axis=0))).sum(axis=1)
    return rho @ weight / weight.sum()


def rsa(x, y):
    return spearmanr(pdist(x), pdist(y)).statistic


def neighbour_overlap(x, y):
    near = []
    for z in (x, y):
        z = z / np.linalg.norm(z, axis=1, keepdims=True)
        cosine = z @ z.T
        near.append(
            [
                set(sorted((j for j in range(len(z)) if j != i), key=lambda j: -row[j])[:10])
                for i, row in enumerate(cosine)
            ]
        )
    return np.mean([len(a & b) / 10 for a, b in zip(*near, strict=True)])


BY_HAND = {
    "cka": cka,
    "cka_debiased": lambda x, y: cka(x, y, debiased=True),
    "procrustes": procrustes,
    "svcca": lambda x, y: canonical(x, y, weighted=False),
    "pwcca": lambda x, y: canonical(x, y, weighted=True),
    "rsa": rsa,
    "neighbour_overlap": neighbour_overlap,
}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def pair(rng):
    """Two models of different width that share some directions."""
    x = rng.normal(size=(60, 12)) * np.linspace(3, 0.5, 12)
    return x, np.concatenate([x[:, ::2] + 0.5 * rng.normal(size=(60, 6)), rng.normal(size=(60, 3))], axis=1)


@pytest.fixture
def two(rng):
    base = planted(rng, ids=40, layers=3)
    return base, planted(rng, ids=40, layers=2, features=10).assign(label=base.label)


def rotation(rng, n):
    return np.linalg.qr(rng.normal(size=(n, n)))[0]


# --- the values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", MEASURES)
def test_equals_an_independent_computation(measure, pair):
    assert similarity(*pair, measure=measure) == pytest.approx(BY_HAND[measure](*pair), abs=1e-9)
    x, y = pair
    assert abs(BY_HAND[measure](x, y) - BY_HAND[measure](x, np.roll(y, 1, axis=0))) > 0.05


@pytest.mark.parametrize("measure", MEASURES)
def test_every_pair_of_layers_and_every_language_and_pooled_equal_the_arrays_alone(measure, two):
    base, other = two
    out = similarity(base, other, measure=measure, draws=2)
    assert out.value.dims == ("layer", "other_layer", "language")
    assert dict(out.value.sizes) == {"layer": 3, "other_layer": 2, "language": 3}
    for language in ("l0", "l1", "pooled"):
        rows = base.language.values == language if language != "pooled" else slice(None)
        for i, j in itertools.product(range(3), range(2)):
            x, y = base.hidden.values[i][rows], other.hidden.values[j][rows]
            at = out.sel(layer=i, other_layer=j, language=language)
            assert float(at.value) == pytest.approx(BY_HAND[measure](x, y), abs=1e-9)
            assert at.n == len(x)


@pytest.mark.parametrize("measure", MEASURES)
def test_within_one_model_is_the_same_as_against_a_copy_of_it(measure, two):
    base = two[0]
    within, against = similarity(base, measure=measure), similarity(base, base.copy(), measure=measure)
    # Rounding of the cosine of an angle of 0 is its square root.
    for name in ("value", "low", "high"):
        np.testing.assert_allclose(within[name], against[name], atol=1e-7)
    same = np.einsum("iik->ik", within.value.values)
    np.testing.assert_allclose(same, 0 if MEASURES[measure].kind == "distance" else 1, atol=1e-7)


@pytest.mark.parametrize("debiased", [False, True])
@pytest.mark.parametrize("features", [5, 300])
def test_cka_is_the_same_by_gram_matrices_and_by_products_of_features(rng, debiased, features):
    # With 5 features and 80 examples features are fewer to multiply, with 300 examples are.
    x = rng.normal(size=(2, 80, features))
    y = x[:, :, ::-1] + rng.normal(size=x.shape)
    out = similarity(probes.from_arrays(x), probes.from_arrays(y), measure="cka_debiased" if debiased else "cka")
    within = similarity(probes.from_arrays(x), measure="cka_debiased" if debiased else "cka")
    for i, j in itertools.product(range(2), range(2)):
        assert float(out.value[i, j, 0]) == pytest.approx(cka(x[i], y[j], debiased), abs=1e-9)
        assert float(within.value[i, j, 0]) == pytest.approx(cka(x[i], x[j], debiased), abs=1e-9)


def test_gram_matrices_in_blocks_of_rows_give_the_same(rng, monkeypatch):
    x, y = rng.normal(size=(2, 3, 50, 40))
    whole = similarity(probes.from_arrays(x), probes.from_arrays(y))
    monkeypatch.setattr(sys.modules["probes.measures.fidelity.similarity"], "_ENTRIES", 6 * 50 * 7)
    blocks = similarity(probes.from_arrays(x), probes.from_arrays(y))
    for name in ("value", "low", "high"):
        np.testing.assert_allclose(blocks[name], whole[name], atol=1e-12)


@pytest.mark.parametrize("debiased", [False, True])
def test_cka_of_many_float32_states_is_that_of_float64(rng, debiased, monkeypatch):
    monkeypatch.setattr(sys.modules["probes.measures.fidelity.similarity"], "_MANY", 10**6)
    x = (rng.normal(size=(2, 700, 40)) * np.linspace(5, 0.1, 40)).astype(np.float32)
    y = (0.3 * x + rng.normal(size=x.shape)).astype(np.float32)
    measure = "cka_debiased" if debiased else "cka"
    exact = np.array([[cka(a, b, debiased) for b in y] for a in x])
    doubled = [probes.from_arrays(z.astype(np.float64)) for z in (x, y)]
    double = similarity(*doubled, measure=measure).sel(language="pooled")
    np.testing.assert_allclose(double.value, exact, atol=1e-12)
    single = similarity(probes.from_arrays(x), probes.from_arrays(y), measure=measure).sel(language="pooled")
    np.testing.assert_allclose(single.value, exact, atol=1e-8)
    np.testing.assert_allclose(single.low, double.low, atol=1e-7)
    # Nor where one feature dwarfs the others: float32 would keep little of these.
    x[:, :, 0] *= 1000
    exact = np.array([[cka(a, b, debiased) for b in y] for a in x])
    dominated = similarity(probes.from_arrays(x), probes.from_arrays(y), measure=measure).sel(language="pooled")
    np.testing.assert_allclose(dominated.value, exact, atol=1e-10)
    # Numbers whose products float32 cannot hold are multiplied in float64.
    tiny, huge = (1e-25 * x).astype(np.float32), (1e25 * y).astype(np.float32)
    far = similarity(probes.from_arrays(tiny), probes.from_arrays(huge), measure=measure).sel(language="pooled")
    np.testing.assert_allclose(far.value, exact, atol=1e-6)


@pytest.mark.parametrize("measure", ["cka", "cka_debiased"])
def test_cka_of_features_dominated_by_their_mean(rng, measure):
    x = rng.normal(size=(100, 30))
    y = x[:, :20] + rng.normal(size=(100, 20))
    shift = 1e4 * rng.normal(size=30)
    moved = (x + shift).astype(np.float32), (y + shift[:20]).astype(np.float32)
    # What float32 keeps of them, by a Gram matrix of centred float64.
    exact = cka(*(z.astype(np.float64) - z.astype(np.float64).mean(axis=0) for z in moved), measure == "cka_debiased")
    assert similarity(*moved, measure=measure) == pytest.approx(exact, abs=1e-6)
    k, l = (z @ z.T for z in moved)  # noqa: E741
    assert abs(hsic(k, l, True) / np.sqrt(abs(hsic(k, k, True) * hsic(l, l, True))) - exact) > 1e-3


def test_debiased_cka_of_unrelated_states_is_around_zero_and_stays_negative_where_it_is(rng):
    values = [similarity(*rng.normal(size=(2, 30, 50)), measure="cka_debiased") for _ in range(60)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(60)
    assert min(values) < -0.02
    biased = [similarity(*rng.normal(size=(2, 30, 50))) for _ in range(10)]
    assert min(biased) > 0.5


# --- what they say of themselves -------------------------------------------------------------------------------------


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
def test_symmetric_or_not_as_it_says(measure, pair):
    x, y = pair
    assert (abs(similarity(x, y, measure=measure) - similarity(y, x, measure=measure)) < 1e-9) == MEASURES[
        measure
    ].symmetric


@pytest.mark.parametrize("change", ["rotation", "shift", "scale", "order"])
@pytest.mark.parametrize("measure", MEASURES)
def test_unchanged_by_what_it_says_it_ignores(rng, measure, change, pair):
    x, y = pair
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


def test_pwcca_depends_on_the_axes_of_the_first_model_and_not_of_the_second(rng, pair):
    x, y = pair
    value = similarity(x, y, measure="pwcca")
    assert similarity(x @ rotation(rng, x.shape[1]), y, measure="pwcca") != pytest.approx(value, abs=1e-4)
    assert similarity(x, y @ rotation(rng, y.shape[1]), measure="pwcca") == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("measure", MEASURES)
def test_changed_by_what_none_ignores(rng, measure, pair):
    x, y = pair
    value = similarity(x, y, measure=measure)
    for moved in (y[rng.permutation(len(y))], y * np.exp(rng.normal(size=y.shape[1])), y**3):
        assert abs(similarity(x, moved, measure=measure) - value) > 1e-3 or measure in ("svcca", "pwcca")
    # Canonical correlations follow every invertible map, as far as it keeps the directions above 99 %.
    assert abs(similarity(x, y[rng.permutation(len(y))], measure=measure) - value) > 1e-2


def test_the_distance_keeps_the_triangle_inequality(rng):
    x = [rng.normal(size=(20, int(rng.integers(2, 12)))) for _ in range(12)]
    x += [z[:, : max(1, z.shape[1] // 2)] + 0.1 * rng.normal(size=(20, max(1, z.shape[1] // 2))) for z in x]
    d = np.array([[similarity(a, b, measure="procrustes") for a in x] for b in x])
    assert (d[:, None, :] <= d[:, :, None] + d[None, :, :] + 1e-7).all()
    # One minus CKA is no metric: this is not true of every function.
    s = 1 - np.array([[similarity(a, b) for a in x] for b in x])
    assert not (s[:, None, :] <= s[:, :, None] + s[None, :, :] + 1e-7).all()


@pytest.mark.parametrize("measure", MEASURES)
def test_noise_makes_layers_less_alike_step_by_step(rng, measure):
    x = rng.normal(size=(150, 10))
    values = [similarity(x, x + s * rng.normal(size=x.shape), measure=measure) for s in (0.1, 0.5, 2.0, 10.0)]
    ordered = sorted(values, reverse=MEASURES[measure].kind == "similarity")
    assert values == ordered


# --- intervals -------------------------------------------------------------------------------------------------------


def layered(rng, ids, sets, noise=1.0, features=8):
    """Two models whose layers, pair by pair, are data sets of their own: (set, example, feature) twice."""
    x = rng.normal(size=(sets, ids, features)) * np.linspace(2, 0.5, features)
    return x, x @ rotation(rng, features) + noise * rng.normal(size=x.shape)


@pytest.mark.parametrize("noise", [0.5, 2.0])
@pytest.mark.parametrize("measure", MEASURES)
def test_intervals_hold_the_mean_over_data_sets_of_this_size(measure, noise):
    rng = np.random.default_rng(1)
    held, values = [], []
    for seed in range(60):
        x, y = layered(rng, 80, 3, noise)
        out = similarity(probes.from_arrays(x), probes.from_arrays(y), measure=measure, seed=seed).sel(
            language="pooled"
        )
        values += [float(out.value[i, i]) for i in range(3)]
        held += [(float(out.low[i, i]), float(out.high[i, i])) for i in range(3)]
    truth = np.mean(values)
    coverage = np.mean([low <= truth <= high for low, high in held])
    # 180 sets: two standard errors are 3 %.
    assert 0.88 <= coverage <= 0.995, coverage


@pytest.mark.parametrize("measure", MEASURES)
def test_intervals_hold_their_value_and_narrow_with_more_sentences(measure):
    rng = np.random.default_rng(2)
    wide = []
    for ids in (40, 160, 640):
        x, y = (probes.from_arrays(z) for z in layered(rng, ids, 4))
        out = similarity(x, y, measure=measure).sel(language="pooled")
        assert ((out.low <= out.value) & (out.value <= out.high)).all()
        wide.append(float((out.high - out.low).values.diagonal().mean()))
    # By half for four times as many, where the value itself does not depend on their number.
    assert wide[0] > 1.2 * wide[1]
    assert wide[1] > 1.4 * wide[2]


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


# --- what does not fit -----------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("measure", MEASURES)
def test_a_constant_layer_and_rows_that_are_not_finite_have_no_value_and_are_named(two, measure):
    base, other = two[0].copy(deep=True), two[1].copy(deep=True)
    base.hidden.values[1] = 0.1 + 0.2
    other.hidden.values[0, 3] = np.inf
    other.hidden.values[0, 5] = np.nan
    with pytest.warns(probes.LayerscopeWarning) as caught:
        out = similarity(base, other, measure=measure)
    text = str(caught[0].message)
    assert "layer 1 of model arrays: all states are equal, so there is nothing to compare (l0, l1, pooled)" in text
    assert "layer 0 of model arrays: 2 rows are not finite (l0, pooled)" in text
    assert np.isnan(out.value.sel(layer=1)).all()
    assert np.isnan(out.value.sel(other_layer=0, language=["l0", "pooled"])).all()
    there = out.sel(layer=[0, 2], other_layer=1)
    assert np.isfinite(there.value).all()
    clean = similarity(two[0], two[1], measure=measure).sel(layer=[0, 2], other_layer=1)
    np.testing.assert_allclose(there.low, clean.low)


def test_a_state_of_zeros_has_no_neighbours_and_is_named(two):
    base = two[0].copy(deep=True)
    base.hidden.values[0, 0] = 0
    with pytest.warns(probes.LayerscopeWarning, match="layer 0: a state is all zero, so it has no direction"):
        similarity(base, measure="neighbour_overlap")


@pytest.mark.parametrize("measure", ["svcca", "pwcca"])
def test_too_few_examples_for_canonical_correlations_have_no_value_and_a_reason(rng, measure):
    with pytest.warns(
        probes.LayerscopeWarning, match="more directions to match than examples, so that everything would. Take more"
    ):
        out = similarity(probes.from_arrays(rng.normal(size=(20, 30))), measure=measure)
    assert np.isnan(out.value).all()


def test_what_is_no_measure_or_no_pair_of_arrays_is_refused(rng):
    with pytest.raises(probes.InputError, match="measure='CKA' is not known; choose one of 'cka', 'cka_debiased'"):
        similarity(np.eye(4), np.eye(4), measure="CKA")
    for y, found in ((None, "NoneType"), (np.eye(5), r"\(5, 5\)"), (np.ones(4), r"\(4,\)")):
        with pytest.raises(probes.InputError, match=rf"same examples in the same order; found \(4, 4\) and {found}"):
            similarity(np.eye(4), y)
    with pytest.raises(probes.InputError, match="expected Representations beside Representations; found ndarray"):
        similarity(probes.from_arrays(np.eye(4)), np.eye(4))


def test_rsa_ranks_the_pairs_of_some_of_many_examples(rng, monkeypatch):
    monkeypatch.setitem(MEASURES, "rsa", replace(MEASURES["rsa"], most=30))
    x = rng.normal(size=(80, 5))
    y = x + rng.normal(size=(80, 5))
    out = similarity(probes.from_arrays(x), probes.from_arrays(y), measure="rsa")
    assert (out.n == 30).all()
    assert abs(float(out.value.squeeze()[0]) - rsa(x, y)) < 0.2
    assert similarity(x, y, measure="rsa") == float(out.value.squeeze()[0])
    order = rng.permutation(80)
    shuffled = similarity(*(probes.from_arrays(z[order], id=order) for z in (x, y)), measure="rsa")
    np.testing.assert_allclose(
        shuffled.value, similarity(*(probes.from_arrays(z, id=range(80)) for z in (x, y)), measure="rsa").value
    )


# --- a real checkpoint -----------------------------------------------------------------------------------------------


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
        np.testing.assert_allclose(a.value, b.value, atol=2e-3 if measure == "neighbour_overlap" else 1e-5)


@pytest.fixture(scope="module")
def padded_pair(pretrained, shared_data):
    """Representations of a pretrained model, and once more with 24 more tokens of padding after every text."""
    model, tokenizer = probes.load_checkpoint(pretrained)
    corpus = probes.load_corpus(shared_data / "sib200.test.parquet", languages=["eng_Latn", "arb_Arab"])
    corpus = corpus.select(range(0, len(corpus), 3))
    plain = probes.capture(model, tokenizer, corpus, progress=False)
    make = Batches.tensors

    def padded(self, rows, pooling, device):
        inputs, weights = make(self, rows, pooling, device)
        padding = {k: tokenizer.pad_token_id if k == "input_ids" else 0 for k in inputs}
        inputs = {k: torch.nn.functional.pad(v, (0, 24), value=padding[k]) for k, v in inputs.items()}
        return inputs, torch.nn.functional.pad(weights, (0, 24))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Batches, "tensors", padded)
        return plain, probes.capture(model, tokenizer, corpus, progress=False)
