"""Packed attention: in a sequence of several samples, a token attends only to earlier tokens of its own sample.

The language tower's attention function, in transformers' interface. On CUDA in half precision it is one call of
`torch.nn.attention.varlen`, elsewhere one `scaled_dot_product_attention` a sample; neither builds a mask of the whole
sequence. Without `cu_seqlens` (when text is generated) it is transformers' sdpa.

Shapes: L tokens, H query heads, K key and value heads, D head size, N samples.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch.nn import functional

from mvl_assets.inference.local_server.torch_compat import patch_cpu_torch

patch_cpu_torch()  # before transformers: it imports torchvision

from transformers import AttentionInterface, AttentionMaskInterface  # noqa: E402
from transformers.integrations.sdpa_attention import sdpa_attention_forward  # noqa: E402
from transformers.masking_utils import sdpa_mask  # noqa: E402

ATTENTION_NAME = "packed_attention"


def compute_packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    cu_seqlens: torch.Tensor | None = None,
    max_seqlen: int = 0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Compute causal attention within each sample of a packed sequence.

    Args:
        module: The attention module.
        query: (1, H, L, D).
        key: (1, K, L, D), K divides H.
        value: (1, K, L, D).
        attention_mask: Used only without `cu_seqlens`.
        scaling: Scale of the scores; default: 1 / sqrt(D).
        cu_seqlens: int32 (N + 1,): sample n has the tokens `cu_seqlens[n]` to `cu_seqlens[n + 1]`.
        max_seqlen: Tokens of the longest sample.
        **kwargs: For transformers' sdpa.

    Returns:
        (1, L, H, D), and None for the attention weights, which are not computed.
    """
    if cu_seqlens is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16):
        return _compute_varlen_attention(query, key, value, cu_seqlens, max_seqlen, scaling), None
    boundaries = cu_seqlens.tolist()
    outputs = [
        functional.scaled_dot_product_attention(
            query[:, :, start:stop],
            key[:, :, start:stop],
            value[:, :, start:stop],
            is_causal=True,
            scale=scaling,
            enable_gqa=key.shape[1] != query.shape[1],
        )
        for start, stop in pairwise(boundaries)
    ]
    return torch.cat(outputs, dim=2).transpose(1, 2), None


def _compute_varlen_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seqlens: torch.Tensor,
    max_seqlen: int,
    scaling: float | None,
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    query_LHD, key_LKD, value_LKD = (states[0].transpose(0, 1).contiguous() for states in (query, key, value))
    attended_LHD = varlen_attn(
        query_LHD,
        key_LKD,
        value_LKD,
        cu_seqlens,
        cu_seqlens,
        max_seqlen,
        max_seqlen,
        scale=scaling,
        window_size=(-1, 0),  # causal
        enable_gqa=key_LKD.shape[1] != query_LHD.shape[1],
    )
    assert isinstance(attended_LHD, torch.Tensor)
    return attended_LHD[None]


def _build_mask(*, attention_mask: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor | None:
    """Return sdpa's mask; None for packed sequences, which come without one."""
    return None if attention_mask is None else sdpa_mask(attention_mask=attention_mask, **kwargs)


AttentionInterface.register(ATTENTION_NAME, compute_packed_attention)
AttentionMaskInterface.register(ATTENTION_NAME, _build_mask)
