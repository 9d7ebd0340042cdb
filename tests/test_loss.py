"""The chunked, weighted loss of the language-model head."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from longalign_core.training.loss import LossHead, weighted_cross_entropy

T, E, V = 23, 12, 37
N = 15  # tokens that `draw` gives a weight


def draw(dtype=torch.float32, bias=False):
    torch.manual_seed(1)
    hidden = torch.randn(T, E, dtype=dtype, requires_grad=True)
    head = nn.Linear(E, V, bias=bias, dtype=dtype)
    labels = torch.randint(V, (T,))
    weights = torch.rand(T)
    weights[torch.randperm(T)[N:]] = 0
    return hidden, head, labels, weights


def relative_error(found, expected):
    return (found - expected).norm() / expected.norm()


def plain_loss(hidden, head, labels, weights):
    losses = nn.functional.cross_entropy(head(hidden).float(), labels, reduction="none")
    return (losses * weights).sum()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("scale", [1, 1 / 4, -3, 1e-4])
@pytest.mark.parametrize("rows", [0, 1, 5, N - 1, N, N + 1, 100])
def test_weighted_cross_entropy_any_chunk_equals_plain_in_value_and_gradients(rows, scale, bias):
    hidden, head, labels, weights = draw(bias=bias)
    assert weights.count_nonzero() == N  # chunks end before, at and after the last weighted token
    expected = plain_loss(hidden, head, labels, weights)
    found, losses = weighted_cross_entropy(hidden, head.weight, head.bias, labels, weights, rows * V)
    plain = nn.functional.cross_entropy(head(hidden), labels, reduction="none")
    torch.testing.assert_close(losses, plain * (weights > 0), rtol=1e-6, atol=1e-6)
    assert not losses.requires_grad
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    wanted = [hidden, *head.parameters()]
    # The loss is scaled after the call, as DeepSpeed does by the accumulation steps.
    grads, expected_grads = (torch.autograd.grad(loss * scale, wanted) for loss in (found, expected))
    for one, other in zip(grads, expected_grads, strict=True):
        assert relative_error(one, other) < 1e-6


def test_weighted_cross_entropy_tied_weight_gets_both_gradients():
    _, head, labels, weights = draw()
    tokens = torch.randint(V, (T,), generator=torch.Generator().manual_seed(2))

    def loss(head_loss):
        return head_loss(nn.functional.embedding(tokens, head.weight).tanh())

    (found,) = torch.autograd.grad(
        loss(lambda hidden: weighted_cross_entropy(hidden, head.weight, None, labels, weights, 3 * V)[0]),
        [head.weight],
    )
    (expected,) = torch.autograd.grad(loss(lambda hidden: plain_loss(hidden, head, labels, weights)), [head.weight])
    assert relative_error(found, expected) < 1e-6


def test_weighted_cross_entropy_micro_steps_add_up_in_the_parameters():
    hidden, head, labels, weights = draw(bias=True)
    for rows in (slice(0, 9), slice(9, T)):
        part, _ = weighted_cross_entropy(hidden[rows], head.weight, head.bias, labels[rows], weights[rows], 2 * V)
        (part / 2).backward()
    expected = torch.autograd.grad(plain_loss(hidden, head, labels, weights) / 2, [hidden, *head.parameters()])
    for one, other in zip([hidden, *head.parameters()], expected, strict=True):
        assert relative_error(one.grad, other) < 1e-6


@pytest.mark.parametrize("frozen", ["hidden", "weight", "bias"])
def test_weighted_cross_entropy_what_is_frozen_gets_no_gradient_and_changes_no_other(frozen):
    hidden, head, labels, weights = draw(bias=True)
    inputs = {"hidden": hidden, "weight": head.weight, "bias": head.bias}
    inputs[frozen].requires_grad_(False)
    loss, _ = weighted_cross_entropy(hidden, head.weight, head.bias, labels, weights, 4 * V)
    loss.backward()
    wanted = [one for name, one in inputs.items() if name != frozen]
    assert inputs[frozen].grad is None
    for one, other in zip(wanted, torch.autograd.grad(plain_loss(hidden, head, labels, weights), wanted), strict=True):
        assert relative_error(one.grad, other) < 1e-6


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_weighted_cross_entropy_on_a_gpu_equals_plain_on_the_cpu(dtype, tolerance):
    hidden, head, labels, weights = draw(dtype, bias=True)
    wanted = [hidden, *head.parameters()]
    exact = [one.detach().double().requires_grad_() for one in wanted]
    logits = nn.functional.linear(*exact)
    expected = (nn.functional.cross_entropy(logits, labels, reduction="none") * weights).sum()
    on_gpu = [one.detach().cuda().requires_grad_() for one in wanted]
    found, _ = weighted_cross_entropy(*on_gpu, labels.cuda(), weights.cuda(), 3 * V)
    assert found.item() == pytest.approx(expected.item(), rel=tolerance)
    for one, other in zip(
        torch.autograd.grad(found / 4, on_gpu), torch.autograd.grad(expected / 4, exact), strict=True
    ):
        assert relative_error(one.cpu().double(), other) < tolerance


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
