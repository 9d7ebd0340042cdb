"""The chunked, weighted loss of the language-model head."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from longalign_core.training.loss import LossHead, weighted_cross_entropy

T, E, V = 23, 12, 37


def draw(dtype=torch.float32, bias=False):
    torch.manual_seed(1)
    hidden = torch.randn(T, E, dtype=dtype, requires_grad=True)
    head = nn.Linear(E, V, bias=bias, dtype=dtype)
    labels = torch.randint(V, (T,))
    weights = torch.rand(T) * (torch.rand(T) < 0.6)
    return hidden, head, labels, weights


def plain_loss(hidden, head, labels, weights):
    losses = nn.functional.cross_entropy(head(hidden).float(), labels, reduction="none")
    return (losses * weights).sum()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("chunk_elements", [1, 5 * V, 10_000], ids=["token", "chunks", "whole"])
def test_weighted_cross_entropy_any_chunk_equals_plain_in_value_and_gradients(chunk_elements, bias):
    hidden, head, labels, weights = draw(bias=bias)
    expected = plain_loss(hidden, head, labels, weights)
    found, losses = weighted_cross_entropy(hidden, head.weight, head.bias, labels, weights, chunk_elements)
    plain = nn.functional.cross_entropy(head(hidden), labels, reduction="none")
    torch.testing.assert_close(losses, plain * (weights > 0), rtol=1e-6, atol=1e-6)
    assert not losses.requires_grad
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    wanted = [hidden, *head.parameters()]
    # The loss is scaled after the call, as DeepSpeed does by the accumulation steps.
    for one, other in zip(
        torch.autograd.grad(found / 4, wanted), torch.autograd.grad(expected / 4, wanted), strict=True
    ):
        assert (one - other).norm() / other.norm() < 1e-6


def test_weighted_cross_entropy_no_weight_at_all_gives_zero_gradients_not_none():
    hidden, head, labels, _ = draw()
    loss, _ = weighted_cross_entropy(hidden, head.weight, None, labels, torch.zeros(T))
    assert loss.item() == 0
    grads = torch.autograd.grad(loss, [hidden, head.weight])
    assert all(not grad.any() for grad in grads)


def test_weighted_cross_entropy_zero_weight_tokens_may_be_anything():
    hidden, head, labels, weights = draw()
    poisoned = hidden.detach().clone()
    poisoned[weights == 0] = torch.nan
    found, _ = weighted_cross_entropy(poisoned, head.weight, None, labels, weights)
    torch.testing.assert_close(found, plain_loss(hidden, head, labels, weights), rtol=1e-6, atol=1e-6)


def test_weighted_cross_entropy_bf16_gradient_stays_near_fp32():
    hidden, head, labels, weights = draw(torch.bfloat16)
    found, _ = weighted_cross_entropy(hidden, head.weight, None, labels, weights, 2 * V)
    (grad,) = torch.autograd.grad(found, [head.weight])
    hidden32, head32 = hidden.detach().float(), nn.Linear(E, V, bias=False)
    head32.weight.data = head.weight.detach().float()
    (exact,) = torch.autograd.grad(plain_loss(hidden32, head32, labels, weights), [head32.weight])
    assert grad.dtype == torch.bfloat16
    assert (grad.float() - exact).norm() / exact.norm() < 1e-2


def test_loss_head_shares_parameters_and_still_gives_logits():
    hidden, head, labels, weights = draw(bias=True)
    loss_head = LossHead.of(head)
    assert loss_head.weight is head.weight and loss_head.bias is head.bias
    assert list(loss_head.state_dict()) == list(head.state_dict())
    torch.testing.assert_close(loss_head(hidden), head(hidden))
    torch.testing.assert_close(loss_head(hidden, labels, weights)[0], plain_loss(hidden, head, labels, weights))
