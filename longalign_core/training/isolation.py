"""Proof, before training starts, that sequences of a pack do not see each other.

A cache, a mask or an attention function that ignores the pack leaks silently; the loss looks fine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from longalign_core.errors import TrainingError
from longalign_core.training.attention import PACKED_ATTENTION
from longalign_core.training.head import check_head
from longalign_core.training.model import PackedLossModel
from longalign_core.training.shared_attention import gather_parts

_LENGTHS = (5, 9, 7)
_SEED = 20_260_101
# The model's own forward holds all scores at once: a wider window would not fit beside the weights.
_WIDEST_WINDOW = 8_192


def check_isolation(model: PackedLossModel, device: torch.device, group: dist.ProcessGroup | None = None) -> None:
    """Perturb each sequence of a small pack in turn, and compare the pack with its sequences alone.

    Perturbing must move the sequence's own logits and no neighbour's, in evaluation and in training
    mode (which gradient checkpointing changes). The packed logits must be those that the model's own
    forward gives for each sequence alone, also for one longer than the model's window.

    Args:
        model: What is to be trained.
        device: Where it lies.
        group: The ranks that share packs; all of them call this. None where this one has them to itself.

    Raises:
        TrainingError: They do not; training would learn from contaminated sequences.
        InputError: The model changes its logits after its output layer.
    """
    check_head(model.model, device)
    was_training = model.training
    generator = torch.Generator().manual_seed(_SEED)
    tokens, positions = _random_pack(_LENGTHS, model.vocabulary, generator, device)
    window = getattr(model.model.config, "sliding_window", None)
    lengths = (*_LENGTHS, window + 2) if window and window <= _WIDEST_WINDOW else _LENGTHS
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for training in (True, False):
            model.train(training)
            _check_perturbations(lambda ids: _packed_logits(model, ids, positions, group), tokens, model.vocabulary)
        _check_against_unpacked(model, *_random_pack(lengths, model.vocabulary, generator, device), lengths, group)
    model.train(was_training)


def _random_pack(
    lengths: Sequence[int], vocabulary: int, generator: torch.Generator, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Token ids and positions of sequences of these lengths."""
    tokens = torch.randint(vocabulary, (sum(lengths),), generator=generator)
    return tokens.to(device), torch.cat([torch.arange(length) for length in lengths]).to(device)


def _check_perturbations(logits_of: Callable[[Tensor], Tensor], tokens: Tensor, vocabulary: int) -> None:
    before = logits_of(tokens).split(_LENGTHS)
    # Rows of one product are computed alike whatever the other rows hold, so this is no rounding matter.
    tolerance = 1e-6 * max(part.abs().max() for part in before)
    start = 0
    for own, length in enumerate(_LENGTHS):
        perturbed = tokens.clone()
        perturbed[start] = (perturbed[start] + vocabulary // 2) % vocabulary
        start += length
        for other, (old, new) in enumerate(zip(before, logits_of(perturbed).split(_LENGTHS), strict=True)):
            change = (new - old).abs().max()
            if other == own and change == 0:
                raise TrainingError(
                    f"changing sequence {own} of a pack does not move its own logits; "
                    "the base model cannot be trained on packs: choose another training.base_model"
                )
            if other != own and change > tolerance:
                raise TrainingError(
                    f"changing sequence {own} of a pack moves the logits of sequence {other} by {change:.3g}, so "
                    "sequences see each other; the base model does not honour packed attention: choose another "
                    "training.base_model"
                )


def _check_against_unpacked(
    model: PackedLossModel,
    tokens: Tensor,
    positions: Tensor,
    lengths: Sequence[int],
    group: dist.ProcessGroup | None,
) -> None:
    packed = _packed_logits(model, tokens, positions, group)
    model.model.set_attn_implementation("eager")
    with torch.no_grad():
        alone = torch.cat(
            [
                model.model(ids[None], position_ids=places[None], use_cache=False).logits[0].float()
                for ids, places in zip(tokens.split(lengths), positions.split(lengths), strict=True)
            ]
        )
    model.model.set_attn_implementation(PACKED_ATTENTION)
    error = (packed - alone).norm() / alone.norm()
    limit = 1e-4 if next(model.parameters()).dtype == torch.float32 else 5e-2
    if not error <= limit:
        raise TrainingError(
            f"packed logits differ from those of the sequences alone by {error:.3g} (norm-relative, at most {limit}); "
            "the base model cannot be trained on packs: choose another training.base_model"
        )


def _packed_logits(
    model: PackedLossModel, tokens: Tensor, positions: Tensor, group: dist.ProcessGroup | None
) -> Tensor:
    torch.manual_seed(_SEED)  # dropout, where there is any, falls alike
    if group is not None:
        num_tokens, num_ranks = len(tokens), dist.get_world_size(group)
        padding = torch.arange(-num_tokens % num_ranks, device=tokens.device)
        tokens = torch.cat([tokens, torch.zeros_like(padding)]).chunk(num_ranks)[dist.get_rank(group)]
        positions = torch.cat([positions, padding]).chunk(num_ranks)[dist.get_rank(group)]
    with torch.no_grad():
        logits: Tensor = model.model.get_output_embeddings()(model.hidden(tokens, positions))
        if group is not None:
            logits = gather_parts(logits, group)[:num_tokens]
    return logits.float()
