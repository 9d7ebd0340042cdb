"""One rank's measurements of an optimizer step, and what they are together with the other ranks'."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import psutil
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from longalign_core.batch_plan import BatchPlan, Placement
from longalign_core.training.clock import clock_of
from longalign_core.training.job import TrainingJob
from longalign_core.training.layout import RankLayout
from longalign_core.training.length_losses import BUCKETS, bucket_counts, bucket_sums
from longalign_core.training.metrics import StepMetrics
from longalign_core.training.peak_flops import peak_flops
from longalign_core.training.waiting import (
    Work,
    costliest_seconds,
    idle_share,
    own_seconds,
    predicted_work,
    slot_seconds,
    step_work,
)

# DeepSpeed reduces gradients once a step, but under ZeRO-2 and 3 in the backward pass of every micro-step.
_MEETS_EVERY_MICRO_STEP = 2
# Under ZeRO-3 the forward pass, too, waits for others: it fetches their weights.
_FORWARD_WAITS = 3


class Meter:
    """Watches the micro-steps of a step; costs one small exchange between ranks a step.

    Nothing is waited for while a step runs: a GPU's clock and losses are read when it is over.
    """

    def __init__(self, job: TrainingJob, plan: BatchPlan, layout: RankLayout, device: torch.device) -> None:
        """Set up on every rank.

        Args:
            job: What is trained, and what is known of its costs.
            plan: Its batch plan.
            layout: The rank among all.
            device: The rank's.
        """
        self._plan, self._layout, self._device = plan, layout, device
        self._clock = clock_of(device)
        self._every_micro_step = job.zero_stage >= _MEETS_EVERY_MICRO_STEP
        # A group's ranks, too, wait for each other inside the forward pass.
        self._tells_waiting = device.type == "cpu" or (
            job.zero_stage < _FORWARD_WAITS and layout.sequence_parallel == 1
        )
        self._slot_costs: NDArray[np.float64] | None = (
            None if job.slot_costs is None else np.load(job.slot_costs, mmap_mode="r")
        )
        self._peak_flops = _peak_flops(job, device)
        self._process = psutil.Process()
        self.start()

    def start(self) -> None:
        """A step begins."""
        self._started = time.perf_counter()
        self._token_losses: list[tuple[int, torch.Tensor]] = []
        self._clock.take()
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)

    def forward_begins(self) -> None:
        """Of the next micro-step."""
        self._clock.start()

    def forward_ended(self, losses_T: torch.Tensor, start: int = 0) -> None:
        """It gave losses of tokens; the backward pass begins.

        Args:
            losses_T: Loss of each of the rank's tokens of the pack, 0 where it is no target.
            start: Tokens of the pack before the first of them.
        """
        self._clock.turn()
        self._token_losses.append((start, losses_T))

    def backward_ended(self) -> None:
        """The micro-step is over."""
        self._clock.stop()

    def finish(self, step: int, local_loss: torch.Tensor, *, learning_rate: float, grad_norm: float) -> StepMetrics:
        """What the step did, over all ranks; all of them take part, and get the same but for times.

        Args:
            step: From 0.
            local_loss: The rank's part of the step's loss, as `Trainer.accumulate` gives it.
            learning_rate: What the optimizer used.
            grad_norm: Norm of the gradient before clipping.
        """
        slots = self._plan.slots(step)
        placed = [placement for slot in slots for placement in slot]
        part, whole = self._clock.take()
        token_sum, sums_B = self._local_losses(slots[self._layout.data_rank :: self._layout.num_data_ranks])
        memory = (*self._device_memory(), self._process.memory_info().rss)
        blocks = ([float(local_loss), token_sum], sums_B, memory, part, whole)
        gathered = self._gather(np.concatenate([np.asarray(block, dtype=np.float64) for block in blocks]))
        losses, sums, memory_WK, part_WM, whole_WM = np.split(
            gathered, np.cumsum([len(block) for block in blocks])[:-1], axis=1
        )
        targets = sum(placement.targets for placement in placed)
        allocated, reserved, rss = (int(value) for value in memory_WK.max(axis=0))
        own_WM = own_seconds(part_WM, whole_WM)
        measured = self._work(own_WM) if self._tells_waiting else Work(ranks=(), slowest=0.0)
        costs = None if self._slot_costs is None else self._slot_costs[step]
        predicted = Work(ranks=(), slowest=0.0) if costs is None else self._predicted(costs)
        seconds = time.perf_counter() - self._started
        return StepMetrics(
            step=step + 1,
            loss=float(losses[:, 0].sum()) / (self._plan.meta.packs_per_step * self._layout.sequence_parallel),
            token_loss=float(losses[:, 1].sum()) / max(1, targets),
            bucket_losses=tuple(
                float(total / count) if count else None
                for total, count in zip(sums.sum(axis=0), bucket_counts(placed), strict=True)
            ),
            learning_rate=learning_rate,
            grad_norm=grad_norm,
            seconds=seconds,
            tokens=sum(placement.length for placement in placed),
            target_tokens=targets,
            num_sequences=len(placed),
            mfu=None
            if costs is None or self._peak_flops is None
            else float(costs.sum()) / (seconds * self._layout.num_ranks * self._peak_flops),
            allocated_bytes=allocated or None,
            reserved_bytes=reserved or None,
            rss_bytes=rss,
            idle_measured=idle_share([measured]),
            idle_predicted=idle_share([predicted]),
            rank_seconds=measured.ranks,
            slowest_seconds=measured.slowest,
            rank_costs=predicted.ranks,
            slowest_cost=predicted.slowest,
            slot_seconds=self._slot_seconds(own_WM, whole_WM, costs),
        )

    def _local_losses(self, slots: Sequence[Sequence[Placement]]) -> tuple[float, NDArray[np.float64]]:
        total, sums_B = 0.0, np.zeros(len(BUCKETS))
        for (start, losses_T), slot in zip(self._token_losses, slots, strict=True):
            losses = losses_T.cpu().numpy()
            total += float(losses.sum(dtype=np.float64))
            sums_B += bucket_sums(losses, slot, start)
        return total, sums_B

    def _device_memory(self) -> tuple[int, int]:
        if self._device.type != "cuda":
            return 0, 0
        return torch.cuda.max_memory_allocated(self._device), torch.cuda.max_memory_reserved(self._device)

    def _gather(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        own = torch.from_numpy(values).to(self._device)
        all_ranks = [torch.empty_like(own) for _ in range(self._layout.num_ranks)]
        dist.all_gather(all_ranks, own)
        gathered: NDArray[np.float64] = torch.stack(all_ranks).cpu().numpy()
        return gathered

    def _work(self, own_WM: NDArray[np.float64]) -> Work:
        return step_work(own_WM, group=self._layout.sequence_parallel, every_micro_step=self._every_micro_step)

    def _predicted(self, costs_P: NDArray[np.float64]) -> Work:
        return predicted_work(
            costs_P,
            ranks=self._layout.num_ranks,
            group=self._layout.sequence_parallel,
            every_micro_step=self._every_micro_step,
        )

    def _slot_seconds(
        self, own_WM: NDArray[np.float64], whole_WM: NDArray[np.float64], costs_P: NDArray[np.float64] | None
    ) -> tuple[float, ...]:
        if self._tells_waiting:
            return slot_seconds(own_WM, self._layout.sequence_parallel)
        return () if costs_P is None else costliest_seconds(whole_WM, costs_P, self._layout.sequence_parallel)


def _peak_flops(job: TrainingJob, device: torch.device) -> float | None:
    if job.peak_tflops is not None:
        return 1e12 * job.peak_tflops
    if device.type != "cuda":
        return None
    return peak_flops(torch.cuda.get_device_name(device), job.config.precision)
