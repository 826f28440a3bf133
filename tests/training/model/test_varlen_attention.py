"""Samples of one sequence stay apart: equal to a dense mask, with grouped heads, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from mvl_training.model.varlen_attention import compute_packed_attention

LENGTHS = (5, 1, 9, 2)


def dense(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """The same with one mask of the whole sequence."""
    sample = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS)).to(query.device)
    apart = sample[:, None] == sample[None]
    mask = apart & torch.ones_like(apart).tril()
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2)


def states(heads: int, device: str, dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(heads)
    drawn = torch.randn(1, heads, sum(LENGTHS), 32, generator=generator)
    return drawn.to(device, dtype).requires_grad_()


@pytest.mark.parametrize(
    ("device", "dtype", "tolerance"),
    [
        ("cpu", torch.float32, 1e-5),
        pytest.param(
            "cuda",
            torch.bfloat16,
            2e-2,
            marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
        ),
    ],
)
@pytest.mark.parametrize("groups", [1, 3])
def test_packed_attention_equals_a_dense_block_mask(
    device: str, dtype: torch.dtype, tolerance: float, groups: int
) -> None:
    query, key, value = states(6, device, dtype), states(6 // groups, device, dtype), states(6 // groups, device, dtype)
    cu_seqlens = torch.tensor([0, *torch.tensor(LENGTHS).cumsum(0)], dtype=torch.int32, device=device)
    ours, none = compute_packed_attention(
        torch.nn.Module(), query, key, value, None, scaling=None, cu_seqlens=cu_seqlens, max_seqlen=max(LENGTHS)
    )
    assert none is None
    theirs = dense(query, key, value)
    assert torch.allclose(ours, theirs, atol=tolerance)
    weights = torch.randn_like(theirs)
    mine = torch.autograd.grad((ours * weights).sum(), (query, key, value))
    true = torch.autograd.grad((theirs * weights).sum(), (query, key, value))
    assert all(torch.allclose(a, b, atol=10 * tolerance) for a, b in zip(mine, true, strict=True))
