import numpy as np
import pytest
from scipy.spatial.distance import cdist

import probes
from probes.__main__ import main
from probes.measures import catalogue


@pytest.fixture(autouse=True)
def own(monkeypatch):
    monkeypatch.setattr(catalogue, "OWN", {})


def planted(n=90, layers=2, languages=1, far=2.0, seed=0):
    rng = np.random.default_rng(seed)
    label = np.arange(n) % 3
    x = rng.normal(size=(layers, n * languages, 6)) + far * np.eye(6)[np.tile(label, languages)]
    about = {"id": np.tile(np.arange(n), languages), "language": np.repeat(["en", "sw"][:languages], n)}
    return probes.from_arrays(x, label=np.tile(label, languages), **about)


def my_snr(x, labels, weights=None):
    """Distance between classes over that within, pairs of copies left out."""
    w = np.ones(len(x)) if weights is None else weights
    d = cdist(x, x)
    classes = np.unique(labels)
    mean = np.empty((len(classes), len(classes)))
    for i, one in enumerate(classes):
        for j, other in enumerate(classes):
            a, b = labels == one, labels == other
            pairs = np.outer(w[a], w[b]) * (~np.eye(len(x), dtype=bool))[np.ix_(a, b)]
            mean[i, j] = (pairs * d[np.ix_(a, b)]).sum() / pairs.sum()
    within = np.trace(mean) / len(classes)
    return (mean.sum() / len(classes) - within) / (len(classes) - 1) / within


def test_an_own_snr_gives_the_values_of_ours_and_its_intervals():
    mine = probes.probe(my_snr, better="higher", range=(0, np.inf))
    reps = planted()
    ours, own = probes.snr(reps), mine(reps, draws=200)
    np.testing.assert_allclose(own.value, ours.value, rtol=1e-12)
    np.testing.assert_allclose(own.high - own.low, ours.high - ours.low, rtol=0.15)
    assert own.attrs["resampling"] == ours.attrs["resampling"]  # the same draws, so that both may be paired
    assert mine(reps.hidden.values[0], np.arange(90) % 3) == pytest.approx(float(ours.value.sel(layer=0)[0]))


def test_compare_draws_and_reports_it_as_any_other(tmp_path):
    @probes.probe(better="lower", range=(0, np.inf), title="norm gap", higher_is="more unequal", paper="mine")
    def norm_gap(x, labels):
        norms = np.linalg.norm(x, axis=1)
        return np.ptp([norms[labels == c].mean() for c in np.unique(labels)])

    models = {"base": planted(languages=2), "near": planted(languages=2, far=0.0)}
    made = probes.compare(models, probes=["norm_gap", "snr"], draws=30, progress=False)
    rows = made.table.query("probe == 'norm_gap'")
    assert rows.groupby(["model", "language"]).size().tolist() == [2] * 6
    assert rows.query("model == 'near'")["p_adjusted"].notna().all()
    assert made.provenance["probes"]["norm_gap"]["better"] == "lower"
    direct = norm_gap(models["near"], draws=30)
    np.testing.assert_array_equal(
        rows.query("model == 'near' and language == 'sw'")["high"], direct.high.sel(language="sw")
    )
    assert made.plot("norm_gap").axes[0].get_title() == "norm gap, lower is better"
    assert "norm gap" in made.report(tmp_path / "r.html").read_text()
    opened = probes.Comparison.open(made.save(tmp_path / "run"))
    assert opened.summary().query("probe == 'norm_gap'")["model"].tolist() == ["base", "near"]


def test_a_function_of_the_baseline_compares_with_it():
    @probes.probe(range=(0, np.inf), better="lower")
    def moved(x, base):
        return float(np.abs(x - base).mean())

    base, other = planted(layers=3), planted(layers=2, seed=1)
    made = probes.compare({"base": base, "other": other}, probes=["moved"], draws=10, progress=False)
    assert set(made.table["model"]) == {"other"}
    expected = np.abs(other.hidden.values[1] - base.hidden.values[2]).mean()  # the last beside the last
    assert made.table.query("layer == 1 and language == 'en'")["value"].item() == pytest.approx(expected)
    assert moved(base, base=base, draws=5).value.max() == 0
    with pytest.raises(probes.InputError, match=r"moved compares with a baseline: expected base=..., Representations"):
        moved(base)


def test_drawn_rows_keep_translations_together():
    seen = []

    @probes.probe(range=(0, 200))
    def sentences(x, ids):
        seen.append(np.bincount(ids, minlength=90))
        return len(np.unique(ids))

    sentences(planted(languages=2, layers=1), draws=4)
    pooled = seen[-5:]
    assert all((count % 2 == 0).all() for count in pooled)
    assert (pooled[0] == 2).all()
    assert pooled[1].max() > 2


def test_what_is_wrong_is_said_at_once():
    def array(x):
        return x.mean(axis=0)

    def fails(x):
        raise ValueError("no luck")

    def wide(x):
        return 7.0

    def tall(x, height):
        return 0.0

    def snr(x):
        return 0.0

    for function, options, message in (
        (array, {}, r"array on 48 planted examples .*: expected a number, found an array of shape \(8,\)"),
        (fails, {}, r"fails on 48 planted .* raised ValueError: no luck"),
        (wide, {"range": (0, 1)}, r"wide on 48 planted .*: 7 is not within its range of 0 to 1"),
        (wide, {"range": (1, 0)}, r"wide: range=\(1, 0\): expected its smallest and its largest value"),
        (wide, {"better": "up"}, r"better='up': expected 'higher', 'lower' or ''"),
        (tall, {}, r"tall: expected a function of x \(example, feature\) and any of labels .*; found height"),
        (snr, {}, "'snr' is a probe of layerscope: give the function another name"),
        (lambda x: 0.0, {}, "expected a function with a name, made by def"),
    ):
        with pytest.raises(probes.InputError, match=message):
            probes.probe(function, **options)
    assert not catalogue.OWN


def test_what_fails_on_real_states_is_said_where():
    @probes.probe
    def brittle(x):
        if len(x) == 90:
            raise ZeroDivisionError("none")
        return 0.0

    with pytest.raises(probes.InputError, match="brittle of model arrays, layer 0, en raised ZeroDivisionError: none"):
        brittle(planted(), draws=2)

    @probes.probe
    def by_label(x, labels):
        return 0.0

    with pytest.raises(probes.InputError, match="this probe needs labels"):
        by_label(planted().drop_vars("label"))
    with pytest.raises(probes.InputError, match="by_label cannot be measured without labels"):
        probes.compare({"one": planted().drop_vars("label")}, probes=["by_label"])


def test_the_command_line_takes_it_from_a_module(tmp_path, monkeypatch, capsys):
    (tmp_path / "of_mine.py").write_text(
        "import probes\n@probes.probe(range=(0, 1e9))\ndef size(x):\n    return abs(x).mean()\n"
        "def plain(x):\n    return 0\n"
    )
    monkeypatch.chdir(tmp_path)
    about = ["compare", "a=bundled", "--corpus", "bundled", "--split", "dev", "--languages", "en", "--draws", "4"]
    about.append("--no-timing")
    assert main([*about, "--out", "out", "--probes", "of_mine:size"]) == 0
    assert set(probes.Comparison.open(tmp_path / "out").table["probe"]) == {"size"}
    for name, message in (
        ("of_mine:plain", "expected a function 'plain' in it that is made a probe by @probes.probe"),
        ("no_such:size", "the module 'no_such' cannot be imported"),
    ):
        assert main([*about, "--out", "out2", "--probes", name]) == 2
        assert message in capsys.readouterr().err
