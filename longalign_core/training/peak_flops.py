"""What GPUs can do at most, for the model FLOPs utilisation."""

from __future__ import annotations

import re

# TFLOP/s of dense bf16 matrix products, as NVIDIA's data sheets give them (where a sheet gives the
# figure with sparsity, half of it). The first row whose words are all in the device's name counts.
_TFLOPS: tuple[tuple[tuple[str, ...], float], ...] = (
    (("B200",), 2250.0),
    (("GH200",), 989.5),
    (("H200", "NVL"), 835.5),
    (("H200",), 989.5),
    (("H100", "NVL"), 835.5),
    (("H100", "PCIE"), 756.5),
    (("H100",), 989.5),
    (("A100",), 312.0),
    (("A40",), 149.7),
    (("A30",), 165.0),
    (("A10",), 125.0),
    (("L40S",), 362.0),
    (("L4",), 121.0),
)


def peak_flops(device_name: str, precision: str) -> float | None:
    """FLOP/s of a whole GPU in a precision; None where no data sheet's figure is known here.

    Args:
        device_name: As torch.cuda.get_device_name gives it, like "NVIDIA H100 80GB HBM3".
        precision: Only bf16 is known: in fp32 it depends on whether products run in TF32.
    """
    words = set(re.split(r"[ _-]", device_name.upper()))
    if precision != "bf16" or "MIG" in words:
        return None
    return next((1e12 * tflops for names, tflops in _TFLOPS if words.issuperset(names)), None)
