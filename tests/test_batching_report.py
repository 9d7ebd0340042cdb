from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longalign_core.batch_plan import EpochOrder
from longalign_core.batching.cost import CostModel
from longalign_core.batching.figures import PlanFigures
from longalign_core.batching.report import PlanReport
from longalign_core.errors import InputError
from longalign_core.loss_scales import step_loss_scales

# Tokens only, so that costs can be added up by eye.
TOKENS = CostModel(linear=1.0, quadratic=0.0)
packs_of_targets = st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=4), min_size=1, max_size=10)


def figures(
    packs: list[list[int]],
    *more_epochs: list[list[int]],
    lengths: list[int],
    targets: list[int] | None = None,
    packs_per_step: int = 2,
    alpha: float = 1.0,
    normaliser: str = "step",
) -> PlanFigures:
    report = PlanReport(
        lengths=np.array(lengths),
        targets=np.array(targets or lengths),
        capacity=10,
        packs_per_step=packs_per_step,
        alpha=alpha,
        normaliser=normaliser,
        cost_model=TOKENS,
    )
    for epoch in (packs, *more_epochs):
        report.add(EpochOrder.of_packs(epoch))
    return report.figures()


def test_figures_small_plan_are_those_counted_by_hand():
    # Slots hold 10, 8 | 6, - tokens; the second step has an empty slot.
    found = figures([[0, 1], [2], [3]], lengths=[4, 6, 8, 6])
    assert (found.packs, found.steps, found.sequences, found.tokens, found.empty_slots) == (3, 2, 4, 24, 1)
    assert found.utilisation == pytest.approx(24 / 30)
    # Two ranks wait for 10 and for 6: 24 of 32. One rank never waits.
    assert found.idle == {"1": 0.0, "2": pytest.approx(1 - 24 / 32)}
    # Weights 1/3, 1/3, 1/3 and 1.
    assert found.ess == pytest.approx(2**2 / (4 * (3 / 9 + 1)))
    spread = found.sequences_per_step
    assert (spread.mean, spread.minimum, spread.maximum) == (2, 1, 3)
    assert "part-filled step weigh more" in found.note


def test_figures_full_last_step_need_no_note():
    assert figures([[0], [1]], lengths=[4, 6]).note == ""


def test_figures_several_epochs_count_all_their_steps():
    found = figures([[0, 1], [2]], [[2, 0], [1]], lengths=[4, 5, 6])
    assert (found.packs, found.steps, found.sequences, found.tokens) == (4, 2, 6, 30)
    assert found.ess == pytest.approx(1.0)


def test_figures_long_share_is_that_of_tokens_in_long_sequences():
    # Capacity 10: an eighth is 1 token, so every sequence is long.
    assert figures([[0, 1]], lengths=[1, 9], packs_per_step=1).long_token_share.mean == 1.0


@settings(deadline=None)
@given(packs=packs_of_targets, alpha=st.sampled_from([0.0, 0.5, 1.0]), normaliser=st.sampled_from(["step", "pack"]))
def test_ess_any_plan_is_that_of_the_weights_in_the_loss(packs, alpha, normaliser):
    targets = [count for pack in packs for count in pack]
    numbers = iter(range(len(targets)))
    numbered = [[next(numbers) for _ in pack] for pack in packs]
    found = figures(numbered, lengths=targets, targets=targets, packs_per_step=3, alpha=alpha, normaliser=normaliser)
    padded = packs + [[]] * (-len(packs) % 3)
    weights = np.array(
        [
            scale * count
            for start in range(0, len(padded), 3)
            for slot, scales in zip(
                padded[start : start + 3],
                step_loss_scales(padded[start : start + 3], alpha, normaliser, 1.0),
                strict=True,
            )
            for count, scale in zip(slot, scales, strict=True)
        ]
    )
    assert found.ess == pytest.approx(weights.sum() ** 2 / (len(weights) * (weights**2).sum()))


def test_ess_epoch_normaliser_alpha_one_is_one_whatever_the_steps():
    assert figures([[0, 1, 2], [3], [4]], lengths=[1, 2, 3, 9, 9], normaliser="epoch").ess == pytest.approx(1.0)


def test_cost_small_model_counts_its_matrices():
    # One layer: q 4x4, k and v 4x2 each, o 4x4, three 4x8 in the feed-forward, head 4x10.
    config = {
        "hidden_size": 4,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 8,
        "vocab_size": 10,
    }
    cost = CostModel.from_model_config(config)
    assert cost.linear == 6 * (16 + 8 + 8 + 16 + 3 * 32 + 40)
    # Scores and weighted sum: 2 x 2 n² x 4, causal half, three passes.
    assert cost.quadratic == 3 * 2 * 4


def test_cost_llama_2_7b_is_near_the_default():
    config = {
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "intermediate_size": 11008,
        "vocab_size": 32000,
    }
    cost = CostModel.from_model_config(config)
    assert cost.quadratic == CostModel().quadratic
    assert cost.linear == pytest.approx(CostModel().linear, rel=0.06)


def test_cost_config_without_sizes_is_refused():
    with pytest.raises(InputError, match="hidden_size, num_hidden_layers"):
        CostModel.from_model_config({"model_type": "gpt2"})
