"""The share of each training language in the predictions, against its definition."""

import numpy as np
import pytest
import xarray as xr
from explained import halves, with_one
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

import probes
from probes.measures.attribution.representer_support import representer_support
from probes.measures.attribution.representers import representers


def with_splits(logits=True, **settings):
    """Both halves in one data set, told apart by `split`, with outputs that a model may have given."""
    train, test = halves(**settings)
    reps = xr.concat([train, test], "example")
    split = np.repeat(["train", "test"], [train.sizes["example"], test.sizes["example"]])
    reps = reps.assign_coords(split=("example", split.astype(object)))
    if not logits:
        return reps
    given = 2 * reps.hidden.values[-1][:, :4] + np.random.default_rng(1).normal(size=(len(split), 4))
    return reps.assign(logits=(("example", "class"), given)).assign_coords({"class": [*"0123"]})


@pytest.mark.parametrize("logits", [True, False])
def test_support_is_the_share_of_each_training_language_in_the_logits(logits):
    reps = with_splits(logits)
    out = representer_support(reps, progress=False)
    assert out.value.dims == ("layer", "other_language", "language")
    np.testing.assert_allclose(out.value.sum("other_language"), 1, atol=1e-8)
    np.testing.assert_allclose(out.draws.sum("other_language"), 1, atol=1e-8)
    train, test = (reps.isel(example=reps.split.values == s) for s in ("train", "test"))
    if logits:
        targets = softmax(train.logits.values, axis=1)
        picked = test.logits.values.argmax(axis=1)
    for layer in (0, 1):
        values = representers(train, test, layer=layer)
        if logits:  # the same solution, from its definition
            head = LogisticRegression(C=1 / (2 * 3e-4 * len(targets)), fit_intercept=False, max_iter=10_000, tol=1e-12)
            f = with_one(train.hidden.values[layer])
            weight = targets.T.ravel()
            head.fit(np.tile(f, (4, 1)), np.repeat(np.arange(4), len(f)), sample_weight=weight)
            p = head.predict_proba(f)
            alpha = (targets - p) / (2 * 3e-4 * len(f))
            matrix = alpha.T[picked] * (with_one(test.hidden.values[layer]) @ f.T)
        else:
            matrix = values.matrix()
        for language in ("l0", "l2", "pooled"):
            rows = np.isin(test.language.values, [language]) | (language == "pooled")
            mine = train.language.values == "l1"
            share = matrix[rows][:, mine].sum() / matrix[rows].sum()
            at = out.sel(layer=layer, other_language="l1", language=language)
            assert float(at.value) == pytest.approx(share, abs=1e-3 if logits else 1e-8)
            assert at.low <= at.value <= at.high
            assert at.n == rows.sum()


def test_a_language_that_training_lacks_has_no_share():
    reps = with_splits()
    reps = reps.isel(example=~((reps.split.values == "train") & (reps.language.values == "l2")))
    out = probes.compare({"a": reps}, probes=["representer_support"], draws=20, progress=False).table
    assert set(out["other_language"]) == {"l0", "l1"}
    assert set(out["language"]) == {"l0", "l1", "l2", "pooled"}
    shares = out.groupby(["layer", "language"])["value"].sum()
    np.testing.assert_allclose(shares, 1, atol=1e-8)


def test_support_needs_splits_that_share_no_id_and_says_so():
    reps = with_splits()
    with pytest.raises(
        probes.InputError, match=r"no row has the split 'train'; expected a coordinate 'split'.*Capture a"
    ):
        representer_support(reps.drop_vars("split"))
    with pytest.raises(probes.InputError, match="no row has the split 'test'"):
        representer_support(reps.isel(example=reps.split.values == "train"))
    mixed = reps.assign_coords(split=("example", np.where(reps.language.values == "l0", "train", "test")))
    with pytest.raises(probes.InputError, match=r"id '\d+' is in split 'train' and in split 'test'.*own translations"):
        representer_support(mixed)


def test_a_layer_that_is_not_finite_has_no_support_and_is_named():
    reps = with_splits().copy(deep=True)
    reps.hidden.values[0, 3, 1] = np.inf
    with pytest.warns(probes.LayerscopeWarning, match="layer 0: 1 rows are not finite"):
        out = representer_support(reps, progress=False)
    assert np.isnan(out.value.sel(layer=0)).all()
    assert np.isfinite(out.value.sel(layer=1)).all()


def test_logits_that_are_not_finite_leave_no_support_and_are_named():
    reps = with_splits().copy(deep=True)
    reps.logits.values[5] = np.nan
    with pytest.warns(probes.LayerscopeWarning, match="every layer: the logits of 1 rows are not finite"):
        out = representer_support(reps, progress=False)
    assert np.isnan(out.value).all()
