"""The training loop of one rank: a pure function of the batch plan and the step, run under DeepSpeed."""

from __future__ import annotations

import math

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.accelerator import get_accelerator

from longalign_core.batch_plan import BatchPlan
from longalign_core.errors import TrainingError
from longalign_core.token_store import TokenStore
from longalign_core.training.attention import register_packed_attention
from longalign_core.training.disk_space import room_for
from longalign_core.training.isolation import check_isolation
from longalign_core.training.job import EVENTS_FILE, RESUME_FOLDER, EventWriter, TrainingJob
from longalign_core.training.layout import RankLayout
from longalign_core.training.lora import add_adapters
from longalign_core.training.meter import Meter
from longalign_core.training.metrics import StepMetrics
from longalign_core.training.model import load_model
from longalign_core.training.model_folder import save_model
from longalign_core.training.packs import rank_packs, share_of
from longalign_core.training.point_times import PointTimes, slot_seed
from longalign_core.training.resume import Partition, complete_point, digest_files, list_files, resume_tag
from longalign_core.training.schedule import learning_rate
from longalign_core.training.shared_attention import shared_attention
from longalign_core.training.trackers import Trackers


def check_finite(metrics: StepMetrics) -> None:
    """Refuse a step that diverged. Loss and norm are alike on every rank, so that all of them give up here.

    Raises:
        TrainingError: The loss is not finite, or the gradient's norm not a finite number from 0.
    """
    if not (math.isfinite(metrics.loss) and 0 <= metrics.grad_norm < math.inf):
        raise TrainingError(
            f"training diverged: step {metrics.step} has loss {metrics.loss:g} and gradient norm "
            f"{metrics.grad_norm:g}, which must be finite; lower the optimizer's learning_rate or clip_norm, "
            "or raise its warmup_fraction"
        )


class Trainer:
    """One rank's model, data and place in the plan.

    Attributes:
        engine: DeepSpeed's engine around the packed model.
        plan: The batch plan.
    """

    def __init__(self, job: TrainingJob) -> None:
        self._job = job
        self._rank, self._num_ranks = dist.get_rank(), dist.get_world_size()
        self._layout = RankLayout(rank=self._rank, num_ranks=self._num_ranks, sequence_parallel=job.sequence_parallel)
        group = self._layout.join_group()
        self._device = torch.device(get_accelerator().current_device_name())
        self.plan = BatchPlan.open(job.plan)
        self._store = TokenStore.open(job.tokens)
        torch.manual_seed(job.config.seed)
        self._model = load_model(
            job.base_model,
            precision=job.config.precision,
            trust_remote_code=job.config.trust_remote_code,
            gradient_checkpointing=job.gradient_checkpointing,
            offload_activations=job.offload_activations,
        )
        register_packed_attention(shared_attention(group) if group else None)
        if job.config.lora:
            add_adapters(self._model, job.config.lora)
        self._vocabulary = self._model.vocabulary
        self._model.to(self._device)
        check_isolation(self._model, self._device, group)
        self._model.train()
        trained = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
        universal = job.resume is not None and job.resume.universal
        config = job.deepspeed | ({"checkpoint": {"load_universal": True}} if universal else {})
        self.engine, *_ = deepspeed.initialize(model=self._model, model_parameters=trained, config=config)
        self._meter = Meter(job, self.plan, self._layout, self._device)

    def run(self) -> None:
        """Train from the last resume point to the plan's end.

        Raises:
            TrainingError: A step's loss or gradient was not finite. Nothing of that step is kept.
        """
        events = EventWriter(self._job.out_dir / EVENTS_FILE) if self._rank == 0 else None
        num_steps, resumed = self.plan.meta.num_steps, self._resume()
        times = PointTimes(self._job.checkpoint_interval, self._job.checkpoint_minutes)
        trackers = Trackers(self._job, resumed) if self._rank == 0 else None
        for step in range(resumed, num_steps):
            self._meter.start()
            local_loss = self.accumulate(step)
            grad_norm = self.update(step)
            metrics = self._meter.finish(step, local_loss, learning_rate=self._learning_rate(step), grad_norm=grad_norm)
            check_finite(metrics)
            done = step + 1
            if events and trackers:
                events.step(metrics)
                trackers.log(metrics)
            # The model comes before the resume point: what lies behind a point is never computed again.
            if done in self._job.keep_steps:
                self._save_model(done)
                if events:
                    events.model(done)
            if done < num_steps and self._agree(times.due(done)):
                self._save_resume_point(done)
                times.made()
                if events:
                    events.point(done)
        if trackers:
            trackers.close()

    def accumulate(self, step: int) -> torch.Tensor:
        """Forward and backward of this rank's packs of a step, up to the moment before the update.

        Returns:
            The rank's part of the step's loss, times packs_per_step and the ranks that share a pack. A scalar
            in fp32.
        """
        packs = rank_packs(
            self.plan,
            self._store,
            step=step,
            rank=self._layout.data_rank,
            num_ranks=self._layout.num_data_ranks,
            vocabulary=self._vocabulary,
        )
        total = torch.zeros((), device=self._device)
        for micro_step, whole_pack in enumerate(packs):
            pack = share_of(whole_pack, self._layout.sequence_rank, self._layout.sequence_parallel)
            if micro_step:
                self.engine.step()  # counts the micro-step before; it updates nothing yet
            slot = micro_step * self._layout.num_data_ranks + self._layout.data_rank
            seed = slot_seed(self._job.config.seed, step=step, slot=slot, part=self._layout.sequence_rank)
            torch.manual_seed(seed)
            arrays = (pack.token_ids, pack.positions, pack.labels, pack.weights)
            tensors = [torch.from_numpy(array).to(self._device) for array in arrays]
            self._meter.forward_begins()
            loss, losses_T = self.engine(*tensors)
            self._meter.forward_ended(losses_T, self._layout.sequence_rank * len(losses_T))
            self.engine.backward(loss)
            self._meter.backward_ended()
            total += loss.detach()
        return total

    def update(self, step: int) -> float:
        """Change the weights by the gradients that were accumulated.

        Returns:
            The gradient's norm before clipping, alike on every rank. Where it is not finite, DeepSpeed may
            have left the step out, and gives infinity or -1.
        """
        for group in self.engine.optimizer.param_groups:
            group["lr"] = self._learning_rate(step)
        # Without ZeRO, DeepSpeed gives no norm; there each rank holds the whole gradient until the update.
        whole_norm = self._whole_grad_norm() if self._job.zero_stage == 0 else None
        self.engine.step()
        return float(self.engine.get_global_grad_norm()) if whole_norm is None else whole_norm

    def _whole_grad_norm(self) -> float:
        gradients = [parameter.grad for parameter in self._model.parameters() if parameter.grad is not None]
        norms = [torch.linalg.vector_norm(gradient, dtype=torch.float32) for gradient in gradients]
        return float(torch.linalg.vector_norm(torch.stack(norms)))

    def _learning_rate(self, step: int) -> float:
        return learning_rate(self._job.config.optimizer, step, self.plan.meta.num_steps)

    def _agree(self, due: bool) -> bool:
        """What the first rank says: clocks differ, and all must save together."""
        said = torch.tensor([int(due)], device=self._device)
        dist.broadcast(said, src=0)
        return bool(said.item())

    def _resume(self) -> int:
        """Load what the job goes on from; returns the step to go on at."""
        if (resume := self._job.resume) is None:
            return 0
        loaded, _ = self.engine.load_checkpoint(str(self._job.out_dir / RESUME_FOLDER), tag=resume.tag)
        assert loaded is not None, f"DeepSpeed did not take the whole resume point {resume.tag}"
        return resume.step

    def _save_resume_point(self, step: int) -> None:
        root = self._job.out_dir / RESUME_FOLDER
        tag = resume_tag(step)
        # The optimizer keeps three numbers in fp32 for each parameter.
        with room_for(f"the resume point after step {step}", root / tag, self._num_bytes(12)):
            self.engine.save_checkpoint(str(root), tag=tag, save_latest=False)
        dist.barrier()
        # Every rank digests its share of the files.
        names = list_files(root / tag)[self._rank :: self._num_ranks]
        shares: list[dict[str, str]] = [{}] * self._num_ranks
        dist.all_gather_object(shares, digest_files(root / tag, names))
        if self._rank == 0:
            digests = {name: value for share in shares for name, value in share.items()}
            complete_point(root, step, self._partition(), digests, num_kept=self._job.num_resume_points)
        dist.barrier()

    def _partition(self) -> Partition:
        return Partition(ranks=self._num_ranks, zero_stage=self._job.zero_stage, on_nvme=self._job.on_nvme)

    def _num_bytes(self, state_bytes: int) -> int:
        """Size of all parameters, with so many bytes of optimizer state each."""
        return sum(
            getattr(parameter, "ds_numel", parameter.numel()) * (parameter.element_size() + state_bytes)
            for parameter in self._model.parameters()
        )

    def _save_model(self, step: int) -> None:
        # Under ZeRO-3 every rank takes part in gathering the weights.
        state = self.engine._zero3_consolidated_16bit_state_dict() if self._job.zero_stage == 3 else None
        folder = self._job.model_folder(step)
        if self._rank == 0:
            with room_for(f"the model after step {step}", folder, self._num_bytes(0)):
                save_model(self._model, state, self._job.config, self._job.base_model, folder)
        dist.barrier()
