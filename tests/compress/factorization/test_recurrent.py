"""Smaller LSTMs: what they compute, equal to the full one where they can be, and a language model that learns."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from compress.factorization.recurrent import TensorTrainLSTM, low_rank_lstm, tensor_train_lstm
from probes.errors import InputError


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def by_hand(x, layers):
    """States of the last layer, in float64: for each layer (inputs, states, biases, projection or None)."""
    x = x.detach().double().numpy()
    for inputs, states, bias, projection in layers:
        hidden = inputs.shape[0] // 4
        projection = np.eye(hidden) if projection is None else projection
        m, c = np.zeros((x.shape[1], len(projection))), np.zeros((x.shape[1], hidden))
        out = []
        for step in x:
            i, f, g, o = np.split(step @ inputs.T + m @ states.T + bias, 4, axis=1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            m = (sigmoid(o) * np.tanh(c)) @ projection.T
            out.append(m)
        x = np.stack(out)
    return x


def layers_of(lstm):
    out = []
    for layer in range(lstm.num_layers):
        found = {
            k[: -len(f"_l{layer}")]: v.detach().double().numpy()
            for k, v in lstm.named_parameters()
            if k.endswith(f"_l{layer}")
        }
        bias = found.get("bias_ih", 0) + found.get("bias_hh", 0)
        out.append((found["weight_ih"], found["weight_hh"], bias, found.get("weight_hr")))
    return out


def made(layers=2, hidden=12, rank=None, bias=True, **settings):
    """An LSTM, of which all that reads a layer reads `rank` directions of it, and what reads the last one."""
    torch.manual_seed(0)
    lstm, reader = nn.LSTM(5, hidden, layers, bias=bias, **settings), nn.Linear(hidden, 7)
    with torch.no_grad():
        for parameter in [*lstm.parameters(), *reader.parameters()]:
            parameter.normal_(std=0.6)
        if rank is not None:
            named = dict(lstm.named_parameters())
            for layer in range(layers):
                onto = torch.linalg.qr(torch.randn(hidden, rank))[0]
                for read in (named[f"weight_hh_l{layer}"], named.get(f"weight_ih_l{layer + 1}", reader.weight)):
                    read.copy_(read @ onto @ onto.T)
    return lstm.eval(), reader


# --- low rank --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("bias", [True, False])
def test_at_the_rank_of_what_reads_it_nothing_changes(layers, bias):
    lstm, reader = made(layers, rank=4, bias=bias)
    x = torch.randn(9, 3, 5)
    before = copy.deepcopy(lstm.state_dict())
    with torch.no_grad():
        expected = reader(lstm(x)[0])
        small, small_reader = low_rank_lstm(lstm, 4, reader)
        torch.testing.assert_close(small_reader(small(x)[0]), expected, atol=1e-5, rtol=1e-5)
        states = by_hand(x, layers_of(small))
        found = states @ small_reader.weight.double().numpy().T + reader.bias.double().numpy()
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
        less, less_reader = low_rank_lstm(lstm, 3, reader)
        assert (less_reader(less(x)[0]) - expected).abs().max() > 1e-2
    assert all(torch.equal(v, before[k]) for k, v in lstm.state_dict().items())
    assert (small.training, small_reader.training) == (False, True)


@pytest.mark.parametrize("rank", [1, 5, 11])
def test_the_projection_is_the_nearest_for_all_that_reads_it_and_shared(rank):
    lstm, reader = made()
    small, small_reader = low_rank_lstm(lstm, rank, reader)
    named = {k: v.detach().double().numpy() for k, v in small.named_parameters()}
    full = {k: v.detach().double().numpy() for k, v in lstm.named_parameters()}
    assert np.array_equal(named["weight_ih_l0"], full["weight_ih_l0"])
    for layer, above, small_above in (
        (0, full["weight_ih_l1"], named["weight_ih_l1"]),
        (1, reader.weight.detach().double().numpy(), small_reader.weight.detach().double().numpy()),
    ):
        stacked = np.concatenate([full[f"weight_hh_l{layer}"], above])
        values = np.linalg.svd(stacked, compute_uv=False)
        read = np.concatenate([named[f"weight_hh_l{layer}"], small_above])
        error = np.linalg.norm(stacked - read @ named[f"weight_hr_l{layer}"])
        assert error == pytest.approx(np.sqrt((values[rank:] ** 2).sum()), rel=1e-4)
    sizes = [4 * 12 * (5 + rank) + rank * 12 + 8 * 12, 4 * 12 * (rank + rank) + rank * 12 + 8 * 12]
    assert sum(p.numel() for p in small.parameters()) == sum(sizes)
    assert sum(p.numel() for p in small_reader.parameters()) == rank * 7 + 7


def test_how_it_was_made_is_kept():
    lstm, reader = made(layers=2, batch_first=True, dropout=0.3)
    state = torch.get_rng_state()
    small, _ = low_rank_lstm(lstm.double(), 3, reader.double())
    train = tensor_train_lstm(lstm, 2)
    assert torch.equal(torch.get_rng_state(), state)
    for one in (small, train):
        assert (one.batch_first, one.dropout, one.num_layers, one.training) == (True, 0.3, 2, False)
        assert {p.dtype for p in one.parameters()} == {torch.float64}
    assert small(torch.zeros(3, 9, 5, dtype=torch.float64))[0].shape == (3, 9, 3)
    assert train(torch.zeros(3, 9, 5, dtype=torch.float64))[0].shape == (3, 9, 12)


# --- tensor trains ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_at_full_rank_it_is_the_lstm(batch_first, bias):
    lstm, _ = made(3, bias=bias, batch_first=batch_first)
    full = tensor_train_lstm(lstm, 15)
    x = torch.randn(9, 4, 5)
    state = tuple(torch.randn(3, 9 if batch_first else 4, 12) for _ in range(2))
    with torch.no_grad():
        for given in ((), (state,)):
            expected, found = lstm(x, *given), full(x, *given)
            for one, other in ((found[0], expected[0]), *zip(found[1], expected[1], strict=True)):
                torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
        assert (tensor_train_lstm(lstm, 2)(x)[0] - lstm(x)[0]).abs().max() > 1e-2


def test_it_is_an_lstm_of_the_matrices_that_its_cores_make():
    torch.manual_seed(0)
    lstm = TensorTrainLSTM(5, 12, rank=3, num_layers=2)
    inputs, states, above, above_states = lstm.parts()
    assert inputs is lstm.inputs0
    assert above_states is lstm.states1
    layers = []
    for one, other in ((inputs, states), (above, above_states)):
        matrices = [p.weight.detach().double().numpy() for p in (one, other)]
        layers.append((*matrices, (one.bias + other.bias).detach().double().numpy(), None))
    x = torch.randn(6, 3, 5)
    np.testing.assert_allclose(lstm(x)[0].detach().numpy(), by_hand(x, layers), atol=1e-5)
    # 48 = 3 x 4 x 4; 5 = 5 x 1 x 1; 12 = 3 x 2 x 2, so that sizes are 15, 4, 4 and 9, 8, 8.
    one, other = 15 * 3 + 4 * 9 + 4 * 3, 9 * 3 + 8 * 9 + 8 * 3
    assert sum(p.numel() for p in lstm.parameters()) == one + 3 * other + 4 * 48
    copied = pickle.loads(pickle.dumps(lstm))
    loaded = TensorTrainLSTM(5, 12, rank=3, num_layers=2)
    assert not torch.equal(loaded(x)[0], lstm(x)[0])
    loaded.load_state_dict(lstm.state_dict())
    for each in (copied, copy.deepcopy(lstm), loaded):
        assert torch.equal(each(x)[0], lstm(x)[0])


@pytest.mark.parametrize("rank", [1, 4, 8])
def test_random_cores_make_matrices_as_large_as_those_of_an_lstm(rank):
    torch.manual_seed(0)
    found = [
        float(part.weight.detach().square().mean()) for _ in range(40) for part in TensorTrainLSTM(64, 64, rank).parts()
    ]
    assert np.mean(found) == pytest.approx(1 / (3 * 64), rel=0.25)
    assert float(nn.LSTM(64, 64).weight_hh_l0.detach().square().mean()) == pytest.approx(1 / (3 * 64), rel=0.05)


# --- a language model ------------------------------------------------------------------------------------------------

WORDS = 8


def sequences(count, rng, noise=0.1):
    """Each word is that of two places before, permuted, but for some at random: what comes is in the past alone."""
    permuted = np.random.default_rng(7).permutation(WORDS)
    out = rng.integers(WORDS, size=(20, count))
    for t in range(2, 20):
        out[t] = np.where(rng.random(count) < noise, out[t], permuted[out[t - 2]])
    return torch.from_numpy(out)


class LanguageModel(nn.Module):
    def __init__(self, lstm, reader):
        super().__init__()
        self.embedding, self.lstm, self.reader = nn.Embedding(WORDS, 8), lstm, reader

    def loss(self, text):
        given = self.reader(self.lstm(self.embedding(text[:-1]))[0])
        return nn.functional.cross_entropy(given[1:].flatten(0, 1), text[2:].flatten())


def trained(model, steps=150):
    rng = np.random.default_rng(0)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        model.loss(sequences(32, rng)).backward()
        optimizer.step()
    with torch.no_grad():
        return float(model.loss(sequences(200, np.random.default_rng(1))))


@pytest.fixture(scope="module")
def language_model():
    torch.manual_seed(0)
    model = LanguageModel(nn.LSTM(8, 24), nn.Linear(24, WORDS))
    return model, trained(model)


def best():
    """Cross-entropy of the distribution that the words are drawn from."""
    right = 0.9 + 0.1 / WORDS
    return -right * math.log(right) - (WORDS - 1) * 0.1 / WORDS * math.log(0.1 / WORDS)


@pytest.mark.parametrize("kind", ["low rank", "tensor train"])
def test_a_small_language_model_learns_what_can_be_known(kind):
    torch.manual_seed(1)
    if kind == "low rank":
        model = LanguageModel(nn.LSTM(8, 24, proj_size=6), nn.Linear(6, WORDS))
    else:
        model = LanguageModel(TensorTrainLSTM(8, 24, rank=4), nn.Linear(24, WORDS))
    before = float(model.loss(sequences(200, np.random.default_rng(1))).detach())
    assert before == pytest.approx(math.log(WORDS), abs=0.15)
    after = trained(model)
    assert best() - 0.03 < after < 0.75 * math.log(WORDS)
    # Words that nothing foretells are not learned.
    noise = sequences(200, np.random.default_rng(2), noise=1.0)
    assert float(model.loss(noise).detach()) > math.log(WORDS)


@pytest.mark.parametrize("kind", ["low rank", "tensor train"])
def test_a_trained_language_model_made_smaller_and_trained_on(language_model, kind):
    whole, loss = language_model
    assert loss < 0.6 * math.log(WORDS)
    small = copy.deepcopy(whole)
    if kind == "low rank":
        small.lstm, small.reader = low_rank_lstm(whole.lstm, 8, whole.reader)
    else:
        small.lstm = tensor_train_lstm(whole.lstm, 6)
    parameters = [sum(p.numel() for p in m.lstm.parameters()) for m in (small, whole)]
    assert parameters[0] < 0.7 * parameters[1]
    before = {k: v.clone() for k, v in small.named_parameters()}
    damaged = float(small.loss(sequences(200, np.random.default_rng(1))).detach())
    after = trained(small, 60)
    assert loss < damaged
    assert after < damaged
    assert after < loss + 0.3
    assert all(not torch.equal(v, before[k]) for k, v in small.named_parameters())


# --- what cannot be --------------------------------------------------------------------------------------------------


def test_bad_input():
    lstm, reader = made(1)
    for rank in (0, 12, 2.0, True):
        with pytest.raises(
            InputError, match=f"rank={rank}: expected a whole number of at least 1 and below the hidden"
        ):
            low_rank_lstm(lstm, rank, reader)
    for rank in (0, 2.0, True):
        with pytest.raises(InputError, match=f"rank={rank}: expected a whole number of at least 1"):
            tensor_train_lstm(lstm, rank)
    with pytest.raises(InputError, match=r"rank=16: these matrices have at most 15 between two cores\. Ask for less"):
        tensor_train_lstm(lstm, 16)
    with pytest.raises(InputError, match="reader: expected a linear map of 12 inputs, the hidden size, found 7"):
        low_rank_lstm(lstm, 3, nn.Linear(7, 5))
    for bad, message in (
        (nn.LSTM(5, 12, bidirectional=True), "found two directions"),
        (nn.LSTM(5, 12, proj_size=3), "found projections of 3"),
        (nn.GRU(5, 12), r"expected a torch\.nn\.LSTM, found GRU"),
    ):
        with pytest.raises(InputError, match=message):
            low_rank_lstm(bad, 3, reader)
        with pytest.raises(InputError, match=message):
            tensor_train_lstm(bad, 3)
    with torch.no_grad():
        lstm.weight_hh_l0[2, 3] = math.nan
    with pytest.raises(InputError, match="layer 0: what reads it holds weights that are NaN or infinite"):
        low_rank_lstm(lstm, 3, reader)
    with pytest.raises(InputError, match="weight_hh_l0 holds values that are NaN or infinite"):
        tensor_train_lstm(lstm, 3)
    with pytest.raises(InputError, match=r"expected a tensor \(time, batch, input\), or \(batch, time, input\) with"):
        TensorTrainLSTM(5, 12, 2)(torch.zeros(3, 5))
