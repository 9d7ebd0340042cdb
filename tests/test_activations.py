"""Activations in CPU memory: other places, the same gradients."""

from __future__ import annotations

import pytest
import torch

from longalign_core.training.model import load_model
from tests.tiny_training import write_model

TOKENS = torch.tensor([3, 9, 4, 17, 5, 8, 2])
POSITIONS = torch.tensor([0, 1, 2, 3, 0, 1, 2])
LABELS = torch.tensor([9, 4, 17, 0, 8, 2, 0])
WEIGHTS = torch.tensor([0.5, 0.5, 1.0, 0.0, 2.0, 1.0, 0.0])


def gradients(folder, *, offload, device):
    model = load_model(
        folder, precision="fp32", trust_remote_code=False, gradient_checkpointing=True, offload_activations=offload
    ).to(device)
    model.train()
    model(*(tensor.to(device) for tensor in (TOKENS, POSITIONS, LABELS, WEIGHTS)))[0].backward()
    return {name: parameter.grad.cpu() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_gradients_with_activations_offloaded_are_those_without(tmp_path, device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU here")
    write_model(tmp_path)
    plain, offloaded = (gradients(tmp_path, offload=offload, device=device) for offload in (False, True))
    assert all(torch.equal(plain[name], offloaded[name]) for name in plain)
