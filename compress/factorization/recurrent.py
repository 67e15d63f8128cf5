"""Smaller LSTMs: one projection for all that reads a layer, or matrices as tensor trains."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from compress.factorization.tensor_train import balanced, tensor_train
from probes.errors import InputError
from probes.models.formats.factorized import TensorTrainLinear


def low_rank_lstm(lstm: nn.LSTM, rank: int, reader: nn.Linear) -> tuple[nn.LSTM, nn.Linear]:
    """Return an LSTM of low rank made from another one, and the linear map that reads it.

    The states h of a layer are read by the gates of the layer itself, by those of the next one, and
    on top by a linear map, as the output layer of a language model. All that reads a layer reads
    the same projection of it, m = P h of `rank` numbers, in its place. `torch.nn.LSTM` with
    `proj_size` is just that: to train one from scratch, make it.

    Args:
        lstm: an LSTM of one direction, without projections; it is not changed.
        rank: of the projections, at least 1 and below the hidden size.
        reader: what reads the states of the last layer; it is not changed.

    Returns:
        An LSTM with projections, and what reads it, (rank -> outputs of `reader`). A layer has 4
        hidden (inputs + rank) + rank hidden + 8 hidden parameters; the inputs of all but the first
        are rank.

    Raises:
        InputError: the rank is out of range; the LSTM has two directions or projections; the reader
            does not fit it; weights are NaN or infinite.

    Notes:
        Grachev, Ignatov and Savchenko 2019, arXiv 1902.02380, as recalled; they train such an LSTM
        from scratch. That it starts from the truncated SVD of what reads a layer, stacked, is a
        choice made here: nearest by squared error to [gates of the layer; gates of the next one or
        reader]. To be trained further. The first layer's inputs stay as they are.

    Example:
        >>> import torch
        >>> lstm, reader = torch.nn.LSTM(8, 16, num_layers=2), torch.nn.Linear(16, 50)
        >>> lstm, reader = low_rank_lstm(lstm, 4, reader)
        >>> lstm.proj_size, reader(lstm(torch.zeros(5, 3, 8))[0]).shape
        (4, torch.Size([5, 3, 50]))

    See also:
        `tensor_train_lstm`, `factorize`.
    """
    _check(lstm)
    if type(rank) is not int or not 1 <= rank < lstm.hidden_size:
        raise InputError(
            f"rank={rank!r}: expected a whole number of at least 1 and below the hidden size of {lstm.hidden_size}"
        )
    if reader.in_features != lstm.hidden_size:
        raise InputError(
            f"reader: expected a linear map of {lstm.hidden_size} inputs, the hidden size, found {reader.in_features}"
        )
    how: dict[str, Any] = {"device": reader.weight.device, "dtype": reader.weight.dtype}
    # Without a trace in the caller's random numbers.
    small = nn.LSTM(
        lstm.input_size,
        lstm.hidden_size,
        lstm.num_layers,
        bias=lstm.bias,
        batch_first=lstm.batch_first,
        dropout=lstm.dropout,
        proj_size=rank,
        device="meta",
        dtype=how["dtype"],
    ).to_empty(device=how["device"])
    small_reader = nn.Linear(rank, reader.out_features, bias=reader.bias is not None, device="meta", dtype=how["dtype"])
    small_reader = small_reader.to_empty(device=how["device"])
    old, new = dict(lstm.named_parameters()), dict(small.named_parameters())
    with torch.no_grad():
        for name, parameter in old.items():
            if name.startswith("bias") or name == "weight_ih_l0":
                new[name].copy_(parameter)
        for layer in range(lstm.num_layers):
            following = f"weight_ih_l{layer + 1}"
            above = old.get(following, reader.weight)
            stacked = torch.cat([old[f"weight_hh_l{layer}"], above]).detach().cpu().double()
            if not torch.isfinite(stacked).all():
                raise InputError(f"layer {layer}: what reads it holds weights that are NaN or infinite")
            left, values, right = torch.linalg.svd(stacked, full_matrices=False)
            root = values[:rank].sqrt()
            read = left[:, :rank] * root
            new[f"weight_hr_l{layer}"].copy_(root[:, None] * right[:rank])
            new[f"weight_hh_l{layer}"].copy_(read[: 4 * lstm.hidden_size])
            new.get(following, small_reader.weight).copy_(read[4 * lstm.hidden_size :])
        if reader.bias is not None:
            small_reader.bias.copy_(reader.bias)
    small.train(lstm.training)
    return small, small_reader.train(reader.training)


class TensorTrainLSTM(nn.Module):
    """An LSTM whose matrices, of inputs and of states in each layer, are tensor trains.

    Attributes:
        inputs0, states0, inputs1, ...: `TensorTrainLinear`, to the four gates in the order of
            `torch.nn.LSTM`.

    Notes:
        Grachev, Ignatov and Savchenko 2019, arXiv 1902.02380, as recalled: recurrent matrices in
        this form train poorly and save little; low rank is the better choice. The sizes of the
        three cores are by `balanced`. The matrices are made from the cores once a call, which is
        faster than to go through the cores at every token, and takes the memory of full ones for as
        long. Random cores are drawn so that the entries of a matrix vary as much as those of
        `torch.nn.LSTM` do.

    Example:
        >>> import torch
        >>> lstm = TensorTrainLSTM(8, 27, rank=2)
        >>> output, (hidden, cell) = lstm(torch.zeros(5, 3, 8))
        >>> output.shape, sum(p.numel() for p in lstm.parameters())
        (torch.Size([5, 3, 27]), 426)

    See also:
        `tensor_train_lstm`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        rank: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
    ) -> None:
        """Make one of random cores, of ranks of at most `rank`."""
        super().__init__()
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, dropout
        if type(rank) is not int or rank < 1:
            raise InputError(f"rank={rank!r}: expected a whole number of at least 1")
        rows, most = balanced(4 * hidden_size), 0
        for layer in range(num_layers):
            for name, size in (("inputs", hidden_size if layer else input_size), ("states", hidden_size)):
                columns = balanced(size)[::-1]
                sizes = [r * c for r, c in zip(rows, columns, strict=True)]
                cuts = [math.prod(sizes[:k]) for k in range(1, len(sizes))]
                full = [min(cut, math.prod(sizes) // cut) for cut in cuts]
                most = max(most, *full)
                ranks = [min(rank, f) for f in full]
                self.add_module(f"{name}{layer}", TensorTrainLinear(rows, columns, ranks, bias=bias))
        if rank > most:
            raise InputError(f"rank={rank}: these matrices have at most {most} between two cores. Ask for less")
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the cores and biases anew."""
        bound = 1 / math.sqrt(self.hidden_size)
        for part in self.parts():
            cores = part.cores()
            # An entry is a sum, over all ranks, of products of one number a core.
            scale = (bound**2 / 3 / math.prod(part.ranks)) ** (0.5 / len(cores))
            part.set_cores([torch.randn_like(core) * scale for core in cores])
            if part.bias is not None:
                nn.init.uniform_(part.bias, -bound, bound)

    def parts(self) -> list[TensorTrainLinear]:
        """Return what makes up the layers, from the lowest: of its inputs, then of its states."""
        return [m for m in self.children() if isinstance(m, TensorTrainLinear)]

    def forward(
        self, x: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """Return what `torch.nn.LSTM` does: the last layer's states, and the last of all."""
        if not torch.is_tensor(x) or x.ndim != 3:
            raise InputError("expected a tensor (time, batch, input), or (batch, time, input) with batch_first=True")
        if state is None:
            zeros = x.new_zeros(self.num_layers, x.shape[0 if self.batch_first else 1], self.hidden_size)
            state = zeros, zeros
        weights: list[torch.Tensor] = []
        parts = self.parts()
        for inputs, states in zip(parts[::2], parts[1::2], strict=True):
            weights += [inputs.weight, states.weight]
            weights += [bias for bias in (inputs.bias, states.bias) if bias is not None]
        # What torch.nn.LSTM itself calls.
        output, hidden, cell = torch.lstm(
            x, state, weights, self.bias, self.num_layers, self.dropout, self.training, False, self.batch_first
        )
        return output, (hidden, cell)


def tensor_train_lstm(lstm: nn.LSTM, rank: int) -> TensorTrainLSTM:
    """Return an LSTM in tensor trains, the nearest to another one's matrices that TT-SVD finds.

    Args:
        lstm: an LSTM of one direction, without projections; it is not changed.
        rank: the most between two cores, at least 1 and at most the largest full one.

    Raises:
        InputError: the rank is out of range; the LSTM has two directions or projections; weights
            are NaN or infinite.

    Notes:
        See `compress.factorization.tensor_train.tensor_train`.

    Example:
        >>> import torch
        >>> type(tensor_train_lstm(torch.nn.LSTM(8, 27), rank=3)).__name__
        'TensorTrainLSTM'

    See also:
        `low_rank_lstm`, `TensorTrainLSTM`.
    """
    _check(lstm)
    with torch.random.fork_rng(devices=[]):  # what is drawn is not kept
        made = TensorTrainLSTM(
            lstm.input_size, lstm.hidden_size, rank, lstm.num_layers, lstm.bias, lstm.batch_first, lstm.dropout
        )
    old = dict(lstm.named_parameters())
    made = made.to(old["weight_ih_l0"])
    for number, part in enumerate(made.parts()):
        which = f"{('ih', 'hh')[number % 2]}_l{number // 2}"
        matrix = old[f"weight_{which}"].detach()
        if not torch.isfinite(matrix).all():
            raise InputError(f"weight_{which} holds values that are NaN or infinite")
        part.set_cores(tensor_train(matrix, part.rows, part.columns, ranks=part.ranks[1:-1])[0])
        if part.bias is not None:
            with torch.no_grad():
                part.bias.copy_(old[f"bias_{which}"])
    return made.train(lstm.training)


def _check(lstm: nn.LSTM) -> None:
    if not isinstance(lstm, nn.LSTM):
        raise InputError(f"expected a torch.nn.LSTM, found {type(lstm).__name__}")
    if lstm.bidirectional or lstm.proj_size:
        found = "two directions" if lstm.bidirectional else f"projections of {lstm.proj_size}"
        raise InputError(f"expected an LSTM of one direction without projections, found {found}")
