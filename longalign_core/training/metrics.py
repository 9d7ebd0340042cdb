"""What an optimizer step did, and a run: the record that is kept, and the figures that are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from longalign_core.training.length_losses import BUCKETS
from longalign_core.training.waiting import Work, idle_share, rank_idle_shares


@dataclass(frozen=True, slots=True, kw_only=True)
class StepMetrics:
    """What one optimizer step did.

    Attributes:
        step: From 1.
        loss: The step's weighted loss before the update.
        token_loss: Mean loss of its target tokens, each weighing the same.
        bucket_losses: For each of `BUCKETS`, the mean over its sequences of their mean loss; None where
            the step has none.
        learning_rate: What the optimizer used.
        grad_norm: Norm of the gradient before clipping.
        seconds: Wall time of the step.
        tokens: Tokens of all its sequences.
        target_tokens: Those of them that the model is trained to predict.
        num_sequences: Sequences of all its slots.
        mfu: Model FLOPs utilisation: FLOPs of its packs without recomputation ÷ what the GPUs could do
            in its seconds. None where either is not known.
        allocated_bytes: Device memory of tensors at its peak, of the rank with most. None on the CPU.
        reserved_bytes: The same of what torch's allocator held.
        rss_bytes: Resident host memory after the step, of the rank with most.
        idle_measured: Share of the ranks' time spent waiting for one another; optimizer and communication
            left out. None where own work cannot be told from waiting.
        idle_predicted: The same, from the costs of the plan's slots. None where costs are not known.
        rank_seconds: Own work of each rank; empty like `idle_measured`.
        slowest_seconds: Between one meeting of the ranks and the next, the most that one worked, added up.
        rank_costs: As `rank_seconds`, predicted, in FLOPs.
        slowest_cost: As `slowest_seconds`, predicted.
        slot_seconds: Seconds of each slot, those of its slowest rank. Where own work cannot be told from
            waiting, only of the costliest slots that ranks compute at the same time; 0 for the others.
    """

    step: int
    loss: float
    token_loss: float
    bucket_losses: tuple[float | None, ...]
    learning_rate: float
    grad_norm: float
    seconds: float
    tokens: int
    target_tokens: int
    num_sequences: int
    mfu: float | None = None
    allocated_bytes: int | None = None
    reserved_bytes: int | None = None
    rss_bytes: int | None = None
    idle_measured: float | None = None
    idle_predicted: float | None = None
    rank_seconds: tuple[float, ...] = ()
    slowest_seconds: float = 0.0
    rank_costs: tuple[float, ...] = ()
    slowest_cost: float = 0.0
    slot_seconds: tuple[float, ...] = ()

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> StepMetrics:
        """From what JSON made of it."""
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        return cls(**fields)

    @property
    def tokens_per_second(self) -> float:
        """Of all ranks together."""
        return self.tokens / self.seconds

    @property
    def measured(self) -> Work:
        """Own work of its ranks in seconds; of no rank where it is not known."""
        return Work(ranks=self.rank_seconds, slowest=self.slowest_seconds)

    @property
    def predicted(self) -> Work:
        """The same as predicted, in FLOPs."""
        return Work(ranks=self.rank_costs, slowest=self.slowest_cost)


def scalars(metrics: StepMetrics) -> dict[str, float]:
    """A step as named numbers, for curves; what is not known is left out."""
    gib = 2.0**30
    known = {
        "loss": metrics.loss,
        "token_loss": metrics.token_loss,
        **{f"loss_by_length/{name}": loss for name, loss in zip(BUCKETS, metrics.bucket_losses, strict=True)},
        "learning_rate": metrics.learning_rate,
        "grad_norm": metrics.grad_norm,
        "speed/tokens_per_second": metrics.tokens_per_second,
        "speed/target_tokens_per_second": metrics.target_tokens / metrics.seconds,
        "speed/seconds": metrics.seconds,
        "speed/mfu": metrics.mfu,
        "memory/device_allocated_gib": metrics.allocated_bytes and metrics.allocated_bytes / gib,
        "memory/device_reserved_gib": metrics.reserved_bytes and metrics.reserved_bytes / gib,
        "memory/host_rss_gib": metrics.rss_bytes and metrics.rss_bytes / gib,
        "idle/measured": metrics.idle_measured,
        "idle/predicted": metrics.idle_predicted,
    }
    for name, work in (("measured", metrics.measured), ("predicted", metrics.predicted)):
        if work.slowest:
            known |= {f"idle_by_rank/{name}_{rank}": share for rank, share in enumerate(rank_idle_shares([work]))}
    return {name: float(value) for name, value in known.items() if value is not None}


def run_figures(steps: Sequence[StepMetrics]) -> dict[str, float]:
    """Figures of a whole run, at least one step of it; what is not known is left out.

    `hours` and `tokens_per_second` are of its steps alone, without start, checkpoints and restarts.
    """
    seconds = sum(one.seconds for one in steps)
    with_mfu = [one for one in steps if one.mfu is not None]
    known = {
        "hours": seconds / 3600,
        "tokens_per_second": sum(one.tokens for one in steps) / seconds,
        "mfu": sum((one.mfu or 0.0) * one.seconds for one in with_mfu) / sum(one.seconds for one in with_mfu)
        if with_mfu
        else None,
        "idle_measured": idle_share(one.measured for one in steps),
        "idle_predicted": idle_share(one.predicted for one in steps),
    }
    return {name: value for name, value in known.items() if value is not None}
