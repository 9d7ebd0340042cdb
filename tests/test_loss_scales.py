from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longalign_core.loss_scales import step_loss_scales

# Slots of one step with the target tokens of their sequences; empty slots and single-token answers among them.
steps = st.lists(st.lists(st.integers(1, 50), max_size=4), min_size=1, max_size=6).filter(any)


def token_losses(slots: list[list[int]]) -> list[list[np.ndarray]]:
    generator = np.random.default_rng(0)
    return [[generator.exponential(size=count) for count in slot] for slot in slots]


def step_loss(losses: list[list[np.ndarray]], scales: tuple[tuple[float, ...], ...]) -> float:
    assert [len(slot) for slot in losses] == [len(slot) for slot in scales]
    return sum(
        scale * loss.sum()
        for slot, slot_scales in zip(losses, scales, strict=True)
        for loss, scale in zip(slot, slot_scales, strict=True)
    )


@settings(deadline=None)
@given(slots=steps)
def test_step_loss_alpha_one_equals_mean_of_sequence_means(slots):
    losses = token_losses(slots)
    oracle = np.mean([loss.mean() for slot in losses for loss in slot])
    assert step_loss(losses, step_loss_scales(slots, 1.0, "step", 99.0)) == pytest.approx(oracle, rel=1e-12)


@settings(deadline=None)
@given(slots=steps)
def test_step_loss_alpha_zero_equals_token_mean(slots):
    losses = token_losses(slots)
    oracle = np.concatenate([loss for slot in losses for loss in slot]).mean()
    assert step_loss(losses, step_loss_scales(slots, 0.0, "step", 99.0)) == pytest.approx(oracle, rel=1e-12)


@settings(deadline=None)
@given(slots=steps)
def test_step_loss_alpha_half_equals_its_definition(slots):
    losses = token_losses(slots)
    numerator = sum(loss.sum() / len(loss) ** 0.5 for slot in losses for loss in slot)
    oracle = numerator / sum(len(loss) ** 0.5 for slot in losses for loss in slot)
    assert step_loss(losses, step_loss_scales(slots, 0.5, "step", 99.0)) == pytest.approx(oracle, rel=1e-12)


@settings(deadline=None)
@given(slots=steps)
def test_scales_alpha_one_are_the_papers_averaged_over_packs(slots):
    num_packs = sum(1 for slot in slots if slot)
    num_sequences = sum(len(slot) for slot in slots)
    scales = step_loss_scales(slots, 1.0, "step", 99.0)
    for slot, slot_scales in zip(slots, scales, strict=True):
        papers = [num_packs / (count * num_sequences) for count in slot]
        assert [num_packs * scale for scale in slot_scales] == pytest.approx(papers, rel=1e-12)


@settings(deadline=None)
@given(slots=steps)
def test_step_loss_pack_alpha_zero_equals_the_papers_equation_three(slots):
    losses = token_losses(slots)
    oracle = np.mean([np.concatenate(slot).mean() for slot in losses if slot])
    assert step_loss(losses, step_loss_scales(slots, 0.0, "pack", 99.0)) == pytest.approx(oracle, rel=1e-12)


@settings(deadline=None)
@given(slots=steps)
def test_step_loss_pack_alpha_one_averages_the_packs_means(slots):
    losses = token_losses(slots)
    oracle = np.mean([np.mean([loss.mean() for loss in slot]) for slot in losses if slot])
    assert step_loss(losses, step_loss_scales(slots, 1.0, "pack", 99.0)) == pytest.approx(oracle, rel=1e-12)


@settings(deadline=None)
@given(slots=steps)
def test_step_loss_other_packs_of_the_same_sequences_weigh_the_same(slots):
    flat = [count for slot in slots for count in slot]
    one_each = [[count] for count in flat]
    weights = [scale for slot in step_loss_scales(slots, 1.0, "step", 99.0) for scale in slot]
    assert weights == pytest.approx([scale for (scale,) in step_loss_scales(one_each, 1.0, "step", 99.0)], rel=1e-12)


def test_scales_epoch_normaliser_divides_by_the_epochs_mean():
    assert step_loss_scales([[2], [4, 1], []], 1.0, "epoch", 5.0) == (
        (pytest.approx(0.1),),
        (pytest.approx(0.05), pytest.approx(0.2)),
        (),
    )


def test_scales_sequence_without_targets_counts_nothing():
    assert step_loss_scales([[2, 0], [0]], 1.0, "step", 99.0) == ((0.5, 0.0), (0.0,))
    assert step_loss_scales([[2, 0], [0]], 1.0, "pack", 99.0) == ((0.5, 0.0), (0.0,))


def test_scales_step_without_any_target_are_zero():
    assert step_loss_scales([[0], []], 0.0, "step", 99.0) == ((0.0,), ())
