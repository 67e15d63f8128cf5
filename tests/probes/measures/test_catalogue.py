"""What probes say of themselves, held against what they do on planted data: one test over the catalogue."""

import copy
import warnings
from dataclasses import replace
from functools import cache

import datasets
import numpy as np
import pytest
import torch
import xarray as xr
from declared import WORDS as NEEDED
from planted import planted
from scipy.stats import ortho_group
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput

import probes
from probes.__main__ import main
from probes.measures import catalogue
from probes.measures.choice import NEEDS
from probes.measures.probe import LARGE, THIS_SIZE, Probe, Run
from probes.results.draws import sample, weighted_means
from probes.results.result import result, split_measures

EACH = pytest.mark.parametrize("probe", catalogue.PROBES, ids=lambda probe: probe.name)
FEATURES = 8
WORDS = [f"w{i}" for i in range(40)]

# --- planted data: all that a probe can ask for ----------------------------------------------------------------------


def kind_of(probe):
    """What a probe reads: the modules of models, their outputs, the states of two models, or of one."""
    if "predicted tokens" in probe.needs:
        return "tokens"
    if "models to run" in probe.needs:
        return "modules"
    if "states of tokens" in probe.needs:
        return "words"
    if "logits" in probe.needs:
        return "outputs"
    if "predicted numbers" in probe.needs:
        return "numbers"
    return "pair" if probe.compares else "one"


def states(kind, good=True):
    """A run on states: classes apart, translations together and little changed, or the contrary."""
    rng = np.random.default_rng(0)
    # Good is far from perfect, so that what changes a value can be seen.
    design = {"ids": 90, "features": FEATURES, "classes": 3, "layers": 2, "decay": 1.0}
    reps = planted(rng, **design, distance=1.5 if good else 0.3, shared=0.8 if good else 0.2)
    split = ("example", np.where(np.arange(180) % 90 % 4 < 2, "train", "test"))
    reps = reps.assign_coords(split=split)
    if kind == "words":
        reps = of_words(reps, rng)
    if kind in ("one", "words"):
        return Run(reps, sample(reps, draws=4, seed=0), pivot="l0", progress=False)
    noise = rng.normal(size=reps.hidden.shape)
    base = reps.assign(hidden=reps.hidden + (0.3 if good else 3.0) * noise)
    if kind == "outputs":
        classes = {"class": sorted(set(reps.label.values))}
        truth = 2.0 * (reps.label.values[:, None] == np.array(classes["class"]))
        # Bad is worse away from the pivot.
        scale = 1.0 if good else np.where(reps.language.values == "l0", 4.0, 9.0)[:, None]
        logits = [truth + scale * rng.normal(size=truth.shape) for _ in range(2)]
        reps, base = (
            r.assign(logits=(("example", "class"), z)).assign_coords(classes)
            for r, z in zip((reps, base), logits, strict=True)
        )
    if kind == "numbers":
        truth = rng.normal(size=reps.sizes["example"])
        reps, base = (r.assign_coords(label=("example", truth.astype(str))) for r in (reps, base))
        said = [truth + (0.3 if good else 3.0) * rng.normal(size=truth.shape) for _ in range(2)]
        reps, base = (
            r.assign(numbers=(("example", "number"), z[:, None])) for r, z in zip((reps, base), said, strict=True)
        )
    return Run(reps, sample(reps, draws=4, seed=0), base=base, pivot="l0", progress=False)


def of_words(reps, rng):
    """Representations with three words a sentence, each its state and noise of its own."""
    n = reps.sizes["example"]
    words = np.repeat(reps.hidden.values, 3, axis=1)
    words = words + 0.7 * rng.normal(size=words.shape)
    reps = reps.assign_coords(token_text=("vocabulary", ["a", "b", "c"]))
    return reps.assign(
        tokens=(("layer", "token", "feature"), words),
        token_start=("example", np.arange(0, 3 * n, 3)),
        token_count=("example", np.full(n, 3)),
        token_place=("token", np.arange(3 * n) % 3),
        token_code=("token", rng.integers(0, 3, 3 * n)),
    )


class Straight(PreTrainedModel):
    """Embeddings and blocks of one linear layer each: its states can be turned, shifted and scaled by its weights."""

    config_class = PretrainedConfig

    def __init__(self, config, seed=0):
        super().__init__(config)
        torch.manual_seed(seed)
        self.embeddings = torch.nn.Embedding(len(WORDS) + 4, FEATURES)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(FEATURES, FEATURES) for _ in range(2))

    def get_input_embeddings(self):
        return self.embeddings

    def forward(self, input_ids, attention_mask=None, **_):
        x = self.embeddings(input_ids)
        for layer in self.layers:
            x = layer(x)
        return BaseModelOutput(last_hidden_state=x)

    def mapped(self, by, shift):
        """The same model with all states x as x by + shift."""
        other = copy.deepcopy(self)
        back = np.linalg.inv(by)
        with torch.no_grad():
            other.embeddings.weight.copy_(torch.tensor(self.embeddings.weight.numpy() @ by + shift))
            for layer, old in zip(other.layers, self.layers, strict=True):
                weight = back @ old.weight.numpy().T @ by
                layer.weight.copy_(torch.tensor(weight.T))
                layer.bias.copy_(torch.tensor(old.bias.numpy() @ by + shift - shift @ weight))
        return other


class Speaking(Straight):
    """The same with an output layer over tokens, whose logits can be shifted and scaled by its weights."""

    def __init__(self, config, seed=0):
        super().__init__(config, seed)
        self.head = torch.nn.Linear(FEATURES, len(WORDS) + 4)

    def get_output_embeddings(self):
        return self.head

    def forward(self, input_ids, attention_mask=None, **_):
        states = [self.embeddings(input_ids)]
        for layer in self.layers:
            states.append(layer(states[-1]))
        return CausalLMOutput(logits=self.head(states[-1]), hidden_states=tuple(states))

    def said(self, change):
        other = copy.deepcopy(self)
        with torch.no_grad():
            if change == TOKENS[0]:
                other.head.bias.add_(3.0)
            else:  # one that is as likely as all others stays so
                other.head.weight.mul_(3)
                other.head.bias.mul_(3)
        return other


def modules(make_tokenizer, good=True, kind=Straight):
    config = PretrainedConfig(vocab_size=len(WORDS) + 4, hidden_size=FEATURES, num_hidden_layers=2)
    base = kind(config).eval()
    rng = np.random.default_rng(0)
    other = copy.deepcopy(base)
    with torch.no_grad():
        for layer in other.layers:
            layer.weight.add_((0.05 if good else 0.5) * torch.tensor(rng.normal(size=(FEATURES, FEATURES))))
    texts = [" ".join(rng.choice(WORDS, size=5)) for _ in range(24)]
    corpus = datasets.Dataset.from_dict(
        {"id": [str(i) for i in range(12)] * 2, "language": ["l0"] * 12 + ["l1"] * 12, "text": texts}
    )
    return run_of_modules(base, other, make_tokenizer(words=WORDS), corpus)


def run_of_modules(base, other, tokenizer, corpus):
    reps = probes.from_arrays(np.zeros((len(corpus), 1)), id=corpus["id"], language=corpus["language"])
    reps = reps.assign_coords(split=("example", np.where(reps.id.values.astype(int) % 2, "train", "test")))
    drawn = sample(reps, draws=4, seed=0)
    models = (base, other, tokenizer)
    return Run(reps, drawn, base=reps.assign_attrs(model="base"), progress=False, corpus=corpus, models=models)


# --- what may happen to it -------------------------------------------------------------------------------------------


def linear(name):
    """A change of states as (matrix, shift)."""
    rng = np.random.default_rng(5)
    plain, still = np.eye(FEATURES), np.zeros(FEATURES)
    return {
        "rotation": (ortho_group.rvs(FEATURES, random_state=3), still),
        "shift": (plain, 4 * rng.normal(size=FEATURES)),
        "common scale": (3.7 * plain, still),
        "scale of each feature": (np.diag(np.exp(rng.normal(size=FEATURES))), still),
    }.get(name)


LINEAR = ("rotation", "shift", "common scale", "scale of each feature")
TOKENS = ("a constant added to all logits of a token", "a common factor of all logits")
LOGITS = ("a constant added to all logits of a sentence", "what keeps the predicted class", "rotation")
NUMBERS = ("a constant added to all numbers", "a common factor", "what keeps the order of the numbers")
CHANGES = {
    "numbers": (*NUMBERS, "order"),
    "one": (*LINEAR, "length of each vector", "order", "size of the classes"),
    "words": (*LINEAR, "length of each vector", "order"),
    "pair": (
        *(f"{c}{of}" for c in (*LINEAR, "length of each vector") for of in ("", " of either", " of the second")),
        "order",
    ),
    "outputs": (*LOGITS, "order"),
    "modules": (*LINEAR, "order"),
    "tokens": (*TOKENS, "order"),
}


def moved(reps, change):
    matrix, rng, out = linear(change), np.random.default_rng(6), {}
    for name in [name for name in ("hidden", "tokens") if name in reps]:
        dims, values = reps[name].dims, reps[name].values
        lengths = rng.uniform(0.5, 2, size=(values.shape[1], 1))
        out[name] = dims, values * lengths if matrix is None else values @ matrix[0] + matrix[1]
    return reps.assign(out)


def again(run, reps, base=None):
    return replace(run, reps=reps, base=base, sample=sample(reps, draws=4, seed=0))


def changed(run, kind, change):
    """The runs in which a change has happened: one, or one a model."""
    reps, base = run.reps, run.base
    if kind in ("modules", "tokens"):
        one, other, tokenizer = run.models
        if change == "order":
            order = np.random.default_rng(7).permutation(len(run.corpus))
            return [run_of_modules(one, other, tokenizer, run.corpus.select(order))]
        if kind == "tokens":
            return [run_of_modules(one.said(change), other.said(change), tokenizer, run.corpus)]
        return [run_of_modules(*(m.mapped(*linear(change)) for m in (one, other)), tokenizer, run.corpus)]
    if change == "order":
        order = np.random.default_rng(7).permutation(reps.sizes["example"])
        return [again(run, *(r if r is None else r.isel(example=order) for r in (reps, base)))]
    if kind == "outputs":
        logits = reps["logits"].values
        other = {
            LOGITS[0]: logits + np.arange(len(logits))[:, None],
            LOGITS[1]: 3 * logits,
            LOGITS[2]: np.roll(logits, 1, axis=1),
        }[change]
        return [again(run, reps.assign(logits=(reps["logits"].dims, other)), base)]
    if kind == "numbers":
        said = reps["numbers"].values
        other = dict(zip(NUMBERS, (said + 3, 2 * said, np.exp(said)), strict=True))[change]
        return [again(run, reps.assign(numbers=(reps["numbers"].dims, other)), base)]
    if change == "size of the classes":
        twice = reps.isel(example=reps.label.values == reps.label.values[0])
        twice = twice.assign_coords(id=("example", [f"{i} again" for i in twice.id.values]))
        return [again(run, xr.concat([reps, twice], "example"))]
    if kind in ("one", "words"):
        return [again(run, moved(reps, change))]
    if change.endswith(" of either"):
        plain = change.removesuffix(" of either")
        return [again(run, moved(reps, plain), base), again(run, reps, moved(base, plain))]
    if change.endswith(" of the second"):
        return [again(run, reps, moved(base, change.removesuffix(" of the second")))]
    return [again(run, moved(reps, change), moved(base, change))]


def says(probe, change):
    """Whether a declaration holds a change: what may happen to either model may happen to one, and to both."""
    plain = change.removesuffix(" of the second")
    implied = {change, f"{plain} of either"}
    if change == LOGITS[0]:
        implied.add(LOGITS[1])
    return bool(implied & set(probe.unchanged_by))


# --- measured once each ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def material(make_tokenizer, few_fits):
    """What gives the run of a kind of probe, good or bad, and its numbers, each made once."""

    @cache
    def run(kind, good=True):
        kinds = {"modules": Straight, "tokens": Speaking}
        return modules(make_tokenizer, good, kinds[kind]) if kind in kinds else states(kind, good)

    @cache
    def measured(measure, kind, change=None, good=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", probes.LayerscopeWarning)
            runs = [run(kind, good)] if change is None else changed(run(kind, good), kind, change)
            return [split_measures(measure(one)) for one in runs]

    def numbers(probe, change=None, good=True):
        found = measured(probe.measure, kind_of(probe), change, good)
        return [one[probe.name].sel(language=["l1", "pooled"]) for one in found]

    return run, numbers


# What can happen to what each probe reads.
TRIED = [
    pytest.param(probe, change, id=f"{probe.name}-{change}")
    for probe in catalogue.PROBES
    for change in CHANGES[kind_of(probe)]
    if change != "size of the classes" or "labels" in probe.needs
]


@pytest.mark.parametrize(("probe", "change"), TRIED)
def test_is_unchanged_by_what_it_says_and_by_nothing_else(probe, change, material):
    kind = kind_of(probe)
    _, numbers = material
    before, after = numbers(probe)[0]["value"], [out["value"] for out in numbers(probe, change)]
    assert np.isfinite(before).any()
    close = {"rtol": 1e-4, "atol": 1e-5} if kind in ("modules", "tokens") else {"rtol": 1e-6, "atol": 1e-6}
    same = [np.allclose(before, value, **close, equal_nan=True) for value in after]
    assert all(same) == says(probe, change)


@EACH
def test_all_that_it_is_unchanged_by_is_tried(probe):
    assert set(probe.unchanged_by) <= set(CHANGES[kind_of(probe)])
    assert len(set(probe.unchanged_by)) == len(probe.unchanged_by) > 0


@EACH
def test_values_and_intervals_keep_the_range(probe, material):
    _, numbers = material
    low, high = probe.bounds
    assert low < high
    for good in (True, False):
        for out in numbers(probe, good=good):
            for name in ("value", "low", "high"):
                values = out[name].values[np.isfinite(out[name].values)]
                assert ((low - 1e-9 <= values) & (values <= high + 1e-9)).all()


@EACH
def test_the_direction_is_the_one_it_says(probe, material):
    words = {"better": "higher", "worse": "lower", "more alike": "higher", "less alike": "lower"}
    assert probe.better == next((b for w, b in words.items() if probe.higher_is.startswith(w)), "")
    _, numbers = material
    good, bad = (float(numbers(probe, good=g)[0]["value"].sel(language="pooled").mean()) for g in (True, False))
    if probe.better and probe.family != "tuned_lens":  # fitted on tokens that a random model does not know
        assert (good > bad) == (probe.better == "higher")


@EACH
def test_states_that_are_all_equal_are_answered_by_name(probe, material):
    run, _ = material
    one = run(kind_of(probe))
    if kind_of(probe) in ("one", "pair", "words"):
        flat = lambda reps: reps.assign({k: xr.ones_like(reps[k]) for k in ("hidden", "tokens") if k in reps})  # noqa: E731
        one = replace(one, reps=flat(one.reps), base=None if one.base is None else flat(one.base))
    elif kind_of(probe) in ("modules", "tokens"):  # nothing has changed
        one = replace(one, models=(one.models[0], *one.models[::2]))
    named_where_missing(probe, one)


@EACH
def test_what_is_not_finite_has_no_value_and_is_named(probe, material):
    run, _ = material
    one = run(kind_of(probe))
    if kind_of(probe) in ("modules", "tokens"):
        broken = copy.deepcopy(one.models[1])
        with torch.no_grad():
            broken.layers[0].weight[0, 0] = np.nan
        one = replace(one, models=(one.models[0], broken, one.models[2]))
    else:
        what = {"outputs": "logits", "numbers": "numbers", "words": "tokens"}.get(kind_of(probe), "hidden")
        values = one.reps[what].values.copy()
        values[(0, slice(90, 94)) if what in ("hidden", "tokens") else slice(90, 94)] = np.nan
        one = replace(one, reps=one.reps.assign({what: (one.reps[what].dims, values)}))
    assert "not finite" in named_where_missing(probe, one)


def named_where_missing(probe, run):
    """Measure, and hold that a missing value is said, with the names of model and probe or family, or what it is of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        out = split_measures(probe.measure(run))[probe.name]
    names = {name for p in catalogue.PROBES for name in (p.name, p.family)}
    said = [str(w.message) for w in caught if issubclass(w.category, probes.LayerscopeWarning)]
    said = [text for text in said if text.split(" of model ")[0] in names and "has no value at" in text]
    if out["value"].isnull().any():
        assert said, "a value is missing, and nothing says why"
    return " ".join(said)


# --- the declarations ------------------------------------------------------------------------------------------------


def test_names_and_titles_are_given_once():
    for what in ("name", "title"):
        given = [getattr(probe, what) for probe in catalogue.PROBES]
        assert len(set(given)) == len(given)


@EACH
def test_says_all_that_others_read(probe):
    assert set(probe.needs) <= set(NEEDS)
    assert all((probe.estimator, probe.range, probe.higher_is, probe.paper, probe.interval))
    assert probe.interval.startswith((LARGE, THIS_SIZE, "none"))
    assert probe.compares == ("another model" in probe.needs or probe.family == "similarity")
    assert probe.default <= (probe.name in catalogue.defaults())


def test_by_default_all_but_maps_come_in_the_order_of_the_catalogue():
    names = list(catalogue.by_name())
    *curves, last = catalogue.defaults()
    assert curves == sorted(curves, key=names.index)
    assert (curves[0], curves[-1], last) == ("class_separability", "accuracy", "cka")


def test_families_hold_what_is_asked_for_together():
    families = catalogue.families()
    assert families["labels"] == ("class_separability", "variability", "snr")
    assert families["linear_probes"][0] == "linear_probe"
    assert set(families) == {
        *("labels", "alignment", "drift", "loyalty", "similarity", "geometry", "linear_probes", "module_error"),
        *("number_quality", "number_loyalty", "kernel_probes", "sparse_probes", "words"),
        *("next_token", "lens", "tuned_lens", "spectrum_energy", "spectrum_language", "spectrum_class"),
    }


# --- a new probe: its declaration, and a place in the catalogue ------------------------------------------------------


def first_feature(run):
    means = weighted_means(run.sample, run.reps["hidden"].values[:, :, 0].T)
    return result(run.reps, run.sample, means, TOY.about(), bounds=TOY.bounds)


SAID = {"name": "first_feature", "title": "a toy (first feature)", "range": "-infinity to infinity"}
TOY = Probe(
    **NEEDED | SAID | {"estimator": "mean of the first feature, as toys have it", "higher_is": "better toys"},
    better="higher",
    unchanged_by=("order",),
    measure=first_feature,
    default=True,
    interval=LARGE,
)


def test_a_declaration_in_the_catalogue_is_all_that_a_new_probe_needs(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(catalogue, "PROBES", (*catalogue.PROBES, TOY))
    base = planted(np.random.default_rng(0), ids=40, layers=2)
    models = {"base": base, "less": base.assign(hidden=base.hidden - 1.0)}
    comparison = probes.compare(models, probes=["first_feature", "snr"], draws=20)
    rows = comparison.table.query("probe == 'first_feature' and language == 'pooled'")
    np.testing.assert_allclose(
        rows["value"], [x.hidden.values[i, :, 0].mean() for x in models.values() for i in (0, 1)]
    )
    np.testing.assert_allclose(rows["difference"].iloc[2:], -1)
    assert "first_feature" in set(comparison.summary()["probe"])
    assert comparison.plot("first_feature").axes[0].get_title() == "a toy (first feature), higher is better"
    assert "a toy" in comparison.plot_change("first_feature")._suptitle.get_text()
    assert "as toys have it" in comparison.report(tmp_path / "report.html").read_text()
    curves = probes.widgets.Explorer(comparison).about["probes"]
    assert {"name": "first_feature", "title": "a toy (first feature)", "better": "higher", "by": "layer"} in curves
    assert "first_feature" in set(probes.compare({"base": base}, pivot="l0", draws=20).table["probe"])
    with pytest.raises(SystemExit):
        main(["compare", "--help"])
    assert "first_feature" in capsys.readouterr().out
