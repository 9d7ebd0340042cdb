"""Weighted cross entropy of the language-model head, without ever holding all logits.

Logits of a 64k pack over a 128k vocabulary take 32 GB in fp32. Here a chunk of them exists at a
time: its loss and its gradients are computed together, and only the gradients of the hidden states
and of the head's weight are kept for the backward pass. Tokens of weight zero are never projected.

Liger's fused loss is not used. With a weight a token it needs `reduction="none"`, whose gradients of
head and bias were silently those of the first token's weight for all tokens until mid-2026, and with
which chunks cannot be summed before the backward pass brings the weights, so that logits are kept or
computed twice. With the weights given beforehand, as here, one pass is exact.

Shapes: T tokens, E hidden size, V vocabulary, N tokens with a weight, C tokens of a chunk.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

# Logits that exist at a time. On a GPU every chunk also reads and writes the whole gradient of the head's
# weight, so chunks of few rows would wait for memory.
CHUNK_ELEMENTS = {"cpu": 2**25, "cuda": 2**27}


class LossHead(nn.Linear):  # type: ignore[misc]
    """A model's output projection that can also give the weighted loss of its logits.

    It takes the place of the model's own head and shares its parameters, so names, tying and saving
    stay as they were. The loss is computed inside this module's forward, where ZeRO-3 has the
    partitioned weight gathered.
    """

    @classmethod
    def of(cls, head: nn.Linear) -> LossHead:
        """The same projection with the same parameters."""
        new = cls(head.in_features, head.out_features, bias=False, device="meta")
        new.weight, new.bias = head.weight, head.bias
        return new

    def forward(
        self, hidden: Tensor, labels_T: Tensor | None = None, weights_T: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Logits; with labels and weights what `weighted_cross_entropy` gives for hidden states of shape (T, E)."""
        if labels_T is None or weights_T is None:
            return super().forward(hidden)
        return weighted_cross_entropy(hidden, self.weight, self.bias, labels_T, weights_T)


def weighted_cross_entropy(
    hidden_TE: Tensor,
    weight_VE: Tensor,
    bias_V: Tensor | None,
    labels_T: Tensor,
    weights_T: Tensor,
    chunk_elements: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Sum over tokens of weight times cross entropy of `hidden @ weight.T + bias`, in fp32.

    Args:
        hidden_TE: Hidden states.
        weight_VE: The head's weight.
        bias_V: The head's bias, if it has one.
        labels_T: The token each position has to predict. Anything in range where the weight is 0.
        weights_T: Factor of each token's loss, all scaling included. fp32.
        chunk_elements: Most logits that exist at a time; None for what suits the device.

    Returns:
        The sum, a scalar, and the cross entropy of each token without its weight, shape (T,): for
        figures only, as it has no gradient; 0 where the weight is 0.
    """
    if chunk_elements is None:
        chunk_elements = CHUNK_ELEMENTS.get(hidden_TE.device.type, CHUNK_ELEMENTS["cuda"])
    result: tuple[Tensor, Tensor] = _WeightedCrossEntropy.apply(
        hidden_TE, weight_VE, bias_V, labels_T, weights_T, chunk_elements
    )
    return result


class _WeightedCrossEntropy(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(
        ctx: Any,
        hidden_TE: Tensor,
        weight_VE: Tensor,
        bias_V: Tensor | None,
        labels_T: Tensor,
        weights_T: Tensor,
        chunk_elements: int,
    ) -> tuple[Tensor, Tensor]:
        rows_N = weights_T.nonzero().flatten()
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.zeros_like(hidden_TE) if needs_hidden else None
        # Many chunks are added up: in fp32, or bf16 would lose the small ones.
        grad_weight = torch.zeros_like(weight_VE, dtype=torch.float32) if needs_weight else None
        grad_bias = torch.zeros_like(bias_V, dtype=torch.float32) if bias_V is not None and needs_bias else None
        total = torch.zeros((), dtype=torch.float32, device=hidden_TE.device)
        losses_T = torch.zeros_like(weights_T, dtype=torch.float32)
        for rows_C in rows_N.split(max(1, chunk_elements // weight_VE.shape[0])):
            hidden_CE = hidden_TE[rows_C]
            logits_CV = torch.nn.functional.linear(hidden_CE, weight_VE, bias_V).float()
            labels_C1, weights_C = labels_T[rows_C, None], weights_T[rows_C].float()
            log_sum_C = logits_CV.logsumexp(dim=-1)
            losses_C = log_sum_C - logits_CV.gather(1, labels_C1)[:, 0]
            losses_T[rows_C] = losses_C
            total += (weights_C * losses_C).sum()
            if not any(ctx.needs_input_grad[:3]):
                continue
            grad_CV = logits_CV.sub_(log_sum_C[:, None]).exp_()
            grad_CV.scatter_add_(1, labels_C1, torch.full_like(labels_C1, -1, dtype=torch.float32))
            grad_CV *= weights_C[:, None]
            if grad_bias is not None:
                grad_bias += grad_CV.sum(dim=0)
            grad_CV = grad_CV.to(hidden_TE.dtype)
            if grad_hidden is not None:
                grad_hidden[rows_C] = grad_CV @ weight_VE
            if grad_weight is not None:
                grad_weight += grad_CV.T @ hidden_CE
        ctx.grads = (
            grad_hidden,
            None if grad_weight is None else grad_weight.to(weight_VE.dtype),
            None if grad_bias is None or bias_V is None else grad_bias.to(bias_V.dtype),
        )
        ctx.mark_non_differentiable(losses_T)
        return total, losses_T

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        grads, ctx.grads = ctx.grads, None
        assert grads is not None, "the loss is differentiated once"
        # In place: a copy of the head's gradient may take gigabytes.
        scaled = [None if grad is None else grad.mul_(grad_outputs[0].to(grad.dtype)) for grad in grads]
        return *scaled, None, None, None
