"""DeepSpeed's configuration: where memory is, and what does not go together."""

from __future__ import annotations

import pytest

from longalign_core.config.runtime import Runtime
from longalign_core.errors import InputError
from longalign_core.training.deepspeed_config import check_memory_settings, deepspeed_config, num_data_ranks
from tests.tiny_training import training_config


def render(tmp_path, *, precision="bf16", **settings):
    runtime = Runtime(**settings)
    check_memory_settings(runtime)
    return deepspeed_config(training_config(tmp_path, precision=precision), runtime, 8, num_data_ranks(runtime, 8))


def test_num_ranks_counts_every_machine():
    assert num_data_ranks(Runtime(nodes=4, launcher="slurm", gpus=2), 8) == 8
    with pytest.raises(InputError, match=r"^LONGALIGN_NODES times LONGALIGN_GPUS is 6, .* allowed here: 1, 2, 4, 8"):
        num_data_ranks(Runtime(nodes=3, launcher="slurm", gpus=2), 8)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_deepspeed_config_optimizer_in_cpu_memory_uses_deepspeeds_adam(tmp_path, stage):
    rendered = render(tmp_path, gpus=2, zero_stage=stage, offload_optimizer="cpu")
    assert rendered["zero_optimization"]["offload_optimizer"]["device"] == "cpu"
    assert "offload_param" not in rendered["zero_optimization"] and "aio" not in rendered
    assert "torch_adam" not in rendered["optimizer"]["params"]
    assert rendered["bf16"] == {"enabled": True}


def test_deepspeed_config_nvme_names_the_folder_for_both(tmp_path):
    rendered = render(
        tmp_path, gpus=2, zero_stage=3, offload_optimizer="nvme", offload_parameters="nvme", offload_folder=tmp_path
    )
    zero = rendered["zero_optimization"]
    assert zero["offload_optimizer"]["nvme_path"] == zero["offload_param"]["nvme_path"] == str(tmp_path)
    assert rendered["aio"]["block_size"] == 1 << 20


@pytest.mark.parametrize("settings", [{}, {"offload_optimizer": "cpu"}, {"offload_parameters": "cpu"}])
def test_deepspeed_config_on_the_cpu_offloads_nothing(tmp_path, settings):
    rendered = render(tmp_path, gpus=0, zero_stage=3, **settings)
    assert not any(name.startswith("offload") for name in rendered["zero_optimization"])
    assert rendered["optimizer"]["params"]["torch_adam"] is True


def test_deepspeed_config_is_one_that_deepspeed_takes(tmp_path):
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    rendered = render(
        tmp_path, gpus=2, zero_stage=3, offload_optimizer="nvme", offload_parameters="cpu", offload_folder=tmp_path
    )
    zero = DeepSpeedZeroConfig(**rendered["zero_optimization"])
    assert zero.offload_optimizer.device == "nvme" and zero.offload_param.device == "cpu"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"offload_parameters": "cpu", "zero_stage": 2},
            "OFFLOAD_PARAMETERS=cpu needs LONGALIGN_ZERO_STAGE=3, found 2",
        ),
        ({"offload_optimizer": "nvme", "zero_stage": 2}, "OFFLOAD_OPTIMIZER=nvme needs LONGALIGN_ZERO_STAGE=3"),
        ({"offload_optimizer": "cpu", "zero_stage": 0}, "ZERO_STAGE from 1 to 3, found 0"),
        ({"offload_optimizer": "nvme", "zero_stage": 3}, "needs LONGALIGN_OFFLOAD_FOLDER"),
        ({"offload_optimizer": "nvme", "zero_stage": 3, "offload_folder": "/no/such"}, "/no/such is no folder"),
        ({"offload_activations": True}, "set LONGALIGN_GRADIENT_CHECKPOINTING=true too"),
    ],
)
def test_memory_settings_that_do_not_go_together_are_refused_in_a_sentence(settings, said):
    with pytest.raises(InputError, match=said):
        check_memory_settings(Runtime(gpus=2, **settings))
