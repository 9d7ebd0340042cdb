"""Packed attention over a pack whose tokens lie on several ranks (DeepSpeed-Ulysses, arXiv 2309.14509).

Each rank holds a part of the pack for everything that works token by token. For attention the ranks
exchange: every one gets all tokens of some of the heads, attends as if alone, and gives them back.

Shapes: P ranks of the group; T tokens of the pack; otherwise as in `attention`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from math import lcm
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from longalign_core.errors import InputError
from longalign_core.training.attention import packed_attention

Attention = Callable[..., tuple[Tensor, None]]


def shared_attention(group: dist.ProcessGroup) -> Attention:
    """Packed attention for ranks that hold consecutive equal parts of a pack, in the order of the group.

    What it returns takes and gives what `packed_attention` does, for T / P tokens, and raises an InputError
    where the number of query heads is no multiple of P; fewer key heads than that are repeated.
    """
    whole_pack = _WholePack(group)

    def attend(
        module: nn.Module,
        query_BHTD: Tensor,
        key_BKTD: Tensor,
        value_BKTD: Tensor,
        attention_mask: Tensor | None,
        *,
        position_ids: Tensor | None = None,
        **options: Any,
    ) -> tuple[Tensor, None]:
        num_heads, num_ranks = query_BHTD.shape[1], dist.get_world_size(group)
        if num_heads % num_ranks:
            raise InputError(
                f"LONGALIGN_SEQUENCE_PARALLEL is {num_ranks} but training.base_model has {num_heads} attention heads, "
                "which that many ranks cannot share evenly; choose a divisor of them"
            )
        repeats = lcm(key_BKTD.shape[1], num_ranks) // key_BKTD.shape[1]
        key_BKTD, value_BKTD = (x.repeat_interleave(repeats, dim=1) for x in (key_BKTD, value_BKTD))
        output_BTHD, _ = packed_attention(
            module,
            _tokens_for_heads(query_BHTD, group),
            _tokens_for_heads(key_BKTD, group),
            _tokens_for_heads(value_BKTD, group),
            attention_mask,
            # Where sequences begin shows in the whole pack only.
            position_ids=None if position_ids is None else whole_pack.positions(position_ids),
            **options,
        )
        return _heads_for_tokens(output_BTHD, group), None

    return attend


class _WholePack:
    """Positions of the whole pack whose part was last asked for: every layer asks with the same tensor.

    All ranks of the group ask alike, so they also find alike that they know the answer.
    """

    def __init__(self, group: dist.ProcessGroup) -> None:
        self._group = group
        self._part: weakref.ref[Tensor] | None = None
        self._version = -1
        self._whole: Tensor | None = None

    def positions(self, part_1T: Tensor) -> Tensor:
        known = self._part is not None and self._part() is part_1T
        if self._whole is None or not known or self._version != part_1T._version:
            self._whole = gather_parts(part_1T[0], self._group)[None]
            self._part, self._version = weakref.ref(part_1T), part_1T._version
        return self._whole


def gather_parts(part: Tensor, group: dist.ProcessGroup) -> Tensor:
    """The parts of all ranks of the group, one after the other along the first dimension. No gradient."""
    parts = [torch.empty_like(part) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, part.contiguous(), group=group)
    return torch.cat(parts)


def _tokens_for_heads(heads_BHTD: Tensor, group: dist.ProcessGroup) -> Tensor:
    """(1, H, T / P, D) of all heads to (1, H / P, T, D) of all tokens."""
    _, H, part, D = heads_BHTD.shape
    num_ranks = dist.get_world_size(group)
    by_rank = heads_BHTD[0].reshape(num_ranks, H // num_ranks, part, D)
    received: Tensor = _Exchange.apply(by_rank, group)
    return received.transpose(0, 1).reshape(1, H // num_ranks, num_ranks * part, D)


def _heads_for_tokens(tokens_BTHD: Tensor, group: dist.ProcessGroup) -> Tensor:
    """(1, T, H / P, D) of all tokens to (1, T / P, H, D) of all heads."""
    _, T, H, D = tokens_BTHD.shape
    num_ranks = dist.get_world_size(group)
    by_rank = tokens_BTHD[0].reshape(num_ranks, T // num_ranks, H, D)
    received: Tensor = _Exchange.apply(by_rank, group)
    return received.transpose(0, 1).reshape(1, T // num_ranks, num_ranks * H, D)


class _Exchange(torch.autograd.Function):  # type: ignore[misc]
    """Gives the i-th part to rank i, and gets one from each: its own inverse, so its own gradient too."""

    @staticmethod
    def forward(ctx: Any, parts: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return _exchange(parts, group)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        return _exchange(grad_outputs[0], ctx.group), None


def _exchange(parts: Tensor, group: dist.ProcessGroup) -> Tensor:
    received = torch.empty_like(parts, memory_format=torch.contiguous_format)
    dist.all_to_all_single(received, parts.contiguous(), group=group)
    return received
