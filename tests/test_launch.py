"""Starting training: its configuration, its environment, and what is said when it fails."""

from __future__ import annotations

import re

import pytest

from longalign_core.config.runtime import Runtime
from longalign_core.errors import DataError, InputError, TrainingError
from longalign_core.training.deepspeed_config import deepspeed_config, num_ranks
from longalign_core.training.launch import (
    launch_command,
    log_cause,
    remove_stale_locks,
    training_failure,
    worker_environment,
)
from tests.tiny_training import training_config


def test_num_ranks_without_gpus_are_cpu_processes_else_one_a_gpu():
    assert num_ranks(Runtime(ranks=2, gpus=0), 8) == 2
    assert num_ranks(Runtime(ranks=3, gpus=4), 8) == 4


def test_num_ranks_that_do_not_divide_the_step_are_refused_with_those_that_do():
    with pytest.raises(InputError, match=r"^LONGALIGN_RANKS is 3, .*packs_per_step 8; allowed here: 1, 2, 4, 8"):
        num_ranks(Runtime(ranks=3), 8)
    with pytest.raises(InputError, match=r"^LONGALIGN_GPUS is 16"):
        num_ranks(Runtime(gpus=16), 8)


def test_deepspeed_config_batch_numbers_agree(tmp_path):
    rendered = deepspeed_config(training_config(tmp_path), Runtime(ranks=2), 8, 2)
    assert rendered["gradient_accumulation_steps"] * 2 * rendered["train_micro_batch_size_per_gpu"] == 8
    assert rendered["train_batch_size"] == 8
    assert rendered["bf16"] == {"enabled": False}


def test_deepspeed_config_offload_only_where_there_is_something_to_offload_from(tmp_path):
    config = training_config(tmp_path, precision="bf16")
    on_gpu = deepspeed_config(config, Runtime(gpus=2, zero_stage=3, offload=True), 8, 2)
    assert on_gpu["zero_optimization"]["offload_optimizer"]["device"] == "cpu"
    assert on_gpu["bf16"] == {"enabled": True}
    on_cpu = deepspeed_config(config, Runtime(gpus=0, zero_stage=3, offload=True), 8, 2)
    assert "offload_optimizer" not in on_cpu["zero_optimization"]


def test_launch_command_two_calls_take_different_ports(tmp_path):
    first, second = (launch_command(tmp_path / "job", 2) for _ in range(2))
    ports = [next(part for part in command if part.startswith("--master_port=")) for command in (first, second)]
    assert ports[0] != ports[1]


def test_worker_environment_on_the_cpu_hides_gpus_and_keeps_what_the_user_set(tmp_path):
    found = worker_environment(
        {"OMP_NUM_THREADS": "3", "PATH": "/bin"}, ranks=2, on_gpu=False, extensions=tmp_path / "x"
    )
    assert found["DS_ACCELERATOR"] == "cpu"
    assert found["OMP_NUM_THREADS"] == "3"
    assert found["TORCH_EXTENSIONS_DIR"] == str((tmp_path / "x").resolve())


def test_remove_stale_locks_leaves_what_was_built(tmp_path):
    built = tmp_path / "py311_cpu" / "cpu_adam"
    built.mkdir(parents=True)
    (built / "lock").touch()
    (built / "cpu_adam.so").touch()
    remove_stale_locks(tmp_path)
    assert [file.name for file in built.iterdir()] == ["cpu_adam.so"]
    remove_stale_locks(tmp_path / "not there")


def settings_named_in(error):
    """The runtime's settings that a message names, each of which exists."""
    assert "runtime." not in str(error)
    names = {name.lower() for name in re.findall(r"LONGALIGN_([A-Z_]+)", str(error))}
    assert names <= set(Runtime.model_fields)
    return names


def test_training_failure_that_a_rank_named_keeps_its_class_and_words():
    error = training_failure(1, [{"kind": "DataError", "message": "sequence 3 is odd"}], "")
    assert type(error) is DataError and str(error) == "sequence 3 is odd"


def test_training_failure_out_of_gpu_memory_says_what_to_change():
    error = training_failure(1, [{"kind": "OutOfMemoryError", "message": "Tried to allocate 2 GiB"}], "")
    assert type(error) is TrainingError
    assert "Tried to allocate 2 GiB" in str(error)
    assert {"gradient_checkpointing", "offload", "zero_stage", "gpus"} == settings_named_in(error)


@pytest.mark.parametrize("code", [247, 137])
def test_training_failure_killed_rank_is_named_so(code):
    error = training_failure(code, [], "loading\n")
    assert "was killed (signal 9)" in str(error)
    assert settings_named_in(error) == {"ranks"}


def test_training_failure_without_word_gives_the_logs_cause():
    log = "start\nTraceback (most recent call last):\n  File x\nRuntimeError: gloo lost a peer\n[launch] exits\n"
    assert str(training_failure(1, [], log)) == "training ended with exit code 1: RuntimeError: gloo lost a peer"
    assert log_cause("\n\n") == "the log is empty"
