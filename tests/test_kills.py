"""Killed at any change of the file system, the same work ends with the same bytes, with no step by hand."""

import shutil

import faults
import pytest
from capturing import LONG, make_corpus

import compress
import probes
import probes.__main__
from compress.__main__ import main as compress_main

_SAMPLE = 4  # points of a case in `make test`; all of them in `make test-faults`


@pytest.fixture
def corpus():
    """Twelve rows, which windows of four cut in three."""
    return make_corpus([" ".join(LONG.split()[: 1 + i % 7]) + f" w{i}" for i in range(12)], label=["a", "b", "c"] * 4)


@pytest.fixture
def at(tmp_path, corpus, tiny_models, make_tokenizer, monkeypatch):
    """What the cases start from: two checkpoints and a corpus on disk, small windows, a report without figures."""
    monkeypatch.setattr("probes.states.store.BLOCK", 4)
    monkeypatch.setattr("probes.states.capture._WINDOW", 4)
    # What is told takes longer than all else, and is one write: that of the report.
    page = "<!-- layerscope report -->"
    monkeypatch.setattr("probes.views.report.page_of", lambda comparison: page + comparison.table.to_csv())
    monkeypatch.setattr("probes.__main__._text", lambda _: "")
    corpus.to_csv(tmp_path / "corpus.csv")
    for name in ("a", "b"):
        compress.save(tiny_models("BertForSequenceClassification"), tmp_path / name, make_tokenizer())
    # Checkpoints are read only, and once.
    loaded = {str(tmp_path / name): probes.load_checkpoint(tmp_path / name) for name in ("a", "b")}
    monkeypatch.setattr("probes.comparing.load_checkpoint", lambda path, **_: loaded[str(path)])
    monkeypatch.setattr(
        "probes.comparing.check_checkpoint", lambda path, **_: (loaded[str(path)][0].config, loaded[str(path)][1])
    )
    return tmp_path


def captured(at, pooling="mean"):
    def work():
        model, tokenizer = probes.load_checkpoint(at / "a")
        corpus = probes.load_corpus(at / "corpus.csv")
        probes.capture(model, tokenizer, corpus, store=at / "work" / "s.zarr", pooling=pooling, progress=False)

    return work


def compared(at, *further):
    def work():
        models = [f"{name}={at / name}" for name in ("a", "b")]
        given = ["--corpus", str(at / "corpus.csv"), "--out", str(at / "work" / "out"), "--probes", "snr"]
        return probes.__main__.main(["compare", *models, *given, "--draws", "5", "--no-timing", *further])

    return work


def pruned(at, *further):
    def work():
        return compress_main(["prune", str(at / "a"), "--sparsity", "0.5", "--out", str(at / "work" / "out"), *further])

    return work


CASES = {
    "capture, a new store": (captured, lambda at: None),
    "capture, a resumed store": (captured, "half way"),
    "capture, over an older store": (captured, lambda at: faults.run(captured(at, "first"))),
    "compare --out": (compared, lambda at: None),
    "compare --overwrite": (
        lambda at: compared(at, "--overwrite"),
        lambda at: faults.run(compared(at, "--seed", "7", "--pooling", "first")),
    ),
    "prune --out": (pruned, lambda at: None),
    "prune --packed --out": (lambda at: pruned(at, "--packed"), lambda at: (at / "work" / "out").mkdir()),
}


def restore(at, before):
    shutil.rmtree(at / "work", ignore_errors=True)
    if before is None:
        (at / "work").mkdir()
    else:
        shutil.copytree(before, at / "work")


def prepared(at, case):
    """Return the work of a case, the folder it starts from, its changes, and what it ends with."""
    make, begin = CASES[case]
    (at / "work").mkdir()
    if make is compared:
        faults.warm(compared(at))  # which imports for a second
        restore(at, None)
    if begin == "half way":
        whole = faults.changes(captured(at))
        shutil.rmtree(at / "work")
        (at / "work").mkdir()
        assert faults.Child(captured(at), kill_at=whole // 2).result()[0] == "killed"
    else:
        begin(at)
    before = at / "before"
    shutil.copytree(at / "work", before)
    work = make(at)
    count = faults.changes(work)
    return work, before, count, faults.contents(at / "work")


def differs(found, expected):
    return sorted(k for k in found.keys() | expected.keys() if found.get(k, 0) != expected.get(k, 0))


def goes_on(at, state, work, expected):
    """Do the work where a kill left a state; return what is otherwise than it would have been."""
    restore(at, state)
    faults.Child(work).result()  # which may say that all is there
    return differs(faults.contents(at / "work"), expected)


@pytest.mark.parametrize("case", CASES)
def test_killed_at_some_changes_the_same_work_ends_alike(at, case):
    work, before, count, expected = prepared(at, case)
    assert not [name for name in expected if "layerscope-" in name]
    reached = 0
    # The last ones are where things are moved into place.
    for k in sorted({*range(1, count, max(1, count // _SAMPLE)), count - 2, count - 1}):
        restore(at, before)
        reached += faults.Child(work, kill_at=k, cut=bool(k % 2)).result()[0] == "killed"
        faults.Child(work).result()
        assert differs(faults.contents(at / "work"), expected) == [], k
    assert reached


@pytest.mark.faults
@pytest.mark.parametrize("case", CASES)
def test_killed_at_every_change_the_same_work_ends_alike(at, case):
    work, before, _, expected = prepared(at, case)
    restore(at, before)
    points, states = faults.left(work, at / "work", at / "left")
    wrong = {state.name: found for state in states if (found := goes_on(at, state, work, expected))}
    print(f"{case}: {points} points, {len(states)} states, {len(wrong)} wrong")
    assert wrong == {}
    assert points > len(states) > 4


@pytest.mark.faults
@pytest.mark.parametrize("case", CASES)
def test_killed_twice_the_same_work_ends_alike(at, case):
    work, before, _, expected = prepared(at, case)
    restore(at, before)
    _, states = faults.left(work, at / "work", at / "left")
    wrong, tried = {}, 0
    for state in states[2 :: max(1, len(states) // 12)]:
        restore(at, state)
        _, again = faults.left(work, at / "work", at / "again")
        for twice in {*again[1:10:4], again[len(again) // 2]}:
            tried += 1
            if found := goes_on(at, twice, work, expected):
                wrong[state.name, twice.name] = found
        shutil.rmtree(at / "again")
    print(f"{case}, twice: {tried} states, {len(wrong)} wrong")
    assert wrong == {}


def test_a_comparison_killed_as_it_is_replaced_opens_as_the_old_or_the_new(at):
    (at / "work").mkdir()
    faults.run(compared(at, "--seed", "7"))
    old = probes.Comparison.open(at / "work" / "out")
    shutil.copytree(at / "work", at / "before")
    comparisons = []

    def save():
        comparisons[0].save(at / "work" / "out", overwrite=True)

    new = probes.Comparison.open(at / "work" / "out")
    new.provenance["seed"] = 8
    new.table["value"] += 1
    comparisons.append(new)
    seen = set()
    for k in range(1, faults.changes(save) + 1):
        restore(at, at / "before")
        assert faults.Child(save, kill_at=k).result()[0] == "killed"
        opened = probes.Comparison.open(at / "work" / "out")
        seed = opened.provenance["seed"]
        seen.add(seed)
        assert opened.table["value"].equals({7: old, 8: new}[seed].table["value"])
    assert seen == {7, 8}
