"""n of m: exact in every group of every matrix, whatever the criterion and which way it lies; refused by name."""

import pandas as pd
import pytest
import tiny
import torch

import probes
from compress import prune
from compress.matrices import matrices_of, transposed
from compress.pruning.patterns import by_pattern, check_width, read_pattern
from probes.errors import InputError


@pytest.fixture(scope="module")
def texts():
    words = [" ".join(tiny.WORDS[i : i + 6]) for i in range(16)] * 3
    return probes.load_corpus(
        pd.DataFrame({"id": range(48), "language": "en", "text": words, "label": ["x", "y", "z"] * 16})
    )


def groups_of(model, among):
    across = transposed(model, matrices_of(model))
    for name, weight in matrices_of(model).items():
        values = weight.detach()
        yield (values.T if across[name] else values).reshape(-1, among)


@pytest.mark.parametrize("criterion", ["magnitude", "wanda", "random", "lamp", "sparsegpt"])
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_each_group_keeps_as_many(name, criterion, texts):
    model = tiny.make(name)
    for pattern, sparsity in (("2:4", 0.5), ("1:4", 0.75)):
        how = {"train": texts, "tokenizer": tiny.tokenizer_of(name)} if criterion in ("wanda", "sparsegpt") else {}
        pruned = prune(model, sparsity=sparsity, criterion=criterion, pattern=pattern, progress=False, **how)
        assert {int(n) for g in groups_of(pruned, 4) for n in (g != 0).sum(1)} == {int(pattern[0])}
        done = pruned.config.compression
        assert (done["pattern"], done["sparsity_of_pruned"]) == (pattern, sparsity)
        assert done["criterion"] == f"{criterion}, {pattern}, one shot"


def test_the_largest_of_each_group_stay_and_what_is_gone_stays_gone():
    score = {"w": torch.tensor([[3.0, 1.0, 2.0, 4.0, 1.0, 1.0, torch.nan, 0.0]])}
    kept = {"w": torch.tensor([[True, True, True, False, True, True, True, True]])}
    expected = [[True, False, True, False, True, True, False, False]]
    assert by_pattern(score, kept, 2, 4, {"w": False})["w"].tolist() == expected
    turned = by_pattern({"w": score["w"].T}, {"w": kept["w"].T}, 2, 4, {"w": True})["w"]
    assert turned.T.tolist() == expected


@pytest.mark.parametrize(
    ("pattern", "sparsity", "message"),
    [
        ("2of4", 0.5, r"^pattern='2of4': expected how many of so many inputs stay, as '2:4'"),
        ("4:4", 0.0, r"^pattern='4:4': expected"),
        (2, 0.5, r"^pattern=2: expected"),
        ("1:4", 0.5, r"^pattern='1:4' makes 0\.75 of the weights zero, and sparsity=0\.5: give sparsity=0\.75"),
    ],
)
def test_patterns_that_cannot_be_are_refused(pattern, sparsity, message):
    with pytest.raises(InputError, match=message):
        read_pattern(pattern, sparsity)


def test_a_pattern_must_divide_the_inputs():
    check_width(12, (2, 4), "layer")
    with pytest.raises(InputError, match=r"^layer: pattern='2:4' does not divide its 10 inputs"):
        check_width(10, (2, 4), "layer")
    with pytest.raises(InputError, match=r"pattern='2:5' does not divide its 32 inputs"):
        prune(tiny.make("bert"), sparsity=0.6, pattern="2:5")
