"""A small recurrent language model that predicts each token from both sides."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers.modeling_outputs import MaskedLMOutput

from compress.factorization.lstm_model import RecurrentModel
from probes.errors import InputError


class BiLSTMConfig(PreTrainedConfig):
    """The sizes of a `BiLSTMLanguageModel`.

    Args:
        vocab_size: tokens.
        hidden_size: of the embeddings, and of the states of every layer in each direction.
        num_hidden_layers: of the LSTM in each direction.
        dropout: between layers, and before the output layer.
        pad_token_id: of the tokenizer.

    Raises:
        InputError: a size is no whole number of at least 1.

    Example:
        >>> BiLSTMConfig(vocab_size=100).hidden_size
        128
    """

    model_type = "layerscope_bilstm"

    def __init__(
        self,
        vocab_size: int = 4000,
        hidden_size: int = 128,
        num_hidden_layers: int = 1,
        dropout: float = 0.0,
        pad_token_id: int | None = 0,
        **other: Any,
    ) -> None:
        """Check the sizes."""
        sizes = {"vocab_size": vocab_size, "hidden_size": hidden_size, "num_hidden_layers": num_hidden_layers}
        for name, size in sizes.items():
            if type(size) is not int or size < 1:
                raise InputError(f"{name}={size!r}: expected a whole number of at least 1")
        self.vocab_size, self.hidden_size, self.num_hidden_layers = vocab_size, hidden_size, num_hidden_layers
        self.dropout = dropout
        super().__init__(**{"tie_word_embeddings": False, **other, "pad_token_id": pad_token_id})


class BiLSTMLanguageModel(RecurrentModel):
    """A recurrent model of each token given those before and after it.

    Args:
        config: its sizes.

    Notes:
        After He, Zhang, Droppo and Yu 2016, arXiv 1602.06064: two LSTMs, one over the tokens before
        a token and one over those after it, joined before the output layer. The product of what it
        says of all tokens of a text is no probability of the text: scores of texts are compared
        within one model (`compress.rescore`). Transformers does not know it: load it by
        `BiLSTMLanguageModel.from_pretrained(folder)`.

    Example:
        >>> model = BiLSTMLanguageModel(BiLSTMConfig(vocab_size=50, hidden_size=16))
        >>> model(torch.tensor([[1, 2, 3]])).logits.shape
        torch.Size([1, 3, 50])

    See also:
        `PseudoLikelihood`, `SentenceContrast`, `rescore`, `LSTMLanguageModel`
    """

    config_class = BiLSTMConfig
    base_model_prefix = "bilstm_model"

    def __init__(self, config: BiLSTMConfig) -> None:
        """Make one of random weights."""
        super().__init__(config)
        hidden, layers = config.hidden_size, config.num_hidden_layers
        given: dict[str, Any] = {"batch_first": True, "dropout": config.dropout if layers > 1 else 0.0}
        self.embeddings = nn.Embedding(config.vocab_size, hidden)
        self.before = nn.LSTM(hidden, hidden, layers, **given)
        self.after = nn.LSTM(hidden, hidden, layers, **given)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(2 * hidden, config.vocab_size)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        **_: Any,
    ) -> MaskedLMOutput:
        """Return logits (text, token, vocabulary) of each token, by all others of its text; padding
        stands on the right, and changes nothing.

        Hidden states, where they are asked for, are the embeddings and the joined states.
        """
        read = self.embeddings(input_ids)
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        place = torch.arange(input_ids.shape[1], device=input_ids.device)
        turned = (mask.sum(1, keepdim=True) - 1 - place).clamp_min(0)[..., None].expand_as(read)
        before, _last = self.before(read)
        after, _first = self.after(read.gather(1, turned))
        # The state that has read a text up to a token, or down to it, is for the next one.
        before = nn.functional.pad(before[:, :-1], (0, 0, 1, 0))
        after = nn.functional.pad(after.gather(1, turned)[:, 1:], (0, 0, 0, 1))
        last = place[:, None] + 1 >= mask.sum(1)[:, None, None]  # after which there is nothing
        states = torch.cat([before, after.masked_fill(last, 0.0)], dim=2)
        logits = self.output(self.dropout(states))
        return MaskedLMOutput(logits=logits, hidden_states=(read, states) if output_hidden_states else None)
