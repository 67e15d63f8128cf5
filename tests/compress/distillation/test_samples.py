"""Samples of denoisers whose distribution is known, the distance of two sets, and what layers hold by level."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from denoised import CENTRES, SPREAD, Exact, Tiny, rows, tiny

import compress
import probes
from probes.errors import InputError

LABEL = np.arange(600) % 4  # of which 3 is none
NOISE = np.random.default_rng(0).normal(size=(600, 2))
WHERE = np.vstack([CENTRES, np.zeros(2)])[LABEL]


def distilled(steps=(4, 2), guidance=(0, 2), sampler="deterministic"):
    model = tiny()
    about = {"method": "distill_diffusion", "steps": list(steps), "guidance": list(guidance), "sampler": sampler}
    model.compression = about
    return model


def test_the_best_denoiser_of_a_normal_distribution_makes_samples_of_it():
    # Its path has a closed form: the deviation of the noise, times the spread.
    found = compress.sample_diffusion(Exact(), NOISE, LABEL, steps=400)
    np.testing.assert_allclose(found, WHERE + SPREAD * NOISE, atol=0.01)
    # One step is what is expected of all noise: the centre.
    np.testing.assert_allclose(compress.sample_diffusion(Exact(), NOISE, LABEL, steps=1), WHERE, atol=1e-6)


def test_the_stochastic_sampler_goes_twice_as_far_and_back_by_new_noise():
    one, again, other = (
        compress.sample_diffusion(Exact(), NOISE, LABEL, steps=8, sampler="stochastic", seed=s) for s in (0, 0, 1)
    )
    assert (one == again).all()
    assert np.abs(one - other).mean() > 0.1 * SPREAD
    # The deviation from the centre is multiplied by a number in each step of DDIM, and noise adds to its variance.
    variance = 1.0
    for i in range(8, 0, -1):
        start, far, end = (level * math.pi / 16 for level in (i, max(i - 2, 0), i - 1))
        best = math.cos(start) * SPREAD**2 / (math.cos(start) ** 2 * SPREAD**2 + math.sin(start) ** 2)
        kept = math.cos(far) * best + math.sin(far) / math.sin(start) * (1 - math.cos(start) * best)
        variance *= kept**2
        if i > 1:
            back = math.cos(end) / math.cos(far)
            variance = back**2 * variance + math.sin(end) ** 2 - (back * math.sin(far)) ** 2
    deviation = one - WHERE
    np.testing.assert_allclose(deviation.std(), math.sqrt(variance), rtol=4 / math.sqrt(2 * deviation.size))
    assert np.abs(deviation.mean(0)).max() < 4 * math.sqrt(variance / 600)
    same = (
        compress.sample_diffusion(Exact(), NOISE, LABEL, steps=1, sampler=s) for s in ("deterministic", "stochastic")
    )
    np.testing.assert_array_equal(*same)


def test_guidance_leads_away_from_what_no_class_is():
    # The classes have one spread, so the guided one is normal about (1 + w) times the centre.
    found = compress.sample_diffusion(Exact(), NOISE, LABEL, steps=400, guidance=1.5)
    np.testing.assert_allclose(found, 2.5 * WHERE + SPREAD * NOISE, atol=0.03)


def test_what_is_sampled_at_once_does_not_matter_and_the_denoiser_stays():
    model = tiny().train()
    one, other = (compress.sample_diffusion(model, NOISE, LABEL, steps=3, guidance=1, batch_size=n) for n in (600, 7))
    np.testing.assert_allclose(one, other, atol=1e-5)
    assert one.dtype == np.float32
    assert model.training


def test_what_was_distilled_runs_once_a_step_as_it_learned():
    calls = []
    for model in (distilled(), tiny()):
        model.register_forward_pre_hook(lambda _m, args: calls.append((len(args[0]), args[3].unique().tolist())))
        compress.sample_diffusion(model, NOISE, LABEL, steps=2, guidance=1.5)
    # Each first reads two rows, to see whether it can; the other then twice as many rows, without guidance.
    assert calls == [(2, [0.0]), (600, [1.5]), (600, [1.5]), (2, [0.0]), (1200, [0.0]), (1200, [0.0])]


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        (tiny(), {}, "Tiny was not distilled to a number of steps: give steps=..., as 64"),
        (tiny(), {"steps": 0}, "steps=0: expected a whole number of at least 1"),
        (tiny(), {"steps": 2, "guidance": -1}, "guidance=-1: expected a weight of at least 0"),
        (tiny(), {"steps": 2, "sampler": "x"}, "sampler='x' is not known"),
        (tiny(), {"steps": 2, "label": LABEL + 1}, "label: row 3 has 4: expected 0 to 2, or 3 for none"),
        (tiny(), {"steps": 2, "noise": NOISE[:, :1]}, r"Tiny: forward\(x, level, label, guidance\) fails on two rows"),
        (tiny(), {"steps": 2, "noise": 3.0}, "noise: expected finite numbers of shape"),
        (distilled(), {"guidance": 3}, "guidance=3: Tiny was distilled for weights of 0 to 2"),
        (distilled(), {"steps": 4}, "steps=4: Tiny was distilled to take 2 steps"),
        (distilled(), {"sampler": "stochastic"}, "sampler='stochastic': Tiny was distilled for the deterministic one"),
    ],
)
def test_samples_that_cannot_be_meant_are_refused(model, changes, message):
    given = {"noise": NOISE, "label": LABEL} | changes
    with pytest.raises(InputError, match=message):
        compress.sample_diffusion(model, given.pop("noise"), given.pop("label"), **given)


def test_one_pass_of_guidance_alone_is_sampled_by_any_steps():
    model = distilled(steps=[4], sampler=None)
    shapes = [compress.sample_diffusion(model, NOISE, LABEL, **how).shape for how in ({}, {"steps": 1})]
    assert shapes == [(600, 2)] * 2


# The distance


def test_the_distance_is_that_of_the_formula():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(90, 5)) @ rng.normal(size=(5, 5)), 1 + rng.normal(size=(70, 5)) * 2
    a, b = np.cov(x.T), np.cov(y.T)
    root = scipy.linalg.sqrtm(a @ b).real
    wanted = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a + b - 2 * root)
    assert compress.frechet_distance(x, y) == pytest.approx(wanted, rel=1e-9)
    assert compress.frechet_distance(y, x) == pytest.approx(wanted, rel=1e-9)
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    assert compress.frechet_distance(x @ turn + 3, y @ turn + 3) == pytest.approx(wanted, rel=1e-9)


def test_the_distance_of_one_feature_is_that_of_means_and_deviations():
    x, y = np.random.default_rng(0).normal(size=(2, 50, 1)) * [[[1]], [[3]]]
    wanted = (x.mean() - y.mean()) ** 2 + (x.std(ddof=1) - y.std(ddof=1)) ** 2
    assert compress.frechet_distance(x, y) == pytest.approx(wanted, rel=1e-9)


def test_the_distance_to_itself_is_0_also_with_fewer_rows_than_features():
    x = np.random.default_rng(0).normal(size=(3, 8))
    assert compress.frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
    assert compress.frechet_distance(np.ones((3, 2)), np.ones((4, 2))) == 0
    assert compress.frechet_distance(x, x + 1) == pytest.approx(8, abs=1e-6)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.ones((3, 2)), np.ones((3, 4)), r"two sets of vectors of one width, .* found \(3, 2\) and \(3, 4\)"),
        (np.ones(3), np.ones(3), r"found \(3,\) and \(3,\)"),
        (np.ones((1, 2)), np.ones((3, 2)), "at least two rows each"),
        (np.full((3, 2), np.nan), np.ones((3, 2)), "NaN or infinite"),
    ],
)
def test_what_are_no_two_sets_is_refused(x, y, message):
    with pytest.raises(InputError, match=message):
        compress.frechet_distance(x, y)


# What layers hold


def test_layers_are_captured_level_by_level_with_the_same_noise():
    model, (x, label) = tiny(), rows(12)
    reps = compress.capture_denoiser(model, (x, label), modules=["into", "inner"], levels=[0.25, 1], seed=4)
    assert reps["language"].values.tolist() == ["noise 0.25"] * 12 + ["noise 1.00"] * 12
    assert reps["id"].values.tolist() == [str(i) for i in range(12)] * 2
    assert reps["label"].values.tolist() == [str(c) for c in label] * 2
    assert reps["module"].values.tolist() == ["into", "inner"]
    noise = np.random.default_rng(4).normal(size=(12, 2))
    z = torch.from_numpy(math.cos(math.pi / 8) * x + math.sin(math.pi / 8) * noise).float()
    angle = torch.full((12, 1), math.pi / 8)
    read = torch.cat([z, angle.cos(), angle.sin(), torch.zeros(12, 1), model.of_label(torch.from_numpy(label))], 1)
    with torch.no_grad():
        first = model.into(read)
        wanted = torch.stack([first, model.inner(torch.nn.functional.silu(first))])
    np.testing.assert_allclose(reps["hidden"].values[:, :12], wanted, atol=1e-5)
    # At level 1 nothing is left of x.
    other = compress.capture_denoiser(model, (x[::-1].copy(), label), modules=["into"], levels=[1], seed=4)
    np.testing.assert_allclose(other["hidden"].values[0], reps["hidden"].values[0, 12:], atol=1e-5)


def test_teacher_and_student_are_compared_by_level():
    data = rows(30)
    one, other = (compress.capture_denoiser(m, data, modules=["into", "inner"]) for m in (tiny(), tiny(1)))
    same, found = (probes.similarity(one, x, draws=20) for x in (one, other))
    assert {"noise 0.25", "noise 0.50", "noise 0.75", "noise 1.00"} < set(same["language"].values)
    values, others = (np.diagonal(x["value"].values) for x in (same, found))
    np.testing.assert_allclose(values, 1, atol=1e-9)
    assert (others < 0.999).any()


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        (tiny(), {"levels": [0, 0.5]}, r"levels=\[0, 0.5\]: expected levels of noise above 0 and at most 1"),
        (tiny(), {"levels": []}, "expected levels of noise"),
        (tiny(), {"levels": [0.501, 0.502]}, "no two alike to two decimals"),
        (tiny(), {"guidance": 1}, "guidance=1: Tiny was not distilled, and runs twice for that"),
        (distilled(), {"guidance": 3}, "guidance=3: Tiny was distilled for weights of 0 to 2"),
        (tiny(), {"modules": ["outer"]}, "Tiny: no module named 'outer'; it has of_label"),
        (tiny(), {"modules": ["inner", "out"]}, "the modules differ in width"),
    ],
)
def test_what_cannot_be_captured_is_named(model, changes, message):
    with pytest.raises(InputError, match=message):
        compress.capture_denoiser(model, rows(6), **{"modules": ["inner"]} | changes)


def test_what_was_distilled_is_captured_with_its_guidance():
    model = distilled()
    none, more = (compress.capture_denoiser(model, rows(6), modules=["into"], guidance=w) for w in (0, 2))
    assert isinstance(model, Tiny)
    assert np.abs(none["hidden"] - more["hidden"]).max() > 0.01
