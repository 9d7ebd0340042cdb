"""Starting training: its configuration, its environment, its command lines."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

import pytest

from longalign_core.config.runtime import Runtime
from longalign_core.errors import InputError
from longalign_core.training.base_model import check_heads
from longalign_core.training.deepspeed_config import deepspeed_config, num_data_ranks
from longalign_core.training.launch import launch_command, remove_stale_locks, worker_environment
from longalign_core.training.worker import check_gpu
from tests.tiny_training import training_config


def test_num_ranks_without_gpus_are_cpu_processes_else_one_a_gpu():
    assert num_data_ranks(Runtime(ranks=2, gpus=0), 8) == 2
    assert num_data_ranks(Runtime(ranks=3, gpus=4), 8) == 4


def test_num_ranks_that_do_not_divide_the_step_are_refused_with_those_that_do():
    with pytest.raises(InputError, match=r"^LONGALIGN_RANKS is 3, .*packs_per_step 8; allowed here: 1, 2, 4, 8"):
        num_data_ranks(Runtime(ranks=3), 8)
    with pytest.raises(InputError, match=r"^LONGALIGN_GPUS is 16"):
        num_data_ranks(Runtime(gpus=16), 8)


def test_ranks_that_share_packs_are_fewer_side_by_side_and_must_fit_machines_and_step():
    assert num_data_ranks(Runtime(gpus=8, sequence_parallel=4), 8) == 2
    assert num_data_ranks(Runtime(gpus=8, nodes=2, launcher="slurm", sequence_parallel=8), 8) == 2
    with pytest.raises(InputError, match=r"^LONGALIGN_SEQUENCE_PARALLEL is 3, .* LONGALIGN_GPUS 8; allowed here: 1, 2"):
        num_data_ranks(Runtime(gpus=8, sequence_parallel=3), 8)
    with pytest.raises(
        InputError, match=r"^LONGALIGN_RANKS is 6, 2 to a pack, .*packs_per_step 8; allowed here: 2, 4, 8, 16$"
    ):
        num_data_ranks(Runtime(ranks=6, sequence_parallel=2), 8)


def test_ranks_that_share_packs_must_divide_the_attention_heads(tmp_path):
    (tmp_path / "config.json").write_text('{"num_attention_heads": 12}')
    check_heads(tmp_path, 4)
    with pytest.raises(InputError, match=r"is 8 but .* 12 attention heads.* allowed here: 1, 2, 3, 4, 6, 12"):
        check_heads(tmp_path, 8)


def test_deepspeed_config_batch_numbers_agree(tmp_path):
    rendered = deepspeed_config(training_config(tmp_path), Runtime(ranks=2), 8, 2)
    assert rendered["gradient_accumulation_steps"] * 2 * rendered["train_micro_batch_size_per_gpu"] == 8
    assert rendered["train_batch_size"] == 8
    assert rendered["bf16"] == {"enabled": False}


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


def test_launch_command_keeps_to_the_gpus_that_the_user_shows(tmp_path):
    command = launch_command(tmp_path / "job", 2, visible_gpus="4,7,9")
    world = next(part.removeprefix("--world_info=") for part in command if part.startswith("--world_info="))
    assert json.loads(base64.urlsafe_b64decode(world)) == {"node-0": ["4", "7"]}
    with pytest.raises(InputError, match="LONGALIGN_GPUS is 2 but CUDA_VISIBLE_DEVICES=4 shows 1"):
        launch_command(tmp_path / "job", 2, visible_gpus="4")


def test_check_gpu_rank_beyond_those_that_are_there_is_refused(monkeypatch):
    import torch

    monkeypatch.setenv("LOCAL_SIZE", "8")
    found = torch.cuda.device_count()
    with pytest.raises(InputError, match=rf"LONGALIGN_GPUS is 8 but this machine shows {found} GPUs"):
        check_gpu(found)


def test_worker_environment_finds_programs_beside_the_interpreter(tmp_path):
    found = worker_environment({"PATH": "/bin"}, ranks=1, on_gpu=True, extensions=tmp_path)
    assert found["PATH"].split(":") == [str(Path(sys.executable).parent), "/bin"]
    assert found["DS_ACCELERATOR"] == "cuda"


def test_worker_environment_on_several_machines_leaves_the_interface_to_gloo(tmp_path):
    alone, together = (
        worker_environment({}, ranks=1, on_gpu=False, extensions=tmp_path, nodes=nodes) for nodes in (1, 2)
    )
    assert "GLOO_SOCKET_IFNAME" not in together
    assert alone.get("GLOO_SOCKET_IFNAME") == ("lo" if sys.platform == "linux" else None)
