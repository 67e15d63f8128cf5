"""Many tokens to one vector a text."""

from __future__ import annotations

import torch

from probes.errors import InputError

POOLINGS = {
    "mean": "mean over the tokens of the text, special tokens and padding excluded",
    "mean_all": "mean over all attended tokens, special tokens included, padding excluded",
    "first": "state of the first token",
    "last": "state of the last attended token",
}


def pool(states: torch.Tensor, weights: torch.Tensor, name: str, layer: int) -> torch.Tensor:
    """Weighted sum over the tokens: (batch, token, feature), (batch, token) -> (batch, feature), in
    float32.
    """
    if states.shape[:2] != weights.shape:
        raise InputError(
            f"{name}, layer {layer}: expected states of shape {(*weights.shape, 'features')}, "
            f"found {tuple(states.shape)}"
        )
    # Zeroed before the product: a padded position may hold NaN or Inf, and 0 times that is NaN.
    states = states.float().masked_fill((weights == 0).unsqueeze(-1), 0.0)
    return torch.bmm(weights.unsqueeze(1), states).squeeze(1)
