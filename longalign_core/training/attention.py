"""Block-diagonal causal attention over a pack, plugged into transformers' attention interface.

A pack is one row of several sequences whose positions restart at 0; no sequence may see another.
Registered without a mask function, so transformers builds no mask at all and every model that uses
the interface calls `packed_attention` with the position ids.

Shapes: B batch (always 1), H query heads, K key/value heads, T tokens of the pack, D head size,
S sequences. N tokens of one sequence, Q queries of a block of it.
"""

from __future__ import annotations

import importlib.util
import inspect
import weakref
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from longalign_core.errors import InputError

PACKED_ATTENTION = "longalign_packed"
_NOT_COMPUTED = ("softcap", "s_aux", "position_bias")
# Queries that share one mask where a window is narrower than the sequence: fewer would be slower, more need
# more memory than the scores are worth.
_WINDOW_BLOCK = 1024


def register_packed_attention(attention: Callable[..., tuple[Tensor, None]] | None = None) -> None:
    """Make `attn_implementation="longalign_packed"` known to transformers.

    Args:
        attention: What it stands for; None is `packed_attention`.
    """
    ALL_ATTENTION_FUNCTIONS.register(PACKED_ATTENTION, attention or packed_attention)


def packed_attention(
    module: nn.Module,
    query_BHTD: Tensor,
    key_BKTD: Tensor,
    value_BKTD: Tensor,
    attention_mask: Tensor | None,
    *,
    position_ids: Tensor | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **features: Any,
) -> tuple[Tensor, None]:
    """Attend causally inside each sequence of the pack. Grouped query heads are handled.

    Args:
        module: The attention layer; must be causal.
        query_BHTD: Queries.
        key_BKTD: Keys.
        value_BKTD: Values.
        attention_mask: Must be None.
        position_ids: Shape (1, T); a sequence begins where they do not go on by 1.
        scaling: Factor of the scores; None means D ** -0.5.
        dropout: Probability of dropping an attention weight.
        sliding_window: Tokens that a query sees back, itself among them; None for all of its sequence.
        features: What else the model's attention asks for.

    Returns:
        Outputs of shape (1, T, H, D), and None for the weights.

    Raises:
        InputError: The model's attention has a feature that is not computed here.
    """
    if position_ids is None:
        raise InputError(
            "the base model does not tell its attention the positions, which packed training needs; "
            "choose another training.base_model"
        )
    assert attention_mask is None and query_BHTD.shape[0] == 1 and position_ids.shape == (1, query_BHTD.shape[2])
    assert getattr(module, "is_causal", True)
    if unknown := [name for name in _NOT_COMPUTED if features.get(name) is not None]:
        raise InputError(
            f"the base model's attention uses {', '.join(unknown)}, which packed training does not compute; "
            "choose another training.base_model"
        )
    ends_S, lengths = _last_pack.bounds(position_ids)
    scale = query_BHTD.shape[-1] ** -0.5 if scaling is None else scaling
    if sliding_window is not None and sliding_window >= max(lengths):
        sliding_window = None
    if _fits_kernel(query_BHTD, value_BKTD, scale, dropout, sliding_window):
        return _varlen(query_BHTD, key_BKTD, value_BKTD, ends_S, max(lengths), scale, dropout, sliding_window), None
    outputs = [
        _attend(query, key, value, scale, dropout, sliding_window)
        for query, key, value in zip(
            query_BHTD.split(lengths, dim=2),
            _repeat_heads(key_BKTD, query_BHTD).split(lengths, dim=2),
            _repeat_heads(value_BKTD, query_BHTD).split(lengths, dim=2),
            strict=True,
        )
    ]
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


def sequence_ends(position_ids_T: Tensor) -> Tensor:
    """Where each sequence of a pack ends (exclusive). Shape (S,), int64, on the same device."""
    starts = torch.nonzero(torch.diff(position_ids_T) != 1).flatten() + 1
    return torch.cat([starts, starts.new_tensor([len(position_ids_T)])])


class _LastPack:
    """Where the sequences of the pack last asked for end, and their lengths.

    Every layer of a forward pass asks with the same tensor, and on a GPU each look at its values would
    wait for all layers before.
    """

    def __init__(self) -> None:
        self._positions: weakref.ref[Tensor] | None = None
        self._version = -1
        self._bounds: tuple[Tensor, list[int]] | None = None

    def bounds(self, position_ids_1T: Tensor) -> tuple[Tensor, list[int]]:
        known = self._positions is not None and self._positions() is position_ids_1T
        if self._bounds is None or not known or self._version != position_ids_1T._version:
            ends_S = sequence_ends(position_ids_1T[0])
            self._bounds = ends_S, torch.diff(ends_S, prepend=ends_S.new_zeros(1)).tolist()
            self._positions, self._version = weakref.ref(position_ids_1T), position_ids_1T._version
        return self._bounds


_last_pack = _LastPack()


def _attend(
    query_BHND: Tensor, key_BHND: Tensor, value_BHND: Tensor, scale: float, dropout: float, window: int | None
) -> Tensor:
    """Causal attention inside one sequence, by blocks of queries where a window is narrower than it."""
    length = query_BHND.shape[2]
    if window is None or window >= length:
        return F.scaled_dot_product_attention(
            query_BHND, key_BHND, value_BHND, dropout_p=dropout, is_causal=True, scale=scale
        )
    blocks = []
    for start in range(0, length, _WINDOW_BLOCK):
        end, first = min(start + _WINDOW_BLOCK, length), max(0, start - window + 1)
        query_Q = torch.arange(start, end, device=query_BHND.device)[:, None]
        key_N = torch.arange(first, end, device=query_BHND.device)
        seen_QN = (key_N <= query_Q) & (key_N > query_Q - window)
        keys, values = key_BHND[:, :, first:end], value_BHND[:, :, first:end]
        blocks.append(
            F.scaled_dot_product_attention(
                query_BHND[:, :, start:end], keys, values, attn_mask=seen_QN, dropout_p=dropout, scale=scale
            )
        )
    return torch.cat(blocks, dim=2)


def _fits_kernel(query_BHTD: Tensor, value_BKTD: Tensor, scale: float, dropout: float, window: int | None) -> bool:
    """Whether one kernel can compute all sequences."""
    is_half = query_BHTD.dtype in (torch.float16, torch.bfloat16)
    if not (query_BHTD.is_cuda and is_half and value_BKTD.shape[-1] == query_BHTD.shape[-1]):
        return False
    if _has_flash_attention():
        return True
    from torch.nn.attention.varlen import varlen_attn

    known = inspect.signature(varlen_attn).parameters
    has_scale = "scale" in known or scale == query_BHTD.shape[-1] ** -0.5
    return not dropout and has_scale and ("window_size" in known or window is None)


def _varlen(
    query_BHTD: Tensor,
    key_BKTD: Tensor,
    value_BKTD: Tensor,
    ends_S: Tensor,
    longest: int,
    scale: float,
    dropout: float,
    window: int | None,
) -> Tensor:
    """One kernel for all sequences: flash-attn where it is installed, else torch's own."""
    query, key, value = (x[0].transpose(0, 1).contiguous() for x in (query_BHTD, key_BKTD, value_BKTD))
    bounds = F.pad(ends_S, (1, 0)).to(torch.int32)
    window_size = (-1 if window is None else window - 1, 0)
    if _has_flash_attention():
        from flash_attn import flash_attn_varlen_func  # type: ignore[import-not-found]

        output_THD = flash_attn_varlen_func(
            query,
            key,
            value,
            bounds,
            bounds,
            longest,
            longest,
            dropout_p=dropout,
            softmax_scale=scale,
            causal=True,
            window_size=window_size,
        )
        return output_THD.unsqueeze(0)
    from torch.nn.attention.varlen import varlen_attn

    known = inspect.signature(varlen_attn).parameters
    options: dict[str, Any] = {"window_size": window_size} if "window_size" in known else {"is_causal": True}
    if "scale" in known:
        options["scale"] = scale
    if "enable_gqa" in known:
        options["enable_gqa"] = key.shape[1] != query.shape[1]
    else:
        key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
    return varlen_attn(query, key, value, bounds, bounds, longest, longest, **options).unsqueeze(0)


def _repeat_heads(heads_BKTD: Tensor, query_BHTD: Tensor) -> Tensor:
    groups = query_BHTD.shape[1] // heads_BKTD.shape[1]
    return heads_BKTD if groups == 1 else heads_BKTD.repeat_interleave(groups, dim=1)


def _has_flash_attention() -> bool:
    return importlib.util.find_spec("flash_attn") is not None
