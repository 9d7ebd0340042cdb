"""Made-up steps of a run, for tests of what is shown of one."""

from __future__ import annotations

from longalign_core.training.metrics import StepMetrics


def made_up_steps(count, *, on_gpu=False):
    """Steps of two ranks, of which the second works three quarters of the first's time."""
    return [
        StepMetrics(
            step=step,
            loss=4.0 / step,
            token_loss=3.0 / step,
            bucket_losses=(5.0 / step, None, 2.0 / step if step % 2 else None, None, None, None, 1.5),
            learning_rate=1e-5,
            grad_norm=0.5,
            seconds=2.0,
            tokens=1000,
            target_tokens=100,
            num_sequences=5,
            mfu=0.4 if on_gpu else None,
            allocated_bytes=2**31 if on_gpu else None,
            reserved_bytes=2**32 if on_gpu else None,
            rss_bytes=2**30,
            idle_measured=0.125,
            idle_predicted=0.1,
            rank_seconds=(1.6, 1.2),
            slowest_seconds=1.6,
            rank_costs=(1e12, 0.8e12),
            slowest_cost=1e12,
            slot_seconds=(1.6, 1.2),
        )
        for step in range(1, count + 1)
    ]
