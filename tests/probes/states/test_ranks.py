"""Any number of processes write the store that one writes, and go on where others were killed."""

import importlib
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import faults
import numpy as np
import pytest
from capturing import LONG, capture, make_corpus
from ranked import together

import compress
import probes
import probes.__main__
from probes.files import leftovers
from probes.states import ranks, store
from probes.states.ranks import Ranks, alone, ranks_of

ROOT = Path(__file__).resolve().parents[3]
capturing = importlib.import_module("probes.states.capture")
# What is kept of each text. States of tokens are written in windows that end within chunks.
KINDS = {"texts": {}, "tokens": {"tokens": True}}
SEEDS = [0, *(pytest.param(n, marks=pytest.mark.faults) for n in range(1, 20))]


def shrink(set_to):
    """Windows of eight texts, or of twenty tokens, in chunks of four."""
    set_to(store, "BLOCK", 4)
    set_to(capturing, "_WINDOW", 8)
    set_to(capturing, "_HELD", 20 * 4 * 4 * 12)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    shrink(monkeypatch.setattr)


@pytest.fixture(scope="module")
def texts():
    return [" ".join(LONG.split()[: 1 + i % 7]) + f" w{i}" for i in range(36)]


@pytest.fixture(scope="module")
def corpus(texts):
    return make_corpus(texts, label=["a", "b", "c"] * 12)


@pytest.fixture(scope="module")
def given(tiny_models, make_tokenizer):
    return tiny_models("BertForSequenceClassification"), make_tokenizer()


@pytest.fixture(scope="module")
def expected(tmp_path_factory, given, corpus):
    """The store of one process, of each kind, and how often its model is run."""
    out = {}
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch.setattr)
        for kind, options in KINDS.items():
            path = tmp_path_factory.mktemp(kind)
            capture(*given, corpus, store=path / "s.zarr", **options)
            out[kind] = faults.contents(path)
    return out


def writing(folder, given, corpus, **options):
    """A function of a rank that captures into a store, and says how many texts it ran and what its bar showed."""

    def work(rank):
        seen, bars = [], []
        bar_of = capturing.tqdm

        def bar(**how):
            made = bar_of(**how)
            bars.extend([] if made.disable else [made])
            return made

        def count(_, __, inputs):
            seen.append(len(inputs["input_ids"]))

        given[0].register_forward_pre_hook(count, with_kwargs=True)
        capturing.tqdm = bar
        reps = capture(*given, corpus, store=folder / "s.zarr", **{"progress": True, **options})
        assert reps.hidden.values.any()
        return [sum(seen), [made.n for made in bars]]

    return work


def ended(work, count, **options):
    ends = together(work, count, **options)
    assert {status for status, _ in ends} == {"done"}, ends
    return [what for _, what in ends]


@pytest.mark.parametrize(("kind", "count"), [("texts", 2), ("texts", 3), ("tokens", 2)])
def test_any_number_of_processes_write_the_same_store(kind, count, given, corpus, expected, tmp_path):
    found = ended(writing(tmp_path, given, corpus, **KINDS[kind]), count)
    assert faults.contents(tmp_path) == expected[kind]
    # Each runs its part, and one text to see of what size states are; one bar shows the work of all.
    texts = [n - 1 for n, _ in found]
    assert sum(texts) == len(corpus)
    assert min(texts) >= 8
    assert [bars for _, bars in found] == [[len(corpus)]] + [[]] * (count - 1)


def test_another_number_of_processes_opens_what_is_whole(given, corpus, expected, tmp_path):
    capture(*given, corpus, store=tmp_path / "s.zarr")

    def work(rank):
        given[0].register_forward_pre_hook(lambda *_: pytest.fail("it was run"))
        return capture(*given, corpus, store=tmp_path / "s.zarr").sizes["example"]

    assert ended(work, 2) == [36, 36]
    assert faults.contents(tmp_path) == expected["texts"]


@pytest.mark.parametrize("seed", SEEDS)
def test_killed_at_any_time_any_number_of_processes_end_alike(seed, given, corpus, expected, tmp_path):
    rng = random.Random(seed)
    kind = ("texts", "tokens")[seed % 2]
    options, killed = KINDS[kind], 0
    for rank in (1, 0):  # the one that opens and ends it, and another
        work = writing(tmp_path, given, corpus, **options)
        count = rng.choice([2, 3])
        # About as many changes as each makes; beyond its last one nobody is killed.
        most = {"texts": (120, 60), "tokens": (500, 300)}[kind][rank]
        ends = together(work, count, kill=rank, at=rng.randrange(1, most), within=tmp_path)
        killed += ends[rank] == ("killed", None)
        assert {status for status, _ in ends} <= {"killed", "lost", "done"}
    for count in rng.sample([1, 2, 3], 2):
        again = writing(tmp_path, given, corpus, **options)
        assert count == 1 or ended(again, count)
        assert count > 1 or faults.run(lambda again=again: again(0))
    assert faults.contents(tmp_path) == expected[kind]
    assert killed or seed


def test_what_others_began_with_other_settings_is_not_gone_on_with(given, corpus, expected, tmp_path):
    other = writing(tmp_path, given, corpus, pooling="first")
    assert together(other, 3, kill=1, at=20, within=tmp_path)[1] == ("killed", None)
    assert len(leftovers(tmp_path / "s.zarr")) == 1
    with pytest.warns(probes.LayerscopeWarning, match="another model, corpus or settings was begun there and did not"):
        capture(*given, corpus, store=tmp_path / "s.zarr")
    assert faults.contents(tmp_path) == expected["texts"]


def test_what_processes_do_not_see_alike_is_said_before_the_first_pass(given, corpus, texts, tmp_path):
    model, tokenizer = given
    others = make_corpus([*texts[:-1], "the cat"], label=["a", "b", "c"] * 12)

    def work(rank, what):
        model.register_forward_pre_hook(lambda *_: pytest.fail("it was run"))
        own = {"corpus": [corpus, others, corpus][rank]} if what == "corpus" else {"corpus": corpus}
        own |= {"batch_size": [64, 64, 32][rank]} if what == "batch_size" else {}
        capture(model, tokenizer, own.pop("corpus"), store=tmp_path / "s.zarr", **own)

    for what, rank in (("corpus", 1), ("batch_size", 2)):
        for status, said in together(lambda r, what=what: work(r, what), 3):
            assert status == "said"
            assert f"the 3 processes do not capture the same: {what} is " in said
            assert f"for rank {rank} (host " in said
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_a_process_does_not_see_is_named(given, corpus, tmp_path):
    for status, said in together(lambda rank: writing(tmp_path / str(rank), given, corpus)(rank), 2):
        assert status == "said"
        assert said.startswith(f"rank 1: {tmp_path / '1'}")
        assert "which rank 0 writes, is not seen on host" in said
    assert "is not seen" in together(lambda rank: writing(tmp_path / ["0", "2"][rank], given, corpus)(rank), 2)[0][1]


def test_one_that_works_for_itself_waits_for_nobody(given, corpus, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(ranks, "_MEET", ranks.timedelta(seconds=1))

    def work(rank):
        if rank == 0:
            inside = capture(*given, corpus).hidden.values
            with alone():
                capture(*given, corpus, store=tmp_path / "s.zarr")
            assert np.array_equal(inside, probes.open_representations(tmp_path / "s.zarr").hidden.values)
            with pytest.raises(probes.InputError, match=r"they have not all come .*Make the same calls with store="):
                capture(*given, corpus, store=tmp_path / "t.zarr")

    ended(work, 2)
    assert faults.contents(tmp_path) == expected["texts"]


def test_turns_are_taken_one_after_the_other(tmp_path):
    def work(rank, taken, name):
        everyone = ranks_of("a store")
        with everyone.turn(taken):
            time.sleep(0.2 * (2 - rank))
            with (tmp_path / name).open("a") as file:
                file.write(str(rank))

    for taken, name in ((True, "turns"), (False, "none")):
        ended(lambda rank, taken=taken, name=name: work(rank, taken, name), 3)
    assert ((tmp_path / "turns").read_text(), (tmp_path / "none").read_text()) == ("012", "210")


def test_what_the_first_makes_or_raises_is_that_of_all():
    def work(rank):
        everyone = ranks_of("a store")
        assert everyone.first(lambda: f"made by {rank}") == "made by 0"
        assert everyone.every(rank) == [0, 1]
        for call, said in (
            (lambda: everyone.first(refuses, rank), "^refused by 0$"),
            (lambda: everyone.check("no room" * rank), "^rank 1: no room$"),
        ):
            with pytest.raises(probes.InputError, match=said):
                call()

    def refuses(rank):
        raise probes.InputError(f"refused by {rank}")

    ended(work, 2)
    assert Ranks().first(lambda: "alone") == "alone"
    assert Ranks().every(3) == [3]
    with pytest.raises(probes.InputError, match=r"^no room$"):
        Ranks().check("no room")


def test_torchrun_compares_as_one_process_does(given, corpus, tmp_path):
    for name, change in (("a", 0.0), ("b", 0.1)):
        given[0].classifier.weight.data += change
        compress.save(given[0], tmp_path / name, given[1])
    corpus.to_csv(tmp_path / "corpus.csv")

    def asked(out):
        models = [f"{name}={tmp_path / name}" for name in ("a", "b")]
        settings = ["--probes", "snr,drift", "--draws", "5", "--no-timing"]
        return ["compare", *models, "--corpus", str(tmp_path / "corpus.csv"), "--out", str(tmp_path / out), *settings]

    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*torchrun, __file__, *asked("two")], env=os.environ | environment, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert faults.run(lambda: probes.__main__.main(asked("one"))) == 0
    assert faults.contents(tmp_path / "two") == faults.contents(tmp_path / "one")
    assert done.stdout.count("wrote ") == 1


if __name__ == "__main__":
    shrink(setattr)
    sys.exit(probes.__main__.main(sys.argv[1:]))
