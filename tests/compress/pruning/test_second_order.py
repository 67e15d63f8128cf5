"""SparseGPT: Optimal Brain Surgeon's updates, at most the error of magnitude and Wanda by matrix, exact counts."""

import itertools

import pandas as pd
import pytest
import tiny
import torch

import probes
from compress import prune, save
from compress.blocks import block_by_block
from compress.inputs import row_batches
from compress.matrices import matrices_of
from compress.moments import Moments, squared_error
from compress.pruning.criteria import scores
from compress.pruning.second_order import sparsegpt
from compress.rows import every_row
from probes.errors import InputError, LayerscopeWarning


def problem(inputs, units, tokens=200, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.eye(inputs) + torch.randn(inputs, inputs, generator=generator) / inputs**0.5
    x = torch.randn(tokens, inputs, generator=generator) @ mixed
    return torch.randn(units, inputs, generator=generator), Moments.of(x)


def error(pruned, weight, moments):
    return float(squared_error(pruned - weight, moments.products).sum())


@pytest.fixture(scope="module")
def texts():
    words = [" ".join(tiny.WORDS[i : i + 6]) for i in range(16)] * 3
    return probes.load_corpus(pd.DataFrame({"id": range(48), "language": "en", "text": words}))


@pytest.mark.parametrize("pattern", [None, (2, 4)])
def test_its_updates_are_those_of_optimal_brain_surgeon(pattern):
    weight, moments = problem(16, 5)
    pruned = sparsegpt(weight, 0.5, moments, pattern=pattern, scope="unit")
    products = moments.products.clone()
    products.diagonal().add_(0.01 * products.diagonal().mean())
    for row, new in zip(weight.double(), pruned.double(), strict=True):
        left, inverse = row.clone(), torch.linalg.inv(products)
        for k in range(16):  # the weights of inputs before k are fixed
            if new[k] == 0:  # Hassibi and Stork: one weight goes, those after it make good for it
                left -= left[k] / inverse[k, k] * inverse[:, k]
            inverse = inverse - torch.outer(inverse[:, k], inverse[k]) / inverse[k, k]
        assert torch.allclose(new, torch.where(new == 0, 0.0, left), atol=1e-4)


def test_one_weight_is_taken_as_the_surgeon_takes_it():
    weight, moments = problem(8, 1)
    products = moments.products.clone()
    products.diagonal().add_(0.01 * products.diagonal().mean())
    inverse = torch.linalg.inv(products)
    cost = weight[0].double() ** 2 / inverse.diagonal()
    gone = int((sparsegpt(weight, 1 / 8, moments)[0] == 0).nonzero())
    # It knows of the inputs behind each only; that of all is its lower bound.
    assert cost[gone] <= 2 * cost.min()


def test_of_a_small_problem_it_is_near_the_best_mask_with_the_best_weights():
    weight, moments = problem(4, 30)
    damped = moments.products + 1e-9 * torch.eye(4)
    best = 0.0
    for row in weight.double():
        found = []
        for stays in itertools.combinations(range(4), 2):
            gone = [k for k in range(4) if k not in stays]
            # Without these, the others are the least squares fit to the row's output.
            schur = damped[gone][:, gone] - damped[gone][:, stays] @ torch.linalg.solve(
                damped[list(stays)][:, stays], damped[list(stays)][:, gone]
            )
            found.append(float(row[gone] @ schur @ row[gone]))
        best += min(found)
    ours = error(sparsegpt(weight, 0.5, moments, pattern=(2, 4), damping=0.0), weight, moments)
    assert best <= ours * (1 + 1e-4)
    assert ours <= 2 * best


@pytest.mark.parametrize("scope", ["matrix", "unit"])
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.9])
def test_counts_are_exact_and_zeros_stay(sparsity, scope):
    weight, moments = problem(300, 7)
    weight[:, 256:] *= torch.arange(44) % 2  # half of the last stretch is zero
    pruned = sparsegpt(weight, sparsity, moments, scope=scope)
    assert int((pruned == 0).sum()) == max(round(sparsity * weight.numel()), int((weight == 0).sum()))
    assert not pruned[weight == 0].any()


OF_TOKENS = ["mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "gpt_neox", "opt", "bloom"]


@pytest.mark.parametrize(
    ("name", "pattern"),
    [("bert", None), ("gpt2", "2:4"), ("llama", None), ("mixtral", "2:4"), *((name, None) for name in OF_TOKENS)],
)
def test_matrix_by_matrix_it_is_at_most_the_error_of_magnitude_and_wanda(name, pattern, texts):
    model, tokenizer = tiny.make(name), tiny.tokenizer_of(name)
    how = {"sparsity": 0.5, "train": texts, "tokenizer": tokenizer, "pattern": pattern, "progress": False}
    pruned = prune(model, criterion="sparsegpt", **how)
    others = [
        prune(model, sparsity=0.5, pattern=pattern),
        prune(model, criterion="wanda", **how),
    ]
    first = next(iter(matrices_of(model)))  # of the first block all are fed the same
    block = first[: first.index("0") + 1]
    batches = list(row_batches(every_row(texts, model, tokenizer), tokenizer, model))
    seen = {}
    chosen = matrices_of(model, only=block)
    block_by_block(model, chosen, batches, seen.update, so="", progress=False)
    for key, moments in seen.items():
        values = [matrices_of(m)[key].detach() for m in (model, pruned, *others)]
        values = [v.T if name == "gpt2" else v for v in values]
        ours, *theirs = [error(v, values[0], moments) for v in values[1:]]
        assert ours <= min(theirs) * (1 + 1e-5)


def test_it_is_nearer_to_the_original_than_wanda_and_kept_as_any_other(texts, tmp_path):
    model, tokenizer = tiny.make("llama", "lm"), tiny.tokenizer_of("llama")
    how = {"sparsity": 0.5, "train": texts, "tokenizer": tokenizer, "progress": False}
    pruned = prune(model, criterion="sparsegpt", damping=0.02, **how)
    done = pruned.config.compression
    assert (done["criterion"], done["damping"]) == ("sparsegpt, layer-wise, one shot", 0.02)
    assert done["sparsity_of_pruned"] == 0.5
    states = [
        probes.capture(m, tokenizer, texts, progress=False).hidden.values[-1]
        for m in (model, pruned, prune(model, criterion="wanda", **how))
    ]
    ours, theirs = (((s - states[0]) ** 2).sum() for s in states[1:])
    assert 0 < ours < theirs
    save(pruned, tmp_path / "out", tokenizer, packed=True)
    loaded, _ = probes.load_checkpoint(tmp_path / "out")
    assert all(torch.equal(v, pruned.state_dict()[k]) for k, v in loaded.state_dict().items())


def test_what_is_gone_stays_gone_in_a_training_after_it(make_classifier, make_tokenizer):
    model = make_classifier()
    rows = [{"id": i, "language": "en", "text": "red dog sat", "label": "xyz"[i % 3]} for i in range(12)]
    corpus = probes.load_corpus(pd.DataFrame(rows))
    given = {"train": corpus, "tokenizer": make_tokenizer(), "steps": 2, "batch_size": 4, "progress": False}
    pruned = prune(model, sparsity=0.5, criterion="sparsegpt", **given)
    assert pruned.config.compression["sparsity_of_pruned"] == 0.5
    assert len(pruned.history)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"train": None}, r"^criterion='sparsegpt' needs text: give train="),
        ({"damping": -1}, r"^damping=-1: expected"),
        ({"scope": "global"}, r"^criterion='sparsegpt' goes matrix by matrix"),
        ({"schedule": "cubic", "steps": 9}, r"^criterion='sparsegpt' prunes at once, and schedule='cubic'"),
        ({"pattern": "2:4", "scope": "unit"}, r"^pattern='2:4' compares inputs side by side, and scope='unit'"),
        (
            {"pattern": "2:4", "criterion": "magnitude", "schedule": "uniform", "steps": 9},
            r"^pattern='2:4' prunes at once",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(classifier, make_tokenizer, texts, how, message):
    given = {"sparsity": 0.5, "criterion": "sparsegpt", "train": texts, "tokenizer": make_tokenizer()}
    with pytest.raises(InputError, match=message):
        prune(classifier, **given | how)


def test_few_tokens_are_said_with_the_damping(classifier, make_tokenizer, texts):
    given = {"sparsity": 0.5, "criterion": "sparsegpt", "train": texts.select([0]), "tokenizer": make_tokenizer()}
    with pytest.warns(LayerscopeWarning, match=r"train has 8 tokens, fewer than the 12 inputs of .* damping=0\.01"):
        prune(classifier, progress=False, **given)


def test_it_has_no_scores(classifier, make_tokenizer, texts):
    with pytest.raises(InputError, match=r"^criterion='sparsegpt' changes the weights that stay, too"):
        scores(classifier, matrices_of(classifier), "sparsegpt", corpus=texts, tokenizer=make_tokenizer())
