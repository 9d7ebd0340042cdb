"""What a sequence's loss counts in its step, against the formulas in exact arithmetic."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longalign_core.loss_scales import step_loss_scales
from tests import loss_oracle
from tests.loss_oracle import Step, flat

# Slots of one step with the target tokens of their sequences: empty slots, packs of one, single-token
# answers and sequences without a target among them.
counts = st.one_of(st.sampled_from([0, 1]), st.integers(2, 60))
steps = st.lists(st.lists(counts, max_size=4), min_size=1, max_size=6)
trained_steps = steps.filter(lambda slots: any(count for slot in slots for count in slot))
alphas = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1))
normalisers = st.sampled_from(["step", "epoch", "pack"])


def token_losses(slots: list[list[int]]) -> Step:
    """A loss for every target token, none of them alike."""
    draw = random.Random(0)
    return [[[Fraction(draw.randrange(1, 4096), 256) for _ in range(count)] for count in slot] for slot in slots]


def scaled_loss(step: Step, alpha: float, normaliser: str, z_epoch: float = 99.0) -> float:
    """The step's loss as training adds it up: factor times summed loss."""
    scales = step_loss_scales([[len(losses) for losses in slot] for slot in step], alpha, normaliser, z_epoch)
    assert [len(slot) for slot in scales] == [len(slot) for slot in step]
    return sum(
        scale * float(sum(losses))
        for slot, slot_scales in zip(step, scales, strict=True)
        for losses, scale in zip(slot, slot_scales, strict=True)
    )


@settings(deadline=None, max_examples=200)
@given(slots=steps, alpha=alphas, normaliser=normalisers, z_epoch=st.integers(1, 500))
def test_step_loss_any_alpha_and_normaliser_equals_its_definition(slots, alpha, normaliser, z_epoch):
    step = token_losses(slots)
    oracle = loss_oracle.step_loss(step, alpha, normaliser, Fraction(z_epoch))
    assert scaled_loss(step, alpha, normaliser, float(z_epoch)) == pytest.approx(float(oracle), rel=1e-12)


@settings(deadline=None)
@given(slots=trained_steps)
def test_step_loss_alpha_one_equals_mean_of_sequence_means(slots):
    step = token_losses(slots)
    means = [sum(losses) / len(losses) for losses in flat(step) if losses]
    assert scaled_loss(step, 1.0, "step") == pytest.approx(float(sum(means) / len(means)), rel=1e-12)


@settings(deadline=None)
@given(slots=trained_steps)
def test_step_loss_alpha_one_equals_the_papers_scaling_averaged_over_packs(slots):
    # The paper: sequence i's loss times K / (N_i M), summed within each pack, averaged over the K packs.
    step = token_losses(slots)
    packs = [[losses for losses in slot if losses] for slot in step if any(slot)]
    num_packs, num_sequences = len(packs), sum(map(len, packs))
    of_packs = [
        sum(sum(losses) * Fraction(num_packs, len(losses) * num_sequences) for losses in pack) for pack in packs
    ]
    assert scaled_loss(step, 1.0, "step") == pytest.approx(float(sum(of_packs) / num_packs), rel=1e-12)


@settings(deadline=None)
@given(slots=trained_steps)
def test_step_loss_alpha_zero_equals_token_mean(slots):
    step = token_losses(slots)
    tokens = [loss for losses in flat(step) for loss in losses]
    assert scaled_loss(step, 0.0, "step") == pytest.approx(float(sum(tokens) / len(tokens)), rel=1e-12)


@settings(deadline=None)
@given(slots=trained_steps)
def test_step_loss_pack_alpha_zero_equals_the_papers_equation_three(slots):
    # L' = (1/K) sum over packs of (sum of the pack's losses / its target tokens).
    tokens_of_packs = [[loss for losses in slot for loss in losses] for slot in token_losses(slots)]
    means = [sum(tokens) / len(tokens) for tokens in tokens_of_packs if tokens]
    assert scaled_loss(token_losses(slots), 0.0, "pack") == pytest.approx(float(sum(means) / len(means)), rel=1e-12)


@settings(deadline=None)
@given(slots=trained_steps)
def test_step_loss_pack_alpha_one_in_packs_of_one_has_no_bias(slots):
    alone = [[losses] for losses in flat(token_losses(slots))]
    assert scaled_loss(alone, 1.0, "pack") == pytest.approx(scaled_loss(alone, 1.0, "step"), rel=1e-12)


@settings(deadline=None)
@given(slots=trained_steps, alpha=alphas, normaliser=st.sampled_from(["step", "epoch"]), seed=st.integers(0, 99))
def test_scales_other_packs_of_the_same_sequences_are_the_same_to_the_last_bit(slots, alpha, normaliser, seed):
    targets = [count for slot in slots for count in slot]
    order = list(range(len(targets)))
    random.Random(seed).shuffle(order)
    one_each = step_loss_scales([[targets[place]] for place in order], alpha, normaliser, 7.0)
    found = dict(zip(order, (scale for (scale,) in one_each), strict=True))
    scales = [scale for slot in step_loss_scales(slots, alpha, normaliser, 7.0) for scale in slot]
    assert [found[place] for place in range(len(targets))] == scales


@settings(deadline=None)
@given(slots=trained_steps, alpha=alphas, normaliser=st.sampled_from(["step", "pack"]))
def test_scales_times_targets_add_up_to_one(slots, alpha, normaliser):
    scales = step_loss_scales(slots, alpha, normaliser, 99.0)
    pairs = [pair for slot, factors in zip(slots, scales, strict=True) for pair in zip(slot, factors, strict=True)]
    assert sum(scale * count for count, scale in pairs) == pytest.approx(1.0, rel=1e-12)
    assert all((scale > 0) == (count > 0) for count, scale in pairs)


def test_scales_epoch_normaliser_divides_by_the_epochs_mean():
    assert step_loss_scales([[2], [4, 1], []], 1.0, "epoch", 5.0) == (
        (pytest.approx(0.1),),
        (pytest.approx(0.05), pytest.approx(0.2)),
        (),
    )


def test_scales_sequence_without_targets_counts_nothing():
    assert step_loss_scales([[2, 0], [0]], 1.0, "step", 99.0) == ((0.5, 0.0), (0.0,))
    assert step_loss_scales([[2, 0], [0]], 1.0, "pack", 99.0) == ((0.5, 0.0), (0.0,))


@pytest.mark.parametrize("normaliser", ["step", "epoch", "pack"])
def test_scales_step_without_any_target_are_zero(normaliser):
    # An epoch in which nothing is trained has the mean 0.
    assert step_loss_scales([[0], []], 0.0, normaliser, 0.0) == ((0.0,), ())
    assert step_loss_scales([[], []], 0.0, normaliser, 0.0) == ((), ())
