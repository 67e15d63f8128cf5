"""Two processes at one path: never a number of another model, never a path that is refused afterwards."""

import random
import time

import faults
import numpy as np
import pytest
from capturing import LONG, make_corpus
from matplotlib.figure import Figure

import compress
import probes
import probes.__main__
from compress.__main__ import main as compress_main
from probes.files import leftovers

ROUNDS = [*range(2), *(pytest.param(n, marks=pytest.mark.faults) for n in range(2, 50))]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Small windows, so that there is much to write; a report without figures."""
    monkeypatch.setattr("probes.states.store.BLOCK", 4)
    monkeypatch.setattr("probes.states.capture._WINDOW", 4)
    for draw in ("curves", "maps"):
        monkeypatch.setattr(f"probes.views.figures.{draw}", lambda *_: Figure())


@pytest.fixture(scope="module")
def corpus():
    return make_corpus([" ".join(LONG.split()[: 1 + i % 7]) + f" w{i}" for i in range(24)], label=["a", "b", "c"] * 8)


def both(*works, after):
    """Do pieces of work at once, the second some time after the first; return how each ended."""
    children = []
    for work in works:
        children.append(faults.Child(work))
        time.sleep(after)
    return [child.result() for child in children]


@pytest.mark.parametrize("which", ["one model", "two models", "two models, over an older store"])
@pytest.mark.parametrize("number", ROUNDS)
def test_two_captures_into_one_store(number, which, corpus, tiny_models, make_tokenizer, tmp_path):
    tokenizer, path = make_tokenizer(), tmp_path / "s.zarr"
    models = [tiny_models("BertForSequenceClassification") for _ in range(2)]
    if which != "one model":
        models[1].bert.embeddings.word_embeddings.weight.data += 1
    expected = [probes.capture(m, tokenizer, corpus, progress=False).hidden.values for m in models]
    if "older" in which:
        probes.capture(models[0], tokenizer, corpus, store=path, pooling="first", progress=False)

    def work(i):
        def capture():
            reps = probes.capture(models[i], tokenizer, corpus, store=path, progress=False)
            time.sleep(0.05 * (number % 4))
            return float(np.abs(reps.hidden.values - expected[i]).max())

        return capture

    ends = both(work(0), work(1), after=random.Random(number).uniform(0, 0.3))
    for status, what in ends:
        # Who reads what the other has replaced meanwhile is told.
        assert what["result"] < 1e-5 if status == "done" else "the store was replaced" in what
    assert which != "one model" or [status for status, _ in ends] == ["done", "done"]
    for i in (1, 0):
        assert faults.run(work(i)) < 1e-5
    assert leftovers(path) == []


@pytest.mark.parametrize("number", ROUNDS)
def test_two_comparisons_into_one_folder(number, corpus, tiny_models, make_tokenizer, tmp_path):
    compress.save(tiny_models("BertForSequenceClassification"), tmp_path / "m", make_tokenizer())
    corpus.to_csv(tmp_path / "corpus.csv")

    def work(seed, *further):
        given = [f"a={tmp_path / 'm'}", "--corpus", str(tmp_path / "corpus.csv"), "--out", str(tmp_path / "out")]
        settings = ["--probes", "snr", "--draws", "5", "--seed", str(seed)]
        return lambda: probes.__main__.main(["compare", *given, *settings, *further])

    ends = both(work(1), work(2), after=random.Random(number).uniform(0, 0.3))
    assert sorted(what["result"] for _, what in ends) == [0, 2]  # the other is told that there is a run
    winner = 1 + [what["result"] for _, what in ends].index(0)
    assert probes.Comparison.open(tmp_path / "out").provenance["seed"] == winner
    for status, what in both(work(3, "--overwrite"), work(4, "--overwrite"), after=0.1):
        assert (status, what["result"]) == ("done", 0)
    assert probes.Comparison.open(tmp_path / "out").provenance["seed"] in (3, 4)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "comparison.csv",
        "draws.npy",
        "models.csv",
        "provenance.json",
        "report.html",
        "representations",
    ]


@pytest.mark.parametrize("number", ROUNDS)
def test_two_prunings_into_one_folder(number, tiny_models, make_tokenizer, tmp_path):
    compress.save(tiny_models("BertForSequenceClassification"), tmp_path / "m", make_tokenizer())

    def work(sparsity):
        given = ["prune", str(tmp_path / "m"), "--sparsity", str(sparsity), "--out", str(tmp_path / "out")]
        return lambda: compress_main(given)

    ends = both(work(0.3), work(0.6), after=random.Random(number).uniform(0, 0.3))
    assert sorted(what["result"] for _, what in ends) == [0, 2]
    winner = (0.3, 0.6)[[what["result"] for _, what in ends].index(0)]
    model, _ = probes.load_checkpoint(tmp_path / "out")
    assert model.config.compression["sparsity"] == winner
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m", "out"]
