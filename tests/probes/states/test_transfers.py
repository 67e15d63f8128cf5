"""What is copied while a GPU runs on is read once it is whole. There is no GPU here: one is imitated."""

import numpy as np
import pytest
import torch
from capturing import LONG, capture, make_corpus

from probes.states import transfers
from probes.states.transfers import landed, sent


class Late:
    """A copy that is not there before it is waited for, as one that a GPU fills; notes what happens."""

    def __init__(self, log, monkeypatch):
        self.log = log
        monkeypatch.setattr(transfers, "_on_gpu", lambda value: True)
        monkeypatch.setattr(transfers, "_begun", self.begun)

    def begun(self, value):
        copy, log = torch.full(value.shape, torch.nan, dtype=value.dtype), self.log
        log.append("leaves")

        class Ready:
            def synchronize(self):
                log.append("is waited for")
                copy.copy_(value)

        return copy, Ready()


def batches(log, dtype=torch.float32, count=4):
    for number in range(count):
        log.append("runs")
        yield number, {"x": torch.full((2, 3), float(number), dtype=dtype)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gpu", [False, True])
def test_every_batch_lands_whole_in_float32_and_in_order(monkeypatch, gpu, dtype):
    log = []
    if gpu:
        Late(log, monkeypatch)
    found = list(landed(batches(log, dtype)))
    assert [number for number, _ in found] == [0, 1, 2, 3]
    for number, values in found:
        assert values["x"].dtype == np.float32
        np.testing.assert_array_equal(values["x"], np.full((2, 3), number))
    assert list(landed([])) == []


def test_a_batch_is_waited_for_once_the_next_one_is_under_way(monkeypatch):
    log = []
    Late(log, monkeypatch)
    list(landed(batches(log, count=3)))
    one = ["runs", "leaves"]
    assert log == [*one, *one, "is waited for", *one, "is waited for", "is waited for"]


def test_states_by_way_of_a_gpu_are_the_states(monkeypatch, bert, tokenizer, tmp_path):
    corpus = make_corpus([" ".join(LONG.split()[: 1 + i % 7]) for i in range(20)])
    how = {"batch_size": 3, "tokens": True}
    expected = capture(bert, tokenizer, corpus, **how)
    log = []
    Late(log, monkeypatch)
    bert.register_forward_pre_hook(lambda *_: log.append("runs"))
    found = capture(bert, tokenizer, corpus, store=tmp_path / "s.zarr", **how)
    for name in ("hidden", "tokens", "logits", "head_input"):
        np.testing.assert_array_equal(found[name], expected[name])
    # After the longest text, which says of what size states are: none is waited for before the next batch runs.
    log = log[1:]
    assert log.index("is waited for") > [i for i, what in enumerate(log) if what == "runs"][1]


def test_copies_are_begun_in_pinned_memory_and_noted_on_the_stream_of_their_device(monkeypatch):
    asked, made = {}, torch.empty

    class Event:
        def record(self, stream):
            asked["stream"] = stream

    def empty(shape, **how):
        asked.update(how)
        return made(shape, dtype=how["dtype"])

    monkeypatch.setattr(torch, "empty", empty)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: ("stream of", device))
    value = torch.arange(3, dtype=torch.bfloat16)
    copy, ready = transfers._begun(value)
    assert torch.equal(copy, value)
    assert isinstance(ready, Event)
    assert asked == {"dtype": torch.bfloat16, "pin_memory": True, "stream": ("stream of", value.device)}
    assert not transfers._on_gpu(value)


def test_what_is_sent_to_a_gpu_is_pinned_and_not_waited_for(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: asked.append("pinned") or self)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *where, **how: asked.append((where, how)) or self)
    x = torch.ones(2)
    sent(x, torch.device("cuda", 1))
    assert asked == ["pinned", ((torch.device("cuda", 1),), {"non_blocking": True})]
    asked.clear()
    sent(x, torch.device("cpu"))
    assert asked == [((torch.device("cpu"),), {})]
