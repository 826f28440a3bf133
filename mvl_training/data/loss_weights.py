"""Weights of tokens in the loss of a step, so that samples, tokens or something between the two count alike. No torch.

The loss of a step is the weighted sum over its loss tokens divided by the sum of their weights. A token of a sample
with n loss tokens weighs n^-p: p is 0 for `token`, 1 for `sample` and 1/2 for `sqrt` (InternVL 2.5, arXiv 2412.05271
§3.3). With `sample` that is the mean over samples of their mean loss, which the released code takes: it trains one
sample per forward pass, and averages over ranks and accumulation.
"""

from __future__ import annotations

import numpy as np

from mvl_training.recipe import LossWeighting

_EXPONENTS: dict[LossWeighting, float] = {"token": 0.0, "sqrt": 0.5, "sample": 1.0}


def compute_token_weights(n_loss_tokens_N: np.ndarray, weighting: LossWeighting) -> np.ndarray:
    """Return the weight of each loss token of N samples with so many loss tokens, float64 (N,)."""
    return np.maximum(1, n_loss_tokens_N).astype(np.float64) ** -_EXPONENTS[weighting]


def compute_sample_weights(n_loss_tokens_N: np.ndarray, weighting: LossWeighting) -> np.ndarray:
    """Return the summed weights of the loss tokens of each of N samples, float64 (N,)."""
    return n_loss_tokens_N * compute_token_weights(n_loss_tokens_N, weighting)
