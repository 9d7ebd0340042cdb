"""The loss of a step as DESIGN.md writes it, in exact arithmetic: slow, and apart from the code it checks.

A step is a list of slots, a slot a list of sequences, a sequence the losses of its target tokens.
"""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction

Sequence = list[Fraction]
Step = list[list[Sequence]]


def power(count: int, exponent: float) -> Fraction:
    """count ** exponent to 50 digits."""
    with localcontext(prec=50):
        return Fraction(Decimal(count) ** Decimal(exponent))


def numerator(sequences: list[Sequence], alpha: float) -> Fraction:
    """The sum of N^-alpha times a sequence's summed loss."""
    return sum((sum(losses) * power(len(losses), -alpha) for losses in sequences if losses), Fraction(0))


def weight_sum(sequences: list[Sequence], alpha: float) -> Fraction:
    """The sum of N^(1-alpha); a sequence without a target token counts nothing."""
    return sum((power(len(losses), 1 - alpha) for losses in sequences if losses), Fraction(0))


def flat(step: Step) -> list[Sequence]:
    """The sequences of all slots."""
    return [losses for slot in step for losses in slot]


def epoch_mean(steps: list[Step], alpha: float) -> Fraction:
    """Z_epoch: the mean over the steps of Z_step."""
    return sum((weight_sum(flat(step), alpha) for step in steps), Fraction(0)) / len(steps)


def step_loss(step: Step, alpha: float, normaliser: str, z_epoch: Fraction) -> Fraction:
    """The loss of a step; 0 where no token is a target."""
    if normaliser == "pack":
        packs = [slot for slot in step if weight_sum(slot, alpha)]
        losses = [numerator(slot, alpha) / weight_sum(slot, alpha) for slot in packs]
        return sum(losses, Fraction(0)) / len(packs) if packs else Fraction(0)
    divisor = z_epoch if normaliser == "epoch" else weight_sum(flat(step), alpha)
    return numerator(flat(step), alpha) / divisor if divisor else Fraction(0)
