"""Which part of a step a training process computes: ranks are data-parallel × sequence-parallel."""

from __future__ import annotations

from dataclasses import dataclass

import torch.distributed as dist


@dataclass(frozen=True, slots=True, kw_only=True)
class RankLayout:
    """A process among all of a run. Consecutive ranks share a pack, so that they lie on one machine.

    Attributes:
        rank: This process.
        num_ranks: Processes of the run.
        sequence_parallel: Processes that share one pack; divides `num_ranks`.
    """

    rank: int
    num_ranks: int
    sequence_parallel: int

    @property
    def data_rank(self) -> int:
        """Which of the packs of a micro-step is this process's."""
        return self.rank // self.sequence_parallel

    @property
    def num_data_ranks(self) -> int:
        """Packs of a micro-step."""
        return self.num_ranks // self.sequence_parallel

    @property
    def sequence_rank(self) -> int:
        """Which part of its pack is this process's."""
        return self.rank % self.sequence_parallel

    def join_group(self) -> dist.ProcessGroup | None:
        """The processes that share this one's packs; None where it has them to itself. All ranks call this."""
        if self.sequence_parallel == 1:
            return None
        starts = range(0, self.num_ranks, self.sequence_parallel)
        groups = [dist.new_group(list(range(start, start + self.sequence_parallel))) for start in starts]
        return groups[self.data_rank]
