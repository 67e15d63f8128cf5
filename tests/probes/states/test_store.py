"""The store: it holds what memory holds, is reused and resumed, and leaves alone what is not its own."""

import copy
import shutil

import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from capturing import LONG, assert_close, capture, count_rows, independent, make_corpus

import probes
from probes.files import beside

SCRIPTS = ["the cat ø", "中文 句子", "جملة عربية", "हिन्दी वाक्य", "e\u0301 \u202e right", "𝔘𝔫𝔦 🙂", '<b>"&\\ \t x']


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_store_holds_what_memory_holds(bert, tokenizer, tmp_path):
    corpus = make_corpus(SCRIPTS, label=[f"класс {i % 2}" for i in range(7)], split="тест", text_pair=SCRIPTS[::-1])
    memory = capture(bert, tokenizer, corpus, name="m")
    stored = capture(bert, tokenizer, corpus, name="m", store=tmp_path / "deep" / "s.zarr")
    opened = probes.open_representations(tmp_path / "deep" / "s.zarr")
    for reps in (stored, opened):
        xr.testing.assert_identical(reps.load(), memory)
    assert list(opened.text.values) == SCRIPTS
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["s.zarr"]


def test_a_file_of_a_store_that_gets_lost_is_not_read_as_zeros(bert, tokenizer, corpus, tmp_path):
    store = tmp_path / "s.zarr"
    opened = capture(bert, tokenizer, corpus, store=store, progress=False)
    whole = opened.load().copy()
    lost = next(p for p in (store / "hidden" / "c" / "1").rglob("*") if p.is_file())
    opened = probes.open_representations(store)
    lost.unlink()
    assert opened.hidden.sel(layer=1).isnull().all()
    xr.testing.assert_identical(opened.load().drop_sel(layer=1), whole.drop_sel(layer=1))
    with pytest.raises(probes.InputError, match=rf"{lost}: a chunk of states is missing\. Copy the store again, or"):
        probes.open_representations(store)


def test_a_layer_without_any_value_is_whole_on_disk(bert, tokenizer, corpus, tmp_path, monkeypatch):
    broken = copy.deepcopy(bert)
    broken.bert.encoder.layer[1].output.dense.bias.data += float("inf")
    stored = capture(broken, tokenizer, corpus, store=tmp_path / "s.zarr", progress=False)
    assert stored.hidden.sel(layer=2).isnull().all()
    assert probes.open_representations(tmp_path / "s.zarr").hidden.sel(layer=2).isnull().all()


def test_a_store_that_is_opened_says_which_layers_the_model_that_asks_was_made_of(bert, tokenizer, corpus, tmp_path):
    model = copy.deepcopy(bert)
    for made_of in (None, [0, 2, 5], [1, 2, 5], None):
        model.config.compression = {} if made_of is None else {"made_of": made_of}
        assert capture(model, tokenizer, corpus, store=tmp_path / "s.zarr").attrs.get("made_of") == made_of


def test_no_pickle_lies_in_a_store(bert, tokenizer, corpus, tmp_path):
    capture(bert, tokenizer, corpus, store=tmp_path / "s.zarr", modules=["bert.embeddings"])
    metadata = [v.decode() for k, v in contents(tmp_path / "s.zarr").items() if k.endswith("zarr.json")]
    assert any('"string"' in m for m in metadata)
    assert not any("pickle" in m for m in metadata)
    assert all(not data.startswith(b"\x80") for data in contents(tmp_path / "s.zarr").values())


def test_a_complete_store_is_reused_without_running_the_model(bert, tokenizer, corpus, tmp_path, monkeypatch):
    first = capture(bert, tokenizer, corpus, store=tmp_path / "s.zarr", name="one").load()
    monkeypatch.setattr(bert.bert, "forward", lambda *_, **__: pytest.fail("the model was run"))
    again = capture(bert, tokenizer, corpus, store=str(tmp_path / "s.zarr"), name="two", batch_size=2)
    assert again.attrs["model"] == "two"
    xr.testing.assert_identical(again.load(), first.assign_attrs(model="two"))


def changed_weights(model, tokenizer, corpus):
    with torch.no_grad():
        model.bert.encoder.layer[0].output.dense.weight[0, 0] += 1
    return (model, tokenizer, corpus), {}


def lower_case(model, tokenizer, corpus):
    from tokenizers import normalizers

    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("dog", "cat")
    return (model, tokenizer, corpus), {}


@pytest.mark.parametrize(
    "change",
    [
        changed_weights,
        lower_case,
        lambda m, t, c: ((m, t, c), {"pooling": "first"}),
        lambda m, t, c: ((m, t, c), {"dtype": "bfloat16"}),
        lambda m, t, c: ((m, t, c), {"max_length": 31}),
        lambda m, t, c: ((m, t, c), {"modules": ["bert.encoder.layer.0"]}),
        lambda m, t, c: ((m, t, c.select(range(5))), {}),
        lambda m, t, c: ((m, t, c.select([1, 0, 2, 3, 4, 5])), {}),
    ],
    ids=["weights", "tokenizer", "pooling", "dtype", "max_length", "modules", "fewer rows", "other order"],
)
def test_a_store_of_something_else_is_made_anew_and_said_so(bert, make_tokenizer, corpus, tmp_path, change):
    tokenizer = make_tokenizer()
    capture(bert, tokenizer, corpus, store=tmp_path / "s.zarr")
    arguments, options = change(bert, tokenizer, corpus)
    with pytest.warns(probes.LayerscopeWarning, match=r"s.zarr was captured from another model, corpus or settings"):
        stored = capture(*arguments, store=tmp_path / "s.zarr", **options)
    xr.testing.assert_identical(stored.load(), capture(*arguments, **options))
    assert [p.name for p in tmp_path.iterdir()] == ["s.zarr"]


def a_file(path):
    path.write_text("mine")


def a_folder(path):
    path.mkdir()
    (path / "mine.txt").write_text("mine")


def another_zarr(path):
    zarr.create_group(path).create_array("mine", shape=(2,), dtype="f4")[:] = 1


@pytest.mark.parametrize(
    ("make", "place"),
    [
        (a_file, "s.zarr"),
        (a_folder, "s.zarr"),
        (another_zarr, "s.zarr"),
    ],
)
def test_what_lies_at_the_path_and_is_no_store_is_left_as_it_was(bert, tokenizer, corpus, tmp_path, make, place):
    make(tmp_path / place)
    before = contents(tmp_path)
    with pytest.raises(
        probes.InputError, match=f"{place} exists and is no store of Representations; it is left as it is"
    ):
        capture(bert, tokenizer, corpus, store=tmp_path / "s.zarr")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("make", [a_file, a_folder])
@pytest.mark.parametrize("place", ["s.zarr.partial", "s.zarr.old", "s.zarr.lock", "t.zarr"])
def test_what_lies_beside_the_path_is_left_as_it_was(bert, tokenizer, corpus, tmp_path, make, place):
    make(tmp_path / place)
    before = contents(tmp_path)
    capture(bert, tokenizer, corpus, store=tmp_path / "s.zarr")
    shutil.rmtree(tmp_path / "s.zarr")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("begin", [lambda path: path.mkdir(), zarr.create_group])
def test_a_capture_that_was_interrupted_as_it_made_its_store_is_begun_again(bert, tokenizer, corpus, tmp_path, begin):
    fingerprint = capture(bert, tokenizer, corpus, store=tmp_path / "whole.zarr").attrs["fingerprint"]
    shutil.rmtree(tmp_path / "whole.zarr")
    begin(beside(tmp_path / "s.zarr", f"{fingerprint}-partial"))
    stored = capture(bert, tokenizer, corpus, store=tmp_path / "s.zarr")
    xr.testing.assert_identical(stored.load(), capture(bert, tokenizer, corpus))
    assert [p.name for p in tmp_path.iterdir()] == ["s.zarr"]


@pytest.fixture
def windows(monkeypatch):
    """Twenty rows in windows of four."""
    monkeypatch.setattr("probes.states.store.BLOCK", 4)
    monkeypatch.setattr("probes.states.capture._WINDOW", 4)
    return make_corpus([" ".join(LONG.split()[: 1 + i % 7]) + f" w{i}" for i in range(20)])


@pytest.mark.parametrize("stop_after", [0, 1, 5, 9, 17])
def test_an_interrupted_capture_goes_on_where_it_stopped(bert, tokenizer, windows, tmp_path, monkeypatch, stop_after):
    store = tmp_path / "s.zarr"
    expected = capture(bert, tokenizer, windows, store=tmp_path / "whole" / "s.zarr").load()
    partial = beside(store, f"{expected.attrs['fingerprint']}-partial")
    with monkeypatch.context() as patched:
        seen = count_rows(bert, patched, stop_after)
        with pytest.raises(KeyboardInterrupt):
            capture(bert, tokenizer, windows, store=store)
    finished = max(0, sum(seen) - 1) // 4  # before the windows, the longest row is run once by itself
    assert finished == max(0, stop_after - 1) // 4
    assert partial.exists() == (stop_after > 0)
    assert not store.exists()
    for path in (store, partial):
        with pytest.raises(probes.InputError, match=r"expected a zarr store|not complete"):
            probes.open_representations(path)
    seen = count_rows(bert, monkeypatch)
    resumed = capture(bert, tokenizer, windows, store=store)
    assert sum(seen) == 1 + 20 - 4 * finished
    xr.testing.assert_identical(resumed.load(), expected)
    assert not partial.exists()


def test_an_interrupted_capture_of_another_model_is_not_gone_on_with(bert, tokenizer, windows, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        count_rows(bert, patched, 9)
        with pytest.raises(KeyboardInterrupt):
            capture(bert, tokenizer, windows, store=tmp_path / "s.zarr")
    with torch.no_grad():
        bert.bert.embeddings.LayerNorm.bias += 1
    seen = count_rows(bert, monkeypatch)
    with pytest.warns(probes.LayerscopeWarning, match="was begun there and did not end. This one begins anew"):
        reps = capture(bert, tokenizer, windows, store=tmp_path / "s.zarr")
    assert sum(seen) == 21
    assert_close(reps, independent(bert.bert, tokenizer, windows))


def test_a_store_in_many_windows_equals_one_in_memory(bert, tokenizer, windows, tmp_path):
    stored = capture(bert, tokenizer, windows, store=tmp_path / "s.zarr")
    assert zarr.open_group(tmp_path / "s.zarr")["hidden"].chunks == (1, 4, 12)
    memory = capture(bert, tokenizer, windows)
    assert_close(stored, memory.hidden.values)
    for outputs in ("logits", "head_input"):
        np.testing.assert_allclose(stored[outputs], memory[outputs], atol=1e-5)
    arrays = ["hidden", "logits", "head_input"]
    xr.testing.assert_identical(stored.load().drop_vars(arrays), memory.drop_vars(arrays))


def test_a_link_that_leads_nowhere_is_refused_before_the_model_is_run(bert, tokenizer, corpus, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    monkeypatch.setattr(bert.bert, "forward", lambda *_, **__: pytest.fail("the model was run"))
    with pytest.raises(probes.InputError, match=r"link is a link to .*nowhere, which is not there"):
        capture(bert, tokenizer, corpus, store=tmp_path / "link")


def test_a_store_behind_a_link_is_replaced_where_it_lies(bert, tokenizer, corpus, tmp_path):
    capture(bert, tokenizer, corpus, store=tmp_path / "real.zarr", pooling="first")
    (tmp_path / "link").symlink_to(tmp_path / "real.zarr")
    with pytest.warns(probes.LayerscopeWarning, match=r"real.zarr was captured from another"):
        stored = capture(bert, tokenizer, corpus, store=tmp_path / "link")
    xr.testing.assert_identical(stored.load(), capture(bert, tokenizer, corpus))
    assert (tmp_path / "link").is_symlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "real.zarr"]


def test_an_opened_store_that_another_model_replaces_is_not_read_on(bert, tokenizer, corpus, tmp_path):
    first = capture(bert, tokenizer, corpus, store=tmp_path / "s.zarr")
    with pytest.warns(probes.LayerscopeWarning, match=r"made anew"):
        capture(bert, tokenizer, corpus, store=tmp_path / "s.zarr", pooling="first")
    with pytest.raises(probes.InputError, match=r"s.zarr: the store was replaced or removed after it was opened"):
        first.hidden.load()
    again = capture(bert, tokenizer, corpus, store=tmp_path / "s.zarr", pooling="first")
    (tmp_path / "s.zarr").rename(tmp_path / "moved.zarr")
    with pytest.raises(probes.InputError, match=r"replaced or removed"):  # and not read as NaN
        again.hidden.load()


def test_a_complete_store_is_opened_without_a_lock_whoever_holds_it(bert, tokenizer, corpus, tmp_path):
    capture(bert, tokenizer, corpus, store=tmp_path / "s.zarr")
    lock = beside(tmp_path / "s.zarr", "lock")
    lock.write_text("1\nanother-host\n5\n")
    capture(bert, tokenizer, corpus, store=tmp_path / "s.zarr")
    with pytest.raises(probes.InputError, match=rf"process 1 of the host another-host.* remove {lock}"):
        capture(bert, tokenizer, corpus, store=tmp_path / "s.zarr", pooling="first")
    assert lock.exists()


def test_what_a_kill_left_beside_a_complete_store_is_removed(bert, tokenizer, corpus, tmp_path):
    reps = capture(bert, tokenizer, corpus, store=tmp_path / "s.zarr")
    for what in ("old", "gone", f"{reps.attrs['fingerprint']}-partial", "0123456789abcdef-partial"):
        a_folder(beside(tmp_path / "s.zarr", what))
    capture(bert, tokenizer, corpus, store=tmp_path / "s.zarr")
    # Another model may go on with its own.
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.zarr", "s.zarr.layerscope-0123456789abcdef-partial"]
