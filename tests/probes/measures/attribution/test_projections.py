"""Maps between the states of two models: against scikit-learn, and in patching of a student of another width."""

import copy
import warnings

import numpy as np
import pytest
import torch
from patched import corpus_of
from sklearn.linear_model import LinearRegression

from probes.errors import InputError, LayerscopeWarning
from probes.measures.attribution.patching import patching
from probes.measures.attribution.projections import projections
from probes.models.facts import body_of

WORDS = ["the", "red", "big", "small", "dog", "cat", "bird", "sat", "ran", "sang", "on", "mat", "it", "she", "house"]
TRAIN = [" ".join(np.random.default_rng(i).choice(WORDS, 6)) for i in range(40)]


@pytest.fixture(scope="module")
def tokenizer(make_tokenizer):
    return make_tokenizer()


@pytest.fixture(scope="module")
def base(tiny_models):
    return tiny_models("BertForSequenceClassification").double()


class _Wider(torch.nn.Module):
    """What a module gives, of what stands for its input: both in another, wider space."""

    def __init__(self, module, into, back=None, odd=0.0):
        super().__init__()
        self.module, self.into, self.back, self.odd = module, into, back, odd

    def forward(self, *args, **kwargs):
        if self.back is None:  # of embeddings
            return self.module(*args, **kwargs) @ self.into
        given = self.module(args[0] @ self.back, *args[1:], **kwargs)
        return given @ self.into + self.odd * torch.sin(40 * given @ self.into)


def student_of(base, odd=0.0):
    """The same function in a space of 16 features, whose second block adds what no straight map undoes."""
    torch.manual_seed(0)
    into = torch.linalg.qr(torch.randn(16, 16).double())[0][:12]
    student = copy.deepcopy(base)
    student.config.hidden_size = 16
    body = body_of(student)
    body.embeddings = _Wider(body.embeddings, into)
    for number, block in enumerate(body.encoder.layer):
        body.encoder.layer[number] = _Wider(block, into, into.T, odd if number == 1 else 0.0)
    back = torch.nn.Linear(16, 12, bias=False).double()
    with torch.no_grad():
        back.weight.copy_(into)
    body.pooler = torch.nn.Sequential(back, body.pooler)
    # Embeddings are looked for by their table.
    student.get_input_embeddings = base.get_input_embeddings
    return student


def test_maps_and_what_they_leave_are_those_of_least_squares(base, tokenizer):
    student, train = student_of(base, odd=0.3), corpus_of(("en",), None, TRAIN)
    found = projections(base, student, tokenizer, train, {1: 1, 2: 2})
    states = {True: ([], []), False: ([], [])}
    for row in train:
        seen = []
        hooks = [
            body_of(m).encoder.layer[1].register_forward_hook(lambda _m, _a, y, seen=seen: seen.append(y))
            for m in (base, student)
        ]
        with torch.no_grad():
            for model in (base, student):
                model(**tokenizer(row["text"], return_tensors="pt"))
        for hook in hooks:
            hook.remove()
        for kept, given in zip(states[int(row["id"]) % 5 == 0], seen, strict=True):
            kept.append((given[0] if given.ndim == 3 else given).numpy())
    (x, y), (new, wanted) = (tuple(np.concatenate(s) for s in states[held_out]) for held_out in (False, True))
    fitted = LinearRegression().fit(x, y)
    left = ((fitted.predict(new) - wanted) ** 2).sum() / ((wanted - wanted.mean(0)) ** 2).sum()
    assert found[1].residual < 1e-6
    assert 0.05 < found[2].residual == pytest.approx(left, rel=0.05)
    mapped = found[2](torch.as_tensor(new)).numpy()
    assert ((mapped - wanted) ** 2).sum() / ((wanted - wanted.mean(0)) ** 2).sum() == pytest.approx(found[2].residual)


@pytest.mark.parametrize("into", ["other", "base"])
def test_the_block_of_a_wider_student_that_does_the_damage_is_found(base, tokenizer, into):
    student, train = student_of(base, odd=0.3), corpus_of(("en",), None, TRAIN)
    how = {"draws": 10, "progress": False, "names": ("one", "two"), "into": into}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LayerscopeWarning)
        out = patching(base, student, tokenizer, corpus_of(), train=train, **how)
    share = out.value.sel(measure="kl", language="pooled")
    np.testing.assert_allclose(share.sel(layer=[0, 1]), 0, atol=1e-3)
    assert float(share.sel(layer=2)) > 0.5 if into == "other" else float(share.sel(layer=2)) > 0.1
    assert out.residual.dims == ("layer",)
    assert (out.residual[:2] < 1e-6).all()
    assert float(out.residual[2]) > 0.05


def test_what_cannot_be_mapped_is_said_before_a_model_runs(base, tokenizer):
    student, train = student_of(base), corpus_of(("en",), None, TRAIN)
    student.forward = lambda *_a, **_k: 1 / 0
    run = {"names": ("one", "two"), "progress": False}
    with pytest.raises(InputError, match=r"'one' have 12 features and those of 'two' 16, .*Give texts as train="):
        patching(base, student, tokenizer, corpus_of(), **run)
    with pytest.raises(InputError, match=r"at='weights': train= is for maps of states\. Patch these"):
        patching(base, student, tokenizer, corpus_of(), train=train, at="weights", **run)
    with pytest.raises(InputError, match=r"12 of the 12 texts that maps are learned from are measured on too, as 'a b"):
        patching(base, student, tokenizer, corpus_of(), train=corpus_of(), **run)
    with pytest.raises(InputError, match=r"train= has 3 sentences: expected 5 at least"):
        patching(base, student, tokenizer, corpus_of(), train=train.select(range(3)), **run)
