"""TRL's SFTTrainer with packing against ours: same base model, sequences, epochs and optimizer, two ranks each.

`python -m benchmarks.training_peer TOKENS MODEL...` prints each model's mean loss of a token store's targets.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.packing_peers import PeerError, fetch
from benchmarks.training_inputs import (
    CAPACITY,
    PACKS_PER_STEP,
    Shape,
    mix_lengths,
    model_config,
    plan_strategy,
    write_model,
    write_tokens,
)
from benchmarks.training_ranks import RANKS, ZERO_STAGE, RanksError, run_ranks, run_tasks, write_job
from longalign_core.batching.cost import CostModel
from longalign_core.token_store import TokenStore

TRL = ("trl==1.16.0",)
LEARNING_RATE = 3e-3


def compare_trl(
    shape: Shape, *, num_sequences: int, epochs: int, held_out: int, turns: int, folder: Path, cache: Path
) -> dict[str, Any]:
    """Train with both in turns, every token weighing the same (alpha 0), as it does for TRL.

    The sequences are few enough for one step to hold them all: whatever packs and order a trainer makes of them,
    every step has the same loss by its definition, and losses can be compared step by step.

    Raises:
        PeerError: TRL cannot be had, or fails.
    """
    trl = fetch(TRL, cache)
    model, tokens = folder / "model", folder / "tokens"
    write_model(model, shape)
    for name, number, seed in (("tokens", num_sequences, 0), ("held-out", held_out, 1)):
        write_tokens(folder / name, mix_lengths(number), vocabulary=shape.vocabulary, target_share=1.0, seed=seed)
    planned = plan_strategy(
        folder / "plan",
        tokens,
        "balanced",
        CostModel.from_model_config(model_config(shape)),
        ranks=RANKS,
        alpha=0.0,
        epochs=epochs,
    )
    ours, theirs = [], []
    for turn in range(turns):
        job = write_job(
            folder / f"ours-{turn}",
            plan=planned.plan,
            tokens=tokens,
            model=model,
            ranks=RANKS,
            zero_stage=ZERO_STAGE,
            learning_rate=LEARNING_RATE,
        )
        out_dir = folder / f"trl-{turn}"
        task = {"kind": "train", "job_file": str(job), "out_file": str(job.parent / "steps.json")}
        run_tasks([task], ranks=RANKS, folder=folder / f"our-ranks-{turn}")
        values = {
            "trl": str(trl),
            "model": str(model),
            "tokens": str(tokens),
            "out_dir": str(out_dir),
            "capacity": CAPACITY,
            "accumulation": PACKS_PER_STEP["bfd"] // RANKS,
            "epochs": epochs,
            "learning_rate": LEARNING_RATE,
        }
        try:
            run_ranks("benchmarks.training_trl", values, ranks=RANKS, folder=folder / f"trl-ranks-{turn}")
        except RanksError as error:
            raise PeerError(str(error).splitlines()[-1]) from error
        ours.append(json.loads((job.parent / "steps.json").read_text()))
        theirs.append(json.loads((out_dir / "steps.json").read_text()))
    one_step_each = {len(run["seconds"]) for run in (*ours, *theirs)} == {epochs}
    assert one_step_each, "an epoch is no single step; take fewer sequences"
    trained = [model, Path(ours[0]["model"]), folder / "trl-0" / "model"]
    losses = dict(zip(("base", "ours", "trl"), _held_out_losses(folder / "held-out", trained), strict=True))
    figures = {name: _of_trainer(runs, planned.real_tokens) for name, runs in (("ours", ours), ("trl", theirs))}
    return {
        "vs_trl": round(figures["ours"]["tokens_per_second"] / figures["trl"]["tokens_per_second"], 3),
        "vs_trl_by_cpu_time": round(figures["trl"]["cpu_seconds"] / figures["ours"]["cpu_seconds"], 3),
        "trl_loss_difference": max(
            abs(mine - other) / other for mine, other in zip(ours[0]["losses"], theirs[0]["losses"], strict=True)
        ),
        "trl": {
            **figures,
            "held_out_loss": {name: round(loss, 4) for name, loss in losses.items()},
            "sequences": num_sequences,
            "epochs": epochs,
            "package": TRL[0],
        },
    }


def _of_trainer(runs: list[dict[str, Any]], tokens: int) -> dict[str, Any]:
    seconds = [sum(run["seconds"]) for run in runs]
    return {
        "tokens_per_second": round(tokens / statistics.median(seconds), 1),
        "seconds": [round(one, 3) for one in seconds],
        # Of one rank, the leanest turn: other work on the machine hardly changes it.
        "cpu_seconds": round(min(run["cpu_seconds"] for run in runs), 3),
        "steps": len(runs[0]["seconds"]),
        "packs": runs[0]["packs"],
        "losses": [round(loss, 4) for loss in runs[0]["losses"]],
    }


def _held_out_losses(tokens: Path, models: list[Path]) -> list[float]:
    command = [sys.executable, "-m", "benchmarks.training_peer", str(tokens), *map(str, models)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).resolve().parent.parent)
    if done.returncode:
        raise SystemExit(f"the losses of held-out sequences failed:\n{done.stderr[-2000:]}")
    return list(json.loads(done.stdout.splitlines()[-1]))


def mean_loss(tokens: Path, folder: Path) -> float:
    """Mean loss of all target tokens, one sequence at a time, by plain transformers."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    store = TokenStore.open(tokens)
    total = 0.0
    with torch.no_grad():
        for number in range(store.num_sequences):
            ids, is_target = (torch.from_numpy(array) for array in store.sequence(number))
            logits = model(ids[None], use_cache=False).logits[0, :-1]
            losses = torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none")
            total += float(losses[is_target[1:]].sum())
    return total / int(store.targets.sum())


if __name__ == "__main__":
    store_folder, *model_folders = map(Path, sys.argv[1:])
    print(json.dumps([mean_loss(store_folder, one) for one in model_folders]))
