"""Gradients of the product's trainer against one sequence at a time in float64, over splits of the same steps.

`python -m benchmarks.training_parity FOLDER` computes what is expected of the inputs in it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.training_inputs import Shape, write_model, write_tokens
from longalign_core.batch_plan import BatchPlan, EpochOrder
from longalign_core.token_store import TokenStore

PACKS = (
    ((0, 1), (2,), (3, 4, 5), (6, 8)),
    ((7,), (), (9,), (1, 3)),  # with an empty slot
    ((10,), (), (), ()),  # the part-filled last step
)
LENGTHS = (7, 12, 30, 5, 9, 3, 21, 16, 2, 11, 8)
PACKS_PER_STEP = 4
TINY = Shape(hidden=128, layers=2, vocabulary=64)  # four heads, so that as many ranks can share a pack
Normaliser = Literal["step", "epoch", "pack"]


@dataclass(frozen=True, slots=True)
class Form:
    """A form of the loss."""

    name: str
    alpha: float
    normaliser: Normaliser


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Who computes a step, and how."""

    form: Form
    ranks: int
    zero_stage: int
    sequence_parallel: int = 1

    @property
    def micro_steps(self) -> int:
        """Packs that a rank computes one after the other, or takes part in."""
        return PACKS_PER_STEP * self.sequence_parallel // self.ranks


FORMS = (
    Form("mean of sequence means (the paper)", 1.0, "step"),
    Form("between", 0.5, "step"),
    Form("token mean", 0.0, "step"),
    Form("epoch's mean", 1.0, "epoch"),
    Form("pack (the paper's equation 3)", 0.0, "pack"),
)


def splits(ranks: int) -> list[Split]:
    """For every way of sharing packs, every form under ZeRO-2, and the paper's under the other stages too."""
    found = []
    for shared in (1, 2, 4):
        if ranks % shared == 0:
            kinds = [(form, 2) for form in FORMS] + [(FORMS[0], stage) for stage in (0, 1, 3)]
            found += [
                Split(form=form, ranks=ranks, zero_stage=stage, sequence_parallel=shared) for form, stage in kinds
            ]
    return found


def write_inputs(folder: Path) -> None:
    """Model, token store and a plan for each form."""
    write_model(folder / "model", TINY)
    tokens = folder / "tokens"
    write_tokens(tokens, np.array(LENGTHS), vocabulary=TINY.vocabulary, target_share=0.5, seed=0)
    store = TokenStore.open(tokens)
    order = EpochOrder.of_packs([pack for step in PACKS for pack in step])
    for number, form in enumerate(FORMS):
        BatchPlan.write(
            folder / f"plan-{number}",
            strategy="naive",
            capacity=64,
            packs_per_step=PACKS_PER_STEP,
            alike=PACKS_PER_STEP,
            alpha=form.alpha,
            normaliser=form.normaliser,
            seed=0,
            lengths=store.lengths,
            targets=store.targets,
            epochs=[order],
        )


def plan_of(folder: Path, form: Form) -> Path:
    """Folder of a form's plan."""
    return folder / f"plan-{FORMS.index(form)}"


def expect(folder: Path) -> None:
    """Compute every form's gradients in a process of its own, to `expected-FORM-STEP.npz`."""
    command = [sys.executable, "-m", "benchmarks.training_parity", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).resolve().parent.parent)
    if done.returncode:
        raise SystemExit(f"the gradients in float64 failed:\n{done.stderr[-2000:]}")


def worst_error(folder: Path, form: Form, gradients: Path) -> float:
    """Largest norm-relative error of any parameter's gradient, and of the loss, over the steps."""
    return max(error for step in range(len(PACKS)) for error in _errors(folder, form, gradients, step))


def _errors(folder: Path, form: Form, gradients: Path, step: int) -> Iterator[float]:
    expected = dict(np.load(folder / f"expected-{FORMS.index(form)}-{step}.npz"))
    found = dict(np.load(gradients / f"gradients-{step}.npz"))
    assert set(found) == set(expected), set(found) ^ set(expected)
    for name, wanted in expected.items():
        yield float(np.linalg.norm(found[name] - wanted) / np.linalg.norm(wanted))


def weights_of(counts: list[list[list[int]]], form: Form, step: int) -> list[list[float]]:
    """The weight of every sequence's summed loss in a step, as DESIGN.md's formula has it.

    Args:
        counts: Target tokens of the sequences, by step and slot.
        form: Of the loss.
        step: Which one.
    """

    def z(sequences: list[int]) -> float:
        return sum(count ** (1 - form.alpha) for count in sequences if count)

    filled = [slot for slot in counts[step] if z(slot)]
    if form.normaliser == "pack":
        divisors = [z(slot) * len(filled) for slot in counts[step]]
    else:
        of_steps = [z([count for slot in one for count in slot]) for one in counts]
        divisors = [sum(of_steps) / len(of_steps) if form.normaliser == "epoch" else of_steps[step]] * len(counts[step])
    return [
        [count**-form.alpha / divisor if count else 0.0 for count in slot]
        for slot, divisor in zip(counts[step], divisors, strict=True)
    ]


def main(folder: Path) -> None:
    """One sequence at a time by plain transformers in float64."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float64, attn_implementation="eager")
    store = TokenStore.open(folder / "tokens")
    counts = [[[int(store.targets[number]) for number in slot] for slot in step] for step in PACKS]
    for place, form in enumerate(FORMS):
        for step, slots in enumerate(PACKS):
            model.zero_grad()
            total = 0.0
            for slot, weights in zip(slots, weights_of(counts, form, step), strict=True):
                for number, weight in zip(slot, weights, strict=True):
                    ids, is_target = (torch.from_numpy(array) for array in store.sequence(number))
                    logits = model(ids[None], use_cache=False).logits[0, :-1]
                    losses = torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none")
                    loss = weight * losses[is_target[1:]].sum()
                    loss.backward()
                    total += loss.item()
            found: dict[str, NDArray[np.float64]] = {
                name: parameter.grad.numpy() for name, parameter in model.named_parameters()
            }
            np.savez(folder / f"expected-{place}-{step}.npz", loss=np.array(total), **found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
