"""A step computed as training does, in any split over ranks and accumulation, against its definition.

A rank adds up its packs; DeepSpeed's `backward` divides by the packs of a rank and its all-reduce by
the ranks. The model is a table of logits by token, so that loss and gradient are known by hand.
Shapes: V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from longalign_core.batch_plan import BatchPlan, EpochOrder  # noqa: E402
from longalign_core.token_store import TokenStore, TokenStoreWriter  # noqa: E402
from longalign_core.training.loss import weighted_cross_entropy  # noqa: E402
from longalign_core.training.packs import Pack, rank_packs  # noqa: E402
from tests import loss_oracle  # noqa: E402
from tests.loss_oracle import Step  # noqa: E402

VOCABULARY = 7
LOGITS_VV = np.random.default_rng(1).normal(size=(VOCABULARY, VOCABULARY))
# Training holds the weights of tokens as 32-bit floats.
ROUNDING = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Case:
    """Steps of a plan: per slot the lengths of its sequences, each with its number of targets."""

    slots: list[list[tuple[int, int]]]
    packs_per_step: int
    alpha: float
    normaliser: str


@st.composite
def cases(draw: st.DrawFn) -> Case:
    length = st.integers(1, 9)
    # No target, a single one, or any number; the first token is never one.
    sequence = length.flatmap(
        lambda tokens: st.tuples(st.just(tokens), st.integers(0, tokens - 1) | st.just(min(1, tokens - 1)))
    )
    packs_per_step = draw(st.sampled_from([1, 2, 4, 6]))
    slots = draw(st.lists(st.lists(sequence, min_size=1, max_size=3), min_size=1, max_size=2 * packs_per_step))
    # Any slot may be empty, but a plan has no step without a sequence and ends with one.
    for place in draw(st.sets(st.integers(0, len(slots) - 1), max_size=2)):
        slots[place] = slots[place] if place % packs_per_step == 0 or place == len(slots) - 1 else []
    alpha = draw(st.sampled_from([0.0, 0.5, 1.0]) | st.floats(0, 1))
    return Case(slots, packs_per_step, alpha, draw(st.sampled_from(["step", "epoch", "pack"])))


def write(folder: Path, case: Case) -> tuple[BatchPlan, TokenStore]:
    draw = np.random.default_rng(0)
    packs: list[list[int]] = []
    with TokenStoreWriter(folder / "tokens") as writer:
        for slot in case.slots:
            packs.append([])
            for length, targets in slot:
                is_target = np.zeros(length, dtype=np.bool_)
                is_target[1 + draw.permutation(length - 1)[:targets]] = True
                packs[-1].append(writer.append(draw.integers(0, VOCABULARY, length), is_target))
    store = TokenStore.open(folder / "tokens")
    plan = BatchPlan.write(
        folder / "plan",
        strategy="naive",
        capacity=64,
        packs_per_step=case.packs_per_step,
        alike=1,
        alpha=case.alpha,
        normaliser=case.normaliser,
        seed=0,
        lengths=store.lengths,
        targets=store.targets,
        epochs=[EpochOrder.of_packs(packs)],
    )
    return plan, store


def double_loss(pack: Pack, logits_VV: torch.Tensor) -> torch.Tensor:
    """The weighted loss of a pack, in double precision throughout."""
    log_probabilities = torch.log_softmax(logits_VV, dim=-1)[pack.token_ids, pack.labels]
    return -(torch.from_numpy(pack.weights).double() * log_probabilities).sum()


def training_loss(pack: Pack, logits_VV: torch.Tensor) -> torch.Tensor:
    """The loss that training computes: the table's row is a hidden state, the head passes it on."""
    hidden_TV = logits_VV[pack.token_ids]
    labels, weights = torch.from_numpy(pack.labels), torch.from_numpy(pack.weights)
    return weighted_cross_entropy(hidden_TV, torch.eye(VOCABULARY, dtype=hidden_TV.dtype), None, labels, weights)[0]


def compute_step(
    plan: BatchPlan,
    store: TokenStore,
    step: int,
    num_ranks: int,
    loss_of_pack: Callable[[Pack, torch.Tensor], torch.Tensor],
    dtype: torch.dtype,
) -> tuple[float, np.ndarray]:
    """Loss as the trainer logs it, and the gradient that reaches the optimizer."""
    logits_VV = torch.tensor(LOGITS_VV, dtype=dtype, requires_grad=True)
    logged = 0.0
    for rank in range(num_ranks):
        packs = rank_packs(plan, store, step=step, rank=rank, num_ranks=num_ranks, vocabulary=VOCABULARY)
        assert len(packs) * num_ranks == plan.meta.packs_per_step
        for pack in packs:
            loss = loss_of_pack(pack, logits_VV)
            logged += float(loss.detach()) / plan.meta.packs_per_step
            (loss / len(packs) / num_ranks).backward()
    assert logits_VV.grad is not None
    return logged, logits_VV.grad.double().numpy()


def define_step(plan: BatchPlan, store: TokenStore, step: int, case: Case) -> tuple[float, np.ndarray]:
    """Loss and gradient of a step by the oracle, from the lengths in `case` and the tokens in the store."""
    numbers = iter(range(store.num_sequences))
    slots = [[next(numbers) for _ in slot] for slot in case.slots]
    steps = [slots[start : start + case.packs_per_step] for start in range(0, len(slots), case.packs_per_step)]

    def losses_of(values: Callable[[int], list[Fraction]]) -> list[Step]:
        return [[[values(number) for number in slot] for slot in one] for one in steps]

    z_epoch = loss_oracle.epoch_mean(losses_of(lambda number: token_losses(store, number)), case.alpha)
    all_losses = losses_of(lambda number: token_losses(store, number))[step]
    loss = loss_oracle.step_loss(all_losses, case.alpha, case.normaliser, z_epoch)
    gradient_VV = np.zeros((VOCABULARY, VOCABULARY))
    for chosen in (number for slot in steps[step] for number in slot if store.targets[number]):
        # The loss is linear in each token's loss: a loss of 1 spread over one sequence gives its factor.
        ones = losses_of(
            lambda number, chosen=chosen: (
                [Fraction(number == chosen, int(store.targets[number]))] * int(store.targets[number])
                if store.targets[number]
                else []
            )
        )
        factor = float(loss_oracle.step_loss(ones[step], case.alpha, case.normaliser, z_epoch))
        for token, label in target_pairs(store, chosen):
            probabilities = np.exp(LOGITS_VV[token]) / np.exp(LOGITS_VV[token]).sum()
            gradient_VV[token] += factor * (probabilities - (np.arange(VOCABULARY) == label))
    return float(loss), gradient_VV


def target_pairs(store: TokenStore, number: int) -> list[tuple[int, int]]:
    """Each target token after the token it is predicted from."""
    ids, is_target = store.sequence(number)
    return [(int(ids[place - 1]), int(ids[place])) for place in range(1, len(ids)) if is_target[place]]


def token_losses(store: TokenStore, number: int) -> list[Fraction]:
    return [
        Fraction(float(np.log(np.exp(LOGITS_VV[token]).sum()) - LOGITS_VV[token, label]))
        for token, label in target_pairs(store, number)
    ]


@settings(deadline=None, max_examples=50)
@given(case=cases())
def test_step_in_any_split_is_the_step_by_definition(case):
    with TemporaryDirectory() as folder:
        plan, store = write(Path(folder), case)
        for step in range(plan.meta.num_steps):
            loss, gradient = define_step(plan, store, step, case)
            whole_loss, whole_gradient = compute_step(plan, store, step, 1, double_loss, torch.float64)
            size = max(1e-30, float(np.abs(gradient).sum()))
            for num_ranks in (ranks for ranks in range(1, case.packs_per_step + 1) if case.packs_per_step % ranks == 0):
                found, found_gradient = compute_step(plan, store, step, num_ranks, double_loss, torch.float64)
                assert found == pytest.approx(loss, rel=ROUNDING)
                assert np.abs(found_gradient - gradient).max() <= ROUNDING * size
                # Every token has the same weight in every split; only the order of adding up differs.
                assert found == pytest.approx(whole_loss, rel=1e-13)
                assert np.abs(found_gradient - whole_gradient).max() <= 1e-14 * size


@pytest.mark.parametrize("normaliser", ["step", "epoch", "pack"])
@pytest.mark.parametrize("num_ranks", [1, 2, 3, 6])
def test_step_through_the_training_loss_is_the_step_by_definition(tmp_path, normaliser, num_ranks):
    slots = [[(9, 8), (5, 1)], [(7, 3)], [], [(4, 2), (3, 0), (8, 4)], [(2, 1)]]
    case = Case(slots, 6, 0.5, normaliser)
    plan, store = write(tmp_path, case)
    loss, gradient = define_step(plan, store, 0, case)
    found, found_gradient = compute_step(plan, store, 0, num_ranks, training_loss, torch.float32)
    assert found == pytest.approx(loss, rel=1e-6)
    assert np.abs(found_gradient - gradient).max() <= 1e-6 * np.abs(gradient).sum()
