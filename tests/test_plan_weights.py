"""What every sequence of an epoch counts in training, over all steps and for any split of a step."""

from __future__ import annotations

import random
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longalign_core.batch_plan import BatchPlan, EpochOrder
from longalign_core.batching.cost import CostModel
from longalign_core.batching.report import PlanReport
from longalign_core.batching.strategies import Batching
from longalign_core.batching.token_budget import order_tokens
from tests import loss_oracle
from tests.loss_oracle import Step, flat

# The target tokens of an epoch's sequences, in packs; its last step is part-filled as often as not.
counts = st.one_of(st.sampled_from([0, 1]), st.integers(2, 40))
packs_of_counts = st.lists(st.lists(counts, min_size=1, max_size=4), min_size=1, max_size=9).filter(
    lambda packs: any(count for pack in packs for count in pack)
)
alphas = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1))
sizes = st.integers(1, 4)


def numbered(packs: list[list[int]]) -> tuple[list[list[int]], np.ndarray]:
    """Packs of sequence numbers, and the targets of each."""
    numbers = iter(range(sum(map(len, packs))))
    return [[next(numbers) for _ in pack] for pack in packs], np.array([count for pack in packs for count in pack])


def write(
    folder: Path,
    targets: np.ndarray,
    *epochs: list[list[int]] | EpochOrder,
    packs_per_step: int,
    alpha: float,
    normaliser: str,
) -> BatchPlan:
    return BatchPlan.write(
        folder,
        strategy="balanced",
        capacity=1000,
        packs_per_step=packs_per_step,
        alike=1,
        alpha=alpha,
        normaliser=normaliser,
        seed=0,
        lengths=targets + 1,
        targets=targets,
        epochs=[one if isinstance(one, EpochOrder) else EpochOrder.of_packs(one) for one in epochs],
    )


def weights(plan: BatchPlan) -> dict[tuple[int, int], float]:
    """By step and sequence, what its mean loss counts."""
    return {
        (step, placement.sequence): scale * placement.targets
        for step in range(plan.meta.num_steps)
        for slot, scales in zip(plan.slots(step), plan.loss_scales(step), strict=True)
        for placement, scale in zip(slot, scales, strict=True)
    }


def steps_of(packs: list[list[int]], packs_per_step: int) -> list[Step]:
    """The epoch's steps with a loss for every target token."""
    draw = random.Random(0)
    slots = [[[Fraction(draw.randrange(1, 999), 8) for _ in range(count)] for count in pack] for pack in packs]
    return [slots[start : start + packs_per_step] for start in range(0, len(slots), packs_per_step)]


@settings(deadline=None)
@given(packs=packs_of_counts, packs_per_step=sizes, alpha=alphas)
def test_plan_epoch_normaliser_steps_add_up_to_the_weighted_sum_over_all_sequences(packs, packs_per_step, alpha):
    placed, targets = numbered(packs)
    steps = steps_of(packs, packs_per_step)
    everything = [losses for step in steps for losses in flat(step)]
    with TemporaryDirectory() as folder:
        plan = write(Path(folder), targets, placed, packs_per_step=packs_per_step, alpha=alpha, normaliser="epoch")
        found = 0.0
        for number, step in enumerate(steps):
            scales = plan.loss_scales(number)
            assert scales[len(step) :] == ((),) * (packs_per_step - len(step))
            found += sum(
                scale * float(sum(losses))
                for slot, factors in zip(step, scales, strict=False)
                for losses, scale in zip(slot, factors, strict=True)
            )
    whole = loss_oracle.numerator(everything, alpha) / loss_oracle.weight_sum(everything, alpha)
    assert found == pytest.approx(float(len(steps) * whole), rel=1e-12)


@settings(deadline=None)
@given(packs=packs_of_counts, packs_per_step=sizes, alpha=alphas, seed=st.integers(0, 99))
def test_plan_epoch_normaliser_sequence_weighs_the_same_whatever_it_is_packed_with(packs, packs_per_step, alpha, seed):
    placed, targets = numbered(packs)
    shuffled = list(range(len(targets)))
    random.Random(seed).shuffle(shuffled)
    # As many packs, so that the epoch has as many steps.
    bounds = [len(shuffled) * pack // len(packs) for pack in range(len(packs) + 1)]
    others = [shuffled[start:end] for start, end in pairwise(bounds)]
    found = []
    for one in (placed, others):
        with TemporaryDirectory() as folder:
            options = {"packs_per_step": packs_per_step, "alpha": alpha, "normaliser": "epoch"}
            plan = write(Path(folder), targets, one, **options)
            found.append({sequence: weight for (_, sequence), weight in weights(plan).items()})
    assert found[0] == pytest.approx(found[1], rel=1e-12)


def test_plan_epoch_normaliser_alpha_one_gives_a_single_answer_in_a_part_filled_step_no_more(tmp_path):
    targets = np.array([3, 40, 1, 9, 1])
    plan = write(tmp_path, targets, [[0, 1], [2], [3], [4]], packs_per_step=3, alpha=1.0, normaliser="epoch")
    assert list(weights(plan).values()) == pytest.approx([2 / 5] * 5)


def test_plan_epoch_that_places_only_some_sequences_has_the_mean_of_its_own_steps(tmp_path):
    targets = np.array([4, 9, 16, 25])
    plan = write(tmp_path, targets, [[0, 1], [2, 3]], [[3]], packs_per_step=1, alpha=0.5, normaliser="epoch")
    assert plan.meta.z_epoch == pytest.approx(((2 + 3 + 4 + 5) / 2, 5.0))
    # So the one sequence of the second epoch counts as in any other step of one sequence.
    assert sum(weight for (step, _), weight in weights(plan).items() if step == 2) == pytest.approx(1.0)


@pytest.mark.parametrize("strategy", ["naive", "balanced"])
def test_plan_of_a_number_of_tokens_weighs_every_epoch_by_what_it_places(tmp_path, strategy):
    targets = np.random.default_rng(0).integers(1, 60, 80)
    batching = Batching(strategy=strategy, capacity=128, packs_per_step=2, alike=2, cost_model=CostModel(), seed=1)
    first, second = order_tokens(targets + 1, batching, int(1.3 * (targets + 1).sum()))
    assert len(second.sequences) < len(first.sequences)
    plan = write(tmp_path, targets, first, second, packs_per_step=2, alpha=0.5, normaliser="epoch")
    steps_of_first = int(first.slots[-1]) // 2 + 1
    found = sum(weight for (step, _), weight in weights(plan).items() if step >= steps_of_first)
    # Over an epoch's steps the weights add up to 1 on average.
    assert found == pytest.approx(plan.meta.num_steps - steps_of_first, rel=1e-12)


@settings(deadline=None)
@given(
    packs=packs_of_counts,
    packs_per_step=sizes,
    alpha=alphas,
    normaliser=st.sampled_from(["step", "epoch", "pack"]),
)
def test_report_ess_is_that_of_the_weights_by_definition(packs, packs_per_step, alpha, normaliser):
    # ess = (sum w)^2 / (S sum w^2) over S sequences with w = N^(1-alpha) / Z.
    placed, targets = numbered(packs)
    steps = steps_of(packs, packs_per_step)
    mean = loss_oracle.epoch_mean(steps, alpha)
    found = []
    for step in steps:
        num_packs = sum(1 for slot in step if any(slot))
        for slot in step:
            divisor = {
                "step": loss_oracle.weight_sum(flat(step), alpha),
                "epoch": mean,
                "pack": loss_oracle.weight_sum(slot, alpha) * num_packs,
            }[normaliser]
            found += [loss_oracle.power(len(losses), 1 - alpha) / divisor if losses else Fraction(0) for losses in slot]
    report = PlanReport(
        lengths=targets + 1,
        targets=targets,
        capacity=1000,
        packs_per_step=packs_per_step,
        alpha=alpha,
        normaliser=normaliser,
        cost_model=CostModel(),
    )
    report.add(EpochOrder.of_packs(placed))
    oracle = sum(found) ** 2 / (len(found) * sum(weight**2 for weight in found))
    assert report.figures().ess == pytest.approx(float(oracle), rel=1e-9)
