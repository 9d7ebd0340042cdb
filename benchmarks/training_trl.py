"""One rank of TRL's SFTTrainer on the sequences of a token store, packed by its own rule, on a core of its own.

Started by torch's launcher as `python -m benchmarks.training_trl VALUES.json`; the values are what `main` takes.
Rank 0 writes the seconds of every optimizer step and the trained model.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.measuring import keep_to_core
from longalign_core.token_store import TokenStore


def main(
    *,
    trl: str,
    model: str,
    tokens: str,
    out_dir: str,
    capacity: int,
    accumulation: int,
    epochs: int,
    learning_rate: float,
) -> None:
    """Train as TRL does with `packing=True`: best fit decreasing, block-diagonal SDPA, its fused output layer.

    Args:
        trl: Folder that pip installed it to.
        model: Base model.
        tokens: Token store; labels are its target tokens.
        out_dir: Gets `steps.json` and `model`.
        capacity: Tokens of a pack.
        accumulation: Packs of one rank and step.
        epochs: Passes over the data.
        learning_rate: Constant.
    """
    sys.path.insert(0, trl)
    import datasets
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    keep_to_core(int(os.environ["LOCAL_RANK"]))
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    seconds: list[float] = []
    cpu_seconds: list[float] = []

    class StepTimes(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self._begun = time.perf_counter(), time.process_time()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            wall, cpu = self._begun
            seconds.append(time.perf_counter() - wall)
            cpu_seconds.append(time.process_time() - cpu)

    arguments = SFTConfig(
        output_dir=out_dir,
        packing=True,
        packing_strategy="bfd",
        max_length=capacity,
        shuffle_dataset=False,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=accumulation,
        num_train_epochs=epochs,
        learning_rate=learning_rate,
        lr_scheduler_type="constant",
        adam_beta1=0.9,
        adam_beta2=0.95,
        weight_decay=0.0,
        max_grad_norm=1.0,
        optim="adamw_torch",
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        ddp_backend="gloo",
        ddp_find_unused_parameters=False,
        dataloader_drop_last=False,
        dataloader_pin_memory=False,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=0,
    )
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="sdpa"),
        args=arguments,
        train_dataset=datasets.Dataset.from_list(_rows(TokenStore.open(Path(tokens)))),
        processing_class=AutoTokenizer.from_pretrained(model),
        callbacks=[StepTimes()],
    )
    trainer.train()
    if trainer.is_world_process_zero():
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        found = {
            "seconds": seconds,
            "cpu_seconds": sum(cpu_seconds),
            "losses": losses,
            "packs": epochs * len(trainer.train_dataset),
        }
        Path(out_dir, "steps.json").write_text(json.dumps(found))
        trainer.model.save_pretrained(Path(out_dir, "model"))


def _rows(store: TokenStore) -> list[dict[str, list[int]]]:
    rows = []
    for number in range(store.num_sequences):
        token_ids, is_target = store.sequence(number)
        labels = [token if trained else -100 for token, trained in zip(token_ids, is_target, strict=True)]
        rows.append({"input_ids": token_ids.tolist(), "labels": [int(label) for label in labels]})
    return rows


if __name__ == "__main__":
    main(**json.loads(Path(sys.argv[1]).read_text()))
