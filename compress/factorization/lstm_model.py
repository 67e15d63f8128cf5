"""Small recurrent language models: embeddings, an LSTM, plain or in factors, and an output layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from compress.factorization.recurrent import TensorTrainLSTM, low_rank_lstm, tensor_train_lstm
from compress.saving import record
from probes.errors import InputError
from probes.models.formats.extensions import apply_formats, shaped_class
from probes.models.formats.packed import PACKED, unpack
from probes.silence import quiet


class LSTMConfig(PreTrainedConfig):
    """The sizes of an `LSTMLanguageModel`.

    Args:
        vocab_size: tokens.
        hidden_size: of the embeddings and of the states of every layer.
        num_hidden_layers: of the LSTM.
        rank: of the projection that all that reads a layer reads; None for none.
        train_rank: of the tensor trains that the recurrent matrices are; None for plain ones.
        dropout: between layers, and before the output layer.
        pad_token_id: of the tokenizer.

    Raises:
        InputError: both ranks are given, or a size is no whole number of at least 1.

    Example:
        >>> LSTMConfig(vocab_size=100, rank=16).rank
        16
    """

    model_type = "layerscope_lstm"

    def __init__(
        self,
        vocab_size: int = 4000,
        hidden_size: int = 128,
        num_hidden_layers: int = 2,
        rank: int | None = None,
        train_rank: int | None = None,
        dropout: float = 0.0,
        pad_token_id: int | None = 0,
        **other: Any,
    ) -> None:
        """Check the sizes."""
        sizes = {"vocab_size": vocab_size, "hidden_size": hidden_size, "num_hidden_layers": num_hidden_layers}
        for name, size in sizes.items():
            if not isinstance(size, int) or size < 1:
                raise InputError(f"{name}={size!r}: expected a whole number of at least 1")
        if rank is not None and train_rank is not None:
            raise InputError(f"rank={rank}, train_rank={train_rank}: expected one of the two at most")
        self.vocab_size, self.hidden_size, self.num_hidden_layers = vocab_size, hidden_size, num_hidden_layers
        self.rank, self.train_rank, self.dropout = rank, train_rank, dropout
        super().__init__(**{"tie_word_embeddings": False, **other, "pad_token_id": pad_token_id})


class RecurrentModel(PreTrainedModel):
    """What recurrent language models share: how they are drawn and loaded, and which parts are tables."""

    embeddings: nn.Embedding
    output: nn.Linear

    def _init_weights(self, module: nn.Module) -> None:
        """Leave all as PyTorch draws it."""

    @classmethod
    def from_pretrained(cls, folder: str | Path, *args: Any, **settings: Any) -> Any:  # type: ignore[override]
        """Load what `compress.save` wrote, packed or not, with all that was done to it."""
        kinds: Any = cls.config_class
        config = kinds.from_pretrained(folder)
        packed = Path(folder) / PACKED
        if packed.is_file():
            settings |= {"state_dict": unpack(packed)}
        kind: Any = super(RecurrentModel, shaped_class(cls, config))
        with quiet():  # of weights that are not in the file, since layers share them
            model = kind.from_pretrained(None if packed.is_file() else folder, *args, config=config, **settings)
        model.__class__ = cls
        apply_formats(model)
        return model

    def get_input_embeddings(self) -> nn.Module:
        """Return the table of embeddings."""
        return self.embeddings

    def get_output_embeddings(self) -> nn.Module:
        """Return the output layer."""
        return self.output


class LSTMLanguageModel(RecurrentModel):
    """A recurrent model of the next token, which trains by `compress.finetune` as any other.

    Args:
        config: its sizes.

    Raises:
        InputError: a rank is more than there is.

    Notes:
        Of the architecture of Zaremba, Sutskever and Vinyals 2014, arXiv 1409.2329, a text at a
        time. In factors it is that of Grachev, Ignatov and Savchenko 2019, arXiv 1902.02380.
        Transformers does not know it: load it by `LSTMLanguageModel.from_pretrained(folder)`. Its
        LSTM and its output layer are pruned, quantised and, layer with layer, fused by the verbs of
        any other model.

    Example:
        >>> model = LSTMLanguageModel(LSTMConfig(vocab_size=50, hidden_size=16))
        >>> model(torch.tensor([[1, 2, 3]])).logits.shape
        torch.Size([1, 3, 50])

    See also:
        `low_rank_model`, `tensor_train_model`
    """

    config_class = LSTMConfig
    base_model_prefix = "lstm_model"

    def __init__(self, config: LSTMConfig) -> None:
        """Make one of random weights."""
        super().__init__(config)
        hidden, layers, between = config.hidden_size, config.num_hidden_layers, config.dropout
        self.embeddings = nn.Embedding(config.vocab_size, hidden)
        self.lstm: nn.LSTM | TensorTrainLSTM
        if config.train_rank is not None:
            self.lstm = TensorTrainLSTM(hidden, hidden, config.train_rank, layers, batch_first=True, dropout=between)
        else:
            if config.rank is not None and not 1 <= config.rank < hidden:
                raise InputError(f"rank={config.rank}: expected at least 1 and below the hidden size of {hidden}")
            between = between if layers > 1 else 0.0
            self.lstm = nn.LSTM(hidden, hidden, layers, batch_first=True, dropout=between, proj_size=config.rank or 0)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(config.rank or hidden, config.vocab_size)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        **_: Any,
    ) -> CausalLMOutput:
        """Return logits (text, token, vocabulary); padding on the right changes nothing before it.

        Hidden states, where they are asked for, are the embeddings and the states of the last
        layer: those of others PyTorch does not give.
        """
        read = self.embeddings(input_ids)
        states, _last = self.lstm(read)
        logits = self.output(self.dropout(states))
        return CausalLMOutput(logits=logits, hidden_states=(read, states) if output_hidden_states else None)


def low_rank_model(model: LSTMLanguageModel, rank: int) -> LSTMLanguageModel:
    """Return a recurrent language model of low rank, made of another one; train it further.

    Args:
        model: with plain matrices; it is not changed.
        rank: as in `compress.low_rank_lstm`; the output layer reads the same projection.

    Raises:
        InputError: what `compress.low_rank_lstm` raises.

    Example:
        >>> model = LSTMLanguageModel(LSTMConfig(vocab_size=50, hidden_size=16))
        >>> small = low_rank_model(model, 4)
        >>> small.num_parameters() < model.num_parameters(), small.config.rank
        (True, 4)
    """
    lstm, output = low_rank_lstm(_plain(model), rank, model.output)
    return _made(model, lstm, output, {"rank": rank})


def tensor_train_model(model: LSTMLanguageModel, rank: int) -> LSTMLanguageModel:
    """Return a recurrent language model whose recurrent matrices are tensor trains; train it
    further.

    Args:
        model: with plain matrices; it is not changed.
        rank: as in `compress.tensor_train_lstm`.

    Raises:
        InputError: what `compress.tensor_train_lstm` raises.

    Example:
        >>> model = LSTMLanguageModel(LSTMConfig(vocab_size=50, hidden_size=16))
        >>> tensor_train_model(model, 2).config.train_rank
        2
    """
    return _made(model, tensor_train_lstm(_plain(model), rank), model.output, {"train_rank": rank})


def _plain(model: LSTMLanguageModel) -> nn.LSTM:
    if not isinstance(model, LSTMLanguageModel):
        raise InputError(f"expected an LSTMLanguageModel, found {type(model).__name__}")
    if not isinstance(model.lstm, nn.LSTM):
        raise InputError(
            f"expected a model of plain matrices, found one of tensor trains: rank {model.config.train_rank}"
        )
    return model.lstm


def _made(model: LSTMLanguageModel, lstm: nn.Module, output: nn.Linear, changed: dict[str, int]) -> LSTMLanguageModel:
    """A model of the same sizes but one rank, with these parts, and its record."""
    config = LSTMConfig(**{**model.config.to_dict(), **changed})
    with torch.random.fork_rng(devices=[]):  # what is drawn is not kept
        made = LSTMLanguageModel(config)
    made.embeddings.load_state_dict(model.embeddings.state_dict())
    made.lstm.load_state_dict(lstm.state_dict())
    made.output.load_state_dict(output.state_dict())
    nn.Module.to(made, device=model.device, dtype=model.dtype).train(model.training)
    counts = {"parameters": made.num_parameters(), "parameters_of_parent": model.num_parameters()}
    return record(made, {"method": "recurrent_factors", **changed, **counts}, parent=model)  # type: ignore[return-value]
