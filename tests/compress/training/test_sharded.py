"""A student in shards is trained as a whole one is; what cannot be trained so is refused before."""

import copy
import os
import types

import faults
import pytest
import torch
from accelerate.state import DistributedType, PartialState
from ranked import together
from safetensors.torch import load_file, save_file
from torch.distributed.tensor import DTensor
from trained import QUIET, make_corpus, same, weights
from transformers import TrainerCallback

import compress
from compress.objectives.labels import CrossEntropy
from compress.training import sharded
from compress.training.loop import train
from probes.errors import InputError


def distil(model, **training):
    return compress.distill(model, layers=2, objective=[compress.CrossEntropy(), compress.SoftLabels()], **training)


def prune(model, **training):
    return compress.prune(model, sparsity=0.5, schedule="cubic", prunings=2, **training)


def quantise(model, **training):
    return compress.quantize(model, bits=4, activation_bits=None, **training)


VERBS = [distil, prune, quantise]


@pytest.fixture(scope="module")
def given(tiny_models, make_tokenizer):
    settings = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "id2label": dict(enumerate("xyz"))}
    return tiny_models("BertForSequenceClassification", **settings), make_tokenizer(), make_corpus()


def asks(pretends):
    """Let accelerate be asked for FSDP in this process, and take CPUs for GPUs where it is to shard on them."""
    os.environ |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_RESHARD_AFTER_FORWARD": "true"}
    os.environ |= {"FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP", "FSDP_TRANSFORMER_CLS_TO_WRAP": "BertLayer"}
    if pretends:
        os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
        PartialState._prepare_backend = lambda *_: ("gloo", DistributedType.MULTI_GPU)


def train_all(given, folder, rank=None):
    """Let every verb train; return losses, how often it was measured, and which shares of the weights were here."""
    model, tokenizer, corpus = given
    shares, gather = [], sharded.Sharded.gather

    def counted(self):
        parts = [p for p in self.copy.parameters() if isinstance(p, DTensor)]
        shares.append(sum(p.to_local().numel() for p in parts) / sum(p.numel() for p in self.student.parameters()))
        gather(self)

    if rank is not None:
        asks(pretends=True)
        sharded.Sharded.gather = counted
    losses = []
    for verb, more in ((distil, {}), (prune, {"steps": 3}), (quantise, {"accumulate": 2})):
        seen = []
        more = {"evaluate": lambda m, seen=seen: seen.append(weights(m)) or {"x": 1.0}, "steps": 2} | more
        made = verb(model, train=corpus, tokenizer=tokenizer, **QUIET, **more)
        save_file({k: v.contiguous() for k, v in made.state_dict().items()}, folder / f"{verb.__name__}-{rank}")
        assert not any(isinstance(v, DTensor) for one in seen for v in one.values())
        losses.append([made.history["loss"].dropna().tolist(), len(seen)])
    return losses, shares


def test_three_verbs_train_a_student_in_shards_as_a_whole_one(given, tmp_path):
    before = weights(given[0])
    ends = together(lambda rank: train_all(given, tmp_path, rank), 2)
    assert [status for status, _ in ends] == ["done", "done"], ends
    expected, none = faults.run(lambda: train_all(given, tmp_path))
    assert none == []
    assert [seen for _, seen in expected][1] > 0  # the whole student was measured too
    for losses, shares in (what for _, what in ends):
        for (found, seen), (one, as_often) in zip(losses, expected, strict=True):
            assert found == pytest.approx(one, rel=1e-4)
            assert seen == as_often
        assert 0 < max(shares) < 0.6  # of two processes each has about half
    for verb in VERBS:
        one, *two = (load_file(tmp_path / f"{verb.__name__}-{rank}") for rank in (None, 0, 1))
        assert same(two[0], two[1])
        # Softmax does not see the biases of keys: their gradients are rounding, which Adam takes for a direction.
        real = {k: v for k, v in one.items() if not k.endswith("key.bias")}
        assert same(real, {k: two[0][k] for k in real}, atol=1e-5)
        assert not same(one, {k: before[k] for k in one}, atol=1e-5)
    zeros, found = ({k: v == 0 for k, v in load_file(tmp_path / f"prune-{rank}").items()} for rank in (None, 0))
    assert same(zeros, found)
    assert sum(int(z.sum()) for z in zeros.values()) > 1000


def test_where_accelerate_does_not_shard_it_is_said_and_nothing_is_trained(given):
    model, tokenizer, corpus = given

    def work(_rank):
        asks(pretends=False)
        student = copy.deepcopy(model)
        with pytest.raises(InputError, match=r"does not shard on cpu in 2 processes: each .*Start several on GPUs, or"):
            train(student, tokenizer, corpus, objective=[CrossEntropy()], steps=1, **QUIET)
        return same(weights(student), weights(model))

    assert together(work, 2) == [("done", True)] * 2


class Steers(TrainerCallback):
    def on_pre_optimizer_step(self, args, state, control, **_):
        pass


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda: {"folder": "somewhere"}, "in one go: its checkpoints are not gone on from. Leave folder out"),
        (lambda: {"gradients": compress.GradDrop(0.5)}, "without gradients, which needs it whole"),
        (lambda: {"replace_words": compress.NearestWords("static", 0.4)}, "without replace_words, which needs it"),
        (lambda: {"callbacks": [Steers()]}, "by verbs that change its weights alone, and Steers needs more of it"),
        (lambda: {"activation_bits": 8}, "without hooks, and one is on bert.encoder.layer.0.attention.self.query"),
        (lambda: {"criterion": "movement"}, "by verbs that change its weights alone, and _Prunes needs more"),
    ],
)
def test_what_needs_more_than_the_weights_is_refused_before_the_first_step(how, message, given, monkeypatch):
    model, tokenizer, corpus = given
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    options = how()
    verb = compress.quantize if "activation_bits" in options else compress.prune
    asked = {"sparsity": 0.5, "schedule": "cubic", "prunings": 2} if verb is compress.prune else {"bits": 4}
    with pytest.raises(InputError, match=f"A student in shards .FSDP. is trained {message}"):
        verb(model, train=corpus, tokenizer=tokenizer, steps=4, **asked, **options, **QUIET)


def test_another_fsdp_and_objectives_that_learn_are_refused():
    accelerator = types.SimpleNamespace(state=types.SimpleNamespace(fsdp_plugin=types.SimpleNamespace(fsdp_version=1)))
    with pytest.raises(InputError, match="expected FSDP 2, found FSDP 1: set fsdp_version: 2"):
        sharded.check_sharding(accelerator)
    sharded.check_learned({"nothing": torch.nn.Module()})
    with pytest.raises(InputError, match="by objectives that learn nothing themselves, and 'remembers' does"):
        sharded.check_learned({"remembers": torch.nn.Linear(1, 1)})
    assert not sharded.asked()
