"""Block-diagonal attention of a pack."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from longalign_core.errors import InputError
from longalign_core.training.attention import packed_attention, sequence_ends

LENGTHS = (3, 1, 6, 2)


def positions(lengths=LENGTHS, device="cpu"):
    return torch.cat([torch.arange(length) for length in lengths])[None].to(device)


def heads(num_query, num_key, size=8, dtype=torch.float64, device="cpu"):
    torch.manual_seed(0)
    total = sum(LENGTHS)
    return [
        torch.randn(1, num, total, size, dtype=torch.float64).to(device, dtype).requires_grad_()
        for num in (num_query, num_key, num_key)
    ]


def dense_oracle(query, key, value, lengths=LENGTHS, window=None):
    """Softmax attention with an explicit block-diagonal causal mask, of a window where there is one."""
    owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    allowed = (owner[:, None] == owner[None, :]) & torch.ones(len(owner), len(owner)).tril().bool()
    if window is not None:
        allowed &= ~torch.ones(len(owner), len(owner)).tril(-window).bool()
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    return (scores.masked_fill(~allowed.to(scores.device), -torch.inf).softmax(-1) @ value).transpose(1, 2)


@pytest.mark.parametrize(("num_query", "num_key"), [(4, 4), (4, 2), (4, 1)])
def test_packed_attention_any_head_grouping_equals_dense_block_diagonal_mask(num_query, num_key):
    inputs = heads(num_query, num_key)
    output, _ = packed_attention(nn.Module(), *inputs, None, position_ids=positions())
    expected = dense_oracle(*inputs)
    torch.testing.assert_close(output, expected)
    weight = torch.randn_like(expected)
    found = torch.autograd.grad((output * weight).sum(), inputs)
    torch.testing.assert_close(found, torch.autograd.grad((expected * weight).sum(), inputs))


def test_sequence_ends_restarting_positions_are_found_even_after_single_tokens():
    assert sequence_ends(torch.tensor([0, 1, 2, 0, 0, 1])).tolist() == [3, 4, 6]
    assert sequence_ends(torch.tensor([0])).tolist() == [1]


def test_packed_attention_sees_other_positions_in_the_same_tensor_and_in_a_like_one():
    inputs = heads(4, 2)
    same = positions()
    for lengths in (LENGTHS, (6, 6), (12,)):
        same.copy_(positions(lengths))
        for position_ids in (same, positions(lengths)):
            output, _ = packed_attention(nn.Module(), *inputs, None, position_ids=position_ids)
            torch.testing.assert_close(output, dense_oracle(*inputs, lengths=lengths))


@pytest.mark.parametrize("window", [1, 2, 5, 6, 100])
def test_packed_attention_with_a_window_equals_dense_mask_of_the_window(window):
    inputs = heads(4, 2)
    output, _ = packed_attention(nn.Module(), *inputs, None, position_ids=positions(), sliding_window=window)
    torch.testing.assert_close(output, dense_oracle(*inputs, window=window))


def test_packed_attention_window_over_many_blocks_of_queries_equals_dense_mask():
    torch.manual_seed(0)
    length, window = 2_500, 300
    inputs = [torch.randn(1, 1, length, 4, dtype=torch.float64) for _ in range(3)]
    position_ids = torch.arange(length)[None]
    output, _ = packed_attention(nn.Module(), *inputs, None, position_ids=position_ids, sliding_window=window)
    torch.testing.assert_close(output, dense_oracle(*inputs, lengths=(length,), window=window))


def test_packed_attention_without_positions_is_refused():
    with pytest.raises(InputError, match="does not tell its attention the positions"):
        packed_attention(nn.Module(), *heads(2, 2), None)


def test_packed_attention_unknown_feature_is_refused_not_ignored():
    with pytest.raises(InputError, match="softcap"):
        packed_attention(nn.Module(), *heads(2, 2), None, position_ids=positions(), softcap=30.0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize(("num_query", "num_key"), [(4, 4), (4, 2)])
def test_packed_attention_on_gpu_in_bf16_equals_dense_mask(num_query, num_key, window):
    exact = heads(num_query, num_key, size=64)
    inputs = heads(num_query, num_key, size=64, dtype=torch.bfloat16, device="cuda")
    places = positions(device="cuda")
    output, _ = packed_attention(nn.Module(), *inputs, None, position_ids=places, sliding_window=window)
    expected = dense_oracle(*exact, window=window)
    assert (output.double().cpu() - expected).norm() / expected.norm() < 2e-2
    weight = torch.randn_like(expected)
    found = torch.autograd.grad((output * weight.to("cuda", torch.bfloat16)).sum(), inputs)
    for one, other in zip(found, torch.autograd.grad((expected * weight).sum(), exact), strict=True):
        assert (one.double().cpu() - other).norm() / other.norm() < 3e-2
