"""Peak FLOPs of GPUs by the names that torch gives them."""

from __future__ import annotations

import pytest

from longalign_core.training.peak_flops import peak_flops


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA A100 80GB PCIe", 312.0),
        ("NVIDIA H100 80GB HBM3", 989.5),
        ("NVIDIA H100 PCIe", 756.5),
        ("NVIDIA H100 NVL", 835.5),
        ("NVIDIA H200", 989.5),
        ("NVIDIA L4", 121.0),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA A10", 125.0),
        ("NVIDIA B200", 2250.0),
    ],
)
def test_peak_flops_known_gpu(name, tflops):
    assert peak_flops(name, "bf16") == tflops * 1e12


@pytest.mark.parametrize("name", ["NVIDIA A10G", "NVIDIA A100-SXM4-40GB MIG 3g.20gb", "NVIDIA GeForce RTX 4090", ""])
def test_peak_flops_unknown_gpu_or_part_of_one_is_not_guessed(name):
    assert peak_flops(name, "bf16") is None


def test_peak_flops_fp32_is_not_guessed():
    assert peak_flops("NVIDIA H100 80GB HBM3", "fp32") is None
