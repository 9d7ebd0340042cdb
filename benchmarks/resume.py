"""What a kill costs: losses of trainings that are killed and go on, beside the one that was not.

One small model, one plan. It is trained without a break on two ranks; killed at random steps by SIGKILL of
the launching process, each time started again, on the same ranks under each ZeRO stage; and killed once and
gone on with on one rank and on four. Writes, as JSON, the losses of every step and:

max_loss_difference  by run: the largest difference of a step's loss from the run without a break
steps_computed       by run: those computed again after a kill included
digest_seconds_per_gb  of a resume point's digests, by one process
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import random
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.training_inputs import VOCABULARY, Shape, write_model, write_tokens
from longalign_core.batch_plan import BatchPlan, EpochOrder
from longalign_core.config.runtime import Runtime
from longalign_core.config.training import Optimizer, TrainingConfig
from longalign_core.drawing import new_figure
from longalign_core.token_store import TokenStore
from longalign_core.training.deepspeed_config import deepspeed_config
from longalign_core.training.job import EVENTS_FILE, EventReader, TrainingJob
from longalign_core.training.launch import read_metrics
from longalign_core.training.preparation import carry_out
from longalign_core.training.resume import digest_files

PACKS_PER_STEP = 4
INTERVAL = 3
SHAPE = Shape(hidden=64, layers=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A training from its start to its end.

    Attributes:
        name: What it is called.
        zero_stage: DeepSpeed ZeRO stage.
        ranks: Of each start, the first included; every start but the last is killed.
    """

    name: str
    zero_stage: int
    ranks: tuple[int, ...]


RUNS = (
    Run(name="ZeRO-2, no break", zero_stage=2, ranks=(2,)),
    Run(name="ZeRO-2, killed twice", zero_stage=2, ranks=(2, 2, 2)),
    Run(name="ZeRO-2, 2 ranks, then 1", zero_stage=2, ranks=(2, 1)),
    Run(name="ZeRO-2, 2 ranks, then 4", zero_stage=2, ranks=(2, 4)),
    Run(name="ZeRO-1, killed, then 4 ranks", zero_stage=1, ranks=(2, 2, 4)),
    Run(name="ZeRO-3, killed, then 1 rank", zero_stage=3, ranks=(2, 2, 1)),
)
NUM_QUICK = 3


class World:
    """The model, its data and its plan."""

    def __init__(self, folder: Path, num_steps: int) -> None:
        self.folder, self.num_steps = folder, num_steps
        write_model(folder / "base", SHAPE)
        lengths = np.random.default_rng(0).integers(16, 128, 2 * PACKS_PER_STEP * num_steps)
        write_tokens(folder / "tokens", lengths, vocabulary=VOCABULARY, target_share=0.5, seed=0)
        store = TokenStore.open(folder / "tokens")
        BatchPlan.write(
            folder / "plan",
            strategy="naive",
            capacity=256,
            packs_per_step=PACKS_PER_STEP,
            alike=PACKS_PER_STEP,
            alpha=1.0,
            normaliser="step",
            seed=0,
            lengths=store.lengths,
            targets=store.targets,
            epochs=[EpochOrder.of_packs([(pack, pack + 1) for pack in range(0, len(lengths), 2)])],
        )

    def start(self, run: Run, ranks: int, out_dir: Path) -> None:
        """Train to the end, from where the start before left it."""
        config = TrainingConfig(
            base_model=str(self.folder / "base"), precision="fp32", optimizer=Optimizer(learning_rate=3e-3)
        )
        runtime = Runtime(gpus=0, ranks=ranks, zero_stage=run.zero_stage, scratch=self.folder / "scratch")
        job = TrainingJob(
            plan=self.folder / "plan",
            tokens=self.folder / "tokens",
            base_model=self.folder / "base",
            out_dir=out_dir,
            config=config,
            keep_steps=(),
            checkpoint_interval=INTERVAL,
            gradient_checkpointing=False,
            deepspeed=deepspeed_config(config, runtime, PACKS_PER_STEP, ranks),
        )
        carry_out(job, runtime, label=run.name, on_model=lambda step: None)

    def measure(self, run: Run, kill_at: list[int]) -> dict[str, Any]:
        """Its losses, and how many steps were computed."""
        out_dir = self.folder / run.name.replace(" ", "-")
        for number, ranks in enumerate(run.ranks):
            # Not forked: a child with threads of ours could hang.
            process = multiprocessing.get_context("spawn").Process(target=self.start, args=(run, ranks, out_dir))
            process.start()
            if number < len(kill_at):
                while process.is_alive() and _last_step(out_dir) < kill_at[number]:
                    time.sleep(0.01)
                if process.is_alive() and process.pid:
                    os.kill(process.pid, signal.SIGKILL)
            process.join()
            if process.exitcode and process.exitcode != -signal.SIGKILL:
                raise SystemExit(f"{run.name} failed; see {out_dir}")
        computed = sum(event["event"] == "step" for event in EventReader(out_dir / EVENTS_FILE).new())
        losses = [step.loss for step in read_metrics(out_dir)]
        return {"losses": losses, "steps_computed": computed, "killed_after": kill_at}


def _last_step(out_dir: Path) -> int:
    return max((event["step"] for event in EventReader(out_dir / EVENTS_FILE).new()), default=0)


def run_all(runs: tuple[Run, ...], num_steps: int, console: Console) -> dict[str, Any]:
    """All figures."""
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), num_steps)
        found: dict[str, dict[str, Any]] = {}
        for run in runs:
            kill_at = sorted(draw.sample(range(INTERVAL, num_steps - 1), len(run.ranks) - 1))
            found[run.name] = world.measure(run, kill_at)
            console.print(f"{run.name}: done, {found[run.name]['steps_computed']} steps computed", highlight=False)
        probe = Path(folder) / "probe"
        probe.write_bytes(bytes(1 << 28))
        started = time.perf_counter()
        digest_files(Path(folder), ["probe"])
        seconds = (time.perf_counter() - started) / (probe.stat().st_size / 1e9)
    whole = np.asarray(found[runs[0].name]["losses"])
    return {
        "max_loss_difference": {
            name: float(np.abs(np.asarray(one["losses"]) - whole).max()) for name, one in found.items()
        },
        "steps_computed": {name: one["steps_computed"] for name, one in found.items()},
        "killed_after": {name: one["killed_after"] for name, one in found.items()},
        "losses": {name: one["losses"] for name, one in found.items()},
        "digest_seconds_per_gb": round(seconds, 2),
        "platform": platform.platform(),
    }


def draw_curves(figures: dict[str, Any], file: Path) -> None:
    """The losses one over the other, and below how far each is from the first."""
    figure, axes = new_figure(4.0)
    whole = np.asarray(next(iter(figures["losses"].values())))
    steps = np.arange(1, len(whole) + 1)
    for number, (name, losses) in enumerate(figures["losses"].items()):
        difference = figures["max_loss_difference"][name]
        label = name if not number else f"{name}: at most {difference:.1e} apart"
        axes.plot(steps, losses, label=label, linewidth=6 - 0.9 * number, alpha=0.6)
        for kill in figures["killed_after"][name]:
            axes.axvline(kill + 0.5, color="0.7", linewidth=0.7, linestyle=":")
    axes.set(xlabel="step (dotted: SIGKILL)", ylabel="loss")
    axes.legend(fontsize=7)
    figure.savefig(file, dpi=150)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer runs; under three minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="draw the curves there")
    options = parser.parse_args()
    console = Console()
    figures = run_all(RUNS[:NUM_QUICK] if options.quick else RUNS, 12 if options.quick else 24, console)
    table = Table("run", "killed after step", "steps computed", "largest difference of a loss")
    for name, difference in figures["max_loss_difference"].items():
        kills = ", ".join(map(str, figures["killed_after"][name])) or "-"
        table.add_row(name, kills, str(figures["steps_computed"][name]), f"{difference:.1e}")
    console.print(table)
    if options.picture:
        draw_curves(figures, options.picture)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
