"""One slot of the batch plan as the arrays a rank feeds its model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from longalign_core.batch_plan import BatchPlan, Placement
from longalign_core.errors import DataError
from longalign_core.token_store import TokenStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """A slot ready to compute. All arrays have shape (T,).

    Attributes:
        token_ids: The sequences one after the other.
        positions: From 0 in each sequence.
        labels: The token after each one in its own sequence; 0 where there is none.
        weights: Factor of each label's loss, packs_per_step included; 0 where it is not trained.
    """

    token_ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    labels: NDArray[np.int64]
    weights: NDArray[np.float32]


def rank_packs(
    plan: BatchPlan, store: TokenStore, *, step: int, rank: int, num_ranks: int, vocabulary: int
) -> list[Pack]:
    """The packs that a rank computes in a step, one per micro-step m: slot m * num_ranks + rank.

    DeepSpeed divides gradients by ranks and micro-steps, together packs_per_step, so that factor is
    in the weights.

    Raises:
        DataError: A token id is outside the model's vocabulary.
    """
    num_slots = plan.meta.packs_per_step
    assert num_slots % num_ranks == 0
    slots, scales = plan.slots(step), plan.loss_scales(step)
    return [
        make_pack(slots[slot], [scale * num_slots for scale in scales[slot]], store, vocabulary)
        for slot in range(rank, num_slots, num_ranks)
    ]


def share_of(pack: Pack, part: int, num_parts: int) -> Pack:
    """One of equal consecutive parts of a pack that several ranks share.

    The pack is first made longer by a sequence of weight zero, as far as it takes to divide it. The
    ranks' gradients are averaged like those of other packs, so weights grow by the number of parts.

    Args:
        pack: The whole pack.
        part: From 0.
        num_parts: Ranks that share it.
    """
    padding = -len(pack.token_ids) % num_parts
    size = (len(pack.token_ids) + padding) // num_parts
    fill = {"positions": np.arange(padding)}  # from 0: no sequence goes on in the padding
    longer = {
        field.name: np.concatenate([value, fill.get(field.name, np.zeros(padding)).astype(value.dtype)])
        for field in fields(pack)
        for value in [getattr(pack, field.name)]
    }
    shared = {name: value[part * size : (part + 1) * size] for name, value in longer.items()}
    return Pack(**shared | {"weights": shared["weights"] * np.float32(num_parts)})


def make_pack(slot: Sequence[Placement], scales: Sequence[float], store: TokenStore, vocabulary: int) -> Pack:
    """Lay the sequences of a slot one after the other.

    An empty slot becomes one token of weight zero: it still has to pass through the model, or ranks
    wait for each other for ever.

    Args:
        slot: The sequences of the slot in order.
        scales: Factor of each one's summed loss.
        store: Holds their tokens.
        vocabulary: Token ids the model knows.

    Raises:
        DataError: A token id is outside the vocabulary.
    """
    size = max(1, sum(placement.length for placement in slot))
    pack = Pack(
        token_ids=np.zeros(size, dtype=np.int64),
        positions=np.zeros(size, dtype=np.int64),
        labels=np.zeros(size, dtype=np.int64),
        weights=np.zeros(size, dtype=np.float32),
    )
    for placement, scale in zip(slot, scales, strict=True):
        token_ids, is_target = store.sequence(placement.sequence)
        if (largest := int(token_ids.max())) >= vocabulary:
            raise DataError(
                f"sequence {placement.sequence} has token id {largest} but the base model knows {vocabulary} tokens; "
                "give encoding.tokenizer and training.base_model the same model"
            )
        assert len(token_ids) == placement.length
        start, end = placement.offset, placement.offset + placement.length
        pack.token_ids[start:end] = token_ids
        pack.positions[start:end] = np.arange(placement.length)
        pack.labels[start : end - 1] = token_ids[1:]
        pack.weights[start : end - 1] = is_target[1:] * scale
    return pack
